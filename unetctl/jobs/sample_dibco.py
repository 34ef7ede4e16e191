"""A made-up scan of a written page: pen strokes on aged paper, with what scans suffer, and the truth beside it.

Nothing in it is copied from a picture or a typeface: letters are skeletons of a few points each, joined by splines and
drawn with a pen whose width follows direction and pressure. All chance comes from the seed. Memory is about 100 bytes
a pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.interpolate import CubicSpline

Floats = npt.NDArray[np.float64]
Plane = npt.NDArray[np.float32]

#: Skeletons of letters, (x, y) in heights of a small letter, y upwards from the line; each begins and ends where
#: neighbours join.
_LETTERS = {
    "a": "0 .1 .72 .86 .45 1 .12 .6 .2 .08 .5 .15 .8 .92 .82 .2 1.02 .12",
    "b": "0 .1 .42 1.3 .48 1.95 .32 1.95 .25 1 .25 .1 .5 .04 .72 .45 .58 .92 .95 .75",
    "c": "0 .1 .62 .84 .4 1 .1 .6 .2 .08 .5 .04 .82 .25",
    "d": "0 .1 .72 .86 .45 1 .12 .6 .2 .08 .5 .14 .84 1 .98 2 .86 .3 1.08 .12",
    "e": "0 .1 .5 .45 .6 .85 .4 1 .14 .65 .2 .1 .5 .02 .82 .22",
    "f": "0 .1 .45 1.4 .5 1.95 .34 1.9 .25 .5 .2 -.85 .36 -.9 .4 -.1 .72 .15",
    "g": "0 .1 .72 .86 .45 1 .12 .6 .2 .1 .5 .15 .8 .95 .74 -.4 .5 -.95 .2 -.7 .55 -.15 1 .15",
    "h": "0 .1 .45 1.3 .54 1.95 .38 2 .27 1.2 .2 .02 .32 .6 .58 1 .78 .8 .75 .15 1 .12",
    "i": "0 .1 .3 .95 .28 .2 .5 .12",
    "l": "0 .1 .45 1.3 .5 1.95 .33 1.95 .25 1 .28 .15 .56 .12",
    "m": "0 .1 .2 .92 .22 .02 .34 .7 .54 1 .68 .8 .65 .02 .78 .7 .98 1 1.12 .8 1.1 .15 1.34 .12",
    "n": "0 .1 .2 .94 .22 .02 .35 .7 .58 1 .72 .8 .7 .15 .95 .12",
    "o": "0 .1 .62 .88 .4 1 .1 .5 .34 0 .68 .45 .5 .95 .78 .82 1 .72",
    "p": "0 .1 .26 .9 .2 0 .1 -.95 .2 -.1 .34 .75 .6 1 .76 .55 .52 .05 .32 .12 .92 .12",
    "r": "0 .1 .25 1 .36 1.04 .46 .9 .6 .92 .54 .3 .8 .12",
    "s": "0 .1 .44 1.05 .52 .6 .44 .1 .14 .1 .4 .02 .8 .15",
    "t": "0 .1 .36 1.6 .3 .3 .4 .05 .66 .15",
    "u": "0 .1 .2 .95 .2 .25 .4 .05 .66 .4 .76 .95 .76 .2 1 .12",
    "v": "0 .1 .2 .95 .36 .05 .64 .7 .68 1 .95 .85",
    "y": "0 .1 .2 .95 .2 .25 .4 .05 .66 .4 .76 .95 .7 -.4 .45 -.95 .2 -.7 .55 -.15 .98 .15",
}  # fmt: skip
_EXTRA = {"i": ".4 1.58 .33 1.4", "t": ".05 1.14 .35 1.2 .72 1.2"}
_SYLLABLES = (
    "la", "men", "to", "ri", "do", "pu", "sen", "ta", "ni", "vo", "ber", "gli", "cu", "mo", "fa", "hon", "est", "ly", "ar",
    "de", "the", "re", "con", "tra", "li", "um", "ing", "per", "as", "nos", "ut", "ga", "fi", "so", "be", "hu", "dis",
)  # fmt: skip
#: Height of a small letter and distance of lines, pixels of 300 dpi.
_HEIGHT, _LINE = 24.0, 78.0
#: Widest half of a stroke that is drawn, pixels.
_REACH = 7
_ROWS = 512


@dataclass(frozen=True)
class Scan:
    """One scanned page.

    Attributes:
        colour: (3, y, x) uint8, red, green and blue.
        ink: (y, x) bool, True on strokes of this side of the sheet.
    """

    colour: npt.NDArray[np.uint8]
    ink: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Pen:
    """How strokes are drawn.

    Attributes:
        height: of small letters, px.
        thin, thick: half widths of upstrokes and downstrokes, px.
        slant: shift to the right per height.
        is_joined: True if the letters of a word hang together.
    """

    height: float
    thin: float
    thick: float
    slant: float
    is_joined: bool = True


@dataclass(frozen=True)
class _Stroke:
    """A line of ink.

    Attributes:
        points: (n, 2) x and y, px, half a pixel apart.
        half: (n,) half widths, px.
        strength: of the ink, 0 to 1.
    """

    points: Floats
    half: Floats
    strength: float


def scanned_page(shape: tuple[int, int], seed: int) -> Scan:
    """Draws a page.

    Args:
        shape: (y, x) in pixels of 300 dpi.
        seed: another seed is another page.
    """
    chance = np.random.default_rng([seed, 3])
    sheet = _sheet(chance, shape)
    tilt = chance.normal(0, 0.008)
    front, depth = _writing(chance, shape, tilt)
    back, _ = _writing(np.random.default_rng([seed, 4]), shape, -tilt)
    ink = (front > 0) & (sheet > 1)
    paper = _paper(chance, shape)
    through = ndimage.gaussian_filter(_step(back[:, ::-1], 2.0), 2.4) * (0.7 + 0.5 * _smooth(chance, shape, 160))
    paper *= 1 - np.float32(0.22) * np.clip(through, 0, 1) * _tint(0.75, 0.9, 1.0)
    pigment = _tint(*(np.array([0.80, 0.86, 0.90]) + chance.normal(0, 0.025, 3)).clip(0.7, 0.97))
    body = _step(front, 0.55) * depth
    paper *= 1 - body * pigment
    colour = _on_scanner(chance, paper, sheet)
    return Scan(colour, ink)


def _writing(chance: np.random.Generator, shape: tuple[int, int], tilt: float) -> tuple[Plane, Plane]:
    """Depth inside the strokes (px, negative outside), and how dark the ink is (0 to 1), both (y, x)."""
    size = float(np.clip(shape[1] / 700, 0.5, 1.0))
    hand = _Pen(_HEIGHT * size, 0.9, chance.uniform(2.0, 2.7), chance.uniform(0.25, 0.5))
    heading = _Pen(1.4 * _HEIGHT * size, 1.1, chance.uniform(3.6, 4.6), 0.0, is_joined=False)
    left, right = 0.13 * shape[1], 0.94 * shape[1]
    strokes: list[_Stroke] = []
    y = 0.07 * shape[0] + 2.2 * heading.height
    pen = heading
    while pen is heading or y < 0.97 * shape[0] - hand.height:
        x = left + (0.1 * shape[1] if pen is heading or chance.random() < 0.2 else chance.normal(0, 4))
        end = right - (0.0 if chance.random() < 0.75 else chance.uniform(0.1, 0.5) * (right - left))
        is_empty = True
        while True:
            word = _word(chance, pen, (x, y))
            reach = max(stroke.points[:, 0].max() for stroke in word)
            if reach > end and not is_empty:
                break
            strokes += word
            is_empty = False
            x = reach + pen.height * chance.uniform(0.7, 1.1)
        y += (_LINE * size) * (1.25 if pen is heading else chance.uniform(0.96, 1.04))
        pen = hand
    inside, fresh = _drawn(strokes, tilt, shape)
    flow = 0.93 + 0.12 * _smooth(chance, shape, 26) + 0.10 * _smooth(chance, shape, 300)
    return inside, np.clip(fresh * flow, 0.35, 1).astype(np.float32)


def _word(chance: np.random.Generator, pen: _Pen, at: tuple[float, float]) -> list[_Stroke]:
    """The strokes of a word that begins at `at` (x, y of the line)."""
    text = "".join(chance.choice(_SYLLABLES, int(chance.integers(1, 4))))
    whole: list[Floats] = []
    extras: list[Floats] = []
    x = 0.0
    for letter in text:
        points = _points(_LETTERS[letter]) * chance.normal(1, 0.05, 2)
        points[1:-1] += chance.normal(0, 0.025, (len(points) - 2, 2))
        if letter in _EXTRA:
            extras.append(_points(_EXTRA[letter]) + np.array([x, chance.normal(0, 0.08)]))
        whole.append(points + np.array([x, 0]))
        x += points[-1, 0] + (0.0 if pen.is_joined else 0.3)
    if pen.is_joined:
        whole = [np.concatenate([p if i == len(whole) - 1 else p[:-1] for i, p in enumerate(whole)])]
    strokes = []
    strength = float(chance.uniform(0.72, 1.0))
    for skeleton in [*whole, *extras]:
        placed = skeleton.copy()
        placed[:, 0] += pen.slant * skeleton[:, 1]
        placed *= pen.height
        curve = _curve(np.column_stack([at[0] + placed[:, 0], at[1] - placed[:, 1]]))
        strokes.append(_Stroke(curve, _widths(chance, pen, curve), strength))
    return strokes


def _points(text: str) -> Floats:
    return np.array(text.split(), np.float64).reshape(-1, 2)


def _curve(points: Floats) -> Floats:
    """A smooth curve through points, sampled every half pixel."""
    chords = np.hypot(*np.diff(points, axis=0).T)
    knots = np.concatenate([[0], np.cumsum(np.sqrt(np.maximum(chords, 0.05)))])
    spline = CubicSpline(knots, points, bc_type="natural")
    dense = spline(np.linspace(0, knots[-1], max(8, int(2 * chords.sum()))))
    lengths = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(dense, axis=0).T))])
    even = np.linspace(0, lengths[-1], max(2, int(2 * lengths[-1])))
    return np.column_stack([np.interp(even, lengths, dense[:, i]) for i in (0, 1)])


def _widths(chance: np.random.Generator, pen: _Pen, curve: Floats) -> Floats:
    """Half widths: a pointed pen spreads on the way down; pressure wanders, the ends taper."""
    step = np.gradient(curve, axis=0) if len(curve) > 2 else np.ones_like(curve)
    down = np.clip(step[:, 1] / np.maximum(np.hypot(*step.T), 1e-9), 0, 1)
    down = ndimage.gaussian_filter1d(down, 0.12 * pen.height, mode="nearest")
    noise = ndimage.gaussian_filter1d(chance.standard_normal(len(curve)), 20, mode="nearest") * 8
    half = pen.thin + (pen.thick - pen.thin) * down**1.5 * (1 + 0.12 * noise)
    ends = np.minimum(np.arange(len(curve)), np.arange(len(curve))[::-1]) / 8
    return np.asarray(np.clip(half * np.clip(0.6 + ends, 0, 1), 0.8, _REACH - 1.5))


def _drawn(strokes: Sequence[_Stroke], tilt: float, shape: tuple[int, int]) -> tuple[Plane, Plane]:
    """The union of discs along curves, turned by `tilt` about the page's middle: depth inside (px), strength of the ink."""
    middle = np.array([shape[1], shape[0]]) / 2
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    points = (np.concatenate([s.points for s in strokes]) - middle) @ turn + middle
    half = np.concatenate([s.half for s in strokes])
    strength = np.concatenate([np.full(len(s.points), s.strength, np.float32) for s in strokes])
    inside, fresh = np.full(shape, -9.0, np.float32), np.zeros(shape, np.float32)
    whole = np.rint(points).astype(np.int64)
    rest = points - whole
    for dy in range(-_REACH, _REACH + 1):
        for dx in range(-_REACH, _REACH + 1):
            depth = half - np.hypot(dx - rest[:, 0], dy - rest[:, 1])
            x, y = whole[:, 0] + dx, whole[:, 1] + dy
            near = (depth > -1.5) & (x >= 0) & (y >= 0) & (x < shape[1]) & (y < shape[0])
            at = (y[near], x[near])
            np.maximum.at(inside, at, depth[near].astype(np.float32))
            np.maximum.at(fresh, at, strength[near])
    return inside, fresh


