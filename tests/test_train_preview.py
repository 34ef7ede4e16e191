"""`unetctl train --preview`: samples as the training is fed them, before any training."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.test_reports import Page, decoded
from tests.training_data import GREY, MINE, coloured, grey, pages, run
from unetctl.jobs.train_preview import write_preview
from unetctl.recipe.load import recipe_from_dict
from unetctl.training.course import TrainBatch


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "grey.toml").write_text(GREY)
    (tmp_path / "mine.toml").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("recipe", "make", "num"), [("grey", grey, 3), ("mine", coloured, 3)])
def test_the_sheet_shows_what_would_be_learned_from_and_trains_nothing(here, recipe, make, num):
    pages(here / "data", 4, make)
    told = run("train", "--data", "data", "--task", f"./{recipe}.toml", "-o", "run", "--preview")
    assert told.exit_code == 0, told.stderr
    sheet = told.stdout.strip()
    assert sheet == "run/preview.png"
    assert sorted(p.name for p in (here / "run").iterdir()) == ["preview.html", "preview.png"]
    found = Page(here / "run" / "preview.html")
    pictures = [decoded(img["src"]) for img in found.all("img")]
    assert len(pictures) == 8 * num
    assert "16x16 enter the loss" in found.text
    framed, target, overlay = pictures[:3]
    assert target.shape[:2] == overlay.shape[:2] == (16, 16)
    assert framed.shape[0] > 16
    assert "p0" in found.text or "p1" in found.text
    with Image.open(sheet) as picture:
        assert picture.size[0] > num * 256
    assert not [
        a for _, e in found.elements for k, a in e.items() if k in ("src", "href") and not a.startswith("data:")
    ]
    # the folder is free for the training itself, and again for a look at another recipe
    again = run(
        "train", "--data", "data", "--task", f"./{recipe}.toml", "-o", "run", "--preview", "--seed", 3, "--json"
    )
    assert '"num_samples": 8' in again.stdout
    trained = run("train", "--data", "data", "--task", f"./{recipe}.toml", "-o", "run", "--epochs", 1)
    assert trained.exit_code == 0, trained.stderr


@pytest.mark.parametrize("num_targets", [1, 2, 3, 4, 6])
def test_any_kind_of_target_is_drawn(tmp_path, num_targets):
    recipe = recipe_from_dict(
        {
            "task": {"name": "any"},
            "labels": {"kind": "classes"},
            "input": {"channels": 2},
            "output": {"classes": ["a", "b", "c"]},
        },
        "test",
    )

    def sampler(step: int) -> TrainBatch:
        rng = torch.Generator().manual_seed(step)
        targets = torch.randn(2, num_targets, 12, 12, generator=rng)
        return TrainBatch(torch.randn(2, 2, 20, 20, generator=rng), targets, torch.rand(2, 1, 12, 12, generator=rng))

    report = write_preview(sampler, recipe, tmp_path)
    found = Page(tmp_path / "preview.html")
    captions = [img["alt"].split(" of sample")[0] for img in found.all("img")]
    assert len(set(captions)) * report.num_samples == len(captions)
    assert sum(c.startswith("target") for c in set(captions)) == {1: 1, 2: 2, 3: 1, 4: 2, 6: 4}[num_targets]
    assert sum(c.startswith("input") for c in set(captions)) == 2
    assert any(c.startswith("weight") for c in captions)
    with Image.open(tmp_path / "preview.png") as picture:
        assert np.asarray(picture).std() > 5
