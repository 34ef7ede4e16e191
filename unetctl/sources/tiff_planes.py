"""The planes of a TIFF picture: which page of which file holds the k-th plane.

Positions of pages are kept in arrays or ranges, never as one object a page.
"""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.sources.files import RandomAccessFile
from unetctl.sources.tiff_index import Page, Table, TiffIndex
from unetctl.sources.tiff_layout import Layout, layout_of


class TiffFile:
    """One TIFF file: its index, and the layouts of its pages as they are needed.

    Args:
        path: of the file.

    Raises:
        InputError: if it is missing, no TIFF, cut off or damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.file = RandomAccessFile(path)
        self.index = TiffIndex(self.file)
        self._layouts: dict[int, Layout] = {}
        self._lock = threading.Lock()

    @property
    def path(self) -> str:
        """Of the file."""
        return self.file.path

    def layout(self, i_page: int) -> Layout:
        """How page `i_page` is stored."""
        i_layout = int(self.index.layout_ids[i_page])
        with self._lock:
            layout = self._layouts.get(i_layout)
            if layout is None:
                first = self.index.first_of_layout[i_layout]
                layout = layout_of(self.path, int(self.index.offsets[first]))
                self._layouts[i_layout] = layout
        return layout


class Planes(Protocol):
    """The planes of one picture, in order."""

    def __len__(self) -> int:
        """Number of planes."""
        ...

    def plane(self, k: int) -> tuple[Page, Layout] | None:
        """Where plane `k` lies and how it is stored; None for a plane that the file leaves out."""
        ...


@dataclass(frozen=True)
class PagePlanes:
    """Planes that are pages of one file.

    Attributes:
        tiff: the file.
        pages: page of each plane.
    """

    tiff: TiffFile
    pages: Sequence[int] | npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pages)

    def plane(self, k: int) -> tuple[Page, Layout] | None:
        """See `Planes.plane`."""
        i_page = int(self.pages[k])
        return self.tiff.index.page(i_page), self.tiff.layout(i_page)


@dataclass(frozen=True)
class ContiguousPlanes:
    """Uncompressed planes that lie one after another behind a single directory (ImageJ beyond 4 GiB, tifffile, STK).

    Attributes:
        file: that holds them.
        offset: byte position of the first.
        layout: of one plane, in one piece.
        num_planes: how many there are.
    """

    file: RandomAccessFile
    offset: int
    layout: Layout
    num_planes: int

    def __len__(self) -> int:
        return self.num_planes

    def plane(self, k: int) -> tuple[Page, Layout] | None:
        """See `Planes.plane`."""
        begin = self.offset + k * self.layout.page_bytes
        s, z, *_ = self.layout.grid
        offsets = begin + np.arange(s * z, dtype=np.int64) * (self.layout.page_bytes // (s * z))
        return Page(
            self.file, begin, Table.of(offsets), Table.of(np.full(s * z, self.layout.page_bytes // (s * z)))
        ), self.layout


class FileSet:
    """Planes in several files, by numbers of file and page; files are indexed when first read.

    Args:
        root: the file that names the others, already indexed; file 0.
        paths: of all files, the root's first.
        file_ids: (planes,) number of the file that holds each plane, -1 for one that none holds.
        pages: (planes,) number of its page there.
    """

    def __init__(
        self,
        root: TiffFile,
        paths: Sequence[str],
        file_ids: npt.NDArray[np.int32],
        pages: npt.NDArray[np.int64],
    ) -> None:
        self._paths, self._file_ids, self._pages = tuple(paths), file_ids, pages
        self._files: dict[int, TiffFile] = {0: root}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._pages)

    def plane(self, k: int) -> tuple[Page, Layout] | None:
        """See `Planes.plane`.

        Raises:
            InputError: if the page is missing from its file.
        """
        i_file, i_page = int(self._file_ids[k]), int(self._pages[k])
        if i_file < 0:
            return None
        with self._lock:
            tiff = self._files.get(i_file)
            if tiff is None:
                tiff = self._files[i_file] = TiffFile(self._paths[i_file])
        if i_page >= len(tiff.index):
            raise InputError(
                f"{tiff.path} has {len(tiff.index)} pages",
                f"page {i_page}, which the OME metadata name",
                "the file is cut off",
            )
        return tiff.index.page(i_page), tiff.layout(i_page)


@dataclass(frozen=True)
class VendorPlanes:
    """Planes as tifffile found them in a microscope vendor's kind of TIFF; tables of segments are held in arrays.

    Attributes:
        file: that holds them.
        layout: of every plane.
        offsets: (planes, segments) byte positions.
        counts: (planes, segments) lengths.
        jpeg_tables: of the first plane.
    """

    file: RandomAccessFile
    layout: Layout
    offsets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    jpeg_tables: bytes | None

    def __len__(self) -> int:
        return len(self.offsets)

    def plane(self, k: int) -> tuple[Page, Layout] | None:
        """See `Planes.plane`."""
        row, lengths = self.offsets[k], self.counts[k]
        return Page(
            self.file, int(row[0]) if len(row) else 0, Table.of(row), Table.of(lengths), self.jpeg_tables
        ), self.layout
