"""Pixels of PDF pages through PDFium, which is for one thread at a time, and of JPEG scans beside it."""

import atexit
import ctypes
import io
import os
import threading
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import pypdfium2.raw as pdfium  # type: ignore[import-untyped]
from PIL import Image

from unetctl.errors import InputError
from unetctl.sources.pdf_layout import PdfPage

Pixels = npt.NDArray[np.uint8]
# PDFium keeps the streams of all pages that it has seen: past this many bytes, or pages, the document is opened anew
_MAX_STREAM_BYTES = 32 << 20
_MAX_PAGES = 64
_MAX_OBJECTS = 100_000
_MAX_DEPTH = 8
# one lock for the process; re-entrant, as the garbage collector may close a document inside a call
_PDFIUM = threading.RLock()
_OPEN: "weakref.WeakSet[PdfiumDocument]" = weakref.WeakSet()


class PdfiumDocument:
    """A PDF document in PDFium, opened when first needed.

    Args:
        path: of the file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._handle: Any = None
        self._is_over = False
        self._num_bytes = self._num_pages = 0

    def image(self, i_page: int, told: PdfPage) -> Pixels | None:
        """(y, x) or (y, x, 3) of the picture that a page consists of, as stored; None if PDFium finds another one.

        Raises:
            InputError: if the page cannot be read.
        """
        with _PDFIUM:
            page = self._page(i_page, told)
            try:
                found = _nth_image(page, told.order or 0)
                bitmap = pdfium.FPDFImageObj_GetBitmap(found) if found else None
                if not bitmap:
                    return None
                try:
                    pixels = _of_bitmap(bitmap)
                finally:
                    pdfium.FPDFBitmap_Destroy(bitmap)
            finally:
                pdfium.FPDF_ClosePage(page)
        if pixels.shape[:2] != told.stored_shape:
            return None
        return 255 - pixels if told.is_stencil else pixels

    def drawn(self, i_page: int, told: PdfPage) -> Pixels:
        """(y, x, 3) RGB of a page drawn on white.

        Raises:
            InputError: if the page cannot be read, or there is no memory.
        """
        height, width = told.shape
        with _PDFIUM:
            page = self._page(i_page, told)
            try:
                bitmap = pdfium.FPDFBitmap_CreateEx(width, height, pdfium.FPDFBitmap_BGR, None, 0)
                if not bitmap:
                    raise self._unreadable(i_page, f"no memory for {width} x {height} pixels")
                try:
                    pdfium.FPDFBitmap_FillRect(bitmap, 0, 0, width, height, 0xFFFFFFFF)
                    flags = pdfium.FPDF_ANNOT
                    pdfium.FPDF_RenderPageBitmap(bitmap, page, 0, 0, width, height, 0, flags)
                    return _of_bitmap(bitmap)
                finally:
                    pdfium.FPDFBitmap_Destroy(bitmap)
            finally:
                pdfium.FPDF_ClosePage(page)

    def close(self) -> None:
        """Closes the document; may be called twice."""
        with _PDFIUM:
            handle, self._handle = self._handle, None
            self._num_bytes = self._num_pages = 0
            if handle:
                pdfium.FPDF_CloseDocument(handle)

    def retire(self) -> None:
        """Closes the document for good."""
        with _PDFIUM:
            self.close()
            self._is_over = True

    def _page(self, i_page: int, told: PdfPage) -> Any:
        if self._num_pages >= _MAX_PAGES or self._num_bytes >= _MAX_STREAM_BYTES:
            self.close()
        if self._is_over:
            raise self._unreadable(i_page, "it was closed")
        if self._handle is None:
            handle = pdfium.FPDF_LoadDocument(os.fsencode(self._path) + b"\0", None)
            if not handle:
                raise self._unreadable(i_page, "the document does not open")
            self._handle = handle
            _OPEN.add(self)
        page = pdfium.FPDF_LoadPage(self._handle, i_page)
        if not page:
            raise self._unreadable(i_page, "the page does not open")
        self._num_pages += 1
        self._num_bytes += told.stream_bytes
        return page

    def _unreadable(self, i_page: int, why: str) -> InputError:
        return InputError(
            f"page {i_page + 1} of {self._path} cannot be read ({why})", "a sound PDF file", "it is cut off or damaged"
        )

    def __del__(self) -> None:
        if self._handle:
            self.close()


def jpeg_pixels(data: bytes, told: PdfPage) -> Pixels | None:
    """(y, x) or (y, x, 3) of a JPEG stream; None if it is not what the PDF says of it.

    Raises:
        Exception: of any type, if the stream is damaged.
    """
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        if image.mode != ("L" if told.num_channels == 1 else "RGB") or (image.height, image.width) != told.stored_shape:
            return None
        return np.asarray(image)


def _nth_image(page: Any, order: int) -> Any:
    """The picture painted after `order` others, those inside of forms counted where the forms are painted."""
    num_seen = num_objects = 0
    # (count, object at i) of the page, then of the forms that are being looked through
    todo: list[tuple[Any, int, int, bool]] = [(page, 0, pdfium.FPDFPage_CountObjects(page), False)]
    while todo:
        holder, i, count, is_form = todo.pop()
        while i < count and num_objects < _MAX_OBJECTS:
            num_objects += 1
            found = pdfium.FPDFFormObj_GetObject(holder, i) if is_form else pdfium.FPDFPage_GetObject(holder, i)
            i += 1
            kind = pdfium.FPDFPageObj_GetType(found)
            if kind == pdfium.FPDF_PAGEOBJ_IMAGE:
                if num_seen == order:
                    return found
                num_seen += 1
            elif kind == pdfium.FPDF_PAGEOBJ_FORM and len(todo) < _MAX_DEPTH:
                todo.append((holder, i, count, is_form))
                holder, i, count, is_form = found, 0, pdfium.FPDFFormObj_CountObjects(found), True
    return None


def _of_bitmap(bitmap: Any) -> Pixels:
    """A copy of a bitmap's pixels: (y, x) grey or (y, x, 3) RGB."""
    width, height = pdfium.FPDFBitmap_GetWidth(bitmap), pdfium.FPDFBitmap_GetHeight(bitmap)
    stride, kind = pdfium.FPDFBitmap_GetStride(bitmap), pdfium.FPDFBitmap_GetFormat(bitmap)
    samples = {pdfium.FPDFBitmap_Gray: 1, pdfium.FPDFBitmap_BGR: 3}.get(kind, 4)
    buffer = ctypes.cast(pdfium.FPDFBitmap_GetBuffer(bitmap), ctypes.POINTER(ctypes.c_uint8))
    rows = np.ctypeslib.as_array(buffer, (height, stride))[:, : width * samples]
    if samples == 1:
        return rows.copy()
    return np.ascontiguousarray(rows.reshape(height, width, samples)[..., 2::-1])


def _retire_all() -> None:
    """PDFium goes before the last objects of the interpreter do; a document closed after it would crash."""
    for document in list(_OPEN):
        document.retire()


# runs before PDFium's own end, which was registered when it was imported
atexit.register(_retire_all)
