"""`unetctl benchmark train`: training steps as they are, and the same steps on one batch that is ready, in turn.

    fed | cached | fed | cached | ...      rounds of a few steps: whatever else the machine does, both see it

Efficiency is the share of the training's time that the network's own steps need. It is 1 if cutting, varying and handing over
the crops hides behind them altogether.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from unetctl.errors import Stopped
from unetctl.jobs.benchmark_report import BenchmarkReport
from unetctl.jobs.train import TrainOptions, recipe_of
from unetctl.jobs.train_run import TrainingRun, joined
from unetctl.runtime.events import Listener, StageEnded, StageProgress, StageStarted, nobody
from unetctl.training.course import TrainBatch
from unetctl.training.feed import Feed
from unetctl.training.stepper import Stepper

#: Steps of the first round, which is not counted: kernels are chosen and workers start.
_WARM_UP = 2


@dataclass(frozen=True)
class Round:
    """Seconds a step of one round, fed and on the cached batch."""

    fed_s: float
    cached_s: float

    @property
    def efficiency(self) -> float:
        """Steps a second as a share of those on the cached batch."""
        return self.cached_s / self.fed_s


def train_speed(
    options: TrainOptions,
    *,
    num_rounds: int = 5,
    num_steps: int = 10,
    emit: Listener = nobody,
    should_stop: Callable[[], bool] = lambda: False,
) -> BenchmarkReport:
    """Trains for a moment, writes nothing.

    Args:
        options: as for `unetctl.jobs.train.train`; its run folder is not touched.
        num_rounds, num_steps: rounds, and steps of either kind in each.
        emit, should_stop: see there.

    Returns:
        A report with "steps_per_s", "cached_steps_per_s", their quotient "efficiency" (medians over the rounds) and "rounds".

    Raises:
        InputError, UsageError: what the training itself would raise.
        Stopped: if asked to.
    """
    recipe = recipe_of(options, emit, should_stop)
    with joined(options) as team, tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(options, recipe, Path(folder), team, emit, should_stop)
        fit_options = run.fit_options(time.monotonic())
        stepper = Stepper(run.initial_network(), fit_options, run.loss, team)
        stepper.begin()
        num_workers = fit_options.num_workers
        emit(StageStarted("measure", num_rounds, 0, "round"))
        begun = time.monotonic()
        rounds: list[Round] = []
        with Feed(run.sampler, 0, 10**9, num_workers) as feed:
            cached = feed.take()
            _timed(stepper, [feed.take] * _WARM_UP, should_stop)
            for i in range(num_rounds):
                # What was made ahead is taken first and not counted, nor does its making count for the cached batch.
                _timed(stepper, [feed.take] * feed.num_ahead, should_stop)
                fed = _timed(stepper, [feed.take] * num_steps, should_stop)
                feed.settle()
                ready = _timed(stepper, [lambda: cached] * num_steps, should_stop)
                rounds.append(Round(fed / num_steps, ready / num_steps))
                emit(StageProgress("measure", i + 1, {"steps/s": num_steps / fed}))
        emit(StageEnded("measure", time.monotonic() - begun))
    return _report(recipe.task.name, run, cached, rounds, num_workers)


def _timed(stepper: Stepper, takes: Sequence[Callable[[], TrainBatch]], should_stop: Callable[[], bool]) -> float:
    since = time.perf_counter()
    for step, take in enumerate(takes):
        if should_stop():
            raise Stopped("stopped while measuring", "", "run the same command again")
        stepper.step(step, take(), stepper.lr(step))  # which waits for the loss, so also for a GPU
    if stepper.device.type == "cuda":
        torch.cuda.synchronize(stepper.device)
    return time.perf_counter() - since


def _report(
    name: str, run: TrainingRun, batch: TrainBatch, rounds: Sequence[Round], num_workers: int
) -> BenchmarkReport:
    fed, cached = median(r.fed_s for r in rounds), median(r.cached_s for r in rounds)
    efficiency = median(r.efficiency for r in rounds)
    tile, core = ("x".join(map(str, a.shape[2:])) for a in (batch.pixels, batch.targets))
    mpx = batch.targets[:, 0].numel() / 1e6
    values: dict[str, Any] = {
        "task": name, "device": run.compute.device, "precision": run.compute.precision,
        "num_threads": run.compute.num_threads, "num_workers": num_workers, "batch": batch.pixels.shape[0], "tile": tile,
        "core": core, "steps_per_s": 1 / fed, "cached_steps_per_s": 1 / cached, "mpx_per_s": mpx / fed,
        "efficiency": efficiency, "rounds": [asdict(r) | {"efficiency": r.efficiency} for r in rounds],
    }  # fmt: skip
    makers = f"{num_workers} processes" if num_workers else "a thread"
    each = ", ".join(f"{r.efficiency:.3f}" for r in rounds)
    lines = (
        f"{name} on {run.compute.device} in {run.compute.precision}, {run.compute.num_threads} threads; "
        f"{batch.pixels.shape[0]} crops a step, tiles of {tile}, {core} labelled; medians of {len(rounds)} rounds",
        f"{'training':>13}  {1 / fed:.3g} steps/s, {mpx / fed:.3g} Mpx/s, crops made ahead by {makers}",
        f"{'cached batch':>13}  {1 / cached:.3g} steps/s",
        f"{'efficiency':>13}  {efficiency:.3f} (rounds: {each})",
    )
    return BenchmarkReport("train", values, lines)
