"""The folder of a training run.

run/
    recipe.toml           as resolved; the mark of a training run, usable as --task
    split.json            which planes train, validate, test
    checkpoints/          last.pt to go on from; best.pt, of the best validation; epoch-NNNN.pt, as train.keep_every says
    weights.safetensors   the best so far, for predict
    board/                TensorBoard events
    report.html  report.json
    log.jsonl             what happened and when
    preview.png, .html    samples, of --preview
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unetctl.errors import ResourceError, UsageError

#: The best weights of a training run, inside its folder.
RUN_WEIGHTS = "weights.safetensors"
_HARMLESS = ("run.lock", ".recipe.toml.partial", "preview.", ".preview.")


def refuse_foreign(folder: Path) -> None:
    """Says so if the folder holds something that no training run has put there.

    Raises:
        UsageError: if it does, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"-o {folder} is a file", "a folder for the training run")
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    # A run that was killed before its first step leaves its lock, perhaps a half of its recipe; --preview leaves its sheet.
    if "recipe.toml" not in names and not all(name.startswith(_HARMLESS) for name in names):
        raise UsageError(f"{folder} exists and is not a training run", "a new name", "choose another with -o")


def sweep(folder: Path) -> None:
    """Removes what a killed run has left half written; the caller holds the run's lock."""
    for leftover in folder.glob(".*.partial*"):
        leftover.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Removes what a training run has written, and nothing else; the recipe, which marks the folder, is replaced later.

    Raises:
        OSError: if something cannot be removed.
    """
    for name in ("checkpoints", "board"):
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    for name in (RUN_WEIGHTS, "report.html", "report.json", "split.json", "log.jsonl", "preview.png", "preview.html"):
        (folder / name).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Whole or not at all.

    Raises:
        OSError: if the disk refuses; what stood there before stays.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing_explained(folder: Path) -> Iterator[None]:
    """Turns what the system refuses into an error of ours.

    Raises:
        ResourceError: naming the folder and the reason.
    """
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"the training run {folder} could not be written ({error.strerror or error})", "",
            "check the folder's rights and free space, and run the same command again",
        ) from error  # fmt: skip
