"""A recipe in a few lines, for the list of tasks."""

from unetctl.recipe.schema import Recipe


def describe(recipe: Recipe) -> list[str]:
    """What the task is, what it takes, what it gives, and with which network; one line each, no line end.

    The first line is the task's name and title; the others begin with a word and a colon.
    """
    task = recipe.task
    lines = [f"{task.name}: {task.title}" if task.title else task.name]
    if task.summary:
        lines.append(f"what: {task.summary}")
    return [*lines, f"in: {_input(recipe)}", f"out: {_output(recipe)}", f"network: {_network(recipe)}"]


def train_command(recipe: Recipe) -> str:
    """How a shipped task is trained."""
    data = "FOLDER" if recipe.compose.kind == "none" else "PICTURE"
    return f"unetctl train --data {data} --task {recipe.task.name}"


def _input(recipe: Recipe) -> str:
    given = recipe.input
    words = [_count(given.channels, "channel"), "a stack" if given.stack else "single pages"]
    if given.luminance:
        words.append("colour is turned into brightness")
    if given.context_slices > 1:
        words.append(f"{given.context_slices} planes at once")
    if given.polarity:
        words.append(given.polarity)
    if given.spacing_um:
        words.append(f"trained at {_spacing(given.spacing_um)}")
    if given.dpi:
        words.append(f"trained at {trained_dpi(given.dpi)}")
    return ", ".join(words)


def trained_dpi(dpi: tuple[float, float]) -> str:
    """A range of resolutions in words: "150 to 600 dpi"."""
    lowest, highest = dpi
    return f"{lowest:g} dpi" if lowest == highest else f"{lowest:g} to {highest:g} dpi"


def _spacing(spacing_um: tuple[float, ...]) -> str:
    axes = "zyx"[-len(spacing_um) :]
    factor, unit = (1000.0, "nm") if max(spacing_um) < 1 else (1.0, "um")
    return " x ".join(f"{size * factor:g}" for size in spacing_um) + f" {unit} ({axes})"


def _output(recipe: Recipe) -> str:
    out = recipe.output
    what = {
        "probability": "probability of",
        "mask": "mask of",
        "classes": "number of the class,",
        "labels": "a number for every object, from",
        "logits": "logits of",
        "image": "the image, repaired where there is"
        if recipe.network.kind == "restorer"
        else "the image, cleaned, around",
    }[out.keep]
    return f"{what} {', '.join(out.classes) or 'the foreground'}"


def _network(recipe: Recipe) -> str:
    spec = recipe.network_spec
    line = f"{spec.dims}-D {spec.title}, {spec.summary}, stride {spec.stride[-1]}, halo {spec.halo[-1]} px"
    return line if spec.is_exact else f"{line}, not exact: {spec.inexact_because}"


def _count(num: int, noun: str) -> str:
    return f"{num} {noun}" if num == 1 else f"{num} {noun}s"
