"""Mean precision over thresholds of IoU, as competitions on single masks score (TGS salt identification, 2018).

A picture holds one mask. At a threshold t it counts as found if the IoU of prediction and labels is above t; the
picture's precision is the share of the thresholds 0.5, 0.55 .. 0.95 at which it is found, the score their mean.

Where the labels are empty there is nothing to overlap: the picture's precision is 1 if the prediction is empty too,
else 0. One wrong pixel in an empty picture costs as much as a mask that is missed.
"""

from collections.abc import Sequence

import numpy as np

from unetctl.errors import InputError
from unetctl.metrics.overlap import Overlap

IOU_THRESHOLDS: tuple[float, ...] = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""0.50, 0.55 .. 0.95."""


def precision_over_iou(counts: Overlap) -> float:
    """Precision of one picture, 0..1: a tenth for every threshold that its IoU exceeds.

    Args:
        counts: of the picture's whole mask, see `unetctl.metrics.overlap.count_overlap`.
    """
    if counts.num_true_positive + counts.num_false_negative == 0:
        return float(counts.num_false_positive == 0)
    return sum(counts.iou > threshold for threshold in IOU_THRESHOLDS) / len(IOU_THRESHOLDS)


def mean_precision(counts: Sequence[Overlap]) -> float:
    """Mean of `precision_over_iou` over pictures, 0..1.

    Raises:
        InputError: there are none.
    """
    if not counts:
        raise InputError("no pictures to score", "at least one")
    return float(np.mean([precision_over_iou(one) for one in counts]))
