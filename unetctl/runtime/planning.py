"""Decides: from an input, a recipe and a budget to a plan. No pixel is read here."""

from dataclasses import dataclass
from math import prod

import numpy as np

from unetctl.errors import InputError, ResourceError, UsageError
from unetctl.geometry.box import Ints
from unetctl.geometry.plan import TilePlan, fitting_core
from unetctl.networks.spec import NetworkSpec
from unetctl.recipe.schema import Recipe
from unetctl.runtime.compute import Compute
from unetctl.runtime.keep import Keep, output_channels, output_dtype, refuse_unfit_keep
from unetctl.runtime.memory import Projection, format_size, input_bytes, project, refuse_over_budget
from unetctl.runtime.run_plan import ImagePlan, RunPlan, plan_axes
from unetctl.sinks.base import OutputImage
from unetctl.sources.base import ImageInfo, SourceInfo

#: Largest core per side that is worth trying, by device and number of axes: on a CPU the features must stay near the
#: caches (`unetctl benchmark speed --core N` measures it), on a GPU a tile should fill the machine.
MAX_CORE = {("cpu", 2): 768, ("cpu", 3): 96, ("cuda", 2): 2048, ("cuda", 3): 160}
#: Pixels that a block aims at; planes are gathered, or cores of a plane, until it holds about so many.
_BLOCK_PIXELS = 2**22
#: At least so many blocks where the volume allows, so that there is something to resume, to share out and to look ahead.
_LEAST_BLOCKS = 16
#: Core pixels that a batch aims at, per device: small tiles are gathered.
_BATCH_PIXELS = {"cpu": 2**18, "cuda": 2**24}
_MAX_BATCH = 64
#: Largest zarr chunk per side.
_MAX_CHUNK = 1024


@dataclass(frozen=True)
class PlanWishes:
    """What the user asked for; None leaves it to the planner.

    Attributes:
        core: size per side of a core, pixels.
        block: size per side of a block, pixels.
        batch: tiles at once.
        keep: see `unetctl.runtime.keep`.
        threshold: of masks.
        channels: indices of the input's channels, in the network's order; empty: each channel by itself, for networks that
            take one.
        nonfinite: "median" or "refuse".
    """

    core: int | None = None
    block: int | None = None
    batch: int | None = None
    keep: Keep | None = None
    threshold: float | None = None
    channels: tuple[int, ...] | None = None
    nonfinite: str = "median"


