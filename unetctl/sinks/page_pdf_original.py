"""Pages put back into the PDF that they came from, so that its text, bookmarks, boxes and metadata stay."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pikepdf
from pikepdf import Array, Dictionary

from unetctl.errors import InputError
from unetctl.sinks.page import BrokenPageError, Page
from unetctl.sinks.page_pdf import (
    UNKNOWN_DPI,
    encode_pdf,
    icc_of,
    image_on,
    merged,
    opened,
    opened_page,
    pixels_of,
    size_of,
    told_pages,
)
from unetctl.sinks.page_pdf_content import PICTURES, PageContent, PlacedImage, content_of, make_text_invisible

_PAGE_NAME = "/UnetctlPage"
_STRAIGHT = 1e-3  # what a side of a picture may be off its axis, of its length
_SAME_SIZE = 0.01  # what lengths on paper may differ by, as rendering rounds to whole pixels
_SAME_POINTS = 2.0
_KEPT_KEYS = ("/Name", "/OC", "/StructParent", "/StructParents")

Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class Placement:
    """Where in the document a page's picture has been put.

    Attributes:
        names: of the picture in the page's resources, behind those of the forms around it.
        size: of the picture (y, x) as it is stored.
    """

    names: tuple[str, ...]
    size: tuple[int, int]


@dataclass(frozen=True)
class _Decision:
    """What to do with a page: `names` lead to the picture that is replaced, or are None where all content is."""

    names: tuple[str, ...] | None
    encoded: Path
    size: tuple[int, int]
    is_deep: bool  # samples of 16 bits
    loss: str = ""


def replace_pages(
    file: BinaryIO, original: Path, encoded: Sequence[Path], folder: Path
) -> tuple[list[Placement], tuple[str, ...]]:
    """Writes the original document with its pages' pictures replaced.

    A page that shows one picture, upright or turned by quarters, mirrored or not, and beside it nothing that can be seen
    (invisible text, or what the picture covers) has this picture replaced, in its own orientation; all else stays
    as it is. The content of any other page becomes the new picture over its crop box, with its text, where fonts
    allow, as an invisible layer. Pictures are replaced page by page, also where pages share one.

    Args:
        file: where to, at its start.
        original: the PDF.
        encoded: files of what `encode_pdf` has made, one for each page of it, upright as the page is seen.
        folder: an empty one, for what is needed in between.

    Returns:
        Where the pictures are, and sentences about what was lost.

    Raises:
        InputError: if the original cannot be read, or has another number of pages.
    """
    try:
        with opened(original) as before:
            if len(before.pages) != len(encoded):
                raise InputError(f"{original} has {len(before.pages)} pages", f"{len(encoded)}, as when it was read")
            decisions = [
                _decide(page, one, folder, i) for i, (page, one) in enumerate(zip(before.pages, encoded, strict=True))
            ]
            with merged(original, [decision.encoded for decision in decisions]) as pdf:
                _keep_labels(before, pdf)
                placements, losses = _apply(pdf, decisions)
                version = "1.5" if any(decision.is_deep for decision in decisions) else ""
                pdf.save(file, deterministic_id=True, min_version=version)
                return placements, (*_losses_of_document(before), *losses)
    except (pikepdf.PdfError, pikepdf.PasswordError, RuntimeError) as error:
        raise InputError(f"{original} cannot be read as a PDF ({error})") from error


def sizes_at(path: Path, placements: Sequence[Placement]) -> list[tuple[int, int]]:
    """Sizes (y, x) of the pictures of a written document, at the places of its pages where they should be.

    Raises:
        BrokenPageError: if it cannot be read, has another number of pages, or a picture is not there or empty.
    """
    try:
        with opened(path, recover=False) as pdf:
            images = [_image_at(page, at.names) for page, at in zip(pdf.pages, placements, strict=True)]
            if any(int(image.Length) < 1 for image in images):
                raise BrokenPageError("the PDF file has an empty picture")
            return [size_of(image) for image in images]
    except (pikepdf.PdfError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise BrokenPageError(f"the PDF file cannot be read ({error})") from error


# -- deciding


def _decide(page: pikepdf.Page, encoded: Path, folder: Path, i_page: int) -> _Decision:
    content = content_of(page)
    with opened_page(encoded) as one:
        new = image_on(one)
        size, is_deep = size_of(new), int(new.BitsPerComponent) > 8
        found = _replaceable(content, page)
        turn = None if found is None else _turn(found, _quarters(page))
        if found is None or turn is None or not _is_of(found, page, size, _points(one)):
            return _Decision(None, encoded, size, is_deep, _told(content))
        if turn == (False, False, False):
            return _Decision(found.names, encoded, size, is_deep)
        turned = Page(_turned(pixels_of(new), turn), None, icc_of(new))
    path = folder / f"{i_page}.pdf"
    path.write_bytes(encode_pdf(turned))
    return _Decision(found.names, path, turned.pixels.shape[:2], is_deep)


def _replaceable(content: PageContent, page: pikepdf.Page) -> PlacedImage | None:
    """The only picture of a page on which nothing else can be seen."""
    if len(content.images) != 1:
        return None
    (found,) = content.images
    is_opaque = not any(key in found.image for key in ("/SMask", "/Mask")) and not found.image.get("/ImageMask", False)
    hides = is_opaque and _covers(found.bounds, seen_box(page))
    return found if found.is_plain and not content.others(found, hides) else None


def _told(content: PageContent) -> str:
    """What a page showed that is one picture now; "" for an empty page."""
    kinds = sorted({mark for mark in content.marks if isinstance(mark, str) and mark != PICTURES})
    num_images = len(content.images) + content.marks.count(PICTURES)
    if num_images:
        kinds.append("pictures" if num_images > 1 else "picture" if kinds else "its picture")
    what = " and ".join([", ".join(kinds[:-1]), kinds[-1]] if len(kinds) > 1 else kinds)
    return f"{what} became one picture of the whole page" if what else ""


def _is_of(found: PlacedImage, page: pikepdf.Page, size: tuple[int, int], points: tuple[float, float] | None) -> bool:
    """True if the new picture shows what `found` does, rather than the whole page.

    Where both are the same region there is no question. Else the size on paper tells, or the number of pixels.
    """
    box, unit = seen_box(page), float(page.obj.get("/UserUnit", 1))
    if _is_near(found.bounds, box):
        return True
    is_across = _quarters(page) % 2 == 1
    of_image, of_page = (_extent(bounds, unit, is_across) for bounds in (found.bounds, box))
    if points is not None and _is_same_size(points, of_image):
        return True
    height, width = size_of(found.image)
    if (abs(found.matrix.a) < abs(found.matrix.b)) != is_across:
        height, width = width, height
    return size == (height, width) and not (points is not None and _is_same_size(points, of_page))


def _turn(found: PlacedImage, quarters: int) -> tuple[bool, bool, bool] | None:
    """What takes the page as seen to the picture as stored: (flip up-down, flip left-right, then transpose).

    None if the picture does not stand straight. Drawing: a picture's rows u, v run from its upper left corner; on the
    screen, which has y downwards, a step along u goes (a, -b), a step along v (-c, d); each quarter of /Rotate turns
    such a step (x, y) to (-y, x).
    """
    m = found.matrix
    along_u, along_v = (m.a, -m.b), (-m.c, m.d)
    for _ in range(quarters):
        along_u, along_v = (-along_u[1], along_u[0]), (-along_v[1], along_v[0])
    (ux, uy), (vx, vy) = along_u, along_v
    if abs(uy) <= _STRAIGHT * abs(ux) and abs(vx) <= _STRAIGHT * abs(vy):
        return vy < 0, ux < 0, False
    if abs(ux) <= _STRAIGHT * abs(uy) and abs(vy) <= _STRAIGHT * abs(vx):
        return uy < 0, vx < 0, True
    return None


def _turned(pixels: npt.NDArray[Any], turn: tuple[bool, bool, bool]) -> npt.NDArray[Any]:
    flip_y, flip_x, transpose = turn
    pixels = pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    return np.ascontiguousarray(pixels.swapaxes(0, 1) if transpose else pixels)


# -- replacing


def _apply(pdf: pikepdf.Pdf, decisions: Sequence[_Decision]) -> tuple[list[Placement], list[str]]:
    """Replaces on the first pages what the decisions say by the pictures of the others, which are taken away."""
    placements = []
    by_loss: dict[str, list[int]] = {}
    for i, decision in enumerate(decisions):
        page, image = pdf.pages[i], image_on(pdf.pages[len(decisions) + i])
        if decision.names is None:
            kept, lost = _replace_content(pdf, page, image)
            loss = decision.loss + (", with the text as an invisible layer" if kept else "")
            loss += (" but for fonts of type 3" if kept else "; its text layer is lost") if lost else ""
            if loss:
                by_loss.setdefault(loss, []).append(i + 1)
        else:
            _replace_image(pdf, page, decision.names, image)
        if "/Thumb" in page.obj:
            del page.obj.Thumb  # it would show the page as it was
        placements.append(Placement(decision.names or (_PAGE_NAME,), decision.size))
    del pdf.pages[len(decisions) :]
    return placements, [f"{told_pages(pages)}: {loss}" for loss, pages in by_loss.items()]


def _replace_image(pdf: pikepdf.Pdf, page: pikepdf.Page, names: tuple[str, ...], image: pikepdf.Object) -> None:
    """Lets the page's name of a picture mean another one, in resources and forms of its own.

    The stream itself is not touched: other pages may show it. Where none does, saving leaves it away.
    """
    holder, inherited = page.obj, Dictionary()
    for i, name in enumerate(names):
        resources = copy(holder.get("/Resources", inherited))
        xobjects = copy(resources.XObject)
        old = xobjects[name]
        if i < len(names) - 1:
            xobjects[name] = pikepdf.Stream(pdf, old.read_raw_bytes(), _dictionary(old))
        else:
            for key in _KEPT_KEYS:
                if key in old:
                    image[key] = old[key]
            xobjects[name] = image
        resources.XObject = xobjects
        holder.Resources = resources
        holder, inherited = holder.Resources.XObject[name], holder.Resources


def _image_at(page: pikepdf.Page, names: Sequence[str]) -> pikepdf.Object:
    """The picture that `names` lead to."""
    holder: pikepdf.Object = page.obj
    resources: pikepdf.Object = Dictionary()
    for name in names:
        resources = holder.get("/Resources", resources)
        holder = resources.XObject[name]
    return holder


def _dictionary(stream: pikepdf.Object) -> dict[str, Any]:
    return {key: value for key, value in stream.items() if key != "/Length"}


def _replace_content(pdf: pikepdf.Pdf, page: pikepdf.Page, image: pikepdf.Object) -> tuple[bool, bool]:
    """Makes the picture the page's content, its text an invisible layer; returns whether any is kept, and any lost."""
    layer = make_text_invisible(pdf, page)
    left, lower, right, upper = seen_box(page)
    width, height = right - left, upper - lower
    matrix = (
        (width, 0, 0, height, left, lower),
        (0, height, -width, 0, right, lower),
        (-width, 0, 0, -height, right, upper),
        (0, -height, width, 0, left, upper),
    )[_quarters(page)]
    resources = layer.resources if layer.has_text else Dictionary(XObject=Dictionary())
    resources.XObject[_PAGE_NAME] = image
    numbers = " ".join(f"{number:.5f}" for number in matrix)
    page.obj.Contents = pdf.make_stream(
        f"q {numbers} cm {_PAGE_NAME} Do Q\n".encode() + (layer.content if layer.has_text else b"")
    )
    page.obj.Resources = resources
    if "/Group" in page.obj:
        del page.obj.Group
    return layer.has_text, layer.has_lost


