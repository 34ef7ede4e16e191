"""Damaged and lying files: one clear InputError, at once, without memory for what a header merely declares."""

import io
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from tests.sources_files import grey_tags, ome_image, ome_xml, picture, tiff_file
from unetctl.errors import InputError
from unetctl.geometry.box import Box
from unetctl.sources.open import is_picture, open_source

BIG = 1 << 20


def read_everything(path: Path) -> None:
    """Opens a file and reads all of its pictures, a bounded part of each."""
    source = open_source(str(path), max_bytes=BIG)
    for i, image in enumerate(source.info.images):
        if np.prod(image.shape, dtype=object) <= BIG:
            source.read(i, Box.whole(image.shape))
        source.read(i, Box(tuple(n - 1 for n in image.shape), image.shape))
    source.close()


def refused(path: Path, match: str) -> None:
    """One sentence that says what is wrong, without allocating."""
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(InputError, match=match) as caught:
        read_everything(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * BIG
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


LIES = {
    "pixels past the end": ([grey_tags((1000, 1000))], "up to byte 1000016"),
    "strip past the end": ([grey_tags((10, 10), offset=100_000)], "cut off"),
    "3.9 TB in one byte": (
        [grey_tags((900, 65535), num_bytes=1, t258=("H", [8] * 65535), t277=("H", [65535]), t259=("H", [8]))],
        "3.5 TiB",
    ),
    "deflate bomb": ([grey_tags((30_000, 30_000), num_bytes=64, t259=("H", [8]))], "decoded whole|gives"),
    "strips without a table": ([grey_tags((5000, 10), t278=("I", [1]), t259=("H", [8]))], "5000 segments"),
    "rows per strip 0": ([grey_tags((10, 10), t278=("I", [0]))], "sizes above 0|damaged"),
    "tile of width 0": (
        [grey_tags((10, 10)) | {322: ("H", [0]), 323: ("H", [16])}],
        "damaged|sizes above 0|cut off|InputError",
    ),
    "no width": ([{k: v for k, v in grey_tags((10, 10)).items() if k != 256}], "."),
    "no offsets": ([{k: v for k, v in grey_tags((10, 10)).items() if k != 273}], "does not say where|damaged"),
    "99 bits": ([grey_tags((10, 10), t258=("H", [99]))], "unknown type"),
    "unknown compression": ([grey_tags((10, 10), t259=("H", [31337]))], "unsupported"),
    "mixed samples": ([grey_tags((10, 10), t258=("H", [8, 16, 8]), t277=("H", [3]))], "."),
}


@pytest.mark.parametrize("name", LIES)
def test_lying_tiff_is_refused(tmp_path: Path, name: str):
    pages, match = LIES[name]
    refused(tiff_file(tmp_path / "a.tif", pages, bytes(300)), match)


def test_directories_in_a_circle_are_refused(tmp_path: Path):
    for num_pages in (1, 2, 5):
        tiff_file(tmp_path / "a.tif", [grey_tags((10, 10))] * num_pages, bytes(100), last=116)
        refused(tmp_path / "a.tif", "point back")
    tiff_file(tmp_path / "a.tif", [grey_tags((10, 10))], bytes(100), last=10**6)
    refused(tmp_path / "a.tif", "page 1 is said to start")


def test_segments_that_claim_more_than_their_place_are_refused(tmp_path: Path):
    # a small page whose JPEG says 60000 x 60000
    stream = io.BytesIO()
    Image.fromarray(picture((16, 16))).save(stream, "JPEG")
    jpeg = bytearray(stream.getvalue())
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
    tags = grey_tags((16, 16), num_bytes=len(jpeg), t259=("H", [7]))
    refused(tiff_file(tmp_path / "a.tif", [tags], bytes(jpeg)), "claims to be larger")


def test_what_is_not_an_image_is_refused_in_its_own_words(tmp_path: Path):
    cases: dict[str, tuple[bytes, str]] = {
        "empty.tif": (b"", "is empty"),
        "words.tif": (b"Dear Sir, this is no picture.\n" * 9, "text"),
        "zeros.png": (bytes(5000), "zeros only"),
        "noise.bin": (bytes(range(128, 256)) * 9, "no format known"),
        "a.czi": (b"ZISRAWFILE" + bytes(100), "CZI.*bioformats2raw"),
        "a.nd2": (b"\xda\xce\xbe\x0a" + bytes(100), "ND2.*bioformats2raw"),
        "old.nd2": (b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(100), "ND2"),
        "a.lif": (b"\x70\0\0\0\x10\0\0\0\x2a" + bytes(100), "LIF"),
        "b.dat": (b"\x70\0\0\0\x10\0\0\0\x2a" + bytes(100), "LIF"),
        "a.vsi": (b"II*\0" + bytes(100), "VSI"),
        "a.pdf": (b"%PDF-1.7\n" + bytes(100), "PDF"),
        "a.npz": (b"PK\x03\x04" + bytes(100), "zip"),
        "a.tif.gz": (b"\x1f\x8b\x08" + bytes(100), "gzip"),
        "a.pkl": (b"\x80\x04\x95" + bytes(100), "pickle"),
        "short.tif": (b"II*\0", "damaged TIFF header"),
        "head.tif": (b"II*\0\x08\0\0\0", "page 0"),
        "none.tif": (b"II*\0\0\0\0\0", "without any page"),
        "a.bmp": (b"BM" + bytes(200), "no format known|cannot be decoded"),
    }
    for name, (data, match) in cases.items():
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name, match)
    refused(tmp_path / "missing.tif", "cannot be found")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "holds nothing")
    assert not is_picture(str(tmp_path / "a.pdf"))
    assert not is_picture(str(tmp_path / "missing.tif"))
    assert not is_picture(str(tmp_path / "folder"))


