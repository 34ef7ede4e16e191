"""What `unetctl train` takes from a folder: excluded pages unopened, unequal sizes listed, ground truth in any encoding."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

import unetctl
from tests.training_data import GREY, SIZE, coloured, grey, pages, run, save
from unetctl.errors import InputError, UsageError
from unetctl.jobs.train_data import DataWishes, TrainData, gather
from unetctl.recipe.load import recipe_from_dict
from unetctl.recipe.schema import Recipe
from unetctl.runtime.events import Event, Note

Pixels = npt.NDArray[Any]

_watched: list[list[str]] = []


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if _watched and event in ("open", "os.open", "os.listdir", "os.scandir", "mmap.__new__"):
        _watched[-1].append(f"{event} {args[0] if args else ''}")


sys.addaudithook(_hear)  # for the life of the process: nothing can be taken off it again


@contextmanager
def watched() -> Iterator[list[str]]:
    """All that is opened meanwhile, in this process, by whatever library and thread."""
    _watched.append([])
    try:
        yield _watched[-1]
    finally:
        _watched.pop()


def recipe(**sections: dict[str, Any]) -> Recipe:
    values: dict[str, dict[str, Any]] = {"task": {"name": "t"}, "network": {"base_width": 2, "depth": 1}}
    values |= {"train": {"crop": [16, 16]}, "input": {"luminance": True, "stack": False}}
    return recipe_from_dict({**values, **sections}, "test")


INK = {"labels": {"foreground": "darker"}}


def gathered(folder: Path, *, known: Recipe | None = None, **wishes: Any) -> tuple[TrainData, list[Note]]:
    told: list[Event] = []
    found = gather(DataWishes(folder, **wishes), known or recipe(**INK), told.append, lambda: False)
    return found, [event for event in told if isinstance(event, Note)]


def page(i: int, size: tuple[int, int] = SIZE) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """Bright paper, dark strokes; True where there is ink."""
    rng = np.random.default_rng(i)
    ink = np.zeros(size, bool)
    for y in rng.integers(3, size[0] - 4, 4):
        ink[y : y + 2, 4:-4:] = True
    return np.clip(200 - 120 * ink + rng.normal(0, 8, size), 0, 255).astype(np.uint8), ink


def book(
    folder: Path,
    num: int = 4,
    size: tuple[int, int] = SIZE,
    encode: Any = lambda ink: np.where(ink, 0, 255).astype(np.uint8),
) -> Path:
    for i in range(num):
        picture, ink = page(i, size)
        save(folder / "images" / f"p{i}.png", picture)
        save(folder / "gt" / f"p{i}.png", encode(ink))
    return folder


@pytest.mark.parametrize(("entry", "suffix"), [("2016", ".tif"), ("2016/*", ".png"), ("2016/images/*", ".tif")])
def test_excluded_pages_are_never_opened(tmp_path, monkeypatch, entry, suffix):
    """Proved twice: by what Python's audit of all opened files hears, and by links that lead nowhere."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grey.toml").write_text(GREY)
    for year in (2009, 2014):
        pages(tmp_path / "data" / str(year), 2, suffix=suffix, labels="gt")
    pages(tmp_path / "data" / "2016", 2, suffix=suffix, labels="gt")
    words = ("train", "--data", "data", "--task", "./grey.toml", "--epochs", 1, "--val", "2014/*", "--exclude", entry)
    with watched() as opened:
        told = run(*words, "-o", "first")
    assert told.exit_code == 0, told.stderr
    assert "excluded: 2 pictures (2016/p0, 2016/p1)" in told.stderr
    names = [line for line in opened if f"p0{suffix}" in line or f"p1{suffix}" in line]
    assert sum("2014" in name for name in names) >= 4
    assert sum("2009" in name for name in names) >= 4
    assert not [name for name in names if "2016" in name]
    for path in (tmp_path / "data" / "2016").rglob("*.*"):
        path.unlink()
        path.symlink_to(tmp_path / "nowhere" / path.name)
    told = run(*words, "-o", "second")
    assert told.exit_code == 0, told.stderr
    told = run(*words[:-2], "-o", "third")
    assert told.exit_code == 4
    assert "2016" in told.stderr


