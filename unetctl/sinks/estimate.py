"""What an output takes on disk, from its layout alone: bounds for the dry run and the choice of BigTIFF."""

import json
from dataclasses import dataclass
from math import prod

import numpy as np

from unetctl.geometry.box import Ints
from unetctl.sinks.base import OutputImage, OutputLayout
from unetctl.sinks.units import Level, ceil_div, levels_of, outer_axes

TIFF_TILE = 512
"""Largest tile of an exported TIFF per side, in pixels."""

_CLASSIC_TIFF_BYTES = 2**32 - 2**25
_CHUNK_BYTES = 64  # header, checksum and index entry of a chunk that does not compress
_FOLDER_BYTES = 4096
_JSON_BYTES = 8192
_IFD_BYTES = 1024
_XML_BYTES = 4096


@dataclass(frozen=True)
class StoreSize:
    """Upper bounds of a store.

    Attributes:
        num_bytes: with every pixel stored uncompressed; real stores are smaller.
        num_files: files and folders (inodes), if no block is empty.
    """

    num_bytes: int
    num_files: int


def store_size(layout: OutputLayout) -> StoreSize:
    """Bytes and inodes of the OME-Zarr store of a layout, pyramids included."""
    text = json.dumps(layout.provenance, indent=2, default=str)
    num_bytes, num_files = 2 * _JSON_BYTES + 2 * len(text.encode()), 4
    for image in layout.images:
        outer = outer_axes(image)
        num_groups = prod(image.shape[axis] for axis in outer)
        itemsize = np.dtype(image.dtype).itemsize
        names = len("".join((image.name, *image.channel_names)).encode()) + 256 * len(image.channel_names)
        num_files += num_groups * 2
        num_bytes += num_groups * (_JSON_BYTES + _FOLDER_BYTES + 4 * names)
        for level in levels_of(image):
            grid = [n for axis, n in enumerate(level.grid) if axis not in outer]
            num_folders = num_groups * (2 + sum(prod(grid[:i]) for i in range(1, len(grid))))
            num_chunks = prod(ceil_div(n, c) for n, c in zip(level.shape, level.chunk, strict=True))
            num_files += num_groups + num_folders + level.num_shards
            num_bytes += num_groups * _JSON_BYTES + num_folders * _FOLDER_BYTES
            num_bytes += num_chunks * (prod(level.chunk) * itemsize * 257 // 256 + _CHUNK_BYTES)
            num_bytes += level.num_shards * (_index_bytes(level) + 4)
    return StoreSize(num_bytes, num_files)


def tiff_size(layout: OutputLayout) -> int:
    """Bytes that the OME-TIFF of a layout cannot exceed, pyramids included: no tile shrinks."""
    return _XML_BYTES + sum(_image_tiff_size(image) for image in layout.images)


def needs_bigtiff(layout: OutputLayout) -> bool:
    """True if the exported TIFF might pass what 32-bit offsets reach (4 GiB less a margin)."""
    return tiff_size(layout) > _CLASSIC_TIFF_BYTES


def tiff_tile(shape: Ints) -> tuple[int, int]:
    """Tile (y, x) of a TIFF page: 512, or what a smaller page needs, a multiple of 16."""
    y, x = (min(TIFF_TILE, 16 * ceil_div(n, 16)) for n in shape[-2:])
    return y, x


def _image_tiff_size(image: OutputImage) -> int:
    itemsize = np.dtype(image.dtype).itemsize
    levels = levels_of(image)
    num_pages = prod(image.shape[:-2])
    page_bytes = 0
    for level in levels:
        tile = tiff_tile(level.shape)
        tiles = ceil_div(level.shape[-2], tile[0]) * ceil_div(level.shape[-1], tile[1])
        raw = prod(tile) * itemsize
        page_bytes += tiles * (raw + raw // 512 + 64) + _IFD_BYTES
    return num_pages * page_bytes + _XML_BYTES + 512 * len(image.channel_names)


def _index_bytes(level: Level) -> int:
    return 16 * prod(s // c for s, c in zip(level.shard, level.chunk, strict=True))
