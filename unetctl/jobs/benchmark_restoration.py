"""`unetctl benchmark accuracy` for repaired pictures: PSNR and SSIM in the damage and around it, and how the damage was found.

On clean pictures damage is made up, the same in every run, whatever the recipe trains on: 1 to 4 overlays a picture, square
or round, of 16 to 128 pixels and any colour, half of them opaque, half with an opacity of 0.3 to 0.9. Beside ours stands
scikit-image's biharmonic inpainting, which is *given* the true mask, and the picture as it was damaged.
"""

import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import skimage.restoration
import torch

from unetctl.errors import Stopped
from unetctl.jobs.benchmark_files import write_tables, writing_into
from unetctl.jobs.benchmark_report import BenchmarkReport
from unetctl.jobs.tasks import ResolvedTask
from unetctl.metrics.overlap import Overlap
from unetctl.metrics.restoration import Errors, RestorationScores, score_restoration
from unetctl.networks.build import for_inference
from unetctl.networks.network import Network
from unetctl.recipe.schema import Recipe
from unetctl.reports.pictures import PictureFile
from unetctl.reports.scored_page import ScoredPicture, save_pictures, write_scored_page
from unetctl.runtime.device import PRECISIONS, apply_compute, resolve
from unetctl.runtime.events import Listener, StageEnded, StageProgress, StageStarted
from unetctl.runtime.grey_scale import Scaling
from unetctl.runtime.numerics import repaired, restored
from unetctl.training.damage import DamageOptions, damaged, draw_overlays
from unetctl.training.pictures import is_damaged, load_pictures
from unetctl.training.restoring import repair_plane
from unetctl.training.splits import Selection

Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

OURS, BIHARMONIC, UNREPAIRED = "ours", "biharmonic", "as damaged"
#: Times that every clean picture is damaged.
ROUNDS = 3
OPTIONS = DamageOptions()
_STREAM = 2012
_PARTS = ("opaque", "translucent")
_HOW = {
    OURS: "finds the damage itself",
    BIHARMONIC: "scikit-image, given the true mask",
    UNREPAIRED: "",
}
COLUMNS = (
    "PSNR inside", "opaque", "translucent", "SSIM inside", "PSNR inside, pooled", "opaque, pooled", "translucent, pooled",
    "PSNR outside", "SSIM outside",
)  # fmt: skip


@dataclass(frozen=True)
class _Case:
    """A damaged picture: (y, x, 3) or (y, x) uint8, and (y, x) where the damage is and where it hides the picture."""

    name: str
    clean: Picture
    broken: Picture
    mask: Mask
    parts: Mapping[str, Mask]


@dataclass(frozen=True)
class _Scored:
    """A picture with the scores of every method, by name."""

    name: str
    scores: dict[str, RestorationScores]
    files: tuple[PictureFile, ...]


def score_restored(
    task: ResolvedTask,
    selections: Sequence[Selection],
    data: Path,
    *,
    output: Path | None,
    split: str,
    device: str,
    emit: Listener,
    should_stop: Callable[[], bool],
) -> BenchmarkReport:
    """Damages, repairs and scores pictures.

    Args:
        task: whose network repairs.
        selections: of `unetctl.training.pictures.find_pictures`.
        data: the folder that they were found in.
        output: folder for ``accuracy.csv``, ``accuracy.json``, ``index.html`` and its pictures; made if missing.
        split: its name, for the report.
        device, emit, should_stop: see `unetctl.jobs.benchmark_accuracy.accuracy`.

    Returns:
        A report with "kind" "restoration", "threshold", "mask_iou" (all pictures together) and "mask_iou_mean", "methods" (by
        name: means over the pictures of "psnr_inside", "psnr_opaque", "psnr_translucent", "psnr_outside", "ssim_inside",
        "ssim_outside", and "pooled" PSNRs of all errors together; None where nothing differs or there is nothing), and
        "pictures". Where damaged pictures were given, nothing is known of opaque and translucent.

    Raises:
        InputError: if a picture cannot be read.
        ResourceError: if the output cannot be written.
        Stopped: if asked to stop.
    """
    recipe = task.recipe
    place, compute = resolve(device, recipe.train.precision)
    place = apply_compute(compute, device)
    network = for_inference(task.network(), place, PRECISIONS[compute.precision])
    threshold = recipe.output.threshold
    num = sum(len(s.planes) * (1 if is_damaged(s.pair) else ROUNDS) for s in selections)
    begun = time.monotonic()
    emit(StageStarted("score", num, 0, "picture"))
    scored: list[_Scored] = []
    for case in _cases(selections, recipe):
        if should_stop():
            raise Stopped("stopped while scoring", "", "run the same command again")
        found, mask = repair(network, case.broken, recipe, threshold, place, should_stop)
        answers = {OURS: found, BIHARMONIC: biharmonic(case.broken, case.mask), UNREPAIRED: case.broken}
        scores = {
            name: score_restoration(answer, case.clean, case.mask, mask if name == OURS else None, case.parts)
            for name, answer in answers.items()
        }
        shown = {
            "input": case.broken, "label": case.clean, "output": found, "found damage": mask.astype(np.uint8) * 255,
            "biharmonic": answers[BIHARMONIC],
        }  # fmt: skip
        with writing_into(output):
            files = () if output is None else _saved(output, len(scored) + 1, shown)
        scored.append(_Scored(case.name, scores, files))
        emit(StageProgress("score", len(scored), {"PSNR": min(scores[OURS].inside.psnr, 99.0)}))
    emit(StageEnded("score", time.monotonic() - begun))
    report = _report(task, data, split, threshold, scored)
    if output is not None:
        with writing_into(output):
            _write(output, report, scored)
    return report


