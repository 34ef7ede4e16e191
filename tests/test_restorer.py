"""The network that finds and repairs damage: what it needs follows from its spec, and the result does not know how it was cut."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.engine_cases import Case, assert_exact, cases, engine_for, made_network, networks
from tests.plain_networks import plain_restorer
from unetctl.errors import WeightsError
from unetctl.geometry.mirror import read_mirrored
from unetctl.networks.build import build_network, fitted, folded, for_inference, spec_from_dict
from unetctl.networks.network import TileFrame
from unetctl.networks.restorer import Restorer, SubBlock
from unetctl.networks.spec import RestorerSpec, UNetSpec
from unetctl.networks.weights import WeightsHeader, load_weights, save_weights
from unetctl.runtime.engine import Engine, TileJob
from unetctl.runtime.grey_scale import Scaling
from unetctl.runtime.loop import tile_frame
from unetctl.runtime.run_plan import RunPlan
from unetctl.sources.memory import MemorySource

NETWORK = {"kind": "restorer", "channels": [2, 3, 4], "convolution": "same", "padding": "reflect", "up": "bilinear"}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def restoring(
    case: Case, sub_blocks: int, differences: bool = False, fill_scales: int = 0, unveil: bool = False
) -> Case:
    """The case with a restorer of such levels."""
    network = {k: v for k, v in case.network.items() if k != "convs_per_level"}
    network |= {"kind": "restorer", "sub_blocks": sub_blocks, "convolution": "same"}
    network |= {"differences": differences and network.get("kernel") != 1, "fill_scales": fill_scales}
    network |= {"unveil": unveil and fill_scales > 0}
    return replace(case, network=network, context_slices=1, num_classes=1, method="none")


def taught(spec: RestorerSpec, seed: int = 0) -> Restorer:
    """A network in which every weight matters."""
    network = build_network(spec, seed)
    assert isinstance(network, Restorer)
    generator = torch.Generator().manual_seed(seed)
    outer = [m.outer for m in network.modules() if isinstance(m, SubBlock)]
    for module in [*outer, network.mask_head, network.picture_head]:
        module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator) * 0.3)
    return network


# -- tiled equals whole


@settings(max_examples=5, deadline=None)
@given(
    case=cases(depths=(1, 3)),
    sub_blocks=st.integers(1, 3),
    differences=st.booleans(),
    fill_scales=st.sampled_from([0, 2]),
    unveil=st.booleans(),
)
@example(
    case=Case(NETWORK, "cyx", (33, 50), (16, 32), (2, 1), num_channels=3),
    sub_blocks=3,
    differences=True,
    fill_scales=3,
    unveil=True,
)
@example(
    case=Case({**NETWORK, "kernel": 5}, "cyx", (33, 50), (16, 32), (2, 1), num_channels=3),
    sub_blocks=1,
    differences=True,
    fill_scales=0,
    unveil=False,
)
def test_tiled_is_the_network_on_the_whole_mirrored_image(case, sub_blocks, differences, fill_scales, unveil):
    assert_exact(restoring(case, sub_blocks, differences, fill_scales, unveil))


@settings(max_examples=5, deadline=None)
@given(
    case=cases(depths=(1, 3), border="native"),
    sub_blocks=st.integers(1, 3),
    differences=st.booleans(),
    fill_scales=st.sampled_from([0, 2]),
    unveil=st.booleans(),
)
@example(
    case=Case({**NETWORK, "border": "native"}, "cyx", (49, 37), (8, 4), (2, 2), num_channels=3),
    sub_blocks=3,
    differences=True,
    fill_scales=3,
    unveil=True,
)
def test_tiled_is_the_network_with_its_own_padding_on_the_whole_image(
    case, sub_blocks, differences, fill_scales, unveil
):
    assert_exact(restoring(case, sub_blocks, differences, fill_scales, unveil))


@pytest.mark.parametrize(
    ("differences", "fill_scales", "unveil"),
    [(False, 0, False), (True, 0, False), (False, 4, False), (True, 2, True), (False, 3, True)],
)
@pytest.mark.parametrize("border", ["mirror", "native"])
def test_answers_are_what_a_textbook_computes(border, differences, fill_scales, unveil):
    values = {**NETWORK, "border": border}
    case = restoring(Case(values, "cyx", (24, 40), (8, 8), (1, 1), num_channels=3), 2, differences, fill_scales, unveil)
    network = made_network(case).double()
    assert isinstance(network, Restorer)
    x = torch.rand(2, 3, 24, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (answer,) = network.answers(x)  # without a frame it pads at the tile's ends itself
        logits, prediction = plain_restorer(network, x)
    torch.testing.assert_close(answer.logits, logits, rtol=0, atol=1e-12)
    assert answer.prediction is not None
    torch.testing.assert_close(answer.prediction, prediction, rtol=0, atol=1e-12)
    assert answer.image is not None
    assert torch.equal(answer.image, torch.where(answer.logits > 0, answer.prediction, x))
    assert 0 < (answer.logits > 0).double().mean() < 1


@settings(max_examples=4, deadline=None)
@given(
    network=networks((1, 3), 2, "mirror"),
    sub_blocks=st.integers(1, 2),
    axis=st.integers(0, 1),
    head=st.integers(0, 1),
    differences=st.booleans(),
    fill_scales=st.integers(0, 3),
    unveil=st.booleans(),
)
def test_cores_depend_on_no_pixel_beyond_the_margin(network, sub_blocks, axis, head, differences, fill_scales, unveil):
    spec = restoring(
        Case(network, "yx", (1, 1), (1, 1), (1, 1)), sub_blocks, differences, fill_scales, unveil
    ).recipe.network_spec
    assert isinstance(spec, RestorerSpec)
    module = taught(spec).eval()
    for parameter in module.parameters():
        parameter.data.abs_()  # no weight is shut by a ReLU: nothing hides a dependence
    stride, margin = spec.stride[0], spec.margin[0] if head else spec.levels.margin[0]  # the mask is not filled
    ring = -(-margin // stride) * stride + stride
    sizes = [stride + 2 * spec.halo[0]] * 2
    frame = [(spec.halo[0], spec.halo[0] + stride)] * 2
    sizes[axis] = 2 * ring + stride + 2 * spec.halo[0]
    frame[axis] = (spec.halo[0], spec.halo[0] + 2 * ring + stride)
    first = spec.halo[0] + ring  # of the core looked at, in the tile

    def reaches(position: int) -> bool:
        x = torch.rand(1, 1, *sizes, generator=torch.Generator().manual_seed(0))
        x.narrow(2 + axis, position, 1).fill_(float("nan"))
        with torch.no_grad():
            answer = module.final(x, TileFrame(tuple(frame), ((False, False),) * 2))
        found = (answer.logits, answer.prediction)[head]
        assert found is not None
        return bool(found.narrow(2 + axis, ring, stride).isnan().any())

    assert not reaches(first - margin - 1)
    assert not reaches(first + stride + margin)
    is_less = (fill_scales and head) or (differences and spec.kernel > 3)  # rounded up to the stride; neighbours alone
    if not is_less:
        assert reaches(first - margin) or reaches(first + stride - 1 + margin)


def test_a_tile_without_its_halo_is_refused():
    network = build_network(RestorerSpec(1, (2, 2)))
    with pytest.raises(ValueError, match="lacks halo"):
        network(torch.zeros(1, 1, 20, 20), TileFrame(((4, 16), (4, 16)), ((False, False),) * 2))


# -- the repaired picture


def undecided(case: Case) -> Restorer:
    """A network that finds damage in about half of the case's picture."""
    network = made_network(case)
    assert isinstance(network, Restorer)
    with torch.no_grad():
        crop = torch.from_numpy(case.picture()[None, :, :40, :40].astype(np.float32) / 255)
        assert network.mask_head.bias is not None
        network.mask_head.bias -= network(crop).quantile(0.5)  # none lies on the threshold itself
    return network


