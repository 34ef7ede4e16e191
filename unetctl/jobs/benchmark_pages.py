"""Pages with their ground truth, and files of an earlier `predict` that belong to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.geometry.box import Box
from unetctl.jobs.pages.views import OnePage, coloured
from unetctl.runtime.grey_scale import LUMINANCE
from unetctl.sources.files import RUN_SUFFIX
from unetctl.sources.pages import open_pages
from unetctl.training.pairs import Pair
from unetctl.training.splits import Selection
from unetctl.training.truth import TwoSides, two_sides

Pixels = npt.NDArray[Any]
Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_SUFFIXES = (".tif", ".tiff", ".png", ".pdf", ".bmp")


@dataclass(frozen=True)
class LabelledPage:
    """One page and where its truth lies.

    Attributes:
        name: unique.
        pair: its files.
        i_page: of both files.
    """

    name: str
    pair: Pair
    i_page: int


class OpenedPage(OnePage):
    """One page of a file as a source of its own, held as a context.

    Args:
        path: of a picture, a TIFF or a PDF.
        i_page: from 0.
        in_colour: show a grey page as one of three equal colours, as predict does for networks that take colour.

    Raises:
        InputError: if the file cannot be read or has fewer pages.
    """

    def __init__(self, path: Path, i_page: int, *, in_colour: bool = False) -> None:
        pages = open_pages(str(path))
        try:
            told = pages.info
            if i_page >= len(told.images):
                raise InputError(
                    f"{path} has {len(told.images)} pages",
                    f"at least {i_page + 1}",
                    "give pictures and labels page for page",
                )
            stored = told.images[i_page]
            super().__init__(pages, i_page, coloured(stored) if in_colour else stored, told.identity, pages.close)
        except BaseException:
            pages.close()
            raise

    def __enter__(self) -> "OpenedPage":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def whole(self) -> Grey:
        """(y, x) or (y, x, 3) uint8: the page; 16 bits are shortened to 8."""
        pixels: Pixels = self.read(0, Box.whole(self.info.images[0].shape))
        if pixels.dtype != np.uint8:
            pixels = np.rint(pixels / (np.iinfo(pixels.dtype).max / 255))
        pixels = pixels.astype(np.uint8)
        return pixels if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, 0, -1))


def luminance(picture: Grey) -> Grey:
    """(y, x) uint8: ``0.299 R + 0.587 G + 0.114 B`` rounded, of (y, x) or (y, x, 3)."""
    if picture.ndim == 2:
        return picture
    # In whole numbers: sums of rounded fractions would now and then fall on the other side of a half.
    weights = np.asarray([round(1000 * w) for w in LUMINANCE], np.uint32)
    thousandths = (picture * weights).sum(-1, dtype=np.uint32)
    rounded: Grey = ((thousandths + 500) // 1000).astype(np.uint8)
    return rounded


def pages_of(selections: Sequence[Selection]) -> list[LabelledPage]:
    """The single pages of pairs, in order.

    Raises:
        InputError: if a file cannot be read.
    """
    pages = []
    for selection in selections:
        pair, planes = selection.pair, selection.planes
        if len(planes) == 1:  # pages of several sizes do not count as planes
            source = open_pages(str(pair.image))
            planes = tuple(range(max(1, len(source.images)))) if planes == (0,) else planes
            source.close()
        several = len(planes) > 1
        pages += [LabelledPage(f"{pair.name}[{i}]" if several else pair.name, pair, i) for i in planes]
    return pages


def read_page(page: LabelledPage) -> Grey:
    """(y, x) or (y, x, 3) uint8."""
    with OpenedPage(page.pair.image, page.i_page) as source:
        return source.whole()


def read_truth(page: LabelledPage, ink_is_high: bool) -> Mask:
    """(y, x), True on ink.

    Args:
        page: whose truth is read.
        ink_is_high: see `unetctl.jobs.benchmark_truth.is_ink_high`.

    Raises:
        InputError: see `read_sides`.
    """
    sides = read_sides(page)
    return sides.is_high if ink_is_high else ~sides.is_high


def read_sides(page: LabelledPage) -> TwoSides:
    """The two values of a page's ground truth.

    Raises:
        InputError: if the file cannot be read, is not two-valued, or has another size than the page.
    """
    return _two_sides(page.pair.labels, page, "its ground truth", "")


def read_predicted(path: Path, page: LabelledPage) -> Mask:
    """(y, x), True on ink, of the two-valued file that was predicted for a page: black, or the darker of the two values.

    Raises:
        InputError: if the file cannot be read, is not two-valued, or has another size than the page.
    """
    return ~_two_sides(path, page, "the prediction", "predict with --keep mask, which writes 1-bit pages").is_high


def _two_sides(path: Path, page: LabelledPage, what: str, hint: str) -> TwoSides:
    with OpenedPage(page.pair.image, page.i_page) as source:
        size = source.info.images[0].shape[-2:]
    with OpenedPage(path, page.i_page) as source:
        values = luminance(source.whole())
    if values.shape != size:
        told = ["x".join(map(str, shape)) for shape in (values.shape, size)]
        raise InputError(
            f"{path}: {what} has {told[0]} pixels (rows x columns), the page {page.name} {told[1]}", "equal sizes"
        )
    try:
        return two_sides(values, str(path))
    except InputError as error:
        raise InputError(
            f"{path}: {what} is not two-valued ({error.seen})", "one value for ink and another for paper", hint
        ) from error


def match_predicted(pages: Sequence[LabelledPage], data: Path, folder: Path, task: str) -> dict[str, Path]:
    """Which file of a predicted tree belongs to which page: by relative paths, whose endings must agree.

    ``OUT/2016/H01.tif``, ``OUT/H01-TASK.png``, ``OUT/H01.jpg.tif`` and ``OUT/2016/images/H01.tif`` all belong to
    ``2016/images/H01.jpg``; where there are several, the one with the most folders in common, and the plainest name.

    Args:
        pages: with ground truth.
        data: the folder that they were found in.
        folder: of predicted files.
        task: ending of names, after a hyphen, that may be no part of them.

    Returns:
        Paths by the pages' names.

    Raises:
        InputError: if the folder is missing, or a page has no file or several, or several pages have one.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder", "the folder that predict wrote its pages to")
    files = _files_by_name(folder, task)
    found: dict[str, Path] = {}
    missing: list[str] = []
    several: list[str] = []
    owners: dict[Path, dict[Path, None]] = {}
    for page in pages:
        fits = _fitting(page, data, files)
        if len(fits) == 1:
            found[page.name] = fits[0]
            owners.setdefault(fits[0], {})[page.pair.image] = None
        else:
            (several if fits else missing).append(page.name)
    several += [str(image) for images in owners.values() if len(images) > 1 for image in images]
    for names, words in ((missing, "no file"), (several, "no single file")):
        if names:
            shown = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
            raise InputError(
                f"{len(names)} of {len(pages)} pages have {words} in {folder}: {shown}",
                "one each, under the names and folders of the pages",
                "predict the same folder as --data names, with --recursive if it has folders",
            )
    return found


