"""Where the workers are: processes of this machine, or a dask scheduler that somebody runs."""

import contextlib
import logging
import tempfile
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from unetctl.errors import ResourceError, UsageError

#: A scheduler that does not answer for so long is taken for absent.
CONNECT_S = 30
#: So long the parts of a local cluster wait for each other's first word while they start. Each imports dask and more,
#: which takes a second by itself, and a minute where many start at once on a busy machine; dask's own limit is 30.
START_S = 180
#: Deaths of workers that a block may be blamed for: every block in a dying worker's queue is, so dask's own 3 are few.
#: The limit that counts is `unetctl.cluster.worker.MAX_ATTEMPTS`, by starts of the block itself.
_ALLOWED_FAILURES = 20


class ClusterSession:
    """A connection to workers, held as a context; made when first used: a run with nothing to do starts nothing.

    Args:
        address: "local:N" for N processes of this machine, or "tcp://HOST:PORT" (also "tls://") of a dask scheduler.

    Raises:
        UsageError: if the address is not understood, or dask.distributed is not installed.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.num_local = _num_local(address)
        _require_distributed()
        self._client: Any = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "ClusterSession":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client = None
        self._stack.close()

    @property
    def client(self) -> Any:
        """The connection, a `distributed.Client`, most of whose methods have no types.

        Raises:
            ResourceError: if the scheduler cannot be reached, or local workers cannot be started.
        """
        if self._client is None:
            try:
                self._client = self._connected()
            except BaseException:
                self._stack.close()
                raise
        return self._client

    def num_workers(self, without: frozenset[str] = frozenset()) -> int:
        """Workers that answer to the scheduler now, those of `without` left out; 0 if the scheduler is gone."""
        return len(self.workers(without))

    def workers(self, without: frozenset[str] = frozenset()) -> list[str]:
        """Their addresses."""
        try:
            return sorted(set(self.client.nthreads()) - without)
        except (OSError, TimeoutError, RuntimeError):  # a scheduler that went away: whoever waits decides for how long
            return []

    def ask(self, question: Callable[[], Any]) -> dict[str, Any]:
        """The answers of all workers to a function, by address; of none that cannot answer."""
        try:
            answers: dict[str, Any] = self.client.run(question, on_error="ignore")
            return answers
        except (OSError, TimeoutError, RuntimeError):
            return {}

    def _connected(self) -> Any:
        import dask
        import distributed

        kinds: Any = distributed  # untyped

        if not self.num_local:
            try:
                return self._stack.enter_context(kinds.Client(self.address, timeout=CONNECT_S, set_as_default=False))
            except (OSError, TimeoutError) as error:
                raise ResourceError(
                    f"no dask scheduler answers at {self.address} ({error})",
                    "a running one",
                    "start it with: dask scheduler, and workers with: dask worker ADDRESS --nthreads 1",
                ) from error
        scratch = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="unetctl-cluster-"))
        settings = {
            "distributed.scheduler.allowed-failures": _ALLOWED_FAILURES,
            "distributed.comm.timeouts.connect": f"{START_S}s",
        }
        try:
            with dask.config.set(settings):
                # No memory limit: the plan has one, and dask's would kill. No dashboard, for nobody asked for an open
                # port; the scheduler serves HTTP all the same, on 8787 unless told: two runs would be after one port.
                cluster = kinds.LocalCluster(
                    n_workers=self.num_local,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=None,
                    scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                    memory_limit=None,
                    local_directory=scratch,
                    silence_logs=logging.CRITICAL,
                )
                self._stack.enter_context(cluster)
                return self._stack.enter_context(kinds.Client(cluster, set_as_default=False))
        except (OSError, RuntimeError, TimeoutError) as error:
            raise ResourceError(
                f"{self.num_local} dask workers could not be started on this machine ({error})",
                "",
                "run the same command again, with fewer workers, or without --cluster",
            ) from error


def wait_until(is_so: Callable[[], bool], timeout_s: float, step_s: float = 0.1) -> bool:
    """Waits for something to become true; False if it did not in time."""
    begun = time.monotonic()
    while not is_so():
        if time.monotonic() - begun > timeout_s:
            return False
        time.sleep(step_s)
    return True


def _num_local(address: str) -> int:
    """N of "local:N", 0 for a scheduler's address."""
    kind, _, rest = address.partition(":")
    if kind == "local":
        if rest.isdigit() and int(rest) >= 1:
            return int(rest)
        raise UsageError(f"--cluster {address}", "local:N with N processes, as local:4")
    if kind in ("tcp", "tls") and rest.startswith("//") and rest.rpartition(":")[2].isdigit():
        return 0
    raise UsageError(f"--cluster {address}", "local:N, or the address of a dask scheduler, as tcp://HOST:8786")


def _require_distributed() -> None:
    try:
        import distributed  # noqa: F401 - only to know that it is there
    except ImportError as error:
        raise UsageError(
            "--cluster needs dask.distributed, which is not installed", "", "pip install 'unetctl[cluster]'"
        ) from error
