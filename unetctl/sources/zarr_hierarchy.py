"""Which arrays of a zarr hierarchy are pictures, by the JSON files in its folders.

The files are read here, not by the library: damaged ones get a sentence of ours, and nothing is opened on the way.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unetctl.errors import InputError
from unetctl.sources.units import micrometres, um_per_unit

METADATA_NAMES = ("zarr.json", ".zarray", ".zgroup")
_MAX_METADATA_BYTES = 16 * 1024 * 1024
_MAX_NAMED = 12


@dataclass(frozen=True)
class Found:
    """One array to open, and what the metadata above it say.

    Attributes:
        path: below the root; "" for the root itself.
        name: of the picture, "" if it is the only one.
        axes: one letter an axis, "" if unknown.
        spacing_um: pixel size by letter.
        channel_names: as given.
        notes: sentences for the user.
    """

    path: str
    name: str
    axes: str = ""
    spacing_um: dict[str, float] | None = None
    channel_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def is_zarr(path: str | os.PathLike[str]) -> bool:
    """True for the folder of a zarr group or array."""
    return any(os.path.isfile(os.path.join(path, name)) for name in METADATA_NAMES)


def find_arrays(path: str) -> tuple[str, list[Found]]:
    """Kind of the hierarchy and the arrays in it that are pictures.

    Raises:
        InputError: if metadata are damaged, it is a plate or well, or there is no picture or no single one.
    """
    attributes = _attributes(path)
    if _is_array(path):
        return _plain_kind(path), [Found("", "", _dimension_letters(path))]
    ome = attributes.get("ome") if isinstance(attributes.get("ome"), dict) else None
    told: dict[str, Any] = ome if ome is not None else attributes
    if "plate" in told or "well" in told:
        raise InputError(
            f"{path} is a {'plate' if 'plate' in told else 'well'} of many fields",
            "one image",
            "give one field, e.g. PLATE.zarr/A/1/0, or run over the fields as a list of inputs",
        )
    if told.get("multiscales"):
        return _multiscales(path, "", told)
    layout = told.get("bioformats2raw.layout", attributes.get("bioformats2raw.layout"))
    if layout is not None:
        return _collection(path)
    return _single(path)


def _multiscales(root: str, below: str, told: dict[str, Any]) -> tuple[str, list[Found]]:
    listed = told["multiscales"]
    version = str(told.get("version") or (listed[0].get("version") if isinstance(listed[0], dict) else "") or "0.4")
    found = []
    for i, scale in enumerate(listed):
        try:
            axes = scale.get("axes")
            told_axes: list[Any] = axes or list("tczyx")  # versions before 0.3 name none
            names = [str(a["name"] if isinstance(a, dict) else a) for a in told_axes]
            units: list[Any] = [a.get("unit") if isinstance(a, dict) else None for a in told_axes]
            types: list[Any] = [a.get("type") if isinstance(a, dict) else None for a in told_axes]
            level = scale["datasets"][0]
            place = os.path.join(below, str(level["path"]))
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise InputError(
                f"{root} has damaged OME-Zarr metadata ({error!r})", "multiscales with axes and datasets"
            ) from error
        if ".." in Path(place).parts or os.path.isabs(place):
            raise InputError(f"{root} names the array {place!r}", "a place inside it")
        name = str(scale.get("name") or "") if len(listed) > 1 else ""
        spacing, notes = _spacing(scale, level, names, units)
        found.append(
            Found(
                place,
                name or (below if below else str(i) if len(listed) > 1 else ""),
                _letters(names, types),
                spacing,
                _channels(told),
                notes,
            )
        )
    return f"OME-Zarr {version}", found


def _letters(names: list[str], types: list[Any]) -> str:
    """One letter an axis; longer names by their type, else left open."""
    letters = []
    for name, kind in zip(names, types, strict=True):
        letter = (
            name.lower()
            if len(name) == 1 and name.isalpha()
            else {"time": "t", "channel": "c"}.get(str(kind or name).lower(), "?")
        )
        letters.append("?" if letter in letters or letter == "s" else letter)
    return "".join(letters)


def _spacing(
    scale: dict[str, Any], level: dict[str, Any], names: list[str], units: list[Any]
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Pixel size in micrometres by letter: the level's scale times the one for all levels."""
    factors = [1.0] * len(names)
    told = False
    for transforms in (level.get("coordinateTransformations"), scale.get("coordinateTransformations")):
        for transform in transforms if isinstance(transforms, list) else []:
            values = (
                transform.get("scale") if isinstance(transform, dict) and transform.get("type") == "scale" else None
            )
            if (
                isinstance(values, list)
                and len(values) == len(names)
                and all(isinstance(v, int | float) for v in values)
            ):
                factors = [f * v for f, v in zip(factors, values, strict=True)]
                told = True
    spacing = {}
    unknown = set()
    for name, unit, factor in zip(names, units, factors, strict=True):
        size = micrometres(factor, unit if isinstance(unit, str) else None)
        if told and size is not None and name.lower() in "zyx":
            spacing[name.lower()] = size
        elif (
            told
            and name.lower() in "zyx"
            and factor != 1
            and um_per_unit(unit if isinstance(unit, str) else None) is None
        ):
            unknown.add(str(unit or "no unit"))
    notes = (f"pixel size not known in micrometres: given in {', '.join(sorted(unknown))}",) if unknown else ()
    return spacing, notes


