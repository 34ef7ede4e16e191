"""The border weight map against the formula, and the losses against their definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn import functional as F  # noqa: N812

from unetctl.training.losses import LossKind, SegmentationLoss, soft_dice, weighted_bce, weighted_cross_entropy
from unetctl.training.weightmap import border_weights, class_balance, label_cells, part_touching, two_nearest

lenient = settings(deadline=None, max_examples=40)
SMALL_LABELS = hnp.arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4))


def brute_weights(labels, w0, sigma_px, class_weights, inside):
    """Equation 2, pixel by pixel over all cells."""
    weights = np.zeros(labels.shape)
    places = {i: np.argwhere(labels == i) for i in np.unique(labels) if i}
    for y, x in np.ndindex(labels.shape):
        weights[y, x] = class_weights[int(labels[y, x] != 0)]
        distances = sorted(float(np.hypot(p[:, 0] - y, p[:, 1] - x).min()) for p in places.values())
        if len(distances) > 1 and (inside or labels[y, x] == 0):
            weights[y, x] += w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma_px**2))
    return weights


@lenient
@given(SMALL_LABELS, st.floats(0.5, 6), st.booleans())
def test_weight_map_is_the_formula(labels, sigma_px, inside):
    expected = brute_weights(labels, 10.0, sigma_px, (1.5, 0.5), inside)
    weights = border_weights(labels, w0=10, sigma_px=sigma_px, class_weights=(1.5, 0.5), inside=inside)
    assert weights.dtype == np.float32
    assert np.allclose(weights, expected, atol=3e-5)


def test_weight_map_over_more_than_its_reach():
    labels = np.zeros((60, 90), np.int32)
    labels[5:20, 5:40], labels[22:30, 8:60], labels[50:58, 70:88], labels[2:4, 80:82] = 7, 900_000, 3, 3
    for inside in (False, True):
        expected = brute_weights(labels, 10.0, 5.0, (1, 1), inside)
        assert np.allclose(border_weights(labels, inside=inside), expected, atol=3e-5)


def test_thin_borders_weigh_most_and_nothing_is_added_without_a_second_cell():
    labels = np.zeros((40, 60), np.int32)
    labels[:, :20], labels[:20, 22:], labels[20:, 28:] = 1, 2, 3
    weights = border_weights(labels)
    assert weights[5, 20] > weights[35, 23] > 1
    alone = np.where(labels == 1, 1, 0)
    assert np.array_equal(border_weights(alone), np.ones_like(weights))
    assert np.array_equal(border_weights(np.zeros_like(labels)), np.ones_like(weights))


def test_ignored_pixels_weigh_nothing_and_other_shapes_are_refused():
    labels = np.array([[1, 1, 0, 2, 2]])
    assert border_weights(labels, ignore=labels == 2).tolist()[0][3:] == [0.0, 0.0]
    with pytest.raises(ValueError, match="one plane"):
        border_weights(np.zeros((2, 3, 4), int))
    with pytest.raises(ValueError, match="sigma_px"):
        border_weights(labels, sigma_px=0)


@lenient
@given(SMALL_LABELS)
def test_second_nearest_is_never_nearer(labels):
    first, second = two_nearest(labels, 100.0)
    assert (first <= second).all()
    assert ((first == 0) == (labels != 0)).all()


def test_cells_are_parted_by_a_diagonal_membrane():
    mask = ~np.eye(6, dtype=bool)
    assert label_cells(mask).max() == 2


@lenient
@given(SMALL_LABELS)
def test_no_two_cells_touch_after_parting(labels):
    parted = part_touching(labels)
    for a, b in ((parted[1:], parted[:-1]), (parted[:, 1:], parted[:, :-1])):
        assert ((a == b) | (a == 0) | (b == 0)).all()
    assert ((parted == labels) | (parted == 0)).all()


@lenient
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=5).filter(any))
def test_class_balance_has_mean_one_and_equal_shares(counts):
    weights = np.array(class_balance(counts))
    assert (weights * counts).sum() / sum(counts) == pytest.approx(1)
    shares = (weights * counts)[np.array(counts) > 0]
    assert np.allclose(shares, shares[0])


def batch(seed=0, num_classes=3):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, num_classes, 5, 6, generator=generator)
    target = torch.randint(0, num_classes, (2, 1, 5, 6), generator=generator)
    weights = torch.rand(2, 1, 5, 6, generator=generator) * 5
    return logits, target, weights


def test_cross_entropy_is_the_weighted_mean_of_the_pixels():
    logits, target, weights = batch()
    plain = -logits.log_softmax(1).gather(1, target)
    assert weighted_cross_entropy(logits, target).item() == pytest.approx(plain.mean().item(), rel=1e-5)
    expected = ((plain * weights).sum() / weights.sum()).item()
    for form in (
        (target, weights),
        (target[:, 0], weights[:, 0]),
        (target[:, 0], weights),
        (target.to(torch.uint8), weights),
    ):
        assert weighted_cross_entropy(logits, *form).item() == pytest.approx(expected, rel=1e-5)
    assert weighted_cross_entropy(logits, target, 7 * weights).item() == pytest.approx(expected, rel=1e-5)


def test_bce_is_the_weighted_mean_and_pos_weight_counts_for_positives():
    logits, target, weights = batch(num_classes=2)
    logits = logits[:, :1]
    probability = logits.sigmoid()
    plain = -(3 * target * probability.log() + (1 - target) * (1 - probability).log())
    expected = ((plain * weights).sum() / weights.sum()).item()
    assert weighted_bce(logits, target, weights, pos_weight=3).item() == pytest.approx(expected, rel=1e-4)
    assert weighted_bce(logits, target.bool()).item() == pytest.approx(
        F.binary_cross_entropy_with_logits(logits, target.float()).item(), rel=1e-5
    )


@pytest.mark.parametrize("kind", ["cross_entropy", "bce"])
@pytest.mark.parametrize("dice", [0.0, 0.7])
def test_pixels_without_weight_have_no_say(kind, dice):
    logits, target, weights = batch(num_classes=2)
    if kind == "bce":
        logits = logits[:, :1]
    unknown = weights < 2
    weights = weights.masked_fill(unknown, 0)
    loss = SegmentationLoss(kind, dice=dice)
    by_ignore = SegmentationLoss(kind, dice=dice, ignore=255)
    marked = target.masked_fill(unknown, 255)
    expected = loss(logits, target, weights)
    assert torch.isclose(by_ignore(logits, marked, weights), expected)
    wild = logits.masked_fill(unknown, 1e4).requires_grad_()
    result = loss(wild, target, weights)
    result.backward()
    assert torch.isclose(result, expected)
    assert wild.grad is not None
    assert float(wild.grad.abs().sum()) > 0
    assert float(wild.grad.masked_select(unknown.expand_as(wild)).abs().max()) == 0
    assert torch.isfinite(wild.grad).all()


@pytest.mark.parametrize("kind", ["cross_entropy", "bce"])
def test_nothing_but_ignored_pixels_costs_nothing(kind):
    logits = torch.randn(1, 2 if kind == "cross_entropy" else 1, 4, 4, requires_grad=True)
    target = torch.full((1, 1, 4, 4), 255)
    loss = SegmentationLoss(kind, ignore=255)(logits, target)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) == 0


@pytest.mark.parametrize("kind", ["cross_entropy", "bce"])
def test_losses_are_float32_under_autocast(kind):
    logits, target, weights = batch(num_classes=2)
    logits = logits.bfloat16().float() if kind == "cross_entropy" else logits[:, :1].bfloat16().float()
    loss = SegmentationLoss(kind, dice=0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(logits.bfloat16(), target, weights)
    assert inside.dtype == torch.float32
    assert inside.item() == pytest.approx(loss(logits, target, weights).item(), rel=1e-6)


def test_dice_of_perfect_empty_and_wrong_answers():
    mask = torch.zeros(2, 1, 20, 20)
    mask[..., 5:15, 5:15] = 1
    assert soft_dice(mask, mask).item() == pytest.approx(0, abs=1e-6)
    assert soft_dice(1 - mask, mask).item() > 0.99
    assert soft_dice(torch.zeros_like(mask), torch.zeros_like(mask)).item() == pytest.approx(0, abs=1e-6)
    half = soft_dice(mask, mask * (torch.arange(20) < 10), weights=(torch.arange(20) < 10).float().expand(2, 1, 20, 20))
    assert half.item() == pytest.approx(0, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_three_dimensions_work_as_two(seed):
    logits, target, weights = batch(seed)
    kinds: tuple[tuple[LossKind, torch.Tensor], ...] = (("cross_entropy", logits), ("bce", logits[:, :1]))
    for kind, some in kinds:
        goal = target if kind == "cross_entropy" else (target > 0)
        flat = SegmentationLoss(kind, dice=0.3)(some, goal, weights)
        deep = SegmentationLoss(kind, dice=0.3)(some[:, :, None], goal[:, :, None], weights[:, :, None])
        assert torch.isclose(flat, deep)


def test_what_does_not_fit_is_refused():
    logits, target, _ = batch()
    with pytest.raises(ValueError, match="target of shape"):
        weighted_cross_entropy(logits, target[..., 1:])
    with pytest.raises(ValueError, match="target of shape"):
        weighted_bce(logits, target)
    with pytest.raises(ValueError, match="loss kind"):
        SegmentationLoss("focal")  # type: ignore[arg-type]
    assert "cross_entropy" in repr(SegmentationLoss("cross_entropy"))


@lenient
@given(st.floats(0, 5), st.integers(0, 99))
def test_focal_loss_is_its_formula(gamma, seed):
    rng = torch.Generator().manual_seed(seed)
    # compared in float64: of a pixel that is right already, 1 - p keeps few digits of float32
    logits = torch.randn(2, 3, 4, 5, generator=rng, dtype=torch.float64) * 3
    weights = torch.rand(2, 1, 4, 5, generator=rng, dtype=torch.float64)
    target = torch.randint(0, 3, (2, 1, 4, 5), generator=rng)
    right = logits.softmax(1).gather(1, target)
    expected = (-((1 - right).clamp_min(1e-6) ** gamma) * right.log() * weights).sum() / weights.sum()
    torch.testing.assert_close(
        weighted_cross_entropy(logits, target, weights, focal_gamma=gamma).double(), expected, rtol=1e-4, atol=1e-5
    )
    masks = (target > 0).double()
    probability = logits[:, :1].sigmoid()
    right = torch.where(masks > 0, probability, 1 - probability)
    expected = (-((1 - right).clamp_min(1e-6) ** gamma) * right.log() * weights).sum() / weights.sum()
    torch.testing.assert_close(
        weighted_bce(logits[:, :1], masks, weights, focal_gamma=gamma).double(), expected, rtol=1e-4, atol=1e-5
    )
    logits.requires_grad_()
    SegmentationLoss("cross_entropy", focal_gamma=gamma)(logits * 50, target, weights).backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())
