"""`unetctl benchmark speed` on folders of pages, and its repeatable --cores."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from unetctl.cli.app import app
from unetctl.errors import InputError, Stopped, UsageError
from unetctl.jobs import benchmark
from unetctl.jobs.benchmark_speed_values import PagesPair, PagesRun
from unetctl.jobs.pages.options import PageOptions
from unetctl.runtime.events import Event, Note, StageProgress, StageStarted

Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """These networks are tiny: threads would only wait for each other."""
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scans(place: Path) -> Path:
    """Pages of three sizes, one inside a folder, one with two in a file; and a broken file."""
    rng = np.random.default_rng(0)
    (place / "scans" / "inner").mkdir(parents=True)

    def page(*size: int) -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8))

    page(70, 90).save(place / "scans" / "a.png")
    page(70, 90, 3).save(place / "scans" / "b.jpg")
    page(40, 50).save(place / "scans" / "c.tif", save_all=True, append_images=[page(64, 32)])
    page(30, 30).save(place / "scans" / "inner" / "d.png")
    (place / "scans" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return place / "scans"


def test_a_folder_of_pages_through_predict_and_the_bare_network(page_weights, scans, place):
    events: list[Event] = []
    before = sorted(place.rglob("*"))
    report = benchmark.speed(str(page_weights), str(scans), pairs=2, core=32, precision="fp32", emit=events.append)
    values = json.loads(report.to_json())
    (run,) = values["runs"]
    assert (run["core"], run["num_files"], run["num_pages"]) == (32, 3, 4)
    assert run["num_pixels"] == 2 * 70 * 90 + 40 * 50 + 64 * 32
    assert [Path(name).name for name in run["failed"]] == ["broken.png"]
    assert run["num_tiles"] >= run["num_shapes"] == run["num_measured"] > 0
    walls = [pair["wall_s"] for pair in run["pairs"]]
    assert run["pages_per_min"] == pytest.approx(4 * 60 / np.median(walls))
    assert run["mpx_per_s"] == pytest.approx(run["num_pixels"] / 1e6 / np.median(walls))
    for pair in run["pairs"]:
        assert pair["efficiency"] == pytest.approx(pair["bare_s"] / pair["wall_s"])
        assert {"network", "waiting for pages", "decoding", "writing"} <= set(pair["seconds"])
        pages = [num for num, _ in pair["peaks"]]
        assert pages == sorted(pages)
        assert pages[-1] == 4
        assert all(0 < num_bytes <= run["peak_bytes"] for _, num_bytes in pair["peaks"])
    assert run["seconds"]["network"] <= run["seconds"]["wall"]
    assert values["best_core"] == 32
    text = "\n".join(report.lines())
    for word in ("pages/min", "bare network", "efficiency", "waiting for pages", "at most", "failed  1 files"):
        assert word in text
    assert isinstance(events[0], StageStarted)
    assert [e.done for e in events if isinstance(e, StageProgress) and e.stage == "benchmark"] == [1, 2]
    assert sorted(place.rglob("*")) == before  # nothing is left, here or in the temporary folder


def test_the_command_takes_folders_files_and_several_cores(page_weights, scans, place):
    def called(*words: Any) -> Any:
        return CliRunner().invoke(
            app, ["benchmark", "speed", *map(str, words), "--task", str(page_weights), "--pairs", "1"]
        )

    done = called(scans, "--recursive", "--cores", 16, "--cores", 32, "--memory", "2GiB", "--json")
    assert done.exit_code == 0, done.output
    runs = json.loads(done.stdout)["runs"]
    assert [(run["core"], run["num_pages"]) for run in runs] == [(16, 5), (32, 5)]
    assert {run["budget_bytes"] for run in runs} == {2 * 2**30}
    assert runs[0]["num_tiles"] > runs[1]["num_tiles"]
    done = called(scans / "c.tif", "--pages", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["runs"][0]["num_pages"] == 2
    done = called(scans / "a.png", "--cores", 16, "--cores", 32)
    assert done.exit_code == 0, done.output
    assert done.stdout.count("best") == 1
    assert "picture yx 70x90" in done.stdout
    done = called(scans, "--core", 16, "--cores", 32)
    assert done.exit_code == 2
    assert "--core together with --cores" in done.stderr
    done = called("--help")
    assert "repeatable: each size is measured" in " ".join(done.stdout.replace("│", " ").split())


def test_many_sizes_are_sampled(page_weights, place):
    rng = np.random.default_rng(1)
    (place / "many").mkdir()
    for i in range(20):
        size = (20 + 8 * i, 24)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(place / "many" / f"{i}.png")
    report = benchmark.speed(str(page_weights), str(place / "many"), pairs=1)
    (run,) = report.values["runs"]
    assert run["num_shapes"] > run["num_measured"] == 16
    assert run["pairs"][0]["bare_s"] > 0
    assert any("16 of" in line for line in report.lines())


def test_what_cannot_be_measured(page_weights, scans, place):
    with pytest.raises(Stopped):
        benchmark.speed(str(page_weights), str(scans), pairs=1, should_stop=lambda: True)
    with pytest.raises(InputError, match="holds no pages"):
        benchmark.speed(str(page_weights), str(place / "temporary"), pairs=1)
    (place / "bad").mkdir()
    (place / "bad" / "x.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"no file of .* can be opened"):
        benchmark.speed(str(page_weights), str(place / "bad"), pairs=1)
    with pytest.raises(UsageError, match="stride"):
        benchmark.speed(str(page_weights), str(scans), pairs=1, core=33)
    notes: list[Event] = []
    benchmark.speed(str(page_weights), str(scans), pairs=2, page_options=PageOptions(as_pages=True), emit=notes.append)
    texts = [note.text for note in notes if isinstance(note, Note)]
    assert len(texts) == len(set(texts))


def test_figures_by_hand():
    pairs = tuple(
        PagesPair(wall_s, 2.0, {"network": wall_s / 2, "waiting for pages": wall_s / 4}, ((10, 500), (20, 700)))
        for wall_s in (4.0, 8.0, 6.0)
    )
    run = PagesRun(64, 1, 20, 20, 12_000_000, 40, 4, 4, 1000, {}, pairs)
    assert (run.pages_per_min, run.mpx_per_s, run.bare_mpx_per_s) == (200.0, 2.0, 6.0)
    assert run.efficiency == pytest.approx(1 / 3)
    assert run.peak_bytes == 700
    assert run.seconds() == {"network": 3.0, "waiting for pages": 1.5, "wall": 6.0}
