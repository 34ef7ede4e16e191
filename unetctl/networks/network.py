"""What every kind of network can do: answer a tile, and say which of its layers keep their digits."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unetctl.networks.spec import Interval, NetworkSpec


@dataclass(frozen=True)
class TileFrame:
    """Where the core lies in a tile, per network axis.

    Attributes:
        core: interval of the core in the tile's own pixel coordinates.
        ends: (before, after): True where the tile stops because the volume does and the network is to pad itself
            (border "native"); False where the tile goes on by its halo.
    """

    core: tuple[Interval, ...]
    ends: tuple[tuple[bool, bool], ...]

    @classmethod
    def of_whole(cls, spec: NetworkSpec, size: tuple[int, ...]) -> "TileFrame":
        """The frame of a tile of `size` that comes without one.

        A valid network's core is all but its margin, any other's is the whole tile, ended by its own padding.
        """
        if spec.convolution == "valid":
            core = tuple((p, n - p) for n, p in zip(size, spec.margin, strict=True))
            return cls(core, ((False, False),) * spec.dims)
        return cls(tuple((0, n) for n in size), ((True, True),) * spec.dims)


@dataclass(frozen=True)
class Answer:
    """What a network, or a stage of it, says of the core of a tile.

    Attributes:
        logits: (N, out_channels, *core), float32 or float64.
        image: (N, image_channels, *core), on the input's normalised scale; None of networks that answer none.
        prediction: as `image`, of networks that repair: what they would put everywhere, where `image` is the input itself
            outside the damage that the logits tell; None of all others.
    """

    logits: Tensor
    image: Tensor | None = None
    prediction: Tensor | None = None


class Network(nn.Module, ABC):
    """A network of any kind.

    Attributes:
        spec: its shape.
    """

    spec: NetworkSpec

    @abstractmethod
    def answers(self, x: Tensor, frame: TileFrame | None = None) -> tuple[Answer, ...]:
        """What every stage says of the core, the final one last; networks of one stage give one.

        Args:
            x: (N, in_channels, *tile), float; the tile's core starts at a multiple of the stride of the volume.
            frame: where the core lies; without it see `TileFrame.of_whole`.

        Raises:
            ValueError: if the core is off the grid or the halo is smaller than the margin.
        """

    def final(self, x: Tensor, frame: TileFrame | None = None) -> Answer:
        """What the final stage says; see `answers`."""
        return self.answers(x, frame)[-1]

    def forward(self, x: Tensor, frame: TileFrame | None = None) -> Tensor:
        """(N, out_channels, *core) logits of the final stage; see `answers`."""
        return self.final(x, frame).logits

    @property
    @abstractmethod
    def heads(self) -> tuple[str, ...]:
        """Names of the modules that end in an answer: in short arithmetic these stay float32."""

    @property
    @abstractmethod
    def input_dtype(self) -> torch.dtype:
        """The type in which the input is best given."""
