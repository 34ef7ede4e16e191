"""The made-up page: the same every time, like a scan, its truth where its ink is."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from skimage.filters import threshold_otsu, threshold_sauvola
from typer.testing import CliRunner

from unetctl.cli.app import app
from unetctl.errors import UsageError
from unetctl.jobs.sample import labels_path, make_sample
from unetctl.jobs.sample_dibco import Scan, scanned_page
from unetctl.metrics.document import f_measure
from unetctl.sources.pages import open_pages
from unetctl.training.pairs import find_pairs


@pytest.fixture(scope="module")
def scan() -> Scan:
    return scanned_page((500, 420), 2)


def brightness(scan: Scan) -> np.ndarray:
    return np.tensordot([0.299, 0.587, 0.114], scan.colour.astype(np.float32), 1)


def test_it_has_the_share_of_ink_and_the_tones_of_a_written_page(scan: Scan):
    """DIBCO pages hold 2 to 15 % ink."""
    grey = brightness(scan)
    assert scan.colour.shape == (3, 500, 420)
    assert scan.colour.dtype == np.uint8
    assert scan.ink.dtype == np.bool_
    assert 0.02 < scan.ink.mean() < 0.15
    surroundings = ndimage.binary_dilation(scan.ink, iterations=8) & ~ndimage.binary_dilation(scan.ink, iterations=2)
    assert np.median(grey[surroundings]) - np.median(grey[scan.ink]) > 50
    red, _, blue = scan.colour[:, surroundings].mean(1)
    assert red > blue + 5  # aged paper


def test_the_scanners_bed_is_dark_and_no_ink(scan: Scan):
    top = brightness(scan)[:6]
    assert np.median(top) < 50
    assert not scan.ink[:6].any()
    assert (brightness(scan) < 50).mean() > 0.02


def test_strokes_are_thin_and_of_varying_width(scan: Scan):
    depth = ndimage.distance_transform_edt(scan.ink)
    ridge = depth[(depth == ndimage.maximum_filter(depth, 3)) & scan.ink]
    assert 1 <= np.median(ridge) < 4
    assert np.quantile(ridge, 0.95) > 1.8 * np.quantile(ridge, 0.2)


def test_a_threshold_for_the_whole_page_is_not_enough(scan: Scan):
    """Else there would be nothing to try; yet the truth is that of the picture: a local threshold finds most of it."""
    grey = brightness(scan)
    bed = ndimage.binary_dilation(ndimage.binary_opening(grey < 80, np.ones((11, 11))), iterations=6)
    whole = f_measure(grey < threshold_otsu(grey), scan.ink)
    local = f_measure((grey < threshold_sauvola(grey, 51, k=0.2, r=128)) & ~bed, scan.ink)
    assert whole < 75
    assert local > max(75, whole + 5)


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 2**40), st.integers(128, 170), st.integers(128, 170))
def test_a_page_depends_on_seed_and_shape_alone(seed: int, height: int, width: int):
    first, again = scanned_page((height, width), seed), scanned_page((height, width), seed)
    assert np.array_equal(first.colour, again.colour)
    assert np.array_equal(first.ink, again.ink)
    assert first.colour.shape == (3, height, width)
    assert first.colour.std() > 10
    assert not np.array_equal(first.colour, scanned_page((height, width), seed + 1).colour)


def test_the_files_have_their_resolution_and_the_truth_is_of_one_bit(tmp_path: Path):
    path = make_sample("dibco", tmp_path, (150, 160), 3, labels=True)
    assert path == tmp_path / "dibco-sample.png"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dibco-sample-labels.png", "dibco-sample.png"]
    source = open_pages(str(path))
    assert (source.images[0].axes, source.images[0].shape) == ("cyx", (3, 150, 160))
    assert source.images[0].dpi == pytest.approx((300, 300), abs=0.01)
    source.close()
    drawn = scanned_page((150, 160), 3)
    with Image.open(path) as page, Image.open(labels_path(path)) as truth:
        assert np.array_equal(np.moveaxis(np.asarray(page), -1, 0), drawn.colour)
        assert truth.mode == "1"
        assert np.array_equal(~np.asarray(truth), drawn.ink)


def test_the_same_page_is_the_same_file_and_may_be_there_already(tmp_path: Path):
    one = make_sample("dibco", tmp_path / "a.png", (128, 128), seed=4)
    content = one.read_bytes()
    assert make_sample("dibco", tmp_path / "a.png", (128, 128), seed=4).read_bytes() == content
    with pytest.raises(UsageError, match="exists and is another file"):
        make_sample("dibco", tmp_path / "a.png", (128, 128), seed=5)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [content]


def test_its_folder_is_one_to_train_on(tmp_path: Path):
    make_sample("dibco", tmp_path / "page-1.png", (128, 128), labels=True)
    pairs = find_pairs(tmp_path)
    assert [(p.image.name, p.labels.name) for p in pairs.pairs] == [("page-1.png", "page-1-labels.png")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shape": (3, 200, 200)}, r"3x200x200 pixels for the task dibco; expected at least 128x128 \(y, x\)"),
        ({"shape": (127, 200)}, "at least 128x128"),
        ({"output": Path("x.tif")}, r"a name that ends in \.png"),
    ],
)
def test_wrong_wishes_are_refused(given: dict[str, object], message: str):
    with pytest.raises(UsageError, match=message):
        make_sample("dibco", **given)  # type: ignore[arg-type]  # names and types as in the function


def test_the_command_prints_what_it_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["sample", "dibco", "--shape", "128,130", "--labels"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "dibco-sample.png\ndibco-sample-labels.png\n"
    told = json.loads(CliRunner().invoke(app, ["sample", "dibco", "--shape", "128,130", "--json"]).stdout)
    assert (told["task"], told["shape"], told["labels"]) == ("dibco", [128, 130], None)
    assert CliRunner().invoke(app, ["sample", "dibco", "--shape", "1,200,200"]).exit_code == 2
