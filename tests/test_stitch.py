"""`unetctl stitch`: what it is told to write is checked before any work, and nothing is kept that nobody asked for."""

from pathlib import Path

import numpy as np
import pytest

from unetctl.cli.session import report_line
from unetctl.errors import UsageError
from unetctl.jobs.api import predict, stitch


def test_a_wrong_name_is_refused_before_any_work_and_a_right_one_keeps_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_weights: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("in.npy", np.random.default_rng(0).integers(0, 256, (2, 40, 50), np.uint8))
    for part in (1, 2):
        predict("in.npy", tiny_weights, axes="zyx", output="shared.ome.tif", part=(part, 2))
    Path("there.ome.tif").write_text("something else")
    for wrong, words in (("other.zarr", r"ends in \.ome\.tif"), ("there.ome.tif", "exists")):
        with pytest.raises(UsageError, match=words):
            stitch("shared.ome.tif", to=wrong)
        assert not Path("shared.ome.tif").exists()
    stitch("shared.ome.tif", to="other.ome.tif")
    assert Path("other.ome.tif").read_bytes() == Path("shared.ome.tif").read_bytes()
    assert not Path("shared.ome.tif.run/store.zarr").exists()
    assert stitch("shared.ome.tif").status == "nothing-new"
    predict("in.npy", tiny_weights, axes="zyx", output="kept.ome.tif", keep_store=True)
    stitch("kept.ome.tif", to="again.ome.tif")
    assert Path("kept.ome.tif.run/store.zarr").is_dir()  # asked for by the user
    assert Path("again.ome.tif").read_bytes() == Path("kept.ome.tif").read_bytes()


def test_a_further_file_is_told_of_and_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_weights: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("in.npy", np.random.default_rng(0).integers(0, 256, (2, 40, 50), np.uint8))
    predict("in.npy", tiny_weights, axes="zyx", output="o.ome.zarr")
    assert stitch("o.ome.zarr", to="x.tif").status == "done"
    first = Path("x.tif").read_bytes()
    assert stitch("o.ome.zarr", to="x.tif").status == "nothing-new"
    assert Path("x.tif").read_bytes() == first
    Path("x.tif").write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists"):
        stitch("o.ome.zarr", to="x.tif")


@pytest.mark.parametrize("name", [".", "/"])
def test_a_bare_folder_is_no_output(name: str) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        stitch(name)


def test_a_part_without_blocks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_weights: Path) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("in.npy", np.zeros((1, 40, 50), np.uint8))
    told = {
        part: report_line(predict("in.npy", tiny_weights, axes="zyx", output="o.ome.tif", part=(part, 2))[0])
        for part in (1, 2)
    }
    assert sum("there is no block for it, 1 block for 2 parts" in line for line in told.values()) == 1
    assert not any("done before" in line for line in told.values())


def test_a_folder_in_the_place_of_a_run_is_named_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_weights: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("in.npy", np.zeros((1, 40, 50), np.uint8))
    Path("o.ome.tif.run").mkdir()
    Path("o.ome.tif.run/junk").write_text("x")
    with pytest.raises(UsageError, match="holds no plan") as told:
        predict("in.npy", tiny_weights, axes="zyx", output="o.ome.tif")
    assert "--fresh" in told.value.hint
    assert Path("o.ome.tif.run/junk").exists()


def test_starting_over_keeps_what_somebody_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_weights: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("in.npy", np.random.default_rng(0).integers(0, 256, (1, 40, 50), np.uint8))
    predict("in.npy", tiny_weights, axes="zyx", output="o.ome.tif")
    first = Path("o.ome.tif").read_bytes()
    predict("in.npy", tiny_weights, axes="zyx", output="o.ome.tif", fresh=True)
    assert not list(Path().glob("*.changed-*"))
    Path("o.ome.tif").write_bytes(first[:-1] + b"!")
    predict("in.npy", tiny_weights, axes="zyx", output="o.ome.tif", fresh=True)
    assert Path("o.ome.tif").read_bytes() == first
    assert Path("o.ome.tif.changed-1").read_bytes() == first[:-1] + b"!"
