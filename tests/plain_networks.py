"""Networks as a textbook has them: nothing trimmed, nothing tiled. What the real ones answer must agree."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unetctl.networks.layers import ConvChain, ConvUnit
from unetctl.networks.restorer import Restorer
from unetctl.networks.spec import UNetSpec
from unetctl.networks.stacked import Stacked


def plain(network: Any, x: Tensor) -> Any:
    """The network as a textbook has it: every convolution pads by its own radius, every level computes everything."""
    if isinstance(network, Stacked):
        return plain_row(network, x)[-1][0]
    if isinstance(network, Restorer):
        return plain_restorer(network, x)[0]
    spec = network.spec
    skips = []
    for level, chain in enumerate(network.contracting):
        x = _plain_chain(chain, x)
        if level < spec.depth:
            skips.append(x)
            x = _plain_down(network.downs[level], x)
    for level in reversed(range(spec.depth)):
        x = torch.cat((skips.pop(), _plain_up(network.ups[level], x, spec)), 1)
        x = _plain_chain(network.expanding[level], x)
    return network.head(x)


def plain_row(network: Stacked, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Logits and image after each block of a row of U-Nets."""
    found = []
    for block in network.blocks:
        answer = plain(block, x)
        x = x - answer[:, : x.shape[1]]
        found.append((answer[:, x.shape[1] :], x))
    return found


