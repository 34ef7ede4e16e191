"""What a file is, by its first bytes; which formats are read, which are refused and what to do about it.

Cheap: no library of any format is imported here.
"""

import os
from dataclasses import dataclass

from unetctl.errors import InputError
from unetctl.sources.mrc import HEADER_BYTES, is_mrc_header
from unetctl.sources.raster_magic import raster_format


@dataclass(frozen=True)
class Format:
    """One row of the table of formats.

    Attributes:
        name: of the format.
        extensions: usual ones; content decides before extension.
        what: is read of it.
    """

    name: str
    extensions: tuple[str, ...]
    what: str


FORMATS: tuple[Format, ...] = (
    Format(
        "TIFF, BigTIFF",
        (".tif", ".tiff", ".btf"),
        "tiled, stripped, planar, compressed; 1 to 64 bits; pages of one shape are a stack",
    ),
    Format(
        "OME-TIFF",
        (".ome.tif", ".ome.tiff"),
        "in one file or several: all pictures, axes, pixel size, channel names",
    ),
    Format("ImageJ TIFF", (".tif",), "hyperstacks, also beyond 4 GiB"),
    Format(
        "Slide and microscope TIFF",
        (".svs", ".ndpi", ".scn", ".bif", ".qptiff", ".lsm", ".stk"),
        "full resolution",
    ),
    Format(
        "OME-Zarr",
        (".ome.zarr", ".zarr"),
        "0.1 to 0.5, sharded or not, bioformats2raw collections: full resolution",
    ),
    Format("zarr", (".zarr",), "an array of version 2 or 3, or a group that holds one"),
    Format("numpy", (".npy",), "an array of numbers; pickled objects are refused"),
    Format("HDF5", (".h5", ".hdf5", ".ims"), "one dataset: FILE::/path, or the only one (needs h5py)"),
    Format("MRC", (".mrc", ".mrcs", ".map", ".rec", ".st", ".ali"), "modes 0, 1, 2, 6, 12"),
    Format("PNG", (".png",), "1 to 16 bits, grey, colour, palette, alpha"),
    Format("JPEG", (".jpg", ".jpeg"), "grey, colour, CMYK; upright by EXIF"),
    Format("PDF", (".pdf",), "for tasks on documents: the scan of each page as it is, else the page drawn"),
    Format("JPEG 2000", (".jp2", ".j2k", ".jpx"), "grey and colour"),
    Format(
        "Other pictures",
        (".bmp", ".webp", ".gif", ".pnm", ".pgm", ".ppm", ".pbm", ".pcx", ".sgi", ".qoi", ".avif"),
        "the first frame",
    ),
    Format("Folder or pattern", (), "single pictures of one shape as a stack along z"),
)

