"""From what the network answers to pages, and from pages to files."""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from unetctl.errors import InputError
from unetctl.geometry.box import Box
from unetctl.jobs.pages.feed import OpenFile, stat_of
from unetctl.jobs.pages.overlay import tinted
from unetctl.jobs.pages.scaling import Stored
from unetctl.jobs.pages.views import Pixels
from unetctl.objects.rule import LabelRule, label_array
from unetctl.runtime.keep import Keep
from unetctl.sinks.disk import fsync_folder, full_disk_explained
from unetctl.sinks.page import Page
from unetctl.sinks.page_gif import DEFAULT_MS, Timing
from unetctl.sinks.pages import PageFileRecord, assemble, encode_page
from unetctl.sources.base import ImageInfo
from unetctl.sources.pages import PageOrigin

#: Rows of a large page that are taken from its store at once.
_BAND_ROWS = 1024


@dataclass(frozen=True)
class PageStyle:
    """How answers become pages.

    Attributes:
        keep: what the network's answer is.
        is_ink: True if the foreground is ink, black on white paper; otherwise the foreground of masks is white.
        rule: of labels, by which they are made of an answer of probabilities; None of anything else.
    """

    keep: Keep
    is_ink: bool
    rule: LabelRule | None = None

    @property
    def counts_ink(self) -> bool:
        """True if the share of ink of a page can be told from the answer."""
        return self.is_ink and self.keep in ("mask", "probability", "overlay")

    @property
    def is_one_bit(self) -> bool:
        """True if pages are written with one bit a pixel."""
        return self.keep == "mask"

    @property
    def keeps_colours(self) -> bool:
        """True if the pages are the input's own, changed in places: its colour profile holds for them too."""
        return self.keep in ("image", "overlay")

    def page(self, answer: Pixels, info: ImageInfo, origin: PageOrigin, under: Pixels | None = None) -> Page:
        """A page of an answer in the axes yx or cyx; of an overlay, `under` is what it lies on, in such axes too."""
        icc = origin.icc if self.keeps_colours else None
        if self.keep == "overlay":
            assert under is not None
            return Page(tinted(under, answer), info.dpi, icc)
        if self.is_one_bit:
            plane = answer if answer.ndim == 2 else answer[0]
            return Page((plane > 0) if self.is_ink else (plane == 0), info.dpi, icc)
        return Page(np.ascontiguousarray(np.moveaxis(answer, 0, -1)) if answer.ndim == 3 else answer, info.dpi, icc)

    def labelled(self, answer: Pixels) -> Pixels:
        """What an answer is brought back to the page's size as: (y, x) labels if they are asked for, else itself."""
        if self.rule is None:
            return answer
        labels = label_array(answer, self.rule)
        return labels.astype(np.uint16) if labels.max(initial=0) <= np.iinfo(np.uint16).max else labels

    def num_ink(self, answer: Pixels) -> int:
        """Pixels of ink in an answer of masks or probabilities."""
        return int(np.count_nonzero(answer >= 128 if self.keep == "probability" else answer))


@dataclass
class FileResult:
    """The pages of one file, gathered until it is complete.

    Attributes:
        opened: the input.
        target, kind: of the output.
        spool: folder for pages of files with several, or with large ones; None for a single page.
        ink: share of ink by page.
    """

    opened: OpenFile
    target: Path
    kind: str
    spool: Path | None
    ink: dict[int, float] = field(default_factory=dict)
    _single: bytes = b""

    @property
    def num_pages(self) -> int:
        """Of the file."""
        return len(self.opened.images)

    def spooled(self) -> list[int]:
        """Pages that are on disk already."""
        if self.spool is None:
            return []
        found = [i for i in range(self.num_pages) if self._page_path(i).is_file()]
        for i in found:
            if i not in self.ink:
                with suppress(OSError, ValueError):  # lost by a kill just then: the page is not listed as odd
                    self.ink[i] = float(self._ink_path(i).read_text())
        return found

    def add(self, i_page: int, page: Page) -> None:
        """Takes a page.

        Raises:
            ResourceError: if the disk is full.
        """
        encoded = encode_page(page, self.kind)
        if self.spool is None:
            self._single = encoded
            return
        path = self._page_path(i_page)
        with full_disk_explained(path):
            self.spool.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.partial")
            with partial.open("wb") as file:  # flushed: under its name it counts as done, also after a power failure
                file.write(encoded)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            fsync_folder(path.parent)

    def note_ink(self, i_page: int, share: float) -> None:
        """Keeps a page's share of ink, also for a later run that finds the page on disk.

        Raises:
            ResourceError: if the disk is full.
        """
        self.ink[i_page] = share
        if self.spool is not None:
            path = self._ink_path(i_page)
            with full_disk_explained(path):
                path.write_text(repr(share))

    def is_complete(self) -> bool:
        """True if all pages are there."""
        if self.spool is None:
            return bool(self._single)
        return all(self._page_path(i).is_file() for i in range(self.num_pages))

    def finish(self, provenance: str) -> PageFileRecord:
        """Joins the pages; see `assemble`.

        Raises:
            InputError: if the input is not what it was when it was opened.
        """
        now = stat_of(self.opened.file.path)
        if now and now != self.opened.stat:  # one that is gone was read to its end before
            raise InputError(
                f"{self.opened.file.path} was changed while it was worked on", "", "run the same command again"
            )
        encoded: list[Path | bytes]
        encoded = [self._single] if self.spool is None else [self._page_path(i) for i in range(self.num_pages)]
        is_pdf = self.kind == "pdf" and self.opened.origins[0].kind == "pdf"
        original = self.opened.file.path if is_pdf else None
        timing = _timing(self.opened.origins) if self.kind == "gif" else None
        return assemble(self.target, self.kind, encoded, original=original, provenance=provenance, timing=timing)

    def clear(self) -> None:
        """Removes the pages that were kept on disk."""
        if self.spool is not None:
            shutil.rmtree(self.spool, ignore_errors=True)

    def _page_path(self, i_page: int) -> Path:
        assert self.spool is not None
        return self.spool / f"page-{i_page + 1:06d}.{self.kind}"

    def _ink_path(self, i_page: int) -> Path:
        assert self.spool is not None
        return self.spool / f"ink-{i_page + 1:06d}"


