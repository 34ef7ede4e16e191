"""A network as a bioimage.io model package: the ONNX file, its description, a test picture with its answer, the model card.

The description is of the format 0.5 (bioimage.io's model resource description). What our normalisation does and the format
cannot say is told as a remark, in the documentation and to the caller, and the package then expects what has been normalised.
Nothing in a package depends on the clock or on chance.
"""

import hashlib
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from unetctl.jobs.export_facts import channel_names
from unetctl.jobs.export_picture import made_picture
from unetctl.jobs.export_validation import validate_package
from unetctl.jobs.tasks import ResolvedTask
from unetctl.networks.network import Network
from unetctl.networks.portable import IMAGE, INPUT, LOGITS, PREDICTION, answers_of, sizes_of
from unetctl.recipe.schema import Recipe
from unetctl.recipe.shipped import shipped_recipes, shipped_weights
from unetctl.runtime.events import Listener, Note
from unetctl.runtime.grey_scale import Scaling
from unetctl.runtime.statistics import measure
from unetctl.sinks.disk import full_disk_explained

Floats = npt.NDArray[np.float32]

_MAX_DESCRIPTION = 128
#: The network's paper, cited by every package.
_PAPER = {
    "text": "Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015",
    "doi": "10.1007/978-3-319-24574-4_28",
}
_CITED = re.compile(r"([A-Z][^();,.]*?(?: et al\.)? \d{4}), doi (10\.\d+/[^\s;,)]+)")
_SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
#: What the tensors beside the logits are.
_IMAGES = {
    IMAGE: "the picture as the network repairs it, on the scale of the normalised input",
    PREDICTION: "what the network would put everywhere, on the scale of the normalised input",
}
#: A zip's date where none is meant: the earliest that it can say.
_NO_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Preprocessing:
    """What a package says of the way from grey values to the network's input.

    Attributes:
        steps: of the description; empty if the input comes normalised.
        remark: what the steps leave out; empty if they say all.
        is_done: True if grey values go in.
    """

    steps: tuple[dict[str, Any], ...]
    remark: str
    is_done: bool


def preprocessing_of(recipe: Recipe, facts: Mapping[str, str]) -> Preprocessing:
    """A recipe's normalisation in the words of the format."""
    n, planes = recipe.normalise, recipe.input.context_slices
    axes = [*(["channel"] if planes > 1 else []), *"zyx"[-recipe.network.dims :]]
    whole = (
        "unetctl takes them of the whole volume or page, a program that cuts its input into tiles first must do so too"
    )
    if planes > 1 and recipe.input.channels > 1 and n.method in ("mean_std", "percentile"):
        return Preprocessing((), f"Give it normalised planes: {facts['normalise_words']}.", False)
    match n.method:
        case "none":
            return Preprocessing((), "", True)
        case "mean_std":
            step = {"id": "zero_mean_unit_variance", "kwargs": {"axes": axes, "eps": 1e-6}}
            return Preprocessing((step,), f"Mean and deviation are those of each input; {whole}.", True)
        case "percentile":
            kwargs = {"axes": axes, "min_percentile": n.low, "max_percentile": n.high, "eps": 1e-6}
            # the format takes a number up to 1 for a share, and cannot turn a picture into its negative
            if n.high <= 1 or n.ground == "dark":
                return Preprocessing((), f"Give it normalised values: {facts['normalise_words']}.", False)
            return Preprocessing(
                ({"id": "scale_range", "kwargs": kwargs},), f"The percentiles are those of each input; {whole}.", True
            )
        case "range" if n.value_range is not None:
            low, high = n.value_range
            kwargs = {"gain": 1 / (high - low), "offset": -low / (high - low)}
            return Preprocessing(({"id": "scale_linear", "kwargs": kwargs},), "", True)
        case "range":
            step = {"id": "scale_linear", "kwargs": {"gain": 1 / 255, "offset": 0.0}}
            return Preprocessing(
                (step,), "Values are those of 8 bits, 0 to 255; bring others to that range first.", True
            )
    return Preprocessing(
        (),
        f"The format has no word for the normalisation of this network; give it normalised values: {facts['normalise_words']}.",
        False,
    )


