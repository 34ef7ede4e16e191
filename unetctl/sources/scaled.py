"""Pictures at another scale: resampled along y and x as they are read, on one grid for the whole picture.

Pixel centres of the result lie at ``(i + 0.5) * n / m - 0.5`` of n source pixels for m of the result, so that both cover
the same ground. Shrinking averages by area: each pixel of the result is the mean of what it covers. Enlarging is cubic
convolution (Keys, IEEE Trans. ASSP 29, 1981, a = -0.5); beyond the edge the outermost pixel counts. Rows go before
columns, both in float32 (float64 for pixels of more than 16 bits), one tap after the other: every pixel of the result is
the same number whatever box it is read in. Integers are rounded and clipped to their type.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.errors import UsageError
from unetctl.geometry.box import Box, Ints
from unetctl.sources.axes import check_box
from unetctl.sources.base import ImageInfo, Source, SourceInfo

Pixels = npt.NDArray[Any]

SMALLEST_SCALE, LARGEST_SCALE = 0.02, 16.0
#: Source pixels that are held at once, about, whatever box is read.
_BAND_PIXELS = 2**22
#: Room for rounding where areas of pixels meet.
_EPSILON = 1e-9


@dataclass(frozen=True)
class AxisWeights:
    """How `num_out` positions follow from `num_in` along one axis.

    Attributes:
        first: (num_out,) index of the first source pixel of each, maybe outside.
        weights: (num_out, taps) of the pixels from there on; they sum to 1.
        num_in: of the source.
    """

    first: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    num_in: int

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """Source pixels that positions start to stop need."""
        low, high = int(self.first[start]), int(self.first[stop - 1]) + self.weights.shape[1]
        return min(max(low, 0), self.num_in - 1), min(max(high, 1), self.num_in)

    def apply(self, pixels: Pixels, axis: int, start: int, stop: int, offset: int) -> Pixels:
        """Positions start to stop from source pixels that begin at `offset`, along `axis` counted from the end (-1, -2)."""
        shape = (-1, 1) if axis == -2 else (-1,)
        total: Pixels | None = None
        for tap in range(self.weights.shape[1]):
            at = np.clip(self.first[start:stop] + tap, 0, self.num_in - 1) - offset
            # taps without weight may lie outside of what was read
            taken = np.take(pixels, at, axis=axis, mode="clip")
            taken *= self.weights[start:stop, tap].astype(pixels.dtype).reshape(shape)
            total = taken if total is None else total + taken
        assert total is not None
        return total


@lru_cache(maxsize=16)
def axis_weights(num_in: int, num_out: int) -> AxisWeights:
    """The weights from `num_in` pixels to `num_out`; see the module."""
    ratio = num_in / num_out
    out = np.arange(num_out, dtype=np.float64)
    if num_out >= num_in:
        centre = (out + 0.5) * ratio - 0.5
        first = np.floor(centre + _EPSILON).astype(np.int64) - 1
        distance = np.abs(centre[:, None] - (first[:, None] + np.arange(4)))
        weights = np.where(
            distance < 1,
            (1.5 * distance - 2.5) * distance**2 + 1,
            np.where(distance < 2, ((-0.5 * distance + 2.5) * distance - 4) * distance + 2, 0),
        )
    else:
        low, high = out * ratio, (out + 1) * ratio
        first = np.floor(low + _EPSILON).astype(np.int64)
        left = first[:, None] + np.arange(math.ceil(ratio) + 1)
        weights = np.clip(np.minimum(left + 1, high[:, None]) - np.maximum(left, low[:, None]), 0, 1)
    return AxisWeights(first, weights / weights.sum(1, keepdims=True), num_in)


def resampled(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """A picture at another size, all of it; see the module.

    Args:
        pixels: (..., y, x) of integers or floats.
        size: (y, x) of the result.

    Returns:
        (..., *size) of the same type.
    """
    box = Box((0,) * pixels.ndim, (*pixels.shape[:-2], *size))
    return _read(lambda wanted: pixels[wanted.slices()], pixels.shape, pixels.dtype, size, box)


class ResampledView:
    """Boxes of a picture at another size.

    Args:
        read: boxes of the picture as it is, (..., y, x).
        shape: of the picture as it is.
        dtype: of what is read and given.
        size: (y, x) that it is to have.
    """

    def __init__(self, read: Any, shape: Ints, dtype: np.dtype[Any], size: tuple[int, int]) -> None:
        self._read, self._shape, self._dtype, self._size = read, shape, dtype, size
        self.shape: Ints = (*shape[:-2], *size)

    def read(self, box: Box) -> Pixels:
        """Pixels in a box of the resampled picture."""
        return _read(self._read, self._shape, self._dtype, self._size, box)


def _read(read: Any, shape: Ints, dtype: np.dtype[Any], size: tuple[int, int], box: Box) -> Pixels:
    rows, columns = axis_weights(shape[-2], size[0]), axis_weights(shape[-1], size[1])
    (top, bottom), (left, right) = list(box)[-2:]
    x_from, x_to = columns.span(left, right)
    lead = list(box)[:-2]
    result = np.empty(box.shape, dtype)
    across = math.prod(b - a for a, b in lead) * (x_to - x_from)
    step = max(1, int(_BAND_PIXELS / max(1, across) * size[0] / shape[-2]))
    for start in range(top, bottom, step):
        stop = min(bottom, start + step)
        y_from, y_to = rows.span(start, stop)
        bounds = [*lead, (y_from, y_to), (x_from, x_to)]
        band = np.asarray(read(Box(tuple(a for a, _ in bounds), tuple(b for _, b in bounds))))
        band = band.astype(np.float32 if band.dtype.itemsize <= 2 or band.dtype == np.float32 else np.float64)
        made = columns.apply(rows.apply(band, -2, start, stop, y_from), -1, left, right, x_from)
        result[..., start - top : stop - top, :] = _as(made, dtype)
    return result


def _as(values: Pixels, dtype: np.dtype[Any]) -> Pixels:
    if dtype.kind not in "iu":
        return values.astype(dtype)
    told = np.iinfo(dtype)
    if dtype.itemsize > 4:  # the largest integers are no floats; the next smaller one is
        top = np.nextafter(float(told.max), 0)
        return np.clip(np.rint(values), float(told.min), top).astype(dtype)
    return np.clip(np.rint(values), told.min, told.max).astype(dtype)


def nearest(num_in: int, num_out: int, start: int = 0, stop: int | None = None) -> npt.NDArray[np.int64]:
    """For positions start to stop of `num_out` along an axis, the nearest of `num_in` source pixels: of values without between."""
    at = np.arange(start, num_out if stop is None else stop, dtype=np.int64)
    return ((2 * at + 1) * num_in) // (2 * num_out)


def scaled_size(shape: Ints, scale: float) -> tuple[int, int]:
    """(y, x) of a picture at a scale: rounded, at least one pixel."""
    y, x = (max(1, math.floor(n * scale + 0.5)) for n in shape[-2:])
    return y, x


def scaled_info(image: ImageInfo, scale: float) -> ImageInfo:
    """What is told of a picture at a scale: size, pixel size and resolution; the last two of its exact ratio."""
    size = scaled_size(image.shape, scale)
    ratio = dict(zip("yx", (new / old for new, old in zip(size, image.shape[-2:], strict=True)), strict=True))
    spacing = image.spacing_um
    if len(spacing) == len(image.spatial_axes):
        pairs = zip(image.spatial_axes, spacing, strict=True)
        spacing = tuple(None if s is None else s / ratio.get(axis, 1.0) for axis, s in pairs)
    dpi = None if image.dpi is None else (image.dpi[0] * ratio["y"], image.dpi[1] * ratio["x"])
    return replace(image, shape=(*image.shape[:-2], *size), spacing_um=spacing, dpi=dpi)


class ScaledSource:
    """Another source, every picture of it resampled along y and x.

    Args:
        source: closed together with this one.
        scale: factor by which pictures are enlarged; below 1 they shrink.

    Raises:
        UsageError: if the factor is out of bounds, or pictures are of a type without values between (truth values).
    """

    def __init__(self, source: Source, scale: float) -> None:
        refuse_scale(scale)
        self._source, self._scale = source, scale
        told = source.info
        for image in told.images:
            if image.dtype.kind not in "iuf":
                raise UsageError(f"--scale of pixels of type {image.dtype}", "integers or floats")
        self._views = [
            ResampledView(
                lambda box, i=i: source.read(i, box), image.shape, image.dtype, scaled_size(image.shape, scale)
            )
            for i, image in enumerate(told.images)
        ]

    @cached_property
    def info(self) -> SourceInfo:
        """See `Source.info`; the scale is part of the identity."""
        told = self._source.info
        note = f"seen at {self._scale:g} times its size (--scale)"
        images = tuple(replace(scaled_info(i, self._scale), notes=(*i.notes, note)) for i in told.images)
        chunks = tuple(
            (*chunk[:-2], *(min(n, m) for n, m in zip(scaled_size(chunk, self._scale), image.shape[-2:], strict=True)))
            for chunk, image in zip(told.preferred_chunk, images, strict=False)
        )
        identity = {**told.identity, "scale": self._scale}
        return replace(told, images=images, identity=identity, preferred_chunk=chunks)

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`."""
        check_box(box, self.info.images[i_image], self.info.uri)
        return self._views[i_image].read(box)

    def close(self) -> None:
        """Closes the source below."""
        self._source.close()


def refuse_scale(scale: float) -> None:
    """Says what factors are possible.

    Raises:
        UsageError: for others.
    """
    if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
        raise UsageError(f"--scale {scale:g}", f"a factor from {SMALLEST_SCALE:g} to {LARGEST_SCALE:g}")
