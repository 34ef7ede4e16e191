"""What a PDF page shows: which pictures, where, and whether anything lies upon them (ISO 32000-1, chapters 8 and 9).

Only the operators that place, clip and paint are looked at; nothing is drawn.
"""

import zlib
from dataclasses import dataclass, field, replace
from typing import Any

import pikepdf

Matrix = tuple[float, float, float, float, float, float]
Rect = tuple[float, float, float, float]

COVER_TOLERANCE = 0.02
_SKEW_TOLERANCE = 0.005
_MAX_DEPTH = 6
_MAX_FORMS = 200
_MAX_STATES = 512
_MAX_CONTENT_BYTES = 4 << 20
_INVISIBLE_TEXT = (3, 7)
_PATHS = {"m", "l", "c", "v", "y", "h"}
_PAINTS = {"f", "F", "f*", "B", "B*", "b", "b*", "s", "S"}
_TEXTS = {"Tj", "TJ", "'", '"'}
_COLOURS = {"g": (0,), "rg": (0, 0, 0), "k": (0, 0, 0, 1)}
_OPERATORS = " ".join(["q Q cm Do gs Tr re n W W* sh BI ID EI BDC cs sc scn", *_PATHS, *_PAINTS, *_TEXTS, *_COLOURS])
IDENTITY: Matrix = (1, 0, 0, 1, 0, 0)


@dataclass(frozen=True)
class Placed:
    """A picture on a page.

    Attributes:
        image: its stream.
        order: how many pictures are painted before it.
        matrix: from the unit square to the page.
        covers: True if it is upright or turned by right angles and ends where the page ends, within 2 %.
        is_bare: True if nothing of it is cut off or shines through.
    """

    image: Any
    order: int
    matrix: Matrix
    covers: bool
    is_bare: bool

    @property
    def size(self) -> tuple[float, float]:
        """Length of its rows and of its columns on the page."""
        a, b, c, d, _, _ = self.matrix
        return (a * a + b * b) ** 0.5, (c * c + d * d) ** 0.5


@dataclass
class Shown:
    """What a page shows.

    Attributes:
        placed: its pictures, in the order in which they are painted.
        marks: what else can be seen upon the last picture that covers the page, in words.
        is_known: False if the page is too large or too damaged to be looked through.
    """

    placed: list[Placed] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    is_known: bool = True
    num_forms: int = 0

    def mark(self, what: str) -> None:
        """Something is painted."""
        if what not in self.marks:
            self.marks.append(what)


@dataclass(frozen=True)
class _State:
    matrix: Matrix
    is_clipped: bool = False
    is_opaque: bool = True
    is_black: bool = True
    text_mode: int = 0


def look_through(page: Any, resources: Any, box: Rect) -> Shown:
    """What a page shows.

    Args:
        page: a pikepdf page.
        resources: its dictionary of resources.
        box: (left, bottom, right, top) of what is visible of it.
    """
    shown = Shown()
    try:
        _walk(page, _streams(page), resources, _State(IDENTITY), box, shown, 0)
    except (pikepdf.PdfError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError):
        shown.is_known = False
    return shown


def times(first: Matrix, then: Matrix) -> Matrix:
    """The matrix that applies `first`, then `then`."""
    a, b, c, d, e, f = first
    g, h, i, j, k, m = then
    return (a * g + b * i, a * h + b * j, c * g + d * i, c * h + d * j, e * g + f * i + k, e * h + f * j + m)


def bounds(matrix: Matrix, rect: Rect = (0, 0, 1, 1)) -> Rect:
    """Of a rectangle on the page."""
    a, b, c, d, e, f = matrix
    corners = [(x, y) for x in (rect[0], rect[2]) for y in (rect[1], rect[3])]
    xs, ys = [a * x + c * y + e for x, y in corners], [b * x + d * y + f for x, y in corners]
    return min(xs), min(ys), max(xs), max(ys)


def decoded_size_within(stream: Any, limit: int) -> bool:
    """True if a stream certainly takes at most `limit` bytes when its deflate compression is undone."""
    length = int(stream.get("/Length", 0))
    filters = stream.get("/Filter")
    names = [str(f) for f in filters] if isinstance(filters, pikepdf.Array) else [str(filters)] if filters else []
    names = [n for n in names if n in ("/FlateDecode", "/Fl", "/LZWDecode", "/LZW", "/RunLengthDecode", "/RL")]
    if not names or length * 1040 ** len(names) <= limit:
        return length <= limit
    if names not in (["/FlateDecode"], ["/Fl"]):
        return False
    try:
        return len(zlib.decompressobj().decompress(stream.read_raw_bytes(), limit + 1)) <= limit
    except zlib.error:
        return length * 8 <= limit  # damaged: what can be had of it is not much


def _streams(page: Any) -> list[Any]:
    contents = page.get("/Contents")
    return list(contents) if isinstance(contents, pikepdf.Array) else [contents] if contents is not None else []