def picture_plan(case: Case, keep: Any, core: tuple[int, int]) -> tuple[RunPlan, MemorySource, np.ndarray]:
    case = replace(case, core=core)
    source = MemorySource(case.picture(), case.axes)
    plan = case.plan(source, precision="fp32")
    return replace(plan, keep=keep), source, case.picture()


def repaired_picture(case: Case, network: Restorer, keep: Any, core: tuple[int, int]) -> np.ndarray:
    """Tile by tile through the engine, as predict does."""
    plan, _, pixels = picture_plan(case, keep, core)
    engine = engine_for(network, plan)
    tiles = plan.images[0].tiles
    num = case.num_channels if keep == "image" else 1
    found = np.zeros((num, *case.shape), case.dtype if keep == "image" else np.uint8)
    scaling = Scaling((0.0,) * case.num_channels, (1 / 255,) * case.num_channels)
    for index in range(len(tiles)):
        for tile in tiles.tiles(tiles.block(index)):
            cut = read_mirrored(lambda box: pixels[(slice(None), *box.slices())], tile.read, case.shape, leading=1)
            answer = engine.submit([TileJob(cut, scaling, case.dtype)], tile_frame(tile, 2))()[0]
            kept = answer[(slice(None), *tile.kept.relative_to(tile.core).slices())]
            found[(slice(None), *tile.kept.slices())] = kept
    return found


