"""Half-open integer regions of a volume."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Ints = tuple[int, ...]


@dataclass(frozen=True)
class Box:
    """Region ``[start, stop)`` per axis, in pixels, any number of axes (the last ones are y, x).

    Coordinates may be negative or past a volume's end: such a box reaches over the border and is mirrored.
    """

    start: Ints
    stop: Ints

    def __post_init__(self) -> None:
        if len(self.start) != len(self.stop):
            raise ValueError(f"box start {self.start} and stop {self.stop} differ in their number of axes")
        if any(b < a for a, b in zip(self.start, self.stop, strict=True)):
            raise ValueError(f"box stop {self.stop} lies before its start {self.start}")

    @classmethod
    def whole(cls, shape: Sequence[int]) -> "Box":
        """The box of a whole volume of this shape."""
        return cls((0,) * len(shape), tuple(shape))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.start)

    @property
    def shape(self) -> Ints:
        """Size per axis in pixels."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def num_pixels(self) -> int:
        """Product of the sizes."""
        product = 1
        for size in self.shape:
            product *= size
        return product

    @property
    def is_empty(self) -> bool:
        """True if any axis has size 0."""
        return self.num_pixels == 0

    def expanded(self, before: Sequence[int], after: Sequence[int]) -> "Box":
        """Grown by `before` at the start and `after` at the end of each axis (negative numbers shrink)."""
        return Box(
            tuple(a - p for a, p in zip(self.start, before, strict=True)),
            tuple(b + p for b, p in zip(self.stop, after, strict=True)),
        )

    def shifted(self, offset: Sequence[int]) -> "Box":
        """Moved by `offset` pixels per axis."""
        return Box(
            tuple(a + o for a, o in zip(self.start, offset, strict=True)),
            tuple(b + o for b, o in zip(self.stop, offset, strict=True)),
        )

    def relative_to(self, other: "Box") -> "Box":
        """The same region in coordinates whose origin is `other.start`."""
        return self.shifted(tuple(-o for o in other.start))

    def intersection(self, other: "Box") -> "Box":
        """The common region; empty (zero-sized at the clipped place) where they do not meet."""
        start = tuple(max(a, b) for a, b in zip(self.start, other.start, strict=True))
        stop = tuple(min(a, b) for a, b in zip(self.stop, other.stop, strict=True))
        return Box(start, tuple(max(a, b) for a, b in zip(start, stop, strict=True)))

    def covers(self, other: "Box") -> bool:
        """True if `other` lies inside this box."""
        return all(a <= c for a, c in zip(self.start, other.start, strict=True)) and all(
            d <= b for b, d in zip(self.stop, other.stop, strict=True)
        )

    def slices(self) -> tuple[slice, ...]:
        """Index of this region in an array whose origin is coordinate 0."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self.start, self.stop, strict=True))

    def __str__(self) -> str:
        return "[" + ", ".join(f"{a}:{b}" for a, b in self) + "]"
