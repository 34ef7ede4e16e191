"""Damage that is made up: nothing changes outside it, nothing shines through what is opaque, and seeds say it all."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unetctl.networks.network import Answer
from unetctl.training.augment import AugmentOptions
from unetctl.training.crops import Plane, PlaneSet
from unetctl.training.damage import DamageOptions, Overlay, covered, damaged, draw_for_crop, draw_overlays
from unetctl.training.loss_restoration import RestorationLoss
from unetctl.training.restoring import RestoringSampler, exact_augment

OPTIONS = DamageOptions(size_px=(3, 24))


def pictures(num: int, seed: int, size: tuple[int, int] = (40, 33), channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num, channels, *size), generator=generator).float() / 255


def overlays_of(seed: int, num: int, size: tuple[int, int] = (40, 33), options: DamageOptions = OPTIONS, **how):
    return [draw_overlays(np.random.default_rng([seed, i]), size, options, **how) for i in range(num)]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), channels=st.sampled_from([1, 3]), inside=st.booleans())
def test_outside_the_mask_nothing_changes_and_opaque_overlays_keep_no_trace(seed, channels, inside):
    clean = pictures(3, seed, channels=channels)
    overlays = overlays_of(seed, 3, inside=inside)
    found, mask, opaque = damaged(clean, overlays)
    assert torch.equal(torch.where(mask, 0, found), torch.where(mask, 0, clean))
    assert not (opaque & ~mask).any()
    # another picture below leaves the same: what is opaque knows nothing of it
    other, _, _ = damaged(pictures(3, seed + 1, channels=channels), overlays)
    assert torch.equal(torch.where(opaque, found, 0), torch.where(opaque, other, 0))
    assert torch.equal(found.mul(255).round(), found.mul(255).round().clamp(0, 255))
    torch.testing.assert_close(found * 255, (found * 255).round(), rtol=0, atol=1e-3)
    broken, _, hidden = damaged(torch.full_like(clean, float("nan")), overlays)
    assert not broken[hidden.expand_as(broken)].isnan().any()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_seeds_reproduce_and_pictures_do_not_depend_on_each_other(seed):
    clean = pictures(3, seed)
    overlays = overlays_of(seed, 3)
    assert overlays == overlays_of(seed, 3)
    whole = damaged(clean, overlays)
    for i in range(3):
        for all_, one in zip(whole, damaged(clean[i : i + 1], overlays[i : i + 1]), strict=True):
            assert torch.equal(all_[i : i + 1], one)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    least=st.integers(1, 20),
    more=st.integers(0, 20),
    few=st.integers(0, 3),
    extra=st.integers(0, 3),
    share=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_what_is_drawn_keeps_to_the_options(seed, least, more, few, extra, share):
    options = DamageOptions((few, few + extra), (least, least + more), opaque_share=share, alpha=(0.3, 0.9))
    size = (64, 50)
    found = draw_overlays(np.random.default_rng(seed), size, options, inside=True)
    assert few <= len(found) <= few + extra
    for overlay in found:
        assert least <= overlay.size_px <= least + more
        assert overlay.is_opaque if share == 1 else True
        assert not overlay.is_opaque if share == 0 else True
        assert overlay.is_opaque or 0.3 <= overlay.alpha <= 0.9
        cover = covered(overlay, size)
        rows, columns = cover.any(1).nonzero(), cover.any(0).nonzero()
        extents = [int(i.max() - i.min()) + 1 for i in (rows, columns)]
        assert extents == [overlay.size_px] * 2  # wholly inside
        if overlay.shape == "square":
            assert int(cover.sum()) == overlay.size_px**2


def test_translucent_overlays_are_mixtures():
    clean = pictures(1, 0)
    overlay = Overlay(20.0, 16.0, 10, "square", 0.25, (1.0, 0.0, 0.0))
    found, mask, opaque = damaged(clean, [[overlay]])
    assert int(mask.sum()) == 100
    assert not opaque.any()
    wanted = 0.75 * clean + 0.25 * torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    assert (torch.where(mask, found - wanted, 0).abs() <= 0.5 / 255 + 1e-6).all()


def test_chosen_colours_shapes_and_shares():
    options = DamageOptions((4, 4), (8, 8), ("round",), 1.0, (0.3, 0.9), ("#ff8000",), 0.0)
    found = draw_overlays(np.random.default_rng(0), (64, 64), options)
    assert {(o.shape, o.colour) for o in found} == {("round", (1.0, 128 / 255, 0.0))}
    some = DamageOptions(clean_share=0.5)
    counts = [len(draw_overlays(np.random.default_rng(i), (64, 64), some)) for i in range(200)]
    assert 60 < counts.count(0) < 140


# -- batches


def sampler(planes: list[Plane], **settings_) -> RestoringSampler:
    crops = PlaneSet(planes, (32, 32), (0, 0), (0, 0))
    augment = AugmentOptions(flip=True, rotate="quarter", **settings_)
    return RestoringSampler(crops, augment, 7, 4, damage=DamageOptions(size_px=(4, 20)))


def clean_plane(seed: int) -> Plane:
    pixels = pictures(1, seed, (50, 60))[0].numpy()
    return Plane(f"picture {seed}", pixels, np.broadcast_to(np.zeros((), np.uint8), (1, 50, 60)))


def test_batches_hold_damage_mask_and_truth_and_follow_from_the_step():
    made = sampler([clean_plane(0), clean_plane(1)], brightness=0.2, contrast=0.3)
    batch = made(3)
    assert batch.pixels.shape == (4, 3, 32, 32)
    assert batch.targets.shape == (4, 4, 32, 32)
    mask, clean = batch.targets[:, :1] > 0, batch.targets[:, 1:]
    assert mask.any()
    assert torch.equal(torch.where(mask, 0, batch.pixels), torch.where(mask, 0, clean))
    for pixels in (clean, batch.pixels):  # varied, and yet on the levels of files, the whole like the damaged
        assert set(pixels.unique().tolist()) <= set((torch.arange(256) / 255).tolist())
    again = sampler([clean_plane(0), clean_plane(1)], brightness=0.2, contrast=0.3)(3)
    assert torch.equal(again.pixels, batch.pixels)
    assert torch.equal(again.targets, batch.targets)
    assert not torch.equal(made(4).targets, batch.targets)


def test_damage_that_is_given_stays_what_it_is():
    clean = pictures(1, 3, (50, 60))
    broken, mask, _ = damaged(clean, overlays_of(5, 1, (50, 60)))
    plane = Plane("pair", torch.cat((broken, clean), 1)[0].numpy(), mask[0].numpy().astype(np.uint8))
    made = sampler([plane], brightness=0.2, scale=(0.7, 1.5))
    batch = RestoringSampler(made.crops, exact_augment(made.augment), 7, 4)(0)
    inside, truth = batch.targets[:, :1] > 0, batch.targets[:, 1:]
    assert inside.any()
    assert torch.equal(torch.where(inside, 0, batch.pixels), torch.where(inside, 0, truth))
    values = set(np.unique((truth * 255).round().numpy()))
    assert values <= set(np.unique((clean * 255).round().numpy()))
    assert not torch.equal(torch.where(inside, batch.pixels, 0), torch.where(inside, truth, 0))


# -- the loss


def test_the_loss_counts_damage_and_the_rest_apart():
    clean = pictures(2, 1)
    mask = torch.zeros(2, 1, 40, 33)
    mask[:, :, 10:20, 5:15] = 1
    target = torch.cat((mask, clean), 1)
    sure = (mask * 2 - 1) * 50

    def of(prediction: torch.Tensor, **weights: float) -> float:
        return float(RestorationLoss(**weights).of_answers([Answer(sure, None, prediction)], target))

    assert of(clean) == pytest.approx(0, abs=1e-6)
    assert of(clean + 0.1 * mask) == pytest.approx(0.1, abs=1e-5)
    assert of(clean + 0.1 * (1 - mask), outside_weight=0.5) == pytest.approx(0.05, abs=1e-5)
    assert of(clean + 0.1 * mask, image_weight=3) == pytest.approx(0.3, abs=1e-5)
    empty = torch.cat((torch.zeros_like(mask), clean), 1)
    loss = RestorationLoss(dice=0.5).of_answers([Answer(-50 * torch.ones_like(mask), None, clean + 1)], empty)
    assert float(loss) == pytest.approx(0.1, abs=1e-2)  # no damage: only the rest counts
    weights = 1 - mask
    hidden = RestorationLoss().of_answers([Answer(sure, None, clean + mask)], target, weights)
    assert float(hidden) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="without a prediction"):
        RestorationLoss().of_answers([Answer(sure)], target)
    with pytest.raises(ValueError, match="target of 2 channels"):
        RestorationLoss().of_answers([Answer(sure, None, clean)], target[:, :2])


def test_crops_are_damaged_as_often_as_whole_pictures():
    options = DamageOptions(overlays=(1, 4), size_px=(4, 30), picture=(90, 120))
    pixels = torch.zeros(1, 1, 90, 120)
    whole, crops = [], []
    for seed in range(400):
        overlays = draw_overlays(np.random.default_rng(seed), (90, 120), options)
        whole.append(float(damaged(pixels, [overlays])[1].float().mean()))
        in_crop = draw_for_crop(np.random.default_rng(seed), (40, 40), options)
        window = damaged(pixels[..., :40, :40], [in_crop])[1]
        # the very overlays of the whole picture, seen through its middle
        assert torch.equal(window, damaged(pixels, [overlays])[1][..., 25:65, 40:80])
        crops.append(float(window.float().mean()))
    assert np.mean(crops) == pytest.approx(np.mean(whole), rel=0.25)
    alone = replace(options, picture=None)
    for size in ((40, 40), (90, 120)):
        drawn = draw_for_crop(np.random.default_rng(5), size, alone)
        assert drawn == draw_overlays(np.random.default_rng(5), size, alone)
    large = draw_for_crop(np.random.default_rng(5), (200, 300), options)
    assert large == draw_overlays(np.random.default_rng(5), (200, 300), options)
