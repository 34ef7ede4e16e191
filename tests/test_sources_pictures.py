"""Single pictures through Pillow, and folders of them as stacks."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from tests.sources_files import assert_reads, picture
from unetctl.errors import InputError, UsageError
from unetctl.geometry.box import Box
from unetctl.sources.formats import FORMATS
from unetctl.sources.open import is_picture, open_source
from unetctl.sources.slices import gap_notes, natural_key


def saved(path: Path, image: Image.Image, **options: Any) -> str:
    """Saves and returns the path as text."""
    image.save(path, **options)
    return str(path)


GREY, COLOUR = picture((31, 44)), picture((31, 44, 3))


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp", "a.ppm", "a.pcx", "a.jp2", "a.sgi", "a.tif"])
def test_lossless_pictures(tmp_path: Path, name: str):
    options = {"lossless": True} if name == "a.webp" else {}
    source = open_source(saved(tmp_path / name, Image.fromarray(COLOUR), **options))
    assert (source.info.images[0].axes, source.info.images[0].is_rgb) == ("cyx", True)
    assert_reads(source, COLOUR.transpose(2, 0, 1))
    if name != "a.webp":
        assert_reads(open_source(saved(tmp_path / name, Image.fromarray(GREY))), GREY)


def test_content_decides_before_the_extension(tmp_path: Path):
    path = tmp_path / "really-a-png.tif"
    Image.fromarray(GREY).save(path, "PNG")
    assert open_source(str(path)).info.format == "PNG"
    assert_reads(open_source(str(path)), GREY)


def test_palettes_bits_and_alpha(tmp_path: Path):
    palette = Image.fromarray(COLOUR).quantize(17)
    expected = np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    for name in ("a.png", "a.gif", "a.bmp"):
        assert_reads(open_source(saved(tmp_path / name, palette)), expected)
    grey = Image.fromarray(GREY, "P")
    grey.putpalette([v for i in range(256) for v in (255 - i,) * 3])
    assert_reads(open_source(saved(tmp_path / "a.png", grey)), 255 - GREY)
    mask = GREY > 100
    assert_reads(open_source(saved(tmp_path / "a.png", Image.fromarray(mask))), mask.astype(np.uint8) * np.uint8(255))
    alpha = np.dstack([COLOUR, GREY])
    source = open_source(saved(tmp_path / "a.png", Image.fromarray(alpha)))
    assert (source.info.images[0].num_channels, source.info.images[0].is_rgb) == (4, True)
    assert_reads(source, alpha.transpose(2, 0, 1))
    source = open_source(saved(tmp_path / "a.png", Image.fromarray(np.dstack([GREY, GREY]))))
    assert (source.info.images[0].channel_names, source.info.images[0].is_rgb) == (("grey", "alpha"), False)


@pytest.mark.parametrize("num_samples", [1, 2, 3, 4])
def test_sixteen_bits_stay(tmp_path: Path, num_samples: int):
    plane = picture((31, 44, num_samples), "u2")
    stored = plane[..., 0] if num_samples == 1 else plane
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(stored))
    source = open_source(str(tmp_path / "a.png"))
    assert_reads(source, stored if num_samples == 1 else plane.transpose(2, 0, 1))
    if num_samples == 1:
        (tmp_path / "a.pgm").write_bytes(b"P5 44 31 65535\n" + plane.astype(">u2").tobytes())
        assert_reads(open_source(str(tmp_path / "a.pgm")), stored)


def test_inks_become_rgb(tmp_path: Path):
    inks = Image.fromarray(picture((31, 44, 4)), "CMYK")
    path = saved(tmp_path / "a.jpg", inks, quality=100)
    source = open_source(path)
    assert "CMYK" in source.info.images[0].notes[0]
    with Image.open(path) as image:
        assert_reads(source, np.asarray(image.convert("RGB")).transpose(2, 0, 1))


@pytest.mark.parametrize("code", range(1, 9))
def test_exif_turns_upright(tmp_path: Path, code: int):
    image = Image.fromarray(COLOUR)
    exif = image.getexif()
    exif[274] = code
    path = saved(tmp_path / "a.png", image, exif=exif, dpi=(100, 200))
    source = open_source(path)
    with Image.open(path) as tagged:
        upright = np.asarray(ImageOps.exif_transpose(tagged)).transpose(2, 0, 1)
    assert any("upright" in note for note in source.info.images[0].notes) == (code != 1)
    assert source.info.images[0].dpi == pytest.approx((200, 100) if code < 5 else (100, 200), rel=1e-3)
    assert_reads(source, upright)


def test_exif_behind_the_pixels_of_a_png(tmp_path: Path):
    image = Image.fromarray(COLOUR)
    exif = image.getexif()
    exif[274] = 6
    data = Path(saved(tmp_path / "a.png", image, exif=exif)).read_bytes()
    at = data.index(b"eXIf") - 4
    size = 12 + int.from_bytes(data[at : at + 4], "big")
    (tmp_path / "a.png").write_bytes(data[:at] + data[at + size : -12] + data[at : at + size] + data[-12:])
    assert_reads(open_source(str(tmp_path / "a.png")), np.rot90(COLOUR, -1).transpose(2, 0, 1))


def test_only_the_first_frame_and_said(tmp_path: Path):
    frames = [Image.fromarray(picture((31, 44), seed=i)) for i in range(3)]
    source = open_source(saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:]))
    assert "the first of 3 frames is read" in source.info.images[0].notes
    assert source.info.images[0].spatial_axes == "yx"


def test_sizes_beyond_the_limit_are_refused_before_decoding(tmp_path: Path):
    path = saved(tmp_path / "a.png", Image.fromarray(COLOUR))
    with pytest.raises(InputError, match=r"44 x 31 pixels .4092 bytes.*at most 4000"):
        open_source(path, max_bytes=4000)
    assert_reads(open_source(path, max_bytes=5000), COLOUR.transpose(2, 0, 1))
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = struct.pack(">II", 2_000_000, 1_000_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(InputError, match="2000000 x 1000000"):
        open_source(path)


def test_cut_off_pictures_are_refused(tmp_path: Path):
    stream = io.BytesIO()
    Image.fromarray(COLOUR).save(stream, "JPEG")
    (tmp_path / "a.jpg").write_bytes(stream.getvalue()[:-200])
    with pytest.raises(InputError, match="cut off or damaged"):
        open_source(str(tmp_path / "a.jpg")).read(0, Box.whole((3, 31, 44)))


def stack_folder(folder: Path, numbers: list[int], suffix: str = ".png") -> np.ndarray[Any, Any]:
    """Slices named s1, s2, ... s10; returns them in the order of their numbers."""
    folder.mkdir(exist_ok=True)
    planes = [picture((31, 44), seed=i) for i in numbers]
    for i, plane in zip(numbers, planes, strict=True):
        if suffix == ".tif":
            tifffile.imwrite(folder / f"s{i}.tif", plane)
        else:
            Image.fromarray(plane).save(folder / f"s{i}{suffix}")
    return np.stack(planes)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_folder_is_a_stack_in_natural_order(tmp_path: Path, suffix: str):
    stack = stack_folder(tmp_path / "in", list(range(1, 13)), suffix)
    source = open_source(str(tmp_path / "in"))
    assert source.info.images[0].axes == "zyx"
    assert source.info.images[0].notes == ()
    assert source.info.preferred_chunk == ((1, 31, 44),)
    assert_reads(source, stack)
    assert_reads(open_source(str(tmp_path / "in" / "s1?.*")), stack[9:])
    assert_reads(open_source(str(tmp_path / "in"), axes="tyx"), stack)
    source.close()
    with pytest.raises(UsageError, match="12x31x44"):
        open_source(str(tmp_path / "in"), axes="yx")


def test_folder_of_colour_slices(tmp_path: Path):
    planes = [picture((31, 44, 3), seed=i) for i in range(3)]
    for i, plane in enumerate(planes):
        Image.fromarray(plane).save(tmp_path / f"{i}.png")
    source = open_source(str(tmp_path))
    assert (source.info.images[0].axes, source.info.images[0].is_rgb) == ("czyx", True)
    assert_reads(source, np.stack(planes).transpose(3, 0, 1, 2))


def test_gaps_strangers_and_unequal_slices_are_named(tmp_path: Path):
    folder = tmp_path / "in"
    stack = stack_folder(folder, [1, 2, 5, 6, 9])
    for name in ("Thumbs.db", "notes.txt", ".hidden.png"):
        (folder / name).write_bytes(b"not a picture")
    (folder / "more").mkdir()
    source = open_source(str(folder))
    assert any("3, 4, 7, 8" in note for note in source.info.images[0].notes)
    assert any("2 files" in note and "Thumbs.db" in note for note in source.info.images[0].notes)
    assert_reads(source, stack)
    before = source.info.identity
    Image.fromarray(picture((31, 44), seed=99)).save(folder / "s6.png")
    assert open_source(str(folder)).info.identity != before
    Image.fromarray(picture((31, 45))).save(folder / "s5.png")
    with pytest.raises(InputError, match=r"s5.png is 31 x 45 .*expected 31 x 44 .* as s1.png"):
        open_source(str(folder))
    tifffile.imwrite(folder / "s5.png", stack, metadata=None, photometric="minisblack")
    with pytest.raises(InputError, match=r"s5.png has axes zyx"):
        open_source(str(folder))
    (folder / "s5.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"s5.png cannot be decoded"):
        open_source(str(folder))


def test_numbers_in_names():
    assert sorted(["s10", "s9", "S1", "a2"], key=natural_key) == ["a2", "S1", "s9", "s10"]
    assert gap_notes(["a1_c0.tif", "a2_c0.tif", "a3_c0.tif"]) == []
    assert gap_notes(["a.tif", "b.tif"]) == []
    assert gap_notes(["2019-s1", "2020-s2"]) == []
    [note] = gap_notes(["s1", "s100001"])
    assert "2, 3, 4, 5, 6, 7, 8, 9 and 99991 more" in note


def test_table_of_formats_and_cheap_check(tmp_path: Path):
    assert all(row.name and row.what for row in FORMATS)
    assert {".tif", ".ome.zarr", ".png", ".npy", ".mrc", ".h5"} <= {e for row in FORMATS for e in row.extensions}
    saved(tmp_path / "a.png", Image.fromarray(GREY))
    (tmp_path / "b.png").write_bytes(b"hello, I am text")
    assert is_picture(str(tmp_path / "a.png"))
    assert not is_picture(str(tmp_path / "b.png"))
    assert not is_picture(str(tmp_path))


def test_restriction_to_a_channel(tmp_path: Path):
    path = saved(tmp_path / "a.png", Image.fromarray(COLOUR))
    source = open_source(path, channel=1)
    assert (source.info.images[0].axes, source.info.images[0].is_rgb) == ("yx", False)
    assert source.info.preferred_chunk == ((31, 44),)
    assert_reads(source, COLOUR[..., 1])
    assert source.info.identity != open_source(path).info.identity
    assert open_source(path, channel="1").info.images == source.info.images
    for wrong in (3, -1, "red"):
        with pytest.raises(UsageError, match="--channel"):
            open_source(path, channel=wrong)
    with pytest.raises(UsageError, match="1 time points"):
        open_source(path, time=1)
    assert_reads(open_source(path, time=0, series=0), COLOUR.transpose(2, 0, 1))