def _cases(selections: Sequence[Selection], recipe: Recipe) -> Iterator[_Case]:
    channels = recipe.input.channels
    for selection in selections:
        for plane in load_pictures(selection, recipe).planes:
            if is_damaged(selection.pair):
                broken, clean = (as_picture(plane.pixels[i : i + channels]) for i in (0, channels))
                yield _Case(plane.name, clean, broken, plane.target[0] > 0, {})
                continue
            clean = as_picture(plane.pixels)
            whole = torch.from_numpy(np.ascontiguousarray(_channels_first(clean))[None]).float() / 255
            for i in range(ROUNDS):
                rng = np.random.default_rng([_STREAM, zlib.crc32(selection.pair.image.stem.encode()), i])
                overlays = draw_overlays(rng, plane.size, OPTIONS, inside=True)
                pixels, mask, opaque = damaged(whole, [overlays])
                where, hidden = mask[0, 0].numpy(), opaque[0, 0].numpy()
                parts = dict(zip(_PARTS, (hidden, where & ~hidden), strict=True))
                yield _Case(f"{plane.name} #{i + 1}", clean, as_picture(pixels[0].numpy()), where, parts)


def as_picture(pixels: npt.NDArray[Any]) -> Picture:
    """(y, x, 3), or (y, x) of one channel, uint8, of (C, y, x) from 0 to 1."""
    values = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(values, 0, -1)) if len(values) > 1 else values[0]


def _channels_first(picture: Picture) -> Picture:
    return picture[np.newaxis] if picture.ndim == 2 else np.moveaxis(picture, -1, 0)


def repair(
    network: Network,
    picture: Picture,
    recipe: Recipe,
    threshold: float,
    device: torch.device,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Picture, Mask]:
    """The picture that `predict` writes, and the mask.

    Args:
        network: as `for_inference` has made it.
        picture: (y, x, 3) or (y, x).
        recipe: says how values are scaled.
        threshold: probability from which a pixel is damaged.
        device: of the network.
        should_stop: asked between tiles.

    Raises:
        Stopped: if asked to.
    """
    pixels = _channels_first(picture)
    scaling = Scaling.of(recipe.normalise, None, len(pixels), picture.dtype)
    shift, factor = (np.asarray(v, np.float32)[:, None, None] for v in (scaling.shift, scaling.factor))
    output = repair_plane(network, (pixels.astype(np.float32) - shift) * factor, device, should_stop)
    logits, prediction = torch.from_numpy(output[None, :1]), torch.from_numpy(output[None, 1:])
    grey = restored(prediction, torch.from_numpy(shift), torch.from_numpy(factor), "uint8")
    core = ((0, pixels.shape[1]), (0, pixels.shape[2]))
    found = repaired(grey, logits, torch.from_numpy(np.ascontiguousarray(pixels[None])), core, threshold)[0].numpy()
    mask: Mask = logits.sigmoid()[0, 0].numpy() >= threshold
    return np.ascontiguousarray(np.moveaxis(found, 0, -1)) if picture.ndim == 3 else found[0], mask


def biharmonic(picture: Picture, mask: Mask) -> Picture:
    """The holes of a picture filled by scikit-image's biharmonic inpainting (Damelin and Hoang 2018), all in one call.

    Args:
        picture: (y, x, 3) or (y, x).
        mask: (y, x), the holes; where nothing is known, nothing is filled.
    """
    if mask.all() or not mask.any():
        return picture
    fill: Any = skimage.restoration.inpaint_biharmonic
    filled = fill(picture / 255.0, mask, channel_axis=-1 if picture.ndim == 3 else None)
    found = picture.copy()
    found[mask] = (filled[mask].clip(0, 1) * 255).round()
    return found


