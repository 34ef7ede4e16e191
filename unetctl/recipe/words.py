"""A setting's type, bounds and near misses in plain words."""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Len, Lt, MaxLen, MinLen
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from unetctl.recipe.problems import nearest

#: What other trainers call our settings.
SYNONYMS: Mapping[str, str] = {
    "learning_rate": "train.lr", "batch_size": "train.batch", "num_epochs": "train.epochs", "max_epochs":
    "train.epochs", "iterations": "train.steps_per_epoch", "steps": "train.steps_per_epoch", "patch":
    "train.crop", "patch_size": "train.crop", "crop_size": "train.crop", "tile_size": "train.crop",
    "scheduler": "train.schedule", "random_seed": "train.seed", "amp": "train.precision", "clip_grad_norm":
    "train.grad_clip", "in_channels": "input.channels", "n_channels": "input.channels", "num_channels":
    "input.channels", "pixel_size": "input.spacing_um", "voxel_size": "input.spacing_um", "resolution":
    "input.spacing_um", "out_channels": "output.classes", "num_classes": "output.classes", "n_classes":
    "output.classes", "filters": "network.base_width", "features": "network.base_width", "base_channels":
    "network.base_width", "widths": "network.channels", "levels": "network.depth", "num_levels":
    "network.depth", "batch_norm": "network.norm", "upsampling": "network.up", "upsample": "network.up",
    "pooling": "network.down", "downsampling": "network.down", "label_values": "labels.values",
    "ignore_index": "labels.ignore", "w0": "loss.border_w0", "sigma": "loss.border_sigma_px", "noise":
    "augment.noise_sigma", "blur": "augment.blur_sigma_px", "elastic":
    "augment.elastic_prob", "zoom": "augment.scale", "num_blocks": "network.blocks",
}  # fmt: skip

#: What others call our choices, and ours that people write by another name.
VALUE_SYNONYMS: Mapping[str, str] = {
    "zscore": "mean_std", "z_score": "mean_std", "standard": "mean_std", "minmax": "range", "min_max":
    "range", "bce": "cross_entropy", "ce": "cross_entropy", "float32": "fp32", "float": "fp32", "bfloat16":
    "bf16", "deconv": "transposed", "conv_transpose": "transposed", "linear": "bilinear", "cubic":
    "bicubic", "bn": "batch", "avg": "average", "mean": "average", "zeros": "zero", "mirror": "reflect",
    "multiclass": "classes", "argmax": "classes", "padded": "same", "unpadded": "valid", "momentum": "sgd",
}  # fmt: skip

_MAX_BITS = 256  # of a whole number that is written out; beyond 4300 digits Python refuses to
_TRUTH = {"yes": True, "on": True, "no": False, "off": False}

_PATTERN_WORDS = {
    r"^[A-Za-z0-9][A-Za-z0-9_-]*$": "a name of letters, digits, - and _",
    r"^[a-z][a-z0-9_]*$": "a name of small letters, digits and _",
    r"^#[0-9a-f]{6}$": 'a colour like "#ff8000", in small letters',
}


