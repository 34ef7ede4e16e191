"""Objects as a task: recipes, samples, training and benchmark, from the folder to the figures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from unetctl.errors import UsageError
from unetctl.jobs.api import predict, train
from unetctl.jobs.benchmark import accuracy
from unetctl.jobs.benchmark_objects_baselines import BASELINES, contrast_watershed, otsu_watershed
from unetctl.jobs.sample import labels_path, make_sample
from unetctl.jobs.sample_objects import cells, nuclei
from unetctl.jobs.train_samples import samples_of
from unetctl.metrics.objects import match_objects
from unetctl.recipe.load import load_recipe, recipe_from_dict
from unetctl.recipe.schema import Normalise
from unetctl.reports.objects_page import coloured_objects
from unetctl.runtime.grey_scale import Scaling
from unetctl.runtime.statistics import VolumeStatistics
from unetctl.training.crops import Plane
from unetctl.training.load import with_loss_weights
from unetctl.training.object_targets import interior_and_border
from unetctl.training.validation import Validated

THREE = ["background", "interior", "border"]


def recipe(**sections: dict[str, Any]) -> Any:
    values: dict[str, Any] = {
        "task": {"name": "spots"}, "labels": {"kind": "objects"}, "output": {"classes": THREE, "keep": "labels"},
    }  # fmt: skip
    for name, settings in sections.items():
        values[name] = {**values.get(name, {}), **settings}
    return recipe_from_dict(values, "spots")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
    monkeypatch.chdir(tmp_path)


# -- recipes


@pytest.mark.parametrize("name", ["nuclei", "cells"])
def test_shipped_recipes_answer_objects(name: str) -> None:
    found = load_recipe(name)
    assert found.answers_objects
    assert found.output.keep == "labels"
    assert found.network_spec.is_exact


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"output": {"classes": ["a", "b"], "keep": "classes"}}, "three of them, in order"),
        ({"labels": {"values": [0, 1, 2]}}, "every number is an object"),
        ({"labels": {"ignore": 0}}, "0 is the background"),
        ({"labels": {"kind": "classes"}}, r'output\] keep|\[output\].*"labels" with kind = "classes"'),
        ({"labels": {"kind": "classes", "border_px": 3}, "output": {"keep": "classes"}}, "leave it out otherwise"),
        ({"labels": {"kind": "classes", "rim": 0.3}, "output": {"keep": "classes"}}, "rim: 0.3"),
        (
            {"labels": {"kind": "classes"}, "output": {"keep": "classes"}, "train": {"select": "ap50"}},
            "for this figure",
        ),
        ({"normalise": {"ground": "dark"}}, 'method = "percentile"'),
        ({"objects": {"seed_threshold": 1.5}}, "seed_threshold"),
    ],
)
def test_mistakes_are_told(sections: dict[str, dict[str, Any]], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        recipe(**sections)


def test_fingerprint_of_other_recipes_stays() -> None:
    plain = recipe_from_dict({"task": {"name": "x"}}, "x")
    same = recipe_from_dict({"task": {"name": "x"}, "objects": {"grow_px": 3}}, "x")
    assert plain.fingerprint() == same.fingerprint()


def test_bright_ground_becomes_dark() -> None:
    statistics = VolumeStatistics(
        **{field: (0.0,) for field in VolumeStatistics.__dataclass_fields__}  # type: ignore[arg-type]
        | {"low": (50.0,), "high": (250.0,), "median": (200.0,)}
    )
    turn = Normalise(method="percentile", ground="dark")
    turned = Scaling.of(turn, statistics, 1, np.dtype(np.uint8))
    assert (50 - turned.shift[0]) * turned.factor[0] == pytest.approx(1)
    assert (250 - turned.shift[0]) * turned.factor[0] == pytest.approx(0)
    kept = Scaling.of(Normalise(method="percentile"), statistics, 1, np.dtype(np.uint8))
    assert kept.factor[0] > 0


def test_weights_stand_where_objects_touch() -> None:
    ids = np.zeros((20, 40), np.int32)
    ids[5:15, 8:20], ids[5:15, 20:32] = 1, 2
    plane = Plane("p", np.zeros((1, 20, 40), np.float32), interior_and_border(ids, 2)[None], None, ids)
    (weighted,) = with_loss_weights([plane], recipe(loss={"border": True, "border_w0": 10.0, "border_sigma_px": 2.0}))
    assert weighted.weights is not None
    assert weighted.weights[0, 10, 19] > 9
    assert weighted.weights[0, 10, 10] == pytest.approx(1, abs=0.01)
    assert weighted.objects is ids


# -- samples


@pytest.mark.parametrize(("draw", "shape"), [(nuclei, (160, 190)), (cells, (256, 256))])
def test_samples_hold_touching_objects(draw: Any, shape: tuple[int, int]) -> None:
    made = draw(shape, 4)
    assert made.grey.shape == made.ids.shape == shape
    numbers = np.unique(made.ids[made.ids > 0])
    assert len(numbers) >= 4
    assert all(ndimage.label(made.ids == i)[1] == 1 for i in numbers)
    beside = (made.ids[:, 1:] != made.ids[:, :-1]) & (made.ids[:, 1:] > 0) & (made.ids[:, :-1] > 0)
    assert beside.any()
    again = draw(shape, 4)
    assert (again.grey == made.grey).all()
    assert not (draw(shape, 5).grey == made.grey).all()


@pytest.mark.parametrize("task", ["nuclei", "cells"])
def test_samples_are_written_with_their_labels(task: str, tmp_path: Path) -> None:
    path = make_sample(task, tmp_path, (160, 160), labels=True)
    read = tifffile.imread if path.suffix == ".tif" else lambda p: np.asarray(Image.open(p))
    labels = read(labels_path(path))
    assert read(path).dtype == np.uint8
    assert labels.dtype in (np.uint16, np.int32)
    assert labels.max() > 1


# -- training, predicting, scoring


def folder_of(path: Path, num: int = 6) -> Path:
    for i in range(num):
        make_sample("nuclei", path / f"p{i}.png", (96, 96), i, labels=True)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nuclei-run")
    (folder / "data").mkdir()
    data = folder_of(folder / "data")
    settings = {
        "network.channels": "6,12,24", "train.crop": "64,64", "train.epochs": 2, "train.steps_per_epoch": 12, "train.batch": 2,
        "train.val_every": 1, "train.ema": 0.8, "train.warmup_steps": 2, "train.lr": 5e-3, "split.val": "p4", "split.test": "p5",
    }  # fmt: skip
    overrides = tuple(f"{key}={value}" for key, value in settings.items())
    report = train(data, task="nuclei", output=folder / "run", overrides=overrides, device="cpu")
    assert report.status == "done"
    assert {"ap50", "mean_ap", "seg", "seed_threshold"} <= report.figures.keys()
    return folder


def test_the_report_shows_objects_and_not_their_classes(trained: Path) -> None:
    page = (trained / "run" / "report.html").read_text()
    assert "AP at 0.5, lowest first" in page
    recipe = load_recipe("nuclei")
    truth = np.zeros((40, 60), np.int32)
    truth[5:20, 5:25], truth[5:20, 25:50] = 1, 2
    logits = np.full((3, 40, 60), -4.0, np.float32)
    logits[0] = 0
    logits[1, 5:20, 5:24], logits[1, 5:20, 27:50], logits[2, 5:20, 24:27] = 6, 6, 6
    pixels = np.linspace(0, 1, 2400, dtype=np.float32).reshape(1, 40, 60)
    plane = Plane("two", pixels, np.zeros((1, 40, 60), np.uint8), objects=truth)
    (shown,) = samples_of([plane], Validated({"seed_threshold": 0.7}, (logits,)), recipe)
    assert shown.figures == {"ap50": 1.0, "seg": pytest.approx(1, abs=0.1), "objects": 2, "found": 2}
    assert np.array_equal(shown.label, coloured_objects(truth, shown.input))
    colours = [{tuple(c) for c in shown.output[10, a:b].tolist()} for a, b in ((6, 20), (30, 45), (52, 60))]
    assert not colours[0] & colours[1]  # each has its own
    assert all(len(set(c)) == 1 for c in colours[2])  # none where nothing is
    (missed,) = samples_of([plane], Validated({"seed_threshold": 1.0}, (logits,)), recipe)
    assert missed.figures["found"] == 0


def test_training_predicts_and_scores(trained: Path, tmp_path: Path) -> None:
    (report,) = predict(trained / "data" / "p5.png", str(trained / "run"), output=tmp_path / "p5.png")
    pixels = np.asarray(Image.open(report.output))
    assert pixels.shape == (96, 96)
    scored = accuracy(str(trained / "run"), trained / "data", output=tmp_path / "scores", device="cpu")
    values = scored.to_dict()
    assert (values["kind"], values["num_planes"]) == ("objects", 1)
    truth = np.asarray(Image.open(trained / "data" / "p5-labels.png"))
    assert values["all"]["ours"]["ap50"] == pytest.approx(match_objects(pixels, truth.astype(np.int32)).ap50)
    assert set(values["all"]) == {"ours", *(one.name for one in BASELINES)}
    names = {p.name for p in (tmp_path / "scores").iterdir()}
    assert names >= {
        "accuracy.csv", "accuracy.json", "index.html", "00001-input.png", "00001-label.png", "00001-output.png",
    }  # fmt: skip
    assert json.loads((tmp_path / "scores" / "accuracy.json").read_text())["all"] == values["all"]
    page = (tmp_path / "scores" / "index.html").read_text()
    assert "00001-output.png" in page
    assert "Otsu + watershed" in page


def test_chosen_threshold_of_seeds_goes_into_the_weights(trained: Path) -> None:
    from unetctl.networks.weights import read_header

    header = read_header(trained / "run" / "weights.safetensors")
    chosen = header.figures["validation"]["seed_threshold"]
    assert header.recipe["objects"]["seed_threshold"] == chosen


# -- baselines and pictures


@pytest.mark.parametrize("turned", [False, True])
def test_baseline_finds_plain_discs_of_either_polarity(turned: bool) -> None:
    y, x = np.mgrid[:90, :90]
    truth = np.zeros((90, 90), np.int32)
    for number, (cy, cx) in enumerate([(25, 25), (25, 44), (65, 60)], start=1):
        truth[((y - cy) ** 2 + (x - cx) ** 2 < 100) & (truth == 0)] = number
    grey = (40 + 150 * (truth > 0)).astype(np.float32)
    found = otsu_watershed(255 - grey if turned else grey, 16)
    assert match_objects(found, truth).ap50 == 1.0


def test_baselines_of_nothing() -> None:
    flat = np.full((30, 30), 7, np.float32)
    assert not otsu_watershed(flat, 16).any()
    assert contrast_watershed(flat, 16).max() <= 1


def test_coloured_objects_have_rims() -> None:
    ids = np.zeros((10, 12), np.uint16)
    ids[2:8, 2:6], ids[2:8, 6:10] = 1, 2
    shown = coloured_objects(ids, np.full((10, 12), 100, np.uint8))
    assert (shown[4, 6] == 255).all()
    assert (shown[4, 4] != shown[4, 8]).any()
    assert (shown[0, 0] == 80).all()
