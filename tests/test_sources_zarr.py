"""OME-Zarr and zarr folders."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr

from tests.sources_files import assert_reads, picture
from unetctl.errors import InputError
from unetctl.geometry.box import Box
from unetctl.sources.open import is_picture, open_source

ARRAY = picture((2, 3, 5, 24, 30), "u2")
AXES = [
    {"name": "t", "type": "time", "unit": "second"},
    {"name": "c", "type": "channel"},
    {"name": "z", "type": "space", "unit": "nanometer"},
    {"name": "y", "type": "space", "unit": "micrometer"},
    {"name": "x", "type": "space", "unit": "millimeter"},
]


def ome_zarr(path: Path, array: npt.NDArray[Any], version: str, axes: list[Any] = AXES, **more: Any) -> Path:
    """An OME-Zarr image of two levels with a scale at both places."""
    zarr_format: Any = 3 if version == "0.5" else 2
    group = zarr.create_group(path, zarr_format=zarr_format)
    separator: Any = {"name": "default" if zarr_format == 3 else "v2", "separator": "/"}
    for i, level in enumerate((array, array[..., ::2, ::2])):
        group.create_array(
            f"s{i}", data=level, chunks=(1,) * (level.ndim - 3) + (4, 16, 16), chunk_key_encoding=separator
        )
    scales = [
        {"type": "scale", "scale": [1.0] * (array.ndim - 3) + [500.0, 0.25, 0.0005]},
        {"type": "translation", "translation": [0.0] * array.ndim},
    ]
    multiscales = {
        "version": version,
        "axes": axes,
        "datasets": [{"path": f"s{i}", "coordinateTransformations": scales} for i in range(2)],
        "coordinateTransformations": [{"type": "scale", "scale": [1.0] * (array.ndim - 1) + [2.0]}],
    }
    told = {"multiscales": [multiscales], **more}
    group.attrs.update({"ome": {"version": version, **told}} if version == "0.5" else told)
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(tmp_path: Path, version: str):
    channels: dict[str, Any] = {"omero": {"channels": [{"label": name} for name in ("a", "b", "c")]}}
    path = ome_zarr(tmp_path / "a.ome.zarr", ARRAY, version, **channels)
    source = open_source(str(path))
    image = source.info.images[0]
    assert (source.info.format, image.axes, image.channel_names) == (f"OME-Zarr {version}", "tczyx", ("a", "b", "c"))
    assert image.spacing_um == pytest.approx((0.5, 0.25, 1.0))
    assert source.info.preferred_chunk == ((1, 1, 4, 16, 16),)
    assert_reads(source, ARRAY)
    assert_reads(open_source(str(path), channel="b", time=0), ARRAY[0, 1])
    assert_reads(open_source(str(path), axes="zctyx"), ARRAY.transpose(2, 1, 0, 3, 4))
    assert_reads(open_source(str(path / "s1")), ARRAY[..., ::2, ::2])
    assert is_picture(str(path))
    shutil.move(path, tmp_path / "b.ome.zarr")
    assert open_source(str(tmp_path / "b.ome.zarr")).info.identity == source.info.identity


def test_axes_in_any_order_and_old_versions(tmp_path: Path):
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "xyz"]
    source = open_source(str(ome_zarr(tmp_path / "a.zarr", ARRAY[0, 0], "0.4", axes)))
    assert_reads(source, ARRAY[0, 0].transpose(2, 1, 0))
    assert_reads(open_source(str(ome_zarr(tmp_path / "b.zarr", ARRAY[0, 0], "0.3", list("zyx")))), ARRAY[0, 0])
    pixels = [{"name": n, "type": "space", "unit": "pixel"} for n in "zyx"]
    image = open_source(str(ome_zarr(tmp_path / "c.zarr", ARRAY[0, 0], "0.4", pixels))).info.images[0]
    assert image.spacing_um == (None, None, None)
    assert "given in pixel" in image.notes[0]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_plain_arrays_sharded_or_not(tmp_path: Path, zarr_format: Any):
    array = ARRAY[0, 0].astype(">u2") if zarr_format == 2 else ARRAY[0, 0]
    zarr.create_array(tmp_path / "a.zarr", data=array, chunks=(2, 8, 8), zarr_format=zarr_format)
    assert_reads(open_source(str(tmp_path / "a.zarr")), ARRAY[0, 0])
    zarr.create_array(tmp_path / "named.zarr", data=ARRAY[0, 0], chunks=(2, 8, 8), dimension_names=("x", "y", "time"))
    assert_reads(open_source(str(tmp_path / "named.zarr")), ARRAY[0, 0].transpose(2, 1, 0))
    zarr.create_array(tmp_path / "s.zarr", data=ARRAY[0, 0], chunks=(1, 8, 8), shards=(5, 16, 16))
    source = open_source(str(tmp_path / "s.zarr"))
    assert source.info.preferred_chunk == ((1, 8, 8),)
    assert_reads(source, ARRAY[0, 0])


def test_group_with_one_array_or_several(tmp_path: Path):
    group = zarr.create_group(tmp_path / "a.zarr")
    with pytest.raises(InputError, match="without any array"):
        open_source(str(tmp_path / "a.zarr"))
    group.create_array("volumes/raw", data=ARRAY[0, 0])
    assert_reads(open_source(str(tmp_path / "a.zarr")), ARRAY[0, 0])
    group.create_array("volumes/labels", data=ARRAY[0, 0])
    with pytest.raises(InputError, match=r"2 arrays: volumes/labels, volumes/raw.*choose one, e.g."):
        open_source(str(tmp_path / "a.zarr"))
    assert_reads(open_source(str(tmp_path / "a.zarr" / "volumes" / "raw")), ARRAY[0, 0])


@pytest.mark.parametrize("with_series", [False, True])
def test_bioformats2raw_collection(tmp_path: Path, with_series: bool):
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2, attributes={"bioformats2raw.layout": 3})
    for i in (0, 2, 10):
        ome_zarr(tmp_path / "a.zarr" / str(i), ARRAY[0, 0] + np.uint16(i), "0.4", AXES[2:])
    if with_series:
        group.create_group("OME", attributes={"series": ["10", "0"]})
    source = open_source(str(tmp_path / "a.zarr"))
    assert [i.name for i in source.info.images] == (["10", "0"] if with_series else ["0", "2", "10"])
    assert_reads(source, ARRAY[0, 0] + np.uint16(10), 0 if with_series else 2)
    assert_reads(open_source(str(tmp_path / "a.zarr"), series=1), ARRAY[0, 0] + np.uint16(0 if with_series else 2))


def test_plates_and_broken_stores_are_refused(tmp_path: Path):
    zarr.create_group(tmp_path / "p.zarr", zarr_format=2, attributes={"plate": {"wells": []}})
    with pytest.raises(InputError, match=r"plate.*A/1/0"):
        open_source(str(tmp_path / "p.zarr"))
    (tmp_path / "e.zarr").mkdir()
    with pytest.raises(InputError, match="copy it again"):
        open_source(str(tmp_path / "e.zarr"))
    zarr.create_array(tmp_path / "big.zarr", shape=(10, 10**5, 10**5), chunks=(10, 10**5, 10**5), dtype="u2")
    with pytest.raises(InputError, match="each of them decoded whole"):
        open_source(str(tmp_path / "big.zarr"))
    zarr.create_array(tmp_path / "c.zarr", data=np.ones((4, 4), "c8"))
    with pytest.raises(InputError, match="complex"):
        open_source(str(tmp_path / "c.zarr"))
    path = ome_zarr(tmp_path / "a.zarr", ARRAY, "0.5")
    store = json.loads((path / "zarr.json").read_text())
    store["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = "../../etc"
    (path / "zarr.json").write_text(json.dumps(store))
    with pytest.raises(InputError, match="inside it"):
        open_source(str(path))
    for text in ("", "{", "[]", '{"zarr_format": 9}', "9" * 5000):
        (path / "zarr.json").write_text(text)
        with pytest.raises(InputError):
            open_source(str(path))


def test_damaged_metadata_and_chunks_never_surface_as_another_exception(tmp_path: Path):
    rng = np.random.default_rng(3)
    for version in ("0.4", "0.5"):
        sound = ome_zarr(tmp_path / f"{version}.zarr", ARRAY[0, 0, :2, :10, :10], version, AXES[2:])
        files = sorted(p for p in sound.rglob("*") if p.is_file() and "s1" not in p.parts)
        for _ in range(15):
            path = tmp_path / "d.zarr"
            shutil.copytree(sound, path)
            target = path / files[rng.integers(0, len(files))].relative_to(sound)
            data = bytearray(target.read_bytes())
            data[int(rng.integers(0, len(data)))] = int(rng.integers(0, 256))
            target.write_bytes(bytes(data[: rng.integers(0, len(data))]) if rng.random() < 0.3 else bytes(data))
            try:
                source = open_source(str(path), max_bytes=1 << 20)
                shape = source.info.images[0].shape
                source.read(0, Box.whole(shape) if np.prod(shape, dtype=object) < 1 << 20 else Box((0,) * 3, (1,) * 3))
            except InputError:
                pass
            shutil.rmtree(path)
