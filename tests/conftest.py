"""What tests share: which of them run here, a tiny network's weights, a small stack."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from unetctl.recipe.schema import Recipe

# At the end: `tests.NAME` is found, and an installed unetctl still comes before the checkout's.
sys.path.append(str(Path(__file__).parent.parent))

REAL_DATA = "UNETCTL_DATA"
SCHEDULERS = ("SLURM_", "PBS_", "SGE_", "LSB_")

# No clocks on single examples: on a busy machine they measure the neighbours. On CI hypothesis fixes the examples.
settings.register_profile("unetctl", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unetctl")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--slow`."""
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes, too")


def pytest_configure(config: pytest.Config) -> None:
    """The same answers inside a batch job as outside: `--part auto` reads what the scheduler left there."""
    for name in list(os.environ):
        if name.startswith(SCHEDULERS):
            del os.environ[name]
    _keep_to_one_core()


def _keep_to_one_core() -> None:
    """Gives each of several workers (`pytest -n 2`) a core of its own: threads of two that share cores wait for each other."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker.startswith("gw") and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker[2:]) % len(cores)]})
        os.environ |= {
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }  # torch is loaded later, and by the programs under test


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips what cannot run here, and says why."""
    reasons = {}
    if not config.getoption("--slow"):
        reasons["slow"] = "takes minutes: give --slow"
    folder = os.environ.get(REAL_DATA)
    if not folder or not Path(folder).is_dir():
        reasons["realdata"] = f"needs real images: set {REAL_DATA} to their folder"
    if any(item.get_closest_marker("gpu") for item in items):
        import torch

        if not torch.cuda.is_available():
            reasons["gpu"] = "needs a CUDA device: torch finds none"
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def heeded_signals() -> Iterator[None]:
    """Signals that the programs under test get; whoever runs the tests may have said nohup, or & in a script."""
    kept = {n: signal.getsignal(n) for n in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGTERM))}
    for number in kept:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; for tests marked `realdata`."""
    return Path(os.environ[REAL_DATA])


@pytest.fixture(scope="session")
def tiny_recipe() -> "Recipe":
    """A task whose network runs in milliseconds: one grey channel in, one probability out, stride 4, margin 22."""
    from unetctl.recipe.load import recipe_from_dict

    values: dict[str, dict[str, Any]] = {
        "task": {"name": "tiny", "title": "a tiny network for tests"},
        "input": {"spacing_um": [0.05, 0.004, 0.004]},
        "network": {"base_width": 4, "depth": 2},
        "output": {"classes": ["interior"]},
        "labels": {"values": [0, 255]},
        "train": {"crop": [32, 32], "batch": 2, "epochs": 1, "steps_per_epoch": 2, "precision": "fp32"},
    }
    return recipe_from_dict(values, "tests/conftest.py")


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: "Recipe") -> Path:
    """A weights file of `tiny_recipe`'s network, untrained, seeded; usable as ``--task``."""
    from unetctl.networks.build import build_network
    from unetctl.networks.weights import WeightsHeader, save_weights

    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    spec = tiny_recipe.network_spec
    header = WeightsHeader(
        name="tiny",
        network=spec.to_dict(),
        recipe=tiny_recipe.to_dict(),
        spacing_um=tiny_recipe.input.spacing_um or (),
        polarity="dark membranes, bright cell interior",
        value_range=(0.0, 255.0),
        licence="none: the numbers are random",
    )
    save_weights(path, build_network(spec, seed=5), header)
    return path


@pytest.fixture(scope="session")
def object_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of a network that answers with three classes of objects; usable as ``--task``."""
    from tests.object_cases import save_object_weights

    path = tmp_path_factory.mktemp("weights") / "blobs.safetensors"
    save_object_weights(path)
    return path


@pytest.fixture(scope="session")
def em_labels() -> npt.NDArray[np.uint8]:
    """(3, 97, 120): 255 inside cells, 0 on the membranes between them; one side odd. Read-only."""
    rng = np.random.default_rng(2012)
    yx = np.indices((97, 120)).reshape(2, -1, 1).transpose(1, 2, 0)
    grid = np.indices((5, 6)).reshape(2, -1).T
    seeds = (grid + rng.uniform(0.25, 0.75, grid.shape)) * (97 / 5, 20)
    planes = []
    for _ in range(3):
        seeds = seeds + rng.normal(0, 1.5, seeds.shape)  # the cells of the next section have moved a little
        nearest = np.sort(np.linalg.norm(yx - seeds, axis=-1), axis=-1)
        planes.append(np.where(nearest[:, 1] - nearest[:, 0] < 3, 0, 255).reshape(97, 120))
    return _frozen(np.stack(planes).astype(np.uint8))


@pytest.fixture(scope="session")
def em_stack(em_labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(3, 97, 120): grey values of such sections, membranes dark, with noise. Read-only."""
    rng = np.random.default_rng(2015)
    grey = 70 + em_labels * (90 / 255) + rng.normal(0, 18, em_labels.shape)
    return _frozen(np.clip(grey, 0, 255).astype(np.uint8))


@pytest.fixture
def em_file(tmp_path: Path, em_stack: npt.NDArray[np.uint8]) -> Path:
    """`em_stack` as an OME-TIFF of 50 x 4 x 4 nm."""
    import tifffile

    path = tmp_path / "em-small.ome.tif"
    sizes = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", (0.05, 0.004, 0.004), strict=True)}
    identity = "urn:uuid:00000000-0000-4000-8000-000000000001"  # a random one would make another file each time
    tifffile.imwrite(path, em_stack, metadata={"axes": "ZYX", "UUID": identity, **sizes})
    return path


def _frozen(array: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    array.flags.writeable = False
    return array


@pytest.fixture(scope="session")
def page_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network for pages; see `tests.page_weights_files`."""
    from tests.page_weights_files import save_page_weights

    return save_page_weights(tmp_path_factory.mktemp("pages") / "ink.safetensors")
