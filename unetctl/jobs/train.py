"""`unetctl train`: from a folder of pictures with labels to weights with a report."""

import time
from collections.abc import Callable
from pathlib import Path

from unetctl.errors import InputError, UsageError
from unetctl.jobs.tasks import find_weights
from unetctl.jobs.train_folder import refuse_foreign, sweep, writing_explained
from unetctl.jobs.train_options import TrainOptions, TrainReport
from unetctl.jobs.train_preview import PreviewReport, write_preview
from unetctl.jobs.train_run import TrainingRun, joined
from unetctl.jobs.train_task import Search, recipe_for, task_for
from unetctl.recipe.schema import Recipe
from unetctl.runtime.events import Listener, nobody
from unetctl.runtime.locks import RunLock
from unetctl.runtime.logbook import logged
from unetctl.training.team import Place, Team

__all__ = ["Place", "PreviewReport", "TrainOptions", "TrainReport", "preview", "train"]


def train(
    options: TrainOptions, emit: Listener = nobody, should_stop: Callable[[], bool] = lambda: False
) -> TrainReport:
    """Trains, or goes on where the same command was stopped.

    Of several processes (`TrainOptions.place`) all are to call this with the same options; the first one writes, speaks
    and validates.

    Raises:
        InputError: if there is nothing to train on, or files cannot be read or do not fit the recipe.
        UsageError: if the recipe is wrong, or the run folder holds another training.
        ResourceError: if the disk is full, or another process is gone; the last checkpoint stays.
    """
    begun = time.monotonic()
    with joined(options) as team:
        return _train(options, team, emit if team.is_first else nobody, should_stop, begun)


def _train(
    options: TrainOptions, team: Team, emit: Listener, should_stop: Callable[[], bool], begun: float
) -> TrainReport:
    recipe = recipe_of(options, emit, should_stop)
    folder = folder_of(options, recipe)
    with writing_explained(folder):
        refuse_foreign(folder)
        _refuse_own_weights(options, folder)
        if team.is_first and (folder / "run.lock").exists():
            with RunLock(folder, shared=False, who="train"):
                pass  # whoever is at work there is named before the data are read
    # The folder stays as it is until the data have proved to be usable.
    run = TrainingRun(options, recipe, folder, team, emit, should_stop)
    if not team.is_first:
        return run.run(begun)
    with writing_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with RunLock(folder, shared=False, who="train"):
            sweep(folder)
            run.emit = logged(folder / "log.jsonl", emit)
            return run.run(begun)


def preview(
    options: TrainOptions, emit: Listener = nobody, should_stop: Callable[[], bool] = lambda: False
) -> PreviewReport:
    """Draws samples as the training would be fed them, and trains nothing.

    Returns:
        Where the sheet is: preview.png and preview.html in the run folder, which is otherwise left as it is.

    Raises:
        InputError, UsageError: what `train` would raise before its first step.
    """
    recipe = recipe_of(options, emit, should_stop)
    folder = folder_of(options, recipe)
    with writing_explained(folder):
        refuse_foreign(folder)
        _refuse_own_weights(options, folder)
    run = TrainingRun(options, recipe, folder, Team(), emit, should_stop)
    run.initial_network()  # --from goes with the recipe, or it is said now
    with writing_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return write_preview(run.sampler, recipe, folder)


def _refuse_own_weights(options: TrainOptions, folder: Path) -> None:
    """A training does not begin with the weights of the run whose place it takes."""
    if options.init_from is None:
        return
    weights = find_weights(options.init_from)
    if weights.resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            f"--from {options.init_from} lies in {folder}, the folder of this training, which would write over it",
            "another folder for the new training", "name one with -o, or leave --from out to go on with the one that is there",
        )  # fmt: skip


def folder_of(options: TrainOptions, recipe: Recipe) -> Path:
    """The run folder."""
    data = options.data.resolve()
    return options.output or Path(f"{data.stem if data.is_file() else data.name}-{recipe.task.name}")


def recipe_of(options: TrainOptions, emit: Listener, should_stop: Callable[[], bool]) -> Recipe:
    """The recipe that the command asks for.

    Raises:
        InputError: if there is no such folder, or nothing in it from which a recipe follows.
        UsageError: for all mistakes at once.
    """
    if not options.data.exists():
        raise InputError(
            f"--data {options.data} is not there", "a folder of pictures and labels, or one picture of a shape"
        )
    short = {
        "epochs": options.epochs, "lr": options.lr, "batch": options.batch, "seed": options.seed,
        "save_every": options.save_every, "save_every_steps": options.save_every_steps, "patience": options.patience,
        "workers": options.workers, "max_time_s": options.max_time_s,
        "precision": None if options.precision == "auto" else options.precision,
        "crop": None if options.crop is None else f"{options.crop},{options.crop}",
    }  # fmt: skip
    overrides = [f"train.{key}={value}" for key, value in short.items() if value is not None]
    begun, skips = None if options.fresh else options.output, options.on_error == "skip"
    search = Search(options.data, begun, options.init_from, options.exclude, options.device, skips)
    task = options.task or task_for(search, emit, should_stop)
    recipe = recipe_for(task, (*overrides, *options.overrides))
    if options.data.is_file() and recipe.compose.kind == "none":
        raise UsageError(
            f"--data {options.data} is one file, and {recipe.task.name} learns from pictures with labels",
            "a folder of them", "one picture of a shape is for --task logo",
        )  # fmt: skip
    if recipe.network.dims != 2:
        raise UsageError(
            f"{recipe.task.name} asks for a network of {recipe.network.dims} dimensions",
            "network.dims = 2",
            "input.context_slices lets a 2-D network see neighbouring planes",
        )
    return recipe
