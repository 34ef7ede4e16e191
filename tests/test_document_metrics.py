"""Scores of binarized pages: by hand, by their invariants, and as doxapy has them."""

import importlib
import importlib.metadata
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage

from unetctl.errors import InputError
from unetctl.metrics.document import DocumentScores, drd, f_measure, pseudo_f_measure, psnr, score_page
from unetctl.metrics.document_weights import pseudo_weights
from unetctl.metrics.thinning import thin

Mask = npt.NDArray[np.bool_]
EIGHT = np.ones((3, 3), np.bool_)
few = settings(max_examples=40)
MASKS = arrays(np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 24)))


def writing(seed: int, shape: tuple[int, int] = (180, 260)) -> Mask:
    """Ink as of a pen: curved strokes of several widths, some close together, a blot, specks, a hole."""
    rng = np.random.default_rng(seed)
    ink = np.zeros(shape, np.bool_)
    for _ in range(14):
        walk = np.cumsum(np.cumsum(rng.normal(0, 0.12, (60, 2)), axis=0), axis=0)
        at = np.clip(walk + rng.uniform(0, shape), 0, np.array(shape) - 1).astype(int)
        line = np.zeros(shape, np.bool_)
        line[at[:, 0], at[:, 1]] = True
        ink |= ndimage.binary_dilation(line, EIGHT, iterations=int(rng.integers(1, 5)))
    y, x = np.indices(shape)
    away = np.hypot(y - shape[0] / 2, x - shape[1] / 3)
    found: Mask = (ink | (away < 14)) & (away > 4) | (rng.random(shape) < 0.0005)
    return found


def spoiled(ink: Mask, seed: int) -> Mask:
    rng = np.random.default_rng(seed)
    shifted = np.roll(ink, rng.integers(-2, 3, 2), (0, 1))
    stain = ndimage.gaussian_filter(rng.normal(size=ink.shape), 6) > 0.12
    found: Mask = (shifted | stain) ^ (rng.random(ink.shape) < 0.01)
    return found


# -- by hand


def test_figures_of_the_contest_s_own_example():
    truth = np.zeros((20, 20), np.bool_)
    truth.flat[:35] = True  # 27 found, 8 missed
    predicted = np.zeros_like(truth)
    predicted.flat[8:46] = True  # 11 false
    scores = score_page(predicted, truth)
    assert scores.recall == pytest.approx(100 * 27 / 35)
    assert scores.precision == pytest.approx(100 * 27 / 38)
    assert scores.f == f_measure(predicted, truth) == pytest.approx(200 * 27 / 73)
    assert scores.psnr == psnr(predicted, truth) == pytest.approx(10 * math.log10(400 / 19))


def test_a_lone_false_pixel_distorts_by_the_paper_around_it():
    truth = np.zeros((24, 24), np.bool_)
    truth[0:2, 0:2] = True  # one block of both colours
    predicted = truth.copy()
    predicted[12, 12] = True
    assert drd(predicted, truth) == pytest.approx(1)
    corner = truth.copy()
    corner[23, 23] = True  # eight of its neighbours are on the page
    total = sum(1 / math.hypot(y, x) for y in range(-2, 3) for x in range(-2, 3) if y or x)
    inside = sum(1 / math.hypot(y, x) for y in range(3) for x in range(3) if y or x)
    assert drd(corner, truth) == pytest.approx(inside / total)
    missed = truth.copy()
    missed[0, 0] = False
    assert drd(missed, truth) == pytest.approx((2 + 1 / math.sqrt(2)) / total)


def test_blocks_cut_by_the_border_do_not_count():
    truth = np.zeros((15, 15), np.bool_)
    truth[2, 2] = truth[12, 12] = True
    predicted = truth.copy()
    predicted[2, 2] = False
    assert drd(predicted, truth) == 0  # nothing around it has the colour that it lost
    predicted[2, 8] = True
    assert drd(predicted, truth) == pytest.approx(1)  # one whole block
    truth[2, 9] = True
    assert drd(predicted, truth) < 1


def test_stroke_weights_add_up_to_one_across():
    for width, depths in ((1, [1]), (2, [1, 0]), (5, [0, 1, 2, 1, 0]), (6, [0, 1, 2, 2, 1, 0])):
        truth = np.zeros((60, 30), np.bool_)
        truth[:, 12 : 12 + width] = True
        across = pseudo_weights(truth).recall[30, 12 : 12 + width]
        if width > 2:
            np.testing.assert_allclose(across, np.array(depths) / sum(depths))
        assert across.sum() == pytest.approx(1)


