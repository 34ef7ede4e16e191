"""The page of a benchmark: scores of all methods, and each picture with its label and what came out, worst first.

The pictures are files beside the page, ``NNNNN-input.png``, ``-label.png``, ``-output.png`` and so on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unetctl.reports.page import write_page
from unetctl.reports.pictures import Picture, PictureFile, save_picture

MAX_SIDE_PX = 1600
"""Longer side of a picture."""


@dataclass(frozen=True)
class ScoredPicture:
    """A scored picture.

    Attributes:
        name: of the picture.
        rank: pictures are shown from the least upwards.
        figures: word and figure each.
        files: of `save_pictures`.
    """

    name: str
    rank: float
    figures: tuple[tuple[str, str], ...]
    files: tuple[PictureFile, ...]


def save_pictures(folder: Path, number: int, pictures: Mapping[str, Picture]) -> tuple[PictureFile, ...]:
    """Writes the pictures of one scored picture.

    Args:
        folder: exists.
        number: from 1, first part of the names.
        pictures: by caption, "input", "label" and "output" among them; uint8 (y, x) or (y, x, 3).

    Raises:
        ValueError: if a picture has the wrong type.
        OSError: if a file cannot be written.
    """
    return tuple(save_picture(folder, number, caption, pixels, MAX_SIDE_PX) for caption, pixels in pictures.items())


def write_scored_page(
    path: Path,
    title: str,
    columns: Sequence[str],
    methods: Sequence[tuple[str, Sequence[str], str]],
    pictures: Sequence[ScoredPicture],
    *,
    heading: str,
    order: str,
    of: str = "method",
    key: Sequence[tuple[str, tuple[int, int, int]]] = (),
) -> None:
    """Writes the page; through a temporary name, so nobody reads half of it.

    Args:
        path: the file, in the folder of the pictures.
        title: heading.
        columns: names of the figures.
        methods: name, figures and what is to know about each, ours first.
        pictures: in any order; shown worst first.
        heading: of the table.
        order: one sentence: what worst is.
        of: what the rows of the table are.
        key: words and colour (red, green, blue) each, for the colours in the pictures.

    Raises:
        OSError: if the page cannot be written.
    """
    write_page(
        path,
        "pictures.html",
        title=title,
        columns=tuple(columns),
        methods=tuple(methods),
        pictures=sorted(pictures, key=lambda picture: picture.rank),
        heading=heading,
        order=order,
        of=of,
        key=[(words, "#{:02x}{:02x}{:02x}".format(*colour)) for words, colour in key],
    )
