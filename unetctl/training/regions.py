"""One annotated picture alone, parted by region: most of it trains, a strip of it chooses the weights.

parted(plane, share) -> Parts(train, val, train_region, val_region) | None
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.training.crops import Plane

#: A strip is at least so wide, and the rest at least three times as wide.
_LEAST_PX = 32
#: Of so small a set, at least this share is held out: less would say nothing.
_LEAST_SHARE = 0.2


@dataclass(frozen=True)
class Parts:
    """A picture in two.

    Attributes:
        train, val: the larger part and the strip.
        train_region, val_region: where they lie, as "rows 0:400" or "columns 0:320"; the last number is not included.
    """

    train: Plane
    val: Plane
    train_region: str
    val_region: str

    def __str__(self) -> str:
        return f"one picture alone: its {self.val_region} are held out to choose the best weights by"


def parted(plane: Plane, share: float) -> Parts | None:
    """The picture without a strip at one end of its longer side, and that strip.

    Of the two ends the one is taken that holds more of the classes beside the background or, if both do, whose labels are more like
    those of the whole picture.

    Args:
        plane: the only one there is.
        share: of the picture to hold out, 0..1; a fifth is taken at least.

    Returns:
        None if the picture is too small to be parted.
    """
    axis = int(np.argmax(plane.size))
    length = plane.size[axis]
    strip = max(_LEAST_PX, round(length * max(share, _LEAST_SHARE)))
    if length < 4 * _LEAST_PX or strip > length // 2:
        return None
    whole = _shares(plane.target, int(plane.target.max()) + 1)
    ends = (0, strip), (length - strip, length)
    start, stop = min(ends, key=lambda end: _unlike(_shares(_cut(plane.target, axis, *end), len(whole)), whole))
    rest = (strip, length) if start == 0 else (0, start)
    what = "rows" if axis == 0 else "columns"
    regions = [f"{what} {a}:{b}" for a, b in (rest, (start, stop))]
    return Parts(_part(plane, axis, *rest, regions[0]), _part(plane, axis, start, stop, regions[1]), *regions)


def _unlike(shares: npt.NDArray[np.float64], whole: npt.NDArray[np.float64]) -> tuple[int, float]:
    return int(((shares == 0) & (whole > 0))[1:].sum()), float(np.abs(shares - whole).sum())


def _part(plane: Plane, axis: int, start: int, stop: int, region: str) -> Plane:
    weights = None if plane.weights is None else _cut(plane.weights, axis, start, stop)
    objects = None if plane.objects is None else _cut(plane.objects[None], axis, start, stop)[0]
    name = f"{plane.name} {region}"
    return Plane(name, _cut(plane.pixels, axis, start, stop), _cut(plane.target, axis, start, stop), weights, objects)


def _cut(array: npt.NDArray[Any], axis: int, start: int, stop: int) -> npt.NDArray[Any]:
    return np.ascontiguousarray(array[:, start:stop] if axis == 0 else array[:, :, start:stop])


def _shares(target: npt.NDArray[Any], num: int) -> npt.NDArray[np.float64]:
    """Of each class, or of every larger number together."""
    numbers = np.minimum(target.ravel().astype(np.int64), num - 1)
    return np.bincount(numbers, minlength=num) / max(1, target.size)
