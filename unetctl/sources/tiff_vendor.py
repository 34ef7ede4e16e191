"""TIFF files of microscope and slide-scanner makers, whose pages tifffile knows how to put together."""

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import tifffile

from unetctl.errors import InputError
from unetctl.sources.files import RandomAccessFile
from unetctl.sources.tiff_layout import layout_from_page, quiet_tifffile
from unetctl.sources.tiff_planes import ContiguousPlanes, Planes, TiffFile, VendorPlanes
from unetctl.sources.tiff_series import Series, make_series

# tags that only these makers write: LSM, STK (2), FluoView, SIS, NDPI
_TAGS = (34412, 33628, 33629, 34361, 33560, 65420)
_KINDS = (
    "lsm",
    "stk",
    "fluoview",
    "sis",
    "svs",
    "scn",
    "qpi",
    "ndpi",
    "bif",
    "avs",
    "philips",
    "scanimage",
    "eer",
)
_WORDS = ("Aperio ", "<?xml", "PerkinElmer-QPI", "state.", "SI.", "DP")
_SIDE_PICTURES = ("label", "macro", "thumbnail", "overview", "map", "preview")


def is_ndpi_name(path: str) -> bool:
    """True for the extension of Hamamatsu slides, whose positions beyond 4 GiB break the chain of directories."""
    return path.lower().endswith(".ndpi")


def is_vendor(tiff: TiffFile) -> bool:
    """True if tifffile recognises a maker's own arrangement of pages."""
    tags = tiff.index.tags(0)
    described = tiff.index.text(0, max_bytes=512)
    software = tiff.index.text(0, 305, max_bytes=64)
    if (
        not any(tag in tags for tag in _TAGS)
        and not described.startswith(_WORDS)
        and "Indica" not in software
        and software[:3] != "SI."
    ):
        return False
    with quiet_tifffile():
        try:
            with tifffile.TiffFile(tiff.path) as opened:
                return _kind(opened) is not None
        except Exception:  # what tifffile cannot open it does not recognise
            return False


def _kind(opened: tifffile.TiffFile) -> str | None:
    return next((kind for kind in _KINDS if getattr(opened, "is_" + kind, False)), None)


def find_vendor_series(path: str) -> tuple[str, list[Series]]:
    """Name of the kind, and its pictures at full resolution; labels and overviews of slides are left out.

    Raises:
        InputError: if tifffile cannot put the pages together.
    """
    file = RandomAccessFile(path)
    with quiet_tifffile():
        try:
            with tifffile.TiffFile(path) as opened:
                kind = _kind(opened) or "tiff"
                spacing = _spacing(opened)
                # tables are taken from tifffile's objects while the file is open
                everything = [_converted(s, file, spacing, kind) for s in opened.series]
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"{path} cannot be understood ({type(error).__name__}: {error})", "a sound TIFF file"
            ) from error
    series = [s for s in everything if s.name.lower() not in _SIDE_PICTURES] or everything
    return f"TIFF ({kind.upper()})", series


def _converted(found: Any, file: RandomAccessFile, spacing: dict[str, float], kind: str) -> Series:
    layout = layout_from_page(found.keyframe, file.path)
    num_page_axes = len(found.keyframe.shape)
    shape, axes = tuple(found.get_shape(squeeze=True)), found.get_axes(squeeze=True).lower()
    num_planes = max(1, math.prod(shape) // max(1, math.prod(found.keyframe.shape)))
    num_lead = len(shape) - sum(
        n > 1 or a in "yx" for n, a in zip(found.keyframe.shape, found.keyframe.axes.lower(), strict=True)
    )
    lead_axes = "".join(a if a in "tczpvh" else "?" for a in axes[: max(0, num_lead)])
    lead_shape = shape[: len(lead_axes)]
    if math.prod(lead_shape) != num_planes or num_page_axes < 2:
        lead_axes, lead_shape = "?", (num_planes,)
    pages = list(found.pages)
    planes: Planes
    if layout.is_direct and found.dataoffset is not None:
        planes = ContiguousPlanes(file, int(found.dataoffset), layout.as_one_strip(), num_planes)
        if found.dataoffset + num_planes * layout.page_bytes > file.size:
            raise InputError(
                f"{file.path} ends at byte {file.size}",
                f"{num_planes} planes of {layout.shape}",
                "the file is cut off",
            )
    else:
        if len(pages) != num_planes or any(p is None or len(p.dataoffsets) != len(pages[0].dataoffsets) for p in pages):
            raise InputError(
                f"{file.path} has {len(pages)} pages for {num_planes} planes",
                "one a plane",
                "save it as an OME-TIFF",
            )
        offsets = np.array([p.dataoffsets for p in pages], np.int64)
        counts = np.array([p.databytecounts for p in pages], np.int64)
        planes = VendorPlanes(file, layout, offsets, counts, getattr(pages[0], "jpegtables", None))
    name = found.name if isinstance(found.name, str) and found.name.lower() != "baseline" else ""
    series = make_series(lead_axes, lead_shape, planes, layout, spacing, is_microscopy=True, name=name)
    # three channels of a laser microscope are tagged as red, green and blue
    return replace(series, colour=replace(series.colour, is_rgb=False)) if kind == "lsm" else series


def _spacing(opened: tifffile.TiffFile) -> dict[str, float]:
    """Pixel size where the two commonest makers write it: LSM in metres, Aperio as "MPP"."""
    metadata: Any = opened.lsm_metadata if opened.is_lsm else None
    if metadata:
        return {
            a: float(metadata["VoxelSize" + a.upper()]) * 1e6
            for a in "xyz"
            if metadata.get("VoxelSize" + a.upper(), 0) > 0
        }
    told = re.search(r"MPP = ([0-9.]+)", opened.pages.first.description) if opened.is_svs else None
    return {"x": float(told[1]), "y": float(told[1])} if told and float(told[1]) > 0 else {}
