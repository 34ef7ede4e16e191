"""The training loop.

Everything random is a function of (seed, step): the crops, their variation, the dropout. So a run that was killed and
resumed from its checkpoint follows the very curve of one that was not.
"""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from unetctl.errors import ResourceError, Stopped, UsageError, WeightsError
from unetctl.networks.network import Network
from unetctl.runtime.events import EpochEnded, Listener, StageEnded, StageProgress, StageStarted, nobody
from unetctl.training.checkpoint import (
    differences,
    keep_checkpoint,
    load_checkpoint,
    random_state,
    save_checkpoint,
    set_random_state,
)
from unetctl.training.course import FitOptions, FitState, TrainBatch
from unetctl.training.feed import Feed
from unetctl.training.stepper import Loss, Stepper
from unetctl.training.team import Team

__all__ = ["Fit", "FitOptions", "FitState", "TrainBatch"]

#: Training ends when so many steps in a row, whole epochs of them, had no finite loss.
_HOPELESS_STEPS = 20
#: So many settings that differ are named in a message.
_NAMED_SETTINGS = 6


class Fit:
    """One training run in a folder; `run` goes on where the folder's checkpoint stands.

    Args:
        network: in float32; moved to the team's device.
        loss: (logits, targets, weights) to a scalar; one with `of_answers` gets the answers of all blocks.
        batch_of: step index to its batch; called ahead in a thread or in processes (`Feed`).
        validate: network (eval mode) to metrics; called every `val_every` epochs with the averaged weights, in the
            first process alone. May raise `Stopped`: the run then stops as if asked between steps, and begins with this
            validation when it goes on.
        on_best: called with the averaged network and its metrics when the validation chooses it, in the first process.
        folder: run folder; `checkpoints/` in it holds last.pt, the resume point, best.pt and what `keep_every` keeps.
        identity: what must be equal to resume (recipe, data): plain values; of a value that is JSON text, the settings
            that differ are named.
        team: the processes that train together, entered already; None: this one alone, on `device`.

    Attributes:
        state: how far it came.
        elapsed_s: of training in all executions before this one, or also in this one when it has ended.
    """

    def __init__(
        self,
        network: Network,
        options: FitOptions,
        loss: Loss,
        batch_of: Callable[[int], TrainBatch],
        validate: Callable[[Network], Mapping[str, float]],
        on_best: Callable[[Network, Mapping[str, float]], None],
        folder: Path,
        identity: Mapping[str, Any],
        device: torch.device | None = None,
        emit: Listener = nobody,
        team: Team | None = None,
    ) -> None:
        self.team = team or Team(device=device)
        self.options, self.batch_of, self.validate, self.on_best = options, batch_of, validate, on_best
        self.folder, self.identity, self.emit = folder, dict(identity), emit
        self.stepper = Stepper(network, options, loss, self.team)
        self.state, self.elapsed_s = FitState(), 0.0
        self._begun, self._is_running = time.monotonic(), False

    @property
    def network(self) -> Network:
        """In training."""
        return self.stepper.network

    @property
    def average(self) -> torch.optim.swa_utils.AveragedModel:
        """The running average of the weights."""
        return self.stepper.average

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        """Of torch."""
        return self.stepper.optimiser

    @property
    def checkpoint(self) -> Path:
        """Where the run resumes from."""
        return self.folder / "checkpoints" / "last.pt"

    @property
    def num_steps(self) -> int:
        """Planned length."""
        return self.options.num_steps

    @property
    def trained_s(self) -> float:
        """Seconds of training so far, in all executions."""
        return self.elapsed_s + (time.monotonic() - self._begun if self._is_running else 0.0)

    @property
    def has_stalled(self) -> bool:
        """True if validations have waited for a better one as long as `patience` says."""
        return 0 < self.options.patience <= self.state.num_since_best

    def resume(self) -> bool:
        """Takes up the folder's checkpoint if there is one; the first process reads it for all.

        Raises:
            UsageError: if the checkpoint belongs to another recipe or other data; says what differs.
            WeightsError: if it is damaged.
        """
        exists = self.team.is_first and self.checkpoint.exists()
        saved = self.team.told(load_checkpoint(self.checkpoint) if exists else None)
        if saved is None:
            return False
        try:
            theirs, state = dict(saved["identity"]), FitState(**saved["state"])
            differing = list(differences(self.identity, theirs))
            if not differing:
                self.network.load_state_dict(saved["network"])
                self.average.load_state_dict(saved["average"])
                self.optimiser.load_state_dict(saved["optimiser"])
                set_random_state(saved.get("random", {}))
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise WeightsError(
                f"the checkpoint {self.checkpoint} is not one of such a training run ({type(error).__name__})",
                "a checkpoint of unetctl train",
                "start over with --fresh",
            ) from error
        if differing:
            more = len(differing) - _NAMED_SETTINGS
            shown = ", ".join(differing[:_NAMED_SETTINGS]) + (f" and {more} more" if more > 0 else "")
            raise UsageError(
                f"{self.folder} holds a training run with another {shown}",
                "the same command as before",
                "give another folder with -o, or start over with --fresh",
            )
        self.state, self.elapsed_s = state, float(saved.get("elapsed_s", 0.0))
        return True

    def save(self, *kept: str) -> None:
        """Writes the checkpoint, also under the names `kept` beside it; the first process does."""
        if not self.team.is_first:
            return
        save_checkpoint(
            self.checkpoint,
            {
                "identity": self.identity,
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "random": random_state(),
                "state": vars(self.state).copy(),
                "elapsed_s": self.trained_s,
            },
        )
        for name in kept:
            keep_checkpoint(self.checkpoint, name)

    def run(self, should_stop: Callable[[], bool] = lambda: False) -> bool:
        """Trains to the end, or until asked to stop, or until the time is over.

        Returns:
            True if the run is complete, also if `has_stalled` ended it; False if it was stopped at a checkpoint.

        Raises:
            UsageError: if the training has diverged: no step had a finite loss for long.
            ResourceError: if memory or disk are not enough, or another process is gone; the last checkpoint stays.
        """
        if self.team.is_first:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        self._begun, self._is_running = time.monotonic(), True
        self.stepper.begin()
        self.emit(StageStarted("train", self.num_steps, self.state.step, "step"))
        try:
            complete = self._run(should_stop)
        except Stopped:  # in a validation
            complete = False
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise ResourceError(
                    f"a batch does not fit into the memory of {self.team.device}",
                    "",
                    "take a smaller --batch or --crop",
                ) from error
            raise
        if not complete:
            self.save()
        elapsed_s = time.monotonic() - self._begun
        self.elapsed_s, self._is_running = self.trained_s, False
        self.emit(StageEnded("train", elapsed_s, complete))
        return complete

    def _run(self, should_stop: Callable[[], bool]) -> bool:
        state, o = self.state, self.options
        if o.judge_start and not (state.step or state.history):
            metrics, is_best = self._judge(0)
            state.history.append({"epoch": 0.0, **metrics})
            self.emit(EpochEnded(0, o.num_epochs, None, metrics, is_best))
        if state.num_ended < state.step // o.steps_per_epoch:  # stopped in this validation
            self._end_epoch()
        with Feed(self.batch_of, state.step, self.num_steps, o.num_workers) as feed:
            while state.step < self.num_steps and not self.has_stalled:
                since = time.monotonic()
                batch, step = feed.take(), state.step
                lr = self.stepper.lr(step, state.lr_factor)
                state.losses.append(self.stepper.step(step, batch, lr))
                state.step += 1
                speed = batch.targets.shape[0] * batch.targets[0, 0].numel() * self.team.num / 1e6
                figures = {"loss": state.losses[-1], "lr": lr, "Mpx/s": speed / max(1e-9, time.monotonic() - since)}
                best = {} if state.best is None else {f"best {o.select}": state.best}
                self.emit(StageProgress("train", state.step, figures | best))
                if state.step % o.steps_per_epoch == 0:
                    self._end_epoch()
                elif o.save_every_steps and state.step % o.save_every_steps == 0:
                    self.save()
                is_over = o.max_time_s is not None and time.monotonic() - self._begun > o.max_time_s
                must_stop = self.team.any(should_stop() or is_over)
                if must_stop and state.step < self.num_steps and not self.has_stalled:
                    return False
        return True

    def _end_epoch(self) -> None:
        state, o = self.state, self.options
        epoch, is_last = state.step // o.steps_per_epoch, state.step == self.num_steps
        finite = [v for v in state.losses if math.isfinite(v)]
        loss = sum(finite) / len(finite) if finite else math.nan
        self._refuse_hopeless(loss)
        metrics: dict[str, float] = {}
        is_best = False
        if epoch % o.val_every == 0 or is_last:
            metrics, is_best = self._judge(epoch)
        state.losses = []
        state.history.append({"epoch": float(epoch), "loss": loss, **metrics})
        kept = ["best.pt"] if is_best else []
        if o.keep_every and epoch % o.keep_every == 0:
            kept.append(f"epoch-{epoch:04d}.pt")
        # Told first: what a checkpoint has counted is in the log, and what is told twice TensorBoard shows once.
        self.emit(EpochEnded(epoch, o.num_epochs, loss, metrics, is_best))
        if kept or epoch % o.save_every == 0 or is_last or self.has_stalled:
            self.save(*kept)

    def _judge(self, epoch: int) -> tuple[dict[str, float], bool]:
        """Metrics of the averaged network, and whether they are the best so far: the weights are kept then."""
        state, network, found = self.state, self.average.module, None
        assert isinstance(network, Network)
        if self.team.is_first:
            try:
                found = dict(self.validate(network.eval()))
            except Stopped:
                self.team.told(None)
                raise
        metrics = self.team.told(found)
        if metrics is None:
            raise Stopped("stopped in a validation")
        value = metrics[self.options.select]
        is_best = self._is_best(value)
        state.num_since_best = 0 if is_best else state.num_since_best + 1
        if is_best:
            state.best, state.best_epoch, state.num_stalled = value, epoch, 0
            if self.team.is_first:
                self.on_best(network, metrics)
        elif state.step > self.options.warmup_steps:  # before, the rate has not even been tried
            state.num_stalled += 1
            if state.num_stalled == self.options.plateau_patience:
                state.lr_factor, state.num_stalled = state.lr_factor * 0.5, 0
        return metrics, is_best

    def _is_best(self, value: float) -> bool:
        """NaN never is: nothing compares with it, so it would stay the best for ever."""
        best = self.state.best
        if math.isnan(value) or best is None or math.isnan(best):
            return not math.isnan(value)
        return value < best if self.options.select_lowest else value > best

    def _refuse_hopeless(self, loss: float) -> None:
        num_epochs = 0
        for value in (loss, *(entry["loss"] for entry in reversed(self.state.history) if entry["epoch"])):
            if not math.isnan(value):
                break
            num_epochs += 1
        num_steps = num_epochs * self.options.steps_per_epoch
        if num_steps >= _HOPELESS_STEPS:
            raise UsageError(
                f"the training has diverged: none of the last {num_steps} steps had a finite loss",
                "",
                "take a smaller --lr or more train.warmup_steps, and start over with --fresh",
            )
