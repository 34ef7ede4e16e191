"""State dicts of U-Nets that others wrote in PyTorch, brought into ours: by a map of names, or by order and shape.

A state dict names layers as its author did, and lists them in the order in which they were made. Every author makes the
contracting path first; the expanding path comes level by level, or by kinds of layers. One of these orders fits all shapes, or
none does and all that does not fit is told at once.

What a state dict cannot say is how its network computes: whether convolutions pad, what interpolates. That the recipe says.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor

from unetctl.errors import UsageError, WeightsError
from unetctl.networks.build import build_network
from unetctl.networks.foreign_file import State
from unetctl.networks.network import Network
from unetctl.networks.spec import NetworkSpec, UNetSpec

Skip = Literal["first", "last"]

#: Counted by batch norm while training; of no use after.
_COUNTER = "num_batches_tracked"
_MOST_PROBLEMS = 60
#: Names of networks whose way to compute is known: double convolutions that pad with zeros, skips put first.
_PADS_WITH_ZEROS = re.compile(r"(^|\.)(inc|down\d+|up\d+)\..*double_conv\.\d+\.")
_NAMES_KEYS = {"names", "ignore"}


@dataclass(frozen=True)
class NameMap:
    """Which tensor, or layer, of the foreign network is which of ours.

    Attributes:
        names: foreign to ours; of whole tensors ("inc.0.weight") or of all whose name begins so ("inc.0").
        ignore: patterns (``loss.*``) of tensors that are left out.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> "NameMap":
        """From TOML: a table ``[names]`` and a list ``ignore``.

        Raises:
            UsageError: if there is anything else.
        """
        names, ignore = values.get("names", {}), values.get("ignore", [])
        if isinstance(names, dict) and isinstance(names.get("ignore"), list):  # below [names], TOML puts it in there
            ignore = [*ignore, *names["ignore"]] if isinstance(ignore, list) else ignore
            names = {name: value for name, value in names.items() if name != "ignore"}
        texts = isinstance(names, dict) and all(isinstance(v, str) for v in names.values())
        if not texts or not isinstance(ignore, list) or set(values) - _NAMES_KEYS:
            raise UsageError(
                f"{where} is no map of names",
                'a table [names] of lines as "inc.0" = "contracting.0.units.0.conv", and if need be ignore = ["loss.*"]',
                'quote names that contain dots; "unetctl import --help" tells more',
            )
        return cls(names, tuple(map(str, ignore)))


@dataclass(frozen=True)
class Imported:
    """A foreign network in our form.

    Attributes:
        network: with its weights, float32, in eval mode.
        names: our tensors to the foreign ones they came from.
        remarks: what was taken for granted, or changed on the way.
    """

    network: Network
    names: dict[str, str]
    remarks: tuple[str, ...]


def imported(state: State, spec: NetworkSpec, names: NameMap | None = None, skip: Skip = "first") -> Imported:
    """The network of `spec` with the weights of a foreign state dict.

    Args:
        state: of `read_state`; without `names` in the order in which the foreign network lists it.
        spec: what the foreign network is.
        names: the map; None finds the places by order and shape, which only U-Nets (`UNetSpec`) allow.
        skip: whether the foreign network puts the skip first or last where it joins it with what was lifted.

    Raises:
        WeightsError: telling all tensors that have no place, that are missing or of another shape; or that the foreign
            network is known to compute differently.
    """
    network = build_network(spec)
    state = {name: value for name, value in state.items() if name.rpartition(".")[2] != _COUNTER}
    _refuse_other_arithmetic(state, spec)
    if names is not None:
        pairs = _by_names(state, network, names)
    elif isinstance(spec, UNetSpec):
        pairs = _by_order(state, network, spec)
    else:
        raise WeightsError(
            f"a {spec.title} cannot be recognised by order and shape",
            "a U-Net, or a map of names",
            "give --names MAP.toml",
        )
    if skip == "last" and not isinstance(spec, UNetSpec):
        raise WeightsError(
            f"--skip last of a {spec.title}", "a U-Net", "swap the halves of its joins before you import it"
        )
    remarks = _filled(state, network, pairs)
    if isinstance(spec, UNetSpec):
        if skip == "last":
            _turn_joins(network, spec)
        remarks += [_taken_for_granted(spec, skip)]
    return Imported(network.eval(), {ours: theirs for ours, (theirs, _) in pairs.items()}, tuple(remarks))


