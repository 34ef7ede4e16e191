"""Blocks as the network wants them: chosen channels, mirrored borders, finite numbers, known statistics."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError, ResourceError
from unetctl.geometry.box import Box, Ints
from unetctl.geometry.mirror import read_mirrored
from unetctl.geometry.plan import Block
from unetctl.recipe.schema import Normalise
from unetctl.runtime.grey_scale import LUMINANCE, NEEDS_STATISTICS, Scaling
from unetctl.runtime.journal import ends_with_newline
from unetctl.runtime.run_plan import ImagePlan, RunPlan
from unetctl.runtime.statistics import VolumeStatistics, measure, sample_boxes
from unetctl.sources.base import Source

Pixels = npt.NDArray[Any]

#: Most pixels looked at to tell a grey picture that was saved as colour.
_COLOUR_SAMPLE = 2**20


@dataclass(frozen=True)
class BlockPixels:
    """A block as read.

    Attributes:
        pixels: (c, *block.read), mirrored, all finite, the source's dtype (float32 for luminance).
        scalings: one per volume that the block touches, by volume index.
        num_nonfinite: pixels of the block's own box that were not finite.
    """

    pixels: Pixels
    scalings: dict[int, Scaling]
    num_nonfinite: int


def read_channels(source: Source, i_image: int, channels: tuple[int, ...], colour: str, box: Box) -> Pixels:
    """Chosen channels of a box of a picture.

    Args:
        source: to read from.
        i_image: the picture.
        channels, colour: see `ImagePlan`.
        box: inside the picture, in its axes without "c"; with it if `channels` is empty.

    Returns:
        (c, *box.shape), the source's dtype, or float32 for luminance.
    """
    axes = source.info.images[i_image].axes
    if not channels:
        return source.read(i_image, box)[np.newaxis]
    at = axes.index("c")
    first, last = min(channels), max(channels)
    full = Box((*box.start[:at], first, *box.start[at:]), (*box.stop[:at], last + 1, *box.stop[at:]))
    pixels = np.moveaxis(source.read(i_image, full), at, 0)
    if channels != tuple(range(first, last + 1)):
        pixels = pixels[[c - first for c in channels]]
    if colour == "luminance":
        # one channel after the other: all of them as float32 at once would be four times what was read
        brightness = np.zeros((1, *pixels.shape[1:]), np.float32)
        for channel, weight in zip(pixels, LUMINANCE, strict=False):
            brightness[0] += channel * np.float32(weight)
        pixels = brightness
    return pixels


def has_equal_channels(source: Source, i_image: int) -> bool:
    """True if red, green and blue are the same in a fixed sample of a colour picture: a grey one, saved as colour.

    Of time points and the like the first, the middle and the last one are looked at: a film may begin without colour.
    """
    info = source.info.images[i_image]
    if not info.is_rgb or info.num_channels < 3:
        return False
    sizes = [(a, n) for a, n in zip(info.axes, info.shape, strict=True) if a != "c"]
    lead = tuple(n for a, n in sizes if a not in "zyx")
    places = dict.fromkeys(tuple(int(share * (n - 1)) for n in lead) for share in (0, 0.5, 1))
    for box in sample_boxes(tuple(n for _, n in sizes[len(lead) :]), _COLOUR_SAMPLE // len(places)):
        for place in places:
            one = Box(place + box.start, tuple(i + 1 for i in place) + box.stop)
            pixels = read_channels(source, i_image, (0, 1, 2), "as-is", one)
            if not (pixels[1:] == pixels[:1]).all():
                return False
    return True


class StatisticsStore:
    """Statistics of the volumes of a run, measured once each and kept in the run folder.

    Every writer appends to a file of its own; all would find the same numbers, so any line will do.
    """

    def __init__(
        self, folder: Path | None, writer: str, plan: RunPlan, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        self._path = folder / f"statistics-{writer}.jsonl" if folder else None
        self._should_stop = should_stop
        self._known: dict[str, VolumeStatistics] = {}
        for path in sorted(folder.glob("statistics-*.jsonl")) if folder else []:
            for line in path.read_bytes().splitlines():
                try:
                    values = json.loads(line)
                    self._known[values["volume"]] = VolumeStatistics.from_dict(values["statistics"])
                except (ValueError, KeyError, TypeError):
                    continue  # torn by a crash: measured again
        for key, values in plan.statistics.items():
            self._known[key] = VolumeStatistics.from_dict(values)

    def of(self, source: Source, image: ImagePlan, volume: int, normalise: Normalise) -> VolumeStatistics | None:
        """Of one volume of a picture; None only if asked to stop while measuring.

        Raises:
            InputError: if the volume's sample holds no finite pixel, or cannot be decoded; names the place.
        """
        key = f"{image.i_image}/{volume}"
        if key not in self._known:
            shape = image.tiles.shape
            lead = np.unravel_index(volume, shape[: image.num_leading]) if image.num_leading else ()
            start = tuple(int(i) for i in lead)
            is_reading = False

            def read(box: Box) -> Pixels:
                nonlocal is_reading
                is_reading = True
                whole = Box((*start, *box.start), (*(i + 1 for i in start), *box.stop))
                pixels = read_channels(source, image.i_image, image.channels, image.colour, whole)
                is_reading = False
                return pixels.reshape(pixels.shape[0], *box.shape)

            try:
                found = measure(
                    read,
                    shape[image.num_leading :],
                    low=normalise.low,
                    high=normalise.high,
                    max_pixels=normalise.sample_pixels,
                    should_stop=self._should_stop,
                )
            except InputError as error:
                if is_reading:
                    raise
                raise _unmeasurable(source, image, start) from error
            if found is None:
                return None
            self._known[key] = found
            self._keep(key, found)
        return self._known[key]

    @property
    def known(self) -> dict[str, VolumeStatistics]:
        """By "image/volume"."""
        return dict(self._known)

    def _keep(self, key: str, found: VolumeStatistics) -> None:
        if self._path is None:
            return
        line = json.dumps({"volume": key, "statistics": found.to_dict()}) + "\n"
        try:
            with self._path.open("a") as file:
                if file.tell() and not ends_with_newline(self._path):
                    file.write("\n")  # a torn line: this one must not be glued to it
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ResourceError(
                f"{self._path} could not be written ({error.strerror})", "", "free space and run the same command again"
            ) from error


def _unmeasurable(source: Source, image: ImagePlan, start: Ints) -> InputError:
    """Of one volume of many, the one: "t=3 of x.tif"."""
    place = ", ".join(f"{axis}={i}" for axis, i in zip(image.tiles.axes, start, strict=False))
    info, i_image = source.info, image.i_image
    name = f"{info.images[i_image].name or f'picture {i_image}'} of {info.uri}" if len(info.images) > 1 else info.uri
    options = [
        f"--{word}" for axis, word in (("t", "time"), ("c", "channel")) if axis in image.tiles.axes[: len(start)]
    ]
    return InputError(
        f"{f'{place} of ' if place else ''}{name} holds no finite pixel in the sample that its statistics come from",
        "numbers other than NaN",
        f"leave it out, or predict the others alone with {' and '.join(options)}" if options else "",
    )


class BlockReader:
    """Reads the blocks of a plan; used by one thread at a time."""

    def __init__(self, source: Source, plan: RunPlan, statistics: StatisticsStore) -> None:
        self._source, self._plan, self._statistics = source, plan, statistics
        self._recipe = plan.typed_recipe()

    def read(self, image: ImagePlan, block: Block) -> BlockPixels | None:
        """A block with its halo; None only if asked to stop meanwhile.

        Raises:
            InputError: if pixels cannot be decoded, or are not finite and the plan refuses that.
        """
        scalings: dict[int, Scaling] = {}
        dtype = self._source.info.images[image.i_image].dtype
        num_channels = 1 if image.colour == "luminance" else max(1, len(image.channels))
        for volume in _volumes_of(image, block.box):
            statistics = None
            if self._recipe.normalise.method in NEEDS_STATISTICS:
                statistics = self._statistics.of(self._source, image, volume, self._recipe.normalise)
                if statistics is None:
                    return None
            scalings[volume] = Scaling.of(self._recipe.normalise, statistics, num_channels, dtype)
        pixels = read_mirrored(
            lambda box: read_channels(self._source, image.i_image, image.channels, image.colour, box),
            block.read,
            image.tiles.shape,
            leading=1,
        )
        num_nonfinite = 0
        if pixels.dtype.kind == "f":
            finite = self._made_finite(image, block, pixels)
            if finite is None:
                return None
            pixels, num_nonfinite = finite
        return BlockPixels(pixels, scalings, num_nonfinite)

    def _made_finite(self, image: ImagePlan, block: Block, pixels: Pixels) -> tuple[Pixels, int] | None:
        bad = ~np.isfinite(pixels)
        if not bad.any():
            return pixels, 0
        inside = (slice(None), *block.box.relative_to(block.read).slices())
        count = int(bad[inside].sum())
        if self._plan.nonfinite == "refuse":
            raise InputError(
                f"block {block.box} holds {int(bad.sum())} pixels that are not finite",
                "finite numbers",
                "leave out --nonfinite refuse to have them replaced by the volume's median",
            )
        volumes = _volumes_of(image, block.box)
        medians = []
        for volume in volumes:
            statistics = self._statistics.of(self._source, image, volume, self._recipe.normalise)
            if statistics is None:
                return None
            medians.append(statistics.median)
        pixels = pixels.copy()
        # A block of several volumes has one leading axis of size > 1 at most a volume each, in order.
        flat, flat_bad = _by_volume(image, block, pixels), _by_volume(image, block, bad)
        for i_volume, median in enumerate(medians):
            for channel, value in enumerate(median):
                part = flat[channel][i_volume]
                part[flat_bad[channel][i_volume]] = value
        return pixels, count


def _by_volume(image: ImagePlan, block: Block, pixels: Pixels) -> Pixels:
    """A view (c, volumes of the block, *volume axes)."""
    lead = image.num_leading
    return pixels.reshape(pixels.shape[0], -1, *pixels.shape[1 + lead :])


def _volumes_of(image: ImagePlan, box: Box) -> list[int]:
    shape: Ints = image.tiles.shape[: image.num_leading]
    if not shape:
        return [0]
    ranges = [np.arange(a, b) for a, b in list(box)[: image.num_leading]]
    return [int(np.ravel_multi_index(tuple(int(i) for i in place), shape)) for place in _product(ranges)]


def _product(ranges: list[npt.NDArray[np.intp]]) -> list[tuple[np.intp, ...]]:
    grid = np.meshgrid(*ranges, indexing="ij")
    return list(zip(*(g.ravel() for g in grid), strict=True))
