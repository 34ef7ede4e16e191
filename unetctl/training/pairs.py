"""Which picture belongs to which labels: found by names alone, no file is opened.

    find_pairs(folder) -> PairTable(root, pairs, unlabelled, orphans, problems)
    PairTable.describe() -> lines to print
    Pair(name, image, labels, kind, split, layout, i_image)

Layouts, at any depth, also mixed:

    a-volume.tif + a-labels.tif              beside each other; also a.png + a_mask.png,
                                             input_01.npy + label_01.npy, x.npy + y.npy
    images/ + labels|masks|gt|label|mask/    equal names, or with _gt, _mask, -labels ...;
                                             subfolders on both sides must agree
    A_Dataset/ + A_GT/, OriginalImages/ +    folders beside each other that differ only in such words, as the archives of
    GTimages/, pages + gt/ among them        the DIBCO contests; 1.bmp + 1_gt.bmp or H01.png + H01_estGT.tiff in them
    train|val|test/ around any of them       says which split the pair is meant for
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from unetctl.errors import InputError
from unetctl.training.names import (
    IMAGE_FOLDERS,
    LABEL_FOLDERS,
    PAGE_SUFFIXES,
    SPLIT_FOLDERS,
    VOLUME_SUFFIXES,
    SplitName,
    folder_role,
    keys_of,
    natural,
    parse_stem,
    stem_of,
)

__all__ = [
    "LAYOUTS",
    "Kind",
    "NoPairsError",
    "Pair",
    "PairTable",
    "SplitName",
    "find_pairs",
    "natural",
    "pictures_below",
]

Kind = Literal["volume", "page"]

LAYOUTS = (
    "a-volume.tif + a-labels.tif beside each other, images/ + labels|masks|gt/ with equal names, "
    "or train|val|test/ folders with input_*.npy + label_*.npy or x.npy + y.npy"
)

_TABLE_SUFFIXES = {".csv", ".tsv", ".xls", ".xlsx"}


@dataclass(frozen=True)
class Pair:
    """A picture and its labels.

    Attributes:
        name: relative path without the `images/` folder and the suffix, e.g. "2009/H01", "train-volume";
            unique in a table.
        image: path of the picture.
        labels: path of its labels.
        kind: "volume" if the format can hold several planes (only opening it would tell), else "page".
        split: what the folders (or a file name such as test-volume.tif) say, None if they say nothing.
        layout: how it was recognised, e.g. "images/ + gt/".
        i_image: index of the picture inside its file.
        folder: relative path of the picture's folder, "." for the top.
    """

    name: str
    image: Path
    labels: Path
    kind: Kind
    split: SplitName | None
    layout: str
    i_image: int = 0
    folder: str = "."

    def __str__(self) -> str:
        return f"{self.name}: {self.image.name} + {self.labels.name}"


@dataclass(frozen=True)
class PairTable:
    """What a folder holds for training.

    Attributes:
        root: the folder.
        pairs: sorted by name, numbers by value.
        unlabelled: pictures without labels: left out.
        orphans: labels without a picture: left out.
        problems: sentences about names that fit more than once; those pictures are left out.
        tables: files of figures or text beside the pictures, which nobody reads.
    """

    root: Path
    pairs: tuple[Pair, ...]
    unlabelled: tuple[Path, ...]
    orphans: tuple[Path, ...]
    problems: tuple[str, ...]
    tables: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def __str__(self) -> str:
        left_out = f"{len(self.unlabelled)} unlabelled, {len(self.orphans)} orphan labels"
        return f"{self.root}: {len(self.pairs)} pairs, {left_out}"

    def describe(self, most: int = 5) -> list[str]:
        """Lines for the user: what was paired, what was left out and why; at most `most` examples of each."""
        layouts = sorted({p.layout for p in self.pairs})
        told = "; ".join(layouts[:most]) + ("; ..." if len(layouts) > most else "")
        lines = [f"{_plural(len(self.pairs), 'pair')} in {self.root} ({told})"]
        lines += [
            f"  {pair.name}: {self._shown(pair.image)} + {self._shown(pair.labels)}" for pair in self.pairs[:most]
        ]
        if len(self.pairs) > most:
            lines.append(f"  ... and {len(self.pairs) - most} more, the last one {self.pairs[-1].name}")
        for what, paths in (
            ("without labels, left out", self.unlabelled),
            ("labels without a picture, left out", self.orphans),
            ("tables, not read", self.tables),
        ):
            if paths:
                shown = ", ".join(self._shown(p) for p in paths[:most]) + (" ..." if len(paths) > most else "")
                lines.append(f"{what}: {len(paths)} ({shown})")
        lines += [f"problem: {problem}" for problem in self.problems[:most]]
        if len(self.problems) > most:
            lines.append(f"problem: ... and {len(self.problems) - most} more like these")
        return lines

    def _shown(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


@dataclass(frozen=True)
class _Found:
    """A file and its part in a pair: files of one `group` are partners if they share a key.

    The folder that says which part it is has the place `i_role` among its folders; names leave it out unless
    `keeps_role`: it says more than that.
    """

    path: Path
    relative: PurePosixPath
    stem: str
    is_label: bool
    group: tuple[str, str]
    keys: tuple[str, ...]
    role_folder: str
    i_role: int = -1
    keeps_role: bool = False
    split: SplitName | None = None


class NoPairsError(InputError):
    """A folder without a picture that has labels; `unlabelled` are its pictures, `orphans` its labels."""

    def __init__(self, seen: str, unlabelled: Sequence[Path], orphans: Sequence[Path]) -> None:
        super().__init__(seen, "pictures with labels", f"known layouts: {LAYOUTS}")
        self.unlabelled, self.orphans = tuple(unlabelled), tuple(orphans)


def find_pairs(folder: str | Path) -> PairTable:
    """Pair pictures with labels below `folder`, by names alone.

    Hidden folders and run folders (``*.run``) are not entered; a ``.zarr`` folder counts as a file.

    Args:
        folder: where the data lies.

    Returns:
        The table, with at least one pair.

    Raises:
        InputError: if the folder is missing or holds no pair; names the layouts that would be understood.
    """
    root = Path(folder)
    if not root.is_dir():
        seen = f"{root} is a file" if root.exists() else f"{root} does not exist"
        raise InputError(seen, "a folder with pictures and labels", f"known layouts: {LAYOUTS}")
    groups: dict[tuple[str, str], list[_Found]] = {}
    tables: list[Path] = []
    for relative in pictures_below(root, tables):
        found = _classify(root, relative)
        groups.setdefault(found.group, []).append(found)
    pairs: list[Pair] = []
    problems: list[str] = []
    left = [found for members in groups.values() for found in _match(members, pairs, problems)]
    regrouped, single = _among_siblings(left)
    for members in regrouped:
        single += _match(members, pairs, problems)
    unlabelled = [found.path for found in single if not found.is_label]
    orphans = [found.path for found in single if found.is_label]
    if not pairs:
        seen = f"{root} holds " + (
            f"{_plural(len(unlabelled), 'picture')}{_example(root, unlabelled)} and "
            f"{_plural(len(orphans), 'label file')}{_example(root, orphans)}, but no two that belong together"
            if unlabelled or orphans
            else "no pictures"
        )
        if problems:
            seen += f" ({problems[0]})"
        raise NoPairsError(seen, unlabelled, orphans)
    pairs = _with_unique_names(pairs)
    return PairTable(
        root,
        tuple(sorted(pairs, key=lambda p: natural(p.name))),
        tuple(sorted(unlabelled)),
        tuple(sorted(orphans)),
        tuple(problems),
        tuple(tables),
    )


def _example(root: Path, paths: Sequence[Path]) -> str:
    """One of them in brackets, if there are any: mostly it shows what is wrong with all."""
    return f" ({paths[0].relative_to(root)}{' ...' * (len(paths) > 1)})" if paths else ""


def _plural(num: int, noun: str) -> str:
    return f"{num} {noun}" + ("" if num == 1 else "s")


def pictures_below(root: Path, tables: list[Path]) -> Iterator[PurePosixPath]:
    """Paths, relative to a folder, of all pictures and stores below it.

    Args:
        root: the folder; links are followed, none twice.
        tables: gets the paths of the tables that lie among them.
    """
    known = VOLUME_SUFFIXES | PAGE_SUFFIXES
    entered: set[str] = set()
    for parent, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(parent)
        if real in entered:  # a link back up
            folders.clear()
            continue
        entered.add(real)
        base = PurePosixPath(Path(parent).relative_to(root).as_posix())
        stores = sorted(f for f in folders if f.lower().endswith(".zarr"))
        folders[:] = sorted(
            f for f in folders if f not in stores and not f.startswith((".", "__")) and not f.endswith(".run")
        )
        for name in sorted(files) + stores:
            if name == "preview.png" and "preview.html" in files:  # the sheet of an earlier `train --preview`
                continue
            suffix = PurePosixPath(name).suffix.lower()
            if not name.startswith(".") and suffix in known:
                yield base / name
            elif suffix in _TABLE_SUFFIXES:
                tables.append(root / base / name)


def _classify(root: Path, relative: PurePosixPath) -> _Found:
    stem = stem_of(relative.name)
    is_label, rest = parse_stem(stem)
    keys = keys_of(stem, rest)
    folders = relative.parts[:-1]
    for i in reversed(range(len(folders))):
        folder = folders[i].lower()
        if folder in IMAGE_FOLDERS or folder in LABEL_FOLDERS:
            group = ("/".join(folders[:i]), "/".join(folders[i + 1 :]))
            return _Found(root / relative, relative, stem, folder in LABEL_FOLDERS, group, keys, folders[i], i)
    if is_label:  # beside each other only the word tells them apart: the bare stem is no key
        keys = (rest, *keys[1:])
    return _Found(root / relative, relative, stem, bool(is_label), ("/".join(folders), "\0beside"), keys, "")


def _match(members: list[_Found], pairs: list[Pair], problems: list[str]) -> list[_Found]:
    """Adds the pairs of one group, and what fits more than once; returns the rest."""
    images = [m for m in members if not m.is_label]
    labels = [m for m in members if m.is_label]
    for i_image_key, i_label_key in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 2)):
        by_key: dict[str, tuple[list[_Found], list[_Found]]] = {}
        for found in images:
            by_key.setdefault(found.keys[i_image_key], ([], []))[0].append(found)
        for found in labels:
            by_key.setdefault(found.keys[i_label_key], ([], []))[1].append(found)
        matched: set[PurePosixPath] = set()
        for key, (some_images, some_labels) in by_key.items():
            if not some_images or not some_labels:
                continue
            matched.update(found.relative for found in (*some_images, *some_labels))
            if len(some_images) == len(some_labels) == 1:
                pairs.append(_pair(some_images[0], some_labels[0], key))
            else:
                names = [", ".join(f.relative.as_posix() for f in some) for some in (some_images, some_labels)]
                problems.append(f"names fit more than once: {names[0]} with {names[1]}")
        images = [found for found in images if found.relative not in matched]
        labels = [found for found in labels if found.relative not in matched]
    return images + labels


def _among_siblings(left: list[_Found]) -> tuple[list[list[_Found]], list[_Found]]:
    """Groups of files in folders beside each other, told apart by words in the folders' names; and the others."""
    groups: dict[tuple[str, str, str], list[_Found]] = {}
    images: list[_Found] = []
    others: list[_Found] = []
    for found in left:
        folders = found.relative.parts[:-1]
        roles = [folder_role(folder) for folder in folders]
        i = max((i for i, role in enumerate(roles) if role.is_label), default=None)
        if i is not None:
            group = "/".join(folders[:i]), roles[i].key, "/".join(folders[i + 1 :])
            groups.setdefault(group, []).append(replace(found, is_label=True, role_folder=folders[i], i_role=i))
        else:
            (others if found.is_label else images).append(found)
    label_keys: dict[str, dict[str, str]] = {}
    for (above, key, _), members in groups.items():
        label_keys.setdefault(above, {})[key] = folder_role(members[0].role_folder).bare
    siblings: dict[str, set[str]] = {}
    for found in images:
        folders = found.relative.parts[:-1]
        for i, folder in enumerate(folders):
            siblings.setdefault("/".join(folders[:i]), set()).add(folder)
    for found in images:
        for group, i, is_within in _sibling_groups(found, label_keys, siblings):
            if group in groups:
                groups[group].append(_moved(found, i, is_within))
                break
        else:
            others.append(found)
    return list(groups.values()), others


