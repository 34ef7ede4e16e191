"""TIFF, BigTIFF, OME-TIFF and ImageJ files, read lazily: a box costs the bytes of the strips or tiles that hold it."""

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.geometry.box import Box, Ints
from unetctl.sources.axes import StoredImage, check_box, told_apart, translate
from unetctl.sources.base import ImageInfo, SourceInfo
from unetctl.sources.files import DEFAULT_MAX_BYTES, RandomAccessFile, digest, file_identity
from unetctl.sources.orientation import stored_ranges, swaps_axes, upright
from unetctl.sources.tiff_fallback import with_fallback
from unetctl.sources.tiff_layout import check_page, human_bytes
from unetctl.sources.tiff_ome_series import find_ome_series, has_ome_metadata
from unetctl.sources.tiff_planes import TiffFile
from unetctl.sources.tiff_segments import SegmentCache, read_page_box
from unetctl.sources.tiff_series import Series, find_series
from unetctl.sources.tiff_vendor import find_vendor_series, is_ndpi_name, is_vendor

_CACHE_BYTES = 64 * 1024 * 1024
_NOTED_SEGMENT_BYTES = 32 * 1024 * 1024


class TiffSource:
    """The pictures of a TIFF file, and of the files that an OME-TIFF spreads over.

    Reading takes no lock but for huge segments. Memory hardly grows with the number of pages (12 bytes each); decoded
    strips and tiles of which a box took a part are kept, up to 64 MiB, so that a plane in one compressed strip is not
    decoded for each box.

    Args:
        path: of the file.
        axes: one letter an axis, in the order and with the sizes that messages show (samples of a pixel are "c").
        max_bytes: that one compressed strip or tile may take when decoded, 1 GiB unless given.
        series: name of the kind and the pictures, already found and checked; worked out unless given.
        cache_bytes: of decoded strips and tiles to keep where 64 MiB are too few for one of them.

    Raises:
        InputError: if the file is cut off, damaged, declares what it cannot hold, or is stored in an unsupported way.
        UsageError: if `axes` does not fit.
    """

    def __init__(
        self,
        path: str,
        axes: str | None = None,
        max_bytes: int | None = None,
        *,
        series: tuple[str, tuple[Series, ...]] | None = None,
        cache_bytes: int = 0,
    ) -> None:
        self._path = path
        limit = DEFAULT_MAX_BYTES if max_bytes is None else max_bytes
        self._kind, self._series = _open(path, limit) if series is None else series
        self._cache = SegmentCache(min(max(_CACHE_BYTES, cache_bytes), max(0, limit)))
        self._translated = told_apart([translate(_stored(s), path, axes) for s in self._series])

    @property
    def images(self) -> tuple[ImageInfo, ...]:
        """The pictures; known without reading pixels."""
        return tuple(t.image for t in self._translated)

    @property
    def series(self) -> tuple[Series, ...]:
        """How each picture is stored."""
        return self._series

    @cached_property
    def info(self) -> SourceInfo:
        """See `Source.info`."""
        paths = dict.fromkeys([self._path, *(p for s in self._series for p in s.paths)])
        files = [RandomAccessFile(p) for p in paths]
        identity = file_identity(files)
        if len(files) > 1:
            identity["structure_sha256"] = digest(f"{i.name} {i.axes} {i.shape}" for i in self.images)
        for file in files:
            file.close()
        return SourceInfo(self._path, self._kind, self.images, identity, tuple(t.chunk for t in self._translated))

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`."""
        series, translated = self._series[i_image], self._translated[i_image]
        check_box(box, translated.image, self._path)
        wanted = translated.order.file_box(box)
        num_lead = len(series.lead_shape)
        lead = Box(wanted.start[:num_lead], wanted.stop[:num_lead])
        out = np.empty(wanted.shape, series.colour.dtype)
        flat = out.reshape(lead.num_pixels, *wanted.shape[num_lead:])
        page_box = Box(wanted.start[num_lead:], wanted.stop[num_lead:])
        for i, place in enumerate(np.ndindex(*lead.shape)):
            k = 0
            for size, offset, start in zip(series.lead_shape, place, lead.start, strict=True):
                k = k * size + start + offset
            self._read_plane(series, k, page_box, flat[i])
        return translated.order.from_file(out)

    def _read_plane(self, series: Series, k: int, box: Box, out: npt.NDArray[np.generic]) -> None:
        """Fills `out` with a box of plane `k`, in the order of `_page_axes`."""
        found = series.planes.plane(k)
        if found is None:
            out[...] = 0
            return
        page, layout = found
        if layout.shaped != series.layout.shaped or layout.dtype != series.layout.dtype:
            raise InputError(
                f"{page.file.path}: plane {k} of the picture is {layout.shape} {layout.dtype}",
                f"{series.layout.shape} {series.layout.dtype} as its first plane",
                "the file is damaged, or its pages are no stack",
            )
        ranges = dict(zip(_page_axes(series), box, strict=True))
        rows, columns = stored_ranges(ranges["y"], ranges["x"], series.orientation, layout.shaped[2:4])
        samples = ranges.get("s", (0, 1))
        stored_samples = (0, layout.shaped[0] * layout.shaped[4]) if series.colour.is_joint else samples
        planar = layout.shaped[0] > 1
        per_axis = (
            stored_samples if planar else (0, 1),
            ranges.get("z", (0, 1)),
            rows,
            columns,
            (0, 1) if planar else stored_samples,
        )
        stored_box = Box(tuple(a for a, _ in per_axis), tuple(b for _, b in per_axis))
        if series.colour.kind == "as stored" and series.orientation == 1 and layout.dtype == out.dtype:
            read_page_box(page, layout, stored_box, out.reshape(stored_box.shape), self._cache)
            return
        stored = np.empty(stored_box.shape, layout.dtype)
        read_page_box(page, layout, stored_box, stored, self._cache)
        if series.colour.is_joint:
            stored = np.moveaxis(stored, 0, -2)[..., 0] if planar else stored[0]  # (z, y, x, samples)
            pixels = series.colour.apply(stored)[..., samples[0] : samples[1]]
            pixels = np.moveaxis(pixels, -1, 0)[..., None] if planar else pixels[None]
        else:
            pixels = series.colour.apply(stored)
        out[...] = upright(pixels, series.orientation, y_axis=2).reshape(out.shape)

    def close(self) -> None:
        """Forgets the files; they close when the last read in another thread has ended."""
        self._series = ()


def _open(path: str, max_bytes: int) -> tuple[str, tuple[Series, ...]]:
    notes: tuple[str, ...] = ()
    if is_ndpi_name(path):
        kind, series = find_vendor_series(path)
    else:
        tiff = TiffFile(path)
        found: list[Series] = []
        if has_ome_metadata(tiff):
            found = find_ome_series(tiff)
            notes = () if found else ("its OME metadata do not fit its pages: pages are read as they come",)
        if found:
            kind, series = "OME-TIFF", found
        elif is_vendor(tiff):
            kind, series = find_vendor_series(path)
        else:
            kind, series = find_series(tiff)
            kind = kind.replace("TIFF", "BigTIFF") if tiff.index.is_big else kind
    return kind, checked_series(series, path, max_bytes, notes)


def checked_series(
    series: Iterable[Series], path: str, max_bytes: int, notes: tuple[str, ...] = ()
) -> tuple[Series, ...]:
    """The pictures, each with a decoder and each of a size that the file can hold; `notes` before its own.

    Raises:
        InputError: if there is none, or one fails.
    """
    checked = []
    for told in series:
        decodable = with_fallback(told, path, max_bytes)
        one = replace(decodable, notes=(*notes, *decodable.notes))
        for k in dict.fromkeys((0, len(one.planes) - 1)):
            plane = one.planes.plane(k)
            if plane is not None:
                check_page(plane[1], plane[0], max_bytes)
        checked.append(one)
    if not checked:
        raise InputError(f"{path} is a TIFF file without any picture")
    return tuple(checked)


def _page_axes(series: Series) -> str:
    """Letters of a plane's axes after colours are worked out."""
    return series.layout.axes + ("s" if series.colour.kind == "palette" else "")


def _stored(series: Series) -> StoredImage:
    layout, axes = series.layout, _page_axes(series)
    shape, chunk = list(layout.shape), list(layout.chunk)
    if series.colour.kind == "palette":
        shape.append(series.colour.num_samples)
        chunk.append(series.colour.num_samples)
    elif series.colour.is_joint:
        shape[axes.index("s")] = chunk[axes.index("s")] = series.colour.num_samples
    dpi, spacing = series.dpi, series.spacing_um
    if swaps_axes(series.orientation):
        y, x = axes.index("y"), axes.index("x")
        shape[y], shape[x], chunk[y], chunk[x] = shape[x], shape[y], chunk[x], chunk[y]
        dpi = (dpi[1], dpi[0]) if dpi else None
        spacing = {{"x": "y", "y": "x"}.get(a, a): v for a, v in spacing.items()}
    notes = series.notes
    if not layout.is_direct and layout.segment_bytes > _NOTED_SEGMENT_BYTES:
        notes = (
            *notes,
            f"compressed in pieces of {human_bytes(layout.segment_bytes)}: small boxes are slow to read",
        )
    if math.prod(series.lead_shape) != len(series.planes):
        raise InputError(
            f"{series.name} has {len(series.planes)} planes", f"{series.lead_shape}", "the file is damaged"
        )
    lead: Ints = (1,) * len(series.lead_shape)
    return StoredImage(
        shape=(*series.lead_shape, *shape),
        axes=series.lead_axes + axes,
        dtype=series.colour.dtype,
        spacing_um=spacing,
        name=series.name,
        channel_names=series.channel_names,
        is_rgb=series.colour.is_rgb,
        dpi=dpi,
        chunk=(*lead, *chunk),
        notes=notes,
    )
