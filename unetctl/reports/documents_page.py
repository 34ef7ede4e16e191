"""The page of a benchmark on binarized pages: scores of all methods, and each page in pictures, worst first.

The pictures are files beside the page, ``NNNNN-input.png`` and so on, so that large pages can be looked at pixel by pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unetctl.reports.page import write_page
from unetctl.reports.pictures import Picture, reduced, reduction, require_picture, save_png

Mask = NDArray[np.bool_]

MAX_SIDE_PX = 1600
"""Longer side of the picture of the input; the two-valued pictures are kept whole."""
FALSE_RGB = (220, 20, 30)
"""Colour of false ink: red."""
MISSED_RGB = (20, 90, 240)
"""Colour of missed ink: blue."""
_RIGHT_RGB = (60, 60, 60)


@dataclass(frozen=True)
class ShownMethod:
    """Scores of a method as words.

    Attributes:
        name: of the method.
        f, pseudo_f, psnr, drd: figures.
    """

    name: str
    f: str
    pseudo_f: str
    psnr: str
    drd: str


@dataclass(frozen=True)
class ShownPicture:
    """A picture file.

    Attributes:
        caption: "input", "ground truth", "ours", "differences" or "Otsu".
        file: name, beside the page.
        width, height: pixels.
        size: what it shows, in words: its pixels, and if it is reduced.
        alt: for those who do not see it.
    """

    caption: str
    file: str
    width: int
    height: int
    size: str
    alt: str


@dataclass(frozen=True)
class ShownPage:
    """A page of the benchmark.

    Attributes:
        name: as the user knows it.
        rank: pages are shown from the least upwards.
        methods: scores.
        pictures: see `save_pictures`.
    """

    name: str
    rank: float
    methods: tuple[ShownMethod, ...]
    pictures: tuple[ShownPicture, ...]


def save_pictures(
    folder: Path, number: int, picture: Picture, truth: Mask, ours: Mask, otsu: Mask
) -> tuple[ShownPicture, ...]:
    """Writes a page's pictures.

    Args:
        folder: exists.
        number: of the page, from 1, first part of the names.
        picture: uint8 (y, x) or (y, x, 3), as scanned.
        truth, ours, otsu: (y, x), True on ink.

    Returns:
        What was written, in the order to show it.

    Raises:
        ValueError: if a picture has the wrong type, or the shapes differ.
        OSError: if a file cannot be written.
    """
    require_picture(picture, "the input")
    for mask in (truth, ours, otsu):
        if mask.dtype != np.bool_ or mask.shape != picture.shape[:2]:
            raise ValueError(f"a mask is {mask.dtype} {mask.shape}; expected bool {picture.shape[:2]}")
    height, width = truth.shape
    factor = reduction((height, width), MAX_SIDE_PX)
    false, missed = ours & ~truth, truth & ~ours
    told = f"{np.mean(false):.2%} of the pixels false ink, {np.mean(missed):.2%} missed ink"
    files = (
        ("input", Image.fromarray(reduced(picture, MAX_SIDE_PX)), "as scanned" + f", 1:{factor}" * (factor > 1), ""),
        ("ground truth", Image.fromarray(~truth), "", ""),
        ("ours", Image.fromarray(~ours), "", ""),
        ("differences", _coloured(false, missed, ours & truth), told, told),
        ("Otsu", Image.fromarray(~otsu), "", ""),
    )
    shown = []
    for caption, image, words, alt in files:
        name = f"{number:05d}-{caption.split()[-1].lower()}.png"
        save_png(image, folder / name)
        size = ", ".join(filter(None, (f"{width} x {height}", words)))
        shown.append(ShownPicture(caption, name, image.width, image.height, size, alt or caption))
    return tuple(shown)


def write_documents_page(
    path: Path, title: str, methods: Sequence[tuple[ShownMethod, str]], pages: Sequence[ShownPage]
) -> None:
    """Writes the page; through a temporary name, so nobody reads half of it.

    Args:
        path: the file, in the folder of the pictures.
        title: heading.
        methods: mean scores and what is to know about each method, ours first.
        pages: in any order; shown worst first.

    Raises:
        OSError: if the page cannot be written.
    """
    write_page(
        path,
        "documents.html",
        title=title,
        methods=methods,
        pages=sorted(pages, key=lambda page: page.rank),
        false_rgb=_css(FALSE_RGB),
        missed_rgb=_css(MISSED_RGB),
    )


def _coloured(false: Mask, missed: Mask, right: Mask) -> Image.Image:
    indices = np.zeros(false.shape, np.uint8)
    for i, mask in enumerate((right, false, missed), start=1):
        indices[mask] = i
    image = Image.fromarray(indices).convert("P")
    colours = ((255, 255, 255), _RIGHT_RGB, FALSE_RGB, MISSED_RGB)
    image.putpalette([value for colour in colours for value in colour])
    return image


def _css(colour: tuple[int, int, int]) -> str:
    return f"rgb({', '.join(map(str, colour))})"
