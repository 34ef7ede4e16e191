"""What `info` says of documents and of runs over them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pikepdf
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from tests.page_source_files import grey_image, one_page_pdf, text_page
from unetctl.cli.app import app
from unetctl.jobs.info import FileDescription, describe_file
from unetctl.jobs.pages.inputs import PageSet
from unetctl.jobs.pages.ledger import Ledger, PageRecord, begin

INK = text_page((30, 40)) < 100


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(described: FileDescription, word: str = "page") -> list[tuple[str, str]]:
    return [(name, text) for name, text in described.facts if name.startswith(word)]


@pytest.mark.parametrize(
    ("name", "mode", "given", "line"),
    [
        ("a.png", "1", {"dpi": (300, 300)}, "30 x 40 px (yx), 1-bit, 300 dpi"),
        ("a.png", "L", {}, "30 x 40 px (yx), grey, dpi unknown"),
        ("a.jpg", "RGB", {"dpi": (200, 100)}, "30 x 40 px (yx), colour, 100 x 200 dpi (yx)"),
        ("a.tif", "1", {"compression": "group4"}, "30 x 40 px (yx), 1-bit, dpi unknown"),
        ("a.tif", "L", {"dpi": (300, 300)}, "30 x 40 px (yx), grey, 300 dpi"),
        ("a.bmp", "RGB", {"dpi": (96, 96)}, "30 x 40 px (yx), colour, 96"),
    ],
)
def test_a_picture_is_a_page(name: str, mode: str, given: dict[str, Any], line: str):
    Image.fromarray(text_page((30, 40))).convert(mode).save(name, **given)
    described = describe_file(name)
    assert described.kind == "pages"
    ((_, text),) = rows(described)
    assert text.startswith(line)
    (page,) = described.to_dict()["pages"]
    assert (page["shape"], page["is_bilevel"]) == ([30, 40], mode == "1")


def test_deep_grey_and_orientation_are_told():
    Image.fromarray(text_page((30, 40)).astype(np.uint16) * 257).save("deep.png")
    assert "16-bit grey" in rows(describe_file("deep.png"))[0][1]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(text_page((30, 40))).save("turned.jpg", exif=exif)
    ((_, text),) = rows(describe_file("turned.jpg"))
    assert text.startswith("40 x 30 px (yx), grey")
    assert "turned upright" in text


def test_pages_that_are_alike_are_one_line_and_others_are_counted():
    frames = [Image.fromarray(text_page((30, 40 + 2 * (i // 3)), i)) for i in range(24)]
    frames[0].save("many.tif", save_all=True, append_images=frames[1:], dpi=(200, 200))
    described = describe_file("many.tif")
    assert dict(described.facts)["pages"] == "24"
    listed = rows(described, "pages ")
    assert [name for name, _ in listed[:2]] == ["pages 1-3", "pages 4-6"]
    assert len(listed) == 6
    assert ("...", "and 6 more") in described.facts
    assert len(described.lines()) < 12
    assert len(described.to_dict()["pages"]) == 24


def test_pdfs_are_told_by_their_scans_and_their_drawn_pages():
    scan, data = grey_image(text_page((72, 144)))
    one_page_pdf(Path("scan.pdf"), scan, data)
    one_page_pdf(Path("text.pdf"), None, content="0 0 m 20 20 l S")
    with pikepdf.open("scan.pdf") as pdf, pikepdf.open("text.pdf") as other:
        pdf.pages.append(other.pages[0])
        pdf.save("both.pdf")
    described = describe_file("both.pdf")
    (_, first), (_, second) = rows(described, "page ")
    assert first == "72 x 144 px (yx), grey, 72 dpi, an embedded scan"
    assert second.startswith("300 x 600 px (yx), colour, 300 dpi; drawn at 300 dpi")
    assert [page["is_embedded"] for page in described.to_dict()["pages"]] == [True, False]
    result = CliRunner().invoke(app, ["info", "both.pdf", "--json"])
    assert [page["dpi"] for page in json.loads(result.stdout)["pages"]] == [[72, 72], [300, 300]]


def test_scans_in_a_tiff_are_told_as_a_stack_too():
    frames = [Image.fromarray(INK)] * 3
    frames[0].save("g4.tif", save_all=True, append_images=frames[1:], compression="group4")
    described = describe_file("g4.tif")
    assert [name for name, _ in rows(described)] == ["pages", "pages 1-3"]
    assert dict(described.facts)["as a stack"] == "zyx 3 x 30 x 40, uint8, for tasks on volumes"
    assert describe_file("g4.tif", axes="tyx").kind == "image"


@pytest.mark.parametrize("given", [{}, {"imagej": True}, {"ome": True}])
def test_stacks_of_microscopes_stay_volumes(given: dict[str, Any]):
    tifffile.imwrite(
        "stack.tif", np.zeros((3, 30, 40), np.uint8), photometric="minisblack", resolution=(300, 300), **given
    )
    described = describe_file("stack.tif")
    is_plain = not given  # a plain TIFF with dpi may be either: both are told
    assert described.kind == ("pages" if is_plain else "image")
    tifffile.imwrite("bare.tif", np.zeros((3, 30, 40), np.float32), photometric="minisblack", **given)
    assert describe_file("bare.tif").kind == "image"


def test_a_damaged_pdf_is_one_sentence():
    Path("bad.pdf").write_bytes(b"%PDF-1.4\nnothing")
    result = CliRunner().invoke(app, ["info", "bad.pdf"])
    assert result.exit_code == 4
    assert "bad.pdf" in result.stderr
    assert CliRunner().invoke(app, ["info", "nowhere.pdf"]).exit_code == 4


def test_runs_of_pages_are_told_by_folder_run_and_file():
    place, run = Path("scans-ink"), Path("scans-ink.run")
    place.mkdir()
    begin(PageSet((), place, run), {"task": "ink", "keep": "mask", "threshold": 0.5})
    with Ledger(run, "main") as ledger:
        ledger.mark(PageRecord("a.png", "done", output="a.png", num_pages=1))
        ledger.mark(PageRecord("b.tif", "done", output="b.tif", num_pages=4))
        ledger.mark(PageRecord("c.png", "failed", error="c.png is cut off"))
    for path in (place, run):
        described = describe_file(str(path))
        assert described.kind == "run"
        assert ("state", "2 files done (5 pages), 1 failed") in described.facts
        assert ("failed", "c.png: c.png is cut off") in described.facts
        assert described.to_dict()["run"]["num_pages"] == 5
    run.rename("one.tif.run")
    Image.fromarray(INK).save("one.tif", dpi=(300, 300))
    described = describe_file("one.tif")
    assert described.kind == "pages"
    assert ("made by", "unetctl predict: mask from 0.5 by ink, page by page") in described.facts
