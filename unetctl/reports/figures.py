"""How figures are called, written and ranked on a page. Pure values, no files."""

import math
from collections.abc import Iterable, Mapping, Sequence

_TITLES = {
    "loss": "loss",
    "val_loss": "validation loss",
    "v_rand": "V_rand",
    "v_rand_split": "V_rand, split",
    "v_rand_merge": "V_rand, merge",
    "v_info": "V_info",
    "v_info_split": "V_info, split",
    "v_info_merge": "V_info, merge",
    "misclassified": "misclassified pixels",
    "iou": "IoU",
    "dice": "Dice",
    "f": "F-measure",
    "pseudo_f": "pseudo F-measure",
    "ap50": "AP at 0.5",
    "mean_ap": "mean AP",
    "seg": "SEG",
    "mean_precision": "mean precision",
    "psnr": "PSNR (dB)",
    "psnr_inside": "PSNR inside the damage (dB)",
    "ssim": "SSIM",
    "drd": "DRD",
    "interior_f": "F of the interior",
    "lr": "learning rate",
    "threshold": "chosen threshold",
    "seed_threshold": "chosen threshold of seeds",
}
_LOWER_IS_BETTER = ("loss", "error", "misclassified", "drd", "warping", "rmse", "mae", "mse")
_NOT_JUDGED = ("threshold", "seed_threshold", "lr", "epoch", "step", "elapsed_s")


def title_of(name: str) -> str:
    """The figure's name as people read it: "val_loss" is "validation loss"."""
    return _TITLES.get(name, name.replace("_", " "))


def is_judged(name: str) -> bool:
    """False for what is set or counted rather than reached: thresholds, learning rates, times."""
    return name not in _NOT_JUDGED


def is_lower_better(name: str) -> bool:
    """True for losses and errors; everything else counts as a score."""
    words = name.lower().replace("-", "_").split("_")
    return any(word in _LOWER_IS_BETTER for word in words)


def write_figure(value: float) -> str:
    """Four significant digits; whole numbers as such, thousands grouped, "not a number" and infinities as words."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def write_column(values: Sequence[float | None]) -> list[str]:
    """The values of one column of a table, all with the same number of decimals; None is an empty cell."""
    texts = ["" if value is None else write_figure(value) for value in values]
    plain = [text for text in texts if text and not text[-1].isalpha() and "e" not in text]
    decimals = max((len(text.partition(".")[2]) for text in plain), default=0)
    return [
        f"{value:,.{decimals}f}" if value is not None and text in plain else text
        for value, text in zip(values, texts, strict=True)
    ]


def metric_names(history: Iterable[Mapping[str, float]]) -> list[str]:
    """Every figure but epoch and the losses, in order of appearance; figures that are only set come last."""
    names = dict.fromkeys(name for entry in history for name in entry if name not in ("epoch", "loss", "val_loss"))
    return sorted(names, key=lambda name: not is_judged(name))


def default_select(history: Sequence[Mapping[str, float]]) -> str:
    """The figure that marks the best epoch by default: the first metric, else a loss, of validation first."""
    judged = [name for name in metric_names(history) if is_judged(name)]
    has_val_loss = any("val_loss" in entry for entry in history)
    return judged[0] if judged else "val_loss" if has_val_loss else "loss"


def best_index(history: Sequence[Mapping[str, float]], select: str, lowest: bool) -> int | None:
    """Index of the first entry with the best finite value of `select`; None if no entry has one."""
    found = [(i, entry[select]) for i, entry in enumerate(history) if math.isfinite(entry.get(select, math.nan))]
    if not found:
        return None
    return min(found, key=lambda item: item[1] if lowest else -item[1])[0]
