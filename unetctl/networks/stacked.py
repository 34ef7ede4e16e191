"""Several U-Nets in a row, each taking away what separates the image from a clean one: see `StackedSpec`."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unetctl.networks.layers import crop
from unetctl.networks.network import Answer, Network, TileFrame
from unetctl.networks.spec import Interval, StackedSpec
from unetctl.networks.unet import UNet


class Stacked(Network):
    """The blocks, and the image that goes through them.

    A block's head answers the degradation first, the logits after. Its weights for the degradation begin at 0: an untrained
    block leaves the image as it is.
    """

    spec: StackedSpec

    def __init__(self, spec: StackedSpec) -> None:
        super().__init__()
        self.spec = spec
        self.blocks = nn.ModuleList(UNet(spec.block) for _ in range(spec.num_blocks))
        for block in self._units:
            nn.init.zeros_(block.head.weight[: spec.in_channels])

    def answers(self, x: Tensor, frame: TileFrame | None = None) -> tuple[Answer, ...]:
        """One answer a block, of the core alone; see `Network.answers`."""
        return self._run(x, frame, keeps_all=True)

    def final(self, x: Tensor, frame: TileFrame | None = None) -> Answer:
        """The last block's answer; the others are not kept."""
        return self._run(x, frame, keeps_all=False)[-1]

    def first(self, num_blocks: int) -> "Stacked":
        """A network of the first blocks, which are shared with this one.

        Raises:
            ValueError: if there are not so many.
        """
        if not 1 <= num_blocks <= self.spec.num_blocks:
            raise ValueError(f"{num_blocks} blocks of {self.spec.num_blocks}")
        if num_blocks == self.spec.num_blocks:
            return self
        with torch.device("meta"):
            shorter = Stacked(StackedSpec(self.spec.block, num_blocks))
        shorter.blocks = nn.ModuleList(self._units[:num_blocks])
        return shorter.train(self.training)

    @property
    def heads(self) -> tuple[str, ...]:
        """One a block."""
        return tuple(f"blocks.{k}.head" for k in range(self.spec.num_blocks))

    @property
    def input_dtype(self) -> torch.dtype:
        """float32 beside short features: the image goes from block to block with all its digits."""
        dtype = self._features_dtype
        return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype

    @property
    def _features_dtype(self) -> torch.dtype:
        return self._units[0].input_dtype

    @property
    def _units(self) -> list[UNet]:
        return [block for block in self.blocks if isinstance(block, UNet)]

    def _run(self, x: Tensor, frame: TileFrame | None, keeps_all: bool) -> tuple[Answer, ...]:
        spec = self.spec
        size = tuple(x.shape[2:])
        frame = frame or TileFrame.of_whole(spec, size)
        bounds = [
            (-c[0] if ends[0] else None, n - c[0] if ends[1] else None)
            for n, c, ends in zip(size, frame.core, frame.ends, strict=True)
        ]
        extents = [spec.extents(c[1] - c[0], b) for c, b in zip(frame.core, bounds, strict=True)]
        have = [(-c[0], n - c[0]) for n, c in zip(size, frame.core, strict=True)]
        final = [axis[-1].core for axis in extents]
        for (start, stop), axis in zip(have, extents, strict=True):
            if axis[0].read[0] < start or axis[0].read[1] > stop:
                raise ValueError(
                    f"a tile of {stop - start} pixels with its core at {(-start, axis[-1].core[1] - start)} lacks halo: "
                    f"the core needs {-axis[0].read[0]} pixels before and {axis[0].read[1] - axis[-1].core[1]} after it"
                )
        dtype = self._features_dtype
        image, found = x, []
        for k, block in enumerate(self._units):
            reads, cores = [axis[k].read for axis in extents], [axis[k].core for axis in extents]
            inner = _frame_within(reads, cores, bounds)
            answer = block(crop(image, have, reads).to(dtype), inner)
            image = crop(image, have, cores) - answer[:, : spec.in_channels]
            have = cores
            if keeps_all or k == spec.num_blocks - 1:
                logits = crop(answer[:, spec.in_channels :], cores, final)
                found.append(Answer(logits, crop(image, cores, final)))
            del answer
        return tuple(found)


def _frame_within(
    reads: Sequence[Interval], cores: Sequence[Interval], bounds: Sequence[tuple[int | None, int | None]]
) -> TileFrame:
    """Of one block: it pads where what it reads ends with the volume, which need not be where the tile ends."""
    core = tuple((c[0] - r[0], c[1] - r[0]) for r, c in zip(reads, cores, strict=True))
    return TileFrame(core, tuple((r[0] == b[0], r[1] == b[1]) for r, b in zip(reads, bounds, strict=True)))
