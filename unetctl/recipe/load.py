"""Recipes from a name, a file or plain values."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unetctl.errors import UsageError
from unetctl.recipe.overrides import with_overrides
from unetctl.recipe.problems import nearest
from unetctl.recipe.reading import TomlText, read_toml
from unetctl.recipe.schema import Recipe
from unetctl.recipe.shipped import shipped_recipes
from unetctl.recipe.validate import validated


def load_recipe(task: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a shipped task or of a user's TOML file.

    Weights files and training runs carry their recipe as plain values: see `recipe_from_dict`.

    Args:
        task: a shipped recipe's name ("em"), or the path of a TOML file. A name wins over a file of the
            same name; ``./em`` is the file.
        overrides: ``section.key=value`` each, as `--set` takes them.

    Raises:
        UsageError: if there is no such recipe, or it cannot be read, or for all its mistakes at once.
    """
    path = _find(task)
    text = read_toml(path)
    own = text.data.get("task", {})
    if isinstance(own, dict) and "name" not in own:
        text.data["task"] = {"name": _name_of(path), **own}
    return _recipe(text, str(task), overrides)


def recipe_from_dict(data: Mapping[str, Any], where: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of plain values, as they stand in a weights file, a run folder, or `Recipe.to_dict`.

    Args:
        data: section name to a mapping of settings.
        where: names the source in messages ("em.safetensors").
        overrides: ``section.key=value`` each.

    Raises:
        UsageError: naming all mistakes at once, with the near miss of each.
    """
    return _recipe(TomlText(dict(data)), where, overrides)


def _recipe(text: TomlText, where: str, overrides: Sequence[str]) -> Recipe:
    values, overridden, problems = with_overrides(text.data, overrides)
    return validated(values, where, overridden, [*text.problems, *problems], text.doubts)


def _find(task: str | Path) -> Path:
    shipped = shipped_recipes()
    if isinstance(task, str) and task in shipped:
        return shipped[task]
    path = Path(task)
    known = f"one of {', '.join(shipped)}, or the path of a recipe (.toml)" if shipped else "a recipe's path"
    if path.is_dir():
        raise UsageError(f"task {task} is a folder without a recipe", known)
    if path.is_file():
        return path
    near = nearest(path.stem, shipped)
    if path.suffix or len(path.parts) > 1:
        beside = [p.name for p in sorted(path.parent.glob("*.toml"))] if path.parent.is_dir() else []
        close = nearest(path.name, beside, cutoff=0.7)
        near = str(path.parent / close) if close else ""
    raise UsageError(f"there is no task or recipe file {task}", known, f"did you mean {near}?" if near else "")


def _name_of(path: Path) -> str:
    """A task name for a recipe that gives itself none: the file's, with what a name cannot hold replaced."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-_")[:40] or "recipe"
