"""numpy's .npy files, read by position."""

import io
from functools import cached_property

import numpy as np
import numpy.lib.format as npy_format
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.geometry.box import Box, Ints
from unetctl.sources.axes import StoredImage, check_box, guess_axes, to_pixels, translate
from unetctl.sources.base import ImageInfo, SourceInfo
from unetctl.sources.files import RandomAccessFile, file_identity, read_array_box

_MAX_HEADER_BYTES = 64 * 1024


class NpySource:
    """One array in a .npy file, C or Fortran order; a box costs the rows that hold it.

    Args:
        path: of the file.
        axes: one letter an axis; without it the last ones are y, x (or y, x, colour), those before them z, t, p.

    Raises:
        InputError: if the file is cut off or damaged, pickled, or holds anything but real numbers.
        UsageError: if `axes` does not fit the array.
    """

    def __init__(self, path: str, axes: str | None = None) -> None:
        self._path = path
        self._file = RandomAccessFile(path)
        shape, fortran, dtype, self._offset = _parse_header(self._file)
        if len(shape) < 2:
            raise InputError(f"{path} holds an array of shape {shape}", "at least two axes")
        self._stored_shape, self._stored_dtype = (shape[::-1] if fortran else shape), dtype
        letters, is_rgb = guess_axes(shape, dtype)
        chunk = (*(1,) * (len(shape) - 1), shape[-1])
        if fortran:
            chunk = chunk[::-1]
        self._translated = translate(StoredImage(shape, letters, dtype, {}, is_rgb=is_rgb, chunk=chunk), path, axes)
        self._fortran = fortran
        needed = self._offset + int(np.prod(shape, dtype=object)) * dtype.itemsize
        if needed > self._file.size:
            raise InputError(
                f"{path} ends at byte {self._file.size}",
                f"{needed} bytes for {shape} of {dtype}",
                "the file is cut off: copy it again",
            )

    @property
    def images(self) -> tuple[ImageInfo, ...]:
        """The one picture."""
        return (self._translated.image,)

    @cached_property
    def info(self) -> SourceInfo:
        """See `Source.info`."""
        return SourceInfo(self._path, "npy", self.images, file_identity([self._file]), (self._translated.chunk,))

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`."""
        check_box(box, self.images[i_image], self._path)
        order = self._translated.order
        wanted = order.file_box(box)
        if self._fortran:
            wanted = Box(wanted.start[::-1], wanted.stop[::-1])
        array = read_array_box(self._file, self._offset, self._stored_shape, self._stored_dtype, wanted)
        return to_pixels(order.from_file(array.T if self._fortran else array))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _parse_header(file: RandomAccessFile) -> tuple[Ints, bool, np.dtype[np.generic], int]:
    stream = io.BytesIO(file.read_up_to(0, _MAX_HEADER_BYTES))
    try:
        version = npy_format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = npy_format.read_array_header_1_0(stream)
        elif version in ((2, 0), (3, 0)):
            shape, fortran, dtype = npy_format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"version {version}")
    except Exception as error:  # the header is a Python literal: numpy raises several types over damaged ones
        raise InputError(f"{file.path} has a damaged .npy header ({error})", "an array saved by numpy.save") from error
    if dtype.hasobject:
        raise InputError(
            f"{file.path} holds pickled Python objects, which could run any code when opened",
            "an array of plain numbers",
            "save it again with numpy.save(path, array, allow_pickle=False)",
        )
    if any(n < 0 for n in shape):
        raise InputError(f"{file.path} has a damaged .npy header (shape {shape})", "sizes of at least 0")
    return tuple(int(n) for n in shape), bool(fortran), dtype, stream.tell()
