"""`unetctl benchmark train`: steps with their crops, beside the same steps on a batch that is ready."""

import json

import pytest

from tests.training_data import GREY, pages, run


@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_is_measured_and_leaves_nothing(tmp_path, monkeypatch, workers):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grey.toml").write_text(GREY)
    pages(tmp_path / "data", 3)
    words = ("benchmark", "train", "--data", "data", "--task", "./grey.toml", "--rounds", 2, "--steps", 2)
    told = run(*words, "--workers", workers, "--json")
    assert told.exit_code == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["benchmark"] == "train"
    assert found["num_workers"] == workers
    assert len(found["rounds"]) == 2
    for one in found["rounds"]:
        assert one["efficiency"] == pytest.approx(one["cached_s"] / one["fed_s"])
        assert one["fed_s"] > 0
    assert found["core"] == "16x16"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "grey.toml"]
    assert "efficiency" in run(*words, "--workers", workers).stdout
