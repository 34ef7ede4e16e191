"""A made-up photograph, a landscape, and overlays stuck on it: something to repair, with the truth beside it.

Nothing in it is copied from a picture. All chance comes from the seed.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float64]
Colours = npt.NDArray[np.uint8]

_NUM_RIDGES = 4
_FAR = np.array([0.62, 0.68, 0.78])
_NEAR = np.array([0.16, 0.27, 0.13])


@dataclass(frozen=True)
class Scene:
    """One picture.

    Attributes:
        damaged: (y, x, 3) uint8.
        clean: the same without the overlays.
    """

    damaged: Colours
    clean: Colours


def damaged_scene(shape: tuple[int, int], seed: int) -> Scene:
    """Draws a picture and sticks two to four overlays on it.

    Args:
        shape: (y, x) pixels.
        seed: another seed is another picture.
    """
    import torch

    from unetctl.training.damage import DamageOptions, damaged, draw_overlays

    rng = np.random.default_rng([2024, seed])
    clean = (landscape(shape, rng).clip(0, 1) * 255).round().astype(np.uint8)
    largest = max(8, min(shape) // 4)
    options = DamageOptions(overlays=(2, 4), size_px=(max(4, largest // 3), largest))
    overlays = draw_overlays(rng, shape, options, inside=True)
    whole = torch.from_numpy(np.ascontiguousarray(np.moveaxis(clean, -1, 0))[None]).float() / 255
    found = damaged(whole, [overlays])[0][0].mul(255).round().to(torch.uint8).numpy()
    return Scene(np.ascontiguousarray(np.moveaxis(found, 0, -1)), clean)


def landscape(shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """(y, x, 3), 0 to 1: sky with a sun and clouds, ridges one before the other, a meadow."""
    height, width = shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    horizon = height * rng.uniform(0.45, 0.6)
    top, low = np.array([0.25, 0.45, 0.8]), np.array([0.95, 0.8, 0.65])
    picture = top + (low - top) * np.clip(y / horizon, 0, 1)[..., None] ** 1.3
    sun_y, sun_x = rng.uniform(0.15, 0.7) * horizon, rng.uniform(0.1, 0.9) * width
    far = np.hypot(y - sun_y, x - sun_x) / max(6.0, 0.035 * min(shape))
    picture += np.array([1.0, 0.9, 0.6]) * (np.exp(-(far**2)) + 0.25 * np.exp(-far / 6))[..., None]
    clouds = np.clip(_noise(shape, rng, min(shape) / 6, stretch=3.0) - 0.6, 0, 1)[..., None]
    picture += (np.array([1.0, 0.98, 0.96]) - picture) * clouds
    for i in range(_NUM_RIDGES):
        near = i / (_NUM_RIDGES - 1)
        line = horizon + height * (0.12 * i - 0.1) + height * 0.05 * _walk(width, rng, 6 + 10 * i)
        ground = y >= line[None]
        shade = 1 + 0.16 * _noise(shape, rng, 1.0 + 2 * near) + 0.12 * _noise(shape, rng, 8 + 8 * near)
        colour = (_FAR + (_NEAR - _FAR) * near) * shade[..., None] + 0.04 * rng.uniform(-1, 1, 3)
        picture[ground] = colour[ground]
    for _ in range(int(rng.integers(3, 8))):
        _tree(picture, rng, y, x)
    grainy: Floats = picture + rng.normal(0, 0.008, picture.shape)
    return grainy


def _tree(picture: Floats, rng: np.random.Generator, y: Floats, x: Floats) -> None:
    """A trunk and a crown of several discs, on the nearest third."""
    height, width = picture.shape[:2]
    foot_y, foot_x = rng.uniform(0.72, 0.95) * height, rng.uniform(0, width)
    size = height * rng.uniform(0.08, 0.2)
    trunk = (np.abs(x - foot_x) < max(1.0, size / 12)) & (y < foot_y) & (y > foot_y - size)
    picture[trunk] = np.array([0.3, 0.2, 0.12]) * rng.uniform(0.8, 1.2)
    colour = np.array([0.15, 0.38, 0.14]) * rng.uniform(0.7, 1.4, 3)
    for _ in range(5):
        centre = foot_y - size * rng.uniform(0.8, 1.3), foot_x + size * rng.uniform(-0.3, 0.3)
        radius = size * rng.uniform(0.18, 0.35)
        inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
        light = 1 + 0.5 * ((centre[0] - y) + (centre[1] - x)) / (2 * radius)
        picture[inside] = (colour * light[..., None] * rng.uniform(0.85, 1.15))[inside]


def _walk(num: int, rng: np.random.Generator, smooth: float) -> Floats:
    """(num) a smooth random line of mean 0 and deviation about 1."""
    line = ndimage.gaussian_filter1d(rng.normal(size=num + 64), smooth)[:num]
    scaled: Floats = (line - line.mean()) / max(float(line.std()), 1e-9)
    return scaled


def _noise(shape: tuple[int, int], rng: np.random.Generator, sigma_px: float, stretch: float = 1.0) -> Floats:
    """(y, x) smooth random numbers of mean 0 and deviation 1, wider than high by `stretch`."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), (sigma_px, sigma_px * stretch), mode="reflect")
    found: Floats = (field - field.mean()) / max(float(field.std()), 1e-9)
    return found