def _sibling_groups(
    found: _Found, label_keys: dict[str, dict[str, str]], siblings: dict[str, set[str]]
) -> Iterator[tuple[tuple[str, str, str], int, bool]]:
    """Where a picture's labels may be, the likeliest first: (group, place of its own folder, is that among the labels')."""
    folders = found.relative.parts[:-1]
    for i in reversed(range(len(folders))):
        yield ("/".join(folders[:i]), folder_role(folders[i]).key, "/".join(folders[i + 1 :])), i, False
    for i in reversed(range(len(folders) + 1)):  # gt/ among the pictures themselves
        yield ("/".join(folders[:i]), "", "/".join(folders[i:])), i, True
    for i in reversed(range(len(folders))):
        above, bare = "/".join(folders[:i]), folder_role(folders[i]).bare
        keys, around = label_keys.get(above, {}), siblings[above]
        alike = [key for key, other in keys.items() if other == bare]
        if len(alike) == 1 and sum(folder_role(one).bare == bare for one in around) == 1:  # a_test_images + a_gt
            yield (above, alike[0], "/".join(folders[i + 1 :])), i, False
        if len(keys) == len(around) == 1:  # one folder of each kind: no other can be meant
            yield (above, next(iter(keys)), "/".join(folders[i + 1 :])), i, False


