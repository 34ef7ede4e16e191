"""Pages over a source of pictures: each read through what its samples mean."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.geometry.box import Box, Ints
from unetctl.sources.axes import check_box
from unetctl.sources.base import ImageInfo, Source, SourceInfo
from unetctl.sources.page_pixels import Meaning
from unetctl.sources.pages import PageOrigin


class PageView:
    """The pictures of a source as pages of grey or RGB values on white.

    Args:
        inner: whose pictures have the axes "yx" or "cyx"; closed with this one.
        images: of `inner`.
        meanings: of the samples of each.
        origins: of each page.
        dpi: of each page, (y, x).

    Raises:
        InputError: if a picture has other axes.
    """

    def __init__(
        self,
        inner: Source,
        images: Sequence[ImageInfo],
        meanings: Sequence[Meaning],
        origins: Sequence[PageOrigin],
        path: str,
    ) -> None:
        self._inner, self._path = inner, path
        self._meanings, self.origins = tuple(meanings), tuple(origins)
        self._stored = tuple(images)
        for image in images:
            if image.axes not in ("yx", "cyx"):
                raise InputError(f"{path} holds a picture with the axes {image.axes}", "a page (yx)", "give 2-D pages")
        pages = []
        for i, (image, meaning, origin) in enumerate(zip(images, self._meanings, self.origins, strict=True)):
            size = image.shape[-2:]
            pages.append(
                ImageInfo(
                    name=f"page-{i + 1}" if len(images) > 1 else "",
                    shape=size if meaning.num_channels == 1 else (3, *size),
                    axes="yx" if meaning.num_channels == 1 else "cyx",
                    dtype=meaning.dtype,
                    spacing_um=(None, None),
                    is_rgb=meaning.num_channels == 3,
                    dpi=origin.dpi,
                    notes=origin.notes,
                )
            )
        self.images = tuple(pages)

    @cached_property
    def info(self) -> SourceInfo:
        """See `Source.info`."""
        inner = self._inner.info
        chunks: list[Ints] = []
        for chunk, image in zip(inner.preferred_chunk, self.images, strict=True):
            chunks.append(chunk[-2:] if image.axes == "yx" else (3, *chunk[-2:]))
        return replace(inner, images=self.images, preferred_chunk=tuple(chunks))

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`."""
        image, stored, meaning = self.images[i_image], self._stored[i_image], self._meanings[i_image]
        check_box(box, image, self._path)
        lead = tuple(stored.shape[:-2])
        whole = Box((0,) * len(lead) + box.start[-2:], lead + box.stop[-2:])
        pixels = self._inner.read(i_image, whole)
        page = meaning.apply(pixels if lead else pixels[None])
        if image.axes == "yx":
            grey: npt.NDArray[np.generic] = page[0]
            return grey
        return np.ascontiguousarray(page[box.start[0] : box.stop[0]])

    def close(self) -> None:
        """See `Source.close`."""
        self._inner.close()