def write_package(
    path: Path,
    model: Path,
    resolved: ResolvedTask,
    network: Network,
    facts: Mapping[str, str],
    *,
    opset: int,
    authors: Sequence[str],
    emit: Listener,
) -> tuple[str, tuple[str, ...]]:
    """Writes a package and has it validated.

    Args:
        path: the zip file.
        model: the ONNX file.
        resolved: the task.
        network: with its weights.
        facts: of `unetctl.jobs.export.facts_of`.
        opset: of the ONNX file.
        authors: names; absent: those of a shipped task are ours, of another the package names none.
        emit: gets the events.

    Returns:
        What has validated it, and the remarks.

    Raises:
        WeightsError: if the validation finds faults.
        ResourceError: if the disk is full.
    """
    preparation = preprocessing_of(resolved.recipe, facts)
    remarks = tuple(remark for remark in (preparation.remark,) if remark)
    with tempfile.TemporaryDirectory(prefix="unetctl-package-") as scratch, full_disk_explained(path):
        folder = Path(scratch)
        shutil.copyfile(model, folder / "weights.onnx")
        grey, answers = _tested(resolved.recipe, network, preparation)
        np.save(folder / "test-input.npy", grey)
        for name, value in answers.items():
            np.save(folder / f"test-{name}.npy", value)
        (folder / "README.md").write_text(_documentation(resolved, facts, preparation), encoding="utf-8")
        licence = _licence(resolved, folder)
        content = {
            **_about(resolved, facts, authors),
            **({"license": licence} if licence else {}),
            "documentation": _file(folder, "README.md"),
            "inputs": [_input(resolved, network, preparation, folder)],
            "outputs": [_output(resolved, network, name, value, folder) for name, value in answers.items()],
            "weights": {"onnx": {**_file(folder, "weights.onnx"), "opset_version": opset}},
            "config": {"bioimageio": {}, "unetctl": dict(facts)},
        }
        _zip(path, folder, content)
    emit(Note(f"validating {path.name}", "detail"))
    return validate_package(path), remarks


def _tested(recipe: Recipe, network: Network, preparation: Preprocessing) -> tuple[Floats, dict[str, Floats]]:
    """A test input (1, C, *space) and what is to come of it by output name, answered by torch."""
    spec = network.spec
    side = _least(network) + spec.stride[0]
    picture = made_picture((spec.in_channels, *(side,) * spec.dims), recipe.input.polarity)
    scaled = _scaled(picture, recipe)
    with torch.inference_mode():
        answers = dict(answers_of(network.eval(), torch.from_numpy(scaled)[None]))
    logits = answers[LOGITS]
    activation = recipe.output.resolved_activation
    if activation != "none":
        answers[LOGITS] = logits.sigmoid() if activation == "sigmoid" else logits.softmax(1)
    named = {_name(key, recipe): value.numpy() for key, value in answers.items()}
    return (picture if preparation.is_done else scaled)[None], named


def _scaled(picture: Floats, recipe: Recipe) -> Floats:
    """The picture as `predict` would give it to the network, its planes taken for one volume."""
    planes = recipe.input.context_slices
    # (c, context, *space): neighbouring planes lie plane by plane among the network's channels
    volume = picture.reshape(planes, -1, *picture.shape[1:]).swapaxes(0, 1) if planes > 1 else picture
    found = measure(
        lambda box: volume[(slice(None), *box.slices())].astype(np.uint8),
        volume.shape[1:],
        low=recipe.normalise.low,
        high=recipe.normalise.high,
        max_pixels=recipe.normalise.sample_pixels,
    )
    scaling = Scaling.of(recipe.normalise, found, recipe.input.channels, np.dtype(np.uint8))
    shape = (-1, *(1,) * (volume.ndim - 1))
    shift, factor = (np.array(values, np.float32).reshape(shape) for values in (scaling.shift, scaling.factor))
    scaled: Floats = ((volume - shift) * factor).astype(np.float32)
    return (scaled.swapaxes(0, 1) if planes > 1 else scaled).reshape(picture.shape)


def _least(network: Network) -> int:
    """Pixels of the smallest input of which something is left once the halo is cut off."""
    sizes, halo = sizes_of(network), network.spec.halo[0]
    return sizes.least if sizes.lost else max(sizes.least, 2 * halo + sizes.step)


def _name(answer: str, recipe: Recipe) -> str:
    return "probability" if answer == LOGITS and recipe.output.resolved_activation != "none" else answer


def _about(resolved: ResolvedTask, facts: Mapping[str, str], authors: Sequence[str]) -> dict[str, Any]:
    """What a package says of itself beside its tensors."""
    from bioimageio.spec.model.v0_5 import ModelDescr

    task, is_shipped = resolved.recipe.task, resolved.weights in [shipped_weights(name) for name in shipped_recipes()]
    title = re.sub(r"[^A-Za-z0-9_+\- ()]", " ", task.title or task.name).strip()
    names = authors or (["unetctl contributors"] if is_shipped else [])
    tags = ["unet", f"{resolved.recipe.network.dims}d", "unetctl", resolved.name]
    return {
        "type": "model",
        "format_version": ModelDescr.implemented_format_version,  # of 0.5 the newest that is known here
        "name": f"{title[:50]} (unetctl)",
        "description": (task.summary or task.title or f"the task {resolved.name} of unetctl")[:512],
        "authors": [{"name": name.replace("/", " ")} for name in names],
        "cite": [_PAPER, *_cited(_card(resolved))],
        "tags": tags,
    }


def _cited(card: str) -> list[dict[str, str]]:
    """The papers that a model card names with their DOI."""
    found = _CITED.findall(" ".join(card.split()))
    return [{"text": text, "doi": doi} for text, doi in dict.fromkeys(found)]


