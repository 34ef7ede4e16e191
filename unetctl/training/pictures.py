"""Clean pictures to learn repairing from: any folder of them, or damaged ones beside what they were.

    find_pictures(folder) -> PairTable; a picture alone is its own truth
    load_pictures(selection, recipe) -> LoadedPictures(planes, value_range, was_grey, had_alpha, notes)

Layouts, at any depth:

    any pictures                                         clean; damage is made up on them in training
    corrupted_imgs/ + src_imgs/ + binary_masks/          damaged, clean, and where (.npy; 0 is whole), by equal names

A plane of a clean picture has its C channels and a target of zeros. One of a damaged picture has 2 C channels, the damaged
and the clean, and the mask as its target; see `unetctl.training.restoring`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.geometry.box import Box
from unetctl.recipe.schema import Recipe
from unetctl.runtime.grey_scale import Scaling
from unetctl.runtime.planning import choose_channels
from unetctl.runtime.reading import has_equal_channels, read_channels
from unetctl.sources.coloured import coloured
from unetctl.training.crops import Plane
from unetctl.training.names import SPLIT_FOLDERS, VOLUME_SUFFIXES, SplitName, natural
from unetctl.training.pairs import Kind, Pair, PairTable, pictures_below
from unetctl.training.splits import Selection
from unetctl.training.survey import info_of, opened, plane_shape
from unetctl.training.truth import place

DAMAGED, CLEAN, MASKS = "corrupted_imgs", "src_imgs", "binary_masks"

#: Where no mask says it, pixels that differ by more than this share of white are damaged; JPEG changes less.
_LEAST_DIFFERENCE = 8 / 255
#: SSIM looks at windows of so many pixels.
_LEAST_SCORED_PX = 7
Pixels = npt.NDArray[Any]


@dataclass(frozen=True)
class LoadedPictures:
    """The chosen planes of one picture in memory.

    Attributes:
        planes: see the module.
        value_range: lowest and highest value, before normalisation.
        was_grey, had_alpha: see `Picture`.
        notes: sentences for the user.
    """

    planes: tuple[Plane, ...]
    value_range: tuple[float, float]
    was_grey: bool
    had_alpha: bool
    notes: tuple[str, ...]


def find_pictures(folder: str | Path) -> PairTable:
    """The pictures below a folder, by names alone.

    Raises:
        InputError: if the folder is missing or holds none.
    """
    root = Path(folder)
    if not root.is_dir():
        seen = f"{root} is a file" if root.exists() else f"{root} does not exist"
        raise InputError(seen, "a folder of pictures")
    found: dict[str, dict[str, list[PurePosixPath]]] = {}
    alone: list[PurePosixPath] = []
    tables: list[Path] = []
    for relative in pictures_below(root, tables):
        role = next((p.lower() for p in reversed(relative.parts[:-1]) if p.lower() in (DAMAGED, CLEAN, MASKS)), None)
        if role is None:
            alone += [relative] if relative.suffix.lower() != ".npy" else []
        else:
            found.setdefault(_without_role(relative), {}).setdefault(role, []).append(relative)
    pairs, problems, orphans, unlabelled = [], [], [], []
    for roles in found.values():
        if DAMAGED not in roles:  # clean ones that nothing was done to yet
            alone += roles.get(CLEAN, [])
            continue
        left = Partners(roles.get(CLEAN, []))
        for path in roles[DAMAGED]:
            truth = left.of(path)
            if truth is None:
                unlabelled.append(root / path)
                problems.append(f"{path} has no clean picture of its name in {CLEAN}/")
            else:
                left.remove(truth)
                pairs.append(_pair(root, path, truth, f"{DAMAGED}/ + {CLEAN}/"))
        orphans += [root / path for path in left]
    if pairs and alone:
        problems.append(f"{len(alone)} pictures outside {DAMAGED}/ and {CLEAN}/ are left out")
    elif not pairs:
        pairs = [_pair(root, path, path, "clean pictures") for path in alone]
    if not pairs:
        raise InputError(
            f"{root} holds no pictures" + (f" that serve: {problems[0]}" if problems else ""), "clean pictures"
        )
    num_of_name = Counter(pair.name for pair in pairs)
    pairs = [pair if num_of_name[pair.name] == 1 else _renamed(root, pair) for pair in pairs]
    pairs.sort(key=lambda pair: natural(pair.name))
    return PairTable(root, tuple(pairs), tuple(unlabelled), tuple(orphans), tuple(problems), tuple(tables))


def describe(table: PairTable) -> list[str]:
    """Lines for the user."""
    num_damaged = sum(is_damaged(pair) for pair in table)
    kind = "damaged pictures with their clean ones" if num_damaged else "clean pictures, to be damaged in training"
    return [f"{len(table)} {kind} in {table.root}", *(f"problem: {problem}" for problem in table.problems[:5])]


def is_damaged(pair: Pair) -> bool:
    """True if the pair is a damaged picture and a clean one; else it is one clean picture."""
    return pair.image != pair.labels


class Partners:
    """Files of one side, to be found by the names of the other; a hundred thousand of them at no cost.

    Args:
        paths: of the files.
    """

    def __init__(self, paths: Iterable[PurePosixPath]) -> None:
        self._by_stem: dict[str, dict[PurePosixPath, None]] = {}
        self._by_number: dict[int | None, dict[PurePosixPath, None]] = {}
        for path in paths:
            self._by_stem.setdefault(path.stem.lower(), {})[path] = None
            self._by_number.setdefault(_number(path), {})[path] = None

    def of(self, path: PurePosixPath) -> PurePosixPath | None:
        """The one that has the name of `path` but for the suffix, or else alone its last number (img_7, mask_7)."""
        alike = self._by_stem.get(path.stem.lower())
        if not alike and (number := _number(path)) is not None:
            alike = self._by_number.get(number)
        return next(iter(alike)) if alike and len(alike) == 1 else None

    def remove(self, path: PurePosixPath) -> None:
        """Takes one out: each is the partner of one only."""
        del self._by_stem[path.stem.lower()][path]
        del self._by_number[_number(path)][path]

    def __iter__(self) -> Iterator[PurePosixPath]:
        """Those that are left, names in order of the first of each."""
        return (path for alike in self._by_stem.values() for path in alike)


def _number(path: PurePosixPath) -> int | None:
    numbers = re.findall(r"\d+", path.stem)
    return int(numbers[-1]) if numbers else None


def _without_role(path: PurePosixPath) -> str:
    return "/".join(p for p in path.parts[:-1] if p.lower() not in (DAMAGED, CLEAN, MASKS))


def _pair(root: Path, image: PurePosixPath, truth: PurePosixPath, layout: str) -> Pair:
    split: SplitName | None = None
    for folder in image.parts[:-1]:
        split = SPLIT_FOLDERS.get(folder.lower(), split)
    name = "/".join([*(p for p in image.parts[:-1] if p.lower() not in (DAMAGED, CLEAN)), image.stem])
    kind: Kind = "volume" if image.suffix.lower() in VOLUME_SUFFIXES else "page"
    return Pair(name, root / image, root / truth, kind, split, layout, 0, image.parent.as_posix())


def _renamed(root: Path, pair: Pair) -> Pair:
    relative = pair.image.relative_to(root).as_posix()
    return Pair(relative, pair.image, pair.labels, pair.kind, pair.split, pair.layout, pair.i_image, pair.folder)


def load_pictures(selection: Selection, recipe: Recipe) -> LoadedPictures:
    """Reads the chosen planes of a picture, nearly always one.

    Args:
        selection: of a pair that `find_pictures` has found.
        recipe: says channels and scale.

    Raises:
        InputError: if it cannot be read, or does not fit its clean picture or its mask.
    """
    pair = selection.pair
    planes, pictures, notes = [], [], []
    for i_plane in selection.planes:
        name = pair.name if selection.planes == (0,) else f"{pair.name}[{i_plane}]"
        picture = read_picture(pair.image, i_plane, recipe)
        _check_extent(pair, picture, recipe)
        pictures.append(picture)
        if not is_damaged(pair):
            # zeros that take no memory: where there is damage is not known before it is made up
            target = np.broadcast_to(np.zeros((), np.uint8), (1, *picture.pixels.shape[1:]))
            planes.append(Plane(name, picture.pixels, target))
            continue
        clean = read_picture(pair.labels, i_plane, recipe).pixels
        mask, note = mask_of(pair, picture.pixels, clean)
        notes += [note] if note else []
        planes.append(Plane(name, np.concatenate((picture.pixels, clean)), mask[None].astype(np.uint8)))
    return LoadedPictures(
        tuple(planes),
        (min(p.low for p in pictures), max(p.high for p in pictures)),
        any(p.was_grey for p in pictures),
        any(p.had_alpha for p in pictures),
        tuple(notes),
    )


def _check_extent(pair: Pair, picture: "Picture", recipe: Recipe) -> None:
    """Passes pictures that the network can take, and that can be scored.

    Raises:
        InputError: for smaller ones.
    """
    spec = recipe.network_spec
    stride = max(spec.stride) if spec.border == "native" and spec.padding == "reflect" else 0
    least, extent = max(stride, _LEAST_SCORED_PX - 1), picture.pixels.shape[1:]
    if min(extent) <= least:
        raise InputError(
            f"{pair.image} is {extent[1]} x {extent[0]} pixels", f"more than {least} each way",
            "leave it out with --exclude, or train without it with --on-error skip",
        )  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        pixels: (C, y, x) float32, normalised.
        low, high: of its values before that.
        was_grey: True if it was given three equal colours.
        had_alpha: True if its transparency was left out.
    """

    pixels: npt.NDArray[np.float32]
    low: float
    high: float
    was_grey: bool
    had_alpha: bool


