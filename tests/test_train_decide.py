"""`unetctl train` without --task: what the data are, and which recipe they get."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import unetctl
from tests.training_data import coloured, grey, save
from unetctl.errors import InputError, UsageError
from unetctl.jobs import train_task
from unetctl.jobs.train_task import Search, recipe_for, task_for
from unetctl.recipe.load import load_recipe, recipe_from_dict
from unetctl.recipe.shipped import shipped_recipes
from unetctl.runtime.events import Event, Note
from unetctl.training.decide import MEANING, Fingerprint, decide, misfit
from unetctl.training.fingerprint import fingerprint
from unetctl.training.pairs import find_pairs
from unetctl.training.survey import opened

BASE = Fingerprint(10, 8, 3, True, 1, True, "two values", 255, 0.08, 0.01, 0.98)
EM = replace(BASE, has_colour=False, num_channels=1, num_planes=30, dark_share=0.2, bright_in_one_piece=0.1)


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (BASE, "binarization"),
        (replace(BASE, has_colour=False, num_channels=1), "binarization"),
        (replace(BASE, dark_width=0.2), "segmentation"),
        (replace(BASE, dark_share=0.6), "segmentation"),
        (replace(BASE, dark_share=0.0), "segmentation"),
        (replace(BASE, num_planes=20), "segmentation"),
        (replace(BASE, bright_in_one_piece=0.1), "segmentation"),  # membranes have no colours
        (EM, "membranes"),
        (replace(EM, num_planes=1), "membranes"),
        (replace(BASE, label_kind="empty"), "segmentation"),
        (replace(BASE, label_kind="few numbers"), "classes"),
        (replace(BASE, label_kind="ids"), "objects"),
        (replace(BASE, label_kind="colour picture"), "restoration"),
        (replace(BASE, label_kind="grey picture"), "restoration"),
        (replace(BASE, is_same_size=False), "restoration"),
    ],
)
def test_what_the_data_are_for(found, kind):
    decision = decide(found)
    assert decision.kind == kind
    assert decision.reasons
    assert str(decision).startswith(MEANING[decision.kind])
    assert found.describe().startswith("8 of 10 pairs looked at: ")


def recipe(**sections: Any):
    return recipe_from_dict({"task": {"name": "t"}, **sections}, "test")


def test_what_a_recipe_cannot_take():
    ink, em = recipe(labels={"foreground": "darker"}, input={"luminance": True}), load_recipe("em")
    classes = recipe(labels={"kind": "classes"}, output={"classes": ["a", "b"]}, input={"channels": 3})
    assert misfit(ink, BASE) == misfit(em, EM) == ""
    assert "ids" in misfit(ink, replace(BASE, label_kind="ids"))
    assert "size" in misfit(ink, replace(BASE, is_same_size=False))
    assert "coloured" in misfit(recipe(), BASE)
    assert misfit(recipe(), replace(BASE, has_colour=False)) == ""  # grey saved as colour
    assert "1 channels, and it takes 3" in misfit(classes, EM)
    assert misfit(classes, replace(BASE, label_kind="few numbers")) == ""
    assert misfit(recipe(input={"channels": 3}), replace(BASE, label_kind="ids", num_channels=4)) == ""


def writing(i: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(i)
    ink = np.zeros((300, 400 + 10 * i), bool)
    for y, x in zip(rng.integers(5, 290, 30), rng.integers(5, 300, 30), strict=True):
        ink[y : y + 3, x : x + 60] = True
    paper = rng.normal(200, 8, (*ink.shape, 3)) - 130 * ink[..., None]
    return np.clip(paper, 0, 255).astype(np.uint8), np.where(ink, 0, 255).astype(np.uint8)


def cells(i: int) -> tuple[Any, Any]:
    size = (200, 200)
    rng = np.random.default_rng(i)
    inside = np.ones(size, bool)
    for at in (*range(10, 200, 40), *range(12, 200, 40)):
        inside[at : at + 2], inside[:, at : at + 2] = False, False
    return np.clip(rng.normal(90, 9, size) + 80 * inside, 0, 255).astype(np.uint8), inside * np.uint8(255)


def blobs(i: int) -> tuple[Any, Any]:
    """Many round objects, each with a number of its own."""
    y, x = np.mgrid[:200, :200]
    ids = np.zeros((200, 200), np.uint16)
    for number in range(1, 13 + i):
        cy, cx = 25 + 48 * ((number - 1) % 4), 25 + 38 * ((number - 1) // 4)
        ids[(y - cy) ** 2 + (x - cx) ** 2 < 150] = number
    return np.clip(40 + 120 * (ids > 0), 0, 255).astype(np.uint8), ids


def smooth(i: int) -> tuple[Any, Any]:
    y, x = np.mgrid[:120, :160]
    clean = np.stack([y + i, x, 255 - y], -1).astype(np.uint8)
    return (clean // 2 + 40).astype(np.uint8), clean


def scaled(i: int) -> tuple[Any, Any]:
    clean = smooth(i)[1]
    return clean[::2, ::2].copy(), clean


def two_big(i: int) -> tuple[Any, Any]:
    picture, mask = grey(i)
    return np.kron(picture, np.ones((4, 4), np.uint8)), np.kron(mask, np.ones((4, 4), np.uint8))


def stored(folder: Path, make: Any, num: int = 3, suffix: str = ".png") -> Path:
    for i in range(num):
        picture, labels = make(i)
        save(folder / "images" / f"p{i}.png", picture)
        save(folder / "labels" / f"p{i}{suffix}", labels)
    return folder


KINDS = {
    "binarization": writing, "membranes": cells, "segmentation": two_big, "objects": blobs, "classes": coloured,
    "restoration": smooth,
}  # fmt: skip


@pytest.mark.parametrize("kind", [*KINDS, "scaled"])
def test_looking_at_files_tells_the_kind(tmp_path, kind):
    table = find_pairs(stored(tmp_path, KINDS.get(kind, scaled)))
    found = fingerprint(table.pairs)
    assert decide(found).kind == ("restoration" if kind == "scaled" else kind), found
    assert (found.num_pairs, found.num_sampled) == (3, 3)


def test_a_few_that_do_not_fit_do_not_decide(tmp_path):
    folder = stored(tmp_path, writing, 5)
    for i in (1, 3):
        save(folder / "labels" / f"p{i}.png", writing(i)[1][::2, ::2].copy())
    found = fingerprint(find_pairs(folder).pairs)
    assert found.is_same_size
    assert decide(found).kind == "binarization"


def test_swapped_folders_are_noticed(tmp_path):
    table = find_pairs(stored(tmp_path, lambda i: writing(i)[::-1]))
    assert fingerprint(table.pairs).is_swapped
    with pytest.raises(InputError, match="seem to be swapped"):
        task_for(Search(tmp_path))
    assert not fingerprint(find_pairs(stored(tmp_path / "good", smooth)).pairs).is_swapped


def test_labels_smeared_by_jpeg_and_palettes_are_seen_through(tmp_path):
    for i in range(3):
        picture, mask = writing(i)
        save(tmp_path / "ink" / "images" / f"{i}.png", picture)
        (tmp_path / "ink" / "gt").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "ink" / "gt" / f"{i}.jpg", quality=80)
        picture, classes = coloured(i)
        save(tmp_path / "voc" / "images" / f"{i}.png", picture)
        (tmp_path / "voc" / "gt").mkdir(exist_ok=True)
        entries = Image.fromarray(classes, "P")
        entries.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
        entries.save(tmp_path / "voc" / "gt" / f"{i}.png")
    assert decide(fingerprint(find_pairs(tmp_path / "ink").pairs)).kind == "binarization"
    assert decide(fingerprint(find_pairs(tmp_path / "voc").pairs)).kind == "classes"


def test_only_a_few_files_are_read_and_damaged_ones_do_not_matter(tmp_path, monkeypatch):
    stored(tmp_path, cells, 20)
    (tmp_path / "images" / "p1.png").write_bytes(b"broken")
    seen: list[Path] = []

    def recorded(path: Path) -> Any:
        seen.append(path)
        return opened(path)

    monkeypatch.setattr("unetctl.training.fingerprint.opened", recorded)
    found = fingerprint(find_pairs(tmp_path).pairs)
    assert len({path for path in seen if "labels" in str(path)}) <= 8
    assert (found.num_pairs, found.num_sampled) == (20, 7)
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(InputError, match=r"p\d+\.png"):
        fingerprint(find_pairs(tmp_path).pairs)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_folders_name_goes_first_if_the_data_fit(here):
    notes: list[Event] = []
    for name in ("em", "isbi-em_2012", "EM"):
        assert task_for(Search(stored(here / name, cells)), emit=notes.append) == "em"
    texts = [note.text for note in notes if isinstance(note, Note)]
    assert sum(text == "task em: the folder's name says so, and the data fit" for text in texts) == 3
    assert sum(text.startswith("data: 3 of 3 pairs looked at: grey, single planes") for text in texts) == 3


def test_a_name_that_does_not_fit_gives_way_to_the_data(here):
    notes: list[Event] = []
    assert task_for(Search(stored(here / "em", blobs)), emit=notes.append) == "nuclei"
    assert any("the folder's name says em, but" in str(note) for note in notes)
    for name in ("problems", "cement", "member2"):
        assert task_for(Search(stored(here / name, cells)), emit=notes.append) == "em"
    assert "they" not in str(notes[-1])
    assert "task em: the data are grey volumes with thin membranes" in str(notes[-1])


@pytest.mark.parametrize("kind", ["objects", "restoration"])
def test_data_without_a_recipe_are_named(here, kind, monkeypatch):
    only_em = {name: path for name, path in shipped_recipes().items() if name in ("em", "dibco")}
    monkeypatch.setattr(train_task, "shipped_recipes", lambda: only_em)
    with pytest.raises(UsageError) as refused:
        task_for(Search(stored(here / "mine", KINDS[kind])))
    assert MEANING[kind] in str(refused.value)
    assert "--task ./mine.toml" in refused.value.hint
    assert refused.value.exit_code == 2


def test_a_run_that_was_begun_and_shipped_names(here):
    data = stored(here / "em", cells)  # a folder of a shipped name beside it
    assert recipe_for("em").to_dict() == unetctl.load_recipe("em").to_dict()
    assert recipe_for("em", ["train.lr=0.5"]).train.lr == 0.5
    (here / "run").mkdir()
    (here / "run" / "recipe.toml").write_text("")
    assert task_for(Search(data, here / "run")) == str(here / "run" / "recipe.toml")
    with pytest.raises(InputError, match="does not exist"):
        task_for(Search(here / "nowhere"))
