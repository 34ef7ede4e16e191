"""Which files a command about pages means, what their outputs are called, and that nothing meets or is overwritten."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.page_source_files import text_page
from unetctl.errors import InputError, UsageError
from unetctl.jobs.api import dry_run, predict
from unetctl.jobs.pages.inputs import listed_inputs, page_sets
from unetctl.jobs.stitch import stitch_output
from unetctl.runtime.report import RunReport

Predict = Callable[..., list[RunReport]]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in test_pages."""
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(page_weights: Path) -> Predict:
    """Predicts inputs."""
    return lambda inputs, **options: predict(inputs, page_weights, **{"precision": "fp32", **options})


def page(path: str | Path, seed: int = 0, size: tuple[int, int] = (40, 50)) -> Path:
    """A file of one page."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = None if path.suffix.lower() in (".png", ".jpg", ".tif") else "PNG"
    with path.open("wb") as file:
        Image.fromarray(text_page(size, seed)).save(
            file, kind or {"jpg": "JPEG", "tif": "TIFF"}.get(path.suffix[1:], "PNG")
        )
    return path


def results(reports: list[RunReport]) -> dict[str, str]:
    """Input to output, or to the status of what has none."""
    return {r.input: r.output or r.status for r in reports}


# -- what is meant


def test_what_is_named_twice_counts_once(run):
    page("scans/a.png"), page("scans/b.png", 1)
    os.symlink("scans", "link")
    assert len(run(["scans", "scans/", "./scans", "link"], output="out")) == 2
    reports = run(["scans/a.png", "./scans/a.png", str(Path("scans/a.png").absolute()), "scans/b.png"], output="loose")
    assert results(reports) == {"scans/a.png": "loose/a.png", "scans/b.png": "loose/b.png"}


def test_links_are_followed_and_what_they_miss_is_told(run):
    page("elsewhere/a.png")
    Path("scans").mkdir()
    os.symlink("../elsewhere/a.png", "scans/a.png")
    os.symlink("nowhere.png", "scans/b.png")
    reports = {Path(r.input).name: r for r in run("scans")}
    assert reports["a.png"].output == "scans-ink/a.png"
    assert not Path("scans-ink/a.png").is_symlink()
    assert "cannot be found" in reports["b.png"].error


@pytest.mark.parametrize("output", ["scans/out", "scans/deep/out", None])
def test_outputs_inside_the_folder_of_the_inputs_are_no_inputs(run, output, monkeypatch):
    page("scans/a.png"), page("scans/deep/b.png", 1)
    inputs = "scans"
    if output is None:
        monkeypatch.chdir("scans")
        inputs = "."
    first = run(inputs, recursive=True, output=output)
    assert len(first) == 2
    assert {r.status for r in run(inputs, recursive=True, output=output)} == {"nothing-new"}
    assert len(run(inputs, recursive=True, output=output)) == 2


def test_nothing_is_written_beside_inputs(run):
    page("scans/a.png"), page("scans/deep/b.png", 1)
    os.symlink("scans", "link")
    for output in ("scans", "link", "./scans/deep/.."):
        with pytest.raises(UsageError, match="is the folder of the inputs"):
            run("scans", output=output)
    with pytest.raises(UsageError, match=r"holds pages of the input \(b.png\)"):
        run("scans", output="scans/deep", recursive=True)
    Path("taken").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        run("scans", output="taken")
    with pytest.raises(UsageError, match="expected the name of a folder; -o out"):
        run("scans", output="out.tif")
    with pytest.raises(UsageError, match="for 2 inputs"):
        run(["scans/a.png", "scans/deep/b.png"], output="out.tif")


def test_dots_are_folders_like_any_other(run, tmp_path, monkeypatch):
    page("scans/a.png"), page("scans/b.png", 1)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "in" / "deep")
    found = run(["../../scans/a.png", "../../scans/b.png"], output=Path())
    assert [r.status for r in found] == ["done"] * 2
    assert sorted(p.name for p in Path().iterdir()) == ["a.png", "b.png"]
    assert (tmp_path / "in" / "deep.run" / "summary.json").is_file()
    again = run(["../../scans/a.png", "../../scans/b.png"], output=tmp_path / "in" / "deep")
    assert [r.status for r in again] == ["nothing-new"] * 2
    assert [r.status for r in run("../../scans", output=Path(".."))] == ["done"] * 2
    assert (tmp_path / "in.run" / "summary.json").is_file()
    assert not list(Path().glob("*.run"))
    with pytest.raises(UsageError, match="-o /"):
        run("../../scans", output=Path("/"))


def test_what_pages_have_no_use_for_is_refused_and_not_passed_over(run, page_weights):
    page("scans/a.png")
    given: dict[str, Any] = {
        "series": 1,
        "time": 2,
        "axes": "yx",
        "statistics_from": Path("nowhere"),
        "keep_store": True,
    }
    for name, value in given.items():
        word = {"statistics_from": "stats"}.get(name, name.replace("_", "-"))
        with pytest.raises(UsageError, match=f"--{word} for pages; expected a volume"):
            run("scans", **{name: value})
        with pytest.raises(UsageError, match=f"--{word} for pages"):
            dry_run("scans", page_weights, **{name: value})
    assert not Path("scans-ink").exists()


def test_empty_folders_and_patterns_are_told(run):
    Path("empty").mkdir()
    Path("outer/inner").mkdir(parents=True)
    page("outer/inner/x.png")
    with pytest.raises(InputError, match="empty holds no pages"):
        run("empty")
    with pytest.raises(InputError, match="--recursive"):
        run("outer")
    with pytest.raises(InputError, match="nothing matches"):
        run("*.png")
    assert results(run("out*", recursive=True)) == {
        "outer/inner/x.png": "outer-ink/inner/x.png"
    }  # a folder, by pattern
    reports = run(["outer/inner/x.png", "gone[1].png"], output="o")
    assert results(reports) == {"outer/inner/x.png": "o/outer/inner/x.png", "gone[1].png": "failed"}


def test_a_folder_that_cannot_be_listed_is_one_failure(run, monkeypatch):
    page("scans/a.png"), page("scans/locked/b.png")
    listed = os.scandir

    def scandir(path: object) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return listed(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", scandir)
    reports = {Path(r.input).name: r for r in run("scans", recursive=True)}
    assert reports["a.png"].status == "done"
    assert "locked cannot be read (Permission denied)" in reports["locked"].error
    assert reports["locked"].details["exit_code"] == 4


def test_lists_hold_any_name():
    data = "\ufeffa b.png\r\n\n# no\n  # no\nü\u2028x.png\nbad\udcff.png\n#".encode("utf-8", "surrogateescape")
    assert listed_inputs(data) == ["a b.png", "ü\u2028x.png", "bad\udcff.png"]


def test_a_list_from_a_file_and_from_stdin(page_weights):
    names = ["one.png", "two words.png", "-x.png", os.fsdecode(b"\xff\xfe.png")]
    for i, name in enumerate(names):
        page(name, i)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "unetctl",
        "predict",
        "--task",
        str(page_weights),
        "--json",
        "--checksums",
        "-o",
        "out",
    ]
    told = subprocess.run(
        [*command, "-"], input=b"\n".join(map(os.fsencode, names)), capture_output=True, env=env, check=True
    )
    assert b"Traceback" not in told.stderr
    assert len(told.stdout.splitlines()) == 4
    assert sorted(os.listdir("out")) == sorted(names)
    subprocess.run(["sha256sum", "--check", "--quiet", "../out.sha256"], cwd="out", check=True)
    Path("list").write_bytes(b"\n".join(map(os.fsencode, names)))
    again = subprocess.run([*command, "--list", "list", "--quiet"], capture_output=True, env=env, check=True)
    assert again.stdout == b""
    assert json.loads(Path("out.run/summary.json").read_text())["details"]["num_unchanged"] == 4


# -- what outputs are called

NAMES = st.lists(
    st.text("ab.", min_size=1, max_size=4).map(lambda s: s.strip(".") or "a").flatmap(
        lambda s: st.sampled_from(["", ".png", ".jpg", ".PNG", ".tif", ".7"]).map(lambda e: s + e)
    ),
    min_size=1, max_size=12, unique=True,
)  # fmt: skip


@settings(max_examples=40)
@given(NAMES)
def test_no_two_outputs_meet_whatever_their_kinds(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("names")
    for name in names:
        (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    files = page_sets([str(folder)], "ink")[0].files
    assert len({str(f.stem) for f in files}) == len(names)
    # what others there are decides whether a name is whole, not what it is then
    for file, name in zip(files, [f.name for f in files], strict=True):
        assert str(file.stem) in (name, os.path.splitext(name)[0])


def test_names_that_are_only_dots_and_numbers_keep_them(run):
    page("scans/Nr. 5"), page("scans/scan.001", 1), page("scans/scan.002", 2)
    assert sorted(Path(r.output).name for r in run("scans")) == ["Nr. 5.png", "scan.001.png", "scan.002.png"]


def test_a_name_that_grows_too_long_fails_alone(run):
    page("scans/" + "x" * 251 + ".png")
    page("scans/" + "y" * 253)
    reports = {Path(r.input).name[0]: r for r in run("scans")}
    assert reports["x"].status == "done"
    assert reports["y"].status == "failed"
    assert "File name too long" in reports["y"].error


def test_names_stay_when_others_come(run):
    page("scans/p.png")
    assert results(run("scans")) == {"scans/p.png": "scans-ink/p.png"}
    page("scans/p.jpg", 1)
    assert results(run("scans")) == {"scans/p.png": "scans-ink/p.png", "scans/p.jpg": "scans-ink/p.jpg.png"}


def test_folders_of_one_name_do_not_meet(run):
    page("a/scans/p.png"), page("b/scans/p.png", 1)
    reports = run(["a/scans", "b/scans"])
    assert sorted(r.output for r in reports) == ["a/scans-ink/p.png", "b/scans-ink/p.png"]
    assert sorted(r.output for r in run(["a/scans", "b/scans"], output="o")) == ["o/a/scans/p.png", "o/b/scans/p.png"]
    run("a/scans", output="here")
    with pytest.raises(UsageError, match=r"here.run is a run of the folder .*/a/scans"):
        run("b/scans", output="here")
    shutil.move("a/scans", "moved")  # the same folder elsewhere
    assert {r.status for r in run("moved", output="here")} == {"nothing-new"}


def test_loose_files_of_one_name_in_two_commands_do_not_meet(run):
    page("a/p.png"), page("b/p.png", 1)
    first = run("a/p.png")[0]
    before = Path(first.output).read_bytes()
    with pytest.raises(UsageError, match=r"p-ink.png is the output of a/p.png too"):
        run("b/p.png")
    Path("o").mkdir()
    assert run("a/p.png", output="o")[0].output == "o/p.png"
    assert run("b/p.png", output="o")[0].output == "o/p.png.png"
    with pytest.raises(UsageError):
        run("b/p.png", output="p-ink.png")
    assert Path(first.output).read_bytes() == before


def test_a_file_and_a_folder_of_one_name_do_not_meet(run):
    page("p/x.png"), page("p.png", 1), page("x.png", 2)
    assert results(run("p")) == {"p/x.png": "p-ink/x.png"}
    assert results(run("p.png")) == {"p.png": "p-ink.png"}
    # the x.png that is an output lies in another folder; p-ink.png belongs to the command for p.png alone
    assert results(run("?.png")) == {"p.png": "failed", "x.png": "x-ink.png"}


def test_an_output_of_another_kind_takes_the_place_of_the_former(run):
    page("scans/p.png")
    run("scans")
    first, second = (Image.fromarray(text_page((30, 40), i)) for i in range(2))
    first.save("scans/p.png", "TIFF", save_all=True, append_images=[second])
    assert results(run("scans")) == {"scans/p.png": "scans-ink/p.tif"}
    assert os.listdir("scans-ink") == ["p.tif"]


def test_a_file_that_is_broken_for_a_while_gets_its_output_back(run):
    sound = page("scans/p.png").read_bytes()
    page("scans/q.png", 1)
    before = run("scans")[0].output
    Path("scans/p.png").write_bytes(sound[:60])
    assert [r.status for r in run("scans")].count("failed") == 1
    page("scans/p.png", 5)
    assert results(run("scans"))["scans/p.png"] == before


def test_stitching_pages_is_refused_in_a_sentence(run):
    page("scans/p.png")
    run("scans")
    for name in ("scans-ink", "scans-ink.run"):
        with pytest.raises(UsageError, match="are complete as they are") as caught:
            stitch_output(Path(name))
        assert caught.value.exit_code == 2
