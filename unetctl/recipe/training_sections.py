"""What a recipe may say about training: labels, split, course, loss, augmentation."""

from typing import Annotated, Literal

from pydantic import Field

from unetctl.recipe.section import AS_LIST, Colour, Names, Positive, PositiveRange, Range, Section, Size

#: What a validation may choose by; names of `unetctl.metrics`, and the loss.
Figure = Literal[
    "loss",
    "misclassified",
    "iou",
    "dice",
    "v_rand",
    "v_info",
    "adapted_rand_error",
    "pixel_error",
    "ap50",
    "seg",
    "mean_precision",
    "psnr",
]


class Labels(Section):
    """How to read the label images of training data."""

    kind: Literal["binary", "classes", "objects", "image"] = Field(
        default="binary",
        description="foreground or not; or one class per pixel value; or a number for every single object; or a clean picture "
        "(image: damage is made up on it in training, or lies in corrupted_imgs/ beside src_imgs/)",
    )
    border_px: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="of kind objects: pixels of an object as near as this to another one are its border; absent: 2",
    )
    rim: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="of kind objects: so much of an object's greatest depth is border all around it, a share; its middle is "
        "the interior",
    )
    values: Annotated[tuple[Annotated[int, Field(ge=0)], ...], AS_LIST] = Field(
        default=(),
        description="pixel values in order of the classes; binary: background values, the foreground last; "
        "empty: above 0 is foreground, or the value is the number of the class",
    )
    foreground: Literal["values", "darker"] = Field(
        default="values",
        description="what is foreground: as values says; or of labels with two values, in any encoding, the one where "
        "most of the pictures are darker (ink)",
    )
    ignore: int | None = Field(default=None, description="pixel value without a label: weight 0")
    colours: Annotated[tuple[Colour, ...], AS_LIST] = Field(
        default=(),
        max_length=16,
        description='labels that are drawn: the colours of the classes in their order, "#rrggbb" each; binary: those of the '
        "background, that of the foreground last",
    )
    ignore_colour: Colour | None = Field(
        default=None, description="of drawn labels: the colour without a label: weight 0"
    )

    @property
    def class_of_value(self) -> dict[int, int]:
        """Pixel value to class number; empty when the values speak for themselves (see `values`)."""
        if self.kind == "binary":
            return {value: int(i == len(self.values) - 1) for i, value in enumerate(self.values)}
        return {value: i for i, value in enumerate(self.values)}


class Split(Section):
    """Which images train, choose the best weights, and only report.

    Entries are names or patterns ("H0*.png"), planes of volumes ("0:22"), or both ("stack1[0:22]").
    """

    train: Names = Field(default=(), description="images or planes to learn from; empty: all that val and test leave")
    val: Names = Field(default=(), description="to choose the best weights by; empty: a share of train")
    test: Names = Field(default=(), description="never seen in training, only reported")
    val_share: float = Field(default=0.1, ge=0, lt=1, description="share of train set apart when val is empty; 0: none")


