"""What `unetctl train` learns from: found, paired, surveyed, split, read; each told as it is decided."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from unetctl.errors import InputError, Stopped
from unetctl.recipe.schema import Recipe
from unetctl.runtime.events import Listener, Note
from unetctl.runtime.grey_scale import NEEDS_STATISTICS
from unetctl.sources.base import ImageInfo
from unetctl.training.compose import Composer
from unetctl.training.crops import Plane
from unetctl.training.load import check_channels, load_selection, with_loss_weights
from unetctl.training.pairs import Pair, PairTable, find_pairs
from unetctl.training.polarity import settled
from unetctl.training.regions import parted
from unetctl.training.splits import Selection, Split, SplitRules, excluded_pairs, make_split
from unetctl.training.survey import survey

#: So many remarks on single pictures are shown.
_SHOWN_NOTES = 10


@dataclass(frozen=True)
class TrainData:
    """All that a training holds in memory of its data.

    Attributes:
        split: which planes train, validate, test; without those that could not be read.
        train, val: planes with loss weights.
        value_range: lowest and highest grey value of the training planes.
        spacing_um: of the first training picture.
        composer: where the data are composed from one picture: what makes the crops; `train` are a few of them then.
    """

    split: Split
    train: tuple[Plane, ...]
    val: tuple[Plane, ...]
    value_range: tuple[float, float]
    spacing_um: tuple[float | None, ...]
    composer: Composer | None = None

    def digest(self) -> str:
        """SHA-256 (64 hex digits) of names, sizes, pixels and targets, all of them."""
        sha = hashlib.sha256()
        for plane in (*self.train, *self.val):
            # the weights follow from the targets and the recipe, but for where nothing is known
            arrays = [plane.pixels, plane.target, *([] if plane.weights is None else [plane.weights == 0])]
            sha.update(repr((plane.name, [(a.shape, str(a.dtype)) for a in arrays])).encode())
            for array in arrays:
                sha.update(np.ascontiguousarray(array).data)
        return sha.hexdigest()


@dataclass(frozen=True)
class DataWishes:
    """What the command line says about the data.

    Attributes:
        folder: of pictures and labels.
        val, exclude: entries as in `unetctl.training.splits`; what `exclude` names is never opened.
        skips_errors: pairs that cannot be read or do not fit are left out and told; else the first word is an error.
    """

    folder: Path
    val: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    skips_errors: bool = False


def gather(wishes: DataWishes, recipe: Recipe, emit: Listener, should_stop: Callable[[], bool]) -> TrainData:
    """Finds, splits and reads the data of a training.

    Raises:
        InputError: if there are no pairs, or some cannot be read or do not fit and are not to be skipped.
        UsageError: if the split leaves nothing to train.
        Stopped: if asked to.
    """
    table = find_pairs(wishes.folder)
    for line in table.describe():
        emit(Note(line, "info"))
    split, train_pairs, val_pairs = read_split(
        table,
        wishes,
        recipe,
        lambda one: load_selection(one, recipe),
        emit,
        should_stop,
        lambda info, pair: check_channels(info, pair, recipe),
    )
    _tell_loose_slices(split, recipe, emit)
    pairs, polarity = settled([*train_pairs, *val_pairs])
    for text, kind in polarity.describe() if polarity else []:
        emit(Note(text, kind))
    num_train = sum(len(pair.planes) for pair in train_pairs)
    planes = [plane for pair in pairs for plane in pair.planes]
    _refuse_one_class(planes[:num_train], recipe)
    planes = with_loss_weights(planes, recipe, planes[:num_train])
    if len(planes) == 1 and recipe.split.val_share > 0 and not wishes.val:
        parts = parted(planes[0], recipe.split.val_share)
        if parts is not None:
            planes, num_train = [parts.train, parts.val], 1
            (whole,) = split.train
            split = replace(
                split,
                train=(replace(whole, region=parts.train_region),),
                val=(replace(whole, region=parts.val_region),),
            )
            emit(Note(str(parts), "info"))
    scales = [pair.scale for pair in pairs]
    if any(scale != 1 for scale in scales):
        emit(Note(
            f"pictures are shown at {min(scales):.2g} to {max(scales):.2g} times their size: so their median objects are about "
            f"{recipe.objects.diameter_px:g} px wide (objects.diameter_px)", "info",
        ))  # fmt: skip
    num_empty = sum(not plane.target.any() for plane in planes)
    if num_empty:
        emit(Note(f"{num_empty} of {len(planes)} planes hold background only", "info"))
    lows, highs = zip(*(pair.value_range for pair in train_pairs), strict=True)
    return TrainData(
        split, tuple(planes[:num_train]), tuple(planes[num_train:]), (min(lows), max(highs)), train_pairs[0].spacing_um
    )


def _tell_loose_slices(split: Split, recipe: Recipe, emit: Listener) -> None:
    """Slices of a stack that lie in files of their own are scaled one by one, and have no neighbours."""
    in_folder = Counter(s.pair.folder for s in (*split.train, *split.val, *split.test) if s.num_planes == 1)
    num = max(in_folder.values(), default=0)
    if not recipe.input.stack or num < 2:
        return
    told = []
    if recipe.normalise.method in NEEDS_STATISTICS:
        told.append("each is scaled by its own grey values")
    if recipe.input.context_slices > 1:
        told.append("none has neighbours")
    if told:
        text = f"{num} slices lie in files of their own: {' and '.join(told)}, while predict takes such a folder as one stack"
        emit(Note(f"{text}; save them as one TIFF for training that is alike", "warning"))


def _refuse_one_class(planes: Sequence[Plane], recipe: Recipe) -> None:
    """Single empty labels are a fact about their pictures; if all are, there is nothing to learn.

    Raises:
        InputError: if so.
    """
    present: set[int] = set()
    for plane in planes:
        known = plane.target if plane.weights is None else plane.target[plane.weights > 0]
        present |= {int(v) for v in np.unique(known)}
        if len(present) > 1:
            return
    names = ("background", *recipe.output.classes) if recipe.output.num_channels == 1 else recipe.output.classes
    what = " and ".join(names[i] for i in present) if present else "nothing that is known"
    raise InputError(
        f"the labels of all {len(planes)} planes that train hold {what} only",
        "at least one with something else: there is nothing to tell apart",
        "look at the labels; what the values mean stands in the recipe's [labels]",
    )


class Loaded(Protocol):
    """What comes of a selection that was read."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user."""
        ...


