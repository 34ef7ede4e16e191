"""Pages put back into the PDF that they came from."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pikepdf
import pytest
from pikepdf import Array, Dictionary, Name, OutlineItem

from tests.page_sink_files import H, W, add_page, drawn, ink_seen, scan, text_of
from unetctl.errors import InputError
from unetctl.sinks.pages import Page, PageFileRecord, assemble, encode_page

UPRIGHT = f"q {W} 0 0 {H} 0 0 cm /Scan Do Q\n"
OCR = "BT 3 Tr /F1 12 Tf 10 40 Td (Hidden words) Tj ET\n"


def replaced(
    original: Path, seen: Iterable[npt.NDArray[Any]], dpi: tuple[float, float] | None = (72, 72)
) -> PageFileRecord:
    encoded = [encode_page(Page(pixels, dpi), "pdf") for pixels in seen]
    return assemble(original.with_name("out.pdf"), "pdf", encoded, original=original, provenance="unetctl")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three scanned pages with text layers and all that a document can have besides."""
    pdf = pikepdf.new()
    for i in range(3):
        image = scan(pdf, drawn(i), Decode=Array([0, 1]), SMask=scan(pdf, np.zeros((H, W), bool)) if i == 2 else None)
        order = [UPRIGHT + OCR, OCR + UPRIGHT, UPRIGHT + OCR][i]
        page = add_page(pdf, order, {"/Scan": image}, CropBox=Array([0, 0, W, H]), TrimBox=Array([2, 2, 80, 60]))
        page.Thumb = scan(pdf, drawn(i))
    link = Dictionary(Type=Name.Annot, Subtype=Name.Link, Rect=Array([0, 0, 9, 9]), Border=Array([0, 0, 0]))
    pdf.pages[1].obj.Annots = Array([pdf.make_indirect(link)])
    with pdf.open_outline() as outline:
        outline.root.extend([OutlineItem("One", 0), OutlineItem("Three", 2)])
    with pdf.open_metadata(set_pikepdf_as_editor=False) as metadata:
        metadata["dc:title"] = "An archive"
    pdf.docinfo[Name.Producer] = "a scanner"
    pdf.Root.PageLabels = Dictionary(Nums=Array([0, Dictionary(S=Name.r), 2, Dictionary(S=Name.D)]))
    pdf.save(tmp_path / "archive.pdf")
    return tmp_path / "archive.pdf"


def test_pictures_are_replaced_and_all_else_stays(archive: Path):
    new = [drawn(10 + i) for i in range(3)]
    record = replaced(archive, new)
    assert (record.num_pages, record.notes) == (3, ())
    assert [text.strip() for text in text_of(record.path)] == ["Hidden words"] * 3
    for found, pixels in zip(ink_seen(record.path), new, strict=True):
        np.testing.assert_array_equal(found, pixels)
    with pikepdf.open(archive) as before, pikepdf.open(record.path) as after:
        assert not after.check_pdf_syntax()
        for one, other in zip(before.pages, after.pages, strict=True):
            image = other.obj.Resources.XObject.Scan
            assert [str(image.Filter), int(image.BitsPerComponent)] == ["/CCITTFaxDecode", 1]
            assert image.ColorSpace == Name.DeviceGray
            assert not {"/SMask", "/Decode", "/ImageMask"} & set(image.keys())
            assert "/Thumb" not in other.obj
            assert other.obj.Contents.read_bytes() == one.obj.Contents.read_bytes()
            assert other.obj.TrimBox == one.obj.TrimBox
            assert other.obj.CropBox == one.obj.CropBox
            assert (one.label, len(one.obj.get("/Annots", []))) == (other.label, len(other.obj.get("/Annots", [])))
        with after.open_outline() as outline:
            assert [item.title for item in outline.root] == ["One", "Three"]
            destination = outline.root[1].destination
            assert isinstance(destination, Array)
            assert destination[0].objgen == after.pages[2].obj.objgen
        assert after.open_metadata()["dc:title"] == "An archive"
        assert str(after.docinfo[Name.Producer]) == "a scanner"
        assert after.Root.PageLabels.Nums == before.Root.PageLabels.Nums
        # the old scans are not carried along
        assert sum(obj.get("/Subtype") == Name.Image for obj in after.objects if isinstance(obj, pikepdf.Stream)) == 3


def test_same_original_and_pages_give_the_same_bytes(archive: Path):
    first = replaced(archive, [drawn(i) for i in range(3)]).path.read_bytes()
    assert replaced(archive, [drawn(i) for i in range(3)]).path.read_bytes() == first


