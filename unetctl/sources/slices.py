"""A folder or list of single pictures as one stack along z."""

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.geometry.box import Box
from unetctl.sources.axes import StoredImage, check_box, translate
from unetctl.sources.base import ImageInfo, Source, SourceInfo
from unetctl.sources.files import DEFAULT_MAX_BYTES, RandomAccessFile, digest, file_identity

_MAX_HELD = 32
_MAX_NAMED = 8
_NUMBERS = re.compile(r"\d+")


class Picture(Source, Protocol):
    """A source that knows its pictures without working out its identity."""

    @property
    def images(self) -> tuple[ImageInfo, ...]:
        """As in `info`."""
        ...


class SlicesSource:
    """Pictures of equal shape and type, one a file, stacked along z in natural order of their names (2 before 10).

    Args:
        uri: the folder or pattern, for messages.
        paths: of the slices, in any order.
        open_picture: opens one of them.
        ignored: names of the files that are no pictures, to be noted.
        outputs: names of those that unetctl made and that are left out, to be noted.
        axes: "zyx", or "zyxc" / "zcyx" for colour slices, to be confirmed or renamed.
        max_bytes: bounds the decoded slices that are kept for the next read.

    Raises:
        InputError: if a slice holds several pictures or differs from the first in shape or type; the first is named.
        UsageError: if `axes` does not fit.
    """

    def __init__(
        self,
        uri: str,
        paths: Sequence[str],
        open_picture: Callable[[str], Picture],
        *,
        ignored: Sequence[str] = (),
        outputs: Sequence[str] = (),
        axes: str | None = None,
        max_bytes: int | None = None,
    ) -> None:
        self._uri = uri
        self._paths = tuple(sorted(paths, key=lambda p: natural_key(os.path.basename(p))))
        self._open_picture = open_picture
        first = self._checked(self._paths[0], None)
        for path in self._paths[1:]:
            self._checked(path, first)
        notes = [*first.notes, *gap_notes([os.path.basename(p) for p in self._paths])]
        for names, what in ((ignored, "files that are no pictures"), (outputs, "outputs of unetctl")):
            more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
            notes += [f"{len(names)} {what} ignored: {', '.join(names[:_MAX_NAMED])}{more}"] if names else []
        letters = "z" + first.axes
        spacing = {a: s for a, s in zip(first.spatial_axes, first.spacing_um, strict=True) if s is not None}
        stored = StoredImage(
            shape=(len(self._paths), *first.shape),
            axes=letters,
            dtype=first.dtype,
            spacing_um=spacing,
            channel_names=first.channel_names,
            is_rgb=first.is_rgb,
            dpi=first.dpi,
            chunk=(1, *first.shape),
            notes=tuple(notes),
        )
        self._translated = translate(stored, uri, axes)
        slice_bytes = int(np.prod(first.shape, dtype=object)) * first.dtype.itemsize
        limit = DEFAULT_MAX_BYTES if max_bytes is None else max_bytes
        self._num_held = max(1, min(_MAX_HELD, limit // 4 // max(1, slice_bytes)))
        self._held: OrderedDict[int, Picture] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def images(self) -> tuple[ImageInfo, ...]:
        """The one stack."""
        return (self._translated.image,)

    @cached_property
    def info(self) -> SourceInfo:
        """See `Source.info`; names, sizes and sampled content of the slices are its identity."""
        sizes = [os.path.getsize(p) for p in self._paths]
        step = max(1, -(-len(self._paths) // 64))
        files = [RandomAccessFile(p) for p in self._paths[::step]]
        identity = file_identity(files)
        for file in files:
            file.close()
        identity |= {"num_files": len(sizes), "num_bytes": sum(sizes)}
        identity["names_sha256"] = digest(f"{os.path.basename(p)} {n}" for p, n in zip(self._paths, sizes, strict=True))
        return SourceInfo(self._uri, "slices", self.images, identity, (self._translated.chunk,))

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`."""
        check_box(box, self.images[i_image], self._uri)
        order = self._translated.order
        wanted = order.file_box(box)
        inner = Box(wanted.start[1:], wanted.stop[1:])
        out = np.empty(wanted.shape, self.images[0].dtype)
        for k in range(wanted.start[0], wanted.stop[0]):
            out[k - wanted.start[0]] = self._picture(k).read(0, inner)
        return order.from_file(out)

    def close(self) -> None:
        """Closes the slices that are open."""
        with self._lock:
            held, self._held = list(self._held.values()), OrderedDict()
        for picture in held:
            picture.close()

    def _checked(self, path: str, first: ImageInfo | None) -> ImageInfo:
        picture = self._open_picture(path)
        images = picture.images
        picture.close()
        name = os.path.basename(path)
        if len(images) != 1 or images[0].axes not in ("yx", "cyx"):
            told = f"{len(images)} pictures" if len(images) != 1 else f"axes {images[0].axes}"
            raise InputError(
                f"{self._uri}: {name} has {told}",
                "a single 2-D picture in each file",
                "give the file itself as the input",
            )
        image = images[0]
        if first is not None and (image.shape, image.axes, image.dtype) != (
            first.shape,
            first.axes,
            first.dtype,
        ):
            raise InputError(
                f"{self._uri}: {name} is {_told(image)}",
                f"{_told(first)} as {os.path.basename(self._paths[0])}",
                "slices of a stack are alike; unequal pictures are pages",
            )
        return image

    def _picture(self, k: int) -> Picture:
        """Slice `k`, opened; those used last stay open, a dropped one lives until all threads are done with it."""
        with self._lock:
            picture = self._held.get(k)
            if picture is not None:
                self._held.move_to_end(k)
                return picture
        picture = self._open_picture(self._paths[k])
        first, found = self.images[0], picture.images[0]
        expected = tuple(first.size_of(a) for a in self._translated.order.file_axes)[1:]
        if found.shape != expected or found.dtype != first.dtype:
            raise InputError(
                f"{self._paths[k]} has changed since it was opened: it is {_told(found)}",
                f"{expected} {first.dtype}",
            )
        with self._lock:
            self._held[k] = picture
            while len(self._held) > self._num_held:
                self._held.popitem(last=False)
        return picture


def _told(image: ImageInfo) -> str:
    return f"{' x '.join(map(str, image.shape))} ({image.axes}) {image.dtype}"


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sorts numbers inside names by value: slice2 before slice10."""
    parts = re.split(r"(\d+)", name.lower())
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts if part)


def gap_notes(names: Sequence[str]) -> list[str]:
    """What is missing in the numbering of names that differ in one number only, as a sentence, or nothing."""
    if len(names) < 2:
        return []
    numbers = [_NUMBERS.findall(name) for name in names]
    if len({len(n) for n in numbers}) != 1:
        return []
    varying = [i for i in range(len(numbers[0])) if len({n[i] for n in numbers}) > 1]
    if len(varying) != 1:
        return []
    present = {int(n[varying[0]]) for n in numbers}
    low, high = min(present), max(present)
    num_missing = high - low + 1 - len(present)
    if num_missing == 0 or len(present) != len(names):
        return []
    missing: list[str] = []
    for number in sorted(present)[:-1]:
        following = number + 1
        while following not in present and len(missing) < _MAX_NAMED:
            missing.append(str(following))
            following += 1
    more = f" and {num_missing - len(missing)} more" if num_missing > len(missing) else ""
    return [
        f"numbers missing between {low} and {high}: {', '.join(missing)}{more}; the slices are stacked without gaps"
    ]
