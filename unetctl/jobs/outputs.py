"""Where results go, and as what."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from unetctl.errors import UsageError
from unetctl.sources.base import SourceInfo
from unetctl.sources.zarr_hierarchy import is_zarr

#: Endings that name a kind of output.
TIFF_SUFFIXES = (".tif", ".tiff")
ZARR_SUFFIXES = (".zarr",)


def stem_of(path: str) -> str:
    """A file's name without the endings that name its kind.

    >>> stem_of("/data/stack.ome.tif"), stem_of("a/b.zarr/"), stem_of("scans"), stem_of("v.h5::/raw")
    ('stack', 'b', 'scans', 'v')
    """
    name = Path(path.split("::", maxsplit=1)[0].rstrip("/")).name
    known: tuple[str, ...] = (
        ".ome.tif",
        ".ome.tiff",
        ".ome.zarr",
        ".tif",
        ".tiff",
        ".btf",
        ".tf8",
        ".zarr",
        ".npy",
        ".h5",
        ".hdf5",
        ".mrc",
        ".rec",
        ".st",
        ".map",
    )
    known += (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".jp2", ".gif")
    for ending in known:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def output_names(inputs: Sequence[str]) -> list[str]:
    """Names of the outputs of several inputs, without task and ending: those of the inputs, made different by the tree.

    ::

        a/x.tif  b/x.tif  c/y.tif     a/x  b/x  y          folders below the deepest that is common to equal names
        a/x.tif  a/x.png  b/x.tif     a/x.tif  a/x.png  b/x         in one folder: the whole names of the files
        v.h5::/raw  v.h5::/old        v.h5-raw  v.h5-old

    A name depends on the inputs that have the same one and give the same kind of output, on nothing else that is given:
    not on their order, the working directory, or what lies on the disk. Another input of that name can change it:
    alone, a/x.tif is x. The same path given twice has one name.

    Args:
        inputs: paths, as for `open_source`.

    Returns:
        One relative path an input, "/" between folders.

    Raises:
        UsageError: if two inputs cannot be told apart like this.
    """
    places = [_place(path) for path in inputs]
    kinds = [(stem_of(path), is_zarr(path)) for path in inputs]
    alike: dict[tuple[str, bool], set[tuple[str, ...]]] = defaultdict(set)
    for place, kind in zip(places, kinds, strict=True):
        alike[kind].add(place)
    common = {kind: _num_common([place[:-1] for place in group]) for kind, group in alike.items()}
    beside = Counter((kind, place[:-1]) for kind, group in alike.items() for place in group)
    names = [
        "/".join((*place[common[kind] : -1], kind[0] if beside[kind, place[:-1]] == 1 else place[-1]))
        for place, kind in zip(places, kinds, strict=True)
    ]
    owners: dict[tuple[str, bool], tuple[str, ...]] = {}
    for path, name, kind, place in zip(inputs, names, kinds, places, strict=True):
        if owners.setdefault((name, kind[1]), place) != place:
            raise UsageError(
                f"{path} and another input would both be written to {name}",
                "",
                "give them in two commands, each with -o",
            )
    return names


def _num_common(folders: Sequence[tuple[str, ...]]) -> int:
    """How many folders, from the first on, all of these begin with."""
    same = [len(set(level)) == 1 for level in zip(*folders, strict=False)]
    return same.index(False) if False in same else len(same)


def _place(path: str) -> tuple[str, ...]:
    """Folders and name of an input; an array in a file is part of the name."""
    file, _, inner = path.partition("::")
    absolute = Path(os.path.abspath(file))
    folders = [part.strip("/\\").replace(":", "") for part in absolute.parts[:-1]]  # "C:\\" is a folder called C
    return (*folders, "-".join([absolute.name, *(part for part in inner.split("/") if part)]))


def absolute_input(path: str) -> str:
    """An input as it is found from any folder: "v.h5::/raw" and patterns, too; addresses stay as they are."""
    file, mark, inner = path.partition("::")
    if "://" in file:
        return path
    there = Path(file).resolve() if Path(file).exists() else Path(os.path.abspath(file))
    return f"{there}{mark}{inner}"


class InputPlaces:
    """Where the inputs of a command lie, so that no output is written over one; asked once an input, of thousands.

    Args:
        inputs: as for `open_source`.
    """

    def __init__(self, inputs: Sequence[str]) -> None:
        self._places = {Path(path.partition("::")[0]).resolve() for path in inputs}
        self._holders = {parent for place in self._places for parent in place.parents}

    def refuse(self, output: Path) -> None:
        """Says so if writing an output would destroy an input, whatever may be overwritten otherwise.

        Args:
            output: a file or store. It may lie in a folder of slices, never in a store.

        Raises:
            UsageError: if it is an input, holds one, or lies in one that is a store.
        """
        target = output.resolve()
        stores = (parent for parent in target.parents if parent in self._places and is_zarr(str(parent)))
        if target in self._places or target in self._holders or next(stores, None) is not None:
            raise UsageError(
                f"-o {output} would be written over an input",
                "an output apart from all inputs",
                "choose another with -o",
            )


def output_path(path: str, info: SourceInfo, task: str, wanted: Path | None, name: str | None = None) -> Path:
    """The output of an input: as wanted, or ``<input>-<task>`` in the working directory, in the input's own kind.

    Args:
        path: of the input.
        info: of the source; OME-Zarr and zarr inputs give OME-Zarr, all else OME-TIFF.
        task: name.
        wanted: a file name (its ending chooses the kind), or an existing folder to put the output into.
        name: instead of ``<input>``; may name folders, made when the run begins.

    Raises:
        UsageError: if the ending names no kind that can be written.
    """
    ending = ".ome.zarr" if "zarr" in info.format.lower() else ".ome.tif"
    own = f"{stem_of(path) if name is None else name}-{task}{ending}"
    if wanted is None:
        return Path(own)
    if wanted.is_dir() and wanted.suffix not in ZARR_SUFFIXES:
        return wanted / own
    if wanted.suffix not in TIFF_SUFFIXES + ZARR_SUFFIXES:
        raise UsageError(
            f"-o {wanted}", "a name that ends in .ome.tif, .tif, .ome.zarr or .zarr, or an existing folder"
        )
    if not wanted.absolute().parent.is_dir():
        raise UsageError(
            f"-o {wanted}: there is no folder {wanted.parent}", "an existing folder", f"mkdir -p {wanted.parent}"
        )
    return wanted