def _report(task: ResolvedTask, data: Path, split: str, threshold: float, scored: Sequence[_Scored]) -> BenchmarkReport:
    total = Overlap(0, 0, 0, 0)
    for one in scored:
        total = total + one.scores[OURS].overlap
    methods = {name: _means([one.scores[name] for one in scored]) for name in _HOW}
    values = {
        "task": task.recipe.task.name, "weights_sha256": task.weights_sha256, "data": str(data), "split": split,
        "planes": [one.name for one in scored], "num_planes": len(scored), "kind": "restoration", "threshold": threshold,
        "mask_iou": total.iou, "mask_iou_mean": float(np.mean([one.scores[OURS].overlap.iou for one in scored])),
        "methods": methods,
        "pictures": [
            {"name": one.name, "mask_iou": one.scores[OURS].overlap.iou, **{m: _values(s) for m, s in one.scores.items()}}
            for one in scored
        ],
    }  # fmt: skip
    head = f"{task.recipe.task.name} on {len(scored)} damaged pictures of {data} ({split}), threshold {threshold:.2f}"
    lines = [head, f"damage found: IoU {total.iou:.4f} (mean of the pictures {values['mask_iou_mean']:.4f})"]
    lines.append(f"{'':<14}" + "".join(f"{name:>21}" for name in COLUMNS))
    lines += [f"{name:<14}" + "".join(f"{f:>21}" for f in _figures(methods[name])) for name in _HOW]
    untouched = methods[OURS]["num_untouched"]
    if untouched:
        which = f"{untouched} of {len(scored)} pictures"
        lines.append(f"outside the damage {which} are as they were, bit for bit; the mean PSNR is that of the others")
    return BenchmarkReport("accuracy", values, tuple(lines))


def _means(scores: Sequence[RestorationScores]) -> dict[str, Any]:
    """Means over the pictures that have such a part and errors in it; and the PSNR of all their errors together."""
    each = [_values(one) for one in scores]
    found: dict[str, Any] = {}
    for key in ("psnr_inside", "psnr_opaque", "psnr_translucent", "psnr_outside", "ssim_inside", "ssim_outside"):
        known = [one[key] for one in each if one.get(key) is not None]
        found[key] = float(np.mean(known)) if known else None
    found["num_untouched"] = sum(math.isinf(one.outside.psnr) for one in scores)
    totals = {"inside": Errors(), "outside": Errors(), **dict.fromkeys(_PARTS, Errors())}
    for one in scores:
        for key, errors in (("inside", one.inside), ("outside", one.outside), *one.parts.items()):
            totals[key] = totals[key] + errors
    found["pooled"] = {key: _finite(errors.psnr) for key, errors in totals.items()}
    return found


def _values(scores: RestorationScores) -> dict[str, Any]:
    return {
        "psnr_inside": _finite(scores.inside.psnr),
        "psnr_outside": _finite(scores.outside.psnr),
        **{f"psnr_{name}": _finite(errors.psnr) for name, errors in scores.parts.items()},
        "ssim_inside": _finite(scores.ssim_inside),
        "ssim_outside": _finite(scores.ssim_outside),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _figures(means: Mapping[str, Any]) -> list[str]:
    pooled = means["pooled"]
    values = (
        means["psnr_inside"], means["psnr_opaque"], means["psnr_translucent"], means["ssim_inside"], pooled["inside"],
        pooled["opaque"], pooled["translucent"], means["psnr_outside"], means["ssim_outside"],
    )  # fmt: skip
    words = ("{:.2f}", "{:.2f}", "{:.2f}", "{:.4f}", "{:.2f}", "{:.2f}", "{:.2f}", "{:.2f}", "{:.4f}")
    return ["-" if value is None else word.format(value) for value, word in zip(values, words, strict=True)]


def _saved(output: Path, number: int, pictures: Mapping[str, Picture]) -> tuple[PictureFile, ...]:
    output.mkdir(parents=True, exist_ok=True)
    return save_pictures(output, number, pictures)


def _write(output: Path, report: BenchmarkReport, scored: Sequence[_Scored]) -> None:
    rows = [
        {
            "picture": one.name,
            "method": name,
            "mask_iou": one.scores[OURS].overlap.iou if name == OURS else "",
            **_values(s),
        }
        for one in scored
        for name, s in one.scores.items()
    ]
    write_tables(output, report, rows)
    pictures = []
    for one in scored:
        psnr = one.scores[OURS].inside.psnr
        figures = [("IoU of the damage", f"{one.scores[OURS].overlap.iou:.3f}")]
        figures += [(f"PSNR inside, {name}", f"{s.inside.psnr:.2f}") for name, s in one.scores.items()]
        pictures.append(ScoredPicture(one.name, -math.inf if math.isnan(psnr) else psnr, tuple(figures), one.files))
    means = report.values["methods"]
    write_scored_page(
        output / "index.html", report.text[0], COLUMNS, [(name, _figures(means[name]), how) for name, how in _HOW.items()],
        pictures, heading="All pictures, means", order="By PSNR inside the damage of ours.",
    )  # fmt: skip
