"""Networks in a row through the whole product: the recipe, fewer blocks when predicting, the image that they clean."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import torch

from tests.plain_networks import plain_row
from tests.training_data import run
from unetctl.errors import UsageError
from unetctl.jobs.tasks import resolve_task
from unetctl.networks.build import build_network
from unetctl.networks.spec import StackedSpec
from unetctl.networks.stacked import Stacked
from unetctl.networks.weights import WeightsHeader, load_weights, save_weights
from unetctl.recipe import describe
from unetctl.recipe.load import recipe_from_dict
from unetctl.recipe.schema import Recipe
from unetctl.runtime.keep import output_channels, output_dtype
from unetctl.runtime.numerics import restored

Pixels = npt.NDArray[Any]
NETWORK = {"kind": "stacked", "channels": [3, 4], "convolution": "same", "up": "bicubic"}


def recipe(**sections: dict[str, Any]) -> Recipe:
    values = {"task": {"name": "clean"}, "network": NETWORK, "train": {"crop": [16, 16]}}
    return recipe_from_dict({**values, **sections}, "a test")


def weights_file(path: Path, made: Recipe, teach: float = 0.2) -> Stacked:
    """Weights of a row that takes something away; returned as they come back from the file."""
    network = build_network(made.network_spec, 3)
    generator = torch.Generator().manual_seed(3)
    for name in network.heads:
        torch.nn.init.normal_(network.get_parameter(f"{name}.weight"), std=teach, generator=generator)
    save_weights(path, network, WeightsHeader("clean", network.spec.to_dict(), made.to_dict()))
    loaded = load_weights(path)[0]
    assert isinstance(loaded, Stacked)
    return loaded


def whole_image(network: Stacked, picture: Pixels, num_blocks: int) -> Pixels:
    """The image (c, y, x) after so many blocks, grey values of the input, computed in one piece in float64."""
    values = picture.astype(np.float64)
    mean, std = values.mean((1, 2), keepdims=True), values.std((1, 2), keepdims=True)
    ring = network.spec.halo[0]
    after = [-n % 2 + ring for n in picture.shape[1:]]
    padded = np.pad((values - mean) / std, ((0, 0), (ring, after[0]), (ring, after[1])), mode="reflect")
    with torch.no_grad():
        image = plain_row(network.double(), torch.from_numpy(padded[None]))[num_blocks - 1][1][0].numpy()
    height, width = picture.shape[1:]
    found: Pixels = image[:, ring : ring + height, ring : ring + width] * std + mean
    return found


# -- the recipe


def test_a_recipe_asks_for_a_row():
    made = recipe()
    assert made.network_spec == StackedSpec.of(1, 1, 2, widths=(3, 4), convolution="same", up="bicubic")
    assert "2 blocks, features 3-4" in describe(made)[-1]
    assert "blocks" not in made.to_dict()["network"]
    three = recipe(network={**NETWORK, "blocks": 3}, input={"channels": 3}, output={"keep": "image"})
    assert three.network_spec == StackedSpec.of(3, 1, 3, widths=(3, 4), convolution="same", up="bicubic")
    assert recipe_from_dict(three.to_dict(), "again") == three


def test_the_fingerprint_holds_the_number_of_blocks():
    plain, two, three = (recipe(network={**NETWORK, **more}) for more in ({}, {"blocks": 2}, {"blocks": 3}))
    assert plain.fingerprint() == two.fingerprint() != three.fingerprint()
    unet = {**NETWORK, "kind": "unet"}
    assert recipe(network=unet).fingerprint() not in (plain.fingerprint(), three.fingerprint())


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"network": {"blocks": 2}}, r"\[network\] blocks: 2 with kind = \"unet\"; expected kind = \"stacked\""),
        (
            {"network": {"kind": "unet"}, "output": {"keep": "image"}},
            r"\[output\] keep: \"image\" with kind = \"unet\"",
        ),
        ({"network": {"kind": "unet"}, "loss": {"kind": "degradation"}}, r"\[loss\] kind: \"degradation\" with kind"),
        ({"loss": {"ink_level": -1.0}}, r"\[loss\] ink_level: -1.0 with kind = \"cross_entropy\""),
        ({"input": {"context_slices": 3}}, r"\[input\] context_slices: 3 together with kind = \"stacked\""),
        (
            {"loss": {"kind": "degradation"}, "output": {"classes": ["a", "b"]}, "labels": {"kind": "classes"}},
            "2 classes",
        ),
        ({"network": {**NETWORK, "blocks": 0}}, r"\[network\] blocks: 0; expected a whole number from 1 to 16"),
        ({"network": {**NETWORK, "num_blocks": 2}}, "did you mean blocks?"),
    ],
)
def test_what_does_not_go_together_is_told(sections, told):
    with pytest.raises(UsageError, match=told):
        recipe(**sections)


def test_blocks_goes_without_its_section(tmp_path):
    weights_file(tmp_path / "clean.safetensors", recipe())
    for text in ("blocks=1", "network.blocks=1", " blocks = 1"):
        task = resolve_task(str(tmp_path / "clean.safetensors"), (text,))
        assert task.recipe.network.blocks == 1
        assert task.network().spec == task.recipe.network_spec
    assert resolve_task(str(tmp_path / "clean.safetensors")).network().spec.margin > task.network().spec.margin


# -- the image


@pytest.mark.parametrize(
    ("source", "kept"),
    [("uint8", "uint8"), ("uint16", "uint16"), ("int16", "int16"), ("uint32", "float32"), ("float32", "float32")],
)
def test_an_image_keeps_the_input_s_type_where_float32_has_its_digits(source, kept):
    assert output_dtype("image", source) == kept
    assert output_dtype("probability", source) == "uint8"
    assert (output_channels("image", 5, 3), output_channels("probability", 5, 3)) == (3, 5)


def test_the_scaling_is_undone_rounded_and_clipped():
    values = torch.tensor([-3.0, 0.4, 0.6, 254.6, 300.0]).view(1, 1, 5)
    shift, factor = torch.tensor(100.0).view(1, 1, 1), torch.tensor(0.01).view(1, 1, 1)
    scaled = (values - shift) * factor
    assert restored(scaled, shift, factor, "uint8").flatten().tolist() == [0, 0, 1, 255, 255]
    assert restored(scaled, shift, factor, "uint16").flatten().tolist() == [0, 0, 1, 255, 300]
    torch.testing.assert_close(restored(scaled, shift, factor, "float32"), values)


@pytest.mark.parametrize(("dtype", "num_channels"), [("uint8", 1), ("uint8", 3), ("uint16", 1), ("float32", 1)])
@pytest.mark.parametrize("num_blocks", [1, 2])
def test_predict_keeps_the_image_that_the_whole_network_cleans(tmp_path, monkeypatch, dtype, num_channels, num_blocks):
    monkeypatch.chdir(tmp_path)
    network = weights_file(tmp_path / "clean.safetensors", recipe(input={"channels": num_channels}))
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (num_channels, 57, 83)) * (257 if dtype == "uint16" else 1)
    picture = picture.astype(dtype)
    kind: dict[str, Any] = {"photometric": "rgb", "planarconfig": "contig"} if num_channels == 3 else {}
    tifffile.imwrite("page.tif", picture.transpose(1, 2, 0) if num_channels == 3 else picture[0], **kind)
    words = ("--task", "clean.safetensors", "--keep", "image", "--precision", "fp32", "--core", 16, "-o", "out.ome.tif")
    found = run("predict", "page.tif", *words, "--set", f"blocks={num_blocks}", "--verify-seams")
    assert found.exit_code == 0, found.stderr
    assert "grey values differ by at most" in found.stderr
    assert "please report" not in found.stderr
    image = tifffile.imread("out.ome.tif").reshape(num_channels, 57, 83)
    wanted = whole_image(network, picture, num_blocks)
    assert str(image.dtype) == dtype
    if dtype == "float32":
        np.testing.assert_allclose(image, wanted, atol=0.01)
    else:
        top = np.iinfo(dtype).max
        assert (wanted < 0).any() or (wanted > top).any()  # something had to be clipped
        assert np.abs(image - np.rint(wanted).clip(0, top)).max() <= 1
        assert (image != picture).mean() > 0.3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_nothing_is_taken_from_comes_back_as_it_was(tmp_path, monkeypatch, precision):
    monkeypatch.chdir(tmp_path)
    weights_file(tmp_path / "clean.safetensors", recipe(), teach=0.0)
    picture = np.random.default_rng(0).integers(0, 65536, (40, 50)).astype(np.uint16)
    tifffile.imwrite("page.tif", picture)
    told = run("predict", "page.tif", "--task", "clean.safetensors", "--keep", "image", "--precision", precision)
    assert told.exit_code == 0, told.stderr
    assert np.array_equal(tifffile.imread(told.stdout.strip()), picture)


def test_fewer_blocks_are_the_first_ones_and_more_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = recipe(output={"keep": "logits"})
    weights_file(tmp_path / "clean.safetensors", made)
    two = load_weights(tmp_path / "clean.safetensors")[0]
    one = build_network(StackedSpec.of(1, 1, 1, widths=(3, 4), convolution="same", up="bicubic"))
    one.load_state_dict({k: v for k, v in two.state_dict().items() if k.startswith("blocks.0.")})
    alone = recipe(network={**NETWORK, "blocks": 1}, output={"keep": "logits"})
    save_weights(tmp_path / "one.safetensors", one, WeightsHeader("clean", one.spec.to_dict(), alone.to_dict()))
    tifffile.imwrite("page.tif", np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.uint8))
    results: list[Pixels] = []
    for task, words in (
        ("one", ()),
        ("clean", ("--set", "blocks=1")),
        ("clean", ("--set", "network.blocks=2")),
        ("clean", ()),
    ):
        told = run("predict", "page.tif", "--task", f"{task}.safetensors", *words, "-o", f"{len(results)}.ome.tif")
        assert told.exit_code == 0, told.stderr
        results.append(tifffile.imread(told.stdout.strip()))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[2], results[3])
    assert np.abs(results[1] - results[2]).max() > 1e-3
    # another number of blocks is another run
    told = run("predict", "page.tif", "--task", "clean.safetensors", "--set", "blocks=2", "-o", "1.ome.tif")
    assert told.exit_code == 2
    assert "network.blocks: 2, was 1" in told.stderr
    told = run("predict", "page.tif", "--task", "clean.safetensors", "--set", "blocks=3", "-o", "x.ome.tif")
    assert (told.exit_code, told.stdout) == (5, "")
    assert "clean.safetensors holds 2 blocks and network.blocks asks for 3; expected 1 to 2" in told.stderr


def test_a_network_without_an_image_refuses_to_keep_one(tmp_path, tiny_weights):
    tifffile.imwrite(tmp_path / "page.tif", np.zeros((30, 30), np.uint8))
    told = run(
        "predict", tmp_path / "page.tif", "--task", tiny_weights, "--keep", "image", "-o", tmp_path / "o.ome.tif"
    )
    assert told.exit_code == 2
    assert "--keep image for a network that answers no image" in told.stderr


def test_info_and_the_dry_run_say_what_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights_file(tmp_path / "clean.safetensors", recipe())
    told = run("info", "clean.safetensors")
    assert told.exit_code == 0, told.stderr
    assert "2-D stacked, 2 blocks, features 3-4, same convolutions, 1 in, 1 out, and the image cleaned" in told.stdout
    tifffile.imwrite("page.tif", np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.uint8))
    dry = [
        run("predict", "page.tif", "--task", "clean.safetensors", "--dry-run", *words)
        for words in ((), ("--set", "blocks=1", "--keep", "image"))
    ]
    assert [d.exit_code for d in dry] == [0, 0]
    assert "stride [2, 2], margin [24, 24], halo [24, 24]" in dry[0].stdout
    assert "stride [2, 2], margin [12, 12], halo [12, 12]" in dry[1].stdout
