"""How large objects are, and at what scale a picture shows them at the size that a network has learnt.

    median_diameter(ids) -> px, or None
    fitting_scale(diameter_at, wanted_px) -> factor

A network knows objects of the sizes that it was taught; photographed through another objective the same nuclei are a third
or three times as wide. With all pictures brought to one size it needs to know that one alone (Stringer et al. 2021,
"Cellpose", Methods, who train another network to tell the size; here the network itself is asked, at one scale after the
other, until what it finds has the size that it was shown in).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

#: Farthest that a picture is shrunk and enlarged: beyond, what little is left is not worth guessing.
LEAST_SCALE, MOST_SCALE = 0.25, 3.0
#: Scales from one to twice as much: a tenth more or less is nothing to a network, and equal scales are told alike.
_STEPS = 4
_MOST_LOOKS = 4
#: Where nothing is found at one scale, these are tried.
_FIRST_LOOKS = (1.0, 2.0, 0.5)


def median_diameter(ids: npt.NDArray[Any]) -> float | None:
    """Diameter of a disc as large as the median object.

    Args:
        ids: (y, x), or (z, y, x), of which every plane's cut through an object counts for itself; 0 background.

    Returns:
        Pixels; None without objects.
    """
    areas: list[npt.NDArray[np.int64]] = []
    for plane in ids.reshape(-1, *ids.shape[-2:]):
        counts = np.unique(plane, return_counts=True)
        areas.append(counts[1][counts[0] != 0])
    found = np.concatenate(areas)
    return math.sqrt(4 / math.pi * float(np.median(found))) if found.size else None


def scale_of(diameter_px: float, wanted_px: float) -> float:
    """Factor that shows objects of one diameter at another, within the bounds."""
    return min(MOST_SCALE, max(LEAST_SCALE, wanted_px / diameter_px))


def fitting_scale(diameter_at: Callable[[float], float | None], wanted_px: float) -> float:
    """The scale at which what is found in a picture has the wanted size.

    Args:
        diameter_at: what is found when the picture is looked at at a scale: its diameter in the picture's own pixels, or
            None if nothing is.
        wanted_px: as it is to be seen.

    Returns:
        A factor from `LEAST_SCALE` to `MOST_SCALE`; 1 where nothing is found.
    """
    looked: dict[float, float | None] = {}
    scale, waiting = _FIRST_LOOKS[0], list(_FIRST_LOOKS[1:])
    while len(looked) < _MOST_LOOKS:
        diameter = looked[scale] = diameter_at(scale)
        if diameter is not None:
            scale, waiting = _on_grid(scale_of(diameter, wanted_px)), []
        elif waiting:
            scale = waiting.pop(0)
        else:  # nothing, or nothing any more: where something was seen it is seen best
            return next((s for s in reversed(looked) if looked[s] is not None), 1.0)
        if scale in looked:  # it stays, or goes round between neighbours
            return scale
    return scale


def _on_grid(scale: float) -> float:
    grid: float = 2.0 ** (round(math.log2(scale) * _STEPS) / _STEPS)
    return grid
