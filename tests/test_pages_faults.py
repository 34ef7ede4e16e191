"""Documents that break, change, vanish or are of odd kinds; that nothing stays open, and that a page is always the same."""

import gc
import json
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from tests.page_source_files import text_page
from tests.page_weights_files import save_page_weights
from unetctl.errors import InputError, ResourceError, UsageError
from unetctl.jobs.api import dry_run, predict
from unetctl.jobs.corpus import predict_all
from unetctl.jobs.options import PredictOptions
from unetctl.jobs.pages.feed import PageFeed
from unetctl.jobs.pages.inputs import page_sets
from unetctl.jobs.pages.ledger import read_ledger
from unetctl.jobs.pages.shares import Shares
from unetctl.jobs.pages.views import OnePage
from unetctl.runtime.report import RunReport
from unetctl.sources.files import RandomAccessFile
from unetctl.sources.page_view import PageView

Predict = Callable[..., list[RunReport]]
MIB = 2**20


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in test_pages."""
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(page_weights: Path) -> Predict:
    """Predicts inputs."""
    return lambda inputs, **options: predict(inputs, page_weights, **{"precision": "fp32", **options})


@pytest.fixture(autouse=True)
def nothing_stays_open():
    """Whatever a test does, the files that it had opened are closed."""
    before = RandomAccessFile._num_kept_open
    yield
    if RandomAccessFile._num_kept_open > before:
        gc.collect()  # TIFFs close with the last that knows them, and pytest keeps exceptions
    assert before >= RandomAccessFile._num_kept_open


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """No page is held in memory."""
    shares = Shares.of
    monkeypatch.setattr(Shares, "of", staticmethod(lambda budget: replace(shares(budget), page=0)))


def book(path: str, num: int = 3, broken: int | None = None, size: tuple[int, int] = (80, 60)) -> Path:
    """A TIFF of several pages, one of which may have torn data."""
    pages = [Image.fromarray(text_page(size, i)) for i in range(num)]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pages[0].save(path, save_all=True, append_images=pages[1:], compression="tiff_adobe_deflate")
    if broken is not None:
        with Image.open(path) as image:
            image.seek(broken)
            tags = getattr(image, "tag_v2")  # noqa: B009 - only TIFF images have it
            (offset, *_), (size_bytes, *_) = tags[273], tags[279]
        data = bytearray(Path(path).read_bytes())
        data[offset : offset + size_bytes] = b"\xff" * size_bytes
        Path(path).write_bytes(data)
    return Path(path)


def answers(path: str | Path) -> npt.NDArray[Any]:
    """Pixels of a page."""
    with Image.open(path) as image:
        return np.asarray(image)


# -- broken pages


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_page_that_breaks_fails_its_file_alone(run, broken):
    book("scans/a.tif")
    book("scans/b.tif", broken=broken)
    book("scans/c.tif")
    reports = {Path(r.input).name: r for r in run("scans")}
    assert {name: r.status for name, r in reports.items()} == {"a.tif": "done", "b.tif": "failed", "c.tif": "done"}
    assert "\n" not in reports["b.tif"].error
    assert reports["b.tif"].details["exit_code"] == 4
    assert sorted(os.listdir("scans-ink")) == ["a.tif", "c.tif"]


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("broken", [0, 2])
def test_a_large_page_that_breaks_fails_its_file_alone(run, broken):
    book("scans/a.tif")
    book("scans/b.tif", broken=broken)
    book("scans/c.tif")
    reports = {Path(r.input).name: r for r in run("scans")}
    assert {name: r.status for name, r in reports.items()} == {"a.tif": "done", "b.tif": "failed", "c.tif": "done"}
    assert reports["b.tif"].details["exit_code"] == 4
    book("scans/b.tif")
    assert {r.status for r in run("scans")} == {"done", "nothing-new"}
    assert not list(Path("scans-ink.run").glob("large-*")) + list(Path("scans-ink.run").glob("spool-*"))


@pytest.mark.usefixtures("all_large")
def test_what_is_no_fault_of_a_file_ends_the_run(run, monkeypatch):
    book("scans/a.tif")

    def full(*args: object, **options: object) -> None:
        raise ResourceError("the disk is full")

    monkeypatch.setattr("unetctl.sinks.zarr.ZarrSink.write", full)
    with pytest.raises(ResourceError, match="the disk is full"):
        run("scans")
    assert json.loads(Path("scans-ink.run/summary.json").read_text())["error"] == "the disk is full"


@pytest.mark.parametrize("error", [MemoryError(), ValueError("of a decoder"), OSError(5, "Input/output error")])
@pytest.mark.parametrize("large", [False, True])
def test_whatever_a_decoder_raises_the_others_are_done(run, monkeypatch, error, large, request):
    if large:
        request.getfixturevalue("all_large")
    book("scans/a.tif", 1)
    book("scans/b.tif", 1)
    read = PageView.read

    def raising(self: PageView, i_image: int, box: object) -> object:
        if self._path.endswith("a.tif"):
            raise error
        return read(self, i_image, box)  # type: ignore[arg-type]

    monkeypatch.setattr(PageView, "read", raising)
    reports = {Path(r.input).name: r for r in run("scans")}
    assert (reports["a.tif"].status, reports["b.tif"].status) == ("failed", "done")
    expected = {MemoryError: 6, OSError: 4, ValueError: 1}[type(error)]
    assert reports["a.tif"].details["exit_code"] == expected


def test_a_failure_of_the_only_file_is_raised_and_abort_ends_at_the_first(run, page_weights):
    book("a.tif", broken=1)
    with pytest.raises(InputError):
        run("a.tif")
    book("scans/a.tif", broken=1)
    book("scans/b.tif")
    with pytest.raises(InputError):
        predict_all(["scans"], str(page_weights), PredictOptions(precision="fp32"), on_error="abort")


# -- inputs that do not hold still


def test_an_input_that_is_changed_meanwhile_fails_and_is_worked_on_next_time(run, monkeypatch):
    book("scans/a.tif", 2)
    monkeypatch.setattr("unetctl.jobs.pages.run._GROUP_PAGES", 1)
    read = PageView.read

    def changing(self: PageView, i_image: int, box: object) -> object:
        pixels = read(self, i_image, box)  # type: ignore[arg-type]
        os.utime("scans/a.tif", ns=(1, 1))
        return pixels

    with monkeypatch.context() as patch:
        patch.setattr(PageView, "read", changing)
        (report,) = run("scans")
    assert "was changed while it was worked on" in report.error
    assert not Path("scans-ink").exists()
    assert [r.status for r in run("scans")] == ["done"]


def test_an_input_that_vanishes_fails_or_was_read_before(run, monkeypatch):
    book("scans/a.tif", 1)
    book("scans/b.tif", 1)
    found = page_sets(["scans"], "ink")

    def gone(*args: object, **options: object) -> object:
        Path("scans/a.tif").unlink()
        return found

    monkeypatch.setattr("unetctl.jobs.pages.job.page_sets", gone)
    reports = {Path(r.input).name: r for r in run("scans")}
    assert "cannot be found" in reports["a.tif"].error
    assert reports["b.tif"].status == "done"


def test_inputs_are_only_read(run):
    path = book("scans/a.tif", 2)
    path.chmod(0o444)
    path.parent.chmod(0o555)
    before = (path.read_bytes(), path.stat().st_mtime_ns, sorted(os.listdir("scans")))
    assert [r.status for r in run("scans")] == ["done"]
    assert (path.read_bytes(), path.stat().st_mtime_ns, sorted(os.listdir("scans"))) == before
    path.parent.chmod(0o755)


# -- the feed


def test_a_feed_that_is_left_early_closes_everything_and_does_not_hang():
    for i in range(12):
        book(f"scans/{i}.tif")
    files = page_sets(["scans"], "ink")[0].files

    def feed(page_bytes: int, ahead_bytes: int) -> PageFeed:
        return PageFeed(
            files, lambda opened: range(len(opened.images)),
            max_bytes=MIB, page_bytes=page_bytes, ahead_bytes=ahead_bytes, pdf_dpi=300,
        )  # fmt: skip

    for page_bytes in (MIB, 0):
        for ahead in (0, 10 * MIB):
            for taken in (0, 1, 5):
                with closing(iter(feed(page_bytes, ahead))) as items:
                    for _ in range(taken):
                        next(items)
            every = list(feed(page_bytes, ahead))
            assert [(i.file.name, i.i_page) for i in every] == [(f.name, k) for f in files for k in range(3)]


def test_files_that_were_read_are_forgotten_large_or_not():
    for i in range(4):
        book(f"scans/{i}.tif")
    files = page_sets(["scans"], "ink")[0].files
    for page_bytes in (MIB, 0):
        feed = PageFeed(
            files, lambda opened: range(len(opened.images)),
            max_bytes=MIB, page_bytes=page_bytes, ahead_bytes=0, pdf_dpi=300,
        )  # fmt: skip
        most = 0
        for item in feed:
            most = max(most, len(feed._opened))
            if item.pixels is None:
                assert item.opened is not None
                assert item.info is not None
                page = item.opened.page(item.i_page, item.info)
                page.close()
                page.close()  # counts once
        assert most <= 4
        assert not feed._opened
        last = feed._opened
    assert last == {}


def test_what_is_wanted_may_fail_the_run_and_closes_everything():
    book("scans/0.tif")
    files = page_sets(["scans"], "ink")[0].files

    def wanted(opened: object) -> list[int]:
        raise ResourceError("full")

    with pytest.raises(ResourceError):
        list(PageFeed(files, wanted, max_bytes=MIB, page_bytes=MIB, ahead_bytes=MIB, pdf_dpi=300))


# -- kinds of pages and networks


@pytest.fixture(scope="session")
def colour_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that takes colour."""
    path = tmp_path_factory.mktemp("colour") / "rgb.safetensors"
    return save_page_weights(path, "rgb", input={"channels": 3, "luminance": False})


