# ruff: noqa: E501 - messages stand here as people read them
"""Recipes that are wrong: every mistake is named at once, in a plain sentence with the near miss."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetctl.errors import UsageError
from unetctl.recipe import Recipe, load_recipe, recipe_from_dict
from unetctl.recipe.reading import parse_toml
from unetctl.recipe.validate import SECTIONS

FOUR = '[output]\nclasses = ["a", "b", "c", "d"]\n'

#: What stands in the recipe beside a task's name, and all that is said about it.
MISTAKES = [
    ('[input]\nchannels = "3"', '[input] channels: "3"; expected a whole number from 1 to 4096; write 3 without quotes'),
    ("[input]\nchannels = 2.5", "[input] channels: 2.5; expected a whole number from 1 to 4096"),
    ("[input]\nchannels = 2.0", "[input] channels: 2.0; expected a whole number from 1 to 4096; write 2"),
    ("[input]\nchannels = 0", "[input] channels: 0; expected a whole number from 1 to 4096"),
    ("[input]\ncontext_slices = 4", "[input] context_slices: 4; expected an odd number, the predicted plane in the middle; use 5"),
    ("[input]\nstack = false\ncontext_slices = 3", "[input] context_slices: 3 together with stack = false; expected 1, since pages have no neighbours; set stack = true if the images are the planes of one stack"),
    ("[input]\nluminance = true\nchannels = 3", "[input] luminance: true together with channels = 3; expected channels = 1; brightness is one channel; luminance = false keeps the colours"),
    ("[input]\npolarity = 3", '[input] polarity: 3; expected text in quotes; write "3"'),
    ("[input]\nstack = 1", "[input] stack: 1; expected true or false; write true"),
    ("[input]\npixel_size = 4", "[input] pixel_size: no such setting; did you mean spacing_um?"),
    ("[input]\nspacing_um = [4]", "[input] spacing_um: [4]; expected a list of 2 to 3 numbers above 0"),
    ('[normalise]\nmethod = "zscore"', '[normalise] method: "zscore"; expected one of "mean_std", "two_levels", "percentile", "range", "none"; did you mean "mean_std"?'),
    ("[normalise]\nlow = 99\nhigh = 1", "[normalise] low: 99.0 with high = 1.0; expected low below high; did you mean low = 1.0 and high = 99.0?"),
    ("[normalise]\nvalue_range = [0, 1]", '[normalise] value_range: [0.0, 1.0] with method = "mean_std"; expected method = "range"; leave value_range out otherwise'),
    ("[network]\ndept = 3", "[network] dept: no such setting; did you mean depth?"),
    ("[network]\nepochs = 3", "[network] epochs: no such setting; belongs in [train]"),
    ("[network]\nxyzzy = 3", "[network] xyzzy: no such setting; expected one of kind, blocks, sub_blocks, differences, fill_scales, unveil, channels, base_width, depth, dims, convolution, kernel, convs_per_level, padding, border, up, down, norm, dropout"),
    ('[network]\nup = "transpose"', '[network] up: "transpose"; expected one of "transposed", "bilinear", "bicubic"; did you mean "transposed"?'),
    ("[network]\nchannels = [16, 32]\ndepth = 1\n[train]\ncrop = [32, 32]", "[network] channels: given together with depth; expected either channels, or base_width and depth; leave one out (on the command line: --set network.channels= or --set network.depth=)"),
    ("[network]\nchannels = [16, -32, 64]", "[network] channels: [16, -32, 64]; expected a list of 2 to 9 whole numbers from 1 to 8192"),
    ("[network]\nkernel = 4", "[network] kernel: 4; expected an odd number of pixels; use 3 or 5"),
    ('[network]\npadding = "reflect"', '[network] padding: "reflect" with convolution = "valid"; expected no padding setting, since valid convolutions pad nothing; leave it out or use convolution = "same"'),
    ('[network]\nborder = "native"', "[network]: a network of valid convolutions has no border of its own; use border 'mirror'"),
    ("[network]\ndims = 4", "[network] dims: 4; expected one of 2, 3"),
    ("[network]\ndropout = inf", "[network] dropout: inf; expected a number from 0 to below 1"),
    ("[network]\ndims = 3", "[train] crop: [256, 256]; expected 3 sizes, [z, y, x], for a 3-D network"),
    ('[output]\nactivation = "softmax"', '[output] activation: "softmax" with 0 class(es); expected two or more classes; use "sigmoid" for a single one'),
    ('[output]\nactivation = "none"', '[output] keep: "probability" with activation = "none"; expected "logits"; probabilities need an activation'),
    ('[output]\nclasses = ["a", "a"]\n[labels]\nkind = "classes"', '[output] classes: ["a"] more than once; expected different names'),
    ('[output]\nclasses = "cell"', '[output] classes: "cell"; expected a list of texts in quotes; write ["cell"]'),
    (FOUR, '[labels] kind: "binary" with 4 classes in [output]; expected "classes"'),
    (FOUR + 'keep = "mask"\n[labels]\nkind = "classes"', '[output] keep: "mask" with 4 classes; expected "classes"; a mask belongs to a sigmoid'),
    (FOUR + '[labels]\nkind = "classes"\nvalues = [0, 1]', '[labels] values: [0, 1]; expected 4 values, one for each of ["a", "b", "c", "d"]'),
    ("[labels]\nvalues = [0, 255]\nignore = 255", "[labels] ignore: 255, which is one of values; expected a pixel value of no class"),
    ("[labels]\nvalues = [255]", "[labels] values: [255]; expected background values, then the foreground; for example [0, 255]"),
    ('[labels]\nkind = "classes"', '[labels] kind: "classes" with a single class in [output]; expected two names or more in classes of [output]; use kind = "binary" for foreground and background'),
    ('[split]\ntrain = ["0:22"]\nval = ["20:24"]', '[split] val: "20:24" shares planes 20 to 21 with "0:22" of train; expected nothing in common with train'),
    ('[split]\nval = ["24:22"]', '[split] val: "24:22" holds no plane; expected start below stop; did you mean "22:24"?'),
    ('[split]\nval = ["0:24:2"]', '[split] val: "0:24:2"; expected planes as start:stop, without a step'),
    ('[split]\ntrain = ["a*"]\ntest = ["a*"]', '[split] test: "a*" shares its images with "a*" of train; expected nothing in common with train'),
    ("[train]\ncrop = [250, 256]", "[train] crop: [250, 256]; expected multiples of the network's stride 16; use [256, 256]"),
    ("[train]\ncrop = 256", "[train] crop: 256; expected a list of 2 to 3 whole numbers from 1 up; write [256, 256]"),
    ("[train]\nmomentum = 1.0", "[train] momentum: 1.0; expected a number from 0 to below 1"),
    ('[train]\nlr = "1e-3"', '[train] lr: "1e-3"; expected a number above 0; write 0.001 without quotes'),
    ('[train]\noptimiser = "Adam"', '[train] optimiser: "Adam"; expected one of "sgd", "adam", "adamw"; did you mean "adam"?'),
    ("[train]\nbatch_size = 3", "[train] batch_size: no such setting; did you mean batch?"),
    ('[train]\nselect = "v_rnd"', '[train] select: "v_rnd"; expected one of "loss", "misclassified", "iou", "dice", "v_rand", "v_info", "adapted_rand_error", "pixel_error", "ap50", "seg", "mean_precision", "psnr"; did you mean "v_rand"?'),
    ("[augment]\nscale = [1.2, 0.8]", "[augment] scale: [1.2, 0.8]; expected [smallest, largest]; did you mean [0.8, 1.2]?"),
    ("[augment]\nscale = [1, 2, 3]", "[augment] scale: [1, 2, 3]; expected a list of 2 numbers above 0"),
    ("[augment]\nelastic_prob = 80", "[augment] elastic_prob: 80; expected a number from 0 to 1"),
    ("[trian]\nepochs = 3", "[trian]: no such section; did you mean [train]?"),
    ("network = 3", "[network]: 3; expected lines key = value below it"),
    ("epochs = 3", "epochs: stands above all sections; expected every setting under its [section]; belongs in [train]"),
    ("[[train]]\nepochs = 3", "[train]: [{epochs = 3}]; expected lines key = value below it"),
]  # fmt: skip


def told(error: UsageError) -> list[str]:
    """The single problems in a message."""
    text = str(error)
    if "\n" not in text:
        return [text.removeprefix("here: ")]
    first, *lines = text.split("\n")
    assert first == f"here has {len(lines)} mistakes:"
    assert all(line.startswith(f"  {i}. ") for i, line in enumerate(lines, start=1))
    return [line.split(". ", 1)[1] for line in lines]


def problems_of(text: str, overrides: tuple[str, ...] = ()) -> list[str]:
    data = tomllib.loads(text)
    with pytest.raises(UsageError) as caught:
        recipe_from_dict({"task": {"name": "x"}, **data}, "here", overrides)
    return told(caught.value)


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[text.replace("\n", " ") for text, _ in MISTAKES])
def test_one_mistake_has_one_message(text: str, message: str) -> None:
    assert problems_of(text) == [message]


def test_a_name_is_needed_and_is_a_name() -> None:
    with pytest.raises(UsageError) as caught:
        recipe_from_dict({}, "here")
    assert told(caught.value) == ["[task] name: missing; expected a name of letters, digits, - and _"]
    assert problems_of('[task]\nname = "my task"') == [
        '[task] name: "my task"; expected a name of letters, digits, - and _'
    ]
    assert problems_of('task = "em"') == ['[task]: "em"; expected lines key = value below it']


def test_all_mistakes_of_a_recipe_are_told_at_once_in_its_order() -> None:
    found = problems_of(
        """
        [input]
        channels = "3"
        context_slices = 2
        [netwrok]
        dept = 3
        norm = "batchnorm"
        kernel = 2
        [output]
        threshold = 1.5
        classes = ["a", "b", "c"]
        keep = "mask"
        [split]
        train = ["0:22"]
        val = ["20:24"]
        test = ["23:30"]
        [train]
        epochs = 0
        optimizer = "sgd"
        [augment]
        gamma = [2.0, 1.0]
        brightness = -1
        """
    )
    places = [line.partition(":")[0] for line in found]
    assert places == [
        "[input] channels",
        "[input] context_slices",
        "[netwrok]",
        "[netwrok] norm",
        "[netwrok] dept",
        "[network] kernel",
        "[output] threshold",
        "[output] keep",
        "[labels] kind",
        "[split] val",
        "[split] test",
        "[train] epochs",
        "[train] optimizer",
        "[augment] brightness",
        "[augment] gamma",
    ]


def test_checks_between_settings_hold_beside_unrelated_mistakes() -> None:
    found = problems_of('[network]\nnorm = "bach"\nborder = "native"\n[train]\ncrop = [250, 250]\nlr = 0')
    assert len(found) == 4
    assert any("no border of its own" in line for line in found)
    assert any("multiples of the network's stride 16" in line for line in found)


def test_one_mistake_causes_no_second_complaint() -> None:
    # depth 3 was meant, so a crop of 264 may be right; classes are unknown, so nothing is said of the labels
    assert problems_of("[network]\ndept = 3\n[train]\ncrop = [264, 264]") == [
        "[network] dept: no such setting; did you mean depth?"
    ]
    assert problems_of('[output]\nclasses = "cell"\n[labels]\nkind = "classes"') == [
        '[output] classes: "cell"; expected a list of texts in quotes; write ["cell"]'
    ]
    assert problems_of("network = 8\n[train]\ncrop = [250, 250]") == [
        "[network]: 8; expected lines key = value below it"
    ]


def test_overrides_are_named_as_such_and_told_with_the_rest() -> None:
    overrides = (
        "network.norm=bathc",
        "trian.lr=3",
        "epochs=3",
        "network.depth",
        "train.epocs=3",
        "what.ever=1",
        "split.val=",
    )
    assert problems_of('[train]\nlr = -1\n[split]\nval = "x"', overrides) == [
        "--set trian.lr=3: no section trian; expected one of task, input, normalise, network, output, objects, labels, "
        "split, train, loss, augment, damage, compose; did you mean train.lr?",
        "--set epochs=3: no section; expected section.key=value; did you mean train.epochs=3?",
        "--set network.depth: no value; expected section.key=value",
        "--set what.ever=1: no section what; expected one of task, input, normalise, network, output, objects, labels, "
        "split, train, loss, augment, damage, compose",
        '--set network.norm: "bathc"; expected one of "none", "batch", "group", "instance"; did you mean "batch"?',
        "[train] lr: -1; expected a number above 0",
        "--set train.epocs: no such setting; did you mean epochs?",
    ]


def test_an_override_of_a_section_that_is_no_table_changes_nothing() -> None:
    assert problems_of("train = 3", ("train.epochs=3",)) == ["[train]: 3; expected lines key = value below it"]


# --- text that is no TOML -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[task]\nname = em\n", 'line 2: name = em is no TOML (Invalid value); expected key = value; write name = "em"'),
        ("[augment]\nflip = True", "line 2: flip = True is no TOML (Invalid value); expected key = value; write flip = true"),
        ("[train]\nlr = .5", "line 2: lr = .5 is no TOML (Invalid value); expected key = value; write lr = 0.5"),
        ("[train]\nlr: 0.5", "line 2: lr: 0.5 is no TOML (Expected '=' after a key in a key/value pair); expected key = value; write lr = 0.5"),
        ("[train]\nmax_time_s = None", "line 2: max_time_s = None is no TOML (Invalid value); expected key = value; leave the line out to have the default"),
        ("[train\nlr = 0.5", "line 1: [train is no TOML (Expected ']' at the end of a table declaration); expected key = value; write [train]"),
        ("[train]\nlr = 1\nlr = 2", "line 3: lr = 2 sets it a second time; expected each setting once"),
        ("[train]\nlr = 1\n[train]\nlr = 2", "line 3: [train] is no TOML (Cannot declare ('train',) twice); expected [section], each once"),
        ("[train]\ncrop = (64, 64)", "line 2: crop = (64, 64) is no TOML (Invalid value); expected key = value; write crop = [64, 64]"),
        ("[train]\ncrop = [64,\n 64\n\n", "line 2: crop = [64, (unclosed array); expected an end of this list or text"),
        ("[network]\nchannels = [16,\n32 33,\n64]\n[train]\ncrop = [63, 64]", "line 3: 32 33, is no TOML (Unclosed array); expected key = value"),
        ("[train]\nlr = " + "[" * 5000, "the text: nested too deeply or numbers too long; expected a recipe in TOML"),
        ("[train]\nlr = " + "9" * 5000, "the text: nested too deeply or numbers too long; expected a recipe in TOML"),
    ],
)  # fmt: skip
def test_a_syntax_error_names_its_line_and_the_way_out(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "here.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    assert str(caught.value) == f"{path}: {message}"


def test_syntax_errors_hide_no_other_mistake(tmp_path: Path) -> None:
    path = tmp_path / "here.toml"
    path.write_text("[train]\nlr = ???\nepochs = True\ncrop = [250, 256]\n[network]\ndept = 3\nnorm = batch\n")
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    lines = str(caught.value).split("\n")
    assert lines[0] == f"{path} has 5 mistakes:"
    for expected, line in zip(
        ("line 2:", "line 3:", "line 7:", "[network] dept", "[train] epochs"), lines[1:], strict=True
    ):
        assert expected in line


@given(st.text(st.sampled_from('[]a="1,.\n #:{}')))
@settings(deadline=None, max_examples=150)
def test_reading_ends_for_any_text(text: str) -> None:
    try:
        found = parse_toml(text, "here")
    except UsageError as error:
        assert str(error).startswith("here")  # noqa: PT017 - either outcome is right, in words
    else:
        assert found.problems or found.data == tomllib.loads(text.replace("\r\n", "\n"))


@pytest.mark.parametrize("content", [b"\xff\xfe[train]", b"x" * (2 << 20)], ids=["no text", "too long"])
def test_what_is_no_recipe_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "here.toml"
    path.write_bytes(content)
    with pytest.raises(
        UsageError, match=r"here\.toml (is no UTF-8 text .byte 0.|has 2097152 bytes); expected a recipe"
    ):
        load_recipe(path)


def test_a_task_that_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[task]\nname = "mine"\n')
    for task, hint in (("EM", "em"), (tmp_path / "mien.toml", tmp_path / "mine.toml")):
        with pytest.raises(UsageError) as caught:
            load_recipe(task)
        assert str(caught.value).startswith(f"there is no task or recipe file {task}; expected one of ")
        assert caught.value.hint == f"did you mean {hint}?"
    with pytest.raises(UsageError, match="is a folder without a recipe"):
        load_recipe(tmp_path)


@pytest.mark.parametrize("setting", [("train", "epochs"), ("train", "lr"), ("task", "title"), ("train", "crop")])
def test_numbers_too_long_to_print_are_told_all_the_same(setting: tuple[str, str]) -> None:
    section, key = setting
    data: dict[str, Any] = {"task": {"name": "x"}}
    data.setdefault(section, {})[key] = -(16**6000)
    with pytest.raises(UsageError, match="a number of very many digits; expected"):
        recipe_from_dict(data, "here")


# --- anything at all ----------------------------------------------------------------------------------------

keys = st.one_of(st.sampled_from(sorted({key for model in SECTIONS.values() for key in model.model_fields})), st.text())
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["3", "bn"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)
tables = st.dictionaries(keys, values, max_size=5)


settings_named = st.sampled_from([f"{name}.{key}" for name, model in SECTIONS.items() for key in model.model_fields])
options = st.one_of(st.text(), st.builds("{}={}".format, settings_named, st.text('1,."[]ax:-', max_size=6)))


@given(
    st.dictionaries(st.sampled_from([*SECTIONS, "trian", "x"]), st.one_of(tables, values), max_size=6),
    st.lists(options, max_size=4),
)
@settings(deadline=None, max_examples=200)
def test_anything_is_a_recipe_or_a_usage_error(data: dict[str, Any], overrides: list[str]) -> None:
    try:
        recipe = recipe_from_dict(data, "here", overrides)
    except UsageError as error:
        assert all(told(error))  # noqa: PT017 - either outcome is right, in words
    else:
        assert isinstance(recipe, Recipe)
