"""Training planes in memory, and random crops of them with true context.

    Plane(name, pixels (C, Y, X), target (K, Y, X), weights (1, Y, X) | None)
    PlaneSet(planes, core=(y, x), halo=(y, x), margin=(y, x), overhang=0.25, focus=0)
    PlaneSet.sample(step_seed, num, first=0) -> Crops(pixels, targets, weights, rngs)
    PlaneSet.num_crops_per_epoch; stack_neighbours(planes, context_slices) -> neighbouring planes as channels

A crop about its core, per axis (the halo is the network's, the margin what augmentation may look at beyond):

    |- margin -|- halo -|------ core ------|- halo -|- margin -|      pixels
    |          |- margin -|---- core ----|- margin -|          |      targets and weights

All planes stay in memory: float32 pixels, the target as given, float32 weights (9 bytes a pixel for one
channel with weights).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from unetctl.geometry.mirror import mirror_indices
from unetctl.training.augment import sample_rngs

Size2 = tuple[int, int]

#: Side of the squares by which places with foreground are remembered, pixels.
_CELL_PX = 32


@dataclass(frozen=True)
class Plane:
    """One annotated plane.

    Attributes:
        name: for messages and previews, e.g. "train[3]".
        pixels: (C, Y, X) float32, normalised.
        target: (K, Y, X) class indices (uint8), masks or ids.
        weights: (1, Y, X) float32 loss weights; None counts as 1 everywhere.
        objects: (Y, X) ids of labelled objects, 0 background, for weight maps and scores; None if there are none.
    """

    name: str
    pixels: npt.NDArray[np.float32]
    target: npt.NDArray[np.generic]
    weights: npt.NDArray[np.float32] | None = None
    objects: npt.NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        size = self.pixels.shape[-2:]
        for kind, array in (("pixels", self.pixels), ("target", self.target), ("weights", self.weights)):
            if array is not None and (array.ndim != 3 or array.shape[-2:] != size):
                expected = f"(channels, {size[0]}, {size[1]})"
                raise ValueError(f"{kind} of plane {self.name} have shape {array.shape}: expected {expected}")

    @property
    def size(self) -> Size2:
        """(y, x) pixels."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    def __str__(self) -> str:
        return f"{self.name} {self.size[0]}x{self.size[1]}"


@dataclass(frozen=True)
class Crops:
    """A batch before augmentation.

    Attributes:
        pixels: (N, C, core + 2 * (halo + margin)) float32.
        targets: (N, K, core + 2 * margin), dtype of the planes' targets.
        weights: (N, 1, core + 2 * margin) float32, or None if no plane has weights.
        rngs: each sample's generator for `augment`.
        places: (i_plane, y, x) of each core's first pixel, which may lie outside the plane.
    """

    pixels: Tensor
    targets: Tensor
    weights: Tensor | None
    rngs: tuple[np.random.Generator, ...]
    places: tuple[tuple[int, int, int], ...]


def _cut(array: npt.NDArray[np.generic], start: Size2, shape: Size2) -> npt.NDArray[np.generic]:
    """(C, *shape) of `array` (C, Y, X) from `start`, mirrored at the plane's borders."""
    stops = [a + n for a, n in zip(start, shape, strict=True)]
    size = array.shape[-2:]
    if min(start) >= 0 and all(stop <= n for stop, n in zip(stops, size, strict=True)):
        return array[:, start[0] : stops[0], start[1] : stops[1]]
    rows = mirror_indices(start[0], stops[0], size[0])
    columns = mirror_indices(start[1], stops[1], size[1])
    # one axis after the other: whole rows are copied, five times as fast as one fancy index over both
    return array.take(rows, axis=1).take(columns, axis=2)


