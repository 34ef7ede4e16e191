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
    """

    numbers: Mapping[int, int]
    colours: Mapping[str, int]
    num_planes: int
    is_open: bool = False

    @property
    def ignored(self) -> int | None:
        """The number that means "unknown": 255 beside classes that are numbered 0, 1, 2 ... without a gap; else None."""
        known = [number for number in self.numbers if number != _UNKNOWN]
        return _UNKNOWN if _UNKNOWN in self.numbers and len(known) > 1 and known == list(range(len(known))) else None

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


def tally(pairs: Iterable[Pair], should_stop: Callable[[], bool] = lambda: False) -> Tally:
    """Counts what the labels hold, plane by plane.

    A picture with a colour table counts by the numbers of its entries, unless the tables of the files differ: then one
    number means this colour here and that one there, and the colours count.

    Raises:
        InputError: if labels cannot be read, or are neither numbers nor colours of 8 bits.
        Stopped: if asked to.
    """
    pairs = tuple(pairs)
    by_colour = _are_drawn(pairs)
    numbers: Counter[int] = Counter()
    colours: Counter[str] = Counter()
    num_planes, is_open = 0, False
    for pair in pairs:
        with opened(pair.labels) as labels:
            for i_plane in range(int(np.prod(plane_shape(info_of(labels, pair)), dtype=int))):
                if should_stop():
                    raise Stopped("stopped while the labels were counted", "", "run the same command again")
                if by_colour:
                    colours.update(count_colours(drawn_colours(labels, pair, i_plane)))
                else:
                    numbers.update(_count(label_values(labels, pair, i_plane)))
                num_planes += 1
                is_open = len(numbers) > MOST_NUMBERS or len(colours) > MOST_COLOURS
                if is_open:
                    return _tally(numbers, colours, num_planes, True)
    return _tally(numbers, colours, num_planes, False)


def _tally(numbers: Counter[int], colours: Counter[str], num_planes: int, is_open: bool) -> Tally:
    ordered = sorted(colours.items(), key=lambda one: (-one[1], one[0]))
    return Tally(dict(sorted(numbers.items())), dict(ordered), num_planes, is_open)


def _count(values: npt.NDArray[np.int64]) -> dict[int, int]:
    found, counts = np.unique(values, return_counts=True)
    return {int(value): int(count) for value, count in zip(found, counts, strict=True)}


def _are_drawn(pairs: Iterable[Pair]) -> bool:
    """True if any labels are coloured without a colour table, or their tables differ in the entries that occur."""
    table: dict[int, tuple[Any, ...]] = {}
    for pair in pairs:
        with opened(pair.labels) as labels:
            info = info_of(labels, pair)
            if info.num_channels not in (3, 4) or info.dtype != np.uint8:
                continue
            try:
                pixels = drawn_colours(labels, pair, 0)
            except InputError:
                continue
        if (pixels == pixels[:1]).all():
            continue
        indices = palette_indices(pair.labels)
        if indices is None or indices.shape != pixels.shape[1:]:
            return True
        for entry in np.unique(indices):
            y, x = np.argwhere(indices == entry)[0]
            if table.setdefault(int(entry), tuple(pixels[:, y, x])) != tuple(pixels[:, y, x]):
                return True
    return False
