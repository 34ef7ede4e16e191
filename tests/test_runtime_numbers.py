"""What a run counts with: statistics of grey values, sizes of memory, scalings, what is kept of logits."""

from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.sources_files import picture
from unetctl.errors import InputError, UsageError
from unetctl.geometry.box import Box
from unetctl.recipe.schema import Normalise, Recipe
from unetctl.runtime.compute import Compute
from unetctl.runtime.grey_scale import Scaling
from unetctl.runtime.keep import output_channels, output_dtype
from unetctl.runtime.memory import budget, format_size, parse_size
from unetctl.runtime.numerics import finish
from unetctl.runtime.planning import PlanWishes, make_plan
from unetctl.runtime.reading import StatisticsStore
from unetctl.runtime.statistics import VolumeStatistics, measure, sample_boxes
from unetctl.sources.memory import MemorySource

GIB = 2**30

# -- statistics


DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int64", "float16", "float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_statistics_of_small_volumes_are_exact(dtype: str):
    volume = picture((5, 130, 600), dtype)
    found = measure(lambda box: volume[box.slices()][None], volume.shape, low=2, high=98, max_pixels=10**6)
    assert found is not None
    values = volume.astype(np.float64)
    assert found.num_sampled == volume.size
    assert found.mean[0] == pytest.approx(values.mean(), rel=1e-6, abs=1e-6)
    assert found.std[0] == pytest.approx(values.std(), rel=1e-6)
    ranks = np.percentile(values, (2, 50, 98))
    tolerance = 1e-9 * float(np.ptp(values)) if np.dtype(dtype).itemsize > 2 or dtype == "float16" else 1
    assert np.abs(np.array((found.low[0], found.median[0], found.high[0])) - ranks).max() <= max(tolerance, 1e-3)


