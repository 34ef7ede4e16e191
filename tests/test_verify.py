"""`--verify-seams` finds nothing where nothing is, and something where something is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unetctl.errors import Stopped
from unetctl.geometry.plan import TilePlan
from unetctl.jobs.predict import Prediction, PredictOptions, plan_prediction, run_prediction
from unetctl.jobs.tasks import resolve_task
from unetctl.jobs.verify import sample, shifted, verify_seams
from unetctl.networks.build import build_network
from unetctl.networks.network import Network
from unetctl.networks.weights import WeightsHeader, save_weights
from unetctl.recipe.load import recipe_from_dict
from unetctl.runtime.events import Event, StageProgress

Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """These networks are tiny: threads would only wait for each other."""
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)


@pytest.fixture
def weights_of(tmp_path: Path) -> Make:
    """Untrained weights of a network, usable as a task."""

    def make(name: str = "net", classes: int = 1, **network: Any) -> Path:
        values = {
            "task": {"name": name},
            "network": {"channels": [4, 4, 6], **network},
            "output": {"classes": [f"class{i}" for i in range(classes)]},
            "labels": {"kind": "classes" if classes > 1 else "binary"},
        }
        recipe = recipe_from_dict(values, "a test")
        path = tmp_path / f"{name}.safetensors"
        header = WeightsHeader(name, recipe.network_spec.to_dict(), recipe.to_dict())
        save_weights(path, build_network(recipe.network_spec, seed=3), header)
        return path

    return make


def predicted(weights: Path, pixels: npt.NDArray[Any], tmp_path: Path, **options: Any) -> tuple[Prediction, Network]:
    """A finished prediction of an array whose axes are given as an option; its source is open."""
    path = tmp_path / "input.npy"
    np.save(path, pixels)
    options = {"precision": "fp32", "output": tmp_path / "out.ome.tif", **options}
    task = resolve_task(str(weights))
    network = task.network()
    prediction = plan_prediction(str(path), task, PredictOptions(**options), network)
    assert run_prediction(prediction, network).status == "done"
    return prediction, network


def picture(*shape: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(8).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("name", ["out.ome.tif", "out.ome.zarr"])
@pytest.mark.parametrize("keep", ["probability", "mask", "logits"])
def test_an_exact_network_leaves_no_seams(tmp_path, weights_of, name, keep):
    prediction, network = predicted(
        weights_of(), picture(2, 75, 90), tmp_path, axes="zyx", core=32, block=64, keep=keep, output=tmp_path / name
    )
    report = verify_seams(prediction, network)
    assert report.is_seamless
    assert len(report.blocks) == 4
    assert report.cores[0] == "28x32"
    assert len(set(report.cores)) == 3
    assert report.max_logit_difference <= 1e-4
    assert report.compared_with == name
    assert report.max_output_difference is not None
    assert report.max_output_difference <= {"probability": 1, "mask": 255, "logits": 1e-4}[keep]
    assert any("logits differ by at most" in line for line in report.lines())
    assert report.to_dict()["is_seamless"] is True


@pytest.mark.parametrize("keep", ["probability", "classes"])
def test_series_of_several_classes(tmp_path, weights_of, keep):
    weights = weights_of("classes", classes=3, convolution="same", border="native", up="bilinear")
    prediction, network = predicted(weights, picture(3, 41, 33), tmp_path, axes="tyx", core=16, keep=keep)
    report = verify_seams(prediction, network, num_blocks=2)
    assert report.blocks == (0, 2)
    assert report.num_pixels == 2 * 41 * 33
    assert report.is_seamless
    assert report.num_output_differing <= 2
    assert report.compared_with == "out.ome.tif"


def test_it_says_what_a_network_that_looks_at_its_tile_does(tmp_path, weights_of):
    prediction, network = predicted(
        weights_of("grouped", convolution="same", norm="group"), picture(60, 60), tmp_path, core=16
    )
    report = verify_seams(prediction, network)
    assert report.max_logit_difference > 1e-3
    assert not report.is_seamless
    assert "group norm" in report.lines()[-1]


def test_an_output_that_was_altered_shows(tmp_path, weights_of):
    prediction, network = predicted(
        weights_of(), picture(70, 70), tmp_path, core=32, block=32, output=tmp_path / "out.ome.zarr"
    )
    sink = prediction.folder.sink()
    box = prediction.plan.images[0].tiles.block(0).box
    pixels = sink.read(0, 0, box)
    pixels[5, 6] ^= 128
    sink.write(0, box, pixels)
    report = verify_seams(prediction, network)
    assert not report.is_seamless
    assert report.max_output_difference is not None
    assert report.max_output_difference >= 127
    assert report.max_logit_difference <= 1e-4


def test_an_output_that_is_gone_is_said_to_be(tmp_path, weights_of):
    prediction, network = predicted(weights_of(), picture(40, 40), tmp_path)
    prediction.folder.output.unlink()
    report = verify_seams(prediction, network)
    assert report.max_output_difference is None
    assert any("nothing stored" in line for line in report.lines())


def test_it_tells_how_far_it_is_and_stops(tmp_path, weights_of):
    prediction, network = predicted(weights_of(), picture(70, 70), tmp_path, core=16, block=32)
    events: list[Event] = []
    verify_seams(prediction, network, emit=events.append)
    assert [e.done for e in events if isinstance(e, StageProgress)] == [1, 2, 3, 4]
    with pytest.raises(Stopped):
        verify_seams(prediction, network, should_stop=lambda: True)


@given(total=st.integers(1, 500), wanted=st.integers(1, 9))
def test_a_sample_has_both_ends(total, wanted):
    chosen = sample(total, wanted)
    assert len(chosen) == min(total, wanted)
    assert chosen[0] == 0
    assert chosen[-1] == total - 1 or wanted == 1
    assert list(chosen) == sorted(set(chosen))


@given(
    stride=st.sampled_from([2, 4, 8]), num=st.integers(1, 6), num_leading=st.integers(0, 1), size=st.integers(1, 100)
)
def test_shifted_tilings_are_other_tilings_of_the_same_grid(stride, num, num_leading, size):
    axes = "zyx"[1 - num_leading :]
    lead = (1,) * num_leading
    plan = TilePlan(
        axes, (3,) * num_leading + (size, size), lead + (stride,) * 2, lead + (num * stride,) * 2,
        (0,) * num_leading + (stride,) * 2, (1,) * len(axes),
    )  # fmt: skip
    others = shifted(plan)
    assert others
    for other in others:
        assert other.core[-1] % stride == 0
        assert other.core != plan.core
        assert replace(other, core=plan.core, cores_per_block=plan.cores_per_block) == plan
