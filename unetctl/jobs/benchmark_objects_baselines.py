"""What a user could do without any network: thresholds and the watershed of scikit-image, on one plane."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Grey = npt.NDArray[np.float32]
Ids = npt.NDArray[np.integer[Any]]

#: Deviation of the window in which contrast is measured, px.
_CONTRAST_PX = 5


@dataclass(frozen=True)
class ObjectBaseline:
    """A method.

    Attributes:
        name: in tables.
        how: in words.
        label: (grey (y, x), least object px) -> ids (y, x).
    """

    name: str
    how: str
    label: Callable[[Grey, int], Ids]


def otsu_watershed(grey: Grey, min_area_px: int) -> Ids:
    """Objects brighter or darker than the ground, parted where their outline narrows.

    Otsu's threshold (1979); the ground is the side on which most of the picture's rim lies; small pieces are left out, holes
    filled; seeds are the peaks of the distance to the ground, flooded by the watershed of that distance.

    Args:
        grey: (y, x).
        min_area_px: least pixels of an object.
    """
    smooth = ndimage.gaussian_filter(grey, 1.0)
    above = _otsu(smooth)
    rim = np.concatenate([above[0], above[-1], above[:, 0], above[:, -1]])
    return _parted(~above if rim.mean() > 0.5 else above, min_area_px)


def contrast_watershed(grey: Grey, min_area_px: int) -> Ids:
    """The same on local contrast (deviation in a window): for cells in relief, no brighter than the ground."""
    mean = ndimage.gaussian_filter(grey, _CONTRAST_PX)
    square = ndimage.gaussian_filter(grey * grey, _CONTRAST_PX)
    return _parted(_otsu(np.sqrt(np.clip(square - mean * mean, 0, None))), min_area_px)


BASELINES = (
    ObjectBaseline("Otsu + watershed", "scikit-image: Otsu's threshold, distance transform, watershed", otsu_watershed),
    ObjectBaseline(
        "contrast + watershed", "scikit-image: Otsu's threshold on local contrast, distance transform, watershed",
        contrast_watershed,
    ),
)  # fmt: skip


def _otsu(grey: Grey) -> npt.NDArray[np.bool_]:
    from skimage.filters import threshold_otsu

    if float(grey.min()) == float(grey.max()):
        return np.zeros(grey.shape, bool)
    return np.asarray(grey > threshold_otsu(grey))  # type: ignore[no-untyped-call]


def _parted(mask: npt.NDArray[np.bool_], min_area_px: int) -> Ids:
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    mask = ndimage.binary_fill_holes(mask)
    pieces, num = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel(), minlength=num + 1)
    sizes[0] = 0
    mask = (sizes >= min_area_px)[pieces]
    if not mask.any():
        return np.zeros(mask.shape, np.int32)
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1.0)
    least_px = max(5, round(2 * np.sqrt(min_area_px / np.pi)))
    peaks = peak_local_max(distance, min_distance=least_px, labels=mask.astype(np.int32), exclude_border=False)  # type: ignore[no-untyped-call]  # untyped in scikit-image
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(watershed(-distance, seeds, mask=mask))  # type: ignore[no-untyped-call]
