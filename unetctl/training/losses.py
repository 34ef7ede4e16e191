"""Losses with a weight for every pixel.

    weighted_cross_entropy(logits (N, K, ...), target (N, 1, ...), weights=None, ignore=None, focal_gamma=0.0) -> scalar
    weighted_bce(logits (N, C, ...), target (N, C, ...), weights=None, pos_weight=1.0, focal_gamma=0.0) -> scalar
    soft_dice(probability (N, C, ...), target (N, C, ...), weights=None) -> scalar
    SegmentationLoss(kind, dice=0.0, pos_weight=1.0, ignore=None)(logits, target, weights=None) -> scalar
    DegradationLoss(image_weight, ink_level, paper_level, dice).of_answers(answers, target, weights=None) -> scalar
    loss_of(recipe, planes) -> the one that it asks for; balance(planes) -> background pixels per foreground pixel

All are computed in float32, also under autocast, and work for 2-D and 3-D. A pixel of weight 0 has no say at
all. Sums are divided by the sum of the weights, so the learning rate does not depend on the weight map or on
the share of ignored pixels. Sums over the batch go over all processes that train together (`unetctl.training.team`).
"""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from unetctl.errors import UsageError
from unetctl.networks.network import Answer
from unetctl.recipe.schema import Recipe
from unetctl.training.crops import Plane
from unetctl.training.team import summed

LossKind = Literal["cross_entropy", "bce"]


@runtime_checkable
class AnswersLoss(Protocol):
    """A loss that looks at more of a network's answers than the last one's logits."""

    def of_answers(self, answers: Sequence[Answer], target: Tensor, weights: Tensor | None = None) -> Tensor:
        """Scalar float32."""


