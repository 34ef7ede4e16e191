"""Warping error: what remains wrong after borders may move freely, as long as topology stays.

Source: Jain et al. 2010, "Boundary learning by optimization with topological constraints", CVPR, doi
10.1109/CVPR.2010.5539950. The labels are warped towards the prediction by flipping simple points, one after
the other; what still differs in the end is a split, a merger, a hole or an object too many or too few. A
border that is merely displaced, by less than its width, costs nothing.

A pixel is simple if flipping it changes the topology neither of the foreground nor of the background
(Bertrand 1994). The two must be connected differently: with 4-connected cells the borders between them are
8-connected, and the reverse.
"""

from functools import cache
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from unetctl.metrics.boundary import Connectivity
from unetctl.metrics.checks import Mask, Probability, require_mask, require_ndim, require_same_shape

_OFFSETS: tuple[tuple[int, int], ...] = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""(y, x) of the eight neighbours; neighbour i weighs 2**i in the code of a neighbourhood."""


def warping_error(
    prediction: Mask,
    labels: Mask,
    *,
    confidence: Probability | None = None,
    mask: Mask | None = None,
    connectivity: Connectivity = 4,
) -> float:
    """Share of the slice's pixels that differ from the prediction after the labels were warped to it, 0..1.

    This counts pixels. The challenge's old ranking counted clusters of them, splits and mergers only.

    Args:
        prediction: cell interiors as predicted, (y, x).
        labels: cell interiors as labelled, (y, x).
        confidence: see `warp_labels`.
        mask: True where labels may move and differences count, (y, x); everywhere if None.
        connectivity: of the interiors, 4 or 8.

    Raises:
        InputError: arrays that are not (y, x), not boolean, or of different shapes.
    """
    warped = warp_labels(prediction, labels, confidence=confidence, mask=mask, connectivity=connectivity)
    wrong = warped != prediction
    if mask is not None:
        wrong &= mask
    return float(np.count_nonzero(wrong)) / wrong.size if wrong.size else 0.0


def warp_labels(
    prediction: Mask,
    labels: Mask,
    *,
    confidence: Probability | None = None,
    mask: Mask | None = None,
    connectivity: Connectivity = 4,
) -> Mask:
    """Move the borders of the labels as near to the prediction as their topology allows.

    Only pixels on which the two differ are flipped, each at most once, simple ones only, the most confident
    first; it ends when none is left. Outside the slice lies background. The result is a greedy one, as always
    with this measure: another order may leave a few pixels more or fewer.

    Args:
        prediction: cell interiors as predicted, (y, x).
        labels: cell interiors as labelled, (y, x).
        confidence: how sure the prediction is, (y, x), any scale, usually ``abs(probability - threshold)``;
            among equals, and everywhere if None, fronts advance from where they are, at equal speed.
        mask: True where labels may move, (y, x); everywhere if None.
        connectivity: of the interiors, 4 or 8.

    Returns:
        The warped labels, (y, x), with the components and holes of `labels`.

    Raises:
        InputError: arrays that are not (y, x), not boolean, or of different shapes.
    """
    _check(prediction, labels, confidence, mask)
    simple = simple_codes(connectivity)
    differs = prediction != labels
    if mask is not None:
        differs = differs & mask

    # A ring of background around the slice spares every look at its edges; a heap holds flat indices.
    state = np.pad(labels, 1)
    width = state.shape[1]
    open_pixels = np.flatnonzero(np.pad(differs, 1))
    cost = np.zeros(state.size) if confidence is None else -np.pad(confidence.astype(np.float64), 1).ravel()
    steps = [dy * width + dx for dy, dx in _OFFSETS]
    codes = sum(
        (state.ravel()[open_pixels + step].astype(np.uint8) << i for i, step in enumerate(steps)),
        start=np.zeros(open_pixels.size, np.uint8),
    )

    values = bytearray(state.astype(np.uint8).tobytes())
    is_open = bytearray(state.size)
    is_queued = bytearray(state.size)
    for pixel in open_pixels.tolist():
        is_open[pixel] = 1
    queue = [(float(cost[p]), order, p) for order, p in enumerate(open_pixels[simple[codes]].tolist())]
    for _, _, pixel in queue:
        is_queued[pixel] = 1
    heapify(queue)
    order = len(queue)
    is_simple = simple.tolist()
    s0, s1, s2, s3, s4, s5, s6, s7 = steps

    while queue:
        _, _, pixel = heappop(queue)
        is_queued[pixel] = 0
        code = (
            values[pixel + s0]
            | values[pixel + s1] << 1
            | values[pixel + s2] << 2
            | values[pixel + s3] << 3
            | values[pixel + s4] << 4
            | values[pixel + s5] << 5
            | values[pixel + s6] << 6
            | values[pixel + s7] << 7
        )
        if not is_simple[code]:
            continue  # a neighbour was flipped meanwhile; the next flip beside it queues it again
        values[pixel] ^= 1
        is_open[pixel] = 0
        for step in steps:
            neighbour = pixel + step
            if is_open[neighbour] and not is_queued[neighbour]:
                is_queued[neighbour] = 1
                heappush(queue, (float(cost[neighbour]), order, neighbour))
                order += 1

    warped: Mask = np.frombuffer(values, np.uint8).reshape(state.shape)[1:-1, 1:-1].astype(np.bool_)
    return warped


@cache
def simple_codes(connectivity: Connectivity = 4) -> NDArray[np.bool_]:
    """Which of the 256 neighbourhoods make their centre a simple point, (256,), read-only.

    The code of a neighbourhood sums 2**i over those of the eight neighbours, numbered row by row, that are
    foreground. The centre is simple if exactly one foreground component and exactly one background component
    of its neighbourhood touch it; whether it is foreground itself does not matter.

    Args:
        connectivity: of the foreground, 4 or 8; the background has the other one.
    """
    cross, square = ndimage.generate_binary_structure(2, 1), ndimage.generate_binary_structure(2, 2)
    of_foreground, of_background = (cross, square) if connectivity == 4 else (square, cross)
    ring = np.zeros((256, 3, 3), np.bool_)
    for i, (dy, dx) in enumerate(_OFFSETS):
        ring[:, 1 + dy, 1 + dx] = (np.arange(256) >> i) & 1
    outside = ~ring
    outside[:, 1, 1] = False
    simple = np.array(
        [
            _num_touching(inner, of_foreground) == 1 and _num_touching(outer, of_background) == 1
            for inner, outer in zip(ring, outside, strict=True)
        ]
    )
    simple.flags.writeable = False  # it is shared by all callers
    return simple


def _num_touching(ring: NDArray[np.bool_], structure: NDArray[np.bool_]) -> int:
    """Number of components of a 3x3 ring that are neighbours of its centre, in the same connectivity."""
    found = ndimage.label(ring, structure=structure)[0]
    return len(set(found[structure & ring].tolist()))


def _check(prediction: Mask, labels: Mask, confidence: Probability | None, mask: Mask | None) -> None:
    require_ndim("the prediction", prediction, 2)
    require_mask("the prediction", prediction)
    require_mask("the labels' mask", labels)
    require_same_shape("the prediction", prediction, "labels", labels)
    if confidence is not None:
        require_same_shape("the confidence", confidence, "labels", labels)
    if mask is not None:
        require_mask("the mask", mask)
        require_same_shape("the mask", mask, "labels", labels)
