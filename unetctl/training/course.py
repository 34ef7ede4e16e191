"""What a training run is made of, as values: a batch, the options of its course, how far it came."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class TrainBatch:
    """What one step learns from.

    Attributes:
        pixels: (N, C, *tile) float32, normalised, core with its halo.
        targets: (N, K, *core): class indices, 0..1 for binary tasks, or what else the loss compares with.
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
        optimiser: "sgd" (momentum, as in Ronneberger et al. 2015, section 3), "adam" or "adamw".
        lr: learning rate at its highest.
        momentum: of SGD.
        weight_decay: decoupled for AdamW, part of the gradient otherwise; biases and norms of Adam and AdamW do not decay.
        schedule: "cosine" to 1/100 of `lr`, "constant", or "plateau" (halved after `plateau_patience` validations
            without a best; those during the warm-up do not count).
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
        patience: the run ends after so many validations without a best one, 0 for never.
        plateau_patience: see `schedule`.
        save_every_steps: steps between checkpoints beside those of `save_every`, 0 for none.
        keep_every: every so many epochs a checkpoint is kept under its epoch's name, 0 for none.
        num_workers: processes that make batches ahead; 0: a thread of this process does.
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
    patience: int = 0
    plateau_patience: int = 10
    save_every_steps: int = 0
    keep_every: int = 0
    num_workers: int = 0

    @property
    def num_steps(self) -> int:
        """Planned length."""
        return self.num_epochs * self.steps_per_epoch


@dataclass
class FitState:
    """How far a run came; all of it is in the checkpoint.

    Attributes:
        step: steps done.
        best, best_epoch: figure and epoch of the weights that are kept.
        num_since_best: validations since then.
        num_stalled: of these, since the learning rate was last lowered, without those of the warm-up.
        lr_factor: by which "plateau" has lowered the learning rate.
        history: one entry an epoch, "epoch" and figures.
        losses: of the steps since the last epoch's end.
    """

    step: int = 0
    best: float | None = None
    best_epoch: int = 0
    num_since_best: int = 0
    lr_factor: float = 1.0
    history: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    num_stalled: int = 0

    @property
    def num_ended(self) -> int:
        """Epochs that have ended; the start in the history is none."""
        return sum(entry["epoch"] > 0 for entry in self.history)
