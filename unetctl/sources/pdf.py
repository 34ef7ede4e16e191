"""PDF documents as pages: the embedded scan where a page is one picture, else the page drawn."""

import threading
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pikepdf

from unetctl.errors import InputError
from unetctl.geometry.box import Box
from unetctl.sources.axes import check_box
from unetctl.sources.base import ImageInfo, SourceInfo
from unetctl.sources.files import DEFAULT_MAX_BYTES, RandomAccessFile, file_identity
from unetctl.sources.orientation import upright
from unetctl.sources.pages import PDF_DPI, PageOrigin
from unetctl.sources.pdf_decode import PdfiumDocument, jpeg_pixels
from unetctl.sources.pdf_layout import PdfPage, page_layout
from unetctl.sources.tiff_layout import human_bytes

_NUM_HELD = 2
_NUM_DECODING = 16
_MAX_PAGES = 100_000
_MIN_DPI, _MAX_DPI = 20.0, 4800.0


class PdfPages:
    """The pages of a PDF document; see `open_pages`.

    The last two pages that were read are kept decoded.

    Args:
        path: of the file.
        max_bytes: that one page may take when decoded, 1 GiB unless given.
        pdf_dpi: of pages that are drawn.

    Raises:
        InputError: if the file is no PDF, damaged, locked by a password, without pages, or a page is too large.
    """

    def __init__(self, path: str, max_bytes: int | None = None, pdf_dpi: float = PDF_DPI) -> None:
        if not _MIN_DPI <= pdf_dpi <= _MAX_DPI:
            raise ValueError(f"pdf_dpi {pdf_dpi} lies outside {_MIN_DPI:g} to {_MAX_DPI:g}")
        self._path = path
        self._limit = DEFAULT_MAX_BYTES if max_bytes is None else max_bytes
        self._file = RandomAccessFile(path)
        # names that are no UTF-8 pikepdf does not take
        self._stream = None if is_text(path) else Path(path).open("rb")  # noqa: SIM115 - closed with the rest
        self._pdf = _opened(path, self._stream)
        self._document = PdfiumDocument(path)
        self._lock = threading.Lock()
        self._decoding = tuple(threading.Lock() for _ in range(_NUM_DECODING))
        self._held: OrderedDict[int, npt.NDArray[np.uint8]] = OrderedDict()
        try:
            self._pages = self._laid_out(pdf_dpi)
        except BaseException:
            self.close()
            raise
        num = len(self._pages)
        self.images = tuple(_info(p, f"page-{i + 1}" if num > 1 else "") for i, p in enumerate(self._pages))
        self.origins = tuple(
            PageOrigin("pdf", p.is_bilevel, p.icc, p.dpi, p.orientation, p.notes, p.order is not None)
            for p in self._pages
        )

    @cached_property
    def info(self) -> SourceInfo:
        """See `Source.info`."""
        chunks = tuple(image.shape for image in self.images)
        return SourceInfo(self._path, "PDF", self.images, file_identity([self._file]), chunks)

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`; a page is decoded whole."""
        check_box(box, self.images[i_image], self._path)
        return self._pixels(i_image)[box.slices()].copy()

    def close(self) -> None:
        """See `Source.close`."""
        self._document.retire()
        with self._lock:
            self._held.clear()
            self._pdf.close()
        if self._stream is not None:
            self._stream.close()
        self._file.close()

    def _laid_out(self, pdf_dpi: float) -> tuple[PdfPage, ...]:
        found: list[PdfPage] = []
        try:
            num_pages = len(self._pdf.pages)
            if not 0 < num_pages <= _MAX_PAGES:
                raise InputError(f"{self._path} has {num_pages} pages", f"1 to {_MAX_PAGES}", "it is damaged")
            for i, page in enumerate(self._pdf.pages):
                told = page_layout(page, pdf_dpi, f"page {i + 1} of {self._path}")
                self._check_size(i, told)
                found.append(told)
        except InputError:
            raise
        except Exception as error:  # damaged objects surface as any type of exception
            raise _damaged(self._path, self._path, error) from error
        return tuple(found)

    def _check_size(self, i_page: int, told: PdfPage) -> None:
        height, width = told.shape
        num_bytes = height * width * told.num_channels
        where = f"page {i_page + 1} of {self._path}"
        if min(height, width) < 1:
            raise InputError(f"{where} holds a picture of {width} x {height} pixels", "pixels", "it is damaged")
        if num_bytes > self._limit:
            raise InputError(
                f"{where} takes {width} x {height} pixels ({human_bytes(num_bytes)}), which must be decoded whole",
                f"at most {human_bytes(self._limit)}",
                "allow more memory" + ("" if told.order is not None else ", or draw it at a lower --pdf-dpi"),
            )

    def _pixels(self, i_page: int) -> npt.NDArray[np.uint8]:
        """The page in the order of its axes."""
        with self._decoding[i_page % _NUM_DECODING]:
            with self._lock:
                pixels = self._held.get(i_page)
                if pixels is not None:
                    self._held.move_to_end(i_page)
                    return pixels
            try:
                pixels = self._decoded(i_page)
            except InputError:
                raise
            except Exception as error:  # decoders of damaged data raise types of their own, and MemoryError
                raise _damaged(f"page {i_page + 1} of {self._path}", self._path, error) from error
            with self._lock:
                self._held[i_page] = pixels
                while len(self._held) > _NUM_HELD:
                    self._held.popitem(last=False)
            return pixels

    def _decoded(self, i_page: int) -> npt.NDArray[np.uint8]:
        told = self._pages[i_page]
        stored: npt.NDArray[Any] | None = None
        if told.jpeg is not None:
            with self._lock:
                data = bytes(self._pdf.get_object(told.jpeg).read_raw_bytes())
            stored = jpeg_pixels(data, told)
        if stored is None and told.order is not None:
            stored = self._document.image(i_page, told)
        # what PDFium makes of a picture that is not as declared has at least the size and place that it should have
        pixels = self._document.drawn(i_page, told) if stored is None else upright(stored, told.orientation)
        if told.num_channels == 1:
            return np.ascontiguousarray(pixels if pixels.ndim == 2 else pixels[..., 1], np.uint8)
        if pixels.ndim == 2:
            pixels = np.broadcast_to(pixels[..., None], (*pixels.shape, 3))
        return np.ascontiguousarray(pixels.transpose(2, 0, 1), np.uint8)


def is_text(path: str) -> bool:
    """True of a name that is UTF-8; those of old archives are bytes of any kind."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _opened(path: str, stream: BinaryIO | None) -> Any:
    try:
        return pikepdf.open(stream or path, access_mode=pikepdf.AccessMode.stream)
    except pikepdf.PasswordError as error:
        raise InputError(f"{path} is locked by a password", "an open PDF", "save a copy without password") from error
    except Exception as error:
        raise _damaged(path, path, error) from error


def _damaged(where: str, path: str, error: BaseException) -> InputError:
    told = " ".join(f"{type(error).__name__}: {error}".split()).replace(f"{path}: ", "")[:200]
    return InputError(f"{where} cannot be read ({told})", "a sound PDF file", "it is cut off or damaged")


def _info(page: PdfPage, name: str) -> ImageInfo:
    is_grey = page.num_channels == 1
    return ImageInfo(
        name=name,
        shape=page.shape if is_grey else (3, *page.shape),
        axes="yx" if is_grey else "cyx",
        dtype=np.dtype(np.uint8),
        spacing_um=(None, None),
        is_rgb=not is_grey,
        dpi=page.dpi,
        notes=page.notes,
    )
