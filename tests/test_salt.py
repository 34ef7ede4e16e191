"""Salt: networks by a list of channels with exact numbers of weights, pictures of 101 pixels, masks of mixed types, empty ones."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.training_data import run
from unetctl.errors import InputError
from unetctl.geometry.box import Box
from unetctl.jobs.benchmark_accuracy import accuracy
from unetctl.jobs.sample import make_sample
from unetctl.jobs.sample_salt import EMPTY_SHARE, section
from unetctl.metrics.overlap import Overlap, count_overlap
from unetctl.metrics.precision import IOU_THRESHOLDS, mean_precision, precision_over_iou
from unetctl.networks.build import build_network
from unetctl.networks.spec import UNetSpec
from unetctl.recipe import load_recipe
from unetctl.sources.coloured import coloured
from unetctl.sources.memory import MemorySource
from unetctl.training.load import load_selection
from unetctl.training.pairs import find_pairs
from unetctl.training.splits import Selection

TINY = (
    "--set", "network.channels=2,3", "--set", "train.steps_per_epoch=2", "--set", "train.warmup_steps=0", "--epochs", 1,
    "--batch", 2, "--set", "train.workers=0",
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)


@pytest.mark.parametrize(
    ("overrides", "num"),
    [((), 117_041), (("network.channels=16,32,64,128",), 482_033)],
)
def test_the_recipe_has_the_known_numbers_of_weights(overrides: tuple[str, ...], num: int):
    recipe = load_recipe("salt", overrides)
    assert recipe.network_spec.in_channels == 3
    assert sum(p.numel() for p in build_network(recipe.network_spec, 0).parameters()) == num


@pytest.mark.parametrize(("channels", "num"), [(1, 31_030_593), (3, 31_031_745)])
def test_the_papers_list_has_31_million(channels: int, num: int):
    """Counted without holding them: 3x3 convolutions with bias, 2x2 up-convolutions, a 1x1 head."""
    import torch

    with torch.device("meta"):
        from unetctl.networks.unet import UNet

        network = UNet(UNetSpec(channels, 1, (64, 128, 256, 512, 1024)))
    assert sum(p.numel() for p in network.parameters()) == num
    assert round(num / 1e6, 2) == 31.03


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_precision_is_a_tenth_for_every_threshold_above(both: int, only_found: int, only_true: int):
    counts = Overlap(both, only_found, only_true, 7)
    found = precision_over_iou(counts)
    if both + only_true == 0:
        assert found == (only_found == 0)
    else:
        iou = both / (both + only_found + only_true)
        assert found == pytest.approx(np.mean([iou > t for t in IOU_THRESHOLDS]))


def test_the_rule_for_empty_masks():
    empty, full = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    one = empty.copy()
    one[0, 0] = True
    cases = [(empty, empty, 1.0), (one, empty, 0.0), (empty, one, 0.0), (one, one, 1.0), (full, one, 0.0)]
    scores = [precision_over_iou(count_overlap(found, truth)) for found, truth, _ in cases]
    assert scores == [want for _, _, want in cases]
    assert mean_precision([count_overlap(found, truth) for found, truth, _ in cases]) == pytest.approx(2 / 5)
    with pytest.raises(InputError, match="no pictures"):
        mean_precision([])


def test_half_is_not_above_half():
    assert precision_over_iou(Overlap(1, 1, 0, 0)) == 0
    assert precision_over_iou(Overlap(51, 49, 0, 0)) == pytest.approx(0.1)


def test_sections_are_seeded_and_some_hold_no_salt():
    sections = [section((64, 80), 3, i) for i in range(24)]
    again = section((64, 80), 3, 5)
    assert np.array_equal(again.grey, sections[5].grey)
    assert np.array_equal(again.salt, sections[5].salt)
    assert not np.array_equal(section((64, 80), 4, 5).grey, again.grey)
    num_empty = sum(not s.salt.any() for s in sections)
    assert 0 < num_empty < len(sections) * (EMPTY_SHARE + 0.35)
    assert all(s.grey.std() > 3 for s in sections)


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as that of the challenge."""
    return make_sample("salt", tmp_path_factory.mktemp("salt") / "survey", (12, 45, 53), 1)