class Train(Section):
    """The course of training."""

    epochs: int = Field(default=50, ge=1, description="number of epochs")
    steps_per_epoch: int = Field(default=200, ge=1, description="optimiser steps that count as one epoch")
    batch: int = Field(default=4, ge=1, description="crops per step")
    crop: Annotated[tuple[Size, ...], AS_LIST] = Field(
        default=(256, 256),
        min_length=2,
        max_length=3,
        description="labelled part of a crop, [y, x] px (3-D: [z, y, x])",
    )
    context: bool = Field(
        default=True,
        description="crops bring along the pixels around them that the network looks at; false (same convolutions only): "
        "the network pads at their ends itself, for a half to a third of the work",
    )
    focus: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of crops drawn where there is foreground, for pages with wide blank areas; of labels of kind "
        "objects about an object, all equally often; 0: by area alone",
    )
    optimiser: Literal["sgd", "adam", "adamw"] = Field(default="adamw", description="sgd is the paper's")
    lr: float = Field(default=1e-3, gt=0, description="learning rate after the warm-up")
    momentum: float = Field(default=0.99, ge=0, lt=1, description="momentum of sgd; the others do not use it")
    weight_decay: float = Field(default=1e-4, ge=0, description="decay of the weights")
    schedule: Literal["cosine", "constant", "plateau"] = Field(
        default="cosine",
        description="learning rate over time: falling to a hundredth, constant, or lowered when validation stalls",
    )
    plateau_patience: int = Field(
        default=10, ge=1, description="of plateau: validations without a best one after which the rate is halved"
    )
    warmup_steps: int = Field(default=50, ge=0, description="steps over which the learning rate rises from 0")
    grad_clip: float = Field(default=1.0, ge=0, description="largest norm of the gradient; 0: not clipped")
    ema: float = Field(
        default=0.999, ge=0, lt=1, description="decay per step of the running average of the weights; 0: none"
    )
    freeze_norm: bool = Field(
        default=False,
        description="keep the means and deviations of batch norm as the weights of --from have them: small batches "
        "then learn under the very statistics that predicting uses",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="arithmetic; auto: bf16 where it is fast"
    )
    seed: int = Field(
        default=0, ge=0, le=2**63 - 1, description="the same seed gives the same weights on the same device"
    )
    save_every: int = Field(default=1, ge=1, description="epochs between checkpoints")
    save_every_steps: int = Field(
        default=0, ge=0, description="steps between checkpoints beside those, for long epochs; 0: none"
    )
    keep_every: int = Field(
        default=0, ge=0, description="every so many epochs the checkpoint is kept under a name of its own; 0: none"
    )
    val_every: int = Field(default=1, ge=1, description="epochs between validations")
    max_time_s: float | None = Field(default=None, gt=0, description="stop after this time, seconds; absent: no limit")
    select: Figure = Field(default="loss", description="validation figure that chooses the best weights")
    patience: int = Field(
        default=0, ge=0, description="ends the training after so many validations without a best one; 0: never"
    )
    workers: Annotated[int, Field(ge=0, le=64)] | Literal["auto"] = Field(
        default="auto", description="processes that make crops ahead of the network, 0: a thread; auto: by the machine"
    )

    @property
    def select_lowest(self) -> bool:
        """True if a lower figure of `select` is better."""
        return self.select in ("loss", "misclassified", "pixel_error", "adapted_rand_error")


class Loss(Section):
    """What training makes small."""

    kind: Literal["cross_entropy", "degradation", "restoration"] = Field(
        default="cross_entropy",
        description="cross_entropy: binary or over the classes, from the logits; degradation (networks of kind stacked): "
        "after every block, the squared difference of its image from a clean page, and the cross-entropy; restoration (networks of kind "
        "restorer): absolute difference from the clean picture inside the damage, and cross-entropy of the mask",
    )
    image_weight: float | None = Field(
        default=None,
        ge=0,
        description="of degradation: weight of the squared difference; of restoration: weight of the absolute difference "
        "inside the damage; absent: 1",
    )
    outside_weight: float | None = Field(
        default=None,
        ge=0,
        description="of restoration: weight of the absolute difference outside the damage, where the prediction is seen only "
        "if the mask is wrong; absent: 0.1",
    )
    ink_level: float | None = Field(
        default=None, description="of degradation: a clean page where there is ink, normalised grey units; absent: -1"
    )
    paper_level: float | None = Field(
        default=None, description="of degradation: a clean page where there is paper, normalised grey units; absent: 1"
    )
    border: bool = Field(default=False, description="weigh the gaps between neighbouring objects more, as in the paper")
    border_w0: float = Field(default=10.0, ge=0, description="extra weight where two objects touch")
    border_sigma_px: float = Field(default=5.0, gt=0, description="width of a gap at which that weight has faded, px")
    class_balance: bool = Field(default=False, description="weigh rare classes up to the frequent ones")
    dice: float = Field(default=0.0, ge=0, description="weight of a Dice term beside the cross-entropy; 0: none")
    focal_gamma: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description="focal loss: power by which pixels that are right already count less; 0: none",
    )
    pos_weight: Positive | Literal["auto"] = Field(
        default=1.0,
        description="of a single class: factor of the loss at the foreground, a number, or auto: background pixels of the "
        "training data for every one of the foreground",
    )


