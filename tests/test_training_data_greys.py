"""Grey values and colours in augmentation: each option does what it is named for, and never touches labels."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from tests.test_training_data_augment import EVERYTHING, batch, lenient, smooth_noise
from unetctl.errors import UsageError
from unetctl.training.augment import AugmentOptions, augment, sample_rngs
from unetctl.training.greys import blur, recolour, reduced


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("per_channel", [False, True])
def test_grey_values_stay_finite_and_near_their_range(channels, per_channel):
    options = AugmentOptions(**{**vars(EVERYTHING), "per_channel": per_channel})
    pixels, targets, _ = batch(num=12, channels=channels)
    new_pixels, _, _ = augment(pixels, targets, None, np.random.default_rng(2), options)
    assert torch.isfinite(new_pixels).all()
    assert float(new_pixels.abs().max()) < 12
    flat = torch.full((2, channels, 20, 20), 0.5)
    blank, _, _ = augment(flat, flat, None, np.random.default_rng(2), options)
    assert torch.isfinite(blank).all()


GREY_ONLY: dict[str, dict[str, Any]] = {
    "brightness": {"brightness": 0.5},
    "contrast": {"contrast": 0.5},
    "gamma": {"gamma": (0.5, 2.0)},
    "noise_sigma": {"noise_sigma": 0.5},
    "blur_sigma_px": {"blur_sigma_px": 2.0},
    "coarse": {"coarse": 4.0},
    "shade": {"shade": 0.5},
    "invert_prob": {"invert_prob": 1.0},
    "artefact_prob": {"artefact_prob": 1.0},
}


@pytest.mark.parametrize("name", GREY_ONLY)
def test_each_grey_option_alone_changes_pixels_and_never_labels(name):
    pixels, targets, weights = batch(num=3)
    options = AugmentOptions(grey_prob=1.0, **GREY_ONLY[name])
    new_pixels, new_targets, new_weights = augment(pixels, targets, weights, np.random.default_rng(4), options)
    assert all(not torch.equal(a, b) for a, b in zip(new_pixels, pixels, strict=True))
    assert torch.equal(new_targets, targets)
    assert new_weights is not None
    assert torch.equal(new_weights, weights)


def test_grey_options_do_what_they_are_named_for():
    pixels, targets, _ = batch(num=6)

    def varied(**options):
        return augment(pixels, targets, None, np.random.default_rng(4), AugmentOptions(grey_prob=1.0, **options))[0]

    shift = varied(brightness=0.5) - pixels
    assert float(shift.std(dim=(1, 2, 3)).max()) < 1e-5
    assert 0.05 < float(shift.abs().max()) <= 0.5
    ratio = varied(contrast=0.4).std(dim=(1, 2, 3)) / pixels.std(dim=(1, 2, 3))
    assert float(ratio.min()) >= 1 / 1.4 - 1e-4
    assert float(ratio.max()) <= 1.4 + 1e-4
    curved = varied(gamma=(0.5, 2.0))
    assert torch.allclose(curved.mean(dim=(1, 2, 3)), pixels.mean(dim=(1, 2, 3)), atol=1e-4)
    assert torch.allclose(curved.std(dim=(1, 2, 3)), pixels.std(dim=(1, 2, 3)), rtol=1e-3)
    order = pixels[0].flatten().argsort()
    assert bool((curved[0].flatten()[order].diff() >= -1e-5).all())  # monotone
    assert float((varied(noise_sigma=0.5) - pixels).std()) == pytest.approx(0.29, abs=0.12)
    assert torch.allclose(varied(invert_prob=1.0) + pixels, 2 * pixels.mean(dim=(2, 3), keepdim=True), atol=1e-4)


def test_blur_equals_scipy():
    pixels = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 40, 33)).astype(np.float32))
    sigma_px = 1.7 * np.random.default_rng(0).uniform()
    blurred = pixels[0].clone()
    blur(blurred, sigma_px)
    radius = int(np.ceil(3 * sigma_px))
    expected = ndimage.gaussian_filter(pixels[0, 0].numpy(), sigma_px, mode="mirror", radius=radius)
    assert np.allclose(blurred[0].numpy(), expected, atol=1e-5)


def test_coarser_pixels_keep_what_is_broad_and_lose_what_is_fine():
    rng = np.random.default_rng(1)
    broad = torch.from_numpy(smooth_noise(rng, (96, 96), 12))[None, None]
    fine = torch.from_numpy(rng.normal(size=(1, 1, 96, 96)).astype(np.float32))
    lost = []
    for seed in range(12):
        options = AugmentOptions(coarse=4.0, grey_prob=1.0)
        seen, _, _ = augment(broad, broad, None, np.random.default_rng(seed), options)
        assert float((seen - broad).std()) < 0.1
        seen, _, _ = augment(fine, fine, None, np.random.default_rng(seed), options)
        lost.append(1 - float(seen.std() / fine.std()))
    assert max(lost) > 0.7  # by a factor near 4: the mean of sixteen has a quarter of the deviation
    assert min(lost) < 0.6  # by a factor near 1
    # of noise that comes first the grain is as coarse as the pixels, of noise that comes last as fine as ever
    flat = torch.zeros(1, 1, 96, 96)
    grains = []
    for seed in range(24):
        options = AugmentOptions(coarse=4.0, noise_sigma=1.0, grey_prob=1.0)
        seen, _, _ = augment(flat, flat, None, np.random.default_rng(seed), options)
        grains.append(float(seen.diff(dim=-1).std() / seen.std()))
    assert min(grains) < 0.7
    assert max(grains) == pytest.approx(2**0.5, rel=0.05)


def test_reduced_pixels_are_means():
    image = torch.arange(48.0).view(1, 6, 8)
    assert torch.allclose(reduced(image, 2)[0], image[0].view(3, 2, 4, 2).mean((1, 3)))
    assert reduced(image, 1) is image
    assert reduced(image, 100).shape == (1, 1, 1)


@lenient
@given(st.integers(0, 10**6), st.floats(0, 3), st.floats(-180, 180))
def test_colours_turn_about_the_grey_axis(seed, factor, turn_deg):
    image = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = image.clone()
    recolour(found, factor, turn_deg)
    mean = image.mean(0)
    torch.testing.assert_close(found.mean(0), mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close((found - mean).norm(dim=0), factor * (image - mean).norm(dim=0), rtol=1e-5, atol=1e-6)
    back = found.clone()
    recolour(back, 1 / factor if factor > 0.1 else 1.0, -turn_deg)
    if factor > 0.1:
        torch.testing.assert_close(back, image, rtol=1e-4, atol=1e-5)


def test_a_third_of_a_turn_exchanges_the_colours():
    image = torch.rand(3, 4, 4)
    turned = image.clone()
    recolour(turned, 1.0, 120)
    torch.testing.assert_close(turned, image.roll(1, 0), rtol=1e-5, atol=1e-6)


def test_colours_vary_only_where_there_are_three_channels():
    options = AugmentOptions(saturation=(0.0, 3.0), hue_deg=180)
    for num in (1, 2, 3, 6):
        pixels, target = torch.rand(4, num, 16, 16), torch.zeros(4, 1, 16, 16)
        varied = augment(pixels.clone(), target, None, sample_rngs((1,), 4), options)[0]
        assert torch.equal(varied, pixels) == (num != 3)
    with pytest.raises(UsageError, match="saturation"):
        AugmentOptions(saturation=(2.0, 1.0))
