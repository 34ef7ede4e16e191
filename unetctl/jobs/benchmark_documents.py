"""`unetctl benchmark accuracy` for binarized pages: the scores of the DIBCO contests, with classical methods beside.

A table row per page and method, and a page of pictures, worst first. What is scored comes through the engine of
`predict`, or out of the files that a run of `predict` has left.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unetctl.errors import Stopped
from unetctl.jobs.benchmark_baselines import Baseline, baselines
from unetctl.jobs.benchmark_doxa import MethodCrashedError
from unetctl.jobs.benchmark_files import write_tables, writing_into
from unetctl.jobs.benchmark_pages import (
    LabelledPage,
    OpenedPage,
    luminance,
    match_predicted,
    pages_of,
    read_page,
    read_predicted,
    read_truth,
)
from unetctl.jobs.benchmark_planes import predicted_volume
from unetctl.jobs.benchmark_report import BenchmarkReport
from unetctl.jobs.benchmark_truth import is_ink_high
from unetctl.jobs.tasks import ResolvedTask
from unetctl.metrics.document import DocumentScores, mean_scores, score_page
from unetctl.metrics.document_weights import pseudo_weights
from unetctl.recipe.schema import Recipe
from unetctl.reports.documents_page import ShownMethod, ShownPage, save_pictures, write_documents_page
from unetctl.runtime.events import Listener, Note, StageEnded, StageProgress, StageStarted
from unetctl.training.splits import Selection

Mask = npt.NDArray[np.bool_]
StopAsked = Callable[[], bool]

#: Names of our own rows in tables.
OURS, OURS_BEST = "ours", "ours, best threshold"
_THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 20))
_SCORES = tuple(field.name for field in fields(DocumentScores))


@dataclass(frozen=True)
class _Scored:
    """A page with the scores of every method, by name."""

    page: LabelledPage
    scores: dict[str, DocumentScores]
    shown: ShownPage | None


@dataclass(frozen=True)
class _Ours:
    """Where our ink comes from.

    Attributes:
        thresholds: by name of our rows; None for files, which have none to choose.
        read: (index of the page, page, threshold) -> ink (y, x).
        source: in words.
    """

    thresholds: Mapping[str, float | None]
    read: Callable[[int, LabelledPage, float | None], Mask]
    source: str


def score_documents(
    task: ResolvedTask | None,
    recipe: Recipe,
    selections: Sequence[Selection],
    data: Path,
    *,
    output: Path | None,
    split: str,
    predicted: Path | None,
    device: str,
    emit: Listener,
    should_stop: StopAsked,
) -> BenchmarkReport:
    """Scores pages.

    Args:
        task: whose answers are scored; None with `predicted`, whatever made the files.
        recipe: of the task: says what the ground truth means, see `unetctl.jobs.benchmark_truth.is_ink_high`.
        selections: the pages, with ground truth.
        data: the folder that they were found in.
        output: folder for ``accuracy.csv``, ``accuracy.json``, ``index.html`` and its pictures; made if missing.
        split: its name, for the report.
        predicted: folder of two-valued pages that `predict` has written, scored instead of predicting.
        device, emit, should_stop: see `unetctl.jobs.benchmark_accuracy.accuracy`.

    Returns:
        A report with "kind" "document", "thresholds" (by name of our rows), "mean" (scores by method), "num_perfect" (pages
        without a single wrong pixel, by method), "methods" (their parameters) and "pages" (name, and scores by method). The
        PSNR of a perfect page is infinite: None here, "inf" in the table, and left out of the mean.

    Raises:
        InputError: if a page, its truth or its prediction cannot be read, or they do not fit on each other.
        ResourceError: if the output cannot be written.
        Stopped: if asked to stop.
    """
    pages = pages_of(selections)
    ink_is_high = is_ink_high(pages, recipe, emit, should_stop)
    with tempfile.TemporaryDirectory(prefix="unetctl-benchmark-") as scratch, baselines() as every:
        if predicted is not None:
            ours = _from_files(match_predicted(pages, data, predicted, recipe.task.name), predicted)
        else:
            assert task is not None
            ours = _through_engine(task, pages, ink_is_high, Path(scratch), device, emit, should_stop)
        begun = time.monotonic()
        emit(StageStarted("score", len(pages), 0, "page"))
        scored, methods = [], list(every)
        for i, page in enumerate(pages):
            if should_stop():
                raise Stopped("stopped while scoring", "", "run the same command again")
            with writing_into(output):
                scored.append(_score(i, page, ink_is_high, ours, methods, output, emit))
            emit(StageProgress("score", i + 1, {"F": scored[-1].scores[OURS].f}))
        emit(StageEnded("score", time.monotonic() - begun))
    # Means over other pages would not compare.
    rows = {*ours.thresholds, *(method.name for method in methods)}
    scored = [replace(one, scores={n: s for n, s in one.scores.items() if n in rows}) for one in scored]
    report = _report(recipe.task.name, task, data, split, ours, methods, scored)
    if output is not None:
        with writing_into(output):
            _write(output, report, scored, ours, methods)
    return report


def _through_engine(
    task: ResolvedTask,
    pages: Sequence[LabelledPage],
    ink_is_high: bool,
    scratch: Path,
    device: str,
    emit: Listener,
    should_stop: StopAsked,
) -> _Ours:
    """Predicts every page and keeps its 8-bit probabilities in `scratch`; looks for the threshold of the best mean F."""
    network, shipped = task.network(), task.recipe.output.threshold
    thresholds = tuple(sorted({*_THRESHOLDS, shipped}))
    f_by_page, in_colour = [], task.recipe.input.channels == 3
    for i, page in enumerate(pages):
        with OpenedPage(page.pair.image, page.i_page, in_colour=in_colour) as source:
            path = scratch / f"{i}.ome.zarr"
            found = predicted_volume(source, task, network, path, device, emit, should_stop)[0]
        levels = np.rint(found * 255).astype(np.uint8)
        np.save(scratch / f"{i}.npy", levels)
        f_by_page.append(_f_at(levels, read_truth(page, ink_is_high), thresholds))
    means = np.mean(f_by_page, axis=0)
    best = max(zip(means, thresholds, strict=True), key=lambda pair: (pair[0], -abs(pair[1] - 0.5)))[1]

    def read(i: int, page: LabelledPage, threshold: float | None) -> Mask:
        ink: Mask = _values()[np.load(scratch / f"{i}.npy")] >= np.float32(threshold)
        return ink

    return _Ours({OURS: shipped, OURS_BEST: best}, read, "predicted here")


def _from_files(paths: Mapping[str, Path], folder: Path) -> _Ours:
    def read(i: int, page: LabelledPage, threshold: float | None) -> Mask:
        return read_predicted(paths[page.name], page)

    return _Ours({OURS: None}, read, f"the files in {folder}")


def _values() -> npt.NDArray[np.float32]:
    """What the 256 stored levels mean, as `predict` compares them with a threshold."""
    return np.arange(256, dtype=np.float32) / np.float32(255)


def _f_at(levels: npt.NDArray[np.uint8], truth: Mask, thresholds: Sequence[float]) -> list[float]:
    """F-measure, 0..1, at each threshold."""
    ink = np.bincount(levels[truth], minlength=256)
    every = np.bincount(levels.ravel(), minlength=256)
    found = []
    for threshold in thresholds:
        is_ink = _values() >= np.float32(threshold)
        total = int(every[is_ink].sum()) + int(ink.sum())
        found.append(2 * int(ink[is_ink].sum()) / total if total else 1.0)
    return found


def _score(
    i: int,
    page: LabelledPage,
    ink_is_high: bool,
    ours: _Ours,
    methods: list[Baseline],
    output: Path | None,
    emit: Listener,
) -> _Scored:
    """Scores a page by all methods; takes those out of `methods` that cannot bear it."""
    picture, truth = read_page(page), read_truth(page, ink_is_high)
    grey = luminance(picture)
    weights = pseudo_weights(truth)
    inks = {name: ours.read(i, page, threshold) for name, threshold in ours.thresholds.items()}
    scores = {name: score_page(ink, truth, weights=weights) for name, ink in inks.items()}
    first: Mask | None = None
    for method in tuple(methods):
        try:
            ink = method.find(grey)
        except MethodCrashedError:
            methods.remove(method)
            emit(Note(f"{method.name} ({method.parameters}) crashes on {page.name}: it is left out", "warning"))
            continue
        first = ink if first is None else first
        scores[method.name] = score_page(ink, truth, weights=weights)
    shown = None
    if output is not None:
        assert first is not None  # scikit-image's are always there
        output.mkdir(parents=True, exist_ok=True)
        pictures = save_pictures(output, i + 1, picture, truth, inks[OURS], first)
        told = [ShownMethod(name, *_told(scores[name])) for name in (OURS, methods[0].name)]
        shown = ShownPage(page.name, scores[OURS].f, tuple(told), pictures)
    return _Scored(page, scores, shown)


def _report(
    name_of_task: str, task: ResolvedTask | None, data: Path, split: str, ours: _Ours, methods: Sequence[Baseline],
    scored: Sequence[_Scored],
) -> BenchmarkReport:  # fmt: skip
    names = list(scored[0].scores)
    mean = _means(scored)
    num_perfect = {name: sum(math.isinf(one.scores[name].psnr) for one in scored) for name in names}
    values = {
        "task": name_of_task, "weights_sha256": task.weights_sha256 if task else "", "data": str(data), "split": split,
        "planes": [one.page.name for one in scored], "num_planes": len(scored), "kind": "document",
        "ours": ours.source, "thresholds": dict(ours.thresholds),
        "mean": {name: _plain(mean[name]) for name in names}, "num_perfect": num_perfect,
        "methods": {method.name: method.parameters for method in methods},
        "pages": [
            {"page": one.page.name, "scores": {name: _plain(one.scores[name]) for name in names}} for one in scored
        ],
    }  # fmt: skip
    head = f"{name_of_task} on {len(scored)} pages of {data} ({split}), {ours.source}"
    perfect = [f"{name} {num}" for name, num in num_perfect.items() if num]
    note = f"pages without a wrong pixel, left out of the mean PSNR: {', '.join(perfect)}"
    return BenchmarkReport("accuracy", values, (head, *_lines(mean, ours, scored), *([note] if perfect else [])))


def _lines(mean: Mapping[str, DocumentScores], ours: _Ours, scored: Sequence[_Scored]) -> Iterator[str]:
    width = max(30, *(len(one.page.name) + 2 for one in scored))
    yield f"{'':<{width}} {'F':>7} {'pseudo-F':>9} {'PSNR':>7} {'DRD':>7}"
    for name, scores in mean.items():
        threshold = ours.thresholds.get(name)
        yield _line(name if threshold is None else f"{name} ({threshold:.2f})", scores, width)
    yield "ours, page by page, worst first"
    for one in sorted(scored, key=lambda one: one.scores[OURS].f):
        yield _line(f"  {one.page.name}", one.scores[OURS], width)


def _line(name: str, scores: DocumentScores, width: int) -> str:
    return f"{name:<{width}} {scores.f:>7.2f} {scores.pseudo_f:>9.2f} {scores.psnr:>7.2f} {scores.drd:>7.2f}"


def _means(scored: Sequence[_Scored]) -> dict[str, DocumentScores]:
    """By method."""
    return {name: mean_scores([one.scores[name] for one in scored]) for name in scored[0].scores}


def _plain(scores: DocumentScores) -> dict[str, float | None]:
    """For JSON, which knows no infinity."""
    return {name: value if math.isfinite(value) else None for name, value in asdict(scores).items()}


def _told(scores: DocumentScores) -> tuple[str, str, str, str]:
    """The four main scores as words."""
    decibels = f"{scores.psnr:.2f}" if math.isfinite(scores.psnr) else "infinite"
    return f"{scores.f:.2f}", f"{scores.pseudo_f:.2f}", decibels, f"{scores.drd:.2f}"


def _write(
    output: Path, report: BenchmarkReport, scored: Sequence[_Scored], ours: _Ours, methods: Sequence[Baseline]
) -> None:
    mean = _means(scored)
    by_page = [*((one.page.name, one.scores) for one in scored), ("mean", mean)]
    table = [
        {
            "page": page,
            "method": name,
            "threshold": ours.thresholds.get(name),
            **{key: getattr(scores, key) for key in _SCORES},
        }
        for page, by_method in by_page
        for name, scores in by_method.items()
    ]
    write_tables(output, report, table)
    parameters = {method.name: method.parameters for method in methods}
    rows = []
    for name, scores in mean.items():
        threshold = ours.thresholds.get(name)
        of_ours = ours.source if threshold is None else f"{ours.source}, threshold {threshold:.2f}"
        rows.append((ShownMethod(name, *_told(scores)), parameters.get(name, of_ours)))
    write_documents_page(
        output / "index.html",
        report.text[0],
        rows,
        [one.shown for one in scored if one.shown is not None],
    )