def _refuse_other_arithmetic(state: State, spec: NetworkSpec) -> None:
    """Of networks that are known by their names, or by the layers that they lack."""
    if any(_PADS_WITH_ZEROS.search(name) for name in state) and (
        (spec.convolution, spec.padding, spec.border) != ("same", "zero", "native")
    ):
        raise WeightsError(
            "by its names (inc, down1, up1, double_conv) this is a U-Net whose convolutions pad with zeros, and the recipe "
            f"says convolution {spec.convolution}, padding {spec.padding}, border {spec.border}",
            "the same arithmetic",
            "give --set network.convolution=same --set network.padding=zero --set network.border=native",
        )
    if isinstance(spec, UNetSpec) and spec.depth and spec.up == "transposed":
        lifts = [v for n, v in state.items() if v.ndim == spec.dims + 2 and set(v.shape[2:]) == {2}]
        if not lifts:
            raise WeightsError(
                "the state dict holds no 2x2 convolution: its network does not upsample by transposed convolutions",
                "one for each level",
                "many such networks interpolate with align_corners=True, which depends on the size of the picture: no tiling is "
                "exact, and it is not supported; without align_corners and with a 1x1 convolution, give "
                "--set network.up=bilinear",
            )


def _by_names(state: State, network: Network, names: NameMap) -> dict[str, tuple[str, Tensor]]:
    """Our tensors to the foreign ones, by a map; what it does not mention keeps its name."""
    expected = network.state_dict()
    prefixes = sorted(names.names, key=len, reverse=True)
    pairs: dict[str, tuple[str, Tensor]] = {}
    problems: list[str] = []
    for theirs, value in state.items():
        if any(fnmatchcase(theirs, pattern) for pattern in names.ignore):
            continue
        prefix = next((p for p in prefixes if theirs == p or theirs.startswith(f"{p}.")), None)
        ours = theirs if prefix is None else names.names[prefix] + theirs.removeprefix(prefix)
        if ours in pairs:
            problems.append(f"{theirs} and {pairs[ours][0]} are both to be {ours}")
        pairs.setdefault(ours, (theirs, value))
    unused = [p for p in prefixes if not any(n == p or n.startswith(f"{p}.") for n in state)]
    problems += [f"the map names {name}, which the file does not hold" for name in unused]
    for ours, (theirs, value) in pairs.items():
        if ours not in expected and not _is_spare_bias(ours, expected):
            problems.append(f"{theirs} {_of(value)} has no place in the network")
        elif ours in expected and expected[ours].shape != value.shape:
            problems.append(f"{theirs} has shape {_of(value)} where {ours} has {_of(expected[ours])}")
    problems += [f"nothing for {ours} {_of(expected[ours])}" for ours in _required(expected) if ours not in pairs]
    _refuse(problems)
    return pairs


def _by_order(state: State, network: Network, spec: UNetSpec) -> dict[str, tuple[str, Tensor]]:
    """Our tensors to the foreign ones: the order of layers in which all shapes fit."""
    theirs, expected = _layers(state), network.state_dict()
    ours = _layers({n: v for n, v in expected.items() if not n.endswith(_COUNTER)})
    found: list[list[str]] = []
    for order in _orders(spec):
        if len(order) == len(theirs) and all(
            _fits(layer, ours[name]) for layer, name in zip(theirs.values(), order, strict=True)
        ):
            found += [] if order in found else [order]
    if len(found) == 1:
        pairs = {
            f"{name}.{part}": (_joined(prefix, part), value)
            for name, (prefix, layer) in zip(found[0], theirs.items(), strict=True)
            for part, value in layer.items()
        }
        _refuse([f"nothing for {n} {_of(expected[n])}" for n in _required(expected) if n not in pairs])
        return pairs
    if found:
        raise WeightsError(
            "the state dict fits the network in more than one order",
            "an order that the shapes decide",
            "give --names MAP.toml",
        )
    _refuse(_misfits(theirs, ours, next(iter(_orders(spec)))), _guess(theirs, spec))
    raise WeightsError(
        "the layers of the state dict have the right shapes and lie in an order that is not known",
        "contracting path, expanding path, head",
        "give --names MAP.toml",
    )


