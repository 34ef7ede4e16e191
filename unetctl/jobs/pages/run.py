"""`unetctl predict` for pages: file after file, tiles of many pages in a batch, one ledger for all."""

import hashlib
import json
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from unetctl.errors import IncompleteError, InputError, ResourceError, UnetctlError, UsageError
from unetctl.jobs.failures import failed_report
from unetctl.jobs.options import PredictOptions
from unetctl.jobs.pages import ledger as ledgers
from unetctl.jobs.pages.aftermath import odd_pages, write_checksums
from unetctl.jobs.pages.compute import PageComputer, Ready
from unetctl.jobs.pages.feed import OpenFile, PageFeed
from unetctl.jobs.pages.inputs import SUFFIX_OF_KIND, PageFile, PageSet
from unetctl.jobs.pages.ledger import Ledger, PageRecord
from unetctl.jobs.pages.options import PageOptions
from unetctl.jobs.pages.results import FileResult, PageStyle
from unetctl.jobs.pages.settings import PageSettings, differences, from_values, new_settings
from unetctl.jobs.tasks import ResolvedTask
from unetctl.networks.network import Network
from unetctl.runtime.events import Listener, Note, StageEnded, StageProgress, StageStarted, nobody
from unetctl.runtime.locks import RunLock
from unetctl.runtime.logbook import logged
from unetctl.runtime.memory import budget
from unetctl.runtime.report import RunReport, peak_memory
from unetctl.runtime.run_folder import OutputInTheWayError, RunFolder
from unetctl.sinks.pages import page_kind_for
from unetctl.sources.files import RUN_SUFFIX

#: Pages are gathered until they hold so many pixels, so that tiles of several share batches.
_GROUP_PIXELS = 2**24
_GROUP_PAGES = 16


