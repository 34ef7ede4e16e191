"""`predict` by force: killed, crowded, out of disk, damaged. In the end the bytes are those of an undisturbed run."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fcntl", reason="locks and signals as POSIX has them")

from tests.processes import PROJECT, Accident, Command, Content, Result, content, litter, run

SHAPE = (1, 2060, 24)
"""Of the stack: high enough for a pyramid of two levels, 9 blocks, 8 pyramid shards."""
TIFF, ZARR = "o.ome.tif", "o.ome.zarr"


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Callable[..., list[str]]:
    """Puts the stack into a folder and gives the command that predicts it."""
    stack = np.random.default_rng(4).integers(0, 256, SHAPE, dtype=np.uint8)

    def command(folder: Path, output: str, *options: str) -> list[str]:
        if not (folder / "in.npy").exists():
            np.save(folder / "in.npy", stack)
        words = ["predict", "in.npy", "--task", str(tiny_weights), "-o", output, "--axes", "zyx", "--core", "128"]
        return [*words, "--block", "256", "--precision", "fp32", "--json", *options]

    return command


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., list[str]]) -> dict[str, Content]:
    """What the two outputs are when nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    found = {}
    for name in (TIFF, ZARR):
        result = run(folder, *make(folder, name))
        assert (result.code, json.loads(result.out)["num_computed"]) == (0, 9), result.err
        found[name] = content(folder / name)
    assert litter(folder) == []
    return found


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def assert_finishes(folder: Path, command: list[str], wanted: Content, num_computed: int | None = None) -> None:
    """The same command now gives the undisturbed output and leaves nothing else behind."""
    result = run(folder, *command)
    assert result.code == 0, result.err
    assert content(folder / command[command.index("-o") + 1]) == wanted
    assert litter(folder) == []
    if num_computed is not None:
        assert json.loads(result.out)["num_computed"] == num_computed


def assert_full(result: Result) -> None:
    """Exit code 6 and one clear message."""
    assert result.code == 6, result.err
    (line,) = [line for line in result.err.splitlines() if "error" in line]
    assert "space" in line
    assert "Traceback" not in result.err


# -- moments, in the order in which a run comes to them

BEGINNING = [
    ("plan.json", "open"),
    (".run.partial-", "os.rename"),
    ("run.lock-", "open"),
    ("1/zarr.json", "os.rename"),
    (".partial-", "os.rename"),  # the store is put in place
    ("statistics-", "open"),
    ("/0/c/", "open"),
    ("/0/c/", "os.rename"),
]
PYRAMID = [("journal-pyramid", "open"), ("/1/c/", "os.rename")]
EXPORT = [(f".{TIFF}.partial-", "open"), (f".{TIFF}.partial-", "os.rename")]
ENDING = [("finished.json", "os.rename")]
REMOVAL = [("store.zarr.partial-", "os.rename"), ("store.zarr.partial-", "os.rmdir")]


@pytest.mark.parametrize("name", [TIFF, ZARR])
def test_killed_at_one_moment_after_the_other(here, make, undisturbed, name):
    command = make(here, name)
    moments = BEGINNING + PYRAMID + (EXPORT + ENDING + REMOVAL if name == TIFF else ENDING)
    for i, (where, step) in enumerate(moments):
        result = run(here, *command, accident=Accident("kill", where, step, count=1 + (where == "/0/c/") * (i % 3)))
        assert result.code == -9, (where, step, result)
        if (where, step) not in REMOVAL:
            assert not (here / f"{name}.run" / "finished.json").exists()
    assert_finishes(here, command, undisturbed[name], 0)


@pytest.mark.parametrize("name", [TIFF, ZARR])
def test_killed_at_random_again_and_again(here, make, undisturbed, name):
    command, rng = make(here, name), np.random.default_rng()
    for _ in range(4):
        count = int(rng.integers(1, 80))
        assert run(here, *command, accident=Accident("kill", count=count)).code in (-9, 0), count
    assert_finishes(here, command, undisturbed[name])


