"""What runs on a worker: one block after the other, from nothing but the run folder and an index.

A worker opens a run, its source and its network once, writes its blocks itself and notes them in a journal of its own;
what travels through the scheduler are indices there and small records back.
"""

import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from unetctl.errors import InputError, ResourceError, UnetctlError, UsageError, WeightsError
from unetctl.networks.build import fitted
from unetctl.networks.network import Network
from unetctl.networks.weights import load_weights
from unetctl.runtime.device import apply_compute
from unetctl.runtime.engine import Engine
from unetctl.runtime.events import Event, Note
from unetctl.runtime.journal import BlockRecord, Journal
from unetctl.runtime.loop import DoneBlock, LoopTimes, PipelinedLoop, output_box
from unetctl.runtime.reading import BlockReader, StatisticsStore
from unetctl.runtime.report import peak_memory
from unetctl.runtime.run_folder import RunFolder
from unetctl.sinks.disk import sha256_of
from unetctl.sources.open import open_source

#: A block that was begun so often and never finished is given up: it may be what kills its workers.
MAX_ATTEMPTS = 5
#: Inside the run folder: a file per block under way, a byte per beginning. A worker that dies cannot tell otherwise.
ATTEMPTS = "attempts"


@dataclass(frozen=True)
class BlockOrder:
    """All that a worker is told.

    Attributes:
        index: of the block in the run's plan.
        output: of the run, absolute; the run folder lies beside it.
        fingerprint: of the plan that must lie there.
        token: of one call of the client: what was opened for an earlier one may have been deleted meanwhile.
        source: path of the input.
        weights: path of the weights file; its content must be what the plan names.
        device: "auto", "cpu", "cuda" or "cuda:i", of the plan's kind.
        max_bytes: most memory for one piece of the input that must be decoded whole.
    """

    index: int
    output: str
    fingerprint: str
    token: str
    source: str
    weights: str
    device: str = "auto"
    max_bytes: int | None = None

    @property
    def run(self) -> "BlockOrder":
        """The same for all blocks of a run."""
        return replace(self, index=-1)


class WorkerCannotStart(ResourceError):  # noqa: N818 - said of the worker
    """A worker cannot open what the run needs; `address` names it."""

    address = ""


def compute_block(order: BlockOrder) -> dict[str, Any]:
    """Computes, writes and journals one block.

    Returns:
        Plain values: "index", "state" ("done", "stopped" because the task was cancelled, "given-up"), "times" (see
        `LoopTimes`), "notes" and "peak_bytes" of this process.

    Raises:
        WorkerCannotStart: if plan, input, weights or device cannot be had here.
        UnetctlError: what reading, computing or writing raised.
    """
    is_cancelled = _cancellation()
    with _busy:  # the engine serves one block at a time, however many threads the worker has
        if is_cancelled():
            return _record(order.index, "stopped")
        run = _opened(order)
        if run.begin(order.index) > MAX_ATTEMPTS:
            return _record(order.index, "given-up")
        return run.compute(order.index, is_cancelled)


def is_busy() -> bool:
    """True while this process computes a block."""
    return _busy.locked()


def writer_name() -> str:
    """Of this process's journal."""
    host = "".join(c if c.isalnum() else "-" for c in socket.gethostname())
    return f"worker-{host}-{os.getpid()}"


_busy = threading.Lock()
_runs: dict[BlockOrder, "_OpenRun"] = {}


def _opened(order: BlockOrder) -> "_OpenRun":
    """The run, opened once; another run's is closed first."""
    if order.run not in _runs:
        for old in list(_runs):
            _runs.pop(old).close()
        try:
            _runs[order.run] = _OpenRun(order)
        except (UnetctlError, OSError) as error:
            problem = WorkerCannotStart(
                f"the worker {writer_name().removeprefix('worker-')} cannot start: {error}",
                "input, weights and run folder under the same paths on every worker",
            )
            problem.address = _address()
            raise problem from error
    return _runs[order.run]


