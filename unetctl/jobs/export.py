"""`unetctl export`: a trained network for other programs, as ONNX or as a bioimage.io model package."""

import filecmp
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from unetctl.errors import UsageError, WeightsError
from unetctl.jobs.export_facts import facts_of
from unetctl.jobs.tasks import resolve_task
from unetctl.networks.portable import (
    TOLERANCE,
    agreement,
    opset_of,
    require_packages,
    save_onnx,
    sizes_of,
    to_onnx,
)
from unetctl.runtime.events import Listener, Note, nobody
from unetctl.sinks.disk import fsync_folder, full_disk_explained

Format = Literal["onnx", "bioimageio"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "bioimageio": ".zip"}
_PACKAGES: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "bioimageio": ("onnx", "onnxscript", "onnxruntime", "bioimageio.spec"),
}


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Attributes:
        output: the file.
        format: "onnx" or "bioimageio".
        num_bytes: of the file.
        opset: version of ONNX's operators.
        largest_difference: between onnxruntime's and torch's numbers, absolute.
        compared: shapes (N, C, *space) of the inputs that they were compared on.
        sizes: in words, the sizes that the exported network takes along each axis.
        validation: what has validated a package, with its version; empty for ONNX.
        remarks: what the reader of a package should know that its format cannot say.
    """

    output: str
    format: Format
    num_bytes: int
    opset: int
    largest_difference: float
    compared: tuple[tuple[int, ...], ...]
    sizes: str
    validation: str = ""
    remarks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def export(
    task: str,
    output: Path | None = None,
    *,
    format: Format = "onnx",
    overrides: Sequence[str] = (),
    weights: str | None = None,
    authors: Sequence[str] = (),
    overwrite: bool = False,
    emit: Listener = nobody,
) -> ExportReport:
    """Writes the network of a task for other programs, after comparing it with torch's answers.

    Args:
        task: a shipped task's name, a weights file or a training run's folder.
        output: a name that ends in .onnx or, of packages, in .zip, or an existing folder; None: ``<task>.onnx`` or
            ``<task>.zip`` in the working directory.
        format: "onnx", or "bioimageio" for a model package of bioimage.io.
        overrides: ``section.key=value`` each, as ``network.blocks=1`` for the first of several blocks.
        weights: a weights file instead of the task's own.
        authors: names, for the package.
        overwrite: replace what lies there; otherwise only a file of the same content is accepted.
        emit: gets the events.

    Raises:
        UsageError: if a package of the extra is missing, or another file is in the way.
        WeightsError: if there are no weights, or the exported network's answers are further than 1e-4 from torch's.
        ResourceError: if the disk is full.
    """
    extra = "export" if format == "onnx" else "bioimageio"
    require_packages("export" if format == "onnx" else "a bioimage.io package", *_PACKAGES[format], extra=extra)
    resolved = resolve_task(task, overrides, weights)
    path = _named(resolved.name, output, format)
    network = resolved.network()
    sizes = sizes_of(network)
    facts = facts_of(resolved, network.spec, sizes)
    with _put(path, overwrite) as temporary, tempfile.TemporaryDirectory(prefix="unetctl-export-") as scratch:
        made = temporary if format == "onnx" else Path(scratch) / "weights.onnx"
        emit(Note(f"translating {network.spec.title} ({network.spec.summary}) to ONNX", "detail"))
        model = to_onnx(network, facts, ("unetctl", facts["unetctl_version"]))
        with full_disk_explained(made):
            save_onnx(made, model)
        found = agreement(made, network)
        if not found.largest <= TOLERANCE:
            raise WeightsError(
                f"the exported network differs from torch by up to {found.largest:.1e}", f"{TOLERANCE:g} at most"
            )
        emit(Note(f"onnxruntime and torch differ by at most {found.largest:.1e}", "detail"))
        validation = ""
        remarks: tuple[str, ...] = ()
        if format == "bioimageio":
            from unetctl.jobs.export_package import write_package

            validation, remarks = write_package(
                temporary, made, resolved, network, facts, opset=opset_of(model), authors=tuple(authors), emit=emit
            )
        num_bytes = temporary.stat().st_size
    return ExportReport(
        str(path),
        format,
        num_bytes,
        opset_of(model),
        found.largest,
        found.shapes,
        str(sizes),
        validation,
        remarks,
    )


def _named(name: str, output: Path | None, format: Format) -> Path:
    """The file to write.

    Raises:
        UsageError: if it ends in something else than its format does, or its folder does not exist.
    """
    suffix = SUFFIXES[format]
    path = Path(name + suffix) if output is None else output / (name + suffix) if output.is_dir() else output
    if path.suffix.lower() != suffix:
        other = next((f for f, ending in SUFFIXES.items() if ending == path.suffix.lower()), None)
        raise UsageError(
            f"--output {path} for the format {format}",
            f"a name that ends in {suffix}, or an existing folder",
            f"for that name give --format {other}" if other else "",
        )
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", "an existing folder")
    return path


@contextmanager
def _put(path: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary name beside `path`, renamed at the end if all went well.

    Raises:
        UsageError: if another file lies there and may not be replaced.
    """
    temporary = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder", "a new name")
    try:
        yield temporary
        if path.exists() and not overwrite and not filecmp.cmp(path, temporary, shallow=False):
            raise UsageError(f"{path} exists and is not this export", "a new name", "or give --overwrite")
        with full_disk_explained(path):
            temporary.replace(path)
            fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
