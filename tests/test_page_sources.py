"""Pages out of TIFF files and pictures: every mode as grey or RGB on white, upright, with resolution and profile."""

import io
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

from tests.page_source_files import g4_bytes, text_page
from tests.sources_files import assert_reads, grey_tags, tiff_file
from unetctl.errors import InputError
from unetctl.geometry.box import Box
from unetctl.sources.page_files import find_pages, is_page_file, natural_key
from unetctl.sources.pages import PageSource, open_pages

GREY = text_page((61, 90))
COLOUR = np.dstack([GREY, GREY[::-1], 255 - GREY])
INK = GREY < 120
TWO = np.where(INK, np.uint8(0), np.uint8(255))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def whole(source: PageSource, i: int = 0) -> npt.NDArray[Any]:
    """All of a page."""
    return source.read(i, Box.whole(source.info.images[i].shape))


def channels_first(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def on_white(colours: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """As photographs of transparent sheets on white paper."""
    share = alpha[..., None] / 255.0 if colours.ndim == 3 else alpha / 255.0
    return np.rint(colours * share + 255 * (1 - share)).astype(np.uint8)


def saved(path: Path, image: Image.Image, **options: Any) -> PageSource:
    image.save(path, **options)
    return open_pages(str(path))


@pytest.mark.parametrize("compression", ["group4", "group3", "tiff_lzw", "packbits", "raw"])
def test_three_bilevel_pages_of_different_sizes(tmp_path: Path, compression: str):
    inks = [INK, INK[:40, ::-1], INK.T]
    first, *others = [Image.fromarray(~ink) for ink in inks]
    source = saved(
        tmp_path / "a.tif", first, save_all=True, append_images=others, compression=compression, dpi=(200, 300)
    )
    assert [image.name for image in source.info.images] == ["page-1", "page-2", "page-3"]
    for i, ink in enumerate(inks):
        origin = source.origins[i]
        assert (origin.kind, origin.is_bilevel, origin.rotation, origin.icc) == ("tiff", True, 1, None)
        assert source.info.images[i].dpi == origin.dpi == (300, 200)
        assert_reads(source, np.where(ink, np.uint8(0), np.uint8(255)), i)


def test_one_bit_with_white_as_zero_or_one_and_whatever_the_fill_order(tmp_path: Path):
    coded = g4_bytes(INK)
    height, width = INK.shape
    for photometric, expected in ((0, TWO), (1, 255 - TWO)):
        for fill, data in ((1, coded), (2, bytes(int(f"{b:08b}"[::-1], 2) for b in coded))):
            tags = grey_tags(
                (height, width), num_bytes=len(data), t258=("H", [1]), t259=("H", [4]),
                t262=("H", [photometric]), t266=("H", [fill]),
            )  # fmt: skip
            source = open_pages(str(tiff_file(tmp_path / "a.tif", [tags], data)))
            assert source.origins[0].is_bilevel
            np.testing.assert_array_equal(whole(source), expected)


def test_pages_of_unlike_modes_and_sizes_each_their_own(tmp_path: Path):
    path = tmp_path / "a.tif"
    deep = GREY.astype(np.uint16) * 257
    with tifffile.TiffWriter(path) as writer:
        options: dict[str, Any] = {"metadata": None, "resolution": (100, 50), "resolutionunit": "CENTIMETER"}
        writer.write(GREY, photometric="minisblack", **options)
        writer.write(GREY[::4, ::4], photometric="minisblack", subfiletype=1, **options)
        writer.write(
            COLOUR, photometric="rgb", compression="jpeg", compressionargs={"level": 100}, tile=(32, 32), **options
        )
        writer.write(COLOUR, photometric="rgb", planarconfig="contig", iccprofile=SRGB, **options)
        writer.write(deep, photometric="miniswhite", compression="deflate", rowsperstrip=7, **options)
        writer.write(~INK, photometric="minisblack", **options)
        writer.write(channels_first(COLOUR), photometric="rgb", planarconfig="separate", compression="lzw", **options)
    source = open_pages(str(path))
    assert len(source.origins) == 6
    assert any("1 smaller" in note for note in source.origins[0].notes)
    assert all(origin.dpi == pytest.approx((127, 254)) for origin in source.origins)
    assert_reads(source, GREY, 0)
    with tifffile.TiffFile(path) as opened:
        assert_reads(source, channels_first(opened.pages[2].asarray()), 1)
    assert source.info.preferred_chunk[1] == (3, 32, 32)
    assert_reads(source, channels_first(COLOUR), 2)
    assert source.origins[2].icc == SRGB
    assert_reads(source, 65535 - deep, 3)
    assert_reads(source, TWO, 4)
    assert source.origins[4].is_bilevel
    assert_reads(source, channels_first(COLOUR), 5)


def test_untagged_thumbnails_are_no_pages_but_small_slips_are(tmp_path: Path):
    page = text_page((600, 800))
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for pixels in (page, page[::6, ::6], page[:90, :40]):
            writer.write(pixels, metadata=None)
    shapes = [image.shape for image in open_pages(str(tmp_path / "a.tif")).info.images]
    assert shapes == [(600, 800), (90, 40)]


@pytest.mark.parametrize(("bits", "dtype"), [(2, np.uint8), (4, np.uint8), (12, np.uint16)])
def test_odd_numbers_of_bits_fill_their_range(tmp_path: Path, bits: int, dtype: Any):
    values = (GREY.astype(np.uint32) * ((1 << bits) - 1) // 255).astype(dtype)
    packed = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(*values.shape, 2), axis=-1)[..., 16 - bits :]
    rows = np.packbits(packed.reshape(values.shape[0], -1), axis=1)
    tags = grey_tags(values.shape, num_bytes=rows.size, t258=("H", [bits]))
    source = open_pages(str(tiff_file(tmp_path / "a.tif", [tags], rows.tobytes())))
    image = source.info.images[0]
    largest = np.iinfo(dtype).max
    assert image.dtype == dtype
    np.testing.assert_array_equal(whole(source), np.floor(values * (largest / ((1 << bits) - 1)) + 0.5))


@pytest.mark.parametrize("code", range(1, 9))
def test_orientation_and_resolution_go_upright_together(tmp_path: Path, code: int):
    image = Image.fromarray(COLOUR)
    exif = image.getexif()
    exif[274] = code
    jpeg = saved(tmp_path / "a.jpg", image, exif=exif, dpi=(100, 200), quality=95)
    png = saved(tmp_path / "a.png", image, exif=exif, dpi=(100, 200))
    tags = {274: code, 282: 100.0, 283: 200.0, 296: 2}
    tiff = saved(tmp_path / "a.tif", image, tiffinfo=tags)
    for source in (jpeg, png, tiff):
        assert source.origins[0].rotation == code
        assert source.origins[0].dpi == pytest.approx((200, 100) if code < 5 else (100, 200), rel=1e-3)
        assert any("upright" in note for note in source.origins[0].notes) == (code != 1)
    with Image.open(tmp_path / "a.jpg") as opened:
        assert_reads(jpeg, channels_first(np.asarray(ImageOps.exif_transpose(opened))))
    with Image.open(tmp_path / "a.png") as opened:
        upright = channels_first(np.asarray(ImageOps.exif_transpose(opened)))
    assert_reads(png, upright)
    assert_reads(tiff, upright)


def test_alpha_lies_on_white(tmp_path: Path):
    alpha = np.tile(np.linspace(0, 255, 90).astype(np.uint8), (61, 1))
    expected = channels_first(on_white(COLOUR, alpha))
    sheet = Image.fromarray(np.dstack([COLOUR, alpha]))
    for name, options in (("a.png", {}), ("a.webp", {"lossless": True, "exact": True}), ("a.tif", {})):
        source = saved(tmp_path / name, sheet, **options)
        assert "transparent places are white" in source.origins[0].notes
        assert_reads(source, expected)
    grey = np.dstack([GREY, alpha])
    assert_reads(saved(tmp_path / "b.png", Image.fromarray(grey)), on_white(GREY, alpha))
    kept = COLOUR * (alpha[..., None] // 255)
    tifffile.imwrite(
        tmp_path / "c.tif",
        np.dstack([kept, alpha // 255 * 255]),
        photometric="rgb",
        extrasamples=["assocalpha"],
        metadata=None,
    )
    assert_reads(
        open_pages(str(tmp_path / "c.tif")),
        channels_first(np.where(alpha[..., None] == 255, COLOUR, 255)).astype(np.uint8),
    )
    keyed = saved(tmp_path / "d.png", Image.fromarray(GREY), transparency=20)
    assert_reads(keyed, np.where(GREY == 20, np.uint8(255), GREY))
    keyed = saved(tmp_path / "e.png", Image.fromarray(COLOUR), transparency=tuple(int(v) for v in COLOUR[5, 5]))
    assert_reads(keyed, channels_first(np.where((COLOUR[5, 5] == COLOUR).all(-1)[..., None], np.uint8(255), COLOUR)))
    more = np.dstack([GREY, GREY // 2])
    tifffile.imwrite(tmp_path / "f.tif", more, photometric="minisblack", extrasamples=[0], metadata=None)
    source = open_pages(str(tmp_path / "f.tif"))
    assert_reads(source, GREY)
    assert "1 samples beside the colours left out" in source.origins[0].notes


def test_inks_tables_and_lab(tmp_path: Path):
    inks = Image.fromarray(np.dstack([COLOUR, GREY // 2]), "CMYK")
    expected = np.asarray(inks.convert("RGB")).astype(int)
    for name in ("a.tif", "a.jpg"):
        source = saved(tmp_path / name, inks, **({"quality": 100, "subsampling": 0} if name == "a.jpg" else {}))
        assert any("RGB" in note for note in source.origins[0].notes)
        assert np.abs(whole(source) - channels_first(expected)).max() < 12
    table = Image.fromarray(COLOUR).quantize(9)
    for name in ("a.tif", "a.png", "a.bmp", "a.gif"):
        assert_reads(saved(tmp_path / name, table), channels_first(np.asarray(table.convert("RGB"))))
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )  # fmt: skip
    soft = np.dstack([GREY, GREY // 2 + 60, 255 - GREY // 2])
    lab = ImageCms.applyTransform(Image.fromarray(soft), to_lab)
    assert lab is not None
    source = saved(tmp_path / "lab.tif", lab)
    assert source.origins[0].notes == ("CIE L*a*b* turned into RGB",)
    assert np.abs(whole(source).astype(int) - channels_first(soft)).max() < 12


def test_one_bit_pictures(tmp_path: Path):
    for name in ("a.png", "a.bmp", "a.pbm", "a.tif"):
        source = saved(tmp_path / name, Image.fromarray(~INK))
        assert source.origins[0].is_bilevel
        assert_reads(source, TWO)
    assert not saved(tmp_path / "b.png", Image.fromarray(GREY)).origins[0].is_bilevel


def test_profiles_and_resolution_of_pictures(tmp_path: Path):
    for name in ("a.png", "a.jpg", "a.webp"):
        source = saved(tmp_path / name, Image.fromarray(COLOUR), icc_profile=SRGB)
        assert (source.origins[0].icc, source.origins[0].dpi) == (SRGB, None)
        assert source.origins[0].kind == {"jpg": "jpeg"}.get(name[2:], name[2:])
    # a profile of colours does not hold for a page that is grey, nor for a colour table
    assert saved(tmp_path / "b.png", Image.fromarray(GREY), icc_profile=SRGB).origins[0].icc is None
    exif = Image.Exif()
    exif[282], exif[283], exif[296] = 100.0, 50.0, 3
    assert saved(tmp_path / "c.webp", Image.fromarray(GREY), exif=exif).origins[0].dpi == pytest.approx((127, 254))
    deep = saved(tmp_path / "d.png", Image.fromarray(GREY.astype(np.uint16) * 257), dpi=(600, 600))
    assert deep.origins[0].dpi == pytest.approx((600, 600), rel=1e-3)
    assert_reads(deep, GREY.astype(np.uint16) * 257)
    jp2 = saved(tmp_path / "e.jp2", Image.fromarray(COLOUR))
    assert jp2.origins[0].kind == "jpeg2000"
    assert_reads(jp2, channels_first(COLOUR))


def test_what_has_no_black_and_white_or_is_no_page_is_refused(tmp_path: Path):
    def refused(path: Path, match: str, **options: Any) -> None:
        with pytest.raises(InputError, match=match) as caught:
            whole(open_pages(str(path), **options))
        assert "\n" not in str(caught.value)

    for dtype in ("f4", "i2", "u4"):
        tifffile.imwrite(tmp_path / "a.tif", GREY.astype(dtype))
        refused(tmp_path / "a.tif", "8 or 16 bits")
    np.save(tmp_path / "a.npy", GREY)
    refused(tmp_path / "a.npy", "not pages")
    refused(tmp_path, "no file")
    refused(tmp_path / "missing.png", "cannot be found")
    Image.fromarray(GREY).save(tmp_path / "b.png")
    data = (tmp_path / "b.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    refused(tmp_path / "cut.png", "cut off or damaged")
    refused(tmp_path / "b.png", "5490 bytes.*at most 5000", max_bytes=5000)
    (tmp_path / "empty.png").write_bytes(b"")
    refused(tmp_path / "empty.png", "is empty")
    Image.fromarray(~INK).save(tmp_path / "c.tif", compression="group4")
    coded = (tmp_path / "c.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(coded[: len(coded) // 2])
    refused(tmp_path / "cut.tif", "cut off|damaged")


def test_a_box_of_a_tiled_page_costs_its_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from unetctl.sources.files import RandomAccessFile

    page = np.random.default_rng(0).integers(0, 255, (2048, 2048), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(page, tile=(256, 256), compression="deflate", metadata=None)
    source = open_pages(str(tmp_path / "a.tif"))
    assert source.info.preferred_chunk == ((256, 256),)
    num_bytes = 0
    read_at = RandomAccessFile.read_at

    def counted(self: RandomAccessFile, offset: int, length: int) -> bytes:
        nonlocal num_bytes
        num_bytes += length
        return read_at(self, offset, length)

    monkeypatch.setattr(RandomAccessFile, "read_at", counted)
    np.testing.assert_array_equal(source.read(0, Box((300, 300), (400, 500))), page[300:400, 300:500])
    assert num_bytes < 80_000


def test_threads_read_the_same_pixels(tmp_path: Path):
    first, *others = [Image.fromarray(np.roll(~INK, k, axis=0)) for k in range(8)]
    source = saved(tmp_path / "a.tif", first, save_all=True, append_images=others, compression="group4")
    found: dict[int, npt.NDArray[Any]] = {}
    threads = [
        threading.Thread(target=lambda k=k: found.update({i: whole(source, i) for i in range(k, 8, 4)}))
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(8):
        np.testing.assert_array_equal(found[k], np.roll(TWO, k, axis=0))


def test_folders_are_listed_in_the_order_of_numbers(tmp_path: Path):
    for name in ("page10.png", "page2.png", "Page1.png", "b/x.png", "b/deep/y.png", ".hidden/z.png", ".z.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(GREY).save(path)
    Image.fromarray(GREY).save(tmp_path / "no extension", "PNG")
    (tmp_path / "notes.txt").write_text("no page")
    (tmp_path / "Thumbs.db").write_bytes(bytes(100))
    (tmp_path / "broken.tif").write_bytes(b"")
    (tmp_path / "a.pdf").write_bytes(b"\n\n%PDF-1.7 ...")
    (tmp_path / "out.tif.run").mkdir()
    Image.fromarray(GREY).save(tmp_path / "out.tif.run" / "inside.png")
    (tmp_path / "b" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "itself.png").symlink_to(tmp_path / "itself.png")
    names = [p.relative_to(tmp_path).as_posix() for p in find_pages(tmp_path)]
    assert names == ["a.pdf", "broken.tif", "itself.png", "no extension", "Page1.png", "page2.png", "page10.png"]
    names = [p.relative_to(tmp_path).as_posix() for p in find_pages(tmp_path, recursive=True)]
    assert names[-2:] == ["b/x.png", "b/deep/y.png"]
    assert len(names) == 9
    assert find_pages(tmp_path / "page2.png") == [tmp_path / "page2.png"]
    with pytest.raises(InputError, match="cannot be found"):
        find_pages(tmp_path / "missing")
    assert is_page_file(os.path.join(tmp_path, "no extension"))
    assert sorted(["a10", "a9", "A1b", "a"], key=natural_key) == ["a", "A1b", "a9", "a10"]


def test_damage_never_surfaces_as_another_exception(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    stream = io.BytesIO()
    first, *others = [Image.fromarray(~INK), Image.fromarray(COLOUR), Image.fromarray(GREY)]
    first.save(stream, "TIFF", save_all=True, append_images=others, compression="tiff_lzw")
    sound = stream.getvalue()
    rng = np.random.default_rng(5)
    path, num_read = tmp_path / "a.tif", 0
    for i in range(80):
        out = bytearray(sound)
        if i % 4 == 0:
            out = out[: rng.integers(1, len(out))]
        for _ in range(6 if i % 4 else 0):
            out[int(rng.integers(0, len(out)))] = int(rng.integers(0, 256))
        path.write_bytes(bytes(out))
        try:
            source = open_pages(str(path), max_bytes=1 << 22)
            for k in range(len(source.info.images)):
                whole(source, k)
            source.close()
            num_read += 1
        except InputError:
            pass
    assert 0 < num_read < 80
    assert capfd.readouterr() == ("", "")
