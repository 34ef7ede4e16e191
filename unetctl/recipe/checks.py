"""What must hold between the settings of a recipe.

Each check reads what it needs. In a recipe with mistakes the wrong settings are absent, and a check that
meets a gap has nothing to say: one mistake is told once.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from unetctl.networks.spec import UNetSpec
from unetctl.recipe.compose_section import COMPOSE_CHECKS
from unetctl.recipe.damage_section import DAMAGE_CHECKS
from unetctl.recipe.label_checks import LABEL_CHECKS
from unetctl.recipe.objects_checks import OBJECTS_CHECKS
from unetctl.recipe.problems import Problem
from unetctl.recipe.split_entries import SPLIT_CHECKS
from unetctl.recipe.training_checks import TRAINING_CHECKS, swap
from unetctl.recipe.words import toml_value

if TYPE_CHECKING:
    from unetctl.recipe.schema import Recipe

Check = Callable[["Recipe"], Iterator[Problem]]


def cross_problems(recipe: "Recipe", incomplete: bool = False) -> list[Problem]:
    """All problems between settings.

    Args:
        recipe: the recipe to look at.
        incomplete: settings with mistakes of their own were taken out; skip the checks that need them.
    """
    problems: list[Problem] = []
    for check in CHECKS:
        try:
            problems.extend(check(recipe))
        except AttributeError:
            if not incomplete:
                raise
    return problems


def _input(r: "Recipe") -> Iterator[Problem]:
    n = r.input.context_slices
    if n % 2 == 0:
        yield Problem(
            "input.context_slices", str(n), "an odd number, the predicted plane in the middle", f"use {n + 1}"
        )


def _context(r: "Recipe") -> Iterator[Problem]:
    n = r.input.context_slices
    if n > 1 and not r.input.stack:
        yield Problem(
            "input.context_slices",
            f"{n} together with stack = false",
            "1, since pages have no neighbours",
            "set stack = true if the images are the planes of one stack",
        )


def _context_3d(r: "Recipe") -> Iterator[Problem]:
    n = r.input.context_slices
    if n > 1 and r.network.dims == 3:
        yield Problem(
            "input.context_slices",
            f"{n} together with dims = 3 of [network]",
            "1",
            "a 3-D network sees its neighbours anyway",
        )


def _luminance(r: "Recipe") -> Iterator[Problem]:
    if r.input.luminance and r.input.channels != 1:
        yield Problem(
            "input.luminance",
            f"true together with channels = {r.input.channels}",
            "channels = 1",
            "brightness is one channel; luminance = false keeps the colours",
        )


def _colours(r: "Recipe") -> Iterator[Problem]:
    a = r.augment
    for name, given in (("saturation", a.saturation != (1.0, 1.0)), ("hue_deg", a.hue_deg > 0)):
        if given and r.input.channels != 3:
            value = toml_value(getattr(a, name))
            yield Problem(
                f"augment.{name}", f"{value} with input.channels = {r.input.channels}", "channels = 3, colours"
            )
    low, high = a.saturation
    if not 0 <= low <= high:
        yield Problem("augment.saturation", toml_value([low, high]), "two numbers from 0 up, the smaller one first")


def _spacing(r: "Recipe") -> Iterator[Problem]:
    if r.network.dims == 3 and r.input.spacing_um is not None and len(r.input.spacing_um) != 3:
        yield Problem("input.spacing_um", toml_value(r.input.spacing_um), "[z, y, x] for a 3-D network")


def _dpi(r: "Recipe") -> Iterator[Problem]:
    pair = r.input.dpi
    if pair is not None and pair[0] > pair[1]:
        yield Problem("input.dpi", toml_value(pair), "[lowest, highest]", swap(*pair))


def _percentiles(r: "Recipe") -> Iterator[Problem]:
    low, high = r.normalise.low, r.normalise.high
    if low >= high:
        hint = f"did you mean low = {high} and high = {low}?" if low > high else ""
        yield Problem("normalise.low", f"{low} with high = {high}", "low below high", hint)


def _value_range(r: "Recipe") -> Iterator[Problem]:
    pair = r.normalise.value_range
    if pair is not None and pair[0] >= pair[1]:
        yield Problem("normalise.value_range", toml_value(pair), "[lowest, highest]", swap(*pair))


def _value_range_used(r: "Recipe") -> Iterator[Problem]:
    method, pair = r.normalise.method, r.normalise.value_range
    if pair is not None and method != "range":
        yield Problem(
            "normalise.value_range",
            f'{toml_value(pair)} with method = "{method}"',
            'method = "range"',
            "leave value_range out otherwise",
        )


def _ground(r: "Recipe") -> Iterator[Problem]:
    method, ground = r.normalise.method, r.normalise.ground
    if ground is not None and method != "percentile":
        yield Problem(
            "normalise.ground",
            f'"{ground}" with method = "{method}"',
            'method = "percentile"',
            "leave ground out otherwise",
        )


def _widths(r: "Recipe") -> Iterator[Problem]:
    network = r.network
    both = [key for key in ("base_width", "depth") if getattr(network, key) is not None]
    if network.channels is not None and both:
        yield Problem(
            "network.channels",
            f"given together with {' and '.join(both)}",
            "either channels, or base_width and depth",
            f"leave one out (on the command line: --set network.channels= or --set network.{both[0]}=)",
        )


def _kernel(r: "Recipe") -> Iterator[Problem]:
    size = r.network.kernel
    if size % 2 == 0:
        yield Problem("network.kernel", str(size), "an odd number of pixels", f"use {size - 1} or {size + 1}")


def _blocks(r: "Recipe") -> Iterator[Problem]:
    kind, blocks = r.network.kind, r.network.blocks
    if kind != "stacked" and blocks is not None:
        yield Problem(
            "network.blocks", f'{blocks} with kind = "{kind}"', 'kind = "stacked"', "leave blocks out otherwise"
        )


def _stacked_context(r: "Recipe") -> Iterator[Problem]:
    n = r.input.context_slices
    if r.network.kind == "stacked" and n > 1:
        yield Problem(
            "input.context_slices",
            f'{n} together with kind = "stacked" of [network]',
            "1",
            "its blocks hand on the image itself, not its neighbours",
        )


def _padding(r: "Recipe") -> Iterator[Problem]:
    if r.network.convolution == "valid" and r.network.padding != "zero":
        yield Problem(
            "network.padding",
            f'"{r.network.padding}" with convolution = "valid"',
            "no padding setting, since valid convolutions pad nothing",
            'leave it out or use convolution = "same"',
        )


def _border(r: "Recipe") -> Iterator[Problem]:
    convolution, border = r.network.convolution, r.network.border
    yield from _refused(lambda: UNetSpec(1, 1, (1, 1), convolution=convolution, border=border))


def _up(r: "Recipe") -> Iterator[Problem]:
    dims, up = r.network.dims, r.network.up
    yield from _refused(lambda: UNetSpec(1, 1, (1, 1), dims=dims, up=up))


def _possible(r: "Recipe") -> Iterator[Problem]:
    """Whatever else the spec refuses; the two rules above stand alone to be found beside other mistakes."""
    if not [*_border(r), *_up(r)]:
        yield from _refused(lambda: r.network_spec)


def _refused(make: Callable[[], object]) -> Iterator[Problem]:
    try:
        make()
    except ValueError as error:  # the spec states its own rules
        yield Problem("[network]", str(error))


def _activation(r: "Recipe") -> Iterator[Problem]:
    if r.output.activation == "softmax" and r.output.num_channels < 2:
        yield Problem(
            "output.activation",
            f'"softmax" with {len(r.output.classes)} class(es)',
            "two or more classes",
            'use "sigmoid" for a single one',
        )
    if r.output.activation == "sigmoid" and r.output.num_channels > 1:
        yield Problem(
            "output.activation",
            f'"sigmoid" with {len(r.output.classes)} classes',
            '"softmax", or a single class',
            "every pixel is of one class: training fits a softmax",
        )


def _keep(r: "Recipe") -> Iterator[Problem]:
    keep, activation, num = r.output.keep, r.output.resolved_activation, r.output.num_channels
    if keep == "image":
        if not r.network.answers_image:
            seen = f'"image" with kind = "{r.network.kind}" of [network]'
            yield Problem("output.keep", seen, 'a network that answers an image (kind = "stacked" or "restorer")')
    elif activation == "none" and keep != "logits":
        yield Problem(
            "output.keep",
            f'"{keep}" with activation = "none"',
            '"logits"',
            "probabilities need an activation",
        )
    elif keep == "mask" and activation == "softmax":
        yield Problem("output.keep", f'"mask" with {num} classes', '"classes"', "a mask belongs to a sigmoid")
    elif keep == "classes" and num < 2:
        yield Problem("output.keep", '"classes" with a single class', '"mask"', "name two classes or more in classes")


def _class_names(r: "Recipe") -> Iterator[Problem]:
    double = sorted({name for name in r.output.classes if r.output.classes.count(name) > 1})
    if double:
        yield Problem("output.classes", f"{toml_value(double)} more than once", "different names")


CHECKS: tuple[Check, ...] = (
    _input,
    _context,
    _context_3d,
    _luminance,
    _colours,
    _spacing,
    _dpi,
    _percentiles,
    _value_range,
    _value_range_used,
    _ground,
    _widths,
    _kernel,
    _blocks,
    _stacked_context,
    _padding,
    _border,
    _up,
    _possible,
    _activation,
    _keep,
    _class_names,
    *LABEL_CHECKS,
    *OBJECTS_CHECKS,
    *SPLIT_CHECKS,
    *TRAINING_CHECKS,
    *DAMAGE_CHECKS,
    *COMPOSE_CHECKS,
)