def _keep_labels(before: pikepdf.Pdf, pdf: pikepdf.Pdf) -> None:
    """Undoes what appending pages has done to the page labels."""
    if "/PageLabels" in before.Root:
        pdf.Root.PageLabels = pdf.copy_foreign(before.make_indirect(before.Root.PageLabels))
    elif "/PageLabels" in pdf.Root:
        del pdf.Root.PageLabels


def _losses_of_document(pdf: pikepdf.Pdf) -> list[str]:
    losses = []
    if int(pdf.Root.get("/AcroForm", Dictionary()).get("/SigFlags", 0)) & 1 or "/Perms" in pdf.Root:
        losses.append("the digital signature of the original does not hold for the changed document")
    if pdf.is_encrypted:
        losses.append("the encryption of the original, with its restrictions, was not kept")
    return losses


# -- boxes


def seen_box(page: pikepdf.Page) -> Bounds:
    """The part of a page that is seen: the crop box inside the media box, as (left, lower, right, upper)."""
    crop, media = _bounds(page.cropbox), _bounds(page.mediabox)
    box = (max(crop[0], media[0]), max(crop[1], media[1]), min(crop[2], media[2]), min(crop[3], media[3]))
    return box if box[0] < box[2] and box[1] < box[3] else media


def _bounds(array: Array) -> Bounds:
    a, b, c, d = (float(number) for number in array)
    return min(a, c), min(b, d), max(a, c), max(b, d)


