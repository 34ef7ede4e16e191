"""What TensorBoard shows of a training run: curves, pictures, the recipe.

Three TensorBoard runs in one folder, since they count on different axes::

    steps/   step/loss, step/lr ...          by optimiser step
    epochs/  epoch/loss, epoch/v_rand ...    by epoch; pictures input | label | output
    recipe/  the recipe's text, its settings as hyper-parameters, best/v_rand ...; the network's graph

Every record is in the file when its call returns, so what a checkpoint has counted is never missing after a kill.
A resumed run goes over steps that the killed one had drawn already: the first record of a stream is preceded by
TensorBoard's "start" mark at its step, on which TensorBoard forgets what the stream held from there on.
"""

import contextlib
import copy
import io
import time
import tomllib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from unetctl.errors import ResourceError

MAX_PICTURES = 8
"""Samples that are drawn an epoch."""

MAX_SIDE_PX = 384
"""Longer side of one of the three pictures of a sample; event files keep every epoch's, so they are kept small."""

_GAP_PX = 6
_GAP_GREY = 128


class Shown(Protocol):
    """A validation sample as `pictures` draws it; `unetctl.reports.training_page.Sample` is one."""

    @property
    def name(self) -> str:
        """What the user calls it."""

    @property
    def input(self) -> NDArray[np.uint8]:
        """(y, x) or (y, x, 3)."""

    @property
    def label(self) -> NDArray[np.uint8]:
        """(y, x), 0..255."""

    @property
    def output(self) -> NDArray[np.uint8]:
        """(y, x), 0..255."""


