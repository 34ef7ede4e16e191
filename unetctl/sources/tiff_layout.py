"""How the pixels of a TIFF page are stored: shape, type, segments, decoder.

The library tifffile interprets the tags and decodes segments (with imagecodecs); reading the bytes, choosing the
segments and refusing what cannot be true is ours.
"""

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from unetctl.errors import InputError
from unetctl.geometry.box import Ints
from unetctl.sources.tiff_index import Page
from unetctl.sources.tiff_subsampled import SUBSAMPLED_CODECS, Decoder, subsampled_decoder

_JPEG = (6, 7, 34892, 33007)
# No codec gives more bytes than these for one; where the format sets no bound of note, what real files stay far below.
_MOST_BYTES_OUT_PER_BYTE_IN = {1: 1, 32773: 64, 8: 1040, 32946: 1040, 5: 1500}
_MOST_BYTES_OTHERWISE = 200_000
_CCITT = (2, 3, 4)
_MAX_CHECKED_SEGMENTS = 1 << 16


@dataclass(frozen=True)
class Layout:
    """What pages that are stored alike have in common.

    Five-dimensional shapes are (planar samples, z, y, x, interleaved samples).

    Attributes:
        shaped: (s, z, y, x, c) of a page.
        segment: (z, y, x, c) of a strip or tile.
        dtype: of decoded pixels, native.
        stored_dtype: of pixels as they lie in the file.
        bits: bits a sample.
        is_direct: True if the file holds the pixels as they are, so that any rows can be read alone.
        is_tiled: tiles (each of full size) or strips (the last one shorter).
        compression: TIFF code.
        photometric: TIFF code.
        planar: 1 interleaved, 2 separate planes.
        extra_samples: TIFF codes of the samples beside the colours.
        colormap: (3, entries) uint16 or None.
        orientation: TIFF code, 1 to 8.
        subfile_type: TIFF bits: 1 reduced, 4 mask.
        fill: value of segments that the file leaves out.
        decode: of one segment; None if tifffile has none for it, with `refusal` saying why.
        jpeg_header: for segments that need one.
        refusal: why there is no decoder.
    """

    shaped: tuple[int, int, int, int, int]
    segment: tuple[int, int, int, int]
    dtype: np.dtype[np.generic]
    stored_dtype: np.dtype[np.generic]
    bits: int
    is_direct: bool
    is_tiled: bool
    compression: int
    photometric: int
    planar: int
    extra_samples: Ints
    colormap: npt.NDArray[np.uint16] | None
    orientation: int
    subfile_type: int
    fill: float
    decode: Decoder | None
    jpeg_header: bytes | None
    refusal: str

    @property
    def grid(self) -> tuple[int, int, int, int]:
        """Number of segments (planar samples, z, y, x)."""
        s, z, y, x, _ = self.shaped
        return (s, *(math.ceil(n / d) for n, d in zip((z, y, x), self.segment[:3], strict=True)))  # type: ignore[return-value]

    @property
    def segment_bytes(self) -> int:
        """Bytes of a decoded segment of full size."""
        return math.prod(self.segment) * self.dtype.itemsize

    @property
    def page_bytes(self) -> int:
        """Bytes of a decoded page."""
        return math.prod(self.shaped) * self.dtype.itemsize

    @property
    def axes(self) -> str:
        """Letters of a page's axes, those of size 1 left out: "s" samples, "z", "y", "x"."""
        s, z, _, _, c = self.shaped
        return ("s" if s > 1 else "") + ("z" if z > 1 else "") + "yx" + ("s" if c > 1 else "")

    @property
    def shape(self) -> Ints:
        """Sizes in the order of `axes`."""
        s, z, y, x, c = self.shaped
        return (*((s,) if s > 1 else ()), *((z,) if z > 1 else ()), y, x, *((c,) if c > 1 else ()))

    @property
    def chunk(self) -> Ints:
        """Cheapest box of a page, in the order of `axes`."""
        z, y, x, c = self.segment
        rows = 1 if self.is_direct and not self.is_tiled else y
        s_planar, z_all, *_ = self.shaped
        return (
            *((1,) if s_planar > 1 else ()),
            *((z,) if z_all > 1 else ()),
            rows,
            x,
            *((c,) if self.shaped[4] > 1 else ()),
        )

    def as_one_strip(self) -> "Layout":
        """The same page with all its pixels in one piece, uncompressed."""
        _, _, y, x, c = self.shaped
        return replace(self, segment=(1, y, x, c), is_tiled=False)

    @property
    def is_jpeg(self) -> bool:
        """True if segments are JPEG streams (decoded to RGB where they are colour pictures)."""
        return self.compression in _JPEG

    @property
    def bytes_out_per_byte_in(self) -> int:
        """No segment decodes to more bytes than this for each byte that it has in the file."""
        # samples of fewer bits than their dtype has are spread out
        spread = math.ceil(8 * self.dtype.itemsize / self.bits) if self.bits else 1
        return max(1, spread) * _MOST_BYTES_OUT_PER_BYTE_IN.get(self.compression, _MOST_BYTES_OTHERWISE)


