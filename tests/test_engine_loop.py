"""The fast loop gives what the plain one gives, and leaves whole blocks whatever ends it."""

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine_cases import Case, Pixels, engine_for, made_network, reader_for, serially
from unetctl.errors import InputError, ResourceError
from unetctl.networks.build import build_network
from unetctl.networks.spec import UNetSpec
from unetctl.runtime.loop import DoneBlock, PipelinedLoop, output_box, run_serial
from unetctl.runtime.reading import BlockReader, StatisticsStore
from unetctl.runtime.run_plan import RunPlan
from unetctl.sources.memory import MemorySource


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are tiny: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# -- the fast loop is the plain one


SERIES = Case(
    {"channels": [2, 2, 2], "convolution": "same"}, "tzyx", (3, 2, 21, 30), (1, 1, 8, 12), (1, 2, 2, 1), num_classes=3
)


def collected(plan: RunPlan, blocks: Iterable[DoneBlock]) -> Pixels:
    image = plan.images[0]
    result = np.full(image.output.shape, 99, image.output.dtype)
    for done in blocks:
        result[output_box(image, done.block.box).slices()] = done.pixels
    return result


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("keep", ["probability", "mask", "classes", "logits"])
def test_the_pipelined_loop_gives_what_the_serial_one_gives(keep, precision):
    source = MemorySource(SERIES.picture(), SERIES.axes)
    plan = SERIES.plan(source, keep=keep, batch=5, precision=precision)
    network = made_network(SERIES)
    # The serial loop submits tile by tile; the engine fills every batch up to the one shape that the plan fixes.
    serial = collected(plan, serially(source, plan, network))
    written: list[DoneBlock] = []
    loop = PipelinedLoop(plan, reader_for(source, plan), engine_for(network, plan), written.append)
    assert loop.run(range(plan.num_blocks))
    np.testing.assert_array_equal(collected(plan, written), serial)
    assert sorted(done.index for done in written) == list(range(plan.num_blocks))
    assert loop.times.num_tiles == plan.num_tiles
    assert loop.times.num_pixels == plan.num_pixels


def test_blocks_may_come_in_any_order():
    source = MemorySource(SERIES.picture(), SERIES.axes)
    plan = SERIES.plan(source, keep="probability", batch=4, precision="fp32")
    network = made_network(SERIES)
    results = []
    for indices in (list(range(plan.num_blocks)), list(reversed(range(plan.num_blocks)))):
        written: list[DoneBlock] = []
        assert PipelinedLoop(plan, reader_for(source, plan), engine_for(network, plan), written.append).run(indices)
        results.append(collected(plan, written))
    np.testing.assert_array_equal(results[0], results[1])


def test_pixels_that_are_not_finite_become_the_median_of_their_volume():
    case = replace(SERIES, dtype="float32", num_classes=1)
    picture = case.picture()
    picture[1, 0, 3, 4], picture[1, 1, 20, 29], picture[2, 0, 0, 0] = np.nan, np.inf, -np.inf
    mended = picture.copy()
    for t in (1, 2):
        bad = ~np.isfinite(mended[t])
        mended[t][bad] = np.median(mended[t][~bad])
    source, clean = MemorySource(picture, "tzyx"), MemorySource(mended, "tzyx")
    plan = case.plan(source)
    # The same statistics for both: those of the damaged picture, from its finite pixels.
    statistics = StatisticsStore(None, "test", plan)
    engine = engine_for(made_network(case), plan)
    found = list(run_serial(plan, range(plan.num_blocks), BlockReader(source, plan, statistics), engine))
    wanted = list(run_serial(plan, range(plan.num_blocks), BlockReader(clean, plan, statistics), engine))
    np.testing.assert_allclose(collected(plan, found), collected(plan, wanted), rtol=0, atol=1e-12)
    assert sum(done.num_nonfinite for done in found) == 3
    refusing = replace(plan, nonfinite="refuse")
    with pytest.raises(InputError, match="not finite"):
        list(run_serial(refusing, range(plan.num_blocks), BlockReader(source, refusing, statistics), engine))


# -- stopping and failing


def in_time(loop: PipelinedLoop, indices: Iterable[int]) -> Any:
    """What the loop returns or raises; fails if it hangs."""
    result: list[Any] = []

    def work() -> None:
        try:
            result.append(loop.run(indices))
        except Exception as error:
            result.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "the loop hangs"
    return result[0]


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_stop_leaves_whole_blocks_and_nothing_else(after):
    source = MemorySource(SERIES.picture(), SERIES.axes)
    plan = SERIES.plan(source, keep="probability", batch=2, precision="fp32")
    network = made_network(SERIES)
    whole = collected(plan, serially(source, plan, network))
    written: list[DoneBlock] = []

    def write(done: DoneBlock) -> None:
        time.sleep(0.005)  # the reader runs ahead and waits for room
        written.append(done)

    engine = engine_for(network, plan)
    loop = PipelinedLoop(plan, reader_for(source, plan), engine, write, lambda: len(written) >= after)
    assert in_time(loop, range(plan.num_blocks)) is False
    assert after <= len(written) < plan.num_blocks
    for done in written:
        np.testing.assert_array_equal(done.pixels, whole[output_box(done.image, done.block.box).slices()])
    rest = [i for i in range(plan.num_blocks) if i not in {done.index for done in written}]
    loop = PipelinedLoop(plan, reader_for(source, plan), engine, written.append)
    assert in_time(loop, rest) is True
    np.testing.assert_array_equal(collected(plan, written), whole)


class BreakingSource(MemorySource):
    """Cannot be read after some reads."""

    num_left = 4

    def read(self, i_image: int, box: Any) -> Any:
        self.num_left -= 1
        if self.num_left < 0:
            raise InputError("the disk under the input is gone")
        return super().read(i_image, box)


def test_what_reading_raises_ends_the_run():
    case = replace(SERIES, method="none")
    source = BreakingSource(case.picture(), case.axes)
    plan = case.plan(source, keep="probability", batch=1, precision="fp32")
    written: list[DoneBlock] = []
    loop = PipelinedLoop(plan, reader_for(source, plan), engine_for(made_network(case), plan), written.append)
    error = in_time(loop, range(plan.num_blocks))
    assert isinstance(error, InputError)
    assert "is gone" in str(error)
    assert len(written) <= 4


@pytest.mark.parametrize("batch", [1, 7])
def test_what_writing_raises_ends_the_run(batch):
    source = MemorySource(SERIES.picture(), SERIES.axes)
    plan = SERIES.plan(source, keep="probability", batch=batch, precision="fp32")
    written: list[DoneBlock] = []

    def write(done: DoneBlock) -> None:
        if len(written) == 2:
            raise ResourceError("the disk is full")
        written.append(done)

    loop = PipelinedLoop(plan, reader_for(source, plan), engine_for(made_network(SERIES), plan), write)
    error = in_time(loop, range(plan.num_blocks))
    assert isinstance(error, ResourceError)
    assert len(written) == 2


def test_what_the_network_raises_ends_the_run():
    source = MemorySource(SERIES.picture(), SERIES.axes)
    plan = SERIES.plan(source, keep="probability", batch=2, precision="fp32")
    engine = engine_for(build_network(UNetSpec(7, 1, (1, 1, 1), convolution="same")), plan)
    error = in_time(PipelinedLoop(plan, reader_for(source, plan), engine, lambda done: None), range(plan.num_blocks))
    assert isinstance(error, RuntimeError)
