"""OME-XML of a TIFF file: the pictures that it describes and where it says their planes lie.

The text of a 20,000-plane file is megabytes long; it is parsed in pieces and nothing of it is kept but numbers
(OME-TIFF specification, https://docs.openmicroscopy.org/ome-model/).
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from xml.parsers import expat

from unetctl.sources.units import micrometres


@dataclass
class OmeImage:
    """One `Image` of the metadata.

    Attributes:
        name: as given.
        order: letters of the planes' dimensions, slowest first, e.g. "tcz".
        sizes: by letter: x, y, z, c (all samples), t.
        samples: per pixel.
        spacing_um: by letter.
        channel_names: one a channel, "" where unnamed.
        first_c, first_z, first_t, ifd, num_planes, file_ids: one value a `TiffData` element; `ifd` and `num_planes` are
            -1 where it does not say, `file_ids` is the number in `OmeMetadata.files`, or -1 for this file.
    """

    name: str = ""
    order: str = "tcz"
    sizes: dict[str, int] = field(default_factory=dict)
    samples: int = 1
    spacing_um: dict[str, float] = field(default_factory=dict)
    channel_names: list[str] = field(default_factory=list)
    first_c: "array[int]" = field(default_factory=lambda: array("q"))
    first_z: "array[int]" = field(default_factory=lambda: array("q"))
    first_t: "array[int]" = field(default_factory=lambda: array("q"))
    ifd: "array[int]" = field(default_factory=lambda: array("q"))
    num_planes: "array[int]" = field(default_factory=lambda: array("q"))
    file_ids: "array[int]" = field(default_factory=lambda: array("i"))


@dataclass
class OmeMetadata:
    """What the metadata say.

    Attributes:
        uuid: of the file that holds them, or "".
        images: in order.
        files: (uuid, file name) of the files that hold planes, in the order of their first mention.
        metadata_file: name of the companion that holds the real metadata, or "".
    """

    uuid: str = ""
    images: list[OmeImage] = field(default_factory=list)
    files: list[tuple[str, str]] = field(default_factory=list)
    metadata_file: str = ""


def parse_ome(pieces: Iterable[bytes]) -> OmeMetadata | None:
    """Parses OME-XML given in pieces.

    Returns:
        None if it is not well formed or gives sizes that are no numbers: the file is then read like any TIFF.
    """
    builder = _Builder()
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    try:
        for piece in pieces:
            parser.Parse(piece, False)
        parser.Parse(b"", True)
    except (expat.ExpatError, ValueError, KeyError, OverflowError):
        return None
    return builder.metadata


class _Builder:
    """Turns the events of the parser into numbers; no element is kept."""

    def __init__(self) -> None:
        self.metadata = OmeMetadata()
        self._image: OmeImage | None = None
        self._ids: dict[tuple[str, str], int] = {}
        self._depth = 0
        self._file_name: str | None = None
        self._uuid = ""

    def start(self, tag: str, told: dict[str, str]) -> None:
        name = tag.rpartition("}")[2]
        self._depth += 1
        if self._depth == 1:
            self.metadata.uuid = told.get("UUID", "")
        elif name == "BinaryOnly":
            self.metadata.metadata_file = told.get("MetadataFile", "")
        elif name == "Image" and self._depth == 2:
            self._image = OmeImage(name=told.get("Name", ""))
            self.metadata.images.append(self._image)
        elif self._image is None:
            pass
        elif name == "Pixels":
            self._pixels(self._image, told)
        elif name == "Channel" and self._image.sizes:
            self._image.channel_names.append(told.get("Name", ""))
            self._image.samples = max(self._image.samples, int(told.get("SamplesPerPixel", 1)))
        elif name == "TiffData":
            self._tiff_data(self._image, told)
        elif name == "UUID":
            self._file_name, self._uuid = told.get("FileName", ""), ""

    def text(self, data: str) -> None:
        if self._file_name is not None:
            self._uuid += data

    def end(self, tag: str) -> None:
        name = tag.rpartition("}")[2]
        self._depth -= 1
        if name == "UUID" and self._file_name is not None:
            if self._image is not None and self._image.file_ids:
                key = (self._uuid.strip(), self._file_name)
                number = self._ids.setdefault(key, len(self._ids))
                if number == len(self.metadata.files):
                    self.metadata.files.append(key)
                self._image.file_ids[-1] = number
            self._file_name = None
        elif name == "Image" and self._depth == 1:
            self._image = None

    def _pixels(self, image: OmeImage, told: dict[str, str]) -> None:
        image.sizes = {a: int(told["Size" + a.upper()]) for a in "xyzct"}
        if min(image.sizes.values()) <= 0:
            raise ValueError("sizes below 1")
        order = told.get("DimensionOrder", "XYZCT").lower()[:1:-1]
        if sorted(order) != ["c", "t", "z"]:
            raise ValueError(f"dimension order {order}")
        image.order = order
        for a in "xyz":
            size = micrometres(told.get("PhysicalSize" + a.upper()), told.get(f"PhysicalSize{a.upper()}Unit", "µm"))
            if size is not None:
                image.spacing_um[a] = size

    def _tiff_data(self, image: OmeImage, told: dict[str, str]) -> None:
        image.first_c.append(int(told.get("FirstC", 0)))
        image.first_z.append(int(told.get("FirstZ", 0)))
        image.first_t.append(int(told.get("FirstT", 0)))
        image.ifd.append(int(told.get("IFD", -1)))
        image.num_planes.append(int(told.get("PlaneCount", told.get("NumPlanes", -1))))
        image.file_ids.append(-1)