def layout_of(path: str, ifd_offset: int) -> Layout:
    """Layout of the page whose directory lies at `ifd_offset`.

    Raises:
        InputError: if tifffile cannot make sense of the directory.
    """
    with quiet_tifffile():
        try:
            with tifffile.TiffFile(path, is_ndpi=False) as tif:
                page: Any = tif.pages.first
                if page.offset != ifd_offset:
                    tif.filehandle.seek(ifd_offset)
                    page = tifffile.TiffPage(tif, 0)
                return layout_from_page(page, path)
        except InputError:
            raise
        except Exception as error:  # damaged tags surface as any type of exception
            raise InputError(
                f"{path} has a damaged page ({type(error).__name__}: {error})", "a sound TIFF file"
            ) from error


def layout_from_page(page: Any, path: str) -> Layout:
    """Layout of a tifffile page, checked for sense.

    Raises:
        InputError: if sizes are 0 or sample types are unknown or mixed.
    """
    if page.dtype is None:
        told = f"{page.bitspersample} bits a sample, sample format {page.sampleformat}"
        raise InputError(
            f"{path} has pixels of an unknown type ({told})",
            "integers or floats of at most 64 bits",
            "convert it",
        )
    shaped = tuple(int(n) for n in page.shaped)
    tiled = bool(page.is_tiled)
    segment = (
        (int(page.tiledepth), int(page.tilelength), int(page.tilewidth), shaped[4])
        if tiled
        else (1, int(page.rowsperstrip), shaped[3], shaped[4])
    )
    if min(shaped) <= 0 or min(segment) <= 0:
        raise InputError(
            f"{path} has a page of shape {shaped} in pieces of {segment}",
            "sizes above 0",
            "the file is damaged",
        )
    decode, refusal = _decoder(page)
    bits = page.bitspersample if isinstance(page.bitspersample, int) else 0
    direct = (
        page.compression == 1
        and page.predictor == 1
        and page.fillorder == 1
        and bits == page.dtype.itemsize * 8
        and page.dtype.kind in "uif"
        and not page.is_subsampled
    )
    colormap = page.colormap if page.photometric == 3 and page.colormap is not None else None
    tag = page.tags.get(274)
    orientation = tag.value if tag is not None and tag.value in range(1, 9) else 1
    return Layout(
        shaped=shaped,  # type: ignore[arg-type]
        segment=segment,
        dtype=np.dtype(page.dtype),
        stored_dtype=np.dtype(page.dtype).newbyteorder(page.parent.byteorder),
        bits=bits,
        is_direct=bool(direct),
        is_tiled=tiled,
        compression=int(page.compression),
        photometric=int(page.photometric),
        planar=int(page.planarconfig),
        extra_samples=tuple(int(e) for e in page.extrasamples),
        colormap=colormap,
        orientation=int(orientation),
        subfile_type=int(page.subfiletype),
        fill=float(page.nodata or 0),
        decode=decode,
        jpeg_header=page.jpegheader,
        refusal=refusal,
    )


def _decoder(page: Any) -> tuple[Decoder | None, str]:
    """Tifffile's decoder, or the reason why it has none (its stand-ins raise even without data)."""
    if page.is_subsampled and page.compression in SUBSAMPLED_CODECS:
        return subsampled_decoder(page)
    try:
        decode = page.decode
        decode(None, 0)
    except Exception as error:
        return None, str(error)
    return decode, ""


