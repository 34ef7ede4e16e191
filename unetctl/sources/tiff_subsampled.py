"""Colours at a lower resolution than luminance, in TIFF files that are not JPEG (TIFF 6.0, section 21).

A strip is rows of units; a unit holds the luminances of `across` times `down` pixels and the Cb and Cr they share.
"""

import math
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from unetctl.geometry.box import Ints

# Decodes (bytes or None, segment number, jpegtables=..., jpegheader=...) to (array or None, place, shape).
Decoder = Callable[..., tuple[npt.NDArray[np.generic] | None, Ints, Ints]]

_LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS = 5, 8, 32946, 32773
SUBSAMPLED_CODECS = (1, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS)


def subsampled_decoder(page: Any) -> tuple[Decoder | None, str]:
    """Decoder of the strips or tiles of a tifffile page to (1, y, x, 3) uint8 YCbCr, or the reason why tis none."""
    told = page.subsampling or (2, 2)
    if (
        page.bitspersample != 8
        or page.samplesperpixel != 3
        or page.planarconfig != 1
        or page.predictor != 1
        or len(told) != 2
    ):
        return None, "chroma subsampling other than of 8-bit YCbCr"
    across, down = int(told[0]), int(told[1])
    if across not in (1, 2, 4) or down not in (1, 2, 4):
        return None, f"chroma subsampling {told}"
    height, width = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    num_rows, compression = int(page.imagelength), int(page.compression)
    is_tiled, num_strips = bool(page.is_tiled), math.ceil(num_rows / height) if height else 0

    def decode(data: bytes | None, i_segment: int) -> tuple[npt.NDArray[np.generic] | None, Ints, Ints]:
        rows = height
        if not is_tiled:
            rows = min(height, num_rows - i_segment % num_strips * height)
        shape = (1, rows, width, 3)
        if data is None:
            return None, (0,) * 5, shape
        grid = (math.ceil(rows / down), math.ceil(width / across), across * down + 2)
        units = _unpacked(data, compression, math.prod(grid))
        if units.size < math.prod(grid):
            raise ValueError(f"{units.size} bytes for {math.prod(grid)}")
        units = units[: math.prod(grid)].reshape(grid)
        luminance = units[..., :-2].reshape(*grid[:2], down, across).transpose(0, 2, 1, 3).reshape(grid[0] * down, -1)
        colours = units[..., -2:].repeat(down, axis=0).repeat(across, axis=1)
        pixels = np.concatenate([luminance[..., None], colours], axis=2)[:rows, :width]
        return pixels[None], (0,) * 5, shape

    return decode, ""


def _unpacked(data: bytes, compression: int, num_bytes: int) -> npt.NDArray[np.uint8]:
    raw: bytes | bytearray = data
    if compression == _LZW:
        raw = imagecodecs.lzw_decode(data, out=num_bytes)
    elif compression in (_DEFLATE, _OLD_DEFLATE):
        raw = imagecodecs.zlib_decode(data, out=num_bytes)
    elif compression == _PACKBITS:
        raw = imagecodecs.packbits_decode(data, out=num_bytes)
    return np.frombuffer(raw, np.uint8)
