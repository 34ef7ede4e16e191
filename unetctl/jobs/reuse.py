"""`--stats RUN`: grey values scaled as in another run, all of them or none."""

from math import prod
from pathlib import Path
from typing import Any

from unetctl.errors import InputError, UsageError
from unetctl.runtime.reading import StatisticsStore
from unetctl.runtime.run_folder import RunFolder
from unetctl.runtime.run_plan import RunPlan


def reused_statistics(where: Path, plan: RunPlan) -> dict[str, Any]:
    """Statistics of another run for every volume of a plan, by "image/volume"; nothing is left to be measured.

    Args:
        where: an output of predict, or its run folder. Of one volume, it stands for all; else volumes are the same ones.
        plan: of the input that they are to scale.

    Raises:
        InputError: if there is no run, or it measured nothing.
        UsageError: if its volumes, channels or percentiles are not those of the plan.
    """
    folder = where if (where / "plan.json").is_file() else RunFolder(where).path
    if not (folder / "plan.json").is_file():
        raise InputError(f"--stats {where} is no run", "an output of unetctl predict or its .run folder")
    told = RunPlan.from_json((folder / "plan.json").read_text())
    known = StatisticsStore(folder, "none", told).known
    if not known:
        raise InputError(f"--stats {where} has no statistics", "a run of a task that measures its volumes")
    ours, theirs = plan.typed_recipe().normalise, told.typed_recipe().normalise
    if ours.method == "percentile" and (ours.low, ours.high) != (theirs.low, theirs.high):
        raise UsageError(
            f"--stats {where} has percentiles {theirs.low:g} and {theirs.high:g}", f"{ours.low:g} and {ours.high:g}",
            "predict that run with the same recipe",
        )  # fmt: skip
    if ours.method == "two_levels" and not all(one.dark for one in known.values()):
        raise UsageError(f"--stats {where} tells no two levels", "a run of this version", "predict that run again")
    found: dict[str, Any] = {}
    for image in plan.images:
        num_channels = 1 if image.colour == "luminance" else max(1, len(image.channels))
        for volume in range(prod(image.tiles.shape[: image.num_leading])):
            key = f"{image.i_image}/{volume}"
            one = next(iter(known.values())) if len(known) == 1 else known.get(key)
            if one is None:
                raise UsageError(
                    f"--stats {where} has statistics of {len(known)} volumes, and none of volume {key}",
                    "those of one volume, which stand for all, or of the same ones",
                )
            if len(one.mean) != num_channels:
                raise UsageError(
                    f"--stats {where} has statistics of {len(one.mean)} channels",
                    f"of {num_channels}, as the network is given",
                )
            found[key] = one.to_dict()
    return found
