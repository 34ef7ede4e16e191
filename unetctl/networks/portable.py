"""Networks as ONNX, for programs that know neither torch nor us.

`torch.onnx.export` does the translating, of a network traced at one size. What a size has left behind in the trace is where
features are cut: counted from the end instead of by length, the same graph serves every size that the network takes.
The graph is compared with the network on other sizes before anyone gets it.

Needs the extra `export` (onnx, onnxscript, onnxruntime).
"""

import logging
import math
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unetctl.errors import UsageError, WeightsError
from unetctl.networks.build import folded
from unetctl.networks.network import Network
from unetctl.networks.spec import NetworkSpec

if TYPE_CHECKING:
    import onnx

#: Names of the tensors; image and prediction are answered by networks of some kinds only (`unetctl.networks.network.Answer`).
INPUT, LOGITS, IMAGE, PREDICTION = "input", "logits", "image", "prediction"
#: Largest difference between the exported network's numbers and torch's that is accepted.
TOLERANCE = 1e-4
#: Most strides that the smallest input may have per side: padding of 7 pixels needs 8.
_MOST_STRIDES = 64
#: Strides per axis (last axis last) that the trace is made at, and that it is compared at, beyond the smallest.
_TRACED_AT = (1, 0, 2)
_COMPARED_AT = ((0, 1, 0), (2, 0, 3))
_AXES = "zyx"


@dataclass(frozen=True)
class Sizes:
    """The inputs that a network takes whole: the same along each axis.

    Attributes:
        least: pixels of the smallest.
        step: pixels from one size to the next.
        lost: pixels that the answer is smaller by, both sides together.
    """

    least: int
    step: int
    lost: int

    def __str__(self) -> str:
        rest = self.least % self.step
        return f"{self.step} k{f' + {rest}' if rest else ''}, at least {self.least}"

    def at(self, strides: int) -> int:
        """Pixels of an input so many strides larger than the smallest."""
        return self.least + strides * self.step


@dataclass(frozen=True)
class Agreement:
    """How close the exported network comes to torch.

    Attributes:
        largest: absolute difference of any number answered, over all shapes.
        shapes: (N, C, *space) of the inputs compared.
    """

    largest: float
    shapes: tuple[tuple[int, ...], ...]


def missing_packages(*names: str) -> tuple[str, ...]:
    """Of these packages, those that are not installed; nothing is imported."""
    return tuple(name for name in names if not _is_installed(name))


def require_packages(what: str, *names: str, extra: str = "export") -> None:
    """Says so if a package of an extra of ours is missing.

    Raises:
        UsageError: naming the packages and the extra.
    """
    missing = missing_packages(*names)
    if missing:
        raise UsageError(
            f"{what} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            "",
            f"pip install 'unetctl[{extra}]'",
        )


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the parent of a dotted name
        return False


def sizes_of(network: Network) -> Sizes:
    """The inputs that a network takes whole, as in training: without a frame.

    Raises:
        WeightsError: if it takes none of a sensible size.
    """
    spec = network.spec
    stride = spec.stride[0]
    lost = 2 * spec.margin[0] if spec.convolution == "valid" else 0
    shadow = folded(network, torch.float32).to("meta")  # computes shapes alone
    for strides in range(1, _MOST_STRIDES + 1):
        size = lost + strides * stride
        try:
            shadow(torch.empty(1, spec.in_channels, *(size,) * spec.dims, device="meta"))
        except (RuntimeError, ValueError):  # padding that mirrors wants more pixels than there are
            continue
        return Sizes(size, stride, lost)
    raise WeightsError(
        f"the network takes no input of up to {_MOST_STRIDES} strides", "a network that answers what it is given"
    )


