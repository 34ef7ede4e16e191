"""Groups of pages through the network: decoded ones together in memory, large ones block by block into a store."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unetctl.jobs.options import PredictOptions
from unetctl.jobs.pages.feed import FeedItem, HeldPages, OnePage, OpenFile, Pixels
from unetctl.jobs.pages.results import FileResult, Gathering, PageStyle, stored_page
from unetctl.jobs.pages.settings import PageSettings
from unetctl.jobs.predict import compute_blocks
from unetctl.jobs.tasks import ResolvedTask
from unetctl.networks.network import Network
from unetctl.runtime.device import apply_compute
from unetctl.runtime.engine import Engine
from unetctl.runtime.events import Listener, Note
from unetctl.runtime.loop import DoneBlock, PipelinedLoop, output_box
from unetctl.runtime.planning import make_plan
from unetctl.runtime.reading import BlockReader, StatisticsStore, has_equal_channels
from unetctl.runtime.run_folder import RunFolder
from unetctl.runtime.run_plan import RunPlan
from unetctl.sources.base import ImageInfo, SourceInfo
from unetctl.sources.pages import PageOrigin

#: Of the budget: pages decoded ahead; a page above the other share is not held in memory whole.
_AHEAD_SHARE, _PAGE_SHARE = 8, 16


@dataclass(frozen=True)
class Ready:
    """A page that can be computed.

    Attributes:
        opened: its file; result: where its answer goes.
        i_page: in the file.
        info, origin: of the page.
        pixels: decoded; None for a large page.
        plan: of this page alone.
    """

    opened: OpenFile
    result: FileResult
    i_page: int
    info: ImageInfo
    origin: PageOrigin
    pixels: Pixels | None
    plan: RunPlan


#: What is called, in the writing thread, when a page was added to its result: the page, and its pixels of ink (None
#: where there is no ink).
PageDone = Callable[[Ready, int | None], None]


class PageComputer:
    """Plans and computes pages under the settings of a run.

    Args:
        task, network: what is asked of the network.
        settings: of the run.
        options: of the command line.
        style: how answers become pages.
        budget_bytes: for the whole process.
        run: the run folder, for the stores of large pages.
        emit, should_stop: see the engine.
    """

    def __init__(
        self,
        task: ResolvedTask,
        network: Network,
        settings: PageSettings,
        options: PredictOptions,
        style: PageStyle,
        budget_bytes: int,
        run: Path,
        emit: Listener,
        should_stop: Callable[[], bool],
    ) -> None:
        self._task, self._network, self._settings, self._options = task, network, settings, options
        self._run, self._style, self._emit, self._should_stop = run, style, emit, should_stop
        self.ahead_bytes = budget_bytes // _AHEAD_SHARE
        self.page_bytes = budget_bytes // _PAGE_SHARE
        self._planner_bytes = budget_bytes - self.ahead_bytes - 2 * self.page_bytes
        self._num_weights = sum(p.numel() for p in network.parameters())
        recipe = task.recipe
        self._engine = Engine(
            network,
            settings.compute,
            apply_compute(settings.compute, options.device),
            batch=settings.batch,
            keep=settings.values["keep"],
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
        is_large = item.pixels is None
        source = HeldPages([(info, item.pixels)]) if item.pixels is not None else OnePage(opened, item.i_page)
        grey = frozenset({0}) if has_equal_channels(source, 0) else frozenset[int]()
        name = item.file.name if len(opened.images) == 1 else f"{item.file.name} page {item.i_page + 1}"
        told = replace(info, name=name, notes=())
        identity = {**opened.identity, "page": item.i_page} if is_large else {}
        planned = make_plan(
            SourceInfo(str(item.file.path), "pages", (told,), identity, source.info.preferred_chunk),
            {"path": str(item.file.path), "page": item.i_page},
            self._task.recipe,
            self._task.weights_sha256,
            self._num_weights,
            self._settings.compute,
            self._planner_bytes,
            self._settings.wishes(self._options),
            {},
            grey,
        )
        for text in planned.warnings:
            self._emit(Note(text, "warning"))
        origin = opened.origins[item.i_page]
        return Ready(opened, result, item.i_page, info, origin, item.pixels, planned.plan)

    def compute(self, group: Sequence[Ready], done: PageDone) -> bool:
        """Computes pages: several in memory, or one large one.

        Returns:
            False if asked to stop; pages told to `done` until then are safe.

        Raises:
            UnetctlError: what computing or writing raised.
        """
        if len(group) == 1 and group[0].pixels is None:
            return self._compute_large(group[0], done)
        pages = [(ready.info, ready.pixels) for ready in group if ready.pixels is not None]
        images = tuple(replace(ready.plan.images[0], i_image=i) for i, ready in enumerate(group))
        plan = replace(group[0].plan, images=images)
        gathered = {
            i: Gathering(image.output.shape, image.output.dtype, len(image.tiles)) for i, image in enumerate(images)
        }

        def write(block: DoneBlock) -> None:
            i = block.image.i_image
            if not gathered[i].add(output_box(block.image, block.block.box), block.pixels):
                return
            answer, ready = gathered.pop(i).answer, group[i]
            ready.result.add(ready.i_page, self._style.page(answer, ready.info, ready.origin))
            done(
                ready,
                self._style.num_ink(answer) if self._style.is_ink and plan.keep in ("mask", "probability") else None,
            )

        reader = BlockReader(HeldPages(pages), plan, StatisticsStore(None, "pages", plan))
        return PipelinedLoop(plan, reader, self._engine, write, self._should_stop).run(range(plan.num_blocks))

    def _compute_large(self, ready: Ready, done: PageDone) -> bool:
        """A page that is not to be held in memory: its blocks go to a store, resumable, its rows from there to the file."""
        source = OnePage(ready.opened, ready.i_page)
        folder = RunFolder(self._store_path(ready))
        plan = ready.plan
        if folder.has_plan() and folder.plan().fingerprint != plan.fingerprint:
            folder.remove()
        folder.begin(plan)
        sink = folder.ensure_store(plan)
        todo = folder.missing(sink, range(plan.num_blocks))
        if todo:
            _, complete = compute_blocks(
                plan, todo, source, self._network, folder, self._options, self._emit, self._should_stop, plan.num_blocks
            )
            if not complete:
                return False
        page, num_ink = stored_page(sink, self._style, ready.info, ready.origin)
        ready.result.add(ready.i_page, page)
        source.close()
        done(ready, num_ink() if self._style.is_ink and plan.keep in ("mask", "probability") else None)
        folder.remove()
        return True

    def _store_path(self, ready: Ready) -> Path:
        text = json.dumps(
            [ready.opened.file.name, ready.opened.identity, ready.i_page, self._settings.values], sort_keys=True
        )
        return self._run / f"large-{hashlib.sha256(text.encode()).hexdigest()[:16]}.zarr"
