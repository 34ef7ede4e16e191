"""The page of a training run: what it holds, without a browser and with one."""

import html
import math
import re
import tomllib

import numpy as np
import pytest

from tests.browser import CHROMIUM, Browser
from tests.test_reports import Page, decoded, sample
from tests.training_data import GREY, MINE, coloured, grey, pages, run
from unetctl.recipe.load import recipe_from_dict
from unetctl.reports.mistakes import Mistakes, confusion_rows, threshold_charts
from unetctl.reports.training_page import MOST_SAMPLES, worst_and_best
from unetctl.training.crops import Plane
from unetctl.training.mistakes import THRESHOLDS, confusion, over_thresholds


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Report pages of two real runs by the command line: one class and 3 pictures, four classes and 12 pictures."""
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    for name, text, make, num in (("grey", GREY, grey, 9), ("mine", MINE, coloured, 18)):
        (folder / f"{name}.toml").write_text(text)
        pages(folder / name / "data", num, make)
        words = ["--task", folder / f"{name}.toml", "-o", folder / name / "run", "--epochs", 3]
        share = "0.34" if name == "grey" else "0.6"
        told = run("train", "--data", folder / name / "data", *words, "--set", f"split.val_share={share}")
        assert told.exit_code == 0, told.stderr
        found[name] = folder / name / "run" / "report.html"
    return found


def test_the_page_has_all_that_one_wants_to_know(reports):
    found = Page(reports["grey"])
    charts = [svg["aria-label"] for svg in found.all("svg")]
    for title in (
        "Curve of Loss",
        "Curve of IoU",
        "Curve of Dice",
        "Curve of Scores by threshold",
        "Curve of Precision",
    ):
        assert any(chart.startswith(title) for chart in charts), title
    assert all(any(tag == "path" for tag, _ in found.elements) for _ in charts)
    assert {section["aria-label"] for section in found.all("section")} >= {"Notes"}
    assert len(found.all("section")) == 1 + 3
    for words in ("time", "of training", "software", "torch", "device", "CPU", "validation", "threshold"):
        assert words in found.text, words
    recipe = reports["grey"].with_name("recipe.toml").read_text()
    (shown,) = re.findall(r"<pre[^>]*>(.*?)</pre>", reports["grey"].read_text(), re.S)
    assert tomllib.loads(html.unescape(shown)) == tomllib.loads(recipe)


def test_many_pictures_are_shown_by_their_worst_and_best(reports):
    found = Page(reports["mine"])
    text = reports["mine"].read_text()
    assert "The worst" in text
    assert "The best" in text
    assert len(found.all("section")) == 1 + MOST_SAMPLES
    values = [float(v) for v in re.findall(r"misclassified pixels <b>([\d.]+)</b>", text)]
    half = MOST_SAMPLES // 2
    assert values[:half] == sorted(values[:half], reverse=True)
    assert values[half:] == sorted(values[half:])
    assert min(values[:half]) >= max(values[half:])
    assert [th for th in ("stone", "water", "leaf", "sky") if th in found.text] == ["stone", "water", "leaf", "sky"]


@pytest.mark.parametrize("name", ["grey", "mine"])
def test_the_page_asks_for_nothing_and_its_pictures_decode(reports, name):
    found = Page(reports[name])
    addresses = [v for _, a in found.elements for k, v in a.items() if k in ("src", "href", "srcset", "data", "poster")]
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org)", reports[name].read_text())
    pictures = [decoded(img["src"]) for img in found.all("img")]
    assert len(pictures) >= 3 * 4
    assert all(picture.shape[:2] == (40, 48) for picture in pictures)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)")
def test_chromium_shows_the_page_in_every_light_and_width(reports, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        grounds = set()
        for page in reports.values():
            for width, is_dark in ((1200, False), (1200, True), (380, False), (380, True)):
                browser.open(page, width, is_dark)
                assert browser.ask("document.documentElement.scrollWidth") <= width, "wider than the window"
                broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
                assert browser.ask(broken) == 0
                assert browser.ask("document.images.length") >= 12
                lengths = browser.ask("[...document.querySelectorAll('.charts path')].map(p => p.getTotalLength())")
                assert len(lengths) >= 4
                assert min(lengths) > 50
                boxes = "[...document.querySelectorAll('.charts svg')].map(s => s.getBoundingClientRect())"
                assert browser.ask(f"{boxes}.every(b => b.width > 200 && b.right <= {width})")
                style = "getComputedStyle(document.body)"
                grounds.add((browser.ask(f"{style}.backgroundColor"), browser.ask(f"{style}.color"), is_dark))
            # a tap enlarges a picture, and the page stays as wide as it was
            browser.ask("document.querySelector('a.larger').click()")
            assert browser.ask("document.querySelector('figure:target img').getBoundingClientRect().width") > 300
            assert browser.ask("document.documentElement.scrollWidth") <= 380
        assert len(grounds) == 2
        assert browser.complaints == []
        assert all(url.startswith(("file:", "data:", "about:")) for url in browser.requests)


def test_mistakes_are_counted_as_they_are():
    rng = np.random.default_rng(0)
    recipe = recipe_from_dict(
        {"task": {"name": "t"}, "labels": {"kind": "classes"}, "output": {"classes": ["a", "b", "c"]}}, "test"
    )
    planes, outputs = [], []
    expected = np.zeros((3, 3), int)
    for i in range(2):
        label = rng.integers(0, 3, (1, 7, 9)).astype(np.uint8)
        weights = (rng.random((1, 7, 9)) > 0.3).astype(np.float32)
        logits = rng.normal(size=(3, 7, 9)).astype(np.float32)
        planes.append(Plane(f"p{i}", np.zeros((1, 7, 9), np.float32), label, weights))
        outputs.append(logits)
        for y, x in zip(*np.nonzero(weights[0]), strict=True):
            expected[label[0, y, x], logits[:, y, x].argmax()] += 1
    found = confusion(planes, outputs, recipe, 0.5)
    np.testing.assert_array_equal(found.counts, expected)
    rows = confusion_rows(Mistakes(found.names, found.counts))
    assert [row["name"] for row in rows] == ["a", "b", "c"]
    binary = recipe_from_dict({"task": {"name": "t"}}, "test")
    masks = [Plane(p.name, p.pixels, np.greater(p.target, 0).astype(np.uint8), p.weights) for p in planes]
    scores = over_thresholds(masks, [o[:1] for o in outputs])
    for i, threshold in enumerate(THRESHOLDS):
        counts = confusion(masks, [o[:1] for o in outputs], binary, threshold).counts
        assert scores.recall[i] == pytest.approx(counts[1, 1] / counts[1].sum())
        if counts[:, 1].sum():
            assert scores.precision[i] == pytest.approx(counts[1, 1] / counts[:, 1].sum())
        else:
            assert math.isnan(scores.precision[i])
    assert list(scores.recall) == sorted(scores.recall, reverse=True)


def test_nothing_to_show_is_shown_as_nothing():
    assert not confusion_rows(Mistakes())
    assert not threshold_charts(Mistakes())
    assert not worst_and_best([])
    empty = Mistakes(("a", "b"), np.array([[0, 0], [3, 1]]))
    assert confusion_rows(empty)[0]["cells"] == [("", 0, True), ("", 0, False)]
    few = [sample(str(i), figures={"iou": i / 9}) for i in range(3)]
    assert [s.name for _, group in worst_and_best(few) for s in group] == ["0", "1", "2"]
    (_, worst), (_, best) = worst_and_best([sample(str(i), figures={"iou": i / 9}) for i in range(8)], 20)
    assert [s.name for s in worst] == list("0123")
    assert [s.name for s in best] == list("7654")
