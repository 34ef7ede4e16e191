"""OME-TIFF exports: the pixels of the store, described so that others can read them, or nothing at all."""

import errno
import itertools
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from unetctl.errors import ResourceError, Stopped, UsageError
from unetctl.geometry.box import Box
from unetctl.sinks import estimate, tiff, tiff_tiles, units
from unetctl.sinks.base import OutputImage, OutputLayout
from unetctl.sinks.estimate import needs_bigtiff, tiff_size
from unetctl.sinks.pyramid import build_step, pyramid_steps
from unetctl.sinks.tiff import export_tiff, verify_tiff
from unetctl.sinks.zarr import ZarrSink

PROVENANCE = {"fingerprint": "f" * 64, "software": "unetctl 0.1"}
OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"


def stored(
    path: Path, *images: OutputImage, provenance: dict[str, Any] = PROVENANCE
) -> tuple[ZarrSink, list[np.ndarray]]:
    """A finished store of noise with an empty corner, and its pixels."""
    sink = ZarrSink.create(path, OutputLayout(images, provenance))
    arrays = []
    for i_image, image in enumerate(images):
        array = np.random.default_rng(i_image).integers(0, 120, image.shape).astype(image.dtype)
        array[..., : image.shape[-2] // 2, : image.shape[-1] // 2] = 0
        for i in range(sink.level(i_image, 0).num_shards):
            box = sink.level(i_image, 0).nth_shard_box(i)
            sink.write(i_image, box, array[box.slices()])
        arrays.append(array)
    for step in pyramid_steps(sink):
        build_step(sink, step)
    return sink, arrays


def picture(axes: str, *shape: int, dtype: str = "uint8", **fields: object) -> OutputImage:
    chunk = tuple(64 if axis in "yx" else 1 for axis in axes)
    shard = tuple(128 if axis in "yx" else 2 if axis in "cz" else 1 for axis in axes)
    basic = {"name": "", "shape": shape, "axes": axes, "dtype": dtype, "shard": shard, "chunk": chunk}
    values: dict[str, Any] = basic | fields
    return OutputImage(**values)


LARGE = picture("zyx", 3, 600, 530, shard=(3, 320, 320), chunk=(1, 160, 160))
CASES = [
    picture("yx", 100, 90),
    picture("yx", 1, 1),
    picture("yx", 17, 300, dtype="int16"),
    picture("zyx", 5, 130, 70, dtype="uint16"),
    picture("zyx", 1, 33, 47, kind="labels", dtype="uint32"),
    picture("cyx", 3, 64, 80, dtype="float32"),
    picture("cyx", 4, 20, 3),
    picture("czyx", 2, 3, 40, 50, dtype="float64"),
    picture("tyx", 3, 40, 50, dtype="int8"),
    picture("tczyx", 2, 1, 3, 150, 40, dtype="int32"),
    picture("pzyx", 2, 3, 40, 50),
    picture("ptczyx", 2, 2, 2, 2, 20, 24, dtype="uint16"),
    picture("zyx", 3, 100, 90, shard=(3, 60, 60), chunk=(3, 20, 30)),
]


@pytest.mark.parametrize("image", CASES, ids=lambda image: f"{image.axes}-{image.dtype}")
@pytest.mark.parametrize("is_tiny", [False, True], ids=["512", "16"])
def test_pixels_axes_and_levels_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: OutputImage, is_tiny: bool
) -> None:
    if is_tiny:  # tiles, slabs and pyramids as large pictures have them
        monkeypatch.setattr(estimate, "TIFF_TILE", 16)
        monkeypatch.setattr(tiff_tiles, "SLAB_BYTES", 3000)
        monkeypatch.setattr(units, "PYRAMID_ABOVE", 60)
        monkeypatch.setattr(units, "PYRAMID_UNTIL", 30)
    sink, (array,) = stored(tmp_path / "s", image)
    calls: list[tuple[int, int]] = []
    record = export_tiff(sink, tmp_path / "x.ome.tif", on_progress=lambda *call: calls.append(call), num_workers=2)
    verify_tiff(sink, record.path)
    assert record.num_bytes == record.path.stat().st_size <= tiff_size(sink.layout)
    assert calls == [(i + 1, len(calls)) for i in range(len(calls))]
    is_position = "p" in image.axes
    with tifffile.TiffFile(record.path) as file:
        assert file.is_ome
        assert not file.is_bigtiff
        found = [series.asarray(squeeze=False) for series in file.series]
        assert len(found) == (image.shape[0] if is_position else 1)
        for series, one in zip(file.series, array if is_position else [array], strict=True):
            sizes = dict(zip(series.get_axes(False), series.get_shape(False), strict=True))
            assert {a: n for a, n in sizes.items() if a not in "TCZS"} == {
                "Y": array.shape[-2],
                "X": array.shape[-1],
            }
            for axis in image.axes.strip("p"):
                assert sizes[axis.upper()] == image.shape[image.axes.index(axis)]
            assert series.dtype == image.dtype
            assert np.array_equal(series.asarray(squeeze=False).reshape(one.shape), one)
            assert [level.shape[-2:] for level in series.levels] == [
                sink.level(0, i).shape[-2:] for i in range(sink.num_levels(0))
            ]
            assert (len(series.levels) > 1) == (is_tiny and max(image.shape[-2:]) > 60)
            small = sink.read(0, len(series.levels) - 1, Box.whole(sink.level(0, len(series.levels) - 1).shape))
            if not is_position:
                assert np.array_equal(series.levels[-1].asarray().ravel(), small.ravel())
        for i_page in range(len(file.pages)):
            page = file.pages[i_page].aspage()
            assert page.tile is not None
            assert page.tile[0] % 16 == page.tile[1] % 16 == 0
            assert page.predictor == (2 if np.dtype(image.dtype).kind in "iu" else 1)
            assert page.compression == 8


