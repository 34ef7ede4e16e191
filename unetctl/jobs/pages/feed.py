"""Pages on their way in: opened, decoded ahead in threads, as many as memory allows."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from unetctl.errors import InputError, ResourceError, UnetctlError
from unetctl.geometry.box import Box
from unetctl.jobs.pages.inputs import PageFile
from unetctl.jobs.pages.views import OnePage, Pixels
from unetctl.sources.base import ImageInfo
from unetctl.sources.pages import PageOrigin, PageSource, open_pages
from unetctl.sources.pages_frames import FramePages

#: Pages that are decoded or being decoded ahead, at most, however small.
_MOST_AHEAD = 32


def stat_of(path: Path) -> tuple[int, ...]:
    """Size and time of change (nanoseconds) of a file, of a folder those of all that is in it; empty if there is none."""
    try:
        told = path.stat()
        if path.is_dir():
            inside = [entry.stat() for entry in os.scandir(path)]
            newest = max([told.st_mtime_ns, *(one.st_mtime_ns for one in inside)])
            return sum(one.st_size for one in inside), newest, len(inside)
    except OSError:
        return ()
    return told.st_size, told.st_mtime_ns


@dataclass
class OpenFile:
    """A file of pages that is being worked on; closed when the last page was read.

    Attributes:
        file: which.
        source: its pages.
        identity: of its content.
        stat: of the file before it was opened: what is changed later is seen by the next run.
        when_closed: called once, with this.
    """

    file: PageFile
    source: PageSource
    identity: dict[str, Any]
    stat: tuple[int, ...]
    is_abandoned: bool = False
    when_closed: Callable[["OpenFile"], None] = field(default=lambda opened: None, repr=False)
    _num_left: int = field(default=0, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _is_closed: bool = field(default=False, repr=False)

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
            self.close()

    def release(self) -> None:
        """One page was read, or will not be."""
        with self._lock:
            self._num_left -= 1
            is_last = self._num_left == 0
        if is_last:
            self.close()

    def abandon(self) -> None:
        """Pages that are not decoded yet need not be."""
        self.is_abandoned = True

    def close(self) -> None:
        """No page will be read any more; may be called twice."""
        with self._lock:
            was_closed, self._is_closed = self._is_closed, True
        if not was_closed:
            self.source.close()
            self.when_closed(self)

    def page(self, i_page: int, info: ImageInfo) -> OnePage:
        """A page as a source of its own, in the axes of `info`."""
        return OnePage(self.source, i_page, info, self.identity, self.release)


@dataclass(frozen=True)
class FeedItem:
    """What the feed gives: a page, or what went wrong with its file.

    Attributes:
        file: it belongs to.
        opened: the open file; None if it could not be opened.
        i_page: of the file.
        info: of the page.
        pixels: in the axes of `info`; None for a page that is read piece by piece. Whoever takes such a one releases it.
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
    """Opens files and decodes their pages in order, ahead of whoever iterates; all files are closed when that ends.

    Args:
        files: to work on.
        wanted: an open file to the indices of its pages that are wanted; empty: none of it.
        max_bytes: that one piece which must be decoded whole may take.
        page_bytes: larger pages are not decoded ahead; they come without pixels.
        ahead_bytes: of pages decoded and not yet taken, at least one page.
        pdf_dpi: see `open_pages`.
        num_threads: that decode.

    Attributes:
        waited_s: seconds that whoever iterates has waited for pages.
        decoding_s: seconds of all threads together.
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
        self._opened: dict[int, OpenFile] = {}
        self._lock = threading.Lock()
        self.waited_s = self.decoding_s = 0.0

    def __iter__(self) -> Generator[FeedItem, None, None]:
        pool = ThreadPoolExecutor(self._num_threads, "unetctl-decoder")
        line: deque[tuple[Future[FeedItem], int]] = deque()
        held = 0
        try:
            for work, size in self._works(pool):
                while line and (held + size > self._ahead_bytes or len(line) >= _MOST_AHEAD):
                    future, its_size = line.popleft()
                    held -= its_size
                    yield self._waited_for(future)
                line.append((work(), size))
                held += size
            while line:
                yield self._waited_for(line.popleft()[0])
        finally:
            pool.shutdown(cancel_futures=True)
            for opened in list(self._opened.values()):
                opened.close()
            self._opened.clear()

    def _waited_for(self, future: "Future[Any]") -> Any:
        since = time.monotonic()
        try:
            return future.result()
        finally:
            self.waited_s += time.monotonic() - since

    def _works(self, pool: ThreadPoolExecutor) -> Iterator[tuple[Callable[[], "Future[FeedItem]"], int]]:
        """What there is to do, and the bytes that it will hold; the next file is opened while others are decoded."""
        coming: deque[tuple[PageFile, Future[OpenFile | Exception]]] = deque()
        for file in self._files:
            coming.append((file, pool.submit(self._open, file)))
            if len(coming) > self._num_threads:
                yield from self._works_of(pool, *coming.popleft())
        while coming:
            yield from self._works_of(pool, *coming.popleft())

    def _works_of(
        self, pool: ThreadPoolExecutor, file: PageFile, opening: "Future[OpenFile | Exception]"
    ) -> Iterator[tuple[Callable[[], "Future[FeedItem]"], int]]:
        opened = self._waited_for(opening)
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
        since = time.monotonic()
        try:
            stat = stat_of(file.path)
            if file.path.is_dir():
                os.scandir(file.path).close()
                source: PageSource = FramePages(str(file.path), self._max_bytes)
            else:
                source = open_pages(str(file.path), max_bytes=self._max_bytes, pdf_dpi=self._pdf_dpi)
            try:
                opened = OpenFile(file, source, dict(source.info.identity), stat, when_closed=self._forget)
            except BaseException:
                source.close()
                raise
            with self._lock:
                self._opened[id(opened)] = opened
            return opened
        except Exception as error:  # one broken file must not end the night's run, whatever a decoder raises
            return as_told(error, file.path)
        finally:
            with self._lock:
                self.decoding_s += time.monotonic() - since

    def _decode(self, opened: OpenFile, i_page: int) -> FeedItem:
        info, since = opened.images[i_page], time.monotonic()
        try:
            if opened.is_abandoned:
                raise InputError(f"{opened.file.path}: another page has failed")
            pixels = opened.source.read(i_page, Box((0,) * len(info.shape), info.shape))
        except Exception as error:
            return FeedItem(opened.file, opened, i_page, info, error=as_told(error, opened.file.path))
        finally:
            opened.release()
            with self._lock:
                self.decoding_s += time.monotonic() - since
        return FeedItem(opened.file, opened, i_page, info, pixels)

    def _forget(self, opened: OpenFile) -> None:
        """Thousands of closed files need not be remembered."""
        with self._lock:
            self._opened.pop(id(opened), None)


def as_told(error: Exception, path: Path) -> Exception:
    """What reading a file raised, as an error of ours where it is known; a bug stays one.

    Where it was raised is forgotten, except of bugs: the frames of a traceback hold open files and decoded pixels.
    """
    if isinstance(error, MemoryError):
        return ResourceError(
            f"{path} needs more memory than the system gives", "", "ask for more, or cut it into pieces"
        )
    if isinstance(error, OSError):
        return InputError(f"{path} cannot be read ({error.strerror or error})", "a readable file")
    link: BaseException | None = error if isinstance(error, UnetctlError) else None
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def _settled(item: FeedItem) -> "Future[FeedItem]":
    future: Future[FeedItem] = Future()
    future.set_result(item)
    return future
