"""Blocks of a run on dask.distributed workers: indices out, records back, a few at a time.

No graph over the volume and no pixels through the scheduler: two blocks a worker are under way, the next is submitted
when one comes back. What happened is in the workers' journals, so a run that ends here in any way goes on anywhere.
"""

import queue
import shutil
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from unetctl.cluster.session import ClusterSession, wait_until
from unetctl.cluster.worker import ATTEMPTS, MAX_ATTEMPTS, BlockOrder, WorkerCannotStart, compute_block, is_busy
from unetctl.errors import IncompleteError, ResourceError, Stopped, UsageError, WeightsError
from unetctl.runtime.events import Listener, Note, StageEnded, StageProgress, StageStarted, nobody
from unetctl.runtime.journal import records_by_index
from unetctl.runtime.loop import LoopTimes
from unetctl.runtime.memory import format_size
from unetctl.runtime.run_folder import RunFolder, is_on_disk
from unetctl.runtime.run_plan import RunPlan

#: Blocks submitted per worker: one being computed, one waiting.
_IN_FLIGHT = 2
#: Without any worker for so long, the run ends (and can be resumed).
NO_WORKER_S = 120.0
#: So long running blocks are waited for after a stop; they end after the batch in hand.
_PATIENCE_S = 10.0
_POLL_S = 0.25
_LOOK_S = 2.0
#: So many given-up blocks are named in a message.
_NAMED = 8


def compute_on_cluster(
    plan: RunPlan,
    todo: list[int],
    folder: RunFolder,
    weights: Path,
    session: ClusterSession,
    *,
    num_all: int,
    device: str = "auto",
    max_bytes: int | None = None,
    emit: Listener = nobody,
    should_stop: Callable[[], bool] = lambda: False,
    no_worker_s: float = NO_WORKER_S,
) -> tuple[LoopTimes, bool]:
    """Has workers compute blocks; the caller holds the run alone and has put plan and store in place.

    Args:
        plan: of the run, as it lies in its folder.
        todo: blocks to compute.
        folder: of the run; it, the input and the weights lie under the same paths for every worker.
        weights: the network's file.
        session: the workers.
        num_all: blocks of the run, for the progress.
        device: see `unetctl.runtime.device`.
        max_bytes: see `unetctl.sources.open.open_source`.
        emit: hears what happens.
        should_stop: asked a few times a second; running blocks are dropped then.
        no_worker_s: how long to wait for a first, or another, worker.

    Returns:
        Seconds by stage, summed over the workers (`wall_s` is this process's), and False if it was stopped.

    Raises:
        IncompleteError: if blocks failed `MAX_ATTEMPTS` times; all others are done then.
        Stopped: if no worker was there for too long.
        ResourceError: if a disk is full, or no worker can open what the run needs.
    """
    begun = time.monotonic()
    emit(StageStarted("predict", num_all, num_all - len(todo), "block"))
    attempts = folder.path / ATTEMPTS
    shutil.rmtree(attempts, ignore_errors=True)
    order = BlockOrder(
        -1,
        str(folder.output.absolute()),
        plan.fingerprint,
        uuid.uuid4().hex[:8],
        str(plan.source["path"]),
        str(weights.absolute()),
        device,
        max_bytes,
    )
    work = _Work(order, todo, folder, session, num_all, emit, no_worker_s)
    complete = False
    try:
        complete = work.run(should_stop)
    finally:
        work.call_back()
        work.times.wall_s = time.monotonic() - begun
        emit(StageEnded("predict", work.times.wall_s, complete))
    shutil.rmtree(attempts, ignore_errors=True)
    if work.given_up:
        raise _gave_up(work.given_up, folder)
    return work.times, complete


