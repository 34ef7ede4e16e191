"""The files of a folder that may hold pages, in the order in which people number them."""

import os
from pathlib import Path

from unetctl.errors import InputError
from unetctl.sources.files import is_own_output
from unetctl.sources.formats import is_page_picture, is_pdf
from unetctl.sources.slices import natural_key

__all__ = ["PAGE_EXTENSIONS", "find_pages", "is_page_file", "natural_key"]

#: Of files of pages, lower case. What claims to be a page and is not shall be told of, not passed over.
PAGE_EXTENSIONS = frozenset(
    (
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".pdf"),
        *(".jp2", ".j2k", ".jpx", ".jpf", ".pbm", ".pgm", ".ppm", ".pnm"),
    )
)
_ZARR_SUFFIX = ".zarr"


def is_page_file(path: str | os.PathLike[str]) -> bool:
    """True if a file's content or, where that says nothing, its extension is that of pictures or PDF."""
    found = os.fspath(path)
    if os.path.splitext(found)[1].lower() in PAGE_EXTENSIONS:
        return True
    return is_pdf(found) or is_page_picture(found)


def find_pages(path: str | os.PathLike[str], recursive: bool = False) -> list[Path]:
    """The files of pages that a path names, a folder's in natural order (2 before 10), folder by folder.

    Hidden files and folders, outputs of unetctl with their ``.run`` folders, and zarr folders are left out. Links are followed, each folder
    entered once. Files that bear a picture's extension are named whatever they hold: broken ones fail when opened, and so
    do inner folders that cannot be listed.

    Args:
        path: a file, which is given back as it is, or a folder.
        recursive: folders inside the folder too.

    Raises:
        InputError: if there is nothing there or the folder cannot be listed.
    """
    top = Path(path)
    if top.is_file():
        return [top]
    if not top.is_dir():
        raise InputError(f"{top} cannot be found", "an existing file or folder")
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    todo = [top]
    while todo:
        folder = todo.pop()
        try:
            told = folder.stat()
            if (told.st_dev, told.st_ino) in seen:
                continue
            seen.add((told.st_dev, told.st_ino))
            entries = sorted(os.scandir(folder), key=lambda e: (natural_key(e.name), e.name))
        except OSError as error:
            if folder is top:
                raise InputError(f"{folder} cannot be listed ({error.strerror})", "a readable folder") from error
            found.append(folder)  # told of when it is opened, like a broken file
            continue
        inner = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:
                is_folder = is_file = False  # a link that points at itself
            if is_own_output(entry.path):
                continue
            if is_folder and recursive and not entry.name.lower().endswith(_ZARR_SUFFIX):
                inner.append(Path(entry.path))
            elif (is_file or _is_dangling(entry)) and is_page_file(entry.path):
                found.append(Path(entry.path))
        todo += reversed(inner)
    return found


def _is_dangling(entry: "os.DirEntry[str]") -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)
