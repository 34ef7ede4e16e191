"""A made-up serial-section electron micrograph: cells, membranes, organelles and the faults of real sections.

Nothing in it is copied from a picture. Cells are the regions of a power diagram (Aurenhammer 1987) in bent
coordinates; they drift from slice to slice as neurites do. All chance comes from the seed: each slice is drawn on its
own, in memory for one slice, and is the same whatever is drawn before it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

Floats = npt.NDArray[np.float64]
Plane = npt.NDArray[np.float32]

#: Cells reach this far over the picture's edge, pixels.
_BEYOND = 120
#: Radii of cells, pixels of 4 nm, and how many of each are tried per million pixels,
#: large ones first; small ones fill the gaps.
_RADII = ((80, 4), (58, 14), (40, 60), (28, 260), (19, 900), (13, 2600))
#: Grey values before noise: of membranes, of the fluid of cells, and what one cell differs from another.
_MEMBRANE, _FLUID, _FLUID_SPREAD = 52.0, 163.0, 10.0
#: Radius of a cell's corners, pixels.
_ROUND = 2.2
#: Rows that are worked on at once, to bound the memory of the nearest-cell search.
_ROWS = 128


@dataclass(frozen=True)
class Slice:
    """One section.

    Attributes:
        grey: (y, x) uint8, dark membranes.
        interior: (y, x) uint8, 255 inside cells, 0 on membranes.
    """

    grey: npt.NDArray[np.uint8]
    interior: npt.NDArray[np.uint8]


class Tissue:
    """A block of tissue that can be cut into slices.

    Args:
        shape: (y, x) of a slice, pixels.
        seed: the same seed and shape give the same tissue.
    """

    def __init__(self, shape: tuple[int, int], seed: int) -> None:
        self.shape, self._seed = shape, seed
        chance = np.random.default_rng([seed, 1])
        self._place_cells(chance)
        num = len(self._tone)
        self._drift = (
            chance.uniform(6, 22, (num, 2)),
            chance.uniform(18, 60, (num, 2)),
            chance.uniform(0, 2 * np.pi, (num, 2)),
        )
        self._organelles = chance.uniform(0, 1, (num, 8))
        self._bends = [
            _DriftingNoise(shape, chance, size, period) for size, period in ((60, 26), (60, 26), (18, 9), (18, 9))
        ]
        self._widths = _DriftingNoise(shape, chance, 24, 7)
        self._smears = _DriftingNoise(shape, chance, 28, 6)
        self._shade = _DriftingNoise(shape, chance, 220, 5)
        self._knife = chance.uniform(0, np.pi)

    def slices(self, num: int) -> Iterator[Slice]:
        """The first `num` slices, drawn one at a time."""
        for z in range(num):
            yield self.slice(z)

    def slice(self, z: int) -> Slice:
        """Slice number `z`."""
        chance = np.random.default_rng([self._seed, 2, z])
        cell, edge, near = self._cells(z)
        width = 2.8 + 0.5 * self._widths.at(z)  # half of a membrane, 5 to 8 px in all
        smear = np.clip(self._smears.at(z) - 1.1, 0, 1.0) * np.exp(-((edge / 11) ** 2))
        membrane = _step((width - edge) / 0.6)
        fluid = (_FLUID + self._tone[cell]).astype(np.float32)
        fluid += 13 * _noise(chance, self.shape, 2.2) + 9 * _noise(chance, self.shape, 5)
        self._draw_dots(fluid, chance, edge)
        self._draw_mitochondria(fluid, z, cell, edge, near)
        grey = fluid + (_MEMBRANE - fluid) * membrane
        grey -= 60 * smear * (1 - 0.6 * membrane)
        grey = ndimage.gaussian_filter(grey, 0.9)
        self._draw_faults(grey, chance)
        grey += 19 * _noise(chance, self.shape, 0.8)
        grey *= 1 + 0.05 * self._shade.at(z)
        gain, offset = 1 + 0.05 * chance.standard_normal(), 7 * chance.standard_normal()
        grey = (grey - 126) * gain + 124 + offset
        return Slice(np.clip(np.rint(grey), 0, 255).astype(np.uint8), np.where(edge > width, 255, 0).astype(np.uint8))

    def _place_cells(self, chance: np.random.Generator) -> None:
        """Large cells first, small ones into the gaps; some are rows of circles: neurites that run in the plane."""
        size = np.array(self.shape) + 2 * _BEYOND
        centres, radii, owners = np.zeros((0, 2)), np.zeros(0), np.zeros(0, np.int64)
        num_cells = 0
        for radius, density in _RADII:
            for _ in range(max(1, int(density * size.prod() / 1e6))):
                chain = self._chain(chance, size, radius)
                if len(centres):
                    apart = np.hypot(*(chain[:, None] - centres[None]).transpose(2, 0, 1))
                    if (apart < 0.86 * (radius + radii)).any():
                        continue
                centres = np.concatenate([centres, chain])
                radii = np.concatenate([radii, np.full(len(chain), radius * chance.uniform(0.85, 1.1))])
                owners = np.concatenate([owners, np.full(len(chain), num_cells)])
                num_cells += 1
        self._centres, self._radii, self._owners = centres - _BEYOND, radii, owners
        self._tone = chance.normal(0, _FLUID_SPREAD, num_cells)
        self._cell_radius = np.zeros(num_cells)
        np.maximum.at(self._cell_radius, owners, radii)
        self._first = np.array([np.flatnonzero(owners == i)[0] for i in range(num_cells)])

    @staticmethod
    def _chain(chance: np.random.Generator, size: npt.NDArray[np.int64], radius: float) -> Floats:
        start = chance.uniform(0, size, 2)
        num = int(chance.integers(3, 9)) if radius < 50 and chance.random() < 0.3 else 1
        angle, points = chance.uniform(0, 2 * np.pi), [start]
        for _ in range(num - 1):
            angle += chance.normal(0, 0.4)
            points.append(points[-1] + 0.9 * radius * np.array([np.sin(angle), np.cos(angle)]))
        return np.array(points)

    def _cells(self, z: int) -> tuple[npt.NDArray[np.int64], Plane, Floats]:
        """Cell number and distance to the cell's edge (px) at every pixel, and where the circles' centres are now."""
        amplitude, period, phase = self._drift
        moved = (amplitude * np.sin(2 * np.pi * z / period + phase))[self._owners]
        centres = self._centres + moved
        # A power diagram is a plain nearest-point search one dimension higher.
        lifted = np.column_stack([centres, np.sqrt(self._radii.max() ** 2 - self._radii**2)])
        tree = cKDTree(lifted)
        cell, edge = np.empty(self.shape, np.int64), np.empty(self.shape, np.float32)
        bends = [bend.at(z) for bend in self._bends]
        num_near = min(8, len(centres))
        for top in range(0, self.shape[0], _ROWS):
            rows = slice(top, min(top + _ROWS, self.shape[0]))
            y, x = np.mgrid[rows, : self.shape[1]].astype(np.float64)
            y += 13 * bends[0][rows] + 3.2 * bends[2][rows]
            x += 13 * bends[1][rows] + 3.2 * bends[3][rows]
            points = np.stack([y, x, np.zeros_like(y)], -1).reshape(-1, 3)
            distance, index = tree.query(points, k=num_near)
            own = self._owners[index[:, :1]]
            between = np.hypot(*(centres[index] - centres[index[:, :1]]).transpose(2, 0, 1))
            gap = (distance**2 - distance[:, :1] ** 2) / (2 * np.maximum(between, 1))
            gap[self._owners[index] == own] = np.inf
            cell[rows] = own.reshape(y.shape)
            # A soft minimum rounds the corners, as the tension of a membrane does.
            edge[rows] = (-_ROUND * np.log(np.exp(-np.minimum(gap, 400) / _ROUND).sum(1))).reshape(y.shape)
        return cell, edge, centres

    def _draw_mitochondria(
        self, fluid: Plane, z: int, cell: npt.NDArray[np.int64], edge: Plane, centres: Floats
    ) -> None:
        """Double-walled ellipses with folds inside, in about half of the larger cells; each spans several slices."""
        for i in np.flatnonzero((self._cell_radius > 26) & (self._organelles[:, 0] < 0.6)):
            u = self._organelles[i]
            period = 16 + 14 * u[1]
            along = (z - u[2] * period + period / 2) % period - period / 2
            fullness = 1 - (along / (5 + 3 * u[3])) ** 2
            if fullness <= 0.1:
                continue
            long = (0.5 + 0.22 * u[4]) * self._cell_radius[i] * np.sqrt(fullness)
            short = long * (0.62 + 0.35 * u[5])
            centre = centres[self._first[i]] + (u[6:8] - 0.5) * 0.5 * self._cell_radius[i]
            reach = int(long) + 4
            box = _clipped(centre, reach, self.shape)
            if box is None:
                continue
            y, x = np.mgrid[box]
            angle = 2 * np.pi * u[5] * 7
            a = (y - centre[0]) * np.sin(angle) + (x - centre[1]) * np.cos(angle)
            b = (y - centre[0]) * np.cos(angle) - (x - centre[1]) * np.sin(angle)
            inward = (1 - np.sqrt((a / long) ** 2 + (b / short) ** 2)) * short
            inward = np.minimum(inward, np.where(cell[box] == i, edge[box] - 7, -9))
            folds = np.sin(2 * np.pi * (a + 2.5 * np.sin(b / 7 + 9 * u[6])) / (7.5 + 2 * u[7]))
            body = 92 + 22 * np.clip(1.6 * folds, -1, 1)
            body = np.where(inward < 3.2, 66.0, np.where(inward < 5.6, 128.0, body))
            inside = _step((inward + 0.5) / 0.6)
            fluid[box] += (body - fluid[box]) * inside

    def _draw_dots(self, fluid: Plane, chance: np.random.Generator, edge: Plane) -> None:
        """Vesicles (rings of 40 nm, in crowds), microtubules and granules, only inside cells."""
        area = self.shape[0] * self.shape[1] / 512**2
        for _ in range(chance.poisson(16 * area)):
            crowd = chance.uniform(0, self.shape, 2)
            for _ in range(int(chance.integers(4, 16))):
                at, radius = crowd + chance.normal(0, 16, 2), chance.uniform(3.4, 5.2)
                _stamp(fluid, edge, at, 9, partial(_ring, radius=radius, width=1.4, depth=62), 8)
        for _ in range(chance.poisson(260 * area)):
            depth, sigma = chance.uniform(35, 85), chance.uniform(1.3, 2.4)
            _stamp(
                fluid,
                edge,
                chance.uniform(0, self.shape, 2),
                6,
                partial(_spot, radius=sigma * 1.414, depth=depth, power=2),
                5,
            )
        for _ in range(chance.poisson(9 * area)):
            radius = chance.uniform(7, 13)
            _stamp(
                fluid,
                edge,
                chance.uniform(0, self.shape, 2),
                18,
                partial(_ring, radius=radius, width=1.6, depth=62),
                17,
            )

    def _draw_faults(self, grey: Plane, chance: np.random.Generator) -> None:
        """Knife marks, all slices cut in one direction, and specks of stain."""
        across = np.array([np.cos(self._knife), -np.sin(self._knife)])
        y, x = np.ogrid[: self.shape[0], : self.shape[1]]
        middle = np.array(self.shape) / 2
        for _ in range(1 + chance.poisson(0.8)):
            offset, width = chance.uniform(-0.7, 0.7) * max(self.shape), chance.uniform(0.8, 2.6)
            strength = chance.choice([-1, 1]) * chance.uniform(14, 30)
            tilt = chance.normal(0, 0.02)
            distance = (y - middle[0]) * (across[0] + tilt) + (x - middle[1]) * across[1] - offset
            grey += (strength * np.exp(-((distance / width) ** 2))).astype(np.float32)
        for _ in range(chance.poisson(2 * self.shape[0] * self.shape[1] / 512**2)):
            sigma = chance.uniform(1.5, 4)
            _stamp(grey, None, chance.uniform(0, self.shape, 2), 14, partial(_spot, radius=sigma, depth=95, power=4), 0)


class _DriftingNoise:
    """A smooth random field of deviation 1 that changes slowly from slice to slice and never ends.

    Args:
        shape: (y, x).
        chance: where the field comes from.
        size: of its features, pixels.
        period: slices after which it has turned once; the field decorrelates within a quarter of that.
    """

    def __init__(self, shape: tuple[int, int], chance: np.random.Generator, size: float, period: float) -> None:
        self._shape, self._size, self._period = shape, size, period * 4
        grid = tuple(int(n / size) + 5 for n in shape)
        self._knots = chance.standard_normal((2, *grid))
        self._phase = chance.uniform(0, 2 * np.pi, grid)

    def at(self, z: int) -> Plane:
        """The field at slice `z`, (y, x) float32."""
        turn = 2 * np.pi * z / self._period + self._phase
        knots = np.cos(turn) * self._knots[0] + np.sin(turn) * self._knots[1]
        y, x = ((np.arange(n) / self._size + 1.5) for n in self._shape)
        field = _spline(y, knots.shape[0]) @ knots @ _spline(x, knots.shape[1]).T * 1.5
        return np.asarray(field, np.float32)


def _spline(at: Floats, num_knots: int) -> Floats:
    """Weights (len(at), num_knots) of cubic B-splines with knots at 0, 1, 2 ..."""
    r = np.abs(at[:, None] - np.arange(num_knots)[None])
    weights = np.where(r < 1, 2 / 3 - r**2 + r**3 / 2, np.where(r < 2, (2 - r) ** 3 / 6, 0.0))
    return weights.astype(np.float64)


def _step(x: Plane) -> Plane:
    """From 0 to 1, smoothly."""
    return np.asarray(0.5 + 0.5 * np.tanh(x / 2), np.float32)


def _noise(chance: np.random.Generator, shape: tuple[int, int], sigma: float) -> Plane:
    """Smoothed white noise of deviation 1, (y, x) float32."""
    white = chance.standard_normal(shape, np.float32)
    return np.asarray(ndimage.gaussian_filter(white, sigma, mode="wrap") * (2 * sigma * np.sqrt(np.pi)), np.float32)


def _clipped(centre: Floats, reach: int, shape: tuple[int, int]) -> tuple[slice, slice] | None:
    """The square around `centre` inside the picture; None if they do not meet."""
    low = [max(0, int(np.floor(c)) - reach) for c in centre]
    high = [min(n, int(np.floor(c)) + reach + 1) for c, n in zip(centre, shape, strict=True)]
    if low[0] >= high[0] or low[1] >= high[1]:
        return None
    return slice(low[0], high[0]), slice(low[1], high[1])


def _ring(r: Floats, radius: float, width: float, depth: float) -> Floats:
    """A dark ring, grey values at distance `r` from its centre."""
    return np.asarray(-depth * np.exp(-(((r - radius) / width) ** 2)))


def _spot(r: Floats, radius: float, depth: float, power: int) -> Floats:
    """A dark spot, grey values at distance `r` from its centre; a higher power has a sharper edge."""
    return np.asarray(-depth * np.exp(-((r / radius) ** power)))


def _stamp(
    plane: Plane, edge: Plane | None, centre: Floats, reach: int, profile: Callable[[Floats], Floats], room: float
) -> None:
    """Adds a round mark, grey values by distance from its centre, if the cell's edge is `room` pixels away there."""
    box = _clipped(centre, reach, (plane.shape[0], plane.shape[1]))
    if box is None:
        return
    if edge is not None:
        at = tuple(min(max(int(c), 0), n - 1) for c, n in zip(centre, edge.shape, strict=True))
        if edge[at] < room:
            return
    y, x = np.mgrid[box]
    plane[box] += profile(np.hypot(y - centre[0], x - centre[1]))
