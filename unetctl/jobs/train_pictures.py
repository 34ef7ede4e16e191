"""What `unetctl train` learns repairing from: clean pictures, or damaged ones with their clean ones.

gather_pictures(wishes, recipe, emit, should_stop) -> TrainData
for_labels(sampler, recipe) -> the sampler that the recipe's labels need
"""

from collections.abc import Callable, Sequence

from unetctl.jobs.train_data import DataWishes, TrainData, read_split
from unetctl.recipe.schema import Recipe
from unetctl.runtime.events import Listener, Note
from unetctl.training.damage import DamageOptions
from unetctl.training.pictures import LoadedPictures, describe, find_pictures, load_pictures
from unetctl.training.restoring import RestoringSampler, exact_augment, validation_planes
from unetctl.training.sampler import Sampler


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
    split, train, val = read_split(table, wishes, recipe, lambda one: load_pictures(one, recipe), emit, should_stop)
    for note in _told([*train, *val]):
        emit(Note(note, "info"))
    train_planes = tuple(plane for loaded in train for plane in loaded.planes)
    val_planes = tuple(plane for loaded in val for plane in loaded.planes)
    lows, highs = zip(*(loaded.value_range for loaded in [*train, *val]), strict=True)
    val_planes = validation_planes(val_planes or train_planes[:1], recipe)
    return TrainData(split, train_planes, val_planes, (min(lows), max(highs)), ())


def _told(pictures: Sequence[LoadedPictures]) -> list[str]:
    """What was made of pictures that are no plain colour."""
    grey = [one.planes[0].name for one in pictures if one.was_grey]
    alpha = [one.planes[0].name for one in pictures if one.had_alpha]
    found = []
    for names, what in ((grey, "grey, taken as three equal colours"), (alpha, "without its alpha")):
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
