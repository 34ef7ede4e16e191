"""Made-up pictures of objects that touch: fluorescent nuclei, and cells in differential interference contrast (DIC).

Nothing in them is copied from a picture. Objects are roundish outlines of random waviness, many of them set beside one
that is there already, so that they touch; one that comes later leaves the pixels of the earlier ones alone.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float64]
Size2 = tuple[int, int]

#: Harmonics of an outline.
_WAVES = 5
#: Share of an object's area that earlier ones may take before it is given up.
_MOST_HIDDEN = 0.3


@dataclass(frozen=True)
class Labelled:
    """A picture and what is in it.

    Attributes:
        grey: (y, x) uint8.
        ids: (y, x) uint16, 0 between the objects.
    """

    grey: npt.NDArray[np.uint8]
    ids: npt.NDArray[np.uint16]


@dataclass(frozen=True)
class _Crowd:
    """How objects lie.

    Attributes:
        radius_px: least and greatest.
        cover: share of the picture that they are to cover.
        beside: share of objects that are set beside another.
        waviness: of outlines, share of the radius.
    """

    radius_px: tuple[float, float]
    cover: float
    beside: float
    waviness: float


_NUCLEI = _Crowd((7.0, 15.0), 0.22, 0.55, 0.06)
_CELLS = _Crowd((34.0, 58.0), 0.6, 0.85, 0.12)


def nuclei(shape: Size2, seed: int) -> Labelled:
    """Bright nuclei of unequal brightness on dark ground, blurred, with photon noise.

    Args:
        shape: (y, x) pixels.
        seed: the same seed and shape give the same picture.
    """
    chance = np.random.default_rng([seed, 11])
    ids, depth = _crowd(shape, _NUCLEI, chance)
    num = int(ids.max())
    brightness = np.concatenate([[0.0], chance.uniform(45, 150, num)])
    chromatin = 1 + 0.22 * _noise(chance, shape, 1.6) + 0.12 * _noise(chance, shape, 4)
    light = 14 + 5 * _noise(chance, shape, max(shape) / 4) + brightness[ids] * (0.72 + 0.28 * depth) * chromatin
    light = np.clip(ndimage.gaussian_filter(light, 1.1), 0, None)
    counted = chance.poisson(light * 1.6) / 1.6 + chance.normal(0, 1.2, shape)
    return Labelled(_as_bytes(counted), ids)


def cells(shape: Size2, seed: int) -> Labelled:
    """Flat cells whose flanks are bright on one side and dark on the other, in grain and uneven light."""
    chance = np.random.default_rng([seed, 12])
    ids, depth = _crowd(shape, _CELLS, chance)
    height = 16 * np.sqrt(depth) * (ids > 0)
    height += (ids > 0) * (1.6 * _noise(chance, shape, 3) + 2.4 * _noise(chance, shape, 7))  # vesicles, nuclei
    height = ndimage.gaussian_filter(height, 1.4)
    angle = chance.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * ndimage.sobel(height, 0) / 8 + np.sin(angle) * ndimage.sobel(height, 1) / 8
    grey = 118 + 24 * slope + 5 * _noise(chance, shape, max(shape) / 5) + 3.5 * _noise(chance, shape, 0.7)
    return Labelled(_as_bytes(grey), ids)


def _crowd(shape: Size2, crowd: _Crowd, chance: np.random.Generator) -> tuple[npt.NDArray[np.uint16], Floats]:
    """Ids, and how deep inside its object each pixel lies: 0 at the rim, 1 in the middle."""
    ids = np.zeros(shape, np.uint16)
    places: list[tuple[float, float, float]] = []
    mean_area = np.pi * (sum(crowd.radius_px) / 2) ** 2
    wanted = max(2, round(crowd.cover * shape[0] * shape[1] / mean_area))
    for _ in range(20 * wanted):
        if len(places) >= wanted:
            break
        radius = chance.uniform(*crowd.radius_px)
        if places and chance.random() < crowd.beside:
            y, x, other = places[int(chance.integers(len(places)))]
            angle, apart = chance.uniform(0, 2 * np.pi), (radius + other) * chance.uniform(0.86, 0.98)
            centre = (y + apart * np.sin(angle), x + apart * np.cos(angle))
        else:
            centre = (chance.uniform(0, shape[0]), chance.uniform(0, shape[1]))
        if not all(-0.3 * radius < c < n + 0.3 * radius for c, n in zip(centre, shape, strict=True)):
            continue
        box, inside = _outline(shape, centre, radius, crowd.waviness, chance)
        free = inside & (ids[box] == 0)
        if not free.any() or free.sum() < (1 - _MOST_HIDDEN) * inside.sum() or ndimage.label(free)[1] != 1:
            continue
        places.append((*centre, radius))
        ids[box][free] = len(places)
    depth = np.zeros(shape)
    for number, found in enumerate(ndimage.find_objects(ids), start=1):
        if found is not None:
            around = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in found)
            own = ids[around] == number
            distance = ndimage.distance_transform_edt(own)
            depth[around][own] = (distance / distance.max())[own]
    return ids, depth


def _outline(
    shape: Size2, centre: tuple[float, float], radius: float, waviness: float, chance: np.random.Generator
) -> tuple[tuple[slice, slice], npt.NDArray[np.bool_]]:
    """A roundish region: where it lies in the picture, and which pixels of that it holds."""
    reach = radius * (1.35 + 2 * waviness)
    rows, columns = (
        slice(max(0, int(c - reach)), min(n, int(c + reach) + 2)) for c, n in zip(centre, shape, strict=True)
    )
    y, x = np.mgrid[rows, columns]
    tilt, stretch = chance.uniform(0, np.pi), chance.uniform(1.0, 1.3)
    dy, dx = y - centre[0], x - centre[1]
    along, across = dx * np.cos(tilt) + dy * np.sin(tilt), dy * np.cos(tilt) - dx * np.sin(tilt)
    along, across = along / stretch, across * stretch
    angle = np.arctan2(across, along)
    edge = np.full(angle.shape, radius)
    for wave in range(2, 2 + _WAVES):
        edge += radius * waviness * chance.normal() / wave * 2 * np.cos(wave * angle + chance.uniform(0, 2 * np.pi))
    return (rows, columns), np.hypot(along, across) < edge


def _noise(chance: np.random.Generator, shape: Size2, sigma_px: float) -> Floats:
    """Smooth noise of deviation 1."""
    smooth = ndimage.gaussian_filter(chance.normal(size=shape), sigma_px, mode="wrap")
    return np.asarray(smooth / max(float(smooth.std()), 1e-12))


def _as_bytes(grey: Floats) -> npt.NDArray[np.uint8]:
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)