def test_names_of_odd_characters_are_names(tmp_path: Path):
    plane = picture((16, 20))
    for name in ("with space [1].tif", "naïve*.tif", "a::b.tif", "日本.tif"):
        tifffile.imwrite(tmp_path / name, plane)
        np.testing.assert_array_equal(open_source(str(tmp_path / name)).read(0, Box.whole((16, 20))), plane)
    with pytest.raises(InputError):
        open_source("bad\0name")


def npy_bytes(array: npt.NDArray[Any]) -> bytes:
    """As numpy.save writes it."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (npy_bytes(np.zeros((40, 50)))[:-1], "cut off"),
        (npy_bytes(np.array([{}, []], object)), "pickled"),
        (npy_bytes(np.zeros((4, 5), complex)), "complex"),
        (npy_bytes(np.zeros((4, 5), "U3")), "values of the type"),
        (npy_bytes(np.zeros((4, 5), [("a", "u1")])), "values of the type"),
        (npy_bytes(np.zeros(40)), "two axes"),
        (npy_bytes(np.zeros((0, 40))), "without any pixel"),
        (npy_bytes(np.zeros((40, 50))).replace(b"(40, 50)", b"(9**9,5)"), "damaged"),
        (npy_bytes(np.zeros((40, 50))).replace(b"(40, 50), }", b"(99999999999999, 99999999), }"), "cut off|damaged"),
        (b"\x93NUMPY\x09\x00" + bytes(100), "damaged"),
    ],
)
def test_bad_npy_is_refused(tmp_path: Path, data: bytes, match: str):
    (tmp_path / "a.npy").write_bytes(data)
    refused(tmp_path / "a.npy", match)


def test_pickled_npy_is_never_unpickled(tmp_path: Path):
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
            return sys.exit, ("ran",)

    np.save(tmp_path / "a.npy", np.array([[Trap()]], object), allow_pickle=True)
    refused(tmp_path / "a.npy", "pickled")


# Fuzzing: damage anywhere may change pixels, but nothing else than InputError comes out.


def mrc_bytes() -> bytes:
    """A small volume of mode 1."""
    head = bytearray(1024)
    struct.pack_into("<10i3f", head, 0, 20, 16, 3, 1, 0, 0, 0, 20, 16, 3, 20.0, 16.0, 3.0)
    struct.pack_into("<3i", head, 64, 1, 2, 3)
    head[208:216] = b"MAP DD\0\0"
    return bytes(head) + picture((3, 16, 20), "i2").tobytes()


def tiff_bytes(stack: npt.NDArray[Any], **options: Any) -> bytes:
    """As tifffile writes it."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, stack, **options)
    return stream.getvalue()


