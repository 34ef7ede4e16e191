"""What all labels of a folder hold, counted: the numbers, or the colours that they are drawn in.

    tally(pairs) -> Tally(numbers, colours, num_planes, ...)

`fingerprint` looks at a few places of a few pairs; how many classes there are only all of them can tell.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError, Stopped
from unetctl.training.colours import count_colours, named_shares
from unetctl.training.pairs import Pair
from unetctl.training.survey import info_of, opened, plane_shape
from unetctl.training.truth import drawn_colours, label_values, palette_indices

#: More different numbers, or colours, than this are no classes.
MOST_NUMBERS, MOST_COLOURS = 32, 16
#: What many annotation programs write where they do not know, if the classes are numbered from 0.
_UNKNOWN = 255


@dataclass(frozen=True)
class Tally:
    """What the labels of all pairs hold together.

    Attributes:
        numbers: pixels of each label number, in order of the numbers; empty if the labels are drawn in colours.
        colours: pixels of each colour, the most frequent first; empty if they are numbers.
        num_planes: looked at.
        is_open: True if there are more numbers or colours than classes can be; the rest was not looked at.
        has_unknown: True if 255 lies beside another number than 0 in one and the same plane.
    """

    numbers: Mapping[int, int]
    colours: Mapping[str, int]
    num_planes: int
    is_open: bool = False
    has_unknown: bool = False

    @property
    def is_mixed(self) -> bool:
        """True if some labels mark by 1 and others by 255 what is there, and none by both."""
        return list(self.numbers) == [0, 1, _UNKNOWN] and not self.has_unknown

    @property
    def ignored(self) -> int | None:
        """The number that means "unknown": 255 beside classes that are numbered 0, 1, 2 ... without a gap; else None."""
        known = [number for number in self.numbers if number != _UNKNOWN]
        is_beside = self.has_unknown and _UNKNOWN in self.numbers
        return _UNKNOWN if is_beside and len(known) > 1 and known == list(range(len(known))) else None

    @property
    def rarest_share(self) -> float:
        """Share of all pixels that the rarest class covers, 0..1; what is ignored does not count."""
        counts = [n for number, n in self.numbers.items() if number != self.ignored] or list(self.colours.values())
        return min(counts) / sum(counts) if counts else 0.0

    def describe(self) -> str:
        """One sentence."""
        counts = self.colours or {str(number): count for number, count in self.numbers.items()}
        what = "colours" if self.colours else "values"
        return f"the labels of {self.num_planes} planes hold {len(counts)} {what}: {named_shares(counts)}"


def tally(
    pairs: Iterable[Pair], should_stop: Callable[[], bool] = lambda: False, *, skips_errors: bool = False
) -> Tally:
    """Counts what the labels hold, plane by plane; with `skips_errors` without those that cannot be read.

    A picture with a colour table counts by the numbers of its entries, unless the tables of the files differ: then one
    number means this colour here and that one there, and the colours count.

    Raises:
        InputError: if labels cannot be read, or are neither numbers nor colours of 8 bits.
        Stopped: if asked to.
    """
    pairs = tuple(pairs)
    counts = _Counts(_are_drawn(pairs, skips_errors))
    for pair in pairs:
        try:
            counts.add(pair, should_stop)
        except InputError:
            if not skips_errors:
                raise
        if counts.is_open:
            break
    return counts.tally


class _Counts:
    """What was counted so far."""

    def __init__(self, by_colour: bool) -> None:
        self._by_colour = by_colour
        self._numbers: Counter[int] = Counter()
        self._colours: Counter[str] = Counter()
        self._num_planes, self._has_unknown = 0, False

    @property
    def is_open(self) -> bool:
        """See `Tally`."""
        return len(self._numbers) > MOST_NUMBERS or len(self._colours) > MOST_COLOURS

    @property
    def tally(self) -> Tally:
        """All of it, in order."""
        ordered = sorted(self._colours.items(), key=lambda one: (-one[1], one[0]))
        numbers = dict(sorted(self._numbers.items()))
        return Tally(numbers, dict(ordered), self._num_planes, self.is_open, self._has_unknown)

    def add(self, pair: Pair, should_stop: Callable[[], bool]) -> None:
        """Counts the planes of one pair, until there are too many numbers."""
        with opened(pair.labels) as labels:
            for i_plane in range(int(np.prod(plane_shape(info_of(labels, pair)), dtype=int))):
                if should_stop():
                    raise Stopped("stopped while the labels were counted", "", "run the same command again")
                if self._by_colour:
                    self._colours.update(count_colours(drawn_colours(labels, pair, i_plane)))
                else:
                    found = _count(label_values(labels, pair, i_plane))
                    self._numbers.update(found)
                    self._has_unknown |= _UNKNOWN in found and bool(found.keys() - {0, _UNKNOWN})
                self._num_planes += 1
                if self.is_open:
                    return


def _count(values: npt.NDArray[np.int64]) -> dict[int, int]:
    found, counts = np.unique(values, return_counts=True)
    return {int(value): int(count) for value, count in zip(found, counts, strict=True)}


def _are_drawn(pairs: Iterable[Pair], skips_errors: bool) -> bool:
    """True if any labels are coloured without a colour table, or their tables differ in the entries that occur."""
    table: dict[int, tuple[Any, ...]] = {}
    for pair in pairs:
        try:
            with opened(pair.labels) as labels:
                info = info_of(labels, pair)
                if info.num_channels not in (3, 4) or info.dtype != np.uint8:
                    continue
                pixels = drawn_colours(labels, pair, 0)
        except InputError:
            if not skips_errors:
                raise
            continue
        indices = palette_indices(pair.labels)
        if indices is None or indices.shape != pixels.shape[1:]:
            if (pixels == pixels[:1]).all():
                continue
            return True
        for entry in np.unique(indices):
            y, x = np.argwhere(indices == entry)[0]
            if table.setdefault(int(entry), tuple(pixels[:, y, x])) != tuple(pixels[:, y, x]):
                return True
    return False
