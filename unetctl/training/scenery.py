"""Backgrounds and clutter made up from chance alone: what a shape is pasted onto, and what it must not be taken for.

background(size, chance) -> (3, y, x) 0..1
clutter(canvas, chance, num, palette)      draws other things into it, some in the colours of `palette`
photo(pictures, size, chance) -> (3, y, x)  a piece of a picture instead
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

Floats = npt.NDArray[np.float32]
Size2 = tuple[int, int]


def background(size: Size2, chance: np.random.Generator) -> Floats:
    """Gradients, cloudy colours, stripes and grain, one over the other, (3, y, x) 0..1."""
    kind = chance.random()
    if kind < 0.15:
        canvas = np.broadcast_to(_colour(chance), (3, *size)).astype(np.float32)
    elif kind < 0.4:
        canvas = _gradient(size, chance, _colour(chance), _colour(chance))
    else:
        canvas = _clouds(size, chance)
    if chance.random() < 0.35:
        canvas = canvas + chance.uniform(0.03, 0.3) * _stripes(size, chance)
    if chance.random() < 0.5:
        canvas = canvas + chance.uniform(0.02, 0.2) * _grain(size, chance)
    return np.asarray(np.clip(canvas, 0, 1), np.float32)


def photo(pictures: Sequence[Floats], size: Size2, chance: np.random.Generator) -> Floats:
    """A piece of one of some pictures, (3, y, x) 0..1 each, at some scale, mirrored or not."""
    picture = pictures[int(chance.integers(len(pictures)))]
    fit = min(n / s for n, s in zip(picture.shape[1:], size, strict=True))
    factor = min(fit, math.exp(chance.uniform(math.log(max(0.25, fit / 4)), math.log(max(0.5, fit)))))
    piece = [max(1, min(n, round(s * factor))) for n, s in zip(picture.shape[1:], size, strict=True)]
    y, x = (int(chance.integers(0, n - p + 1)) for n, p in zip(picture.shape[1:], piece, strict=True))
    cut = picture[:, y : y + piece[0], x : x + piece[1]]
    if chance.random() < 0.5:
        cut = cut[:, :, ::-1]
    return resized(np.ascontiguousarray(cut), size)


def clutter(canvas: Floats, chance: np.random.Generator, num: int, palette: npt.NDArray[np.float32]) -> None:
    """Draws other things into a canvas (3, y, x), in place.

    Args:
        canvas: 0..1.
        chance: where they come from.
        num: things.
        palette: (n, 3) colours of the shape: half of the things have them, so that colour alone tells nothing.
    """
    for _ in range(num):
        box, cover = thing(canvas.shape[1:], chance, chance.uniform(0.04, 0.6))
        if box is None:
            continue
        first = palette[int(chance.integers(len(palette)))] if chance.random() < 0.5 else _colour(chance)[:, 0, 0]
        fill = np.broadcast_to(first[:, None, None], (3, *cover.shape))
        if chance.random() < 0.35:
            second = palette[int(chance.integers(len(palette)))] if chance.random() < 0.5 else _colour(chance)[:, 0, 0]
            share = (
                (_stripes(cover.shape, chance)[0] > 0)[None]
                if chance.random() < 0.5
                else _ramp(cover.shape, chance)[None]
            )
            fill = fill + (second[:, None, None] - fill) * share
        under = canvas[(slice(None), *box)]
        canvas[(slice(None), *box)] = under + (fill - under) * (cover * chance.uniform(0.7, 1.0))[None]


def thing(
    size: tuple[int, ...], chance: np.random.Generator, share: float
) -> tuple[tuple[slice, slice] | None, Floats]:
    """One thing: where it is, and how much it covers there, 0..1; None if it is outside.

    Args:
        size: of the canvas, (y, x).
        chance: where it comes from.
        share: of its size of the canvas's smaller side.
    """
    radius = max(2.0, share * min(size) / 2)
    centre = [chance.uniform(-0.1, 1.1) * n for n in size]
    reach = radius * 1.5 + 2
    box = tuple(slice(max(0, int(c - reach)), min(n, int(c + reach) + 1)) for c, n in zip(centre, size, strict=True))
    if any(b.stop <= b.start for b in box):
        return None, np.zeros((0, 0), np.float32)
    y, x = np.mgrid[box].astype(np.float32)
    angle = chance.uniform(0, math.pi)
    u = (x - centre[1]) * math.cos(angle) + (y - centre[0]) * math.sin(angle)
    v = (y - centre[0]) * math.cos(angle) - (x - centre[1]) * math.sin(angle)
    depth = _depth(u, v, radius, chance)
    return (box[0], box[1]), np.asarray(np.clip(depth + 0.5, 0, 1), np.float32)


def resized(picture: Floats, size: Size2) -> Floats:
    """(c, y, x) at another size; averaged where it shrinks."""
    tensor = torch.from_numpy(np.ascontiguousarray(picture))[None]
    found = F.interpolate(tensor, size=size, mode="bilinear", align_corners=False, antialias=True)
    return found[0].clamp_(0, 1).numpy()


def _depth(u: Floats, v: Floats, radius: float, chance: np.random.Generator) -> Floats:
    """How far inside an outline about the origin, pixels."""
    kind, slim = int(chance.integers(6)), chance.uniform(0.25, 1.0)
    if kind == 0:
        return np.asarray((1 - np.hypot(u / radius, v / (radius * slim))) * radius * slim)
    if kind == 1:
        return np.asarray(np.minimum(radius - np.abs(u), radius * slim - np.abs(v)))
    if kind == 2:  # a ring
        return np.asarray(radius * slim * 0.3 - np.abs(np.hypot(u, v) - radius * 0.8))
    if kind == 3:  # a convex polygon
        depth = np.full(u.shape, np.inf, np.float32)
        for turn in np.sort(chance.uniform(0, 2 * math.pi, int(chance.integers(3, 8)))):
            depth = np.minimum(depth, radius * chance.uniform(0.5, 1.0) - u * math.cos(turn) - v * math.sin(turn))
        return np.minimum(depth, radius * 1.3 - np.hypot(u, v))
    if kind == 4:  # a star
        num = int(chance.integers(3, 9))
        bend = 1 + slim * 0.5 * np.cos(num * np.arctan2(v, u))
        return np.asarray((0.65 * radius * bend - np.hypot(u, v)) * 0.7)
    depth = np.full(u.shape, -np.inf, np.float32)  # strokes, as of letters
    width = radius * chance.uniform(0.06, 0.2)
    for _ in range(int(chance.integers(2, 6))):
        (a, b), (c, d) = chance.uniform(-0.9, 0.9, (2, 2)) * radius
        along = np.clip(((u - a) * (c - a) + (v - b) * (d - b)) / max((c - a) ** 2 + (d - b) ** 2, 1e-6), 0, 1)
        depth = np.maximum(depth, width - np.hypot(u - a - along * (c - a), v - b - along * (d - b)))
    return depth


def _colour(chance: np.random.Generator) -> Floats:
    """A random colour, (3, 1, 1); every third is a grey, more or less."""
    colour = chance.uniform(0, 1, 3)
    if chance.random() < 0.35:
        colour = colour.mean() + 0.1 * (colour - colour.mean())
    return np.asarray(colour, np.float32)[:, None, None]


def _ramp(size: tuple[int, ...], chance: np.random.Generator) -> Floats:
    """0..1 across a plane in a random direction, or from a centre outwards; (y, x)."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in size)
    if chance.random() < 0.3:
        centre = chance.uniform(-1, 1, 2)
        far = np.hypot(y[:, None] - centre[0], x[None] - centre[1])
        return np.asarray(np.clip(far / 2, 0, 1), np.float32)
    angle = chance.uniform(0, 2 * math.pi)
    along = y[:, None] * math.sin(angle) + x[None] * math.cos(angle)
    return np.asarray(0.5 + along / (2 * (abs(math.sin(angle)) + abs(math.cos(angle)))), np.float32)


