"""The U-Net of Ronneberger, Fischer and Brox (2015, arXiv 1505.04597), with a forward pass trimmed to the core."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unetctl.networks.layers import _CONV, ConvChain, Down, Up, crop, he_init
from unetctl.networks.network import Answer, Network, TileFrame
from unetctl.networks.spec import Interval, UNetSpec

__all__ = ["TileFrame", "UNet"]


class UNet(Network):
    """Contracting path, expanding path, skips; see `UNetSpec` for the variations."""

    spec: UNetSpec

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        self.spec = spec
        w, d = spec.widths, spec.dims

        def chain(channels_in: int, channels_out: int) -> ConvChain:
            return ConvChain(channels_in, channels_out, spec.convs_per_level, spec.kernel, spec.norm, spec.padding, d)

        strided = spec.down == "strided"
        self.contracting = nn.ModuleList(
            chain(spec.in_channels if lv == 0 else (w[lv] if strided else w[lv - 1]), w[lv]) for lv in range(len(w))
        )
        self.downs = nn.ModuleList(Down(w[lv], w[lv + 1], spec.down, d) for lv in range(spec.depth))
        self.ups = nn.ModuleList(Up(w[lv + 1], w[lv], spec.up, d) for lv in range(spec.depth))
        self.expanding = nn.ModuleList(chain(2 * w[lv], w[lv]) for lv in range(spec.depth))
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout else nn.Identity()
        self.head = _CONV[d](w[0], spec.out_channels, 1)
        he_init(self)

    def forward(self, x: Tensor, frame: TileFrame | None = None) -> Tensor:
        """Logits of the core.

        Args:
            x: (N, in_channels, *tile), float; the tile's core starts at a multiple of the stride of the volume.
            frame: where the core lies. Without it a valid network takes everything but its margin as core, any other
                takes the whole tile, ended by its own padding; both as in training.

        Returns:
            (N, out_channels, *core) float32 logits.

        Raises:
            ValueError: if the core is off the grid or the halo is smaller than the margin.
        """
        size = tuple(x.shape[2:])
        frame = frame or TileFrame.of_whole(self.spec, size)
        traces = [self.spec.tile_trace(n, c, e) for n, c, e in zip(size, frame.core, frame.ends, strict=True)]
        have = [(-c[0], n - c[0]) for n, c in zip(size, frame.core, strict=True)]

        depth = self.spec.depth
        skips: list[Tensor] = []
        x = crop(x, have, [t.contracting[0].first for t in traces])
        for level in range(depth + 1):
            x = self.contracting[level](x, _steps([t.contracting[level].steps for t in traces]))
            if level >= depth - 1:
                x = self.dropout(x)
            if level == depth:
                break
            skips.append(x)
            x = self.downs[level](
                crop(
                    x,
                    [t.contracting[level].last for t in traces],
                    [(2 * t.contracting[level + 1].first[0], 2 * t.contracting[level + 1].first[1]) for t in traces],
                )
            )
        for level in reversed(range(depth)):
            want = [t.expanding[level].first for t in traces]
            skip = crop(skips.pop(), [t.contracting[level].last for t in traces], want)
            x = self.ups[level](x, [t.lifted[level] for t in traces], want)
            joined = torch.cat((skip, x), 1)
            del skip, x  # the widest moment of the pass: nothing else may be held
            x = self.expanding[level](joined, _steps([t.expanding[level].steps for t in traces]))
            del joined
        head: Tensor = self.head(x.to(self.head.weight.dtype))
        return head.float() if head.dtype != torch.float64 else head

    def answers(self, x: Tensor, frame: TileFrame | None = None) -> tuple[Answer, ...]:
        """The logits alone, in one stage."""
        return (Answer(self(x, frame)),)

    @property
    def heads(self) -> tuple[str, ...]:
        """The only one."""
        return ("head",)

    @property
    def input_dtype(self) -> torch.dtype:
        """That of the features."""
        weight: Tensor = next(self.contracting.parameters())
        return weight.dtype


def _steps(per_axis: Sequence[Sequence[Interval]]) -> list[list[Interval]]:
    """From one list of steps an axis to one list of axes a step."""
    return [list(axes) for axes in zip(*per_axis, strict=True)]
