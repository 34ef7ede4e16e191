"""Training runs through the job and the command line: stopped, killed, out of disk or time, refused, started over."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import unetctl
from tests.training_data import GREY, pages, run
from unetctl.errors import BusyError, InputError, ResourceError, Stopped, UsageError
from unetctl.runtime.locks import RunLock
from unetctl.training.checkpoint import load_checkpoint


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a recipe."""
    (tmp_path / "grey.toml").write_text(GREY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_equal_runs(one: Path, other: Path) -> None:
    states = [load_checkpoint(folder / "checkpoints" / "last.pt") for folder in (one, other)]
    assert states[0]["state"] == states[1]["state"]
    for part in ("network", "average"):
        assert all(torch.equal(v, states[1][part][k]) for k, v in states[0][part].items())
    assert (one / "weights.safetensors").read_bytes() == (other / "weights.safetensors").read_bytes()


def test_starting_over_keeps_the_old_run_until_the_data_are_known_to_be_right(here):
    data = pages(here / "data", 4)
    first = unetctl.train(data, task="grey.toml", output="run", epochs=1)
    before = {p: p.read_bytes() for p in (here / "run").rglob("*") if p.is_file()}
    (data / "images" / "p2.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing of the kind")
    with pytest.raises(InputError):
        unetctl.train(data, task="grey.toml", output="run", epochs=1, fresh=True)
    assert before == {p: p.read_bytes() for p in (here / "run").rglob("*") if p.is_file()}
    pages(here / "data", 4)
    (here / "run" / "notes.txt").write_text("mine")
    other = unetctl.train(data, task="grey.toml", output="run", epochs=1, lr=0.1, fresh=True)
    assert other.figures != first.figures
    assert (here / "run" / "notes.txt").read_text() == "mine"
    assert len(list((here / "run" / "board" / "epochs").iterdir())) == 1


def test_a_stopped_run_goes_on_to_the_same_end(here):
    data = pages(here / "data")
    unetctl.train(data, task="grey.toml", output="whole")
    report = None
    for num in (3, 9, 2, 10, 13, 10**6):  # asked between pictures, tiles and steps
        asked = iter(range(10**6))

        def should_stop(num: int = num, asked: Iterator[int] = asked) -> bool:
            return next(asked) >= num

        try:
            report = unetctl.train(data, task="grey.toml", output="run", should_stop=should_stop)
            assert num > 5
        except Stopped:  # while the five pictures were read
            assert num < 5
    assert report is not None
    assert report.status == "done"
    assert_equal_runs(here / "whole", here / "run")


def interrupted(words: tuple[object, ...], number: signal.Signals, epoch: int) -> int:
    """Runs the command in a process of its own, signals it after an epoch; its exit code."""
    environment = {**os.environ, "PYTHONPATH": str(Path(unetctl.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "unetctl", *map(str, words), "--log-format", "json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if f'"epoch": {epoch},' in line:
                process.send_signal(number)
                break
        process.stderr.read()
    return process.returncode


def test_a_killed_run_goes_on_to_the_same_end(here):
    data = pages(here / "data")
    unetctl.train(data, task="grey.toml", output="whole", epochs=25)
    words = ("train", "--data", data, "--task", "./grey.toml", "-o", "run", "--epochs", 25)
    checkpoint = here / "run" / "checkpoints" / "last.pt"
    assert interrupted(words, signal.SIGTERM, 3) == 75
    stopped = load_checkpoint(checkpoint)["state"]["step"]
    assert interrupted(words, signal.SIGKILL, stopped // 4 + 3) == -signal.SIGKILL
    killed = load_checkpoint(checkpoint)["state"]["step"]
    assert 12 <= stopped < killed < 100
    for name in (".weights.safetensors.partial-1", ".report.html.partial-1", "checkpoints/.last.pt.partial-1"):
        (here / "run" / name).write_bytes(b"half")
    found = run(*words)
    assert found.exit_code == 0, found.stderr
    assert f"goes on after step {killed} of 100" in found.stderr
    assert_equal_runs(here / "whole", here / "run")
    assert not list((here / "run").rglob(".*partial*"))
    assert (here / "run" / "report.html").read_text().count("data:image/png") >= 3


def test_another_training_in_the_folder_is_refused_by_what_differs(here):
    data = pages(here / "data", 4)
    common: dict[str, Any] = {"task": "grey.toml", "output": "run", "epochs": 1}
    unetctl.train(data, **common)
    with pytest.raises(UsageError, match=r"another train\.lr \(0\.001, now 0\.5\);.*--fresh"):
        unetctl.train(data, lr=0.5, **common)
    with pytest.raises(UsageError, match=r"another network\.depth \(1, now 2\), train\.epochs \(1, now 7\);"):
        unetctl.train(data, **common | {"epochs": 7}, overrides=("network.depth=2",))
    pages(data, 5)
    with pytest.raises(UsageError, match="another data;"):
        unetctl.train(data, **common)
    assert unetctl.train(pages(here / "data", 5), fresh=True, **common).status == "done"


def test_a_folder_that_is_not_a_training_run_or_is_busy_is_left_alone(here):
    data = pages(here / "data", 3)
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("three years")
    (here / "file").write_text("")
    for name in ("mine", "file"):
        with pytest.raises(UsageError, match="-o"):
            unetctl.train(data, task="grey.toml", output=name)
    (here / "run").mkdir()
    with RunLock(here / "run", shared=False, who="somebody"), pytest.raises(BusyError, match="somebody"):
        unetctl.train(here / "data", task="grey.toml", output="run", epochs=1)
    with pytest.raises(ResourceError, match="could not be written"):
        unetctl.train(data, task="grey.toml", output="file/run", epochs=1)
    assert [p.name for p in (here / "mine").iterdir()] == ["thesis.txt"]


def test_a_full_disk_ends_in_a_sentence_and_the_run_goes_on(here):
    resource = pytest.importorskip("resource")
    data = pages(here / "data", 3)
    unetctl.train(data, task="grey.toml", output="whole")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for num_bytes in (500, 6000, 20_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
        try:
            told = run("train", "--data", data, "--task", "./grey.toml", "-o", "run")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert told.exit_code == 6, told.stderr
        assert "Traceback" not in told.stderr
    assert run("train", "--data", data, "--task", "./grey.toml", "-o", "run").exit_code == 0
    assert_equal_runs(here / "whole", here / "run")


def test_out_of_time_it_leaves_with_75_and_goes_on(here):
    words = ("train", "--data", pages(here / "data", 3), "--task", "./grey.toml", "-o", "run", "--epochs", 1)
    codes = []
    for _ in range(4):
        found = run(*words, "--max-time", "0.001s")
        codes.append((found.exit_code, found.stdout))
    assert codes == [(75, "")] * 3 + [(0, "run\n")]