def _timing(origins: Sequence[PageOrigin]) -> Timing:
    """As the film that was read has it; what is none is shown ten frames a second, for ever."""
    durations = tuple(DEFAULT_MS if one.duration_ms is None else one.duration_ms for one in origins)
    return Timing(durations, origins[0].loop if origins[0].duration_ms is not None else 0)


class Gathering:
    """An answer that comes block by block.

    Args:
        shape: of the output picture, channels included.
        dtype: numpy name.
        num_blocks: of the page.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, num_blocks: int) -> None:
        self.answer: Pixels = np.empty(shape, dtype)
        self._num_left = num_blocks

    def add(self, box: Box, pixels: Pixels) -> bool:
        """Puts a block in its place; True if it was the last."""
        self.answer[box.slices()] = pixels
        self._num_left -= 1
        return self._num_left == 0


class StoredRows:
    """The answer in a store as rows of a page, read band by band: what `Page` needs of an array.

    Args:
        sink: the store, one picture of axes yx or cyx.
        convert: from a band (c, rows, x) or (rows, x), and the number of its first row, to rows of a page.
        dtype: of the converted.
        is_colour: True if they have three samples a pixel whatever the store has.
    """

    def __init__(
        self, sink: Stored, convert: Callable[[Pixels, int], Pixels], dtype: np.dtype[Any], is_colour: bool = False
    ) -> None:
        self._sink, self._convert, self.dtype = sink, convert, dtype
        image = sink.layout.images[0]
        self._channels = image.shape[0] if "c" in image.axes else None
        self._size = image.shape[-2:]
        self.shape = self._size if self._channels is None or dtype == np.bool_ else (*self._size, self._channels)
        if is_colour:
            self.shape = (*self._size, 3)
        self.ndim = len(self.shape)
        self._band = (-1, np.empty(0))

    def __getitem__(self, rows: slice) -> Pixels:
        start, stop, _ = rows.indices(self._size[0])
        pieces = []
        while start < stop:
            i_band = start // _BAND_ROWS
            first = i_band * _BAND_ROWS
            if self._band[0] != i_band:
                self._band = (i_band, self._read(first, min(first + _BAND_ROWS, self._size[0])))
            until = min(stop, first + _BAND_ROWS)
            pieces.append(self._band[1][start - first : until - first])
            start = until
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _read(self, start: int, stop: int) -> Pixels:
        width = self._size[1]
        lead = () if self._channels is None else (self._channels,)
        box = Box((*(0 for _ in lead), start, 0), (*lead, stop, width))
        return self._convert(self._sink.read(0, 0, box), start)

    def as_page(self, info: ImageInfo, icc: bytes | None) -> Page:
        """The page that has these rows."""
        return Page(cast(Pixels, self), info.dpi, icc)


def stored_page(
    sink: Stored,
    style: PageStyle,
    info: ImageInfo,
    origin: PageOrigin,
    under: Callable[[int, int], Pixels] | None = None,
) -> tuple[Page, Callable[[], int]]:
    """A page of a computed store, and what counts its ink once it was written.

    Args:
        sink: the store.
        style: how answers become pages.
        info, origin: of the page.
        under: of an overlay: rows of the page from one number to another, (c, rows, x).
    """
    counted = [0]

    def convert(band: Pixels, start: int) -> Pixels:
        counted[0] += style.num_ink(band) if style.is_ink else 0
        rows = None if under is None else under(start, start + band.shape[-2])
        return style.page(band, info, origin, rows).pixels

    dtype = np.dtype(bool) if style.is_one_bit else np.dtype(sink.layout.images[0].dtype)
    rows = StoredRows(sink, convert, dtype if under is None else info.dtype, under is not None)
    return rows.as_page(info, origin.icc if style.keeps_colours else None), lambda: counted[0]