def test_false_ink_costs_more_the_farther_from_the_stroke_up_to_its_width():
    truth = np.zeros((80, 80), np.bool_)
    truth[10:70, 30:37] = True  # three deep, so six wide to the measure
    across = pseudo_weights(truth).precision[40, 37:]
    np.testing.assert_allclose(across[:6], 1 + np.arange(1, 7) / 6, rtol=1e-6)
    np.testing.assert_array_equal(across[7:], 1)


def test_ink_between_two_strokes_costs_most_where_it_joins_them():
    truth = np.zeros((80, 80), np.bool_)
    truth[10:70, 25:34] = truth[10:70, 39:48] = True  # five apart
    weights = pseudo_weights(truth).precision
    assert weights[40, 36] > weights[40, 22]  # the middle of the gap, and as far out on the free side
    assert weights[40, 36] == weights[40, 34:39].max()
    joined, beside = truth.copy(), truth.copy()
    joined[40, 34:39] = True
    beside[40, 48:53] = True
    assert pseudo_f_measure(joined, truth) < pseudo_f_measure(beside, truth)


def test_a_break_costs_the_same_in_thin_and_in_thick_strokes():
    truth = np.zeros((120, 120), np.bool_)
    truth[10:110, 20:25] = truth[10:110, 70:85] = True
    weights = pseudo_weights(truth)
    cuts = []
    for columns in (slice(20, 25), slice(70, 85)):
        cut = truth.copy()
        cut[58:62, columns] = False
        cuts.append(score_page(cut, truth, weights=weights))
    assert cuts[0].pseudo_recall == pytest.approx(cuts[1].pseudo_recall, abs=0.01)
    assert cuts[0].recall > cuts[1].recall + 1


# -- whatever the page


@given(st.integers(0, 200), st.integers(0, 200))
@settings(max_examples=10)
def test_scores_lie_in_their_ranges(seed: int, other: int):
    truth = writing(seed, (70, 80))
    weights = pseudo_weights(truth)
    assert (weights.recall[~truth] == 0).all()
    assert (weights.recall >= 0).all()
    assert (weights.precision[truth] == 1).all()
    assert 1 <= weights.precision.min() <= weights.precision.max() <= 3
    scores = score_page(spoiled(truth, other), truth, weights=weights)
    assert 0 <= scores.pseudo_f <= 100
    assert min(scores.precision, scores.recall) <= scores.f <= max(scores.precision, scores.recall)
    assert scores.drd >= 0
    assert scores == score_page(spoiled(truth, other), truth)


@given(MASKS)
@few
def test_the_truth_itself_is_perfect(truth: Mask):
    scores = score_page(truth, truth)
    assert scores == DocumentScores(100, 100, math.inf, 0, 100, 100, 100, 100)


@given(MASKS, st.randoms(use_true_random=False))
@few
def test_a_page_upside_down_has_the_same_plain_scores(truth: Mask, random: Any):
    predicted = np.array([random.random() < 0.5 for _ in range(truth.size)]).reshape(truth.shape)
    size = truth.shape[0] // 8 * 8, truth.shape[1] // 8 * 8
    truth, predicted = truth[: size[0], : size[1]], predicted[: size[0], : size[1]]
    if not truth.size:
        return
    turned = predicted[::-1, ::-1], truth[::-1, ::-1]
    assert f_measure(predicted, truth) == f_measure(*turned)
    assert psnr(predicted, truth) == psnr(*turned)
    assert drd(predicted, truth) == pytest.approx(drd(*turned))


def test_pages_without_ink():
    blank, page = np.zeros((40, 50), np.bool_), writing(1, (40, 50))
    assert score_page(blank, blank).pseudo_f == 100
    assert score_page(blank, blank).drd == 0
    missed = score_page(blank, page)
    assert (missed.f, missed.pseudo_f, missed.recall, missed.precision) == (0, 0, 0, 0)
    specks = score_page(page, blank)
    assert (specks.f, specks.pseudo_f) == (0, 0)
    assert math.isfinite(specks.drd)
    full = np.ones((40, 50), np.bool_)
    assert score_page(full, full).pseudo_f == 100
    assert 0 < score_page(full, page).pseudo_f < 100


def test_only_masks_of_one_shape_are_scored():
    mask = np.zeros((5, 6), np.bool_)
    with pytest.raises(InputError, match="booleans"):
        score_page(mask.astype(np.uint8), mask)
    with pytest.raises(InputError, match=r"\(6, 5\)"):
        drd(mask.T, mask)
    with pytest.raises(InputError, match="axes"):
        pseudo_weights(np.zeros(3, np.bool_))


def test_a_page_is_scored_in_good_time():
    truth = np.tile(writing(3, (250, 375)), (4, 4))
    predicted = spoiled(truth, 4)
    begun = time.process_time()
    score_page(predicted, truth)
    assert time.process_time() - begun < 3  # about 0.4 where nobody else computes


