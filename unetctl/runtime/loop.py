"""The loop over blocks: a plain serial one that defines the meaning, and a pipelined one that must give the same.

    reader thread --queue(1)--> tiles, batches, network (this thread) --queue(1)--> writer thread
       block + halo                    one block filled at a time                  store, fsync, journal

Both queues hold one block, so the look-ahead is one block and memory is bounded whatever the volume's size.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.geometry.box import Box
from unetctl.geometry.plan import Block, Tile
from unetctl.networks.network import TileFrame
from unetctl.runtime.engine import Engine, TileJob
from unetctl.runtime.reading import BlockPixels, BlockReader
from unetctl.runtime.run_plan import ImagePlan, RunPlan

Pixels = npt.NDArray[Any]

#: Blocks that may wait for their last tiles to fill a batch.
_MAX_OPEN_BLOCKS = 3


@dataclass(frozen=True)
class DoneBlock:
    """A computed block.

    Attributes:
        index: in the run's plan.
        image, block: what it is.
        pixels: in the axes of the output picture, shape of the block.
        num_nonfinite: input pixels replaced.
    """

    index: int
    image: ImagePlan
    block: Block
    pixels: Pixels
    num_nonfinite: int


@dataclass
class LoopTimes:
    """Seconds by stage of one loop; reading and writing run beside the network."""

    read_s: float = 0.0
    wait_read_s: float = 0.0
    network_s: float = 0.0
    write_s: float = 0.0
    wait_write_s: float = 0.0
    wall_s: float = 0.0
    num_tiles: int = 0
    num_pixels: int = 0
    num_blocks: int = 0


@dataclass
class _Filling:
    """A block some of whose tiles are computed."""

    index: int
    image: ImagePlan
    block: Block
    source: BlockPixels
    output: Pixels
    missing: int
    tiles: Iterator[Tile] = field(repr=False)


def network_dims(plan: RunPlan) -> int:
    """Axes that the network sees: the trailing ones."""
    dims: int = plan.recipe["network"]["dims"]
    return dims


def tile_job(image: ImagePlan, block: Block, source: BlockPixels, tile: Tile, dims: int) -> tuple[TileJob, TileFrame]:
    """What the network gets for a tile: its pixels with context slices as channels, and where its core lies."""
    cut = source.pixels[(slice(None), *tile.read.relative_to(block.read).slices())]
    space = cut.shape[-dims:]
    # (c, leading 1s, context, *space): neighbouring planes become channels, plane by plane.
    context = cut.shape[-dims - 1] if cut.ndim > dims + 1 else 1
    pixels = cut.reshape(cut.shape[0], context, *space).swapaxes(0, 1).reshape(-1, *space)
    volume = 0
    if image.num_leading:
        shape = image.tiles.shape[: image.num_leading]
        volume = int(np.ravel_multi_index(tile.kept.start[: image.num_leading], shape))
    return TileJob(pixels, source.scalings[volume], image.output.dtype), tile_frame(tile, dims)


def tile_frame(tile: Tile, dims: int) -> TileFrame:
    """Where the core lies in a tile, for the network's axes."""
    axes = zip(list(tile.core)[-dims:], list(tile.read)[-dims:], strict=True)
    return TileFrame(tuple((core[0] - read[0], core[1] - read[0]) for core, read in axes), tile.ends[-dims:])


def _place(filling: _Filling, tile: Tile, result: Pixels, dims: int) -> None:
    """Writes the kept part of one tile's result (C, *core) into its block (C, *block)."""
    inner = tile.kept.relative_to(tile.core).slices()[-dims:]
    target = tile.kept.relative_to(filling.block.box)
    kept = result[(slice(None), *inner)]
    filling.output[(slice(None), *target.slices())] = kept.reshape(kept.shape[0], *target.shape)
    filling.missing -= 1


def to_output_axes(image: ImagePlan, pixels: Pixels) -> Pixels:
    """(C, *plan axes) in the axes of the output picture, where channels come after the leading axes, if at all."""
    if "c" not in image.output.axes or image.is_channelwise:
        first: Pixels = pixels[0]
        return first
    moved: Pixels = np.moveaxis(pixels, 0, image.output.axes.index("c"))
    return moved


