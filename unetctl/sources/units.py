"""Lengths in the words of the formats, turned into micrometres."""

import math

_UM_PER_UNIT = {
    "pm": 1e-6, "picometer": 1e-6, "picometre": 1e-6,
    "a": 1e-4, "å": 1e-4, "angstrom": 1e-4,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3,
    "um": 1.0, "micron": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3,
    "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4,
    "m": 1e6, "meter": 1e6, "metre": 1e6,
    "in": 25400.0, "inch": 25400.0,
}  # fmt: skip


def um_per_unit(unit: str | None) -> float | None:
    """Micrometres in one unit; None for pixels and for words that name no length."""
    if not unit:
        return None
    word = unit.strip().replace("\\u00b5", "u").replace("\\u00B5", "u").lower()
    word = word.replace("â", "").replace("µ", "u").replace("μ", "u")
    if word not in _UM_PER_UNIT and word.endswith("s"):
        word = word[:-1]
    return _UM_PER_UNIT.get(word)


def micrometres(value: object, unit: str | None) -> float | None:
    """A length in micrometres; None if it is missing, no positive finite number, or in a unit that names no length."""
    factor = um_per_unit(unit)
    try:
        length = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return length * factor if factor is not None and math.isfinite(length) and length > 0 else None
