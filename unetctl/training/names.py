"""What the names of files and folders say about pictures and labels.

parse_stem("H01_estGT") -> (True, "H01")        is it a label, and the rest of the name
folder_role("DIBCO2009-GT-Test") -> Role(is_label=True, key="dibc02009test", ...)
natural("t9") < natural("t10")
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

SplitName = Literal["train", "val", "test"]

VOLUME_SUFFIXES = {".tif", ".tiff", ".npy", ".zarr", ".h5", ".hdf5", ".mrc"}
PAGE_SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".webp", ".avif", ".jp2", ".jpx", ".j2k", ".pbm",
    ".pgm", ".ppm", ".pnm",
}  # fmt: skip
#: Folders of that very name hold pictures, or labels.
IMAGE_FOLDERS = {"images", "image", "imgs", "img", "inputs", "input", "raw", "originals", "original"}
LABEL_FOLDERS = {
    "labels", "label", "masks", "mask", "gt", "gts", "groundtruth", "ground_truth", "ground-truth", "ground truth",
    "annotations", "annotation", "targets", "target",
}  # fmt: skip
SPLIT_FOLDERS: dict[str, SplitName] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip

_LABEL_STEM = r"labels?|masks?|gt|est[-_ ]?gt|ground[-_ ]?truth|targets?|annotations?|segmentation|seg"
_IMAGE_STEM = "volume|inputs?|images?|img|raw|original"
# Words inside longer names of folders; the second ones say nothing by themselves and are passed over.
_LABEL_WORDS = {"gt", "gts", "estgt", "gtimages", "groundtruth", "truth", "labels", "label", "masks", "mask"} | {
    "annotations", "annotation", "targets", "target",
}  # fmt: skip
_IMAGE_WORDS = {"images", "image", "imgs", "img", "inputs", "input", "raw", "originals", "original", "dataset", "data"} | {
    "scans", "scan", "pages", "ground", "est",
}  # fmt: skip
_WORD = re.compile(r"GT|[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")


@dataclass(frozen=True)
class Role:
    """What a folder's name says.

    Attributes:
        is_label: True if one of its words means labels.
        key: what is left without words for pictures and labels; equal for the two folders of a set.
        bare: the key without train, val and test.
        split: of the key, if it is train, val or test alone.
    """

    is_label: bool
    key: str
    bare: str
    split: SplitName | None


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorting key that puts "t9" before "t10"."""
    return tuple((0, int(s), "") if s.isdecimal() else (1, 0, s) for s in re.split(r"(\d+)", name) if s)


def stem_of(name: str) -> str:
    """The name without its suffix, ".ome.tif" being one."""
    stem = PurePosixPath(name).stem
    return stem[:-4] if stem.lower().endswith(".ome") else stem


def parse_stem(stem: str) -> tuple[bool | None, str]:
    """(is it a label, the rest of the name) from words at the front or the end; None if no word says."""
    # a letter is a word only alone, before a number or a split: "cell_y" is no label of "cell"
    letter = re.fullmatch(r"([xy])(?:[-_. ](train|val|test|\d+))?", stem, re.IGNORECASE)
    if letter:
        return letter.group(1).lower() == "y", letter.group(2) or ""
    glued = re.fullmatch(r"(.*\d)(?:GT|gt)", stem)
    if glued:
        return True, glued.group(1)
    for words, is_label in ((_LABEL_STEM, True), (_IMAGE_STEM, False)):
        found = re.fullmatch(rf"(.+?)[-_. ](?:{words})", stem, re.IGNORECASE) or re.fullmatch(
            rf"(?:{words})(?:[-_. ](.+))?", stem, re.IGNORECASE
        )
        if found:
            return is_label, found.group(1) or ""
    return None, stem


def keys_of(stem: str, rest: str) -> tuple[str, str, str]:
    """Names under which partners are looked for, the strictest first."""
    # what follows "images" or "gt" may be zero-padded on one side only, or written in other cases
    return stem, rest, str(int(rest)) if rest.isdecimal() else rest.casefold()


def folder_role(name: str) -> Role:
    """What a folder's name says, split into words at case, digits and punctuation."""
    words = [word.lower() for word in _WORD.findall(name)]
    kept = [word for word in words if word not in _LABEL_WORDS and word not in _IMAGE_WORDS]
    key, bare = "".join(kept), "".join(word for word in kept if word not in SPLIT_FOLDERS)
    # the contest's own archive of 2009 is spelt DIBC02009, with a zero, and its ground truth DIBCO2009
    is_label = any(word in _LABEL_WORDS for word in words)
    return Role(is_label, key.replace("o", "0"), bare.replace("o", "0"), SPLIT_FOLDERS.get(key))
