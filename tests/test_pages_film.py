"""Films: animated GIFs and folders of frames, frame by frame, their times kept; and overlays, of single pictures too."""

import io
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.page_weights_files import save_page_weights
from unetctl.errors import InputError, UsageError
from unetctl.geometry.box import Box
from unetctl.jobs.api import dry_run, predict
from unetctl.jobs.pages.feed import PageFeed
from unetctl.jobs.pages.overlay import STRENGTH, TINT, tinted
from unetctl.runtime.report import RunReport
from unetctl.sinks.page import BrokenPageError, Page
from unetctl.sinks.page_gif import Timing, encode_gif, gif_sizes, join_gifs
from unetctl.sinks.pages import assemble, page_kind_for
from unetctl.sources.pages import open_pages

Predict = Callable[..., list[RunReport]]
DURATIONS = [100, 50, 200, 70, 400, 30, 90, 60, 110, 80]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network for colour pictures; its foreground is no ink."""
    changed: dict[str, Any] = {
        "input": {"channels": 3, "luminance": False}, "normalise": {"method": "range"}, "output": {"classes": ["shape"]},
    }  # fmt: skip
    return save_page_weights(tmp_path_factory.mktemp("film") / "find.safetensors", "find", **changed)


@pytest.fixture
def run(weights: Path) -> Predict:
    return lambda inputs, **options: predict(inputs, weights, **{"precision": "fp32", **options})


def frames(num: int = 10, size: tuple[int, int] = (40, 56)) -> list[Image.Image]:
    """A square that moves over a ground of few colours: GIF keeps them exactly."""
    y, x = np.mgrid[: size[0], : size[1]]
    made = []
    for i in range(num):
        pixels = np.stack([(x // 8 * 30) % 256, (y // 8 * 40) % 256, np.full(size, 90)], -1).astype(np.uint8)
        pixels[10:25, 3 + 3 * i : 15 + 3 * i] = (250, 20, 30)
        made.append(Image.fromarray(pixels))
    return made


def film(path: str = "film.gif", **options: Any) -> Path:
    """Pillow writes only the part of a frame that has changed."""
    first, *others = frames()
    first.save(path, save_all=True, append_images=others, **{"duration": DURATIONS, "loop": 3, **options})
    return Path(path)


def times(path: Path) -> tuple[list[int], int | None]:
    with Image.open(path) as image:
        found = []
        for i in range(getattr(image, "n_frames", 1)):
            image.seek(i)
            found.append(int(image.info.get("duration", 0)))
        return found, image.info.get("loop")


def shown(path: Path, i: int = 0) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        image.seek(i)
        return np.asarray(image.convert("RGB"))


# -- reading


@pytest.mark.parametrize("disposal", [1, 2])
def test_partial_frames_are_put_together_in_any_order(disposal: int):
    path = film(disposal=disposal)
    want = [np.asarray(frame) for frame in frames()]
    source = open_pages(str(path))
    assert [image.shape for image in source.images] == [(3, 40, 56)] * 10
    for i in (0, 1, 9, 2, 8, 3, 3, 0, 5):
        found = source.read(i, Box((0, 0, 0), (3, 40, 56)))
        assert np.array_equal(np.moveaxis(found, 0, -1), want[i]), i
    assert np.array_equal(source.read(4, Box((1, 5, 6), (2, 30, 50)))[0], want[4][5:30, 6:50, 1])
    assert [origin.duration_ms for origin in source.origins] == DURATIONS
    assert {origin.loop for origin in source.origins} == {3}
    assert source.info.identity
    source.close()


def test_what_is_transparent_is_white():
    clear, square = Image.new("RGBA", (20, 20), (0, 0, 0, 0)), Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    square.paste((255, 0, 0, 255), (5, 5, 15, 15))
    clear.save("clear.gif", save_all=True, append_images=[square], disposal=2, duration=50)
    source = open_pages("clear.gif")
    whole = Box((0, 0, 0), (3, 20, 20))
    assert (source.read(0, whole) == 255).all()
    found = source.read(1, whole)
    assert tuple(found[:, 10, 10]) == (255, 0, 0)
    assert tuple(found[:, 0, 0]) == (255, 255, 255)
    source.close()


def test_a_single_frame_is_a_picture_as_ever():
    frames()[0].save("one.gif")
    source = open_pages("one.gif")
    assert (len(source.images), source.origins[0].kind, source.origins[0].duration_ms) == (1, "gif", None)
    source.close()


def test_damaged_films_are_told():
    data = film().read_bytes()
    Path("cut.gif").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cut\.gif"):
        _read_all("cut.gif")


def _read_all(path: str) -> None:
    with closing(open_pages(path)) as source:
        for i, image in enumerate(source.images):
            source.read(i, Box((0, 0, 0), image.shape))


# -- writing


@settings(max_examples=20)
@given(
    st.integers(1, 6), st.integers(1, 40), st.integers(1, 40), st.sampled_from(["bool", "uint8", "uint16", "colour"]),
    st.one_of(st.none(), st.integers(0, 9)),
)  # fmt: skip
def test_frames_come_back_as_they_were(num: int, height: int, width: int, kind: str, loop: int | None):
    rng = np.random.default_rng(num * 41 + height)
    pages: list[npt.NDArray[Any]] = []
    for _ in range(num):
        if kind == "bool":
            pages.append(rng.random((height, width)) < 0.5)
        elif kind == "colour":  # more than 256 colours are not kept exactly
            pages.append(rng.integers(0, 6, (height, width, 3)).astype(np.uint8) * np.uint8(51))
        else:
            pages.append(rng.integers(0, 256, (height, width)).astype(kind) * (257 if kind == "uint16" else 1))
    encoded = [encode_gif(Page(page, None)) for page in pages]
    file = io.BytesIO()
    timing = Timing(tuple(10 * (i + 2) for i in range(num)), loop)
    sizes = join_gifs(file, [io.BytesIO(one) for one in encoded], timing, "a test")
    file.seek(0)
    assert gif_sizes(file) == sizes == [(height, width)] * num
    with Image.open(file) as image:
        assert getattr(image, "n_frames", 1) == num
        assert image.info.get("loop") == loop
        for i, page in enumerate(pages):
            image.seek(i)
            assert image.info["duration"] == 10 * (i + 2)
            found = np.asarray(image.convert("RGB"))
            plain = np.where(page, 0, 255) if kind == "bool" else page >> 8 if kind == "uint16" else page
            if kind != "colour" or len(np.unique(page.reshape(-1, 3), axis=0)) <= 256:
                assert np.array_equal(found, plain if kind == "colour" else np.repeat(plain[..., None], 3, 2))


def test_many_colours_become_the_nearest_of_256():
    y, x = np.mgrid[:64, :64].astype(np.uint8)
    page = np.stack([x * 4, y * 4, x + y], -1)
    with Image.open(io.BytesIO(encode_gif(Page(page, None)))) as image:
        found = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(found - page).mean() < 12


def test_half_a_gif_is_not_taken_for_one():
    data = encode_gif(Page(np.zeros((9, 9), bool), None))
    for stop in (0, 5, 20, len(data) - 1):
        with pytest.raises(BrokenPageError):
            gif_sizes(io.BytesIO(data[:stop]))


def test_kinds_and_an_assembled_file():
    assert page_kind_for("gif", True, None, 3) == "gif"
    assert page_kind_for("gif", True, None, 1) == "png"
    assert page_kind_for("gif", True, "tiff", 3) == "tiff"
    assert page_kind_for("jpeg", False, None, 1) == "png"
    pages = [encode_gif(Page(np.full((6, 8), i, np.uint8), None)) for i in range(3)]
    record = assemble(Path("x.gif"), "gif", pages, provenance="unetctl test")
    assert (record.num_pages, times(Path("x.gif"))) == (3, ([100] * 3, 0))
    assert b"unetctl test" in Path("x.gif").read_bytes()
    again = assemble(Path("y.gif"), "gif", pages, provenance="unetctl test")
    assert again.sha256 == record.sha256


# -- overlays


@given(st.sampled_from(["uint8", "uint16"]), st.booleans(), st.integers(0, 2**16))
def test_only_what_is_found_is_tinted(dtype: str, is_colour: bool, seed: int):
    rng = np.random.default_rng(seed)
    white = np.iinfo(dtype).max
    page = rng.integers(0, white + 1, (3, 7, 9) if is_colour else (7, 9)).astype(dtype)
    mask = np.where(rng.random((7, 9)) < 0.5, 255, 0).astype(np.uint8)
    found = tinted(page, mask)
    colour = np.moveaxis(page if is_colour else np.stack([page] * 3), 0, -1)
    assert (found.dtype, found.shape) == (page.dtype, (7, 9, 3))
    assert np.array_equal(found[mask == 0], colour[mask == 0])
    want = colour * (1 - STRENGTH) + np.array(TINT) * white * STRENGTH
    assert np.abs(found[mask > 0] - want[mask > 0]).max(initial=0) <= 0.5 + 1e-6 * white


def test_a_film_gives_a_film(run: Predict):
    path = film()
    (report,) = run(path)
    assert (report.output, report.status, report.num_done) == ("film-find.gif", "done", 10)
    assert times(Path("film-find.gif")) == (DURATIONS, 3)
    (over,) = run(path, keep="overlay", output=Path("over.gif"))
    assert over.status == "done"
    assert times(Path("over.gif")) == (DURATIONS, 3)
    some = False
    for i in range(10):
        mask, overlay, frame = shown(Path("film-find.gif"), i), shown(Path("over.gif"), i), shown(path, i)
        is_there = mask[..., 0] > 0
        some |= bool(is_there.any())
        assert np.array_equal(overlay, tinted(np.moveaxis(frame, -1, 0), is_there))
    assert some
    assert run(path, keep="overlay", output=Path("over.gif"))[0].status == "nothing-new"


def test_a_folder_of_frames_gives_a_film_or_a_folder(run: Predict):
    Path("shots").mkdir()
    for i, frame in enumerate(frames(4)):
        frame.save(f"shots/f{i + 8}.png")  # 8, 9, 10, 11: by number, not by letter
    (report,) = run("shots", keep="overlay", output=Path("film.gif"))
    assert (report.status, report.num_done) == ("done", 4)
    assert times(Path("film.gif")) == ([100] * 4, 0)
    (mask,) = run("shots", output=Path("mask.gif"))
    for i, frame in enumerate(frames(4)):
        is_there = shown(Path(mask.output), i)[..., 0] > 0
        assert np.array_equal(shown(Path("film.gif"), i), tinted(np.moveaxis(np.asarray(frame), -1, 0), is_there))
    assert run("shots", keep="overlay", output=Path("film.gif"))[0].status == "nothing-new"
    frames(5)[4].save("shots/f12.png")
    assert run("shots", keep="overlay", output=Path("film.gif"))[0].num_done == 5
    reports = run("shots", keep="overlay", output=Path("single"))
    assert sorted(p.name for p in Path("single").iterdir()) == [f"f{i}.png" for i in (10, 11, 12, 8, 9)]
    assert all(r.status == "done" for r in reports)
    Image.new("RGB", (30, 30)).save("shots/odd.png")
    with pytest.raises(InputError, match="frames of one size"):
        run("shots", output=Path("again.gif"))


def test_single_pictures_grey_deep_scaled_and_large(run: Predict, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(3)
    deep = rng.integers(0, 2**16, (60, 90)).astype(np.uint16)
    Image.fromarray(deep).save("deep.png")
    run("deep.png", keep="overlay")
    run("deep.png", output=Path("mask.png"))
    with Image.open("mask.png") as mask:
        is_there = np.asarray(mask.convert("L")) > 0
    found = imagecodecs.png_decode(Path("deep-find.png").read_bytes())
    assert np.array_equal(found, tinted(deep, is_there))
    # The same page, in a store of its own, and at another scale.
    run("deep.png", keep="overlay", output=Path("scaled.png"), scale=0.5)
    scaled = imagecodecs.png_decode(Path("scaled.png").read_bytes())
    assert scaled.shape == (60, 90, 3)
    same = (scaled == deep[..., None]).all(-1)
    assert same.any()

    def small(*args: Any, **options: Any) -> PageFeed:
        return PageFeed(*args, **{**options, "page_bytes": 1})

    monkeypatch.setattr("unetctl.jobs.pages.run.PageFeed", small)
    run("deep.png", keep="overlay", output=Path("large.png"))
    assert np.array_equal(imagecodecs.png_decode(Path("large.png").read_bytes()), found)


def test_what_cannot_be_laid_over_is_refused(run: Predict, tiny_weights: Path, em_file: Path):
    with pytest.raises(UsageError, match="--keep overlay for a volume"):
        predict(em_file, tiny_weights, keep="overlay")
    with pytest.raises(UsageError, match="--keep overlay for a volume"):
        dry_run(em_file, tiny_weights, keep="overlay")
    first, second = Image.new("RGB", (20, 20)), Image.new("RGB", (30, 20))
    first.save("two.tif", save_all=True, append_images=[second])
    with pytest.raises(UsageError, match="one size, as a GIF's frames have"):
        run("two.tif", output=Path("two.gif"))
    assert not list(Path().glob("two*.gif"))
