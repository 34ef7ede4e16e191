"""`unetctl stitch OUT`: what the parts of a job array have left becomes the output."""

import shlex
import time
from collections.abc import Callable
from pathlib import Path

from unetctl.errors import IncompleteError, InputError, UsageError
from unetctl.jobs.finish import finish_output, say_aside
from unetctl.jobs.outputs import TIFF_SUFFIXES
from unetctl.jobs.pages.ledger import is_page_run
from unetctl.runtime.events import Listener, nobody
from unetctl.runtime.locks import RunLock
from unetctl.runtime.report import RunReport, peak_memory
from unetctl.runtime.run_folder import RunFolder
from unetctl.runtime.run_plan import RunPlan
from unetctl.sinks.tiff import export_tiff, verify_tiff
from unetctl.sinks.zarr import ZarrSink

#: So many missing blocks are named in a message.
_NAMED = 8


def stitch_output(
    output: Path,
    *,
    to: Path | None = None,
    verify: bool = False,
    keep_store: bool = False,
    emit: Listener = nobody,
    should_stop: Callable[[], bool] = lambda: False,
) -> RunReport:
    """Checks that the parts cover the plan, then builds pyramid and export.

    Args:
        output: as given to `predict` (or its ``.run`` folder).
        to: write the finished store to this TIFF as well, or instead of the run's own kind.
        verify: compare checksums of all blocks, not only sizes.
        keep_store: of a TIFF output.
        emit, should_stop: see the engine.

    Raises:
        InputError: if no run was begun there.
        UsageError: if it is a run of pages, which need no joining, or `to` is no new name of a TIFF, nor one that was written
            from here before.
        IncompleteError: if blocks are missing; names them and the command that computes them.
        BusyError: if parts are still at work.
    """
    begun = time.monotonic()
    if not output.name:
        raise UsageError(f"{output} is a folder, not an output", "the output whose parts are to be joined")
    folder = RunFolder(_output_of(output))
    if is_page_run(folder.path):
        raise UsageError(
            f"{folder.output} holds pages, which are complete as they are",
            "an output of parts",
            "unetctl predict without --part says whether any is missing, and computes it",
        )
    plan = folder.plan()
    is_exported = to is not None and folder.has_exported(to)
    if to is not None and not is_exported:
        _refuse_target(to)
    with RunLock(folder.path, shared=False, who="stitch"):
        status = "nothing-new"
        folder.sweep()
        if not folder.is_finished(verify):
            sink = folder.ensure_store(plan)
            sink.sweep_partials()
            missing = folder.missing(sink, range(plan.num_blocks), checksums=verify)
            if missing:
                raise _incomplete(folder, plan, missing)
            say_aside(folder, emit)
            complete = finish_output(
                folder, plan, emit, should_stop, keep_store=keep_store or ("export" if to else False), checksums=verify
            )
            status = "done" if complete else "stopped"
        if to is not None and status != "stopped" and not (is_exported and status == "nothing-new"):
            _export_to(folder, to, should_stop)
            status = "done"
        if status != "stopped":
            folder.release_store()
    result = to or folder.output
    report = RunReport(
        "stitch",
        str(output),
        str(result),
        status,
        plan.num_blocks,
        plan.num_blocks,
        0,
        0,
        time.monotonic() - begun,
        peak_bytes=peak_memory(),
        details={"fingerprint": plan.fingerprint, "parts": folder.num_parts()},
    )
    report.save(folder.report_path)
    return report


def _output_of(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".run")) if path.name.endswith(".run") else path


def _incomplete(folder: RunFolder, plan: RunPlan, missing: list[int]) -> IncompleteError:
    named = ", ".join(map(str, missing[:_NAMED])) + (
        f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    )
    num_parts = folder.num_parts()
    source, words = plan.source.get("path", "INPUT"), plan.source.get("words", ["--task", plan.task])
    command = shlex.join(["unetctl", "predict", source, *words, "-o", str(folder.output)])
    if num_parts:
        parts = [i + 1 for i in range(num_parts) if set(plan.part(i, num_parts)) & set(missing)]
        which = ", ".join(f"{i}/{num_parts}" for i in parts)
        hint = f"compute part {which}: {command} --part {parts[0]}/{num_parts}"
    else:
        hint = f"compute them: {command}"
    return IncompleteError(
        f"{len(missing)} of {plan.num_blocks} blocks of {folder.output} are missing ({named})", "all blocks done", hint
    )


def _refuse_target(to: Path) -> None:
    if to.suffix not in TIFF_SUFFIXES:
        raise UsageError(
            f"-o {to}",
            "a name that ends in .ome.tif or .tif",
            "the OME-Zarr store is the output of predict -o NAME.ome.zarr",
        )
    if to.exists():
        raise UsageError(f"{to} exists", "a new name", "choose another or remove it")
    if not to.absolute().parent.is_dir():
        raise UsageError(f"-o {to}: there is no folder {to.parent}", "an existing folder", f"mkdir -p {to.parent}")


def _export_to(folder: RunFolder, to: Path, should_stop: Callable[[], bool]) -> None:
    if not folder.made_path.exists():
        raise InputError(
            f"the store of {folder.output} was removed after its export",
            "a store",
            "predict with --keep-store, or to OME-Zarr",
        )
    sink = ZarrSink.open(folder.made_path)
    export_tiff(sink, to, should_stop=should_stop)
    verify_tiff(sink, to)
    folder.mark_exported(to)
