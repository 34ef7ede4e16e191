"""`unetctl benchmark accuracy` on binarized pages: small generated ones, scored by hand or by files of their own."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from unetctl.errors import InputError, Stopped, UsageError
from unetctl.jobs import benchmark
from unetctl.jobs.benchmark_accuracy import kind_of
from unetctl.jobs.benchmark_baselines import baselines, niblack, otsu, sauvola, wolf
from unetctl.jobs.benchmark_doxa import DoxaProcess, MethodCrashedError
from unetctl.jobs.benchmark_pages import LabelledPage, luminance, match_predicted
from unetctl.jobs.benchmark_planes import predicted_volume
from unetctl.jobs.tasks import resolve_task
from unetctl.metrics.document import score_page
from unetctl.networks.build import build_network
from unetctl.networks.weights import WeightsHeader, save_weights
from unetctl.recipe.load import recipe_from_dict
from unetctl.runtime.events import Event, Note, nobody
from unetctl.sources.open import open_source
from unetctl.training.pairs import Pair

Pixels = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
SIZES = ((60, 90), (80, 64), (50, 120))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """These networks are tiny: threads would only wait for each other."""
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)


@pytest.fixture
def task(tmp_path: Path) -> str:
    """An untrained network whose single class is ink."""
    values = {
        "task": {"name": "inky"},
        "input": {"luminance": True},
        "network": {"channels": [2, 3, 2]},
        "output": {"classes": ["ink"], "threshold": 0.5},
        "labels": {"foreground": "darker"},
        "split": {"train": ["2009"], "test": ["2016"]},
    }
    recipe = recipe_from_dict(values, "a test")
    path = tmp_path / "inky.safetensors"
    header = WeightsHeader("inky", recipe.network_spec.to_dict(), recipe.to_dict())
    save_weights(path, build_network(recipe.network_spec, seed=1), header)
    return str(path)


def page(i: int) -> tuple[Pixels, Mask]:
    """A page (y, x, 3) and its ink: strokes on stained paper, page 2 the worst."""
    rng = np.random.default_rng(i)
    ink = np.zeros(SIZES[i], np.bool_)
    for y in range(8, SIZES[i][0] - 8, 12):
        for x in range(6, SIZES[i][1] - 10, 11):
            ink[y : y + 7, x : x + 3] = rng.random() < 0.8
    grey = np.where(ink, 60, 200) + rng.normal(0, 8 + 25 * (i == 2), SIZES[i])
    colours = np.stack([grey, grey - 10, grey - 25], axis=-1)
    return np.clip(colours, 0, 255).astype(np.uint8), ink


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pages of different sizes, two of them test pages; truths in three encodings."""
    for i, name in enumerate(("2009/A", "2016/B", "2016/C")):
        picture, ink = page(i)
        year, stem = name.split("/")
        for folder in ("images", "gt"):
            (tmp_path / "data" / year / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "data" / year / "images" / f"{stem}.png")
        truth = (Image.fromarray(~ink), Image.fromarray(np.where(ink, 0, 255).astype(np.uint8)), Image.fromarray(~ink))
        truth[i].save(tmp_path / "data" / year / "gt" / f"{stem}.png")
    return tmp_path / "data"


def write_predicted(folder: Path, name: str, ink: Mask, **options: Any) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(~ink).save(folder / name, **options)


