"""From pairs of files to annotated planes in memory: normalised pixels, class targets, loss weights.

load_selection(selection, recipe) -> LoadedPair(planes, value_range, spacing_um, evidence, notes)
check_channels(info, pair, recipe)
with_loss_weights(planes, recipe, counted) -> planes
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.geometry.box import Box, Ints
from unetctl.geometry.mirror import mirror_indices
from unetctl.geometry.object_size import median_diameter, scale_of
from unetctl.recipe.schema import Recipe
from unetctl.runtime.grey_scale import Scaling
from unetctl.runtime.planning import choose_channels
from unetctl.runtime.reading import has_equal_channels, read_channels
from unetctl.runtime.statistics import VolumeStatistics, measure
from unetctl.sources.base import ImageInfo, Source
from unetctl.sources.coloured import COLOURS, coloured, is_grey
from unetctl.sources.scaled import ScaledSource
from unetctl.training.crops import Plane
from unetctl.training.pairs import Pair
from unetctl.training.splits import Selection
from unetctl.training.survey import check_size, count_planes, info_of, opened, plane_shape
from unetctl.training.truth import Target, looks_like_mask, place, read_target, resized_objects
from unetctl.training.weightmap import border_weights, class_balance, label_cells

__all__ = ["Evidence", "LoadedPair", "count_planes", "load_selection", "with_loss_weights"]

Pixels = npt.NDArray[Any]


@dataclass(frozen=True)
class Evidence:
    """What one plane tells about which of two label values is ink.

    Attributes:
        name: of the plane.
        low, high: the two label values.
        darkness_of_low: how much darker the picture is at the smaller one, in normalised units; NaN if there is one value.
    """

    name: str
    low: float
    high: float
    darkness_of_low: float


@dataclass(frozen=True)
class LoadedPair:
    """The chosen planes of one pair.

    Attributes:
        planes: without loss weights yet (weight 0 where the label is to be ignored, else 1).
        value_range: lowest and highest grey value seen in them, before normalisation.
        spacing_um: of the picture, (z, y, x) or (y, x).
        evidence: one a plane if `labels.foreground` is "darker": class 1 stands for the smaller label value until
            `unetctl.training.polarity` has settled which one is ink; else empty.
        notes: sentences for the user about labels and pixels.
        scale: at which the planes are shown, for the sake of `objects.diameter_px`.
    """

    planes: tuple[Plane, ...]
    value_range: tuple[float, float]
    spacing_um: tuple[float | None, ...]
    evidence: tuple[Evidence, ...] = ()
    notes: tuple[str, ...] = ()
    scale: float = 1.0


def load_selection(selection: Selection, recipe: Recipe, *, fits_objects: bool = True) -> LoadedPair:
    """Reads the chosen planes of a pair.

    Grey values are scaled by the statistics of the whole volume, as at prediction.

    Args:
        selection: the planes.
        recipe: says what pixels and labels mean.
        fits_objects: False leaves pictures at their own scale whatever `objects.diameter_px` says.

    Raises:
        InputError: if picture and labels differ in size, pixels cannot be decoded, or labels hold values that the
            recipe does not know; says so if picture and labels look swapped.
    """
    pair = selection.pair
    with opened(pair.image) as stored, opened(pair.labels) as labels:
        image = coloured(stored, recipe.input.channels)
        check_size(pair, image, labels)
        info = info_of(image, pair)
        is_grey_rgb = recipe.input.channels == 1 and has_equal_channels(image, pair.i_image)
        channels, colour, _ = choose_channels(info, recipe, (0,) if is_grey_rgb else None)
        picture = _Volumes(image, pair.i_image, channels, colour, recipe)
        targets = []
        for i_plane in selection.planes:
            try:
                targets.append(read_target(labels, pair, i_plane, recipe))
            except InputError as error:
                if picture.is_mask(i_plane):
                    raise _swapped(error, pair) from error
                raise
        scale = _object_scale(targets, recipe) if fits_objects else 1.0
        if scale != 1:
            scaled = ScaledSource(image, scale)
            info = scaled.info.images[pair.i_image]
            size = info.size_of("y"), info.size_of("x")
            targets = [resized_objects(target, size, recipe) for target in targets]
            picture = _Volumes(scaled, pair.i_image, channels, colour, recipe)
        planes, evidence, notes = [], [], []
        for i_plane, target in zip(selection.planes, targets, strict=True):
            name = pair.name if not plane_shape(info) else f"{pair.name}[{i_plane}]"
            pixels = picture.stacked(i_plane)
            weights = _without(target.weights, picture.nonfinite.get(i_plane))
            planes.append(Plane(name, pixels, target.classes, weights, target.objects))
            evidence += _evidence(planes[-1], target)
            notes += [target.note] if target.note else []
        if picture.nonfinite:
            notes.append(_nonfinite_note(pair, picture.nonfinite))
        return LoadedPair(tuple(planes), picture.value_range, info.spacing_um, tuple(evidence), tuple(notes), scale)


def _object_scale(targets: Sequence[Target], recipe: Recipe) -> float:
    """At which the objects of these planes have the size that the recipe wants; 1 where there are none."""
    wanted = recipe.objects.diameter_px
    ids = [target.objects for target in targets if target.objects is not None]
    if wanted is None or not ids:
        return 1.0
    diameter = median_diameter(np.stack(ids))
    return 1.0 if diameter is None else scale_of(diameter, wanted)


def check_channels(info: ImageInfo, pair: Pair, recipe: Recipe) -> None:
    """Passes a picture whose channels a network of the recipe can take, as far as its header tells.

    Raises:
        InputError: of any other.
    """
    have, need = info.num_channels, recipe.input.channels
    if (info.is_rgb and need == 1) or (need == COLOURS and is_grey(info)):
        return  # a grey one saved as colour only its pixels tell; of a grey one three channels are made
    try:
        choose_channels(info, recipe, None)
    except InputError as error:
        raise InputError(
            f"{pair.image} has {have} channel{'s' * (have > 1)}",
            f"{need}, as input.channels of the recipe says",
            "train on pictures of one kind, or leave it out with --exclude or --on-error skip",
        ) from error


def _swapped(error: InputError, pair: Pair) -> InputError:
    return InputError(
        f"{error.seen}; its picture {pair.image} holds but two values",
        error.expected,
        "pictures and labels seem to be swapped: exchange the names of their folders or files",
    )


def _without(
    weights: npt.NDArray[np.float32] | None, unknown: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.float32] | None:
    """Weights (1, y, x) that are 0 where the picture is unknown, too."""
    if unknown is None:
        return weights
    known = (~unknown)[None].astype(np.float32)
    return known if weights is None else weights * known


def _nonfinite_note(pair: Pair, unknown: Mapping[int, npt.NDArray[np.bool_]]) -> str:
    share = float(np.mean([where.mean() for where in unknown.values()]))
    many = f" of {len(unknown)} planes" if len(unknown) > 1 else ""
    return (
        f"{pair.image}: {share:.2%} of the pixels{many} are not finite (NaN, infinite): "
        "they are read as the median, and nothing is learnt there"
    )


def _evidence(plane: Plane, target: Target) -> list[Evidence]:
    sides = target.sides
    if sides is None:
        return []
    grey, is_high = plane.pixels.mean(0), sides.is_high
    has_both = bool(is_high.any() and not is_high.all())
    darkness = float(grey[is_high].mean() - grey[~is_high].mean()) if has_both else float("nan")
    return [Evidence(plane.name, sides.low, sides.high, darkness)]


def with_loss_weights(planes: Sequence[Plane], recipe: Recipe, counted: Sequence[Plane] | None = None) -> list[Plane]:
    """Planes with the weights that the recipe's [loss] asks for.

    ``w = w_class + w0 * exp(-(d1 + d2)^2 / (2 sigma^2))`` (Ronneberger et al. 2015, equation 2), 0 where ignored.

    Args:
        planes: of training and validation.
        recipe: says how to weigh.
        counted: the planes whose classes are counted for the balance, those of training; None: all.
    """
    loss, num_classes = recipe.loss, max(2, recipe.output.num_channels)
    per_class = np.ones(num_classes, np.float32)
    if loss.class_balance:
        counts = np.zeros(num_classes, np.int64)
        for plane in planes if counted is None else counted:
            known = plane.target if plane.weights is None else plane.target[plane.weights > 0]
            counts += np.bincount(known.ravel().astype(np.int64), minlength=num_classes)[:num_classes]
        per_class = np.asarray(class_balance(counts), np.float32)
    weighted = []
    for plane in planes:
        weights = per_class[plane.target]
        if loss.border:
            # Objects that touch leave no gap between them: there the term stands on their own pixels.
            is_objects = plane.objects is not None
            cells = plane.objects if plane.objects is not None else label_cells(plane.target[0] > 0)
            border = border_weights(cells, w0=loss.border_w0, sigma_px=loss.border_sigma_px, inside=is_objects)
            weights = weights + border - 1
        if plane.weights is not None:
            weights = weights * plane.weights
        weighted.append(replace(plane, weights=weights.astype(np.float32)))
    return weighted


class _Volumes:
    """The planes of one picture, scaled by the statistics of the volume that each belongs to, as at prediction.

    Planes count through all axes before y and x; a volume is one index of the axes before z.
    """

    def __init__(self, source: Source, i_image: int, channels: Ints, colour: str, recipe: Recipe) -> None:
        self._source, self._i_image, self._channels, self._colour = source, i_image, channels, colour
        self._normalise, self._context = recipe.normalise, recipe.input.context_slices
        self._info = source.info.images[i_image]
        self._lead = plane_shape(self._info)
        self._size = self._info.size_of("y"), self._info.size_of("x")
        self._depth = self._info.size_of("z")
        self._measured: dict[int, VolumeStatistics] = {}
        self._scaled: dict[int, Pixels] = {}
        self.value_range = np.inf, -np.inf
        #: (y, x) of planes where not every pixel is finite
        self.nonfinite: dict[int, npt.NDArray[np.bool_]] = {}

    def is_mask(self, i_plane: int) -> bool:
        """See `looks_like_mask`."""
        return looks_like_mask(self._raw(i_plane))

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
        raw = self._raw(i_plane).astype(np.float32)
        is_known = np.isfinite(raw)
        if not is_known.all():
            self.nonfinite[i_plane] = np.asarray(~is_known.all(0))
            for channel, known, median in zip(raw, is_known, statistics.median, strict=True):
                channel[~known] = median
        low, high = self.value_range
        self.value_range = min(low, float(raw.min())), max(high, float(raw.max()))
        shift = np.asarray(scaling.shift, np.float32)[:, None, None]
        scaled: npt.NDArray[np.float32] = (raw - shift) * np.asarray(scaling.factor, np.float32)[:, None, None]
        return scaled

    def _raw(self, i_plane: int) -> Pixels:
        """(c, y, x) as read."""
        at = place(i_plane, self._lead)
        return self._read(Box((*at, 0, 0), (*(i + 1 for i in at), *self._size))).reshape(-1, *self._size)

    def _statistics(self, volume: int) -> VolumeStatistics:
        if volume not in self._measured:
            has_z = "z" in self._info.axes
            before = self._lead[:-1] if has_z else self._lead
            at = place(volume, before)

            def read(box: Box) -> Pixels:
                pixels = self._read(Box((*at, *box.start), (*(i + 1 for i in at), *box.stop)))
                return pixels.reshape(pixels.shape[0], *box.shape)

            n = self._normalise
            shape = (self._depth, *self._size) if has_z else self._size
            try:
                found = measure(read, shape, low=n.low, high=n.high, max_pixels=n.sample_pixels)
            except InputError as error:
                raise InputError(
                    f"{self._source.info.uri}: {error.seen}",
                    error.expected,
                    "leave it out with --exclude or --on-error skip",
                ) from error
            assert found is not None  # nobody asked it to stop
            self._measured[volume] = found
        return self._measured[volume]

    def _read(self, box: Box) -> Pixels:
        return read_channels(self._source, self._i_image, self._channels, self._colour, box)
