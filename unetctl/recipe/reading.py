"""TOML text of people: a line that is no TOML is told, mended or passed over, and the rest is still read.

A parser stops at its first error; a reader of the message wants them all.
"""

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unetctl.errors import UsageError
from unetctl.recipe.problems import Problem, as_error

MAX_RECIPE_BYTES = 1 << 20  # a recipe is a page of text; anything larger is another file
MAX_SYNTAX_PROBLEMS = 20


@dataclass
class TomlText:
    """What a file says.

    Attributes:
        data: section name to settings, as far as they could be read.
        problems: the lines that are no TOML.
        doubts: ``(section, key)`` of settings on lines that had to be passed over.
    """

    data: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    doubts: set[tuple[str, str]] = field(default_factory=set)


def read_toml(path: Path) -> TomlText:
    """The file's values and the lines that are no TOML.

    Raises:
        UsageError: if the file cannot be read, is no text, or cannot be read past an error.
    """
    try:
        if path.stat().st_size > MAX_RECIPE_BYTES:
            raise UsageError(f"{path} has {path.stat().st_size} bytes", "a recipe, a short text in TOML")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})", "a readable recipe file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no UTF-8 text (byte {error.start})", "a recipe in TOML") from error
    return parse_toml(text, str(path))


def parse_toml(text: str, where: str) -> TomlText:
    """The values of a text, and its lines that are no TOML.

    Args:
        text: all of it.
        where: names it in messages.

    Raises:
        UsageError: at an error past which nothing can be read, together with those before.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    found = TomlText()
    while True:
        try:
            found.data = tomllib.loads("\n".join(lines))
            return found
        except tomllib.TOMLDecodeError as error:
            if not _pass_over(lines, str(error), found) or len(found.problems) == MAX_SYNTAX_PROBLEMS:
                raise as_error(where, found.problems) from error
        except (
            RecursionError,
            ValueError,
        ) as error:  # lists in lists without end, numbers of thousands of digits
            found.problems.append(Problem("the text", "nested too deeply or numbers too long", "a recipe in TOML"))
            raise as_error(where, found.problems) from error


def _pass_over(lines: list[str], message: str, found: TomlText) -> bool:
    """Note the error, mend its line or blank it; False if reading cannot go on."""
    place = re.search(r"\(at line (\d+), column \d+\)", message)
    reason = re.sub(r"\s*\(at (?:line \d+, column \d+|end of document)\)", "", message)
    i = int(place[1]) - 1 if place else max((i for i, line in enumerate(lines) if line.strip()), default=0)
    line = lines[i].strip()
    if place is None and ("Unclosed" in reason or "Unterminated" in reason):
        opened = next((k for k in reversed(range(i + 1)) if re.match(r"\s*[\w.-]+\s*=", lines[k])), i)
        seen = f"{lines[opened].strip()[:80]} ({reason.lower()})"
        found.problems.append(Problem(f"line {opened + 1}", seen, "an end of this list or text"))
        return False
    if not line:
        found.problems.append(Problem(f"line {i + 1}", f"no TOML ({reason})", "key = value"))
        return False
    better = _mended(line)
    if better and better != line and _is_toml(better):
        lines[i] = better
        problem = Problem(f"line {i + 1}", f"{line[:80]} is no TOML ({reason})", "key = value", f"write {better}")
    elif line.startswith("["):
        _blank(lines, i, found, whole_section=True)
        problem = Problem(f"line {i + 1}", f"{line[:80]} is no TOML ({reason})", "[section], each once")
    elif "overwrite" in reason:
        _blank(lines, i, found)
        problem = Problem(f"line {i + 1}", f"{line[:80]} sets it a second time", "each setting once")
    else:
        _blank(lines, i, found)
        hint = "leave the line out to have the default" if re.fullmatch(_NOTHING, line) else ""
        problem = Problem(f"line {i + 1}", f"{line[:80]} is no TOML ({reason})", "key = value", hint)
    found.problems.append(problem)
    return True


_NOTHING = r"[\w.-]+\s*=\s*(None|null|nil)?\s*(#.*)?"


def _blank(lines: list[str], first: int, found: TomlText, whole_section: bool = False) -> None:
    """Pass over a line, or over a section that begins there; what it set is in doubt."""
    header = re.compile(r"\s*\[\s*([\w-]+)")
    assignment = re.compile(r"\s*([\w.-]+)\s*=")
    above = (found_at for line in reversed(lines[: first + 1]) if (found_at := header.match(line)))
    section = next((match[1] for match in above), "")
    stop = first + 1
    while whole_section and stop < len(lines) and not header.match(lines[stop]):
        stop += 1
    keys = [match[1] for line in lines[first:stop] if (match := assignment.match(line))]
    if not keys and not whole_section:  # a line inside a list
        keys = [match[1] for line in reversed(lines[:first]) if (match := assignment.match(line))][:1]
    found.doubts |= {(section, key) for key in keys}
    lines[first:stop] = [""] * (stop - first)


def _mended(line: str) -> str | None:
    """What people meant who know another format; None if it cannot be guessed."""
    if header := re.fullmatch(r"\[\s*([\w-]+)[^\]\w]*", line):
        return f"[{header[1]}]"
    if yaml := re.fullmatch(r"([\w.-]+)\s*:\s*([^=]*)", line):
        line = f"{yaml[1]} = {yaml[2]}"
        if _is_toml(line):
            return line
    key, equals, value = (part.strip() for part in line.partition("="))
    value = value.split("#")[0].strip().rstrip(",;").strip()
    if not equals:
        return None
    if value in ("True", "False"):
        return f"{key} = {value.lower()}"
    if re.fullmatch(r"[+-]?(\.\d+|\d+\.)", value):
        return f"{key} = {float(value)}"
    if re.fullmatch(r"\d*:\d*|[^\W\d][\w ./*:-]*", value) and value not in ("None", "null", "nil"):
        return f'{key} = "{value}"'
    if re.fullmatch(r"\(.*\)", value):
        return f"{key} = [{value[1:-1]}]"
    return f"{key} = {value}" if value else None


def _is_toml(line: str) -> bool:
    try:
        tomllib.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