def _paper(chance: np.random.Generator, shape: tuple[int, int]) -> Plane:
    """Reflectance (3, y, x), 0 to 1: aged paper with fibres, a stain, foxing and uneven light."""
    base = np.array([0.91, 0.84, 0.71]) * chance.normal(1, 0.03) + [0, 0, chance.normal(0, 0.05)]
    mottled = 0.018 * _smooth(chance, shape, 90) + 0.010 * _smooth(chance, shape, 14)
    fibres = chance.standard_normal(shape, np.float32)
    fibres = ndimage.gaussian_filter(fibres, (0.8, 2.4)) + ndimage.gaussian_filter(fibres, (2.4, 0.8))
    grain = mottled + 0.028 * fibres
    paper = np.empty((3, *shape), np.float32)
    for i, value in enumerate(base):
        paper[i] = value * (1 + grain * (1 + 0.25 * i))
    _stain(chance, paper)
    _foxing(chance, paper)
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    angle = chance.uniform(0, 2 * np.pi)
    light = 1 + 0.07 * (np.cos(angle) * x[None] + np.sin(angle) * y[:, None])
    light = light - 0.05 * (x[None] ** 2 + y[:, None] ** 2)
    light -= 0.30 * np.exp(-(x[None] + 1) / 0.09)  # the fold of the book
    crease = (y[:, None] - chance.uniform(-0.3, 0.3) + 0.01 * x[None]) * shape[0] / 2
    light -= 0.05 * np.exp(-((crease / 2.2) ** 2)) - 0.03 * np.exp(-(((crease - 5) / 3) ** 2))
    paper *= light.astype(np.float32)
    return paper


