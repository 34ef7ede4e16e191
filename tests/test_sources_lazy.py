"""What reading a TIFF costs: bytes, memory, time; and that threads may share a source."""

import os
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.sources_files import many_pages, picture, random_boxes
from unetctl.geometry.box import Box
from unetctl.sources.files import RandomAccessFile
from unetctl.sources.open import open_source
from unetctl.sources.tiff import TiffSource


class Meter:
    """Counts the bytes that are read from files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_bytes = 0
        read_into, read_at = RandomAccessFile.read_into, RandomAccessFile.read_at

        def counted_into(file: RandomAccessFile, offset: int, view: memoryview) -> None:
            self.num_bytes += len(view)
            read_into(file, offset, view)

        def counted_at(file: RandomAccessFile, offset: int, num_bytes: int) -> bytes:
            self.num_bytes += num_bytes
            return read_at(file, offset, num_bytes)

        monkeypatch.setattr(RandomAccessFile, "read_into", counted_into)
        monkeypatch.setattr(RandomAccessFile, "read_at", counted_at)


@pytest.mark.parametrize(
    "options", [{"tile": (64, 64)}, {"tile": (64, 64), "compression": "deflate"}, {"rowsperstrip": 64}, {}]
)
def test_box_costs_the_bytes_of_the_segments_that_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
):
    stack = np.random.default_rng(0).integers(0, 255, (6, 1024, 1024), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, metadata=None, photometric="minisblack", **options)
    source = TiffSource(str(tmp_path / "a.tif"))
    meter = Meter(monkeypatch)
    source.read(0, Box((2, 130, 200), (4, 190, 250)))
    # two planes; a tile of 64 x 64 each in both directions, or 60 rows; tables and directories on top
    in_segments = 2 * (64 * 64 if "tile" in options else 60 * 1024)
    assert meter.num_bytes <= 1.01 * in_segments + 2 * 2600
    opened = Meter(monkeypatch)
    _ = TiffSource(str(tmp_path / "a.tif")).info
    assert opened.num_bytes < stack.nbytes  # identity samples at most 4 MiB


def test_twenty_thousand_pages_open_at_once_and_take_no_memory(tmp_path: Path):
    stack = many_pages(tmp_path / "a.tif", 20_000)
    begin = time.perf_counter()
    tracemalloc.start()
    source = TiffSource(str(tmp_path / "a.tif"))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert time.perf_counter() - begin < 10  # traced, on a busy machine; untraced about 0.3 s
    assert held < 50 * 20_000
    assert source.images[0].shape == stack.shape
    for z in (0, 1, 777, 19_990):
        np.testing.assert_array_equal(source.read(0, Box((z, 1, 2), (z + 10, 7, 8))), stack[z : z + 10, 1:7, 2:8])


def test_threads_read_the_same(tmp_path: Path):
    stack = picture((4, 300, 200), "u2")
    tifffile.imwrite(
        tmp_path / "a.tif", stack, compression="deflate", tile=(64, 64), metadata=None, photometric="minisblack"
    )
    tifffile.imwrite(
        tmp_path / "b.tif", stack, compression="zstd", metadata=None, photometric="minisblack"
    )  # one strip a plane
    for name in ("a.tif", "b.tif"):
        source = open_source(str(tmp_path / name))
        boxes = random_boxes(stack.shape, 60)
        barrier = threading.Barrier(4)

        def work(i: int, source: Any = source, boxes: list[Box] = boxes, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            for box in boxes[i::2]:
                np.testing.assert_array_equal(source.read(0, box), stack[box.slices()])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, (0, 1, 0, 1)))


def test_strip_is_decoded_once_for_neighbouring_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plane = picture((600, 400))
    tifffile.imwrite(tmp_path / "a.tif", plane, compression="zstd", metadata=None)
    source = TiffSource(str(tmp_path / "a.tif"))
    meter = Meter(monkeypatch)
    for x in range(0, 400, 50):
        np.testing.assert_array_equal(source.read(0, Box((0, x), (600, x + 50))), plane[:, x : x + 50])
    assert meter.num_bytes < 2 * os.path.getsize(tmp_path / "a.tif")
