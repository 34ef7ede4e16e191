"""Which files are inputs, which outputs belong to them, and what is said of those that cannot be worked on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.sources_files import picture
from unetctl.errors import InputError, UsageError
from unetctl.jobs.api import dry_run, predict
from unetctl.jobs.outputs import output_names
from unetctl.networks.build import build_network
from unetctl.networks.weights import WeightsHeader, save_weights
from unetctl.recipe.load import recipe_from_dict
from unetctl.runtime.report import RunReport

Predict = Callable[..., list[RunReport]]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """These networks are tiny: threads would only wait for each other. What is written lies where one stands."""
    monkeypatch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tiny_weights: Path) -> Predict:
    """Predicts inputs."""
    return lambda inputs, **options: predict(inputs, tiny_weights, **{"precision": "fp32", **options})


def slices(folder: str, num: int = 3) -> None:
    Path(folder).mkdir(parents=True)
    for i, plane in enumerate(picture((num, 40, 30))):
        Image.fromarray(plane).save(f"{folder}/s{i}.tif")


# -- outputs among the inputs


@pytest.mark.parametrize("given", ["stack", "stack/*.tif"])
def test_an_output_in_its_own_folder_of_slices_is_no_slice(run, given):
    slices("stack")
    for wanted in ("done", "nothing-new"):
        (report,) = run(given, output="stack/out.tif")
        assert report.status == wanted
    assert any("1 outputs of unetctl ignored: out.tif" in note for note in report.notes)
    (report,) = run(given, output="stack/again.tif")  # another output has the first beside it from the start
    assert report.status == "done"


def test_a_folder_of_nothing_but_outputs_is_called_that(run):
    slices("stack")
    Path("out").mkdir()
    run("stack", output="out/stack.tif")
    with pytest.raises(InputError, match="out holds nothing but outputs of unetctl; expected pictures"):
        run("out")


# -- a begun run


def test_a_resumed_run_tells_the_memory_of_its_own_tiles(run):
    np.save("in.npy", picture((600, 600)))
    (small,) = run("in.npy", core=64, block=64, batch=1)
    (again,) = run("in.npy")  # whatever the planner would choose now: the begun tiles are followed
    (large,) = run("in.npy", output="large.tif")
    assert again.status == "nothing-new"
    assert again.projected_bytes == small.projected_bytes < large.projected_bytes


# -- pixels that are no numbers


def test_a_time_point_without_any_number_is_named(run):
    pixels = picture((4, 2, 30, 33), "float32")
    pixels[3] = np.nan
    np.save("in.npy", pixels)
    with pytest.raises(
        InputError, match=r"^t=3 of in\.npy holds no finite pixel .*predict the others alone with --time"
    ):
        run("in.npy", axes="tzyx")
    (report,) = run("in.npy", axes="tzyx", time=2, output="one.tif")
    assert report.status == "done"
    np.save("whole.npy", pixels[3])
    with pytest.raises(InputError, match=r"^whole\.npy holds no finite pixel"):
        run("whole.npy", axes="zyx")


# -- what is kept


def test_a_mask_of_classes_that_share_their_probability_is_refused(tmp_path, tiny_recipe):
    values = tiny_recipe.to_dict()
    values["output"]["classes"], values["labels"] = ["cytoplasm", "membrane", "outside"], {"kind": "classes"}
    recipe = recipe_from_dict(values, "tests")
    header = WeightsHeader("three", recipe.network_spec.to_dict(), recipe.to_dict())
    save_weights(tmp_path / "three.safetensors", build_network(recipe.network_spec, seed=5), header)
    np.save("in.npy", picture((40, 50)))
    with pytest.raises(UsageError, match=r"^--keep mask for a network with 3 classes; expected --keep classes or prob"):
        predict("in.npy", tmp_path / "three.safetensors", precision="fp32", keep="mask")
    (report,) = predict("in.npy", tmp_path / "three.safetensors", precision="fp32", keep="classes")
    assert report.status == "done"


# -- names of outputs


def test_inputs_of_one_name_mirror_their_folders(run):
    for i, folder in enumerate(("a", "b", "b/deep")):
        Path("data", folder).mkdir(parents=True)
        np.save(f"data/{folder}/x.npy", picture((40, 50), seed=i))
    np.save("data/b/y.npy", picture((40, 50), seed=9))
    Path("out").mkdir()
    given = ["data/a/x.npy", "data/b/x.npy", "data/b/deep/x.npy", "data/b/y.npy"]
    wanted = ["a/x", "b/x", "b/deep/x", "y"]
    for output, folder in ((Path("out"), "out/"), (None, "")):
        for status in ("done", "nothing-new"):
            reports = run(given, output=output)
            assert [r.status for r in reports] == [status] * 4, [r.error for r in reports]
            assert [r.output for r in reports] == [f"{folder}{name}-tiny.ome.tif" for name in wanted]
    assert [s.to_dict()["output"] for s in dry_run(given, "em", warm_up=False)] == [
        f"{name}-em.ome.tif" for name in wanted
    ]
    (alone,) = run("data/a/x.npy")
    assert alone.output == "x-tiny.ome.tif"
    assert Path(alone.output).read_bytes() == Path("out/a/x-tiny.ome.tif").read_bytes()


def test_names_of_outputs_differ_and_depend_on_equal_names_alone(monkeypatch, tmp_path):
    given = ["a/x.tif", "a/x.png", "b/x.tif", "c/y.tif", "v.h5::/raw/1", "v.h5::/old", "p/z.tif", "q/r/z.ome.tif", "w"]
    names = ["a/x.tif", "a/x.png", "b/x", "y", "v.h5-raw-1", "v.h5-old", "p/z", "q/r/z", "w"]
    assert output_names(given) == names
    assert output_names(given[::-1]) == names[::-1]
    assert output_names([f"{tmp_path}/{path}" for path in given]) == names
    assert output_names([*given, "./a/../a/x.tif"]) == [*names, "a/x.tif"]
    assert output_names(given[2:]) == ["x", *names[3:]]
    (tmp_path / "s/x.zarr").mkdir(parents=True)
    (tmp_path / "s/x.zarr/zarr.json").write_text("{}")
    assert output_names(["s/x.zarr", "s/x.tif"]) == ["x", "x"]  # x.ome.zarr and x.ome.tif
    with pytest.raises(
        UsageError, match=r"x\.tif\.png and another input would both be written to x\.tif; give them in"
    ):
        output_names(["x.tif", "x.png", "x.tif.png"])
