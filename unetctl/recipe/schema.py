"""What a recipe may say: every section, every setting, its default, its unit and its bounds.

With `training_sections` the one home of defaults. A value of another type is a mistake and never converted
("3" is no number); lists may be written for tuples. What must hold between settings stands in `checks`.
"""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from unetctl.networks.spec import NetworkSpec, RestorerSpec, StackedSpec, UNetSpec
from unetctl.recipe import checks
from unetctl.recipe.compose_section import Compose
from unetctl.recipe.damage_section import Damage
from unetctl.recipe.dump import dump_toml
from unetctl.recipe.objects_section import Objects
from unetctl.recipe.problems import as_error
from unetctl.recipe.section import AS_LIST, Names, Positive, PositiveRange, Range, Section, Width
from unetctl.recipe.training_sections import Augment, Labels, Loss, Split, Train

__all__ = [
    "Augment",
    "Damage",
    "Input",
    "Labels",
    "Loss",
    "Network",
    "Normalise",
    "Objects",
    "Output",
    "Recipe",
    "Section",
    "Split",
    "Task",
    "Train",
]

#: Widths of the network when the recipe names neither form: 16, 32, 64, 128, 256.
DEFAULT_BASE_WIDTH, DEFAULT_DEPTH = 16, 4
#: U-Nets of kind "stacked" when the recipe does not say.
DEFAULT_BLOCKS = 2
#: Residual sub-blocks a level of kind "restorer" when the recipe does not say.
DEFAULT_SUB_BLOCKS = 3