class PlaneSet:
    """Random crops of annotated planes.

    Every pixel of the set is about equally likely: planes are drawn by their area, cores uniformly in the
    plane. A core may overhang the plane's border by a share of its size (mirrored there, pixels and targets
    alike), else the rims, which are predicted as often as anything else, would hardly ever be trained.

    Args:
        planes: at least one, all with the same number of channels.
        core: (y, x) pixels whose output enters the loss: of a valid network its output size, of a same-size
            one the tile less whatever rim is not to count.
        halo: (y, x) context per side that the network sees around the core.
        margin: (y, x) context per side for augmentation (`augment.margin_for` of the tile core + 2 * halo).
        overhang: share of the core, 0..0.5, that may lie outside.
        shares: one relative weight a plane beside its area; None: all 1.
        focus: share of crops, 0..1, whose core lies about a place with foreground (a target above 0), every such place
            equally likely, faint or dense, or about an object, all equally likely, large or small; where the plane ends the
            core is moved in.

    Raises:
        ValueError: if the planes do not fit each other.
    """

    def __init__(
        self,
        planes: Sequence[Plane],
        core: Size2,
        halo: Size2 = (0, 0),
        margin: Size2 = (0, 0),
        overhang: float = 0.25,
        shares: Sequence[float] | None = None,
        focus: float = 0.0,
    ) -> None:
        if not planes:
            raise ValueError("a plane set without planes")
        if not 0 <= overhang <= 0.5:
            raise ValueError(f"overhang is {overhang}: expected a share of the core from 0 to 0.5")
        if not 0 <= focus <= 1:
            raise ValueError(f"focus is {focus}: expected a share of the crops from 0 to 1")
        layouts = {(p.pixels.shape[0], p.target.shape[0], p.target.dtype) for p in planes}
        if len(layouts) > 1:
            raise ValueError(f"planes differ in channels or target type: {sorted(map(str, layouts))}")
        self.planes = tuple(planes)
        self.core, self.halo, self.margin, self.overhang = core, halo, margin, overhang
        areas = np.array([p.size[0] * p.size[1] for p in planes], np.float64)
        if shares is not None:
            areas = areas * np.asarray(shares, np.float64)
        self._ends = np.cumsum(areas) / areas.sum()
        self.focus = focus
        self._places = _foreground_places(planes) if focus else np.empty((0, 3), np.int64)
        of_plane = areas / np.array([p.size[0] * p.size[1] for p in planes])  # the shares, or 1
        chances = of_plane[self._places[:, 0]]
        self._place_ends = np.cumsum(chances) / max(float(chances.sum()), 1e-300)
        self._has_weights = any(p.weights is not None for p in planes)

    @property
    def tile(self) -> Size2:
        """(y, x) of what the network sees: core + 2 * halo."""
        return self.core[0] + 2 * self.halo[0], self.core[1] + 2 * self.halo[1]

    @property
    def num_crops_per_epoch(self) -> int:
        """Cores that it takes to cover the area of all planes once, at least one a plane."""
        return sum(max(1, math.ceil(p.size[0] * p.size[1] / (self.core[0] * self.core[1]))) for p in self.planes)

    @property
    def num_bytes(self) -> int:
        """Memory of the planes' arrays."""
        arrays = [a for p in self.planes for a in (p.pixels, p.target, p.weights) if a is not None]
        return sum(a.nbytes for a in arrays)

    def __len__(self) -> int:
        return len(self.planes)

    def __str__(self) -> str:
        tile, memory = "x".join(map(str, self.tile)), f"{self.num_bytes / 2**20:.0f} MiB"
        return f"{len(self)} planes, tiles of {tile}, {self.num_crops_per_epoch} crops an epoch, {memory}"

    def place(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """A random core: (i_plane, y, x) of its first pixel."""
        if len(self._places) and rng.random() < self.focus:
            return self._focused(rng)
        i_plane = min(_drawn(self._ends, rng), len(self.planes) - 1)
        start = []
        for size, core in zip(self.planes[i_plane].size, self.core, strict=True):
            over = int(self.overhang * core)
            # a plane smaller than the core is seen whole, wherever it lies in the core
            low, high = min(0, size - core) - over, max(0, size - core) + over
            start.append(int(rng.integers(low, high + 1)))
        return i_plane, start[0], start[1]

    def _focused(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """A core about a place with foreground."""
        i_place = min(_drawn(self._place_ends, rng), len(self._places) - 1)
        i_plane, *corner = (int(v) for v in self._places[i_place])
        start = []
        for at, size, core in zip(corner, self.planes[i_plane].size, self.core, strict=True):
            centre = at + int(rng.integers(0, _CELL_PX))
            over = int(self.overhang * core)
            low, high = min(0, size - core) - over, max(0, size - core) + over
            start.append(min(max(centre - core // 2, low), high))
        return i_plane, start[0], start[1]

    def cut(
        self, i_plane: int, y: int, x: int
    ) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic], npt.NDArray[np.generic] | None]:
        """The core at (y, x) of a plane: pixels, target and weights with rims (see the top)."""
        plane = self.planes[i_plane]
        inner, inner_shape = self._around((y, x), self.margin)
        outer, outer_shape = self._around((y, x), (self.margin[0] + self.halo[0], self.margin[1] + self.halo[1]))
        weights = None if plane.weights is None else _cut(plane.weights, inner, inner_shape)
        return _cut(plane.pixels, outer, outer_shape), _cut(plane.target, inner, inner_shape), weights

    def _around(self, start: Size2, rim: Size2) -> tuple[Size2, Size2]:
        return (start[0] - rim[0], start[1] - rim[1]), (self.core[0] + 2 * rim[0], self.core[1] + 2 * rim[1])

    def sample(self, step_seed: Sequence[int], num: int, first: int = 0) -> Crops:
        """Crops `first` .. `first + num - 1` of a step.

        Each crop depends on `step_seed` and its own index alone: a resumed run sees the same crops, and
        several processes that share a step's batch see together what one would.

        Args:
            step_seed: non-negative integers that name the step, e.g. (seed, epoch, step).
            num: crops to draw.
            first: index of the first one in the step's whole batch.
        """
        places = tuple(self.place(np.random.default_rng([*step_seed, i, 0])) for i in range(first, first + num))
        cuts = [self.cut(*place) for place in places]
        pixels = torch.from_numpy(np.stack([c[0] for c in cuts]))
        targets = torch.from_numpy(np.stack([c[1] for c in cuts]))
        weights = None
        if self._has_weights:
            size = cuts[0][1].shape[-2:]
            weights = torch.from_numpy(
                np.stack([np.ones((1, *size), np.float32) if c[2] is None else c[2] for c in cuts])
            )
        return Crops(pixels, targets, weights, tuple(sample_rngs(step_seed, num, first)), places)


def _drawn(ends: npt.NDArray[np.float64], rng: np.random.Generator) -> int:
    return int(np.searchsorted(ends, rng.random(), side="right"))


def _foreground_places(planes: Sequence[Plane]) -> npt.NDArray[np.int64]:
    """(n, 3): plane, y, x of the first pixel of every square cell that holds foreground; of objects one about each middle."""
    found = []
    for i_plane, plane in enumerate(planes):
        if plane.objects is not None:
            numbers = np.unique(plane.objects[plane.objects > 0])
            middles = np.array(ndimage.center_of_mass(plane.objects > 0, plane.objects, numbers)).reshape(-1, 2)
            corners = np.rint(middles).astype(np.int64) - _CELL_PX // 2
            found.append(np.concatenate([np.full((len(corners), 1), i_plane), corners], 1))
            continue
        is_there = np.greater(plane.target, 0).any(0)
        for i_axis in range(2):
            starts = np.arange(0, is_there.shape[i_axis], _CELL_PX)
            is_there = np.logical_or.reduceat(is_there, starts, axis=i_axis)
        y, x = np.nonzero(is_there)
        found.append(np.stack([np.full(len(y), i_plane), y * _CELL_PX, x * _CELL_PX], 1))
    return np.concatenate(found).astype(np.int64)


def stack_neighbours(planes: Sequence[npt.NDArray[np.float32]], context_slices: int) -> list[npt.NDArray[np.float32]]:
    """Neighbouring planes of one volume as channels, for networks that see several planes at once.

    Args:
        planes: consecutive planes of a volume, each (C, Y, X), from its first to its last.
        context_slices: planes seen at once, odd, the middle one is predicted (`input.context_slices`).

    Returns:
        For every plane (C * context_slices, Y, X): lowest plane first, mirrored at the volume's ends as at
        prediction.
    """
    reach = context_slices // 2
    stacked = []
    for z in range(len(planes)):
        around = mirror_indices(z - reach, z + reach + 1, len(planes))
        stacked.append(np.concatenate([planes[int(i)] for i in around], axis=0))
    return stacked
