"""What an entry of ``[split]`` says, and which two entries certainly name the same pixels."""

import re
from collections.abc import Iterator
from functools import partial
from itertools import combinations, product
from typing import TYPE_CHECKING

from unetctl.recipe.problems import Problem

if TYPE_CHECKING:
    from unetctl.recipe.schema import Recipe

_PARTS = ("train", "val", "test")
_END = 2**62  # stands for the unknown end of a volume


def parse_split_entry(entry: str) -> tuple[str, slice | None]:
    """Pattern and planes of an entry.

    "0:22" are planes of every volume: ``("", slice(0, 22))``. "name[0:22]" are planes of the volumes that the
    name or pattern fits. Anything else is a name or pattern with all its planes: ``("H0*.png", None)``.
    """
    found = re.fullmatch(r"(.+)\[(-?\d*):(-?\d*)\]|(-?\d*):(-?\d*)", entry)
    if found is None:
        return entry, None
    pattern, *named = found.group(1, 2, 3)
    start, stop = named if pattern else found.group(4, 5)
    return pattern or "", slice(int(start) if start else None, int(stop) if stop else None)


def _well_formed(part: str, r: "Recipe") -> Iterator[Problem]:
    entries: tuple[str, ...] = getattr(r.split, part)
    for entry in entries:
        _, planes = parse_split_entry(entry)
        if planes is not None and _extent(planes) == range(0):
            turned = planes.start is not None and planes.stop is not None and planes.start > planes.stop
            hint = f'did you mean "{planes.stop}:{planes.start}"?' if turned else ""
            yield Problem(f"split.{part}", f'"{entry}" holds no plane', "start below stop", hint)
        elif re.fullmatch(r"(.+\[)?-?\d*(:-?\d*){2,}\]?", entry):
            yield Problem(f"split.{part}", f'"{entry}"', "planes as start:stop, without a step")


def _apart(part_a: str, part_b: str, r: "Recipe") -> Iterator[Problem]:
    for a, b in product(getattr(r.split, part_a), getattr(r.split, part_b)):
        shared = _shared(a, b)
        if shared:
            seen = f'"{b}" shares {shared} with "{a}" of {part_a}'
            yield Problem(f"split.{part_b}", seen, f"nothing in common with {part_a}")


def _shared(a: str, b: str) -> str:
    """What two entries certainly have in common, in words; "" if nothing, or if only the data can tell."""
    (pattern_a, planes_a), (pattern_b, planes_b) = parse_split_entry(a), parse_split_entry(b)
    if planes_a is None or planes_b is None:
        return "its images" if pattern_a == pattern_b else ""
    if pattern_a != pattern_b and pattern_a and pattern_b:
        return ""
    extent_a, extent_b = _extent(planes_a), _extent(planes_b)
    if extent_a is None or extent_b is None:
        return "its planes" if planes_a == planes_b else ""
    start, stop = max(extent_a.start, extent_b.start), min(extent_a.stop, extent_b.stop)
    if start >= stop:
        return ""
    if stop == _END:
        return f"planes from {start} on"
    return f"plane {start}" if stop - start == 1 else f"planes {start} to {stop - 1}"


def _extent(planes: slice) -> range | None:
    """The planes as a range, ``range(0)`` if there are none; None if it depends on the number of planes."""
    start, stop = planes.start or 0, _END if planes.stop is None else planes.stop
    if (start < 0) != (stop < 0) or (start < 0 and stop == _END):
        return None
    if start >= stop:
        return range(0)
    return None if start < 0 else range(start, stop)


SPLIT_CHECKS = (
    *(partial(_well_formed, part) for part in _PARTS),
    *(partial(_apart, a, b) for a, b in combinations(_PARTS, 2)),
)
