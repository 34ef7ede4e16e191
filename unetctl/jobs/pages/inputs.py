"""Which files of pages a command names, and where their results go."""

import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from unetctl.errors import InputError, UsageError
from unetctl.jobs.outputs import output_names
from unetctl.runtime.events import Listener, Note, nobody
from unetctl.sources.files import RUN_SUFFIX, is_own_output
from unetctl.sources.page_files import PAGE_EXTENSIONS, find_pages
from unetctl.sources.slices import natural_key

#: Endings of files that a single page file may be written as, and their kinds.
KIND_OF_SUFFIX = {".tif": "tiff", ".tiff": "tiff", ".png": "png", ".pdf": "pdf", ".gif": "gif"}
SUFFIX_OF_KIND = {"tiff": ".tif", "png": ".png", "pdf": ".pdf", "gif": ".gif"}


@dataclass(frozen=True)
class PageFile:
    """A file of pages.

    Attributes:
        path: of the input.
        name: what the ledger calls it: its path below the folder that was given, or that of a loose file from where the
            run folder lies, with slashes.
        stem: of the output, a path below the set's place without the ending that names the kind.
        whole: the same with the input's own ending, for where `stem` is taken.
    """

    path: Path
    name: str
    stem: PurePosixPath
    whole: PurePosixPath


@dataclass(frozen=True)
class PageSet:
    """Files that are worked on together and share a run folder.

    Attributes:
        files: in natural order.
        place: folder that the outputs go to.
        run: the run folder, beside the outputs.
        ending: of the output as it was asked for, which names its kind; empty: alike to the inputs.
        is_single: True if exactly one file was asked for.
        folder: that was asked for; None for loose files.
    """

    files: tuple[PageFile, ...]
    place: Path
    run: Path
    ending: str = ""
    is_single: bool = False
    folder: Path | None = None

    @property
    def kind(self) -> str | None:
        """Of file that was asked for by the output's ending; None: alike to the inputs."""
        return KIND_OF_SUFFIX.get(self.ending.lower())


