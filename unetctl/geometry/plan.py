"""How a volume is cut: blocks (unit of reading, writing, retry) and tiles (what the network sees).

    volume    |--------------------------------------|
    blocks    |============|============|============|...      a whole number of cores each
    cores     |---|---|---|---|---|---|---|---|---|---|--      start at multiples of the stride
    tile          <-[---]->                                    a core with its halo
                                                   last core overhangs and is mirrored

Everything is computed from an index; nothing is listed, so a plan of a petabyte costs as much as one of a page.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, Literal

from unetctl.geometry.box import Box, Ints


@dataclass(frozen=True)
class Tile:
    """What the network sees at once.

    Attributes:
        read: the core with its halo, volume coordinates; may reach over the border.
        core: the aligned region that the network answers for; may overhang the volume's end.
        kept: the part of the core inside the volume: what is written.
        ends: per axis (before, after): True where the tile stops at the volume's border, for border "native".
    """

    read: Box
    core: Box
    kept: Box
    ends: tuple[tuple[bool, bool], ...]


@dataclass(frozen=True)
class Block:
    """The cores that fill one write unit.

    Attributes:
        index: place in the plan, from 0.
        box: written region, inside the volume.
        read: everything that its tiles read, volume coordinates.
        num_tiles: how many tiles it has.
    """

    index: int
    box: Box
    read: Box
    num_tiles: int


@dataclass(frozen=True)
class TilePlan:
    """The cut of one picture. All tuples have one entry per axis of `axes`, leading axes (t, z of 2-D networks) first.

    Attributes:
        axes: letters, without "c".
        shape: of the volume, pixels.
        stride: downsampling of the network; 1 on axes that it does not see.
        core: multiples of the stride; 1 on axes that the network does not see.
        halo: per side; on an axis of context slices their number on each side.
        cores_per_block: how many cores fill a block.
        border: "mirror", or "native": tiles are clipped at the volume, rounded up to the stride.
    """

    axes: str
    shape: Ints
    stride: Ints
    core: Ints
    halo: Ints
    cores_per_block: Ints
    border: Literal["mirror", "native"] = "mirror"

    def __post_init__(self) -> None:
        for axis, size, core, stride in zip(self.axes, self.shape, self.core, self.stride, strict=True):
            if core < 1 or core % stride:
                raise ValueError(
                    f"core {core} along {axis} is not a multiple of the network stride {stride}; "
                    f"use {max(1, -(-core // stride)) * stride}"
                )
            if size < 1:
                raise ValueError(f"the volume has {size} pixels along {axis}; expected at least 1")

    @property
    def block_shape(self) -> Ints:
        """Pixels of a whole block per axis; the last ones are clipped by the volume."""
        return tuple(c * n for c, n in zip(self.core, self.cores_per_block, strict=True))

    @property
    def tile_shape(self) -> Ints:
        """Pixels of a whole tile per axis."""
        return tuple(c + 2 * h for c, h in zip(self.core, self.halo, strict=True))

    @property
    def grid(self) -> Ints:
        """Blocks per axis."""
        return tuple(-(-s // b) for s, b in zip(self.shape, self.block_shape, strict=True))

    def __len__(self) -> int:
        return prod(self.grid)

    @property
    def num_tiles(self) -> int:
        """Tiles of the whole volume."""
        return prod(-(-s // c) for s, c in zip(self.shape, self.core, strict=True))

    @property
    def num_pixels(self) -> int:
        """Pixels kept: those of the volume."""
        return prod(self.shape)

    @property
    def computed_per_kept(self) -> float:
        """Core pixels computed (overhang included) per pixel kept."""
        return self.num_tiles * prod(self.core) / self.num_pixels

    @property
    def read_per_kept(self) -> float:
        """Tile pixels fed to the network per pixel kept."""
        return self.num_tiles * prod(self.tile_shape) / self.num_pixels

    def block(self, index: int) -> Block:
        """Block number `index`.

        Raises:
            IndexError: if there is no such block.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"block {index} of a plan of {len(self)}")
        place = _unravel(index, self.grid)
        start = tuple(p * b for p, b in zip(place, self.block_shape, strict=True))
        box = Box(start, tuple(min(a + b, s) for a, b, s in zip(start, self.block_shape, self.shape, strict=True)))
        counts = self._cores_in(box)
        aligned = Box(start, tuple(a + n * c for a, n, c in zip(start, counts, self.core, strict=True)))
        read = aligned.expanded(self.halo, self.halo)
        return Block(index, box, self._clipped(read), prod(counts))

    def block_at(self, place: Sequence[int]) -> int:
        """Index of the block that holds a pixel of the volume."""
        index = 0
        for p, b, n in zip(place, self.block_shape, self.grid, strict=True):
            index = index * n + p // b
        return index

    def tile(self, block: Block, i_tile: int) -> Tile:
        """Tile number `i_tile` of `block`."""
        place = _unravel(i_tile, self._cores_in(block.box))
        start = tuple(a + p * c for a, p, c in zip(block.box.start, place, self.core, strict=True))
        core = Box(start, tuple(a + c for a, c in zip(start, self.core, strict=True)))
        kept = core.intersection(Box.whole(self.shape))
        read = core.expanded(self.halo, self.halo)
        if self.border == "mirror":
            return Tile(read, core, kept, ((False, False),) * len(self.shape))
        limit = Box.whole(self.padded_shape)
        core = core.intersection(limit)
        ends = tuple(
            (a <= 0 and s > 1, b >= p and s > 1)
            for (a, b), p, s in zip(read, self.padded_shape, self.stride, strict=True)
        )
        return Tile(self._clipped(read), core, kept, ends)

    def tiles(self, block: Block) -> Iterator[Tile]:
        """The tiles of a block, in order."""
        return (self.tile(block, i) for i in range(block.num_tiles))

    def part(self, i_part: int, num_parts: int) -> range:
        """Block indices of one worker's share: contiguous, all parts together cover the plan exactly once."""
        return range(i_part * len(self) // num_parts, (i_part + 1) * len(self) // num_parts)

    @property
    def padded_shape(self) -> Ints:
        """The volume's shape rounded up to the stride: what a "native" network sees as its whole input."""
        return tuple(-(-n // s) * s for n, s in zip(self.shape, self.stride, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TilePlan":
        """The plan that `to_dict` gave."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that decides the cut."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def __str__(self) -> str:
        def sizes(values: Ints) -> str:
            return "x".join(map(str, values))

        return (
            f"{self.axes} {sizes(self.shape)}: {len(self)} blocks of {sizes(self.block_shape)}, {self.num_tiles} tiles, "
            f"core {sizes(self.core)}, halo {sizes(self.halo)}"
        )

    def _cores_in(self, box: Box) -> Ints:
        return tuple(-(-n // c) for n, c in zip(box.shape, self.core, strict=True))

    def _clipped(self, box: Box) -> Box:
        """Native borders end at the padded volume; context slices and mirrored axes go on."""
        if self.border == "mirror":
            return box
        start, stop = list(box.start), list(box.stop)
        for axis, (stride, limit) in enumerate(zip(self.stride, self.padded_shape, strict=True)):
            if stride > 1:
                start[axis], stop[axis] = max(start[axis], 0), min(stop[axis], limit)
        return Box(tuple(start), tuple(stop))


def _unravel(index: int, grid: Sequence[int]) -> Ints:
    place = []
    for n in reversed(grid):
        index, p = divmod(index, n)
        place.append(p)
    return tuple(reversed(place))


def fitting_core(size: int, stride: int, max_core: int) -> int:
    """The smallest core on the stride's grid that covers `size` pixels with the fewest cores of at most `max_core`.

    >>> fitting_core(600, 16, 512)
    304
    >>> fitting_core(512, 16, 768)
    512
    """
    largest = max(stride, max_core // stride * stride)
    count = -(-size // largest)
    return -(-size // (count * stride)) * stride
