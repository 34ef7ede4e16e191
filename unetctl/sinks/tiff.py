"""OME-TIFF files, exported from a finished store in one sequential pass."""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import tifffile

from unetctl.errors import ResourceError, Stopped, UnetctlError, UsageError
from unetctl.geometry.box import Box
from unetctl.sinks.base import OutputImage
from unetctl.sinks.disk import fsync_folder, full_disk_explained, sha256_of
from unetctl.sinks.estimate import needs_bigtiff, tiff_tile
from unetctl.sinks.ome import spacing_by_axis
from unetctl.sinks.tiff_tiles import Series, TileCodec, all_series, encoded_tiles, num_tiles
from unetctl.sinks.units import is_averaged
from unetctl.sinks.zarr import ZarrSink

_DTYPES = ("int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64")
_MAX_WORKERS = 16
_TAGS = {"deflate": "adobe_deflate", "zstd": "zstd", "none": None}


@dataclass(frozen=True)
class ExportRecord:
    """What an export has made.

    Attributes:
        path: of the file.
        num_bytes: its size.
        sha256: of its content, hex.
    """

    path: Path
    num_bytes: int
    sha256: str


def export_tiff(
    sink: ZarrSink,
    path: Path | str,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    compression: str = "deflate",
    num_workers: int | None = None,
) -> ExportRecord:
    """Writes a finished store as one OME-TIFF: tiled, compressed, with the store's pyramids as SubIFDs.

    One page a plane, in the order t, c, z; all pictures of the store are OME images of the file, positions
    one each. Same store, same bytes: nothing in the file depends on the clock, on chance or on its name.
    The file is written beside `path` as `.NAME.partial-<pid>`, flushed and renamed; files of that pattern
    left by killed exports are removed first, so only one process may export to `path` at a time. A file
    already at `path` is replaced. Tiles of varying size follow each other, so an export cannot go on in the
    middle: stopped or killed, it starts over.

    Memory: at most four slabs of 16 MiB, what zarr needs to decode one, and a few encoded tiles: about
    140 MiB on top of the process, whatever the picture's size and number of pages (with pyramids, some 200
    bytes a page more).

    Args:
        sink: the store, complete with its pyramids.
        path: the file to make.
        on_progress: called with the number of tiles written and of all tiles.
        should_stop: asked before each tile.
        compression: "deflate" (with horizontal predictor for integers), "zstd" or "none".
        num_workers: threads that encode; by default one per usable processor, at most 16.

    Raises:
        UsageError: if a picture is of a type that OME-TIFF does not have.
        ResourceError: if the disk is full.
        Stopped: if `should_stop` said so. In all cases nothing is left but a store to export again.
    """
    path = Path(path)
    for image in sink.layout.images:
        if image.dtype not in _DTYPES:
            raise UsageError(
                f"OME-TIFF has no {image.dtype} pixels",
                "one of " + ", ".join(_DTYPES),
                "write OME-Zarr instead",
            )
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with full_disk_explained(path):
        _remove_orphans(path)
        try:
            with partial.open("wb") as file:
                tick = _Ticker(sink, path, on_progress, should_stop)
                _write_all(sink, file, compression, num_workers or _usable_processors(), tick)
                file.flush()
                os.fsync(file.fileno())
            record = ExportRecord(path, partial.stat().st_size, sha256_of(partial, tick.check))
            partial.replace(path)
            fsync_folder(path.absolute().parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    return record


def verify_tiff(sink: ZarrSink, path: Path | str, num_samples: int = 32) -> None:
    """Opens an exported file again and compares axes, shape, type, levels and some tiles with the store.

    The sample is spread evenly over all tiles of all series and levels, and includes the last tile of the
    last page.

    Raises:
        ResourceError: if the file cannot be read or differs; the message says where.
    """
    path = Path(path)
    try:
        with tifffile.TiffFile(path) as tiff:
            _verify(sink, path, tiff, num_samples)
    except UnetctlError:
        raise
    except Exception as error:  # whatever a broken file makes of a decoder
        raise _unequal(path, f"cannot be read ({error!r})") from error


# -- writing


class _Ticker:
    """Counts tiles, reports them, and stops the export when asked to."""

    def __init__(
        self,
        sink: ZarrSink,
        path: Path,
        on_progress: Callable[[int, int], None] | None,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self._path, self._on_progress, self._should_stop = path, on_progress, should_stop
        self._num_done = 0
        self._num_total = sum(num_tiles(s.shape(sink, i)) for s in all_series(sink) for i in range(s.num_levels))

    def check(self) -> None:
        if self._should_stop is not None and self._should_stop():
            raise Stopped(f"the export of {self._path} was stopped", "", "the same command exports it from the start")

    def __call__(self) -> None:
        self.check()
        self._num_done += 1
        if self._on_progress is not None:
            self._on_progress(self._num_done, self._num_total)


def _write_all(sink: ZarrSink, file: IO[bytes], compression: str, num_workers: int, tick: _Ticker) -> None:
    provenance = sink.layout.provenance
    # not in a `with`: after an error, closing would write the remaining pages and hide what happened
    writer = tifffile.TiffWriter(file, bigtiff=needs_bigtiff(sink.layout), byteorder="<", ome=True)
    software = str(provenance.get("software", "unetctl")).encode("ascii", "replace").decode()
    head: dict[str, Any] = {
        "UUID": str(_uuid(sink)),
        "Creator": software.translate({ord("{"): "(", ord("}"): ")"}),
    }
    if provenance:
        head["MapAnnotation"] = {
            "Namespace": "unetctl",
            "Value": {k: _text(v) for k, v in sorted(provenance.items())},
        }
    with ThreadPoolExecutor(num_workers, "unetctl-tiff-encode") as workers:
        for series in all_series(sink):
            image = sink.layout.images[series.i_image]
            codec = TileCodec.of(compression, image.dtype, is_averaged(image))
            metadata = _metadata(image, series) | head
            head = {}
            for i_level in range(series.num_levels):
                shape = series.shape(sink, i_level)
                with closing(encoded_tiles(sink, series, i_level, codec, workers, tick)) as tiles:
                    writer.write(
                        tiles,
                        shape=shape,
                        dtype=codec.dtype,
                        tile=tiff_tile(shape),
                        photometric="minisblack",
                        compression=_TAGS[compression],
                        predictor=None if codec.predictor == 1 else codec.predictor,
                        subifds=series.num_levels - 1 if i_level == 0 else 0,
                        subfiletype=1 if i_level else 0,
                        metadata=metadata if i_level == 0 else None,
                        software=software,
                        **_resolution(image, i_level),
                    )
    writer.close()


def _metadata(image: OutputImage, series: Series) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": series.axes.upper()}
    name = _text(image.name + "".join(f" {image.axes[axis]}{i}" for axis, i in series.fixed))
    if name:
        metadata["Name"] = name.strip()
    for axis, size in spacing_by_axis(image).items():
        metadata[f"PhysicalSize{axis.upper()}"] = size
        metadata[f"PhysicalSize{axis.upper()}Unit"] = "µm"
    if "c" in image.axes and len(image.channel_names) == image.shape[image.axes.index("c")]:
        metadata["Channel"] = {"Name": [_text(channel) for channel in image.channel_names]}
    return metadata


def _resolution(image: OutputImage, i_level: int) -> dict[str, Any]:
    """Resolution tags: dots per inch of a page, or pixels per centimetre where the pixel size is known."""
    spacing = spacing_by_axis(image)
    if image.dpi is not None:
        y, x, unit = *image.dpi, "INCH"
    elif "y" in spacing and "x" in spacing:
        y, x, unit = 1e4 / spacing["y"], 1e4 / spacing["x"], "CENTIMETER"
    else:
        return {}
    y, x = y / 2**i_level, x / 2**i_level
    if not (1e-6 < y < 2**31 and 1e-6 < x < 2**31):  # what a fraction of two 32-bit numbers holds
        return {}
    return {"resolution": (x, y), "resolutionunit": unit}


def _uuid(sink: ZarrSink) -> Any:
    provenance = sink.layout.provenance
    identity = provenance.get("fingerprint") or json.dumps(provenance, sort_keys=True) + repr(sink.layout.images)
    return uuid5(NAMESPACE_URL, f"unetctl:{identity}")


def _text(value: object) -> str:
    """A value as text that XML can hold."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _remove_orphans(path: Path) -> None:
    for orphan in path.absolute().parent.iterdir():
        if orphan.name.startswith(f".{path.name}.partial-"):
            orphan.unlink(missing_ok=True)


def _usable_processors() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MAX_WORKERS, usable)


# -- verifying


def _verify(sink: ZarrSink, path: Path, tiff: tifffile.TiffFile, num_samples: int) -> None:
    expected = list(all_series(sink))
    if len(tiff.series) != len(expected):
        raise _unequal(path, f"has {len(tiff.series)} OME images instead of {len(expected)}")
    places = []
    for i_series, series in enumerate(expected):
        found = tiff.series[i_series]
        dtype = np.dtype(sink.layout.images[series.i_image].dtype)
        sizes = dict(zip(series.axes.upper(), series.shape(sink, 0), strict=True))
        stored = dict(zip(found.get_axes(False), found.get_shape(False), strict=True))
        if {a: n for a, n in stored.items() if n > 1 or a in sizes} != sizes or found.dtype != dtype:
            raise _unequal(path, f"holds {stored} of {found.dtype} instead of {sizes} of {dtype}")
        levels = [level.shape[-2:] for level in found.levels]
        if levels != [series.shape(sink, i)[-2:] for i in range(series.num_levels)]:
            raise _unequal(path, f"holds levels of {levels}")
        places += [(i_series, i_level) for i_level in range(series.num_levels)]
    counts = [num_tiles(expected[i].shape(sink, i_level)) for i, i_level in places]
    total = sum(counts)
    wanted = {i * (total - 1) // max(1, num_samples - 1) for i in range(num_samples)}
    first = 0
    for (i_series, i_level), count in zip(places, counts, strict=True):
        inside = {i - first for i in wanted if first <= i < first + count}
        for i_tile in sorted(inside | ({count - 1} if i_level == 0 and i_series == len(expected) - 1 else set())):
            _verify_tile(sink, path, tiff, expected[i_series], (i_series, i_level, i_tile))
        first += count


def _verify_tile(
    sink: ZarrSink, path: Path, tiff: tifffile.TiffFile, series: Series, place: tuple[int, int, int]
) -> None:
    i_series, i_level, i_tile = place
    shape = series.shape(sink, i_level)
    tile = tiff_tile(shape)
    per_page = num_tiles(shape) // prod(shape[:-2])
    i_page, i_segment = divmod(i_tile, per_page)
    page = tiff.series[i_series].levels[i_level].pages[i_page]
    assert page is not None
    tiff.filehandle.seek(page.dataoffsets[i_segment])
    data = tiff.filehandle.read(page.databytecounts[i_segment])
    decoded: Any = page.decode(data, i_segment)[0]
    row, column = divmod(i_segment, -(-shape[-1] // tile[1]))
    leading = [int(i) for i in np.unravel_index(i_page, (1, *shape[:-2]))][1:]
    y, x = row * tile[0], column * tile[1]
    start = (*leading, y, x)
    stop = (*(i + 1 for i in leading), min(y + tile[0], shape[-2]), min(x + tile[1], shape[-1]))
    stored: Any = sink.read(series.i_image, i_level, series.box(sink, Box(start, stop)))
    stored = stored.reshape(stored.shape[-2:])
    if decoded is None or not np.array_equal(
        decoded[0, : stored.shape[0], : stored.shape[1], 0], stored, equal_nan=stored.dtype.kind == "f"
    ):
        raise _unequal(path, f"differs from the store on page {i_page} at {Box((y, x), stop[-2:])}, level {i_level}")


def _unequal(path: Path, what: str) -> ResourceError:
    return ResourceError(
        f"{path} {what}",
        "what has been written to it",
        "the disk may be faulty or full; run the same command again to export once more",
    )
