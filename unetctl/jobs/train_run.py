"""One execution of a training: data in memory, loop, listeners."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from unetctl.errors import UsageError, WeightsError
from unetctl.jobs.tasks import find_weights
from unetctl.jobs.train_compose import crop_set, gather_composed
from unetctl.jobs.train_data import DataWishes, gather
from unetctl.jobs.train_folder import RUN_WEIGHTS, clear, write_text
from unetctl.jobs.train_objects import score_of
from unetctl.jobs.train_options import TrainOptions, TrainReport
from unetctl.jobs.train_page import RunPage
from unetctl.jobs.train_pictures import for_labels, gather_pictures
from unetctl.jobs.train_samples import samples_of
from unetctl.networks.build import build_network
from unetctl.networks.grow import can_fill, can_grow, filling, grown
from unetctl.networks.network import Network
from unetctl.networks.spec import UNetSpec
from unetctl.networks.unet import UNet
from unetctl.networks.weights import WeightsHeader, load_weights, save_weights
from unetctl.recipe.load import recipe_from_dict
from unetctl.recipe.schema import Recipe
from unetctl.runtime.compute import Compute, available_cores
from unetctl.runtime.device import PRECISIONS, apply_compute, pick_device, resolve
from unetctl.runtime.events import EpochEnded, Event, Listener, Note, StageProgress
from unetctl.training.augment import AugmentOptions, margin_for
from unetctl.training.board import Board
from unetctl.training.feed import num_workers_for
from unetctl.training.fit import Fit, FitOptions
from unetctl.training.losses import loss_of
from unetctl.training.sampler import Sampler
from unetctl.training.team import Team
from unetctl.training.validation import Validated, as_stored, validate

#: TensorBoard scalars of an epoch's steps.
_BOARD_POINTS = 20
_BOARD_FIGURES = ("loss", "lr", "Mpx/s")
#: Settings of [train] that leave the course as it is.
_FREE = (
    "max_time_s", "save_every", "save_every_steps", "keep_every", "val_every", "precision", "patience", "workers",
)  # fmt: skip


@contextmanager
def joined(options: TrainOptions) -> Iterator[Team]:
    """The processes of the training, found and connected.

    Raises:
        ResourceError: if they do not find each other, or there is no such device.
    """
    with Team(options.place, pick_device(_device_words(options))) as team:
        yield team


def _device_words(options: TrainOptions) -> str:
    """Of several processes on a machine each has a GPU of its own."""
    is_open = options.device in ("auto", "cuda") and torch.cuda.is_available()
    return f"cuda:{options.place.local_rank}" if options.place.num > 1 and is_open else options.device


class TrainingRun:
    """A training with its data in memory.

    Args:
        options: of the command.
        recipe: resolved.
        folder: of the run; nothing is written before `run`.
        team: the processes that train together.
        emit, should_stop: see `unetctl.jobs.train.train`.

    Attributes:
        sampler: what makes the batches of this process.
    """

    def __init__(
        self,
        options: TrainOptions,
        recipe: Recipe,
        folder: Path,
        team: Team,
        emit: Listener,
        should_stop: Callable[[], bool],
    ) -> None:
        self.options, self.recipe, self.folder, self.team = options, recipe, folder, team
        self.emit, self.should_stop = emit, should_stop
        words, place = _device_words(options), team.place
        num_threads = max(1, available_cores() // place.num_local) if team.num > 1 else None
        self.device, compute = resolve(words, recipe.train.precision, num_threads)
        self.compute: Compute = compute
        apply_compute(compute, words)
        torch.get_num_threads()  # fixes this thread's number now: else it would take over what the feed's sets for its own
        if recipe.compose.kind == "paste":
            self.data = gather_composed(options.data, recipe, emit, should_stop)
        else:
            wishes = DataWishes(options.data, options.val, options.exclude, options.on_error == "skip")
            is_image = recipe.labels.kind == "image"
            self.data = (gather_pictures if is_image else gather)(wishes, recipe, emit, should_stop)
        self.split, self.train_planes, self.val_planes = self.data.split, self.data.train, self.data.val
        self.value_range, self.spacing_um = self.data.value_range, self.data.spacing_um
        self.augment = AugmentOptions(**recipe.augment.model_dump())
        spec = recipe.network_spec
        crop = (recipe.train.crop[0], recipe.train.crop[1])
        sees_beyond = spec.border == "mirror" and (spec.convolution == "valid" or self.recipe.train.context)
        halo = (spec.halo[0], spec.halo[1]) if sees_beyond else (0, 0)
        tile = (crop[0] + 2 * halo[0], crop[1] + 2 * halo[1])
        self.crops = crop_set(self.data, recipe, crop, halo, margin_for(self.augment, tile))
        t = recipe.train
        first = place.rank * t.batch
        sampler = Sampler(self.crops, self.augment, t.seed, t.batch, recipe.input.context_slices, first)
        self.sampler = for_labels(sampler, recipe)
        self.loss = loss_of(recipe, self.train_planes)
        self.last: Validated | None = None
        self.best: Validated | None = None
        self.figures: dict[str, float] = {}

    def run(self, begun: float) -> TrainReport:
        """Fits, reports.

        Args:
            begun: `time.monotonic` when the command began.
        """
        recipe, folder, is_first = self.recipe, self.folder, self.team.is_first
        network, identity = self.initial_network(), self._identity()
        self.team.must_agree("settings or data", identity)
        if self.options.fresh and is_first:  # not before all this has proved to be usable
            clear(folder)
        fit = Fit(
            network, self.fit_options(begun), self.loss, self.sampler, self._validate, self._keep_best, folder,
            identity, emit=self._listen, team=self.team,
        )  # fmt: skip
        self.fit = fit
        resumed = fit.resume()
        if is_first:
            write_text(folder / "recipe.toml", recipe.to_toml(comments=True))
            write_text(folder / "split.json", json.dumps(self.split.as_dict(), indent=1) + "\n")
        self._tell(network, resumed)
        num_before = len(fit.state.history)
        with ExitStack() as stack:
            self.board = stack.enter_context(Board(folder / "board")) if is_first else None
            if self.board and not resumed:
                self._draw_graph(self.board)
            complete = fit.run(self.should_stop)
            if self.board:
                self.board.recipe(recipe.to_toml(), self.figures)
        state = fit.state
        if complete and fit.has_stalled and state.step < fit.num_steps:
            text = f"{fit.options.patience} validations without better weights (train.patience): the training ends"
            self.emit(Note(text, "info"))
        report = TrainReport(
            str(folder),
            "done" if complete else "stopped",
            state.step // fit.options.steps_per_epoch,
            fit.options.num_epochs,
            state.best_epoch,
            _best_figures(fit),
            time.monotonic() - begun,
        )
        if is_first:
            self._finish_page(complete and len(state.history) > num_before)
            write_text(folder / "report.json", json.dumps(report.to_dict(), indent=1) + "\n")
        return report

    def _tell(self, network: Network, resumed: bool) -> None:
        num_weights = sum(p.numel() for p in network.parameters())
        how = f"on {self.compute.device} in {self.compute.precision}"
        self.emit(Note(f"{self.recipe.task.name}: {num_weights:,} weights, {self.crops}, {how}", "info"))
        if self.team.num > 1:
            batch = self.recipe.train.batch
            text = (
                f"{self.team.num} processes train together, {batch} crops a step each, {self.team.num * batch} in all"
            )
            self.emit(Note(text, "info"))
        num = self.fit.options.num_workers
        self.emit(Note(f"crops are made by {num or 'no'} processes beside the network", "detail"))
        if resumed:
            self.emit(Note(f"goes on after step {self.fit.state.step} of {self.fit.num_steps}", "info"))
            self.figures = _best_figures(self.fit)

    def initial_network(self) -> Network:
        """The network as training begins with it.

        Raises:
            UsageError, WeightsError: if --from does not go with the recipe.
        """
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
        if network.spec != spec and can_fill(network.spec, spec):
            text = "--from: these weights filled the damage otherwise; the mask begins as it was, the picture is learnt anew"
            self.emit(Note(text, "info"))
            return filling(network, spec).train()
        if network.spec != spec:
            raise WeightsError(
                f"--from {self.options.init_from} is another network ({header.name})",
                "the network of the recipe, or one that is narrower",
                "use its own recipe with --task",
            )
        return network.train()

    def fit_options(self, begun: float) -> FitOptions:
        """The recipe's [train], with what this machine decides."""
        t = self.recipe.train
        left_s = None if t.max_time_s is None else t.max_time_s - (time.monotonic() - begun)
        wanted = None if t.workers == "auto" else t.workers
        return FitOptions(
            t.epochs, t.steps_per_epoch, t.optimiser, t.lr, t.momentum, t.weight_decay, t.schedule, t.warmup_steps,
            t.grad_clip, t.ema, t.freeze_norm, PRECISIONS[self.compute.precision], t.seed, t.val_every, figure_name(t.select),
            t.select_lowest, left_s, t.save_every, judge_start=self.options.init_from is not None, patience=t.patience,
            plateau_patience=t.plateau_patience, save_every_steps=t.save_every_steps, keep_every=t.keep_every,
            num_workers=num_workers_for(wanted, self.compute, self.team.place.num_local),
        )  # fmt: skip

    def _identity(self) -> dict[str, Any]:
        """What must be equal to resume: the data, and the recipe but its texts and what leaves the course as it is."""
        values = self.recipe.to_dict()
        values.pop("task")
        for key in _FREE:
            values["train"].pop(key, None)
        values["train"]["batch"] *= self.team.num  # two processes may go on where one with twice the batch was
        start = self.options.init_from
        origin = hashlib.sha256(find_weights(start).read_bytes()).hexdigest() if start else ""
        return {
            "recipe": json.dumps(values, sort_keys=True), "data": self.data.digest(), "start": origin,
            "precision": self.compute.precision,
        }  # fmt: skip

    def _validate(self, network: Network) -> Mapping[str, float]:
        planes = self.val_planes or self.train_planes[:1]
        network = as_stored(network)
        self.last = validate(
            network, planes, self.recipe, self.loss, self.compute, self.device, self.should_stop, score_of(self.recipe)
        )
        return {figure_name(name): value for name, value in self.last.figures.items()}

    def _keep_best(self, network: Network, figures: Mapping[str, float]) -> None:
        self.figures, self.best = dict(figures), self.last
        save_weights(self.folder / RUN_WEIGHTS, network, self._header(network, figures))

    def _header(self, network: Network, figures: Mapping[str, float]) -> WeightsHeader:
        recipe, found = self.recipe, []
        if "threshold" in figures:
            found.append(f"output.threshold={figures['threshold']}")
        if "seed_threshold" in figures:
            found.append(f"objects.seed_threshold={figures['seed_threshold']}")
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
        if self.board is not None:
            every = max(1, self.fit.options.steps_per_epoch // _BOARD_POINTS)
            if isinstance(event, StageProgress) and event.done % every == 0:
                self.board.step(event.done, {name: event.figures[name] for name in _BOARD_FIGURES})
            if isinstance(event, EpochEnded):
                loss = {} if event.loss is None else {"loss": event.loss}
                self.board.epoch(event.epoch, {**loss, **event.metrics})
                if event.is_best:
                    self.board.pictures(event.epoch, self._samples())
                    self._page().write()
        self.emit(event)

    def _samples(self) -> list[Any]:
        """Of the weights that are kept."""
        return samples_of(self.val_planes or self.train_planes[:1], self.best, self.recipe) if self.best else []

    def _draw_graph(self, board: Board) -> None:
        try:
            tile = torch.zeros(1, self.recipe.in_channels, *self.crops.tile)
            board.graph(self.fit.network, tile)
        except RuntimeError as error:  # a tool's picture is nothing to stop a training for
            self.emit(Note(f"TensorBoard gets no graph ({type(error).__name__}: {str(error)[:200]})", "detail"))

    def _finish_page(self, has_new_end: bool) -> None:
        """The page as it stays: with the pictures of the best weights, also if these are of an earlier execution."""
        weights = self.folder / RUN_WEIGHTS
        if self.best is None and has_new_end and weights.is_file():
            planes = self.val_planes or self.train_planes[:1]
            network = load_weights(weights)[0]
            self.best = validate(network, planes, self.recipe, self.loss, self.compute, self.device)
        if self.best is not None or not (self.folder / "report.html").exists():
            self._page().write(is_final=True)

    def _page(self) -> RunPage:
        return RunPage(
            self.folder / "report.html", self.recipe, self.fit, self.options.data.resolve().name,
            self.train_planes, self.val_planes, self.best, self.compute, self.split.describe(),
        )  # fmt: skip


def figure_name(name: str) -> str:
    """The validation's loss is told apart from the training's."""
    return "val_loss" if name == "loss" else name


def _best_figures(fit: Fit) -> dict[str, float]:
    if fit.state.best is None:
        return {}
    best = next((h for h in fit.state.history if int(h["epoch"]) == fit.state.best_epoch), {})
    return {name: value for name, value in best.items() if name != "epoch"}
