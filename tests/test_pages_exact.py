"""A page gives the same pixels whole, in parts, from a store, and inside a batch of others."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.page_source_files import text_page
from unetctl.jobs.api import predict
from unetctl.jobs.pages.shares import Shares

OPTIONS: dict[str, Any] = {"keep": "probability", "precision": "fp32", "core": 32}


def pixels(path: str | Path) -> npt.NDArray[Any]:
    """Of a page."""
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, page_weights: Path) -> tuple[Path, dict[str, npt.NDArray[Any]]]:
    """Pages of several sizes, and what each gives alone, tile by tile; with other cores at most one step from it."""
    folder = tmp_path_factory.mktemp("drawn")
    alone = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
        patch.chdir(folder)
        for i, size in enumerate([(130, 97), (64, 64), (97, 130), (33, 35)]):
            path = folder / f"p{i}.png"
            Image.fromarray(text_page(size, i)).save(path)
            fine = predict([path], page_weights, output=folder / f"fine{i}.tif", batch=1, **OPTIONS)
            coarse = predict([path], page_weights, output=folder / f"coarse{i}.tif", **{**OPTIONS, "core": 96})
            alone[path.name] = pixels(fine[0].output)
            assert abs(pixels(coarse[0].output).astype(int) - alone[path.name]).max() <= 1
    return folder, alone


@settings(max_examples=6, phases=[Phase.generate])
@given(
    chosen=st.sets(st.integers(0, 3), min_size=2),
    parts=st.integers(1, 2),
    batch=st.integers(1, 5),
    large=st.booleans(),
    group=st.integers(1, 4),
    block=st.sampled_from([None, 32, 96]),
)
def test_a_page_has_the_same_probabilities_in_any_company(
    page_weights, drawn, tmp_path_factory, chosen, parts, batch, large, group, block
):
    folder, alone = drawn
    output = tmp_path_factory.mktemp("run") / "o"
    inputs = [folder / f"p{i}.png" for i in sorted(chosen)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unetctl.runtime.device.available_cores", lambda: 1)
        patch.setattr("unetctl.jobs.pages.run._GROUP_PAGES", group)
        if large:
            shares = Shares.of
            patch.setattr(Shares, "of", staticmethod(lambda budget: replace(shares(budget), page=0)))
        for i in range(parts):
            predict(inputs, page_weights, output=output, batch=batch, block=block, part=(i + 1, parts), **OPTIONS)
    for path in inputs:
        assert (pixels(output / path.name) == alone[path.name]).all()
