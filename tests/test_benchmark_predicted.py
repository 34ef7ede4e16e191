"""`unetctl predict` on folders of pages, and `unetctl benchmark accuracy --predicted` on what it has written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.page_weights_files import save_page_weights
from unetctl.cli.app import app
from unetctl.errors import InputError
from unetctl.jobs.benchmark_pages import LabelledPage, match_predicted
from unetctl.metrics.document import score_page
from unetctl.training.pairs import Pair, find_pairs

Mask = npt.NDArray[np.bool_]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """These networks are tiny: threads would only wait for each other."""
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
    monkeypatch.setattr("unetctl.jobs.benchmark_baselines.doxa_algorithms", frozenset)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def weights(place: Path) -> Path:
    return save_page_weights(
        place / "inky.safetensors", "inky", labels={"foreground": "darker"}, split={"test": ["2016"]}
    )


def save_page(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ink = np.zeros((36, 44 + seed), np.bool_)
    for y, x in rng.integers(2, 30, (6, 2)):
        ink[y : y + 3, x : x + 10] = True
    if "gt" in path.parts:
        picture = Image.fromarray(~ink)
    else:
        picture = Image.fromarray(
            np.clip(np.where(ink, 60, 200) + rng.normal(0, 9, ink.shape), 0, 255).astype(np.uint8)
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def called(*words: str | Path) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    last: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return last


def ink_of(path: Path) -> Mask:
    with Image.open(path) as image:
        return ~np.asarray(image.convert("1"))


LAYOUTS = {
    "years": ("2016/images/H01.png", "2016/images/H02.jpg", "2016/images/sub/H01.tif", "2014/images/H01.png"),
    "flat": (
        "images/a.jpg",
        "images/a.b.png",
        "images/x-inky.png",
        "images/x.png",
        "images/p.ome.tif",
        "images/Nr. 5.bmp",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("whole_tree", [True, False])
def test_pages_of_predict_are_found_again(place, weights, layout, whole_tree):
    """Of the whole tree, ground truth too, as of the folders of pages alone."""
    data = place / "data"
    for seed, name in enumerate(LAYOUTS[layout]):
        save_page(data / name, seed)
        truth = name.replace("images", "gt")
        save_page((data / truth).with_name(Path(truth).name.removesuffix(Path(truth).suffix) + ".png"), seed)
    if whole_tree:
        called("predict", data, "--recursive", "--task", weights, "-o", place / "out")
    else:
        for folder in sorted({(data / name).parent for name in LAYOUTS[layout]}):
            called("predict", folder, "--task", weights, "-o", place / "out" / folder.relative_to(data))
    values = called("benchmark", "accuracy", "--task", weights, "--data", data, "--predicted", "out", "--split", "all")
    outputs = {p.relative_to("out").with_suffix("").as_posix(): p for p in Path("out").rglob("*.*") if p.is_file()}
    pairs = {pair.name: pair for pair in find_pairs(data)}
    assert {one["page"] for one in values["pages"]} == set(pairs)
    assert len(pairs) == len(LAYOUTS[layout])
    for one in values["pages"]:
        pair = pairs[one["page"]]
        output = outputs[pair.image.relative_to(data).with_suffix("").as_posix()]
        wanted = score_page(ink_of(output), ink_of(pair.labels))
        assert one["scores"]["ours"]["f"] == pytest.approx(wanted.f)


def test_names_that_differ_only_in_their_endings(place, weights):
    """predict calls them by their whole names then, and training cannot pair them; the others are found."""
    for seed, name in enumerate(("a.jpg", "a.jpg.png", "b.png")):
        save_page(place / "data" / "images" / name, seed)
        if name != "a.jpg":
            save_page(place / "data" / "gt" / name, seed)
    called("predict", place / "data" / "images", "--task", weights, "-o", "out")
    assert len(list((place / "out").iterdir())) == 3
    values = called(
        "benchmark", "accuracy", "--task", weights, "--data", "data", "--predicted", "out", "--split", "all"
    )
    assert {one["page"] for one in values["pages"]} == {"a.jpg", "b"}


def test_grey_pages_are_scored_by_networks_that_take_colour(place):
    colour = {"channels": 3, "luminance": False}
    weights = save_page_weights(place / "c.safetensors", "c", labels={"foreground": "darker"}, input=colour)
    save_page(place / "data" / "images" / "a.png", 1)
    save_page(place / "data" / "gt" / "a.png", 1)
    called("predict", "data/images", "--task", weights, "-o", "out")
    words = ["benchmark", "accuracy", "--task", str(weights), "--data", "data", "--split", "all"]
    assert called(*words)["mean"]["ours"] == called(*words, "--predicted", "out")["mean"]["ours"]


def test_what_is_scored_from_files_is_what_is_predicted_here(place, weights):
    for seed in range(2):
        save_page(place / "data" / "2016" / "images" / f"{seed}.png", seed)
        save_page(place / "data" / "2016" / "gt" / f"{seed}.png", seed)
    called("predict", "data/2016/images", "--task", weights)
    here = called("benchmark", "accuracy", "--task", weights, "--data", "data")
    files = called("benchmark", "accuracy", "--task", weights, "--data", "data", "--predicted", "images-inky")
    assert [one["scores"]["ours"] for one in here["pages"]] == [one["scores"]["ours"] for one in files["pages"]]
    assert here["planes"] == files["planes"] == ["2016/0", "2016/1"]
    assert here["weights_sha256"]
    assert not files["weights_sha256"]
    # a recipe alone says what the truth means: files need no weights
    recipe = place / "mine.toml"
    recipe.write_text(
        '[task]\nname = "inky"\n[output]\nclasses = ["ink"]\n[labels]\nforeground = "darker"\n[split]\ntest = ["2016"]\n'
    )
    for task in (str(recipe), "dibco"):
        by_recipe = called("benchmark", "accuracy", "--task", task, "--data", "data", "--predicted", "images-inky")
        assert by_recipe["pages"] == files["pages"]


def labelled(*names: str) -> list[LabelledPage]:
    found = []
    for name in names:
        folder, _, file = name.rpartition("/")
        image = Path("/data", folder, "images", file)
        bare = f"{folder}/{image.stem}" if folder else image.stem
        found.append(LabelledPage(bare, Pair(bare, image, image, "page", None, ""), 0))
    return found


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_the_nearest_path_and_the_plainest_name_win(place):
    out = touched(place / "out", "images/H1.tif", "gt/H1.tif", "images/H1-t.tif", "H1.tif", "images/H1.run/H1.tif")
    assert match_predicted(labelled("H1.png"), Path("/data"), out, "t") == {"H1": out / "images/H1.tif"}
    both = touched(place / "both", "H1.jpg.tif", "H1.png.tif")
    assert match_predicted(labelled("H1.jpg"), Path("/data"), both, "t") == {"H1": both / "H1.jpg.tif"}
    same = touched(place / "same", "H1.tif", "H1.png")
    with pytest.raises(InputError, match="no single file"):
        match_predicted(labelled("H1.jpg"), Path("/data"), same, "t")
    with pytest.raises(InputError, match=r"1 of 2 pages have no file.*H2.*--recursive"):
        match_predicted(labelled("H1.jpg", "H2.jpg"), Path("/data"), both, "t")
