"""What must hold between the settings of a recipe whose answers are objects; see `checks`."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from unetctl.recipe.problems import Problem
from unetctl.recipe.words import toml_value

if TYPE_CHECKING:
    from unetctl.recipe.schema import Recipe

#: Classes of the network's answer where labels are objects: background, interior, border, in this order.
NUM_OBJECT_CLASSES = 3
_EXAMPLE = 'classes = ["background", "interior", "border"]'


def _objects_kind(r: "Recipe") -> Iterator[Problem]:
    labels, num = r.labels, len(r.output.classes)
    if labels.kind != "objects":
        for name, given in (("border_px", labels.border_px), ("rim", labels.rim or None)):
            if given is not None:
                yield Problem(
                    f"labels.{name}",
                    f'{given} with kind = "{labels.kind}"',
                    'kind = "objects"',
                    "leave it out otherwise",
                )
        if r.objects.diameter_px is not None:
            seen = f'{r.objects.diameter_px:g} with kind = "{labels.kind}" of [labels]'
            yield Problem("objects.diameter_px", seen, 'kind = "objects"', "leave it out otherwise")
        return
    if r.objects.diameter_px is not None:
        for name, given, only in (
            ("network.dims", r.network.dims, 2), ("input.context_slices", r.input.context_slices, 1),
        ):  # fmt: skip
            if given != only:
                yield Problem(
                    "objects.diameter_px", f"{r.objects.diameter_px:g} with {name} = {given}", f"{only}",
                    "objects are looked at plane by plane",
                )  # fmt: skip
    if num != NUM_OBJECT_CLASSES:
        yield Problem("labels.kind", f'"objects" with {num} classes in [output]', "three of them, in order", _EXAMPLE)
    if labels.values:
        yield Problem(
            "labels.values", f'{toml_value(labels.values)} with kind = "objects"', "no values",
            "every number is an object, 0 the background",
        )  # fmt: skip
    if labels.ignore == 0:
        yield Problem("labels.ignore", '0 with kind = "objects"', "another value", "0 is the background")


def _objects_keep(r: "Recipe") -> Iterator[Problem]:
    if r.output.keep != "labels":
        return
    if r.labels.kind != "objects":
        yield Problem("output.keep", f'"labels" with kind = "{r.labels.kind}" of [labels]', 'kind = "objects"')
    elif r.output.resolved_activation != "softmax":
        yield Problem("output.keep", f'"labels" with activation = "{r.output.activation}"', "softmax")


def _objects_select(r: "Recipe") -> Iterator[Problem]:
    figure, kind = r.train.select, r.labels.kind
    if figure in ("ap50", "seg") and kind != "objects":
        yield Problem(
            "train.select", f'"{figure}" with kind = "{kind}" of [labels]', 'kind = "objects" for this figure'
        )


OBJECTS_CHECKS: tuple[Callable[["Recipe"], Iterator[Problem]], ...] = (_objects_kind, _objects_keep, _objects_select)