def _layers(state: Mapping[str, Tensor]) -> dict[str, State]:
    """Tensors by layer, in the order in which the layers appear."""
    layers: dict[str, State] = {}
    for name, value in state.items():
        prefix, _, part = name.rpartition(".")
        layers.setdefault(prefix, {})[part] = value
    return layers


def _fits(theirs: State, ours: State) -> bool:
    """True if a layer is of our layer's kind and shapes; biases may be there or not."""
    if any(part not in ours and part != "bias" for part in theirs):
        return False
    return "weight" in theirs and all(
        value.shape == ours[part].shape if part in ours else value.ndim == 1 for part, value in theirs.items()
    )


def _orders(spec: UNetSpec) -> Iterator[list[str]]:
    """Names of our layers in the orders in which authors make them; the first is that in which they compute."""
    levels = range(spec.depth)

    def chain(path: str, level: int, is_paired: bool) -> list[str]:
        convs = [f"{path}.{level}.units.{j}.conv" for j in range(spec.convs_per_level)]
        norms = [name.removesuffix("conv") + "norm" for name in convs] if spec.norm != "none" else []
        return (
            [name for pair in zip(convs, norms, strict=True) for name in pair] if is_paired and norms else convs + norms
        )

    for is_paired, downs_last, layout in product((True, False), (False, True), range(5)):
        downs = [f"downs.{level}.conv" for level in levels] if spec.down == "strided" else []
        order: list[str] = []
        for level in range(spec.depth + 1):
            order += chain("contracting", level, is_paired)
            order += downs[level : level + 1] if not downs_last else []
        order += downs if downs_last else []
        turned = levels if layout > 2 else levels[::-1]
        ups = [f"ups.{level}.conv" for level in turned]
        chains = [chain("expanding", level, is_paired) for level in turned]
        if layout == 0:
            order += [name for up, rest in zip(ups, chains, strict=True) for name in (up, *rest)]
        else:
            flat = [name for rest in chains for name in rest]
            order += ups + flat if layout in (1, 3) else flat + ups
        yield [*order, "head"]


def _misfits(theirs: Mapping[str, State], ours: Mapping[str, State], order: Sequence[str]) -> list[str]:
    """All that keeps a state dict from fitting: shape by shape where the layers are as many, else what is left over."""
    if len(theirs) == len(order):
        return (
            [
                f"{prefix or 'layer'} has {_shapes(layer)} where {name} has {_shapes(ours[name])}"
                for (prefix, layer), name in zip(theirs.items(), order, strict=True)
                if not _fits(layer, ours[name])
            ]
            if sorted(map(_shapes, theirs.values())) != sorted(_shapes(ours[name]) for name in order)
            else []
        )
    left, problems = list(order), []
    for prefix, layer in theirs.items():
        place = next((name for name in left if _fits(layer, ours[name])), None)
        if place is None:
            problems.append(f"{prefix or 'layer'} {_shapes(layer)} has no place in the network")
        else:
            left.remove(place)
    return problems + [f"nothing for {name} {_shapes(ours[name])}" for name in left]


def _guess(theirs: Mapping[str, State], spec: UNetSpec) -> str:
    """Settings that the shapes of a state dict suggest."""
    convs = [
        layer["weight"] for layer in theirs.values() if "weight" in layer and layer["weight"].ndim == spec.dims + 2
    ]
    wide = [weight for weight in convs if weight.shape[-1] > 2]
    if not wide:
        return ""
    widths: list[int] = []
    for weight in wide:
        if not widths or weight.shape[0] > widths[-1]:
            widths.append(weight.shape[0])
    told = [f"input.channels={wide[0].shape[1]}"] if wide[0].shape[1] != spec.in_channels else []
    if tuple(widths) != spec.widths:
        told.append(f"network.channels={','.join(map(str, widths))}")
    has_statistics = any("running_mean" in layer for layer in theirs.values())
    if has_statistics != (spec.norm == "batch"):
        told.append(f"network.norm={'batch' if has_statistics else 'none'}")
    if convs[-1].shape[-1] == 1 and convs[-1].shape[0] != spec.out_channels:
        told.append(f"as many output.classes as it answers channels, {convs[-1].shape[0]}")
    return f"by its shapes the network has {'; '.join(told)}" if told else "give --names MAP.toml"


