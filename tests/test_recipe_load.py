"""Recipes that are right: defaults, shapes, round trips, fingerprints, where they are found."""

import json
import string
import subprocess
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unetctl.errors import UsageError
from unetctl.networks.spec import UNetSpec
from unetctl.recipe import (
    Recipe,
    Task,
    describe,
    dump_toml,
    load_recipe,
    parse_split_entry,
    recipe_from_dict,
    shipped_recipes,
    shipped_weights,
)
from unetctl.recipe.validate import SECTIONS

MINE = """
[input]
channels = 3

[normalise]
method = "percentile"

[network]
depth = 3
base_width = 8
convolution = "same"
up = "bilinear"
padding = "reflect"
border = "native"

[output]
classes = ["background", "cell", "nucleus", "border"]
keep = "classes"

[labels]
kind = "classes"
values = [0, 85, 170, 255]
ignore = 7

[train]
crop = [64, 96]
"""


def minimal(**sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"task": {"name": "x"}, **sections}


def test_a_users_recipe_is_read_and_named_after_its_file(tmp_path: Path) -> None:
    path = tmp_path / "my cells.toml"
    path.write_text(MINE)
    recipe = load_recipe(path)
    assert recipe.task.name == "my-cells"
    assert recipe.network.widths == (8, 16, 32, 64)
    spec = recipe.network_spec
    assert isinstance(spec, UNetSpec)
    assert (spec.in_channels, spec.out_channels, spec.stride, spec.up) == (3, 4, (8, 8), "bilinear")
    assert recipe.output.resolved_activation == "softmax"
    assert recipe.labels.class_of_value == {0: 0, 85: 1, 170: 2, 255: 3}
    assert recipe.train.crop == (64, 96)
    assert recipe == load_recipe(str(path))


def test_windows_text_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xef\xbb\xbf" + MINE.replace("\n", "\r\n").encode())
    assert load_recipe(path).input.channels == 3


def test_everything_but_the_name_has_a_default() -> None:
    recipe = recipe_from_dict(minimal(), "here")
    assert recipe == Recipe(task=Task(name="x"))
    assert recipe.network.widths == (16, 32, 64, 128, 256)
    assert recipe.output.num_channels == 1
    assert recipe.output.resolved_activation == "sigmoid"


def test_every_setting_is_documented() -> None:
    for model in SECTIONS.values():
        assert model.__doc__
        for key, field in model.model_fields.items():
            assert field.description, key
            assert "\n" not in field.description


def test_two_classes_may_share_the_background() -> None:
    recipe = recipe_from_dict(minimal(labels={"values": [0, 128, 255]}), "here")
    assert recipe.labels.class_of_value == {0: 0, 128: 0, 255: 1}


def test_context_slices_multiply_the_channels() -> None:
    recipe = recipe_from_dict(minimal(input={"channels": 2, "context_slices": 5}), "here")
    assert recipe.network_spec.in_channels == 10


def test_a_recipe_in_python_cannot_contradict_itself() -> None:
    good = recipe_from_dict(minimal(), "here")
    parts = {name: getattr(good, name) for name in SECTIONS}
    crop = good.train.model_copy(update={"crop": (250, 250)})
    with pytest.raises(UsageError, match="multiples of the network's stride 16"):
        Recipe(**{**parts, "train": crop})


def test_augmentation_takes_exactly_what_a_recipe_says() -> None:
    from unetctl.training.augment import AugmentOptions

    assert asdict(AugmentOptions()) == recipe_from_dict(minimal(), "here").augment.model_dump()


