"""Files for the tests of the sources: TIFF written tag by tag where libraries refuse to, pictures of waves."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unetctl.geometry.box import Box
from unetctl.sources.base import Source

Tags = Mapping[int, tuple[str, Sequence[int] | bytes]]
_KINDS = {"B": 1, "s": 2, "H": 3, "I": 4, "Q": 16}


def picture(shape: Sequence[int], dtype: npt.DTypeLike = np.uint8, seed: int = 0) -> npt.NDArray[Any]:
    """Smooth waves with noise that use a good part of the dtype's range; no two planes alike."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype).kind
    grids = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij", sparse=True)
    waves = sum(np.sin(g / (3.0 + 2 * i)) for i, g in enumerate(grids)) / len(shape) + rng.normal(0, 0.1, shape)
    if kind == "b":
        return waves > 0
    if kind == "f":
        return waves.astype(dtype)
    limits = np.iinfo(np.dtype(dtype))
    high = min(limits.max, 2**40)
    low = -high if limits.min < 0 else 0
    return (low + (waves.clip(-1, 1) + 1) / 2 * (high - low)).astype(dtype)


def random_boxes(shape: Sequence[int], num_boxes: int, seed: int = 0) -> list[Box]:
    """The whole, and boxes of all sizes anywhere inside."""
    rng = np.random.default_rng(seed)
    found = [Box.whole(shape)]
    for _ in range(num_boxes):
        start = [int(rng.integers(0, n)) for n in shape]
        found.append(
            Box(tuple(start), tuple(int(rng.integers(a + 1, n + 1)) for a, n in zip(start, shape, strict=True)))
        )
    return found


def assert_reads(source: Source, expected: npt.NDArray[np.generic], i_image: int = 0, num_boxes: int = 8) -> None:
    """Every box of a picture equals the same box of `expected` (in our order of axes), in type and byte order too."""
    image = source.info.images[i_image]
    assert image.shape == expected.shape
    assert image.dtype == expected.dtype.newbyteorder("=")
    assert image.dtype.isnative
    assert len(source.info.preferred_chunk) == len(source.info.images)
    assert all(1 <= c <= n for c, n in zip(source.info.preferred_chunk[i_image], image.shape, strict=True))
    for box in random_boxes(image.shape, num_boxes):
        found = source.read(i_image, box)
        assert found.dtype == image.dtype
        assert found.flags.c_contiguous
        assert found.flags.writeable
        np.testing.assert_array_equal(found, expected[box.slices()], strict=True, err_msg=str(box))


def tiff_file(
    path: Path, pages: Sequence[Tags], data: bytes = b"", *, is_big: bool = False, order: str = "<", last: int = 0
) -> Path:
    """A TIFF written tag by tag: header, `data` (which starts at byte 16), then the directories.

    Args:
        path: to write.
        pages: tags of each page: code: (kind "B" "s" "H" "I" "Q", values).
        data: bytes between header and directories.
        is_big: BigTIFF.
        order: "<" or ">".
        last: what the last directory gives as the position of the next one.
    """
    count, entry, pointer = ("Q", "HHQ", "Q") if is_big else ("H", "HHI", "I")
    inline = struct.calcsize(pointer)
    out = bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if is_big else 42))
    out += struct.pack(order + ("HHQ" if is_big else "I"), *((8, 0) if is_big else ()), 0)
    link = len(out) - inline
    out += bytes(16 - len(out)) + data
    for tags in pages:
        out += bytes(len(out) % 2)
        struct.pack_into(order + pointer, out, link, len(out))
        start = len(out)
        size = struct.calcsize(order + count) + len(tags) * (struct.calcsize(order + entry) + inline) + inline
        body, extra = bytearray(struct.pack(order + count, len(tags))), bytearray()
        for code, (kind, values) in sorted(tags.items()):
            raw = values if isinstance(values, bytes) else struct.pack(f"{order}{len(values)}{kind}", *values)
            body += struct.pack(
                order + entry, code, _KINDS[kind], len(raw) // struct.calcsize(kind if kind != "s" else "B")
            )
            if len(raw) <= inline:
                body += raw.ljust(inline, b"\0")
            else:
                body += struct.pack(order + pointer, start + size + len(extra))
                extra += raw + bytes(len(raw) % 2)
        link = start + len(body)
        out += body + struct.pack(order + pointer, 0) + extra
    struct.pack_into(order + pointer, out, link, last)
    path.write_bytes(bytes(out))
    return path


def grey_tags(
    shape: tuple[int, int], offset: int = 16, num_bytes: int | None = None, **more: tuple[str, Sequence[int] | bytes]
) -> dict[int, tuple[str, Sequence[int] | bytes]]:
    """Tags of an uncompressed 8-bit page in one strip; `t259=("H", [8])` overrides tag 259."""
    height, width = shape
    tags: dict[int, tuple[str, Sequence[int] | bytes]] = {
        256: ("I", [width]), 257: ("I", [height]), 258: ("H", [8]), 259: ("H", [1]), 262: ("H", [1]),
        273: ("I", [offset]), 277: ("H", [1]), 278: ("I", [height]),
        279: ("I", [height * width if num_bytes is None else num_bytes]),
    }  # fmt: skip
    return tags | {int(name[1:]): value for name, value in more.items()}


def many_pages(path: Path, num_pages: int, shape: tuple[int, int] = (8, 8)) -> npt.NDArray[np.uint8]:
    """A BigTIFF of many small pages, each directory before its pixels; returns the stack."""
    stack = np.random.default_rng(1).integers(0, 255, (num_pages, *shape), dtype=np.uint8)
    codes = (256, 257, 258, 259, 262, 273, 277, 278, 279)
    page_bytes, size = shape[0] * shape[1], 8 + 20 * len(codes) + 8
    with path.open("wb") as stream:
        stream.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16))
        for i in range(num_pages):
            start = 16 + i * (size + page_bytes)
            values = (shape[1], shape[0], 8, 1, 1, start + size, 1, shape[0], page_bytes)
            entries = b"".join(struct.pack("<HHQQ", c, 16, 1, v) for c, v in zip(codes, values, strict=True))
            following = start + size + page_bytes if i + 1 < num_pages else 0
            stream.write(struct.pack("<Q", len(codes)) + entries + struct.pack("<Q", following) + stack[i].tobytes())
    return stack


def ome_xml(images: Sequence[str], uuid: str = "") -> bytes:
    """An OME-XML document around `Image` elements."""
    told = f' UUID="{uuid}"' if uuid else ""
    body = "".join(images)
    return f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"{told}>{body}</OME>'.encode()


def ome_image(
    sizes: Mapping[str, int],
    tiff_data: str,
    *,
    dtype: str = "uint8",
    order: str = "XYZCT",
    more: str = "",
    samples: int = 1,
    name: str = "a",
    channels: Sequence[str] = (),
) -> str:
    """One `Image` element; `sizes` by letter x, y, z, c, t."""
    told = " ".join(f'Size{a.upper()}="{sizes.get(a, 1)}"' for a in "xyzct")
    names = list(channels) or [""] * (sizes.get("c", 1) // samples)
    listed = "".join(
        f'<Channel ID="Channel:0:{i}" SamplesPerPixel="{samples}" Name="{n}"/>' for i, n in enumerate(names)
    )
    return (
        f'<Image ID="Image:0" Name="{name}">'
        f'<Pixels ID="Pixels:0" DimensionOrder="{order}" Type="{dtype}" {told} {more}>'
        f"{listed}{tiff_data}</Pixels></Image>"
    )