def _quarters(page: pikepdf.Page) -> int:
    """Quarter turns, clockwise, by which a page is shown."""
    return round(float(page.obj.get("/Rotate", 0)) / 90) % 4


def _points(encoded: pikepdf.Page) -> tuple[float, float] | None:
    """Height and width of an encoded page on paper, None if unknown."""
    if UNKNOWN_DPI in encoded.obj:
        return None
    return _extent(_bounds(encoded.mediabox), float(encoded.obj.get("/UserUnit", 1)), False)


def _extent(bounds: Bounds, unit: float, is_across: bool) -> tuple[float, float]:
    height, width = unit * (bounds[3] - bounds[1]), unit * (bounds[2] - bounds[0])
    return (width, height) if is_across else (height, width)


def _is_same_size(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return all(abs(p - q) <= _SAME_SIZE * max(p, q) for p, q in zip(a, b, strict=True))


def _is_near(a: Bounds, b: Bounds) -> bool:
    return all(abs(p - q) <= _tolerance(b, i) for i, (p, q) in enumerate(zip(a, b, strict=True)))


def _covers(image: Bounds, box: Bounds) -> bool:
    slack = [_tolerance(box, i) for i in range(4)]
    return (
        image[0] <= box[0] + slack[0]
        and image[1] <= box[1] + slack[1]
        and image[2] >= box[2] - slack[2]
        and image[3] >= box[3] - slack[3]
    )


def _tolerance(box: Bounds, i: int) -> float:
    side = box[2 + i % 2] - box[i % 2]
    return max(_SAME_SIZE * side, min(_SAME_POINTS, 0.05 * side))