def _stain(chance: np.random.Generator, paper: Plane) -> None:
    """A dried drop: a brownish blot with a darker rim."""
    shape = (paper.shape[1], paper.shape[2])
    radius = 0.24 * min(shape)
    centre = chance.uniform(0.3, 0.75, 2) * shape
    y, x = np.ogrid[: shape[0], : shape[1]]
    dy, dx = (y - centre[0]) / radius, (x - centre[1]) / radius
    distance = np.hypot(dy, dx) + 0.09 * _smooth(chance, shape, radius / 2) + 0.02 * _smooth(chance, shape, radius / 9)
    within = 1 / (1 + np.exp((distance - 1) / 0.02))
    rim = np.exp(-(((distance - 0.975) / 0.035) ** 2))
    blot = (0.13 * within * (1 + 0.25 * _smooth(chance, shape, radius / 4)) + 0.16 * rim).astype(np.float32)
    paper *= 1 - blot * _tint(0.6, 0.9, 1.25)


def _foxing(chance: np.random.Generator, paper: Plane) -> None:
    """Rusty spots, and specks of dirt."""
    _, height, width = paper.shape
    for _ in range(chance.poisson(26 * height * width / 700_000)):
        is_dirt = chance.random() < 0.4
        sigma = chance.uniform(0.7, 1.4) if is_dirt else chance.uniform(1.5, 7)
        strength = chance.uniform(0.2, 0.5) if is_dirt else chance.uniform(0.05, 0.22)
        y, x = chance.uniform(0, (height, width))
        reach = int(4 * sigma) + 2
        top, left = max(0, int(y) - reach), max(0, int(x) - reach)
        box = (slice(None), slice(top, int(y) + reach), slice(left, int(x) + reach))
        rows, columns = np.mgrid[box[1], box[2]][:, : height - top, : width - left]
        spot = strength * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))
        paper[box] *= 1 - spot.astype(np.float32) * (_tint(1, 1, 1) if is_dirt else _tint(0.5, 0.9, 1.2))


