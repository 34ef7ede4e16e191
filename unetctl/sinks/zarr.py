"""OME-Zarr 0.5 stores: sharded zarr v3, one file a block, written once and whole by zarr-python.

zarr-python renames a finished temporary file into place, so that a killed process leaves no torn shard;
fsync, which it does not do, is done here. "The file exists" never means done: a block of nothing but zeros
has no file, and after a power loss a shard may be short. That is what `StoredKey` and `ZarrSink.matches`
are for.
"""

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from numcodecs import blosc  # type: ignore[import-untyped]
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore

from unetctl.errors import InputError, UsageError
from unetctl.geometry.box import Box, Ints
from unetctl.sinks import ome
from unetctl.sinks.base import OutputLayout, StoredKey
from unetctl.sinks.disk import files_below, fsync_file, fsync_folder, full_disk_explained, sha256_of
from unetctl.sinks.units import Level, check_pixels, levels_of, outer_axes

# Blosc's own threads place their blocks in the order in which they finish: same pixels, other bytes.
blosc.use_threads = False

_MAX_OPEN = 64
_MAX_SYNCED = 4096
_MAX_SINGLE_FSYNCS = 64
_CONFIG: Any = {"write_empty_chunks": False, "order": "C"}

Array = npt.NDArray[np.generic]


