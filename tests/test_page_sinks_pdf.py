"""Pages as a new PDF."""

import os
from pathlib import Path

import numpy as np
import pikepdf
import pytest
from pikepdf import Name

from tests.page_sink_files import drawn, ink_seen, pdf_pixels
from unetctl.sinks.pages import Page, assemble, encode_page


def test_a_new_document_has_pages_of_the_size_on_paper(tmp_path: Path):
    originals = [drawn(), np.full((100, 50, 3), 7, "u1"), drawn()[:1, :1], np.arange(12, dtype="u2").reshape(3, 4)]
    encoded = [encode_page(Page(pixels, (300, 150)), "pdf") for pixels in originals]
    record = assemble(tmp_path / "a.pdf", "pdf", encoded, provenance="unetctl 1")
    assert (record.num_pages, record.notes) == (4, ())
    with pikepdf.open(record.path) as pdf:
        assert str(pdf.docinfo[Name.Producer]) == "unetctl 1"
        assert set(pdf.docinfo.keys()) == {"/Producer"}
        for page, pixels in zip(pdf.pages, originals, strict=True):
            size = [float(number) for number in page.mediabox]
            assert size == pytest.approx([0, 0, pixels.shape[1] * 72 / 150, pixels.shape[0] * 72 / 300], abs=2e-4)
        assert pdf.pages[0].obj.Resources.XObject.Im0.Filter == Name.CCITTFaxDecode
        assert not pdf.check_pdf_syntax()
    for found, pixels in zip(pdf_pixels(record.path), originals, strict=True):
        np.testing.assert_array_equal(found, ~pixels if pixels.dtype == bool else pixels)


def test_pdfium_sees_the_ink_black(tmp_path: Path):
    record = assemble(tmp_path / "a.pdf", "pdf", [encode_page(Page(drawn(), (72, 72)), "pdf")])
    np.testing.assert_array_equal(ink_seen(record.path)[0], drawn())


@pytest.mark.parametrize("dpi", [300, 600, 96, 200.5])
def test_rendered_at_its_resolution_a_page_has_the_size_of_the_picture(tmp_path: Path, dpi: float):
    pages = [drawn()[:h, :w] for h, w in ((70, 90), (61, 83), (67, 89), (53, 31))]
    record = assemble(tmp_path / "a.pdf", "pdf", [encode_page(Page(pixels, (dpi, dpi)), "pdf") for pixels in pages])
    for found, pixels in zip(ink_seen(record.path, dpi / 72), pages, strict=True):
        assert found.shape == pixels.shape
        assert abs(np.mean(found) - np.mean(pixels)) < 0.02  # pdfium may repeat a column; poppler does not


def test_a_guessed_resolution_is_said(tmp_path: Path):
    encoded = [encode_page(Page(drawn(), dpi), "pdf") for dpi in (None, (300, 300), None, None)]
    record = assemble(tmp_path / "a.pdf", "pdf", encoded)
    assert record.notes == ("pages 1, 3-4: no resolution is known, so the size on paper is as for 300 DPI",)
    assert b"Unetctl" not in record.path.read_bytes()


def test_a_page_too_long_for_pdf_units_gets_larger_units(tmp_path: Path):
    one = encode_page(Page(np.zeros((9, 2500), bool), (10, 10)), "pdf")
    with pikepdf.open(assemble(tmp_path / "a.pdf", "pdf", [one]).path) as pdf:
        (page,) = pdf.pages
        assert int(page.obj.UserUnit) == 2
        assert [float(n) for n in page.mediabox] == pytest.approx([0, 0, 9000, 32.4], abs=2e-4)


def test_many_pages_of_files_with_any_names(tmp_path: Path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 @-x"))
    folder.mkdir()
    paths = [folder / f"-{i} ä.pdf" for i in range(60)]
    for i, path in enumerate(paths):
        path.write_bytes(encode_page(Page(drawn(i), (72, 72)), "pdf"))
    record = assemble(folder / "a.pdf", "pdf", paths)
    assert record.num_pages == 60
    with record.path.open("rb") as file:
        for i, found in enumerate(pdf_pixels(file)):
            np.testing.assert_array_equal(found, ~drawn(i))
    again = assemble(folder / "b.pdf", "pdf", paths, original=record.path)
    assert (again.num_pages, again.notes) == (60, ())
