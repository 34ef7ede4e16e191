"""The pages of a TIFF file: each directory a picture of its own, whatever its size and mode."""

import math

import numpy as np

from unetctl.errors import InputError
from unetctl.sources.files import DEFAULT_MAX_BYTES
from unetctl.sources.page_pixels import Meaning, fitting_icc, page_dtype
from unetctl.sources.page_view import PageView
from unetctl.sources.pages import PageOrigin
from unetctl.sources.tiff import TiffSource, checked_series
from unetctl.sources.tiff_layout import Layout
from unetctl.sources.tiff_planes import PagePlanes, TiffFile
from unetctl.sources.tiff_series import Series, make_series

_REDUCED_OR_MASK = 0b101
_ICC_TAG = 34675
_MAX_ICC_BYTES = 16 << 20
_INCHES_PER_UNIT = {2: 1.0, 3: 1 / 2.54}
_THUMBNAIL_PIXELS, _THUMBNAIL_SHARE, _SAME_SHAPE = 256, 0.25, 0.04


def open_tiff_pages(path: str, max_bytes: int | None) -> PageView:
    """The pages of a TIFF file; see `open_pages`.

    Raises:
        InputError: as `TiffSource`, and for pages that are volumes or whose values have no black and white.
    """
    limit = DEFAULT_MAX_BYTES if max_bytes is None else max_bytes
    tiff = TiffFile(path)
    kept, num_copies = _pages(tiff)
    found = [_series(tiff, i_page) for i_page in kept]
    largest = max((s.layout.segment_bytes for s in found if not s.layout.is_direct), default=0)
    kind = "BigTIFF" if tiff.index.is_big else "TIFF"
    # a page in one compressed strip is decoded once, not for each box
    inner = TiffSource(path, None, max_bytes, series=(kind, checked_series(found, path, limit)), cache_bytes=largest)
    try:
        meanings: list[Meaning] = []
        origins: list[PageOrigin] = []
        for i_page, series, image in zip(kept, inner.series, inner.images, strict=True):
            meaning, notes = _meaning(series, path)
            left_out = (f"{num_copies} smaller copies or masks left out",) if num_copies and not meanings else ()
            meanings.append(meaning)
            icc = fitting_icc(_icc(tiff, i_page), meaning.num_channels) if series.colour.kind != "palette" else None
            origins.append(
                PageOrigin(
                    kind="tiff",
                    is_bilevel=series.layout.bits == 1 and series.layout.shaped[0] * series.layout.shaped[4] == 1,
                    icc=icc,
                    dpi=image.dpi,
                    rotation=series.orientation,
                    notes=(*_without_lab(image.notes), *notes, *left_out),
                )
            )
        return PageView(inner, inner.images, meanings, origins, path)
    except BaseException:
        inner.close()
        raise


def _pages(tiff: TiffFile) -> tuple[list[int], int]:
    """Numbers of the directories that are pages, and how many are left out.

    Reduced copies and masks say so; of those that do not, a picture far smaller than the one before it and of the same
    proportions is its thumbnail.
    """
    tagged = [bool(tiff.layout(i).subfile_type & _REDUCED_OR_MASK) for i in tiff.index.first_of_layout]
    kept: list[int] = []
    for i_page in range(len(tiff.index)):
        if tagged[int(tiff.index.layout_ids[i_page])]:
            continue
        if kept and _is_thumbnail(tiff.layout(i_page), tiff.layout(kept[-1])):
            continue
        kept.append(i_page)
    if not kept:
        return list(range(len(tiff.index))), 0
    return kept, len(tiff.index) - len(kept)


def _is_thumbnail(layout: Layout, before: Layout) -> bool:
    if layout.subfile_type & 0b10:
        return False
    (_, _, height, width, _), (_, _, full_height, full_width, _) = layout.shaped, before.shaped
    down, across = height / full_height, width / full_width
    return (
        max(height, width) <= _THUMBNAIL_PIXELS
        and max(down, across) <= _THUMBNAIL_SHARE
        and abs(down - across) <= _SAME_SHAPE * max(down, across) + 1 / full_height + 1 / full_width
    )


