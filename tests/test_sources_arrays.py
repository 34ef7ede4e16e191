"""Arrays as sources: memory, dask, .npy, MRC, HDF5, zarr; one contract for all of them."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from tests.sources_files import assert_reads, picture
from unetctl.errors import InputError, UsageError
from unetctl.geometry.box import Box
from unetctl.sources.axes import AxisOrder
from unetctl.sources.base import Source
from unetctl.sources.dask_array import DaskSource
from unetctl.sources.memory import MemorySource
from unetctl.sources.open import open_source

dask = pytest.importorskip("dask.array")


@given(st.permutations("tpczyx"), st.integers(2, 6))
def test_our_order_is_leading_axes_then_channels_then_space(letters: list[str], num_axes: int):
    told = "".join(a for a in letters if a in "tpczyx"[-num_axes:])
    order = AxisOrder.of(told)
    assert sorted(order.axes) == sorted(told)
    assert order.axes.endswith("czyx"[-min(4, num_axes) :])
    assert [a for a in order.axes if a in "tp"] == [a for a in told if a in "tp"]
    array = picture(tuple(range(2, 2 + num_axes)))
    ours = order.from_file(array)
    assert ours.shape == order.ours(array.shape)
    box = Box((1,) * num_axes, ours.shape)
    np.testing.assert_array_equal(order.from_file(array[order.file_box(box).slices()]), ours[box.slices()])


ARRAY = picture((5, 24, 30), "u2")


def written_npy(folder: Path, array: np.ndarray[Any, Any]) -> Source:
    """Through numpy.save."""
    np.save(folder / "a.npy", array)
    return open_source(str(folder / "a.npy"))


def written_hdf5(folder: Path, array: np.ndarray[Any, Any]) -> Source:
    """Chunked and compressed."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("volume/raw", data=array, chunks=(2, 10, 11), compression="gzip")
        file.create_dataset("names", data=np.arange(3))
    return open_source(str(folder / "a.h5"))


def written_zarr(folder: Path, array: np.ndarray[Any, Any]) -> Source:
    """Version 3, sharded."""
    zarr.create_array(folder / "a.zarr", data=array, chunks=(1, 8, 8), shards=(2, 16, 16))
    return open_source(str(folder / "a.zarr"))


