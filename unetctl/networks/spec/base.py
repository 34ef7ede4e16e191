"""What every kind of network says of itself, so that planner, loop, recipe and training need not know the kind."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol, Self

Interval = tuple[int, int]
#: Volume border along one axis in pixels relative to the core's start; None where the tile does not touch it.
Bounds = tuple[int | None, int | None]


class NetworkSpec(Protocol):
    """A network's shape, and what it needs of its input; a frozen value, equal to others of the same shape.

    Attributes:
        kind: name of the family in recipes and weights files.
        title: the family in words ("U-Net").
    """

    kind: ClassVar[str]
    title: ClassVar[str]

    @property
    def in_channels(self) -> int:
        """Channels of the input, context slices included."""
        ...

    @property
    def out_channels(self) -> int:
        """Channels of the logits."""
        ...

    @property
    def image_channels(self) -> int:
        """Channels of the image answered beside the logits, on the scale of the input; 0 if there is none."""
        ...

    @property
    def dims(self) -> int:
        """Spatial axes, 2 or 3."""
        ...

    @property
    def convolution(self) -> Literal["valid", "same"]:
        """See `UNetSpec`."""
        ...

    @property
    def padding(self) -> Literal["zero", "reflect"]:
        """See `UNetSpec`."""
        ...

    @property
    def border(self) -> Literal["mirror", "native"]:
        """See `UNetSpec`."""
        ...

    @property
    def stride(self) -> tuple[int, ...]:
        """Downsampling factor per network axis: cores start at its multiples."""
        ...

    @property
    def margin(self) -> tuple[int, ...]:
        """How far a stride-aligned core looks past its edge, pixels per axis and side."""
        ...

    @property
    def halo(self) -> tuple[int, ...]:
        """Pixels that a tile reads beyond its core, per axis and side."""
        ...

    @property
    def inexact_because(self) -> str:
        """Why no tiling of this network can be exact; empty if tilings are exact."""
        ...

    @property
    def is_exact(self) -> bool:
        """True if the result does not depend on the tiling."""
        ...

    @property
    def summary(self) -> str:
        """Its sizes in words ("features 16-32-64, valid convolutions")."""
        ...

    def work(self, core: tuple[int, ...], bounds: tuple[Bounds, ...] | None = None) -> int:
        """Multiplications (a multiply and an add count as one) of one tile with this core, trimmed forward."""
        ...

    def peak_features(self, core: tuple[int, ...]) -> int:
        """Numbers held at once by one tile's trimmed forward pass: an upper bound, used to plan memory."""
        ...

    def is_part_of(self, trained: "NetworkSpec") -> bool:
        """True if weights of the network `trained` serve this one: the same, or a first part of it that answers too."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON, "kind" among them."""
        ...

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The spec that `to_dict` gave.

        Raises:
            TypeError: on unknown or missing keys.
        """
        ...


def halo_of(spec: NetworkSpec) -> tuple[int, ...]:
    """The margin itself for valid networks (94 at depth 4: the paper's phase), rounded up to the stride otherwise."""
    if spec.convolution == "valid":
        return spec.margin
    return tuple(-(-m // s) * s for m, s in zip(spec.margin, spec.stride, strict=True))


def num_pixels(intervals: list[Interval]) -> int:
    """Pixels of a box given by one interval an axis."""
    product = 1
    for a, b in intervals:
        product *= b - a
    return product
