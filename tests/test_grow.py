"""A wider network begins with the answers of the narrower one that it came from."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unetctl.networks.build import build_network
from unetctl.networks.grow import can_grow, grown
from unetctl.networks.spec import UNetSpec
from unetctl.networks.unet import UNet

SMALL = UNetSpec(1, 2, (2, 3, 4))


def network_of(spec: UNetSpec) -> UNet:
    """With statistics of batch norm that are not those of a fresh one."""
    network = build_network(spec, 3)
    assert isinstance(network, UNet)
    for name, buffer in network.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=torch.Generator().manual_seed(len(name))) + 0.5)
    return network.eval()


@settings(max_examples=25)
@given(
    more=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
    slices=st.sampled_from([0, 1, 2]),
    shape=st.fixed_dictionaries(
        {
            "convolution": st.sampled_from(["valid", "same"]),
            "up": st.sampled_from(["transposed", "bilinear"]),
            "down": st.sampled_from(["max", "strided"]),
            "norm": st.sampled_from(["none", "batch"]),
            "dims": st.sampled_from([2, 3]),
        }
    ),
)
def test_a_grown_network_answers_what_the_small_one_did(more: tuple[int, ...], slices: int, shape: dict[str, Any]):
    small = replace(SMALL, **shape)
    widths = tuple(a + b for a, b in zip(small.widths, more, strict=True))
    large = replace(small, widths=widths, in_channels=1 + 2 * slices)
    network = network_of(small)
    wider = grown(network, large, seed=1)
    size = small.stride[0] * 2 + (2 * small.margin[0] if small.convolution == "valid" else 0)
    x = torch.rand(2, large.in_channels, *(size,) * small.dims, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(wider(x), network(x[:, slices : slices + 1]), atol=1e-5, rtol=1e-5)
    # and everything new can learn: the gradient reaches the weights that read the new features
    wider.train()
    wider(x).square().sum().backward()
    if any(more):
        assert all(p.grad is not None for p in wider.parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {"widths": (2, 3)}, {"widths": (1, 3, 4)}, {"in_channels": 2}, {"out_channels": 3}, {"up": "bilinear"},
        {"norm": "batch"},
    ],
)  # fmt: skip
def test_other_networks_are_no_grown_ones(changes: dict[str, Any]):
    large = replace(SMALL, **changes)
    assert not can_grow(SMALL, large)
    with pytest.raises(ValueError, match="does not grow"):
        grown(network_of(SMALL), large)
