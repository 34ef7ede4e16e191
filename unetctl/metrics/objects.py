"""Scores of labelled objects: average precision over IoU thresholds, and SEG of the Cell Tracking Challenge.

    match_objects(found, truth) -> ObjectScores;  scores add up (``a + b``): pooled over pictures
    ObjectScores.ap(0.5), .mean_ap, .seg, .precision(0.5), .recall(0.5)

A found object hits a true one at threshold t if their intersection over union is greater than t. From t = 0.5 on an
object has at most one such partner, so hits need no assignment. Average precision is the figure of the 2018 Data Science
Bowl (Caicedo et al. 2019, Nature Methods 16): TP / (TP + FP + FN). SEG (Maska et al. 2014, Bioinformatics 30, section
2.3): the mean Jaccard index over all true objects, where a found one is the partner if it covers more than half of the
true one, and 0 where none does.

Without any object in truth and answer every score is 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetctl.errors import InputError
from unetctl.metrics.checks import Labels, Mask, require_mask, require_same_shape

#: IoU thresholds of the Data Science Bowl: 0.5, 0.55 ... 0.95.
IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))


@dataclass(frozen=True, slots=True)
class ObjectScores:
    """Counts of one picture, or the sums of several.

    Attributes:
        num_true: objects of the labels.
        num_found: objects of the answer.
        hits: number of pairs whose IoU is greater than each of `IOU_THRESHOLDS`.
        jaccard_sum: over true objects, of SEG.
    """

    num_true: int
    num_found: int
    hits: tuple[int, ...]
    jaccard_sum: float

    def __add__(self, other: "ObjectScores") -> "ObjectScores":
        return ObjectScores(
            self.num_true + other.num_true,
            self.num_found + other.num_found,
            tuple(a + b for a, b in zip(self.hits, other.hits, strict=True)),
            self.jaccard_sum + other.jaccard_sum,
        )

    def __str__(self) -> str:
        return f"AP at 0.5 {self.ap(0.5):.4f}, mean AP {self.mean_ap:.4f}, SEG {self.seg:.4f}, {self.num_found} objects of {self.num_true}"

    def _hits(self, threshold: float) -> int:
        for known, hits in zip(IOU_THRESHOLDS, self.hits, strict=True):
            if abs(known - threshold) < 1e-9:
                return hits
        raise InputError(f"an IoU threshold of {threshold}", f"one of {', '.join(map(str, IOU_THRESHOLDS))}")

    def ap(self, threshold: float) -> float:
        """TP / (TP + FP + FN), 0..1, at one of `IOU_THRESHOLDS`.

        Raises:
            InputError: at any other.
        """
        hits = self._hits(threshold)
        either = self.num_true + self.num_found - hits
        return hits / either if either else 1.0

    def precision(self, threshold: float) -> float:
        """TP / (TP + FP), 0..1; 1 if nothing was found and nothing was there."""
        if not self.num_found:
            return float(self.num_true == 0)
        return self._hits(threshold) / self.num_found

    def recall(self, threshold: float) -> float:
        """TP / (TP + FN), 0..1; 1 if nothing was there and nothing was found."""
        if not self.num_true:
            return float(self.num_found == 0)
        return self._hits(threshold) / self.num_true

    @property
    def ap50(self) -> float:
        """`ap` at 0.5."""
        return self.ap(0.5)

    @property
    def mean_ap(self) -> float:
        """Mean of `ap` over `IOU_THRESHOLDS`, 0..1."""
        return float(np.mean([self.ap(threshold) for threshold in IOU_THRESHOLDS]))

    @property
    def seg(self) -> float:
        """Mean Jaccard index over the true objects, 0..1; without any: 1 if none was found either, else 0."""
        if not self.num_true:
            return float(self.num_found == 0)
        return self.jaccard_sum / self.num_true


#: Of no picture at all: where sums begin.
NO_OBJECTS = ObjectScores(0, 0, (0,) * len(IOU_THRESHOLDS), 0.0)


def match_objects(found: Labels, truth: Labels, *, ignore: Mask | None = None) -> ObjectScores:
    """Compares two labellings of one picture.

    Args:
        found: integer ids, 0 background, any shape; an id may lie in several pieces.
        truth: the same shape.
        ignore: True where a pixel shall not count.

    Raises:
        InputError: if an array does not hold integers, or the shapes differ.
    """
    for name, array in (("the answer", found), ("the labels", truth)):
        if array.dtype.kind not in "ui":
            raise InputError(f"{name} has values of type {array.dtype}", "integer ids, 0 for the background")
    require_same_shape("the answer", found, "labels", truth)
    if ignore is not None:
        require_mask("the ignore mask", ignore)
        require_same_shape("the ignore mask", ignore, "labels", truth)
        found, truth = found[~ignore], truth[~ignore]
    found_sizes, found_at = _dense(found)
    true_sizes, true_at = _dense(truth)
    both = (found_at > 0) & (true_at > 0)
    pairs = true_at[both] * np.int64(len(found_sizes)) + found_at[both]
    keys, shared = np.unique(pairs, return_counts=True)
    i_true, i_found = np.divmod(keys, len(found_sizes))
    jaccard = shared / (true_sizes[i_true] + found_sizes[i_found] - shared)
    hits = tuple(int((jaccard > threshold).sum()) for threshold in IOU_THRESHOLDS)
    covers = 2 * shared > true_sizes[i_true]
    return ObjectScores(len(true_sizes) - 1, len(found_sizes) - 1, hits, float(jaccard[covers].sum()))


def pooled(scores: Sequence[ObjectScores]) -> ObjectScores:
    """The sums over pictures: every object counts alike, however many its picture has."""
    total = NO_OBJECTS
    for one in scores:
        total = total + one
    return total


def _dense(labels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sizes of the objects in pixels, number 0 the background, and each pixel's number."""
    ids, at = np.unique(labels, return_inverse=True)
    if ids.size and ids[0] < 0:
        raise InputError(f"an object of the id {ids[0]}", "ids from 1 on, 0 for the background")
    at = at.reshape(-1).astype(np.int64)
    if ids.size and ids[0] > 0:  # no background: the numbers still begin with it
        at += 1
    return np.bincount(at, minlength=1), at
