"""The folder of one execution, beside its output: plan, statistics, journals, locks, log, report.

scan-em.ome.tif            the output
scan-em.ome.tif.run/
    plan.json              written once, put in place by rename
    parts.json             how many parts share it, once a part has started
    statistics-*.jsonl     journal-*.jsonl     one a writer
    store.zarr             until the export of a TIFF is verified
    report.json            what happened last
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from unetctl.errors import InputError, ResourceError, UsageError
from unetctl.runtime.aside import put_aside
from unetctl.runtime.journal import BlockRecord, records_by_index
from unetctl.runtime.locks import is_at_work, maker
from unetctl.runtime.run_plan import RunPlan
from unetctl.sinks.disk import sha256_of
from unetctl.sinks.zarr import ZarrSink
from unetctl.sources.files import PLAN_NAME, RUN_SUFFIX

_ZARR_SUFFIXES = (".zarr",)


#: Whether the store of a finished TIFF stays: for good, until one more export was made of it, or not.
KeepStore = bool | Literal["export"]

#: Files that `stitch OUT -o NEW` has written, each with size and checksum.
_EXPORTS = "exports.json"


class OutputInTheWayError(UsageError):
    """Something that is not ours lies where the output is to be."""


class RunFolder:
    """Paths and state of a run.

    Args:
        output: the path that the user gets.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output.with_name(output.name + RUN_SUFFIX)

    @property
    def is_zarr(self) -> bool:
        """True if the store itself is the output."""
        return self.output.suffix in _ZARR_SUFFIXES

    @property
    def is_staged(self) -> bool:
        """True if blocks hold what the output is made of, never the output itself: labels, for which all must be there."""
        try:
            kept: object = json.loads(self.plan_path.read_text())["keep"]
        except (OSError, ValueError, KeyError):
            return False
        return kept == "labels"

    @property
    def store_path(self) -> Path:
        """Where blocks are written."""
        return self.output if self.is_zarr and not self.is_staged else self.path / "store.zarr"

    @property
    def made_path(self) -> Path:
        """The store that is the output, or that a TIFF is exported from."""
        if self.is_zarr:
            return self.output
        return self.path / "labels.zarr" if self.is_staged else self.store_path

    @property
    def plan_path(self) -> Path:
        """The plan in force."""
        return self.path / PLAN_NAME

    @property
    def report_path(self) -> Path:
        """What happened last."""
        return self.path / "report.json"

    def has_plan(self) -> bool:
        """True if a run has begun here."""
        return self.plan_path.is_file()

    def plan(self) -> RunPlan:
        """The plan in force.

        Raises:
            InputError: if there is none.
            UsageError: if it was made by another version.
        """
        try:
            text = self.plan_path.read_text()
        except OSError as error:
            raise InputError(
                f"{self.output} has no run folder {self.path.name} with a plan",
                "an output that unetctl predict has begun",
                "pages and folders of pages need no stitching: they are whole as soon as they are there",
            ) from error
        return RunPlan.from_json(text)

    def refuse_foreign_output(self) -> None:
        """Says so if something that is not ours lies where the output is to be.

        Raises:
            OutputInTheWayError: if the output exists and no run folder belongs to it.
        """
        if self.output.exists() and not self.has_plan():
            raise OutputInTheWayError(
                f"{self.output} exists and is not a result of this job",
                "a new name",
                "choose another with -o, or give --existing overwrite",
            )

    def begin(self, plan: RunPlan) -> None:
        """Puts the plan in place; whoever comes second finds it and follows. The lock can be taken then.

        Raises:
            ResourceError: if the disk is full or not writable.
        """
        with self._writing():
            if not self.has_plan():
                self._put_plan(plan)
        if not self.has_plan():
            raise OutputInTheWayError(
                f"{self.path} exists and holds no plan",
                "a run folder of unetctl",
                "remove it, give --fresh, or choose another -o",
            )

    def ensure_store(self, plan: RunPlan) -> ZarrSink:
        """The store, made from the plan if there is none; the caller holds the run's lock, shared or alone.

        Records of a store that vanished need no care: no block matches them any more.

        Raises:
            ResourceError: if the disk is full or not writable.
        """
        with self._writing():
            if not self.store_path.exists():
                self._put_store(plan)
        return self.sink()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ResourceError(
                f"{self.path} could not be written ({error.strerror or error})",
                "",
                "check the folder's rights and free space",
            ) from error

    def _put_plan(self, plan: RunPlan) -> None:
        temporary = self.path.with_name(f".{self.path.name}.partial-{maker()}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            with (temporary / PLAN_NAME).open("w") as file:
                file.write(plan.to_json())
                file.flush()
                os.fsync(file.fileno())
            if self.path.is_dir() and not self.has_plan():
                # Left by something that never got as far as a plan: nothing in it can be worth keeping.
                with contextlib.suppress(OSError):
                    self.path.rmdir()
            with contextlib.suppress(OSError):  # another process was first: its plan is in force
                temporary.rename(self.path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _put_store(self, plan: RunPlan) -> None:
        temporary = self.store_path.with_name(f".{self.store_path.name}.partial-{maker()}")
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            ZarrSink.create(temporary, plan.layout)
            with contextlib.suppress(OSError):  # another process was first
                temporary.rename(self.store_path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def sink(self) -> ZarrSink:
        """The store, opened."""
        return ZarrSink.open(self.store_path)

    def fix_parts(self, num_parts: int) -> None:
        """Says durably that so many parts share the run; the first part decides.

        Raises:
            UsageError: if another number was fixed before.
        """
        path = self.path / "parts.json"
        temporary = self.path / f".parts.partial-{maker()}"
        temporary.write_text(json.dumps({"num_parts": num_parts}))
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:  # no hard links here: a rename may lose a race between equal numbers, which is harmless
            if not path.exists():
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        fixed = self.num_parts()
        if fixed != num_parts:
            raise UsageError(
                f"--part ?/{num_parts}, but this run was begun with {fixed} parts",
                f"--part 1/{fixed} to {fixed}/{fixed}",
                "or start over with --fresh",
            )

    def num_parts(self) -> int | None:
        """How many parts share the run; None if it was never shared."""
        try:
            return int(json.loads((self.path / "parts.json").read_text())["num_parts"])
        except (OSError, ValueError, KeyError):
            return None

    def missing(self, sink: ZarrSink, indices: range, *, checksums: bool = False, discard: bool = True) -> list[int]:
        """Blocks of `indices` that are not safely on disk: never journaled, or not as any journal says.

        Args:
            sink: the store.
            indices: blocks to look at.
            checksums: compare contents, not only sizes.
            discard: delete the keys of mismatching blocks, so that they are written anew; the caller holds the run's lock.
        """
        known = records_by_index(self.path)
        todo = []
        for index in indices:
            records = known.get(index, [])
            if is_on_disk(sink, records, checksums):
                continue
            if discard:
                sink.delete({key.key for record in records for key in record.keys})
            todo.append(index)
        return todo

    def put_changed_aside(self) -> Path | None:
        """Renames a finished output that somebody has changed since, so that nothing of his is lost; where it is now.

        None if there is none. The caller holds the run alone.
        """
        if self.finished() is None or not self.output.exists() or self.output == self.store_path:
            return None
        return put_aside(self.output)

    def mark_finished(self, values: dict[str, object]) -> None:
        """Says durably that the output is whole, and how it can be known again."""
        path = self.path / "finished.json"
        temporary = path.with_name(f".{path.name}.partial-{maker()}")
        with temporary.open("w") as file:
            file.write(json.dumps(values, sort_keys=True))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def mark_exported(self, to: Path) -> None:
        """Notes a further file that the finished store was written to."""
        values = {**self._exports(), str(to.resolve()): {"num_bytes": to.stat().st_size, "sha256": sha256_of(to)}}
        path = self.path / _EXPORTS
        temporary = path.with_name(f".{path.name}.partial-{maker()}")
        temporary.write_text(json.dumps(values, sort_keys=True))
        temporary.replace(path)

    def has_exported(self, to: Path) -> bool:
        """True if that file is as `mark_exported` noted it."""
        noted = self._exports().get(str(to.resolve()))
        if noted is None or not to.is_file() or to.stat().st_size != noted["num_bytes"]:
            return False
        return bool(sha256_of(to) == noted["sha256"])

    def _exports(self) -> dict[str, dict[str, object]]:
        try:
            values: dict[str, dict[str, object]] = json.loads((self.path / _EXPORTS).read_text())
            return values
        except (OSError, ValueError):
            return {}

    def finished(self) -> dict[str, object] | None:
        """What `mark_finished` noted; None if the output was never finished."""
        try:
            values: dict[str, object] = json.loads((self.path / "finished.json").read_text())
            return values
        except (OSError, ValueError):
            return None

    def is_finished(self, checksums: bool = False) -> bool:
        """True if the output was finished and still is what was written.

        Args:
            checksums: compare the content, not only the size.
        """
        noted = self.finished()
        if noted is None:
            return False
        if noted["kind"] == "tiff":
            if not self.output.is_file() or self.output.stat().st_size != noted["num_bytes"]:
                return False
            return not checksums or sha256_of(self.output) == noted["sha256"]
        if self.is_staged:
            return self.output.is_dir() and self.are_labels_intact(self.output, checksums)
        return self.store_path.is_dir() and self.is_store_intact(checksums)

    def is_store_intact(self, checksums: bool = False) -> bool:
        """True if the store holds all that the journals say, of blocks and pyramids.

        Args:
            checksums: compare contents, not only sizes.
        """
        return self._is_intact(self.sink(), ("block", "pyramid"), checksums)

    def are_labels_intact(self, path: Path, checksums: bool = False) -> bool:
        """True if a store of labels holds all that the journal says.

        Args:
            path: of the store.
            checksums: compare contents, not only sizes.
        """
        try:
            sink = ZarrSink.open(path)
        except InputError:
            return False
        return self._is_intact(sink, ("label", "label-pyramid"), checksums)

    def _is_intact(self, sink: ZarrSink, units: tuple[str, ...], checksums: bool) -> bool:
        known = (records for unit in units for records in records_by_index(self.path, unit).values())
        return all(is_on_disk(sink, records, checksums) for records in known)

    def remove_store(self) -> None:
        """Deletes the stores of a finished output that is not a store itself."""
        stores = {self.store_path, self.made_path} - {self.output}
        for path in sorted(stores):
            _discard(path)

    def release_store(self) -> None:
        """Deletes the stores that were kept for one export alone (`KeepStore` "export"), now or in a run before."""
        noted = self.finished()
        if noted is not None and noted.get("keep_store") == "export":
            self.mark_finished({**noted, "keep_store": False})
            self.remove_store()

    def remove(self) -> None:
        """Deletes output and run folder, for starting over; only ever called with the run's lock held or no run at all.

        The output goes first: while it is there, so is the plan that says whose it is.
        """
        _discard(self.output)
        _discard(self.path)

    def sweep(self) -> int:
        """Removes what killed processes left half made or half removed, counts it. Only while nobody else works on the run."""
        beside = tuple(f".{name}.partial-" for name in (self.output.name, self.path.name))
        with os.scandir(self.path.absolute().parent) as entries:
            left = [Path(entry.path) for entry in entries if entry.name.startswith(beside)]
        left += [path for path in self.path.iterdir() if path.name.startswith(".") and ".partial-" in path.name]
        # A process that is about to be refused may just be making its plan.
        left = [path for path in left if not is_at_work(path)]
        for path in left:
            _delete(path)
        noted = self.finished()
        if noted is not None and noted.get("keep_store") is False and self.store_path.exists() and self.is_finished():
            self.remove_store()
        return len(left)


def is_on_disk(sink: ZarrSink, records: Sequence[BlockRecord], checksums: bool = False) -> bool:
    """True if what a unit has written is there, as one of its records says."""
    return any(all(sink.matches(key, checksums) for key in record.keys) for record in reversed(records))


def _discard(path: Path) -> None:
    """Deletes a file or folder; a kill in the middle leaves it whole or nothing under its name."""
    doomed = path.with_name(f".{path.name}.partial-{maker()}")
    _delete(doomed)
    try:
        path.rename(doomed)
    except FileNotFoundError:
        return
    except OSError:  # Windows, while somebody has a file in it open
        doomed = path
    _delete(doomed)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
