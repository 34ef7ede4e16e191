"""What a training run keeps: the weights as they were scored, the start where nothing was better, and a log."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import unetctl
from tests.courses import SPEC, Course, assert_same
from tests.training_data import GREY, pages, run, tensors
from unetctl.errors import UsageError, WeightsError
from unetctl.jobs import train_run
from unetctl.networks.build import build_network
from unetctl.networks.network import Network
from unetctl.networks.weights import WeightsHeader, load_weights, save_weights
from unetctl.runtime.events import EpochEnded, Event
from unetctl.training.validation import as_stored, steady_best


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pictures with labels, in a working directory with a recipe."""
    (tmp_path / "grey.toml").write_text(GREY)
    monkeypatch.chdir(tmp_path)
    return pages(tmp_path / "data", 4)


def test_a_network_as_stored_is_the_network_that_is_loaded(tmp_path: Path):
    network = build_network(SPEC, 3)
    with torch.no_grad():
        for value in network.state_dict().values():
            value.mul_(1 + 1e-4) if value.is_floating_point() else None
    before = {k: v.clone() for k, v in network.state_dict().items()}
    stored = as_stored(network).state_dict()
    save_weights(tmp_path / "w.safetensors", network, WeightsHeader("x", SPEC.to_dict(), {}))
    for name, value in load_weights(tmp_path / "w.safetensors")[0].state_dict().items():
        assert torch.equal(value, stored[name]), name
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in stored.items())


def test_the_weights_that_are_kept_are_those_that_were_scored(data: Path, monkeypatch: pytest.MonkeyPatch):
    scored: list[dict[str, torch.Tensor]] = []
    from unetctl.training.validation import validate

    def recorded(network: Network, *args: Any, **options: Any) -> Any:
        scored.append({k: v.clone() for k, v in network.state_dict().items()})
        return validate(network, *args, **options)

    monkeypatch.setattr(train_run, "validate", recorded)
    events: list[Event] = []
    unetctl.train(data, task="grey.toml", output="run", emit=events.append)
    best = max(e.epoch for e in events if isinstance(e, EpochEnded) and e.is_best)
    for name, value in tensors(Path("run")).items():
        assert name.endswith("num_batches_tracked") or torch.equal(value, scored[best - 1][name]), name


def test_a_start_that_nothing_was_better_than_is_kept(data: Path):
    unetctl.train(data, task="grey.toml", output="first", overrides=("train.select=loss",))
    spoil = ("--lr", 1e3, "--set", "train.warmup_steps=0", "--set", "train.grad_clip=0", "--set", "train.ema=0")
    told = run("train", "--data", data, "--task", "first", "--from", "first", "-o", "second", *spoil)
    assert told.exit_code == 0, told.stderr
    assert "before the first step: val_loss" in told.stderr
    assert "best weights are those that it started from: val_loss" in told.stderr
    assert json.loads(Path("second/report.json").read_text())["best_epoch"] == 0
    first, second = tensors(Path("first")), tensors(Path("second"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    again = run("train", "--data", data, "--task", "first", "--from", "first", "-o", "second", *spoil)
    assert (again.exit_code, "before the first step" in again.stderr) == (0, False)


def test_judging_the_start_leaves_the_course_as_it_is(tmp_path: Path):
    plain, judged = Course(tmp_path / "plain"), Course(tmp_path / "judged", judge_start=True)
    assert plain.go()
    assert judged.go(stop_after=4) is False
    pieces = Course(tmp_path / "judged", judge_start=True)
    assert pieces.go()
    assert [e["epoch"] for e in pieces.fit.state.history] == [0, 1, 2, 3]
    assert [e.epoch for e in judged.epochs + pieces.epochs] == [0, 1, 2, 3]
    assert pieces.fit.state.history[1:] == plain.fit.state.history
    assert {**judged.losses, **pieces.losses} == plain.losses
    assert all(torch.equal(value, pieces.tensors[name]) for name, value in plain.tensors.items())
    old = Course(tmp_path / "old")  # a checkpoint from before starts were judged
    assert old.go(stop_after=4) is False
    rest = Course(tmp_path / "old", judge_start=True)
    assert rest.go()
    rest.losses = plain.losses
    assert_same(rest, plain)


def test_a_wider_network_goes_on_from_a_narrower_one(data: Path):
    unetctl.train(data, task="grey.toml", output="small", overrides=("train.select=loss",))
    wider = ("--set", "network.base_width=7", "--epochs", 1, "--set", "train.lr=1e-30", "--set", "train.warmup_steps=0")
    told = run("train", "--data", data, "--task", "small", "--from", "small", "-o", "large", *wider)
    assert told.exit_code == 0, told.stderr
    assert "is grown; it begins with the same answers" in told.stderr
    val_loss = json.loads(Path("small/report.json").read_text())["figures"]["val_loss"]
    assert f"before the first step: val_loss {val_loss:.4f}" in told.stderr
    narrower = run("train", "--data", data, "--task", "small", "--from", "large", "-o", "again")
    assert narrower.exit_code == 5
    assert "expected the network of the recipe, or one that is narrower" in narrower.stderr


def test_a_training_run_keeps_a_log(data: Path):
    unetctl.train(data, task="grey.toml", output="run", epochs=2)
    lines = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]
    assert {"Note", "StageStarted", "EpochEnded", "StageEnded"} <= {line["event"] for line in lines}
    assert [line["epoch"] for line in lines if line["event"] == "EpochEnded"] == [1, 2]
    unetctl.train(data, task="grey.toml", output="run", epochs=2, fresh=True)
    assert len(Path("run/log.jsonl").read_text().splitlines()) == len(lines)


@pytest.mark.parametrize(
    ("values", "lowest", "chosen"),
    [
        ([0.1, 0.2, 0.9, 0.9, 0.9, 0.8, 0.7, 0.2], False, 4),  # the middle of the plateau
        ([0.5, 0.7, 0.5, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6], False, 6),  # not the lone peak
        ([0.4, 0.3, 0.1, 0.1, 0.1, 0.3, 0.4], True, 3),
    ],
)
def test_a_threshold_is_chosen_where_its_neighbours_are_good_too(values, lowest, chosen):
    assert steady_best(values, lowest=lowest) == chosen


def test_a_training_does_not_begin_with_the_weights_it_would_write_over(data: Path):
    options: dict[str, Any] = {"task": "grey.toml", "output": "run", "overrides": ("train.select=loss",)}
    unetctl.train(data, **options)
    before = Path("run/weights.safetensors").read_bytes()
    for fresh in (False, True):
        for start in ("run", "run/weights.safetensors", str(Path("run").resolve())):
            with pytest.raises(UsageError, match="lies in run") as told:
                unetctl.train(data, **options, init_from=start, fresh=fresh)
            assert "-o" in told.value.hint
    assert Path("run/weights.safetensors").read_bytes() == before
    assert Path("run/checkpoints/last.pt").exists()


def test_starting_over_from_weights_that_are_no_use_leaves_the_run_as_it_was(data: Path):
    options: dict[str, Any] = {"task": "grey.toml", "output": "run", "overrides": ("train.select=loss",)}
    unetctl.train(data, **options)
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    Path("broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(WeightsError):
        unetctl.train(data, **options, init_from="broken.safetensors", fresh=True)
    after = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file() and path.name != "log.jsonl"}
    assert after == {path: content for path, content in before.items() if path.name != "log.jsonl"}
