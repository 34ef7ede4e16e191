"""Objects of one size: training and predict show every picture at the scale at which its objects have it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.object_cases import discs, save_bright_weights
from unetctl.errors import UsageError
from unetctl.geometry.object_size import LEAST_SCALE, MOST_SCALE, fitting_scale, median_diameter, scale_of
from unetctl.jobs.api import predict
from unetctl.jobs.benchmark_truth import load_targets
from unetctl.jobs.pages.shares import Shares
from unetctl.recipe.load import recipe_from_dict
from unetctl.runtime.events import Event, Note
from unetctl.sources.scaled import resampled, scaled_size
from unetctl.training.load import load_selection
from unetctl.training.pairs import find_pairs
from unetctl.training.splits import Selection

WANTED = 20.0


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def bright(tmp_path: Path) -> Path:
    path = tmp_path / "bright.safetensors"
    save_bright_weights(path, WANTED)
    return path


# -- the search


@given(diameter=st.floats(1, 300), error=st.floats(0.8, 1.25), wanted=st.floats(8, 60))
def test_the_scale_found_fits_even_if_sizes_are_misjudged_at_wrong_scales(diameter, error, wanted):
    """A network that errs the more the farther objects are from what it knows, and is right where they are as it knows."""
    looks: list[float] = []

    def diameter_at(scale: float) -> float:
        looks.append(scale)
        off = math.log(diameter * scale / wanted)
        return float(diameter * error ** min(1.0, abs(off)))

    scale = fitting_scale(diameter_at, wanted)
    assert len(looks) <= 4
    assert looks[0] == 1
    best = scale_of(diameter, wanted)
    assert LEAST_SCALE <= scale <= MOST_SCALE
    assert abs(math.log(scale / best)) <= math.log(1.25)


@pytest.mark.parametrize(
    ("seen", "found"), [({}, 1.0), ({2.0: 9.0, 2**1.25: 9.0}, 2**1.25), ({0.5: 80.0, 0.25: 80.0}, 0.25)]
)
def test_where_nothing_is_seen_other_scales_are_tried(seen: dict[float, float], found: float) -> None:
    assert fitting_scale(seen.get, WANTED) == found


def test_the_median_object_decides() -> None:
    ids = discs((200, 200), 15)
    diameter = median_diameter(ids)
    assert diameter == pytest.approx(15, rel=0.03)
    ids[ids == 1] = 0
    ids[:8, :190] = 999  # one of another size
    assert median_diameter(ids) == diameter
    assert median_diameter(np.stack([ids, ids * 0])) == diameter
    assert median_diameter(ids * 0) is None


# -- training


def recipe(**objects: Any) -> Any:
    return recipe_from_dict(
        {
            "task": {"name": "discs"},
            "input": {"stack": False},
            "normalise": {"method": "range"},
            "output": {"classes": ["background", "interior", "border"], "keep": "labels"},
            "labels": {"kind": "objects", "ignore": 77},
            "objects": objects,
        },
        "tests",
    )


def test_training_shows_objects_at_the_wanted_size_and_scores_them_at_their_own() -> None:
    for name in ("images", "labels"):
        Path(name).mkdir()
    for name, diameter in (("small", 8), ("large", 50)):
        ids = discs((150, 180), diameter, 2)
        pixels = np.where(ids > 0, 200, 20).astype(np.uint8)
        ids[-10:, :10] = 77
        Image.fromarray(pixels).save(f"images/{name}.png")
        tifffile.imwrite(f"labels/{name}.tif", ids)
    pairs = {pair.name: pair for pair in find_pairs(Path())}
    for name, diameter in (("small", 8), ("large", 50)):
        chosen, known = Selection(pairs[name], (0,)), recipe(diameter_px=WANTED)
        loaded = load_selection(chosen, known)
        (plane,) = loaded.planes
        (plain,) = load_selection(chosen, recipe()).planes
        assert loaded.scale == pytest.approx(WANTED / diameter, rel=0.05)
        assert plane.objects is not None
        assert plane.weights is not None
        assert plain.weights is not None
        assert plain.objects is not None
        assert plane.size == scaled_size((150, 180), loaded.scale) == plane.objects.shape
        assert median_diameter(plane.objects) == pytest.approx(WANTED, rel=0.05)
        seen = resampled(np.where(discs((150, 180), diameter, 2) > 0, 200, 20).astype(np.uint8), plane.size)
        assert np.array_equal(plane.pixels[0], np.float32(1 / 255) * seen)
        # classes are those of the objects as they are seen: borders as wide as in any other picture
        assert ((plane.target[0] > 0) == (plane.objects > 0)).all()
        assert (plane.weights[0] == 0).mean() == pytest.approx((plain.weights == 0).mean(), rel=0.3)
        ((truth,),) = load_targets([chosen], known, lambda event: None, lambda: False)
        assert truth.objects is not None
        assert np.array_equal(truth.objects, plain.objects)


def test_a_size_without_objects_is_refused() -> None:
    with pytest.raises(Exception, match=r"\[objects\] diameter_px: 20 with kind"):
        recipe_from_dict({"task": {"name": "x"}, "objects": {"diameter_px": 20}}, "tests")


# -- predict


def labels_of(path: str | Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("is_large", [False, True])
def test_pages_are_seen_at_the_scale_of_their_objects(bright: Path, monkeypatch: pytest.MonkeyPatch, is_large) -> None:
    if is_large:
        monkeypatch.setattr(Shares, "of", classmethod(lambda cls, budget: cls(budget, 1 << 22, 1 << 22, 64, 1 << 26)))
    Path("in").mkdir()
    truth = {
        "a": discs((140, 160), 7),
        "b": discs((260, 300), 60),
        "c": discs((120, 90), 21),
        "d": np.zeros((40, 50), int),
    }
    for name, ids in truth.items():
        Image.fromarray(np.where(ids > 0, 230, 10).astype(np.uint8)).save(f"in/{name}.png")
    predict("in", bright, output=Path("out"), precision="fp32")
    for name, ids in truth.items():
        found = labels_of(f"out/{name}.png")
        assert found.shape == ids.shape
        assert len(np.unique(found)) == len(np.unique(ids))
        assert ((found > 0) == (ids > 0)).mean() > 0.97
    # the user's own scale holds
    for name, scale in (("a", 2.0), ("c", 1.0)):
        predict(f"in/{name}.png", bright, output=Path(f"{name}.png"), scale=scale, precision="fp32")
        assert len(np.unique(labels_of(f"{name}.png"))) == len(np.unique(truth[name]))
    assert np.array_equal(labels_of("c.png"), labels_of("out/c.png"))  # 21 px are about 20


def test_a_page_that_is_empty_in_the_middle_is_looked_at_elsewhere_and_by_its_own_statistics(tmp_path: Path) -> None:
    """By itself an empty part would be stretched until its noise looks like objects."""
    weights = tmp_path / "stretched.safetensors"
    save_bright_weights(weights, WANTED, "percentile")
    ids = discs((1400, 1500), 9)
    ids[:, 420:] = ids[500:] = 0
    noise = np.random.default_rng(0).integers(0, 12, ids.shape)
    Image.fromarray((np.where(ids > 0, 230, 10) + noise).astype(np.uint8)).save("corner.png")
    notes: list[str] = []
    predict(
        "corner.png", weights, output=Path("corner-labels.png"), precision="fp32",
        emit=lambda event: notes.append(event.text) if isinstance(event, Note) else None,
    )  # fmt: skip
    (told,) = (note for note in notes if "is seen at" in note)
    assert float(told.split("seen at ")[1].split()[0]) == pytest.approx(WANTED / 9, rel=0.15)
    assert len(np.unique(labels_of("corner-labels.png"))) == len(np.unique(ids))


def test_a_stop_while_a_page_is_looked_at_is_no_failure_of_the_page(
    bright: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("in").mkdir()
    for name in "ab":
        Image.fromarray(np.where(discs((90, 90), 20) > 0, 230, 10).astype(np.uint8)).save(f"in/{name}.png")
    with monkeypatch.context() as patched:
        patched.setattr("unetctl.jobs.object_scale.PipelinedLoop.run", lambda *_: False)  # as when asked to stop
        reports = predict("in", bright, output=Path("out"), precision="fp32")
    assert [report.status for report in reports] == ["stopped"]
    assert not any("failed" in path.read_text() for path in Path("out.run").glob("ledger*"))
    assert {report.status for report in predict("in", bright, output=Path("out"), precision="fp32")} == {"done"}


@pytest.mark.parametrize("section", [{"network": {"dims": 3}}, {"input": {"context_slices": 3}}])
def test_a_size_is_for_networks_that_see_single_planes(section: dict[str, Any]) -> None:
    values: dict[str, Any] = recipe(diameter_px=WANTED).to_dict()
    for name, settings in section.items():
        values[name] |= settings
    with pytest.raises(UsageError, match="diameter_px: 20 with "):
        recipe_from_dict(values, "tests")


@pytest.mark.parametrize(("diameter", "is_told"), [(8, True), (20, False), (50, True)])
def test_of_volumes_the_size_is_told(bright: Path, diameter: int, is_told: bool) -> None:
    plane = np.where(discs((160, 170), diameter) > 0, 230, 10).astype(np.uint8)
    tifffile.imwrite("v.tif", np.stack([plane] * 3), photometric="minisblack", metadata={"axes": "ZYX"})
    told: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Note) and "objects in the middle plane" in event.text:
            told.append(event.text)

    run: Callable[..., Any] = predict
    run("v.tif", bright, output=Path("v.ome.zarr"), precision="fp32", emit=listen)
    assert bool(told) == is_told
    if told:
        assert f"--scale {WANTED / diameter:.1g}"[:10] in told[0]
    run("v.tif", bright, output=Path("w.ome.zarr"), scale=1.0, precision="fp32", emit=listen)
    assert len(told) == is_told  # who gives a scale knows
