"""`unetctl train`: from a folder of pictures with labels to weights with a report."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unetctl.errors import InputError, UsageError, WeightsError
from unetctl.jobs.tasks import RUN_WEIGHTS, find_weights
from unetctl.networks.build import build_network
from unetctl.networks.unet import UNet
from unetctl.networks.weights import WeightsHeader, load_weights, save_weights
from unetctl.recipe.load import load_recipe, recipe_from_dict
from unetctl.recipe.schema import Recipe
from unetctl.recipe.shipped import shipped_recipes
from unetctl.reports.training_page import Sample, write_training_page
from unetctl.runtime.device import PRECISIONS, Compute, apply_compute, resolve
from unetctl.runtime.events import EpochEnded, Event, Listener, Note, StageProgress, nobody
from unetctl.runtime.locks import RunLock
from unetctl.training.augment import AugmentOptions, augment, margin_for
from unetctl.training.board import Board
from unetctl.training.crops import Plane, PlaneSet
from unetctl.training.fit import Fit, FitOptions, TrainBatch
from unetctl.training.load import count_planes, load_selection, with_loss_weights
from unetctl.training.losses import SegmentationLoss
from unetctl.training.pairs import find_pairs
from unetctl.training.splits import Split, SplitRules, make_split
from unetctl.training.validation import Validated, probability_of, validate

#: Steps between TensorBoard scalars.
_BOARD_EVERY = 10
#: Most validation planes shown on the results page.
_SHOWN_PLANES = 8


@dataclass(frozen=True)
class TrainOptions:
    """What the command line may say about a training; None leaves it to the recipe.

    Attributes:
        data: folder of pictures and labels.
        task: shipped recipe, recipe file, weights or run folder (their recipe); None: the recipe that the folder's name
            matches, or the one of a run that was begun in `output`.
        output: run folder; None: ``<data>-<task>`` in the working directory.
        init_from: weights to start from (fine-tuning).
        val, exclude: entries as in `unetctl.training.splits`.
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
            lines.append(f"best weights of epoch {self.best_epoch}: {told}")
            lines.append(f"use them: unetctl predict INPUT --task {self.folder}")
        return lines


def train(options: TrainOptions, emit: Listener = nobody, should_stop: Callable[[], bool] = lambda: False) -> TrainReport:
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
    folder = options.output or Path(f"{options.data.resolve().name}-{recipe.task.name}")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"-o {folder} is a file", "a folder for the training run")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "recipe.toml").exists():
        raise UsageError(f"{folder} exists and is not a training run", "a new name", "choose another with -o")
    folder.mkdir(parents=True, exist_ok=True)
    with RunLock(folder, shared=False, who="train"):
        if options.fresh:
            _clear(folder)
        return _TrainingRun(options, recipe, folder, emit).run(should_stop, begun)


def _recipe_of(options: TrainOptions, emit: Listener) -> Recipe:
    short: dict[str, Any] = {"epochs": options.epochs, "lr": options.lr, "batch": options.batch, "seed": options.seed, "save_every": options.save_every}
    short |= {"max_time_s": options.max_time_s, "precision": None if options.precision == "auto" else options.precision}
    overrides = [f"train.{key}={value}" for key, value in short.items() if value is not None]
    overrides += [f"train.crop={options.crop},{options.crop}"] if options.crop is not None else []
    overrides += list(options.overrides)
    task = options.task
    if task is None:
        names = [n for n in shipped_recipes() if n in options.data.resolve().name.lower()]
        if len(names) != 1:
            raise UsageError(
                f"no --task, and the name of {options.data} names none", f"--task {' or '.join(shipped_recipes())}, or a recipe file",
                "copy pipelines/em.toml, change it, and give it as --task ./mine.toml",
            )
        task = names[0]
        emit(Note(f"task {task}: the folder's name says so", "info"))
    is_weights = Path(task).suffix == ".safetensors" or Path(task).is_dir()
    if is_weights:
        return recipe_from_dict(load_weights(find_weights(task))[1].recipe, task, overrides)
    return load_recipe(task, overrides)


