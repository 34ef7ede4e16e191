"""How well a shape is found: pictures composed from it that no training has seen, beside template matching.

The pictures are those of the recipe's [compose], of a stream of chance of their own. The baseline is what one would do
without a network: normalised cross-correlation of the shape at several sizes (scikit-image), the best place in each
picture, and the threshold on its correlation that happens to be best on these very pictures.
"""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.feature import match_template

from unetctl.errors import InputError, Stopped
from unetctl.jobs.benchmark_pictures import ScoredPlane, ScoreTable, shape_plane
from unetctl.jobs.benchmark_planes import predicted_volume
from unetctl.jobs.benchmark_scores import OVERLAP_WORDS, Scored
from unetctl.jobs.tasks import ResolvedTask
from unetctl.jobs.train_compose import composer_of
from unetctl.metrics.overlap import Overlap, count_overlap
from unetctl.networks.network import Network
from unetctl.recipe.compose_section import Compose
from unetctl.recipe.schema import Recipe
from unetctl.runtime.events import Listener, StageEnded, StageProgress, StageStarted, nobody
from unetctl.runtime.grey_scale import LUMINANCE
from unetctl.sources.memory import MemorySource
from unetctl.training.compose import TEST, Composite, composites
from unetctl.training.scenery import resized
from unetctl.training.shape import HALF, Shape, find_shape

Floats = npt.NDArray[np.float32]
Masks = Sequence[npt.NDArray[np.bool_]]

#: Sizes at which the template is tried, from the smallest to the largest of the recipe.
_NUM_SIZES = 12


def is_one_shape(data: Path, recipe: Recipe) -> bool:
    """True if the task composes its pictures, and `data` is a single shape rather than labelled pictures."""
    if recipe.compose.kind == "none":
        return False
    try:
        find_shape(data)
    except InputError:
        return not data.is_dir()  # what is wrong with a file is told when it is read
    return True


def score_composites(
    task: ResolvedTask,
    data: Path,
    device: str = "auto",
    emit: Listener = nobody,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Scored, tuple[ScoredPlane, ...]]:
    """Predicts composed pictures as `predict` does, and scores them and the baseline.

    Returns:
        Scores, and the pictures. Values: "threshold", "network" and "template" (IoU, Dice, precision, recall,
        misclassified over all pixels; "mean_iou" over the pictures that show the shape; "false_alarms", the share of the
        others in which it is seen), "num_with", "num_without".

    Raises:
        InputError: if there is no shape in `data`.
        Stopped: if asked to stop.
    """
    o = task.recipe.compose
    composer = composer_of(data, task.recipe, emit, should_stop)
    network = task.network()
    begun = time.monotonic()
    emit(StageStarted("score", o.num_test, 0, "picture"))
    pictures: list[npt.NDArray[np.uint8]] = []
    truth: list[npt.NDArray[np.bool_]] = []
    found: list[npt.NDArray[np.bool_]] = []
    matched: list[tuple[float, npt.NDArray[np.bool_]]] = []
    with tempfile.TemporaryDirectory(prefix="unetctl-benchmark-") as folder:
        for i, composite in enumerate(composites(composer, o.picture, TEST, o.num_test)):
            if should_stop():
                raise Stopped("stopped while scoring", "", "run the same command again")
            path = Path(folder) / f"{i}.ome.zarr"
            probability = _predicted(composite, i, task, network, path, device, should_stop)
            pictures.append(np.ascontiguousarray(np.moveaxis(composite.pixels, 0, -1)))
            truth.append(composite.mask)
            found.append(probability >= task.recipe.output.threshold)
            matched.append(match(composite, composer.shape, o))
            emit(StageProgress("score", i + 1))
    emit(StageEnded("score", time.monotonic() - begun))
    planes = tuple(
        shape_plane(f"composite {i}", one, t, f)
        for i, (one, t, f) in enumerate(zip(pictures, truth, found, strict=True))
    )
    return _scored([plane.name for plane in planes], truth, found, matched, task.recipe.output.threshold), planes


def _predicted(
    composite: Composite,
    i: int,
    task: ResolvedTask,
    network: Network,
    path: Path,
    device: str,
    should_stop: Callable[[], bool],
) -> Floats:
    """(y, x) probability."""
    pixels: npt.NDArray[Any] = composite.pixels
    if task.recipe.input.channels == 1:
        source = MemorySource(_grey(pixels), "yx", name=f"composite {i}")
    else:
        source = MemorySource(pixels, "cyx", is_rgb=True, name=f"composite {i}")
    found: Floats = predicted_volume(source, task, network, path, device, nobody, should_stop)[0]
    return found