def _gradient(size: Size2, chance: np.random.Generator, first: Floats, second: Floats) -> Floats:
    ramp = _ramp(size, chance)[None]
    return first + (second - first) * ramp


def _clouds(size: Size2, chance: np.random.Generator) -> Floats:
    """Colours that change smoothly, at several sizes."""
    canvas = np.broadcast_to(_colour(chance), (3, *size)).astype(np.float32)
    num, loud = int(chance.integers(2, 6)), chance.uniform(0.1, 0.35)
    cells = float(chance.uniform(1.5, 4))
    for _ in range(num):
        shape = [min(n, max(2, round(cells * n / min(size)))) for n in size]
        points = chance.normal(0, 1, (3, *shape)).astype(np.float32)
        if chance.random() < 0.5:  # light and dark of one colour
            points[:] = points[:1]
        canvas = canvas + loud * _spread(points, size)
        cells, loud = cells * 2.2, loud * chance.uniform(0.4, 0.8)
    return canvas


def _spread(points: Floats, size: Size2) -> Floats:
    tensor = torch.from_numpy(points)[None]
    return F.interpolate(tensor, size=size, mode="bicubic", align_corners=False)[0].numpy()


def _stripes(size: tuple[int, ...], chance: np.random.Generator) -> Floats:
    """A wave across the plane, or two crossing ones, -1..1, (1, y, x)."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    waves = []
    for _ in range(int(chance.integers(1, 3))):
        angle, period = chance.uniform(0, math.pi), math.exp(chance.uniform(math.log(4), math.log(80)))
        waves.append(np.sin((y * math.sin(angle) + x * math.cos(angle)) * (2 * math.pi / period)))
    wave = np.prod(waves, axis=0)
    if chance.random() < 0.5:
        wave = np.sign(wave)
    return np.asarray(wave, np.float32)[None]


def _grain(size: Size2, chance: np.random.Generator) -> Floats:
    factor = int(chance.integers(1, 4))
    shape = [max(2, n // factor) for n in size]
    points = chance.standard_normal((int(chance.choice([1, 3])), *shape), np.float32)
    return _spread(points, size) if factor > 1 else points[:, : size[0], : size[1]]
