"""From predicted and labelled planes to tables: three kinds of tasks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError, Stopped
from unetctl.jobs.benchmark_pictures import ScoreTable
from unetctl.jobs.benchmark_planes import LabelledVolume
from unetctl.metrics.boundary import (
    THRESHOLDS,
    Criterion,
    EmScores,
    best_threshold,
    mean_scores,
    score_thresholds,
)
from unetctl.metrics.overlap import Overlap, count_overlap
from unetctl.metrics.precision import mean_precision
from unetctl.metrics.warping import warping_error
from unetctl.runtime.events import Listener, StageProgress

Pixels = npt.NDArray[Any]

#: Scores by which a best threshold is looked for, and how they are called in tables.
_CRITERIA: tuple[Criterion, ...] = ("v_rand", "v_info", "misclassified", "pixel_error", "adapted_rand_error")
_FIELDS = (
    "v_rand", "v_rand_split", "v_rand_merge", "v_info", "v_info_split", "v_info_merge", "adapted_rand_error",
    "misclassified", "pixel_error",
)  # fmt: skip
#: The raw image is no probability: a coarser scan finds its best threshold well enough.
_RAW_THRESHOLDS = tuple(round(0.1 + 0.05 * i, 2) for i in range(17))


#: How figures are called on pages.
_MEMBRANE_WORDS = {
    "v_rand": "V_rand", "v_info": "V_info", "misclassified": "misclassified", "pixel_error": "1 - F of the interior",
    "warping_error": "warping error",
}  # fmt: skip
OVERLAP_WORDS = {
    "iou": "IoU", "dice": "Dice", "precision": "precision", "recall": "recall", "misclassified": "misclassified",
}  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """Scores as values, as lines, and as rows of a table.

    Attributes:
        values: plain values.
        text: for people.
        rows: for a CSV file; all with the same keys.
        table: for a page of pictures.
    """

    values: dict[str, Any]
    text: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    table: ScoreTable


def score_membranes(
    volumes: Sequence[LabelledVolume], shipped: float, emit: Listener, should_stop: Callable[[], bool]
) -> Scored:
    """The challenge's scores, per plane and mean, where labels hold cells kept apart by membranes.

    Returns:
        Values: "thresholds" (by "shipped" and by each score: where it is best), "mean" (scores at each of them),
        "best" (each score at its own best threshold), "slices" (per plane, at the shipped threshold and at V_rand's
        best), "raw" (the same means for the raw image) and "ignored" (share of pixels without a label).

    Raises:
        Stopped: if asked to stop.
    """
    thresholds = tuple(sorted({*THRESHOLDS, round(shipped, 6)}))
    names: list[str] = []
    probabilities: list[Pixels] = []
    labels: list[Pixels] = []
    raws: list[Pixels] = []
    for volume in volumes:
        names += volume.names
        labels += list(volume.target > 0)
        probabilities += list(volume.found)
        raws += list(_as_probability(volume.raw, volume.target > 0))
    scan: list[tuple[EmScores, ...]] = []
    raw_scan: list[tuple[EmScores, ...]] = []
    for i, (probability, truth, raw) in enumerate(zip(probabilities, labels, raws, strict=True)):
        if should_stop():
            raise Stopped("stopped while scoring", "", "run the same command again")
        scan.append(score_thresholds(probability, truth, thresholds))
        raw_scan.append(score_thresholds(raw, truth, _RAW_THRESHOLDS))
        emit(StageProgress("score", i + 1))
    means = [mean_scores(column) for column in zip(*scan, strict=True)]
    raw_means = [mean_scores(column) for column in zip(*raw_scan, strict=True)]
    chosen: dict[str, float] = {"shipped": min(thresholds, key=lambda t: abs(t - shipped))}
    chosen |= {by: best_threshold(means, by).threshold for by in _CRITERIA}
    warping = {t: _warping(probabilities, labels, t, should_stop) for t in sorted(set(chosen.values()))}
    rows, mean_at = [], {}
    for threshold in sorted(set(chosen.values())):
        column = thresholds.index(threshold)
        for name, per_threshold, warped in zip(names, scan, warping[threshold], strict=True):
            rows.append({"plane": name, **_em_values(per_threshold[column], warped)})
        mean_at[threshold] = _em_values(means[column], float(np.mean(warping[threshold])))
        rows.append({"plane": "mean", **mean_at[threshold]})
    best: dict[str, dict[str, float]] = {
        by: {"threshold": chosen[by], "value": getattr(best_threshold(means, by), by)} for by in _CRITERIA
    }
    at = min(mean_at, key=lambda t: mean_at[t]["warping_error"])
    best["warping_error"] = {"threshold": at, "value": mean_at[at]["warping_error"]}
    raw_best = {by: best_threshold(raw_means, by) for by in _CRITERIA}
    values: dict[str, Any] = {
        "thresholds": chosen,
        "mean": {name: mean_at[threshold] for name, threshold in chosen.items()},
        "best": best,
        "slices": [
            row for row in rows if row["plane"] != "mean" and row["threshold"] in (chosen["shipped"], chosen["v_rand"])
        ],
        "raw": {by: {"threshold": s.threshold, "value": getattr(s, by)} for by, s in raw_best.items()},
        "raw_at_best_v_rand": _em_values(raw_best["v_rand"], None),
        "ignored": _ignored_share(volumes),
    }  # fmt: skip
    table = ScoreTable(
        tuple(_MEMBRANE_WORDS.values()),
        (
            (
                "ours",
                _figures(mean_at[chosen["shipped"]], _MEMBRANE_WORDS),
                f"threshold {chosen['shipped']:.2f}, as shipped",
            ),
            (
                "ours",
                _figures(mean_at[chosen["v_rand"]], _MEMBRANE_WORDS),
                f"threshold {chosen['v_rand']:.2f}, best V_rand",
            ),
            (
                "raw image",
                _figures(values["raw_at_best_v_rand"], _MEMBRANE_WORDS),
                "its grey values, at their best threshold",
            ),
        ),
        "method",
        "By V_rand at the shipped threshold.",
        {row["plane"]: row["v_rand"] for row in rows if row["threshold"] == chosen["shipped"]},
        _per_plane([row for row in rows if row["threshold"] == chosen["shipped"]], _MEMBRANE_WORDS),
    )
    return Scored(values, tuple(_membrane_lines(values, rows)), tuple(rows), table)


def score_binary(
    volumes: Sequence[LabelledVolume], shipped: float, emit: Listener, should_stop: Callable[[], bool]
) -> Scored:
    """Overlap of masks where there is one class: all pixels together, and per plane.

    Returns:
        Values: "thresholds", "all" (IoU, Dice, precision, recall, misclassified at each of them), "mean_precision" (over IoU
        0.5 to 0.95 of every plane, at each of them), "best", "slices" (per plane at the shipped threshold), "raw" (the raw
        image at its best threshold), "num_empty" (planes whose labels are empty) and "ignored".

    Raises:
        Stopped: if asked to stop.
    """
    thresholds = tuple(sorted({*THRESHOLDS, round(shipped, 6)}))
    total = dict.fromkeys(thresholds, Overlap(0, 0, 0, 0))
    raw_total = dict.fromkeys(_RAW_THRESHOLDS, Overlap(0, 0, 0, 0))
    per_plane: list[tuple[str, dict[float, Overlap]]] = []
    raw_counts: list[dict[float, Overlap]] = []
    for volume in volumes:
        truth = volume.target > 0
        raw = _as_probability(volume.raw, truth)
        for i, name in enumerate(volume.names):
            if should_stop():
                raise Stopped("stopped while scoring", "", "run the same command again")
            ignore = None if volume.ignored is None else volume.ignored[i]
            counts = {t: count_overlap(volume.found[i] >= t, truth[i], ignore=ignore) for t in thresholds}
            per_plane.append((name, counts))
            for t in thresholds:
                total[t] += counts[t]
            raw_counts.append({t: count_overlap(raw[i] >= t, truth[i], ignore=ignore) for t in _RAW_THRESHOLDS})
            for t in _RAW_THRESHOLDS:
                raw_total[t] += raw_counts[-1][t]
            emit(StageProgress("score", len(per_plane)))
    at_shipped = min(thresholds, key=lambda t: abs(t - shipped))
    chosen = {
        "shipped": at_shipped,
        "iou": max(thresholds, key=lambda t: (total[t].iou, -abs(t - 0.5))),
        "misclassified": min(thresholds, key=lambda t: (total[t].misclassified, abs(t - 0.5))),
    }
    rows = []
    for threshold in sorted(set(chosen.values())):
        for name, counts in per_plane:
            rows.append({"plane": name, "threshold": threshold, **_overlap_values(counts[threshold])})
        rows.append({"plane": "all", "threshold": threshold, **_overlap_values(total[threshold])})
    raw_at = max(_RAW_THRESHOLDS, key=lambda t: raw_total[t].iou)
    precision = {name: mean_precision([counts[t] for _, counts in per_plane]) for name, t in chosen.items()}
    raw_precision = max(mean_precision([counts[t] for counts in raw_counts]) for t in _RAW_THRESHOLDS)
    num_empty = sum(not (volume.target[i] > 0).any() for volume in volumes for i in range(len(volume.names)))
    values: dict[str, Any] = {
        "thresholds": chosen,
        "all": {name: _overlap_values(total[t]) for name, t in chosen.items()},
        "best": {
            "iou": {"threshold": chosen["iou"], "value": total[chosen["iou"]].iou},
            "misclassified": {
                "threshold": chosen["misclassified"], "value": total[chosen["misclassified"]].misclassified
            },
        },
        "slices": [row for row in rows if row["plane"] != "all" and row["threshold"] == at_shipped],
        "mean_precision": precision,
        "raw": {"threshold": raw_at, **_overlap_values(raw_total[raw_at]), "mean_precision": raw_precision},
        "num_empty": num_empty,
        "ignored": _ignored_share(volumes),
    }  # fmt: skip
    text = [
        f"mean precision over IoU 0.5 to 0.95 {precision['shipped']:.4f} at {at_shipped:.2f}, of the raw image at its best threshold "
        f"{raw_precision:.4f}; {num_empty} of {len(per_plane)} planes hold no foreground"
    ]
    text += [_overlap_line(f"all pixels at {t:.2f} ({name})", total[t]) for name, t in chosen.items()]
    text += [_overlap_line("raw image at its best threshold", raw_total[raw_at])]
    text += [_overlap_line(f"  {name}", counts[at_shipped]) for name, counts in per_plane]
    shown = {
        name: (*_figures(_overlap_values(total[t]), OVERLAP_WORDS), f"{precision[name]:.4f}")
        for name, t in chosen.items()
    }
    raw_shown = (*_figures(_overlap_values(raw_total[raw_at]), OVERLAP_WORDS), f"{raw_precision:.4f}")
    table = ScoreTable(
        (*OVERLAP_WORDS.values(), "mean precision"),
        (
            ("ours", shown["shipped"], f"threshold {at_shipped:.2f}, as shipped"),
            ("ours", shown["iou"], f"threshold {chosen['iou']:.2f}, best IoU"),
            ("raw image", raw_shown, "its grey values, at their best threshold"),
        ),
        "method",
        "By IoU at the shipped threshold.",
        {name: counts[at_shipped].iou for name, counts in per_plane},
        _per_plane(values["slices"], OVERLAP_WORDS),
    )
    return Scored(values, tuple(text), tuple(rows), table)


def score_classes(
    volumes: Sequence[LabelledVolume], classes: Sequence[str], emit: Listener, should_stop: Callable[[], bool]
) -> Scored:
    """Overlap per class where there are several: all pixels together, and per plane.

    Returns:
        Values: "classes" (overlap by name), "mean_iou" (over classes that occur in the labels or the answers),
        "misclassified" (share of pixels of another class), "majority_misclassified" (had the most frequent class been
        answered everywhere) and "ignored".

    Raises:
        Stopped: if asked to stop.
    """
    total = [Overlap(0, 0, 0, 0)] * len(classes)
    rows = []
    num_wrong = num_all = 0
    for volume in volumes:
        for i, name in enumerate(volume.names):
            if should_stop():
                raise Stopped("stopped while scoring", "", "run the same command again")
            found, truth = volume.found[i], volume.target[i]
            if truth.max(initial=0) >= len(classes):
                raise InputError(f"{name} has class {truth.max()}", f"0 to {len(classes) - 1}")
            ignore = None if volume.ignored is None else volume.ignored[i]
            counts = [count_overlap(found == k, truth == k, ignore=ignore) for k in range(len(classes))]
            total = [a + b for a, b in zip(total, counts, strict=True)]
            num_all += counts[0].num_pixels
            num_wrong += sum(c.num_false_positive for c in counts)
            rows += [{"plane": name, "class": k, **_overlap_values(c)} for k, c in zip(classes, counts, strict=True)]
            emit(StageProgress("score", len(rows) // len(classes)))
    rows += [{"plane": "all", "class": k, **_overlap_values(c)} for k, c in zip(classes, total, strict=True)]
    present = [c for c in total if c.num_true_positive + c.num_wrong]
    labelled = [c.num_true_positive + c.num_false_negative for c in total]
    values: dict[str, Any] = {
        "classes": {k: _overlap_values(c) for k, c in zip(classes, total, strict=True)},
        "mean_iou": float(np.mean([c.iou for c in present])) if present else 1.0,
        "misclassified": num_wrong / max(1, num_all),
        "majority_misclassified": 1 - max(labelled) / max(1, num_all),
        "ignored": _ignored_share(volumes),
    }
    text = [
        f"mean IoU {values['mean_iou']:.4f}, misclassified {values['misclassified']:.4f} (by always answering the most "
        f"frequent class {values['majority_misclassified']:.4f})"
    ]
    text += [_overlap_line(f"  {k}", c) for k, c in zip(classes, total, strict=True)]
    ious: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["class"] in values["classes"] and row["plane"] != "all":
            ious.setdefault(row["plane"], {})[row["class"]] = row["iou"]
    table = ScoreTable(
        tuple(OVERLAP_WORDS.values()),
        tuple((k, _figures(_overlap_values(c), OVERLAP_WORDS), "") for k, c in zip(classes, total, strict=True)),
        "class",
        "By the mean IoU of the classes.",
        {name: float(np.mean(list(of.values()))) for name, of in ious.items()},
        {name: tuple((f"IoU of {k}", f"{iou:.4f}") for k, iou in of.items()) for name, of in ious.items()},
    )
    return Scored(values, tuple(text), tuple(rows), table)


def _as_probability(raw: Pixels, truth: Pixels) -> Pixels:
    """Grey values of a volume from 0 to 1, turned round if the foreground is the darker part."""
    finite = np.where(np.isfinite(raw), raw, np.nan)
    low, high = float(np.nanmin(finite)), float(np.nanmax(finite))
    scaled = np.nan_to_num((finite - low) / max(high - low, 1e-12), nan=0.5).clip(0, 1).astype(np.float32)
    is_darker = truth.any() and not truth.all() and scaled[truth].mean() < scaled[~truth].mean()
    return 1 - scaled if is_darker else scaled


def _warping(
    probabilities: Sequence[Pixels], labels: Sequence[Pixels], threshold: float, should_stop: Callable[[], bool]
) -> list[float]:
    errors = []
    for probability, truth in zip(probabilities, labels, strict=True):
        if should_stop():
            raise Stopped("stopped while scoring", "", "run the same command again")
        errors.append(warping_error(probability >= threshold, truth, confidence=np.abs(probability - threshold)))
    return errors


def _em_values(scores: EmScores, warped: float | None) -> dict[str, Any]:
    values = {"threshold": scores.threshold, **{name: getattr(scores, name) for name in _FIELDS}}
    return values if warped is None else {**values, "warping_error": warped}


def _overlap_values(counts: Overlap) -> dict[str, Any]:
    return {
        "iou": counts.iou, "dice": counts.dice, "precision": counts.precision, "recall": counts.recall,
        "misclassified": counts.misclassified,
    }  # fmt: skip


def _figures(values: Mapping[str, Any], words: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{values[name]:.4f}" if values.get(name) is not None else "-" for name in words)


def _per_plane(rows: Sequence[Mapping[str, Any]], words: Mapping[str, str]) -> dict[str, tuple[tuple[str, str], ...]]:
    """Word and figure each, by plane."""
    return {row["plane"]: tuple(zip(words.values(), _figures(row, words), strict=True)) for row in rows}


def _overlap_line(name: str, counts: Overlap) -> str:
    return f"{name:<32} {counts}"


def _ignored_share(volumes: Sequence[LabelledVolume]) -> float:
    ignored = sum(int(v.ignored.sum()) for v in volumes if v.ignored is not None)
    return ignored / max(1, sum(v.target.size for v in volumes))


def _membrane_lines(values: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    yield f"{'':<28} {'threshold':>9}  V_rand (split  merge )  V_info (split  merge )  misclass. pixel err. warping"
    named: dict[float, list[str]] = {}
    for name, threshold in values["thresholds"].items():
        named.setdefault(threshold, []).append(name)
    for threshold, names in sorted(named.items()):
        if not {"shipped", "v_rand"} & set(names):
            continue
        known = {"shipped": "shipped", "v_rand": "best V_rand"}
        words = " and ".join(known[name] for name in names if name in known)
        for row in rows:
            if row["threshold"] == threshold:
                yield _membrane_line(f"mean, {words}" if row["plane"] == "mean" else f"  {row['plane']}", row)
    best = values["best"]
    yield "each at its best threshold: " + ", ".join(
        f"{name} {entry['value']:.4f} ({entry['threshold']:.2f})"
        for name, entry in best.items()
        if name != "warping_error"
    )
    warped = best["warping_error"]
    yield f"least warping_error at these thresholds: {warped['value']:.5f} ({warped['threshold']:.2f})"
    raw = values["raw"]
    yield "raw image, each at its best: " + ", ".join(
        f"{name} {raw[name]['value']:.4f} ({raw[name]['threshold']:.2f})"
        for name in ("v_rand", "v_info", "misclassified")
    )
    if values["ignored"]:
        yield f"{values['ignored']:.2%} of the pixels have no label and count as membrane"


def _membrane_line(name: str, row: dict[str, Any]) -> str:
    return (
        f"{name:<28} {row['threshold']:>9.2f}  "
        f"{row['v_rand']:.4f} ({row['v_rand_split']:.4f} {row['v_rand_merge']:.4f})  "
        f"{row['v_info']:.4f} ({row['v_info_split']:.4f} {row['v_info_merge']:.4f})  {row['misclassified']:.4f}    "
        f"{row['pixel_error']:.4f}    {row['warping_error']:.5f}"
    )
