"""Boxes of TIFF pages, read from the strips or tiles that hold them."""

import struct
import threading
from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.geometry.box import Box
from unetctl.sources.files import as_bytes, read_rows
from unetctl.sources.tiff_index import Page
from unetctl.sources.tiff_layout import Layout, human_bytes, quiet_tifffile

Pixels = npt.NDArray[np.generic]
_CACHED_FROM_BYTES = 1 << 12
_ONE_AT_A_TIME_FROM_BYTES = 1 << 24
_JPEG_2000 = (33003, 33004, 33005, 34712)


class SegmentCache:
    """Decoded strips and tiles of which a box took only a part, the last used ones: its neighbours want the rest.

    Without it a plane in one compressed strip, or in strips of full width, would be decoded again for each box.

    Args:
        max_bytes: that are kept; a larger segment is never kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[int, int, int], Pixels] = OrderedDict()
        self.decoding = threading.Lock()

    def get(self, key: tuple[int, int, int]) -> Pixels | None:
        """The decoded segment, if kept."""
        with self._lock:
            pixels = self._held.get(key)
            if pixels is not None:
                self._held.move_to_end(key)
            return pixels

    def put(self, key: tuple[int, int, int], pixels: Pixels) -> None:
        """Keeps a decoded segment, dropping the least recently used ones."""
        if not _CACHED_FROM_BYTES <= pixels.nbytes <= self._max_bytes:
            return
        with self._lock:
            if key in self._held:
                return
            self._held[key] = pixels
            self._num_bytes += pixels.nbytes
            while self._num_bytes > self._max_bytes:
                _, dropped = self._held.popitem(last=False)
                self._num_bytes -= dropped.nbytes


def read_page_box(page: Page, layout: Layout, box: Box, out: Pixels, cache: SegmentCache) -> None:
    """Fills `out` with a box of a page.

    Args:
        page: where the pixels lie.
        layout: how they are stored.
        box: (planar samples, z, y, x, interleaved samples), inside `layout.shaped`.
        out: of the box's shape and `layout.dtype`, C-contiguous.
        cache: of decoded segments.

    Raises:
        InputError: if a segment is missing from the file or cannot be decoded.
    """
    if out.size == 0:
        return
    if layout.is_direct and not layout.is_tiled:
        _read_direct_strips(page, layout, box, out)
        return
    grid = layout.grid
    size = (1, *layout.segment)
    first = [a // n for a, n in zip(box.start, size, strict=True)]
    last = [(b - 1) // n + 1 for b, n in zip(box.stop, size, strict=True)]
    for s in range(first[0], last[0]):
        for z in range(first[1], last[1]):
            for y in range(first[2], last[2]):
                row = ((s * grid[1] + z) * grid[2] + y) * grid[3]
                offsets = page.offsets.slice(row + first[3], row + last[3])
                lengths = offsets if layout.is_direct else page.counts.slice(row + first[3], row + last[3])
                for x in range(first[3], last[3]):
                    place = Box(
                        (s, z * size[1], y * size[2], x * size[3], 0),
                        (s + 1, (z + 1) * size[1], (y + 1) * size[2], (x + 1) * size[3], size[4]),
                    )
                    common = place.intersection(box)
                    target = out[common.relative_to(box).slices()]
                    offset, length = int(offsets[x - first[3]]), int(lengths[x - first[3]])
                    if offset == 0 or length == 0:
                        target[...] = layout.fill
                    elif layout.is_direct:
                        _read_direct_tile(page, layout, offset, common.relative_to(place), target)
                    else:
                        decoded = _decoded(page, layout, row + x, offset, length, cache, common == place)
                        # strips and some tiles at the lower and right edges come cut to the page
                        source = decoded[common.relative_to(place).slices()[1:]]
                        if source.shape != target.shape[1:]:
                            raise InputError(
                                f"{page.file.path}: segment {row + x} of the page at byte {page.key} is too small"
                            )
                        target[0] = source


def _read_direct_strips(page: Page, layout: Layout, box: Box, out: Pixels) -> None:
    num_columns, num_samples = layout.shaped[3], layout.shaped[4]
    (s0, z0, y0, x0, c0), (s1, z1, y1, x1, c1) = box.start, box.stop
    if (c0, c1) != (0, num_samples):
        whole = np.empty((*out.shape[:4], num_samples), layout.dtype)
        _read_direct_strips(page, layout, Box((*box.start[:4], 0), (*box.stop[:4], num_samples)), whole)
        out[...] = whole[..., c0:c1]
        return
    pixel_bytes = num_samples * layout.dtype.itemsize
    row_bytes = num_columns * pixel_bytes
    rows_per_strip = layout.segment[1]
    strips = np.arange(y0 // rows_per_strip, (y1 - 1) // rows_per_strip + 1)
    rows = np.arange(y0, y1)
    for s in range(s0, s1):
        for z in range(z0, z1):
            first = (s * layout.grid[1] + z) * layout.grid[2] + int(strips[0])
            offsets = page.offsets.slice(first, first + len(strips))
            target = out[s - s0, z - z0]
            missing = offsets[rows // rows_per_strip - strips[0]] == 0
            if missing.any():
                target[missing] = layout.fill
                # the rows that are there, in runs, so that each run is contiguous in `out` as well
                for run in np.split(
                    np.flatnonzero(~missing), np.flatnonzero(np.diff(np.flatnonzero(~missing)) > 1) + 1
                ):
                    if run.size:
                        part = Box((s, z, y0 + int(run[0]), x0, c0), (s + 1, z + 1, y0 + int(run[-1]) + 1, x1, c1))
                        _read_direct_strips(page, layout, part, target[None, None, run[0] : run[-1] + 1])
                continue
            starts = offsets[rows // rows_per_strip - strips[0]] + rows % rows_per_strip * row_bytes
            flat = as_bytes(target).reshape(len(rows), (x1 - x0) * pixel_bytes)
            read_rows(page.file, starts, row_bytes, x0 * pixel_bytes, x1 * pixel_bytes, flat)
            if layout.stored_dtype != layout.dtype:
                target.byteswap(inplace=True)


def _read_direct_tile(page: Page, layout: Layout, offset: int, inside: Box, target: Pixels) -> None:
    """Part `inside` (s, z, y, x, c) of an uncompressed tile; only the rows that it needs are read."""
    _, height, width, samples = layout.segment
    row_bytes = width * samples * layout.dtype.itemsize
    (_, z0, y0, x0, c0), (_, z1, y1, x1, c1) = inside.start, inside.stop
    for z in range(z0, z1):
        data = page.file.read_at(offset + (z * height + y0) * row_bytes, (y1 - y0) * row_bytes)
        rows = np.frombuffer(data, layout.stored_dtype).reshape(y1 - y0, width, samples)
        target[0, z - z0] = rows[:, x0:x1, c0:c1]


def _decoded(
    page: Page, layout: Layout, i_segment: int, offset: int, length: int, cache: SegmentCache, is_whole: bool
) -> Pixels:
    """A decoded segment as (z, y, x, c), perhaps cut to the page; not kept if the box takes all of it (`is_whole`)."""
    key = (id(page.file), page.key, i_segment)
    pixels = cache.get(key)
    if pixels is not None:
        return pixels
    if layout.segment_bytes < _ONE_AT_A_TIME_FROM_BYTES:
        pixels = _decode(page, layout, i_segment, offset, length)
    else:
        with cache.decoding:  # two threads at one huge strip: the second takes what the first has made
            pixels = cache.get(key)
            if pixels is None:
                pixels = _decode(page, layout, i_segment, offset, length)
                if not is_whole:
                    cache.put(key, pixels)
    if not is_whole:
        cache.put(key, pixels)
    return pixels


def _decode(page: Page, layout: Layout, i_segment: int, offset: int, length: int) -> Pixels:
    path = page.file.path
    place = f"{path}: segment {i_segment} of the page at byte {page.key}"
    data = page.file.read_at(offset, length)
    if _promises_more(layout, data):
        raise InputError(
            f"{place} claims to be larger than {human_bytes(layout.segment_bytes)}",
            "its declared size",
            "the file is damaged",
        )
    if layout.decode is None:
        raise InputError(
            f"{place} cannot be decoded ({layout.refusal})",
            "a supported compression",
            "save it uncompressed or with deflate",
        )
    options = {"jpegtables": page.jpeg_tables, "jpegheader": layout.jpeg_header} if layout.is_jpeg else {}
    try:
        with quiet_tifffile():
            pixels, _, _ = layout.decode(data, i_segment, **options)
    except Exception as error:  # decoders of damaged data raise types of their own, and MemoryError
        told = f"{type(error).__name__}: {error}".rstrip(": ")
        raise InputError(
            f"{place} cannot be decoded ({told})",
            "sound data",
            "the file is damaged or its compression unsupported",
        ) from error
    if pixels is None or pixels.ndim != 4:
        raise InputError(f"{place} decodes to nothing", "pixels", "the file is damaged")
    return pixels


def _promises_more(layout: Layout, data: bytes) -> bool:
    """True if data would decode to far more than a segment has room for: decoders allocate what the stream says."""
    limit = layout.segment_bytes
    if limit > layout.bytes_out_per_byte_in * len(data) + (1 << 22):
        return True
    num_pixels = 0
    if layout.is_jpeg:
        height, width = jpeg_size(data)
        num_pixels = height * width
    elif layout.compression in _JPEG_2000:
        at = data.find(b"\xff\x4f\xff\x51")
        if 0 <= at <= len(data) - 16:
            width, height = struct.unpack_from(">II", data, at + 8)
            num_pixels = width * height
    # encoders round sizes up to whole blocks, and the last strip may come in full
    return num_pixels > 2 * layout.segment[1] * layout.segment[2] + 4096


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Height and width that a JPEG stream declares, (0, 0) if it has no frame header (ITU T.81, B.2.2)."""
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return 0, 0
        marker = data[at + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD8 or marker == 1:
            at += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return int(height), int(width)
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return 0, 0