@dataclass(frozen=True)
class Planned:
    """A plan with what it will cost, and what the user should know.

    Attributes:
        plan: the decision.
        projection: peak memory, the worst picture's.
        notes: decisions worth a sentence.
        warnings: what to look at.
    """

    plan: RunPlan
    projection: Projection
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def make_plan(
    source: SourceInfo,
    source_options: dict[str, object],
    recipe: Recipe,
    weights_sha256: str,
    num_weights: int,
    compute: Compute,
    budget_bytes: int,
    wishes: PlanWishes,
    statistics: dict[str, object] | None = None,
    grey_images: frozenset[int] = frozenset(),
) -> Planned:
    """The plan of a run.

    Args:
        source: what the input is.
        source_options: how it is opened ("path", "axes", ...); recorded.
        recipe: with the network's spec.
        weights_sha256: of the weights file.
        num_weights: of the network, for the projection.
        compute: device kind, precision, threads.
        budget_bytes: for the whole process.
        wishes: of the user.
        statistics: of another run, to be reused.
        grey_images: colour pictures whose channels are all the same: one of them stands for all.

    Raises:
        InputError: if a picture does not fit the network.
        UsageError: if a wish cannot be met.
        ResourceError: if not even the smallest plan fits into the budget.
    """
    spec = recipe.network_spec
    keep = wishes.keep or recipe.output.keep
    refuse_unfit_keep(keep, recipe.output.resolved_activation, recipe.output.num_channels, spec.image_channels)
    if keep == "labels" and not recipe.answers_objects:
        raise UsageError(
            f"--keep labels for {recipe.task.name}", "a task whose labels are objects", "--keep mask or classes"
        )
    threshold = recipe.output.threshold if wishes.threshold is None else wishes.threshold
    if not 0 <= threshold <= 1:
        raise UsageError(f"--threshold {threshold}", "a probability from 0 to 1")
    if wishes.batch is not None and wishes.batch < 1:
        raise UsageError(f"--batch {wishes.batch}", "at least 1")
    notes: list[str] = []
    warnings: list[str] = []
    if not spec.is_exact:
        warnings.append(f"the result depends on the tiling: {spec.inexact_because}")
    cuts: list[tuple[_Cut, tuple[int, ...], str]] = []
    for i_image, info in enumerate(source.images):
        notes += [f"{info.name or source.uri}: {note}" for note in info.notes]
        wanted = wishes.channels
        if wanted is None and i_image in grey_images and recipe.input.channels == 1:
            wanted = (0,)
            notes.append(f"{info.name or source.uri}: red, green and blue are the same, one of them is taken")
        channels, colour, note = choose_channels(info, recipe, wanted)
        notes += [note] if note else []
        warnings += _scale_warning(info, recipe)
        cut = _Cut(info, spec, recipe, keep, wishes, compute, budget_bytes, num_weights, max(1, len(channels)), colour)
        cuts.append((cut, channels, colour))
    # One batch for all: the largest picture's, where most of the work is.
    largest = max((cut for cut, _, _ in cuts), key=lambda cut: prod(cut.info.shape))
    _, batch, _ = largest.fitting(wishes.batch)
    images: list[ImagePlan] = []
    for i_image, (cut, channels, colour) in enumerate(cuts):
        tiles, _, _ = cut.fitting(batch)
        output = _output(cut.info, tiles, recipe, keep, len(cuts), channels)
        images.append(ImagePlan(i_image, tiles, output, channels, colour))
    plan = RunPlan(
        recipe.task.name,
        dict(source_options),
        dict(source.identity),
        weights_sha256,
        recipe.to_dict(),
        tuple(images),
        compute,
        batch,
        keep,
        threshold,
        wishes.nonfinite,
        dict(statistics or {}),
    )
    projection = project_run(plan, source, num_weights)
    return Planned(plan, projection, tuple(dict.fromkeys(notes)), tuple(dict.fromkeys(warnings)))


def project_run(plan: RunPlan, source: SourceInfo, num_weights: int) -> Projection:
    """Peak memory of running a plan, whoever made it: the worst picture's.

    Args:
        plan: of the run.
        source: what its input is.
        num_weights: of its network.
    """
    recipe, wishes, budget_bytes = plan.typed_recipe(), PlanWishes(), 0
    spec, projections = recipe.network_spec, []
    for image in plan.images:
        info, num, colour = source.images[image.i_image], max(1, len(image.channels)), image.colour
        cut = _Cut(info, spec, recipe, plan.keep, wishes, plan.compute, budget_bytes, num_weights, num, colour)
        projections.append(cut.projected(image.tiles, plan.batch))
    return max(projections, key=lambda projection: projection.host)


def choose_channels(
    info: ImageInfo, recipe: Recipe, wanted: tuple[int, ...] | None
) -> tuple[tuple[int, ...], str, str]:
    """Which channels the network sees, how colour is treated ("as-is", "luminance"), and a sentence about it.

    Raises:
        InputError: if the picture's channels do not fit the network and nothing was chosen; lists what there is.
        UsageError: if a chosen channel does not exist.
    """
    have, need = info.num_channels, recipe.input.channels
    where = info.name or "the input"
    listing = ", ".join(f"{i} ({n})" for i, n in enumerate(info.channel_names)) or f"0 to {have - 1}"
    if wanted == ():
        if need != 1 or recipe.output.num_channels != 1:
            raise UsageError(
                f"--channel all for {recipe.task.name}, which takes {need} channels", "a task of one channel in and out"
            )
        return (), "as-is", ""
    if wanted is not None:
        if "c" not in info.axes:
            raise UsageError(f"--channel, but {where} has no channels", "", "leave it out")
        outside = [c for c in wanted if not 0 <= c < have]
        if outside:
            raise UsageError(f"--channel {outside[0]}, but {where} has {have} channels", listing)
        if len(wanted) != need:
            raise UsageError(f"{len(wanted)} channels chosen", f"{need}, as {recipe.task.name} was trained on")
        return wanted, "as-is", ""
    if "c" not in info.axes:
        if need != 1:
            raise InputError(f"{where} has one channel", f"{need}, as {recipe.task.name} was trained on")
        return (), "as-is", ""
    if have == need:
        return tuple(range(have)), "as-is", ""
    if info.is_rgb and need == 3 and have == 4:
        return (0, 1, 2), "as-is", f"{where}: the alpha channel is left out"
    if info.is_rgb and need == 1:
        if recipe.input.luminance and have >= 3:
            return (0, 1, 2), "luminance", f"{where}: colours are turned into brightness"
        if have == 2:
            return (0,), "as-is", f"{where}: the alpha channel is left out"
    raise InputError(
        f"{where} has {have} channels{' (colour)' if info.is_rgb else ''}",
        f"{need}, as {recipe.task.name} was trained on",
        f"choose with --channel: {listing}, or all"
        + (", or --set input.luminance=true" if info.is_rgb and need == 1 else ""),
    )