def _weighted_mean(loss: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return summed(loss.sum()) / summed(loss.new_tensor(float(loss.numel())))
    weights = weights.float().expand_as(loss)
    # where(): a pixel of weight 0 may hold any number, also an infinite one
    loss = torch.where(weights > 0, loss * weights, 0.0)
    return summed(loss.sum()) / summed(weights.sum()).clamp_min(torch.finfo(torch.float32).tiny)


def _focused(loss: Tensor, confidence: Tensor, gamma: float) -> Tensor:
    """Less of the loss where the network is right already (Lin et al. 2017, arXiv 1708.02002, equation 4).

    Args:
        loss: per pixel.
        confidence: probability of the right answer, of the same shape.
        gamma: 0 leaves the loss as it is.
    """
    # clamped: at 0 the slope of a power below 1 is infinite
    return loss * (1 - confidence).clamp_min(1e-6) ** gamma if gamma else loss


def _class_indices(logits: Tensor, target: Tensor) -> Tensor:
    if target.ndim == logits.ndim and target.shape[1] == 1:
        target = target[:, 0]
    expected = (logits.shape[0], *logits.shape[2:])
    if tuple(target.shape) != expected:
        raise ValueError(
            f"target of shape {tuple(target.shape)} for logits of {tuple(logits.shape)}: expected {expected}"
        )
    return target.long()


def _without(target: Tensor, weights: Tensor | None, ignore: int | None) -> tuple[Tensor, Tensor | None]:
    """Targets with the ignored ones replaced by 0, and weights that are 0 there; both (N, ...)."""
    if ignore is None:
        return target, weights
    ignored = target == ignore
    weights = torch.ones(target.shape, device=target.device) if weights is None else weights.float().expand_as(target)
    return target.masked_fill(ignored, 0), weights.masked_fill(ignored, 0.0)


def _plane_weights(weights: Tensor | None, target: Tensor) -> Tensor | None:
    """Weights (N, 1, ...) or (N, ...) as (N, ...)."""
    if weights is not None and weights.ndim == target.ndim + 1:
        return weights[:, 0]
    return weights


def weighted_cross_entropy(
    logits: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    ignore: int | None = None,
    focal_gamma: float = 0.0,
) -> Tensor:
    """Softmax cross-entropy, weighted per pixel (Ronneberger et al. 2015, section 3, equation 1).

    Args:
        logits: (N, K, ...) scores of K classes.
        target: (N, ...) or (N, 1, ...) class indices 0..K-1.
        weights: (N, ...) or (N, 1, ...), at least 0; None: all 1.
        ignore: a target value that has weight 0, e.g. 255.
        focal_gamma: power by which pixels that are right already count less, 0 for none.

    Returns:
        Scalar float32: sum(weight * loss) / sum(weight); 0 if every weight is 0.

    Raises:
        ValueError: if target and logits do not fit.
    """
    with torch.autocast(device_type=logits.device.type, enabled=False):
        target = _class_indices(logits, target)
        target, weights = _without(target, _plane_weights(weights, target), ignore)
        loss = F.cross_entropy(logits.float(), target, reduction="none")
        return _weighted_mean(_focused(loss, torch.exp(-loss), focal_gamma), weights)


def weighted_bce(
    logits: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    pos_weight: float = 1.0,
    focal_gamma: float = 0.0,
) -> Tensor:
    """Binary cross-entropy of a sigmoid, weighted per pixel.

    Args:
        logits: (N, C, ...) scores, one yes-or-no question a channel.
        target: (N, C, ...) masks or probabilities, 0..1.
        weights: (N, 1, ...) or (N, C, ...), at least 0; None: all 1.
        pos_weight: factor on the loss of positive pixels (it does not enter the divisor, as in torch).
        focal_gamma: power by which pixels that are right already count less, 0 for none.

    Returns:
        Scalar float32: sum(weight * loss) / sum(weight); 0 if every weight is 0.

    Raises:
        ValueError: if target and logits do not fit.
    """
    if target.shape != logits.shape:
        raise ValueError(
            f"target of shape {tuple(target.shape)} for logits of {tuple(logits.shape)}: expected the same"
        )
    with torch.autocast(device_type=logits.device.type, enabled=False):
        factor = None if pos_weight == 1.0 else torch.tensor(pos_weight, device=logits.device)
        loss = F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none", pos_weight=factor)
        if focal_gamma:
            probability, masks = logits.float().sigmoid(), target.float()
            loss = _focused(loss, probability * masks + (1 - probability) * (1 - masks), focal_gamma)
        return _weighted_mean(loss, weights)


def soft_dice(probability: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """1 - Dice coefficient on probabilities, per channel over the whole batch, then the mean over channels.

    Args:
        probability: (N, C, ...) 0..1.
        target: (N, C, ...) masks, 0..1.
        weights: (N, 1, ...) or (N, C, ...); their sign counts, not their size: 0 leaves a pixel out. None:
            all count.

    Returns:
        Scalar float32 in 0..1. A channel without any target that is predicted empty costs (nearly) nothing.
    """
    with torch.autocast(device_type=probability.device.type, enabled=False):
        probability, target = probability.float(), target.float()
        if weights is not None:
            counted = weights > 0
            probability = torch.where(counted, probability, 0.0)
            target = torch.where(counted, target, 0.0)
        axes = [axis for axis in range(probability.ndim) if axis != 1]
        both = summed((probability * target).sum(axes))
        either = summed(probability.sum(axes) + target.sum(axes))
        # one pixel's worth of smoothing: an empty channel has a gradient, a full one does not feel it
        return (1 - (2 * both + 1) / (either + 1)).mean()


class SegmentationLoss(nn.Module):
    """Cross-entropy or BCE, with an optional share of soft Dice.

    Args:
        kind: "cross_entropy" (softmax over K classes, targets are indices) or "bce" (sigmoid per channel,
            targets are masks).
        dice: factor of the soft Dice term that is added; 0 leaves it out.
        pos_weight: for "bce", see `weighted_bce`.
        ignore: a target value that has weight 0 (both kinds).
        focal_gamma: of the cross-entropy of either kind, see `weighted_bce`.
    """

    def __init__(
        self,
        kind: LossKind,
        dice: float = 0.0,
        pos_weight: float = 1.0,
        ignore: int | None = None,
        focal_gamma: float = 0.0,
    ) -> None:
        super().__init__()
        if kind not in ("cross_entropy", "bce"):
            raise ValueError(f'loss kind {kind!r}: expected "cross_entropy" or "bce"')
        self.kind, self.dice, self.pos_weight, self.ignore = kind, dice, pos_weight, ignore
        self.focal_gamma = focal_gamma

    def forward(self, logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        """Scalar float32; arguments as `weighted_cross_entropy` or `weighted_bce` take them."""
        if self.kind == "bce":
            target, weights = _without(target, weights, self.ignore)
            loss = weighted_bce(logits, target, weights, self.pos_weight, self.focal_gamma)
            return loss + self.dice * soft_dice(logits.float().sigmoid(), target, weights) if self.dice else loss
        loss = weighted_cross_entropy(logits, target, weights, self.ignore, self.focal_gamma)
        if not self.dice:
            return loss
        indices = _class_indices(logits, target)
        indices, weights = _without(indices, _plane_weights(weights, indices), self.ignore)
        one_hot = F.one_hot(indices, logits.shape[1]).movedim(-1, 1)
        return loss + self.dice * soft_dice(
            logits.float().softmax(1), one_hot, None if weights is None else weights[:, None]
        )

    def extra_repr(self) -> str:
        """What it computes, for printing."""
        words = f"{self.kind}, dice={self.dice}, pos_weight={self.pos_weight}, ignore={self.ignore}"
        return words + (f", focal_gamma={self.focal_gamma}" if self.focal_gamma else "")


class DegradationLoss(SegmentationLoss):
    """The loss of networks that clean an image step by step (He and Schomaker 2019, arXiv 1901.06081, section 3.3).

    After every block: how far its image is from a clean page, which has one level of ink and one of paper, and the binary
    cross-entropy of its logits. Called with logits alone it is that cross-entropy: what validation looks at.

    Args:
        image_weight: factor of the squared difference.
        ink_level, paper_level: of a clean page, normalised grey units; ink is the foreground.
        dice: see `SegmentationLoss`.
    """

    def __init__(
        self, image_weight: float = 1.0, ink_level: float = -1.0, paper_level: float = 1.0, dice: float = 0.0
    ) -> None:
        super().__init__("bce", dice=dice)
        self.image_weight, self.ink_level, self.paper_level = image_weight, ink_level, paper_level

    def of_answers(self, answers: Sequence[Answer], target: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean over the blocks, so that the learning rate does not depend on their number.

        Args:
            answers: of every block, with images (N, C, ...).
            target: (N, 1, ...) mask of the ink, 0..1.
            weights: (N, 1, ...). The cross-entropy takes them as they are; of the squared difference they leave out pixels
                where they are 0.

        Returns:
            Scalar float32.

        Raises:
            ValueError: if an answer has no image.
        """
        total = torch.zeros((), device=target.device)
        for answer in answers:
            if answer.image is None:
                raise ValueError("an answer without an image; expected a network that cleans one")
            total = total + self(answer.logits.float(), target, weights)
            total = total + self.image_weight * self._difference(answer.image.float(), target, weights)
        return total / len(answers)

    def _difference(self, image: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
        with torch.autocast(device_type=image.device.type, enabled=False):
            clean = self.paper_level + (self.ink_level - self.paper_level) * target.float()
            counted = None if weights is None else (weights > 0).float()
            return _weighted_mean((image - clean) ** 2, counted)

    def extra_repr(self) -> str:
        """What it computes, for printing."""
        return (
            f"image_weight={self.image_weight}, ink_level={self.ink_level}, paper_level={self.paper_level}, "
            f"dice={self.dice}"
        )


def loss_of(recipe: Recipe, planes: Sequence[Plane] = ()) -> SegmentationLoss:
    """The loss that a recipe asks for.

    Args:
        recipe: with its [loss].
        planes: of training, counted if `loss.pos_weight` is "auto".

    Raises:
        UsageError: if they are to be counted and hold no foreground.
    """
    loss = recipe.loss
    if loss.kind == "restoration":
        from unetctl.training.loss_restoration import RestorationLoss  # which is made of those here

        return RestorationLoss.of(loss)
    if loss.kind == "degradation":
        levels = {"image_weight": loss.image_weight, "ink_level": loss.ink_level, "paper_level": loss.paper_level}
        return DegradationLoss(dice=loss.dice, **{name: level for name, level in levels.items() if level is not None})
    if recipe.output.num_channels > 1:
        return SegmentationLoss("cross_entropy", dice=loss.dice, focal_gamma=loss.focal_gamma)
    pos_weight = balance(planes) if loss.pos_weight == "auto" else loss.pos_weight
    return SegmentationLoss("bce", dice=loss.dice, pos_weight=pos_weight, focal_gamma=loss.focal_gamma)


def balance(planes: Sequence[Plane]) -> float:
    """Pixels of background for every one of the foreground; those of weight 0 do not count.

    Raises:
        UsageError: if there is no foreground.
    """
    num_all = num_foreground = 0
    for plane in planes:
        known = np.ones(plane.target.shape, bool) if plane.weights is None else plane.weights > 0
        num_all += int(known.sum())
        num_foreground += int((np.greater(plane.target, 0) & known).sum())
    if not num_foreground:
        raise UsageError(
            'loss.pos_weight = "auto", and the training data hold no foreground', "a number, or pictures with foreground",
            "--set loss.pos_weight=1",
        )  # fmt: skip
    return max(1.0, num_all - num_foreground) / num_foreground
