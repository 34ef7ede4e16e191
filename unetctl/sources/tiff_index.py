"""The chain of image directories (IFDs) of a TIFF file, walked once and kept in two small arrays.

No Python object is kept a page: a page's tags are parsed again when its pixels are wanted, and its table of segment
positions is read only where it is needed (TIFF 6.0, section 2; BigTIFF design of 2007).
"""

import struct
from array import array
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.sources.files import RandomAccessFile

# dtype of one value by TIFF type; 5 and 10 (fractions) are two values
_TYPES = {
    1: "u1",
    2: "u1",
    3: "u2",
    4: "u4",
    5: "u4",
    6: "i1",
    7: "u1",
    8: "i2",
    9: "i4",
    10: "i4",
    11: "f4",
    12: "f8",
}
_TYPES |= {13: "u4", 16: "u8", 17: "i8", 18: "u8"}
_FRACTIONS = (5, 10)
_SIZES = {kind: np.dtype(name).itemsize * (2 if kind in _FRACTIONS else 1) for kind, name in _TYPES.items()}
_DTYPES = {(order, kind): np.dtype(order + name) for kind, name in _TYPES.items() for order in "<>"}
_MAX_TAGS = 4096
_IFD_BYTES = 1024
_NUM_CACHED_PAGES = 256
_MAX_PREFETCHED = 8192
_MAX_SIGNATURE_BYTES = 1 << 20

# tags that decide how pixels are decoded; two pages alike in all of them share one layout
_LAYOUT_TAGS = frozenset(
    (
        254,
        255,
        256,
        257,
        258,
        259,
        262,
        266,
        274,
        277,
        278,
        284,
        292,
        317,
        320,
        322,
        323,
        338,
        339,
        530,
        32997,
        32998,
        42113,
    )
)
_OFFSET_TAGS = (324, 273, 513)
_COUNT_TAGS = (325, 279, 514)


@dataclass(frozen=True)
class Tag:
    """One entry of a directory: TIFF type, number of values, byte position of the values in the file."""

    kind: int
    count: int
    position: int