def test_deciding_opens_no_excluded_page_either(tmp_path):
    from unetctl.jobs.train_task import Search, task_for

    book(tmp_path / "dibco" / "2009", 3, (200, 300))
    book(tmp_path / "dibco" / "2016", 3, (200, 300))
    with watched() as opened, suppress(UsageError):  # where no recipe for such pages is shipped
        task_for(Search(tmp_path / "dibco", exclude=("2016",)))
    names = [line for line in opened if ".png" in line]
    assert any("2009" in name for name in names)
    assert not [name for name in names if "2016" in name]


def unlike(folder: Path) -> None:
    save(folder / "gt" / "p1.png", np.zeros((40, 47), np.uint8))
    save(folder / "gt" / "p3.png", np.zeros((41, 48), np.uint8))


def test_all_unequal_sizes_stand_in_one_table(tmp_path, monkeypatch):
    unlike(book(tmp_path / "data", 6))
    (tmp_path / "data" / "images" / "p4.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(InputError) as refused:
        gathered(tmp_path / "data")
    lines = str(refused.value).splitlines()
    assert lines[0].startswith("of 6 pairs 2 have pictures and labels of unequal size and 1 cannot be used; expected")
    assert "--on-error skip" in lines[0]
    assert [line.split() for line in lines[1:4]] == [
        ["pair", "picture", "labels"],
        ["p1", "40x48", "(yx)", "40x47", "(yx)"],
        ["p3", "40x48", "(yx)", "41x48", "(yx)"],
    ]
    assert "p4: " in lines[4]
    found, notes = gathered(tmp_path / "data", skips_errors=True)
    assert sorted(plane.name for plane in (*found.train, *found.val)) == ["p0", "p2", "p5"]
    warnings = [note.text for note in notes if note.kind == "warning"]
    assert warnings[0] == "left out, 3 that do not fit:"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grey.toml").write_text(GREY)
    words = (
        "train",
        "--data",
        "data",
        "--task",
        "./grey.toml",
        "--epochs",
        1,
        "-o",
        "run",
        "--set",
        "labels.foreground=darker",
    )
    told = run(*words)
    assert (told.exit_code, told.stdout) == (4, "")
    assert "p3    40x48 (yx)  41x48 (yx)" in told.stderr
    told = run(*words, "--on-error", "skip")
    assert told.exit_code == 0, told.stderr
    assert "p3    40x48 (yx)  41x48 (yx)" in told.stderr


def test_pictures_that_prove_to_be_damaged_are_skipped_only_if_asked(tmp_path):
    path = book(tmp_path, 5) / "images" / "p2.png"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=r"p2\.png cannot be decoded"):
        gathered(tmp_path)
    found, notes = gathered(tmp_path, skips_errors=True)
    assert sorted(plane.name for plane in (*found.train, *found.val)) == ["p0", "p1", "p3", "p4"]
    assert "p2" not in str(found.split.as_dict())
    assert any(note.text.startswith("p2 is left out: ") for note in notes)
    for file in (tmp_path / "gt").iterdir():
        save(file, coloured(1)[0])
    with pytest.raises(InputError, match="values from"):  # nothing is left: the reason is told, not that
        gathered(tmp_path, skips_errors=True)


def palette(ink: npt.NDArray[np.bool_]) -> Image.Image:
    picture = Image.fromarray(np.where(ink, 3, 1).astype(np.uint8), "P")
    picture.putpalette([9, 9, 9, 255, 250, 240, 0, 255, 0, 40, 0, 0])
    return picture


def on_glass(ink: npt.NDArray[np.bool_]) -> Pixels:
    """Black everywhere, and transparent where there is no ink."""
    black = np.zeros((*ink.shape, 3), np.uint8)
    return np.concatenate([black, ink[..., None] * np.uint8(255)], -1)


def saved(encoded: Any, path: Path) -> Path:
    if isinstance(encoded, Image.Image):
        encoded.save(path)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, encoded, photometric="minisblack")
    elif path.suffix == ".npy":
        np.save(path, encoded)
    else:
        Image.fromarray(encoded).save(path)
    return path


