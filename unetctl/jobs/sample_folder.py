"""Samples that are folders: written under a temporary name, put in place by rename, the same again accepted."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from unetctl.errors import UsageError

#: Gives the files of a sample: relative path with slashes, content.
Drawn = Callable[[], Iterator[tuple[str, bytes]]]


def put_folder(path: Path, drawn: Drawn, overwrite: bool) -> None:
    """Writes a folder of files, all of it or nothing.

    Args:
        path: of the folder; its parent exists.
        drawn: the files.
        overwrite: replace another folder's files of these names; what else lies in it stays.

    Raises:
        UsageError: if there is something else and it is not to be replaced.
        OSError: if the disk is full or not writable.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} exists and is no folder", "a new name")
    if not path.name:
        raise UsageError(f"-o {path} is the working directory or the root", "a folder of its own", "-o NAME")
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
    made = path.with_name(f".{path.name}.partial-{os.getpid()}")
    shutil.rmtree(made, ignore_errors=True)
    try:
        made.mkdir()
        for name, content in drawn():
            file = made / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        if not path.exists():
            made.replace(path)
            return
        written = [file.relative_to(made) for file in sorted(made.rglob("*")) if file.is_file()]
        if not overwrite:
            for one in written:
                if not (path / one).is_file() or (path / one).read_bytes() != (made / one).read_bytes():
                    raise UsageError(
                        f"{path} exists and is no such sample ({one} differs)", "a new name", "choose another with -o"
                    )
            return
        for one in written:
            (path / one).parent.mkdir(parents=True, exist_ok=True)
            (made / one).replace(path / one)
    finally:
        shutil.rmtree(made, ignore_errors=True)
