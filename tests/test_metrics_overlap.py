"""Overlap of masks: the four counts and what derives from them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from unetctl.errors import InputError
from unetctl.metrics import overlap
from unetctl.metrics.overlap import Overlap, count_overlap, count_overlaps

few = settings(max_examples=50, deadline=None)
SHAPES = array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6)


@st.composite
def masks(draw, num=2):
    shape = draw(SHAPES)
    return [draw(arrays(np.bool_, shape)) for _ in range(num)]


@few
@given(masks())
def test_scores_are_what_their_definitions_say(pair):
    prediction, labels = pair
    p, t = set(np.flatnonzero(prediction).tolist()), set(np.flatnonzero(labels).tolist())
    counts = count_overlap(prediction, labels)
    assert counts.num_pixels == labels.size
    assert counts.misclassified == (len(p ^ t) / labels.size if labels.size else 0)
    if p and t:
        assert counts.iou == len(p & t) / len(p | t)
        assert counts.dice == counts.f == 2 * len(p & t) / (len(p) + len(t))
        assert counts.precision == len(p & t) / len(p)
        assert counts.recall == len(p & t) / len(t)
    else:
        expected = float(not p and not t)
        assert [counts.iou, counts.dice, counts.f, counts.precision, counts.recall] == [expected] * 5


@few
@given(masks())
def test_f_is_the_harmonic_mean_and_dice_follows_from_iou(pair):
    precision, recall, f = overlap.precision_recall_f(*pair)
    assert f == pytest.approx(2 * precision * recall / (precision + recall) if precision + recall else 0)
    jaccard = overlap.iou(*pair)
    assert overlap.dice(*pair) == pytest.approx(2 * jaccard / (1 + jaccard))


@few
@given(masks())
def test_scores_are_perfect_only_for_equal_masks(pair):
    prediction, labels = pair
    equal = bool((prediction == labels).all())
    assert (overlap.iou(prediction, labels) == 1) is equal
    assert (overlap.misclassified(prediction, labels) == 0) is equal


@few
@given(masks(num=3))
def test_ignored_pixels_might_as_well_not_be_there(triple):
    prediction, labels, ignore = triple
    whole = count_overlap(prediction, labels, ignore=ignore)
    assert whole == count_overlap(prediction[~ignore], labels[~ignore])
    assert whole + count_overlap(prediction, labels, ignore=~ignore) == count_overlap(prediction, labels)


@few
@given(masks())
def test_complement_scores_the_other_class(pair):
    prediction, labels = pair
    assert count_overlap(prediction, labels).complement == count_overlap(~prediction, ~labels)


def test_prints_on_one_line():
    text = str(Overlap(1, 1, 0, 2))
    assert "0.5000" in text
    assert "\n" not in text


def test_refuses_what_is_no_pair_of_masks():
    mask = np.ones((2, 3), np.bool_)
    with pytest.raises(InputError, match="type uint8; expected booleans"):
        count_overlap(mask.astype(np.uint8), mask)
    with pytest.raises(InputError, match=r"shape \(3, 2\); expected \(2, 3\)"):
        count_overlap(mask.T, mask)
    with pytest.raises(InputError, match="ignore mask has shape"):
        count_overlap(mask, mask, ignore=mask.T)


@given(seed=st.integers(0, 99), dtype=st.sampled_from([np.float32, np.float64]), is_partly_known=st.booleans())
def test_counts_at_several_thresholds_are_those_at_each(
    seed: int, dtype: type[np.floating[Any]], is_partly_known: bool
):
    rng = np.random.default_rng(seed)
    thresholds = [0.0, 0.1, 0.35, 0.5, 0.95, 1.0]
    probability = rng.choice([*thresholds, *rng.random(6)], (7, 9)).astype(dtype)  # many lie on a threshold
    labels, ignore = rng.random((7, 9)) < 0.4, rng.random((7, 9)) < 0.3 if is_partly_known else None
    told = count_overlaps(probability, labels, thresholds, ignore=ignore)
    assert told == [count_overlap(probability >= dtype(t), labels, ignore=ignore) for t in thresholds]
