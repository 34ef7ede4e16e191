"""Batches made ahead: the same whoever makes them, and nobody is left behind."""

import mmap
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import unetctl
from tests.courses import Course, assert_same, batch_of
from unetctl.errors import InputError, ResourceError
from unetctl.runtime.compute import Compute
from unetctl.training import feed as room
from unetctl.training.augment import AugmentOptions
from unetctl.training.course import TrainBatch
from unetctl.training.crops import Plane, PlaneSet
from unetctl.training.feed import Feed, _Payload, num_workers_for
from unetctl.training.sampler import Sampler


def planes(num: int = 3) -> list[Plane]:
    rng = np.random.default_rng(0)
    found = []
    for i in range(num):
        size = (30 + 5 * i, 26)
        pixels = rng.normal(size=(1, *size)).astype(np.float32)
        found.append(Plane(f"p{i}.png", pixels, rng.integers(0, 2, (1, *size)).astype(np.uint8)))
    return found


VARIED = AugmentOptions(flip=True, rotate="any", elastic_prob=0.5, elastic_sigma_px=2, noise_sigma=0.2, jpeg_prob=0.3)


def sampler(seed: int = 1, batch: int = 2, first: int = 0) -> Sampler:
    return Sampler(PlaneSet(planes(), (8, 8), (4, 4), (6, 6)), VARIED, seed, batch, 1, first)


def assert_equal(one: TrainBatch, other: TrainBatch) -> None:
    for part in ("pixels", "targets", "weights"):
        a, b = getattr(one, part), getattr(other, part)
        assert a.dtype == b.dtype
        assert torch.equal(a, b), part


@settings(max_examples=2, deadline=None)
@given(
    seed=st.integers(0, 2**63 - 1), first=st.integers(0, 50), num=st.integers(1, 7), num_workers=st.sampled_from([1, 2])
)
def test_samples_are_the_same_whatever_the_number_of_workers(seed, first, num, num_workers):
    make = sampler(seed)
    expected = [make(step) for step in range(first, first + num)]
    for workers in (0, num_workers):
        with Feed(make, first, first + num, workers) as feed:
            for batch in expected:
                assert_equal(feed.take(), batch)
            with pytest.raises(StopIteration):
                feed.take()


@settings(max_examples=5, deadline=None)
@given(step=st.integers(0, 2**31), shares=st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_processes_that_share_a_step_see_together_what_one_would(step, shares):
    whole = sampler(batch=sum(shares))(step)
    starts = np.cumsum([0, *shares])
    parts = [sampler(batch=n, first=int(start))(step) for n, start in zip(shares, starts, strict=False)]
    together = [torch.cat([getattr(p, name) for p in parts]) for name in ("pixels", "targets", "weights")]
    assert_equal(TrainBatch(*together), whole)


def test_a_run_with_workers_is_the_run_without(tmp_path):
    courses = [Course(tmp_path / str(n), num_workers=n) for n in (0, 2)]
    for course in courses:
        course.fit.batch_of = batch_of
        assert course.go()
    assert_same(*courses)


class UnsendableError(ValueError):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)


class Spoilt:
    """Makes batches until a step."""

    def __init__(self, error: BaseException | str | None, at: int = 2) -> None:
        self.error, self.at = error, at

    def __call__(self, step: int) -> TrainBatch:
        print("words of a library among the answers")
        if step == self.at:
            if self.error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            elif isinstance(self.error, str):
                raise UnsendableError(self.error, "")
            else:
                raise self.error
        return batch_of(step)


def take_all(feed: Feed) -> None:
    with feed:
        while True:
            feed.take()


def workers_of(parent: int) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(parent).children(recursive=True)
    return found


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_an_error_inside_a_worker_is_told_as_it_is_and_ends_all(num_workers):
    before = len(workers_of(os.getpid()))
    error = InputError("page 3.png is spoilt", "one that is not", "draw it again")
    with pytest.raises(InputError, match=r"page 3\.png is spoilt; expected one that is not; draw it again"):
        take_all(Feed(Spoilt(error), 0, 9, num_workers))
    assert len(workers_of(os.getpid())) == before


