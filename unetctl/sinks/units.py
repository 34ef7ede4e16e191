"""Storage units: a picture's levels, their chunks and shards, and how regions are cut into bounded pieces.

No zarr here: the dry run counts with it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
import numpy.typing as npt

from unetctl.geometry.box import Box, Ints
from unetctl.sinks.base import OutputImage

PYRAMID_ABOVE = 2048
"""Pictures with more pixels than this along y or x get a pyramid."""

PYRAMID_UNTIL = 1024
"""Levels are added, halving y and x, until both are at most this."""

_OME_AXES = "tczyx"


def ceil_div(size: int, unit: int) -> int:
    """Smallest whole number of `unit` that covers `size`."""
    return -(-size // unit)


@dataclass(frozen=True)
class Level:
    """One resolution of a picture, in the order of the picture's axes.

    Attributes:
        shape: sizes in pixels.
        chunk: box shape of one compressed unit.
        shard: box shape of one file, a whole number of chunks per axis; at most as large as the level needs.
    """

    shape: Ints
    chunk: Ints
    shard: Ints

    @property
    def grid(self) -> Ints:
        """Number of shards per axis."""
        return tuple(ceil_div(n, s) for n, s in zip(self.shape, self.shard, strict=True))

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return prod(self.grid)

    def shard_box(self, coords: Sequence[int]) -> Box:
        """The region of the shard at these grid coordinates, clipped to the level."""
        start = tuple(i * s for i, s in zip(coords, self.shard, strict=True))
        stop = tuple(min(a + s, n) for a, s, n in zip(start, self.shard, self.shape, strict=True))
        return Box(start, stop)

    def nth_shard_box(self, i: int) -> Box:
        """The region of shard `i` in C order of the grid."""
        coords: list[int] = []
        for size in reversed(self.grid):
            i, rest = divmod(i, size)
            coords.append(rest)
        return self.shard_box(coords[::-1])

    def coords_of(self, box: Box) -> Ints:
        """Grid coordinates of the shard that `box` fills.

        Raises:
            ValueError: if `box` is not exactly one (edge-clipped) shard.
        """
        if box.ndim == len(self.shape) and not box.is_empty:
            coords = tuple(a // s for a, s in zip(box.start, self.shard, strict=True))
            if Box.whole(self.shape).covers(box) and self.shard_box(coords) == box:
                return coords
        raise ValueError(f"box {box} is not one whole shard of {self.shard} in a picture of {self.shape}")

    def coords_touching(self, box: Box) -> Iterator[Ints]:
        """Grid coordinates of all shards that hold pixels of `box`, in C order."""
        inside = Box.whole(self.shape).intersection(box)
        if inside.is_empty:
            return iter(())
        return product(
            *(range(a // s, ceil_div(b, s)) for (a, b), s in zip(inside, self.shard, strict=True)),
        )


def levels_of(image: OutputImage) -> tuple[Level, ...]:
    """All resolutions of a picture, level 0 (the picture itself) first.

    Each further level halves y and x, rounded up; z and the leading axes stay. Shards and chunks larger than
    a level needs are clipped: zarr pads every shard to its full size before encoding it.

    Raises:
        ValueError: if the picture's shape, axes, shard and chunk do not fit each other.
    """
    _check(image)
    shapes = [image.shape]
    if max(image.shape[-2:]) > PYRAMID_ABOVE:
        while max(shapes[-1][-2:]) > PYRAMID_UNTIL:
            y, x = shapes[-1][-2:]
            shapes.append((*image.shape[:-2], ceil_div(y, 2), ceil_div(x, 2)))
    return tuple(_clipped(shape, image.chunk, image.shard) for shape in shapes)


def outer_axes(image: OutputImage) -> Ints:
    """Indices of the axes that OME-Zarr cannot hold with the others: one picture is stored per index of them.

    OME-Zarr 0.5 takes t first, then at most one axis of its own kind, then c, then space, five in all.
    Pictures that fit are stored as they are (no outer axes); of others, every axis that is none of tczyx is
    an outer one.
    """
    own = tuple(i for i, axis in enumerate(image.axes) if axis not in _OME_AXES)
    fits = len(image.axes) <= 5 and len(own) <= 1 and image.axes.rfind("t") <= 0
    return () if fits else own


def is_averaged(image: OutputImage) -> bool:
    """True if pyramid levels hold means; False for classes, masks and ids (every second pixel)."""
    return image.kind != "labels" and np.dtype(image.dtype).kind != "b"


def pieces(box: Box, unit: Sequence[int], itemsize: int, budget_bytes: int) -> Iterator[Box]:
    """Cuts `box` into boxes of at most `budget_bytes`, in C order, each a run of whole units.

    A piece grows along the last axis first, and along the axis before only once the later ones are covered:
    the units of the pieces, taken one after another, are the units of the box in C order. One unit is the
    least, also over the budget.
    """
    size = [min(u, n) for u, n in zip(unit, box.shape, strict=True)]
    for axis in reversed(range(box.ndim)):
        num_bytes = prod(size) * itemsize
        size[axis] = min(box.shape[axis], size[axis] * max(1, budget_bytes // max(1, num_bytes)))
        if size[axis] < box.shape[axis]:
            break
    starts = (range(a, b, max(1, n)) for (a, b), n in zip(box, size, strict=True))
    for start in product(*starts):
        yield Box(start, tuple(min(a + n, b) for a, n, b in zip(start, size, box.stop, strict=True)))


def check_pixels(pixels: npt.NDArray[np.generic], box: Box, dtype: str) -> None:
    """Raises a ValueError unless `pixels` has the shape of `box` and this dtype."""
    if pixels.shape != box.shape or pixels.dtype != np.dtype(dtype):
        raise ValueError(f"pixels of shape {pixels.shape} and {pixels.dtype} for box {box} of a picture of {dtype}")


def _clipped(shape: Ints, chunk: Ints, shard: Ints) -> Level:
    chunks, shards = [], []
    for size, inner, outer in zip(shape, chunk, shard, strict=True):
        small = min(inner, size) if outer >= size else inner
        chunks.append(small)
        shards.append(min(outer, ceil_div(size, small) * small))
    return Level(shape, tuple(chunks), tuple(shards))


def _check(image: OutputImage) -> None:
    what = f"picture {image.name!r} of axes {image.axes!r} and shape {image.shape}"
    if not len(image.axes) == len(image.shape) == len(image.shard) == len(image.chunk):
        raise ValueError(f"{what}: axes, shape, shard {image.shard} and chunk {image.chunk} differ in length")
    if len(set(image.axes)) != len(image.axes) or not image.axes.endswith("yx") or min(image.shape) < 1:
        raise ValueError(f"{what}: axes must differ and end with 'yx', sizes must be at least 1")
    if min(image.chunk) < 1 or any(s % c for s, c in zip(image.shard, image.chunk, strict=True)):
        raise ValueError(f"{what}: chunk {image.chunk} does not divide shard {image.shard}")
    if any(image.shard[axis] != 1 for axis in outer_axes(image)):
        raise ValueError(f"{what}: a shard of {image.shard} reaches over several positions")
