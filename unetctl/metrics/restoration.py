"""How near a repaired picture is to the clean one, inside the damage and outside, and how well the damage was found.

    Errors.of(found, truth, where) -> sums that add up over pictures; Errors.psnr
    ssim_map(found, truth) -> (y, x);  score_restoration(found, truth, mask, found_mask, parts) -> RestorationScores

Pictures are (y, x, c) or (y, x) uint8; PSNR is 10 log10(255^2 / mean squared error), over all channels.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.metrics import structural_similarity

from unetctl.metrics.overlap import Overlap, count_overlap

Pixels = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

#: White.
_PEAK = 255.0
#: Side of the window of SSIM, pixels (Wang et al. 2004, with the uniform weights that scikit-image takes by default).
_WINDOW_PX = 7


@dataclass(frozen=True)
class Errors:
    """Squared errors of a part of a picture, or of several.

    Attributes:
        total: sum of squared differences over pixels and channels.
        num: pixels times channels.
    """

    total: float = 0.0
    num: int = 0

    @classmethod
    def of(cls, found: Pixels, truth: Pixels, where: Mask) -> "Errors":
        """Those of the pixels `where`.

        Args:
            found, truth: (y, x) or (y, x, c), 0..255.
            where: (y, x).

        Raises:
            ValueError: if the shapes do not fit.
        """
        if found.shape != truth.shape or found.shape[:2] != where.shape:
            raise ValueError(f"pictures of {found.shape} and {truth.shape} with a mask of {where.shape}")
        difference = found[where].astype(np.float64) - truth[where]
        return cls(float((difference**2).sum()), difference.size)

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(self.total + other.total, self.num + other.num)

    @property
    def psnr(self) -> float:
        """Decibel; infinite if nothing differs, NaN where there is nothing."""
        if not self.num:
            return math.nan
        return math.inf if self.total == 0 else 10 * math.log10(_PEAK**2 * self.num / self.total)


@dataclass(frozen=True)
class RestorationScores:
    """Of one picture.

    Attributes:
        inside, outside: errors in the damage and in all the rest.
        parts: errors in named parts of the damage.
        ssim_inside, ssim_outside: mean of the SSIM map there; NaN where there is nothing.
        overlap: of the damage found with the true one.
    """

    inside: Errors
    outside: Errors
    parts: Mapping[str, Errors]
    ssim_inside: float
    ssim_outside: float
    overlap: Overlap


def ssim_map(found: Pixels, truth: Pixels) -> npt.NDArray[np.float64]:
    """(y, x) structural similarity, the mean of the channels (scikit-image); pictures are at least 7 pixels a side.

    Raises:
        ValueError: if the pictures differ in shape or are smaller.
    """
    if found.shape != truth.shape or min(found.shape[:2]) < _WINDOW_PX:
        raise ValueError(
            f"pictures of {found.shape} and {truth.shape}: expected equal ones of {_WINDOW_PX} pixels or more"
        )
    axis = 2 if truth.ndim == 3 else None
    _, values = structural_similarity(truth, found, win_size=_WINDOW_PX, data_range=_PEAK, channel_axis=axis, full=True)  # type: ignore[no-untyped-call]  # untyped in scikit-image
    mean: npt.NDArray[np.float64] = np.asarray(values, np.float64)
    return mean.mean(2) if axis is not None else mean


def score_restoration(
    found: Pixels, truth: Pixels, mask: Mask, found_mask: Mask | None = None, parts: Mapping[str, Mask] | None = None
) -> RestorationScores:
    """Scores one picture.

    Args:
        found: the repaired picture, (y, x, c) or (y, x) uint8.
        truth: the clean one.
        mask: (y, x), where the damage truly is.
        found_mask: where it was found; None: it was given.
        parts: masks of parts of the damage, by name.

    Raises:
        ValueError: if they do not fit each other.
    """
    similarity = ssim_map(found, truth)
    return RestorationScores(
        Errors.of(found, truth, mask),
        Errors.of(found, truth, ~mask),
        {name: Errors.of(found, truth, part) for name, part in (parts or {}).items()},
        float(similarity[mask].mean()) if mask.any() else math.nan,
        float(similarity[~mask].mean()) if not mask.all() else math.nan,
        count_overlap(mask if found_mask is None else found_mask, mask),
    )
