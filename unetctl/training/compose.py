"""Pictures composed from one shape: turned, scaled, lit, pasted onto backgrounds among other things; with their masks.

Composer(shape, options, photos)(size, chance) -> Composite(pixels, mask)
ComposedSet(composer, normalise, ...).sample(step_seed, num, first) -> Crops       as `PlaneSet`, never the same twice
composed_planes(composer, ...) -> planes to validate on

shape  (0,0)---.        canvas
       |  logo |   -->    .--.         corners of the shape to corners in the canvas, by a homography;
       '---(1,1)          '---'        sampled from a pyramid of halved shapes
"""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy import ndimage
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from unetctl.geometry.box import Box
from unetctl.recipe.compose_section import Compose
from unetctl.recipe.schema import Recipe
from unetctl.runtime.grey_scale import LUMINANCE, NEEDS_STATISTICS, Scaling
from unetctl.runtime.statistics import measure
from unetctl.training.augment import sample_rngs
from unetctl.training.crops import Crops, Plane, PlaneSet
from unetctl.training.scenery import background, clutter, photo, thing
from unetctl.training.shape import HALF, Shape

Floats = npt.NDArray[np.float32]
Size2 = tuple[int, int]

#: Streams of chance, so that no picture of one kind is ever one of another.
TRAINING, VALIDATION, TEST = 2, 3, 4
#: Colours of the shape that distractors take.
_NUM_PALETTE = 64


@dataclass(frozen=True)
class Composite:
    """A composed picture.

    Attributes:
        pixels: (3, y, x) uint8.
        mask: (y, x) True where the shape is to be seen.
    """

    pixels: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]


