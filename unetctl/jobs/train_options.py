"""What `unetctl train` is asked for, and what it answers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unetctl.training.team import Place


@dataclass(frozen=True)
class TrainOptions:
    """What the command line may say about a training; None leaves it to the recipe.

    Attributes:
        data: folder of pictures and labels.
        task: shipped recipe, recipe file, weights or run folder (their recipe); None: the one of a run that was begun
            in `output`, else the shipped recipe whose name is a word of the folder's name if the data fit it, else the
            one that is made for such data.
        output: run folder; None: ``<data>-<task>`` in the working directory.
        init_from: weights to start from (fine-tuning).
        val, exclude: entries as in `unetctl.training.splits`.
        on_error: "skip" leaves out pairs that cannot be read or whose sizes differ, "abort" refuses to begin.
        overrides: ``section.key=value``.
        epochs, lr, batch, crop, seed, save_every, save_every_steps, patience, workers, max_time_s, precision: short for
            the [train] settings.
        device: see `unetctl.runtime.device`.
        fresh: start over.
        place: which of several processes this one is (torchrun).
    """

    data: Path
    task: str | None = None
    output: Path | None = None
    init_from: str | None = None
    val: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    on_error: str = "abort"
    overrides: tuple[str, ...] = ()
    epochs: int | None = None
    lr: float | None = None
    batch: int | None = None
    crop: int | None = None
    seed: int | None = None
    save_every: int | None = None
    save_every_steps: int | None = None
    patience: int | None = None
    workers: int | None = None
    max_time_s: float | None = None
    device: str = "auto"
    precision: str = "auto"
    fresh: bool = False
    place: Place = field(default_factory=Place)


@dataclass(frozen=True)
class TrainReport:
    """How a training run stands.

    Attributes:
        folder: of the run; give it as --task to predict.
        status: "done" or "stopped".
        epoch, num_epochs: how far.
        best_epoch, figures: of the best weights.
        elapsed_s: of this execution.
    """

    folder: str
    status: str
    epoch: int
    num_epochs: int
    best_epoch: int
    figures: dict[str, float]
    elapsed_s: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"command": "train", **vars(self)}

    def lines(self) -> list[str]:
        """For people."""
        told = ", ".join(f"{k} {v:.4f}" for k, v in self.figures.items())
        lines = [f"{self.folder}: {self.status} after {self.epoch} of {self.num_epochs} epochs, {self.elapsed_s:.0f} s"]
        if told:
            which = f"of epoch {self.best_epoch}" if self.best_epoch else "are those that it started from"
            lines.append(f"best weights {which}: {told}")
            lines.append(f"use them: unetctl predict INPUT --task {self.folder}")
        return lines
