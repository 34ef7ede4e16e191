"""What the command line may say about a prediction."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unetctl.runtime.keep import Keep
from unetctl.runtime.planning import PlanWishes


@dataclass(frozen=True)
class PredictOptions:
    """What the command line may say about a prediction; None leaves the decision to the planner or the existing plan.

    Attributes:
        output: path of the result; None makes a name in the working directory.
        name: of the result in its folder, without task and ending, as `unetctl.jobs.outputs.output_names` gives it; None:
            the input's. Without effect if `output` names a file.
        keep, threshold: what is written.
        device, precision: see `unetctl.runtime.device`.
        memory_bytes: budget; scheduler_bytes: what a batch system allows.
        core, block, batch: sizes in pixels, tiles at once.
        part: (i, n), i from 1: this process's share of the blocks.
        fresh: start over. existing: "abort", "skip" or "overwrite", for an output that is not this job's.
        axes, channels, series, time: corrections and restrictions of the input.
        scale: factor by which inputs are resampled along y and x before the network sees them; None: as they are. The output
            of a volume has the scaled size, that of a page the page's own.
        nonfinite: "median" or "refuse".
        statistics_from: run folder or output whose statistics are reused.
        verify: compare checksums of everything done before; keep_store: of TIFF outputs.
    """

    output: Path | None = None
    name: str | None = None
    keep: Keep | None = None
    threshold: float | None = None
    device: str = "auto"
    precision: str = "auto"
    memory_bytes: int | None = None
    scheduler_bytes: int | None = None
    core: int | None = None
    block: int | None = None
    batch: int | None = None
    part: tuple[int, int] | None = None
    fresh: bool = False
    existing: str = "abort"
    axes: str | None = None
    channels: tuple[int, ...] | None = None
    series: int | None = None
    time: int | None = None
    scale: float | None = None
    nonfinite: str = "median"
    statistics_from: Path | None = None
    verify: bool = False
    keep_store: bool = False

    @property
    def view(self) -> dict[str, Any]:
        """How the source is opened."""
        scaled = {} if self.scale is None else {"scale": self.scale}
        return {"axes": self.axes, "series": self.series, "time": self.time, **scaled}

    @property
    def wishes(self) -> PlanWishes:
        """What the planner is told."""
        return PlanWishes(self.core, self.block, self.batch, self.keep, self.threshold, self.channels, self.nonfinite)

    @property
    def words(self) -> tuple[str, ...]:
        """The command line's options that a rerun must repeat: all else is as the plan says."""
        given = {
            "--keep": self.keep,
            "--threshold": self.threshold,
            "--axes": self.axes,
            "--channel": None if self.channels is None else ",".join(map(str, self.channels)) or "all",
            "--series": self.series,
            "--time": self.time,
            "--scale": self.scale,
            "--nonfinite": self.nonfinite if self.nonfinite != "median" else None,
        }
        return tuple(str(word) for pair in given.items() if pair[1] is not None for word in pair)

    @property
    def writer(self) -> str:
        """Name of this process's journal."""
        return f"part-{self.part[0]}-of-{self.part[1]}" if self.part else "main"