class Board:
    """Writes TensorBoard events; look with ``tensorboard --logdir FOLDER``.

    A run that was stopped and goes on makes a new `Board` on the same folder, and shows each step once.

    Args:
        folder: for the events, made when the first is written; remove it to start over.

    Every method raises:
        ResourceError: if the events cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._steps, self._epochs = _Stream(folder / "steps"), _Stream(folder / "epochs")
        self._recipe = _Stream(folder / "recipe")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Draws the figures of a step.

        Args:
            step: steps done so far, rising from call to call; not every step need be drawn.
            figures: loss, learning rate, speed ... by name.
        """
        self._steps.write(step, _scalars("step", figures))

    def epoch(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Draws the figures of an epoch.

        Args:
            epoch: from 1, rising from call to call.
            figures: mean loss, and the validation's where there was one; "epoch" among them is left out.
        """
        self._epochs.write(epoch, _scalars("epoch", {k: v for k, v in figures.items() if k != "epoch"}))

    def pictures(self, epoch: int, samples: Sequence[Shown]) -> None:
        """Draws input, label and output of the first `MAX_PICTURES` samples side by side.

        Args:
            epoch: that they belong to, not before that of an earlier call.
            samples: keep order and names over the epochs, so that TensorBoard's slider goes through them.
        """
        self._epochs.write(epoch, [_picture(sample) for sample in samples[:MAX_PICTURES]])

    def recipe(self, text: str, figures: Mapping[str, float]) -> None:
        """Shows the recipe as text and its settings as hyper-parameters; replaces what an earlier call showed.

        Args:
            text: TOML; settings become hyper-parameters "section.key".
            figures: what the recipe reached ("best/..."): the columns by which TensorBoard compares runs. May be empty.
        """
        from torch.utils.tensorboard import summary

        _, settings, _ = summary.hparams(_settings(text), {})  # type: ignore[no-untyped-call]
        code = "\n".join(f"    {line}" for line in text.splitlines())  # Markdown: indented text is shown as it is
        shown = summary.text("recipe", code)  # type: ignore[no-untyped-call]
        self._recipe.start(0)
        self._recipe.write(0, [*shown.value, *settings.value, *_scalars("best", figures)])

    def graph(self, network: nn.Module, tile: Tensor) -> None:
        """Draws how the network computes; the network stays as it is.

        Args:
            network: on any device, in any mode.
            tile: (1, C, y, x) that it takes.

        Raises:
            RuntimeError: of torch, if the network cannot be traced.
        """
        from torch.utils.tensorboard._pytorch_graph import graph

        with warnings.catch_warnings():  # that sizes become constants, and that tracing is old, matters to no picture
            warnings.simplefilter("ignore")
            with torch.no_grad():
                drawn, _ = graph(copy.deepcopy(network).cpu().eval(), tile.cpu())  # type: ignore[no-untyped-call]
        self._recipe.add_graph(drawn.SerializeToString())

    def close(self) -> None:
        """Closes the files; a second time does nothing."""
        for stream in (self._steps, self._epochs, self._recipe):
            stream.close()


class _Stream:
    """The event files of one TensorBoard run; each execution adds a file that sorts after those before it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: io.BufferedWriter | None = None

    def write(self, step: int, values: Iterable[Any]) -> None:
        """Adds one event with these `Summary.Value`s, and opens the file with a start mark before the first."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

        values = list(values)
        if not values:
            return
        if self._file is None:
            self.start(step)
        self._add(step=step, summary=Summary(value=values))

    def start(self, step: int) -> None:
        """Makes readers forget what is recorded from `step` on."""
        from tensorboard.compat.proto.event_pb2 import SessionLog  # type: ignore[import-untyped]

        self._add(step=step, session_log=SessionLog(status=SessionLog.START))

    def add_graph(self, drawn: bytes) -> None:
        """Adds a serialised graph."""
        self._add(graph_def=drawn)

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            # Every record was flushed or has raised: what is left in the buffer of a full disk is lost for good.
            with contextlib.suppress(OSError):
                file.close()

    def _add(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

        events = [Event(wall_time=time.time(), **fields)]
        try:
            if self._file is None:
                self._file = self._opened()
                # Readers look for start marks only in files that name this version.
                events.insert(0, Event(wall_time=time.time(), file_version="brain.Event:2"))
            for event in events:
                RecordWriter(self._file).write(event.SerializeToString())
            self._file.flush()
        except OSError as error:
            self.close()
            raise ResourceError(
                f"the TensorBoard events in {self.folder} cannot be written ({error.strerror or error})",
                "",
                "free space and run the same command again",
            ) from error

    def _opened(self) -> io.BufferedWriter:
        """A new file. TensorBoard reads a folder's files in the order of their names, which begin with the time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        stamps = [path.name.split(".")[3] for path in self.folder.glob("events.out.tfevents.*")]
        last = max((int(stamp) for stamp in stamps if stamp.isdigit()), default=0)
        return (self.folder / f"events.out.tfevents.{max(int(time.time()), last + 1):010d}.unetctl").open("xb")


def _scalars(group: str, figures: Mapping[str, float]) -> list[Any]:
    from tensorboard.compat.proto.summary_pb2 import Summary

    # A second slash would make a group of its own: "Mpx/s".
    tags = {f"{group}/{name.replace('/', ' per ')}": value for name, value in figures.items()}
    return [Summary.Value(tag=tag, simple_value=float(value)) for tag, value in tags.items()]


def _picture(sample: Shown) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    panel = side_by_side([sample.input, sample.label, sample.output])
    file = io.BytesIO()
    panel.save(file, format="PNG")
    image = Summary.Image(
        width=panel.width,
        height=panel.height,
        colorspace=1 if panel.mode == "L" else 3,
        encoded_image_string=file.getvalue(),
    )
    return Summary.Value(tag=f"samples/{sample.name}", image=image)


def side_by_side(pictures: Sequence[NDArray[np.uint8]]) -> Image.Image:
    """One picture of several, each reduced by a whole number to at most `MAX_SIDE_PX`, tops aligned, grey between.

    Args:
        pictures: uint8 (y, x) or (y, x, 3), at least one; the result is in colour if one of them is.
    """
    images = [Image.fromarray(picture) for picture in pictures]
    images = [image.reduce(-(-max(image.size) // MAX_SIDE_PX)) for image in images]
    is_grey = all(image.mode == "L" for image in images)
    size = sum(image.width for image in images) + _GAP_PX * (len(images) - 1), max(image.height for image in images)
    panel = Image.new("L", size, _GAP_GREY) if is_grey else Image.new("RGB", size, (_GAP_GREY,) * 3)
    left = 0
    for image in images:
        panel.paste(image, (left, 0))
        left += image.width + _GAP_PX
    return panel


def _settings(text: str) -> dict[str, float | str]:
    """Numbers and words by "section.key"; truth as "true" and "false", lists as Python writes them."""
    flat: dict[str, float | str] = {}

    def visit(prefix: str, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            if isinstance(value, Mapping):
                visit(f"{prefix}{key}.", value)
            elif isinstance(value, int | float) and not isinstance(value, bool):
                flat[prefix + key] = value
            else:
                flat[prefix + key] = str(value).lower() if isinstance(value, bool) else str(value)

    visit("", tomllib.loads(text))
    return flat
