"""At what scale the network is shown a picture of objects, so that they have the size that it has learnt.

    wants_scale(recipe, scale) -> True if pictures are to be looked at first
    ScaleFinder(task, network, compute, device, budget_bytes, wishes)(read, info) -> factor
    middle_plane(source) -> (read, info) of the plane that stands for a volume
    volume_hint(factor, diameter_px) -> what the user of a volume should know, or ""

See `unetctl.geometry.object_size`. Looking costs a few passes over the middle of a picture; `--scale` saves them.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from unetctl.errors import Stopped
from unetctl.geometry.box import Box
from unetctl.geometry.object_size import fitting_scale, median_diameter
from unetctl.jobs.tasks import ResolvedTask
from unetctl.networks.network import Network
from unetctl.objects.rule import LabelRule, label_array
from unetctl.recipe.schema import Recipe
from unetctl.runtime.device import Compute
from unetctl.runtime.engine import Engine
from unetctl.runtime.loop import DoneBlock, PipelinedLoop, output_box
from unetctl.runtime.planning import PlanWishes, make_plan
from unetctl.runtime.reading import BlockReader, StatisticsStore, has_equal_channels
from unetctl.sources.base import ImageInfo, Source
from unetctl.sources.memory import MemorySource
from unetctl.sources.scaled import resampled, scaled_size

Pixels = npt.NDArray[Any]

#: Volumes come out at the size at which they were seen, so nobody decides for the user; he is told from here on.
_WORTH_TELLING = 1.3
#: Side of what is looked at, as the network sees it: hundreds of objects, a second.
_LOOK_PX = 1024


def wants_scale(recipe: Recipe, scale: float | None) -> bool:
    """True if the scale follows from what is in a picture: the recipe says a size of objects, the user no factor."""
    return recipe.objects.diameter_px is not None and scale is None


class ScaleFinder:
    """Looks at pictures of objects.

    Args:
        task, network: of a recipe with `objects.diameter_px`.
        compute: arithmetic.
        device: of its kind.
        budget_bytes: for the whole process.
        wishes: of the user; cores, batch, channels and what becomes of pixels that are not finite are as he says.
        should_stop: asked between tiles.
    """

    def __init__(
        self,
        task: ResolvedTask,
        network: Network,
        compute: Compute,
        device: torch.device,
        budget_bytes: int,
        wishes: PlanWishes,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._task, self._network, self._compute, self._device = task, network, compute, device
        self._budget_bytes, self._should_stop = budget_bytes, should_stop
        self._wishes = replace(wishes, keep="probability", threshold=None)
        self._rule = replace(LabelRule.of(task.recipe.objects), join_planes=False)

    def __call__(self, read: Callable[[Box], Pixels], info: ImageInfo) -> float:
        """The scale for a picture.

        Args:
            read: boxes of it.
            info: of it: (y, x) or (c, y, x).

        Raises:
            Stopped: if asked to stop.
            InputError: if it does not fit the network.
        """
        wanted = self._task.recipe.objects.diameter_px
        assert wanted is not None

        def diameter_at(scale: float) -> float | None:
            pixels = read(_middle(info, round(_LOOK_PX / scale)))
            size = scaled_size(pixels.shape, scale)
            if size != pixels.shape[-2:]:
                pixels = resampled(pixels, size)
            source = MemorySource(pixels, info.axes, is_rgb=info.is_rgb)
            diameter = median_diameter(label_array(self._answer(source), self._rule))
            return None if diameter is None else diameter / scale

        return fitting_scale(diameter_at, wanted)

    @cached_property
    def _engine(self) -> Engine:
        batch = self._wishes.batch or 1
        output = self._task.recipe.output
        return Engine(
            self._network, self._compute, self._device, batch=batch, keep="probability",
            activation=output.resolved_activation, threshold=output.threshold,
        )  # fmt: skip

    def _answer(self, source: Source) -> Pixels:
        """(3, y, x) probabilities as they are stored."""
        recipe, num_weights = self._task.recipe, sum(p.numel() for p in self._network.parameters())
        is_grey = has_equal_channels(source, 0)
        plan = make_plan(
            source.info, {}, recipe, self._task.weights_sha256, num_weights, self._compute, self._budget_bytes,
            replace(self._wishes, batch=self._wishes.batch or 1), {}, frozenset({0}) if is_grey else frozenset(),
        ).plan  # fmt: skip
        answer = np.empty(plan.images[0].output.shape, plan.images[0].output.dtype)

        def write(block: DoneBlock) -> None:
            answer[output_box(block.image, block.block.box).slices()] = block.pixels

        loop = PipelinedLoop(
            plan,
            BlockReader(source, plan, StatisticsStore(None, "pages", plan)),
            self._engine,
            write,
            self._should_stop,
        )
        if not loop.run(range(plan.num_blocks)):
            raise Stopped("stopped while the scale was looked for", "", "run the same command again")
        return answer


def middle_plane(source: Source, i_image: int = 0) -> tuple[Callable[[Box], Pixels], ImageInfo]:
    """What reads boxes of the plane (y, x) or (c, y, x) in the middle of a picture, and what is told of that plane."""
    info = source.info.images[i_image]
    fixed = {k: n // 2 for k, (letter, n) in enumerate(zip(info.axes, info.shape, strict=True)) if letter not in "cyx"}
    kept = [k for k in range(len(info.axes)) if k not in fixed]

    def read(box: Box) -> Pixels:
        ends = dict(zip(kept, list(box), strict=True)) | {k: (i, i + 1) for k, i in fixed.items()}
        bounds = [ends[k] for k in range(len(info.axes))]
        pixels = np.asarray(source.read(i_image, Box(tuple(a for a, _ in bounds), tuple(b for _, b in bounds))))
        return pixels.reshape(box.shape)

    shape, axes = tuple(info.shape[k] for k in kept), "".join(info.axes[k] for k in kept)
    return read, replace(info, shape=shape, axes=axes, spacing_um=())


def volume_hint(factor: float, diameter_px: float) -> str:
    """A sentence where objects have another size than the network has learnt; "" where they have about that."""
    if 1 / _WORTH_TELLING < factor < _WORTH_TELLING:
        return ""
    return (
        f"objects in the middle plane look {diameter_px / factor:.2g} px wide, and the network has learnt them "
        f"{diameter_px:g} px wide: --scale {factor:.2g} is likely to find more of them (volumes come out at that scale)"
    )


def _middle(info: ImageInfo, most: int) -> Box:
    """The middle of a picture, at most so many pixels a side, all channels."""
    start, stop = [0] * len(info.shape), list(info.shape)
    for axis in (-2, -1):
        size = min(info.shape[axis], max(1, most))
        start[axis] = (info.shape[axis] - size) // 2
        stop[axis] = start[axis] + size
    return Box(tuple(start), tuple(stop))