class Composer:
    """Composes pictures of a shape.

    Args:
        shape: what is pasted.
        options: of the recipe.
        photos: (3, y, x) 0..1 each, to paste onto; none: backgrounds are made up.
    """

    def __init__(self, shape: Shape, options: Compose, photos: Sequence[Floats] = ()) -> None:
        self.shape, self.options, self.photos = shape, options, tuple(photos)
        colours = shape.colour[:, shape.alpha >= HALF].T
        self._palette = np.ascontiguousarray(colours[:: max(1, len(colours) // _NUM_PALETTE)])

    @cached_property
    def _levels(self) -> list[torch.Tensor]:
        """(1, 4, y, x) colour and alpha, each level half as large as the one before."""
        levels = [torch.from_numpy(np.concatenate([self.shape.colour, self.shape.alpha[None]]))[None]]
        while min(levels[-1].shape[-2:]) >= 8:
            levels.append(F.avg_pool2d(levels[-1], 2, ceil_mode=True, count_include_pad=False))
        return levels

    def __call__(self, size: Size2, chance: np.random.Generator) -> Composite:
        """A picture (y, x) of that size; a function of the generator's state alone."""
        o = self.options
        canvas = photo(self.photos, size, chance) if self.photos else background(size, chance)
        clutter(canvas, chance, int(chance.integers(0, o.distractors + 1)), self._palette)
        seen = np.zeros(size, np.float32)
        if chance.random() >= o.negatives:
            seen = self._paste(canvas, chance)
        if chance.random() < 0.2 and o.distractors:
            box, cover = thing(size, chance, chance.uniform(0.03, 0.15))
            if box is not None:  # in front of the shape
                canvas[(slice(None), *box)] += (chance.uniform(0, 1, (3, 1, 1)) - canvas[(slice(None), *box)]) * cover[
                    None
                ]
                seen[box] *= 1 - cover
        canvas = _lit(canvas, chance, 0.6 * o.light)
        return Composite(_exposed(canvas, chance), seen >= HALF)

    def _paste(self, canvas: Floats, chance: np.random.Generator) -> Floats:
        """Puts the shape into a canvas (3, y, x), in place; how much of every pixel it covers, (y, x)."""
        o, size = self.options, canvas.shape[1:]
        corners = self._corners(size, chance)
        low = [max(0, math.floor(v)) for v in corners.min(0)]
        high = [min(n, math.ceil(v) + 1) for v, n in zip(corners.max(0), size, strict=True)]
        cover = np.zeros(size, np.float32)
        if any(b <= a for a, b in zip(low, high, strict=True)):
            return cover
        box = (slice(low[0], high[0]), slice(low[1], high[1]))
        colour, alpha = self._seen(corners, low, high)
        if chance.random() < 0.2:  # a shadow of it
            shift, soft = chance.uniform(-0.04, 0.04, 2) * max(alpha.shape), chance.uniform(0.5, 4)
            shadow = ndimage.gaussian_filter(ndimage.shift(alpha, shift, order=1), soft)
            canvas[(slice(None), *box)] *= 1 - chance.uniform(0.1, 0.6) * shadow[None]
        colour = _lit(colour, chance, o.light)
        alpha = alpha * (chance.uniform(0.75, 1) if chance.random() < 0.15 else 1)
        under = canvas[(slice(None), *box)]
        canvas[(slice(None), *box)] = under + (colour - under) * alpha[None]
        cover[box] = alpha
        return cover

    def _corners(self, size: tuple[int, ...], chance: np.random.Generator) -> npt.NDArray[np.float64]:
        """(4, 2) where the shape's corners come to lie, (y, x): top left, top right, bottom right, bottom left."""
        o, own = self.options, np.asarray(self.shape.size, np.float64)
        longer = math.exp(chance.uniform(math.log(o.size_px[0]), math.log(o.size_px[1])))
        half = own / own.max() * longer / 2
        square = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) * half
        square += chance.uniform(-o.perspective, o.perspective, (4, 2)) * half * 2
        angle = math.radians(chance.uniform(-o.rotate_deg, o.rotate_deg))
        turned = square @ np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        extent = turned.max(0) - turned.min(0)
        # A fifth of it may be cut off on each side; what is larger than the canvas is seen in part.
        centre = [chance.uniform(*sorted((0.3 * e, n - 0.3 * e))) for e, n in zip(extent, size, strict=True)]
        return np.asarray(turned + centre)

    def _seen(self, corners: npt.NDArray[np.float64], low: Sequence[int], high: Sequence[int]) -> tuple[Floats, Floats]:
        """Colour (3, y, x) and alpha (y, x) of the shape in a box of the canvas."""
        side = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1).max()
        level = int(np.clip(math.log2(max(1.0, max(self.shape.size) / max(side, 1.0))), 0, len(self._levels) - 1))
        to_unit = _homography(corners, np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]], np.float64))
        y, x = np.mgrid[low[0] : high[0], low[1] : high[1]] + 0.5
        v, u, w = to_unit @ np.stack([y.ravel(), x.ravel(), np.ones(y.size)])
        grid = np.stack([u / w, v / w], -1).reshape(1, *y.shape, 2).astype(np.float32)
        source = self._levels[level]
        sampled = F.grid_sample(source, torch.from_numpy(grid), padding_mode="border", align_corners=False)[0].numpy()
        # Beyond its edges the shape ends, over one of its own pixels.
        edge = [(1 - np.abs(grid[0, ..., i])) * source.shape[3 - i] / 2 + 0.5 for i in range(2)]
        inside = np.clip(np.minimum(edge[0], edge[1]), 0, 1)
        return sampled[:3], sampled[3] * inside


def _homography(start: npt.NDArray[np.float64], stop: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """3 x 3 that takes four points (y, x) to four others."""
    rows, right = [], []
    for (a, b), (c, d) in zip(start, stop, strict=True):
        rows += [[a, b, 1, 0, 0, 0, -c * a, -c * b], [0, 0, 0, a, b, 1, -d * a, -d * b]]
        right += [c, d]
    return np.append(np.linalg.solve(np.array(rows), np.array(right)), 1.0).reshape(3, 3)


def _lit(colour: Floats, chance: np.random.Generator, amount: float) -> Floats:
    """Another light on a picture (3, y, x): brighter or darker, tinted, from one side, with another contrast."""
    if not amount:
        return colour
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in colour.shape[1:])
    slope = chance.uniform(-0.5, 0.5, 2) * amount
    gain = math.exp(chance.uniform(-0.7, 0.5) * amount) * (1 + y[:, None] * slope[0] + x[None] * slope[1])
    tint = np.exp(chance.uniform(-0.3, 0.3, 3) * amount)[:, None, None]
    exponent = math.exp(chance.uniform(-0.8, 0.8) * amount)
    haze = chance.uniform(0, 0.3) * amount
    lit = np.clip(colour, 0, 1) ** exponent * gain[None] * tint * (1 - haze) + haze
    return np.asarray(np.clip(lit, 0, 1), np.float32)