def read_picture(path: Path, i_plane: int, recipe: Recipe) -> Picture:
    """A picture as the network of a recipe sees it.

    Raises:
        InputError: if it cannot be read, has other channels, or pixels that are not finite.
    """
    with opened(path) as stored:
        source = coloured(stored, recipe.input.channels)
        pair = Pair(path.stem, path, path, "page", None, "")
        info, before = info_of(source, pair), info_of(stored, pair)
        is_grey = recipe.input.channels == 1 and has_equal_channels(source, 0)
        channels, colour, _ = choose_channels(info, recipe, (0,) if is_grey else None)
        at = place(i_plane, plane_shape(info))
        size = info.size_of("y"), info.size_of("x")
        raw = read_channels(source, 0, channels, colour, Box((*at, 0, 0), (*(i + 1 for i in at), *size)))
    raw = raw.reshape(-1, *size)
    if not np.isfinite(raw).all():
        raise InputError(f"{path} holds pixels that are not finite", "a picture", "leave it out with --exclude")
    scaling = Scaling.of(recipe.normalise, None, len(raw), info.dtype)
    shift, factor = (np.asarray(v, np.float32)[:, None, None] for v in (scaling.shift, scaling.factor))
    pixels: npt.NDArray[np.float32] = (raw.astype(np.float32) - shift) * factor
    was_grey = len(raw) > 1 and before.num_channels < len(raw)
    return Picture(pixels, float(raw.min()), float(raw.max()), was_grey, before.num_channels in (2, 4))


