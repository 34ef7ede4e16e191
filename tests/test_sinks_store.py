"""Stores: what is written comes back, on the promised files, whatever happened to them in between."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
import zarr.storage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ome_zarr_models import open_ome_zarr
from ome_zarr_models.v05.bioformats2raw import BioFormats2Raw
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel

from unetctl.errors import InputError, ResourceError, UsageError
from unetctl.geometry.box import Box
from unetctl.sinks import units
from unetctl.sinks.base import OutputImage, OutputLayout, StoredKey
from unetctl.sinks.estimate import store_size
from unetctl.sinks.memory import MemorySink
from unetctl.sinks.pyramid import build_step, halve_by_mean, pyramid_steps
from unetctl.sinks.units import levels_of, outer_axes
from unetctl.sinks.zarr import ZarrSink

SLOW = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PROVENANCE = {
    "fingerprint": "f" * 64,
    "software": "unetctl 0.1",
    "recipe": {"task": "em", "core": [384, 384]},
}


@st.composite
def images(draw: st.DrawFn) -> OutputImage:
    """Small pictures of every kind of axes, their sizes unrelated to shards and chunks."""
    axes = draw(st.sampled_from(["yx", "zyx", "cyx", "czyx", "tyx", "tcyx", "tczyx", "pzyx", "tpyx", "ptczyx"]))
    shape = tuple(draw(st.integers(1, 70 if axis in "yx" else 2)) for axis in axes)
    kind = draw(st.sampled_from(["image", "labels"]))
    dtype = draw(st.sampled_from(["uint8", "int16", "uint32", "float32"] if kind == "image" else ["uint8", "uint32"]))
    chunk = tuple(draw(st.sampled_from([13, 24, 32])) if axis in "yx" else 1 for axis in axes)
    multiple = tuple(draw(st.integers(1, 3)) if axis in "czyx" else 1 for axis in axes)
    shard = tuple(c * m for c, m in zip(chunk, multiple, strict=True))
    spacing = tuple(draw(st.sampled_from([None, 0.004, 1.5])) for axis in axes if axis in "zyx")
    names = tuple(f"channel {i}" for i in range(shape[axes.index("c")])) if "c" in axes else ()
    return OutputImage("a picture", shape, axes, dtype, shard, chunk, spacing, names, kind)


def pixels_for(image: OutputImage, seed: int = 0) -> np.ndarray:
    """Noise with an empty corner, so that some blocks leave no file."""
    pixels = np.random.default_rng(seed).integers(0, 120, image.shape).astype(image.dtype)
    pixels[..., : image.shape[-2] // 2, : image.shape[-1] // 2] = 0
    return pixels


def fill(sink: ZarrSink | MemorySink, arrays: list[np.ndarray], backwards: bool = False) -> list[StoredKey]:
    stored: list[StoredKey] = []
    for i_image, array in enumerate(arrays):
        level = levels_of(sink.layout.images[i_image])[0]
        order = range(level.num_shards)
        for i in reversed(order) if backwards else order:
            box = level.nth_shard_box(i)
            stored += sink.write(i_image, box, array[box.slices()])
    return stored


def tree(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file()}


def simple(shape: tuple[int, ...] = (3, 100, 90), dtype: str = "uint8", kind: str = "image") -> OutputImage:
    return OutputImage("", shape, "zyx", dtype, (2, 64, 64), (1, 32, 32), (0.05, 0.004, 0.004), (), kind)


@SLOW
@given(image=images(), other=images(), num=st.integers(1, 2))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, image, other, num) -> None:
    layout = OutputLayout((image, other)[:num], PROVENANCE)
    arrays = [pixels_for(one, i) for i, one in enumerate(layout.images)]
    path = tmp_path_factory.mktemp("store") / "out.ome.zarr"
    stored = fill(ZarrSink.create(path, layout), arrays)
    memory = MemorySink(layout)
    fill(memory, arrays)
    sink = ZarrSink.open(path)
    assert sink.layout == layout
    assert all(sink.matches(one, checksums=True) for one in stored)
    assert len({one.key for one in stored}) == len(stored)
    for i, array in enumerate(arrays):
        whole = Box.whole(array.shape)
        assert np.array_equal(sink.read(i, 0, whole), array)
        assert np.array_equal(memory.arrays[i], array)
        assert set(sink.keys_of(i, 0, whole)) <= {one.key for one in stored}
        third = Box(tuple(n // 3 for n in array.shape), array.shape)
        assert np.array_equal(sink.read(i, 0, third), array[third.slices()])
    written = {str(f.relative_to(path)) for f in path.rglob("c/**/*") if f.is_file()}
    assert written == {one.key for one in stored if one.sha256}
    bound = store_size(layout)
    assert sink.size_on_disk() <= bound.num_bytes
    assert len(list(path.rglob("*"))) <= bound.num_files
    accepted_by_ome_zarr_models(path, layout)


def accepted_by_ome_zarr_models(path: Path, layout: OutputLayout) -> None:
    group = zarr.open_group(path, mode="r")
    if len(layout.images) == 1 and not outer_axes(layout.images[0]):
        assert isinstance(open_ome_zarr(group), (Image, ImageLabel))
        Image.from_zarr(group)
        return
    model = BioFormats2Raw.from_zarr(group)
    series = json.loads((path / "OME" / "zarr.json").read_text())["attributes"]["ome"]["series"]
    assert list(model.images) == series
    assert len(series) >= len(layout.images)


@SLOW
@given(image=images())
def test_pyramid_levels_are_those_of_the_whole_picture(monkeypatch, tmp_path_factory, image) -> None:
    monkeypatch.setattr(units, "PYRAMID_ABOVE", 32)
    monkeypatch.setattr(units, "PYRAMID_UNTIL", 16)
    layout = OutputLayout((image,), PROVENANCE)
    path = tmp_path_factory.mktemp("store") / "out.ome.zarr"
    sink = ZarrSink.create(path, layout)
    array = pixels_for(image)
    fill(sink, [array])
    steps = pyramid_steps(sink)
    assert [steps[i] for i in range(len(steps))] == list(steps)
    stored = [key for step in steps for key in build_step(sink, step)]
    assert all(sink.matches(one, checksums=True) for one in stored)
    assert (sink.num_levels(0) > 1) == (max(image.shape[-2:]) > 32)
    assert max(sink.level(0, sink.num_levels(0) - 1).shape[-2:]) <= (16 if sink.num_levels(0) > 1 else 32)
    for i_level in range(1, sink.num_levels(0)):
        array = array[..., ::2, ::2] if image.kind == "labels" else mean_of_quads(array)
        assert np.array_equal(sink.read(0, i_level, Box.whole(array.shape)), array)
    accepted_by_ome_zarr_models(path, layout)


def mean_of_quads(array: np.ndarray) -> np.ndarray:
    """The definition, in float64: the mean of the pixels that there are, halves rounded up."""
    y, x = (-(-n // 2) for n in array.shape[-2:])
    sums, counts = np.zeros((*array.shape[:-2], y, x)), np.zeros((y, x))
    for i in (0, 1):
        for j in (0, 1):
            part = array[..., i::2, j::2]
            sums[..., : part.shape[-2], : part.shape[-1]] += part
            counts[: part.shape[-2], : part.shape[-1]] += 1
    mean = sums / counts
    return (mean if array.dtype.kind == "f" else np.floor(mean + 0.5)).astype(array.dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
def test_means_do_not_overflow(dtype: str) -> None:
    info = np.iinfo(dtype)
    values = np.array([info.min, info.min + 1, info.max - 1, info.max, 0, 1, 2, 3], dtype)
    quads = np.stack(np.meshgrid(*[values] * 4, indexing="ij"), -1).reshape(-1, 2, 2)
    assert np.array_equal(halve_by_mean(quads), mean_of_quads(quads))


def test_metadata_names_units_channels_and_provenance(tmp_path: Path) -> None:
    image = OutputImage(
        "p",
        (2, 3, 4000, 40),
        "tcyx",
        "uint8",
        (1, 3, 1024, 64),
        (1, 1, 256, 64),
        (None, 0.25),
        ("a", "b", "c"),
    )
    ZarrSink.create(tmp_path / "x.zarr", OutputLayout((image,), PROVENANCE))
    attributes = json.loads((tmp_path / "x.zarr" / "zarr.json").read_text())["attributes"]
    multiscale = attributes["ome"]["multiscales"][0]
    assert multiscale["axes"] == [
        {"name": "t", "type": "time"},
        {"name": "c", "type": "channel"},
        {"name": "y", "type": "space"},
        {"name": "x", "type": "space", "unit": "micrometer"},
    ]
    assert multiscale["datasets"][2] == {
        "path": "2",
        "coordinateTransformations": [
            {"type": "scale", "scale": [1.0, 1.0, 4.0, 1.0]},
            {"type": "translation", "translation": [0.0, 0.0, 1.5, 0.375]},
        ],
    }
    assert [channel["label"] for channel in attributes["ome"]["omero"]["channels"]] == ["a", "b", "c"]
    assert attributes["unetctl"]["provenance"] == PROVENANCE
    array = zarr.open_array(tmp_path / "x.zarr" / "0", mode="r")
    assert array.shards == (1, 3, 1024, 40)
    assert array.chunks == (1, 1, 256, 40)
    assert "crc32c" in json.dumps(json.loads((tmp_path / "x.zarr" / "0" / "zarr.json").read_text())["codecs"])


def test_same_pixels_same_bytes(tmp_path: Path) -> None:
    layout = OutputLayout((simple((3, 150, 100)), simple(dtype="uint32", kind="labels")), PROVENANCE)
    arrays = [pixels_for(image) for image in layout.images]
    for name, backwards in (("a", False), ("b", True)):
        sink = ZarrSink.create(tmp_path / name, layout)
        if backwards:
            fill(sink, [array[::-1].copy() for array in arrays])
        fill(sink, arrays, backwards)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize("harm", ["short", "empty", "zeros", "partial", "removed"])
def test_a_torn_shard_is_noticed_and_healed(tmp_path: Path, harm: str) -> None:
    layout = OutputLayout((simple(),), PROVENANCE)
    array = pixels_for(layout.images[0])
    stored = fill(ZarrSink.create(tmp_path / "x.zarr", layout), [array])
    whole = tree(tmp_path / "x.zarr")
    i_torn = next(i for i, one in reversed(list(enumerate(stored))) if one.sha256)
    file = tmp_path / "x.zarr" / stored[i_torn].key
    sink = ZarrSink.open(tmp_path / "x.zarr")
    if harm == "partial":
        file.with_suffix(".0123456789abcdef.partial").write_bytes(b"left by a killed process")
        assert sink.sweep_partials() == 1
    elif harm == "removed":
        file.unlink()
    else:
        size = file.stat().st_size
        file.write_bytes({"short": file.read_bytes()[: size // 2], "empty": b"", "zeros": bytes(size)}[harm])
    assert sink.matches(stored[i_torn]) == (harm in ("partial", "zeros"))
    assert sink.matches(stored[i_torn], checksums=True) == (harm == "partial")
    box = sink.level(0, 0).nth_shard_box(i_torn)
    assert sink.write(0, box, array[box.slices()]) == (stored[i_torn],)
    assert tree(tmp_path / "x.zarr") == whole
    assert np.array_equal(sink.read(0, 0, Box.whole(array.shape)), array)


def test_an_empty_block_leaves_no_file_and_one_that_should_not_be_is_a_mismatch(tmp_path: Path) -> None:
    sink = ZarrSink.create(tmp_path / "x.zarr", OutputLayout((simple(),), {}))
    box = sink.level(0, 0).nth_shard_box(0)
    (full,) = sink.write(0, box, np.ones(box.shape, np.uint8))
    (empty,) = sink.write(0, box, np.zeros(box.shape, np.uint8))
    assert empty == StoredKey(full.key, 0, "")
    assert sink.matches(empty, checksums=True)
    assert not sink.matches(full)
    file = tmp_path / "x.zarr" / full.key
    file.write_bytes(b"")
    assert not sink.matches(empty)
    sink.delete(sink.keys_of(0, 0, box))
    assert not file.exists()


def test_a_box_that_is_no_shard_is_refused(tmp_path: Path) -> None:
    layout = OutputLayout((simple(),), {})
    for sink in (ZarrSink.create(tmp_path / "x.zarr", layout), MemorySink(layout)):
        for start, stop in [((0, 0, 0), (1, 64, 64)), ((0, 1, 0), (2, 65, 64)), ((0, 64, 64), (2, 128, 128))]:
            box = Box(start, stop)
            with pytest.raises(ValueError, match="shard"):
                sink.write(0, box, np.ones(box.shape, np.uint8))
        box = Box((2, 64, 64), (3, 100, 90))
        with pytest.raises(ValueError, match="float32"):
            sink.write(0, box, np.ones(box.shape, np.float32))
        sink.write(0, box, np.ones(box.shape, np.uint8))
    assert set(tree(tmp_path)) == {"x.zarr/zarr.json", "x.zarr/0/zarr.json", "x.zarr/0/c/1/1/1"}


def test_what_is_in_the_way_and_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "file").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        ZarrSink.create(tmp_path / "x", OutputLayout((simple(),), {}))
    with pytest.raises(InputError, match="no store"):
        ZarrSink.open(tmp_path / "x")
    zarr.create_group(tmp_path / "y")
    with pytest.raises(InputError, match="no store"):
        ZarrSink.open(tmp_path / "y")
    with pytest.raises(ValueError, match="not a key"):
        ZarrSink(tmp_path, OutputLayout((simple(),), {})).delete(["../x/file"])
    with pytest.raises(ValueError, match="does not divide"):
        ZarrSink.create(tmp_path / "z", OutputLayout((OutputImage("", (9, 9), "yx", "uint8", (6, 6), (4, 4)),), {}))


WRITE_SOME = """
import sys
import numpy as np
from unetctl.sinks.zarr import ZarrSink
sink = ZarrSink.open(sys.argv[1])
array = np.load(sys.argv[2])
for i in range(int(sys.argv[3]), sink.level(0, 0).num_shards, 2):
    box = sink.level(0, 0).nth_shard_box(i)
    sink.write(0, box, array[box.slices()])
