"""One command, many inputs: each has its own plan, output and run; one bad file does not stop the rest."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

from unetctl.errors import IncompleteError, UnetctlError, UsageError
from unetctl.jobs.failures import failed_report, failure_limit
from unetctl.jobs.outputs import InputPlaces, output_names
from unetctl.jobs.pages.job import PagesPlan, are_pages, plan_pages, predict_pages
from unetctl.jobs.pages.options import PageOptions
from unetctl.jobs.predict import Prediction, PredictOptions, plan_prediction, run_prediction
from unetctl.jobs.summary import PlanSummary, summarise
from unetctl.jobs.tasks import ResolvedTask, resolve_task
from unetctl.jobs.workers import SharedWorkers
from unetctl.networks.network import Network
from unetctl.runtime.events import Listener, Note, nobody
from unetctl.runtime.report import RunReport
from unetctl.runtime.run_folder import OutputInTheWayError
from unetctl.sinks.disk import full_disk_explained
from unetctl.sources.files import is_own_output


def predict_all(
    inputs: Sequence[str],
    task: str,
    options: PredictOptions,
    *,
    overrides: Sequence[str] = (),
    weights: str | None = None,
    on_error: str = "skip",
    max_failed: str | None = None,
    verify_seams: bool = False,
    cluster: str | None = None,
    page_options: PageOptions | None = None,
    emit: Listener = nobody,
    should_stop: Callable[[], bool] = lambda: False,
    on_report: Callable[[RunReport], None] = lambda report: None,
) -> list[RunReport]:
    """Predicts every input.

    Args:
        inputs: files, stores or folders; outputs of ours among several are passed over.
        task: see `resolve_task`.
        options: for all of them.
        overrides, weights: see `resolve_task`.
        on_error: "skip" goes on with the next input, "abort" stops at the first failure.
        max_failed: "3" or "10%": stop once more inputs have failed.
        verify_seams: recompute some blocks under other tilings afterwards.
        cluster: "local:N" or a dask scheduler's address: compute there.
        page_options: for inputs that are pages of documents.
        emit, should_stop: see the engine.
        on_report: called after each input.

    Returns:
        One report an input that was worked on.

    Raises:
        UnetctlError: of a single input; with several, failures become reports of status "failed".
    """
    resolved = resolve_task(task, overrides, weights)
    pages = page_options or PageOptions()
    if are_pages(inputs, resolved.recipe, options.output, pages):
        _refuse_for_pages(options, verify_seams, cluster)
        return predict_pages(
            inputs, resolved, options, pages,
            on_error=on_error, max_failed=max_failed, emit=emit, should_stop=should_stop, on_report=on_report,
        )  # fmt: skip
    _refuse_overlay(options)
    network = resolved.network()
    chosen = _chosen(inputs, options, emit)
    limit = failure_limit(max_failed, len(chosen))
    places = InputPlaces([path for path, _ in chosen])
    reports: list[RunReport] = []
    num_failed = 0
    with SharedWorkers(cluster, resolved) if cluster is not None else nullcontext() as workers:
        for path, own in chosen:
            if should_stop():
                reports.append(RunReport("predict", path, "", "stopped"))
                on_report(reports[-1])
                break
            try:
                report = _predict_one(path, resolved, network, own, places, verify_seams, workers, emit, should_stop)
            except OutputInTheWayError as error:
                if options.existing != "skip" and (len(chosen) == 1 or on_error == "abort"):
                    raise
                if options.existing != "skip":
                    report = failed_report(path, error)
                else:
                    emit(Note(f"{path} is passed over: {error.seen}", "info"))
                    report = RunReport("predict", path, "", "skipped")
            except UnetctlError as error:
                if len(chosen) == 1 or on_error == "abort" or error.exit_code == 75:
                    raise
                report = failed_report(path, error)
            except Exception as error:
                if len(chosen) == 1 or on_error == "abort":
                    raise
                report = failed_report(path, error)
            reports.append(report)
            on_report(report)
            num_failed += report.status == "failed"
            if limit is not None and num_failed > limit:
                raise IncompleteError(
                    f"{num_failed} of {len(reports)} inputs failed", f"at most {max_failed}", "see the messages above"
                )
            if report.status == "stopped":
                break
    return reports


def _refuse_overlay(options: PredictOptions) -> None:
    if options.keep == "overlay":
        raise UsageError(
            "--keep overlay for a volume", "pages", "--pages takes the planes of a folder as pictures of their own"
        )


def _refuse_for_pages(options: PredictOptions, verify_seams: bool = False, cluster: str | None = None) -> None:
    given = {
        "--verify-seams": verify_seams,
        "--cluster": cluster is not None,
        "--series": options.series is not None,
        "--time": options.time is not None,
        "--axes": options.axes is not None,
        "--stats": options.statistics_from is not None,
        "--keep-store": options.keep_store,
    }
    names = [name for name, is_given in given.items() if is_given]
    if names:
        hint = "give --stack, or leave it out" + "; --part shares pages out" * ("--cluster" in names)
        raise UsageError(f"{', '.join(names)} for pages", "a volume", hint)


def dry_run(
    inputs: Sequence[str],
    task: str,
    options: PredictOptions,
    *,
    overrides: Sequence[str] = (),
    weights: str | None = None,
    warm_up: bool = True,
    page_options: PageOptions | None = None,
    on_error: str = "abort",
    emit: Listener = nobody,
    on_failed: Callable[[RunReport], None] = lambda report: None,
) -> Sequence[PlanSummary | PagesPlan]:
    """Plans every input without computing anything; writes nothing.

    Args:
        inputs, task, options, overrides, weights, page_options, on_error, emit: see `predict_all`.
        warm_up: measure how fast the network is here, for the time that the run will take.
        on_failed: hears of each of several volumes that a run would have to leave out.

    Raises:
        UnetctlError: what a run would raise before it begins.
    """
    resolved = resolve_task(task, overrides, weights)
    pages = page_options or PageOptions()
    if are_pages(inputs, resolved.recipe, options.output, pages):
        _refuse_for_pages(options)
        return plan_pages(inputs, resolved, options, pages)
    _refuse_overlay(options)
    network = resolved.network()
    summaries = []
    chosen = _chosen(inputs, options, emit)
    places = InputPlaces([path for path, _ in chosen])
    for path, own in chosen:
        try:
            prediction = plan_prediction(path, resolved, own, network, places)
        except UnetctlError as error:
            if len(chosen) == 1 or on_error == "abort":
                raise
            on_failed(failed_report(path, error))
            continue
        try:
            summaries.append(summarise(prediction, network, warm_up=warm_up))
        finally:
            prediction.source.close()
    return summaries


def _predict_one(
    path: str,
    task: ResolvedTask,
    network: Network,
    options: PredictOptions,
    places: InputPlaces,
    verify_seams: bool,
    workers: SharedWorkers | None,
    emit: Listener,
    should_stop: Callable[[], bool],
) -> RunReport:
    prediction = plan_prediction(path, task, options, network, places)
    try:
        for text in prediction.planned.notes:
            emit(Note(text, "info"))
        for text in prediction.planned.warnings:
            emit(Note(text, "warning"))
        compute = workers.computer(prediction, emit) if workers is not None else None
        with full_disk_explained(prediction.folder.output):
            report = run_prediction(prediction, network, emit, should_stop, compute)
        if verify_seams and report.status in ("done", "nothing-new"):
            report = _with_seams(prediction, network, report, emit, should_stop)
        return report
    finally:
        prediction.source.close()


def _with_seams(
    prediction: Prediction, network: Network, report: RunReport, emit: Listener, should_stop: Callable[[], bool]
) -> RunReport:
    from unetctl.jobs.verify import verify_seams

    seams = verify_seams(prediction, network, emit=emit, should_stop=should_stop)
    for line in seams.lines():
        emit(Note(line, "info"))
    return replace(report, details={**report.details, "seams": seams.to_dict()})


def _chosen(inputs: Sequence[str], options: PredictOptions, emit: Listener) -> list[tuple[str, PredictOptions]]:
    """The inputs to work on, each with its options: where several have the same name, outputs mirror their folders."""
    paths = [path for path in inputs if len(inputs) == 1 or not _is_ours(path, emit)]
    if len(paths) > 1 and options.output is not None and not options.output.is_dir():
        raise UsageError(
            f"-o {options.output} for {len(paths)} inputs", "an existing folder", f"mkdir {options.output}"
        )
    return [(path, replace(options, name=name)) for path, name in zip(paths, output_names(paths), strict=True)]


def _is_ours(path: str, emit: Listener) -> bool:
    is_ours = is_own_output(path)
    if is_ours:
        emit(Note(f"{path} is an output of unetctl: passed over", "info"))
    return is_ours
