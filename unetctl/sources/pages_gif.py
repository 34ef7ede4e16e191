"""An animated GIF as pages: every frame as it is to be seen, on white, with the time that it is shown."""

import threading
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import GifImagePlugin, Image

from unetctl.errors import InputError
from unetctl.geometry.box import Box
from unetctl.sources.axes import check_box
from unetctl.sources.base import ImageInfo, SourceInfo
from unetctl.sources.files import DEFAULT_MAX_BYTES, RandomAccessFile, file_identity
from unetctl.sources.pages import PageOrigin

#: Frames that are kept, since several threads may ask for neighbours in any order.
_KEPT = 8


def num_frames(path: str) -> int:
    """Frames of a GIF; 1 if they cannot be counted."""
    try:
        with open(path, "rb") as stream:
            return int(getattr(GifImagePlugin.GifImageFile(stream, path), "n_frames", 1))
    except Exception:  # a damaged file is told of when it is read
        return 1


class GifPages:
    """The frames of a GIF, each a page of red, green and blue; Pillow puts them together as the file says.

    Frames are decoded one after the other; going back begins anew.

    Args:
        path: of the file.
        max_bytes: that one frame may take, 1 GiB unless given.

    Raises:
        InputError: if the file is damaged or too large.
    """

    def __init__(self, path: str, max_bytes: int | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, npt.NDArray[np.uint8]] = OrderedDict()
        self._file = RandomAccessFile(path)
        self._stream: IO[bytes] = Path(path).open("rb")  # noqa: SIM115 - open as long as this source
        try:
            self._image: Any = GifImagePlugin.GifImageFile(self._stream, path)
            width, height, num = self._image.width, self._image.height, int(self._image.n_frames)
            limit = DEFAULT_MAX_BYTES if max_bytes is None else max_bytes
            if 4 * width * height > limit:
                raise InputError(f"{path} declares {width} x {height} pixels", f"at most {limit} bytes a frame")
            timing = [self._timing(i) for i in range(num)]
            self._image.seek(0)
        except InputError:
            self.close()
            raise
        except Exception as error:  # damaged headers surface as any type of exception
            self.close()
            raise self._damaged(error) from error
        loop = self._image.info.get("loop")
        notes = (f"{num} frames, each a page",)
        self.origins = tuple(
            PageOrigin("gif", False, None, None, 1, notes, duration_ms=ms, loop=None if loop is None else int(loop))
            for ms in timing
        )
        self.images = tuple(
            ImageInfo(
                f"page-{i + 1}", (3, height, width), "cyx", np.dtype(np.uint8), (None, None), is_rgb=True, notes=notes
            )
            for i in range(num)
        )

    @cached_property
    def info(self) -> SourceInfo:
        """See `Source.info`."""
        chunks = tuple(image.shape for image in self.images)
        return SourceInfo(self._path, "GIF", self.images, file_identity([self._file]), chunks)

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`; the frames before it are decoded if need be."""
        check_box(box, self.images[i_image], self._path)
        with self._lock:
            if i_image not in self._kept:
                self._decode(i_image)
            frame = self._kept[i_image]
        return frame[box.slices()].copy()

    def close(self) -> None:
        """Drops the frames and closes the file."""
        self._kept.clear()
        self._stream.close()
        self._file.close()

    def _timing(self, i: int) -> int:
        self._image.seek(i)
        return int(self._image.info.get("duration", 0))

    def _decode(self, i_image: int) -> None:
        try:
            first = self._image.tell() + 1 if self._image.tell() < i_image and self._kept else i_image
            for i in range(first, i_image + 1):
                self._image.seek(i)
                self._keep(i)
        except Exception as error:  # cut-off data surface as any type of exception
            raise self._damaged(error) from error

    def _keep(self, i: int) -> None:
        shown = self._image.convert("RGBA")
        paper = Image.new("RGBA", shown.size, (255, 255, 255, 255))
        paper.alpha_composite(shown)
        self._kept[i] = np.ascontiguousarray(np.moveaxis(np.asarray(paper)[..., :3], -1, 0))
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    def _damaged(self, error: BaseException) -> InputError:
        told = f"{type(error).__name__}: {error}"
        return InputError(f"{self._path} cannot be decoded ({told})", "a sound GIF file", "it is cut off or damaged")
