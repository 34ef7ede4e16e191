"""The rule by which class probabilities become labels, on arrays in memory.

    LabelRule.of(recipe.objects) -> LabelRule
    label_array(probability (3, z, y, x) or (3, y, x), rule) -> (z, y, x) or (y, x) uint32 labels

1. Seeds are the face-connected pieces of pixels whose probability of the interior reaches a threshold; those of too few
   pixels start no object.
2. Seeds grow into the foreground (probability of interior or border together), within their plane, step by step: first to
   the neighbours above, below and beside, then to the diagonal ones too, and so on alternately, at most `grow_px` steps. A
   pixel that several seeds reach in the same step goes to the neighbour that is surest to be interior, among equals to the
   first in a fixed order. This is a watershed whose basins fill at one speed; unlike one that floods by grey value, what a
   pixel becomes depends on nothing farther away than `grow_px` in y and in x.
3. Holes in a plane that one single object surrounds are filled up to a certain area.
4. Objects of too few pixels are left out. The others are numbered from 1 in the order of their seeds' first pixels,
   plane by plane, row by row.

All four are local but for connectedness and counts, which add up over blocks: `unetctl.objects.blocks` gives the very
same labels for volumes that do not fit into memory.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from unetctl.recipe.objects_section import Objects

Probability = npt.NDArray[np.uint8]
Ids = npt.NDArray[Any]

#: Channels of the probabilities.
BACKGROUND, INTERIOR = 0, 1
#: Probability 1 as it is kept.
_FULL = 255
#: Steps (y, x) to neighbours, in the order that settles what is equal otherwise; the diagonal ones last.
_STEPS = ((-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))
_NUM_STRAIGHT = 4


@dataclass(frozen=True)
class LabelRule:
    """The rule's numbers.

    Attributes:
        seed_level: least probability of the interior in a seed, 0..255.
        foreground_level: least probability of interior and border together, 0..255.
        grow_px: steps that seeds grow.
        min_seed_px, min_area_px: least pixels of a seed, of an object.
        max_hole_px: most pixels of a hole that is filled.
        join_planes: True if objects go on from plane to plane.
    """

    seed_level: int
    foreground_level: int
    grow_px: int
    min_seed_px: int
    min_area_px: int
    max_hole_px: int
    join_planes: bool

    @classmethod
    def of(cls, objects: Objects) -> "LabelRule":
        """The rule that a recipe asks for."""
        return cls(
            math.ceil(objects.seed_threshold * _FULL),
            math.ceil(objects.foreground_threshold * _FULL),
            objects.grow_px,
            objects.min_seed_px,
            objects.min_area_px,
            objects.max_hole_px,
            objects.join_planes,
        )

    @property
    def halo_px(self) -> int:
        """How far along y and x a label may depend on probabilities, beside connectedness and counts."""
        return self.grow_px + (self.max_hole_px + 1 if self.max_hole_px else 0)

    @property
    def structure(self) -> npt.NDArray[np.bool_]:
        """(3, 3, 3): which neighbours (z, y, x) are connected."""
        structure: npt.NDArray[np.bool_] = ndimage.generate_binary_structure(3, 1)
        if not self.join_planes:
            structure[0] = structure[2] = False
        return structure


def label_array(probability: Probability, rule: LabelRule) -> npt.NDArray[np.uint32]:
    """Labels of a whole plane or volume.

    Args:
        probability: (3, y, x) or (3, z, y, x) of background, interior and border, 0..255.
        rule: see the top of this file.

    Returns:
        (y, x) or (z, y, x): 0 background, objects 1 .. n.

    Raises:
        ValueError: if the array has another shape or type.
    """
    check_probability(probability)
    planes = probability if probability.ndim == 4 else probability[:, None]
    seeds, num = ndimage.label(seed_mask(planes, rule), rule.structure)
    sizes = np.bincount(seeds.ravel(), minlength=num + 1)
    numbers = consecutive(sizes >= rule.min_seed_px, first_places(seeds, num))
    ids = grown(numbers[seeds], planes, rule)
    fill_holes(ids, rule.max_hole_px)
    areas = np.bincount(ids.ravel(), minlength=int(numbers.max()) + 1)
    final = consecutive(areas >= rule.min_area_px, np.arange(len(areas)))[ids].astype(np.uint32)
    return np.asarray(final if probability.ndim == 4 else final[0])


def check_probability(probability: Probability) -> None:
    """Passes arrays that hold probabilities of three classes.

    Raises:
        ValueError: for any other.
    """
    if probability.ndim not in (3, 4) or probability.shape[0] != 3 or probability.dtype != np.uint8:
        raise ValueError(
            f"probabilities of shape {probability.shape} and {probability.dtype}: expected (3, y, x) or (3, z, y, x) uint8"
        )


def probability_of(logits: npt.NDArray[np.float32]) -> Probability:
    """Softmax of logits (3, ...) as `predict` keeps it: 0..255."""
    shifted = np.exp(logits - logits.max(0, keepdims=True))
    return np.asarray(np.rint(shifted / shifted.sum(0, keepdims=True) * _FULL), np.uint8)


def seed_mask(planes: Probability, rule: LabelRule) -> npt.NDArray[np.bool_]:
    """(z, y, x): where seeds are, of probabilities (3, z, y, x)."""
    mask: npt.NDArray[np.bool_] = planes[INTERIOR] >= np.uint8(rule.seed_level)
    return mask


def first_places(seeds: Ids, num: int) -> npt.NDArray[np.int64]:
    """(num + 1,): index of each piece's first pixel, the volume taken row by row; 0 for the background."""
    flat = seeds.ravel()
    found = np.flatnonzero(flat)[::-1]
    first = np.zeros(num + 1, np.int64)
    first[flat[found]] = found  # of a repeated index the last assignment stays: that of the first pixel
    return first


