"""A recipe worked out from the data, for those who have none. A pure function; `fingerprint` and `tally` do the looking.

    derive(decision, Fingerprint, Tally, Means) -> Derived(values, reasons)

Every setting that the data decide comes with its reason. The rest are the values that the shipped recipes have in common: a
same-size U-Net with mirrored padding and batch norm, AdamW, cosine schedule, the running average of the weights.
"""

from dataclasses import dataclass
from typing import Any

from unetctl.training.colours import named_shares
from unetctl.training.decide import Decision, Fingerprint
from unetctl.training.tally import Tally

#: Largest side of a crop, and pixels of a step, on the processor and on a GPU.
_CROP_PX = {False: 256, True: 512}
_STEP_PX = {False: 4 * 256**2, True: 16 * 256**2}
_BASE_WIDTH = {False: 16, True: 32}
#: Training keeps about so many float32 numbers a pixel for each feature of the top level (measured: 48 at depth 4).
_FLOATS_PER_FEATURE = 50
#: Of the memory that there is, training may take this share.
_MEMORY_SHARE = 0.5
#: Structures of at least this size need that many halvings of the resolution.
_DEPTH_OF_PX = ((24.0, 4), (8.0, 3), (0.0, 2))
#: A level has at least so many pixels a side.
_COARSEST_PX = 4
#: A class that is rarer is weighed up.
_RARE_SHARE = 0.05
#: Grey values that change this much more along one axis: the pictures have a right way up.
_UPRIGHT = 1.35
#: Brightest pixels so far from the rest: percentiles bring order, mean and deviation do not.
_HIGHLIGHT = 8.0
_EPOCH_STEPS, _EPOCHS, _MOST_EPOCHS = 50, 40, 200
#: Every pixel of the data is seen about so often.
_PASSES = 20


@dataclass(frozen=True)
class Means:
    """What there is to train with.

    Attributes:
        is_gpu: True if a GPU trains.
        memory_bytes: of the device, or of the machine; None: not known.
    """

    is_gpu: bool = False
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Derived:
    """A recipe worked out.

    Attributes:
        values: section to settings, as `unetctl.recipe.load.recipe_from_dict` takes them.
        reasons: one sentence for each thing that the data decided.
    """

    values: dict[str, dict[str, Any]]
    reasons: tuple[str, ...]


def derive(decision: Decision, found: Fingerprint, counted: Tally, means: Means) -> Derived:
    """A recipe for masks of two values, or for classes.

    Args:
        decision: of kind "segmentation", "membranes", "binarization" or "classes".
        found: what a sample looks like.
        counted: what all labels hold.
        means: what there is to train with.
    """
    made = _Making(found, counted, means)
    made.values["task"] = {
        "name": decision.kind,
        "title": f"{decision.kind}, worked out from the data",
        "summary": f"Made by unetctl train for {decision}",
    }
    made.input()
    made.normalise()
    made.labels()
    made.network()
    made.course()
    made.augment()
    return Derived(made.values, tuple(made.reasons))


