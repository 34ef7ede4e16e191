"""What happens to an archive from one night to the next: pages retouched by hand, empty folders, old names, deep scans."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pikepdf
import pytest
from PIL import Image

from tests.page_source_files import text_page
from unetctl.errors import InputError
from unetctl.geometry.box import Box
from unetctl.jobs.api import predict
from unetctl.jobs.info_documents import describe_document
from unetctl.recipe.schema import Normalise
from unetctl.runtime.events import Event, Note
from unetctl.runtime.grey_scale import Scaling
from unetctl.runtime.report import RunReport
from unetctl.runtime.statistics import measure
from unetctl.sources.pages import open_pages

Predict = Callable[..., list[RunReport]]


@pytest.fixture
def run(page_weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Predict:
    """Predicts inputs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda inputs, **options: predict(inputs, page_weights, **{"precision": "fp32", **options})


def scan(path: str, i: int = 0) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(text_page((60, 80), i)).save(path)


def asides() -> list[str]:
    return sorted(path.name for path in Path("out").glob("*.changed-*"))


def test_a_page_that_was_retouched_is_kept_beside_the_new_one(run):
    for name in ("a", "b"):
        scan(f"in/{name}.png")
    run("in", output="out")
    first = Path("out/a.png").read_bytes()
    Path("out/a.png").write_bytes(first + b"retouched")
    heard: list[Event] = []
    run("in", output="out", emit=heard.append)
    assert Path("out/a.png").read_bytes() == first
    assert Path("out/a.png.changed-1").read_bytes() == first + b"retouched"
    assert asides() == ["a.png.changed-1"]
    assert any("a.png.changed-1" in event.text for event in heard if isinstance(event, Note))
    Path("out/a.png").write_bytes(first[:-1] + b"!")  # of the same size: seen when the page is made again
    scan("in/a.png", 1)
    run("in", output="out")
    assert Path("out/a.png.changed-2").read_bytes() == first[:-1] + b"!"
    kept = Path("out/b.png").read_bytes()
    Path("out/b.png").write_bytes(kept + b"mine")
    run("in", output="out", fresh=True)
    assert Path("out/b.png").read_bytes() == kept
    assert Path("out/b.png.changed-1").read_bytes() == kept + b"mine"
    assert asides() == ["a.png.changed-1", "a.png.changed-2", "b.png.changed-1"]


def test_a_retouched_page_is_kept_also_after_a_night_on_which_its_scan_was_broken(run):
    for name in ("a", "b"):
        scan(f"in/{name}.png")
    run("in", output="out")
    mine = Path("out/a.png").read_bytes() + b"mine"
    Path("out/a.png").write_bytes(mine)
    Path("in/a.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    run("in", output="out")
    scan("in/a.png", 1)
    run("in", output="out")
    assert Path("out/a.png.changed-1").read_bytes() == mine


def test_an_empty_folder_stops_no_other(run):
    scan("mon/a.png")
    Path("tue").mkdir()
    Path("out").mkdir()
    heard: list[Event] = []
    assert [report.status for report in run(["mon", "tue"], output="out", emit=heard.append)] == ["done"]
    assert any("tue holds no pages: passed over" in event.text for event in heard if isinstance(event, Note))
    with pytest.raises(InputError, match="tue holds no pages"):
        run(["tue"], output="out")


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on POSIX systems alone")
def test_a_pdf_of_an_old_name_is_read(run):
    name = os.fsdecode(b"in/p\xe9.pdf")
    Path("in").mkdir()
    try:
        Path(name).touch()
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    Image.fromarray(text_page((60, 80))).save("plain.pdf")
    Path("plain.pdf").rename(name)
    (report,) = run("in", output="out")
    assert report.status == "done"
    with Path(os.fsdecode(b"out/p\xe9.pdf")).open("rb") as stream, pikepdf.open(stream) as pdf:
        assert len(pdf.pages) == 1


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_scans_of_any_depth_in_sixteen_bits_look_alike(bits: int):
    page = np.asarray(text_page((120, 160)), np.float64)
    page = 255 - 0.4 * (255 - page)
    levels = np.rint(page / 255 * (2**bits - 1)).astype(np.uint16)
    shown = []
    for pixels in (np.rint(page).astype(np.uint8), levels):

        def read(box: Box, stored: Any = pixels) -> Any:
            return stored[None][(slice(None), *box.slices())]

        found = measure(read, pixels.shape, low=1, high=99, max_pixels=10**6)
        scaling = Scaling.of(Normalise(method="two_levels"), found, 1, pixels.dtype)
        shown.append((pixels.astype(np.float64) - scaling.shift[0]) * scaling.factor[0])
    assert np.abs(shown[0] - shown[1]).max() < 0.05


def test_no_resolution_is_made_up_for_a_jpeg(tmp_path):
    exif = Image.Exif()
    exif[271] = "a camera"
    Image.fromarray(text_page((60, 80))).save(tmp_path / "x.jpg", exif=exif)
    data = (tmp_path / "x.jpg").read_bytes()
    start = data.index(b"\xff\xe0")  # the JFIF segment, which cameras leave out
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    (tmp_path / "camera.jpg").write_bytes(data[:start] + data[start + 2 + length :])
    Image.fromarray(text_page((60, 80))).save(tmp_path / "scan.jpg", dpi=(300, 300))
    exif[282], exif[283], exif[296] = 150.0, 150.0, 2
    Image.fromarray(text_page((60, 80))).save(tmp_path / "y.jpg", exif=exif)
    data = (tmp_path / "y.jpg").read_bytes()
    (tmp_path / "told.jpg").write_bytes(data[:start] + data[start + 2 + length :])
    found: dict[str, Any] = {}
    for name in ("camera", "scan", "told"):
        source = open_pages(str(tmp_path / f"{name}.jpg"))
        found[name] = source.info.images[0].dpi
        source.close()
    assert found == {"camera": None, "scan": (300, 300), "told": (150, 150)}


def test_info_looks_at_headers_however_large_the_page(tmp_path):
    height = width = 40_000
    Image.MAX_IMAGE_PIXELS, before = None, Image.MAX_IMAGE_PIXELS
    try:
        Image.new("1", (width, height), 1).save(tmp_path / "large.png")
    finally:
        Image.MAX_IMAGE_PIXELS = before
    described = describe_document(str(tmp_path / "large.png"))
    assert described is not None
    assert "40000" in str(described)
