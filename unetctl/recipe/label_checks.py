"""What must hold between the settings of [labels]; see `checks`."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from unetctl.recipe.problems import Problem
from unetctl.recipe.words import toml_value

if TYPE_CHECKING:
    from unetctl.recipe.schema import Recipe


def _label_values(r: "Recipe") -> Iterator[Problem]:
    values, ignore = r.labels.values, r.labels.ignore
    double = sorted({v for v in values if values.count(v) > 1})
    if double:
        yield Problem("labels.values", f"{toml_value(double)} more than once", "each pixel value once")
    if ignore is not None and ignore in values:
        yield Problem("labels.ignore", f"{ignore}, which is one of values", "a pixel value of no class")


def _label_foreground(r: "Recipe") -> Iterator[Problem]:
    labels = r.labels
    if labels.foreground == "values":
        return
    if labels.kind != "binary" or labels.values or labels.ignore is not None:
        yield Problem(
            "labels.foreground",
            f'"{labels.foreground}" together with {_used_with(r)}',
            'kind = "binary" with neither values nor ignore',
            'foreground = "values" takes the pixel values as they are',
        )


def _used_with(r: "Recipe") -> str:
    if r.labels.kind != "binary":
        return f'kind = "{r.labels.kind}"'
    name = "values" if r.labels.values else "ignore"
    return f"{name} = {toml_value(getattr(r.labels, name))}"


def _label_kind(r: "Recipe") -> Iterator[Problem]:
    kind, num, num_values = r.labels.kind, r.output.num_channels, len(r.labels.values)
    if kind == "classes" and num < 2:
        yield Problem(
            "labels.kind",
            '"classes" with a single class in [output]',
            "two names or more in classes of [output]",
            'use kind = "binary" for foreground and background',
        )
    elif kind == "binary" and num > 2:
        yield Problem("labels.kind", f'"binary" with {num} classes in [output]', '"classes"')
    elif kind == "binary" and num_values == 1:
        yield Problem(
            "labels.values",
            toml_value(r.labels.values),
            "background values, then the foreground",
            "for example [0, 255]",
        )
    elif kind == "classes" and num_values not in (0, num):
        yield Problem(
            "labels.values",
            toml_value(r.labels.values),
            f"{num} values, one for each of {toml_value(r.output.classes)}",
        )


def _label_colours(r: "Recipe") -> Iterator[Problem]:
    labels, num = r.labels, r.output.num_channels
    drawn = toml_value(labels.colours)
    if not labels.colours:
        if labels.ignore_colour is not None:
            yield Problem(
                "labels.ignore_colour", f'"{labels.ignore_colour}" without colours', "colours for the classes"
            )
        return
    double = sorted({colour for colour in labels.colours if labels.colours.count(colour) > 1})
    if double:
        yield Problem("labels.colours", f"{toml_value(double)} more than once", "each colour once")
    if labels.ignore_colour in labels.colours:
        yield Problem(
            "labels.ignore_colour", f'"{labels.ignore_colour}", which is one of colours', "a colour of no class"
        )
    if labels.values or labels.ignore is not None or labels.foreground != "values":
        others = [key for key in ("values", "ignore") if getattr(labels, key) not in ((), None)] or ["foreground"]
        yield Problem(
            "labels.colours", f"{drawn} together with {' and '.join(others)}", "one of the two ways to read labels"
        )
    if labels.kind not in ("binary", "classes"):
        yield Problem("labels.colours", f'{drawn} with kind = "{labels.kind}"', 'kind = "binary" or "classes"')
    elif labels.kind == "classes" and len(labels.colours) != num:
        expected = f"{num} colours, one for each of {toml_value(r.output.classes)}"
        yield Problem("labels.colours", drawn, expected)
    elif labels.kind == "binary" and len(labels.colours) < 2:
        yield Problem(
            "labels.colours", drawn, "background colours, then the foreground", 'for example ["#000000", "#ff0000"]'
        )


LABEL_CHECKS: tuple[Callable[["Recipe"], Iterator[Problem]], ...] = (
    _label_values,
    _label_foreground,
    _label_kind,
    _label_colours,
)
