"""Batches made ahead of the step that needs them, by a thread or by processes.

A batch is a function of its step alone: how many make them, and in which order they are ready, changes nothing.

    with Feed(batch_of, first=0, stop=100, num_workers=2) as feed:
        batch = feed.take()     # of step 0, 1, 2 ...

The processes are started, not forked: a copy of a process whose threads have used MKL may wait for them for ever. They map
one copy of the planes (`pickle` hands out arrays by themselves), and end when their input does, also that of a killed
training.

    training   thread i --- step --->  worker i
               thread i <-- arrays --  worker i
"""

import io
import mmap
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, Self, cast

import numpy as np
import torch

from unetctl.errors import ResourceError
from unetctl.runtime.compute import Compute, available_cores
from unetctl.runtime.signals import STOP_SIGNALS
from unetctl.training.course import TrainBatch

BatchOf = Callable[[int], TrainBatch]

#: Batches in the making or waiting, per worker.
_AHEAD = 2
_MOST_WORKERS = 8
_ALIGNED = 64
_CAN_SHARE = os.name == "posix"


def num_workers_for(wanted: int | None, compute: Compute, num_local: int = 1) -> int:
    """Processes that make batches.

    Args:
        wanted: the recipe's; None: on a CPU none, since a process would only take a core from the network and a thread
            wastes less; with a GPU one for every core but one, eight at most.
        compute: of the training.
        num_local: training processes that share this machine.
    """
    if not _CAN_SHARE:
        return 0
    if wanted is not None:
        return wanted
    cores = max(1, available_cores() // num_local)
    return 0 if compute.device == "cpu" else min(cores - 1, _MOST_WORKERS)


class Feed:
    """Batches in order of their steps, held as a context; leaving it ends the workers.

    Args:
        batch_of: step to its batch, whose arrays are on the CPU; with workers it must go through `pickle`.
        first, stop: steps, half-open.
        num_workers: processes; 0: one thread of this process, one step ahead.
    """

    def __init__(self, batch_of: BatchOf, first: int, stop: int, num_workers: int = 0) -> None:
        self._make, self._next, self._stop, self._num = batch_of, first, stop, num_workers
        self._pool: ThreadPoolExecutor | None = None
        self._workers: _Workers | None = None
        self._coming: deque[Future[TrainBatch]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self._coming:
            one.cancel()
        if self._workers is not None:
            self._workers.end()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool, self._workers = None, None
        self._coming.clear()

    def take(self) -> TrainBatch:
        """The next batch.

        Raises:
            StopIteration: after the last one.
            ResourceError: if a worker has died.
            UnetctlError: whatever `batch_of` raises, here as there.
        """
        self._fill()
        if not self._coming:
            raise StopIteration
        batch = self._coming.popleft().result()
        self._fill()
        return batch

    @property
    def num_ahead(self) -> int:
        """Batches that are made before they are asked for."""
        return _AHEAD * self._num or 1

    def settle(self) -> None:
        """Waits until all of these are ready and nobody is at work."""
        wait(self._coming)

    def _fill(self) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._num or 1, initializer=_one_thread)
            self._workers = _Workers(self._make) if self._num else None
        make = self._make if self._workers is None else self._workers.make
        while len(self._coming) < self.num_ahead and self._next < self._stop:
            self._coming.append(self._pool.submit(make, self._next))
            self._next += 1


def _one_thread() -> None:
    torch.set_num_threads(1)  # of this background thread: the network keeps the cores


class _Workers:
    """A process for every thread that asks for a batch."""

    def __init__(self, batch_of: BatchOf) -> None:
        self._payload = _Payload(batch_of)
        self._of_thread = threading.local()
        self._lock = threading.Lock()
        self._all: list[subprocess.Popen[bytes]] = []
        self._is_over = False

    def make(self, step: int) -> TrainBatch:
        """The batch of a step, made by this thread's process."""
        try:
            worker: subprocess.Popen[bytes] | None = getattr(self._of_thread, "worker", None)
            if worker is None:
                worker = self._of_thread.worker = self._started()
            steps, answers = cast(IO[bytes], worker.stdin), cast(IO[bytes], worker.stdout)
            pickle.dump(step, steps)
            steps.flush()
            answer = pickle.load(answers)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise ResourceError(
                "a process that makes batches has died, perhaps for want of memory", "",
                "take fewer train.workers, and run the same command again to go on",
            ) from error  # fmt: skip
        if isinstance(answer, Exception):
            raise answer
        return TrainBatch(*map(torch.from_numpy, answer))

    def _started(self) -> "subprocess.Popen[bytes]":
        # before anything that takes time is imported: the training hears stop signals, and ends its workers
        deaf = f"import signal; [signal.signal(n, signal.SIG_IGN) for n in {[int(n) for n in STOP_SIGNALS]}]"
        work = f"from unetctl.training.feed import serve; serve({self._payload.fd})"
        code = f"{deaf}; import sys; sys.path[:] = {sys.path!r}; {work}"
        with self._lock:
            if self._is_over:
                raise ResourceError("no more batches are wanted")
            worker = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(self._payload.fd,),
                start_new_session=True,  # Ctrl-C is for the training, also while Python starts
            )
            self._all.append(worker)
        assert worker.stdin is not None
        pickle.dump(self._payload.frame, worker.stdin)
        return worker

    def end(self) -> None:
        """Ends the processes, whatever they are at."""
        with self._lock:
            self._is_over = True
            workers = list(self._all)
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.wait()
            for stream in (worker.stdin, worker.stdout):
                if stream is not None:
                    with suppress(OSError):  # a step that it did not read is in the buffer still
                        stream.close()
        self._payload.close()


