"""Curves as values: coordinates for the SVG that `templates/chart.svg` draws.

::

      0        LEFT                         WIDTH - RIGHT   WIDTH
    0 |         best 0.9863, epoch 60
  TOP |  0.99 - .--------------------:--------.
      |         |            ___.----o---.__  |
      |  0.97 - |      __.--'        :        |
      |         '--'-----'-----'-----'-----'--'   HEIGHT - BOTTOM
      |            10    20    30    40
      |                   epoch                   HEIGHT
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 12.0, 22.0, 40.0

_LETTER = 6.2  # width of a digit, generously
_NAME = 27.0  # width of the vertical axis' name and of what keeps ticks from it and from the axis
_MOST_DECIMALS = 12
_NUM_DOTS = 40  # lines with more points are drawn without dots
_LOG_FROM = 20.0  # ratio of largest to smallest from which a logarithmic axis shows more
#: Values that differ by less than this share of their size are one: floats between them hold no ticks.
_LEAST_RANGE = 1e-12


@dataclass(frozen=True)
class Line:
    """A named series; points whose y is not finite leave a gap.

    Attributes:
        name: for the legend.
        points: (x, y), x finite and rising.
    """

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Tick:
    """A place on an axis, in SVG units, and what is written there."""

    at: float
    text: str


@dataclass(frozen=True)
class Dot:
    """A point in SVG units with the words that a pointer resting on it brings up."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class DrawnLine:
    """A line in SVG units: `path` is the `d` of an SVG path."""

    name: str
    path: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Mark:
    """The best epoch: a vertical line at x, a dot on the curve, words at the top.

    Attributes:
        x: of the line.
        y: of the dot; None if the curve has no value there.
        text: the words.
        text_x: where they stand.
        anchor: "start", "middle" or "end": how they hang on `text_x`, so that they stay inside.
    """

    x: float
    y: float | None
    text: str
    text_x: float
    anchor: str


