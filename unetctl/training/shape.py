"""One picture as the shape that is to be found: cut out by its alpha, by a mask beside it, or by its background colour.

find_shape(data) -> (picture, mask or None)      a file, or a folder with one picture, or one pair
cut_out(picture, mask) -> Shape(colour, alpha, how)
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.color import rgb2lab

from unetctl.errors import InputError
from unetctl.geometry.box import Box
from unetctl.sources.base import ImageInfo
from unetctl.training.names import PAGE_SUFFIXES
from unetctl.training.pairs import find_pairs
from unetctl.training.survey import opened

Pixels = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

#: Colours nearer than this look alike (CIE 1976 difference; 2.3 is just noticeable, JPEG makes 5 to 8 of one colour).
_ALIKE = 10.0
#: What differs so much anywhere is no ripple of JPEG.
_CLEAR = 30.0
#: Share of the border's pixels that have to be of the background's colour.
_UNIFORM_SHARE = 0.9
#: Smallest shape, pixels of its longer side.
_SMALLEST_PX = 8
#: Larger shapes are brought down to this longer side, pixels: none is pasted larger.
_LARGEST_PX = 768
#: Alpha from which a pixel is the shape's.
HALF = 0.5
_MASK_ENDINGS = ("-mask", "_mask", "-labels", "_labels")


@dataclass(frozen=True)
class Shape:
    """What is to be found in pictures.

    Attributes:
        colour: (3, y, x) float32 0..1; under transparent pixels the nearest visible colour.
        alpha: (y, x) float32 0..1.
        how: where the alpha is from, as the end of a sentence: "its alpha channel".
        name: of the picture.
    """

    colour: Floats
    alpha: Floats
    how: str
    name: str

    @property
    def size(self) -> tuple[int, int]:
        """(y, x) pixels."""
        return self.alpha.shape[0], self.alpha.shape[1]

    def __str__(self) -> str:
        covered = float((self.alpha >= HALF).mean())
        return f"{self.name}: a shape of {self.size[1]} x {self.size[0]} pixels ({covered:.0%} covered), by {self.how}"


def find_shape(data: Path) -> tuple[Path, Path | None]:
    """The picture with the shape, and its mask if there is one: ``logo-mask.png`` beside ``logo.png``, or the other of a pair.

    Raises:
        InputError: if there is nothing there, or it is not one picture or one pair.
    """
    if data.is_file():
        beside = (data.with_name(data.stem + end + suffix) for end in _MASK_ENDINGS for suffix in _suffixes(data))
        return data, next((path for path in beside if path.is_file()), None)
    if not data.is_dir():
        raise InputError(f"--data {data} does not exist", "a picture of the shape, or a folder with it")
    pictures = [
        p for p in sorted(data.iterdir()) if p.suffix.lower() in {*PAGE_SUFFIXES, ".tif", ".tiff"} and p.is_file()
    ]
    if len(pictures) == 1:
        return pictures[0], None
    table = find_pairs(data)
    if len(table) != 1:
        raise InputError(
            f"{data} holds {len(table)} pairs of pictures and labels", "one picture, or one pair, of the shape",
            "for pictures with labels take another task, or --set compose.kind=none",
        )  # fmt: skip
    return table.pairs[0].image, table.pairs[0].labels


def _suffixes(data: Path) -> list[str]:
    return [data.suffix, ".png", ".tif", ".bmp", ".gif"]


def cut_out(picture: Path, mask: Path | None = None) -> Shape:
    """The shape in a picture.

    Without a mask it is what is not transparent; without transparency what is left when the background is taken away:
    flooded from the border, as far as the colour looks alike. Enclosed places of the background's colour stay.

    Args:
        picture: grey or colour, 8 or 16 bits, with alpha or without.
        mask: of the same size, the shape bright or opaque.

    Raises:
        InputError: if a file cannot be read, the mask does not fit, or the background is not of one colour.
    """
    colour, alpha = _read(picture)
    if mask is not None:
        alpha, how = _of_mask(mask, colour.shape[1:]), f"the mask {mask.name}"
    elif alpha is not None and alpha.min() < HALF:
        how = "its alpha channel"
    else:
        alpha, told = _without_background(colour, picture)
        how = f"its background colour {told}"
    is_inside = alpha >= HALF
    if not is_inside.any():
        raise InputError(f"by {how}, {picture} shows no shape: nothing of it is opaque", "a shape that can be seen")
    if is_inside.all():
        raise InputError(
            f"by {how}, all of {picture} is the shape", "a picture with something around the shape",
            "give it an alpha channel, or a mask beside it (NAME-mask.png)",
        )  # fmt: skip
    box = _bounds(alpha > 0)
    cut_colour, cut_alpha = _bled(colour[(slice(None), *box)], alpha[box]), alpha[box]
    if max(cut_alpha.shape) < _SMALLEST_PX:
        told = "x".join(map(str, cut_alpha.shape[::-1]))
        raise InputError(f"by {how}, the shape in {picture} has {told} pixels", f"at least {_SMALLEST_PX} a side")
    factor = -(-max(cut_alpha.shape) // _LARGEST_PX)
    return Shape(_averaged(cut_colour, factor), _averaged(cut_alpha[None], factor)[0], how, picture.name)


def _read(path: Path) -> tuple[Floats, Floats | None]:
    """(3, y, x) colour and (y, x) alpha, 0..1."""
    with opened(path) as source:
        info = source.info.images[0]
        if info.spatial_axes != "yx" or any(axis not in "cyx" for axis in info.axes):
            raise InputError(f"{path} has the axes {info.axes}", "a single picture")
        pixels = source.read(0, Box.whole(info.shape)).reshape(-1, *info.shape[-2:])
    scaled = (pixels.astype(np.float32) / _white(info, path)).clip(0, 1)
    num = len(scaled)
    alpha = scaled[-1] if num in (2, 4) else None
    colour = scaled[:3] if num >= 3 else np.repeat(scaled[:1], 3, axis=0)
    return colour, alpha


def _white(info: ImageInfo, path: Path) -> float:
    if info.dtype.kind == "u":
        return float(np.iinfo(info.dtype.name).max)
    raise InputError(f"{path} holds {info.dtype} values", "a picture of 8 or 16 bits")


def _of_mask(path: Path, size: tuple[int, ...]) -> Floats:
    colour, alpha = _read(path)
    if colour.shape[1:] != size:
        told = ["x".join(map(str, shape[::-1])) for shape in (colour.shape[1:], size)]
        raise InputError(f"the mask {path} has {told[0]} pixels and its picture {told[1]}", "equal sizes")
    grey = colour.mean(0)
    if alpha is not None and alpha.min() < HALF:
        return alpha if grey.std() < 1e-3 else grey * alpha
    # Class numbers (0 and 1) are hardly brighter than nothing.
    top = float(grey.max())
    return np.asarray(grey / top if 0 < top < 0.1 else grey, np.float32)


def _without_background(colour: Floats, picture: Path) -> tuple[Floats, str]:
    """(y, x) alpha, and the background's colour."""
    lab = np.moveaxis(rgb2lab(np.moveaxis(colour, 0, -1)), -1, 0).astype(np.float32)
    edge = np.concatenate([lab[:, 0], lab[:, -1], lab[:, 1:-1, 0], lab[:, 1:-1, -1]], axis=1)
    background = np.median(edge, axis=1)
    share = float((np.linalg.norm(edge - background[:, None], axis=0) < _ALIKE).mean())
    if share < _UNIFORM_SHARE:
        raise InputError(
            f"{picture} has no alpha channel, and only {share:.0%} of its border is of one colour",
            f"a border of one colour ({_UNIFORM_SHARE:.0%} of it), which is then the background",
            "give it an alpha channel, or a mask beside it (NAME-mask.png)",
        )
    far = np.linalg.norm(lab - background[:, None, None], axis=0)
    alike = far < _ALIKE
    flooded, _ = ndimage.label(alike)
    rim = np.unique(np.concatenate([flooded[0], flooded[-1], flooded[:, 0], flooded[:, -1]]))
    is_background = _without_specks(np.isin(flooded, rim[rim > 0]), far)
    # Pixels at the rim are mixed of both: as much the shape's as they differ, beside what lies further in.
    inner = ndimage.maximum_filter(np.where(is_background, 0, far), 5)
    is_rim = ~is_background & ndimage.binary_dilation(is_background, iterations=2)
    mixed = (far / np.maximum(inner, _ALIKE)).clip(0, 1)
    alpha = np.where(is_background, 0.0, np.where(is_rim, np.maximum(mixed, HALF), 1.0)).astype(np.float32)
    pixel = np.median(np.concatenate([colour[:, 0], colour[:, -1]], axis=1), axis=1)
    return alpha, "#" + "".join(f"{round(float(v) * 255):02x}" for v in pixel)


