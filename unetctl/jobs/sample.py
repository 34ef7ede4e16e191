"""`unetctl sample TASK`: a small input to try a task on, made on the spot, so that nothing has to be downloaded."""

import filecmp
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from unetctl.errors import ResourceError, UsageError
from unetctl.jobs.sample_folder import Drawn, put_folder

if TYPE_CHECKING:
    from unetctl.jobs.sample_em import Slice


@dataclass(frozen=True)
class Sample:
    """What can be made up for a task.

    Attributes:
        what: in a phrase.
        axes: of the sizes.
        shape: in the order of `axes`, unless another is asked for.
        smallest: side, pixels.
        suffixes: that its name may end in, the usual one first; none: it is a folder of pictures with their labels.
    """

    what: str
    axes: str
    shape: tuple[int, ...]
    smallest: int
    suffixes: tuple[str, ...]


SAMPLES = {
    "em": Sample(
        "a stack like serial-section electron micrographs: dark membranes, mitochondria, noise, knife marks",
        "zyx", (6, 512, 512), 32, (".tif", ".tiff"),
    ),
    "dibco": Sample(
        "a scanned page of handwriting: aged paper, a stain, writing of the other side, uneven light, the scanner's dark bed",
        "yx", (1000, 700), 128, (".png",),
    ),
    "salt": Sample(
        "a folder of seismic sections with masks of salt to train on and to test: reflectors, folds, faults, salt bodies",
        "nyx", (500, 101, 101), 32, (),
    ),
    "nuclei": Sample(
        "fluorescent nuclei of unequal brightness, many of them touching, with photon noise", "yx", (384, 384), 64, (".png",)
    ),
    "cells": Sample(
        "cells that touch, in differential interference contrast: one flank bright, one dark", "yx", (512, 512), 128,
        (".tif", ".tiff"),
    ),
    "restore": Sample(
        "a photograph, drawn, with square and round overlays; its truth is the picture without them", "yx", (384, 512), 64, (".png",)
    ),
    "logo": Sample("an emblem on a transparent ground, to be found in other pictures", "yx", (160, 160), 48, (".png",)),
}  # fmt: skip
#: Pixel size of the em sample (z, y, x), micrometres: the one that the em weights were trained at.
EM_SPACING_UM = (0.05, 0.004, 0.004)
#: Resolution of the page, dots per inch.
PAGE_DPI = 300.0
_BIGTIFF_FROM = 3 * 2**30


def make_sample(
    task: str,
    output: Path | None = None,
    shape: tuple[int, ...] | None = None,
    seed: int = 0,
    *,
    labels: bool = False,
    overwrite: bool = False,
) -> Path:
    """Writes a made-up input, see `SAMPLES`.

    For em a stack as OME-TIFF, (z, y, x) uint8 with its pixel size; for dibco a page as colour PNG of 300 dpi; for others a
    picture, or a folder of pictures with labels.

    The same task, shape and seed give the same file, byte for byte, by the same versions of numpy, scipy and tifffile.
    Memory is that of one slice (and one bit a pixel with `labels`), or about 100 bytes a pixel of the page.

    Args:
        task: one of `SAMPLES`.
        output: a name that ends as the sample's kind does (.tif, .png), or an existing folder; None:
            ``<task>-sample.<ending>`` in the working directory. A sample that is a folder takes any name for it.
        shape: (z, y, x) pixels of em, at least (1, 32, 32); (y, x) of dibco, at least (128, 128); of folders (pictures, y, x);
            None: a small one.
        seed: another seed is another piece of tissue, or another page.
        labels: write the truth beside it too, see `labels_path`: 255 inside cells and 0 on membranes; 255 on paper
            and 0 on ink, one bit a pixel; the number of each object, 16 bits a pixel.
        overwrite: replace what lies there; otherwise only a file that already is this very sample is accepted.

    Returns:
        The path of the sample.

    Raises:
        UsageError: if there is no sample for the task, the shape is not one of it, or another file is in the way.
        ResourceError: if the disk is full or not writable.
    """
    if task not in SAMPLES:
        raise UsageError(f"there is no sample for the task {task}", f"one of {', '.join(SAMPLES)}")
    sample = SAMPLES[task]
    sizes = sample.shape if shape is None else tuple(shape)
    least = tuple(1 if axis in "zn" else sample.smallest for axis in sample.axes)
    if len(sizes) != len(least) or any(n < limit for n, limit in zip(sizes, least, strict=True)):
        raise UsageError(
            f"a sample of {'x'.join(map(str, sizes))} pixels for the task {task}",
            f"at least {'x'.join(map(str, least))} ({', '.join(sample.axes).replace('n', 'pictures')})",
        )
    if seed < 0:
        raise UsageError(f"seed {seed}", "0 or more")
    path = _named(task, output)
    if not sample.suffixes:
        try:
            put_folder(path, _drawn(task, sizes, seed), overwrite)
        except OSError as error:
            raise _unwritable(path, error) from error
        return path
    wanted = [path, labels_path(path)] if labels else [path]
    taken = next((p for p in wanted if p.is_dir() or (p.exists() and not p.is_file())), None)
    if taken is not None:
        raise UsageError(f"{taken} exists and is no file", "a new name")
    try:
        _put(wanted, overwrite, _writer(task, sizes, seed))
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def _unwritable(path: Path, error: OSError) -> ResourceError:
    return ResourceError(
        f"{path} could not be written ({error.strerror or error})", "", "check the folder's rights and free space"
    )


