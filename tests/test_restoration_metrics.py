"""Scores of repaired pictures, against what is known and against scikit-image."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from unetctl.jobs.benchmark_restoration import biharmonic
from unetctl.metrics.restoration import Errors, score_restoration, ssim_map


def picture(seed: int, size: tuple[int, ...] = (40, 50, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), grey=st.booleans())
def test_whole_pictures_score_as_scikit_image_says(seed, grey):
    size = (40, 50) if grey else (40, 50, 3)
    truth = picture(seed, size)
    found = np.clip(truth + np.random.default_rng(seed).normal(0, 9, size), 0, 255).astype(np.uint8)
    scores = score_restoration(found, truth, np.ones((40, 50), bool))
    assert scores.inside.psnr == pytest.approx(peak_signal_noise_ratio(truth, found), rel=1e-9)
    wanted = structural_similarity(truth, found, channel_axis=None if grey else -1, full=True)[1]
    assert scores.ssim_inside == pytest.approx(float(wanted.mean()), rel=1e-9)
    assert math.isnan(scores.outside.psnr)
    assert math.isnan(scores.ssim_outside)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_errors_of_parts_add_up(seed):
    rng = np.random.default_rng(seed)
    truth, found = picture(seed), picture(seed + 1)
    parts = rng.integers(0, 3, (40, 50))
    whole = Errors.of(found, truth, np.ones((40, 50), bool))
    total = sum((Errors.of(found, truth, parts == i) for i in range(3)), Errors())
    assert total.num == whole.num
    assert total.total == pytest.approx(whole.total)


def test_inside_outside_and_parts_are_told_apart():
    truth = np.full((30, 30, 3), 100, np.uint8)
    found, mask = truth.copy(), np.zeros((30, 30), bool)
    mask[5:15, 5:15] = True
    found[5:10, 5:15] += 10
    scores = score_restoration(
        found, truth, mask, mask, {"top": mask & (np.arange(30) < 10)[:, None], "none": ~mask & mask}
    )
    assert scores.outside.psnr == math.inf
    assert scores.inside.psnr == pytest.approx(10 * math.log10(255**2 / 50))
    assert scores.parts["top"].psnr == pytest.approx(10 * math.log10(255**2 / 100))
    assert math.isnan(scores.parts["none"].psnr)
    assert scores.overlap.iou == 1
    half = score_restoration(found, truth, mask, mask & (np.arange(30) < 10)[:, None])
    assert half.overlap.iou == 0.5


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="with a mask of"):
        Errors.of(picture(0), picture(0), np.ones((3, 3), bool))
    with pytest.raises(ValueError, match="7 pixels or more"):
        ssim_map(picture(0, (5, 50)), picture(0, (5, 50)))


@pytest.mark.parametrize("colours", [(), (3,)])
def test_the_baseline_fills_holes_and_leaves_the_rest(colours):
    y, x = np.mgrid[0:60, 0:70]
    smooth = (60 + y + x).astype(np.uint8)
    smooth = np.repeat(smooth[..., None], 3, 2) if colours else smooth
    mask = np.zeros((60, 70), bool)
    mask[10:25, 10:30] = mask[0:6, 50:70] = mask[40:50, 40:41] = True
    broken = smooth.copy()
    broken[mask] = 255
    found = biharmonic(broken, mask)
    np.testing.assert_array_equal(found[~mask], smooth[~mask])
    assert np.abs(found[mask].astype(int) - smooth[mask]).max() <= 6
    assert biharmonic(smooth, np.ones_like(mask)) is smooth
