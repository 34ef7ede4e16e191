"""Single pictures through Pillow: PNG, JPEG, BMP, WebP, GIF, JPEG 2000, PNM, TGA and their kin."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

from unetctl.errors import InputError
from unetctl.geometry.box import Box, Ints
from unetctl.sources.axes import StoredImage, check_box, to_pixels, translate
from unetctl.sources.base import ImageInfo, SourceInfo
from unetctl.sources.files import DEFAULT_MAX_BYTES, RandomAccessFile, file_identity
from unetctl.sources.orientation import swaps_axes, upright
from unetctl.sources.raster_magic import raster_format

_ORIENTATION_TAG = 274
_CENTIMETRE = 3
_MAX_PNG_CHUNKS = 100_000
# no picture format shrinks plain pixels more than this: PNG's deflate does not, JPEG's blank blocks stay below
_MOST_BYTES_OUT_PER_BYTE_IN = {"PNG": 1040 * 8, "JPEG": 4096, "BMP": 128, "PPM": 8, "SGI": 128, "PCX": 512}


@dataclass(frozen=True)
class RasterTraits:
    """What a picture was in its file, beyond its pixels.

    Attributes:
        kind: format in lower case.
        num_bits: 1 if the file has one bit a pixel, else 8 or more.
        icc: colour profile or None.
        orientation: EXIF code.
        transparent: the one value (or red, green, blue) that stands for nothing, as the pixels have it; or None.
        is_converted: True if the profile is not of the pixels as they are read: inks or a colour table turned into RGB.
    """

    kind: str
    num_bits: int
    icc: bytes | None
    orientation: int
    transparent: Ints | None
    is_converted: bool


class RasterSource:
    """One picture that is decoded whole when first read and kept until `close`.

    Upright by its EXIF orientation; palettes and CMYK become RGB, 1 bit becomes uint8 0 and 255, 16 bits stay; alpha
    stays as a channel.

    Args:
        path: of the file.
        axes: one letter an axis: "yx", or "yxc" for colour.
        max_bytes: that the decoded picture may take, 1 GiB unless given.

    Raises:
        InputError: if the file is cut off, damaged, of an unsupported kind, or too large.
        UsageError: if `axes` does not fit.
    """

    def __init__(self, path: str, axes: str | None = None, max_bytes: int | None = None) -> None:
        self._path = path
        self._file = RandomAccessFile(path)
        self._limit = DEFAULT_MAX_BYTES if max_bytes is None else max_bytes
        self._format = raster_format(self._file.read_up_to(0, 64)) or ""
        stored, self._orientation = self._describe()
        self._translated = translate(stored, path, axes)
        self.traits = self._traits
        self._pixels: npt.NDArray[np.generic] | None = None
        self._lock = threading.Lock()

    @property
    def images(self) -> tuple[ImageInfo, ...]:
        """The one picture; known from the header."""
        return (self._translated.image,)

    @cached_property
    def info(self) -> SourceInfo:
        """See `Source.info`."""
        return SourceInfo(self._path, self._format, self.images, file_identity([self._file]), (self._translated.chunk,))

    def read(self, i_image: int, box: Box) -> npt.NDArray[np.generic]:
        """See `Source.read`; the whole picture is decoded at the first call."""
        check_box(box, self.images[i_image], self._path)
        with self._lock:
            if self._pixels is None:
                self._pixels = self._translated.order.from_file(self._decoded())
            pixels = self._pixels
        return pixels[box.slices()].copy()

    def close(self) -> None:
        """Drops the decoded picture and closes the file."""
        self._pixels = None
        self._file.close()

    def _damaged(self, error: BaseException) -> InputError:
        told = f"{type(error).__name__}: {error}"
        return InputError(
            f"{self._path} cannot be decoded ({told})",
            f"a sound {self._format} file",
            "it is cut off or damaged",
        )

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Pillow's picture, header read only; from the plug-in itself, as Image.open adds a limit of its own."""
        if not self._format:
            raise InputError(f"{self._path} is no picture", "PNG, JPEG, BMP, WebP, GIF, JPEG 2000, PNM")
        Image.init()
        if self._format not in Image.OPEN:
            raise InputError(
                f"{self._path} is a {self._format} picture, which this Pillow does not read", "PNG, JPEG or TIFF"
            )
        # Pillow's remarks on odd headers stay off the screen, for good: `catch_warnings` is not made for threads
        warnings.filterwarnings("ignore", module=r"PIL\.")
        with open(self._path, "rb") as stream:
            yield Image.OPEN[self._format][0](stream, self._path)

    def _describe(self) -> tuple[StoredImage, int]:
        if self._file.size > self._limit:
            raise InputError(
                f"{self._path} has {self._file.size} bytes",
                f"a picture of at most {self._limit}",
                "convert it to a tiled TIFF",
            )
        try:
            with self._opened() as image:
                return self._described(image)
        except InputError:
            raise
        except Exception as error:  # damaged headers surface as any type of exception
            raise self._damaged(error) from error

    def _described(self, image: Any) -> tuple[StoredImage, int]:
        width, height = image.width, image.height
        samples, dtype, note = _target(image, self._deep())
        num_bytes = width * height * samples * dtype.itemsize
        ratio = _MOST_BYTES_OUT_PER_BYTE_IN.get(self._format, 1 << 20)
        declared = f"{self._path} declares {width} x {height} pixels ({num_bytes} bytes)"
        if num_bytes > ratio * self._file.size + (1 << 20):
            raise InputError(
                f"{declared}, but has {self._file.size} bytes", "the pixels it declares", "it is cut off or damaged"
            )
        if num_bytes > self._limit:
            raise InputError(
                declared, f"at most {self._limit} bytes", "allow more memory, or convert it to a tiled TIFF"
            )
        orientation, dpi, notes = self._extras(image)
        self._traits = self._traits_of(image, orientation)
        shape: Ints = (width, height) if swaps_axes(orientation) else (height, width)
        if dpi and swaps_axes(orientation):
            dpi = (dpi[1], dpi[0])
        axes, is_rgb = ("yxs", samples >= 3) if samples > 1 else ("yx", False)
        names = ("grey", "alpha") if samples == 2 else ()
        shape = (*shape, samples) if samples > 1 else shape
        notes = (*note, *notes)
        stored = StoredImage(
            shape, axes, dtype, {}, channel_names=names, is_rgb=is_rgb, dpi=dpi, chunk=shape, notes=notes
        )
        return stored, orientation

    def _extras(self, image: Any) -> tuple[int, tuple[float, float] | None, tuple[str, ...]]:
        """EXIF orientation, (y, x) dots per inch, and notes; damaged extras count as none."""
        notes, orientation, dpi = [], 1, None
        try:
            # Pillow decodes a whole PNG to see whether EXIF data follow the pixels
            exif = image.getexif() if self._format != "PNG" or self._has_exif_chunk() else {}
            told = exif.get(_ORIENTATION_TAG, 1)
            orientation = told if told in range(1, 9) else 1
            if self._format == "JPEG" and image.info.get("jfif_unit") not in (1, 2):
                image.info.pop("dpi", None)  # where the file says nothing, Pillow says 72
            if "dpi" not in image.info and 282 in exif and 283 in exif:
                per_cm = exif.get(296) == _CENTIMETRE
                image.info["dpi"] = tuple(float(exif[code]) * (2.54 if per_cm else 1) for code in (282, 283))
        except Exception:  # EXIF is an ornament: without it the picture stays as stored
            orientation = 1
        if orientation != 1:
            notes.append(f"turned upright (EXIF orientation {orientation})")
        try:
            x, y = (float(v) for v in image.info.get("dpi", (0, 0)))
            dpi = (y, x) if 1 < x < 1e6 and 1 < y < 1e6 else None
        except (TypeError, ValueError, ZeroDivisionError, OverflowError):
            dpi = None
        try:
            num_frames = int(getattr(image, "n_frames", 1))
        except Exception:  # counting frames reads through a damaged file
            num_frames = 1
        if num_frames > 1:
            notes.append(f"the first of {num_frames} frames is read")
        return orientation, dpi, tuple(notes)

    def _traits_of(self, image: Any, orientation: int) -> RasterTraits:
        head = self._file.read_up_to(0, 33)
        bits = head[24:25] if self._format == "PNG" else head[28:29] if self._format == "BMP" else b""
        num_bits = bits[0] if bits else 1 if image.mode == "1" else 8
        key = image.info.get("transparency") if image.mode in ("1", "L", "RGB", "I;16") else None
        if self._deep()[0] == 0 and self._format != "PNG":
            key = None
        told: Ints | None = (key,) if isinstance(key, int) else tuple(key) if isinstance(key, tuple) else None
        if told is not None and num_bits < 8:  # Pillow spreads the pixels to 8 bits, but not this
            told = tuple(v * 255 // ((1 << num_bits) - 1) for v in told)
        icc = image.info.get("icc_profile")
        is_converted = image.mode not in ("1", "L", "LA", "RGB", "RGBA", "I;16", "I;16B")
        icc = icc if isinstance(icc, bytes) else None
        return RasterTraits(self._format.lower(), num_bits, icc, orientation, told, is_converted)

    def _has_exif_chunk(self) -> bool:
        """True if a PNG has EXIF data, in a chunk of their own or as ImageMagick's text; by the heads of its chunks."""
        at = 8
        for _ in range(_MAX_PNG_CHUNKS):
            head = self._file.read_up_to(at, 64)
            if len(head) < 12:
                return False
            if head[4:8] == b"eXIf" or (head[4:8] in (b"zTXt", b"tEXt") and b"Raw profile type exif" in head):
                return True
            at += 12 + int.from_bytes(head[:4], "big")
        return False

    def _deep(self) -> tuple[int, int]:
        """(16, colour type) of a PNG of several 16-bit samples, which Pillow would cut to 8; else (0, 0)."""
        head = self._file.read_up_to(0, 33)
        if self._format != "PNG" or len(head) < 26 or head[12:16] != b"IHDR":
            return 0, 0
        bits, colour_type = head[24], head[25]
        return (bits, colour_type) if bits == 16 and colour_type in (2, 4, 6) else (0, 0)

    def _decoded(self) -> npt.NDArray[np.generic]:
        """The upright picture in the order (y, x) or (y, x, c)."""
        try:
            if self._deep()[0]:
                pixels = np.asarray(imagecodecs.png_decode(self._file.read_at(0, self._file.size)))
            else:
                with self._opened() as image:
                    image.load()
                    pixels = _converted(image)
        except InputError:
            raise
        except Exception as error:  # cut-off data surface as OSError, ValueError, SyntaxError, struct.error ...
            raise self._damaged(error) from error
        pixels = to_pixels(upright(pixels, self._orientation))
        stored = self._translated
        expected = tuple(stored.image.size_of(a) for a in stored.order.file_axes)
        if pixels.shape != expected or pixels.dtype != stored.image.dtype:
            raise InputError(
                f"{self._path} decodes to {pixels.shape} {pixels.dtype}",
                f"{expected} {stored.image.dtype}",
                "it is damaged",
            )
        return pixels


def _target(image: Any, deep: tuple[int, int]) -> tuple[int, np.dtype[np.generic], tuple[str, ...]]:
    """Samples, dtype and notes of a Pillow picture after `_converted`."""
    if deep[0]:
        return {2: 3, 4: 2, 6: 4}[deep[1]], np.dtype(np.uint16), ()
    mode = image.mode
    if mode in ("P", "PA"):
        target = _palette_mode(image)
        notes = (
            ("grey values taken from its colour table",) if target in ("L", "LA") else ("colour table expanded to RGB",)
        )
        return len(target), np.dtype(np.uint8), notes
    if mode in ("CMYK", "YCbCr", "HSV", "RGBX", "RGBa", "La"):
        return (
            (4 if mode == "RGBa" else 2 if mode == "La" else 3),
            np.dtype(np.uint8),
            (f"{mode} turned into RGB",),
        )
    if mode in ("1", "L", "RGB", "RGBA", "LA", "LAB"):
        return {"RGB": 3, "RGBA": 4, "LA": 2, "LAB": 3}.get(mode, 1), np.dtype(np.uint8), ()
    if mode.startswith("I;16") or (mode == "I" and image.format == "PPM"):
        return 1, np.dtype(np.uint16), ()
    if mode in ("I", "F"):
        return 1, np.dtype(np.int32 if mode == "I" else np.float32), ()
    raise ValueError(f"pixels of the kind {mode}")


def _palette_mode(image: Any) -> str:
    """RGB or RGBA, or L where every colour of the table is grey."""
    raw_mode, raw = image.palette.getdata() if image.palette is not None else ("", b"")
    if image.mode == "PA" or "transparency" in image.info or "A" in raw_mode:
        return "RGBA"
    if raw_mode in ("RGB", "BGR", "RGBX", "BGRX") and len(raw) >= len(raw_mode):
        colours = np.frombuffer(raw[: len(raw) // len(raw_mode) * len(raw_mode)], np.uint8).reshape(-1, len(raw_mode))
        if bool((colours[:, :3] == colours[:, :1]).all()):
            return "L"
    return "RGB"


def _converted(image: Any) -> npt.NDArray[np.generic]:
    mode = image.mode
    if mode in ("P", "PA"):
        image = image.convert(_palette_mode(image))
    elif mode in ("CMYK", "YCbCr", "HSV", "RGBX"):
        image = image.convert("RGB")
    elif mode in ("RGBa", "La"):
        image = image.convert(mode[:-1] + "A")
    pixels = np.asarray(image)
    if mode.startswith("I;16") or (mode == "I" and image.format == "PPM"):
        return pixels.astype(np.uint16)
    return pixels