"""


def test_two_processes_write_one_store(tmp_path: Path) -> None:
    layout = OutputLayout((simple((4, 200, 200)),), PROVENANCE)
    array = pixels_for(layout.images[0])
    np.save(tmp_path / "array.npy", array)
    fill(ZarrSink.create(tmp_path / "alone", layout), [array])
    sink = ZarrSink.create(tmp_path / "shared", layout)
    command = [sys.executable, "-c", WRITE_SOME, str(sink.path), str(tmp_path / "array.npy")]
    others = [subprocess.Popen([*command, first]) for first in "01"]
    assert [other.wait(120) for other in others] == [0, 0]
    assert tree(tmp_path / "alone") == tree(tmp_path / "shared")


def noise(box: Box) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, box.shape).astype(np.uint8)


def test_a_full_disk_is_said_and_work_goes_on_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = ZarrSink.create(tmp_path / "x.zarr", OutputLayout((simple(),), {}))
    before = tree(tmp_path)
    box = sink.level(0, 0).nth_shard_box(0)

    async def no_space(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(zarr.storage.LocalStore, "set", no_space)
        with pytest.raises(ResourceError, match=r"no space left.*bytes free.*run the same command again"):
            sink.write(0, box, noise(box))
    assert tree(tmp_path) == before
    (stored,) = sink.write(0, box, noise(box))
    assert sink.matches(stored, checksums=True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of file sizes")
def test_a_write_that_the_system_cuts_off_leaves_nothing(tmp_path: Path) -> None:
    import resource

    image = OutputImage("", (512, 512), "yx", "uint8", (512, 512), (256, 256))
    sink = ZarrSink.create(tmp_path / "x.zarr", OutputLayout((image,), {}))
    before, box = tree(tmp_path), Box.whole(image.shape)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(ResourceError, match="too large"):
            sink.write(0, box, noise(box))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert tree(tmp_path) == before
    assert sink.write(0, box, noise(box))[0].num_bytes > 100_000


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk needs root on Linux")
def test_a_small_disk_runs_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        image = OutputImage("", (2048, 512), "yx", "uint8", (512, 512), (256, 256))
        sink = ZarrSink.create(disk / "x.zarr", OutputLayout((image,), {}))
        (disk / "other").write_bytes(bytes(500_000))
        boxes = [sink.level(0, 0).nth_shard_box(i) for i in range(4)]
        stored = sink.write(0, boxes[0], noise(boxes[0]))
        with pytest.raises(ResourceError, match=f"{disk}.*no space left.*free"):
            stored += tuple(key for box in boxes[1:] for key in sink.write(0, box, noise(box)))
        assert all(sink.matches(one, checksums=True) for one in stored)
        assert not list(disk.rglob("*.partial"))
        (disk / "other").unlink()
        stored += sink.write(0, boxes[len(stored)], noise(boxes[len(stored)]))
        assert all(sink.matches(one, checksums=True) for one in stored)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
