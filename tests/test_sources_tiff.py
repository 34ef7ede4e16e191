"""TIFF: whatever the storage, a box is the pixels that tifffile gives, and costs no more than the segments it is in."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from tests.sources_files import assert_reads, grey_tags, picture, tiff_file
from unetctl.errors import InputError, UsageError
from unetctl.geometry.box import Box
from unetctl.sources.open import open_source

DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8")
STORED: dict[str, dict[str, Any]] = {
    "one strip": {},
    "strips": {"rowsperstrip": 5},
    "rows": {"rowsperstrip": 1},
    "tiles": {"tile": (16, 32)},
    "big-endian": {"byteorder": ">", "rowsperstrip": 7},
    "BigTIFF tiles": {"bigtiff": True, "tile": (16, 16)},
    "deflate": {"compression": "deflate", "rowsperstrip": 6},
    "deflate tiles, predictor": {"compression": "deflate", "tile": (16, 16), "predictor": True},
    "lzw": {"compression": "lzw", "rowsperstrip": 9},
    "zstd, big-endian, predictor": {"compression": "zstd", "byteorder": ">", "predictor": True},
    "packbits": {"compression": "packbits"},
    "lzma": {"compression": "lzma", "tile": (32, 16)},
}


@pytest.mark.parametrize("how", STORED)
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_stack_reads_like_tifffile_however_it_is_stored(tmp_path: Path, how: str, dtype: str):
    stack = picture((3, 45, 70), dtype)
    tifffile.imwrite(tmp_path / "a.tif", stack, metadata=None, photometric="minisblack", **STORED[how])
    source = open_source(str(tmp_path / "a.tif"))
    assert source.info.images[0].axes == "zyx"
    assert "does not name" in source.info.images[0].notes[-1]
    assert_reads(source, stack)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("how", ["strips", "big-endian", "deflate tiles, predictor"])
def test_every_number_type_is_kept(tmp_path: Path, dtype: str, how: str):
    options = dict(STORED[how])
    if np.dtype(dtype).itemsize == 8 and np.dtype(dtype).kind != "f":
        options.pop("predictor", None)
    plane = picture((40, 37), dtype)
    tifffile.imwrite(tmp_path / "a.tif", plane, **options)
    assert_reads(open_source(str(tmp_path / "a.tif")), plane)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("how", ["one strip", "strips", "tiles", "deflate tiles, predictor", "big-endian"])
@pytest.mark.parametrize("num_samples", [3, 4, 7])
def test_samples_become_channels(tmp_path: Path, planar: str, how: str, num_samples: int):
    samples = picture((num_samples, 33, 50), "u2")
    stored = samples if planar == "separate" else np.moveaxis(samples, 0, -1)
    photometric = "rgb" if num_samples < 7 else "minisblack"
    extra = ["unassalpha"] if num_samples == 4 else None
    tifffile.imwrite(
        tmp_path / "a.tif",
        stored,
        planarconfig=planar,
        photometric=photometric,
        extrasamples=extra,
        metadata=None,
        **STORED[how],
    )
    source = open_source(str(tmp_path / "a.tif"))
    assert (source.info.images[0].axes, source.info.images[0].is_rgb) == ("cyx", num_samples < 7)
    assert_reads(source, samples)


def test_stack_of_colour_pages_is_czyx(tmp_path: Path):
    stack = picture((5, 30, 41, 3))
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="rgb", metadata=None, compression="deflate", tile=(16, 16))
    source = open_source(str(tmp_path / "a.tif"))
    assert (source.info.images[0].axes, source.info.images[0].is_rgb) == ("czyx", True)
    assert_reads(source, np.moveaxis(stack, -1, 0))


@pytest.mark.parametrize(("bits", "dtype"), [(12, "u2"), (10, "u2"), (14, "u2"), (4, "u1"), (2, "u1")])
def test_packed_bits_are_unpacked(tmp_path: Path, bits: int, dtype: str):
    plane = (picture((30, 41), "u2") >> np.uint16(16 - bits)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", plane, bitspersample=bits, rowsperstrip=8)
    source = open_source(str(tmp_path / "a.tif"))
    assert f"{bits}-bit" in source.info.images[0].notes[0]
    assert_reads(source, plane)


def test_one_bit_is_0_and_255(tmp_path: Path):
    mask = picture((30, 41), "?")
    tifffile.imwrite(tmp_path / "a.tif", mask)
    assert_reads(open_source(str(tmp_path / "a.tif")), mask.astype(np.uint8) * np.uint8(255))


def test_min_is_white_becomes_min_is_black(tmp_path: Path):
    for dtype in ("u1", "u2"):
        plane = picture((30, 41), dtype)
        tifffile.imwrite(tmp_path / "a.tif", plane, photometric="miniswhite", compression="deflate")
        source = open_source(str(tmp_path / "a.tif"))
        assert "inverted" in source.info.images[0].notes[0]
        assert_reads(source, np.iinfo(plane.dtype).max - plane)
    pages = [Image.fromarray(picture((40, 61), "?", seed)) for seed in range(3)]
    pages[0].save(tmp_path / "g4.tif", save_all=True, append_images=pages[1:], compression="group4", dpi=(300, 300))
    source = open_source(str(tmp_path / "g4.tif"))
    assert source.info.images[0].dpi == (300, 300)
    assert_reads(source, np.stack([np.asarray(page).astype(np.uint8) * np.uint8(255) for page in pages]))


def test_palette_is_expanded_but_not_the_display_table_of_a_microscope(tmp_path: Path):
    index = picture((30, 41))
    table = np.stack([np.arange(256), np.arange(256)[::-1], np.full(256, 7)]).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", index, photometric="palette", colormap=table, metadata=None)
    source = open_source(str(tmp_path / "a.tif"))
    assert source.info.images[0].is_rgb
    assert_reads(source, (table >> 8).astype(np.uint8)[:, index])
    grey = np.stack([np.arange(256)[::-1]] * 3).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "b.tif", index, photometric="palette", colormap=grey, metadata=None)
    assert_reads(open_source(str(tmp_path / "b.tif")), 255 - index)
    tifffile.imwrite(
        tmp_path / "c.tif",
        index,
        photometric="palette",
        colormap=table,
        description="ImageJ=1.54p\nimages=1\n",
        metadata=None,
    )
    assert_reads(open_source(str(tmp_path / "c.tif")), index)


def test_jpeg_in_tiles_is_rgb(tmp_path: Path):
    plane = picture((64, 80, 3))
    tifffile.imwrite(
        tmp_path / "a.tif",
        plane,
        compression="jpeg",
        photometric="ycbcr",
        subsampling=(2, 2),
        tile=(32, 32),
        metadata=None,
    )
    source = open_source(str(tmp_path / "a.tif"))
    assert source.info.images[0].is_rgb
    assert_reads(source, np.moveaxis(tifffile.imread(tmp_path / "a.tif"), -1, 0))


def test_inks_become_colours_as_pillow_has_it(tmp_path: Path):
    inks = picture((30, 41, 4))
    tifffile.imwrite(tmp_path / "a.tif", inks, photometric="separated", metadata=None, rowsperstrip=7)
    expected = np.asarray(Image.fromarray(inks, "CMYK").convert("RGB")).transpose(2, 0, 1)
    source = open_source(str(tmp_path / "a.tif"))
    found = source.read(0, Box.whole((3, 30, 41)))
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert_reads(source, found)


@pytest.mark.parametrize("compression", [1, 5, 8, 32773])
def test_subsampled_colours_without_jpeg(tmp_path: Path, compression: int):
    """Two by two pixels share their colour: four luminances, then Cb and Cr (TIFF 6.0, section 21)."""
    luminance, shared = picture((13, 17)), picture((7, 9, 2), seed=3)
    padded = np.pad(luminance, ((0, 1), (0, 1)))
    units = np.concatenate([padded.reshape(7, 2, 9, 2).transpose(0, 2, 1, 3).reshape(7, 9, 4), shared], axis=2)
    encoders: dict[int, Callable[[bytes], Any]] = {
        1: bytes,
        5: imagecodecs.lzw_encode,
        8: imagecodecs.zlib_encode,
        32773: imagecodecs.packbits_encode,
    }
    pack = encoders[compression]
    strips = [bytes(pack(units[a : a + 2].tobytes())) for a in range(0, 7, 2)]
    ends = np.cumsum([len(s) for s in strips])
    tags = grey_tags((13, 17), t258=("H", [8, 8, 8]), t277=("H", [3]), t262=("H", [6]), t278=("H", [4]))
    tags |= {259: ("H", [compression]), 530: ("H", [2, 2]), 279: ("I", [len(s) for s in strips])}
    tags |= {273: ("I", [16 + int(e) - len(s) for e, s in zip(ends, strips, strict=True)])}
    tiff_file(tmp_path / "a.tif", [tags], b"".join(strips))
    y = luminance.astype(float)
    cb, cr = (np.repeat(np.repeat(shared[..., i].astype(float), 2, 0), 2, 1)[:13, :17] - 128 for i in range(2))
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb])
    assert_reads(open_source(str(tmp_path / "a.tif")), np.rint(rgb.clip(0, 255)).astype(np.uint8))


def test_jpeg_of_1992_goes_through_libtiff(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    plane = picture((32, 48, 3))
    stream = io.BytesIO()
    Image.fromarray(plane).save(stream, "JPEG", quality=95)
    jpeg = stream.getvalue()
    tags = grey_tags((32, 48), t258=("H", [8, 8, 8]), t277=("H", [3]), t262=("H", [6]), t259=("H", [6]))
    tags |= {513: ("I", [16]), 514: ("I", [len(jpeg)]), 530: ("H", [2, 2]), 279: ("I", [len(jpeg)])}
    tiff_file(tmp_path / "a.tif", [tags], jpeg)
    source = open_source(str(tmp_path / "a.tif"))
    found = source.read(0, Box.whole((3, 32, 48)))
    assert np.abs(found.astype(int) - np.asarray(Image.open(stream)).transpose(2, 0, 1)).mean() < 3
    assert_reads(source, found)
    assert capfd.readouterr() == ("", "")
    tiff_file(tmp_path / "b.tif", [tags], bytes(len(jpeg)))
    with pytest.raises(InputError, match="libtiff cannot decode it either"):
        open_source(str(tmp_path / "b.tif"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("code", range(1, 9))
def test_turned_pages_come_upright(tmp_path: Path, code: int):
    plane = picture((30, 41, 3))
    tifffile.imwrite(
        tmp_path / "a.tif",
        plane,
        extratags=[(274, 3, 1, code, True)],
        metadata=None,
        tile=(16, 16),
        resolution=(100, 50),
    )
    tagged = Image.fromarray(plane)
    tagged.getexif()[274] = code
    source = open_source(str(tmp_path / "a.tif"))
    assert source.info.images[0].dpi == ((50, 100) if code < 5 else (100, 50))
    assert_reads(source, np.asarray(ImageOps.exif_transpose(tagged)).transpose(2, 0, 1))


def test_unlike_pages_are_pictures_of_their_own_and_reduced_copies_are_none(tmp_path: Path):
    large, small = picture((40, 50)), picture((20, 25))
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for plane in (large, small, large[::-1]):
            writer.write(plane, metadata=None, contiguous=False)
    source = open_source(str(tmp_path / "a.tif"))
    assert [(i.axes, i.shape, i.name) for i in source.info.images] == [("zyx", (2, 40, 50), "0"), ("yx", (20, 25), "1")]
    assert_reads(source, np.stack([large, large[::-1]]))
    assert_reads(source, small, 1)
    assert_reads(open_source(str(tmp_path / "a.tif"), series=1), small)
    with pytest.raises(UsageError, match="2 pictures"):
        open_source(str(tmp_path / "a.tif"), series=2)
    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        writer.write(large, metadata=None)
        writer.write(small, metadata=None, subfiletype=1)
    assert_reads(open_source(str(tmp_path / "b.tif")), large)
    with tifffile.TiffWriter(tmp_path / "c.tif") as writer:
        writer.write(large, metadata=None, subifds=1, tile=(16, 16))
        writer.write(small, metadata=None, subfiletype=1, tile=(16, 16))
    assert_reads(open_source(str(tmp_path / "c.tif")), large)


def test_volumes_inside_a_page(tmp_path: Path):
    volume = picture((20, 40, 50), "u2")
    tifffile.imwrite(
        tmp_path / "a.tif", volume, tile=(4, 16, 16), volumetric=True, metadata=None, compression="deflate"
    )
    source = open_source(str(tmp_path / "a.tif"))
    assert source.info.preferred_chunk[0] == (4, 16, 16)
    assert_reads(source, volume)


def test_shape_that_tifffile_writes_into_its_files(tmp_path: Path):
    array = picture((2, 3, 20, 30), "u2")
    tifffile.imwrite(tmp_path / "a.tif", array, metadata={"axes": "TZYX"}, photometric="minisblack")
    assert open_source(str(tmp_path / "a.tif")).info.images[0].axes == "tzyx"
    assert_reads(open_source(str(tmp_path / "a.tif")), array)
    tifffile.imwrite(tmp_path / "b.tif", array, photometric="minisblack", truncate=True)
    with tifffile.TiffFile(tmp_path / "b.tif") as opened:
        assert len(opened.pages) == 1
    assert_reads(open_source(str(tmp_path / "b.tif")), array)


def test_axes_given_by_the_user_win(tmp_path: Path):
    array = picture((2, 3, 20, 30), "u2")
    tifffile.imwrite(tmp_path / "a.tif", array, metadata={"axes": "TZYX"}, photometric="minisblack")
    source = open_source(str(tmp_path / "a.tif"), axes="zcyx")
    assert source.info.images[0].axes == "czyx"
    assert_reads(source, array.transpose(1, 0, 2, 3))
    assert_reads(open_source(str(tmp_path / "a.tif"), axes="xyzt"), array.transpose(3, 2, 1, 0))
    for wrong in ("zyx", "zzyx", "tzcy", "1zyx"):
        with pytest.raises(UsageError, match=r"2x3x20x30|different letters"):
            open_source(str(tmp_path / "a.tif"), axes=wrong)


def test_resolution_is_dpi_for_pages_and_pixel_size_for_microscopes(tmp_path: Path):
    plane = picture((20, 30))
    tifffile.imwrite(tmp_path / "a.tif", plane, resolution=(118.11, 118.11), resolutionunit="CENTIMETER", metadata=None)
    image = open_source(str(tmp_path / "a.tif")).info.images[0]
    assert image.dpi == pytest.approx((300, 300), rel=1e-4)
    assert image.spacing_um == (None, None)
    tifffile.imwrite(tmp_path / "b.tif", plane, resolution=(20000, 40000), resolutionunit="CENTIMETER", metadata=None)
    image = open_source(str(tmp_path / "b.tif")).info.images[0]
    assert image.dpi is None
    assert image.spacing_um == pytest.approx((0.25, 0.5))


def test_complex_numbers_are_refused(tmp_path: Path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((20, 30), np.complex64))
    with pytest.raises(InputError, match="complex"):
        open_source(str(tmp_path / "a.tif"))


def test_segments_left_out_are_the_fill_value(tmp_path: Path):
    data = bytes(range(64)) * 4
    tags = grey_tags((16, 48), t278=("I", [16])) | {
        322: ("H", [16]), 323: ("H", [16]), 324: ("I", [16, 0, 16]), 325: ("I", [256, 0, 256]),
    }  # fmt: skip
    del tags[273], tags[279], tags[278]
    tiff_file(tmp_path / "a.tif", [tags], data)
    tile = np.frombuffer(data, np.uint8).reshape(16, 16)
    assert_reads(open_source(str(tmp_path / "a.tif")), np.concatenate([tile, np.zeros_like(tile), tile], axis=1))
    strips = grey_tags((15, 16), t278=("H", [3])) | {273: ("I", [16, 0, 16, 64, 0]), 279: ("I", [48, 0, 48, 48, 0])}
    tiff_file(tmp_path / "b.tif", [strips], data)
    rows = np.zeros((15, 16), np.uint8)
    rows[0:3], rows[6:9], rows[9:12] = tile[:3], tile[:3], tile[3:6]
    assert_reads(open_source(str(tmp_path / "b.tif")), rows, num_boxes=20)


def test_library_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    tags = grey_tags((16, 16), t339=("H", [1])) | {42113: ("s", b"nonsense\0")}
    tiff_file(tmp_path / "a.tif", [tags, tags], bytes(256))
    assert open_source(str(tmp_path / "a.tif")).info.images[0].shape == (2, 16, 16)
    assert capfd.readouterr() == ("", "")


def test_header_of_every_kind_is_understood(tmp_path: Path):
    plane = picture((16, 20))
    for is_big in (False, True):
        for order in "<>":
            tiff_file(tmp_path / "a.tif", [grey_tags((16, 20))] * 2, plane.tobytes(), is_big=is_big, order=order)
            assert_reads(open_source(str(tmp_path / "a.tif")), np.stack([plane, plane]))
            assert struct.unpack(order + "H", (tmp_path / "a.tif").read_bytes()[2:4])[0] == (43 if is_big else 42)
