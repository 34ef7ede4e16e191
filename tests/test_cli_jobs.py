"""The commands with their real jobs, on small input; train and benchmark with stand-ins."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import tifffile
from typer.testing import CliRunner

import unetctl
import unetctl.jobs
from unetctl.cli.app import app
from unetctl.errors import UsageError
from unetctl.recipe import shipped_recipes
from unetctl.runtime.events import EpochEnded


def run(*args: object) -> Any:
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_predict_writes_where_one_stands_and_a_second_run_has_nothing_to_do(
    here: Path, em_file: Path, tiny_weights: Path
):
    first = run("predict", em_file, "--task", tiny_weights, "--precision", "fp32")
    assert first.exit_code == 0, first.stderr
    assert first.stdout == "em-small-tiny.ome.tif\n"
    assert "peak memory" in first.stderr
    assert "projected" in first.stderr
    with tifffile.TiffFile(here / "em-small-tiny.ome.tif") as file:
        assert (file.series[0].axes, file.series[0].shape, str(file.series[0].dtype)) == ("ZYX", (3, 97, 120), "uint8")
    content = (here / "em-small-tiny.ome.tif").read_bytes()
    second = run("predict", em_file, "--task", tiny_weights)
    assert (second.exit_code, second.stdout) == (0, first.stdout)
    assert "nothing new" in second.stderr
    assert (here / "em-small-tiny.ome.tif").read_bytes() == content


def test_parts_and_stitch_give_the_same_bytes(here: Path, em_file: Path, tiny_weights: Path):
    common = ("predict", em_file, "--task", tiny_weights, "--core", 32, "--block", 64, "--precision", "fp32")
    assert run(*common, "-o", "whole.ome.tif").exit_code == 0
    assert run(*common, "-o", "shared.ome.tif", "--part", "2/2").exit_code == 0
    early = run("stitch", "shared.ome.tif")
    assert early.exit_code == 3
    assert "--part 1/2" in early.stderr
    state = json.loads(run("info", "shared.ome.tif", "--json").stdout)
    assert state["kind"] == "run"
    (n_first, all_first), (n_second, all_second) = state["run"]["parts"]
    assert n_first == 0 < all_first
    assert n_second == all_second > 0
    assert run(*common, "-o", "shared.ome.tif", "--part", "1/2").exit_code == 0
    late = run("stitch", "shared.ome.tif")
    assert (late.exit_code, late.stdout) == (0, "shared.ome.tif\n")
    assert (here / "whole.ome.tif").read_bytes() == (here / "shared.ome.tif").read_bytes()


def test_a_dry_run_writes_nothing(here: Path, em_file: Path, tiny_weights: Path):
    result = run("predict", em_file, "--task", tiny_weights, "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["num_pixels"] == 3 * 97 * 120
    assert plan["host_bytes"] > 0
    assert "blocks" in run("predict", em_file, "--task", tiny_weights, "--dry-run").stdout
    assert list(here.iterdir()) == []


def test_one_bad_file_neither_stops_the_rest_nor_goes_unnoticed(here: Path, em_file: Path, tiny_weights: Path):
    (here / "broken.tif").write_bytes(b"II*\0 this is not much of a TIFF")
    (here / "out").mkdir()
    result = run("predict", "broken.tif", em_file, "--task", tiny_weights, "-o", "out")
    assert result.exit_code == 3
    assert [Path(line).name for line in result.stdout.split()] == ["em-small-tiny.ome.tif"]
    assert "error: broken.tif: " in result.stderr
    assert "Traceback" not in result.stderr
    assert run("predict", "broken.tif", "--task", tiny_weights).exit_code == 4
    assert run("predict", em_file, "--task", "broken.tif").exit_code == 5


def test_nothing_foreign_is_overwritten_unasked(here: Path, em_file: Path, tiny_weights: Path):
    (here / "em-small-tiny.ome.tif").write_text("mine")
    result = run("predict", em_file, "--task", tiny_weights)
    assert result.exit_code == 2
    assert (here / "em-small-tiny.ome.tif").read_text() == "mine"
    assert run("predict", em_file, "--task", tiny_weights, "--existing", "overwrite").exit_code == 0
    assert tifffile.imread(here / "em-small-tiny.ome.tif").shape == (3, 97, 120)


def test_python_has_the_same_door(here: Path, em_file: Path, tiny_weights: Path):
    (plan,) = unetctl.dry_run(em_file, tiny_weights, device="cpu")
    assert not list(here.iterdir())
    seen: list[object] = []
    (report,) = unetctl.predict([em_file], tiny_weights, output=here / "x.ome.zarr", precision="fp32", emit=seen.append)
    assert (report.status, report.output) == ("done", str(here / "x.ome.zarr"))
    assert report.num_blocks == plan.to_dict()["num_blocks"]
    assert seen
    assert unetctl.stitch(here / "x.ome.zarr").status == "nothing-new"
    described = unetctl.describe_file(str(here / "x.ome.zarr")).to_dict()
    assert described["run"]["is_finished"]
    with pytest.raises(TypeError, match="coer"):
        unetctl.predict(em_file, tiny_weights, coer=64)


def test_info_tells_pictures_weights_recipes_and_outputs(here: Path, em_file: Path, tiny_weights: Path):
    result = run("info", em_file)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    for words in ("OME-TIFF", "zyx 3 x 97 x 120, uint8", "pixel size 0.05 x 0.004 x 0.004 um (zyx)"):
        assert words in text
    told = json.loads(run("info", em_file, "--json").stdout)
    (image,) = told["images"]
    assert (image["axes"], image["shape"], image["spacing_um"]) == ("zyx", [3, 97, 120], [0.05, 0.004, 0.004])
    assert "run" not in told

    text = " ".join(run("info", tiny_weights).stdout.split())
    for words in (
        "tiny: a tiny network for tests",
        "features 4-8-16",
        "stride 4, margin 22, halo 22 px",
        "none: the numbers",
    ):
        assert words in text
    told = json.loads(run("info", tiny_weights, "--json").stdout)
    assert (told["kind"], told["margin"], told["is_exact"]) == ("weights", [22, 22], True)
    from unetctl.networks.weights import load_weights

    assert told["num_weights"] == sum(p.numel() for p in load_weights(tiny_weights)[0].parameters())

    (here / "mine.toml").write_text('[task]\nname = "mine"\n')
    assert "mine" in run("info", "mine.toml").stdout
    run("predict", em_file, "--task", tiny_weights)
    text = " ".join(run("info", "em-small-tiny.ome.tif").stdout.split())
    assert "probability by tiny" in text
    assert "finished, 3 of 3 blocks done" in text
    assert "finished, 3 of 3" in " ".join(run("info", "em-small-tiny.ome.tif.run").stdout.split())


def test_info_refuses_what_it_does_not_know(here: Path):
    (here / "old.pt").write_bytes(b"\x80\x02}q\x00.")
    (here / "letter.txt").write_text("Dear reader")
    (here / "run").mkdir()
    (here / "run" / "checkpoints").mkdir()
    (here / "run" / "recipe.toml").write_text("")
    assert run("info", "old.pt").exit_code == 5
    assert "weights_only=True" in run("info", "old.pt").stderr
    assert run("info", "letter.txt").exit_code == 4
    assert run("info", "nowhere.tif").exit_code == 4
    assert run("info", "run").exit_code == 5
    assert run("info", "nowhere.tif", "letter.txt").exit_code == 3


def test_tasks_are_listed_and_their_recipes_can_be_copied(here: Path):
    listed = run("tasks")
    assert listed.exit_code == 0
    names = list(shipped_recipes())
    assert [line.split(":")[0] for line in listed.stdout.splitlines() if line and line[0] != " "] == names
    told = [json.loads(line) for line in run("tasks", "--json").stdout.splitlines()]
    assert [t["task"] for t in told] == names
    (here / "mine.toml").write_text(run("tasks", "em").stdout)
    assert unetctl.load_recipe("./mine.toml").to_dict() == unetctl.load_recipe("em").to_dict()
    assert run("tasks", "emm").exit_code == 2


@pytest.mark.parametrize(("status", "code"), [("done", 0), ("stopped", 75)])
def test_train_hands_everything_over(monkeypatch: pytest.MonkeyPatch, status: str, code: int):
    from unetctl.jobs import train

    def fake(options: train.TrainOptions, emit: Any, should_stop: Any) -> train.TrainReport:
        assert options == train.TrainOptions(
            data=Path("d"), task="em", output=Path("r"), init_from="w", val=("22:24",), exclude=("a*", "b*"),
            overrides=("loss.dice=1",), epochs=3, lr=0.1, batch=2, crop=64, seed=9, save_every=4, max_time_s=5400.0,
            device="cpu", precision="fp32", fresh=True,
        )  # fmt: skip
        assert not should_stop()
        emit(EpochEnded(3, 3, 0.25, {"v_rand": 0.5}, is_best=True))
        return train.TrainReport("r", status, 3, 3, 3, {"v_rand": 0.5}, 12.0)

    monkeypatch.setattr(train, "train", fake)
    words = (
        "train --data d --task em -o r --from w --val 22:24 --exclude a* --exclude b* --set loss.dice=1 --epochs 3"
        " --lr 0.1 --batch 2 --crop 64 --seed 9 --save-every 4 --max-time 1.5h --device cpu --precision fp32 --fresh"
    )
    result = run(*words.split())
    assert result.exit_code == code, result.stderr
    assert result.stdout == ("r\n" if code == 0 else "")
    assert "epoch 3/3: loss 0.2500, v_rand 0.5000 (best so far)" in result.stderr
    assert "use them: unetctl predict INPUT --task r" in result.stderr
    told = json.loads(run(*words.split(), "--json").stdout)
    assert (told["folder"], told["figures"]) == ("r", {"v_rand": 0.5})


def test_train_says_what_is_wrong(here: Path):
    assert run("train", "--data", "nowhere", "--task", "em").exit_code == 4
    assert run("train", "--data", ".", "--task", "em", "--max-time", "soon").exit_code == 2
    assert run("train", "--task", "em").exit_code == 2


def test_benchmark_prints_figures(monkeypatch: pytest.MonkeyPatch):
    class Report:
        def lines(self) -> list[str]:
            return ["efficiency 0.91"]

        def to_dict(self) -> dict[str, float]:
            return {"efficiency": 0.91}

    calls: list[tuple[Any, dict[str, Any]]] = []

    def fake(*args: Any, **given: Any) -> Report:
        calls.append((args, given))
        if given.get("core") == 10:
            raise UsageError("core 10")
        return Report()

    module = types.ModuleType("unetctl.jobs.benchmark")
    module.speed = module.accuracy = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unetctl.jobs.benchmark", module)
    monkeypatch.setattr(unetctl.jobs, "benchmark", module, raising=False)
    result = run("benchmark", "speed", "a.tif", "--task", "em", "--pairs", 3, "--core", 512, "--device", "cpu")
    assert (result.exit_code, result.stdout) == (0, "efficiency 0.91\n")
    args, given = calls[0]
    assert args == ("em", "a.tif")
    wished = {k: v for k, v in given.items() if v is not None and k not in ("emit", "should_stop", "page_options")}
    assert wished == {"size": 4096, "pairs": 3, "core": 512, "cores": (), "device": "cpu", "precision": "auto"}
    result = run("benchmark", "accuracy", "--task", "em", "--data", "d", "-o", "x.tif", "--split", "val", "--json")
    assert json.loads(result.stdout) == {"efficiency": 0.91}
    args, given = calls[1]
    assert args == ("em", Path("d"))
    assert (given["output"], given["split"], given["device"]) == (Path("x.tif"), "val", "auto")
    assert run("benchmark", "speed", "--task", "em", "--core", 10).exit_code == 2
