"""HDF5 datasets through h5py (an optional package), read chunk by chunk."""

import hashlib
import importlib
import json
import math
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.geometry.box import Box
from unetctl.sources.axes import StoredImage, check_box, guess_axes, to_pixels, translate
from unetctl.sources.base import ImageInfo, SourceInfo
from unetctl.sources.files import DEFAULT_MAX_BYTES, RandomAccessFile, file_identity

SEPARATOR = "::"
_MAX_NAMED = 12


class Hdf5Source:
    """One dataset of an HDF5 file: ``FILE::/path/to/dataset``, or the only one of at least two axes.

    Axes come from `axistags` (vigra, ilastik) or dimension labels, pixel size from `element_size_um`.

    Args:
        uri: the file, with or without ``::/path``.
        axes: one letter an axis of the dataset.
        max_bytes: that one chunk may take when decoded, 1 GiB unless given.

    Raises:
        InputError: if h5py is not installed, the file damaged, or the dataset missing or not the only one.
        UsageError: if `axes` does not fit.
    """

    def __init__(self, uri: str, axes: str | None = None, max_bytes: int | None = None) -> None:
        self._uri = uri
        self._path, _, place = uri.partition(SEPARATOR)
        self._file = _open(self._path)
        try:
            self._dataset: Any = _dataset(self._file, self._path, place)
            stored = _stored(self._dataset)
            self._translated = translate(stored, uri, axes)
            limit = DEFAULT_MAX_BYTES if max_bytes is None else max_bytes
            chunk_bytes = math.prod(self._dataset.chunks or (0,)) * stored.dtype.itemsize
            if chunk_bytes > limit:
                raise InputError(
                    f"{uri} has chunks of {chunk_bytes} bytes",
                    f"at most {limit}",
                    "store it again in smaller chunks",
                )
        except BaseException:
            self._file.close()
            raise

    @property
    def images(self) -> tuple[ImageInfo, ...]:
        """The one picture."""
        return (self._translated.image,)

    @cached_property
    def info(self) -> SourceInfo:
        """See `Source.info`."""
        file = RandomAccessFile(self._path)
        identity = {**file_identity([file]), "dataset": str(self._dataset.name)}
        file.close()
        identity["dataset_sha256"] = hashlib.sha256(
            str((self._dataset.shape, self._dataset.dtype)).encode()
        ).hexdigest()
        return SourceInfo(self._uri, "HDF5", self.images, identity, (self._translated.chunk,))

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`; h5py lets one thread at a time into the library."""
        check_box(box, self.images[i_image], self._uri)
        order = self._translated.order
        try:
            array = np.asarray(self._dataset[order.file_box(box).slices()])
        except Exception as error:  # h5py's errors come as many types
            raise InputError(
                f"{self._uri} cannot be read at {box} ({error})", "sound chunks", "the file is damaged"
            ) from error
        return to_pixels(order.from_file(array))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _open(path: str) -> Any:
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise InputError(f"{path} is an HDF5 file", "the package h5py", "pip install h5py") from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(
            f"{path} cannot be opened as HDF5 ({error})",
            "a sound file",
            "it is cut off, damaged or being written",
        ) from error


def _dataset(file: Any, path: str, place: str) -> Any:
    found: list[str] = []

    def visit(name: str, item: Any) -> None:
        if getattr(item, "ndim", 0) >= 2 and item.dtype.kind in "biuf":
            found.append("/" + name)

    try:
        file.visititems(visit)
        chosen = file.get(place) if place else file[found[0]] if len(found) == 1 else None
    except Exception as error:  # damaged trees surface as any type of exception
        raise InputError(f"{path} cannot be listed ({type(error).__name__}: {error})", "a sound HDF5 file") from error
    if getattr(chosen, "ndim", 0) >= 2:
        return chosen
    named = ", ".join(found[:_MAX_NAMED]) + (f" and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else "")
    if not found:
        raise InputError(f"{path} holds no dataset of numbers with two axes or more")
    hint = f"choose one, e.g. {path}{SEPARATOR}{found[0]}"
    if place:
        raise InputError(f"{path} has no image at {place!r}", f"one of {named}", hint)
    raise InputError(f"{path} holds {len(found)} datasets: {named}", "one", hint)


def _stored(dataset: Any) -> StoredImage:
    shape = tuple(int(n) for n in dataset.shape)
    dtype = np.dtype(dataset.dtype)
    letters, is_rgb = guess_axes(shape, dtype)
    told = _axis_tags(dataset) or "".join(str(d.label)[:1].lower() or "?" for d in dataset.dims)
    if len(told) == len(shape) and len(set(told)) == len(told) and {"y", "x"} <= set(told):
        letters, is_rgb = told, False
    spacing = _spacing(dataset, letters)
    return StoredImage(shape, letters, dtype, spacing, is_rgb=is_rgb, chunk=tuple(dataset.chunks or ()))


def _axis_tags(dataset: Any) -> str:
    try:
        tags = json.loads(dataset.attrs["axistags"])
        return "".join(str(axis["key"])[:1] for axis in tags["axes"])
    except (KeyError, ValueError, TypeError, OSError):
        return ""


def _spacing(dataset: Any, letters: str) -> dict[str, float]:
    try:
        sizes = [float(v) for v in np.ravel(dataset.attrs["element_size_um"])]
    except (KeyError, ValueError, TypeError, OSError):
        return {}
    spatial = [a for a in "zyx" if a in letters or (a == "z" and len(sizes) == 3)]
    return (
        {a: s for a, s in zip(spatial, sizes, strict=False) if 0 < s < math.inf} if len(sizes) == len(spatial) else {}
    )
