"""Objects as training sees them: classes and weights from ids."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from unetctl.errors import InputError
from unetctl.objects.rule import LabelRule, label_array
from unetctl.training.object_targets import BACKGROUND, BORDER, INTERIOR, interior_and_border, object_target
from unetctl.training.warp import Warp, apply_warp
from unetctl.training.weightmap import border_weights


def blobs(seed: int, size: int = 48, num: int = 9) -> np.ndarray:
    """Cells of a Voronoi diagram of discs: many touch."""
    chance = np.random.default_rng(seed)
    centres = chance.uniform(0, size, (num, 2))
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(y[..., None] - centres[:, 0], x[..., None] - centres[:, 1])
    ids = distance.argmin(-1) + 1
    ids[distance.min(-1) > size / 6] = 0
    return np.asarray(ids, np.int32)


def not_ignored(ids: np.ndarray) -> np.ndarray:
    return np.zeros(ids.shape, bool)


@given(st.integers(0, 10_000), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_classes_follow_the_distance_to_other_objects(seed: int, border_px: int) -> None:
    ids = blobs(seed)
    classes = interior_and_border(ids, border_px)
    assert ((classes == BACKGROUND) == (ids == 0)).all()
    for number in np.unique(ids[ids > 0]):
        own = ids == number
        others = (ids != 0) & ~own
        assert (classes[own] == INTERIOR).any()
        if others.any():
            near = ndimage.distance_transform_edt(~others) <= border_px
            if (own & ~near).any():
                assert ((classes == BORDER) & own == near & own).all()
        else:
            assert (classes[own] == INTERIOR).all()


@given(st.integers(0, 10_000), st.sampled_from([0.2, 0.3, 0.5, 0.9]))
@settings(max_examples=25, deadline=None)
def test_a_rim_is_a_share_of_each_objects_depth(seed: int, rim: float) -> None:
    ids = blobs(seed)
    plain, classes = interior_and_border(ids, 1), interior_and_border(ids, 1, rim)
    assert ((classes == BACKGROUND) == (ids == 0)).all()
    for number in np.unique(ids[ids > 0]):
        own = ids == number
        assert (classes[own] == INTERIOR).any()
        beyond = np.pad(own, 60, mode="edge")  # the plane's edge is no edge of an object
        if beyond.all() or not (own & (plain == INTERIOR)).any():
            continue
        depth = ndimage.distance_transform_edt(beyond)[60:-60, 60:-60] * own
        wanted = (plain == INTERIOR) & own & (depth > rim * depth.max())
        if wanted.any() and not own[[0, -1]].any() and not own[:, [0, -1]].any():
            assert ((classes == INTERIOR) & own == wanted).all()


def test_blurred_answers_are_told_apart_by_their_middles() -> None:
    y, x = np.mgrid[:60, :80]
    ids = np.zeros((60, 80), np.int32)
    for number, centre in enumerate((22, 39, 56), 1):  # discs that touch
        ids[np.hypot(y - 30, x - centre) <= 9] = number
    rule = LabelRule(128, 128, 16, 4, 16, 0, False)
    found = []
    for rim in (0.0, 0.3):
        classes = interior_and_border(ids, 1, rim)
        answer = np.stack([classes == k for k in range(3)]).astype(np.float32)
        blurred = ndimage.gaussian_filter(answer, (0, 2.5, 2.5))
        found.append(len(np.unique(label_array(np.rint(blurred * 255).astype(np.uint8), rule))) - 1)
    assert found == [1, 3]


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_connected_interiors_belong_to_one_object(seed: int) -> None:
    ids = blobs(seed)
    pieces, num = ndimage.label(interior_and_border(ids, 1) == INTERIOR)
    assert all(len(np.unique(ids[pieces == i])) == 1 for i in range(1, num + 1))


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("angle", [0.0, 0.4, 1.1])
def test_touching_objects_stay_apart_when_warped(scale: float, angle: float) -> None:
    import torch

    ids = np.zeros((240, 240), np.int32)  # nothing is mirrored into the 96 x 96 about its centre
    ids[92:148, 92:120], ids[92:148, 120:148] = 1, 2
    classes = torch.from_numpy(interior_and_border(ids, 2))[None]
    warp = Warp(angle_rad=angle, scale=scale)
    warped = apply_warp(classes, warp, (96, 96), (96, 96), "nearest")[0].numpy()
    assert ndimage.label(warped == INTERIOR)[1] == 2


def test_tiny_objects_keep_an_interior() -> None:
    ids = np.array([[1, 1, 2, 3, 3, 3]], np.int32)
    assert (interior_and_border(ids, 2) == INTERIOR).any()
    assert {int(i) for i in ids[interior_and_border(ids, 2) == INTERIOR]} == {1, 2, 3}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "uint32", "int64"])
def test_ids_of_any_type(dtype: str) -> None:
    values = np.array([[0, 5, 5], [9, 9, 0]]).astype(dtype)
    if np.iinfo(dtype).max > 70_000:
        values[values == 9] = 70_001
    found = object_target(values, not_ignored(values), "x.tif", 1)
    assert found.ids.tolist() == [[0, 1, 1], [2, 2, 0]]
    assert not found.note


def test_a_mask_becomes_its_pieces_and_says_so() -> None:
    values = np.array([[255, 255, 0, 255]])
    found = object_target(values, not_ignored(values), "m.png")
    assert found.ids.max() == 2
    assert "each connected piece" in found.note


def test_ignored_pixels_are_no_objects() -> None:
    values = np.array([[1, 1, 99, 2, 2]])
    found = object_target(values, values == 99, "x.tif", 1)
    assert found.ids.tolist() == [[1, 1, 0, 2, 2]]


def test_negative_numbers_are_refused() -> None:
    values = np.array([[-1, 3]])
    with pytest.raises(InputError, match=r"labels.ignore=-1"):
        object_target(values, not_ignored(values), "x.tif")


def test_without_background_or_objects() -> None:
    full, empty = np.full((4, 4), 7), np.zeros((4, 4), np.uint16)
    assert (object_target(full, not_ignored(full), "x").classes == INTERIOR).all()
    assert (object_target(empty, not_ignored(empty), "x").classes == BACKGROUND).all()


def test_weights_measure_to_objects_not_to_pieces() -> None:
    """Equation 2 of the paper from ids: d1 and d2 to the nearest and second nearest object, however they touch."""
    ids = np.zeros((9, 40), np.int32)
    ids[:, 5:15], ids[:, 15:25], ids[:, 30:38] = 1, 2, 3
    weights = border_weights(ids, w0=10.0, sigma_px=3.0, inside=True)
    assert weights[4, 14] == pytest.approx(1 + 10 * np.exp(-1 / 18), rel=1e-5)  # own object 0, the other 1 pixel away
    assert weights[4, 10] == pytest.approx(1 + 10 * np.exp(-25 / 18), rel=1e-5)
    assert weights[4, 27] == pytest.approx(1 + 10 * np.exp(-36 / 18), rel=1e-5)  # in the gap: 3 from each
    assert weights[4, 0] < 1.001  # one object near, the second far
