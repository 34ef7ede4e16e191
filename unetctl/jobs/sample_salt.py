"""Made-up seismic sections with salt: layered reflectors, folds, faults, and bodies that scatter what comes back.

Nothing in them is copied from a survey. A section is a reflectivity that depends on depth, bent by folds, cut by faults and
dragged up along the flanks of salt; in the salt the layers are gone and a quieter, chaotic texture is left. All chance
comes from the seed and the number of the section.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Plane = npt.NDArray[np.float32]

#: Share of sections without salt, and of those that lie in salt altogether; about those of the surveys.
EMPTY_SHARE, FULL_SHARE = 0.35, 0.03
#: Every so manieth section is only for testing.
_TEST_EVERY = 5
#: Samples of a layer's reflectivity for every pixel of depth.
_FINE = 4


@dataclass(frozen=True)
class Section:
    """One picture.

    Attributes:
        grey: (y, x) uint8, depth downwards.
        salt: (y, x) True in salt.
    """

    grey: npt.NDArray[np.uint8]
    salt: npt.NDArray[np.bool_]


def section(shape: tuple[int, int], seed: int, i: int) -> Section:
    """Section number `i` of a survey.

    Args:
        shape: (y, x), pixels.
        seed: of the survey.
        i: the same survey and number give the same section.
    """
    chance = np.random.default_rng([seed, i])
    distance = _salt_distance(shape, chance)
    salt = distance > 0
    layers = _layers(shape, chance, distance)
    chaos = 0.75 * _noise(chance, shape, (0.8, 1.3)) + 0.5 * _noise(chance, shape, (2.0, 3.5))
    body = chance.uniform(0.25, 0.7) * chaos + chance.normal(0, 0.35)
    inside = _step(distance / chance.uniform(0.6, 2.0))
    picture = layers + (body - layers) * inside
    # The top of salt reflects strongly, its flanks and its base hardly.
    upwards = np.clip(np.gradient(ndimage.gaussian_filter(distance, 2.0), axis=0), 0, 1)
    rim = np.exp(-((distance / chance.uniform(0.8, 1.8)) ** 2)) * (0.25 + upwards)
    picture += chance.uniform(0.5, 2.2) * rim
    picture += chance.uniform(0.05, 0.3) * _noise(chance, shape, (0.5, 0.7))
    picture = ndimage.gaussian_filter(picture, chance.uniform(0.3, 0.8))
    picture *= 1 + 0.3 * _noise(chance, shape, (25, 25))  # where the waves got through better
    grey = chance.uniform(95, 150) + chance.uniform(18, 36) * picture
    return Section(np.clip(np.rint(grey), 0, 255).astype(np.uint8), salt)


def _salt_distance(shape: tuple[int, int], chance: np.random.Generator) -> Plane:
    """Distance to the salt's border, pixels, positive inside; large and of one sign where there is no border."""
    kind = chance.random()
    if kind < EMPTY_SHARE + FULL_SHARE:
        return np.full(shape, -1e3 if kind < EMPTY_SHARE else 1e3, np.float32)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    size = min(shape)
    bend = size * 0.06 * _noise(chance, shape, (9, 9))
    if chance.random() < 0.6:  # a diapir or a sheet that comes from below
        top = shape[0] * chance.uniform(0.1, 0.85)
        middle, width = shape[1] * chance.uniform(-0.1, 1.1), shape[1] * chance.uniform(0.25, 1.4)
        height = shape[0] * chance.uniform(0.2, 1.2)
        found = y - (top + height * ((x - middle) / width) ** 2) + bend
    else:  # a body of its own
        centre = chance.uniform(0.05, 0.95, 2) * shape
        long, short = size * chance.uniform(0.2, 0.55), size * chance.uniform(0.1, 0.4)
        angle = chance.uniform(-0.6, 0.6)
        a = (x - centre[1]) * np.cos(angle) + (y - centre[0]) * np.sin(angle)
        b = (y - centre[0]) * np.cos(angle) - (x - centre[1]) * np.sin(angle)
        found = (1 - np.sqrt((a / long) ** 2 + (b / short) ** 2)) * short + bend
    salt = found > 0
    if not salt.any() or salt.all():
        return np.full(shape, -1e3 if not salt.any() else 1e3, np.float32)
    outside = ndimage.distance_transform_edt(~salt)
    within = ndimage.distance_transform_edt(salt)
    # Half a pixel: the border runs between pixels.
    return np.asarray(np.where(salt, within - 0.5, 0.5 - outside), np.float32)


