"""Scores of objects in validation: labels are made as `predict` makes them, at several thresholds of seeds.

score_of(recipe) -> object_figures or None
object_figures(planes, outputs, recipe) -> {"ap50", "mean_ap", "seg", "seed_threshold"}
found_objects(plane, logits, recipe, seed_threshold) -> (labels, scores) of one plane
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.metrics.objects import ObjectScores, match_objects, pooled
from unetctl.objects.rule import LabelRule, label_array, probability_of
from unetctl.recipe.schema import Recipe
from unetctl.training.crops import Plane

#: Among which the threshold of seeds is chosen.
_SEED_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)

Score = Callable[[Sequence[Plane], Sequence[npt.NDArray[Any]], Recipe], dict[str, float]]


def score_of(recipe: Recipe) -> Score | None:
    """What validation asks beside the figures of classes; None of a recipe whose labels are no objects."""
    return object_figures if recipe.answers_objects else None


def object_figures(planes: Sequence[Plane], outputs: Sequence[npt.NDArray[Any]], recipe: Recipe) -> dict[str, float]:
    """Average precision and SEG over all planes.

    Args:
        planes: with ids of objects.
        outputs: logits (3, y, x), one array a plane.
        recipe: its `train.select` is what the threshold of seeds is chosen by, "ap50" if it is no figure of objects.

    Returns:
        "ap50", "mean_ap" and "seg" at the chosen threshold, and "seed_threshold". Of thresholds that do equally well the
        one nearest to one half.
    """
    probabilities = [probability_of(logits) for logits in outputs]
    by = recipe.train.select if recipe.train.select in ("ap50", "seg") else "ap50"
    best: tuple[float, float] = (-1.0, 0.0)
    chosen: tuple[float, ObjectScores] | None = None
    for threshold in _SEED_THRESHOLDS:
        rule = _rule_at(threshold, recipe)
        scores = pooled([_scored(plane, one, rule)[1] for plane, one in zip(planes, probabilities, strict=True)])
        rank = (float(getattr(scores, by)), -abs(threshold - 0.5))
        if rank > best or chosen is None:
            best, chosen = rank, (threshold, scores)
    assert chosen is not None
    threshold, scores = chosen
    return {"ap50": scores.ap50, "mean_ap": scores.mean_ap, "seg": scores.seg, "seed_threshold": threshold}


def found_objects(
    plane: Plane, logits: npt.NDArray[Any], recipe: Recipe, seed_threshold: float
) -> tuple[npt.NDArray[Any], ObjectScores]:
    """What `predict` would find on one plane, (y, x) numbers with 0 between them, and how well that fits its labels.

    Args:
        plane: with ids of objects.
        logits: (3, y, x).
        recipe: of the network.
        seed_threshold: that validation chose.
    """
    return _scored(plane, probability_of(logits), _rule_at(seed_threshold, recipe))


def _rule_at(seed_threshold: float, recipe: Recipe) -> LabelRule:
    """Planes are judged one by one, also where the output would join them."""
    rule = LabelRule.of(recipe.objects.model_copy(update={"seed_threshold": seed_threshold}))
    return replace(rule, join_planes=False)


def _scored(plane: Plane, probability: npt.NDArray[np.uint8], rule: LabelRule) -> tuple[npt.NDArray[Any], ObjectScores]:
    assert plane.objects is not None
    ignore = None if plane.weights is None else plane.weights[0] == 0
    if ignore is not None and not ignore.any():
        ignore = None
    found = label_array(probability, rule)
    return found, match_objects(found, plane.objects, ignore=ignore)
