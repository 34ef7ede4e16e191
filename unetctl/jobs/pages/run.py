"""`unetctl predict` for pages: file after file, tiles of many pages in a batch, one ledger for all."""

import os
import time
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace

from unetctl.errors import IncompleteError, InputError, ResourceError, Stopped, UnetctlError, UsageError
from unetctl.geometry.object_size import MOST_SCALE
from unetctl.jobs.failures import failed_report
from unetctl.jobs.object_scale import wants_scale
from unetctl.jobs.options import PredictOptions
from unetctl.jobs.pages import ledger as ledgers
from unetctl.jobs.pages.aftermath import Tally, say_odd_pages, summary_of, write_checksums
from unetctl.jobs.pages.compute import PageComputer, Ready, UnreadablePageError
from unetctl.jobs.pages.feed import FeedItem, OpenFile, PageFeed, as_told, stat_of
from unetctl.jobs.pages.inputs import PageFile, PageSet
from unetctl.jobs.pages.ledger import BEGUN, DONE, FAILED, Ledger, PageRecord
from unetctl.jobs.pages.options import PageOptions
from unetctl.jobs.pages.resolution import ResolutionCheck
from unetctl.jobs.pages.results import FileResult, PageStyle
from unetctl.jobs.pages.settings import PageSettings, differences, from_values, new_settings, refuse_unfit
from unetctl.jobs.pages.shares import Shares
from unetctl.jobs.pages.targets import Targets, refuse_kind
from unetctl.jobs.pages.upkeep import keep_changed, start_over, sweep
from unetctl.jobs.tasks import ResolvedTask
from unetctl.networks.network import Network
from unetctl.objects.rule import LabelRule
from unetctl.runtime.events import Listener, Note, StageEnded, StageProgress, StageStarted, nobody
from unetctl.runtime.locks import RunLock
from unetctl.runtime.logbook import logged
from unetctl.runtime.memory import budget
from unetctl.runtime.report import RunReport
from unetctl.runtime.run_folder import OutputInTheWayError, RunFolder
from unetctl.sinks.page import BrokenPageError
from unetctl.sources.files import RUN_SUFFIX

