"""From pairs of files to annotated planes in memory: normalised pixels, class targets, loss weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.geometry.box import Box, Ints
from unetctl.geometry.mirror import mirror_indices
from unetctl.recipe.schema import Recipe
from unetctl.runtime.numerics import Scaling
from unetctl.runtime.planning import choose_channels
from unetctl.runtime.reading import has_equal_channels, read_channels
from unetctl.runtime.statistics import VolumeStatistics, measure
from unetctl.sources.base import ImageInfo, Source
from unetctl.sources.open import open_source
from unetctl.training.crops import Plane
from unetctl.training.pairs import Pair
from unetctl.training.splits import Selection
from unetctl.training.weightmap import border_weights, class_balance, label_cells

Pixels = npt.NDArray[Any]

#: So many unexpected label values are named in a message.
_NAMED_VALUES = 10


@dataclass(frozen=True)
class LoadedPair:
    """The chosen planes of one pair.

    Attributes:
        planes: without loss weights yet (weight 0 where the label is to be ignored, else 1).
        value_range: lowest and highest grey value seen in them, before normalisation.
        spacing_um: of the picture, (z, y, x) or (y, x).
    """

    planes: tuple[Plane, ...]
    value_range: tuple[float, float]
    spacing_um: tuple[float | None, ...]


def count_planes(pair: Pair) -> int:
    """Planes of a pair's picture; 1 for a page.

    Raises:
        InputError: if picture and labels differ in size, or one of them cannot be read.
    """
    with _opened(pair.image) as image, _opened(pair.labels) as labels:
        _refuse_other_size(pair, image, labels)
        return int(np.prod(_plane_shape(_info(image, pair)), dtype=int))


def load_selection(selection: Selection, recipe: Recipe) -> LoadedPair:
    """Reads the chosen planes of a pair.

    Grey values are scaled by the statistics of the whole volume, as at prediction.

    Raises:
        InputError: if picture and labels differ in size, pixels cannot be decoded, or labels hold values that the
            recipe does not know.
    """
    pair = selection.pair
    with _opened(pair.image) as image, _opened(pair.labels) as labels:
        _refuse_other_size(pair, image, labels)
        info = _info(image, pair)
        is_grey = recipe.input.channels == 1 and has_equal_channels(image, pair.i_image)
        channels, colour, _ = choose_channels(info, recipe, (0,) if is_grey else None)
        picture = _Volumes(image, pair.i_image, channels, colour, recipe)
        planes = []
        for i_plane in selection.planes:
            target, weights = _target(labels, pair, i_plane, recipe)
            name = pair.name if not _plane_shape(info) else f"{pair.name}[{i_plane}]"
            planes.append(Plane(name, picture.stacked(i_plane), target, weights))
        return LoadedPair(tuple(planes), picture.value_range, info.spacing_um)


def with_loss_weights(planes: Sequence[Plane], recipe: Recipe) -> list[Plane]:
    """Planes with the weights that the recipe's [loss] asks for.

    ``w = w_class + w0 * exp(-(d1 + d2)^2 / (2 sigma^2))`` (Ronneberger et al. 2015, equation 2), 0 where ignored.
    """
    loss, num_classes = recipe.loss, max(2, recipe.output.num_channels)
    per_class = np.ones(num_classes, np.float32)
    if loss.class_balance:
        counts = np.zeros(num_classes, np.int64)
        for plane in planes:
            counted = plane.target if plane.weights is None else plane.target[plane.weights > 0]
            counts += np.bincount(counted.ravel().astype(np.int64), minlength=num_classes)[:num_classes]
        per_class = np.asarray(class_balance(counts), np.float32)
    weighted = []
    for plane in planes:
        weights = per_class[plane.target]
        if loss.border:
            cells = label_cells(plane.target[0] > 0)
            weights = weights + border_weights(cells, w0=loss.border_w0, sigma_px=loss.border_sigma_px) - 1
        if plane.weights is not None:
            weights = weights * plane.weights
        weighted.append(Plane(plane.name, plane.pixels, plane.target, weights.astype(np.float32)))
    return weighted


class _Volumes:
    """The planes of one picture, scaled by the statistics of the volume that each belongs to, as at prediction.

    Planes count through all axes before y and x; a volume is one index of the axes before z.
    """

    def __init__(self, source: Source, i_image: int, channels: Ints, colour: str, recipe: Recipe) -> None:
        self._source, self._i_image, self._channels, self._colour = source, i_image, channels, colour
        self._normalise, self._context = recipe.normalise, recipe.input.context_slices
        self._info = source.info.images[i_image]
        self._lead = _plane_shape(self._info)
        self._size = self._info.size_of("y"), self._info.size_of("x")
        self._depth = self._info.size_of("z")
        self._measured: dict[int, VolumeStatistics] = {}
        self._scaled: dict[int, Pixels] = {}
        self.value_range = np.inf, -np.inf

    def stacked(self, i_plane: int) -> npt.NDArray[np.float32]:
        """(c * context_slices, y, x): the plane among its neighbours in z, mirrored at the volume's ends."""
        volume, z = divmod(i_plane, self._depth)
        reach = self._context // 2
        around = [volume * self._depth + int(i) for i in mirror_indices(z - reach, z + reach + 1, self._depth)]
        self._scaled = {i: self._scaled[i] if i in self._scaled else self._plane(i) for i in around}
        return np.concatenate([self._scaled[i] for i in around]) if reach else self._scaled[i_plane]

    def _plane(self, i_plane: int) -> npt.NDArray[np.float32]:
        statistics = self._statistics(i_plane // self._depth)
        scaling = Scaling.of(self._normalise, statistics, len(statistics.mean), self._info.dtype)
        at = _place(i_plane, self._lead)
        pixels = self._read(Box((*at, 0, 0), (*(i + 1 for i in at), *self._size)))
        raw = pixels.reshape(-1, *self._size).astype(np.float32)
        for channel, median in zip(raw, statistics.median, strict=True):
            channel[~np.isfinite(channel)] = median
        low, high = self.value_range
        self.value_range = min(low, float(raw.min())), max(high, float(raw.max()))
        shift = np.asarray(scaling.shift, np.float32)[:, None, None]
        scaled: npt.NDArray[np.float32] = (raw - shift) * np.asarray(scaling.factor, np.float32)[:, None, None]
        return scaled

    def _statistics(self, volume: int) -> VolumeStatistics:
        if volume not in self._measured:
            has_z = "z" in self._info.axes
            before = self._lead[:-1] if has_z else self._lead
            at = _place(volume, before)

            def read(box: Box) -> Pixels:
                pixels = self._read(Box((*at, *box.start), (*(i + 1 for i in at), *box.stop)))
                return pixels.reshape(pixels.shape[0], *box.shape)

            n = self._normalise
            shape = (self._depth, *self._size) if has_z else self._size
            found = measure(read, shape, low=n.low, high=n.high, max_pixels=n.sample_pixels)
            assert found is not None  # nobody asked it to stop
            self._measured[volume] = found
        return self._measured[volume]

    def _read(self, box: Box) -> Pixels:
        return read_channels(self._source, self._i_image, self._channels, self._colour, box)


@contextmanager
def _opened(path: Path) -> Iterator[Source]:
    source = open_source(str(path))
    try:
        yield source
    finally:
        source.close()


def _info(source: Source, pair: Pair) -> ImageInfo:
    images = source.info.images
    if pair.i_image >= len(images):
        raise InputError(f"{source.info.uri} holds {len(images)} pictures", f"at least {pair.i_image + 1}")
    return images[pair.i_image]


def _refuse_other_size(pair: Pair, image: Source, labels: Source) -> None:
    infos = [_info(source, pair) for source in (image, labels)]
    # An axis of one plane more or less is no difference: (1, y, x) labels fit a (y, x) picture.
    sizes = [([n for n in _plane_shape(i) if n != 1], i.size_of("y"), i.size_of("x")) for i in infos]
    if sizes[0] != sizes[1]:
        told = [f"{'x'.join(map(str, i.shape))} ({i.axes})" for i in infos]
        raise InputError(
            f"{pair.image} has {told[0]} and its labels {pair.labels} have {told[1]}", "equal sizes",
            "mend or leave out the pair with --exclude",
        )


def _plane_shape(info: ImageInfo) -> Ints:
    return tuple(n for a, n in zip(info.axes, info.shape, strict=True) if a not in "cyx")


def _place(index: int, shape: Ints) -> Ints:
    return tuple(int(i) for i in np.unravel_index(index, shape)) if shape else ()


def _target(
    labels: Source, pair: Pair, i_plane: int, recipe: Recipe
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32] | None]:
    """(1, y, x) class indices, and weights (1, y, x) with 0 where ignored (None if nothing is)."""
    values = _label_values(labels, pair, i_plane)
    known = recipe.labels
    ignored = np.zeros(values.shape, bool) if known.ignore is None else values == known.ignore
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
    elif known.kind == "binary":
        target = (values > 0).astype(np.uint8)
    else:
        last = recipe.output.num_channels - 1
        outside = values[~ignored & ((values < 0) | (values > last))]
        if outside.size:
            raise InputError(
                f"the labels {pair.labels} hold class {outside.max()}", f"0 to {last}",
                "name all classes in output.classes, or map pixel values with labels.values",
            )
        target = np.where(ignored, 0, values).astype(np.uint8)
    if not ignored.any():
        return target, None
    target[ignored] = 0
    return target, np.where(ignored, 0.0, 1.0).astype(np.float32)


def _label_values(labels: Source, pair: Pair, i_plane: int) -> npt.NDArray[np.int64]:
    """(1, y, x) whole numbers of one plane."""
    info = _info(labels, pair)
    channels = tuple(range(info.num_channels)) if "c" in info.axes else ()
    at = _place(i_plane, _plane_shape(info))
    box = Box((*at, 0, 0), (*(i + 1 for i in at), info.size_of("y"), info.size_of("x")))
    values = read_channels(labels, pair.i_image, channels, "as-is", box).reshape(-1, *box.shape[-2:])
    if len(values) > 1:
        has_alpha = len(values) in (2, 4)
        colours = values[: len(values) - has_alpha]
        if not (colours == colours[:1]).all():
            raise InputError(
                f"the labels {pair.labels} are coloured", "one number a pixel",
                "save them as grey values or class numbers",
            )
        values = values[:1]
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.rint(values))).all():
        raise InputError(
            f"the labels {pair.labels} hold fractions", "whole numbers", "save class numbers, not probabilities"
        )
    return values.astype(np.int64)
