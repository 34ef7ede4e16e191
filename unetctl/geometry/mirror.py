"""Mirroring at a volume's border: numpy's ``reflect`` (the edge pixel is not repeated), by index arrays.

The one home of the mirror mode. Index arrays work for volumes smaller than the halo too: those are mirrored
repeatedly, with period ``2 * (size - 1)``.

    volume            a b c d
    mirrored  . . c b a b c d c b a b . .
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.geometry.box import Box

Pixels = npt.NDArray[Any]


def mirror_indices(start: int, stop: int, size: int) -> npt.NDArray[np.intp]:
    """Indices into an axis of `size` pixels for the coordinates ``[start, stop)``, which may lie outside it.

    Raises:
        ValueError: if `size` is less than 1.
    """
    if size < 1:
        raise ValueError(f"an axis of {size} pixels cannot be mirrored; expected at least 1")
    coordinates = np.arange(start, stop)
    if size == 1:
        return np.zeros(len(coordinates), np.intp)
    period = 2 * (size - 1)
    folded = np.abs(coordinates) % period
    return np.where(folded < size, folded, period - folded).astype(np.intp)


def read_mirrored(read: Callable[[Box], Pixels], box: Box, shape: Sequence[int], *, leading: int = 0) -> Pixels:
    """Pixels of `box` of a volume of `shape`, mirrored where the box reaches over the border.

    Args:
        read: gives the real pixels of a box inside the volume, as an array of `leading` extra axes (channels) and then
            the box's axes.
        box: wanted region, any place.
        shape: of the volume, one number per axis of `box`.
        leading: number of array axes before those of the box.

    Returns:
        An array of ``(leading..., *box.shape)``; the pixels read are those of the box's real part only.
    """
    indices = [mirror_indices(a, b, size) for (a, b), size in zip(box, shape, strict=True)]
    real = Box(tuple(int(i.min()) for i in indices), tuple(int(i.max()) + 1 for i in indices))
    pixels = read(real)
    for axis, (index, low, (a, b)) in enumerate(zip(indices, real.start, box, strict=True)):
        if (low, low + pixels.shape[leading + axis]) != (a, b):
            pixels = np.take(pixels, index - low, axis=leading + axis)
    return pixels
