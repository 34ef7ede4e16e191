"""One command from its first word to its exit code: console, signals, and the one translation of errors."""

import errno
import json
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import typer

from unetctl.cli.console import Console, Talk
from unetctl.cli.words import duration, figure, plural
from unetctl.errors import Interrupted, ResourceError, Stopped, UnetctlError
from unetctl.runtime.report import RunReport

if TYPE_CHECKING:
    from unetctl.jobs.controls import StopRequest


class Session:
    """What a command works with.

    Attributes:
        console: where to talk.
        exit_code: the command's, unless an error decides otherwise.
    """

    def __init__(self, console: Console, stop: "StopRequest | None") -> None:
        self.console, self._stop = console, stop
        self.exit_code = 0

    def should_stop(self) -> bool:
        """True once a signal asked to stop."""
        return self._stop is not None and self._stop()

    def stopped(self, how_far: str) -> Stopped:
        """The error to leave with after a job returned early."""
        return self._stop.error(how_far) if self._stop is not None else Stopped(f"stopped: {how_far}")

    def report(self, report: RunReport) -> None:
        """Tells what came of one input: its path or JSON on stdout, a line on stderr."""
        console = self.console
        console.event("report", json.loads(report.to_json()))
        for text in report.warnings:
            console.say(text, "warning")
        if console.talk.as_json:
            console.json(json.loads(report.to_json()))
        if report.status == "failed":
            console.say(f"{report.input}: {report.error}", "error", exit_code=report.details.get("exit_code", 1))
            console.say(str(report.details.get("traceback", "")).rstrip(), "detail")
            return
        if report.status in ("stopped", "skipped"):  # the conclusion tells the one, the job's own note why of the other
            return
        console.say(report_line(report), "result")
        if not console.talk.as_json:
            console.data(report.output)

    def conclude(self, reports: Sequence[RunReport], num_inputs: int) -> None:
        """The exit code of several inputs.

        Args:
            reports: one an input that was worked on.
            num_inputs: as given.

        Raises:
            Stopped: if the work was stopped before its end.
        """
        unfinished = [r for r in reports if r.status == "stopped"]
        if unfinished:
            last = unfinished[-1]
            if not last.num_blocks:  # before its plan was made
                done = sum(r.status in ("done", "nothing-new", "skipped") for r in reports)
                how_far = f"{done} of {plural(num_inputs, 'input')} are done, " if num_inputs > 1 else ""
                raise self.stopped(f"{how_far}{last.input} was not begun")
            unit = str(last.details.get("unit", "block"))
            raise self.stopped(f"{last.num_done} of {plural(last.num_blocks, unit)} of {last.output} are done")
        if self.should_stop() and len(reports) < num_inputs:
            raise self.stopped(f"{len(reports)} of {plural(num_inputs, 'input')} are done")
        failed = [r for r in reports if r.status == "failed"]
        if len(reports) > 1:
            computed = sum(r.status == "done" for r in reports)
            same = sum(r.status == "nothing-new" for r in reports)
            told = [f"{plural(len(reports), 'input')}: {computed} done"]
            skipped = sum(r.status == "skipped" for r in reports)
            told += [f"{same} had nothing new"] if same else []
            told += [f"{skipped} passed over"] if skipped else []
            told += (
                [f"{len(failed)} failed ({', '.join(r.input for r in failed[:5])}{' ...' if len(failed) > 5 else ''})"]
                if failed
                else []
            )
            self.console.say(", ".join(told), "error" if failed else "result")
        if failed or any(r.status == "parts-missing" for r in reports):
            self.exit_code = 3


def report_line(report: RunReport) -> str:
    """What happened, in one line: how much, how fast, and the memory as planned and as measured."""
    from unetctl.jobs.controls import format_size

    unit = str(report.details.get("unit", "block"))
    blocks = plural(report.num_blocks, unit)
    part = report.details.get("part")
    what = f"part {part[0]}/{part[1]} of {report.output}" if part else report.output
    if part and report.status == "nothing-new" and not report.num_done:
        return f"{what}: there is no block for it, {blocks} for {plural(part[1], 'part')}"
    if report.status == "nothing-new":
        return f"{what}: nothing new, {'its blocks were' if part else 'all ' + blocks + ' were'} done before"
    words = [f"{what}:"]
    if report.num_computed:
        words.append(
            f"{figure(report.num_pixels / 1e6)} Mpx in {duration(report.elapsed_s)}, {figure(report.mpx_per_s)} Mpx/s"
        )
        done_before = report.num_done - report.num_computed
        words[-1] += f" ({plural(report.num_computed, unit)}, {done_before} done before)" if done_before else ""
    else:
        words.append(f"{report.status} in {duration(report.elapsed_s)}")
    line = " ".join(words)
    if report.peak_bytes:
        line += f"; peak memory {format_size(report.peak_bytes)}"
        line += f", {format_size(report.projected_bytes)} projected" if report.projected_bytes else ""
    if part:
        line += f"; when all parts are done: unetctl stitch {report.output}"
    return line


@contextmanager
def session(talk: Talk, *, is_long: bool = True) -> Iterator[Session]:
    """Runs a command's body and leaves with the exit code of `EXIT_CODES`.

    Args:
        talk: how to talk.
        is_long: True for work that asks `should_stop` and ends cleanly on signals; False leaves signals to Python.

    Raises:
        typer.Exit: unless the command succeeded.
    """
    with _signals(is_long) as stop:
        console = Console(talk, stop if stop is not None else lambda: False)
        current = Session(console, stop)
        try:
            yield current
            code = current.exit_code
        except (typer.Exit, typer.Abort, SystemExit):
            raise
        except BaseException as error:
            console.close()
            code = _leave(console, stop, error)
        finally:
            console.close()
    if code:
        raise typer.Exit(code)


def _signals(is_long: bool) -> "AbstractContextManager[StopRequest | None]":
    if not is_long:
        return nullcontext()
    from unetctl.jobs.controls import StopRequest

    return StopRequest()


def _leave(console: Console, stop: "StopRequest | None", error: BaseException) -> int:
    """Tells an error and gives its exit code."""
    known = _known(error, stop)
    if known is not None:
        code = known.exit_code
        if isinstance(known, Stopped):
            console.say(str(known), "stopped", exit_code=code)
        else:
            console.say(str(known), "error", seen=known.seen, expected=known.expected, hint=known.hint, exit_code=code)
        if known.__cause__ is not None:
            console.say(f"because of {known.__cause__!r}", "detail")
        return code
    trace = "".join(traceback.format_exception(error)).rstrip()
    console.say(
        f"{trace}\nthis is a bug of unetctl: please report it with the lines above and the command",
        "error",
        exit_code=1,
    )
    return 1


def _known(error: BaseException, stop: "StopRequest | None") -> UnetctlError | None:
    """The error as one of ours; None for a bug."""
    if isinstance(error, Stopped) and not isinstance(error, Interrupted) and stop is not None and stop.is_asked:
        # Who asked decides between 75 and 130; the job only knows how far it came.
        return error if error.seen.startswith("stopped by ") else stop.error(error.seen)
    if isinstance(error, UnetctlError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted", "", "run the same command again to go on")
    if isinstance(error, MemoryError):
        return ResourceError("the system refused more memory", "", "give a smaller --memory, or ask for more")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return ResourceError(f"the disk is full ({error})", "", "free space and run the same command again")
    return None