def _channels(told: dict[str, Any]) -> tuple[str, ...]:
    omero = told.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list):
        return ()
    names = tuple(str(c.get("label", "")) if isinstance(c, dict) else "" for c in channels)
    return names if any(names) else ()


def _collection(path: str) -> tuple[str, list[Found]]:
    """The images of a bioformats2raw layout, in the order of OME/series or by number."""
    ome = _attributes(os.path.join(path, "OME"))
    told = ome.get("ome") if isinstance(ome.get("ome"), dict) else ome
    series = told.get("series") if isinstance(told, dict) else None
    if not isinstance(series, list) or not series:
        series = sorted((n for n in os.listdir(path) if n.isdigit()), key=int)
    kind, found = "OME-Zarr", []
    for name in series:
        if ".." in Path(str(name)).parts or os.path.isabs(str(name)):
            raise InputError(f"{path} names the image {name!r}", "a place inside it")
        attributes = _attributes(os.path.join(path, str(name)))
        inner = attributes["ome"] if isinstance(attributes.get("ome"), dict) else attributes
        if not inner.get("multiscales"):
            raise InputError(
                f"{path} names the image {name!r}, which has no OME-Zarr metadata",
                "images as it lists them",
                "copy it again",
            )
        kind, images = _multiscales(path, str(name), inner)
        found += images
    if not found:
        raise InputError(f"{path} is a collection without any image")
    return kind + " collection", found


def _single(path: str) -> tuple[str, list[Found]]:
    """The only array or image in a group."""
    arrays, images = [], []
    for place in _walk(path):
        folder = os.path.join(path, place)
        if _is_array(folder):
            arrays.append(place)
            continue
        attributes = _attributes(folder)
        inner = attributes["ome"] if isinstance(attributes.get("ome"), dict) else attributes
        if inner.get("multiscales"):
            images.append((place, inner))
    if len(images) == 1:
        return _multiscales(path, *images[0])
    choices = [place for place, _ in images] or arrays
    if len(choices) == 1:
        return _plain_kind(os.path.join(path, choices[0])), [
            Found(choices[0], "", _dimension_letters(os.path.join(path, choices[0])))
        ]
    if not choices:
        raise InputError(f"{path} is a zarr group without any array", "an image")
    named = ", ".join(choices[:_MAX_NAMED]) + (
        f" and {len(choices) - _MAX_NAMED} more" if len(choices) > _MAX_NAMED else ""
    )
    raise InputError(
        f"{path} holds {len(choices)} {'images' if images else 'arrays'}: {named}",
        "one",
        f"choose one, e.g. {os.path.join(path, choices[0])}",
    )


def _walk(path: str) -> Iterator[str]:
    """Places of the groups and arrays below a group, at most three levels down, but not what lies inside an image."""
    waiting = [(name, 1) for name in sorted(os.listdir(path), key=_natural)]
    while waiting:
        place, depth = waiting.pop(0)
        folder = os.path.join(path, place)
        if not is_zarr(folder):
            continue
        yield place
        attributes = {} if _is_array(folder) else _attributes(folder)
        if depth < 3 and not _is_array(folder) and "multiscales" not in attributes and "ome" not in attributes:
            waiting += [(os.path.join(place, name), depth + 1) for name in sorted(os.listdir(folder), key=_natural)]


def _natural(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() and len(name) < 19 else (-1, name)


def _json(path: str) -> dict[str, Any]:
    try:
        if os.path.getsize(path) > _MAX_METADATA_BYTES:
            raise InputError(f"{path} has {os.path.getsize(path)} bytes", "metadata of at most 16 MiB")
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read ({error})", "zarr metadata in JSON", "the file is cut off or damaged"
        ) from error
    if not isinstance(found, dict):
        raise InputError(f"{path} is no JSON object", "zarr metadata")
    return found


def _attributes(folder: str) -> dict[str, Any]:
    attributes = _json(os.path.join(folder, "zarr.json")).get("attributes")
    return attributes if isinstance(attributes, dict) else _json(os.path.join(folder, ".zattrs"))


def _is_array(folder: str) -> bool:
    return (
        os.path.isfile(os.path.join(folder, ".zarray"))
        or _json(os.path.join(folder, "zarr.json")).get("node_type") == "array"
    )


def _plain_kind(folder: str) -> str:
    return "zarr v3" if os.path.isfile(os.path.join(folder, "zarr.json")) else "zarr v2"


def _dimension_letters(folder: str) -> str:
    """Letters of a plain array that names its dimensions (zarr v3, xarray), "" otherwise."""
    names = _json(os.path.join(folder, "zarr.json")).get("dimension_names") or _attributes(folder).get(
        "_ARRAY_DIMENSIONS"
    )
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        return ""
    letters = _letters(names, [None] * len(names))
    return letters if "y" in letters and "x" in letters else ""
