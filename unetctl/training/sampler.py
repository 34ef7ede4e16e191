"""From annotated planes to the batches that a network learns from: crops, their variation, their weights.

    Sampler(crops, augment, seed, batch, context_slices, first)(step) -> TrainBatch

Sample i of step s depends on (seed, s, i) and nothing else, so neither the number of workers nor of processes that share
a step changes what is learned from. `unetctl train --preview` shows what comes out here.
"""

from dataclasses import dataclass

import torch

from unetctl.errors import InputError, UnetctlError
from unetctl.training.augment import AugmentOptions, augment, without_neighbours
from unetctl.training.course import TrainBatch
from unetctl.training.crops import Crops, PlaneSet


@dataclass(frozen=True)
class Sampler:
    """Makes the batch of a step.

    Attributes:
        crops: the planes.
        augment: how crops vary.
        seed: of everything random.
        batch: samples a call.
        context_slices: planes that are channels of one sample.
        first: index of the first sample in the step's whole batch, where several processes share it.
    """

    crops: PlaneSet
    augment: AugmentOptions
    seed: int
    batch: int
    context_slices: int = 1
    first: int = 0

    def __call__(self, step: int) -> TrainBatch:
        """The batch of a step, from 0.

        Raises:
            InputError: if a sample cannot be made; names the plane.
        """
        samples = [self.sample(step, i) for i in range(self.first, self.first + self.batch)]
        return TrainBatch(*(torch.cat(parts) for parts in zip(*samples, strict=True)))

    def sample(self, step: int, i: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sample `i` of a step's whole batch: pixels, targets and weights, (1, channels, y, x) each.

        Raises:
            InputError: see the call.
        """
        drawn = self.crops.sample((self.seed, step), 1, i)
        try:
            return self._varied(drawn)
        except UnetctlError as error:
            name = self.name_of(drawn)
            if name in str(error):
                raise
            raise InputError(f"{name}: {error.seen}", error.expected, error.hint) from error
        except (ValueError, ArithmeticError, RuntimeError) as error:
            if "can't allocate memory" in str(error):
                raise
            raise InputError(
                f"no sample can be made of {self.name_of(drawn)} ({type(error).__name__}: {error})", "",
                "leave it out with --exclude, and tell us: this should not happen",
            ) from error  # fmt: skip

    def names(self, step: int) -> list[str]:
        """The plane that each sample of this process's share of a step is cut from."""
        return [self.name_of(self.crops.sample((self.seed, step), 1, self.first + i)) for i in range(self.batch)]

    def name_of(self, drawn: Crops) -> str:
        """The plane that a single crop is of."""
        return self.crops.planes[drawn.places[0][0]].name

    def _varied(self, drawn: Crops) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        pixels, targets, weights = augment(
            drawn.pixels, drawn.targets, drawn.weights, drawn.rngs, self.augment, self.crops.tile, self.crops.core
        )
        pixels = without_neighbours(pixels, drawn.rngs, self.context_slices, self.augment.lone_prob)
        if weights is None:
            weights = torch.ones(targets.shape[0], 1, *targets.shape[2:])
        return pixels, targets, weights
