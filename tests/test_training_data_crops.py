"""Crops: true context, mirrored where there is none, decided by seed and index alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unetctl.training.augment import AugmentOptions, augment, margin_for
from unetctl.training.crops import Plane, PlaneSet, stack_neighbours

lenient = settings(deadline=None, max_examples=40)


def coordinate_plane(height: int, width: int, name: str = "plane", weights: bool = True) -> Plane:
    """Every pixel tells its place: channels hold y and x, target and weights y * 1000 + x."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    number = (y * 1000 + x)[None]
    return Plane(name, np.stack([y, x]), number.astype(np.int32), number if weights else None)


@lenient
@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(1, 20),
    st.integers(0, 9),
    st.integers(0, 9),
    st.floats(0, 0.5),
    st.integers(0, 99),
)
def test_crops_are_the_numpy_reflected_plane(height, width, core, halo, margin, overhang, seed):
    plane = coordinate_plane(height, width)
    planes = PlaneSet([plane], (core, core), (halo, 0), (margin, margin), overhang)
    crops = planes.sample((seed,), 2)
    rim = 80
    padded = {
        name: np.stack([np.pad(c, rim, mode="reflect") if min(c.shape) > 1 else reflect_thin(c, rim) for c in array])
        for name, array in (("pixels", plane.pixels), ("target", plane.target))
    }
    for (_, y, x), pixels, target in zip(crops.places, crops.pixels, crops.targets, strict=True):
        tile = np.s_[
            :,
            rim + y - halo - margin : rim + y + core + halo + margin,
            rim + x - margin : rim + x + core + margin,
        ]
        inner = np.s_[:, rim + y - margin : rim + y + core + margin, rim + x - margin : rim + x + core + margin]
        assert np.array_equal(pixels.numpy(), padded["pixels"][tile])
        assert np.array_equal(target.numpy(), padded["target"][inner])
    assert crops.weights is not None
    assert np.array_equal(crops.weights.numpy(), crops.targets.numpy())


def reflect_thin(channel: np.ndarray, rim: int) -> np.ndarray:
    """numpy refuses to reflect an axis of one pixel: it is repeated."""
    for axis, size in enumerate(channel.shape):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (rim, rim)
        channel = np.pad(channel, pad, mode="edge" if size == 1 else "reflect")
    return channel


@lenient
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 30), st.floats(0, 0.5), st.integers(0, 1000))
def test_cores_overhang_by_no_more_than_their_share(height, width, core, overhang, seed):
    planes = PlaneSet([coordinate_plane(height, width)], (core, core), overhang=overhang)
    _, *start = planes.place(np.random.default_rng(seed))
    for first, size in zip(start, (height, width), strict=True):
        over = int(overhang * core)
        if size >= core:
            assert -over <= first <= size - core + over
        else:
            assert first - over <= 0
            assert first + core + over >= size


def test_a_crop_depends_on_step_and_index_alone():
    planes = PlaneSet([coordinate_plane(50, 60), coordinate_plane(90, 40)], (16, 16), (4, 4), (3, 3))
    whole = planes.sample((1, 2, 3), 6)
    again = planes.sample((1, 2, 3), 6)
    late = planes.sample((1, 2, 3), 2, first=4)
    assert whole.places == again.places
    assert whole.places[4:] == late.places
    assert torch.equal(whole.pixels[4:], late.pixels)
    assert torch.equal(whole.targets[4:], late.targets)
    assert [r.random() for r in whole.rngs[4:]] == [r.random() for r in late.rngs]
    assert planes.sample((1, 2, 4), 6).places != whole.places


def test_planes_are_drawn_by_area_and_share():
    sizes = [(100, 100), (200, 150), (50, 40)]
    cells = [coordinate_plane(*size) for size in sizes]
    rng = np.random.default_rng(0)
    drawn = np.bincount([PlaneSet(cells, (8, 8)).place(rng)[0] for _ in range(1500)], minlength=3) / 1500
    assert np.allclose(drawn, np.array([10000, 30000, 2000]) / 42000, atol=0.04)
    only = PlaneSet(cells, (8, 8), shares=(0, 0, 1))
    assert {only.place(rng)[0] for _ in range(50)} == {2}


