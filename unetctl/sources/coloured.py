"""Grey pictures for networks that take colour: the one channel thrice."""

from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from unetctl.geometry.box import Box, Ints
from unetctl.sources.base import ImageInfo, Source, SourceInfo

#: Red, green, blue.
COLOURS = 3


def coloured(source: Source, num_channels: int) -> Source:
    """A source whose grey pictures have three equal channels, if three are wanted; any other as it is.

    A picture with alpha beside its grey loses it.

    Args:
        source: any.
        num_channels: that a network takes.
    """
    if num_channels != COLOURS or not any(map(is_grey, source.info.images)):
        return source
    return _Coloured(source)


def is_grey(image: ImageInfo) -> bool:
    """True of a picture of one channel, perhaps with alpha beside it."""
    return "c" not in image.axes or (image.num_channels == 2 and image.channel_names == ("grey", "alpha"))


class _Coloured:
    """See `coloured`; closes what it is made of."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @cached_property
    def info(self) -> SourceInfo:
        """See `Source.info`."""
        told = self._source.info
        images = tuple(_as_colour(image) if is_grey(image) else image for image in told.images)
        chunks: tuple[Ints, ...] = ()
        if told.preferred_chunk:
            chunks = tuple(
                chunk if old is new else _with_channels(old, chunk)
                for old, new, chunk in zip(told.images, images, told.preferred_chunk, strict=True)
            )
        return replace(told, images=images, preferred_chunk=chunks)

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`."""
        image = self._source.info.images[i_image]
        if not is_grey(image):
            return self._source.read(i_image, box)
        at = self.info.images[i_image].axes.index("c")
        num = box.shape[at]
        if "c" in image.axes:
            inner = Box((*box.start[:at], 0, *box.start[at + 1 :]), (*box.stop[:at], 1, *box.stop[at + 1 :]))
            return np.repeat(self._source.read(i_image, inner), num, axis=at)
        inner = Box((*box.start[:at], *box.start[at + 1 :]), (*box.stop[:at], *box.stop[at + 1 :]))
        return np.repeat(np.expand_dims(self._source.read(i_image, inner), at), num, axis=at)

    def close(self) -> None:
        """See `Source.close`."""
        self._source.close()


def _place(axes: str) -> int:
    """Where the channels stand: behind all leading axes, before those of space."""
    return sum(1 for axis in axes if axis not in "zyx")


def _with_channels(image: ImageInfo, sizes: Ints) -> Ints:
    if "c" in image.axes:
        at = image.axes.index("c")
        return (*sizes[:at], COLOURS, *sizes[at + 1 :])
    at = _place(image.axes)
    return (*sizes[:at], COLOURS, *sizes[at:])


def _as_colour(image: ImageInfo) -> ImageInfo:
    at = _place(image.axes)
    axes = image.axes if "c" in image.axes else f"{image.axes[:at]}c{image.axes[at:]}"
    return replace(image, shape=_with_channels(image, image.shape), axes=axes, channel_names=(), is_rgb=True)
