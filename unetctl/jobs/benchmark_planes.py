"""Labelled planes as `predict` sees them: some planes of a file as a volume of their own, and what comes out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.errors import Stopped
from unetctl.geometry.box import Box, Ints
from unetctl.jobs.predict import Prediction, PredictOptions, run_prediction
from unetctl.jobs.tasks import ResolvedTask
from unetctl.networks.network import Network
from unetctl.runtime.device import resolve
from unetctl.runtime.events import Listener
from unetctl.runtime.keep import Keep
from unetctl.runtime.memory import budget
from unetctl.runtime.planning import PlanWishes, make_plan
from unetctl.runtime.run_folder import RunFolder
from unetctl.sources.base import ImageInfo, Source, SourceInfo
from unetctl.sources.coloured import coloured
from unetctl.sources.open import open_source
from unetctl.training.crops import Plane
from unetctl.training.splits import Selection

Pixels = npt.NDArray[Any]


class SelectedPlanes:
    """A source that shows the chosen planes of a pair's picture as a volume of its own, held as a context.

    Planes are numbered as in training: over all axes but c, y and x.

    Args:
        selection: the planes.
        num_channels: that the network takes; grey pictures are shown with three where it takes three.
    """

    def __init__(self, selection: Selection, num_channels: int = 1) -> None:
        self._inner: Source = coloured(open_source(str(selection.pair.image)), num_channels)
        info = self._inner.info.images[selection.pair.i_image]
        self._i_image, self._planes = selection.pair.i_image, selection.planes
        self._lead = [axis for axis, letter in enumerate(info.axes) if letter not in "cyx"]
        self._axes = info.axes
        axes = ""
        shape: Ints = ()
        if "c" in info.axes:
            axes, shape = "c", (info.num_channels,)
        if self._lead:
            axes, shape = axes + "z", (*shape, len(selection.planes))
        size = info.shape[info.axes.index("y")], info.shape[info.axes.index("x")]
        spacing = info.spacing_um
        if spacing and "z" not in info.axes and self._lead:
            spacing = (None, *spacing)
        elif spacing and "z" in info.axes and not self._lead:
            spacing = spacing[-2:]
        image = replace(info, name="", axes=f"{axes}yx", shape=(*shape, *size), spacing_um=spacing)
        self._lead_shape: Ints = tuple(info.shape[axis] for axis in self._lead)
        outer = self._inner.info
        identity = {**outer.identity, "planes": list(selection.planes)}
        self._info = SourceInfo(outer.uri, outer.format, (image,), identity)

    def __enter__(self) -> "SelectedPlanes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def info(self) -> SourceInfo:
        """See `Source.info`."""
        return self._info

    @property
    def image(self) -> ImageInfo:
        """The one picture."""
        return self._info.images[0]

    @property
    def is_volume(self) -> bool:
        """True if the planes follow each other in depth, not in time or as pages."""
        return [self._axes[axis] for axis in self._lead] == ["z"]

    def read(self, i_image: int, box: Box) -> Pixels:
        """See `Source.read`."""
        extent = dict(zip(self.image.axes, list(box), strict=True))
        planes = range(*extent["z"]) if "z" in extent else range(1)
        found = [self._plane(self._planes[i], extent) for i in planes]
        if "z" not in extent:
            return found[0]
        return np.stack(found, axis=self.image.axes.index("z"))

    def raw(self) -> Pixels:
        """(z, y, x) float32: all chosen planes, channels averaged."""
        whole = self.read(0, Box.whole(self.image.shape)).astype(np.float32)
        if "c" in self.image.axes:
            whole = whole.mean(axis=0)
        return whole.reshape(-1, *whole.shape[-2:])

    def close(self) -> None:
        """See `Source.close`."""
        self._inner.close()

    def _plane(self, i_plane: int, extent: dict[str, tuple[int, int]]) -> Pixels:
        """(c, y, x) or (y, x) of a part of one plane."""
        place = np.unravel_index(i_plane, self._lead_shape) if self._lead else ()
        at = {axis: int(i) for axis, i in zip(self._lead, place, strict=True)}
        bounds = [(at[i], at[i] + 1) if i in at else extent[letter] for i, letter in enumerate(self._axes)]
        pixels = self._inner.read(self._i_image, Box(tuple(a for a, _ in bounds), tuple(b for _, b in bounds)))
        return np.asarray(pixels).reshape([b - a for i, (a, b) in enumerate(bounds) if i not in at])


@dataclass(frozen=True)
class LabelledVolume:
    """Planes with what was predicted for them and what is true.

    Attributes:
        names: one a plane.
        found: (z, y, x): probability 0..1 as stored in 8 bits, float32; or class numbers, uint8.
        raw: (z, y, x) float32 grey values.
        target: (z, y, x) class numbers, uint8.
        ignored: (z, y, x) True where the label is to be ignored; None if nothing is.
    """

    names: tuple[str, ...]
    found: Pixels
    raw: Pixels
    target: Pixels
    ignored: Pixels | None

    @classmethod
    def of(cls, names: tuple[str, ...], found: Pixels, raw: Pixels, targets: Sequence[Plane]) -> "LabelledVolume":
        """From planes as `unetctl.training.load` gives them: weight 0 where a label is to be ignored."""
        weights = [np.ones(p.size) if p.weights is None else p.weights[0] for p in targets]
        ignored = np.stack(weights) == 0
        return cls(names, found, raw, np.stack([p.target[0] for p in targets]), ignored if ignored.any() else None)


def predicted_volume(
    source: Source,
    task: ResolvedTask,
    network: Network,
    output: Path,
    device: str,
    emit: Listener,
    should_stop: Callable[[], bool],
    *,
    keep: Keep | None = None,
) -> Pixels:
    """What `predict` answers for a source.

    Args:
        source: of one picture.
        task, network: what is asked.
        output: where the store is made.
        device, emit, should_stop: see `unetctl.jobs.benchmark_accuracy.accuracy`.
        keep: what is answered, as it is stored; None: see below.

    Returns:
        With `keep`, all channels: (c, z, y, x) or (c, y, x). Else (z, y, x): probabilities 0..1, float32, of a task with one
        class; class numbers, uint8, of one with several.

    Raises:
        InputError: if the source does not fit the task.
        Stopped: if asked to stop.
    """
    is_binary = task.recipe.output.num_channels == 1
    keep_or_usual: Keep = keep or ("probability" if is_binary else "classes")
    options = PredictOptions(output=output, device=device, keep=keep_or_usual, scale=1.0)  # as the source shows it
    _, compute = resolve(options.device, options.precision)
    budget_bytes = budget(None)
    wishes: PlanWishes = options.wishes
    num_weights = sum(p.numel() for p in network.parameters())
    planned = make_plan(
        source.info, {"path": source.info.uri}, task.recipe, task.weights_sha256, num_weights, compute, budget_bytes,
        wishes,
    )  # fmt: skip
    prediction = Prediction(source.info.uri, source, task, RunFolder(output), planned, False, budget_bytes, options)
    if run_prediction(prediction, network, emit, should_stop).status != "done":
        raise Stopped("stopped while predicting", "", "run the same command again")
    stored = prediction.folder.sink().read(0, 0, Box.whole(prediction.plan.images[0].output.shape))
    if keep is not None:
        return np.asarray(stored)
    stored = stored.reshape(-1, *stored.shape[-2:])
    return (stored.astype(np.float32) / 255) if is_binary else stored