@pytest.fixture(scope="session")
def class_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of three classes."""
    output, labels = {"classes": ["paper", "ink", "stamp"], "keep": "classes"}, {"kind": "classes"}
    return save_page_weights(
        tmp_path_factory.mktemp("classes") / "three.safetensors", "three", output=output, labels=labels
    )


def odd_pages() -> Path:
    """One page in many modes, all of the same grey values."""
    folder = Path("odd")
    folder.mkdir()
    grey = Image.fromarray(text_page((70, 50), 3))
    rgb = Image.merge("RGB", (grey, grey, grey))
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    opaque = Image.new("L", grey.size, 255)
    grey.save(folder / "grey.png")
    rgb.save(folder / "rgb.png", icc_profile=icc)
    Image.merge("RGBA", (grey, grey, grey, opaque)).save(folder / "rgba.png")
    Image.merge("LA", (grey, opaque)).save(folder / "la.png")
    grey.save(folder / "bmp.bmp")
    grey.save(folder / "tiff.tif")
    rgb.save(folder / "webp.webp", lossless=True)
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "deep.png")
    return folder


@pytest.mark.parametrize("large", [False, True])
def test_a_page_of_any_mode_gives_the_same(run, colour_weights, large, request):
    folder = odd_pages()
    if large:
        request.getfixturevalue("all_large")
    for weights, out in ((None, "a"), (colour_weights, "b")):
        if weights is None:
            reports = run(folder, output=out, keep="probability")
        else:
            reports = predict([folder], weights, output=out, keep="probability", precision="fp32")
        assert {r.status for r in reports} == {"done"}, [r.error for r in reports]
        pages = {Path(r.input).stem: answers(r.output).astype(int) for r in reports}
        assert pages["grey"].shape == (70, 50)
        assert pages["grey"].std() > 0
        for name, page in pages.items():
            assert abs(page - pages["grey"]).max() <= 1, name


def test_classes_are_kept_and_what_a_page_cannot_hold_is_refused(run, class_weights):
    folder = odd_pages()
    reports = predict([folder], class_weights, output="c", precision="fp32")
    assert {r.status for r in reports} == {"done"}
    assert all(set(np.unique(answers(r.output))) <= {0, 1, 2} for r in reports)
    with pytest.raises(UsageError, match="a page holds one mask"):
        predict([folder], class_weights, output="d", keep="mask", precision="fp32")
    with pytest.raises(UsageError, match="no raw scores"):
        run(folder, keep="logits")
    with pytest.raises(UsageError, match="image"):
        run(folder, keep="image")
    assert not Path("d.run").exists()


def test_other_formats_are_refused_or_start_over(run, page_weights):
    folder = odd_pages()
    run(folder)
    with pytest.raises(UsageError, match="format: tiff, was None"):
        run(folder, format="tiff")
    with pytest.raises(UsageError, match="format: tiff, was None"):
        dry_run([folder], page_weights, format="tiff", precision="fp32")
    run(folder, format="tiff", fresh=True)
    assert {p.suffix for p in Path("odd-ink").iterdir()} == {".tif"}


def test_little_memory_is_shared_out_or_said_once(run):
    folder = odd_pages()
    assert {r.status for r in run(folder, output="small", memory_bytes=600 * MIB)} == {"done"}
    with pytest.raises(ResourceError, match="of memory and the budget is"):
        run(folder, output="none", memory_bytes=300 * MIB)
    run(folder, output="big", core=2048, batch=4, memory_bytes=4096 * MIB)
    Image.fromarray(text_page((70, 50), 9)).save(folder / "new.png")
    with pytest.raises(ResourceError, match="the run was begun with cores of 2048 pixels, 4 at once"):
        run(folder, output="big", memory_bytes=440 * MIB)
    assert not any(r.status == "failed" for r in read_ledger(Path("big.run")))


def test_odd_shares_of_ink_are_listed_also_after_a_stop_in_the_middle(run, monkeypatch):
    book("book.tif", 6)
    monkeypatch.setattr("unetctl.jobs.pages.run._GROUP_PAGES", 1)
    monkeypatch.setattr("unetctl.jobs.pages.aftermath._MOST_INK", -1.0)
    whole = run("book.tif", output="whole.tif")[0]
    asked = iter(range(10_000))
    assert run("book.tif", output="cut.tif", should_stop=lambda: next(asked) > 12)[-1].status == "stopped"
    cut = run("book.tif", output="cut.tif")[0]
    assert cut.details["ink"] == whole.details["ink"]
    listed = json.loads(Path("cut.tif.run/summary.json").read_text())["details"]["odd_ink"]
    assert [len(names) for names in listed.values()] == [6]


def test_a_page_as_a_source_says_the_piece_that_is_decoded_whole():
    class Told:
        def __init__(self) -> None:
            from unetctl.sources.base import ImageInfo, SourceInfo

            info = ImageInfo("", (40, 50), "yx", np.dtype(np.uint16))
            self.info = SourceInfo("x", "x", (info,), {}, ((8, 50),))

        def read(self, i_image: int, box: object) -> npt.NDArray[Any]:
            return np.zeros((1, 1), np.uint16)

    told = Told()
    assert OnePage(told, 0, told.info.images[0], {}, lambda: None).chunk_bytes == 8 * 50 * 2