@dataclass(frozen=True)
class Chart:
    """Everything `templates/chart.svg` draws, in SVG units.

    Attributes:
        title: heading.
        hint: "higher is better", "lower is better" or empty.
        x_name, y_name: what the axes count.
        summary: the curve in a sentence, for those who do not see it.
        lines: at least one; drawn only if `is_drawn`.
        is_drawn: False if no point is finite.
        left: where the vertical axis is: `LEFT`, or further in where long numbers stand beside it.
    """

    title: str
    hint: str
    x_name: str
    y_name: str
    summary: str
    lines: tuple[DrawnLine, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    mark: Mark | None
    is_drawn: bool
    left: float = LEFT

    width, height, right, top, bottom = WIDTH, HEIGHT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM


def linear_ticks(low: float, high: float, num: int = 5, is_whole: bool = False) -> list[float]:
    """About `num` round numbers whose first is at most `low` and whose last is at least `high`.

    Args:
        low: finite.
        high: finite, at least `low`.
        num: wished for, at least 2; the result has 2 to 2 * num + 2.
        is_whole: only whole numbers, for counts.
    """
    if high - low <= _LEAST_RANGE * max(abs(low), abs(high)):
        reach = max(abs(low) * 0.05, 1.0 if is_whole or low == 0 else 0.0)
        low, high = low - reach, high + reach
    raw = (high - low) / (num - 1)
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1.0, 2.0, 2.5, 5.0, 10.0, 20.0) if m * unit >= raw * 0.999)
    if is_whole:
        step = max(1.0, math.ceil(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 (or powers of ten alone, for many decades) from at most `low` to at least `high`; 0 < low <= high."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if last - first > 3:
        step = -(-(last - first) // 6)
        return [10.0**e for e in range(first, last + step, step)]
    ticks = [m * 10.0**e for e in range(first, last + 1) for m in (1.0, 2.0, 5.0)]
    start = max(i for i, tick in enumerate(ticks) if tick <= low * 1.000001)
    stop = min(i for i, tick in enumerate(ticks) if tick >= high * 0.999999)
    return ticks[start : max(stop, start + 1) + 1]


def draw(
    lines: Sequence[Line],
    title: str,
    y_name: str,
    x_name: str = "epoch",
    hint: str = "",
    mark: tuple[float, str] | None = None,
    x_range: tuple[float, float] | None = None,
    may_log: bool = False,
    has_whole_x: bool = True,
) -> Chart:
    """Places the lines on axes that hold all their finite points.

    Args:
        lines: one or more.
        title: heading.
        y_name: beside the vertical axis.
        x_name: under the horizontal axis, and in the words of the dots.
        hint: after the title.
        mark: x to mark and its words; the dot sits on the last line that has a finite point there.
        x_range: least and greatest x, so that charts beside each other agree; by default those of the finite points.
        has_whole_x: the horizontal axis counts (epochs, steps); False for shares.
        may_log: take a logarithmic axis where all values are positive and span more than a factor of 20.
    """
    finite = [(x, y) for line in lines for x, y in line.points if math.isfinite(y)]
    if not finite:
        return Chart(title, hint, x_name, y_name, f"{title}: no finite value yet", (), (), (), None, False)
    ys = [y for _, y in finite]
    is_log = may_log and min(ys) > 0 and max(ys) / min(ys) > _LOG_FROM
    left, right = x_range or (min(x for x, _ in finite), max(x for x, _ in finite))
    # An axis of epochs starts at the first one and does not run past the last.
    x_values = [tick for tick in linear_ticks(left, right, 6, is_whole=has_whole_x) if left <= tick <= right] or [left]
    y_values = log_ticks(min(ys), max(ys)) if is_log else linear_ticks(min(ys), max(ys))
    texts = _texts(y_values, is_log)
    begin = max(LEFT, _NAME + _LETTER * max(map(len, texts)))
    across = _Axis(left, right, begin + 6, WIDTH - RIGHT - 6, False)
    up = _Axis(y_values[0], y_values[-1], HEIGHT - BOTTOM, TOP, is_log)
    drawn = tuple(_drawn(line, across, up, x_name) for line in lines)
    return Chart(
        title,
        hint + (", " * bool(hint) + "logarithmic axis" if is_log else ""),
        x_name,
        y_name,
        _summary(title, lines, x_name, mark),
        drawn,
        tuple(Tick(across.at(value), _short(value)) for value in x_values),
        tuple(Tick(up.at(value), text) for value, text in zip(y_values, texts, strict=True)),
        _mark(mark, lines, across, up, begin) if mark else None,
        True,
        begin,
    )


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float
    is_log: bool

    def at(self, value: float) -> float:
        low, high = (math.log10(self.low), math.log10(self.high)) if self.is_log else (self.low, self.high)
        share = ((math.log10(value) if self.is_log else value) - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 2)


def _drawn(line: Line, across: _Axis, up: _Axis, x_name: str) -> DrawnLine:
    pieces: list[list[Dot]] = [[]]
    for x, y in line.points:
        if math.isfinite(y):
            pieces[-1].append(Dot(across.at(x), up.at(y), f"{line.name} {y:.4g}, {x_name} {_short(x)}"))
        elif pieces[-1]:
            pieces.append([])
    path = "".join("M" + "L".join(f"{dot.x:g},{dot.y:g}" for dot in piece) for piece in pieces if len(piece) > 1)
    has_dots = sum(len(piece) for piece in pieces) <= _NUM_DOTS
    return DrawnLine(line.name, path, tuple(dot for piece in pieces for dot in piece if has_dots or len(piece) == 1))


def _mark(mark: tuple[float, str], lines: Sequence[Line], across: _Axis, up: _Axis, begin: float) -> Mark | None:
    at, text = mark
    if not across.low <= at <= across.high:
        return None
    there = [y for line in lines for x, y in line.points if x == at and math.isfinite(y)]
    x = across.at(at)
    half = 3.2 * len(text)  # half of the words' width at 12 units a letter's height, generously
    anchor = "start" if x - half < begin else "end" if x + half > WIDTH - RIGHT else "middle"
    text_x = {"start": max(begin, x - half), "end": min(WIDTH - RIGHT, x + half), "middle": x}[anchor]
    return Mark(x, up.at(there[-1]) if there else None, text, round(text_x, 2), anchor)


def _summary(title: str, lines: Sequence[Line], x_name: str, mark: tuple[float, str] | None) -> str:
    parts = []
    for line in lines:
        points = [(x, y) for x, y in line.points if math.isfinite(y)]
        if points:
            (x0, y0), (x1, y1) = points[0], points[-1]
            parts.append(f"{line.name} from {y0:.4g} at {x_name} {_short(x0)} to {y1:.4g} at {x_name} {_short(x1)}")
    return f"Curve of {title}: " + "; ".join(parts) + (f"; {mark[1]}" if mark else "")


def _texts(values: Sequence[float], is_log: bool) -> list[str]:
    """What stands at an axis: on a linear one, all with the same number of decimals, as many as tell them apart."""
    texts = [_short(value) for value in values]
    if is_log:
        return texts
    if any("e" in text for text in texts):
        digits = next((n for n in range(3, 17) if len({f"{value:.{n}g}" for value in values}) == len(values)), 17)
        return texts if len(set(texts)) == len(texts) else [f"{value:.{digits}g}" for value in values]
    step = min((b - a for a, b in itertools.pairwise(values)), default=1.0)
    decimals = max(len(text.partition(".")[2]) for text in texts)
    while decimals < _MOST_DECIMALS and any(abs(round(v, decimals) - v) > 0.01 * step for v in values):
        decimals += 1
    return [f"{value:.{decimals}f}" for value in values]


def _short(value: float) -> str:
    if value == 0:
        return "0"
    text = f"{value:.4g}" if 1e-3 <= abs(value) < 1e5 else f"{value:.3g}"
    return text.replace("e-0", "e-").replace("e+0", "e")