def labels_path(path: Path) -> Path:
    """Where the truth of a sample lies: ``a-labels.tif`` beside ``a-volume.tif``, ``b-labels.tif`` beside ``b.tif``.

    >>> str(labels_path(Path("made/em-volume.tif"))), str(labels_path(Path("em-sample.ome.tif")))
    ('made/em-labels.tif', 'em-sample-labels.tif')
    """
    stem = path.name.removesuffix(path.suffix).removesuffix(".ome").removesuffix("-volume")
    return path.with_name(f"{stem}-labels{path.suffix}")


def _named(task: str, output: Path | None) -> Path:
    suffixes = SAMPLES[task].suffixes
    if not suffixes:
        path = output or Path(f"{task}-sample")
        if not path.absolute().parent.is_dir():
            raise UsageError(
                f"-o {path}: there is no folder {path.parent}", "an existing folder", f"mkdir -p {path.parent}"
            )
        return path
    name = f"{task}-sample{suffixes[0]}"
    if output is None:
        return Path(name)
    if output.is_dir():
        return output / name
    if output.suffix.lower() not in suffixes:
        raise UsageError(f"-o {output}", f"a name that ends in {suffixes[0]}, or an existing folder")
    if not output.absolute().parent.is_dir():
        raise UsageError(
            f"-o {output}: there is no folder {output.parent}", "an existing folder", f"mkdir -p {output.parent}"
        )
    return output


#: Writes the sample to the first path and, if there is a second, the truth to that.
_Writer = Callable[[list[Path]], None]


def _writer(task: str, shape: tuple[int, ...], seed: int) -> _Writer:
    if task == "logo":
        return partial(_write_logo, shape=(shape[0], shape[1]), seed=seed)
    if task in ("nuclei", "cells"):
        return partial(_write_objects, task=task, shape=(shape[0], shape[1]), seed=seed)
    if task == "restore":
        return partial(_write_scene, shape=(shape[0], shape[1]), seed=seed)
    if task == "dibco":
        return partial(_write_page, shape=(shape[0], shape[1]), seed=seed)
    return partial(_write_stack, shape=(shape[0], shape[1], shape[2]), seed=seed)


def _drawn(task: str, shape: tuple[int, ...], seed: int) -> Drawn:
    """The files of a sample that is a folder."""
    from unetctl.jobs.sample_salt import salt_files

    return partial(salt_files, shape[0], (shape[1], shape[2]), seed)


def _put(paths: list[Path], overwrite: bool, write: _Writer) -> None:
    """Writes every file under a temporary name, then puts all of them in place."""
    made = [path.with_name(f".{path.name}.partial-{os.getpid()}") for path in paths]
    try:
        write(made)
        for path, new in zip(paths, made, strict=True):
            if path.exists() and not overwrite and not filecmp.cmp(new, path, shallow=False):
                raise UsageError(f"{path} exists and is another file", "a new name", "choose another with -o")
        for path, new in zip(paths, made, strict=True):
            new.replace(path)
    finally:
        for new in made:
            new.unlink(missing_ok=True)


def _write_scene(paths: list[Path], shape: tuple[int, int], seed: int) -> None:
    from unetctl.jobs.sample_restore import damaged_scene
    from unetctl.sinks.page import Page
    from unetctl.sinks.pages import encode_page

    scene = damaged_scene(shape, seed)
    for path, pixels in zip(paths, (scene.damaged, scene.clean), strict=False):
        path.write_bytes(encode_page(Page(pixels, None), "png"))


def _write_logo(paths: list[Path], shape: tuple[int, int], seed: int) -> None:
    from unetctl.jobs.sample_logo import emblem_files

    for path, content in zip(paths, emblem_files(shape, seed), strict=False):
        path.write_bytes(content)


def _write_objects(paths: list[Path], task: str, shape: tuple[int, int], seed: int) -> None:
    from unetctl.jobs import sample_objects
    from unetctl.sinks.page import Page
    from unetctl.sinks.pages import encode_page

    made = sample_objects.nuclei(shape, seed) if task == "nuclei" else sample_objects.cells(shape, seed)
    pages: list[npt.NDArray[Any]] = [made.grey, made.ids]
    for path, pixels in zip(paths, pages, strict=False):
        path.write_bytes(encode_page(Page(pixels, None), "png" if task == "nuclei" else "tiff"))


def _write_page(paths: list[Path], shape: tuple[int, int], seed: int) -> None:
    from unetctl.jobs.sample_dibco import scanned_page
    from unetctl.sinks.page import Page
    from unetctl.sinks.pages import encode_page

    scan = scanned_page(shape, seed)
    pages = [np.moveaxis(scan.colour, 0, -1), scan.ink]
    for path, pixels in zip(paths, pages, strict=False):
        path.write_bytes(encode_page(Page(np.ascontiguousarray(pixels), (PAGE_DPI, PAGE_DPI)), "png"))


def _write_stack(paths: list[Path], shape: tuple[int, int, int], seed: int) -> None:
    """Draws the slices once, for one file or both."""
    from unetctl.jobs.sample_em import Tissue

    drawn = Tissue((shape[1], shape[2]), seed).slices(shape[0])
    if len(paths) == 1:
        _write_tiff(paths[0], (s.grey for s in drawn), shape, seed, "grey")
    else:
        _write_both(paths, drawn, shape, seed)


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
