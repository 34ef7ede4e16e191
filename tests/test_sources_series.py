"""Which pictures a TIFF holds: OME-TIFF in one file or several, ImageJ hyperstacks, slides."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from tests.sources_files import assert_reads, grey_tags, ome_image, ome_xml, picture, tiff_file
from unetctl.errors import InputError
from unetctl.geometry.box import Box
from unetctl.sources.open import open_source
from unetctl.sources.tiff_ome import parse_ome
from unetctl.sources.units import micrometres


def pages_with(path: Path, stack: npt.NDArray[np.generic], description: bytes) -> None:
    """A plain stack with this description on its first page."""
    with tifffile.TiffWriter(path) as writer:
        for i, plane in enumerate(stack):
            writer.write(
                plane,
                description=description if i == 0 else None,
                metadata=None,
                contiguous=False,
                photometric="minisblack",
            )


def test_ome_tiff_axes_pixel_size_and_channel_names(tmp_path: Path):
    array = picture((2, 3, 4, 30, 41), "u2")
    metadata = {
        "axes": "TCZYX", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2,
        "Channel": {"Name": ["red", "green", "far"]},
    }  # fmt: skip
    compressed: dict[str, Any] = {"compression": "deflate", "tile": (16, 16)}
    for options in ({}, compressed):
        tifffile.imwrite(tmp_path / "a.ome.tif", array, metadata=metadata, photometric="minisblack", **options)
        source = open_source(str(tmp_path / "a.ome.tif"))
        image = source.info.images[0]
        assert (source.info.format, image.axes, image.channel_names) == ("OME-TIFF", "tczyx", ("red", "green", "far"))
        assert image.spacing_um == (2.0, 0.5, 0.25)
        assert_reads(source, array)
        assert_reads(open_source(str(tmp_path / "a.ome.tif"), channel="far", time=1), array[1, 2])
        assert open_source(str(tmp_path / "a.ome.tif"), channel=1).info.images[0].axes == "tzyx"


@pytest.mark.parametrize("order", ["ZCT", "CZT", "TZC", "CTZ"])
def test_every_order_of_planes(tmp_path: Path, order: str):
    sizes = {"z": 4, "c": 3, "t": 2}
    array = picture((2, 3, 4, 20, 30))
    # slowest first, as planes lie in the file
    stack = array.transpose(*("tcz".index(a) for a in order.lower()[::-1]), 3, 4).reshape(24, 20, 30)
    image = ome_image({**sizes, "x": 30, "y": 20}, "<TiffData/>", order="XY" + order)
    pages_with(tmp_path / "a.ome.tif", stack, ome_xml([image]))
    source = open_source(str(tmp_path / "a.ome.tif"))
    assert source.info.images[0].axes == "tczyx"
    assert_reads(source, array)


def test_several_pictures_colour_samples_and_pyramids(tmp_path: Path):
    first, second = picture((5, 40, 50)), picture((64, 80, 3))
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        writer.write(
            first, subifds=1, metadata={"axes": "ZYX", "Name": "stack"}, tile=(16, 16), photometric="minisblack"
        )
        writer.write(first[:, ::2, ::2], subfiletype=1, tile=(16, 16), photometric="minisblack")
        writer.write(second, metadata={"axes": "YXS", "Name": "slide"}, photometric="rgb")
    source = open_source(str(tmp_path / "a.ome.tif"))
    assert [(i.name, i.axes, i.is_rgb) for i in source.info.images] == [("stack", "zyx", False), ("slide", "cyx", True)]
    assert_reads(source, first)
    assert_reads(source, second.transpose(2, 0, 1), 1)


def two_files(folder: Path) -> npt.NDArray[np.uint8]:
    """Channel 0 in a.ome.tif, channel 1 in b.ome.tif, both naming both; (c, z, y, x)."""
    array = picture((2, 3, 20, 30)).astype(np.uint8)
    planes = "".join(
        f'<TiffData FirstC="{c}" FirstZ="{z}" IFD="{z}" PlaneCount="1">'
        f'<UUID FileName="{name}.ome.tif">urn:uuid:{name}</UUID></TiffData>'
        for c, name in enumerate("ab")
        for z in range(3)
    )
    image = ome_image({"x": 30, "y": 20, "z": 3, "c": 2}, planes, channels=["one", "two"])
    for c, name in enumerate("ab"):
        pages_with(folder / f"{name}.ome.tif", array[c], ome_xml([image], f"urn:uuid:{name}"))
    return array


def test_ome_tiff_in_several_files(tmp_path: Path):
    array = two_files(tmp_path)
    for name in "ab":
        source = open_source(str(tmp_path / f"{name}.ome.tif"))
        assert (source.info.images[0].axes, source.info.images[0].channel_names) == ("czyx", ("one", "two"))
        assert_reads(source, array)
    known = open_source(str(tmp_path / "a.ome.tif")).info.identity
    (tmp_path / "moved").mkdir()
    for name in "ab":
        shutil.copy(tmp_path / f"{name}.ome.tif", tmp_path / "moved")
    assert open_source(str(tmp_path / "moved" / "a.ome.tif")).info.identity == known
    pages_with(tmp_path / "moved" / "b.ome.tif", array[0], b"other")
    assert open_source(str(tmp_path / "moved" / "a.ome.tif")).info.identity != known


def test_lone_file_of_several_gives_what_it_holds_or_says_what_is_missing(tmp_path: Path):
    array = two_files(tmp_path)
    (tmp_path / "b.ome.tif").unlink()
    source = open_source(str(tmp_path / "a.ome.tif"))
    assert "1 of 2 c" in source.info.images[0].notes[0]
    assert_reads(source, array[0])
    # c 0 whole, of c 1 only one plane: no complete block of planes
    there = '<TiffData FirstC="{}" FirstZ="{}" IFD="{}"><UUID FileName="x.ome.tif">u:x</UUID></TiffData>'
    gone = '<TiffData FirstC="1" FirstZ="{}" IFD="0"><UUID FileName="gone.ome.tif">u:gone</UUID></TiffData>'
    planes = there.format(0, 0, 0) + there.format(0, 1, 1) + there.format(1, 0, 2) + gone.format(1)
    pages_with(
        tmp_path / "x.ome.tif",
        picture((3, 20, 30)),
        ome_xml([ome_image({"x": 30, "y": 20, "z": 2, "c": 2}, planes)], "u:x"),
    )
    with pytest.raises(InputError, match="files that are missing"):
        open_source(str(tmp_path / "x.ome.tif"))


def test_renamed_file_and_planes_that_were_never_taken(tmp_path: Path):
    stack = picture((2, 20, 30))
    planes = "".join(
        f'<TiffData FirstZ="{z}" IFD="{z}"><UUID FileName="old.ome.tif">urn:uuid:o</UUID></TiffData>' for z in range(2)
    )
    pages_with(tmp_path / "new.ome.tif", stack, ome_xml([ome_image({"x": 30, "y": 20, "z": 3}, planes)]))
    source = open_source(str(tmp_path / "new.ome.tif"))
    assert "1 of 3 planes are not in the file" in source.info.images[0].notes[0]
    assert_reads(source, np.concatenate([stack, np.zeros_like(stack[:1])]))


def test_metadata_in_a_companion_file(tmp_path: Path):
    stack = picture((3, 20, 30))
    planes = '<TiffData IFD="0" PlaneCount="3"><UUID FileName="a.ome.tif">urn:uuid:a</UUID></TiffData>'
    (tmp_path / "a.companion.ome").write_bytes(ome_xml([ome_image({"x": 30, "y": 20, "t": 3}, planes)]))
    pages_with(
        tmp_path / "a.ome.tif",
        stack,
        ome_xml(['<BinaryOnly MetadataFile="a.companion.ome" UUID="urn:uuid:m"/>'], "urn:uuid:a"),
    )
    source = open_source(str(tmp_path / "a.ome.tif"))
    assert source.info.images[0].axes == "tyx"
    assert_reads(source, stack)
    (tmp_path / "a.companion.ome").unlink()
    assert open_source(str(tmp_path / "a.ome.tif")).info.images[0].axes == "zyx"


@pytest.mark.parametrize(
    "description",
    [
        b"<OME>",
        b"<OME><Image></OME>",
        ome_xml([ome_image({"x": 7, "y": 20, "z": 3}, "<TiffData/>")]),
        ome_xml([]),
        b'<?xml version="1.0"?><OME>&a;</OME>',
    ],
)
def test_metadata_that_do_not_fit_leave_plain_pages(tmp_path: Path, description: bytes):
    stack = picture((3, 20, 30))
    pages_with(tmp_path / "a.tif", stack, description)
    assert_reads(open_source(str(tmp_path / "a.tif")), stack)


def test_metadata_that_declare_more_than_files_can_hold_are_refused(tmp_path: Path):
    image = ome_image({"x": 30, "y": 20, "z": 2_000_000_000, "t": 1000}, '<TiffData PlaneCount="3"/>')
    pages_with(tmp_path / "a.tif", picture((3, 20, 30)), ome_xml([image]))
    with pytest.raises(InputError, match="2000000000000 planes"):
        open_source(str(tmp_path / "a.tif"))
    # names that lead out of the folder are never opened
    outside = ome_image(
        {"x": 30, "y": 20, "z": 2},
        '<TiffData IFD="0"/><TiffData FirstZ="1" IFD="0"><UUID FileName="../b.tif">u</UUID></TiffData>'
        '<TiffData FirstZ="1" IFD="0"><UUID FileName="/b.tif">v</UUID></TiffData>',
    )
    (tmp_path / "in").mkdir()
    pages_with(tmp_path / "b.tif", picture((1, 20, 30)), b"")
    pages_with(tmp_path / "in" / "a.tif", picture((1, 20, 30)), ome_xml([outside], "urn:uuid:a"))
    assert open_source(str(tmp_path / "in" / "a.tif")).info.images[0].axes == "yx"


def test_long_metadata_are_parsed_in_pieces():
    planes = "".join(
        f'<TiffData FirstZ="{z}" IFD="{z}" PlaneCount="1"><UUID FileName="a">u</UUID></TiffData>' for z in range(5000)
    )
    text = ome_xml([ome_image({"x": 4, "y": 4, "z": 5000}, planes)])
    found = parse_ome(text[i : i + 777] for i in range(0, len(text), 777))
    assert found is not None
    assert list(found.images[0].ifd) == list(range(5000))
    assert set(found.images[0].file_ids) == {0}
    assert found.files == [("u", "a")]


def test_pictures_of_one_name_are_told_apart(tmp_path: Path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for i in range(3):
            writer.write(picture((20, 30), seed=i), metadata={"Name": "field"})
    source = open_source(str(tmp_path / "a.ome.tif"))
    assert [i.name for i in source.info.images] == ["field-0", "field-1", "field-2"]
    assert_reads(source, picture((20, 30), seed=2), 2)


def test_raw_file_of_a_camera_is_not_taken_for_its_thumbnail(tmp_path: Path):
    with tifffile.TiffWriter(tmp_path / "a.dng") as writer:
        writer.write(picture((20, 30)), subifds=1, subfiletype=1, metadata=None)
        writer.write(picture((200, 300)), metadata=None)
    with pytest.raises(InputError, match="reduced copies"):
        open_source(str(tmp_path / "a.dng"))


@pytest.mark.parametrize("options", [{}, {"compression": "deflate"}])
def test_imagej_hyperstack(tmp_path: Path, options: dict[str, Any]):
    array = picture((2, 4, 3, 20, 30), "u2")
    tifffile.imwrite(
        tmp_path / "a.tif",
        array,
        imagej=True,
        resolution=(4.0, 2.0),
        metadata={"axes": "TZCYX", "spacing": 3.0, "unit": "um"},
        **options,
    )
    source = open_source(str(tmp_path / "a.tif"))
    image = source.info.images[0]
    assert (source.info.format, image.axes, image.spacing_um) == ("ImageJ TIFF", "tczyx", (3.0, 0.5, 0.25))
    assert_reads(source, array.transpose(0, 2, 1, 3, 4))


def contiguous_imagej(path: Path, stack: npt.NDArray[np.generic], description: bytes, gap: int = 0) -> None:
    """One directory, then all planes in one piece, big-endian, as ImageJ writes what passes 4 GiB."""
    shape = stack.shape[-2:]
    tags = grey_tags(shape, offset=4096, t258=("H", [8 * stack.dtype.itemsize])) | {270: ("s", description)}
    tiff_file(path, [tags], order=">")
    with path.open("r+b") as stream:
        stream.truncate(4096 + gap)
        stream.seek(4096 + gap)
        stream.write(stack.astype(stack.dtype.newbyteorder(">")).tobytes())


def test_imagej_planes_behind_one_directory(tmp_path: Path):
    array = picture((2, 3, 20, 30), "u2")
    contiguous_imagej(
        tmp_path / "a.tif", array, b"ImageJ=1.53t\nimages=6\nslices=3\nframes=2\nhyperstack=true\nunit=\\u00B5m\n"
    )
    source = open_source(str(tmp_path / "a.tif"))
    assert source.info.images[0].axes == "tzyx"
    assert_reads(source, array)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:-1])
    with pytest.raises(InputError, match="6 planes"):
        open_source(str(tmp_path / "a.tif"))


def test_imagej_file_beyond_4_gib(tmp_path: Path):
    """Sparse: 5,000 planes of 1 MiB, of which only the last two have pixels."""
    last = picture((2, 1024, 1024)).astype(np.uint8)
    contiguous_imagej(tmp_path / "a.tif", last, b"ImageJ=1.53t\nimages=5000\nslices=5000\n", gap=4998 << 20)
    assert (tmp_path / "a.tif").stat().st_size > 4 << 30
    source = open_source(str(tmp_path / "a.tif"))
    assert source.info.images[0].shape == (5000, 1024, 1024)
    found = source.read(0, Box((4997, 100, 200), (5000, 300, 500)))
    np.testing.assert_array_equal(found, np.concatenate([np.zeros((1, 200, 300), np.uint8), last[:, 100:300, 200:500]]))


def test_slide_is_its_full_resolution(tmp_path: Path):
    """The arrangement of Aperio: the base, a thumbnail, levels, a label."""
    base = picture((128, 160, 3))
    with tifffile.TiffWriter(tmp_path / "a.svs") as writer:
        for plane, told in (
            (base, "Aperio Image |MPP = 0.25"),
            (base[::4, ::4], "Aperio Image"),
            (base[::2, ::2], "Aperio Image"),
        ):
            tiles: dict[str, Any] = {} if plane.shape[0] == 32 else {"tile": (32, 32)}
            writer.write(plane, description=told, metadata=None, photometric="rgb", **tiles)
        writer.write(base[:40, :40], description="Aperio Image label", metadata=None, photometric="rgb", subfiletype=1)
    source = open_source(str(tmp_path / "a.svs"))
    assert [i.shape for i in source.info.images] == [(3, 128, 160)]
    assert source.info.images[0].spacing_um == (0.25, 0.25)
    assert_reads(source, base.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [(250, "nm", 0.25), ("4", "\u00c5", 4e-4), (1, "micrometer", 1), (1, "\\u00B5m", 1), (2, "mm", 2000),
     (1, "pixel", None), (-1, "um", None),
     (None, "um", None), ("nan", "um", None), (1, None, None), (3, "microns", 3), (1, "\u03bcm", 1)],
)  # fmt: skip
def test_units(value: object, unit: str | None, expected: float | None):
    assert micrometres(value, unit) == (pytest.approx(expected) if expected is not None else None)
