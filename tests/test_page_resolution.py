"""Pages whose resolution is far from that trained at: told once, with the factor that helps."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from tests.page_source_files import text_page
from unetctl.cli.app import app
from unetctl.errors import UsageError
from unetctl.jobs.api import predict
from unetctl.jobs.pages.resolution import ResolutionCheck, fitting_scale
from unetctl.networks.build import build_network
from unetctl.networks.weights import WeightsHeader, save_weights
from unetctl.recipe.load import recipe_from_dict
from unetctl.recipe.overview import describe
from unetctl.recipe.schema import Recipe
from unetctl.runtime.events import Note


def ink_recipe(dpi: list[float] | None) -> Recipe:
    values = {
        "task": {"name": "ink"},
        "input": {"stack": False, "luminance": True, **({"dpi": dpi} if dpi else {})},
        "network": {"base_width": 2, "depth": 1, "convolution": "same"},
        "output": {"classes": ["ink"], "keep": "mask"},
    }
    return recipe_from_dict(values, "tests")


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
    monkeypatch.chdir(tmp_path)
    recipe = ink_recipe([150.0, 600.0])
    path = tmp_path / "ink.safetensors"
    header = WeightsHeader("ink", recipe.network_spec.to_dict(), recipe.to_dict())
    save_weights(path, build_network(recipe.network_spec, 1), header)
    return path


def test_a_recipe_says_its_range_and_its_fingerprint_stays():
    assert ink_recipe([150.0, 600.0]).input.dpi == (150, 600)
    assert "trained at 150 to 600 dpi" in "\n".join(describe(ink_recipe([150, 600])))
    assert "trained at 300 dpi" in "\n".join(describe(ink_recipe([300, 300])))
    assert "dpi" not in "\n".join(describe(ink_recipe(None)))
    assert ink_recipe([150, 600]).fingerprint() == ink_recipe(None).fingerprint()


@pytest.mark.parametrize("dpi", [[600, 150], [0, 300], [300], [-1, 2]])
def test_a_wrong_range_is_refused(dpi: list[float]):
    with pytest.raises(UsageError, match="dpi"):
        ink_recipe(dpi)


def test_only_pages_far_outside_are_told():
    check = ResolutionCheck(ink_recipe([150, 600]))
    for name, dpi in (("a", (300.0, 300.0)), ("b", (101.0, 101.0)), ("c", (890.0, 890.0)), ("d", None)):
        check.look_at(name, dpi)
    assert check.warnings() == []
    for i in range(12):
        check.look_at(f"p{i}", (72.0, 72.009))
    check.look_at("big", (1200.0, 1200.0))
    small, large = check.warnings()
    assert small == (
        "12 pages at 72 dpi (p0, p1, p2 and 9 more): ink was trained at 150 to 600 dpi, expect poor results; "
        "--scale 2.1 brings them there"
    )
    assert large.startswith("1 page at 1200 dpi (big): ")
    assert large.endswith("--scale 0.5 brings them there")


def test_nothing_is_told_of_networks_without_a_range_and_of_pages_that_are_scaled():
    for check in (ResolutionCheck(ink_recipe(None)), ResolutionCheck(ink_recipe([150, 600]), scale=2.1)):
        check.look_at("a", (72.0, 72.0))
        assert check.warnings() == []


def test_many_resolutions_stay_few_lines():
    check = ResolutionCheck(ink_recipe([300, 300]))
    for i in range(10, 80):
        check.look_at("x", (float(i), float(i)))
    lines = check.warnings()
    assert len(lines) == 5
    assert lines[-1] == "66 pages more at 66 other resolutions far from those trained at"


@given(st.floats(10, 5000), st.floats(50, 600), st.floats(1, 4))
def test_the_factor_brings_a_page_into_any_range_that_is_not_too_narrow(dpi: float, lowest: float, ratio: float):
    trained = (lowest, lowest * ratio)
    factor = fitting_scale(dpi, trained)
    assert lowest / 1.101 <= dpi * factor <= lowest * ratio * 1.101
    if ratio > 1.2:
        assert lowest * 0.999 <= dpi * factor <= lowest * ratio * 1.001


def test_predict_warns_once_for_a_folder(weights: Path):
    folder = Path("scans")
    folder.mkdir()
    for i, dpi in enumerate((72, 72, 300, None)):
        given: dict[str, Any] = {} if dpi is None else {"dpi": (dpi, dpi)}
        Image.fromarray(text_page((40, 50), i)).save(folder / f"p{i}.png", **given)
    notes: list[Note] = []
    predict(folder, weights, precision="fp32", emit=lambda e: notes.append(e) if isinstance(e, Note) else None)
    (told,) = [n.text for n in notes if "dpi" in n.text]
    assert told.startswith("2 pages at 72 dpi (p0.png, p1.png): ink was trained at 150 to 600 dpi")
    result = CliRunner().invoke(app, ["predict", "scans/p1.png", "--task", str(weights), "--precision", "fp32"])
    assert result.exit_code == 0
    assert "1 page at 72 dpi (scans/p1.png)" in " ".join(result.stderr.split())


def test_info_of_weights_tells_the_range(weights: Path):
    assert "trained at 150 to 600 dpi" in " ".join(CliRunner().invoke(app, ["info", str(weights)]).stdout.split())
