"""The network of a plan on resident data: what `unetctl benchmark speed` holds predict against; and peaks of memory."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from unetctl.errors import Stopped
from unetctl.networks.build import for_inference
from unetctl.networks.network import Network, TileFrame
from unetctl.runtime.device import PRECISIONS
from unetctl.runtime.loop import network_dims, tile_frame
from unetctl.runtime.numerics import finish, restored
from unetctl.runtime.run_plan import RunPlan


class BareNetwork:
    """The network of a plan on tiles that lie on its device already: scaled, computed, activated, nothing else.

    Args:
        plan: says tile shapes, batch, precision and what is kept.
        network: float32.
        device: of the plan's kind.
    """

    def __init__(self, plan: RunPlan, network: Network, device: torch.device) -> None:
        self._plan, self.device = plan, device
        self._dtype = PRECISIONS[plan.compute.precision]
        self._network = for_inference(network, device, self._dtype)
        self._activation = plan.typed_recipe().output.resolved_activation
        self._channels = network.spec.in_channels
        #: How many tiles there are of each shape and place of the core; one kind only unless borders are native.
        self.kinds: dict[tuple[tuple[int, ...], TileFrame], int] = {}
        dims = network_dims(plan)
        for image in plan.images:
            for index in range(len(image.tiles)):
                for tile in image.tiles.tiles(image.tiles.block(index)):
                    kind = (tile.read.shape[-dims:], tile_frame(tile, dims))
                    self.kinds[kind] = self.kinds.get(kind, 0) + 1

    def warm_up(self) -> None:
        """Computes one batch of each kind: kernels are chosen and memory is fetched when first needed."""
        for (shape, frame), _ in self.kinds.items():
            self._forward(self._batch(shape), frame)
        self._wait()

    def seconds(self, share: float, should_stop: Callable[[], bool] = lambda: False) -> float:
        """Seconds for all tiles of the plan, measured on a share of its batches, at least one of each kind.

        Raises:
            Stopped: if asked to stop.
        """
        total = 0.0
        for (shape, frame), num_tiles in self.kinds.items():
            batch = self._batch(shape)
            self._wait()
            num_batches = max(1, round(share * num_tiles / self._plan.batch))
            begun = time.perf_counter()
            for _ in range(num_batches):
                if should_stop():
                    raise Stopped("stopped while measuring", "", "run the same command again")
                self._forward(batch, frame)
            self._wait()
            total += (time.perf_counter() - begun) / (num_batches * self._plan.batch) * num_tiles
        return total

    def _batch(self, shape: tuple[int, ...]) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        size = (self._plan.batch, self._channels, *shape)
        return torch.randint(0, 256, size, generator=generator, dtype=torch.uint8).to(self.device)

    @torch.inference_mode()
    def _forward(self, batch: Tensor, frame: TileFrame) -> Tensor:
        x = batch.to(torch.float64 if self._dtype == torch.float64 else torch.float32)
        x = x.sub_(128.0).mul_(1 / 64).to(self._network.input_dtype)
        x = x.to(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
        if self._plan.keep == "image" and (image := self._network.final(x, frame).image) is not None:
            return restored(image, x.new_tensor(128.0), x.new_tensor(1 / 64), self._plan.images[0].output.dtype)
        return finish(self._network(x, frame), self._plan.keep, self._activation, self._plan.threshold)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def reset_peaks(device: torch.device) -> None:
    """Peaks of memory are counted from here on."""
    with contextlib.suppress(OSError):  # only Linux has it: elsewhere the peak is that of the whole process
        Path("/proc/self/clear_refs").write_text("5")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def device_peak(device: torch.device) -> int:
    """Bytes of a CUDA device's memory, 0 on a CPU."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0
