"""Numbers and option values in words: how they are written, how they are read."""

import re

from unetctl.errors import UsageError

_DURATION_UNITS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(0.44), duration(75), duration(7500), duration(200000)
    ('0.4 s', '1 min 15 s', '2 h 05 min', '2 d 07 h')
    """
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 172800:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def figure(value: float) -> str:
    """A number with three or four digits that matter.

    >>> figure(0.0312345), figure(12.3456), figure(1234.5), figure(3.0)
    ('0.0312', '12.3', '1234', '3')
    """
    if value == round(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def plural(num: int, noun: str) -> str:
    """The number with its noun.

    >>> plural(1, "block"), plural(1200, "block")
    ('1 block', '1200 blocks')
    """
    return f"{num} {noun}" if num == 1 else f"{num} {noun}s"


def shown(text: str) -> str:
    """Text that cannot take over a terminal: control characters and undecodable bytes written as escapes."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def parse_part(text: str) -> tuple[int, int]:
    """(i, n) of "2/8".

    Raises:
        UsageError: unless 1 <= i <= n.
    """
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--part {text}", "auto, or i/n from 1/n to n/n, as 2/8")
    return int(match[1]), int(match[2])


def parse_channels(text: str) -> tuple[int, ...]:
    """(0, 2) of "0,2"; () of "all": each channel by itself.

    Raises:
        UsageError: if the text is no list of channel numbers.
    """
    if text.strip() == "all":
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise UsageError(
            f"--channel {text}",
            "numbers of channels from 0, as 0 or 0,2, or all",
            "unetctl info FILE names the channels",
        )
    return tuple(int(part) for part in parts)


def parse_shape(text: str) -> tuple[int, ...]:
    """(6, 512, 512) of "6,512,512" or "6x512x512"; (1000, 700) of "1000,700".

    Raises:
        UsageError: if the text is no such size.
    """
    parts = re.split(r"[x,]", text.strip())
    if len(parts) not in (2, 3) or not all(part.strip().isdigit() for part in parts):
        raise UsageError(f"--shape {text}", "slices, rows and columns, as 6,512,512, or rows and columns, as 1000,700")
    return tuple(int(part) for part in parts)


def parse_duration(text: str) -> float:
    """Seconds of "90", "45s", "30min", "7.5h", "1d", "1h30min" or "2:30:00" (hours, minutes, seconds).

    Raises:
        UsageError: if the text is no such duration, or zero.
    """
    clean = text.strip().lower()
    clock = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", clean)
    if clock:
        days, hours, minutes, rest = (int(n or 0) for n in clock.groups())
        seconds = float(days * 86400 + hours * 3600 + minutes * 60 + rest)
    elif re.fullmatch(r"\d*\.?\d+", clean):
        seconds = float(clean)
    elif re.fullmatch(r"(\d*\.?\d+\s*(s|min|m|h|d)\s*)+", clean):
        seconds = sum(float(n) * _DURATION_UNITS[unit] for n, unit in re.findall(r"(\d*\.?\d+)\s*(s|min|m|h|d)", clean))
    else:
        seconds = 0.0
    if seconds <= 0:
        raise UsageError(f"{text!r} is no duration", "as 45s, 30min, 7.5h or 2:30:00")
    return seconds
