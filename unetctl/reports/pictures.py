"""Arrays as pictures inside a page: PNG, reduced where large, differences coloured."""

import base64
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]

OVER_RGB = (255, 122, 0)
"""Colour of "output says yes, label says no": orange, told from the blue by every kind of colour vision."""
UNDER_RGB = (26, 109, 255)
"""Colour of "label says yes, output says no": blue."""

_TOLERANCE = 32  # of 255: neighbouring classes of up to eight differ by more


@dataclass(frozen=True)
class Difference:
    """Where output and label disagree.

    Attributes:
        picture: uint8 (y, x, 3): the dimmed input with `OVER_RGB` and `UNDER_RGB` on it.
        num_over: pixels where the output is above the label (binary labels: false positives).
        num_under: pixels where it is below (binary labels: false negatives).
        is_binary: True if the label has at most two values and the output was cut at the threshold.
    """

    picture: Picture
    num_over: int
    num_under: int
    is_binary: bool


@dataclass(frozen=True)
class PictureFile:
    """A picture file: its caption, its name beside the page, its size in pixels and in words."""

    caption: str
    file: str
    width: int
    height: int
    size: str


def save_picture(
    folder: Path, number: int, caption: str, pixels: Picture, side_px: int, words: str = ""
) -> PictureFile:
    """Writes one picture of a scored one as ``NNNNN-caption.png``, its longer side reduced to at most `side_px`.

    Args:
        folder: exists.
        number: from 1, first part of the name.
        caption: second part of the name.
        pixels: uint8 (y, x) or (y, x, 3).
        side_px: greatest side, at least 1.
        words: said of it; empty: its size, and by how much it is reduced.

    Raises:
        ValueError: if the picture has the wrong type.
        OSError: if the file cannot be written.
    """
    require_picture(pixels, caption)
    factor = reduction(pixels.shape[:2], side_px)
    image = Image.fromarray(reduced(pixels, side_px))
    name = f"{number:05d}-{caption.replace(' ', '-')}.png"
    save_png(image, folder / name)
    size = words or f"{pixels.shape[0]} x {pixels.shape[1]}" + f", 1:{factor}" * (factor > 1)
    return PictureFile(caption, name, image.width, image.height, size)


def save_png(image: Image.Image, path: Path) -> None:
    """Writes a picture through a temporary name, so nobody reads half of it.

    Raises:
        OSError: if the disk refuses; what stood there before stays.
    """
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        image.save(temporary, format="PNG")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def require_picture(picture: Picture, name: str) -> None:
    """Holds a picture to uint8 (y, x) or (y, x, 3) with at least one pixel.

    Raises:
        ValueError: naming `name`, what it is and what it should be.
    """
    is_shaped = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)
    if picture.dtype != np.uint8 or not is_shaped or picture.size == 0:
        raise ValueError(f"{name} is {picture.dtype} {picture.shape}; expected uint8 (y, x) or (y, x, 3), not empty")


def reduced(picture: Picture, side_px: int) -> Picture:
    """The picture with its longer side at most `side_px`: means over k x k pixels, k the least that does it.

    Args:
        picture: uint8 (y, x) or (y, x, 3).
        side_px: greatest side of the result, at least 1.
    """
    factor = reduction(picture.shape[:2], side_px)
    if factor == 1:
        return picture
    return np.asarray(Image.fromarray(picture).reduce(factor), dtype=np.uint8)


def reduction(shape: tuple[int, ...], side_px: int) -> int:
    """The k of `reduced` for a picture of this shape (y, x)."""
    return -(-max(shape) // side_px)


def to_png(picture: Picture) -> bytes:
    """A PNG file's bytes; the same picture always gives the same bytes.

    Args:
        picture: uint8 (y, x) or (y, x, 3).
    """
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", compress_level=6)
    return file.getvalue()


def to_data_uri(picture: Picture) -> str:
    """The picture inside an address, so that a page needs no second file."""
    return "data:image/png;base64," + base64.b64encode(to_png(picture)).decode("ascii")


def to_grey(picture: Picture) -> Picture:
    """Luminance (ITU-R 601) of a colour picture; a grey one as it is."""
    return picture if picture.ndim == 2 else np.asarray(Image.fromarray(picture).convert("L"), dtype=np.uint8)


def difference(
    output: Picture,
    label: Picture,
    input: Picture | None = None,
    threshold: float = 0.5,
    *,
    has_classes: bool = False,
    ignored: npt.NDArray[np.bool_] | None = None,
) -> Difference:
    """Colours where `output` and `label` disagree.

    A label of at most two values is a mask: it says yes from 128 on, and the output says yes from `threshold` on.
    Labels of more values are compared as grey values, those of classes exactly.

    Args:
        output: uint8 (y, x), 0..255 for 0..1.
        label: uint8 (y, x) of the same shape.
        input: shown dimmed beneath if it has the same (y, x); else the label is.
        threshold: 0..1.
        has_classes: True if both hold the classes of a task that knows several, however few of them occur here.
        ignored: (y, x), True where nobody knows what would be right.

    Raises:
        ValueError: if output and label have different shapes.
    """
    if output.shape != label.shape or output.ndim != 2:
        raise ValueError(f"output is {output.shape} and label {label.shape}; expected one shape (y, x)")
    is_binary = not has_classes and len(np.unique(label)) <= 2
    if is_binary:
        yes_output, yes_label = output >= threshold * 255, label >= 128
        over, under = yes_output & ~yes_label, yes_label & ~yes_output
    else:
        rise = output.astype(np.int16) - label
        tolerance = 0 if has_classes else _TOLERANCE
        over, under = rise > tolerance, rise < -tolerance
    if ignored is not None:
        over, under = over & ~ignored, under & ~ignored
    has_ground = input is not None and input.shape[:2] == label.shape
    ground = to_grey(input) if input is not None and has_ground else label
    # Half the contrast, around the middle: both colours stand out from what was black and from what was white.
    # In 32 steps: noise that nobody sees here would be most of the file.
    picture = np.repeat((72 + ground // 8 * 4).astype(np.uint8)[..., np.newaxis], 3, axis=2)
    picture[over], picture[under] = OVER_RGB, UNDER_RGB
    return Difference(picture, int(over.sum()), int(under.sum()), is_binary)
