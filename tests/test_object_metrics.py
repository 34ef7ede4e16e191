"""Scores of objects: worked by hand, and against the slow definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetctl.errors import InputError
from unetctl.metrics.objects import IOU_THRESHOLDS, NO_OBJECTS, match_objects, pooled


def row(*runs: tuple[int, int]) -> np.ndarray:
    """A picture of one row: (id, length) after another."""
    return np.concatenate([np.full(length, number, np.uint16) for number, length in runs])[None]


def by_definition(found: np.ndarray, truth: np.ndarray) -> tuple[list[float], float]:
    """AP at each threshold and SEG, object by object."""
    ours = [found == i for i in np.unique(found) if i]
    theirs = [truth == i for i in np.unique(truth) if i]
    aps = []
    for threshold in IOU_THRESHOLDS:
        hits = sum(any((a & b).sum() / (a | b).sum() > threshold for a in ours) for b in theirs)
        either = len(ours) + len(theirs) - hits
        aps.append(hits / either if either else 1.0)
    if not theirs:
        return aps, float(not ours)
    jaccards = [
        next(((a & b).sum() / (a | b).sum() for a in ours if (a & b).sum() > 0.5 * b.sum()), 0.0) for b in theirs
    ]
    return aps, float(np.mean(jaccards))


def test_worked_by_hand() -> None:
    truth = row((1, 10), (0, 2), (2, 10), (0, 2), (3, 4))
    # object 1 found with 8 of its 10 pixels (IoU 0.8), object 2 torn in halves (neither more than half), object 3 missed,
    # and one of two pixels where there is nothing
    found = row((7, 8), (0, 4), (8, 5), (9, 5), (0, 1), (4, 1), (0, 4))
    scores = match_objects(found, truth)
    assert (scores.num_true, scores.num_found) == (3, 4)
    assert scores.ap(0.5) == pytest.approx(1 / 6)
    assert scores.ap(0.75) == pytest.approx(1 / 6)
    assert scores.ap(0.8) == 0  # not greater
    assert scores.seg == pytest.approx(0.8 / 3)
    assert scores.mean_ap == pytest.approx(6 / 10 / 6)
    assert scores.precision(0.5) == pytest.approx(1 / 4)
    assert scores.recall(0.5) == pytest.approx(1 / 3)


def test_seg_takes_what_covers_more_than_half_even_if_it_is_far_too_large() -> None:
    truth, found = row((1, 6), (0, 14)), row((5, 20))
    scores = match_objects(found, truth)
    assert scores.seg == pytest.approx(6 / 20)
    assert scores.ap(0.5) == 0


def test_without_objects() -> None:
    nothing, something = row((0, 8)), row((0, 4), (1, 4))
    assert (match_objects(nothing, nothing).ap(0.5), match_objects(nothing, nothing).seg) == (1.0, 1.0)
    assert (match_objects(something, nothing).ap(0.5), match_objects(something, nothing).seg) == (0.0, 0.0)
    assert (match_objects(nothing, something).ap(0.5), match_objects(nothing, something).seg) == (0.0, 0.0)
    assert match_objects(something, something).mean_ap == 1.0


def test_pooled_counts_every_object_alike() -> None:
    one = match_objects(row((1, 4)), row((1, 4)))
    four = match_objects(row((0, 16)), row((1, 4), (2, 4), (3, 4), (4, 4)))
    assert pooled([one, four]).ap50 == pytest.approx(1 / 5)
    assert pooled([one, four]).seg == pytest.approx(1 / 5)
    assert pooled([]) == NO_OBJECTS


def test_ignored_pixels_do_not_count() -> None:
    truth, found = row((1, 6), (2, 2)), row((1, 3), (0, 5))
    ignore = np.zeros(truth.shape, bool)
    ignore[0, 3:] = True
    assert match_objects(found, truth, ignore=ignore).ap(0.95) == 1.0


def test_refuses_what_are_no_ids() -> None:
    with pytest.raises(InputError, match="integer ids"):
        match_objects(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.uint16))
    with pytest.raises(InputError, match="shape"):
        match_objects(np.zeros((2, 2), np.uint16), np.zeros((2, 3), np.uint16))
    with pytest.raises(InputError, match="id -1"):
        match_objects(np.full((2, 2), -1), np.zeros((2, 2), np.int64))
    with pytest.raises(InputError, match=r"0\.42"):
        NO_OBJECTS.ap(0.42)


@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_equals_the_definition(seed: int, num_found: int, num_true: int) -> None:
    chance = np.random.default_rng(seed)
    truth = chance.integers(0, num_true + 1, (6, 7)).astype(np.int32)
    found = np.where(chance.random((6, 7)) < 0.7, truth, chance.integers(0, num_found + 1, (6, 7))).astype(np.uint32)
    scores = match_objects(found, truth)
    aps, seg = by_definition(found, truth)
    assert [scores.ap(t) for t in IOU_THRESHOLDS] == pytest.approx(aps)
    assert scores.seg == pytest.approx(seg)


def test_ids_of_any_size_and_type() -> None:
    truth = np.array([[4_000_000_000] * 5 + [0] * 3], np.uint32)
    assert match_objects(np.array([[1] * 5 + [0] * 3], np.int8), truth).mean_ap == 1.0
