"""The ledger of a folder of pages: which file was done under which settings, and which bytes prove it.

scans-dibco/            the outputs
scans-dibco.run/
    plan.json           the settings in force, the folder of the inputs, the place of the outputs
    pages-*.jsonl       one a writer, one fsynced line a file
    spool-*/            pages of files that are not complete yet
    large-*/            blocks of pages that are too large for the memory
    summary.json        what happened last
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from unetctl.errors import ResourceError, UsageError
from unetctl.jobs.pages.inputs import PageSet
from unetctl.runtime.journal import ends_with_newline
from unetctl.runtime.locks import maker
from unetctl.sinks.disk import sha256_of
from unetctl.sources.files import PLAN_NAME, RUN_SUFFIX

_PATTERN = "pages-*.jsonl"

#: What may be the status of a record; the output of one that was begun may be there already, whole.
DONE, FAILED, BEGUN = "done", "failed", "begun"


@dataclass(frozen=True)
class PageRecord:
    """What came of one file.

    Attributes:
        name: of the input, see `PageFile`.
        status: DONE, FAILED or BEGUN.
        identity: of the input's content.
        stat: size and time of change (nanoseconds) of the input; as long as both are the same it is not opened again.
        output: path of the result below the place of the outputs, with slashes.
        num_bytes, sha256: of the result.
        num_pages: in it.
        num_pixels: of all pages.
        ink: share of ink of each page, 0 to 1; empty for what has no ink.
        notes: sentences about what was translated or lost.
        error, exit_code: of what failed.
        at_s: when, seconds since 1970; the last word on a file counts.
    """

    name: str
    status: str
    identity: dict[str, Any] = field(default_factory=dict)
    stat: tuple[int, ...] = ()
    output: str = ""
    num_bytes: int = 0
    sha256: str = ""
    num_pages: int = 0
    num_pixels: int = 0
    ink: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""
    exit_code: int = 0
    at_s: float = field(default_factory=time.time)

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> "PageRecord":
        """From a parsed line."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)


class Ledger:
    """The records of a run, and the file that this writer appends to.

    Args:
        run: the run folder.
        writer: unique among the processes that write at the same time.
    """

    def __init__(self, run: Path, writer: str) -> None:
        self.run = run
        self._path = run / f"pages-{writer}.jsonl"
        self.records = {record.name: record for record in read_ledger(run)}
        self._file = open(self._path, "ab")  # noqa: SIM115 - closed by close()
        if self._file.tell() and not ends_with_newline(self._path):
            self._append(b"\n")

    def mark(self, record: PageRecord) -> None:
        """Says durably what came of a file.

        Raises:
            ResourceError: if the disk is full.
        """
        self._append(json.dumps(asdict(record)).encode() + b"\n")
        self.records[record.name] = record

    def is_done(
        self,
        name: str,
        place: Path,
        *,
        identity: Mapping[str, Any] | None = None,
        stat: tuple[int, ...] | None = None,
        checksums: bool = False,
    ) -> bool:
        """True if the file was done as it is now, and its output still is what was written.

        Args:
            name: of the input.
            place: of the outputs.
            identity: of the input's content; or
            stat: its size and time of change, which spare opening it.
            checksums: compare the output's content, not only its size.
        """
        record = self.records.get(name)
        if record is None or record.status != DONE:
            return False
        if (record.identity != dict(identity)) if identity is not None else (not stat or record.stat != stat):
            return False
        output = place / record.output
        try:
            if output.stat().st_size != record.num_bytes:
                return False
        except OSError:
            return False
        return not checksums or sha256_of(output) == record.sha256

    def allotted(self) -> dict[str, str]:
        """Output to the name of the input that it belongs to."""
        return {r.output: r.name for r in self.records.values() if r.output}

    def _append(self, line: bytes) -> None:
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise ResourceError(
                f"the ledger {self._path} could not be written ({error.strerror})", "",
                "free space and run the same command again",
            ) from error  # fmt: skip

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError:  # unwritten rest of a torn line on a full disk: it was never promised
            pass


def read_ledger(run: Path) -> list[PageRecord]:
    """The last record of each file, of all writers; torn lines are left out."""
    latest: dict[str, PageRecord] = {}
    for path in sorted(run.glob(_PATTERN)):
        for record in _lines(path):
            known = latest.get(record.name)
            if known is None or known.at_s <= record.at_s:
                latest[record.name] = record
    return list(latest.values())


def _lines(path: Path) -> Iterator[PageRecord]:
    with path.open("rb") as lines:
        for line in lines:
            try:
                yield PageRecord.from_values(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue


def is_page_run(run: Path) -> bool:
    """True if a run folder is one of pages."""
    return bool(_plan_of(run))


def settings_of(run: Path) -> dict[str, Any] | None:
    """The settings in force in a run folder of pages; None if it is none."""
    plan = _plan_of(run)
    return plan["settings"] if plan else None


def _plan_of(run: Path) -> dict[str, Any]:
    try:
        values = json.loads((run / PLAN_NAME).read_text())
    except (OSError, ValueError):
        return {}
    is_ours = isinstance(values, dict) and values.get("kind") == "pages" and "settings" in values
    return values if is_ours else {}


def begin(pages: PageSet, settings: dict[str, Any]) -> dict[str, Any]:
    """Puts the settings in place; whoever comes second finds them.

    Returns:
        The settings in force.

    Raises:
        UsageError: if the run is one of something else, or of another folder that is still there.
        ResourceError: if the run folder cannot be written.
    """
    run = pages.run
    plan = {
        "kind": "pages",
        "settings": settings,
        "folder": None if pages.folder is None else os.path.realpath(pages.folder),
        "place": Path(os.path.relpath(pages.place, run.parent)).as_posix(),
    }
    try:
        run.mkdir(parents=True, exist_ok=True)
        if not (run / PLAN_NAME).exists():
            _put(run / PLAN_NAME, json.dumps(plan, indent=1, sort_keys=True))
    except OSError as error:
        raise ResourceError(
            f"{run} could not be written ({error.strerror})", "", "check the folder's rights and free space"
        ) from error
    found = _plan_of(run)
    if not found:
        raise UsageError(f"{run} is a run of something else", "a run of pages", "choose another output with -o")
    before = found.get("folder")
    # Other folders have files of the same names. One that is gone was moved, or lies elsewhere on that machine.
    if before and plan["folder"] and before != plan["folder"] and os.path.isdir(before):
        raise UsageError(
            f"{run} is a run of the folder {before}", "the same folder as before", "choose another output with -o"
        )
    settings_in_force: dict[str, Any] = found["settings"]
    return settings_in_force


def _put(path: Path, text: str) -> None:
    """Writes a file that may not be there yet; of several processes the first is right."""
    temporary = path.with_name(f".{path.name}.partial-{maker()}")
    try:
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except OSError:
            if not path.exists():  # no hard links here
                temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def own_outputs(folder: Path) -> set[Path]:
    """What runs of pages whose run folders lie in this folder have made."""
    found: set[Path] = set()
    for run in folder.glob(f"*{RUN_SUFFIX}"):
        plan = _plan_of(run)
        if plan:
            place = folder / plan.get("place", ".")
            found |= {(place / record.output).resolve() for record in read_ledger(run) if record.output}
    return found
