"""Documents: folders of pages in, folders of pages out, each file done once and whole."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pikepdf
import pytest
from PIL import Image

from tests.page_source_files import grey_image, one_page_pdf, text_page
from unetctl.errors import IncompleteError, InputError, UsageError
from unetctl.jobs.api import dry_run, predict
from unetctl.jobs.corpus import predict_all
from unetctl.jobs.options import PredictOptions
from unetctl.jobs.pages.ledger import read_ledger
from unetctl.jobs.pages.results import FileResult, PageStyle
from unetctl.jobs.pages.shares import Shares
from unetctl.runtime.report import RunReport
from unetctl.sinks.page import Page
from unetctl.sources.base import ImageInfo
from unetctl.sources.pages import PageOrigin, open_pages

Predict = Callable[..., list[RunReport]]
SHAPES = [(60, 90), (110, 70), (33, 41), (64, 128)]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """These networks are tiny: threads would only wait for each other. What is written lies where one stands."""
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(page_weights: Path) -> Predict:
    """Predicts inputs."""
    return lambda inputs, **options: predict(inputs, page_weights, **{"precision": "fp32", **options})


def scans(folder: str = "scans", num: int = 4) -> Path:
    """A folder of pages of several sizes."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    for i in range(num):
        Image.fromarray(text_page(SHAPES[i % len(SHAPES)], i)).save(path / f"p{i}.png", dpi=(300, 300))
    return path


def ink(path: Path, i_page: int = 0) -> npt.NDArray[np.bool_]:
    """True where a page is black."""
    with Image.open(path) as image:
        image.seek(i_page)
        return np.asarray(image.convert("L")) < 128


def statuses(reports: list[RunReport]) -> dict[str, str]:
    """File name to what came of it."""
    return {Path(report.input).name: report.status for report in reports}


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# -- what comes out


def test_pages_come_out_with_one_bit_their_size_and_resolution(run):
    folder = scans()
    reports = run(folder)
    assert statuses(reports) == dict.fromkeys(("p0.png", "p1.png", "p2.png", "p3.png"), "done")
    for i, report in enumerate(reports):
        with Image.open(report.output) as image:
            assert (image.mode, image.size) == ("1", SHAPES[i][::-1])
            assert image.info["dpi"] == pytest.approx((300, 300), rel=1e-3)
        assert ink(Path(report.output)).mean() == pytest.approx(report.details["ink"][0], abs=1e-6)
    assert sorted(p.name for p in Path("scans-ink").iterdir()) == ["p0.png", "p1.png", "p2.png", "p3.png"]


@pytest.mark.parametrize("is_ink", [True, False])
def test_ink_is_black_and_any_other_foreground_is_white(is_ink):
    answer = np.array([[0, 255], [255, 0]], np.uint8)
    info = ImageInfo("", (2, 2), "yx", np.dtype(np.uint8))
    page = PageStyle("mask", is_ink).page(answer, info, PageOrigin("png", False, None, None, 1, ()))
    assert (page.pixels == ((answer > 0) == is_ink)).all()  # True is written black


def test_probabilities_are_eight_bit_and_agree_with_the_mask(run):
    folder = scans(num=2)
    masks, greys = run(folder, output="a"), run(folder, output="b", keep="probability")
    for mask, grey in zip(masks, greys, strict=True):
        with Image.open(grey.output) as image:
            assert image.mode == "L"
            assert ((np.asarray(image) >= 128) == ink(Path(mask.output))).all()


def test_a_page_is_the_same_alone_among_others_in_parts_and_from_a_store(run):
    folder = scans(num=7)
    whole = {Path(r.input).name: ink(Path(r.output)) for r in run(folder, output="whole", core=32)}
    alone = run(folder / "p1.png", core=32)[0]
    assert (ink(Path(alone.output)) == whole["p1.png"]).all()
    done = [r for i in (3, 1, 2) for r in run(folder, output="parts", core=32, part=(i, 3)) if r.status == "done"]
    assert sorted(Path(r.input).name for r in done) == sorted(whole)
    assert tree(Path("parts")) == tree(Path("whole"))
    # every page is a large one now: block by block into a store, band by band into its file
    with pytest.MonkeyPatch.context() as patch:
        shares = Shares.of
        patch.setattr(Shares, "of", staticmethod(lambda budget: replace(shares(budget), page=0)))
        patch.setattr("unetctl.jobs.pages.results._BAND_ROWS", 16)
        stored = run(folder, output="stored", core=32)
    assert tree(Path("stored")) == tree(Path("whole"))
    assert [r.details["ink"] for r in stored] == [
        r.ink and list(r.ink) for r in sorted(read_ledger(Path("whole.run")), key=lambda r: r.name)
    ]
    assert not list(Path("stored.run").glob("large-*"))


