"""PDF pages: one picture a page, CCITT group 4 or deflated; joined into a new document.

pikepdf (qpdf) writes the files, and copies compressed pictures as they are.
"""

import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy.typing as npt
import pikepdf
from pikepdf import Array, Dictionary, Name

from unetctl.sinks.page import BrokenPageError, Page
from unetctl.sinks.page_g4 import g4_decode, g4_encode
from unetctl.sinks.page_png import deflated_rows, inflated_rows

DPI_IF_UNKNOWN = 300.0
"""Resolution that gives a page its size on paper where the picture has none."""

IMAGE_NAME = "/Im0"
"""What the picture is called in a page's resources."""

UNKNOWN_DPI = "/UnetctlUnknownDpi"
"""Key of an encoded page whose resolution is not known; finished files do not have it."""

_LARGEST_POINTS = 14400  # of a side, ISO 32000-1, annex C
_NUM_DIGITS = 7
_LESS = 1e-4  # of a point: poppler draws a picture that ends on a whole pixel one pixel larger, and so resamples it


def encode_pdf(page: Page) -> bytes:
    """One page as a PDF file, its box as large as the picture at its resolution."""
    pdf = pikepdf.new()
    height, width = page.pixels.shape[:2]
    dpi = page.usable_dpi or (DPI_IF_UNKNOWN, DPI_IF_UNKNOWN)
    y, x = 72 * height / dpi[0], 72 * width / dpi[1]
    unit = max(1, math.ceil(max(y, x) / _LARGEST_POINTS))
    y, x = (points / unit - min(_LESS, points / unit / 1000) for points in (y, x))
    made = Dictionary(
        Type=Name.Page,
        MediaBox=Array([0, 0, _number(x), _number(y)]),
        Resources=Dictionary(XObject=Dictionary({IMAGE_NAME: _image(pdf, page)})),
        Contents=pdf.make_stream(f"q {_number(x)} 0 0 {_number(y)} 0 0 cm {IMAGE_NAME} Do Q\n".encode()),
    )
    if unit > 1:
        made.UserUnit = unit
    if page.usable_dpi is None:
        made[UNKNOWN_DPI] = True
    pdf.pages.append(pikepdf.Page(made))
    file = io.BytesIO()
    pdf.save(file, deterministic_id=True, min_version="1.6" if unit > 1 else "1.5")
    return file.getvalue()


@contextmanager
def opened(path: Path, *, recover: bool = True) -> Iterator[pikepdf.Pdf]:
    """A PDF file, for a while; its name need not be UTF-8, as pikepdf wants it.

    Raises:
        pikepdf.PdfError: if it cannot be read; without `recover` already if it is not whole.
        pikepdf.PasswordError: if it is locked.
    """
    with path.open("rb") as file, pikepdf.open(file, attempt_recovery=recover) as pdf:
        yield pdf


@contextmanager
def opened_page(encoded: Path) -> Iterator[pikepdf.Page]:
    """An encoded page, for a while.

    Raises:
        BrokenPageError: if it is not whole.
    """
    try:
        with opened(encoded, recover=False) as one:
            yield one.pages[0]
    except (pikepdf.PdfError, pikepdf.PasswordError, IndexError, KeyError, AttributeError) as error:
        raise BrokenPageError(f"{encoded.name} cannot be read ({error})") from error


def image_on(page: pikepdf.Page) -> pikepdf.Object:
    """The picture of an encoded page."""
    return page.obj.Resources.XObject[IMAGE_NAME]


def size_of(image: pikepdf.Object) -> tuple[int, int]:
    """Height and width of a picture of a PDF in pixels."""
    return int(image.Height), int(image.Width)


def pixels_of(image: pikepdf.Object) -> npt.NDArray[Any]:
    """Decodes the picture of an encoded page: pixels as `Page` has them."""
    height, width = size_of(image)
    if image.Filter == Name.CCITTFaxDecode:
        return g4_decode(image.read_raw_bytes(), height, width)
    shape = (height, width, 3) if int(image.DecodeParms.Colors) == 3 else (height, width)
    return inflated_rows(image.read_raw_bytes(), shape, int(image.BitsPerComponent))


def icc_of(image: pikepdf.Object) -> bytes | None:
    """The ICC profile of the picture of an encoded page."""
    space = image.ColorSpace
    return bytes(space[1].read_bytes()) if isinstance(space, Array) else None


