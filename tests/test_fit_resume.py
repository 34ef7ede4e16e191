"""A training run is bit for bit the same however often it is stopped or killed, and says what is in its way."""

import errno
import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.courses import Course, assert_same, batch_of
from unetctl.errors import ResourceError, Stopped, UsageError, WeightsError
from unetctl.networks.network import Network
from unetctl.runtime.events import Event
from unetctl.training.checkpoint import load_checkpoint, save_checkpoint
from unetctl.training.fit import TrainBatch

few = settings(max_examples=4, deadline=None)


class Killed(BaseException):
    """Nothing may catch it."""


KINDS: dict[str, dict[str, Any]] = {
    "adamw, cosine": {},
    "sgd, plateau": {"optimiser": "sgd", "schedule": "plateau", "select_lowest": True},
    "no average, constant": {"schedule": "constant", "ema": 0.0, "grad_clip": 0.0, "val_every": 2, "save_every": 2},
    "bfloat16": {"precision": torch.bfloat16},
}


@pytest.fixture(scope="module", params=KINDS, ids=str)
def undisturbed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Course]:
    options = KINDS[request.param]
    course = Course(tmp_path_factory.mktemp("undisturbed"), **options)
    assert course.go()
    assert sorted(course.losses) == list(range(1, 10))
    assert course.asked == list(range(9))
    assert min(course.speeds) > 0
    return options, course


@few
@given(pieces=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_a_run_stopped_anywhere_is_the_undisturbed_one(tmp_path_factory, undisturbed, pieces):
    options, whole = undisturbed
    folder = tmp_path_factory.mktemp("stopped")
    losses: dict[int, float] = {}
    kept: list[tuple[dict[str, float], dict[str, torch.Tensor]]] = []
    for piece in [*pieces, None]:
        course = Course(folder, **options)
        complete = course.go(piece)
        losses |= course.losses
        kept += course.kept
        assert complete == (course.fit.state.step == 9)
    assert course.go()  # once more: nothing is left to do
    course.losses = losses
    assert_same(course, whole)
    assert [figures for figures, _ in kept] == [figures for figures, _ in whole.kept]
    assert all(torch.equal(v, whole.kept[-1][1][k]) for k, v in kept[-1][1].items())


@few
@given(moment=st.integers(0, 14), again=st.integers(0, 14))
def test_a_run_killed_anywhere_is_the_undisturbed_one(tmp_path_factory, undisturbed, moment, again):
    options, whole = undisturbed
    folder = tmp_path_factory.mktemp("killed")
    losses: dict[int, float] = {}
    for last in (moment, again, 99):
        heard = iter(range(last, -1, -1))

        def listen(event: Event, heard=heard) -> None:
            if next(heard) == 0:
                raise Killed

        course = Course(folder, listen=listen, **options)
        try:
            assert course.go()
        except Killed:
            assert last != 99
        losses |= course.losses
    course.losses = losses
    assert_same(course, whole)


def test_a_kill_between_new_weights_and_the_checkpoint_loses_nothing(tmp_path, undisturbed):
    options, whole = undisturbed
    course = Course(tmp_path, **options)
    course.fit.on_best = dying
    with pytest.raises(Killed):
        course.go()
    resumed = Course(tmp_path, **options)
    assert resumed.go()
    resumed.losses = course.losses | resumed.losses
    assert_same(resumed, whole)


def dying(network: Network, figures: Mapping[str, float]) -> None:
    raise Killed


def test_a_validation_that_is_stopped_is_made_up_for(tmp_path, undisturbed):
    options, whole = undisturbed
    course = Course(tmp_path, **options, validate=stopping)
    assert not course.go()
    assert not course.epochs or course.epochs[-1].metrics == {}
    resumed = Course(tmp_path, **options)
    assert resumed.go()
    resumed.losses = course.losses | resumed.losses
    assert_same(resumed, whole)


def stopping(network: Network) -> Mapping[str, float]:
    raise Stopped("asked to")


def test_another_recipe_or_other_data_are_refused_by_name(tmp_path):
    identity = {"recipe": '{"train": {"lr": 0.01, "seed": 0}, "loss": {"dice": 0.0}}', "data": "a" * 64}
    assert not Course(tmp_path, identity=identity).go(2)
    with pytest.raises(UsageError, match=r"another train\.lr \(0\.01, now 0\.1\); .*--fresh") as refused:
        Course(tmp_path, identity=identity | {"recipe": identity["recipe"].replace("0.01", "0.1")}).go()
    assert "seed" not in str(refused.value)
    with pytest.raises(UsageError, match="another data;"):
        Course(tmp_path, identity=identity | {"data": "b" * 64}).go()
    with pytest.raises(UsageError, match=r"another precision \(null, now \"bf16\"\);"):
        Course(tmp_path, identity=identity | {"precision": "bf16"}).go()
    assert Course(tmp_path, identity=identity).go()


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Course, bytes]:
    """A run stopped after two steps, and its checkpoint."""
    course = Course(tmp_path_factory.mktemp("begun"))
    course.go(2)
    return course, course.fit.checkpoint.read_bytes()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_damaged_checkpoint_is_an_error_of_ours_or_harmless(begun, data):
    course, content = begun
    kind = data.draw(st.sampled_from(["cut", "flipped", "garbage", "pickle"]))
    if kind == "cut":
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    elif kind == "flipped":
        at = data.draw(st.integers(0, len(content) - 1))
        content = content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :]
    else:
        content = (b"\x80\x02" if kind == "pickle" else b"") + data.draw(st.binary(max_size=200))
    course.fit.checkpoint.write_bytes(content)
    again = Course(course.fit.folder)
    told = failure(again)
    if told is None:
        assert kind == "flipped"
        assert all(torch.equal(v, again.tensors[k]) for k, v in course.tensors.items())
    else:
        assert "--fresh" in told
        assert "\n" not in told


