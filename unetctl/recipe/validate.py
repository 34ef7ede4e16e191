"""From plain values to a recipe, with every problem found in one go.

Sections are validated one by one, so that a mistake in one hides none in another. What was probably meant by
an unknown name counts as wrong, not as absent: no check then argues from a default that nobody asked for.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from unetctl.recipe.checks import cross_problems
from unetctl.recipe.problems import Problem, as_error, nearest
from unetctl.recipe.schema import Recipe, Section
from unetctl.recipe.words import SYNONYMS, field_words, repair, toml_value

SECTIONS: dict[str, type[Section]] = {
    name: info.annotation
    for name, info in Recipe.model_fields.items()
    if isinstance(info.annotation, type) and issubclass(info.annotation, Section)
}


@dataclass
class _Findings:
    """What is known to be wrong so far.

    Attributes:
        problems: told in the end.
        titles: section to the heading that stands for it in the recipe, perhaps misspelt.
        lost: sections that are no tables.
        unsure: settings ``(section, key)`` that cannot be relied on.
    """

    problems: list[Problem]
    titles: dict[str, str] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    unsure: set[tuple[str, str]] = field(default_factory=set)


def validated(
    data: Mapping[str, Any],
    where: str,
    overridden: frozenset[str] = frozenset(),
    known: Sequence[Problem] = (),
    doubts: Collection[tuple[str, str]] = (),
) -> Recipe:
    """The recipe of these values.

    Args:
        data: section name to settings, plain values.
        where: names the source in messages.
        overridden: ``section.key`` of the settings that came from ``--set``.
        known: problems found before, told together with those found here.
        doubts: ``(section, key)`` of settings that `known` is about and that `data` lacks.

    Raises:
        UsageError: naming all problems.
    """
    found = _Findings([])
    tables = _tables(data, found)
    found.unsure |= {(nearest(name, SECTIONS), key) for name, key in doubts}
    sections = {name: _section(name, tables.get(name, {}), found) for name in SECTIONS}
    for name, key in found.unsure & {(s, k) for s, model in SECTIONS.items() for k in model.model_fields}:
        sections[name].__dict__.pop(key, None)  # ours alone so far; a check that reads it finds a gap
    is_incomplete = bool(found.problems or known)
    found.problems += cross_problems(Recipe.model_construct(None, **sections), is_incomplete)
    if found.problems or known:
        raise as_error(where, [*known, *_in_order(found)], overridden)
    return Recipe.model_validate(sections)


def where_else(key: str, here: str = "") -> str:
    """Where an unknown key belongs, as a hint: "did you mean depth?", "belongs in [train]"; or ""."""
    homes = [f"[{name}]" for name, model in SECTIONS.items() if key in model.model_fields and name != here]
    if homes:
        return f"belongs in {' or '.join(homes)}"
    home, name = _guess(key, here)
    if not name:
        return ""
    return f"did you mean {name}?" if home == here else f"did you mean {name} in [{home}]?"


def _guess(key: str, here: str) -> tuple[str, str]:
    synonym = SYNONYMS.get(key.lower().replace("-", "_"))
    if synonym:
        section, _, name = synonym.partition(".")
        return section, name
    if here in SECTIONS and (near := nearest(key, SECTIONS[here].model_fields)):
        return here, near
    for section, model in SECTIONS.items():
        if near := nearest(key, model.model_fields, cutoff=0.8):
            return section, near
    return "", ""


def _tables(data: Mapping[str, Any], found: _Findings) -> dict[str, Mapping[str, Any]]:
    """Section name to what stands under its heading; a misspelt heading counts as the one it resembles."""
    tables: dict[str, Mapping[str, Any]] = {}
    for name, values in data.items():
        is_table = isinstance(values, Mapping)
        if name in SECTIONS and is_table:
            tables[name] = values
        elif name in SECTIONS:
            found.lost.add(name)
            found.unsure |= {(name, key) for key in SECTIONS[name].model_fields}
            found.problems.append(Problem(f"[{name}]", _shown(values), "lines key = value below it"))
        elif is_table:
            near = nearest(name, SECTIONS)
            expected = "" if near else f"one of {', '.join(f'[{section}]' for section in SECTIONS)}"
            hint = f"did you mean [{near}]?" if near else ""
            found.problems.append(Problem(f"[{name}]", "no such section", expected, hint))
            if near and near not in data and near not in tables:
                tables[near] = values
                found.titles[near] = name
        else:
            _doubt(name, "", found)
            expected = "every setting under its [section]"
            found.problems.append(Problem(name, "stands above all sections", expected, where_else(name)))
    return tables


def _doubt(key: str, here: str, found: _Findings) -> None:
    """Rely on nothing that the unknown `key` may have meant."""
    homes = {(section, key) for section, model in SECTIONS.items() if key in model.model_fields}
    found.unsure |= homes or {_guess(key, here)}


def _section(name: str, table: Mapping[str, Any], found: _Findings) -> Section:
    """The section with what is right in it; the wrong settings are noted."""
    model = SECTIONS[name]
    if name in found.lost:
        return model.model_construct()
    values = {key: _plain(value) for key, value in table.items()}
    wrong: set[str] = set()
    try:
        return model.model_validate(values)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            key = str(detail["loc"][0])
            is_told = key in wrong or (key not in values and (name, key) in found.unsure)
            wrong.add(key)
            found.unsure.add((name, key))
            if not is_told:
                found.problems.append(_problem(name, key, values, detail, found.titles.get(name, name)))
                if key not in model.model_fields:
                    _doubt(key, name, found)
    good = {key: value for key, value in values.items() if key not in wrong}
    try:
        return model.model_validate(good)
    except ValidationError:  # a setting without default is missing or wrong
        return model.model_construct(None, **good)


def _problem(name: str, key: str, values: Mapping[str, Any], detail: ErrorDetails, title: str) -> Problem:
    model = SECTIONS[name]
    where = f"{title}.{key}"
    if detail["type"] == "extra_forbidden":
        hint = where_else(key, name)
        expected = "" if hint else f"one of {', '.join(model.model_fields)}"
        return Problem(where, "no such setting", expected, hint)
    words = field_words(model.model_fields[key])
    if key not in values:
        return Problem(where, "missing", words)
    return Problem(where, _shown(values[key]), words, repair(model, key, values[key]))


def _in_order(found: _Findings) -> list[Problem]:
    """Problems section by section, in the order of the schema; those of no section first."""
    rank = {title: i for i, name in enumerate(SECTIONS, start=1) for title in (name, found.titles.get(name, name))}
    return sorted(found.problems, key=lambda problem: rank.get(problem.where.strip("[]").partition(".")[0], 0))


def _plain(value: object) -> object:
    """Tuples of values that never were TOML, as lists."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _shown(value: object) -> str:
    text = toml_value(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."
