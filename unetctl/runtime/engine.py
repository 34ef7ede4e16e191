"""Batches of tiles through the network, on a CPU or a CUDA device, up to the quantised result."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unetctl.errors import ResourceError
from unetctl.networks.build import for_inference
from unetctl.networks.network import Network, TileFrame
from unetctl.runtime.compute import Compute
from unetctl.runtime.device import PRECISIONS
from unetctl.runtime.events import Listener, Note, nobody
from unetctl.runtime.grey_scale import Scaling
from unetctl.runtime.keep import Keep
from unetctl.runtime.numerics import finish, repaired, restored
from unetctl.runtime.run_plan import RunPlan

Pixels = npt.NDArray[Any]


@dataclass(frozen=True)
class TileJob:
    """One tile on its way through the network.

    Attributes:
        pixels: (c, *tile), the source's dtype, context slices already among the channels.
        scaling: of its volume.
        image_dtype: numpy name of the type that an image answer is rounded to.
    """

    pixels: Pixels
    scaling: Scaling
    image_dtype: str = "float32"


class Engine:
    """A network ready to answer batches.

    Args:
        network: in float32, any mode; a folded copy is used.
        compute: arithmetic, from the plan.
        device: of the plan's kind.
        batch: tiles at once; a smaller batch is filled up with zeros, so that all batches have one shape.
        keep, activation, threshold: see `unetctl.runtime.numerics.finish` and `restored`.
    """

    def __init__(
        self,
        network: Network,
        compute: Compute,
        device: torch.device,
        *,
        batch: int,
        keep: Keep,
        activation: str,
        threshold: float,
        emit: Listener = nobody,
    ) -> None:
        self.device, self.batch, self._emit = device, batch, emit
        self._dtype = PRECISIONS[compute.precision]
        self._network = for_inference(network, device, self._dtype)
        self.keep, self._activation, self._threshold = keep, activation, threshold
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        if self._stream is not None:  # the weights were prepared on the default stream
            self._stream.wait_stream(torch.cuda.current_stream(device))
        self._pinned: dict[tuple[int, ...], list[Tensor]] = {}
        self._copied: list[Any] = [None, None]
        self._turn = 0

    @classmethod
    def of_plan(
        cls,
        network: Network,
        plan: RunPlan,
        device: torch.device,
        *,
        batch: int | None = None,
        keep: Keep | None = None,
        emit: Listener = nobody,
    ) -> Self:
        """The engine of a run; `batch` and `keep` as the plan says unless given."""
        return cls(
            network,
            plan.compute,
            device,
            batch=batch or plan.batch,
            keep=keep or plan.keep,
            activation=plan.typed_recipe().output.resolved_activation,
            threshold=plan.threshold,
            emit=emit,
        )

    def submit(self, jobs: Sequence[TileJob], frame: TileFrame) -> Callable[[], Pixels]:
        """Starts a batch and gives a function that waits for its result.

        Args:
            jobs: 1..batch tiles of one shape and one type.
            frame: where the core lies in them.

        Returns:
            A function without arguments that gives (len(jobs), C, *core) in the dtype of what is kept.

        Raises:
            ResourceError: if even a single tile does not fit on the device.
        """
        while True:
            try:
                if len(jobs) > self.batch:
                    waits = [self.submit(jobs[i : i + self.batch], frame) for i in range(0, len(jobs), self.batch)]
                    return lambda: np.concatenate([wait() for wait in waits])
                return self._submit(jobs, frame)
            except torch.OutOfMemoryError as error:
                torch.cuda.empty_cache()
                if self.batch == 1:
                    size = "x".join(map(str, jobs[0].pixels.shape[1:]))
                    raise ResourceError(
                        f"a tile of {size} does not fit into the memory of {self.device}",
                        "",
                        "choose a smaller core with --core and --fresh",
                    ) from error
                self.batch //= 2
                self._emit(
                    Note(f"the device ran out of memory: going on with batches of {self.batch} tiles", "warning")
                )

    @torch.inference_mode()
    def _submit(self, jobs: Sequence[TileJob], frame: TileFrame) -> Callable[[], Pixels]:
        if self._stream is None:
            result = self._compute(self._host_batch(jobs), jobs, frame).numpy()
            return lambda: result
        with torch.cuda.stream(self._stream):
            staged = self._stage(jobs)
            on_device = staged.to(self.device, non_blocking=True)
            self._copied[self._turn] = torch.cuda.Event()  # type: ignore[no-untyped-call]  # untyped in torch
            self._copied[self._turn].record(self._stream)
            kept = self._compute(on_device, jobs, frame)
            host = torch.empty(kept.shape, dtype=kept.dtype, pin_memory=True)
            host.copy_(kept, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]  # untyped in torch
            done.record(self._stream)

        def wait() -> Pixels:
            done.synchronize()
            return host.numpy()

        return wait

    def _compute(self, batch: Tensor, jobs: Sequence[TileJob], frame: TileFrame) -> Tensor:
        float_type = torch.float64 if self._dtype == torch.float64 else torch.float32
        # what is scaled in place must not be what a repaired picture takes its undamaged pixels from
        x = batch.to(float_type, copy=self.keep == "image")
        shift, factor = _scales(jobs, x)
        x = x.sub_(shift).mul_(factor).to(self._network.input_dtype)
        x = x.to(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
        num = len(jobs)
        if self.keep == "image":
            answer = self._network.final(x, frame)
            if answer.prediction is not None:
                found = restored(answer.prediction[:num], shift[:num], factor[:num], jobs[0].image_dtype)
                return repaired(found, answer.logits[:num], batch[:num], frame.core, self._threshold)
            image = answer.image
            assert image is not None  # the planner keeps no image of a network that answers none
            return restored(image[:num], shift[:num], factor[:num], jobs[0].image_dtype)
        return finish(self._network(x, frame)[:num], self.keep, self._activation, self._threshold)

    def _host_batch(self, jobs: Sequence[TileJob]) -> Tensor:
        first = jobs[0].pixels
        batch = np.zeros((self.batch, *first.shape), _carrier(first.dtype, self._dtype))
        for i, job in enumerate(jobs):
            batch[i] = job.pixels
        return torch.from_numpy(batch)

    def _stage(self, jobs: Sequence[TileJob]) -> Tensor:
        """The batch in one of two pinned buffers, used in turn: the other one may still be on its way."""
        first = jobs[0].pixels
        carrier = torch.from_numpy(np.zeros(0, _carrier(first.dtype, self._dtype))).dtype
        key = (self.batch, *first.shape)
        ring = self._pinned.get(key)
        if ring is None or ring[0].dtype != carrier:
            ring = [torch.zeros(key, dtype=carrier, pin_memory=True) for _ in range(2)]
            self._pinned, self._copied = {key: ring}, [None, None]
        self._turn ^= 1
        staged = ring[self._turn]
        if self._copied[self._turn] is not None:
            self._copied[self._turn].synchronize()  # its last batch must have left before the next one enters
        for i, job in enumerate(jobs):
            staged[i].numpy()[...] = job.pixels
        return staged


def _carrier(dtype: np.dtype[Any], precision: torch.dtype) -> type[np.generic]:
    """The type in which pixels travel to the device: bytes stay bytes, all else becomes the float type of the scaling."""
    if dtype == np.uint8:
        return np.uint8
    return np.float64 if precision == torch.float64 else np.float32


def _scales(jobs: Sequence[TileJob], x: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and factor, (N, C, 1, ...) each; unused places of the batch get 0 and 1."""
    num, channels = x.shape[:2]
    shape = (num, channels, *(1,) * (x.ndim - 2))
    shift, factor = np.zeros((num, channels)), np.ones((num, channels))
    for i, job in enumerate(jobs):
        repeat = channels // len(job.scaling.shift)
        shift[i], factor[i] = job.scaling.shift * repeat, job.scaling.factor * repeat
    return (
        torch.from_numpy(shift).to(x).view(shape),
        torch.from_numpy(factor).to(x).view(shape),
    )
