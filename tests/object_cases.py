"""A network that makes objects of noise, and the noise."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from unetctl.networks.build import build_network
from unetctl.networks.unet import UNet
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


def save_bright_weights(path: Path, diameter_px: float | None = None, method: str = "range") -> None:
    """A network that is no black box: what is brighter than the middle grey is interior, at every pixel by itself."""
    recipe = recipe_from_dict(
        {
            "task": {"name": "bright"},
            "input": {"stack": False},
            "normalise": {"method": method},
            "network": {"base_width": 2, "depth": 1, "convolution": "same"},
            "output": {"classes": ["background", "interior", "border"], "keep": "labels"},
            "objects": {"min_area_px": 4, **({} if diameter_px is None else {"diameter_px": diameter_px})},
            "labels": {"kind": "objects"},
        },
        "tests",
    )
    network = build_network(recipe.network_spec, 0)
    assert isinstance(network, UNet)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for chain in (network.contracting[0], network.expanding[0]):
            for unit in chain.units:  # type: ignore[union-attr]  # modules are untyped
                unit.conv.weight[0, 0, 1, 1] = 1  # the skip comes first
        network.head.weight[1, 0] = 60
        assert network.head.bias is not None
        network.head.bias[:] = torch.tensor([0.0, -30.0, -60.0])
    save_weights(path, network, WeightsHeader("bright", recipe.network_spec.to_dict(), recipe.to_dict()))


def discs(shape: tuple[int, int], diameter_px: float, gap_px: float = 6) -> npt.NDArray[np.int32]:
    """Ids of as many discs as fit in rows and columns."""
    step = diameter_px + gap_px
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    row, column = y // step, x // step
    inside = np.hypot(y - (row + 0.5) * step, x - (column + 0.5) * step) <= diameter_px / 2
    inside &= ((row + 1) * step <= shape[0]) & ((column + 1) * step <= shape[1])
    return np.where(inside, row * (shape[1] // step) + column + 1, 0).astype(np.int32)


def blotches(*shape: int, seed: int = 3) -> npt.NDArray[np.uint8]:
    """Smooth noise (..., y, x)."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), (0,) * (len(shape) - 2) + (2, 2))
    return np.asarray(((smooth / smooth.std()).clip(-3, 3) * 40 + 125).astype(np.uint8))
