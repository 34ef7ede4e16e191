"""The pictures of a TIFF file that has no OME metadata: ImageJ, tifffile's own kind, or pages that are alike."""

import json
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.geometry.box import Ints
from unetctl.sources.tiff_colour import Colour, colour_of
from unetctl.sources.tiff_layout import Layout
from unetctl.sources.tiff_planes import ContiguousPlanes, PagePlanes, Planes, TiffFile
from unetctl.sources.units import um_per_unit

# no scanner of paper resolves finer: what does is a microscope's pixel size
_SMALLEST_PAGE_PIXEL_UM = 5.0
_UM_PER_RESOLUTION_UNIT = {2: 25400.0, 3: 10000.0}


@dataclass(frozen=True)
class Series:
    """One picture of a TIFF file.

    Attributes:
        name: of the picture, "" if it has none.
        lead_axes: letters of the axes over the planes, slowest first; "?" where the file does not say.
        lead_shape: their sizes.
        planes: as many as the product of `lead_shape`.
        layout: of the first plane.
        colour: what its samples mean.
        spacing_um: by letter.
        channel_names: as given.
        dpi: (y, x) or None.
        orientation: TIFF code, 1 where it does not matter.
        notes: sentences for the user.
        paths: files beside the first that hold planes.
    """

    name: str
    lead_axes: str
    lead_shape: Ints
    planes: Planes
    layout: Layout
    colour: Colour
    spacing_um: dict[str, float]
    channel_names: tuple[str, ...] = ()
    dpi: tuple[float, float] | None = None
    orientation: int = 1
    notes: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


def find_series(tiff: TiffFile) -> tuple[str, list[Series]]:
    """Name of the kind of TIFF, and its pictures.

    Raises:
        InputError: if the file does not hold the planes that it declares.
    """
    description = tiff.index.text(0, max_bytes=4096)
    if description.startswith("ImageJ="):
        return "ImageJ TIFF", [_imagej(tiff, description)]
    if description.startswith("{") and '"shape"' in description:
        shaped = _shaped(tiff)
        if shaped:
            return "TIFF", shaped
    return "TIFF", _alike(tiff)


def _alike(tiff: TiffFile) -> list[Series]:
    """Pages of the same shape, type and colours are one stack; smaller copies and masks are left out."""
    groups: dict[tuple[object, ...], list[int]] = {}
    firsts: dict[tuple[object, ...], Layout] = {}
    for i_layout, first in enumerate(tiff.index.first_of_layout):
        layout = tiff.layout(first)
        is_copy = bool(layout.subfile_type & 0b101)
        key: tuple[object, ...] = (
            is_copy,
            layout.shaped,
            layout.dtype.str,
            layout.bits,
            layout.photometric,
            layout.planar,
            layout.orientation,
        )
        firsts.setdefault(key, layout)
        groups.setdefault(key, []).append(i_layout)
    originals = [key for key in groups if not key[0]]
    num_copies = len(groups) - len(originals)
    notes = (f"{num_copies} smaller copies or masks left out",) if num_copies and originals else ()
    if not originals and 330 in tiff.index.tags(0):
        raise InputError(
            f"{tiff.path} has only reduced copies as pages, its full picture elsewhere, as raw files of cameras have",
            "the full picture as a page",
            "develop it to TIFF",
        )
    found = []
    for chosen in originals or list(groups):
        pages: range | npt.NDArray[np.int64] = range(len(tiff.index))
        if len(tiff.index.first_of_layout) > 1:
            pages = np.flatnonzero(np.isin(tiff.index.layout_ids, groups[chosen])).astype(np.int64)
        lead_axes, lead_shape = ("?", (len(pages),)) if len(pages) > 1 else ("", ())
        spacing, dpi = _resolution(tiff, int(pages[0]))
        planes = PagePlanes(tiff, pages)
        found.append(make_series(lead_axes, lead_shape, planes, firsts[chosen], spacing, dpi=dpi, notes=notes))
    return found


