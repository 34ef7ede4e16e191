"""Blocks on dask.distributed workers: the same bytes, whoever dies meanwhile."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unetctl.cluster import run as cluster_run
from unetctl.cluster import worker as cluster_worker
from unetctl.cluster.run import compute_on_cluster
from unetctl.cluster.session import ClusterSession
from unetctl.cluster.worker import BlockOrder, WorkerCannotStart, compute_block
from unetctl.errors import IncompleteError, InputError, ResourceError, Stopped, UsageError, WeightsError
from unetctl.jobs.predict import Prediction, PredictOptions, plan_prediction, run_prediction
from unetctl.jobs.tasks import resolve_task
from unetctl.jobs.workers import SharedWorkers
from unetctl.networks.network import Network
from unetctl.runtime.events import Event, Note, StageProgress
from unetctl.runtime.journal import latest_records, read_one

SHAPE = (6, 70, 90)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """These networks are tiny: threads would only wait for each other."""
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    path = tmp_path / "stack.npy"
    np.save(path, np.random.default_rng(4).integers(0, 256, SHAPE, dtype=np.uint8))
    return path


Planned = tuple[Prediction, Network]


@pytest.fixture
def plan_for(stack: Path, tiny_weights: Path) -> Iterator[Callable[..., Planned]]:
    opened: list[Prediction] = []

    def plan(output: str, **options: Any) -> Planned:
        task = resolve_task(str(tiny_weights))
        network = task.network()
        values: dict[str, Any] = {"core": 32, "block": 32, "precision": "fp32", "axes": "zyx"}
        values["output"] = stack.parent / output
        prediction = plan_prediction(str(stack), task, PredictOptions(**{**values, **options}), network)
        opened.append(prediction)
        return prediction, network

    yield plan
    for prediction in opened:
        prediction.source.close()


def order_for(prediction: Prediction, index: int = 0, **changes: Any) -> BlockOrder:
    plan = prediction.plan
    order = BlockOrder(
        index, str(prediction.folder.output), plan.fingerprint, "token", str(plan.source["path"]),
        str(prediction.task.weights),
    )  # fmt: skip
    return replace(order, **changes)


def begin(prediction: Prediction) -> None:
    prediction.folder.begin(prediction.plan)
    prediction.folder.ensure_store(prediction.plan)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# -- a real cluster: one test, since it takes seconds to start


def test_two_workers_one_killed_give_the_same_bytes(plan_for):
    plain, network = plan_for("plain.ome.zarr")
    assert run_prediction(plain, network).status == "done"
    shared, _ = plan_for("shared.ome.zarr")
    assert shared.plan.num_blocks >= 12
    events: list[Event] = []
    killed: list[int] = []

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, StageProgress) and event.stage == "predict" and event.done >= 3 and not killed:
            journal = max(shared.folder.path.glob("journal-worker-*.jsonl"), key=lambda p: p.stat().st_mtime)
            killed.append(int(journal.stem.rpartition("-")[2]))
            os.kill(killed[0], signal.SIGKILL)

    with SharedWorkers("local:2", shared.task) as workers:
        report = run_prediction(shared, network, listen, lambda: False, workers.computer(shared, listen))
    assert report.status == "done"
    assert killed
    assert report.num_computed == shared.plan.num_blocks
    assert contents(shared.folder.store_path) == contents(plain.folder.store_path)
    assert len(list(shared.folder.path.glob("journal-worker-*.jsonl"))) >= 2
    assert not list(shared.folder.path.glob("journal-main.jsonl"))
    assert not (shared.folder.path / cluster_worker.ATTEMPTS).exists()
    done = [e.done for e in events if isinstance(e, StageProgress) and e.stage == "predict"]
    assert done == list(range(1, shared.plan.num_blocks + 1))
    again, _ = plan_for("shared.ome.zarr")
    assert run_prediction(again, network).status == "nothing-new"


# -- the worker's side, in this process


def test_a_worker_needs_nothing_but_the_order(plan_for):
    plain, network = plan_for("plain.ome.zarr")
    run_prediction(plain, network)
    shared, _ = plan_for("shared.ome.zarr")
    begin(shared)
    for index in range(shared.plan.num_blocks):
        record = compute_block(order_for(shared, index))
        assert (record["index"], record["state"]) == (index, "done")
        assert record["times"]["num_blocks"] == 1
    assert len(latest_records(shared.folder.path)) == shared.plan.num_blocks
    assert run_prediction(shared, network).num_computed == 0
    assert contents(shared.folder.store_path) == contents(plain.folder.store_path)
    journal = shared.folder.path / f"journal-{cluster_worker.writer_name()}.jsonl"
    assert len(list(read_one(journal))) == shared.plan.num_blocks
    # One run at a time is open, and its files are closed when another comes.
    assert len(cluster_worker._runs) == 1


def test_a_worker_says_what_it_cannot_open(plan_for, tmp_path, stack):
    prediction, _ = plan_for("out.ome.zarr")
    with pytest.raises(WorkerCannotStart, match="no run folder"):
        compute_block(order_for(prediction))
    begin(prediction)
    with pytest.raises(WorkerCannotStart, match=r"another plan|differs"):
        compute_block(order_for(prediction, fingerprint="0" * 64))
    other = tmp_path / "other.npy"
    np.save(other, np.zeros(SHAPE, np.uint8))
    with pytest.raises(WorkerCannotStart, match="another file"):
        compute_block(order_for(prediction, source=str(other)))
    with pytest.raises(WorkerCannotStart, match="another file"):
        compute_block(order_for(prediction, weights=str(other)))
    with pytest.raises(WorkerCannotStart, match="same paths"):
        compute_block(order_for(prediction, source=str(tmp_path / "nowhere.npy")))
    assert not cluster_worker.is_busy()


def test_a_block_begun_too_often_is_given_up(plan_for):
    prediction, _ = plan_for("out.ome.zarr")
    begin(prediction)
    attempts = prediction.folder.path / cluster_worker.ATTEMPTS
    attempts.mkdir()
    (attempts / "1").write_bytes(b"." * cluster_worker.MAX_ATTEMPTS)
    assert compute_block(order_for(prediction, 1))["state"] == "given-up"
    (attempts / "2").write_bytes(b"." * (cluster_worker.MAX_ATTEMPTS - 1))
    assert compute_block(order_for(prediction, 2))["state"] == "done"
    assert [p.name for p in attempts.iterdir()] == ["1"]


def test_another_call_opens_the_run_anew(plan_for):
    """A worker outlives a run: what `--fresh` deleted must not be written to."""
    prediction, _ = plan_for("out.ome.zarr")
    begin(prediction)
    compute_block(order_for(prediction, 0))
    prediction.folder.remove()
    begin(prediction)
    compute_block(order_for(prediction, 1, token="another"))
    assert set(latest_records(prediction.folder.path)) == {1}


# -- the client's side, against workers made up in this process


class FakeFuture:
    """What `distributed.Future` shows of itself."""

    def __init__(self, key: str, result: Any) -> None:
        self.key = key
        self._result = result
        self.status = "error" if isinstance(result, BaseException) else "finished"
        if result == "lost":
            self.status = "cancelled"

    def result(self) -> Any:
        return self._result

    def exception(self) -> Any:
        return self._result

    def release(self) -> None:
        pass

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        callback(self)


class FakeClient:
    """Computes at once what is submitted; `misfortune` may answer instead."""

    def __init__(self, misfortune: Callable[[int, int], Any] = lambda index, attempt: None) -> None:
        self.misfortune = misfortune
        self.attempts: dict[int, int] = {}
        self.wanted: list[Any] = []
        self.cancelled: list[Any] = []
        self.addresses = ["tcp://a:1", "tcp://b:2"]

    def nthreads(self) -> dict[str, int]:
        return dict.fromkeys(self.addresses, 1)

    def submit(self, work: Callable[[BlockOrder], Any], order: BlockOrder, *, key: str, **how: Any) -> FakeFuture:
        self.wanted.append(how["workers"])
        attempt = self.attempts[order.index] = self.attempts.get(order.index, 0) + 1
        result = self.misfortune(order.index, attempt)
        if result is None:
            try:
                result = work(order)
            except Exception as error:
                result = error
        return FakeFuture(key, result)

    def cancel(self, futures: list[Any], force: bool) -> None:
        self.cancelled += futures

    def run(self, question: Callable[[], Any], on_error: str) -> dict[str, Any]:
        return {address: question() for address in self.addresses}


def session_with(client: FakeClient) -> ClusterSession:
    session = ClusterSession("tcp://127.0.0.1:9")
    session._client = client
    return session


def compute(prediction: Prediction, client: FakeClient, **options: Any) -> Any:
    begin(prediction)
    todo = list(range(prediction.plan.num_blocks))
    return compute_on_cluster(
        prediction.plan, todo, prediction.folder, prediction.task.weights, session_with(client), num_all=len(todo),
        **options,
    )  # fmt: skip


class KilledWorker(Exception):  # noqa: N818 - dask's name
    """By name what dask raises."""


def test_failures_are_tried_again(plan_for):
    def misfortune(index: int, attempt: int) -> Any:
        if index == 2 and attempt == 1:
            return KilledWorker("task", "tcp://a:1", 3)
        if index == 3 and attempt <= 4:
            return InputError("the disk stuttered")
        return "lost" if index == 5 and attempt <= 7 else None

    prediction, _ = plan_for("out.ome.zarr")
    client, events = FakeClient(misfortune), list[Event]()
    times, complete = compute(prediction, client, emit=events.append)
    assert complete
    assert times.num_blocks == prediction.plan.num_blocks
    assert (client.attempts[2], client.attempts[3], client.attempts[5]) == (2, 5, 8)
    assert any("the disk stuttered" in e.text for e in events if isinstance(e, Note))
    assert set(latest_records(prediction.folder.path)) == set(range(prediction.plan.num_blocks))


def test_hopeless_blocks_are_named_in_the_end_and_all_others_done(plan_for):
    def misfortune(index: int, attempt: int) -> Any:
        return InputError("cannot be decoded") if index in (1, 4) else None

    prediction, network = plan_for("out.ome.zarr")
    client = FakeClient(misfortune)
    with pytest.raises(IncompleteError, match=r"2 blocks .*\(1, 4: cannot be decoded\)") as raised:
        compute(prediction, client)
    assert raised.value.exit_code == 3
    assert client.attempts[1] == cluster_worker.MAX_ATTEMPTS
    assert set(latest_records(prediction.folder.path)) == set(range(prediction.plan.num_blocks)) - {1, 4}
    assert run_prediction(prediction, network).num_computed == 2


def test_a_block_that_kills_its_workers_is_given_up(plan_for):
    prediction, _ = plan_for("out.ome.zarr")
    attempts = prediction.folder.path / cluster_worker.ATTEMPTS

    def misfortune(index: int, attempt: int) -> Any:
        if index == 0:  # as many workers died of it as may
            attempts.mkdir(exist_ok=True)
            (attempts / "0").write_bytes(b"." * cluster_worker.MAX_ATTEMPTS)
        return None

    with pytest.raises(IncompleteError, match="its workers died"):
        compute(prediction, FakeClient(misfortune))


@pytest.mark.parametrize("error", [ResourceError("the disk is full"), WeightsError("torn"), UsageError("no")])
def test_what_no_other_worker_could_do_better_ends_the_run(plan_for, error):
    prediction, _ = plan_for("out.ome.zarr")
    with pytest.raises(type(error), match=str(error)):
        compute(prediction, FakeClient(lambda index, attempt: error if index == 3 else None))
    assert len(latest_records(prediction.folder.path)) < prediction.plan.num_blocks


def test_a_worker_that_cannot_start_is_left_out(plan_for):
    def cannot(address: str) -> WorkerCannotStart:
        error = WorkerCannotStart("no such file")
        error.address = address
        return error

    prediction, _ = plan_for("out.ome.zarr")
    client = FakeClient(lambda index, attempt: cannot("tcp://a:1") if attempt == 1 and index < 2 else None)
    assert compute(prediction, client)[1]
    assert client.wanted[-1] == ["tcp://b:2"]
    hopeless, _ = plan_for("hopeless.ome.zarr")
    client = FakeClient(lambda index, attempt: cannot(f"tcp://{'ab'[index % 2]}:{index % 2 + 1}"))
    with pytest.raises(WorkerCannotStart):
        compute(hopeless, client)


def test_what_is_not_on_disk_is_done_again(plan_for):
    prediction, _ = plan_for("out.ome.zarr")
    lied: list[int] = []

    def misfortune(index: int, attempt: int) -> Any:
        if index == 6 and not lied:
            lied.append(index)
            return {"index": 6, "state": "done", "times": {"num_blocks": 1}, "notes": [], "peak_bytes": 0}
        return None

    client = FakeClient(misfortune)
    assert compute(prediction, client)[1]
    assert client.attempts[6] == 2
    assert set(latest_records(prediction.folder.path)) == set(range(prediction.plan.num_blocks))


def test_a_stop_leaves_what_is_done(plan_for):
    prediction, network = plan_for("out.ome.zarr")
    events: list[Event] = []

    def should_stop() -> bool:
        return sum(isinstance(e, StageProgress) for e in events) >= 4

    times, complete = compute(prediction, FakeClient(), emit=events.append, should_stop=should_stop)
    assert not complete
    assert times.num_blocks == 4
    report = run_prediction(prediction, network)
    assert report.status == "done"
    # Two blocks a worker had been submitted; the made-up workers could not be called back.
    assert prediction.plan.num_blocks - 8 <= report.num_computed < prediction.plan.num_blocks


def test_without_workers_it_gives_up_and_can_be_resumed(plan_for, monkeypatch):
    monkeypatch.setattr(cluster_run, "_LOOK_S", 0.05)
    prediction, _ = plan_for("out.ome.zarr")
    client = FakeClient()
    client.addresses = []

    class Unanswered(FakeFuture):
        def add_done_callback(self, callback: Callable[[Any], None]) -> None:
            pass

    monkeypatch.setattr(client, "submit", lambda work, order, *, key, **how: Unanswered(key, None))
    with pytest.raises(Stopped, match="no worker") as raised:
        compute(prediction, client, no_worker_s=0.3)
    assert raised.value.exit_code == 75
    assert len(client.cancelled) == 2


# -- addresses


@pytest.mark.parametrize("address", ["local", "local:0", "local:two", "host:8786", "tcp://host", "http://host:80", ""])
def test_other_addresses_are_refused(address):
    with pytest.raises(UsageError, match="local:N"):
        ClusterSession(address)


def test_missing_distributed_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(UsageError, match=r"pip install 'unetctl\[cluster\]'"):
        ClusterSession("local:2")


def test_a_scheduler_that_is_not_there(monkeypatch):
    monkeypatch.setattr("unetctl.cluster.session.CONNECT_S", 0.5)
    with ClusterSession("tcp://127.0.0.1:9") as session, pytest.raises(ResourceError, match="no dask scheduler"):
        _ = session.client
