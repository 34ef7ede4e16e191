"""What predict must never do: write over an input, lose a file that somebody changed, take one process for another."""

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from typer.testing import CliRunner

from unetctl.cli.app import app
from unetctl.errors import InputError, ResourceError, Stopped, UsageError
from unetctl.jobs.api import dry_run, predict, stitch
from unetctl.jobs.corpus import predict_all
from unetctl.jobs.options import PredictOptions
from unetctl.jobs.outputs import absolute_input
from unetctl.jobs.stitch import stitch_output
from unetctl.runtime import locks
from unetctl.runtime.events import Event
from unetctl.runtime.journal import BlockRecord, Journal, records_by_index
from unetctl.runtime.report import RunReport
from unetctl.runtime.run_folder import RunFolder

Predict = Callable[..., RunReport]


@pytest.fixture
def run(tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Predict:
    """Predicts one input as a volume."""
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
    monkeypatch.chdir(tmp_path)

    def once(path: object, **options: Any) -> RunReport:
        given = {"precision": "fp32", "as_pages": False, **options}
        (report,) = predict([str(one) for one in path] if isinstance(path, list) else str(path), tiny_weights, **given)
        return report

    return once


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# -- inputs


@pytest.mark.parametrize("existing", ["abort", "overwrite"])
def test_no_input_is_ever_written_over(run: Predict, tiny_weights: Path, existing: str) -> None:
    store = zarr.open_group("a.zarr", mode="w")
    store.create_array("0", data=noise(2, 40, 50), chunks=(1, 20, 50))
    tifffile.imwrite("b.ome.tif", noise(2, 40, 50))
    before = {p: p.read_bytes() for p in Path().rglob("*") if p.is_file()}
    wrong = [
        ("a.zarr/0", "a.zarr"), ("a.zarr", "a.zarr"), ("a.zarr/0", "a.zarr/0"), ("a.zarr", "a.zarr/mine.ome.zarr"),
        ("b.ome.tif", "b.ome.tif"), ("b.ome.tif", "./x/../b.ome.tif"),
    ]  # fmt: skip
    Path("x").mkdir()
    for path, output in wrong:
        for ask in (run, lambda path, **options: dry_run(path, tiny_weights, **options)):
            with pytest.raises(UsageError, match="would be written over an input"):
                ask(path, output=Path(output), axes="zyx", existing=existing)
    np.save("b.npy", noise(40, 50))
    Path("b-tiny.ome.tif").write_bytes(before[Path("b.ome.tif")])
    reports = predict(["b.npy", "b-tiny.ome.tif"], tiny_weights, as_pages=False, axes=None, existing=existing)
    assert "would be written over an input" in reports[0].error
    assert {p: p.read_bytes() for p in before} == before


def test_no_page_is_ever_written_over(page_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        Image.fromarray(noise(40, 50)).save(name)
    before = Path("a.png").read_bytes()
    with pytest.raises(UsageError, match=r"a\.png is an input"):
        predict("a.png", page_weights, output=Path("a.png"), existing="overwrite")
    reports = predict(["a.png", "b.png"], page_weights, output=Path(), existing="overwrite")
    assert ["is an input" in r.error for r in reports] == [True, True]
    assert Path("a.png").read_bytes() == before
    assert not Path("a.png.run").exists()


def test_inputs_are_told_so_that_they_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_input("v.h5::/raw") == f"{tmp_path}/v.h5::/raw"
    assert absolute_input("plane-*.tif") == f"{tmp_path}/plane-*.tif"
    assert absolute_input("s3://bucket/v.zarr") == "s3://bucket/v.zarr"


# -- statistics of another run


def test_reused_statistics_are_those_of_one_volume_or_of_the_same_ones(run: Predict) -> None:
    np.save("ref.npy", noise(40, 50) // 4)
    np.save("film.npy", noise(3, 40, 50))
    run("ref.npy", axes="yx", output=Path("ref.ome.tif"))
    run("film.npy", axes="tyx", output=Path("film.ome.tif"))
    (ref,) = [json.loads(line) for line in Path("ref.ome.tif.run/statistics-main.jsonl").read_text().splitlines()]
    run("film.npy", axes="tyx", output=Path("by-ref.ome.tif"), statistics_from=Path("ref.ome.tif"))
    plan = json.loads(Path("by-ref.ome.tif.run/plan.json").read_text())
    assert plan["statistics"] == dict.fromkeys(("0/0", "0/1", "0/2"), ref["statistics"])
    assert not list(Path("by-ref.ome.tif.run").glob("statistics-*.jsonl"))
    again = run("film.npy", axes="tyx", output=Path("by-ref.ome.tif"), statistics_from=Path("ref.ome.tif"))
    assert again.status == "nothing-new"
    run("film.npy", axes="tyx", output=Path("same.ome.tif"), statistics_from=Path("film.ome.tif"))
    assert np.array_equal(tifffile.imread("same.ome.tif"), tifffile.imread("film.ome.tif"))
    np.save("longer.npy", noise(4, 40, 50))
    with pytest.raises(UsageError, match="statistics of 3 volumes, and none of volume 0/3"):
        run("longer.npy", axes="tyx", statistics_from=Path("film.ome.tif"))
    for lines in Path("ref.ome.tif.run").glob("statistics-*.jsonl"):
        lines.unlink()
    with pytest.raises(InputError, match="has no statistics"):
        run("film.npy", axes="tyx", output=Path("x.ome.tif"), statistics_from=Path("ref.ome.tif"))


# -- outputs that somebody changed


def test_a_finished_output_that_somebody_changed_is_kept(run: Predict) -> None:
    np.save("in.npy", noise(40, 50))
    run("in.npy", axes="yx", output=Path("out.ome.tif"))
    whole = Path("out.ome.tif").read_bytes()
    for i in (1, 2):
        Path("out.ome.tif").write_bytes(b"corrected by hand")
        assert run("in.npy", axes="yx", output=Path("out.ome.tif")).status == "done"
        assert Path("out.ome.tif").read_bytes() == whole
        assert Path(f"out.ome.tif.changed-{i}").read_bytes() == b"corrected by hand"
    run("in.npy", axes="yx", output=Path("kept.ome.tif"), keep_store=True)
    for again in (
        lambda: run("in.npy", axes="yx", output=Path("kept.ome.tif"), keep_store=True),
        lambda: stitch_output(Path("kept.ome.tif"), keep_store=True),
    ):
        Path("kept.ome.tif").write_bytes(b"corrected by hand")
        assert again().status == "done"
        assert np.array_equal(tifffile.imread("kept.ome.tif"), tifffile.imread("out.ome.tif"))
    assert [Path(f"kept.ome.tif.changed-{i}").read_bytes() for i in (1, 2)] == [b"corrected by hand"] * 2
    run("in.npy", axes="yx", output=Path("out.ome.tif"), fresh=True)
    assert len(list(Path().glob("out.*.changed-*"))) == 2


# -- dry runs, parts


def test_a_dry_run_deletes_nothing_and_knows_what_is_finished(run: Predict, tiny_weights: Path) -> None:
    np.save("in.npy", noise(3, 40, 50))
    run("in.npy", axes="zyx", output=Path("out.ome.zarr"))
    shard = next(p for p in Path("out.ome.zarr").rglob("*") if p.is_file() and "c" in p.parts and p.stat().st_size > 99)
    shard.write_bytes(shard.read_bytes()[:50])
    (told,) = dry_run("in.npy", tiny_weights, output=Path("out.ome.zarr"), axes="zyx", precision="fp32", as_pages=False)
    values = told.to_dict()
    assert values["num_done"] == values["num_blocks"] - 1
    assert shard.stat().st_size == 50
    run("in.npy", axes="zyx", output=Path("out.ome.tif"))
    (told,) = dry_run("in.npy", tiny_weights, output=Path("out.ome.tif"), axes="zyx", precision="fp32", as_pages=False)
    assert told.to_dict()["num_done"] == told.to_dict()["num_blocks"]
    assert any("nothing is left to compute" in line for line in told.lines())


def test_seams_of_a_part_are_those_of_its_own_blocks_and_a_stop_is_heeded(run: Predict, tiny_weights: Path) -> None:
    np.save("in.npy", noise(6, 60, 70))
    options = PredictOptions(axes="zyx", output=Path("out.ome.zarr"), block=32, precision="fp32")
    for part in (2, 1):
        (report,) = predict_all(["in.npy"], str(tiny_weights), replace(options, part=(part, 2)), verify_seams=True)
        seams = report.details["seams"]
        assert seams["is_seamless"], seams
        assert seams["max_output_difference"] is not None
    is_verifying = False

    def emit(event: Event) -> None:
        nonlocal is_verifying
        is_verifying |= getattr(event, "stage", "") == "verify"

    other = replace(options, output=Path("other.ome.zarr"))
    with pytest.raises(Stopped):
        predict_all(
            ["in.npy"], str(tiny_weights), other, verify_seams=True, emit=emit, should_stop=lambda: is_verifying
        )


# -- journals and names of several processes


def test_a_block_is_done_as_any_journal_says(run: Predict) -> None:
    np.save("in.npy", noise(3, 40, 50))
    run("in.npy", axes="zyx", output=Path("out.ome.zarr"))
    folder = RunFolder(Path("out.ome.zarr"))
    sink, num = folder.sink(), folder.plan().num_blocks
    true = records_by_index(folder.path)[0][0]
    other = BlockRecord("block", 0, tuple(type(k)(k.key, k.num_bytes + 1, "0" * 64) for k in true.keys))
    for writer in ("a-older-name", "z-newer-name"):
        with Journal(folder.path, writer) as journal:
            journal.mark(other)
        assert folder.missing(sink, range(num), checksums=True) == []
        assert folder.is_finished(checksums=True)
    assert run("in.npy", axes="zyx", output=Path("out.ome.zarr")).status == "nothing-new"


def test_makers_of_half_made_files_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def left(name: str, age_s: float = 0) -> Path:
        path = tmp_path / f".x.partial-{name}"
        path.write_text("")
        os.utime(path, (time.time() - age_s,) * 2)
        return path

    host, pid, token = locks.maker().split(".")
    assert locks.is_at_work(left(locks.maker()))
    assert not locks.is_at_work(left(f"{host}.{pid}.0123abcd"))  # of a container's process of the same number
    assert not locks.is_at_work(left(f"{host}.99999999.{token}"))
    assert locks.is_at_work(left(f"{host}.{os.getppid()}.0123abcd"))
    assert locks.is_at_work(left("elsewhere.1.0123abcd"))
    assert not locks.is_at_work(left("elsewhere.1.0123abcd", age_s=2 * 86400))
    assert locks.is_at_work(left(str(os.getpid())))
    assert not locks.is_at_work(left("99999999"))
    assert not locks.is_at_work(left("what"))
    assert "-" not in locks.maker()
    assert socket.gethostname()[:3].replace("-", "_").replace(".", "_") == host[:3]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_run_folder_of_somebody_else_is_told(run: Predict) -> None:
    np.save("in.npy", noise(40, 50))
    run("in.npy", axes="yx", output=Path("out.ome.tif"))
    Path("out.ome.tif.run/run.lock").chmod(0o444)
    with pytest.raises(ResourceError, match="check the folder's rights"):
        run("in.npy", axes="yx", output=Path("out.ome.tif"))


def test_what_cannot_be_opened_for_writing_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal-main.jsonl").mkdir()
    with pytest.raises(ResourceError, match="check the folder's rights"):
        Journal(tmp_path, "main")
    (tmp_path / "run.lock").mkdir()
    with (
        pytest.raises(ResourceError, match="check the folder's rights"),
        locks.RunLock(tmp_path, shared=False, who="predict"),
    ):
        pass


def test_the_store_that_an_export_waits_for_goes_with_the_next_stitch(
    run: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save("in.npy", noise(2, 40, 50))
    for part in (1, 2):
        run("in.npy", axes="zyx", output=Path("out.ome.tif"), part=(part, 2))
    with pytest.raises(UsageError, match="mkdir -p missing"):
        stitch("out.ome.tif", to="missing/x.ome.tif")
    assert not Path("out.ome.tif").exists()

    def dies(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("unetctl.jobs.stitch.export_tiff", dies)
        with pytest.raises(KeyboardInterrupt):
            stitch("out.ome.tif", to="x.ome.tif")
    assert Path("out.ome.tif.run/store.zarr").is_dir()  # so that the same command can go on
    stitch("out.ome.tif", to="x.ome.tif")
    assert Path("x.ome.tif").read_bytes() == Path("out.ome.tif").read_bytes()
    assert not Path("out.ome.tif.run/store.zarr").exists()


def test_a_dry_run_plans_the_good_ones_beside_a_broken_one(tmp_path, monkeypatch, tiny_weights):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "c"):
        np.save(f"{name}.npy", np.zeros((1, 40, 50), np.uint8))
    Path("b.npy").write_bytes(Path("a.npy").read_bytes()[:60])
    words = ["predict", "a.npy", "b.npy", "c.npy", "--task", str(tiny_weights), "--axes", "zyx", "--dry-run"]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 3, told.output
    assert "a-" in told.stdout
    assert "c-" in told.stdout
    assert "b.npy" in told.stderr
    assert CliRunner().invoke(app, [*words, "--on-error", "abort"]).exit_code == 4
    assert CliRunner().invoke(app, ["predict", "b.npy", *words[4:]]).exit_code == 4
