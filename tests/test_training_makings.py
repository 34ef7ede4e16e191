"""Clean crops made anew, as other cameras and programs make pictures, before they are damaged; and saved after."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tests.test_training_damage import OPTIONS, pictures
from unetctl.training import makings
from unetctl.training.augment import AugmentOptions
from unetctl.training.crops import Plane, PlaneSet
from unetctl.training.damage import DamageOptions
from unetctl.training.makings import recompressed, remade
from unetctl.training.restoring import RestoringSampler


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), channels=st.sampled_from([1, 3]), size=st.tuples(st.integers(8, 60), st.integers(8, 60))
)
def test_pictures_stay_pictures_and_follow_from_the_seed(seed, channels, size):
    (picture,) = pictures(1, seed, size, channels)
    before = picture.clone()
    for change in (remade, recompressed):
        found = change(picture, np.random.default_rng(seed))
        assert found.shape == picture.shape
        assert found.dtype == picture.dtype
        assert torch.equal(found.mul(255).round().div(255), found)
        assert 0 <= float(found.min()) <= float(found.max()) <= 1
        assert torch.equal(change(picture, np.random.default_rng(seed)), found)
        assert torch.equal(picture, before)


def test_pictures_of_other_channels_stay_as_they_are():
    (picture,) = pictures(1, 0, channels=2)
    for change in (remade, recompressed):
        assert torch.equal(change(picture, np.random.default_rng(0)), picture)


def gradient(size: int = 96) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size
    noise = np.random.default_rng(0).normal(0, 6, (size, size, 3))
    return np.clip(np.stack([40 + 150 * y, 200 - 120 * x, 90 + 60 * y * x], -1) + noise, 0, 255).astype(np.uint8)


def roughness(pixels: np.ndarray) -> float:
    return float(np.abs(np.diff(pixels.astype(float), axis=0)).mean())


def test_each_change_does_what_it_is_called():
    before = gradient()
    for seed in range(4):
        rng = np.random.default_rng(seed)
        assert roughness(makings._enlarged(before, rng)) < 0.7 * roughness(before)
        assert roughness(makings._denoised(before, rng)) < 0.7 * roughness(before)
        assert roughness(makings._textured(before, rng)) > roughness(before)
        assert roughness(makings._sharpened(before, rng)) > 1.1 * roughness(before)
        assert roughness(makings._noisy(before, rng)) > 1.005 * roughness(before)
        assert len(np.unique(makings._few_colours(before, rng).reshape(-1, 3), axis=0)) <= 128
        for change in (makings._enlarged, makings._denoised, makings._few_colours, makings._compressed):
            assert np.abs(change(before, rng).astype(float) - before).mean() < 45
    expected = [ndimage.median_filter(before[..., i], 3, mode="nearest") for i in range(3)]
    assert np.array_equal(makings._median_of_nine(before), np.stack(expected, -1))
    drawn = [makings._drawing(before, np.random.default_rng(seed)) for seed in range(12)]
    assert all(one.shape == before.shape for one in drawn)
    assert sum((one != before).any() for one in drawn) > 8
    assert min(len(np.unique(one.reshape(-1, 3), axis=0)) for one in drawn) < 200  # on an even ground


@pytest.mark.parametrize("damage", [{"remade_share": 1.0}, {"resaved_share": 1.0}, {"remade_share": 0.5}])
def test_crops_are_made_anew_before_the_damage_and_saved_after_it(damage):
    (clean,) = pictures(1, 3, (64, 64))
    planes = PlaneSet((Plane("a", clean.numpy(), np.zeros((1, 64, 64), np.uint8)),), (64, 64))
    options = DamageOptions(**{**vars(OPTIONS), **damage})
    made = [RestoringSampler(planes, AugmentOptions(), 1, 6, damage=one) for one in (options, OPTIONS)]
    batch, plain = (sampler(0) for sampler in made)
    broken, mask, truth = batch.pixels, batch.targets[:, :1], batch.targets[:, 1:]
    changed = [not torch.equal(a, b) for a, b in zip(truth, plain.targets[:, 1:], strict=True)]
    outside = (mask == 0).expand_as(truth)
    if damage.get("resaved_share"):
        assert not any(changed)
        assert (broken - truth)[outside].abs().mean() > 0.001
        assert torch.equal(mask, plain.targets[:, :1])
    else:
        assert torch.equal(broken[outside], truth[outside])
        assert all(changed) if damage["remade_share"] == 1 else 0 < sum(changed) < 6
