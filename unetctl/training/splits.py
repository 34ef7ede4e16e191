"""Which planes train, which choose the checkpoint, which only report.

    SplitRules(train, val, test, exclude, val_share); SplitRules.overridden(--val, --exclude) -> SplitRules
    excluded_pairs(table, entries) -> pairs that are left out of everything
    make_split(table, rules, count_planes, stack=False) -> Split(train, val, test, unused, excluded, notes)
    Split.describe() -> lines to print; Split.as_dict() -> names for the model card
    Selection(pair, planes): the planes of one pair that belong to a set

An entry of a rule is one of

    "0:22"             planes of every volume, as a Python slice; a recipe's are passed over where the data
                       brings its own split (folders named val or test)
    "name[0:22]"       planes of the volumes that `name` matches
    "2016", "val"      a folder, or one picture, by its name
    "f*", "201?/*"     a glob: without a slash on picture names, with one on relative paths
    "t000..t060"       picture names from .. to, both included, numbers by value; either end may be left out
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from unetctl.errors import UsageError
from unetctl.training.pairs import Pair, PairTable, SplitName, natural
from unetctl.training.split_names import fits, fits_name, parse_entry

SETS: tuple[SplitName, ...] = ("train", "val", "test")
_Planes = dict[Pair, set[int]]
_Unit = tuple[Pair, int]


@dataclass(frozen=True)
class SplitRules:
    """What the recipe and the command line say.

    Attributes:
        train: entries whose planes train; empty: all that no other set claims.
        val: entries whose planes choose checkpoint and threshold.
        test: entries whose planes are only reported.
        exclude: entries that are left out of everything and never opened (no plane ranges).
        val_share: share of the training planes held out if nothing else names a validation set; 0: none.
        override_val: entries of `--val`; they replace `val` and are taken out of the training set.
    """

    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    val_share: float = 0.1
    override_val: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a share that leaves nothing to train.

        Raises:
            UsageError: if `val_share` is out of range.
        """
        if not 0 <= self.val_share < 1:
            raise UsageError(f"the validation share is {self.val_share}", "a number from 0 up to, but not 1")

    def overridden(self, val: Sequence[str] = (), exclude: Sequence[str] = ()) -> "SplitRules":
        """These rules with the command line's `--val` (entries, or one share as "0.2") and `--exclude`."""
        rules = replace(self, exclude=(*self.exclude, *exclude))
        if len(val) == 1 and re.fullmatch(r"0?\.\d+|0", val[0]):
            return replace(rules, val=(), override_val=(), val_share=float(val[0]))
        return replace(rules, val=(), override_val=tuple(val)) if val else rules


@dataclass(frozen=True)
class Selection:
    """The planes of one pair that belong to a set, in ascending order.

    Attributes:
        pair: picture and labels.
        planes: their numbers.
        region: of a picture that is parted, which part of it in words ("columns 0:320"); else empty.
        num_planes: of the pair in all; names need no numbers of the only one.
    """

    pair: Pair
    planes: tuple[int, ...]
    region: str = ""
    num_planes: int = field(default=1, compare=False)

    def __str__(self) -> str:
        is_whole = self.planes == (0,) and self.num_planes == 1
        name = self.pair.name if is_whole else f"{self.pair.name}[{_runs(self.planes)}]"
        return f"{name} {self.region}".rstrip()


