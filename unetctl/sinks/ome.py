"""OME-Zarr 0.5 metadata (https://ngff.openmicroscopy.org/0.5/), and how a layout is kept in it.

Everything here is a plain dict that follows from the layout alone: same layout, same bytes.
"""

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from unetctl.geometry.box import Ints
from unetctl.sinks.base import OutputImage, OutputLayout
from unetctl.sinks.units import Level, is_averaged

VERSION = "0.5"
LAYOUT_FORMAT = 1
"""Version of what stands under the attribute `unetctl`."""

_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
_COLORS = ("00FFFF", "FF00FF", "FFFF00", "FF0000", "00FF00", "0000FF")


def image_metadata(image: OutputImage, levels: tuple[Level, ...], kept_axes: Ints, suffix: str = "") -> dict[str, Any]:
    """The `ome` attribute of one picture's group.

    Args:
        image: the picture.
        levels: its resolutions; their arrays are named "0", "1", ...
        kept_axes: indices of the axes that the arrays have (all but the outer ones).
        suffix: added to the name, where one picture is stored as several.
    """
    spacing = spacing_by_axis(image)
    axes = [_axis(image.axes[i], spacing) for i in kept_axes]
    datasets = []
    for i_level in range(len(levels)):
        factors = [2.0**i_level if image.axes[i] in "yx" else 1.0 for i in kept_axes]
        steps = [spacing.get(image.axes[i]) or 1.0 for i in kept_axes]
        transforms: list[dict[str, Any]] = [
            {"type": "scale", "scale": [s * f for s, f in zip(steps, factors, strict=True)]}
        ]
        if i_level and is_averaged(image):  # the centre of a mean lies between the pixels, a strided label does not
            shift = [s * (f - 1) / 2 for s, f in zip(steps, factors, strict=True)]
            transforms.append({"type": "translation", "translation": shift})
        datasets.append({"path": str(i_level), "coordinateTransformations": transforms})
    multiscale: dict[str, Any] = {
        "name": image.name + suffix,
        "axes": axes,
        "datasets": datasets,
        "type": "mean" if is_averaged(image) else "nearest",
    }
    metadata: dict[str, Any] = {"version": VERSION, "multiscales": [multiscale]}
    if image.kind == "labels":
        metadata["image-label"] = {}
    if "c" in image.axes and image.channel_names:
        metadata["omero"] = _omero(image)
    return metadata


def series_metadata(num_groups: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The `ome` attributes of root and group `OME` of a store of several pictures (bioformats2raw)."""
    root = {"version": VERSION, "bioformats2raw.layout": 3}
    return root, {"version": VERSION, "series": [str(i) for i in range(num_groups)]}


def layout_to_json(layout: OutputLayout) -> dict[str, Any]:
    """What the root says under `unetctl`: the provenance, and how many pictures there are.

    Raises:
        ValueError: if the provenance holds what JSON cannot (NaN, objects).
    """
    provenance = json.loads(json.dumps(layout.provenance, sort_keys=True, allow_nan=False))
    return {"format": LAYOUT_FORMAT, "num_images": len(layout.images), "provenance": provenance}


def image_to_json(image: OutputImage) -> dict[str, Any]:
    """All fields of a picture as JSON values."""
    fields: dict[str, Any] = json.loads(json.dumps(asdict(image), allow_nan=False))
    return fields


def image_from_json(fields: dict[str, Any]) -> OutputImage:
    """The inverse of `image_to_json`.

    Raises:
        TypeError: if a field is missing or unknown.
    """
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return OutputImage(**values)


def spacing_by_axis(image: OutputImage) -> dict[str, float]:
    """Pixel size in micrometres by axis letter, only where it is known."""
    spatial = [a for a in image.axes if a in "zyx"]
    if len(image.spacing_um) != len(spatial):
        return {}
    return {a: float(s) for a, s in zip(spatial, image.spacing_um, strict=True) if s is not None and s > 0}


def _axis(letter: str, spacing: dict[str, float]) -> dict[str, str]:
    axis = {"name": letter}
    if letter in _TYPES:
        axis["type"] = _TYPES[letter]
    if letter in spacing:
        axis["unit"] = "micrometer"
    return axis


def _omero(image: OutputImage) -> dict[str, Any]:
    dtype = np.dtype(image.dtype)
    top = float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0
    channels = [
        {
            "label": name,
            "color": _COLORS[i % len(_COLORS)] if len(image.channel_names) > 1 else "FFFFFF",
            "active": True,
            "window": {"min": 0.0, "start": 0.0, "end": top, "max": top},
        }
        for i, name in enumerate(image.channel_names)
    ]
    return {"channels": channels, "rdefs": {"model": "color" if len(channels) > 1 else "greyscale"}}
