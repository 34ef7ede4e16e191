"""What a page of a PDF shows: its pictures and where they are, what else can be seen, and its text without the rest.

Operators and the graphics state: ISO 32000-1, annex A and 8.4.
"""

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import pikepdf
from pikepdf import Array, Dictionary, Matrix, Name, Operator, String

TEXT, DRAWINGS, PICTURES, UNREADABLE = "text", "drawings", "pictures", "content that cannot be read"
"""What a page can show beside its one picture."""

_INVISIBLE = 3  # text rendering mode; 7 as well, but clips
_PAINTS = {"f", "F", "f*", "B", "B*", "b", "b*", "S", "s", "sh"}
_SHOWS_TEXT = {"Tj", "TJ", "'", '"'}
# What a page's text is made of, but for Tr and what shows it.
_SETS_TEXT = {"q", "Q", "cm", "BT", "ET", "Tc", "Tw", "Tz", "TL", "Tf", "Ts", "Td", "TD", "Tm", "T*"}
_MARKS_CONTENT = {"BMC", "BDC", "EMC", "MP", "DP"}
_DEEPEST = 16  # forms inside forms
_BROKEN = (pikepdf.PdfError, ValueError, TypeError, AttributeError, KeyError, IndexError)  # what broken content makes


@dataclass(frozen=True)
class PlacedImage:
    """A picture on a page.

    Attributes:
        names: its name in the resources, behind those of the forms around it.
        image: the stream.
        matrix: from the unit square, (0, 0) its lower left corner, to the page's coordinates.
        is_plain: False where it is blended with what is under it, by alpha or a soft mask of the graphics state.
    """

    names: tuple[str, ...]
    image: pikepdf.Object
    matrix: Matrix
    is_plain: bool

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, lower, right and upper end on the page."""
        m = self.matrix
        x, y = (m.e, m.e + m.a, m.e + m.c, m.e + m.a + m.c), (m.f, m.f + m.b, m.f + m.d, m.f + m.b + m.d)
        return min(x), min(y), max(x), max(y)


@dataclass
class PageContent:
    """What a page shows, in the order of painting: pictures, and the kinds of everything else.

    Attributes:
        marks: PlacedImage, or one of TEXT, DRAWINGS, PICTURES (inline ones), UNREADABLE.
    """

    marks: list[PlacedImage | str] = field(default_factory=list)

    @property
    def images(self) -> list[PlacedImage]:
        """The pictures that are not inline."""
        return [mark for mark in self.marks if isinstance(mark, PlacedImage)]

    def others(self, image: PlacedImage, hides_what_is_under: bool) -> set[str]:
        """Kinds of what can be seen beside `image`; what is painted before it does not count if it hides that."""
        i = self.marks.index(image)
        rest = self.marks[i + 1 :] if hides_what_is_under else self.marks[:i] + self.marks[i + 1 :]
        return {mark if isinstance(mark, str) else PICTURES for mark in rest}


def content_of(page: pikepdf.Page) -> PageContent:
    """Reads a page's content, forms included. Text in rendering mode 3 (invisible) is no mark."""
    content = PageContent()
    try:
        _walk(content.marks, page, page.obj.get("/Resources", Dictionary()), _State(), ())
    except _BROKEN:
        content.marks.append(UNREADABLE)  # whatever is wrong with it, it must not be taken for a plain scan
    return content


@dataclass(frozen=True)
class TextLayer:
    """A page's text, invisible.

    Attributes:
        content: the operators.
        resources: what they need, copied; nothing of the page has changed.
        has_text: False if there is none.
        has_lost: True if there was text that could not be kept.
    """

    content: bytes
    resources: pikepdf.Object
    has_text: bool
    has_lost: bool


def make_text_invisible(pdf: pikepdf.Pdf, page: pikepdf.Page) -> TextLayer:
    """What is left of a page's content when all that paints is taken out, and text only sets where it would stand.

    Text that can be seen in fonts of type 3 is lost: they paint whatever the rendering mode (ISO 32000-1, 9.3.6).
    """
    try:
        return _text_only(pdf, page, page.obj.get("/Resources", Dictionary()), 0)
    except _BROKEN:
        return TextLayer(b"", Dictionary(), False, True)


@dataclass
class _State:
    """The part of the graphics state that matters here."""

    matrix: Matrix = field(default_factory=Matrix)
    text_mode: int = 0
    is_plain: bool = True


