"""Positional reads from a file, and the rows of raw pixel arrays read with them.

Everything here is lock-free and safe to call from several threads. Nothing is memory-mapped: a mapped page counts as
this process's memory, and a file that shrinks under a map kills the process.
"""

import hashlib
import os
import threading
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.geometry.box import Box, Ints

NUM_SAMPLES = 64
SAMPLE_BYTES = 64 * 1024
HEADER_BYTES = 4096
# Reading this many unwanted bytes costs about as much as one more system call.
_SKIP_BYTES = 8 * 1024
_BAND_BYTES = 4 * 1024 * 1024
_MAX_KEPT_OPEN = 256
# Largest piece that is decoded whole where the caller sets no limit: a strip, a chunk, a page.
DEFAULT_MAX_BYTES = 1 << 30
#: For who looks at headers alone.
NO_LIMIT = 1 << 62
#: `unetctl predict` leaves this folder beside its output, and in it the plan. Named here because a folder of pictures
#: must not count what was made of it among its pictures.
RUN_SUFFIX, PLAN_NAME = ".run", "plan.json"


class RandomAccessFile:
    """A file read at given positions, open for as long as it lives.

    The first 256 files of a process keep their descriptor; any further ones open the file for each read, so that a data
    set of thousands of files does not run into the limit of open files.

    Args:
        path: of the file.

    Raises:
        InputError: if the file is missing or cannot be opened, and on any later failing or short read.
    """

    _lock = threading.Lock()
    _num_kept_open = 0
    _fd = -1

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        fd = self._open()
        try:
            self.size = os.fstat(fd).st_size
            with RandomAccessFile._lock:
                keep = RandomAccessFile._num_kept_open < _MAX_KEPT_OPEN
                RandomAccessFile._num_kept_open += keep
            if keep:
                self._fd, fd = fd, -1
        finally:
            if fd >= 0:
                os.close(fd)

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"{self.path} cannot be opened ({reason})", "a readable file") from error

    def close(self) -> None:
        """Closes the descriptor; may be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
            with RandomAccessFile._lock:
                RandomAccessFile._num_kept_open -= 1

    def __del__(self) -> None:
        self.close()

    def read_at(self, offset: int, num_bytes: int) -> bytes:
        """Exactly `num_bytes` bytes from byte `offset` on.

        Raises:
            InputError: if the file ends before.
        """
        self._check(offset, num_bytes)
        if self._fd >= 0 and hasattr(os, "pread"):
            data = os.pread(self._fd, num_bytes, offset)
            if len(data) == num_bytes:
                return data
        buffer = bytearray(num_bytes)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_up_to(self, offset: int, num_bytes: int) -> bytes:
        """`num_bytes` bytes from byte `offset` on, or as many as there are."""
        return self.read_at(offset, min(num_bytes, self.size - offset)) if 0 <= offset < self.size else b""

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fills `view` (writable, contiguous, of bytes) from byte `offset` on.

        Raises:
            InputError: if the file ends before.
        """
        self._check(offset, len(view))
        fd = self._fd
        opened = fd < 0
        if opened:
            fd = self._open()
        try:
            done = 0
            while done < len(view):
                got = _read_once(fd, offset + done, view[done:])
                if got == 0:
                    raise InputError(f"{self.path} became shorter while it was read (no byte {offset + done})")
                done += got
        except OSError as error:
            raise InputError(f"{self.path} cannot be read at byte {offset} ({error.strerror})") from error
        finally:
            if opened:
                os.close(fd)

    def prefetch(self, offsets: Iterable[int], num_bytes: int) -> None:
        """Tells the system (where it listens) that these places are wanted soon: it fetches them side by side."""
        if self._fd < 0 or not hasattr(os, "posix_fadvise"):
            return
        for offset in offsets:
            if 0 <= offset < self.size:
                os.posix_fadvise(self._fd, offset, num_bytes, os.POSIX_FADV_WILLNEED)

    def _check(self, offset: int, num_bytes: int) -> None:
        if offset < 0 or offset + num_bytes > self.size:
            raise InputError(
                f"{self.path} ends at byte {self.size}",
                f"{num_bytes} bytes at byte {offset}",
                "the file is cut off or damaged: copy it again",
            )


def _read_once(fd: int, offset: int, view: memoryview) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(fd, [view], offset)
    if hasattr(os, "pread"):
        data = os.pread(fd, len(view), offset)
    else:  # Windows: descriptor and position belong together
        with RandomAccessFile._lock:
            os.lseek(fd, offset, os.SEEK_SET)
            data = os.read(fd, len(view))
    view[: len(data)] = data
    return len(data)


