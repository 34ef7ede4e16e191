"""The shell: help, exit codes, what goes to stdout and what to stderr. The jobs are stand-ins here."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import unetctl
from unetctl.cli.app import app
from unetctl.errors import (
    EXIT_CODES,
    BusyError,
    IncompleteError,
    InputError,
    Interrupted,
    ResourceError,
    Stopped,
    UsageError,
    WeightsError,
)
from unetctl.jobs.pages.options import PageOptions
from unetctl.runtime.events import Note
from unetctl.runtime.report import RunReport

PROJECT = Path(unetctl.__file__).parent.parent
COMMANDS = (
    "predict", "train", "stitch", "export", "import", "tasks", "info", "sample", "benchmark", "benchmark speed", "benchmark accuracy",
)  # fmt: skip
QUICK = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}


def run(*args: str, env: dict[str, str | None] | None = None) -> Any:
    return CliRunner().invoke(app, args, env=env)


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replaces the jobs by recorders; `does` decides what they do, `calls` holds what they were given."""
    from unetctl.jobs import corpus, stitch

    state: dict[str, Any] = {"calls": [], "does": lambda **given: []}

    def record(*args: Any, **given: Any) -> Any:
        state["calls"].append((args, given))
        return state["does"](*args, **given)

    monkeypatch.setattr(corpus, "predict_all", record)
    monkeypatch.setattr(corpus, "dry_run", record)
    monkeypatch.setattr(stitch, "stitch_output", record)
    return state


def done(name: str = "a.tif", status: str = "done", **values: Any) -> RunReport:
    given: dict[str, Any] = {
        "num_blocks": 4,
        "num_done": 4,
        "num_computed": 4,
        "num_pixels": 4_000_000,
        "elapsed_s": 2.0,
    }
    given |= {"projected_bytes": 3 << 20, "peak_bytes": 2 << 20, **values}
    return RunReport("predict", name, f"{name}-out.tif", status, **given)


def reporting(*reports: RunReport) -> Any:
    def predict_all(*args: Any, on_report: Any, **given: Any) -> list[RunReport]:
        for report in reports:
            on_report(report)
        return list(reports)

    return predict_all


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_explains_itself(command: str):
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert "--help" in result.stdout


def test_help_tells_every_exit_code():
    text = run("--help", env={"COLUMNS": "120"}).stdout
    shown = " ".join(text.split())
    for code, meaning in EXIT_CODES.items():
        assert f" {code} {meaning}" in shown


def test_no_command_is_a_usage_error_with_help():
    result = run()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "predict" in result.stderr
    assert run("predcit").exit_code == 2
    assert run("benchmark").exit_code == 2


def test_every_option_has_a_help_text():
    options = [
        line for name in COMMANDS for line in run(*name.split(), "--help", env={"COLUMNS": "200"}).stdout.splitlines()
    ]
    shown = [line for line in options if line.lstrip("│* ").startswith("--")]
    assert len(shown) > 60
    bare = [line for line in shown if len(line.strip("│ ").split("  ")[-1].split()) < 2]
    assert not bare


def test_help_costs_little():
    """Far below what loading torch takes; a wall clock would measure the neighbours."""
    resource = pytest.importorskip("resource", reason="tells what a child process took")
    costs = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "unetctl", "--help"], cwd=PROJECT, env=QUICK, check=True, capture_output=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(costs) < 0.6


def test_the_package_itself_loads_nothing_and_names_everything():
    code = "import sys, unetctl; print(*(m for m in ('numpy', 'torch', 'typer', 'pydantic') if m in sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env=QUICK, check=True, capture_output=True, text=True
    )
    assert result.stdout.split() == []
    assert set(dir(unetctl)) == set(unetctl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'predcit'"):
        _ = unetctl.predcit
    assert run("--version").stdout.strip() == f"unetctl {unetctl.__version__}"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("a core of 190", "a multiple of 16", "use 192"), 2),
        (IncompleteError("3 blocks are missing"), 3),
        (InputError("no file x.tif"), 4),
        (WeightsError("pickled"), 5),
        (ResourceError("the disk is full"), 6),
        (BusyError("held by process 7"), 75),
        (Stopped("12 of 64 blocks"), 75),
        (Interrupted("12 of 64 blocks"), 130),
        (KeyboardInterrupt(), 130),
        (MemoryError(), 6),
        (OSError(28, "No space left on device"), 6),
        (ZeroDivisionError("oh"), 1),
        (OSError(13, "Permission denied"), 1),
    ],
)
def test_errors_become_exit_codes(job: dict[str, Any], error: BaseException, code: int):
    def fail(*args: Any, **given: Any) -> Any:
        raise error

    job["does"] = fail
    result = run("predict", "a.tif", "--task", "em")
    assert result.exit_code == code
    assert code in EXIT_CODES
    assert result.stdout == ""
    assert ("Traceback" in result.stderr) == (code == 1)
    assert ("this is a bug of unetctl" in result.stderr) == (code == 1)


