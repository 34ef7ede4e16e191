"""Finished pages as files: multi-page TIFF, PNG, PDF, animated GIF.

A page is encoded by itself (`encode_page`, small, kept on disk until the others are there), then all are joined
(`assemble`) without being decoded again. Nothing in a file depends on the clock or on chance: same pages, same bytes.
"""

import io
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, BinaryIO

from unetctl.errors import ResourceError, UsageError
from unetctl.sinks.disk import fsync_folder, full_disk_explained, sha256_of
from unetctl.sinks.page import KINDS, BrokenPageError, Page
from unetctl.sinks.page_gif import DEFAULT_MS, Timing, encode_gif, gif_sizes, join_gifs
from unetctl.sinks.page_png import encode_png, png_size, write_png
from unetctl.sinks.page_tiff import encode_tiff, join_tiffs, tiff_sizes

__all__ = ["KINDS", "Page", "PageFileRecord", "assemble", "encode_page", "page_kind_for", "remove_leftovers"]

_LONGEST_NAME = 200  # bytes; what comes before and behind a temporary name has to fit into 255
_MOST_BITS = 16  # of PNG and PDF
_DEFAULT_KINDS = {"tiff": "tiff", "pdf": "pdf"} | dict.fromkeys(
    ("png", "jpeg", "bmp", "webp", "jpeg2000", "gif"), "png"
)

Sizes = list[tuple[int, int]]


@dataclass(frozen=True)
class PageFileRecord:
    """What `assemble` has made.

    Attributes:
        path: of the file.
        num_bytes: its size.
        sha256: of its content, hex.
        num_pages: in it.
        notes: sentences for the user: what of an original document could not be kept, whose size on paper is a guess.
    """

    path: Path
    num_bytes: int
    sha256: str
    num_pages: int
    notes: tuple[str, ...] = ()


def page_kind_for(
    origin_kind: str, is_one_bit: bool, wanted: str | None, num_pages: int, *, are_numbers: bool = False
) -> str:
    """The kind of file that pages are written as.

    Args:
        origin_kind: of the file they come from: "tiff", "pdf", "png", "jpeg", "bmp", "webp", "jpeg2000", "gif" or another.
        is_one_bit: True if the pages are ink and paper only.
        wanted: the user's choice, which goes before all else; None for the default.
        num_pages: in the file they come from. Several never become PNG unless wanted, one file a page then.
        are_numbers: True if pixels are numbers of objects, which only TIFF and PNG keep.

    Returns:
        "tiff", "png", "pdf" or, for the frames of one, "gif": the origin's own kind, or the nearest to it without loss.
        Unknown kinds give TIFF for 1-bit pages (fax code), PNG for others.

    Raises:
        ValueError: if `wanted` is no kind.
    """
    if wanted is not None:
        return _known(wanted)
    if are_numbers and origin_kind in ("pdf", "gif"):
        return "tiff"
    kind = _DEFAULT_KINDS.get(origin_kind, "tiff" if is_one_bit else "png")
    if kind == "png" and num_pages > 1:
        return "gif" if origin_kind == "gif" else "tiff"
    return kind


def encode_page(page: Page, kind: str) -> bytes:
    """One page as a complete file.

    1-bit pages: CCITT group 4 in TIFF and PDF, 1-bit PNG; ink is black (0) in each. Others: lossless, 8 or 16 bits.
    TIFF and PNG go through the page in bands; PDF takes another byte a pixel, as its fax code is in one piece.

    Raises:
        ValueError: if `kind` is none of KINDS.
        UsageError: if it cannot hold numbers of 32 bits.
    """
    if _known(kind) != "tiff" and page.num_bits > _MOST_BITS:
        raise UsageError(
            f"{page.num_bits} bits a pixel in {kind.upper()}",
            f"at most {_MOST_BITS}",
            "--format tiff holds any number of objects",
        )
    if kind == "pdf":
        from unetctl.sinks.page_pdf import encode_pdf  # qpdf only where a PDF is written

        return encode_pdf(page)
    if kind == "gif":
        return encode_gif(page)
    return encode_tiff(page) if kind == "tiff" else encode_png(page)


