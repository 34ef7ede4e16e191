"""Class targets of labelled objects: background, interior and border, from the ids of a whole plane.

    object_target(values (y, x), ignored, where, border_px, rim) -> ObjectTarget(classes, ids, note)
    interior_and_border(ids (y, x), border_px, rim) -> (y, x) uint8: 0, 1, 2

The border of an object are its pixels within `border_px` of another object, so that the interiors of objects that touch
lie at least that far apart on either side and their connected pieces tell the objects apart. With a rim, the outer part of
every object is border as well: of its greatest depth that share. A network then learns the rim at every object, not only
at those few that touch, and what is left in the middle of two lies farther apart the larger they are. Without, objects that
stand alone are interior up to their edge. Interior and border together are all pixels of all objects.

The classes are derived once, from the ids of the whole plane, and then cut and warped like any other classes. The other
order, warping ids and deriving afterwards, would measure distances to objects that a crop has cut away, would cost a
distance transform a crop in every step, and would take the border `border_px` wide whatever the magnification of the
crop, where the picture's own gap between two objects is magnified too. A border is twice `border_px` wide where objects
touch: sampled to the nearest it stays closed down to a magnification of 0.5 for 2 pixels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from unetctl.errors import InputError
from unetctl.training.weightmap import two_nearest

#: Classes of targets, and of the network's answer: `output.classes` names them in this order.
BACKGROUND, INTERIOR, BORDER = 0, 1, 2
#: `labels.border_px` when the recipe does not say.
DEFAULT_BORDER_PX = 2


@dataclass(frozen=True)
class ObjectTarget:
    """One plane of labelled objects.

    Attributes:
        classes: (y, x) uint8, 0 background, 1 interior, 2 border.
        ids: (y, x) int32, 0 background, objects 1 .. n in the order of their numbers in the file.
        note: a sentence for the user, or "".
    """

    classes: npt.NDArray[np.uint8]
    ids: npt.NDArray[np.int32]
    note: str = ""


def object_target(
    values: npt.NDArray[Any],
    ignored: npt.NDArray[np.bool_],
    where: str,
    border_px: int | None = None,
    rim: float = 0.0,
) -> ObjectTarget:
    """Classes and ids of one plane of labels.

    Args:
        values: (y, x) whole numbers of any size, 0 background. If there is one number only and it lies in several pieces,
            the labels are a mask: its connected pieces are the objects, and the note says so.
        ignored: (y, x) True where the labels say nothing: background here.
        where: names the labels in messages.
        border_px, rim: see `interior_and_border`; None: 2.

    Raises:
        InputError: if a number is negative.
    """
    kept = np.where(ignored, 0, values)
    numbers, dense = np.unique(kept, return_inverse=True)
    if numbers.size and numbers[0] < 0:
        raise InputError(
            f"the labels {where} hold {numbers[0]}", "objects numbered from 1 on, 0 for the background",
            "if it marks pixels without a label, give --set labels.ignore=" + str(numbers[0]),
        )  # fmt: skip
    ids = dense.reshape(kept.shape).astype(np.int32)
    if numbers.size and numbers[0] > 0:  # no background at all
        ids += 1
    note = ""
    if ids.max(initial=0) == 1:
        pieces, num = ndimage.label(ids > 0)
        if num > 1:
            ids = pieces.astype(np.int32)
            note = f"{where} holds one number in {num} pieces: each connected piece is taken as an object"
    classes = interior_and_border(ids, DEFAULT_BORDER_PX if border_px is None else border_px, rim)
    return ObjectTarget(classes, ids, note)


def interior_and_border(ids: npt.NDArray[np.integer[Any]], border_px: int, rim: float = 0.0) -> npt.NDArray[np.uint8]:
    """Classes of a plane of objects, see the top of this file.

    Args:
        ids: (y, x), 0 background.
        border_px: pixels of an object whose centres are so near to another object's are border. An object that would be
            border all over keeps its pixels farthest from the others as interior: every object has one.
        rim: 0 to less than 1. Pixels no deeper in their object than this share of its greatest depth are border, too.

    Returns:
        (y, x) uint8: 0, 1, 2.
    """
    _, other = two_nearest(ids, float(border_px))
    is_object = ids != 0
    is_border = is_object & ((other <= border_px) | (_is_rim(ids, rim) if rim else False))
    classes = np.where(is_border, BORDER, np.where(is_object, INTERIOR, BACKGROUND)).astype(np.uint8)
    all_ids = np.unique(ids[is_object])
    without = np.setdiff1d(all_ids, np.unique(ids[classes == INTERIOR]), assume_unique=True)
    if without.size:  # their depths lie within border_px of another object
        farthest = np.atleast_1d(ndimage.maximum(other, ids, without))
        at = np.searchsorted(without, ids).clip(max=len(without) - 1)  # all in one pass: there may be thousands
        classes[(without[at] == ids) & (other >= farthest[at])] = INTERIOR
    return classes


def _is_rim(ids: npt.NDArray[np.integer[Any]], rim: float) -> npt.NDArray[np.bool_]:
    """Pixels no deeper in their object than a share of its greatest depth; the plane's edge is no edge of an object."""
    is_rim = np.zeros(ids.shape, bool)
    for number, place in enumerate(ndimage.find_objects(ids), 1):
        if place is None:
            continue
        around = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in place)
        own = ids[around] == number
        if own.all():  # nothing else is there
            continue
        depth = ndimage.distance_transform_edt(own)
        is_rim[around] |= own & (depth <= rim * depth.max())
    return is_rim
