"""What the scores demand of the arrays they are given, said in one place."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetctl.errors import InputError

Mask = NDArray[np.bool_]
Labels = NDArray[np.integer[Any]]
Probability = NDArray[np.floating[Any]]


def require_mask(name: str, array: NDArray[Any]) -> None:
    """Refuse anything but booleans, so that 0/255 images are never taken for masks by accident.

    Raises:
        InputError: `array` is not boolean.
    """
    if array.dtype != np.bool_:
        raise InputError(f"{name} has values of type {array.dtype}", "booleans", "compare with a threshold first")


def require_same_shape(name: str, array: NDArray[Any], other_name: str, other: NDArray[Any]) -> None:
    """Refuse arrays that do not lie on each other.

    Raises:
        InputError: the shapes differ.
    """
    if array.shape != other.shape:
        raise InputError(f"{name} has shape {array.shape}", f"{other.shape}, the shape of the {other_name}")


def require_probability(array: NDArray[Any]) -> None:
    """Refuse anything but floats between 0 and 1.

    Raises:
        InputError: not a float array, or a value is below 0, above 1 or not a number.
    """
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(
            f"the probability has values of type {array.dtype}",
            "floats from 0 to 1",
            "divide 8-bit values by 255",
        )
    if array.size and not (array.min() >= 0 and array.max() <= 1):  # written so that NaN fails too
        raise InputError(f"the probability spans {array.min():g} to {array.max():g}", "values from 0 to 1")


def require_ndim(name: str, array: NDArray[Any], *allowed: int) -> None:
    """Refuse arrays of another number of axes.

    Raises:
        InputError: the number of axes is none of `allowed`.
    """
    if array.ndim not in allowed:
        axes = " or ".join({2: "(y, x)", 3: "(z, y, x)"}[ndim] for ndim in allowed)
        raise InputError(f"{name} has shape {array.shape}", f"axes {axes}")