def plain_restorer(network: Restorer, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the damage and the prediction everywhere."""
    spec: Any = network.spec
    mode = "constant" if spec.padding == "zero" else "reflect"
    rim = (spec.kernel // 2,) * (2 * spec.dims)

    def level(blocks: Any, x: Any) -> Any:
        for block in blocks.sub_blocks:
            inside = block.inner.conv(functional.pad(x, rim, mode=mode))
            inside = functional.relu(inside if block.inner.norm is None else block.inner.norm(inside))
            x = x + block.outer(functional.pad(inside, rim, mode=mode))
        return x

    def decoded(decoder: Any, x: Any, skips: list[Any]) -> Any:
        for i in reversed(range(spec.depth)):
            x = _plain_up(decoder.ups[i], x, spec) + decoder.joins[i](skips[i])
            x = level(decoder.levels[i], x)
        return x

    features, skips = network.stem(x), []
    if network.first is not None:
        differences = _plain_differences(x, (1,) * (2 * spec.dims), mode)
        features = features + network.first.outer(functional.pad(differences, rim, mode=mode))
    for i, one in enumerate(network.contracting):
        features = level(one, features)
        if i < spec.depth:
            skips.append(features)
            down: Any = network.downs[i]
            features = down.mix(_plain_down(down.down, features))
    change = network.picture_head(decoded(network.picture_decoder, features, skips))
    logits = network.mask_head(decoded(network.mask_decoder, features, skips))
    prediction = x * (1 + change[:, :1]) + change[:, 1 : 1 + spec.in_channels]
    if spec.fill_scales:
        pool: Any = functional.max_pool2d if spec.dims == 2 else functional.max_pool3d
        known = functional.relu(1 - 2 * pool(torch.sigmoid(logits), 3, stride=1, padding=1))
        around = _plain_continued(x, known, spec.fill_scales, spec)
        if spec.unveil:
            share = torch.sigmoid(change[:, -1:])
            around = (1 - share) * around + share * _plain_unveiled(x, torch.sigmoid(logits), spec, pool)
        prediction = prediction + functional.relu(-change[:, :1]) * around
    return logits, prediction


def _plain_unveiled(x: Tensor, damage: Tensor, spec: Any, pool: Any) -> Tensor:
    """Mean and deviation of both sides of the edge, by weighted means of centred squares where the module takes moments."""
    inside = functional.relu(1 - 2 * pool(1 - damage, 3, stride=1, padding=1))
    outside = functional.relu(1 - 2 * pool(damage, 3, stride=1, padding=1))
    near_whole, near_damage = (
        functional.relu(2 * pool(one, 7, stride=1, padding=3) - 1) for one in (1 - damage, damage)
    )
    rings = inside * near_whole + outside * near_damage
    veiled = torch.where(inside > 0, x, _plain_continued(x, inside, 2, spec))
    clear = torch.where(outside > 0, x, _plain_continued(x, outside, 2, spec))
    means = [_plain_continued(one, rings, spec.fill_scales, spec) for one in (veiled, clear)]
    squares = [_plain_continued(one**2, rings, spec.fill_scales, spec) for one in (veiled, clear)]
    spreads = [functional.relu((s - m**2).sum(1, keepdim=True)) + 1e-6 for s, m in zip(squares, means, strict=True)]
    left = torch.sqrt(spreads[0] / spreads[1]).clamp(0.1, 1)
    answer: Tensor = ((x - means[0]) / left + means[1]).clamp(0, 1)
    return answer


def _plain_continued(x: Tensor, known: Tensor, scales: int, spec: Any) -> Tensor:
    """By convolutions with holes in the kernel, one scale after the other."""
    taps = torch.tensor([1.0, 4, 6, 4, 1], dtype=x.dtype) / 16
    kernel = taps
    for _ in range(spec.dims - 1):
        kernel = kernel[..., None] * taps
    convolve: Any = functional.conv2d if spec.dims == 2 else functional.conv3d

    def blurred(one: Tensor, scale: int) -> Tensor:
        weight = kernel.expand(one.shape[1], 1, *kernel.shape)
        answer: Tensor = convolve(one, weight, padding=2 * 2**scale, dilation=2**scale, groups=one.shape[1])
        return answer

    colours, share, found, left = x * known, known, x * known, 1 - known
    for scale in range(scales):
        colours, share = blurred(colours, scale), blurred(share, scale)
        is_last = scale == scales - 1
        trust = (share > 1e-6).to(x.dtype) if is_last else torch.minimum(share * 4, torch.ones_like(share))
        found = found + left * trust * colours / share.clamp_min(1e-6)
        left = left * (1 - trust)
    answer: Tensor = found + left * x
    return answer


def _plain_differences(x: Tensor, rim: tuple[int, ...], mode: str) -> Tensor:
    """By rolling the padded picture round, where the module cuts parts out."""
    wide, axes = functional.pad(x, rim, mode=mode), range(2, x.ndim)
    after, before = ([wide.roll(by, axis) for axis in axes] for by in (-1, 1))
    others = [*after, sum(after + before) / (2 * len(after))]
    steps = 255 * torch.cat([other - wide for other in others], 1)
    for axis in axes:
        steps = steps.narrow(axis, 1, x.shape[axis])
    return torch.sign(steps) * torch.log(1 + steps.abs()) / 2


def _plain_chain(chain: nn.Module, x: Tensor) -> Any:
    assert isinstance(chain, ConvChain)
    mode = "constant" if chain.padding == "zero" else "reflect"
    for unit in chain.units:
        assert isinstance(unit, ConvUnit)
        x = unit.conv(functional.pad(x, (chain.radius,) * (2 * (x.ndim - 2)), mode=mode))
        if unit.norm is not None:
            x = unit.norm(x)
        x = functional.relu(x)
    return x


def _plain_down(down: Any, x: Tensor) -> Any:
    if down.kind == "strided":
        return down.conv(x)
    pool: dict[tuple[str, int], Any] = {
        ("max", 4): functional.max_pool2d,
        ("max", 5): functional.max_pool3d,
        ("average", 4): functional.avg_pool2d,
        ("average", 5): functional.avg_pool3d,
    }
    return pool[down.kind, x.ndim](x, 2)


def _plain_up(up: Any, x: Tensor, spec: UNetSpec) -> Any:
    """Interpolates first and mixes channels then; the module does it the other way round."""
    if spec.up == "transposed":
        return up.conv(x)
    mode = "bicubic" if spec.up == "bicubic" else {2: "bilinear", 3: "trilinear"}[spec.dims]
    return up.conv(functional.interpolate(x, scale_factor=2, mode=mode, align_corners=False))
