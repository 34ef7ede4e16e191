"""`unetctl info FILE` for documents: their pages, and how far a run of pages is. No pixels are read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from unetctl.errors import InputError
from unetctl.jobs.info import FileDescription
from unetctl.jobs.pages.ledger import read_ledger, settings_of
from unetctl.runtime.memory import format_size
from unetctl.runtime.run_folder import RunFolder
from unetctl.sources.base import ImageInfo
from unetctl.sources.files import NO_LIMIT, existing_path
from unetctl.sources.formats import is_pdf, sniff
from unetctl.sources.open import open_source
from unetctl.sources.pages import PageOrigin, open_pages

#: So many different pages of a file are listed; what is alike and in a row counts once.
_LISTED = 6
#: Longer rows of alike planes are a stack unless they have a resolution.
_LONG_STACK = 256
#: TIFF files that are what scanners write; those of microscopes name their kind.
_PLAIN_TIFFS = ("TIFF", "BigTIFF")


def describe_document(path: str) -> FileDescription | None:
    """What a file of pages is: PDF, PNG, JPEG and their like, and TIFFs as scanners write them.

    A TIFF is taken for pages if it is plain (no OME, no ImageJ), has no pixel size in micrometres, and a resolution, one
    bit a pixel, colours or pages of several sizes; how it would be read as a stack is told too.

    Returns:
        None if the path is something else: arrays, folders, volumes, pictures whose values have no black and white.

    Raises:
        InputError: if there is nothing, or a PDF or TIFF is damaged.
    """
    if not existing_path(path).is_file():
        return None
    pdf, volume = is_pdf(path), None
    if not pdf:
        kind = sniff(path)
        if kind == "tiff":
            volume = _as_volume(path)
            if volume is None or _is_long_stack(volume):
                return None
        elif kind != "raster":
            return None
    try:
        source = open_pages(path, max_bytes=NO_LIMIT)
    except InputError:
        if pdf:
            raise
        return None
    try:
        info, origins = source.info, source.origins
    finally:
        source.close()
    if volume is not None and not (
        len(volume) > 1
        or any(image.dpi is not None or image.is_rgb for image in volume)
        or any(origin.is_bilevel for origin in origins)
    ):
        return None
    stack = volume[0] if volume is not None and len(volume) == 1 and "z" in volume[0].axes else None
    return _described(path, info.format, info.identity.get("num_bytes"), info.images, origins, stack)


def _as_volume(path: str) -> tuple[ImageInfo, ...] | None:
    """How a TIFF is read by tasks on volumes; None if it surely holds volumes."""
    source = open_source(path, max_bytes=NO_LIMIT)
    try:
        info = source.info
    finally:
        source.close()
    is_measured = any(size is not None for image in info.images for size in image.spacing_um)
    return None if is_measured or info.format not in _PLAIN_TIFFS else info.images


def _is_long_stack(images: Sequence[ImageInfo]) -> bool:
    """True if so many alike planes without a resolution lie in a TIFF that looking at each would take long."""
    return len(images) == 1 and images[0].size_of("z") > _LONG_STACK and images[0].dpi is None and not images[0].is_rgb


def _described(
    path: str,
    format_: str,
    num_bytes: object,
    images: Sequence[ImageInfo],
    origins: Sequence[PageOrigin],
    stack: ImageInfo | None,
) -> FileDescription:
    facts = [("format", format_)]
    facts += [("size", f"{format_size(num_bytes)} on disk")] if isinstance(num_bytes, int) else []
    facts += [("pages", str(len(images)))] if len(images) > 1 else []
    rows = list(_rows(images, origins))
    facts += [(row.name, row.text) for row in rows[:_LISTED]]
    rest = sum(row.num_pages for row in rows[_LISTED:])
    facts += [("...", f"and {rest} more")] if rest else []
    if stack is not None:
        sizes = " x ".join(map(str, stack.shape))
        facts.append(("as a stack", f"{stack.axes} {sizes}, {stack.dtype}, for tasks on volumes"))
    values: dict[str, Any] = {
        "format": format_,
        "num_bytes": num_bytes,
        "pages": [_page_values(image, origin) for image, origin in zip(images, origins, strict=True)],
    }
    run = RunFolder(Path(path)).path
    if settings_of(run) is not None:
        state, told = _state(run)
        facts += told
        values["run"] = state
    return FileDescription(path, "pages", tuple(facts), values)


@dataclass(frozen=True)
class _Row:
    """Pages that are alike, as one line."""

    name: str
    text: str
    num_pages: int


def _rows(images: Sequence[ImageInfo], origins: Sequence[PageOrigin]) -> Iterator[_Row]:
    first = 1
    for text, alike in groupby(_page_line(i, o) for i, o in zip(images, origins, strict=True)):
        num = sum(1 for _ in alike)
        last = first + num - 1
        name = "page" if len(images) == 1 else f"page {first}" if num == 1 else f"pages {first}-{last}"
        yield _Row(name, text, num)
        first += num


def _page_line(image: ImageInfo, origin: PageOrigin) -> str:
    words = [f"{image.shape[-2]} x {image.shape[-1]} px (yx)", _mode(image, origin), _dpi(image.dpi)]
    notes = list(origin.notes)
    if origin.kind == "pdf" and origin.is_embedded:
        words.append("an embedded scan")
        notes = notes[1:]  # says the same at length
    return "; ".join([", ".join(words), *notes])


def _mode(image: ImageInfo, origin: PageOrigin) -> str:
    if origin.is_bilevel:
        return "1-bit"
    deep = "16-bit " if image.dtype.itemsize == 2 else ""
    return f"{deep}{'colour' if image.is_rgb else 'grey'}"


def _dpi(dpi: tuple[float, float] | None) -> str:
    if dpi is None:
        return "dpi unknown"
    y, x = (f"{value:.4g}" for value in dpi)
    return f"{y} dpi" if y == x else f"{y} x {x} dpi (yx)"


def _page_values(image: ImageInfo, origin: PageOrigin) -> dict[str, Any]:
    return {
        "shape": list(image.shape[-2:]),
        "mode": _mode(image, origin),
        "dtype": str(image.dtype),
        "dpi": None if image.dpi is None else list(image.dpi),
        "is_bilevel": origin.is_bilevel,
        "is_embedded": origin.is_embedded,
        "has_icc": origin.icc is not None,
        "notes": list(origin.notes),
    }


def describe_page_run(path: str, run: Path) -> FileDescription:
    """How far a run of pages is, by its ledger.

    Args:
        path: as given.
        run: the run folder.
    """
    state, facts = _state(run)
    return FileDescription(path, "run", tuple(facts), {"run": state})


def _state(run: Path) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    settings = settings_of(run) or {}
    records = read_ledger(run)
    done = [r for r in records if r.status == "done"]
    failed = sorted((r for r in records if r.status == "failed"), key=lambda r: r.name)
    keep, threshold = settings.get("keep"), settings.get("threshold")
    what = f"{keep}{f' from {threshold:g}' if keep == 'mask' and threshold is not None else ''}"
    num_pages = sum(r.num_pages for r in done)
    facts = [
        ("made by", f"unetctl predict: {what} by {settings.get('task')}, page by page"),
        ("state", f"{len(done)} files done ({num_pages} pages), {len(failed)} failed"),
        *(("failed", f"{r.name}: {r.error}") for r in failed[:_LISTED]),
    ]
    facts += [("...", f"and {len(failed) - _LISTED} more")] if len(failed) > _LISTED else []
    values = {
        "settings": settings,
        "num_done": len(done),
        "num_pages": num_pages,
        "failed": {r.name: r.error for r in failed},
    }
    return values, facts
