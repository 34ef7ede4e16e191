"""Labels as they lie in files, in any encoding, and what they mean to a recipe.

    label_values(labels, pair, i_plane) -> (1, y, x) whole numbers
    two_sides(values, where) -> TwoSides(is_high, low, high, note)     of labels that have two values
    read_target(labels, pair, i_plane, recipe) -> Target(classes, weights, note)

Encodings of two values: 0/1, 0/255, 1 bit, truth values, grey, grey saved as colour, two colours, a palette, ink on a
transparent ground; and those that JPEG or scaling has smeared, if they are clearly two still.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from unetctl.errors import InputError
from unetctl.geometry.box import Box, Ints
from unetctl.recipe.schema import Recipe
from unetctl.runtime.grey_scale import LUMINANCE
from unetctl.runtime.reading import read_channels
from unetctl.sources.base import Source
from unetctl.sources.raster_magic import raster_format
from unetctl.sources.scaled import nearest
from unetctl.training.colours import classes_of_colours
from unetctl.training.object_targets import DEFAULT_BORDER_PX, interior_and_border, object_target
from unetctl.training.pairs import Pair
from unetctl.training.survey import info_of, plane_shape

Pixels = npt.NDArray[Any]

#: So many unexpected label values are named in a message.
_NAMED_VALUES = 10
#: Labels are clearly two-valued if less than this share of the pixels lies in the middle half between the two.
_LARGEST_BETWEEN = 0.03
#: A picture with no more values than this is likely a mask.
_MASK_VALUES = 2
_NUM_COLOURS = 3
#: Formats that change values.
LOSSY = ("JPEG", "WEBP", "AVIF")


@dataclass(frozen=True)
class TwoSides:
    """Labels with two values.

    Attributes:
        is_high: (y, x), True where the greater value is.
        low, high: the two values; equal if there is only one.
        note: a sentence if values in between were put to the nearer side, else "".
    """

    is_high: npt.NDArray[np.bool_]
    low: float
    high: float
    note: str = ""


@dataclass(frozen=True)
class Target:
    """What one plane's labels mean.

    Attributes:
        classes: (1, y, x) class numbers.
        weights: (1, y, x) with 0 where ignored; None if nothing is.
        sides: of labels whose foreground is still to be told (`labels.foreground`): 1 stands for the smaller value.
        note: a sentence for the user, or "".
        objects: (y, x) ids of labelled objects, 0 background; None if the labels are no objects.
    """

    classes: npt.NDArray[np.uint8]
    weights: npt.NDArray[np.float32] | None = None
    sides: TwoSides | None = None
    note: str = ""
    objects: npt.NDArray[np.int32] | None = None


def read_target(labels: Source, pair: Pair, i_plane: int, recipe: Recipe) -> Target:
    """The classes of one plane, as the recipe's [labels] reads them.

    Raises:
        InputError: if the labels cannot be decoded or hold what the recipe does not know.
    """
    known = recipe.labels
    if known.foreground == "darker":
        sides = two_sides(_grey_values(labels, pair, i_plane), str(pair.labels))
        return Target((~sides.is_high[None]).astype(np.uint8), None, sides, sides.note)
    if known.colours:
        return _drawn_target(labels, pair, i_plane, recipe)
    values = label_values(labels, pair, i_plane)
    if known.kind == "binary" and not known.values and known.ignore is None and labels.info.format in LOSSY:
        sides = two_sides(values[0], str(pair.labels))
        return Target(sides.is_high[None].astype(np.uint8), note=sides.note)
    ignored = np.zeros(values.shape, bool) if known.ignore is None else values == known.ignore
    if known.kind == "objects":
        found = object_target(values[0], ignored[0], str(pair.labels), known.border_px, known.rim)
        weights = np.where(ignored, 0.0, 1.0).astype(np.float32) if ignored.any() else None
        return Target(found.classes[None], weights, note=found.note, objects=found.ids)
    target = _classes(values, ignored, pair, recipe)
    if not ignored.any():
        return Target(target)
    target[ignored] = 0
    return Target(target, np.where(ignored, 0.0, 1.0).astype(np.float32))


def resized_objects(target: Target, size: tuple[int, int], recipe: Recipe) -> Target:
    """Labelled objects at another size (y, x): each pixel is of the object that the nearest one was of, borders are as wide."""
    known = recipe.labels
    assert target.objects is not None
    rows, columns = (nearest(n, m) for n, m in zip(target.objects.shape, size, strict=True))
    ids = target.objects[rows[:, None], columns]
    border_px = DEFAULT_BORDER_PX if known.border_px is None else known.border_px
    classes = interior_and_border(ids, border_px, known.rim)
    weights = None if target.weights is None else target.weights[:, rows[:, None], columns]
    return replace(target, classes=classes[None], weights=weights, objects=ids)


def two_sides(values: Pixels, where: str) -> TwoSides:
    """Which pixels (y, x) have the greater of two values.

    Raises:
        InputError: if there are more than two values and it is not plain which of two each pixel had.
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        return TwoSides(np.full(values.shape, high != 0), low, high)
    between = (values > low) & (values < high)
    if not between.any():
        return TwoSides(values == high, low, high)
    middle = low + (high - low) / 2
    share = float((np.abs(values - middle) < (high - low) / 4).mean())
    if share > _LARGEST_BETWEEN:
        raise InputError(
            f"{where} holds {len(np.unique(values))} values from {low:g} to {high:g}, {share:.0%} of the pixels amid them",
            "two values, one of them for the foreground",
            "if it belongs to another kind of data, choose the recipe for it with --task",
        )
    note = (
        f"{where}: {between.mean():.1%} of the pixels lie between {low:g} and {high:g}, taken as the nearer of the two"
    )
    return TwoSides(values >= middle, low, high, note)


