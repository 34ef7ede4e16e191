"""The grey-value half of augmentation: what differs between cameras, stains and laboratories.

recolour(image (3, Y, X), factor, turn_deg)   writes into image
vary_greys(image (C, Y, X), rng, options)     writes into image
blur(image (C, Y, X), sigma_px)               too
reduced(image (C, Y, X), factor)              -> (C, y, x)
"""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from unetctl.training.warp import smooth_field

if TYPE_CHECKING:
    from unetctl.training.augment import AugmentOptions

_NUM_COLOURS = 3


def vary_greys(image: Tensor, rng: np.random.Generator, options: "AugmentOptions") -> None:
    """Vary the grey values of one sample, in place.

    Order: colours, inversion, gamma, contrast and brightness, shade, artefacts, then coarser pixels, blur and noise, which
    comes first (on the coarser pixels: the grain of a resampled or denoised stack) or last (that of the detector).

    Args:
        image: (C, Y, X) float32, normalised; the channels vary together. Three are taken for red, green and blue.
        rng: the sample's own generator.
        options: see `AugmentOptions`.
    """

    def drawn() -> bool:
        return bool(rng.random() < options.grey_prob)

    if (options.saturation != (1.0, 1.0) or options.hue_deg) and image.shape[0] == _NUM_COLOURS:
        recolour(image, rng.uniform(*options.saturation), rng.uniform(-options.hue_deg, options.hue_deg))
    if options.invert_prob and rng.random() < options.invert_prob:
        mean = image.mean(dim=(-2, -1), keepdim=True)
        image.neg_().add_(2 * mean)
    if options.gamma != (1.0, 1.0) and drawn():
        _gamma(image, math.exp(rng.uniform(math.log(options.gamma[0]), math.log(options.gamma[1]))))
    if options.contrast or options.brightness:
        limit = math.log1p(options.contrast)
        factor = math.exp(rng.uniform(-limit, limit))
        shift = rng.uniform(-options.brightness, options.brightness)
        mean = image.mean(dim=(-2, -1), keepdim=True)
        image.mul_(factor).add_(mean * (1 - factor) + shift)
    if options.shade and drawn():
        _shade(image, options.shade * rng.uniform(), rng)
    if options.artefact_prob and rng.random() < options.artefact_prob:
        _artefacts(image, rng)
    noise_sigma = options.noise_sigma * rng.uniform() if options.noise_sigma and drawn() else 0.0
    blur_sigma_px = options.blur_sigma_px * rng.uniform() if options.blur_sigma_px and drawn() else 0.0
    coarse = math.exp(rng.uniform(0, math.log(options.coarse))) if options.coarse > 1 and drawn() else 1.0
    noise_first = bool(rng.random() < 0.5) if noise_sigma and (blur_sigma_px or coarse > 1) else False
    seen = reduced(image, coarse)
    if noise_sigma and noise_first:
        _add_noise(seen, noise_sigma, rng)
    if seen is not image:
        size = (image.shape[-2], image.shape[-1])
        image.copy_(F.interpolate(seen[None], size, mode="bicubic", align_corners=False)[0])
    if blur_sigma_px:
        blur(image, blur_sigma_px)
    if noise_sigma and not noise_first:
        _add_noise(image, noise_sigma, rng)


def reduced(image: Tensor, factor: float) -> Tensor:
    """(C, Y, X) as coarser pixels would have seen it, each the mean of what it covers; where they are as fine, the same.

    Args:
        image: float.
        factor: by which pixels are wider, at least 1; the result has at least one a side.
    """
    size = [max(1, round(n / factor)) for n in image.shape[-2:]]
    if size == list(image.shape[-2:]):
        return image
    return F.interpolate(image[None], size, mode="area")[0]


def recolour(image: Tensor, factor: float, turn_deg: float) -> None:
    """Strengthen or weaken the colours of a picture and turn them, in place; the mean of the three channels stays.

    Args:
        image: (3, Y, X) float, red, green and blue.
        factor: of every colour's distance from grey; 0 leaves grey.
        turn_deg: angle about the grey axis; 120 makes red green, green blue, and blue red.
    """
    cos, sin = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    # Rodrigues' formula for the axis (1, 1, 1) / sqrt(3), on colours without their grey: the axis' own part is 0
    across = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    turn = (cos * torch.eye(3) + sin * across).to(image) * factor
    grey = image.mean(0, keepdim=True)
    image.copy_(grey + torch.tensordot(turn, image - grey, 1))


def _gamma(image: Tensor, exponent: float) -> None:
    low, high = image.aminmax()
    spread, mean = torch.std_mean(image)
    if not bool(high > low) or not bool(spread > 0):
        return
    image.sub_(low).mul_(1.0 / (high - low)).clamp_(0.0, 1.0).pow_(exponent)
    new_spread, new_mean = torch.std_mean(image)
    if bool(new_spread > 0):
        image.sub_(new_mean).mul_(spread / new_spread).add_(mean)
    else:
        image.fill_(float(mean))


def _shade(image: Tensor, amplitude: float, rng: np.random.Generator) -> None:
    size = (image.shape[-2], image.shape[-1])
    points = torch.from_numpy(rng.uniform(-1.0, 1.0, size=(2, 3, 3)).astype(np.float32)).to(image.device) * amplitude
    image.mul_(smooth_field(points[0], size, size).exp_()).add_(smooth_field(points[1], size, size))