def _series(tiff: TiffFile, i_page: int) -> Series:
    layout = tiff.layout(i_page)
    if layout.shaped[1] > 1:
        raise InputError(f"{tiff.path} has a page of {layout.shaped[1]} planes", "pages (yx)", "it is a volume")
    return make_series("", (), PagePlanes(tiff, range(i_page, i_page + 1)), layout, {}, dpi=_dpi(tiff, i_page))


def _dpi(tiff: TiffFile, i_page: int) -> tuple[float, float] | None:
    """(y, x) as stored; None where the file gives none or only proportions."""
    x, y = tiff.index.numbers(i_page, 282)[:1], tiff.index.numbers(i_page, 283)[:1]
    unit = (tiff.index.numbers(i_page, 296) or (2,))[0]
    inches = _INCHES_PER_UNIT.get(int(unit)) if math.isfinite(unit) else None
    if inches is None or not x or not y or not 1 < x[0] < 1e6 or not 1 < y[0] < 1e6:
        return None
    return y[0] / inches, x[0] / inches


def _icc(tiff: TiffFile, i_page: int) -> bytes | None:
    tag = tiff.index.tags(i_page).get(_ICC_TAG)
    if tag is None or tag.kind not in (1, 7) or tag.count > _MAX_ICC_BYTES:
        return None
    return tiff.file.read_at(tag.position, tag.count)


def _meaning(series: Series, path: str) -> tuple[Meaning, tuple[str, ...]]:
    """What the samples of a page mean after `series.colour`, with notes about those left out."""
    layout, colour = series.layout, series.colour
    dtype = page_dtype(colour.dtype, path)
    white = colour.white or int(np.iinfo(dtype.name).max)
    if layout.dtype.kind == "b" or colour.kind in ("palette", "grey palette"):
        white = 255
    if dtype == np.uint16 and white <= 255:
        dtype = np.dtype(np.uint8)
    if colour.kind != "as stored":
        return Meaning("grey" if colour.num_samples == 1 else "rgb", white, dtype), ()
    num_samples = colour.num_samples
    photometric, extra = layout.photometric, layout.extra_samples
    if (photometric == 3 and num_samples > 1) or photometric == 10:
        raise InputError(
            f"{path} has a page of colours that are not read (photometric {photometric}, {num_samples} samples)",
            "grey, RGB, CMYK, a colour table, CIE L*a*b*",
            "convert it to RGB",
        )
    model, num_colours = {2: ("rgb", 3), 5: ("cmyk", 4), 6: ("rgb", 3), 8: ("lab", 3), 9: ("icc lab", 3)}.get(
        photometric, ("grey", 1)
    )
    if num_samples < num_colours:
        model, num_colours = "grey", 1
    num_extra = num_samples - num_colours
    alpha = {1: "premultiplied", 2: "straight"}.get(extra[0], "") if num_extra and extra else ""
    if num_extra and photometric == 2 and not extra and num_extra == 1:
        alpha = "straight"  # a fourth sample that is not named is alpha nearly everywhere
    notes: list[str] = []
    if alpha:
        notes.append("transparent places are white")
    if num_extra > bool(alpha):
        notes.append(f"{num_extra - bool(alpha)} samples beside the colours left out")
    if model == "cmyk":
        notes.append("CMYK inks turned into RGB")
    if "lab" in model:
        notes.append("CIE L*a*b* turned into RGB")
        white = int(np.iinfo(dtype.name).max)
    return Meaning(model, white, dtype, alpha), tuple(notes)


def _without_lab(notes: tuple[str, ...]) -> tuple[str, ...]:
    """The source of volumes keeps these as they are; a page does not."""
    return tuple(n for n in notes if "kept as channels" not in n and " kept in " not in n)
