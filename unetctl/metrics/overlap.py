"""Scores of a mask against the labels' mask, pixel by pixel.

All of them derive from four counts, so `count_overlap` once and read what is needed; the functions below it
are for single figures. Counts of several slices or pages add up (``a + b``) where one figure for all pixels
is wanted.

Empty masks: where both are empty, nothing was to be found and nothing was claimed, and every score is 1.
Where only one of the two masks is empty, IoU, Dice, precision, recall and F are all 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unetctl.metrics.checks import Mask, Probability, require_mask, require_probability, require_same_shape


@dataclass(frozen=True, slots=True)
class Overlap:
    """Numbers of pixels by what the prediction says (positive, negative) and whether it is right."""

    num_true_positive: int
    num_false_positive: int
    num_false_negative: int
    num_true_negative: int

    def __add__(self, other: "Overlap") -> "Overlap":
        return Overlap(
            self.num_true_positive + other.num_true_positive,
            self.num_false_positive + other.num_false_positive,
            self.num_false_negative + other.num_false_negative,
            self.num_true_negative + other.num_true_negative,
        )

    def __str__(self) -> str:
        return f"IoU {self.iou:.4f}, Dice {self.dice:.4f}, misclassified {self.misclassified:.4f}"

    @property
    def num_pixels(self) -> int:
        """All counted pixels."""
        return self.num_true_positive + self.num_wrong + self.num_true_negative

    @property
    def num_wrong(self) -> int:
        """Pixels on which prediction and labels differ."""
        return self.num_false_positive + self.num_false_negative

    @property
    def iou(self) -> float:
        """Intersection over union (Jaccard index), 0..1; 1 if both masks are empty."""
        union = self.num_true_positive + self.num_wrong
        return self.num_true_positive / union if union else 1.0

    @property
    def dice(self) -> float:
        """Dice coefficient, 0..1; 1 if both masks are empty. The same number as `f`."""
        sizes = 2 * self.num_true_positive + self.num_wrong
        return 2 * self.num_true_positive / sizes if sizes else 1.0

    @property
    def precision(self) -> float:
        """Share of the predicted pixels that are right, 0..1.

        Of an empty prediction: 1 if the labels are empty as well, else 0.
        """
        num_predicted = self.num_true_positive + self.num_false_positive
        return self.num_true_positive / num_predicted if num_predicted else float(self.num_false_negative == 0)

    @property
    def recall(self) -> float:
        """Share of the labelled pixels that were found, 0..1.

        Of empty labels: 1 if the prediction is empty as well, else 0.
        """
        num_labelled = self.num_true_positive + self.num_false_negative
        return self.num_true_positive / num_labelled if num_labelled else float(self.num_false_positive == 0)

    @property
    def f(self) -> float:
        """Harmonic mean of precision and recall, 0..1; 1 if both masks are empty."""
        return self.dice

    @property
    def misclassified(self) -> float:
        """Share of the counted pixels on which prediction and labels differ, 0..1; 0 if no pixel counts."""
        return self.num_wrong / self.num_pixels if self.num_pixels else 0.0

    @property
    def complement(self) -> "Overlap":
        """The counts of the other class: what was positive is negative and the reverse."""
        return Overlap(self.num_true_negative, self.num_false_negative, self.num_false_positive, self.num_true_positive)


def count_overlap(prediction: Mask, labels: Mask, *, ignore: Mask | None = None) -> Overlap:
    """Count the pixels that two masks agree and disagree on.

    Args:
        prediction: the class as predicted, boolean, any shape.
        labels: the class as labelled, boolean, same shape.
        ignore: True where a pixel shall not count, same shape.

    Raises:
        InputError: an array is not boolean, or the shapes differ.
    """
    require_mask("the prediction", prediction)
    require_mask("the labels' mask", labels)
    require_same_shape("the prediction", prediction, "labels", labels)
    if ignore is not None:
        require_mask("the ignore mask", ignore)
        require_same_shape("the ignore mask", ignore, "labels", labels)
        prediction, labels = prediction[~ignore], labels[~ignore]
    num_predicted = int(np.count_nonzero(prediction))
    num_labelled = int(np.count_nonzero(labels))
    num_both = int(np.count_nonzero(prediction & labels))
    return Overlap(
        num_both,
        num_predicted - num_both,
        num_labelled - num_both,
        labels.size - num_predicted - num_labelled + num_both,
    )


def count_overlaps(
    probability: Probability, labels: Mask, thresholds: Sequence[float], *, ignore: Mask | None = None
) -> list[Overlap]:
    """`count_overlap` of ``probability >= threshold`` for several thresholds, going through the pixels once.

    Args:
        probability: of the class, float, 0..1, any shape.
        labels: the class as labelled, boolean, same shape.
        thresholds: rising.
        ignore: True where a pixel shall not count, same shape.

    Raises:
        InputError: a value is no probability, an array is not boolean, or the shapes differ.
    """
    require_probability(probability)
    require_mask("the labels' mask", labels)
    require_same_shape("the probability", probability, "labels", labels)
    if ignore is not None:
        require_mask("the ignore mask", ignore)
        require_same_shape("the ignore mask", ignore, "labels", labels)
        probability, labels = probability[~ignore], labels[~ignore]
    # How many thresholds a pixel reaches; compared in its own precision, as `>=` does.
    reached = np.searchsorted(np.asarray(thresholds, probability.dtype), probability.ravel(), side="right")
    size = len(thresholds) + 1
    counts = [np.bincount(reached[chosen], minlength=size) for chosen in (labels.ravel(), ~labels.ravel())]
    above = [np.cumsum(count[::-1])[::-1][1:] for count in counts]
    num_true, num_false = (int(count.sum()) for count in counts)
    return [Overlap(int(tp), int(fp), num_true - int(tp), num_false - int(fp)) for tp, fp in zip(*above, strict=True)]


def iou(prediction: Mask, labels: Mask, *, ignore: Mask | None = None) -> float:
    """Intersection over union of two masks of the same shape, 0..1; 1 if both are empty."""
    return count_overlap(prediction, labels, ignore=ignore).iou


def dice(prediction: Mask, labels: Mask, *, ignore: Mask | None = None) -> float:
    """Dice coefficient of two masks of the same shape, 0..1; 1 if both are empty."""
    return count_overlap(prediction, labels, ignore=ignore).dice


def misclassified(prediction: Mask, labels: Mask, *, ignore: Mask | None = None) -> float:
    """Share of the pixels on which two masks of the same shape differ, 0..1; 0 if no pixel counts."""
    return count_overlap(prediction, labels, ignore=ignore).misclassified


def precision_recall_f(prediction: Mask, labels: Mask, *, ignore: Mask | None = None) -> tuple[float, float, float]:
    """Precision, recall and their harmonic mean of a class, each 0..1.

    All 1 if both masks are empty, all 0 if only one of them is. Arguments as for `count_overlap`.
    """
    counts = count_overlap(prediction, labels, ignore=ignore)
    return counts.precision, counts.recall, counts.f
