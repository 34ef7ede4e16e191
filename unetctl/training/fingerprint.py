"""A bounded look at training data: a few pairs, a part of one plane of each.

fingerprint(pairs) -> Fingerprint, what `unetctl.training.decide` decides by
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
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
from unetctl.training.tally import MOST_COLOURS
from unetctl.training.truth import LOSSY, label_values, looks_like_mask, palette_indices, place, two_sides

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
#: Of numbers that come back in every picture, more than this are ids all the same.
_MOST_REPEATED = 8
#: A drawing is flat, within so many levels, over at least that share of its area; a photograph is not.
_FLAT_LEVELS, _FLAT_SHARE = 2, 0.4
#: And the values it is flat at lie in bands of at most so many levels, values of less than that share of the area apart.
_WIDEST_BAND, _LEAST_BAND = 14, 0.0005
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
    object_px: float = 0.0
    dtype_name: str = "uint8"
    size_px: tuple[int, int] = (1, 1)
    upright: float = 1.0
    highlight: float = 1.0
    is_mask: bool = False
    is_rgb: bool = True
    numbers: frozenset[int] = frozenset()


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
    fitting = [look for look in looks if look.is_same_size]  # a few that do not fit are named later, one by one
    kinds: list[LabelKind] = [look.label_kind for look in fitting or looks if look.label_kind != "empty"]
    kind: LabelKind = max(dict.fromkeys(kinds), key=kinds.count) if kinds else "empty"
    is_repeated = kind == "ids" and _are_repeated([look.numbers for look in fitting if look.label_kind == "ids"])
    if is_repeated:
        kind = "few numbers"
    judged = [look for look in looks if look.dark_share is not None]
    dtypes = [look.dtype_name for look in looks]
    objects = [look.object_px for look in looks if look.object_px]
    return Fingerprint(
        num_pairs=len(pairs),
        num_sampled=len(looks),
        num_channels=max(look.num_channels for look in looks),
        has_colour=any(look.has_colour for look in looks),
        num_planes=max(look.num_planes for look in looks),
        is_same_size=2 * len(fitting) >= len(looks),
        is_swapped=bool(fitting)
        and kind in ("grey picture", "colour picture")
        and all(look.is_mask for look in fitting),
        label_kind=kind,
        largest_label=max(look.largest_label for look in looks),
        dark_share=median(look.dark_share or 0.0 for look in judged) if judged else 0.0,
        dark_width=median(look.dark_width for look in judged) if judged else 1.0,
        bright_in_one_piece=median(look.bright_in_one_piece for look in judged) if judged else 1.0,
        dtype_name=max(dict.fromkeys(dtypes), key=dtypes.count),
        size_px=(int(median(look.size_px[0] for look in looks)), int(median(look.size_px[1] for look in looks))),
        smallest_side_px=min(min(look.size_px) for look in looks),
        object_px=median(objects) if objects else 0.0,
        upright=median(look.upright for look in looks),
        highlight=median(look.highlight for look in looks),
        is_rgb=all(look.is_rgb for look in looks if look.has_colour),
        is_repeated=is_repeated,
    )


def _are_repeated(numbers: Sequence[frozenset[int]]) -> bool:
    """True of few numbers that mean the same in every picture: objects are counted through, and not always as many."""
    few = frozenset().union(*numbers)
    if len(numbers) < 2 or not 2 <= len(few) <= _MOST_REPEATED:
        return False
    return len(set(numbers)) == 1 or any(max(some) > len(some) for some in numbers if some)


def are_coloured(paths: Sequence[Path]) -> bool:
    """True if most of a sample of pictures can be read and have colours."""
    count = min(_MOST_PAIRS, len(paths))
    num_coloured = 0
    for i in range(count):
        path = paths[(2 * i + 1) * len(paths) // (2 * count)]
        try:
            with opened(path) as image:
                alone = Pair(path.stem, path, path, "page", None, "")
                num_coloured += _has_colour(_middle(image, alone, info_of(image, alone)))
        except InputError:
            continue
    return 2 * num_coloured > count


def _has_colour(picture: Pixels) -> bool:
    return 2 < len(picture) <= 4 and not bool((picture[:3] == picture[:1]).all())


def _look(pair: Pair) -> _Look:
    with opened(pair.image) as image, opened(pair.labels) as labels:
        infos = info_of(image, pair), info_of(labels, pair)
        sizes = [(i.size_of("y"), i.size_of("x")) for i in infos]
        num_planes = int(np.prod(plane_shape(infos[0]), dtype=int))
        picture = _middle(image, pair, infos[0])
        has_colour = _has_colour(picture)
        grey = picture.astype(np.float32).mean(0)
        look = _Look(
            infos[0].num_channels, has_colour, num_planes, True, "grey picture", dtype_name=infos[0].dtype.name,
            size_px=sizes[0], upright=_upright(grey), highlight=_highlight(grey), is_mask=looks_like_mask(picture),
            is_rgb=infos[0].is_rgb,
        )  # fmt: skip
        if sizes[0] != sizes[1] or plane_shape(infos[0]) != plane_shape(infos[1]):
            is_same = sizes[0] == sizes[1] and num_planes == int(np.prod(plane_shape(infos[1]), dtype=int))
            if not is_same:
                return replace(look, is_same_size=False)
        values, kind = _label_plane(labels, pair, infos[1])
        if kind is not None:
            return replace(look, label_kind=kind, object_px=0.0 if values is None else _object_px(values))
        assert values is not None
        return _judged(look, values, grey, min(sizes[0]), labels.info.format in LOSSY)


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


def _label_plane(labels: Source, pair: Pair, info: ImageInfo) -> tuple[Pixels | None, LabelKind | None]:
    """(y, x) values about the middle, or what kind of picture stands there instead of values.

    Labels that are drawn in few colours come with the numbers of these.
    """
    values = _middle(labels, pair, info)
    colours = values[: len(values) - (len(values) in (2, 4))]
    if len(colours) == 1 or (colours == colours[:1]).all():
        return np.asarray(colours[0]), None
    distinct, numbers = np.unique(colours.reshape(len(colours), -1), axis=1, return_inverse=True)
    if distinct.shape[1] == 2:
        return np.asarray(colours.astype(np.float64).mean(0)), None
    if palette_indices(pair.labels) is not None:
        shape = plane_shape(info)
        box = _middle_box(info)
        whole = label_values(labels, pair, int(np.prod(shape, dtype=int)) // 2)[0]
        return np.asarray(whole[box.start[-2] : box.stop[-2], box.start[-1] : box.stop[-1]]), None
    if len(colours) == 3 and colours.dtype == np.uint8:
        if distinct.shape[1] <= MOST_COLOURS:
            common = np.bincount(numbers.ravel()).argmax()
            return (numbers.reshape(colours.shape[1:]) != common).astype(np.uint8), "few colours"
        if _is_smeared(colours):
            return None, "smeared"
    return None, "colour picture"


def _is_smeared(channels: Pixels) -> bool:
    """True of a drawing (c, y, x) in few values that JPEG or scaling has been at.

    Away from edges it is flat still, and what it is flat at are few narrow bands of values; a photograph is hardly
    flat anywhere, and its values run into each other.
    """
    size = (1, 3, 3)
    spread = ndimage.maximum_filter(channels, size).astype(np.int64) - ndimage.minimum_filter(channels, size)
    is_flat = (spread <= _FLAT_LEVELS).all(0)
    if is_flat.mean() < _FLAT_SHARE:
        return False
    num_bands = []
    for channel in channels:
        counts = np.bincount(channel[is_flat], minlength=256)
        is_used = counts > _LEAST_BAND * counts.sum()
        edges = np.flatnonzero(np.diff(np.r_[False, is_used, False]))
        widths = edges[1::2] - edges[::2]
        if (widths > _WIDEST_BAND).any():
            return False
        num_bands.append(len(widths))
    return 2 <= max(num_bands) <= MOST_COLOURS


def _upright(grey: npt.NDArray[np.float32]) -> float:
    """How much stronger a picture changes downwards than sideways."""
    if min(grey.shape) < 3:
        return 1.0
    down, across = (float(np.abs(np.diff(grey, axis=axis)).mean()) for axis in (0, 1))
    return down / across if down > 0 and across > 0 else 1.0


def _highlight(grey: npt.NDArray[np.float32]) -> float:
    low, middle, high = np.percentile(grey, (1, 50, 99.9))
    return float((high - middle) / max(middle - low, 1e-6)) if high > middle else 0.0


def _object_px(is_it: Pixels) -> float:
    """Diameter of a disc as large as the median connected piece, specks apart."""
    pieces = ndimage.label(is_it > 0)[0]
    areas = np.bincount(pieces.ravel())[1:]
    areas = areas[areas >= _SMALLEST_PIECE_PX]
    return float(2 * np.sqrt(np.median(areas) / np.pi)) if len(areas) else 0.0


def _judged(look: _Look, values: Pixels, grey: npt.NDArray[np.float32], side_px: int, is_lossy: bool) -> _Look:
    """With kind and largest number; of two values: share and width of the darker side, the other's largest piece."""
    distinct = np.unique(values)
    if len(distinct) == 1:
        return replace(look, label_kind="empty")
    look = replace(look, largest_label=int(min(distinct[-1], 2**31)) if np.isfinite(distinct[-1]) else 0)
    try:
        is_high = two_sides(values, "").is_high
    except InputError:
        return _of_numbers(look, values, distinct, is_lossy)
    numbered = _of_numbers(look, values, distinct, is_lossy)
    if len(distinct) > 2 and numbered.label_kind not in ("grey picture", "smeared"):
        return numbered
    is_dark = is_high if grey[is_high].mean() < grey[~is_high].mean() else ~is_high
    depth = ndimage.distance_transform_edt(is_dark)
    # of a long strip of width w the mean distance to the next pixel outside is about w / 4 + 1 / 2
    width = (4.0 * float(depth[is_dark].mean()) - 2.0) / side_px
    pieces, num = ndimage.label(~is_dark)
    largest_piece = float(np.bincount(pieces.ravel())[1:].max()) if num else 0.0
    return replace(
        look,
        label_kind="two values",
        dark_share=float(is_dark.mean()),
        dark_width=width,
        bright_in_one_piece=largest_piece / max(1, int((~is_dark).sum())),
        object_px=_object_px(is_high),
    )


