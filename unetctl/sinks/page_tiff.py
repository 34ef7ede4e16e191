"""TIFF pages: 1-bit ones in CCITT group 4, grey and colour deflated; joined by copying their compressed strips.

tifffile writes no fax code and Pillow, when it joins pages, codes them anew, so the container is written here: for each page its
directory, what does not fit into it, its strips; nothing is ever patched. Little-endian TIFF 6.0, BigTIFF above 4 GiB.
"""

import io
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import IO

import imagecodecs
import tifffile

from unetctl.sinks.page import BrokenPageError, Page
from unetctl.sinks.page_g4 import g4_encode

CLASSIC_BYTES = 2**32 - 2**25
"""Largest file that is written with 32-bit offsets."""

_G4_STRIP_BYTES = 8 << 20  # of packed bits: one strip for all but posters, as fax software likes it
_STRIP_BYTES = 1 << 20
_DEFLATE_LEVEL = 3
_SHORT, _LONG, _RATIONAL, _UNDEFINED, _ASCII, _LONG8 = 3, 4, 5, 7, 2, 16
_SIZES = {_ASCII: 1, _SHORT: 2, _LONG: 4, _RATIONAL: 8, _UNDEFINED: 1, _LONG8: 8}
_OFFSETS, _COUNTS = 273, 279
_MADE_HERE = {254, _OFFSETS, _COUNTS, 297, 305}  # tags that joining writes anew

Tags = dict[int, tuple[int, Sequence[int] | bytes]]
"""Type and values of a directory's entries, by tag; a rational is two values."""


@dataclass(frozen=True)
class Layout:
    """How large the numbers of a file are: those of TIFF or of BigTIFF."""

    is_big: bool

    @property
    def header(self) -> bytes:
        """The file's first bytes, with the first directory right behind them."""
        return struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if self.is_big else struct.pack("<2sHI", b"II", 42, 8)

    def directory_bytes(self, num_entries: int) -> int:
        """Size of a directory without what its entries point to."""
        return 16 + 20 * num_entries if self.is_big else 6 + 12 * num_entries