def _scale_warning(info: ImageInfo, recipe: Recipe) -> list[str]:
    trained = recipe.input.spacing_um
    if not trained or not info.spacing_um:
        return []
    found = []
    for axis, have, want in zip("xyz", reversed(info.spacing_um), reversed(trained), strict=False):
        if have and want and axis != "z" and not 0.5 <= have / want <= 2:
            found.append(
                f"{info.name or 'the input'} has {have * 1000:.4g} nm per pixel along {axis}, and {recipe.task.name} was "
                f"trained at {want * 1000:.4g} nm: expect poor results at another scale"
            )
    return found[:1]


def _output(info: ImageInfo, tiles: TilePlan, recipe: Recipe, keep: Keep, num_images: int, seen: Ints) -> OutputImage:
    channels = output_channels(keep, recipe.output.num_channels, recipe.network_spec.image_channels)
    block, chunk = list(tiles.block_shape), list(_chunk(tiles))
    axes, shape = list(tiles.axes), list(tiles.shape)
    names: tuple[str, ...] = ()
    if "c" in tiles.axes:
        names = info.channel_names
    elif channels > 1:
        at = sum(1 for a in tiles.axes if a not in "zyx")
        axes.insert(at, "c")
        shape.insert(at, channels)
        block.insert(at, channels)
        chunk.insert(at, 1)
        seen_names = tuple(info.channel_names[c] for c in seen) if info.channel_names else ()
        names = seen_names if keep == "image" else recipe.output.classes
    return OutputImage(
        info.name if num_images > 1 else "",
        tuple(shape),
        "".join(axes),
        output_dtype(keep, info.dtype),
        tuple(block),
        tuple(chunk),
        info.spacing_um,
        names,
        "image" if keep in ("probability", "labels", "logits", "image") else "labels",
        info.dpi,
    )