@pytest.mark.parametrize(("dtype", "limit"), [("float16", 6e4), ("float32", 3e38), ("int64", 2.0**62)])
def test_statistics_of_extreme_values_are_numbers(dtype: str, limit: float):
    volume = (np.array([[-1, 1, -1, 1]]) * limit).astype(dtype)
    found = measure(lambda box: volume[box.slices()][None], volume.shape, low=0, high=100, max_pixels=9999)
    assert found is not None
    assert (found.low[0], found.high[0]) == (float(volume.min()), float(volume.max()))
    assert np.isfinite((*found.mean, *found.std, *found.median)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_two_levels_of_a_page_are_its_ink_and_its_paper(dtype: str):
    chance = np.random.default_rng(3)
    is_ink = chance.random((400, 500)) < 0.07
    page = np.where(is_ink, chance.normal(30, 5, is_ink.shape), chance.normal(100, 5, is_ink.shape)).astype(dtype)
    found = measure(lambda box: page[box.slices()][None], page.shape, low=2, high=98, max_pixels=10**6)
    assert found is not None
    # among 1,024 bins a few pixels next to the threshold may fall on its other side
    assert found.dark[0] == pytest.approx(page[is_ink].astype(float).mean(), abs=0.1)
    assert found.bright[0] == pytest.approx(page[~is_ink].astype(float).mean(), abs=0.1)
    scaling = Scaling.of(Normalise(method="two_levels", least_contrast=0.01), found, 1, np.dtype(np.uint8))
    scaled = [(level - scaling.shift[0]) * scaling.factor[0] for level in (found.dark[0], found.bright[0])]
    assert scaled == pytest.approx([-1, 1])


def test_a_blank_page_has_no_ink():
    page = np.random.default_rng(3).normal(210, 3, (300, 300)).astype(np.uint8)
    for blank in (page, np.full_like(page, 210)):
        source = MemorySource(blank, "yx")
        found = measure(lambda box: source.read(0, box)[None], page.shape, low=2, high=98, max_pixels=10**6)  # noqa: B023
        assert found is not None
        scaling = Scaling.of(Normalise(method="two_levels"), found, 1, page.dtype)
        assert ((blank - scaling.shift[0]) * scaling.factor[0]).min() > 0


@given(shape=st.tuples(st.integers(1, 300), st.integers(1, 40_000), st.integers(1, 40_000)), planar=st.booleans())
def test_the_sample_is_bounded_spread_and_always_the_same(shape: tuple[int, int, int], planar: bool):
    volume = shape[1:] if planar else shape
    max_pixels = 4 * 2**20
    boxes = list(sample_boxes(volume, max_pixels))
    assert boxes == list(sample_boxes(volume, max_pixels))
    assert len(set(map(str, boxes))) == len(boxes) >= 1
    assert all(Box.whole(volume).covers(box) and not box.is_empty for box in boxes)
    taken = sum(box.num_pixels for box in boxes)
    assert taken <= max_pixels
    assert taken >= min(prod(volume), max_pixels // 6)
    if prod(volume) <= max_pixels:
        assert taken == prod(volume)


def test_pixels_that_are_not_finite_are_counted_and_left_out():
    volume = np.array([[1.0, np.nan, 3.0], [np.inf, 5.0, -np.inf]], np.float32)
    found = measure(lambda box: volume[box.slices()][None], volume.shape, low=0, high=100, max_pixels=9999)
    assert found is not None
    assert (found.num_nonfinite, found.mean, found.low, found.median, found.high) == (3, (3.0,), (1.0,), (3.0,), (5.0,))
    with pytest.raises(InputError, match="no finite pixel"):
        measure(lambda box: np.full((1, *box.shape), np.nan), (4, 4), low=0, high=100, max_pixels=9999)
    assert measure(lambda box: volume[None], (2, 3), low=0, high=9, max_pixels=9999, should_stop=lambda: True) is None


@pytest.mark.parametrize("rest", [b"", b'{"volume": "0/1", "statis', b"\xff\xfe\0\n", b'{"volume": "0/0"}\n', b"7\n"])
def test_a_torn_statistics_file_is_measured_again(tmp_path: Path, tiny_recipe: Recipe, rest: bytes):
    source = MemorySource(picture((2, 60, 70)), "tyx")
    compute = Compute("cpu", "fp32", 1)
    plan = make_plan(source.info, {}, tiny_recipe, "0" * 64, 1, compute, GIB, PlanWishes()).plan
    measured = [0]

    def of(store: StatisticsStore, volume: int) -> VolumeStatistics | None:
        before = len(store.known)
        found = store.of(source, plan.images[0], volume, plan.typed_recipe().normalise)
        measured[0] += len(store.known) - before
        return found

    store = StatisticsStore(tmp_path, "main", plan)
    wanted = [of(store, 0), of(store, 1)]
    path = tmp_path / "statistics-main.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0] + rest)
    again = StatisticsStore(tmp_path, "main", plan)
    assert [of(again, 0), of(again, 1)] == wanted
    assert measured == [3]
    healed = StatisticsStore(tmp_path, "other", plan)
    assert [healed.known[f"0/{i}"] for i in range(2)] == wanted


# -- numbers


@given(st.integers(0, 2**50))
def test_sizes_are_read_as_they_are_written(num_bytes: int):
    assert parse_size(format_size(num_bytes)) == pytest.approx(num_bytes, rel=0.006, abs=1)


def test_sizes_and_budgets():
    assert [parse_size(t) for t in ("4GiB", "500 MB", "1073741824", "1.5k", ".5Mi")] == [
        4 * GIB, 500_000_000, GIB, 1500, 2**19,
    ]  # fmt: skip
    for text in ("", "much", "4 GiBs", "-1"):
        with pytest.raises(UsageError, match="is no size"):
            parse_size(text)
    assert budget(10**6) == 10**6
    assert budget(10**7, 10**6) == 10**6
    assert 0 < budget(None) < 2**60


def test_scalings_bring_grey_values_to_the_network_s_scale():
    found = VolumeStatistics((10.0, 0.0), (2.0, 0.0), (1.0, 5.0), (3.0, 5.0), (2.0, 5.0), 9, 0)
    u8 = np.dtype(np.uint8)
    assert Scaling.of(Normalise(method="none"), None, 2, u8) == Scaling((0.0, 0.0), (1.0, 1.0))
    assert Scaling.of(Normalise(method="range"), None, 1, u8) == Scaling((0.0,), (1 / 255,))
    assert Scaling.of(Normalise(method="range", value_range=(5, 7)), None, 1, u8) == Scaling((5.0,), (0.5,))
    assert Scaling.of(Normalise(), found, 2, u8).factor[0] == 0.5
    flat = Scaling.of(Normalise(method="percentile"), found, 2, u8)
    assert flat.shift == (1.0, 5.0)
    assert flat.factor[0] == 0.5
    assert np.isfinite(flat.factor[1])  # a flat volume divides by nothing


def test_what_is_kept_of_logits():
    logits = torch.tensor([[-20.0, 0.0, 20.0], [0.0, 0.1, -5.0]]).reshape(1, 2, 1, 3)
    one = logits[:, :1]
    assert finish(one, "probability", "sigmoid", 0.5).flatten().tolist() == [0, 128, 255]
    assert finish(one, "mask", "sigmoid", 0.5).flatten().tolist() == [0, 255, 255]
    assert finish(one, "classes", "sigmoid", 0.6).flatten().tolist() == [0, 0, 1]
    assert finish(logits, "classes", "softmax", 0.5).flatten().tolist() == [1, 1, 0]
    assert finish(logits, "logits", "softmax", 0.5) is logits
    sums = finish(logits, "probability", "softmax", 0.5).sum(1, dtype=torch.int64)
    assert (sums - 255).abs().max() <= 1
    assert [output_channels(k, 3) for k in ("probability", "mask", "logits", "classes")] == [3, 3, 3, 1]
    assert [output_dtype(k) for k in ("probability", "mask", "logits", "classes")] == ["uint8"] * 2 + [
        "float32",
        "uint8",
    ]
