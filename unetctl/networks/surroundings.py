"""What lies around a hole, continued into it: blurs of what is known, each twice as wide as the last.

    continued(x (N, C, ...), known (N, 1, ...), scales) -> (N, C, ...)

A normalised convolution (Knutsson and Westin 1993) a scale: the blurred picture, with what is unknown left out, over the
blurred knowledge. Every scale fills what the finer ones knew too little of, as in the pull-push method (Gortler et al. 1996,
"The Lumigraph", section 3.4); but nothing is subsampled (the "à trous" cubic B-spline of wavelet transforms), so the result
at a pixel follows from the pixels around it and not from where the picture was cut.
"""

import torch
from torch import Tensor
from torch.nn import functional

#: Cubic B-spline, of which the widest scale is the convolution with itself, spread out by powers of 2.
_TAPS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
#: A scale is trusted wholly where this share of what it sees is known; measured on photographs: 2 to 8 do the same.
_ENOUGH = 1 / 4
#: Below it nothing is known that float32 could tell from nothing.
_NOTHING = 1e-6


def continued(x: Tensor, known: Tensor, scales: int) -> Tensor:
    """The picture where it is known, its surroundings elsewhere.

    Args:
        x: (N, C, *space) float; beyond its edges nothing is known.
        known: (N, 1, *space), 0 (not at all) to 1.
        scales: number of blurs; `n` of them reach ``2 * (2**n - 1)`` pixels, 6 of them 126.

    Returns:
        As `x`. Farther from anything known than the blurs reach, `x` itself.
    """
    blurred = torch.cat((x * known, known), 1)
    filled, left = x * known, 1 - known
    for scale in range(scales):
        blurred = _blurred(blurred, 2**scale)
        share = blurred[:, -1:]
        trust = (share / _ENOUGH).clamp(max=1) if scale < scales - 1 else (share > _NOTHING).to(x.dtype)
        filled = filled + left * trust * (blurred[:, :-1] / share.clamp_min(_NOTHING))
        left = left * (1 - trust)
    return filled + left * x


def _blurred(x: Tensor, step: int) -> Tensor:
    """By the spline with `step` pixels between its taps, along each axis; beyond the edges all is 0."""
    for axis in range(2, x.ndim):
        size = x.shape[axis]
        amounts = [0, 0] * (x.ndim - 1 - axis) + [2 * step, 2 * step]
        wide = functional.pad(x, amounts)
        parts = [tap * wide.narrow(axis, k * step, size) for k, tap in enumerate(_TAPS)]
        x = ((parts[0] + parts[4]) + (parts[1] + parts[3])) + parts[2]
    return x
