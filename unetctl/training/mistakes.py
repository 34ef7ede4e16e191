"""Where a validation went wrong: classes taken for each other, and what every threshold would have given.

confusion(planes, outputs, recipe, threshold) -> Confusion;  over_thresholds(planes, outputs) -> ThresholdScores
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.metrics.overlap import Overlap, count_overlaps
from unetctl.recipe.schema import Recipe
from unetctl.training.crops import Plane
from unetctl.training.validation import probability_of

Pixels = npt.NDArray[Any]

#: At which a probability is cut.
THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 20))


@dataclass(frozen=True)
class Confusion:
    """Pixels by label and answer.

    Attributes:
        names: of the classes.
        counts: (K, K) int64, row = label, column = answer; pixels of weight 0 are left out.
    """

    names: tuple[str, ...]
    counts: npt.NDArray[np.int64]


@dataclass(frozen=True)
class ThresholdScores:
    """What every threshold gives of all planes together, 0..1 each.

    Attributes:
        thresholds: rising.
        precision, recall, dice: one a threshold; precision is NaN where nothing is found.
    """

    thresholds: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    dice: tuple[float, ...]


def confusion(planes: Sequence[Plane], outputs: Sequence[Pixels], recipe: Recipe, threshold: float) -> Confusion:
    """Counts of all planes together.

    Args:
        planes: as validated; of one output channel the first channel of the target is a mask.
        outputs: logits (C, y, x) of the same planes, finite.
        recipe: names the classes.
        threshold: of a single class, probability from which a pixel belongs to it.
    """
    num, given = recipe.output.num_channels, recipe.output.classes
    names = given if num > 1 else ("background", given[0] if given else "foreground")
    counts = np.zeros((len(names), len(names)), np.int64)
    for plane, logits in zip(planes, outputs, strict=True):
        known = np.ones(plane.size, bool) if plane.weights is None else plane.weights[0] > 0
        if num > 1:
            label, answer = plane.target[0].astype(np.int64), logits[:num].argmax(0)
        else:
            label, answer = (
                (plane.target[0] > 0).astype(np.int64),
                (probability_of(logits[0]) >= threshold).astype(np.int64),
            )
        known &= (label >= 0) & (label < len(names))
        pairs = label[known] * len(names) + answer[known]
        counts += np.bincount(pairs, minlength=counts.size).reshape(counts.shape)
    return Confusion(tuple(names), counts)


def over_thresholds(planes: Sequence[Plane], outputs: Sequence[Pixels]) -> ThresholdScores:
    """Scores of a single class at `THRESHOLDS`; arguments as for `confusion`."""
    totals = [Overlap(0, 0, 0, 0)] * len(THRESHOLDS)
    for plane, logits in zip(planes, outputs, strict=True):
        ignore = None if plane.weights is None else plane.weights[0] == 0
        found = count_overlaps(probability_of(logits[0]), plane.target[0] > 0, THRESHOLDS, ignore=ignore)
        totals = [total + one for total, one in zip(totals, found, strict=True)]
    return ThresholdScores(
        THRESHOLDS,
        tuple(one.precision if one.num_true_positive + one.num_false_positive else math.nan for one in totals),
        tuple(one.recall for one in totals),
        tuple(one.dice for one in totals),
    )
