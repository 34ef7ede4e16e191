"""Run folders of pages: starting over, and what killed or changed work has left."""

import hashlib
import json
import shutil
from collections.abc import Iterable

from unetctl.errors import UsageError
from unetctl.jobs.pages.feed import stat_of
from unetctl.jobs.pages.inputs import PageSet
from unetctl.jobs.pages.ledger import BEGUN, DONE, PageRecord, is_page_run, read_ledger
from unetctl.runtime.aside import put_aside, told
from unetctl.runtime.events import Listener, Note
from unetctl.runtime.locks import RunLock
from unetctl.sinks.disk import sha256_of
from unetctl.sinks.pages import remove_leftovers


def key_of(name: str, stat: tuple[int, ...]) -> str:
    """What the folders of a file's unfinished pages bear in their names: another file, or a changed one, has another."""
    return hashlib.sha256(json.dumps([name, stat]).encode()).hexdigest()[:16]


def sweep(pages: PageSet, records: Iterable[PageRecord]) -> int:
    """Removes what killed runs have left and no input of today can use; counts it. The caller holds the run alone.

    Args:
        pages: that are asked for now.
        records: of the ledger.
    """
    records = tuple(records)
    done = {(record.name, record.stat) for record in records if record.status == DONE}
    stats = [(file.name, stat_of(file.path)) for file in pages.files]
    used = {key_of(*one) for one in stats if one not in done}  # what is left of a done one was to be removed just then
    left = [
        p for kind in ("spool", "large") for p in pages.run.glob(f"{kind}-*") if p.name.split("-")[1][:16] not in used
    ]
    left += pages.run.glob(".*.partial*")
    for path in left:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    for record in records:
        if record.status == BEGUN:
            remove_leftovers(pages.place / record.output)
    return len(left)


def keep_changed(pages: PageSet, record: PageRecord, emit: Listener) -> None:
    """Puts a finished output aside that somebody has changed since, and says so; leaves it if it is as it was written.

    Args:
        pages: whose output it is.
        record: the last word on its file; without a checksum nothing is known of the output.
    """
    path = pages.place / record.output
    if not record.sha256 or not path.is_file():
        return
    if path.stat().st_size != record.num_bytes or sha256_of(path) != record.sha256:
        emit(Note(told(path, put_aside(path)), "warning"))


def start_over(pages: PageSet, emit: Listener) -> None:
    """Removes a run and all that it has made, but for what somebody has changed since.

    Raises:
        BusyError: if others work on it.
        UsageError: if the run folder is none of pages.
    """
    run = pages.run
    if not run.is_dir():
        return
    if not is_page_run(run):
        raise UsageError(f"{run} is a run of something else", "a run of pages", "choose another output with -o")
    doomed = run.with_name(f".{run.name}.partial")
    with RunLock(run, shared=False, who="start over"):
        for record in read_ledger(run):
            if record.output:
                keep_changed(pages, record, emit)
                (pages.place / record.output).unlink(missing_ok=True)
        shutil.rmtree(doomed, ignore_errors=True)
        run.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
