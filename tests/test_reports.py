"""Report pages: self-contained, harmless, and true to the arrays and figures they were given."""

import base64
import io
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from unetctl.reports import pictures
from unetctl.reports.figures import (
    best_index,
    default_select,
    is_lower_better,
    metric_names,
    write_column,
    write_figure,
)
from unetctl.reports.pictures import OVER_RGB, UNDER_RGB, difference, reduced, to_data_uri
from unetctl.reports.training_page import Sample, write_training_page

few = settings(deadline=None, max_examples=60)
RNG = np.random.default_rng(7)


class Page(HTMLParser):
    """What a browser would find: elements with their attributes, and the words between."""

    def __init__(self, path):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def decoded(uri):
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def sample(name, shape=(20, 30), figures=None, rgb=False):
    label = (RNG.random(shape) < 0.5).astype(np.uint8) * np.uint8(255)
    input = RNG.integers(0, 256, (*shape, 3) if rgb else shape).astype(np.uint8)
    return Sample(name, input, label, RNG.integers(0, 256, shape).astype(np.uint8), figures or {})


HISTORY = [
    {"epoch": 1.0, "loss": 0.9},
    {"epoch": 2.0, "loss": 0.5, "v_rand": 0.91, "misclassified": 0.10, "threshold": 0.5, "val_loss": 0.6},
    {"epoch": 3.0, "loss": 0.4},
    {"epoch": 4.0, "loss": 0.3, "v_rand": 0.97, "misclassified": 0.07, "threshold": 0.55, "val_loss": 0.4},
    {"epoch": 5.0, "loss": 0.2, "v_rand": 0.95, "misclassified": 0.06, "threshold": 0.6, "val_loss": 0.5},
]


@pytest.fixture
def page(tmp_path):
    def make(history=(), samples=(), title="Training", facts=None, **more):
        path = tmp_path / "report.html"
        write_training_page(path, title, facts or {}, history, samples, **more)
        assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
        return Page(path)

    return make


# The page


def test_the_page_needs_nothing_outside_itself(page):
    found = page(HISTORY, [sample("a"), sample("b", rgb=True)], recipe_toml="[task]\nname = 'em'\n", notes=["look"])
    addresses = [v for _, a in found.elements for k, v in a.items() if k in ("src", "href", "srcset", "data", "action")]
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert not found.all("script")
    assert not [k for _, attributes in found.elements for k in attributes if k.startswith("on")]
    policy = next(m["content"] for m in found.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    style = "".join(found.words)
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style


def test_links_inside_the_page_lead_somewhere(page):
    found = page(HISTORY, [sample("a"), sample("b")])
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in found.all("a")} <= set(ids)


def test_words_of_others_stay_words(page):
    evil = "</pre><script>alert(1)</script>&\"'"
    black = np.zeros((4, 4), np.uint8)
    shown = Sample(evil, black, black, black, {evil: 1.0})
    found = page([{"epoch": 1, evil: 0.5}], [shown], title=evil, facts={evil: evil}, recipe_toml=evil, notes=[evil])
    assert not found.all("script")
    assert found.text.count("alert(1)") >= 7
    assert len(found.all("pre")) == 1


def test_pictures_are_the_arrays(page):
    grey, colour = sample("grey", figures={"iou": 0.1}), sample("colour", figures={"iou": 0.2}, rgb=True)
    found = page(HISTORY, [grey, colour])
    shown = [decoded(img["src"]) for img in found.all("img")]
    for given_, at in ((grey, 0), (colour, 4)):
        for expected, got in zip((given_.input, given_.label, given_.output), shown[at : at + 3], strict=True):
            np.testing.assert_array_equal(got, expected)
        expected = difference(given_.output, given_.label, given_.input).picture
        np.testing.assert_array_equal(shown[at + 3], expected)
    alts = [img["alt"] for img in found.all("img")]
    assert len(set(alts)) == len(alts) == 8
    assert all(("grey" if i < 4 else "colour") in alt for i, alt in enumerate(alts))


def test_no_difference_where_label_and_output_have_different_shapes(page):
    shown = Sample("valid", np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8), np.zeros((20, 20), np.uint8))
    found = page(HISTORY, [shown])
    assert len(found.all("img")) == 3
    assert "In the difference" not in found.text


