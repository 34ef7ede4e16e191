"""From what a network answers to what is kept: on the device, the same for every tile."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unetctl.runtime.grey_scale import range_of
from unetctl.runtime.keep import Keep


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
    low, high = range_of(np.dtype(dtype))
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
