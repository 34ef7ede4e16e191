"""Any dask array as a source."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.geometry.box import Box
from unetctl.sources.axes import StoredImage, check_box, to_pixels, translate
from unetctl.sources.base import ImageInfo, SourceInfo
from unetctl.sources.memory import spacing_by_letter

_NUM_SAMPLE_BOXES = 8
_SAMPLE_SIDE = 64


class DaskSource:
    """A dask array, of which a read computes only the chunks that hold the box, in the calling thread.

    Args:
        array: a `dask.array.Array` of known shape.
        axes: one letter an axis of `array`, in its order.
        spacing_um: pixel size of the spatial axes in the order (z, y, x) or (y, x); None where unknown.
        channel_names: one a channel.
        is_rgb: True if the channels are red, green, blue (and alpha).
        dpi: (y, x) dots per inch.
        name: how messages call it.

    Raises:
        UsageError: if `axes` does not fit the array.
        InputError: if the shape is unknown or the pixels are not real numbers.
    """

    def __init__(
        self,
        array: Any,
        axes: str,
        *,
        spacing_um: Sequence[float | None] = (),
        channel_names: Sequence[str] = (),
        is_rgb: bool = False,
        dpi: tuple[float, float] | None = None,
        name: str = "dask array",
    ) -> None:
        if any(n != n for n in array.shape):
            raise InputError(
                f"{name} has the unknown shape {array.shape}",
                "known chunk sizes",
                "call compute_chunk_sizes() first",
            )
        stored = StoredImage(
            shape=tuple(int(n) for n in array.shape),
            axes=axes if len(axes) == array.ndim else "?" * array.ndim,
            dtype=np.dtype(array.dtype),
            spacing_um=spacing_by_letter(axes, spacing_um),
            channel_names=tuple(channel_names),
            is_rgb=is_rgb,
            dpi=dpi,
            chunk=tuple(int(n) for n in array.chunksize),
        )
        self._translated = translate(stored, name, axes)
        self._array = array
        self._name = name

    @property
    def images(self) -> tuple[ImageInfo, ...]:
        """The one picture."""
        return (self._translated.image,)

    @cached_property
    def info(self) -> SourceInfo:
        """See `Source.info`; the identity computes eight boxes of 64 pixels a side along the array's diagonal."""
        return SourceInfo(self._name, "dask array", self.images, self._identity(), (self._translated.chunk,))

    def _identity(self) -> dict[str, object]:
        image, sha = self.images[0], hashlib.sha256()
        side = tuple(min(n, _SAMPLE_SIDE if a in "yx" else 1) for n, a in zip(image.shape, image.axes, strict=True))
        for i in range(_NUM_SAMPLE_BOXES):
            start = tuple((n - s) * i // (_NUM_SAMPLE_BOXES - 1) for n, s in zip(image.shape, side, strict=True))
            stop = tuple(a + s for a, s in zip(start, side, strict=True))
            sha.update(self.read(0, Box(start, stop)).tobytes())
        return {"shape": list(image.shape), "dtype": str(self._array.dtype), "sample_sha256": sha.hexdigest()}

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`.

        Raises:
            InputError: if computing the chunks fails, whatever the reason.
        """
        image = self.images[i_image]
        check_box(box, image, self._name)
        order = self._translated.order
        lazy = self._array[order.file_box(box).slices()]
        try:
            array = np.asarray(lazy.compute(scheduler="synchronous"))
        except Exception as error:  # the graph is the user's code: anything may come out of it
            raise InputError(f"{self._name} cannot be computed at {box} ({type(error).__name__}: {error})") from error
        pixels = to_pixels(order.from_file(array))
        return pixels.copy() if not pixels.flags.writeable else pixels

    def close(self) -> None:
        """Nothing to release."""
