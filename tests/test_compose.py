"""Pictures composed from one shape: seeded, alike however they are shared out, with masks that fit; and learning from them."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.training_data import run
from unetctl.errors import UsageError
from unetctl.jobs.benchmark_composites import match
from unetctl.jobs.sample_logo import emblem
from unetctl.jobs.train_compose import composer_of
from unetctl.recipe import load_recipe
from unetctl.recipe.compose_section import Compose
from unetctl.training.compose import (
    TEST,
    TRAINING,
    VALIDATION,
    ComposedSet,
    Composer,
    Composite,
    composed_planes,
    composites,
)
from unetctl.training.losses import balance
from unetctl.training.shape import HALF, Shape

TINY = (
    "--set", "network.base_width=2", "--set", "network.depth=2", "--set", "train.steps_per_epoch=2", "--epochs", 1,
    "--batch", 2, "--crop", 32, "--set", "train.warmup_steps=0", "--set", "compose.num_val=2", "--set", "compose.num_test=4",
    "--set", "compose.picture=40,50", "--set", "compose.size_px=12,30", "--set", "train.workers=0",
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)


def a_shape(size: int = 48) -> Shape:
    pixels = emblem((size, size), 0).astype(np.float32) / 255
    colour, alpha = np.moveaxis(pixels[..., :3], -1, 0), pixels[..., 3]
    return Shape(np.array(colour, np.float32), np.array(alpha, np.float32), "its alpha channel", "emblem")


def composer(**options: object) -> Composer:
    return Composer(a_shape(), Compose(kind="paste", **{"size_px": (16.0, 40.0), **options}))  # type: ignore[arg-type]


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.integers(20, 90), st.integers(20, 90))
def test_a_picture_is_a_function_of_its_seed(seed: int, height: int, width: int):
    make = composer()
    one, again = (make((height, width), np.random.default_rng(seed)) for _ in range(2))
    assert one.pixels.shape == (3, height, width)
    assert one.mask.shape == (height, width)
    assert one.pixels.dtype == np.uint8
    assert np.array_equal(one.pixels, again.pixels)
    assert np.array_equal(one.mask, again.mask)


def test_the_mask_is_where_the_shape_is():
    """On a plain ground without light, noise or other things only the shape differs from the ground."""
    make = composer(light=0.0, distractors=0, negatives=0.0)
    make.photos = (np.full((3, 80, 80), 0.5, np.float32),)
    for seed in range(12):
        found = make((80, 80), np.random.default_rng(seed))
        differs = np.abs(found.pixels.astype(int) - 128).max(0) > 40
        inside = found.mask
        assert 0.6 < differs[inside].mean() <= 1  # some of its colours are near the ground's
        assert differs[~inside].mean() < 0.1
        assert 16 * 16 * 0.3 < inside.sum() < 40 * 40


def test_negatives_have_no_shape_and_streams_nothing_in_common():
    make = composer(negatives=0.5)
    found = list(composites(make, (64, 64), VALIDATION, 40))
    assert 8 <= sum(not one.mask.any() for one in found) <= 32
    others = [c.pixels.tobytes() for stream in (TEST, TRAINING) for c in composites(make, (64, 64), stream, 40)]
    assert not {one.pixels.tobytes() for one in found} & set(others)
    assert not any(one.mask.any() for one in composites(composer(negatives=0.99), (64, 64), TEST, 10))


def test_sizes_are_those_of_the_recipe():
    make = composer(size_px=(20.0, 30.0), rotate_deg=0.0, perspective=0.0, negatives=0.0, distractors=0)
    shape = a_shape()
    covered = float((shape.alpha >= HALF).mean()) * shape.size[0] / shape.size[1]
    areas = [one.mask.sum() / covered for one in composites(make, (96, 96), TEST, 20)]
    sides = np.sqrt([a for a in areas if a > 300])
    assert 17 < sides.min() < sides.max() < 33


def test_samples_do_not_depend_on_how_a_batch_is_shared():
    recipe = load_recipe("logo")
    crops = ComposedSet(composer(), recipe, (32, 48), (0, 0), (4, 4))
    whole, part = crops.sample((7, 3), 4), crops.sample((7, 3), 2, first=2)
    assert whole.pixels.shape == (4, 3, 40, 56)
    assert whole.targets.shape == (4, 1, 40, 56)
    assert np.array_equal(whole.pixels[2:], part.pixels)
    assert np.array_equal(whole.targets[2:], part.targets)
    assert not np.array_equal(whole.pixels[0], crops.sample((7, 4), 1).pixels[0])
    assert float(whole.pixels.min()) >= 0
    assert float(whole.pixels.max()) <= 1
    with_halo = ComposedSet(composer(), recipe, (32, 48), (8, 8), (4, 4)).sample((7, 3), 1)
    assert (with_halo.pixels.shape, with_halo.targets.shape) == ((1, 3, 56, 72), (1, 1, 40, 56))


def test_the_weight_of_the_shape_is_counted():
    recipe = load_recipe("logo", ["compose.picture=64,64"])
    planes = composed_planes(composer(), recipe, TRAINING, 16)
    num = sum(int(plane.target.sum()) for plane in planes)
    assert balance(planes) == pytest.approx((16 * 64 * 64 - num) / num)
    empty = composed_planes(composer(negatives=0.99), recipe, TRAINING, 3)
    with pytest.raises(UsageError, match="hold no foreground"):
        balance(empty)


def test_template_matching_finds_the_plain_shape():
    make, shape = composer(negatives=0.0, rotate_deg=0.0, distractors=0, light=0.0), a_shape()
    make.photos = (np.full((3, 80, 80), 0.5, np.float32),)
    found = make((80, 80), np.random.default_rng(3))
    score, mask = match(found, shape, make.options)
    assert score > 0.8
    assert (mask & found.mask).sum() / (mask | found.mask).sum() > 0.7
    blank = Composite(np.full((3, 80, 80), 128, np.uint8), np.zeros((80, 80), bool))
    assert match(blank, shape, make.options)[0] < 0.5


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["compose.size_px=200,30"], "did you mean [30.0, 200.0]?"),
        (["input.stack=true"], '"paste" with planes of a stack'),
        (["compose.kind=none"], "[compose]: given with kind"),
        (["train.focus=0.5"], "train.focus"),
        (["output.classes=a,b", "labels.kind=classes"], '"paste" with 2 classes'),
        (["compose.negatives=1"], "compose.negatives"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(overrides: list[str], words: str):
    with pytest.raises(UsageError) as told:
        load_recipe("logo", overrides)
    assert words in str(told.value)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(emblem((48, 48), 0)).save("logo.png")
    return tmp_path


def test_one_picture_is_enough(here: Path):
    told = run("train", "--data", "logo.png", *TINY)
    assert (told.exit_code, told.stdout) == (0, "logo-logo\n"), told.stderr
    for words in ("task logo: logo.png is one picture", "by its alpha channel", "composed from logo.png", "iou"):
        assert words in told.stderr
    assert json.loads((here / "logo-logo/split.json").read_text())["val"] == ["held out[0:2]"]
    again = run("train", "--data", "logo.png", *TINY)
    assert again.exit_code == 0, again.stderr
    assert "holds a training run with another" not in again.stderr
    scored = run("benchmark", "accuracy", "--task", "logo-logo", "--data", "logo.png", "-o", "scores", "--json")
    assert scored.exit_code == 0, scored.stderr
    values = json.loads(scored.stdout)
    assert (values["kind"], values["num_planes"], values["num_with"] + values["num_without"]) == ("shape", 4, 4)
    assert {"iou", "mean_iou", "false_alarms"} <= values["network"].keys() & values["template"].keys()
    assert len((here / "scores/accuracy.csv").read_text().splitlines()) == 1 + 2 * 4


def test_folders_of_backgrounds_are_pasted_onto(here: Path):
    (here / "photos").mkdir()
    for i in range(3):
        Image.fromarray(np.full((30 + 40 * i, 50, 3), 80 * i, np.uint8)).save(here / f"photos/{i}.png")
    (here / "photos/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    recipe = load_recipe("logo", ["compose.backgrounds=photos", "compose.distractors=0", "compose.light=0"])
    notes: list[str] = []
    make = composer_of(
        Path("logo.png"), recipe, lambda event: notes.append(str(getattr(event, "text", ""))), lambda: False
    )
    assert len(make.photos) == 3
    assert any("broken.png is left out" in note for note in notes)
    greys = {int(np.median(one.pixels)) for one in composites(make, (64, 64), TEST, 12)}
    assert greys <= {v + d for v in (0, 80, 160) for d in range(-6, 7)}
    assert len(greys) > 1
    told = run("train", "--data", "logo.png", *TINY, "--set", "compose.backgrounds=nowhere")
    assert (told.exit_code, "there is no folder nowhere" in told.stderr) == (4, True)


def test_what_is_no_shape_is_said_before_anything_is_written(here: Path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save("noise.png")
    told = run("train", "--data", "noise.png", *TINY)
    assert (told.exit_code, "of its border is of one colour" in told.stderr) == (4, True)
    told = run("train", "--data", "logo.png", "--task", "salt")
    assert (told.exit_code, "one picture of a shape is for --task logo" in told.stderr) == (2, True)
    assert not any(p.is_dir() for p in here.iterdir())


def test_composer_of_says_how_it_was_cut_out(here: Path):
    notes: list[str] = []
    composer_of(
        Path("logo.png"),
        load_recipe("logo"),
        lambda event: notes.append(str(getattr(event, "text", ""))),
        lambda: False,
    )
    assert notes[0].startswith("logo.png: a shape of ")