def looks_like_mask(picture: Pixels) -> bool:
    """True of a picture (channels, y, x) that has no more than two values in every channel."""
    return all(len(np.unique(channel)) <= _MASK_VALUES for channel in picture)


def label_values(labels: Source, pair: Pair, i_plane: int) -> npt.NDArray[np.int64]:
    """(1, y, x) whole numbers of one plane; with a table of colours the numbers of its entries.

    Raises:
        InputError: if they are coloured otherwise, or fractions.
    """
    values = _stored(labels, pair, i_plane)
    # the table decides, not whether this picture has pixels of its colours: numbers mean the same in all
    indices = palette_indices(pair.labels)
    if indices is not None and indices.shape == values.shape[1:]:
        values = indices[None]
    elif len(values) > 1:
        colours = values[: len(values) - (len(values) in (2, 4))]
        if not (colours == colours[:1]).all():
            raise InputError(
                f"the labels {pair.labels} are coloured",
                "one number a pixel",
                "name the colours of the classes in labels.colours, or save them as numbers; without --task they are found",
            )
        values = colours[:1]
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.rint(values))).all():
        raise InputError(
            f"the labels {pair.labels} hold fractions", "whole numbers", "save class numbers, not probabilities"
        )
    return values.astype(np.int64)


def drawn_colours(labels: Source, pair: Pair, i_plane: int) -> npt.NDArray[np.uint8]:
    """(3, y, x) colours of one plane of labels that are drawn; grey ones count as colours, transparency does not.

    Raises:
        InputError: if they are no colours of 8 bits.
    """
    values = _stored(labels, pair, i_plane)
    values = values[: len(values) - (len(values) in (2, 4))]
    if len(values) not in (1, 3) or values.dtype != np.uint8:
        raise InputError(
            f"the labels {pair.labels} have {len(values)} channels of {values.dtype}",
            "colours of 8 bits, as labels.colours says",
            "if they are numbers, leave labels.colours out",
        )
    return np.ascontiguousarray(np.broadcast_to(values, (3, *values.shape[1:])))