def make_series(
    lead_axes: str,
    lead_shape: Ints,
    planes: Planes,
    layout: Layout,
    spacing: dict[str, float],
    *,
    is_microscopy: bool = False,
    is_array: bool = False,
    dpi: tuple[float, float] | None = None,
    notes: tuple[str, ...] = (),
    **more: Any,
) -> Series:
    """A series with its colours and orientation worked out and axes of size 1 left out.

    Boolean arrays that tifffile wrote (`is_array`) or OME metadata describe are values, though tagged as ink on paper.
    """
    if layout.dtype.kind == "b" and layout.photometric == 0 and (is_array or is_microscopy):
        layout = replace(layout, photometric=1)
    colour = colour_of(layout, keeps_indices=is_microscopy)
    kept = [(a, n) for a, n in zip(lead_axes, lead_shape, strict=True) if n > 1]
    orientation = 1 if is_microscopy else layout.orientation
    turned = (f"turned upright (orientation {orientation})",) if orientation != 1 else ()
    return Series(
        name=more.pop("name", ""),
        lead_axes="".join(a for a, _ in kept),
        lead_shape=tuple(n for _, n in kept),
        planes=planes,
        layout=layout,
        colour=colour,
        spacing_um=spacing,
        dpi=dpi,
        orientation=orientation,
        notes=(*notes, *colour.notes, *turned),
        **more,
    )


def _resolution(tiff: TiffFile, i_page: int) -> tuple[dict[str, float], tuple[float, float] | None]:
    """Pixel size or DPI from the resolution tags: what is finer than 5 micrometres is a pixel size."""
    x, y = tiff.index.numbers(i_page, 282)[:1], tiff.index.numbers(i_page, 283)[:1]
    unit = (tiff.index.numbers(i_page, 296) or (2,))[0]
    um = _UM_PER_RESOLUTION_UNIT.get(int(unit)) if math.isfinite(unit) else None
    if um is None or not x or not y or not 1 < x[0] < 1e9 or not 1 < y[0] < 1e9:
        return {}, None
    if um / x[0] < _SMALLEST_PAGE_PIXEL_UM:
        return {"x": um / x[0], "y": um / y[0]}, None
    return {}, (y[0] * 25400.0 / um, x[0] * 25400.0 / um)


def _imagej(tiff: TiffFile, description: str) -> Series:
    told = dict(line.split("=", 1) for line in description.splitlines() if "=" in line)

    def number(key: str) -> int:
        try:
            return max(1, int(told.get(key, 1)))
        except ValueError:
            return 1

    sizes = {"t": number("frames"), "z": number("slices"), "c": number("channels")}
    layout, num_pages = tiff.layout(0), len(tiff.index)
    samples = layout.shaped[0] * layout.shaped[4]
    if samples > 1 and sizes["c"] == samples and number("images") in (1, sizes["t"] * sizes["z"]):
        sizes["c"] = 1  # Bio-Formats counts the samples of a pixel as channels
    order = told.get("order", "czt").lower()
    lead_axes = order[::-1] if sorted(order) == ["c", "t", "z"] else "tzc"
    lead_shape = tuple(sizes[a] for a in lead_axes)
    num_planes = math.prod(lead_shape)
    if num_planes == 1 and max(number("images"), num_pages) > 1:
        num_planes = max(number("images"), num_pages)
        lead_axes, lead_shape = "?", (num_planes,)
    spacing = _imagej_spacing(tiff, told)
    planes = _stack(tiff, num_planes)
    notes = (
        (f"{num_pages - num_planes} pages beyond the {num_planes} that ImageJ describes left out",)
        if num_pages > num_planes
        else ()
    )
    _, dpi = _resolution(tiff, 0) if um_per_unit(told.get("unit")) == 25400.0 or "unit" not in told else ({}, None)
    return make_series(lead_axes, lead_shape, planes, layout, spacing, is_microscopy=True, dpi=dpi, notes=notes)


