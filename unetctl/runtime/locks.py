"""Who may work on a run at the same time: parts share it, stitching, exporting and starting over have it alone.

Locks of the operating system, so the lock of a killed process is free at once; a note beside the lock names its holder.
On network file systems they are advisory at best; two parts of the same number are what they keep apart there.
"""

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from unetctl.errors import BusyError

try:
    import fcntl
except ImportError:  # Windows: best effort, no locks
    fcntl = None  # type: ignore[assignment]


class RunLock:
    """A lock on a run folder, held as a context.

    Args:
        folder: of the run.
        shared: True for a part or worker, False for whoever needs the run alone.
        who: what the holder does ("predict", "part 2 of 8"), for the message that others get.
        name: of the lock; parts also take "part-2" exclusively.

    Raises:
        BusyError: on entering, if others hold it; names them.
    """

    def __init__(self, folder: Path, *, shared: bool, who: str, name: str = "run") -> None:
        self.path = folder / f"{name}.lock"
        self._note = folder / f"{name}.lock-{os.getpid()}.json"
        self._shared, self._who, self._fd = shared, who, -1

    def __enter__(self) -> "RunLock":
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        if fcntl is not None:
            try:
                fcntl.flock(self._fd, (fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except OSError as error:
                os.close(self._fd)
                self._fd = -1
                raise BusyError(
                    f"{self.path.parent} is in use by {self._holders()}",
                    "",
                    "wait until it has ended and run the same command again",
                ) from error
        if not self._shared:
            for stale in self._notes():  # of processes that were killed: whoever has the lock alone is the only holder
                stale.unlink(missing_ok=True)
        note = {"who": self._who, "pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}
        with suppress(OSError):  # on a full disk the lock holds without its note
            self._note.write_text(json.dumps(note))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._note.unlink(missing_ok=True)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _notes(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{self.path.name}-*.json"))

    def _holders(self) -> str:
        names = []
        for path in self._notes():
            try:
                note = json.loads(path.read_text())
                if note["host"] == socket.gethostname() and not is_alive(note["pid"]):
                    path.unlink(missing_ok=True)
                    continue
                names.append(f"{note['who']} (process {note['pid']} on {note['host']} since {note['since']})")
            except (OSError, ValueError, KeyError):
                continue
        return ", ".join(names) or "another process"


def is_alive(pid: int) -> bool:
    """True if this machine has such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
