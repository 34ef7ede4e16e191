"""`--cluster`: the same blocks on other processes, for one input after the other."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from unetctl.cluster.run import compute_on_cluster
from unetctl.cluster.session import ClusterSession
from unetctl.jobs.predict import BlockComputer, Prediction, PredictOptions
from unetctl.jobs.tasks import ResolvedTask
from unetctl.networks.network import Network
from unetctl.runtime.compute import available_cores
from unetctl.runtime.events import Listener, Note, nobody
from unetctl.runtime.loop import LoopTimes
from unetctl.runtime.memory import format_size
from unetctl.runtime.run_folder import RunFolder
from unetctl.runtime.run_plan import RunPlan
from unetctl.sources.base import Source


class SharedWorkers:
    """Workers that serve all inputs of a command, held as a context; started when the first block is to be computed.

    Args:
        address: "local:N" or a dask scheduler's address.
        task: of the command.

    Raises:
        UsageError: if the address is not understood, or dask.distributed is not installed.
    """

    def __init__(self, address: str, task: ResolvedTask) -> None:
        self._session = ClusterSession(address)
        self._weights = Path(task.weights)

    def __enter__(self) -> "SharedWorkers":
        self._session.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.__exit__(kind, error, trace)

    def computer(self, prediction: Prediction, emit: Listener = nobody) -> BlockComputer:
        """What `run_prediction` shall compute the blocks of `prediction` with."""
        self._warn(prediction, emit)

        def compute(
            plan: RunPlan,
            todo: list[int],
            source: Source,
            network: Network,
            folder: RunFolder,
            options: PredictOptions,
            emit: Listener,
            should_stop: Callable[[], bool],
            num_all: int,
        ) -> tuple[LoopTimes, bool]:
            # Source and network are for whoever computes in this process: every worker opens its own.
            return compute_on_cluster(
                plan,
                todo,
                folder,
                self._weights,
                self._session,
                num_all=num_all,
                device=options.device,
                max_bytes=prediction.budget_bytes,
                emit=emit,
                should_stop=should_stop,
            )

        return compute

    def _warn(self, prediction: Prediction, emit: Listener) -> None:
        """Says what N processes of this machine take together: each has the plan's threads and tiles."""
        num = self._session.num_local
        if num < 2 or prediction.plan.compute.device != "cpu":
            return
        needed = num * prediction.planned.projection.host
        if needed > prediction.budget_bytes:
            share = format_size(prediction.budget_bytes // num).replace(" ", "")
            text = (
                f"{num} workers may take {format_size(needed)} of memory together, and the budget is "
                f"{format_size(prediction.budget_bytes)}: use fewer, or smaller tiles: --memory {share} --fresh"
            )
            emit(Note(text, "warning"))
        threads = prediction.plan.compute.num_threads
        if num * threads > available_cores():
            text = f"{num} workers of {threads} threads each (the plan's) share {available_cores()} cores"
            emit(Note(text, "detail"))