class Augment(Section):
    """How crops are varied in training; grey values in normalised units (1 = one standard deviation)."""

    flip: bool = Field(default=False, description="mirror left-right and up-down at random")
    rotate: Literal["none", "quarter", "any"] = Field(default="none", description="not, by quarter turns, by any angle")
    elastic_sigma_px: float = Field(
        default=10.0, ge=0, description="deviation of the displacements of the elastic grid, px"
    )
    elastic_grid: int = Field(default=3, ge=2, le=64, description="points of the elastic grid per axis")
    elastic_prob: float = Field(default=0.0, ge=0, le=1, description="share of crops deformed elastically")
    scale: PositiveRange = Field(default=(1.0, 1.0), description="magnification, [smallest, largest]")
    stretch: float = Field(
        default=1.0,
        ge=1,
        description="largest factor by which crops become narrower along one axis and as much wider along the other",
    )
    brightness: float = Field(default=0.0, ge=0, description="largest shift up or down, normalised grey units")
    contrast: float = Field(
        default=0.0,
        ge=0,
        description="largest change of contrast: 0.25 is a factor of 0.8 (1 / 1.25) to 1.25",
    )
    saturation: Range = Field(
        default=(1.0, 1.0),
        description="colours (three channels): factor of their distance from grey, [smallest, largest]; 0 leaves grey",
    )
    hue_deg: float = Field(
        default=0.0, ge=0, le=180, description="colours: largest turn of them, degrees; 120 makes red green"
    )
    gamma: PositiveRange = Field(
        default=(1.0, 1.0), description="bending of the grey scale, [smallest, largest] exponent"
    )
    noise_sigma: float = Field(default=0.0, ge=0, description="largest deviation of added noise, normalised grey units")
    blur_sigma_px: float = Field(default=0.0, ge=0, description="largest deviation of Gaussian blur, px")
    coarse: float = Field(
        default=1.0,
        ge=1,
        description="largest factor by which pixels are made coarser: crops are reduced and enlarged again",
    )
    shade: float = Field(
        default=0.0, ge=0, description="largest amplitude of smooth uneven light, normalised grey units"
    )
    invert_prob: float = Field(default=0.0, ge=0, le=1, description="share of crops with black and white exchanged")
    grey_prob: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of crops to which each of gamma, noise, blur, coarser pixels and shade is applied",
    )
    per_channel: bool = Field(default=False, description="vary the grey values of every channel by themselves")
    interpolation: Literal["bicubic", "bilinear"] = Field(
        default="bicubic",
        description="of pixels that are turned, scaled or deformed; bicubic keeps them sharper",
    )
    artefact_prob: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of crops with a fold, a knife mark, a faded or a missing part",
    )
    lone_prob: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="with context slices: share of crops whose neighbouring planes are replaced by the middle one, as for "
        "planes that come alone or hardly differ",
    )
    bleed_through_prob: float = Field(
        default=0.0, ge=0, le=1, description="documents: share of crops where the writing of the back shows through"
    )
    stain_prob: float = Field(
        default=0.0, ge=0, le=1, description="documents: share of crops with stains, with or without a dark rim"
    )
    fade_prob: float = Field(default=0.0, ge=0, le=1, description="documents: share of crops with patches of faded ink")
    border_prob: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="documents: share of crops with a dark scan border or punch holes at an edge",
    )
    paper_noise_prob: float = Field(
        default=0.0, ge=0, le=1, description="documents: share of crops with the grain of rough paper"
    )
    jpeg_prob: float = Field(default=0.0, ge=0, le=1, description="share of crops that went through JPEG")
