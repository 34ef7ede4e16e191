"""A source of which only one picture, channel or time point is wanted."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from unetctl.errors import UsageError
from unetctl.geometry.box import Box
from unetctl.sources.axes import check_box
from unetctl.sources.base import ImageInfo, Source, SourceInfo


@dataclass(frozen=True)
class _Fixed:
    """Positions at which axes of a picture are held, by letter."""

    at: dict[str, int]

    def image(self, image: ImageInfo) -> ImageInfo:
        kept = [(a, n) for a, n in zip(image.axes, image.shape, strict=True) if a not in self.at]
        names = image.channel_names
        chosen = names[self.at["c"]] if "c" in self.at and names else ""
        note = (f"channel {self.at['c']}" + (f" ({chosen})" if chosen else ""),) if "c" in self.at else ()
        if "t" in self.at:
            note = (*note, f"time point {self.at['t']}")
        return replace(
            image,
            axes="".join(a for a, _ in kept),
            shape=tuple(n for _, n in kept),
            channel_names=() if "c" in self.at else names,
            is_rgb=image.is_rgb and "c" not in self.at,
            notes=(*image.notes, *(f"restricted to {n}" for n in note)),
        )

    def box(self, box: Box, axes: str) -> Box:
        """A box of the restricted picture in the whole one."""
        bounds = iter(box)
        pairs = [(self.at[a], self.at[a] + 1) if a in self.at else next(bounds) for a in axes]
        return Box(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))


class RestrictedSource:
    """One series, channel or time point of another source; the axis of a chosen channel or time point is dropped.

    Args:
        source: closed together with this one.
        series: number of the picture, or None for all.
        channel: number or name of the channel, or None for all.
        time: number of the time point, or None for all.

    Raises:
        UsageError: if there is no such picture, channel or time point.
    """

    def __init__(
        self,
        source: Source,
        *,
        series: int | None = None,
        channel: int | str | None = None,
        time: int | None = None,
    ) -> None:
        self._source = source
        told = source.info
        self._pictures = tuple(range(len(told.images)))
        if series is not None:
            _check_number("--series", series, len(told.images), "pictures", told.uri)
            self._pictures = (series,)
        self._fixed = tuple(_fixed(told.images[i], channel, time, told.uri) for i in self._pictures)
        self._restriction: dict[str, object] = {"series": series, "channel": channel, "time": time}

    @cached_property
    def info(self) -> SourceInfo:
        """See `Source.info`; the restriction is part of the identity."""
        told = self._source.info
        whole = [told.images[i] for i in self._pictures]
        chunks = tuple(
            tuple(n for a, n in zip(image.axes, told.preferred_chunk[i], strict=True) if a not in fixed.at)
            for i, image, fixed in zip(self._pictures, whole, self._fixed, strict=True)
        )
        return replace(
            told,
            images=tuple(fixed.image(image) for image, fixed in zip(whole, self._fixed, strict=True)),
            identity={
                **told.identity,
                "restriction": {k: v for k, v in self._restriction.items() if v is not None},
            },
            preferred_chunk=chunks if told.preferred_chunk else (),
        )

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`."""
        check_box(box, self.info.images[i_image], self.info.uri)
        i_whole = self._pictures[i_image]
        whole = self._source.info.images[i_whole]
        fixed = self._fixed[i_image]
        return self._source.read(i_whole, fixed.box(box, whole.axes)).reshape(box.shape)

    def close(self) -> None:
        """Closes the source below."""
        self._source.close()


def _fixed(image: ImageInfo, channel: int | str | None, time: int | None, uri: str) -> _Fixed:
    at = {}
    if channel is not None:
        number = _channel_number(image, channel, uri)
        if "c" in image.axes:
            at["c"] = number
    if time is not None:
        _check_number("--time", time, image.size_of("t"), "time points", uri)
        if "t" in image.axes:
            at["t"] = time
    return _Fixed(at)


def _channel_number(image: ImageInfo, channel: int | str, uri: str) -> int:
    if isinstance(channel, str) and channel not in image.channel_names:
        if channel.isascii() and channel.isdigit():
            channel = int(channel)
        else:
            named = ", ".join(repr(n) for n in image.channel_names) or f"numbers 0 to {image.num_channels - 1}"
            raise UsageError(f"--channel {channel}: {uri} has no channel of that name", f"one of {named}")
    number = image.channel_names.index(channel) if isinstance(channel, str) else channel
    _check_number("--channel", number, image.num_channels, "channels", uri)
    return number


def _check_number(option: str, number: int, count: int, what: str, uri: str) -> None:
    if not 0 <= number < count:
        raise UsageError(f"{option} {number}: {uri} has {count} {what}", f"0 to {count - 1}" if count > 1 else "0")