def _imagej_spacing(tiff: TiffFile, told: dict[str, str]) -> dict[str, float]:
    um = um_per_unit(told.get("unit"))
    if um is None or um == 25400.0:
        return {}
    found = {}
    for letter, code in (("x", 282), ("y", 283)):
        told_unit = told.get(f"{letter}unit")
        per_unit = tiff.index.numbers(0, code)[:1]
        if per_unit and 0 < per_unit[0] < 1e12:
            found[letter] = (um_per_unit(told_unit) or um) / per_unit[0]
    try:
        depth = abs(float(told.get("spacing", 0))) * (um_per_unit(told.get("zunit")) or um)
    except ValueError:
        depth = 0.0
    if 0 < depth < math.inf:
        found["z"] = depth
    return found


def _stack(tiff: TiffFile, num_planes: int) -> Planes:
    """`num_planes` planes from the first page on: pages, or data that follow the first page's in one piece.

    Raises:
        InputError: if the file has neither.
    """
    num_pages = len(tiff.index)
    if num_pages >= num_planes:
        return PagePlanes(tiff, range(num_planes))
    layout = tiff.layout(0)
    begin = int(tiff.index.page(0).offsets.slice(0, 1)[0])
    end = begin + num_planes * layout.page_bytes
    if layout.is_direct and num_pages == 1 and begin > 0 and end <= tiff.file.size:
        return ContiguousPlanes(tiff.file, begin, layout.as_one_strip(), num_planes)
    raise InputError(
        f"{tiff.path} has {num_pages} pages and {tiff.file.size} bytes",
        f"the {num_planes} planes that it declares",
        "the file is cut off or damaged: copy it again",
    )


def _shaped(tiff: TiffFile) -> list[Series]:
    """Arrays whose shape tifffile wrote into the description of their first page; [] if any does not fit."""
    found: list[Series] = []
    i_page, num_pages = 0, len(tiff.index)
    while i_page < num_pages:
        try:
            told = json.loads(tiff.index.text(i_page))
            shape = tuple(int(n) for n in told["shape"])
            axes = told.get("axes")
        except (ValueError, TypeError, KeyError, RecursionError):
            return []
        layout = tiff.layout(i_page)
        page_size, size = math.prod(layout.shaped), math.prod(shape)
        num_planes = size // page_size
        if min(shape, default=0) <= 0 or size % page_size:
            return []
        if i_page == 0 and num_planes > num_pages:
            planes, used = _stack(tiff, num_planes), num_pages
        else:
            planes, used = PagePlanes(tiff, range(i_page, i_page + num_planes)), num_planes
        if i_page + used > num_pages:
            return []
        lead_axes, lead_shape = _shaped_lead(shape, axes, layout, num_planes)
        spacing, dpi = _resolution(tiff, i_page)
        if not layout.subfile_type & 0b101:
            name = told.get("name", "")
            found.append(
                make_series(
                    lead_axes,
                    lead_shape,
                    planes,
                    layout,
                    spacing,
                    is_array=True,
                    dpi=dpi,
                    name=name if isinstance(name, str) else "",
                )
            )
        i_page += used
    return found


def _shaped_lead(shape: Ints, axes: object, layout: Layout, num_planes: int) -> tuple[str, Ints]:
    """Axes over the planes; those of size 1 are left out."""
    if isinstance(axes, str) and len(axes) == len(shape):
        # letters of the picture plane belong to the page; a letter there is none for, or one twice, is unknown
        pairs = [(a.lower(), n) for a, n in zip(axes, shape, strict=True) if n > 1 and a.lower() not in layout.axes]
        if math.prod(n for _, n in pairs) == num_planes:
            letters = [a if a in "tczpv" else "?" for a, _ in pairs]
            return "".join(letters), tuple(n for _, n in pairs)
    lead: list[int] = []
    for n in shape:
        if math.prod(lead) < num_planes:
            lead.append(n)
    if math.prod(lead) != num_planes:
        lead = [num_planes]
    return "?" * len(lead), tuple(lead)
