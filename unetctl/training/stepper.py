"""One step of training: loss, gradient, optimiser, running average; the learning rate at every step."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unetctl.networks.build import channels_last
from unetctl.networks.network import Network, TileFrame
from unetctl.training.course import FitOptions, TrainBatch
from unetctl.training.losses import AnswersLoss
from unetctl.training.team import Team, is_lost, lost, shared_sums

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


class Stepper:
    """A network with what makes it learn.

    Args:
        network: in float32; moved to the team's device.
        options: of the course.
        loss: (logits, targets, weights) to a scalar; an `AnswersLoss` gets the answers of all blocks.
        team: the processes that share each step's batch.

    Attributes:
        network: in training.
        average: the running average; its `module` is what is validated and kept.
        optimiser: of torch.
    """

    def __init__(self, network: Network, options: FitOptions, loss: Loss, team: Team) -> None:
        self.options, self.team, self.device = options, team, team.device
        self.network = network.to(self.device)
        if self.device.type == "cuda" and network.spec.dims == 2:
            self.network = channels_last(self.network)
        self.average = torch.optim.swa_utils.AveragedModel(
            self.network, multi_avg_fn=_averaging(options.ema), use_buffers=True
        )
        self.optimiser = _optimiser(self.network, options)
        self._judged = _Judged(self.network, loss, options.precision)
        self._shared: nn.Module = self._judged

    def begin(self) -> None:
        """Joins the processes: all begin with the weights of the first one. To be called once, before the first step."""
        if self.team.num > 1:
            # Not every network's every weight takes part in every loss; which do never changes.
            self._shared = DistributedDataParallel(self._judged, static_graph=True)

    def lr(self, step: int, factor: float = 1.0) -> float:
        """The learning rate of a step; `factor` is what "plateau" has lowered it by."""
        o = self.options
        if step < o.warmup_steps:
            return o.lr * (step + 1) / o.warmup_steps
        if o.schedule == "cosine":
            share = (step - o.warmup_steps) / max(1, o.num_steps - o.warmup_steps)
            return o.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))
        return o.lr * (factor if o.schedule == "plateau" else 1.0)

    def step(self, step: int, batch: TrainBatch, lr: float) -> float:
        """Learns from a batch; what it draws at random follows from `step`.

        Returns:
            The loss, the mean of all processes'; if it or the gradient is not finite, no weight was changed.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.network.train()
        if self.options.freeze_norm:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        rank = self.team.place.rank
        torch.manual_seed((self.options.seed * 1_000_003 + step + rank * 7_368_787_541) % 2**63)
        statistics = [b.clone() for b in self.network.buffers()]
        arrays = [a.to(self.device, non_blocking=True) for a in (batch.pixels, batch.targets, batch.weights)]
        try:
            loss = self._shared(*arrays)
            value = self.team.mean(float(loss.detach()))
            self.optimiser.zero_grad(set_to_none=True)
            if math.isfinite(value) or self.team.num > 1:  # gradients are awaited from all
                loss.backward()
        except RuntimeError as error:
            if self.team.num > 1 and is_lost(error):
                raise lost(error) from error
            raise
        if math.isfinite(value):
            # A finite loss can have a gradient that is not: one such step, and every weight is lost.
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.options.grad_clip or math.inf)
            if math.isfinite(float(norm)):
                self.optimiser.step()
        else:  # what has spoilt the loss has gone through the batch norms' running statistics, too
            for buffer, before in zip(self.network.buffers(), statistics, strict=True):
                buffer.copy_(before)
        # Short averages at first: a fixed decay would carry the random start along for 1 / (1 - decay) steps.
        decay = min(self.options.ema, (1 + step) / (10 + step)) if self.options.ema else 0.0
        self.average.multi_avg_fn = _averaging(decay)
        self.average.update_parameters(self.network)
        return value


class _Judged(nn.Module):
    """A network and its loss as one module: what a process hands to the others is a gradient of this."""

    def __init__(self, network: Network, loss: Loss, precision: torch.dtype) -> None:
        super().__init__()
        self.network, self.precision = network, precision
        self.loss = loss

    def forward(self, pixels: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        is_mixed = self.precision != torch.float32
        with torch.autocast(pixels.device.type, self.precision) if is_mixed else nullcontext():
            answers = self.network.answers(pixels, frame_of(pixels, targets))
        with shared_sums():
            if isinstance(self.loss, AnswersLoss):
                return self.loss.of_answers(answers, targets, weights)
            return self.loss(answers[-1].logits.float(), targets, weights)


def frame_of(pixels: Tensor, targets: Tensor) -> TileFrame | None:
    """The targets' core in the middle of the tile; None where the network is to pad at the tile's ends itself."""
    sizes, cores = pixels.shape[2:], targets.shape[2:]
    if sizes == cores:
        return None
    starts = [(size - core) // 2 for size, core in zip(sizes, cores, strict=True)]
    core = tuple((start, start + size) for start, size in zip(starts, cores, strict=True))
    return TileFrame(core, ((False, False),) * len(core))


def _averaging(decay: float) -> Any:
    return torch.optim.swa_utils.get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # untyped in torch


def _optimiser(network: nn.Module, options: FitOptions) -> torch.optim.Optimizer:
    if options.optimiser == "sgd":
        return torch.optim.SGD(
            network.parameters(), lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay
        )
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return (
        torch.optim.Adam(groups, lr=options.lr)
        if options.optimiser == "adam"
        else torch.optim.AdamW(groups, lr=options.lr)
    )
