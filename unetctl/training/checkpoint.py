"""Checkpoints: everything needed to go on bit for bit, written so that a kill never costs the previous one."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from unetctl.errors import ResourceError, WeightsError


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes tensors and plain values to a temporary name, flushes to disk, renames over `path`.

    Raises:
        ResourceError: if the disk is full; the previous checkpoint stays.
    """
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


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote; code inside the file is never run.

    Raises:
        WeightsError: if the file is damaged or holds anything but tensors and plain values.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise WeightsError(
            f"the checkpoint {path} cannot be read ({error})", "a checkpoint of unetctl train", "start over with --fresh"
        ) from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path} holds a {type(state).__name__}", "a checkpoint of unetctl train", "start over with --fresh")
    return state
