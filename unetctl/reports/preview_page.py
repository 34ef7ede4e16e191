"""The sheet of samples that a training would be fed: a page, and the same as one picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from unetctl.reports.page import write_page
from unetctl.reports.pictures import Picture, reduced, require_picture, to_data_uri

MAX_SIDE_PX = 512
"""Longer side of a picture on the sheet."""

PALETTE = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75), (227, 119, 194),
    (188, 189, 34), (23, 190, 207), (255, 217, 47), (102, 194, 165), (231, 138, 195), (166, 216, 84), (90, 90, 200),
    (210, 105, 30),
)  # fmt: skip
"""Colours of classes 1, 2 ... on pictures; class 0 is black."""

_SHEET_PX = 256
_GAP_PX, _HEAD_PX = 8, 20
_GROUND, _INK = (244, 244, 242), (40, 44, 50)


@dataclass(frozen=True)
class PreviewRow:
    """One sample.

    Attributes:
        name: what it was cut from.
        pictures: caption and uint8 (y, x) or (y, x, 3), in the order shown; the same captions in all rows.
    """

    name: str
    pictures: tuple[tuple[str, Picture], ...]


def class_picture(classes: NDArray[np.integer]) -> Picture:
    """(y, x) class indices as colours (y, x, 3): 0 black, from 1 on those of `PALETTE`, over and over."""
    colours = np.array([(0, 0, 0), *PALETTE], np.uint8)
    indices = np.where(classes > 0, (classes - 1) % len(PALETTE) + 1, 0)
    return colours[indices]


def write_preview_page(
    path: Path, title: str, facts: Mapping[str, str], rows: Sequence[PreviewRow], key: Sequence[tuple[str, str]] = ()
) -> None:
    """Writes one HTML file that needs nothing else.

    Args:
        path: the file; its folder exists.
        title: heading.
        facts: what to know, in order.
        rows: the samples.
        key: name of each class and its colour as "#rrggbb".

    Raises:
        ValueError: if an array is not a uint8 picture.
        OSError: if the page cannot be written.
    """
    shown = []
    for i, row in enumerate(rows):
        pictures = []
        for caption, picture in row.pictures:
            require_picture(picture, f"{caption} of {row.name}")
            small = reduced(picture, MAX_SIDE_PX)
            pictures.append(
                {
                    "caption": caption, "uri": to_data_uri(small), "width": small.shape[1], "height": small.shape[0],
                    "alt": f"{caption} of sample {i + 1}, {row.name}", "is_small": max(picture.shape[:2]) <= 160,
                }
            )  # fmt: skip
        shown.append({"name": row.name, "pictures": pictures})
    write_page(path, "preview.html", title=title, facts=facts, rows=shown, key=key)


def draw_sheet(rows: Sequence[PreviewRow]) -> Picture:
    """All samples as one picture (y, x, 3): a row each, captions on top.

    Raises:
        ValueError: if there is no row.
    """
    if not rows:
        raise ValueError("a sheet without samples")
    captions = [caption for caption, _ in rows[0].pictures]
    step = _SHEET_PX + _GAP_PX
    sheet = Image.new(
        "RGB", (_GAP_PX + len(captions) * step, _HEAD_PX + _GAP_PX + len(rows) * (step + _HEAD_PX)), _GROUND
    )
    draw = ImageDraw.Draw(sheet)
    for column, caption in enumerate(captions):
        draw.text((_GAP_PX + column * step, _GAP_PX), caption, fill=_INK)
    for i, row in enumerate(rows):
        top = _HEAD_PX + _GAP_PX + i * (step + _HEAD_PX)
        draw.text((_GAP_PX, top), row.name, fill=_INK)
        for column, (_, picture) in enumerate(row.pictures):
            image = Image.fromarray(picture).convert("RGB")
            scale = _SHEET_PX / max(image.size)
            size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
            is_smaller = scale >= 1
            image = image.resize(size, Image.Resampling.NEAREST if is_smaller else Image.Resampling.BOX)
            sheet.paste(image, (_GAP_PX + column * step, top + _HEAD_PX))
    return np.asarray(sheet, np.uint8)
