"""The network and what it says of itself."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unetctl.errors import WeightsError
from unetctl.networks.build import build_network, folded, spec_from_dict
from unetctl.networks.spec import UNetSpec
from unetctl.networks.unet import TileFrame
from unetctl.networks.weights import WeightsHeader, load_weights, read_header, save_weights


@pytest.mark.parametrize(
    ("spec", "num_weights"),
    [
        (UNetSpec(3, 1, (16, 32, 64)), 117_041),
        (UNetSpec(3, 1, (16, 32, 64, 128)), 482_033),
        (UNetSpec(1, 2, (64, 128, 256, 512, 1024)), 31_030_658),  # the paper's
    ],
)
def test_number_of_weights(spec, num_weights):
    assert sum(p.numel() for p in build_network(spec).parameters()) == num_weights


def test_the_papers_tile():
    spec = UNetSpec(1, 2, (64, 128, 256, 512, 1024))
    assert spec.stride == (16, 16)
    assert spec.margin == spec.halo == (94, 94)
    # 572 -> 388 in the paper; 384 of them start and end on the grid
    assert 384 + 2 * spec.halo[0] == 572


def test_a_tile_without_its_halo_is_refused():
    network = build_network(UNetSpec(1, 1, (2, 2)))
    with pytest.raises(ValueError, match="lacks halo"):
        network(torch.zeros(1, 1, 20, 20), TileFrame(((4, 16), (4, 16)), ((False, False),) * 2))


def test_folding_batch_norm_changes_nothing():
    network = build_network(UNetSpec(1, 1, (4, 4), norm="batch"), 0).double()
    network.train()
    for _ in range(3):
        network(torch.randn(2, 1, 40, 40, dtype=torch.float64))
    network.eval()
    x = torch.randn(1, 1, 40, 40, dtype=torch.float64)
    assert torch.allclose(folded(network)(x), network(x), atol=1e-12)


def test_group_norm_is_named_inexact():
    assert UNetSpec(1, 1, (4, 4), norm="batch").is_exact
    assert "group norm" in UNetSpec(1, 1, (4, 4), norm="group").inexact_because


def test_work_counts_what_is_computed():
    spec = UNetSpec(1, 1, (2, 3))
    network = build_network(spec)
    counted = 0

    def count(module, inputs, output):
        nonlocal counted
        x, y = inputs[0], output
        is_up = isinstance(module, torch.nn.ConvTranspose2d)
        taps = np.prod(module.kernel_size)
        places = x.shape[2] * x.shape[3] if is_up else y.shape[2] * y.shape[3]
        counted += int(places * taps * module.in_channels * module.out_channels)

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            module.register_forward_hook(count)
    network(torch.zeros(1, 1, 16 + 2 * spec.margin[0], 16 + 2 * spec.margin[1]))
    assert spec.work((16, 16)) == counted


@pytest.fixture
def header():
    spec = UNetSpec(1, 1, (2, 3), norm="batch")
    return WeightsHeader("t", spec.to_dict(), {"task": {"name": "t"}}, (0.05, 0.004, 0.004), "dark", (0.0, 255.0))


def test_weights_come_back(tmp_path, header):
    network = build_network(spec_from_dict(header.network), 3)
    save_weights(tmp_path / "w.safetensors", network, header)
    again, found = load_weights(tmp_path / "w.safetensors")
    assert found == header
    x = torch.randn(1, 1, 40, 40)
    assert torch.allclose(again(x), network.eval()(x), atol=1e-2)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_pickled_files_are_refused(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"pickled.*weights_only=True"):
        read_header(tmp_path / "w.pt")


def test_damaged_and_foreign_files_are_refused(tmp_path, header):
    path = tmp_path / "w.safetensors"
    save_weights(path, build_network(spec_from_dict(header.network)), header)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="cannot be read"):
        load_weights(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="without unetctl's header"):
        load_weights(path)
    with pytest.raises(WeightsError, match="no weights file"):
        load_weights(tmp_path / "none.safetensors")


def test_weights_that_are_not_numbers_are_refused(tmp_path, header):
    network = build_network(spec_from_dict(header.network))
    with torch.no_grad():
        network.get_parameter("head.weight")[0, 0] = torch.nan
    save_weights(tmp_path / "w.safetensors", network, header)
    with pytest.raises(WeightsError, match="not finite"):
        load_weights(tmp_path / "w.safetensors")