@dataclass(frozen=True)
class Table:
    """Numbers that lie one after another in a file (segment positions, segment lengths).

    Attributes:
        file: where they lie; None if `held` has them.
        position: byte position of the first one.
        dtype: of one number, with byte order.
        count: how many there are.
        held: the numbers themselves where no file has them.
    """

    file: RandomAccessFile | None
    position: int
    dtype: np.dtype[np.generic]
    count: int
    held: npt.NDArray[np.int64] | None = None

    @classmethod
    def of(cls, values: npt.NDArray[np.int64]) -> "Table":
        """A table that is in memory."""
        return cls(None, 0, values.dtype, len(values), values)

    def slice(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Numbers ``[start, stop)`` as int64.

        Raises:
            InputError: if the table is shorter or lies outside the file.
        """
        if not 0 <= start <= stop <= self.count:
            raise InputError(f"a page lists {self.count} segments", f"at least {stop}", "the file is damaged")
        if self.held is not None or self.file is None:
            return self.held[start:stop] if self.held is not None else np.zeros(0, np.int64)
        size = self.dtype.itemsize
        data = self.file.read_at(self.position + start * size, (stop - start) * size)
        return np.frombuffer(data, self.dtype).astype(np.int64)


@dataclass(frozen=True)
class Page:
    """Where the pixels of one page lie.

    Attributes:
        file: that holds them.
        key: identifies the page inside the file (position of its directory or of its first byte).
        offsets: byte position of each segment.
        counts: length of each segment in bytes.
        jpeg_tables: shared tables of JPEG segments, or None.
    """

    file: RandomAccessFile
    key: int
    offsets: Table
    counts: Table
    jpeg_tables: bytes | None = None


class TiffIndex:
    """Directories of the main chain of a TIFF or BigTIFF file.

    Attributes:
        file: the file.
        order: "<" or ">".
        is_big: True for BigTIFF.
        offsets: (pages,) int64, byte position of each directory.
        layout_ids: (pages,) int32; pages with the same number are stored alike.
        first_of_layout: the first page of each layout.

    Raises:
        InputError: if the file is no TIFF, or a directory lies outside the file, is damaged, or the chain is a circle.
    """

    def __init__(self, file: RandomAccessFile) -> None:
        self.file = file
        head = file.read_up_to(0, 16)
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = struct.unpack(self.order + "H", head[2:4])[0] if self.order and len(head) >= 8 else 0
        self.is_big = version == 43 and len(head) == 16
        if version not in (42, 43) or (version == 43 and head[4:8] != struct.pack(self.order + "HH", 8, 0)):
            raise InputError(f"{file.path} has a damaged TIFF header")
        self._count_format, self._count_bytes = (self.order + "Q", 8) if self.is_big else (self.order + "H", 2)
        self._entry = struct.Struct(self.order + ("HHQ8s" if self.is_big else "HHI4s"))
        self._pointer = struct.Struct(self.order + ("Q" if self.is_big else "I"))
        self._inline = self._pointer.size
        first = self._pointer.unpack_from(head, 8 if self.is_big else 4)[0]
        self._walk(first)
        self._parsed: dict[int, dict[int, Tag]] = {}

    def _walk(self, offset: int) -> None:
        offsets, ids = array("q"), array("i")
        signatures: dict[bytes, int] = {}
        firsts: list[int] = []
        circle_mark, next_mark = -1, 1  # Brent's way of finding circles without keeping a set
        mask, masked, i_layout, num_tag_bytes = 0, -1, 0, 0
        stride = num_equal = 0
        while offset:
            if offset == circle_mark:
                raise InputError(f"{self.file.path} has directories that point back at each other", "a chain that ends")
            if len(offsets) == next_mark:
                circle_mark, next_mark = offset, 2 * next_mark
            raw, following = self._read_directory(offset, len(offsets))
            if len(raw) != num_tag_bytes or int.from_bytes(raw, "little") & mask != masked:
                i_layout = signatures.setdefault(self._signature(raw), len(firsts))
                if i_layout == len(firsts):
                    firsts.append(len(offsets))
                mask, num_tag_bytes = self._layout_mask(raw), len(raw)
                masked = int.from_bytes(raw, "little") & mask if mask else -1
            offsets.append(offset)
            ids.append(i_layout)
            num_equal = num_equal + 1 if following - offset == stride else 0
            stride = following - offset
            self._prefetch(offset, stride, num_equal)
            offset = following
        if not offsets:
            raise InputError(f"{self.file.path} is a TIFF file without any page")
        self.offsets = np.frombuffer(offsets, np.int64)
        self.layout_ids = np.frombuffer(ids, np.int32)
        self.first_of_layout = tuple(firsts)

    def _prefetch(self, offset: int, stride: int, num_equal: int) -> None:
        """Where pages are of equal size, asks for directories far ahead, the farther the longer the row of equal pages.

        One read waiting for another would make 20,000 pages on a cold disk take as many round trips.
        """
        if num_equal and num_equal & (num_equal - 1) == 0 and num_equal < _MAX_PREFETCHED:
            ahead = num_equal
        elif num_equal and num_equal % _MAX_PREFETCHED == 0:
            ahead = _MAX_PREFETCHED
        else:
            return
        self.file.prefetch((offset + i * stride for i in range(ahead, 3 * ahead)), _IFD_BYTES)

    def _read_directory(self, offset: int, i_page: int) -> tuple[bytes, int]:
        """The entries of a directory, undecoded, and the position of the next one (0 after the last)."""
        buffer = self.file.read_up_to(offset, _IFD_BYTES)
        if len(buffer) < self._count_bytes:
            raise InputError(
                f"{self.file.path} has {self.file.size} bytes, but page {i_page} is said to start at byte {offset}",
                "pages inside the file",
                "the file is cut off or damaged: copy it again",
            )
        num_tags = struct.unpack_from(self._count_format, buffer)[0]
        if not 0 < num_tags <= _MAX_TAGS:
            raise InputError(
                f"{self.file.path} lists {num_tags} tags for page {i_page}",
                f"1 to {_MAX_TAGS}",
                "the file is damaged",
            )
        end = self._count_bytes + num_tags * self._entry.size
        if end + self._pointer.size > len(buffer):
            buffer = self.file.read_at(offset, end + self._pointer.size)
        return buffer[self._count_bytes : end], self._pointer.unpack_from(buffer, end)[0]

    def _signature(self, raw: bytes) -> bytes:
        """Everything in a directory that decides how its pixels are decoded."""
        parts: dict[int, bytes] = {}
        for code, kind, count, inline in self._entry.iter_unpack(raw):
            if code not in _LAYOUT_TAGS or kind not in _TYPES or code in parts:
                continue
            size, value = count * _SIZES[kind], inline
            if size > self._inline:
                position = self._pointer.unpack(inline)[0]
                if size > _MAX_SIGNATURE_BYTES or position + size > self.file.size:
                    continue  # a damaged tag; the layout treats it as missing
                value = self.file.read_at(position, size)
            parts[code] = struct.pack("<HHQ", code, kind, count) + value[:size]
        return b"".join(parts.values())

    def _layout_mask(self, raw: bytes) -> int:
        """Bits of a directory that are alike in pages of one layout: codes; types, counts and values of layout tags.

        0 if a layout tag's value lies elsewhere in the file, so that these bits do not decide.
        """
        mask = bytearray(b"\xff" * len(raw))
        for i, (code, kind, count, _) in enumerate(self._entry.iter_unpack(raw)):
            is_inline = kind in _TYPES and count * _SIZES[kind] <= self._inline
            if code in _LAYOUT_TAGS and not is_inline:
                return 0
            if code not in _LAYOUT_TAGS:
                mask[i * self._entry.size + 2 : (i + 1) * self._entry.size] = bytes(self._entry.size - 2)
        return int.from_bytes(mask, "little")

    def __len__(self) -> int:
        return len(self.offsets)

    def tags(self, i_page: int) -> dict[int, Tag]:
        """Entries of a page's directory whose values lie inside the file."""
        tags = self._parsed.get(i_page)
        if tags is None:
            tags = self._parse_tags(i_page)
            if len(self._parsed) >= _NUM_CACHED_PAGES:
                self._parsed.clear()  # one step under the GIL: safe beside other threads
            self._parsed[i_page] = tags
        return tags

    def _parse_tags(self, i_page: int) -> dict[int, Tag]:
        offset = int(self.offsets[i_page])
        raw, _ = self._read_directory(offset, i_page)
        tags: dict[int, Tag] = {}
        for i, (code, kind, count, value) in enumerate(self._entry.iter_unpack(raw)):
            if kind not in _TYPES or code in tags:
                continue
            size = count * _SIZES[kind]
            position = offset + self._count_bytes + (i + 1) * self._entry.size - self._inline
            if size > self._inline:
                position = self._pointer.unpack(value)[0]
            if position + size <= self.file.size:
                tags[code] = Tag(kind, count, position)
        return tags

    def table(self, tag: Tag) -> Table:
        """The values of a tag, unread."""
        return Table(
            self.file,
            tag.position,
            _DTYPES[self.order, tag.kind],
            tag.count * (2 if tag.kind in _FRACTIONS else 1),
        )

    def numbers(self, i_page: int, code: int) -> tuple[float, ...]:
        """The values of a tag as plain numbers (fractions divided), at most 1024 of them; () if the page lacks it."""
        tag = self.tags(i_page).get(code)
        if tag is None or tag.kind in (2, 7):
            return ()
        table = self.table(tag)
        data = self.file.read_at(table.position, min(table.count, 1024) * table.dtype.itemsize)
        values = np.frombuffer(data, table.dtype).tolist()
        if tag.kind in _FRACTIONS:
            return tuple(a / b if b else 0.0 for a, b in zip(values[::2], values[1::2], strict=False))
        return tuple(values)

    def text_span(self, i_page: int, code: int = 270) -> tuple[int, int]:
        """Byte position and length of a tag of text (ImageDescription unless told otherwise); (0, 0) without."""
        tag = self.tags(i_page).get(code)
        return (tag.position, tag.count) if tag is not None and tag.kind in (1, 2, 6, 7) else (0, 0)

    def text(self, i_page: int, code: int = 270, max_bytes: int = 1 << 20) -> str:
        """Text of a tag, its first `max_bytes` at most; invalid characters replaced."""
        position, length = self.text_span(i_page, code)
        raw = self.file.read_at(position, min(length, max_bytes)).rstrip(b"\0")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("latin-1")

    def page(self, i_page: int) -> Page:
        """Where page `i_page` keeps its pixels.

        Raises:
            InputError: if it does not say.
        """
        tags = self.tags(i_page)
        offsets = next((tags[code] for code in _OFFSET_TAGS if code in tags), None)
        counts = next((tags[code] for code in _COUNT_TAGS if code in tags), None)
        if offsets is None:
            raise InputError(
                f"{self.file.path} does not say where the pixels of page {i_page} lie",
                "a table inside the file",
                "it is damaged",
            )
        jpeg = tags.get(347)
        tables = self.file.read_at(jpeg.position, jpeg.count) if jpeg is not None and jpeg.count < 1 << 16 else None
        # without lengths: a table of none, taken by the layout as "up to the end"
        lengths = self.table(counts) if counts is not None else Table.of(np.zeros(0, np.int64))
        return Page(self.file, int(self.offsets[i_page]), self.table(offsets), lengths, tables)
