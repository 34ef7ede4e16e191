"""Groups of pages through the network: decoded ones together in memory, large ones block by block into a store."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError, UsageError
from unetctl.geometry.box import Box, Ints
from unetctl.jobs.object_scale import ScaleFinder
from unetctl.jobs.options import PredictOptions
from unetctl.jobs.pages.feed import FeedItem, OpenFile
from unetctl.jobs.pages.labels import large_labels
from unetctl.jobs.pages.results import FileResult, Gathering, PageStyle, stored_page
from unetctl.jobs.pages.scaling import PageScale, Stored
from unetctl.jobs.pages.settings import PageSettings
from unetctl.jobs.pages.shares import Shares
from unetctl.jobs.pages.upkeep import key_of
from unetctl.jobs.pages.views import HeldPages, Pixels, coloured, in_axes
from unetctl.jobs.predict import compute_blocks
from unetctl.jobs.tasks import ResolvedTask
from unetctl.networks.network import Network
from unetctl.runtime.device import apply_compute
from unetctl.runtime.engine import Engine
from unetctl.runtime.events import Event, Listener, Note, StageEnded, StageProgress, StageStarted
from unetctl.runtime.loop import DoneBlock, LoopTimes, PipelinedLoop, output_box
from unetctl.runtime.planning import make_plan
from unetctl.runtime.reading import BlockReader, StatisticsStore, has_equal_channels
from unetctl.runtime.run_folder import RunFolder
from unetctl.runtime.run_plan import RunPlan
from unetctl.sources.base import ImageInfo, Source, SourceInfo
from unetctl.sources.pages import PageOrigin


class UnreadablePageError(Exception):
    """A large page that cannot be read to its end; its cause says why."""


@dataclass(frozen=True)
class Ready:
    """A page that can be computed.

    Attributes:
        opened: its file; result: where its answer goes.
        i_page: in the file.
        info: of the page, in the axes that the network is given.
        seen: as `info`, at the scale at which the network sees it.
        origin: of the page.
        scale: at which the network sees it.
        pixels: decoded, as seen; None for a large page.
        under: of an overlay: decoded, as the page is; None otherwise, and for a large page.
        plan: of this page alone.
    """

    opened: OpenFile
    result: FileResult
    i_page: int
    info: ImageInfo
    seen: ImageInfo
    origin: PageOrigin
    scale: PageScale
    pixels: Pixels | None
    plan: RunPlan
    under: Pixels | None = None

    @property
    def num_pixels(self) -> int:
        """Of the page."""
        return self.info.size_of("y") * self.info.size_of("x")

    @property
    def num_bytes(self) -> int:
        """That it holds in memory."""
        return 0 if self.pixels is None else self.num_pixels + self.pixels.dtype.itemsize * self.pixels.size


#: What is called, in the writing thread, when a page was added to its result: the page, and its pixels of ink (None
#: where there is no ink).
PageDone = Callable[[Ready, int | None], None]
#: What is called there when a page cannot be made of its answer: the page, and why.
PageFailed = Callable[[Ready, Exception], None]


class PageComputer:
    """Plans and computes pages under the settings of a run.

    Args:
        task, network: what is asked of the network.
        settings: of the run.
        options: of the command line.
        style: how answers become pages.
        shares: of the memory.
        run: the run folder, for the stores of large pages.
        emit, should_stop: see the engine.

    Attributes:
        seconds: by stage, of all pages so far.
    """

    def __init__(
        self,
        task: ResolvedTask,
        network: Network,
        settings: PageSettings,
        options: PredictOptions,
        style: PageStyle,
        shares: Shares,
        run: Path,
        emit: Listener,
        should_stop: Callable[[], bool],
    ) -> None:
        self._task, self._network, self._settings, self._options = task, network, settings, options
        self._run, self._style, self._emit, self._should_stop = run, style, emit, should_stop
        self._shares = shares
        self._num_weights = sum(p.numel() for p in network.parameters())
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._has_told_grey = False
        recipe, kept = task.recipe, settings.values
        self._scale = PageScale(kept.get("scale"), kept["keep"], kept["threshold"])
        device = apply_compute(settings.compute, options.device)
        self._finder: ScaleFinder | None = None
        if kept.get("diameter_px") is not None and kept.get("scale") is None:
            self._finder = ScaleFinder(
                task, network, settings.compute, device, shares.planner, settings.wishes(options), should_stop
            )
        self._engine = Engine(
            network,
            settings.compute,
            device,
            batch=settings.batch,
            keep=self._scale.computed,
            activation=recipe.output.resolved_activation,
            threshold=settings.values["threshold"],
            emit=emit,
        )

    def plan(self, item: FeedItem, result: FileResult) -> Ready:
        """What is done with a page.

        Raises:
            InputError: if the page does not fit the network.
            ResourceError: if it does not fit into the budget.
        """
        opened, info = item.opened, item.info
        assert opened is not None
        assert info is not None
        recipe = self._task.recipe
        if recipe.input.channels == 3 and self._options.channels is None:
            if info.axes == "yx" and not self._has_told_grey:
                self._has_told_grey = True
                text = "grey pictures are taken as three equal colours" + ", and come back so" * (
                    self._style.keep == "image"
                )
                self._emit(Note(text, "info"))
            info = coloured(info)
        planner_bytes = self._shares.planner
        chunk: tuple[Ints, ...] = ()
        identity: dict[str, object] = {}
        under: Pixels | None = None
        if item.pixels is not None:
            pixels = in_axes(item.pixels, info)
            held = HeldPages([(info, pixels)])
            is_grey = has_equal_channels(held, 0)
            under = pixels if self._style.keep == "overlay" else None
            scale = self._scale_of(held, info, item.file.name)
            pixels = scale.pixels(pixels)
        else:
            pixels, page = None, opened.page(item.i_page, info)
            scale = self._scale_of(page, info, item.file.name)
            scaled = scale.source(page).info
            chunk, identity = scaled.preferred_chunk, scaled.identity
            planner_bytes = self._shares.of_large(page.chunk_bytes)
            is_grey = has_equal_channels(page, 0)
        seen = scale.info(info)
        name = item.file.name if len(opened.images) == 1 else f"{item.file.name} page {item.i_page + 1}"
        told = replace(seen, name=name, notes=())
        planned = make_plan(
            SourceInfo(str(item.file.path), "pages", (told,), identity, chunk),
            {"path": str(item.file.path), "page": item.i_page},
            recipe,
            self._task.weights_sha256,
            self._num_weights,
            self._settings.compute,
            planner_bytes,
            replace(self._settings.wishes(self._options), keep=scale.computed),
            {},
            frozenset({0}) if is_grey else frozenset(),
        )
        for text in planned.warnings:
            self._emit(Note(text, "warning"))
        origin = opened.origins[item.i_page]
        return Ready(opened, result, item.i_page, info, seen, origin, scale, pixels, planned.plan, under)

    def _scale_of(self, page: Source, info: ImageInfo, name: str) -> PageScale:
        """The user's scale; else, where objects are to have a certain size, the one that fits this page."""
        if self._finder is None:
            return self._scale
        factor = self._finder(lambda box: np.asarray(page.read(0, box)), info)
        if factor == 1:  # also where nothing was found
            return self._scale
        text = f"{name} is seen at {factor:.3g} times its size, where its objects are as large as known ones"
        self._emit(Note(text, "detail"))
        return PageScale(factor, self._settings.values["keep"], self._settings.values["threshold"])

    def compute(self, group: Sequence[Ready], done: PageDone, failed: PageFailed) -> bool:
        """Computes pages: several in memory, or one large one.

        Args:
            group: pages of files that go on.
            done: told of every page that was added to its file's result.
            failed: told of every page that its kind of file cannot hold.

        Returns:
            False if asked to stop; pages told to `done` until then are safe.

        Raises:
            UnreadablePageError: if a large page cannot be decoded.
            UnetctlError: what computing or writing raised.
        """
        if len(group) == 1 and group[0].pixels is None:
            return self._compute_large(group[0], done, failed)
        pages = [(ready.seen, ready.pixels) for ready in group if ready.pixels is not None]
        images = tuple(replace(ready.plan.images[0], i_image=i) for i, ready in enumerate(group))
        plan = replace(group[0].plan, images=images)
        gathered = {
            i: Gathering(image.output.shape, image.output.dtype, len(image.tiles)) for i, image in enumerate(images)
        }

        def write(block: DoneBlock) -> None:
            i = block.image.i_image
            if not gathered[i].add(output_box(block.image, block.block.box), block.pixels):
                return
            ready, made = group[i], gathered.pop(i).answer
            try:
                answer = ready.scale.answer(self._style.labelled(made), ready.info)
                ready.result.add(ready.i_page, self._style.page(answer, ready.info, ready.origin, ready.under))
            except (UsageError, InputError, ValueError) as error:
                failed(ready, error)
                return
            done(ready, self._style.num_ink(answer) if self._style.counts_ink else None)

        reader = BlockReader(HeldPages(pages), plan, StatisticsStore(None, "pages", plan))
        loop = PipelinedLoop(plan, reader, self._engine, write, self._should_stop)
        try:
            return loop.run(range(plan.num_blocks))
        finally:
            self._note(loop.times)

    def _note(self, times: LoopTimes) -> None:
        for name, seconds in (
            ("waiting for blocks", times.wait_read_s), ("network", times.network_s), ("writing", times.write_s),
            ("waiting for writing", times.wait_write_s),
        ):  # fmt: skip
            self.seconds[name] += seconds

    def _compute_large(self, ready: Ready, done: PageDone, failed: PageFailed) -> bool:
        """A page that is not to be held in memory: its blocks go to a store, resumable, its rows from there to the file."""
        with closing(_Watched(ready.scale.source(ready.opened.page(ready.i_page, ready.info)))) as source:
            return self._compute_watched(ready, source, done, failed)

    def _compute_watched(self, ready: Ready, source: "_Watched", done: PageDone, failed: PageFailed) -> bool:
        folder = RunFolder(self._store_path(ready))
        plan = ready.plan
        if folder.has_plan() and folder.plan().fingerprint != plan.fingerprint:
            folder.remove()
        folder.begin(plan)
        sink = folder.ensure_store(plan)
        sink.sweep_partials()
        todo = folder.missing(sink, range(plan.num_blocks))
        if todo:
            try:
                times, complete = compute_blocks(
                    plan, todo, source, self._network, folder, self._options, self._large_emit(ready), self._should_stop,
                    plan.num_blocks,
                )  # fmt: skip
            except Exception as error:
                if error is not source.error:
                    raise
                raise UnreadablePageError from error
            self._note(times)
            if not complete:
                return False
        made: Stored = sink
        if self._style.rule is not None:
            labels = large_labels(sink, self._style.rule, folder.path, self._should_stop)
            if labels is None:
                return False
            made = labels
        stored = ready.scale.stored(made, ready.info)
        try:
            page, num_ink = stored_page(stored, self._style, ready.info, ready.origin, self._rows_under(ready))
            ready.result.add(ready.i_page, page)
        except (UsageError, InputError, ValueError) as error:
            folder.remove()
            failed(ready, error)
            return True
        source.close()
        done(ready, num_ink() if self._style.counts_ink else None)
        folder.remove()
        return True

    def _rows_under(self, ready: Ready) -> Callable[[int, int], Pixels] | None:
        """Rows of a large page that an overlay lies on; its file is open until the page was written."""
        if self._style.keep != "overlay":
            return None
        page, width = ready.opened.page(ready.i_page, ready.info), ready.info.size_of("x")
        lead = (ready.info.num_channels,) if "c" in ready.info.axes else ()

        def rows(start: int, stop: int) -> Pixels:
            return page.read(0, Box((*(0 for _ in lead), start, 0), (*lead, stop, width)))

        return rows

    def _large_emit(self, ready: Ready) -> Listener:
        """Blocks of one page are a stage of their own, beside that of the files."""

        def emit(event: Event) -> None:
            if isinstance(event, StageStarted | StageProgress | StageEnded):
                event = replace(event, stage="large page")
            self._emit(event)

        return emit

    def _store_path(self, ready: Ready) -> Path:
        text = json.dumps([ready.opened.identity, ready.i_page, self._settings.values], sort_keys=True)
        key = key_of(ready.opened.file.name, ready.opened.stat)
        return self._run / f"large-{key}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.zarr"


class _Watched:
    """A large page, and what went wrong with reading it: that is the file's fault, all else is not."""

    def __init__(self, page: Source) -> None:
        self._page = page
        self.info = self._page.info
        self.error: Exception | None = None

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`."""
        try:
            return self._page.read(i_image, box)
        except Exception as error:
            self.error = error
            raise

    def close(self) -> None:
        """See `Source.close`."""
        self._page.close()