def test_what_the_file_says_of_itself(tmp_path: Path) -> None:
    one = picture(
        "czyx",
        2,
        3,
        40,
        50,
        spacing_um=(0.05, 0.004, 0.008),
        channel_names=("wall & <gap>", "µ"),
        name="a {0}",
    )
    two = picture("yx", 30, 20, dpi=(300.0, 200.0), name="page")
    three = picture("yx", 30, 20, spacing_um=(None, 0.3))
    sink, arrays = stored(tmp_path / "s", one, two, three, provenance=PROVENANCE | {"recipe": {"b": 1, "a": [2]}})
    export_tiff(sink, tmp_path / "x.tif")
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        root = ET.fromstring(file.ome_metadata or "")
        pages = [file.pages[i].aspage() for i in (0, 6, 7)]
        for series, array in zip(file.series, arrays, strict=True):
            assert np.array_equal(series.asarray(), array)
        assert [series.axes for series in file.series] == ["CZYX", "YX", "YX"]
        assert not any(page.tags.get("DateTime") for page in pages)
        assert pages[0].tags["Software"].value == "unetctl 0.1"
        centimetre = [page.tags["ResolutionUnit"].value == 3 for page in pages]
        resolutions = [tuple(np.divide(*page.tags[f"{axis}Resolution"].value) for axis in "XY") for page in pages]
    assert centimetre == [True, False, False]
    assert resolutions == [(1.25e6, 2.5e6), (200, 300), (1, 1)]
    images = root.findall(f"{OME}Image")
    assert [image.get("Name") for image in images] == ["a {0}", "page", "Image2"]
    pixels = images[0].find(f"{OME}Pixels")
    assert pixels is not None
    assert [float(pixels.get(f"PhysicalSize{a}", "")) for a in "XYZ"] == [0.008, 0.004, 0.05]
    assert pixels.get("PhysicalSizeXUnit") == "µm"
    assert [channel.get("Name") for channel in pixels.findall(f"{OME}Channel")] == ["wall & <gap>", "µ"]
    said = {m.get("K"): m.text for m in root.iter(f"{OME}M")}
    assert said == PROVENANCE | {"recipe": '{"a": [2], "b": 1}'}
    last = images[2].find(f"{OME}Pixels")
    assert last is not None
    assert last.get("PhysicalSizeX") == "0.3"
    assert last.get("PhysicalSizeY") is None


@pytest.mark.parametrize("compression", ["deflate", "zstd", "none"])
def test_same_store_same_bytes(tmp_path: Path, compression: str) -> None:
    sink, (array,) = stored(tmp_path / "s", LARGE)
    first = export_tiff(sink, tmp_path / "a.tif", compression=compression, num_workers=1)
    second = export_tiff(ZarrSink.open(sink.path), tmp_path / "b.tif", compression=compression, num_workers=3)
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.sha256 == second.sha256
    verify_tiff(sink, first.path)
    assert np.array_equal(tifffile.imread(first.path), array)


def test_a_stopped_export_leaves_nothing(tmp_path: Path) -> None:
    sink, _ = stored(tmp_path / "s", LARGE)
    for num_asked in (0, 1, 5, 11, 12):  # the last one falls into the checksum
        (tmp_path / ".x.tif.partial-1").write_bytes(b"left by a killed export")
        asked = iter(itertools.chain([False] * num_asked, itertools.repeat(True)))
        with pytest.raises(Stopped, match="stopped"):
            export_tiff(sink, tmp_path / "x.tif", should_stop=asked.__next__)
        assert [file.name for file in tmp_path.iterdir()] == ["s"]


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink, (array,) = stored(tmp_path / "s", LARGE)
    (tmp_path / "x.tif").write_bytes(b"old")

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, no_space)
            with pytest.raises(ResourceError, match=r"x\.tif.*no space left.*run the same command again"):
                export_tiff(sink, tmp_path / "x.tif")
        assert sorted(file.name for file in tmp_path.iterdir()) == ["s", "x.tif"]
        assert (tmp_path / "x.tif").read_bytes() == b"old"
    export_tiff(sink, tmp_path / "x.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "x.tif"), array)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of file sizes")
