"""TensorBoard events, read back by TensorBoard."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from tensorboard.backend.event_processing.plugin_event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator as PluginAccumulator,
)
from tensorboard.plugins.hparams.metadata import (  # type: ignore[import-untyped]
    SESSION_START_INFO_TAG,
    parse_session_start_info_plugin_data,
)

from unetctl.errors import ResourceError
from unetctl.reports.training_page import Sample
from unetctl.training import board as board_module
from unetctl.training.board import MAX_PICTURES, MAX_SIDE_PX, Board, side_by_side

few = settings(deadline=None, max_examples=15)
RECIPE = '[task]\nname = "em"\n\n[train]\nlr = 0.003\nepochs = 64\nema = true\ncrop = [320, 320]\n'


def read(folder):
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    found.Reload()
    return found


def scalars(folder, tag):
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def sample(name, shape=(20, 30)):
    picture = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    return Sample(name, picture, picture[::-1].copy(), 255 - picture)


def train(folder, first, last, checkpoints=5):
    """Draws steps first + 1 .. last, an epoch every `checkpoints`; the value tells which execution drew it."""
    with Board(folder) as board:
        for step in range(first + 1, last + 1):
            board.step(step, {"loss": step + first / 1000})
            if step % checkpoints == 0:
                board.epoch(step // checkpoints, {"epoch": 0, "loss": first, "v_rand": step})
                board.pictures(step // checkpoints, [sample("slice 22")])


def test_what_is_drawn_is_read(tmp_path):
    with Board(tmp_path) as board:
        board.step(10, {"loss": 0.5, "Mpx/s": 1.25})
        board.step(20, {"loss": 0.25, "Mpx/s": 1.5})
        board.epoch(1, {"epoch": 1, "loss": 0.375, "v_rand": 0.75})
    assert scalars(tmp_path / "steps", "step/loss") == [(10, 0.5), (20, 0.25)]
    assert scalars(tmp_path / "steps", "step/Mpx per s") == [(10, 1.25), (20, 1.5)]
    assert read(tmp_path / "epochs").Tags()["scalars"] == ["epoch/loss", "epoch/v_rand"]
    assert scalars(tmp_path / "epochs", "epoch/v_rand") == [(1, 0.75)]


def test_a_record_is_in_the_file_when_the_call_returns(tmp_path):
    board = Board(tmp_path)
    board.step(1, {"loss": 1.0})
    board.epoch(1, {"loss": 1.0})
    shutil.copytree(tmp_path, tmp_path.with_name("killed"))  # nothing was closed
    board.close()
    assert scalars(tmp_path.with_name("killed") / "steps", "step/loss") == [(1, 1.0)]
    assert scalars(tmp_path.with_name("killed") / "epochs", "epoch/loss") == [(1, 1.0)]


@few
@given(data=st.data())
def test_a_run_resumed_again_and_again_shows_each_step_once(tmp_path_factory, data):
    folder, done = tmp_path_factory.mktemp("board"), 0
    drawn_by: dict[int, int] = {}
    for _ in range(data.draw(st.integers(1, 4))):
        last = done + data.draw(st.integers(1, 23))
        train(folder, done, last)
        drawn_by |= {step: done for step in range(done + 1, last + 1)}
        for step in [step for step in drawn_by if step > last]:
            del drawn_by[step]
        done = data.draw(st.sampled_from([last, last // 5 * 5]))
    steps = scalars(folder / "steps", "step/loss")
    assert [step for step, _ in steps] == sorted(drawn_by)
    assert [value for _, value in steps] == pytest.approx([s + by / 1000 for s, by in sorted(drawn_by.items())])
    if any(step % 5 == 0 for step in drawn_by):
        epochs = list(range(1, max(drawn_by) // 5 + 1))
        assert [epoch for epoch, _ in scalars(folder / "epochs", "epoch/v_rand")] == epochs
        assert [image.step for image in read(folder / "epochs").Images("samples/slice 22")] == epochs


@pytest.mark.parametrize("accumulator", [EventAccumulator, PluginAccumulator])
def test_a_record_torn_by_a_kill_is_passed_over(tmp_path, accumulator):
    train(tmp_path, 0, 13)
    (file,) = (tmp_path / "steps").iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    train(tmp_path, 10, 20)
    found = accumulator(str(tmp_path / "steps"))
    found.Reload()
    events = found.Scalars("step/loss") if accumulator is EventAccumulator else found.Tensors("step/loss")
    assert [event.step for event in events] == list(range(1, 21))


def test_later_files_sort_after_earlier_ones_whatever_the_clock_says(tmp_path, monkeypatch):
    for now in (2e9, 1e9, 1.5e9):
        monkeypatch.setattr("time.time", lambda now=now: now)
        with Board(tmp_path) as board:
            board.step(int(now), {"loss": 0.0})
    names = sorted(path.name for path in (tmp_path / "steps").iterdir())
    assert [name.split(".")[3] for name in names] == ["2000000000", "2000000001", "2000000002"]


def test_nothing_drawn_makes_no_file(tmp_path):
    with Board(tmp_path / "board") as board:
        board.step(1, {})
        board.pictures(1, [])
    board.close()
    assert not (tmp_path / "board").exists()


def test_pictures_stand_side_by_side(tmp_path):
    shown = sample("slice 22")
    with Board(tmp_path) as board:
        board.pictures(3, [shown, *(sample(str(i)) for i in range(20))])
    found = read(tmp_path / "epochs")
    assert len(found.Tags()["images"]) == MAX_PICTURES
    (event,) = found.Images("samples/slice 22")
    picture = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
    assert event.step == 3
    assert picture.shape == (event.height, event.width)
    for i, expected in enumerate((shown.input, shown.label, shown.output)):
        np.testing.assert_array_equal(picture[:, i * 36 : i * 36 + 30], expected)


@few
@given(
    st.lists(
        st.tuples(st.integers(1, 900), st.integers(1, 900), st.sampled_from([(), (3,)])),
        min_size=1,
        max_size=3,
    )
)
def test_side_by_side_fits_pictures_of_all_sizes(shapes):
    pictures = [np.full((height, width, *colours), 5, np.uint8) for height, width, colours in shapes]
    panel = side_by_side(pictures)
    assert panel.height <= MAX_SIDE_PX
    assert panel.width <= len(pictures) * MAX_SIDE_PX + 6 * (len(pictures) - 1)
    assert panel.mode == ("RGB" if any(picture.ndim == 3 for picture in pictures) else "L")
    values = np.asarray(panel)
    assert set(np.unique(values)) <= {5, 128}
    assert (values[0, 0] == 5).all()


def test_the_recipe_is_text_and_hyper_parameters(tmp_path):
    with Board(tmp_path) as board:
        board.recipe(RECIPE, {"v_rand": 0.5})
    folder = tmp_path / "recipe"
    assert scalars(folder, "best/v_rand") == [(0, 0.5)]
    found = PluginAccumulator(str(folder))
    found.Reload()
    (text,) = found.Tensors("recipe/text_summary")
    assert [line.strip() for line in text.tensor_proto.string_val[0].decode().splitlines()] == RECIPE.splitlines()
    content = found.SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content
    settings_ = parse_session_start_info_plugin_data(content).hparams
    assert settings_["train.lr"].number_value == 0.003
    assert settings_["train.epochs"].number_value == 64
    assert settings_["train.ema"].string_value == "true"
    assert settings_["train.crop"].string_value == "[320, 320]"
    assert settings_["task.name"].string_value == "em"


def test_the_recipe_is_shown_once_however_often_it_is_told(tmp_path):
    for _ in range(2):
        with Board(tmp_path) as board:
            board.recipe(RECIPE, {"v_rand": 0.25})
            board.recipe(RECIPE, {"v_rand": 0.5})
    assert scalars(tmp_path / "recipe", "best/v_rand") == [(0, 0.5)]
    found = PluginAccumulator(str(tmp_path / "recipe"))
    found.Reload()
    assert len(found.Tensors("recipe/text_summary")) == 1


def test_a_folder_that_cannot_be_written_is_said_in_one_sentence(tmp_path):
    (tmp_path / "board").write_text("a file")
    with pytest.raises(ResourceError, match=r"TensorBoard events in .*steps cannot be written.*run the same command"):
        Board(tmp_path / "board").step(1, {"loss": 1.0})


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the platform has no full device")
def test_a_full_disk_is_said_once_and_closing_is_quiet(tmp_path, monkeypatch):
    with Path("/dev/full").open("wb") as full:
        monkeypatch.setattr(board_module._Stream, "_opened", lambda self: full)
        with pytest.raises(ResourceError, match="No space left"), Board(tmp_path) as board:
            board.step(1, {"loss": 1.0})
        board.close()
        assert full.closed
