"""Random variation of training crops: geometry and grey values, in torch, a batch at a time.

    AugmentOptions(flip, rotate, elastic_*, scale, stretch, brightness, contrast, gamma, noise_sigma, ...)
    augment(pixels, targets, weights, rng, options, out=None, out_targets=None) -> (pixels, targets, weights)
    margin_for(options, tile) -> (y, x) pixels of true context that crops should carry beyond the tile
    sample_rngs(step_seed, num, first=0) -> one generator a sample: results do not depend on the batching

Every option at its default leaves the data untouched; a recipe switches on what it wants.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unetctl.errors import UsageError
from unetctl.training.degrade import degrade, recompress
from unetctl.training.greys import vary_greys
from unetctl.training.warp import Mode, Rotation, Size2, apply_warp, random_warp

Rng = np.random.Generator | torch.Generator | Sequence[np.random.Generator]


@dataclass(frozen=True)
class AugmentOptions:
    """What may vary, and how far; grey values in normalised units (the data's deviation is about 1).

    Attributes:
        flip: mirror along y and along x, each for half of the samples.
        rotate: "none", "quarter" (multiples of 90 degrees, no interpolation) or "any" angle.
        elastic_sigma_px: standard deviation of the random displacements, in pixels (10 in Ronneberger et al.
            2015, section 3.1).
        elastic_grid: points a side of the coarse grid over the tile that carries them (3 in the paper), at
            least 2.
        elastic_prob: share of samples that are deformed.
        scale: least and greatest magnification, uniform in the logarithm.
        stretch: greatest factor by which samples become narrower along one axis and as much wider along the other,
            uniform in the logarithm.
        interpolation: of the pixels, "bicubic" (keeps noise and edges nearly as sharp as they are at
            prediction) or "bilinear".
        brightness: greatest shift, both ways.
        contrast: greatest change about the sample's mean: a factor from 1 / (1 + contrast) to 1 + contrast.
        saturation: of pictures with three channels, least and greatest factor of a colour's distance from grey.
        hue_deg: of these, greatest turn of the colours about the grey axis, both ways, degrees.
        gamma: least and greatest exponent on the sample's own range of values; mean and spread are kept.
        noise_sigma: greatest standard deviation of added normal noise.
        blur_sigma_px: greatest standard deviation of a Gaussian blur.
        coarse: greatest factor by which pixels are made coarser (the crop is reduced and enlarged again), uniform in the
            logarithm from 1; what is small in other pictures looks like that when it is enlarged.
        shade: greatest amplitude of smooth uneven lighting (added, and as much again relative to the
            contrast).
        invert_prob: share of samples shown as negatives, about their mean.
        artefact_prob: share of samples with one to three faults of electron microscopy: folds, knife marks,
            pale bands, lost strips, dirt.
        grey_prob: share of samples to which each of gamma, noise, blur, coarser pixels and shade is applied.
        bleed_through_prob, stain_prob, fade_prob, border_prob, paper_noise_prob, jpeg_prob: shares of samples with the
            defects of documents, see `unetctl.training.degrade`; they take ink for -1 and paper for +1.
        per_channel: True draws grey values for every channel by itself (neighbouring planes as channels);
            False for colours.
        lone_prob: share of samples without their neighbouring planes, see `without_neighbours`.
    """

    flip: bool = False
    rotate: Rotation = "none"
    elastic_sigma_px: float = 10.0
    elastic_grid: int = 3
    elastic_prob: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    stretch: float = 1.0
    interpolation: Mode = "bicubic"
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: tuple[float, float] = (1.0, 1.0)
    hue_deg: float = 0.0
    gamma: tuple[float, float] = (1.0, 1.0)
    noise_sigma: float = 0.0
    blur_sigma_px: float = 0.0
    coarse: float = 1.0
    shade: float = 0.0
    invert_prob: float = 0.0
    artefact_prob: float = 0.0
    grey_prob: float = 0.5
    per_channel: bool = False
    lone_prob: float = 0.0
    bleed_through_prob: float = 0.0
    stain_prob: float = 0.0
    fade_prob: float = 0.0
    border_prob: float = 0.0
    paper_noise_prob: float = 0.0
    jpeg_prob: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UsageError: names the first option that is out of range.
        """
        if self.rotate not in ("none", "quarter", "any"):
            raise UsageError(f"augment.rotate is {self.rotate!r}", '"none", "quarter" or "any"')
        if self.interpolation not in ("bilinear", "bicubic"):
            raise UsageError(f"augment.interpolation is {self.interpolation!r}", '"bilinear" or "bicubic"')
        for name in ("scale", "gamma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise UsageError(f"augment.{name} is [{low}, {high}]", "two positive numbers, the smaller one first")
        low, high = self.saturation
        if not 0 <= low <= high < math.inf:
            raise UsageError(f"augment.saturation is [{low}, {high}]", "two numbers from 0 up, the smaller one first")
        for name in (n for n in vars(self) if n.endswith("_prob")):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"augment.{name} is {getattr(self, name)}", "a share from 0 to 1")
        for name in ("elastic_sigma_px", "brightness", "contrast", "noise_sigma", "blur_sigma_px", "shade", "hue_deg"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"augment.{name} is {getattr(self, name)}", "a number of at least 0")
        for name in ("stretch", "coarse"):
            if not 1 <= getattr(self, name) < math.inf:
                raise UsageError(f"augment.{name} is {getattr(self, name)}", "a factor of at least 1")
        if self.elastic_grid < 2:
            raise UsageError(f"augment.elastic_grid is {self.elastic_grid}", "at least 2 points a side")

    def __str__(self) -> str:
        defaults = AugmentOptions()
        changed = [f"{k}={v}" for k, v in vars(self).items() if v != getattr(defaults, k)]
        return "augment: " + (" ".join(changed) or "nothing")


def without_neighbours(
    pixels: Tensor, rngs: Sequence[np.random.Generator], context_slices: int, share: float
) -> Tensor:
    """Some samples with their middle plane in the place of all: a network must not need neighbours that differ.

    Args:
        pixels: (N, context_slices * C, y, x), plane after plane; changed in place.
        rngs: one a sample; nothing is drawn if `share` is 0.
        context_slices: planes a sample holds.
        share: of samples, 0 to 1.
    """
    if share and context_slices > 1:
        num_channels = pixels.shape[1] // context_slices
        middle = context_slices // 2 * num_channels
        for sample, rng in zip(pixels, rngs, strict=True):
            if rng.random() < share:
                sample.copy_(sample[middle : middle + num_channels].clone().repeat(context_slices, 1, 1))
    return pixels


def margin_for(options: AugmentOptions, tile: Size2) -> Size2:
    """Context beyond the tile that the geometry may look at, instead of mirrored pixels.

    Args:
        options: what may vary; displacements count up to three standard deviations.
        tile: (y, x) pixels of the network's input.

    Returns:
        (y, x) pixels per side.
    """
    half = [(size - 1) / 2 for size in tile]
    if options.rotate == "any":
        reach = [math.hypot(*half)] * 2
    elif options.rotate == "quarter":
        reach = [max(half)] * 2
    else:
        reach = half
    elastic = 3.0 * options.elastic_sigma_px if options.elastic_prob > 0 else 0.0
    least = options.scale[0] / options.stretch
    y, x = (max(0, math.ceil(r / least + elastic - h)) for r, h in zip(reach, half, strict=True))
    return y, x


def sample_rngs(step_seed: Sequence[int], num: int, first: int = 0) -> list[np.random.Generator]:
    """Generators for samples `first` .. `first + num - 1` of a step, by seed and index alone.

    So one process with a batch of eight draws what two processes with four each draw.

    Args:
        step_seed: non-negative integers that name the step, e.g. (seed, epoch, step).
        num: number of samples.
        first: index of the first one in the whole batch of the step.
    """
    # 1: apart from the streams that place the crops (0)
    return [np.random.default_rng([*step_seed, i, 1]) for i in range(first, first + num)]


def _one_each(rng: Rng, num: int) -> Sequence[np.random.Generator]:
    if isinstance(rng, torch.Generator):
        seeds = torch.randint(0, 2**62, (num,), generator=rng, device=rng.device).tolist()
        return [np.random.default_rng(int(s)) for s in seeds]
    if isinstance(rng, np.random.Generator):
        return [np.random.default_rng(int(s)) for s in rng.integers(0, 2**62, size=num)]
    if len(rng) != num:
        raise ValueError(f"{len(rng)} generators for {num} samples")
    return rng


def _check_centred(name: str, have: Sequence[int], want: Sequence[int]) -> None:
    if any(h < w or (h - w) % 2 for h, w in zip(have, want, strict=True)):
        raise ValueError(
            f"{name} of {tuple(have)} cannot be cut to {tuple(want)} about the centre: "
            "expected a margin of whole pixels on each side"
        )


def augment(
    pixels: Tensor,
    targets: Tensor,
    weights: Tensor | None,
    rng: Rng,
    options: AugmentOptions,
    out: Size2 | None = None,
    out_targets: Size2 | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Vary a batch. The inputs are not written to; no gradient flows.

    All arrays share one centre per sample; sizes may differ by an even number (a tile with halo, the core's
    targets).

    Args:
        pixels: (N, C, Y, X) float32, normalised.
        targets: (N, K, Ty, Tx) of any dtype: class indices, masks, ids; sampled to the nearest.
        weights: (N, 1, Ty, Tx) float32 loss weights, sampled bilinearly, but 0 where the nearest one is; or None.
        rng: one generator for the batch, or a numpy generator for each sample (`sample_rngs`).
        options: what may vary.
        out: (y, x) of the returned pixels, at most (Y, X): the margin is used as context and cut off. None:
            (Y, X).
        out_targets: the same for targets and weights. None: (Ty, Tx).

    Returns:
        (N, C, *out), (N, K, *out_targets), (N, 1, *out_targets) or None; dtypes as given.

    Raises:
        ValueError: if the sizes are not about one centre.
    """
    out = out or (pixels.shape[-2], pixels.shape[-1])
    out_targets = out_targets or (targets.shape[-2], targets.shape[-1])
    _check_centred("pixels", pixels.shape[-2:], out)
    _check_centred("targets", targets.shape[-2:], out_targets)
    if any((a - b) % 2 for a, b in zip(out, out_targets, strict=True)):
        raise ValueError(f"tile {out} and targets {out_targets} differ by an odd number: they have no common centre")
    new_pixels = pixels.new_empty((*pixels.shape[:2], *out))
    new_targets = targets.new_empty((*targets.shape[:2], *out_targets))
    new_weights = None if weights is None else weights.new_empty((*weights.shape[:2], *out_targets))
    with torch.no_grad():
        for i, sample_rng in enumerate(_one_each(rng, pixels.shape[0])):
            warp = random_warp(
                sample_rng,
                flip=options.flip,
                rotate=options.rotate,
                scale=options.scale,
                stretch=options.stretch,
                elastic_sigma_px=options.elastic_sigma_px,
                elastic_grid=options.elastic_grid,
                elastic_prob=options.elastic_prob,
            )
            new_pixels[i] = apply_warp(pixels[i], warp, out, out, options.interpolation)
            new_targets[i] = apply_warp(targets[i], warp, out_targets, out, "nearest")
            if weights is not None and new_weights is not None:
                # where the nearest label is not known nothing is, however much its neighbours weigh
                is_known = apply_warp((weights[i] > 0).to(weights), warp, out_targets, out, "nearest")
                new_weights[i] = apply_warp(weights[i], warp, out_targets, out, "bilinear") * is_known
            degrade(new_pixels[i], sample_rng, options)
            if options.per_channel:
                for i_channel in range(pixels.shape[1]):
                    vary_greys(new_pixels[i, i_channel : i_channel + 1], sample_rng, options)
            else:
                vary_greys(new_pixels[i], sample_rng, options)
            recompress(new_pixels[i], sample_rng, options)
    return new_pixels, new_targets, new_weights