def check_page(layout: Layout, page: Page, max_bytes: int) -> None:
    """Refuses a page whose declared size cannot be in the file, before anything of that size is allocated.

    Args:
        layout: of the page.
        page: its segments.
        max_bytes: that one segment may take when decoded.

    Raises:
        InputError: saying what is declared and what is there.
    """
    path, size = page.file.path, page.file.size
    shape = " x ".join(str(n) for n in layout.shape)
    told = f"{path} declares a page of {shape} {layout.dtype} ({human_bytes(layout.page_bytes)})"
    needed = math.prod(layout.grid)
    if page.offsets.count < needed:
        raise InputError(
            f"{told} in {needed} segments, but lists {page.offsets.count} and has {human_bytes(size)}",
            "all of them",
            "the file is cut off or damaged",
        )
    if not layout.is_direct and layout.segment_bytes > max_bytes:
        raise InputError(
            f"{told} in compressed pieces of {human_bytes(layout.segment_bytes)}, of which each must be decoded whole",
            f"at most {human_bytes(max_bytes)}",
            "allow more memory, or save it as a tiled OME-TIFF",
        )
    num_checked = min(needed, _MAX_CHECKED_SEGMENTS)
    first = page.offsets.slice(0, num_checked)
    last = page.offsets.slice(needed - num_checked, needed)
    if layout.is_direct:
        _check_direct(layout, first, last, told, size)
        return
    if page.counts.count < needed:
        raise InputError(
            f"{told} in {needed} segments, but gives {page.counts.count} lengths",
            "one a segment",
            "the file is damaged",
        )
    lengths, last_lengths = page.counts.slice(0, num_checked), page.counts.slice(needed - num_checked, needed)
    for begin, length in ((first, lengths), (last, last_lengths)):
        used = length > 0
        if used.any() and (
            int(begin[used].min()) <= 0 or int((begin + length)[used].max()) > size or int(length.min()) < 0
        ):
            end = int((begin + length)[used].max())
            raise InputError(
                f"{told} up to byte {end}, but has {size} bytes",
                "all of it",
                "the file is cut off or damaged: copy it again",
            )
    if layout.compression in _CCITT:
        return  # a blank row of any width takes one bit
    num_used = int((lengths > 0).sum())
    promised = (
        min(num_used * layout.segment_bytes, layout.page_bytes)
        if num_checked == needed
        else num_used * layout.segment_bytes
    )
    if promised > layout.bytes_out_per_byte_in * int(lengths.sum()) + 4096:
        raise InputError(
            f"{told}, but the file gives {human_bytes(int(lengths.sum()))} for it",
            "the pixels it declares",
            "the file is damaged",
        )


def _check_direct(
    layout: Layout, first: npt.NDArray[np.int64], last: npt.NDArray[np.int64], told: str, size: int
) -> None:
    used = np.concatenate([first[first > 0], last[last > 0]])
    begin = int(used.max()) if used.size else 0
    # the last strip may hold fewer rows than the others
    rows = layout.segment[1] if layout.is_tiled else (layout.shaped[2] - 1) % layout.segment[1] + 1
    shortest = layout.segment_bytes // layout.segment[1] * rows
    if not used.size and not (layout.is_tiled or len(first) > 1):
        raise InputError(f"{told}, but none of its pixels", "pixels in the file", "the file is damaged")
    if used.size and (int(used.min()) < 0 or begin + shortest > size):
        raise InputError(
            f"{told} up to byte {begin + shortest}, but has {size} bytes",
            "all of it",
            "the file is cut off: copy it again",
        )


def human_bytes(count: float) -> str:
    """A number of bytes as people read it, in binary units."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if count < 1024 or unit == "PiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"


class _Mute(logging.Filter):
    """Drops what tifffile logs in threads that are inside one of our calls; other users of it keep their messages."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(self.inside, "depth", 0)


_MUTE = _Mute()
logging.getLogger("tifffile").addFilter(_MUTE)


@contextmanager
def quiet_tifffile() -> Iterator[None]:
    """Tifffile logs nothing inside; what is wrong with a file is said in our words."""
    _MUTE.inside.depth = getattr(_MUTE.inside, "depth", 0) + 1
    try:
        yield
    finally:
        _MUTE.inside.depth -= 1
