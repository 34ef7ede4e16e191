"""From pairs of files to annotated planes in memory: normalised pixels, class targets, loss weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.geometry.box import Box, Ints
from unetctl.recipe.schema import Recipe
from unetctl.runtime.numerics import Scaling
from unetctl.runtime.planning import choose_channels
from unetctl.runtime.reading import read_channels
from unetctl.runtime.statistics import measure
from unetctl.sources.base import ImageInfo, Source
from unetctl.sources.open import open_source
from unetctl.training.crops import Plane, stack_neighbours
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
        InputError: if picture and labels differ in size.
    """
    image, labels = _open(pair.image), _open(pair.labels)
    try:
        have, want = _info(labels, pair), _info(image, pair)
        sizes = [(_plane_shape(i), i.shape[i.axes.index("y")], i.shape[i.axes.index("x")]) for i in (want, have)]
        if sizes[0] != sizes[1]:
            raise InputError(
                f"{pair.image} has {_told(want)} and its labels {pair.labels} have {_told(have)}", "equal sizes",
                "mend or leave out the pair with --exclude",
            )
        return int(np.prod(_plane_shape(want), dtype=int))
    finally:
        image.close()
        labels.close()


def load_selection(selection: Selection, recipe: Recipe) -> LoadedPair:
    """Reads the chosen planes of a pair.

    Grey values are scaled by the statistics of the whole volume, as at prediction.

    Raises:
        InputError: if pixels cannot be decoded, or labels hold values that the recipe does not know.
    """
    pair = selection.pair
    image, labels = _open(pair.image), _open(pair.labels)
    try:
        info = _info(image, pair)
        channels, colour, _ = choose_channels(info, recipe, None)
        lead = _plane_shape(info)
        size = info.shape[info.axes.index("y")], info.shape[info.axes.index("x")]

        def read(box: Box) -> Pixels:
            return read_channels(image, pair.i_image, channels, colour, box)

        statistics = measure(
            read, (*lead, *size), low=recipe.normalise.low, high=recipe.normalise.high,
            max_pixels=recipe.normalise.sample_pixels,
        )
        assert statistics is not None  # nobody asked it to stop
        scaling = Scaling.of(recipe.normalise, statistics, len(statistics.mean), info.dtype)
        low, high = np.inf, -np.inf
        scaled: dict[int, Pixels] = {}
        for i_plane in _with_context(selection.planes, recipe.input.context_slices // 2, int(np.prod(lead, dtype=int))):
            raw = _plane(read, lead, size, i_plane).astype(np.float32)
            for channel, median in zip(raw, statistics.median, strict=True):
                channel[~np.isfinite(channel)] = median
            low, high = min(low, float(raw.min())), max(high, float(raw.max()))
            shift = np.asarray(scaling.shift, np.float32)[:, None, None]
            scaled[i_plane] = (raw - shift) * np.asarray(scaling.factor, np.float32)[:, None, None]
        planes = []
        for i_plane in selection.planes:
            target, weights = _target(labels, pair, lead, size, i_plane, recipe)
            pixels = _stacked(scaled, i_plane, recipe.input.context_slices, int(np.prod(lead, dtype=int)))
            name = pair.name if not lead else f"{pair.name}[{i_plane}]"
            planes.append(Plane(name, pixels, target, weights))
        return LoadedPair(tuple(planes), (low, high), info.spacing_um)
    finally:
        image.close()
        labels.close()


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


def _open(path: Any) -> Source:
    return open_source(str(path))


def _info(source: Source, pair: Pair) -> ImageInfo:
    images = source.info.images
    if pair.i_image >= len(images):
        raise InputError(f"{source.info.uri} holds {len(images)} pictures", f"at least {pair.i_image + 1}")
    return images[pair.i_image]


def _plane_shape(info: ImageInfo) -> Ints:
    return tuple(n for a, n in zip(info.axes, info.shape, strict=True) if a not in "cyx")


def _told(info: ImageInfo) -> str:
    return f"{'x'.join(map(str, info.shape))} ({info.axes})"


def _plane(read: Any, lead: Ints, size: tuple[int, int], i_plane: int) -> Pixels:
    """(c, y, x) of one plane."""
    at = tuple(int(i) for i in np.unravel_index(i_plane, lead)) if lead else ()
    pixels = read(Box((*at, 0, 0), (*(i + 1 for i in at), *size)))
    return np.asarray(pixels).reshape(pixels.shape[0], *size)


def _with_context(planes: Sequence[int], reach: int, num_planes: int) -> list[int]:
    wanted = {min(max(p + d, 0), num_planes - 1) for p in planes for d in range(-reach, reach + 1)}
    if reach:  # mirrored neighbours of the first and last planes
        wanted |= {abs(d) % num_planes for d in range(-reach, 0)} | {max(0, num_planes - 1 - d) for d in range(reach + 1)}
        wanted |= set(range(min(reach + 1, num_planes)))
    return sorted(wanted)


def _stacked(scaled: dict[int, Pixels], i_plane: int, context_slices: int, num_planes: int) -> npt.NDArray[np.float32]:
    if context_slices == 1:
        return np.asarray(scaled[i_plane], np.float32)
    reach = context_slices // 2
    first, last = max(0, i_plane - reach), min(num_planes - 1, i_plane + reach)
    if first == i_plane - reach and last == i_plane + reach:
        return np.concatenate([scaled[i] for i in range(first, last + 1)]).astype(np.float32)
    whole = [scaled.get(i, scaled[i_plane]) for i in range(num_planes)]
    return stack_neighbours(whole, context_slices)[i_plane].astype(np.float32)


def _target(
    labels: Source, pair: Pair, lead: Ints, size: tuple[int, int], i_plane: int, recipe: Recipe
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32] | None]:
    """(1, y, x) class indices, and weights (1, y, x) with 0 where ignored (None if nothing is)."""
    info = _info(labels, pair)
    channels = tuple(range(info.num_channels)) if "c" in info.axes else ()

    def read(box: Box) -> Pixels:
        return read_channels(labels, pair.i_image, channels, "as-is", box)

    values = _plane(read, lead, size, i_plane)
    if values.shape[0] > 1:
        colours = values[:3]
        if not (colours == colours[:1]).all():
            raise InputError(f"the labels {pair.labels} are coloured", "one number a pixel", "save them as grey values or class numbers")
        values = values[:1]
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        raise InputError(f"the labels {pair.labels} hold fractions", "whole numbers", "save class numbers, not probabilities")
    values = values.astype(np.int64)
    ignored = values == recipe.labels.ignore if recipe.labels.ignore is not None else None
    mapping = recipe.labels.class_of_value
    if mapping:
        known = np.isin(values, list(mapping))
        if ignored is not None:
            known |= ignored
        if not known.all():
            found = [int(v) for v in np.unique(values[~known])]
            shown = ", ".join(map(str, found[:_NAMED_VALUES])) + (" ..." if len(found) > _NAMED_VALUES else "")
            raise InputError(
                f"the labels {pair.labels} hold the values {shown}", f"those of labels.values: {', '.join(map(str, mapping))}",
                "list all values in the recipe's [labels], or leave the list empty",
            )
        target = np.zeros(values.shape, np.uint8)
        for value, number in mapping.items():
            target[values == value] = number
    elif recipe.labels.kind == "binary":
        target = (values > 0).astype(np.uint8)
    else:
        highest = int(values[~ignored].max() if ignored is not None else values.max())
        if highest >= recipe.output.num_channels:
            raise InputError(
                f"the labels {pair.labels} hold class {highest}", f"0 to {recipe.output.num_channels - 1}",
                "name all classes in output.classes, or map pixel values with labels.values",
            )
        target = np.where(values < 0, 0, values).astype(np.uint8)
    if ignored is None or not ignored.any():
        return target, None
    target[ignored] = 0
    return target, np.where(ignored, 0.0, 1.0).astype(np.float32)
