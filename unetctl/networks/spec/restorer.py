"""A network that finds damage in a picture and repairs it, both from the damaged picture alone; worked out without torch.

One encoder, two decoders of the same shape: one answers where the damage is, the other what was there. A level, on each of
the three paths, is a row of residual sub-blocks of two convolutions each, which keep the resolution:

    picture -- stem -- level 0 ---------- skips to both ---------- level 0 -- mask     (1 logit)
                         level 1 ------------------------------- level 1
                           bottom ---------------------------- up                      two decoders
                         level 1 ------------------------------- level 1
                       level 0 ---------------------------------- level 0 -- picture  (gain and offsets)

What each layer must compute along an axis is what a U-Net of twice as many convolutions a level as there are sub-blocks
must: stem, joins and heads are 1x1, and the decoders need the same.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from unetctl.networks.spec.base import Bounds, Interval, NetworkSpec, halo_of, num_pixels
from unetctl.networks.spec.unet import AxisTrace, UNetSpec

#: Pixels at the edge of the damage on either side that count for neither: the mask may be wrong by so many.
EDGE_GAP_PX = 1
#: Width of the rings inside and outside of the gap, from which an overlay's opacity follows. Wider ones do worse: pixels
#: that lie farther apart have less to do with each other.
RING_PX = 2
#: Scales that continue one ring onto the other: they reach over both and what lies between.
RING_SCALES = 2


def reach_of(scales: int) -> int:
    """How far so many blurs see, each twice as wide as the last, pixels."""
    return 2 * ((1 << scales) - 1)


@dataclass(frozen=True)
class RestorerSpec:
    """An encoder with two decoders; see the module.

    Attributes:
        in_channels: channels of the picture, and of the repaired one.
        widths: feature channels per level of the encoder and the picture's decoder; ``len(widths) - 1`` is the depth. The
            mask's decoder has half of them: to see where a shape ends takes less than to continue what lies behind it.
        sub_blocks: residual sub-blocks per level and path.
        dims: 2 or 3 spatial axes.
        kernel: odd size of the convolutions, pixels.
        padding: "reflect" or "zero": what convolutions pad with where they see the volume's border.
        border: "native" (that padding acts at the border) or "mirror" (the volume is continued by mirroring).
        up: "bilinear" or "bicubic" (align_corners is never used), or "transposed" (2x2 up-convolution).
        down: "average" or "max" pooling, or "strided" 2x2 convolution.
        norm: "none", "batch", "group" or "instance", of the first convolution of each sub-block; the last two look at the
            whole tile, so no tiling is exact.
        fill_scales: 0, or by how many blurs, each twice as wide as the last, what lies around the damage is continued into it;
            see `unetctl.networks.surroundings`. The mask is computed so much farther than the core.
        unveil: by as many, what shines through the damage is brought to the mean and contrast of what lies around it, and
            the picture's decoder says how much of that counts.
        differences: the encoder's first sub-block looks at fixed differences of neighbouring pixels, on a logarithmic scale.
    """

    in_channels: int
    widths: tuple[int, ...]
    sub_blocks: int = 3
    dims: int = 2
    kernel: int = 3
    padding: Literal["zero", "reflect"] = "reflect"
    border: Literal["mirror", "native"] = "native"
    up: Literal["transposed", "bilinear", "bicubic"] = "bilinear"
    down: Literal["max", "average", "strided"] = "average"
    norm: Literal["none", "batch", "group", "instance"] = "none"
    differences: bool = False
    fill_scales: int = 0
    unveil: bool = False

    kind: ClassVar[str] = "restorer"
    title: ClassVar[str] = "restorer (one encoder, two decoders)"

    def __post_init__(self) -> None:
        if self.sub_blocks < 1:
            raise ValueError(f"levels of {self.sub_blocks} sub-blocks; they have at least 1")
        if self.fill_scales < 0:
            raise ValueError(f"{self.fill_scales} scales to continue the surroundings by; it is at least 0")
        if self.unveil and not self.fill_scales:
            raise ValueError("unveil without scales to do it by; fill_scales is at least 1 then")
        if self.differences and self.kernel < 3:
            raise ValueError(f"differences of neighbours with a kernel of {self.kernel}; it has at least 3 pixels")
        if self.in_channels < 1:
            raise ValueError(f"a picture of {self.in_channels} channels; it has at least 1")
        _ = self.levels  # refuses what no U-Net can be

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RestorerSpec":
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
    def levels(self) -> UNetSpec:
        """The U-Net that needs the same of its input."""
        return UNetSpec(
            self.in_channels, 1, self.widths, self.dims, self.kernel, 2 * self.sub_blocks, "same", self.padding,
            self.border, self.up, self.down, self.norm,
        )  # fmt: skip

    @property
    def out_channels(self) -> int:
        """Of the logits: the damage."""
        return 1

    @property
    def image_channels(self) -> int:
        """Of the repaired picture: those of the input."""
        return self.in_channels

    @property
    def mask_widths(self) -> tuple[int, ...]:
        """Feature channels per level of the mask's decoder, top first, without the bottom."""
        return tuple(max(1, width // 2) for width in self.widths[:-1])

    @property
    def convolution(self) -> Literal["valid", "same"]:
        """Always "same": the network pads inside."""
        return "same"

    @property
    def summary(self) -> str:
        """Sizes in words."""
        return (
            f"features {'-'.join(map(str, self.widths))}, {self.sub_blocks} residual "
            f"sub-block{'s' * (self.sub_blocks != 1)} a level"
            + ", sees differences" * self.differences
            + ", unveils" * self.unveil
        )

    @property
    def depth(self) -> int:
        """Number of downsamplings."""
        return len(self.widths) - 1

    @property
    def stride(self) -> tuple[int, ...]:
        """Downsampling factor per network axis: cores start at its multiples."""
        return self.levels.stride

    @property
    def margin(self) -> tuple[int, ...]:
        """How far a stride-aligned core looks past its edge, pixels per axis and side."""
        return tuple(m + self.reach for m in self.levels.margin)

    @property
    def reach(self) -> int:
        """How far beyond the core the mask is needed to fill the damage, pixels; a multiple of the stride."""
        stride = self.levels.stride[0]
        needed = 0
        if self.fill_scales:  # and 1 by which the damage is widened
            ring = max(reach_of(RING_SCALES) + EDGE_GAP_PX, EDGE_GAP_PX + RING_PX)
            needed = reach_of(self.fill_scales) + (ring if self.unveil else 1)
        return -(-needed // stride) * stride

    def widened(self, size: int, core: Interval, ends: tuple[bool, bool]) -> Interval:
        """`core` of a tile of `size` pixels with `reach` on both sides, as far as the volume goes; see `UNetSpec.tile_trace`."""
        start, stop = core[0] - self.reach, core[1] + self.reach
        return (max(0, start) if ends[0] else start, min(size, stop) if ends[1] else stop)

    @property
    def halo(self) -> tuple[int, ...]:
        """Pixels that a tile reads beyond its core, per axis and side: see `halo_of`."""
        return halo_of(self)

    @property
    def inexact_because(self) -> str:
        """Why no tiling of this network can be exact; empty if tilings are exact."""
        return self.levels.inexact_because

    @property
    def is_exact(self) -> bool:
        """True if the result does not depend on the tiling."""
        return not self.inexact_because

    def is_part_of(self, trained: NetworkSpec) -> bool:
        """True if weights of `trained` serve: of the same network alone."""
        return self == trained

    def trace(self, core: int, bounds: Bounds) -> AxisTrace:
        """What each level must compute along one axis for a core and `reach` around it; see `UNetSpec.trace`.

        Both decoders compute the expanding part. Intervals are relative to where the widened core begins.
        """
        before = self.reach if bounds[0] is None else min(self.reach, -bounds[0])
        after = self.reach if bounds[1] is None else min(self.reach, bounds[1] - core)
        moved = tuple(None if b is None else b + before for b in bounds)
        return self.levels.trace(before + core + after, (moved[0], moved[1]))

    def work(self, core: tuple[int, ...], bounds: tuple[Bounds, ...] | None = None) -> int:
        """Multiplications (a multiply and an add count as one) of one tile with this core, trimmed forward."""
        traces = [self.trace(c, b) for c, b in zip(core, bounds or ((None, None),) * self.dims, strict=True)]
        taps, resampled = self.kernel**self.dims, 2**self.dims
        w = self.widths
        total = num_pixels([t.contracting[0].first for t in traces]) * self.in_channels * w[0]
        for level, width in enumerate(w):
            steps = zip(*(t.contracting[level].steps[1:] for t in traces), strict=True)
            pixels = [num_pixels(list(axes)) for axes in steps]
            if self.differences and level == 0:
                total += pixels[1] * taps * (self.dims + 1) * self.in_channels * width
                pixels = pixels[2:]
            total += sum(pixels) * taps * width**2
            if level:
                entered = num_pixels([t.contracting[level].first for t in traces])
                total += entered * w[level - 1] * width * (resampled if self.down == "strided" else 1)
        for widths in ((*w[:-1], w[-1]), (*self.mask_widths, w[-1])):
            for level in range(self.depth):
                lifted = num_pixels([t.lifted[level] for t in traces])
                total += lifted * widths[level + 1] * widths[level] * (resampled if self.up == "transposed" else 1)
                total += num_pixels([t.expanding[level].first for t in traces]) * w[level] * widths[level]
                steps = zip(*(t.expanding[level].steps[1:] for t in traces), strict=True)
                total += sum(num_pixels(list(axes)) for axes in steps) * taps * widths[level] ** 2
        heads = w[0] * (self.in_channels + 1 + self.unveil) + (self.mask_widths[0] if self.depth else w[0])
        wide = num_pixels([t.expanding[0].last if self.depth else t.contracting[0].last for t in traces])
        blurs = self.fill_scales * (self.in_channels + 1)
        if self.unveil:  # means of two pictures and their squares, and each ring continued
            blurs += self.fill_scales * (2 * self.in_channels + 3) + 4 * (self.in_channels + 1)
        filling = self.dims * 5 * blurs
        return total + wide * (heads + filling)

    def peak_features(self, core: tuple[int, ...]) -> int:
        """Numbers held at once by one tile's trimmed forward pass (an upper bound used to plan memory).

        The decoders run one after the other: the picture's first level holds the input, all skips, what came up, a
        sub-block's input, its features between the convolutions and their padded copy.
        """
        traces = [self.trace(c, (None, None)) for c in core]
        first = num_pixels([t.contracting[0].first for t in traces])
        join = num_pixels([t.expanding[0].first for t in traces]) if self.depth else first
        skips = sum(num_pixels([t.contracting[lv].last for t in traces]) * n for lv, n in enumerate(self.widths))
        filling = 8 * (self.in_channels + 1) if self.fill_scales else 0
        if self.unveil:
            filling += 8 * (2 * self.in_channels + 3)
        levels = max(first, join) * max(4 * self.widths[0], filling)
        wide = num_pixels([t.expanding[0].last if self.depth else t.contracting[0].last for t in traces])
        return first * self.in_channels * 2 + skips + levels + wide * (self.in_channels + 1)