def test_an_error_that_does_not_travel_is_told_in_words():
    with pytest.raises(RuntimeError, match="UnsendableError: no luck"):
        take_all(Feed(Spoilt("no luck"), 0, 9, 1))


def test_a_worker_that_dies_ends_the_run_in_a_sentence():
    with pytest.raises(ResourceError, match=r"has died.*train\.workers"):
        take_all(Feed(Spoilt(None), 0, 9, 2))


def test_workers_are_deaf_to_stop_signals_before_they_import_anything():
    before = {one.pid for one in workers_of(os.getpid())}
    with Feed(batch_of, 0, 2, 1) as feed:
        taker = threading.Thread(target=feed.take)
        taker.start()
        while not (started := [one for one in workers_of(os.getpid()) if one.pid not in before]):
            time.sleep(0.005)
        while b"signal.SIG_IGN" not in Path(f"/proc/{started[0].pid}/cmdline").read_bytes():
            time.sleep(0.005)
        time.sleep(0.1)  # Python itself starts in a group of its own, where no Ctrl-C arrives
        assert os.getsid(started[0].pid) != os.getsid(0)
        for number in (signal.SIGINT, signal.SIGTERM) * 5:
            started[0].send_signal(number)
            time.sleep(0.02)
        taker.join()
        assert feed.take() is not None


def test_arrays_that_take_no_memory_take_none_on_their_way_to_workers():
    zeros = np.broadcast_to(np.zeros((), np.uint8), (1, 1000, 1000))
    plane = Plane("clean", np.random.default_rng(0).random((1, 1000, 1000), np.float32), zeros)
    payload = _Payload(plane)
    with closing(payload):
        pickled, places = payload.frame
        assert len(pickled) < 2000
        assert [num for _, num in places] == [4_000_000]
        shared = memoryview(mmap.mmap(payload.fd, 0, access=mmap.ACCESS_COPY))
        found = pickle.loads(pickled, buffers=[shared[start : start + num] for start, num in places])
    assert np.array_equal(found.pixels, plane.pixels)
    assert np.array_equal(found.target, zeros)
    assert (found.target.dtype, found.target.strides) == (np.uint8, (0, 0, 0))


def test_a_sample_that_cannot_be_made_names_its_file():
    broken = PlaneSet(planes(1), (8, 8))
    broken.cut = lambda i_plane, y, x: (np.zeros((1, 9, 8), np.float32), np.zeros((1, 8, 8), np.uint8), None)  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"p0\.png"):
        Sampler(broken, AugmentOptions(), 1, 1)(0)


def test_the_number_of_workers_follows_the_machine(monkeypatch):
    cpu, cuda = Compute("cpu", "fp32", 4), Compute("cuda", "bf16", 4)
    for cores, local, expected in ((1, 1, (0, 0)), (2, 1, (0, 1)), (16, 1, (0, 8)), (16, 4, (0, 3)), (2, 4, (0, 0))):
        monkeypatch.setattr(room, "available_cores", lambda cores=cores: cores)
        assert (num_workers_for(None, cpu, local), num_workers_for(None, cuda, local)) == expected
    assert num_workers_for(5, cpu) == 5


ENDLESS = """
import sys
from tests.courses import batch_of
from unetctl.training.feed import Feed
with Feed(batch_of, 0, 10**9, 2) as feed:
    while True:
        feed.take()
        print("one", flush=True)
"""


def test_workers_do_not_outlive_a_killed_training():
    environment = {**os.environ, "PYTHONPATH": str(Path(unetctl.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        process.stdout.readline()
        workers = workers_of(process.pid)
        assert len(workers) >= 2
        for worker in workers:  # a whole job step gets the signal: workers leave the answer to the training
            worker.send_signal(signal.SIGTERM)
        for _ in range(20):
            assert process.stdout.readline() == b"one\n"
        process.kill()
    until = time.monotonic() + 20
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        assert time.monotonic() < until
        time.sleep(0.05)