@dataclass
class PageRun:
    """One set of pages on its way.

    Args:
        pages: the files and where their results go.
        task, network: what is asked of the network.
        options, page_options: of the command line.
        on_error: "skip" goes on with the next file, "abort" stops at the first failure.
        may_fail: files; None for any number.
        emit, should_stop, on_report: see `predict_all`.
    """

    pages: PageSet
    task: ResolvedTask
    network: Network
    options: PredictOptions
    page_options: PageOptions
    on_error: str = "skip"
    may_fail: int | None = None
    emit: Listener = nobody
    should_stop: Callable[[], bool] = lambda: False
    on_report: Callable[[RunReport], None] = lambda report: None
    reports: list[RunReport] = field(default_factory=list)
    _results: dict[str, FileResult] = field(default_factory=dict, repr=False)
    _failed: set[str] = field(default_factory=set, repr=False)
    _skipped: set[str] = field(default_factory=set, repr=False)
    _num_settled: int = 0

    def run(self) -> list[RunReport]:
        """Works on what is new, changed or failed before.

        Returns:
            One report a file, in the order in which they were settled; the last is of status "stopped" if asked to stop.

        Raises:
            BusyError: if another process holds the outputs.
            UsageError: if the run was begun with other settings.
            IncompleteError: if more files failed than may.
            UnetctlError: with `on_error` "abort" or a single file, what went wrong with it.
        """
        self._begun = self._last = time.monotonic()
        options = self.options
        self._budget = budget(options.memory_bytes, options.scheduler_bytes)
        asked = new_settings(self.task, self.network, options, self.page_options, self._budget)
        if options.fresh:
            self._start_over()
        found = from_values(ledgers.begin(self.pages.run, asked.values))
        differing = differences(asked, found, options)
        if differing:
            raise UsageError(
                f"{self.pages.run} holds a run that differs: {'; '.join(differing[:4])}",
                "the same weights and settings as before",
                "start over with --fresh, or choose another output with -o",
            )
        who = f"part {options.part[0]} of {options.part[1]}" if options.part else "predict"
        self.emit = logged(self.pages.run / "log.jsonl", self.emit)
        with RunLock(self.pages.run, shared=options.part is not None, who=who):
            if options.part is None:
                return self._run(found)
            RunFolder(self.pages.run.with_name(self.pages.run.name.removesuffix(RUN_SUFFIX))).fix_parts(options.part[1])
            with RunLock(self.pages.run, shared=False, who=who, name=f"part-{options.part[0]}"):
                return self._run(found)

    def _run(self, settings: PageSettings) -> list[RunReport]:
        self._settings = settings
        is_ink = self.task.recipe.output.classes == ("ink",)
        self._style = PageStyle(settings.values["keep"], is_ink)
        files = self._share()
        with Ledger(self.pages.run, self.options.writer) as self._ledger:
            self._allotted = self._ledger.allotted()
            todo = [file for file in files if not self._is_unchanged(file)]
            self.emit(StageStarted("predict", len(files), self._num_settled, "file"))
            complete = self._work(todo) if todo else True
            self.emit(StageEnded("predict", time.monotonic() - self._begun, complete))
            self._conclude(complete, len(files))
        return self.reports

    def _share(self) -> list[PageFile]:
        """The files of this part: by name, so that files may come and go without moving others to another part."""
        if self.options.part is None:
            return list(self.pages.files)
        i_part, num_parts = self.options.part
        return [f for f in self.pages.files if zlib.crc32(f.name.encode()) % num_parts == i_part - 1]

    def _is_unchanged(self, file: PageFile) -> bool:
        if self.options.verify or not self._ledger.is_done(file.name, self.pages.place, stat=_stat(file.path)):
            return False
        self._unchanged(file)
        return True

    def _unchanged(self, file: PageFile) -> None:
        record = self._ledger.records[file.name]
        output = str(self.pages.place / record.output)
        report = RunReport(
            "predict",
            str(file.path),
            output,
            "nothing-new",
            record.num_pages,
            record.num_pages,
            details={"unit": "page"},
        )
        self._settle(report, tell=self.pages.is_single)

    def _work(self, todo: Sequence[PageFile]) -> bool:
        computer = PageComputer(
            self.task, self.network, self._settings, self.options, self._style, self._budget, self.pages.run, self.emit,
            self.should_stop,
        )  # fmt: skip
        self._computer = computer
        feed = PageFeed(
            todo,
            self._wanted,
            max_bytes=self._budget // 2,
            page_bytes=computer.page_bytes,
            ahead_bytes=computer.ahead_bytes,
            pdf_dpi=self.page_options.pdf_dpi,
        )
        for group in _groups(self._ready(feed)):
            if self.should_stop() or not computer.compute(group, self._page_done):
                return False
        return not self.should_stop()

    def _ready(self, feed: PageFeed) -> Iterator[Ready]:
        """Pages that can be computed; what cannot is told at once."""
        for item in feed:
            if item.file.name in self._failed:
                continue
            if item.error is not None or item.opened is None or item.info is None:
                self._fail(item.file, item.error or InputError(f"{item.file.path} cannot be read"))
                continue
            result = self._results[item.file.name]
            try:
                yield self._computer.plan(item, result)
            except UnetctlError as error:
                self._fail(item.file, error)

    def _wanted(self, opened: OpenFile) -> Sequence[int]:
        """Pages of a file that are to be computed."""
        file = opened.file
        try:
            if self._ledger.is_done(
                file.name, self.pages.place, identity=opened.identity, checksums=self.options.verify
            ):
                self._ledger.mark(replace(self._ledger.records[file.name], stat=_stat(file.path), at_s=time.time()))
                self._unchanged(file)
                return ()
            result = self._result_for(opened)
        except OutputInTheWayError as error:
            if self.options.existing == "skip":
                self.emit(Note(f"{error.seen}: passed over", "info"))
                self._settle(RunReport("predict", str(file.path), "", "skipped"))
            else:
                self._fail(file, error)
            return ()
        except UnetctlError as error:
            self._fail(file, error)
            return ()
        self._results[file.name] = result
        if not opened.images:
            self._fail(file, InputError(f"{file.path} has no pages", "at least one"))
            return ()
        spooled = set(result.spooled())
        if len(spooled) == result.num_pages:
            self._finish(result)
        return [i for i in range(result.num_pages) if i not in spooled]

    def _result_for(self, opened: OpenFile) -> FileResult:
        file, num_pages = opened.file, len(opened.images)
        wanted = self.pages.kind or self.page_options.format
        origin = opened.origins[0].kind if opened.origins else "tiff"
        kind = page_kind_for(origin, self._style.is_one_bit, wanted, num_pages)
        if kind == "png" and num_pages > 1:
            raise UsageError(f"{file.path} has {num_pages} pages, and a PNG holds one", "tiff or pdf", "--format tiff")
        target = self._target(file, kind)
        spool = None
        if num_pages > 1:
            text = json.dumps([file.name, opened.identity, self._settings.values, kind], sort_keys=True)
            spool = self.pages.run / f"spool-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        return FileResult(opened, target, kind, spool)

    def _target(self, file: PageFile, kind: str) -> Path:
        """A name that no other input has, the same again for an input that was seen before."""
        suffix = SUFFIX_OF_KIND[kind]
        if self.pages.is_single and self.pages.kind is not None:
            suffix = self.pages.run.name.removesuffix(RUN_SUFFIX).removeprefix(file.stem.name)
        before = self._ledger.records.get(file.name)
        names = [str(file.stem) + suffix, f"{file.stem}{PurePosixPath(file.name).suffix}{suffix}"]
        if before is not None and before.output in names:
            names = [before.output]
        for name in names:
            if self._allotted.get(name, file.name) == file.name:
                target = self.pages.place / name
                is_ours = name in self._allotted and (before is not None and before.output == name)
                if target.exists() and not is_ours and self.options.existing != "overwrite":
                    raise OutputInTheWayError(
                        f"{target} exists and is not a result of this job", "a new name",
                        "choose another with -o, or give --existing overwrite",
                    )  # fmt: skip
                self._allotted[name] = file.name
                return target
        raise UsageError(f"{names[-1]} is the output of two inputs", "inputs of different names", "rename one")

    def _page_done(self, ready: Ready, num_ink: int | None) -> None:
        """Called in the writing thread when a page was added to its file's result."""
        result = ready.result
        name = result.opened.file.name
        if name in self._failed:
            return
        if num_ink is not None:
            size = ready.info.size_of("y") * ready.info.size_of("x")
            result.ink[ready.i_page] = num_ink / size
        if result.is_complete():
            self._finish(result)

    def _finish(self, result: FileResult) -> None:
        opened = result.opened
        file = opened.file
        try:
            made = result.finish(f"unetctl {self.task.name} {self.task.weights_sha256[:12]}")
        except ResourceError:
            raise
        except UnetctlError as error:
            self._fail(file, error)
            return
        notes = tuple(dict.fromkeys(n for origin in opened.origins for n in origin.notes)) + made.notes
        num_pixels = sum(i.size_of("y") * i.size_of("x") for i in opened.images)
        ink = tuple(round(result.ink.get(i, -1.0), 6) for i in range(result.num_pages)) if result.ink else ()
        output = result.target.relative_to(self.pages.place).as_posix()
        record = PageRecord(
            file.name, "done", opened.identity, _stat(file.path), output, made.num_bytes, made.sha256, made.num_pages,
            num_pixels, ink, notes,
        )  # fmt: skip
        self._ledger.mark(record)
        del self._results[file.name]
        for note in notes:
            self.emit(Note(f"{file.name}: {note}", "info"))
        now = time.monotonic()
        report = RunReport(
            "predict", str(file.path), str(result.target), "done", made.num_pages, made.num_pages, made.num_pages,
            num_pixels, now - self._last, notes=notes,
            details={"unit": "page", "task": self.task.name, "kind": result.kind, "sha256": made.sha256, "ink": list(ink)},
        )  # fmt: skip
        self._last = now
        self._settle(report, tell=True)

    def _fail(self, file: PageFile, error: BaseException) -> None:
        self._failed.add(file.name)
        self._results.pop(file.name, None)
        report = failed_report(str(file.path), error)
        code = int(report.details["exit_code"])
        self._ledger.mark(PageRecord(file.name, "failed", error=report.error, exit_code=code))
        if self.pages.is_single or self.on_error == "abort":
            raise error
        self._settle(report, tell=True)
        if self.may_fail is not None and len(self._failed) > self.may_fail:
            raise IncompleteError(
                f"{len(self._failed)} files failed", f"at most {self.may_fail}", "see the messages above"
            )

    def _settle(self, report: RunReport, *, tell: bool = False) -> None:
        self.reports.append(report)
        self._num_settled += 1
        if tell:
            self.on_report(report)
            self.emit(StageProgress("predict", self._num_settled, self._speed()))

    def _speed(self) -> dict[str, float]:
        done = [r for r in self.reports if r.status == "done"]
        elapsed = max(1e-9, time.monotonic() - self._begun)
        return {
            "Mpx/s": sum(r.num_pixels for r in done) / 1e6 / elapsed,
            "pages/min": sum(r.num_computed for r in done) * 60 / elapsed,
        }

    def _conclude(self, complete: bool, num_files: int) -> None:
        run, done = self.pages.run, [r for r in self.reports if r.status == "done"]
        details = {
            "num_files": num_files,
            "num_new": len(done),
            "num_unchanged": sum(r.status == "nothing-new" for r in self.reports),
            "failed": {r.input: r.error for r in self.reports if r.status == "failed"},
            "odd_ink": odd_pages(self._ledger.records.values()) if self._style.is_ink else {},
            **{k: round(v, 3) for k, v in self._speed().items()},
        }
        summary = RunReport(
            "predict", str(self.pages.run), str(self.pages.place), "done" if complete else "stopped",
            num_blocks=num_files, num_done=self._num_settled, num_computed=len(done),
            num_pixels=sum(r.num_pixels for r in done), elapsed_s=time.monotonic() - self._begun,
            peak_bytes=peak_memory(), details=details,
        )  # fmt: skip
        summary.save(run / ("summary.json" if not self.options.part else f"summary-{self.options.writer}.json"))
        if complete and not self.pages.is_single:
            for what, names in details["odd_ink"].items():  # type: ignore[attr-defined]
                shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
                self.emit(Note(f"pages to look at, {what}: {shown}", "warning"))
        if complete and self.page_options.checksums:
            write_checksums(self.pages, self._ledger.records.values())
        if not complete:
            self.reports.append(replace(summary, num_blocks=num_files, details={**details, "unit": "file"}))

    def _start_over(self) -> None:
        run = self.pages.run
        if not run.is_dir():
            return
        if not ledgers.is_page_run(run):
            raise UsageError(f"{run} is a run of something else", "a run of pages", "choose another output with -o")
        with RunLock(run, shared=False, who="start over"):
            for record in ledgers.read_ledger(run):
                if record.output:
                    (self.pages.place / record.output).unlink(missing_ok=True)
            doomed = run.with_name(f".{run.name}.partial")
            shutil.rmtree(doomed, ignore_errors=True)
            run.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _groups(ready: Iterator[Ready]) -> Iterator[list[Ready]]:
    group: list[Ready] = []
    num_pixels = 0
    for page in ready:
        if page.pixels is None:  # a large one, by itself
            yield [page]
            continue
        group.append(page)
        num_pixels += page.info.size_of("y") * page.info.size_of("x")
        if num_pixels >= _GROUP_PIXELS or len(group) >= _GROUP_PAGES:
            yield group
            group, num_pixels = [], 0
    if group:
        yield group


def _stat(path: Path) -> tuple[int, ...]:
    try:
        told = path.stat()
    except OSError:
        return ()
    return told.st_size, told.st_mtime_ns
