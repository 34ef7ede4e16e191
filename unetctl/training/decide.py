"""Which kind of task the data are for, from a bounded look at them. A pure function; `fingerprint` does the looking.

    decide(Fingerprint) -> Decision(kind, reasons)
    misfit(recipe, Fingerprint) -> why a recipe cannot take the data, or ""

What labels are decides first: two values, few numbers or colours, many numbers in one piece each, or a picture. Two values are writing
if the picture's darker side is thin and in the minority and the paper around it hangs together; membranes if the paper
falls into cells; else any other segmentation.
"""

from dataclasses import dataclass
from typing import Literal

from unetctl.recipe.schema import Recipe

Kind = Literal["binarization", "membranes", "segmentation", "classes", "objects", "restoration"]
LabelKind = Literal[
    "empty", "two values", "few numbers", "few colours", "ids", "smeared", "grey picture", "colour picture"
]

#: What each kind is, for people.
MEANING: dict[Kind, str] = {
    "binarization": "scanned pages with their ink marked (binarization)",
    "membranes": "grey volumes with thin membranes between cells (segmentation)",
    "segmentation": "pictures with a mask of two values (segmentation)",
    "classes": "pictures with a class number at every pixel",
    "objects": "pictures with a number for every single object",
    "restoration": "pictures with their clean counterparts (restoration)",
}
#: Ink is thinner than this share of the page's smaller side, and covers less than that share of its area.
_THIN_SHARE, _MOST_INK = 0.05, 0.4
#: Paper hangs together if its largest piece holds at least this share of it.
_ONE_PIECE = 0.5


@dataclass(frozen=True)
class Fingerprint:
    """What a sample of the data looks like; medians over the sample unless said otherwise.

    Attributes:
        num_pairs, num_sampled: all there are, and those looked at.
        num_channels: of the pictures, the most of the sample.
        has_colour: True if any sampled picture has channels that differ.
        num_planes: of a picture, the most of the sample.
        is_same_size: labels are as large as their pictures, in half of the sample at least.
        label_kind: of most of these, blank labels not counted.
        largest_label: over the sample.
        dark_share: of the area where the label side lies at which the picture is darker; 0..1.
        dark_width: mean width of that side's strokes, as a share of the picture's smaller side.
        bright_in_one_piece: share of the other side that its largest connected piece holds.
        dtype_name: of the pictures' pixels, of most of the sample.
        size_px: (y, x) of a picture.
        smallest_side_px: over the sample.
        object_px: diameter of a disc as large as a connected piece of foreground, 0 if there is none.
        upright: how much stronger the grey values change downwards than sideways, as a factor; 1: no direction.
        is_swapped: the labels are pictures, and the pictures hold two values as masks do.
        is_rgb: colours are red, green and blue; False if the channels are others (markers, bands).
        is_repeated: the labels' numbers lie in one piece each, but the same few come back in every picture, as classes do.
        highlight: how far the brightest pixels (99.9 %) lie above the median, in distances of the median from the darkest (1 %).
    """

    num_pairs: int
    num_sampled: int
    num_channels: int
    has_colour: bool
    num_planes: int
    is_same_size: bool
    label_kind: LabelKind
    largest_label: int = 0
    dark_share: float = 0.0
    dark_width: float = 1.0
    bright_in_one_piece: float = 1.0
    dtype_name: str = "uint8"
    size_px: tuple[int, int] = (512, 512)
    smallest_side_px: int = 512
    object_px: float = 0.0
    upright: float = 1.0
    highlight: float = 1.0
    is_swapped: bool = False
    is_rgb: bool = True
    is_repeated: bool = False

    def describe(self) -> str:
        """One sentence."""
        colour = "colour" if self.has_colour else "grey" if self.num_channels <= 4 else f"{self.num_channels} channels"
        depth = f"volumes of up to {self.num_planes} planes" if self.num_planes > 1 else "single planes"
        size = "of the pictures' size" if self.is_same_size else "of another size than the pictures"
        return f"{self.num_sampled} of {self.num_pairs} pairs looked at: {colour}, {depth}; labels {size}: {self.label_kind}"


@dataclass(frozen=True)
class Decision:
    """What the data are for, and the observations that say so."""

    kind: Kind
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{MEANING[self.kind]}: {'; '.join(self.reasons)}"


def decide(found: Fingerprint) -> Decision:
    """The kind of task that the data are for."""
    if not found.is_same_size or found.label_kind in ("colour picture", "grey picture"):
        what = "pictures themselves" if found.is_same_size else "pictures of another size"
        return Decision("restoration", (f"what the pictures are paired with are {what}",))
    if found.is_repeated:
        text = f"the labels hold the same few numbers in all pictures, up to {found.largest_label} (objects: --task nuclei or cells)"
        return Decision("classes", (text,))
    if found.label_kind == "few numbers":
        return Decision(
            "classes", (f"the labels hold few numbers, up to {found.largest_label}, each in several pieces",)
        )
    if found.label_kind == "few colours":
        return Decision("classes", ("the labels are drawn in few colours",))
    if found.label_kind == "ids":
        return Decision("objects", (f"the labels hold many numbers, up to {found.largest_label}, each in one piece",))
    if found.label_kind == "empty":
        return Decision("segmentation", ("all labels that were looked at are blank",))
    return _of_two_values(found)


def _of_two_values(found: Fingerprint) -> Decision:
    two = "the labels have two values"
    is_thin = found.dark_width <= _THIN_SHARE and 0 < found.dark_share <= _MOST_INK
    covered = f"{found.dark_share:.0%} of the area"
    if not is_thin:
        return Decision("segmentation", (two, f"the darker side is no thin writing (it covers {covered})"))
    if found.bright_in_one_piece >= _ONE_PIECE and found.num_planes == 1:
        return Decision(
            "binarization", (two, f"the darker side is thin and covers {covered}", "bright paper lies all around")
        )
    if found.bright_in_one_piece < _ONE_PIECE and not found.has_colour:
        return Decision(
            "membranes", (two, f"the darker side is thin and covers {covered}", "it parts the rest into cells")
        )
    return Decision(
        "segmentation", (two, f"thin dark structures cover {covered}, but they are neither writing nor membranes")
    )


def misfit(recipe: Recipe, found: Fingerprint) -> str:
    """Why a recipe cannot take these data, in words; "" if it can."""
    need, labels = recipe.input.channels, recipe.labels
    if labels.kind == "image":
        return "it learns from clean pictures alone, or from corrupted_imgs/ beside src_imgs/"
    if not found.is_same_size:
        return "labels and pictures differ in size"
    if found.has_colour and need == 1 and not recipe.input.luminance:
        return f"the pictures are coloured, and it takes {need} channel"
    if found.num_channels not in (need, need + 1) and not (need == 1 and found.num_channels <= 4):
        return f"the pictures have {found.num_channels} channels, and it takes {need}"
    fits: tuple[LabelKind, ...] = ("empty", "two values", "few numbers", "ids")
    if labels.colours:
        fits = ("empty", "two values", "few colours")
    elif labels.kind == "classes":
        fits = ("empty", "two values", "few numbers")
    elif labels.kind == "objects":  # the pieces of a mask count as objects
        fits = ("empty", "two values", "ids")
    elif labels.values or labels.foreground == "darker":
        fits = ("empty", "two values")
    if found.label_kind not in fits:
        return f"the labels are of the kind {found.label_kind!r}, and it takes {' or '.join(fits[1:])}"
    return ""
