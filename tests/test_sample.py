"""The made-up stack: the same every time, like a micrograph, and readable by everybody."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from typer.testing import CliRunner

from unetctl.cli.app import app
from unetctl.errors import ResourceError, UsageError
from unetctl.jobs.sample import EM_SPACING_UM, labels_path, make_sample
from unetctl.jobs.sample_em import Slice, Tissue


@pytest.fixture(scope="module")
def slices() -> list[Slice]:
    return list(Tissue((256, 256), 3).slices(3))


def test_it_looks_like_the_real_thing(slices: list[Slice]):
    """Figures of the ISBI 2012 training volume: mean 126, deviation 44, 22 % membrane, 85 on it and 138 beside it."""
    grey, interior = np.stack([s.grey for s in slices]), np.stack([s.interior for s in slices])
    assert grey.dtype == interior.dtype == np.uint8
    assert 110 <= grey.mean() <= 150
    assert 34 <= grey.std() <= 54
    assert set(np.unique(interior)) == {0, 255}
    assert 0.14 <= (interior == 0).mean() <= 0.32
    assert grey[interior == 255].mean() - grey[interior == 0].mean() > 45


def test_membranes_are_lines_of_five_to_eight_pixels(slices: list[Slice]):
    membrane = slices[0].interior == 0
    depth = ndimage.distance_transform_edt(np.pad(membrane, 1))[1:-1, 1:-1]
    ridge = depth[(depth == ndimage.maximum_filter(depth, 5)) & membrane]
    assert 2.0 <= np.median(ridge) <= 4.5


def test_cells_are_closed_and_of_many_sizes(slices: list[Slice]):
    cells, num = ndimage.label(slices[0].interior)
    sizes = np.bincount(cells.ravel())[1:]
    large = sizes[sizes > 50]
    assert 15 <= len(large) <= 150
    assert large.max() < 0.35 * cells.size
    assert large.max() > 8 * np.median(large)
    assert num < 200


def test_neighbouring_slices_are_of_one_tissue(slices: list[Slice]):
    def same(a: Slice, b: Slice) -> float:
        return float(np.corrcoef(a.interior.ravel(), b.interior.ravel())[0, 1])

    assert same(slices[0], slices[1]) > same(slices[0], slices[2]) > 0.1
    assert not np.array_equal(slices[0].grey, slices[1].grey)


@settings(max_examples=8)
@given(st.integers(0, 2**40), st.integers(0, 300), st.integers(32, 70), st.integers(32, 70))
def test_a_slice_depends_on_seed_shape_and_number_alone(seed: int, z: int, height: int, width: int):
    tissue = Tissue((height, width), seed)
    first = tissue.slice(z)
    tissue.slice(z + 1)
    again = Tissue((height, width), seed).slice(z)
    for a, b in ((first, tissue.slice(z)), (first, again)):
        assert np.array_equal(a.grey, b.grey)
        assert np.array_equal(a.interior, b.interior)
    assert first.grey.shape == first.interior.shape == (height, width)
    assert first.grey.std() > 10


def test_the_file_has_axes_and_pixel_size(tmp_path: Path):
    path = make_sample("em", tmp_path, (3, 40, 56), labels=True)
    assert path == tmp_path / "em-sample.tif"
    with tifffile.TiffFile(path) as file, tifffile.TiffFile(labels_path(path)) as truth:
        assert file.is_ome
        assert (file.series[0].axes, file.series[0].shape, str(file.series[0].dtype)) == ("ZYX", (3, 40, 56), "uint8")
        assert (truth.series[0].axes, truth.series[0].shape) == ("ZYX", (3, 40, 56))
        text = file.ome_metadata or ""
        for axis, size in zip("ZYX", EM_SPACING_UM, strict=True):
            assert f'PhysicalSize{axis}="{size}"' in text
            assert f'PhysicalSize{axis}Unit="µm"' in text
        tissue = Tissue((40, 56), 0)
        assert np.array_equal(file.asarray()[2], tissue.slice(2).grey)
        assert np.array_equal(truth.asarray()[2], tissue.slice(2).interior)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["em-sample-labels.tif", "em-sample.tif"]


def test_the_same_sample_is_the_same_file_and_may_be_there_already(tmp_path: Path):
    one = make_sample("em", tmp_path / "a.tif", (2, 40, 40), seed=4)
    content = one.read_bytes()
    assert make_sample("em", tmp_path / "a.tif", (2, 40, 40), seed=4).read_bytes() == content
    assert make_sample("em", tmp_path / "b.ome.tif", (2, 40, 40), seed=4).read_bytes() == content
    with pytest.raises(UsageError, match="exists and is another file"):
        make_sample("em", tmp_path / "a.tif", (2, 40, 40), seed=5)
    assert one.read_bytes() == content
    assert make_sample("em", one, (2, 40, 40), seed=5, overwrite=True).read_bytes() != content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "b.ome.tif"]


def test_a_foreign_labels_file_keeps_both_from_being_written(tmp_path: Path):
    (tmp_path / "em-labels.tif").write_text("mine")
    with pytest.raises(UsageError, match=r"em-labels\.tif exists"):
        make_sample("em", tmp_path / "em-volume.tif", (1, 32, 32), labels=True)
    assert [p.name for p in tmp_path.iterdir()] == ["em-labels.tif"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "fungi"}, "no sample for the task fungi; expected one of em, dibco"),
        ({"shape": (0, 64, 64)}, "at least 1x32x32"),
        ({"shape": (1, 64, 16)}, "at least 1x32x32"),
        ({"shape": (64, 64)}, r"at least 1x32x32 \(z, y, x\)"),
        ({"seed": -1}, "0 or more"),
        ({"output": Path("x.png")}, r"a name that ends in \.tif"),
        ({"output": Path("nowhere/x.tif")}, "there is no folder nowhere"),
    ],
)
def test_wrong_wishes_are_refused(given: dict[str, object], message: str):
    with pytest.raises(UsageError, match=message):
        make_sample(**{"task": "em", "output": None, **given})  # type: ignore[arg-type]  # names and types as in the function


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object, **given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "TiffWriter", refuse)
    with pytest.raises(ResourceError, match="No space left"):
        make_sample("em", tmp_path / "a.tif", (1, 32, 32))
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_what_it_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["sample", "em", "--shape", "1,32,48", "--labels"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "em-sample.tif\nem-sample-labels.tif\n"
    assert CliRunner().invoke(app, ["sample", "em", "--shape", "1,32"]).exit_code == 2
    assert CliRunner().invoke(app, ["sample", "fungi"]).exit_code == 2
