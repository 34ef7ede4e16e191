"""`unetctl benchmark speed`: predict from first read to last write, and the bare network on resident data, in turn.

    predict | network | predict | network | ...      pairs: whatever else the machine does, both see it

Efficiency is the share of predict's time that the network's own forward passes need: tiles x time of a bare tile / wall
time. It is 1 if reading, mirroring, batching, cropping and writing hide behind the network altogether.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tifffile

from unetctl.errors import Stopped, UsageError
from unetctl.jobs.benchmark_bare import BareNetwork, device_peak, reset_peaks
from unetctl.jobs.benchmark_report import BenchmarkReport
from unetctl.jobs.benchmark_speed_pages import measure_pages
from unetctl.jobs.pages.job import are_pages
from unetctl.jobs.pages.options import PageOptions
from unetctl.jobs.predict import Prediction, PredictOptions, compute_blocks, plan_prediction
from unetctl.jobs.tasks import ResolvedTask, resolve_task
from unetctl.networks.network import Network
from unetctl.runtime.device import apply_compute
from unetctl.runtime.events import Listener, StageEnded, StageProgress, StageStarted, nobody
from unetctl.runtime.loop import LoopTimes, network_dims
from unetctl.runtime.memory import format_size
from unetctl.runtime.report import peak_memory
from unetctl.runtime.run_folder import RunFolder

#: Share of a run's batches that the bare network computes for comparison.
_BARE_SHARE = 0.5
_TIFF_TILE = 512


@dataclass(frozen=True)
class Pair:
    """One run of predict and the bare network right after it.

    Attributes:
        wall_s: of predict, from the first read to the last rename of a written block; export apart.
        bare_s: what the network alone would have needed for the same tiles.
        times: of predict, by stage.
    """

    wall_s: float
    bare_s: float
    times: LoopTimes

    @property
    def efficiency(self) -> float:
        """Share of the wall time that the network's own work is, 0..1 but for noise."""
        return self.bare_s / self.wall_s