_Loaded = TypeVar("_Loaded", bound=Loaded)


def read_split(
    table: PairTable,
    wishes: DataWishes,
    recipe: Recipe,
    load: Callable[[Selection], _Loaded],
    emit: Listener,
    should_stop: Callable[[], bool],
    accept: Callable[[ImageInfo, Pair], None] = lambda info, pair: None,
) -> tuple[Split, list[_Loaded], list[_Loaded]]:
    """Splits what was found, and reads what trains and what validates.

    Args:
        table: what the folder holds.
        wishes: of the command line.
        recipe: says how to split.
        load: reads one selection; raises `InputError` if it cannot.
        emit, should_stop: see `unetctl.jobs.train.train`.
        accept: see `unetctl.training.survey.survey`.

    Returns:
        The split without what could not be read; what was read of train, at least one, and of val.

    Raises:
        InputError, UsageError, Stopped: see `gather`.
    """
    s = recipe.split
    rules = SplitRules(s.train, s.val, s.test, val_share=s.val_share).overridden(wishes.val, wishes.exclude)
    split = _split(table, rules, recipe, wishes, emit, should_stop, accept)
    for line in split.describe():
        emit(Note(line, "info"))
    failed: dict[Pair, InputError] = {}

    def read(selections: Sequence[Selection]) -> list[_Loaded]:
        loaded = []
        for selection in selections:
            if should_stop():
                raise Stopped("stopped while the pictures were read", "", "run the same command again")
            try:
                loaded.append(load(selection))
            except InputError as error:
                if not wishes.skips_errors:
                    raise
                failed[selection.pair] = error
                emit(Note(f"{selection.pair.name} is left out: {error.seen}", "warning"))
                continue
            for note in loaded[-1].notes:
                notes.append(note)
                if len(notes) <= _SHOWN_NOTES:
                    emit(Note(note, "warning"))
        return loaded

    notes: list[str] = []
    train, val = read(split.train), read(split.val)
    if len(notes) > _SHOWN_NOTES:
        emit(Note(f"... and {len(notes) - _SHOWN_NOTES} more remarks of this kind", "warning"))
    if not train:
        raise next(iter(failed.values()))
    kept = {name: tuple(one for one in getattr(split, name) if one.pair not in failed) for name in ("train", "val")}
    return replace(split, **kept), train, val


def _split(
    table: PairTable,
    rules: SplitRules,
    recipe: Recipe,
    wishes: DataWishes,
    emit: Listener,
    should_stop: Callable[[], bool],
    accept: Callable[[ImageInfo, Pair], None],
) -> Split:
    excluded = frozenset(excluded_pairs(table, rules.exclude))
    found = survey([pair for pair in table if pair not in excluded], should_stop, accept)
    if not wishes.skips_errors or not found.num_planes:
        found.refuse_left_out(can_skip=not wishes.skips_errors)
    for line in found.describe():
        emit(Note(line, "warning"))
    left_out = {one.pair for one in found.left_out}
    return make_split(table, rules, found.count_planes, stack=recipe.input.stack, left_out=left_out)