def raster_bytes(array: npt.NDArray[Any], kind: str) -> bytes:
    """As Pillow writes it."""
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


STACK = picture((3, 24, 30))
SOUND: dict[str, Callable[[], bytes]] = {
    "plain.tif": lambda: tiff_bytes(STACK, photometric="minisblack", metadata=None, rowsperstrip=8),
    "shaped.tif": lambda: tiff_bytes(STACK, photometric="minisblack"),
    "deflate.tif": lambda: tiff_bytes(
        STACK, photometric="minisblack", metadata=None, compression="deflate", predictor=True, tile=(16, 16)
    ),
    "lzw.tif": lambda: tiff_bytes(STACK, photometric="minisblack", metadata=None, compression="lzw"),
    "zstd.tif": lambda: tiff_bytes(STACK, photometric="minisblack", metadata=None, compression="zstd", byteorder=">"),
    "jpeg.tif": lambda: tiff_bytes(
        np.moveaxis(STACK, 0, -1), photometric="ycbcr", metadata=None, compression="jpeg", tile=(16, 16)
    ),
    "packbits.tif": lambda: tiff_bytes(
        STACK, photometric="minisblack", metadata=None, compression="packbits", bigtiff=True
    ),
    "imagej.tif": lambda: tiff_bytes(STACK, imagej=True, metadata={"axes": "ZYX", "unit": "um", "spacing": 2}),
    "ome.tif": lambda: tiff_bytes(STACK, ome=True, photometric="minisblack", metadata={"axes": "ZYX"}),
    "xml.tif": lambda: tiff_bytes(
        STACK,
        metadata=None,
        photometric="minisblack",
        description=ome_xml([ome_image({"x": 30, "y": 24, "z": 3}, "<TiffData/>")]),
    ),
    "palette.tif": lambda: tiff_bytes(
        STACK[0], photometric="palette", colormap=np.zeros((3, 256), "u2"), metadata=None
    ),
    "a.npy": lambda: npy_bytes(STACK),
    "fortran.npy": lambda: npy_bytes(np.asfortranarray(STACK.astype(">f4"))),
    "a.mrc": mrc_bytes,
    "a.png": lambda: raster_bytes(STACK[0], "PNG"),
    "colour.png": lambda: raster_bytes(np.moveaxis(STACK, 0, -1), "PNG"),
    "mask.png": lambda: raster_bytes(STACK[0] > 100, "PNG"),
    "a.jpg": lambda: raster_bytes(np.moveaxis(STACK, 0, -1), "JPEG"),
    "a.bmp": lambda: raster_bytes(STACK[0], "BMP"),
    "a.webp": lambda: raster_bytes(np.moveaxis(STACK, 0, -1), "WEBP"),
    "a.gif": lambda: raster_bytes(STACK[0], "GIF"),
}


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut off, overwritten in a few places (mostly near the ends, where headers are), or with a piece missing."""
    out = bytearray(data)
    kind = rng.integers(0, 5)
    if kind == 0:
        return bytes(out[: rng.integers(1, len(out))])
    if kind == 1:
        a, b = sorted(int(v) for v in rng.integers(0, len(out), 2))
        return bytes(out[:a] + out[b:]) or b"\0"
    for _ in range(int(rng.integers(1, 6))):
        span = len(out) if kind == 4 else min(len(out), 600)
        at = int(rng.integers(0, span))
        at = len(out) - 1 - at if kind == 3 else at
        out[at] = rng.choice([0, 1, 255, 127, 128, int(rng.integers(0, 256))])
    return bytes(out)


@pytest.mark.parametrize("name", SOUND)
def test_damage_never_surfaces_as_another_exception(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]):
    sound = SOUND[name]()
    path = tmp_path / name
    path.write_bytes(sound)
    read_everything(path)
    rng = np.random.default_rng(sum(name.encode()))
    num_read = 0
    for i in range(40):
        path.write_bytes(damaged(sound, rng))
        try:
            read_everything(path)
            num_read += 1
        except InputError:
            pass
        except Exception as error:
            raise AssertionError(f"damage {i} of {name}: {error!r}") from error
    assert num_read < 40
    assert capfd.readouterr() == ("", "")
