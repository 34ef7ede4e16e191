"""What happens to real documents and their scans, imitated on training crops. Labels stay as they are.

    degrade(image (C, Y, X), rng, options)      before the camera: back side, grain, fading, stains, borders
    recompress(image (C, Y, X), rng, options)   after it: JPEG

Both write into `image`. Its values are those of the normalisation `two_levels`: ink -1, paper +1. Nothing leaves the
range that the crop had before, widened to ink and paper. A share of 0 draws no random number: what was trained without
these settings is repeated to the bit.
"""

from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import torch
from torch import Tensor

from unetctl.training.greys import blur
from unetctl.training.warp import Size2, smooth_field

if TYPE_CHECKING:
    from unetctl.training.augment import AugmentOptions

#: Most of a dark border may be writing: what it hides would be ink by its labels.
_HIDDEN_INK = 0.04
#: Narrower ones are not worth drawing.
_LEAST_BORDER_PX = 6


def degrade(image: Tensor, rng: np.random.Generator, options: "AugmentOptions") -> None:
    """Give one crop the defects of an old sheet, in place.

    Args:
        image: (C, Y, X) float32, ink -1, paper +1; the channels are colours of one page.
        rng: the sample's own generator.
        options: see `AugmentOptions`; the defects are drawn independently of each other.
    """
    steps = (
        (options.fade_prob, fade),
        (options.bleed_through_prob, bleed_through),
        (options.paper_noise_prob, paper_noise),
        (options.stain_prob, stain),
        (options.border_prob, border),
    )
    chosen = [step for share, step in steps if share and rng.random() < share]
    if not chosen:
        return
    low, high = (float(v) for v in image.aminmax())
    for step in chosen:
        step(image, rng)
    image.clamp_(min(low, -1.0), max(high, 1.0))


def recompress(image: Tensor, rng: np.random.Generator, options: "AugmentOptions") -> None:
    """What JPEG leaves of one crop, in place; after noise and blur, as in a scanner.

    Args:
        image: (C, Y, X) float32; three channels are compressed as colours, any other number one by one.
        rng: the sample's own generator.
        options: `jpeg_prob` alone is read.
    """
    if options.jpeg_prob and rng.random() < options.jpeg_prob:
        jpeg(image, int(rng.integers(20, 91)))


def bleed_through(image: Tensor, rng: np.random.Generator) -> None:
    """The writing of the back shines or has seeped through thin paper.

    Imitated by the crop's own writing, mirrored as the back's is, moved to a random place, blurred on its way through
    the paper and faint; where there is ink in front it changes nothing. It varies in strength over the sheet.
    """
    height, width = image.shape[-2:]
    shift = int(rng.integers(0, height)), int(rng.integers(0, width))
    axes = (-1,) if rng.random() < 0.8 else (-1, -2)  # sheets turned about their upper edge
    ghost = image.flip(axes).roll(shift, (-2, -1)).sub_(1.0).mul_(-0.5).clamp_(0.0, 1.0)
    blur(ghost, float(rng.uniform(0.6, 2.5)))
    strength = float(rng.uniform(0.15, 0.7))
    cover = _field(image, rng, 3, strength * 0.4, strength)
    _darken(image, ghost.mul_(cover))


def stain(image: Tensor, rng: np.random.Generator) -> None:
    """Water, mould, fingers: irregular darker areas, often with the tide line where the water dried."""
    for _ in range(int(rng.integers(1, 3))):
        field = _field(image, rng, int(rng.integers(4, 8)), -1.0, 1.0)
        level = float(rng.uniform(0.1, 0.7))
        softness = float(rng.uniform(0.02, 0.3))
        dark = (field - level).div_(softness).sigmoid_().mul_(float(rng.uniform(0.05, 0.45)))
        if rng.random() < 0.5:
            rim = (field - level).div_(float(rng.uniform(0.02, 0.08))).square_().neg_().exp_()
            dark.add_(rim, alpha=float(rng.uniform(0.05, 0.35)))
        _darken(image, dark * _tint(image, rng))


def fade(image: Tensor, rng: np.random.Generator) -> None:
    """Ink that has paled, was thin or was rubbed off in places: its contrast falls, the paper stays."""
    strength = float(rng.uniform(0.3, 0.8))
    cover = _field(image, rng, int(rng.integers(3, 6)), -0.5, 1.0).clamp_(min=0.0).mul_(strength)
    faded = (1.0 - image).mul_(0.5).clamp_(0.0, 1.0).mul_(cover)
    image.add_(faded * (1.0 - image))


def border(image: Tensor, rng: np.random.Generator) -> None:
    """The scanner's lid, the book's gutter or punch holes at one edge: black, and not ink.

    The band stays where nothing is written, but for a few hundredths, because the labels below it stay.
    """
    is_ink = (image.mean(0) < 0).float()
    share = float(rng.uniform(0.05, 0.4))
    for turns in rng.permutation(4).tolist():
        free = _blank_rows(is_ink.rot90(turns, (-2, -1)), share)
        if free >= _LEAST_BORDER_PX:
            page = image.rot90(turns, (-2, -1))  # its first rows are the edge
            _line_edge(page, rng, free)
            image.copy_(page.rot90(-turns, (-2, -1)))
            return