#: Files by what they may be called without endings: their folders, and how much of the name was taken off.
_Files = dict[str, list[tuple[tuple[str, ...], int, Path]]]


def _files_by_name(folder: Path, task: str) -> _Files:
    files: _Files = {}
    for path in sorted(folder.rglob("*")):
        relative = PurePosixPath(path.relative_to(folder).as_posix())
        is_hidden = any(part.startswith(".") or part.endswith(RUN_SUFFIX) for part in relative.parts)
        if path.suffix.lower() not in _SUFFIXES or is_hidden or not path.is_file():
            continue
        stem = relative.stem
        bare = stem.removesuffix(".ome")
        for taken, name in enumerate(
            dict.fromkeys((stem, bare, stem.removesuffix(f"-{task}"), bare.removesuffix(f"-{task}")))
        ):
            files.setdefault(name, []).append((relative.parts[:-1], taken, path))
    return files


def _fitting(page: LabelledPage, data: Path, files: _Files) -> list[Path]:
    """The files that may be a page's, none better than the others."""
    relative = PurePosixPath(page.pair.image.relative_to(data).as_posix())
    keys = {(relative.parts[:-1], name) for name in (relative.stem, relative.name)}
    *folders, name = page.pair.name.split("/")  # folders as "images" are no part of it
    keys.add((tuple(folders), name))
    ranked: dict[Path, tuple[int, int]] = {}
    for key_folders, name in keys:
        for file_folders, taken, path in files.get(name, ()):
            num = min(len(key_folders), len(file_folders))
            if key_folders[len(key_folders) - num :] == file_folders[len(file_folders) - num :]:
                ranked[path] = max(ranked.get(path, (0, -9)), (num, -taken))
    best = max(ranked.values(), default=None)
    return [path for path, rank in ranked.items() if rank == best]