def mask_of(pair: Pair, damaged: Pixels, clean: Pixels) -> tuple[npt.NDArray[np.bool_], str]:
    """Where a damaged picture differs: as its mask says, else by comparison; and a sentence for the user, or "".

    Args:
        pair: of a damaged picture and its clean one.
        damaged, clean: (C, y, x), normalised.

    Raises:
        InputError: if the pictures or the mask differ in size, or the mask cannot be read.
    """
    if damaged.shape != clean.shape:
        raise InputError(
            f"{pair.image} is {_size(damaged.shape)} pixels and its clean picture {pair.labels} {_size(clean.shape)}",
            "equal sizes",
        )
    differs = (np.abs(damaged - clean) > _LEAST_DIFFERENCE).any(0)
    path = _mask_path(pair)
    if path is None:
        return differs, f"{MASKS}/ is missing: what differs by more than 8 of 255 from the clean picture is the damage"
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error})", "a numpy array of numbers") from error
    mask = np.squeeze(stored) if stored.ndim != 2 else stored
    if mask.ndim == 3 and mask.shape != differs.shape:  # one mask a colour
        mask = mask.any(0 if mask.shape[1:] == differs.shape else 2)
    if mask.shape != differs.shape:
        raise InputError(f"{path} has the shape {stored.shape}", f"{differs.shape}, as {pair.image}")
    is_marked = mask > 0
    inside = float(differs[is_marked].mean()) if is_marked.any() else 0.0
    outside = float(differs[~is_marked].mean()) if not is_marked.all() else 0.0
    if inside < outside:
        return ~is_marked, f"{MASKS}/: 0 is damage there, since that is where the pictures differ"
    return is_marked, ""


def _mask_path(pair: Pair) -> Path | None:
    parts = list(pair.image.parts)
    i = max(i for i, part in enumerate(parts) if part.lower() == DAMAGED)
    for folder in sorted(Path(*parts[:i]).iterdir()):
        within = folder.joinpath(*parts[i + 1 : -1])
        if folder.name.lower() == MASKS and within.is_dir():
            found = _masks_in(within, within.stat().st_mtime_ns).of(PurePosixPath(pair.image.name))
            return None if found is None else within / found.name
    return None


@lru_cache(maxsize=8)
def _masks_in(folder: Path, changed_ns: int) -> Partners:
    """Those of a folder, which is looked through once, not for every picture; `changed_ns` tells a changed one apart."""
    return Partners(PurePosixPath(path.name) for path in sorted(folder.glob("*.npy")))


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[-2]}x{shape[-1]}"
