"""Pictures at another scale: one grid, whatever box is read."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unetctl.errors import UsageError
from unetctl.geometry.box import Box
from unetctl.sources import scaled
from unetctl.sources.base import ImageInfo, SourceInfo
from unetctl.sources.scaled import ScaledSource, axis_weights, resampled, scaled_size


class Held:
    """Pixels as a source that counts what is read."""

    def __init__(self, pixels: np.ndarray[Any, Any], axes: str, **given: Any) -> None:
        self.pixels, self.num_read, self.is_closed = pixels, 0, False
        image = ImageInfo("", pixels.shape, axes, pixels.dtype, **given)
        self.info = SourceInfo("held", "held", (image,), {"num_bytes": 1}, (pixels.shape,))

    def read(self, i_image: int, box: Box) -> np.ndarray[Any, Any]:
        assert i_image == 0
        assert Box.whole(self.pixels.shape).covers(box)
        self.num_read += box.num_pixels
        return self.pixels[box.slices()]

    def close(self) -> None:
        self.is_closed = True


def noise(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray[Any, Any]:
    chance = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return chance.normal(0, 100, shape).astype(dtype)
    told = np.iinfo(dtype)
    return chance.integers(told.min, told.max, shape, dtype, endpoint=True)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_box_is_that_of_the_whole(data: st.DataObject):
    shape = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60)))
    dtype = data.draw(st.sampled_from(["uint8", "int8", "uint16", "int32", "float32", "float64", "float16"]))
    scale = data.draw(st.sampled_from([0.02, 0.1, 0.3, 0.5, 0.77, 1.0, 1.001, 1.5, 2.0, 3.3]))
    held = Held(noise(shape, dtype, data.draw(st.integers(0, 99))), "zyx")
    source = ScaledSource(held, scale)
    whole = source.read(0, Box.whole(source.info.images[0].shape))
    assert whole.dtype == held.pixels.dtype
    assert whole.shape == source.info.images[0].shape == (shape[0], *scaled_size(shape, scale))
    bounds = []
    for size in whole.shape:
        start = data.draw(st.integers(0, size - 1))
        bounds.append((start, data.draw(st.integers(start + 1, size))))
    box = Box(tuple(a for a, _ in bounds), tuple(b for _, b in bounds))
    assert np.array_equal(source.read(0, box), whole[box.slices()])


@pytest.mark.parametrize("scale", [0.31, 1.7])
def test_bands_leave_no_trace(monkeypatch: pytest.MonkeyPatch, scale: float):
    pixels = noise((2, 90, 70), "uint16")
    size = scaled_size(pixels.shape, scale)
    whole = resampled(pixels, size)
    monkeypatch.setattr(scaled, "_BAND_PIXELS", 500)
    assert np.array_equal(resampled(pixels, size), whole)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400))
def test_weights_sum_to_one_and_an_even_picture_stays(num_in: int, num_out: int):
    weights = axis_weights(num_in, num_out)
    assert np.allclose(weights.weights.sum(1), 1)
    assert np.array_equal(resampled(np.full((num_in, 3), 200, np.uint8), (num_out, 5)), np.full((num_out, 5), 200))


def test_shrinking_is_the_mean_of_what_is_covered():
    pixels = noise((40, 60), "float64")
    assert np.allclose(resampled(pixels, (20, 15)), pixels.reshape(20, 2, 15, 4).mean((1, 3)))
    thin = np.zeros((90, 90))
    thin[:, 45] = 90
    assert np.allclose(resampled(thin, (7, 7)).sum(), 7 * 7)  # no stroke is lost between the pixels of the grid
    ratio = resampled(noise((100, 100), "float64", 3), (37, 61)).mean() / noise((100, 100), "float64", 3).mean()
    assert ratio == pytest.approx(1, abs=1e-9)


def test_enlarging_agrees_with_pillow_and_keeps_ramps_straight():
    pixels = noise((13, 17), "float32")
    for size in ((26, 34), (31, 50)):
        expected = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC))
        ours = resampled(pixels, size)
        inside = (slice(6, -6), slice(6, -6))
        assert np.allclose(ours[inside], expected[inside], atol=1e-3)
    ramp = np.arange(50.0)[None].repeat(4, 0)
    made = resampled(ramp, (4, 150))[0]
    assert np.allclose(made[6:-6], (np.arange(150) + 0.5)[6:-6] / 3 - 0.5)


def test_the_same_scale_is_the_same_picture():
    for dtype in ("uint8", "int32", "float32"):
        pixels = noise((9, 11), dtype)
        assert np.array_equal(ScaledSource(Held(pixels, "yx"), 1.0).read(0, Box.whole((9, 11))), pixels)


def test_a_box_costs_what_it_needs():
    held = Held(noise((2000, 2000), "uint8"), "yx")
    ScaledSource(held, 2.0).read(0, Box((1000, 1000), (1100, 1100)))
    assert held.num_read <= 60 * 60
    held.num_read = 0
    ScaledSource(held, 0.25).read(0, Box((100, 100), (200, 200)))
    assert held.num_read <= 410 * 410


def test_what_is_told_follows_the_scale():
    held = Held(noise((2, 3, 40, 50), "uint8"), "zcyx", spacing_um=(5.0, 1.0, None), dpi=(300.0, 200.0))
    source = ScaledSource(held, 0.5)
    (image,) = source.info.images
    assert image.shape == (2, 3, 20, 25)
    assert image.spacing_um == (5.0, 2.0, None)
    assert image.dpi == (150, 100)
    assert "--scale" in image.notes[-1]
    assert source.info.identity == {"num_bytes": 1, "scale": 0.5}
    assert source.info.preferred_chunk == ((2, 3, 20, 25),)
    source.close()
    assert held.is_closed
    with pytest.raises(ValueError, match="does not lie inside"):
        source.read(0, Box((0, 0, 0, 0), (1, 1, 21, 1)))


@pytest.mark.parametrize("scale", [0.0, -1.0, 0.001, 99.0, float("nan"), float("inf")])
def test_other_factors_are_refused(scale: float):
    with pytest.raises(UsageError, match="--scale"):
        ScaledSource(Held(noise((4, 4), "uint8"), "yx"), scale)


def test_truth_values_are_refused():
    with pytest.raises(UsageError, match="bool"):
        ScaledSource(Held(np.zeros((4, 4), bool), "yx"), 2.0)