def test_files_of_several_pages_come_back_as_such(run):
    pages = [text_page(shape, i) for i, shape in enumerate(SHAPES[:3])]
    first, *others = [Image.fromarray(page) for page in pages]
    first.save("book.tif", save_all=True, append_images=others, dpi=(200, 200))
    pdf = pikepdf.new()
    for i, page in enumerate(pages):
        told, data = grey_image(page)
        one_page_pdf(Path(f"{i}.pdf"), told, data)
        with pikepdf.open(f"{i}.pdf") as one:
            pdf.pages.extend(one.pages)
    pdf.save("book.pdf")
    (tiff,) = run("book.tif")
    with Image.open(tiff.output) as image:
        assert (getattr(image, "n_frames", 1), image.mode) == (3, "1")
        assert image.info["compression"] == "group4"
    for i, page in enumerate(pages):
        Image.fromarray(page).save("one.png")
        (alone,) = run("one.png", existing="overwrite", fresh=True)
        assert (ink(Path(tiff.output), i) == ink(Path(alone.output))).all()
    (document,) = run("book.pdf")
    assert document.output == "book-ink.pdf"
    made = open_pages(document.output)
    assert [image.shape for image in made.images] == SHAPES[:3]
    assert all(origin.is_embedded and origin.is_bilevel for origin in made.origins)
    made.close()
    assert not list(Path().glob("*.run/spool-*"))


# -- what is worked on


def test_a_rerun_works_on_new_changed_and_failed_files_only(run):
    folder = scans()
    (folder / "bad.png").write_bytes((folder / "p0.png").read_bytes()[:150])
    (folder / "empty.jpg").write_bytes(b"")
    first = run(folder)
    assert statuses(first) == {"bad.png": "failed", "empty.jpg": "failed"} | {f"p{i}.png": "done" for i in range(4)}
    assert all("\n" not in r.error and r.details["exit_code"] == 4 for r in first if r.status == "failed")
    before = tree(Path("scans-ink"))
    Image.fromarray(text_page((50, 60), 9)).save(folder / "new.png")
    Image.fromarray(text_page(SHAPES[0], 77)).save(folder / "p0.png")
    (folder / "p2.png").touch()  # the same content at another time
    again = statuses(run(folder))
    assert again == {
        "bad.png": "failed", "empty.jpg": "failed", "new.png": "done", "p0.png": "done", "p1.png": "nothing-new",
        "p2.png": "nothing-new", "p3.png": "nothing-new",
    }  # fmt: skip
    after = tree(Path("scans-ink"))
    assert after["p1.png"] == before["p1.png"]
    assert after["p0.png"] != before["p0.png"]
    summary = json.loads(Path("scans-ink.run/summary.json").read_text())
    assert sorted(Path(name).name for name in summary["details"]["failed"]) == ["bad.png", "empty.jpg"]
    assert (summary["details"]["num_new"], summary["details"]["num_unchanged"]) == (2, 3)


@pytest.mark.parametrize("harm", [lambda p: p.unlink(), lambda p: p.write_bytes(b"torn")])
def test_an_output_that_is_gone_or_torn_is_made_again(run, harm):
    folder = scans()
    run(folder)
    before = tree(Path("scans-ink"))
    harm(Path("scans-ink/p1.png"))
    is_there = Path("scans-ink/p1.png").exists()
    assert [r.status for r in run(folder)].count("done") == 1
    after = tree(Path("scans-ink"))
    assert after.pop("p1.png.changed-1", None) == (b"torn" if is_there else None)  # torn, or written by somebody
    assert after == before


def test_altered_bytes_of_the_same_size_are_found_by_verify(run):
    folder = scans()
    run(folder)
    path = Path("scans-ink/p1.png")
    before = path.read_bytes()
    path.write_bytes(before[:-1] + b"x")
    assert {r.status for r in run(folder)} == {"nothing-new"}
    assert statuses(run(folder, verify=True))["p1.png"] == "done"
    assert path.read_bytes() == before


def test_stopped_it_goes_on_and_ends_with_the_same_bytes(run, monkeypatch):
    monkeypatch.setattr("unetctl.jobs.pages.run._GROUP_PAGES", 2)
    folder = scans(num=7)
    run(folder, output="whole")
    asked = iter(range(10_000))
    reports = run(folder, output="cut", should_stop=lambda: next(asked) > 15)
    assert reports[-1].status == "stopped"
    num_done = sum(r.status == "done" for r in reports)
    assert 0 < num_done < 7
    again = run(folder, output="cut")
    assert sum(r.status == "nothing-new" for r in again) == num_done
    assert tree(Path("cut")) == tree(Path("whole"))


