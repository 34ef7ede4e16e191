"""What training sees: labels read as the recipe says, pixels scaled as at prediction, scores of the very outputs of predict."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import torch
from PIL import Image

import unetctl
from unetctl.errors import InputError, Stopped
from unetctl.geometry.mirror import mirror_indices
from unetctl.metrics.boundary import score_slice
from unetctl.metrics.overlap import count_overlap
from unetctl.networks.build import build_network
from unetctl.networks.weights import WeightsHeader, load_weights, save_weights
from unetctl.recipe.load import recipe_from_dict
from unetctl.recipe.schema import Recipe
from unetctl.runtime.compute import Compute
from unetctl.runtime.planning import PlanWishes, make_plan
from unetctl.runtime.reading import BlockReader, StatisticsStore, has_equal_channels
from unetctl.sources.open import open_source
from unetctl.training.crops import Plane
from unetctl.training.load import LoadedPair, count_planes, load_selection, with_loss_weights
from unetctl.training.losses import SegmentationLoss
from unetctl.training.pairs import find_pairs
from unetctl.training.splits import Selection
from unetctl.training.truth import palette_indices
from unetctl.training.validation import Validated, probability_of, validate
from unetctl.training.weightmap import border_weights, label_cells

Pixels = npt.NDArray[Any]
CPU = Compute("cpu", "fp32", 1)
SIZE = (9, 11)
RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, SIZE).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (*SIZE, 3)).astype(np.uint8)


def recipe(**sections: dict[str, Any]) -> Recipe:
    values: dict[str, dict[str, Any]] = {"task": {"name": "t"}, "network": {"base_width": 2, "depth": 1}}
    values["train"] = {"crop": [16, 16]}
    return recipe_from_dict({**values, **sections}, "test")


def write(path: Path, pixels: Pixels, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, pixels, **{"photometric": "minisblack", **options})
    else:
        Image.fromarray(pixels).save(path)


def load(
    folder: Path,
    image: Pixels,
    labels: Pixels,
    known: Recipe,
    suffix: str = ".npy",
    planes: tuple[int, ...] = (0,),
    **options: Any,
) -> LoadedPair:
    write(folder / f"a-volume{suffix}", image, **options)
    write(folder / f"a-labels{suffix}", labels, **({"metadata": options["metadata"]} if "metadata" in options else {}))
    (pair,) = find_pairs(folder).pairs
    return load_selection(Selection(pair, planes), known)


CLASSES = {"classes": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("known", "pixels", "targets", "ignored"),
    [
        ({}, [0, 1, 255, 7], [0, 1, 1, 1], []),
        ({"values": [0, 255]}, [0, 255, 255, 0], [0, 1, 1, 0], []),
        ({"values": [0, 100, 200]}, [0, 100, 200, 200], [0, 0, 1, 1], []),
        ({"values": [255, 0]}, [0, 255, 255, 0], [1, 0, 0, 1], []),
        ({"values": [0, 255], "ignore": 128}, [0, 255, 128, 128], [0, 1, 0, 0], [2, 3]),
        ({"ignore": 255}, [0, 1, 255, 7], [0, 1, 0, 1], [2]),
        ({"ignore": 0}, [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 2, 3]),
        ({"kind": "classes"}, [0, 1, 2, 1], [0, 1, 2, 1], []),
        ({"kind": "classes", "values": [30, 10, 20]}, [10, 20, 30, 10], [1, 2, 0, 1], []),
        ({"kind": "classes", "ignore": 255}, [0, 255, 2, 255], [0, 0, 2, 0], [1, 3]),
        ({"kind": "classes", "ignore": 9}, [9, 9, 9, 9], [0, 0, 0, 0], [0, 1, 2, 3]),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_label_values_become_classes(tmp_path, known, pixels, targets, ignored, dtype):
    of = {"labels": known, **({"output": CLASSES} if known.get("kind") == "classes" else {})}
    labels = np.asarray(pixels, dtype).reshape(2, 2)
    (plane,) = load(tmp_path, GREY[:2, :2], labels, recipe(**of)).planes
    assert plane.target.dtype == np.uint8
    assert plane.target.ravel().tolist() == targets
    weights = [float(i not in ignored) for i in range(4)]
    assert (plane.weights is None) == (not ignored)
    assert plane.weights is None or plane.weights.ravel().tolist() == weights


def test_labels_of_odd_kinds_have_no_colour_table_and_end_nothing(tmp_path):
    write(tmp_path / "floats.tif", np.zeros((8, 9, 3), np.float32), photometric="rgb")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing of the kind")
    assert palette_indices(tmp_path / "floats.tif") is None
    assert palette_indices(tmp_path / "torn.png") is None
    Image.fromarray(GREY).convert("P").save(tmp_path / "greys.png")
    assert palette_indices(tmp_path / "greys.png") is None  # its numbers say no more than its greys
    coloured = Image.fromarray(GREY).convert("P")
    coloured.putpalette([0, 0, 0, 255, 0, 0, 90, 90, 90])
    coloured.save(tmp_path / "table.png")
    found = palette_indices(tmp_path / "table.png")
    assert found is not None
    assert found.shape == SIZE


def test_truth_values_and_grey_pictures_with_alpha_are_labels(tmp_path):
    mask = GREY > 128
    grey = mask.astype(np.uint8) * 255
    opaque = np.full(SIZE, 255, np.uint8)
    found = [load(tmp_path / "npy", GREY, mask, recipe()).planes[0].target]
    for i, picture in enumerate(([grey], [grey, opaque], [grey] * 3, [grey] * 3 + [opaque])):
        stored = picture[0] if len(picture) == 1 else np.stack(picture, -1)
        found.append(load(tmp_path / str(i), GREY, stored, recipe(), ".png").planes[0].target)
    assert all(np.array_equal(target, mask[None]) for target in found)


@pytest.mark.parametrize(
    ("labels", "known", "words"),
    [
        (
            np.arange(99).reshape(SIZE),
            {"values": [0, 5]},
            r"hold the values 1, 2, 3, 4, 6, 7, 8, 9, 10, 11 \.\.\.; .*: 0, 5;",
        ),
        (np.arange(99).reshape(SIZE) % 3, {"values": [0, 1]}, r"hold the values 2; expected those of labels\.values"),
        (np.arange(99).reshape(SIZE) % 4, {"kind": "classes"}, r"hold class 3; expected 0 to 2; .*output\.classes"),
        (-(np.arange(99).reshape(SIZE) % 2), {"kind": "classes"}, r"hold class -1; expected 0 to 2"),
        (np.full(SIZE, 0.5), {}, r"hold fractions; expected whole numbers"),
        (np.full(SIZE, np.nan), {}, r"hold fractions"),
        (np.full(SIZE, np.inf), {}, r"hold fractions"),
        (np.moveaxis(COLOUR, -1, 0), {}, r"are coloured; expected one number a pixel"),
    ],
)
def test_labels_that_say_something_else_are_refused_by_name(tmp_path, labels, known, words):
    of = {"labels": known, **({"output": CLASSES} if known.get("kind") == "classes" else {})}
    options: dict[str, Any] = {"metadata": {"axes": "CYX"}} if labels.ndim == 3 else {}
    suffix = ".tif" if options else ".npy"
    image = np.stack([GREY] * 3) if labels.ndim == 3 else GREY
    of |= {"input": {"channels": 3}} if labels.ndim == 3 else {}
    with pytest.raises(InputError, match=rf"a-labels\{suffix} {words}"):
        load(tmp_path, image, labels, recipe(**of), suffix, **options)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_pictures_and_labels_of_unequal_size_are_named(tmp_path, suffix):
    for i, labels in enumerate((GREY[:-1], GREY[:, 1:], np.pad(GREY, 2))):
        with pytest.raises(InputError, match=r"9x11 .*a-labels.*equal sizes.*--exclude") as refused:
            load(tmp_path / str(i), GREY, labels, recipe(), suffix)
        assert "x".join(map(str, labels.shape)) in str(refused.value)
        if suffix != ".png":
            with pytest.raises(InputError, match="equal sizes"):
                count_planes(find_pairs(tmp_path / str(i)).pairs[0])


def test_one_plane_more_is_no_other_size(tmp_path):
    write(tmp_path / "a-volume.npy", GREY)
    write(tmp_path / "a-labels.npy", (GREY > 99)[None])
    (pair,) = find_pairs(tmp_path).pairs
    assert count_planes(pair) == 1
    assert np.array_equal(load_selection(Selection(pair, (0,)), recipe()).planes[0].target, (GREY > 99)[None])


def predicted_pixels(path: Path, known: Recipe) -> Pixels:
    """(planes, c, y, x) as the network gets them at prediction."""
    source = open_source(str(path))
    grey = frozenset([0]) if has_equal_channels(source, 0) else frozenset[int]()
    plan = make_plan(source.info, {}, known, "0" * 64, 1, CPU, 1 << 34, PlanWishes(block=16), None, grey).plan
    (image,) = plan.images
    reader, whole = BlockReader(source, plan, StatisticsStore(None, "t", plan)), None
    for index in range(plan.num_blocks):
        block = image.tiles.block(index)
        read = reader.read(image, block)
        assert read is not None
        whole = np.zeros((read.pixels.shape[0], *image.tiles.shape), np.float32) if whole is None else whole
        (scaling,) = read.scalings.values()
        pixels = read.pixels[(slice(None), *block.box.relative_to(block.read).slices())].astype(np.float32)
        shape = (-1, *(1,) * (pixels.ndim - 1))
        shift, factor = (np.asarray(v, np.float32).reshape(shape) for v in (scaling.shift, scaling.factor))
        whole[(slice(None), *block.box.slices())] = (pixels - shift) * factor
    source.close()
    assert whole is not None
    return np.moveaxis(whole.reshape(whole.shape[0], -1, *whole.shape[-2:]), 0, 1)


def holed(array: Pixels) -> Pixels:
    array = array.astype(np.float32)
    array[..., 3, 4], array[..., 0, 0] = np.nan, np.inf
    return array


@pytest.mark.parametrize("method", ["mean_std", "two_levels", "percentile", "range", "none"])
@pytest.mark.parametrize(
    ("shape", "axes", "channels", "change"),
    [
        (SIZE, "YX", 1, np.uint8),
        ((5, *SIZE), "ZYX", 1, np.uint16),
        ((5, *SIZE), "ZYX", 1, holed),
        ((2, 3, *SIZE), "TZYX", 1, np.float32),
        ((4, *SIZE), "TYX", 1, np.uint8),
        ((2, 2, *SIZE), "ZCYX", 2, np.uint8),
        ((2, 3, 2, *SIZE), "TZCYX", 2, np.uint16),
    ],
)
def test_grey_values_are_scaled_as_at_prediction(tmp_path, method, shape, axes, channels, change):
    pixels = np.random.default_rng(3).gamma(3.0, 20.0, shape)
    pixels += 40.0 * np.arange(shape[0]).reshape(-1, *(1,) * (len(shape) - 1))  # every time point is brighter
    pixels = change(np.clip(pixels, 0, 255).astype(np.uint8))
    known = recipe(input={"channels": channels}, normalise={"method": method})
    num = int(np.prod([n for n, a in zip(shape, axes, strict=True) if a in "TZ"], dtype=int))
    write(tmp_path / "a-volume.tif", pixels, metadata={"axes": axes}, ome=True)
    labels = pixels[..., 0, :, :] if "C" in axes else pixels
    write(
        tmp_path / "a-labels.tif", np.zeros_like(labels, np.uint8), metadata={"axes": axes.replace("C", "")}, ome=True
    )
    (pair,) = find_pairs(tmp_path).pairs
    found = load_selection(Selection(pair, tuple(range(num))), known)
    expected = predicted_pixels(tmp_path / "a-volume.tif", known)
    assert np.array_equal(np.stack([plane.pixels for plane in found.planes]), expected)
    finite = pixels[np.isfinite(pixels)]
    assert found.value_range == (finite.min(), finite.max())


@pytest.mark.parametrize("luminance", [True, False])
def test_colours_are_taken_as_at_prediction(tmp_path, luminance):
    known = recipe(input={"luminance": luminance})
    write(tmp_path / "grey-labels.png", GREY)
    write(tmp_path / "grey-volume.png", np.stack([GREY] * 3, -1))
    (pair,) = find_pairs(tmp_path).pairs
    (plane,) = load_selection(Selection(pair, (0,)), known).planes
    assert np.array_equal(plane.pixels[None], predicted_pixels(pair.image, known))
    write(pair.image, COLOUR)
    if luminance:
        (plane,) = load_selection(Selection(pair, (0,)), known).planes
        assert np.array_equal(plane.pixels[None], predicted_pixels(pair.image, known))
    else:
        with pytest.raises(InputError, match="3 channels"):
            load_selection(Selection(pair, (0,)), known)


@pytest.mark.parametrize(("axes", "shape"), [("ZYX", (5, *SIZE)), ("TZYX", (2, 3, *SIZE)), ("ZYX", (2, *SIZE))])
@pytest.mark.parametrize("context", [3, 7])
def test_neighbouring_planes_are_mirrored_at_the_ends_of_their_volume(tmp_path, axes, shape, context):
    pixels = np.random.default_rng(4).integers(0, 256, shape).astype(np.uint8)
    known = recipe(input={"context_slices": context})
    num, depth = int(np.prod(shape[:-2])), shape[-3]
    options = {"metadata": {"axes": axes}, "ome": True}
    planes = load(tmp_path, pixels, pixels, known, ".tif", tuple(range(num)), **options).planes
    single = load(tmp_path, pixels, pixels, recipe(), ".tif", tuple(range(num)), **options).planes
    for i, plane in enumerate(planes):
        first = i // depth * depth
        around = first + mirror_indices(i - first - context // 2, i - first + context // 2 + 1, depth)
        assert np.array_equal(plane.pixels, np.concatenate([single[j].pixels for j in around]))
        assert np.array_equal(plane.target, single[i].target)
    some = load(tmp_path, pixels, pixels, known, ".tif", (num - 1,), **options).planes
    assert np.array_equal(some[0].pixels, planes[-1].pixels)


@pytest.mark.parametrize("border", [True, False])
@pytest.mark.parametrize("balance", [True, False])
def test_loss_weights_are_class_balance_and_border_map(em_labels, border, balance):
    known = recipe(loss={"border": border, "class_balance": balance, "border_w0": 7.0, "border_sigma_px": 4.0})
    ignored = np.zeros(em_labels[0].shape, bool)
    ignored[5:20, 30:50] = True
    pixels = em_labels[:1].astype(np.float32)
    planes = [Plane(str(i), pixels, (labels[None] > 0).astype(np.uint8)) for i, labels in enumerate(em_labels[:2])]
    planes[1] = Plane("1", pixels, planes[1].target * ~ignored, (~ignored[None]).astype(np.float32))
    weighted = with_loss_weights(planes, known)
    counted = np.concatenate([planes[0].target.ravel(), planes[1].target[0][~ignored]])
    share = np.bincount(counted) / counted.size
    per_class = tuple(0.5 / share) if balance else (1.0, 1.0)
    for plane, found in zip(planes, weighted, strict=True):
        cells = label_cells(plane.target[0] > 0)
        ignore = ignored if plane.weights is not None else None
        expected = border_weights(cells, w0=7.0 * border, sigma_px=4.0, class_weights=per_class, ignore=ignore)
        assert found.weights is not None
        np.testing.assert_allclose(found.weights[0], expected, rtol=1e-5)
        assert found.pixels is plane.pixels
    if balance and not border:
        assert np.mean(
            [w for f in weighted if f.weights is not None for w in f.weights[f.weights > 0]]
        ) == pytest.approx(1)


KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "valid": {},
    "same": {"network": {"base_width": 4, "depth": 2, "convolution": "same", "norm": "batch", "up": "bilinear"}},
    "native": {"network": {"base_width": 4, "depth": 1, "convolution": "same", "border": "native"}},
    "membranes": {"train": {"crop": [16, 16], "select": "v_rand"}},
    "classes": {"output": CLASSES, "labels": {"kind": "classes", "values": [0, 128, 255], "ignore": 9}},
    "context": {"input": {"context_slices": 3}},
}


@pytest.fixture(scope="module", params=KINDS)
def validated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, em_stack: Pixels, em_labels: Pixels
) -> tuple[Path, Recipe, list[Plane], Validated]:
    """A folder with a volume and random weights, the recipe, its planes, and their validation."""
    known, folder = recipe(**KINDS[request.param]), tmp_path_factory.mktemp("validated")
    labels = em_labels.copy()
    if request.param == "classes":
        labels[:, :30], labels[:, 40:50, 40:50] = 128, 9
    pair = load(folder, em_stack, labels, known, ".tif", (0, 1, 2), metadata={"axes": "ZYX"})
    spec = known.network_spec
    save_weights(folder / "w.safetensors", build_network(spec, 3), WeightsHeader("t", spec.to_dict(), known.to_dict()))
    network, planes = load_weights(folder / "w.safetensors")[0], with_loss_weights(pair.planes, known)
    loss = SegmentationLoss("bce" if spec.out_channels == 1 else "cross_entropy")
    return folder, known, planes, validate(network, planes, known, loss, CPU, torch.device("cpu"))


def test_validation_sees_what_predict_writes(validated):
    folder, _, planes, found = validated
    output = folder / "logits.ome.tif"
    unetctl.predict(
        folder / "a-volume.tif", folder / "w.safetensors", output=output, keep="logits", precision="fp32", core=48
    )
    with tifffile.TiffFile(output) as file:
        logits, axes = file.asarray(), file.series[0].axes
    logits = np.moveaxis(logits, axes.index("C"), 0) if "C" in axes else logits[None]
    for i in range(len(planes)):
        np.testing.assert_allclose(found.outputs[i], logits[:, i], atol=1e-5)


def test_figures_are_those_of_the_outputs(validated):
    _, known, planes, found = validated
    figures = dict(found.figures)
    logits, target = np.stack(found.outputs), np.stack([plane.target[0] for plane in planes])
    weights = np.stack([plane.weights[0] for plane in planes])
    if logits.shape[1] == 1:
        probability = probability_of(logits[:, 0])
        losses = -np.log(np.where(target > 0, probability, 1 - probability))
        if known.train.select == "v_rand":
            best = [score_slice(p, t > 0, figures["threshold"]) for p, t in zip(probability, target, strict=True)]
            assert figures["v_rand"] == pytest.approx(np.mean([score.v_rand for score in best]))
            assert figures["v_info"] == pytest.approx(np.mean([score.v_info for score in best]))
        counts = [count_overlap(probability >= figures.get("threshold", 0.5), target > 0)]
        wrong = counts[0].misclassified
    else:
        shares = torch.from_numpy(logits).log_softmax(1).numpy()
        losses = -np.take_along_axis(shares, target[:, None].astype(int), 1)[:, 0]
        seen = weights > 0
        assert 0 < seen.mean() < 1
        counts = [count_overlap((logits.argmax(1) == k)[seen], (target == k)[seen]) for k in range(3)]
        wrong = float((logits.argmax(1) != target)[seen].mean())
    assert figures["loss"] == pytest.approx((losses * weights).sum() / weights.sum(), rel=1e-4)
    assert figures["iou"] == pytest.approx(np.mean([c.iou for c in counts]))
    assert figures["dice"] == pytest.approx(np.mean([c.dice for c in counts]))
    assert figures["misclassified"] == pytest.approx(wrong)


def test_a_network_that_has_diverged_has_no_figures_and_a_stop_is_heeded(validated):
    folder, known, planes, found = validated
    network = load_weights(folder / "w.safetensors")[0]
    loss = SegmentationLoss("bce" if network.spec.out_channels == 1 else "cross_entropy")
    with pytest.raises(Stopped):
        validate(network, planes, known, loss, CPU, torch.device("cpu"), lambda: True)
    torch.nn.init.constant_(network.get_parameter("head.weight"), float("nan"))
    spoilt = validate(network, planes, known, loss, CPU, torch.device("cpu")).figures
    assert spoilt.keys() == found.figures.keys()
    assert all(np.isnan(value) for name, value in spoilt.items() if name != "threshold")
    assert 0 <= spoilt.get("threshold", 0.5) <= 1
