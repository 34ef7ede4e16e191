"""`unetctl benchmark accuracy` for binarized pages: the scores of the DIBCO contests, with classical methods beside.

A table row per page and method, and a page of pictures, worst first. What is scored comes through the engine of
`predict`, or out of the files that a run of `predict` has left.
"""

import contextlib
import csv
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unetctl.errors import ResourceError, Stopped
from unetctl.jobs.benchmark_baselines import Baseline, baselines
from unetctl.jobs.benchmark_pages import (
    LabelledPage,
    OnePage,
    luminance,
    match_predicted,
    pages_of,
    read_ink,
    read_page,
    read_truth,
)
from unetctl.jobs.benchmark_planes import predicted_volume
from unetctl.jobs.benchmark_report import BenchmarkReport
from unetctl.jobs.tasks import ResolvedTask
from unetctl.metrics.document import DocumentScores, score_page
from unetctl.metrics.document_weights import pseudo_weights
from unetctl.reports.documents_page import ShownMethod, ShownPage, save_pictures, write_documents_page
from unetctl.runtime.events import Listener, StageEnded, StageProgress, StageStarted
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
    task: ResolvedTask,
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
        task: whose answers are scored; with `predicted` it only names them.
        selections: the pages, with ground truth: ink is the darker of its two values.
        data: the folder that they were found in.
        output: folder for ``accuracy.csv``, ``accuracy.json``, ``index.html`` and its pictures; made if missing.
        split: its name, for the report.
        predicted: folder of two-valued pages that `predict` has written, scored instead of predicting.
        device, emit, should_stop: see `unetctl.jobs.benchmark_accuracy.accuracy`.

    Returns:
        A report with "kind" "document", "thresholds" (by name of our rows), "mean" (scores by method), "methods" (their
        parameters) and "pages" (name, and scores by method). An infinite PSNR is None.

    Raises:
        InputError: if a page, its truth or its prediction cannot be read, or they do not fit on each other.
        ResourceError: if the output cannot be written.
        Stopped: if asked to stop.
    """
    pages = pages_of(selections)
    methods = baselines()
    with tempfile.TemporaryDirectory(prefix="unetctl-benchmark-") as scratch:
        if predicted is None:
            ours = _through_engine(task, pages, Path(scratch), device, emit, should_stop)
        else:
            ours = _from_files(match_predicted(pages, data, predicted, task.name), predicted)
        begun = time.monotonic()
        emit(StageStarted("score", len(pages), 0, "page"))
        scored = []
        for i, page in enumerate(pages):
            if should_stop():
                raise Stopped("stopped while scoring", "", "run the same command again")
            with _written(output):
                scored.append(_score(i, page, ours, methods, output))
            emit(StageProgress("score", i + 1, {"F": scored[-1].scores[OURS].f}))
        emit(StageEnded("score", time.monotonic() - begun))
    report = _report(task, data, split, ours, methods, scored)
    if output is not None:
        with _written(output):
            _write(output, report, scored, ours, methods)
    return report


def _through_engine(
    task: ResolvedTask,
    pages: Sequence[LabelledPage],
    scratch: Path,
    device: str,
    emit: Listener,
    should_stop: StopAsked,
) -> _Ours:
    """Predicts every page and keeps its 8-bit probabilities in `scratch`; looks for the threshold of the best mean F."""
    network, shipped = task.network(), task.recipe.output.threshold
    thresholds = tuple(sorted({*_THRESHOLDS, shipped}))
    f_by_page = []
    for i, page in enumerate(pages):
        with OnePage(page.pair.image, page.i_page) as source:
            path = scratch / f"{i}.ome.zarr"
            found = predicted_volume(source, task, network, path, device, emit, should_stop)[0]
        levels = np.rint(found * 255).astype(np.uint8)
        np.save(scratch / f"{i}.npy", levels)
        f_by_page.append(_f_at(levels, read_truth(page), thresholds))
    means = np.mean(f_by_page, axis=0)
    best = max(zip(means, thresholds, strict=True), key=lambda pair: (pair[0], -abs(pair[1] - 0.5)))[1]

    def read(i: int, page: LabelledPage, threshold: float | None) -> Mask:
        ink: Mask = _values()[np.load(scratch / f"{i}.npy")] >= np.float32(threshold)
        return ink

    return _Ours({OURS: shipped, OURS_BEST: best}, read, "predicted here")


def _from_files(paths: Mapping[str, Path], folder: Path) -> _Ours:
    def read(i: int, page: LabelledPage, threshold: float | None) -> Mask:
        with OnePage(page.pair.image, page.i_page) as source:
            size = source.info.images[0].shape[-2:]
        return read_ink(paths[page.name], page.i_page, size, "the prediction", page.name)

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


def _score(i: int, page: LabelledPage, ours: _Ours, methods: Sequence[Baseline], output: Path | None) -> _Scored:
    picture, truth = read_page(page), read_truth(page)
    grey = luminance(picture)
    weights = pseudo_weights(truth)
    inks = {name: ours.read(i, page, threshold) for name, threshold in ours.thresholds.items()}
    scores = {name: score_page(ink, truth, weights=weights) for name, ink in inks.items()}
    first: Mask | None = None
    for method in methods:
        ink = method.find(grey)
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
    task: ResolvedTask, data: Path, split: str, ours: _Ours, methods: Sequence[Baseline], scored: Sequence[_Scored]
) -> BenchmarkReport:
    names = list(scored[0].scores)
    mean = {name: _mean([one.scores[name] for one in scored]) for name in names}
    values = {
        "task": task.name, "weights_sha256": task.weights_sha256, "data": str(data), "split": split,
        "planes": [one.page.name for one in scored], "num_planes": len(scored), "kind": "document",
        "ours": ours.source, "thresholds": dict(ours.thresholds),
        "mean": {name: _plain(mean[name]) for name in names},
        "methods": {method.name: method.parameters for method in methods},
        "pages": [
            {"page": one.page.name, "scores": {name: _plain(one.scores[name]) for name in names}} for one in scored
        ],
    }  # fmt: skip
    head = f"{task.name} on {len(scored)} pages of {data} ({split}), {ours.source}"
    return BenchmarkReport("accuracy", values, (head, *_lines(mean, ours, scored)))


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


def _mean(scores: Sequence[DocumentScores]) -> DocumentScores:
    return DocumentScores(*(float(np.mean([getattr(one, name) for one in scores])) for name in _SCORES))


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
    output.mkdir(parents=True, exist_ok=True)
    mean = {name: _mean([one.scores[name] for one in scored]) for name in scored[0].scores}
    with (output / "accuracy.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["page", "method", "threshold", *_SCORES])
        for page, by_method in [*((one.page.name, one.scores) for one in scored), ("mean", mean)]:
            for name, scores in by_method.items():
                threshold = ours.thresholds.get(name)
                cells = [getattr(scores, score) for score in _SCORES]
                writer.writerow([page, name, "" if threshold is None else threshold, *cells])
    (output / "accuracy.json").write_text(report.to_json() + "\n", encoding="utf-8")
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


@contextlib.contextmanager
def _written(output: Path | None) -> Iterator[None]:
    """Turns failures to write into the output folder into a sentence."""
    try:
        yield
    except OSError as error:
        if output is None:
            raise
        raise ResourceError(
            f"{output} could not be written ({error.strerror or error})", "a folder for tables and pictures"
        ) from error