def listed_inputs(data: bytes) -> list[str]:
    """Paths from a list, one a line; empty lines and those that begin with # are passed over."""
    lines = (line.rstrip(b"\r") for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
    return [os.fsdecode(line) for line in lines if line.strip() and not line.lstrip().startswith(b"#")]


def page_sets(
    inputs: Sequence[str],
    task: str,
    output: Path | None = None,
    *,
    recursive: bool = False,
    emit: Listener = nobody,
) -> list[PageSet]:
    """Sorts inputs into sets: one a folder, and one for all loose files.

    - a folder ``scans`` gives ``scans-<task>/`` (or `output`), in which the tree of the folder is mirrored;
    - a folder of frames with an `output` that ends in .gif is one film;
    - one file ``p.jpg`` gives ``p-<task>.<ending>`` (or `output`: a file by its ending, or an existing folder);
    - several files go into the folder `output`, or side by side into the working directory as ``p-<task>.<ending>``.

    Args:
        inputs: folders, files, patterns; our own outputs among patterns are left out, what is named twice counts once.
        task: name.
        output: see above.
        recursive: folders inside folders too.
        emit: hears of folders without pages, which are passed over where other inputs have some.

    Raises:
        InputError: if there is nothing there.
        UsageError: if `output` cannot hold what is asked for.
    """
    folders, files = _sorted_inputs(inputs)
    if not folders and not files:
        raise InputError(f"nothing but outputs of unetctl in {' '.join(inputs)}", "files of pages")
    is_film = output is not None and KIND_OF_SUFFIX.get(output.suffix.lower()) == "gif" and not output.is_dir()
    if is_film and not files and len(folders) == 1:
        return [_single(folders[0], task, output)]
    # With -o, folders of one name would meet in it; without, in the working directory.
    names = output_names([str(folder.resolve()) for folder in folders])
    sets, empty = [], []
    for folder, name in zip(folders, names, strict=True):
        place = Path(f"{name or 'pages'}-{task}")
        if output is not None:
            place = output if not files and len(folders) == 1 else output / name
        try:
            sets.append(_of_folder(folder, place, recursive))
        except EmptyFolderError as error:
            empty.append(error)  # of a night on which nothing was scanned, say: the others are worked on
    if files:
        sets.append(_loose(files, task, output))
    if not sets:
        raise empty[0]
    for nothing in empty:
        emit(Note(f"{nothing.seen}: passed over", "warning"))
    return sets


def _sorted_inputs(inputs: Sequence[str]) -> tuple[list[Path], list[Path]]:
    folders: dict[str, Path] = {}
    files: dict[str, Path] = {}
    for text in inputs:
        matches = [text]
        if glob.has_magic(text) and not os.path.lexists(text):
            found = sorted(glob.glob(text, recursive=True), key=lambda m: (natural_key(m), m))
            if not found and len(inputs) == 1:
                raise InputError(f"nothing matches {text}", "an existing file or folder")
            matches = [m for m in found if not is_own_output(m)] if found else [text]
        elif len(inputs) > 1 and is_own_output(text):
            continue
        for match in matches:
            path = Path(match)
            if path.is_dir():
                folders.setdefault(os.path.realpath(path), path)
            else:
                files.setdefault(os.path.abspath(path), path)
    return list(folders.values()), list(files.values())


class EmptyFolderError(InputError):
    """A folder without pages."""


def _of_folder(folder: Path, place: Path, recursive: bool) -> PageSet:
    if place.suffix.lower() in KIND_OF_SUFFIX and not place.is_dir():
        raise UsageError(f"-o {place} for the folder {folder}", "the name of a folder", f"-o {place.with_suffix('')}")
    _refuse_file(place)
    source, target = folder.resolve(), place.resolve()
    if target == source:
        raise UsageError(
            f"-o {place} is the folder of the inputs", "another folder", "nothing is written beside inputs"
        )
    found = find_pages(folder, recursive)
    if not found:
        has_folders = not recursive and any(p.is_dir() and not is_own_output(p) for p in folder.iterdir())
        raise EmptyFolderError(
            f"{folder} holds no pages",
            "pictures, TIFFs or PDFs",
            "its folders are not looked into; --recursive looks into them" if has_folders else "",
        )
    if target.is_relative_to(source) and not is_own_output(place):
        inside = [path for path in found if path.resolve().is_relative_to(target)]
        if inside:
            raise UsageError(
                f"-o {place} holds pages of the input ({inside[0].name})",
                "a folder without inputs",
                "nothing is written beside inputs",
            )
    files = _apart([_below(folder, path) for path in found])
    return PageSet(files, place, _run_beside(place), folder=folder)


def _run_beside(place: Path) -> Path:
    """The run folder of an output folder; of "." and "..", which are no names, of what they stand for."""
    named = place.resolve() if place.name in ("", "..") else place
    if not named.name:
        raise UsageError(f"-o {place}", "a folder inside another", "the run folder lies beside it")
    return named.with_name(named.name + RUN_SUFFIX)


def _refuse_file(place: Path) -> None:
    if os.path.lexists(place) and not place.is_dir():
        raise UsageError(f"-o {place} is a file", "the name of a folder", "choose another, or remove it")


def _below(folder: Path, path: Path) -> PageFile:
    relative = PurePosixPath(path.relative_to(folder).as_posix())
    return PageFile(path, str(relative), relative.with_name(_stem(relative.name)), relative)


def _stem(name: str) -> str:
    """A name without the ending that names its kind: "Nr. 5" and "scan.001" have none."""
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in PAGE_EXTENSIONS else name


def _apart(files: Sequence[PageFile]) -> tuple[PageFile, ...]:
    """Whose stem others have too, or bear as their whole name, bears its whole name: no two outputs can meet.

    A function of the names alone, so that parts that do not know of each other agree.
    """
    shared = Counter(str(file.stem).casefold() for file in files)
    wholes = {str(file.whole).casefold() for file in files}
    return tuple(
        replace(file, stem=file.whole)
        if shared[str(file.stem).casefold()] > 1 or str(file.stem).casefold() in wholes
        else file
        for file in files
    )


def _loose(files: list[Path], task: str, output: Path | None) -> PageSet:
    if len(files) == 1 and not (output is not None and output.is_dir()):
        return _single(files[0], task, output)
    if output is not None:
        if output.suffix.lower() in KIND_OF_SUFFIX and not output.is_dir():
            raise UsageError(
                f"-o {output} for {len(files)} inputs", "the name of a folder", f"-o {output.with_suffix('')}"
            )
        _refuse_file(output)
    run = _run_beside(output) if output is not None else Path(f"{task}-pages{RUN_SUFFIX}")
    absolute = [Path(os.path.abspath(path)) for path in files]
    if output is None:  # not beside the inputs: only what has the same name is told apart by its folder
        bare = [str(path.with_name(_stem(path.name))) for path in absolute]
        stems = [PurePosixPath(f"{name}-{task}") for name in output_names(bare)]
        wholes = [stem.with_name(f"{path.name}-{task}") for stem, path in zip(stems, absolute, strict=True)]
    else:  # files of one folder bear their names; of several, the part of their paths that tells them apart
        common = Path(os.path.commonpath([path.parent for path in absolute]))
        wholes = [PurePosixPath(path.relative_to(common).as_posix()) for path in absolute]
        stems = [whole.with_name(_stem(whole.name)) for whole in wholes]
    pages = [
        PageFile(path, _relative(path, run), stem, whole)
        for path, stem, whole in zip(files, stems, wholes, strict=True)
    ]
    return PageSet(_apart(pages), output if output is not None else Path(), run)


def _single(path: Path, task: str, output: Path | None) -> PageSet:
    ending = ""
    if output is None:
        # Not named after the output, as all others are: its ending is known only when the input was opened, and without
        # one a file x.png and a folder x would have the same.
        place, stem, run = Path(), f"{_stem(path.name)}-{task}", Path(f"{path.name}-{task}{RUN_SUFFIX}")
    else:
        ending = output.suffix
        if ending.lower() not in KIND_OF_SUFFIX:
            raise UsageError(f"-o {output}", f"an ending of {', '.join(KIND_OF_SUFFIX)}, or an existing folder")
        if os.path.realpath(output) == os.path.realpath(path):  # before a run folder marks it as a result
            raise UsageError(f"{output} is an input", "an output apart from all inputs", "choose another with -o")
        parent = output.parent
        if not output.absolute().parent.is_dir():
            raise UsageError(f"-o {output}: there is no folder {parent}", "an existing folder", f"mkdir -p {parent}")
        place, stem, run = parent, output.stem, output.with_name(output.name + RUN_SUFFIX)
    file = PageFile(path, _relative(path, run), PurePosixPath(stem), PurePosixPath(stem))
    return PageSet((file,), place, run, ending, is_single=True)


def _relative(path: Path, run: Path) -> str:
    """A loose file from where the run folder lies: the same wherever one stands, and when both are moved together."""
    try:
        return Path(os.path.relpath(path, run.parent)).as_posix()
    except ValueError:  # another drive
        return Path(os.path.abspath(path)).as_posix()