def _moved(found: _Found, i: int, is_within: bool) -> _Found:
    if is_within:
        return replace(found, role_folder=".", i_role=-1)
    folder = found.relative.parts[i]
    role = folder_role(folder)
    return replace(found, role_folder=folder, i_role=i, keeps_role=bool(role.key), split=role.split)


def _pair(image: _Found, labels: _Found, key: str) -> Pair:
    folders = image.relative.parts[:-1]
    split: SplitName | None = image.split
    for folder in folders:
        split = SPLIT_FOLDERS.get(folder.lower(), split)
    if split is None and not image.role_folder:
        split = SPLIT_FOLDERS.get(key.lower())
    if image.role_folder:
        if image.i_role >= 0 and not image.keeps_role:
            folders = folders[: image.i_role] + folders[image.i_role + 1 :]
        layout = f"{image.role_folder}/ + {labels.role_folder}/"
    else:
        layout = f"{_pattern(image.stem, key)} + {_pattern(labels.stem, key)}"
    kind: Kind = "volume" if image.path.suffix.lower() in VOLUME_SUFFIXES else "page"
    name = "/".join([*folders, image.stem])
    return Pair(name, image.path, labels.path, kind, split, layout, 0, image.relative.parent.as_posix())


def _pattern(stem: str, key: str) -> str:
    return stem.replace(key, "*") if key else stem


def _with_unique_names(pairs: list[Pair]) -> list[Pair]:
    """Names of pictures that only suffix or image folder tells apart become their full relative paths."""
    count: dict[str, int] = {}
    for pair in pairs:
        count[pair.name] = count.get(pair.name, 0) + 1
    return [pair if count[pair.name] == 1 else replace(pair, name=f"{pair.folder}/{pair.image.name}") for pair in pairs]