def _walk(owner: Any, streams: list[Any], resources: Any, state: _State, box: Rect, shown: Shown, depth: int) -> None:
    if sum(int(s.get("/Length", 0)) for s in streams) > _MAX_CONTENT_BYTES or not all(
        decoded_size_within(s, _MAX_CONTENT_BYTES) for s in streams
    ):
        shown.is_known = False
        return
    stack: list[_State] = []
    rects: list[Rect] = []
    is_odd_path = will_clip = False
    for instruction in pikepdf.parse_content_stream(owner, _OPERATORS):
        operands: Any = instruction.operands
        op = str(instruction.operator)
        if op == "q":
            if len(stack) < _MAX_STATES:
                stack.append(state)
        elif op == "Q":
            state = stack.pop() if stack else state
        elif op == "cm":
            state = replace(state, matrix=times(_numbers(operands), state.matrix))
        elif op == "re":
            x, y, w, h = (float(v) for v in operands)
            rects.append(bounds(state.matrix, (min(x, x + w), min(y, y + h), max(x, x + w), max(y, y + h))))
        elif op in _PATHS:
            is_odd_path |= op != "h"
        elif op in ("W", "W*"):
            will_clip = True
        elif op in _PAINTS or op == "n":
            if op != "n":
                shown.mark("drawings")
            if will_clip and (is_odd_path or len(rects) != 1 or not _covers(rects[0], box)):
                state = replace(state, is_clipped=True)
            rects, is_odd_path, will_clip = [], False, False
        elif op == "Tr":
            state = replace(state, text_mode=int(operands[0]))
        elif op in _TEXTS:
            if state.text_mode not in _INVISIBLE_TEXT:
                shown.mark("text")
            elif state.text_mode == _INVISIBLE_TEXT[1]:
                state = replace(state, is_clipped=True)
        elif op in _COLOURS:
            state = replace(state, is_black=tuple(float(v) for v in operands) == _COLOURS[op])
        elif op in ("cs", "sc", "scn"):
            state = replace(state, is_black=False)
        elif op == "gs":
            told = resources.get("/ExtGState", {}).get(str(operands[0]))
            state = replace(state, is_opaque=state.is_opaque and (told is None or _is_opaque(told)))
        elif op == "sh":
            shown.mark("shadings")
        elif op in ("INLINE IMAGE", "BI", "EI"):
            shown.mark("small pictures")
        elif op == "BDC" and str(operands[0]) == "/OC":
            state = replace(state, is_opaque=False)  # may be switched off
        elif op == "Do":
            _do(resources.get("/XObject", {}).get(str(operands[0])), resources, state, box, shown, depth)


def _do(found: Any, resources: Any, state: _State, box: Rect, shown: Shown, depth: int) -> None:
    if found is None:
        return
    subtype = str(found.get("/Subtype"))
    if subtype == "/Image":
        _place(found, state, box, shown)
    elif subtype == "/Form":
        shown.num_forms += 1
        if depth >= _MAX_DEPTH or shown.num_forms > _MAX_FORMS:
            shown.is_known = False
            return
        inner = replace(state, matrix=times(_numbers(found.get("/Matrix", IDENTITY)), state.matrix))
        if "/BBox" in found:
            x0, y0, x1, y1 = (float(v) for v in found["/BBox"])
            frame = bounds(inner.matrix, (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)))
            inner = replace(inner, is_clipped=inner.is_clipped or not _covers(frame, box))
        if "/OC" in found:
            inner = replace(inner, is_opaque=False)
        _walk(found, [found], found.get("/Resources", resources), inner, box, shown, depth + 1)


def _place(image: Any, state: _State, box: Rect, shown: Shown) -> None:
    a, b, c, d, _, _ = state.matrix
    straight = max(abs(b), abs(c)) <= _SKEW_TOLERANCE * min(abs(a), abs(d))
    turned = max(abs(a), abs(d)) <= _SKEW_TOLERANCE * min(abs(b), abs(c))
    frame = bounds(state.matrix)
    covers = (straight or turned) and _covers(frame, box) and _covers(box, frame)
    is_stencil = bool(image.get("/ImageMask", False))
    is_bare = (
        not state.is_clipped
        and state.is_opaque
        and not any(key in image for key in ("/SMask", "/Mask", "/OC"))
        and not (is_stencil and not state.is_black)
    )
    if covers and is_bare and not is_stencil:
        shown.marks.clear()
    elif shown.placed or not covers:
        shown.mark("several pictures" if shown.placed else "a picture that does not fill it")
    shown.placed.append(Placed(image, len(shown.placed), state.matrix, covers, is_bare))


def _covers(frame: Rect, box: Rect) -> bool:
    """True if a frame reaches the edges of the box, but for 2 % of the box's size."""
    x, y = COVER_TOLERANCE * (box[2] - box[0]), COVER_TOLERANCE * (box[3] - box[1])
    return frame[0] <= box[0] + x and frame[1] <= box[1] + y and frame[2] >= box[2] - x and frame[3] >= box[3] - y


def _is_opaque(told: Any) -> bool:
    blend = told.get("/BM", "/Normal")
    return (
        float(told.get("/ca", 1)) >= 1
        and str(told.get("/SMask", "/None")) == "/None"
        and (isinstance(blend, pikepdf.Array) or str(blend) in ("/Normal", "/Compatible"))
    )


def _numbers(values: Any) -> Matrix:
    a, b, c, d, e, f = (float(v) for v in values)
    return (a, b, c, d, e, f)
