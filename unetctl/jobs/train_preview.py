"""`unetctl train --preview`: what the network would be fed, as a sheet of pictures, before any training.

Nothing here knows the tasks: it looks at the batches that the training's own sampler makes.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.recipe.schema import Recipe
from unetctl.reports.pictures import Picture, to_png
from unetctl.reports.preview_page import PALETTE, PreviewRow, class_picture, draw_sheet, write_preview_page
from unetctl.training.course import TrainBatch

Pixels = npt.NDArray[Any]

#: Samples on the sheet, at least; whole batches are shown.
_NUM_SAMPLES = 8
_MOST_SAMPLES = 24
_MOST_CHANNELS = 4
_FRAME_RGB = (255, 122, 0)


@dataclass(frozen=True)
class PreviewReport:
    """Where the sheet is.

    Attributes:
        sheet: PNG, all samples in one picture.
        page: HTML, the same with words.
        num_samples: on it.
    """

    sheet: str
    page: str
    num_samples: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"command": "train", "preview": True, **vars(self)}

    def lines(self) -> list[str]:
        """For people."""
        return [f"{self.num_samples} samples as the training would be fed them: {self.sheet} and {self.page}"]


def write_preview(sampler: Callable[[int], TrainBatch], recipe: Recipe, folder: Path) -> PreviewReport:
    """Draws the first batches of a training.

    Args:
        sampler: step to its batch, as `unetctl.training.fit.Fit` takes it; one with `names` (step to a name for each
            sample) has its samples named.
        recipe: says what the channels are.
        folder: for preview.png and preview.html; those of before are replaced.

    Raises:
        OSError: if the disk refuses.
    """
    batches: list[TrainBatch] = []
    names: list[str] = []
    names_of = getattr(sampler, "names", None)
    while len(names) < min(_NUM_SAMPLES, _MOST_SAMPLES):
        step = len(batches)
        batches.append(sampler(step))
        found = names_of(step) if names_of is not None else [""] * batches[-1].pixels.shape[0]
        names += [f"step {step + 1}, sample {i + 1}" + (f": {name}" if name else "") for i, name in enumerate(found)]
    pixels, targets, weights = (
        np.concatenate([getattr(batch, part).float().numpy() for batch in batches])[:_MOST_SAMPLES]
        for part in ("pixels", "targets", "weights")
    )
    columns = [
        *_inputs(pixels, targets.shape[-2:], recipe),
        *_targets(targets, recipe),
        *_overlays(pixels, targets, recipe),
    ]
    if weights.max() - weights.min() > 1e-3 * abs(weights.max()):  # interpolated ones are no map
        columns.append((f"weight, 0 to {weights.max():.3g}", [_grey(w[0], 0.0, float(weights.max())) for w in weights]))
    rows = [
        PreviewRow(name, tuple((caption, pictures[i]) for caption, pictures in columns))
        for i, name in enumerate(names[:_MOST_SAMPLES])
    ]
    sheet, page = folder / "preview.png", folder / "preview.html"
    temporary = folder / f".preview.png.partial-{os.getpid()}"
    try:
        temporary.write_bytes(to_png(draw_sheet(rows)))
        temporary.replace(sheet)
    finally:
        temporary.unlink(missing_ok=True)
    write_preview_page(page, f"Samples for {recipe.task.name}", _facts(batches[0], targets, recipe), rows, _key(recipe))
    return PreviewReport(str(sheet), str(page), len(rows))


def _facts(batch: TrainBatch, targets: Pixels, recipe: Recipe) -> dict[str, str]:
    tile, core = ("x".join(map(str, a.shape[2:])) for a in (batch.pixels, batch.targets))
    facts = {
        "a step": f"{batch.pixels.shape[0]} samples of {tile} pixels, of which {core} enter the loss",
        "channels": f"{batch.pixels.shape[1]} in, {recipe.output.num_channels} out",
    }
    if _is_classes(targets):
        indices = targets[:, 0].astype(np.int64)
        counts = np.bincount(indices.ravel())
        shares = [f"{_class_name(i, recipe)} {n / indices.size:.1%}" for i, n in enumerate(counts) if n]
        facts["labels"] = ", ".join(shares)
    return facts


def _class_name(i: int, recipe: Recipe) -> str:
    names = recipe.output.classes
    if recipe.output.num_channels == 1:
        return "background" if i == 0 else (names[0] if names else "foreground")
    return names[i] if i < len(names) else f"class {i}"


def _key(recipe: Recipe) -> list[tuple[str, str]]:
    if recipe.output.num_channels == 1:
        return []
    colours = [(0, 0, 0), *PALETTE]
    return [
        (name, "#{:02x}{:02x}{:02x}".format(*colours[i % len(colours)])) for i, name in enumerate(recipe.output.classes)
    ]


def _inputs(pixels: Pixels, core: Sequence[int], recipe: Recipe) -> list[tuple[str, list[Picture]]]:
    """The middle plane's channels, in one scale for all samples, so that what is varied is seen."""
    shown = _middle(pixels, recipe)
    low, high = (float(v) for v in np.percentile(shown, (0.5, 99.5)))
    if shown.shape[1] == 3:
        return [("input", [_framed(_colour(one, low, high), core) for one in shown])]
    names = ["input"] if shown.shape[1] == 1 else [f"input, channel {i}" for i in range(shown.shape[1])]
    return [
        (name, [_framed(_grey(one[i], low, high), core) for one in shown])
        for i, name in enumerate(names[:_MOST_CHANNELS])
    ]


