"""Pages as frames of a GIF: up to 256 colours each, joined by copying their compressed data.

Ink, grey and pictures of few colours are kept exactly; others get the 256 colours that serve them best (median cut), each
frame its own. Source: GIF89a specification, CompuServe 1990.
"""

import io
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO

import numpy as np
from PIL import Image

from unetctl.errors import UsageError
from unetctl.sinks.page import BrokenPageError, Page

_MOST_COLOURS = 256
_TABLE, _INTERLACED, _TABLE_SIZE = 0x80, 0x40, 0x07
_LEAVE = 0x04  # a frame stays until the next one covers it
_MOST_DELAY, _LARGEST_SIDE = 65535, 65535
#: Of a frame that says nothing of its own, milliseconds.
DEFAULT_MS = 100


@dataclass(frozen=True)
class Timing:
    """How frames follow each other.

    Attributes:
        durations_ms: one a frame; GIF holds hundredths of a second.
        loop: how often they are shown again; 0: for ever; None: once.
    """

    durations_ms: tuple[int, ...]
    loop: int | None = 0


@dataclass(frozen=True)
class _Frame:
    """One picture of a GIF file: its size (y, x), colour table (bits of its length, bytes), and compressed data."""

    size: tuple[int, int]
    table_bits: int
    table: bytes
    is_interlaced: bool
    data: bytes


def encode_gif(page: Page) -> bytes:
    """One page as a GIF file of one frame. 1-bit pages are black where ink is; 16 bits become 8.

    Raises:
        UsageError: if a side is too long for GIF, or pixels have more than 16 bits.
    """
    pixels = page.rows(0, page.pixels.shape[0])
    if max(pixels.shape[:2]) > _LARGEST_SIDE or page.num_bits > 16:
        told = f"{pixels.shape[1]} x {pixels.shape[0]} pixels of {page.num_bits} bits in a GIF"
        raise UsageError(told, f"sides up to {_LARGEST_SIDE} pixels and 16 bits", "--format tiff")
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if page.is_one_bit:
        image = Image.fromarray(np.where(pixels, np.uint8(0), np.uint8(255)))
    elif pixels.ndim == 2:
        image = Image.fromarray(pixels)
    else:
        image = _with_palette(pixels)
    file = io.BytesIO()
    # Left as it is: some readers take the compacted table of a grey frame behind an uncompacted one for grey values.
    image.save(file, "GIF", interlace=0, optimize=False)
    return file.getvalue()


def join_gifs(file: IO[bytes], encoded: Iterable[IO[bytes]], timing: Timing, provenance: str) -> list[tuple[int, int]]:
    """Writes an animation of encoded pages; gives the sizes (y, x) of its frames.

    Raises:
        BrokenPageError: if one of them is no sound GIF of one frame, or they differ in size.
    """
    sizes: list[tuple[int, int]] = []
    for i, one in enumerate(encoded):
        (frame,) = _frames(one.read()) or (None,)
        if frame is None:
            raise BrokenPageError("a GIF without a frame")
        if not sizes:
            file.write(b"GIF89a" + struct.pack("<HHBBB", frame.size[1], frame.size[0], 0x70, 0, 0))
            if timing.loop is not None:
                file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<H", min(timing.loop, 65535)) + b"\0")
            if provenance:
                file.write(b"\x21\xfe" + _sub_blocks(provenance.encode("ascii", "replace")))
        elif frame.size != sizes[0]:
            raise BrokenPageError(f"a frame of {frame.size} after one of {sizes[0]}")
        delay = min(_MOST_DELAY, round(timing.durations_ms[i] / 10))
        file.write(b"\x21\xf9\x04" + struct.pack("<BHB", _LEAVE, delay, 0) + b"\0")
        flags = _TABLE | frame.table_bits | (_INTERLACED if frame.is_interlaced else 0)
        file.write(b"\x2c" + struct.pack("<HHHHB", 0, 0, frame.size[1], frame.size[0], flags))
        file.write(frame.table + frame.data)
        sizes.append(frame.size)
    file.write(b"\x3b")
    return sizes


def gif_sizes(file: IO[bytes]) -> list[tuple[int, int]]:
    """Sizes (y, x) of the frames of a GIF file that is there to its end.

    Raises:
        BrokenPageError: if it is not.
    """
    return [frame.size for frame in _frames(file.read())]


def _with_palette(pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> Image.Image:
    packed = (pixels.astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(-1, dtype=np.uint32)
    colours, indices = np.unique(packed, return_inverse=True)
    if len(colours) > _MOST_COLOURS:
        return Image.fromarray(pixels).quantize(_MOST_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    image = Image.fromarray(indices.reshape(packed.shape).astype(np.uint8), "L")
    image.putpalette(np.stack([colours >> 16 & 255, colours >> 8 & 255, colours & 255], 1).astype(np.uint8).tobytes())
    return image


def _frames(data: bytes) -> list[_Frame]:
    if data[:4] != b"GIF8" or len(data) < 14:
        raise BrokenPageError("no GIF file")
    try:
        return _parsed(data)
    except (IndexError, struct.error) as error:
        raise BrokenPageError("the GIF file ends early") from error


def _parsed(data: bytes) -> list[_Frame]:
    at, common, bits = 13, b"", 0
    if data[10] & _TABLE:
        bits = data[10] & _TABLE_SIZE
        at, common = at + (6 << bits), data[at : at + (6 << bits)]
    frames = []
    while data[at] != 0x3B:
        if data[at] == 0x21:
            at = _end_of_blocks(data, at + 2)
            continue
        if data[at] != 0x2C:
            raise BrokenPageError(f"the GIF file is damaged at byte {at}")
        width, height, flags = struct.unpack("<HHB", data[at + 5 : at + 10])
        at += 10
        own, own_bits = common, bits
        if flags & _TABLE:
            own_bits = flags & _TABLE_SIZE
            own, at = data[at : at + (6 << own_bits)], at + (6 << own_bits)
        stop = _end_of_blocks(data, at + 1)
        frames.append(_Frame((height, width), own_bits, own, bool(flags & _INTERLACED), data[at:stop]))
        at = stop
    return frames


def _end_of_blocks(data: bytes, at: int) -> int:
    while data[at]:
        at += data[at] + 1
    return at + 1


def _sub_blocks(data: bytes) -> bytes:
    pieces = [data[i : i + 255] for i in range(0, len(data), 255)]
    return b"".join(bytes([len(piece)]) + piece for piece in pieces) + b"\0"