@contextmanager
def merged(first: Path | None, others: Sequence[Path]) -> Iterator[pikepdf.Pdf]:
    """The pages of `first`, with all that its document has, and behind them those of `others`; to be saved inside.

    Nothing but dictionaries is in memory: compressed pictures are read from the files when the document is saved (other
    than by `Pdf.pages.extend`, which copies them at once). No file is kept open.

    Args:
        first: the document whose bookmarks, metadata and forms are kept; None for a new one.
        others: documents without such.

    Raises:
        pikepdf.PdfError, pikepdf.PasswordError, RuntimeError: if one cannot be read.
    """
    options = [
        "--decrypt",
        "--keep-files-open=n",
        "--remove-unreferenced-resources=no",
        "--no-warn",
        "--warning-exit-0",
    ]
    with TemporaryDirectory(prefix="unetctl-") as folder:
        start = ["--empty"] if first is None else [_utf8_path(first, folder)]
        pages = ([] if first is None else [".", "1-z"]) + [_utf8_path(path, folder) for path in others]
        job = pikepdf.Job(["qpdf", *start, *options, "--pages", *pages, "--", str(Path(folder) / "never-written.pdf")])
        pdf: pikepdf.Pdf = job.create_pdf()  # type: ignore[no-untyped-call]
        with pdf:
            yield pdf
        del job  # it holds what is read when saving


def join_pdfs(file: BinaryIO, encoded: Sequence[Path], provenance: str) -> tuple[list[tuple[int, int]], list[int]]:
    """Writes a new document of encoded pages; what is in memory is their dictionaries, not their pictures.

    Args:
        file: where to, at its start.
        encoded: files of what `encode_pdf` has made, in order.
        provenance: for the document's Producer; "" leaves it away.

    Returns:
        The pictures' sizes (y, x), and the indices of pages whose size on paper is a guess, their resolution unknown.
    """
    sizes, guessed = [], []
    for i_page, path in enumerate(encoded):
        with opened_page(path) as page:
            sizes.append(size_of(image_on(page)))
            if UNKNOWN_DPI in page.obj:
                guessed.append(i_page)
    with merged(None, encoded) as pdf:
        for i_page in guessed:
            del pdf.pages[i_page].obj[UNKNOWN_DPI]
        if provenance:
            pdf.docinfo[Name.Producer] = provenance
        pdf.save(file, deterministic_id=True, min_version="1.6")
    return sizes, guessed


def told_guesses(guessed: Sequence[int]) -> tuple[str, ...]:
    """The sentence about pages (indices) without a resolution; none if there are none."""
    if not guessed:
        return ()
    pages = told_pages([i + 1 for i in guessed])
    return (f"{pages}: no resolution is known, so the size on paper is as for {DPI_IF_UNKNOWN:g} DPI",)


def told_pages(pages: Sequence[int]) -> str:
    """'page 3', 'pages 1-3, 7'."""
    ranges: list[list[int]] = []
    for number in pages:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    texts = [str(a) if a == b else f"{a}-{b}" for a, b in ranges]
    return ("pages " if len(pages) > 1 else "page ") + ", ".join(texts)


def _utf8_path(path: Path, folder: str) -> str:
    """The file's absolute name, or a link of the folder where qpdf could not be told that."""
    text = str(path.absolute())
    try:
        text.encode()
    except UnicodeEncodeError:
        link = Path(folder) / f"{len(os.listdir(folder))}.pdf"
        link.symlink_to(path.absolute())
        return str(link)
    return text


def _image(pdf: pikepdf.Pdf, page: Page) -> pikepdf.Object:
    height, width = page.pixels.shape[:2]
    space: Any = Name.DeviceGray if page.num_samples == 1 else Name.DeviceRGB
    if page.usable_icc is not None:
        profile = pdf.make_stream(page.usable_icc, N=page.num_samples, Alternate=space)
        space = Array([Name.ICCBased, profile])
    facts = {"BitsPerComponent": page.num_bits, "Columns": width}
    if page.is_one_bit:
        data = g4_encode(page.rows(0, height))
        code, parameters = Name.CCITTFaxDecode, Dictionary(K=-1, Columns=width, Rows=height, BlackIs1=False)
    else:
        data = b"".join(deflated_rows(page))
        code, parameters = Name.FlateDecode, Dictionary(Predictor=15, Colors=page.num_samples, **facts)
    return pikepdf.Stream(
        pdf,
        data,
        Type=Name.XObject,
        Subtype=Name.Image,
        Width=width,
        Height=height,
        ColorSpace=space,
        BitsPerComponent=page.num_bits,
        Filter=code,
        DecodeParms=parameters,
    )


def _number(value: float) -> Any:
    """A number as PDF writes it: no exponent, no digits that mean nothing."""
    text = f"{value:.{_NUM_DIGITS}f}".rstrip("0").rstrip(".")
    return Decimal(text)
