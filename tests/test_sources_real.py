"""Files that break readers: right axes, shape and pixels, or one clear sentence; within 10 s and 2 GiB."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import zarr
from PIL import Image, ImageOps

from tests.sources_files import assert_reads
from unetctl.sources.open import open_source

pytestmark = pytest.mark.realdata
MAX_SECONDS, MAX_BYTES = 10, 2 << 30


def as_tifffile(path: Path, order: str = "", series: int = 0) -> npt.NDArray[Any]:
    """What tifffile reads, its axes put in `order`."""
    with tifffile.TiffFile(path) as opened:
        found = opened.series[series]
        array = found.asarray()
        axes = found.axes.replace("S", "C") if "C" not in found.axes else found.axes
    return array.transpose([axes.index(a) for a in order]) if order else array


def as_pillow(path: Path) -> npt.NDArray[Any]:
    """What Pillow reads, upright, channels first."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        pixels = np.asarray(upright.convert("RGB") if upright.mode in ("P", "CMYK") else upright)
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels


def inverted_bits(path: Path) -> npt.NDArray[Any]:
    """Ink of a bilevel file as 0."""
    return (~as_tifffile(path)).astype(np.uint8) * np.uint8(255)


def expanded(path: Path) -> npt.NDArray[Any]:
    """A palette picture as RGB."""
    with tifffile.TiffFile(path) as opened:
        table: npt.NDArray[Any] = np.asarray(opened.pages.first.colormap) >> 8
        index = opened.pages.first.asarray()
    return table.astype(np.uint8)[:, index]


def as_zarr(path: Path) -> npt.NDArray[Any]:
    """What zarr reads of the first level."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(zarr.open_array(path / "s0", mode="r")[:])


READ: dict[str, tuple[str, tuple[int, ...], str, Any]] = {
    "tiff/4D-series.ome.tif": ("tzyx", (7, 5, 167, 439), "int8", as_tifffile),
    "tiff/BigTIFFLong8Tiles.tif": ("cyx", (3, 64, 64), "uint8", lambda p: as_tifffile(p, "CYX")),
    "tiff/mri-stack-calibrated.tif": ("zyx", (27, 226, 186), "uint8", as_tifffile),
    "tiff/shapes_hyper.tif": ("cyx", (7, 72, 128), "float32", lambda p: as_tifffile(p, "CYX")),
    "tiff/shapes_lzw_12bps.tif": ("cyx", (3, 72, 128), "uint16", lambda p: as_tifffile(p, "CYX")),
    "tiff/shapes_lzw_planar.tif": ("cyx", (3, 72, 128), "uint8", as_tifffile),
    "tiff/shapes_multi_size.tif": ("cyx", (3, 72, 128), "uint8", lambda p: as_tifffile(p, "CYX")),
    "tiff/shapes_tiled_multi.tif": ("czyx", (3, 3, 72, 128), "uint8", lambda p: as_tifffile(p, "CIYX")),
    "tiff/shapes_uncompressed_half.tif": ("cyx", (3, 36, 64), "uint8", lambda p: as_tifffile(p, "CYX")),
    "tiff/spine.tif": ("cyx", (3, 367, 490), "uint8", expanded),
    "tiff/xyzct-mitosis.tif": ("tczyx", (3, 2, 5, 196, 171), "uint16", lambda p: as_tifffile(p, "TCZYX")),
    "mri-stack.ome.zarr": ("zyx", (27, 226, 186), "uint8", as_zarr),
    "documents/Portrait_6.jpg": ("cyx", (3, 1800, 1200), "uint8", as_pillow),
    "documents/baiona_cmyk.jpg": ("cyx", (3, 682, 640), "uint8", as_pillow),
    "documents/baiona_colormapped.png": ("cyx", (3, 682, 640), "uint8", as_pillow),
    "documents/test16.png": ("yx", (426, 550), "uint16", as_pillow),
    "documents/feyn.tif": ("yx", (3300, 2528), "uint8", inverted_bits),
    "documents/g4-multi.tiff": ("zyx", (3, 4677, 3307), "uint8", inverted_bits),
}
REFUSED = {
    "documents/ccitt.pdf": "PDF",
    "documents/cmyk.pdf": "PDF",
    "documents/invalid.pdf": "PDF",
    "documents/multipage.pdf": "PDF",
    "hostile/crash-0c7e0e8e11ce787078f00b5b0ca409a167f070e0.tif": "cut off",
    "hostile/crash-1185209cf7655b5aed8ae5e77784dfdd18ab59e9.tif": "cut off",
    "hostile/crash-4f085cc12ece8cde18758d42608bed6a2a2cfb1c.tif": "cut off",
    "hostile/libtiff_segfault.tif": "3.5 TiB",
    "hostile/reallybig.bmp": "3000000 x 2000000",
    "hostile/truncated.jpg": "cut off",
}


@pytest.mark.parametrize("name", READ)
def test_pictures_are_read_as_others_read_them(real_data: Path, name: str):
    path = real_data / "tricky" / name
    axes, shape, dtype, reference = READ[name]
    source = open_source(str(path))
    image = source.info.images[0]
    assert (image.axes, image.shape, str(image.dtype)) == (axes, shape, dtype)
    assert_reads(source, reference(path), num_boxes=4)
    source.close()


def test_second_picture_of_a_file_of_unlike_pages(real_data: Path):
    path = real_data / "tricky" / "tiff" / "shapes_multi_size.tif"
    with tifffile.TiffFile(path) as opened:
        expected = opened.pages[1].asarray().transpose(2, 0, 1)
    assert_reads(open_source(str(path)), expected, 1)


@pytest.mark.parametrize("name", REFUSED)
def test_the_others_are_refused_in_one_sentence_in_little_time_and_memory(real_data: Path, name: str):
    path = real_data / "tricky" / name
    code = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_AS, ({MAX_BYTES}, {MAX_BYTES}))\n"
        "from unetctl.errors import InputError; from unetctl.geometry.box import Box\n"
        "from unetctl.sources.open import open_source\n"
        "try:\n    s = open_source(sys.argv[1]); s.read(0, Box.whole(s.info.images[0].shape))\n"
        "except InputError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=MAX_SECONDS, check=True
    )
    assert REFUSED[name] in done.stdout
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_every_tricky_file_is_decided(real_data: Path):
    folder = real_data / "tricky"
    files = {p.relative_to(folder).as_posix() for p in folder.glob("*/*.*") if p.parent.suffix != ".zarr"}
    assert files | {"mri-stack.ome.zarr"} == set(READ) | set(REFUSED)