def _without_specks(is_background: npt.NDArray[np.bool_], far: Floats) -> npt.NDArray[np.bool_]:
    """The background with what lies in it and hardly differs: ripples that JPEG leaves around edges."""
    if is_background.all():
        return is_background
    clear = min(_CLEAR, HALF * float(np.percentile(far[~is_background], 95)))
    pieces, num = ndimage.label(~is_background)
    farthest = ndimage.maximum(far, pieces, np.arange(num + 1))
    farthest[0] = 0
    return np.asarray(farthest[pieces] < clear)


def _bounds(visible: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """Of what is visible, with a pixel around it where there is one."""
    found = []
    for axis in range(2):
        at = np.flatnonzero(visible.any(1 - axis))
        found.append(slice(max(0, int(at[0]) - 1), min(visible.shape[axis], int(at[-1]) + 2)))
    return found[0], found[1]


def _bled(colour: Floats, alpha: Floats) -> Floats:
    """The colours of opaque pixels carried on to where the old background shines through: no halo of it is pasted."""
    solid = alpha > 0.95
    if not solid.any():
        solid = alpha >= HALF
    nearest = ndimage.distance_transform_edt(~solid, return_distances=False, return_indices=True)
    carried: Floats = colour[:, nearest[0], nearest[1]]
    return carried


def _averaged(planes: Floats, factor: int) -> Floats:
    """(c, y, x) of means over squares of so many pixels."""
    if factor == 1:
        return np.ascontiguousarray(planes)
    size = [-(-n // factor) * factor for n in planes.shape[1:]]
    padded = np.pad(planes, ((0, 0), *((0, s - n) for s, n in zip(size, planes.shape[1:], strict=True))), mode="edge")
    squares = padded.reshape(len(planes), size[0] // factor, factor, size[1] // factor, factor)
    return np.ascontiguousarray(squares.mean((2, 4)), dtype=np.float32)
