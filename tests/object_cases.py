"""A network that makes objects of noise, and the noise."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from unetctl.networks.build import build_network
from unetctl.networks.weights import WeightsHeader, save_weights
from unetctl.recipe.load import recipe_from_dict

OBJECTS: dict[str, Any] = {
    "seed_threshold": 0.85,
    "foreground_threshold": 0.55,
    "grow_px": 3,
    "min_area_px": 6,
    "max_hole_px": 4,
}


def save_object_weights(path: Path) -> None:
    """An untrained network of three classes whose opinions are strong enough to make objects of noise."""
    recipe = recipe_from_dict(
        {
            "task": {"name": "blobs"},
            "input": {"stack": False},
            "network": {"base_width": 4, "depth": 1, "convolution": "same"},
            "output": {"classes": ["background", "interior", "border"], "keep": "labels"},
            "objects": OBJECTS,
            "labels": {"kind": "objects"},
        },
        "tests",
    )
    network = build_network(recipe.network_spec, 7)
    with torch.no_grad():
        for parameter in network.head.parameters():  # type: ignore[union-attr]
            parameter.mul_(25)
    save_weights(path, network, WeightsHeader("blobs", recipe.network_spec.to_dict(), recipe.to_dict()))


def blotches(*shape: int, seed: int = 3) -> npt.NDArray[np.uint8]:
    """Smooth noise (..., y, x)."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), (0,) * (len(shape) - 2) + (2, 2))
    return np.asarray(((smooth / smooth.std()).clip(-3, 3) * 40 + 125).astype(np.uint8))