def assemble(
    target: Path,
    kind: str,
    encoded: Sequence[Path | bytes],
    *,
    original: Path | None = None,
    provenance: str = "",
    timing: Timing | None = None,
) -> PageFileRecord:
    """Joins encoded pages to the file `target`; its folder is made if need be, a file already there replaced.

    Written beside the target as `.NAME.partial`, flushed, read again (number and sizes of pages), renamed: under its
    own name there is never half a file. What a killed process has left is overwritten. Only one process may write a
    target at a time. Compressed data are copied; in memory is one page at a time (of a PDF, its dictionaries).

    Args:
        target: the file.
        kind: "tiff", "png" (one page only) or "pdf".
        encoded: what `encode_page` made for that kind, in the order of pages.
        original: the PDF that the pages come from, one for each of its pages, upright as they are seen: its text layer,
            bookmarks, boxes, annotations and metadata are kept (see `page_pdf_original.replace_pages`).
        timing: of the frames of a GIF; None: ten a second, for ever.
        provenance: of the pages, for the Software tag, or a new PDF's Producer; an original's metadata stay as they are.

    Raises:
        ValueError: if there is no page, several for PNG, or an original that is not for PDF.
        InputError: if the original cannot be read or has another number of pages.
        ResourceError: if the disk is full, or what was written cannot be read again.
    """
    target = Path(target)
    if _known(kind) == "png" and len(encoded) != 1:
        raise ValueError(f"a PNG file holds one page, not {len(encoded)}")
    if not encoded or (original is not None and kind != "pdf"):
        raise ValueError("pages are missing" if not encoded else f"an original is for PDF, not for {kind}")
    with full_disk_explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_names(target) as (partial, folder):
            try:
                with partial.open("w+b") as file:
                    if kind == "pdf":
                        notes = _write_pdf(file, partial, encoded, folder, original, provenance)
                    else:
                        notes = ()
                        _write(file, kind, encoded, provenance, timing or Timing((DEFAULT_MS,) * len(encoded)))
            except BrokenPageError as error:
                raise ResourceError(
                    f"{target} cannot be made: {error}",
                    "what has been written",
                    "the disk may be faulty or full; run the same command again",
                ) from error
            record = PageFileRecord(target, partial.stat().st_size, sha256_of(partial), len(encoded), notes)
            partial.replace(target)
            fsync_folder(target.absolute().parent)
    return record


def remove_leftovers(target: Path) -> None:
    """Removes what a killed process has left beside a target; only while nobody writes it."""
    with _temporary_names(target):
        pass


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"pages are written as {', '.join(KINDS)}, not {kind!r}")
    return kind


@contextmanager
def _temporary_names(target: Path) -> Iterator[tuple[Path, Path]]:
    """A file and a folder (not there yet) beside the target; both are gone afterwards."""
    name = target.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = sha256(os.fsencode(name)).hexdigest()
    partial, folder = (target.with_name(f".{name}.{ending}") for ending in ("partial", "pages"))
    try:
        shutil.rmtree(folder, ignore_errors=True)
        yield partial, folder
    finally:
        partial.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _write(file: IO[bytes], kind: str, encoded: Sequence[Path | bytes], provenance: str, timing: Timing) -> None:
    if kind == "gif":
        written = join_gifs(file, _opened(encoded), timing, provenance)
    elif kind == "png":
        with _open(encoded[0]) as one:
            written = [write_png(file, one, provenance)]
    else:
        num_bytes = sum(len(one) if isinstance(one, bytes) else one.stat().st_size for one in encoded)
        written = join_tiffs(file, _opened(encoded), len(encoded), num_bytes, provenance)
    _flush(file)
    file.seek(0)
    _compare(written, [png_size(file)] if kind == "png" else gif_sizes(file) if kind == "gif" else tiff_sizes(file))


def _write_pdf(
    file: BinaryIO,
    partial: Path,
    encoded: Sequence[Path | bytes],
    folder: Path,
    original: Path | None,
    provenance: str,
) -> tuple[str, ...]:
    from unetctl.sinks import page_pdf, page_pdf_original

    folder.mkdir()
    paths = []
    for i, one in enumerate(encoded):
        if isinstance(one, bytes):
            paths.append(folder / f"given-{i}.pdf")
            paths[-1].write_bytes(one)
        else:
            paths.append(one)
    if original is None:
        sizes, guessed = page_pdf.join_pdfs(file, paths, provenance)
        placements = [page_pdf_original.Placement((page_pdf.IMAGE_NAME,), size) for size in sizes]
        notes = page_pdf.told_guesses(guessed)
    else:
        placements, notes = page_pdf_original.replace_pages(file, original, paths, folder)
    _flush(file)
    _compare([placement.size for placement in placements], page_pdf_original.sizes_at(partial, placements))
    return notes


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _compare(written: Sizes, found: Sizes) -> None:
    if written != found:
        raise BrokenPageError(f"it has {len(found)} pages of other sizes than the {len(written)} that were written")


def _open(encoded: Path | bytes) -> IO[bytes]:
    return io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded.open("rb")


def _opened(encoded: Sequence[Path | bytes]) -> Iterator[IO[bytes]]:
    for one in encoded:
        with _open(one) as file:
            yield file
