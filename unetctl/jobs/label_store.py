"""Labels of all pictures of a store of class probabilities, as a store of their own.

A picture is labelled volume by volume: its axes z, y and x (or y and x) together, each index of the axes before them by
itself, with labels from 1 on. Two scratch stores hold ids of seeds and of grown seeds meanwhile; everything is written
block by block, so that memory does not follow the picture's size (see `unetctl.objects.blocks`).
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from unetctl.errors import Stopped
from unetctl.geometry.box import Box, Ints
from unetctl.objects.blocks import BlockLabels, Volume, blocks_of, label_blocks, num_blocks
from unetctl.objects.rule import LabelRule
from unetctl.sinks.base import OutputImage, OutputLayout, StoredKey
from unetctl.sinks.zarr import ZarrSink

#: Largest side of a block in y and x, and pixels that planes are gathered up to.
_BLOCK_SIDE, _BLOCK_PIXELS = 1024, 2**21
_CHUNK_SIDE = 512
_SPACE = "zyx"


class Stored(Protocol):
    """What of a store of probabilities is needed here."""

    @property
    def layout(self) -> OutputLayout:
        """Of the store; every picture has an axis c of the three classes."""
        ...

    def read(self, i_image: int, i_level: int, box: Box) -> npt.NDArray[Any]:
        """See `ZarrSink.read`."""
        ...


@dataclass(frozen=True)
class LabelImage:
    """A picture of labels, and how it lies in the picture of probabilities.

    Attributes:
        image: as it is stored, without channels.
        num_leading: axes before the volume.
        block: (z, y, x) of what is worked on at a time, one shard.
    """

    image: OutputImage
    num_leading: int
    block: Ints

    @classmethod
    def of(cls, probability: OutputImage, dtype: str) -> "LabelImage":
        """The picture that the labels of a picture of probabilities make."""
        kept = [i for i, axis in enumerate(probability.axes) if axis != "c"]
        axes = "".join(probability.axes[i] for i in kept)
        shape = tuple(probability.shape[i] for i in kept)
        num_leading = sum(axis not in _SPACE for axis in axes)
        volume = _volume_shape(shape, num_leading)
        y, x = (min(_BLOCK_SIDE, n) for n in volume[1:])
        block = (max(1, min(volume[0], _BLOCK_PIXELS // (y * x))), y, x)
        sides = [min(_CHUNK_SIDE, n) for n in (y, x)]
        # a shard is a whole number of chunks
        whole = (block[0], *(-(-n // side) * side for n, side in zip((y, x), sides, strict=True)))
        num_space = len(shape) - num_leading
        shard = (1,) * num_leading + whole[3 - num_space :]
        chunk = (1,) * num_leading + (1, *sides)[3 - num_space :]
        image = replace(
            probability, shape=shape, axes=axes, dtype=dtype, shard=shard, chunk=chunk, channel_names=(), kind="labels"
        )
        return cls(image, num_leading, (whole[0], *whole[1:]))

    @property
    def volume(self) -> Ints:
        """(z, y, x) of one volume."""
        return _volume_shape(self.image.shape, self.num_leading)

    @property
    def leading(self) -> list[Ints]:
        """Indices of all volumes along the axes before them."""
        return [tuple(int(i) for i in index) for index in np.ndindex(*self.image.shape[: self.num_leading])]

    @property
    def num_blocks(self) -> int:
        """Of all volumes."""
        return prod(self.image.shape[: self.num_leading]) * num_blocks(self.volume, self.block)

    def box(self, at: Ints, box: Box) -> Box:
        """A box (z, y, x) of the volume `at`, in the picture's axes."""
        num_space = len(self.image.shape) - self.num_leading
        skip = 3 - num_space
        return Box((*at, *box.start[skip:]), (*(i + 1 for i in at), *box.stop[skip:]))


