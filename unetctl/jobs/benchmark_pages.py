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
from unetctl.sources.base import SourceInfo
from unetctl.sources.pages import PageSource, open_pages
from unetctl.training.pairs import Pair
from unetctl.training.splits import Selection
from unetctl.training.truth import two_sides

Pixels = npt.NDArray[Any]
Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

#: BT.601, of red, green and blue.
_LUMINANCE = (0.299, 0.587, 0.114)
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


class OnePage:
    """A source that shows one page of a file as all there is, held as a context.

    Args:
        path: of a picture, a TIFF or a PDF.
        i_page: from 0.

    Raises:
        InputError: if the file cannot be read or has fewer pages.
    """

    def __init__(self, path: Path, i_page: int) -> None:
        self._inner: PageSource = open_pages(str(path))
        if i_page >= len(self._inner.images):
            num = len(self._inner.images)
            self._inner.close()
            raise InputError(
                f"{path} has {num} pages", f"at least {i_page + 1}", "give pictures and labels page for page"
            )
        self._i_page = i_page
        info = self._inner.info
        identity = {**info.identity, "page": i_page}
        self._info = SourceInfo(info.uri, info.format, (info.images[i_page],), identity)

    def __enter__(self) -> "OnePage":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def info(self) -> SourceInfo:
        """See `Source.info`."""
        return self._info

    def read(self, i_image: int, box: Box) -> Pixels:
        """See `Source.read`."""
        return self._inner.read(self._i_page, box)

    def whole(self) -> Grey:
        """(y, x) or (y, x, 3) uint8: the page; 16 bits are shortened to 8."""
        pixels = self.read(0, Box.whole(self._info.images[0].shape))
        if pixels.dtype != np.uint8:
            pixels = np.rint(pixels / (np.iinfo(pixels.dtype).max / 255))
        pixels = pixels.astype(np.uint8)
        return pixels if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, 0, -1))

    def close(self) -> None:
        """See `Source.close`."""
        self._inner.close()


def luminance(picture: Grey) -> Grey:
    """(y, x) uint8: ``0.299 R + 0.587 G + 0.114 B`` rounded, of (y, x) or (y, x, 3)."""
    if picture.ndim == 2:
        return picture
    # In whole numbers: sums of rounded fractions would now and then fall on the other side of a half.
    weights = np.asarray([round(1000 * w) for w in _LUMINANCE], np.uint32)
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
    with OnePage(page.pair.image, page.i_page) as source:
        return source.whole()


def read_truth(page: LabelledPage) -> Mask:
    """(y, x), True on ink: the darker of the two values.

    Raises:
        InputError: if the file cannot be read, is not two-valued, or has another size than the page.
    """
    with OnePage(page.pair.image, page.i_page) as source:
        size = source.info.images[0].shape[-2:]
    return read_ink(page.pair.labels, page.i_page, size, "its ground truth", page.name)


def read_ink(path: Path, i_page: int, size: tuple[int, ...], what: str, name: str) -> Mask:
    """(y, x), True on ink, of a two-valued file: black, or the darker of the two values.

    Raises:
        InputError: if the file cannot be read, is not two-valued, or has another size than `size`.
    """
    with OnePage(path, i_page) as source:
        values = luminance(source.whole())
    if values.shape != tuple(size):
        told = ["x".join(map(str, shape)) for shape in (values.shape, size)]
        raise InputError(
            f"{path}: {what} has {told[0]} pixels (rows x columns), the page {name} {told[1]}", "equal sizes"
        )
    try:
        return ~two_sides(values, str(path)).is_high
    except InputError as error:
        raise InputError(
            f"{path}: {what} is not two-valued ({error.seen})",
            "0 for ink and another value for paper",
            "give 1-bit pages" if what != "its ground truth" else "",
        ) from error


def match_predicted(pages: Sequence[LabelledPage], data: Path, folder: Path, task: str) -> dict[str, Path]:
    """Which file of a predicted tree belongs to which page: by relative paths, whose endings must agree.

    ``OUT/2016/H01.tif``, ``OUT/H01-TASK.png`` and ``OUT/2016/images/H01.tif`` all belong to ``2016/images/H01.png``, the
    second only if no other page is called H01.

    Args:
        pages: with ground truth.
        data: the folder that they were found in.
        folder: of predicted files.
        task: ending of names, after a hyphen, that is no part of them.

    Returns:
        Paths by the pages' names.

    Raises:
        InputError: if the folder is missing, or a page has no file or several.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder", "the folder that predict wrote its pages to")
    files: list[tuple[tuple[str, ...], Path]] = []
    for path in sorted(folder.rglob("*")):
        relative = PurePosixPath(path.relative_to(folder).as_posix())
        is_hidden = any(part.startswith(".") or part.endswith(".run") for part in relative.parts)
        if path.suffix.lower() in _SUFFIXES and path.is_file() and not is_hidden:
            stem = relative.name.removesuffix(relative.suffix)
            stem = stem.removesuffix(".ome").removesuffix(f"-{task}")
            files.append(((*relative.parts[:-1], stem), path))
    found: dict[str, Path] = {}
    missing: list[str] = []
    several: list[str] = []
    owners: dict[Path, list[str]] = {}
    for page in pages:
        relative = PurePosixPath(page.pair.image.relative_to(data).as_posix())
        keys = {(*relative.parts[:-1], stem) for stem in (relative.stem, relative.name)}
        keys |= {tuple(page.pair.name.split("/"))}
        fits = [path for parts, path in files if any(_ends_alike(parts, key) for key in keys)]
        if len(fits) == 1:
            found[page.name] = fits[0]
            owners.setdefault(fits[0], []).append(str(page.pair.image))
        else:
            (several if fits else missing).append(page.name)
    several += [name for names in owners.values() if len(set(names)) > 1 for name in sorted(set(names))]
    for names, words in ((missing, "no file"), (several, "no single file")):
        if names:
            shown = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
            raise InputError(
                f"{len(names)} of {len(pages)} pages have {words} in {folder}: {shown}",
                "one each, under the names and folders of the pages",
                "predict the same folder as --data names",
            )
    return found


def _ends_alike(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    num = min(len(a), len(b))
    return a[-num:] == b[-num:]
