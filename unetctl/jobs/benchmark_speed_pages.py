"""`unetctl benchmark speed FOLDER`: a folder of pages through predict, and the bare network on resident tiles, in turn.

    predict the folder | network | predict the folder | network | ...

Predict is the very job, into a temporary folder. The network alone computes tiles of the shapes that the pages are cut
into, in full batches; pages of many sizes have many shapes, of which a sample is measured.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from unetctl.errors import InputError, Stopped, UnetctlError
from unetctl.jobs.benchmark_bare import BareNetwork, device_peak, reset_peaks
from unetctl.jobs.benchmark_report import BenchmarkReport
from unetctl.jobs.benchmark_speed_values import PagesPair, PagesRun, pages_lines
from unetctl.jobs.options import PredictOptions
from unetctl.jobs.pages.job import plan_pages, predict_pages
from unetctl.jobs.pages.options import PageOptions
from unetctl.jobs.tasks import ResolvedTask
from unetctl.networks.network import Network
from unetctl.runtime.compute import Compute
from unetctl.runtime.device import apply_compute
from unetctl.runtime.events import (
    Event,
    Listener,
    Note,
    StageEnded,
    StageProgress,
    StageStarted,
    nobody,
)
from unetctl.runtime.memory import budget
from unetctl.runtime.planning import PlanWishes, make_plan
from unetctl.runtime.report import RunReport, peak_memory
from unetctl.runtime.run_plan import RunPlan
from unetctl.sources.base import ImageInfo, SourceInfo
from unetctl.sources.files import RUN_SUFFIX
from unetctl.sources.pages import open_pages

#: Most shapes of tiles that are measured.
_MOST_KINDS = 16
#: Share of the batches of a shape that the bare network computes.
_BARE_SHARE = 0.5
#: So often the peak of memory is noted in a run.
_NUM_PEAKS = 20

StopAsked = Callable[[], bool]


def measure_pages(
    folder: str,
    task: ResolvedTask,
    options: PredictOptions,
    pages: PageOptions,
    *,
    pairs: int,
    cores: Sequence[int] = (),
    emit: Listener = nobody,
    should_stop: StopAsked = lambda: False,
) -> BenchmarkReport:
    """Measures predict on a folder of pages and the bare network in turn.

    Args:
        folder: of pages, or a file of pages.
        task: what is asked of the network.
        options, pages: as of predict; the output is a temporary folder.
        pairs: how many runs of each.
        cores: several core sizes, each measured by itself; empty: that of the options.
        emit: hears about every pair, and how far predict is.
        should_stop: asked between batches and files.

    Returns:
        A report with "task", "weights_sha256", "device", "precision", "num_threads", "pages" (the folder), "runs", one per
        core size (see `unetctl.jobs.benchmark_speed_values.PagesRun`), and "best_core", the core with the highest rate end to end.

    Raises:
        InputError: if there are no pages, or none that can be predicted.
        UsageError: if a core is off the network's grid.
        Stopped: if asked to stop.
    """
    network = task.network()
    wanted: Sequence[int | None] = list(cores) or [options.core]
    runs: list[PagesRun] = []
    begun = time.monotonic()
    emit(StageStarted("benchmark", len(wanted) * pairs, 0, "pair"))
    with tempfile.TemporaryDirectory(prefix="unetctl-benchmark-") as place:
        for core in wanted:
            own = replace(options, core=core, output=Path(place) / "pages")
            measured = _Measured(folder, task, network, own, pages, emit, should_stop)
            runs.append(measured.run(pairs, len(runs) * pairs))
    emit(StageEnded("benchmark", time.monotonic() - begun))
    best = max(runs, key=lambda run: run.mpx_per_s)
    compute = measured.compute
    values = {
        "task": task.name, "weights_sha256": task.weights_sha256, "device": compute.device,
        "precision": compute.precision, "num_threads": compute.num_threads, "pages": folder,
        "runs": [run.to_dict() for run in runs], "best_core": best.core,
    }  # fmt: skip
    return BenchmarkReport("speed", values, tuple(pages_lines(values, runs, best)))


class _Measured:
    """One core size."""

    def __init__(
        self,
        folder: str,
        task: ResolvedTask,
        network: Network,
        options: PredictOptions,
        pages: PageOptions,
        emit: Listener,
        should_stop: StopAsked,
    ) -> None:
        self._folder, self._task, self._network, self._options = folder, task, network, options
        self._pages, self._emit, self._should_stop = pages, emit, should_stop
        assert options.output is not None
        self._output = options.output
        self._make_place()
        (plan,) = (one.to_dict() for one in plan_pages([folder], task, options, pages))
        self._files = [Path(path) for path in plan["files"]]
        self._settings: dict[str, Any] = plan["settings"]
        self.compute = Compute(**self._settings["compute"])
        self._device = apply_compute(self.compute, options.device)

    def run(self, num_pairs: int, num_before: int) -> PagesRun:
        """Predict and the bare network in turn."""
        sizes = {path: found for path in self._files if (found := self._sizes(path))}
        predicted = [size for found in sizes.values() for size in found]
        bare = self._bare(predicted)
        pairs: list[PagesPair] = []
        done: set[Path] = set()
        failed: dict[str, str] = {}
        for i in range(num_pairs):
            reports, wall_s, seconds, peaks = self._predicted(i == 0)
            if not pairs:
                done = {Path(report.input) for report in reports if report.status == "done"}
                failed = {report.input: report.error for report in reports if report.status == "failed"}
                if not done:
                    why = next(iter(failed.values()), "")
                    raise InputError(f"none of the {len(reports)} files of {self._folder} was predicted", "pages", why)
                if done != set(sizes):
                    predicted = [size for path in sizes if path in done for size in sizes[path]]
                    bare = self._bare(predicted)
            num_pixels = sum(y * x for y, x in predicted)
            pairs.append(PagesPair(wall_s, bare.seconds(self._should_stop), seconds, peaks, device_peak(self._device)))
            figures = {"Mpx/s": num_pixels / 1e6 / wall_s, "efficiency": pairs[-1].efficiency}
            self._emit(StageProgress("benchmark", num_before + i + 1, figures))
        o = self._options
        return PagesRun(
            self._settings["core"],
            self._settings["batch"],
            len(done),
            len(predicted),
            num_pixels,
            bare.num_tiles,
            bare.num_shapes,
            bare.num_measured,
            budget(o.memory_bytes, o.scheduler_bytes),
            failed,
            tuple(pairs),
        )

    def _predicted(
        self, is_first: bool
    ) -> tuple[list[RunReport], float, dict[str, float], tuple[tuple[int, int], ...]]:
        """One run of the job, whose outputs are deleted."""
        peaks = _Peaks(self._device, len(self._files))
        # Its warnings are worth reading once.
        told = self._emit if is_first else _stages_of(self._emit)
        run = self._output.with_name(self._output.name + RUN_SUFFIX)
        self._make_place()
        try:
            reports = predict_pages(
                [self._folder], self._task, self._options, self._pages, emit=told, should_stop=self._should_stop,
                on_report=peaks.note,
            )  # fmt: skip
            if reports and reports[-1].status == "stopped":
                raise Stopped("stopped while measuring", "", "run the same command again")
            summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
        finally:
            for path in (run, self._output):
                shutil.rmtree(path, ignore_errors=True)
        return reports, float(summary["elapsed_s"]), dict(summary["seconds"]), peaks.all()

    def _make_place(self) -> None:
        """A single file is told apart from a name for it by a folder that is there."""
        if not Path(self._folder).is_dir():
            self._output.mkdir(exist_ok=True)

    def _sizes(self, path: Path) -> list[tuple[int, int]]:
        """Rows and columns of the pages of a file; none of a broken one, which predict will name."""
        with suppress(UnetctlError, OSError):
            source = open_pages(str(path), pdf_dpi=self._pages.pdf_dpi)
            try:
                return [(image.size_of("y"), image.size_of("x")) for image in source.info.images]
            finally:
                source.close()
        return []

    def _bare(self, sizes: Sequence[tuple[int, int]]) -> "_SampledNetwork":
        """The network on the tiles of pages of these sizes."""
        if not sizes:
            raise InputError(f"no file of {self._folder} can be opened", "pages")
        plans = {size: self._plan(size) for size in dict.fromkeys(sizes)}
        images = tuple(replace(plans[size].images[0], i_image=i) for i, size in enumerate(sizes))
        return _SampledNetwork(BareNetwork(replace(plans[sizes[0]], images=images), self._network, self._device))

    def _plan(self, size: tuple[int, int]) -> RunPlan:
        recipe, settings = self._task.recipe, self._settings
        channels = recipe.input.channels
        axes, shape = ("yx", size) if channels == 1 else ("cyx", (channels, *size))
        info = SourceInfo("page", "pages", (ImageInfo("", shape, axes, np.dtype(np.uint8)),))
        wishes = PlanWishes(
            settings["core"], self._options.block, settings["batch"], settings["keep"], settings["threshold"]
        )
        num_weights = sum(p.numel() for p in self._network.parameters())
        # Tiles are as the settings say, whatever memory there is: predict looks after that.
        return make_plan(info, {}, recipe, self._task.weights_sha256, num_weights, self.compute, 1 << 60, wishes).plan


class _SampledNetwork:
    """The bare network on some of many shapes of tiles, from small to large; their time per pixel stands for all.

    Args:
        bare: on all shapes; warmed up on those that are measured.
    """

    def __init__(self, bare: BareNetwork) -> None:
        kinds = sorted(bare.kinds.items(), key=lambda kind: prod(kind[0][0]))
        self.num_tiles, self.num_shapes = sum(num for _, num in kinds), len(kinds)
        num_pixels = sum(prod(shape) * num for (shape, _), num in kinds)
        if len(kinds) > _MOST_KINDS:
            kinds = [kinds[i] for i in np.linspace(0, len(kinds) - 1, _MOST_KINDS).round().astype(int)]
        self._share = sum(prod(shape) * num for (shape, _), num in kinds) / num_pixels
        self.num_measured = len(kinds)
        bare.kinds = dict(kinds)
        bare.warm_up()
        self._bare = bare

    def seconds(self, should_stop: StopAsked) -> float:
        """For all tiles.

        Raises:
            Stopped: if asked to stop.
        """
        return self._bare.seconds(_BARE_SHARE, should_stop) / self._share


class _Peaks:
    """Notes the peak of memory now and then while pages are predicted."""

    def __init__(self, device: Any, num_files: int) -> None:
        self._device, self._every = device, max(1, num_files // _NUM_PEAKS)
        self._found: list[tuple[int, int]] = []
        self._num_files = self._num_pages = 0
        reset_peaks(device)

    def note(self, report: RunReport) -> None:
        """A file was settled."""
        self._num_files += 1
        self._num_pages += report.num_computed
        if self._num_files % self._every == 0:
            self._take()

    def all(self) -> tuple[tuple[int, int], ...]:
        """The peaks, that of the end included."""
        self._take()
        return tuple(self._found)

    def _take(self) -> None:
        self._found.append((self._num_pages, peak_memory()))
        with suppress(OSError):  # the device's peak is that of the whole run
            Path("/proc/self/clear_refs").write_text("5")


def _stages_of(emit: Listener) -> Listener:
    def passed(event: Event) -> None:
        if not isinstance(event, Note):
            emit(event)

    return passed