def _blank_rows(is_ink: Tensor, share: float) -> int:
    """How many of the first rows, at most `share` of all, hold hardly any ink."""
    height = is_ink.shape[0]
    ink = is_ink.mean(1).cumsum(0) / torch.arange(1, height + 1, device=is_ink.device)
    return int((ink[: max(1, int(share * height))] <= _HIDDEN_INK).sum())


def _line_edge(page: Tensor, rng: np.random.Generator, free: int) -> None:
    """A band along the first `free` rows at most, more or less parallel to them; or holes in a row."""
    height, width = page.shape[-2:]
    level = float(rng.uniform(-1.1, -0.6))
    if rng.random() < 0.25:
        _holes(page, rng, free, level)
        return
    softness = min(float(rng.choice((0.5, 1.0, 4.0, 12.0))), free / 6)
    ends = (free - 3 * softness) * (1.0 - float(rng.uniform(0.0, 0.4)) * torch.linspace(0.0, 1.0, width))
    if rng.random() < 0.5:
        ends = ends.flip(0)
    rows = torch.arange(height, device=page.device, dtype=torch.float32)[:, None]
    cover = ((ends.to(page.device) - rows) / softness).sigmoid_()
    page.add_(cover * (level - page))


def _holes(page: Tensor, rng: np.random.Generator, free: int, level: float) -> None:
    """Round holes in a row along the first rows, through which the dark lid is seen."""
    height, width = page.shape[-2:]
    radius = min(free / 2 - 1, float(rng.uniform(5, 22)))
    centre_y = float(rng.uniform(radius, free - radius))
    pitch = float(rng.uniform(4, 12)) * radius
    first = float(rng.uniform(0, pitch))
    rows = torch.arange(height, device=page.device, dtype=torch.float32)[:, None] - centre_y
    columns = torch.arange(width, device=page.device, dtype=torch.float32)[None]
    along = (columns - first + pitch / 2).remainder(pitch) - pitch / 2
    cover = (radius - (rows.square() + along.square()).sqrt_()).mul_(1.5).sigmoid_()
    page.add_(cover * (level - page))


def paper_noise(image: Tensor, rng: np.random.Generator) -> None:
    """Rough, fibrous or foxed paper: noise of several grain sizes, stronger on paper than in ink."""
    height, width = image.shape[-2:]
    generator = torch.Generator(device=image.device).manual_seed(int(rng.integers(0, 2**62)))
    total = torch.zeros((height, width), dtype=image.dtype, device=image.device)
    amplitude = float(rng.uniform(0.03, 0.25))
    for grain in (1, 2, 4, 8, 16):
        part = float(rng.uniform(0.0, 1.0)) * amplitude
        size = (-(-height // grain) + 1, -(-width // grain) + 1)
        coarse = torch.empty((1, 1, *size), device=image.device).normal_(0.0, part, generator=generator)
        if grain > 1:
            wanted = (size[0] * grain, size[1] * grain)
            coarse = torch.nn.functional.interpolate(coarse, size=wanted, mode="bilinear", align_corners=False)
        total.add_(coarse[0, 0, :height, :width])
    paper = image.mean(0).add_(1.0).mul_(0.5).clamp_(0.15, 1.0)
    image.add_(total.mul_(paper))


def jpeg(image: Tensor, quality: int) -> None:
    """The blocks and ripples about strokes that JPEG leaves.

    Args:
        image: (C, Y, X), written into; rendered with 8 bits over its own range, at least ink to paper.
        quality: 1..100.
    """
    low, high = (float(v) for v in image.aminmax())
    low, high = min(low, -1.0), max(high, 1.0)
    rendered = image.sub(low).mul_(255.0 / (high - low)).round_().to(torch.uint8).cpu().numpy()
    if len(rendered) == 3:
        colours = np.ascontiguousarray(np.moveaxis(rendered, 0, -1))
        found = np.moveaxis(imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(colours, level=quality)), -1, 0)
    else:
        found = np.stack([imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(one, level=quality)) for one in rendered])
    decoded = torch.from_numpy(np.ascontiguousarray(found)).to(image.device, image.dtype)
    image.copy_(decoded.mul_((high - low) / 255.0).add_(low))


def _field(image: Tensor, rng: np.random.Generator, num_points: int, low: float, high: float) -> Tensor:
    """(Y, X) smooth random numbers of about `low` to `high`."""
    size: Size2 = (image.shape[-2], image.shape[-1])
    points = rng.uniform(low, high, size=(num_points, num_points)).astype(np.float32)
    return smooth_field(torch.from_numpy(points).to(image.device), size, size)


def _tint(image: Tensor, rng: np.random.Generator) -> Tensor:
    """(C, 1, 1): stains are brown, they swallow more of the last colour (blue) than of the first."""
    num = image.shape[0]
    steps = np.linspace(-1.0, 1.0, num) if num > 1 else np.zeros(1)
    values = 1.0 + float(rng.uniform(0.0, 0.4)) * steps
    return torch.from_numpy(values.astype(np.float32)).to(image.device)[:, None, None]


def _darken(image: Tensor, share: Tensor) -> None:
    """Takes `share` (0..1) of the light that comes back from the paper; black stays black."""
    image.add_(1.0).mul_(1.0 - share.clamp(0.0, 1.0)).sub_(1.0)