# --- overrides ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "section", "key", "expected"),
    [
        ("train.epochs=7", "train", "epochs", 7),
        ("train.lr=.5", "train", "lr", 0.5),
        ("train.lr=1e-4", "train", "lr", 1e-4),
        ("train.lr = 2", "train", "lr", 2.0),
        ("augment.flip=True", "augment", "flip", True),
        ("augment.scale=0.5,2", "augment", "scale", (0.5, 2.0)),
        ("augment.scale=[0.5, 2]", "augment", "scale", (0.5, 2.0)),
        ("train.crop=512,256", "train", "crop", (512, 256)),
        ("network.norm=none", "network", "norm", "none"),
        ('network.norm="none"', "network", "norm", "none"),
        ("task.title=2024 = a year", "task", "title", "2024 = a year"),
        ("task.title=3", "task", "title", "3"),
        ("split.val=H0*.png, 22:24", "split", "val", ("H0*.png", "22:24")),
        ('split.val=["a,b"]', "split", "val", ("a,b",)),
        ("output.classes=x", "output", "classes", ("x",)),
        ("input.spacing_um=", "input", "spacing_um", None),
    ],
)
def test_set_takes_what_a_shell_leaves(override: str, section: str, key: str, expected: object) -> None:
    data = minimal(input={"spacing_um": [1.0, 2.0]}, train={"lr": 0.25})
    recipe = recipe_from_dict(data, "here", [override])
    assert getattr(getattr(recipe, section), key) == expected
    assert data == minimal(input={"spacing_um": [1.0, 2.0]}, train={"lr": 0.25})


def test_the_last_override_wins_and_others_stay() -> None:
    recipe, em = load_recipe("em", ["train.epochs=3", "train.seed=1", "train.epochs=5"]), load_recipe("em").train
    assert (recipe.train.epochs, recipe.train.seed) == (5, 1)
    assert recipe.train.model_copy(update={"epochs": em.epochs, "seed": em.seed}) == em


def test_the_other_way_to_write_widths_by_override() -> None:
    overrides = ["network.base_width=", "network.depth=", "network.channels=16,32,64"]
    assert load_recipe("em", overrides).network.widths == (16, 32, 64)


# --- round trips --------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(lambda s: ":" not in s)
positive = st.floats(1e-9, 1e9)


def pairs(values: st.SearchStrategy[float]) -> st.SearchStrategy[list[float]]:
    return st.tuples(values, values).map(sorted)


