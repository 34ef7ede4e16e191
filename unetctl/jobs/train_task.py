"""By which recipe `unetctl train` trains: a named one, one that the data fit, or one worked out from the data.

recipe_for(task, overrides) -> Recipe;  task_for(data, ...) -> task to give it: a name, a path, or what was derived
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from unetctl.errors import InputError, UsageError
from unetctl.jobs.tasks import find_weights
from unetctl.networks.weights import read_header
from unetctl.recipe.load import load_recipe, recipe_from_dict
from unetctl.recipe.schema import Recipe
from unetctl.recipe.shipped import shipped_recipes
from unetctl.runtime.device import pick_device
from unetctl.runtime.events import Listener, Note, nobody
from unetctl.runtime.memory import installed_memory
from unetctl.training.decide import Decision, Fingerprint, Kind, decide, misfit
from unetctl.training.derive import Derived, Means, derive
from unetctl.training.fingerprint import are_coloured, fingerprint
from unetctl.training.pairs import NoPairsError, Pair, find_pairs
from unetctl.training.splits import excluded_pairs
from unetctl.training.tally import MOST_COLOURS, MOST_NUMBERS, Tally, tally

#: The shipped recipes for each kind of data, the likelier first.
_TASKS_OF: dict[Kind, tuple[str, ...]] = {
    "membranes": ("em",), "binarization": ("dibco",), "objects": ("nuclei", "cells"), "restoration": ("restore",),
}  # fmt: skip
#: For one picture instead of a folder.
_SHAPE_TASK = "logo"
#: Objects of at least this diameter are whole cells rather than nuclei.
_CELL_PX = 50.0
#: Kinds for which a recipe can be worked out.
_DERIVED: tuple[Kind, ...] = ("segmentation", "classes", "membranes", "binarization")


@dataclass(frozen=True)
class Search:
    """Where and how to look for a recipe that was not named.

    Attributes:
        data: the folder to learn from; a shipped task's name may be a word of its name ("isbi-em", not "problems").
        begun: a run folder; the recipe of a run that was begun there goes first.
        init_from: weights to begin with; their recipe goes next if the data fit it.
        exclude: entries of pictures that must not be opened.
        device: as `unetctl.runtime.device.pick_device` takes it.
        skips_errors: labels that cannot be read are left out of the count.
    """

    data: Path
    begun: Path | None = None
    init_from: str | None = None
    exclude: tuple[str, ...] = ()
    device: str = "auto"
    skips_errors: bool = False


def recipe_for(task: str | Derived, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a shipped task, a recipe file, a weights file or a training run's folder, or one that was derived.

    Args:
        task: a shipped name goes before a file or folder of that name, as everywhere.
        overrides: ``section.key=value`` each.

    Raises:
        UsageError: if there is none, or for all its mistakes at once.
        WeightsError: if weights are unusable.
    """
    if isinstance(task, Derived):
        return recipe_from_dict(task.values, "the recipe worked out from the data", overrides)
    if task not in shipped_recipes() and (Path(task).suffix == ".safetensors" or Path(task).is_dir()):
        return recipe_from_dict(read_header(find_weights(task)).recipe, task, overrides)
    return load_recipe(task, overrides)


def task_for(search: Search, emit: Listener = nobody, should_stop: Callable[[], bool] = lambda: False) -> str | Derived:
    """The task that was not named; tells how it was found.

    Raises:
        InputError: if the folder holds no pairs, or none that can be read, or labels that nobody can make out.
        UsageError: if no recipe is shipped or can be worked out for such data; says what they are.
        Stopped: if asked to.
    """
    recipe = None if search.begun is None else search.begun / "recipe.toml"
    if recipe is not None and recipe.is_file():
        emit(Note(f"task: the recipe of the run begun in {search.begun}", "info"))
        return str(recipe)
    if search.data.is_file():
        emit(Note(f"task {_SHAPE_TASK}: {search.data} is one picture, of a shape to be found in others", "info"))
        return _SHAPE_TASK
    try:
        table = find_pairs(search.data)
    except NoPairsError as error:
        return _without_labels(search, error, emit)
    excluded = frozenset(excluded_pairs(table, search.exclude))
    pairs = [pair for pair in table if pair not in excluded]
    found = fingerprint(pairs)
    emit(Note(f"data: {found.describe()}", "info"))
    if found.label_kind == "smeared":
        raise InputError(
            f"the labels in {search.data} are drawings that JPEG or scaling has smeared: no pixel says what it is",
            "labels of exact values, or exact colours",
            "save them again from the program that they were drawn with, as PNG or TIFF",
        )
    if found.is_swapped:
        raise InputError(
            f"the pictures in {search.data} hold two values as masks do, and their labels many, as pictures do",
            "pictures, and labels that mark something in them",
            "they seem to be swapped: exchange the names of their folders or files",
        )
    named = _by_start(search, found, emit) or _by_name(search, found, emit)
    return named or _by_data(decide(found), found, pairs, search, emit, should_stop)


