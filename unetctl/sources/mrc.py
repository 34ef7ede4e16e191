"""MRC and CCP4 maps (MRC2014 format; Cheng et al. 2015, J. Struct. Biol. 192, 146-150), read by position."""

import struct
from functools import cached_property

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.geometry.box import Box, Ints
from unetctl.sources.axes import StoredImage, check_box, to_pixels, translate
from unetctl.sources.base import ImageInfo, SourceInfo
from unetctl.sources.files import RandomAccessFile, file_identity, read_array_box

HEADER_BYTES = 1024
_DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_COMPLEX_MODES = (3, 4)
_UM_PER_ANGSTROM = 1e-4
_IMOD_STAMP = 1146047817
_VOLUME_STACK = 401


class MrcSource:
    """An image, a stack, a volume or a stack of volumes in an MRC file; either byte order; modes 0, 1, 2, 6, 12.

    Rows come in the file's order (the format draws its first row at the bottom; most programs do not).

    Args:
        path: of the file.
        axes: one letter an axis of the array as stored, slowest first.

    Raises:
        InputError: if the header is damaged, the file cut off, or the mode complex or unknown.
        UsageError: if `axes` does not fit the array.
    """

    def __init__(self, path: str, axes: str | None = None) -> None:
        self._path = path
        self._file = RandomAccessFile(path)
        stored, self._offset = _parse_header(self._file)
        self._shape, self._dtype = stored.shape, stored.dtype
        needed = self._offset + int(np.prod(stored.shape, dtype=object)) * stored.dtype.itemsize
        if needed > self._file.size:
            raise InputError(
                f"{path} ends at byte {self._file.size}",
                f"{needed} bytes for {stored.shape} of {stored.dtype}",
                "the file is cut off or its header damaged",
            )
        self._translated = translate(stored, path, axes)

    @property
    def images(self) -> tuple[ImageInfo, ...]:
        """The one picture."""
        return (self._translated.image,)

    @cached_property
    def info(self) -> SourceInfo:
        """See `Source.info`."""
        return SourceInfo(self._path, "MRC", self.images, file_identity([self._file]), (self._translated.chunk,))

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`."""
        check_box(box, self.images[i_image], self._path)
        order = self._translated.order
        return to_pixels(
            order.from_file(read_array_box(self._file, self._offset, self._shape, self._dtype, order.file_box(box)))
        )

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def is_mrc_header(head: bytes) -> bool:
    """True if these first 1024 bytes look like an MRC header of either byte order, with or without the mark "MAP "."""
    if len(head) < HEADER_BYTES:
        return False
    order = _byte_order(head)
    nx, ny, nz, mode = struct.unpack(order + "4i", head[:16])
    mapped = struct.unpack(order + "3i", head[64:76])
    known = mode in _DTYPES or mode in _COMPLEX_MODES or mode == 101
    return known and min(nx, ny, nz) > 0 and (head[208:211] == b"MAP" or sorted(mapped) in ([0, 0, 0], [1, 2, 3]))


def _byte_order(head: bytes) -> str:
    """The order in which mode and the sizes are small; the machine stamp is wrong in many files."""
    little, big = struct.unpack("<4i", head[:16]), struct.unpack(">4i", head[:16])
    if 0 <= little[3] < 256 and 0 <= big[3] < 256:  # mode 0 reads alike
        return "<" if little[0] <= big[0] else ">"
    return "<" if 0 <= little[3] < 256 else ">"


def _parse_header(file: RandomAccessFile) -> tuple[StoredImage, int]:
    head = file.read_up_to(0, HEADER_BYTES)
    if len(head) < HEADER_BYTES:
        raise InputError(
            f"{file.path} has {len(head)} bytes", f"an MRC header of {HEADER_BYTES}", "the file is cut off"
        )
    order = _byte_order(head)
    nx, ny, nz, mode = struct.unpack(order + "4i", head[:16])
    grid = struct.unpack(order + "3i", head[28:40])
    cell = struct.unpack(order + "3f", head[40:52])
    mapped = struct.unpack(order + "3i", head[64:76])
    space_group, num_extended = struct.unpack(order + "2i", head[88:96])
    if min(nx, ny, nz) <= 0 or num_extended < 0:
        raise InputError(f"{file.path} has a damaged MRC header (sizes {nx} x {ny} x {nz})", "sizes above 0")
    if mode in _COMPLEX_MODES:
        raise InputError(f"{file.path} is a transform of complex numbers (MRC mode {mode})", "an image of real ones")
    if mode not in _DTYPES:
        raise InputError(f"{file.path} has the MRC mode {mode}", f"one of {', '.join(map(str, _DTYPES))}", "convert it")
    notes = []
    dtype = np.dtype(order + _DTYPES[mode])
    stamp, flags = struct.unpack(order + "2i", head[152:160])
    if mode == 0 and stamp == _IMOD_STAMP and not flags & 1:
        dtype = np.dtype(np.uint8)
        notes.append("bytes are unsigned, as IMOD writes them")
    letters = _letters(mapped)
    shape: Ints = (nz, ny, nx)
    if space_group >= _VOLUME_STACK and grid[2] > 0 and nz % grid[2] == 0:
        shape, letters = (nz // grid[2], grid[2], ny, nx), "p" + letters
    elif nz == 1 and letters == "zyx":
        shape, letters = shape[1:], "yx"
    spacing = {
        a: c / g * _UM_PER_ANGSTROM for a, c, g in zip("xyz", cell, grid, strict=True) if g > 0 and 0 < c < float("inf")
    }
    return StoredImage(shape, letters, dtype, spacing, notes=tuple(notes)), HEADER_BYTES + num_extended


def _letters(mapped: Ints) -> str:
    """Axis letters, slowest first; `mapped` names the axes of columns, rows and sections: 1 x, 2 y, 3 z."""
    return "".join("xyz"[i - 1] for i in reversed(mapped)) if sorted(mapped) == [1, 2, 3] else "zyx"
