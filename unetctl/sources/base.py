"""What a source is: a picture file behind three members.

A new format is one file beside this one: a class with `info`, `read` and `close`, and one line in `open.py`.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from unetctl.geometry.box import Box, Ints


@dataclass(frozen=True)
class ImageInfo:
    """One picture of a file (a series, a position, a page), its axes translated at the source's door.

    Attributes:
        name: of the picture inside its file, "" if the file holds just one.
        shape: sizes in the order of `axes`.
        axes: one letter an axis: any leading axes ("t", "p" ...), then "c" if there are channels, then "zyx" or "yx".
            Always this order, whatever the file's own order is; a file's sample axis (RGB) is "c" too.
        dtype: of the pixels as `Source.read` returns them.
        spacing_um: pixel size (z, y, x) or (y, x) in micrometres, in the order of the spatial axes; None where unknown.
        channel_names: one name a channel, or empty.
        is_rgb: True if the channels are the red, green and blue (and alpha) samples of a colour picture.
        dpi: (y, x) dots per inch of a page; None where unknown.
        notes: sentences for the user about what was translated ("axes read as ZYX: the file does not say").
    """

    name: str
    shape: Ints
    axes: str
    dtype: np.dtype[np.generic]
    spacing_um: tuple[float | None, ...] = ()
    channel_names: tuple[str, ...] = ()
    is_rgb: bool = False
    dpi: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()

    @property
    def spatial_axes(self) -> str:
        """The spatial ones: zyx or yx."""
        return "".join(a for a in self.axes if a in "zyx")

    @property
    def num_channels(self) -> int:
        """Size of "c", or 1."""
        return self.size_of("c")

    def size_of(self, axis: str) -> int:
        """Size along one axis letter, 1 if the picture lacks it."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1


@dataclass(frozen=True)
class SourceInfo:
    """What a file is.

    Attributes:
        uri: the path or address as given.
        format: "TIFF", "OME-Zarr 0.5", ...
        images: the pictures in it, at least one.
        identity: a dict of plain values (size in bytes, header, hash of sampled content; never the modification time) that tells this input
            from another; it enters the plan's fingerprint.
        preferred_chunk: per image, the box shape (in the order of `axes`) that is cheapest to read, for the planner.
    """

    uri: str
    format: str
    images: tuple[ImageInfo, ...]
    identity: dict[str, object] = field(default_factory=dict)
    preferred_chunk: tuple[Ints, ...] = ()


class Source(Protocol):
    """Reads boxes of the pictures of one file. `read` may be called from several threads."""

    @property
    def info(self) -> SourceInfo:
        """What the file is; known without reading pixels."""
        ...

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """Pixels of picture `i_image` inside `box` (in the order of its `axes`, within its shape), native byte order.

        The bytes read from disk are those of the chunks that hold the box, never the whole file.

        Raises:
            InputError: if the pixels cannot be decoded; the message names the place.
        """
        ...

    def close(self) -> None:
        """Releases file handles; the source is not used afterwards."""
        ...
