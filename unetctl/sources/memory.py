"""numpy arrays as a source."""

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from unetctl.errors import UsageError
from unetctl.geometry.box import Box
from unetctl.sources.axes import AxisOrder, StoredImage, check_box, to_pixels, translate
from unetctl.sources.base import ImageInfo, SourceInfo
from unetctl.sources.files import NUM_SAMPLES

_SAMPLE_PIXELS = 8192


class MemorySource:
    """An array that is in memory already.

    Args:
        array: any number of axes, of booleans (read as uint8 0 and 255), integers or floats to 64 bits; not copied.
        axes: one letter an axis of `array`, in its order, e.g. "zyx", "yxc".
        spacing_um: pixel size of the spatial axes in the order (z, y, x) or (y, x); None where unknown.
        channel_names: one a channel.
        is_rgb: True if the channels are red, green, blue (and alpha).
        dpi: (y, x) dots per inch.
        name: how messages call it.

    Raises:
        UsageError: if `axes` does not fit the array.
        InputError: if the pixels are not real numbers.
    """

    def __init__(
        self,
        array: npt.NDArray[np.generic],
        axes: str,
        *,
        spacing_um: Sequence[float | None] = (),
        channel_names: Sequence[str] = (),
        is_rgb: bool = False,
        dpi: tuple[float, float] | None = None,
        name: str = "memory",
    ) -> None:
        array = np.asarray(array)
        stored = StoredImage(
            shape=array.shape,
            axes=axes if len(axes) == array.ndim else "?" * array.ndim,
            dtype=array.dtype,
            spacing_um=spacing_by_letter(axes, spacing_um),
            channel_names=tuple(channel_names),
            is_rgb=is_rgb,
            dpi=dpi,
            chunk=array.shape,
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
        """See `Source.info`; the identity samples 64 pieces of 8192 pixels."""
        return SourceInfo(self._name, "array", self.images, self._identity(), (self._translated.chunk,))

    def _identity(self) -> dict[str, object]:
        array, sha = self._array, hashlib.sha256()
        pieces = min(NUM_SAMPLES, -(-array.size // _SAMPLE_PIXELS))
        for i in range(pieces):
            begin = i * max(0, array.size - _SAMPLE_PIXELS) // max(1, pieces - 1)
            index = np.unravel_index(np.arange(begin, min(begin + _SAMPLE_PIXELS, array.size)), array.shape)
            sha.update(to_pixels(array[index]).tobytes())
        return {"shape": list(array.shape), "dtype": str(array.dtype), "sample_sha256": sha.hexdigest()}

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`; always a copy."""
        image = self.images[i_image]
        check_box(box, image, self._name)
        order = self._translated.order
        part = order.from_file(self._array[order.file_box(box).slices()])
        pixels = to_pixels(part)
        return pixels.copy() if np.shares_memory(pixels, self._array) else pixels

    def close(self) -> None:
        """Nothing to release."""


def spacing_by_letter(axes: str, spacing_um: Sequence[float | None]) -> dict[str, float]:
    """Pixel sizes given in the order (z, y, x) or (y, x), by letter.

    Raises:
        UsageError: if their number is not that of the spatial axes in `axes`.
    """
    if not spacing_um:
        return {}
    spatial = AxisOrder.of("".join(a for a in axes if a in "zyx")).axes
    if len(spatial) != len(spacing_um):
        raise UsageError(f"spacing_um has {len(spacing_um)} values", f"one for each of the axes {', '.join(spatial)}")
    return {a: float(s) for a, s in zip(spatial, spacing_um, strict=True) if s is not None}
