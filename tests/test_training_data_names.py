"""Pairing in the layouts that people's archives have: DIBCO's own names, sets beside each other, suffixes of all kinds."""

from pathlib import Path

import pytest

from tests.test_training_data_pairs import found, make, names_of, never
from unetctl.errors import UsageError
from unetctl.training.names import folder_role, parse_stem
from unetctl.training.pairs import find_pairs
from unetctl.training.splits import SplitRules, excluded_pairs, make_split

# names as the contests' archives have them: picture, its labels, name of the pair
DIBCO = {
    "2009": [
        ("DIBC02009_Test_images-handwritten/H01.bmp", "DIBCO2009-GT-Test-images_handwritten/H01.tif"),
        ("DIBC02009_Test_images-printed/P01.bmp", "DIBCO2009-GT-Test-images_printed/P01.tif"),
    ],
    "2010": [("DIBCO2010_Test_images/H01.tif", "DIBCO2010_GT/H01_GT.tiff")],
    "2011": [
        ("DIBCO11-handwritten/HW1.png", "DIBCO11-handwritten/HW1_GT.tiff"),
        ("DIBCO11-machine_printed/PR1.png", "DIBCO11-machine_printed/PR1_GT.tiff"),
    ],
    "2012": [("H-DIBCO2012-dataset/H01.png", "H-DIBCO2012-dataset/H01_GT.tif")],
    "2013": [("DIBCO2013/OriginalImages/HW01.bmp", "DIBCO2013/GTimages/HW01_estGT.tiff")],
    "2014": [("H_DIBCO2014_original_images/H01.png", "H_DIBCO2014_GT/H01_estGT.tiff")],
    "2016": [("DIBCO2016_dataset-original/1.bmp", "DIBCO2016_dataset-GT/1_gt.bmp")],
    "2017": [("Dataset/1.bmp", "GT/1_gt.bmp")],
    "2018": [("dibco2018_Dataset/10.bmp", "dibco2018-GT/10_gt.bmp")],
    "2019": [("Dataset/Track A/1.bmp", "GT/Track A/1_gt.bmp")],
}


@pytest.mark.parametrize("together", [True, False])
def test_the_archives_of_the_contests(tmp_path, together):
    expected = set()
    for year, files in DIBCO.items():
        above = f"{year}/" if not together or year in ("2017", "2019") else ""
        above = f"all/{above}" if together else above
        make(tmp_path, *(above + name for names in files for name in names))
        expected |= {(above + image, above + labels) for image, labels in files}
    table = find_pairs(tmp_path)
    assert {
        (p.image.relative_to(tmp_path).as_posix(), p.labels.relative_to(tmp_path).as_posix()) for p in table
    } == expected
    assert not table.unlabelled
    assert not table.orphans
    assert not table.problems
    assert {p.split for p in table} == {None}
    if not together:
        for year, files in DIBCO.items():
            assert len(excluded_pairs(table, [year])) == len(files)
            assert len(excluded_pairs(table, [f"{year}/*"])) == len(files)


@pytest.mark.parametrize(
    "mark", ["_gt", "_GT", "-gt", "_label", "_mask", "_estGT", "-est-gt", "_ground_truth", "_GroundTruth"]
)
@pytest.mark.parametrize(
    "where", [("", ""), ("2009/", "2009/"), ("images/", "GT/"), ("a/b/images/", "a/b/ground_truth/")]
)
def test_marks_at_the_end_of_names(tmp_path, mark, where):
    make(tmp_path, f"{where[0]}x.png", f"{where[1]}x{mark}.png", f"{where[0]}x2.png", f"{where[1]}x2{mark}.tif")
    pairs = {(p.image.name, p.labels.name) for p in find_pairs(tmp_path)}
    assert pairs == {("x.png", f"x{mark}.png"), ("x2.png", f"x2{mark}.tif")}


def test_words_of_names():
    assert parse_stem("HW1_estGT") == (True, "HW1")
    assert parse_stem("H01GT") == (True, "H01")
    assert parse_stem("gt_07") == (True, "07")
    assert parse_stem("weight") == (None, "weight")
    assert parse_stem("nugget") == (None, "nugget")
    assert folder_role("GTimages").is_label
    assert not folder_role("Washington").is_label
    assert folder_role("OriginalImages").key == folder_role("GTimages").key == ""
    assert folder_role("train_masks").split == folder_role("TrainImages").split == "train"


def test_sets_beside_each_other_keep_apart_and_bring_their_split(tmp_path):
    make(tmp_path, *(f"{s}_{d}/1.png" for s in ("train", "val", "test") for d in ("images", "masks")))
    assert {(p.name, p.image.parent.name, p.labels.parent.name, p.split) for p in find_pairs(tmp_path)} == {
        (f"{s}_images/1", f"{s}_images", f"{s}_masks", s) for s in ("train", "val", "test")
    }


def test_labels_in_a_folder_among_the_pictures(tmp_path):
    make(tmp_path, "2010/1.bmp", "2010/gt/1_gt.bmp", "2011/a/2.bmp", "2011/GT/a/2.bmp", "2012/3.bmp", "2012/gt/4.bmp")
    assert found(tmp_path) == {
        "2010/1": ("2010/1.bmp", "2010/gt/1_gt.bmp"),
        "2011/a/2": ("2011/a/2.bmp", "2011/GT/a/2.bmp"),
    }
    table = find_pairs(tmp_path)
    assert [p.name for p in table.unlabelled] == ["3.bmp"]
    assert [p.name for p in table.orphans] == ["4.bmp"]


def test_two_folders_whose_names_have_nothing_in_common(tmp_path):
    make(tmp_path, "2010/scanned/1.bmp", "2010/my_gt_of_may/1.bmp")
    assert len(find_pairs(tmp_path)) == 1
    make(tmp_path, "2010/other/1.bmp")  # whose labels these are nobody can tell now
    make(tmp_path, "x/images/1.bmp", "x/gt/1.bmp")
    assert [p.name for p in find_pairs(tmp_path)] == ["x/1"]


def test_cases_and_zeros_may_differ(tmp_path):
    make(tmp_path, "images/h01.png", "gt/H01_GT.tif", "images/07.png", "gt/7.png")
    assert {p.name for p in find_pairs(tmp_path)} == {"h01", "07"}


def test_excluding_all_and_validating_on_what_is_excluded(tmp_path):
    make(tmp_path, *(f"{y}/{d}/H{i}.png" for y in (2014, 2016) for d in ("images", "gt") for i in range(3)))
    table = find_pairs(tmp_path)
    split = make_split(table, SplitRules().overridden(val=["2014/H*"], exclude=["2014/images/H2.png"]), never)
    assert names_of(split.val) == ["2014/H0", "2014/H1"]
    assert len(split.train) == 3
    with pytest.raises(UsageError, match=r"--exclude \* leaves out all.*names here are like 2014/H0"):
        make_split(table, SplitRules().overridden(val=["x"], exclude=["*"]), never)
    with pytest.raises(
        UsageError, match=r"--val 2016/\* fits only what --exclude leaves out \(2016/H0, 2016/H1, 2016/H2\)"
    ):
        make_split(table, SplitRules().overridden(val=["2016/*"], exclude=["2016"]), never)


def test_pairing_opens_nothing(tmp_path):
    """Dangling links: whatever opens one, or asks for its size, fails."""
    for path in ("2016/images/1.png", "2016/gt/1_gt.png", "a_Dataset/2.bmp", "a_GT/2_gt.bmp", "h.tif", "h_gt.tif"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).symlink_to(Path("/nowhere") / path)
    assert len(find_pairs(tmp_path)) == 3
