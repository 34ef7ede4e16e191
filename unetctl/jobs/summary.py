"""The plan on a page: what `--dry-run` prints."""

import shutil
import time
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from unetctl.jobs.predict import Prediction
from unetctl.networks.network import Network
from unetctl.runtime.device import apply_compute
from unetctl.runtime.engine import Engine, TileJob
from unetctl.runtime.grey_scale import Scaling
from unetctl.runtime.loop import network_dims, tile_frame
from unetctl.runtime.memory import format_size
from unetctl.sinks.estimate import store_size, tiff_size


@dataclass(frozen=True)
class PlanSummary:
    """A plan told in numbers.

    Attributes:
        input, output: paths.
        values: plain values, for JSON.
    """

    input: str
    output: str
    values: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"input": self.input, "output": self.output, **self.values}

    def lines(self) -> list[str]:
        """For people."""
        v = self.values
        rows = [("input", self.input), ("output", self.output)]
        rows += [("", line) for line in v["images"]]
        rows += [
            (
                "network",
                f"{v['task']}: stride {v['stride']}, margin {v['margin']}, halo {v['halo']}, {v['num_weights']:,} weights",
            ),
            (
                "exact",
                "yes: the result does not depend on the tiling" if v["is_exact"] else f"no: {v['inexact_because']}",
            ),
            (
                "work",
                f"{v['num_blocks']} blocks, {v['num_tiles']} tiles in batches of {v['batch']}; per kept pixel "
                f"{v['computed_per_kept']:.2f} computed, {v['read_per_kept']:.2f} read, {v['work_per_kept'] / 1e3:.1f} k multiplications",
            ),
            ("compute", f"{v['device']}, {v['precision']}, {v['num_threads']} threads"),
            (
                "memory",
                f"{format_size(v['host_bytes'])} projected of {format_size(v['budget_bytes'])}"
                + (f", {format_size(v['device_bytes'])} on the device" if v["device_bytes"] else ""),
            ),
            (
                "disk",
                f"store at most {format_size(v['store_bytes'])} in {v['store_files']} files"
                + (f", output at most {format_size(v['output_bytes'])}" if v["output_bytes"] else "")
                + f"; {format_size(v['free_bytes'])} free",
            ),
            ("keep", f"{v['keep']}" + (f" at {v['threshold']}" if v["keep"] == "mask" else "")),
        ]
        if v.get("eta_s") is not None:
            rows.append(("time", f"about {_duration(v['eta_s'])} at {v['mpx_per_s']:.2f} Mpx/s (measured on one tile)"))
        if v["num_done"]:
            is_all = v["num_done"] == v["num_blocks"]
            told = "; nothing is left to compute" * is_all
            rows.append(("resume", f"{v['num_done']} of {v['num_blocks']} blocks are done already{told}"))
        rows += [("note", n) for n in v["notes"]] + [("warning", w) for w in v["warnings"]]
        return [f"{name:>8}  {text}" if name else f"{'':>8}  {text}" for name, text in rows]


def summarise(prediction: Prediction, network: Network, *, warm_up: bool) -> PlanSummary:
    """The summary of a plan.

    Args:
        prediction: as planned.
        network: to measure with and to count.
        warm_up: True runs one batch of tiles on the device, to tell the time that the run will take.
    """
    planned, plan, spec = prediction.planned, prediction.plan, network.spec
    layout = plan.layout
    store = store_size(layout)
    dims = network_dims(plan)
    work = sum(i.tiles.num_tiles * spec.work(i.tiles.core[-dims:]) for i in plan.images)
    num_done, folder = 0, prediction.folder
    if prediction.is_resumed and folder.is_finished():
        num_done = plan.num_blocks
    elif prediction.is_resumed and folder.store_path.exists():  # others may be at work on it: nothing is deleted here
        num_done = plan.num_blocks - len(folder.missing(folder.sink(), range(plan.num_blocks), discard=False))
    values: dict[str, Any] = {
        "task": plan.task,
        "fingerprint": plan.fingerprint,
        "images": [str(image.tiles) for image in plan.images],
        "stride": list(spec.stride),
        "margin": list(spec.margin),
        "halo": list(spec.halo),
        "num_weights": sum(p.numel() for p in network.parameters()),
        "is_exact": spec.is_exact,
        "inexact_because": spec.inexact_because,
        "num_blocks": plan.num_blocks,
        "num_tiles": plan.num_tiles,
        "batch": plan.batch,
        "num_pixels": plan.num_pixels,
        "computed_per_kept": sum(i.tiles.num_tiles * prod(i.tiles.core) for i in plan.images) / plan.num_pixels,
        "read_per_kept": sum(i.tiles.num_tiles * prod(i.tiles.tile_shape) for i in plan.images) / plan.num_pixels,
        "work_per_kept": work / plan.num_pixels,
        "device": plan.compute.device,
        "precision": plan.compute.precision,
        "num_threads": plan.compute.num_threads,
        "host_bytes": planned.projection.host,
        "device_bytes": planned.projection.device,
        "budget_bytes": prediction.budget_bytes,
        "store_bytes": store.num_bytes,
        "store_files": store.num_files,
        "output_bytes": 0 if prediction.folder.is_zarr and plan.keep != "labels" else tiff_size(layout),
        "free_bytes": shutil.disk_usage(_existing(prediction.folder.output)).free,
        "keep": plan.keep,
        "threshold": plan.threshold,
        "num_done": num_done,
        "notes": list(planned.notes),
        "warnings": list(planned.warnings),
    }
    if values["store_bytes"] + values["output_bytes"] > values["free_bytes"]:
        values["warnings"].append("the output may not fit on the disk if it does not compress")
    if warm_up:
        tile_s = measure_tile(prediction, network)
        values["eta_s"] = (
            tile_s * sum(i.tiles.num_tiles for i in plan.images) * (1 - num_done / max(1, plan.num_blocks))
        )
        values["mpx_per_s"] = plan.num_pixels / 1e6 / max(1e-9, tile_s * plan.num_tiles)
    return PlanSummary(prediction.input, str(prediction.folder.output), values)


def measure_tile(prediction: Prediction, network: Network, num_repeats: int = 2) -> float:
    """Seconds that the bare network takes per tile of the first picture: the best of some batches after a first one."""
    plan = prediction.plan
    image = plan.images[0]
    device = apply_compute(plan.compute, prediction.options.device)
    engine = Engine.of_plan(network, plan, device)
    block = image.tiles.block(0)
    tile = image.tiles.tile(block, 0)
    dims = network_dims(plan)
    pixels = np.zeros((network.spec.in_channels, *tile.read.shape[-dims:]), np.uint8)
    scaling = Scaling((0.0,) * network.spec.in_channels, (1.0,) * network.spec.in_channels)
    jobs = [TileJob(pixels, scaling)] * plan.batch
    best = float("inf")
    for i in range(num_repeats + 1):
        since = time.perf_counter()
        engine.submit(jobs, tile_frame(tile, dims))()
        if i:
            best = min(best, (time.perf_counter() - since) / plan.batch)
    return best


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
