"""A wider network that begins with what a narrower one has learnt, and a restorer that fills damage otherwise.

As in Net2Net (Chen, Goodfellow and Shlens 2016, arXiv 1511.05641): the grown network answers what the small one answered,
and has room to learn more. New features begin at random; nothing listens to them yet, as the weights that read them
begin at 0. More context slices are read by weights of 0 as well.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from unetctl.networks.build import build_network
from unetctl.networks.layers import ConvUnit, Down, Up
from unetctl.networks.network import Network
from unetctl.networks.spec import NetworkSpec, RestorerSpec, UNetSpec
from unetctl.networks.unet import UNet

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def can_grow(small: UNetSpec, large: UNetSpec) -> bool:
    """True if `grown` leads from one network to the other: same depth and kinds of layers, no level narrower.

    The input may have more channels, as many before as after: more context slices.
    """
    extra, rest = divmod(large.in_channels - small.in_channels, 2)
    return (
        len(small.widths) == len(large.widths)
        and all(a <= b for a, b in zip(small.widths, large.widths, strict=True))
        and extra >= 0
        and rest == 0
        and small == replace(large, widths=small.widths, in_channels=small.in_channels)
        and small.norm in ("none", "batch")
    )


def grown(network: UNet, spec: UNetSpec, seed: int | None = None) -> UNet:
    """A network of `spec` that answers what `network` answers.

    Args:
        network: stays as it is. Its input channels are the middle ones of the new input.
        spec: of the wider network; see `can_grow`.
        seed: of the new features.

    Raises:
        ValueError: if `can_grow` says no.
    """
    small = network.spec
    if not can_grow(small, spec):
        raise ValueError(f"a network of widths {small.widths} does not grow to one of widths {spec.widths}")
    large = build_network(spec, seed)
    assert isinstance(large, UNet)
    first = (spec.in_channels - small.in_channels) // 2
    taken = torch.arange(first, first + small.in_channels)
    with torch.no_grad():
        for level in range(len(small.widths)):
            old, new = small.widths[level], spec.widths[level]
            before = taken if level == 0 else torch.arange(old if small.down == "strided" else small.widths[level - 1])
            _grow_chain(network.contracting[level], large.contracting[level], before)
            if level < small.depth:
                # The skip comes first, what was lifted after it.
                joined = torch.cat((torch.arange(old), new + torch.arange(old)))
                _grow_chain(network.expanding[level], large.expanding[level], joined)
                for pair in ((network.downs[level], large.downs[level]), (network.ups[level], large.ups[level])):
                    _grow_sampling(*pair)
        _copy(network.head, large.head, torch.arange(small.widths[0]))
    return large.train(network.training)


def can_fill(old: NetworkSpec, new: NetworkSpec) -> bool:
    """True if two restorers differ by `RestorerSpec.fill_scales` and `unveil` alone: weights of one serve the other."""
    return (
        isinstance(old, RestorerSpec)
        and isinstance(new, RestorerSpec)
        and replace(old, fill_scales=new.fill_scales, unveil=new.unveil) == new
    )


def filling(network: Network, spec: NetworkSpec) -> Network:
    """A restorer of `spec` with the weights of `network`, of which the same mask follows.

    Raises:
        ValueError: if `can_fill` says no.
    """
    if not can_fill(network.spec, spec):
        raise ValueError(f"{network.spec} and {spec} differ by more than fill_scales and unveil")
    other = build_network(spec)
    weights = network.state_dict()
    for name, have in other.state_dict().items():
        if name.startswith(
            "picture_head."
        ):  # the share of what shines through, at first one half everywhere, comes last
            taken = weights[name][: len(have)]
            weights[name] = torch.cat((taken, taken.new_zeros((len(have) - len(taken), *taken.shape[1:]))))
    other.load_state_dict(weights)
    return other.train(network.training)


def _grow_chain(old: nn.Module, new: nn.Module, channels: Tensor) -> None:
    pairs = zip(old.units, new.units, strict=True)  # type: ignore[arg-type]  # modules are untyped
    for unit, wider in pairs:
        assert isinstance(unit, ConvUnit)
        _copy(unit.conv, wider.conv, channels)
        if unit.norm is not None:
            for name, value in unit.norm.state_dict().items():
                target = wider.norm.state_dict()[name]
                target[: len(value)].copy_(value) if value.ndim else target.copy_(value)
        channels = torch.arange(unit.conv.weight.shape[0])


def _grow_sampling(old: nn.Module, new: nn.Module) -> None:
    assert isinstance(old, Up | Down)
    if isinstance(old.conv, _CONVOLUTIONS):
        is_turned = isinstance(old.conv, nn.ConvTranspose2d | nn.ConvTranspose3d)
        _copy(old.conv, new.conv, torch.arange(old.conv.weight.shape[0 if is_turned else 1]))


def _copy(old: nn.Module, new: object, channels: Tensor) -> None:
    """The old weights into their places: `channels` of the input; the old outputs hear nothing of any other."""
    assert isinstance(old, _CONVOLUTIONS)
    assert isinstance(new, _CONVOLUTIONS)
    num_out = len(old.bias) if old.bias is not None else old.weight.shape[0]
    source, target = old.weight, new.weight
    if isinstance(old, nn.ConvTranspose2d | nn.ConvTranspose3d):  # (in, out, *kernel)
        source, target = source.transpose(0, 1), target.transpose(0, 1)
    target[:num_out] = 0
    target[:num_out, channels] = source
    if old.bias is not None and new.bias is not None:
        new.bias[:num_out] = old.bias
