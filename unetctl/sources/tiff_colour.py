"""What the samples of a TIFF page mean, turned into what a network can take (TIFF 6.0, sections 4 to 6, 16 and 21)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unetctl.sources.axes import to_pixels
from unetctl.sources.tiff_layout import Layout

Pixels = npt.NDArray[np.generic]
_WEBP = 50001
_IMAGE_CODECS = (6, 7, 33004, 33005, 33007, 34712, 34892, 34933, 34934, 22610, 50001, 50002, 52546)


@dataclass(frozen=True)
class Colour:
    """How stored samples become samples of a picture.

    Attributes:
        kind: "as stored", "inverted", "palette", "grey palette", "cmyk", "ycbcr".
        num_samples: of the picture; differs from the stored number only where `is_joint`.
        dtype: of the picture.
        is_rgb: True if the samples are red, green, blue (and alpha).
        white: largest value of a sample as stored.
        table: (entries, num_samples) colours of a palette.
        notes: sentences for the user.
    """

    kind: str
    num_samples: int
    dtype: np.dtype[np.generic]
    is_rgb: bool
    white: int = 0
    table: Pixels | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_joint(self) -> bool:
        """True if a sample of the picture takes all stored samples of its pixel."""
        return self.kind in ("palette", "cmyk", "ycbcr")

    def apply(self, stored: Pixels) -> Pixels:
        """Pixels of the picture.

        Args:
            stored: any shape; where `is_joint` the last axis holds the stored samples.

        Returns:
            The same shape (where `is_joint` with `num_samples` on the last axis), of `dtype`.
        """
        if self.kind == "as stored":
            return to_pixels(stored)
        if self.kind == "inverted":
            if stored.dtype.kind == "b":
                return to_pixels(~stored.astype(bool))
            mirror: Pixels = np.bitwise_not(stored) if stored.dtype.kind == "i" else np.subtract(self.white, stored)
            return mirror.astype(self.dtype, copy=False)
        if self.table is not None:
            index = stored if self.kind == "grey palette" else stored[..., 0]
            picked = self.table[np.minimum(index.astype(np.intp), len(self.table) - 1)]
            return picked[..., 0] if self.kind == "grey palette" else picked
        wide = stored.astype(np.float64)
        rgb = _cmyk_to_rgb(wide, self.white) if self.kind == "cmyk" else _ycbcr_to_rgb(wide, self.white)
        return np.rint(np.clip(rgb, 0, self.white)).astype(self.dtype)


def colour_of(layout: Layout, keeps_indices: bool) -> Colour:
    """What the samples of pages of this layout mean.

    Args:
        layout: of the pages.
        keeps_indices: True for microscopy files (OME, ImageJ): their colour tables only say how to show the values.
    """
    num_samples = layout.shaped[0] * layout.shaped[4]
    dtype = np.dtype(np.uint8) if layout.dtype.kind == "b" else layout.dtype
    white = (1 << layout.bits) - 1 if dtype.kind == "u" and layout.bits else 0
    notes = []
    if layout.dtype.kind == "u" and layout.bits and layout.bits < 8 * layout.dtype.itemsize:
        notes.append(f"{layout.bits}-bit values 0..{white} kept in {layout.dtype}")
    if layout.photometric == 0 and num_samples == 1 and dtype.kind in "ui":
        return Colour(
            "inverted",
            1,
            dtype,
            False,
            white,
            notes=(*notes, "stored with white as 0: inverted so that black is 0"),
        )
    if layout.photometric == 3 and num_samples == 1 and layout.colormap is not None and layout.dtype.kind in "bu":
        return _palette(layout, dtype, keeps_indices)
    if layout.photometric == 5 and num_samples == 4 and dtype.kind == "u" and white:
        return Colour("cmyk", 3, dtype, True, white, notes=(*notes, "CMYK inks turned into RGB"))
    if layout.photometric == 6 and num_samples == 3 and dtype.kind == "u" and white and not _is_rgb_already(layout):
        return Colour("ycbcr", 3, dtype, True, white, notes=(*notes, "YCbCr turned into RGB"))
    if layout.photometric in (8, 9, 10):
        notes.append("samples are CIE L*a*b*, kept as channels")
    is_rgb = layout.photometric in (2, 6) and num_samples == 3
    is_rgb |= (
        layout.photometric == 2
        and num_samples == 4
        and (layout.extra_samples[:1] in ((1,), (2,)) or layout.dtype == np.uint8)
    )
    return Colour("as stored", num_samples, dtype, is_rgb, white, notes=tuple(notes))


def _is_rgb_already(layout: Layout) -> bool:
    return (layout.is_jpeg and layout.planar == 1) or layout.compression == _WEBP or layout.compression in _IMAGE_CODECS


def _palette(layout: Layout, dtype: np.dtype[np.generic], keeps_indices: bool) -> Colour:
    colours: npt.NDArray[np.uint16] = np.asarray(layout.colormap, np.uint16).T
    if colours.max(initial=0) > 255:  # 16-bit entries, as the specification wants them; some writers give 8-bit ones
        colours = (colours >> 8).astype(np.uint16)
    table = colours.astype(np.uint8)
    is_ramp = len(table) == 256 and bool((table == np.arange(256)[:, None]).all())
    if keeps_indices or is_ramp:
        note = () if is_ramp else ("its colour table is for display: the measured values are read",)
        return Colour("as stored", 1, dtype, False, notes=note)
    if bool((table == table[:, :1]).all()):
        return Colour(
            "grey palette",
            1,
            np.dtype(np.uint8),
            False,
            table=table,
            notes=("grey values taken from its colour table",),
        )
    return Colour("palette", 3, np.dtype(np.uint8), True, table=table, notes=("colour table expanded to RGB",))


def _cmyk_to_rgb(cmyk: npt.NDArray[np.float64], white: int) -> npt.NDArray[np.float64]:
    return (white - cmyk[..., :3]) * (white - cmyk[..., 3:]) / white


def _ycbcr_to_rgb(ycbcr: npt.NDArray[np.float64], white: int) -> npt.NDArray[np.float64]:
    """ITU-R BT.601 with full range, as JFIF."""
    middle = (white + 1) / 2
    y, cb, cr = ycbcr[..., 0], ycbcr[..., 1] - middle, ycbcr[..., 2] - middle
    return np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1)
