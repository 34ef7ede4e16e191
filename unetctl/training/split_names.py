"""Entries of [split] and --val: how they are written, and which pictures they mean; `unetctl.training.splits` lists them.

parse_entry(entry) -> (pattern, planes)
fits(pattern, pair), fits_name(pattern, stem, path) -> bool
"""

import re
from fnmatch import fnmatchcase

from unetctl.errors import UsageError
from unetctl.training.pairs import Pair, natural


def parse_entry(entry: str) -> tuple[str, slice | None]:
    """(pattern, planes): pattern "" for a bare range, planes None for all.

    Raises:
        UsageError: if it is empty, or planes without a name.
    """
    found = re.fullmatch(r"(.*)\[(-?\d*):(-?\d*)\]|(-?\d*):(-?\d*)", entry)
    if found is None:
        if not entry.strip():
            raise UsageError("an empty entry in [split]", 'a name, a folder, a glob or planes such as "0:22"')
        return entry, None
    pattern, start, stop = (
        found.group(1) or "",
        *(found.group(2, 3) if found.group(1) is not None else found.group(4, 5)),
    )
    if found.group(1) == "":
        raise UsageError(f"the entry {entry!r} has planes but no name", '"name[0:22]" or "0:22"')
    return pattern, slice(int(start) if start else None, int(stop) if stop else None)


def fits(pattern: str, pair: Pair) -> bool:
    """True if a pattern means a pair: its name, its folder, or the file of its picture."""
    relative = f"{pair.folder}/{pair.image.name}".removeprefix("./")
    return fits_name(pattern, pair.name.rsplit("/", 1)[-1], pair.name) or fits_name(pattern, pair.image.name, relative)


def fits_name(pattern: str, stem: str, path: str) -> bool:
    """True if a pattern means a file of that stem at that path, relative with slashes."""
    pattern = pattern.removeprefix("./").rstrip("/")
    if ".." in pattern:
        first, _, last = pattern.partition("..")
        name = path if "/" in pattern else stem
        return (not first or natural(first) <= natural(name)) and (not last or natural(name) <= natural(last))
    if "/" in pattern:
        return fnmatchcase(path, pattern) or fnmatchcase(path, pattern + "/*")
    return fnmatchcase(stem, pattern) or pattern in path.split("/")
