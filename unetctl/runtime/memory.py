"""How much memory there is, and how much a plan will take."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from unetctl.errors import ResourceError, UsageError
from unetctl.geometry.box import Ints
from unetctl.geometry.plan import TilePlan
from unetctl.networks.spec import NetworkSpec

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}

#: What the interpreter, torch, zarr and their code take before the first pixel (measured: 300 to 400 MiB on Linux x86-64).
BASE_BYTES = 420 * 2**20
#: Share of free memory that is planned with when nobody says more.
_FREE_SHARE = 0.8


def parse_size(text: str) -> int:
    """Bytes of "4GiB", "500 MB", "1073741824".

    Raises:
        UsageError: if the text is no size.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?I?)B?\s*", text.upper())
    if not match:
        raise UsageError(f"{text!r} is no size", "a number with a unit, as 4GiB or 500MB")
    return int(float(match[1]) * _UNITS[match[2]])


def format_size(num_bytes: float) -> str:
    """Bytes in binary units, three digits: "1.5 GiB"."""
    size = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{_figure(size) if unit != 'B' else round(size)} {unit}"
        size /= 1024
    return f"{_figure(size)} TiB"


def _figure(size: float) -> str:
    return f"{size:.3g}" if abs(size) < 999.5 else f"{size:.0f}"  # .3g would write 1e+03


def cgroup_limit(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Memory limit of this process's control group and of all that hold it, in bytes; None if there is none.

    Args:
        root: where control groups are mounted, of version 1 or 2.
        own: the kernel's list of the groups that this process is in.
    """
    limits = []
    for file in _limit_files(root, own):
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 2**60:
            limits.append(int(text))
    return min(limits, default=None)


def _limit_files(root: Path, own: Path) -> Iterator[Path]:
    """From the root to the own group: inside a container the root is the own one, outside it lies deeper."""
    old = root / "memory"
    yield root / "memory.max"
    yield old / "memory.limit_in_bytes"
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        folder, name = (old, "memory.limit_in_bytes") if controllers else (root, "memory.max")
        for part in (part for part in path.split("/") if part not in ("", "..")):
            folder /= part
            yield folder / name


def free_memory() -> int | None:
    """Bytes that can be had without swapping; None where the platform does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def installed_memory() -> int | None:
    """Bytes of the machine or, if that is less, of the control group; None where the platform does not say."""
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return cgroup_limit()
    limit = cgroup_limit()
    return machine if limit is None else min(machine, limit)


def budget(wanted: int | None, scheduler: int | None = None) -> int:
    """The least of what was asked for, the control group's and the scheduler's limit, and what is free, in bytes."""
    free = free_memory()
    limits = [wanted, cgroup_limit(), scheduler, int(free * _FREE_SHARE) if free is not None else None]
    known = [n for n in limits if n is not None]
    return min(known) if known else 4 * 2**30


@dataclass(frozen=True)
class Projection:
    """Peak memory of a plan, bytes.

    Attributes:
        base: interpreter and libraries.
        weights: the network.
        reading: blocks read ahead, with their halo.
        tiles: tiles of one batch and what the network makes of them; on the device if it has its own memory.
        writing: finished blocks on their way to the disk.
        on_device: True if `weights` and `tiles` lie in a device's own memory.
    """

    base: int
    weights: int
    reading: int
    tiles: int
    writing: int
    on_device: bool = False

    @property
    def host(self) -> int:
        """Peak of the process, bytes."""
        return self.base + self.reading + self.writing + (0 if self.on_device else self.weights + self.tiles)

    @property
    def device(self) -> int:
        """Peak on the device, bytes; 0 on a CPU."""
        return self.weights + self.tiles if self.on_device else 0


def tile_bytes(spec: NetworkSpec, core: Ints, itemsize: int) -> int:
    """Peak bytes of the forward pass of one tile of this core (network axes only)."""
    return spec.peak_features(core) * itemsize


def input_bytes(colour: str, num_channels: int, itemsize: int) -> int:
    """Bytes a pixel that reading takes: a third of what three blocks hold, one read, one waiting, one being cut.

    Args:
        colour: see `ImagePlan`.
        num_channels: that are read.
        itemsize: bytes of a number of the source.
    """
    stored = max(1, itemsize)
    if colour != "luminance":
        return num_channels * stored
    # of the one being read its three colours, one of them and the sum as float32; of the others the sum
    return -(-(3 * stored + 16) // 3)


def project(
    plan: TilePlan,
    spec: NetworkSpec,
    *,
    batch: int,
    precision_bytes: int,
    input_bytes: int,
    output_bytes: int,
    num_weights: int,
    on_device: bool,
) -> Projection:
    """Peak memory of running a plan.

    Args:
        plan: of one picture.
        spec: of the network.
        batch: tiles at once.
        precision_bytes: per number in the network.
        input_bytes: per pixel of the source, channels counted.
        output_bytes: per pixel of the output, channels counted.
        num_weights: of the network.
        on_device: True for CUDA.
    """
    block = plan.block(0)
    first_axis = len(plan.shape) - spec.dims
    tiles = batch * tile_bytes(spec, plan.core[first_axis:], precision_bytes)
    # One block being read, one waiting, one being cut; mirrored or moved arrays are copies.
    reading = 3 * block.read.num_pixels * input_bytes + prod(plan.tile_shape) * batch * 4 * spec.in_channels
    # One block being filled, one waiting, one being compressed (zarr holds it twice).
    writing = 4 * block.box.num_pixels * output_bytes
    return Projection(BASE_BYTES, num_weights * precision_bytes, reading, tiles, writing, on_device)


def refuse_over_budget(projection: Projection, budget_bytes: int, least: str) -> None:
    """Says plainly that a plan cannot fit.

    Raises:
        ResourceError: if the projected peak of the process is over the budget.
    """
    if projection.host > budget_bytes:
        raise ResourceError(
            f"the smallest plan ({least}) needs {format_size(projection.host)} of memory and the budget is "
            f"{format_size(budget_bytes)}",
            f"at least {format_size(projection.host)}",
            "give more with --memory, or free some",
        )
