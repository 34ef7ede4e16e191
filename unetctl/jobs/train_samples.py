"""What a training run shows of its validation planes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.jobs.train_objects import found_objects
from unetctl.recipe.schema import Recipe
from unetctl.reports.objects_page import coloured_objects
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
    if recipe.labels.kind == "image":
        return [_repaired_sample(plane, output, threshold) for plane, output in pairs]
    if recipe.answers_objects:
        seed_threshold = validated.figures.get("seed_threshold", recipe.objects.seed_threshold)
        return [_object_sample(plane, logits, recipe, seed_threshold) for plane, logits in pairs]
    return [_sample(plane, logits, recipe, threshold) for plane, logits in pairs]


def _repaired_sample(plane: Plane, output: npt.NDArray[Any], threshold: float) -> Sample:
    """Of a network that repairs: the damaged picture, the clean one and the repaired one."""
    is_found = probability_of(output[0]) >= threshold
    clean, repaired = plane.target[1:].astype(np.float32), np.where(is_found, output[1:], plane.pixels)
    inside = plane.target[0] > 0
    error = float(((repaired.clip(0, 1) - clean)[:, inside] ** 2).mean()) if inside.any() else 0.0
    figures = {"rmse_inside": error**0.5, "misclassified": float((is_found != inside).mean())}
    return Sample(plane.name, _as_picture(plane.pixels), _as_picture(clean), _as_picture(repaired), figures)


def _object_sample(plane: Plane, logits: npt.NDArray[Any], recipe: Recipe, seed_threshold: float) -> Sample:
    """Of a network for objects: the true ones and those that `predict` would find, each in a colour of its own."""
    assert plane.objects is not None
    picture = _input(plane, recipe)
    found, scores = found_objects(plane, logits, recipe, seed_threshold)
    figures = {"ap50": scores.ap50, "seg": scores.seg, "objects": scores.num_true, "found": scores.num_found}
    label, output = coloured_objects(plane.objects, picture), coloured_objects(found, picture)
    return Sample(plane.name, picture, label, output, figures)


def _as_picture(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """(y, x, 3) or (y, x) of (C, y, x), black 0 and white 1."""
    shown = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(shown, 0, -1)) if len(shown) == 3 else shown[0]


def _input(plane: Plane, recipe: Recipe) -> npt.NDArray[np.uint8]:
    """The middle plane, in colour (y, x, 3) if it has three channels, else its middle channel (y, x)."""
    num = recipe.input.channels
    start = recipe.input.context_slices // 2 * num
    shown = plane.pixels[start : start + 3] if num == 3 else plane.pixels[start + num // 2]
    low, high = np.percentile(shown, (0.5, 99.5))
    picture = np.clip((shown - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(picture, 0, -1)) if num == 3 else picture


def _sample(plane: Plane, logits: npt.NDArray[Any], recipe: Recipe, threshold: float) -> Sample:
    picture = _input(plane, recipe)
    ignored = None if plane.weights is None or (plane.weights > 0).all() else plane.weights[0] == 0
    is_known = np.ones(plane.target.shape[1:], bool) if ignored is None else ~ignored
    if recipe.output.num_channels == 1:
        probability = probability_of(logits[0])
        wrong = (probability >= threshold) != (plane.target[0] > 0)
        label, output = plane.target[0] * np.uint8(255), (probability * 255).round().astype(np.uint8)
        figures = {"misclassified": _share(wrong, is_known), "threshold": threshold}
        return Sample(plane.name, picture, label, output, figures, ignored=ignored)
    scale = 255 // max(1, recipe.output.num_channels - 1)
    found = logits.argmax(0)
    label, output = (plane.target[0] * scale).astype(np.uint8), (found * scale).astype(np.uint8)
    figures = {"misclassified": _share(found != plane.target[0], is_known)}
    return Sample(plane.name, picture, label, output, figures, has_classes=True, ignored=ignored)


def _share(wrong: npt.NDArray[np.bool_], is_known: npt.NDArray[np.bool_]) -> float:
    """Of what is known that which is wrong."""
    return float(wrong[is_known].mean()) if is_known.any() else 0.0
