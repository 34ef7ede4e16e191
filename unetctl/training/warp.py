"""The geometric half of augmentation: one map from output to input pixels, sampled once.

    offset in the input = M @ (offset in the output) + displacement(offset in the output)

Offsets are (y, x) in pixels from the centres of the arrays, so arrays of different sizes about one centre (a
tile, the core inside it) follow the same map. M joins stretch, flips, rotation and scale. The displacement is the
elastic deformation of Ronneberger et al. 2015, section 3.1: random vectors on a coarse grid over the tile,
interpolated bicubically.

    random_warp(rng, flip, rotate, scale, stretch, elastic_sigma_px, elastic_grid, elastic_prob) -> Warp
    apply_warp(image (C, Y, X), warp, out, tile, mode) -> (C, *out)
    cubic_matrix(num_out, num_span, num_points) -> (num_out, num_points)
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

Rotation = Literal["none", "quarter", "any"]
Mode = Literal["nearest", "bilinear", "bicubic"]
Size2 = tuple[int, int]
Matrix2 = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Warp:
    """One sample's geometry, drawn before any pixel is touched.

    Attributes:
        flip_y: mirror along y (after the rotation).
        flip_x: mirror along x (after the rotation).
        num_quarters: quarter turns, 0..3.
        angle_rad: rotation on top of the quarter turns.
        scale: magnification; 2.0 shows half the field twice as large.
        stretch: what becomes narrower along the picture's y by this factor becomes as much wider along its x.
        displacement: (2, g, g) pixels (y, x) at the points of a coarse grid over the tile, corners included;
            None: not elastic.
    """

    flip_y: bool = False
    flip_x: bool = False
    num_quarters: int = 0
    angle_rad: float = 0.0
    scale: float = 1.0
    stretch: float = 1.0
    displacement: tuple[tuple[tuple[float, ...], ...], ...] | None = None

    @property
    def is_exact(self) -> bool:
        """True if every output pixel is one input pixel: no interpolation is needed."""
        return self.angle_rad == 0.0 and self.scale == self.stretch == 1.0 and self.displacement is None

    @property
    def matrix(self) -> Matrix2:
        """M: output offset (y, x) to input offset (y, x)."""
        cos_quarter, sin_quarter = ((1, 0), (0, 1), (-1, 0), (0, -1))[self.num_quarters % 4]
        cos, sin = math.cos(self.angle_rad), math.sin(self.angle_rad)
        c = (cos_quarter * cos - sin_quarter * sin) / self.scale
        s = (sin_quarter * cos + cos_quarter * sin) / self.scale
        fy, fx = (-1.0 if self.flip_y else 1.0) * self.stretch, (-1.0 if self.flip_x else 1.0) / self.stretch
        return ((fy * c, -fy * s), (fx * s, fx * c))


def random_warp(
    rng: np.random.Generator,
    *,
    flip: bool,
    rotate: Rotation,
    scale: tuple[float, float],
    stretch: float = 1.0,
    elastic_sigma_px: float,
    elastic_grid: int,
    elastic_prob: float,
) -> Warp:
    """Draw one sample's geometry.

    Scale and stretch (from 1 / `stretch` to `stretch`) are uniform in their logarithms. The displacements are normal with
    `elastic_sigma_px` (10 in the paper) on `elastic_grid` x `elastic_grid` points (3 in the paper), drawn for
    `elastic_prob` of the samples.
    """
    flip_y, flip_x = (bool(v) for v in rng.integers(0, 2, size=2)) if flip else (False, False)
    num_quarters = int(rng.integers(0, 4)) if rotate == "quarter" else 0
    angle_rad = float(rng.uniform(0.0, 2.0 * math.pi)) if rotate == "any" else 0.0
    factor = 1.0 if scale[0] == scale[1] == 1.0 else math.exp(rng.uniform(math.log(scale[0]), math.log(scale[1])))
    limit = math.log(stretch)
    narrower = math.exp(rng.uniform(-limit, limit)) if stretch > 1 else 1.0
    displacement = None
    if elastic_sigma_px > 0 and rng.random() < elastic_prob:
        vectors = rng.normal(0.0, elastic_sigma_px, size=(2, elastic_grid, elastic_grid))
        displacement = tuple(tuple(tuple(float(v) for v in row) for row in plane) for plane in vectors)
    return Warp(flip_y, flip_x, num_quarters, angle_rad, factor, narrower, displacement)


@lru_cache(maxsize=64)
def cubic_matrix(num_out: int, num_span: int, num_points: int) -> Tensor:
    """Weights that interpolate bicubically from `num_points` grid points to pixels, along one axis.

    The points lie evenly over `num_span` pixels, the first and last one on the outermost pixels' centres; the
    `num_out` pixels have the same centre and may reach past the span (the edge points are repeated). Keys'
    kernel with a = -0.5.

    Returns:
        (num_out, num_points) float32, rows sum to 1. Shared: do not write into it.
    """
    offsets = np.arange(num_out) - (num_out - 1) / 2.0
    position = (offsets / max(num_span - 1, 1) + 0.5) * (num_points - 1)
    below = np.floor(position).astype(np.int64)
    matrix = np.zeros((num_out, num_points))
    for i_tap in range(-1, 3):
        distance = np.abs(position - (below + i_tap))
        near = (1.5 * distance - 2.5) * distance**2 + 1.0
        far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
        weight = np.where(distance <= 1.0, near, np.where(distance < 2.0, far, 0.0))
        np.add.at(matrix, (np.arange(num_out), np.clip(below + i_tap, 0, num_points - 1)), weight)
    return torch.from_numpy(matrix.astype(np.float32))


def smooth_field(points: Tensor, out: Size2, tile: Size2) -> Tensor:
    """Coarse points (gy, gx) spread bicubically over `tile`, at the pixels of `out` about its centre."""
    rows = cubic_matrix(out[0], tile[0], points.shape[0]).to(points.device)
    columns = cubic_matrix(out[1], tile[1], points.shape[1]).to(points.device)
    return rows @ points @ columns.T


def sampling_grid(warp: Warp, out: Size2, tile: Size2, source: Size2, device: torch.device) -> Tensor:
    """The grid of `torch.nn.functional.grid_sample` (align_corners=True) for this warp.

    Args:
        warp: the geometry.
        out: (y, x) pixels of the output.
        tile: (y, x) pixels over which the elastic grid is spread.
        source: (y, x) pixels of the array that will be sampled.
        device: where the grid is made.

    Returns:
        (1, *out, 2) float32, (x, y) in -1..1 between the centres of the outermost input pixels.
    """
    py = torch.arange(out[0], dtype=torch.float32, device=device) - (out[0] - 1) / 2
    px = torch.arange(out[1], dtype=torch.float32, device=device) - (out[1] - 1) / 2
    grid = torch.empty((1, *out, 2), device=device)
    for i_axis in range(2):
        row = warp.matrix[i_axis]
        left = [row[0] * py[:, None], torch.ones_like(py)[:, None]]
        right = [torch.ones_like(px)[None], row[1] * px[None]]
        if warp.displacement is not None:
            points = torch.tensor(warp.displacement[i_axis], dtype=torch.float32, device=device)
            left.append(cubic_matrix(out[0], tile[0], points.shape[0]).to(device))
            right.append(points @ cubic_matrix(out[1], tile[1], points.shape[1]).to(device).T)
        half = max(source[i_axis] - 1, 1) / 2
        grid[0, :, :, 1 - i_axis] = (torch.cat(left, 1) / half) @ torch.cat(right, 0)
    return grid


def centre_crop(image: Tensor, out: Size2) -> Tensor:
    """The (..., *out) view of `image` (..., Y, X) about its centre; the difference must be even."""
    y, x = ((have - want) // 2 for have, want in zip(image.shape[-2:], out, strict=True))
    return image[..., y : y + out[0], x : x + out[1]]


def apply_warp(image: Tensor, warp: Warp, out: Size2, tile: Size2, mode: Mode) -> Tensor:
    """Sample `image` through `warp`.

    Args:
        image: (C, Y, X) of any dtype; bilinear and bicubic need floats, nearest is exact for integers below
            2**24.
        warp: the geometry.
        out: (y, x) of the result, about the image's centre.
        tile: (y, x) over which the elastic grid is spread: the tile that the network sees, also for a smaller
            `out`.
        mode: interpolation. Past the image's edge it is mirrored (numpy's `reflect`).

    Returns:
        (C, *out), dtype of `image`. Flips and quarter turns alone copy pixels without arithmetic.
    """
    if warp.is_exact:
        turned = warp.num_quarters % 2 == 1
        wanted = (out[1], out[0]) if turned else out
        slack = [have - want for have, want in zip(image.shape[-2:], wanted, strict=True)]
        if all(s >= 0 and s % 2 == 0 for s in slack):
            view = centre_crop(image, wanted)
            matrix = warp.matrix
            if turned:
                view = view.transpose(-1, -2)
                signs = (matrix[1][0], matrix[0][1])
            else:
                signs = (matrix[0][0], matrix[1][1])
            axes = [axis for axis, sign in zip((-2, -1), signs, strict=True) if sign < 0]
            return view.flip(axes) if axes else view.contiguous()
    grid = sampling_grid(warp, out, tile, (image.shape[-2], image.shape[-1]), image.device)
    sampled = F.grid_sample(image[None].float(), grid, mode=mode, padding_mode="reflection", align_corners=True)
    return sampled[0].to(image.dtype)