class Task(Section):
    """What the recipe is for."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
        max_length=40,
        description="short name, also part of output names",
    )
    title: str = Field(default="", description="one line for the list of tasks")
    summary: str = Field(default="", description="what goes in and what comes out, a sentence or two")


class Input(Section):
    """The images that the network was made for."""

    channels: int = Field(default=1, ge=1, le=4096, description="channels of an image")
    context_slices: int = Field(
        default=1,
        ge=1,
        le=63,
        description="planes that the network sees at once, the middle one is predicted; odd",
    )
    luminance: bool = Field(default=False, description="turn colour (RGB) into one channel of brightness")
    stack: bool = Field(default=True, description="a folder of images is one stack (true) or single pages (false)")
    spacing_um: Annotated[tuple[Positive, ...], AS_LIST] | None = Field(
        default=None,
        min_length=2,
        max_length=3,
        description="pixel size trained on, micrometres, as [z, y, x] or [y, x]",
    )
    dpi: PositiveRange | None = Field(
        default=None,
        description="dots per inch of the pages trained on, as [lowest, highest]; predict warns far outside; absent: unknown",
    )
    polarity: str = Field(default="", description='which way round the grey values are, in words ("dark membranes")')


class Normalise(Section):
    """How grey values are brought to one scale; statistics come from the whole volume or page."""

    method: Literal["mean_std", "two_levels", "percentile", "range", "none"] = Field(
        default="mean_std",
        description="mean to 0 and deviation to 1; ink to -1 and paper to 1 (the two sides of Otsu's threshold); two "
        "percentiles or a fixed range to 0 and 1; not at all",
    )
    least_contrast: float = Field(
        default=0.125,
        gt=0,
        le=1,
        description="of method two_levels: ink and paper count as at least so far apart, as a share of what the pixel "
        "type can hold; a blank page has no ink",
    )
    low: float = Field(default=1.0, ge=0, le=100, description="percentile that becomes 0, percent")
    high: float = Field(default=99.0, ge=0, le=100, description="percentile that becomes 1, percent")
    value_range: Range | None = Field(
        default=None,
        description="grey values that become 0 and 1 with method range; absent: what the pixel type can hold",
    )
    ground: Literal["dark"] | None = Field(
        default=None,
        description="of method percentile: dark turns pictures into negatives whose ground is bright (their median lies nearer "
        "to the higher percentile), so that all show bright objects; absent: they stay as they are",
    )
    sample_pixels: int = Field(
        default=16_777_216,
        ge=1024,
        description="most pixels looked at for the statistics of one volume; larger: a fixed sample",
    )


class Network(Section):
    """The network's shape; its stride, margin and halo follow from it."""

    kind: Literal["unet", "stacked", "restorer"] = Field(
        default="unet",
        description="unet: one U-Net; stacked: several small ones in a row, each taking away what separates the image from a "
        "clean one; restorer: one encoder and two decoders, one tells where a picture is damaged, the other repairs it",
    )
    blocks: int | None = Field(
        default=None,
        ge=1,
        le=16,
        description="U-Nets of kind stacked; predict may run fewer than were trained; absent: 2",
    )
    sub_blocks: int | None = Field(
        default=None,
        ge=1,
        le=8,
        description="residual sub-blocks of two convolutions per level and path of kind restorer; absent: 3",
    )
    differences: bool = Field(
        default=False,
        description="the first sub-block of kind restorer looks at differences of neighbouring pixels, on a logarithmic scale",
    )
    fill_scales: int = Field(
        default=0,
        ge=0,
        le=8,
        description="kind restorer continues what lies around the damage into it, by so many blurs, each twice as wide as the "
        "last; 6 reach 126 px",
    )
    unveil: bool = Field(
        default=False,
        description="kind restorer brings what shines through the damage to the brightness and contrast of what lies around it",
    )
    channels: Annotated[tuple[Width, ...], AS_LIST] | None = Field(
        default=None,
        min_length=2,
        max_length=9,
        description="features per level, top first; instead of base_width and depth",
    )
    base_width: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="features of the top level, doubled level by level; absent: 16",
    )
    depth: int | None = Field(
        default=None, ge=1, le=8, description="number of times that the resolution is halved; absent: 4"
    )
    dims: Literal[2, 3] = Field(default=2, description="spatial axes that the network sees; 2 works plane by plane")
    convolution: Literal["valid", "same"] = Field(
        default="valid",
        description="valid: only true context counts, as in the paper; same: the network pads inside",
    )
    kernel: int = Field(default=3, ge=1, le=15, description="size of the convolutions, px; odd")
    convs_per_level: int = Field(default=2, ge=1, le=8, description="convolutions per level and path")
    padding: Literal["zero", "reflect"] = Field(default="zero", description="what same convolutions pad with")
    border: Literal["mirror", "native"] = Field(
        default="mirror",
        description="at the image's edge: mirror the image, or let the network's own padding act",
    )
    up: Literal["transposed", "bilinear", "bicubic"] = Field(default="transposed", description="upsampling by 2")
    down: Literal["max", "average", "strided"] = Field(default="max", description="downsampling by 2")
    norm: Literal["none", "batch", "group", "instance"] = Field(
        default="none",
        description="normalisation after convolutions; group and instance make results depend on the tiling",
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of features dropped at the end of the contracting path"
    )

    @property
    def num_blocks(self) -> int:
        """U-Nets in a row."""
        if self.kind != "stacked":
            return 1
        return DEFAULT_BLOCKS if self.blocks is None else self.blocks

    @property
    def num_sub_blocks(self) -> int:
        """Residual sub-blocks per level and path of a restorer."""
        return DEFAULT_SUB_BLOCKS if self.sub_blocks is None else self.sub_blocks

    @property
    def answers_image(self) -> bool:
        """True if the network answers an image beside the logits."""
        return self.kind != "unet"

    @property
    def widths(self) -> tuple[int, ...]:
        """Features per level, top first, whichever way they were written."""
        if self.channels is not None:
            return self.channels
        base = DEFAULT_BASE_WIDTH if self.base_width is None else self.base_width
        depth = DEFAULT_DEPTH if self.depth is None else self.depth
        return tuple(base * 2**level for level in range(depth + 1))


