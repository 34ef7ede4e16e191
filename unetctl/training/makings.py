"""How pictures come to be as they are, imitated on clean crops: what one camera or program leaves must not be all that is known.

    remade(picture (C, y, x) 0..1, rng) -> (C, y, x) 0..1
    recompressed(picture (C, y, x) 0..1, rng) -> (C, y, x) 0..1

A network that has only seen photographs from one source tells overlays from them by the noise and the JPEG blocks of that
source, which solid overlays lack: on pictures that were denoised, reduced to few colours, sharpened or drawn it takes every
even area for damage, and under the noise of another camera it overlooks what shines through. Measured on six validation
photographs, mask IoU 0.93 as they are: 0.53 after a median filter, 0.59 in 64 colours, 0.86 sharpened.
"""

import math

import imagecodecs
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor

Pixels = npt.NDArray[np.uint8]

_STEPS = 255.0
_NUM_COLOURS = 3
#: Of crops that are remade, so many become drawings with lettering; each of the other changes happens to such a share.
_DRAWING_SHARE = 0.18
_SHARES = {
    "textured": 0.25,
    "enlarged": 0.25,
    "denoised": 0.25,
    "few_colours": 0.2,
    "sharpened": 0.22,
    "noisy": 0.35,
    "compressed": 0.3,
}
#: Drawn shapes whose sides differ by less might be overlays.
_LEAST_ASPECT = 1.5
_LETTERS = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,:;()+-=/%"


def remade(picture: Tensor, rng: np.random.Generator) -> Tensor:
    """A clean picture as another source would have given it; at least one thing about it is changed.

    Args:
        picture: (C, y, x) float 0..1; of one or three channels, any other number is returned as it is. Not written to.
        rng: the sample's own.

    Returns:
        As `picture`, on the 256 levels of files.
    """
    if picture.shape[0] not in (1, _NUM_COLOURS):
        return picture
    pixels = _as_image(picture)
    if rng.random() < _DRAWING_SHARE:
        pixels = _drawing(pixels, rng)
    changes = {
        "textured": _textured,
        "enlarged": _enlarged,
        "denoised": _denoised,
        "few_colours": _few_colours,
        "sharpened": _sharpened,
        "noisy": _noisy,
        "compressed": _compressed,
    }
    names = list(changes)
    chosen = [name for name in names if rng.random() < _SHARES[name]] or [names[int(rng.integers(len(names)))]]
    for name in chosen:
        pixels = changes[name](pixels, rng)
    return _as_tensor(pixels, picture)


def recompressed(picture: Tensor, rng: np.random.Generator) -> Tensor:
    """A picture (C, y, x) 0..1 that was saved as a JPEG of quality 60 to 95; of one or three channels, else as it is."""
    if picture.shape[0] not in (1, _NUM_COLOURS):
        return picture
    return _as_tensor(_jpeg(_as_image(picture), int(rng.integers(60, 96))), picture)


def _as_image(picture: Tensor) -> Pixels:
    """(y, x, 3)."""
    levels = picture.detach().clamp(0, 1).mul(_STEPS).round().to(torch.uint8).cpu().numpy()
    return np.ascontiguousarray(np.moveaxis(np.broadcast_to(levels, (_NUM_COLOURS, *levels.shape[1:])), 0, -1))


def _as_tensor(pixels: Pixels, like: Tensor) -> Tensor:
    colours = pixels if like.shape[0] == _NUM_COLOURS else np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    return torch.from_numpy(np.moveaxis(colours, -1, 0).copy()).to(like).div(_STEPS)


def _textured(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """With stripes, weave, fur or gravel, in a part of it with soft edges or all over.

    Noise of a band of frequencies, from all directions or about one.
    """
    height, width = pixels.shape[:2]
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = math.exp(rng.uniform(math.log(0.04), math.log(0.45)))  # per pixel
    spread = frequency * math.exp(rng.uniform(math.log(0.04), math.log(0.6)))
    if rng.random() < 0.6:
        angle = rng.uniform(-math.pi / 2, math.pi / 2)
        off = np.hypot(y - frequency * math.sin(angle), x - frequency * math.cos(angle))
    else:
        off = np.hypot(y, x) - frequency
    texture = _noise_of(np.exp(-0.5 * (off / spread) ** 2), (height, width), rng)
    if rng.random() < 0.3:
        texture = np.tanh(4 * texture)
    strength = math.exp(rng.uniform(math.log(4), math.log(45))) * (1 + 0.3 * rng.standard_normal(_NUM_COLOURS))
    if rng.random() < 0.7:
        where = _noise_of(np.exp(-0.5 * (np.hypot(y, x) * 40) ** 2), (height, width), rng)
        texture = texture / (1 + np.exp(-4 * where))
    return np.clip(np.rint(pixels + strength * texture[..., None]), 0, _STEPS).astype(np.uint8)


def _noise_of(
    spectrum: npt.NDArray[np.float64], size: tuple[int, int], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """(y, x), of mean square 1, with the amplitudes (y, x // 2 + 1) of its frequencies given."""
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(size)) * spectrum, size)
    return noise / max(float(np.sqrt(np.mean(noise**2))), 1e-6)


def _enlarged(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """From fewer pixels: soft, and its noise with it."""
    height, width = pixels.shape[:2]
    factor = math.exp(rng.uniform(math.log(1.2), math.log(3)))
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    image = Image.fromarray(pixels).resize(small, Image.Resampling.BOX)
    resampling = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS)[int(rng.integers(3))]
    return np.asarray(image.resize((width, height), resampling))


