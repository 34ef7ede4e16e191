"""`--keep overlay`: the page itself, tinted where the network has found something."""

import numpy as np

from unetctl.jobs.pages.views import Pixels

#: Red, green, blue as shares of white: a colour that hardly any picture has much of.
TINT = (1.0, 0.0, 0.6)
#: Share of the tint where something is; the rest is the page's own, so that its light and dark still show.
STRENGTH = 0.55


def tinted(page: Pixels, mask: Pixels) -> Pixels:
    """The page in colour, tinted where the mask is.

    Args:
        page: (y, x) or (c, y, x) with one or three channels, uint8 or uint16.
        mask: (y, x) or (1, y, x), above 0 where something is.

    Returns:
        (y, x, 3) of the page's type. Outside the mask the very values of the page.
    """
    planes = page[np.newaxis] if page.ndim == 2 else page
    is_there = mask if mask.ndim == 2 else mask[0]
    white = float(np.iinfo(planes.dtype.name).max)
    colour = np.array(np.moveaxis(np.broadcast_to(planes, (3, *planes.shape[1:])), 0, -1))
    inside = is_there > 0
    mixed = colour[inside] * (1 - STRENGTH) + np.asarray(TINT) * white * STRENGTH
    colour[inside] = np.rint(mixed).astype(colour.dtype)
    return colour
