"""Defects of documents: labels stay, values stay in range, the seed decides, ink stays ink."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unetctl.errors import UsageError
from unetctl.recipe.load import recipe_from_dict
from unetctl.training import degrade as module
from unetctl.training.augment import AugmentOptions, augment, sample_rngs
from unetctl.training.crops import Plane, PlaneSet


def with_shares(**shares: Any) -> AugmentOptions:
    return AugmentOptions(**shares)


STEPS = ("bleed_through", "stain", "fade", "border", "paper_noise")
ALL = with_shares(**{f"{name}_prob": 1.0 for name in (*STEPS, "jpeg")})


def page(channels: int = 1, size: tuple[int, int] = (96, 128), seed: int = 0) -> tuple[Tensor, Tensor]:
    """(N, C, y, x) with ink -1 and paper +1, a little uneven; its ink (N, 1, y, x)."""
    rng = np.random.default_rng(seed)
    ink = np.zeros((2, 1, *size), np.uint8)
    for y in range(size[0] // 4, size[0] - 20, 16):
        ink[:, :, y : y + 4, size[1] // 4 : -size[1] // 4] = 1
    values = np.where(ink > 0, -1.0, 1.0) + rng.normal(0, 0.05, (2, channels, *size))
    return torch.from_numpy(values.astype(np.float32)), torch.from_numpy(ink)


@pytest.mark.parametrize("name", [*STEPS, "jpeg", "all"])
@pytest.mark.parametrize(("channels", "size"), [(1, (96, 128)), (3, (80, 64)), (2, (33, 17))])
def test_labels_and_range_stay_and_the_seed_decides(name, channels, size):
    pixels, ink = page(channels, size)
    options = ALL if name == "all" else with_shares(**{f"{name}_prob": 1.0})
    low, high = min(-1.0, float(pixels.min())), max(1.0, float(pixels.max()))
    changed = False
    for seed in range(6):
        new, labels, _ = augment(pixels, ink, None, sample_rngs((seed,), 2), options)
        assert torch.equal(labels, ink)
        assert bool(torch.isfinite(new).all())
        assert low - 1e-4 <= float(new.min())
        assert float(new.max()) <= high + 1e-4
        again, _, _ = augment(pixels[1:], ink[1:], None, sample_rngs((seed,), 1, first=1), options)
        assert torch.equal(again[0], new[1])  # whatever else is in the batch
        changed = changed or not torch.equal(new, pixels)
    assert changed or (name == "border" and size == (33, 17))
    assert (
        len({float(augment(pixels, ink, None, sample_rngs((s,), 2), options)[0].sum()) for s in range(6)}) > 1
        or not changed
    )


def test_nothing_is_drawn_for_shares_of_zero():
    rng = np.random.default_rng(3)
    pixels, _ = page()
    before = pixels.clone()
    module.degrade(pixels[0], rng, AugmentOptions())
    module.recompress(pixels[0], rng, AugmentOptions())
    assert torch.equal(pixels, before)
    assert rng.random() == np.random.default_rng(3).random()


@pytest.mark.parametrize("name", ["bleed_through", "stain"])
def test_what_darkens_paper_leaves_ink_as_it_is(name):
    pixels, ink = page()
    pixels = torch.where(ink > 0, -1.0, 1.0).expand_as(pixels).contiguous()
    for seed in range(8):
        image = pixels[0].clone()
        getattr(module, name)(image, np.random.default_rng(seed))
        assert torch.allclose(image[ink[0] > 0], torch.tensor(-1.0))
        assert bool((image <= pixels[0] + 1e-6).all())
        assert not torch.equal(image, pixels[0])


def test_faded_ink_is_paler_and_paper_stays():
    pixels, ink = page()
    pixels = torch.where(ink > 0, -1.0, 1.0)
    paler = 0
    for seed in range(8):
        image = pixels[0].clone()
        module.fade(image, np.random.default_rng(seed))
        assert torch.equal(image[ink[0] == 0], pixels[0][ink[0] == 0])
        assert bool((image >= pixels[0]).all())
        assert float(image.max()) <= 1.0
        paler += bool((image > pixels[0]).any())
    assert paler >= 6


def test_borders_hide_hardly_any_writing():
    pixels, ink = page(size=(120, 160))
    dark = 0
    for seed in range(30):
        image = pixels[0].clone()
        module.border(image, np.random.default_rng(seed))
        is_black = (image[0] < -0.3) & (ink[0, 0] == 0)
        hidden = ((image - pixels[0]).abs()[0] > 0.4) & (ink[0, 0] > 0)
        dark += bool(is_black.sum() > 50)
        assert float(hidden.float().mean()) < 0.05
    assert dark >= 20
    full = -torch.ones(1, 64, 64)
    module.border(full, np.random.default_rng(0))  # nowhere free: left alone
    assert torch.equal(full, -torch.ones(1, 64, 64))


def test_jpeg_loses_more_at_low_quality_and_little_at_high():
    pixels, _ = page(3)
    errors = []
    for quality in (10, 50, 95):
        image = pixels[0].clone()
        module.jpeg(image, quality)
        errors.append(float((image - pixels[0]).square().mean()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01


def test_settings_of_the_recipe_are_those_of_the_options():
    shares = {f"{name}_prob": 0.25 for name in (*STEPS, "jpeg")}
    recipe = recipe_from_dict({"task": {"name": "t"}, "augment": shares, "train": {"focus": 0.5}}, "test")
    assert AugmentOptions(**recipe.augment.model_dump()) == with_shares(**shares)
    assert recipe.train.focus == 0.5
    for name in shares:
        with pytest.raises(UsageError, match=name):
            with_shares(**{name: 1.5})


def test_focus_draws_crops_where_there_is_foreground():
    target = np.zeros((1, 600, 800), np.uint8)
    target[0, 300:303, 500:503] = 1
    blank = Plane("blank", np.zeros((1, 200, 300), np.float32), np.zeros((1, 200, 300), np.uint8))
    planes = [Plane("a", np.zeros((1, 600, 800), np.float32), target), blank]
    hits = {}
    for focus in (0.0, 0.5, 1.0):
        crops = PlaneSet(planes, (64, 64), focus=focus)
        places = [crops.place(np.random.default_rng([7, i])) for i in range(200)]
        for i_plane, y, x in places:
            for start, size in zip((y, x), planes[i_plane].size, strict=True):
                assert -16 <= start <= size - 64 + 16
        hits[focus] = np.mean([i == 0 and y <= 302 < y + 64 and x <= 502 < x + 64 for i, y, x in places])
    assert hits[0.0] < 0.1
    assert 0.35 < hits[0.5] < 0.65
    assert hits[1.0] > 0.85
    nowhere = {PlaneSet([blank], (64, 64), focus=1.0).place(np.random.default_rng(i)) for i in range(9)}
    assert len(nowhere) > 3  # nothing to look for: anywhere
    small = Plane("small", np.zeros((1, 20, 30), np.float32), np.ones((1, 20, 30), np.uint8))
    assert PlaneSet([small], (64, 64), focus=1.0).sample((1,), 3).pixels.shape == (3, 1, 64, 64)
    with pytest.raises(ValueError, match="focus"):
        PlaneSet([small], (64, 64), focus=2.0)


def test_focus_draws_objects_equally_often_large_or_small():
    ids = np.zeros((200, 300), np.int32)
    ids[10:110, 10:110], ids[150:154, 250:254], ids[190:192, 40:42] = 1, 2, 3
    pixels = np.zeros((1, 200, 300), np.float32)
    crowd = Plane("crowd", pixels, (ids[None] > 0).astype(np.uint8), objects=ids)
    alone = Plane("alone", pixels, (ids[None] == 1).astype(np.uint8), objects=np.where(ids == 1, 1, 0).astype(np.int32))
    empty = Plane("empty", pixels, np.zeros((1, 200, 300), np.uint8), objects=np.zeros((200, 300), np.int32))
    crops = PlaneSet([crowd, alone, empty], (32, 32), focus=1.0)
    places = [crops.place(np.random.default_rng([3, i])) for i in range(400)]
    around = [(0, 60, 60), (0, 152, 252), (0, 191, 41), (1, 60, 60)]
    for i_plane, y, x in around:
        share = np.mean([i == i_plane and abs(a + 16 - y) <= 16 and abs(b + 16 - x) <= 16 for i, a, b in places])
        assert 0.17 < share < 0.33, (i_plane, y, x)
