"""Samples of a page as its file stores them, turned into ink and paper: grey or RGB, 8 or 16 bits, on white."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unetctl.errors import InputError

Pixels = npt.NDArray[np.generic]
_BAND_PIXELS = 1 << 20
_NUM_COLOURS = {"grey": 1, "rgb": 3, "cmyk": 4, "lab": 3, "icc lab": 3}
# CIE 1931 white D50, and the way from XYZ under it to linear sRGB (IEC 61966-2-1, adapted by Bradford)
_D50 = np.array([0.9642, 1.0, 0.8249])
_RGB_FROM_XYZ = np.array(
    [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
)


@dataclass(frozen=True)
class Meaning:
    """What the samples of a page mean.

    Attributes:
        model: "grey", "rgb", "cmyk", "lab" (a and b signed), "icc lab" (a and b about the middle).
        white: largest value of a sample as stored.
        dtype: of the page as it is given out: uint8 or uint16.
        alpha: "straight", "premultiplied" or "" if there is none; the sample behind the colours.
        key: the one stored colour that is transparent, or None.
    """

    model: str
    white: int
    dtype: np.dtype[np.generic]
    alpha: str = ""
    key: tuple[int, ...] | None = None

    @property
    def num_channels(self) -> int:
        """Of the page as it is given out: 1 or 3."""
        return 1 if self.model == "grey" else 3

    @property
    def is_plain(self) -> bool:
        """True if the page is given out as it is stored, but for samples left out."""
        largest = np.iinfo(np.dtype(self.dtype).name).max
        return self.model in ("grey", "rgb") and self.white == largest and not self.alpha and self.key is None

    def apply(self, stored: Pixels) -> Pixels:
        """Pixels of the page.

        Args:
            stored: (samples, y, x) unsigned integers up to `white`.

        Returns:
            (1 or 3, y, x) of `dtype`, its full range in use, transparent places white.
        """
        num_colours = _NUM_COLOURS[self.model]
        if self.is_plain:
            return np.ascontiguousarray(stored[:num_colours], self.dtype)
        out = np.empty((self.num_channels, *stored.shape[1:]), self.dtype)
        step = max(1, _BAND_PIXELS // max(1, stored.shape[2]))
        for y in range(0, stored.shape[1], step):
            out[:, y : y + step] = self._band(stored[:, y : y + step], num_colours)
        return out

    def _band(self, stored: Pixels, num_colours: int) -> Pixels:
        white = int(np.iinfo(np.dtype(self.dtype).name).max)
        if self.model == "cmyk":
            inks = stored[:4].astype(np.float64)
            colours = np.rint((self.white - inks[:3]) * (self.white - inks[3:]) * (white / self.white**2))
            values = colours.astype(np.uint32)
        elif self.model in ("lab", "icc lab"):
            values = np.rint(_rgb_of_lab(stored[:3], self.model == "lab") * white).astype(np.uint32)
        else:
            values = self._full_range(stored[:num_colours], white)
        if self.alpha:
            alpha = self._full_range(stored[num_colours : num_colours + 1], white)
            if self.alpha == "premultiplied":
                values = np.minimum(values + (white - alpha), white)
            else:
                values = (values * alpha + white * (white - alpha) + white // 2) // white
        if self.key is not None:
            is_key = np.ones(stored.shape[1:], bool)
            for sample, value in zip(stored, self.key, strict=False):
                is_key &= sample == value
            values = np.where(is_key, np.uint32(white), values)
        return values.astype(self.dtype)

    def _full_range(self, values: Pixels, white: int) -> npt.NDArray[np.uint32]:
        wide = values.astype(np.uint32)
        if self.white == white:
            return wide
        spread: npt.NDArray[np.uint32] = (wide * np.uint32(white) + np.uint32(self.white // 2)) // np.uint32(self.white)
        np.minimum(spread, np.uint32(white), out=spread)
        return spread


def _rgb_of_lab(stored: Pixels, is_signed: bool) -> npt.NDArray[np.float64]:
    """(3, y, x) sRGB from 0 to 1 of 8- or 16-bit CIE L*a*b* under D50 (TIFF 6.0, section 23; ICC.1, 6.3.4)."""
    bits = 8 * stored.dtype.itemsize
    largest, unit = (1 << bits) - 1, 1 << (bits - 8)
    lightness = stored[0] * (100.0 / largest)
    if is_signed:
        a, b = (v.view(f"i{stored.dtype.itemsize}").astype(np.float64) / unit for v in np.ascontiguousarray(stored[1:]))
    else:
        a, b = (v / float(unit) - 128.0 for v in stored[1:])
    fy = (lightness + 16) / 116
    f = np.stack([fy + a / 500, fy, fy - b / 200])
    xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * (3 * (6 / 29) ** 2)) * _D50[:, None, None]
    linear = np.clip(np.einsum("ij,jyx->iyx", _RGB_FROM_XYZ, xyz), 0, 1)
    shown: npt.NDArray[np.float64] = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return shown


def page_dtype(dtype: np.dtype[np.generic], path: str) -> np.dtype[np.generic]:
    """Uint8 or uint16 for pixels of this type.

    Raises:
        InputError: for other types: how dark they are is not known.
    """
    if dtype in (np.uint8, np.uint16):
        return dtype.newbyteorder("=")
    raise InputError(f"{path} has a page of {dtype} values", "8 or 16 bits, unsigned", "save it as 8- or 16-bit TIFF")


def fitting_icc(icc: object, num_channels: int) -> bytes | None:
    """An ICC profile if it is one of grey (1 channel) or RGB (3) values, else None (ICC.1, 7.2)."""
    if not isinstance(icc, bytes) or len(icc) < 132 or icc[36:40] != b"acsp":
        return None
    return icc if icc[16:20] == {1: b"GRAY", 3: b"RGB "}.get(num_channels) else None