def _mode(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


def test_the_sample_is_laid_out_as_the_challenge(survey: Path):
    with Image.open(survey / "train/images/0000.png") as picture:
        assert (picture.mode, picture.size) == ("RGB", (53, 45))
        pixels = np.asarray(picture)
    assert (pixels == pixels[..., :1]).all()
    kinds = {_mode(path) for path in (survey / "train/masks").iterdir()}
    assert kinds == {"L", "I;16"}
    assert (survey / "depths.csv").read_text().startswith("id,z\n0000,")
    table = find_pairs(survey)
    assert (len(table), table.tables) == (12, (survey / "depths.csv",))
    assert any(line == "tables, not read: 1 (depths.csv)" for line in table.describe())
    assert {pair.split for pair in table} == {"train", "test"}


def test_masks_of_both_types_mean_the_same(survey: Path):
    recipe = load_recipe("salt")
    planes = [load_selection(Selection(pair, (0,)), recipe).planes[0] for pair in find_pairs(survey)]
    for i, plane in enumerate(planes):
        assert plane.pixels.shape == (3, 45, 53)
        assert np.array_equal(plane.target[0] > 0, section((45, 53), 1, int(plane.name[-4:])).salt), i
    assert any(not plane.target.any() for plane in planes)


def test_grey_pictures_are_taken_thrice(tmp_path: Path):
    array = np.random.default_rng(0).integers(0, 256, (2, 9, 11)).astype(np.uint8)
    source = coloured(MemorySource(array, "zyx"), 3)
    (image,) = source.info.images
    assert (image.axes, image.shape, image.is_rgb) == ("czyx", (3, 2, 9, 11), True)
    part = source.read(0, Box((1, 0, 2, 3), (3, 2, 7, 9)))
    assert np.array_equal(part, np.repeat(array[None, :, 2:7, 3:9], 2, 0))
    grey_alpha = MemorySource(np.stack([array, array * 0], 0)[:, 0], "cyx", channel_names=("grey", "alpha"))
    assert np.array_equal(coloured(grey_alpha, 3).read(0, Box((0, 0, 0), (3, 9, 11))), np.repeat(array[:1], 3, 0))
    plain = MemorySource(array, "cyx")
    assert coloured(plain, 3) is plain
    assert coloured(plain, 1) is plain


def test_training_predicting_and_scoring_take_any_size(survey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    told = run("train", "--data", survey, "--task", "salt", "-o", "trained", "--set", "train.crop=48,56", *TINY)
    assert told.exit_code == 0, told.stderr
    for words in ("tables, not read: 1 (depths.csv)", "planes hold background only", "mean_precision"):
        assert words in told.stderr
    picture = survey / "test/images/0004.png"
    with Image.open(picture) as image:
        grey = image.convert("L")
    grey.save("grey.png")
    for path, output in ((picture, "colour-mask.png"), ("grey.png", "grey-mask.png")):
        told = run("predict", path, "--task", "trained", "-o", output, "--keep", "probability", "--precision", "fp32")
        assert told.exit_code == 0, told.stderr
    with Image.open("colour-mask.png") as one, Image.open("grey-mask.png") as other:
        assert one.size == (53, 45)
        assert np.array_equal(np.asarray(one), np.asarray(other))
    report = accuracy("trained", survey, output=Path("scores"), device="cpu")
    assert (report.values["kind"], report.values["num_planes"]) == ("binary", 2)
    assert 0 <= report.values["mean_precision"]["shipped"] <= 1
    assert report.values["num_empty"] == sum(not section((45, 53), 1, i).salt.any() for i in (4, 9))
    assert any("mean precision over IoU" in line for line in report.lines())


def test_grey_pictures_train_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("images", "masks"):
        (tmp_path / "grey" / folder).mkdir(parents=True)
    for i in range(3):
        one = section((33, 41), 0, i)
        Image.fromarray(one.grey).save(tmp_path / f"grey/images/{i}.png")
        Image.fromarray(one.salt).save(tmp_path / f"grey/masks/{i}.png")
    told = run("train", "--data", "grey", "--task", "salt", "-o", "trained", "--set", "train.crop=36,44", *TINY)
    assert told.exit_code == 0, told.stderr


def test_a_sample_folder_is_put_once_and_never_over_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    words = ("sample", "salt", "--shape", "3,32,32", "-o", "mine")
    assert run(*words).stdout == "mine\n"
    content = {p: p.read_bytes() for p in sorted(Path("mine").rglob("*.*"))}
    assert run(*words).exit_code == 0
    assert run(*words, "--seed", 1).exit_code == 2
    assert {p: p.read_bytes() for p in sorted(Path("mine").rglob("*.*"))} == content
    assert run(*words, "--seed", 1, "--overwrite").exit_code == 0
    assert {p: p.read_bytes() for p in sorted(Path("mine").rglob("*.*"))} != content
    assert run("sample", "salt", "--shape", "32,32").exit_code == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine"]