class _SinkIds:
    """Ids of one volume in a store."""

    def __init__(self, sink: ZarrSink, i_image: int, labels: LabelImage, at: Ints) -> None:
        self._sink, self._i_image, self._labels, self._at = sink, i_image, labels, at

    def write(self, box: Box, ids: npt.NDArray[np.uint32]) -> None:
        place = self._labels.box(self._at, box)
        self._sink.write(self._i_image, place, ids.reshape(place.shape))

    def read(self, box: Box) -> npt.NDArray[np.uint32]:
        found = self._sink.read(self._i_image, 0, self._labels.box(self._at, box))
        return np.asarray(found, np.uint32).reshape(box.shape)


def num_steps(stored: Stored) -> int:
    """How often `make_labels` calls its `tick`."""
    return 3 * sum(LabelImage.of(image, "uint32").num_blocks for image in stored.layout.images)


def make_labels(
    stored: Stored,
    rule: LabelRule,
    target: Path,
    scratch: Path,
    *,
    mark: Callable[[int, tuple[StoredKey, ...]], None] = lambda index, keys: None,
    tick: Callable[[], None] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ZarrSink:
    """Writes the labels of a store of probabilities; stopped or killed, it starts over.

    Args:
        stored: complete.
        rule: see `unetctl.objects.rule`.
        target: where the store of labels is made, a path that does not exist: uint16, or uint32 where a volume has more
            than 65535 objects. Without its pyramids.
        scratch: a folder that does not exist, for what is kept meanwhile; removed in the end, whatever happens.
        mark: called after each block with its index and what was written.
        tick: called after each block of each pass, see `num_steps`.
        should_stop: asked before each block.

    Raises:
        Stopped: if asked to stop; nothing is left but what `target` holds.
        ResourceError: if the disk is full.
    """
    shapes = [LabelImage.of(image, "uint32") for image in stored.layout.images]
    layout = OutputLayout(tuple(one.image for one in shapes))
    try:
        scratch.mkdir(parents=True)
        seeds, objects = (ZarrSink.create(scratch / f"{name}.zarr", layout) for name in ("seeds", "objects"))
        found: dict[tuple[int, Ints], BlockLabels] = {}
        for i_image, labels in enumerate(shapes):
            for at in labels.leading:
                kept = [_SinkIds(sink, i_image, labels, at) for sink in (seeds, objects)]
                volume = Volume(labels.volume, _reader(stored, i_image, labels, at))
                found[i_image, at] = label_blocks(volume, rule, labels.block, kept[0], kept[1], tick, should_stop)
        most = max((one.num_objects for one in found.values()), default=0)
        dtype = "uint16" if most <= np.iinfo(np.uint16).max else "uint32"
        images = tuple(replace(one.image, dtype=dtype) for one in shapes)
        sink = ZarrSink.create(target, OutputLayout(images, stored.layout.provenance))
        index = 0
        for (i_image, at), made in found.items():
            labels = shapes[i_image]
            for box in blocks_of(labels.volume, labels.block):
                if should_stop():
                    raise Stopped("stopped while objects were labelled", "", "run the same command again to go on")
                place = labels.box(at, box)
                mark(index, sink.write(i_image, place, made.read(box).astype(dtype).reshape(place.shape)))
                index += 1
                tick()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return sink


def _reader(stored: Stored, i_image: int, labels: LabelImage, at: Ints) -> Callable[[Box], npt.NDArray[np.uint8]]:
    """Reads probabilities (3, z, y, x) of one volume."""
    where = stored.layout.images[i_image].axes.index("c")
    num_classes = stored.layout.images[i_image].shape[where]

    def read(box: Box) -> npt.NDArray[np.uint8]:
        place = labels.box(at, box)
        start = (*place.start[:where], 0, *place.start[where:])
        stop = (*place.stop[:where], num_classes, *place.stop[where:])
        return np.asarray(stored.read(i_image, 0, Box(start, stop)), np.uint8).reshape(num_classes, *box.shape)

    return read


def _volume_shape(shape: Ints, num_leading: int) -> Ints:
    space = shape[num_leading:]
    return (1,) * (3 - len(space)) + space
