"""Several U-Nets in a row, each taking away what separates the image from a clean one.

The idea of DeepOtsu (He and Schomaker 2019, arXiv 1901.06081, section 3): a block does not answer the clean page, but the
degradation, the next one sees the page without it, and so on. All blocks have one shape and weights of their own.

    e_0 = page
    block k   sees e_(k-1), C channels; answers the degradation d_k, C channels, and logits
    e_k     = e_(k-1) - d_k
    answer    the last block's logits; the image e_K

Margins add up. For the core of block k, block k needs e_(k-1) on an interval; rounded outward to the stride's grid, this
is the core of block k-1:

    page      [.............................................]   margin of the stack
    block 1         [ core of block 1                 ]
    e_1               [ what block 2 reads          ]           rounded outward to the grid
    block 2                  [ core of the tile ]
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

from unetctl.networks.spec.base import Bounds, Interval, NetworkSpec, halo_of, num_pixels
from unetctl.networks.spec.unet import UNetSpec


@dataclass(frozen=True)
class BlockExtent:
    """What one block of a stack reads and answers along one axis, pixels relative to the tile's core.

    Attributes:
        read: of the image so far.
        core: on the stride's grid.
    """

    read: Interval
    core: Interval


@dataclass(frozen=True)
class StackedSpec:
    """A row of U-Nets of one shape.

    Attributes:
        block: of each; its input is the image (C channels), its output the degradation (C channels) and the logits.
        num_blocks: how many.
    """

    block: UNetSpec
    num_blocks: int

    kind: ClassVar[str] = "stacked"
    title: ClassVar[str] = "row of U-Nets"

    def __post_init__(self) -> None:
        if self.num_blocks < 1:
            raise ValueError(f"a row of {self.num_blocks} blocks; it has at least 1")
        if self.out_channels < 1:
            raise ValueError(
                f"blocks with {self.block.in_channels} channels in and {self.block.out_channels} out; expected the image's "
                "and at least one of logits out"
            )

    @classmethod
    def of(cls, in_channels: int, out_channels: int, num_blocks: int, **block: Any) -> "StackedSpec":
        """A row for images of `in_channels`; `block` are the settings of `UNetSpec` without its channels."""
        return cls(UNetSpec(in_channels, in_channels + out_channels, **block), num_blocks)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "StackedSpec":
        """The spec of a weights file's header.

        Raises:
            TypeError: on unknown or missing keys.
        """
        plain = {k: v for k, v in values.items() if k != "kind"}
        plain["block"] = UNetSpec.from_dict(plain["block"])
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        block = {**asdict(self.block), "widths": list(self.block.widths)}
        return {"kind": self.kind, "num_blocks": self.num_blocks, "block": block}

    @property
    def in_channels(self) -> int:
        """Channels of the image."""
        return self.block.in_channels

    @property
    def out_channels(self) -> int:
        """Channels of the logits."""
        return self.block.out_channels - self.block.in_channels

    @property
    def image_channels(self) -> int:
        """Channels of the enhanced image: those of the input."""
        return self.block.in_channels

    @property
    def dims(self) -> int:
        """Spatial axes."""
        return self.block.dims

    @property
    def convolution(self) -> Literal["valid", "same"]:
        """Of every block."""
        return self.block.convolution

    @property
    def padding(self) -> Literal["zero", "reflect"]:
        """Of every block."""
        return self.block.padding

    @property
    def border(self) -> Literal["mirror", "native"]:
        """Of every block; the image so far ends where the volume does."""
        return self.block.border

    @property
    def summary(self) -> str:
        """Sizes in words."""
        return f"{self.num_blocks} block{'s' * (self.num_blocks != 1)}, {self.block.summary}"

    @property
    def stride(self) -> tuple[int, ...]:
        """Downsampling factor per network axis: that of a block."""
        return self.block.stride

    @property
    def margin(self) -> tuple[int, ...]:
        """How far a stride-aligned core looks past its edge through all blocks, pixels per axis and side."""
        core = 4 * self.stride[0]
        start, stop = self.extents(core, (None, None))[0].read
        return (max(-start, stop - core),) * self.dims

    @property
    def halo(self) -> tuple[int, ...]:
        """Pixels that a tile reads beyond its core, per axis and side: see `halo_of`."""
        return halo_of(self)

    @property
    def inexact_because(self) -> str:
        """Why no tiling of this network can be exact; empty if tilings are exact."""
        return self.block.inexact_because

    @property
    def is_exact(self) -> bool:
        """True if the result does not depend on the tiling."""
        return self.block.is_exact

    def is_part_of(self, trained: NetworkSpec) -> bool:
        """True if weights of `trained` serve: a row of such blocks, as long or longer. Every block answers."""
        return (
            isinstance(trained, StackedSpec) and self.block == trained.block and self.num_blocks <= trained.num_blocks
        )

    def extents(self, core: int, bounds: Bounds) -> tuple[BlockExtent, ...]:
        """What each block reads and answers along one axis for a core ``[0, core)``, the first block first; cached.

        Args:
            core, bounds: as `UNetSpec.trace` takes them.

        Raises:
            ValueError: if a size is off the grid.
        """
        return _extents(self.block, self.num_blocks, core, bounds)

    def work(self, core: tuple[int, ...], bounds: tuple[Bounds, ...] | None = None) -> int:
        """Multiplications (a multiply and an add count as one) of one tile with this core, trimmed forward."""
        bounds = bounds or ((None, None),) * self.dims
        extents = [self.extents(c, b) for c, b in zip(core, bounds, strict=True)]
        total = 0
        for axes in zip(*extents, strict=True):
            within = tuple(_shifted(b, a.core[0]) for b, a in zip(bounds, axes, strict=True))
            total += self.block.work(tuple(a.core[1] - a.core[0] for a in axes), within)
        return total

    def peak_features(self, core: tuple[int, ...]) -> int:
        """Numbers held at once by one tile's trimmed forward pass (an upper bound used to plan memory).

        The largest of the blocks', beside the image so far as the block before has left it.
        """
        extents = [self.extents(c, (None, None)) for c in core]
        peak, left = 0, num_pixels([axis[0].read for axis in extents])
        for axes in zip(*extents, strict=True):
            cores = [a.core for a in axes]
            peak = max(peak, self.block.peak_features(tuple(b - a for a, b in cores)) + left * self.in_channels)
            left = num_pixels(cores)
        return peak


def _shifted(bounds: Bounds, start: int) -> Bounds:
    """Bounds relative to another place of the same axis."""
    lo, hi = bounds
    return None if lo is None else lo - start, None if hi is None else hi - start


@lru_cache(maxsize=4096)
def _extents(block: UNetSpec, num_blocks: int, core: int, bounds: Bounds) -> tuple[BlockExtent, ...]:
    stride = block.stride[0]
    found: list[BlockExtent] = []
    need: Interval = (0, core)
    for _ in range(num_blocks):
        start, stop = need
        a, b = block.trace(stop - start, _shifted(bounds, start)).contracting[0].first
        read = (start + a, start + b)
        found.insert(0, BlockExtent(read, need))
        # Bounds lie on the grid: what ends at the volume's border still does when it is rounded outward.
        need = (read[0] // stride * stride, -(-read[1] // stride) * stride)
    return tuple(found)
