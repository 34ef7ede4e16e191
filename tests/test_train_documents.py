"""`unetctl train --data ./dibco` without --task, and what comes of it, on made-up pages."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.test_train_decide import blobs, cells, scaled, stored, writing
from tests.training_data import coloured, save
from unetctl.cli.app import app
from unetctl.errors import UsageError
from unetctl.jobs.tasks import resolve_task
from unetctl.jobs.train_task import Search, recipe_for, task_for
from unetctl.recipe.load import load_recipe
from unetctl.runtime.events import Event, Note
from unetctl.training.decide import misfit
from unetctl.training.fingerprint import fingerprint
from unetctl.training.pairs import find_pairs

#: What makes the shipped network and its training small.
SMALL = (
    "network.base_width=2", "network.depth=1", "train.epochs=1", "train.steps_per_epoch=2", "train.batch=1",
    "train.crop=[32,32]", "train.warmup_steps=0",
)  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def yellowed(i: int) -> tuple[Any, Any]:
    picture, labels = writing(i)
    return (picture * np.array([1, 0.9, 0.7])).astype(np.uint8), labels


def texts_of(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note)]


def test_the_folders_name_says_dibco_if_the_data_fit(here):
    assert load_recipe("dibco").task.name == "dibco"
    for name in ("dibco", "DIBCO-2009", "my dibco pages"):
        notes: list[Event] = []
        assert task_for(Search(stored(here / name, writing)), emit=notes.append) == "dibco"
        assert "task dibco: the folder's name says so, and the data fit" in texts_of(notes)


@pytest.mark.parametrize("name", ["scans", "dibcoish"])
@pytest.mark.parametrize("make", [writing, yellowed])
def test_pages_in_a_folder_of_another_name_are_known_by_their_looks(here, name, make):
    notes: list[Event] = []
    assert task_for(Search(stored(here / name, make)), emit=notes.append) == "dibco"
    assert any(text.startswith("task dibco: the data are scanned pages with their") for text in texts_of(notes))


@pytest.mark.parametrize(("name", "make", "other"), [("em", yellowed, "dibco"), ("dibco", cells, "em")])
def test_a_name_goes_before_looks_and_says_so(here, name, make, other):
    notes: list[Event] = []
    assert task_for(Search(stored(here / name, make)), emit=notes.append) == name
    (warning,) = [note.text for note in notes if isinstance(note, Note) and note.kind == "warning"]
    assert warning.startswith("the data look like ")
    assert warning.endswith(f"--task {other} is made for these")


@pytest.mark.parametrize(
    ("make", "why"),
    [(blobs, "the labels are of the kind 'ids'"), (coloured, "'few numbers'"), (scaled, "differ in size")],
)
def test_data_of_other_kinds_are_not_taken_for_ink(here, make, why):
    notes: list[Event] = []
    data = stored(here / "dibco", make)
    if make is scaled:
        with pytest.raises(UsageError, match=r"no --task, and .*clean counterparts.*corrupted_imgs"):
            task_for(Search(data), emit=notes.append)
    else:
        task = recipe_for(task_for(Search(data), emit=notes.append)).task.name
        assert task == ("nuclei" if make is blobs else "classes")
    assert any(text.startswith("the folder's name says dibco, but") and why in text for text in texts_of(notes))
    assert why in misfit(load_recipe("dibco"), fingerprint(find_pairs(data).pairs))


def test_membranes_stay_membranes_beside_dibco(here):
    assert task_for(Search(stored(here / "membranes", cells))) == "em"
    assert task_for(Search(stored(here / "cells", cells))) == "em"  # labels of objects are numbered
    assert task_for(Search(stored(here / "dibco-em", cells))) == "em"  # two tasks in a name say nothing


def test_what_is_excluded_does_not_decide(here):
    """One year of broken files, which would end the training if they were opened."""
    stored(here / "dibco" / "2013", writing)
    for kind in ("images", "labels"):
        (here / "dibco" / "2016" / kind).mkdir(parents=True)
        (here / "dibco" / "2016" / kind / "H1.png").write_bytes(b"no picture")
    assert task_for(Search(here / "dibco", exclude=("2016",))) == "dibco"


def test_pages_are_trained_on_and_the_run_is_a_task(here):
    for i, year in enumerate(("2012", "2013", "2016")):
        for k in range(2):
            picture, labels = writing(2 * i + k)
            save(here / "dibco" / year / "images" / f"H{k}.png", picture[:64, :80])
            save(here / "dibco" / year / "gt" / f"H{k}.png", labels[:64, :80])
    words: list[Any] = ["train", "--data", "./dibco", "--exclude", "2016", "-o", "run"]
    for setting in SMALL:
        words += ["--set", setting]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    for told in (
        "task dibco: the folder's name says so", "labels: 0 is ink, 255 is paper", "6 pairs", "excluded", "2013/H0",
    ):  # fmt: skip
        assert told in " ".join(done.stderr.split()), told
    task = resolve_task("run")
    assert task.recipe.task.name == "dibco"
    assert task.recipe.labels.foreground == "darker"
    assert recipe_for("run").network.base_width == 2
    done = CliRunner().invoke(app, ["predict", "dibco/2016/images", "--task", "run", "-o", "out"])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(
        app, ["benchmark", "accuracy", "--task", "run", "--data", "dibco", "--split", "test", "--json"]
    )
    assert done.exit_code == 0, done.output
    assert np.isfinite(float(done.stdout.split('"pseudo_f":')[1].split(",")[0]))
