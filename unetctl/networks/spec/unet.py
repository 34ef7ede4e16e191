"""A U-Net's needs, worked out without torch.

A network states its stride, margin and halo itself; nobody types a halo. All of it follows from one recurrence along
one axis: which pixels of each layer does the core need?

    input     [.......................................]   margin of the spec
    level 0     convs, pool                               coordinates of level l are pixels >> l,
    level 1        convs, pool                            cells start at multiples of 2**l of the volume
    bottom            convs
    level 1        up, join, convs
    level 0     up, join, convs
    core                   [.............]

The same recurrence drives the trimmed forward pass (`unetctl.networks.unet`), which therefore computes at each level
only what the core needs, as a network of valid convolutions does by nature (Ronneberger et al. 2015, section 2 and
figure 2).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

from unetctl.networks.spec.base import Bounds, Interval, NetworkSpec, halo_of, num_pixels

#: Coarse pixels that an upsampling by 2 needs beyond ``floor(start / 2) .. ceil(stop / 2)``, for aligned reasoning
#: see `_upsampled_from`.
_UP_REACH = {"transposed": 0, "bilinear": 1, "bicubic": 2}


@dataclass(frozen=True)
class LevelTrace:
    """Intervals along one axis, in the level's own coordinates: before, between and after the convolutions."""

    steps: tuple[Interval, ...]

    @property
    def first(self) -> Interval:
        """What the first convolution reads."""
        return self.steps[0]

    @property
    def last(self) -> Interval:
        """What the last convolution leaves."""
        return self.steps[-1]


@dataclass(frozen=True)
class AxisTrace:
    """What each level computes along one axis.

    Attributes:
        contracting: per level 0..depth (the last is the bottom).
        expanding: per level 0..depth-1.
        lifted: per level 0..depth-1, the interval of level l+1 that the upsampling to level l reads.
        bounds: the volume's border, pixels of level 0.
    """

    contracting: tuple[LevelTrace, ...]
    expanding: tuple[LevelTrace, ...]
    lifted: tuple[Interval, ...]
    bounds: Bounds