@lru_cache(maxsize=2)
def _network(path: str, sha256: str) -> Network:
    """The network of a weights file, loaded once a process."""
    if sha256_of(Path(path)) != sha256:
        raise WeightsError(f"{path} is another file here than where the run was planned", "the same weights everywhere")
    return load_weights(Path(path))[0]


class _OpenRun:
    """A run as this process sees it."""

    def __init__(self, order: BlockOrder) -> None:
        self._folder = RunFolder(Path(order.output))
        self._plan = plan = self._folder.plan()
        if plan.fingerprint != order.fingerprint:
            raise UsageError(f"{self._folder.path} holds another plan here than where the run was started")
        device = apply_compute(plan.compute, order.device)
        self._device_name = order.device
        network = fitted(_network(order.weights, plan.weights_sha256), plan.typed_recipe().network_spec)
        view = {k: plan.source.get(k) for k in ("axes", "series", "time", "scale")}
        self._source = open_source(order.source, **view, max_bytes=order.max_bytes)
        try:
            if dict(self._source.info.identity) != plan.identity:
                raise InputError(
                    f"{order.source} is another file here than where the run was planned", "the same input everywhere"
                )
            self._notes: list[str] = []
            self._engine = Engine.of_plan(network, plan, device, emit=self._note)
            self._reader = BlockReader(
                self._source, plan, StatisticsStore(self._folder.path, writer_name(), plan, self._should_stop)
            )
            self._sink = self._folder.sink()
            self._journal = Journal(self._folder.path, writer_name())
        except BaseException:
            self._source.close()
            raise
        self._is_cancelled: Callable[[], bool] = lambda: False

    def begin(self, index: int) -> int:
        """Notes durably enough that a block is begun; how often it was, this time included."""
        folder = self._folder.path / ATTEMPTS
        folder.mkdir(exist_ok=True)
        with (folder / str(index)).open("ab") as file:
            file.write(b".")
            file.flush()
            return file.tell()

    def compute(self, index: int, is_cancelled: Callable[[], bool]) -> dict[str, Any]:
        """See `compute_block`."""
        self._is_cancelled = is_cancelled
        # Another run may have set the threads of this process, or another thread of the worker computes now.
        apply_compute(self._plan.compute, self._device_name)
        loop = PipelinedLoop(self._plan, self._reader, self._engine, self._write, self._should_stop)
        loop.run([index])
        is_done = loop.times.num_blocks == 1
        if is_done:
            (self._folder.path / ATTEMPTS / str(index)).unlink(missing_ok=True)
        notes, self._notes = self._notes, []
        return _record(index, "done" if is_done else "stopped", loop.times, notes)

    def close(self) -> None:
        """Leaves the run."""
        self._journal.close()
        self._source.close()

    def _should_stop(self) -> bool:
        return self._is_cancelled()

    def _note(self, event: Event) -> None:
        if isinstance(event, Note):
            self._notes.append(event.text)

    def _write(self, done: DoneBlock) -> None:
        place = output_box(done.image, done.block.box)
        keys = self._sink.write(self._plan.images.index(done.image), place, done.pixels)
        self._journal.mark(BlockRecord("block", done.index, keys, done.num_nonfinite))


def _record(index: int, state: str, times: LoopTimes | None = None, notes: Sequence[str] = ()) -> dict[str, Any]:
    seconds = asdict(times) if times else {}
    return {"index": index, "state": state, "times": seconds, "notes": list(notes), "peak_bytes": peak_memory()}


def _address() -> str:
    from distributed import get_worker

    try:
        address: str = get_worker().address
    except ValueError:  # called outside a worker
        return ""
    return address


def _cancellation() -> Callable[[], bool]:
    """Tells whether this thread's task was cancelled, or its client is gone: dask cannot stop a thread itself."""
    from distributed import get_worker

    try:
        worker = get_worker()
        key = worker.get_current_task()
    except (ValueError, AttributeError):  # called outside a worker
        return lambda: False

    def is_cancelled() -> bool:
        task = worker.state.tasks.get(key)
        return task is None or task.state == "cancelled" or worker.status.name in ("closing", "closed", "failed")

    return is_cancelled
