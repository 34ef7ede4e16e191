"""A folder of frames as one file of pages: every picture a page, in the order in which people number them."""

import os
from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.geometry.box import Box, Ints
from unetctl.sources.base import ImageInfo, SourceInfo
from unetctl.sources.page_files import find_pages
from unetctl.sources.pages import PageOrigin, open_pages


class FramePages:
    """The pictures of a folder, opened one at a time.

    Args:
        folder: of pictures of one size, each of a single page.
        max_bytes: that a picture may take, see `open_pages`.

    Raises:
        InputError: if there are none, one cannot be read, or they differ in size.
    """

    def __init__(self, folder: str, max_bytes: int | None = None) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._paths = [path for path in find_pages(folder) if path.is_file()]
        if not self._paths:
            raise InputError(f"{folder} holds no pictures", "the frames of a film")
        images: list[ImageInfo] = []
        origins: list[PageOrigin] = []
        self._identity: dict[str, object] = {}
        for i, path in enumerate(self._paths):
            source = open_pages(os.fspath(path), max_bytes=max_bytes)
            try:
                if len(source.images) != 1:
                    raise InputError(f"{path} has {len(source.images)} pages", "one picture a file", "give it alone")
                (image,) = source.images
                if images and image.shape[-2:] != images[0].shape[-2:]:
                    told = ["x".join(map(str, one.shape[:-3:-1])) for one in (image, images[0])]
                    raise InputError(
                        f"{path} has {told[0]} pixels and {self._paths[0].name} {told[1]}", "frames of one size"
                    )
                images.append(replace(image, name=f"page-{i + 1}"))
                origins += source.origins
                self._identity[path.name] = dict(source.info.identity)
            finally:
                source.close()
        self.images, self.origins = tuple(images), tuple(origins)

    @cached_property
    def info(self) -> SourceInfo:
        """See `Source.info`."""
        chunks: tuple[Ints, ...] = tuple(image.shape for image in self.images)
        return SourceInfo(self._folder, "frames", self.images, {"frames": self._identity}, chunks)

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`."""
        source = open_pages(os.fspath(self._paths[i_image]), max_bytes=self._max_bytes)
        try:
            return source.read(0, box)
        finally:
            source.close()

    def close(self) -> None:
        """Nothing is open between reads."""
