"""Repairing pictures through the whole product: folders in any layout, training, prediction, benchmark, sample."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from tests.training_data import run, save
from unetctl.errors import InputError
from unetctl.jobs.benchmark_restoration import repair
from unetctl.jobs.tasks import resolve_task
from unetctl.networks.build import for_inference
from unetctl.recipe.load import load_recipe, recipe_from_dict
from unetctl.training.pictures import find_pictures, is_damaged, load_pictures
from unetctl.training.splits import Selection

Pixels = npt.NDArray[Any]
TINY = (
    "--set", "network.channels=4,6,8", "--set", "network.fill_scales=3",
    "--set", "train.crop=32,32", "--set", "train.batch=4", "--set", "damage.size_px=6,16",
    "--set", "damage.picture=32,32", "--set", "train.warmup_steps=5", "--set", "train.ema=0.9", "--set", "train.grad_clip=10",
    "--set", "damage.opaque_share=1", "--set", "damage.colours=#ff00c8", "--set", "train.workers=0",
)  # fmt: skip


def photo(i: int, size: tuple[int, int] = (60, 75)) -> Pixels:
    """(y, x, 3) smooth colours with an edge."""
    rng = np.random.default_rng(i)
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / max(size)
    waves = [0.5 + 0.4 * np.sin(rng.uniform(3, 12) * (y * rng.normal() + x * rng.normal()) + i) for _ in range(3)]
    picture = np.stack(waves, -1)
    picture[y > rng.uniform(0.3, 0.6)] *= 0.6
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


def broken(picture: Pixels) -> tuple[Pixels, Pixels]:
    """With a square on it, and the mask."""
    found, mask = picture.copy(), np.zeros(picture.shape[:2], bool)
    found[10:30, 20:45], mask[10:30, 20:45] = (255, 0, 200), True
    return found, mask


def selections(folder: Path) -> list[Selection]:
    return [Selection(pair, (0,)) for pair in find_pictures(folder)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder beside its folder of pictures."""
    here = tmp_path_factory.mktemp("restore")
    for i in range(6):
        save(here / "photos" / "train" / f"p{i}.png", photo(i, (60 + i, 75 - i)))
    save(here / "photos" / "test" / "t0.png", photo(50))
    Image.fromarray(photo(51)).convert("L").save(here / "photos" / "test" / "t1.png")
    words = ("train", "--data", here / "photos", "--task", "restore", "-o", here / "run", "--epochs", 2, *TINY)
    done = run(*words, "--set", "train.steps_per_epoch=40", "--set", "train.val_every=1", "--lr", "0.01")
    assert done.exit_code == 0, done.stderr
    assert "8 clean pictures, to be damaged in training" in done.stderr
    assert "test: 2 planes" in done.stderr
    return here


# -- the data


def test_the_shipped_recipe_holds_and_asks_for_exact_tilings():
    recipe = load_recipe("restore")
    assert recipe.network_spec.is_exact
    assert recipe.normalise.method == "range"
    assert recipe.output.keep == "image"


def test_any_folder_holds_clean_pictures_that_are_their_own_truth(tmp_path):
    save(tmp_path / "b.jpg", photo(0))
    save(tmp_path / "deep" / "test" / "a.tif", photo(1))
    table = find_pictures(tmp_path)
    assert [(pair.name, pair.split) for pair in table] == [("b", None), ("deep/test/a", "test")]
    assert not any(is_damaged(pair) for pair in table)
    (plane,) = load_pictures(selections(tmp_path)[1], load_recipe("restore")).planes
    np.testing.assert_allclose(np.moveaxis(plane.pixels, 0, -1) * 255, photo(1), atol=1e-3)
    assert not plane.target.any()


@pytest.mark.parametrize("kind", ["grey", "alpha", "16 bits"])
def test_grey_transparent_and_deep_pictures_become_colour_of_one_scale(tmp_path, kind):
    picture = photo(2)
    wanted = picture / 255
    if kind == "grey":
        Image.fromarray(picture).convert("L").save(tmp_path / "a.png")
        wanted = np.repeat(np.asarray(Image.fromarray(picture).convert("L"))[..., None], 3, -1) / 255
    elif kind == "alpha":
        alpha = np.full((*picture.shape[:2], 1), 90, np.uint8)
        Image.fromarray(np.concatenate((picture, alpha), -1)).save(tmp_path / "a.png")
    else:
        tifffile.imwrite(tmp_path / "a.tif", picture.astype(np.uint16) * 257, photometric="rgb")
    loaded = load_pictures(selections(tmp_path)[0], load_recipe("restore"))
    np.testing.assert_allclose(np.moveaxis(loaded.planes[0].pixels, 0, -1), wanted, atol=1e-5)
    assert (loaded.was_grey, loaded.had_alpha) == (kind == "grey", kind == "alpha")


