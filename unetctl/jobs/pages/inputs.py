"""Which files of pages a command names, and where their results go."""

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from unetctl.errors import InputError, UsageError
from unetctl.sources.files import RUN_SUFFIX, is_own_output
from unetctl.sources.page_files import find_pages

#: Endings of files that a single page file may be written as, and their kinds.
KIND_OF_SUFFIX = {".tif": "tiff", ".tiff": "tiff", ".png": "png", ".pdf": "pdf"}
SUFFIX_OF_KIND = {"tiff": ".tif", "png": ".png", "pdf": ".pdf"}


@dataclass(frozen=True)
class PageFile:
    """A file of pages.

    Attributes:
        path: of the input.
        name: what the ledger calls it: its path below the folder that was given, with slashes; a loose file's name.
        stem: of the output, a path below the set's place without the ending that names the kind.
    """

    path: Path
    name: str
    stem: PurePosixPath


@dataclass(frozen=True)
class PageSet:
    """Files that are worked on together and share a run folder.

    Attributes:
        files: in natural order.
        place: folder that the outputs go to.
        run: the run folder, beside the outputs.
        kind: of file that was asked for by an output's ending; None: alike to the inputs.
        is_single: True if exactly one file was asked for.
    """

    files: tuple[PageFile, ...]
    place: Path
    run: Path
    kind: str | None = None
    is_single: bool = False


def listed_inputs(lines: Iterable[str]) -> list[str]:
    """Paths from a list, one a line; empty lines and those that begin with # are passed over."""
    stripped = (line.rstrip("\r\n") for line in lines)
    return [line for line in stripped if line.strip() and not line.lstrip().startswith("#")]


def page_sets(
    inputs: Sequence[str], task: str, output: Path | None = None, *, recursive: bool = False
) -> list[PageSet]:
    """Sorts inputs into sets: one a folder, and one for all loose files.

    - a folder ``scans`` gives ``scans-<task>/`` (or `output`), in which the tree of the folder is mirrored;
    - one file ``p.jpg`` gives ``p-<task>.<ending>`` (or `output`: a file by its ending, or an existing folder);
    - several files go into the folder `output`, or side by side into the working directory as ``p-<task>.<ending>``.

    Args:
        inputs: folders, files, patterns; our own outputs among patterns are left out.
        task: name.
        output: see above.
        recursive: folders inside folders too.

    Raises:
        InputError: if there is nothing there.
        UsageError: if `output` cannot hold what is asked for.
    """
    folders, files = _sorted_inputs(inputs)
    sets = []
    for folder in folders:
        name = folder.resolve().name or "pages"
        place = (
            Path(f"{name}-{task}") if output is None else output if not files and len(folders) == 1 else output / name
        )
        if place.suffix.lower() in KIND_OF_SUFFIX and not place.is_dir():
            raise UsageError(
                f"-o {place} for the folder {folder}", "the name of a folder", f"-o {place.with_suffix('')}"
            )
        _refuse_inside(folder, place)
        found = find_pages(folder, recursive)
        if not found:
            below = (
                "" if recursive or not any(p.is_dir() for p in folder.iterdir()) else "; --recursive looks into them"
            )
            raise InputError(
                f"{folder} holds no pages",
                "pictures, TIFFs or PDFs",
                f"its folders are not looked into{below}" if below else "",
            )
        sets.append(PageSet(tuple(_below(folder, p) for p in found), place, place.with_name(place.name + RUN_SUFFIX)))
    if files:
        sets.append(_loose(files, task, output))
    return sets


def _sorted_inputs(inputs: Sequence[str]) -> tuple[list[Path], list[Path]]:
    folders: list[Path] = []
    files: list[Path] = []
    for text in dict.fromkeys(inputs):
        matches = [text]
        if glob.has_magic(text) and not os.path.lexists(text):
            matches = sorted(glob.glob(text, recursive=True))
            if not matches:
                raise InputError(f"nothing matches {text}", "an existing file or folder")
            matches = [m for m in matches if os.path.isfile(m)]
        for match in matches:
            path = Path(match)
            if path.is_dir():
                folders.append(path)
            elif (len(inputs) == 1 and len(matches) == 1) or not is_own_output(match):
                files.append(path)
    return folders, files


def _below(folder: Path, path: Path) -> PageFile:
    relative = PurePosixPath(path.relative_to(folder).as_posix())
    return PageFile(path, str(relative), relative.with_suffix(""))


def _loose(files: list[Path], task: str, output: Path | None) -> PageSet:
    if len(files) == 1 and not (output is not None and output.is_dir()):
        path = files[0]
        kind = None
        if output is None:
            place, stem = Path(), f"{path.stem}-{task}"
            run = place / (stem + RUN_SUFFIX)
        else:
            kind = KIND_OF_SUFFIX.get(output.suffix.lower())
            if kind is None:
                raise UsageError(f"-o {output}", f"an ending of {', '.join(KIND_OF_SUFFIX)}, or an existing folder")
            if not output.absolute().parent.is_dir():
                parent = output.parent
                raise UsageError(
                    f"-o {output}: there is no folder {parent}", "an existing folder", f"mkdir -p {parent}"
                )
            place, stem, run = output.parent, output.stem, output.with_name(output.name + RUN_SUFFIX)
        return PageSet((PageFile(path, path.name, PurePosixPath(stem)),), place, run, kind, is_single=True)
    if output is not None and output.suffix.lower() in KIND_OF_SUFFIX and not output.is_dir():
        raise UsageError(f"-o {output} for {len(files)} inputs", "the name of a folder", f"-o {output.with_suffix('')}")
    absolute = [Path(os.path.abspath(path)) for path in files]
    # Files of one folder bear their names; of several, the part of their paths that tells them apart.
    common = Path(os.path.commonpath([path.parent for path in absolute]))
    names = [PurePosixPath(path.relative_to(common).as_posix()) for path in absolute]
    ending = "" if output is not None else f"-{task}"
    place = output if output is not None else Path()
    run = place.with_name(place.name + RUN_SUFFIX) if output is not None else Path(f"{task}-pages{RUN_SUFFIX}")
    pages = [
        PageFile(path, str(path if output is None else name), name.with_name(name.stem + ending))
        for path, name in zip(absolute, names, strict=True)
    ]
    return PageSet(tuple(pages), place, run)


def _refuse_inside(folder: Path, place: Path) -> None:
    source, target = folder.resolve(), Path(os.path.abspath(place))
    if target == source:
        raise UsageError(
            f"-o {place} is the folder of the inputs", "another folder", "nothing is written beside inputs"
        )
