"""Pages that the network sees larger or smaller than they are (`--scale`), and their answers brought back to the page's size."""

from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from unetctl.geometry.box import Box, Ints
from unetctl.jobs.pages.views import OnePage, Pixels
from unetctl.runtime.keep import Keep
from unetctl.sinks.base import OutputLayout
from unetctl.sources.base import ImageInfo, Source
from unetctl.sources.scaled import ResampledView, ScaledSource, nearest, resampled, scaled_info, scaled_size

#: Probability 1 as it is kept.
_FULL = 255.0


class Stored(Protocol):
    """What of a store is needed to make a page of it."""

    @property
    def layout(self) -> OutputLayout:
        """Of the store: one picture."""
        ...

    def read(self, i_image: int, i_level: int, box: Box) -> Pixels:
        """See `ZarrSink.read`."""
        ...


class PageScale:
    """How pages are scaled, and answers back; without a factor all stays as it is.

    Masks are made of probabilities that were brought back to the page's size, so that strokes keep smooth edges; classes
    and labels are those of the nearest pixel: what is an object is decided at the scale at which it was seen.

    Args:
        factor: by which the network sees pages enlarged; None: as they are.
        keep: what is to become of them.
        threshold: of masks.
    """

    def __init__(self, factor: float | None, keep: Keep, threshold: float) -> None:
        self._factor, self._keep, self._threshold = factor, keep, threshold

    @property
    def computed(self) -> Keep:
        """What the network is asked for."""
        return "probability" if self._factor is not None and self._keep in ("mask", "overlay") else self._keep

    def info(self, info: ImageInfo) -> ImageInfo:
        """Of a page as the network sees it."""
        return info if self._factor is None else scaled_info(info, self._factor)

    def pixels(self, pixels: Pixels) -> Pixels:
        """Of a page as the network sees it, (..., y, x)."""
        return pixels if self._factor is None else resampled(pixels, scaled_size(pixels.shape, self._factor))

    def source(self, page: OnePage) -> Source:
        """A page as the network sees it, read piece by piece."""
        return page if self._factor is None else ScaledSource(page, self._factor)

    def answer(self, answer: Pixels, info: ImageInfo) -> Pixels:
        """An answer (..., y, x) at the size of the page that `info` is of."""
        if self._factor is None:
            return answer
        back = _Back(self, lambda box: answer[box.slices()], answer.shape, answer.dtype, info)
        return back.read(Box.whole(back.shape))

    def stored(self, store: Stored, info: ImageInfo) -> Stored:
        """A stored answer at the size of the page that `info` is of."""
        return store if self._factor is None else _StoredBack(self, store, info)

    def brought_back(self, read: Any, shape: Ints, dtype: np.dtype[Any], size: tuple[int, int], box: Box) -> Pixels:
        """A box of an answer at another size."""
        if self._keep in ("classes", "labels"):
            return _nearest(read, shape, size, box)
        if self._keep not in ("mask", "overlay"):
            return ResampledView(read, shape, dtype, size).read(box)
        smooth = ResampledView(read, shape, np.dtype(np.float32), size).read(box)
        return np.where(smooth >= self._threshold * _FULL, np.uint8(255), np.uint8(0))


class _Back:
    """An answer at its page's size."""

    def __init__(self, scale: PageScale, read: Any, shape: Ints, dtype: np.dtype[Any], info: ImageInfo) -> None:
        self._scale, self._read, self._from, self._dtype = scale, read, shape, dtype
        self._size = (info.size_of("y"), info.size_of("x"))
        self.shape: Ints = (*shape[:-2], *self._size)

    def read(self, box: Box) -> Pixels:
        return self._scale.brought_back(self._read, self._from, self._dtype, self._size, box)


class _StoredBack:
    """A stored answer at its page's size."""

    def __init__(self, scale: PageScale, store: Stored, info: ImageInfo) -> None:
        (image,) = store.layout.images
        self._back = _Back(scale, lambda box: store.read(0, 0, box), image.shape, np.dtype(image.dtype), info)
        self.layout = replace(store.layout, images=(replace(image, shape=self._back.shape),))

    def read(self, i_image: int, i_level: int, box: Box) -> Pixels:
        """See `ZarrSink.read`."""
        assert i_image == i_level == 0
        return self._back.read(box)


def _nearest(read: Any, shape: Ints, size: tuple[int, int], box: Box) -> Pixels:
    taken = []
    bounds = list(box)[:-2]
    for num_in, num_out, (start, stop) in zip(shape[-2:], size, list(box)[-2:], strict=True):
        at = nearest(num_in, num_out, start, stop)
        bounds.append((int(at[0]), int(at[-1]) + 1))
        taken.append(at - at[0])
    pixels = np.asarray(read(Box(tuple(a for a, _ in bounds), tuple(b for _, b in bounds))))
    return pixels[..., taken[0][:, None], taken[1][None]]
