"""Damage made up on clean pictures: square and round overlays, solid or translucent, of any colour, one over the other.

    DamageOptions(overlays, size_px, shapes, opaque_share, alpha, colours, clean_share); DamageOptions.of(recipe)
    draw_overlays(rng, size, options, inside=False) -> overlays of one picture
    draw_for_crop(rng, size, options) -> those of a picture that reach into a crop of it
    damaged(pixels (N, C, Y, X), overlays) -> (pixels, mask (N, 1, Y, X), opaque (N, 1, Y, X))

What is drawn follows from the generators alone, one a picture: neither the batch nor the device has a say.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unetctl.recipe.damage_section import Damage, Shape

#: Steps between black and white in pictures of 8 bits: damaged pixels lie on them, as they do in files.
_STEPS = 255.0


@dataclass(frozen=True)
class Overlay:
    """One overlay.

    Attributes:
        y, x: centre, pixels from the picture's corner; the centre of pixel 0 is 0.5.
        size_px: side or diameter.
        shape: "square" or "round".
        alpha: opacity, 0..1; 1 hides what is below.
        colour: red, green and blue, 0..1.
    """

    y: float
    x: float
    size_px: int
    shape: Shape
    alpha: float
    colour: tuple[float, float, float]

    @property
    def is_opaque(self) -> bool:
        """True if nothing shines through."""
        return self.alpha >= 1


@dataclass(frozen=True)
class DamageOptions:
    """What may lie on a picture; see `unetctl.recipe.damage_section.Damage`, whose values these are."""

    overlays: tuple[int, int] = (1, 4)
    size_px: tuple[int, int] = (16, 128)
    shapes: tuple[Shape, ...] = ("square", "round")
    opaque_share: float = 0.5
    alpha: tuple[float, float] = (0.3, 0.9)
    colours: tuple[str, ...] = ()
    clean_share: float = 0.0
    picture: tuple[int, int] | None = None
    remade_share: float = 0.0
    resaved_share: float = 0.0

    @classmethod
    def of(cls, damage: Damage) -> "DamageOptions":
        """Those of a recipe."""
        return cls(**damage.model_dump())


def draw_overlays(
    rng: np.random.Generator, size: tuple[int, int], options: DamageOptions, inside: bool = False
) -> tuple[Overlay, ...]:
    """Overlays for one picture, in the order in which they are laid.

    Args:
        rng: the picture's own.
        size: (y, x) pixels of the picture.
        options: what may lie on it.
        inside: overlays lie wholly in the picture wherever they are smaller than it; else their centres lie anywhere in it.
    """
    if options.clean_share and rng.random() < options.clean_share:
        return ()
    num = int(rng.integers(options.overlays[0], options.overlays[1] + 1))
    return tuple(_drawn(rng, size, options, inside) for _ in range(num))


def draw_for_crop(rng: np.random.Generator, size: tuple[int, int], options: DamageOptions) -> tuple[Overlay, ...]:
    """Overlays for a crop: those of a picture of `options.picture` pixels that reach into a window of it.

    So a crop is damaged as often and as much as any part of a whole picture is. Where no size of pictures is given, or
    the crop is larger, the crop counts as the picture.

    Args:
        rng: the crop's own.
        size: (y, x) pixels of the crop.
        options: what may lie on a picture.
    """
    whole = [max(n, p) for n, p in zip(size, options.picture or size, strict=True)]
    before = [(w - n) // 2 for w, n in zip(whole, size, strict=True)]
    drawn = draw_overlays(rng, (whole[0], whole[1]), options)
    return tuple(replace(one, y=one.y - before[0], x=one.x - before[1]) for one in drawn)


def _drawn(rng: np.random.Generator, size: tuple[int, int], options: DamageOptions, inside: bool) -> Overlay:
    extent = int(rng.integers(options.size_px[0], options.size_px[1] + 1))
    shape = options.shapes[int(rng.integers(len(options.shapes)))]
    is_opaque = rng.random() < options.opaque_share
    alpha = float(rng.uniform(*options.alpha))
    colour = tuple(float(v) / _STEPS for v in rng.integers(0, 256, 3))
    if options.colours:
        text = options.colours[int(rng.integers(len(options.colours)))]
        colour = tuple(int(text[i : i + 2], 16) / _STEPS for i in (1, 3, 5))
    centre = []
    for num_pixels in size:
        if inside and num_pixels >= extent:
            centre.append(int(rng.integers(0, num_pixels - extent + 1)) + extent / 2)
        else:
            centre.append(int(rng.integers(0, num_pixels)) + 0.5 * (extent % 2))
    red, green, blue = colour
    return Overlay(centre[0], centre[1], extent, shape, 1.0 if is_opaque else alpha, (red, green, blue))


def covered(overlay: Overlay, size: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """(Y, X) truth values: the pixels of a picture of `size` whose centres lie in the overlay."""
    y = (torch.arange(size[0], device=device) + 0.5 - overlay.y)[:, None]
    x = (torch.arange(size[1], device=device) + 0.5 - overlay.x)[None]
    half = overlay.size_px / 2
    if overlay.shape == "round":
        return y.square() + x.square() <= half**2
    return (y.abs() <= half) & (x.abs() <= half)


def damaged(pixels: Tensor, overlays: Sequence[Sequence[Overlay]]) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures with overlays laid on them.

    Args:
        pixels: (N, C, Y, X) float, black 0 and white 1; not written to. Of 3 channels these are red, green and blue; any
            other number takes the brightness of the colour.
        overlays: of each picture, the first one below the others.

    Returns:
        (N, C, Y, X) the damaged pictures, whose damaged pixels are rounded to the 256 levels of files; (N, 1, Y, X) bool,
        where the damage is; (N, 1, Y, X) bool, where the topmost overlays hide the picture wholly.
    """
    found = pixels.clone()
    num, channels, *size = pixels.shape
    mask = torch.zeros((num, 1, *size), dtype=torch.bool, device=pixels.device)
    opaque = torch.zeros_like(mask)
    for i, some in enumerate(overlays):
        for overlay in some:
            rows, columns = (_span(c, overlay.size_px, n) for c, n in zip((overlay.y, overlay.x), size, strict=True))
            if rows.stop <= rows.start or columns.stop <= columns.start:
                continue
            moved = Overlay(
                overlay.y - rows.start, overlay.x - columns.start, overlay.size_px, overlay.shape, overlay.alpha,
                overlay.colour,
            )  # fmt: skip
            inside = covered(moved, (rows.stop - rows.start, columns.stop - columns.start), pixels.device)
            part = found[i, :, rows, columns]
            colour = _colour(overlay, channels, pixels)
            # an opaque overlay is no sum with 0 of the picture, which would keep what is not finite
            laid = colour.expand_as(part) if overlay.is_opaque else part + overlay.alpha * (colour - part)
            part.copy_(torch.where(inside, on_levels(laid.clamp(0, 1)), part))
            mask[i, 0, rows, columns] |= inside
            if overlay.is_opaque:
                opaque[i, 0, rows, columns] |= inside
    return found, mask, opaque


def on_levels(pixels: Tensor) -> Tensor:
    """Pixels from 0 to 1 rounded to the 256 levels of files."""
    return pixels.mul(_STEPS).round().div(_STEPS)


def _span(centre: float, extent: int, size: int) -> slice:
    return slice(max(0, int(centre - extent / 2 - 1)), min(size, int(centre + extent / 2 + 2)))


def _colour(overlay: Overlay, channels: int, like: Tensor) -> Tensor:
    """(C, 1, 1)."""
    red, green, blue = overlay.colour
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    values = overlay.colour if channels == 3 else (grey,) * channels
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]
