"""The journal: which blocks are done, and which bytes prove it.

One append-only file a writer, one fsynced JSON line a block, written after the block's files are safe on disk. A line
torn by a crash is the last one of its file and is ignored. "The file exists" never means done.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from unetctl.errors import ResourceError
from unetctl.sinks.base import StoredKey

_PATTERN = "journal-*.jsonl"


@dataclass(frozen=True)
class BlockRecord:
    """One finished unit.

    Attributes:
        unit: "block" for blocks of the plan, "pyramid" for pyramid steps.
        index: of the block in the plan, or of the step in the pyramid.
        keys: what it has put on disk.
        num_nonfinite: pixels of the input that were not finite and were replaced.
    """

    unit: str
    index: int
    keys: tuple[StoredKey, ...]
    num_nonfinite: int = 0

    def to_json(self) -> str:
        """One line."""
        keys = [[k.key, k.num_bytes, k.sha256] for k in self.keys]
        return json.dumps({"unit": self.unit, "index": self.index, "keys": keys, "num_nonfinite": self.num_nonfinite})

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> "BlockRecord":
        """From a parsed line."""
        keys = tuple(StoredKey(*k) for k in values["keys"])
        return cls(values["unit"], values["index"], keys, values.get("num_nonfinite", 0))


class Journal:
    """The journal of one writer.

    Args:
        folder: of the run; the file is ``journal-<writer>.jsonl`` in it.
        writer: unique among the processes that write at the same time ("main", "part-2-of-8", a worker's name).
    """

    def __init__(self, folder: Path, writer: str) -> None:
        self.path = folder / f"journal-{writer}.jsonl"
        try:
            self._file = open(self.path, "ab")  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise ResourceError(
                f"the journal {self.path} could not be written ({error.strerror})", "", "check the folder's rights"
            ) from error
        if self._file.tell() and not ends_with_newline(self.path):
            self._append(b"\n")  # a torn line: what follows must not be glued to it

    def mark(self, record: BlockRecord) -> None:
        """Says durably that a unit is done.

        Raises:
            ResourceError: if the disk is full.
        """
        self._append(record.to_json().encode() + b"\n")

    def _append(self, line: bytes) -> None:
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise ResourceError(
                f"the journal {self.path} could not be written ({error.strerror})",
                "",
                "free space and run the same command again",
            ) from error

    def close(self) -> None:
        """Closes the file."""
        try:
            self._file.close()
        except OSError:  # unwritten rest of a torn line on a full disk: it was never promised
            pass

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_records(folder: Path) -> Iterator[BlockRecord]:
    """All records of all writers of a run; torn or foreign lines are left out.

    Later lines of a file come later, so that the last word on a unit wins; writers come in order of their names.
    """
    for path in sorted(folder.glob(_PATTERN)):
        yield from read_one(path)


def latest_records(folder: Path, unit: str = "block") -> dict[int, BlockRecord]:
    """The last record of each unit, by index."""
    return {record.index: record for record in read_records(folder) if record.unit == unit}


def records_by_index(folder: Path, unit: str = "block") -> dict[int, list[BlockRecord]]:
    """All records of each unit, by index.

    Two processes may have done the same unit, one after the other, in journals whose names say nothing of time: it is done
    if what is on disk is as any of them says.
    """
    found: dict[int, list[BlockRecord]] = {}
    for record in read_records(folder):
        if record.unit == unit:
            found.setdefault(record.index, []).append(record)
    return found


def read_one(path: Path) -> Iterator[BlockRecord]:
    """The records of one journal file, in the order of writing."""
    with path.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                continue
            try:
                yield BlockRecord.from_values(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue


def ends_with_newline(path: Path) -> bool:
    """True if the last line of a file that is not empty is whole."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
