"""What makes written files stay: flushing to the device, checksums, and a full disk said in a sentence."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from unetctl.errors import ResourceError

_FULL = {errno.ENOSPC, errno.EFBIG} | ({errno.EDQUOT} if hasattr(errno, "EDQUOT") else set())
_READ_BYTES = 4 << 20


@contextmanager
def full_disk_explained(path: Path) -> Iterator[None]:
    """Turns "no space left", "quota exceeded" and "file too large" for the file system into a ResourceError.

    Raises:
        ResourceError: naming `path` and the free bytes of its disk; other OSErrors pass unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ResourceError(
            f"{path} could not be written: {os.strerror(error.errno or 0).lower()} ({_free(path)})",
            "room for the output",
            "free space and run the same command again",
        ) from error


def fsync_file(path: Path) -> None:
    """Flushes a file's content to the device."""
    descriptor = os.open(path, os.O_RDWR)  # Windows flushes only what may be written
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(path: Path) -> None:
    """Flushes a folder's entries (names made, renamed, deleted) to the device; nothing to do on Windows."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path, tick: Callable[[], None] | None = None) -> str:
    """SHA-256 (hex) of a file, read in pieces of 4 MiB; `tick` is called before each."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while True:
            if tick is not None:
                tick()
            piece = file.read(_READ_BYTES)
            if not piece:
                return digest.hexdigest()
            digest.update(piece)


def files_below(path: Path) -> Iterator[os.DirEntry[str]]:
    """Every plain file under a folder; folders and files that vanish meanwhile are passed over."""
    folders = [str(path)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        yield entry
        except (FileNotFoundError, NotADirectoryError):
            continue


def _free(path: Path) -> str:
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        return f"{shutil.disk_usage(path).free:,} bytes free"
    except OSError:
        return "free space unknown"
