"""Where a network went wrong, as a page shows it: a table of classes, curves over thresholds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unetctl.reports.curves import Chart, Line, draw


@dataclass(frozen=True)
class Mistakes:
    """Of all validation pictures together.

    Attributes:
        names: of the classes; empty leaves the table out.
        counts: (K, K) pixels, row = label, column = answer.
        thresholds: rising, 0..1; empty leaves the curves out.
        scores: figures by name, one value a threshold each.
        chosen: the threshold in use.
    """

    names: Sequence[str] = ()
    counts: NDArray[np.int64] | None = None
    thresholds: Sequence[float] = ()
    scores: Mapping[str, Sequence[float]] | None = None
    chosen: float = 0.5


def confusion_rows(mistakes: Mistakes) -> list[dict[str, object]]:
    """A row for each label: its name, its pixels, and for every answer (share of the row as words, 0..100, is right)."""
    if not mistakes.names or mistakes.counts is None:
        return []
    rows: list[dict[str, object]] = []
    for i, name in enumerate(mistakes.names):
        total = int(mistakes.counts[i].sum())
        shares = [int(n) / total if total else 0.0 for n in mistakes.counts[i]]
        cells = [(f"{share:.1%}" if total else "", round(100 * share), i == j) for j, share in enumerate(shares)]
        rows.append({"name": name, "total": f"{total:,}", "cells": cells})
    return rows


def threshold_charts(mistakes: Mistakes) -> list[Chart]:
    """One chart of all scores over the threshold, and one of precision against recall if both are among them."""
    scores = mistakes.scores
    if not scores or not mistakes.thresholds:
        return []
    at = mistakes.thresholds
    lines = [Line(name, tuple(zip(at, values, strict=True))) for name, values in scores.items()]
    nearest = min(at, key=lambda value: abs(value - mistakes.chosen))
    charts = [
        draw(
            lines, "Scores by threshold", "score", "threshold", mark=(nearest, f"chosen {mistakes.chosen:g}"),
            x_range=(0.0, 1.0), has_whole_x=False,
        )
    ]  # fmt: skip
    if "precision" in scores and "recall" in scores:
        pairs = zip(scores["recall"], scores["precision"], strict=True)
        best = dict(sorted(pair for pair in pairs if math.isfinite(pair[1])))
        if len(best) > 1:
            line = Line("precision", tuple(best.items()))
            charts.append(
                draw([line], "Precision and recall", "precision", "recall", x_range=(0.0, 1.0), has_whole_x=False)
            )
    return charts