def _exposed(canvas: Floats, chance: np.random.Generator) -> npt.NDArray[np.uint8]:
    """As a camera has it: a little blurred, a little noisy, often through JPEG."""
    if chance.random() < 0.3:
        canvas = ndimage.gaussian_filter(canvas, (0, *[chance.uniform(0.3, 1.2)] * 2))
    if chance.random() < 0.5:
        canvas = canvas + chance.uniform(0, 0.05) * chance.standard_normal(canvas.shape, np.float32)
    pixels = np.clip(np.rint(canvas * 255), 0, 255).astype(np.uint8)
    if chance.random() < 0.3:
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(np.moveaxis(pixels, 0, -1))).save(
            file, "JPEG", quality=int(chance.integers(30, 96))
        )
        pixels = np.ascontiguousarray(np.moveaxis(np.asarray(Image.open(file)), -1, 0))
    return pixels


def as_plane(composite: Composite, recipe: Recipe, name: str) -> Plane:
    """A composite as the network is given it, scaled as `predict` scales pictures."""
    pixels: npt.NDArray[np.generic] = composite.pixels
    if recipe.input.channels == 1:
        pixels = np.tensordot(np.asarray(LUMINANCE, np.float32), composite.pixels.astype(np.float32), 1)[None]
    statistics = None
    n = recipe.normalise
    if n.method in NEEDS_STATISTICS:

        def read(box: Box) -> npt.NDArray[np.generic]:
            return pixels[(slice(None), *box.slices())]

        statistics = measure(read, pixels.shape[1:], low=n.low, high=n.high, max_pixels=n.sample_pixels)
    scaling = Scaling.of(n, statistics, len(pixels), np.dtype(np.uint8))
    shift, factor = (np.asarray(v, np.float32)[:, None, None] for v in (scaling.shift, scaling.factor))
    return Plane(name, (pixels.astype(np.float32) - shift) * factor, composite.mask[None].astype(np.uint8))


def composed_planes(
    composer: Composer, recipe: Recipe, stream: int, num: int, should_stop: Callable[[], bool] = lambda: False
) -> tuple[Plane, ...]:
    """The first pictures of a stream as planes, `compose.picture` large; fewer if asked to stop."""
    made = []
    for i, composite in enumerate(composites(composer, recipe.compose.picture, stream, num)):
        if should_stop():
            break
        made.append(as_plane(composite, recipe, f"composite {i}"))
    return tuple(made)


def composites(composer: Composer, size: Size2, stream: int, num: int) -> Iterator[Composite]:
    """The first pictures of a stream: those of validation and test are the same in every training."""
    return (composer(size, np.random.default_rng([stream, i])) for i in range(num))


class ComposedSet(PlaneSet):
    """Crops that are composed when they are asked for.

    Args:
        composer: makes them.
        recipe: says how they are scaled.
        core, halo, margin: see `PlaneSet`; the picture is composed as large as all of them.
    """

    def __init__(self, composer: Composer, recipe: Recipe, core: Size2, halo: Size2, margin: Size2) -> None:
        self._composer, self._recipe = composer, recipe
        first = as_plane(composer(core, np.random.default_rng([TRAINING])), recipe, composer.shape.name)
        super().__init__([first], core, halo, margin)

    def sample(self, step_seed: Sequence[int], num: int, first: int = 0) -> Crops:
        """See `PlaneSet.sample`; each depends on `step_seed` and its own index alone."""
        size = self._around((0, 0), (self.halo[0] + self.margin[0], self.halo[1] + self.margin[1]))[1]
        inner = tuple(slice(h, h + c + 2 * m) for h, c, m in zip(self.halo, self.core, self.margin, strict=True))
        planes = [
            as_plane(
                self._composer(size, np.random.default_rng([*step_seed, i, TRAINING])), self._recipe, "a composite"
            )
            for i in range(first, first + num)
        ]
        return Crops(
            torch.from_numpy(np.stack([p.pixels for p in planes])),
            torch.from_numpy(np.stack([p.target[(slice(None), *inner)] for p in planes])),
            None,
            tuple(sample_rngs(step_seed, num, first)),
            ((0, 0, 0),) * num,
        )

    def __str__(self) -> str:
        return f"composed from {self._composer.shape.name}, tiles of {'x'.join(map(str, self.tile))}"
