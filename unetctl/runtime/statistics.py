"""Grey-value statistics of a whole volume, from a fixed bounded sample: no tile ever normalises itself.

The sample is a function of the volume's shape alone (evenly spaced planes, evenly spaced windows in them), so every
worker that computes it finds the same numbers.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.filters import threshold_otsu

from unetctl.errors import InputError
from unetctl.geometry.box import Box, Ints

Pixels = npt.NDArray[Any]

#: Largest side of a sampled window, pixels.
_WINDOW = 512
#: Grey values that Otsu's threshold tells apart in types with more than 16 bits.
_NUM_BINS = 1024
#: Most values kept for percentiles of types with more than 16 bits.
_KEPT_VALUES = 2_000_000


@dataclass(frozen=True)
class VolumeStatistics:
    """Of one volume, per channel.

    Attributes:
        mean, std, low, high, median: grey values; `low` and `high` at the percentiles asked for.
        dark, bright: mean grey values of the two classes that Otsu's threshold parts: ink and paper of a page; both the
            only grey value where there is just one.
        num_sampled: pixels looked at.
        num_nonfinite: of those, how many were NaN or infinite (left out of the rest).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    median: tuple[float, ...]
    num_sampled: int
    num_nonfinite: int
    dark: tuple[float, ...] = ()
    bright: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "VolumeStatistics":
        """From `to_dict`."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)


def sample_boxes(shape: Ints, max_pixels: int) -> Iterator[Box]:
    """Boxes of a volume ((z,) y, x) that together hold at most about `max_pixels`, evenly spread; all of it if it fits."""
    planes = (1,) * (3 - len(shape)) + tuple(shape)
    num_z, size_y, size_x = planes
    # Rows and columns of windows of even size: the last ones are no thin strips that would stand for all.
    grid_y, grid_x = -(-size_y // _WINDOW), -(-size_x // _WINDOW)
    picked_z, take_y, take_x = num_z, grid_y, grid_x
    if num_z * size_y * size_x > max_pixels:
        wanted = max(1, max_pixels // (-(-size_y // grid_y) * -(-size_x // grid_x)))
        picked_z = min(num_z, max(1, wanted // min(grid_y * grid_x, 4)))
        per_plane = max(1, wanted // picked_z)
        ratio = min(1.0, (per_plane / (grid_y * grid_x)) ** 0.5)
        take_y = min(per_plane, max(1, int(grid_y * ratio)))
        take_x = min(per_plane // take_y, max(1, int(grid_x * ratio)))  # a strip has one row, whatever the ratio
        if per_plane >= grid_y * grid_x:
            take_y, take_x = grid_y, grid_x
    for z in _spread(num_z, picked_z):
        for gy in _spread(grid_y, take_y):
            for gx in _spread(grid_x, take_x):
                start = (z, gy * size_y // grid_y, gx * size_x // grid_x)
                stop = (z + 1, (gy + 1) * size_y // grid_y, (gx + 1) * size_x // grid_x)
                yield Box(start[3 - len(shape) :], stop[3 - len(shape) :])


def _spread(size: int, count: int) -> list[int]:
    return sorted({(2 * i + 1) * size // (2 * count) for i in range(count)})


def measure(
    read: Callable[[Box], Pixels],
    shape: Ints,
    *,
    low: float,
    high: float,
    max_pixels: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> VolumeStatistics | None:
    """Statistics of one volume.

    Args:
        read: pixels (c, *box) of a box of the volume.
        shape: of the volume, without channels.
        low, high: percentiles in percent.
        max_pixels: bound of the sample.
        should_stop: asked between windows.

    Returns:
        The statistics, or None if asked to stop.

    Raises:
        InputError: if no pixel of the sample is finite.
    """
    gathered: list[_Channel] = []
    num_sampled = num_nonfinite = 0
    for box in sample_boxes(shape, max_pixels):
        if should_stop():
            return None
        pixels = read(box)
        if not gathered:
            keep_every = max(1, min(max_pixels, int(np.prod(shape))) // _KEPT_VALUES)
            gathered = [_Channel(pixels.dtype, keep_every) for _ in range(pixels.shape[0])]
        num_sampled += pixels[0].size
        for channel, plane in zip(gathered, pixels, strict=True):
            num_nonfinite += channel.add(plane)
    if any(channel.count == 0 for channel in gathered):
        raise InputError("no finite pixel in the sample that normalisation is computed from", "numbers other than NaN")
    ranks = (low, 50.0, high)
    found = [channel.percentiles(ranks) for channel in gathered]
    levels = [channel.two_levels() for channel in gathered]
    return VolumeStatistics(
        mean=tuple(c.mean for c in gathered),
        std=tuple(c.std for c in gathered),
        low=tuple(f[0] for f in found),
        high=tuple(f[2] for f in found),
        median=tuple(f[1] for f in found),
        num_sampled=num_sampled,
        num_nonfinite=num_nonfinite,
        dark=tuple(pair[0] for pair in levels),
        bright=tuple(pair[1] for pair in levels),
    )


class _Channel:
    """Sums and, for percentiles, a histogram (integers up to 16 bits) or every n-th value."""

    def __init__(self, dtype: np.dtype[Any], keep_every: int) -> None:
        self.count, self._sum, self._squares = 0, 0.0, 0.0
        self._shift: float | None = None
        self._keep_every = keep_every
        self._values: list[Pixels] = []
        is_small = dtype.kind in "ui" and dtype.itemsize <= 2
        self._low = int(np.iinfo(dtype).min) if is_small else 0
        self._histogram = np.zeros(2 ** (8 * dtype.itemsize), np.int64) if is_small else None

    def add(self, plane: Pixels) -> int:
        """Takes a window in; returns how many of its pixels were not finite."""
        values = plane.ravel()
        bad = 0
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            bad = int(values.size - finite.sum())
            values = values[finite]
        if values.size == 0:
            return bad
        if self._histogram is not None:
            self._histogram += np.bincount(values.astype(np.int64) - self._low, minlength=self._histogram.size)
        else:
            numbers = values.astype(np.float64)
            if self._shift is None:
                self._shift = float(numbers.mean())  # sums about a typical value keep their digits
            numbers -= self._shift
            self._sum += float(numbers.sum())
            self._squares += float((numbers**2).sum())
            self._values.append(values[:: self._keep_every].copy())
        self.count += values.size
        return bad

    @property
    def mean(self) -> float:
        if self._histogram is not None:
            return float((self._grey * self._histogram).sum() / self.count)
        return (self._shift or 0.0) + self._sum / self.count

    @property
    def std(self) -> float:
        if self._histogram is not None:
            return float(np.sqrt((((self._grey - self.mean) ** 2) * self._histogram).sum() / self.count))
        return float(np.sqrt(max(0.0, self._squares / self.count - (self._sum / self.count) ** 2)))

    @property
    def _grey(self) -> npt.NDArray[np.float64]:
        assert self._histogram is not None
        return np.arange(self._histogram.size, dtype=np.float64) + self._low

    def two_levels(self) -> tuple[float, float]:
        """Means of what lies below and above Otsu's threshold (Otsu 1979, the histogram's best split in two)."""
        if self._histogram is not None:
            counts, values = self._histogram, self._grey
        else:
            counts, edges = np.histogram(np.concatenate(self._values).astype(np.float64), _NUM_BINS)
            values = (edges[1:] + edges[:-1]) / 2
        present = counts > 0
        counts, values = counts[present], values[present]
        if len(values) == 1:
            return float(values[0]), float(values[0])
        is_dark = values <= threshold_otsu(hist=(counts, values))  # type: ignore[no-untyped-call]
        return (
            float(np.average(values[is_dark], weights=counts[is_dark])),
            float(np.average(values[~is_dark], weights=counts[~is_dark])),
        )

    def percentiles(self, ranks: tuple[float, ...]) -> tuple[float, ...]:
        if self._histogram is None:
            values = np.concatenate(self._values).astype(np.float64)  # differences may leave a smaller type's range
            return tuple(float(v) for v in np.percentile(values, ranks))
        cumulated = np.cumsum(self._histogram)
        places = [np.searchsorted(cumulated, max(1.0, r / 100 * self.count)) for r in ranks]
        return tuple(float(p + self._low) for p in places)
