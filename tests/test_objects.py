"""Labels from probabilities: the rule itself, and the same labels block by block."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from unetctl.errors import Stopped
from unetctl.geometry.box import Box
from unetctl.metrics.objects import match_objects
from unetctl.objects.blocks import MemoryIds, Volume, blocks_of, label_blocks, num_blocks
from unetctl.objects.rule import LabelRule, label_array, probability_of
from unetctl.recipe.objects_section import Objects
from unetctl.training.object_targets import interior_and_border


def rule(**settings: object) -> LabelRule:
    return LabelRule.of(Objects(**settings))  # type: ignore[arg-type]


def certain(classes: np.ndarray) -> np.ndarray:
    """Probabilities of a network that knows the classes."""
    return np.stack([(classes == k) * np.uint8(255) for k in range(3)])


def noise(seed: int, shape: tuple[int, ...], smooth: float = 1.2) -> np.ndarray:
    """Probabilities of three classes, in blotches."""
    chance = np.random.default_rng(seed)
    logits = np.stack([ndimage.gaussian_filter(chance.normal(size=shape), (0, smooth, smooth)) for _ in range(3)])
    return probability_of((logits * 6 * smooth).astype(np.float32))


def blockwise(probability: np.ndarray, by: LabelRule, block: tuple[int, int, int]) -> np.ndarray:
    shape = probability.shape[1:]
    volume = Volume(shape, lambda box: probability[(slice(None), *box.slices())])
    labels = label_blocks(volume, by, block, MemoryIds(shape), MemoryIds(shape))
    whole = labels.read(Box.whole(shape))
    assert labels.num_objects == whole.max()
    return whole


@given(
    seed=st.integers(0, 10_000),
    block=st.tuples(st.integers(1, 3), st.integers(5, 20), st.integers(5, 20)),
    join_planes=st.booleans(),
    grow_px=st.integers(0, 6),
    max_hole_px=st.sampled_from([0, 1, 5, 12]),
    min_area_px=st.sampled_from([1, 6, 20]),
    min_seed_px=st.integers(1, 4),
)
@settings(max_examples=25, deadline=None)
def test_blocks_give_the_labels_of_the_whole(
    seed: int,
    block: tuple[int, int, int],
    join_planes: bool,
    grow_px: int,
    max_hole_px: int,
    min_area_px: int,
    min_seed_px: int,
) -> None:
    by = rule(
        seed_threshold=0.45, foreground_threshold=0.35, join_planes=join_planes, grow_px=grow_px, max_hole_px=max_hole_px,
        min_area_px=min_area_px, min_seed_px=min_seed_px,
    )  # fmt: skip
    probability = noise(seed, (3, 26, 31))
    assert (blockwise(probability, by, block) == label_array(probability, by)).all()


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_labels_hold_what_the_rule_says(seed: int) -> None:
    by = rule(grow_px=3, min_area_px=5, min_seed_px=1, max_hole_px=0)
    probability = noise(seed, (1, 40, 40))[:, 0]
    labels = label_array(probability, by)
    foreground = 255 - probability[0].astype(int) >= by.foreground_level
    seeds = probability[1] >= by.seed_level
    assert labels.shape == (40, 40)
    assert ((labels == 0) | foreground | seeds).all()
    numbers, areas = np.unique(labels[labels > 0], return_counts=True)
    assert numbers.tolist() == list(range(1, len(numbers) + 1))
    assert (areas >= by.min_area_px).all()
    for number in numbers:
        own = labels == number
        assert ndimage.label(seeds & own)[1] == 1  # one seed each
        reach = ndimage.distance_transform_cdt(~(seeds & own), "chessboard")
        assert (reach[own] <= by.grow_px).all()
    firsts = [np.flatnonzero((labels == number) & seeds)[0] for number in numbers]
    assert firsts == sorted(firsts)


def test_touching_objects_come_back_as_they_were() -> None:
    y, x = np.mgrid[:60, :60]
    ids = np.zeros((60, 60), np.int32)
    ids[(y - 30) ** 2 + (x - 22) ** 2 < 144] = 1
    ids[((y - 30) ** 2 + (x - 40) ** 2 < 144) & (ids == 0)] = 2
    found = label_array(certain(interior_and_border(ids, 2)), rule())
    scores = match_objects(found, ids)
    assert scores.num_found == 2
    assert scores.seg > 0.97
    assert ((found > 0) == (ids > 0)).all()


def test_a_hole_is_filled_by_its_only_neighbour() -> None:
    classes = np.ones((20, 40), np.uint8)
    classes[:, 20] = 0
    classes[5:8, 5:8] = 0  # inside one object
    classes[12:14, 19:22] = 0  # between two: stays, with the gap
    labels = label_array(certain(classes), rule(max_hole_px=9))
    assert labels.max() == 2
    assert (labels[5:8, 5:8] == 1).all()
    assert (labels[:, 20] == 0).all()
    assert (label_array(certain(classes), rule(max_hole_px=8))[5:8, 5:8] == 0).all()


def test_planes_are_joined_or_not() -> None:
    classes = np.zeros((3, 10, 10), np.uint8)
    classes[:, 2:8, 2:8] = 1
    assert label_array(certain(classes), rule(join_planes=True)).max() == 1
    assert label_array(certain(classes), rule(join_planes=False)).max() == 3


def test_nothing_there() -> None:
    nothing = certain(np.zeros((8, 9), np.uint8))
    assert not label_array(nothing, rule()).any()
    assert not blockwise(nothing[:, None], rule(), (1, 4, 4)).any()


def test_blocks_cover_in_scan_order() -> None:
    boxes = list(blocks_of((2, 5, 7), (1, 3, 4)))
    assert len(boxes) == num_blocks((2, 5, 7), (1, 3, 4)) == 8
    assert sum(box.num_pixels for box in boxes) == 70
    assert boxes == sorted(boxes, key=lambda box: box.start)


def test_stops_when_asked() -> None:
    probability = noise(1, (1, 20, 20))
    volume = Volume((1, 20, 20), lambda box: probability[(slice(None), *box.slices())])
    with pytest.raises(Stopped):
        label_blocks(
            volume, rule(), (1, 5, 5), MemoryIds((1, 20, 20)), MemoryIds((1, 20, 20)), should_stop=lambda: True
        )


def test_refuses_other_arrays() -> None:
    with pytest.raises(ValueError, match="uint8"):
        label_array(np.zeros((3, 4, 4), np.float32), rule())
    with pytest.raises(ValueError, match=r"\(3, y, x\)"):
        label_array(np.zeros((2, 4, 4), np.uint8), rule())
