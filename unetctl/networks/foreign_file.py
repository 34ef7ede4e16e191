"""Files of state dicts that others saved with PyTorch: nothing pickled in them is run."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unetctl.errors import WeightsError

State = dict[str, Tensor]

#: Under these names checkpoints keep the state dict among other things.
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "params", "weights", "module")
#: Prefixes that wrappers of modules put before every name.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "unet.")


def read_state(path: Path) -> State:
    """The tensors of a foreign file, in its order, wrappers taken off.

    Args:
        path: a PyTorch file that holds nothing but tensors, numbers and texts, or a safetensors file.

    Raises:
        WeightsError: if it is missing, damaged, wants to run code, or holds no state dict.
    """
    if not path.is_file():
        raise WeightsError(f"there is no file {path}", "a state dict saved by torch.save")
    if path.suffix == ".safetensors":
        try:
            return _stripped(load_file(path))
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} cannot be read ({error})", "a safetensors file") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        raise WeightsError(
            f"{path} wants to run code when it is opened" + (f" ({wanted[1]})" if wanted else ""),
            "a file of tensors alone",
            "where the network's own code is at hand and trusted, save its numbers only: "
            'torch.save(model.state_dict(), "state.pt"); then import that file',
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{path} cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
            "a state dict saved by torch.save",
            "copy it again; it may be cut short",
        ) from error
    found = _state_in(content)
    if not found:
        kind = (
            f"keys {', '.join(map(str, list(content)[:8]))}" if isinstance(content, Mapping) else type(content).__name__
        )
        raise WeightsError(
            f"{path} holds no state dict ({kind})", f"tensors by name, or under one of {', '.join(_WRAPPERS)}"
        )
    return _stripped(found)


def _state_in(content: object) -> State:
    if not isinstance(content, Mapping):
        return {}
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        return tensors
    return next((state for name in _WRAPPERS if (state := _state_in(content.get(name)))), {})


def _stripped(state: State) -> State:
    """Without what wrappers put before all names."""
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), ""):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state
