"""Recipes that are worked out from the data: colours, counts, regions, and the recipe itself."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.training_data import coloured, grey, run, save
from unetctl.errors import InputError, UsageError
from unetctl.jobs.train_task import Search, recipe_for, task_for
from unetctl.recipe.load import recipe_from_dict
from unetctl.runtime.events import Event, Note
from unetctl.training.colours import classes_of_colours, count_colours
from unetctl.training.crops import Plane
from unetctl.training.decide import Fingerprint, decide
from unetctl.training.derive import Derived, Means, derive
from unetctl.training.fingerprint import fingerprint
from unetctl.training.pairs import find_pairs
from unetctl.training.regions import parted
from unetctl.training.tally import MOST_COLOURS, Tally, tally

PALETTE = ("#000000", "#ff0000", "#00ff00", "#0000ff")
PLAIN = Means()
PHOTO = Fingerprint(10, 8, 3, True, 1, True, "few numbers", 3, size_px=(300, 400), smallest_side_px=280, object_px=40.0)


def drawn(classes: Any, palette: tuple[str, ...] = PALETTE) -> Any:
    table = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in palette], np.uint8)
    return table[classes]


def painted(i: int) -> tuple[Any, Any]:
    picture, classes = coloured(i)
    return picture, drawn(classes)


def big(make: Any, times: int = 4) -> Any:
    def made(i: int) -> tuple[Any, Any]:
        picture, labels = make(i)
        return picture.repeat(times, 0).repeat(times, 1), labels.repeat(times, 0).repeat(times, 1)

    return made


def stored(folder: Path, make: Any, num: int = 3) -> Path:
    for i in range(num):
        picture, labels = make(i)
        save(folder / "images" / f"p{i}.png", picture)
        save(folder / "labels" / f"p{i}.png", labels)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@given(seed=st.integers(0, 10**6), num=st.integers(1, 4), ignored=st.booleans())
@settings(max_examples=25, deadline=None)
def test_drawn_classes_come_back_as_they_were(seed, num, ignored):
    classes = np.random.default_rng(seed).integers(0, num, (7, 9))
    pixels = np.moveaxis(drawn(classes), -1, 0).copy()
    is_unknown = np.zeros(classes.shape, bool)
    if ignored:
        is_unknown[::3, ::2] = True
        pixels[:, is_unknown] = 255
    found, where = classes_of_colours(pixels, PALETTE, "#ffffff" if ignored else None, "x.png")
    assert np.array_equal(found, np.where(is_unknown, 0, classes))
    assert np.array_equal(where, is_unknown)
    assert sum(count_colours(pixels).values()) == classes.size


def test_a_colour_that_nobody_named_is_told_with_its_share():
    pixels = np.moveaxis(drawn(np.array([[0, 1], [2, 3]])), -1, 0)
    with pytest.raises(InputError, match=r"x\.png hold the colours #0000ff \(25\.00% of the pixels\)"):
        classes_of_colours(pixels, PALETTE[:3], None, "x.png")
    noisy = np.random.default_rng(0).integers(0, 256, (3, 20, 20))
    with pytest.raises(InputError, match="and 392 more") as smeared:
        classes_of_colours(noisy, PALETTE, None, "x.png")
    assert "JPEG" in smeared.value.hint


def test_all_labels_are_counted_not_a_sample(tmp_path):
    stored(tmp_path, painted, 12)
    rare = np.zeros((40, 48), int)
    rare[0, 0] = 1
    save(tmp_path / "labels" / "p7.png", drawn(rare, ("#102030", "#405060")))
    counted = tally(find_pairs(tmp_path).pairs)
    assert set(counted.colours) == {*PALETTE, "#102030", "#405060"}
    assert counted.colours["#405060"] == 1
    assert counted.num_planes == 12
    assert "6 colours" in counted.describe()


def test_a_colour_table_counts_by_its_numbers_unless_files_disagree(tmp_path):
    def indexed(folder: Path, tables: list[list[int]]) -> Tally:
        for i, table in enumerate(tables):
            save(folder / "images" / f"p{i}.png", coloured(i)[0])
            entries = Image.fromarray(coloured(i)[1], "P")
            entries.putpalette(table)
            (folder / "labels").mkdir(exist_ok=True)
            entries.save(folder / "labels" / f"p{i}.png")
        return tally(find_pairs(folder).pairs)

    table = [0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255]
    assert set(indexed(tmp_path / "same", [table, table]).numbers) == {0, 1, 2, 3}
    other = [0, 0, 255, 255, 0, 0, 0, 255, 0, 0, 0, 0]
    assert set(indexed(tmp_path / "mixed", [table, other]).colours) == set(PALETTE)


def test_pictures_for_labels_stop_the_count(tmp_path):
    stored(tmp_path, lambda i: (coloured(i)[0], coloured(i)[0]))
    counted = tally(find_pairs(tmp_path).pairs)
    assert counted.is_open
    assert counted.num_planes == 1


@pytest.mark.parametrize(
    ("numbers", "ignored"),
    [
        ((0, 1, 255), 255),
        ((0, 1, 2, 255), 255),
        ((0, 255), None),
        ((0, 85, 170, 255), None),
        ((0, 1, 2), None),
        ((1, 2, 255), None),
    ],
)
def test_255_beside_numbered_classes_means_unknown(numbers, ignored):
    assert Tally(dict.fromkeys(numbers, 5), {}, 1, has_unknown=True).ignored == ignored
    assert Tally(dict.fromkeys(numbers, 5), {}, 1).ignored is None  # never beside another number: just another mark


DTYPES = st.sampled_from(["uint8", "uint16", "float32"])


@st.composite
def looks(draw: st.DrawFn) -> tuple[Fingerprint, Tally, Means]:
    numbers = draw(st.lists(st.integers(0, 255), min_size=2, max_size=9, unique=True).map(sorted))
    as_colours = draw(st.booleans())
    channels = draw(st.sampled_from([1, 2, 3, 4, 7]))
    side = draw(st.integers(4, 3000))
    found = Fingerprint(
        10, 8, channels, channels in (3, 4) and draw(st.booleans()), draw(st.integers(1, 40)), True,
        "few colours" if as_colours else "few numbers" if len(numbers) > 2 else "two values", numbers[-1],
        dtype_name=draw(DTYPES), size_px=(side, side + draw(st.integers(0, 900))), smallest_side_px=side,
        object_px=draw(st.floats(0, 300)), upright=draw(st.floats(0.2, 5)), highlight=draw(st.floats(0, 50)),
    )  # fmt: skip
    counts = [draw(st.integers(1, 10**6)) for _ in numbers]
    colours = {f"#0000{number:02x}": n for number, n in zip(numbers, counts, strict=True)} if as_colours else {}
    counted = Tally({} if as_colours else dict(zip(numbers, counts, strict=True)), colours, draw(st.integers(1, 5000)))
    memory = draw(st.none() | st.integers(2**28, 2**38))
    return found, counted, Means(draw(st.booleans()), memory)


@given(looks())
@settings(max_examples=150, deadline=None)
def test_whatever_the_data_look_like_the_recipe_is_sound(found_counted_means):
    found, counted, means = found_counted_means
    derived = derive(decide(found), found, counted, means)
    recipe = recipe_from_dict(derived.values, "derived")
    stride = recipe.network_spec.stride[0]
    assert recipe.train.crop[0] == recipe.train.crop[1] <= max(stride, found.smallest_side_px)
    assert recipe.train.crop[0] % stride == 0
    assert recipe_from_dict(recipe.to_dict(), "again") == recipe
    num = len(counted.colours) or len([n for n in counted.numbers if n != counted.ignored])
    assert recipe.output.num_channels == (1 if num <= 2 else num)
    known = recipe.labels.colours or recipe.labels.values or range(num)
    assert len(known) == max(2, num) or num == 1
    assert derived.reasons


def test_what_the_data_decide():
    def values(found: Fingerprint = PHOTO, means: Means = PLAIN, **counts: int) -> dict[str, dict[str, Any]]:
        numbers = {int(name[1:]): n for name, n in counts.items()} or {0: 500, 1: 300, 2: 200}
        return derive(decide(found), found, Tally(numbers, {}, 40, has_unknown=255 in numbers), means).values

    assert values()["network"]["depth"] == 4
    assert values(replace(PHOTO, object_px=9.0))["network"]["depth"] == 3
    assert values(replace(PHOTO, smallest_side_px=33))["network"]["depth"] == 3
    assert values(replace(PHOTO, smallest_side_px=101))["train"]["crop"] == [96, 96]
    assert values(n0=90, n1=9, n2=1)["loss"]["class_balance"] is True
    assert "class_balance" not in values()["loss"]
    assert values(n0=9, n1=9, n255=9)["labels"] == {"kind": "binary", "ignore": 255, "values": [0, 1]}
    assert values(replace(PHOTO, upright=2.0))["augment"].keys().isdisjoint({"flip", "rotate"})
    assert values()["augment"]["flip"] is True
    assert values(replace(PHOTO, highlight=20.0))["normalise"]["method"] == "percentile"
    assert values()["normalise"]["method"] == "range"
    assert values(replace(PHOTO, has_colour=False))["input"]["luminance"] is True
    assert values(means=Means(is_gpu=True))["network"]["base_width"] == 32
    small = values(means=Means(memory_bytes=2**30))
    assert small["network"]["base_width"] * small["train"]["batch"] * small["train"]["crop"][0] ** 2 * 200 <= 2**29


def test_a_picture_alone_is_parted_where_its_labels_are():
    target = np.zeros((1, 200, 400), np.uint8)
    target[0, :, 250:] = 1
    pixels = np.arange(80_000, dtype=np.float32).reshape(1, 200, 400)
    weights = pixels + 1
    parts = parted(Plane("p", pixels, target, weights), 0.1)
    assert parts is not None
    train, val = parts.train, parts.val
    assert (train.size, val.size) == ((200, 320), (200, 80))
    assert np.array_equal(np.concatenate((train.pixels, val.pixels), 2), pixels)
    assert train.weights is not None
    assert np.array_equal(train.weights, train.pixels + 1)
    assert val.target.all()
    assert "its columns 320:400 are held out" in str(parts)
    assert (train.name, val.name) == ("p columns 0:320", "p columns 320:400")
    upright = parted(Plane("p", pixels.transpose(0, 2, 1).copy(), target.transpose(0, 2, 1).copy()), 0.5)
    assert upright is not None
    assert upright.train.size == upright.val.size == (200, 200)
    assert parted(Plane("p", pixels[:, :100, :100], target[:, :100, :100]), 0.1) is None


@pytest.mark.parametrize(
    ("make", "task", "num_classes"),
    [(big(coloured), "classes", 4), (big(painted), "classes", 4), (big(grey), "segmentation", 1)],
)
def test_data_of_no_shipped_kind_get_a_recipe_of_their_own(here, make, task, num_classes):
    notes: list[Event] = []
    derived = task_for(Search(stored(here / "x", make)), emit=notes.append)
    assert isinstance(derived, Derived)
    recipe = recipe_for(derived, ["train.lr=0.5"])
    assert (recipe.task.name, recipe.output.num_channels, recipe.train.lr) == (task, num_classes, 0.5)
    texts = [note.text for note in notes if isinstance(note, Note)]
    assert any(text.startswith("a recipe is worked out: the data are") for text in texts)
    assert [text.strip() for text in texts[-len(derived.reasons) :]] == list(derived.reasons)
    assert derived == task_for(Search(here / "x"))  # the same command finds the same recipe


def test_the_weights_to_begin_with_bring_their_recipe_if_the_data_fit(here):
    notes: list[Event] = []
    assert task_for(Search(stored(here / "a", big(grey)), init_from="em"), emit=notes.append) == "em"
    assert isinstance(task_for(Search(stored(here / "b", big(coloured)), init_from="em"), emit=notes.append), Derived)
    assert any("--from em: of its recipe" in str(note) for note in notes)


def test_drawings_smeared_by_jpeg_are_refused_and_photographs_are_not_taken_for_drawings(here):
    for i in range(3):
        picture, labels = big(painted, 8)(i)
        save(here / "jpeg" / "images" / f"p{i}.png", picture)
        (here / "jpeg" / "labels").mkdir(exist_ok=True)
        Image.fromarray(labels).save(here / "jpeg" / "labels" / f"p{i}.jpg", quality=75)
        levels = Image.fromarray((big(coloured, 8)(i)[1] * 80).astype(np.uint8))
        save(here / "levels" / "images" / f"p{i}.png", picture)
        (here / "levels" / "labels").mkdir(exist_ok=True)
        levels.save(here / "levels" / "labels" / f"p{i}.jpg", quality=75)
        y, x = np.mgrid[:160, :200]
        clean = np.stack([y + i, x, 200 - y], -1) + np.random.default_rng(i).normal(0, 3, (160, 200, 3))
        save(here / "photo" / "images" / f"p{i}.png", (clean // 2 + 40).clip(0, 255).astype(np.uint8))
        save(here / "photo" / "labels" / f"p{i}.png", clean.clip(0, 255).astype(np.uint8))
    for name in ("jpeg", "levels"):
        with pytest.raises(InputError, match="smeared"):
            task_for(Search(here / name))
    assert decide(fingerprint(find_pairs(here / "photo").pairs)).kind == "restoration"


def test_blank_labels_have_nothing_to_tell_apart(here):
    data = stored(here / "x", lambda i: (grey(i)[0], np.zeros((40, 48), np.uint8)))
    with pytest.raises(UsageError, match="one value only"):
        task_for(Search(data))


def test_a_folder_of_drawn_masks_is_trained_on_by_one_command_and_predicts(here):
    data = stored(here / "mine", big(painted), 4)
    quick = [word for s in ("network.base_width=2", "network.depth=2", "train.epochs=1", "train.steps_per_epoch=2", "train.batch=2")
             for word in ("--set", s)]  # fmt: skip
    done = run("train", "--data", data, "--crop", 32, *quick)
    assert done.exit_code == 0, done.output
    assert "the labels are drawn in 4 colours" in done.stderr
    predicted = run("predict", data / "images" / "p0.png", "--task", here / "mine-classes", "-o", here / "out.png")
    assert predicted.exit_code == 0, predicted.output
    assert set(np.unique(np.asarray(Image.open(here / "out.png")))) <= {0, 1, 2, 3}


def test_one_annotated_picture_is_enough(here):
    data = stored(here / "one", big(grey, 5), 1)
    quick = [word for s in ("network.base_width=2", "network.depth=2", "train.epochs=1", "train.steps_per_epoch=2")
             for word in ("--set", s)]  # fmt: skip
    done = run("train", "--data", data, "--crop", 32, *quick)
    assert done.exit_code == 0, done.output
    assert "held out to choose the best weights by" in done.stderr
    split = json.loads((here / "one-segmentation" / "split.json").read_text())
    assert sorted(len(split[name]) for name in ("train", "val")) == [1, 1]
    assert all("p0 columns " in name for name in (*split["train"], *split["val"]))
    assert "dice" in done.output


def test_more_colours_than_classes_can_have_are_refused_by_number(here):
    def many(i: int) -> tuple[Any, Any]:
        labels = np.zeros((40, 48, 3), np.uint8)
        labels[..., 0] = np.arange(48) // 2 * 10
        return coloured(i)[0], labels

    counted = tally(find_pairs(stored(here / "x", many)).pairs)
    assert counted.is_open
    assert len(counted.colours) > MOST_COLOURS


def test_photographs_without_labels_are_for_repairing_and_anything_else_is_refused(here):
    for i in range(3):
        save(here / "holiday" / f"p{i}.png", big(coloured)(i)[0])
        save(here / "scans" / f"p{i}.png", big(grey)(i)[0])
        save(here / "lost" / "images" / f"p{i}.png", big(coloured)(i)[0])
        save(here / "lost" / "labels" / f"q{i}.png", big(grey)(i)[1])
    notes: list[Event] = []
    assert task_for(Search(here / "holiday"), emit=notes.append) == "restore"
    assert "3 colour pictures without labels" in str(notes[-1])
    for name in ("scans", "lost"):
        with pytest.raises(InputError, match="no two that belong together"):
            task_for(Search(here / name))
