"""What labels leave open, and what classes are: told apart in every picture and figure of a report."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training_data import run
from unetctl.jobs.benchmark_pictures import mask_planes
from unetctl.jobs.benchmark_planes import LabelledVolume
from unetctl.jobs.train_samples import samples_of
from unetctl.recipe.load import recipe_from_dict
from unetctl.recipe.schema import Recipe
from unetctl.reports.pictures import OVER_RGB, UNDER_RGB, difference
from unetctl.training.crops import Plane
from unetctl.training.validation import Validated

SIZE = (8, 8)


def recipe(num_classes: int) -> Recipe:
    classes = [f"c{i}" for i in range(num_classes)]
    keep = "mask" if num_classes == 1 else "classes"
    labels = {"kind": "binary" if num_classes == 1 else "classes"}
    return recipe_from_dict(
        {"task": {"name": "it"}, "output": {"classes": classes, "keep": keep}, "labels": labels}, "test"
    )


@pytest.mark.parametrize("num_classes", [2, 4, 10, 16])
def test_every_wrong_class_is_marked(num_classes: int):
    target = np.zeros((1, *SIZE), np.uint8)
    logits = np.zeros((num_classes, *SIZE), np.float32)
    logits[1] = 5
    plane = Plane("a", np.zeros((1, *SIZE), np.float32), target)
    (sample,) = samples_of([plane], Validated({}, (logits,)), recipe(num_classes))
    found = difference(sample.output, sample.label, has_classes=sample.has_classes, ignored=sample.ignored)
    assert (found.num_over, found.num_under, sample.figures["misclassified"]) == (64, 0, 1.0)


def test_what_is_to_be_ignored_is_never_wrong():
    target = np.zeros((1, *SIZE), np.uint8)
    weights = np.ones(target.shape, np.float32)
    weights[0, 4:] = 0
    for num_classes in (1, 4):
        logits = np.full((num_classes, *SIZE), -5, np.float32)
        logits[0 if num_classes > 1 else slice(0, 0), :4] = 5
        logits[-1, 4:] = 5
        plane = Plane("a", np.zeros((1, *SIZE), np.float32), target, weights)
        (sample,) = samples_of([plane], Validated({}, (logits,)), recipe(num_classes))
        assert sample.figures["misclassified"] == 0
        found = difference(sample.output, sample.label, has_classes=sample.has_classes, ignored=sample.ignored)
        assert (found.num_over, found.num_under) == (0, 0)
    volume = LabelledVolume(
        ("a",), np.where(weights == 0, 1, 0).astype(np.float32), target.astype(np.float32), target, weights == 0
    )
    (shown,) = mask_planes([volume], 0.5)
    colours = {tuple(colour) for colour in shown.pictures["differences"].reshape(-1, 3).tolist()}
    assert not colours & {tuple(OVER_RGB), tuple(UNDER_RGB)}


def test_pictures_too_small_to_be_repaired_are_named(tmp_path: Path):
    data = tmp_path / "data"
    data.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a", (40, 40)), ("b", (48, 40)), ("c", (6, 40))):
        Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(data / f"{name}.png")
    told = run("train", "--data", data, "--task", "restore", "--val", "c", "-o", tmp_path / "run", "--preview")
    assert told.exit_code == 4, told.stderr
    assert "c.png is 40 x 6 pixels" in told.stderr.replace("\n", " ")
    kept = run("train", "--data", data, "--task", "restore", "--on-error", "skip", "-o", tmp_path / "run", "--preview")
    assert kept.exit_code == 0, kept.stderr


def test_a_benchmark_knows_before_its_work_that_it_cannot_write(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    sample = tmp_path / "seismic"
    assert run("sample", "dibco", "-o", tmp_path / "p.png").exit_code == 0
    (sample / "images").mkdir(parents=True)
    (sample / "gt").mkdir()
    page = np.asarray(Image.open(tmp_path / "p.png").convert("L"))[:64, :64]
    Image.fromarray(page).save(sample / "images" / "p.png")
    Image.fromarray(np.where(page > 128, 255, 0).astype(np.uint8)).save(sample / "gt" / "p.png")
    told = run("benchmark", "accuracy", "--task", "dibco", "--data", sample, "--split", "all", "-o", tmp_path / "file")
    assert told.exit_code == 2, told.stderr
    assert "is a file" in told.stderr
    assert "predict" not in told.stderr
    assert (tmp_path / "file").read_text() == "mine"
