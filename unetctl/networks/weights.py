"""Weights files: safetensors with a JSON header that says everything needed to use them.

Nothing pickled is ever opened. Convolutions are stored as float16, statistics and biases of norms as float32.
"""

import json
import os
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unetctl.errors import WeightsError
from unetctl.networks.build import build_network, spec_from_dict
from unetctl.networks.network import Network

#: Key of the JSON in the safetensors metadata, and the version of its layout.
HEADER_KEY = "unetctl"
HEADER_VERSION = 1


@dataclass(frozen=True)
class WeightsHeader:
    """What a weights file says of itself.

    Attributes:
        name: of the task ("em").
        network: the spec as plain values.
        recipe: the resolved recipe as nested plain values; normalisation, output and threshold are in it.
        spacing_um: pixel size (z, y, x) or (y, x) of the training data, None where unknown.
        polarity: in words ("dark membranes on light cytoplasm").
        value_range: lowest and highest pixel value of the training data.
        training: data set, authors, split, steps, seed: plain values.
        figures: measured scores of this very file, plain values.
        licence: terms of the weights.
    """

    name: str
    network: dict[str, Any]
    recipe: dict[str, Any]
    spacing_um: tuple[float | None, ...] = ()
    polarity: str = ""
    value_range: tuple[float, float] | None = None
    training: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    licence: str = ""

    @classmethod
    def from_json(cls, text: str) -> "WeightsHeader":
        """The header of a file.

        Raises:
            WeightsError: if it is not one that this version understands.
        """
        try:
            values = json.loads(text)
            version = values.pop("version")
            if version != HEADER_VERSION:
                raise WeightsError(
                    f"the weights' header has version {version}", f"version {HEADER_VERSION}", "update unetctl"
                )
            for key in ("spacing_um", "value_range"):
                if isinstance(values.get(key), list):
                    values[key] = tuple(values[key])
            return cls(**values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(
                f"the weights' header is not understood ({error})", "a header written by unetctl"
            ) from error

    def to_json(self) -> str:
        """One line, keys sorted: the same header gives the same bytes."""
        return json.dumps({"version": HEADER_VERSION, **asdict(self)}, sort_keys=True)


def stored_dtype(name: str) -> torch.dtype:
    """The type in which a weights file keeps a floating-point tensor of a network: float32 for norms, else float16."""
    return torch.float32 if ".norm." in name else torch.float16


def save_weights(path: Path, network: Network, header: WeightsHeader, *, is_exact: bool = False) -> None:
    """Writes the weights to a temporary name beside `path`, flushes them to disk, renames.

    Args:
        path: of the file.
        network: stays as it is.
        header: what the file says of itself.
        is_exact: keep every number as it is, float32, in twice the space; else see `stored_dtype`.

    Raises:
        OSError: if the disk refuses.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        tensors[name] = value.detach().to("cpu", torch.float32 if is_exact else stored_dtype(name)).contiguous()
    content = save(tensors, {HEADER_KEY: header.to_json()})
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_header(path: Path) -> WeightsHeader:
    """The header alone; cheap.

    Raises:
        WeightsError: if the file is missing, pickled, damaged or not ours.
    """
    _refuse_foreign(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} cannot be read ({error})", "a safetensors file", "copy it again; it may be cut short"
        ) from error
    if HEADER_KEY not in metadata:
        raise WeightsError(
            f"{path} is a safetensors file without unetctl's header",
            "weights written by unetctl train",
            "a network's numbers alone do not say how its input is normalised",
        )
    return WeightsHeader.from_json(metadata[HEADER_KEY])


def load_weights(path: Path) -> tuple[Network, WeightsHeader]:
    """The network with its weights, float32, in eval mode, and the header.

    Raises:
        WeightsError: as `read_header`, or if tensors are missing, of another shape or not finite.
    """
    header = read_header(path)
    network = build_network(spec_from_dict(header.network))
    expected = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} cannot be read ({error})", "a safetensors file", "copy it again; it may be cut short"
        ) from error
    wrong = [n for n in expected.keys() | tensors.keys() if n not in tensors or n not in expected]
    wrong += [n for n in expected.keys() & tensors.keys() if expected[n].shape != tensors[n].shape]
    if wrong:
        raise WeightsError(
            f"{path} does not fit its own network spec: {len(wrong)} tensors differ, first {sorted(wrong)[0]}"
        )
    broken = [n for n, t in tensors.items() if not bool(torch.isfinite(t).all())]
    if broken:
        raise WeightsError(
            f"{path} holds numbers that are not finite in {sorted(broken)[0]}", "", "train again or copy it again"
        )
    network.load_state_dict(tensors, strict=False)
    return network.eval(), header


def _refuse_foreign(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}", "a .safetensors file or a training run's folder")
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors header may have a length that begins with pickle's first byte; then its text follows at once.
    if zipfile.is_zipfile(path) or (start[:1] == b"\x80" and start[8:] != b"{"):
        raise WeightsError(
            f"{path} is a pickled PyTorch file, which runs its author's code when opened",
            "safetensors",
            "unetctl import reads such a file by weights_only=True: unetctl import FILE --task RECIPE -o weights.safetensors",
        )
