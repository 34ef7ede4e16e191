"""`unetctl train`: from a folder of pictures with labels to weights with a report."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unetctl.errors import InputError, UsageError, WeightsError
from unetctl.jobs.tasks import RUN_WEIGHTS, find_weights
from unetctl.jobs.train_data import DataWishes, gather
from unetctl.jobs.train_folder import clear, refuse_foreign, sweep, write_text, writing_explained
from unetctl.jobs.train_samples import samples_of
from unetctl.jobs.train_task import recipe_for, task_for
from unetctl.networks.build import build_network
from unetctl.networks.grow import can_grow, grown
from unetctl.networks.network import Network
from unetctl.networks.spec import UNetSpec
from unetctl.networks.unet import UNet
from unetctl.networks.weights import WeightsHeader, load_weights, save_weights
from unetctl.recipe.load import recipe_from_dict
from unetctl.recipe.schema import Recipe
from unetctl.reports.training_page import Sample, write_training_page
from unetctl.runtime.device import PRECISIONS, Compute, apply_compute, resolve
from unetctl.runtime.events import EpochEnded, Event, Listener, Note, StageProgress, nobody
from unetctl.runtime.locks import RunLock
from unetctl.runtime.logbook import logged
from unetctl.training.augment import AugmentOptions, augment, margin_for, without_neighbours
from unetctl.training.board import Board
from unetctl.training.crops import PlaneSet
from unetctl.training.fit import Fit, FitOptions, TrainBatch
from unetctl.training.losses import loss_of
from unetctl.training.validation import Validated, as_stored, validate

#: Steps between TensorBoard scalars.
_BOARD_EVERY = 10


@dataclass(frozen=True)
class TrainOptions:
    """What the command line may say about a training; None leaves it to the recipe.

    Attributes:
        data: folder of pictures and labels.
        task: shipped recipe, recipe file, weights or run folder (their recipe); None: the one of a run that was begun
            in `output`, else the shipped recipe whose name is a word of the folder's name if the data fit it, else the
            one that is made for such data.
        output: run folder; None: ``<data>-<task>`` in the working directory.
        init_from: weights to start from (fine-tuning).
        val, exclude: entries as in `unetctl.training.splits`.
        on_error: "skip" leaves out pairs that cannot be read or whose sizes differ, "abort" refuses to begin.
        overrides: ``section.key=value``.
        epochs, lr, batch, crop, seed, save_every, max_time_s, precision: short for the [train] settings.
        device: see `unetctl.runtime.device`.
        fresh: start over.
    """

    data: Path
    task: str | None = None
    output: Path | None = None
    init_from: str | None = None
    val: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    on_error: str = "abort"
    overrides: tuple[str, ...] = ()
    epochs: int | None = None
    lr: float | None = None
    batch: int | None = None
    crop: int | None = None
    seed: int | None = None
    save_every: int | None = None
    max_time_s: float | None = None
    device: str = "auto"
    precision: str = "auto"
    fresh: bool = False


@dataclass(frozen=True)
class TrainReport:
    """How a training run stands.

    Attributes:
        folder: of the run; give it as --task to predict.
        status: "done" or "stopped".
        epoch, num_epochs: how far.
        best_epoch, figures: of the best weights.
        elapsed_s: of this execution.
    """

    folder: str
    status: str
    epoch: int
    num_epochs: int
    best_epoch: int
    figures: dict[str, float]
    elapsed_s: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"command": "train", **vars(self)}

    def lines(self) -> list[str]:
        """For people."""
        told = ", ".join(f"{k} {v:.4f}" for k, v in self.figures.items())
        lines = [f"{self.folder}: {self.status} after {self.epoch} of {self.num_epochs} epochs, {self.elapsed_s:.0f} s"]
        if told:
            which = f"of epoch {self.best_epoch}" if self.best_epoch else "are those that it started from"
            lines.append(f"best weights {which}: {told}")
            lines.append(f"use them: unetctl predict INPUT --task {self.folder}")
        return lines


def train(
    options: TrainOptions, emit: Listener = nobody, should_stop: Callable[[], bool] = lambda: False
) -> TrainReport:
    """Trains, or goes on where the same command was stopped.

    Raises:
        InputError: if there is nothing to train on, or files cannot be read or do not fit the recipe.
        UsageError: if the recipe is wrong, or the run folder holds another training.
        ResourceError: if the disk is full; the last checkpoint stays.
    """
    begun = time.monotonic()
    if not options.data.is_dir():
        raise InputError(f"--data {options.data} is not a folder", "a folder of pictures and labels")
    recipe = _recipe_of(options, emit)
    if recipe.network.dims != 2:
        raise UsageError(
            f"{recipe.task.name} asks for a network of {recipe.network.dims} dimensions",
            "network.dims = 2",
            "input.context_slices lets a 2-D network see neighbouring planes",
        )
    folder = options.output or Path(f"{options.data.resolve().name}-{recipe.task.name}")
    with writing_explained(folder):
        refuse_foreign(folder)
        if (folder / "run.lock").exists():
            with RunLock(folder, shared=False, who="train"):
                pass  # whoever is at work there is named before the data are read
    # The folder stays as it is until the data have proved to be usable.
    run = _TrainingRun(options, recipe, folder, emit, should_stop)
    with writing_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with RunLock(folder, shared=False, who="train"):
            sweep(folder)
            if options.fresh:
                clear(folder)
            run.emit = logged(folder / "log.jsonl", emit)
            return run.run(begun)


def _recipe_of(options: TrainOptions, emit: Listener) -> Recipe:
    short = {
        "epochs": options.epochs, "lr": options.lr, "batch": options.batch, "seed": options.seed,
        "save_every": options.save_every, "max_time_s": options.max_time_s,
        "precision": None if options.precision == "auto" else options.precision,
        "crop": None if options.crop is None else f"{options.crop},{options.crop}",
    }  # fmt: skip
    overrides = [f"train.{key}={value}" for key, value in short.items() if value is not None]
    begun = None if options.fresh else options.output
    task = options.task or task_for(options.data, begun, emit, options.exclude)
    return recipe_for(task, (*overrides, *options.overrides))


class _TrainingRun:
    """One execution: data in memory, loop, listeners."""

    def __init__(
        self, options: TrainOptions, recipe: Recipe, folder: Path, emit: Listener, should_stop: Callable[[], bool]
    ) -> None:
        self.options, self.recipe, self.folder = options, recipe, folder
        self.emit, self.should_stop = emit, should_stop
        self.device, compute = resolve(options.device, recipe.train.precision)
        self.compute: Compute = compute
        apply_compute(compute, options.device)
        torch.get_num_threads()  # fixes this thread's number now: else it would take over what `_batch` sets for its own
        wishes = DataWishes(options.data, options.val, options.exclude, options.on_error == "skip")
        self.data = gather(wishes, recipe, emit, should_stop)
        self.split, self.train_planes, self.val_planes = self.data.split, self.data.train, self.data.val
        self.value_range, self.spacing_um = self.data.value_range, self.data.spacing_um
        self.augment = AugmentOptions(**recipe.augment.model_dump())
        spec = recipe.network_spec
        crop = (recipe.train.crop[0], recipe.train.crop[1])
        sees_beyond = spec.border == "mirror" and (spec.convolution == "valid" or self.recipe.train.context)
        halo = (spec.halo[0], spec.halo[1]) if sees_beyond else (0, 0)
        tile = (crop[0] + 2 * halo[0], crop[1] + 2 * halo[1])
        self.crops = PlaneSet(self.train_planes, crop, halo, margin_for(self.augment, tile), focus=recipe.train.focus)
        self.loss = loss_of(recipe)
        self.last: Validated | None = None
        self.best: Validated | None = None
        self.figures: dict[str, float] = {}

    def run(self, begun: float) -> TrainReport:
        """Fits, reports."""
        recipe, folder = self.recipe, self.folder
        network = self._initial_network()
        fit = Fit(
            network,
            self._fit_options(begun),
            self.loss,
            self._batch,
            self._validate,
            self._keep_best,
            folder,
            self._identity(),
            self.device,
            self._listen,
        )
        resumed = fit.resume()
        write_text(folder / "recipe.toml", recipe.to_toml(comments=True))
        write_text(folder / "split.json", json.dumps(self.split.as_dict(), indent=1) + "\n")
        num_weights = sum(p.numel() for p in network.parameters())
        how = f"on {self.compute.device} in {self.compute.precision}"
        self.emit(Note(f"{recipe.task.name}: {num_weights:,} weights, {self.crops}, {how}", "info"))
        if resumed:
            self.emit(Note(f"goes on after step {fit.state.step} of {fit.num_steps}", "info"))
            self.figures = _best_figures(fit)
        with Board(folder / "board") as board:
            self.board, self.fit = board, fit
            num_before = len(fit.state.history)
            complete = fit.run(self.should_stop)
            board.recipe(recipe.to_toml(), self.figures)
        state = fit.state
        self._finish_page(complete and len(state.history) > num_before)
        report = TrainReport(
            str(folder),
            "done" if complete else "stopped",
            state.step // fit.options.steps_per_epoch,
            fit.options.num_epochs,
            state.best_epoch,
            _best_figures(fit),
            time.monotonic() - begun,
        )
        write_text(folder / "report.json", json.dumps(report.to_dict(), indent=1) + "\n")
        return report

    def _initial_network(self) -> Network:
        spec = self.recipe.network_spec
        if self.options.init_from is None:
            if self.recipe.train.freeze_norm:
                raise UsageError(
                    "train.freeze_norm keeps the statistics of weights, but there are none", "--from WEIGHTS",
                    "give --from, or leave train.freeze_norm out",
                )  # fmt: skip
            return build_network(spec, self.recipe.train.seed)
        network, header = load_weights(find_weights(self.options.init_from))
        if (
            isinstance(network, UNet)
            and isinstance(spec, UNetSpec)
            and spec != network.spec
            and can_grow(network.spec, spec)
        ):
            widths = ", ".join(map(str, network.spec.widths))
            self.emit(Note(f"--from: the network of widths {widths} is grown; it begins with the same answers", "info"))
            return grown(network, spec, self.recipe.train.seed).train()
        if network.spec != spec:
            raise WeightsError(
                f"--from {self.options.init_from} is another network ({header.name})",
                "the network of the recipe, or one that is narrower",
                "use its own recipe with --task",
            )
        return network.train()

    def _fit_options(self, begun: float) -> FitOptions:
        t = self.recipe.train
        left_s = None if t.max_time_s is None else t.max_time_s - (time.monotonic() - begun)
        return FitOptions(
            t.epochs, t.steps_per_epoch, t.optimiser, t.lr, t.momentum, t.weight_decay, t.schedule, t.warmup_steps,
            t.grad_clip, t.ema, t.freeze_norm, PRECISIONS[self.compute.precision], t.seed, t.val_every, _figure(t.select),
            t.select_lowest, left_s, t.save_every, judge_start=self.options.init_from is not None,
        )  # fmt: skip

    def _identity(self) -> dict[str, Any]:
        """What must be equal to resume: the data, and the recipe but its texts and what leaves the course as it is."""
        values = self.recipe.to_dict()
        values.pop("task")
        for key in ("max_time_s", "save_every", "val_every", "precision"):
            values["train"].pop(key, None)
        start = self.options.init_from
        origin = hashlib.sha256(find_weights(start).read_bytes()).hexdigest() if start else ""
        return {
            "recipe": json.dumps(values, sort_keys=True), "data": self.data.digest(), "start": origin,
            "precision": self.compute.precision,
        }  # fmt: skip

    def _batch(self, step: int) -> TrainBatch:
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)  # of this background thread: the network keeps the cores
        t = self.recipe.train
        crops = self.crops.sample((t.seed, step), t.batch)
        pixels, targets, weights = augment(
            crops.pixels, crops.targets, crops.weights, crops.rngs, self.augment, self.crops.tile, self.crops.core
        )
        pixels = without_neighbours(pixels, crops.rngs, self.recipe.input.context_slices, self.augment.lone_prob)
        if weights is None:
            weights = torch.ones(targets.shape[0], 1, *targets.shape[2:])
        return TrainBatch(pixels, targets, weights)

    def _validate(self, network: Network) -> Mapping[str, float]:
        planes = self.val_planes or self.train_planes[:1]
        network = as_stored(network)
        self.last = validate(network, planes, self.recipe, self.loss, self.compute, self.device, self.should_stop)
        return {_figure(name): value for name, value in self.last.figures.items()}

    def _keep_best(self, network: Network, figures: Mapping[str, float]) -> None:
        self.figures, self.best = dict(figures), self.last
        save_weights(self.folder / RUN_WEIGHTS, network, self._header(network, figures))

    def _header(self, network: Network, figures: Mapping[str, float]) -> WeightsHeader:
        recipe, found = self.recipe, []
        if "threshold" in figures:
            found.append(f"output.threshold={figures['threshold']}")
        sizes = [float(size) for size in self.spacing_um if size and size > 0]
        if recipe.input.spacing_um is None and sizes and len(sizes) == len(self.spacing_um):
            found.append(f"input.spacing_um={','.join(map(str, sizes))}")  # predict compares with it
        recipe = recipe_from_dict(recipe.to_dict(), "recipe", found)
        training = {
            "data": self.options.data.resolve().name,
            "split": self.split.as_dict(),
            "num_planes": len(self.train_planes),
            "steps": self.fit.state.step,
            "epoch": self.fit.state.step // self.fit.options.steps_per_epoch,
        }
        return WeightsHeader(
            recipe.task.name,
            network.spec.to_dict(),
            recipe.to_dict(),
            recipe.input.spacing_um or self.spacing_um,
            recipe.input.polarity,
            self.value_range,
            training,
            {"validation": dict(figures)},
        )

    def _listen(self, event: Event) -> None:
        if isinstance(event, StageProgress) and event.done % _BOARD_EVERY == 0:
            self.board.step(event.done, dict(event.figures))
        if isinstance(event, EpochEnded):
            loss = {} if event.loss is None else {"loss": event.loss}
            self.board.epoch(event.epoch, {**loss, **event.metrics})
            if event.is_best:
                self.board.pictures(event.epoch, self._samples())
                self._write_page()
        self.emit(event)

    def _samples(self) -> list[Sample]:
        """Of the weights that are kept."""
        return samples_of(self.val_planes or self.train_planes[:1], self.best, self.recipe) if self.best else []

    def _finish_page(self, has_new_end: bool) -> None:
        """The page as it stays: with the pictures of the best weights, also if these are of an earlier execution."""
        weights = self.folder / RUN_WEIGHTS
        if self.best is None and has_new_end and weights.is_file():
            planes = self.val_planes or self.train_planes[:1]
            network = load_weights(weights)[0]
            self.best = validate(network, planes, self.recipe, self.loss, self.compute, self.device)
        if self.best is not None or not (self.folder / "report.html").exists():
            self._write_page()

    def _write_page(self) -> None:
        facts = {
            "data": self.options.data.resolve().name,
            "network": str(self.recipe.network_spec.to_dict()),
            "planes": f"{len(self.train_planes)} for training, {len(self.val_planes)} for validation",
            "device": f"{self.compute.device}, {self.compute.precision}",
            "step": f"{self.fit.state.step} of {self.fit.num_steps}",
        }
        write_training_page(
            self.folder / "report.html", f"Training of {self.recipe.task.name}", facts, self.fit.state.history,
            self._samples(), recipe_toml=self.recipe.to_toml(), notes=self.split.describe(),
            select=_figure(self.recipe.train.select), select_lowest=self.recipe.train.select_lowest,
        )  # fmt: skip


def _figure(name: str) -> str:
    """The validation's loss is told apart from the training's."""
    return "val_loss" if name == "loss" else name


def _best_figures(fit: Fit) -> dict[str, float]:
    if fit.state.best is None:
        return {}
    best = next((h for h in fit.state.history if int(h["epoch"]) == fit.state.best_epoch), {})
    return {name: value for name, value in best.items() if name != "epoch"}
