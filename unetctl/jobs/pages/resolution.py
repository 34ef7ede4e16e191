"""Pages whose resolution lies far from what the network was trained at: told once for all of them."""

import math
from collections import defaultdict

from unetctl.recipe.overview import trained_dpi
from unetctl.recipe.schema import Recipe

#: Factor beyond the range trained at from which a page is told.
_FAR = 1.5
#: Resolutions that are told one by one, and pages named of each.
_TOLD, _NAMED = 4, 3


class ResolutionCheck:
    """Compares pages with ``[input] dpi`` of a recipe; says nothing where either is unknown.

    Args:
        recipe: of the network.
        scale: factor by which the network sees pages enlarged (`--scale`).
    """

    def __init__(self, recipe: Recipe, scale: float = 1.0) -> None:
        self._task, self._range, self._scale = recipe.task.name, recipe.input.dpi, scale
        self._far: dict[float, list[str]] = defaultdict(list)

    def look_at(self, name: str, dpi: tuple[float, float] | None) -> None:
        """A page comes by.

        Args:
            name: of its file.
            dpi: (y, x) as the file has it; None where unknown.
        """
        if self._range is None or dpi is None:
            return
        mean = math.sqrt(dpi[0] * dpi[1])
        lowest, highest = self._range
        if not lowest / _FAR <= mean * self._scale <= highest * _FAR:
            self._far[float(f"{mean:.3g}")].append(name)

    def warnings(self) -> list[str]:
        """A sentence for each resolution that is far off, the most frequent first."""
        if self._range is None:
            return []
        found = sorted(self._far.items(), key=lambda item: (-len(item[1]), item[0]))
        told = [self._sentence(dpi, names) for dpi, names in found[:_TOLD]]
        rest = sum(len(names) for _, names in found[_TOLD:])
        if rest:
            many = f"{rest} pages" if rest > 1 else "1 page"
            told.append(f"{many} more at {len(found) - _TOLD} other resolutions far from those trained at")
        return told

    def _sentence(self, dpi: float, names: list[str]) -> str:
        assert self._range is not None
        unique = list(dict.fromkeys(names))
        listed = ", ".join(unique[:_NAMED]) + (f" and {len(unique) - _NAMED} more" if len(unique) > _NAMED else "")
        many = f"{len(names)} pages" if len(names) > 1 else "1 page"
        seen = f", seen at {dpi * self._scale:.3g} by --scale {self._scale:g}," if self._scale != 1 else ""
        return (
            f"{many} at {dpi:g} dpi{seen} ({listed}): {self._task} was trained at {trained_dpi(self._range)}, "
            f"expect poor results; --scale {fitting_scale(dpi, self._range):g} brings them there"
        )


def fitting_scale(dpi: float, trained: tuple[float, float]) -> float:
    """The short factor nearest to 1 that brings a resolution into a range.

    >>> fitting_scale(72, (150, 600)), fitting_scale(1200, (150, 600)), fitting_scale(2400, (150, 599))
    (2.1, 0.5, 0.24)
    """
    lowest, highest = trained
    if lowest <= dpi <= highest:
        return 1.0
    exact = lowest / dpi if dpi < lowest else highest / dpi
    unit = 10.0 ** (math.floor(math.log10(exact)) - 1)
    steps = math.ceil(exact / unit - 1e-9) if dpi < lowest else math.floor(exact / unit + 1e-9)
    return float(f"{steps * unit:.6g}")
