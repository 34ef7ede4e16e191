"""Checkpoints: everything needed to go on bit for bit, written so that a kill never costs the previous one."""

import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from unetctl.errors import ResourceError, WeightsError

#: Longer values (checksums) are not shown in messages about what differs.
_SHOWN_LENGTH = 40


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes tensors and plain values to a temporary name, flushes to disk, renames over `path`.

    Raises:
        ResourceError: if the disk is full; the previous checkpoint stays.
    """
    for leftover in path.parent.glob(".*.partial-*"):  # of a process that was killed here
        leftover.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise ResourceError(
            f"the checkpoint {path} could not be written ({error})", "", "free space and run the same command again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def keep_checkpoint(path: Path, name: str) -> None:
    """Keeps what is at `path` now beside it under another name; whole or not at all, without writing it again if possible.

    Raises:
        ResourceError: if the disk is full; what had the name before stays.
    """
    temporary = path.with_name(f".{name}.partial-{os.getpid()}")
    try:
        try:
            temporary.hardlink_to(path)  # `path` is only ever replaced, so this one stays as it is
        except OSError:  # file systems without links
            shutil.copyfile(path, temporary)
        temporary.replace(path.with_name(name))
    except OSError as error:
        raise ResourceError(
            f"the checkpoint {path.with_name(name)} could not be written ({error})", "",
            "free space and run the same command again",
        ) from error  # fmt: skip
    finally:
        temporary.unlink(missing_ok=True)


def random_state() -> dict[str, Any]:
    """Of torch's generators. Steps seed them anew; whatever draws between steps goes on as well."""
    has_cuda = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if has_cuda else []}


def set_random_state(state: Mapping[str, Any]) -> None:
    """Sets what `random_state` gave; an empty one, or one of other CUDA devices, changes nothing."""
    if "cpu" in state:
        torch.set_rng_state(state["cpu"])
    if state.get("cuda") and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote; code inside the file is never run.

    Raises:
        WeightsError: if the file is damaged or holds anything but tensors and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums that it writes
            damaged = archive.testzip()
        state = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage surfaces as any type of exception
        raise _unusable(path, f"cannot be read ({type(error).__name__})") from error
    if damaged:
        raise _unusable(path, f"is damaged at {damaged}")
    if not isinstance(state, dict):
        raise _unusable(path, f"holds a {type(state).__name__}")
    return state


def _unusable(path: Path, what: str) -> WeightsError:
    best = path.with_name("best.pt")
    hint = f"copy {best} over it to go on from the best epoch, or " if best != path and best.exists() else ""
    return WeightsError(
        f"the checkpoint {path} {what}", "a checkpoint of unetctl train", f"{hint}start over with --fresh"
    )


def differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """What two identities do not share: "data", or "train.lr (0.01, now 0.001)" of a recipe."""
    for key in sorted(mine.keys() | theirs.keys()):
        if mine.get(key) == theirs.get(key):
            continue
        new, old = _settings(mine.get(key)), _settings(theirs.get(key))
        if new is None or old is None:
            new, old = {key: mine.get(key)}, {key: theirs.get(key)}
        for name in sorted(new.keys() | old.keys()):
            pair = [json.dumps(values.get(name)) for values in (old, new)]
            if pair[0] != pair[1]:
                is_short = max(map(len, pair)) <= _SHOWN_LENGTH
                yield name + (f" ({pair[0]}, now {pair[1]})" if is_short else "")


def _settings(value: Any) -> dict[str, Any] | None:
    """Of JSON text that holds a table, "section.key" to value; None for anything else."""
    try:
        table = json.loads(value)
    except (TypeError, ValueError):
        return None
    if not isinstance(table, dict):
        return None
    flat: dict[str, Any] = {}
    for name, inner in table.items():
        flat |= {f"{name}.{key}": v for key, v in inner.items()} if isinstance(inner, dict) else {name: inner}
    return flat
