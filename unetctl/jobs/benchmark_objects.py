"""`unetctl benchmark accuracy` for objects: average precision and SEG, with thresholds and watershed beside.

Each labelled plane is predicted through the engine of `predict` and labelled by its rule. Figures are pooled: every object
counts alike. Where some pictures show bright objects on a dark ground and others dark ones on a bright ground, both groups
are told by themselves.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.errors import Stopped
from unetctl.jobs.benchmark_files import write_tables, writing_into
from unetctl.jobs.benchmark_objects_baselines import BASELINES
from unetctl.jobs.benchmark_pictures import as_grey
from unetctl.jobs.benchmark_planes import SelectedPlanes, predicted_volume
from unetctl.jobs.benchmark_report import BenchmarkReport
from unetctl.jobs.benchmark_truth import load_targets
from unetctl.jobs.object_scale import ScaleFinder, middle_plane, wants_scale
from unetctl.jobs.tasks import ResolvedTask
from unetctl.metrics.objects import ObjectScores, match_objects, pooled
from unetctl.networks.network import Network
from unetctl.objects.rule import LabelRule, label_array
from unetctl.reports.objects_page import ObjectMethod, ObjectPicture, save_object_pictures, write_objects_page
from unetctl.runtime.device import resolve
from unetctl.runtime.events import Listener, Note, StageEnded, StageProgress, StageStarted
from unetctl.runtime.memory import budget
from unetctl.runtime.planning import PlanWishes
from unetctl.sources.scaled import ScaledSource, nearest
from unetctl.training.crops import Plane
from unetctl.training.splits import Selection, num_planes

Pixels = npt.NDArray[Any]

#: Name of our own row.
OURS = "ours"
COLUMNS = ("AP at 0.5", "AP at 0.75", "mean AP", "SEG", "found", "true")
BRIGHT, DARK = "bright objects", "dark objects"


@dataclass(frozen=True)
class _Plane:
    """A scored plane.

    Attributes:
        name: of the plane.
        group: `BRIGHT` or `DARK`, as its objects are beside the ground.
        scores: by method.
    """

    name: str
    group: str
    scores: dict[str, ObjectScores]
    shown: ObjectPicture | None


def score_objects(
    task: ResolvedTask,
    selections: Sequence[Selection],
    data: Path,
    *,
    output: Path | None,
    split: str,
    device: str,
    emit: Listener,
    should_stop: Callable[[], bool],
) -> BenchmarkReport:
    """Scores planes of labelled objects.

    Args:
        task: whose answers are scored.
        selections: the planes, with labels.
        data: the folder that they were found in.
        output: folder for ``accuracy.csv``, ``accuracy.json``, ``index.html`` and its pictures; made if missing.
        split: its name, for the report.
        device, emit, should_stop: see `unetctl.jobs.benchmark_accuracy.accuracy`.

    Returns:
        A report with "kind" "objects", "all" (figures by method, all objects pooled), "groups" (the same for bright and for
        dark objects, if there are both) and "slices" (figures by method, per plane). Figures are "ap50", "ap75", "mean_ap",
        "seg", "num_found" and "num_true".

    Raises:
        InputError: if a picture or its labels cannot be read.
        ResourceError: if the output cannot be written.
        Stopped: if asked to stop.
    """
    truths = load_targets(selections, task.recipe, emit, should_stop)
    network, rule = task.network(), LabelRule.of(task.recipe.objects)
    planes: list[_Plane] = []
    begun = time.monotonic()
    emit(StageStarted("score", num_planes(selections), 0, "plane"))
    quiet: Listener = lambda event: emit(event) if isinstance(event, Note) else None  # noqa: E731 - a stage a picture
    with tempfile.TemporaryDirectory(prefix="unetctl-benchmark-") as scratch:
        for i, (selection, targets) in enumerate(zip(selections, truths, strict=True)):
            with SelectedPlanes(selection, task.recipe.input.channels) as source:
                path = Path(scratch) / f"{i}.ome.zarr"
                scale = _scale(source, task, network, device, should_stop)
                seen = source if scale == 1 else ScaledSource(source, scale)
                found = predicted_volume(seen, task, network, path, device, quiet, should_stop, keep="probability")
                raw = source.raw()
                is_volume = source.is_volume
            # Ours leaves out what is small at the scale that the network saw: so do the others, at the picture's own.
            least_px = max(1, round(rule.min_area_px / scale**2))
            labels = label_array(found, rule if is_volume else replace(rule, join_planes=False))
            rows, columns = (nearest(n, m) for n, m in zip(labels.shape[-2:], raw.shape[-2:], strict=True))
            labels = labels[..., rows[:, None], columns]
            for plane, grey, ids in zip(targets, raw, labels.reshape(raw.shape), strict=True):
                if should_stop():
                    raise Stopped("stopped while scoring", "", "run the same command again")
                with writing_into(output):
                    planes.append(_scored(len(planes) + 1, plane, grey, ids, least_px, output))
                emit(StageProgress("score", len(planes), {"AP": planes[-1].scores[OURS].ap50}))
    emit(StageEnded("score", time.monotonic() - begun))
    report = _report(task, data, split, planes)
    if output is not None:
        with writing_into(output):
            _write(output, report, planes)
    return report


def _scale(
    source: SelectedPlanes, task: ResolvedTask, network: Network, device: str, should_stop: Callable[[], bool]
) -> float:
    """At which predict would show a page like this to the network; of several the middle one stands for all.

    Volumes are shown at their own scale, as predict does.
    """
    if not wants_scale(task.recipe, None) or source.is_volume:
        return 1.0
    kind, compute = resolve(device, "auto")
    finder = ScaleFinder(task, network, compute, kind, budget(None), PlanWishes(), should_stop)
    return finder(*middle_plane(source))


def _scored(number: int, plane: Plane, grey: Pixels, ids: Pixels, min_area_px: int, output: Path | None) -> _Plane:
    truth = plane.objects
    assert truth is not None
    ignore = None if plane.weights is None or (plane.weights[0] > 0).all() else plane.weights[0] == 0
    finite = np.nan_to_num(grey).astype(np.float32)
    scores = {OURS: match_objects(ids, truth, ignore=ignore)}
    scores |= {one.name: match_objects(one.label(finite, min_area_px), truth, ignore=ignore) for one in BASELINES}
    inside = truth > 0
    is_dark = bool(inside.any() and not inside.all() and finite[inside].mean() < finite[~inside].mean())
    shown = None
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        files = save_object_pictures(output, number, as_grey(grey), truth, ids)
        methods = tuple(ObjectMethod(name, _words(one)) for name, one in scores.items())
        shown = ObjectPicture(plane.name, scores[OURS].ap50, methods, files)
    return _Plane(plane.name, DARK if is_dark else BRIGHT, scores, shown)


def _values(scores: ObjectScores) -> dict[str, float]:
    return {
        "ap50": scores.ap(0.5), "ap75": scores.ap(0.75), "mean_ap": scores.mean_ap, "seg": scores.seg,
        "num_found": scores.num_found, "num_true": scores.num_true,
    }  # fmt: skip


def _words(scores: ObjectScores) -> tuple[str, ...]:
    return tuple(f"{v:.4f}" if isinstance(v, float) else f"{v:,}" for v in _values(scores).values())


def _by_method(planes: Sequence[_Plane]) -> dict[str, ObjectScores]:
    return {name: pooled([plane.scores[name] for plane in planes]) for name in planes[0].scores}


def _report(task: ResolvedTask, data: Path, split: str, planes: Sequence[_Plane]) -> BenchmarkReport:
    total = _by_method(planes)
    of_group = {g: [plane for plane in planes if plane.group == g] for g in (BRIGHT, DARK)}
    groups = {g: _by_method(some) for g, some in of_group.items() if some} if all(of_group.values()) else {}
    values = {
        "task": task.recipe.task.name, "weights_sha256": task.weights_sha256, "data": str(data), "split": split,
        "planes": [plane.name for plane in planes], "num_planes": len(planes), "kind": "objects",
        "seed_threshold": task.recipe.objects.seed_threshold,
        "all": {name: _values(scores) for name, scores in total.items()},
        "groups": {g: {name: _values(scores) for name, scores in some.items()} for g, some in groups.items()},
        "slices": [
            {"plane": plane.name, "group": plane.group, "scores": {n: _values(s) for n, s in plane.scores.items()}}
            for plane in planes
        ],
    }  # fmt: skip
    text = [f"{task.recipe.task.name} on {len(planes)} planes of {data} ({split})", _line("", COLUMNS)]
    text += [_line(name, _words(scores)) for name, scores in total.items()]
    for group, some in groups.items():
        text.append(f"{group}, {len(of_group[group])} planes")
        text += [_line(name, _words(scores)) for name, scores in some.items()]
    text.append("per plane")
    text += [_line(f"  {plane.name}", _words(plane.scores[OURS])) for plane in planes]
    return BenchmarkReport("accuracy", values, tuple(text))


def _line(name: str, figures: Sequence[str]) -> str:
    return f"{name:<28} " + " ".join(f"{figure:>10}" for figure in figures)


def _write(output: Path, report: BenchmarkReport, planes: Sequence[_Plane]) -> None:
    rows = [
        {"plane": plane.name, "group": plane.group, "method": name, **_values(scores)}
        for plane in planes
        for name, scores in plane.scores.items()
    ]
    rows += [{"plane": "all", "group": "", "method": n, **_values(s)} for n, s in _by_method(planes).items()]
    write_tables(output, report, rows)
    hows = {OURS: report.values["task"], **{one.name: one.how for one in BASELINES}}
    methods = [(ObjectMethod(n, _words(s)), str(hows[n])) for n, s in _by_method(planes).items()]
    shown = [plane.shown for plane in planes if plane.shown is not None]
    write_objects_page(output / "index.html", report.text[0], COLUMNS, methods, shown)
