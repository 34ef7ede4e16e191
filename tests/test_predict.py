"""`predict` on pictures of every shape: right values on the right axes, and nothing done twice or by accident."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import torch
import zarr
from PIL import Image

from tests.sources_files import picture
from unetctl.errors import IncompleteError, InputError, ResourceError, UsageError, WeightsError
from unetctl.jobs.api import dry_run, predict, stitch
from unetctl.networks.weights import load_weights, read_header, save_weights
from unetctl.runtime.events import Event, Note
from unetctl.runtime.grey_scale import LUMINANCE
from unetctl.runtime.memory import BASE_BYTES
from unetctl.runtime.report import RunReport

Pixels = npt.NDArray[Any]
Predict = Callable[..., RunReport]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """These networks are tiny: threads would only wait for each other. What is written lies where one stands."""
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tiny_weights: Path) -> Predict:
    """Predicts one input; of arrays a file is made first."""

    def one(source: Pixels | Path | str, **options: Any) -> RunReport:
        if isinstance(source, np.ndarray):
            np.save("in.npy", source)
            source = "in.npy"
        (report,) = predict(source, tiny_weights, **{"precision": "fp32", **options})
        return report

    return one


def written(report: RunReport, i_series: int = 0) -> tuple[str, Pixels]:
    """Axes and pixels of an exported TIFF."""
    with tifffile.TiffFile(report.output) as file:
        return file.series[i_series].axes, file.series[i_series].asarray()


def ome_xml(path: str) -> str:
    with tifffile.TiffFile(path) as file:
        return file.ome_metadata or ""


def network_on(weights: Path, volume: Pixels, like: Pixels | None = None) -> Pixels:
    """Logits of whole mirrored planes (..., y, x) of one volume, scaled by the statistics of `like`: nothing is tiled."""
    network = load_weights(weights)[0].eval()
    known = np.asarray(volume if like is None else like, np.float64)
    scaled = (volume.astype(np.float64) - known.mean()) / known.std()
    planes = scaled.reshape(-1, 1, *volume.shape[-2:])
    margin, stride = network.spec.margin[-1], network.spec.stride[-1]
    widths = [(margin, margin + -n % stride) for n in volume.shape[-2:]]
    with torch.no_grad():
        logits = network(torch.from_numpy(np.pad(planes, [(0, 0), (0, 0), *widths], mode="reflect")).float())
    found: Pixels = logits.numpy()[..., : volume.shape[-2], : volume.shape[-1]].reshape(volume.shape)
    return found


def assert_probability(found: Pixels, weights: Path, volume: Pixels, like: Pixels | None = None) -> None:
    """`found` is the probability of one volume, to one step of 255."""
    wanted = 255 / (1 + np.exp(-network_on(weights, volume, like)))
    assert found.dtype == np.uint8
    assert found.shape == volume.shape
    assert np.abs(found - wanted).max() <= 1


# -- axes and types


@pytest.mark.parametrize(
    ("axes", "shape", "dtype"),
    [
        ("yx", (37, 50), "uint8"),
        ("zyx", (3, 61, 90), "int8"),
        ("tzyx", (2, 2, 30, 41), "uint16"),
        ("tyx", (2, 30, 33), "float16"),
        ("zyx", (2, 5, 7), "int32"),  # smaller than what a tile sees beyond its core
        ("zyx", (2, 3, 40), "float32"),
    ],
)
def test_every_volume_is_the_network_on_its_whole(run, tiny_weights, axes, shape, dtype):
    pixels = picture(shape, dtype)
    report = run(pixels, axes=axes, core=32, block=32)
    told, found = written(report)
    assert told == axes.upper()
    assert report.num_blocks == report.num_computed > (min(shape) > 30)
    for index in np.ndindex(shape[: axes.count("t")]):
        assert_probability(found[index], tiny_weights, pixels[index])


def test_channels_are_chosen_or_done_one_by_one(run, tiny_weights):
    pixels = picture((3, 2, 40, 44))
    tifffile.imwrite("in.ome.tif", pixels, metadata={"axes": "CZYX", "Channel": {"Name": ["DNA", "actin", "ER"]}})
    with pytest.raises(InputError, match=r"has 3 channels; expected 1, .*--channel: 0 \(DNA\), 1 \(actin\), 2 \(ER\)"):
        run("in.ome.tif")
    with pytest.raises(UsageError, match=r"--channel 3, but .* has 3 channels"):
        run("in.ome.tif", channels=(3,))
    with pytest.raises(UsageError, match="2 channels chosen; expected 1"):
        run("in.ome.tif", channels=(0, 1))
    axes, found = written(run("in.ome.tif", channels=(1,), output="one.ome.tif"))
    assert axes == "ZYX"
    assert_probability(found, tiny_weights, pixels[1])
    report = run("in.ome.tif", channels=(), output="all.ome.tif")
    axes, found = written(report)
    assert axes == "CZYX"
    for channel in range(3):
        assert_probability(found[channel], tiny_weights, pixels[channel])
    assert all(f'Name="{name}"' in ome_xml(report.output) for name in ("DNA", "actin", "ER"))
    with pytest.raises(UsageError, match="has no channels"):
        run(pixels[0], axes="zyx", channels=(0,))


def test_colour_is_told_from_grey(run, tiny_weights):
    colours = np.stack([picture((40, 50), seed=i) for i in range(3)], -1)
    tifffile.imwrite("colour.tif", colours, photometric="rgb")
    tifffile.imwrite("grey.tif", np.repeat(colours[..., :1], 3, -1), photometric="rgb")
    report = run("grey.tif")
    assert_probability(written(report)[1], tiny_weights, colours[..., 0])
    assert any("are the same" in note for note in report.notes)
    with pytest.raises(InputError, match=r"3 channels \(colour\); .*input.luminance=true"):
        run("colour.tif")
    report = run("colour.tif", overrides=["input.luminance=true"])
    assert_probability(written(report)[1], tiny_weights, colours @ np.asarray(LUMINANCE, np.float32))
    assert any("brightness" in note for note in report.notes)


def test_several_pictures_of_a_file_come_back_as_several(run, tiny_weights):
    pictures = [picture((2, 70, 50)), picture((31, 45), "uint16", seed=1)]
    with tifffile.TiffWriter("in.ome.tif", ome=True) as file:
        for i, pixels in enumerate(pictures):
            file.write(pixels, metadata={"axes": "ZYX"[-pixels.ndim :], "Name": f"field {i}"})
    report = run("in.ome.tif", core=32)
    for i, pixels in enumerate(pictures):
        axes, found = written(report, i)
        assert axes == "ZYX"[-pixels.ndim :]
        assert_probability(found, tiny_weights, pixels)
    assert_probability(written(run("in.ome.tif", series=1, output="one.tif"))[1], tiny_weights, pictures[1])
    with pytest.raises(UsageError, match="--series 2"):
        run("in.ome.tif", series=2, output="none.tif")


def test_one_time_point_of_a_series(run, tiny_weights):
    pixels = picture((3, 40, 30))
    axes, found = written(run(pixels, axes="tyx", time=2))
    assert axes == "YX"
    assert_probability(found, tiny_weights, pixels[2])


def test_a_folder_of_slices_is_a_stack(run, tiny_weights):
    pixels = picture((3, 40, 30))
    Path("slices").mkdir()
    for i, plane in enumerate(pixels):
        Image.fromarray(plane).save(f"slices/s{i + 8}.png")
    report = run("slices")
    assert Path(report.output).name == "slices-tiny.ome.tif"
    assert written(report)[0] == "ZYX"
    assert_probability(written(report)[1], tiny_weights, pixels)


def test_ome_zarr_gives_ome_zarr_and_the_pixel_size_is_kept(run, tiny_weights, em_file, em_stack):
    first = run(em_file)
    sizes = tifffile.xml2dict(ome_xml(first.output))["OME"]["Image"]["Pixels"]
    assert [sizes[f"PhysicalSize{a}"] for a in "ZYX"] == [0.05, 0.004, 0.004]
    run(em_file, output="store.ome.zarr")
    second = run("store.ome.zarr")
    assert second.output == "store-tiny.ome.zarr"
    for store, pixels in (("store.ome.zarr", em_stack), (second.output, written(first)[1])):
        group = zarr.open_group(store, mode="r")
        attributes: Any = group.attrs["ome"]
        (image,) = attributes["multiscales"]
        assert [a["name"] for a in image["axes"]] == ["z", "y", "x"]
        assert image["datasets"][0]["coordinateTransformations"][0]["scale"] == [0.05, 0.004, 0.004]
        assert_probability(np.asarray(group["0"]), tiny_weights, pixels)


def test_pixels_that_are_not_finite_are_counted_and_replaced(run, tiny_weights):
    pixels = picture((2, 50, 60), "float32")
    pixels[0, 3:6, 7:9], pixels[1, 0, 0] = np.nan, np.inf
    report = run(pixels, axes="zyx", core=32, block=32)
    assert report.num_nonfinite == 7
    assert any("7 pixels of the input were not finite" in warning for warning in report.warnings)
    finite = pixels[np.isfinite(pixels)]
    repaired = np.where(np.isfinite(pixels), pixels, np.median(finite))
    assert_probability(written(report)[1], tiny_weights, repaired, like=finite)
    with pytest.raises(InputError, match="not finite"):
        run(pixels, axes="zyx", nonfinite="refuse", output="refused.tif")


@pytest.mark.parametrize("keep", ["mask", "classes", "logits"])
def test_what_is_kept(run, tiny_weights, keep):
    pixels = picture((40, 50))
    logits = network_on(tiny_weights, pixels)
    threshold = round(float(np.median(1 / (1 + np.exp(-logits)))), 3)
    _, found = written(run(pixels, keep=keep, threshold=threshold))
    if keep == "logits":
        assert found.dtype == np.float32
        assert np.abs(found - logits).max() <= 1e-4
        return
    clear = np.abs(1 / (1 + np.exp(-logits)) - threshold) > 1e-5
    inside = logits >= np.log(threshold / (1 - threshold))
    assert 0.3 < inside.mean() < 0.7
    np.testing.assert_array_equal(found[clear], (inside * (255 if keep == "mask" else 1))[clear])


def test_statistics_of_another_run_give_its_scaling(run, tiny_weights):
    stack = picture((3, 40, 50), "uint16")
    stack[1:] //= 3
    run(stack, axes="zyx", output="whole.ome.tif")
    for name, where in (("one.tif", "whole.ome.tif"), ("two.tif", "whole.ome.tif.run")):
        report = run(stack[:2], axes="zyx", output=name, statistics_from=Path(where))
        assert_probability(written(report)[1], tiny_weights, stack[:2], like=stack)
        assert run(stack[:2], axes="zyx", output=name).status == "nothing-new"  # as the plan says
    with pytest.raises(InputError, match="is no run"):
        run(stack, axes="zyx", output="x.tif", statistics_from=Path("in.npy"))


# -- one job, one output


def altered_weights(weights: Path) -> Path:
    network, header = load_weights(weights)
    with torch.no_grad():
        network.get_parameter("head.bias").add_(0.25)
    save_weights(Path("other.safetensors"), network, header)
    return Path("other.safetensors")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"pixels": picture((2, 80, 90), seed=7)}, "identity."),
        ({"pixels": picture((2, 80, 91))}, "images.0.output.shape: [2, 80, 91], was [2, 80, 90]"),
        ({"weights": True}, "weights_sha256: "),
        ({"keep": "mask"}, 'keep: "mask", was "probability"'),
        ({"threshold": 0.25}, "threshold: 0.25, was 0.5"),
        ({"core": 64}, "images.0.tiles.core: [1, 40, 48], was [1, 28, 32]"),
        ({"nonfinite": "refuse"}, 'nonfinite: "refuse", was "median"'),
        ({"overrides": ["normalise.method=percentile"]}, 'recipe.normalise.method: "percentile", was "mean_std"'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_job_under_the_same_output_is_refused_with_what_differs(tiny_weights, change, named):
    common: dict[str, Any] = {"axes": "zyx", "output": "out.ome.tif", "core": 32, "block": 32, "precision": "fp32"}
    np.save("in.npy", picture((2, 80, 90)))
    predict("in.npy", tiny_weights, **common)
    before = Path("out.ome.tif").read_bytes()
    change = dict(change)
    np.save("in.npy", change.pop("pixels", np.load("in.npy")))
    weights = altered_weights(tiny_weights) if change.pop("weights", False) else tiny_weights
    with pytest.raises(UsageError) as caught:
        predict("in.npy", weights, **{**common, **change})
    assert named in caught.value.seen
    assert "--fresh" in caught.value.hint
    assert Path("out.ome.tif").read_bytes() == before
    (report,) = predict("in.npy", weights, **{**common, **change, "fresh": True})
    assert report.status == "done"


@pytest.mark.parametrize("name", ["out.ome.tif", "out.ome.zarr"])
def test_what_is_done_is_not_done_again_unless_it_is_gone(run, name):
    output = Path(name)
    np.save("in.npy", picture((2, 40, 50)))

    def again(path: str, **options: Any) -> tuple[RunReport, bool, bytes]:
        said: list[Event] = []
        report = run(path, axes="zyx", output=name, emit=said.append, **options)
        is_warned = any(isinstance(event, Note) and event.kind == "warning" for event in said)
        return report, is_warned, (output if output.is_file() else output / "0/c/0/0/0").read_bytes()

    first, _, content = again("in.npy")
    assert first.num_computed == first.num_blocks
    Path("in.npy").rename("moved.npy")
    second, *rest = again("moved.npy", memory_bytes=2**29)
    assert (second.status, second.num_computed, rest) == ("nothing-new", 0, [False, content])
    assert stitch(name).status == "nothing-new"
    shutil.rmtree(output) if output.is_dir() else output.unlink()
    third, *rest = again("moved.npy")
    assert (third.status, third.num_computed, rest) == ("done", first.num_blocks, [True, content])
    assert not list(Path().glob(".*"))


def test_the_store_is_kept_on_request_and_can_be_exported_again(run):
    report = run(picture((2, 40, 50)), axes="zyx", output="out.ome.tif", keep_store=True)
    stitch("out.ome.tif", to="again.ome.tif")
    assert Path("again.ome.tif").read_bytes() == Path(report.output).read_bytes()
    assert Path("out.ome.tif.run/store.zarr").is_dir()
    assert stitch("out.ome.tif", to="again.ome.tif").status == "nothing-new"
    Path("again.ome.tif").write_bytes(b"of somebody else")
    with pytest.raises(UsageError, match="exists"):
        stitch("out.ome.tif", to="again.ome.tif")
    run("in.npy", axes="zyx", output="plain.ome.tif")
    with pytest.raises(InputError, match="was removed after its export"):
        stitch("plain.ome.tif", to="x.ome.tif")
    with pytest.raises(InputError, match="no run folder"):
        stitch("in.npy")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_foreign_output_is_in_the_way(run, kind):
    output = Path("out.ome.tif" if kind == "file" else "out.ome.zarr")
    mine = output if kind == "file" else output / "mine"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    pixels = picture((40, 50))
    for options in ({}, {"fresh": True}):
        with pytest.raises(UsageError, match="exists and is not a result of this job"):
            run(pixels, axes="yx", output=output, **options)
    assert run(pixels, axes="yx", output=output, existing="skip").status == "skipped"
    assert mine.read_text() == "mine"
    assert run(pixels, axes="yx", output=output, existing="overwrite").status == "done"
    assert run(pixels, axes="yx", output=output, existing="skip").status == "nothing-new"


def test_outputs_are_named_and_refused_before_anything_is_computed(run):
    Path("out").mkdir()
    pixels = picture((40, 50))
    assert run(pixels, axes="yx").output == "in-tiny.ome.tif"
    assert run(pixels, axes="yx", output="out").output == "out/in-tiny.ome.tif"
    for wrong in ("out.png", "none/out.tif"):
        with pytest.raises(UsageError, match="-o "):
            run(pixels, axes="yx", output=wrong)
    with pytest.raises(ResourceError) as caught:
        run(pixels, axes="yx", output="x.tif", memory_bytes=BASE_BYTES)
    assert caught.value.exit_code == 6
    with pytest.raises(WeightsError):
        predict("in.npy", "in.npy")


def test_a_dry_run_tells_what_a_run_then_does(run, tiny_weights):
    np.save("in.npy", picture((3, 90, 100)))
    options: dict[str, Any] = {"axes": "zyx", "core": 32, "block": 64, "precision": "fp32", "output": "o.ome.tif"}
    (summary,) = dry_run("in.npy", tiny_weights, warm_up=True, **options)
    told = summary.to_dict()
    assert sorted(p.name for p in Path().iterdir()) == ["in.npy"]
    report = run("in.npy", **options, keep_store=True)
    assert (told["num_blocks"], told["num_tiles"]) == (report.num_blocks, report.details["num_tiles"])
    assert told["num_pixels"] == report.num_pixels == 27_000
    store = sum(p.stat().st_size for p in Path("o.ome.tif.run/store.zarr").rglob("*") if p.is_file())
    assert store <= told["store_bytes"]
    assert Path("o.ome.tif").stat().st_size <= told["output_bytes"]
    assert told["eta_s"] > 0
    assert told["num_done"] == 0
    assert any("27" in line or "blocks" in line for line in summary.lines())
    (after,) = dry_run("in.npy", tiny_weights, **options)
    assert after.to_dict()["num_done"] == report.num_blocks
    assert json.loads(Path("o.ome.tif.run/report.json").read_text())["status"] == "done"


# -- many inputs


def test_one_bad_input_of_many(tiny_weights):
    Path("out").mkdir()
    for i in range(2):
        np.save(f"{i}.npy", picture((30, 40), seed=i))
    Path("bad.tif").write_bytes(b"II*\0 not much")
    Path("out/1-tiny.ome.tif").write_text("in the way")
    inputs = ["bad.tif", "0.npy", "1.npy"]
    options: dict[str, Any] = {"output": "out", "axes": "yx"}
    reports = predict(inputs, tiny_weights, **options)
    assert [r.status for r in reports] == ["failed", "done", "failed"]
    assert [r.details.get("exit_code") for r in reports] == [4, None, 2]
    reports = predict([*inputs, "out/0-tiny.ome.tif"], tiny_weights, **options, existing="skip")
    assert [r.status for r in reports] == ["failed", "nothing-new", "skipped"]
    from unetctl.jobs.corpus import predict_all
    from unetctl.jobs.predict import PredictOptions

    chosen = PredictOptions(output=Path("out"), axes="yx")
    with pytest.raises(IncompleteError, match="2 of 3 inputs failed; expected at most 50%"):
        predict_all(inputs, str(tiny_weights), chosen, max_failed="50%")
    with pytest.raises(InputError):
        predict_all(inputs, str(tiny_weights), chosen, on_error="abort")
    with pytest.raises(UsageError, match=r"-o x\.tif for 3 inputs"):
        predict(inputs, tiny_weights, output="x.tif")
    assert read_header(tiny_weights).name == "tiny"
