"""`predict --keep labels` by force: killed at any step, out of disk, on several workers. In the end the same bytes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

pytest.importorskip("fcntl", reason="locks and signals as POSIX has them")

from tests.object_cases import blotches
from tests.processes import Accident, Content, content, litter, run

TIFF, ZARR = "o.ome.tif", "o.ome.zarr"
Make = Callable[..., list[str]]


@pytest.fixture(scope="module")
def make(object_weights: Path) -> Make:
    """Puts a picture into a folder and gives the command that labels it: 18 blocks, a pyramid of two levels."""
    picture = blotches(2060, 24)

    def command(folder: Path, output: str, *options: str) -> list[str]:
        if not (folder / "in.npy").exists():
            np.save(folder / "in.npy", picture)
        words = ["predict", "in.npy", "--task", str(object_weights), "-o", output, "--axes", "yx", "--core", "128"]
        return [*words, "--block", "256", "--precision", "fp32", "--stack", "--json", *options]

    return command


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, make: Make) -> dict[str, Content]:
    """What the two outputs are when nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    found = {}
    for name in (TIFF, ZARR):
        result = run(folder, *make(folder, name))
        assert result.code == 0, result.err
        found[name] = content(folder / name)
    assert litter(folder) == []
    return found


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


#: Steps of labelling and of what follows, in the order in which a run comes to them.
LABELLING = [("scratch", "os.mkdir"), ("scratch", "open"), ("journal-labels", "open")]
AFTER = {
    TIFF: [("labels.zarr", "os.rename"), (f".{TIFF}.partial-", "open"), (f".{TIFF}.partial-", "os.rename")],
    ZARR: [(f".{ZARR}.partial-", "os.rename")],
}


@pytest.mark.parametrize("name", [TIFF, ZARR])
@pytest.mark.parametrize("what", ["kill", "full"])
def test_an_accident_while_labelling(
    here: Path, make: Make, undisturbed: dict[str, Content], name: str, what: Literal["kill", "full"]
) -> None:
    command = make(here, name)
    for where, step in [*LABELLING, *AFTER[name], ("finished.json", "os.rename")]:
        if what == "full" and step == "os.rename":
            continue  # renaming takes no space
        result = run(here, *command, accident=Accident(what, where, step))
        assert result.code == (-9 if what == "kill" else 6), (where, step, result)
        assert "Traceback" not in result.err
        if what == "full":
            assert "space" in result.err
    result = run(here, *command)
    assert result.code == 0, result.err
    assert json.loads(result.out)["num_computed"] == 0, "what the network has computed is kept"
    assert content(here / name) == undisturbed[name]
    assert litter(here) == []


@pytest.mark.parametrize("name", [TIFF, ZARR])
def test_killed_at_random_again_and_again(here: Path, make: Make, undisturbed: dict[str, Content], name: str) -> None:
    command, rng = make(here, name), np.random.default_rng()
    for _ in range(4):
        count = int(rng.integers(1, 150))
        assert run(here, *command, accident=Accident("kill", count=count)).code in (-9, 0), count
    result = run(here, *command)
    assert result.code == 0, result.err
    assert content(here / name) == undisturbed[name]
    assert litter(here) == []


def test_on_dask_workers(here: Path, make: Make, undisturbed: dict[str, Content]) -> None:
    pytest.importorskip("distributed", reason="needs the extra [cluster]")
    result = run(here, *make(here, TIFF, "--cluster", "local:2"))
    assert result.code == 0, result.err
    assert content(here / TIFF) == undisturbed[TIFF]
