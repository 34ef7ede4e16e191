"""Warping error: topology kept, displaced borders free, real mistakes counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from unetctl.errors import InputError
from unetctl.metrics.overlap import misclassified
from unetctl.metrics.warping import simple_codes, warp_labels, warping_error

few = settings(max_examples=50, deadline=None)
SQUARE = np.ones((3, 3), np.bool_)
CROSS = ndimage.generate_binary_structure(2, 1)
connectivities = st.sampled_from([4, 8])


@st.composite
def masks(draw, num=2):
    shape = draw(st.tuples(st.integers(1, 10), st.integers(1, 10)))
    return [draw(arrays(np.bool_, shape)) for _ in range(num)]


def topology(mask: np.ndarray, connectivity: int) -> tuple[int, int]:
    """Numbers of components of the foreground and of the background around and in it."""
    padded = np.pad(mask, 1)
    inner, outer = (CROSS, SQUARE) if connectivity == 4 else (SQUARE, CROSS)
    return ndimage.label(padded, structure=inner)[1], ndimage.label(~padded, structure=outer)[1]


def cells_with_border(first: int, last: int) -> np.ndarray:
    """Two cells in a slice of 12 x 20, with a border in columns first..last between them."""
    mask = np.ones((12, 20), np.bool_)
    mask[:, first : last + 1] = False
    return mask


class TestHandMade:
    def test_perfect(self):
        labels = cells_with_border(8, 9)
        assert warping_error(labels, labels) == 0

    @pytest.mark.parametrize("shift", [-2, -1, 1, 2])
    def test_shifted_border_is_free(self, shift):
        labels, prediction = cells_with_border(8, 10), cells_with_border(8 + shift, 10 + shift)
        assert misclassified(prediction, labels) > 0
        assert warping_error(prediction, labels) == 0

    def test_thicker_and_thinner_borders_are_free(self):
        thick, thin = cells_with_border(6, 12), cells_with_border(9, 9)
        assert warping_error(thick, thin) == warping_error(thin, thick) == 0

    def test_bent_border_is_free(self):
        labels = cells_with_border(8, 11)
        prediction = labels.copy()
        for row in range(12):
            prediction[row] = np.roll(prediction[row], round(3 * np.sin(row)))
        assert warping_error(prediction, labels) == 0

    def test_merged_cells_cost_the_thinnest_border(self):
        labels = cells_with_border(8, 10)
        assert warping_error(np.ones_like(labels), labels) == 12 / labels.size

    def test_merged_through_a_gap(self):
        labels = cells_with_border(8, 8)
        prediction = labels.copy()
        prediction[5, 8] = True
        assert warping_error(prediction, labels) == 1 / labels.size

    def test_split_cell_costs_the_last_pixel_of_the_cut(self):
        labels = np.ones((12, 20), np.bool_)
        assert warping_error(cells_with_border(8, 8), labels) == 1 / labels.size

    @pytest.mark.parametrize("labels_are_interior", [False, True])
    def test_object_or_hole_too_many(self, labels_are_interior):
        labels = np.full((12, 20), labels_are_interior)
        prediction = labels.copy()
        prediction[4:7, 5:8] ^= True
        assert warping_error(prediction, labels) == 9 / labels.size
        assert warping_error(labels, prediction) == 1 / labels.size  # it can be shrunk, but not removed

    def test_diagonal_touch_keeps_4_connected_cells_apart(self):
        labels = np.zeros((6, 6), np.bool_)
        labels[:3, :3] = labels[4:, 4:] = True
        prediction = labels.copy()
        prediction[3, 3] = True  # touches both, by corners only
        assert warping_error(prediction, labels, connectivity=4) == 1 / 36  # a third object
        assert warping_error(prediction, labels, connectivity=8) == 1 / 36  # a merger

    def test_mask_bounds_where_labels_move_and_errors_count(self):
        labels = cells_with_border(8, 10)
        prediction = np.ones_like(labels)
        mask = np.zeros_like(labels)
        mask[:3] = True
        assert warping_error(prediction, labels, mask=mask) == 3 / labels.size
        assert warping_error(prediction, labels, mask=np.zeros_like(labels)) == 0

    def test_surest_pixels_move_first(self):
        labels = cells_with_border(8, 9)
        for sure in (8, 9):
            confidence = np.full(labels.shape, 0.1)
            confidence[:, sure] = 0.4
            warped = warp_labels(np.ones_like(labels), labels, confidence=confidence)
            assert warped[:, sure].all()
            assert not warped[:, 17 - sure].any()

    def test_empty_slice(self):
        empty = np.zeros((0, 5), np.bool_)
        assert warping_error(empty, empty) == 0


class TestSimplePoints:
    @pytest.mark.parametrize("connectivity", [4, 8])
    def test_table_agrees_with_counting_components(self, connectivity):
        simple = simple_codes(connectivity)
        assert simple.shape == (256,)
        assert simple.sum() == 116  # Bertrand 1994
        for code in range(256):
            bits = [(code >> i) & 1 for i in range(8)]
            without = np.array([*bits[:4], 0, *bits[4:]], np.bool_).reshape(3, 3)
            including = without.copy()
            including[1, 1] = True
            # Within a frame of background, losing a hole and gaining an object cannot cancel out.
            same = topology(without, connectivity) == topology(including, connectivity)
            assert simple[code] == same, f"code {code}"


class TestProperties:
    @few
    @given(masks(num=3), connectivities)
    def test_warping_keeps_topology_and_agreement(self, triple, connectivity):
        prediction, labels, mask = triple
        warped = warp_labels(prediction, labels, mask=mask, connectivity=connectivity)
        assert warped.shape == labels.shape
        assert warped.dtype == np.bool_
        assert topology(warped, connectivity) == topology(labels, connectivity)
        fixed = (prediction == labels) | ~mask
        np.testing.assert_array_equal(warped[fixed], labels[fixed])

    @few
    @given(masks(), st.data(), connectivities)
    def test_no_simple_point_is_left_to_flip(self, pair, data, connectivity):
        prediction, labels = pair
        confidence = data.draw(arrays(np.float64, labels.shape, elements=st.floats(0, 1)))
        warped = warp_labels(prediction, labels, confidence=confidence, connectivity=connectivity)
        simple = simple_codes(connectivity)
        padded = np.pad(warped, 1).astype(int)
        for y, x in np.argwhere(warped != prediction):
            ring = np.delete(padded[y : y + 3, x : x + 3].ravel(), 4)
            assert not simple[int(ring @ (1 << np.arange(8)))]

    @few
    @given(masks(), connectivities)
    def test_never_worse_than_counting_pixels(self, pair, connectivity):
        prediction, labels = pair
        error = warping_error(prediction, labels, connectivity=connectivity)
        assert 0 <= error <= misclassified(prediction, labels)
        if topology(prediction, connectivity) != topology(labels, connectivity):
            assert error > 0

    @few
    @given(masks(), connectivities)
    def test_inputs_are_left_alone(self, pair, connectivity):
        before = [a.copy() for a in pair]
        warp_labels(*pair, connectivity=connectivity)
        for a, b in zip(pair, before, strict=True):
            np.testing.assert_array_equal(a, b)


class TestRefusals:
    mask = np.ones((3, 4), np.bool_)

    def test_shapes_and_types(self):
        with pytest.raises(InputError, match="expected booleans"):
            warping_error(self.mask.astype(float), self.mask)
        with pytest.raises(InputError, match="expected booleans"):
            warping_error(self.mask, self.mask.astype(int))
        with pytest.raises(InputError, match=r"shape \(4, 3\)"):
            warping_error(self.mask.T, self.mask)
        with pytest.raises(InputError, match="the mask has shape"):
            warping_error(self.mask, self.mask, mask=self.mask.T)
        with pytest.raises(InputError, match="the confidence has shape"):
            warping_error(self.mask, self.mask, confidence=np.zeros((4, 3)))
        with pytest.raises(InputError, match=r"axes \(y, x\)"):
            warping_error(self.mask[None], self.mask[None])
