"""From pixels to the grey scale that a network sees: of a recipe and a volume's statistics."""

from dataclasses import dataclass

import numpy as np

from unetctl.recipe.schema import Normalise
from unetctl.runtime.statistics import VolumeStatistics

#: Normalisations that look at the volume's pixels.
NEEDS_STATISTICS = ("mean_std", "two_levels", "percentile")

#: Brightness of a colour as the eye weighs it (ITU-R BT.601).
LUMINANCE = (0.299, 0.587, 0.114)

_SMALLEST_SPREAD = 1e-6


@dataclass(frozen=True)
class Scaling:
    """``(value - shift) * factor`` per channel brings grey values to the network's scale."""

    shift: tuple[float, ...]
    factor: tuple[float, ...]

    @classmethod
    def of(
        cls, normalise: Normalise, statistics: VolumeStatistics | None, num_channels: int, dtype: np.dtype[np.generic]
    ) -> "Scaling":
        """The scaling that a recipe asks for.

        Args:
            normalise: the recipe's section.
            statistics: of the volume; not needed for "range" and "none".
            num_channels: of the image.
            dtype: of the source's pixels, for "range" without numbers.
        """
        if normalise.method == "none":
            return cls((0.0,) * num_channels, (1.0,) * num_channels)
        if normalise.method == "range":
            low, high = normalise.value_range or range_of(dtype)
            return cls((low,) * num_channels, (1.0 / max(high - low, _SMALLEST_SPREAD),) * num_channels)
        assert statistics is not None
        if normalise.method == "mean_std":
            return cls(statistics.mean, tuple(1.0 / max(s, _SMALLEST_SPREAD) for s in statistics.std))
        if normalise.method == "two_levels":
            least = normalise.least_contrast * _span_of(dtype, statistics)
            apart = [max(b - a, least) for a, b in zip(statistics.dark, statistics.bright, strict=True)]
            # From the paper down: where there is no ink, what is a little darker than the paper must not become ink.
            middle = tuple(b - d / 2 for b, d in zip(statistics.bright, apart, strict=True))
            return cls(middle, tuple(2.0 / d for d in apart))
        spread = [max(b - a, _SMALLEST_SPREAD) for a, b in zip(statistics.low, statistics.high, strict=True)]
        if normalise.ground == "dark":
            turned = [2 * m > a + b for m, a, b in zip(statistics.median, statistics.low, statistics.high, strict=True)]
            ends = zip(turned, statistics.low, statistics.high, strict=True)
            return cls(
                tuple(b if is_turned else a for is_turned, a, b in ends),
                tuple((-1.0 if is_turned else 1.0) / s for is_turned, s in zip(turned, spread, strict=True)),
            )
        return cls(statistics.low, tuple(1.0 / s for s in spread))


def _span_of(dtype: np.dtype[np.generic], statistics: VolumeStatistics) -> float:
    """From black to white. Pixels of 16 bits often hold 10, 12 or 14: as many are meant as the brightest ones need."""
    low, high = range_of(dtype)
    brightest = max((*statistics.bright, *statistics.high), default=high)
    if dtype.kind == "u" and dtype.itemsize > 1 and brightest < high:
        return float(2 ** max(8, int(brightest).bit_length()) - 1)
    return high - low


def range_of(dtype: np.dtype[np.generic]) -> tuple[float, float]:
    """Lowest and highest value of pixels: what integers can hold, 0 to 1 of floats."""
    if dtype.kind in "ui":
        info = np.iinfo(dtype.name)
        return float(info.min), float(info.max)
    return 0.0, 1.0
