"""Which picture belongs to which labels: found by names alone, no file is opened.

    find_pairs(folder) -> PairTable(root, pairs, unlabelled, orphans, problems)
    PairTable.describe() -> lines to print
    Pair(name, image, labels, kind, split, layout, i_image)

Layouts, at any depth, also mixed:

    a-volume.tif + a-labels.tif              beside each other; also a.png + a_mask.png,
                                             input_01.npy + label_01.npy, x.npy + y.npy
    images/ + labels|masks|gt|label|mask/    equal names, or with _gt, _mask, -labels ...;
                                             subfolders on both sides must agree
    train|val|test/ around any of them       says which split the pair is meant for
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from unetctl.errors import InputError

Kind = Literal["volume", "page"]
SplitName = Literal["train", "val", "test"]

LAYOUTS = (
    "a-volume.tif + a-labels.tif beside each other, images/ + labels|masks|gt/ with equal names, "
    "or train|val|test/ folders with input_*.npy + label_*.npy or x.npy + y.npy"
)
_VOLUME_SUFFIXES = {".tif", ".tiff", ".npy", ".zarr", ".h5", ".hdf5", ".mrc"}
_PAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".jp2", ".pgm", ".ppm"}
_IMAGE_FOLDERS = {"images", "image", "imgs", "img", "inputs", "input", "raw"}
_LABEL_FOLDERS = {
    "labels",
    "label",
    "masks",
    "mask",
    "gt",
    "groundtruth",
    "ground_truth",
    "annotations",
    "targets",
    "target",
}
_SPLIT_FOLDERS: dict[str, SplitName] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_LABEL_WORDS = "labels?|masks?|gt|targets?|segmentation|seg"
_IMAGE_WORDS = "volume|inputs?|images?|img|raw"


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
    """

    root: Path
    pairs: tuple[Pair, ...]
    unlabelled: tuple[Path, ...]
    orphans: tuple[Path, ...]
    problems: tuple[str, ...]

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
        lines = [f"{_plural(len(self.pairs), 'pair')} in {self.root} ({'; '.join(layouts)})"]
        lines += [
            f"  {pair.name}: {self._shown(pair.image)} + {self._shown(pair.labels)}"
            for pair in self.pairs[:most]
        ]
        if len(self.pairs) > most:
            lines.append(f"  ... and {len(self.pairs) - most} more, the last one {self.pairs[-1].name}")
        for what, paths in (
            ("without labels, left out", self.unlabelled),
            ("labels without a picture, left out", self.orphans),
        ):
            if paths:
                shown = ", ".join(self._shown(p) for p in paths[:most]) + (
                    " ..." if len(paths) > most else ""
                )
                lines.append(f"{what}: {len(paths)} ({shown})")
        lines += [f"problem: {problem}" for problem in self.problems[:most]]
        if len(self.problems) > most:
            lines.append(f"problem: ... and {len(self.problems) - most} more like these")
        return lines

    def _shown(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


@dataclass(frozen=True)
class _Found:
    """A file and its part in a pair: files of one `group` are partners if they share a key."""

    path: Path
    relative: PurePosixPath
    stem: str
    is_label: bool
    group: tuple[str, str]
    keys: tuple[str, ...]
    role_folder: str


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
    for relative in _pictures(root):
        found = _classify(root, relative)
        groups.setdefault(found.group, []).append(found)
    pairs: list[Pair] = []
    unlabelled: list[Path] = []
    orphans: list[Path] = []
    problems: list[str] = []
    for members in groups.values():
        _match(members, pairs, unlabelled, orphans, problems)
    if not pairs:
        seen = f"{root} holds " + (
            f"{_plural(len(unlabelled), 'picture')} and {_plural(len(orphans), 'label file')}, "
            "but no two that belong together"
            if unlabelled or orphans
            else "no pictures"
        )
        if problems:
            seen += f" ({problems[0]})"
        raise InputError(seen, "pictures with labels", f"known layouts: {LAYOUTS}")
    pairs = _with_unique_names(pairs)
    return PairTable(
        root,
        tuple(sorted(pairs, key=lambda p: natural(p.name))),
        tuple(sorted(unlabelled)),
        tuple(sorted(orphans)),
        tuple(problems),
    )


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorting key that puts "t9" before "t10"."""
    return tuple((0, int(s), "") if s.isdecimal() else (1, 0, s) for s in re.split(r"(\d+)", name) if s)


def _plural(num: int, noun: str) -> str:
    return f"{num} {noun}" + ("" if num == 1 else "s")


def _pictures(root: Path) -> Iterator[PurePosixPath]:
    known = _VOLUME_SUFFIXES | _PAGE_SUFFIXES
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
            if not name.startswith(".") and PurePosixPath(name).suffix.lower() in known:
                yield base / name


def _stem(name: str) -> str:
    stem = PurePosixPath(name).stem
    return stem[:-4] if stem.lower().endswith(".ome") else stem


def _parse(stem: str) -> tuple[bool | None, str]:
    """(is it a label, the rest of the name) from words at the front or the end; None if no word says."""
    # a letter is a word only alone, before a number or a split: "cell_y" is no label of "cell"
    letter = re.fullmatch(r"([xy])(?:[-_. ](train|val|test|\d+))?", stem, re.IGNORECASE)
    if letter:
        return letter.group(1).lower() == "y", letter.group(2) or ""
    for words, is_label in ((_LABEL_WORDS, True), (_IMAGE_WORDS, False)):
        found = re.fullmatch(rf"(.+)[-_. ](?:{words})", stem, re.IGNORECASE) or re.fullmatch(
            rf"(?:{words})(?:[-_. ](.+))?", stem, re.IGNORECASE
        )
        if found:
            return is_label, found.group(1) or ""
    return None, stem


def _classify(root: Path, relative: PurePosixPath) -> _Found:
    stem = _stem(relative.name)
    is_label, rest = _parse(stem)
    # what follows "images" or "gt" in a name may be zero-padded on one side only
    keys = (stem, rest, str(int(rest)) if rest.isdecimal() else rest)
    folders = relative.parts[:-1]
    for i in reversed(range(len(folders))):
        folder = folders[i].lower()
        if folder in _IMAGE_FOLDERS or folder in _LABEL_FOLDERS:
            group = ("/".join(folders[:i]), "/".join(folders[i + 1 :]))
            return _Found(root / relative, relative, stem, folder in _LABEL_FOLDERS, group, keys, folders[i])
    # beside each other only the word tells them apart: the bare stem is no key
    return _Found(
        root / relative, relative, stem, bool(is_label), ("/".join(folders), "\0beside"), keys[1:], ""
    )


def _match(
    members: list[_Found], pairs: list[Pair], unlabelled: list[Path], orphans: list[Path], problems: list[str]
) -> None:
    images = [m for m in members if not m.is_label]
    labels = [m for m in members if m.is_label]
    for i_image_key, i_label_key in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 2)):
        by_key: dict[str, tuple[list[_Found], list[_Found]]] = {}
        for found in images:
            by_key.setdefault(found.keys[min(i_image_key, len(found.keys) - 1)], ([], []))[0].append(found)
        for found in labels:
            by_key.setdefault(found.keys[min(i_label_key, len(found.keys) - 1)], ([], []))[1].append(found)
        for key, (some_images, some_labels) in by_key.items():
            if not some_images or not some_labels:
                continue
            if len(some_images) == len(some_labels) == 1:
                pairs.append(_pair(some_images[0], some_labels[0], key))
            else:
                names = [
                    ", ".join(f.relative.as_posix() for f in some) for some in (some_images, some_labels)
                ]
                problems.append(f"names fit more than once: {names[0]} with {names[1]}")
            images = [f for f in images if f not in some_images]
            labels = [f for f in labels if f not in some_labels]
    unlabelled += [f.path for f in images]
    orphans += [f.path for f in labels]


def _pair(image: _Found, labels: _Found, key: str) -> Pair:
    folders = image.relative.parts[:-1]
    split: SplitName | None = None
    for folder in folders:
        split = _SPLIT_FOLDERS.get(folder.lower(), split)
    if split is None and not image.role_folder:
        split = _SPLIT_FOLDERS.get(key.lower())
    if image.role_folder:
        i_role = len(folders) - 1 - folders[::-1].index(image.role_folder)
        folders = folders[:i_role] + folders[i_role + 1 :]
        layout = f"{image.role_folder}/ + {labels.role_folder}/"
    else:
        layout = f"{_pattern(image.stem, key)} + {_pattern(labels.stem, key)}"
    kind: Kind = "volume" if image.path.suffix.lower() in _VOLUME_SUFFIXES else "page"
    name = "/".join([*folders, image.stem])
    return Pair(name, image.path, labels.path, kind, split, layout, 0, image.relative.parent.as_posix())


def _pattern(stem: str, key: str) -> str:
    return stem.replace(key, "*") if key else stem


def _with_unique_names(pairs: list[Pair]) -> list[Pair]:
    """Names of pictures that only suffix or image folder tells apart become their full relative paths."""
    count: dict[str, int] = {}
    for pair in pairs:
        count[pair.name] = count.get(pair.name, 0) + 1
    return [
        pair
        if count[pair.name] == 1
        else Pair(
            f"{pair.folder}/{pair.image.name}",
            pair.image,
            pair.labels,
            pair.kind,
            pair.split,
            pair.layout,
            pair.i_image,
            pair.folder,
        )
        for pair in pairs
    ]
