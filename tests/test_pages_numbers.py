"""Numbers of objects as pages: kinds of files that keep them, and pages that a kind cannot hold."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.object_cases import save_bright_weights
from unetctl.errors import UsageError
from unetctl.jobs.api import dry_run, predict
from unetctl.jobs.pages.results import PageStyle
from unetctl.runtime.report import RunReport

Predict = Callable[..., list[RunReport]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Predict:
    """Predicts by a network to which all that is bright is an object."""
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
    monkeypatch.chdir(tmp_path)
    save_bright_weights(Path("bright.safetensors"))
    return lambda inputs, **options: predict(inputs, "./bright.safetensors", **{"precision": "fp32", **options})


def squares(num: int) -> Image.Image:
    pixels = np.zeros((30, 60), np.uint8)
    for i in range(num):
        pixels[8:20, 3 + 14 * i : 12 + 14 * i] = 220
    return Image.fromarray(pixels)


def test_a_film_of_objects_becomes_a_tiff_that_keeps_their_numbers(run: Predict) -> None:
    frames = [squares(n) for n in (2, 4, 3)]
    frames[0].save("film.gif", save_all=True, append_images=frames[1:])
    (report,) = run("film.gif")
    assert report.output.endswith("film-bright.tif")
    assert [int(page.max()) for page in tifffile.imread(report.output)] == [2, 4, 3]
    for wanted in ({"format": "gif"}, {"format": "pdf"}, {"output": Path("x.gif")}):
        for ask in (run, lambda inputs, **options: dry_run(inputs, "./bright.safetensors", **options)):
            with pytest.raises(UsageError, match=r"--keep labels in (GIF|PDF); .*--format tiff"):
                ask("film.gif", **wanted)
    assert not Path("x.gif.run").exists()
    (shown,) = run("film.gif", output=Path("shown.gif"), keep="probability")
    assert shown.status == "done"


@pytest.mark.parametrize("is_large", [False, True])
def test_a_page_that_its_kind_of_file_cannot_hold_fails_its_file_alone(
    run: Predict, monkeypatch: pytest.MonkeyPatch, is_large: bool
) -> None:
    Path("in").mkdir()
    for name in ("a", "b", "c"):
        squares(2).save(f"in/{name}.png")
    squares(3).save("in/many.png")
    if is_large:
        from unetctl.jobs.pages import run as page_run

        monkeypatch.setattr(page_run, "_LABEL_BYTES", 2**40)
        style = "unetctl.jobs.pages.compute.stored_page"
        from unetctl.jobs.pages.results import stored_page

        def stored(sink: object, style: PageStyle, info: object, origin: object, *more: object) -> object:
            made = stored_page(sink, style, info, origin, *more)  # type: ignore[arg-type]
            if int(np.max(made[0].rows(0, 30))) == 3:
                raise UsageError("32 bits a pixel in PNG", "at most 16", "--format tiff")
            return made

        monkeypatch.setattr(style, stored)
    else:
        labelled = PageStyle.labelled

        def with_many(self: PageStyle, answer: np.ndarray) -> np.ndarray:
            labels = labelled(self, answer)
            return labels.astype(np.uint32) * 70_000 if labels.max() == 3 else labels

        monkeypatch.setattr(PageStyle, "labelled", with_many)
    status = {Path(r.input).name: r for r in run("in", output=Path("out"))}
    assert {name: r.status for name, r in status.items()} == {
        "a.png": "done", "b.png": "done", "c.png": "done", "many.png": "failed",
    }  # fmt: skip
    assert "32 bits a pixel in PNG" in status["many.png"].error
    assert status["many.png"].details["exit_code"] == 2
    assert sorted(p.name for p in Path("out").iterdir()) == ["a.png", "b.png", "c.png"]
    assert not list(Path("out.run").glob("large-*"))
    if not is_large:
        (told,) = [r for r in run("in", output=Path("tiffs"), format="tiff") if Path(r.input).name == "many.png"]
        assert told.status == "done"
        assert tifffile.imread("tiffs/many.tif").max() == 210_000
