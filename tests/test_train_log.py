"""The whole log of a training that was killed again and again is that of one that was not."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

import unetctl
from tests.processes import Accident
from tests.processes import run as run_command
from tests.test_board import scalars
from tests.training_data import GREY, pages, run
from unetctl.training.checkpoint import load_checkpoint

WORDS = ("train", "--data", "data", "--task", "./grey.toml", "-o", "run", "--epochs", 6, "--save-every", "3steps")
CURVES = {"steps": ("step/loss", "step/lr"), "epochs": ("epoch/loss", "epoch/val_loss", "epoch/iou", "epoch/threshold")}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "grey.toml").write_text(GREY)
    pages(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def curves(board: Path) -> dict[str, list[tuple[int, float]]]:
    return {tag: scalars(board / stream, tag) for stream, tags in CURVES.items() for tag in tags}


def test_a_run_killed_at_any_moment_leaves_the_curve_of_one_that_was_not(here):
    assert run(*("whole" if word == "run" else word for word in WORDS)).exit_code == 0
    expected = curves(here / "whole" / "board")
    assert [step for step, _ in expected["step/loss"]] == list(range(1, 25))
    chance = random.Random(7)
    killed = 0
    for _ in range(3):  # before a file is opened, renamed or removed, whichever
        told = run_command(here, *WORDS, accident=Accident("kill", where="/run/", count=chance.randint(8, 70)))
        assert told.code in (0, -signal.SIGKILL), told.err
        killed += told.code != 0
    assert killed
    told = run_command(here, *WORDS)
    assert told.code == 0, told.err
    found = curves(here / "run" / "board")
    for tag, values in expected.items():
        assert [step for step, _ in found[tag]] == [step for step, _ in values], tag
        for (step, value), (_, other) in zip(values, found[tag], strict=True):
            assert math.isclose(value, other, abs_tol=1e-6), (tag, step)
    states = [load_checkpoint(here / name / "checkpoints" / "last.pt")["state"] for name in ("run", "whole")]
    assert states[0] == states[1]
    assert not list((here / "run").rglob(".*partial*"))


def test_a_signal_ends_training_and_workers_with_75(here):
    environment = {**os.environ, "PYTHONPATH": str(Path(unetctl.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    words = [*WORDS, "--epochs", 10**6, "--workers", 2, "--log-format", "json"]
    command = [sys.executable, "-m", "unetctl", *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        workers: list[psutil.Process] = []
        for line in process.stderr:
            if '"epoch": 1,' in line:
                workers = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stderr.read()
    assert process.returncode == 75, rest
    assert len(workers) == 2
    until = time.monotonic() + 20
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert "Traceback" not in rest


def test_a_broken_save_every_is_told(here):
    told = run(*WORDS[:-1], "often")
    assert told.exit_code == 2
    assert "--save-every often; expected a number of epochs, or of steps as 500steps" in told.stderr
