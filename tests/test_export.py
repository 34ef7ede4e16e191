"""Networks for other programs: what onnxruntime answers is what torch answers, on sizes that the export has not seen."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from tests.foreign_networks import trained
from unetctl.cli.app import app
from unetctl.errors import UsageError, WeightsError
from unetctl.jobs import export as job
from unetctl.jobs.export_facts import channel_names, normalise_words
from unetctl.jobs.export_package import preprocessing_of
from unetctl.jobs.export_picture import made_picture
from unetctl.networks import portable
from unetctl.networks.build import build_network
from unetctl.networks.network import Network
from unetctl.networks.spec import NetworkSpec, StackedSpec, UNetSpec
from unetctl.recipe.load import recipe_from_dict

NEEDED = portable.missing_packages("onnx", "onnxscript", "onnxruntime")
needs_onnx = pytest.mark.skipif(bool(NEEDED), reason=f"needs {', '.join(NEEDED)}: pip install 'unetctl[export]'")
needs_spec = pytest.mark.skipif(
    bool(NEEDED) or bool(portable.missing_packages("bioimageio.spec")),
    reason="needs bioimageio.spec: pip install 'unetctl[bioimageio]'",
)
SMALL: dict[str, Any] = {"in_channels": 1, "out_channels": 2, "widths": (3, 4)}
SPECS: dict[str, NetworkSpec] = {
    "paper": UNetSpec(1, 1, (3, 4, 5), norm="batch"),
    "mirrored": UNetSpec(**SMALL, convolution="same", padding="reflect", up="bilinear", norm="batch", kernel=5),
    "group": UNetSpec(**SMALL, convolution="same", norm="group", down="strided", border="native"),
    "volume": UNetSpec(**SMALL, dims=3, up="bilinear", down="average"),
    "row": StackedSpec.of(2, 1, 2, widths=(3, 4), convolution="same", padding="reflect", up="bicubic"),
}


def network_of(spec: NetworkSpec) -> Network:
    network = trained(build_network(spec))
    assert isinstance(network, Network)
    return network


def given_back(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """From here on translating takes no time: it gives what was translated before."""
    import onnx

    model = onnx.load(str(path))
    monkeypatch.setattr(job, "to_onnx", lambda network, facts, producer: model)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    """The tiny network through the command line, in a folder of its own."""
    path = tmp_path_factory.mktemp("exported") / "tiny.onnx"
    done = CliRunner().invoke(app, ["export", str(tiny_weights), "-o", str(path), "--json"])
    assert done.exit_code == 0, done.stderr
    (path.parent / "told.json").write_text(done.stdout)
    return path


@needs_onnx
@pytest.mark.parametrize("kind", SPECS)
def test_onnxruntime_answers_what_torch_answers(tmp_path: Path, kind: str):
    network = network_of(SPECS[kind])
    sizes = portable.sizes_of(network)
    model = portable.to_onnx(network, {"b": "2", "a": "1"}, ("unetctl", "0"))
    portable.save_onnx(tmp_path / "n.onnx", model)
    found = portable.agreement(tmp_path / "n.onnx", network)
    assert found.largest <= 1e-5
    assert len(set(found.shapes)) == 2
    # Once more, far from what export itself compares, with other numbers.
    spec = SPECS[kind]
    x = torch.randn(3, spec.in_channels, *(sizes.at(4 - i) for i in range(spec.dims)))
    with torch.inference_mode():
        wanted = portable.answers_of(network, x)
    answers = portable.run_onnx(tmp_path / "n.onnx", x)
    assert [name for name, _ in wanted] == [value.name for value in model.graph.output]
    for (_, value), answer in zip(wanted, answers, strict=True):
        torch.testing.assert_close(answer, value, atol=1e-5, rtol=1e-4)
        assert answer.shape[2:] == tuple(n - sizes.lost for n in x.shape[2:])
    assert [entry.key for entry in model.metadata_props] == ["a", "b"]


@needs_onnx
def test_every_kind_of_network_that_recipes_know_can_be_exported(tmp_path: Path):
    """A new kind is compared here, too, once it is entered in `SPECS` above or below."""
    from unetctl.networks.spec import SPECS as KINDS

    assert set(KINDS) - {spec.kind for spec in SPECS.values()} <= {"restorer"}
    if "restorer" in KINDS:
        network = network_of(
            KINDS["restorer"].from_dict(
                {
                    "in_channels": 3,
                    "widths": [4, 6],
                    "sub_blocks": 1,
                    "padding": "reflect",
                    "differences": True,
                    "fill_scales": 2,
                    "unveil": True,
                }
            )
        )
        portable.save_onnx(tmp_path / "r.onnx", portable.to_onnx(network, {}, ("unetctl", "0")))
        assert portable.agreement(tmp_path / "r.onnx", network).largest <= 1e-5


def test_sizes_are_those_that_the_network_takes():
    paper = portable.sizes_of(build_network(UNetSpec(1, 1, (2,) * 5)))
    assert (paper.lost, paper.step, paper.least % 16) == (188, 16, 12)
    assert str(paper) == "16 k + 12, at least 204"
    mirrored = portable.sizes_of(build_network(UNetSpec(1, 1, (2, 2), convolution="same", padding="reflect", kernel=7)))
    assert (mirrored.least, mirrored.step, mirrored.lost) == (8, 2, 0)  # 3 pixels are mirrored: 4 at the bottom


@needs_onnx
def test_metadata_say_what_a_user_must_know(exported: Path, tiny_weights: Path):
    import onnx

    told = json.loads((exported.parent / "told.json").read_text())
    assert told["output"] == str(exported)
    assert told["largest_difference"] <= 1e-4
    assert len(told["compared"]) == 2
    model = onnx.load(str(exported))
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["recipe"] == "tiny"
    assert facts["classes"] == "interior"
    assert facts["licence"] == "none: the numbers are random"
    assert facts["spacing_um"] == "0.05 x 0.004 x 0.004 (zyx)"
    assert facts["weights_sha256"] == hashlib.sha256(tiny_weights.read_bytes()).hexdigest()
    assert json.loads(facts["normalise"])["method"] == "mean_std"
    assert facts["unetctl_version"] == model.producer_version
    names = [(v.name, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]) for v in model.graph.input]
    assert names == [("input", ["n", 1, "y", "x"])]
    content = exported.read_bytes()
    assert b"site-packages" not in content  # nothing of the machine that it was made on
    assert str(Path(portable.__file__).parent).encode() not in content


@needs_onnx
def test_an_export_is_the_same_every_time_and_replaces_nothing_else(
    exported: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
):
    before = exported.read_bytes()
    job.export(str(tiny_weights), exported)
    assert exported.read_bytes() == before
    given_back(monkeypatch, exported)
    exported.write_bytes(b"a picture")
    with pytest.raises(UsageError, match="exists and is not this export"):
        job.export(str(tiny_weights), exported)
    assert exported.read_bytes() == b"a picture"
    job.export(str(tiny_weights), exported, overwrite=True)
    assert exported.read_bytes() == before
    assert sorted(p.name for p in exported.parent.iterdir()) == ["tiny.onnx", "told.json"]


@needs_onnx
def test_a_network_that_answers_otherwise_is_refused(
    tmp_path: Path, exported: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
):
    given_back(monkeypatch, exported)
    honest = portable.run_onnx
    monkeypatch.setattr(portable, "run_onnx", lambda path, x: tuple(a + 2e-4 for a in honest(path, x)))
    with pytest.raises(WeightsError, match="differs from torch by up to 2"):
        job.export(str(tiny_weights), tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(portable, "run_onnx", lambda path, x: tuple(a * float("nan") for a in honest(path, x)))
    with pytest.raises(WeightsError, match="differs from torch by up to inf"):
        job.export(str(tiny_weights), tmp_path / "x.onnx")


def test_missing_packages_are_named_with_the_extra(monkeypatch: pytest.MonkeyPatch, tiny_weights: Path):
    monkeypatch.setattr(portable, "find_spec", lambda name: None)
    done = CliRunner().invoke(app, ["export", str(tiny_weights), "-o", "x.onnx"])
    assert done.exit_code == 2
    assert "onnx, onnxscript, onnxruntime" in done.stderr
    assert "pip install 'unetctl[export]'" in done.stderr
    package = CliRunner().invoke(app, ["export", str(tiny_weights), "--format", "bioimageio"])
    assert "unetctl[bioimageio]" in package.stderr


@needs_onnx
def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path, tiny_weights: Path):
    for output, words in (
        (tmp_path / "x.zip", r"--format bioimageio"),
        (tmp_path / "x.tif", r"ends in \.onnx"),
        (tmp_path / "no" / "x.onnx", "no folder"),
    ):
        with pytest.raises(UsageError, match=words):
            job.export(str(tiny_weights), output)
    done = CliRunner().invoke(app, ["export", str(tmp_path / "none.safetensors")])
    assert done.exit_code in (2, 5)


@needs_spec
@pytest.mark.parametrize("normalise", ["mean_std", "two_levels", "range"])
def test_packages_are_valid_and_say_what_they_cannot(
    tmp_path: Path,
    tiny_recipe: Any,
    tiny_weights: Path,
    exported: Path,
    normalise: str,
    monkeypatch: pytest.MonkeyPatch,
):
    from zipfile import ZipFile

    from unetctl.networks.weights import WeightsHeader, load_weights, save_weights

    if normalise != "mean_std":  # the one that runs the network is enough once
        monkeypatch.setattr("unetctl.jobs.export_validation.missing_packages", lambda *names: names)
    values = tiny_recipe.to_dict()
    values["normalise"] = {"method": normalise}
    recipe = recipe_from_dict(values, "test")
    header = WeightsHeader("tiny", recipe.network_spec.to_dict(), recipe.to_dict(), (0.05, 0.004, 0.004), licence="MIT")
    save_weights(tmp_path / "tiny.safetensors", load_weights(tiny_weights)[0], header)
    given_back(monkeypatch, exported)
    (tmp_path / "tiny.md").write_text("# A card\n\nOf tissue (Meyer et al. 2020, doi 10.1234/abc).\n")
    done = CliRunner().invoke(
        app,
        [
            "export",
            str(tmp_path / "tiny.safetensors"),
            "--format",
            "bioimageio",
            "-o",
            str(tmp_path),
            "--author",
            "A. B.",
        ],
    )
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "tiny.zip")
    assert "validated by bioimageio." in done.stderr
    with ZipFile(tmp_path / "tiny.zip") as archive:
        text = archive.read("rdf.yaml").decode()
        documentation = archive.read("README.md").decode()
        assert {"weights.onnx", "test-input.npy", "test-probability.npy"} < set(archive.namelist())
    assert "10.1234/abc" in text
    assert "license: MIT" in text
    assert "A. B." in text
    assert "offset: -44" in text
    assert documentation.startswith("# A card")
    assert ("zero_mean_unit_variance" in text) == (normalise == "mean_std")
    assert ("scale_linear" in text) == (normalise == "range")
    assert ("has no word for the normalisation" in done.stderr) == (normalise == "two_levels")
    assert ("has no word for the normalisation" in documentation) == (normalise == "two_levels")


def test_channels_and_normalisation_are_told_in_words(tiny_recipe: Any):
    values = {**tiny_recipe.to_dict(), "input": {"channels": 3, "context_slices": 3}}
    names = channel_names(recipe_from_dict(values, "test"))
    assert names[:4] == ["red of plane -1", "green of plane -1", "blue of plane -1", "red of plane +0"]
    assert len(names) == 9
    for method, word in (("mean_std", "mean"), ("two_levels", "Otsu"), ("percentile", "99"), ("range", "255")):
        recipe = recipe_from_dict({**tiny_recipe.to_dict(), "normalise": {"method": method}}, "test")
        assert word in normalise_words(recipe.normalise)


def test_what_turns_pictures_round_is_left_to_the_user(tiny_recipe: Any):
    for ground, is_done in ((None, True), ("dark", False)):
        section = {"method": "percentile", **({"ground": ground} if ground else {})}
        recipe = recipe_from_dict({**tiny_recipe.to_dict(), "normalise": section}, "test")
        words = normalise_words(recipe.normalise)
        assert ("(high - value)" in words) == (not is_done)
        preparation = preprocessing_of(recipe, {"normalise_words": words})
        assert (preparation.is_done, bool(preparation.steps)) == (is_done, is_done)
        assert (words in preparation.remark) == (not is_done)


def test_the_picture_is_drawn_the_same_every_time():
    picture = made_picture((2, 64, 48), "dark membranes")
    assert picture.shape == (2, 64, 48)
    assert (picture == made_picture((2, 64, 48), "dark membranes")).all()
    assert picture.std() > 20
    assert picture.mean() > made_picture((2, 64, 48), "bright lines").mean()
