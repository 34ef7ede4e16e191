"""What is wrong with a recipe, gathered first and told at once, with the near miss.

The manner is torchtune's config error (all problems together) and pypa/build's guess at a mistyped key.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from unetctl.errors import UsageError


@dataclass(frozen=True)
class Problem:
    """One mistake.

    Attributes:
        where: the setting as ``section.key``, a section's name, or the text of an option ("--set depth=3").
        seen: what stands there.
        expected: what would be right; may be empty when `seen` implies it.
        hint: what to do, or the near miss; may be empty.
    """

    where: str
    seen: str
    expected: str = ""
    hint: str = ""

    def label(self, overridden: frozenset[str] = frozenset()) -> str:
        """How a reader finds the place: ``[section] key``, or the option that set it."""
        if self.where in overridden:
            return _one_line(f"--set {self.where}")
        section, dot, key = self.where.partition(".")
        is_setting = dot and not self.where.startswith("-")
        return _one_line(f"[{section}] {key}" if is_setting else self.where)


def as_error(where: str, problems: Sequence[Problem], overridden: frozenset[str] = frozenset()) -> UsageError:
    """One error for all problems of one recipe.

    Args:
        where: the recipe's file or another name for its source.
        problems: at least one.
        overridden: ``section.key`` of the settings that came from ``--set``.
    """
    if len(problems) == 1:
        only = problems[0]
        return UsageError(f"{where}: {only.label(overridden)}: {_one_line(only.seen)}", only.expected, only.hint)
    lines = [f"{where} has {len(problems)} mistakes:"]
    for i, problem in enumerate(problems, start=1):
        told = UsageError(f"{problem.label(overridden)}: {_one_line(problem.seen)}", problem.expected, problem.hint)
        lines.append(f"  {i}. {told}")
    return UsageError("\n".join(lines))


def nearest(word: str, options: Iterable[str], cutoff: float = 0.6) -> str:
    """The option that `word` was probably meant to be, "" if none is close; case and ``-`` do not count."""
    plain = {_plain(option): option for option in options}
    found = get_close_matches(_plain(word), plain, n=1, cutoff=cutoff)
    return plain[found[0]] if found else ""


def _one_line(text: str) -> str:
    """Names and values as given, what would move a terminal's cursor written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _plain(word: str) -> str:
    return word.lower().replace("-", "_")
