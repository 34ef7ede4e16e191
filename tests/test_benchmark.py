"""`unetctl benchmark`: figures that can be checked by hand."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from unetctl.errors import InputError, Stopped, UsageError
from unetctl.geometry.box import Box
from unetctl.jobs import benchmark
from unetctl.jobs.benchmark_bare import BareNetwork
from unetctl.jobs.benchmark_planes import LabelledVolume, SelectedPlanes
from unetctl.jobs.benchmark_scores import score_binary, score_classes, score_membranes
from unetctl.jobs.benchmark_speed import Pair, SpeedRun
from unetctl.jobs.predict import PredictOptions, plan_prediction, run_prediction
from unetctl.jobs.tasks import resolve_task
from unetctl.metrics.boundary import THRESHOLDS, mean_scores, score_slice
from unetctl.metrics.overlap import count_overlap
from unetctl.networks.build import build_network
from unetctl.networks.weights import WeightsHeader, save_weights
from unetctl.recipe.load import recipe_from_dict
from unetctl.runtime.events import Event, StageProgress, StageStarted, nobody
from unetctl.runtime.loop import LoopTimes
from unetctl.training.pairs import Pair as DataPair
from unetctl.training.splits import Selection

Pixels = npt.NDArray[Any]
Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """These networks are tiny: threads would only wait for each other."""
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)


@pytest.fixture
def task_of(tmp_path: Path) -> Make:
    """Untrained weights, usable as a task, with any sections of a recipe."""

    def make(name: str = "net", **sections: Any) -> Path:
        values = {"task": {"name": name}, "network": {"channels": [2, 3, 2]}, **sections}
        recipe = recipe_from_dict(values, "a test")
        path = tmp_path / f"{name}.safetensors"
        header = WeightsHeader(name, recipe.network_spec.to_dict(), recipe.to_dict())
        save_weights(path, build_network(recipe.network_spec, seed=1), header)
        return path

    return make


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def never() -> bool:
    return False


# -- speed


def test_speed_measures_pairs_of_predict_and_the_bare_network(tiny_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    events: list[Event] = []
    report = benchmark.speed(str(tiny_weights), size=160, pairs=3, core=64, precision="fp32", emit=events.append)
    values = json.loads(report.to_json())
    run = values["runs"][0]
    assert (run["core"], run["num_tiles"], run["num_pixels"]) == ("56x56", 9, 160 * 160)
    assert len(run["pairs"]) == 3
    for pair in run["pairs"]:
        assert pair["wall_s"] > 0
        assert pair["bare_s"] > 0
        assert pair["efficiency"] == pytest.approx(pair["bare_s"] / pair["wall_s"])
    assert run["efficiency"] == sorted(pair["efficiency"] for pair in run["pairs"])[1]
    assert run["mpx_per_s"] == pytest.approx(0.0256 / sorted(pair["wall_s"] for pair in run["pairs"])[1])
    assert 0 < run["seconds"]["network"] <= run["seconds"]["wall"]
    assert run["projected_bytes"] > 0
    assert run["peak_bytes"] > 0
    assert [e.done for e in events if isinstance(e, StageProgress)] == [1, 2, 3]
    assert isinstance(events[0], StageStarted)
    assert events[0].total == 3
    assert any("efficiency" in line for line in report.lines())
    assert list(tmp_path.iterdir()) == [] or all(p.suffix == ".safetensors" for p in tmp_path.iterdir())


def test_speed_compares_cores_on_a_picture_of_one_s_own(tiny_weights, em_file):
    report = benchmark.speed(str(tiny_weights), str(em_file), pairs=1, cores=[32, 64], precision="fp32")
    runs = report.values["runs"]
    assert [run["core"] for run in runs] == ["28x32", "52x60"]
    assert {run["num_pixels"] for run in runs} == {3 * 97 * 120}
    assert report.values["best_core"] == max(runs, key=lambda run: run["mpx_per_s"])["core"]
    assert not report.values["is_made_up"]
    assert sum("best" in line for line in report.lines()) == 1


@pytest.mark.parametrize(
    "sections",
    [
        {"input": {"channels": 3}},
        {"input": {"context_slices": 3}},
        {"network": {"channels": [2, 2], "dims": 3}, "train": {"crop": [8, 8, 8]}},
        {"output": {"classes": ["a", "b", "c"]}, "labels": {"kind": "classes"}},
    ],
)
def test_speed_makes_a_picture_that_fits_the_task(task_of, sections):
    report = benchmark.speed(str(task_of(**sections)), size=70, pairs=1, precision="fp32")
    assert report.values["runs"][0]["num_pixels"] in (70 * 70, 3 * 70 * 70, 17**3)


def test_speed_stops_and_refuses(tiny_weights):
    with pytest.raises(Stopped):
        benchmark.speed(str(tiny_weights), size=100, pairs=1, should_stop=lambda: True)
    with pytest.raises(UsageError, match="--pairs 0"):
        benchmark.speed(str(tiny_weights), pairs=0)
    with pytest.raises(UsageError, match="one of them"):
        benchmark.speed(str(tiny_weights), core=32, cores=[64])
    with pytest.raises(UsageError, match="multiple of the network stride"):
        benchmark.speed(str(tiny_weights), size=100, pairs=1, core=33)


def test_the_bare_network_computes_every_kind_of_tile(task_of, tmp_path):
    weights = task_of(network={"channels": [2, 2], "convolution": "same", "border": "native"})
    np.save(tmp_path / "a.npy", np.zeros((50, 30), np.uint8))
    task = resolve_task(str(weights))
    network = task.network()
    options = PredictOptions(output=tmp_path / "a.ome.zarr", core=10, precision="fp32")
    prediction = plan_prediction(str(tmp_path / "a.npy"), task, options, network)
    bare = BareNetwork(prediction.plan, network, torch.device("cpu"))
    assert sum(bare.kinds.values()) == prediction.plan.num_tiles
    assert len(bare.kinds) == 9  # corners, edges, inside
    assert bare.seconds(0.5) > 0
    prediction.source.close()


def test_medians_and_the_limit_are_told():
    times = [LoopTimes(read_s=3, wait_read_s=2, network_s=1, wall_s=w) for w in (4.0, 2.0, 3.0)]
    run = SpeedRun("64x64", 1, 10, 6_000_000, tuple(Pair(t.wall_s, 1.0, t) for t in times), 1, 1)
    assert (run.mpx_per_s, run.bare_mpx_per_s) == (2.0, 6.0)
    assert run.efficiency == pytest.approx(1 / 3)
    assert run.seconds()["wall"] == 3.0


# -- accuracy


@pytest.fixture
def labelled(tmp_path: Path, em_stack: Pixels, em_labels: Pixels) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    np.save(folder / "a-volume.npy", em_stack)
    np.save(folder / "a-labels.npy", em_labels)
    return folder


MEMBRANES = {
    "labels": {"values": [0, 255]}, "loss": {"border": True}, "split": {"train": ["0:1"], "test": ["1:3"]},
    "output": {"threshold": 0.4},
}  # fmt: skip


def test_membranes_are_scored_as_predict_on_just_these_planes(task_of, labelled, em_stack, em_labels, tmp_path):
    weights, out = task_of(**MEMBRANES), tmp_path / "figures"
    report = benchmark.accuracy(str(weights), labelled, output=out)
    np.save(tmp_path / "two.npy", em_stack[1:])
    task = resolve_task(str(weights))
    network = task.network()
    options = PredictOptions(output=tmp_path / "two.ome.zarr", axes="zyx")
    prediction = plan_prediction(str(tmp_path / "two.npy"), task, options, network)
    run_prediction(prediction, network)
    found = prediction.folder.sink().read(0, 0, Box.whole((2, 97, 120))).astype(np.float32) / 255
    prediction.source.close()
    wanted = [score_slice(p, t > 0, 0.4) for p, t in zip(found, em_labels[1:], strict=True)]
    mean = report.values["mean"]["shipped"]
    for name in ("v_rand", "v_info", "misclassified", "pixel_error", "adapted_rand_error", "v_rand_split"):
        assert mean[name] == pytest.approx(getattr(mean_scores(wanted), name))
    assert report.values["planes"] == ["a-volume[1:3]"]
    shipped = [row for row in report.values["slices"] if row["threshold"] == 0.4]
    assert [row["plane"] for row in shipped] == ["a-volume[1]", "a-volume[2]"]
    assert [row["v_rand"] for row in shipped] == pytest.approx([s.v_rand for s in wanted])
    best = report.values["best"]
    for name in ("v_rand", "v_info"):
        assert best[name]["value"] >= mean[name]
        assert best[name]["threshold"] in THRESHOLDS
    assert best["misclassified"]["value"] <= mean["misclassified"]
    assert best["warping_error"]["value"] <= mean["warping_error"]
    assert 0 < report.values["raw"]["v_rand"]["value"] <= 1
    rows = table(out / "accuracy.csv")
    assert {"plane", "threshold", "v_rand", "v_info", "v_info_split", "misclassified", "warping_error"} <= set(rows[0])
    assert json.loads((out / "accuracy.json").read_text())["mean"]["shipped"]["v_rand"] == mean["v_rand"]
    assert any("best threshold" in line for line in report.lines())
    page = (out / "index.html").read_text()
    worst = min(shipped, key=lambda row: row["v_rand"])["plane"]
    assert page.index(f"1. {worst}") < page.index("2. a-volume[")
    assert f"{mean['v_rand']:.4f}" in page
    pictures = {path.name: np.asarray(Image.open(path)) for path in out.glob("*.png")}
    assert set(pictures) == {
        f"0000{i}-{name}.png" for i in (1, 2) for name in ("input", "label", "output", "differences")
    }
    assert (pictures["00002-label.png"] == np.where(em_labels[2] > 0, 255, 0)).all()
    assert (pictures["00002-output.png"] == np.rint(found[1] * 255)).all()
    is_wrong = (pictures["00002-differences.png"] != pictures["00002-differences.png"][..., :1]).any(-1)
    assert is_wrong.mean() == pytest.approx(shipped[1]["misclassified"])


def volume(found: Pixels, target: Pixels, raw: Pixels | None = None, ignored: Pixels | None = None) -> LabelledVolume:
    names = tuple(f"p{i}" for i in range(len(target)))
    return LabelledVolume(names, found, target.astype(np.float32) if raw is None else raw, target, ignored)


def test_perfect_membranes_score_one(em_labels):
    target = (em_labels > 0).astype(np.uint8)
    scored = score_membranes([volume(target.astype(np.float32), target, raw=1.0 - target)], 0.5, nobody, never)
    mean = scored.values["mean"]["shipped"]
    assert (mean["v_rand"], mean["v_info"]) == pytest.approx((1.0, 1.0))
    assert (mean["misclassified"], mean["pixel_error"], mean["warping_error"]) == (0, 0, 0)
    assert scored.values["raw"]["v_rand"]["value"] == pytest.approx(1.0)  # dark cells are turned round
    assert len(scored.values["slices"]) == 3


def test_one_class_is_scored_by_overlap(task_of, labelled, em_stack, em_labels, tmp_path):
    weights = task_of(labels={"values": [0, 255]}, split={"train": ["0:1"], "val": ["1:3"]})
    report = benchmark.accuracy(str(weights), labelled, split="val", output=tmp_path / "figures")
    page = (tmp_path / "figures" / "index.html").read_text()
    assert f"{report.values['all']['shipped']['iou']:.4f}" in page
    assert "00002-differences.png" in page
    assert report.values["kind"] == "binary"
    assert report.values["all"]["shipped"].keys() == {"iou", "dice", "precision", "recall", "misclassified"}
    assert report.values["best"]["iou"]["value"] >= report.values["all"]["shipped"]["iou"]
    raw = em_stack[1:].astype(np.float32)
    raw = (raw - raw.min()) / (raw.max() - raw.min())
    at = report.values["raw"]["threshold"]
    assert report.values["raw"]["iou"] == pytest.approx(count_overlap(raw >= at, em_labels[1:] > 0).iou, abs=1e-3)


def test_ignored_pixels_do_not_count():
    target = np.array([[[0, 1], [1, 0]]], np.uint8)
    found = np.array([[[0.9, 0.9], [0.9, 0.1]]], np.float32)
    ignored = np.array([[[True, False], [False, False]]])
    scored = score_binary([volume(found, target, ignored=ignored)], 0.5, nobody, never)
    assert scored.values["all"]["shipped"]["iou"] == 1.0
    assert scored.values["ignored"] == 0.25
    scored = score_binary([volume(found, target)], 0.5, nobody, never)
    assert scored.values["all"]["shipped"]["iou"] == pytest.approx(2 / 3)


def test_several_classes_are_scored_each(task_of, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(1)
    target = rng.integers(0, 3, (2, 20, 30), dtype=np.uint8)
    np.save(folder / "a-volume.npy", rng.integers(0, 255, (2, 20, 30), dtype=np.uint8))
    np.save(folder / "a-labels.npy", target)
    sections = {"output": {"classes": ["sky", "sea", "land"]}, "labels": {"kind": "classes"}}
    report = benchmark.accuracy(str(task_of(**sections)), folder, split="all", output=tmp_path / "figures")
    assert set(report.values["classes"]) == {"sky", "sea", "land"}
    counts = np.bincount(target.ravel())
    assert report.values["majority_misclassified"] == pytest.approx(1 - counts.max() / counts.sum())
    assert 0 <= report.values["mean_iou"] <= 1
    assert len(table(tmp_path / "figures" / "accuracy.csv")) == 9
    label = np.asarray(Image.open(tmp_path / "figures" / "00001-label.png"))
    assert len(np.unique(label.reshape(-1, 3), axis=0)) == 3
    page = (tmp_path / "figures" / "index.html").read_text()
    assert all(f'scope="row">{name}' in page for name in ("sky", "sea", "land"))
    shown = np.asarray(Image.open(tmp_path / "figures" / "00002-differences.png"))
    found = np.asarray(Image.open(tmp_path / "figures" / "00002-output.png"))
    label = np.asarray(Image.open(tmp_path / "figures" / "00002-label.png"))
    assert ((shown != shown[..., :1]).any(-1) == (found != label).any(-1)).all()


def test_scores_of_classes_by_hand():
    target = np.array([[[0, 0, 1, 1]]], np.uint8)
    found = np.array([[[0, 1, 1, 1]]], np.uint8)
    scored = score_classes([volume(found, target)], ("a", "b", "c"), nobody, never)
    assert scored.values["classes"]["a"]["iou"] == 0.5
    assert scored.values["classes"]["b"]["iou"] == pytest.approx(2 / 3)
    assert scored.values["mean_iou"] == pytest.approx((1 / 2 + 2 / 3) / 2)  # c neither occurs nor is answered
    assert scored.values["misclassified"] == 0.25


def test_splits_that_are_not_there_are_named(task_of, labelled):
    weights = str(task_of(**MEMBRANES))
    with pytest.raises(UsageError, match="train, val, test, all"):
        benchmark.accuracy(weights, labelled, split="tset")
    with pytest.raises(UsageError, match=r"--split all"):
        benchmark.accuracy(str(task_of("other", split={"train": ["0:3"], "val_share": 0.0})), labelled, split="test")
    with pytest.raises(InputError, match="does not exist"):
        benchmark.accuracy(weights, labelled / "nowhere")
    with pytest.raises(Stopped):
        benchmark.accuracy(weights, labelled, should_stop=lambda: True)


def test_a_folder_of_test_data_alone_is_enough(task_of, tmp_path, em_stack, em_labels):
    folder = tmp_path / "data" / "test"
    folder.mkdir(parents=True)
    np.save(folder / "a-volume.npy", em_stack[0])
    np.save(folder / "a-labels.npy", em_labels[0])
    report = benchmark.accuracy(str(task_of(labels={"values": [0, 255]})), tmp_path / "data")
    assert report.values["num_planes"] == 1


@pytest.mark.parametrize(("axes", "shape"), [("zyx", (5, 8, 9)), ("tzyx", (2, 3, 8, 9)), ("czyx", (2, 5, 8, 9))])
def test_selected_planes_are_those_of_the_file(tmp_path, axes, shape, monkeypatch):
    whole = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    np.save(tmp_path / "a.npy", whole)
    from unetctl.sources.open import open_source

    monkeypatch.setattr("unetctl.jobs.benchmark_planes.open_source", lambda path: open_source(path, axes=axes))
    pair = DataPair("a", tmp_path / "a.npy", tmp_path / "b.npy", "volume", None, "", 0)
    with SelectedPlanes(Selection(pair, (1, 3, 4))) as source:
        image = source.image
        assert image.axes == ("czyx" if "c" in axes else "zyx")
        assert image.size_of("z") == 3
        planes = whole[:, [1, 3, 4]] if "c" in axes else whole.reshape(-1, 8, 9)[[1, 3, 4]]
        np.testing.assert_array_equal(source.read(0, Box.whole(image.shape)), planes)
        part = Box((*([0] * (image.shape[0] == 2 and "c" in axes)), 1, 2, 3), (*([1] * ("c" in axes)), 3, 6, 9))
        np.testing.assert_array_equal(source.read(0, part), planes[part.slices()])
        np.testing.assert_allclose(source.raw(), planes.mean(0) if "c" in axes else planes)