def _add_noise(image: Tensor, sigma: float, rng: np.random.Generator) -> None:
    generator = torch.Generator(device=image.device).manual_seed(int(rng.integers(0, 2**62)))
    noise = torch.empty(image.shape, dtype=image.dtype, device=image.device).normal_(0.0, sigma, generator=generator)
    image.add_(noise)


def blur(image: Tensor, sigma_px: float) -> None:
    """Gaussian blur of (C, Y, X) in place, mirrored at the edges."""
    radius = min(math.ceil(3 * sigma_px), image.shape[-1] - 1, image.shape[-2] - 1)
    if radius < 1:
        return
    taps = [math.exp(-0.5 * (i / sigma_px) ** 2) for i in range(radius + 1)]
    total = taps[0] + 2 * sum(taps[1:])
    padded = F.pad(image[None], (radius, radius, radius, radius), mode="reflect")[0]
    height, width = image.shape[-2:]
    # shifted sums: half the time of two convolutions of one channel on the processor
    rows = padded[..., radius : radius + width] * (taps[0] / total)
    for i in range(1, radius + 1):
        rows.add_(padded[..., radius - i : radius - i + width], alpha=taps[i] / total)
        rows.add_(padded[..., radius + i : radius + i + width], alpha=taps[i] / total)
    torch.mul(rows[..., radius : radius + height, :], taps[0] / total, out=image)
    for i in range(1, radius + 1):
        image.add_(rows[..., radius - i : radius - i + height, :], alpha=taps[i] / total)
        image.add_(rows[..., radius + i : radius + i + height, :], alpha=taps[i] / total)


def _line_distance(image: Tensor, rng: np.random.Generator, angle_rad: float, bend: float = 0.0) -> Tensor:
    """Signed distance (Y, X) in pixels to a random line; `bend` curves it, relative to the image's size."""
    height, width = image.shape[-2:]
    y = torch.arange(height, dtype=torch.float32, device=image.device)[:, None] - float(rng.uniform(0, height))
    x = torch.arange(width, dtype=torch.float32, device=image.device)[None] - float(rng.uniform(0, width))
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    across = y * cos + x * sin
    if bend:
        across = across + ((x * cos - y * sin) ** 2) * (bend / max(height, width))
    return across


def _blend(image: Tensor, cover: Tensor, value: Tensor | float) -> None:
    image.add_(cover * (value - image))


def _fold(image: Tensor, rng: np.random.Generator) -> None:
    """A dark, soft, slightly curved streak: the section lies double."""
    across = _line_distance(image, rng, rng.uniform(0, math.pi), rng.normal(0, 0.3))
    width_px = rng.uniform(1.5, 7.0)
    cover = (across.div_(width_px).square_().mul_(-1).exp_()) * rng.uniform(0.5, 1.0)
    spread, mean = torch.std_mean(image)
    _blend(image, cover, mean - rng.uniform(1.5, 3.0) * spread)


def _knife_marks(image: Tensor, rng: np.random.Generator) -> None:
    """Thin parallel scratches, darker or brighter."""
    spread = image.std()
    angle_rad = rng.uniform(0, math.pi)
    for _ in range(int(rng.integers(1, 6))):
        across = _line_distance(image, rng, angle_rad)
        profile = across.div_(rng.uniform(0.5, 1.5)).square_().mul_(-1).exp_()
        image.add_(profile * (spread * rng.uniform(0.3, 1.5) * rng.choice((-1.0, 1.0))))


def _pale_band(image: Tensor, rng: np.random.Generator) -> None:
    """A broad band of low contrast (chatter, uneven section thickness), lighter or darker than the rest."""
    across = _line_distance(image, rng, rng.uniform(0, math.pi), rng.normal(0, 0.1))
    cover = across.div_(rng.uniform(10.0, 80.0)).square_().mul_(-1).exp_()
    spread, mean = torch.std_mean(image)
    image.sub_(mean).mul_(1 - cover * rng.uniform(0.3, 0.7)).add_(cover * (spread * rng.normal(0, 0.7))).add_(mean)


def _lost_strip(image: Tensor, rng: np.random.Generator) -> None:
    """A narrow straight strip without data, black, white or grey."""
    across = _line_distance(image, rng, rng.choice((0.0, math.pi / 2)) + rng.normal(0, 0.02))
    spread, mean = torch.std_mean(image)
    image.masked_fill_(across.abs() < rng.uniform(1.0, 5.0), float(mean + spread * rng.uniform(-3, 3)))


def _dirt(image: Tensor, rng: np.random.Generator) -> None:
    """Dark round blots: stain precipitate, dust."""
    spread, mean = torch.std_mean(image)
    height, width = image.shape[-2:]
    for _ in range(int(rng.integers(1, 5))):
        sigma_px = rng.uniform(1.5, 9.0)
        y = torch.arange(height, dtype=torch.float32, device=image.device) - float(rng.uniform(0, height))
        x = torch.arange(width, dtype=torch.float32, device=image.device) - float(rng.uniform(0, width))
        cover = torch.outer((-0.5 * (y / sigma_px) ** 2).exp(), (-0.5 * (x / sigma_px) ** 2).exp())
        _blend(image, (1.6 * cover).clamp_(max=1.0), mean - rng.uniform(1.0, 3.0) * spread)


_FAULTS = (_fold, _knife_marks, _pale_band, _lost_strip, _dirt)


def _artefacts(image: Tensor, rng: np.random.Generator) -> None:
    for i_fault in rng.integers(0, len(_FAULTS), size=int(rng.integers(1, 4))):
        _FAULTS[int(i_fault)](image, rng)
