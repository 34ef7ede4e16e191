"""The page of pictures of a benchmark: input, label, output and differences of every plane, worst first.

For what is scored by pixels: membranes, one class, several classes, a shape in composed pictures. Documents, objects and
repaired pictures have pages of their own kind, see `unetctl.jobs.benchmark_documents` and its neighbours.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.jobs.benchmark_planes import LabelledVolume
from unetctl.reports.pictures import OVER_RGB, UNDER_RGB, Picture, difference
from unetctl.reports.preview_page import PALETTE, class_picture
from unetctl.reports.scored_page import ScoredPicture, save_pictures, write_scored_page

#: Words and colour each.
_MASK_KEY = (("found where the label says no", OVER_RGB), ("missed", UNDER_RGB))


@dataclass(frozen=True)
class ScoreTable:
    """The figures of a benchmark for people.

    Attributes:
        columns: names of the figures.
        rows: name, figures and what is to know about it; ours first.
        of: what the rows are.
        order: one sentence: by what the pictures are ranked.
        ranks: by plane; the least is the worst.
        figures: by plane: word and figure each.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...], str], ...]
    of: str
    order: str
    ranks: Mapping[str, float]
    figures: Mapping[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class ScoredPlane:
    """Pictures of a scored plane: name; by caption, uint8 (y, x) or (y, x, 3)."""

    name: str
    pictures: Mapping[str, Picture]


def mask_planes(volumes: Iterable[LabelledVolume], threshold: float) -> Iterator[ScoredPlane]:
    """The planes of a task with one class: its probability is the output; differences at the threshold."""
    for volume in volumes:
        for i, name in enumerate(volume.names):
            label = np.where(volume.target[i] > 0, 255, 0).astype(np.uint8)
            output = np.rint(volume.found[i] * 255).astype(np.uint8)
            picture = as_grey(volume.raw[i])
            ignored = None if volume.ignored is None else volume.ignored[i]
            yield ScoredPlane(name, _of_mask(picture, label, output, threshold, ignored))


def shape_plane(name: str, picture: Picture, truth: npt.NDArray[np.bool_], found: npt.NDArray[np.bool_]) -> ScoredPlane:
    """A picture (y, x, 3) in which a shape was looked for, with masks (y, x)."""
    label, output = (np.where(mask, 255, 0).astype(np.uint8) for mask in (truth, found))
    return ScoredPlane(name, _of_mask(picture, label, output, 0.5))


def class_planes(volumes: Iterable[LabelledVolume]) -> Iterator[ScoredPlane]:
    """The planes of a task with several classes, in the colours of `class_key`; in the differences only wrong pixels."""
    for volume in volumes:
        for i, name in enumerate(volume.names):
            label, output = class_picture(volume.target[i]), class_picture(volume.found[i])
            wrong = volume.found[i] != volume.target[i]
            if volume.ignored is not None:
                wrong &= ~volume.ignored[i]
            picture = as_grey(volume.raw[i])
            shown = np.repeat((72 + picture // 8 * 4)[..., None], 3, axis=2).astype(np.uint8)
            shown[wrong] = OVER_RGB
            yield ScoredPlane(name, {"input": picture, "label": label, "output": output, "differences": shown})


def write_pictures(
    output: Path,
    title: str,
    table: ScoreTable,
    planes: Iterable[ScoredPlane],
    key: Sequence[tuple[str, tuple[int, int, int]]] = _MASK_KEY,
) -> None:
    """Writes ``index.html`` and its pictures ``NNNNN-input.png``, ``-label``, ``-output``, ``-differences``.

    Args:
        output: the folder; made if missing.
        title: heading.
        table: the figures, of all planes.
        planes: taken one by one.
        key: words and colour each.

    Raises:
        OSError: if the disk refuses.
    """
    output.mkdir(parents=True, exist_ok=True)
    shown = [
        ScoredPicture(
            plane.name, table.ranks[plane.name], table.figures[plane.name], save_pictures(output, i, plane.pictures)
        )
        for i, plane in enumerate(planes, 1)
    ]
    write_scored_page(
        output / "index.html", title, table.columns, table.rows, shown,
        heading=f"Scores by {table.of}", order=table.order, of=table.of, key=key,
    )  # fmt: skip


def class_key(classes: Sequence[str]) -> tuple[tuple[str, tuple[int, int, int]], ...]:
    """Words and colours of `class_planes`."""
    colours: list[Any] = [(0, 0, 0), *(PALETTE[i % len(PALETTE)] for i in range(len(classes) - 1))]
    return (*zip(classes, colours, strict=True), ("wrong, in the differences", OVER_RGB))


def as_grey(raw: npt.NDArray[Any]) -> Picture:
    """Grey values (y, x) of any range as a picture; the extremes of half a percent are cut."""
    finite = np.nan_to_num(raw).astype(np.float32)
    low, high = np.percentile(finite, (0.5, 99.8))
    grey: Picture = np.clip((finite - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    return grey


def _of_mask(
    picture: Picture, label: Picture, output: Picture, threshold: float, ignored: npt.NDArray[np.bool_] | None = None
) -> dict[str, Picture]:
    changed = difference(output, label, picture, threshold, ignored=ignored).picture
    return {"input": picture, "label": label, "output": output, "differences": changed}
