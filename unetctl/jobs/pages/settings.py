"""What decides the bytes of page outputs, fixed when a run of pages begins."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from unetctl.errors import UsageError
from unetctl.jobs.options import PredictOptions
from unetctl.jobs.pages.options import PageOptions
from unetctl.jobs.tasks import ResolvedTask
from unetctl.networks.network import Network
from unetctl.runtime.device import Compute, resolve
from unetctl.runtime.numerics import NUMERICS_VERSION
from unetctl.runtime.planning import PlanWishes, make_plan
from unetctl.sources.base import ImageInfo, SourceInfo

#: A page by which core and batch are chosen for all: about A3 at 300 dpi.
_NOMINAL_PAGE = (4096, 4096)


@dataclass(frozen=True)
class PageSettings:
    """Of a run of pages.

    Attributes:
        compute: device kind, precision, threads.
        core: largest side of a core, pixels; a smaller page has a smaller one.
        batch: tiles at once.
        values: everything that decides, plain, as it stands in the run folder.
    """

    compute: Compute
    core: int
    batch: int
    values: dict[str, Any]

    def wishes(self, options: PredictOptions) -> PlanWishes:
        """What the planner is told for each page."""
        return PlanWishes(
            self.core, options.block, self.batch, self.values["keep"], self.values["threshold"], options.channels,
            options.nonfinite,
        )  # fmt: skip


def new_settings(
    task: ResolvedTask, network: Network, options: PredictOptions, page: PageOptions, budget_bytes: int
) -> PageSettings:
    """The settings that a run would begin with.

    Raises:
        UsageError: if what is to be kept is nothing that a page can hold.
        ResourceError: if not even a small core fits into the budget.
    """
    recipe = task.recipe
    keep = options.keep or recipe.output.keep
    if keep == "logits":
        raise UsageError("--keep logits for pages", "probability, mask, classes or image", "pages hold no raw scores")
    if keep == "probability" and recipe.output.num_channels not in (1, 3):
        raise UsageError(
            f"--keep probability of {recipe.output.num_channels} classes for pages", "mask, classes or image",
            "a page holds 1 or 3 channels",
        )  # fmt: skip
    _, compute = resolve(options.device, options.precision)
    axes, shape = (
        ("yx", _NOMINAL_PAGE) if recipe.input.channels == 1 else ("cyx", (recipe.input.channels, *_NOMINAL_PAGE))
    )
    nominal = ImageInfo("", shape, axes, np.dtype(np.uint8))
    num_weights = sum(p.numel() for p in network.parameters())
    wishes = PlanWishes(options.core, options.block, options.batch, keep, options.threshold)
    planned = make_plan(
        SourceInfo("page", "pages", (nominal,)),
        {},
        recipe,
        task.weights_sha256,
        num_weights,
        compute,
        budget_bytes,
        wishes,
    )
    plan = planned.plan
    values = {
        "task": task.name,
        "weights_sha256": task.weights_sha256,
        "recipe": recipe.fingerprint(),
        "keep": keep,
        "threshold": plan.threshold,
        "nonfinite": options.nonfinite,
        "compute": {
            "device": compute.device, "precision": compute.precision, "num_threads": compute.num_threads,
        },
        "core": options.core or max(plan.images[0].tiles.core),
        "batch": plan.batch,
        "format": page.format,
        "pdf_dpi": page.pdf_dpi,
        "channel": None if options.channels is None else list(options.channels),
        "numerics_version": NUMERICS_VERSION,
    }  # fmt: skip
    return from_values(values)


def from_values(values: dict[str, Any]) -> PageSettings:
    """The settings that stand in a run folder."""
    return PageSettings(Compute(**values["compute"]), values["core"], values["batch"], values)


def differences(asked: PageSettings, begun: PageSettings, options: PredictOptions) -> list[str]:
    """What was asked for and is not in force: one phrase each."""
    # Worked out from memory and machine, not asked for: as the run was begun.
    free = {"compute", "core", "batch"}
    found = [
        f"{key}: {asked.values[key]}, was {begun.values[key]}"
        for key in asked.values
        if key not in free and asked.values[key] != begun.values.get(key)
    ]
    for name, wish in (("core", options.core), ("batch", options.batch)):
        if wish is not None and wish != begun.values[name]:
            found.append(f"{name}: {wish}, was {begun.values[name]}")
    if options.precision != "auto" and asked.compute.precision != begun.compute.precision:
        found.append(f"precision: {asked.compute.precision}, was {begun.compute.precision}")
    if options.device != "auto" and asked.compute.device != begun.compute.device:
        found.append(f"device: {asked.compute.device}, was {begun.compute.device}")
    return found
