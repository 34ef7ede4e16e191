"""What is said of all pages: how fast, which failed, odd ones, checksums."""

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping

from unetctl.jobs.pages.feed import PageFeed
from unetctl.jobs.pages.inputs import PageSet
from unetctl.jobs.pages.ledger import DONE, PageRecord, read_ledger
from unetctl.runtime.events import Listener, Note
from unetctl.runtime.report import RunReport, peak_memory
from unetctl.sources.files import RUN_SUFFIX

#: Shares of ink, between which a page of writing lies: a sparse label, a dense print.
_LEAST_INK, _MOST_INK = 0.0005, 0.35
_NAMED = 10


class Tally:
    """Counts what comes of files as they are settled."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._feed: PageFeed | None = None
        self._seconds: Mapping[str, float] = {}
        self.statuses: Counter[str] = Counter()
        self.failed: dict[str, str] = {}
        self.num_pages = self.num_pixels = 0

    def watch(self, feed: PageFeed, seconds: Mapping[str, float]) -> None:
        """Where the time goes: waiting for pages, and what computing them takes."""
        self._feed, self._seconds = feed, seconds

    def add(self, report: RunReport) -> None:
        """One more file."""
        self.statuses[report.status] += 1
        if report.status == "failed":
            self.failed[report.input] = report.error
        if report.status == "done":
            self.num_pages += report.num_computed
            self.num_pixels += report.num_pixels

    @property
    def elapsed_s(self) -> float:
        """Wall time so far."""
        return time.monotonic() - self._begun

    def speed(self) -> dict[str, float]:
        """Of this run, all stages."""
        elapsed = max(1e-9, self.elapsed_s)
        return {"Mpx/s": self.num_pixels / 1e6 / elapsed, "pages/min": self.num_pages * 60 / elapsed}

    def seconds(self) -> dict[str, float]:
        """By stage; decoding is that of all its threads together, beside the others."""
        found = dict(self._seconds)
        if self._feed is not None:
            found = {"waiting for pages": self._feed.waited_s, "decoding": self._feed.decoding_s, **found}
        return {name: round(value, 3) for name, value in found.items()}


def summary_of(
    pages: PageSet, tally: Tally, inked: Iterable[PageRecord], num_files: int, complete: bool, error: str
) -> RunReport:
    """The report of a whole run.

    Args:
        pages: that were asked for.
        tally: of this run.
        inked: records of all pages that have ink, also of earlier runs.
        num_files: of this process's share.
        complete: False if it was stopped, or ended by `error`.
        error: message, or empty.
    """
    num = tally.statuses
    details = {
        "unit": "file",
        "num_files": num_files,
        "num_new": num["done"],
        "num_unchanged": num["nothing-new"],
        "num_skipped": num["skipped"],
        "num_failed": num["failed"],
        "failed": tally.failed,
        "odd_ink": odd_pages(inked),
        **{name: round(value, 3) for name, value in tally.speed().items()},
    }
    return RunReport(
        "predict",
        str(pages.run),
        str(pages.place),
        "done" if complete else "failed" if error else "stopped",
        num_blocks=num_files,
        num_done=num.total(),
        num_computed=num["done"],
        num_pixels=tally.num_pixels,
        elapsed_s=tally.elapsed_s,
        seconds=tally.seconds(),
        peak_bytes=peak_memory(),
        error=error,
        details=details,
    )


def odd_pages(records: Iterable[PageRecord]) -> dict[str, list[str]]:
    """Pages whose share of ink is that of no written page: kind of oddity to names."""
    found: dict[str, list[str]] = {"hardly any ink (blank?)": [], "very much ink (a picture, black borders?)": []}
    blank, dark = found.values()
    for record in records:
        for i, share in enumerate(record.ink if record.status == DONE else ()):
            name = record.name if record.num_pages == 1 else f"{record.name} page {i + 1}"
            if 0 <= share < _LEAST_INK:
                blank.append(name)
            elif share > _MOST_INK:
                dark.append(name)
    return {what: sorted(names) for what, names in found.items() if names}


def say_odd_pages(summary: RunReport, emit: Listener) -> None:
    """Warns of the pages that somebody should look at."""
    for what, names in summary.details["odd_ink"].items():
        shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        emit(Note(f"pages to look at, {what}: {shown}", "warning"))


def write_checksums(pages: PageSet) -> None:
    """Lists all outputs with their SHA-256 sums beside their folder, in which ``sha256sum --check`` reads the list.

    Parts that end at the same time write it each: whoever sees that others have come meanwhile writes it again.
    """
    path = pages.run.with_name(pages.run.name.removesuffix(RUN_SUFFIX) + ".sha256")
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    written: bytes | None = None
    while (text := _checksums(pages)) != written:
        partial.write_bytes(text)
        partial.replace(path)
        written = text


def _checksums(pages: PageSet) -> bytes:
    done = [r for r in read_ledger(pages.run) if r.status == DONE and (pages.place / r.output).is_file()]
    return b"".join(_line(os.fsencode(r.output), r.sha256) for r in sorted(done, key=lambda r: r.output))


def _line(name: bytes, sha256: str) -> bytes:
    """As GNU coreutils write it: names with line breaks and backslashes are escaped, and the line says so."""
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"\\" if escaped != name else b"") + sha256.encode() + b"  " + escaped + b"\n"