def _walk(
    marks: list[PlacedImage | str], container: Any, resources: pikepdf.Object, state: _State, names: tuple[str, ...]
) -> None:
    if len(names) > _DEEPEST:
        raise ValueError("forms are nested too deeply")
    saved: list[_State] = []
    for operator, operands in _instructions(container):
        if operator == "q":
            saved.append(replace(state))
        elif operator == "Q":
            state = saved.pop() if saved else state
        elif operator == "cm":
            state.matrix = Matrix(*map(float, operands)) @ state.matrix
        elif operator == "Tr":
            state.text_mode = int(operands[0])
        elif operator == "gs":
            _set_from(_named(resources, "/ExtGState", operands[0]), state)
        elif operator in _SHOWS_TEXT:
            if _has_letters(operands) and state.text_mode not in (_INVISIBLE, 7):
                marks.append(TEXT)
        elif operator in _PAINTS:
            marks.append(DRAWINGS)
        elif operator == "INLINE IMAGE":
            marks.append(PICTURES)
        elif operator == "Do":
            name, xobject = str(operands[0]), _named(resources, "/XObject", operands[0])
            if xobject.get("/Subtype") == Name.Image:
                marks.append(PlacedImage((*names, name), xobject, state.matrix, state.is_plain))
            elif xobject.get("/Subtype") == Name.Form:
                inner = replace(state)
                if "/Matrix" in xobject:
                    inner.matrix = Matrix(*map(float, xobject.Matrix)) @ state.matrix
                _walk(marks, xobject, xobject.get("/Resources", resources), inner, (*names, name))


def _set_from(parameters: pikepdf.Object, state: _State) -> None:
    """Once blended, blended till the state is restored: a page that sets alpha back and forth is no plain scan."""
    mask, blending = parameters.get("/SMask", Name("/None")), parameters.get("/BM", Name.Normal)
    is_normal = isinstance(blending, Array) or str(blending) in ("/Normal", "/Compatible")
    if mask != Name("/None") or float(parameters.get("/ca", 1)) < 1 or not is_normal:
        state.is_plain = False


def _text_only(
    pdf: pikepdf.Pdf, container: Any, resources: pikepdf.Object, depth: int, text_mode: int = 0
) -> TextLayer:
    if depth > _DEEPEST:
        raise ValueError("forms are nested too deeply")
    kept: list[Any] = [([_INVISIBLE], Operator("Tr"))]
    forms = Dictionary()
    has_text = has_lost = False
    font: tuple[bool, int] = (False, text_mode)  # whether of type 3, and the rendering mode
    saved: list[tuple[bool, int]] = []
    for operator, operands in _instructions(container):
        if operator == "q":
            saved.append(font)
        elif operator == "Q":
            if not saved:
                continue
            font = saved.pop()
        elif operator == "Tf":
            font = (bool(_named(resources, "/Font", operands[0]).get("/Subtype") == Name.Type3), font[1])
        elif operator == "Tr":
            font = (font[0], int(operands[0]))
            continue
        elif operator in _SHOWS_TEXT:
            has_letters = _has_letters(operands)
            if font[0] and font[1] not in (_INVISIBLE, 7):
                has_lost = has_lost or has_letters
                continue
            has_text = has_text or has_letters
        elif operator == "Do":
            form = _named(resources, "/XObject", operands[0])
            if form.get("/Subtype") != Name.Form:
                continue
            inner = _text_only(pdf, form, form.get("/Resources", resources), depth + 1, font[1])
            has_text, has_lost = has_text or inner.has_text, has_lost or inner.has_lost
            if not inner.has_text:
                continue
            forms[str(operands[0])] = _form(pdf, form, inner)
        elif operator not in _SETS_TEXT and operator not in _MARKS_CONTENT:
            continue
        kept.append((operands, Operator(operator)))
    kept += [([], Operator("Q"))] * len(saved)
    needed = Dictionary(XObject=forms)
    for name in ("/Font", "/Properties", "/ProcSet"):
        if name in resources:
            needed[name] = resources[name]
    return TextLayer(pikepdf.unparse_content_stream(kept), needed, has_text, has_lost)


def _form(pdf: pikepdf.Pdf, form: pikepdf.Object, layer: TextLayer) -> pikepdf.Object:
    box, resources = copy(form.BBox), layer.resources
    made = pdf.make_stream(layer.content, Type=Name.XObject, Subtype=Name.Form, BBox=box, Resources=resources)
    for name in ("/Matrix", "/StructParents", "/OC"):
        if name in form:
            made[name] = form[name]
    return made


def _instructions(container: Any) -> Iterator[tuple[str, Any]]:
    for instruction in pikepdf.parse_content_stream(container):
        yield str(instruction.operator), instruction.operands


def _named(resources: pikepdf.Object, kind: str, name: Any) -> pikepdf.Object:
    """A resource; an empty dictionary where there is none of that name, which viewers pass over."""
    found: pikepdf.Object = resources.get(kind, Dictionary()).get(str(name), Dictionary())
    return found


def _has_letters(operands: Iterable[Any]) -> bool:
    """True if text-showing operands hold anything but spaces."""
    for operand in operands:
        strings = operand if isinstance(operand, Array) else [operand]
        if any(isinstance(string, String) and bytes(string).strip(b" ") for string in strings):
            return True
    return False
