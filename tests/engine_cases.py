"""Networks, pictures and tilings for tests of the engine, and what must come out: the plain network's answers."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.plain_networks import plain
from unetctl.geometry.plan import TilePlan
from unetctl.networks.build import build_network
from unetctl.networks.network import Network
from unetctl.networks.restorer import Restorer, SubBlock
from unetctl.networks.stacked import Stacked
from unetctl.recipe.load import recipe_from_dict
from unetctl.recipe.schema import Recipe
from unetctl.runtime.compute import Compute
from unetctl.runtime.engine import Engine
from unetctl.runtime.loop import DoneBlock, output_box, run_serial
from unetctl.runtime.reading import BlockReader, StatisticsStore
from unetctl.runtime.run_plan import ImagePlan, RunPlan
from unetctl.sinks.base import OutputImage
from unetctl.sources.memory import MemorySource

Pixels = npt.NDArray[Any]

CPU = torch.device("cpu")


# -- the whole picture at once


def whole_logits(network: Network, scaled: Pixels) -> Pixels:
    """Logits (N, C, *space) of whole images (N, c, *space) in float64, continued as the network's border says."""
    spec = network.spec
    network = network.double().eval()
    space = scaled.shape[2:]
    rounding = [-n % s for n, s in zip(space, spec.stride, strict=True)]
    ring = [0] * spec.dims
    if spec.border == "mirror":
        # Far enough that nothing made up at the rim of the padded image reaches the image itself.
        ring = [-(-m // s) * s for m, s in zip(spec.margin, spec.stride, strict=True)]
    widths = [(0, 0), (0, 0)] + [(p, p + r) for p, r in zip(ring, rounding, strict=True)]
    with torch.no_grad():
        logits: Pixels = plain(network, torch.from_numpy(np.pad(scaled, widths, mode="reflect"))).numpy()
    inside = tuple(slice(p, p + n) for p, n in zip(ring, space, strict=True))
    return logits[(slice(None), slice(None), *inside)]


# -- a case: a network, a picture, a cut


@dataclass(frozen=True)
class Case:
    """One network on one picture under one tiling; sizes are pixels in the order of `axes` without c."""

    network: dict[str, Any]
    axes: str
    shape: tuple[int, ...]
    core: tuple[int, ...]
    cores_per_block: tuple[int, ...]
    dtype: str = "uint8"
    num_channels: int = 1
    context_slices: int = 1
    num_classes: int = 1
    method: str = "mean_std"
    seed: int = 0

    @property
    def recipe(self) -> Recipe:
        values: dict[str, Any] = {
            "task": {"name": "case"},
            "input": {"channels": self.num_channels, "context_slices": self.context_slices},
            "normalise": {"method": self.method},
            "network": self.network,
            "output": {"classes": [f"class{i}" for i in range(self.num_classes)]},
        }
        if self.network.get("kind") == "restorer":
            values |= {"loss": {"kind": "restoration"}, "labels": {"kind": "image"}}
        if self.network.get("dims") == 3:
            values["train"] = {"crop": [32, 32, 32]}
        if self.num_classes > 1:
            values["labels"] = {"kind": "classes"}
        return recipe_from_dict(values, "a test")

    @property
    def spatial(self) -> str:
        return "".join(a for a in self.axes if a in "zyx")

    @property
    def plane_axes(self) -> str:
        return self.axes.replace("c", "")

    def picture(self) -> Pixels:
        """(axes) random grey values; channels where `axes` says."""
        rng = np.random.default_rng(self.seed)
        sizes = iter(self.shape)
        shape = [self.num_channels if a == "c" else next(sizes) for a in self.axes]
        if np.dtype(self.dtype).kind == "f":
            return (rng.normal(3, 20, shape)).astype(self.dtype)
        info = np.iinfo(self.dtype)
        return rng.integers(max(info.min, -1000), min(info.max, 4095), shape, dtype=self.dtype, endpoint=True)

    def plan(self, source: MemorySource, *, keep: Any = "logits", batch: int = 1, precision: str = "fp64") -> RunPlan:
        spec = self.recipe.network_spec
        free = len(self.shape) - spec.dims
        halo = [0] * free + list(spec.halo)
        if self.context_slices > 1:
            halo[free - 1] = self.context_slices // 2
        stride = (1,) * free + spec.stride
        tiles = TilePlan(self.plane_axes, self.shape, stride, self.core, tuple(halo), self.cores_per_block, spec.border)
        at = sum(a not in "zyx" for a in self.plane_axes)
        num = self.num_classes if keep != "classes" else 1

        def with_channels(values: Iterable[int], n: int) -> tuple[int, ...]:
            values = list(values)
            return tuple(values[:at] + ([n] if num > 1 else []) + values[at:])

        axes = self.plane_axes if num == 1 else self.plane_axes[:at] + "c" + self.plane_axes[at:]
        dtype = "float64" if precision == "fp64" else "float32" if keep == "logits" else "uint8"
        shard, chunk = with_channels(tiles.block_shape, num), with_channels(self.core, 1)
        output = OutputImage("", with_channels(self.shape, num), axes, dtype, shard, chunk)
        channels = tuple(range(self.num_channels)) if "c" in self.axes else ()
        return RunPlan(
            "case",
            {"path": "memory"},
            dict(source.info.identity),
            "0" * 64,
            self.recipe.to_dict(),
            (ImagePlan(0, tiles, output, channels),),
            Compute("cpu", precision, 1),
            batch,
            keep,
            0.5,
        )


def made_network(case: Case) -> Network:
    """The case's network with He weights and batch norms as after some training."""
    network = build_network(case.recipe.network_spec, seed=case.seed)
    generator = torch.Generator().manual_seed(case.seed)
    if isinstance(network, Stacked):  # the blocks begin by leaving the image as it is
        for name in network.heads:
            head = network.get_submodule(name)
            assert isinstance(head.weight, Tensor)
            head.weight.data.copy_(torch.randn(head.weight.shape, generator=generator) * 0.3)
    if isinstance(network, Restorer):  # its sub-blocks begin by changing nothing, its heads by answering nothing
        for module in [m.outer for m in network.modules() if isinstance(m, SubBlock)] + [
            network.get_submodule(name) for name in network.heads
        ]:
            assert isinstance(module.weight, Tensor)
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator) * 0.3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            for tensor in (module.running_mean, module.bias.data):
                assert tensor is not None
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
            for tensor in (module.running_var, module.weight.data):
                assert tensor is not None
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return network.eval()


def engine_for(network: Network, plan: RunPlan) -> Engine:
    activation = plan.typed_recipe().output.resolved_activation
    if plan.compute.precision == "fp64":
        network = network.double()  # batch norms are folded in the digits that the network has
    return Engine(
        network, plan.compute, CPU, batch=plan.batch, keep=plan.keep, activation=activation, threshold=plan.threshold
    )


def reader_for(source: Any, plan: RunPlan) -> BlockReader:
    return BlockReader(source, plan, StatisticsStore(None, "test", plan))


def serially(source: MemorySource, plan: RunPlan, network: Network) -> Iterator[DoneBlock]:
    return run_serial(plan, range(plan.num_blocks), reader_for(source, plan), engine_for(network, plan))


def tiled(case: Case) -> Pixels:
    """What the engine gives, in the output's axes; every pixel must be written exactly once."""
    source = MemorySource(case.picture(), case.axes)
    plan = case.plan(source)
    image = plan.images[0]
    result = np.full(image.output.shape, np.nan)
    times = np.zeros(image.output.shape, int)
    for done in serially(source, plan, made_network(case)):
        place = output_box(image, done.block.box).slices()
        result[place] = done.pixels
        times[place] += 1
    assert (times == 1).all()
    return result


def expected(case: Case) -> Pixels:
    """The plain network on whole volumes, one after the other, in the output's axes."""
    picture = case.picture().astype(np.float64)
    picture = np.moveaxis(picture, case.axes.index("c"), 0) if "c" in case.axes else picture[np.newaxis]
    lead = [a for a in case.plane_axes if a not in "zyx"]
    volumes = picture.reshape(case.num_channels, -1, *case.shape[len(lead) :]).swapaxes(0, 1)
    network = made_network(case)
    dims = network.spec.dims
    found = []
    for volume in volumes:
        scaled = volume
        if case.method == "mean_std":
            axes = tuple(range(1, volume.ndim))
            scaled = (volume - volume.mean(axes, keepdims=True)) / volume.std(axes, keepdims=True)
        found.append(whole_logits(network, _images(scaled, dims, case.context_slices)))
    logits = np.stack(found)  # (volumes, N, C, *space)
    shape = (*case.shape[:-dims], logits.shape[2], *case.shape[-dims:])
    logits = np.moveaxis(logits.reshape(shape), -dims - 1, len(lead))
    return logits if case.num_classes > 1 else logits.squeeze(len(lead))


def _images(volume: Pixels, dims: int, context_slices: int) -> Pixels:
    """(c, *volume) as what the network sees: (N, context * c, *space)."""
    if volume.ndim == dims + 1:
        return volume[np.newaxis]
    reach = context_slices // 2
    padded = np.pad(volume, [(0, 0), (reach, reach)] + [(0, 0)] * dims, mode="reflect") if reach else volume
    num_planes = volume.shape[1]
    return np.stack([np.concatenate([padded[:, z + d] for d in range(context_slices)]) for z in range(num_planes)])


def assert_exact(case: Case) -> None:
    found, wanted = tiled(case), expected(case)
    assert found.shape == wanted.shape
    assert float(np.abs(found - wanted).max()) <= 1e-12 * max(1.0, float(np.abs(wanted).max()))


# -- strategies


@st.composite
def networks(draw: st.DrawFn, depths: tuple[int, int], dims: int, border: str) -> dict[str, Any]:
    depth = draw(st.integers(*depths))
    ups = ["transposed", "bilinear"] + ["bicubic"] * (dims == 2)
    values: dict[str, Any] = {
        "channels": [draw(st.integers(1, 2)) for _ in range(depth + 1)],
        "dims": dims,
        "convolution": "same" if border == "native" else draw(st.sampled_from(["valid", "same"])),
        "border": border,
        "up": draw(st.sampled_from(ups)),
        "down": draw(st.sampled_from(["max", "average", "strided"])),
        "norm": draw(st.sampled_from(["none", "batch"])),
    }
    if values["convolution"] == "same":
        values["padding"] = draw(st.sampled_from(["zero", "reflect"]))
    if depth <= 2 and dims == 2:
        values["kernel"] = draw(st.sampled_from([1, 3, 5]))
        values["convs_per_level"] = draw(st.integers(1, 3))
    return values


@st.composite
def cases(draw: st.DrawFn, *, depths: tuple[int, int] = (2, 5), dims: int = 2, border: str = "mirror") -> Case:
    network = draw(networks(depths, dims, border))
    stride = 2 ** (len(network["channels"]) - 1)
    all_axes = ["yx", "zyx", "tyx", "cyx", "tzyx", "zcyx", "tczyx"] if dims == 2 else ["zyx", "tzyx", "czyx"]
    axes = draw(st.sampled_from(all_axes))
    planes = axes.replace("c", "")
    free = len(planes) - dims
    # A reflecting convolution at the coarsest level needs two pixels there.
    least = 2 * stride if border == "native" and network.get("padding") == "reflect" else 1
    if border == "native" and network.get("padding") == "reflect" and network.get("kernel") == 5:
        least = 3 * stride
    largest = max(min(3 * stride, 70), 24) if dims == 2 else 9
    sizes = tuple(draw(st.integers(1, 3 if dims == 2 and stride < 16 else 2)) for _ in range(free))
    space = tuple(draw(st.integers(least, max(least, largest))) for _ in range(dims))
    cores = tuple(stride * draw(st.integers(1, 3)) for _ in range(dims))
    counts = [draw(st.integers(1, 3)) for _ in planes]
    for axis, letter in enumerate(planes):
        if letter not in "zyx":
            counts[axis] = 1  # a block never holds two volumes of a series
    reach = draw(st.sampled_from([1, 1, 3, 5])) if dims == 2 and "z" in planes else 1
    num_channels = draw(st.integers(1, 3)) if "c" in axes else 1
    num_classes = draw(st.sampled_from([1, 1, 3]))
    return Case(
        network, axes, (*sizes, *space), (1,) * free + cores, tuple(counts),
        dtype=draw(st.sampled_from(["uint8", "uint16", "int16", "float32", "float64"])),
        num_channels=num_channels, context_slices=reach, num_classes=num_classes,
        method=draw(st.sampled_from(["mean_std", "none"])) if min(space) > 1 else "none",
        seed=draw(st.integers(0, 5)),
    )  # fmt: skip
