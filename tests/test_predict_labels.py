"""`predict --keep labels`: the labels of the whole, whatever the blocks, parts, stops and kinds of output."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import zarr
from PIL import Image

from tests.object_cases import OBJECTS, blotches
from unetctl.errors import UsageError
from unetctl.jobs import label_store
from unetctl.jobs.api import predict, stitch
from unetctl.objects.rule import LabelRule, label_array
from unetctl.recipe.objects_section import Objects
from unetctl.runtime.events import Event, StageStarted
from unetctl.runtime.report import RunReport

Pixels = npt.NDArray[Any]
Predict = Callable[..., RunReport]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(object_weights: Path) -> Predict:
    def one(source: Pixels, output: str, **options: Any) -> RunReport:
        np.save("in.npy", source)
        (report,) = predict(
            "in.npy", object_weights, **{"precision": "fp32", "as_pages": False, **options}, output=output
        )
        return report

    return one


def read(path: str) -> Pixels:
    return np.asarray(zarr.open_array(f"{path}/0", mode="r")[:]) if path.endswith(".zarr") else tifffile.imread(path)


def wanted(run: Predict, source: Pixels, axes: str, **changed: Any) -> Pixels:
    """Labels made in one piece of the probabilities that `predict` keeps."""
    run(source, "p.ome.tif", axes=axes, keep="probability")
    probability = tifffile.imread("p.ome.tif")
    rule = LabelRule.of(Objects(**{**OBJECTS, **changed}))
    if axes[0] == "t":
        return np.stack([label_array(plane, rule) for plane in probability])
    found: Pixels = label_array(np.moveaxis(probability, axes.find("c") + 1 if "c" in axes else 0, 0), rule)
    return found


@pytest.mark.parametrize(("axes", "shape"), [("yx", (70, 83)), ("zyx", (4, 45, 50)), ("tyx", (3, 40, 44))])
@pytest.mark.parametrize("ending", [".ome.tif", ".ome.zarr"])
def test_labels_are_those_of_the_whole(
    run: Predict, monkeypatch: pytest.MonkeyPatch, axes: str, shape: tuple[int, ...], ending: str
) -> None:
    source = blotches(*shape)
    expected = wanted(run, source, axes)
    assert expected.max() > 5
    monkeypatch.setattr(label_store, "_BLOCK_SIDE", 32)
    monkeypatch.setattr(label_store, "_BLOCK_PIXELS", 1500)
    monkeypatch.setattr(label_store, "_CHUNK_SIDE", 16)
    report = run(source, f"labels{ending}", axes=axes, core=16, block=32)
    found = read(report.output)
    assert found.dtype == np.uint16
    assert (found == expected).all()
    assert not list(Path().glob("*.run/*.zarr")), "stores are removed once the output is verified"
    assert run(source, f"labels{ending}", axes=axes, core=16, block=32).status == "nothing-new"


def test_axes_and_pixel_size_are_kept(object_weights: Path) -> None:
    sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
    tifffile.imwrite("in.ome.tif", blotches(3, 40, 48), metadata={"axes": "ZYX", **sizes})
    (report,) = predict("in.ome.tif", object_weights, output="out.ome.tif", as_pages=False)
    with tifffile.TiffFile(report.output) as file:
        xml = file.ome_metadata or ""
        assert file.series[0].axes == "ZYX"
    assert 'PhysicalSizeX="0.25"' in xml
    assert 'PhysicalSizeZ="2.0"' in xml


def test_more_objects_than_16_bits_hold(run: Predict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "iinfo", _SmallInfo)
    assert read(run(blotches(60, 60), "many.ome.zarr", axes="yx").output).dtype == np.uint32


class _SmallInfo:
    """16 bits that hold three numbers."""

    def __init__(self, dtype: Any, _known: Any = np.iinfo) -> None:
        known = _known(dtype)
        self.min, self.max, self.bits = known.min, 3 if np.dtype(dtype) == np.uint16 else known.max, known.bits


@pytest.mark.parametrize("ending", [".ome.tif", ".ome.zarr"])
def test_stopped_while_labelling_and_run_again(run: Predict, ending: str) -> None:
    source, output = blotches(64, 64), f"s{ending}"
    expected = wanted(run, source, "yx")
    begun: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, StageStarted):
            begun.append(event.stage)

    stopped = run(source, output, axes="yx", emit=emit, should_stop=lambda: "label" in begun)
    assert stopped.status == "stopped"
    assert not Path(output).exists()
    assert not [p for p in Path(f"{output}.run").iterdir() if "partial" in p.name]
    again = run(source, output, axes="yx")
    assert (again.status, again.num_computed) == ("done", 0)
    assert (read(output) == expected).all()


@pytest.mark.parametrize("ending", [".ome.tif", ".ome.zarr"])
def test_parts_and_stitch(run: Predict, ending: str) -> None:
    source, output = blotches(64, 64), f"parts{ending}"
    expected = wanted(run, source, "yx")
    for i in (2, 1):
        run(source, output, axes="yx", core=16, block=32, part=(i, 2))
        assert not Path(output).exists()
    assert stitch(output).status == "done"
    assert (read(output) == expected).all()
    assert run(source, output, axes="yx", core=16, block=32, part=(1, 2)).status == "nothing-new"
    assert stitch(output).status == "nothing-new"


def test_damaged_output_is_made_again(run: Predict) -> None:
    source = blotches(64, 64)
    output = Path(run(source, "d.ome.zarr", axes="yx").output)
    before = read(str(output))
    shard = next(path for path in (output / "0" / "c").rglob("*") if path.is_file())
    shard.write_bytes(shard.read_bytes()[:-3])
    assert run(source, "d.ome.zarr", axes="yx").status == "done"
    assert (read(str(output)) == before).all()


def test_kept_stores_are_exported_again(run: Predict) -> None:
    report = run(blotches(64, 64), "k.ome.tif", axes="yx", keep_store=True)
    assert {p.name for p in Path("k.ome.tif.run").glob("*.zarr")} == {"store.zarr", "labels.zarr"}
    stitch("k.ome.tif", to="again.ome.tif")
    assert (read("again.ome.tif") == read(report.output)).all()


def test_other_settings_of_objects_are_another_run(run: Predict) -> None:
    source = blotches(48, 48)
    run(source, "o.ome.tif", axes="yx")
    with pytest.raises(UsageError, match=r"recipe\.objects\.grow_px"):
        run(source, "o.ome.tif", axes="yx", overrides=["objects.grow_px=5"])
    run(source, "p.ome.tif", axes="yx", keep="probability")
    same = run(source, "p.ome.tif", axes="yx", keep="probability", overrides=["objects.grow_px=5"])
    assert same.status == "nothing-new"


def test_a_task_without_objects_says_so(tiny_weights: Path) -> None:
    np.save("in.npy", blotches(32, 32))
    with pytest.raises(UsageError, match="--keep labels for tiny"):
        predict("in.npy", tiny_weights, keep="labels", axes="yx")


# -- pages


def page_files(folder: Path) -> dict[str, Pixels]:
    folder.mkdir()
    pictures = {"a.png": blotches(50, 61), "b.png": blotches(64, 40, seed=4), "c.jpg": blotches(48, 48, seed=5)}
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / name)
    tifffile.imwrite(folder / "d.tif", np.stack([blotches(40, 50), blotches(40, 50, seed=6)]))
    return pictures


def test_folders_of_pictures(object_weights: Path) -> None:
    page_files(Path("in"))
    reports = predict("in", object_weights, output=Path("out"), precision="fp32")
    assert [r.status for r in reports] == ["done"] * 4
    assert sorted(p.name for p in Path("out").iterdir()) == ["a.png", "b.png", "c.png", "d.tif"]
    predict("in", object_weights, output=Path("prob"), precision="fp32", keep="probability")
    rule = LabelRule.of(Objects(**OBJECTS))
    for name in ("a.png", "b.png"):
        with Image.open(Path("out") / name) as found:
            assert found.mode.startswith("I;16") or found.mode == "I"
            pixels = np.asarray(found)
        probability = np.moveaxis(np.asarray(Image.open(Path("prob") / name)), -1, 0)
        assert (pixels == label_array(probability, rule)).all()
    assert tifffile.imread("out/d.tif").dtype == np.uint16
    again = predict("in", object_weights, output=Path("out"), precision="fp32")
    assert [r.status for r in again] == ["nothing-new"] * 4


def test_large_pages_are_labelled_in_stores(object_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("in").mkdir()
    tifffile.imwrite("in/big.tif", blotches(130, 120), tile=(16, 16))
    predict("in", object_weights, output=Path("held"), precision="fp32")
    from unetctl.jobs.pages import run as page_run

    monkeypatch.setattr(page_run, "_LABEL_BYTES", 2**40)
    predict("in", object_weights, output=Path("stored"), precision="fp32")
    assert (tifffile.imread("stored/big.tif") == tifffile.imread("held/big.tif")).all()
    assert not list(Path("stored.run").glob("large*"))


def test_pages_with_other_settings_are_refused(object_weights: Path) -> None:
    page_files(Path("in"))
    predict("in", object_weights, output=Path("out"), precision="fp32")
    with pytest.raises(UsageError, match="objects"):
        predict("in", object_weights, output=Path("out"), precision="fp32", overrides=["objects.grow_px=5"])
    values = json.loads(next(Path("out.run").glob("*.json")).read_text())
    assert values
