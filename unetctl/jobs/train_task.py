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


def task_for(data: Path, begun: Path | None = None, emit: Listener = nobody) -> str:
    """The task that was not named; tells how it was found.

    Args:
        data: the folder to learn from; a shipped task's name must be a word of its name ("isbi-em", not "problems").
        begun: a run folder; the recipe of a run that was begun there goes first.
        emit: hears what was decided.

    Raises:
        UsageError: if nothing tells.
    """
    recipe = None if begun is None else begun / "recipe.toml"
    if recipe is not None and recipe.is_file():
        emit(Note(f"task: the recipe of the run begun in {begun}", "info"))
        return str(recipe)
    shipped = shipped_recipes()
    words = re.findall(r"[a-z]+", data.resolve().name.lower())
    names = [name for name in shipped if name in words]
    if len(names) != 1:
        raise UsageError(
            f"no --task, and the name of {data} names none", f"--task {' or '.join(shipped)}, or a recipe file",
            "copy pipelines/em.toml, change it, and give it as --task ./mine.toml",
        )  # fmt: skip
    emit(Note(f"task {names[0]}: the folder's name says so", "info"))
    return names[0]
