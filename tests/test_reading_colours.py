"""Colour turned to brightness: the numbers, and what it takes to make them."""

import tracemalloc

import numpy as np

from unetctl.geometry.box import Box
from unetctl.runtime.grey_scale import LUMINANCE
from unetctl.runtime.reading import read_channels
from unetctl.sources.memory import MemorySource


def test_brightness_is_the_weighted_sum_and_takes_no_more_than_is_projected():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1000, 1000)).astype(np.uint8)
    source = MemorySource(pixels, "cyx", is_rgb=True)
    tracemalloc.start()
    found = read_channels(source, 0, (0, 1, 2), "luminance", Box((0, 0), (1000, 1000)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.dtype == np.float32
    assert np.allclose(found[0], np.tensordot(LUMINANCE, pixels.astype(np.float64), 1), atol=1e-3)
    assert peak <= 12 * pixels[0].size
