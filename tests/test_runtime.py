"""What a run rests on: journal, locks, run folder, plan; without a network."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetctl.errors import BusyError, InputError, ResourceError, UsageError
from unetctl.recipe.load import recipe_from_dict
from unetctl.recipe.schema import Recipe
from unetctl.runtime.compute import Compute
from unetctl.runtime.journal import BlockRecord, Journal, latest_records, read_records
from unetctl.runtime.locks import RunLock
from unetctl.runtime.loop import output_box
from unetctl.runtime.memory import BASE_BYTES, cgroup_limit, format_size, parse_size, project
from unetctl.runtime.planning import Planned, PlanWishes, make_plan
from unetctl.runtime.run_folder import RunFolder
from unetctl.runtime.run_plan import RunPlan
from unetctl.sinks.base import StoredKey
from unetctl.sinks.units import levels_of
from unetctl.sources.base import ImageInfo, SourceInfo

GIB = 2**30


# -- the journal


def records() -> st.SearchStrategy[BlockRecord]:
    keys = st.builds(StoredKey, st.text("abc/0", min_size=1), st.integers(0, 9), st.sampled_from(["", "12ab"]))
    return st.builds(
        BlockRecord, st.sampled_from(["block", "pyramid"]), st.integers(0, 5), st.lists(keys, max_size=2).map(tuple),
        st.integers(0, 3),
    )  # fmt: skip


@settings(max_examples=25)  # each flushes the disk
@given(st.lists(records(), min_size=1, max_size=3), st.lists(records(), min_size=1, max_size=2), st.data())
def test_a_journal_torn_anywhere_tells_of_whole_lines_and_goes_on(
    before: list[BlockRecord], after: list[BlockRecord], data: st.DataObject
):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Journal(folder, "main") as journal:
            for record in before:
                journal.mark(record)
        path = folder / "journal-main.jsonl"
        whole = path.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut])
        kept = before[: whole[:cut].count(b"\n")]
        assert list(read_records(folder)) == kept
        with Journal(folder, "main") as journal:
            for record in after:
                journal.mark(record)
        told = list(read_records(folder))
        # A line that lacked its end alone is whole once the next writer has ended it: its block was on disk before.
        assert told in (kept + after, before[: len(kept) + 1] + after)
        latest = {r.index: r for r in told if r.unit == "block"}
        assert latest_records(folder) == latest


@pytest.mark.parametrize(
    "line",
    [b"", b"\0\0\0\0", b"\xff\xfe", b"[1]", b'{"unit": "block"}', b'{"unit": "block", "index": 1, "keys": [[1]]}'],
)
def test_lines_that_are_no_records_are_passed_over(tmp_path: Path, line: bytes):
    (tmp_path / "journal-a.jsonl").write_bytes(line + b"\n" + BlockRecord("block", 4, ()).to_json().encode() + b"\n")
    with Journal(tmp_path, "b") as journal:
        journal.mark(BlockRecord("block", 5, (StoredKey("0/c/0", 3, "ab"),)))
    assert sorted(latest_records(tmp_path)) == [4, 5]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_journal_on_a_full_disk_says_so(tmp_path: Path):
    (tmp_path / "journal-main.jsonl").symlink_to("/dev/full")
    with Journal(tmp_path, "main") as journal, pytest.raises(ResourceError, match="free space and run the same"):
        journal.mark(BlockRecord("block", 0, ()))


# -- locks

needs_locks = pytest.mark.skipif(sys.platform == "win32", reason="locks as POSIX has them")


@needs_locks
def test_parts_share_a_run_and_others_have_it_alone(tmp_path: Path):
    with RunLock(tmp_path, shared=True, who="part 1 of 2"), RunLock(tmp_path, shared=True, who="part 2 of 2"):
        with RunLock(tmp_path, shared=False, who="part 1 of 2", name="part-1"), pytest.raises(BusyError):
            RunLock(tmp_path, shared=False, who="part 1 of 2", name="part-1").__enter__()
        with pytest.raises(BusyError) as caught, RunLock(tmp_path, shared=False, who="stitch"):
            pass
        assert f"process {os.getpid()} on " in str(caught.value)
        assert "part 2 of 2" in str(caught.value)
    with RunLock(tmp_path, shared=False, who="stitch"), pytest.raises(BusyError, match=r"in use by stitch \(process "):
        RunLock(tmp_path, shared=True, who="part 1 of 2").__enter__()
    assert not list(tmp_path.glob("*.json"))


@needs_locks
def test_notes_of_the_dead_name_nobody_and_are_cleared_away(tmp_path: Path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with RunLock(tmp_path, shared=True, who="part 1 of 2"):
        note = json.loads(next(tmp_path.glob("run.lock-*.json")).read_text())
        stale = tmp_path / f"run.lock-{gone.pid}.json"
        stale.write_text(json.dumps({**note, "who": "a ghost", "pid": gone.pid}))
        with pytest.raises(BusyError) as caught, RunLock(tmp_path, shared=False, who="stitch"):
            pass
        assert "ghost" not in str(caught.value)
        stale.write_text("torn")
    with RunLock(tmp_path, shared=False, who="stitch"):
        assert not stale.exists()


# -- plans


def info(axes: str, shape: tuple[int, ...], dtype: str = "uint8", **values: Any) -> SourceInfo:
    return SourceInfo("x.tif", "TIFF", (ImageInfo("", shape, axes, np.dtype(dtype), **values),), {"sha256": "ab"})


def planned(
    source: SourceInfo, recipe: Recipe, budget_bytes: int = 64 * GIB, precision: str = "fp32", **wishes: Any
) -> Planned:
    compute = Compute("cpu", precision, 2)
    return make_plan(source, {"path": "/x.tif"}, recipe, "0" * 64, 1000, compute, budget_bytes, PlanWishes(**wishes))


@pytest.fixture(scope="module")
def em_like() -> Recipe:
    """A network of the shipped size: its tiles take real memory."""
    return recipe_from_dict({"task": {"name": "big"}, "network": {"base_width": 16, "depth": 4}}, "a test")


SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 9000), st.integers(1, 9000))


@settings(max_examples=40)
@given(
    shape=SHAPES, lead=st.integers(1, 3), axes=st.sampled_from(["yx", "zyx", "tyx", "tzyx", "tczyx", "czyx"]),
    core=st.none() | st.integers(1, 12).map(lambda n: 16 * n), block=st.none() | st.integers(16, 5000),
    keep=st.sampled_from(["probability", "logits", "classes"]), classes=st.sampled_from([1, 3]),
    budget_bytes=st.integers(1, 16).map(lambda n: n * GIB // 2),
)  # fmt: skip
def test_every_block_is_one_whole_shard(shape, lead, axes, core, block, keep, classes, budget_bytes):
    values: dict[str, Any] = {"task": {"name": "a"}, "output": {"classes": [f"c{i}" for i in range(classes)]}}
    values["labels"] = {"kind": "classes"} if classes > 1 else {}
    sizes = tuple({"t": lead, "c": 2, "z": shape[0], "y": shape[1], "x": shape[2]}[a] for a in axes)
    wishes = {"core": core, "block": block, "keep": keep, "channels": (1,) if "c" in axes else None}
    try:
        made = planned(info(axes, sizes), recipe_from_dict(values, "a test"), budget_bytes, **wishes)
    except ResourceError:
        assert core or block  # what the user fixes is not shrunk
        return
    (image,) = made.plan.images
    assert made.projection.host <= budget_bytes
    level = levels_of(image.output)[0]
    assert level.num_shards == len(image.tiles) == made.plan.num_blocks
    step = max(1, len(image.tiles) // 20)
    found = {level.coords_of(output_box(image, image.tiles.block(i).box)) for i in range(0, len(image.tiles), step)}
    assert len(found) == len(range(0, len(image.tiles), step))
    assert image.tiles.num_tiles == sum(image.tiles.block(i).num_tiles for i in range(len(image.tiles))[:5000]) or (
        len(image.tiles) > 5000
    )
    again = RunPlan.from_json(made.plan.to_json())
    assert (again, again.fingerprint) == (made.plan, made.plan.fingerprint)


@given(st.integers(1, 400), st.integers(1, 50))
def test_parts_are_all_blocks_once(num_planes: int, num_parts: int):
    recipe = recipe_from_dict({"task": {"name": "a"}, "network": {"depth": 1}}, "a test")
    plan = planned(info("zyx", (num_planes, 70, 70)), recipe, block=1).plan
    shares = [plan.part(i, num_parts) for i in range(num_parts)]
    assert [i for share in shares for i in share] == list(range(plan.num_blocks))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    with pytest.raises(IndexError):
        plan.block(plan.num_blocks)


def test_less_memory_means_smaller_tiles_down_to_none(em_like: Recipe):
    source = info("zyx", (100, 6000, 6000))
    sizes = []
    for budget_bytes in (8 * GIB, 2 * GIB, GIB, GIB // 2):
        made = planned(source, em_like, budget_bytes)
        assert made.projection.host <= budget_bytes
        sizes.append(made.plan.batch * prod(made.plan.images[0].tiles.core))
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 1
    with pytest.raises(ResourceError) as caught:
        planned(source, em_like, BASE_BYTES)
    least = caught.value.seen
    assert "core 1x16x16" in least
    assert least.endswith(f"the budget is {format_size(BASE_BYTES)}")
    named = parse_size(least.partition("needs ")[2].partition(" of memory")[0])
    assert planned(source, em_like, int(named * 1.01)).plan.num_tiles > 0
    # What the user fixes is not shrunk; the batch is, as far as need be.
    assert planned(source, em_like, core=64, block=64).plan.batch == 64
    assert planned(source, em_like, 450 * 2**20, core=64, block=64).plan.batch <= 4
    with pytest.raises(ResourceError, match="core 1x64x64"):
        planned(source, em_like, 450 * 2**20, core=64, block=64, batch=64)


def test_pictures_of_a_file_share_the_batch_of_the_largest(em_like: Recipe):
    (large,), (small,) = (info("yx", (n, n)).images for n in (5000, 100))
    alone = planned(replace(info("yx", (9, 9)), images=(large,)), em_like).plan
    both = planned(replace(info("yx", (9, 9)), images=(small, large)), em_like).plan
    assert both.batch == alone.batch
    assert both.images[1].tiles == alone.images[0].tiles


def test_the_plan_of_ten_terabytes_is_as_small_as_any(em_like: Recipe):
    plan = planned(info("tczyx", (10, 1, 1000, 32_000, 32_000)), em_like, GIB, channels=(0,)).plan
    assert plan.num_pixels == 10 * 1000 * 32_000**2
    assert len(plan.to_json()) < 10_000
    _, last = plan.block(plan.num_blocks - 1)
    assert last.box.stop == plan.images[0].tiles.shape


@pytest.mark.parametrize(("core", "use"), [(190, 192), (1, 16), (200, 192), (25, 32)])
def test_a_core_off_the_grid_is_named_with_the_next_one(em_like: Recipe, core: int, use: int):
    with pytest.raises(UsageError, match=f"tile core {core} is not a multiple of the network stride 16; use {use}$"):
        planned(info("yx", (500, 500)), em_like, core=core)


@pytest.mark.parametrize("wish", [{"batch": 0}, {"threshold": 1.5}])
def test_wishes_without_sense_are_refused(em_like: Recipe, wish: dict[str, Any]):
    with pytest.raises(UsageError):
        planned(info("yx", (500, 500)), em_like, **wish)


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/user.slice/job.scope", {"user.slice/memory.max": "max", "user.slice/job.scope/memory.max": "7000"}, 7000),
        (
            "0::/user.slice/job.scope",
            {"user.slice/memory.max": "5000", "user.slice/job.scope/memory.max": "7000"},
            5000,
        ),
        ("0::/", {"memory.max": "9000"}, 9000),
        ("0::/../../else", {"memory.max": "9000"}, 9000),
        (
            "12:cpu,cpuacct:/condor/slot1\n9:memory:/condor/slot1\n0::/",
            {"memory/condor/slot1/memory.limit_in_bytes": "800", "memory/memory.limit_in_bytes": str(2**63 - 4096)},
            800,
        ),
        ("9:memory:/docker/1a2b", {"memory/memory.limit_in_bytes": "600"}, 600),
        ("0::/user.slice", {"user.slice/memory.max": "max"}, None),
        (None, {"memory.max": "400"}, 400),
        (None, {}, None),
        ("no such thing", {}, None),
    ],
)
def test_the_limit_of_a_control_group_is_the_least_from_the_root_to_the_own(
    tmp_path: Path, own: str | None, files: dict[str, str], limit: int | None
):
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text + "\n")
    if own is not None:
        (tmp_path / "own").write_text(own + "\n")
    assert cgroup_limit(tmp_path / "root", tmp_path / "own") == limit


def test_projections_grow_with_what_is_asked_for(em_like: Recipe):
    plan = planned(info("zyx", (50, 4000, 4000)), em_like, core=256, block=1024).plan.images[0].tiles
    common: dict[str, Any] = {"precision_bytes": 4, "output_bytes": 1, "num_weights": 10**6, "on_device": False}

    def host(core: int = 256, batch: int = 2, cores: int = 4, input_bytes: int = 1) -> int:
        tiles = replace(plan, core=(1, core, core), cores_per_block=(1, cores, cores))
        return project(tiles, em_like.network_spec, batch=batch, input_bytes=input_bytes, **common).host

    assert host() < host(core=272) < host(core=512)
    assert host() < host(batch=3)
    assert host() < host(cores=5)
    assert host() < host(input_bytes=2)
    on_device = project(plan, em_like.network_spec, batch=2, input_bytes=1, **{**common, "on_device": True})
    assert on_device.host < host()
    assert on_device.device > 0


def test_a_plan_says_what_differs_from_another_and_who_altered_it(tiny_recipe: Recipe):
    source = info("zyx", (3, 200, 200))
    plan = planned(source, tiny_recipe).plan
    assert plan.differences(plan.with_source("/elsewhere.tif")) == []
    assert plan.with_source("/elsewhere.tif").fingerprint == plan.fingerprint
    others = {
        "images.0.tiles.core": planned(source, tiny_recipe, core=64).plan,
        "keep": planned(source, tiny_recipe, keep="mask").plan,
        "threshold": planned(source, tiny_recipe, threshold=0.25).plan,
        "nonfinite": planned(source, tiny_recipe, nonfinite="refuse").plan,
        "compute.precision": planned(source, tiny_recipe, precision="bf16").plan,
        "identity.sha256": planned(replace(source, identity={"sha256": "cd"}), tiny_recipe).plan,
        "weights_sha256": replace(plan, weights_sha256="1" * 64),
    }
    for name, other in others.items():
        assert other.fingerprint != plan.fingerprint
        assert any(d.startswith(f"{name}: ") for d in other.differences(plan)), (name, other.differences(plan))
    for text in (plan.to_json().replace('"batch": ', '"batch": 1'), "{", "{}", "[]"):
        with pytest.raises(UsageError, match="--fresh"):
            RunPlan.from_json(text)


def test_the_first_plan_is_in_force_and_the_first_number_of_parts(tmp_path: Path, tiny_recipe: Recipe):
    folder = RunFolder(tmp_path / "out.ome.tif")
    with pytest.raises(InputError, match="no run folder"):
        folder.plan()
    first, second = (planned(info("zyx", (3, n, 200)), tiny_recipe).plan for n in (200, 300))
    folder.begin(first)
    folder.begin(second)
    assert folder.plan() == first
    assert folder.num_parts() is None
    folder.fix_parts(3)
    folder.fix_parts(3)
    with pytest.raises(UsageError, match=r"begun with 3 parts; expected --part 1/3 to 3/3"):
        folder.fix_parts(4)
    assert sorted(p.name for p in folder.path.iterdir()) == ["parts.json", "plan.json"]
    folder.remove()
    assert list(tmp_path.iterdir()) == []
