"""Pages as sources of their own, for the reader of blocks."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.geometry.box import Box, Ints
from unetctl.sources.base import ImageInfo, SourceInfo

Pixels = npt.NDArray[Any]


class Pages(Protocol):
    """What of an open file is read here."""

    @property
    def info(self) -> SourceInfo:
        """See `Source.info`."""
        ...

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`."""
        ...


def coloured(info: ImageInfo) -> ImageInfo:
    """A grey page told of as one of three equal colours, for networks that take colour; others as they are."""
    if info.axes != "yx":
        return info
    return replace(info, shape=(3, *info.shape), axes="cyx", is_rgb=True)


def in_axes(pixels: Pixels, info: ImageInfo) -> Pixels:
    """Pixels of a page in the axes of `info`: those of a grey one thrice, without being copied."""
    return np.broadcast_to(pixels, info.shape) if pixels.ndim < len(info.shape) else pixels


class HeldPages:
    """Decoded pages as a source: one picture each.

    Args:
        pages: infos and pixels, in the axes of the info.
    """

    def __init__(self, pages: Sequence[tuple[ImageInfo, Pixels]]) -> None:
        self._pixels = [pixels for _, pixels in pages]
        self.info = SourceInfo("pages", "pages", tuple(info for info, _ in pages))

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`."""
        return self._pixels[i_image][box.slices()].copy()

    def close(self) -> None:
        """Lets go of the pixels."""
        self._pixels = []


class OnePage:
    """One page of an open file as a source of its own, read piece by piece.

    Args:
        pages: of the file.
        i_page: which.
        info: as the page is to be seen: its own axes, or `coloured`.
        identity: of the file's content.
        release: called by the first `close`.
    """

    def __init__(
        self, pages: Pages, i_page: int, info: ImageInfo, identity: dict[str, Any], release: Callable[[], None]
    ) -> None:
        told = pages.info
        self._pages, self._i_page, self._release = pages, i_page, release
        self._is_closed = False
        self._stored = told.images[i_page]
        self._is_coloured = len(self._stored.shape) < len(info.shape)
        chunk: Ints = told.preferred_chunk[i_page]
        chunk = (3, *chunk) if self._is_coloured else chunk
        self.info = SourceInfo(told.uri, told.format, (info,), {**identity, "page": i_page}, (chunk,))

    @property
    def chunk_bytes(self) -> int:
        """Of the largest piece that must be decoded whole."""
        chunk = self._pages.info.preferred_chunk[self._i_page]
        return int(np.prod(chunk, dtype=np.int64)) * self._stored.dtype.itemsize

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`."""
        if i_image:
            raise InputError(f"picture {i_image} of one page", "0")
        if not self._is_coloured:
            return self._pages.read(self._i_page, box)
        plane = self._pages.read(self._i_page, Box(box.start[1:], box.stop[1:]))
        return np.repeat(plane[np.newaxis], box.shape[0], axis=0)

    def close(self) -> None:
        """The page was read, or will not be; may be called twice."""
        was_closed, self._is_closed = self._is_closed, True
        if not was_closed:
            self._release()