MATRICES = {
    "upright": (W, 0, 0, H, 0, 0),
    "mirrored": (-W, 0, 0, H, W, 0),
    "upside down": (W, 0, 0, -H, 0, H),
    "half turn": (-W, 0, 0, -H, W, H),
    "quarter turn": (0, W, -H, 0, H, 0),
    "three quarters": (0, -W, H, 0, 0, W),
    "transposed": (0, W, H, 0, 0, 0),
    "transposed the other way": (0, -W, -H, 0, H, W),
}


@pytest.mark.parametrize(
    ("rotate", "kind"),
    [*((turn, "1-bit") for turn in (0, 90, 180, 270, -90)), (90, "grey"), (180, "colour"), (270, "deep")],
)
def test_turned_pages_look_as_before_with_their_own_turn(tmp_path: Path, rotate: int, kind: str):
    pdf = pikepdf.new()
    for matrix in MATRICES.values():
        box = (0, 0, W, H) if matrix[0] else (0, 0, H, W)
        content = f"q {' '.join(map(str, matrix))} cm /Scan Do Q\n" + OCR
        add_page(pdf, content, {"/Scan": scan(pdf, drawn())}, box, Rotate=rotate)
    pdf.save(tmp_path / "in.pdf")
    seen = ink_seen(tmp_path / "in.pdf")
    grey = [np.where(ink, 3, 250).astype("u1") for ink in seen]
    pages: list[npt.NDArray[Any]] = {
        "1-bit": list(seen),
        "grey": list(grey),
        "colour": [np.stack([page] * 3, axis=2) for page in grey],
        "deep": [page.astype("u2") * 257 for page in grey],
    }[kind]
    record = replaced(tmp_path / "in.pdf", pages)
    assert record.notes == ()
    for found, ink in zip(ink_seen(record.path), seen, strict=True):
        np.testing.assert_array_equal(found, ink)
    with pikepdf.open(record.path) as after:
        assert [page.obj.Rotate for page in after.pages] == [rotate] * len(MATRICES)
        for page in after.pages:
            scan_now = page.obj.Resources.XObject.Scan
            assert (int(scan_now.Width), int(scan_now.Height)) == (W, H)


@pytest.mark.parametrize("is_inherited", [False, True])
def test_pages_that_share_a_picture_get_one_each(tmp_path: Path, is_inherited: bool):
    pdf = pikepdf.new()
    shared = pdf.make_indirect(scan(pdf, drawn()))
    for _ in range(3):
        add_page(pdf, UPRIGHT + OCR, {"/Scan": shared})
    common = pdf.make_indirect(pdf.pages[0].obj.Resources)
    for page in pdf.pages:
        if is_inherited:
            del page.obj.Resources
        else:
            page.obj.Resources = common
    if is_inherited:
        pdf.Root.Pages.Resources = common
    pdf.save(tmp_path / "in.pdf")
    new = [drawn(10 + i) for i in range(3)]
    record = replaced(tmp_path / "in.pdf", new)
    assert record.notes == ()
    for found, pixels in zip(ink_seen(record.path), new, strict=True):
        np.testing.assert_array_equal(found, pixels)
    assert [text.strip() for text in text_of(record.path)] == ["Hidden words"] * 3


def form(pdf: pikepdf.Pdf, content: str, resources: Any) -> pikepdf.Object:
    made: pikepdf.Object = pdf.make_stream(content.encode(), Type=Name.XObject, Subtype=Name.Form,
                           BBox=Array([0, 0, W, H]), Matrix=Array([1, 0, 0, 1, 0, 0]), Resources=resources)  # fmt: skip
    return made


def test_pictures_and_text_layers_inside_forms(tmp_path: Path):
    """As OCRmyPDF makes them: the layer is a form; here the scan is in one, too, which two pages share."""
    pdf = pikepdf.new()
    fonts = Dictionary(F1=Dictionary(Type=Name.Font, Subtype=Name.Type1, BaseFont=Name.Helvetica))
    outer = pdf.make_indirect(form(pdf, UPRIGHT, Dictionary(XObject=Dictionary(Scan=scan(pdf, drawn())))))
    layer = pdf.make_indirect(form(pdf, OCR, Dictionary(Font=fonts)))
    for _ in range(2):
        add_page(pdf, "/Layer Do q 1 0 0 1 0 0 cm /Outer Do Q", {"/Outer": outer, "/Layer": layer})
    pdf.save(tmp_path / "in.pdf")
    record = replaced(tmp_path / "in.pdf", [drawn(5), drawn(6)])
    assert record.notes == ()
    for found, seed in zip(ink_seen(record.path), (5, 6), strict=True):
        np.testing.assert_array_equal(found, drawn(seed))
    assert [text.strip() for text in text_of(record.path)] == ["Hidden words"] * 2


