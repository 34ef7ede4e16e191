"""What tests of pages share: a scan, PDFs made of it, and PDFs rendered by pdfium, which has no part in writing them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import numpy.typing as npt
import pikepdf
import pypdfium2  # type: ignore[import-untyped]
from pikepdf import Array, Dictionary, Name

W, H = 90, 70  # of a scan in pixels, and in points: one pixel a point renders without resampling


def drawn(seed: int = 0) -> npt.NDArray[np.bool_]:
    """Ink on a scan that looks different however it is turned."""
    ink = np.zeros((H, W), bool)
    ink[5:9, 5:80] = ink[5:60, 5:8] = ink[20:30, 20:26] = True
    return ink | (np.random.default_rng(seed).random((H, W)) < 0.02)


def scan(pdf: pikepdf.Pdf, ink: npt.NDArray[np.bool_], **keys: Any) -> pikepdf.Object:
    """A grey 8-bit scan of it."""
    pixels = np.where(ink, 40, 200).astype("u1")
    height, width = pixels.shape
    image: pikepdf.Object = pdf.make_stream(pixels.tobytes(), Type=Name.XObject, Subtype=Name.Image, Width=width,
                            Height=height, ColorSpace=Name.DeviceGray, BitsPerComponent=8, **keys)  # fmt: skip
    return image


def add_page(
    pdf: pikepdf.Pdf, content: str, images: dict[str, Any], box: Iterable[float] = (0, 0, W, H), **keys: Any
) -> pikepdf.Object:
    font = Dictionary(Type=Name.Font, Subtype=Name.Type1, BaseFont=Name.Helvetica)
    resources = Dictionary(XObject=Dictionary(images), Font=Dictionary(F1=font))
    page = Dictionary(Type=Name.Page, MediaBox=Array(list(box)), Resources=resources,
                      Contents=pdf.make_stream(content.encode()), **keys)  # fmt: skip
    pdf.pages.append(pikepdf.Page(page))
    return pdf.pages[-1].obj


def pdf_pixels(file: Path | BinaryIO) -> list[npt.NDArray[Any]]:
    """The one picture of each page: bool with True = paper, or uint8, uint16."""
    found = []
    with pikepdf.open(file) as pdf:
        for page in pdf.pages:
            (image,) = page.obj.Resources.XObject.values()
            height, width, bits = int(image.Height), int(image.Width), int(image.BitsPerComponent)
            if image.Filter == pikepdf.Name.CCITTFaxDecode:
                bits_read = imagecodecs.ccittfax4_decode(image.read_raw_bytes(), height=height, width=width)
                found.append(~np.asarray(bits_read, bool))
            else:
                samples = np.frombuffer(image.read_bytes(), f">u{bits // 8}")
                found.append(
                    samples.reshape((height, width, -1)).squeeze(2)
                    if samples.size == height * width
                    else samples.reshape((height, width, 3))
                )
    return [pixels if pixels.dtype == bool else pixels.astype(pixels.dtype.newbyteorder("=")) for pixels in found]


def rendered(path: Path, scale: float = 1.0) -> list[npt.NDArray[np.uint8]]:
    """Pages as seen, (y, x) grey, `scale` pixels a point."""
    pdf = pypdfium2.PdfDocument(path)
    try:
        return [np.asarray(page.render(scale=scale).to_pil().convert("L")) for page in pdf]
    finally:
        pdf.close()


def text_of(path: Path) -> list[str]:
    """The text of each page as a viewer searches it."""
    pdf = pypdfium2.PdfDocument(path)
    try:
        return [page.get_textpage().get_text_range() for page in pdf]
    finally:
        pdf.close()


def ink_seen(path: Path, scale: float = 1.0) -> list[npt.NDArray[np.bool_]]:
    """Where pages as seen are dark."""
    return [page < 120 for page in rendered(path, scale)]
