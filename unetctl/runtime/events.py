"""What the engine tells while it works. It never prints: the progress bar is a listener, and so is the test recorder.

Imports the standard library alone, so that the command line may use it before anything heavy is loaded.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """Something that happened."""


@dataclass(frozen=True)
class Note(Event):
    """A sentence for the user.

    Attributes:
        text: one sentence.
        kind: "info" (a decision that was taken), "warning" (something to look at) or "detail" (with --verbose only).
    """

    text: str
    kind: str = "info"


@dataclass(frozen=True)
class StageStarted(Event):
    """A stage of the work begins.

    Attributes:
        stage: "statistics", "predict", "pyramid", "export", "verify", "train", "validate" ...
        total: how many units it has in all, 0 if unknown.
        done: units that were finished before (a resumed job).
        unit: what is counted: "block", "step", "tile", "plane".
    """

    stage: str
    total: int
    done: int = 0
    unit: str = "block"


@dataclass(frozen=True)
class StageProgress(Event):
    """Some units are done.

    Attributes:
        stage: as in `StageStarted`.
        done: units finished so far, those of earlier runs included.
        figures: what is worth watching, by name with unit ("Mpx/s", "loss").
    """

    stage: str
    done: int
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StageEnded(Event):
    """A stage is complete, or was stopped."""

    stage: str
    elapsed_s: float
    is_complete: bool = True


@dataclass(frozen=True)
class EpochEnded(Event):
    """Training finished an epoch, or validated the weights that it starts from.

    Attributes:
        epoch: from 1; 0 for the start.
        num_epochs: planned.
        loss: mean over the epoch's steps; None for the start.
        metrics: of the validation, empty if this epoch was not validated.
        is_best: True if the validation chose these weights.
    """

    epoch: int
    num_epochs: int
    loss: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    is_best: bool = False


Listener = Callable[[Event], None]


def nobody(event: Event) -> None:
    """The listener that does not listen."""