def output_box(image: ImagePlan, box: Box) -> Box:
    """A box of the plan in the axes of the output picture, all channels."""
    if "c" not in image.output.axes or image.is_channelwise:
        return box
    at = image.output.axes.index("c")
    channels = image.output.shape[at]
    return Box((*box.start[:at], 0, *box.start[at:]), (*box.stop[:at], channels, *box.stop[at:]))


def _empty(image: ImagePlan, block: Block) -> Pixels:
    at = image.output.axes.find("c")
    channels = image.output.shape[at] if at >= 0 and not image.is_channelwise else 1
    return np.empty((channels, *block.box.shape), image.output.dtype)


def run_serial(plan: RunPlan, indices: Iterable[int], reader: BlockReader, engine: Engine) -> Iterator[DoneBlock]:
    """Block after block, tile after tile: no threads, batches of one. Defines what every other loop must give."""
    dims = network_dims(plan)
    for index in indices:
        image, block = plan.block(index)
        source = reader.read(image, block)
        if source is None:
            return
        filling = _Filling(index, image, block, source, _empty(image, block), block.num_tiles, image.tiles.tiles(block))
        for tile in filling.tiles:
            job, frame = tile_job(image, block, source, tile, dims)
            _place(filling, tile, engine.submit([job], frame)()[0], dims)
        yield DoneBlock(index, image, block, to_output_axes(image, filling.output), source.num_nonfinite)