def test_an_error_says_seen_expected_hint_in_one_line(job: dict[str, Any]):
    def fail(*args: Any, **given: Any) -> Any:
        raise UsageError("tile core 190", "a multiple of 16", "use 192") from ValueError("deep down")

    job["does"] = fail
    result = run("predict", "a.tif", "--task", "em", "--core", "190")
    assert result.stderr == "error: tile core 190; expected a multiple of 16; use 192\n"
    assert "deep down" in run("predict", "a.tif", "--task", "em", "--verbose").stderr
    lines = run("predict", "a.tif", "--task", "em", "--log-format", "json").stderr.splitlines()
    told = json.loads(lines[0])
    assert told["event"] == "error"
    assert (told["seen"], told["hint"], told["exit_code"]) == ("tile core 190", "use 192", 2)


@pytest.mark.parametrize(
    "args",
    [
        ["--keep", "objects"],
        ["--existing", "ask"],
        ["--part", "0/3"],
        ["--part", "4/3"],
        ["--part", "x"],
        ["--part", "auto"],
        ["--part", "1/2", "--fresh"],
        ["--part", "1/2", "--cluster", "local:2"],
        ["--memory", "lots"],
        ["--threshold", "2"],
        ["--channel", "red"],
        ["--core", "0"],
        ["--no-such-option"],
    ],
)
def test_wrong_options_are_usage_errors(job: dict[str, Any], args: list[str]):
    result = run("predict", "a.tif", "--task", "em", *args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert not job["calls"]


def test_predict_hands_everything_over(job: dict[str, Any]):
    job["does"] = reporting()
    words = (
        "predict a.tif b.tif --task em -o out --keep mask --threshold 0.3 --part 2/5 --device cpu --precision fp32"
        " --memory 4GiB --core 256 --block 2048 --batch 3 --existing skip --on-error abort --max-failed 10%"
        " --axes zyx --channel 0,2 --series 1 --time 4 --nonfinite refuse --stats old.run"
        " --weights w.safetensors --set a.b=c --set d.e=f --verify --verify-seams --keep-store"
        " --recursive --pages --pdf-dpi 200 --format tiff --checksums --scale 1.5"
    )
    assert run(*words.split()).exit_code == 0
    ((args, given),) = job["calls"]
    assert args[:2] == (["a.tif", "b.tif"], "em")
    told = vars(args[2])
    assert told == {
        "output": Path("out"), "name": None, "keep": "mask", "threshold": 0.3, "part": (2, 5), "device": "cpu", "precision": "fp32",
        "memory_bytes": 4 << 30, "scheduler_bytes": None, "core": 256, "block": 2048, "batch": 3, "fresh": False,
        "existing": "skip", "axes": "zyx", "channels": (0, 2), "series": 1, "time": 4, "scale": 1.5, "nonfinite": "refuse",
        "statistics_from": Path("old.run"), "verify": True, "keep_store": True,
    }  # fmt: skip
    passed = {k: v for k, v in given.items() if k not in ("emit", "should_stop", "on_report")}
    assert passed == {
        "overrides": ("a.b=c", "d.e=f"), "weights": "w.safetensors", "on_error": "abort", "max_failed": "10%",
        "verify_seams": True, "cluster": None,
        "page_options": PageOptions(recursive=True, format="tiff", pdf_dpi=200.0, checksums=True, as_pages=True),
    }  # fmt: skip


def test_without_options_everything_is_left_to_the_plan(job: dict[str, Any]):
    from unetctl.jobs.predict import PredictOptions

    job["does"] = reporting()
    run("predict", "a.tif", "--task", "em")
    assert job["calls"][0][0][2] == PredictOptions()


def test_paths_go_to_stdout_and_the_summary_to_stderr(job: dict[str, Any]):
    job["does"] = reporting(done(warnings=("look at this",)))
    result = run("predict", "a.tif", "--task", "em")
    assert result.exit_code == 0
    assert result.stdout == "a.tif-out.tif\n"
    warning, summary = result.stderr.splitlines()
    assert warning == "warning: look at this"
    assert summary == "a.tif-out.tif: 4 Mpx in 2.0 s, 2 Mpx/s; peak memory 2 MiB, 3 MiB projected"
    quiet = run("predict", "a.tif", "--task", "em", "--quiet")
    assert (quiet.stdout, quiet.stderr) == ("a.tif-out.tif\n", "warning: look at this\n")


def test_summaries_tell_resumed_finished_and_partial_work(job: dict[str, Any]):
    job["does"] = reporting(
        done(num_computed=1), done(status="nothing-new", num_computed=0), done(details={"part": [2, 5]})
    )
    lines = run("predict", "a", "b", "c", "--task", "em").stderr.splitlines()
    assert "(1 block, 3 done before)" in lines[0]
    assert "nothing new, all 4 blocks were done before" in lines[1]
    assert lines[2].startswith("part 2/5 of a.tif-out.tif: 4 Mpx")
    assert lines[2].endswith("when all parts are done: unetctl stitch a.tif-out.tif")
    assert lines[3] == "3 inputs: 2 done, 1 had nothing new"


def test_json_gives_one_object_a_line(job: dict[str, Any]):
    job["does"] = reporting(done(), done("b.tif", status="failed", error="cut short", details={"exit_code": 4}))
    result = run("predict", "a.tif", "b.tif", "--task", "em", "--json", "--log-format", "json")
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(t["input"], t["status"]) for t in told] == [("a.tif", "done"), ("b.tif", "failed")]
    log = [json.loads(line) for line in result.stderr.splitlines()]
    assert {"time", "event"} <= log[0].keys()
    assert [e["event"] for e in log] == ["report", "note", "report", "error", "error"]
    assert result.exit_code == 3


