"""The page of a training run: curves, samples side by side, the recipe."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unetctl.reports.curves import Chart, Line, draw
from unetctl.reports.figures import (
    best_index,
    default_select,
    is_judged,
    is_lower_better,
    metric_names,
    title_of,
    write_column,
    write_figure,
)
from unetctl.reports.mistakes import Mistakes, confusion_rows, threshold_charts
from unetctl.reports.page import write_page
from unetctl.reports.pictures import Picture, difference, reduced, reduction, require_picture, to_data_uri

MAX_SIDE_PX = 1024
"""Longer side of a picture in the page; larger ones are reduced, and the page says by how much."""

MOST_SAMPLES = 8
"""Samples on the page."""

_MAX_ROWS = 200
_SMALL_PX = 160


@dataclass(frozen=True)
class Sample:
    """One validation image with what the network made of it.

    Attributes:
        name: as the user knows it ("train-volume, slice 22").
        input: uint8 (y, x) or (y, x, 3), as shown.
        label: uint8 (y, x), 0..255; several classes spread over that range.
        output: uint8 (y, x), 0..255 = probability 0..1, or classes as the label's.
        figures: its scores; the first ranks the samples, "threshold" (0..1) cuts the output for the difference picture.
        has_classes: True if the task knows several classes.
        ignored: (y, x), True where the label says nothing; None if it does everywhere.
    """

    name: str
    input: Picture
    label: Picture
    output: Picture
    figures: Mapping[str, float] = field(default_factory=dict)
    has_classes: bool = False
    ignored: npt.NDArray[np.bool_] | None = None


def write_training_page(
    path: Path,
    title: str,
    facts: Mapping[str, str],
    history: Sequence[Mapping[str, float]],
    samples: Sequence[Sample],
    *,
    recipe_toml: str = "",
    notes: Sequence[str] = (),
    select: str = "",
    select_lowest: bool | None = None,
    mistakes: Mistakes | None = None,
    num_samples: int = 0,
) -> None:
    """Writes one HTML file that needs nothing else; through a temporary name, so nobody reads half of it.

    Args:
        path: the file; its folder exists.
        title: heading.
        facts: what to know about the run, in order.
        history: one entry an epoch, oldest first: "epoch", and any of "loss", "val_loss", metrics (only in epochs that
            were validated).
        samples: shown worst first by the first sample's first figure; of more than `MOST_SAMPLES`, the worst and the best.
        recipe_toml: the recipe in full.
        notes: sentences to read before believing the figures.
        select: the figure that names the best epoch; by default the first metric, else a loss, of validation first.
        select_lowest: True if the best is the lowest; by default judged from the figure's name.
        mistakes: of the best weights; None leaves them out.
        num_samples: of how many `samples` are the worst and the best, if of more.

    Raises:
        ValueError: if an entry of the history has no "epoch", or a sample's array is not a uint8 picture.
        OSError: if the page cannot be written.
    """
    for entry in history:
        if "epoch" not in entry:
            raise ValueError(f"an entry of the history holds {', '.join(entry) or 'nothing'}; expected 'epoch' in it")
    for sample in samples:
        for name, picture in (("input", sample.input), ("label", sample.label), ("output", sample.output)):
            require_picture(picture, f"{name} of {sample.name}")
    select = select or default_select(history)
    best = best_index(history, select, is_lower_better(select) if select_lowest is None else select_lowest)
    write_page(
        path,
        "training.html",
        title=title,
        facts=facts,
        notes=notes,
        headline=_headline(history, best, select),
        charts=_charts(history, best),
        table=_table(history, best),
        groups=[(title, [_shown(sample) for sample in group]) for title, group in worst_and_best(samples, num_samples)],
        confusion=confusion_rows(mistakes or Mistakes()),
        class_names=list((mistakes or Mistakes()).names),
        threshold_charts=threshold_charts(mistakes or Mistakes()),
        has_difference=any(_is_comparable(sample) for sample in samples),
        ranked_by=_ranked_by(samples),
        recipe_toml=recipe_toml,
    )


def _headline(history: Sequence[Mapping[str, float]], best: int | None, select: str) -> list[tuple[str, str]]:
    """The best epoch in a few large figures: (value, what it is)."""
    if best is None:
        return []
    entry = history[best]
    last = write_figure(history[-1]["epoch"])
    names = [name for name in (select, *metric_names(history), "val_loss", "loss") if name in entry]
    shown = [(write_figure(entry[name]), title_of(name)) for name in dict.fromkeys(names)]
    return [(write_figure(entry["epoch"]), f"best epoch of {last}"), *shown[:5]]


def _charts(history: Sequence[Mapping[str, float]], best: int | None) -> list[Chart]:
    groups = [[name for name in ("loss", "val_loss") if any(name in entry for entry in history)]]
    groups += [[name] for name in metric_names(history)]
    charts = []
    for names in filter(None, groups):
        lines = [
            Line(title_of(name), tuple((entry["epoch"], entry[name]) for entry in history if name in entry))
            for name in names
        ]
        last = names[-1]
        mark = None
        if best is not None:
            value = history[best].get(last)
            words = f"best epoch {write_figure(history[best]['epoch'])}"
            mark = (history[best]["epoch"], words if value is None else f"{words}: {value:.4g}")
        title = title_of(names[0])
        hint = ("lower is better" if is_lower_better(last) else "higher is better") if is_judged(last) else ""
        charts.append(
            draw(
                lines,
                title[:1].upper() + title[1:],
                title,
                hint=hint,
                mark=mark,
                x_range=(history[0]["epoch"], history[-1]["epoch"]),
                may_log="loss" in names,
            )
        )
    return charts


def _table(history: Sequence[Mapping[str, float]], best: int | None) -> dict[str, object]:
    """The figures in rows; of very long runs, every n-th epoch and the best."""
    step = -(-len(history) // _MAX_ROWS) or 1
    kept = [i for i in range(len(history)) if i % step == 0 or i in (best, len(history) - 1)]
    names = list(dict.fromkeys(["epoch", *(name for entry in history for name in entry)]))
    columns = [write_column([history[i].get(name) for i in kept]) for name in names]
    return {
        "names": [title_of(name) for name in names],
        "rows": [(i == best, row) for i, row in zip(kept, zip(*columns, strict=True), strict=True)],
        "step": step,
    }


def _ranking(samples: Sequence[Sample]) -> str:
    return next(iter(samples[0].figures), "") if samples else ""


def _ranked_by(samples: Sequence[Sample]) -> str:
    name = _ranking(samples)
    return f"{title_of(name)}, {'highest' if is_lower_better(name) else 'lowest'} first" if name else ""


def worst_and_best(samples: Sequence[Sample], num_samples: int = 0) -> list[tuple[str, list[Sample]]]:
    """Up to `MOST_SAMPLES` of them: all, worst first, under no title; or the worst, and the best, best first.

    Args:
        samples: in any order.
        num_samples: of how many they were chosen, if of more.
    """
    ranked, half = _worst_first(samples), MOST_SAMPLES // 2
    if max(num_samples, len(ranked)) <= MOST_SAMPLES:
        return [("", ranked)] if ranked else []
    return [("The worst", ranked[:half]), ("The best", ranked[: -half - 1 : -1])]


def _worst_first(samples: Sequence[Sample]) -> list[Sample]:
    """What is not a number is worst of all; samples without the figure come last, in the order given."""
    name = _ranking(samples)

    def rank(sample: Sample) -> tuple[int, float]:
        value = sample.figures.get(name)
        if value is None:
            return (2, 0.0)
        return (0, 0.0) if math.isnan(value) else (1, -value if is_lower_better(name) else value)

    return sorted(samples, key=rank)


def _is_comparable(sample: Sample) -> bool:
    return sample.label.ndim == 2 and sample.label.shape == sample.output.shape


def _shown(sample: Sample) -> dict[str, object]:
    pictures = [
        _figure(sample.input, "input", f"Input of {sample.name}"),
        _figure(sample.label, "label", f"Label of {sample.name}"),
        _figure(sample.output, "output", f"Output of the network for {sample.name}"),
    ]
    if _is_comparable(sample):
        found = difference(
            sample.output, sample.label, sample.input, sample.figures.get("threshold", 0.5),
            has_classes=sample.has_classes, ignored=sample.ignored,
        )  # fmt: skip
        over, under = found.num_over / sample.label.size, found.num_under / sample.label.size
        positive, negative = ("false positive", "false negative") if found.is_binary else ("above label", "below label")
        alt = f"Difference for {sample.name}: {over:.2%} of the pixels {positive}, {under:.2%} {negative}"
        key = [("over", f"{positive} {over:.2%}"), ("under", f"{negative} {under:.2%}")]
        pictures.append(_figure(found.picture, "difference", alt, key))
    return {
        "name": sample.name,
        "figures": [(title_of(name), write_figure(value)) for name, value in sample.figures.items()],
        "pictures": pictures,
    }


def _figure(picture: Picture, caption: str, alt: str, key: Sequence[tuple[str, str]] = ()) -> dict[str, object]:
    height, width = picture.shape[:2]
    factor = reduction(picture.shape[:2], MAX_SIDE_PX)
    shown = reduced(picture, MAX_SIDE_PX)
    return {
        "uri": to_data_uri(shown),
        "caption": caption,
        "alt": f"{alt}, {width} x {height} pixels",
        "size": f"{width} x {height}" + (f", shown at 1/{factor}" if factor > 1 else ""),
        "width": shown.shape[1],
        "height": shown.shape[0],
        "is_small": max(height, width) <= _SMALL_PX,
        "key": key,
    }
