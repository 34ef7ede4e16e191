"""`unetctl benchmark accuracy` reads ground truth as training does: which of its two values is ink is not fixed."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.page_weights_files import save_page_weights
from unetctl.errors import InputError, Stopped
from unetctl.jobs import benchmark
from unetctl.jobs.benchmark_pages import pages_of
from unetctl.jobs.benchmark_truth import is_ink_high, load_targets
from unetctl.recipe.load import recipe_from_dict
from unetctl.runtime.events import Event, Note, nobody
from unetctl.training.pairs import find_pairs
from unetctl.training.splits import Selection

Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """These networks are tiny: threads would only wait for each other. Nor do classical methods matter here."""
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
    monkeypatch.setattr("unetctl.jobs.benchmark_baselines.doxa_algorithms", frozenset)


@pytest.fixture
def data_of(tmp_path: Path) -> Make:
    """Three pages of writing, their truth in any two values; a share of them photographed as negatives."""

    def make(name: str, ink_value: int, paper_value: int, num_negatives: int = 0, suffix: str = ".png") -> Path:
        for i in range(3):
            rng = np.random.default_rng(i)
            ink = np.zeros((40 + 4 * i, 52), np.bool_)
            for y, x in rng.integers(2, 34, (8, 2)):
                ink[y : y + 3, x : x + 12] = True
            grey = np.clip(np.where(ink, 70, 190) + rng.normal(0, 20, ink.shape), 0, 255).astype(np.uint8)
            truth = np.where(ink, ink_value, paper_value).astype(np.uint8)
            for kind, pixels in (("images", 255 - grey if i < num_negatives else grey), ("gt", truth)):
                path = tmp_path / name / kind / f"{i}{suffix if kind == 'gt' else '.png'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path, quality=90)
        return tmp_path / name

    return make


def without_place(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "data"}


@pytest.mark.parametrize("classes", ["ink", "writing"])
def test_turned_truth_gives_the_same_scores(data_of, tmp_path, classes):
    """Of documents, and of any other task whose labels are read so."""
    weights = save_page_weights(
        tmp_path / "w.safetensors", labels={"foreground": "darker"}, output={"classes": [classes]}
    )
    found = []
    for name, values in (("plain", (0, 255)), ("turned", (255, 0)), ("odd", (17, 3))):
        notes: list[Event] = []
        report = benchmark.accuracy(str(weights), data_of(name, *values), split="all", emit=notes.append)
        found.append(without_place(report.values))
        wanted = f"labels: {values[0]} is ink, {values[1]} is paper (darker there on 3 of 3 pages)"
        assert wanted in [note.text for note in notes if isinstance(note, Note)]
    assert found[0] == found[1] == found[2]
    assert found[0]["kind"] == ("document" if classes == "ink" else "binary")


def test_turned_truth_of_files_and_the_majority(data_of, tmp_path):
    weights = save_page_weights(tmp_path / "w.safetensors", labels={"foreground": "darker"})
    for name, values in (("plain", (0, 255)), ("turned", (255, 0))):
        data = data_of(name, *values, 1)
        out = tmp_path / f"{name}-out"
        shutil.copytree(tmp_path / "plain" / "gt", out)  # what predict writes is black on white, whatever the truth
        notes: list[Event] = []
        report = benchmark.accuracy(str(weights), data, split="all", predicted=out, emit=notes.append)
        assert report.values["mean"]["ours"]["f"] == 100
        texts = [str(note) for note in notes]
        assert any("darker there on 2 of 3 pages" in text for text in texts)
        assert any("the other way round, or light writing on dark paper" in text and text.count("0") for text in texts)


@pytest.mark.parametrize(
    ("labels", "values", "is_high"),
    [
        ({}, (255, 0), True),
        ({"values": [255, 0]}, (0, 255), False),
        ({"values": [0, 255]}, (255, 0), True),
        ({"foreground": "darker"}, (0, 1), False),
        ({"foreground": "darker"}, (200, 100), True),
    ],
)
def test_pages_and_planes_are_read_alike(data_of, labels, values, is_high):
    recipe = recipe_from_dict(
        {"task": {"name": "t"}, "labels": labels, "input": {"luminance": True}, "network": {"channels": [2, 2]}}, "test"
    )
    table = find_pairs(data_of("d", *values))
    selections = [Selection(pair, (0,)) for pair in table]
    assert is_ink_high(pages_of(selections), recipe, nobody, lambda: False) == is_high
    for (plane,), pair in zip(load_targets(selections, recipe, nobody, lambda: False), table, strict=True):
        with Image.open(pair.labels) as image:
            np.testing.assert_array_equal(plane.target[0] > 0, np.asarray(image) == values[0])
        assert not plane.pixels.any()


def test_smeared_and_blank_truth(data_of):
    recipe = recipe_from_dict(
        {"task": {"name": "t"}, "labels": {"foreground": "darker"}, "input": {"luminance": True}}, "test"
    )
    table = find_pairs(data_of("d", 255, 0, suffix=".jpg"))
    selections = [Selection(pair, (0,)) for pair in table]
    assert is_ink_high(pages_of(selections), recipe, nobody, lambda: False)
    Image.new("L", (52, 40), 0).save(table.pairs[0].labels)
    notes: list[Event] = []
    assert is_ink_high(pages_of(selections), recipe, notes.append, lambda: False)
    assert "darker there on 2 of 2 pages" in str(notes)
    alone = [replace(selections[0])]
    assert not is_ink_high(pages_of(alone), recipe, notes.append, lambda: False)
    assert "no page has two label values" in str(notes)
    with pytest.raises(Stopped):
        is_ink_high(pages_of(selections), recipe, nobody, lambda: True)
    with pytest.raises(Stopped):
        load_targets(selections, recipe, nobody, lambda: True)
    Image.fromarray(np.arange(52 * 40, dtype=np.uint8).reshape(40, 52)).save(table.pairs[0].labels.with_suffix(".png"))
    table.pairs[0].labels.unlink()
    table = find_pairs(table.root)
    with pytest.raises(InputError, match="its ground truth is not two-valued"):
        is_ink_high(pages_of([Selection(pair, (0,)) for pair in table]), recipe, nobody, lambda: False)
