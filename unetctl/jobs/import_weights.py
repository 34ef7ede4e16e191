"""`unetctl import`: a network that others trained in PyTorch as a weights file of ours."""

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unetctl.errors import UsageError, WeightsError
from unetctl.jobs.train_task import recipe_for
from unetctl.networks.foreign import NameMap, Skip, imported
from unetctl.networks.foreign_file import read_state
from unetctl.networks.weights import WeightsHeader, save_weights
from unetctl.runtime.events import Listener, Note, nobody
from unetctl.sinks.disk import full_disk_explained


@dataclass(frozen=True)
class ImportReport:
    """What was imported.

    Attributes:
        output: the weights file.
        task: of the recipe.
        num_tensors: taken from the foreign file.
        num_weights: numbers in them.
        names: our tensors to the foreign ones.
        remarks: what was taken for granted, or changed on the way.
    """

    output: str
    task: str
    num_tensors: int
    num_weights: int
    names: dict[str, str]
    remarks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def import_weights(
    state: Path,
    task: str,
    output: Path | None = None,
    *,
    overrides: Sequence[str] = (),
    names: Path | None = None,
    skip: Skip = "first",
    licence: str = "",
    overwrite: bool = False,
    emit: Listener = nobody,
) -> ImportReport:
    """Brings a foreign PyTorch state dict into a weights file, every number as it is.

    Args:
        state: the foreign file; see `unetctl.networks.foreign_file.read_state`.
        task: the recipe that says what the network is and how its input is normalised: a shipped task's name, a recipe file,
            or a weights file.
        output: the weights file; None: ``<name of the state>.safetensors`` in the working directory.
        overrides: ``section.key=value`` of the recipe.
        names: TOML with a table ``[names]``; None finds the places by order and shape.
        skip: whether the foreign network puts skips first or last in its joins.
        licence: terms of the foreign weights, written into the file.
        overwrite: replace what lies there.
        emit: gets the events.

    Raises:
        UsageError: if the recipe or the map has mistakes, or another file is in the way.
        WeightsError: if the file cannot be read safely, or its tensors do not fit; tells all of them.
        ResourceError: if the disk is full.
    """
    path = Path(f"{state.stem}.safetensors") if output is None else output
    if path.is_dir():
        path = path / f"{state.stem}.safetensors"
    if path.suffix != ".safetensors":
        raise UsageError(f"--output {path}", "a name that ends in .safetensors, or an existing folder")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", "an existing folder")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists", "a new name", "or give --overwrite")
    recipe = recipe_for(task, overrides)
    chosen = None if names is None else _name_map(names)
    if chosen is None and state.suffix == ".safetensors":
        raise WeightsError(
            f"{state} is a safetensors file, which lists its tensors by name: the order of the layers is lost",
            "a state dict saved by torch.save, or a map of names",
            "give --names MAP.toml",
        )
    found = imported(read_state(state), recipe.network_spec, chosen, skip)
    for ours, theirs in found.names.items():
        emit(Note(f"{ours} <- {theirs}", "detail"))
    for remark in found.remarks:
        emit(Note(remark, "info"))
    header = WeightsHeader(
        name=recipe.task.name,
        network=recipe.network_spec.to_dict(),
        recipe=recipe.to_dict(),
        spacing_um=recipe.input.spacing_um or (),
        polarity=recipe.input.polarity,
        training={"imported from": state.name, "sha256": hashlib.sha256(state.read_bytes()).hexdigest()},
        licence=licence,
    )
    with full_disk_explained(path):
        save_weights(path, found.network, header, is_exact=True)
    taken = [value.numel() for name, value in found.network.state_dict().items() if name in found.names]
    return ImportReport(str(path), recipe.task.name, len(found.names), sum(taken), found.names, found.remarks)


def _name_map(path: Path) -> NameMap:
    """The map in a TOML file.

    Raises:
        UsageError: if it cannot be read, or is no such map.
    """
    try:
        return NameMap.from_dict(tomllib.loads(path.read_text(encoding="utf-8-sig")), str(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})", "a map of names in TOML") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML ({error})", "a map of names in TOML") from error