def match(composite: Composite, shape: Shape, options: Compose) -> tuple[float, npt.NDArray[np.bool_]]:
    """The best match of the shape in a picture: its correlation, -1..1, and the mask of the shape there."""
    grey = _grey(composite.pixels).astype(np.float32) / 255
    middle = float(np.median(grey))
    own = np.tensordot(np.asarray(LUMINANCE, np.float32), shape.colour, 1)
    template = (own * shape.alpha + middle * (1 - shape.alpha))[None]
    best, mask = -1.0, np.zeros(grey.shape, bool)
    low, high = options.size_px
    for longer in np.geomspace(low, min(high, *grey.shape), _NUM_SIZES):
        size = [max(3, math.floor(n * longer / max(shape.size))) for n in shape.size]
        scaled = resized(template, (size[0], size[1]))[0]
        if scaled.std() < 1e-4 or any(a > b for a, b in zip(size, grey.shape, strict=True)):
            continue
        scores = match_template(grey, scaled)  # type: ignore[no-untyped-call]
        y, x = (int(v) for v in np.unravel_index(int(scores.argmax()), scores.shape))
        if scores[y, x] > best:
            best, mask = float(scores[y, x]), np.zeros(grey.shape, bool)
            mask[y : y + size[0], x : x + size[1]] = resized(shape.alpha[None], (size[0], size[1]))[0] >= HALF
    return best, mask


def _grey(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.rint(np.tensordot(np.asarray(LUMINANCE), pixels, 1)).astype(np.uint8)


def _scored(
    names: Sequence[str],
    truth: Masks,
    found: Masks,
    matched: Sequence[tuple[float, npt.NDArray[np.bool_]]],
    threshold: float,
) -> Scored:
    blank = np.zeros(truth[0].shape, bool)
    scans = []
    for least in sorted({score for score, _ in matched}):
        masks = [mask if score >= least else blank for score, mask in matched]
        scans.append((_pooled(masks, truth).iou, -least, masks))
    _, negative, baseline = max(scans, key=lambda scan: scan[:2])
    values: dict[str, Any] = {
        "threshold": threshold,
        "network": _values(found, truth),
        "template": {"least_correlation": -negative, **_values(baseline, truth)},
        "num_with": sum(bool(t.any()) for t in truth),
        "num_without": sum(not t.any() for t in truth),
    }
    rows = [
        {"picture": name, "method": method, **_of(count_overlap(mask, t))}
        for method, masks in (("network", found), ("template", baseline))
        for name, mask, t in zip(names, masks, truth, strict=True)
    ]
    text = [f"{values['num_with']} composed pictures show the shape, {values['num_without']} do not"]
    for name, method in (("network", "network"), ("template matching", "template")):
        v = values[method]
        text.append(
            f"{name:<18} IoU {v['iou']:.4f}, mean over pictures with it {v['mean_iou']:.4f}, precision {v['precision']:.4f}, recall "
            f"{v['recall']:.4f}, seen where it is not in {v['false_alarms']:.0%}"
        )
    words = {**OVERLAP_WORDS, "mean_iou": "mean IoU with it", "false_alarms": "seen where it is not"}
    hows = {
        "network": f"threshold {threshold:.2f}",
        "template": "normalised cross-correlation, its best least correlation",
    }
    table = ScoreTable(
        tuple(words.values()),
        tuple((name, tuple(f"{values[name][key]:.4f}" for key in words), how) for name, how in hows.items()),
        "method",
        "By IoU of the network.",
        {row["picture"]: row["iou"] for row in rows if row["method"] == "network"},
        {
            name: tuple((f"IoU, {row['method']}", f"{row['iou']:.4f}") for row in rows if row["picture"] == name)
            for name in names
        },
    )
    return Scored(values, tuple(text), tuple(rows), table)


def _values(masks: Masks, truth: Masks) -> dict[str, Any]:
    each = [count_overlap(mask, t).iou for mask, t in zip(masks, truth, strict=True) if t.any()]
    false = [bool(mask.any()) for mask, t in zip(masks, truth, strict=True) if not t.any()]
    return {
        **_of(_pooled(masks, truth)),
        "mean_iou": float(np.mean(each)) if each else 1.0,
        "false_alarms": float(np.mean(false)) if false else 0.0,
    }


def _pooled(masks: Masks, truth: Masks) -> Overlap:
    total = Overlap(0, 0, 0, 0)
    for mask, t in zip(masks, truth, strict=True):
        total += count_overlap(mask, t)
    return total


def _of(counts: Overlap) -> dict[str, Any]:
    return {
        "iou": counts.iou, "dice": counts.dice, "precision": counts.precision, "recall": counts.recall,
        "misclassified": counts.misclassified,
    }  # fmt: skip
