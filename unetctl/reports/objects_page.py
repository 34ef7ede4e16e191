"""The page of a benchmark on objects: scores of all methods, and each picture with true and found objects, worst first.

The pictures are files beside the page, ``NNNNN-input.png``, ``-label.png`` and ``-output.png``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetctl.reports.page import write_page
from unetctl.reports.pictures import Picture, PictureFile, require_picture, save_picture, to_grey

MAX_SIDE_PX = 1200
"""Longer side of a picture."""

#: Share of colour over the picture beneath.
_COVER = 0.55


@dataclass(frozen=True)
class ObjectMethod:
    """A method's figures as words, in the order of the page's columns."""

    name: str
    figures: tuple[str, ...]


@dataclass(frozen=True)
class ObjectPicture:
    """A scored picture; pictures are shown from the least `rank` upwards."""

    name: str
    rank: float
    methods: tuple[ObjectMethod, ...]
    files: tuple[PictureFile, ...]


def coloured_objects(ids: NDArray[np.integer[Any]], ground: Picture) -> Picture:
    """Objects in colours over a dimmed picture, their rims bright.

    Args:
        ids: (y, x), 0 background.
        ground: uint8 (y, x) or (y, x, 3).

    Returns:
        uint8 (y, x, 3).
    """
    hue = (np.arange(int(ids.max(initial=0)) + 1) * 0.618034) % 1.0  # steps of the golden ratio: neighbours differ
    wheel = np.clip(np.abs((hue[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1) * 200 + 55
    base = np.repeat(to_grey(ground)[..., np.newaxis], 3, axis=2).astype(np.float32) * 0.8
    mixed = np.where(ids[..., None] > 0, base * (1 - _COVER) + wheel[ids] * _COVER, base)
    rim = np.zeros(ids.shape, bool)
    rim[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    rim[1:] |= ids[1:] != ids[:-1]
    mixed[rim] = 255
    return np.clip(mixed, 0, 255).astype(np.uint8)


def save_object_pictures(
    folder: Path,
    number: int,
    picture: Picture,
    truth: NDArray[np.integer[Any]],
    found: NDArray[np.integer[Any]],
) -> tuple[PictureFile, ...]:
    """Writes the pictures of one scored picture.

    Args:
        folder: exists.
        number: from 1, first part of the names.
        picture: uint8 (y, x) or (y, x, 3).
        truth, found: (y, x) ids.

    Raises:
        ValueError: if a picture has the wrong type, or the shapes differ.
        OSError: if a file cannot be written.
    """
    require_picture(picture, "the input")
    for ids in (truth, found):
        if ids.shape != picture.shape[:2]:
            raise ValueError(f"objects of {ids.shape}; expected {picture.shape[:2]}")
    return tuple(
        save_picture(folder, number, caption, pixels, MAX_SIDE_PX, words)
        for caption, pixels, words in (
            ("input", picture, ""),
            ("label", coloured_objects(truth, picture), f"{len(np.unique(truth[truth > 0]))} objects"),
            ("output", coloured_objects(found, picture), f"{len(np.unique(found[found > 0]))} objects"),
        )
    )


def write_objects_page(
    path: Path,
    title: str,
    columns: Sequence[str],
    methods: Sequence[tuple[ObjectMethod, str]],
    pictures: Sequence[ObjectPicture],
) -> None:
    """Writes the page; through a temporary name, so nobody reads half of it.

    Args:
        path: the file, in the folder of the pictures.
        title: heading.
        columns: names of the figures.
        methods: pooled figures and what is to know about each method, ours first.
        pictures: in any order; shown worst first.

    Raises:
        OSError: if the page cannot be written.
    """
    write_page(
        path,
        "objects.html",
        title=title,
        columns=tuple(columns),
        methods=[(method.name, method.figures, how) for method, how in methods],
        pictures=sorted(pictures, key=lambda picture: picture.rank),
    )
