"""`unetctl stitch`: what it is told to write is checked before any work, and nothing is kept that nobody asked for."""

from pathlib import Path

import numpy as np
import pytest

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
