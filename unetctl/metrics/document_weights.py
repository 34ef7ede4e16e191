"""Weights of the pixels of a page for the pseudo F-measure, from its ground truth alone.

Ntirogiannis, Gatos, Pratikakis: Performance Evaluation Methodology for Historical Document Image Binarization, IEEE TIP
22(2), 2013, pp. 595-609. What the paper leaves open follows the weight files of the DIBCO evaluation: all distances are
chessboard distances, and all sets of nearest pixels hold every pixel at the least distance.

Recall (equations 2 and 3): ``weight = D / N`` on ink. D is the distance to the contour of the ink, which has weight 0
itself unless it is the skeleton. N is the sum of D across the stroke, m * m or m * (m + 1) for a stroke whose middle is
m deep, so that a stroke broken through costs the same whether it is thick or thin.

Precision (equations 10 and 11): ``weight = 1 + D / N`` on paper near ink. N is the width of the nearest stroke, or half
of the gap to the next component where that is less; the farther from the ink, the more false ink costs, until it is
beyond a stroke's width: then it costs 1 again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from unetctl.metrics.checks import Mask, require_mask, require_ndim
from unetctl.metrics.thinning import RING, neighbour_codes, thin

_EIGHT = np.ones((3, 3), np.bool_)
_FAR = 250  # distances from here on are none: no stroke is that wide
_MOST = 2.0  # nowhere does false ink cost more than 1 + this
# Everything below works on flat arrays of the page with a rim of one pixel, which is neither ink nor paper, so that the
# eight neighbours of pixel i are i + steps, and the time goes with the number of pixels concerned.
Numbers = NDArray[np.int32]
Places = NDArray[np.intp]


@dataclass(frozen=True)
class PseudoWeights:
    """What the pixels of a page count.

    Attributes:
        recall: (y, x) float32: of ink that is found or missed, at least 0; 0 on paper.
        precision: (y, x) float32: of predicted ink, 1 to 3; 1 on ink.
    """

    recall: NDArray[np.float32]
    precision: NDArray[np.float32]


def pseudo_weights(true_ink: Mask) -> PseudoWeights:
    """The weights of a ground truth.

    Args:
        true_ink: (y, x) booleans.

    Raises:
        InputError: not boolean, or not (y, x).
    """
    require_mask("the true ink", true_ink)
    require_ndim("the true ink", true_ink, 2)
    if not true_ink.any():
        return PseudoWeights(np.zeros(true_ink.shape, np.float32), np.ones(true_ink.shape, np.float32))
    page = _Page(true_ink)
    contour = page.ink & ~_all_four(page.ink, page.width)
    middles = np.flatnonzero(_seeded(thin(true_ink), page))
    inwards = page.grow(np.flatnonzero(contour), page.ink & ~contour)
    depth = np.zeros(page.ink.size, np.int32)
    for distance, group in enumerate(inwards):
        depth[group] = min(distance, _FAR)
    depth[middles[contour[middles]]] = 1
    page.raise_ridge(depth, middles)
    counts = (depth > 0) & (depth < _FAR)
    away = page.grow(middles, page.inside(), until=page.ink)
    factor, across = _cross_sections(page, depth, counts, away, contour)
    recall = np.zeros(page.ink.size, np.float32)
    at = np.flatnonzero(counts & (across > 0))
    recall[at] = depth[at] / across[at]
    widths = _stroke_widths(page, factor, middles)
    precision = np.ones(page.ink.size, np.float32)
    _weigh_paper(page, precision, np.flatnonzero(contour), widths)
    return PseudoWeights(page.unpadded(recall), page.unpadded(precision))


class _Page:
    """A ground truth and ways to walk on it.

    Attributes:
        ink: flat, False on the rim.
        components: flat, the 8-connected pieces of ink from 1, 0 elsewhere.
        num: of components.
        boxes: of the components, in (y, x) with the rim.
        width, shape: with the rim.
        steps: to the eight neighbours.
    """

    def __init__(self, true_ink: Mask) -> None:
        padded = np.pad(true_ink, 1)
        self.shape, self.width = padded.shape, padded.shape[1]
        self.ink: Mask = padded.ravel()
        labels, self.num = ndimage.label(padded, _EIGHT)
        self.boxes = ndimage.find_objects(labels)
        self.components: Numbers = labels.ravel()
        self.steps = np.array([y * self.width + x for y, x in RING])

    def inside(self) -> Mask:
        """Flat, True but on the rim."""
        inside = np.zeros(self.shape, np.bool_)
        inside[1:-1, 1:-1] = True
        return inside.ravel()

    def unpadded(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(y, x) of a flat array, without the rim."""
        return np.ascontiguousarray(values.reshape(self.shape)[1:-1, 1:-1])

    def grow(self, seeds: Places, free: Mask, *, most: int | None = None, until: Mask | None = None) -> list[Places]:
        """Pixels in groups of equal chessboard distance from the seeds, going over free pixels only.

        Args:
            seeds: group 0.
            free: flat; used up.
            most: the greatest distance wanted.
            until: flat; no farther than the farthest of these.
        """
        free[seeds] = False
        groups = [seeds]
        missing = None if until is None else int(np.count_nonzero(until)) - int(np.count_nonzero(until[seeds]))
        while groups[-1].size and missing != 0 and (most is None or len(groups) <= most):
            found = []
            for step in self.steps.tolist():
                at = groups[-1] + step
                at = at[free[at]]
                free[at] = False
                found.append(at)
            groups.append(np.concatenate(found))
            if until is not None and missing is not None:
                missing -= int(np.count_nonzero(until[groups[-1]]))
        return groups

    def outward(self, groups: Sequence[Places], values: Numbers) -> Numbers:
        """Flat: the greatest value among the nearest seeds of each pixel; 0 where no group is.

        A pixel's nearest seeds are those of its neighbours that are nearer by one: for chessboard distances that is
        exact, ties included.

        Args:
            groups: of `grow`.
            values: positive, of the seeds.
        """
        filled = np.zeros(self.ink.size, np.int32)
        filled[groups[0]] = values
        for group in groups[1:]:
            filled[group] = self._greatest_around(filled, group)
        return filled

    def inward(self, groups: Sequence[Places], counts: Mask) -> Numbers:
        """Flat: the last in reading order of the counting pixels that have this one among their nearest; 0 if none."""
        filled = np.zeros(self.ink.size, np.int32)
        for group in reversed(groups):
            own = np.where(counts[group], group, 0).astype(np.int32)
            filled[group] = np.maximum(own, self._greatest_around(filled, group))
        return filled

    def _greatest_around(self, filled: Numbers, group: Places) -> Numbers:
        # Groups that are not filled yet hold 0: only the group before has something to pass on.
        best: Numbers = filled[group + self.steps[0]]
        for step in self.steps[1:]:
            np.maximum(best, filled[group + step], out=best)
        return best

    def raise_ridge(self, depth: Numbers, middles: Places) -> None:
        """In place: the middle of a ridge without a crest, as deep as its four neighbours, is one deeper.

        Not twice in a row: in reading order, one that was raised is no neighbour of equal depth any more.
        """
        own = depth[middles]
        middles = middles[(own > 0) & (own < _FAR)]
        own = depth[middles]
        is_flat = np.ones(own.shape, np.bool_)
        for step in (-self.width, self.width, -1, 1):
            is_flat &= depth[middles + step] == own
        raised: set[int] = set()
        for at in middles[is_flat].tolist():
            if at - self.width not in raised and at - 1 not in raised:
                raised.add(at)
        depth[list(raised)] += 1


