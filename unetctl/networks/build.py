"""From a spec to a torch module, and what inference does to it first."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from unetctl.errors import WeightsError
from unetctl.networks.layers import ConvUnit
from unetctl.networks.spec import UNetSpec
from unetctl.networks.unet import UNet

#: A new kind of network is a spec with stride, margin, halo, and a module whose forward takes (tile, frame).
_KINDS: dict[str, tuple[type[UNetSpec], type[UNet]]] = {"unet": (UNetSpec, UNet)}


def spec_from_dict(values: Mapping[str, Any]) -> UNetSpec:
    """The spec in a weights file's header.

    Raises:
        WeightsError: if the kind is unknown or the values do not fit it.
    """
    kind = values.get("kind")
    if kind not in _KINDS:
        raise WeightsError(
            f"the weights are of a network of kind {kind!r}", f"one of {sorted(_KINDS)}", "update unetctl"
        )
    try:
        return _KINDS[kind][0].from_dict(values)
    except (TypeError, ValueError, KeyError) as error:
        raise WeightsError(f"the weights' network spec is not understood ({error})", "", "update unetctl") from error


def build_network(spec: UNetSpec, seed: int | None = None) -> UNet:
    """The module of a spec with He-initialised weights, in training mode, float32.

    Args:
        spec: of any known kind.
        seed: of the initial weights; None leaves torch's global generator in charge.
    """
    if seed is None:
        return _KINDS[spec.kind][1](spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _KINDS[spec.kind][1](spec)


def folded(network: UNet, dtype: torch.dtype | None = None) -> UNet:
    """A copy in eval mode whose batch norms are folded into the convolutions before them: same function, fewer steps.

    Args:
        network: stays as it is.
        dtype: of the copy; None keeps the network's.
    """
    wanted = dtype or next(network.parameters()).dtype
    network = copy.deepcopy(network).eval().double()  # folding multiplies: float32 would cost digits
    for unit in network.modules():
        if isinstance(unit, ConvUnit) and isinstance(unit.norm, nn.BatchNorm2d | nn.BatchNorm3d):
            unit.conv = fuse_conv_bn_eval(unit.conv, unit.norm)
            unit.norm = None
    return network.requires_grad_(False).to(wanted)


def for_inference(network: UNet, device: torch.device, precision: torch.dtype) -> UNet:
    """A folded copy on `device` in `precision`, channels last; the head stays float32 so that logits keep their digits.

    float64 is kept throughout (the exactness tests use it).
    """
    is_short = precision in (torch.bfloat16, torch.float16)
    network = folded(network, torch.float32 if is_short else precision)
    head = copy.deepcopy(network.head)
    network = network.to(device, precision)
    if is_short:
        network.head = head.to(device)
    return channels_last(network)


def channels_last(network: UNet) -> UNet:
    """The same module with its weights laid out channels last, in place."""
    layout = torch.channels_last if network.spec.dims == 2 else torch.channels_last_3d
    network.to(memory_format=layout)  # type: ignore[call-overload]  # missing in torch's stubs
    return network
