"""At what scale the network is shown a picture of objects, so that they have the size that it has learnt.

    wants_scale(recipe, scale) -> True if pictures are to be looked at first
    ScaleFinder(task, network, compute, device, budget_bytes, wishes)(read, info) -> factor
    middle_plane(source) -> (read, info) of the plane that stands for a volume
    volume_hint(factor, diameter_px) -> what the user of a volume should know, or ""

See `unetctl.geometry.object_size`. Looking costs a few passes over a part of a picture; `--scale` saves them.
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
from unetctl.runtime.compute import Compute
from unetctl.runtime.engine import Engine
from unetctl.runtime.loop import DoneBlock, PipelinedLoop, output_box
from unetctl.runtime.planning import PlanWishes, make_plan
from unetctl.runtime.reading import BlockReader, StatisticsStore, has_equal_channels
from unetctl.runtime.run_plan import RunPlan
from unetctl.sources.base import ImageInfo, Source, SourceInfo
from unetctl.sources.memory import MemorySource
from unetctl.sources.scaled import ScaledSource

Pixels = npt.NDArray[Any]

#: Volumes come out at the size at which they were seen, so nobody decides for the user; he is told from here on.
_WORTH_TELLING = 1.3
#: Side of what is looked at, as the network sees it: hundreds of objects, a second.
_LOOK_PX = 1024
#: Nothing is told by less.
_LEAST_LOOK_PX = 32
#: Where on a page that is larger there may be something to look at (y, x): in the middle, and if more is to be seen there, around it.
_PLACES = ((0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))


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
        plane = _Plane(read, info)
        statistics = self._statistics(plane)
        place = _busiest(read, info)

        def diameter_at(scale: float) -> float | None:
            seen: Source = plane if scale == 1 else ScaledSource(plane, scale)
            image = seen.info.images[0]
            if min(image.shape[-2:]) < _LEAST_LOOK_PX and scale != 1:
                return None
            pixels = np.asarray(seen.read(0, _window(image, place)))
            source = MemorySource(pixels, info.axes, is_rgb=info.is_rgb)
            diameter = median_diameter(label_array(self._answer(source, statistics), self._rule))
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

    def _plan(self, source: Source, statistics: dict[str, object]) -> RunPlan:
        recipe, num_weights = self._task.recipe, sum(p.numel() for p in self._network.parameters())
        is_grey = has_equal_channels(source, 0)
        return make_plan(
            source.info, {}, recipe, self._task.weights_sha256, num_weights, self._compute, self._budget_bytes,
            replace(self._wishes, batch=self._wishes.batch or 1), statistics, frozenset({0}) if is_grey else frozenset(),
        ).plan  # fmt: skip

    def _statistics(self, plane: Source) -> dict[str, object]:
        """Of the whole picture, by which it will be normalised: an empty part by itself would be all noise."""
        plan = self._plan(plane, {})
        store = StatisticsStore(None, "look", plan, self._should_stop)
        if store.of(plane, plan.images[0], 0, self._task.recipe.normalise) is None:
            raise _stopped()
        return {key: value.to_dict() for key, value in store.known.items()}

    def _answer(self, source: Source, statistics: dict[str, object]) -> Pixels:
        """(3, y, x) probabilities as they are stored."""
        plan = self._plan(source, statistics)
        answer = np.empty(plan.images[0].output.shape, plan.images[0].output.dtype)

        def write(block: DoneBlock) -> None:
            answer[output_box(block.image, block.block.box).slices()] = block.pixels

        loop = PipelinedLoop(
            plan, BlockReader(source, plan, StatisticsStore(None, "look", plan)), self._engine, write, self._should_stop
        )
        if not loop.run(range(plan.num_blocks)):
            raise _stopped()
        return answer


class _Plane:
    """One plane as a source of its own."""

    def __init__(self, read: Callable[[Box], Pixels], info: ImageInfo) -> None:
        self._read = read
        self.info = SourceInfo("page", "pages", (replace(info, spacing_um=(), dpi=None, notes=()),))

    def read(self, i_image: int, box: Box) -> Pixels:
        """See `Source.read`."""
        return self._read(box)

    def close(self) -> None:
        """The plane belongs to somebody else."""


def _stopped() -> Stopped:
    return Stopped("stopped while the scale was looked for", "", "run the same command again")


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


def _busiest(read: Callable[[Box], Pixels], info: ImageInfo) -> tuple[float, float]:
    """Where on a page most is to be seen, of some places (y, x), 0..1; the middle of one that is looked at whole."""
    if max(info.shape[-2:]) <= _LOOK_PX:
        return _PLACES[0]
    contrasts = [float(np.nan_to_num(np.nanstd(read(_window(info, place)).astype(np.float32)))) for place in _PLACES]
    return _PLACES[int(np.argmax(contrasts))]


def _window(info: ImageInfo, place: tuple[float, float]) -> Box:
    """As much of a picture about a place as is looked at, all channels."""
    start, stop = [0] * len(info.shape), list(info.shape)
    for axis, at in zip((-2, -1), place, strict=True):
        size = min(info.shape[axis], _LOOK_PX)
        start[axis] = min(max(0, round(at * info.shape[axis]) - size // 2), info.shape[axis] - size)
        stop[axis] = start[axis] + size
    return Box(tuple(start), tuple(stop))