def _cross_sections(
    page: _Page, depth: Numbers, counts: Mask, groups: Sequence[Places], contour: Mask | None
) -> tuple[Numbers, Numbers]:
    """Sums of the depth across strokes.

    Args:
        page: walked on.
        depth: flat, distance to the contour.
        counts: flat, where a depth is to be weighed.
        groups: by distance from the middles of the strokes.
        contour: flat; None: no middle lies on it.

    Returns:
        Flat: what the depth of a middle is multiplied with to give the sum, 0 elsewhere; and for every counting pixel of
        the groups the greatest sum of its nearest middles.
    """
    middles = groups[0]
    level = np.zeros(depth.size, np.int32)
    for distance, group in enumerate(groups):
        level[group] = distance
    level[middles] = 1 if contour is None else ~contour[middles]
    # The last pixel, in reading order, that a middle is nearest to tells on which side the stroke is wider.
    last = page.inward(groups, counts)[middles]
    factor = np.zeros(depth.size, np.int32)
    factor[middles] = np.where(last > 0, depth[middles] + (level[last] >= depth[middles]), 1)
    _raise_ends(page, factor, middles)
    across = page.outward(groups, depth[middles] * factor[middles])
    across[~counts] = 0
    _smooth(page, across, np.sort(np.concatenate(groups)))
    return factor, across


