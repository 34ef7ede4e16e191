"""What must hold between the settings about training: loss, course, augmentation; see `checks`."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from unetctl.networks.spec import UNetSpec
from unetctl.recipe.problems import Problem
from unetctl.recipe.words import toml_value

if TYPE_CHECKING:
    from unetctl.recipe.schema import Recipe


def _loss_kind(r: "Recipe") -> Iterator[Problem]:
    kind, num = r.loss.kind, r.output.num_channels
    if kind == "degradation" and r.network.kind != "stacked":
        seen = f'"degradation" with kind = "{r.network.kind}" of [network]'
        yield Problem("loss.kind", seen, 'a network that answers an image (kind = "stacked")')
    elif kind == "degradation" and num > 1:
        yield Problem("loss.kind", f'"degradation" with {num} classes', "a single class, the ink")


def _loss_levels(r: "Recipe") -> Iterator[Problem]:
    loss = r.loss
    for key in ("image_weight", "ink_level", "paper_level"):
        value = getattr(loss, key)
        kinds = ("degradation", "restoration") if key == "image_weight" else ("degradation",)
        if value is not None and loss.kind not in kinds:
            expected = f"kind = {' or '.join(toml_value(kind) for kind in kinds)}"
            yield Problem(f"loss.{key}", f'{value} with kind = "{loss.kind}"', expected, f"leave {key} out otherwise")


def _pos_weight(r: "Recipe") -> Iterator[Problem]:
    weight, num = r.loss.pos_weight, r.output.num_channels
    if weight != 1 and (num > 1 or r.loss.kind != "cross_entropy"):
        seen = (
            f"{toml_value(weight)} with {num} classes"
            if num > 1
            else f'{toml_value(weight)} with kind = "{r.loss.kind}"'
        )
        yield Problem(
            "loss.pos_weight", seen, 'a single class, and kind = "cross_entropy"', "leave pos_weight out otherwise"
        )


def _crop(r: "Recipe") -> Iterator[Problem]:
    crop = r.train.crop
    spec = UNetSpec(1, 1, r.network.widths, dims=r.network.dims)
    if len(crop) != spec.dims:
        axes = "[y, x]" if spec.dims == 2 else "[z, y, x]"
        yield Problem("train.crop", toml_value(crop), f"{spec.dims} sizes, {axes}, for a {spec.dims}-D network")
    elif any(size % stride for size, stride in zip(crop, spec.stride, strict=True)):
        fit = [max(1, round(size / stride)) * stride for size, stride in zip(crop, spec.stride, strict=True)]
        yield Problem(
            "train.crop",
            toml_value(crop),
            f"multiples of the network's stride {spec.stride[0]}",
            f"use {toml_value(fit)}",
        )


def _select(r: "Recipe") -> Iterator[Problem]:
    figure, num = r.train.select, r.output.num_channels
    if num > 1 and figure in ("v_rand", "v_info", "adapted_rand_error", "pixel_error", "mean_precision"):
        hint = "take loss, iou, dice or misclassified for several classes"
        yield Problem("train.select", f'"{figure}" with {num} classes', "a single class for this figure", hint)


def _patience(r: "Recipe") -> Iterator[Problem]:
    t = r.train
    if t.schedule == "plateau" and 0 < t.patience <= t.plateau_patience:
        yield Problem(
            "train.patience",
            f"{t.patience} with plateau_patience = {t.plateau_patience}",
            f"more than {t.plateau_patience}",
            "the training would end before the learning rate is lowered",
        )


def _augment_scale(r: "Recipe") -> Iterator[Problem]:
    yield from _ordered("augment.scale", r.augment.scale)


def _augment_gamma(r: "Recipe") -> Iterator[Problem]:
    yield from _ordered("augment.gamma", r.augment.gamma)


def _ordered(where: str, pair: tuple[float, float]) -> Iterator[Problem]:
    if pair[0] > pair[1]:
        yield Problem(where, toml_value(pair), "[smallest, largest]", swap(*pair))


def swap(low: float, high: float) -> str:
    """A hint for two numbers in the wrong order; "" if they are equal."""
    return "" if low == high else f"did you mean {toml_value([high, low])}?"


TRAINING_CHECKS: tuple[Callable[["Recipe"], Iterator[Problem]], ...] = (
    _loss_kind,
    _loss_levels,
    _pos_weight,
    _crop,
    _select,
    _patience,
    _augment_scale,
    _augment_gamma,
)
