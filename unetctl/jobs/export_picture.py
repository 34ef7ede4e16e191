"""A made-up picture for the test of an exported network: cells between thin lines, grain, uneven light."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

#: Grey values of cells and of the lines between them, and the grain's deviation.
_CELL, _LINE, _GRAIN = 165.0, 60.0, 12.0
#: Size of cells, and half the width of lines, pixels.
_COARSE, _THIN = 9.0, 1.3


def made_picture(shape: tuple[int, ...], polarity: str = "", seed: int = 0) -> npt.NDArray[np.float32]:
    """Whole grey values from 0 to 255.

    Args:
        shape: (C, y, x) or (C, z, y, x) pixels; the channels show one scene.
        polarity: as recipes say it; lines are dark unless they are said to be bright.
        seed: of all chance.

    Returns:
        Of that shape.
    """
    chance = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(chance.normal(size=shape[1:]), _COARSE, mode="wrap")
    steepness = np.sqrt(sum(np.gradient(smooth, axis=axis) ** 2 for axis in range(smooth.ndim)))
    # Lines of even width follow where the noise changes its sign.
    line = np.exp(-((smooth / np.maximum(steepness, 1e-12) / _THIN) ** 2))
    light = 1 + 0.1 * np.linspace(-1, 1, shape[-1])
    scene = (_CELL + (_LINE - _CELL) * line) * light
    if polarity.lower().startswith(("bright", "light", "white")):
        scene = _CELL + _LINE - scene
    noisy = scene[None] + chance.normal(0, _GRAIN, shape)
    picture: npt.NDArray[np.float32] = np.clip(np.round(noisy), 0, 255).astype(np.float32)
    return picture