def consecutive(kept: npt.NDArray[np.bool_], order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """New number of each old one: 1, 2, ... for those that are kept, in this order; 0 for the others and for 0."""
    chosen = np.flatnonzero(kept[1:]) + 1
    numbers = np.zeros(len(kept), np.int64)
    numbers[chosen[np.argsort(order[chosen], kind="stable")]] = np.arange(1, len(chosen) + 1)
    return numbers


def grown(seeds: Ids, planes: Probability, rule: LabelRule) -> npt.NDArray[np.int64]:
    """Seeds grown into the foreground, see the top of this file.

    Args:
        seeds: (z, y, x) ids, 0 where no seed is.
        planes: (3, z, y, x) probabilities.
        rule: says how far.

    Returns:
        (z, y, x) ids.
    """
    rim = ((0, 0), (1, 1), (1, 1))
    padded = np.pad(np.asarray(seeds, np.int64), rim)
    free = np.pad(_FULL - planes[BACKGROUND].astype(np.int16) >= rule.foreground_level, rim)
    width = padded.shape[2]
    ids, free_at = padded.reshape(-1), free.reshape(-1)
    free_at[ids > 0] = False  # taken
    sureness = np.pad(planes[INTERIOR], rim).reshape(-1)
    offsets = [y * width + x for y, x in _STEPS]
    beside = np.zeros(len(ids), bool)
    # Rims keep neighbours of the last pixel of a row from being the first of the next; the outermost ones are never free.
    for offset in offsets:
        beside[max(0, -offset) : len(ids) - max(0, offset)] |= free_at[max(0, offset) : len(ids) + min(0, offset)]
    last, newest = np.empty(0, np.int64), np.flatnonzero((ids > 0) & beside)
    for step in range(rule.grow_px):
        # Diagonal neighbours wait one step, so what was new two steps ago may reach on as well.
        active = np.concatenate([last, newest])
        reached = _reached(active, offsets[: _NUM_STRAIGHT if step % 2 == 0 else None], free_at, sureness)
        if reached is None:
            if step % 2:
                break
            last, newest = newest, np.empty(0, np.int64)
            continue
        target, source = reached
        ids[target] = ids[source]
        free_at[target] = False
        last, newest = newest, target
    return padded[:, 1:-1, 1:-1].copy()


def _reached(
    active: npt.NDArray[np.int64], offsets: list[int], free: npt.NDArray[np.bool_], sureness: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """Pixels reached in one step and from where: of several ways the surest, among equals the first offset's."""
    sources, targets, ranks = [], [], []
    for i_offset, offset in enumerate(offsets):
        from_there = active[free[active + offset]]
        sources.append(from_there)
        targets.append(from_there + offset)
        ranks.append((_FULL - sureness[from_there].astype(np.int32)) * len(_STEPS) + i_offset)
    target = np.concatenate(targets)
    if not target.size:
        return None
    source, rank = np.concatenate(sources), np.concatenate(ranks)
    order = np.lexsort((rank, target))
    is_first = np.ones(len(order), bool)
    is_first[1:] = target[order][1:] != target[order][:-1]
    best = order[is_first]
    return target[best], source[best]


def fill_holes(ids: npt.NDArray[np.int64], max_hole_px: int) -> None:
    """Gives holes to the objects around them, in place.

    Args:
        ids: (z, y, x).
        max_hole_px: a hole is a face-connected piece of background in one plane, of at most so many pixels, that does not
            touch the plane's edge and has pixels of one object alone beside it.
    """
    if not max_hole_px:
        return
    structure = np.zeros((3, 3, 3), bool)
    structure[1] = ndimage.generate_binary_structure(2, 1)
    pieces, num = ndimage.label(ids == 0, structure)
    sizes = np.bincount(pieces.ravel(), minlength=num + 1)
    is_hole = sizes <= max_hole_px
    is_hole[0] = False
    for edge in (pieces[:, 0], pieces[:, -1], pieces[:, :, 0], pieces[:, :, -1]):
        is_hole[edge] = False
    if not is_hole.any():
        return
    low, high = np.full(num + 1, np.iinfo(np.int64).max), np.zeros(num + 1, np.int64)
    for here, there in (
        (np.s_[:, 1:], np.s_[:, :-1]), (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:, :, 1:], np.s_[:, :, :-1]), (np.s_[:, :, :-1], np.s_[:, :, 1:]),
    ):  # fmt: skip
        beside = is_hole[pieces[here]] & (ids[there] > 0)
        np.minimum.at(low, pieces[here][beside], ids[there][beside])
        np.maximum.at(high, pieces[here][beside], ids[there][beside])
    owner = np.where(is_hole & (low == high), high, 0)
    ids += owner[pieces]
