"""`predict --verify-seams`: blocks computed again under other tilings. The result must not know where tiles met.

the plan's cores      |-------|-------|-------|
shifted tilings       |----|----|----|----|----|     the same pixels, cut elsewhere on the stride's grid
                      |--|--|--|--|--|--|--|--|--|
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from unetctl.errors import InputError, Stopped
from unetctl.geometry.box import Box, Ints
from unetctl.geometry.plan import TilePlan
from unetctl.jobs.predict import Prediction
from unetctl.networks.network import Network
from unetctl.runtime.device import apply_compute
from unetctl.runtime.engine import Engine
from unetctl.runtime.events import Listener, StageEnded, StageProgress, StageStarted, nobody
from unetctl.runtime.keep import Keep, output_channels
from unetctl.runtime.loop import network_dims, output_box, run_serial, to_output_axes
from unetctl.runtime.numerics import finish
from unetctl.runtime.reading import BlockReader, StatisticsStore
from unetctl.runtime.run_folder import RunFolder
from unetctl.runtime.run_plan import ImagePlan, RunPlan
from unetctl.sinks.units import outer_axes
from unetctl.sources.open import open_source

Pixels = npt.NDArray[Any]

#: Shifted cores as shares of the plan's: their edges fall elsewhere, and no tile takes more memory than the plan's.
_SHARES = (0.65, 0.4)
#: Logits that differ by no more are equal but for the rounding of float32.
ROUNDING = 1e-4


@dataclass(frozen=True)
class SeamReport:
    """How much the tiling shows in the result.

    Attributes:
        blocks: those that were looked at, indices in the plan.
        num_pixels: kept pixels in them.
        cores: the tilings, the plan's own first: one "YxX" each (of the first picture that was looked at).
        precision: of the network.
        max_logit_difference: largest difference of a logit between two of the tilings; of a kept image's grey values instead.
        max_logit: largest absolute logit, for scale.
        keep: what is stored.
        max_output_difference: largest difference between what is stored and any of the tilings' results, in its own
            units (steps of 255 for probabilities); None if nothing stored could be read.
        num_output_differing: stored values that differ from the result of at least one tiling.
        compared_with: the path that was read; empty if none.
        inexact_because: why this network depends on the tiling; empty if it does not.
    """

    blocks: tuple[int, ...]
    num_pixels: int
    cores: tuple[str, ...]
    precision: str
    max_logit_difference: float
    max_logit: float
    keep: str
    max_output_difference: float | None
    num_output_differing: int
    compared_with: str
    inexact_because: str = ""

    @property
    def is_seamless(self) -> bool:
        """True if nothing but rounding tells the tilings apart."""
        exact = ROUNDING * (max(1.0, self.max_logit) if self.keep == "image" else 1.0)
        limit = exact if self.precision in ("fp32", "fp64") else 2**-5 * max(1.0, self.max_logit)
        return not self.inexact_because and self.max_logit_difference <= limit and self._is_stored_alike

    @property
    def _is_stored_alike(self) -> bool:
        if self.max_output_difference is None:
            return True
        if self.keep in ("probability", "logits", "image"):
            return self.max_output_difference <= (ROUNDING if self.keep == "logits" else 1)
        return self.num_output_differing <= max(1, self.num_pixels // 10_000)

    def lines(self) -> list[str]:
        """For people."""
        lines = [
            f"seams: {len(self.blocks)} blocks ({self.num_pixels:,} pixels) with cores {', '.join(self.cores)}: "
            f"{'grey values' if self.keep == 'image' else 'logits'} differ by at most {self.max_logit_difference:.2g} "
            f"(the largest is {self.max_logit:.3g}; {self.precision})"
        ]
        if self.max_output_difference is None:
            lines.append("seams: nothing stored was left to compare with")
        elif self.keep in ("mask", "classes"):
            lines.append(f"seams: {self.num_output_differing} values of {self.compared_with} are a tiling's otherwise")
        else:
            unit = " of 255" if self.keep == "probability" else ""
            lines.append(
                f"seams: {self.compared_with} differs by at most {self.max_output_difference:.2g}{unit}, in "
                f"{self.num_output_differing} values"
            )
        if self.inexact_because:
            lines.append(f"seams: this network is inexact by nature, differences are expected: {self.inexact_because}")
        elif not self.is_seamless:
            lines.append("seams: that is more than rounding: please report it")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "is_seamless": self.is_seamless}


def verify_seams(
    prediction: Prediction,
    network: Network,
    *,
    num_blocks: int = 4,
    emit: Listener = nobody,
    should_stop: Callable[[], bool] = lambda: False,
) -> SeamReport:
    """Computes a sample of blocks under the plan's tiling and two others, and compares all these and the output.

    The sample is the first block, the last, and others evenly spaced between them. It costs about three times what
    these blocks cost in the run.

    Args:
        prediction: a finished one; its source is still open.
        network: of its task.
        num_blocks: size of the sample.
        emit: hears how far it is.
        should_stop: asked between tiles.

    Raises:
        InputError: if pixels cannot be decoded.
        Stopped: if asked to stop.
    """
    plan = prediction.plan
    device = apply_compute(plan.compute, prediction.options.device)
    folder = prediction.folder.path if prediction.folder.path.is_dir() else None
    statistics = StatisticsStore(folder, "verify", plan, should_stop)
    # Tile by tile: filling the plan's batches with nothing would cost as much as tiles do.
    engine = Engine.of_plan(network, plan, device, batch=1, keep=_raw(plan.keep), emit=emit)
    part = prediction.options.part
    own = plan.part(part[0] - 1, part[1]) if part else range(plan.num_blocks)  # of a part: what it has computed itself
    chosen = tuple(own[i] for i in sample(len(own), num_blocks)) if own else ()
    begun = time.monotonic()
    emit(StageStarted("verify", len(chosen), 0, "block"))
    difference = largest = 0.0
    stored_difference: float | None = None
    num_pixels = num_differing = 0
    cores: list[str] = []
    with _Stored(prediction) as stored:
        for i_done, index in enumerate(chosen):
            image, block = plan.block(index)
            tilings = [image.tiles, *shifted(image.tiles)]
            cores = cores or ["x".join(str(c) for c in t.core[-network_dims(plan) :]) for t in tilings]
            low = high = None
            kept: list[Pixels] = []
            for tiles in tilings:
                logits = _logits(plan, image, tiles, block.box, prediction, statistics, engine, should_stop)
                low = logits if low is None else np.minimum(low, logits)
                high = logits if high is None else np.maximum(high, logits)
                kept.append(_finished(plan, image, logits))
            assert low is not None
            assert high is not None
            difference = max(difference, float((high - low).max()))
            largest = max(largest, float(np.abs(high).max()), float(np.abs(low).max()))
            num_pixels += block.box.num_pixels
            there = stored.read(image, block.box)
            if there is not None:
                apart = np.max([np.abs(there.astype(np.float64) - k) for k in kept], axis=0)
                stored_difference = max(stored_difference or 0.0, float(apart.max()))
                num_differing += int(np.count_nonzero(apart))
            emit(StageProgress("verify", i_done + 1))
        compared_with = stored.name if stored_difference is not None else ""
    emit(StageEnded("verify", time.monotonic() - begun))
    return SeamReport(
        chosen,
        num_pixels,
        tuple(cores),
        plan.compute.precision,
        difference,
        largest,
        "probability" if plan.keep == "labels" else plan.keep,
        stored_difference,
        num_differing,
        compared_with,
        network.spec.inexact_because,
    )


def sample(total: int, wanted: int) -> Ints:
    """The first, the last and evenly spaced indices between them, ascending.

    >>> sample(10, 4), sample(2, 4), sample(7, 1)
    ((0, 3, 6, 9), (0, 1), (0,))
    """
    count = max(1, min(wanted, total))
    return tuple(sorted({round(i * (total - 1) / max(1, count - 1)) for i in range(count)}))


def shifted(tiles: TilePlan) -> list[TilePlan]:
    """The same volume cut elsewhere: cores of other sizes on the stride's grid, each a block of its own."""
    found: list[TilePlan] = []
    for i_share, share in enumerate(_SHARES):
        core = []
        for size, stride in zip(tiles.core, tiles.stride, strict=True):
            if stride == 1:
                core.append(size)
                continue
            smaller = max(1, int(size * share) // stride) * stride
            # A core of one stride cannot shrink: larger ones cut elsewhere too.
            core.append(smaller if smaller != size else (i_share + 2) * stride)
        candidate = replace(tiles, core=tuple(core), cores_per_block=(1,) * len(core))
        if candidate not in found:
            found.append(candidate)
    return found


def _raw(keep: Keep) -> Keep:
    """What is computed to be compared: logits, from which all else follows but an image."""
    return "image" if keep == "image" else "logits"


def _logits(
    plan: RunPlan,
    image: ImagePlan,
    tiles: TilePlan,
    box: Box,
    prediction: Prediction,
    statistics: StatisticsStore,
    engine: Engine,
    should_stop: Callable[[], bool],
) -> Pixels:
    """Logits (C, *box) of a region under one tiling, tile by tile; the image's grey values if the plan keeps that."""
    recipe = plan.typed_recipe()
    num_channels = output_channels(_raw(plan.keep), recipe.output.num_channels, recipe.network_spec.image_channels)
    one = replace(tiles, cores_per_block=(1,) * len(tiles.core))
    other = replace(image, tiles=one, output=_logit_output(image, num_channels))
    alone = replace(plan, images=(other,), keep=_raw(plan.keep))
    result = np.empty((num_channels, *box.shape), np.float32)
    reader = BlockReader(prediction.source, alone, statistics)
    for done in run_serial(alone, _until(should_stop, _touching(one, box)), reader, engine):
        common = done.block.box.intersection(box)
        pixels = done.pixels if num_channels == 1 else np.moveaxis(done.pixels, other.output.axes.index("c"), 0)
        inner = (slice(None), *common.relative_to(done.block.box).slices())
        place = (slice(None), *common.relative_to(box).slices())
        result[place] = (pixels[np.newaxis] if num_channels == 1 else pixels)[inner]
    if should_stop():
        raise Stopped("stopped while comparing tilings", "", "run the same command again")
    return result


def _until(should_stop: Callable[[], bool], indices: Iterator[int]) -> Iterator[int]:
    for index in indices:
        if should_stop():
            return
        yield index


def _touching(tiles: TilePlan, box: Box) -> Iterator[int]:
    """Indices of the blocks that hold pixels of `box`, in order."""
    ranges = [range(a // n, -(-b // n)) for (a, b), n in zip(box, tiles.block_shape, strict=True)]
    for place in product(*ranges):
        index = 0
        for p, n in zip(place, tiles.grid, strict=True):
            index = index * n + p
        yield index


def _logit_output(image: ImagePlan, num_channels: int) -> Any:
    """The picture's output as it were for logits: a channel axis if there are several classes."""
    output = image.output
    axes, shape = output.axes.replace("c", ""), image.tiles.shape
    if num_channels > 1:
        at = image.num_leading
        axes, shape = axes[:at] + "c" + axes[at:], (*shape[:at], num_channels, *shape[at:])
    return replace(output, axes=axes, shape=shape, dtype="float32")


def _finished(plan: RunPlan, image: ImagePlan, logits: Pixels) -> Pixels:
    """What the plan keeps of logits or of an image (C, *box), in the axes of the output picture."""
    if plan.keep == "image":
        dtype = np.dtype(image.output.dtype)
        if dtype.kind in "ui":
            logits = np.rint(logits).clip(np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)
        return to_output_axes(image, logits)
    activation = plan.typed_recipe().output.resolved_activation
    kept = finish(torch.from_numpy(logits)[np.newaxis], plan.keep, activation, plan.threshold)[0].numpy()
    return to_output_axes(image, kept)


class _Stored:
    """What the run has left: its store, or the exported file."""

    def __init__(self, prediction: Prediction) -> None:
        self._folder: RunFolder = prediction.folder
        self._sink = self._folder.sink() if self._folder.store_path.is_dir() else None
        self._source = None
        self.name = self._folder.output.name
        if self._sink is None and self._folder.output.exists() and not self._folder.is_staged:
            try:
                self._source = open_source(str(self._folder.output))
            except InputError:
                self._source = None

    def __enter__(self) -> "_Stored":
        return self

    def __exit__(self, *unused: object) -> None:
        if self._source is not None:
            self._source.close()

    def read(self, image: ImagePlan, box: Box) -> Pixels | None:
        """Stored pixels of a box of a picture's plan, in the axes of the output picture; None if there are none."""
        wanted = output_box(image, box)
        if self._sink is not None:
            return self._sink.read(image.i_image, 0, wanted)
        if self._source is None:
            return None
        found = np.empty(wanted.shape, image.output.dtype)
        outer = outer_axes(image.output)
        first = self._first_series(image.i_image)
        for index in product(*(range(*list(wanted)[axis]) for axis in outer)):
            i_series = first
            start, stop = list(wanted.start), list(wanted.stop)
            for axis, i in zip(outer, index, strict=True):
                i_series = first + (i_series - first) * image.output.shape[axis] + i
                start[axis], stop[axis] = i, i + 1
            part = self._series(image, i_series, Box(tuple(start), tuple(stop)), outer)
            if part is None:
                return None
            found[Box(tuple(start), tuple(stop)).relative_to(wanted).slices()] = part
        return found

    def _first_series(self, i_image: int) -> int:
        layout = self._folder.plan().layout
        return sum(prod(image.shape[axis] for axis in outer_axes(image)) for image in layout.images[:i_image])

    def _series(self, image: ImagePlan, i_series: int, box: Box, outer: Ints) -> Pixels | None:
        """One picture of the exported file; axes of size 1 may be missing there."""
        assert self._source is not None
        if i_series >= len(self._source.info.images):
            return None
        info = self._source.info.images[i_series]
        kept = [axis for axis in range(len(image.output.axes)) if axis not in outer]
        extent = dict(zip(image.output.axes, list(box), strict=True))
        sizes = {image.output.axes[axis]: image.output.shape[axis] for axis in kept}
        have = dict(zip(info.axes, info.shape, strict=True))
        if any(have.get(letter, 1) != size for letter, size in sizes.items()) or any(
            size != 1 for letter, size in have.items() if letter not in sizes
        ):
            return None
        where = [extent.get(letter, (0, 1)) for letter in info.axes]
        pixels = self._source.read(i_series, Box(tuple(a for a, _ in where), tuple(b for _, b in where)))
        return np.asarray(pixels).reshape(box.shape)