class Output(Section):
    """What the network answers and what is kept of it."""

    classes: Names = Field(
        default=(),
        description="names of the output channels; one or none: one channel, yes or no at every pixel",
    )
    activation: Literal["auto", "sigmoid", "softmax", "none"] = Field(
        default="auto",
        description="turns logits into probabilities; auto: sigmoid for one channel, softmax for several",
    )
    keep: Literal["probability", "mask", "classes", "labels", "logits", "image"] = Field(
        default="probability", description="what predict writes when --keep is not given"
    )
    threshold: float = Field(default=0.5, ge=0, le=1, description="probability from which a pixel belongs to the mask")

    @property
    def num_channels(self) -> int:
        """Channels of the logits."""
        return max(1, len(self.classes))

    @property
    def is_ink(self) -> bool:
        """True if the foreground is the writing of a document: black on white in masks, scored as the DIBCO contests do."""
        return self.classes == ("ink",)

    @property
    def resolved_activation(self) -> Literal["sigmoid", "softmax", "none"]:
        """The activation with "auto" decided."""
        if self.activation != "auto":
            return self.activation
        return "softmax" if self.num_channels > 1 else "sigmoid"


class Recipe(Section):
    """A whole recipe.

    Raises:
        pydantic.ValidationError: on construction in Python with a wrong value; `recipe_from_dict` and
            `load_recipe` tell it in plain sentences instead.
        UsageError: if the values do not go together.
    """

    task: Task
    input: Input = Input()
    normalise: Normalise = Normalise()
    network: Network = Network()
    output: Output = Output()
    objects: Objects = Objects()
    labels: Labels = Labels()
    split: Split = Split()
    train: Train = Train()
    loss: Loss = Loss()
    augment: Augment = Augment()
    damage: Damage = Damage()
    compose: Compose = Compose()

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        problems = checks.cross_problems(self)
        if problems:
            raise as_error("recipe", problems)
        return self

    @property
    def answers_objects(self) -> bool:
        """True if the classes are background, interior and border of objects, which can be told apart."""
        return self.labels.kind == "objects"

    @property
    def in_channels(self) -> int:
        """Channels that the network sees: those of the image, once per context slice."""
        return self.input.channels * self.input.context_slices

    @property
    def network_spec(self) -> NetworkSpec:
        """The network that this recipe asks for.

        Raises:
            ValueError: if no such network exists (a valid recipe has one).
        """
        n = self.network
        if n.kind == "restorer":
            return RestorerSpec(
                self.in_channels,
                n.widths,
                n.num_sub_blocks,
                n.dims,
                n.kernel,
                n.padding,
                n.border,
                n.up,
                n.down,
                n.norm,
                n.differences,
                n.fill_scales,
                n.unveil,
            )
        settings: dict[str, Any] = {
            "widths": n.widths,
            "dims": n.dims,
            "kernel": n.kernel,
            "convs_per_level": n.convs_per_level,
            "convolution": n.convolution,
            "padding": n.padding,
            "border": n.border,
            "up": n.up,
            "down": n.down,
            "norm": n.norm,
            "dropout": n.dropout,
        }
        if n.kind == "stacked":
            return StackedSpec.of(self.in_channels, self.output.num_channels, n.num_blocks, **settings)
        return UNetSpec(self.in_channels, self.output.num_channels, **settings)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain values for JSON or TOML, absent settings left out; `recipe_from_dict` takes them back."""
        return self.model_dump(mode="json", exclude_none=True)

    def to_toml(self, comments: bool = False) -> str:
        """The recipe as TOML, every setting written out; `comments` adds what each one means."""
        return dump_toml(self, comments)

    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of what decides a prediction: input, normalise, network, output.

        Texts of [task] and all about training leave it as it is, and so do the way the widths are written and the
        resolution trained at.
        """
        parts = self.model_dump(mode="json", include={"input", "normalise", "network", "output"})
        del parts["input"]["dpi"]
        if self.normalise.ground is None:
            del parts["normalise"]["ground"]
        for key in ("differences", "fill_scales", "unveil"):
            if not getattr(self.network, key):
                del parts["network"][key]
        for key in ("channels", "base_width", "depth", "blocks", "sub_blocks"):
            del parts["network"][key]
        if self.network.kind == "stacked":
            parts["network"]["blocks"] = self.network.num_blocks
        if self.network.kind == "restorer":
            parts["network"]["sub_blocks"] = self.network.num_sub_blocks
        parts["network"]["widths"] = list(self.network.widths)
        parts["output"]["activation"] = self.output.resolved_activation
        return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
