"""What a sink receives: the output pictures, laid out before the first block is computed."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from unetctl.geometry.box import Box, Ints


@dataclass(frozen=True)
class OutputImage:
    """One output picture.

    Attributes:
        name: of the picture inside its file ("" for the only one).
        shape: sizes in the order of `axes`.
        axes: leading axes, then "c" if the output has channels, then "zyx" or "yx" ("tczyx").
        dtype: numpy name ("uint8").
        shard: box shape in the order of `axes` that one write covers: the plan's block, with all channels.
        chunk: box shape of one compressed unit; divides `shard`.
        spacing_um: pixel size per spatial axis, None where unknown.
        channel_names: one a channel, or empty.
        kind: "image" (averaged in pyramids) or "labels" (classes, masks, object ids: nearest value in pyramids).
        dpi: (y, x) of a page, or None.
    """

    name: str
    shape: Ints
    axes: str
    dtype: str
    shard: Ints
    chunk: Ints
    spacing_um: tuple[float | None, ...] = ()
    channel_names: tuple[str, ...] = ()
    kind: str = "image"
    dpi: tuple[float, float] | None = None


@dataclass(frozen=True)
class StoredKey:
    """One file that a write has put on disk: `key` relative to the store, its size, its SHA-256 (hex).

    `num_bytes` 0 and an empty `sha256` mean that the key must not exist (a block of nothing but fill value).
    """

    key: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class OutputLayout:
    """All pictures of an output, and what its metadata says of its making (deterministic values only)."""

    images: tuple[OutputImage, ...]
    provenance: dict[str, Any] = field(default_factory=dict)


class Sink(Protocol):
    """Takes finished blocks. `write` may be called by several processes at once for different blocks."""

    def write(self, i_image: int, box: Box, pixels: npt.NDArray[np.generic]) -> tuple[StoredKey, ...]:
        """Stores `pixels` (axes of the picture, shape of `box`), durably, and says which keys hold them.

        Raises:
            ValueError: if `box` is not a whole storage unit.
            ResourceError: if the disk is full.
        """
        ...