def test_pages_of_any_size_are_predicted_and_scored_as_predict_does(task, data, tmp_path):
    report = benchmark.accuracy(task, data, output=tmp_path / "out")
    values = report.values
    assert (values["kind"], values["split"], values["num_planes"]) == ("document", "test", 2)
    assert [one["page"] for one in values["pages"]] == values["planes"]
    assert all(name.startswith("2016/") for name in values["planes"])
    resolved = resolve_task(task)
    for i, one in enumerate(values["pages"], start=1):
        picture, ink = page(i)
        source = open_source(str(data / "2016" / "images" / f"{'_BC'[i]}.png"))
        found = predicted_volume(
            source, resolved, resolved.network(), tmp_path / f"{i}.ome.zarr", "cpu", nobody, lambda: False
        )
        source.close()
        assert one["scores"]["ours"]["f"] == pytest.approx(score_page(found[0] >= 0.5, ink).f)
        wanted = score_page(otsu(luminance(picture)), ink)
        assert one["scores"]["otsu"]["pseudo_f"] == pytest.approx(wanted.pseudo_f)
        assert one["scores"]["otsu"]["drd"] == pytest.approx(wanted.drd)
    mean = values["mean"]
    assert mean["ours"]["f"] == pytest.approx(np.mean([one["scores"]["ours"]["f"] for one in values["pages"]]))
    assert mean["ours, best threshold"]["f"] >= mean["ours"]["f"]
    assert values["thresholds"]["ours"] == 0.5
    assert {"otsu", "sauvola", "niblack", "wolf"} <= set(mean)
    assert any("pseudo-F" in line for line in report.lines())