def _middle(pixels: Pixels, recipe: Recipe) -> Pixels:
    num, slices = recipe.input.channels, recipe.input.context_slices
    start = slices // 2 * num
    return pixels[:, start : start + num]


def _is_classes(targets: Pixels) -> bool:
    """True of indices, also of a mask's 0 and 1."""
    return (
        targets.shape[1] == 1
        and bool((targets == np.floor(targets)).all())
        and 0 <= targets.min() <= targets.max() < 256
    )


def _targets(targets: Pixels, recipe: Recipe) -> list[tuple[str, list[Picture]]]:
    if _is_classes(targets):
        indices = targets[:, 0].astype(np.int64)
        if recipe.output.num_channels == 1:
            return [("target", [(one > 0).astype(np.uint8) * np.uint8(255) for one in indices])]
        return [("target", [class_picture(one) for one in indices])]
    num = targets.shape[1]
    columns: list[tuple[str, list[Picture]]] = []
    first = num - 3 if num in (3, 4) else num  # the last three of three or four are a picture in colour
    for i in range(min(first, _MOST_CHANNELS)):
        low, high = _range(targets[:, i])
        columns.append((f"target, channel {i}" if num > 1 else "target", [_grey(one[i], low, high) for one in targets]))
    if first < num:
        low, high = _range(targets[:, first:])
        columns.append(("target, picture", [_colour(one[first:], low, high) for one in targets]))
    return columns


def _overlays(pixels: Pixels, targets: Pixels, recipe: Recipe) -> list[tuple[str, list[Picture]]]:
    """Labels on what they are labels of: a shift would be seen here."""
    if not _is_classes(targets):
        return []
    shown = _middle(pixels, recipe)
    low, high = (float(v) for v in np.percentile(shown, (0.5, 99.5)))
    pictures = []
    for one, target in zip(shown, targets[:, 0].astype(np.int64), strict=True):
        ground = _colour(one, low, high) if one.shape[0] == 3 else np.repeat(_grey(one[0], low, high)[..., None], 3, 2)
        ground = _core(ground, target.shape)
        tint = class_picture(target)
        if recipe.output.num_channels == 1:
            tint = np.where((target > 0)[..., None], np.array(_FRAME_RGB, np.uint8), np.uint8(0))
        mixed = np.where((target > 0)[..., None], 0.6 * ground + 0.4 * tint, ground)
        pictures.append(mixed.round().astype(np.uint8))
    return [("target on input", pictures)]


def _range(values: Pixels) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)


def _grey(values: Pixels, low: float, high: float) -> Picture:
    scaled = (np.nan_to_num(values) - low) / max(high - low, 1e-6) * 255
    return np.clip(scaled, 0, 255).astype(np.uint8)


def _colour(values: Pixels, low: float, high: float) -> Picture:
    return np.moveaxis(_grey(values, low, high), 0, -1)


def _core(picture: Picture, core: Sequence[int]) -> Picture:
    y, x = ((n - m) // 2 for n, m in zip(picture.shape, core, strict=False))
    return picture[y : y + core[0], x : x + core[1]]


def _framed(picture: Picture, core: Sequence[int]) -> Picture:
    """With a line about the core, if there is anything around it."""
    if tuple(picture.shape[:2]) == tuple(core):
        return picture
    framed = np.repeat(picture[..., None], 3, 2) if picture.ndim == 2 else picture.copy()
    top, left = ((n - m) // 2 for n, m in zip(picture.shape, core, strict=False))
    wide = min(top, left, 1 + max(picture.shape[:2]) // 200)  # seen on the sheet, too, and outside the core
    ring = np.zeros(picture.shape[:2], bool)
    ring[top - wide : top + core[0] + wide, left - wide : left + core[1] + wide] = True
    ring[top : top + core[0], left : left + core[1]] = False
    framed[ring] = _FRAME_RGB
    return framed