def test_some_failed_is_three(job: dict[str, Any]):
    failed = done("b.tif", status="failed", error="it is cut short", details={"exit_code": 4})
    job["does"] = reporting(done(), failed)
    result = run("predict", "a.tif", "b.tif", "--task", "em")
    assert result.exit_code == 3
    assert result.stdout == "a.tif-out.tif\n"
    assert "error: b.tif: it is cut short" in result.stderr
    assert "2 inputs: 1 done, 1 failed (b.tif)" in result.stderr


def test_a_warning_is_said_once(job: dict[str, Any]):
    def does(*args: Any, emit: Any, on_report: Any, **given: Any) -> list[RunReport]:
        emit(Note("the scale differs", "warning"))
        emit(Note("decided so", "info"))
        emit(Note("in depth", "detail"))
        on_report(done(warnings=("the scale differs",)))
        return [done()]

    job["does"] = does
    text = run("predict", "a.tif", "--task", "em").stderr
    assert text.count("the scale differs") == 1
    assert "decided so" in text
    assert "in depth" not in text
    assert "in depth" in run("predict", "a.tif", "--task", "em", "-v").stderr
    assert run("predict", "a.tif", "--task", "em", "-q").stderr == "warning: the scale differs\n"


def test_a_dry_run_prints_plans_and_runs_nothing(job: dict[str, Any]):
    class Summary:
        def lines(self) -> list[str]:
            return ["input  a.tif", "work   4 blocks"]

        def to_dict(self) -> dict[str, Any]:
            return {"num_blocks": 4}

    job["does"] = lambda *args, **given: [Summary(), Summary()]
    result = run("predict", "a.tif", "b.tif", "--task", "em", "--dry-run")
    assert result.stdout == "input  a.tif\nwork   4 blocks\n\ninput  a.tif\nwork   4 blocks\n"
    assert "on_report" not in job["calls"][0][1]
    result = run("predict", "a.tif", "b.tif", "--task", "em", "--dry-run", "--json")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [{"num_blocks": 4}] * 2


def test_a_job_array_is_recognised(job: dict[str, Any]):
    job["does"] = reporting()
    array: dict[str, str | None] = {
        "SLURM_ARRAY_TASK_ID": "6", "SLURM_ARRAY_TASK_MIN": "2", "SLURM_ARRAY_TASK_MAX": "8",
        "SLURM_ARRAY_TASK_STEP": "2", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_MEM_PER_NODE": "2048",
    }  # fmt: skip
    result = run("predict", "a.tif", "--task", "em", "--part", "auto", env=array)
    assert result.stderr == "part 3/4 of the job array\n"
    options = job["calls"][0][0][2]
    assert (options.part, options.scheduler_bytes) == ((3, 4), 2 << 30)
    result = run("predict", "a.tif", "--task", "em", env=array)
    assert result.stderr.startswith(
        "warning: this is a task of a job array (SLURM: SLURM_ARRAY_TASK_ID=6) without --part"
    )
    assert len(result.stderr.splitlines()) == 1
    assert job["calls"][1][0][2].part is None


def test_stitch_tells_what_is_missing_and_what_is_done(job: dict[str, Any]):
    report = RunReport("stitch", "x.ome.tif", "x.ome.tif", "done", 4, 4, elapsed_s=1.5)
    job["does"] = lambda *args, **given: report
    result = run("stitch", "x.ome.tif", "-o", "y.ome.tif", "--verify")
    assert (result.exit_code, result.stdout) == (0, "x.ome.tif\n")
    args, given = job["calls"][0]
    assert (args[0], given["to"], given["verify"], given["keep_store"]) == (
        Path("x.ome.tif"),
        Path("y.ome.tif"),
        True,
        False,
    )

    def missing(*args: Any, **given: Any) -> Any:
        raise IncompleteError("2 of 4 blocks are missing", "all blocks done", "compute part 2/2: unetctl predict ...")

    job["does"] = missing
    result = run("stitch", "x.ome.tif")
    assert result.exit_code == 3
    assert "compute part 2/2: unetctl predict" in result.stderr


def test_file_names_cannot_take_over_the_terminal(job: dict[str, Any]):
    job["does"] = reporting(done(warnings=("\x1b[2Jgone",)))
    assert "\x1b" not in run("predict", "a.tif", "--task", "em").stderr