def failure(course: Course) -> str | None:
    try:
        assert course.fit.resume()
    except WeightsError as error:
        return str(error)
    return None


def test_what_is_no_checkpoint_of_this_network_is_refused_and_runs_no_code(tmp_path):
    course = Course(tmp_path)
    course.go(2)
    good = load_checkpoint(course.fit.checkpoint)
    bad = {"network": {}, "state": {"steps": 1}, "identity": 3, "optimiser": {}, "average": {"x": 1}}
    for wrong in ({}, *({**good, key: value} for key, value in bad.items())):
        save_checkpoint(course.fit.checkpoint, wrong)
        with pytest.raises(WeightsError, match="--fresh"):
            Course(tmp_path).go()
    torch.save([1, 2], course.fit.checkpoint)
    with pytest.raises(WeightsError, match="holds a list"):
        Course(tmp_path).go()
    torch.save({"x": Bomb(tmp_path / "exploded")}, course.fit.checkpoint)
    with pytest.raises(WeightsError):
        Course(tmp_path).go()
    course.fit.checkpoint.write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(WeightsError):
        Course(tmp_path).go()
    assert not (tmp_path / "exploded").exists()


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("way", ["limit", "write", "flush"])
def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path, monkeypatch, way):
    course = Course(tmp_path)
    course.go(2)
    before = course.fit.checkpoint.read_bytes()
    (course.fit.checkpoint.parent / ".last.pt.partial-1").write_bytes(b"of a killed process")
    failing = Course(tmp_path)
    with disk_for(len(before) // 2, way, monkeypatch), pytest.raises(ResourceError, match="free space"):
        failing.go()
    assert course.fit.checkpoint.read_bytes() == before
    assert [p.name for p in course.fit.checkpoint.parent.iterdir()] == ["last.pt"]
    resumed, whole = Course(tmp_path), Course(tmp_path / "whole")
    assert resumed.go()
    assert whole.go()
    resumed.losses = course.losses | resumed.losses
    assert_same(resumed, whole)


@contextmanager
def disk_for(num_bytes: int, way: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A disk that takes no longer file: the system's own limit, or a function that says so."""
    if way != "limit":
        with monkeypatch.context() as patched:
            patched.setattr("torch.save" if way == "write" else "os.fsync", full)
            yield
        return
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def full(*args: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_checkpoint_is_written_when_asked_for(tmp_path):
    steps: list[int] = []
    flat = {"score": 0.0}
    course = Course(tmp_path, num_epochs=5, save_every=2, save_every_steps=7, validate=lambda network: flat)

    def save(*kept: str) -> None:
        steps.append(course.fit.state.step)

    course.fit.save = save  # type: ignore[method-assign]
    assert course.go()
    assert steps == [3, 6, 7, 12, 14, 15]  # the first validation is the best


def test_out_of_time_it_stops_after_a_step_and_goes_on(tmp_path):
    whole = Course(tmp_path / "whole")
    assert whole.go()
    losses: dict[int, float] = {}
    for i in range(9):
        course = Course(tmp_path / "pieces", max_time_s=1e-9)
        assert course.go() == (i == 8)
        losses |= course.losses
    course.losses = losses
    assert_same(course, whole)


def test_data_that_fail_in_the_background_are_an_error(tmp_path):
    def failing(step: int) -> TrainBatch:
        if step == 3:
            raise OSError("gone")
        return batch_of(step)

    with pytest.raises(OSError, match="gone"):
        Course(tmp_path, batch_of=failing).go()
    assert load_checkpoint(tmp_path / "checkpoints" / "last.pt")["state"]["step"] == 3