@pytest.mark.parametrize("border", ["mirror", "native"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_outside_the_mask_pixels_are_those_of_the_input_and_no_seam_is_in_the_rest(border, dtype):
    values = {**NETWORK, "border": border}
    case = restoring(Case(values, "cyx", (70, 45), (8, 8), (1, 1), num_channels=3, dtype=dtype), 1)
    network = undecided(case)
    case_pixels = case.picture()
    whole = repaired_picture(case, network, "image", (72, 48))
    mask = repaired_picture(case, network, "mask", (72, 48))[0] > 0
    assert 0.05 < mask.mean() < 0.95
    np.testing.assert_array_equal(whole[:, ~mask], case_pixels[:, ~mask])
    assert (whole[:, mask] != case_pixels[:, mask]).any()
    cut = repaired_picture(case, network, "image", (16, 24))
    difference = np.abs(whole.astype(np.float64) - cut)
    assert difference.max() <= (1 if dtype != "float32" else 1e-2)


def test_the_threshold_moves_the_mask_of_the_picture_too():
    case = restoring(Case({**NETWORK, "border": "native"}, "cyx", (40, 40), (40, 40), (1, 1), num_channels=3), 1)
    network = undecided(case)
    plan, _, pixels = picture_plan(case, "image", (40, 40))
    changed = []
    for threshold in (0.2, 0.5, 0.8):
        engine = Engine(
            network, plan.compute, torch.device("cpu"), batch=1, keep="image", activation="sigmoid", threshold=threshold
        )
        frame = TileFrame(((0, 40), (0, 40)), ((True, True),) * 2)
        found = engine.submit([TileJob(pixels, Scaling((0.0,) * 3, (1 / 255,) * 3), "uint8")], frame)()[0]
        changed.append((found != pixels).any(0))
    assert changed[0].sum() > changed[1].sum() > changed[2].sum()
    assert not (changed[2] & ~changed[1]).any()


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_untrained_it_predicts_about_its_input(norm):
    for widths in ((4, 6, 8), (8, 16, 32, 64, 96)):
        network = build_network(RestorerSpec(3, widths, norm=norm), 0)
        x = torch.rand(2, 3, 64, 64)
        answer = network.final(x)
        assert answer.prediction is not None
        assert (answer.prediction - x).abs().mean() < x.std()
        assert answer.logits.abs().mean() < 1


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_everything_learns_from_the_first_step(norm):
    network = build_network(RestorerSpec(3, (4, 6, 8), norm=norm), 0).train()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    answer = network.final(x)
    assert answer.prediction is not None
    (answer.logits.square().mean() - answer.logits.mean() + (answer.prediction - x.flip(2)).abs().mean()).backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert still == []


# -- prepared, counted, kept


def test_work_counts_what_is_computed():
    interpolating = RestorerSpec(2, (4, 6), sub_blocks=2, border="mirror", up="bilinear", down="average")
    for spec in (interpolating, replace(interpolating, up="transposed", down="strided")):
        network = build_network(spec)
        counted = 0

        def count(module: Any, inputs: Any, output: torch.Tensor) -> None:
            nonlocal counted
            is_up = isinstance(module, torch.nn.ConvTranspose2d)
            places = int(np.prod(inputs[0].shape[2:] if is_up else output.shape[2:]))
            counted += int(places * np.prod(module.kernel_size) * module.in_channels * module.out_channels)

        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                module.register_forward_hook(count)
        core = (8, 8)
        sizes = [c + 2 * h for c, h in zip(core, spec.halo, strict=True)]
        frame = tuple((h, h + c) for c, h in zip(core, spec.halo, strict=True))
        network(torch.zeros(1, 2, *sizes), TileFrame(frame, ((False, False),) * 2))
        assert spec.work(core) == counted
        assert spec.peak_features(core) > 2 * np.prod(sizes)


def test_folding_batch_norm_changes_nothing():
    network = taught(RestorerSpec(1, (4, 4), norm="batch")).double().train()
    for _ in range(3):
        network(torch.randn(2, 1, 40, 40, dtype=torch.float64))
    network.eval()
    x = torch.randn(1, 1, 40, 40, dtype=torch.float64)
    short = folded(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in short.modules())
    found, wanted = short.final(x), network.final(x)
    torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.prediction, wanted.prediction, rtol=1e-10, atol=1e-10)


def test_in_short_arithmetic_heads_and_picture_keep_their_digits():
    network = build_network(RestorerSpec(3, (4, 4)), 0)
    with torch.no_grad():
        network.get_parameter("mask_head.bias").fill_(-9)  # nowhere damaged
    network = for_inference(network, torch.device("cpu"), torch.bfloat16)
    assert {network.get_parameter(f"{name}.weight").dtype for name in network.heads} == {torch.float32}
    assert network.input_dtype == torch.float32
    x = torch.rand(1, 3, 16, 16)
    final = network.final(x)
    assert final.image is not None
    assert torch.equal(final.image, x)


def test_specs_and_weights_come_back(tmp_path):
    spec = RestorerSpec(3, (2, 4, 4), sub_blocks=2, norm="batch", up="transposed", down="strided")
    assert spec_from_dict(spec.to_dict()) == spec
    network = taught(spec, 1)
    save_weights(tmp_path / "w.safetensors", network, WeightsHeader("t", spec.to_dict(), {}))
    again, _ = load_weights(tmp_path / "w.safetensors")
    x = torch.rand(1, 3, 48, 48)
    assert again.spec == spec
    torch.testing.assert_close(again(x), network.eval()(x), rtol=1e-2, atol=5e-2)
    assert fitted(again, spec) is again
    others = (UNetSpec(3, 1, (2, 4, 4)), replace(spec, sub_blocks=1), replace(spec, widths=(2, 4)))
    for other in others:
        with pytest.raises(WeightsError, match="another network"):
            fitted(again, other)


@pytest.mark.parametrize("broken", [{"widths": None}, {"sub_blocks": 0}, {"in_channels": 0}, {"more": 1}])
def test_a_header_that_says_nonsense_is_refused(broken):
    with pytest.raises(WeightsError, match="not understood"):
        spec_from_dict({**RestorerSpec(3, (2, 4)).to_dict(), **broken})


def test_group_norm_is_named_inexact():
    assert RestorerSpec(1, (4, 4), norm="batch").is_exact
    assert "group norm" in RestorerSpec(1, (4, 4), norm="group").inexact_because
