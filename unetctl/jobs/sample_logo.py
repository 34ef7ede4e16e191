"""A made-up emblem on a transparent ground, to try the search for a shape with one picture.

Every seed is another one: a badge of one outline, a ring in it, a few petals or rays about its centre, in three colours.
"""

import io
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

#: Samples a side of every pixel.
_FINE = 4
_MOST_TRIES = 100


def emblem(shape: tuple[int, int], seed: int) -> npt.NDArray[np.uint8]:
    """(y, x, 4) uint8: red, green, blue and alpha, not premultiplied."""
    chance = np.random.default_rng(seed)
    size = min(shape)
    y, x = np.mgrid[: shape[0] * _FINE, : shape[1] * _FINE].astype(np.float32) / _FINE
    y, x = y + 0.5 / _FINE - shape[0] / 2, x + 0.5 / _FINE - shape[1] / 2
    far, angle = np.hypot(y, x), np.arctan2(y, x)
    radius = 0.46 * size
    outline = _outline(far, angle, radius, chance)
    ground, ring, figure = _colours(chance)
    num, turn = int(chance.integers(3, 8)), chance.uniform(0, 2 * math.pi)
    petals = 0.5 + 0.5 * np.cos(num * angle + turn)
    inside = far < radius * 0.62 * (0.25 + 0.75 * petals ** chance.uniform(0.6, 2.5))
    hole = far < radius * chance.uniform(0.08, 0.18)
    colour = np.where(inside[..., None], figure, ground)
    band = np.abs(far - radius * 0.75) < radius * chance.uniform(0.03, 0.07)
    colour = np.where(band[..., None], ring, colour)
    colour = np.where(hole[..., None], ring, colour)
    stripe = np.abs((x * math.cos(turn) + y * math.sin(turn)) - 0.1 * size) < 0.02 * size
    colour = np.where((stripe & ~inside & outline)[..., None], figure, colour)
    alpha = _averaged(outline.astype(np.float64)[..., None], shape)
    mean = _averaged(np.where(outline[..., None], colour, 0.0), shape) / np.maximum(alpha, 1e-6)
    found = np.concatenate([np.where(alpha > 0, mean, 0.0), alpha * 255], -1)
    return np.asarray(np.clip(np.rint(found), 0, 255), np.uint8)


def emblem_files(shape: tuple[int, int], seed: int) -> Iterator[bytes]:
    """`emblem` as a PNG file, and its alpha as another."""
    from PIL import Image

    pixels = emblem(shape, seed)
    for kept in (pixels, np.ascontiguousarray(pixels[..., 3])):
        file = io.BytesIO()
        Image.fromarray(kept).save(file, "PNG")
        yield file.getvalue()


def _outline(
    far: npt.NDArray[np.float32], angle: npt.NDArray[np.float32], radius: float, chance: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Where the badge is: a disc, a wavy disc, or a polygon with round corners."""
    kind = int(chance.integers(3))
    if kind == 0:
        return np.asarray(far < radius)
    num, turn = int(chance.integers(5, 13)), chance.uniform(0, 2 * math.pi)
    if kind == 1:
        return np.asarray(far < radius * (0.93 + 0.07 * np.cos(num * angle + turn)))
    num = max(4, num // 2)
    part = 2 * math.pi / num
    within = np.mod(angle + turn, part) - part / 2
    side = radius * math.cos(part / 2) / np.cos(within)
    return np.asarray(far < np.minimum(side, radius * 0.97))


def _colours(chance: np.random.Generator) -> npt.NDArray[np.float64]:
    """Three colours (3, 3), 0..255, that are easily told apart."""
    found = chance.uniform(0, 255, (3, 3))
    for _ in range(_MOST_TRIES):
        if (
            min(np.abs(a - b).sum() for a, b in ((found[0], found[1]), (found[0], found[2]), (found[1], found[2])))
            > 220
        ):
            break
        found = chance.uniform(0, 255, (3, 3))
    return found


def _averaged(fine: npt.NDArray[np.float64], shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    return np.asarray(fine.reshape(shape[0], _FINE, shape[1], _FINE, -1).mean((1, 3)))
