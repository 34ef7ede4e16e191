"""The border weight map of the paper: thin borders between cells count more in the loss.

Ronneberger et al. 2015, section 3, equation 2:

    w(x) = w_c(x) + w0 * exp(-(d1(x) + d2(x))**2 / (2 * sigma**2))

w_c balances the classes, d1 and d2 are the distances from x to the nearest and to the second nearest cell; w0
= 10, sigma = 5 px.

    border_weights(labels (Y, X), w0=10, sigma_px=5, class_weights=None, inside=False, ignore=None) -> (Y, X)
    label_cells(mask (Y, X)) -> (Y, X) int32, connected components of the interior
    part_touching(labels (Y, X)) -> (Y, X), one-pixel borders put between cells that touch
    class_balance(counts (K,)) -> (K,) weights whose mean over all pixels is 1
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

# beyond the distance at which the exponential falls under this it counts as 0
_NEGLIGIBLE = 1e-6


def label_cells(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Cells of a membrane labelling: connected components of the interior in one plane.

    Args:
        mask: (Y, X), True inside cells.

    Returns:
        (Y, X) int32, 0 outside. Pixels that touch by a corner alone belong to different cells: a membrane one
        pixel wide that runs diagonally still separates.
    """
    labels = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, output=labels)
    return labels


def part_touching(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """Background between cells that touch, as the paper needs it for instance labels (section 3).

    Args:
        labels: (Y, X) ids, 0 background.

    Returns:
        (Y, X), the same dtype: a pixel becomes 0 if the one below it or to its right belongs to another cell,
        so borders are one pixel wide.
    """
    parted = labels.copy()
    for ahead, behind in ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = (labels[ahead] != labels[behind]) & (labels[ahead] != 0) & (labels[behind] != 0)
        parted[behind][differs] = 0
    return parted


def class_balance(counts: Sequence[int] | npt.NDArray[np.integer]) -> tuple[float, ...]:
    """Weights inverse to the frequency of the classes: total / (classes present * count).

    Args:
        counts: pixels of each class, summed over the whole training set so that all planes share one balance.

    Returns:
        One weight a class; their mean over all pixels is 1. A class that never occurs gets 0.
    """
    array = np.asarray(counts, np.float64)
    present = array > 0
    return tuple(float(array.sum() / (present.sum() * count)) if count > 0 else 0.0 for count in array.tolist())


def two_nearest(
    labels: npt.NDArray[np.integer], reach_px: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Distances to the nearest and to the second nearest cell, exact up to `reach_px`.

    Every cell's distance transform is taken in its own bounding box grown by the reach, so the cost follows
    the cells' boxes and not cells times plane.

    Args:
        labels: (Y, X) ids, 0 background; an id may lie in several pieces.
        reach_px: distances above it come back as infinity.

    Returns:
        (d1, d2), each (Y, X) float32 in pixels, 0 inside a cell (of its own); infinity where no cell is
        within reach.
    """
    first = np.full(labels.shape, np.inf, np.float32)
    second = np.full(labels.shape, np.inf, np.float32)
    ids, dense = np.unique(labels, return_inverse=True)
    dense = dense.reshape(labels.shape).astype(np.int32)
    if ids.size and ids[0] == 0:
        boxes = ndimage.find_objects(dense)
    else:
        dense += 1
        boxes = ndimage.find_objects(dense)
    grow = math.ceil(reach_px)
    for i_cell, box in enumerate(boxes, start=1):
        if box is None:
            continue
        around = tuple(
            slice(max(0, s.start - grow), min(size, s.stop + grow)) for s, size in zip(box, labels.shape, strict=True)
        )
        distance = ndimage.distance_transform_edt(dense[around] != i_cell).astype(np.float32)
        distance[distance > reach_px] = np.inf
        nearest = first[around]
        np.minimum(second[around], np.maximum(nearest, distance), out=second[around])
        np.minimum(nearest, distance, out=first[around])
    return first, second


def border_weights(
    labels: npt.NDArray[np.integer],
    *,
    w0: float = 10.0,
    sigma_px: float = 5.0,
    class_weights: Sequence[float] | None = None,
    inside: bool = False,
    ignore: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.float32]:
    """Loss weights of one plane (equation 2 of the paper, see the top of this file).

    Args:
        labels: (Y, X) ids of cells, 0 background or membrane; of a mask: `label_cells(mask)`.
        w0: weight of the border term, 10 in the paper.
        sigma_px: its reach, 5 px in the paper. Where membranes are labelled as wide as they are (ISBI 2012:
            about 6 px), the term is greatest where the membrane is thinnest.
        class_weights: w_c as (background, cell), e.g. of `class_balance`; None: 1 everywhere.
        inside: True adds the border term inside the cells as well (d1 = 0 there), as the formula reads; False
            only outside them, where the borders are that have to be learned.
        ignore: (Y, X), True where the labels say nothing: weight 0.

    Returns:
        (Y, X) float32, at least 0. The border term is exact to one millionth of w0.

    Raises:
        ValueError: if labels is not a plane or sigma_px is not positive.
    """
    if labels.ndim != 2:
        raise ValueError(f"labels of shape {labels.shape}: expected one plane (y, x)")
    if not sigma_px > 0:
        raise ValueError(f"sigma_px is {sigma_px}: expected a positive number of pixels")
    is_cell = labels != 0
    if class_weights is None:
        weights = np.ones(labels.shape, np.float32)
    else:
        background, cell = class_weights
        weights = np.where(is_cell, np.float32(cell), np.float32(background))
    if w0:
        first, second = two_nearest(labels, sigma_px * math.sqrt(-2.0 * math.log(_NEGLIGIBLE)))
        border = np.float32(w0) * np.exp(-((first + second) ** 2) / np.float32(2.0 * sigma_px**2))
        weights += border if inside else np.where(is_cell, np.float32(0.0), border)
    if ignore is not None:
        weights[ignore] = 0.0
    return weights
