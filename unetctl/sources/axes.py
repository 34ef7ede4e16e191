"""The door where a file's axes become ours: leading axes, then "c", then "zyx" or "yx"."""

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError, UsageError
from unetctl.geometry.box import Box, Ints
from unetctl.sources.base import ImageInfo

_OURS = "czyx"


@dataclass(frozen=True)
class AxisOrder:
    """The axes of a file beside ours, and the way between them.

    Attributes:
        file_axes: one letter an axis, in the file's own order.
        axes: the same letters in our order.
    """

    file_axes: str
    axes: str

    @classmethod
    def of(cls, file_axes: str) -> "AxisOrder":
        """Our order for these letters: any leading ones in the file's order, then "c", then "zyx" or "yx"."""
        leading = "".join(a for a in file_axes if a not in _OURS)
        return cls(file_axes, leading + "".join(a for a in _OURS if a in file_axes))

    def ours(self, values: Sequence[int]) -> Ints:
        """Values given one a file axis, put in our order."""
        return tuple(values[self.file_axes.index(a)] for a in self.axes)

    def file_box(self, box: Box) -> Box:
        """A box in our order, put in the file's."""
        places = [self.axes.index(a) for a in self.file_axes]
        return Box(tuple(box.start[i] for i in places), tuple(box.stop[i] for i in places))

    def from_file(self, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """An array in the file's order, put in ours, C-contiguous."""
        return np.ascontiguousarray(array.transpose([self.file_axes.index(a) for a in self.axes]))


@dataclass(frozen=True)
class StoredImage:
    """A picture as its file describes it, before translation.

    Attributes:
        shape: sizes in the file's order.
        axes: one letter an axis in the file's order, lower case; "?" where it does not say, "s" for colour samples.
        dtype: as stored.
        spacing_um: pixel size in micrometres by axis letter.
        name: of the picture inside its file.
        channel_names: one a channel, or empty.
        is_rgb: True if "s" (or "c") holds red, green, blue (and alpha).
        dpi: (y, x) dots per inch.
        chunk: cheapest box to read, in the file's order.
        notes: sentences for the user.
    """

    shape: Ints
    axes: str
    dtype: np.dtype[np.generic]
    spacing_um: dict[str, float]
    name: str = ""
    channel_names: tuple[str, ...] = ()
    is_rgb: bool = False
    dpi: tuple[float, float] | None = None
    chunk: Ints = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Translated:
    """A picture after translation: its info in our order, the way to the file's, the cheapest box in our order."""

    image: ImageInfo
    order: AxisOrder
    chunk: Ints


def translate(stored: StoredImage, uri: str, override: str | None = None) -> Translated:
    """Names every axis of a stored picture and puts them in our order.

    Axes that the file does not name become "z", then "t", then "p", counted from the picture plane outwards.

    Args:
        stored: the picture as its file describes it.
        uri: for messages.
        override: the user's own letters, one an axis in the file's order ("s" means "c").

    Raises:
        UsageError: if `override` does not fit the file's axes.
        InputError: if the picture has no y and x axis, no pixels, or pixels that are not real numbers.
    """
    dtype = pixel_dtype(stored.dtype, uri)
    if 0 in stored.shape:
        raise InputError(f"{uri} holds a picture of shape {stored.shape}, without any pixel")
    notes = list(stored.notes)
    if override is not None:
        letters = _checked_override(override, stored, uri)
        if letters != stored.axes.replace("s", "c"):
            notes.append(f"axes read as {letters} on request")
    else:
        letters = _named(stored, notes, uri)
    for letter in "yx":
        if letter not in letters:
            raise InputError(
                f"{uri} has axes {letters!r} of sizes {stored.shape}",
                "a picture with the axes y and x",
                "name its axes with --axes",
            )
    spacing = {
        letter: stored.spacing_um[letter if told == "?" else told]
        for letter, told in zip(letters, stored.axes, strict=True)
        if letter in "zyx" and (letter if told == "?" else told) in stored.spacing_um
    }
    order = AxisOrder.of(letters)
    shape = order.ours(stored.shape)
    num_channels = shape[order.axes.index("c")] if "c" in order.axes else 1
    # names and colours belong to the axis that the file calls channel
    same_channels = "c" in letters and stored.axes[letters.index("c")] in "cs"
    image = ImageInfo(
        name=stored.name,
        shape=shape,
        axes=order.axes,
        dtype=dtype,
        spacing_um=tuple(spacing.get(a) for a in order.axes if a in "zyx"),
        channel_names=stored.channel_names if same_channels and len(stored.channel_names) == num_channels else (),
        is_rgb=stored.is_rgb and same_channels,
        dpi=stored.dpi,
        notes=tuple(notes),
    )
    chunk = stored.chunk or (*(1,) * (len(stored.shape) - 2), *stored.shape[-2:])
    return Translated(image, order, order.ours([min(c, n) for c, n in zip(chunk, stored.shape, strict=True)]))


def told_apart(pictures: Sequence[Translated]) -> tuple[Translated, ...]:
    """The pictures of a file under names of their own: equal and missing names get the picture's number."""
    names = [p.image.name for p in pictures]
    if len(pictures) < 2 or (all(names) and len(set(names)) == len(names)):
        return tuple(pictures)
    numbered = [f"{name}-{i}" if name else str(i) for i, name in enumerate(names)]
    return tuple(replace(p, image=replace(p.image, name=n)) for p, n in zip(pictures, numbered, strict=True))


def _checked_override(override: str, stored: StoredImage, uri: str) -> str:
    letters = override.lower().replace("s", "c")
    shape = "x".join(str(n) for n in stored.shape)
    told = f"{uri} has {len(stored.shape)} axes of sizes {shape}"
    if len(letters) != len(stored.shape):
        raise UsageError(
            f"--axes {override} has {len(letters)} letters, but {told}",
            "one letter an axis",
            f"e.g. --axes {_example(stored)}",
        )
    strange = [a for a in letters if a not in string.ascii_lowercase]
    if strange or len(set(letters)) != len(letters) or "y" not in letters or "x" not in letters:
        raise UsageError(
            f"--axes {override} for {uri}",
            "different letters, y and x among them",
            f"e.g. --axes {_example(stored)}",
        )
    return letters


def _example(stored: StoredImage) -> str:
    return "tpczyx"[-len(stored.shape) :] if "?" in stored.axes else stored.axes.replace("s", "c")


def _named(stored: StoredImage, notes: list[str], uri: str) -> str:
    """Every axis with a letter of its own, those that the file leaves open filled in."""
    letters = list(stored.axes)
    if "s" in letters:
        if "c" in letters:  # colour pictures, several of them side by side: each is a picture of its own
            letters[letters.index("c")] = "?"
        letters[letters.index("s")] = "c"
    guessed = False
    for i in range(len(letters) - 1, -1, -1):
        known = letters[i] in string.ascii_lowercase and letters.count(letters[i]) == 1
        if not known:
            free = [a for a in "ztpqrvwuklmnaefghijobd" if a not in letters]
            letters[i] = free[0]
            guessed = True
    named = "".join(letters)
    if guessed:
        sizes = " x ".join(map(str, stored.shape))
        notes.append(f"axes of {sizes} read as {named}: the file does not name them all (--axes corrects this)")
    return named


def guess_axes(shape: Ints, dtype: np.dtype[np.generic]) -> tuple[str, bool]:
    """Letters for an array that comes without any: the last two axes are the picture, others are left open ("?").

    A last axis of 3 or 4 values behind two far longer ones, in 8 bits, is taken for colour samples ("s").

    Returns:
        The letters, and True if the picture is taken for a colour picture.
    """
    if len(shape) >= 3 and shape[-1] in (3, 4) and min(shape[-3:-1]) >= 16 and dtype == np.uint8:
        return "?" * (len(shape) - 3) + "yxs", True
    return "?" * (len(shape) - 2) + "yx", False


def pixel_dtype(dtype: np.dtype[np.generic], uri: str) -> np.dtype[np.generic]:
    """The dtype that `to_pixels` gives for pixels stored as `dtype`: native byte order; booleans become uint8.

    Raises:
        InputError: for complex numbers, records, text and anything else that is not a real number of at most 64 bits.
    """
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind in "uif" and dtype.itemsize <= 8 and dtype.fields is None:
        return dtype.newbyteorder("=")
    if dtype.kind == "c":
        raise InputError(
            f"{uri} holds complex numbers ({dtype})",
            "real ones",
            "save magnitude or phase as an image of its own",
        )
    raise InputError(f"{uri} holds values of the type {dtype}", "integers or floating-point numbers of at most 64 bits")


def to_pixels(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Native byte order; booleans as uint8 0 and 255."""
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def check_box(box: Box, image: ImageInfo, uri: str) -> None:
    """Refuses a box that does not lie inside the picture.

    Raises:
        ValueError: it is the caller's mistake, not the file's.
    """
    if box.ndim != len(image.shape) or not Box.whole(image.shape).covers(box):
        raise ValueError(f"box {box} does not lie inside {uri} of shape {image.shape} ({image.axes})")
