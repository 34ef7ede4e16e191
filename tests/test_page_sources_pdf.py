"""PDF documents as pages: the scan itself where a page is one, else the page drawn."""

import io
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pikepdf
import pypdfium2  # type: ignore[import-untyped]
import pytest
from PIL import Image

from tests.page_source_files import g4_bytes, grey_image, jbig2_bytes, one_page_pdf, text_page
from unetctl.errors import InputError
from unetctl.geometry.box import Box
from unetctl.sources.open import is_picture, open_source
from unetctl.sources.orientation import upright
from unetctl.sources.pages import PageSource, open_pages

Name = pikepdf.Name
PAGE = text_page((90, 180))
INK = PAGE < 120
MATRICES = (
    "144 0 0 72 0 0",
    "-144 0 0 72 144 0",
    "144 0 0 -72 0 72",
    "-144 0 0 -72 144 72",
    "0 72 144 0 0 0",
    "0 -72 144 0 0 72",
    "0 72 -144 0 144 0",
    "0 -72 -144 0 144 72",
)


def whole(source: PageSource, i: int = 0) -> npt.NDArray[Any]:
    """All of a page."""
    return source.read(i, Box.whole(source.info.images[i].shape))


def rendered(path: Path, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """What PDFium draws at the resolution at which the first page has this shape, as grey."""
    document = pypdfium2.PdfDocument(path)
    page = document[0]
    picture = page.render(scale=shape[-1] / page.get_width(), draw_annots=False).to_pil().convert("L")
    page.close()
    document.close()
    return np.asarray(picture.resize(shape[::-1])).astype(float)


@pytest.mark.parametrize(
    ("matrix", "rotate"),
    [(matrix, rotate) for matrix in MATRICES for rotate in (0, 90, 180, 270, -90)],
)
def test_scans_lie_as_the_page_shows_them_at_their_own_pixels(tmp_path: Path, matrix: str, rotate: int):
    told, data = grey_image(PAGE)
    path = one_page_pdf(tmp_path / "a.pdf", told, data, content=f"q {matrix} cm /I Do Q", page={"/Rotate": rotate})
    source = open_pages(str(path))
    image, origin = source.info.images[0], source.origins[0]
    page = whole(source)
    assert origin.is_embedded
    assert origin.kind == "pdf"
    np.testing.assert_array_equal(page, upright(PAGE, origin.rotation))
    assert np.abs(page - rendered(path, image.shape)).mean() < 12
    # 180 columns on 144 points are 90 dpi, 90 rows on 72 points too, unless the picture is squeezed to the page
    turned = not matrix.startswith(("144", "-144"))
    along, across = (180 / 72 * 72, 90 / 144 * 72) if turned else (90.0, 90.0)
    columns_upright = (origin.rotation < 5) == (image.shape == PAGE.shape)
    assert columns_upright
    assert image.dpi == pytest.approx((across, along) if origin.rotation < 5 else (along, across))
    source.close()


def test_boxes_user_unit_and_crop_box(tmp_path: Path):
    told, data = grey_image(PAGE)
    path = one_page_pdf(tmp_path / "a.pdf", told, data, page={"/UserUnit": 2})
    source = open_pages(str(path))
    assert source.origins[0].dpi == (45, 45)
    np.testing.assert_array_equal(source.read(0, Box((10, 20), (30, 90))), PAGE[10:30, 20:90])
    path = one_page_pdf(tmp_path / "b.pdf", told, data, page={"/CropBox": [0, 0, 72, 72]})
    source = open_pages(str(path))
    assert not source.origins[0].is_embedded
    assert source.info.images[0].shape == (3, 90, 90)
    np.testing.assert_allclose(whole(source)[0], PAGE[:, :90], atol=40)


def test_hidden_text_and_frames_leave_the_scan_alone_and_what_can_be_seen_does_not(tmp_path: Path):
    told, data = grey_image(PAGE)
    font = pikepdf.Dictionary(Type=Name.Font, Subtype=Name.Type1, BaseFont=Name.Helvetica)
    resources = {"/Font": pikepdf.Dictionary(F=font), "/ExtGState": pikepdf.Dictionary(G=pikepdf.Dictionary(ca=0.5))}
    draw = "q 144 0 0 72 0 0 cm /I Do Q"
    text = "BT /F 9 Tf 10 10 Td (word) Tj ET"
    for content, is_scan in (
        (f"{draw} 3 Tr {text}", True),
        (f"{text} {draw}", True),
        (f"1 g 0 0 144 72 re f {draw}", True),
        (f"q 0 0 144 72 re W n {draw} Q", True),
        (f"q q q {draw}", True),
        (f"{draw} {draw}", True),
        (f"{draw} {text}", False),
        (f"{draw} 0 0 9 9 re f", False),
        (f"{draw} 9 9 m 20 20 l S", False),
        (f"q 0 0 50 72 re W n {draw} Q", False),
        (f"q 9 9 m 99 9 l 9 70 l h W n {draw} Q", False),
        (f"/G gs {draw}", False),
        (f"{draw} q 20 0 0 20 9 9 cm /I Do Q", False),
        ("q 130 0 0 72 0 0 cm /I Do Q", False),
        ("q 144 10 -3 72 0 0 cm /I Do Q", False),
        (f"{draw} q 5 0 0 5 0 0 cm BI /W 1 /H 1 /BPC 8 /CS /G ID x EI Q", False),
    ):
        path = one_page_pdf(tmp_path / "a.pdf", told, data, content=content, resources=resources)
        source = open_pages(str(path), pdf_dpi=72)
        origin, image = source.origins[0], source.info.images[0]
        assert origin.is_embedded == is_scan, content
        page = whole(source)
        if is_scan:
            np.testing.assert_array_equal(page, PAGE)
        else:
            assert page.shape == image.shape
            assert "drawn at" in origin.notes[0]
            # what lies upon a scan is drawn at the scan's own resolution, so that its pixels stay
            assert image.dpi is not None
            assert image.shape[1:] == (round(image.dpi[0]), round(2 * image.dpi[1]))
            assert image.shape[1:] == PAGE.shape or content.startswith("q 1")
        source.close()


def test_scans_inside_forms(tmp_path: Path):
    told, data = grey_image(PAGE)
    path = one_page_pdf(tmp_path / "a.pdf", told, data)
    with pikepdf.open(path, allow_overwriting_input=True) as pdf:
        page = pdf.pages[0]
        form = pikepdf.Stream(pdf, b"q 72 0 0 36 0 0 cm /I Do Q")
        form.update(
            pikepdf.Dictionary(Type=Name.XObject, Subtype=Name.Form, BBox=[0, 0, 72, 36], Matrix=[2, 0, 0, 2, 0, 0])
        )
        form["/Resources"] = page.obj.Resources
        page.obj["/Resources"] = pikepdf.Dictionary(XObject=pikepdf.Dictionary(F=pdf.make_indirect(form)))
        page.obj["/Contents"] = pdf.make_indirect(pikepdf.Stream(pdf, b"/F Do"))
        pdf.save(path)
    source = open_pages(str(path))
    assert source.origins[0].is_embedded
    np.testing.assert_array_equal(whole(source), PAGE)


def jpeg_bytes(pixels: npt.NDArray[Any], **options: Any) -> bytes:
    """As Pillow writes it."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", **options)
    return stream.getvalue()


def codings() -> dict[str, tuple[dict[str, Any], bytes, npt.NDArray[Any], bool]]:
    """Name: (dictionary, stream, expected pixels, bilevel)."""
    height, width = PAGE.shape
    size = {"Width": width, "Height": height}
    grey, rgb = {"ColorSpace": Name.DeviceGray}, {"ColorSpace": Name.DeviceRGB}
    bits = np.packbits(~INK, axis=1).tobytes()
    colour = np.dstack([PAGE, PAGE[::-1], 255 - PAGE])
    two = np.where(INK, np.uint8(0), np.uint8(255))
    jpeg = jpeg_bytes(colour, quality=95)
    jp2 = io.BytesIO()
    Image.fromarray(PAGE).save(jp2, "JPEG2000")
    ramp = pikepdf.String(bytes(v for i in range(256) for v in (255 - i,) * 3))
    fax = pikepdf.Dictionary(K=-1, Columns=width, Rows=height)
    inverted = 255 - PAGE
    return {
        "bits": (size | grey | {"BitsPerComponent": 1}, bits, two, True),
        "bits inverted": (size | grey | {"BitsPerComponent": 1, "Decode": [1, 0]}, bits, 255 - two, True),
        "stencil": (size | {"ImageMask": True, "BitsPerComponent": 1}, bits, two, True),
        "stencil inverted": (size | {"ImageMask": True, "Decode": [1, 0]}, bits, 255 - two, True),
        "g4": (size | grey | {"BitsPerComponent": 1, "Filter": Name.CCITTFaxDecode, "DecodeParms": fax}, g4_bytes(INK), two, True),
        "jbig2": (size | grey | {"BitsPerComponent": 1, "Filter": Name.JBIG2Decode}, jbig2_bytes(INK), two, True),
        "grey table": (
            size | {"ColorSpace": pikepdf.Array([Name.Indexed, Name.DeviceRGB, 255, ramp]), "BitsPerComponent": 8},
            PAGE.tobytes(), inverted, False,
        ),
        "rgb": (size | rgb | {"BitsPerComponent": 8}, colour.tobytes(), colour.transpose(2, 0, 1), False),
        "jpeg": (
            size | rgb | {"BitsPerComponent": 8, "Filter": Name.DCTDecode},
            jpeg, np.asarray(Image.open(io.BytesIO(jpeg))).transpose(2, 0, 1), False,
        ),
        "jpx": (size | {"Filter": Name.JPXDecode}, jp2.getvalue(), PAGE, False),
        "sixteen": (size | grey | {"BitsPerComponent": 16}, (PAGE.astype(">u2") * 257).tobytes(), PAGE, False),
    }  # fmt: skip


@pytest.mark.parametrize("name", codings())
def test_every_coding_is_read_as_it_is(tmp_path: Path, name: str):
    told, data, expected, is_bilevel = codings()[name]
    path = one_page_pdf(tmp_path / "a.pdf", told, data)
    source = open_pages(str(path))
    origin = source.origins[0]
    assert (origin.is_embedded, origin.is_bilevel) == (True, is_bilevel)
    np.testing.assert_array_equal(whole(source), expected)
    drawn = rendered(path, PAGE.shape)
    shown = expected.astype(float) if expected.ndim == 2 else expected.transpose(1, 2, 0) @ [0.299, 0.587, 0.114]
    assert np.abs(drawn - shown).mean() < 12  # polarity as readers show it


def test_inks_profiles_and_lies_about_jpeg(tmp_path: Path):
    inks = Image.fromarray(np.dstack([PAGE, PAGE[::-1], PAGE // 2, PAGE // 4]), "CMYK")
    stream = io.BytesIO()
    inks.save(stream, "JPEG", quality=95)
    told = {"Width": 180, "Height": 90, "BitsPerComponent": 8, "ColorSpace": Name.DeviceCMYK, "Filter": Name.DCTDecode}
    path = one_page_pdf(tmp_path / "a.pdf", told | {"Decode": [1, 0] * 4}, stream.getvalue())
    source = open_pages(str(path))
    assert (source.info.images[0].shape, source.origins[0].is_embedded) == ((3, 90, 180), True)
    assert np.abs(whole(source).mean(0) - rendered(path, (90, 180))).mean() < 15
    # a dictionary that does not say what its JPEG is: the page still has the declared size
    lying = told | {"ColorSpace": Name.DeviceRGB}
    path = one_page_pdf(tmp_path / "b.pdf", lying, jpeg_bytes(PAGE))
    assert whole(open_pages(str(path))).shape == (3, 90, 180)


def many_scans(path: Path, num_pages: int, shape: tuple[int, int] = (300, 240)) -> list[bytes]:
    """A PDF of grey JPEG pages, no two alike."""
    pdf = pikepdf.new()
    found = []
    for i in range(num_pages):
        data = jpeg_bytes(np.roll(text_page(shape), i, axis=0), quality=80)
        pdf.add_blank_page(page_size=(shape[1], shape[0]))
        told = {"Width": shape[1], "Height": shape[0], "BitsPerComponent": 8, "ColorSpace": Name.DeviceGray}
        stream = pikepdf.Stream(pdf, data, Type=Name.XObject, Subtype=Name.Image, Filter=Name.DCTDecode, **told)
        pdf.pages[i].obj["/Resources"] = pikepdf.Dictionary(XObject=pikepdf.Dictionary(I=pdf.make_indirect(stream)))
        pdf.pages[i].obj["/Contents"] = pdf.make_indirect(
            pikepdf.Stream(pdf, f"{shape[1]} 0 0 {shape[0]} 0 0 cm /I Do".encode())
        )
        found.append(data)
    pdf.save(path, object_stream_mode=pikepdf.ObjectStreamMode.generate)
    return found


def test_a_thousand_pages_open_at_once_and_are_read_from_threads(tmp_path: Path):
    scans = many_scans(tmp_path / "a.pdf", 1000, (60, 50))
    began = time.perf_counter()
    source = open_pages(str(tmp_path / "a.pdf"))
    assert time.perf_counter() - began < 5
    assert [image.name for image in source.info.images[:2]] == ["page-1", "page-2"]
    wrong: list[int] = []

    def work(first: int) -> None:
        for i in range(first, 1000, 37):
            if not np.array_equal(whole(source, i), np.asarray(Image.open(io.BytesIO(scans[i])))):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(source._held) <= 2  # type: ignore[attr-defined]
    source.close()


def test_drawing_and_embedding_from_threads(tmp_path: Path):
    pdf = pikepdf.new()
    for i in range(12):
        told, data = grey_image(np.roll(PAGE, i, axis=1))
        path = one_page_pdf(
            tmp_path / "one.pdf", told, data, content="q 144 0 0 72 0 0 cm /I Do Q" + i % 2 * " 0 0 3 3 re f"
        )
        with pikepdf.open(path) as one:
            pdf.pages.extend(one.pages)
    pdf.save(tmp_path / "a.pdf")
    source = open_pages(str(tmp_path / "a.pdf"))
    alone = [whole(source, i) for i in range(12)]
    again: dict[int, npt.NDArray[Any]] = {}
    threads = [
        threading.Thread(target=lambda k=k: again.update({i: whole(source, i) for i in range(k, 12, 3)}))
        for k in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(12):
        np.testing.assert_array_equal(again[i], alone[i])


def read_everything(path: Path, **options: Any) -> None:
    """All pages of a document."""
    source = open_pages(str(path), **options)
    for i in range(len(source.info.images)):
        whole(source, i)
    source.close()


def refused(path: Path, match: str, **options: Any) -> None:
    """One sentence."""
    with pytest.raises(InputError, match=match) as caught:
        read_everything(path, **options)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_locked_damaged_and_overlarge_documents_are_refused(tmp_path: Path):
    told, data = grey_image(PAGE)
    path = one_page_pdf(tmp_path / "a.pdf", told, data)
    with pikepdf.open(path) as pdf:
        pdf.save(tmp_path / "locked.pdf", encryption=pikepdf.Encryption(owner="o", user="u"))
        pdf.save(tmp_path / "open.pdf", encryption=pikepdf.Encryption(owner="o", user=""))
    refused(tmp_path / "locked.pdf", "locked by a password")
    np.testing.assert_array_equal(whole(open_pages(str(tmp_path / "open.pdf"))), PAGE)
    refused(path, "15.8 KiB.*8.0 KiB.*more memory", max_bytes=8192)
    (tmp_path / "junk.pdf").write_bytes(b"%PDF-1.3\nThis is no PDF\n%%EOF\n")
    refused(tmp_path / "junk.pdf", "sound PDF")
    many_scans(tmp_path / "b.pdf", 1)
    scan = (tmp_path / "b.pdf").read_bytes()
    at = scan.index(b"\xff\xda")
    (tmp_path / "b.pdf").write_bytes(scan[: at + 100] + bytes(len(scan) - at - 100))
    refused(tmp_path / "b.pdf", "cannot be read|sound PDF")
    huge = told | {"Width": 200_000, "Height": 200_000}
    refused(one_page_pdf(tmp_path / "c.pdf", huge, data), "37.3 GiB")
    wide = one_page_pdf(tmp_path / "d.pdf", None, size=(14_400, 14_400), content="0 0 9 9 re f")
    refused(wide, "60000 x 60000.*--pdf-dpi")
    assert open_pages(str(wide), pdf_dpi=36).info.images[0].shape == (3, 7200, 7200)
    with pikepdf.open(path) as pdf:
        swollen = pikepdf.Stream(pdf, zlib.compress(bytes(300 << 20), 1), Filter=Name.FlateDecode)
        pdf.pages[0].obj["/Contents"] = pdf.make_indirect(swollen)
        pdf.save(tmp_path / "e.pdf", compress_streams=False, stream_decode_level=pikepdf.StreamDecodeLevel.none)
    refused(tmp_path / "e.pdf", "more than 256 MiB")


def test_a_document_left_open_does_not_crash_the_process_at_its_end(tmp_path: Path):
    told, data = grey_image(PAGE)
    path = one_page_pdf(tmp_path / "a.pdf", told, data)
    code = (
        "import sys; from unetctl.sources.pages import open_pages; from unetctl.geometry.box import Box\n"
        "source = open_pages(sys.argv[1]); source.read(0, Box((0, 0), (9, 9)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_pdfs_are_pages_and_nothing_else(tmp_path: Path):
    told, data = grey_image(PAGE)
    path = one_page_pdf(tmp_path / "a.pdf", told, data)
    assert not is_picture(str(path))
    with pytest.raises(InputError, match=r"PDF.*pages"):
        open_source(str(path))


def test_damage_never_surfaces_as_another_exception(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(3)
    path = tmp_path / "a.pdf"
    many_scans(path, 2)
    told, data = codings()["g4"][:2]
    sound = [
        path.read_bytes(),
        one_page_pdf(path, told, data, content="q 144 0 0 72 0 0 cm /I Do Q 0 0 5 5 re f").read_bytes(),
    ]
    num_read = 0
    for i in range(120):
        out = bytearray(sound[i % 2])
        if i % 3 == 0:
            out = out[: rng.integers(1, len(out))]
        else:
            for _ in range(8):
                out[int(rng.integers(0, len(out)))] = int(rng.integers(0, 256))
        path.write_bytes(bytes(out))
        try:
            read_everything(path, max_bytes=1 << 24, pdf_dpi=72)
            num_read += 1
        except InputError:
            pass
    assert 0 < num_read < 120
    assert capfd.readouterr() == ("", "")
