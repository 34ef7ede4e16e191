"""Levels, shards and pieces: how pictures are cut for storage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetctl.geometry.box import Box
from unetctl.sinks.base import OutputImage
from unetctl.sinks.units import Level, levels_of, outer_axes, pieces


def test_real_pyramid_sizes() -> None:
    image = OutputImage("", (3000, 2049, 5000), "zyx", "uint8", (4, 2048, 2048), (1, 512, 512))
    levels = levels_of(image)
    assert [level.shape for level in levels] == [
        (3000, 2049, 5000),
        (3000, 1025, 2500),
        (3000, 513, 1250),
        (3000, 257, 625),
    ]
    assert [level.shard for level in levels] == [
        (4, 2048, 2048),
        (4, 1536, 2048),
        (4, 1024, 1536),
        (4, 257, 1024),
    ]
    assert len(levels_of(OutputImage("", (2048, 2048), "yx", "uint8", (512, 512), (512, 512)))) == 1


@pytest.mark.parametrize(
    ("axes", "outer"),
    [
        ("yx", ()),
        ("tczyx", ()),
        ("pyx", ()),
        ("tpzyx", ()),
        ("ptczyx", (0,)),
        ("ptyx", (0,)),
        ("pqyx", (0, 1)),
    ],
)
def test_which_axes_ome_zarr_cannot_hold(axes: str, outer: tuple[int, ...]) -> None:
    shape = (8,) * len(axes)
    shard = tuple(8 if axis in "yx" else 1 for axis in axes)
    assert outer_axes(OutputImage("", shape, axes, "uint8", shard, shard)) == outer


@settings(deadline=None)
@given(st.data())
def test_shards_tile_a_level_and_know_their_place(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
    chunk = tuple(data.draw(st.integers(1, 4)) for _ in shape)
    level = Level(shape, chunk, tuple(c * data.draw(st.integers(1, 3)) for c in chunk))
    seen = np.zeros(shape, int)
    for i in range(level.num_shards):
        box = level.nth_shard_box(i)
        seen[box.slices()] += 1
        coords = level.coords_of(box)
        assert level.shard_box(coords) == box
        assert coords in set(level.coords_touching(Box(box.start, tuple(a + 1 for a in box.start))))
        if box.num_pixels > 1:
            longest = box.shape.index(max(box.shape))
            with pytest.raises(ValueError, match="not one whole shard"):
                level.coords_of(box.expanded([0] * box.ndim, [-(i == longest) for i in range(box.ndim)]))
    assert (seen == 1).all()


@settings(deadline=None)
@given(st.data())
def test_pieces_cover_a_box_once_in_order_within_the_budget(data: st.DataObject) -> None:
    ndim = data.draw(st.integers(1, 3))
    start = tuple(data.draw(st.integers(0, 9)) for _ in range(ndim))
    box = Box(start, tuple(a + data.draw(st.integers(1, 9)) for a in start))
    unit = tuple(data.draw(st.integers(1, 4)) for _ in range(ndim))
    budget = data.draw(st.integers(1, 400))
    seen = np.zeros(box.shape, int)
    for i, piece in enumerate(pieces(box, unit, 1, budget), 1):
        inside = seen[piece.relative_to(box).slices()]
        assert piece.num_pixels <= max(budget, math.prod(unit))
        assert not inside.any()
        inside[...] = i
    assert seen.all()
    firsts = seen[tuple(slice(None, None, u) for u in unit)].ravel()
    assert (np.diff(firsts) >= 0).all()
