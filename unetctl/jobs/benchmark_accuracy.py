"""`unetctl benchmark accuracy`: labelled planes predicted as `predict` does, and scored by the measures of their field.

Five kinds of tasks: objects with a number each (average precision and SEG, see `unetctl.jobs.benchmark_objects`), cells
kept apart by membranes (the scores of the ISBI challenge), the ink of documents (the scores of the DIBCO contests, see
`unetctl.jobs.benchmark_documents`), one other class (overlap of masks), several classes (overlap per
class). Beside all but the last stands what thresholds on the raw image would score.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from unetctl.errors import UsageError
from unetctl.jobs.benchmark_composites import is_one_shape, score_composites
from unetctl.jobs.benchmark_files import refuse_unwritable, write_tables, writing_into
from unetctl.jobs.benchmark_pictures import class_key, class_planes, mask_planes, write_pictures
from unetctl.jobs.benchmark_planes import LabelledVolume, SelectedPlanes, predicted_volume
from unetctl.jobs.benchmark_report import BenchmarkReport
from unetctl.jobs.benchmark_scores import score_binary, score_classes, score_membranes
from unetctl.jobs.benchmark_truth import load_targets
from unetctl.jobs.tasks import ResolvedTask, resolve_task
from unetctl.jobs.train_task import recipe_for
from unetctl.recipe.schema import Recipe
from unetctl.runtime.events import Listener, Note, StageEnded, StageStarted, nobody
from unetctl.training.load import count_planes
from unetctl.training.pairs import PairTable, find_pairs
from unetctl.training.pictures import find_pictures
from unetctl.training.splits import Selection, SplitRules, make_split, num_planes

SPLITS = ("train", "val", "test", "all")


def accuracy(
    task: str,
    data: Path | str,
    *,
    output: Path | None = None,
    split: str | None = None,
    predicted: Path | None = None,
    device: str = "auto",
    emit: Listener = nobody,
    should_stop: Callable[[], bool] = lambda: False,
) -> BenchmarkReport:
    """Predicts labelled planes and scores them.

    The chosen planes of a volume are predicted as a volume of their own, in one pass, through the very engine,
    statistics and 8-bit output of `predict`.

    Args:
        task: see `unetctl.jobs.tasks.resolve_task`.
        data: folder with pictures and labels, see `unetctl.training.pairs.find_pairs`; of a task that composes its pictures,
            the picture of the shape, see `unetctl.jobs.benchmark_composites`.
        output: folder for ``accuracy.csv`` (one row per plane and threshold, or page and method) and ``accuracy.json``;
            made if missing; and ``index.html``, a page of pictures: input, label, output, worst first.
        split: "train", "val" or "test" by the recipe's split, or "all". None: "test"; of documents "all" if the split
            names no test pages here.
        predicted: of documents, a folder of pages that `predict` has written, scored instead of predicting again; the task
            then needs no weights.
        device: see `unetctl.runtime.device.pick_device`.
        emit: hears how far it is.
        should_stop: asked between batches and planes.

    Returns:
        A report with "task", "weights_sha256" (empty with `predicted`), "data", "split", "planes" (names), "kind" ("membranes", "document",
        "binary", "classes" or "objects") and the scores (see `unetctl.jobs.benchmark_scores`, `unetctl.jobs.benchmark_documents`).

    Raises:
        UsageError: if the split is unknown or has no planes, or `predicted` is given for what is no document.
        InputError: if the data cannot be read, or does not fit the task.
        Stopped: if asked to stop.
    """
    # What is only compared needs no weights.
    resolved = resolve_task(task) if predicted is None else None
    recipe = resolved.recipe if resolved is not None else recipe_for(task)
    name, kind = recipe.task.name, kind_of(recipe)
    if predicted is not None and kind != "document":
        raise UsageError(f"--predicted with the task {name}", "a task whose single class is called ink")
    if output is not None:
        refuse_unwritable(output)
    if resolved is not None and is_one_shape(Path(data), recipe):
        return _of_composites(resolved, data, output, device, emit, should_stop)
    table = find_pictures(data) if kind == "restoration" else find_pairs(data)
    selections, split = _chosen(table, recipe, split, emit)
    names = [str(s) for s in selections]
    unit = "pages" if kind == "document" else "planes"
    emit(Note(f"{num_planes(selections)} {unit}: {', '.join(names[:6])}{' ...' if len(names) > 6 else ''}", "info"))
    if kind == "document":
        from unetctl.jobs.benchmark_documents import score_documents

        return score_documents(
            resolved, recipe, selections, table.root, output=output, split=split, predicted=predicted, device=device, emit=emit,
            should_stop=should_stop,
        )  # fmt: skip
    assert resolved is not None
    if kind == "objects":
        from unetctl.jobs.benchmark_objects import score_objects

        return score_objects(
            resolved,
            selections,
            table.root,
            output=output,
            split=split,
            device=device,
            emit=emit,
            should_stop=should_stop,
        )
    if kind == "restoration":
        from unetctl.jobs.benchmark_restoration import score_restored

        return score_restored(
            resolved,
            selections,
            table.root,
            output=output,
            split=split,
            device=device,
            emit=emit,
            should_stop=should_stop,
        )
    volumes = _predicted(resolved, selections, device, emit, should_stop)
    begun = time.monotonic()
    emit(StageStarted("score", sum(len(v.names) for v in volumes), 0, "plane"))
    threshold = recipe.output.threshold
    if kind == "membranes":
        scored = score_membranes(volumes, threshold, emit, should_stop)
    elif kind == "binary":
        scored = score_binary(volumes, threshold, emit, should_stop)
    else:
        scored = score_classes(volumes, recipe.output.classes, emit, should_stop)
    emit(StageEnded("score", time.monotonic() - begun))
    values = {
        "task": name, "weights_sha256": resolved.weights_sha256, "data": str(data), "split": split,
        "planes": names, "num_planes": num_planes(selections), "kind": kind, **scored.values,
    }  # fmt: skip
    head = f"{name} on {num_planes(selections)} planes of {data} ({split})"
    report = BenchmarkReport("accuracy", values, (head, *scored.text))
    if output is not None:
        with writing_into(output):
            write_tables(output, report, scored.rows)
            if kind == "classes":
                classes = recipe.output.classes
                write_pictures(output, head, scored.table, class_planes(volumes), class_key(classes))
            else:
                write_pictures(output, head, scored.table, mask_planes(volumes, threshold))
    return report


def _of_composites(
    task: ResolvedTask,
    data: Path | str,
    output: Path | None,
    device: str,
    emit: Listener,
    should_stop: Callable[[], bool],
) -> BenchmarkReport:
    """A shape of which there is one picture: scored on pictures composed from it."""
    scored, planes = score_composites(task, Path(data), device, emit, should_stop)
    values = {
        "task": task.recipe.task.name, "weights_sha256": task.weights_sha256, "data": str(data), "split": "composed",
        "planes": [plane.name for plane in planes], "num_planes": len(planes), "kind": "shape", **scored.values,
    }  # fmt: skip
    head = f"{task.recipe.task.name} on {len(planes)} pictures composed from {data}"
    report = BenchmarkReport("accuracy", values, (head, *scored.text))
    if output is not None:
        with writing_into(output):
            write_tables(output, report, scored.rows)
            write_pictures(output, head, scored.table, planes)
    return report


def choose(table: PairTable, recipe: Recipe, split: str) -> tuple[Selection, ...]:
    """The planes of a split.

    Raises:
        UsageError: if there is no such split, or it has no planes.
    """
    if split not in SPLITS:
        raise UsageError(f"--split {split}", ", ".join(SPLITS))
    if split == "all":
        return _whole(table)
    rules = SplitRules(recipe.split.train, recipe.split.val, recipe.split.test, val_share=recipe.split.val_share)
    try:
        found = make_split(table, rules, count_planes, stack=recipe.input.stack)
    except UsageError:
        # Nothing to train with is no matter here, if the folders say that all of it is for this split.
        if split != "train" and all(pair.split == split for pair in table.pairs):
            return _whole(table)
        raise
    chosen: tuple[Selection, ...] = getattr(found, split)
    if not chosen:
        raise UsageError(
            f"the split {split} has no planes in {table.root} ({found})",
            "at least one",
            "take them all with --split all",
        )
    return chosen


def _whole(table: PairTable) -> tuple[Selection, ...]:
    return tuple(Selection(pair, tuple(range(count_planes(pair)))) for pair in table.pairs)


def _chosen(table: PairTable, recipe: Recipe, split: str | None, emit: Listener) -> tuple[tuple[Selection, ...], str]:
    """The planes, and the name of their split."""
    if split is not None:
        return choose(table, recipe, split), split
    try:
        return choose(table, recipe, "test"), "test"
    except UsageError:
        if kind_of(recipe) not in ("document", "restoration"):
            raise
    # Pages that nobody has heard of are what people want figures for; those of training are their own to know.
    emit(
        Note(
            f"the recipe's split names no test pages in {table.root}: all are scored, whatever trained on them",
            "warning",
        )
    )
    return choose(table, recipe, "all"), "all"


def kind_of(recipe: Recipe) -> str:
    """How answers of a task are scored: "membranes", "document", "binary", "classes", "objects" or "restoration"."""
    if recipe.answers_objects:
        return "objects"
    if recipe.labels.kind == "image":
        return "restoration"
    if recipe.output.num_channels > 1:
        return "classes"
    if recipe.output.is_ink:
        return "document"
    is_cells = recipe.loss.border or recipe.train.select in ("v_rand", "v_info", "adapted_rand_error", "pixel_error")
    return "membranes" if is_cells else "binary"


def _predicted(
    task: ResolvedTask, selections: Sequence[Selection], device: str, emit: Listener, should_stop: Callable[[], bool]
) -> list[LabelledVolume]:
    network = task.network()
    volumes = []
    truths = load_targets(selections, task.recipe, emit, should_stop)
    with tempfile.TemporaryDirectory(prefix="unetctl-benchmark-") as folder:
        for i, (selection, targets) in enumerate(zip(selections, truths, strict=True)):
            with SelectedPlanes(selection, task.recipe.input.channels) as source:
                path = Path(folder) / f"{i}.ome.zarr"
                found = predicted_volume(source, task, network, path, device, emit, should_stop)
                raw = source.raw()
            names = tuple(plane.name for plane in targets)
            volumes.append(LabelledVolume.of(names, found, raw, targets))
    return volumes
