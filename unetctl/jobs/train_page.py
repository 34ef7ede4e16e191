"""The page of a training run, from what the run knows."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from unetctl.jobs.train_samples import samples_of
from unetctl.recipe.schema import Recipe
from unetctl.reports.mistakes import Mistakes
from unetctl.reports.training_page import MOST_SAMPLES, Sample, worst_and_best, write_training_page
from unetctl.runtime.compute import Compute
from unetctl.training.crops import Plane
from unetctl.training.fit import Fit
from unetctl.training.mistakes import confusion, over_thresholds
from unetctl.training.validation import Validated


@dataclass(frozen=True)
class RunPage:
    """Everything that the page shows.

    Attributes:
        path: of the page.
        recipe: resolved.
        fit: as it stands.
        data: name of the data folder.
        train_planes, val_planes: as they were read.
        best: of the weights that are kept; None before the first.
        compute: device and arithmetic.
        notes: sentences to read before believing the figures.
    """

    path: Path
    recipe: Recipe
    fit: Fit
    data: str
    train_planes: Sequence[Plane]
    val_planes: Sequence[Plane]
    best: Validated | None
    compute: Compute
    notes: Sequence[str]

    def write(self, *, is_final: bool = False) -> None:
        """Writes the page, whole or not at all.

        Args:
            is_final: True looks through all validation planes for the worst and the best; else the first ones are shown,
                so that training goes on soon.

        Raises:
            OSError: if the disk refuses.
        """
        planes = self.val_planes or self.train_planes[:1]
        samples = self._samples(planes, is_final)
        write_training_page(
            self.path, f"Training of {self.recipe.task.name}", self._facts(), self.fit.state.history,
            samples, recipe_toml=self.recipe.to_toml(), notes=self.notes,
            select=self.fit.options.select, select_lowest=self.recipe.train.select_lowest, mistakes=self._mistakes(planes),
            num_samples=len(planes) if is_final and samples else 0,
        )  # fmt: skip

    def _facts(self) -> dict[str, str]:
        fit, compute, network = self.fit, self.compute, self.fit.network
        num_weights = sum(p.numel() for p in network.parameters())
        widths = ", ".join(map(str, self.recipe.network.widths))
        device = f"{compute.precision} on {_machine(fit.team.device, compute)}"
        num = fit.team.num
        return {
            "data": self.data,
            "planes": f"{len(self.train_planes)} for training, {len(self.val_planes)} for validation",
            "network": f"{self.recipe.network.kind}, widths {widths}, {num_weights:,} weights",
            "steps": f"{fit.state.step:,} of {fit.num_steps:,}, {self.recipe.train.batch * num} crops each"
            + (" (ended early: no better weights for long)" if fit.has_stalled else ""),
            "time": f"{_duration(fit.trained_s)} of training, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "device": device + (f", {num} processes" if num > 1 else ""),
            "software": f"unetctl {_version()}, torch {torch.__version__}, Python {platform.python_version()}, "
            f"{platform.system()}",
        }

    def _samples(self, planes: Sequence[Plane], is_final: bool) -> list[Sample]:
        if self.best is None:
            return []
        kept: list[Sample] = []
        for i in range(0, len(planes) if is_final else min(len(planes), MOST_SAMPLES), MOST_SAMPLES):
            part = Validated(self.best.figures, self.best.outputs[i : i + MOST_SAMPLES])
            kept += samples_of(planes[i : i + MOST_SAMPLES], part, self.recipe)
            if len(kept) > MOST_SAMPLES:  # never more pictures in memory than twice what is shown
                kept = [sample for _, group in worst_and_best(kept, len(planes)) for sample in group]
        return kept

    def _mistakes(self, planes: Sequence[Plane]) -> Mistakes | None:
        best = self.best
        if best is None:
            return None
        threshold = best.figures.get("threshold", self.recipe.output.threshold)
        found = confusion(planes, best.outputs, self.recipe, threshold)
        if self.recipe.output.num_channels > 1:
            return Mistakes(found.names, found.counts)
        scores = over_thresholds(planes, best.outputs)
        named = {"precision": scores.precision, "recall": scores.recall, "Dice": scores.dice}
        return Mistakes(found.names, found.counts, scores.thresholds, named, threshold)


def _machine(device: torch.device, compute: Compute) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    num = compute.num_threads
    return f"a CPU ({platform.machine()}), {num} thread{'s' if num != 1 else ''}"


def _version() -> str:
    try:
        return version("unetctl")
    except PackageNotFoundError:  # a checkout that is not installed
        return "(not installed)"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
