"""Pages on their way in: opened, decoded ahead in threads, as many as memory allows."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.geometry.box import Box
from unetctl.jobs.pages.inputs import PageFile
from unetctl.sources.base import ImageInfo, SourceInfo
from unetctl.sources.pages import PageOrigin, PageSource, open_pages

Pixels = npt.NDArray[Any]


@dataclass
class OpenFile:
    """A file of pages that is being worked on; closed when the last page was read.

    Attributes:
        file: which.
        source: its pages.
        identity: of its content.
    """

    file: PageFile
    source: PageSource
    identity: dict[str, Any]
    _num_left: int = field(default=0, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def images(self) -> tuple[ImageInfo, ...]:
        """One a page."""
        return self.source.info.images

    @property
    def origins(self) -> tuple[PageOrigin, ...]:
        """One a page."""
        return self.source.origins

    def expect(self, num_pages: int) -> None:
        """So many pages will be read."""
        self._num_left = num_pages
        if not num_pages:
            self.source.close()

    def release(self) -> None:
        """One page was read."""
        with self._lock:
            self._num_left -= 1
            if self._num_left == 0:
                self.source.close()


@dataclass(frozen=True)
class FeedItem:
    """What the feed gives: a page, or what went wrong with its file.

    Attributes:
        file: it belongs to.
        opened: the open file; None if it could not be opened.
        i_page: of the file.
        info: of the page.
        pixels: in the axes of `info`; None for a page that is read piece by piece (see `is_large`).
        error: why there is no page.
    """

    file: PageFile
    opened: OpenFile | None = None
    i_page: int = 0
    info: ImageInfo | None = None
    pixels: Pixels | None = None
    error: Exception | None = None


def num_bytes_of(info: ImageInfo) -> int:
    """Of a decoded page."""
    return prod(info.shape) * info.dtype.itemsize


class PageFeed:
    """Opens files and decodes their pages in order, ahead of whoever iterates.

    Args:
        files: to work on.
        wanted: an open file to the indices of its pages that are wanted; empty: none of it.
        max_bytes: that one piece which must be decoded whole may take.
        page_bytes: larger pages are not decoded ahead; they come without pixels.
        ahead_bytes: of pages decoded and not yet taken, at least one page.
        pdf_dpi: see `open_pages`.
        num_threads: that decode.
    """

    def __init__(
        self,
        files: Sequence[PageFile],
        wanted: Callable[[OpenFile], Sequence[int]],
        *,
        max_bytes: int,
        page_bytes: int,
        ahead_bytes: int,
        pdf_dpi: float,
        num_threads: int = 2,
    ) -> None:
        self._files, self._wanted = files, wanted
        self._max_bytes, self._page_bytes, self._ahead_bytes = max_bytes, page_bytes, ahead_bytes
        self._pdf_dpi, self._num_threads = pdf_dpi, num_threads

    def __iter__(self) -> Iterator[FeedItem]:
        with ThreadPoolExecutor(self._num_threads, "unetctl-decoder") as pool:
            line: deque[tuple[Future[FeedItem], int]] = deque()
            held = 0
            try:
                for work, size in self._works(pool):
                    while line and (held + size > self._ahead_bytes or len(line) > 4 * self._num_threads):
                        future, its_size = line.popleft()
                        held -= its_size
                        yield future.result()
                    line.append((work(), size))
                    held += size
                while line:
                    future, _ = line.popleft()
                    yield future.result()
            finally:
                for future, _ in line:
                    future.cancel()

    def _works(self, pool: ThreadPoolExecutor) -> Iterator[tuple[Callable[[], "Future[FeedItem]"], int]]:
        """What there is to do, and the bytes that it will hold; the next file is opened while others are decoded."""
        coming: deque[tuple[PageFile, Future[OpenFile | Exception]]] = deque()
        files = iter(self._files)
        for file in files:
            coming.append((file, pool.submit(self._open, file)))
            if len(coming) > self._num_threads:
                yield from self._works_of(pool, *coming.popleft())
        while coming:
            yield from self._works_of(pool, *coming.popleft())

    def _works_of(
        self, pool: ThreadPoolExecutor, file: PageFile, opening: "Future[OpenFile | Exception]"
    ) -> Iterator[tuple[Callable[[], "Future[FeedItem]"], int]]:
        opened = opening.result()
        if isinstance(opened, Exception):
            failed = FeedItem(file, error=opened)
            yield (lambda: _settled(failed)), 0
            return
        pages = list(self._wanted(opened))
        opened.expect(len(pages))
        for i_page in pages:
            info = opened.images[i_page]
            size = num_bytes_of(info)
            if size > self._page_bytes:
                large = FeedItem(file, opened, i_page, info)
                yield (lambda item=large: _settled(item)), 0  # type: ignore[misc]
            else:
                yield (lambda o=opened, i=i_page: pool.submit(self._decode, o, i)), size  # type: ignore[misc]

    def _open(self, file: PageFile) -> OpenFile | Exception:
        try:
            source = open_pages(str(file.path), max_bytes=self._max_bytes, pdf_dpi=self._pdf_dpi)
            try:
                return OpenFile(file, source, dict(source.info.identity))
            except BaseException:
                source.close()
                raise
        except Exception as error:  # one broken file must not end the night's run, whatever a decoder raises
            return error

    def _decode(self, opened: OpenFile, i_page: int) -> FeedItem:
        info = opened.images[i_page]
        try:
            pixels = opened.source.read(i_page, Box((0,) * len(info.shape), info.shape))
        except Exception as error:
            return FeedItem(opened.file, opened, i_page, info, error=error)
        finally:
            opened.release()
        return FeedItem(opened.file, opened, i_page, info, pixels)


class HeldPages:
    """Decoded pages as a source: one picture each.

    Args:
        pages: infos and pixels, in the axes of the info.
    """

    def __init__(self, pages: Sequence[tuple[ImageInfo, Pixels]]) -> None:
        self._pixels = [pixels for _, pixels in pages]
        self.info = SourceInfo("pages", "pages", tuple(info for info, _ in pages))

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`."""
        return self._pixels[i_image][box.slices()].copy()

    def close(self) -> None:
        """Lets go of the pixels."""
        self._pixels = []


class OnePage:
    """One page of an open file as a source of its own, read piece by piece."""

    def __init__(self, opened: OpenFile, i_page: int) -> None:
        info = opened.source.info
        self._opened, self._i_page = opened, i_page
        identity = {**opened.identity, "page": i_page}
        chunk = info.preferred_chunk[i_page : i_page + 1]
        self.info = SourceInfo(info.uri, info.format, (info.images[i_page],), identity, chunk)

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`."""
        if i_image:
            raise InputError(f"picture {i_image} of one page", "0")
        return self._opened.source.read(self._i_page, box)

    def close(self) -> None:
        """The page was read."""
        self._opened.release()


def _settled(item: FeedItem) -> "Future[FeedItem]":
    future: Future[FeedItem] = Future()
    future.set_result(item)
    return future
