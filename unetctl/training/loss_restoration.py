"""The loss of networks that find damage and repair it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unetctl.networks.network import Answer
from unetctl.recipe.training_sections import Loss
from unetctl.training.losses import SegmentationLoss
from unetctl.training.team import summed


class RestorationLoss(SegmentationLoss):
    """Absolute difference from the clean picture, and cross-entropy with a share of Dice for the mask of the damage.

    The difference is the mean over the damaged pixels of the batch, so that neither small overlays nor crops with few of
    them count less; beside it, weakly, the mean over all others: there the prediction shows only where the mask is wrong.
    Called with logits alone it is the loss of the mask.

    Args:
        image_weight: factor of the difference inside the damage.
        outside_weight: factor of that outside.
        dice: see `SegmentationLoss`.
        pos_weight: of damaged pixels in the cross-entropy.
        focal_gamma: see `SegmentationLoss`.
    """

    def __init__(
        self,
        image_weight: float = 1.0,
        outside_weight: float = 0.1,
        dice: float = 0.0,
        pos_weight: float = 1.0,
        focal_gamma: float = 0.0,
    ) -> None:
        super().__init__("bce", dice=dice, pos_weight=pos_weight, focal_gamma=focal_gamma)
        self.image_weight, self.outside_weight = image_weight, outside_weight

    @classmethod
    def of(cls, loss: Loss) -> "RestorationLoss":
        """The one of a recipe's section."""
        weights = {"image_weight": loss.image_weight, "outside_weight": loss.outside_weight}
        given = {name: value for name, value in weights.items() if value is not None}
        pos_weight = 1.0 if loss.pos_weight == "auto" else loss.pos_weight  # what is damaged is not known beforehand
        return cls(dice=loss.dice, pos_weight=pos_weight, focal_gamma=loss.focal_gamma, **given)

    def of_answers(self, answers: Sequence[Answer], target: Tensor, weights: Tensor | None = None) -> Tensor:
        """The loss of the last answer.

        Args:
            answers: with predictions (N, C, ...).
            target: (N, 1 + C, ...): the mask of the damage, 0 or 1, then the clean picture, normalised.
            weights: (N, 1, ...); the cross-entropy takes them as they are, the differences leave out pixels where they
                are 0.

        Returns:
            Scalar float32.

        Raises:
            ValueError: if the answer has no prediction, or the target other channels.
        """
        answer = answers[-1]
        if answer.prediction is None:
            raise ValueError("an answer without a prediction; expected a network that repairs")
        if target.shape[1] != 1 + answer.prediction.shape[1]:
            raise ValueError(
                f"target of {target.shape[1]} channels; expected the mask and the {answer.prediction.shape[1]} of the picture"
            )
        mask, clean = target[:, :1].float(), target[:, 1:].float()
        total: Tensor = self(answer.logits.float(), mask, weights)
        with torch.autocast(device_type=target.device.type, enabled=False):
            difference = (answer.prediction.float() - clean).abs().mean(1, keepdim=True)
            known = torch.ones_like(mask) if weights is None else (weights > 0).float()
            total = total + self.image_weight * _mean(difference, mask * known)
            return total + self.outside_weight * _mean(difference, (1 - mask) * known)

    def extra_repr(self) -> str:
        """What it computes, for printing."""
        return f"image_weight={self.image_weight}, outside_weight={self.outside_weight}, {super().extra_repr()}"


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Over the batch of all processes; 0 if every weight is 0."""
    counted = torch.where(weights > 0, values * weights, 0.0)
    mean: Tensor = summed(counted.sum()) / summed(weights.sum()).clamp_min(1.0)
    return mean
