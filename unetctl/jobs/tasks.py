"""What a TASK is: a shipped recipe's name, a recipe file, a weights file, or a training run's folder."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unetctl.errors import UsageError, WeightsError
from unetctl.jobs.train_folder import RUN_WEIGHTS
from unetctl.networks.build import fitted, refuse_unfit, spec_from_dict
from unetctl.networks.network import Network
from unetctl.networks.weights import WeightsHeader, load_weights, read_header
from unetctl.recipe.load import load_recipe, recipe_from_dict
from unetctl.recipe.overview import train_command
from unetctl.recipe.schema import Recipe
from unetctl.recipe.shipped import shipped_recipes, shipped_weights


@dataclass(frozen=True)
class ResolvedTask:
    """A task ready to predict with.

    Attributes:
        name: for output names.
        recipe: resolved, overrides applied.
        header: of the weights.
        weights: path of the weights file.
        weights_sha256: of its content, hex.
        words: options of the command line that name this task again, from any folder.
    """

    name: str
    recipe: Recipe
    header: WeightsHeader
    weights: Path
    weights_sha256: str
    words: tuple[str, ...] = ()

    def network(self) -> Network:
        """The network with its weights, as the recipe asks for it, float32, eval mode."""
        return fitted(load_weights(self.weights)[0], self.recipe.network_spec)


def find_weights(task: str) -> Path:
    """The weights file that a task name, file or run folder stands for.

    Raises:
        WeightsError: if it has none.
        UsageError: if there is no such task.
    """
    path = Path(task)
    if task in shipped_recipes():
        shipped = shipped_weights(task)
        if shipped is None:
            raise WeightsError(
                f"the task {task} ships without weights",
                "",
                f"train it: {train_command(load_recipe(task))}"
                + (f"; for what lies here under that name, say ./{task}" if path.exists() else ""),
            )
        return shipped
    if path.is_dir():
        if (path / RUN_WEIGHTS).is_file():
            return path / RUN_WEIGHTS
        raise WeightsError(
            f"the folder {path} holds no {RUN_WEIGHTS}",
            "a training run that has validated at least once",
            "let it train on",
        )
    if path.suffix == ".toml" and path.is_file():
        raise WeightsError(
            f"{path} is a recipe, which has no weights of its own",
            "a weights file or a training run's folder",
            f"train it (unetctl train --data FOLDER --task {path}) and give the run's folder as --task, "
            "or name weights with --weights",
        )
    if path.is_file():
        return path
    load_recipe(task)  # says what tasks there are, and the near miss
    raise UsageError(f"there is no task {task}")


def resolve_task(task: str, overrides: Sequence[str] = (), weights: str | None = None) -> ResolvedTask:
    """Recipe and weights of a task.

    Args:
        task: see the module.
        overrides: ``section.key=value``, for what does not change the network's tensors.
        weights: a weights file or run folder instead of the task's own.

    Raises:
        UsageError: if the task or an override is not understood.
        WeightsError: if the weights are missing, unusable, or do not fit the recipe's network.
    """
    path = find_weights(weights or task)
    header = read_header(path)
    if weights is not None and (Path(task).suffix == ".toml" or task in shipped_recipes()):
        recipe = load_recipe(task, overrides)
    else:
        recipe = recipe_from_dict(header.recipe, str(path), overrides)
    refuse_unfit(recipe.network_spec, spec_from_dict(header.network), str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    words = ["--task", task if task in shipped_recipes() else _absolute(task)]
    words += ["--weights", _absolute(weights)] if weights is not None else []
    words += [word for override in overrides for word in ("--set", override)]
    return ResolvedTask(recipe.task.name, recipe, header, path, digest, tuple(words))


def _absolute(path: str) -> str:
    return str(Path(path).resolve()) if Path(path).exists() else path
