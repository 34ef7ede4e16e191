"""Pairing by names and splitting without leaks."""

from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetctl.errors import InputError, UsageError
from unetctl.training.pairs import Pair, PairTable, find_pairs, natural
from unetctl.training.splits import SETS, SplitRules, make_split, num_planes

lenient = settings(deadline=None, max_examples=40)


def make(root: Path, *names: str) -> Path:
    """Files without content: nothing may be opened."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def found(root: Path) -> dict[str, tuple[str, str]]:
    return {
        p.name: (p.image.relative_to(root).as_posix(), p.labels.relative_to(root).as_posix()) for p in find_pairs(root)
    }


def test_volumes_beside_their_labels(tmp_path):
    make(tmp_path, "train-volume.tif", "train-labels.tif", "test-volume.tif", "notes.txt")
    table = find_pairs(tmp_path)
    assert found(tmp_path) == {"train-volume": ("train-volume.tif", "train-labels.tif")}
    assert [p.name for p in table.unlabelled] == ["test-volume.tif"]
    assert table.pairs[0].kind == "volume"
    assert table.pairs[0].split == "train"
    assert not table.orphans
    assert not table.problems
    text = "\n".join(table.describe())
    assert "1 pair in" in text
    assert "train-volume: train-volume.tif + train-labels.tif" in text
    assert "without labels, left out: 1 (test-volume.tif)" in text


@pytest.mark.parametrize("labels", ["labels", "masks", "gt", "label", "mask", "GT"])
@pytest.mark.parametrize("suffix", ["", "_gt", "_mask", "-labels"])
@pytest.mark.parametrize("above", ["", "2009/", "a/b/"])
def test_images_and_a_label_folder_at_any_depth(tmp_path, labels, suffix, above):
    make(tmp_path, f"{above}images/H01.jpg", f"{above}{labels}/H01{suffix}.png", f"{above}images/H02.jpg")
    assert found(tmp_path) == {f"{above}H01": (f"{above}images/H01.jpg", f"{above}{labels}/H01{suffix}.png")}
    assert [p.name for p in find_pairs(tmp_path).unlabelled] == ["H02.jpg"]


def test_years_keep_equal_names_apart(tmp_path):
    make(tmp_path, *(f"{y}/{d}/H01.png" for y in (2009, 2010) for d in ("images", "gt")))
    assert found(tmp_path) == {f"{y}/H01": (f"{y}/images/H01.png", f"{y}/gt/H01.png") for y in (2009, 2010)}


def test_subfolders_below_images_and_labels_must_agree(tmp_path):
    make(tmp_path, "images/a/1.png", "labels/a/1.png", "images/b/1.png", "labels/c/1.png")
    assert found(tmp_path) == {"a/1": ("images/a/1.png", "labels/a/1.png")}
    table = find_pairs(tmp_path)
    assert len(table.unlabelled) == len(table.orphans) == 1
    assert "labels without a picture, left out: 1 (labels/c/1.png)" in table.describe()


def test_split_folders_are_honoured(tmp_path):
    make(tmp_path, *(f"{s}/{d}/p.png" for s in ("train", "val", "test") for d in ("images", "masks")))
    assert {p.name: p.split for p in find_pairs(tmp_path)} == {
        "train/p": "train",
        "val/p": "val",
        "test/p": "test",
    }


def test_numpy_by_number(tmp_path):
    names = [f"{s}/{k}_{i:03d}.npy" for s in ("train", "val", "test") for k in ("input", "label") for i in (0, 1)]
    make(tmp_path, *names, "train/input_007.npy", "val/label_9.npy", "val/input_009.npy")
    table = find_pairs(tmp_path)
    assert {(p.name, p.split) for p in table} == {
        *((f"{s}/input_{i:03d}", s) for s in ("train", "val", "test") for i in (0, 1)),
        ("val/input_009", "val"),
    }
    assert [p.name for p in table.unlabelled] == ["input_007.npy"]


@pytest.mark.parametrize(
    ("image", "labels"), [("x", "y"), ("inputs", "labels"), ("images", "masks"), ("input", "label")]
)
def test_numpy_arrays_by_name(tmp_path, image, labels):
    make(tmp_path, *(f"{s}/{n}.npy" for s in ("train", "val") for n in (image, labels)))
    table = find_pairs(tmp_path)
    assert [(p.name, p.split, p.kind) for p in table] == [
        (f"train/{image}", "train", "volume"),
        (f"val/{image}", "val", "volume"),
    ]


def test_files_beside_each_other_and_whole_stores(tmp_path):
    make(
        tmp_path,
        "a.png",
        "a_mask.png",
        "b.ome.tif",
        "b_labels.ome.tif",
        "raw.zarr/zarr.json",
        "raw.zarr/c/0.npy",
    )
    make(tmp_path, "labels.zarr/zarr.json", ".hidden/x.npy", ".hidden/y.npy", "old.run/x.npy", "old.run/y.npy")
    assert found(tmp_path) == {
        "a": ("a.png", "a_mask.png"),
        "b": ("b.ome.tif", "b_labels.ome.tif"),
        "raw": ("raw.zarr", "labels.zarr"),
    }


def test_single_letters_are_words_only_where_nothing_else_can_be_meant(tmp_path):
    make(tmp_path, "x_train.npy", "y_train.npy", "x_1.npy", "y_01.npy", "cell.tif", "cell_y.tif")
    assert found(tmp_path) == {"x_1": ("x_1.npy", "y_01.npy"), "x_train": ("x_train.npy", "y_train.npy")}
    table = find_pairs(tmp_path)
    assert [p.name for p in table.unlabelled] == ["cell.tif", "cell_y.tif"]
    assert table.pairs[1].split == "train"


def test_names_that_fit_twice_are_left_out_and_told(tmp_path):
    make(tmp_path, "images/a.png", "images/b.png", "images/b.tif", "labels/a.png", "labels/b.png")
    table = find_pairs(tmp_path)
    assert [p.name for p in table] == ["a"]
    assert len(table.problems) == 1
    assert "images/b.png, images/b.tif with labels/b.png" in table.problems[0]
    assert table.unlabelled == ()


def test_pairs_stand_in_natural_order(tmp_path):
    make(tmp_path, *(f"{d}/t{i}.tif" for i in (10, 9, 100) for d in ("images", "labels")))
    assert [p.name for p in find_pairs(tmp_path)] == ["t9", "t10", "t100"]
    assert natural("t9") < natural("t10") < natural("u1")


@pytest.mark.parametrize(
    ("names", "seen"),
    [
        ((), "no pictures"),
        (("readme.txt",), "no pictures"),
        (("a.png", "b.tif"), "2 pictures (a.png ...) and 0 label files"),
        (("images/a.png", "gt/b.png"), "1 picture (images/a.png) and 1 label file (gt/b.png)"),
    ],
)
def test_a_folder_without_pairs_is_refused_with_the_layouts(tmp_path, names, seen):
    make(tmp_path, *names)
    with pytest.raises(InputError) as caught:
        find_pairs(tmp_path)
    assert seen in str(caught.value)
    for known in ("a-volume.tif", "images/", "train|val|test/"):
        assert known in caught.value.hint
    with pytest.raises(InputError, match="does not exist"):
        find_pairs(tmp_path / "nowhere")


def test_a_link_back_up_ends(tmp_path):
    make(tmp_path, "images/a.png", "gt/a.png")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert list(found(tmp_path)) == ["a"]


@lenient
@given(st.sets(st.text("abcxy019_-", min_size=1, max_size=6), min_size=1, max_size=8), st.data())
def test_no_file_is_in_two_pairs_and_none_is_lost(tmp_path_factory, stems, data):
    root = tmp_path_factory.mktemp("d")
    folders = st.sampled_from(["", "images/", "labels/"])
    ends = st.sampled_from(["", "_gt", "-labels", "-volume"])
    names = {data.draw(folders) + stem + data.draw(ends) + ".png" for stem in stems}
    make(root, *names)
    try:
        table = find_pairs(root)
    except InputError:
        return
    used = [p.image for p in table] + [p.labels for p in table] + list(table.unlabelled) + list(table.orphans)
    assert len(used) == len(set(used))
    if not table.problems:
        assert {p.relative_to(root).as_posix() for p in used} == names
    assert len({p.name for p in table}) == len(table)


# splits


def table_of(*names: str, kind: str = "page", splits: dict[str, str] | None = None) -> PairTable:
    root = Path("/data")
    pairs = []
    for name in names:
        folder, _, stem = name.rpartition("/")
        image = root / folder / "images" / f"{stem}.png"
        where = f"{folder}/images".lstrip("/")
        hint = (splits or {}).get(name)
        pairs.append(Pair(name, image, root / folder / "gt" / f"{stem}.png", kind, hint, "", 0, where))  # type: ignore[arg-type]
    return PairTable(root, tuple(pairs), (root / "images" / "blank.png",), (), ())


def names_of(selections) -> list[str]:
    return [str(s) for s in selections]


def volumes(**sizes: int):
    """A table of volumes, and what counts their planes."""
    return table_of(*sizes, kind="volume"), lambda pair: sizes[pair.name]


def never(pair: Pair) -> int:
    raise AssertionError(f"{pair} was opened")


def test_slices_of_a_volume():
    table, count = volumes(train=30)
    split = make_split(table, SplitRules(("0:22",), ("22:24",), ("24:30",)), count)
    assert split.as_dict() == {"train": ["train[0:22]"], "val": ["train[22:24]"], "test": ["train[24:30]"]}
    assert not split.unused
    assert not split.notes
    assert str(split) == "train 22, val 2, test 6 planes"
    assert "train: 22 planes of 1 pictures (train[0:22])" in split.describe()


def test_slices_count_as_python_does_and_unnamed_planes_are_told():
    table, count = volumes(a=10, b=20)
    split = make_split(table, SplitRules((":4", "b[10:12]"), ("-2:",)), count)
    assert names_of(split.train) == ["a[0:4]", "b[0:4, 10:12]"]
    assert names_of(split.val) == ["a[8:10]", "b[18:20]"]
    assert names_of(split.unused) == ["a[4:8]", "b[4:10, 12:18]"]
    assert any(line.startswith("unused: 16 planes") for line in split.describe())


def test_folders_globs_and_ranges_of_names():
    table = table_of("2009/H01", "2009/H02", "2013/H01", "2016/H01", "2016/H09")
    split = make_split(table, SplitRules(val=("2013",), test=("2016/*",)), never)
    assert names_of(split.train) == ["2009/H01", "2009/H02"]
    assert names_of(split.val) == ["2013/H01"]
    assert names_of(split.test) == ["2016/H01", "2016/H09"]
    split = make_split(table, SplitRules(val=("20?9/*",), test=("H09",)), never)
    assert names_of(split.val) == ["2009/H01", "2009/H02"]
    assert names_of(split.test) == ["2016/H09"]
    frames = table_of(*(f"t{i:03d}" for i in (0, 3, 60, 63, 69, 72)))
    split = make_split(frames, SplitRules(("t000..t060",), ("63",), ("t069..",), val_share=0), never)
    assert names_of(split.train) == ["t000", "t003", "t060"]
    assert names_of(split.test) == ["t069", "t072"]
    assert names_of(split.unused) == ["t063"]
    assert split.notes == ("the rule val = '63' fits nothing here",)
    hashes = table_of("f0a", "0f1", "af2")
    assert names_of(make_split(hashes, SplitRules(test=("f*",)), never).test) == ["f0a"]


def test_folders_named_after_sets_are_honoured_and_rules_go_before_them():
    hints = {"train/a": "train", "train/b": "train", "val/c": "val", "test/d": "test"}
    table = table_of(*hints, splits=hints)
    split = make_split(table, SplitRules(("0:22",), ("22:24",)), never, stack=True)
    assert split.as_dict() == {"train": ["train/a", "train/b"], "val": ["val/c"], "test": ["test/d"]}
    assert len(split.notes) == 2
    split = make_split(table, SplitRules().overridden(val=["train/b"]), never)
    assert split.as_dict() == {"train": ["train/a"], "val": ["train/b", "val/c"], "test": ["test/d"]}


def test_a_folder_of_slices_is_a_volume_if_the_recipe_says_stack():
    table = table_of(*(f"s/{i}" for i in range(10)))
    split = make_split(table, SplitRules(("0:6",), ("6:8",), ("8:",)), never, stack=True)
    assert names_of(split.val) == ["s/6", "s/7"]
    assert names_of(split.test) == ["s/8", "s/9"]
    split = make_split(table, SplitRules(val_share=0.2), never, stack=True)
    assert names_of(split.val) == ["s/8", "s/9"]


def test_the_command_line_takes_its_validation_out_of_training():
    table, count = volumes(train=30)
    rules = SplitRules(("0:22",), ("22:24",), ("24:30",))
    split = make_split(table, rules.overridden(val=["18:22"]), count)
    assert split.as_dict() == {"train": ["train[0:18]"], "val": ["train[18:22]"], "test": ["train[24:30]"]}
    assert names_of(split.unused) == ["train[22:24]"]
    with pytest.raises(UsageError, match=r"train\[24:26\] is in val and test"):
        make_split(table, rules.overridden(val=["20:26"]), count)
    split = make_split(table, rules.overridden(val=["0.5"]), count)
    assert (num_planes(split.train), num_planes(split.val), num_planes(split.test)) == (11, 11, 6)
    assert make_split(table, rules.overridden(val=["0"]), count).val == ()


def test_overlapping_rules_are_refused():
    table, count = volumes(train=30)
    with pytest.raises(UsageError, match=r"train\[20:22\] is in train and val"):
        make_split(table, SplitRules(("0:22",), ("20:24",)), count)
    with pytest.raises(UsageError, match="2016/a is in val and test"):
        make_split(table_of("2016/a", "b"), SplitRules(val=("a",), test=("2016",)), never)


def test_excluded_files_are_never_opened():
    table = table_of("a", "b", "bad", kind="volume")
    opened = []

    def count_planes(pair):
        opened.append(pair.name)
        return 4

    split = make_split(table, SplitRules(exclude=("bad",)), count_planes)
    assert opened == ["a", "b"]
    assert [p.name for p in split.excluded] == ["bad"]
    assert "excluded: 1 pictures (bad)" in split.describe()
    make_split(table, SplitRules().overridden(exclude=["blank"]), lambda p: 4)  # unlabelled, out anyway


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (SplitRules().overridden(val=["c*"]), "--val c\\* fits nothing"),
        (SplitRules(exclude=("c",)), "--exclude c fits none of the 2 pairs"),
        (SplitRules(exclude=("a[0:2]",)), "names planes"),
        (SplitRules(exclude=("*",)), "no plane of the 2 pairs is left to train"),
        (SplitRules(test=("a", "b")), "no plane of the 2 pairs is left to train"),
        (SplitRules(train=("[0:2]",)), "planes but no name"),
        (SplitRules(train=(" ",)), "empty entry"),
    ],
)
def test_mistakes_are_refused(rules, message):
    with pytest.raises(UsageError, match=message):
        make_split(table_of("a", "b"), rules, never)


def test_a_share_that_leaves_nothing_is_refused():
    with pytest.raises(UsageError, match="validation share"):
        SplitRules(val_share=1.0)


def test_one_plane_alone_holds_nothing_out():
    split = make_split(table_of("a"), SplitRules(), never)
    assert split.val == ()
    assert "one plane alone" in split.notes[0]


def test_held_out_pictures_stay_when_others_are_added():
    few = table_of(*(f"p{i}" for i in range(40)))
    many = table_of(*(f"p{i}" for i in range(44)))
    before = set(names_of(make_split(few, SplitRules(), never).val))
    after = set(names_of(make_split(many, SplitRules(), never).val))
    assert len(before) == len(after) == 4
    assert len(before & after) >= 2


ENTRIES = st.one_of(
    st.builds("{}:{}".format, st.integers(-4, 9), st.integers(-4, 9)),
    st.builds("{}[{}:]".format, st.sampled_from(["a", "x/*", "b?"]), st.integers(0, 6)),
    st.sampled_from(["a", "x", "b*", "x/b1", "a..b1", "..a", "nothing"]),
)


@lenient
@given(
    st.lists(ENTRIES, max_size=3),
    st.lists(ENTRIES, max_size=2),
    st.lists(ENTRIES, max_size=2),
    st.lists(ENTRIES, max_size=1),
    st.floats(0, 0.9),
    st.lists(st.sampled_from([None, "train", "val", "test"]), min_size=4, max_size=4),
    st.booleans(),
)
def test_no_plane_is_ever_in_two_sets_and_none_is_lost(train, val, test, override, val_share, hints, stack):
    sizes = {"a": 1, "x/a": 8, "x/b1": 1, "x/b2": 3}
    table = table_of(*sizes, kind="volume", splits=dict(zip(sizes, hints, strict=True)))
    rules = SplitRules(tuple(train), tuple(val), tuple(test), (), val_share).overridden(val=override)
    try:
        split = make_split(table, rules, lambda pair: sizes[pair.name], stack)
    except UsageError:
        return
    sets = [
        {(s.pair.name, i) for s in chosen for i in s.planes}
        for chosen in (split.train, split.val, split.test, split.unused)
    ]
    for first, second in combinations(sets, 2):
        assert not first & second
    assert set().union(*sets) == {(name, i) for name, size in sizes.items() for i in range(size)}
    assert sets[0]
    for name in SETS:
        assert any(line.startswith(f"{name}:") for line in split.describe()) or not getattr(split, name)
