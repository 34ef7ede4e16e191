"""Boxes, mirroring and plans: integers only."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unetctl.geometry.box import Box
from unetctl.geometry.mirror import mirror_indices, read_mirrored
from unetctl.geometry.plan import TilePlan, fitting_core

sizes = st.integers(1, 70)


@given(size=st.integers(1, 40), before=st.integers(0, 120), after=st.integers(0, 120))
def test_mirroring_is_numpys_reflect_repeated(size, before, after):
    axis = np.arange(size)
    expected = np.pad(axis, (before, after), mode="reflect") if size > 1 else np.zeros(before + 1 + after, int)
    assert np.array_equal(axis[mirror_indices(-before, size + after, size)], expected)


def test_an_axis_without_pixels_is_refused():
    with pytest.raises(ValueError, match="cannot be mirrored"):
        mirror_indices(0, 3, 0)


@given(
    shape=st.tuples(sizes, sizes),
    start=st.tuples(st.integers(-90, 60), st.integers(-90, 60)),
    size=st.tuples(sizes, sizes),
)
def test_only_real_pixels_are_read(shape, start, size):
    volume = np.arange(shape[0] * shape[1]).reshape(1, *shape)
    asked = []

    def read(box):
        assert Box.whole(shape).covers(box)
        asked.append(box.num_pixels)
        return volume[(slice(None), *box.slices())]

    box = Box(start, tuple(a + n for a, n in zip(start, size, strict=True)))
    found = read_mirrored(read, box, shape, leading=1)
    rows, columns = (mirror_indices(a, b, n) for (a, b), n in zip(box, shape, strict=True))
    assert np.array_equal(found[0], volume[0][np.ix_(rows, columns)])
    assert asked[0] <= box.num_pixels or box.is_empty


@st.composite
def plans(draw):
    stride = 2 ** draw(st.integers(0, 3))
    shape = (draw(st.integers(1, 5)), draw(sizes), draw(sizes))
    core = (1, stride * draw(st.integers(1, 4)), stride * draw(st.integers(1, 4)))
    counts = (draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    border = draw(st.sampled_from(["mirror", "native"]))
    return TilePlan(
        "zyx", shape, (1, stride, stride), core, (draw(st.integers(0, 1)), 3 * stride, 2 * stride), counts, border
    )


@given(plan=plans())
def test_cores_partition_the_volume_exactly_once(plan):
    seen = np.zeros(plan.shape, int)
    tiles = 0
    for index in range(len(plan)):
        block = plan.block(index)
        assert plan.block_at(block.box.start) == index
        inside = np.zeros(plan.shape, int)
        for tile in plan.tiles(block):
            tiles += 1
            seen[tile.kept.slices()] += 1
            inside[tile.kept.slices()] += 1
            assert block.read.covers(tile.read)
            assert tile.read.covers(tile.core)
            assert all(a % s == 0 for a, s in zip(tile.core.start, plan.stride, strict=True))
        assert inside[block.box.slices()].all()
        assert inside.sum() == block.box.num_pixels
    assert (seen == 1).all()
    assert tiles == plan.num_tiles


@given(plan=plans(), num_parts=st.integers(1, 9))
def test_parts_partition_the_blocks(plan, num_parts):
    together = [index for i in range(num_parts) for index in plan.part(i, num_parts)]
    assert together == list(range(len(plan)))


@given(plan=plans())
def test_a_plan_survives_its_json_and_knows_its_fingerprint(plan):
    again = TilePlan.from_dict(plan.to_dict())
    assert again == plan
    assert again.fingerprint == plan.fingerprint


@given(size=st.integers(1, 5000), depth=st.integers(0, 5), largest=st.integers(1, 1024))
def test_the_core_is_the_smallest_that_needs_no_more_tiles(size, depth, largest):
    stride = 2**depth
    core = fitting_core(size, stride, largest)
    biggest = max(stride, largest // stride * stride)
    assert core % stride == 0
    assert core <= biggest
    count = -(-size // core)
    assert count == -(-size // biggest)
    assert core == stride or (core - stride) * count < size


def test_a_core_off_the_grid_is_refused_with_the_next_one_on_it():
    with pytest.raises(ValueError, match="190 along y is not a multiple of the network stride 16; use 192"):
        TilePlan("yx", (512, 512), (16, 16), (190, 192), (94, 94), (1, 1))


def test_a_plan_of_a_petabyte_is_made_at_once():
    plan = TilePlan("zyx", (10**6, 10**5, 10**4), (1, 16, 16), (1, 512, 512), (0, 94, 94), (4, 4, 4))
    assert len(plan) == 250_000 * 49 * 5
    assert plan.block(len(plan) - 1).box.stop == (10**6, 10**5, 10**4)