@dataclass(frozen=True)
class Split:
    """Disjoint sets of planes.

    Attributes:
        train: never empty.
        val: may be empty: then the last weights are the best ones there are.
        test: may be empty.
        unused: planes that no rule names although the rules name others.
        excluded: pairs left out by `exclude`.
        notes: sentences for the user.
    """

    train: tuple[Selection, ...]
    val: tuple[Selection, ...]
    test: tuple[Selection, ...]
    unused: tuple[Selection, ...]
    excluded: tuple[Pair, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(f"{name} {num_planes(getattr(self, name))}" for name in SETS) + " planes"

    def describe(self, most: int = 6) -> list[str]:
        """Lines for the user; at most `most` names a set."""
        lines = []
        for name in (*SETS, "unused"):
            chosen: tuple[Selection, ...] = getattr(self, name)
            if chosen or name in ("train", "val"):
                shown = ", ".join(map(str, chosen[:most])) + (f" ... {chosen[-1]}" if len(chosen) > most else "")
                lines.append(
                    f"{name}: {num_planes(chosen)} planes of {len(chosen)} pictures" + (f" ({shown})" if chosen else "")
                )
        if self.excluded:
            names = ", ".join(p.name for p in self.excluded[:most]) + (" ..." if len(self.excluded) > most else "")
            lines.append(f"excluded: {len(self.excluded)} pictures ({names})")
        return lines + [f"note: {note}" for note in self.notes]

    def as_dict(self) -> dict[str, list[str]]:
        """Names with plane ranges per set, for the model card and the run folder."""
        return {name: [str(s) for s in getattr(self, name)] for name in SETS}


def num_planes(selections: Iterable[Selection]) -> int:
    """Planes in all of them together."""
    return sum(len(s.planes) for s in selections)


def make_split(
    table: PairTable,
    rules: SplitRules,
    count_planes: Callable[[Pair], int],
    stack: bool = False,
    left_out: Collection[Pair] = (),
) -> Split:
    """Put every plane into at most one set.

    Rules go before folders named train, val, test; these go before the rest, which trains unless rules name
    other planes for it. If that leaves no validation set, `val_share` of the training planes is held out:
    whole volumes and pictures where there are enough, by a hash of their names (so that one stays where it is
    when others are added), else the last planes of each volume in one piece, because neighbours look alike.

    Args:
        table: the pairs.
        rules: of the recipe and the command line.
        count_planes: number of planes of a pair of kind "volume"; called for no other and for none
            that is excluded.
        stack: True if the single-plane pictures of one folder are the planes of a volume, in order of their
            names (the recipe's `input.stack`).
        left_out: pairs of the table that cannot be used; like excluded ones they belong to no set, and keep their numbers
            in a stack: what a rule names is the same plane whatever else is missing.

    Raises:
        UsageError: if sets overlap, an entry is malformed, one of `--val` or `exclude` fits nothing, or no
            plane is left to train.
    """
    excluded = excluded_pairs(table, rules.exclude)
    out = {*excluded, *left_out}
    sizes = {p: count_planes(p) if p.kind == "volume" else 1 for p in table.pairs if p not in out}
    volumes = _volumes(sizes, stack, [p for p in table.pairs if p in out])
    notes: list[str] = []
    named: dict[str, _Planes] = {}
    brings_its_own = any(p.split in ("val", "test") for p in sizes)
    for name in SETS:
        of_user = name == "val" and bool(rules.override_val)
        entries: tuple[str, ...] = rules.override_val if of_user else getattr(rules, name)
        if brings_its_own and not of_user:
            bare = [e for e in entries if parse_entry(e)[0] == ""]
            entries = tuple(e for e in entries if e not in bare)
            notes += [f"the folders name a split: the rule {name} = {e!r} is passed over" for e in bare]
        if of_user:
            _refuse_excluded(entries, excluded, sizes)
        named[name] = _named(entries, sizes, volumes, name, notes, must_fit=of_user)
    if rules.override_val:
        for pair, planes in named["val"].items():
            named["train"].get(pair, set()).difference_update(planes)
    _refuse_overlap(named)
    sets = _with_rest(named, sizes)
    if not any(sets["val"].values()) and rules.val_share > 0:
        _hold_out(sets, volumes, rules.val_share, notes)
    if not any(sets["train"].values()):
        taken = ", ".join(f"{name} {sum(map(len, planes.values()))}" for name, planes in sets.items())
        raise UsageError(
            f"no plane of the {len(table)} pairs is left to train ({taken}, excluded {len(excluded)})",
            "at least one",
            "check [split] of the recipe, --val and --exclude",
        )
    return Split(
        train=_selections(sets["train"], sizes),
        val=_selections(sets["val"], sizes),
        test=_selections(sets["test"], sizes),
        unused=_selections(sets["unused"], sizes),
        excluded=tuple(excluded),
        notes=tuple(notes),
    )


def _selections(planes: _Planes, sizes: dict[Pair, int]) -> tuple[Selection, ...]:
    return tuple(Selection(pair, tuple(sorted(some)), num_planes=sizes[pair]) for pair, some in planes.items() if some)


def _volumes(sizes: dict[Pair, int], stack: bool, out: Sequence[Pair]) -> list[list[_Unit]]:
    """The volumes' planes in order: of each pair that holds several, and of each folder that is a stack.

    Pairs that are out have their place in a stack, too: they were never opened, and lie among single planes.
    """
    volumes = [[(pair, plane) for plane in range(size)] for pair, size in sizes.items() if size > 1]
    if stack:
        folders: dict[str, list[_Unit]] = {}
        singles = [pair for pair, size in sizes.items() if size == 1]
        for pair in sorted([*singles, *out], key=lambda pair: natural(pair.name)):
            folders.setdefault(pair.folder, []).append((pair, 0))
        volumes += [units for units in folders.values() if len(units) > 1]
    return volumes


def excluded_pairs(table: PairTable, entries: Sequence[str]) -> list[Pair]:
    """The pairs that entries of `exclude` name; by names alone, as these must never be opened.

    Raises:
        UsageError: if an entry is malformed or fits nothing, or if nothing is left.
    """
    excluded: set[Pair] = set()
    for entry in entries:
        pattern, planes = parse_entry(entry)
        if planes is not None:
            raise UsageError(
                f"--exclude {entry} names planes",
                "a name, a folder or a glob",
                "name the planes to keep in [split]",
            )
        fitting = {p for p in table.pairs if fits(pattern, p)}
        # a picture without labels is out anyway, but naming it is no mistake
        known = any(fits_name(pattern, p.stem, p.relative_to(table.root).as_posix()) for p in table.unlabelled)
        if not fitting and not known:
            raise UsageError(
                f"--exclude {entry} fits none of the {len(table)} pairs",
                "a name, a folder or a glob",
                _example(table.pairs),
            )
        excluded |= fitting
    if len(excluded) == len(table.pairs):
        raise UsageError(
            f"no plane of the {len(table)} pairs is left to train: --exclude {' --exclude '.join(entries)} leaves out all",
            "at least one",
            _example(table.pairs),
        )
    return [p for p in table.pairs if p in excluded]


def _refuse_excluded(entries: Sequence[str], excluded: Sequence[Pair], sizes: Iterable[Pair]) -> None:
    for entry in entries:
        pattern, _ = parse_entry(entry)
        out = [pair.name for pair in excluded if pattern and fits(pattern, pair)]
        if out and not any(fits(pattern, pair) for pair in sizes):
            raise UsageError(
                f"--val {entry} fits only what --exclude leaves out ({', '.join(out[:3])}{' ...' if out[3:] else ''})",
                "pictures that are not excluded",
                _example(sizes),
            )


def _example(pairs: Iterable[Pair]) -> str:
    names = [p.name for p in pairs][:3]
    return f'names here are like {", ".join(names)}; a glob over folders has a slash, "201?/*"'


def _named(
    entries: Sequence[str],
    sizes: dict[Pair, int],
    volumes: list[list[_Unit]],
    name: str,
    notes: list[str],
    must_fit: bool = False,
) -> _Planes:
    chosen: _Planes = {}
    for entry in entries:
        pattern, planes = parse_entry(entry)
        units: list[_Unit] = []
        if pattern == "" and planes is not None:
            # the annotated volumes of the training data are meant, not one that lies in a folder test/
            for volume in volumes:
                units += [(p, i) for p, i in volume[planes] if p in sizes and p.split in (None, "train", name)]
        else:
            for pair, size in sizes.items():
                if fits(pattern, pair):
                    units += [(pair, i) for i in range(size)[planes or slice(None)]]
        for pair, i_plane in units:
            chosen.setdefault(pair, set()).add(i_plane)
        if not units and must_fit:
            raise UsageError(f"--val {entry} fits nothing", "a name, a folder, a glob or planes a:b", _example(sizes))
        if not units:
            notes.append(f"the rule {name} = {entry!r} fits nothing here")
    return chosen


def _refuse_overlap(named: dict[str, _Planes]) -> None:
    clashes = []
    for first, second in combinations(SETS, 2):
        for pair in named[first].keys() & named[second].keys():
            common = named[first][pair] & named[second][pair]
            if common:
                clashes.append(f"{Selection(pair, tuple(sorted(common)))} is in {first} and {second}")
    if clashes:
        clashes.sort(key=natural)
        more = f" and {len(clashes) - 3} more" if len(clashes) > 3 else ""
        raise UsageError(
            "; ".join(clashes[:3]) + more,
            "sets without a common plane",
            "change [split] of the recipe or --val",
        )


def _with_rest(named: dict[str, _Planes], sizes: dict[Pair, int]) -> dict[str, _Planes]:
    """Add what folders say and the unnamed rest: four disjoint sets over all planes."""
    sets: dict[str, _Planes] = {name: {} for name in (*SETS, "unused")}
    rest = "unused" if any(named["train"].values()) else "train"
    for pair, size in sizes.items():
        left = set(range(size))
        for name in SETS:
            sets[name][pair] = set(named[name].get(pair, ()))
            left -= sets[name][pair]
        by_folder = pair.split if len(left) == size else None
        sets[by_folder or rest].setdefault(pair, set()).update(left)
    return sets


def _hold_out(sets: dict[str, _Planes], volumes: list[list[_Unit]], share: float, notes: list[str]) -> None:
    train = sets["train"]
    in_volumes = [[(p, i) for p, i in volume if i in train.get(p, ())] for volume in volumes]
    in_volumes = [volume for volume in in_volumes if len(volume) > 1]
    joined = {unit for volume in in_volumes for unit in volume}
    singles = [[(p, i)] for p, planes in train.items() for i in sorted(planes) if (p, i) not in joined]
    wholes = in_volumes + singles
    held: list[_Unit] = []
    if len(wholes) * share >= 1 or (not in_volumes and len(wholes) > 1):
        wholes.sort(key=lambda units: hashlib.blake2b(f"{units[0][0].name}[{units[0][1]}]".encode()).digest())
        for units in wholes[: min(max(1, round(len(wholes) * share)), len(wholes) - 1)]:
            held += units
    else:
        for volume in in_volumes:
            held += volume[-min(max(1, round(len(volume) * share)), len(volume) - 1) :]
    for pair, i_plane in held:
        train[pair].discard(i_plane)
        sets["val"].setdefault(pair, set()).add(i_plane)
    if held:
        notes.append(f"no validation set is named: {_count(held)} held out (share {share:g})")
    else:
        notes.append("one plane alone: no other can be held out to choose the best weights by")


def _count(units: Sequence[_Unit]) -> str:
    return "1 plane is" if len(units) == 1 else f"{len(units)} planes are"


def _runs(planes: Sequence[int]) -> str:
    """Ascending numbers as in 0:22, 25."""
    runs: list[tuple[int, int]] = []
    for plane in planes:
        if runs and plane == runs[-1][1]:
            runs[-1] = (runs[-1][0], plane + 1)
        else:
            runs.append((plane, plane + 1))
    return ", ".join(str(a) if b == a + 1 else f"{a}:{b}" for a, b in runs)