#: Pages are gathered until they hold so many pixels, so that tiles of several share batches.
_GROUP_PIXELS = 2**24
_GROUP_PAGES = 16
#: What labelling takes in memory, as a multiple of the page: larger ones are labelled block by block.
_LABEL_BYTES = 16


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
    _is_cut: bool = False
    _tally: Tally = field(default_factory=Tally, repr=False)

    def run(self) -> list[RunReport]:
        """Works on what is new, changed or failed before.

        Returns:
            One report a file, in the order in which they were settled; the last is of status "stopped" if asked to stop.

        Raises:
            BusyError: if another process holds the outputs.
            UsageError: if the run was begun with other settings.
            ResourceError: if the disk is full, or what the run was begun with needs more memory than there is.
            IncompleteError: if more files failed than may.
            UnetctlError: with `on_error` "abort" or a single file, what went wrong with it.
        """
        options = self.options
        self._last = time.monotonic()
        self._shares = Shares.of(budget(options.memory_bytes, options.scheduler_bytes))
        asked = new_settings(self.task, self.network, options, self.page_options, self._shares)
        refuse_kind(asked.values["keep"], self.pages.kind or self.page_options.format)
        if options.fresh:
            start_over(self.pages, self.emit)
        found = from_values(ledgers.begin(self.pages, asked.values))
        differing = differences(asked, found, options)
        if differing:
            raise UsageError(
                f"{self.pages.run} holds a run that differs: {'; '.join(differing[:4])}",
                "the same weights and settings as before",
                "start over with --fresh, or choose another output with -o",
            )
        if found.values != asked.values:
            refuse_unfit(found, self.task, self.network, self._shares)
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
        keep = settings.values["keep"]
        rule = LabelRule.of(self.task.recipe.objects) if keep == "labels" else None
        self._style = PageStyle(keep, self.task.recipe.output.is_ink, rule)
        self._resolution = ResolutionCheck(self.task.recipe, self.options.scale or 1.0)
        files = self._share()
        with Ledger(self.pages.run, self.options.writer) as self._ledger:
            records = self._ledger.records
            if self.options.part is None:
                swept = sweep(self.pages, records.values())
                if swept:
                    self.emit(Note(f"removed {swept} unfinished files of other inputs", "detail"))
            self._targets = Targets(
                self.pages, records, settings.values,
                is_one_bit=self._style.is_one_bit, wanted=self.page_options.format,
                overwrites=self.options.existing == "overwrite", are_numbers=self._style.rule is not None,
            )  # fmt: skip
            todo = [file for file in files if not self._is_unchanged(file)]
            self.emit(StageStarted("predict", len(files), len(self.reports), "file"))
            complete = False
            try:
                complete = self._work(todo) if todo else True
            except BaseException as error:
                with suppress(OSError):  # the first error is the one to tell
                    self._conclude(False, len(files), str(error))
                raise
            finally:
                self.emit(StageEnded("predict", self._tally.elapsed_s, complete))
            self._conclude(complete, len(files))
        return self.reports

    def _share(self) -> list[PageFile]:
        """The files of this part: by name, so that files may come and go without moving others to another part."""
        if self.options.part is None:
            return list(self.pages.files)
        i_part, num_parts = self.options.part
        return [f for f in self.pages.files if zlib.crc32(os.fsencode(f.name)) % num_parts == i_part - 1]

    def _is_unchanged(self, file: PageFile) -> bool:
        if self.options.verify or not self._ledger.is_done(file.name, self.pages.place, stat=stat_of(file.path)):
            return False
        self._unchanged(file)
        return True

    def _unchanged(self, file: PageFile) -> None:
        record = self._ledger.records[file.name]
        num = record.num_pages
        output = str(self.pages.place / record.output)
        report = RunReport("predict", str(file.path), output, "nothing-new", num, num, details={"unit": "page"})
        self._settle(report, tell=self.pages.is_single)

    def _work(self, todo: Sequence[PageFile]) -> bool:
        shares = self._shares
        self._computer = computer = PageComputer(
            self.task, self.network, self._settings, self.options, self._style, shares, self.pages.run, self.emit,
            self.should_stop,
        )  # fmt: skip
        largest = MOST_SCALE if wants_scale(self.task.recipe, self.options.scale) else self.options.scale or 1.0
        feed = PageFeed(
            todo,
            self._wanted,
            max_bytes=shares.whole,
            page_bytes=int(shares.page / max(1.0, largest) ** 2 / (_LABEL_BYTES if self._style.rule else 1)),
            ahead_bytes=shares.ahead,
            pdf_dpi=self.page_options.pdf_dpi,
        )
        self._tally.watch(feed, computer.seconds)
        with closing(_groups(self._ready(feed), shares.group)) as groups:
            for group in groups:
                if self.should_stop():
                    return False
                try:
                    if not computer.compute(group, self._page_done, self._page_failed):
                        return False
                except UnreadablePageError as unreadable:
                    (ready,) = group
                    cause = unreadable.__cause__
                    assert isinstance(cause, Exception)
                    self._fail(ready.opened.file, as_told(cause, ready.opened.file.path), ready.opened)
        return not self._is_cut

    def _ready(self, feed: PageFeed) -> Generator[Ready, None, None]:
        """Pages that can be computed; what cannot is told at once."""
        with closing(iter(feed)) as items:
            for item in items:
                if self.should_stop():  # nothing to compute may come for a long time
                    self._is_cut = True
                    return
                if item.file.name in self._failed:
                    self._let_go(item)
                    continue
                if item.error is not None or item.opened is None or item.info is None:
                    self._fail(item.file, item.error or InputError(f"{item.file.path} cannot be read"), item.opened)
                    continue
                try:
                    ready = self._computer.plan(item, self._results[item.file.name])
                except Stopped:
                    self._let_go(item)
                    self._is_cut = True
                    return
                except Exception as error:  # a large page is looked at here for the first time
                    self._let_go(item)
                    self._fail(item.file, as_told(error, item.file.path), item.opened)
                    continue
                self._resolution.look_at(item.file.name, item.info.dpi)
                yield ready

    def _let_go(self, item: FeedItem) -> None:
        if item.opened is not None and item.pixels is None and item.error is None:
            item.opened.release()

    def _wanted(self, opened: OpenFile) -> Sequence[int]:
        """Pages of a file that are to be computed."""
        file = opened.file
        try:
            if self._ledger.is_done(
                file.name, self.pages.place, identity=opened.identity, checksums=self.options.verify
            ):
                self._ledger.mark(replace(self._ledger.records[file.name], stat=opened.stat, at_s=time.time()))
                self._unchanged(file)
                return ()
            result = self._targets.result_for(opened)
        except OutputInTheWayError as error:
            if self.options.existing == "skip":
                self.emit(Note(f"{error.seen}: passed over", "info"))
                self._settle(RunReport("predict", str(file.path), "", "skipped"))
            else:
                self._fail(file, error, opened)
            return ()
        except ResourceError:
            raise
        except UnetctlError as error:
            self._fail(file, error, opened)
            return ()
        self._results[file.name] = result
        spooled = set(result.spooled())
        if len(spooled) == result.num_pages:
            self._finish(result)
        return [i for i in range(result.num_pages) if i not in spooled]

    def _page_done(self, ready: Ready, num_ink: int | None) -> None:
        """Called in the writing thread when a page was added to its file's result."""
        result = ready.result
        if result.opened.file.name in self._failed:
            return
        if num_ink is not None:
            result.note_ink(ready.i_page, num_ink / ready.num_pixels)
        if result.is_complete():
            self._finish(result)

    def _page_failed(self, ready: Ready, error: Exception) -> None:
        """Called in the writing thread when a page cannot be made: that is its file's fault alone."""
        if ready.opened.file.name not in self._failed:
            self._fail(ready.opened.file, _as_written(error, ready.result), ready.opened)

    def _finish(self, result: FileResult) -> None:
        opened, file, records = result.opened, result.opened.file, self._ledger.records
        output = result.target.relative_to(self.pages.place).as_posix()
        before = records.get(file.name)
        if before is not None:
            keep_changed(self.pages, before, self.emit)
        try:
            # So that an output whose process is killed before it says so is known to be ours.
            self._ledger.mark(PageRecord(file.name, BEGUN, output=output))
            made = result.finish(f"unetctl {self.task.name} {self.task.weights_sha256[:12]}")
        except Exception as error:
            if isinstance(error, ResourceError) and isinstance(error.__cause__, OSError):
                raise  # a full disk is not the file's fault
            if isinstance(error.__cause__, BrokenPageError):
                result.clear()  # a power failure has left half a page: the next run makes all anew
            self._fail(file, _as_written(error, result), opened)
            return
        notes = tuple(dict.fromkeys(n for origin in opened.origins for n in origin.notes)) + made.notes
        num_pixels = sum(i.size_of("y") * i.size_of("x") for i in opened.images)
        ink = tuple(round(result.ink.get(i, -1.0), 6) for i in range(result.num_pages)) if result.ink else ()
        record = PageRecord(
            file.name, DONE, opened.identity, opened.stat, output, made.num_bytes, made.sha256, made.num_pages,
            num_pixels, ink, notes,
        )  # fmt: skip
        self._ledger.mark(record)
        result.clear()
        del self._results[file.name]
        if before is not None and before.output not in ("", output):  # of another kind, as the input was
            (self.pages.place / before.output).unlink(missing_ok=True)
        for note in notes:
            self.emit(Note(f"{file.path}: {note}", "info"))
        now = time.monotonic()
        report = RunReport(
            "predict", str(file.path), str(result.target), "done", made.num_pages, made.num_pages, made.num_pages,
            num_pixels, now - self._last, notes=notes,
            details={"unit": "page", "task": self.task.name, "kind": result.kind, "sha256": made.sha256, "ink": list(ink)},
        )  # fmt: skip
        self._last = now
        self._settle(report, tell=True)

    def _fail(self, file: PageFile, error: BaseException, opened: OpenFile | None) -> None:
        self._failed.add(file.name)
        self._results.pop(file.name, None)
        if opened is not None:
            opened.abandon()
        report = failed_report(str(file.path), error)
        before = self._ledger.records.get(file.name)
        # The output of its former content, if any, stays ours.
        of_former = (before.output, before.num_bytes, before.sha256) if before is not None else ("", 0, "")
        output, num_bytes, sha256 = of_former
        code = int(report.details["exit_code"])
        self._ledger.mark(
            PageRecord(
                file.name, FAILED, output=output, num_bytes=num_bytes, sha256=sha256, error=report.error, exit_code=code,
            )
        )  # fmt: skip
        if self.pages.is_single or self.on_error == "abort":
            raise error
        self._settle(report, tell=True)
        if self.may_fail is not None and len(self._failed) > self.may_fail:
            raise IncompleteError(
                f"{len(self._failed)} files failed", f"at most {self.may_fail}", "see the messages above"
            )

    def _settle(self, report: RunReport, *, tell: bool = False) -> None:
        self.reports.append(report)
        self._tally.add(report)
        if tell:
            self.on_report(report)
            self.emit(StageProgress("predict", len(self.reports), self._tally.speed()))

    def _conclude(self, complete: bool, num_files: int, error: str = "") -> None:
        names = {file.name for file in self.pages.files}
        records = [record for record in self._ledger.records.values() if record.name in names]
        summary = summary_of(self.pages, self._tally, records if self._style.is_ink else (), num_files, complete, error)
        name = "summary.json" if not self.options.part else f"summary-{self.options.writer}.json"
        summary.save(self.pages.run / name)
        for text in self._resolution.warnings():
            self.emit(Note(text, "warning"))
        if complete and not self.pages.is_single:
            say_odd_pages(summary, self.emit)
        if complete and self.page_options.checksums:
            write_checksums(self.pages)
        if not complete:
            self.reports.append(summary)


def _as_written(error: Exception, result: FileResult) -> Exception:
    if isinstance(error, OSError):
        return ResourceError(f"{result.target} could not be written ({error.strerror or error})")
    return error


def _groups(ready: Generator[Ready, None, None], max_bytes: int) -> Generator[list[Ready], None, None]:
    group: list[Ready] = []
    num_pixels = num_bytes = 0
    with closing(ready):
        for page in ready:
            if page.pixels is None:  # a large one, by itself
                yield [page]
                continue
            group.append(page)
            num_pixels += page.num_pixels
            num_bytes += page.num_bytes
            if num_pixels >= _GROUP_PIXELS or num_bytes >= max_bytes or len(group) >= _GROUP_PAGES:
                yield group
                group, num_pixels, num_bytes = [], 0, 0
        if group:
            yield group
