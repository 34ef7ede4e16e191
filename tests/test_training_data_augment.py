"""Augmentation: untouched when nothing is asked, labels follow pixels, seeds decide."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from unetctl.errors import UsageError
from unetctl.training.augment import AugmentOptions, augment, margin_for, sample_rngs, without_neighbours
from unetctl.training.warp import Warp, apply_warp, cubic_matrix, random_warp, sampling_grid

lenient = settings(deadline=None, max_examples=40)
EVERYTHING = AugmentOptions(
    flip=True,
    rotate="any",
    elastic_prob=1.0,
    scale=(0.7, 1.4),
    stretch=1.3,
    brightness=0.3,
    contrast=0.3,
    gamma=(0.7, 1.4),
    noise_sigma=0.3,
    blur_sigma_px=1.5,
    coarse=2.5,
    shade=0.3,
    invert_prob=0.5,
    artefact_prob=1.0,
    grey_prob=1.0,
)
GEOMETRY = {
    "flip": AugmentOptions(flip=True),
    "quarter": AugmentOptions(flip=True, rotate="quarter"),
    "any": AugmentOptions(rotate="any"),
    "scale": AugmentOptions(scale=(0.7, 1.4)),
    "stretch": AugmentOptions(stretch=1.6),
    "elastic": AugmentOptions(elastic_prob=1.0, elastic_sigma_px=4.0),
    "all": AugmentOptions(
        flip=True, rotate="any", scale=(0.7, 1.4), stretch=1.4, elastic_prob=1.0, elastic_sigma_px=4.0
    ),
}


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], sigma_px: float = 6.0) -> np.ndarray:
    """Blobs of mean 0 and deviation 1."""
    field = ndimage.gaussian_filter(rng.normal(size=size), sigma_px, mode="mirror")
    scaled: np.ndarray = (field / field.std()).astype(np.float32)
    return scaled


def batch(seed: int = 0, num: int = 2, channels: int = 1, size: tuple[int, int] = (80, 80)):
    """Pixels, the mask of what is above 0, weights."""
    rng = np.random.default_rng(seed)
    pixels = torch.from_numpy(np.stack([[smooth_noise(rng, size) for _ in range(channels)] for _ in range(num)]))
    return pixels, (pixels[:, :1] > 0).to(torch.uint8), pixels[:, :1].abs() + 1


def test_default_options_leave_everything_untouched():
    pixels, targets, weights = batch()
    out = augment(pixels, targets, weights, np.random.default_rng(1), AugmentOptions())
    for before, after in zip((pixels, targets, weights), out, strict=True):
        assert after is not None
        assert torch.equal(before, after)
        assert before.dtype == after.dtype
        assert before.data_ptr() != after.data_ptr()


def test_margin_is_cut_off_about_the_centre():
    pixels, targets, weights = batch(size=(60, 70))
    new_pixels, new_targets, new_weights = augment(
        pixels, targets, weights, np.random.default_rng(1), AugmentOptions(), (40, 50), (20, 30)
    )
    assert torch.equal(new_pixels, pixels[..., 10:50, 10:60])
    assert torch.equal(new_targets, targets[..., 20:40, 20:50])
    assert new_weights is not None
    assert torch.equal(new_weights, weights[..., 20:40, 20:50])


@pytest.mark.parametrize("options", [EVERYTHING, *GEOMETRY.values()])
def test_inputs_are_never_written_to(options):
    pixels, targets, weights = batch()
    copies = pixels.clone(), targets.clone(), weights.clone()
    augment(pixels, targets, weights, np.random.default_rng(1), options)
    assert all(torch.equal(a, b) for a, b in zip((pixels, targets, weights), copies, strict=True))


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("seed", range(3))
def test_labels_follow_the_pixels(name, seed):
    options, tile, core = GEOMETRY[name], (64, 64), (40, 40)
    margin = margin_for(options, tile)
    size = (tile[0] + 2 * margin[0], tile[1] + 2 * margin[1])
    pixels, targets, _ = batch(seed, num=3, size=size)
    new_pixels, new_targets, _ = augment(pixels, targets, None, np.random.default_rng(seed), options, tile, core)
    expected = new_pixels[..., 12:-12, 12:-12] > 0
    assert (expected == new_targets.bool()).float().mean() > 0.97
    assert set(new_targets.unique().tolist()) <= {0, 1}


@pytest.mark.parametrize("name", GEOMETRY)
def test_targets_and_weights_follow_one_map_whatever_their_margin(name):
    options = GEOMETRY[name]
    pixels, targets, weights = batch(num=2, size=(96, 96))
    whole = augment(pixels, targets, weights, np.random.default_rng(5), options, (64, 64), (64, 64))
    inner = augment(pixels, targets, weights, np.random.default_rng(5), options, (64, 64), (32, 32))
    assert torch.equal(whole[0], inner[0])
    assert (whole[1][..., 16:-16, 16:-16] != inner[1]).float().mean() < 1e-3  # a tie may round the other way
    assert whole[2] is not None
    assert inner[2] is not None
    assert torch.allclose(whole[2][..., 16:-16, 16:-16], inner[2], atol=1e-3)


@lenient
@given(st.booleans(), st.booleans(), st.integers(0, 3), st.integers(1, 6), st.integers(1, 6), st.integers(0, 3))
def test_exact_geometry_equals_the_sampled_one(flip_y, flip_x, num_quarters, height, width, margin):
    warp = Warp(flip_y, flip_x, num_quarters)
    size = max(height, width) + 2 * margin
    source = (size + (size - height) % 2, size + (size - width) % 2)
    image = torch.arange(2 * source[0] * source[1], dtype=torch.float32).view(2, *source)
    exact = apply_warp(image, warp, (height, width), (height, width), "nearest")
    grid = sampling_grid(warp, (height, width), (height, width), source, image.device)
    sampled = torch.nn.functional.grid_sample(image[None], grid, padding_mode="reflection", align_corners=True)[0]
    if num_quarters % 2 == 0 or (source[0] - width) % 2 == (source[1] - height) % 2 == 0:
        assert torch.allclose(exact, sampled, atol=2e-3)
    assert exact.shape == (2, height, width)


def test_quarter_turns_and_flips_reach_all_eight_symmetries():
    image = torch.arange(9.0).view(1, 1, 3, 3)
    options = AugmentOptions(flip=True, rotate="quarter")
    seen = {
        tuple(augment(image, image, None, np.random.default_rng(s), options)[0].flatten().tolist()) for s in range(80)
    }
    square = image[0, 0].numpy()
    wanted = {tuple(np.rot90(s, k).ravel()) for s in (square, square[::-1]) for k in range(4)}
    assert seen == wanted


def test_scale_magnifies_about_the_centre():
    y, x = np.mgrid[-40:41, -40:41]
    disc = torch.from_numpy((np.hypot(y, x) < 12).astype(np.float32))[None, None]
    for factor in (0.7, 1.5):
        options = AugmentOptions(scale=(factor, factor))
        _, target, _ = augment(disc, disc.bool(), None, np.random.default_rng(0), options)
        assert float(target.sum()) == pytest.approx(np.pi * (12 * factor) ** 2, rel=0.05)


def test_stretch_makes_narrower_one_way_what_it_makes_wider_the_other():
    y, x = np.mgrid[-60:61, -60:61]
    disc = torch.from_numpy((np.hypot(y, x) < 12).astype(np.float32))[None, None]
    extents = []
    for seed in range(30):
        _, target, _ = augment(disc, disc.bool(), None, np.random.default_rng(seed), AugmentOptions(stretch=1.6))
        assert float(target.sum()) == pytest.approx(np.pi * 12**2, rel=0.08)
        extents.append([int(target[0, 0].any(axis).sum()) for axis in (1, 0)])
    ratios = np.array([high / wide for high, wide in extents])
    assert 0.35 < ratios.min() < 0.5
    assert 2 < ratios.max() < 2.8
    turned = AugmentOptions(stretch=1.6, rotate="any")
    _, target, _ = augment(disc, disc.bool(), None, np.random.default_rng(5), turned)
    assert float(target.sum()) == pytest.approx(np.pi * 12**2, rel=0.08)


def test_past_the_edge_the_image_is_mirrored_as_numpy_reflect():
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 9, 7)).astype(np.float32))
    padded = np.pad(image[0].numpy(), ((8, 8), (6, 6)), mode="reflect")
    shift = Warp(displacement=(((6.0, 6.0), (6.0, 6.0)), ((-5.0, -5.0), (-5.0, -5.0))))
    moved = apply_warp(image, shift, (9, 7), (9, 7), "bilinear")[0].numpy()
    assert np.allclose(moved, padded[8 + 6 : 8 + 6 + 9, 6 - 5 : 6 - 5 + 7], atol=1e-4)


@lenient
@given(st.integers(2, 40), st.integers(2, 6), st.integers(0, 10))
def test_cubic_interpolation_keeps_constants_lines_and_points(num_span, num_points, rim):
    matrix = cubic_matrix(num_span + 2 * rim, num_span, num_points).double().numpy()
    assert np.allclose(matrix.sum(1), 1, atol=1e-5)
    inner = matrix[rim : rim + num_span]
    assert np.allclose(inner[0], np.eye(num_points)[0], atol=1e-5)
    assert np.allclose(inner[-1], np.eye(num_points)[-1], atol=1e-5)
    if num_points >= 4:
        position = np.linspace(0, num_points - 1, num_span)
        away = (position >= 1) & (position <= num_points - 2)
        assert np.allclose((inner @ np.arange(num_points))[away], position[away], atol=1e-4)


def test_displacements_have_the_papers_deviation():
    rng = np.random.default_rng(0)
    drawn = [
        random_warp(
            rng,
            flip=False,
            rotate="none",
            scale=(1, 1),
            elastic_sigma_px=10,
            elastic_grid=3,
            elastic_prob=0.8,
        ).displacement
        for _ in range(800)
    ]
    deformed = np.array([d for d in drawn if d is not None])
    assert len(deformed) / len(drawn) == pytest.approx(0.8, abs=0.05)
    assert deformed.shape[1:] == (2, 3, 3)
    assert deformed.std() == pytest.approx(10, rel=0.03)
    assert abs(deformed.mean()) < 0.3


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(["none", "quarter", "any"]),
    st.integers(5, 90),
    st.integers(5, 90),
    st.sampled_from([1.0, 1.7]),
)
def test_the_margin_holds_what_the_geometry_looks_at(seed, rotate, height, width, stretch):
    options = AugmentOptions(flip=True, rotate=rotate, scale=(0.7, 1.4), stretch=stretch)
    tile = (height, width)
    margin = margin_for(options, tile)
    source = (height + 2 * margin[0], width + 2 * margin[1])
    warp = random_warp(
        np.random.default_rng(seed),
        flip=True,
        rotate=rotate,
        scale=options.scale,
        stretch=options.stretch,
        elastic_sigma_px=0,
        elastic_grid=3,
        elastic_prob=0,
    )
    grid = sampling_grid(warp, tile, tile, source, torch.device("cpu"))
    assert float(grid.abs().max()) <= 1 + 1e-5


def test_seeds_decide_and_samples_do_not_depend_on_the_batch():
    pixels, targets, weights = batch(num=4)
    first = augment(pixels, targets, weights, sample_rngs((7, 0, 3), 4), EVERYTHING)
    again = augment(pixels, targets, weights, sample_rngs((7, 0, 3), 4), EVERYTHING)
    half = augment(pixels[2:], targets[2:], weights[2:], sample_rngs((7, 0, 3), 2, first=2), EVERYTHING)
    other = augment(pixels, targets, weights, sample_rngs((7, 0, 4), 4), EVERYTHING)
    for a, b, c, d in zip(first, again, half, other, strict=True):
        assert a is not None
        assert b is not None
        assert c is not None
        assert d is not None
        assert torch.equal(a, b)
        assert torch.equal(a[2:], c)
        assert not torch.equal(a, d)


def test_torch_and_numpy_generators_serve_alike():
    pixels, targets, _ = batch()
    runs = [augment(pixels, targets, None, torch.Generator().manual_seed(3), EVERYTHING)[0] for _ in range(2)]
    assert torch.equal(*runs)
    runs = [augment(pixels, targets, None, np.random.default_rng(3), EVERYTHING)[0] for _ in range(2)]
    assert torch.equal(*runs)
    with pytest.raises(ValueError, match="1 generators for 2 samples"):
        augment(pixels, targets, None, sample_rngs((0,), 1), EVERYTHING)


def test_integer_targets_keep_their_values_and_type():
    targets = torch.randint(0, 100_000, (1, 2, 64, 64), dtype=torch.int64)
    _, warped, _ = augment(targets[:, :1].float(), targets, None, np.random.default_rng(0), EVERYTHING)
    assert warped.dtype == torch.int64
    for channel in range(2):
        assert set(warped[0, channel].unique().tolist()) <= set(targets[0, channel].unique().tolist())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rotate": "half"}, "augment.rotate"),
        ({"interpolation": "nearest"}, "augment.interpolation"),
        ({"scale": (1.4, 0.7)}, "augment.scale"),
        ({"gamma": (0.0, 1.0)}, "augment.gamma"),
        ({"elastic_prob": 1.5}, "augment.elastic_prob"),
        ({"noise_sigma": -1.0}, "augment.noise_sigma"),
        ({"contrast": float("nan")}, "augment.contrast"),
        ({"elastic_grid": 1}, "augment.elastic_grid"),
        ({"stretch": 0.9}, "augment.stretch"),
        ({"coarse": float("nan")}, "augment.coarse"),
    ],
)
def test_options_out_of_range_are_refused_by_name(wrong, message):
    with pytest.raises(UsageError, match=message):
        AugmentOptions(**wrong)


def test_sizes_without_a_common_centre_are_refused():
    pixels, targets, _ = batch(size=(40, 40))
    with pytest.raises(ValueError, match="about the centre"):
        augment(pixels, targets, None, np.random.default_rng(0), AugmentOptions(), (37, 40))
    with pytest.raises(ValueError, match="no common centre"):
        augment(pixels, targets[..., 1:], None, np.random.default_rng(0), AugmentOptions())


def test_options_print_what_differs_from_the_defaults():
    assert str(AugmentOptions()) == "augment: nothing"
    assert str(AugmentOptions(flip=True, noise_sigma=0.2)) == "augment: flip=True noise_sigma=0.2"


def test_the_recipes_section_names_the_same_options():
    from unetctl.recipe.schema import Augment  # the one home of the defaults

    assert AugmentOptions(**Augment().model_dump()) == AugmentOptions()


def test_some_samples_lose_their_neighbouring_planes():
    pixels = torch.arange(40 * 6, dtype=torch.float32).reshape(40, 6, 1, 1).repeat(1, 1, 3, 2)  # 3 planes of 2 channels
    before = pixels.clone()
    rngs = [np.random.default_rng(i) for i in range(40)]
    lone = without_neighbours(pixels, rngs, 3, 0.4)
    is_lone = (lone != before).flatten(1).any(1)
    assert 8 <= int(is_lone.sum()) <= 24
    assert torch.equal(lone[~is_lone], before[~is_lone])
    assert torch.equal(lone[is_lone], before[is_lone][:, 2:4].repeat(1, 3, 1, 1))
    drawn = [rng.random() for rng in rngs]
    for context, share in ((1, 0.4), (3, 0.0)):  # nothing to do draws nothing: older courses repeat exactly
        rngs = [np.random.default_rng(i) for i in range(40)]
        assert torch.equal(without_neighbours(before.clone(), rngs, context, share), before)
        assert [rng.random() for rng in rngs] != drawn