@dataclass(frozen=True)
class SpeedRun:
    """All pairs with one core size.

    Attributes:
        core, batch, num_tiles, num_pixels: of the plan; core as "YxX", pixels kept.
        pairs: in order.
        projected_bytes: peak memory of the process as planned; peak_bytes: as measured while predicting.
        device_projected_bytes, device_peak_bytes: the same of a CUDA device's memory, 0 on a CPU.
    """

    core: str
    batch: int
    num_tiles: int
    num_pixels: int
    pairs: tuple[Pair, ...]
    projected_bytes: int
    peak_bytes: int
    device_projected_bytes: int = 0
    device_peak_bytes: int = 0

    @property
    def mpx_per_s(self) -> float:
        """Kept megapixels per second end to end, median."""
        return self.num_pixels / 1e6 / median(p.wall_s for p in self.pairs)

    @property
    def bare_mpx_per_s(self) -> float:
        """Kept megapixels per second of the bare network, median."""
        return self.num_pixels / 1e6 / median(p.bare_s for p in self.pairs)

    @property
    def efficiency(self) -> float:
        """Median over the pairs."""
        return median(p.efficiency for p in self.pairs)

    def seconds(self) -> dict[str, float]:
        """Medians by stage; reading and writing run beside the network, waiting is what the network's thread loses."""
        names = {
            "reading": "read_s", "waiting for reading": "wait_read_s", "network": "network_s", "writing": "write_s",
            "waiting for writing": "wait_write_s", "wall": "wall_s",
        }  # fmt: skip
        return {name: round(median(getattr(p.times, field) for p in self.pairs), 4) for name, field in names.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        values = {key: value for key, value in asdict(self).items() if key != "pairs"}
        return {
            **values, "mpx_per_s": self.mpx_per_s, "bare_mpx_per_s": self.bare_mpx_per_s, "efficiency": self.efficiency,
            "seconds": self.seconds(),
            "pairs": [{"wall_s": p.wall_s, "bare_s": p.bare_s, "efficiency": p.efficiency} for p in self.pairs],
        }  # fmt: skip


def speed(
    task: str,
    input: str | None = None,
    *,
    size: int = 4096,
    pairs: int = 5,
    core: int | None = None,
    cores: Sequence[int] = (),
    batch: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    memory_bytes: int | None = None,
    page_options: PageOptions | None = None,
    emit: Listener = nobody,
    should_stop: Callable[[], bool] = lambda: False,
) -> BenchmarkReport:
    """Measures predict and the bare network in turn.

    Args:
        task: see `unetctl.jobs.tasks.resolve_task`.
        input: a picture to measure with, or a folder of pages (see `unetctl.jobs.benchmark_speed_pages`); None makes a
            picture.
        size: side of the made picture, pixels.
        pairs: how many runs of each.
        core: size per side of a core, pixels; None takes the planner's.
        cores: several core sizes, each measured by itself, to find the best; instead of `core`.
        batch: tiles at once; None takes the planner's.
        device: see `unetctl.runtime.device.pick_device`.
        precision: see `unetctl.runtime.device.resolve`.
        memory_bytes: see `PredictOptions`.
        page_options: of predict; a folder is pages if they or the recipe say so.
        emit: hears about every pair.
        should_stop: asked between batches.

    Returns:
        A report with "task", "device", "precision", "num_threads", "picture" and "runs", one per core size (see
        `SpeedRun.to_dict`), and "best_core", the core with the highest rate end to end. Of pages see `measure_pages`.

    Raises:
        UsageError: if a core is off the network's grid, there are no pairs, or `core` comes with `cores`.
        InputError: if the input cannot be read or does not fit the network.
        Stopped: if asked to stop.
    """
    if pairs < 1:
        raise UsageError(f"--pairs {pairs}", "at least 1")
    if cores and core is not None:
        raise UsageError("--core together with --cores", "one of them")
    resolved = resolve_task(task)
    pages = page_options or PageOptions()
    is_folder = input is not None and (pages.as_pages is True or Path(input).is_dir())
    if input is not None and is_folder and are_pages([input], resolved.recipe, None, pages):
        options = PredictOptions(core=core, batch=batch, device=device, precision=precision, memory_bytes=memory_bytes)
        return measure_pages(
            input, resolved, options, pages, pairs=pairs, cores=cores, emit=emit, should_stop=should_stop
        )
    network = resolved.network()
    wanted: Sequence[int | None] = list(cores) or [core]
    runs = []
    with tempfile.TemporaryDirectory(prefix="unetctl-benchmark-") as folder:
        path = input or str(made_picture(Path(folder), resolved, size))
        begun = time.monotonic()
        emit(StageStarted("benchmark", len(wanted) * pairs, 0, "pair"))
        for i_run, one in enumerate(wanted):
            options = PredictOptions(
                output=Path(folder) / "out.ome.zarr", core=one, batch=batch, device=device, precision=precision,
                memory_bytes=memory_bytes,
            )  # fmt: skip
            prediction = plan_prediction(path, resolved, options, network)
            try:
                told = _Told(emit, i_run * pairs)
                runs.append(_measured(prediction, network, pairs, told, should_stop))
            finally:
                prediction.source.close()
        emit(StageEnded("benchmark", time.monotonic() - begun))
    plan = prediction.plan
    picture = "; ".join(f"{image.tiles.axes} {'x'.join(map(str, image.tiles.shape))}" for image in plan.images)
    best = max(runs, key=lambda run: run.mpx_per_s)
    values = {
        "task": resolved.name, "weights_sha256": resolved.weights_sha256, "device": plan.compute.device,
        "precision": plan.compute.precision, "num_threads": plan.compute.num_threads, "picture": picture,
        "is_made_up": input is None, "runs": [run.to_dict() for run in runs], "best_core": best.core,
    }  # fmt: skip
    return BenchmarkReport("speed", values, tuple(_lines(values, runs, best)))


@dataclass
class _Told:
    """Counts pairs for the progress."""

    emit: Listener
    done: int

    def __call__(self, pair: Pair, num_pixels: int) -> None:
        self.done += 1
        figures = {"Mpx/s": num_pixels / 1e6 / pair.wall_s, "efficiency": pair.efficiency}
        self.emit(StageProgress("benchmark", self.done, figures))


def _measured(
    prediction: Prediction, network: Network, num_pairs: int, told: _Told, should_stop: Callable[[], bool]
) -> SpeedRun:
    plan, projection = prediction.plan, prediction.planned.projection
    bare = BareNetwork(plan, network, apply_compute(plan.compute, prediction.options.device))
    bare.warm_up()
    found: list[Pair] = []
    peak = on_device = 0
    for _ in range(num_pairs):
        reset_peaks(bare.device)
        times = _predicted(prediction, network, should_stop)
        peak = max(peak, peak_memory())
        on_device = max(on_device, device_peak(bare.device))
        found.append(Pair(times.wall_s, bare.seconds(_BARE_SHARE, should_stop), times))
        told(found[-1], plan.num_pixels)
    dims = network_dims(plan)
    core = "x".join(map(str, plan.images[0].tiles.core[-dims:]))
    return SpeedRun(
        core,
        plan.batch,
        plan.num_tiles,
        plan.num_pixels,
        tuple(found),
        projection.host,
        peak,
        projection.device,
        on_device,
    )


def _predicted(prediction: Prediction, network: Network, should_stop: Callable[[], bool]) -> LoopTimes:
    """One run into a store of its own, which is deleted: the very loop of predict, without pyramid and export."""
    folder = RunFolder(prediction.folder.output)
    plan = prediction.plan
    try:
        folder.begin(plan)
        folder.ensure_store(plan)
        todo = list(range(plan.num_blocks))
        times, complete = compute_blocks(
            plan, todo, prediction.source, network, folder, prediction.options, nobody, should_stop, len(todo)
        )
    finally:
        for path in (folder.path, folder.output):
            shutil.rmtree(path, ignore_errors=True)
    if not complete:
        raise Stopped("stopped while measuring", "", "run the same command again")
    return times


def made_picture(folder: Path, task: ResolvedTask, size: int) -> Path:
    """A picture of about ``size * size`` pixels that the task takes: texture and noise, a tiled, compressed OME-TIFF.

    Networks of three axes get a cube of as many pixels, those of several slices a stack that high.
    """
    recipe = task.recipe
    shape: tuple[int, ...] = (size, size)
    if recipe.network_spec.dims == 3:
        shape = (max(1, round(size ** (2 / 3))),) * 3
    elif recipe.input.context_slices > 1:
        shape = (recipe.input.context_slices, size, size)
    axes = "ZYX"[-len(shape) :]
    channels = recipe.input.channels
    if channels > 1:
        axes, shape = f"C{axes}", (channels, *shape)
    path = folder / "picture.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(
            _planes(shape), shape=shape, dtype=np.uint8, tile=(_TIFF_TILE, _TIFF_TILE), compression="adobe_deflate",
            predictor=True, compressionargs={"level": 1}, metadata={"axes": axes}, photometric="minisblack",
        )  # fmt: skip
    return path


