"""The promise itself: whatever the tiling, the result is the network run once on the whole mirrored image."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tests.engine_cases import Case, assert_exact, cases, networks, tiled
from unetctl.networks.build import build_network
from unetctl.networks.spec import UNetSpec
from unetctl.networks.unet import TileFrame

PAPER = {"channels": [1, 2, 1, 2, 1]}
BILINEAR = {**PAPER, "convolution": "same", "up": "bilinear", "norm": "batch"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are tiny: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# -- tiled equals whole


@settings(max_examples=25)
@given(case=cases())
@example(case=Case(PAPER, "yx", (33, 50), (16, 32), (2, 1)))
@example(case=Case(BILINEAR, "yx", (3, 5), (16, 16), (1, 1), dtype="float32", method="none"))
@example(case=Case({**PAPER, "channels": [1, 1, 1, 1, 1, 1]}, "zyx", (2, 35, 32), (1, 32, 64), (2, 1, 1)))
def test_tiled_is_the_network_on_the_whole_mirrored_image(case):
    assert_exact(case)


@settings(max_examples=12)
@given(case=cases(depths=(2, 4), border="native"))
@example(case=Case({**PAPER, "convolution": "same", "border": "native"}, "yx", (49, 17), (16, 16), (2, 2)))
@example(
    case=Case(
        {"channels": [2, 1, 2], "convolution": "same", "border": "native", "padding": "reflect", "up": "bilinear"},
        "zyx",
        (3, 41, 90),
        (1, 12, 16),
        (1, 2, 3),
        context_slices=3,
    )
)
def test_tiled_is_the_network_with_its_own_padding_on_the_whole_image(case):
    assert_exact(case)


@settings(max_examples=8)
@given(case=cases(depths=(1, 2), dims=3), border=st.sampled_from(["mirror", "native"]))
def test_three_axes_are_as_exact_as_two(case, border):
    if border == "native" and case.network["convolution"] == "same" and case.network["padding"] == "zero":
        case = replace(case, network={**case.network, "border": "native"})
    assert_exact(case)


def test_the_paper_s_tile():
    """572 pixels in, 388 out (Ronneberger et al. 2015, figure 1); 384 of these lie on the pooling grid and are kept."""
    spec = UNetSpec(1, 1, (1, 1, 1, 1, 1))
    assert (spec.stride, spec.margin, spec.halo) == ((16, 16), (94, 94), (94, 94))
    network: Any = build_network(spec, seed=1).double().eval()
    x = torch.randn(1, 1, 572, 572, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        skips, y = [], x
        for level, chain in enumerate(network.contracting):
            for unit in chain.units:
                y = unit(y)
            if level < 4:
                skips.append(y)
                y = functional.max_pool2d(y, 2)
        for level in reversed(range(4)):
            y = network.ups[level].conv(y)
            skip = skips.pop()
            trim = (skip.shape[-1] - y.shape[-1]) // 2
            y = torch.cat((skip[..., trim:-trim, trim:-trim], y), 1)
            for unit in network.expanding[level].units:
                y = unit(y)
        paper = network.head(y)
        assert paper.shape[-1] == 388
        ours = network(x)
    assert ours.shape[-1] == 384
    assert torch.allclose(ours, paper[..., 2:-2, 2:-2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["group", "instance"])
def test_norms_over_the_tile_are_known_to_be_inexact(norm):
    network = {"channels": [4, 4], "convolution": "same", "norm": norm}
    case = Case(network, "yx", (40, 40), (16, 16), (1, 1))
    assert not case.recipe.network_spec.is_exact
    other = replace(case, core=(40, 40))
    assert np.abs(tiled(case) - tiled(other)).max() > 1e-3


# -- the margin is what the module really sees


@settings(max_examples=20)
@given(
    network=st.one_of(networks((1, 3), 2, "mirror"), networks((1, 2), 3, "mirror")),
    num_cores=st.integers(1, 2),
    axis=st.integers(0, 1),
)
def test_cores_depend_on_pixels_as_far_as_the_margin_and_no_farther(network, num_cores, axis):
    spec = Case(network, "yx", (1, 1), (1, 1), (1, 1)).recipe.network_spec
    module = build_network(spec, seed=0).eval()
    for parameter in module.parameters():
        parameter.data.abs_()  # no weight is 0, no ReLU is shut: nothing hides a dependence
    stride, margin = spec.stride[0], spec.margin[0]
    ring = -(-margin // stride) * stride + stride
    core = num_cores * stride
    # One long tile whose core is much larger than the core looked at: nothing is trimmed around the latter.
    sizes = [stride + 2 * spec.halo[0]] * spec.dims
    frame = [(spec.halo[0], spec.halo[0] + stride)] * spec.dims
    sizes[axis] = 2 * ring + core + 2 * spec.halo[0]
    frame[axis] = (spec.halo[0], spec.halo[0] + 2 * ring + core)
    first = spec.halo[0] + ring  # of the core looked at, in the tile

    def reaches(position: int) -> bool:
        x = torch.rand(1, spec.in_channels, *sizes, generator=torch.Generator().manual_seed(0))
        x.narrow(2 + axis, position, 1).fill_(float("nan"))
        with torch.no_grad():
            y = module(x, TileFrame(tuple(frame), ((False, False),) * spec.dims))
        return bool(y.narrow(2 + axis, ring, core).isnan().any())

    assert not reaches(first - margin - 1)
    assert not reaches(first + core + margin)
    assert reaches(first - margin) or reaches(first + core - 1 + margin)
