"""PNG pages: 1 bit a pixel, or grey and colour of 8 and 16 bits, with their resolution (pHYs).

Pillow writes neither colour of 16 bits nor a picture larger than memory; chunks are simple enough to be put together here.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from unetctl.sinks.page import BrokenPageError, Page

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BAND_BYTES = 8 << 20
_LEVEL = 3  # on photographs of pages half the time of 6, and 4 % larger
_LEVEL_OF_BITS = 6
_PAETH = 128  # libpng's number of the filter that photographs of pages compress best with


def encode_png(page: Page) -> bytes:
    """One page as a PNG file. 1-bit pages are grey with 0 = ink."""
    height, width = page.pixels.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, page.num_bits, 2 if page.num_samples == 3 else 0, 0, 0, 0)
    chunks = [(b"IHDR", head)]
    if page.usable_icc is not None:
        chunks.append((b"iCCP", b"icc\0\0" + zlib.compress(page.usable_icc, 9)))
    if page.usable_dpi is not None:
        y, x = (round(dpi / 0.0254) for dpi in page.usable_dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", max(1, x), max(1, y), 1)))
    chunks += [(b"IDAT", piece) for piece in deflated_rows(page)]
    chunks.append((b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(name, data) for name, data in chunks)


def write_png(file: IO[bytes], encoded: IO[bytes], provenance: str) -> tuple[int, int]:
    """Copies an encoded page, with `provenance` as its Software text, and returns its size (y, x).

    Raises:
        BrokenPageError: if `encoded` is not a sound PNG file.
    """
    file.write(_SIGNATURE)
    size = (0, 0)
    for name, data in chunks_of(encoded):
        file.write(_chunk(name, data))
        if name == b"IHDR":
            width, height = struct.unpack(">II", data[:8])
            size = (height, width)
            if provenance:
                text = provenance.encode("latin-1", "replace").replace(b"\0", b" ")
                file.write(_chunk(b"tEXt", b"Software\0" + text))
    return size


def png_size(file: IO[bytes]) -> tuple[int, int]:
    """Size (y, x) of a PNG file whose chunks are all there and unharmed.

    Raises:
        BrokenPageError: if they are not.
    """
    size = (0, 0)
    for name, data in chunks_of(file):
        if name == b"IHDR":
            width, height = struct.unpack(">II", data[:8])
            size = (height, width)
    return size


def chunks_of(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of a PNG file's chunks, one at a time, checksums compared.

    Raises:
        BrokenPageError: if it is no PNG file, or ends before its end.
    """
    if file.read(8) != _SIGNATURE:
        raise BrokenPageError("no PNG file")
    name = b""
    while name != b"IEND":
        head = file.read(8)
        if len(head) < 8:
            raise BrokenPageError("the PNG file ends early")
        length, name = struct.unpack(">I4s", head)
        data = file.read(length)
        if file.read(4) != struct.pack(">I", zlib.crc32(name + data)):
            raise BrokenPageError(f"the PNG file is damaged in its chunk {name!r}")
        yield name, data


def deflated_rows(page: Page) -> Iterator[bytes]:
    """The pieces of one zlib stream: rows of big-endian samples, each behind the number of its PNG filter."""
    if page.is_one_bit:
        yield from _deflated_bits(page)
    else:
        coded = imagecodecs.png_encode(page.rows(0, page.pixels.shape[0]), _LEVEL, filter=_PAETH)
        yield from (data for name, data in chunks_of(io.BytesIO(coded)) if name == b"IDAT")


def inflated_rows(deflated: bytes, shape: tuple[int, ...], num_bits: int) -> npt.NDArray[Any]:
    """Pixels from what `deflated_rows` has made of a page of 8 or 16 bits.

    Args:
        deflated: the whole stream.
        shape: (y, x) or (y, x, 3).
        num_bits: 8 or 16.
    """
    head = struct.pack(">IIBBBBB", shape[1], shape[0], num_bits, 2 if len(shape) == 3 else 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", deflated), (b"IEND", b"")]
    pixels = imagecodecs.png_decode(_SIGNATURE + b"".join(_chunk(name, data) for name, data in chunks))
    return np.asarray(pixels).reshape(shape)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _deflated_bits(page: Page) -> Iterator[bytes]:
    """Rows of packed bits, unfiltered, as the PNG specification (12.7) advises below 8 bits."""
    height, width = page.pixels.shape
    num_rows = max(1, _BAND_BYTES // (width // 8 + 2))
    deflate = zlib.compressobj(_LEVEL_OF_BITS)
    for start in range(0, height, num_rows):
        bits = np.packbits(~page.rows(start, start + num_rows), axis=1)
        if piece := deflate.compress(np.insert(bits, 0, 0, axis=1).tobytes()):
            yield piece
    yield deflate.flush()
