"""The scores of the ISBI 2012 challenge on electron microscopy: are cells kept apart, and kept whole?

Source: Arganda-Carreras et al. 2015, "Crowdsourcing the creation of image segmentation algorithms for
connectomics", Frontiers in Neuroanatomy 9:142, doi 10.3389/fnana.2015.00142: the scores after border
thinning, restricted to the foreground, which rank the challenge.

::

    probability --threshold--> interior --components--> segments --grown until the borders vanish--.
                                                                                                   |
    labels ----------------------------> components ---> cells --inside the cells only--> table of overlaps

With p_ij the share of the foreground that lies in segment i and cell j, s_i and t_j the shares of segments
and cells, S and T the two segmentations::

    V_rand: split = sum p_ij^2 / sum t_j^2    merge = sum p_ij^2 / sum s_i^2    score = their harmonic mean
    V_info: split = I(S;T) / H(S)             merge = I(S;T) / H(T)             score = their harmonic mean

Splitting a cell lowers only "split", merging two lowers only "merge". All are 1 for a perfect prediction.
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import entr
from skimage.metrics import contingency_table
from skimage.segmentation import watershed

from unetctl.errors import UsageError
from unetctl.metrics.checks import (
    Labels,
    Mask,
    Probability,
    require_mask,
    require_ndim,
    require_probability,
    require_same_shape,
)
from unetctl.metrics.overlap import count_overlap

Connectivity = Literal[4, 8]
Criterion = Literal["v_rand", "v_info", "misclassified", "pixel_error", "adapted_rand_error"]

THRESHOLDS: tuple[float, ...] = tuple(round(0.05 * i, 2) for i in range(1, 20))
"""0.05, 0.10 .. 0.95: where `score_thresholds` looks unless told otherwise."""

_ERRORS = ("misclassified", "pixel_error", "adapted_rand_error")


@dataclass(frozen=True, slots=True)
class SplitMerge:
    """One agreement of two segmentations, seen three ways, each 0..1 with 1 for perfect."""

    split: float
    merge: float
    score: float


@dataclass(frozen=True, slots=True)
class EmScores:
    """How well the interior of cells was found at one threshold, for one slice or as a mean over slices.

    All are 0..1. Higher is better for `v_*` and `interior_f`, lower for `misclassified` and the two errors.
    """

    threshold: float
    v_rand: float
    v_rand_split: float
    v_rand_merge: float
    v_info: float
    v_info_split: float
    v_info_merge: float
    misclassified: float
    interior_f: float

    @property
    def adapted_rand_error(self) -> float:
        """``1 - v_rand``, 0..1."""
        return 1.0 - self.v_rand

    @property
    def pixel_error(self) -> float:
        """``1 - F`` of the interior class before thinning, 0..1: the challenge's "pixel error"."""
        return 1.0 - self.interior_f

    def __str__(self) -> str:
        return (
            f"threshold {self.threshold:.3f}: V_rand {self.v_rand:.4f}, V_info {self.v_info:.4f}, "
            f"misclassified {self.misclassified:.4f}, pixel error {self.pixel_error:.4f}"
        )


def components(mask: Mask, *, connectivity: Connectivity = 4) -> Labels:
    """Number the connected components of a mask (y, x): ids from 1, 0 outside, same shape, int32.

    The challenge takes 4-connected cells: a border one pixel wide and 8-connected then keeps two cells apart.
    """
    found: Labels = ndimage.label(mask, structure=_structure(connectivity))[0]
    return found


def thin_borders(interior: Mask, *, connectivity: Connectivity = 4, keep_lines: bool = False) -> Labels:
    """Turn a mask of cell interiors into segments that touch: components grown until the borders vanish.

    Growth is a watershed on a flat landscape, that is by distance alone, at equal speed from all sides.
    Interior pixels keep their component; only border pixels are handed out. Without any interior nothing
    keeps cells apart and the slice is one segment.

    Args:
        interior: cell interiors of a slice, (y, x).
        connectivity: neighbours of a pixel, 4 or 8.
        keep_lines: leave a line of zeros, one pixel wide, where segments meet, as a classic watershed with
            dams does. Scores come out lower (by 0.02 on a bad prediction), because line pixels inside a cell
            count as segments of their own.

    Returns:
        Segment ids from 1, (y, x), int32; 0 only on lines.
    """
    markers = components(interior, connectivity=connectivity)
    if not markers.any():
        return np.ones_like(markers)
    flat = np.zeros(markers.shape, np.uint8)
    neighbours = _structure(connectivity)
    segments: Labels = watershed(  # type: ignore[no-untyped-call]
        flat, markers, connectivity=neighbours, watershed_line=keep_lines
    )
    return segments