def given_damage(folder: Path, invert: bool = False, masks: bool = True, names: bool = True) -> Path:
    for i in range(3):
        clean = photo(i)
        found, mask = broken(clean)
        save(folder / "src_imgs" / f"img_{i}.png", clean)
        save(folder / "corrupted_imgs" / (f"img_{i}.png" if names else f"corrupted_{i}.png"), found)
        if masks:
            save(folder / "binary_masks" / (f"img_{i}.npy" if names else f"mask_{i}.npy"), mask ^ invert)
    return folder


@pytest.mark.parametrize("how", [{}, {"invert": True}, {"masks": False}, {"names": False}])
def test_damaged_pictures_come_with_clean_ones_and_masks_of_either_polarity(tmp_path, how):
    given_damage(tmp_path, **how)
    table = find_pictures(tmp_path)
    assert len(table) == 3
    assert all(is_damaged(pair) for pair in table)
    loaded = load_pictures(Selection(table.pairs[1], (0,)), load_recipe("restore"))
    (plane,) = loaded.planes
    found, mask = broken(photo(1))
    np.testing.assert_allclose(plane.pixels * 255, np.moveaxis(np.concatenate((found, photo(1)), -1), -1, 0), atol=1e-3)
    np.testing.assert_array_equal(plane.target[0] > 0, mask)
    assert bool(loaded.notes) == ("invert" in how or "masks" in how)


def test_what_does_not_fit_is_said(tmp_path):
    with pytest.raises(InputError, match="holds no pictures"):
        find_pictures(tmp_path)
    given_damage(tmp_path)
    np.save(tmp_path / "binary_masks" / "img_1.npy", np.zeros((3, 3), bool))
    with pytest.raises(InputError, match=r"img_1\.npy has the shape \(3, 3\)"):
        load_pictures(selections(tmp_path)[1], load_recipe("restore"))
    (tmp_path / "binary_masks" / "img_2.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match="cannot be read"):
        load_pictures(selections(tmp_path)[2], load_recipe("restore"))
    save(tmp_path / "src_imgs" / "img_0.png", photo(0, (20, 20)))
    done = run("train", "--data", tmp_path, "--task", "restore", "-o", tmp_path / "run", *TINY)
    assert done.exit_code == 4
    assert "20x20" in done.stderr or "20, 20" in done.stderr
    (tmp_path / "src_imgs" / "img_0.png").unlink()
    assert "no clean picture of its name" in find_pictures(tmp_path).problems[0]


def test_training_on_given_damage_works_and_says_so(tmp_path):
    given_damage(tmp_path / "data")
    words = ("train", "--data", tmp_path / "data", "--task", "restore", "-o", tmp_path / "run", "--epochs", 1, *TINY)
    done = run(*words, "--set", "train.steps_per_epoch=3")
    assert done.exit_code == 0, done.stderr
    assert "3 damaged pictures with their clean ones" in done.stderr
    scores = run("benchmark", "accuracy", "--task", tmp_path / "run", "--data", tmp_path / "data", "--json")
    assert scores.exit_code == 0, scores.stderr
    assert json.loads(scores.stdout)["num_planes"] == 3


# -- from training to figures


def test_training_makes_the_mask_better_than_chance_and_shows_it(trained):
    report = json.loads((trained / "run" / "report.json").read_text())
    assert report["status"] == "done"
    assert report["figures"]["iou"] > 0.3
    assert report["figures"]["psnr"] > 0
    page = (trained / "run" / "report.html").read_text()
    assert page.count("data:image/png") >= 3
    header = resolve_task(str(trained / "run")).header
    assert header.network["kind"] == "restorer"
    info = run("info", trained / "run" / "weights.safetensors")
    assert "restorer" in info.stdout


def test_the_preview_shows_damage(trained):
    words = ("train", "--data", trained / "photos", "--task", "restore", "-o", trained / "look", "--preview", *TINY)
    done = run(*words)
    assert done.exit_code == 0, done.stderr
    assert (trained / "look" / "preview.png").is_file()


def test_predict_repairs_what_the_mask_tells_and_nothing_else(trained, tmp_path):
    found, _ = broken(photo(7, (66, 90)))
    save(tmp_path / "a.png", found)
    save(tmp_path / "b.tif", found)
    Image.fromarray(found).save(tmp_path / "c.jpg", quality=90)
    Image.fromarray(found).convert("L").save(tmp_path / "g.png")
    inputs = [tmp_path / name for name in ("a.png", "b.tif", "c.jpg", "g.png")]
    for keep in ("image", "mask", "probability"):
        done = run(
            "predict", *inputs, "--task", trained / "run", "-o", tmp_path / keep, "--keep", keep, "--threshold", "0.4"
        )
        assert done.exit_code == 0, done.stderr
    assert (
        "grey pictures are taken as three equal colours"
        in run("predict", tmp_path / "g.png", "--task", trained / "run", "-o", tmp_path / "once.png").stderr
    )
    for source, name in zip(inputs, ("a.png", "b.tif", "c.png", "g.png"), strict=True):
        given = np.asarray(Image.open(source).convert("RGB"))
        image, mask, probability = (
            np.asarray(Image.open(tmp_path / k / name)) for k in ("image", "mask", "probability")
        )
        is_damage = mask.astype(bool)
        assert image.shape == given.shape
        np.testing.assert_array_equal(image[~is_damage], given[~is_damage])
        is_clear = np.abs(probability.astype(int) - 0.4 * 255) > 1  # of 8 bits, the step of the threshold is either
        np.testing.assert_array_equal(is_damage[is_clear], (probability > 0.4 * 255)[is_clear])
        assert is_damage.any() or name == "g.png"  # what was learnt here is a colour
        assert name == "g.png" or (image[is_damage] != given[is_damage]).any()


def test_tiles_of_a_panorama_leave_no_seam(trained, tmp_path):
    save(tmp_path / "wide.png", np.concatenate([photo(i, (70, 120)) for i in range(5)], axis=1))
    outputs = []
    for core in (96, 800):
        name = tmp_path / f"out{core}.png"
        done = run(
            "predict",
            tmp_path / "wide.png",
            "--task",
            trained / "run",
            "-o",
            name,
            "--core",
            core,
            "--keep",
            "probability",
        )
        assert done.exit_code == 0, done.stderr
        outputs.append(np.asarray(Image.open(name)).astype(int))
    assert outputs[0].shape == (70, 600)
    assert np.abs(outputs[0] - outputs[1]).max() <= 1


def test_the_benchmark_scores_what_predict_writes(trained, tmp_path):
    words = ("benchmark", "accuracy", "--task", trained / "run", "--data", trained / "photos", "--json")
    done = run(*words, "-o", tmp_path / "scores")
    assert done.exit_code == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["kind"] == "restoration"
    assert (values["split"], values["num_planes"]) == ("test", 6)
    assert values == json.loads((tmp_path / "scores" / "accuracy.json").read_text())
    assert set(values["methods"]) == {"ours", "biharmonic", "as damaged"}
    assert values["methods"]["biharmonic"]["psnr_outside"] is None  # it is given the mask
    assert values["methods"]["biharmonic"]["psnr_inside"] > values["methods"]["as damaged"]["psnr_inside"]
    page = (tmp_path / "scores" / "index.html").read_text()
    assert "00001-output.png" in page
    # what was scored is the file that predict makes of the same input
    shown = np.asarray(Image.open(tmp_path / "scores" / "00001-input.png"))
    task = resolve_task(str(trained / "run"))
    import torch

    network = for_inference(task.network(), torch.device("cpu"), torch.float32)
    ours, _ = repair(network, shown, task.recipe, task.recipe.output.threshold, torch.device("cpu"))
    done = run("predict", tmp_path / "scores" / "00001-input.png", "--task", trained / "run", "-o", tmp_path / "p.png")
    assert done.exit_code == 0, done.stderr
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "p.png")), ours)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "scores" / "00001-output.png")), ours)
    again = json.loads(run(*words).stdout)
    assert again["pictures"] == values["pictures"]


