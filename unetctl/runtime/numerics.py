"""From pixels to what the network sees, and from logits to what is kept: on the device, the same for every tile."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from unetctl.recipe.schema import Normalise
from unetctl.runtime.statistics import VolumeStatistics

#: Part of every fingerprint: raised whenever a change of ours may alter output bytes for the same plan.
NUMERICS_VERSION = 1

Keep = Literal["probability", "mask", "classes", "logits"]

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
            low, high = normalise.value_range or _range_of(dtype)
            return cls((low,) * num_channels, (1.0 / max(high - low, _SMALLEST_SPREAD),) * num_channels)
        assert statistics is not None
        if normalise.method == "mean_std":
            return cls(statistics.mean, tuple(1.0 / max(s, _SMALLEST_SPREAD) for s in statistics.std))
        spread = [max(b - a, _SMALLEST_SPREAD) for a, b in zip(statistics.low, statistics.high, strict=True)]
        return cls(statistics.low, tuple(1.0 / s for s in spread))


def _range_of(dtype: np.dtype[np.generic]) -> tuple[float, float]:
    if dtype.kind in "ui":
        info = np.iinfo(dtype.name)
        return float(info.min), float(info.max)
    return 0.0, 1.0


def output_dtype(keep: Keep) -> str:
    """numpy type of what is kept."""
    return "float32" if keep == "logits" else "uint8"


def output_channels(keep: Keep, num_classes: int) -> int:
    """Channels of what is kept: argmax and masks of one class have one, and none is stored for it."""
    return 1 if keep == "classes" else num_classes


def finish(logits: Tensor, keep: Keep, activation: str, threshold: float) -> Tensor:
    """What is kept of the logits.

    Args:
        logits: (N, C, *space) float32 or float64.
        keep: "probability": uint8, 255 for certainty; "mask": uint8 0 or 255, per channel from `threshold` on; "classes":
            (N, 1, *space) uint8 numbers of the likeliest class (of one channel: 1 from `threshold` on); "logits": as they are.
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
    if keep == "probability":
        return probability.mul(255).round().to(torch.uint8)
    mask = probability >= threshold
    return mask.to(torch.uint8) if keep == "classes" else mask.to(torch.uint8).mul(255)