def _layers(shape: tuple[int, int], chance: np.random.Generator, distance: Plane) -> Plane:
    """The bedded rock around the salt, deviation about 1."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    depth = y + chance.normal(0, 0.25) * (x - shape[1] / 2)
    depth += chance.uniform(1, 6) * _noise(chance, shape, (30, 22)) + chance.uniform(0.2, 1.0) * _noise(
        chance, shape, (8, 10)
    )
    for _ in range(chance.poisson(0.9)):
        angle, at = chance.normal(0, 0.35), chance.uniform(0, shape[1])
        across = (x - at) * np.cos(angle) + (y - shape[0] / 2) * np.sin(angle)
        depth += chance.normal(0, 5) * _step(across / 0.7)
    near = np.exp(-np.clip(-distance, 0, None) / chance.uniform(5, 14))
    depth += chance.uniform(0, 8) * near  # beds are dragged up along the flanks
    num = int((shape[0] * 3) * _FINE)
    strength = chance.standard_normal(num) * (chance.random(num) < chance.uniform(0.1, 0.5))
    trace = ndimage.gaussian_filter1d(strength, chance.uniform(1.2, 2.6) * _FINE)
    trace -= ndimage.gaussian_filter1d(trace, 3 * _FINE)
    trace /= max(float(trace.std()), 1e-6)
    found = ndimage.map_coordinates(trace, [(depth + shape[0]) * _FINE], order=1, mode="reflect")
    loud = 1 + 0.5 * ndimage.gaussian_filter1d(chance.standard_normal(num), 10 * _FINE) * np.sqrt(10 * _FINE)
    found *= np.clip(ndimage.map_coordinates(loud, [(depth + shape[0]) * _FINE], order=1, mode="reflect"), 0.15, 2)
    return np.asarray(found, np.float32)


def _noise(chance: np.random.Generator, shape: tuple[int, int], sigma: tuple[float, float]) -> Plane:
    """Smoothed white noise of deviation 1, (y, x) float32."""
    white = chance.standard_normal(shape, np.float32)
    smooth = ndimage.gaussian_filter(white, sigma, mode="wrap")
    return np.asarray(smooth / max(float(smooth.std()), 1e-6), np.float32)


def _step(x: Plane) -> Plane:
    """From 0 to 1, smoothly."""
    return np.asarray(0.5 + 0.5 * np.tanh(x), np.float32)


def salt_files(num: int, shape: tuple[int, int], seed: int) -> Iterator[tuple[str, bytes]]:
    """A folder as that of the challenge: ``train/images``, ``train/masks``, ``depths.csv``; and the same of ``test``.

    Pictures are grey, saved as colour; masks are uint16 with 0 and 65535, or uint8 where they are empty.

    Args:
        num: sections, a fifth of them in ``test``.
        shape: (y, x) of each, pixels.
        seed: of the survey.
    """
    from unetctl.sinks.page import Page
    from unetctl.sinks.pages import encode_page

    table = ["id,z"]
    for i in range(num):
        one = section(shape, seed, i)
        name, folder = f"{i:04d}", "test" if i % _TEST_EVERY == _TEST_EVERY - 1 else "train"
        mask = one.salt.astype(np.uint16) * np.uint16(65535) if one.salt.any() else np.zeros(shape, np.uint8)
        yield f"{folder}/images/{name}.png", encode_page(Page(np.repeat(one.grey[..., None], 3, 2), None), "png")
        yield f"{folder}/masks/{name}.png", encode_page(Page(mask, None), "png")
        table.append(f"{name},{int(np.random.default_rng([seed, i, 1]).integers(50, 960))}")
    yield "depths.csv", ("\n".join(table) + "\n").encode()
