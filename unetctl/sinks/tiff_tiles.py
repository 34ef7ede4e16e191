"""The pixels of a store as a stream of encoded TIFF tiles: read ahead, encoded by threads, bounded."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from unetctl.errors import UsageError
from unetctl.geometry.box import Box, Ints
from unetctl.sinks.estimate import tiff_tile
from unetctl.sinks.units import ceil_div, pieces
from unetctl.sinks.zarr import ZarrSink

SLAB_BYTES = 16 << 20
"""What is read from the store at a time; at most three such slabs are held."""

_PAGE_AXES = "tcz"
_FAST, _SMALL = 1, 6
_MAX_PENDING = 64

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Series:
    """One OME image of the file: a picture of the store, or one position of it.

    Attributes:
        i_image: the picture.
        fixed: (axis, index) of the axes that TIFF has no place for; one series per index of them.
        axes: what remains, in order: some of t, c, z, then y, x.
        num_levels: resolutions, itself included.
    """

    i_image: int
    fixed: tuple[tuple[int, int], ...]
    axes: str
    num_levels: int

    def shape(self, sink: ZarrSink, i_level: int) -> Ints:
        """Sizes of a resolution in the order of `axes`."""
        full = sink.level(self.i_image, i_level).shape
        skipped = {axis for axis, _ in self.fixed}
        return tuple(n for i, n in enumerate(full) if i not in skipped)

    def box(self, sink: ZarrSink, inner: Box) -> Box:
        """A box in the order of `axes` as a box of the picture."""
        start, stop = list(inner.start), list(inner.stop)
        for axis, i in self.fixed:
            start.insert(axis, i)
            stop.insert(axis, i + 1)
        return Box(tuple(start), tuple(stop))


def all_series(sink: ZarrSink) -> Iterator[Series]:
    """The OME images that a store becomes, in order."""
    for i_image, image in enumerate(sink.layout.images):
        others = [i for i, axis in enumerate(image.axes) if axis not in _PAGE_AXES + "yx"]
        axes = "".join(axis for axis in image.axes if axis in _PAGE_AXES + "yx")
        for index in product(*(range(image.shape[axis]) for axis in others)):
            yield Series(i_image, tuple(zip(others, index, strict=True)), axes, sink.num_levels(i_image))


def num_tiles(shape: Ints) -> int:
    """Tiles of all pages of a level."""
    tile = tiff_tile(shape)
    pages = 1
    for size in shape[:-2]:
        pages *= size
    return pages * ceil_div(shape[-2], tile[0]) * ceil_div(shape[-1], tile[1])


@dataclass(frozen=True)
class TileCodec:
    """How a tile is encoded.

    Attributes:
        compression: "deflate", "zstd" or "none".
        dtype: of the pixels, little-endian.
        level: of the compression; 1 is fast and loses nothing on noise-like pictures, 6 suits masks and
            labels.
    """

    compression: str
    dtype: np.dtype[np.generic]
    level: int

    @classmethod
    def of(cls, compression: str, dtype: str, is_image: bool) -> "TileCodec":
        """The codec for pictures of this dtype.

        Raises:
            UsageError: if the compression is not known.
        """
        if compression not in ("deflate", "zstd", "none"):
            raise UsageError(f"TIFF compression {compression!r} is not known", "deflate, zstd or none")
        return cls(compression, np.dtype(dtype).newbyteorder("<"), _FAST if is_image else _SMALL)

    @property
    def predictor(self) -> int:
        """TIFF's Predictor tag: 2 (differences along x) for integers up to 32 bits, else 1 (none).

        Predictor 3 for floats is left out: Bio-Formats, and so Fiji and QuPath, refuses it ("Unknown
        Predictor").
        """
        has_one = self.compression != "none" and self.dtype.kind in "iu" and self.dtype.itemsize <= 4
        return 2 if has_one else 1

    def encode(self, pixels: Array, tile: tuple[int, int]) -> bytes:
        """The bytes of one tile; `pixels` (y, x) may be smaller than `tile` and is filled up with zeros."""
        if pixels.shape == tile:
            full = np.ascontiguousarray(pixels, self.dtype)
        else:
            full = np.zeros(tile, self.dtype)
            full[: pixels.shape[0], : pixels.shape[1]] = pixels
        if self.compression == "none":
            return full.tobytes()
        data: Any = imagecodecs.delta_encode(full, axis=-1) if self.predictor == 2 else full
        if self.compression == "zstd":
            return bytes(imagecodecs.zstd_encode(data, level=self.level))
        return bytes(imagecodecs.deflate_encode(data, level=self.level))


def encoded_tiles(
    sink: ZarrSink,
    series: Series,
    i_level: int,
    codec: TileCodec,
    workers: ThreadPoolExecutor,
    tick: Callable[[], None],
) -> Generator[bytes, None, None]:
    """All tiles of a level in TIFF's order: page by page (t, c, z), rows of tiles, left to right.

    `tick` is called before each tile is handed out; what it raises ends the stream.
    """
    tile = tiff_tile(series.shape(sink, i_level))
    max_pending = min(_MAX_PENDING, max(4, SLAB_BYTES // (tile[0] * tile[1] * codec.dtype.itemsize)))
    pending: deque[Future[bytes]] = deque()
    zero_tile: list[bytes] = []

    def encoded(pixels: Array) -> bytes:
        if pixels.any():
            return codec.encode(pixels, tile)
        if not zero_tile:
            zero_tile.append(codec.encode(np.zeros((1, 1), codec.dtype), tile))
        return zero_tile[0]

    with ThreadPoolExecutor(1, "unetctl-tiff-read") as reader:
        try:
            for slab in _read_ahead(sink, series, i_level, tile, reader):
                for pixels in _tiles_of(slab, tile):
                    pending.append(workers.submit(encoded, pixels))
                    if len(pending) > max_pending:
                        tick()
                        yield pending.popleft().result()
            while pending:
                tick()
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _read_ahead(
    sink: ZarrSink, series: Series, i_level: int, tile: tuple[int, int], reader: ThreadPoolExecutor
) -> Iterator[Array]:
    """Slabs of pages (pages, y, x), the next being read while one is used."""
    ahead: Future[Array] | None = None
    for box in _slabs(sink, series, i_level, tile):
        coming = reader.submit(_read, sink, series, i_level, box)
        if ahead is not None:
            yield ahead.result()
        ahead = coming
    if ahead is not None:
        yield ahead.result()


def _slabs(sink: ZarrSink, series: Series, i_level: int, tile: tuple[int, int]) -> Iterator[Box]:
    """What is read at a time: pages of one shard along the last page axis, or tile rows of a large page."""
    shape = series.shape(sink, i_level)
    level = sink.level(series.i_image, i_level)
    itemsize = np.dtype(sink.layout.images[series.i_image].dtype).itemsize
    if len(shape) == 2:
        yield from pieces(Box.whole(shape), tile, itemsize, SLAB_BYTES)
        return
    depth = level.shard[sink.layout.images[series.i_image].axes.index(series.axes[-3])]
    for index in np.ndindex(shape[:-3]):
        for first in range(0, shape[-3], depth):
            start = (*index, first, 0, 0)
            stop = (*(i + 1 for i in index), min(first + depth, shape[-3]), *shape[-2:])
            yield from pieces(Box(start, stop), (*(1 for _ in shape[:-2]), *tile), itemsize, SLAB_BYTES)


def _read(sink: ZarrSink, series: Series, i_level: int, box: Box) -> Array:
    return sink.read(series.i_image, i_level, series.box(sink, box)).reshape(-1, *box.shape[-2:])


def _tiles_of(slab: Array, tile: tuple[int, int]) -> Iterator[Array]:
    for page in slab:
        for y in range(0, page.shape[0], tile[0]):
            for x in range(0, page.shape[1], tile[1]):
                yield page[y : y + tile[0], x : x + tile[1]]
