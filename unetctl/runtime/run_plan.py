"""The plan of one run: everything that decides the bytes of its output, as a value."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from unetctl.errors import UsageError
from unetctl.geometry.box import Ints
from unetctl.geometry.plan import Block, TilePlan
from unetctl.recipe.load import recipe_from_dict
from unetctl.recipe.schema import Recipe
from unetctl.runtime.compute import Compute
from unetctl.runtime.keep import NUMERICS_VERSION, Keep
from unetctl.sinks.base import OutputImage, OutputLayout


@dataclass(frozen=True)
class ImagePlan:
    """What is done with one picture of the input.

    Attributes:
        i_image: in the source.
        tiles: the cut; its axes are the picture's without "c".
        output: the picture that results.
        channels: indices of the input channels that the network sees, in order; empty if the picture has no channel axis, or
            if each channel is a volume of its own ("c" is among the axes of `tiles` then).
        colour: "as-is", or "luminance": red, green and blue become one brightness.
        spacing_um: of the input, for comparison with what the weights were trained on.
    """

    i_image: int
    tiles: TilePlan
    output: OutputImage
    channels: tuple[int, ...] = ()
    colour: str = "as-is"

    @property
    def is_channelwise(self) -> bool:
        """True if each channel is predicted on its own."""
        return "c" in self.tiles.axes

    @property
    def num_leading(self) -> int:
        """Axes before the volume: t and the like, c if channelwise; normalisation is per index of these."""
        return sum(1 for a in self.tiles.axes if a not in "zyx")

    @property
    def num_volumes(self) -> int:
        """Volumes in the picture, one per index of the leading axes."""
        product = 1
        for n in self.tiles.shape[: self.num_leading]:
            product *= n
        return product


@dataclass(frozen=True)
class RunPlan:
    """One input, one network, one output.

    Attributes:
        task: name.
        source: how the input is opened: "path" and view options. Where it lies does not enter the fingerprint, nor does
            "words": the options that plan the same run from another shell.
        identity: of the input's content.
        weights_sha256: of the weights file.
        recipe: resolved, plain values.
        images: one entry a picture.
        compute: device kind, precision, threads.
        batch: tiles at once.
        keep, threshold: what is written.
        nonfinite: "median" (replaced and counted) or "refuse".
        statistics: given from another run (`--stats`), by "image/volume"; empty: measured.
    """

    task: str
    source: dict[str, Any]
    identity: dict[str, Any]
    weights_sha256: str
    recipe: dict[str, Any]
    images: tuple[ImagePlan, ...]
    compute: Compute
    batch: int
    keep: Keep
    threshold: float
    nonfinite: str = "median"
    statistics: dict[str, Any] = field(default_factory=dict)

    @property
    def num_blocks(self) -> int:
        """Of all pictures."""
        return sum(len(image.tiles) for image in self.images)

    @property
    def num_tiles(self) -> int:
        """Of all pictures."""
        return sum(image.tiles.num_tiles for image in self.images)

    @property
    def num_pixels(self) -> int:
        """Pixels kept, channels not counted."""
        return sum(image.tiles.num_pixels for image in self.images)

    def block(self, index: int) -> tuple[ImagePlan, Block]:
        """Block number `index` of the whole run, and the picture it belongs to (its own index counts within the picture).

        Raises:
            IndexError: if there is no such block.
        """
        rest = index
        for image in self.images:
            if rest < len(image.tiles):
                return image, image.tiles.block(rest)
            rest -= len(image.tiles)
        raise IndexError(f"block {index} of a run of {self.num_blocks}")

    def part(self, i_part: int, num_parts: int) -> range:
        """Block indices of part `i_part` (from 0) of `num_parts`: contiguous, together exactly all."""
        n = self.num_blocks
        return range(i_part * n // num_parts, (i_part + 1) * n // num_parts)

    @property
    def layout(self) -> OutputLayout:
        """Of the output store."""
        provenance = {
            "task": self.task,
            "fingerprint": self.fingerprint,
            "weights_sha256": self.weights_sha256,
            "keep": self.keep,
            "threshold": self.threshold,
        }
        return OutputLayout(tuple(image.output for image in self.images), provenance)

    def typed_recipe(self) -> Recipe:
        """The recipe as the schema's type."""
        return recipe_from_dict(self.recipe, "the plan")

    def deciding(self) -> dict[str, Any]:
        """What the output's bytes follow from, plain values."""
        values = asdict(self)
        values["source"] = {k: v for k, v in self.source.items() if k not in ("path", "words")}
        sections = ("input", "normalise", "network", "output", *(("objects",) if self.keep == "labels" else ()))
        values["recipe"] = {k: self.recipe.get(k) for k in sections}
        values["numerics_version"] = NUMERICS_VERSION
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that decides the output."""
        return hashlib.sha256(json.dumps(self.deciding(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """For the run folder; deterministic."""
        return json.dumps({"fingerprint": self.fingerprint, **asdict(self)}, sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "RunPlan":
        """The plan that `to_json` gave.

        Raises:
            UsageError: if the text is not such a plan, or is of another numerics version.
        """
        try:
            values = json.loads(text)
            fingerprint = values.pop("fingerprint")
            values["images"] = tuple(_image_from(v) for v in values["images"])
            values["compute"] = Compute(**values["compute"])
            plan = cls(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"the plan in the run folder is not understood ({error})", "", "start over with --fresh"
            ) from error
        if plan.fingerprint != fingerprint:
            raise UsageError(
                "the plan in the run folder was made by another version of unetctl, or altered",
                "",
                "finish with that version, or start over with --fresh",
            )
        return plan

    def differences(self, other: "RunPlan") -> list[str]:
        """What decides the output and is not the same in `other`: one phrase each ("keep: mask, was probability")."""
        return _differences(other.deciding(), self.deciding())

    def with_source(self, path: str) -> "RunPlan":
        """The same plan for an input that lies elsewhere."""
        return replace(self, source={**self.source, "path": path})


def _image_from(values: Mapping[str, Any]) -> ImagePlan:
    output: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["output"].items()}
    return ImagePlan(
        values["i_image"],
        TilePlan.from_dict(values["tiles"]),
        OutputImage(**output),
        tuple(values["channels"]),
        values["colour"],
    )


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(old.keys() | new.keys()):
            found += _differences(old.get(key), new.get(key), f"{name}.{key}" if name else str(key))
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and any(map(_is_nested, old + new)):
        return [d for i in range(len(old)) for d in _differences(old[i], new[i], f"{name}.{i}")]
    return [] if old == new else [f"{name}: {_short(new)}, was {_short(old)}"]


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def plan_axes(axes: str, shape: Ints, *, channelwise: bool) -> tuple[str, Ints]:
    """Axes and sizes of a picture that a plan cuts: without its channels, unless each is a volume of its own."""
    kept = [(a, n) for a, n in zip(axes, shape, strict=True) if a != "c" or channelwise]
    return "".join(a for a, _ in kept), tuple(n for _, n in kept)