SOURCES: dict[str, Callable[[Path, np.ndarray[Any, Any]], Source]] = {
    "memory": lambda folder, array: MemorySource(array, "zyx"),
    "memory, strided": lambda folder, array: MemorySource(np.repeat(array, 2, 1)[:, ::2], "zyx"),
    "memory, transposed": lambda folder, array: MemorySource(array.transpose(2, 0, 1), "xzy"),
    "dask": lambda folder, array: DaskSource(dask.from_array(array, chunks=(2, 10, 11)), "zyx"),
    "npy": written_npy,
    "npy, Fortran": lambda folder, array: written_npy(folder, np.asfortranarray(array)),
    "npy, big-endian": lambda folder, array: written_npy(folder, array.astype(array.dtype.newbyteorder(">"))),
    "hdf5": written_hdf5,
    "zarr": written_zarr,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_array_source_keeps_the_contract(tmp_path: Path, kind: str):
    source = SOURCES[kind](tmp_path, ARRAY)
    info = source.info
    assert (info.images[0].axes, info.images[0].shape) == ("zyx", ARRAY.shape)
    assert_reads(source, ARRAY)
    assert json.loads(json.dumps(info.identity)) == info.identity
    assert str(tmp_path) not in json.dumps(info.identity)
    for box in (Box((0, 0, 0), (6, 1, 1)), Box((-1, 0, 0), (1, 1, 1)), Box((0, 0), (1, 1))):
        with pytest.raises(ValueError, match="does not lie inside"):
            source.read(0, box)
    source.close()


@pytest.mark.parametrize("kind", SOURCES)
def test_identity_tells_other_pixels(tmp_path: Path, kind: str):
    other = ARRAY.copy()
    other[0, 0, 0] += 1
    (tmp_path / "other").mkdir()
    identity = SOURCES[kind](tmp_path, ARRAY).info.identity
    assert SOURCES[kind](tmp_path / "other", other).info.identity != identity
    (tmp_path / "same").mkdir()
    if kind != "hdf5":  # its files carry the time of their making
        assert SOURCES[kind](tmp_path / "same", ARRAY.copy()).info.identity == identity


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("dtype", ["?", "i1", "f2", "f8", "u8"])
def test_every_dtype(tmp_path: Path, kind: str, dtype: str):
    array = picture((3, 20, 22), dtype)
    expected = array.astype(np.uint8) * np.uint8(255) if dtype == "?" else array
    assert_reads(SOURCES[kind](tmp_path, array), expected, num_boxes=2)


def test_memory_source_gives_copies_and_its_extras():
    array = picture((2, 20, 30))
    source = MemorySource(array, "cyx", spacing_um=(0.5, None), channel_names=("a", "b"), dpi=(300, 300))
    image = source.info.images[0]
    assert (image.spacing_um, image.channel_names, image.dpi) == ((0.5, None), ("a", "b"), (300, 300))
    source.read(0, Box.whole(image.shape))[...] = 0
    np.testing.assert_array_equal(source.read(0, Box.whole(image.shape)), array)
    with pytest.raises(UsageError, match="3 axes of sizes 2x20x30"):
        MemorySource(array, "yx")
    with pytest.raises(UsageError, match="spacing_um"):
        MemorySource(array, "cyx", spacing_um=(1, 1, 1))
    with pytest.raises(InputError, match="complex"):
        MemorySource(array.astype(complex), "cyx")


def test_dask_computes_only_the_chunks_of_the_box():
    computed: list[Any] = []

    def block(block_id: tuple[int, ...]) -> np.ndarray[Any, Any]:
        computed.append(block_id)
        return np.full((1, 10, 10), block_id[1] * 3 + block_id[2], np.uint8)

    array = dask.map_blocks(
        block, chunks=((1,) * 4, (10,) * 3, (10,) * 3), dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
    )
    source = DaskSource(array, "zyx")
    found = source.read(0, Box((1, 8, 3), (2, 12, 9)))
    assert sorted(computed) == [(1, 0, 0), (1, 1, 0)]
    assert found.tolist() == [[[0] * 6] * 2 + [[3] * 6] * 2]

    def broken(block_id: tuple[int, ...]) -> np.ndarray[Any, Any]:
        raise RuntimeError("no such file")

    array = dask.map_blocks(broken, chunks=((10,), (10,)), dtype=np.uint8, meta=np.empty((0, 0), np.uint8))
    with pytest.raises(InputError, match="no such file"):
        DaskSource(array, "yx").read(0, Box.whole((10, 10)))


def test_npy_axes(tmp_path: Path):
    cases = {(20, 30): "yx", (5, 20, 30): "zyx", (2, 5, 20, 30): "tzyx", (2, 3, 5, 20, 30): "ptzyx"}
    for shape, axes in cases.items():
        image = written_npy(tmp_path, picture(shape)).info.images[0]
        assert image.axes == axes
        assert bool(image.notes) == (len(shape) > 2)
    colour = written_npy(tmp_path, picture((20, 30, 3)))
    assert (colour.info.images[0].axes, colour.info.images[0].is_rgb) == ("cyx", True)
    assert open_source(str(tmp_path / "a.npy"), axes="zyx").info.images[0].shape == (20, 30, 3)


def mrc_file(
    path: Path,
    array: np.ndarray[Any, Any],
    mode: int,
    order: str = "<",
    mapped: tuple[int, ...] = (1, 2, 3),
    **more: int,
) -> Path:
    """An MRC file of this array, slowest axis first, 4 x 4 x 10 angstrom."""
    head = bytearray(1024)
    nz, ny, nx = array.shape
    struct.pack_into(order + "10i", head, 0, nx, ny, nz, mode, 0, 0, 0, nx, ny, more.get("mz", nz))
    struct.pack_into(order + "3f", head, 40, 4.0 * nx, 4.0 * ny, 10.0 * more.get("mz", nz))
    struct.pack_into(order + "3i", head, 64, *mapped)
    struct.pack_into(order + "2i", head, 88, more.get("ispg", 1), more.get("extended", 0))
    struct.pack_into(order + "2i", head, 152, more.get("stamp", 0), 0)
    head[208:212] = b"MAP "
    head[212:214] = b"DD" if order == "<" else b"\x11\x11"
    path.write_bytes(
        bytes(head) + bytes(more.get("extended", 0)) + array.astype(array.dtype.newbyteorder(order)).tobytes()
    )
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("mode", "dtype"), [(0, "i1"), (1, "i2"), (2, "f4"), (6, "u2"), (12, "f2")])
def test_mrc(tmp_path: Path, order: str, mode: int, dtype: str):
    volume = picture((5, 20, 30), dtype)
    source = open_source(str(mrc_file(tmp_path / "a.mrc", volume, mode, order, extended=160)))
    assert source.info.images[0].spacing_um == pytest.approx((1e-3, 4e-4, 4e-4))
    assert_reads(source, volume)