def to_onnx(network: Network, metadata: Mapping[str, str], producer: tuple[str, str]) -> "onnx.ModelProto":
    """The network as an ONNX model: (N, in_channels, *space) float32 in, logits (and the image, if it answers one) out.

    Batch norms are folded. The number of pictures and all sizes of `sizes_of` are left open.

    Args:
        network: stays as it is.
        metadata: written into the file, sorted by key; as texts.
        producer: name and version of the program that writes the file.

    Returns:
        A model that the checker of onnx accepts; equal networks and metadata give equal bytes.

    Raises:
        UsageError: if a package is missing.
        WeightsError: if the network cannot be said in ONNX.
    """
    require_packages("export", "onnx", "onnxscript")
    import onnx

    spec, sizes = network.spec, sizes_of(network)
    example = torch.zeros(2, spec.in_channels, *(sizes.at(k) for k in _TRACED_AT[: spec.dims]))
    names = [name for name, _ in answers_of(folded(network).to("meta"), example.to("meta"))]
    with _quiet(), torch.no_grad():
        try:
            program = torch.export.export(_Answers(_said_plainly(network)), (example,), strict=False)
            _count_from_the_end(program)
            made = torch.onnx.export(
                program, dynamo=True, input_names=[INPUT], output_names=names, external_data=False, verbose=False
            )
        except RuntimeError as error:
            reason = re.sub(r"\x1b\[[\d;]*m", "", str(error.__cause__ or error)).splitlines()[0]  # torch colours it
            raise WeightsError(
                f"torch could not translate this {spec.title} to ONNX ({reason})",
                "a network that torch.onnx.export understands",
            ) from error
        assert made is not None
        model = made.model_proto
    _tidy(model, producer, metadata)
    _open_sizes(model, spec, sizes)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise WeightsError(
            f"the exported network is no valid ONNX ({error})", "", "report it; this is a bug"
        ) from error
    return model


def agreement(path: Path, network: Network, seed: int = 0) -> Agreement:
    """Runs an exported network in onnxruntime and the network in torch on the same chance numbers.

    Args:
        path: of the ONNX file.
        network: as it was before the export, batch norms and all.
        seed: of the numbers, of mean 0 and deviation 1.

    Raises:
        UsageError: if onnxruntime is missing.
        WeightsError: if onnxruntime cannot run the file, or answers other shapes.
    """
    require_packages("the check of the export", "onnxruntime")
    network, spec, sizes = network.eval(), network.spec, sizes_of(network)
    chance = torch.Generator().manual_seed(seed)
    largest, shapes = 0.0, []
    for i, strides in enumerate(_COMPARED_AT):
        shape = (i + 1, spec.in_channels, *(sizes.at(k) for k in strides[: spec.dims]))
        x = torch.randn(shape, generator=chance)
        with torch.inference_mode():
            wanted = dict(answers_of(network, x))
        found = dict(zip(wanted, run_onnx(path, x), strict=True))
        for name, given in wanted.items():
            if given.shape != found[name].shape:
                raise WeightsError(
                    f"for an input of {_of(shape)} the exported network answers {name} of {_of(found[name].shape)}",
                    f"{_of(given.shape)}, as torch does",
                )
            differences = (given - found[name]).abs()
            if name == IMAGE and PREDICTION in wanted:
                # There it is the prediction where the logits are above 0: rounding may turn a pixel whose logit is 0.
                differences = differences * ((wanted[LOGITS] > 0) == (found[LOGITS] > 0))
            difference = float(differences.max())
            largest = max(largest, difference if math.isfinite(difference) else math.inf)
        shapes.append(shape)
    return Agreement(largest, tuple(shapes))


def answers_of(network: Network, x: Tensor) -> list[tuple[str, Tensor]]:
    """Names and numbers of all that the final stage says, in the order of the exported network's outputs.

    Args:
        network: in eval mode.
        x: (N, in_channels, *space), of a size that the network takes whole.
    """
    answer = network.final(x)
    named = ((LOGITS, answer.logits), (IMAGE, answer.image), (PREDICTION, answer.prediction))
    return [(name, value) for name, value in named if value is not None]


def run_onnx(path: Path, x: Tensor) -> tuple[Tensor, ...]:
    """What onnxruntime answers on the CPU.

    Args:
        path: of a file that `to_onnx` has made.
        x: (N, in_channels, *space) float32.

    Raises:
        WeightsError: if it cannot.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # as torch was told; by itself it takes all cores
    options.log_severity_level = 4  # we tell its errors ourselves
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        answers = session.run(None, {INPUT: x.numpy()})
    except Exception as error:  # what its C++ raises has no common parent
        raise WeightsError(
            f"onnxruntime cannot run the exported network ({str(error).strip().splitlines()[0]})", "", "report it"
        ) from error
    return tuple(torch.from_numpy(answer) for answer in answers)


class _Answers(nn.Module):
    """What is exported: all that the final stage says, one tensor after another."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(value for _, value in answers_of(self.network, x))


