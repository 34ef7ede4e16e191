"""What a user of an exported network must know, in words: metadata of ONNX files and packages."""

import json
from importlib.metadata import PackageNotFoundError, version

from unetctl.jobs.tasks import ResolvedTask
from unetctl.networks.portable import Sizes
from unetctl.networks.spec import NetworkSpec
from unetctl.networks.weights import WeightsHeader
from unetctl.recipe.schema import Normalise, Recipe


def facts_of(resolved: ResolvedTask, spec: NetworkSpec, sizes: Sizes) -> dict[str, str]:
    """What a user of the exported network must know, as texts: metadata of the ONNX file."""
    recipe, header = resolved.recipe, resolved.header
    halo = spec.halo[0]
    facts = {
        "unetctl_version": _version(),
        "task": resolved.name,
        "title": recipe.task.title,
        "summary": recipe.task.summary,
        "recipe": recipe.task.name,
        "recipe_fingerprint": recipe.fingerprint(),
        "weights_sha256": resolved.weights_sha256,
        "network": f"{spec.title}, {spec.summary}",
        "licence": header.licence,
        "classes": ", ".join(recipe.output.classes),
        "activation": recipe.output.resolved_activation,
        "threshold": f"{recipe.output.threshold:g}",
        "channels": ", ".join(channel_names(recipe)),
        "luminance": "colour is turned into brightness first, 0.299 R + 0.587 G + 0.114 B"
        if recipe.input.luminance
        else "",
        "normalise": json.dumps(recipe.normalise.model_dump(mode="json", exclude_none=True), sort_keys=True),
        "normalise_words": normalise_words(recipe.normalise),
        "polarity": header.polarity or recipe.input.polarity,
        "spacing_um": _spacing(header),
        "dpi": " to ".join(f"{d:g}" for d in recipe.input.dpi) if recipe.input.dpi else "",
        "value_range": " to ".join(f"{v:g}" for v in header.value_range) if header.value_range else "",
        "training_data": str(header.training.get("data", "")),
        "training_authors": str(header.training.get("authors", "")),
        "input_sizes": f"{sizes} pixels along each axis",
        "output_sizes": f"{sizes.lost} pixels less" if sizes.lost else "those of the input",
        "stride": str(sizes.step),
        "halo": str(halo),
        "border": (
            f"mirror the picture by {halo} pixels on each side (numpy's reflect), and on to the next size taken at the far ones"
            + ("" if sizes.lost else f" and cut {halo} pixels off each side of the answer")
            + "; tiles that start at multiples of the stride then fit without seams"
            if spec.border == "mirror"
            else "the network pads at the picture's edge itself; tiles inside need the halo and start at multiples of the stride"
        ),
    }
    if not spec.is_exact:
        facts["tiling"] = f"tiles do not fit exactly: {spec.inexact_because}"
    return {key: value for key, value in facts.items() if value}


def channel_names(recipe: Recipe) -> list[str]:
    """Of the network's input, in its order: plane by plane where it sees neighbours."""
    colours = {1: ("grey",), 3: ("red", "green", "blue")}
    names = colours.get(recipe.input.channels) or tuple(f"channel {i}" for i in range(recipe.input.channels))
    num_planes = recipe.input.context_slices
    if num_planes == 1:
        return list(names)
    return [f"{name} of plane {p - num_planes // 2:+d}" for p in range(num_planes) for name in names]


def normalise_words(normalise: Normalise) -> str:
    """How grey values become the network's input, in a formula with its words."""
    match normalise.method:
        case "mean_std":
            return "(value - mean) / deviation, per channel, of the whole volume or page"
        case "two_levels":
            return (
                "(value - middle) * 2 / (paper - ink), middle = paper - (paper - ink) / 2; ink and paper are the mean grey "
                "values of the darker and the brighter side of Otsu's threshold of the whole page, and paper - ink counts as "
                f"at least {normalise.least_contrast:g} of the range of the pixel type (of "
                "more than 8 bits: of the fewest that hold the page)"
            )
        case "percentile":
            turned = (
                "; where the median lies nearer to high, the ground is bright, and it is (high - value) / (high - low) instead"
                if normalise.ground == "dark"
                else ""
            )
            return (
                f"(value - low) / (high - low), per channel; low and high are the percentiles {normalise.low:g} and "
                f"{normalise.high:g} of the whole volume or page{turned}"
            )
        case "range":
            given = normalise.value_range
            return (
                f"(value - {given[0]:g}) / {given[1] - given[0]:g}"
                if given
                else "(value - lowest) / (highest - lowest) of the pixel type (of bytes value / 255; floats as they are)"
            )
    return "none: the values as they are"


def _spacing(header: WeightsHeader) -> str:
    known = [size for size in header.spacing_um if size is not None]
    if not known or len(known) < len(header.spacing_um):
        return ""
    return " x ".join(f"{size:g}" for size in known) + f" ({'zyx'[-len(known) :]})"


def _version() -> str:
    try:
        return version("unetctl")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0+unknown"