def test_what_the_scan_covers_is_no_loss(tmp_path: Path):
    pdf = pikepdf.new()
    under = f"1 1 1 rg 0 0 {W} {H} re f BT /F1 12 Tf 10 40 Td (Covered words) Tj ET\n"
    add_page(pdf, under + UPRIGHT, {"/Scan": scan(pdf, drawn())})
    pdf.save(tmp_path / "in.pdf")
    record = replaced(tmp_path / "in.pdf", [drawn(4)])
    assert record.notes == ()
    np.testing.assert_array_equal(ink_seen(record.path)[0], drawn(4))
    assert text_of(record.path)[0].strip() == "Covered words"


def test_no_scan_stays_hidden_under_the_new_one(tmp_path: Path):
    pdf = pikepdf.new()
    under = UPRIGHT.replace("Scan", "Under")
    add_page(pdf, under + UPRIGHT + OCR, {"/Under": scan(pdf, ~drawn()), "/Scan": scan(pdf, drawn())})
    pdf.save(tmp_path / "in.pdf")
    record = replaced(tmp_path / "in.pdf", [drawn(4)])
    assert record.notes == (f"page 1: pictures became one picture of the whole page{AS_LAYER}",)
    np.testing.assert_array_equal(ink_seen(record.path)[0], drawn(4))
    with pikepdf.open(record.path) as after:
        assert sum(obj.get("/Subtype") == Name.Image for obj in after.objects if isinstance(obj, pikepdf.Stream)) == 1


def test_a_small_scan_on_a_larger_page_stays_where_it_is(tmp_path: Path):
    """What came is told from a rendering of the whole page by its size on paper, or else by its number of pixels."""
    pdf = pikepdf.new()
    placed = f"q {W} 0 0 {H} 30 40 cm /Scan Do Q\n"
    for _ in range(2):
        add_page(pdf, placed, {"/Scan": scan(pdf, drawn())}, (0, 0, 200, 180))
    pdf.save(tmp_path / "in.pdf")
    whole = np.zeros((180, 200), bool)
    whole[180 - 40 - H : 180 - 40, 30 : 30 + W] = drawn(3)
    for dpi in ((72, 72), None):
        record = replaced(tmp_path / "in.pdf", [drawn(3), whole], dpi)
        for found in ink_seen(record.path):
            np.testing.assert_array_equal(found, whole)
        assert record.notes == ("page 2: its picture became one picture of the whole page",)
        with pikepdf.open(record.path) as after:
            assert list(after.pages[0].obj.Resources.XObject.keys()) == ["/Scan"]


def test_resampled_scans_fit_where_they_were(tmp_path: Path):
    pdf = pikepdf.new()
    add_page(pdf, UPRIGHT, {"/Scan": scan(pdf, drawn())})
    pdf.save(tmp_path / "in.pdf")
    record = replaced(tmp_path / "in.pdf", [drawn().repeat(3, axis=0).repeat(3, axis=1)], (216, 216))
    assert record.notes == ()
    np.testing.assert_array_equal(ink_seen(record.path)[0], drawn())


# -- pages whose content has to go


CROP = (10, 20, 10 + W, 20 + H)
VISIBLE = "BT /F1 12 Tf 20 40 Td (Visible words) Tj 2 Tr 0 12 Td (and more) Tj ET\n"
RECTANGLE = "/Missing Do /Missing gs 0 0 0 rg 30 30 20 20 re f\n"
TWICE = "q 30 0 0 30 20 30 cm /Scan Do Q q 30 0 0 30 60 30 cm /Scan Do Q\n"
SLANTED = "q 60 9 -9 60 30 20 cm /Scan Do Q\n"
INLINE = "q 20 0 0 20 20 30 cm BI /W 1 /H 1 /BPC 8 /CS /G ID \x20 EI Q\n"
FADED = f"q /G1 gs {W} 0 0 {H} 10 20 cm /Scan Do Q\n"
AS_LAYER = ", with the text as an invisible layer"


