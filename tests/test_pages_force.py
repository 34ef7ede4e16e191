"""Documents under force: kills at any moment, signals, full disks, two processes on one output."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.page_source_files import text_page
from unetctl.errors import BusyError, ResourceError
from unetctl.jobs.api import predict
from unetctl.jobs.pages.ledger import Ledger, PageRecord, read_ledger
from unetctl.jobs.pages.results import FileResult
from unetctl.jobs.pages.run import PageRun
from unetctl.jobs.pages.shares import Shares
from unetctl.runtime.locks import RunLock
from unetctl.runtime.report import RunReport
from unetctl.runtime.run_folder import RunFolder
from unetctl.sinks.page import Page

Predict = Callable[..., list[RunReport]]
ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and locks")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in test_pages."""
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(page_weights: Path) -> Predict:
    """Predicts inputs."""
    return lambda inputs, **options: predict(inputs, page_weights, **{"precision": "fp32", **options})


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True, check=False
    ).returncode:
        pytest.skip("mounting a small disk needs rights that this machine does not give")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def folder_of(num: int, size: tuple[int, int] = (150, 200)) -> Path:
    """Pages, of which every fifth is a file of three."""
    folder = Path("scans")
    folder.mkdir()
    for i in range(num):
        pages = [Image.fromarray(text_page(size, 3 * i + k)) for k in range(3 if i % 5 == 0 else 1)]
        if len(pages) > 1:
            pages[0].save(folder / f"p{i}.tif", save_all=True, append_images=pages[1:], dpi=(300, 300))
        else:
            pages[0].save(folder / f"p{i}.png", dpi=(300, 300))
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def environment() -> dict[str, str]:
    """Of processes that are started."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def killed(weights: Path, folder: Path, output: str, seconds: float, kills: int, seed: int) -> dict[str, Any]:
    """See `tests.page_force_driver`."""
    words = [weights, folder, output, seconds, kills, seed]
    told = subprocess.run(
        [sys.executable, "-m", "tests.page_force_driver", *map(str, words)],
        capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr[-2000:]
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def assert_killed_runs_end_alike(run: Predict, weights: Path, num: int, kills: int) -> None:
    folder = folder_of(num)
    since = time.monotonic()
    run(folder, output="whole", checksums=True)
    seconds = max(0.5, time.monotonic() - since)
    told = killed(weights, folder, "cut", 2 * seconds / kills, kills, 7)
    assert told["status"] == 0
    assert told["killed"] > kills // 3
    assert tree(Path("cut")) == tree(Path("whole"))
    assert Path("cut.sha256").read_bytes() == Path("whole.sha256").read_bytes()
    assert not [p for p in Path("cut.run").iterdir() if p.name.startswith(("spool-", "large-", "."))]


def test_a_killed_run_goes_on_and_no_half_page_is_ever_seen(run, page_weights):
    assert_killed_runs_end_alike(run, page_weights, 10, 4)


@pytest.mark.slow
def test_a_run_killed_many_times_ends_with_the_same_bytes(run, page_weights):
    assert_killed_runs_end_alike(run, page_weights, 60, 30)


def test_an_output_whose_process_was_killed_before_it_said_so_is_ours(run, monkeypatch):
    folder = folder_of(3)
    run(folder, output="whole")

    def dies(self: Ledger, record: PageRecord) -> None:
        if record.status == "done":
            raise KeyboardInterrupt
        mark(self, record)

    mark = Ledger.mark
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "mark", dies)
        with pytest.raises(KeyboardInterrupt):
            run(folder, output="cut")
    assert len(tree(Path("cut"))) == 1
    assert {r.status for r in run(folder, output="cut")} == {"done"}
    assert tree(Path("cut")) == tree(Path("whole"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
@pytest.mark.usefixtures("heeded_signals")
def test_signals_end_a_run_cleanly_and_a_second_process_is_refused_meanwhile(page_weights, run, number, code):
    folder = folder_of(60, (260, 300))
    command = [
        sys.executable,
        "-m",
        "unetctl",
        "predict",
        str(folder),
        "--task",
        str(page_weights),
        "--precision",
        "fp32",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())
    while not (Path("scans-ink").is_dir() and any(Path("scans-ink").glob("*.*"))):
        assert process.poll() is None
        time.sleep(0.02)
    with pytest.raises(BusyError, match=rf"scans-ink.run is in use by predict \(process {process.pid} on "):
        run(folder)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code
    assert "files of scans-ink are done; run the same command again" in told
    summary = json.loads(Path("scans-ink.run/summary.json").read_text())
    assert summary["status"] == "stopped"
    assert not [p for p in tree(Path("scans-ink")) if Path(p).name.startswith(".")]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
def test_a_full_disk_is_said_once_and_the_run_goes_on_when_there_is_room(run, full_disk, share):
    folder = folder_of(8, (300, 400))
    run(folder, output="whole", keep="probability")
    whole = tree(Path("whole"))
    ballast, room = full_disk / "ballast", int(share * sum(map(len, whole.values())))
    ballast.write_bytes(bytes(shutil.disk_usage(full_disk).free // 4096 * 4096 - room))
    with pytest.raises(ResourceError, match="could not be written"):
        run(folder, output=full_disk / "out", keep="probability")
    seen = tree(full_disk / "out") if (full_disk / "out").is_dir() else {}
    assert all(data == whole[name] for name, data in seen.items())
    ballast.unlink()
    assert {r.status for r in run(folder, output=full_disk / "out", keep="probability")} <= {"done", "nothing-new"}
    assert tree(full_disk / "out") == whole


def test_two_parts_at_once_make_the_whole(run, page_weights):
    folder = folder_of(9)
    run(folder, output="whole", checksums=True)
    command = [
        sys.executable,
        "-m",
        "unetctl",
        "predict",
        str(folder),
        "--task",
        str(page_weights),
        "--precision",
        "fp32",
    ]
    command += ["-o", "parts", "--checksums", "--quiet"]
    parts = [
        subprocess.Popen([*command, "--part", f"{i}/2"], env=environment(), stdout=subprocess.PIPE) for i in (1, 2)
    ]
    outputs = [part.communicate(timeout=90)[0].decode().split() for part in parts]
    assert [part.returncode for part in parts] == [0, 0]
    assert sorted(outputs[0] + outputs[1]) == sorted(f"parts/{name}" for name in tree(Path("whole")))
    assert tree(Path("parts")) == tree(Path("whole"))
    assert Path("parts.sha256").read_bytes() == Path("whole.sha256").read_bytes()
    assert {r.status for r in run(folder, output="parts")} == {"nothing-new"}


def test_what_changed_and_vanished_inputs_have_left_is_swept(run, monkeypatch):
    folder = folder_of(6)
    monkeypatch.setattr("unetctl.jobs.pages.run._GROUP_PAGES", 1)
    add = FileResult.add

    def does_nothing(self: PageRun, todo: object) -> bool:
        return True

    def second_page(self: FileResult, i_page: int, page: Page) -> None:
        if i_page == 1:
            raise KeyboardInterrupt
        add(self, i_page, page)

    with monkeypatch.context() as patch:
        patch.setattr(FileResult, "add", second_page)
        with pytest.raises(KeyboardInterrupt):
            run(folder, output="out")
    (spool,) = Path("out.run").glob("spool-*")
    (Path("out.run") / f"large-{'0' * 16}-x.zarr").mkdir()
    shutil.copy(folder / "p5.tif", folder / "p0.tif")
    with monkeypatch.context() as patch:
        patch.setattr("unetctl.jobs.pages.run.PageRun._work", does_nothing)
        run(folder, output="out")
    assert not spool.exists()
    assert not list(Path("out.run").glob("large-*"))
    assert {r.status for r in run(folder, output="out")} == {"done"}
    assert {r.status for r in read_ledger(Path("out.run"))} == {"done"}


def test_pages_that_a_power_failure_has_left_half_are_made_anew(run, monkeypatch):
    Path("scans").mkdir()
    pages = [Image.fromarray(text_page((150, 200), i)) for i in range(2)]
    pages[0].save("scans/p0.tif", save_all=True, append_images=pages[1:])

    def cut(self: FileResult, provenance: str) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FileResult, "finish", cut)
        with pytest.raises(KeyboardInterrupt):
            run("scans", output="out")
    (page,) = Path("out.run").glob("spool-*/page-000001.*")
    page.write_bytes(page.read_bytes()[:100])
    (first,) = run("scans", output="out")
    assert first.status == "failed"
    (second,) = run("scans", output="out")
    assert second.status == "done"


def test_the_store_of_a_page_whose_file_was_done_just_then_is_swept(run, monkeypatch):
    Path("scans").mkdir()
    Image.fromarray(text_page((400, 300), 1)).save("scans/p.png")
    monkeypatch.setattr(Shares, "of", staticmethod(lambda budget, of=Shares.of: replace(of(budget), page=0)))

    def dies(self: RunFolder) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "remove", dies)
        with pytest.raises(KeyboardInterrupt):
            run("scans", output="out")
    assert list(Path("out.run").glob("large-*"))
    assert Path("out").is_dir()
    assert {r.status for r in run("scans", output="out")} == {"nothing-new"}
    assert not list(Path("out.run").glob("large-*"))


def test_a_lock_of_ours_is_no_obstacle_once_its_process_is_gone(run):
    folder = folder_of(1)
    run(folder)
    with RunLock(Path("scans-ink.run"), shared=False, who="predict"), pytest.raises(BusyError):
        run(folder)
    assert {r.status for r in run(folder)} == {"nothing-new"}