@dataclass(frozen=True)
class UNetSpec:
    """A U-Net (Ronneberger et al. 2015), with the variations of its descendants.

    Attributes:
        in_channels: channels of the input, context slices included.
        out_channels: channels of the logits.
        widths: feature channels per level; ``len(widths) - 1`` is the depth. The paper: (64, 128, 256, 512, 1024).
        dims: 2 or 3 spatial axes.
        kernel: odd size of the convolutions, pixels.
        convs_per_level: convolutions per level and path.
        convolution: "valid" (the paper's) or "same" (the network pads inside when it sees a volume's border).
        padding: "zero" or "reflect": what "same" convolutions pad with.
        border: "mirror" (the volume is continued by mirroring) or "native" (the network's own padding acts at the border).
        up: "transposed" (2x2 up-convolution), "bilinear" or "bicubic" (align_corners is never used).
        down: "max" or "average" pooling, or "strided" 2x2 convolution.
        norm: "none", "batch", "group" or "instance"; the last two look at the whole tile, so no tiling is exact.
        dropout: probability at the end of the contracting path.
    """

    in_channels: int
    out_channels: int
    widths: tuple[int, ...]
    dims: int = 2
    kernel: int = 3
    convs_per_level: int = 2
    convolution: Literal["valid", "same"] = "valid"
    padding: Literal["zero", "reflect"] = "zero"
    border: Literal["mirror", "native"] = "mirror"
    up: Literal["transposed", "bilinear", "bicubic"] = "transposed"
    down: Literal["max", "average", "strided"] = "max"
    norm: Literal["none", "batch", "group", "instance"] = "none"
    dropout: float = 0.0

    kind: ClassVar[str] = "unet"
    title: ClassVar[str] = "U-Net"

    def __post_init__(self) -> None:
        if self.border == "native" and self.convolution == "valid":
            raise ValueError("a network of valid convolutions has no border of its own; use border 'mirror'")
        if self.dims == 3 and self.up == "bicubic":
            raise ValueError("bicubic upsampling exists for 2 axes only; use 'bilinear' or 'transposed' for 3")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "UNetSpec":
        """The spec of a weights file's header.

        Raises:
            TypeError: on unknown or missing keys.
        """
        plain = {k: v for k, v in values.items() if k != "kind"}
        plain["widths"] = tuple(plain["widths"])
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"kind": self.kind, **asdict(self), "widths": list(self.widths)}

    @property
    def image_channels(self) -> int:
        """None: the answer is logits alone."""
        return 0

    @property
    def summary(self) -> str:
        """Sizes in words."""
        return f"features {'-'.join(map(str, self.widths))}, {self.convolution} convolutions"

    @property
    def depth(self) -> int:
        """Number of downsamplings."""
        return len(self.widths) - 1

    @property
    def stride(self) -> tuple[int, ...]:
        """Downsampling factor per network axis: cores start at its multiples."""
        return (2**self.depth,) * self.dims

    @property
    def margin(self) -> tuple[int, ...]:
        """How far a stride-aligned core looks past its edge, pixels per axis and side."""
        core = 4 * self.stride[0]
        start, stop = self.trace(core, (None, None)).contracting[0].first
        return (max(-start, stop - core),) * self.dims

    @property
    def halo(self) -> tuple[int, ...]:
        """Pixels that a tile reads beyond its core, per axis and side: see `halo_of`."""
        return halo_of(self)

    @property
    def inexact_because(self) -> str:
        """Why no tiling of this network can be exact; empty if tilings are exact."""
        if self.norm in ("group", "instance"):
            return f"{self.norm} norm takes its statistics from the tile it sees"
        return ""

    @property
    def is_exact(self) -> bool:
        """True if the result does not depend on the tiling."""
        return not self.inexact_because

    def is_part_of(self, trained: NetworkSpec) -> bool:
        """True if weights of `trained` serve: of the same network alone."""
        return self == trained

    def trace(self, core: int, bounds: Bounds) -> AxisTrace:
        """What each level must compute along one axis for a core ``[0, core)``; cached.

        Args:
            core: size in pixels, a multiple of the stride.
            bounds: where the volume ends, relative to the core's start, multiples of the stride; None where the tile
                has its whole halo.

        Raises:
            ValueError: if a size is off the grid.
        """
        return _trace(self.depth, self.convs_per_level, self.kernel // 2, self.up, core, bounds)

    def tile_trace(self, size: int, core: Interval, ends: tuple[bool, bool]) -> AxisTrace:
        """What each level must compute along one axis of a tile.

        Args:
            size: of the tile, pixels.
            core: ``[start, stop)`` in the tile's own coordinates.
            ends: does the volume end with the tile, before and after it.

        Raises:
            ValueError: if the tile lacks halo, or a size is off the grid.
        """
        bounds = (-core[0] if ends[0] else None, size - core[0] if ends[1] else None)
        trace = self.trace(core[1] - core[0], bounds)
        start, stop = trace.contracting[0].first
        if start < -core[0] or stop > size - core[0]:
            raise ValueError(
                f"a tile of {size} pixels with its core at {core} lacks halo: the core needs "
                f"{-start} pixels before and {stop - (core[1] - core[0])} after it"
            )
        return trace

    def work(self, core: tuple[int, ...], bounds: tuple[Bounds, ...] | None = None) -> int:
        """Multiplications (a multiply and an add count as one) of one tile with this core, trimmed forward."""
        traces = [self.trace(c, b) for c, b in zip(core, bounds or ((None, None),) * self.dims, strict=True)]
        total = 0
        k_volume = self.kernel**self.dims
        for level, width in enumerate(self.widths):
            before = self.in_channels if level == 0 else (width if self.down == "strided" else self.widths[level - 1])
            for j in range(self.convs_per_level):
                pixels = num_pixels([t.contracting[level].steps[j + 1] for t in traces])
                total += pixels * k_volume * (before if j == 0 else width) * width
            if level > 0 and self.down == "strided":
                total += (
                    num_pixels([t.contracting[level].first for t in traces])
                    * 2**self.dims
                    * self.widths[level - 1]
                    * width
                )
        for level in range(self.depth):
            width = self.widths[level]
            lifted = num_pixels([t.lifted[level] for t in traces])
            total += lifted * self.widths[level + 1] * width * (2**self.dims if self.up == "transposed" else 1)
            for j in range(self.convs_per_level):
                pixels = num_pixels([t.expanding[level].steps[j + 1] for t in traces])
                total += pixels * k_volume * (2 * width if j == 0 else width) * width
        return total + num_pixels([t.expanding[0].last if self.depth else t.contracting[0].last for t in traces]) * (
            self.widths[0] * self.out_channels
        )

    def peak_features(self, core: tuple[int, ...]) -> int:
        """Numbers held at once by one tile's trimmed forward pass (an upper bound used to plan memory).

        The widest moment is the first level of the expanding path: the skip, the upsampled features, their
        concatenation and the convolution's output; all kept skips count too.
        """
        traces = [self.trace(c, (None, None)) for c in core]
        skips = sum(num_pixels([t.contracting[lv].last for t in traces]) * self.widths[lv] for lv in range(self.depth))
        first = num_pixels([t.contracting[0].first for t in traces])
        join = num_pixels([t.expanding[0].first for t in traces]) if self.depth else first
        return (
            max(first * (self.in_channels + 2 * self.widths[0]), skips + join * self.widths[0] * 4)
            + first * self.in_channels
        )


def _clip(interval: Interval, bounds: Bounds, level: int) -> Interval:
    lo, hi = bounds
    start, stop = interval
    if lo is not None:
        start = max(start, lo >> level)
    if hi is not None:
        stop = min(stop, hi >> level)
    return start, stop


def _hull(a: Interval, b: Interval) -> Interval:
    return min(a[0], b[0]), max(a[1], b[1])


def upsampled_from(interval: Interval, up: str) -> Interval:
    """The coarse interval that an upsampling by 2 reads to give the fine `interval` (align_corners is False).

    Fine pixel 2k lies at coarse k - 1/4, fine pixel 2k+1 at k + 1/4. A 2x2 up-convolution reads k only; bilinear
    reads k-1, k for the even one and k, k+1 for the odd one; bicubic one pixel more on each side.
    """
    reach = _UP_REACH[up]
    first, last = interval[0], interval[1] - 1
    start = first // 2
    stop = last // 2
    if reach:
        start = start - reach if first % 2 == 0 else start - (reach - 1)
        stop = stop + (reach - 1) if last % 2 == 0 else stop + reach
    return start, stop + 1


@lru_cache(maxsize=4096)
def _trace(depth: int, num_convs: int, radius: int, up: str, core: int, bounds: Bounds) -> AxisTrace:
    stride = 2**depth
    for what, value in (("core", core), ("lower bound", bounds[0]), ("upper bound", bounds[1])):
        if value is not None and value % stride:
            raise ValueError(
                f"{what} {value} is not a multiple of the network stride {stride}; use {-(-value // stride) * stride}"
            )

    def through_convs(out: Interval, level: int) -> LevelTrace:
        steps = [out]
        for _ in range(num_convs):
            a, b = steps[0]
            steps.insert(0, _clip((a - radius, b + radius), bounds, level))
        return LevelTrace(tuple(steps))

    expanding: list[LevelTrace] = []
    lifted: list[Interval] = []
    need: Interval = (0, core)
    for level in range(depth):
        expanding.append(through_convs(need, level))
        need = _clip(upsampled_from(expanding[level].first, up), bounds, level + 1)
        lifted.append(need)
    contracting = [through_convs(need, depth)]
    for level in reversed(range(depth)):
        a, b = contracting[0].first
        contracting.insert(0, through_convs(_hull((2 * a, 2 * b), expanding[level].first), level))
    return AxisTrace(tuple(contracting), tuple(expanding), tuple(lifted), bounds)