def toml_value(value: object) -> str:
    """One value in TOML: text, number, true/false, or a list of these; other values as Python shows them."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() if value.bit_length() > _MAX_BITS:
            return "a number of very many digits"
        case int() | float():
            return repr(value)
        case str():
            # JSON strings are TOML's basic strings, but for DEL, which TOML wants escaped
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case dict():
            return "{" + ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items()) + "}"
        case Sequence():
            return "[" + ", ".join(toml_value(item) for item in value) + "]"
        case _:
            return str(value)


def field_words(field: FieldInfo) -> str:
    """What a setting takes: "a whole number from 1 to 8", "one of "max", "average", "strided"", "a number above 0 or "auto""."""
    ways = [arg for arg in get_args(field.annotation) if arg is not NoneType]
    if get_origin(field.annotation) in (Union, UnionType) and len(ways) > 1:
        return " or ".join(_type_words(way, []).removeprefix("one of ") for way in ways)
    return _type_words(field.annotation, list(field.metadata))


def choices(field: FieldInfo) -> tuple[object, ...]:
    """The values of a setting with a fixed choice, else ()."""
    inner, _ = _unwrap(field.annotation, [])
    return get_args(inner) if get_origin(inner) is Literal else ()


def list_item(field: FieldInfo) -> Any:
    """Type of the items if the setting is a list, else None."""
    inner, _ = _unwrap(field.annotation, [])
    return _unwrap(get_args(inner)[0], [])[0] if get_origin(inner) is tuple else None


def is_text(field: FieldInfo) -> bool:
    """True if the setting is a text, free or one of a choice of words."""
    inner, _ = _unwrap(field.annotation, [])
    return inner is str or any(isinstance(choice, str) for choice in choices(field))


def repair(model: type[BaseModel], key: str, value: object) -> str:
    """What was probably meant by a refused value, as a hint; "" if nothing suggests itself.

    Only what the setting would take is suggested.
    """
    field = model.model_fields[key]
    options = [option for option in choices(field) if isinstance(option, str)]
    if isinstance(value, str) and options:
        known = VALUE_SYNONYMS.get(value.lower().replace("-", "_"), "")
        near = known if known in options else nearest(value, options, cutoff=0.5)
        if near:
            return f'did you mean "{near}"?'
    for candidate in _candidates(value, list_item(field)):
        if _takes(model, key, candidate):
            bare = isinstance(value, str) and not isinstance(candidate, str | list)
            return f"write {toml_value(candidate)}" + (" without quotes" if bare else "")
    return ""


def _candidates(value: object, item: Any) -> Iterator[object]:
    match value:
        case str():
            text = value.strip()
            if text.lower() in _TRUTH:
                yield _TRUTH[text.lower()]
            for attempt in (text.lower(), f"[{text}]"):
                with suppress(ValueError, RecursionError, KeyError):
                    yield tomllib.loads(f"v = {attempt}")["v"]
            yield text
        case bool():
            yield int(value)
        case float() if value.is_integer():
            yield int(value)
        case int() if value in (0, 1):
            yield bool(value)
    if isinstance(value, list):
        if len(value) == 1:
            yield value[0]
        yield [int(v) if isinstance(v, float) and v.is_integer() else v for v in value]
        return
    if item is not None:
        yield [value]
        if isinstance(value, int):
            yield [value, value]
    if not isinstance(value, int) or value.bit_length() <= _MAX_BITS:
        yield str(value)


def _takes(model: type[BaseModel], key: str, value: object) -> bool:
    try:
        model.model_validate({key: value})
    except ValidationError as error:
        return all(not e["loc"] or e["loc"][0] != key for e in error.errors())
    return True


def _unwrap(tp: Any, metadata: list[Any]) -> tuple[Any, list[Any]]:
    """A type without Annotated and without the None of an optional setting, and its constraints."""
    while True:
        origin = get_origin(tp)
        if origin is Annotated:
            tp, *extra = get_args(tp)
            for item in extra:
                metadata = metadata + (list(item.metadata) if isinstance(item, FieldInfo) else [item])
        elif origin in (Union, UnionType):
            tp = next(arg for arg in get_args(tp) if arg is not NoneType)
        else:
            return tp, metadata


def _type_words(tp: Any, metadata: list[Any], several: bool = False) -> str:
    tp, metadata = _unwrap(tp, metadata)
    origin = get_origin(tp)
    if origin is Literal:
        return "one of " + ", ".join(toml_value(option) for option in get_args(tp))
    if origin is tuple:
        return _list_words(get_args(tp), metadata)
    if tp is bool:
        return "true or false"
    if tp is str:
        pattern = next((p for m in metadata if (p := getattr(m, "pattern", None))), None)
        return _PATTERN_WORDS.get(str(pattern), "texts in quotes" if several else "text in quotes")
    noun = "whole number" if tp is int else "number"
    return (f"{noun}s" if several else f"a {noun}") + _bounds(metadata)


def _list_words(args: tuple[Any, ...], metadata: list[Any]) -> str:
    if args[-1] is not Ellipsis:
        return f"a list of {len(args)} {_type_words(args[0], [], several=True)}"
    least, most = 0, None
    for m in metadata:
        if isinstance(m, MinLen | Len):
            least = m.min_length
        if isinstance(m, MaxLen | Len):
            most = m.max_length
    count = f"{least} to {most} " if least and most else f"{least} or more " if least else ""
    return f"a list of {count}{_type_words(args[0], [], several=True)}"


def _bounds(metadata: list[Any]) -> str:
    low = next((m.ge for m in metadata if isinstance(m, Ge)), None)
    above = next((m.gt for m in metadata if isinstance(m, Gt)), None)
    high = next((m.le for m in metadata if isinstance(m, Le)), None)
    below = next((m.lt for m in metadata if isinstance(m, Lt)), None)
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" from {low}" + (f" to below {below}" if below is not None else " up")
    if above is not None:
        return f" above {above}" + (f" and at most {high}" if high is not None else "")
    return ""
