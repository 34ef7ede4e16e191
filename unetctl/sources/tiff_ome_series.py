"""The pictures of an OME-TIFF, in one file or several."""

import math
import os
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.geometry.box import Ints
from unetctl.sources.tiff_ome import OmeImage, OmeMetadata, parse_ome
from unetctl.sources.tiff_planes import FileSet, PagePlanes, Planes, TiffFile
from unetctl.sources.tiff_series import Series, make_series

_XML_PIECE_BYTES = 1 << 16
_FEWEST_BYTES_A_PAGE = 20
_ABSENT = -2


def has_ome_metadata(tiff: TiffFile) -> bool:
    """True if the description of the first page is OME-XML."""
    position, length = tiff.index.text_span(0)
    tail = tiff.file.read_at(position + max(0, length - 64), min(64, length))
    return tail.rstrip(b"\0 \t\r\n").endswith(b"OME>")


def _xml_pieces(tiff: TiffFile) -> Iterator[bytes]:
    position, length = tiff.index.text_span(0)
    length = len(tiff.file.read_at(position, length).rstrip(b"\0")) if length < _XML_PIECE_BYTES else length
    for at in range(0, length, _XML_PIECE_BYTES):
        piece = tiff.file.read_at(position + at, min(_XML_PIECE_BYTES, length - at))
        yield piece.rstrip(b"\0") if at + _XML_PIECE_BYTES >= length else piece


def find_ome_series(tiff: TiffFile) -> list[Series]:
    """Pictures by the OME metadata; [] if these are unusable or describe other planes than the file has."""
    metadata = parse_ome(_xml_pieces(tiff))
    if metadata is not None and metadata.metadata_file:
        metadata = _companion(tiff, metadata)
    if metadata is None:
        return []
    found = []
    for image in metadata.images:
        if image.sizes and image.ifd:
            series = _ome_series(tiff, metadata, image)
            if series is not None:
                found.append(series)
    return found


def _companion(tiff: TiffFile, metadata: OmeMetadata) -> OmeMetadata | None:
    path = _beside(tiff, metadata.metadata_file)
    if path is None or not os.path.isfile(path):
        return None
    with open(path, "rb") as stream:
        if stream.read(2) in (b"II", b"MM"):
            return None
        stream.seek(0)
        found = parse_ome(iter(lambda: stream.read(_XML_PIECE_BYTES), b""))
    if found is not None:
        found.uuid = metadata.uuid
    return found


def _beside(tiff: TiffFile, name: str) -> str | None:
    """Path of a file named by the metadata; None if the name leads out of the folder."""
    parts = name.replace("\\", "/").split("/")
    if not name or os.path.isabs(name) or ".." in parts or ":" in parts[0]:
        return None
    return os.path.join(os.path.dirname(tiff.path), *parts)


