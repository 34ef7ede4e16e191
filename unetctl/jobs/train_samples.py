"""What a training run shows of its validation planes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.recipe.schema import Recipe
from unetctl.reports.training_page import Sample
from unetctl.training.crops import Plane
from unetctl.training.validation import Validated, probability_of

#: Most planes shown.
_SHOWN_PLANES = 8


def samples_of(planes: Sequence[Plane], validated: Validated, recipe: Recipe) -> list[Sample]:
    """The first planes with labels and output, as pictures.

    Args:
        planes: those that were validated.
        validated: outputs of the same planes, all finite.
        recipe: of the network.
    """
    threshold = validated.figures.get("threshold", recipe.output.threshold)
    pairs = list(zip(planes, validated.outputs, strict=True))[:_SHOWN_PLANES]
    return [_sample(plane, logits, recipe, threshold) for plane, logits in pairs]


def _sample(plane: Plane, logits: npt.NDArray[Any], recipe: Recipe, threshold: float) -> Sample:
    shown = plane.pixels[plane.pixels.shape[0] // 2]
    low, high = np.percentile(shown, (0.5, 99.5))
    picture = np.clip((shown - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    if recipe.output.num_channels == 1:
        probability = probability_of(logits[0])
        wrong = (probability >= threshold) != (plane.target[0] > 0)
        label, output = plane.target[0] * np.uint8(255), (probability * 255).round().astype(np.uint8)
        figures = {"misclassified": float(wrong.mean()), "threshold": threshold}
        return Sample(plane.name, picture, label, output, figures)
    scale = 255 // max(1, recipe.output.num_channels - 1)
    found = logits.argmax(0)
    label, output = (plane.target[0] * scale).astype(np.uint8), (found * scale).astype(np.uint8)
    return Sample(plane.name, picture, label, output, {"misclassified": float((found != plane.target[0]).mean())})
