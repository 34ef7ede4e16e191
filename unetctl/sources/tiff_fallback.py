"""Whole planes through Pillow and libtiff, for compressions that tifffile does not decode: JPEG of 1992, ThunderScan.

Files of that age are often damaged and libtiff's code for them has crashed before, so it runs in a process of its own:
a crash there is an error here, and what it complains about goes nowhere.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError
from unetctl.geometry.box import Ints
from unetctl.sources.tiff_colour import colour_of
from unetctl.sources.tiff_index import Page, Table
from unetctl.sources.tiff_layout import Layout, human_bytes
from unetctl.sources.tiff_planes import PagePlanes
from unetctl.sources.tiff_series import Series

_OLD_JPEG, _THUNDERSCAN, _PADDED_RAW = 6, 32809, 32771
_PHOTOMETRIC = {1: 1, 3: 2, 4: 5}
_MAX_SECONDS = 120
_CHILD = """
import sys, warnings
import numpy
from PIL import TiffImagePlugin
warnings.simplefilter("ignore")
path, i_page, out = sys.argv[1:]
with open(path, "rb") as stream:
    image = TiffImagePlugin.TiffImageFile(stream, path)
    image.seek(int(i_page))
    image.load()
    if image.mode not in ("1", "L", "RGB", "CMYK"):
        image = image.convert("RGB")
    numpy.save(out, numpy.asarray(image), allow_pickle=False)
"""


def with_fallback(series: Series, path: str, max_bytes: int) -> Series:
    """The series itself if tifffile decodes it, else one that Pillow decodes plane by plane.

    Raises:
        InputError: if neither can, or a plane would take more than `max_bytes`.
    """
    layout = series.layout
    is_old = layout.compression in (_OLD_JPEG, _THUNDERSCAN, _PADDED_RAW)
    if layout.is_direct or (layout.decode is not None and not is_old):
        return series
    refusal = layout.refusal or f"compression {layout.compression}"
    planes = series.planes
    if not is_old or not isinstance(planes, PagePlanes):
        raise InputError(
            f"{path} is stored in an unsupported way ({refusal})",
            "a supported compression",
            "save it as an OME-TIFF",
        )
    if layout.page_bytes * 4 > max_bytes:
        raise InputError(
            f"{path} is stored in pages of {human_bytes(layout.page_bytes)} that must be decoded whole ({refusal})",
            f"at most {human_bytes(max_bytes // 4)}",
            "save it as a tiled OME-TIFF",
        )
    pixels = _decode_with_pillow(path, int(planes.pages[0]), refusal)
    whole = _whole(layout, pixels)
    found = _PillowPlanes(planes, whole, refusal)
    colour = colour_of(whole, keeps_indices=False)
    return replace(
        series,
        planes=found,
        layout=whole,
        colour=colour,
        orientation=1,
        notes=(*series.notes, "decoded page by page"),
    )


def _whole(layout: Layout, pixels: npt.NDArray[np.generic]) -> Layout:
    """The layout of a page that Pillow decodes in one piece."""
    y, x, c = pixels.shape
    return replace(
        layout,
        shaped=(1, 1, y, x, c),
        segment=(1, y, x, c),
        dtype=pixels.dtype,
        stored_dtype=pixels.dtype,
        bits=1 if pixels.dtype.kind == "b" else 8 * pixels.dtype.itemsize,
        is_tiled=False,
        photometric=_PHOTOMETRIC.get(c, 1),
        planar=1,
        compression=0,
        colormap=None,
        refusal="",
    )


@dataclass(frozen=True)
class _PillowPlanes:
    pages: PagePlanes
    layout: Layout
    refusal: str

    def __len__(self) -> int:
        return len(self.pages)

    def plane(self, k: int) -> tuple[Page, Layout] | None:
        i_page = int(self.pages.pages[k])
        file, index = self.pages.tiff.file, self.pages.tiff.index
        # the directory's first bytes stand for the segment: Pillow finds the pixels itself
        key = int(index.offsets[i_page])
        page = Page(file, key, Table.of(np.array([key])), Table.of(np.array([2])))
        return page, replace(self.layout, decode=_decoder(file.path, i_page, self.refusal))


def _decoder(path: str, i_page: int, refusal: str) -> Callable[..., tuple[npt.NDArray[np.generic], Ints, Ints]]:
    def decode(data: bytes | None, i_segment: int) -> tuple[npt.NDArray[np.generic], Ints, Ints]:
        pixels = _decode_with_pillow(path, i_page, refusal)[None]
        return pixels, (0,) * 5, pixels.shape

    return decode


def _decode_with_pillow(path: str, i_page: int, refusal: str) -> npt.NDArray[np.generic]:
    """(y, x, samples) of a page."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "page.npy")
        command = [sys.executable, "-c", _CHILD, os.path.abspath(path), str(i_page), out]
        try:
            subprocess.run(command, check=True, timeout=_MAX_SECONDS, stdin=subprocess.DEVNULL, capture_output=True)
            pixels: npt.NDArray[np.generic] = np.load(out, allow_pickle=False)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise InputError(
                f"{path}: page {i_page} is stored in an unsupported way ({refusal}); libtiff cannot decode it either",
                "a supported compression",
                "save it as an OME-TIFF",
            ) from error
    return pixels.reshape(*pixels.shape[:2], -1)