def test_an_export_that_the_system_cuts_off_leaves_nothing(tmp_path: Path) -> None:
    import resource

    sink, _ = stored(tmp_path / "s", LARGE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, limits[1]))
    try:
        with pytest.raises(ResourceError, match="too large"):
            export_tiff(sink, tmp_path / "x.tif")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.iterdir()] == ["s"]


def test_types_that_ome_tiff_lacks_are_refused(tmp_path: Path) -> None:
    for dtype in ("float16", "int64", "bool"):
        sink = ZarrSink.create(tmp_path / dtype, OutputLayout((picture("yx", 30, 30, dtype=dtype),), {}))
        with pytest.raises(UsageError, match=f"no {dtype} pixels"):
            export_tiff(sink, tmp_path / "x.tif")
    assert not (tmp_path / "x.tif").exists()


def test_verification_finds_what_differs(tmp_path: Path) -> None:
    sink, _ = stored(tmp_path / "s", LARGE)
    path = export_tiff(sink, tmp_path / "x.tif").path
    whole = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        offset = file.pages[2].dataoffsets[3]
    torn = bytearray(whole)
    torn[offset + 40 : offset + 60] = bytes(20)
    others, _ = stored(tmp_path / "other", picture("zyx", 3, 600, 531, shard=(3, 640, 640), chunk=(1, 160, 160)))
    for content in (bytes(torn), whole[: len(whole) // 2], b"", whole[:100] + bytes(len(whole) - 100)):
        path.write_bytes(content)
        with pytest.raises(ResourceError, match=r"x\.tif"):
            verify_tiff(sink, path)
    path.write_bytes(whole)
    verify_tiff(sink, path)
    with pytest.raises(ResourceError, match="instead of"):
        verify_tiff(others, path)
    box = sink.level(0, 0).nth_shard_box(sink.level(0, 0).num_shards - 1)
    sink.write(0, box, np.full(box.shape, 7, np.uint8))
    with pytest.raises(ResourceError, match="differs from the store on page"):
        verify_tiff(sink, path)


@pytest.mark.parametrize(
    ("shape", "is_big"), [((4000, 1024, 1024), False), ((4096, 1024, 1024), True), ((2, 60000, 60000), True)]
)
def test_bigtiff_follows_the_planned_size(shape: tuple[int, ...], is_big: bool) -> None:
    layout = OutputLayout((picture("zyx", *shape, shard=(1, 1024, 1024), chunk=(1, 512, 512)),), {})
    assert needs_bigtiff(layout) == is_big


def test_a_bigtiff_is_written_where_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "needs_bigtiff", lambda layout: True)
    sink, (array,) = stored(tmp_path / "s", picture("zyx", 3, 100, 90))
    export_tiff(sink, tmp_path / "x.tif")
    verify_tiff(sink, tmp_path / "x.tif")
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        assert file.is_bigtiff
        assert np.array_equal(file.asarray(), array)


PEAK = """
import sys
from unetctl.sinks import tiff_tiles
from unetctl.sinks.tiff import export_tiff
from unetctl.sinks.zarr import ZarrSink
tiff_tiles.SLAB_BYTES = 1 << 20
export_tiff(ZarrSink.open(sys.argv[1]), sys.argv[2], num_workers=2)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_memory_does_not_follow_the_number_of_pages(tmp_path: Path) -> None:
    peaks = []
    for num_pages in (1500, 7500):
        image = picture("zyx", num_pages, 100, 100, shard=(num_pages, 100, 100), chunk=(50, 100, 100))
        sink = ZarrSink.create(tmp_path / str(num_pages), OutputLayout((image,), {}))
        box = sink.level(0, 0).nth_shard_box(0)
        pixels = np.zeros(box.shape, np.uint8)
        pixels[:, ::5, ::7] = 200
        sink.write(0, box, pixels)
        command = [sys.executable, "-c", PEAK, str(sink.path), str(tmp_path / "x.tif")]
        peaks.append(int(subprocess.run(command, capture_output=True, check=True, text=True).stdout) / 1024)
    assert peaks[1] < peaks[0] + 25, peaks  # all pages held would be 57 MiB more
