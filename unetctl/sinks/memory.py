"""The sink for results that fit in memory, and the plainest reading of the contract."""

import numpy as np
import numpy.typing as npt

from unetctl.geometry.box import Box
from unetctl.sinks.base import OutputLayout, StoredKey
from unetctl.sinks.units import check_pixels, levels_of


class MemorySink:
    """Keeps each picture as one numpy array.

    Attributes:
        layout: the pictures.
        arrays: one array a picture, in the order of its axes; 0 where nothing has been written.
    """

    def __init__(self, layout: OutputLayout) -> None:
        self.layout = layout
        self.arrays = [np.zeros(image.shape, image.dtype) for image in layout.images]
        self._levels = [levels_of(image)[0] for image in layout.images]

    def write(self, i_image: int, box: Box, pixels: npt.NDArray[np.generic]) -> tuple[StoredKey, ...]:
        """Copies `pixels` (axes of the picture, shape of `box`) to their place. No file: no keys.

        Raises:
            ValueError: if `box` is not one whole shard, or `pixels` is not of its shape and the picture's
                dtype.
        """
        self._levels[i_image].coords_of(box)
        check_pixels(pixels, box, self.layout.images[i_image].dtype)
        self.arrays[i_image][box.slices()] = pixels
        return ()
