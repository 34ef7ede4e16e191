"""The training loop.

Everything random is a function of (seed, step): the crops, their variation, the dropout. So a run that was killed and
resumed from its checkpoint follows the very curve of one that was not.
"""

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unetctl.errors import ResourceError, Stopped, UsageError, WeightsError
from unetctl.networks.build import channels_last
from unetctl.networks.network import Network, TileFrame
from unetctl.runtime.events import EpochEnded, Listener, StageEnded, StageProgress, StageStarted, nobody
from unetctl.training.checkpoint import differences, load_checkpoint, save_checkpoint
from unetctl.training.losses import DegradationLoss

#: Training ends when so many steps in a row, whole epochs of them, had no finite loss.
_HOPELESS_STEPS = 20
#: So many settings that differ are named in a message.
_NAMED_SETTINGS = 6


@dataclass(frozen=True)
class TrainBatch:
    """What one step learns from.

    Attributes:
        pixels: (N, C, *tile) float32, normalised, core with its halo.
        targets: (N, 1, *core): class indices, or 0..1 for binary tasks.
        weights: (N, 1, *core) float32, 0 where nothing is known.
    """

    pixels: Tensor
    targets: Tensor
    weights: Tensor


@dataclass(frozen=True)
class FitOptions:
    """How to fit; the recipe's [train] section gives the values.

    Attributes:
        num_epochs, steps_per_epoch: length of the run.
        optimiser: "sgd" (momentum, as in Ronneberger et al. 2015, section 3) or "adamw".
        lr: learning rate at its highest.
        momentum: of SGD.
        weight_decay: decoupled for AdamW.
        schedule: "cosine" to 1/100 of `lr`, "constant", or "plateau" (halved after 10 validations without a best).
        warmup_steps: linear rise at the start.
        grad_clip: greatest norm of the gradient, 0 for none.
        ema: decay per step of the averaged weights that are validated and kept, 0 for none.
        freeze_norm: batch norm uses its running statistics, as when predicting, and leaves them as they are.
        precision: of the network's forward and backward pass; float32 or bfloat16 (autocast).
        seed: of everything random.
        val_every: epochs between validations.
        select: metric that chooses the best weights.
        select_lowest: True if a lower value is better.
        max_time_s: leave (resumable) after so many seconds; None for no limit.
        save_every: epochs between checkpoints.
        judge_start: validate the network as it is before the first step too, as epoch 0: the best is then never worse.
    """

    num_epochs: int
    steps_per_epoch: int
    optimiser: str = "adamw"
    lr: float = 1e-3
    momentum: float = 0.99
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    warmup_steps: int = 50
    grad_clip: float = 1.0
    ema: float = 0.999
    freeze_norm: bool = False
    precision: torch.dtype = torch.float32
    seed: int = 0
    val_every: int = 1
    select: str = "loss"
    select_lowest: bool = False
    max_time_s: float | None = None
    save_every: int = 1
    judge_start: bool = False


@dataclass
class FitState:
    """How far a run came; all of it is in the checkpoint."""

    step: int = 0
    best: float | None = None
    best_epoch: int = 0
    num_since_best: int = 0
    lr_factor: float = 1.0
    history: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def num_ended(self) -> int:
        """Epochs that have ended; the start in the history is none."""
        return sum(entry["epoch"] > 0 for entry in self.history)


