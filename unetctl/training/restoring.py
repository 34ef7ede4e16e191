"""Learning to repair: damage made up on the crops of each step, and validation by whole pictures.

RestoringSampler(..., damage=DamageOptions)(step) -> TrainBatch whose targets are the mask and the clean picture
exact_augment(options) -> what may vary where the damage is given
validation_planes(planes, recipe) -> planes with damage, the same in every run
validate_restoration(network, planes, recipe, loss, compute, device) -> Validated
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from unetctl.errors import Stopped
from unetctl.geometry.mirror import read_mirrored
from unetctl.geometry.plan import TilePlan, fitting_core
from unetctl.metrics.overlap import Overlap, count_overlaps
from unetctl.networks.build import for_inference
from unetctl.networks.network import Network
from unetctl.recipe.schema import Recipe
from unetctl.runtime.compute import Compute
from unetctl.runtime.device import PRECISIONS
from unetctl.runtime.loop import tile_frame
from unetctl.runtime.planning import MAX_CORE
from unetctl.training.augment import AugmentOptions
from unetctl.training.crops import Crops, Plane
from unetctl.training.damage import DamageOptions, damaged, draw_for_crop, draw_overlays, on_levels
from unetctl.training.makings import recompressed, remade
from unetctl.training.sampler import Sampler
from unetctl.training.validation import Validated, probability_of

Pixels = npt.NDArray[Any]

#: Among which the threshold of the mask is chosen.
THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(2, 19))
#: Names the stream of random numbers that damages validation pictures.
_VALIDATION_STREAM = 5
#: What may vary where the damage is given. Not the scale: resampling would blur the traces of the damage and its edge.
_GEOMETRY = ("flip", "rotate", "elastic_sigma_px", "elastic_grid", "elastic_prob", "interpolation")


@dataclass(frozen=True)
class RestoringSampler(Sampler):
    """Makes batches to learn repairing from.

    Attributes:
        num_channels: of a picture. Planes with twice as many hold a damaged picture and the clean one.
        damage: what is put on clean ones.
    """

    num_channels: int = 3
    damage: DamageOptions = field(default_factory=DamageOptions)

    def _varied(self, drawn: Crops) -> tuple[Tensor, Tensor, Tensor]:
        pixels, targets, weights = super()._varied(drawn)
        core = (targets.shape[-2], targets.shape[-1])
        if pixels.shape[1] == 2 * self.num_channels:
            broken, clean = pixels[:, : self.num_channels], pixels[:, self.num_channels :]
            mask = targets
        else:
            # on the 256 levels of files, like the damage: else what lies between them would tell the whole from the damaged
            clean = on_levels(pixels.clamp(0, 1))
            clean = _some(clean, drawn.rngs, self.damage.remade_share, remade)
            size = (clean.shape[-2], clean.shape[-1])
            broken, found, _ = damaged(clean, [draw_for_crop(rng, size, self.damage) for rng in drawn.rngs])
            broken = _some(broken, drawn.rngs, self.damage.resaved_share, recompressed)
            mask = _middle(found, core)
        return broken, torch.cat((mask.float(), _middle(clean, core)), 1), weights


def _some(
    pictures: Tensor,
    rngs: Sequence[np.random.Generator],
    share: float,
    change: Callable[[Tensor, np.random.Generator], Tensor],
) -> Tensor:
    """A share of the pictures (N, C, y, x) changed; nothing is drawn where the share is 0."""
    if not share:
        return pictures
    return torch.stack(
        [change(one, rng) if rng.random() < share else one for one, rng in zip(pictures, rngs, strict=True)]
    )


def _middle(x: Tensor, size: tuple[int, int]) -> Tensor:
    y, x0 = (x.shape[-2] - size[0]) // 2, (x.shape[-1] - size[1]) // 2
    return x[..., y : y + size[0], x0 : x0 + size[1]]


def exact_augment(options: AugmentOptions) -> AugmentOptions:
    """The geometry alone: a damaged picture and the clean one must not be varied apart from each other."""
    kept = {one.name: getattr(options, one.name) for one in fields(AugmentOptions) if one.name in _GEOMETRY}
    return AugmentOptions(**kept)


def validation_planes(planes: Sequence[Plane], recipe: Recipe) -> tuple[Plane, ...]:
    """Planes as `validate_restoration` takes them: the damaged picture, and (1 + C, y, x) mask and clean picture as target.

    Clean pictures get the damage that their place among the others decides: the same in every validation of every run.
    """
    channels, options = recipe.input.channels, replace(DamageOptions.of(recipe.damage), clean_share=0.0)
    made = []
    for i, plane in enumerate(planes):
        if plane.pixels.shape[0] == 2 * channels:
            broken, clean, mask = plane.pixels[:channels], plane.pixels[channels:], plane.target
        else:
            clean = plane.pixels
            rng = np.random.default_rng([_VALIDATION_STREAM, i])
            overlays = draw_overlays(rng, plane.size, options, inside=True)
            found, where, _ = damaged(torch.from_numpy(clean[None]), [overlays])
            broken, mask = found[0].numpy(), where[0].numpy()
        target = np.concatenate((mask.astype(np.float32), clean))
        made.append(Plane(plane.name, np.ascontiguousarray(broken), target))
    return tuple(made)


def validate_restoration(
    network: Network,
    planes: Sequence[Plane],
    recipe: Recipe,
    loss: nn.Module,
    compute: Compute,
    device: torch.device,
    should_stop: Callable[[], bool] = lambda: False,
) -> Validated:
    """Repairs whole pictures by the tiles of predict and scores them.

    Args:
        network: any mode; a folded copy predicts.
        planes: of `validation_planes`.
        recipe: which figure chooses.
        loss: a `RestorationLoss`.
        compute, device: arithmetic.
        should_stop: asked between tiles.

    Returns:
        Figures "loss", "psnr" (decibel, of the repaired pictures as a whole: damage that is missed and whole pixels that
        are changed count alike), "psnr_inside" (in the true damage), "iou", "dice" and "misclassified" of the mask, and
        the "threshold" at which `train.select` is best; outputs (1 + C, y, x): logits and the prediction everywhere.

    Raises:
        Stopped: if asked to.
    """
    prepared = for_inference(network, device, PRECISIONS[compute.precision])
    outputs = tuple(repair_plane(prepared, plane.pixels, device, should_stop) for plane in planes)
    is_finite = all(bool(np.isfinite(output).all()) for output in outputs)
    if not is_finite:  # of a network that has diverged: scores of such numbers would mean nothing
        outputs = tuple(np.nan_to_num(output, posinf=0, neginf=0) for output in outputs)
    total = weight = 0.0
    errors, inside, overlaps = (
        np.zeros(len(THRESHOLDS)),
        np.zeros(len(THRESHOLDS)),
        [Overlap(0, 0, 0, 0)] * len(THRESHOLDS),
    )
    num_inside = 0
    for plane, output in zip(planes, outputs, strict=True):
        total += _loss_of(loss, output, plane) * plane.pixels[0].size
        weight += plane.pixels[0].size
        mask, clean = np.greater(plane.target[0], 0), plane.target[1:].astype(np.float32)
        probability = probability_of(output[0])
        found = count_overlaps(probability, mask, THRESHOLDS)
        overlaps = [a + b for a, b in zip(overlaps, found, strict=True)]
        repaired, left = (((p - clean) ** 2).sum(0) for p in (output[1:].clip(0, 1), plane.pixels))
        for i, threshold in enumerate(THRESHOLDS):
            error = np.where(probability >= threshold, repaired, left)
            errors[i] += error.sum()
            inside[i] += error[mask].sum()
        num_inside += int(mask.sum())
    channels = outputs[0].shape[0] - 1
    psnr = _psnr(errors, weight * channels)
    by_threshold = {
        "psnr": psnr,
        "iou": np.array([o.iou for o in overlaps]),
        "dice": np.array([o.dice for o in overlaps]),
    }
    best = int(by_threshold.get(recipe.train.select, psnr).argmax())
    figures = {
        "loss": total / max(weight, 1.0),
        "psnr": float(psnr[best]),
        "psnr_inside": float(_psnr(inside, num_inside * channels)[best]),
        "iou": overlaps[best].iou,
        "dice": overlaps[best].dice,
        "misclassified": overlaps[best].misclassified,
    }
    if not is_finite:
        figures = dict.fromkeys(figures, float("nan"))
    return Validated(figures | {"threshold": THRESHOLDS[best]}, outputs)


def _psnr(squares: npt.NDArray[np.float64], num: float) -> npt.NDArray[np.float64]:
    """Decibel, of numbers from 0 to 1; what is perfect counts as half a step of 255 in one of a million numbers."""
    return -10 * np.log10(np.maximum(squares / max(num, 1.0), 1e-6 * (0.5 / 255) ** 2))


def _loss_of(loss: Any, output: Pixels, plane: Plane) -> float:
    from unetctl.networks.network import Answer

    logits, prediction = torch.from_numpy(output[None, :1]), torch.from_numpy(output[None, 1:])
    return float(loss.of_answers([Answer(logits, None, prediction)], torch.from_numpy(plane.target[None])))


@torch.inference_mode()
def repair_plane(
    network: Network, pixels: Pixels, device: torch.device, should_stop: Callable[[], bool] = lambda: False
) -> npt.NDArray[np.float32]:
    """What a restorer says of a whole plane, tile by tile as in `predict`.

    Args:
        network: as `for_inference` has made it.
        pixels: (C, y, x), normalised.
        device: of the network.
        should_stop: asked between tiles.

    Returns:
        (1 + C, y, x): logits, and the prediction everywhere.

    Raises:
        Stopped: if asked to.
    """
    spec, size = network.spec, (pixels.shape[1], pixels.shape[2])
    largest = MAX_CORE[device.type, 2]
    core = tuple(fitting_core(n, s, largest) for n, s in zip(size, spec.stride, strict=True))
    tiles = TilePlan("yx", size, spec.stride, core, spec.halo, (1, 1), spec.border)
    output = np.empty((1 + pixels.shape[0], *size), np.float32)
    for index in range(len(tiles)):
        for tile in tiles.tiles(tiles.block(index)):
            if should_stop():
                raise Stopped("stopped in a validation", "", "run the same command again to go on")
            cut = read_mirrored(lambda box: pixels[(slice(None), *box.slices())], tile.read, size, leading=1)
            x = torch.from_numpy(np.ascontiguousarray(cut[None])).to(device, network.input_dtype)
            answer = network.final(x.contiguous(memory_format=torch.channels_last), tile_frame(tile, 2))
            assert answer.prediction is not None  # of no other kind of network is this asked
            found = torch.cat((answer.logits, answer.prediction), 1)[0].float().cpu().numpy()
            kept = found[(slice(None), *tile.kept.relative_to(tile.core).slices())]
            output[(slice(None), *tile.kept.slices())] = kept
    return output