def _temporary() -> IO[bytes]:
    return tempfile.TemporaryFile()


class _Pickler(pickle.Pickler):
    """Writes an array that is one number everywhere, and takes no memory here, as that number."""

    def reducer_override(self, value: object) -> Any:
        if not isinstance(value, np.ndarray) or value.size < 2:
            return NotImplemented
        is_constant = not any(step for step, num in zip(value.strides, value.shape, strict=True) if num > 1)
        return (np.broadcast_to, (value.flat[0], value.shape)) if is_constant else NotImplemented


class _Payload:
    """A pickled object whose arrays lie in memory that other processes map.

    Attributes:
        fd: of that memory.
        frame: the pickle without the arrays, and (offset, bytes) of each.
    """

    def __init__(self, value: object) -> None:
        buffers: list[pickle.PickleBuffer] = []
        frame = io.BytesIO()
        _Pickler(frame, protocol=5, buffer_callback=buffers.append).dump(value)
        pickled = frame.getvalue()
        has_memfd = hasattr(os, "memfd_create")  # memory without the small limit that containers put on /dev/shm
        file: IO[bytes] = os.fdopen(os.memfd_create("unetctl-planes"), "wb") if has_memfd else _temporary()
        places = []
        for buffer in buffers:
            raw = buffer.raw()
            start = -(-file.tell() // _ALIGNED) * _ALIGNED
            file.seek(start)
            file.write(raw)
            places.append((start, raw.nbytes))
        file.write(b"\0")  # nothing cannot be mapped
        file.flush()
        self._file, self.fd, self.frame = file, file.fileno(), (pickled, places)

    def close(self) -> None:
        """Gives the memory back when the last process has ended."""
        self._file.close()


def serve(fd: int) -> None:
    """What a worker does: reads what makes batches, then steps, and answers with arrays or an error, to its input's end.

    Args:
        fd: see `_Payload`.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whoever prints here does not print among the answers
    steps = os.fdopen(os.dup(0), "rb")
    _one_thread()
    pickled, places = pickle.load(steps)
    shared = memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_COPY))
    batch_of = cast(BatchOf, pickle.loads(pickled, buffers=[shared[start : start + num] for start, num in places]))
    with suppress(EOFError, BrokenPipeError):
        while True:
            answer = _answer(batch_of, pickle.load(steps))
            pickle.dump(answer, answers, protocol=5)
            answers.flush()


def _answer(batch_of: BatchOf, step: int) -> object:
    try:
        batch = batch_of(step)
        return tuple(part.numpy() for part in (batch.pixels, batch.targets, batch.weights))
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return RuntimeError(f"{type(error).__name__}: {error}")
        return error