def _of_numbers(look: _Look, values: Pixels, distinct: Pixels, is_lossy: bool) -> _Look:
    if values.dtype.kind == "f" and not (values == np.rint(values)).all():
        return look
    if distinct[0] < 0:
        return look
    if (is_lossy or len(distinct) > _MOST_CLASSES) and values.dtype == np.uint8 and _is_smeared(values[None]):
        return replace(look, label_kind="smeared")
    y, x = (max(0, n - _NUMBERED_SIDE_PX) // 2 for n in values.shape)
    part = values[y : y + _NUMBERED_SIDE_PX, x : x + _NUMBERED_SIDE_PX]
    num_pieces, num_numbers, area = 0, 0, 0
    for value in np.unique(part[part > 0])[: 2 * _MOST_CLASSES]:
        is_it = part == value
        num_pieces, num_numbers, area = num_pieces + ndimage.label(is_it)[1], num_numbers + 1, area + int(is_it.sum())
    if area / max(1, num_pieces) < _SMALLEST_PIECE_PX:
        return look
    diameter_px = float(2 * np.sqrt(area / max(1, num_pieces) / np.pi))
    if num_pieces <= _PIECES_OF_ID * num_numbers:
        numbers = frozenset(int(v) for v in distinct[distinct > 0][: 2 * _MOST_CLASSES])
        return replace(look, label_kind="ids", object_px=diameter_px, numbers=numbers)
    if len(distinct) <= _MOST_CLASSES:
        return replace(look, label_kind="few numbers", object_px=diameter_px)
    return look