# -- skeletons


@given(st.integers(0, 1000))
@few
def test_a_skeleton_keeps_every_stroke(seed: int):
    mask = writing(seed, (60, 70))
    skeleton = thin(mask)
    assert not (skeleton & ~mask).any()
    labels, num = ndimage.label(mask, EIGHT)
    kept = np.unique(labels[skeleton])
    pieces = ndimage.label(skeleton, EIGHT)[1]
    assert pieces == len(kept)  # none falls apart, though small blobs may vanish
    sizes = np.bincount(labels.ravel())
    assert all(sizes[label] <= 4 for label in set(range(1, num + 1)) - set(kept.tolist()))
    # lines, no areas; but where strokes meet from all sides one pixel may be enclosed (2 of the 1,001 pictures)
    assert ndimage.binary_erosion(skeleton, EIGHT).sum() <= 1
    np.testing.assert_array_equal(thin(skeleton), skeleton)


def test_thinning_may_stop_early():
    mask = np.zeros((60, 60), np.bool_)
    mask[5:55, 5:55] = True
    stopped = thin(mask, max_rounds=3)
    assert thin(mask).sum() < stopped.sum() < mask.sum()
    np.testing.assert_array_equal(thin(mask, max_rounds=60), thin(mask))


# -- as doxapy has it


def doxapy_or_skip() -> Any:
    try:
        return importlib.import_module("doxapy")
    except ImportError:
        pytest.skip("needs doxapy: pip install doxapy")


def doxa_performance(doxa: Any, predicted: Mask, truth: Mask) -> dict[str, float]:
    """What doxapy says; its distortion as it would be without two faults of releases up to 0.9.2.

    Those looked at 7 x 7 pixels of each block of 8 x 8, and multiplied the number of blocks by a million in 32 bits.
    """
    images = [np.where(ink, 0, 255).astype(np.uint8) for ink in (truth, predicted)]
    found: dict[str, float] = dict(doxa.calculate_performance(*images))
    if importlib.metadata.version("doxapy") == "0.9.2":
        rows, columns = truth.shape[0] // 8, truth.shape[1] // 8
        blocks = truth[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8)
        seen = blocks[:, :7, :, :7]
        wrong = int((seen.any((1, 3)) & ~seen.all((1, 3))).sum()) * 10**6 % 2**32
        right = int((blocks.any((1, 3)) & ~blocks.all((1, 3))).sum()) * 10**6
        found["drdm"] *= wrong / right
    return found


def assert_equals_doxapy(doxa: Any, predicted: Mask, truth: Mask) -> None:
    wanted = doxa_performance(doxa, predicted, truth)
    scores = score_page(predicted, truth)
    assert scores.f == pytest.approx(wanted["fm"], abs=0.001)
    assert scores.psnr == pytest.approx(wanted["psnr"], abs=0.001)
    assert scores.drd == pytest.approx(wanted["drdm"], abs=0.01)
    if hasattr(doxa, "generate_pseudo_weights"):  # the weight files of the DIBCO evaluation, from 0.9.9
        weights = doxa.generate_pseudo_weights(np.where(truth, 0, 255).astype(np.uint8))
        images = [np.where(ink, 0, 255).astype(np.uint8) for ink in (truth, predicted)]
        wanted = doxa.calculate_performance(*images, *weights)
        assert scores.pseudo_f == pytest.approx(wanted["pseudo_fm"], abs=0.05)


@pytest.mark.parametrize("seed", range(6))
def test_scores_are_doxapy_s(seed: int):
    doxa = doxapy_or_skip()
    truth = writing(seed, (183, 261) if seed % 2 else (160, 256))
    assert_equals_doxapy(doxa, spoiled(truth, seed), truth)


@pytest.mark.realdata
def test_scores_are_doxapy_s_on_twenty_real_pages(real_data: Path):
    doxa = doxapy_or_skip()
    from unetctl.jobs.benchmark_baselines import otsu
    from unetctl.jobs.benchmark_pages import luminance

    truths = sorted((real_data / "dibco").glob("*/gt/*.png"))
    if len(truths) < 20:
        pytest.skip(f"needs 20 pages in {real_data / 'dibco'}: there are {len(truths)}")
    for path in truths[:: len(truths) // 20][:20]:
        image = next((path.parent.parent / "images").glob(f"{path.stem}.*"))
        with Image.open(path) as picture:
            truth = ~np.asarray(picture.convert("1"))
        with Image.open(image) as picture:
            grey = luminance(np.asarray(picture if picture.mode in ("L", "RGB") else picture.convert("RGB")))
        assert_equals_doxapy(doxa, otsu(grey), truth)
