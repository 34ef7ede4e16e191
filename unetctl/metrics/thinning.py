"""Skeletons of masks: Zhang and Suen's thinning, then the removal of what still is two pixels thick.

Zhang and Suen, CACM 27(3), 1984, leave corners of staircases. Lee and Chen, Pattern Recognition 25(5), 1992, take them
out afterwards, pixel by pixel in reading order, so that lines are one pixel wide: that is the skeleton of the DIBCO
evaluation (Ntirogiannis, Gatos, Pratikakis, IEEE TIP 22(2), 2013, reference 60).
"""

import heapq
from functools import cache

import numpy as np
from numpy.typing import NDArray

from unetctl.metrics.checks import Mask, require_mask, require_ndim

#: Neighbours (y, x) of a pixel, clockwise from the one above; bit k of a neighbourhood's code is the k-th of them.
RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
_CROSS = (0, 2, 4, 6)  # those of RING that share an edge with the pixel


def thin(mask: Mask, *, max_rounds: int | None = None) -> Mask:
    """The skeleton of a mask: lines of 8-connected pixels, as many components as the mask has, ends kept.

    Outside the picture counts as False. Small symmetric blobs may vanish, as the method has it.

    Args:
        mask: (y, x) booleans.
        max_rounds: of thinning; each takes a pixel off either side, so that parts wider than twice this stay thick.
            None goes on to the end.

    Raises:
        InputError: not boolean, or not (y, x).
    """
    require_mask("the mask", mask)
    require_ndim("the mask", mask, 2)
    width = mask.shape[1] + 2
    padded = np.pad(mask, 1).view(np.uint8)
    flat = padded.ravel()
    steps = np.array([y * width + x for y, x in RING])
    _erode(padded, steps, max_rounds)
    thick = _dilated(_dilated(_interior(padded))).ravel()
    while _tidy(flat, thick, steps):
        pass
    return np.ascontiguousarray(padded[1:-1, 1:-1]).view(np.bool_)


def neighbour_codes(flat: NDArray[np.uint8], at: NDArray[np.intp], steps: NDArray[np.intp]) -> NDArray[np.uint8]:
    """The eight neighbours' values (0 or 1) as one byte each, see `RING`, of the pixels at these flat indices."""
    codes = np.zeros(at.shape, np.uint8)
    for k, step in enumerate(steps):
        codes |= flat[at + step] << np.uint8(k)
    return codes


def _erode(padded: NDArray[np.uint8], steps: NDArray[np.intp], max_rounds: int | None) -> None:
    """Zhang and Suen to the end. Only pixels at the edge can go, and their neighbours are the next edge."""
    deletions = _zhang_suen()
    flat = padded.ravel()
    edge = np.flatnonzero(flat & ~_interior(padded).ravel())
    is_queued = np.zeros(flat.shape, np.bool_)
    is_queued[edge] = True
    place = np.empty(flat.shape, np.int32)
    num_rounds, has_changed = 0, True
    while has_changed and (max_rounds is None or num_rounds < max_rounds):
        num_rounds, has_changed = num_rounds + 1, False
        for deletion in deletions:
            goes = deletion[neighbour_codes(flat, edge, steps)]
            gone = edge[goes]
            if not gone.size:
                continue
            has_changed = True
            flat[gone] = 0
            near = (gone + steps[:, np.newaxis]).ravel()
            near = near[(flat[near] != 0) & ~is_queued[near]]
            is_queued[near] = True
            number = np.arange(len(near), dtype=np.int32)
            place[near] = number  # the last of equal ones stays
            edge = np.concatenate([edge[~goes], near[place[near] == number]])


def _tidy(flat: NDArray[np.uint8], thick: NDArray[np.uint8], steps: NDArray[np.intp]) -> bool:
    """One round over the pixels in reading order, each seeing what the round has deleted before it.

    What is thick still, because thinning was not let finish, stays as it is.
    """
    deletes = _removable()
    inside = np.flatnonzero(flat & ~thick)
    waiting = inside[deletes[neighbour_codes(flat, inside, steps)]].tolist()  # sorted, and so a heap
    later = [step for step in steps.tolist() if step > 0]
    bits = [(step, 1 << k) for k, step in enumerate(steps.tolist())]
    table = deletes.tolist()
    # much faster than arrays, one value at a time
    pixels, is_thick = flat.data, thick.data
    has_changed = False
    while waiting:
        at = heapq.heappop(waiting)
        if not pixels[at]:
            continue
        code = 0
        for step, bit in bits:
            if pixels[at + step]:
                code |= bit
        if table[code]:
            pixels[at], has_changed = 0, True
            for step in later:
                if pixels[at + step] and not is_thick[at + step]:
                    heapq.heappush(waiting, at + step)
    return has_changed


def _interior(padded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """1 where a pixel and its eight neighbours are 1; the rim is 0."""
    rows = padded[:-2] & padded[1:-1] & padded[2:]
    return np.pad(rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:], 1)


def _dilated(padded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """1 where a pixel or one of its eight neighbours is 1; the rim is 0."""
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    return np.pad(rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:], 1)


@cache
def _zhang_suen() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """By code: whether the first, the second half of a round deletes the pixel."""
    ring = _rings()
    count = ring.sum(1)
    rises = (~ring & np.roll(ring, -1, axis=1)).sum(1)
    is_edge = (count >= 2) & (count <= 6) & (rises == 1)
    north, east, south, west = (ring[:, k] for k in _CROSS)
    return (
        is_edge & ~(north & east & south) & ~(east & south & west),
        is_edge & ~(north & east & west) & ~(north & south & west),
    )


@cache
def _removable() -> NDArray[np.bool_]:
    """By code: whether a pixel can go without a line breaking, shortening or closing up.

    It has two neighbours or more, all connected with each other, and edge to edge with one piece of background. Of the
    four T-junctions two are kept, those whose stem points right or left: as in Lee and Chen's table.
    """
    ring = _rings()
    deletes = np.zeros(256, np.bool_)
    for code, around in enumerate(ring.tolist()):
        background = _num_runs([not value for value in around], needs_cross=True)
        deletes[code] = sum(around) >= 2 and _num_pieces(around) == 1 and background == 1
    for stem in (2, 6):
        deletes[sum(1 << k for k in (0, 4, stem))] = False
    return deletes


def _rings() -> NDArray[np.bool_]:
    """(256, 8): the neighbours of every code."""
    codes = np.arange(256)[:, np.newaxis]
    return (codes >> np.arange(8) & 1).astype(np.bool_)


def _num_pieces(around: list[bool]) -> int:
    """Number of 8-connected pieces among the eight neighbours."""
    places = {RING[k] for k in range(8) if around[k]}
    num = 0
    while places:
        num += 1
        todo = [places.pop()]
        while todo:
            y, x = todo.pop()
            near = {p for p in places if abs(p[0] - y) <= 1 and abs(p[1] - x) <= 1}
            places -= near
            todo += near
    return num


def _num_runs(around: list[bool], *, needs_cross: bool) -> int:
    """Number of runs of True round the ring, counting only those that touch the pixel by an edge if `needs_cross`."""
    if all(around):
        return 1
    first = around.index(False)
    runs: list[list[int]] = [[]]
    for k in range(first, first + 8):
        if around[k % 8]:
            runs[-1].append(k % 8)
        elif runs[-1]:
            runs.append([])
    return sum(1 for run in runs if run and (not needs_cross or any(k in _CROSS for k in run)))
