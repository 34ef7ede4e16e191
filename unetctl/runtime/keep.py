"""What is kept of a network's answer: its kinds, their types and channels. Known to plans, which are read without torch."""

from typing import Literal

import numpy as np

from unetctl.errors import UsageError

#: Part of every fingerprint: raised whenever a change of ours may alter output bytes for the same plan.
NUMERICS_VERSION = 1

Keep = Literal["probability", "mask", "classes", "labels", "logits", "image", "overlay"]

#: Integers of more bytes have more digits than float32, in which images are computed.
_IMAGE_BYTES = 2


def output_dtype(keep: Keep, source: "np.dtype[np.generic] | str" = "uint8") -> str:
    """numpy type of what is kept.

    Args:
        keep: see `unetctl.runtime.numerics.finish` and `restored`.
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