def palette_indices(path: Path) -> npt.NDArray[np.uint8] | None:
    """(y, x) numbers of the entries of a picture's colour table; None if it has none, or one of greys alone."""
    with path.open("rb") as stream:
        kind = "TIFF" if stream.read(2) in (b"II", b"MM") else raster_format((stream.seek(0), stream.read(64))[1])
        stream.seek(0)
        if kind not in ("PNG", "GIF", "BMP", "TIFF"):
            return None
        Image.init()
        try:
            picture = Image.OPEN[kind][0](stream, str(path))  # the plug-in itself: Image.open has a limit of its own
            if picture.mode != "P" or picture.palette is None:
                return None
            table = np.frombuffer(picture.palette.tobytes(), np.uint8)
            entries = table[: len(table) // len(picture.palette.mode) * len(picture.palette.mode)]
            colours = entries.reshape(-1, len(picture.palette.mode))[:, :_NUM_COLOURS]
            return None if (colours == colours[:, :1]).all() else np.asarray(picture)
        except Exception:  # plug-ins raise what they like; whether the file can be read, who reads its pixels tells
            return None


def _drawn_target(labels: Source, pair: Pair, i_plane: int, recipe: Recipe) -> Target:
    known = recipe.labels
    pixels = drawn_colours(labels, pair, i_plane)
    classes, is_ignored = classes_of_colours(pixels, known.colours, known.ignore_colour, str(pair.labels))
    if known.kind == "binary":
        classes = (classes == len(known.colours) - 1).astype(np.uint8)
        classes[is_ignored] = 0
    weights = np.where(is_ignored, 0.0, 1.0).astype(np.float32)[None] if is_ignored.any() else None
    return Target(classes[None], weights)


def _grey_values(labels: Source, pair: Pair, i_plane: int) -> Pixels:
    """(y, x) brightness of one plane; what is transparent shows white paper."""
    values = _stored(labels, pair, i_plane)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"the labels {pair.labels} hold values that are not finite", "two values")
    if len(values) == 1:
        alone: Pixels = values[0] if values.dtype.kind == "f" else values[0].astype(np.int64)
        return alone
    info = info_of(labels, pair)
    white = float(np.iinfo(info.dtype.name).max) if info.dtype.kind in "ui" else 1.0
    alpha = values[-1].astype(np.float64) / white if len(values) in (2, 4) else None
    colours = values[: len(values) - (alpha is not None)].astype(np.float64)
    if len(colours) == 3:
        grey = np.tensordot(np.asarray(LUMINANCE) / sum(LUMINANCE), colours, 1)
    elif (colours == colours[:1]).all():
        grey = colours[0]
    else:
        raise InputError(f"the labels {pair.labels} have {len(values)} channels", "one, or colours")
    if alpha is not None:
        grey = grey * alpha + white * (1 - alpha)
    rounded: Pixels = np.round(grey, 6)  # equal colours must stay equal
    return rounded


def _stored(labels: Source, pair: Pair, i_plane: int) -> Pixels:
    """(channels, y, x) of one plane."""
    info = info_of(labels, pair)
    channels = tuple(range(info.num_channels)) if "c" in info.axes else ()
    at = place(i_plane, plane_shape(info))
    box = Box((*at, 0, 0), (*(i + 1 for i in at), info.size_of("y"), info.size_of("x")))
    return read_channels(labels, pair.i_image, channels, "as-is", box).reshape(-1, *box.shape[-2:])


def place(index: int, shape: Ints) -> Ints:
    """Indices along all leading axes of a plane that is counted through."""
    return tuple(int(i) for i in np.unravel_index(index, shape)) if shape else ()


def _classes(values: Pixels, ignored: npt.NDArray[np.bool_], pair: Pair, recipe: Recipe) -> npt.NDArray[np.uint8]:
    known = recipe.labels
    mapping = known.class_of_value
    if mapping:
        unknown = ~np.isin(values, list(mapping)) & ~ignored
        if unknown.any():
            found = [int(v) for v in np.unique(values[unknown])]
            shown = ", ".join(map(str, found[:_NAMED_VALUES])) + (" ..." if len(found) > _NAMED_VALUES else "")
            raise InputError(
                f"the labels {pair.labels} hold the values {shown}",
                f"those of labels.values: {', '.join(map(str, mapping))}",
                "list all values in the recipe's [labels], or leave the list empty",
            )
        target = np.zeros(values.shape, np.uint8)
        for value, number in mapping.items():
            target[values == value] = number
        return target
    if known.kind == "binary":
        return (values > 0).astype(np.uint8)
    last = recipe.output.num_channels - 1
    outside = values[~ignored & ((values < 0) | (values > last))]
    if outside.size:
        raise InputError(
            f"the labels {pair.labels} hold class {outside.max()}",
            f"0 to {last}",
            "name all classes in output.classes, or map pixel values with labels.values",
        )
    return np.where(ignored, 0, values).astype(np.uint8)
