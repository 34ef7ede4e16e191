"""What a recipe may say about damage made up on clean pictures, and what it must not contradict."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from unetctl.recipe.problems import Problem
from unetctl.recipe.section import AS_LIST, Colour, Range, Section
from unetctl.recipe.words import toml_value

if TYPE_CHECKING:
    from unetctl.recipe.schema import Recipe

Shape = Literal["square", "round"]
#: What `train.select` may be where pictures are repaired.
_REPAIRS = ("loss", "psnr", "iou", "dice", "misclassified")


class Damage(Section):
    """Overlays put on clean pictures in training: the network learns to find them and to undo them."""

    overlays: Annotated[tuple[int, int], AS_LIST] = Field(
        default=(1, 4), description="overlays on a picture, [fewest, most]"
    )
    picture: Annotated[tuple[int, int], AS_LIST] | None = Field(
        default=None,
        description="(y, x) of the pictures that the overlays are counted for: a crop is a window of one; absent: a crop "
        "counts as a picture",
    )
    size_px: Annotated[tuple[int, int], AS_LIST] = Field(
        default=(16, 128), description="side of squares, diameter of round ones, [smallest, largest] px"
    )
    shapes: Annotated[tuple[Shape, ...], AS_LIST] = Field(
        default=("square", "round"), min_length=1, description="shapes of overlays, equally often"
    )
    opaque_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of overlays that hide the picture wholly; the picture shines through others",
    )
    alpha: Range = Field(
        default=(0.3, 0.9),
        description="opacity of overlays that the picture shines through, [least, most]; 1 hides all",
    )
    colours: Annotated[tuple[Colour, ...], AS_LIST] = Field(
        default=(), description='colours of overlays, "#rrggbb" each; empty: any'
    )
    clean_share: float = Field(
        default=0.0, ge=0, lt=1, description="share of crops left undamaged: what is whole is to stay as it is"
    )
    remade_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of crops that are made anew before they are damaged, as other cameras and programs make pictures: "
        "enlarged, denoised, in few colours, sharpened, noisy, compressed, drawn",
    )
    resaved_share: float = Field(
        default=0.0, ge=0, le=1, description="share of crops that are saved as JPEG after they were damaged"
    )


def _damage_ranges(r: "Recipe") -> Iterator[Problem]:
    damage = r.damage
    if damage.picture is not None and min(damage.picture) < 1:
        yield Problem("damage.picture", toml_value(list(damage.picture)), "two whole numbers from 1 up, y first")
    for key, least, what in (("overlays", 0, "whole numbers from 0 up"), ("size_px", 1, "whole numbers from 1 up")):
        low, high = getattr(damage, key)
        if low < least or low > high:
            hint = f"did you mean {toml_value([high, low])}?" if low > high >= least else ""
            yield Problem(f"damage.{key}", toml_value([low, high]), f"two {what}, the smaller one first", hint)
    low, high = damage.alpha
    if not 0 < low <= high <= 1:
        hint = f"did you mean {toml_value([high, low])}?" if 0 < high < low <= 1 else ""
        yield Problem(
            "damage.alpha", toml_value([low, high]), "two numbers above 0 up to 1, the smaller one first", hint
        )


def _restoration(r: "Recipe") -> Iterator[Problem]:
    """Repairing is a task of its own: its network, loss and labels serve nothing else, and need each other."""
    parts = {
        "network.kind": (r.network.kind, "restorer"),
        "loss.kind": (r.loss.kind, "restoration"),
        "labels.kind": (r.labels.kind, "image"),
    }
    is_meant = {where: have == want for where, (have, want) in parts.items()}
    if any(is_meant.values()):
        # Weights are used without training: a recipe may leave its loss and labels out, not mix them.
        meant = " and ".join(f'{where} = "{want}"' for where, (_, want) in parts.items() if is_meant[where])
        for where, (have, want) in parts.items():
            if not is_meant[where]:
                yield Problem(where, f'"{have}" together with {meant}', f'"{want}"')
    elif r.damage != Damage():
        yield Problem(
            "[damage]", f'given with loss.kind = "{r.loss.kind}"', 'loss.kind = "restoration"', "leave it out"
        )


def _restorer(r: "Recipe") -> Iterator[Problem]:
    n = r.network
    if n.kind != "restorer":
        if n.sub_blocks is not None:
            seen = f'{n.sub_blocks} with kind = "{n.kind}"'
            yield Problem("network.sub_blocks", seen, 'kind = "restorer"', "leave sub_blocks out otherwise")
        for key in ("differences", "fill_scales", "unveil"):
            if value := getattr(n, key):
                seen = f'{str(value).lower()} with kind = "{n.kind}"'
                yield Problem(f"network.{key}", seen, 'kind = "restorer"', f"leave {key} out otherwise")
        return
    if n.convolution != "same":
        yield Problem("network.convolution", f'"{n.convolution}" with kind = "restorer"', '"same"', "it pads inside")
    if n.convs_per_level != 2:
        seen = f'{n.convs_per_level} with kind = "restorer"'
        yield Problem(
            "network.convs_per_level", seen, "no such setting", "its sub-blocks have two each: use sub_blocks"
        )
    if n.dropout:
        yield Problem("network.dropout", f'{n.dropout} with kind = "restorer"', "0")
    if n.differences and n.kernel < 3:
        yield Problem("network.kernel", f"{n.kernel} with differences = true", "at least 3", "neighbours must be seen")
    if n.unveil and not n.fill_scales:
        yield Problem("network.unveil", "true with fill_scales = 0", "fill_scales from 1 up", "the same blurs do both")
    if r.output.num_channels > 1:
        yield Problem("output.classes", f'{r.output.num_channels} classes with kind = "restorer"', "one, the damage")
    if r.input.context_slices > 1:
        yield Problem("input.context_slices", f'{r.input.context_slices} with kind = "restorer"', "1")
    if r.normalise.method not in ("range", "none"):
        yield Problem(
            "normalise.method",
            f'"{r.normalise.method}" with kind = "restorer"',
            '"range"',
            "statistics of a picture change with its damage",
        )


def _restoration_training(r: "Recipe") -> Iterator[Problem]:
    if r.labels.kind == "image" and r.train.focus:
        yield Problem(
            "train.focus", f'{r.train.focus} with labels.kind = "image"', "0", "clean pictures have no foreground"
        )
    if r.labels.kind == "image" and r.train.select not in _REPAIRS:
        seen = f'"{r.train.select}" with labels.kind = "image"'
        yield Problem("train.select", seen, f"a figure of repairs or of their mask: {', '.join(_REPAIRS)}")
    if r.train.select == "psnr" and r.loss.kind != "restoration":
        yield Problem("train.select", f'"psnr" with loss.kind = "{r.loss.kind}"', 'loss.kind = "restoration"')
    if r.loss.outside_weight is not None and r.loss.kind != "restoration":
        seen = f'{r.loss.outside_weight} with kind = "{r.loss.kind}"'
        yield Problem("loss.outside_weight", seen, 'kind = "restoration"', "leave outside_weight out otherwise")


DAMAGE_CHECKS: tuple[Callable[["Recipe"], Iterator[Problem]], ...] = (
    _damage_ranges,
    _restoration,
    _restorer,
    _restoration_training,
)