def _without_labels(search: Search, error: NoPairsError, emit: Listener) -> str:
    """Photographs and nothing else: to learn repairing, clean ones are enough.

    Raises:
        InputError: the given one, if they are no colour pictures, or labels lie among them.
    """
    names = [name for name in _TASKS_OF["restoration"] if name in shipped_recipes()]
    if error.orphans or not names or not are_coloured(error.unlabelled):
        raise error
    what = f"{len(error.unlabelled)} colour pictures without labels: they are taken for clean ones, to learn repairing"
    emit(Note(f"task {names[0]}: {what} ({error.hint})", "warning"))
    return names[0]


def _by_start(search: Search, found: Fingerprint, emit: Listener) -> str | None:
    if search.init_from is None:
        return None
    reason = misfit(recipe_for(search.init_from), found)
    if reason:
        emit(Note(f"--from {search.init_from}: of its recipe, {reason}: name one with --task", "warning"))
        return None
    emit(Note(f"task: the recipe of the weights to begin with, {search.init_from}; the data fit it", "info"))
    return search.init_from


def _by_name(search: Search, found: Fingerprint, emit: Listener) -> str | None:
    words = re.findall(r"[a-z]+", search.data.resolve().name.lower())
    names = [name for name in shipped_recipes() if name in words]
    if len(names) != 1:
        return None
    recipe = load_recipe(names[0])
    reason = misfit(recipe, found)
    if recipe.labels.kind == "objects" and found.label_kind == "two values":
        reason = (
            "the labels do not tell one object from another"  # --task would cut them into pieces; a name alone does not
        )
    if reason:
        emit(Note(f"the folder's name says {names[0]}, but {reason}: the data decide", "warning"))
        return None
    emit(Note(f"task {names[0]}: the folder's name says so, and the data fit", "info"))
    decision = decide(found)
    others = [name for name in _TASKS_OF.get(decision.kind, ()) if name in shipped_recipes()]
    if others and names[0] not in others:
        emit(Note(f"the data look like {decision}: --task {others[0]} is made for these", "warning"))
    return names[0]


def _by_data(
    decision: Decision,
    found: Fingerprint,
    pairs: Sequence[Pair],
    search: Search,
    emit: Listener,
    should_stop: Callable[[], bool],
) -> str | Derived:
    shipped = shipped_recipes()
    names = [name for name in _TASKS_OF.get(decision.kind, ()) if name in shipped]
    if decision.kind == "objects" and found.object_px >= _CELL_PX:
        names.reverse()
    reason = "no recipe for these is shipped"
    if names:
        reason = misfit(load_recipe(names[0]), found)
        if not reason:
            emit(Note(f"task {names[0]}: the data are {decision}", "info"))
            return names[0]
        reason = f"of {names[0]}, the recipe for these, {reason}"
    if decision.kind in _DERIVED and found.is_same_size:
        counted = tally(pairs, should_stop, skips_errors=search.skips_errors)
        if not counted.is_open and len(counted.numbers) + len(counted.colours) > 1:
            return _derived(decision, found, counted, search, emit)
        reason = (
            f"after {counted.num_planes} planes the labels hold more than {MOST_NUMBERS} numbers or {MOST_COLOURS} colours"
            if counted.is_open
            else f"the labels of all {counted.num_planes} planes hold one value only: there is nothing to tell apart"
        )
    example = names[0] if names else next(iter(shipped))
    raise UsageError(
        f"no --task, and {search.data} holds {decision}; {reason}",
        f"--task {' or '.join(shipped)}, or a recipe file",
        f"copy pipelines/{example}.toml, change it, and give it as --task ./mine.toml",
    )


def _derived(decision: Decision, found: Fingerprint, counted: Tally, search: Search, emit: Listener) -> Derived:
    emit(Note(counted.describe(), "info"))
    derived = derive(decision, found, counted, _means(search.device))
    emit(Note(f"a recipe is worked out: the data are {decision}", "info"))
    for reason in derived.reasons:
        emit(Note(f"  {reason}", "info"))
    return derived


def _means(wanted: str) -> Means:
    device = pick_device(wanted)
    if device.type == "cuda":
        return Means(True, torch.cuda.mem_get_info(device)[1])
    return Means(False, installed_memory())  # not what happens to be free: the same command must find the same recipe
