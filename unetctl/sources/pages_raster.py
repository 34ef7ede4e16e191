"""A page that is one picture: PNG, JPEG, BMP, WebP, JPEG 2000, the first frame of a GIF."""

import numpy as np

from unetctl.sources.page_pixels import Meaning, fitting_icc, page_dtype
from unetctl.sources.page_view import PageView
from unetctl.sources.pages import PageOrigin
from unetctl.sources.raster import RasterSource


def open_raster_page(path: str, max_bytes: int | None) -> PageView:
    """The page of a picture file; see `open_pages`.

    Raises:
        InputError: as `RasterSource`, and for values that have no black and white.
    """
    inner = RasterSource(path, None, max_bytes)
    try:
        image, traits = inner.images[0], inner.traits
        num_samples = image.num_channels
        dtype = page_dtype(image.dtype, path)
        largest = int(np.iinfo(dtype.name).max)
        alpha = "straight" if num_samples in (2, 4) else ""
        key = traits.transparent
        meaning = Meaning(
            "grey" if num_samples < 3 else "rgb",
            largest,
            dtype,
            alpha,
            key if key is not None and len(key) == num_samples else None,
        )
        blank = ("transparent places are white",) if alpha or meaning.key is not None else ()
        origin = PageOrigin(
            kind=traits.kind,
            is_bilevel=traits.num_bits == 1,
            icc=fitting_icc(traits.icc, meaning.num_channels) if not traits.is_converted else None,
            dpi=image.dpi,
            rotation=traits.orientation,
            notes=(*image.notes, *blank),
        )
        return PageView(inner, inner.images, (meaning,), (origin,), path)
    except BaseException:
        inner.close()
        raise
