"""The door for scanned documents: any file of pages becomes a source with one picture a page."""

import os
from dataclasses import dataclass
from typing import Protocol

from unetctl.errors import InputError
from unetctl.sources.base import ImageInfo, Source
from unetctl.sources.files import existing_path
from unetctl.sources.formats import is_gif, is_pdf, sniff

PDF_DPI = 300.0


@dataclass(frozen=True)
class PageOrigin:
    """What a page was in its file, so that what is made of it can be alike.

    Attributes:
        kind: format of the file in lower case: "tiff", "png", "jpeg", "bmp", "webp", "jpeg2000", "gif", "pdf" ...
        is_bilevel: True if the file has one bit a pixel.
        icc: colour profile that holds for the pixels as they are read; None without one, or if it describes other ones
            (inks, a colour table).
        dpi: (y, x) dots per inch of the upright page; None where the file does not say.
        rotation: EXIF / TIFF orientation, or that of a picture placed in a PDF, that was undone; 1 for none.
        notes: sentences for the user about what was done to make it a page.
        duration_ms: that a frame of a film is shown; None where there is no such thing.
        loop: how often its film is shown again, 0: for ever; None: once, or there is none.
        is_embedded: True if the page is a picture in a PDF, at its own pixels; False if it was rendered, and for
            everything but PDF.
    """

    kind: str
    is_bilevel: bool
    icc: bytes | None
    dpi: tuple[float, float] | None
    rotation: int
    notes: tuple[str, ...]
    is_embedded: bool = False
    duration_ms: int | None = None
    loop: int | None = None


class PageSource(Source, Protocol):
    """A source of which every picture is a page: axes "yx" or "cyx" (RGB), uint8 or uint16, white where transparent."""

    @property
    def images(self) -> tuple[ImageInfo, ...]:
        """As in `info`, without the work of telling the file from others."""
        ...

    @property
    def origins(self) -> tuple[PageOrigin, ...]:
        """One a page."""
        ...


def open_pages(path: str, *, max_bytes: int | None = None, pdf_dpi: float = PDF_DPI) -> PageSource:
    """Opens a file of pages by its content; only headers are read.

    Args:
        path: a TIFF (each directory that is no reduced copy is a page), a PDF, or one picture (PNG, JPEG, BMP, WebP,
            JPEG 2000 ...), an animated GIF (each frame is a page). For a folder of frames see
            `unetctl.sources.pages_frames`.
        max_bytes: that what must be decoded whole (a strip, a picture, a page of a PDF) may take; 1 GiB unless given.
        pdf_dpi: resolution of PDF pages that are drawn rather than scanned.

    Returns:
        A source; close it when done. Its `read` may be called from several threads.

    Raises:
        InputError: if the path is missing, damaged, encrypted, too large for `max_bytes`, or no file of pages.
    """
    if not existing_path(path).is_file():
        raise InputError(f"{path} is no file", "a picture, a TIFF or a PDF", "folders of pages are listed file by file")
    if is_pdf(path):
        from unetctl.sources.pdf import PdfPages

        return PdfPages(os.fspath(path), max_bytes, pdf_dpi)
    kind = sniff(path)
    if kind == "tiff":
        from unetctl.sources.pages_tiff import open_tiff_pages

        return open_tiff_pages(path, max_bytes)
    if kind == "raster" and is_gif(path):
        from unetctl.sources.pages_gif import GifPages, num_frames

        if num_frames(path) > 1:
            return GifPages(path, max_bytes)
    if kind == "raster":
        from unetctl.sources.pages_raster import open_raster_page

        return open_raster_page(path, max_bytes)
    raise InputError(f"{path} holds arrays ({kind}), not pages", "TIFF, PNG, JPEG, PDF", "save it as TIFF or PNG")