ENCODINGS: dict[str, tuple[str, Any]] = {
    "0 and 255": (".png", lambda ink: np.where(ink, 0, 255).astype(np.uint8)),
    "the other way round": (".png", lambda ink: np.where(ink, 255, 0).astype(np.uint8)),
    "0 and 1": (".png", lambda ink: np.where(ink, 0, 1).astype(np.uint8)),
    "1 and 0": (".tif", lambda ink: ink.astype(np.uint16)),
    "two odd numbers": (".png", lambda ink: np.where(ink, 17, 99).astype(np.uint8)),
    "1 bit": (".png", lambda ink: Image.fromarray(~ink)),
    "fax": (".tif", lambda ink: Image.fromarray(~ink)),
    "truth values": (".npy", lambda ink: ink),
    "fractions": (".npy", lambda ink: np.where(ink, 0.25, 1.0)),
    "grey as colour": (".png", lambda ink: np.where(ink, 0, 255).astype(np.uint8)[..., None].repeat(3, -1)),
    "two colours": (".png", lambda ink: np.where(ink[..., None], (120, 0, 0), (250, 240, 200)).astype(np.uint8)),
    "a palette": (".png", palette),
    "a palette in GIF": (".gif", palette),
    "on glass": (".png", on_glass),
    "JPEG": (".jpg", lambda ink: Image.fromarray(np.where(ink, 0, 255).astype(np.uint8))),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_ground_truth_in_any_encoding(tmp_path, encoding):
    suffix, encode = ENCODINGS[encoding]
    book(tmp_path)
    for i in range(4):
        (tmp_path / "gt" / f"p{i}.png").unlink()
        saved(encode(page(i)[1]), tmp_path / "gt" / f"p{i}{suffix}")
    found, notes = gathered(tmp_path)
    assert len(found.train) + len(found.val) == 4
    for plane in (*found.train, *found.val):
        assert np.array_equal(plane.target[0], page(int(plane.name[1:]))[1])
        assert plane.target.dtype == np.uint8
    said = [note.text for note in notes if note.text.startswith("labels: ")]
    assert len(said) == 1
    assert said[0].endswith("(darker there on 4 of 4 pages)")
    dark = {"the other way round": "255 is ink, 0 is paper", "1 and 0": "1 is ink", "truth values": "255 is ink"}
    assert dark.get(encoding, " is ink") in said[0]
    smeared = [note for note in notes if "taken as the nearer of the two" in note.text]
    assert (len(smeared) == 4) == (encoding == "JPEG")


def test_the_majority_decides_and_who_disagrees_is_named(tmp_path):
    book(tmp_path, 5)
    ink = page(3)[1]
    save(tmp_path / "images" / "p3.png", np.where(ink, 220, 40).astype(np.uint8))  # white on black
    save(tmp_path / "gt" / "p4.png", np.full(SIZE, 255, np.uint8))  # a blank page
    found, notes = gathered(tmp_path)
    targets = {plane.name: plane.target[0] for plane in (*found.train, *found.val)}
    assert np.array_equal(targets["p3"], ink)
    assert not targets["p4"].any()
    texts = [note.text for note in notes]
    assert "labels: 0 is ink, 255 is paper (darker there on 3 of 4 pages)" in texts
    assert any(text.endswith("Brighter where the labels say ink: p3") for text in texts)
    assert "1 of 5 planes hold background only" in texts


def test_labels_that_are_pictures_are_no_ink(tmp_path):
    book(tmp_path)
    save(tmp_path / "gt" / "p2.png", np.linspace(0, 255, SIZE[0] * SIZE[1]).reshape(SIZE).astype(np.uint8))
    with pytest.raises(InputError, match=r"p2\.png holds \d+ values from .* amid them; expected two values"):
        gathered(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_palettes_hold_class_numbers(tmp_path, suffix):
    for i in range(3):
        picture, classes = coloured(i)
        save(tmp_path / "images" / f"p{i}.png", picture)
        (tmp_path / "labels").mkdir(exist_ok=True)
        stored = Image.fromarray(classes, "P")
        stored.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
        stored.save(tmp_path / "labels" / f"p{i}{suffix}")
    known = recipe(
        input={"channels": 3, "stack": False}, output={"classes": ["a", "b", "c", "d"]}, labels={"kind": "classes"}
    )
    found, _ = gathered(tmp_path, known=known)
    for plane in (*found.train, *found.val):
        assert np.array_equal(plane.target[0], coloured(int(plane.name[1:]))[1])


def test_classes_are_balanced_by_the_training_planes_alone(tmp_path):
    for i, share in enumerate((0.25, 0.25, 1.0)):
        ink = np.zeros(SIZE, bool)
        ink[: int(SIZE[0] * share)] = True
        save(tmp_path / "images" / f"p{i}.png", grey(i)[0])
        save(tmp_path / "labels" / f"p{i}.png", ink * np.uint8(255))
    found, _ = gathered(tmp_path, known=recipe(loss={"class_balance": True}), val=("p2",))
    for plane in (*found.train, *found.val):
        assert plane.weights is not None
        assert np.allclose(plane.weights[plane.target == 1], 2.0)
        assert np.allclose(plane.weights[plane.target == 0], 2 / 3)


def test_any_pixel_of_the_data_tells_them_apart(tmp_path):
    book(tmp_path)
    digests = {gathered(tmp_path)[0].digest()}
    assert digests == {gathered(tmp_path)[0].digest()}
    for place, folder in (((1, 1), "images"), ((20, 9), "gt")):
        path = tmp_path / folder / "p1.png"
        pixels = np.asarray(Image.open(path)).copy()
        pixels[place] ^= 255
        save(path, pixels)
        digests.add(gathered(tmp_path)[0].digest())
    assert len(digests) == 3


def test_pages_of_many_sizes_train_together(tmp_path, monkeypatch):
    """Also pages smaller than a crop; every page is brought to its own scale."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grey.toml").write_text(GREY)
    for i, size in enumerate(((40, 48), (13, 90), (71, 16), (120, 33), (14, 15))):
        picture, ink = page(i, size)
        save(tmp_path / "data" / "images" / f"p{i}.png", (picture // (i + 1)).astype(np.uint8))
        save(tmp_path / "data" / "gt" / f"p{i}.png", np.where(ink, 0, 255).astype(np.uint8))
    known = recipe(normalise={"method": "mean_std"}, **INK)
    planes = [plane for some in gathered(tmp_path / "data", known=known)[:1] for plane in (*some.train, *some.val)]
    assert all(abs(float(plane.pixels.mean())) < 1e-3 for plane in planes)
    report = unetctl.train(
        tmp_path / "data", task="grey.toml", output="run", epochs=1, val=("p1", "p4"),
        overrides=("labels.foreground=darker", "train.focus=0.5"),
    )  # fmt: skip
    assert report.status == "done"
    assert np.isfinite(report.figures["val_loss"])


def test_ink_by_darkness_goes_with_no_list_of_values():
    for labels in ({"values": [0, 255]}, {"ignore": 7}, {"kind": "classes"}):
        classes = {"output": {"classes": ["a", "b"]}} if "kind" in labels else {}
        with pytest.raises(UsageError, match=r"foreground: \"darker\" together with"):
            recipe(labels={"foreground": "darker", **labels}, **classes)


def test_unlabelled_pictures_are_listed_and_left_unopened(tmp_path):
    book(tmp_path, 4)
    for name in ("q1.png", "q2.png"):
        os.symlink("/nowhere", tmp_path / "images" / name)
    found, notes = gathered(tmp_path)
    assert len(found.train) + len(found.val) == 4
    assert "without labels, left out: 2 (images/q1.png, images/q2.png)" in [note.text for note in notes]


def test_nothing_is_learnt_where_the_picture_is_unknown(tmp_path):
    for i in range(3):
        picture, ink = page(i)
        pixels = picture.astype(np.float32)
        if i != 1:
            pixels[:, 10 : 12 + i] = np.nan
        tifffile.imwrite(tmp_path / f"p{i}-volume.tif", pixels)
        tifffile.imwrite(tmp_path / f"p{i}-labels.tif", np.where(ink, 0, 255).astype(np.uint8))
    found, notes = gathered(tmp_path, known=recipe(**INK, split={"val_share": 0.0}))
    told = [note.text for note in notes if "not finite" in note.text]
    assert len(told) == 2
    assert f"p0-volume.tif: {2 / SIZE[1]:.2%} of the pixels are not finite" in told[0]
    for i, plane in enumerate(found.train):
        assert np.isfinite(plane.pixels).all()
        is_unknown = np.zeros(SIZE, bool)
        is_unknown[:, 10 : 12 + i] = i != 1
        assert plane.weights is not None
        assert ((plane.weights[0] == 0) == is_unknown).all()


def test_many_remarks_are_counted(tmp_path):
    for i in range(13):
        picture, ink = page(i)
        save(tmp_path / "images" / f"p{i:02}.png", picture)
        labels = np.where(ink, 0, 255).astype(np.uint8)
        labels[0, 0] = 250  # a little smeared
        save(tmp_path / "labels" / f"p{i:02}.png", labels)
    _, notes = gathered(tmp_path)
    assert sum("taken as the nearer" in note.text for note in notes) == 10
    assert notes[-1].text.startswith("labels: ") or "more remarks" in notes[-1].text
    assert any(note.text == "... and 3 more remarks of this kind" for note in notes)