class _Work:
    """The client's side: what is to be done, what is under way, what failed how often."""

    def __init__(
        self,
        order: BlockOrder,
        todo: list[int],
        folder: RunFolder,
        session: ClusterSession,
        num_all: int,
        emit: Listener,
        no_worker_s: float,
    ) -> None:
        self._order, self._folder, self._session, self._emit = order, folder, session, emit
        self._waiting = deque(todo)
        self._all = list(todo)
        self._done: set[int] = set()
        self._num_before = num_all - len(todo)
        self._failures: dict[int, int] = {}
        self._reasons: dict[int, str] = {}
        self._under_way: dict[str, tuple[int, Any]] = {}
        self._returned: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._bad_workers: frozenset[str] = frozenset()
        self._workers: list[str] = []
        self._looked = self._last_seen = time.monotonic()
        self._no_worker_s = no_worker_s
        self._num_submitted = 0
        self._begun = time.monotonic()
        self._peak = 0
        self.given_up: dict[int, str] = {}
        self.times = LoopTimes()

    def run(self, should_stop: Callable[[], bool]) -> bool:
        """True once every block is done or given up, False if asked to stop."""
        self._look(at_once=True)
        while True:
            if should_stop():
                return False
            self._look()
            self._submit()
            if not self._under_way and not self._waiting:
                if self._all_on_disk():
                    break
                continue
            try:
                future = self._returned.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            self._take(future)
        if self._peak:
            self._emit(Note(f"peak memory of a worker: {format_size(self._peak)}", "detail"))
        return True

    def call_back(self) -> None:
        """Cancels what is under way and waits shortly for the workers to drop it: the run must be nobody's then."""
        if not self._under_way:
            return
        futures = [future for _, future in self._under_way.values()]
        self._under_way.clear()
        try:
            self._session.client.cancel(futures, force=True)
        except (OSError, TimeoutError, RuntimeError):  # the scheduler is gone, and its workers with it
            return
        if not wait_until(lambda: not any(self._session.ask(is_busy).values()), _PATIENCE_S):
            self._emit(Note("some workers are still busy with a block; they drop it when its batch is done", "warning"))

    def _look(self, at_once: bool = False) -> None:
        """Counts the workers now and then, and loses patience when there are none."""
        now = time.monotonic()
        if not at_once and now - self._looked < _LOOK_S:
            return
        before = len(self._workers)
        self._workers = self._session.workers(self._bad_workers)
        self._looked = time.monotonic()
        if self._workers:
            self._last_seen = self._looked
        if len(self._workers) < before:
            self._emit(Note(f"{before - len(self._workers)} workers are gone, {len(self._workers)} left", "warning"))
        if self._looked - self._last_seen > self._no_worker_s:
            raise Stopped(
                f"no worker at {self._session.address} for {self._no_worker_s:.0f} s",
                "",
                "start workers and run the same command again",
            )

    def _submit(self) -> None:
        room = _IN_FLIGHT * max(1, len(self._workers)) - len(self._under_way)
        for _ in range(min(room, len(self._waiting))):
            index = self._waiting.popleft()
            self._num_submitted += 1
            # A wish, no more: blocks bound to workers that die would wait for ever.
            wanted = self._workers if self._bad_workers and self._workers else None
            future = self._session.client.submit(
                compute_block,
                replace(self._order, index=index),
                pure=False,
                workers=wanted,
                allow_other_workers=wanted is not None,
                key=f"unetctl-{self._order.token}-{self._num_submitted}-block-{index}",
            )
            self._under_way[future.key] = (index, future)
            future.add_done_callback(self._returned.put)

    def _take(self, future: Any) -> None:
        known = self._under_way.pop(future.key, None)
        if known is None:
            return
        index = known[0]
        if future.status == "finished":
            self._take_record(index, future.result())
        elif future.status == "error":
            self._take_error(index, future.exception())
        else:  # lost with its scheduler or cancelled by somebody else: nobody's fault
            self._waiting.append(index)
        future.release()

    def _take_record(self, index: int, record: dict[str, Any]) -> None:
        for text in record["notes"]:
            self._emit(Note(text, "warning"))
        self._peak = max(self._peak, record["peak_bytes"])
        if record["state"] == "given-up":
            self._give_up(index, self._reasons.get(index, "its workers died"))
            return
        if record["state"] == "stopped":
            self._waiting.append(index)
            return
        self._done.add(index)
        for name, value in record["times"].items():
            setattr(self.times, name, getattr(self.times, name) + value)
        elapsed = max(1e-9, time.monotonic() - self._begun)
        figures = {"Mpx/s": self.times.num_pixels / 1e6 / elapsed}
        self._emit(StageProgress("predict", self._num_before + len(self._done), figures))

    def _take_error(self, index: int, error: BaseException | None) -> None:
        if isinstance(error, WorkerCannotStart) and error.address:
            self._bad_workers |= {error.address}
            self._emit(Note(f"{error}: going on without it", "warning"))
            self._look(at_once=True)
            if not self._workers:
                raise error
            self._waiting.append(index)
            return
        if isinstance(error, ResourceError | UsageError | WeightsError):
            raise error
        if isinstance(error, ImportError):
            raise ResourceError(
                f"a worker cannot import what it needs ({error})",
                "the same unetctl on all workers",
                "install it there too",
            ) from error
        self._reasons[index] = _told(error)
        self._failures[index] = self._failures.get(index, 0) + 1
        if self._failures[index] >= MAX_ATTEMPTS:
            self._give_up(index, self._reasons[index])
            return
        self._emit(Note(f"block {index} failed ({self._reasons[index]}): trying again", "warning"))
        self._waiting.append(index)

    def _give_up(self, index: int, reason: str) -> None:
        self.given_up[index] = reason
        self._emit(Note(f"block {index} is given up: {reason}", "warning"))

    def _all_on_disk(self) -> bool:
        """Looks whether what the workers did is there; what is not is put back to be done."""
        sink, known = self._folder.sink(), records_by_index(self._folder.path)
        lost = [
            index for index in self._all if index not in self.given_up and not is_on_disk(sink, known.get(index, []))
        ]
        for index in lost:
            self._take_error(index, _NotOnDiskError("it is not on disk as its worker journaled it"))
        self._done -= set(lost)
        return not self._waiting


class _NotOnDiskError(Exception):
    """A block that was done and is not there: tried again like any other failure."""


def _told(error: BaseException | None) -> str:
    if type(error).__name__ == "KilledWorker":
        return "its workers died"
    return str(error) or repr(error)


def _gave_up(given_up: dict[int, str], folder: RunFolder) -> IncompleteError:
    named = ", ".join(map(str, sorted(given_up)[:_NAMED]))
    if len(given_up) > _NAMED:
        named += f" and {len(given_up) - _NAMED} more"
    first = given_up[min(given_up)]
    return IncompleteError(
        f"{len(given_up)} blocks of {folder.output} failed {MAX_ATTEMPTS} times ({named}: {first})",
        "all blocks done",
        "all others are done: mend the cause and run the same command again",
    )