class _Making:
    """A recipe in the making."""

    def __init__(self, found: Fingerprint, counted: Tally, means: Means) -> None:
        self.found, self.counted, self.means = found, counted, means
        self.values: dict[str, dict[str, Any]] = {}
        self.reasons: list[str] = []

    def input(self) -> None:
        found = self.found
        grey = not found.has_colour and found.num_channels in (1, 3, 4)
        is_coloured = found.has_colour and found.is_rgb
        channels = 1 if grey else 3 if is_coloured else found.num_channels
        self.values["input"] = {"channels": channels, "luminance": grey, "stack": found.num_planes > 1}
        if is_coloured:
            self.reasons.append("the pictures are coloured: three channels go in")
        elif not grey:
            self.reasons.append(f"the pictures have {channels} channels: all go in")

    def normalise(self) -> None:
        found = self.found
        if found.highlight > _HIGHLIGHT:
            self.values["normalise"] = {"method": "percentile", "low": 0.5, "high": 99.8}
            self.reasons.append("few pixels are far brighter than the rest: grey values are scaled between percentiles")
        elif found.has_colour and found.is_rgb and found.dtype_name == "uint8":
            self.values["normalise"] = {"method": "range", "value_range": [0.0, 255.0]}
            self.reasons.append("colours of 8 bits mean the same in every picture: 0 to 255 become 0 to 1")
        else:
            self.values["normalise"] = {"method": "mean_std"}

    def labels(self) -> None:
        counted = self.counted
        if counted.colours:
            self._drawn()
        else:
            self._numbered()
        if 0 < counted.rarest_share < _RARE_SHARE:
            self.values["loss"]["class_balance"] = True
            self.reasons.append(f"the rarest class covers {counted.rarest_share:.1%}: rare classes are weighed up")

    def _drawn(self) -> None:
        colours = list(self.counted.colours)
        self.reasons.append(f"the labels are drawn in {len(colours)} colours: {named_shares(self.counted.colours)}")
        if len(colours) == 2:
            self._binary({"kind": "binary", "colours": colours}, f"{colours[1]}, the rarer colour, is the foreground")
        else:
            self._several({"kind": "classes", "colours": colours}, colours)

    def _numbered(self) -> None:
        counted = self.counted
        ignored = counted.ignored
        numbers = [number for number in counted.numbers if number != ignored]
        if counted.is_mixed:
            text = "some labels mark it by 1, others by 255, none by both: what is above 0 is the foreground"
            self._binary({"kind": "binary"}, text)
            return
        labels: dict[str, Any] = {} if ignored is None else {"ignore": ignored}
        if ignored is not None:
            self.reasons.append(f"the value {ignored} beside 0 to {numbers[-1]} means unknown: weight 0")
        if len(numbers) <= 2:
            listed = {"values": numbers} if len(numbers) == 2 else {}
            self._binary(
                {"kind": "binary", **labels, **listed}, f"labels of {numbers[-1]} are the foreground" if listed else ""
            )
            return
        listed = {} if numbers == list(range(len(numbers))) else {"values": numbers}
        self._several({"kind": "classes", **labels, **listed}, [f"class {number}" for number in numbers])

    def _binary(self, labels: dict[str, Any], reason: str) -> None:
        self.values["labels"] = labels
        self.values["output"] = {"classes": ["foreground"], "keep": "mask"}
        self.values["loss"] = {"dice": 0.5}
        self.values["train"] = {"select": "dice"}
        self.reasons += [reason] if reason else []

    def _several(self, labels: dict[str, Any], names: list[str]) -> None:
        self.values["labels"] = labels
        self.values["output"] = {"classes": names, "keep": "classes"}
        self.values["loss"] = {"dice": 0.5}
        self.values["train"] = {"select": "iou"}
        self.reasons.append(f"{len(names)} classes: {', '.join(names)}")

    def network(self) -> None:
        found, gpu = self.found, self.means.is_gpu
        side = found.smallest_side_px
        depth = next(depth for size, depth in _DEPTH_OF_PX if found.object_px >= size) if found.object_px else 4
        while depth > 1 and 2**depth * _COARSEST_PX > side:
            depth -= 1
        stride = 2**depth
        crop = max(stride, min(_CROP_PX[gpu], side // stride * stride))
        batch = max(2, min(32, _STEP_PX[gpu] // crop**2))
        width, batch = _fitting(_BASE_WIDTH[gpu], crop, batch, self.means.memory_bytes)
        self.values["network"] = {
            "kind": "unet", "base_width": width, "depth": depth, "convolution": "same", "padding": "reflect",
            "up": "bilinear", "norm": "batch",
        }  # fmt: skip
        self.values["train"] |= {"crop": [crop, crop], "batch": batch, "context": False}
        about = f"structures of about {found.object_px:.0f} px" if found.object_px else "structures of unknown size"
        self.reasons.append(
            f"{about}, pictures of {found.size_px[0]}x{found.size_px[1]} px: depth {depth}, crops of {crop}x{crop}"
        )
        self.reasons.append(
            f"{'a GPU' if gpu else 'no GPU'}: {width} features at full resolution, {batch} crops a step"
        )

    def course(self) -> None:
        crop, batch = self.values["train"]["crop"][0], self.values["train"]["batch"]
        area = self.found.size_px[0] * self.found.size_px[1] * self.counted.num_planes
        steps = round(_PASSES * area / (crop**2 * batch))
        epochs = min(_MOST_EPOCHS, max(_EPOCHS, round(steps / _EPOCH_STEPS)))
        self.values["train"] |= {
            "epochs": epochs, "steps_per_epoch": _EPOCH_STEPS, "lr": 2e-3, "weight_decay": 1e-3, "ema": 0.995,
            "warmup_steps": _EPOCH_STEPS, "val_every": 2,
        }  # fmt: skip
        self.reasons.append(f"{self.counted.num_planes} planes: {epochs} epochs of {_EPOCH_STEPS} steps")

    def augment(self) -> None:
        found = self.found
        is_upright = max(found.upright, 1 / found.upright) > _UPRIGHT
        turned: dict[str, Any] = {} if is_upright else {"flip": True, "rotate": "any"}
        if is_upright:
            self.reasons.append("the pictures have a right way up: they are neither turned nor flipped in training")
        scaled = self.values["normalise"]["method"] in ("range", "percentile")
        # normalised units: a standard deviation is 1 after mean_std, about a quarter of a range of 0 to 1
        unit = 0.25 if scaled else 1.0
        self.values["augment"] = {
            **turned, "scale": [0.75, 1.33], "elastic_prob": 0.3, "brightness": 0.3 * unit, "contrast": 0.3,
            "gamma": [0.75, 1.35], "noise_sigma": 0.15 * unit, "blur_sigma_px": 1.0, "grey_prob": 0.3,
        }  # fmt: skip


def _fitting(base_width: int, crop: int, batch: int, memory_bytes: int | None) -> tuple[int, int]:
    """Features and crops a step that memory has room for: fewer crops first, down to 2, then fewer features, down to 8."""
    if memory_bytes is None:
        return base_width, batch
    room = _MEMORY_SHARE * memory_bytes / (_FLOATS_PER_FEATURE * 4 * crop**2)
    batch = max(2, min(batch, int(room / base_width)))
    while base_width * batch > room and base_width > 8:
        base_width //= 2
    return base_width, batch
