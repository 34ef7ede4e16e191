"""`unetctl sample TASK`: a small input to try a task on, made on the spot, so that nothing has to be downloaded."""

import filecmp
import os
import uuid
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from unetctl.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from unetctl.jobs.sample_em import Slice

#: Tasks that a sample can be made for, and what it is.
SAMPLES = {"em": "a stack like serial-section electron micrographs: dark membranes, mitochondria, noise, knife marks"}
#: Pixel size of the em sample (z, y, x), micrometres: the one that the em weights were trained at.
EM_SPACING_UM = (0.05, 0.004, 0.004)
DEFAULT_SHAPE = (6, 512, 512)
_SMALLEST = 32
_SUFFIXES = (".tif", ".tiff")
_BIGTIFF_FROM = 3 * 2**30


def make_sample(
    task: str,
    output: Path | None = None,
    shape: tuple[int, int, int] = DEFAULT_SHAPE,
    seed: int = 0,
    *,
    labels: bool = False,
    overwrite: bool = False,
) -> Path:
    """Writes a made-up stack as an OME-TIFF: (z, y, x) uint8, deflate, with its pixel size.

    The same task, shape and seed give the same file, byte for byte, by the same versions of numpy, scipy and tifffile.
    Memory is that of one slice (and one bit a pixel with `labels`).

    Args:
        task: "em".
        output: a name that ends in .tif, or an existing folder; None: ``<task>-sample.tif`` in the working directory.
        shape: (z, y, x) in pixels, at least (1, 32, 32).
        seed: another seed is another piece of tissue.
        labels: write the truth beside it too, 255 inside cells and 0 on membranes; see `labels_path`.
        overwrite: replace what lies there; otherwise only a file that already is this very sample is accepted.

    Returns:
        The path of the stack.

    Raises:
        UsageError: if there is no sample for the task, the shape is too small, or another file is in the way.
        ResourceError: if the disk is full or not writable.
    """
    if task not in SAMPLES:
        raise UsageError(f"there is no sample for the task {task}", f"one of {', '.join(SAMPLES)}")
    if shape[0] < 1 or min(shape[1:]) < _SMALLEST:
        raise UsageError(
            f"a sample of {'x'.join(map(str, shape))} pixels", f"at least 1x{_SMALLEST}x{_SMALLEST} (z, y, x)"
        )
    if seed < 0:
        raise UsageError(f"seed {seed}", "0 or more")
    path = _named(task, output)
    wanted = [path, labels_path(path)] if labels else [path]
    taken = next((p for p in wanted if p.is_dir() or (p.exists() and not p.is_file())), None)
    if taken is not None:
        raise UsageError(f"{taken} exists and is no file", "a new name")
    try:
        _write(wanted, shape, seed, overwrite)
    except OSError as error:
        raise ResourceError(
            f"{path} could not be written ({error.strerror or error})", "", "check the folder's rights and free space"
        ) from error
    return path


def labels_path(path: Path) -> Path:
    """Where the truth of a sample lies: ``a-labels.tif`` beside ``a-volume.tif``, ``b-labels.tif`` beside ``b.tif``.

    >>> str(labels_path(Path("made/em-volume.tif"))), str(labels_path(Path("em-sample.ome.tif")))
    ('made/em-labels.tif', 'em-sample-labels.tif')
    """
    stem = path.name.removesuffix(path.suffix).removesuffix(".ome").removesuffix("-volume")
    return path.with_name(f"{stem}-labels{path.suffix}")


def _named(task: str, output: Path | None) -> Path:
    name = f"{task}-sample.tif"
    if output is None:
        return Path(name)
    if output.is_dir():
        return output / name
    if output.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"-o {output}", "a name that ends in .tif, or an existing folder")
    if not output.absolute().parent.is_dir():
        raise UsageError(
            f"-o {output}: there is no folder {output.parent}", "an existing folder", f"mkdir -p {output.parent}"
        )
    return output


def _write(paths: list[Path], shape: tuple[int, int, int], seed: int, overwrite: bool) -> None:
    """Draws the slices once, writes every wanted file under a temporary name, then puts all of them in place."""
    from unetctl.jobs.sample_em import Tissue

    drawn = Tissue((shape[1], shape[2]), seed).slices(shape[0])
    partial = [path.with_name(f".{path.name}.partial-{os.getpid()}") for path in paths]
    try:
        if len(paths) == 1:
            _write_tiff(partial[0], (s.grey for s in drawn), shape, seed, "grey")
        else:
            _write_both(partial, drawn, shape, seed)
        for path, made in zip(paths, partial, strict=True):
            if path.exists() and not overwrite and not filecmp.cmp(made, path, shallow=False):
                raise UsageError(f"{path} exists and is another file", "a new name", "choose another with -o")
        for path, made in zip(paths, partial, strict=True):
            made.replace(path)
    finally:
        for made in partial:
            made.unlink(missing_ok=True)


def _write_both(partial: list[Path], drawn: Iterator["Slice"], shape: tuple[int, int, int], seed: int) -> None:
    """Each slice is drawn once for both files; the masks wait in memory, one bit a pixel."""
    masks: list[npt.NDArray[np.uint8]] = []

    def greys() -> Iterator[npt.NDArray[np.uint8]]:
        for one in drawn:
            masks.append(np.packbits(one.interior > 0))
            yield one.grey

    _write_tiff(partial[0], greys(), shape, seed, "grey")
    plane = shape[1] * shape[2]
    truth = (np.unpackbits(m, count=plane).reshape(shape[1:]) * np.uint8(255) for m in masks)
    _write_tiff(partial[1], truth, shape, seed, "interior")


def _write_tiff(
    path: Path, planes: Iterable[npt.NDArray[np.uint8]], shape: tuple[int, int, int], seed: int, what: str
) -> None:
    import tifffile

    z, y, x = EM_SPACING_UM
    name = f"em sample {'x'.join(map(str, shape))} seed {seed} {what}"
    metadata: dict[str, Any] = {
        "axes": "ZYX",
        "Name": name,
        "Creator": "unetctl sample",
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
        "PhysicalSizeZ": z,
        "PhysicalSizeY": y,
        "PhysicalSizeX": x,
        "PhysicalSizeZUnit": "µm",
        "PhysicalSizeYUnit": "µm",
        "PhysicalSizeXUnit": "µm",
    }
    with tifffile.TiffWriter(path, ome=True, bigtiff=prod(shape) > _BIGTIFF_FROM) as writer:
        writer.write(
            iter(planes),
            shape=shape,
            dtype=np.uint8,
            photometric="minisblack",
            compression="zlib",
            predictor=True,
            rowsperstrip=64,
            metadata=metadata,
            software="unetctl",
        )
