"""Scores of a binarized page against its ground truth, as the DIBCO contests define them.

F-measure, pseudo F-measure (Ntirogiannis, Gatos, Pratikakis, IEEE TIP 22(2), 2013), PSNR, and the distance reciprocal
distortion DRD (Lu, Kot, Shi, IEEE Signal Processing Letters 11(2), 2004). Every mask is True on ink.

Pages without ink: where truth and prediction are both empty, nothing was to be found and nothing was claimed, and both
F-measures are 100; where only one of them is empty, they are 0. Equal pages have an infinite PSNR and a DRD of 0. A truth
without any block of both colours counts as one block for DRD, so that a blank page with specks has a finite one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from unetctl.metrics.checks import Mask, require_mask, require_ndim, require_same_shape
from unetctl.metrics.document_weights import PseudoWeights, pseudo_weights
from unetctl.metrics.overlap import Overlap, count_overlap

_REACH = 2  # of DRD's 5 x 5 weights
_BLOCK = 8


@dataclass(frozen=True, slots=True)
class DocumentScores:
    """The scores of a page, or their means over pages.

    Attributes:
        f: F-measure, percent, 0..100.
        pseudo_f: pseudo F-measure, percent, 0..100.
        psnr: decibels, infinite for equal pages; of means over the pages that are not.
        drd: distance reciprocal distortion, at least 0.
        precision, recall, pseudo_precision, pseudo_recall: percent, 0..100.
    """

    f: float
    pseudo_f: float
    psnr: float
    drd: float
    precision: float
    recall: float
    pseudo_precision: float
    pseudo_recall: float

    def __str__(self) -> str:
        return f"F {self.f:.2f}, pseudo-F {self.pseudo_f:.2f}, PSNR {self.psnr:.2f}, DRD {self.drd:.2f}"


def score_page(predicted_ink: Mask, true_ink: Mask, *, weights: PseudoWeights | None = None) -> DocumentScores:
    """All scores of a page.

    Args:
        predicted_ink: (y, x) booleans.
        true_ink: (y, x) booleans, same shape.
        weights: of the truth, where several predictions of a page are scored; computed if absent.

    Raises:
        InputError: an array is not boolean or not (y, x), or the shapes differ.
    """
    counts = _counted(predicted_ink, true_ink)
    pseudo_recall, pseudo_precision = _pseudo(predicted_ink, true_ink, weights, counts)
    return DocumentScores(
        100 * counts.f,
        _harmonic(pseudo_recall, pseudo_precision),
        _psnr(counts),
        drd(predicted_ink, true_ink),
        100 * counts.precision,
        100 * counts.recall,
        pseudo_precision,
        pseudo_recall,
    )


def mean_scores(scores: Sequence[DocumentScores]) -> DocumentScores:
    """The mean of each score over pages.

    The PSNR is averaged over the pages where it is finite: a single perfect one would hide all others. It is infinite if
    every page is perfect.

    Args:
        scores: of at least one page.
    """
    means = []
    for field in fields(DocumentScores):
        values = [getattr(one, field.name) for one in scores]
        finite = [value for value in values if math.isfinite(value)]
        means.append(math.fsum(finite) / len(finite) if finite else math.inf)
    return DocumentScores(*means)


def f_measure(predicted_ink: Mask, true_ink: Mask) -> float:
    """``2 P R / (P + R)`` of precision and recall of the ink, percent; both masks (y, x) booleans."""
    return 100 * _counted(predicted_ink, true_ink).f


def pseudo_f_measure(predicted_ink: Mask, true_ink: Mask, *, weights: PseudoWeights | None = None) -> float:
    """The F-measure of weighted recall and precision, percent; arguments as for `score_page`."""
    counts = _counted(predicted_ink, true_ink)
    return _harmonic(*_pseudo(predicted_ink, true_ink, weights, counts))


def psnr(predicted_ink: Mask, true_ink: Mask) -> float:
    """``10 log10(1 / MSE)``, decibels, ink and paper differing by 1; infinite for equal pages."""
    return _psnr(_counted(predicted_ink, true_ink))


def drd(predicted_ink: Mask, true_ink: Mask) -> float:
    """Distance reciprocal distortion.

    Each wrong pixel costs what part of its 5 x 5 neighbourhood in the truth has not the colour predicted for it,
    weighted by 1 / distance, the weights adding up to 1; neighbours outside the page cost nothing. The sum is divided by the
    number of whole 8 x 8 blocks of the truth, from the upper left corner, that are neither all ink nor all paper.

    Args:
        predicted_ink: (y, x) booleans.
        true_ink: (y, x) booleans, same shape.

    Raises:
        InputError: an array is not boolean or not (y, x), or the shapes differ.
    """
    _counted_shapes(predicted_ink, true_ink)
    wrong = predicted_ink != true_ink
    width = true_ink.shape[1] + 2 * _REACH
    # 0 where the truth is paper, 1 where it is ink, 2 outside
    padded = np.pad(true_ink.view(np.uint8), _REACH, constant_values=2).ravel()
    ys, xs = np.nonzero(wrong)
    at = (ys + _REACH) * width + xs + _REACH
    # a wrong pixel has the colour that the truth has not: what costs is the truth's colour around
    own = padded[at]
    total = 0.0
    for y in range(-_REACH, _REACH + 1):
        for x in range(-_REACH, _REACH + 1):
            if y or x:
                total += int(np.count_nonzero(padded[at + (y * width + x)] == own)) / math.hypot(y, x)
    return total / _sum_of_reciprocals() / max(1, _num_mixed_blocks(true_ink))


def _counted_shapes(predicted_ink: Mask, true_ink: Mask) -> None:
    require_mask("the predicted ink", predicted_ink)
    require_mask("the true ink", true_ink)
    require_ndim("the true ink", true_ink, 2)
    require_same_shape("the predicted ink", predicted_ink, "true ink", true_ink)


def _counted(predicted_ink: Mask, true_ink: Mask) -> Overlap:
    _counted_shapes(predicted_ink, true_ink)
    return count_overlap(predicted_ink, true_ink)


def _pseudo(predicted_ink: Mask, true_ink: Mask, weights: PseudoWeights | None, counts: Overlap) -> tuple[float, float]:
    """Weighted recall and precision, percent."""
    num_true = counts.num_true_positive + counts.num_false_negative
    num_predicted = counts.num_true_positive + counts.num_false_positive
    if not num_true or not num_predicted:
        return 100 * counts.recall, 100 * counts.precision
    if weights is None:
        weights = pseudo_weights(true_ink)
    require_same_shape("the weights", weights.recall, "true ink", true_ink)
    found = _sum(weights.recall, predicted_ink) / _sum(weights.recall, true_ink)
    right = _sum(weights.precision, predicted_ink & true_ink) / _sum(weights.precision, predicted_ink)
    return 100 * found, 100 * right


def _sum(weights: NDArray[np.float32], where: Mask) -> float:
    return float(weights[where].sum(dtype=np.float64))


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def _psnr(counts: Overlap) -> float:
    return 10 * math.log10(counts.num_pixels / counts.num_wrong) if counts.num_wrong else math.inf


def _sum_of_reciprocals() -> float:
    reach = range(-_REACH, _REACH + 1)
    return sum(1 / math.hypot(y, x) for y in reach for x in reach if y or x)


def _num_mixed_blocks(true_ink: Mask) -> int:
    rows, columns = true_ink.shape[0] // _BLOCK, true_ink.shape[1] // _BLOCK
    blocks = true_ink[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK)
    return int(np.count_nonzero(blocks.any((1, 3)) & ~blocks.all((1, 3))))
