"""Processes that train together: what they learn is what one would, and none of them hangs."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.processes import Member
from tests.training_data import GREY, pages
from unetctl.cli.environment import is_follower, launched
from unetctl.errors import UsageError
from unetctl.training.team import Team, shared_sums, summed

PROJECT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch without gloo")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def train(folder: Path, num: int, **given: Any) -> list[tuple[int, str, str]]:
    """`num` processes in the environment that torchrun makes, but without torchrun to end the rest: code, stdout, stderr."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    started = []
    for rank in range(num):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num, "LOCAL_WORLD_SIZE": num, "MASTER_PORT": port}
        started.append(Member(folder, given, {**{k: str(v) for k, v in place.items()}, "MASTER_ADDR": "127.0.0.1"}))
    ended = [member.wait() for member in started]
    return [(one.code, one.out, one.err) for one in ended]


def found(folder: Path, num: int, rank: int = 0) -> Any:
    return json.loads((folder / f"found-{num}-{rank}.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One process with the whole batch."""
    folder = tmp_path_factory.mktemp("alone")
    told = train(folder, 1, batch=4)
    assert told[0][0] == 0, told
    return found(folder, 1)


def assert_close(one: Any, other: Any) -> None:
    for step, loss in other["losses"].items():
        assert one["losses"][step] == pytest.approx(loss, rel=1e-4), step
    for name, values in other["weights"].items():
        torch.testing.assert_close(torch.tensor(one["weights"][name]), torch.tensor(values), rtol=1e-3, atol=2e-5)
    for mine, theirs in zip(one["history"], other["history"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


def test_two_processes_are_one_with_twice_the_batch(tmp_path, alone):
    told = train(tmp_path, 2, batch=2)
    assert [code for code, _, _ in told] == [0, 0], told
    for rank in range(2):
        assert_close(found(tmp_path, 2, rank), alone)
    assert found(tmp_path, 2, 0)["losses"] == found(tmp_path, 2, 1)["losses"]
    assert (tmp_path / "validated").read_text() == "0\n" * 3
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["best.pt", "last.pt"]


def test_a_signal_to_one_stops_all_and_they_go_on_together(tmp_path, alone):
    told = train(tmp_path, 2, batch=2, signal_at=[1, 4])
    assert [code for code, _, _ in told] == [75, 75], told
    first = found(tmp_path, 2)
    assert first["step"] == 4
    assert [code for code, _, _ in train(tmp_path, 2, batch=2)] == [0, 0]
    both = found(tmp_path, 2)
    both["losses"] |= first["losses"]
    assert_close(both, alone)


@pytest.mark.parametrize("dying", [0, 1])
def test_a_process_that_dies_ends_the_others_in_a_sentence(tmp_path, dying):
    told = train(tmp_path, 2, batch=2, die_at=[dying, 5])
    assert told[dying][0] == -9
    code, _, err = told[1 - dying]
    assert code == 6, err
    assert "another process of this training has ended" in err
    assert "Traceback" not in err


def test_alone_everybody_agrees_and_nothing_is_added_up():
    team = Team()
    team.must_agree("data", 1)
    assert (team.any(True), team.any(False), team.told(3), team.mean(2.5)) == (True, False, 3, 2.5)
    with shared_sums():
        assert summed(torch.tensor(2.0)) == 2.0


ENV = {"MASTER_ADDR": "here", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


def test_what_torchrun_says_is_understood():
    assert launched(ENV) == {"rank": 1, "local_rank": 1, "num": 2, "num_local": 2}
    assert is_follower(ENV)
    assert not is_follower({**ENV, "RANK": "0"})
    assert launched({}) == launched({"WORLD_SIZE": "2", "RANK": "0"}) == launched({**ENV, "WORLD_SIZE": "1"}) == {}
    with pytest.raises(UsageError, match="WORLD_SIZE is 2, and RANK is 7"):
        launched({**ENV, "RANK": "7"})


def test_torchrun_trains_and_only_the_first_process_speaks_and_writes(tmp_path):
    (tmp_path / "grey.toml").write_text(GREY.replace('norm = "batch"\ndropout = 0.2\n', ""))
    pages(tmp_path / "data", 4)
    words = ["torch.distributed.run", "--nproc-per-node", 2, "--master-port", free_port(), "-m", "unetctl", "train"]
    words += ["--data", "data", "--task", "./grey.toml", "-o", "run", "--epochs", 2, "--batch", 1, "--workers", 0]
    env = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *map(str, words)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=150, check=False)
    err = done.stderr
    assert done.returncode == 0, err
    assert done.stdout == "run\n"
    assert err.count("epoch 1/2") == 1
    assert "2 processes train together, 1 crops a step each, 2 in all" in err
    assert (tmp_path / "run" / "report.html").exists()