@pytest.mark.parametrize("name", [TIFF, ZARR])
def test_starting_over_may_be_killed_as_well(here, make, undisturbed, name):
    command = make(here, name, "--fresh")
    assert run(here, *make(here, name, "--core", "64")).code == 0
    for count in (2, 3, 5, 8):
        assert run(here, *command, accident=Accident("kill", count=count)).code == -9
    assert_finishes(here, command, undisturbed[name], 9)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [TIFF, ZARR])
def test_killed_at_twenty_random_moments(here, make, undisturbed, name):
    command, rng = make(here, name), np.random.default_rng()
    words = [sys.executable, "-m", "unetctl", *command]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}

    def started() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            words, cwd=here, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        return process

    def clear() -> None:
        for path in here.iterdir():
            if path.name != "in.npy":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    begun = time.monotonic()
    assert started().wait() == 0
    whole_s = time.monotonic() - begun
    clear()
    num_killed = 0
    while num_killed < 20:
        process = started()
        time.sleep(float(rng.uniform(0.2, 1)) * whole_s)
        process.kill()
        num_killed += process.wait() == -9
        if (here / name).exists() and rng.uniform() < 0.7:
            assert_finishes(here, command, undisturbed[name])
            clear()
    assert_finishes(here, command, undisturbed[name])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("what", ["kill", "full"])
@pytest.mark.parametrize("name", [TIFF, ZARR])
def test_an_accident_at_every_step(tmp_path, make, undisturbed, name, what):
    for count in range(1, 1000):
        folder = tmp_path / f"step{count}"
        folder.mkdir()
        command = make(folder, name)
        result = run(folder, *command, accident=Accident(what, count=count))
        if result.code == 0:
            break
        if what == "kill":
            assert result.code == -9
        else:
            assert_full(result)
        assert_finishes(folder, command, undisturbed[name])
        shutil.rmtree(folder)
    assert count > 100


# -- damage


@pytest.fixture(scope="module")
def half_done(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., list[str]]) -> Path:
    """A folder whose runs were killed when all blocks were there and nothing else was."""
    folder = tmp_path_factory.mktemp("half")
    for name in (TIFF, ZARR):
        result = run(folder, *make(folder, name), accident=Accident("kill", "journal-pyramid"))
        assert result.code == -9
    return folder


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _tear_last_line(path: Path) -> None:
    path.write_bytes(path.read_bytes().rstrip()[:-20])