def test_mrc_of_other_kinds(tmp_path: Path):
    volume = picture((6, 20, 30), "i2")
    # columns are z, rows x, sections y
    turned = open_source(str(mrc_file(tmp_path / "a.mrc", volume, 1, mapped=(3, 1, 2))))
    assert_reads(turned, volume.transpose(2, 0, 1))
    stack = open_source(str(mrc_file(tmp_path / "a.mrc", volume, 1, ispg=401, mz=3)))
    assert stack.info.images[0].axes == "pzyx"
    assert_reads(stack, volume.reshape(2, 3, 20, 30))
    plane = open_source(str(mrc_file(tmp_path / "a.mrc", volume[:1], 1)))
    assert_reads(plane, volume[0])
    unsigned = open_source(str(mrc_file(tmp_path / "a.st", picture((2, 20, 30)), 0, stamp=1146047817)))
    assert_reads(unsigned, picture((2, 20, 30)))
    for mode, match in ((4, "complex"), (101, "mode 101")):
        with pytest.raises(InputError, match=match):
            open_source(str(mrc_file(tmp_path / "a.mrc", volume, mode)))
    whole = mrc_file(tmp_path / "a.mrc", volume, 1).read_bytes()
    (tmp_path / "a.mrc").write_bytes(whole[:-1])
    with pytest.raises(InputError, match="cut off"):
        open_source(str(tmp_path / "a.mrc"))


def test_hdf5_dataset_is_chosen_or_listed(tmp_path: Path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["a/raw"] = ARRAY
        file["a/raw"].attrs["element_size_um"] = [2.0, 0.5, 0.25]
        file["b"] = ARRAY.transpose(2, 1, 0)
        file["b"].attrs["axistags"] = json.dumps({"axes": [{"key": "x"}, {"key": "y"}, {"key": "z"}]})
    source = open_source(f"{path}::/a/raw")
    assert source.info.images[0].spacing_um == (2.0, 0.5, 0.25)
    assert_reads(source, ARRAY)
    assert_reads(open_source(f"{path}::b"), ARRAY)
    with pytest.raises(InputError, match="2 datasets: /a/raw, /b"):
        open_source(str(path))
    with pytest.raises(InputError, match="no image at '/c'"):
        open_source(f"{path}::/c")
    np.save(tmp_path / "a.npy", ARRAY)
    with pytest.raises(InputError, match="no HDF5 file"):
        open_source(f"{tmp_path / 'a.npy'}::/c")
    data = path.read_bytes()
    (tmp_path / "b.h5").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="cut off"):
        open_source(str(tmp_path / "b.h5"))


def test_opening_loads_only_what_the_format_needs(tmp_path: Path):
    np.save(tmp_path / "a.npy", ARRAY)
    code = (
        "import sys; from unetctl.sources.open import open_source; open_source(sys.argv[1]).info; "
        "print([m for m in ('zarr', 'tifffile', 'imagecodecs', 'dask', 'h5py', 'PIL', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.npy")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