def test_large_pictures_are_reduced_and_the_page_says_so(page):
    shown = sample("large", (700, 2500))
    found = page(HISTORY, [shown])
    assert all(max(decoded(img["src"]).shape) <= 1024 for img in found.all("img"))
    assert "2500 x 700, shown at 1/3" in found.text


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("v_rand", [0.9, 0.5, 0.7], ["1", "2", "0"]),
        ("misclassified", [0.1, 0.5, 0.2], ["1", "2", "0"]),
        ("iou", [0.9, math.nan, 0.7], ["1", "2", "0"]),
    ],
)
def test_the_worst_sample_comes_first(page, name, values, expected):
    samples = [sample(str(i), figures={name: value, "other": 0.0}) for i, value in enumerate(values)]
    found = page(HISTORY, [*samples, sample("unrated")])
    order = [section["aria-label"] for section in found.all("section")]
    assert order == [*expected, "unrated"]


def test_the_best_epoch_is_named_in_figures_curves_and_table(page):
    found = page(HISTORY)
    assert "4 best epoch of 5 0.97 V_rand" in found.text
    charts = [svg["aria-label"] for svg in found.all("svg")]
    assert len(charts) == 4
    assert all("best epoch 4" in chart for chart in charts)
    assert [("best epoch 4: 0.97" in chart) for chart in charts] == [False, True, False, False]
    rows = found.all("tr")
    assert [i for i, row in enumerate(rows) if row.get("class") == "best"] == [4]  # the first is the heading
    assert "5 best epoch of 5 0.06 misclassified pixels" in page(HISTORY, select="misclassified").text
    assert "2 best epoch of 5" in page(HISTORY, select="v_rand", select_lowest=True).text


def test_recipe_notes_and_facts_are_there(page):
    recipe = "[train]\nlr = 1e-3  # small\n"
    found = page(HISTORY, facts={"device": "cpu, float32"}, recipe_toml=recipe, notes=["Two slices are alike."])
    assert recipe in "".join(found.words)
    assert "device cpu, float32" in found.text
    assert "Two slices are alike." in found.text


def test_a_run_that_has_not_begun_has_a_page(page):
    found = page()
    assert "No epoch is finished yet." in found.text
    assert not found.all("svg")


def test_figures_that_are_not_numbers_do_not_break_the_page(page):
    nan = math.nan
    found = page([{"epoch": 1, "loss": nan, "iou": nan}, {"epoch": 2, "loss": math.inf, "iou": nan}])
    assert "no finite value yet" in found.text
    assert not found.all("svg")
    found = page([{"epoch": 1, "loss": nan}, {"epoch": 2, "loss": 0.5}])
    assert "not a number" in found.text
    assert len(found.all("svg")) == 1


def test_a_long_run_shows_some_epochs_in_the_table_and_always_the_best(page):
    history = [{"epoch": float(i), "loss": 1 / i, "iou": float(i == 667)} for i in range(1, 1001)]
    found = page(history)
    assert 200 <= len(found.all("tr")) <= 203
    assert sum(row.get("class") == "best" for row in found.all("tr")) == 1
    assert len(found.all("circle")) <= 10


def test_the_same_values_give_the_same_bytes(tmp_path):
    shown = [sample("a")]
    for name in ("1.html", "2.html"):
        write_training_page(tmp_path / name, "t", {"a": "b"}, HISTORY, shown)
    assert (tmp_path / "1.html").read_bytes() == (tmp_path / "2.html").read_bytes()


def test_a_page_that_cannot_be_finished_leaves_the_previous_one(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("before")

    def full(self, text, **more):
        self.touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_text", full)
        with pytest.raises(OSError, match="No space"):
            write_training_page(path, "t", {}, HISTORY, [])
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("wrong", [np.zeros((4, 4)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8)])
def test_what_is_no_picture_is_refused_by_name(tmp_path, wrong):
    fine = np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match="output of slice 3"):
        write_training_page(tmp_path / "x.html", "t", {}, [], [Sample("slice 3", fine, fine, wrong)])
    with pytest.raises(ValueError, match="epoch"):
        write_training_page(tmp_path / "x.html", "t", {}, [{"loss": 1.0}], [])
    assert not list(tmp_path.iterdir())


