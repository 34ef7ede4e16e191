"""Building blocks that know how to trim and pad: torch modules for 2 and 3 spatial axes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from unetctl.networks.spec import Interval

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_UP_CONV = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_INSTANCE_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_MAX_POOL = {2: functional.max_pool2d, 3: functional.max_pool3d}
_MEAN_POOL = {2: functional.avg_pool2d, 3: functional.avg_pool3d}
_LINEAR = {("bilinear", 2): "bilinear", ("bilinear", 3): "trilinear", ("bicubic", 2): "bicubic"}

#: Groups of a group norm: the usual 8, fewer where the channels do not divide.
_NUM_GROUPS = 8


def crop(x: Tensor, have: Sequence[Interval], want: Sequence[Interval]) -> Tensor:
    """The part `want` of ``x`` (N, C, *space), whose spatial extent is `have`, both in level coordinates."""
    for axis, ((a, b), (start, stop)) in enumerate(zip(have, want, strict=True), start=2):
        if (start, stop) != (a, b):
            x = x.narrow(axis, start - a, stop - start)
    return x


def pad(x: Tensor, before: Sequence[int], after: Sequence[int], mode: str) -> Tensor:
    """`x` (N, C, *space) continued by zeros or by mirroring ("reflect") at the volume's border."""
    amounts: list[int] = []
    for p, q in zip(reversed(before), reversed(after), strict=True):
        amounts += [p, q]
    if not any(amounts):
        return x
    return functional.pad(x, amounts, mode="constant" if mode == "zero" else "reflect")


def _norm(kind: str, channels: int, dims: int) -> nn.Module | None:
    if kind == "batch":
        return _BATCH_NORM[dims](channels)
    if kind == "instance":
        return _INSTANCE_NORM[dims](channels, affine=True)
    if kind == "group":
        groups = next(g for g in range(min(_NUM_GROUPS, channels), 0, -1) if channels % g == 0)
        return nn.GroupNorm(groups, channels)
    return None


class ConvUnit(nn.Module):
    """Convolution, norm, ReLU. The convolution itself never pads: the caller trims, or pads at a true border."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, norm: str, dims: int) -> None:
        super().__init__()
        self.conv = _CONV[dims](channels_in, channels_out, kernel, bias=norm != "batch")
        self.norm = _norm(norm, channels_out, dims)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, *space) to (N, C_out, *(space - kernel + 1))."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return functional.relu(x, inplace=True)


class ConvChain(nn.Module):
    """The convolutions of one level."""

    def __init__(
        self, channels_in: int, channels_out: int, num_convs: int, kernel: int, norm: str, padding: str, dims: int
    ) -> None:
        super().__init__()
        self.radius, self.padding = kernel // 2, padding
        self.units = nn.ModuleList(
            ConvUnit(channels_in if j == 0 else channels_out, channels_out, kernel, norm, dims)
            for j in range(num_convs)
        )

    def forward(self, x: Tensor, steps: Sequence[Sequence[Interval]]) -> Tensor:
        """Runs the chain.

        Args:
            x: (N, C_in, *space) whose extent is ``steps[0]``.
            steps: the spatial intervals (one an axis) before, between and after the convolutions; where one reads
                less than its radius on a side, the volume ends there and the network pads.

        Returns:
            (N, C_out, *space) of extent ``steps[-1]``.
        """
        r = self.radius
        for unit, have, want in zip(self.units, steps[:-1], steps[1:], strict=True):
            before = [h[0] - (w[0] - r) for h, w in zip(have, want, strict=True)]
            after = [(w[1] + r) - h[1] for h, w in zip(have, want, strict=True)]
            x = unit(pad(x, before, after, self.padding))
        return x


class Down(nn.Module):
    """Halves the resolution: pooling 2x2, or a convolution 2x2 of stride 2."""

    def __init__(self, channels_in: int, channels_out: int, kind: str, dims: int) -> None:
        super().__init__()
        self.kind, self.dims = kind, dims
        self.conv = _CONV[dims](channels_in, channels_out, 2, stride=2) if kind == "strided" else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *space), even sizes, to (N, C', *space / 2)."""
        if self.conv is not None:
            x = self.conv(x)
            return x
        return _MAX_POOL[self.dims](x, 2) if self.kind == "max" else _MEAN_POOL[self.dims](x, 2)


class Up(nn.Module):
    """Doubles the resolution and goes from one level's width to the next finer one's.

    "transposed" is the paper's 2x2 up-convolution. The interpolating kinds mix the channels first, at the coarse
    resolution: a 1x1 convolution commutes with interpolation and is four times cheaper there.
    """

    def __init__(self, channels_in: int, channels_out: int, kind: str, dims: int) -> None:
        super().__init__()
        self.kind, self.dims = kind, dims
        self.conv: nn.Module = (
            _UP_CONV[dims](channels_in, channels_out, 2, stride=2)
            if kind == "transposed"
            else _CONV[dims](channels_in, channels_out, 1)
        )

    def forward(self, x: Tensor, have: Sequence[Interval], want: Sequence[Interval]) -> Tensor:
        """(N, C_in, *space) of coarse extent `have` to (N, C_out, *space) of fine extent `want`."""
        x = self.conv(x)
        if self.kind != "transposed":
            x = functional.interpolate(x, scale_factor=2, mode=_LINEAR[self.kind, self.dims], align_corners=False)
        return crop(x, [(2 * a, 2 * b) for a, b in have], want)


def he_init(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Normal weights of standard deviation sqrt(2 / fan_in), zero biases (He et al. 2015; the paper's section 3)."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(m.weight, mode="fan_in", nonlinearity="relu", generator=generator)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