class ZarrSink:
    """A store on a local file system, of one picture or several, with their pyramids.

    One picture is a multiscale at the root; several are groups "0", "1", ... (bioformats2raw layout). A
    picture whose axes OME-Zarr cannot hold together (positions beside t, c and z) becomes one group per
    position; boxes and keys hide that. Use `create` or `open`. Any number of processes may write different
    shards at once.

    Attributes:
        path: of the store.
        layout: the pictures, as given to `create`.
    """

    def __init__(self, path: Path, layout: OutputLayout) -> None:
        self.path = path
        self.layout = layout
        self._levels = [levels_of(image) for image in layout.images]
        self._outer = [outer_axes(image) for image in layout.images]
        self._first_group = [0]
        for image, outer in zip(layout.images, self._outer, strict=True):
            self._first_group.append(self._first_group[-1] + prod(image.shape[i] for i in outer))
        self._open: OrderedDict[str, zarr.Array[Any]] = OrderedDict()
        self._synced: set[str] = set()
        self._lock = threading.Lock()

    @classmethod
    def create(cls, path: Path | str, layout: OutputLayout) -> "ZarrSink":
        """Writes the whole template (groups, arrays and metadata of all levels; no pixels) and flushes it.

        Raises:
            UsageError: if `path` exists and is not an empty folder.
            ResourceError: if the disk is full.
            ValueError: if a picture's shape, shard and chunk do not fit each other.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{path} exists", "a new name for the store", "choose another name or remove it")
        sink = cls(path, layout)
        with full_disk_explained(path):
            sink._write_template()
            files = [Path(entry.path) for entry in files_below(path)]
            if len(files) > _MAX_SINGLE_FSYNCS and hasattr(os, "sync"):
                os.sync()  # thousands of single flushes would take minutes
            else:
                for file in files:
                    fsync_file(file)
                    sink._fsync_folders(file)
            fsync_folder(path.absolute().parent)
        return sink

    @classmethod
    def open(cls, path: Path | str) -> "ZarrSink":
        """Opens a store that `create` has made.

        Raises:
            InputError: if there is none at `path`.
        """
        path = Path(path)
        try:
            root = _attributes(path)["unetctl"]
            if root["format"] != ome.LAYOUT_FORMAT:
                raise InputError(f"{path} was written by another version of unetctl", "", "predict again with --fresh")
            fields = root["images"] if "images" in root else _image_fields(path, root["num_images"])
            images = tuple(ome.image_from_json(one) for one in fields)
            return cls(path, OutputLayout(images, root["provenance"]))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is no store of unetctl ({error!r})", "an OME-Zarr written by unetctl") from error

    def num_levels(self, i_image: int) -> int:
        """How many resolutions a picture has, itself included."""
        return len(self._levels[i_image])

    def level(self, i_image: int, i_level: int) -> Level:
        """Shape, chunk and shard of a resolution, in the order of the picture's axes."""
        return self._levels[i_image][i_level]

    def write(self, i_image: int, box: Box, pixels: Array) -> tuple[StoredKey, ...]:
        """Stores one block durably: its old file is deleted, the new one written whole, flushed, read back.

        Args:
            i_image: which picture.
            box: one whole shard, clipped at the picture's edge.
            pixels: axes of the picture, shape of `box`, dtype of the picture.

        Returns:
            The key with its size and checksum; size 0 and no checksum if all pixels are 0, which leaves no
            file.

        Raises:
            ValueError: if `box` is not one whole shard, or `pixels` does not fit it.
            ResourceError: if the disk is full; no part of the block is left behind.
        """
        return self.write_level(i_image, 0, box, pixels)

    def write_level(self, i_image: int, i_level: int, box: Box, pixels: Array) -> tuple[StoredKey, ...]:
        """As `write`, to any resolution; `box` in that level's pixels."""
        coords = self._levels[i_image][i_level].coords_of(box)
        check_pixels(pixels, box, self.layout.images[i_image].dtype)
        key = self._key(i_image, i_level, coords)
        file = self._file(key)
        with full_disk_explained(file):
            try:
                # zarr reads an existing shard before it writes one: a torn one would make writing fail
                had_file = _unlink(file)
                if pixels.any():
                    group, inner = self._place(i_image, box)
                    self._array(f"{group}{i_level}")[inner.slices()] = pixels.reshape(inner.shape)
                    fsync_file(file)
                    self._fsync_folders(file)
                    return (StoredKey(key, file.stat().st_size, sha256_of(file)),)
                if had_file:
                    fsync_folder(file.parent)
            except OSError:
                _unlink(file)
                raise
        return (StoredKey(key, 0, ""),)

    def read(self, i_image: int, i_level: int, box: Box) -> Array:
        """Pixels of any box of a resolution, in the picture's axes; 0 where nothing is stored."""
        outer = self._outer[i_image]
        pixels = np.empty(box.shape, self.layout.images[i_image].dtype)
        for index in product(*(range(box.start[axis], box.stop[axis]) for axis in outer)):
            start, stop = list(box.start), list(box.stop)
            for axis, i in zip(outer, index, strict=True):
                start[axis], stop[axis] = i, i + 1
            one = Box(tuple(start), tuple(stop))
            group, inner = self._place(i_image, one)
            part = np.asarray(self._array(f"{group}{i_level}")[inner.slices()]).reshape(one.shape)
            if not outer:
                return part
            pixels[one.relative_to(box).slices()] = part
        return pixels

    def keys_of(self, i_image: int, i_level: int, box: Box) -> tuple[str, ...]:
        """Keys of all shards that hold pixels of `box`, whether they are written or not."""
        level = self._levels[i_image][i_level]
        return tuple(self._key(i_image, i_level, coords) for coords in level.coords_touching(box))

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes these shards if they are there, durably."""
        folders = {file.parent for file in map(self._file, keys) if _unlink(file)}
        for folder in sorted(folders):
            fsync_folder(folder)

    def matches(self, stored: StoredKey, checksums: bool = False) -> bool:
        """True if the disk holds what `stored` says: the size (with `checksums` the content), or no file."""
        file = self._file(stored.key)
        try:
            num_bytes = file.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return not stored.sha256
        if not stored.sha256 or num_bytes != stored.num_bytes or not file.is_file():
            return False
        return not checksums or sha256_of(file) == stored.sha256

    def sweep_partials(self) -> int:
        """Removes what killed writers left (`*.partial`), counts it. Only while nobody else writes here."""
        orphans = [Path(entry.path) for entry in files_below(self.path) if entry.name.endswith(".partial")]
        return sum(_unlink(orphan) for orphan in orphans)

    def size_on_disk(self) -> int:
        """Bytes of all files of the store, metadata included."""
        total = 0
        for entry in files_below(self.path):
            try:
                total += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
        return total

    # -- places

    def _place(self, i_image: int, box: Box) -> tuple[str, Box]:
        """The group that holds `box` (with a slash, or ""), and the box in the axes of its arrays."""
        image, outer = self.layout.images[i_image], self._outer[i_image]
        i_group = 0
        for axis in outer:
            i_group = i_group * image.shape[axis] + box.start[axis]
        kept = self._kept(i_image)
        inner = Box(tuple(box.start[i] for i in kept), tuple(box.stop[i] for i in kept))
        return ("" if self._is_single else f"{self._first_group[i_image] + i_group}/"), inner

    def _key(self, i_image: int, i_level: int, coords: Ints) -> str:
        box = self._levels[i_image][i_level].shard_box(coords)
        group, _ = self._place(i_image, box)
        return f"{group}{i_level}/c/" + "/".join(str(coords[i]) for i in self._kept(i_image))

    def _file(self, key: str) -> Path:
        parts = key.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"{key!r} is not a key of a store")
        return self.path.joinpath(*parts)

    def _kept(self, i_image: int) -> Ints:
        outer = self._outer[i_image]
        return tuple(i for i in range(len(self.layout.images[i_image].axes)) if i not in outer)

    @property
    def _is_single(self) -> bool:
        return len(self._outer) == 1 and not self._outer[0]

    # -- zarr

    def _array(self, name: str) -> "zarr.Array[Any]":
        with self._lock:
            array = self._open.pop(name, None)
            if array is None:
                array = zarr.open_array(LocalStore(self.path), path=name, mode="r+", zarr_format=3, config=_CONFIG)
            self._open[name] = array
            if len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)
        return array

    def _write_template(self) -> None:
        store = LocalStore(self.path)
        root: dict[str, Any] = {"unetctl": ome.layout_to_json(self.layout)}
        num_groups = self._first_group[-1]
        if self._is_single:
            image = self.layout.images[0]
            root["unetctl"]["images"] = [ome.image_to_json(image)]
            root["ome"] = ome.image_metadata(image, self._levels[0], self._kept(0))
        else:
            root["ome"], series = ome.series_metadata(num_groups)
        zarr.create_group(store, zarr_format=3, attributes=root)
        if self._is_single:
            self._create_arrays(store, 0, "")
            return
        zarr.create_group(store, path="OME", zarr_format=3, attributes={"ome": series})
        for i_image, image in enumerate(self.layout.images):
            for index in product(*(range(image.shape[axis]) for axis in self._outer[i_image])):
                corner = [0] * len(image.shape)
                for axis, i in zip(self._outer[i_image], index, strict=True):
                    corner[axis] = i
                group, _ = self._place(i_image, Box(tuple(corner), tuple(corner)))
                named = "".join(f" {image.axes[a]}{i}" for a, i in zip(self._outer[i_image], index, strict=True))
                metadata = ome.image_metadata(image, self._levels[i_image], self._kept(i_image), named)
                attributes = {
                    "ome": metadata,
                    "unetctl": {"i_image": i_image, "image": ome.image_to_json(image)},
                }
                zarr.create_group(store, path=group[:-1], zarr_format=3, attributes=attributes)
                self._create_arrays(store, i_image, group)

    def _create_arrays(self, store: LocalStore, i_image: int, group: str) -> None:
        image, kept = self.layout.images[i_image], self._kept(i_image)
        codec = (
            ZstdCodec(level=3) if image.kind == "labels" else BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
        )
        for i_level, level in enumerate(self._levels[i_image]):
            zarr.create_array(
                store,
                name=f"{group}{i_level}",
                shape=tuple(level.shape[i] for i in kept),
                chunks=tuple(level.chunk[i] for i in kept),
                shards=tuple(level.shard[i] for i in kept),
                dtype=image.dtype,
                fill_value=0,
                compressors=[codec, Crc32cCodec()],
                dimension_names=tuple(image.axes[i] for i in kept),
                zarr_format=3,
                config=_CONFIG,
            )

    def _fsync_folders(self, file: Path) -> None:
        """Flushes the file's name, and once those of its folders: another process may have made them."""
        fsync_folder(file.parent)
        for folder in (file.parent, *file.parent.parents):
            if folder == self.path or str(folder) in self._synced:
                break
            fsync_folder(folder.parent)
            self._synced.add(str(folder))
        if len(self._synced) > _MAX_SYNCED:
            self._synced.clear()


def _unlink(file: Path) -> bool:
    """Deletes a file; says whether there was one."""
    try:
        file.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _attributes(group: Path) -> dict[str, Any]:
    attributes: dict[str, Any] = json.loads((group / "zarr.json").read_text())["attributes"]
    return attributes


def _image_fields(path: Path, num_images: int) -> Iterator[dict[str, Any]]:
    """The pictures of a store of several; one that is stored as several groups tells its fields in each."""
    i_group = 0
    for i_image in range(num_images):
        fields = _attributes(path / str(i_group))["unetctl"]
        if fields["i_image"] != i_image:
            raise ValueError(f"group {i_group} belongs to picture {fields['i_image']}, not {i_image}")
        yield fields["image"]
        image = ome.image_from_json(fields["image"])
        i_group += prod(image.shape[axis] for axis in outer_axes(image))
