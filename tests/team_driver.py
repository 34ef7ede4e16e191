"""A tiny training in one of several processes, as torchrun starts them; leaves what came out of it.

train(folder, given) -> exit code      given: batch, stop_after, die_at, signal_at, epochs, patience, data
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unetctl.errors import UnetctlError
from unetctl.networks.build import build_network
from unetctl.networks.network import Network
from unetctl.networks.spec import UNetSpec
from unetctl.runtime.events import Event, StageProgress
from unetctl.runtime.signals import StopRequest
from unetctl.training.augment import AugmentOptions
from unetctl.training.crops import Plane, PlaneSet
from unetctl.training.fit import Fit, FitOptions
from unetctl.training.losses import SegmentationLoss
from unetctl.training.sampler import Sampler
from unetctl.training.team import Place, Team

SPEC = UNetSpec(1, 1, (2, 4))


def planes() -> list[Plane]:
    """With weights of every size, so that a mean of means would be another one."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(3):
        weights = (rng.random((1, 40, 40)) ** 4 * 10 * (rng.random((1, 40, 40)) > 0.3)).astype(np.float32)
        pixels, target = (
            rng.normal(size=(1, 40, 40)).astype(np.float32),
            rng.integers(0, 2, (1, 40, 40)).astype(np.uint8),
        )
        found.append(Plane(f"p{i}", pixels, target, weights))
    return found


def main(folder: Path, given: dict[str, Any]) -> int:
    """Trains; returns the exit code."""
    rank, num = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    torch.set_num_threads(1)
    batch, losses = given["batch"], {}
    crops = PlaneSet(planes(), (8, 8), (SPEC.halo[0], SPEC.halo[1]), (4, 4))
    sampler = Sampler(crops, AugmentOptions(flip=True, noise_sigma=0.1), 3, batch, 1, rank * batch)

    def batch_of(step: int) -> Any:
        if given.get("die_at") == [rank, step]:
            os.kill(os.getpid(), signal.SIGKILL)
        return sampler(step)

    def validate(network: Network) -> Mapping[str, float]:
        assert rank == 0
        (folder / "validated").open("a").write(f"{rank}\n")
        return {"score": float(sum(p.detach().double().abs().sum() for p in network.parameters()))}

    def listen(event: Event) -> None:
        if isinstance(event, StageProgress):
            losses[event.done] = event.figures["loss"]
            if given.get("signal_at") == [rank, event.done]:
                os.kill(os.getpid(), signal.SIGTERM)

    options = FitOptions(
        given.get("epochs", 3), 3, lr=0.01, warmup_steps=2, select="score", seed=3, ema=0.9,
        patience=given.get("patience", 0),
    )  # fmt: skip
    with StopRequest() as stop, Team(Place(rank, rank, num, num)) as team:
        fit = Fit(
            build_network(SPEC, 1), options, SegmentationLoss("bce", dice=0.5), batch_of, validate,
            lambda network, figures: None, folder, {"data": given.get("data", "some")}, emit=listen, team=team,
        )  # fmt: skip
        fit.resume()
        begun = fit.state.step
        complete = fit.run(lambda: stop() or ("stop_after" in given and fit.state.step >= begun + given["stop_after"]))
        weights = {k: v.double().flatten().tolist() for k, v in fit.average.state_dict().items()}
        found = {"losses": losses, "weights": weights, "history": fit.state.history, "step": fit.state.step}
        (folder / f"found-{num}-{rank}.json").write_text(json.dumps(found))
    return 0 if complete else 75


def train(folder: Path, given: dict[str, Any]) -> int:
    """Trains, tells an error on stderr; returns the exit code."""
    try:
        return main(folder, given)
    except UnetctlError as error:
        print(f"rank {os.environ.get('RANK', '0')}: {error}", file=sys.stderr)
        return error.exit_code