def read_rows(
    file: RandomAccessFile,
    starts: npt.NDArray[np.int64],
    row_bytes: int,
    first: int,
    last: int,
    out: npt.NDArray[np.uint8],
) -> None:
    """Reads bytes ``[first, last)`` of each row into `out`.

    Args:
        file: to read from.
        starts: (n,) byte position of each row in the file.
        row_bytes: length of a whole row.
        first: first wanted byte of a row.
        last: one past the last wanted byte of a row.
        out: (n, last - first) uint8, C-contiguous.

    Rows that lie one after another are read in one go, at most 4 MiB at a time where unwanted bytes lie between them.

    Raises:
        InputError: if the file ends before.
    """
    width = last - first
    if len(starts) == 0 or width == 0:
        return
    breaks = np.flatnonzero(np.diff(starts) != row_bytes) + 1
    for a, b in pairwise([0, *breaks.tolist(), len(starts)]):
        begin = int(starts[a]) + first
        if width == row_bytes:
            file.read_into(begin, out[a:b].reshape(-1).data)
        elif row_bytes - width <= _SKIP_BYTES:
            _read_band(file, begin, row_bytes, out[a:b])
        else:
            for i in range(b - a):
                file.read_into(begin + i * row_bytes, out[a + i].data)


def _read_band(file: RandomAccessFile, begin: int, row_bytes: int, out: npt.NDArray[np.uint8]) -> None:
    num_rows, width = out.shape
    step = min(num_rows, max(1, _BAND_BYTES // row_bytes))
    scratch = np.empty((step, row_bytes), np.uint8)
    for a in range(0, num_rows, step):
        rows = min(step, num_rows - a)
        num_bytes = (rows - 1) * row_bytes + width
        file.read_into(begin + a * row_bytes, scratch.reshape(-1)[:num_bytes].data)
        out[a : a + rows] = scratch[:rows, :width]


def read_array_box(
    file: RandomAccessFile, offset: int, shape: Ints, dtype: np.dtype[np.generic], box: Box
) -> npt.NDArray[np.generic]:
    """Box of a C-ordered array that lies in one piece in a file.

    Args:
        file: to read from.
        offset: byte position of the first pixel.
        shape: of the whole array, at least two axes.
        dtype: as stored (any byte order).
        box: inside `shape`.

    Returns:
        Array of the box's shape and `dtype` as stored.

    Raises:
        InputError: if the file ends before.
    """
    out = np.empty(box.shape, dtype)
    if out.size == 0:
        return out
    row_bytes = shape[-1] * dtype.itemsize
    starts = np.zeros((), np.int64)
    stride = row_bytes
    for axis in range(len(shape) - 2, -1, -1):
        index = np.arange(box.start[axis], box.stop[axis], dtype=np.int64) * stride
        starts = index.reshape((-1, *(1,) * starts.ndim)) + starts
        stride *= shape[axis]
    first, last = box.start[-1] * dtype.itemsize, box.stop[-1] * dtype.itemsize
    read_rows(file, starts.reshape(-1) + offset, row_bytes, first, last, as_bytes(out).reshape(-1, last - first))
    return out


def as_bytes(array: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """The memory of a C-contiguous array as flat uint8, shared."""
    return array.reshape(-1).view(np.uint8)


def file_identity(files: Sequence[RandomAccessFile]) -> dict[str, object]:
    """What tells these files from others, in bounded time: sizes, the first 4 KiB, 64 pieces of 64 KiB spread evenly.

    Args:
        files: one or several; the pieces are shared out among the first 64.

    Returns:
        Plain values only; nothing in it depends on names, places or times.

    Raises:
        InputError: if a file cannot be read.
    """
    sampled = list(files)[:NUM_SAMPLES]
    header, content = hashlib.sha256(), hashlib.sha256()
    for file in sampled:
        header.update(file.read_up_to(0, HEADER_BYTES))
        for offset in sample_offsets(file.size, NUM_SAMPLES // len(sampled)):
            content.update(file.read_up_to(offset, SAMPLE_BYTES))
    identity: dict[str, object] = {
        "num_bytes": sum(file.size for file in files),
        "header_sha256": header.hexdigest(),
        "sample_sha256": content.hexdigest(),
    }
    if len(files) > 1:
        identity["num_files"] = len(files)
        identity["sizes_sha256"] = digest(str(file.size) for file in files)
    return identity


def sample_offsets(size: int, num_samples: int = NUM_SAMPLES, sample_bytes: int = SAMPLE_BYTES) -> list[int]:
    """Byte positions of at most `num_samples` pieces of `sample_bytes`, evenly spread, first and last byte included."""
    if size <= num_samples * sample_bytes:
        return list(range(0, size, sample_bytes))
    if num_samples == 1:
        return [0]
    return [i * (size - sample_bytes) // (num_samples - 1) for i in range(num_samples)]


def digest(words: Iterable[str]) -> str:
    """SHA-256 of a sequence of strings, in hexadecimal."""
    sha = hashlib.sha256()
    for word in words:
        sha.update(word.encode("utf-8", "surrogateescape") + b"\0")
    return sha.hexdigest()


def is_own_output(path: str | os.PathLike[str]) -> bool:
    """True if `unetctl predict` made the file or folder, finished or not, or if it is the folder of such a run."""
    text = os.fspath(path).rstrip("/\\")
    return text.endswith(RUN_SUFFIX) or os.path.isfile(os.path.join(text + RUN_SUFFIX, PLAN_NAME))


def existing_path(uri: str) -> Path:
    """The path that `uri` names.

    Raises:
        InputError: if there is nothing.
    """
    path = Path(uri)
    try:
        path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{uri} cannot be found ({reason})", "an existing file or folder") from error
    return path
