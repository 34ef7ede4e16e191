"""What classical thresholds make of a page, to stand beside a network: scikit-image's, and doxapy's where installed.

Parameters are fixed: those that their authors or the DIBCO literature recommend, the same for all pages.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import skimage.filters

from unetctl.jobs.benchmark_doxa import DoxaProcess, doxa_algorithms

_filters: Any = skimage.filters  # its types are not declared
Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

WINDOW_PX = 75
_K_NIBLACK, _K_SAUVOLA, _K_WOLF = 0.2, 0.2, 0.5
_RANGE = 128.0  # of the standard deviation, for 8 bits
#: doxapy's, in the order of tables; of those that scikit-image has, only scikit-image's are run.
_DOXA = {
    "NICK": "nick", "ISAUVOLA": "isauvola", "SU": "su", "GATOS": "gatos", "TRSINGH": "trsingh", "WAN": "wan",
    "BRADLEY": "bradley", "ADOTSU": "adotsu",
}  # fmt: skip


@dataclass(frozen=True)
class Baseline:
    """A method without training.

    Attributes:
        name: in tables.
        parameters: in words.
        find: from the luminance (y, x) uint8 to the ink (y, x).
    """

    name: str
    parameters: str
    find: Callable[[Grey], Mask]


@contextmanager
def baselines() -> Iterator[tuple[Baseline, ...]]:
    """Those that can be run here, Otsu first, to be used inside the context.

    Of doxapy's `find` raises `MethodCrashedError` for pages that they cannot bear.
    """
    known = doxa_algorithms()
    with DoxaProcess() as doxa:
        yield (
            Baseline("otsu", "scikit-image, one threshold a page", otsu),
            Baseline("sauvola", f"scikit-image, window {WINDOW_PX}, k {_K_SAUVOLA}, R {_RANGE:g}", sauvola),
            Baseline("niblack", f"scikit-image, window {WINDOW_PX}, k {_K_NIBLACK}", niblack),
            Baseline("wolf", f"scikit-image, window {WINDOW_PX}, k {_K_WOLF}", wolf),
            *(
                Baseline(shown, "doxapy, its own parameters", partial(doxa.find, name))
                for name, shown in _DOXA.items()
                if name in known
            ),
        )


def otsu(grey: Grey) -> Mask:
    """Ink is what is not above Otsu's threshold; a page of one value has none."""
    if grey.min() == grey.max():
        return np.zeros(grey.shape, np.bool_)
    found: Mask = grey <= _filters.threshold_otsu(grey)
    return found


def niblack(grey: Grey) -> Mask:
    """Ink is what is not above ``m - k s``."""
    mean, deviation = _moments(grey)
    found: Mask = grey <= mean - _K_NIBLACK * deviation
    return found


def sauvola(grey: Grey) -> Mask:
    """Ink is what is not above ``m (1 + k (s / R - 1))``."""
    mean, deviation = _moments(grey)
    found: Mask = grey <= mean * (1 + _K_SAUVOLA * (deviation / _RANGE - 1))
    return found


def wolf(grey: Grey) -> Mask:
    """Ink is what is not above ``m - k (1 - s / max s) (m - min)`` (Wolf and Jolion 2004)."""
    mean, deviation = _moments(grey)
    share = deviation / max(float(deviation.max()), 1e-12)
    found: Mask = grey <= mean - _K_WOLF * (1 - share) * (mean - float(grey.min()))
    return found


def _moments(grey: Grey) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation in the window around each pixel, mirrored at the borders."""
    mean: npt.NDArray[np.float64] = _filters.threshold_niblack(grey, WINDOW_PX, k=0)
    return mean, mean - _filters.threshold_niblack(grey, WINDOW_PX, k=1)