def _count_from_the_end(program: "torch.export.ExportedProgram") -> None:
    """Says all cuts of a trace by what is left away on either side, which no size changes, not by the length kept."""
    graph, aten = program.graph_module.graph, torch.ops.aten
    for node in list(graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:
            graph.erase_node(node)
            continue
        given: list[Any] = list(node.args)
        if node.target is aten.narrow.default:
            source, axis, start, length = given
            stop, step = start + length, 1
        elif node.target is aten.slice.Tensor:
            source, axis, first, last, step = given + [0, None, None, 1][len(given) - 1 :]
            start, stop, _ = slice(first, last).indices(source.meta["val"].shape[axis])
        else:
            continue
        rest = source.meta["val"].shape[axis] - stop
        with graph.inserting_before(node):
            cut = graph.call_function(aten.slice.Tensor, (source, axis, start, -rest if rest else sys.maxsize, step))
        cut.meta = dict(node.meta)
        node.replace_all_uses_with(cut)
        graph.erase_node(node)
    program.graph_module.recompile()


class _GroupNorm(nn.Module):
    """torch's group norm, said without reshaping, which would fix the sizes: a group's mean is a 1x1 convolution."""

    def __init__(self, norm: nn.GroupNorm, dims: int) -> None:
        super().__init__()
        share = norm.num_channels // norm.num_groups
        mixing = torch.kron(torch.eye(norm.num_groups), torch.full((share, share), 1 / share))
        self.register_buffer("mixing", mixing.reshape(*mixing.shape, *(1,) * dims))
        self.register_buffer("weight", norm.weight.detach().reshape(-1, *(1,) * dims))
        self.register_buffer("bias", norm.bias.detach().reshape(-1, *(1,) * dims))
        self.eps, self.axes = norm.eps, tuple(range(2, 2 + dims))

    def _mean(self, x: Tensor) -> Tensor:
        convolution = functional.conv2d if len(self.axes) == 2 else functional.conv3d
        return convolution(x.mean(self.axes, keepdim=True), self.get_buffer("mixing"))

    def forward(self, x: Tensor) -> Tensor:
        x = x - self._mean(x)
        x = x * torch.rsqrt(self._mean(x * x) + self.eps)
        return x * self.get_buffer("weight") + self.get_buffer("bias")


def _said_plainly(network: Network) -> Network:
    """A folded copy, in layers that fix no size when they are traced."""
    network = folded(network, torch.float32)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.GroupNorm):
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, _GroupNorm(module, network.spec.dims))
    return network


def _tidy(model: "onnx.ModelProto", producer: tuple[str, str], metadata: Mapping[str, str]) -> None:
    """Takes out what tells of the machine that it was made on, and writes in what the network is."""
    model.producer_name, model.producer_version = producer
    model.graph.name = "network"
    model.graph.doc_string = model.doc_string = ""
    del model.metadata_props[:], model.graph.metadata_props[:]
    for key in sorted(metadata):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, metadata[key]
    graph = model.graph
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]


def _open_sizes(model: "onnx.ModelProto", spec: NetworkSpec, sizes: Sizes) -> None:
    """Names the axes whose sizes are free, in place of the sizes of the trace."""
    del model.graph.value_info[:]
    axes = _AXES[-spec.dims :]
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        dims[0].dim_param = "n"
        for dim, axis in zip(dims[2:], axes, strict=True):
            lost = sizes.lost if value.name != INPUT else 0
            dim.dim_param = f"{axis} - {lost}" if lost else axis


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks of itself: of operators it does not need, of Python's next version."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):  # some versions of onnxscript print
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def save_onnx(path: Path, model: "onnx.ModelProto") -> None:
    """Writes the model and flushes it to disk, in place: give a temporary name.

    Raises:
        OSError: if the disk refuses.
    """
    with path.open("wb") as file:
        file.write(model.SerializeToString(deterministic=True))
        file.flush()
        os.fsync(file.fileno())


def _of(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def opset_of(model: "onnx.ModelProto") -> int:
    """Version of ONNX's own operators that the model uses."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain == "")