def _planes(shape: tuple[int, ...]) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
    """The TIFF tiles of all planes in order."""
    rng = np.random.default_rng(2015)
    rows, columns = (-(-n // _TIFF_TILE) for n in shape[-2:])
    for _ in range(int(np.prod(shape[:-2], dtype=int)) * rows * columns):
        coarse = rng.integers(60, 200, (_TIFF_TILE // 16, _TIFF_TILE // 16))
        noise = rng.integers(-20, 21, (_TIFF_TILE, _TIFF_TILE))
        yield (np.kron(coarse, np.ones((16, 16), int)) + noise).astype(np.uint8)


def _lines(values: dict[str, Any], runs: Sequence[SpeedRun], best: SpeedRun) -> Iterator[str]:
    made = " (made up)" if values["is_made_up"] else ""
    yield (
        f"{values['task']} on {values['device']} in {values['precision']}, {values['num_threads']} threads; picture "
        f"{values['picture']}{made}; medians of {len(best.pairs)} runs"
    )
    if len(runs) > 1:
        yield "      core  batch  kept Mpx/s   bare Mpx/s   efficiency"
        for run in runs:
            yield (
                f"{run.core:>10}  {run.batch:>5}  {run.mpx_per_s:>10.3f}   {run.bare_mpx_per_s:>10.3f}   "
                f"{run.efficiency:>10.3f}{'   best' if run is best else ''}"
            )
    seconds = best.seconds()
    yield f"{'core':>13}  {best.core}, batches of {best.batch}, {best.num_tiles} tiles"
    yield f"{'end to end':>13}  {best.mpx_per_s:.3f} Mpx/s kept, from the first read to the last write; export apart"
    yield f"{'bare network':>13}  {best.bare_mpx_per_s:.3f} Mpx/s kept, on resident tiles"
    each = ", ".join(f"{p.efficiency:.3f}" for p in best.pairs)
    yield f"{'efficiency':>13}  {best.efficiency:.3f} (pairs: {each})"
    yield (
        f"{'seconds':>13}  {seconds['wall']:.2f} in all: network {seconds['network']:.2f}, waiting for reading "
        f"{seconds['waiting for reading']:.2f} and for writing {seconds['waiting for writing']:.2f}; beside it "
        f"reading {seconds['reading']:.2f}, writing {seconds['writing']:.2f}"
    )
    if seconds["waiting for reading"] > 0.2 * seconds["wall"]:
        yield f"{'':>13}  reading is the limit here, not the network"
    yield (
        f"{'memory':>13}  {format_size(best.projected_bytes)} projected, {format_size(best.peak_bytes)} measured"
        + (
            f"; on the device {format_size(best.device_projected_bytes)} and {format_size(best.device_peak_bytes)}"
            if best.device_peak_bytes else ""
        )
    )  # fmt: skip