def _weigh_paper(page: _Page, precision: NDArray[np.float32], contour: Places, widths: Numbers) -> None:
    """Fills in the weights of paper: flat, 1 on entry. `widths`: of the strokes of each component, by its number."""
    widest = int(widths.max())
    outwards = page.grow(contour, page.inside() & ~page.ink, most=min(widest, _FAR - 1))
    near = np.concatenate(outwards[1:]) if len(outwards) > 1 else np.zeros(0, np.intp)
    away = np.repeat(np.arange(1, len(outwards)), [group.size for group in outwards[1:]])
    # Components numbered by their width: the greatest number among the nearest gives the width, two numbers a gap.
    order = np.argsort(widths[1:], kind="stable")
    rank = np.zeros(len(widths), np.int32)
    rank[order + 1] = np.arange(1, len(widths), dtype=np.int32)
    ranks = rank[page.components[contour]]
    highest = page.outward(outwards, ranks)[near]
    lowest = len(widths) - page.outward(outwards, len(widths) - ranks)[near]
    reach = np.concatenate([[0], widths[1:][order]])[highest]
    in_region = _reached(page, widths)[near] & _sees_contour(page, contour)[near]
    weighs = in_region & (away <= reach)
    between = near[weighs & (highest > lowest)]
    limit = reach
    if between.size:
        around = page.grow(between, page.inside(), most=2 * widest + 2)
        to_between = np.full(page.ink.size, np.iinfo(np.int32).max, np.int32)
        for distance, group in enumerate(around):
            to_between[group] = distance
        closes = weighs & (to_between[near] <= reach - away) & (reach > away)
        depth = np.full(page.ink.size, _FAR, np.int32)
        depth[page.ink] = 0
        depth[near[in_region]] = away[in_region]
        gap = _half_gaps(page, depth, np.concatenate(around), widest)
        limit = np.where(closes, np.minimum(gap[near], reach), reach)
    weighs &= limit > 0
    precision[near[weighs]] += np.minimum(away[weighs] / limit[weighs], _MOST)


def _half_gaps(page: _Page, depth: Numbers, domain: Places, widest: int) -> Numbers:
    """Flat: half of the gap in which a pixel of paper lies, where the gap is narrow enough to matter; else `_FAR`.

    Args:
        page: walked on.
        depth: flat, of paper: distance to the ink, `_FAR` where nobody asks; changed.
        domain: where the gaps are wanted.
        widest: no wider gap matters.
    """
    paper = ~page.ink.reshape(page.shape)[1:-1, 1:-1]
    paper[[0, -1], :] = paper[:, [0, -1]] = False
    skeleton = np.pad(thin(paper, max_rounds=widest + 2), 1).ravel()
    middles = np.sort(domain[skeleton[domain]])
    page.raise_ridge(depth, middles)
    free = np.zeros(page.ink.size, np.bool_)
    free[domain] = True
    groups = page.grow(middles, free, most=widest + 2)
    _, across = _cross_sections(page, depth, (depth > 0) & (depth < _FAR), groups, None)
    gap = np.full(page.ink.size, _FAR, np.int32)
    known = domain[across[domain] > 0]
    gap[known] = np.floor(np.sqrt(across[known]) + 0.5)
    return gap