def rand_scores(segments: Labels, cells: Labels) -> SplitMerge:
    """V_rand of a segmentation, restricted to the foreground of the labels.

    Args:
        segments: ids as predicted, any shape; pixels with id 0 count as a segment each.
        cells: ids as labelled, same shape; pixels with id 0 do not count.

    Returns:
        All 1 if the labels have no foreground: nothing could be split or merged.

    Raises:
        InputError: the shapes differ.
    """
    return _rand_scores(_foreground_table(_renumbered(segments), _renumbered(cells)))


def info_scores(segments: Labels, cells: Labels) -> SplitMerge:
    """V_info of a segmentation, restricted to the foreground of the labels; arguments as for `rand_scores`.

    A single cell cannot be merged with another (merge 1), a single segment splits nothing (split 1); if only
    one of the two segmentations is that plain, they share no information and the score is 0.
    """
    return _info_scores(_foreground_table(_renumbered(segments), _renumbered(cells)))


def score_slice(
    probability: Probability,
    labels: Mask,
    threshold: float,
    *,
    connectivity: Connectivity = 4,
    keep_lines: bool = False,
) -> EmScores:
    """Score the probability of cell interior in one slice against its labels.

    Args:
        probability: probability of cell interior, (y, x), 0..1; interior where it is at least `threshold`.
        labels: True in cell interiors, (y, x).
        threshold: 0..1.
        connectivity: of components and growth, 4 or 8.
        keep_lines: see `thin_borders`.

    Raises:
        InputError: wrong shapes, types or value ranges.
    """
    require_ndim("the probability", probability, 2)
    _require_pair(probability, labels)
    cells = components(labels, connectivity=connectivity)
    return _score(probability >= threshold, labels, cells, threshold, connectivity, keep_lines)


def score_volume(
    probability: Probability,
    labels: Mask,
    threshold: float,
    *,
    connectivity: Connectivity = 4,
    keep_lines: bool = False,
) -> tuple[EmScores, ...]:
    """Score every slice of a volume by itself, (z, y, x) both; their `mean_scores` are the volume's.

    Raises:
        InputError: wrong shapes, types or value ranges.
    """
    require_ndim("the probability", probability, 3)
    _require_pair(probability, labels)
    return tuple(
        score_slice(p, t, threshold, connectivity=connectivity, keep_lines=keep_lines)
        for p, t in zip(probability, labels, strict=True)
    )


def mean_scores(scores: Sequence[EmScores]) -> EmScores:
    """Mean over slices, field by field, of scores at one threshold.

    Raises:
        UsageError: there are no scores, or their thresholds differ.
    """
    if not scores:
        raise UsageError("no scores to take a mean of", "at least one slice")
    if len({s.threshold for s in scores}) > 1:
        raise UsageError("scores at several thresholds", "one threshold for all slices of a mean")
    means = np.mean([astuple(s) for s in scores], axis=0).tolist()
    return replace(EmScores(*means), threshold=scores[0].threshold)  # a mean of equals may be off by a rounding


def score_thresholds(
    probability: Probability,
    labels: Mask,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    connectivity: Connectivity = 4,
    keep_lines: bool = False,
) -> tuple[EmScores, ...]:
    """Score a slice or a volume at several thresholds, (y, x) or (z, y, x) both.

    Returns:
        One `EmScores` a threshold, in the given order: the mean over the slices.

    Raises:
        InputError: wrong shapes, types or value ranges.
        UsageError: no thresholds, or no slices.
    """
    require_ndim("the probability", probability, 2, 3)
    _require_pair(probability, labels)
    if not thresholds:
        raise UsageError("no thresholds to scan", "at least one")
    if probability.ndim == 2:
        probability, labels = probability[np.newaxis], labels[np.newaxis]
    per_slice = [
        list(_scan(p, t, thresholds, connectivity, keep_lines)) for p, t in zip(probability, labels, strict=True)
    ]
    if not per_slice:
        raise UsageError("a volume without slices", "at least one slice")
    return tuple(mean_scores(column) for column in zip(*per_slice, strict=True))


def best_threshold(scores: Sequence[EmScores], by: Criterion = "v_rand") -> EmScores:
    """The best of several scores by one criterion; among equals the nearest to 0.5, then the lower threshold.

    Args:
        scores: as from `score_thresholds`.
        by: the challenge ranks by ``"v_rand"``.

    Raises:
        UsageError: there are no scores.
    """
    if not scores:
        raise UsageError("no scores to choose from", "at least one threshold")
    sign = -1.0 if by in _ERRORS else 1.0
    return max(scores, key=lambda s: (sign * getattr(s, by), -abs(s.threshold - 0.5), -s.threshold))


