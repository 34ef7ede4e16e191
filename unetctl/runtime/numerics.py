"""From pixels to what the network sees, and from logits to what is kept: on the device, the same for every tile."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from unetctl.errors import UsageError
from unetctl.recipe.schema import Normalise
from unetctl.runtime.statistics import VolumeStatistics

#: Part of every fingerprint: raised whenever a change of ours may alter output bytes for the same plan.
NUMERICS_VERSION = 1

Keep = Literal["probability", "mask", "classes", "labels", "logits", "image", "overlay"]

#: Normalisations that look at the volume's pixels.
NEEDS_STATISTICS = ("mean_std", "two_levels", "percentile")

#: Brightness of a colour as the eye weighs it (ITU-R BT.601).
LUMINANCE = (0.299, 0.587, 0.114)

_SMALLEST_SPREAD = 1e-6
#: Integers of more bytes have more digits than float32, in which images are computed.
_IMAGE_BYTES = 2


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
            low, high = normalise.value_range or _range_of(dtype)
            return cls((low,) * num_channels, (1.0 / max(high - low, _SMALLEST_SPREAD),) * num_channels)
        assert statistics is not None
        if normalise.method == "mean_std":
            return cls(statistics.mean, tuple(1.0 / max(s, _SMALLEST_SPREAD) for s in statistics.std))
        if normalise.method == "two_levels":
            low, high = _range_of(dtype)
            least = normalise.least_contrast * (high - low)
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


def _range_of(dtype: np.dtype[np.generic]) -> tuple[float, float]:
    if dtype.kind in "ui":
        info = np.iinfo(dtype.name)
        return float(info.min), float(info.max)
    return 0.0, 1.0


def output_dtype(keep: Keep, source: "np.dtype[np.generic] | str" = "uint8") -> str:
    """numpy type of what is kept.

    Args:
        keep: see `finish` and `restored`.
        source: type of the input's pixels; an image keeps it if it is an integer of 8 or 16 bits.
    """
    dtype = np.dtype(source)
    if keep == "image" and dtype.kind in "ui" and dtype.itemsize <= _IMAGE_BYTES:
        return dtype.name
    return "float32" if keep in ("logits", "image") else "uint8"


def output_channels(keep: Keep, num_classes: int, image_channels: int = 0) -> int:
    """Channels of what is kept: argmax and masks of one class have one, and none is stored for it."""
    if keep == "image":
        return image_channels
    return 1 if keep == "classes" else num_classes


def restored(image: Tensor, shift: Tensor, factor: Tensor, dtype: str) -> Tensor:
    """A network's image on the grey scale of its input: the scaling undone.

    Args:
        image: (N, C, *space), normalised.
        shift, factor: (N, C, 1, ...), of `Scaling`.
        dtype: numpy name. Integers are rounded, and clipped to what the type can hold; others stay as they are.

    Returns:
        (N, C, *space): uint8 for "uint8", else the type of `image`, with whole numbers for the other integers.
    """
    values = image / factor + shift
    if np.dtype(dtype).kind not in "ui":
        return values
    low, high = _range_of(np.dtype(dtype))
    values = values.round().clamp(low, high)
    return values.to(torch.uint8) if dtype == "uint8" else values


def repaired(
    prediction: Tensor, logits: Tensor, pixels: Tensor, core: Sequence[tuple[int, int]], threshold: float
) -> Tensor:
    """The prediction where there is damage, elsewhere the very pixels that were read.

    The mask cuts sharply: a smooth transition would change pixels that nothing is wrong with, and mix what is left of the
    damage into its rim. So what `--keep mask` tells at the same threshold is all that differs from the input.

    Args:
        prediction: (N, C, *core) on the grey scale of the input, see `restored`.
        logits: (N, 1, *core) of the damage.
        pixels: (N, C, *tile) as read.
        core: of the tile, its own pixel coordinates.
        threshold: probability from which a pixel is damaged.

    Returns:
        (N, C, *core) of the prediction's type.
    """
    inside = pixels[(slice(None), slice(None), *(slice(a, b) for a, b in core))]
    return torch.where(logits.sigmoid() >= threshold, prediction, inside.to(prediction.dtype))


def refuse_unfit_keep(keep: Keep, activation: str, num_classes: int, image_channels: int) -> None:
    """Says so if what shall be kept has no meaning for such a network; a recipe's own setting is checked with the recipe.

    Raises:
        UsageError: for a mask of classes that share their probability: each pixel has one class, and no threshold; for an
            image of a network that answers none.
    """
    if keep in ("mask", "overlay") and activation == "softmax":
        raise UsageError(f"--keep {keep} for a network with {num_classes} classes", "--keep classes or probability")
    if keep == "image" and not image_channels:
        raise UsageError(
            "--keep image for a network that answers no image", "--keep probability, mask, classes or logits"
        )


def finish(logits: Tensor, keep: Keep, activation: str, threshold: float) -> Tensor:
    """What is kept of the logits.

    Args:
        logits: (N, C, *space) float32 or float64.
        keep: "probability": uint8, 255 for certainty; "mask": uint8 0 or 255, per channel from `threshold` on; "classes":
            (N, 1, *space) uint8 numbers of the likeliest class (of one channel: 1 from `threshold` on); "logits": as they are.
            An "overlay" is a mask until it is laid on its page. An "image" does not come from logits: see `restored`. "labels" are made of
            probabilities when all are there.
        activation: "sigmoid", "softmax" or "none".
        threshold: probability from which a pixel belongs to a mask.
    """
    if keep == "logits":
        return logits
    if keep == "classes" and logits.shape[1] > 1:
        return logits.argmax(1, keepdim=True).to(torch.uint8)
    if activation == "sigmoid":
        probability = logits.sigmoid()
    elif activation == "softmax":
        probability = logits.softmax(1)
    else:
        probability = logits.clamp(0, 1)
    if keep in ("probability", "labels"):
        return probability.mul(255).round().to(torch.uint8)
    mask = probability >= threshold
    return mask.to(torch.uint8) if keep == "classes" else mask.to(torch.uint8).mul(255)
