"""What a recipe may say about pictures composed from a single shape, and what it must not contradict."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from unetctl.recipe.problems import Problem
from unetctl.recipe.section import AS_LIST, PositiveRange, Section, Size
from unetctl.recipe.words import toml_value

if TYPE_CHECKING:
    from unetctl.recipe.schema import Recipe


class Compose(Section):
    """The data set is made on the fly: one shape is pasted onto backgrounds."""

    kind: Literal["none", "paste"] = Field(
        default="none",
        description="none: pictures with labels; paste: one picture, whose shape is put onto backgrounds at random",
    )
    backgrounds: str = Field(
        default="",
        description="folder of pictures to paste onto; empty: colours, gradients, textures and clutter made up",
    )
    size_px: PositiveRange = Field(
        default=(32.0, 200.0), description="longer side of the pasted shape, [smallest, largest] px"
    )
    rotate_deg: float = Field(default=20.0, ge=0, le=180, description="largest turn to either side, degrees")
    perspective: float = Field(
        default=0.0, ge=0, lt=0.5, description="largest shift of the shape's corners, as a share of its size; 0: none"
    )
    light: float = Field(
        default=0.4, ge=0, lt=1, description="how much lighter, darker or tinted the shape and the whole may be, 0..1"
    )
    negatives: float = Field(default=0.2, ge=0, lt=1, description="share of pictures without the shape")
    distractors: int = Field(
        default=4, ge=0, le=64, description="most other things in a picture, some of them in the shape's own colours"
    )
    picture: Annotated[tuple[Size, Size], AS_LIST] = Field(
        default=(256, 320), description="pictures composed for validation and accuracy, [y, x] px"
    )
    num_val: int = Field(default=32, ge=1, le=4096, description="pictures composed for validation")
    num_test: int = Field(default=50, ge=1, le=4096, description="pictures composed for benchmark accuracy")


def _compose_used(r: "Recipe") -> Iterator[Problem]:
    if r.compose.kind == "none":
        if r.compose != Compose():
            yield Problem("[compose]", 'given with kind = "none"', 'kind = "paste"', "leave the others out otherwise")
        return
    if r.output.num_channels > 1 or r.labels.kind != "binary":
        yield Problem("compose.kind", f'"paste" with {r.output.num_channels} classes', "a single one, the shape")
    if r.labels.values or r.labels.ignore is not None or r.labels.foreground != "values":
        yield Problem("compose.kind", '"paste" together with values, ignore or foreground of [labels]', "none of them")
    if r.input.context_slices > 1 or r.input.stack:
        yield Problem("compose.kind", '"paste" with planes of a stack', "single pictures", "set input.stack = false")
    if r.input.channels not in (1, 3):
        yield Problem("compose.kind", f'"paste" with {r.input.channels} channels', "3, or 1 for grey pictures")
    if r.train.focus:
        yield Problem(
            "train.focus",
            f'{r.train.focus} with compose.kind = "paste"',
            "0",
            "compose.negatives says how many lack it",
        )
    if r.loss.border or r.loss.class_balance:
        yield Problem(
            "[loss]", 'border or class_balance with compose.kind = "paste"', "neither", "pos_weight weighs the shape"
        )


def _compose_range(r: "Recipe") -> Iterator[Problem]:
    low, high = r.compose.size_px
    if low > high:
        yield Problem(
            "compose.size_px",
            toml_value([low, high]),
            "[smallest, largest]",
            f"did you mean {toml_value([high, low])}?",
        )


COMPOSE_CHECKS: tuple[Callable[["Recipe"], Iterator[Problem]], ...] = (_compose_used, _compose_range)