def _card(resolved: ResolvedTask) -> str:
    card = resolved.weights.with_suffix(".md")
    return card.read_text(encoding="utf-8") if card.is_file() else ""


def _licence(resolved: ResolvedTask, folder: Path) -> str | dict[str, str]:
    """The name of a known licence, or the file with the terms; empty if nothing is known."""
    terms = resolved.header.licence.strip()
    if not terms or _SPDX.fullmatch(terms):
        return terms
    (folder / "LICENSE.txt").write_text(
        f"{terms}\n\nThe model card is README.md, beside this file.\n", encoding="utf-8"
    )
    return _file(folder, "LICENSE.txt")


def _documentation(resolved: ResolvedTask, facts: Mapping[str, str], preparation: Preprocessing) -> str:
    """The model card, and how to use the package."""
    card = _card(resolved).rstrip() or f"# {facts.get('title') or resolved.name}\n\n{facts.get('summary', '')}".rstrip()
    given = "Grey values go in as they are" if preparation.is_done else "Normalised values go in"
    rows = "\n".join(f"| {key} | {value.replace('|', '/')} |" for key, value in facts.items())
    return f"""{card}

## Using this package

{given}; out comes what the description names. {preparation.remark}

Sizes along each axis: {facts["input_sizes"]}; answered: {facts["output_sizes"]}. At the border: {facts["border"]}.
`unetctl predict` does all this by itself, for pictures of any size.

## Validation

The test input is a made-up picture, the test output what torch answers to it: they show that the network arrived whole, not how
good it is. On pictures with labels of your own, `unetctl benchmark accuracy --task {resolved.name} --data FOLDER` measures that.

| | |
|---|---|
{rows}
"""


def _input(resolved: ResolvedTask, network: Network, preparation: Preprocessing, folder: Path) -> dict[str, Any]:
    recipe, sizes = resolved.recipe, sizes_of(network)
    least = _least(network)
    names = [re.sub(r"[^a-z0-9]+", "_", name).strip("_") for name in channel_names(recipe)]
    return {
        "id": INPUT,
        "description": ("grey values" if preparation.is_done else "normalised values, see the documentation")
        + (f"; {recipe.input.polarity}" if recipe.input.polarity else "")[: _MAX_DESCRIPTION - 50],
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": names},
            *({**axis, "size": {"min": least, "step": sizes.step}} for axis in _space(resolved)),
        ],
        "data": {"type": "float32"},
        "test_tensor": _file(folder, "test-input.npy"),
        "preprocessing": list(preparation.steps),
    }


def _output(resolved: ResolvedTask, network: Network, name: str, value: Floats, folder: Path) -> dict[str, Any]:
    recipe, sizes, halo = resolved.recipe, sizes_of(network), network.spec.halo[0]
    is_logits = name == _name(LOGITS, recipe)
    classes = [re.sub(r"[^a-z0-9]+", "_", c.lower()) for c in recipe.output.classes] if is_logits else []
    activation = recipe.output.resolved_activation
    step = {"sigmoid": {"id": "sigmoid"}, "softmax": {"id": "softmax", "kwargs": {"axis": "channel"}}}.get(activation)
    axes: list[dict[str, Any]] = []
    for axis in _space(resolved):
        axes.append({**axis, "size": {"tensor_id": INPUT, "axis_id": axis["id"], "offset": -sizes.lost}})
        if not sizes.lost:
            axes[-1]["halo"] = halo
    described = f"{activation} of the logits" if is_logits and step else "logits" if is_logits else _IMAGES[name]
    return {
        "id": name,
        "description": described,
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": classes or [f"{name}_{i}" for i in range(value.shape[1])]},
            *axes,
        ],
        "data": {"type": "float32"},
        "test_tensor": _file(folder, f"test-{name}.npy"),
        "postprocessing": [step] if is_logits and step else [],
    }


def _space(resolved: ResolvedTask) -> list[dict[str, Any]]:
    """The spatial axes with their pixel sizes, where all of them are known."""
    letters = "zyx"[-resolved.recipe.network.dims :]
    known = resolved.header.spacing_um[-len(letters) :]
    if len(known) < len(letters) or None in known:
        return [{"type": "space", "id": letter} for letter in letters]
    return [
        {"type": "space", "id": letter, "unit": "micrometer", "scale": size}
        for letter, size in zip(letters, known, strict=True)
    ]


def _file(folder: Path, name: str) -> dict[str, str]:
    return {"source": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}


def _zip(path: Path, folder: Path, content: Mapping[str, Any]) -> None:
    """The folder's files and the description, in order of their names and without dates."""
    from bioimageio.spec import save_bioimageio_yaml_only

    save_bioimageio_yaml_only(dict(content), folder / "rdf.yaml")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            entry = zipfile.ZipInfo(file.name, _NO_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.read_bytes())
