"""Small training runs whose every outcome is on record."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unetctl.networks.build import build_network
from unetctl.networks.network import Network
from unetctl.networks.spec import UNetSpec
from unetctl.runtime.events import EpochEnded, Event, StageProgress
from unetctl.training.fit import Fit, FitOptions, TrainBatch
from unetctl.training.losses import SegmentationLoss

#: Batch norm and dropout: state beside the weights, and chance.
SPEC = UNetSpec(1, 1, (2, 4), norm="batch", dropout=0.3)
CORE, TILE = 8, 8 + 2 * SPEC.margin[0]


class Course:
    """A run in a folder, with a record of all that came out of it."""

    def __init__(self, folder: Path, **given: Any) -> None:
        self.losses: dict[int, float] = {}
        self.lrs: dict[int, float] = {}
        self.speeds: list[float] = []
        self.epochs: list[EpochEnded] = []
        self.kept: list[tuple[dict[str, float], dict[str, torch.Tensor]]] = []
        self.asked: list[int] = []
        self.scores: Callable[[Network], Mapping[str, float]] = given.pop("validate", mean_weight)
        self.batch: Callable[[int], TrainBatch] = given.pop("batch_of", batch_of)
        self.listen: Callable[[Event], None] = given.pop("listen", lambda event: None)
        loss, identity = given.pop("loss", SegmentationLoss("bce")), given.pop("identity", {"data": "some"})
        spec = given.pop("spec", SPEC)
        plain = {"num_epochs": 3, "steps_per_epoch": 3, "select": "score", "warmup_steps": 2, "lr": 0.01, "seed": 4}
        options = FitOptions(**{**plain, **given})
        self.fit = Fit(
            build_network(spec, 1), options, loss, self._batch_of, self._validate, self._on_best, folder, identity,
            emit=self._heard,
        )  # fmt: skip

    def go(self, stop_after: int | None = None) -> bool:
        """Resumes and runs, for so many steps at most; True if that was the end."""
        self.fit.resume()
        begun = self.fit.state.step
        return self.fit.run(lambda: stop_after is not None and self.fit.state.step >= begun + stop_after)

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Weights, averaged weights and the optimiser's state at the end."""
        fit = self.fit
        found = {f"network.{k}": v for k, v in fit.network.state_dict().items()}
        found |= {f"average.{k}": v for k, v in fit.average.state_dict().items()}
        for i, values in fit.optimiser.state_dict()["state"].items():
            found |= {f"optimiser.{i}.{k}": v for k, v in values.items() if torch.is_tensor(v)}
        return {k: v.clone() for k, v in found.items()}

    def _batch_of(self, step: int) -> TrainBatch:
        self.asked.append(step)
        return self.batch(step)

    def _validate(self, network: Network) -> Mapping[str, float]:
        assert not network.training
        return self.scores(network)

    def _on_best(self, network: Network, figures: Mapping[str, float]) -> None:
        self.kept.append((dict(figures), {k: v.clone() for k, v in network.state_dict().items()}))

    def _heard(self, event: Event) -> None:
        if isinstance(event, StageProgress):
            self.losses[event.done] = event.figures["loss"]
            self.lrs[event.done - 1] = event.figures["lr"]
            self.speeds.append(event.figures["Mpx/s"])
        if isinstance(event, EpochEnded):
            self.epochs.append(event)
        self.listen(event)


def batch_of(step: int) -> TrainBatch:
    rng = np.random.default_rng(step)
    pixels = torch.from_numpy(rng.normal(size=(2, 1, TILE, TILE)).astype(np.float32))
    targets = torch.from_numpy(rng.integers(0, 2, (2, 1, CORE, CORE)).astype(np.uint8))
    return TrainBatch(pixels, targets, torch.ones(2, 1, CORE, CORE))


def mean_weight(network: Network) -> Mapping[str, float]:
    return {"score": float(sum(p.detach().double().abs().sum() for p in network.parameters()))}


def spoilt(at: int, value: float = math.nan) -> Callable[[int], TrainBatch]:
    def batch(step: int) -> TrainBatch:
        good = batch_of(step)
        return TrainBatch(good.pixels + value, good.targets, good.weights) if step == at else good

    return batch


def assert_same(one: Course, other: Course) -> None:
    assert one.losses == other.losses
    assert one.fit.state == other.fit.state
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, other.tensors[name]), name