@pytest.mark.parametrize(
    ("content", "note", "text"),
    [
        (VISIBLE, "text became one picture of the whole page" + AS_LAYER, "Visible words and more"),
        (VISIBLE + RECTANGLE, "drawings and text became one picture of the whole page" + AS_LAYER, "Visible words and more"),
        (TWICE + OCR, "pictures became one picture of the whole page" + AS_LAYER, "Hidden words"),
        (SLANTED, "its picture became one picture of the whole page", ""),
        (INLINE, "its picture became one picture of the whole page", ""),
        (FADED, "its picture became one picture of the whole page", ""),
        (UPRIGHT + "1 0 cm", "content that cannot be read and picture became one picture of the whole page", ""),
        (RECTANGLE + "Q Q q q " + VISIBLE, "drawings and text became one picture of the whole page" + AS_LAYER,
         "Visible words and more"),
        ("", None, ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rotate", [0, 270])
def test_other_content_becomes_a_picture_and_its_text_an_invisible_layer(
    tmp_path: Path, content: str, note: str | None, text: str, rotate: int
):
    pdf = pikepdf.new()
    page = add_page(pdf, content, {"/Scan": scan(pdf, drawn())}, (0, 0, 130, 120), CropBox=Array(CROP), Rotate=rotate)
    page.Resources.ExtGState = Dictionary(G1=Dictionary(ca=0.5))
    pdf.save(tmp_path / "in.pdf")
    seen = np.rot90(drawn(8), -rotate // 90)
    record = replaced(tmp_path / "in.pdf", [seen])
    assert record.notes == ((f"page 1: {note}",) if note else ())
    np.testing.assert_array_equal(ink_seen(record.path)[0], seen)
    assert sorted(text_of(record.path)[0].split()) == sorted(text.split())  # in what order, depends on the turn
    with pikepdf.open(record.path) as after:
        assert not after.check_pdf_syntax()
        assert list(after.pages[0].obj.Resources.XObject.keys()) == ["/UnetctlPage"]
        assert [float(n) for n in after.pages[0].cropbox] == list(CROP)


def test_text_in_fonts_that_always_paint_is_lost_and_said(tmp_path: Path):
    pdf = pikepdf.new()
    glyph = pdf.make_stream(b"1000 0 0 0 750 750 d1 0 0 750 750 re f")
    page = add_page(pdf, "BT /F3 12 Tf 20 40 Td (aa) Tj ET", {})
    page.Resources.Font.F3 = Dictionary(
        Type=Name.Font, Subtype=Name.Type3, FontBBox=Array([0, 0, 750, 750]),
        FontMatrix=Array([0.001, 0, 0, 0.001, 0, 0]), CharProcs=Dictionary(sq=glyph), FirstChar=97, LastChar=97,
        Widths=Array([1000]), Encoding=Dictionary(Type=Name.Encoding, Differences=Array([97, Name.sq])),
    )  # fmt: skip
    add_page(pdf, "BT /F1 12 Tf 20 40 Td (plain) Tj ET", {})
    pdf.save(tmp_path / "in.pdf")
    record = replaced(tmp_path / "in.pdf", [drawn(1), drawn(2)])
    assert record.notes == (
        "page 1: text became one picture of the whole page; its text layer is lost",
        "page 2: text became one picture of the whole page, with the text as an invisible layer",
    )
    np.testing.assert_array_equal(ink_seen(record.path)[0], drawn(1))


def test_pages_with_the_same_loss_are_told_together(tmp_path: Path):
    pdf = pikepdf.new()
    for i in range(7):
        add_page(pdf, UPRIGHT + (RECTANGLE if i not in (3, 5) else ""), {"/Scan": scan(pdf, drawn())})
    pdf.save(tmp_path / "in.pdf")
    record = replaced(tmp_path / "in.pdf", [drawn(i) for i in range(7)])
    assert record.notes == ("pages 1-3, 5, 7: drawings and picture became one picture of the whole page",)
    for i, found in enumerate(ink_seen(record.path)):
        np.testing.assert_array_equal(found, drawn(i))


# -- documents


def test_encryption_and_signatures_are_said_to_be_gone(tmp_path: Path):
    pdf = pikepdf.new()
    add_page(pdf, UPRIGHT, {"/Scan": scan(pdf, drawn())})
    pdf.Root.AcroForm = Dictionary(Fields=Array([]), SigFlags=3)
    pdf.save(tmp_path / "in.pdf", encryption=pikepdf.Encryption(owner="o", user="", R=6))
    record = replaced(tmp_path / "in.pdf", [drawn(1)])
    assert [note.split(" of the original")[0] for note in record.notes] == ["the digital signature", "the encryption"]
    with pikepdf.open(record.path) as after:
        assert not after.is_encrypted
    np.testing.assert_array_equal(ink_seen(record.path)[0], drawn(1))


def test_originals_that_cannot_be_used_are_refused(archive: Path):
    broken = archive.with_name("broken.pdf")
    broken.write_bytes(b"%PDF-1.4 and no more")
    with pikepdf.open(archive) as pdf:
        pdf.save(archive.with_name("locked.pdf"), encryption=pikepdf.Encryption(owner="o", user="u"))
    for name, message in (
        ("broken.pdf", "cannot be read"),
        ("locked.pdf", "cannot be read"),
        (archive.name, "3 pages"),
    ):
        with pytest.raises(InputError, match=message):
            replaced(archive.with_name(name), [drawn()])
    assert not archive.with_name("out.pdf").exists()
    assert not [path for path in archive.parent.iterdir() if path.name.startswith(".")]
