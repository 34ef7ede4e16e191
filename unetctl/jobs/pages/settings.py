"""What decides the bytes of page outputs, fixed when a run of pages begins."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from unetctl.errors import ResourceError, UsageError
from unetctl.jobs.object_scale import wants_scale
from unetctl.jobs.options import PredictOptions
from unetctl.jobs.pages.options import PageOptions
from unetctl.jobs.pages.shares import Shares
from unetctl.jobs.tasks import ResolvedTask
from unetctl.networks.network import Network
from unetctl.runtime.compute import Compute
from unetctl.runtime.device import resolve
from unetctl.runtime.keep import NUMERICS_VERSION
from unetctl.runtime.planning import Planned, PlanWishes, make_plan
from unetctl.sources.base import ImageInfo, SourceInfo
from unetctl.sources.scaled import refuse_scale

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
    task: ResolvedTask, network: Network, options: PredictOptions, page: PageOptions, shares: Shares
) -> PageSettings:
    """The settings that a run would begin with.

    Raises:
        UsageError: if what is to be kept is nothing that a page can hold.
        ResourceError: if not even a small core fits into the budget.
    """
    recipe = task.recipe
    keep = options.keep or recipe.output.keep
    if options.scale is not None:
        refuse_scale(options.scale)
    if keep == "logits":
        raise UsageError("--keep logits for pages", "probability, mask, classes or image", "pages hold no raw scores")
    num_classes = recipe.output.num_channels
    if keep == "probability" and num_classes not in (1, 3):
        raise UsageError(
            f"--keep probability of {num_classes} classes for pages", "mask, classes or image",
            "a page holds 1 or 3 channels",
        )  # fmt: skip
    if keep in ("mask", "overlay") and num_classes != 1:
        raise UsageError(
            f"--keep {keep} of {num_classes} classes for pages",
            "probability, classes or image",
            "a page holds one mask",
        )
    _, compute = resolve(options.device, options.precision)
    wishes = PlanWishes(options.core, options.block, options.batch, keep, options.threshold)
    planned = _nominal(task, network, compute, wishes, shares)
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
        "scale": options.scale,
        "channel": None if options.channels is None else list(options.channels),
        "numerics_version": NUMERICS_VERSION,
    }  # fmt: skip
    if wants_scale(recipe, options.scale):
        values["diameter_px"] = recipe.objects.diameter_px
    if keep == "labels" and (options.scale is not None or wants_scale(recipe, options.scale)):
        values["labels_at"] = "the scale at which pages were seen"  # earlier versions: at that of the page
    if keep == "labels":
        values["objects"] = recipe.objects.model_dump(exclude_none=True)
    return from_values(values)


def _nominal(task: ResolvedTask, network: Network, compute: Compute, wishes: PlanWishes, shares: Shares) -> Planned:
    """The plan of a page that stands for all."""
    recipe = task.recipe
    channels = recipe.input.channels
    axes, shape = ("yx", _NOMINAL_PAGE) if channels == 1 else ("cyx", (channels, *_NOMINAL_PAGE))
    nominal = ImageInfo("", shape, axes, np.dtype(np.uint8))
    num_weights = sum(p.numel() for p in network.parameters())
    info = SourceInfo("page", "pages", (nominal,))
    return make_plan(info, {}, recipe, task.weights_sha256, num_weights, compute, shares.planner, wishes)


def refuse_unfit(settings: PageSettings, task: ResolvedTask, network: Network, shares: Shares) -> None:
    """Says once, rather than of every page, that a run was begun with more memory than there is now.

    Raises:
        ResourceError: saying how much it needs.
    """
    keep = settings.values["keep"]
    wishes = PlanWishes(settings.core, None, settings.batch, keep, settings.values["threshold"])
    try:
        _nominal(task, network, settings.compute, wishes, shares)
    except ResourceError as error:
        raise ResourceError(
            f"the run was begun with cores of {settings.core} pixels, {settings.batch} at once, and {error.seen}",
            error.expected,
            "give more with --memory, or start over with --fresh",
        ) from error


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