def _clear(folder: Path) -> None:
    """Removes what a training run writes, and nothing else."""
    for name in ("checkpoints", "board"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("recipe.toml", RUN_WEIGHTS, "report.html", "report.json", "split.json", "log.jsonl"):
        (folder / name).unlink(missing_ok=True)


class _TrainingRun:
    """One execution: data in memory, loop, listeners."""

    def __init__(self, options: TrainOptions, recipe: Recipe, folder: Path, emit: Listener) -> None:
        self.options, self.recipe, self.folder, self.emit = options, recipe, folder, emit
        self.device, compute = resolve(options.device, recipe.train.precision)
        self.compute: Compute = compute
        apply_compute(compute, options.device)
        self.split = self._find_data()
        train_pairs = [load_selection(s, recipe) for s in self.split.train]
        val_pairs = [load_selection(s, recipe) for s in self.split.val]
        self.value_range = (min(p.value_range[0] for p in train_pairs), max(p.value_range[1] for p in train_pairs))
        self.spacing_um = train_pairs[0].spacing_um
        planes = with_loss_weights([p for pair in (*train_pairs, *val_pairs) for p in pair.planes], recipe)
        num_train = sum(len(p.planes) for p in train_pairs)
        self.train_planes, self.val_planes = planes[:num_train], planes[num_train:]
        self.augment = AugmentOptions(**recipe.augment.model_dump())
        spec = recipe.network_spec
        crop = (recipe.train.crop[0], recipe.train.crop[1])
        halo = (spec.halo[0], spec.halo[1]) if spec.border == "mirror" else (0, 0)
        tile = (crop[0] + 2 * halo[0], crop[1] + 2 * halo[1])
        self.crops = PlaneSet(self.train_planes, crop, halo, margin_for(self.augment, tile))
        self.loss = SegmentationLoss("bce" if recipe.output.num_channels == 1 else "cross_entropy", dice=recipe.loss.dice)
        self.last: Validated | None = None
        self.figures: dict[str, float] = {}

    def _find_data(self) -> Split:
        table = find_pairs(self.options.data)
        for line in table.describe():
            self.emit(Note(line, "info"))
        s = self.recipe.split
        rules = SplitRules(s.train, s.val, s.test, val_share=s.val_share).overridden(self.options.val, self.options.exclude)
        split = make_split(table, rules, count_planes, stack=self.recipe.input.stack)
        for line in split.describe():
            self.emit(Note(line, "info"))
        return split

    def run(self, should_stop: Callable[[], bool], begun: float) -> TrainReport:
        """Fits, reports."""
        recipe, folder = self.recipe, self.folder
        network = self._initial_network()
        fit = Fit(
            network, self._fit_options(), self.loss, self._batch, self._validate, self._keep_best, folder, self._identity(),
            self.device, self._listen,
        )
        resumed = fit.resume()
        (folder / "recipe.toml").write_text(recipe.to_toml(comments=True))
        (folder / "split.json").write_text(json.dumps(self.split.as_dict(), indent=1))
        num_weights = sum(p.numel() for p in network.parameters())
        self.emit(Note(f"{recipe.task.name}: {num_weights:,} weights, {self.crops}, on {self.compute.device} in {self.compute.precision}", "info"))
        if resumed:
            self.emit(Note(f"goes on after step {fit.state.step} of {fit.num_steps}", "info"))
            self.figures = _best_figures(fit)
        with Board(folder / "board") as board:
            self.board, self.fit = board, fit
            complete = fit.run(should_stop)
            board.recipe(recipe.to_toml(), self.figures)
        self._write_page()
        state = fit.state
        report = TrainReport(
            str(folder), "done" if complete else "stopped", state.step // fit.options.steps_per_epoch, fit.options.num_epochs,
            state.best_epoch, _best_figures(fit), time.monotonic() - begun,
        )
        (folder / "report.json").write_text(json.dumps(report.to_dict(), indent=1) + "\n")
        return report

    def _initial_network(self) -> UNet:
        spec = self.recipe.network_spec
        if self.options.init_from is None:
            return build_network(spec, self.recipe.train.seed)
        network, header = load_weights(find_weights(self.options.init_from))
        if network.spec != spec:
            raise WeightsError(f"--from {self.options.init_from} is another network ({header.name})", "the network of the recipe", "use its own recipe with --task")
        return network.train()

    def _fit_options(self) -> FitOptions:
        t = self.recipe.train
        return FitOptions(
            t.epochs, t.steps_per_epoch, t.optimiser, t.lr, t.momentum, t.weight_decay, t.schedule, t.warmup_steps, t.grad_clip,
            t.ema, PRECISIONS[self.compute.precision], t.seed, t.val_every, _figure(t.select), t.select_lowest, t.max_time_s, t.save_every,
        )

    def _identity(self) -> dict[str, Any]:
        """What must be equal to resume: all of the recipe but its length and texts, and the data."""
        values = self.recipe.to_dict()
        values.pop("task")
        for key in ("max_time_s", "save_every", "val_every", "precision"):
            values["train"].pop(key, None)
        data = hashlib.sha256()
        for plane in (*self.train_planes, *self.val_planes):
            data.update(plane.name.encode())
            data.update(np.ascontiguousarray(plane.pixels[:, ::7, ::7]).tobytes())
            data.update(np.ascontiguousarray(plane.target[:, ::7, ::7]).tobytes())
        origin = hashlib.sha256(find_weights(self.options.init_from).read_bytes()).hexdigest() if self.options.init_from else ""
        return {"recipe": json.dumps(values, sort_keys=True), "data": data.hexdigest(), "start": origin, "precision": self.compute.precision}

    def _batch(self, step: int) -> TrainBatch:
        torch.set_num_threads(1)  # of this background thread: the network keeps the cores
        t = self.recipe.train
        crops = self.crops.sample((t.seed, step), t.batch)
        pixels, targets, weights = augment(
            crops.pixels, crops.targets, crops.weights, crops.rngs, self.augment, self.crops.tile, self.crops.core
        )
        if weights is None:
            weights = torch.ones(targets.shape[0], 1, *targets.shape[2:])
        return TrainBatch(pixels, targets, weights)

    def _validate(self, network: UNet) -> Mapping[str, float]:
        planes = self.val_planes or self.train_planes[:1]
        self.last = validate(network, planes, self.recipe, self.loss, self.compute, self.device)
        return {_figure(name): value for name, value in self.last.figures.items()}

    def _keep_best(self, network: UNet, figures: Mapping[str, float]) -> None:
        self.figures = dict(figures)
        save_weights(self.folder / RUN_WEIGHTS, network, self._header(network, figures))

    def _header(self, network: UNet, figures: Mapping[str, float]) -> WeightsHeader:
        recipe = self.recipe
        if "threshold" in figures:
            recipe = recipe_from_dict(recipe.to_dict(), "recipe", [f"output.threshold={figures['threshold']}"])
        training = {
            "data": self.options.data.resolve().name, "split": self.split.as_dict(), "num_planes": len(self.train_planes),
            "steps": self.fit.state.step, "epoch": self.fit.state.step // self.fit.options.steps_per_epoch,
        }
        return WeightsHeader(
            recipe.task.name, network.spec.to_dict(), recipe.to_dict(), recipe.input.spacing_um or self.spacing_um,
            recipe.input.polarity, self.value_range, training, {"validation": dict(figures)},
        )

    def _listen(self, event: Event) -> None:
        if isinstance(event, StageProgress) and event.done % _BOARD_EVERY == 0:
            self.board.step(event.done, dict(event.figures))
        if isinstance(event, EpochEnded):
            self.board.epoch(event.epoch, {"loss": event.loss, **event.metrics})
            if event.is_best:
                self.board.pictures(event.epoch, self._samples())
                self._write_page()
        self.emit(event)

    def _samples(self) -> list[Sample]:
        if self.last is None:
            return []
        planes = (self.val_planes or self.train_planes[:1])[:_SHOWN_PLANES]
        threshold = self.last.figures.get("threshold", self.recipe.output.threshold)
        return [_sample(p, o, self.recipe, threshold) for p, o in zip(planes, self.last.outputs[:_SHOWN_PLANES], strict=True)]

    def _write_page(self) -> None:
        facts = {
            "data": self.options.data.resolve().name, "network": str(self.recipe.network_spec.to_dict()),
            "planes": f"{len(self.train_planes)} for training, {len(self.val_planes)} for validation",
            "device": f"{self.compute.device}, {self.compute.precision}", "step": f"{self.fit.state.step} of {self.fit.num_steps}",
        }
        write_training_page(
            self.folder / "report.html", f"Training of {self.recipe.task.name}", facts, self.fit.state.history, self._samples(),
            recipe_toml=self.recipe.to_toml(), notes=self.split.describe(), select=_figure(self.recipe.train.select),
            select_lowest=self.recipe.train.select_lowest,
        )


def _figure(name: str) -> str:
    """The validation's loss is told apart from the training's."""
    return "val_loss" if name == "loss" else name


def _best_figures(fit: Fit) -> dict[str, float]:
    best = next((h for h in fit.state.history if int(h["epoch"]) == fit.state.best_epoch), {})
    return {name: value for name, value in best.items() if name != "epoch"}


def _sample(plane: Plane, logits: np.ndarray[Any, Any], recipe: Recipe, threshold: float) -> Sample:
    shown = plane.pixels[plane.pixels.shape[0] // 2]
    low, high = np.percentile(shown, (0.5, 99.5))
    picture = np.clip((shown - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    if recipe.output.num_channels == 1:
        probability = probability_of(logits[0])
        wrong = (probability >= threshold) != (plane.target[0] > 0)
        return Sample(plane.name, picture, plane.target[0] * np.uint8(255), (probability * 255).round().astype(np.uint8), {"misclassified": float(wrong.mean()), "threshold": threshold})
    scale = 255 // max(1, recipe.output.num_channels - 1)
    found = logits.argmax(0)
    wrong = found != plane.target[0]
    return Sample(plane.name, picture, (plane.target[0] * scale).astype(np.uint8), (found * scale).astype(np.uint8), {"misclassified": float(wrong.mean())})