def _all_four(mask: Mask, width: int) -> Mask:
    """Flat: where all four neighbours are True; the rim is False."""
    found = np.zeros(mask.size, np.bool_)
    inner = slice(width, mask.size - width)
    found[inner] = mask[: -2 * width] & mask[2 * width :] & mask[width - 1 : -width - 1] & mask[width + 1 : -width + 1]
    return found


def _seeded(skeleton: Mask, page: _Page) -> Mask:
    """Flat: the skeleton (y, x) and a pixel for each component that thinning took away: its centre, or its first pixel."""
    components = page.components.reshape(page.shape)
    padded = np.pad(skeleton, 1)
    is_there = np.zeros(page.num + 1, np.bool_)
    is_there[components[padded]] = True
    for label in (np.flatnonzero(~is_there[1:]) + 1).tolist():
        box = page.boxes[label - 1]
        ys, xs = np.nonzero(components[box] == label)
        y, x = int(np.floor(ys.mean() + 0.5)), int(np.floor(xs.mean() + 0.5))
        if components[box][y, x] != label:
            y, x = int(ys[0]), int(xs[0])
        padded[box][y, x] = True
    return padded.ravel()


def _raise_ends(page: _Page, factor: Numbers, middles: Places) -> None:
    """In place: the end of a line takes over from the pixel before it, and one more.

    Not where that lies to the lower right: the weight files of the evaluation leave those out.
    """
    is_middle = np.zeros(page.ink.size, np.uint8)
    is_middle[middles] = 1
    codes = neighbour_codes(is_middle, middles, page.steps)
    before = factor.copy()
    for is_after in (
        True,
        False,
    ):  # in reading order, of a line of two pixels the second takes over what the first has now
        for k, step in enumerate(page.steps.tolist()):
            if RING[k] != (1, 1) and (step > 0) == is_after:
                ends = middles[codes == 1 << k]
                factor[ends] = (before if is_after else factor)[ends + step] + 1


def _smooth(page: _Page, across: Numbers, places: Places) -> None:
    """In place: where a sum differs from those of all four neighbours, that of the left one is taken, in reading order."""
    steps = (-page.width, page.width, -1, 1)
    differs = across[places] > 0
    for step in steps:
        values = across[places + step]
        differs &= (values > 0) & (values != across[places])
    for at in places[differs].tolist():
        if all(across[at] != across[at + step] for step in steps):
            across[at] = across[at - 1]


def _stroke_widths(page: _Page, factor: Numbers, middles: Places) -> Numbers:
    """Of each component, by its number: twice the mean of the factor, which is rounded down. The first is unused."""
    labels = page.components[middles]
    sums = np.bincount(labels, factor[middles], page.num + 1)
    sizes = np.bincount(labels, minlength=page.num + 1)
    widths = 2 * (sums // np.maximum(sizes, 1))
    widths[0] = 0
    return widths.astype(np.int32)


def _reached(page: _Page, widths: Numbers) -> Mask:
    """Flat: where the box of some component, larger by two stroke widths on all sides, lies."""
    found = np.zeros(page.shape, np.bool_)
    for (rows, columns), stroke in zip(page.boxes, widths[1:].tolist(), strict=True):
        margin = 2 * stroke
        top, left = max(0, rows.start - margin), max(0, columns.start - margin)
        found[top : rows.stop + margin, left : columns.stop + margin] = True
    return found.ravel()


def _sees_contour(page: _Page, contour: Places) -> Mask:
    """Flat: where the box of a piece of paper holds some contour; in small round holes it does not: they weigh 1."""
    inner = (slice(1, -1), slice(1, -1))
    is_contour = np.zeros(page.shape, np.bool_)
    is_contour.ravel()[contour] = True
    pieces, _ = ndimage.label(~page.ink.reshape(page.shape)[inner], _EIGHT)
    sees = np.array([False] + [bool(is_contour[inner][box].any()) for box in ndimage.find_objects(pieces)])
    found: Mask = np.pad(sees[pieces], 1).ravel()
    return found
