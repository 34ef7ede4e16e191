"""`unetctl train` from a folder to usable weights: a user's own recipe, all layouts, and data that do not serve."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

import unetctl
from tests.training_data import GREY, MINE, SIZE, coloured, grey, pages, run, save, tensors
from unetctl.errors import UsageError, WeightsError
from unetctl.networks.weights import read_header
from unetctl.runtime.events import EpochEnded, Event


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two recipes."""
    (tmp_path / "mine.toml").write_text(MINE)
    (tmp_path / "grey.toml").write_text(GREY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_recipe_of_ones_own_trains_and_predicts(here):
    data = pages(here / "data", 6, coloured)
    long = ("--epochs", 1, "--set", "train.steps_per_epoch=60")
    trained = run("train", "--data", data, "--task", "./mine.toml", "-o", "run", *long)
    assert (trained.exit_code, trained.stdout) == (0, "run\n"), trained.stderr
    for words in ("6 pairs in", "p0: images/p0.png + labels/p0.png", "val: 1 planes of 1 pictures", "epoch 1/1: loss"):
        assert words in trained.stderr
    picture, classes = coloured(99)
    save(here / "new.tif", picture)
    for keep in ("probability", "classes", "logits"):
        output = f"{keep}.ome.tif"
        found = run("predict", "new.tif", "--task", "run", "--keep", keep, "-o", output, "--precision", "fp32")
        assert (found.exit_code, found.stdout) == (0, f"{keep}.ome.tif\n"), found.stderr
    with tifffile.TiffFile("probability.ome.tif") as file:
        probability, series, described = file.asarray(), file.series[0], file.ome_metadata or ""
    assert (series.axes, probability.shape, str(probability.dtype)) == ("CYX", (4, *SIZE), "uint8")
    assert all(f'Name="{name}"' in described for name in ("stone", "water", "leaf", "sky"))
    assert (abs(probability.sum(0, dtype=int) - 255) <= 2).all()
    logits, found_classes = tifffile.imread("logits.ome.tif"), tifffile.imread("classes.ome.tif")
    assert np.array_equal(found_classes, logits.argmax(0))
    assert (found_classes == classes).mean() > 0.6  # by chance: 0.25


def test_all_mistakes_of_a_recipe_are_told_at_once(here):
    text = MINE.replace("channels = 3", "chanels = 3").replace("depth = 3", 'depth = "three"\nconvolution = "vaild"')
    (here / "mine.toml").write_text(
        text.replace("lr = 0.01", "lr = -1\nlearning_rate = 2").replace("[augment]", "[augmant]")
    )
    told = run("train", "--data", pages(here / "data", 2, coloured), "--task", "./mine.toml", "-o", "run")
    assert (told.exit_code, told.stdout) == (2, "")
    assert "mine.toml has 6 mistakes" in told.stderr
    for words in (
        "[input] chanels: no such setting; did you mean channels?", '[network] depth: "three"; expected a whole number',
        'did you mean "valid"?', "[train] lr: -1; expected a number above 0",
        "[train] learning_rate: no such setting; did you mean lr?", "[augmant]: no such section; did you mean [augment]?",
    ):  # fmt: skip
        assert words in told.stderr
    assert not (here / "run").exists()


def test_what_a_run_leaves(here):
    data = pages(here / "data")
    events: list[Event] = []
    report = unetctl.train(data, task="grey.toml", output="run", exclude=("p3",), seed=3, emit=events.append)
    folder = here / "run"
    assert {p.name for p in folder.iterdir()} == {
        "weights.safetensors", "checkpoints", "board", "recipe.toml", "report.html", "report.json", "split.json", "run.lock",
        "log.jsonl",
    }  # fmt: skip
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["best.pt", "last.pt"]
    assert {p.parent.name for p in (folder / "board").rglob("events*")} == {"steps", "epochs", "recipe"}
    told = json.loads((folder / "report.json").read_text())
    assert told == report.to_dict()
    assert (told["status"], told["epoch"], told["num_epochs"]) == ("done", 3, 3)
    epochs = [e for e in events if isinstance(e, EpochEnded)]
    best = [e for e in epochs if e.is_best][-1]
    assert told["best_epoch"] == best.epoch
    assert told["figures"] == {"loss": best.loss, **best.metrics}
    split = json.loads((folder / "split.json").read_text())
    assert sorted(split["train"] + split["val"]) == ["p0", "p1", "p2", "p4"]
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png") >= 3 * len(split["val"])
    header = read_header(folder / "weights.safetensors")
    assert header.training["split"] == split
    assert header.figures["validation"] == best.metrics
    low, high = (f(grey(i)[0] for i in map(int, "".join(split["train"]).replace("p", ""))) for f in (_lowest, _highest))
    assert header.value_range == (low, high)
    again = unetctl.train(data, task=folder / "recipe.toml", output="again", exclude=("p3",))
    assert again.figures == report.figures
    assert all(torch.equal(v, tensors(folder)[k]) for k, v in tensors(here / "again").items())
    assert (
        unetctl.load_recipe(str(here / "again" / "recipe.toml")).to_dict()
        == unetctl.load_recipe(str(folder / "recipe.toml")).to_dict()
    )
    content = (folder / "weights.safetensors").read_bytes()
    same = unetctl.train(data, output="run", exclude=("p3",))  # nothing left to do, by the recipe of the run
    assert (same.status, same.figures) == ("done", report.figures)
    assert (folder / "weights.safetensors").read_bytes() == content
    assert (folder / "report.html").read_text() == page


def _lowest(pictures: Any) -> float:
    return float(min(p.min() for p in pictures))


def _highest(pictures: Any) -> float:
    return float(max(p.max() for p in pictures))


def stack(folder: Path) -> None:
    images, labels = (np.stack(some) for some in zip(*map(grey, range(4)), strict=True))
    save(folder / "a-volume.tif", images)
    save(folder / "a-labels.tif", labels)


def arrays(folder: Path) -> None:
    for name, first, num in (("train", 0, 3), ("val", 3, 2), ("test", 5, 1)):
        images, labels = (np.stack(some) for some in zip(*map(grey, range(first, first + num)), strict=True))
        save(folder / name / "images.npy", images)
        save(folder / name / "labels.npy", labels > 0)


@pytest.mark.parametrize(
    ("make", "num_train", "num_val"),
    [
        (stack, 3, 1),
        (arrays, 3, 2),
        (pages, 4, 1),
        (lambda folder: pages(folder, suffix=".tif", labels="masks"), 4, 1),
        (lambda folder: pages(folder / "2009", labels="gt"), 4, 1),
        (lambda folder: [pages(folder / name, num) for name, num in (("train", 3), ("val", 2), ("test", 1))], 3, 2),
    ],
)
def test_every_layout_trains(here, make, num_train, num_val):
    make(here / "data")
    assert unetctl.train(here / "data", task="grey.toml", output="run", epochs=1).status == "done"
    page = (here / "run" / "report.html").read_text()
    assert f"{num_train} for training, {num_val} for validation" in page
    assert read_header(here / "run" / "weights.safetensors").training["num_planes"] == num_train


def test_predict_is_told_the_pixel_size_that_was_trained_on(here):
    for i, name in enumerate(("volume", "labels")):
        pixels = np.stack([grey(j)[i] for j in range(3)])
        (here / "data").mkdir(exist_ok=True)
        sizes = {"axes": "ZYX", "spacing": 0.05, "unit": "um"}
        tifffile.imwrite(here / "data" / f"a-{name}.tif", pixels, imagej=True, resolution=(250, 250), metadata=sizes)
    unetctl.train(here / "data", task="grey.toml", output="run", epochs=1)
    header = read_header(here / "run" / "weights.safetensors")
    assert header.spacing_um == pytest.approx((0.05, 0.004, 0.004))
    assert header.recipe["input"]["spacing_um"] == pytest.approx([0.05, 0.004, 0.004])
    coarse = {"PhysicalSizeX": 0.04, "PhysicalSizeY": 0.04}
    tifffile.imwrite(here / "new.ome.tif", grey(9)[0], metadata={"axes": "YX", **coarse})
    told = run("predict", "new.ome.tif", "--task", "run")
    assert "expect poor results at another scale" in told.stderr


@pytest.mark.parametrize(
    "settings",
    [
        'convolution = "same"', 'convolution = "same"\nborder = "native"\npadding = "reflect"', 'up = "bilinear"',
        'down = "strided"\nup = "bicubic"', 'norm = "group"',
    ],
)  # fmt: skip
def test_every_kind_of_network_trains(here, settings):
    (here / "net.toml").write_text(GREY.replace('norm = "batch"', settings))
    report = unetctl.train(pages(here / "data", 3), task="./net.toml", output="run", epochs=2, seed=2**63 - 1)
    assert report.status == "done"
    assert np.isfinite(report.figures["val_loss"])


def wrong_size(data: Path) -> None:
    save(data / "labels" / "p2.png", np.zeros((40, 47), np.uint8))


def no_picture(data: Path) -> None:
    (data / "images" / "p2.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing of the kind")


def half_a_picture(data: Path) -> None:
    path = data / "images" / "p2.png"
    path.write_bytes(path.read_bytes()[:400])


def no_labels(data: Path) -> None:
    for path in (data / "labels").iterdir():
        path.unlink()


def in_colour(data: Path) -> None:
    save(data / "images" / "p2.png", coloured(2)[0])


def swapped(data: Path) -> None:
    (data / "images").rename(data / "kept")
    (data / "labels").rename(data / "images")
    (data / "kept").rename(data / "labels")


def all_empty(data: Path) -> None:
    for path in (data / "labels").iterdir():
        save(path, np.zeros((40, 48), np.uint8))


def more_channels(data: Path) -> None:
    for i, num in enumerate((2, 5)):
        (data / "images" / f"p{i}.png").unlink()
        tifffile.imwrite(data / "images" / f"p{i}.tif", np.zeros((num, 40, 48), np.uint8), metadata={"axes": "CYX"})


def colour_labels(data: Path) -> None:
    save(data / "labels" / "p2.png", coloured(2)[0])


@pytest.mark.parametrize(
    ("spoil", "options", "code", "words"),
    [
        (no_labels, (), 4, "no two that belong together"),
        (wrong_size, (), 4, "p2.png has 40x48 (yx) and its labels"),
        (no_picture, (), 4, "images/p2.png"),
        (half_a_picture, (), 4, "images/p2.png cannot be decoded"),
        (in_colour, (), 4, "3 channels"),
        (colour_labels, (), 4, "labels/p2.png are coloured"),
        (swapped, ("--set", "labels.foreground=darker", "--set", "labels.values="), 4, "seem to be swapped"),
        (all_empty, (), 4, "the labels of all 3 planes that train hold background only"),
        (more_channels, (), 4, "of 4 pairs 2 cannot be used"),
        (None, ("--exclude", "*"), 2, "no plane of the 4 pairs is left to train"),
        (None, ("--exclude", "p9"), 2, "--exclude p9 fits none of the 4 pairs"),
        (None, ("--val", "nobody"), 2, "--val nobody fits nothing"),
        (None, ("--set", "labels.values=0,7"), 4, "hold the values 255; expected those of labels.values: 0, 7"),
        (None, ("--crop", 15), 2, "train.crop"),
        (None, ("--set", "network.dims=3", "--set", "train.crop=16,16,16"), 2, "network.dims = 2"),
    ],
)
def test_data_that_cannot_be_trained_on_are_told_and_leave_nothing(here, spoil, options, code, words):
    data = pages(here / "data", 4)
    if spoil:
        spoil(data)
    strange = sorted((here / "data").rglob("*.tif"))
    common = ("train", "--data", data, "--task", "./grey.toml", "-o", "run", "--epochs", 1, "--val", "p3")
    told = run(*(common[:-2] if {"--val", "*"} & {*options} else common), *options)
    assert (told.exit_code, told.stdout) == (code, ""), told.stderr
    assert told.stderr.count("error: ") == 1
    assert words in told.stderr
    assert "Traceback" not in told.stderr
    assert not (here / "run").exists()
    (here / "run").mkdir()
    (here / "run" / "run.lock").touch()  # of one that was killed while it read the data
    for path in strange:
        path.unlink()
    pages(here / "data", 4)
    done = run(*common)
    assert (done.exit_code, done.stdout) == (0, "run\n"), done.stderr


def test_weights_to_start_from(here):
    data = pages(here / "data", 3)
    unetctl.train(data, task="grey.toml", output="first", epochs=1)
    slow = ("train.lr=1e-30", "train.warmup_steps=0", "train.weight_decay=0", "train.ema=0")
    unetctl.train(data, task="first", init_from="first", output="second", overrides=(*slow, "network.norm=batch"))
    first, second = tensors(here / "first"), tensors(here / "second")
    assert all(torch.equal(v, second[k]) for k, v in first.items() if ".norm.running" not in k)
    with pytest.raises(WeightsError, match="another network"):
        unetctl.train(data, task="grey.toml", init_from="first", output="third", overrides=("network.depth=2",))
    with pytest.raises(UsageError, match=r"another start;"):
        unetctl.train(data, task="grey.toml", init_from="second", output="first", epochs=1)
