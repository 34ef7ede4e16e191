"""The rule of `unetctl.objects.rule` for volumes larger than memory: block by block, with the same labels.

    label_blocks(volume, rule, block, seeds, grown) -> BlockLabels;  BlockLabels.read(box) -> labels

Two passes over the blocks, in scan order:

    seeds   the connected seeds of each block by itself, numbered through; with the seeds of the neighbours before it, one
            pixel deep, it is noted which are one. Then: which seeds are one piece, their sizes, their first pixels, their order.
    grown   each block with its halo: seeds by their final numbers, growth, holes; the block without its halo is kept, and
            pixels are counted. Then: which objects are large enough, and their final numbers.

The labels are those of the whole volume in one piece, whatever the blocks: growth and holes look no farther than the halo
(`LabelRule.halo_px`), all else adds up. Memory: a block with its halo, about 60 bytes a pixel, and about 60 bytes a seed of
the volume. Limits: fewer than 2**32 - 1 seeds a volume.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from unetctl.errors import ResourceError, Stopped
from unetctl.geometry.box import Box, Ints
from unetctl.objects.rule import LabelRule, Probability, consecutive, fill_holes, first_places, grown, seed_mask

Ids = npt.NDArray[Any]

_MOST_SEEDS = 2**32 - 1


class IdStore(Protocol):
    """Keeps uint32 ids of a volume (z, y, x) while it is worked on."""

    def write(self, box: Box, ids: npt.NDArray[np.uint32]) -> None:
        """Keeps the ids of a block."""
        ...

    def read(self, box: Box) -> npt.NDArray[np.uint32]:
        """Ids of any box that was written."""
        ...


class MemoryIds:
    """An `IdStore` in memory.

    Args:
        shape: (z, y, x).
    """

    def __init__(self, shape: Ints) -> None:
        self._ids = np.zeros(shape, np.uint32)

    def write(self, box: Box, ids: npt.NDArray[np.uint32]) -> None:
        """See `IdStore.write`."""
        self._ids[box.slices()] = ids

    def read(self, box: Box) -> npt.NDArray[np.uint32]:
        """See `IdStore.read`."""
        return self._ids[box.slices()]


@dataclass(frozen=True)
class Volume:
    """What is labelled.

    Attributes:
        shape: (z, y, x).
        read: a box to probabilities (3, z, y, x), 0..255.
    """

    shape: Ints
    read: Callable[[Box], Probability]


@dataclass(frozen=True)
class BlockLabels:
    """A labelled volume.

    Attributes:
        num_objects: the labels are 1 .. so many.
        store: of grown seeds.
        numbers: final label of each of them.
    """

    num_objects: int
    store: IdStore
    numbers: npt.NDArray[np.uint32]

    def read(self, box: Box) -> npt.NDArray[np.uint32]:
        """(z, y, x) labels of any box."""
        return np.asarray(self.numbers[self.store.read(box)])


def blocks_of(shape: Ints, block: Ints) -> Iterator[Box]:
    """Boxes of at most this shape that cover a volume, in scan order."""
    for start in product(*(range(0, n, b) for n, b in zip(shape, block, strict=True))):
        yield Box(start, tuple(min(a + b, n) for a, b, n in zip(start, block, shape, strict=True)))


def num_blocks(shape: Ints, block: Ints) -> int:
    """How many boxes `blocks_of` gives."""
    return int(np.prod([-(-n // b) for n, b in zip(shape, block, strict=True)], dtype=np.int64))


def label_blocks(
    volume: Volume,
    rule: LabelRule,
    block: Ints,
    seeds: IdStore,
    objects: IdStore,
    tick: Callable[[], None] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> BlockLabels:
    """Labels a volume.

    Args:
        volume: of probabilities.
        rule: the rule.
        block: (z, y, x) of a block; decides memory and time, not the labels.
        seeds, objects: empty stores of the volume's shape; `objects` is what the result reads from.
        tick: called after each block of each pass.
        should_stop: asked before each block.

    Raises:
        Stopped: if asked to stop; the stores are of no use then.
        ResourceError: if there are too many seeds to be counted.
    """
    found = _Seeds()
    for box in _until(blocks_of(volume.shape, block), should_stop):
        found.add(box, volume, rule, seeds)
        tick()
    ranks = found.ranks(rule)
    areas = np.zeros(int(ranks.max()) + 1, np.int64)
    for box in _until(blocks_of(volume.shape, block), should_stop):
        window = _window(box, rule.halo_px, volume.shape)
        ids = grown(ranks[seeds.read(window)], volume.read(window), rule)
        fill_holes(ids, rule.max_hole_px)
        kept = ids[box.relative_to(window).slices()].astype(np.uint32)
        objects.write(box, kept)
        numbers, counts = np.unique(kept, return_counts=True)
        areas[numbers] += counts
        tick()
    final = consecutive(areas >= rule.min_area_px, np.arange(len(areas))).astype(np.uint32)
    return BlockLabels(int(final.max()), objects, final)


def _until(boxes: Iterator[Box], should_stop: Callable[[], bool]) -> Iterator[Box]:
    for box in boxes:
        if should_stop():
            raise Stopped("stopped while objects were labelled", "", "run the same command again to go on")
        yield box


def _window(box: Box, halo_px: int, shape: Ints) -> Box:
    """The box with its halo in y and x, as far as the volume goes."""
    start = (box.start[0], *(max(0, a - halo_px) for a in box.start[1:]))
    stop = (box.stop[0], *(min(n, b + halo_px) for b, n in zip(box.stop[1:], shape[1:], strict=True)))
    return Box(start, stop)


class _Seeds:
    """Seeds found so far: counts and first pixels by provisional number, and pairs of numbers that are one piece."""

    def __init__(self) -> None:
        self._num = 0
        self._sizes: list[npt.NDArray[np.int64]] = []
        self._places: list[npt.NDArray[np.int64]] = []
        self._pairs: list[npt.NDArray[np.int64]] = []

    def add(self, box: Box, volume: Volume, rule: LabelRule, store: IdStore) -> None:
        """Finds the seeds of a block; those of the blocks before it are in the store."""
        local, num = ndimage.label(seed_mask(volume.read(box), rule), rule.structure)
        if self._num + num >= _MOST_SEEDS:
            raise ResourceError(
                f"more than {_MOST_SEEDS:,} seeds of objects in one volume", "fewer",
                "give a higher --set objects.seed_threshold, or cut the volume into pieces",
            )  # fmt: skip
        self._sizes.append(np.bincount(local.ravel(), minlength=num + 1)[1:])
        inside = np.unravel_index(first_places(local, num)[1:], local.shape)
        at = tuple(i.astype(np.int64) + a for i, a in zip(inside, box.start, strict=True))
        self._places.append((at[0] * volume.shape[1] + at[1]) * volume.shape[2] + at[2])
        ids = np.where(local > 0, local + np.int64(self._num), 0).astype(np.uint32)
        self._num += num
        store.write(box, ids)
        for axis in range(3):
            if box.start[axis] and (axis or rule.join_planes):
                start, stop = list(box.start), list(box.stop)
                start[axis], stop[axis] = box.start[axis] - 1, box.start[axis]
                before = store.read(Box(tuple(start), tuple(stop)))
                face = ids[tuple(slice(0, 1) if i == axis else slice(None) for i in range(3))]
                both = (before > 0) & (face > 0)
                pairs = np.stack([before[both], face[both]], 1).astype(np.int64)
                if len(pairs):
                    self._pairs.append(np.unique(pairs, axis=0))

    def ranks(self, rule: LabelRule) -> npt.NDArray[np.int64]:
        """(seeds + 1,): number of the piece that each seed is part of, in the order of first pixels; 0 of small ones."""
        if not self._num:
            return np.zeros(1, np.int64)
        pairs = np.concatenate(self._pairs) - 1 if self._pairs else np.empty((0, 2), np.int64)
        links = (np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1]))
        graph = sparse.coo_matrix(links, shape=(self._num, self._num))
        num, piece = csgraph.connected_components(graph, directed=False)
        sizes, first = np.zeros(num + 1, np.int64), np.full(num + 1, np.iinfo(np.int64).max)
        np.add.at(sizes, piece + 1, np.concatenate(self._sizes))
        np.minimum.at(first, piece + 1, np.concatenate(self._places))
        numbers = consecutive(sizes >= rule.min_seed_px, first)
        return np.concatenate([[0], numbers[piece + 1]])
