"""What a finished page is, before it becomes part of a file."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

KINDS = ("tiff", "png", "pdf", "gif")
"""The kinds of files that pages are written as."""


class BrokenPageError(Exception):
    """An encoded page, or a file of them, that cannot be read as what it was written as."""


@dataclass(frozen=True)
class Page:
    """A finished page, upright as it is to be seen.

    Attributes:
        pixels: (y, x) bool with True = ink, or (y, x) uint8 or uint16 grey, or (y, x, 3) uint8 or uint16 red, green,
            blue; or (y, x) uint32 numbers of objects, for TIFF alone. A memory-mapped array is read in bands of rows.
        dpi: dots per inch (y, x), None where unknown.
        icc: ICC profile of the pixels. It is left away where it is not of their colour space (a 1-bit page, an RGB
            profile of what has become grey).
    """

    pixels: npt.NDArray[Any]
    dpi: tuple[float, float] | None
    icc: bytes | None = None

    def __post_init__(self) -> None:
        """Refuses what no kind of file can hold.

        Raises:
            ValueError: for another shape or type of pixels, or an empty page.
        """
        shape, dtype = self.pixels.shape, self.pixels.dtype.newbyteorder("=")
        if len(shape) not in (2, 3) or shape[2:] not in ((), (3,)) or 0 in shape:
            raise ValueError(f"a page has pixels of shape (y, x) or (y, x, 3), not {shape}")
        is_plain = dtype in (np.bool_, np.uint32)
        if dtype not in (np.bool_, np.uint8, np.uint16, np.uint32) or (is_plain and len(shape) == 3):
            raise ValueError(
                f"a page has bool, uint8, uint16 or uint32 pixels, bool and uint32 without colour; not {dtype} of {shape}"
            )

    @property
    def is_one_bit(self) -> bool:
        """True for ink and paper only."""
        return bool(self.pixels.dtype == np.bool_)

    @property
    def num_samples(self) -> int:
        """Samples a pixel: 1 or 3."""
        return 3 if self.pixels.ndim == 3 else 1

    @property
    def num_bits(self) -> int:
        """Bits a sample: 1, 8, 16 or 32."""
        return 1 if self.is_one_bit else int(8 * self.pixels.dtype.itemsize)

    @property
    def usable_dpi(self) -> tuple[float, float] | None:
        """`dpi` if both numbers make sense (finite, above zero), else None."""
        if self.dpi is None or not all(math.isfinite(d) and 1e-3 <= d <= 1e6 for d in self.dpi):
            return None
        return self.dpi

    @property
    def usable_icc(self) -> bytes | None:
        """`icc` if it is a profile of the pixels' colour space, else None (ICC.1:2022, 7.2: bytes 16 to 19, 36 to 39)."""
        space = b"GRAY" if self.num_samples == 1 else b"RGB "
        if self.icc is None or self.is_one_bit or self.icc[16:20] != space or self.icc[36:40] != b"acsp":
            return None
        return self.icc

    def rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows [start, stop), contiguous, in the machine's byte order."""
        dtype = self.pixels.dtype.newbyteorder("=")
        return np.ascontiguousarray(self.pixels[start:stop], dtype=dtype)
