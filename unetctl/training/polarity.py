"""Which of two label values is ink: the one where the pictures are darker, by majority.

settled(loaded pairs) -> (loaded pairs, Polarity);  darkness(pixels, is_high) -> evidence of one plane
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from unetctl.training.load import LoadedPair

#: So many pages that say the opposite are named.
_NAMED = 5


@dataclass(frozen=True)
class Polarity:
    """What was found.

    Attributes:
        ink, paper: label values; of encodings that differ the commonest.
        num_agreeing, num_judged: planes that show it, of those that have both values.
        opposite: names of the planes that show the opposite.
    """

    ink: float
    paper: float
    num_agreeing: int
    num_judged: int
    opposite: tuple[str, ...]

    def describe(self) -> list[tuple[str, str]]:
        """Sentences with their kind, "info" or "warning"."""
        if not self.num_judged:
            text = f"no page has two label values: {self.ink:g} is taken as ink, {self.paper:g} as paper"
            return [(text, "warning")]
        shown = f"darker there on {self.num_agreeing} of {self.num_judged} pages"
        told = [(f"labels: {self.ink:g} is ink, {self.paper:g} is paper ({shown})", "info")]
        if self.opposite:
            names = ", ".join(self.opposite[:_NAMED]) + (" ..." if len(self.opposite) > _NAMED else "")
            text = f"labels the other way round, or light writing on dark paper? Brighter where the labels say ink: {names}"
            told.append((text, "warning"))
        return told


def settled(loaded: Sequence[LoadedPair]) -> tuple[list[LoadedPair], Polarity | None]:
    """The pairs with class 1 for ink.

    Args:
        loaded: all pairs that train or validate, of one recipe. Those of `labels.foreground = "darker"` bring
            evidence; of any others nothing is changed.

    Returns:
        The pairs, targets turned over if most planes are darker at the greater label value; and what was found, None
        if nothing had to be.
    """
    evidence = [one for pair in loaded for one in pair.evidence]
    if not evidence:
        return list(loaded), None
    judged = [one for one in evidence if not np.isnan(one.darkness_of_low)]
    num_low = sum(one.darkness_of_low >= 0 for one in judged)
    is_low = 2 * num_low >= len(judged)
    lows, highs = zip(*((one.low, one.high) for one in judged or evidence), strict=True)
    values = _commonest(lows), _commonest(highs)
    if not judged:
        values = 0.0, max(highs)
    ink, paper = values if is_low else values[::-1]
    opposite = tuple(one.name for one in judged if (one.darkness_of_low >= 0) != is_low)
    found = Polarity(ink, paper, len(judged) - len(opposite), len(judged), opposite)
    if is_low:
        return list(loaded), found
    turned = [
        replace(pair, planes=tuple(replace(plane, target=1 - plane.target.astype(np.uint8)) for plane in pair.planes))
        for pair in loaded
    ]
    return turned, found


def _commonest(values: Sequence[float]) -> float:
    return max(sorted(set(values)), key=values.count)
