"""Pyramids, built block by block from the stored level below: images by means, labels by every second pixel.

The caller runs the steps in order and journals each, so that a stopped build goes on where it was:

    for i in range(first, len(steps)):
        journal.mark(i, build_step(sink, steps[i]))
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from unetctl.geometry.box import Box
from unetctl.sinks.base import StoredKey
from unetctl.sinks.units import is_averaged, pieces
from unetctl.sinks.zarr import ZarrSink

_READ_BYTES = 16 << 20

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Step:
    """One shard of one level: what is built and journalled at a time.

    Attributes:
        i_image: the picture.
        i_level: the resolution, at least 1.
        box: the shard, in that level's pixels.
    """

    i_image: int
    i_level: int
    box: Box


class PyramidSteps(Sequence[Step]):
    """All steps of a store, lower levels first; a step is worked out from its index, none is kept.

    Steps of one level may run in any order, or at once; a level needs the whole level below.
    """

    def __init__(self, sink: ZarrSink) -> None:
        self._sink = sink
        self._parts: list[tuple[int, int]] = []
        self._first = [0]
        num_images = len(sink.layout.images)
        for i_level in range(1, max((sink.num_levels(i) for i in range(num_images)), default=0)):
            for i_image in range(num_images):
                if i_level < sink.num_levels(i_image):
                    self._parts.append((i_image, i_level))
                    self._first.append(self._first[-1] + sink.level(i_image, i_level).num_shards)

    def __len__(self) -> int:
        return self._first[-1]

    @overload
    def __getitem__(self, index: int) -> Step: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Step]: ...

    def __getitem__(self, index: int | slice) -> Step | Sequence[Step]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = index + len(self) if index < 0 else index
        if not 0 <= i < len(self):
            raise IndexError(f"step {index} of {len(self)}")
        part = bisect_right(self._first, i) - 1
        i_image, i_level = self._parts[part]
        box = self._sink.level(i_image, i_level).nth_shard_box(i - self._first[part])
        return Step(i_image, i_level, box)


def pyramid_steps(sink: ZarrSink) -> PyramidSteps:
    """The steps that fill all levels above level 0, in a fixed order; none if no picture is large."""
    return PyramidSteps(sink)


def build_step(sink: ZarrSink, step: Step) -> tuple[StoredKey, ...]:
    """Builds and stores one shard of a level from the level below, which must be complete.

    Memory: the shard, what zarr needs to encode it, and about 32 MiB.

    Raises:
        ResourceError: if the disk is full.
    """
    image = sink.layout.images[step.i_image]
    level = sink.level(step.i_image, step.i_level)
    below = sink.level(step.i_image, step.i_level - 1)
    halve = halve_by_mean if is_averaged(image) else halve_by_step
    dtype = np.dtype(image.dtype)
    pixels = np.empty(step.box.shape, dtype)
    for piece in pieces(step.box, level.chunk, 4 * dtype.itemsize, _READ_BYTES):
        start = (*piece.start[:-2], *(2 * a for a in piece.start[-2:]))
        stop = (
            *piece.stop[:-2],
            *(min(2 * b, n) for b, n in zip(piece.stop[-2:], below.shape[-2:], strict=True)),
        )
        pixels[piece.relative_to(step.box).slices()] = halve(
            sink.read(step.i_image, step.i_level - 1, Box(start, stop))
        )
    return sink.write_level(step.i_image, step.i_level, step.box, pixels)


def halve_by_step(pixels: Array) -> Array:
    """Every second pixel along the last two axes, the first included; sizes are rounded up."""
    return pixels[..., ::2, ::2]


def halve_by_mean(pixels: Array) -> Array:
    """Means of 2x2 pixels along the last two axes, of 2 or 1 at an odd end; integers are rounded, halves up.

    Args:
        pixels: (..., y, x) of any integer or float type; the result has the same type.
    """
    pad = [(0, 0)] * (pixels.ndim - 2) + [(0, pixels.shape[-2] % 2), (0, pixels.shape[-1] % 2)]
    if any(after for _, after in pad):
        pixels = np.pad(pixels, pad, mode="edge")
    corners: list[Any] = [pixels[..., y::2, x::2] for y in (0, 1) for x in (0, 1)]
    if pixels.dtype.kind == "f":
        a, b, c, d = (corner.astype(np.promote_types(pixels.dtype, np.float32)) for corner in corners)
        return np.asarray(((a + b) + (c + d)) * 0.25).astype(pixels.dtype)
    # Quarters first, then what they leave: no sum exceeds the type, so that nothing needs a wider one.
    quarters = sum(corner >> 2 for corner in corners)
    rests = sum(corner & 3 for corner in corners)
    return np.asarray(quarters + ((rests + 2) >> 2)).astype(pixels.dtype)