def test_rims_are_trained_too():
    seen = np.zeros(64)
    planes = PlaneSet([coordinate_plane(64, 64)], (32, 32), overhang=0.25)
    for step in range(300):
        seen[np.unique(planes.sample((step,), 1).pixels[0, 0].numpy().astype(int))] += 1
    assert seen.min() > 0.08 * seen.max()


def test_planes_without_weights_count_as_one_beside_others():
    mixed = PlaneSet([coordinate_plane(20, 20), coordinate_plane(20, 20, weights=False)], (8, 8))
    crops = mixed.sample((0,), 12)
    assert crops.weights is not None
    for (i_plane, _, _), weights in zip(crops.places, crops.weights, strict=True):
        assert bool((weights == 1).all()) == (i_plane == 1)
    assert PlaneSet([coordinate_plane(20, 20, weights=False)], (8, 8)).sample((0,), 1).weights is None


def test_crops_go_through_augmentation_to_tile_and_core():
    options = AugmentOptions(flip=True, rotate="any", elastic_prob=1.0, elastic_sigma_px=3.0)
    core, halo = (24, 32), (10, 6)
    margin = margin_for(options, (44, 44))
    planes = PlaneSet([coordinate_plane(200, 210)], core, halo, margin)
    assert planes.tile == (44, 44)
    crops = planes.sample((5,), 3)
    pixels, targets, weights = augment(
        crops.pixels, crops.targets, crops.weights, crops.rngs, options, planes.tile, planes.core
    )
    assert pixels.shape == (3, 2, 44, 44)
    assert targets.shape == (3, 1, 24, 32)
    assert weights is not None
    assert weights.shape == (3, 1, 24, 32)
    # away from mirrored borders the target still names the place that the pixels name
    named = torch.stack([targets[:, 0] // 1000, targets[:, 0] % 1000], 1)
    assert float((named - pixels[:, :, 10:-10, 6:-6]).abs().median()) <= 0.51


def test_counts_and_texts():
    planes = PlaneSet([coordinate_plane(100, 100), coordinate_plane(10, 10)], (50, 50), (3, 4))
    assert planes.num_crops_per_epoch == 5
    assert planes.num_bytes == (10000 + 100) * 16
    assert len(planes) == 2
    assert str(planes).startswith("2 planes, tiles of 56x58, 5 crops an epoch")
    assert str(planes.planes[1]) == "plane 10x10"


@lenient
@given(st.integers(1, 7), st.sampled_from([1, 3, 5]))
def test_neighbours_become_channels(num, context_slices):
    volume = [np.full((2, 3, 4), z, np.float32) for z in range(num)]
    stacked = stack_neighbours(volume, context_slices)
    reach = context_slices // 2
    order = reflect_thin(np.arange(num, dtype=np.float32)[:, None], reach)[:, 0] if reach else np.arange(num)
    assert len(stacked) == num
    for z, plane in enumerate(stacked):
        assert plane.shape == (2 * context_slices, 3, 4)
        assert plane[::2, 0, 0].tolist() == order[z : z + context_slices].tolist()


def test_what_does_not_fit_together_is_refused():
    good = coordinate_plane(8, 8)
    with pytest.raises(ValueError, match="without planes"):
        PlaneSet([], (4, 4))
    with pytest.raises(ValueError, match="overhang"):
        PlaneSet([good], (4, 4), overhang=0.7)
    with pytest.raises(ValueError, match="differ"):
        PlaneSet([good, Plane("other", good.pixels[:1], good.target)], (4, 4))
    with pytest.raises(ValueError, match="target of plane odd"):
        Plane("odd", good.pixels, good.target[:, :4])
