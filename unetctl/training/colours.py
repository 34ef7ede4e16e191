"""Labels that are drawn in colours: one colour, one class.

count_colours(pixels (3, y, x)) -> {"#ff0000": pixels, ...}
classes_of_colours(pixels, colours, ignored, where) -> (class numbers (y, x), where ignored (y, x))
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError

#: So many unexpected colours are named in a message.
_NAMED = 8


def count_colours(pixels: npt.NDArray[Any]) -> dict[str, int]:
    """Pixels of each colour, the most frequent first.

    Args:
        pixels: (3, y, x) uint8.
    """
    packed, counts = np.unique(_packed(pixels), return_counts=True)
    order = np.lexsort((packed, -counts))
    return {_written(int(packed[i])): int(counts[i]) for i in order}


def classes_of_colours(
    pixels: npt.NDArray[Any], colours: Sequence[str], ignored: str | None, where: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """The class numbers (y, x) of drawn labels, and where they are to be ignored (class 0 there).

    Args:
        pixels: (3, y, x) uint8.
        colours: ``#rrggbb`` of class 0, 1, ...
        ignored: a colour without a class, or None.
        where: the file, for the message.

    Raises:
        InputError: if other colours occur: names them, with their share of the picture.
    """
    packed = _packed(pixels)
    classes = np.full(packed.shape, 255, np.uint8)
    for number, colour in enumerate(colours):
        classes[packed == _packed_of(colour)] = number
    is_ignored = np.zeros(packed.shape, bool) if ignored is None else packed == _packed_of(ignored)
    unknown = (classes == 255) & ~is_ignored
    if unknown.any():
        found = count_colours(pixels[:, unknown][:, None])
        shown = ", ".join(list(found)[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")
        smeared = len(found) > _NAMED
        raise InputError(
            f"the labels {where} hold the colours {shown} ({unknown.mean():.2%} of the pixels)",
            f"those of labels.colours: {', '.join(colours)}",
            "colours between the classes come from JPEG, scaling or soft brushes: save the masks without these, as PNG"
            if smeared
            else "add them to the recipe's [labels], or name one that is to be passed over as labels.ignore_colour",
        )
    classes[is_ignored] = 0
    return classes, is_ignored


def named_shares(counts: Mapping[str, int]) -> str:
    """For people: each colour with its share of all pixels."""
    total = max(1, sum(counts.values()))
    return ", ".join(f"{name} {count / total:.1%}" for name, count in counts.items())


def _packed(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    red, green, blue = pixels.astype(np.uint32)
    packed: npt.NDArray[np.uint32] = (red << 16) | (green << 8) | blue
    return packed


def _packed_of(colour: str) -> int:
    return int(colour.removeprefix("#"), 16)


def _written(packed: int) -> str:
    return f"#{packed:06x}"
