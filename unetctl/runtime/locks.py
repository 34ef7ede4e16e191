"""Who may work on a run at the same time: parts share it, stitching, exporting and starting over have it alone.

Locks of the operating system, so the lock of a killed process is free at once; a note beside the lock names its holder.
On network file systems they are advisory at best; two parts of the same number are what they keep apart there.
"""

import errno
import json
import os
import re
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from unetctl.errors import BusyError, ResourceError

try:
    import fcntl
except ImportError:  # Windows: best effort, no locks
    fcntl = None  # type: ignore[assignment]


_HOST = re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())
_TOKEN = secrets.token_hex(4)
#: How long what another machine is making is taken for unfinished.
_FOREIGN_S = 86400.0


#: What a file system answers that knows no locks (Lustre without -o flock, some FUSE and NFS mounts).
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK)


class RunLock:
    """A lock on a run folder, held as a context.

    Args:
        folder: of the run.
        shared: True for a part or worker, False for whoever needs the run alone.
        who: what the holder does ("predict", "part 2 of 8"), for the message that others get.
        name: of the lock; parts also take "part-2" exclusively.

    Raises:
        BusyError: on entering, if others hold it; names them.
        ResourceError: on entering, if its file may not be written.
    """

    def __init__(self, folder: Path, *, shared: bool, who: str, name: str = "run") -> None:
        self.path = folder / f"{name}.lock"
        self._note = folder / f"{name}.lock-{maker()}.json"
        self._shared, self._who, self._fd = shared, who, -1

    def __enter__(self) -> "RunLock":
        try:
            self._fd = self._locked()
        except BlockingIOError as error:
            raise BusyError(
                f"{self.path.parent} is in use by {self._holders()}",
                "",
                "wait until it has ended and run the same command again",
            ) from error
        except OSError as error:
            raise ResourceError(
                f"the lock {self.path} could not be taken ({error.strerror})", "", "check the folder's rights"
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

    def _locked(self) -> int:
        """The lock's file, open and locked: that which bears its name, not one that was removed meanwhile with its folder.

        Raises:
            BlockingIOError: if others hold it.
        """
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if fcntl is None:
                    return fd
                fcntl.flock(fd, (fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                if self._is_named(fd):
                    return fd
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    return fd  # advisory at best: the file system has none, and waiting would be for ever
                os.close(fd)
                raise
            os.close(fd)

    def _is_named(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self.path.stat())
        except FileNotFoundError:
            return False

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


def maker() -> str:
    """What half-made files of this process bear in their names, and no other's: "HOST.PID.TOKEN".

    The number alone will not do: in containers that share a folder every process may be number 1.
    """
    return f"{_HOST}.{os.getpid()}.{_TOKEN}"


def is_at_work(path: Path) -> bool:
    """True if the maker of a half-made file or folder, whose name ends in "-MAKER", may still be working on it.

    Of other machines' nothing is known: what they have left is theirs for a day.
    """
    name = path.name.rpartition("-")[2]
    if name.isdigit():  # as earlier versions named them
        return is_alive(int(name))
    host, _, rest = name.partition(".")
    pid, _, token = rest.partition(".")
    if not pid.isdigit():
        return False
    if host != _HOST:
        try:
            return time.time() - path.stat().st_mtime < _FOREIGN_S
        except OSError:
            return False
    return token == _TOKEN if int(pid) == os.getpid() else is_alive(int(pid))


def is_alive(pid: int) -> bool:
    """True if this machine has such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