def _denoised(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """By medians of 3x3, one after another: areas become even, edges stay."""
    for _ in range(int(rng.integers(1, 6))):
        pixels = _median_of_nine(pixels)
    return pixels


def _median_of_nine(pixels: Pixels) -> Pixels:
    """The median around each pixel, exactly, by comparisons alone.

    It is the middle one of three: of the sorted columns the largest of the small ones, the middle one of the middle ones and
    the smallest of the large ones. A filter that sorts takes forty times as long.
    """
    padded = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    above, at, below = padded[:-2], padded[1:-1], padded[2:]
    low = np.minimum(np.minimum(above, at), below)
    middle = _middle(above, at, below)
    high = np.maximum(np.maximum(above, at), below)
    return _middle(
        np.maximum(np.maximum(low[:, :-2], low[:, 1:-1]), low[:, 2:]),
        _middle(middle[:, :-2], middle[:, 1:-1], middle[:, 2:]),
        np.minimum(np.minimum(high[:, :-2], high[:, 1:-1]), high[:, 2:]),
    )


def _middle(a: Pixels, b: Pixels, c: Pixels) -> Pixels:
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


def _few_colours(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """As in GIF and PNG with a palette, dithered or not."""
    num = round(math.exp(rng.uniform(math.log(6), math.log(128))))
    dither = Image.Dither.FLOYDSTEINBERG if rng.random() < 0.3 else Image.Dither.NONE
    image = Image.fromarray(pixels)
    palette = image.quantize(num, Image.Quantize.FASTOCTREE if rng.random() < 0.5 else Image.Quantize.MEDIANCUT)
    return np.asarray(image.quantize(palette=palette, dither=dither).convert("RGB"))


def _sharpened(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    amount = ImageFilter.UnsharpMask(float(rng.uniform(0.6, 2)), int(rng.integers(50, 251)), 0)
    return np.asarray(Image.fromarray(pixels).filter(amount))


def _noisy(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Of a sensor, each channel for itself, or of film, all alike."""
    height, width, channels = pixels.shape
    shape = (height, width, channels if rng.random() < 0.5 else 1)
    sigma = math.exp(rng.uniform(0, math.log(16)))
    noise = sigma * rng.standard_normal(shape, np.float32)
    return np.clip(np.rint(pixels + noise), 0, _STEPS).astype(np.uint8)


def _compressed(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return _jpeg(pixels, int(rng.integers(20, 96)))


def _jpeg(pixels: Pixels, quality: int) -> Pixels:
    return np.asarray(imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(pixels, level=quality)))


def _drawing(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Lettering, bars, lines and other shapes on an even ground or on the picture; nothing that an overlay looks like."""
    height, width = pixels.shape[:2]
    on_picture = rng.random() < 0.3
    image = Image.fromarray(pixels if on_picture else np.full_like(pixels, _ground(rng)))
    draw = ImageDraw.Draw(image)
    if not on_picture and rng.random() < 0.3:  # a picture in the text
        top, left = int(rng.integers(height)), int(rng.integers(width))
        image.paste(Image.fromarray(pixels).crop((left, top, width, height)), (left, top))
    for _ in range(int(rng.integers(0, 6))):
        _shape(draw, (width, height), rng)
    ink = _colour(rng)
    for _ in range(int(rng.integers(0, 10))):
        size = int(rng.integers(8, 33))
        text = "".join(_LETTERS[int(k)] for k in rng.integers(0, len(_LETTERS), int(rng.integers(3, 60))))
        at = (int(rng.integers(-width // 2, width)), int(rng.integers(-size, height)))
        draw.text(at, text, fill=ink if rng.random() < 0.7 else _colour(rng), font=ImageFont.load_default(size))
    return np.asarray(image)


def _shape(draw: ImageDraw.ImageDraw, size: tuple[int, int], rng: np.random.Generator) -> None:
    short = int(rng.integers(2, 60))
    long = round(short * rng.uniform(_LEAST_ASPECT, 6))
    w, h = (short, long) if rng.random() < 0.5 else (long, short)
    # whole where it fits: what is left of it at an edge might look like an overlay
    x, y = (int(rng.integers(0, max(1, n - extent))) for n, extent in zip(size, (w, h), strict=True))
    colour, outline = _colour(rng), int(rng.integers(1, 5))
    match int(rng.integers(5)):
        case 0:
            draw.rectangle((x, y, x + w, y + h), fill=colour)
        case 1:
            draw.ellipse((x, y, x + w, y + h), fill=colour)
        case 2:
            draw.rectangle((x, y, x + w, y + h), outline=colour, width=outline)
        case 3:
            points = [(int(rng.integers(0, size[0])), int(rng.integers(0, size[1]))) for _ in range(3)]
            draw.polygon(points, fill=colour)
        case _:
            draw.line((x, y, int(rng.integers(0, size[0])), int(rng.integers(0, size[1]))), fill=colour, width=outline)


def _ground(rng: np.random.Generator) -> tuple[int, int, int]:
    """Paper mostly, else any colour."""
    if rng.random() < 0.5:
        light = int(rng.integers(225, 256))
        return light, light, light
    return _colour(rng)


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in rng.integers(0, 256, 3))
    return (red, green, blue) if rng.random() < 0.7 else (red // 4, red // 4, red // 4)