def encode_tiff(page: Page) -> bytes:
    """One page as a TIFF file.

    1-bit: CCITT group 4, WhiteIsZero (so ink is black in viewers that ignore the tag, as faxes are), one strip up
    to 67 Mpx. Grey and colour: deflated with horizontal differences, strips of 1 MiB.
    """
    height, width = page.pixels.shape[:2]
    row_bytes = -(-width * page.num_samples * page.num_bits // 8)
    num_rows = min(height, max(1, (_G4_STRIP_BYTES if page.is_one_bit else _STRIP_BYTES) // row_bytes))
    strips = [_strip(page, start, min(height, start + num_rows)) for start in range(0, height, num_rows)]
    photometric = 0 if page.is_one_bit else 1 if page.num_samples == 1 else 2
    tags: Tags = {
        256: (_LONG, (width,)),
        257: (_LONG, (height,)),
        258: (_SHORT, (page.num_bits,) * page.num_samples),
        259: (_SHORT, (4 if page.is_one_bit else 8,)),
        262: (_SHORT, (photometric,)),
        274: (_SHORT, (1,)),
        277: (_SHORT, (page.num_samples,)),
        278: (_LONG, (num_rows,)),
        284: (_SHORT, (1,)),
    }
    if page.is_one_bit:
        tags |= {266: (_SHORT, (1,)), 293: (_LONG, (0,))}  # most significant bit first; no uncompressed mode
    else:
        tags[317] = (_SHORT, (2,))
    if page.usable_dpi is not None:
        y, x = (Fraction(dpi).limit_denominator(4000) for dpi in page.usable_dpi)
        tags |= {282: (_RATIONAL, x.as_integer_ratio()), 283: (_RATIONAL, y.as_integer_ratio()), 296: (_SHORT, (2,))}
    if page.usable_icc is not None:
        tags[34675] = (_UNDEFINED, page.usable_icc)
    file = io.BytesIO()
    layout = Layout(sum(map(len, strips)) > CLASSIC_BYTES)
    file.write(layout.header)
    _write_page(file, layout, tags, [len(strip) for strip in strips], strips, is_last=True)
    return file.getvalue()


def join_tiffs(
    file: IO[bytes], encoded: Iterable[IO[bytes]], num_pages: int, num_bytes: int, provenance: str
) -> list[tuple[int, int]]:
    """Writes a file of encoded pages, one page in memory at a time, and returns their sizes (y, x).

    Args:
        file: where to, at its start.
        encoded: what `encode_tiff` has made, in order.
        num_pages: how many `encoded` has.
        num_bytes: of all encoded pages: decides on BigTIFF.
        provenance: for the tag Software; "" leaves it away.

    Raises:
        BrokenPageError: if an encoded page cannot be read.
    """
    layout = Layout(num_bytes + 1024 * num_pages > CLASSIC_BYTES)
    file.write(layout.header)
    sizes: list[tuple[int, int]] = []
    for i_page, one in enumerate(encoded):
        tags, counts, strips, size = _read_page(one)
        sizes.append(size)
        tags[254] = (_LONG, (2 if num_pages > 1 else 0,))
        if 1 < num_pages < 2**16:
            tags[297] = (_SHORT, (i_page, num_pages))
        if provenance:
            tags[305] = (_ASCII, provenance.encode("ascii", "replace").replace(b"\0", b" ") + b"\0")
        _write_page(file, layout, tags, counts, strips, is_last=i_page == num_pages - 1)
    return sizes


def tiff_sizes(file: IO[bytes]) -> list[tuple[int, int]]:
    """Sizes (y, x) of all pages of a file whose strips all lie inside it.

    Raises:
        BrokenPageError: if they do not, or it cannot be read.
    """
    num_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    sizes: list[tuple[int, int]] = []
    try:
        with tifffile.TiffFile(file) as tiff:
            for page in tiff.pages:
                assert isinstance(page, tifffile.TiffPage)
                ends = [start + n for start, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
                if not ends or max(ends) > num_bytes or min(page.databytecounts) < 1:
                    raise BrokenPageError(f"page {len(sizes) + 1} of the TIFF file is not all there")
                sizes.append((page.imagelength, page.imagewidth))
    except (tifffile.TiffFileError, struct.error, KeyError, TypeError, ValueError) as error:
        raise BrokenPageError(f"the TIFF file cannot be read ({error})") from error
    return sizes


def _strip(page: Page, start: int, stop: int) -> bytes:
    rows = page.rows(start, stop)
    if page.is_one_bit:
        return g4_encode(rows)
    differences = rows.astype(rows.dtype.newbyteorder("<"))
    differences[:, 1:] -= rows[:, :-1]
    return bytes(imagecodecs.deflate_encode(differences.tobytes(), _DEFLATE_LEVEL))


def _read_page(one: IO[bytes]) -> tuple[Tags, list[int], list[bytes], tuple[int, int]]:
    """Tags (without those that joining makes), strips' sizes and strips of an encoded page, and its size (y, x)."""
    try:
        with tifffile.TiffFile(one) as tiff:
            page = tiff.pages.first
            tags: Tags = {}
            for tag in page.tags:
                if tag.code not in _MADE_HERE:
                    value = tag.value if isinstance(tag.value, tuple | bytes) else (int(tag.value),)
                    tags[tag.code] = (int(tag.dtype), value)
            counts = list(page.databytecounts)
            strips = []
            for offset, count in zip(page.dataoffsets, counts, strict=True):
                tiff.filehandle.seek(offset)
                strips.append(tiff.filehandle.read(count))
                if len(strips[-1]) != count:
                    raise BrokenPageError("the TIFF file ends early")
            return tags, counts, strips, (page.imagelength, page.imagewidth)
    except (tifffile.TiffFileError, struct.error, KeyError, TypeError, ValueError) as error:
        raise BrokenPageError(f"the TIFF file cannot be read ({error})") from error


def _write_page(
    file: IO[bytes], layout: Layout, tags: Tags, counts: Sequence[int], strips: Iterable[bytes], *, is_last: bool
) -> None:
    """Writes directory, long values and strips at the end of the file, where the directory before says that they are."""
    at = file.tell()
    word, kind, inline = (8, _LONG8, "<HHQ8s") if layout.is_big else (4, _LONG, "<HHI4s")
    all_tags = {**tags, _COUNTS: (kind, counts), _OFFSETS: (kind, counts)}  # offsets: as many; filled in below
    data_at = at + layout.directory_bytes(len(all_tags))
    places: dict[int, int] = {}
    for tag, (dtype, values) in sorted(all_tags.items()):
        if _num_bytes(dtype, values) > word:
            places[tag] = data_at
            data_at += -(-_num_bytes(dtype, values) // 2) * 2
    offsets = []
    end = data_at
    for count in counts:
        offsets.append(end)
        end += -(-count // 2) * 2
    all_tags[_OFFSETS] = (kind, offsets)

    entries, long_values = [], []
    for tag, (dtype, values) in sorted(all_tags.items()):
        packed = _packed(dtype, values)
        num_values = len(packed) // _SIZES[dtype]
        if tag in places:
            long_values.append(packed + b"\0" * (len(packed) % 2))
            packed = places[tag].to_bytes(word, "little")
        entries.append(struct.pack(inline, tag, dtype, num_values, packed))
    file.write(struct.pack("<Q" if layout.is_big else "<H", len(entries)))
    file.write(b"".join(entries))
    file.write((0 if is_last else end).to_bytes(word, "little"))
    file.write(b"".join(long_values))
    for strip in strips:
        file.write(strip + b"\0" * (len(strip) % 2))


def _num_bytes(dtype: int, values: Sequence[int] | bytes) -> int:
    return len(values) * (4 if dtype == _RATIONAL else _SIZES[dtype])


def _packed(dtype: int, values: Sequence[int] | bytes) -> bytes:
    if isinstance(values, bytes):
        return values
    return b"".join(value.to_bytes(4 if dtype == _RATIONAL else _SIZES[dtype], "little") for value in values)
