"""What each page of a PDF will be: the scan that it consists of, or a drawing of it at some resolution."""

import math
import struct
from dataclasses import dataclass
from typing import Any

import pikepdf

from unetctl.errors import InputError
from unetctl.sources.orientation import swaps_axes
from unetctl.sources.page_pixels import fitting_icc
from unetctl.sources.pdf_content import Placed, Rect, Shown, decoded_size_within, look_through

_POINTS_PER_INCH = 72.0
_MAX_PARENTS = 64
_MAX_ICC_BYTES = 16 << 20
_SAME_RESOLUTION = 0.02
_MOST_OF_THE_PAGE = 0.9
_MAX_DPI, _MIN_DPI = 4800.0, 20.0
_GREY = ("/DeviceGray", "/G", "/CalGray")
_RGB = ("/DeviceRGB", "/RGB", "/CalRGB")
_JPX_HEAD_BYTES = 1 << 16
# (direction of stored columns, direction of stored rows) on the upright page, y downwards: EXIF code
_CODES = {
    ((1, 0), (0, 1)): 1, ((-1, 0), (0, 1)): 2, ((-1, 0), (0, -1)): 3, ((1, 0), (0, -1)): 4,
    ((0, 1), (1, 0)): 5, ((0, 1), (-1, 0)): 6, ((0, -1), (-1, 0)): 7, ((0, -1), (1, 0)): 8,
}  # fmt: skip


@dataclass(frozen=True)
class PdfPage:
    """A page of a PDF, as it will be read.

    Attributes:
        shape: (height, width) in pixels, upright.
        num_channels: 1 or 3.
        dpi: (y, x).
        order: number of the picture that it consists of, among those painted on it; None if it is drawn.
        stored_shape: (height, width) of that picture as stored.
        orientation: EXIF code of that picture as it lies on the page.
        jpeg: object number and generation if that picture is a plain grey or RGB JPEG, else None.
        is_stencil: True if it is a stencil of black ink.
        is_bilevel: True if it has one bit a pixel.
        icc: profile of the pixels as they are read.
        stream_bytes: of the page's pictures in the file.
        notes: sentences for the user.
    """

    shape: tuple[int, int]
    num_channels: int
    dpi: tuple[float, float]
    order: int | None
    stored_shape: tuple[int, int] = (0, 0)
    orientation: int = 1
    jpeg: tuple[int, int] | None = None
    is_stencil: bool = False
    is_bilevel: bool = False
    icc: bytes | None = None
    stream_bytes: int = 0
    notes: tuple[str, ...] = ()


def page_layout(page: Any, pdf_dpi: float, place: str) -> PdfPage:
    """How a page will be read; pixels are not touched.

    Args:
        page: a pikepdf page.
        pdf_dpi: of pages that are drawn.
        place: file and number of the page, for messages.

    Raises:
        InputError: if the page has no size, or its content swells to more than can be bounded.
    """
    box = _visible_box(page, place)
    unit = _number(page.get("/UserUnit"), 1.0)
    rotation = round(_number(inherited(page, "/Rotate"), 0) / 90) % 4 * 90
    resources = inherited(page, "/Resources")
    resources = resources if isinstance(resources, pikepdf.Dictionary) else pikepdf.Dictionary()
    num_bytes = _check_streams(page, resources, place)
    shown = look_through(page, resources, box) if num_bytes else Shown()
    cover = next((p for p in reversed(shown.placed) if p.covers), None)
    if cover is not None and shown.is_known and cover.is_bare and not shown.marks:
        return _embedded(cover, rotation, unit, num_bytes, _annotations(page))
    dpi, notes = _drawn_dpi(shown, box, unit, rotation, pdf_dpi)
    height, width = (box[3] - box[1]) * unit, (box[2] - box[0]) * unit
    height, width = (width, height) if rotation % 180 else (height, width)
    shape = (
        max(1, round(height / _POINTS_PER_INCH * dpi[0])),
        max(1, round(width / _POINTS_PER_INCH * dpi[1])),
    )
    return PdfPage(shape, 3, dpi, None, stream_bytes=num_bytes, notes=notes)


def inherited(page: Any, key: str) -> Any:
    """A page's attribute, its own or that of the nodes above it; None without."""
    node = page.obj
    for _ in range(_MAX_PARENTS):
        if not isinstance(node, pikepdf.Dictionary):
            return None
        if key in node:
            return node[key]
        node = node.get("/Parent")
    return None


def _visible_box(page: Any, place: str) -> Rect:
    media = _rect(inherited(page, "/MediaBox")) or (0.0, 0.0, 612.0, 792.0)
    crop = _rect(inherited(page, "/CropBox")) or media
    box = (max(media[0], crop[0]), max(media[1], crop[1]), min(media[2], crop[2]), min(media[3], crop[3]))
    if box[2] <= box[0] or box[3] <= box[1]:
        box = media
    if not all(math.isfinite(v) for v in box) or box[2] <= box[0] or box[3] <= box[1]:
        raise InputError(f"{place} has no size", "a sound PDF file", "it is damaged")
    return box