def _filled(state: State, network: Network, pairs: Mapping[str, tuple[str, Tensor]]) -> list[str]:
    """Puts the tensors into the network; remarks about those that had to be changed or made up."""
    expected, remarks = network.state_dict(), []
    values = {ours: value.float() for ours, (_, value) in pairs.items() if ours in expected}
    broken = [pairs[ours][0] for ours, value in values.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise WeightsError(f"the state dict holds numbers that are not finite in {', '.join(broken)}")
    folded_in = [ours for ours in pairs if ours not in expected]
    for ours in folded_in:  # batch norm takes the mean away: the bias may as well be taken off the mean before
        mean = ours.removesuffix("conv.bias") + "norm.running_mean"
        values[mean] = values[mean] - pairs[ours][1].float()
    if folded_in:
        remarks.append(f"{len(folded_in)} biases before batch norms were moved into the norms' means")
    missing = [name for name in expected if name not in values and not name.endswith(_COUNTER)]
    for name in missing:
        values[name] = torch.zeros_like(expected[name]) if name.endswith("bias") else torch.ones_like(expected[name])
    if missing:
        remarks.append(f"{len(missing)} biases and factors that the state dict leaves out are 0 and 1")
    network.load_state_dict(values, strict=False)
    return remarks


def _required(expected: Iterable[str]) -> list[str]:
    """Our tensors that cannot be made up: all but biases, factors of norms and counters."""
    return [n for n in expected if not n.endswith((".bias", _COUNTER)) and not n.endswith("norm.weight")]


def _is_spare_bias(ours: str, expected: Mapping[str, Tensor]) -> bool:
    """True of the bias of a convolution whose batch norm makes it superfluous."""
    return ours.endswith("conv.bias") and ours.removesuffix("conv.bias") + "norm.running_mean" in expected


def _turn_joins(network: Network, spec: UNetSpec) -> None:
    """The skip comes first here: swaps the halves that a foreign network joins the other way round."""
    for level in range(spec.depth):
        weight = network.get_parameter(f"expanding.{level}.units.0.conv.weight")
        with torch.no_grad():
            weight.copy_(weight.roll(spec.widths[level], 1))


def _taken_for_granted(spec: UNetSpec, skip: Skip) -> str:
    padding = "do not pad" if spec.convolution == "valid" else f"pad ({spec.padding})"
    up = {"transposed": "transposed convolutions"}.get(spec.up, f"{spec.up} interpolation without align_corners")
    return (
        f"taken from the recipe, as no state dict says it: convolutions {padding}, upsampling by {up}, downsampling by {spec.down}"
        f"; and joins put the skip {skip}"
    )


def _refuse(problems: Sequence[str], hint: str = "") -> None:
    if not problems:
        return
    shown = [f"\n  {i}. {text}" for i, text in enumerate(problems[:_MOST_PROBLEMS], 1)]
    more = f"\n  ... and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
    places = f"{len(problems)} place{'s' * (len(problems) != 1)}"
    hint = hint or "give the network's settings by --set network.KEY=VALUE, or --names MAP.toml"
    raise WeightsError(f"the state dict does not fit the network in {places} ({hint}):{''.join(shown)}{more}")


def _joined(prefix: str, part: str) -> str:
    return f"{prefix}.{part}" if prefix else part


def _of(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "()"


def _shapes(layer: State) -> str:
    parts = sorted(layer, key=lambda part: (part != "weight", part))
    return ", ".join(f"{part} {_of(layer[part])}" for part in parts)