class Fit:
    """One training run in a folder; `run` goes on where the folder's checkpoint stands.

    Args:
        network: in float32; moved to `device`.
        loss: (logits, targets, weights) to a scalar; a `DegradationLoss` gets the answers of all blocks.
        batch_of: step index to its batch; called in a background thread, one step ahead.
        validate: network (eval mode) to metrics; called every `val_every` epochs with the averaged weights. May raise
            `Stopped`: the run then stops as if asked between steps, and begins with this validation when it goes on.
        on_best: called with the averaged network and its metrics when the validation chooses it.
        folder: run folder; `checkpoints/last.pt` in it is the resume point.
        identity: what must be equal to resume (recipe, data): plain values; of a value that is JSON text, the settings
            that differ are named.
    """

    def __init__(
        self,
        network: Network,
        options: FitOptions,
        loss: Callable[[Tensor, Tensor, Tensor], Tensor],
        batch_of: Callable[[int], TrainBatch],
        validate: Callable[[Network], Mapping[str, float]],
        on_best: Callable[[Network, Mapping[str, float]], None],
        folder: Path,
        identity: Mapping[str, Any],
        device: torch.device | None = None,
        emit: Listener = nobody,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.options, self.loss, self.batch_of, self.validate, self.on_best = options, loss, batch_of, validate, on_best
        self.folder, self.identity, self.emit = folder, dict(identity), emit
        self.network = network.to(self.device)
        if self.device.type == "cuda" and network.spec.dims == 2:
            self.network = channels_last(self.network)
        self.average = torch.optim.swa_utils.AveragedModel(
            self.network, multi_avg_fn=_averaging(options.ema), use_buffers=True
        )
        self.optimiser = _optimiser(self.network, options)
        self.state = FitState()

    @property
    def checkpoint(self) -> Path:
        """Where the run resumes from."""
        return self.folder / "checkpoints" / "last.pt"

    @property
    def num_steps(self) -> int:
        """Planned length."""
        return self.options.num_epochs * self.options.steps_per_epoch

    def resume(self) -> bool:
        """Takes up the folder's checkpoint if there is one.

        Raises:
            UsageError: if the checkpoint belongs to another recipe or other data; says what differs.
            WeightsError: if it is damaged.
        """
        if not self.checkpoint.exists():
            return False
        saved = load_checkpoint(self.checkpoint)
        try:
            theirs, state = dict(saved["identity"]), FitState(**saved["state"])
            differing = list(differences(self.identity, theirs))
            if not differing:
                self.network.load_state_dict(saved["network"])
                self.average.load_state_dict(saved["average"])
                self.optimiser.load_state_dict(saved["optimiser"])
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
        self.state = state
        return True

    def save(self) -> None:
        """Writes the checkpoint."""
        save_checkpoint(
            self.checkpoint,
            {
                "identity": self.identity,
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "state": vars(self.state).copy(),
            },
        )

    def run(self, should_stop: Callable[[], bool] = lambda: False) -> bool:
        """Trains to the end, or until asked to stop, or until the time is over.

        Returns:
            True if the run is complete; False if it was stopped at a checkpoint.

        Raises:
            UsageError: if the training has diverged: no step had a finite loss for long.
            ResourceError: if memory or disk are not enough; the last checkpoint stays.
        """
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        self.emit(StageStarted("train", self.num_steps, self.state.step, "step"))
        try:
            complete = self._run(should_stop, begun)
        except Stopped:  # in a validation
            complete = False
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise ResourceError(
                    f"a batch does not fit into the memory of {self.device}", "", "take a smaller --batch or --crop"
                ) from error
            raise
        if not complete:
            self.save()
        self.emit(StageEnded("train", time.monotonic() - begun, complete))
        return complete

    def _run(self, should_stop: Callable[[], bool], begun: float) -> bool:
        state, per_epoch = self.state, self.options.steps_per_epoch
        if self.options.judge_start and not (state.step or state.history):
            metrics, is_best = self._judge(0)
            state.history.append({"epoch": 0.0, **metrics})
            self.emit(EpochEnded(0, self.options.num_epochs, None, metrics, is_best))
        if state.num_ended < state.step // per_epoch:  # stopped in this validation
            self._end_epoch()
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self.batch_of, state.step) if state.step < self.num_steps else None
            while coming is not None:
                batch = coming.result()
                step = state.step
                coming = ahead.submit(self.batch_of, step + 1) if step + 1 < self.num_steps else None
                since = time.monotonic()
                state.losses.append(self._step(step, batch))
                state.step += 1
                speed = batch.targets.numel() / 1e6 / max(1e-9, time.monotonic() - since)
                figures = {"loss": state.losses[-1], "lr": self._lr(step), "Mpx/s": speed}
                self.emit(StageProgress("train", state.step, figures))
                if state.step % per_epoch == 0:
                    self._end_epoch()
                over = self.options.max_time_s is not None and time.monotonic() - begun > self.options.max_time_s
                if (should_stop() or over) and coming is not None:
                    coming.cancel()
                    return False
        return True

    def _step(self, step: int, batch: TrainBatch) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = self._lr(step)
        self.network.train()
        if self.options.freeze_norm:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        torch.manual_seed((self.options.seed * 1_000_003 + step) % 2**63)
        statistics = [b.clone() for b in self.network.buffers()]
        pixels = batch.pixels.to(self.device, non_blocking=True)
        is_mixed = self.options.precision != torch.float32
        with torch.autocast(self.device.type, self.options.precision) if is_mixed else nullcontext():
            answers = self.network.answers(pixels, _frame(pixels, batch.targets))
        targets, weights = batch.targets.to(self.device), batch.weights.to(self.device)
        if isinstance(self.loss, DegradationLoss):
            loss = self.loss.of_answers(answers, targets, weights)
        else:
            loss = self.loss(answers[-1].logits.float(), targets, weights)
        value = float(loss.detach())
        self.optimiser.zero_grad(set_to_none=True)
        if math.isfinite(value):
            loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
            # A finite loss can have a gradient that is not: one such step, and every weight is lost.
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.options.grad_clip or math.inf)
            if math.isfinite(float(norm)):
                self.optimiser.step()
        else:  # what has spoilt the loss has gone through the batch norms' running statistics, too
            for buffer, before in zip(self.network.buffers(), statistics, strict=True):
                buffer.copy_(before)
        # Short averages at first: a fixed decay would carry the random start along for 1 / (1 - decay) steps.
        decay = min(self.options.ema, (1 + step) / (10 + step)) if self.options.ema else 0.0
        self.average.multi_avg_fn = _averaging(decay)
        self.average.update_parameters(self.network)
        return value

    def _lr(self, step: int) -> float:
        o = self.options
        if step < o.warmup_steps:
            return o.lr * (step + 1) / o.warmup_steps
        if o.schedule == "cosine":
            share = (step - o.warmup_steps) / max(1, self.num_steps - o.warmup_steps)
            return o.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))
        return o.lr * (self.state.lr_factor if o.schedule == "plateau" else 1.0)

    def _end_epoch(self) -> None:
        state, o = self.state, self.options
        epoch = state.step // o.steps_per_epoch
        finite = [v for v in state.losses if math.isfinite(v)]
        loss = sum(finite) / len(finite) if finite else math.nan
        self._refuse_hopeless(loss)
        metrics: dict[str, float] = {}
        is_best = False
        if epoch % o.val_every == 0 or state.step == self.num_steps:
            metrics, is_best = self._judge(epoch)
        state.losses = []
        state.history.append({"epoch": float(epoch), "loss": loss, **metrics})
        if epoch % o.save_every == 0 or state.step == self.num_steps:
            self.save()
        self.emit(EpochEnded(epoch, o.num_epochs, loss, metrics, is_best))

    def _judge(self, epoch: int) -> tuple[dict[str, float], bool]:
        """Metrics of the averaged network, and whether they are the best so far: the weights are kept then."""
        state, network = self.state, self.average.module
        assert isinstance(network, Network)
        metrics = dict(self.validate(network.eval()))
        value = metrics[self.options.select]
        is_best = self._is_best(value)
        state.num_since_best = 0 if is_best else state.num_since_best + 1
        if is_best:
            state.best, state.best_epoch = value, epoch
            self.on_best(network, metrics)
        elif state.num_since_best % 10 == 0:
            state.lr_factor *= 0.5
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


def _frame(pixels: Tensor, targets: Tensor) -> TileFrame | None:
    """The targets' core in the middle of the tile; None where the network is to pad at the tile's ends itself."""
    sizes, cores = pixels.shape[2:], targets.shape[2:]
    if sizes == cores:
        return None
    starts = [(size - core) // 2 for size, core in zip(sizes, cores, strict=True)]
    core = tuple((start, start + size) for start, size in zip(starts, cores, strict=True))
    return TileFrame(core, ((False, False),) * len(core))


def _averaging(decay: float) -> Any:
    return torch.optim.swa_utils.get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # untyped in torch


def _optimiser(network: nn.Module, options: FitOptions) -> torch.optim.Optimizer:
    if options.optimiser == "sgd":
        return torch.optim.SGD(
            network.parameters(), lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay
        )
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=options.lr)
