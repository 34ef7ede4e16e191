"""Several U-Nets in a row: what they need follows from their blocks, and the result does not know how it was cut."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.engine_cases import Case, assert_exact, cases, made_network, networks
from tests.plain_networks import plain_row
from unetctl.errors import WeightsError
from unetctl.networks.build import build_network, fitted, folded, for_inference, spec_from_dict
from unetctl.networks.network import TileFrame
from unetctl.networks.spec import NetworkSpec, StackedSpec, UNetSpec
from unetctl.networks.stacked import Stacked
from unetctl.networks.weights import WeightsHeader, load_weights, save_weights

BICUBIC = {"kind": "stacked", "channels": [1, 2, 1], "up": "bicubic"}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def row(case: Case, num_blocks: int) -> Case:
    """The case with so many of its network in a row."""
    return replace(case, network={**case.network, "kind": "stacked", "blocks": num_blocks}, context_slices=1)


# -- tiled equals whole


@settings(max_examples=10)
@given(case=cases(depths=(1, 3)), num_blocks=st.integers(1, 3))
@example(case=Case(BICUBIC, "yx", (33, 50), (16, 32), (2, 1)), num_blocks=2)
@example(case=Case({**BICUBIC, "convolution": "same"}, "yx", (3, 5), (4, 4), (1, 1), method="none"), num_blocks=3)
@example(case=Case(BICUBIC, "cyx", (21, 40), (8, 8), (1, 2), num_channels=3, num_classes=3), num_blocks=2)
def test_tiled_is_the_row_on_the_whole_mirrored_image(case, num_blocks):
    assert_exact(row(case, num_blocks))


@settings(max_examples=8)
@given(case=cases(depths=(1, 3), border="native"), num_blocks=st.integers(1, 3))
@example(
    case=Case({**BICUBIC, "convolution": "same", "border": "native"}, "yx", (49, 17), (8, 4), (2, 2)), num_blocks=2
)
@example(case=Case({**BICUBIC, "convolution": "same", "border": "native"}, "yx", (97, 5), (8, 4), (1, 1)), num_blocks=3)
def test_tiled_is_the_row_with_its_own_padding_on_the_whole_image(case, num_blocks):
    assert_exact(row(case, num_blocks))


@settings(max_examples=4)
@given(case=cases(depths=(1, 1), dims=3))
def test_three_axes_are_as_exact_as_two(case):
    assert_exact(row(case, 2))


@pytest.mark.parametrize("border", ["mirror", "native"])
@pytest.mark.parametrize("num_blocks", [1, 2, 3])
def test_every_block_answers_logits_and_image(border, num_blocks):
    values = {**BICUBIC, "convolution": "same", "border": border, "blocks": num_blocks}
    case = Case(values, "cyx", (40, 24), (8, 8), (1, 1), num_channels=2)
    network = made_network(case).double()
    assert isinstance(network, Stacked)
    x = torch.randn(2, 2, 40, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answers, wanted = network.answers(x), plain_row(network, x)  # without a frame it pads at the tile's ends itself
        assert len(answers) == num_blocks
        for answer, (logits, image) in zip(answers, wanted, strict=True):
            assert answer.image is not None
            torch.testing.assert_close(answer.logits, logits, rtol=0, atol=1e-12)
            torch.testing.assert_close(answer.image, image, rtol=0, atol=1e-12)
        for k in range(1, num_blocks + 1):  # fewer blocks: the answer that they gave on the way
            shorter = fitted(network, replace(network.spec, num_blocks=k))
            assert torch.equal(shorter(x), answers[k - 1].logits)
            assert torch.equal(network(x), answers[-1].logits)


def test_an_untrained_row_leaves_the_image_as_it_is():
    network = build_network(StackedSpec.of(3, 1, 2, widths=(2, 4), convolution="same"), 0)
    x = torch.randn(1, 3, 16, 16)
    image = network.final(x).image
    assert image is not None
    assert torch.equal(image, x)


# -- the margin is what the module really sees


@settings(max_examples=15)
@given(
    network=st.one_of(networks((1, 3), 2, "mirror"), networks((1, 1), 3, "mirror")),
    num_blocks=st.integers(1, 3),
    axis=st.integers(0, 1),
)
def test_cores_depend_on_no_pixel_beyond_the_margin(network, num_blocks, axis):
    num_blocks = 1 + (num_blocks > 1) if network["dims"] == 3 else num_blocks
    spec = row(Case(network, "yx", (1, 1), (1, 1), (1, 1)), num_blocks).recipe.network_spec
    module = build_network(spec, seed=0).eval()
    for parameter in module.parameters():
        parameter.data.abs_()  # no weight is shut by a ReLU: nothing hides a dependence
    stride, margin = spec.stride[0], spec.margin[0]
    ring = -(-margin // stride) * stride + stride
    sizes = [stride + 2 * spec.halo[0]] * spec.dims
    frame = [(spec.halo[0], spec.halo[0] + stride)] * spec.dims
    sizes[axis] = 2 * ring + stride + 2 * spec.halo[0]
    frame[axis] = (spec.halo[0], spec.halo[0] + 2 * ring + stride)
    first = spec.halo[0] + ring  # of the core looked at, in the tile

    def reaches(position: int) -> bool:
        x = torch.rand(1, spec.in_channels, *sizes, generator=torch.Generator().manual_seed(0))
        x.narrow(2 + axis, position, 1).fill_(float("nan"))
        with torch.no_grad():
            y = module(x, TileFrame(tuple(frame), ((False, False),) * spec.dims))
        return bool(y.narrow(2 + axis, ring, stride).isnan().any())

    assert not reaches(first - margin - 1)
    assert not reaches(first + stride + margin)
    # A block's core begins on the grid: it may answer up to a stride more than the next block reads, and what it answers
    # between the lines of the grid may look less far.
    slack = 2 * (num_blocks - 1) * (stride - 1)
    before, after = first - margin, first + stride - 1 + margin
    assert any(reaches(before + i) or reaches(after - i) for i in range(slack + 1))


@pytest.mark.parametrize("up", ["transposed", "bilinear", "bicubic"])
def test_margins_add_up_on_the_grid(up):
    block = UNetSpec(1, 2, (1, 1, 1), up=up)
    for num_blocks in (1, 2, 3):
        spec = StackedSpec(block, num_blocks)
        margin = block.margin[0]
        for _ in range(num_blocks - 1):
            margin = -(-margin // 4) * 4 + block.margin[0]
        assert spec.stride == block.stride
        assert spec.margin == spec.halo == (margin, margin)
        rounded = replace(spec, block=replace(block, convolution="same")).halo[0]
        assert rounded == -(-margin // 4) * 4


def test_a_tile_without_its_halo_is_refused():
    network = build_network(StackedSpec.of(1, 1, 2, widths=(2, 2)))
    with pytest.raises(ValueError, match="lacks halo"):
        network(torch.zeros(1, 1, 20, 20), TileFrame(((4, 16), (4, 16)), ((False, False),) * 2))


def test_work_counts_what_is_computed():
    spec = StackedSpec.of(2, 1, 3, widths=(2, 3), up="bilinear")
    network = build_network(spec)
    counted = 0

    def count(module: Any, inputs: Any, output: torch.Tensor) -> None:
        nonlocal counted
        places = output.shape[2] * output.shape[3]
        counted += int(places * np.prod(module.kernel_size) * module.in_channels * module.out_channels)

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    network(torch.zeros(1, 2, 16 + 2 * spec.margin[0], 16 + 2 * spec.margin[1]))
    assert spec.work((16, 16)) == counted
    assert spec.peak_features((16, 16)) > spec.block.peak_features((16, 16))


# -- prepared, kept, taken up


def test_folding_batch_norm_changes_nothing():
    network = build_network(StackedSpec.of(1, 1, 2, widths=(4, 4), norm="batch", convolution="same"), 0).double()
    for name in network.heads:
        torch.nn.init.normal_(network.get_parameter(f"{name}.weight"))
    network.train()
    for _ in range(3):
        network(torch.randn(2, 1, 40, 40, dtype=torch.float64))
    network.eval()
    x = torch.randn(1, 1, 40, 40, dtype=torch.float64)
    short = folded(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in short.modules())
    torch.testing.assert_close(short(x), network(x), rtol=0, atol=1e-12)


def test_in_short_arithmetic_heads_and_image_keep_their_digits():
    spec = StackedSpec.of(1, 1, 2, widths=(4, 4), convolution="same")
    network = for_inference(build_network(spec, 0), torch.device("cpu"), torch.bfloat16)
    assert {network.get_parameter(f"{name}.weight").dtype for name in network.heads} == {torch.float32}
    assert network.input_dtype == torch.float32
    x = torch.rand(1, 1, 16, 16)
    final = network.final(x)
    assert final.image is not None
    assert torch.equal(final.image, x)
    assert final.logits.dtype == torch.float32


def test_specs_and_weights_come_back(tmp_path):
    spec = StackedSpec.of(3, 1, 3, widths=(2, 4), norm="batch", up="bicubic")
    assert spec_from_dict(spec.to_dict()) == spec
    network = build_network(spec, 1)
    save_weights(tmp_path / "w.safetensors", network, WeightsHeader("t", spec.to_dict(), {}))
    again, _ = load_weights(tmp_path / "w.safetensors")
    x = torch.randn(1, 3, 96, 96)
    assert again.spec == spec
    torch.testing.assert_close(again(x), network.eval()(x), rtol=0, atol=1e-2)


def test_fewer_blocks_serve_and_more_or_others_do_not():
    spec = StackedSpec.of(1, 1, 2, widths=(2, 4))
    network = build_network(spec, 0)
    one = fitted(network, replace(spec, num_blocks=1))
    assert one.spec.margin < spec.margin
    assert one.state_dict().keys() == {k for k in network.state_dict() if k.startswith("blocks.0.")}
    assert fitted(network, spec) is network
    with pytest.raises(WeightsError, match=r"holds 2 blocks and network.blocks asks for 3; expected 1 to 2"):
        fitted(network, replace(spec, num_blocks=3))
    others: list[NetworkSpec] = [
        UNetSpec(1, 1, (2, 4)),
        StackedSpec.of(1, 1, 1, widths=(2, 8)),
        StackedSpec.of(2, 1, 1, widths=(2, 4)),
    ]
    for other in others:
        with pytest.raises(WeightsError, match="another network"):
            fitted(network, other)


@pytest.mark.parametrize(
    "broken",
    [{"block": None}, {"num_blocks": 0}, {"block": {"in_channels": 2, "out_channels": 2, "widths": [1]}}, {"more": 1}],
)
def test_a_header_that_says_nonsense_is_refused(broken):
    values = {**StackedSpec.of(1, 1, 2, widths=(2, 4)).to_dict(), **broken}
    with pytest.raises(WeightsError, match="not understood"):
        spec_from_dict(values)
