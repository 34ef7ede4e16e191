"""Where results go, and as what."""

from pathlib import Path

from unetctl.errors import UsageError
from unetctl.sources.base import SourceInfo

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


def output_path(path: str, info: SourceInfo, task: str, wanted: Path | None) -> Path:
    """The output of an input: as wanted, or ``<input>-<task>`` in the working directory, in the input's own kind.

    Args:
        path: of the input.
        info: of the source; OME-Zarr and zarr inputs give OME-Zarr, all else OME-TIFF.
        task: name.
        wanted: a file name (its ending chooses the kind), or an existing folder to put the output into.

    Raises:
        UsageError: if the ending names no kind that can be written.
    """
    is_zarr = "zarr" in info.format.lower()
    name = f"{stem_of(path)}-{task}" + (".ome.zarr" if is_zarr else ".ome.tif")
    if wanted is None:
        return Path(name)
    if wanted.is_dir() and wanted.suffix not in ZARR_SUFFIXES:
        return wanted / name
    if wanted.suffix not in TIFF_SUFFIXES + ZARR_SUFFIXES:
        raise UsageError(
            f"-o {wanted}", "a name that ends in .ome.tif, .tif, .ome.zarr or .zarr, or an existing folder"
        )
    if not wanted.absolute().parent.is_dir():
        raise UsageError(
            f"-o {wanted}: there is no folder {wanted.parent}", "an existing folder", f"mkdir -p {wanted.parent}"
        )
    return wanted