# Pictures

MASKS = arrays(np.uint8, (5, 7), elements=st.sampled_from([0, 255]))
GREYS = arrays(np.uint8, (5, 7))


@few
@given(GREYS, MASKS, st.sampled_from([0.05, 0.3, 0.5, 0.95]))
def test_differences_are_the_false_positives_and_negatives(output, label, threshold):
    found = difference(output, label, threshold=threshold)
    yes = output / 255 >= threshold
    over, under = yes & (label == 0), ~yes & (label == 255)
    assert (found.num_over, found.num_under, found.is_binary) == (over.sum(), under.sum(), True)
    np.testing.assert_array_equal((found.picture == OVER_RGB).all(axis=2), over)
    np.testing.assert_array_equal((found.picture == UNDER_RGB).all(axis=2), under)


@few
@given(arrays(np.uint8, (5, 7), elements=st.sampled_from([0, 85, 170, 255])))
def test_equal_classes_do_not_differ_and_swapping_turns_the_sign(label):
    assert difference(label, label).num_over == difference(label, label).num_under == 0
    other = label[::-1]
    if len(np.unique(label)) > 2:
        there, back = difference(other, label), difference(label, other)
        assert (there.num_over, there.num_under) == (back.num_under, back.num_over)
        assert there.num_over + there.num_under == (label != other).sum()


@few
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 30), st.booleans())
def test_reduced_pictures_fit_and_keep_their_mean(height, width, side, is_colour):
    picture = np.full((height, width, 3) if is_colour else (height, width), 77, np.uint8)
    small = reduced(picture, side)
    assert max(small.shape[:2]) <= side
    assert (small == 77).all()
    assert small.ndim == picture.ndim
    if max(height, width) <= side:
        assert small is picture


@few
@given(GREYS)
def test_addresses_hold_the_picture(picture):
    np.testing.assert_array_equal(decoded(to_data_uri(picture)), picture)


def test_luminance_of_grey_colours_is_the_grey():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(pictures.to_grey(np.stack([grey] * 3, axis=2)), grey)


# Figures


@few
@given(st.lists(st.floats(0, 1) | st.just(math.nan) | st.none(), max_size=12), st.booleans())
def test_the_best_epoch_is_the_first_with_the_best_value(values, lowest):
    history = [{"epoch": i} if value is None else {"epoch": i, "iou": value} for i, value in enumerate(values)]
    real = [value for value in values if value is not None and math.isfinite(value)]
    expected = values.index(min(real) if lowest else max(real)) if real else None
    assert best_index(history, "iou", lowest) == expected


def test_what_marks_the_best_epoch_by_default():
    assert default_select(HISTORY) == "v_rand"
    assert default_select([{"epoch": 1, "loss": 1.0, "val_loss": 1.0, "threshold": 0.5}]) == "val_loss"
    assert default_select([{"epoch": 1, "loss": 1.0}]) == "loss"
    assert metric_names([{"threshold": 0.5, "epoch": 1}, {"iou": 1.0, "loss": 1.0}]) == ["iou", "threshold"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("loss", "val_loss", "pixel_error", "misclassified", "drd")),
        *((name, False) for name in ("v_rand", "iou", "psnr", "ssim", "closs_fraction")),
    ],
)
def test_losses_and_errors_are_better_low(name, expected):
    assert is_lower_better(name) is expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (3.0, "3"),
        (1943361.0, "1,943,361"),
        (0.98634, "0.9863"),
        (1e-5, "1e-05"),
        (15234.6, "15,235"),
        (math.nan, "not a number"),
        (-math.inf, "minus infinite"),
    ],
)
def test_figures_are_written_for_people(value, text):
    assert write_figure(value) == text


def test_a_column_has_one_number_of_decimals():
    assert write_column([0.97, None, 0.9863, math.nan, 1.0]) == ["0.9700", "", "0.9863", "not a number", "1.0000"]
    assert write_column([1.0, 2.0]) == ["1", "2"]
