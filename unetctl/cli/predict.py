"""`unetctl predict`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from unetctl.cli import options as o
from unetctl.cli.environment import array_part, array_task, environment, scheduler_memory
from unetctl.cli.session import Session, session
from unetctl.cli.words import parse_channels, parse_part
from unetctl.errors import InputError, UsageError

if TYPE_CHECKING:
    from unetctl.jobs.pages.options import PageOptions
    from unetctl.jobs.predict import PredictOptions
    from unetctl.runtime.report import RunReport


def predict(
    task: o.Task,
    inputs: o.Inputs = None,
    list_: o.ListFile = None,
    recursive: o.Recursive = False,
    pages: o.AsPages = None,
    pdf_dpi: o.PdfDpi = 300.0,
    output: o.Output = None,
    format_: o.Format = None,
    checksums: o.Checksums = False,
    keep: o.Keep = None,
    threshold: o.Threshold = None,
    dry_run: o.DryRun = False,
    fresh: o.Fresh = False,
    existing: o.Existing = "abort",
    verify: o.Verify = False,
    verify_seams: o.VerifySeams = False,
    keep_store: o.KeepStore = False,
    weights: o.Weights = None,
    set_: o.Set = None,
    axes: o.Axes = None,
    channel: o.Channel = None,
    series: o.Series = None,
    time: o.TimePoint = None,
    scale: o.Scale = None,
    nonfinite: o.Nonfinite = "median",
    stats: o.Stats = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    memory: o.Memory = None,
    core: o.Core = None,
    block: o.Block = None,
    batch: o.Batch = None,
    part: o.Part = None,
    cluster: o.Cluster = None,
    on_error: o.OnError = "skip",
    max_failed: o.MaxFailed = None,
    json: o.Json = False,
    log_format: o.LogFormat = "text",
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Run a network over images of any size, without seams.

    The same command again goes on where it was stopped, and computes only what is missing.
    """
    with session(o.talk_of(json, log_format, quiet, verbose)) as current:
        share = _part(part, current)
        if share and fresh:
            raise UsageError(
                "--fresh with --part",
                "one of them",
                "start over with --fresh alone, or remove the output, before the parts start",
            )
        if share and cluster:
            raise UsageError(
                "--cluster with --part", "one of them", "the workers of a cluster share the blocks themselves"
            )
        channels = parse_channels(channel) if channel is not None else None
        from unetctl.jobs.controls import parse_size
        from unetctl.jobs.pages.options import PageOptions
        from unetctl.jobs.predict import PredictOptions

        named = _named(inputs or [], list_)
        options = PredictOptions(
            output=output,
            keep=keep,
            threshold=threshold,
            device=device,
            precision=precision,
            memory_bytes=parse_size(memory) if memory is not None else None,
            scheduler_bytes=scheduler_memory(environment()),
            core=core,
            block=block,
            batch=batch,
            part=share,
            fresh=fresh,
            existing=existing,
            axes=axes,
            channels=channels,
            series=series,
            time=time,
            scale=scale,
            nonfinite=nonfinite,
            statistics_from=stats,
            verify=verify,
            keep_store=keep_store,
        )
        page_options = PageOptions(recursive, format_, pdf_dpi, checksums, pages)
        overrides = tuple(set_ or ())
        if dry_run:
            _print_plans(named, task, options, page_options, overrides, weights, on_error, current)
            return
        from unetctl.jobs.corpus import predict_all

        reports = predict_all(
            named,
            task,
            options,
            overrides=overrides,
            weights=weights,
            on_error=on_error,
            max_failed=max_failed,
            verify_seams=verify_seams,
            cluster=cluster,
            page_options=page_options,
            emit=current.console.emit,
            should_stop=current.should_stop,
            on_report=current.report,
        )
        current.conclude(reports, max(len(named), len(reports)))


def _named(inputs: list[str], list_file: Path | None) -> list[str]:
    """The inputs, those of lists in their places."""
    from unetctl.jobs.pages.inputs import listed_inputs

    named: list[str] = []
    for text in inputs:
        named += listed_inputs(sys.stdin.buffer.read()) if text == "-" else [text]
    if list_file is not None:
        try:
            named += listed_inputs(list_file.read_bytes())
        except OSError as error:
            raise InputError(
                f"--list {list_file} cannot be read ({error.strerror})", "a text file, one path a line"
            ) from error
    if not named:
        raise UsageError("no input", "files or folders, or a list of them", "unetctl predict INPUT --task TASK")
    return named


def _part(text: str | None, current: Session) -> tuple[int, int] | None:
    """This process's share; a warning where a job array's task would do the whole job."""
    env = environment()
    if text is None:
        found = array_task(env)
        if found:
            current.console.say(
                f"this is a task of a job array ({found[0]}: {found[1]}={env[found[1]]}) without --part: "
                "the whole job runs here; use --part auto to share it",
                "warning",
            )
        return None
    if text.strip().lower() != "auto":
        return parse_part(text)
    share = array_part(env)
    current.console.say(f"part {share[0]}/{share[1]} of the job array")
    return share


def _print_plans(
    inputs: list[str],
    task: str,
    options: "PredictOptions",
    page_options: "PageOptions",
    overrides: tuple[str, ...],
    weights: str | None,
    on_error: str,
    current: Session,
) -> None:
    """The plans are what was asked for: they go to stdout."""
    from unetctl.jobs.corpus import dry_run

    console = current.console
    failed: list[str] = []

    def note(report: "RunReport") -> None:
        failed.append(report.input)
        console.say(f"{report.input}: {report.error}", "error", exit_code=report.details.get("exit_code", 1))

    plans = dry_run(
        inputs, task, options, overrides=overrides, weights=weights, page_options=page_options, on_error=on_error,
        emit=console.emit, on_failed=note,
    )  # fmt: skip
    for i, summary in enumerate(plans):
        if console.talk.as_json:
            console.json(summary.to_dict())
            continue
        for line in ([""] if i else []) + summary.lines():
            console.data(line)
    if failed:  # as the run would leave
        current.exit_code = 3
