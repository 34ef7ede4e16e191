"""Made-up training data, and two recipes for networks that learn from them in a second."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import torch
from PIL import Image
from typer.testing import CliRunner

from unetctl.cli.app import app
from unetctl.networks.weights import load_weights

Pixels = npt.NDArray[Any]
SIZE = (40, 48)

MINE = """
[task]
name = "mine"
[input]
channels = 3
stack = false
[normalise]
method = "percentile"
[network]
base_width = 4
depth = 3
[output]
classes = ["stone", "water", "leaf", "sky"]
[labels]
kind = "classes"
[train]
crop = [16, 16]
batch = 2
steps_per_epoch = 4
precision = "fp32"
lr = 0.01
[augment]
flip = true
rotate = "quarter"
"""
GREY = """
[task]
name = "grey"
[network]
base_width = 2
depth = 1
norm = "batch"
dropout = 0.2
[train]
crop = [16, 16]
batch = 2
epochs = 3
steps_per_epoch = 4
precision = "fp32"
[augment]
flip = true
elastic_prob = 0.5
"""


def run(*args: object) -> Any:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def save(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.shape[-1] == 3 else "minisblack")
    else:
        Image.fromarray(pixels).save(path)


def coloured(i: int) -> tuple[Pixels, Pixels]:
    """A picture (y, x, 3) and its classes 0..3: patches, each class of another colour."""
    rng = np.random.default_rng(i)
    classes = np.kron(rng.integers(0, 4, (5, 6)), np.ones((8, 8), int)).astype(np.uint8)
    colours = np.array([[120, 120, 120], [40, 60, 200], [60, 180, 40], [200, 220, 255]])
    return np.clip(colours[classes] + rng.normal(0, 12, (*SIZE, 3)), 0, 255).astype(np.uint8), classes


def grey(i: int) -> tuple[Pixels, Pixels]:
    """A picture (y, x) and its mask 0 or 255."""
    rng = np.random.default_rng(i)
    mask = np.kron(rng.integers(0, 2, (5, 6)), np.ones((8, 8), int)).astype(np.uint8)
    return np.clip(60 + 100 * mask + rng.normal(0, 20, SIZE), 0, 255).astype(np.uint8), mask * np.uint8(255)


def pages(folder: Path, num: int = 5, make: Any = grey, suffix: str = ".png", labels: str = "labels") -> Path:
    for i in range(num):
        for name, pixels in zip(("images", labels), make(i), strict=True):
            save(folder / name / f"p{i}{suffix}", pixels)
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_weights(folder / "weights.safetensors")[0].state_dict()