@st.composite
def recipe_values(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Values of a valid recipe, every kind of setting among them."""
    depth = draw(st.integers(1, 5))
    num_classes = draw(st.integers(0, 4))
    classes = draw(st.lists(names, min_size=num_classes, max_size=num_classes, unique=True))
    by_list = draw(st.booleans())
    widths = draw(st.lists(st.integers(1, 512), min_size=depth + 1, max_size=depth + 1))
    network: dict[str, Any] = {"channels": widths} if by_list else {"base_width": widths[0], "depth": depth}
    network["dropout"] = draw(st.floats(0, 1, exclude_max=True))
    kind = "classes" if num_classes > 1 else "binary"
    values = draw(
        st.lists(st.integers(0, 65535), min_size=max(2, num_classes), max_size=max(2, num_classes), unique=True)
    )
    crop = draw(st.lists(st.integers(1, 9).map(lambda n: n * 2**depth), min_size=2, max_size=2))
    data: dict[str, dict[str, Any]] = {
        "task": {"name": draw(st.text(string.ascii_letters, min_size=1, max_size=9)), "summary": draw(texts)},
        "input": {"context_slices": draw(st.sampled_from([1, 3, 5])), "polarity": draw(texts)},
        "normalise": {"method": "range", "value_range": [0, draw(st.integers(1, 10**9))]},
        "network": network,
        "output": {"classes": classes, "threshold": draw(st.floats(0, 1))},
        "labels": {"kind": kind, "values": values},
        "split": {"train": ["0:22"], "val": draw(st.lists(names, max_size=3))},
        "train": {"crop": crop, "lr": draw(positive), "seed": draw(st.integers(0, 2**63 - 1))},
        "loss": {"border": draw(st.booleans()), "border_sigma_px": draw(positive)},
        "augment": {"gamma": draw(pairs(positive)), "flip": draw(st.booleans())},
    }
    if draw(st.booleans()):
        data["input"]["spacing_um"] = draw(st.lists(positive, min_size=2, max_size=3))
        data["train"]["max_time_s"] = draw(positive)
    return data


@given(recipe_values(), st.booleans())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_a_recipe_survives_toml_and_json(values: dict[str, dict[str, Any]], comments: bool) -> None:
    recipe = recipe_from_dict(values, "here")
    text = recipe.to_toml(comments)
    assert recipe_from_dict(tomllib.loads(text), "toml") == recipe
    assert recipe_from_dict(json.loads(json.dumps(recipe.to_dict())), "json") == recipe
    assert dump_toml(recipe_from_dict(tomllib.loads(text), "toml"), comments) == text
    assert recipe_from_dict(tomllib.loads(text), "toml").fingerprint() == recipe.fingerprint()


def test_comments_say_what_each_setting_means() -> None:
    text = load_recipe("em").to_toml(comments=True)
    assert '# downsampling by 2 ("max", "average", "strided")\ndown = "max"' in text


# --- fingerprint --------------------------------------------------------------------------------------------


def test_fingerprint_follows_what_decides_a_prediction_and_nothing_else() -> None:
    plain = load_recipe("em").fingerprint()
    same = ["train.epochs=1", "task.title=other", "augment.flip=false", "output.activation=sigmoid"]
    widths = ["network.base_width=", "network.depth=", "network.channels=16,32,64,128,256"]
    assert load_recipe("em", [*same, *widths]).fingerprint() == plain
    other = ["input.context_slices=3", "normalise.method=none", "network.norm=none", "output.threshold=0.4"]
    assert len({plain, *(load_recipe("em", [text]).fingerprint() for text in other)}) == 5
    assert len(plain) == 64


def test_fingerprint_is_the_same_everywhere() -> None:
    code = "from unetctl.recipe import load_recipe as l; import sys; print(l('em').fingerprint()); "
    code += "assert not {'torch', 'zarr', 'dask', 'skimage', 'tifffile'} & set(sys.modules)"
    root = Path(__file__).resolve().parent.parent
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == load_recipe("em").fingerprint()


# --- what is shipped ----------------------------------------------------------------------------------------


def test_every_shipped_recipe_loads_and_bears_its_files_name() -> None:
    shipped = shipped_recipes()
    assert "em" in shipped
    for name, path in shipped.items():
        recipe = load_recipe(name)
        assert recipe.task.name == name
        assert recipe.task.title
        assert recipe.network_spec.is_exact
        assert recipe == load_recipe(path)
        lines = describe(recipe)
        assert lines[0].startswith(f"{name}: ")
        assert all(line and "\n" not in line for line in lines)


def test_em_is_the_papers_network_on_the_documented_split() -> None:
    em = load_recipe("em")
    assert em.network.widths == (16, 32, 64, 128, 256)
    assert em.network_spec.margin == (94, 94)
    assert (em.split.train, em.split.val, em.split.test) == (
        ("train-volume[0:22]",),
        ("train-volume[22:24]",),
        ("train-volume[24:30]",),
    )
    assert em.labels.class_of_value == {0: 0, 255: 1}
    assert "halo 94 px" in "\n".join(describe(em))


def test_an_inexact_network_is_named_in_the_description() -> None:
    assert "not exact: group norm" in describe(load_recipe("em", ["network.norm=group"]))[-1]


def test_weights_that_do_not_exist_are_none() -> None:
    assert shipped_weights("no-such-task") is None


def test_a_file_beside_does_not_shadow_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "em").write_text('[task]\nname = "other"\n')
    monkeypatch.chdir(tmp_path)
    assert load_recipe("em").task.name == "em"
    assert load_recipe("./em").task.name == "other"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("0:22", ("", slice(0, 22))),
        (":", ("", slice(None, None))),
        ("-6:", ("", slice(-6, None))),
        ("stack*[3:5]", ("stack*", slice(3, 5))),
        ("H0*.png", ("H0*.png", None)),
        ("t[0-9].tif", ("t[0-9].tif", None)),
        ("t000..t060", ("t000..t060", None)),
    ],
)
def test_split_entries(entry: str, expected: tuple[str, slice | None]) -> None:
    assert parse_split_entry(entry) == expected
