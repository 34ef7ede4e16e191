"""`unetctl info FILE`: what a file is, told before anything is done with it. No pixels are read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from unetctl.errors import WeightsError
from unetctl.jobs.pages.ledger import is_page_run
from unetctl.jobs.train_folder import RUN_WEIGHTS
from unetctl.recipe.overview import trained_dpi
from unetctl.runtime.journal import latest_records
from unetctl.runtime.memory import format_size
from unetctl.runtime.run_folder import RunFolder
from unetctl.runtime.run_plan import RunPlan
from unetctl.sources.base import ImageInfo
from unetctl.sources.files import RUN_SUFFIX

#: Endings of files that pickle their content: never opened, refused with the safe way.
_PICKLED = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin")
#: So many pictures of a file are listed one by one.
_LISTED = 12


@dataclass(frozen=True)
class FileDescription:
    """What a file is.

    Attributes:
        path: as given.
        kind: "image", "pages", "weights", "training run", "recipe" or "run".
        facts: (name, text) in the order of printing; several rows may share a name.
        values: the same as plain values, for JSON.
    """

    path: str
    kind: str
    facts: tuple[tuple[str, str], ...]
    values: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"path": self.path, "kind": self.kind, **self.values}

    def lines(self) -> list[str]:
        """For people: the path, then a row a fact."""
        width = max((len(name) for name, _ in self.facts), default=0)
        rows, last = [self.path], ""
        for name, text in self.facts:
            rows.append(f"  {name if name != last else '':<{width}}  {text}")
            last = name
        return rows


def describe_file(
    path: str, *, axes: str | None = None, series: int | None = None, time: int | None = None
) -> FileDescription:
    """What lies at `path`.

    Args:
        path: a picture, a document (PDF, scanned pages), a folder of slices, an OME-Zarr folder, an output of predict or
            its ``.run`` folder, a weights file, a training run's folder, or a recipe.
        axes: pictures only, as for `unetctl.sources.open.open_source`; with one of these a file is no document.
        series: as `axes`.
        time: as `axes`.

    Raises:
        InputError: if there is nothing, or nothing that is understood.
        WeightsError: if weights are damaged, pickled or not ours.
        UsageError: if a recipe has mistakes, or the options do not fit the picture.
    """
    place = Path(path)
    if (run := _page_run(place)) is not None and not place.is_file():
        from unetctl.jobs.info_documents import describe_page_run

        return describe_page_run(path, run)
    if place.is_dir():
        if (place / "plan.json").is_file() and place.name.endswith(".run"):
            return _of_run(path, RunFolder(place.with_name(place.name.removesuffix(".run"))))
        if (place / RUN_WEIGHTS).is_file() or ((place / "recipe.toml").is_file() and (place / "checkpoints").is_dir()):
            return _of_training(path, place)
    elif place.is_file():
        if place.suffix == ".safetensors" or place.suffix in _PICKLED:
            return _of_weights(path, place)
        if place.suffix == ".toml":
            return _of_recipe(path)
    elif RunFolder(place).has_plan():
        return _of_run(path, RunFolder(place))
    if axes is None and series is None and time is None:
        from unetctl.jobs.info_documents import describe_document

        document = describe_document(path)
        if document is not None:
            return document
    return _of_picture(path, axes, series, time)


def _page_run(place: Path) -> Path | None:
    """The run folder of pages that a path is or belongs to."""
    run = place if place.name.endswith(RUN_SUFFIX) else RunFolder(place).path
    return run if is_page_run(run) else None


def _of_picture(path: str, axes: str | None, series: int | None, time: int | None) -> FileDescription:
    from unetctl.sources.files import NO_LIMIT
    from unetctl.sources.open import open_source

    source = open_source(path, axes=axes, series=series, time=time, max_bytes=NO_LIMIT)
    try:
        info = source.info
    finally:
        source.close()
    num_bytes = info.identity.get("num_bytes")
    facts = [("format", info.format)]
    facts += [("size", f"{format_size(num_bytes)} on disk")] if isinstance(num_bytes, int) else []
    facts += [("images", str(len(info.images)))] if len(info.images) > 1 else []
    for i, image in enumerate(info.images[:_LISTED]):
        number = f"image {i}" if len(info.images) > 1 else "image"
        name = "" if len(info.images) == 1 or image.name == str(i) else image.name
        facts += [(number, text) for text in _image_lines(image, name)]
    if len(info.images) > _LISTED:
        facts.append(("...", f"and {len(info.images) - _LISTED} more; choose one with --series I"))
    values: dict[str, Any] = {
        "format": info.format,
        "num_bytes": num_bytes,
        "images": [_image_values(i) for i in info.images],
    }
    folder = RunFolder(Path(path))
    if folder.has_plan() and _page_run(Path(path)) is None:
        state, told = _state(folder)
        facts += told
        values["run"] = state
    return FileDescription(path, "image", tuple(facts), values)


def _image_lines(image: ImageInfo, name: str) -> Iterator[str]:
    num_bytes = prod(image.shape) * image.dtype.itemsize
    sizes = " x ".join(map(str, image.shape))
    yield f"{name}{': ' if name else ''}{image.axes} {sizes}, {image.dtype}, {format_size(num_bytes)} of pixels"
    if "c" in image.axes:
        listed = ", ".join(f"{i} {n}" for i, n in enumerate(image.channel_names[:_LISTED]))
        yield f"{image.num_channels} channels{' (colour)' if image.is_rgb else ''}{f': {listed}' if listed else ''}"
    if any(s is not None for s in image.spacing_um):
        sizes = " x ".join("?" if s is None else f"{s:g}" for s in image.spacing_um)
        yield f"pixel size {sizes} um ({image.spatial_axes})"
    elif image.dpi is None:
        yield "pixel size unknown"
    if image.dpi is not None:
        yield (
            f"{image.dpi[0]:g} dpi" if image.dpi[0] == image.dpi[1] else f"{image.dpi[0]:g} x {image.dpi[1]:g} dpi (yx)"
        )
    yield from image.notes


def _image_values(image: ImageInfo) -> dict[str, Any]:
    return {
        "name": image.name,
        "axes": image.axes,
        "shape": list(image.shape),
        "dtype": str(image.dtype),
        "channels": image.num_channels,
        "channel_names": list(image.channel_names),
        "is_rgb": image.is_rgb,
        "spacing_um": list(image.spacing_um),
        "dpi": None if image.dpi is None else list(image.dpi),
        "notes": list(image.notes),
    }


def _of_run(path: str, folder: RunFolder) -> FileDescription:
    state, facts = _state(folder)
    return FileDescription(
        path, "run", (("output", str(folder.output)), *facts), {"output": str(folder.output), "run": state}
    )


def _state(folder: RunFolder) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """How far a prediction is, by its journals (sizes on disk are not compared here)."""
    plan = folder.plan()
    done = latest_records(folder.path).keys()
    finished, num_parts = folder.finished() is not None, folder.num_parts()
    values: dict[str, Any] = {
        "task": plan.task,
        "keep": plan.keep,
        "threshold": plan.threshold,
        "fingerprint": plan.fingerprint,
        "num_blocks": plan.num_blocks,
        "num_done": len(done),
        "is_finished": finished,
        "num_parts": num_parts,
        "input": plan.source.get("path"),
        "device": plan.compute.device,
        "precision": plan.compute.precision,
    }
    what = f"{plan.keep}{f' at {plan.threshold:g}' if plan.keep == 'mask' else ''} by {plan.task}"
    facts = [("made by", f"unetctl predict: {what}, from {values['input']}")]
    facts += [
        ("plan", f"{plan.num_blocks} blocks, {plan.num_tiles} tiles, {plan.compute.device} {plan.compute.precision}")
    ]
    facts += [
        ("state", ("finished, " if finished else "not finished, ") + f"{len(done)} of {plan.num_blocks} blocks done")
    ]
    if num_parts:
        values["parts"] = [_done_of(plan, i, num_parts, done) for i in range(num_parts)]
        told = ", ".join(f"{i + 1}/{num_parts}: {n} of {total}" for i, (n, total) in enumerate(values["parts"]))
        facts.append(("parts", told))
    return values, facts


def _done_of(plan: RunPlan, i_part: int, num_parts: int, done: Any) -> tuple[int, int]:
    blocks = plan.part(i_part, num_parts)
    return sum(i in done for i in blocks), len(blocks)


def _of_training(path: str, folder: Path) -> FileDescription:
    if not (folder / RUN_WEIGHTS).is_file():
        raise WeightsError(
            f"the training run {path} has no weights yet",
            f"{RUN_WEIGHTS} in it",
            "let it train until it has validated once",
        )
    weights = _of_weights(path, folder / RUN_WEIGHTS)
    return FileDescription(
        path, "training run", weights.facts, {**weights.values, "weights": str(folder / RUN_WEIGHTS)}
    )


def _of_weights(path: str, file: Path) -> FileDescription:
    from unetctl.networks.build import spec_from_dict
    from unetctl.networks.weights import read_header

    header = read_header(file)
    spec = spec_from_dict(header.network)
    num_weights, num_bytes = _count_weights(file), file.stat().st_size
    output = header.recipe.get("output", {})
    facts = [
        ("task", header.name + (f": {title}" if (title := header.recipe.get("task", {}).get("title")) else "")),
        (
            "network",
            f"{spec.dims}-D {spec.kind}, {spec.summary}, {spec.in_channels} in, {spec.out_channels} out"
            + (", and the image cleaned" if spec.image_channels else ""),
        ),
        (
            "tiling",
            f"stride {spec.stride[-1]}, margin {spec.margin[-1]}, halo {spec.halo[-1]} px"
            + ("" if spec.is_exact else f"; not exact: {spec.inexact_because}"),
        ),
        ("weights", f"{num_weights:,}, {format_size(num_bytes)}"),
    ]
    if output:
        classes = ", ".join(output.get("classes", ())) or "foreground"
        facts.append(
            ("answers", f"{output.get('keep', 'probability')} of {classes}, threshold {output.get('threshold', 0.5):g}")
        )
    dpi = header.recipe.get("input", {}).get("dpi")
    facts += [("trained at", trained_dpi((float(dpi[0]), float(dpi[1]))))] if dpi else []
    facts += _training_facts(header.spacing_um, header.value_range, header.polarity, header.training)
    facts += [("figures", f"{name}: {text}") for name, text in _plain(header.figures)]
    facts += [("licence", header.licence or "not stated")]
    values = {
        "task": header.name,
        "network": header.network,
        "stride": list(spec.stride),
        "margin": list(spec.margin),
        "halo": list(spec.halo),
        "is_exact": spec.is_exact,
        "num_weights": num_weights,
        "num_bytes": num_bytes,
        "spacing_um": list(header.spacing_um),
        "dpi": dpi,
        "polarity": header.polarity,
        "value_range": None if header.value_range is None else list(header.value_range),
        "training": header.training,
        "figures": header.figures,
        "licence": header.licence,
        "recipe": header.recipe,
    }
    return FileDescription(path, "weights", tuple(facts), values)


def _training_facts(
    spacing_um: tuple[float | None, ...],
    value_range: tuple[float, float] | None,
    polarity: str,
    training: Mapping[str, Any],
) -> list[tuple[str, str]]:
    facts = []
    if any(s is not None for s in spacing_um):
        sizes = " x ".join("?" if s is None else f"{s:g}" for s in spacing_um)
        facts.append(("trained at", f"{sizes} um per pixel ({'zyx'[-len(spacing_um) :]})"))
    if value_range is not None:
        facts.append(
            ("trained at", f"grey values {value_range[0]:g} to {value_range[1]:g}{f', {polarity}' if polarity else ''}")
        )
    elif polarity:
        facts.append(("trained at", polarity))
    return facts + [("trained on", f"{name}: {text}") for name, text in _plain(training)]


def _plain(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested plain values, flat: ("validation.v_rand", "0.983")."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _plain(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{name}", f"{value:.4g}" if isinstance(value, float) else str(value)


def _count_weights(file: Path) -> int:
    """Trained numbers in a weights file; the statistics of norms are not counted."""
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as tensors:
        names = [n for n in tensors.keys() if not n.endswith(("running_mean", "running_var"))]  # noqa: SIM118 - not a dict
        return sum(prod(tensors.get_slice(name).get_shape()) for name in names)


def _of_recipe(path: str) -> FileDescription:
    from unetctl.recipe.load import load_recipe
    from unetctl.recipe.overview import describe

    recipe = load_recipe(str(Path(path).absolute()))
    first, *others = describe(recipe)
    facts = [("task", first)] + [(name, text.strip()) for name, _, text in (line.partition(":") for line in others)]
    return FileDescription(path, "recipe", tuple(facts), {"task": recipe.task.name, "recipe": recipe.to_dict()})
