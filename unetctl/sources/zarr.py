"""OME-Zarr 0.1 to 0.5, bioformats2raw collections, plain zarr arrays (v2 and v3, sharded or not), on a local disk."""

import hashlib
import json
import math
import os
import threading
import warnings
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from unetctl.errors import InputError
from unetctl.geometry.box import Box, Ints
from unetctl.sources.axes import StoredImage, check_box, guess_axes, to_pixels, told_apart, translate
from unetctl.sources.base import ImageInfo, SourceInfo
from unetctl.sources.files import DEFAULT_MAX_BYTES, NUM_SAMPLES, SAMPLE_BYTES, digest
from unetctl.sources.zarr_hierarchy import Found, find_arrays

_OPENING = threading.Lock()
_MAX_LISTED_FILES = 10_000


class ZarrSource:
    """Pictures of a zarr hierarchy at full resolution.

    A group is an OME-Zarr image, a bioformats2raw collection of them, or holds one array; a plate is refused, several
    arrays without metadata are listed.

    Args:
        path: folder of a group or an array, also of one inside a larger hierarchy.
        axes: one letter an axis of the array.
        max_bytes: that one chunk may take when decoded, 1 GiB unless given.

    Raises:
        InputError: if the metadata are damaged, or there is no picture or no single one.
        UsageError: if `axes` does not fit.
    """

    def __init__(self, path: str, axes: str | None = None, max_bytes: int | None = None) -> None:
        self._path = path
        limit = DEFAULT_MAX_BYTES if max_bytes is None else max_bytes
        self._kind, found = find_arrays(path)
        self._arrays = tuple(_open_array(os.path.join(path, f.path), limit) for f in found)
        self._translated = told_apart(
            [translate(_stored(f, a), path, axes) for f, a in zip(found, self._arrays, strict=True)]
        )
        self._folders = tuple(os.path.normpath(os.path.join(path, f.path)) for f in found)

    @property
    def images(self) -> tuple[ImageInfo, ...]:
        """The pictures; known without reading pixels."""
        return tuple(t.image for t in self._translated)

    @cached_property
    def info(self) -> SourceInfo:
        """See `Source.info`."""
        return SourceInfo(
            self._path, self._kind, self.images, self._identity(), tuple(t.chunk for t in self._translated)
        )

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`."""
        translated = self._translated[i_image]
        check_box(box, translated.image, self._path)
        try:
            array = np.asarray(self._arrays[i_image][translated.order.file_box(box).slices()])
        except Exception as error:  # stores, codecs and damaged metadata raise types of their own, and MemoryError
            raise InputError(
                f"{self._folders[i_image]} cannot be read at {box} ({type(error).__name__}: {error})",
                "sound chunks",
                "a chunk is cut off or damaged: copy it again",
            ) from error
        return to_pixels(translated.order.from_file(array))

    def close(self) -> None:
        """Nothing is held open."""

    def _identity(self) -> dict[str, object]:
        """Metadata, up to 64 chunks spread evenly, names and sizes of all files where they are few."""
        header, content = hashlib.sha256(), hashlib.sha256()
        num_each = max(1, NUM_SAMPLES // len(self._arrays))
        for folder, array in list(zip(self._folders, self._arrays, strict=True))[:NUM_SAMPLES]:
            header.update(json.dumps(array.metadata.to_dict(), sort_keys=True, default=str).encode())
            for key in _spread_keys(array, num_each):
                content.update(key.encode() + b"\0")
                try:
                    with open(os.path.join(folder, key), "rb") as stream:
                        size = os.fstat(stream.fileno()).st_size
                        content.update(str(size).encode() + stream.read(SAMPLE_BYTES))
                        stream.seek(max(0, size - SAMPLE_BYTES))
                        content.update(stream.read(SAMPLE_BYTES))
                except OSError:
                    content.update(b"absent")  # an empty chunk: the fill value
        identity: dict[str, object] = {
            "structure_sha256": digest(f"{i.name} {i.axes} {i.shape} {i.dtype}" for i in self.images),
            "header_sha256": header.hexdigest(),
            "sample_sha256": content.hexdigest(),
        }
        listed = _listed(self._folders)
        if listed is not None:
            identity["num_bytes"] = sum(size for _, size in listed)
            identity["files_sha256"] = digest(f"{name} {size}" for name, size in listed)
        return identity


def _open_array(path: str, max_bytes: int) -> Any:
    try:
        with _OPENING, warnings.catch_warnings():  # which is not made for threads
            warnings.simplefilter("ignore")
            array = zarr.open_array(path, mode="r")
        chunk_bytes = math.prod(array.chunks) * array.dtype.itemsize
    except Exception as error:  # damaged metadata surface as any type of exception
        raise InputError(
            f"{path} cannot be opened ({type(error).__name__}: {error})",
            "a zarr array",
            "its metadata are damaged or use unknown codecs",
        ) from error
    if array.ndim < 2:
        raise InputError(f"{path} is an array of shape {array.shape}", "at least two axes")
    if chunk_bytes > max_bytes:
        raise InputError(
            f"{path} has chunks of {array.chunks} {array.dtype} ({chunk_bytes} bytes), each of them decoded whole",
            f"at most {max_bytes} bytes",
            "allow more memory, or store it again in smaller chunks",
        )
    return array


def _stored(found: Found, array: Any) -> StoredImage:
    shape: Ints = tuple(int(n) for n in array.shape)
    letters, is_rgb = guess_axes(shape, np.dtype(array.dtype))
    notes = found.notes
    if len(found.axes) == len(shape):
        letters, is_rgb = found.axes, False
    elif found.axes:
        notes = (*notes, f"its metadata name {len(found.axes)} axes, but it has {len(shape)}")
    return StoredImage(
        shape=shape,
        axes=letters,
        dtype=np.dtype(array.dtype),
        spacing_um=found.spacing_um or {},
        name=found.name,
        channel_names=found.channel_names,
        is_rgb=is_rgb,
        chunk=tuple(int(n) for n in array.chunks),
        notes=notes,
    )


def _spread_keys(array: Any, num_keys: int) -> list[str]:
    """Store keys of at most `num_keys` chunks (or shards), evenly spread over the array."""
    outer = getattr(array, "shards", None) or array.chunks
    grid = tuple(-(-n // c) for n, c in zip(array.shape, outer, strict=True))
    total = math.prod(grid)
    picked = range(total) if total <= num_keys else [i * (total - 1) // max(1, num_keys - 1) for i in range(num_keys)]
    return [array.metadata.encode_chunk_key(tuple(int(i) for i in np.unravel_index(k, grid))) for k in picked]


def _listed(folders: tuple[str, ...]) -> list[tuple[str, int]] | None:
    """Names and sizes of all files below these folders; None if there are more than 10,000."""
    found: list[tuple[str, int]] = []
    for folder in folders:
        for root, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(root, name)
                found.append((os.path.relpath(path, folder), os.path.getsize(path)))
                if len(found) > _MAX_LISTED_FILES:
                    return None
    return sorted(found)