def test_pages_of_a_long_file_are_not_computed_twice(run, monkeypatch):
    monkeypatch.setattr("unetctl.jobs.pages.run._GROUP_PAGES", 1)
    pages = [Image.fromarray(text_page((60, 50), i)) for i in range(6)]
    pages[0].save("book.tif", save_all=True, append_images=pages[1:])
    run("book.tif", output="whole.tif")
    asked = iter(range(10_000))
    assert run("book.tif", output="cut.tif", should_stop=lambda: next(asked) > 12)[-1].status == "stopped"
    assert not Path("cut.tif").exists()
    num_kept = len(list(Path("cut.tif.run").glob("spool-*/page-*")))
    assert 0 < num_kept < 6
    added: list[int] = []
    add = FileResult.add

    def noted(self: FileResult, i_page: int, page: Page) -> None:
        added.append(i_page)
        add(self, i_page, page)

    monkeypatch.setattr(FileResult, "add", noted)
    run("book.tif", output="cut.tif")
    assert added == list(range(num_kept, 6))
    assert Path("cut.tif").read_bytes() == Path("whole.tif").read_bytes()


def test_other_settings_are_refused_and_fresh_starts_over(run):
    folder = scans(num=2)
    run(folder, threshold=0.5)
    with pytest.raises(UsageError, match=r"holds a run that differs: threshold: 0\.4, was 0\.5"):
        run(folder, threshold=0.4)
    assert {r.status for r in run(folder, threshold=0.4, fresh=True)} == {"done"}


def test_what_lies_there_already_is_not_overwritten_unasked(run):
    folder = scans(num=2)
    Path("scans-ink").mkdir()
    Path("scans-ink/p0.png").write_text("precious")
    assert statuses(run(folder)) == {"p0.png": "failed", "p1.png": "done"}
    assert statuses(run(folder, existing="skip"))["p0.png"] == "skipped"
    assert Path("scans-ink/p0.png").read_text() == "precious"
    assert statuses(run(folder, existing="overwrite"))["p0.png"] == "done"


# -- names


def test_the_tree_is_mirrored_and_equal_names_stay_apart(run):
    folder = scans("scans/a", 1).parent
    scans("scans/b/c", 1)
    Image.fromarray(text_page((40, 40), 3)).save(folder / "a" / "p0.jpg")
    with pytest.raises(InputError, match="--recursive"):
        run(folder)
    reports = run(folder, recursive=True)
    assert sorted(str(Path(r.output)) for r in reports) == [
        "scans-ink/a/p0.jpg.png", "scans-ink/a/p0.png.png", "scans-ink/b/c/p0.png",
    ]  # fmt: skip
    assert {r.status for r in run(folder, recursive=True)} == {"nothing-new"}


def test_loose_files_of_equal_names_stay_apart_and_outputs_are_no_inputs(run):
    scans("a", 1), scans("b", 1)
    reports = run(["a/p0.png", "b/p0.png"], output="out")
    assert sorted(r.output for r in reports) == ["out/a/p0.png", "out/b/p0.png"]
    shutil.copy("a/p0.png", "x.png")
    shutil.copy("b/p0.png", "y.png")
    assert sorted(r.output for r in run(["x.png", "y.png"])) == ["x-ink.png", "y-ink.png"]
    assert statuses(run("*.png")) == {"x.png": "nothing-new", "y.png": "nothing-new"}


def test_the_kind_of_files_is_the_user_s_to_choose(run):
    folder = scans(num=1)
    (report,) = run(folder, format="tiff")
    assert report.output == "scans-ink/p0.tif"
    (report,) = run(folder / "p0.png", output="one.pdf")
    with pikepdf.open(report.output) as pdf:
        assert len(pdf.pages) == 1
    pages = [Image.fromarray(text_page((60, 50), i)) for i in range(2)]
    pages[0].save("book.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(UsageError, match="has 2 pages, and a PNG holds one"):
        run("book.tif", format="png")


def test_checksums_are_those_of_the_files(run):
    folder = scans()
    run(folder, checksums=True)
    lines = Path("scans-ink.sha256").read_text().splitlines()
    assert [line.split("  ") for line in lines] == [
        [hashlib.sha256(p.read_bytes()).hexdigest(), p.name] for p in sorted(Path("scans-ink").iterdir())
    ]


def test_a_dry_run_writes_nothing(run, page_weights):
    folder = scans()
    (plan,) = dry_run(folder, page_weights)
    assert plan.lines()[0] == "4 files of pages -> scans-ink/"
    assert sorted(p.name for p in Path().iterdir()) == ["scans"]


def test_failures_end_the_run_when_there_are_too_many(page_weights):
    folder = scans(num=1)
    for i in range(4):
        (folder / f"bad{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(IncompleteError, match="3 files failed; expected at most 2"):
        predict_all([str(folder)], str(page_weights), PredictOptions(precision="fp32"), max_failed="2")
