"""By which recipe `unetctl train` trains."""

import re
from collections.abc import Sequence
from pathlib import Path

from unetctl.errors import UsageError
from unetctl.jobs.tasks import find_weights
from unetctl.networks.weights import read_header
from unetctl.recipe.load import load_recipe, recipe_from_dict
from unetctl.recipe.schema import Recipe
from unetctl.recipe.shipped import shipped_recipes
from unetctl.runtime.events import Listener, Note, nobody
from unetctl.training.decide import Decision, Fingerprint, Kind, decide, misfit
from unetctl.training.fingerprint import fingerprint
from unetctl.training.pairs import find_pairs
from unetctl.training.splits import excluded_pairs

#: The shipped recipe for each kind of data.
_TASK_OF: dict[Kind, str] = {"membranes": "em", "binarization": "dibco"}


def recipe_for(task: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a shipped task, a recipe file, a weights file or a training run's folder.

    Args:
        task: a shipped name goes before a file or folder of that name, as everywhere.
        overrides: ``section.key=value`` each.

    Raises:
        UsageError: if there is none, or for all its mistakes at once.
        WeightsError: if weights are unusable.
    """
    if task not in shipped_recipes() and (Path(task).suffix == ".safetensors" or Path(task).is_dir()):
        return recipe_from_dict(read_header(find_weights(task)).recipe, task, overrides)
    return load_recipe(task, overrides)


def task_for(data: Path, begun: Path | None = None, emit: Listener = nobody, exclude: Sequence[str] = ()) -> str:
    """The task that was not named; tells how it was found.

    Args:
        data: the folder to learn from; a shipped task's name may be a word of its name ("isbi-em", not "problems").
        begun: a run folder; the recipe of a run that was begun there goes first.
        emit: hears what was decided.
        exclude: entries of pictures that must not be opened.

    Raises:
        InputError: if the folder holds no pairs, or none that can be read.
        UsageError: if no shipped recipe is made for such data; says what they are.
    """
    recipe = None if begun is None else begun / "recipe.toml"
    if recipe is not None and recipe.is_file():
        emit(Note(f"task: the recipe of the run begun in {begun}", "info"))
        return str(recipe)
    table = find_pairs(data)
    excluded = frozenset(excluded_pairs(table, exclude))
    found = fingerprint([pair for pair in table if pair not in excluded])
    emit(Note(f"data: {found.describe()}", "info"))
    words = re.findall(r"[a-z]+", data.resolve().name.lower())
    names = [name for name in shipped_recipes() if name in words]
    if len(names) == 1:
        reason = misfit(load_recipe(names[0]), found)
        if not reason:
            emit(Note(f"task {names[0]}: the folder's name says so, and the data fit", "info"))
            decision = decide(found)
            other = _TASK_OF.get(decision.kind, names[0])
            if other != names[0] and other in shipped_recipes():
                emit(Note(f"the data look like {decision}: --task {other} is made for these", "warning"))
            return names[0]
        emit(Note(f"the folder's name says {names[0]}, but {reason}: the data decide", "warning"))
    return _by_data(decide(found), found, data, emit)


def _by_data(decision: Decision, found: Fingerprint, data: Path, emit: Listener) -> str:
    shipped = shipped_recipes()
    name = _TASK_OF.get(decision.kind)
    reason = "no recipe for these is shipped"
    if name in shipped:
        reason = misfit(load_recipe(name), found)
        if not reason:
            emit(Note(f"task {name}: the data are {decision}", "info"))
            return name
        reason = f"of {name}, the recipe for these, {reason}"
    example = name if name in shipped else next(iter(shipped))
    raise UsageError(
        f"no --task, and {data} holds {decision}; {reason}",
        f"--task {' or '.join(shipped)}, or a recipe file",
        f"copy pipelines/{example}.toml, change it, and give it as --task ./mine.toml",
    )
