"""CCITT group 4, the fax code of 1-bit pages (ITU-T T.6): made by libtiff by way of Pillow."""

import io

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image


def g4_encode(ink: npt.NDArray[np.bool_]) -> bytes:
    """Codes a 1-bit picture as one strip, most significant bit first, with the end-of-block code.

    The convention is the fax one: True is a black run. So it is "WhiteIsZero" in a TIFF, and `/BlackIs1 false` with
    DeviceGray in a PDF.

    Args:
        ink: (y, x), True = ink. Takes another byte a pixel.
    """
    packed = np.packbits(ink, axis=1)
    picture = Image.frombytes("1", (ink.shape[1], ink.shape[0]), packed.tobytes())
    file = io.BytesIO()
    picture.save(file, "TIFF", compression="group4", strip_size=packed.nbytes + 1)
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        (offset,), (count,) = page.dataoffsets, page.databytecounts
    return file.getvalue()[offset : offset + count]


def g4_decode(strip: bytes, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Decodes what `g4_encode` makes: (y, x) bool, True = ink."""
    return np.asarray(imagecodecs.ccittfax4_decode(strip, height=height, width=width), dtype=np.bool_)
