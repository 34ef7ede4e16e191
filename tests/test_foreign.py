"""Foreign state dicts: the same answers as the network they come from, or everything that does not fit, told at once."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from tests.foreign_networks import Biased, Cropped, Padded, trained
from unetctl.cli.app import app
from unetctl.errors import UsageError, WeightsError
from unetctl.jobs.import_weights import import_weights
from unetctl.networks.foreign import NameMap, imported
from unetctl.networks.foreign_file import read_state
from unetctl.networks.spec import StackedSpec, UNetSpec
from unetctl.networks.weights import load_weights

PADDED = UNetSpec(1, 1, (4, 8, 16), convolution="same", padding="zero", border="native", norm="batch")
CROPPED = UNetSpec(1, 1, (4, 8, 16))
BIASED = UNetSpec(1, 1, (4, 8), norm="batch")
OF_PADDED = ("base_width=4", "depth=2", "convolution=same", "padding=zero", "border=native", "norm=batch")


def largest_difference(network: nn.Module, foreign: nn.Module, *size: int) -> float:
    x = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, found = foreign(x), network(x)
    # A network of valid convolutions keeps whole cells of its grid alone.
    cut = (wanted.shape[-1] - found.shape[-1]) // 2
    wanted = wanted[..., cut : wanted.shape[-2] - cut, cut : wanted.shape[-1] - cut]
    assert wanted.shape == found.shape
    assert wanted.std() > 0.01  # answers that say something
    return float((wanted - found).abs().max())


def settings(*words: str) -> list[str]:
    return [f"network.{word}" for word in words]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text('[task]\nname = "mine"\n[output]\nclasses = ["cell"]\n[network]\nbase_width = 4\ndepth = 2\n')
    return path


@pytest.mark.parametrize("wrapped", ["plain", "parallel", "checkpoint"])
def test_padded_networks_answer_the_same(tmp_path: Path, recipe: Path, wrapped: str):
    foreign = trained(Padded())
    state: dict[str, Any] = dict(foreign.state_dict())
    path = tmp_path / "state.pt"
    state = {f"module.{n}": v for n, v in state.items()} if wrapped == "parallel" else state
    torch.save({"epoch": 3, "state_dict": state, "lr": 0.1} if wrapped == "checkpoint" else state, path)
    out = tmp_path / "imported.safetensors"
    report = import_weights(path, str(recipe), out, overrides=settings(*OF_PADDED))
    network, header = load_weights(out)
    assert largest_difference(network, foreign, 32, 48) <= 1e-6
    assert report.names["contracting.0.units.0.conv.weight"].endswith("inc.double_conv.0.weight")
    assert report.num_tensors == sum(not n.endswith("num_batches_tracked") for n in foreign.state_dict())
    assert header.training["imported from"] == path.name
    assert any("convolutions pad (zero)" in remark for remark in report.remarks)


def test_layers_listed_by_kind_and_skips_put_last_are_found():
    foreign = trained(Cropped())
    network = imported(dict(foreign.state_dict()), CROPPED, skip="last").network
    assert largest_difference(network, foreign, 60, 64) <= 1e-6
    other = imported(dict(foreign.state_dict()), CROPPED, skip="first").network
    assert largest_difference(other, foreign, 60, 64) > 1e-3


def test_biases_before_batch_norms_go_into_their_means():
    foreign = trained(Biased())
    found = imported(dict(foreign.state_dict()), BIASED)
    assert largest_difference(found.network, foreign, 36, 40) <= 1e-6
    assert any("6 biases" in remark for remark in found.remarks)


def test_a_map_of_names_is_enough_for_any_order():
    foreign = trained(Padded())
    state = dict(reversed(list(foreign.state_dict().items())))
    with pytest.raises(WeightsError, match="right shapes and lie in an order that is not known"):
        imported(state, PADDED)
    state["loss.weight"] = torch.ones(3)
    with pytest.raises(WeightsError):
        imported(state, PADDED)
    chains = {"inc": "contracting.0", "down1.maxpool_conv.1": "contracting.1", "down2.maxpool_conv.1": "contracting.2"}
    chains |= {"up1.conv": "expanding.1", "up2.conv": "expanding.0"}
    names = {"up1.up": "ups.1.conv", "up2.up": "ups.0.conv", "outc.conv": "head"}
    for theirs, ours in chains.items():
        for i, part in enumerate(("0.conv", "0.norm", "", "1.conv", "1.norm")):
            names |= {f"{theirs}.double_conv.{i}": f"{ours}.units.{part}"} if part else {}
    found = imported(state, PADDED, NameMap(names, ("loss.*",)))
    assert largest_difference(found.network, foreign, 32, 16) <= 1e-6
    del names["outc.conv"]
    names["nowhere"] = "head"
    with pytest.raises(
        WeightsError,
        match=r"(?s)in 5 places.*nowhere.*outc\.conv\.\w+.*loss\.weight 3 has no.*nothing for head\.weight",
    ):
        imported(state, PADDED, NameMap(names))


def test_all_that_does_not_fit_is_told_at_once():
    state = dict(trained(Padded()).state_dict())
    with pytest.raises(WeightsError) as told:
        imported(state, UNetSpec(3, 2, (4, 8, 16), convolution="same", border="native", norm="batch"))
    assert "in 2 places" in str(told.value)
    assert "inc.double_conv.0 has weight 4x1x3x3 where contracting.0.units.0.conv has weight 4x3x3x3" in str(told.value)
    assert "outc.conv has weight 1x4x1x1, bias 1" in str(told.value)
    assert "input.channels=1" in str(told.value)
    with pytest.raises(WeightsError, match=r"(?s)9 places.*network\.channels=4,8,16.*up1\.up.*no place"):
        imported(state, UNetSpec(1, 1, (4, 8), convolution="same", border="native", norm="batch"))
    with pytest.raises(WeightsError, match=r"(?s)9 places.*nothing for contracting\.3.*nothing for expanding\.2"):
        imported(state, UNetSpec(1, 1, (4, 8, 16, 32), convolution="same", border="native", norm="batch"))
    del state["up1.conv.double_conv.3.weight"]
    with pytest.raises(WeightsError, match=r"expanding\.1\.units\.1\.conv"):
        imported(state, PADDED)


def test_statistics_that_are_missing_are_no_batch_norm():
    state = {n: v for n, v in trained(Biased()).state_dict().items() if "running" not in n}
    with pytest.raises(WeightsError, match=r"(?s)12 places.*nothing for contracting\.0\.units\.0\.norm\.running_mean"):
        imported(state, BIASED)


def test_other_arithmetic_is_refused():
    state = dict(trained(Padded()).state_dict())
    with pytest.raises(WeightsError, match=r"pad with zeros.*network\.padding=zero"):
        imported(state, UNetSpec(1, 1, (4, 8, 16), norm="batch"))
    interpolating = {n: v for n, v in trained(Cropped()).state_dict().items() if not n.startswith("lifts")}
    with pytest.raises(WeightsError, match="align_corners"):
        imported(interpolating, CROPPED)
    with pytest.raises(WeightsError, match="row of U-Nets cannot be recognised"):
        imported(interpolating, StackedSpec(UNetSpec(1, 2, (4, 8)), 2))
    broken = dict(trained(Cropped()).state_dict())
    broken["last.bias"] = torch.tensor([float("nan")])
    with pytest.raises(WeightsError, match=r"not finite in last\.bias"):
        imported(broken, CROPPED)


def test_files_that_want_to_run_code_are_refused(tmp_path: Path):
    torch.save(Padded(), tmp_path / "model.pt")
    with pytest.raises(
        WeightsError, match=r"wants to run code.*foreign_networks\.Padded.*torch\.save\(model\.state_dict\(\)"
    ):
        read_state(tmp_path / "model.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 and then nothing")
    for name in ("cut.pt", "none.pt"):
        with pytest.raises(WeightsError):
            read_state(tmp_path / name)
    torch.save({"epoch": 3}, tmp_path / "numbers.pt")
    with pytest.raises(WeightsError, match=r"no state dict \(keys epoch\)"):
        read_state(tmp_path / "numbers.pt")


def test_import_on_the_command_line(tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save(trained(Cropped()).state_dict(), "theirs.pt")
    words = ["import", "theirs.pt", "--task", str(recipe), "--skip", "last", "--licence", "MIT"]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["output"], told["task"]) == ("theirs.safetensors", "mine")
    assert "no state dict says it: convolutions do not pad" in done.stderr
    network, header = load_weights(tmp_path / "theirs.safetensors")
    assert header.licence == "MIT"
    assert largest_difference(network, trained(Cropped()), 60, 60) <= 1e-6
    assert CliRunner().invoke(app, words).exit_code == 2  # in the way
    assert CliRunner().invoke(app, [*words, "--overwrite", "--set", "network.depth=1"]).exit_code == 5
    (tmp_path / "map.toml").write_text("[layers]\n")
    refused = CliRunner().invoke(app, [*words, "--overwrite", "--names", "map.toml"])
    assert refused.exit_code == 2
    assert "no map of names" in refused.stderr
    assert CliRunner().invoke(app, ["info", "theirs.pt"]).exit_code == 5
    assert "unetctl import" in CliRunner().invoke(app, ["info", "theirs.pt"]).stderr


def test_safetensors_files_need_a_map(tmp_path: Path, recipe: Path):
    foreign = trained(Cropped())
    save_file({f"module.{n}": v for n, v in foreign.state_dict().items()}, tmp_path / "theirs.safetensors")
    with pytest.raises(WeightsError, match="order of the layers is lost"):
        import_weights(tmp_path / "theirs.safetensors", str(recipe), tmp_path / "o.safetensors")
    pairs = [(f"encoders.{k}", f"contracting.{k}") for k in range(3)]
    pairs += [(f"decoders.{k}", f"expanding.{1 - k}") for k in range(2)]
    lines = [f'"{a}.double_conv.{2 * j}" = "{b}.units.{j}.conv"' for a, b in pairs for j in range(2)]
    lines += ['"lifts.0" = "ups.1.conv"', '"lifts.1" = "ups.0.conv"', 'last = "head"']
    (tmp_path / "map.toml").write_text("\n".join(["[names]", *lines]))
    out = tmp_path / "o.safetensors"
    import_weights(tmp_path / "theirs.safetensors", str(recipe), out, names=tmp_path / "map.toml", skip="last")
    assert largest_difference(load_weights(out)[0], foreign, 60, 60) <= 1e-6


def test_maps_that_are_none_are_refused(tmp_path: Path, recipe: Path):
    torch.save(trained(Cropped()).state_dict(), tmp_path / "theirs.pt")
    for text in ("[names]\na = 1\n", "[names\n", 'ignore = "loss"\n'):
        (tmp_path / "map.toml").write_text(text)
        with pytest.raises(UsageError, match=r"map\.toml is no"):
            import_weights(tmp_path / "theirs.pt", str(recipe), tmp_path / "o.safetensors", names=tmp_path / "map.toml")
