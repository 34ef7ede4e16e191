"""``--set section.key=value``: values as TOML, with the quotes and brackets that a shell eats left out."""

import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic.fields import FieldInfo

from unetctl.recipe.problems import Problem, nearest
from unetctl.recipe.validate import SECTIONS, where_else
from unetctl.recipe.words import is_text, list_item

#: Settings that go without their section.
SHORT = {"blocks": "network.blocks"}


def with_overrides(
    data: Mapping[str, Any], overrides: Sequence[str]
) -> tuple[dict[str, Any], frozenset[str], list[Problem]]:
    """A copy of `data` with the overrides put in; the last one of a key wins.

    ``section.key=`` without a value takes a setting out, so that its default holds. A setting that is text
    takes its value as it stands; a list needs no brackets: ``split.val=22:24``, ``train.crop=256,256``. The settings of
    `SHORT` need no section: ``blocks=1``.

    Returns:
        The values; ``section.key`` of all that was overridden; the problems of overrides that are left out.
    """
    values = {name: dict(table) if isinstance(table, Mapping) else table for name, table in data.items()}
    overridden: set[str] = set()
    problems: list[Problem] = []
    for text in overrides:
        path, equals, raw = text.partition("=")
        path = SHORT.get(path.strip(), path)
        section, dot, key = (part.strip() for part in path.partition("."))
        problem = _misnamed(text, section, key) if equals and dot else _misformed(text, path.strip(), bool(equals))
        if problem is not None:
            problems.append(problem)
            continue
        table = values.setdefault(section, {})
        if not isinstance(table, dict):
            continue  # the section itself is wrong, and said to be
        overridden.add(f"{section}.{key}")
        table.pop(key, None)
        if raw.strip():
            table[key] = parsed_value(raw.strip(), SECTIONS[section].model_fields.get(key))
    return values, frozenset(overridden), problems


def parsed_value(text: str, field: FieldInfo | None) -> object:
    """The value of an option's text: what the setting's type makes of it, else TOML, else the bare text.

    Args:
        text: not empty, without surrounding space.
        field: the setting; None if there is no such setting.
    """
    if field is not None and is_text(field) and text[0] not in "\"'":
        return text
    item = list_item(field) if field is not None else None
    if item is not None and text[0] != "[":
        if item is str and text[0] not in "\"'":
            return [part.strip() for part in text.split(",") if part.strip()]
        text = f"[{text}]"
    with suppress(ValueError, RecursionError):
        parsed = tomllib.loads(f"value = {text}")
        if len(parsed) == 1:
            return parsed["value"]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    with suppress(ValueError):
        return float(text)  # ".5" and "1e-3." are numbers to everybody but TOML
    return text


def _misformed(text: str, path: str, has_value: bool) -> Problem:
    expected = "section.key=value"
    homes = [f"{name}.{path}" for name, model in SECTIONS.items() if path in model.model_fields]
    if has_value and homes:
        value = text.partition("=")[2]
        return Problem(f"--set {text}", "no section", expected, f"did you mean {' or '.join(homes)}={value}?")
    return Problem(f"--set {text}", "no section" if has_value else "no value", expected)


def _misnamed(text: str, section: str, key: str) -> Problem | None:
    if section in SECTIONS:
        return None
    near = nearest(section, SECTIONS)
    if near:
        hint = f"did you mean {near}.{key}?"
    elif key in {name for model in SECTIONS.values() for name in model.model_fields}:
        hint = f"{key} {where_else(key)}"
    else:
        hint = ""
    return Problem(f"--set {text}", f"no section {section}", f"one of {', '.join(SECTIONS)}", hint)
