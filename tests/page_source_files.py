"""PDF files for the tests of pages, put together object by object."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pikepdf
from PIL import Image

Array = npt.NDArray[Any]


def text_page(shape: tuple[int, int], seed: int = 0) -> Array:
    """Grey page: smooth paper, dark strokes, no symmetry."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    page = 200 + 40 * np.sin(y / 37 + seed) * np.cos(x / 51)
    for _ in range(12):
        top, left = int(rng.integers(0, shape[0] - 4)), int(rng.integers(0, shape[1] // 2))
        page[top : top + 3, left : left + shape[1] // 3] = 20
    page[: shape[0] // 5, : shape[1] // 4] -= 90
    grey: Array = page.clip(0, 255).astype(np.uint8)
    return grey


def one_page_pdf(
    path: Path,
    image: dict[str, Any] | None,
    data: bytes = b"",
    *,
    content: str = "q 144 0 0 72 0 0 cm /I Do Q",
    size: tuple[float, float] = (144, 72),
    page: dict[str, Any] | None = None,
    resources: dict[str, Any] | None = None,
) -> Path:
    """A PDF of one page of `size` points (width, height) with one picture named /I."""
    pdf = pikepdf.new()
    pdf.add_blank_page(page_size=size)
    told = pikepdf.Dictionary(XObject=pikepdf.Dictionary())
    if image is not None:
        stream = pikepdf.Stream(pdf, data, Type=pikepdf.Name.XObject, Subtype=pikepdf.Name.Image, **image)
        told.XObject["/I"] = pdf.make_indirect(stream)
    for key, value in (resources or {}).items():
        told[key] = value
    pdf.pages[0].obj["/Resources"] = told
    pdf.pages[0].obj["/Contents"] = pdf.make_indirect(pikepdf.Stream(pdf, content.encode()))
    for key, value in (page or {}).items():
        pdf.pages[0].obj[key] = value
    pdf.save(path, compress_streams=False, stream_decode_level=pikepdf.StreamDecodeLevel.none)
    return path


def grey_image(pixels: Array) -> tuple[dict[str, Any], bytes]:
    """An uncompressed grey picture."""
    height, width = pixels.shape
    told = {"Width": width, "Height": height, "BitsPerComponent": 8, "ColorSpace": pikepdf.Name.DeviceGray}
    return told, pixels.tobytes()


def g4_bytes(ink: Array) -> bytes:
    """T.6 code of a bilevel picture, ink (True) as black pixels."""
    stream = io.BytesIO()
    Image.fromarray(~ink).save(stream, "TIFF", compression="group4", tiffinfo={278: ink.shape[0], 262: 0})
    with Image.open(stream) as image:
        tags: Any = image
        offset, length = tags.tag_v2[273][0], tags.tag_v2[279][0]
    return stream.getvalue()[offset : offset + length]


def jbig2_bytes(ink: Array) -> bytes:
    """A JBIG2 stream as PDF embeds them: page information and one generic region in MMR code (ITU T.88, 7.4)."""
    height, width = ink.shape
    region = struct.pack(">IIIIB", width, height, 0, 0, 0) + b"\x01" + g4_bytes(ink)
    info = struct.pack(">IIIIBH", width, height, 0, 0, 0, 0)
    return (
        struct.pack(">IBBBI", 0, 48, 0, 1, len(info)) + info + struct.pack(">IBBBI", 1, 38, 0, 1, len(region)) + region
    )