@dataclass(frozen=True, slots=True)
class _Table:
    """Shares of the foreground: `joint` by segment and cell, `segments` and `cells` by one of them.

    `num_single` pixels of the foreground, each of share ``1 / num_pixels``, are segments of their own; they
    are part of `cells` but of neither `joint` nor `segments`.
    """

    joint: NDArray[np.float64]
    segments: NDArray[np.float64]
    cells: NDArray[np.float64]
    num_single: int
    num_pixels: int


def _scan(
    probability: Probability,
    labels: Mask,
    thresholds: Sequence[float],
    connectivity: Connectivity,
    keep_lines: bool,
) -> Iterator[EmScores]:
    cells = components(labels, connectivity=connectivity)
    for threshold in thresholds:
        yield _score(probability >= threshold, labels, cells, threshold, connectivity, keep_lines)


def _score(
    interior: Mask,
    labels: Mask,
    cells: Labels,
    threshold: float,
    connectivity: Connectivity,
    keep_lines: bool,
) -> EmScores:
    table = _foreground_table(thin_borders(interior, connectivity=connectivity, keep_lines=keep_lines), cells)
    rand, info = _rand_scores(table), _info_scores(table)
    counts = count_overlap(interior, labels)
    return EmScores(
        threshold=float(threshold),
        v_rand=rand.score,
        v_rand_split=rand.split,
        v_rand_merge=rand.merge,
        v_info=info.score,
        v_info_split=info.split,
        v_info_merge=info.merge,
        misclassified=counts.misclassified,
        interior_f=counts.f,
    )


def _foreground_table(segments: Labels, cells: Labels) -> _Table:
    require_same_shape("the segmentation", segments, "labels", cells)
    foreground = cells != 0
    cell, segment = cells[foreground], segments[foreground]
    num_pixels = cell.size
    if num_pixels == 0:
        empty = np.zeros(0)
        return _Table(empty, empty, empty, 0, 0)
    counts = contingency_table(cell, segment)  # type: ignore[no-untyped-call]
    joint = counts[:, 1:]
    return _Table(
        joint=np.asarray(joint.data, np.float64) / num_pixels,
        segments=np.asarray(joint.sum(axis=0), np.float64).ravel() / num_pixels,
        cells=np.asarray(counts.sum(axis=1), np.float64).ravel() / num_pixels,
        num_single=int(np.count_nonzero(segment == 0)),
        num_pixels=num_pixels,
    )


def _renumbered(ids: Labels) -> Labels:
    """The same ids without gaps, 0 kept: a table of overlaps has a row for every number up to the highest."""
    values, index = np.unique(ids, return_inverse=True)
    rank = np.where(values == 0, 0, np.cumsum(values != 0))
    return rank[index].reshape(ids.shape)


def _rand_scores(table: _Table) -> SplitMerge:
    if table.num_pixels == 0:
        return SplitMerge(1.0, 1.0, 1.0)
    single = table.num_single / table.num_pixels**2
    both = float(table.joint @ table.joint) + single
    of_segments = float(table.segments @ table.segments) + single
    of_cells = float(table.cells @ table.cells)
    return SplitMerge(_share(both, of_cells), _share(both, of_segments), _share(2 * both, of_segments + of_cells))


def _info_scores(table: _Table) -> SplitMerge:
    if table.num_pixels == 0:
        return SplitMerge(1.0, 1.0, 1.0)
    single = table.num_single / table.num_pixels * float(np.log(table.num_pixels))
    of_segments = float(entr(table.segments).sum()) + single
    of_cells = float(entr(table.cells).sum())
    shared = of_segments + of_cells - (float(entr(table.joint).sum()) + single)
    return SplitMerge(_share(shared, of_segments), _share(shared, of_cells), _share(2 * shared, of_segments + of_cells))


def _share(part: float, whole: float) -> float:
    """`part` of `whole` within 0..1, rounding aside; 1 of nothing."""
    return min(1.0, max(0.0, part / whole)) if whole > 0 else 1.0


def _structure(connectivity: Connectivity) -> NDArray[np.bool_]:
    structure: NDArray[np.bool_] = ndimage.generate_binary_structure(2, {4: 1, 8: 2}[connectivity])
    return structure


def _require_pair(probability: Probability, labels: Mask) -> None:
    require_probability(probability)
    require_mask("the labels' mask", labels)
    require_same_shape("the probability", probability, "labels", labels)
