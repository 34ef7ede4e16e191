"""The door: any path becomes a source, or one clear sentence."""

import glob
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from unetctl.errors import InputError
from unetctl.sources import formats
from unetctl.sources.base import Source
from unetctl.sources.files import RUN_SUFFIX, existing_path, is_own_output
from unetctl.sources.formats import FORMATS, is_known_picture, sniff
from unetctl.sources.zarr_hierarchy import METADATA_NAMES, is_zarr

if TYPE_CHECKING:
    from unetctl.sources.slices import Picture

__all__ = ["FORMATS", "is_array", "is_picture", "open_source"]

_HDF5_SEPARATOR = "::"
_HINT_IMAGES = "give a file, a folder of pictures, or an OME-Zarr folder"


def open_source(
    path: str,
    *,
    axes: str | None = None,
    channel: int | str | None = None,
    series: int | None = None,
    time: int | None = None,
    scale: float | None = None,
    max_bytes: int | None = None,
) -> Source:
    """Opens a file, a folder or a pattern by its content; the extension decides only where the content does not.

    Args:
        path: a file; an OME-Zarr or zarr folder, or one inside; ``FILE.h5::/dataset``; a folder or a glob pattern of
            single pictures, which become one stack along z.
        axes: one letter an axis, in the order and with the sizes of the file; corrects what the file says, e.g. "tzyx".
        channel: number or name of the one channel that is wanted; its axis is dropped.
        series: number of the one picture that is wanted.
        time: number of the one time point that is wanted; its axis is dropped.
        scale: factor by which pictures are resampled along y and x, see `unetctl.sources.scaled`; None: as they are.
        max_bytes: the most that one piece that must be decoded whole (strip, chunk, page) may take; 1 GiB unless given.

    Returns:
        A source; close it when done.

    Raises:
        InputError: if the path is missing, empty, unreadable, damaged, or not an image that can be read here.
        UsageError: if `axes`, `channel`, `series`, `time` or `scale` do not fit what the file holds.
    """
    source = _opened(path, axes, max_bytes)
    try:
        if channel is not None or series is not None or time is not None:
            from unetctl.sources.views import RestrictedSource

            source = RestrictedSource(source, series=series, channel=channel, time=time)
        if scale is not None:
            from unetctl.sources.scaled import ScaledSource

            source = ScaledSource(source, scale)
    except BaseException:
        source.close()
        raise
    return source


def is_picture(path: str) -> bool:
    """True if `open_source` has a reader for this path, by its first bytes; cheap enough for folders of many files."""
    if os.path.isdir(path):
        return is_zarr(path)
    return os.path.isfile(path) and is_known_picture(path)


def is_array(path: str) -> bool:
    """True for zarr, HDF5, npy and MRC, which hold arrays and never pages of documents."""
    file = path.partition(_HDF5_SEPARATOR)[0]
    if os.path.isdir(path):
        return is_zarr(path)
    return os.path.isfile(file) and formats.is_array(file)


def _opened(path: str, axes: str | None, max_bytes: int | None) -> Source:
    file, separator, _ = path.partition(_HDF5_SEPARATOR)
    if separator and not os.path.exists(path) and os.path.isfile(file):
        if sniff(file) != "hdf5":
            raise InputError(
                f"{file} is no HDF5 file", f"{_HDF5_SEPARATOR} behind HDF5 files only", f"give {file} alone"
            )
        return _hdf5(path, axes, max_bytes)
    if glob.has_magic(path) and not os.path.exists(path):
        return _slices(path, sorted(glob.glob(path, recursive=True)), axes, max_bytes)
    found = existing_path(path)
    if found.is_dir():
        return _folder(path, axes, max_bytes)
    if not found.is_file():
        raise InputError(f"{path} is neither a file nor a folder", "an image", _HINT_IMAGES)
    return _SOURCES[sniff(path)](path, axes, max_bytes)


def _folder(path: str, axes: str | None, max_bytes: int | None) -> Source:
    if is_zarr(path):
        from unetctl.sources.zarr import ZarrSource

        return ZarrSource(path, axes, max_bytes)
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise InputError(f"{path} cannot be listed ({error.strerror})", "a readable folder") from error
    if path.rstrip("/\\").lower().endswith(".zarr"):
        raise InputError(
            f"{path} has none of {', '.join(METADATA_NAMES)}",
            "zarr metadata",
            "the store is incomplete: copy it again",
        )
    return _slices(path, [os.path.join(path, name) for name in names if not name.startswith(".")], axes, max_bytes)


def _slices(path: str, candidates: list[str], axes: str | None, max_bytes: int | None) -> Source:
    own = {p for p in candidates if is_own_output(p)}  # a rerun must not see the output that lies among its slices
    foreign = [p for p in candidates if p not in own]
    files = [p for p in foreign if os.path.isfile(p)]
    pictures = [p for p in files if is_known_picture(p)]
    if not pictures:
        inner = [os.path.basename(p) for p in foreign if os.path.isdir(p)]
        told = f"{len(files)} files, none of them a picture" if files else "folders only" if inner else "nothing"
        told += " but outputs of unetctl" if own and not (files or inner) else ""
        hint = (
            f"give one of its folders, e.g. {os.path.join(path, inner[0])}"
            if inner and os.path.isdir(path)
            else _HINT_IMAGES
        )
        raise InputError(f"{path} holds {told}", "pictures", hint)
    if len(pictures) == 1 and glob.has_magic(path) and not os.path.isdir(path):
        return _opened(pictures[0], axes, max_bytes)
    from unetctl.sources.slices import SlicesSource

    known = set(pictures)
    ignored = [os.path.basename(p) for p in files if p not in known]
    outputs = [os.path.basename(p) for p in sorted(own) if not p.endswith(RUN_SUFFIX)]
    return SlicesSource(
        path,
        pictures,
        _slice_opener(max_bytes),
        ignored=ignored,
        outputs=outputs,
        axes=axes,
        max_bytes=max_bytes,
    )


def _slice_opener(max_bytes: int | None) -> Callable[[str], "Picture"]:
    def open_picture(path: str) -> "Picture":
        return _SOURCES[sniff(path)](path, None, max_bytes)

    return open_picture


def _tiff(path: str, axes: str | None, max_bytes: int | None) -> "Picture":
    from unetctl.sources.tiff import TiffSource

    return TiffSource(path, axes, max_bytes)


def _npy(path: str, axes: str | None, max_bytes: int | None) -> "Picture":
    from unetctl.sources.npy import NpySource

    return NpySource(path, axes)


def _mrc(path: str, axes: str | None, max_bytes: int | None) -> "Picture":
    from unetctl.sources.mrc import MrcSource

    return MrcSource(path, axes)


def _hdf5(path: str, axes: str | None, max_bytes: int | None) -> "Picture":
    from unetctl.sources.hdf5 import Hdf5Source

    return Hdf5Source(path, axes, max_bytes)


def _raster(path: str, axes: str | None, max_bytes: int | None) -> "Picture":
    from unetctl.sources.raster import RasterSource

    return RasterSource(path, axes, max_bytes)


_SOURCES: dict[str, Callable[[str, str | None, int | None], "Picture"]] = {
    "tiff": _tiff,
    "npy": _npy,
    "mrc": _mrc,
    "hdf5": _hdf5,
    "raster": _raster,
}
