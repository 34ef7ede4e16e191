"""What `unetctl train` learns repairing from: clean pictures, or damaged ones with their clean ones.

gather_pictures(wishes, recipe, emit, should_stop) -> TrainData
for_labels(sampler, recipe) -> the sampler that the recipe's labels need
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from unetctl.errors import InputError, Stopped
from unetctl.jobs.train_data import DataWishes, TrainData
from unetctl.recipe.schema import Recipe
from unetctl.runtime.events import Listener, Note
from unetctl.training.crops import Plane
from unetctl.training.damage import DamageOptions
from unetctl.training.pictures import describe, find_pictures, load_pictures
from unetctl.training.restoring import RestoringSampler, exact_augment, validation_planes
from unetctl.training.sampler import Sampler
from unetctl.training.splits import Selection, SplitRules, excluded_pairs, make_split
from unetctl.training.survey import survey


def gather_pictures(wishes: DataWishes, recipe: Recipe, emit: Listener, should_stop: Callable[[], bool]) -> TrainData:
    """Finds, splits and reads pictures; those to validate on come back damaged.

    Raises:
        InputError: if there are none, or some cannot be read or do not fit and are not to be skipped.
        UsageError: if the split leaves nothing to train.
        Stopped: if asked to.
    """
    table = find_pictures(wishes.folder)
    for line in describe(table):
        emit(Note(line, "warning" if line.startswith("problem") else "info"))
    s = recipe.split
    rules = SplitRules(s.train, s.val, s.test, val_share=s.val_share).overridden(wishes.val, wishes.exclude)
    excluded = frozenset(excluded_pairs(table, rules.exclude))
    found = survey([pair for pair in table if pair not in excluded], should_stop)
    if not wishes.skips_errors or not found.num_planes:
        found.refuse_left_out()
    for line in found.describe():
        emit(Note(line, "warning"))
    out = {one.pair for one in found.left_out}
    fitting = replace(table, pairs=tuple(pair for pair in table if pair not in out))
    split = make_split(fitting, rules, found.count_planes, stack=recipe.input.stack)
    for line in split.describe():
        emit(Note(line, "info"))
    reader = _Reader(recipe, wishes.skips_errors, emit, should_stop)
    train, val = reader.read(split.train), reader.read(split.val)
    if not train:
        raise reader.failed[0][1]
    for note in reader.told():
        emit(Note(note, "info"))
    lost = {selection.pair for selection, _ in reader.failed}
    split = replace(
        split,
        train=tuple(one for one in split.train if one.pair not in lost),
        val=tuple(one for one in split.val if one.pair not in lost),
    )
    return TrainData(split, tuple(train), validation_planes(val or train[:1], recipe), reader.value_range, ())


class _Reader:
    """Reads pictures, and remembers those that could not be read if these may be skipped."""

    def __init__(self, recipe: Recipe, skips_errors: bool, emit: Listener, should_stop: Callable[[], bool]) -> None:
        self._recipe, self._skips_errors, self._emit, self._should_stop = recipe, skips_errors, emit, should_stop
        self.failed: list[tuple[Selection, InputError]] = []
        self.value_range = float("inf"), float("-inf")
        self._grey: list[str] = []
        self._alpha: list[str] = []

    def read(self, selections: Sequence[Selection]) -> list[Plane]:
        planes: list[Plane] = []
        for selection in selections:
            if self._should_stop():
                raise Stopped("stopped while the pictures were read", "", "run the same command again")
            try:
                loaded = load_pictures(selection, self._recipe)
            except InputError as error:
                if not self._skips_errors:
                    raise
                self.failed.append((selection, error))
                self._emit(Note(f"{selection.pair.name} is left out: {error.seen}", "warning"))
                continue
            planes += loaded.planes
            low, high = self.value_range
            self.value_range = min(low, loaded.value_range[0]), max(high, loaded.value_range[1])
            self._grey += [selection.pair.name] * loaded.was_grey
            self._alpha += [selection.pair.name] * loaded.had_alpha
            for note in loaded.notes:
                self._emit(Note(note, "warning"))
        return planes

    def told(self) -> list[str]:
        """What was made of pictures that are no plain colour."""
        found = []
        for names, what in ((self._grey, "grey, taken as three equal colours"), (self._alpha, "without its alpha")):
            if names:
                num, shown = len(names), ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
                found.append(f"{num} picture{'s' * (num != 1)} {what}: {shown}")
        return found


def for_labels(sampler: Sampler, recipe: Recipe) -> Sampler:
    """The sampler, or the one that damages pictures if the recipe is to repair them."""
    if recipe.labels.kind != "image":
        return sampler
    given = {name: getattr(sampler, name) for name in Sampler.__dataclass_fields__}
    channels = recipe.input.channels
    if sampler.crops.planes[0].pixels.shape[0] == 2 * channels:
        given["augment"] = exact_augment(sampler.augment)
    return RestoringSampler(**given, num_channels=channels, damage=DamageOptions.of(recipe.damage))
