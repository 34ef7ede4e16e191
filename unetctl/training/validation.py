"""Scores of a network during training, computed by the very tiles of `predict`."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from unetctl.errors import Stopped
from unetctl.geometry.mirror import read_mirrored
from unetctl.geometry.plan import TilePlan, fitting_core
from unetctl.metrics.boundary import mean_scores, score_thresholds
from unetctl.metrics.overlap import Overlap, count_overlap, count_overlaps
from unetctl.metrics.precision import mean_precision
from unetctl.networks.network import Network
from unetctl.networks.weights import stored_dtype
from unetctl.recipe.schema import Recipe
from unetctl.runtime.compute import Compute
from unetctl.runtime.engine import Engine, TileJob
from unetctl.runtime.grey_scale import Scaling
from unetctl.runtime.loop import tile_frame
from unetctl.runtime.planning import MAX_CORE
from unetctl.training.crops import Plane

Pixels = npt.NDArray[Any]

#: Scores that need whole slices of cells with membranes between them.
_MEMBRANE_SCORES = ("v_rand", "v_info", "adapted_rand_error", "pixel_error")
_OVERLAPS = ("iou", "dice", "misclassified")
#: Among which the threshold is chosen.
_THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(2, 19))


@dataclass(frozen=True)
class Validated:
    """One validation.

    Attributes:
        figures: by name; "threshold" among them for binary tasks. All but that are NaN if an output is not finite.
        outputs: one (C, y, x) array of logits a plane.
    """

    figures: dict[str, float]
    outputs: tuple[Pixels, ...]


def _never() -> bool:
    return False


def predict_plane(engine: Engine, network: Network, pixels: Pixels, should_stop: Callable[[], bool] = _never) -> Pixels:
    """Logits (C, y, x) of a plane (c, y, x) that is normalised already.

    Raises:
        Stopped: if asked to, between tiles.
    """
    spec, size = network.spec, tuple(pixels.shape[1:])
    largest = MAX_CORE[engine.device.type, 2]
    core = tuple(fitting_core(n, s, largest) for n, s in zip(size, spec.stride, strict=True))
    tiles = TilePlan("yx", size, spec.stride, core, spec.halo, (1, 1), spec.border)
    scaling = Scaling((0.0,) * pixels.shape[0], (1.0,) * pixels.shape[0])
    output = np.empty((spec.out_channels, *size), np.float32)
    for index in range(len(tiles)):
        block = tiles.block(index)
        for tile in tiles.tiles(block):
            if should_stop():
                raise Stopped("stopped in a validation", "", "run the same command again to go on")
            cut = read_mirrored(lambda box: pixels[(slice(None), *box.slices())], tile.read, size, leading=1)
            logits = engine.submit([TileJob(cut, scaling)], tile_frame(tile, 2))()[0]
            kept = logits[(slice(None), *tile.kept.relative_to(tile.core).slices())]
            output[(slice(None), *tile.kept.slices())] = kept
    return output


def as_stored(network: Network) -> Network:
    """A copy with the numbers that a weights file keeps of it.

    What is validated must be what is used later: numbers that float16 does not hold become infinite here, too.
    """
    copied = copy.deepcopy(network)
    with torch.no_grad():
        for name, value in copied.state_dict().items():  # views: writing into them changes the copy
            if value.is_floating_point():
                value.copy_(value.to(stored_dtype(name)))
    return copied


def validate(
    network: Network,
    planes: Sequence[Plane],
    recipe: Recipe,
    loss: nn.Module,
    compute: Compute,
    device: torch.device,
    should_stop: Callable[[], bool] = _never,
    score: Callable[[Sequence[Plane], Sequence[Pixels], Recipe], dict[str, float]] | None = None,
) -> Validated:
    """Predicts whole planes and scores them.

    Args:
        network: any mode; a folded copy predicts.
        planes: with targets and loss weights.
        recipe: says what the outputs mean and which figure chooses.
        loss: (logits, targets, weights) to a scalar.
        compute, device: arithmetic.
        should_stop: asked between tiles.
        score: figures beside those of masks and classes, from planes and logits.

    Raises:
        Stopped: if asked to.
    """
    if recipe.labels.kind == "image":
        from unetctl.training.restoring import validate_restoration  # which answers in the terms of this module

        return validate_restoration(network, planes, recipe, loss, compute, device, should_stop)
    engine = Engine(
        network,
        compute,
        device,
        batch=1,
        keep="logits",
        activation=recipe.output.resolved_activation,
        threshold=recipe.output.threshold,
    )
    outputs = tuple(predict_plane(engine, network, plane.pixels, should_stop) for plane in planes)
    is_finite = all(bool(np.isfinite(logits).all()) for logits in outputs)
    if not is_finite:  # of a network that has diverged: scores of such numbers would mean nothing
        outputs = tuple(np.nan_to_num(logits) for logits in outputs)
    total = weight = 0.0
    for plane, logits in zip(planes, outputs, strict=True):
        weights = np.ones(plane.target.shape, np.float32) if plane.weights is None else plane.weights
        tensors = [torch.from_numpy(array[None]) for array in (logits, plane.target, weights)]
        value = float(loss(*tensors))
        total, weight = total + value * float(weights.sum()), weight + float(weights.sum())
    figures = {"loss": total / max(weight, 1e-9)}
    if recipe.output.num_channels == 1:
        figures |= _binary_figures(planes, outputs, recipe)
    else:
        figures |= _class_figures(planes, outputs, recipe.output.num_channels)
    if score is not None:
        figures |= score(planes, outputs, recipe)
    if not is_finite:
        figures = {name: value if name.endswith("threshold") else np.nan for name, value in figures.items()}
    return Validated(figures, outputs)


def probability_of(logits: Pixels) -> npt.NDArray[np.float32]:
    """Sigmoid, in float32."""
    return torch.from_numpy(logits).sigmoid().numpy()


def _binary_figures(planes: Sequence[Plane], outputs: Sequence[Pixels], recipe: Recipe) -> dict[str, float]:
    figures: dict[str, float] = {}
    select, lowest = recipe.train.select, recipe.train.select_lowest
    threshold = recipe.output.threshold
    if select in _MEMBRANE_SCORES:
        scored = []
        for plane, logits in zip(planes, outputs, strict=True):
            # what is to be ignored lies outside all cells, those of the labels and those that are found
            is_known = np.True_ if plane.weights is None else plane.weights[0] > 0
            probability = np.where(is_known, probability_of(logits[0]), np.float32(0))
            scored.append(score_thresholds(probability, (plane.target[0] > 0) & is_known, _THRESHOLDS))
        means = [mean_scores([one[i] for one in scored]) for i in range(len(_THRESHOLDS))]
        chosen = means[steady_best([float(getattr(mean, select)) for mean in means], lowest=lowest)]
        threshold = chosen.threshold
        for name in _MEMBRANE_SCORES:
            figures[name] = float(getattr(chosen, name))
    elif select in _OVERLAPS:
        overlaps = _overlaps(planes, outputs, _THRESHOLDS)
        threshold = _THRESHOLDS[steady_best([getattr(overlap, select) for overlap in overlaps], lowest=lowest)]
    elif select == "mean_precision":
        per_plane = [_overlaps([plane], [logits], _THRESHOLDS) for plane, logits in zip(planes, outputs, strict=True)]
        precisions = [mean_precision([one[i] for one in per_plane]) for i in range(len(_THRESHOLDS))]
        best = steady_best(precisions)
        threshold, figures["mean_precision"] = _THRESHOLDS[best], precisions[best]
    (counts,) = _overlaps(planes, outputs, (threshold,))
    figures |= {name: getattr(counts, name) for name in _OVERLAPS}
    return figures | {"threshold": threshold}


def steady_best(values: Sequence[float], *, lowest: bool = False) -> int:
    """Index of the best of the values, each averaged with two neighbours on either side; the first and last two are out.

    A threshold is chosen on few images. A peak that no neighbour shares is their luck; one in the middle of a plateau
    holds on others too.

    Args:
        values: one a threshold, in order; at least 5.
        lowest: True if lower is better.
    """
    averaged = np.convolve(values, np.full(5, 0.2), "valid")
    return 2 + int(averaged.argmin() if lowest else averaged.argmax())


def _overlaps(planes: Sequence[Plane], outputs: Sequence[Pixels], thresholds: Sequence[float]) -> list[Overlap]:
    """Of all planes together, one a threshold."""
    counts = [Overlap(0, 0, 0, 0)] * len(thresholds)
    for plane, logits in zip(planes, outputs, strict=True):
        ignore = None if plane.weights is None else plane.weights[0] == 0
        found = count_overlaps(probability_of(logits[0]), plane.target[0] > 0, thresholds, ignore=ignore)
        counts = [total + one for total, one in zip(counts, found, strict=True)]
    return counts


def _class_figures(planes: Sequence[Plane], outputs: Sequence[Pixels], num_classes: int) -> dict[str, float]:
    counts: list[Any] = [None] * num_classes
    for plane, logits in zip(planes, outputs, strict=True):
        found = logits.argmax(0)
        ignore = None if plane.weights is None else plane.weights[0] == 0
        for number in range(num_classes):
            one = count_overlap(found == number, plane.target[0] == number, ignore=ignore)
            counts[number] = one if counts[number] is None else counts[number] + one
    present = [c for c in counts if c.num_true_positive + c.num_false_negative > 0]
    num_labelled = sum(c.num_true_positive + c.num_false_negative for c in counts)
    wrong = sum(c.num_false_negative for c in counts) / max(1, num_labelled)
    return {
        "iou": float(np.mean([c.iou for c in present])) if present else 1.0,
        "dice": float(np.mean([c.dice for c in present])) if present else 1.0,
        "misclassified": wrong,
    }