def _rect(told: Any) -> Rect | None:
    try:
        x0, y0, x1, y1 = (float(v) for v in told)
    except (TypeError, ValueError, ArithmeticError):
        return None
    found = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    return found if found[2] > found[0] and found[3] > found[1] else None


def _number(told: Any, otherwise: float) -> float:
    try:
        value = float(told)
    except (TypeError, ValueError, ArithmeticError):
        return otherwise
    return value if math.isfinite(value) and (value > 0 or otherwise == 0) else otherwise


def _check_streams(page: Any, resources: Any, place: str) -> int:
    """Bytes of the pictures that a page names, 0 if it names none.

    Raises:
        InputError: if what it paints with takes more memory than a page of text or drawings ever does.
    """
    contents = page.get("/Contents")
    for stream in list(contents) if isinstance(contents, pikepdf.Array) else [contents]:
        if isinstance(stream, pikepdf.Stream) and not decoded_size_within(stream, 256 << 20):
            raise InputError(f"{place} has content of more than 256 MiB", "a sound PDF file", "it is damaged")
    total, todo, seen = 0, [resources], 0
    while todo and seen < 1000:
        named = todo.pop().get("/XObject")
        for found in named.values() if isinstance(named, pikepdf.Dictionary) else ():
            seen += 1
            if not isinstance(found, pikepdf.Stream):
                continue
            if str(found.get("/Subtype")) == "/Image":
                total += max(1, int(_number(found.get("/Length"), 0)))
            elif isinstance(found.get("/Resources"), pikepdf.Dictionary) and seen < 1000:
                todo.append(found["/Resources"])
    return total


def _embedded(cover: Placed, rotation: int, unit: float, num_bytes: int, notes: tuple[str, ...]) -> PdfPage:
    image = cover.image
    width, height = int(image["/Width"]), int(image["/Height"])
    orientation = _code(cover, rotation)
    across, down = cover.size
    dpi = (height * _POINTS_PER_INCH / (down * unit), width * _POINTS_PER_INCH / (across * unit))
    shape = (height, width)
    if swaps_axes(orientation):
        dpi, shape = (dpi[1], dpi[0]), (width, height)
    is_stencil = bool(image.get("/ImageMask", False))
    filters = _filters(image)
    num_channels = 1 if is_stencil else _num_channels(image.get("/ColorSpace"), image, filters)
    is_jpeg = _is_plain_jpeg(image, filters)
    bits = 1 if is_stencil else int(image.get("/BitsPerComponent", 8))
    coded = {"/CCITTFaxDecode", "/CCF", "/JBIG2Decode"} & set(filters[-1:])
    notes = ("the picture that the page consists of, at its own pixels", *notes)
    if orientation != 1:
        notes = (*notes, f"turned upright (orientation {orientation})")
    if bits == 16:
        notes = (*notes, "16 bits read as 8")
    return PdfPage(
        shape=shape,
        num_channels=num_channels,
        dpi=dpi,
        order=cover.order,
        stored_shape=(height, width),
        orientation=orientation,
        jpeg=image.objgen if is_jpeg else None,
        is_stencil=is_stencil,
        is_bilevel=is_stencil or bool(coded) or (bits == 1 and num_channels == 1),
        icc=fitting_icc(_icc(image.get("/ColorSpace")), num_channels) if is_jpeg else None,
        stream_bytes=num_bytes,
        notes=notes,
    )