class PipelinedLoop:
    """Reading, computing and writing side by side.

    Args:
        plan: of the run.
        reader: used by the reading thread alone.
        engine: used by the calling thread alone.
        write: stores a finished block durably; called in the writing thread, one block at a time.
        should_stop: asked between batches; blocks that are not complete are dropped then.
    """

    def __init__(
        self,
        plan: RunPlan,
        reader: BlockReader,
        engine: Engine,
        write: Callable[[DoneBlock], None],
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._plan, self._reader, self._engine, self._write = plan, reader, engine, write
        self._asked = should_stop
        self._dims = network_dims(plan)
        self._abort = threading.Event()
        self._errors: list[BaseException] = []
        self._read: queue.Queue[tuple[int, ImagePlan, Block, BlockPixels] | None] = queue.Queue(1)
        self._done: queue.Queue[DoneBlock | None] = queue.Queue(1)
        self.times = LoopTimes()

    def run(self, indices: Iterable[int]) -> bool:
        """Computes blocks in order.

        Returns:
            True if all are done, False if asked to stop.

        Raises:
            UnetctlError: what reading, computing or writing raised first; blocks written until then stay done.
        """
        begun = time.monotonic()
        threads = [
            threading.Thread(
                target=self._guarded, args=(self._read_all, iter(indices)), name="unetctl-reader", daemon=True
            ),
            threading.Thread(target=self._guarded, args=(self._write_all,), name="unetctl-writer", daemon=True),
        ]
        for thread in threads:
            thread.start()
        complete = False
        try:
            complete = self._compute_all()
            if not complete:
                self._abort.set()  # the reader may wait for room that nobody makes any more
        except BaseException as error:
            self._errors.append(error)
            self._abort.set()
        finally:
            self._put(self._done, None)
            for thread in threads:
                thread.join()
            self.times.wall_s += time.monotonic() - begun
        if self._errors:
            raise self._errors[0]
        return complete

    def _should_stop(self) -> bool:
        return self._abort.is_set() or self._asked()

    def _guarded(self, work: Callable[..., None], *args: Any) -> None:
        try:
            work(*args)
        except BaseException as error:
            self._errors.append(error)
            self._abort.set()

    def _put(self, line: "queue.Queue[Any]", item: Any) -> bool:
        """Waits for room, but not for a thread that has died."""
        while not (self._abort.is_set() and item is not None):
            try:
                line.put(item, timeout=0.1)
                return True
            except queue.Full:
                if self._abort.is_set():
                    return False
        return False

    def _get(self, line: "queue.Queue[Any]") -> Any:
        while True:
            try:
                return line.get(timeout=0.1)
            except queue.Empty:
                if self._abort.is_set():
                    return None

    def _read_all(self, indices: Iterator[int]) -> None:
        for index in indices:
            if self._should_stop():
                break
            image, block = self._plan.block(index)
            since = time.monotonic()
            pixels = self._reader.read(image, block)
            self.times.read_s += time.monotonic() - since
            if pixels is None or not self._put(self._read, (index, image, block, pixels)):
                break
        self._put(self._read, None)

    def _write_all(self) -> None:
        while (done := self._get(self._done)) is not None:
            since = time.monotonic()
            self._write(done)
            self.times.write_s += time.monotonic() - since
            self.times.num_blocks += 1

    def _compute_all(self) -> bool:
        # Tiles of one shape and type share a batch, whatever block they come from; two batches may be under way on a device.
        waiting: dict[tuple[Any, ...], list[tuple[_Filling, Tile, TileJob]]] = {}
        under_way: list[tuple[list[tuple[_Filling, Tile, TileJob]], Callable[[], Pixels]]] = []
        frames: dict[tuple[Any, ...], TileFrame] = {}
        depth = 1 if self._engine.device.type == "cpu" else 2
        while not self._should_stop():
            since = time.monotonic()
            item = self._get(self._read)
            self.times.wait_read_s += time.monotonic() - since
            if item is None:
                break
            index, image, block, source = item
            filling = _Filling(
                index, image, block, source, _empty(image, block), block.num_tiles, image.tiles.tiles(block)
            )
            for tile in filling.tiles:
                if self._should_stop():
                    return False
                job, frame = tile_job(image, block, source, tile, self._dims)
                key = (job.pixels.shape, job.pixels.dtype, job.image_dtype, frame)
                frames[key] = frame
                waiting.setdefault(key, []).append((filling, tile, job))
                if len(waiting[key]) >= self._engine.batch:
                    self._start(under_way, waiting.pop(key), frame)
                while len(under_way) >= depth:
                    self._finish(*under_way.pop(0))
            if len({id(entry[0]) for entries in waiting.values() for entry in entries}) > _MAX_OPEN_BLOCKS:
                # Tiles of a rare shape must not hold their blocks in memory until their batch is full.
                self._flush(waiting, frames, under_way, depth)
        if self._should_stop():
            return False
        self._flush(waiting, frames, under_way, 0)
        return not self._should_stop()

    def _flush(self, waiting: dict[Any, Any], frames: dict[Any, TileFrame], under_way: list[Any], depth: int) -> None:
        """Starts the batches that are not full; at most `depth` stay under way."""
        for key in list(waiting):
            self._start(under_way, waiting.pop(key), frames[key])
            while len(under_way) > depth:
                self._finish(*under_way.pop(0))
        while len(under_way) > depth:
            self._finish(*under_way.pop(0))

    def _start(self, under_way: list[Any], entries: list[tuple[_Filling, Tile, TileJob]], frame: TileFrame) -> None:
        since = time.monotonic()
        under_way.append((entries, self._engine.submit([job for _, _, job in entries], frame)))
        self.times.network_s += time.monotonic() - since

    def _finish(self, entries: list[tuple[_Filling, Tile, TileJob]], wait: Callable[[], Pixels]) -> None:
        since = time.monotonic()
        results = wait()
        self.times.network_s += time.monotonic() - since
        for (filling, tile, _), result in zip(entries, results, strict=True):
            _place(filling, tile, result, self._dims)
            self.times.num_tiles += 1
            self.times.num_pixels += tile.kept.num_pixels
            if filling.missing == 0:
                since = time.monotonic()
                pixels = to_output_axes(filling.image, filling.output)
                self._put(
                    self._done,
                    DoneBlock(filling.index, filling.image, filling.block, pixels, filling.source.num_nonfinite),
                )
                self.times.wait_write_s += time.monotonic() - since