def _chunk(tiles: TilePlan) -> Ints:
    """Divides the block: the core, or an even share of it where the core is large; single planes."""
    chunk = []
    for axis, core in zip(tiles.axes, tiles.core, strict=True):
        if axis in "yx":
            share = next(n for n in range(1, core + 1) if core % n == 0 and core // n <= _MAX_CHUNK)
            chunk.append(core // share)
        else:
            chunk.append(1 if core == 1 else core)
    return tuple(chunk)


@dataclass(frozen=True)
class _Cut:
    """Finds the largest cores, then blocks, that the budget allows."""

    info: ImageInfo
    spec: NetworkSpec
    recipe: Recipe
    keep: Keep
    wishes: PlanWishes
    compute: Compute
    budget_bytes: int
    num_weights: int
    num_channels: int
    colour: str

    def fitting(self, batch: int | None) -> tuple[TilePlan, int, Projection]:
        """The plan with the fewest tiles that fits, its batch, its projection."""
        stride = self.spec.stride[-1]
        largest = self.wishes.core or MAX_CORE[self.compute.device, self.spec.dims]
        if self.wishes.core is not None and self.wishes.core % stride:
            raise UsageError(
                f"tile core {self.wishes.core} is not a multiple of the network stride {stride}",
                "",
                f"use {max(stride, round(self.wishes.core / stride) * stride)}",
            )
        block_pixels = _BLOCK_PIXELS
        is_free = batch is None
        while True:
            tiles = self._tiles(largest, block_pixels)
            chosen = batch or self._batch(tiles)
            projection = self.projected(tiles, chosen)
            if projection.host <= self.budget_bytes:
                return tiles, chosen, projection
            if (
                self.wishes.block is None
                and prod(tiles.cores_per_block) > 1
                and projection.reading + projection.writing > projection.tiles
            ):
                block_pixels //= 2
            elif is_free and chosen > 1:
                batch = chosen // 2
            elif self.wishes.core is None and largest > stride:
                # Not below a core whose halo costs more than itself, unless nothing else fits.
                largest = max(stride, largest * 3 // 4 // stride * stride)
            elif self.wishes.block is None and prod(tiles.cores_per_block) > 1:
                block_pixels //= 2
            else:
                refuse_over_budget(projection, self.budget_bytes, f"core {'x'.join(map(str, tiles.core))}")
                raise ResourceError(f"no plan fits into {format_size(self.budget_bytes)}")

    def _tiles(self, largest: int, block_pixels: int) -> TilePlan:
        axes, shape = plan_axes(self.info.axes, self.info.shape, channelwise=self.wishes.channels == ())
        dims, context = self.spec.dims, self.recipe.input.context_slices // 2
        if len([a for a in axes if a in "zyx"]) < dims or (context and "z" not in axes):
            raise InputError(
                f"{self.info.name or 'the input'} has the axes {axes}",
                "a stack of planes (zyx)",
                "name its axes with --axes",
            )
        free = len(axes) - dims
        if self.spec.border == "native" and self.spec.padding == "reflect":
            small = [n for n, s in zip(shape[free:], self.spec.stride, strict=True) if n <= s]
            if small:
                raise InputError(
                    f"{self.info.name or 'the input'} is {small[0]} pixels wide along one axis",
                    f"more than {self.spec.stride[0]}, or the network cannot mirror inside itself",
                    "enlarge it, or leave it out",
                )
        stride = (1,) * free + self.spec.stride
        halo = [0] * free + list(self.spec.halo)
        if context:
            halo[free - 1] = context
        core = [1] * free + [fitting_core(n, s, largest) for n, s in zip(shape[free:], stride[free:], strict=True)]
        counts = self._cores_per_block(axes, shape, tuple(core), free, block_pixels)
        return TilePlan(axes, shape, stride, tuple(core), tuple(halo), counts, self.spec.border)

    def _cores_per_block(self, axes: str, shape: Ints, core: Ints, free: int, block_pixels: int) -> Ints:
        grid = [-(-n // c) for n, c in zip(shape, core, strict=True)]
        counts = [1] * len(shape)
        if self.wishes.block is not None:
            for axis in range(free, len(shape)):
                counts[axis] = min(grid[axis], max(1, self.wishes.block // core[axis]))
        else:
            # Square patches of cores first, then planes, until the block is large enough.
            for _ in range(64):
                room = [a for a in range(free, len(shape)) if counts[a] < grid[a]]
                if not room:
                    break
                axis = min(room, key=lambda a: counts[a] * core[a])
                counts[axis] += 1
                if prod(counts) * prod(core) > block_pixels:
                    counts[axis] -= 1
                    break
        if free:
            plane = prod(n * c for n, c in zip(counts[free:], core[free:], strict=True))
            total = prod(-(-g // n) for g, n in zip(grid, counts, strict=True))
            # Only the innermost free axis is gathered, and not across volumes of a time series.
            is_volume_axis = axes[free - 1] == "z"
            if is_volume_axis:
                wanted = max(1, min(block_pixels // plane, -(-total // _LEAST_BLOCKS)))
                counts[free - 1] = min(grid[free - 1], wanted)
        return tuple(counts)

    def _batch(self, tiles: TilePlan) -> int:
        per_tile = prod(tiles.core)
        return int(min(_MAX_BATCH, max(1, _BATCH_PIXELS[self.compute.device] // per_tile), max(1, tiles.num_tiles)))

    def projected(self, tiles: TilePlan, batch: int) -> Projection:
        """Peak memory of a cut."""
        numbers = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2}[self.compute.precision]
        return project(
            tiles,
            self.spec,
            batch=batch,
            precision_bytes=numbers,
            input_bytes=input_bytes(self.colour, self.num_channels, np.dtype(self.info.dtype).itemsize),
            output_bytes=output_channels(self.keep, self.recipe.output.num_channels, self.spec.image_channels)
            * np.dtype(output_dtype(self.keep, self.info.dtype)).itemsize,
            num_weights=self.num_weights,
            on_device=self.compute.device == "cuda",
        )
