"""Kinds of single pictures, by the first bytes of their files."""

import struct

# Pillow's names by the first bytes of a file; other plug-ins (some of which start programs) are never tried
_MAGIC: tuple[tuple[bytes, int, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", 0, "PNG"),
    (b"\xff\xd8\xff", 0, "JPEG"),
    (b"BM", 0, "BMP"),
    (b"GIF87a", 0, "GIF"),
    (b"GIF89a", 0, "GIF"),
    (b"WEBP", 8, "WEBP"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", 0, "JPEG2000"),
    (b"\xff\x4f\xff\x51", 0, "JPEG2000"),
    (b"ftypavif", 4, "AVIF"),
    (b"ftypavis", 4, "AVIF"),
    *((b"P" + digit, 0, "PPM") for digit in (b"1", b"2", b"3", b"4", b"5", b"6")),
    (b"\x0a\x05\x01", 0, "PCX"),
    (b"\x01\xda", 0, "SGI"),
    (b"qoif", 0, "QOI"),
)


def raster_format(head: bytes) -> str | None:
    """Pillow's name for the format of a file with these first bytes, None if it is none of ours."""
    for mark, offset, name in _MAGIC:
        if head[offset : offset + len(mark)] == mark:
            if name == "BMP" and not 12 <= struct.unpack("<I", head[14:18].ljust(4, b"\0"))[0] <= 256:
                continue
            if name == "PPM" and head[2:3] not in b"\n\r\t #":
                continue
            return name
    return None