def test_files_of_predict_are_scored_and_tabled(task, data, tmp_path):
    for name, i in (("B-inky.tif", 1), ("C-inky.png", 2)):
        _, ink = page(i)
        ink = ink.copy()
        ink[0, : 5 * i] = True
        write_predicted(tmp_path / "pages", f"2016/{name}", ink, **({"compression": "group4"} if "tif" in name else {}))
    out = tmp_path / "out"
    report = benchmark.accuracy(task, data, output=out, predicted=tmp_path / "pages")
    for i, one in enumerate(report.values["pages"], start=1):
        _, ink = page(i)
        wrong = 5 * i
        assert one["scores"]["ours"]["recall"] == 100
        assert one["scores"]["ours"]["precision"] == pytest.approx(100 * ink.sum() / (ink.sum() + wrong))
    assert report.values["thresholds"] == {"ours": None}
    with (out / "accuracy.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    num_methods = len(report.values["mean"])
    assert len(rows) == 3 * num_methods
    assert [row["page"] for row in rows[::num_methods]] == ["2016/B", "2016/C", "mean"]
    mean = {row["method"]: row for row in rows[-num_methods:]}
    assert float(mean["niblack"]["psnr"]) == pytest.approx(report.values["mean"]["niblack"]["psnr"])
    assert json.loads((out / "accuracy.json").read_text())["mean"] == report.values["mean"]


def test_the_page_of_pictures_shows_the_worst_first(task, data, tmp_path):
    for name, i, num_wrong in (("B", 1, 1500), ("C", 2, 3)):
        _, ink = page(i)
        ink = ink.copy()
        ink.flat[:num_wrong] ^= True
        write_predicted(tmp_path / "pages", f"2016/{name}.png", ink)
    out = tmp_path / "out"
    benchmark.accuracy(task, data, output=out, predicted=tmp_path / "pages")
    text = (out / "index.html").read_text()
    assert text.index("1. 2016/B") < text.index("2. 2016/C")
    files = set(re.findall(r'(?:src|href)="([^":]+)"', text))
    assert files == {
        f"{i:05d}-{what}.png" for i in (1, 2) for what in ("input", "truth", "ours", "differences", "otsu")
    }
    assert {path.name for path in out.iterdir()} == files | {"index.html", "accuracy.csv", "accuracy.json"}
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert "<script" not in text
    _, ink = page(1)
    with Image.open(out / "00001-differences.png") as image:
        colours = np.asarray(image.convert("RGB"))
    predicted = ink.copy()
    predicted.flat[:1500] ^= True
    assert {tuple(c) for c in colours[predicted & ~ink].tolist()} == {(220, 20, 30)}
    assert {tuple(c) for c in colours[ink & ~predicted].tolist()} == {(20, 90, 240)}
    assert {tuple(c) for c in colours[~ink & ~predicted].tolist()} == {(255, 255, 255)}


def test_a_perfect_page_has_infinite_psnr_and_valid_json(task, data, tmp_path):
    for name, i in (("B", 1), ("C", 2)):
        write_predicted(tmp_path / "pages", f"{name}.png", page(i)[1])
    report = benchmark.accuracy(task, data, output=tmp_path / "out", predicted=tmp_path / "pages")
    assert report.values["mean"]["ours"]["psnr"] is None
    assert report.values["mean"]["ours"]["f"] == 100
    text = (tmp_path / "out" / "accuracy.json").read_text()
    assert "Infinity" not in text
    assert report.values["num_perfect"]["ours"] == 2
    with (tmp_path / "out" / "accuracy.csv").open(newline="") as file:
        ours = [row for row in csv.DictReader(file) if row["method"] == "ours"]
    assert [float(row["psnr"]) for row in ours] == [np.inf] * 3
    assert [float(row["f"]) for row in ours] == [100] * 3
    assert "infinite" in (tmp_path / "out" / "index.html").read_text()


def test_one_perfect_page_does_not_hide_the_others_in_the_mean(task, data, tmp_path):
    _, ink = page(2)
    spoiled = ink.copy()
    spoiled[0, :10] = True
    write_predicted(tmp_path / "pages", "B.png", page(1)[1])
    write_predicted(tmp_path / "pages", "C.png", spoiled)
    report = benchmark.accuracy(task, data, output=tmp_path / "out", predicted=tmp_path / "pages")
    perfect, other = (one["scores"]["ours"] for one in report.values["pages"])
    assert perfect["psnr"] is None
    assert report.values["mean"]["ours"]["psnr"] == pytest.approx(other["psnr"])
    assert report.values["mean"]["ours"]["drd"] == pytest.approx(other["drd"] / 2)
    assert report.values["num_perfect"]["ours"] == 1
    assert "pages without a wrong pixel, left out of the mean PSNR: ours 1" in report.lines()[-1]
    json.loads((tmp_path / "out" / "accuracy.json").read_text(), parse_constant=pytest.fail)


def test_all_pages_are_scored_where_the_split_names_none(task, data):
    events: list[Event] = []
    report = benchmark.accuracy(task, data / "2009", emit=events.append)
    assert report.values["split"] == "all"
    assert report.values["num_planes"] == 1
    assert any(isinstance(e, Note) and "all are scored" in e.text for e in events)
    with pytest.raises(UsageError, match="no planes"):
        benchmark.accuracy(task, data / "2009", split="test")


def test_what_does_not_fit_is_named(task, data, tmp_path):
    pages = tmp_path / "pages"
    with pytest.raises(InputError, match="is no folder"):
        benchmark.accuracy(task, data, predicted=pages)
    write_predicted(pages, "2016/B.png", page(1)[1])
    with pytest.raises(InputError, match=r"1 of 2 pages have no file in .*: 2016/C"):
        benchmark.accuracy(task, data, predicted=pages)
    write_predicted(pages, "2016/C.png", page(2)[1][:-1])
    with pytest.raises(InputError, match=r"49x120 pixels.*2016/C 50x120"):
        benchmark.accuracy(task, data, predicted=pages)
    Image.fromarray(page(2)[0]).save(pages / "2016" / "C.png")
    with pytest.raises(InputError, match="the prediction is not two-valued"):
        benchmark.accuracy(task, data, predicted=pages)
    with pytest.raises(Stopped):
        benchmark.accuracy(task, data, predicted=pages, should_stop=lambda: True)


def test_only_ink_is_a_document(tiny_recipe, tiny_weights, tmp_path):
    assert kind_of(tiny_recipe) == "binary"
    with pytest.raises(UsageError, match="--predicted"):
        benchmark.accuracy(str(tiny_weights), tmp_path, predicted=tmp_path)


def labelled(*names: str) -> list[LabelledPage]:
    found = []
    for name in names:
        folder, _, stem = name.rpartition("/")
        image = Path("/data", folder, "images", f"{stem}.jpg")
        found.append(LabelledPage(name, Pair(name, image, image, "page", None, ""), 0))
    return found


@pytest.mark.parametrize(
    "file", ["2016/images/H1-t.tif", "2016/H1.png", "2016/images/H1.jpg.tif", "H1-t.ome.tif", "images/H1.pdf"]
)
def test_predicted_files_are_found_by_the_ends_of_their_paths(tmp_path, file):
    for name in (file, "2016/H11.png", "other/H1.txt", "2016/.H1.png", "2016/H1.run/H1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert match_predicted(labelled("2016/H1"), Path("/data"), tmp_path, "t") == {"2016/H1": tmp_path / file}


def test_files_that_could_be_several_pages_are_refused(tmp_path):
    (tmp_path / "H1.png").touch()
    with pytest.raises(InputError, match="no single file"):
        match_predicted(labelled("2014/H1", "2016/H1"), Path("/data"), tmp_path, "t")
    for year in ("2014", "2016"):
        (tmp_path / "both" / year).mkdir(parents=True)
        (tmp_path / "both" / year / "H1.png").touch()
    found = match_predicted(labelled("2014/H1", "2016/H1"), Path("/data"), tmp_path / "both", "t")
    assert found == {f"{year}/H1": tmp_path / "both" / year / "H1.png" for year in ("2014", "2016")}


def test_luminance_is_rounded():
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    wanted = np.floor(colours @ np.array([0.299, 0.587, 0.114]) + 0.5 + 1e-9)
    np.testing.assert_array_equal(luminance(colours), wanted)
    grey = np.repeat(colours[..., :1], 3, axis=2)
    np.testing.assert_array_equal(luminance(grey), grey[..., 0])


def test_baselines_find_the_ink_of_an_easy_page():
    picture, ink = page(0)
    with baselines() as methods:
        for method in methods:
            found = method.find(luminance(picture))
            assert found.dtype == np.bool_
            assert found.shape == ink.shape
            if method.name in ("otsu", "sauvola", "wolf", "nick", "su"):
                assert score_page(found, ink).f > 90, method.name


class Crashing:
    """In place of the process of doxapy: "gatos" ends it on page C."""

    def __init__(self) -> None:
        self.process = DoxaProcess()

    def find(self, name: str, grey: Pixels) -> Mask:
        if name == "GATOS" and grey.shape == SIZES[2]:
            raise MethodCrashedError(name)
        return grey < 128

    def __enter__(self) -> "Crashing":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.close()


def test_a_method_that_crashes_is_left_out(task, data, tmp_path, monkeypatch):
    monkeypatch.setattr("unetctl.jobs.benchmark_baselines.DoxaProcess", Crashing)
    monkeypatch.setattr("unetctl.jobs.benchmark_baselines.doxa_algorithms", lambda: frozenset({"GATOS", "WAN"}))
    for name, i in (("B", 1), ("C", 2)):
        write_predicted(tmp_path / "pages", f"{name}.png", page(i)[1])
    events: list[Event] = []
    report = benchmark.accuracy(task, data, predicted=tmp_path / "pages", output=tmp_path / "out", emit=events.append)
    assert set(report.values["mean"]) == {"ours", "otsu", "sauvola", "niblack", "wolf", "wan"}
    assert all(set(one["scores"]) == set(report.values["mean"]) for one in report.values["pages"])
    assert any("gatos (doxapy, its own parameters) crashes on 2016/C" in str(event) for event in events)
    assert "gatos" not in (tmp_path / "out" / "accuracy.csv").read_text()


def test_the_process_of_doxapy_is_started_again_after_a_crash():
    pytest.importorskip("doxapy")
    grey = luminance(page(0)[0])
    with DoxaProcess() as doxa:
        found = doxa.find("NICK", grey)
        np.testing.assert_array_equal(doxa.find("NICK", grey), found)
        with pytest.raises(MethodCrashedError):
            doxa.find("no such algorithm", grey)
        np.testing.assert_array_equal(doxa.find("NICK", grey), found)
        doxa.close()


def test_a_blank_page_has_no_ink_for_otsu():
    blank = np.full((90, 100), 230, np.uint8)
    assert not otsu(blank).any()
    assert not sauvola(blank).any()
    assert niblack(blank).shape == wolf(blank).shape == (90, 100)
