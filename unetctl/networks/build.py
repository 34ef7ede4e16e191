"""From a spec to a torch module, and what inference does to it first."""

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from unetctl.errors import WeightsError
from unetctl.networks.layers import ConvUnit
from unetctl.networks.network import Network
from unetctl.networks.restorer import Restorer
from unetctl.networks.spec import SPECS, NetworkSpec, RestorerSpec, StackedSpec, UNetSpec
from unetctl.networks.stacked import Stacked
from unetctl.networks.unet import UNet

_N = TypeVar("_N", bound=Network)


def spec_from_dict(values: Mapping[str, Any]) -> NetworkSpec:
    """The spec in a weights file's header.

    Raises:
        WeightsError: if the kind is unknown or the values do not fit it.
    """
    kind = values.get("kind")
    if kind not in SPECS:
        raise WeightsError(
            f"the weights are of a network of kind {kind!r}", f"one of {sorted(SPECS)}", "update unetctl"
        )
    try:
        return SPECS[kind].from_dict(values)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise WeightsError(f"the weights' network spec is not understood ({error})", "", "update unetctl") from error


def build_network(spec: NetworkSpec, seed: int | None = None) -> Network:
    """The module of a spec with He-initialised weights, in training mode, float32.

    Args:
        spec: of any known kind.
        seed: of the initial weights; None leaves torch's global generator in charge.
    """
    if seed is None:
        return _module_of(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _module_of(spec)


def _module_of(spec: NetworkSpec) -> Network:
    match spec:
        case UNetSpec():
            return UNet(spec)
        case StackedSpec():
            return Stacked(spec)
        case RestorerSpec():
            return Restorer(spec)
    raise ValueError(f"there is no module for networks of kind {spec.kind!r}")


def fitted(network: Network, spec: NetworkSpec) -> Network:
    """The network as `spec` asks for it: itself, or the first blocks of a row of U-Nets (the same modules).

    Raises:
        WeightsError: if these weights do not serve that spec.
    """
    refuse_unfit(spec, network.spec)
    if isinstance(network, Stacked) and isinstance(spec, StackedSpec):
        return network.first(spec.num_blocks)
    return network


def refuse_unfit(spec: NetworkSpec, trained: NetworkSpec, where: str = "the weights file") -> None:
    """Says so if weights of the network `trained` do not serve `spec`.

    Args:
        spec: what is asked for.
        trained: what there is.
        where: names the weights.

    Raises:
        WeightsError: in one sentence.
    """
    if spec.is_part_of(trained):
        return
    if isinstance(spec, StackedSpec) and isinstance(trained, StackedSpec) and spec.block == trained.block:
        raise WeightsError(
            f"{where} holds {trained.num_blocks} blocks and network.blocks asks for {spec.num_blocks}",
            f"1 to {trained.num_blocks}",
        )
    raise WeightsError(
        f"{where} was trained with another network than is asked for",
        "weights of that network",
        "leave out --weights or the network settings",
    )


def folded(network: _N, dtype: torch.dtype | None = None) -> _N:
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


def for_inference(network: _N, device: torch.device, precision: torch.dtype) -> _N:
    """A folded copy on `device` in `precision`, channels last; heads stay float32 so that answers keep their digits.

    float64 is kept throughout (the exactness tests use it).
    """
    is_short = precision in (torch.bfloat16, torch.float16)
    network = folded(network, torch.float32 if is_short else precision)
    heads = {name: copy.deepcopy(network.get_submodule(name)) for name in network.heads}
    network = network.to(device, precision)
    if is_short:
        for name, head in heads.items():
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, head.to(device))
    return channels_last(network)


def channels_last(network: _N) -> _N:
    """The same module with its weights laid out channels last, in place."""
    layout = torch.channels_last if network.spec.dims == 2 else torch.channels_last_3d
    network.to(memory_format=layout)  # type: ignore[call-overload]  # missing in torch's stubs
    return network