def _code(cover: Placed, rotation: int) -> int:
    """EXIF code of a picture that lies on the page at right angles, the page turned clockwise by `rotation`."""
    a, b, c, d, _, _ = cover.matrix

    def direction(x: float, y: float) -> tuple[int, int]:
        for _ in range(rotation // 90):
            x, y = y, -x
        return (round(math.copysign(1, x)), 0) if abs(x) > abs(y) else (0, -round(math.copysign(1, y)))

    return _CODES.get((direction(a, b), direction(-c, -d)), 1)


def _drawn_dpi(
    shown: Shown, box: Rect, unit: float, rotation: int, pdf_dpi: float
) -> tuple[tuple[float, float], tuple[str, ...]]:
    """(y, x) of a page that is drawn: that of its scans if they fill it, so that their pixels stay, else `pdf_dpi`."""
    page_area = (box[2] - box[0]) * (box[3] - box[1])
    found, area = [], 0.0
    for placed in shown.placed:
        across, down = placed.size
        if across <= 0 or down <= 0:
            continue
        width, height = int(placed.image.get("/Width", 0)), int(placed.image.get("/Height", 0))
        x, y = width * _POINTS_PER_INCH / (across * unit), height * _POINTS_PER_INCH / (down * unit)
        a, b, *_ = placed.matrix
        x, y = (y, x) if (abs(b) > abs(a)) != bool(rotation % 180) else (x, y)
        if placed.covers or across * down >= 0.01 * page_area:
            found.append((y, x, placed.covers))
            area += across * down
    covering = [f[:2] for f in found if f[2]]
    alike = bool(found) and all(
        abs(f[k] - found[0][k]) <= _SAME_RESOLUTION * found[0][k] for f in found for k in (0, 1)
    )
    reason = ", ".join(shown.marks) if shown.is_known and shown.marks else "no scan fills it"
    reason = reason if shown.is_known else "its content is too large or damaged to be looked through"
    if covering or (alike and area >= _MOST_OF_THE_PAGE * page_area):
        y, x = max(covering) if covering else found[0][:2]
        if min(y, x) >= _MIN_DPI and max(y, x) <= _MAX_DPI:
            why = reason if shown.marks else "the scan is masked, cut or in pieces"
            return (y, x), (f"drawn at the {y:.0f} dpi of its scan ({why})",)
    return (pdf_dpi, pdf_dpi), (f"drawn at {pdf_dpi:g} dpi ({reason})",)


def _filters(image: Any) -> list[str]:
    told = image.get("/Filter")
    return [str(f) for f in told] if isinstance(told, pikepdf.Array) else [str(told)] if told is not None else []


def _num_channels(space: Any, image: Any, filters: list[str]) -> int:
    if space is None:
        if filters[-1:] == ["/JPXDecode"]:
            return 1 if _jpx_samples(image) in (1, 2) else 3
        return 1
    if isinstance(space, pikepdf.Array) and len(space):
        kind = str(space[0])
        if kind == "/ICCBased":
            return 1 if int(space[1].get("/N", 3)) == 1 else 3
        if kind in ("/Indexed", "/I"):
            return _num_indexed_channels(space, image, filters)
        if kind == "/Separation":
            return 1 if str(space[1]) in ("/Black", "/All") else 3
        return 1 if kind in _GREY else 3
    return 1 if str(space) in _GREY else 3


def _num_indexed_channels(space: Any, image: Any, filters: list[str]) -> int:
    base, table = space[1], space[3]
    if _num_channels(base, image, filters) == 1:
        return 1
    is_rgb = str(base) in _RGB or (isinstance(base, pikepdf.Array) and str(base[0]) in ("/ICCBased", *_RGB))
    is_rgb &= not (isinstance(base, pikepdf.Array) and str(base[0]) == "/ICCBased" and int(base[1].get("/N", 3)) != 3)
    if isinstance(table, pikepdf.Stream) and not decoded_size_within(table, 1 << 16):
        return 3
    raw = table.read_bytes() if isinstance(table, pikepdf.Stream) else bytes(table)
    return 1 if is_rgb and raw[::3] == raw[1::3] == raw[2::3] else 3


def _jpx_samples(image: Any) -> int:
    head = image.read_raw_bytes()[:_JPX_HEAD_BYTES]
    at = head.find(b"\xff\x4f\xff\x51")
    return int(struct.unpack_from(">H", head, at + 40)[0]) if 0 <= at <= len(head) - 42 else 3


def _is_plain_jpeg(image: Any, filters: list[str]) -> bool:
    """True if the JPEG's own values are those of the picture: no inks, no ranges turned round, one filter only."""
    if filters not in (["/DCTDecode"], ["/DCT"]) or "/Decode" in image:
        return False
    parms = image.get("/DecodeParms")
    if isinstance(parms, pikepdf.Dictionary) and "/ColorTransform" in parms:
        return False
    space = image.get("/ColorSpace")
    if isinstance(space, pikepdf.Array) and len(space):
        return str(space[0]) in ("/CalGray", "/CalRGB") or (
            str(space[0]) == "/ICCBased" and int(space[1].get("/N", 0)) in (1, 3)
        )
    return str(space) in (*_GREY, *_RGB)


def _icc(space: Any) -> bytes | None:
    if not isinstance(space, pikepdf.Array) or not len(space) or str(space[0]) != "/ICCBased":
        return None
    try:
        return bytes(space[1].read_bytes()) if decoded_size_within(space[1], _MAX_ICC_BYTES) else None
    except (pikepdf.PdfError, ValueError, TypeError):
        return None


def _annotations(page: Any) -> tuple[str, ...]:
    told = page.get("/Annots")
    kinds = [str(a.get("/Subtype")) for a in told if isinstance(a, pikepdf.Dictionary)] if told is not None else []
    num = sum(kind not in ("/Link", "/Popup", "/Widget") for kind in kinds)
    return (f"{num} annotations are not part of the picture",) if num else ()
