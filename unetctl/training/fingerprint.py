"""A bounded look at training data: a few pairs, a part of one plane of each.

fingerprint(pairs) -> Fingerprint, what `unetctl.training.decide` decides by
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from unetctl.errors import InputError
from unetctl.geometry.box import Box
from unetctl.runtime.reading import read_channels
from unetctl.sources.base import ImageInfo, Source
from unetctl.training.decide import Fingerprint, LabelKind
from unetctl.training.pairs import Pair
from unetctl.training.survey import info_of, opened, plane_shape
from unetctl.training.truth import label_values, palette_indices, place, two_sides

Pixels = npt.NDArray[Any]

#: So many pairs are looked at.
_MOST_PAIRS = 8
#: Of each, a square about the middle of one plane, at most so large.
_MOST_SIDE_PX = 2048
#: Pieces of equal numbers are counted in a smaller one.
_NUMBERED_SIDE_PX = 1024
#: More different numbers than this are ids or grey values, not classes.
_MOST_CLASSES = 32
#: A number is an object's own if it lies in about one piece.
_PIECES_OF_ID = 1.5
#: Numbers whose pieces are mere specks are grey values.
_SMALLEST_PIECE_PX = 4.0


@dataclass(frozen=True)
class _Look:
    """At one pair."""

    num_channels: int
    has_colour: bool
    num_planes: int
    is_same_size: bool
    label_kind: LabelKind
    largest_label: int = 0
    dark_share: float | None = None
    dark_width: float = 1.0
    bright_in_one_piece: float = 1.0


def fingerprint(pairs: Sequence[Pair]) -> Fingerprint:
    """What the data look like.

    Args:
        pairs: those that may be opened, at least one; eight of them are, evenly spread.

    Raises:
        InputError: if none of these can be read: the first one's reason.
    """
    count = min(_MOST_PAIRS, len(pairs))
    looks, errors = [], []
    for i in range(count):
        try:
            looks.append(_look(pairs[(2 * i + 1) * len(pairs) // (2 * count)]))
        except InputError as error:
            errors.append(error)
    if not looks:
        raise errors[0]
    kinds: list[LabelKind] = [look.label_kind for look in looks if look.label_kind != "empty"]
    kind: LabelKind = max(dict.fromkeys(kinds), key=kinds.count) if kinds else "empty"
    judged = [look for look in looks if look.dark_share is not None]
    return Fingerprint(
        num_pairs=len(pairs),
        num_sampled=len(looks),
        num_channels=max(look.num_channels for look in looks),
        has_colour=any(look.has_colour for look in looks),
        num_planes=max(look.num_planes for look in looks),
        is_same_size=all(look.is_same_size for look in looks),
        label_kind=kind,
        largest_label=max(look.largest_label for look in looks),
        dark_share=median(look.dark_share or 0.0 for look in judged) if judged else 0.0,
        dark_width=median(look.dark_width for look in judged) if judged else 1.0,
        bright_in_one_piece=median(look.bright_in_one_piece for look in judged) if judged else 1.0,
    )


def _look(pair: Pair) -> _Look:
    with opened(pair.image) as image, opened(pair.labels) as labels:
        infos = info_of(image, pair), info_of(labels, pair)
        sizes = [(i.size_of("y"), i.size_of("x")) for i in infos]
        num_planes = int(np.prod(plane_shape(infos[0]), dtype=int))
        picture = _middle(image, pair, infos[0])
        has_colour = 2 < len(picture) <= 4 and not bool((picture[:3] == picture[:1]).all())
        num_channels = infos[0].num_channels
        if sizes[0] != sizes[1] or plane_shape(infos[0]) != plane_shape(infos[1]):
            is_same = sizes[0] == sizes[1] and num_planes == int(np.prod(plane_shape(infos[1]), dtype=int))
            if not is_same:
                return _Look(num_channels, has_colour, num_planes, False, "grey picture")
        values = _label_plane(labels, pair, infos[1])
        if values is None:
            return _Look(num_channels, has_colour, num_planes, True, "colour picture")
        found = _judged(values, picture.astype(np.float32).mean(0), min(sizes[0]))
        return _Look(num_channels, has_colour, num_planes, True, *found)


def _middle_box(info: ImageInfo) -> Box:
    """A square about the middle of the middle plane."""
    shape = plane_shape(info)
    at = place(int(np.prod(shape, dtype=int)) // 2, shape)
    sizes = info.size_of("y"), info.size_of("x")
    starts = [max(0, (n - _MOST_SIDE_PX) // 2) for n in sizes]
    stops = [min(n, start + _MOST_SIDE_PX) for n, start in zip(sizes, starts, strict=True)]
    return Box((*at, *starts), (*(i + 1 for i in at), *stops))


def _middle(source: Source, pair: Pair, info: ImageInfo) -> Pixels:
    """Pixels (channels, y, x) there."""
    box = _middle_box(info)
    channels = tuple(range(info.num_channels)) if "c" in info.axes else ()
    return read_channels(source, pair.i_image, channels, "as-is", box).reshape(-1, *box.shape[-2:])


def _label_plane(labels: Source, pair: Pair, info: ImageInfo) -> Pixels | None:
    """(y, x) values about the middle; None if they are colours."""
    values = _middle(labels, pair, info)
    colours = values[: len(values) - (len(values) in (2, 4))]
    if len(colours) == 1 or (colours == colours[:1]).all():
        return np.asarray(colours[0])
    if len(np.unique(colours.reshape(len(colours), -1), axis=1).T) == 2:
        return np.asarray(colours.astype(np.float64).mean(0))
    if palette_indices(pair.labels) is not None:
        shape = plane_shape(info)
        box = _middle_box(info)
        whole = label_values(labels, pair, int(np.prod(shape, dtype=int)) // 2)[0]
        return np.asarray(whole[box.start[-2] : box.stop[-2], box.start[-1] : box.stop[-1]])
    return None


def _judged(
    values: Pixels, grey: npt.NDArray[np.float32], side_px: int
) -> tuple[LabelKind, int, float | None, float, float]:
    """Kind and largest number; of two values: share and width of the darker side, the other's largest piece."""
    distinct = np.unique(values)
    if len(distinct) == 1:
        return "empty", 0, None, 1.0, 1.0
    largest = int(min(distinct[-1], 2**31)) if np.isfinite(distinct[-1]) else 0
    try:
        is_high = two_sides(values, "").is_high
    except InputError:
        return _of_numbers(values, distinct), largest, None, 1.0, 1.0
    if len(distinct) > 2 and _of_numbers(values, distinct) != "grey picture":
        return _of_numbers(values, distinct), largest, None, 1.0, 1.0
    is_dark = is_high if grey[is_high].mean() < grey[~is_high].mean() else ~is_high
    depth = ndimage.distance_transform_edt(is_dark)
    # of a long strip of width w the mean distance to the next pixel outside is about w / 4 + 1 / 2
    width = (4.0 * float(depth[is_dark].mean()) - 2.0) / side_px
    pieces, num = ndimage.label(~is_dark)
    largest_piece = float(np.bincount(pieces.ravel())[1:].max()) if num else 0.0
    return "two values", largest, float(is_dark.mean()), width, largest_piece / max(1, int((~is_dark).sum()))


def _of_numbers(values: Pixels, distinct: Pixels) -> LabelKind:
    if values.dtype.kind == "f" and not (values == np.rint(values)).all():
        return "grey picture"
    if distinct[0] < 0:
        return "grey picture"
    y, x = (max(0, n - _NUMBERED_SIDE_PX) // 2 for n in values.shape)
    values = values[y : y + _NUMBERED_SIDE_PX, x : x + _NUMBERED_SIDE_PX]
    num_pieces, num_numbers, area = 0, 0, 0
    for value in np.unique(values[values > 0])[: 2 * _MOST_CLASSES]:
        is_it = values == value
        num_pieces, num_numbers, area = num_pieces + ndimage.label(is_it)[1], num_numbers + 1, area + int(is_it.sum())
    if area / max(1, num_pieces) < _SMALLEST_PIECE_PX:
        return "grey picture"
    if num_pieces <= _PIECES_OF_ID * num_numbers:
        return "ids"
    return "few numbers" if len(distinct) <= _MOST_CLASSES else "grey picture"