def test_the_sample_is_a_damaged_picture_with_its_truth(tmp_path):
    done = run("sample", "restore", "--shape", "96,128", "--labels", "-o", tmp_path / "s.png")
    assert done.exit_code == 0, done.stderr
    found, clean = (np.asarray(Image.open(tmp_path / name)) for name in ("s.png", "s-labels.png"))
    assert found.shape == clean.shape == (96, 128, 3)
    differs = (found != clean).any(-1)
    assert 0.01 < differs.mean() < 0.6
    first = (tmp_path / "s.png").read_bytes()
    assert run("sample", "restore", "--shape", "96,128", "-o", tmp_path / "s.png").exit_code == 0
    assert (tmp_path / "s.png").read_bytes() == first


def test_a_run_without_validation_pictures_still_validates(tmp_path):
    save(tmp_path / "one" / "a.png", photo(3))
    words = ("train", "--data", tmp_path / "one", "--task", "restore", "-o", tmp_path / "run", "--epochs", 1, *TINY)
    done = run(*words, "--set", "train.steps_per_epoch=2")
    assert done.exit_code == 0, done.stderr
    assert json.loads((tmp_path / "run" / "report.json").read_text())["figures"]["psnr"] > 0


def test_recipes_of_their_own_choose_network_and_damage():
    values = load_recipe("restore").to_dict()
    values["network"] |= {"up": "transposed", "down": "strided", "sub_blocks": 2}
    values["damage"] |= {"shapes": ["round"], "colours": ["#ff0000"]}
    made = recipe_from_dict(values, "mine")
    assert made.network_spec.stride == (16, 16)
    assert made.damage.colours == ("#ff0000",)
