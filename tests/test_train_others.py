"""Data as other people have them: what was right for the data a recipe was made for must not be wrong for theirs."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import torch
from PIL import Image

from tests.training_data import SIZE, grey, run, save
from unetctl.errors import InputError, UsageError
from unetctl.jobs.train_data import DataWishes, read_split
from unetctl.recipe.load import load_recipe, recipe_from_dict
from unetctl.recipe.schema import Recipe
from unetctl.runtime.events import Event, Note
from unetctl.training.augment import AugmentOptions, augment, sample_rngs
from unetctl.training.crops import Plane
from unetctl.training.fingerprint import fingerprint
from unetctl.training.load import load_selection
from unetctl.training.object_targets import interior_and_border
from unetctl.training.pairs import find_pairs
from unetctl.training.pictures import find_pictures
from unetctl.training.splits import Selection, SplitRules, make_split
from unetctl.training.tally import tally
from unetctl.training.validation import _binary_figures

COLOURS = [0, 0, 0, 255, 255, 255, 255, 0, 0]


def made(sections: dict[str, Any]) -> Recipe:
    return recipe_from_dict({"task": {"name": "theirs"}, **sections}, "test")


def blobs(i: int, num: int = 3) -> npt.NDArray[np.uint8]:
    """(y, x) numbers 0 to `num`, in squares that move with `i`."""
    labels = np.zeros(SIZE, np.uint8)
    for k in range(1, num + 1):
        labels[4 + i : 12 + i, 12 * (k - 1) + 2 : 12 * (k - 1) + 10] = k
    return labels


def folder_of(root: Path, labels: list[npt.NDArray[Any]], names: list[str] | None = None) -> Path:
    for i, label in enumerate(labels):
        name = names[i] if names else f"p{i}"
        save(root / "images" / f"{name}.png", grey(i)[0])
        save(root / "labels" / f"{name}.png", label)
    return root


@pytest.mark.parametrize("task", ["nuclei", "salt"])
def test_the_names_of_a_challenge_are_nobody_elses(tmp_path, task):
    names = [f"{word}_{i:04}" for word in ("embryo", "fly", "frame") for i in range(0, 40, 10)]
    names += ["embryo_frame_001", "e0", "f1", "slice_0010"]
    table = find_pairs(folder_of(tmp_path, [blobs(0)] * len(names), names))
    s = load_recipe(task).split
    split = make_split(table, SplitRules(s.train, s.val, s.test), lambda pair: 1)
    assert not split.test
    assert 0 < len(split.val) <= len(names) // 5


def test_the_names_of_photographs_are_nobody_elses(tmp_path):
    for name in ("IMG_3701", "3712", "37_b", "a1", "a2", "a3", "a4", "a5"):
        save(tmp_path / f"{name}.png", grey(1)[0])
    s = load_recipe("restore").split
    split = make_split(find_pictures(tmp_path), SplitRules(s.train, s.val, s.test, val_share=0.1), lambda pair: 1)
    assert len(split.val) == 1


def stack_of(root: Path, names: list[str]) -> Any:
    return find_pairs(folder_of(root, [blobs(0, 1) * 255] * len(names), names))


def test_planes_keep_their_numbers_whatever_is_left_out(tmp_path):
    names = [f"s{i:02}" for i in range(6)]
    table = stack_of(tmp_path, names)
    rules = SplitRules(("0:3",), ("3:4",), ("4:6",), val_share=0)
    for gone in range(6):
        for rule, left_out in ((rules.overridden(exclude=[names[gone]]), ()), (rules, {table.pairs[gone]})):
            split = make_split(table, rule, lambda pair: 1, stack=True, left_out=left_out)
            for chosen, planes in ((split.train, range(3)), (split.val, range(3, 4)), (split.test, range(4, 6))):
                assert [one.pair.name for one in chosen] == [names[i] for i in planes if i != gone]


def test_the_only_plane_of_a_volume_in_a_set_is_named_with_its_number(tmp_path):
    for name, pixels in (("v-volume", grey(1)[0]), ("v-labels", blobs(0, 1))):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.stack([pixels] * 2), photometric="minisblack")
    split = make_split(find_pairs(tmp_path), SplitRules(val=("1:2",)), lambda pair: 2)
    assert split.as_dict() == {"train": ["v-volume[0]"], "val": ["v-volume[1]"], "test": []}


def test_numbers_of_a_table_of_colours_count_in_all_pictures_alike(tmp_path):
    for i in range(6):
        save(tmp_path / "images" / f"p{i}.png", grey(i)[0])
        picture = Image.fromarray(blobs(i, 2 if i % 2 else 1), "P")
        picture.putpalette(COLOURS)
        path = tmp_path / "labels" / f"p{i}.png"
        path.parent.mkdir(exist_ok=True)
        picture.save(path)
    found = tally(find_pairs(tmp_path).pairs)
    assert list(found.numbers) == [0, 1, 2]
    assert found.ignored is None


def test_masks_of_1_and_of_255_in_one_folder_mark_the_same(tmp_path):
    data = folder_of(tmp_path / "data", [blobs(i, 1) * (255 if i % 2 else 1) for i in range(6)])
    told = run("train", "--data", data, "--preview", "-o", tmp_path / "run")
    assert told.exit_code == 0, told.stderr
    assert "some labels mark it by 1, others by 255" in " ".join(told.stderr.split())
    assert "unknown" not in told.stderr
    known = made({"labels": {"kind": "binary"}, "output": {"classes": ["it"]}})
    for pair in find_pairs(data):
        (plane,) = load_selection(Selection(pair, (0,)), known).planes
        assert plane.weights is None
        assert plane.target.sum() == 64
    both = folder_of(tmp_path / "void", [np.where(blobs(i, 2) == 2, 255, blobs(i, 2)) for i in range(3)])
    assert tally(find_pairs(both).pairs).ignored == 255


def test_nothing_is_learnt_beside_what_is_to_be_ignored():
    """Where the nearest label is a place-holder, weights of the neighbours must not make it one of background."""
    size = 64
    targets, weights = torch.ones(4, 1, size, size), torch.ones(4, 1, size, size)
    targets[..., ::8], weights[..., ::8] = 0, 0
    options = AugmentOptions(rotate="any", scale=(0.7, 1.4), elastic_prob=1.0, elastic_sigma_px=4)
    _, found, kept = augment(
        torch.zeros(4, 1, size, size), targets, weights, sample_rngs((1, 2), 4), options, (32, 32), (32, 32)
    )
    assert kept is not None
    assert ((found == 0) & (kept > 0)).sum() == 0
    assert (kept > 0).float().mean() > 0.7


def repairing(**train: Any) -> Recipe:
    values = load_recipe("restore").to_dict()
    return recipe_from_dict({**values, "train": {**values["train"], **train}}, "test")


@pytest.mark.parametrize("figure", ["v_rand", "v_info", "adapted_rand_error", "pixel_error", "mean_precision"])
def test_repairs_are_not_judged_by_figures_that_they_do_not_have(figure):
    with pytest.raises(UsageError, match=r"\[train\] select"):
        repairing(select=figure)
    assert repairing(select="iou").train.select == "iou"


def test_several_classes_are_answered_as_they_are_trained():
    with pytest.raises(UsageError, match=r"\[output\] activation"):
        made({"output": {"classes": ["a", "b", "c"], "activation": "sigmoid"}})


def test_a_torn_label_is_skipped_while_the_data_decide_too(tmp_path):
    data = folder_of(tmp_path / "data", [blobs(i) for i in range(6)])
    for i in range(6):  # several pieces a number: classes
        save(data / "labels" / f"p{i}.png", np.concatenate([blobs(i)[:20], blobs(i)[:20]]))
    (data / "labels" / "p3.png").write_bytes((data / "labels" / "p3.png").read_bytes()[:40])
    assert run("train", "--data", data, "--preview", "-o", tmp_path / "a").exit_code == 4
    told = run("train", "--data", data, "--preview", "-o", tmp_path / "b", "--on-error", "skip")
    assert told.exit_code == 0, told.stderr
    assert "left out" in told.stderr


def test_four_markers_are_no_colours(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(4):
        save(tmp_path / "data" / "labels" / f"p{i}.tif", blobs(i, 1))
        pixels = rng.integers(0, 4000, (4, *SIZE)).astype(np.uint16)
        (tmp_path / "data" / "images").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "data" / "images" / f"p{i}.ome.tif", pixels, metadata={"axes": "CYX"})
    told = run("train", "--data", tmp_path / "data", "--preview", "-o", tmp_path / "run")
    assert told.exit_code == 0, told.stderr
    assert "the pictures have 4 channels: all go in" in told.stderr


def test_the_same_few_numbers_in_every_picture_are_classes(tmp_path):
    organs = fingerprint(find_pairs(folder_of(tmp_path / "organs", [blobs(i, 2) for i in range(6)])).pairs)
    assert (organs.label_kind, organs.is_repeated) == ("few numbers", True)
    some = [np.where(blobs(i, 3) == 1 + i % 2, 0, blobs(i, 3)) for i in range(6)]
    assert fingerprint(find_pairs(folder_of(tmp_path / "some", some)).pairs).is_repeated
    counted = fingerprint(find_pairs(folder_of(tmp_path / "counted", [blobs(i, 1 + i % 4) for i in range(8)])).pairs)
    assert (counted.label_kind, counted.is_repeated) == ("ids", False)


def test_membranes_are_not_scored_where_nothing_is_known():
    target = np.zeros((1, *SIZE), np.uint8)
    target[0, 2:18, 2:20], target[0, 2:18, 24:44] = 1, 1
    target[0, 24:38, 4:44] = 1
    weights = np.ones(target.shape, np.float32)
    weights[0, 20:] = 0
    logits = np.where(target > 0, 8.0, -8.0).astype(np.float32)
    logits[0, 20:] = -logits[0, 20:]  # all wrong there
    known = made({"output": {"classes": ["cell"]}, "train": {"select": "v_rand"}})
    figures = _binary_figures([Plane("a", target.astype(np.float32), target, weights)], [logits], known)
    assert (figures["v_rand"], figures["v_info"], figures["pixel_error"]) == pytest.approx((1, 1, 0))


def test_what_was_wished_already_is_not_advised(tmp_path):
    data = folder_of(tmp_path / "data", [blobs(i, 1)[:20] for i in range(3)])
    known = made({"output": {"classes": ["it"]}})
    heard: list[Event] = []
    for skips in (False, True):
        wishes = DataWishes(data, skips_errors=skips)
        with pytest.raises(Exception, match="unequal size") as told:
            read_split(
                find_pairs(data), wishes, known, lambda one: load_selection(one, known), heard.append, lambda: False
            )
        assert ("--on-error skip" in str(told.value)) is not skips
    assert all(isinstance(event, Note) for event in heard)


def test_the_sheet_of_a_preview_is_no_picture_to_learn_from(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / f"{name}.png", grey(1)[0])
    for name in ("preview.png", "preview.html"):
        (tmp_path / "data-restore").mkdir(exist_ok=True)
        (tmp_path / "data-restore" / name).write_bytes((tmp_path / "a.png").read_bytes())
    assert [pair.name for pair in find_pictures(tmp_path)] == ["a", "b"]


def test_a_picture_without_a_number_is_named(tmp_path):
    data = tmp_path / "data"
    for i in range(3):
        pixels = np.full(SIZE, np.nan, np.float32) if i == 1 else grey(i)[0].astype(np.float32)
        save(data / "images" / f"p{i}.tif", pixels)
        save(data / "labels" / f"p{i}.tif", blobs(i, 1))
    known = made({"output": {"classes": ["it"]}})
    pair = find_pairs(data).pairs[1]
    with pytest.raises(InputError, match=r"p1\.tif: no finite pixel"):
        load_selection(Selection(pair, (0,)), known)


def test_thousands_of_small_objects_that_touch_have_an_interior_each():
    ids = np.kron(np.arange(1, 60 * 60 + 1).reshape(60, 60), np.ones((4, 4), int))
    classes = interior_and_border(ids, 3)
    inside = np.unique(ids[classes == 1])
    assert len(inside) == 3600


def test_slices_in_files_of_their_own_are_told_of(tmp_path):
    data = folder_of(tmp_path / "data", [blobs(i, 1) * 255 for i in range(4)])
    told = run("train", "--data", data, "--task", "em", "--preview", "-o", tmp_path / "run", "--set", "split.train=[]",
               "--set", "split.val=[]", "--set", "split.test=[]", "--crop", "16")  # fmt: skip
    assert told.exit_code == 0, told.stderr
    assert "4 slices lie in files of their own: each is scaled by its own grey values" in " ".join(told.stderr.split())
