"""Pages as TIFF and PNG files, and what holds for every kind: pixels, resolution, same bytes, all or nothing."""

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from tests.page_sink_files import pdf_pixels
from unetctl.errors import ResourceError
from unetctl.sinks import page_tiff, pages
from unetctl.sinks.disk import sha256_of
from unetctl.sinks.pages import KINDS, Page, assemble, encode_page, page_kind_for

MODES = [("?", ()), ("u1", ()), ("u1", (3,)), ("u2", ()), ("u2", (3,))]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
#: Kinds that keep every page exactly; GIF has 256 colours (`tests.test_pages_film`).
EXACT = tuple(kind for kind in KINDS if kind != "gif")
sizes = st.integers(1, 70)


def noise(height: int, width: int, mode: tuple[str, tuple[int, ...]] = ("?", ()), seed: int = 0) -> npt.NDArray[Any]:
    dtype, samples = mode
    values = np.random.default_rng(seed).integers(0, 2**16, (height, width, *samples))
    return values % 3 == 0 if dtype == "?" else values.astype(dtype)


def as_read(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What an image file shows: 0 where ink is."""
    return ~pixels if pixels.dtype == bool else pixels


def read_tiff(file: Path | bytes) -> list[npt.NDArray[Any]]:
    with tifffile.TiffFile(file if isinstance(file, Path) else io.BytesIO(file)) as tiff:
        return [np.asarray(p.asarray()) for p in tiff.pages]


def read_png(file: bytes) -> npt.NDArray[Any]:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image) if image.mode == "1" else np.asarray(imagecodecs.png_decode(file))


def decoded(file: bytes, kind: str) -> npt.NDArray[Any]:
    """Pixels as an independent reader of the format sees them."""
    if kind == "png":
        return read_png(file)
    if kind == "pdf":
        return pdf_pixels(io.BytesIO(file))[0]
    pixels = read_tiff(file)[0]
    return ~pixels if pixels.dtype == bool else pixels  # tifffile gives bits as they are stored: WhiteIsZero


@pytest.mark.parametrize("kind", EXACT)
@settings(max_examples=40)
@given(height=sizes, width=sizes, mode=st.sampled_from(MODES), seed=st.integers(0, 9))
def test_a_page_comes_back_as_it_went_in(kind: str, height: int, width: int, mode: Any, seed: int):
    pixels = noise(height, width, mode, seed)
    found = decoded(encode_page(Page(pixels, (300, 300)), kind), kind)
    assert found.dtype == as_read(pixels).dtype
    np.testing.assert_array_equal(found, as_read(pixels))


@pytest.mark.parametrize("make", [np.zeros, np.ones])
@pytest.mark.parametrize("kind", EXACT)
def test_blank_and_black_pages(kind: str, make: Callable[..., npt.NDArray[np.bool_]]):
    pixels = make((50, 33), dtype=bool)
    np.testing.assert_array_equal(decoded(encode_page(Page(pixels, None), kind), kind), ~pixels)


def test_ink_is_black_in_a_tiff_for_who_reads_by_the_tag_and_for_who_does_not():
    pixels = noise(40, 61)
    file = encode_page(Page(pixels, (300, 300)), "tiff")
    with Image.open(io.BytesIO(file)) as image:
        assert image.mode == "1"
        np.testing.assert_array_equal(np.asarray(image), ~pixels)
    with tifffile.TiffFile(io.BytesIO(file)) as tiff:
        tags = {tag.name: tag.value for tag in tiff.pages.first.tags}
        strips = tiff.pages.first.databytecounts
    assert tags["Compression"] == tifffile.COMPRESSION.CCITT_T6
    assert tags["PhotometricInterpretation"] == tifffile.PHOTOMETRIC.MINISWHITE
    assert (tags["FillOrder"], tags["Orientation"], tags["RowsPerStrip"], len(strips)) == (1, 1, 40, 1)


def test_views_flipped_and_turned_and_of_another_byte_order_are_written_as_seen():
    for pixels in (noise(20, 31)[::-1, ::-1].T, noise(20, 31, ("u2", (3,)))[::-1, ::2], noise(9, 9, (">u2", ()))):
        for kind in EXACT:
            np.testing.assert_array_equal(decoded(encode_page(Page(pixels, None), kind), kind), as_read(pixels))


def test_large_pages_are_cut_into_bands(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(page_tiff, "_G4_STRIP_BYTES", 100)
    monkeypatch.setattr(page_tiff, "_STRIP_BYTES", 1000)
    monkeypatch.setattr("unetctl.sinks.page_png._BAND_BYTES", 100)
    for mode in MODES:
        pixels = noise(57, 83, mode)
        for kind in EXACT:
            np.testing.assert_array_equal(decoded(encode_page(Page(pixels, None), kind), kind), as_read(pixels))
    with tifffile.TiffFile(io.BytesIO(encode_page(Page(noise(57, 83), None), "tiff"))) as tiff:
        assert len(tiff.pages.first.databytecounts) == 7


@settings(max_examples=40)
@given(y=st.floats(1, 5000), x=st.floats(1, 5000))
def test_the_resolution_is_kept_to_rounding(y: float, x: float):
    page = Page(noise(3, 5), (y, x))
    with tifffile.TiffFile(io.BytesIO(encode_page(page, "tiff"))) as tiff:
        first = tiff.pages.first
        assert first.get_resolution("inch") == pytest.approx((x, y), rel=1e-4)
    with Image.open(io.BytesIO(encode_page(page, "png"))) as image:
        assert image.info["dpi"] == pytest.approx((x, y), abs=0.0128)  # whole pixels a metre


@pytest.mark.parametrize("dpi", [None, (0.0, 0.0), (300.0, float("nan")), (float("inf"), 300.0), (-1.0, 300.0)])
def test_a_resolution_that_makes_no_sense_is_not_written(dpi: tuple[float, float] | None):
    page = Page(noise(3, 5), dpi)
    with tifffile.TiffFile(io.BytesIO(encode_page(page, "tiff"))) as tiff:
        assert "XResolution" not in tiff.pages.first.tags
    with Image.open(io.BytesIO(encode_page(page, "png"))) as image:
        assert "dpi" not in image.info


@pytest.mark.parametrize("mode", MODES)
def test_a_colour_profile_is_kept_where_it_fits(mode: Any):
    page = Page(noise(8, 9, mode), None, SRGB)
    fits = SRGB if mode[1] else None
    with tifffile.TiffFile(io.BytesIO(encode_page(page, "tiff"))) as tiff:
        assert tiff.pages.first.iccprofile == fits
    chunks = dict(page_png_chunks(encode_page(page, "png")))
    assert (b"iCCP" in chunks) == (fits is not None)


def page_png_chunks(file: bytes) -> list[tuple[bytes, bytes]]:
    from unetctl.sinks.page_png import chunks_of

    return list(chunks_of(io.BytesIO(file)))


@pytest.mark.parametrize("pixels", [np.zeros((0, 5), bool), np.zeros((5, 5), float), np.zeros((5, 5, 4), "u1")])
def test_pixels_that_are_no_page_are_refused(pixels: npt.NDArray[Any]):
    with pytest.raises(ValueError, match="a page has"):
        Page(pixels, None)


def test_kinds_follow_the_origin_unless_one_is_wanted():
    assert [page_kind_for(kind, True, None, 1) for kind in ("tiff", "pdf", "jpeg", "jpeg2000")] == [
        "tiff",
        "pdf",
        "png",
        "png",
    ]
    assert page_kind_for("gif", False, None, 7) == "gif"
    assert page_kind_for("webp", False, None, 7) == "tiff"
    assert page_kind_for("pdf", True, "png", 7) == "png"
    assert (page_kind_for("npy", True, None, 1), page_kind_for("npy", False, None, 1)) == ("tiff", "png")
    with pytest.raises(ValueError, match="written as"):
        page_kind_for("tiff", True, "bmp", 1)


# -- joining


@pytest.mark.parametrize("is_big", [False, True])
def test_pages_are_joined_to_a_tiff_by_copying_their_strips(
    tmp_path: Path, is_big: bool, monkeypatch: pytest.MonkeyPatch
):
    if is_big:
        monkeypatch.setattr(page_tiff, "CLASSIC_BYTES", 1000)
    originals = [noise(30 + 7 * i, 41 + i, MODES[i % 5], i) for i in range(12)]
    encoded: list[Path | bytes] = []
    for i, pixels in enumerate(originals):
        one = encode_page(Page(pixels, (300 + i, 200 + i), SRGB), "tiff")
        encoded.append(one)
        if i % 2:
            (tmp_path / f"{i}.tif").write_bytes(one)
            encoded[-1] = tmp_path / f"{i}.tif"
    record = assemble(tmp_path / "deep" / "all.tif", "tiff", encoded, provenance="unetctl 1 µ")
    assert (record.num_pages, record.num_bytes) == (12, record.path.stat().st_size)
    assert record.sha256 == sha256_of(record.path)
    with tifffile.TiffFile(record.path) as tiff:
        assert tiff.is_bigtiff == is_big
        for i, (page, pixels) in enumerate(zip(tiff.pages, originals, strict=True)):
            assert isinstance(page, tifffile.TiffPage)
            np.testing.assert_array_equal(page.asarray(), pixels)
            assert page.get_resolution("inch") == pytest.approx((200 + i, 300 + i))
            assert page.tags["PageNumber"].value == (i, 12)
            assert page.tags["Software"].value == "unetctl 1 ?"
            assert page.iccprofile == (SRGB if pixels.ndim == 3 else None)
    with Image.open(record.path) as image:
        assert getattr(image, "n_frames", 1) == 12


def test_a_png_is_copied_with_its_provenance(tmp_path: Path):
    one = encode_page(Page(noise(30, 41), (300, 300)), "png")
    assert assemble(tmp_path / "a.png", "png", [one]).path.read_bytes() == one
    with Image.open(assemble(tmp_path / "b.png", "png", [one], provenance="unetctl 1").path) as image:
        assert image.info["Software"] == "unetctl 1"
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.02)
        np.testing.assert_array_equal(np.asarray(image), ~noise(30, 41))


def test_what_no_file_can_hold_is_the_callers_mistake(tmp_path: Path):
    one = encode_page(Page(noise(3, 4), None), "png")
    for wrong in (
        lambda: assemble(tmp_path / "a.png", "png", [one, one]),
        lambda: assemble(tmp_path / "a.tif", "tiff", []),
        lambda: assemble(tmp_path / "a.tif", "tiff", [one], original=tmp_path / "a.pdf"),
        lambda: assemble(tmp_path / "a.bmp", "bmp", [one]),
        lambda: encode_page(Page(noise(3, 4), None), "bmp"),
    ):
        with pytest.raises(ValueError, match=r"page|PDF"):
            wrong()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_same_pages_give_the_same_bytes_under_any_name(tmp_path: Path, kind: str):
    def made(name: str) -> bytes:
        encoded = [encode_page(Page(noise(33, 44, mode), (300, 300), SRGB), kind) for mode in MODES]
        return assemble(tmp_path / name, kind, encoded[:1] if kind == "png" else encoded).path.read_bytes()

    assert made("a") == made("other")


# -- all or nothing


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_stood_there_stays_until_the_new_one_is_whole(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
):
    target = tmp_path / "a"
    target.write_bytes(b"old")
    (tmp_path / ".a.partial").write_bytes(b"what a killed process has left" * 10_000)
    (tmp_path / ".a.pages").mkdir()
    (tmp_path / ".a.pages" / "0.pdf").write_bytes(b"as well")
    encoded = [encode_page(Page(noise(33, 44), None), kind)]

    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(ResourceError, match="no space left"):
            assemble(target, kind, encoded)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert assemble(target, kind, encoded).num_bytes == target.stat().st_size > 3
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


class FullDisk(io.FileIO):
    """A file on a disk with room for so many bytes."""

    room = 0

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_a_disk_that_fills_up_in_the_middle_is_said_and_leaves_nothing(
    tmp_path: Path, kind: str, share: float, monkeypatch: pytest.MonkeyPatch
):
    encoded = [encode_page(Page(noise(100, 440), None), kind)]
    FullDisk.room = int(share * len(encoded[0]))
    plain = Path.open

    def opened(self: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        return FullDisk(self, "w+b") if self.name.endswith(".partial") else plain(self, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(ResourceError, match="no space left"):
        assemble(tmp_path / "a", kind, encoded)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoded_page_that_is_cut_short_is_said_and_leaves_nothing(tmp_path: Path, kind: str):
    one = encode_page(Page(noise(100, 440), None), kind)
    for broken in (one[: len(one) // 2], b"", b"nothing like it" * 100):
        with pytest.raises(ResourceError, match="cannot be made"):
            assemble(tmp_path / "a", kind, [broken])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_back_must_be_what_was_written(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    """A file cut after it was written, as broken file systems do, is never renamed."""

    def cut(file: Any) -> None:
        file.truncate(file.seek(0, io.SEEK_END) - 60)

    monkeypatch.setattr(pages, "_flush", cut)
    with pytest.raises(ResourceError, match="cannot be made"):
        assemble(tmp_path / "a", kind, [encode_page(Page(noise(100, 440), None), kind)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_names_as_long_as_the_file_system_allows(tmp_path: Path, kind: str):
    target = tmp_path / ("ä" * 125 + ".tif")
    assert assemble(target, kind, [encode_page(Page(noise(10, 10), None), kind)]).path == target
    assert list(tmp_path.iterdir()) == [target]
