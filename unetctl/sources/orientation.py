"""Pictures stored turned or mirrored, and the way upright (TIFF 6.0 and EXIF tag Orientation, codes 1 to 8).

Code of the corner where the stored row 0 and column 0 lie::

    1 +--->x    2 x<---+    3      y    4 y        5 +--->y    6 y<---+    7      x    8 x
      |                |          ^       ^          |                |          ^       ^
      v                v          |       |          v                v          |       |
      y                y     x<---+       +--->x     x                x     y<---+       +--->y
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# code: (stored rows run upwards, stored columns run leftwards, rows and columns change places after that)
_MOVES = {
    1: (False, False, False),
    2: (False, True, False),
    3: (True, True, False),
    4: (True, False, False),
    5: (False, False, True),
    6: (True, False, True),
    7: (True, True, True),
    8: (False, True, True),
}


def swaps_axes(code: int) -> bool:
    """True if height and width change places."""
    return _MOVES[code][2]


def upright(array: npt.NDArray[np.generic], code: int, y_axis: int = 0) -> npt.NDArray[np.generic]:
    """A stored picture (or the stored part that `stored_ranges` gives) turned upright; a view.

    Args:
        array: any axes, y and x beside each other.
        code: orientation as stored.
        y_axis: number of the y axis; x is the next one.
    """
    flip_y, flip_x, swap = _MOVES[code]
    index = [slice(None)] * array.ndim
    index[y_axis], index[y_axis + 1] = (
        slice(None, None, -1 if flip_y else 1),
        slice(None, None, -1 if flip_x else 1),
    )
    turned = array[tuple(index)]
    return turned.swapaxes(y_axis, y_axis + 1) if swap else turned


def stored_ranges(
    y: tuple[int, int], x: tuple[int, int], code: int, stored_shape: Sequence[int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where a region of the upright picture lies as stored.

    Args:
        y: [start, stop) of upright rows.
        x: [start, stop) of upright columns.
        code: orientation as stored.
        stored_shape: (height, width) as stored.

    Returns:
        [start, stop) of stored rows and of stored columns.
    """
    flip_y, flip_x, swap = _MOVES[code]
    rows, columns = (x, y) if swap else (y, x)
    height, width = stored_shape
    if flip_y:
        rows = (height - rows[1], height - rows[0])
    if flip_x:
        columns = (width - columns[1], width - columns[0])
    return rows, columns
