"""`--scale`: the network sees the input at another size; volumes come out at that size, pages at their own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from tests.page_source_files import text_page
from unetctl.errors import UsageError
from unetctl.geometry.box import Box
from unetctl.jobs.api import predict, stitch
from unetctl.jobs.pages.scaling import PageScale
from unetctl.jobs.pages.shares import Shares
from unetctl.networks.build import build_network
from unetctl.networks.weights import WeightsHeader, save_weights
from unetctl.recipe.load import recipe_from_dict
from unetctl.runtime.report import RunReport
from unetctl.runtime.run_folder import RunFolder
from unetctl.sinks.base import OutputImage, OutputLayout
from unetctl.sources.base import ImageInfo
from unetctl.sources.open import open_source
from unetctl.sources.scaled import resampled, scaled_size

Pixels = npt.NDArray[Any]
SHAPE = (70, 90)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def ink(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = {
        "task": {"name": "ink"},
        "input": {"stack": False, "luminance": True, "dpi": [250, 350]},
        "normalise": {"method": "range"},
        "network": {"base_width": 2, "depth": 2, "convolution": "same", "up": "bilinear"},
        "output": {"classes": ["ink"], "keep": "mask", "threshold": 0.5},
    }
    recipe = recipe_from_dict(values, "tests")
    path = tmp_path_factory.mktemp("ink") / "ink.safetensors"
    header = WeightsHeader("ink", recipe.network_spec.to_dict(), recipe.to_dict())
    save_weights(path, build_network(recipe.network_spec, 5), header)
    return path


@pytest.fixture
def run(ink: Path) -> Callable[..., list[RunReport]]:
    return lambda *inputs, **given: predict(list(inputs), ink, precision="fp32", **given)


def pixels_of(path: str | Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image)


def page(name: str = "a.png", shape: tuple[int, int] = SHAPE, dpi: int = 150) -> Path:
    Image.fromarray(text_page(shape)).save(name, dpi=(dpi, dpi))
    return Path(name)


@pytest.mark.parametrize("scale", [2.0, 0.6])
def test_a_page_comes_out_at_its_own_size_as_if_it_had_been_scaled_before_and_after(run, scale):
    path = page()
    (report,) = run(path, scale=scale, keep="probability", output=Path("p.png"))
    Image.fromarray(resampled(text_page(SHAPE), scaled_size(SHAPE, scale))).save("b.png")
    run("b.png", keep="probability", output=Path("q.png"))
    there = pixels_of("q.png")
    assert there.shape == scaled_size(SHAPE, scale)
    assert np.array_equal(pixels_of("p.png"), resampled(there, SHAPE))
    with Image.open(report.output) as image:
        assert image.info["dpi"] == pytest.approx((150, 150), rel=1e-3)
    # the mask is that of the probability at the page's size
    smooth = resampled(there.astype(np.float32), SHAPE)
    threshold = float(np.median(smooth)) / 255
    (report,) = run(path, scale=scale, output=Path("m.png"), threshold=threshold)
    expected = smooth >= threshold * 255
    assert 0 < expected.mean() < 1
    assert np.array_equal(~pixels_of("m.png"), expected)
    assert report.details["ink"][0] == pytest.approx(expected.mean(), abs=1e-6)


def test_a_page_that_is_read_piece_by_piece_is_the_same(run, monkeypatch):
    tifffile.imwrite("t.tif", text_page((300, 260)), tile=(64, 64), resolution=(150, 150))
    run("t.tif", scale=1.5, keep="probability", output=Path("held.png"))
    threshold = float(np.median(pixels_of("held.png"))) / 255
    run("t.tif", scale=1.5, output=Path("held-mask.png"), threshold=threshold)
    shares = Shares.of
    monkeypatch.setattr(Shares, "of", staticmethod(lambda budget: replace(shares(budget), page=0)))
    monkeypatch.setattr("unetctl.jobs.pages.results._BAND_ROWS", 50)
    run("t.tif", scale=1.5, keep="probability", output=Path("stored.png"))
    run("t.tif", scale=1.5, output=Path("stored-mask.png"), threshold=threshold)
    assert pixels_of("held.png").shape == (300, 260)
    assert 0 < pixels_of("held-mask.png").mean() < 1
    for name in ("", "-mask"):
        assert np.array_equal(pixels_of(f"held{name}.png"), pixels_of(f"stored{name}.png"))


def test_another_scale_is_another_run(run):
    path = page()
    run(path, scale=2.0, output=Path("o.png"))
    (again,) = run(path, scale=2.0, output=Path("o.png"))
    assert again.status == "nothing-new"
    with pytest.raises(UsageError, match=r"scale: None, was 2\.0"):
        run(path, output=Path("o.png"))
    with pytest.raises(UsageError, match="--scale 99"):
        run(path, scale=99.0, output=Path("x.png"))


def test_the_warning_about_resolution_knows_the_scale(run):
    notes: list[str] = []
    path = page(dpi=100)

    def emit(event: object) -> None:
        notes.append(getattr(event, "text", ""))

    run(path, output=Path("o.png"), emit=emit)
    assert [n for n in notes if "--scale 2.5 brings them there" in n]
    notes.clear()
    run(path, scale=2.5, output=Path("s.png"), emit=emit)
    assert not [n for n in notes if "dpi" in n]


def test_a_volume_comes_out_at_the_scaled_size_with_its_pixel_size(em_file, em_stack, tiny_weights):
    (report,) = predict(em_file, tiny_weights, scale=0.5, output=Path("v.ome.tif"), precision="fp32", core=32, block=32)
    source = open_source(report.output)
    (image,) = source.info.images
    size = scaled_size(em_stack.shape, 0.5)
    assert image.shape == (3, *size)
    expected_um = (0.05, 0.004 * 97 / size[0], 0.004 * 120 / size[1])
    assert image.spacing_um == pytest.approx(expected_um)
    source.close()
    tifffile.imwrite("before.ome.tif", resampled(em_stack, size), metadata={"axes": "ZYX"})
    predict("before.ome.tif", tiny_weights, output=Path("w.ome.tif"), precision="fp32", core=32, block=32)
    assert np.array_equal(tifffile.imread("v.ome.tif"), tifffile.imread("w.ome.tif"))
    plan = RunFolder(Path("v.ome.tif")).plan()
    assert (plan.source["scale"], plan.identity["scale"]) == (0.5, 0.5)
    assert "--scale" in plan.source["words"]
    with pytest.raises(UsageError, match="scale"):
        predict(em_file, tiny_weights, scale=0.25, output=Path("v.ome.tif"), precision="fp32")


def test_parts_of_a_scaled_volume_make_the_whole(em_file, tiny_weights):
    given: dict[str, Any] = {"scale": 1.3, "precision": "fp32", "core": 32, "block": 32}
    predict(em_file, tiny_weights, output=Path("whole.ome.tif"), **given)
    for i in (1, 2):
        predict(em_file, tiny_weights, output=Path("parts.ome.tif"), part=(i, 2), **given)
    stitch(Path("parts.ome.tif"))
    assert np.array_equal(tifffile.imread("whole.ome.tif"), tifffile.imread("parts.ome.tif"))


@pytest.mark.parametrize("keep", ["classes", "image", "probability", "mask"])
@pytest.mark.parametrize("size", [(61, 23), (14, 90)])
def test_a_stored_answer_comes_back_in_any_rows(keep, size):
    chance = np.random.default_rng(1)
    answer = chance.integers(0, 200, (3, 30, 41), np.uint8)
    info = ImageInfo("", (3, *size), "cyx", np.dtype(np.uint8))
    scale = PageScale(1.3, keep, 0.3)
    whole = scale.answer(answer, info)
    assert whole.shape == (3, *size)
    assert whole.dtype == np.uint8
    if keep == "classes":
        assert set(np.unique(whole)) <= set(np.unique(answer))
        assert np.array_equal(scale.answer(answer, replace(info, shape=answer.shape)), answer)
    if keep == "mask":
        assert set(np.unique(whole)) == {0, 255}
    image = OutputImage("", answer.shape, "cyx", "uint8", (3, 10, 10), (3, 10, 10), (None, None), ())
    stored = scale.stored(_Store(answer, OutputLayout((image,), {})), info)
    assert stored.layout.images[0].shape == (3, *size)
    for start in range(0, size[0], 9):
        box = Box((0, start, 2), (3, min(start + 9, size[0]), size[1]))
        assert np.array_equal(stored.read(0, 0, box), whole[box.slices()])


def test_without_a_scale_nothing_is_touched():
    answer = np.zeros((3, 4), np.uint8)
    scale = PageScale(None, "mask", 0.5)
    assert scale.computed == "mask"
    assert scale.answer(answer, ImageInfo("", (3, 4), "yx", answer.dtype)) is answer
    assert scale.pixels(answer) is answer


class _Store:
    def __init__(self, pixels: Pixels, layout: OutputLayout) -> None:
        self.pixels, self.layout = pixels, layout

    def read(self, i_image: int, i_level: int, box: Box) -> Pixels:
        return self.pixels[box.slices()]