def _sheet(chance: np.random.Generator, shape: tuple[int, int]) -> Plane:
    """Distance from the sheet's edge, px, negative on the scanner's dark bed; the sheet lies a little askew."""
    small = min(shape)
    y, x = np.ogrid[: shape[0], : shape[1]]
    distance = np.full(shape, np.inf, np.float32)
    for side in range(4):
        margin = small * (chance.uniform(0.02, 0.05) if side < 2 else chance.uniform(-0.03, 0.02))
        lean = chance.normal(0, 0.008)
        along, across = (x, y) if side % 2 else (y, x)
        depth = across if side < 2 else shape[1 - side % 2] - 1 - across
        length = shape[side % 2]
        wave = ndimage.gaussian_filter1d(chance.standard_normal(length), 6, mode="nearest") * 2.2
        wave = wave.reshape((-1, 1) if along is y else (1, -1))
        edge = margin + lean * (along - length / 2) + wave
        distance = np.minimum(distance, (depth - edge).astype(np.float32))
    return distance


def _on_scanner(chance: np.random.Generator, paper: Plane, sheet: Plane) -> npt.NDArray[np.uint8]:
    """The sheet on the bed as the sensor sees it, (3, y, x) uint8."""
    shape = (sheet.shape[0], sheet.shape[1])
    on_sheet = _step(sheet, 0.7)
    curl = 1 - 0.25 * np.exp(-np.maximum(sheet, 0) / 5)
    bed = 0.085 + 0.012 * _smooth(chance, shape, 40)
    seen = np.empty(paper.shape, np.uint8)
    for i, tone in enumerate((1.05, 1.0, 0.95)):
        plane = paper[i] * curl * on_sheet + bed * tone * (1 - on_sheet)
        plane = ndimage.gaussian_filter(plane, 0.75)
        plane += 0.009 * ndimage.gaussian_filter(chance.standard_normal(shape, np.float32), 0.5) * 1.8
        seen[i] = np.clip(np.rint(255 * plane), 0, 255).astype(np.uint8)
    return seen


def _smooth(chance: np.random.Generator, shape: tuple[int, int], size: float) -> Plane:
    """A smooth random field of deviation about 1 with features of `size` pixels, (y, x) float32."""
    knots = chance.standard_normal([int(n / size) + 4 for n in shape])
    y, x = (np.arange(n, dtype=np.float64) / size + 1 for n in shape)
    field = np.empty(shape, np.float32)
    for top in range(0, shape[0], _ROWS):  # coordinates of a whole page would outweigh the page
        rows = y[top : top + _ROWS]
        at = np.broadcast_arrays(rows[:, None], x[None])
        field[top : top + _ROWS] = ndimage.map_coordinates(knots, at, order=3, mode="nearest")
    return field * np.float32(1.3)


def _step(depth: Plane, soft: float) -> Plane:
    """From 0 outside to 1 inside, smoothly."""
    return np.asarray(0.5 + 0.5 * np.tanh(depth / soft), np.float32)


def _tint(*values: float) -> Plane:
    """One number a colour, to be multiplied with planes."""
    return np.array(values, np.float32).reshape(3, 1, 1)