_CONVERT = "convert it with bioformats2raw, or open it in Fiji and save it as OME-TIFF"
_PROPRIETARY: tuple[tuple[bytes, int, str], ...] = (
    (b"ZISRAWFILE", 0, "a Zeiss CZI file"),
    (b"\xda\xce\xbe\x0a", 0, "a Nikon ND2 file"),
    (b"OLYMPUSRAWFORMAT", 0, "an Olympus OIR file"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 0, "an OLE document (Olympus OIB, Zeiss ZVI or an office file)"),
    (b"ETS\0", 0, "a frame file of an Olympus VSI slide"),
    (b"SIS\0", 0, "a frame file of an Olympus VSI slide"),
)
_PROPRIETARY_EXTENSIONS = {
    ".czi": "a Zeiss CZI file",
    ".nd2": "a Nikon ND2 file",
    ".lif": "a Leica LIF file",
    ".lof": "a Leica LOF file",
    ".xlef": "a Leica XLEF file",
    ".vsi": "an Olympus VSI slide",
    ".ets": "a frame file of an Olympus VSI slide",
    ".oib": "an Olympus OIB file",
    ".oif": "an Olympus OIF file",
    ".oir": "an Olympus OIR file",
    ".zvi": "a Zeiss ZVI file",
    ".dv": "a DeltaVision file",
    ".r3d": "a DeltaVision file",
    ".sld": "a SlideBook file",
    ".sldy": "a SlideBook file",
    ".mrxs": "a 3DHISTECH slide",
    ".dcm": "a DICOM file",
    ".nii": "a NIfTI volume",
    ".nrrd": "an NRRD volume",
    ".flex": "a plate of an Opera reader",
    ".mvd2": "a Volocity file",
}
_OTHER: tuple[tuple[bytes, int, str, str], ...] = (
    (b"PK\x03\x04", 0, "a zip archive (or an .npz file)", "unpack it, or save one array as .npy"),
    (b"\x1f\x8b", 0, "a gzip archive", "unpack it"),
    (b"BZh", 0, "a bzip2 archive", "unpack it"),
    (b"\xfd7zXZ\x00", 0, "an xz archive", "unpack it"),
    (b"\x28\xb5\x2f\xfd", 0, "a zstd archive", "unpack it"),
    (b"7z\xbc\xaf", 0, "a 7z archive", "unpack it"),
    (b"ustar", 257, "a tar archive", "unpack it"),
    (b"DICM", 128, "a DICOM file", _CONVERT),
    (b"NRRD", 0, "an NRRD volume", _CONVERT),
    (b"SIMPLE  =", 0, "a FITS file", "save it as TIFF"),
    (b"\x1aE\xdf\xa3", 0, "a video", "export its frames as TIFF or PNG"),
    (b"ftyp", 4, "a video or HEIF picture", "export it as TIFF or PNG"),
    (b"8BPS", 0, "a Photoshop document", "export it as TIFF or PNG"),
    (b"MATLAB", 0, "a MATLAB file", "save its array as TIFF or .npy"),
)
_PDF_HEAD_BYTES = 1024
_TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def sniff(path: str) -> str:
    """Which source reads this file: "tiff", "npy", "hdf5", "mrc" or "raster".

    Raises:
        InputError: if none does, saying what the file is and what to do.
    """
    head = _head(path)
    extension = os.path.splitext(path)[1].lower()
    for mark, offset, what in _PROPRIETARY:
        if head[offset : offset + len(mark)] == mark:
            raise InputError(f"{path} is {what}", "an open format", _CONVERT)
    if head[:4] == b"\x70\0\0\0" and head[8:9] == b"\x2a" and head[208:211] != b"MAP":
        raise InputError(f"{path} is a Leica LIF file", "an open format", _CONVERT)
    found = (
        "tiff"
        if head[:4] in _TIFF_MARKS
        else "npy"
        if head[:6] == b"\x93NUMPY"
        else "hdf5"
        if head[:8] == b"\x89HDF\r\n\x1a\n"
        else ""
    )
    if not found and raster_format(head):
        found = "raster"
    # some makers' files begin like TIFF, JPEG 2000 or MRC
    if extension in _PROPRIETARY_EXTENSIONS and found != "npy":
        raise InputError(f"{path} is {_PROPRIETARY_EXTENSIONS[extension]}", "an open format", _CONVERT)
    if found:
        return found
    if is_pdf(path):
        raise InputError(
            f"{path} is a PDF document", "an image", "PDFs are read as pages, by tasks for documents; others need TIFF"
        )
    for mark, offset, what, hint in _OTHER:
        if head[offset : offset + len(mark)] == mark:
            raise InputError(f"{path} is {what}", "an image", hint)
    if is_mrc_header(head):
        return "mrc"
    raise _unknown(path, head)


def is_pdf(path: str) -> bool:
    """True if the file begins like a PDF (ISO 32000-1, annex H: the mark lies in the first 1024 bytes)."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(_PDF_HEAD_BYTES)
    except (OSError, ValueError):
        return False
    at = head.find(b"%PDF-")
    return at == 0 or (at > 0 and raster_format(head) is None and head[:4] not in _TIFF_MARKS)


def is_gif(path: str) -> bool:
    """True if the file begins like a GIF."""
    try:
        with open(path, "rb") as stream:
            return raster_format(stream.read(64)) == "GIF"
    except (OSError, ValueError):
        return False


def is_page_picture(path: str) -> bool:
    """True if the file is a picture of a kind that pages come in: TIFF, PNG, JPEG and their kin."""
    try:
        return sniff(path) in ("tiff", "raster")
    except InputError:
        return False


def is_array(path: str) -> bool:
    """True if the file is of a kind that holds arrays and never pages: npy, HDF5, MRC."""
    try:
        return sniff(path) in ("npy", "hdf5", "mrc")
    except InputError:
        return False


def is_known_picture(path: str) -> bool:
    """True if `sniff` names a source for this file."""
    try:
        sniff(path)
    except InputError:
        return False
    return True


def _head(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            head = stream.read(HEADER_BYTES)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be opened ({getattr(error, 'strerror', None) or error})", "a readable file"
        ) from error
    if not head:
        raise InputError(f"{path} is empty", "an image", "it was perhaps not copied to the end")
    return head


def _unknown(path: str, head: bytes) -> InputError:
    expected = "TIFF, OME-Zarr, PNG, JPEG, .npy, HDF5, MRC or another known image format"
    if not head.strip(b"\0"):
        return InputError(f"{path} begins with zeros only", expected, "it was perhaps not copied to the end")
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return InputError(
            f"{path} is a Python pickle, which could run any code when opened",
            expected,
            "save its array with numpy.save",
        )
    try:
        head[: len(head) - 3].decode("utf-8")
        is_text = not any(b < 9 for b in head)
    except UnicodeDecodeError:
        is_text = False
    if is_text:
        return InputError(f"{path} is text, not an image", expected)
    return InputError(f"{path} is in no format known here (it begins with {head[:8].hex(' ')})", expected, _CONVERT)