def _ome_series(tiff: TiffFile, metadata: OmeMetadata, image: OmeImage) -> Series | None:
    sizes = {**image.sizes, "c": max(1, image.sizes["c"] // max(1, image.samples))}
    lead_axes, lead_shape = image.order, tuple(sizes[a] for a in image.order)
    file_ids, pages, paths = _ome_places(tiff, metadata, image, lead_shape)
    notes: list[str] = []
    lead_shape, kept = _present(tiff, file_ids, lead_axes, lead_shape, notes)
    file_ids, pages = file_ids[kept], pages[kept]
    missing = int((file_ids < 0).sum())
    if missing == len(pages):
        return None
    if missing:
        notes.append(f"{missing} of {len(pages)} planes are not in the file: they are read as 0")
    k = int(np.flatnonzero(file_ids >= 0)[0])
    holder = tiff if file_ids[k] == 0 else TiffFile(paths[file_ids[k]])
    layout = holder.layout(int(pages[k]))
    if (
        layout.shaped[2:4] != (sizes["y"], sizes["x"])
        or layout.shaped[1] != 1
        or layout.shaped[0] * layout.shaped[4] != image.samples
    ):
        return None
    spacing = image.spacing_um
    names = tuple(image.channel_names) if any(image.channel_names) else ()
    if not file_ids.any() and (np.diff(pages) == 1).all():
        planes: Planes = PagePlanes(tiff, range(int(pages[0]), int(pages[-1]) + 1))
    else:
        planes = FileSet(tiff, paths, file_ids, pages)
    return make_series(
        lead_axes, lead_shape, planes, layout, spacing,
        is_microscopy=True, notes=tuple(notes), name=image.name, channel_names=names, paths=tuple(paths[1:]),
    )  # fmt: skip


def _ome_places(
    tiff: TiffFile, metadata: OmeMetadata, image: OmeImage, lead_shape: Ints
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], list[str]]:
    """Number of the file (-1 none, -2 one that is not there) and of the page of each plane, and the files' paths.

    Raises:
        InputError: if the metadata declare more planes than the files can hold.
    """
    paths, local = _local_files(tiff, metadata)
    num_planes = math.prod(lead_shape)
    num_bytes = sum(os.path.getsize(path) for path in paths)
    if num_planes > 1024 * (1 + len(image.ifd)) + num_bytes // _FEWEST_BYTES_A_PAGE:
        raise InputError(
            f"{tiff.path} has OME metadata of {num_planes} planes",
            f"as many as {num_bytes} bytes can hold",
            "it is damaged",
        )
    file_ids, pages = np.full(num_planes, -1, np.int32), np.zeros(num_planes, np.int64)
    steps = dict(zip(image.order, (lead_shape[1] * lead_shape[2], lead_shape[2], 1), strict=True))
    limits = dict(zip(image.order, lead_shape, strict=True))
    samples = max(1, image.samples)
    for c, z, t, ifd, count, i_file in zip(
        image.first_c, image.first_z, image.first_t, image.ifd, image.num_planes, image.file_ids, strict=True
    ):
        at = {"c": c // samples, "z": z, "t": t}
        if any(not 0 <= at[a] < limits[a] for a in "czt"):
            continue  # ImageJ writes such elements when it crops
        k = sum(at[a] * steps[a] for a in "czt")
        number = count if count > 0 else 1 if ifd >= 0 else len(tiff.index)
        first, i_local = max(0, ifd), local[i_file] if i_file >= 0 else 0
        number = min(number, num_planes - k)
        if i_local == 0:
            number = min(number, len(tiff.index) - first)
        if number > 0:
            file_ids[k : k + number] = i_local
            pages[k : k + number] = np.arange(first, first + number)
    return file_ids, pages, paths


def _local_files(tiff: TiffFile, metadata: OmeMetadata) -> tuple[list[str], list[int]]:
    """Paths of the files that are there, this one first; for each file of the metadata its place among them, or -2."""
    here = os.path.basename(tiff.path).lower()
    paths, places = [tiff.path], []
    for uuid, name in metadata.files:
        path = _beside(tiff, name)
        if (uuid and uuid == metadata.uuid) or name.lower() == here or len(metadata.files) == 1:
            places.append(0)  # also when it was renamed since
        elif path is not None and os.path.isfile(path):
            paths.append(path)
            places.append(len(paths) - 1)
        else:
            places.append(_ABSENT)
    return paths, places


def _present(
    tiff: TiffFile, file_ids: npt.NDArray[np.int32], lead_axes: str, lead_shape: Ints, notes: list[str]
) -> tuple[Ints, npt.NDArray[np.int64]]:
    """Shape and numbers of the planes whose files are here.

    Raises:
        InputError: if files are missing and what is here is no complete block of planes.
    """
    everything = np.arange(len(file_ids))
    lost = file_ids == _ABSENT
    if not lost.any():
        return lead_shape, everything
    here = (file_ids >= 0).reshape(lead_shape)
    rows = [np.flatnonzero(here.any(axis=tuple(j for j in range(3) if j != i))) for i in range(3)]
    block = np.ix_(*rows)
    if not here.any() or not here[block].all():
        raise InputError(
            f"{tiff.path} is part of a data set: {int(lost.sum())} of {lost.size} planes are in files that are missing",
            "all files beside it, under the names that it gives",
            "copy the others, or save it as a single OME-TIFF",
        )
    shape = tuple(len(r) for r in rows)
    told = ", ".join(f"{n} of {m} {a}" for a, n, m in zip(lead_axes, shape, lead_shape, strict=True) if n != m)
    notes.append(f"part of a data set in several files: the others are not there, {told} are read")
    return shape, everything.reshape(lead_shape)[block].reshape(-1)