def _alter(path: Path) -> None:
    altered = bytearray(path.read_bytes())
    altered[len(altered) // 2] ^= 255
    path.write_bytes(altered)


#: Where, what is done there, and how many blocks must be computed for it.
DAMAGES: dict[str, tuple[str, Callable[[Path], object], int]] = {
    "a truncated shard": ("store/0/c/0/3/0", _truncate, 1),
    "a shard without content": ("store/0/c/0/8/0", lambda p: p.write_bytes(b""), 1),
    "a deleted shard": ("store/0/c/0/0/0", Path.unlink, 1),
    "a folder of shards gone": ("store/0/c", shutil.rmtree, 9),
    "a torn journal": ("run/journal-main.jsonl", _tear_last_line, 1),
    "a journal gone": ("run/journal-main.jsonl", Path.unlink, 9),
    "no store": ("store", shutil.rmtree, 9),
    "torn statistics": ("run/statistics-main.jsonl", _tear_last_line, 0),
    "a leftover of a killed writer": ("store/0/c/0/3/0.12ab.partial", lambda p: p.write_bytes(b"half"), 0),
    "a leftover of a killed process": ("run/.report.json.partial-999999", lambda p: p.write_bytes(b"half"), 0),
}


@pytest.mark.parametrize(
    ("name", "damage"),
    [(n, d) for n in (TIFF, ZARR) for d in DAMAGES if n == TIFF or DAMAGES[d][0].startswith("store")],
)
def test_damage_is_found_and_healed(here, half_done, make, undisturbed, name, damage):
    where, harm, num_computed = DAMAGES[damage]
    shutil.copytree(half_done, here, dirs_exist_ok=True)
    for other in {TIFF, ZARR} - {name}:
        shutil.rmtree(here / f"{other}.run")
        shutil.rmtree(here / other, ignore_errors=True)
    run_folder = here / f"{name}.run"
    store = here / name if name == ZARR else run_folder / "store.zarr"
    first, _, rest = where.partition("/")
    harm({"store": store, "run": run_folder}[first] / rest)
    assert_finishes(here, make(here, name), undisturbed[name], num_computed)


@pytest.mark.parametrize("key", ["0/c/0/4/0", "1/c/0/1/0"])
def test_altered_bytes_are_no_bug_of_ours(here, make, undisturbed, key):
    command = make(here, TIFF)
    assert run(here, *command, accident=Accident("kill", f".{TIFF}.partial-")).code == -9
    _alter(here / f"{TIFF}.run" / "store.zarr" / key)
    result = run(here, *command)
    assert result.code == 6, result
    assert "does not hold what was written to it" in result.err
    assert "add --verify" in result.err
    assert "Traceback" not in result.err
    assert_finishes(here, [*command, "--verify"], undisturbed[TIFF], int(key[0] == "0"))


def test_a_checksum_finds_what_a_size_does_not_show(here, make, undisturbed):
    command = make(here, ZARR)
    assert run(here, *command).code == 0
    for key in ("0/c/0/4/0", "1/c/0/1/0", "2/c/0/0/0"):
        _alter(here / ZARR / key)
    assert json.loads(run(here, *command).out)["status"] == "nothing-new"
    assert_finishes(here, [*command, "--verify"], undisturbed[ZARR], 1)
    command = make(here, TIFF)
    assert run(here, *command).code == 0
    _alter(here / TIFF)
    assert_finishes(here, [*command, "--verify"], undisturbed[TIFF], 9)


# -- several processes


def test_who_comes_second_is_told_who_was_first(here, make, undisturbed):
    command = make(here, TIFF)
    first = Command(here, *command, accident=Accident("hold", "/0/c/", "os.rename", count=3))
    first.wait_until_held()
    for second in (command, [*command, "--fresh"], [*command, "--part", "1/2"], ["stitch", TIFF]):
        result = run(here, *second)
        assert result.code == 75, result
        assert f"{TIFF}.run is in use by predict (process {first.pid} on " in result.err
        assert "run the same command again" in result.err
    first.kill()
    assert first.wait().code == -9
    assert_finishes(here, command, undisturbed[TIFF], 7)


@pytest.mark.parametrize("name", [TIFF, ZARR])
def test_three_parts_at_the_same_moment(here, make, undisturbed, name):
    command = make(here, name)
    parts = [Command(here, *command, "--part", f"{i}/3") for i in (1, 2, 3)]
    results = [part.wait() for part in parts]
    assert [r.code for r in results] == [0, 0, 0], results
    assert sum(json.loads(r.out)["num_computed"] for r in results) == 9
    again = run(here, *command, "--part", "2/3")
    assert (again.code, json.loads(again.out)["status"]) == (0, "nothing-new")
    assert "its blocks were done before" in again.err
    stitched = run(here, "stitch", name)
    assert (stitched.code, stitched.out) == (0, f"{name}\n")
    assert content(here / name) == undisturbed[name]
    late = run(here, *command, "--part", "1/3")
    assert (late.code, json.loads(late.out)["status"]) == (0, "nothing-new")
    assert_finishes(here, command, undisturbed[name], 0)


def test_parts_out_of_order_one_stopped_one_forgotten(here, make, undisturbed):
    command = make(here, TIFF, "--threshold", "0.5", "--set", "output.threshold=0.4")
    assert run(here, *command, "--part", "3/3").code == 0
    stopped = run(here, *command, "--part", "1/3", accident=Accident("term", "journal-part-1"))
    assert stopped.code == 75
    assert "stopped by SIGTERM" in stopped.err
    assert "Traceback" not in stopped.err
    for wrong, told in ((["--part", "1/4"], "begun with 3 parts"), (["--part", "1/3", "--fresh"], "one of them")):
        result = run(here, *command, *wrong)
        assert result.code == 2
        assert told in result.err
    early = run(here, "stitch", TIFF)
    assert early.code == 3
    assert "compute part 1/3, 2/3: " in early.err
    # The command that is named works as it stands; then the next is named.
    for part in ("1/3", "2/3"):
        named = run(here, "stitch", TIFF).err
        words = shlex.split(named[named.index("unetctl predict") :])
        assert words[-2:] == ["--part", part]
        assert run(here, *words[1:]).code == 0
    assert run(here, "stitch", f"{TIFF}.run").code == 0
    plain = make(here, "plain.ome.tif", "--threshold", "0.5", "--set", "output.threshold=0.4")
    assert run(here, *plain).code == 0
    assert content(here / TIFF) == content(here / "plain.ome.tif")
    assert content(here / TIFF) != undisturbed[TIFF]  # another recipe, another fingerprint in the metadata


@pytest.mark.parametrize("where", ["statistics-", "/1/c/", f".{TIFF}.partial-"])
def test_asked_to_stop_it_stops_cleanly_and_goes_on(here, make, undisturbed, where):
    command = make(here, TIFF)
    stopped = run(here, *command, accident=Accident("term", where))
    assert stopped.code == 75, stopped
    assert "run the same command again to go on" in stopped.err
    assert not (here / TIFF).exists()
    assert_finishes(here, command, undisturbed[TIFF])


# -- a full disk


def test_full_at_one_moment_after_the_other(here, make, undisturbed):
    command = make(here, TIFF)
    blocks, pyramid = ["store.zarr.partial-", "journal-main", "statistics-", "/0/c/"], ["journal-pyramid", "/1/c/"]
    for where in ("plan.json", *blocks, *pyramid, f".{TIFF}.partial-", "finished.json"):
        assert_full(run(here, *command, accident=Accident("full", where, "open")))
        assert not (here / f"{TIFF}.run" / "finished.json").exists()
    assert_finishes(here, command, undisturbed[TIFF], 0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("no mount command here")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], check=False, capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no small file system can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_really_full(small_disk, tmp_path, make):
    command = make(small_disk, TIFF, "--keep", "logits")
    assert run(small_disk, *command, "--keep-store").code == 0
    wanted = content(small_disk / TIFF)
    store = sum(p.stat().st_blocks * 512 for p in (small_disk / f"{TIFF}.run").rglob("*"))
    (small_disk / TIFF).unlink()
    shutil.rmtree(small_disk / f"{TIFF}.run")
    ballast, size = small_disk / "ballast", 0
    computed: list[Any] = []
    for room in (store // 3, store * 2 // 3, store + len(wanted) // 2):
        used = sum(p.stat().st_blocks * 512 for p in small_disk.rglob("*") if p.is_file() and p != ballast)
        size = max(0, (1 << 20) - room - (used if not computed else os.path.getsize(small_disk / "in.npy")))
        ballast.write_bytes(b"\0" * size)
        result = run(small_disk, *command)
        assert_full(result)
        assert not (small_disk / TIFF).exists()
        journal = small_disk / f"{TIFF}.run" / "journal-main.jsonl"
        computed.append(journal.read_bytes().count(b"\n") if journal.exists() else 0)
    assert 0 < computed[0] < computed[1] <= computed[2] == 9
    assert f"error: {TIFF} could not be written" in result.err
    ballast.unlink()
    assert_finishes(small_disk, command, wanted, 0)
