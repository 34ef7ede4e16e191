"""A network that finds damage in a picture and repairs it: see `RestorerSpec`."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from unetctl.networks.layers import _CONV, ConvUnit, Down, Up, crop, he_init, pad
from unetctl.networks.network import Answer, Network, TileFrame
from unetctl.networks.spec import AxisTrace, Interval, RestorerSpec
from unetctl.networks.surroundings import continued, unveiled

#: Of the pixels of a picture from 0 to 1, about.
_DEVIATION = 0.25


#: Between black and white in pictures of 8 bits: the least that two pixels differ by.
_STEPS = 255.0

#: Of an untrained head's answers: near nothing, yet what lies before it learns from the first step.
_HEAD_DEVIATION = 0.1


class SubBlock(nn.Module):
    """``x + conv(relu(norm(conv(x))))``. The second convolution begins small: an untrained one changes little.

    So features keep about their size through many sub-blocks, with a norm or without. At 0 (Zhang et al. 2019, "Fixup") the
    first convolution would learn nothing until the second has learnt: it costs hundreds of steps.
    """

    def __init__(self, spec: RestorerSpec, width: int) -> None:
        super().__init__()
        self.radius, self.padding = spec.kernel // 2, spec.padding
        self.inner = ConvUnit(width, width, spec.kernel, spec.norm, spec.dims)
        self.outer = _CONV[spec.dims](width, width, spec.kernel)

    def forward(self, x: Tensor, steps: Sequence[Sequence[Interval]]) -> Tensor:
        """(N, C, *steps[0]) to (N, C, *steps[2]); intervals before, between and after the two convolutions."""
        inside = self.inner(_padded(x, steps[0], steps[1], self.radius, self.padding))
        outside = self.outer(_padded(inside, steps[1], steps[2], self.radius, self.padding))
        changed: Tensor = crop(x, steps[0], steps[2]) + outside
        return changed


class FirstSubBlock(nn.Module):
    """``stem(x) + conv(differences(x))``: the first sub-block of the encoder where its first half is fixed.

    `differences` are what a pixel differs by from the next one along each axis, and from the mean of its neighbours, signed
    and on a logarithmic scale: 0.35 for one of 255 steps, 2.8 from black to white. What tells an overlay from a picture is
    small: under a solid one the noise is exactly 0, a translucent one of opacity a leaves 1 - a of it, a constant step of a
    logarithm. Detectors of manipulated pictures begin with fixed high-pass filters for that reason (Zhou et al. 2018,
    "Learning Rich Features for Image Manipulation Detection", section 3.2).
    """

    def __init__(self, spec: RestorerSpec) -> None:
        super().__init__()
        self.radius, self.padding, self.dims = spec.kernel // 2, spec.padding, spec.dims
        self.outer = _CONV[spec.dims]((spec.dims + 1) * spec.in_channels, spec.widths[0], spec.kernel)

    def forward(self, x: Tensor, picture: Tensor, steps: Sequence[Sequence[Interval]]) -> Tensor:
        """(N, C', *steps[0]) of the stem and the picture (N, C, *steps[0]) to (N, C', *steps[2])."""
        wide = _padded(picture, steps[0], steps[1], self.radius, self.padding)
        inside = self.differences(wide).to(self.outer.weight.dtype)
        inside = _padded(inside, steps[1], steps[2], self.radius, self.padding)
        changed: Tensor = crop(x, steps[0], steps[2]) + self.outer(inside)
        return changed

    def differences(self, picture: Tensor) -> Tensor:
        """(N, C, *space), black 0 and white 1, to (N, (dims + 1) * C, *space less the radius at each side)."""

        def moved(axis: int, by: int) -> Tensor:
            part = picture
            for k in range(self.dims):
                by_k = self.radius + (by if k == axis else 0)
                part = part.narrow(2 + k, by_k, picture.shape[2 + k] - 2 * self.radius)
            return part

        here, after = moved(0, 0), [moved(axis, 1) for axis in range(self.dims)]
        around = torch.stack(after + [moved(axis, -1) for axis in range(self.dims)]).mean(0)
        steps = _STEPS * torch.cat([other - here for other in (*after, around)], 1)
        return 0.5 * steps.sign() * steps.abs().log1p()


class Level(nn.Module):
    """The sub-blocks of one level of one path."""

    def __init__(self, spec: RestorerSpec, width: int, num_blocks: int | None = None) -> None:
        super().__init__()
        num_blocks = spec.sub_blocks if num_blocks is None else num_blocks
        self.sub_blocks = nn.ModuleList(SubBlock(spec, width) for _ in range(num_blocks))

    def forward(self, x: Tensor, steps: Sequence[Sequence[Interval]]) -> Tensor:
        """(N, C, *steps[0]) to (N, C, *steps[-1]); two steps a sub-block, which begin with the first."""
        for k, block in enumerate(self.sub_blocks):
            x = block(x, steps[2 * k : 2 * k + 3])
        return x


class Narrow(nn.Module):
    """Halves the resolution and goes to the next level's width."""

    def __init__(self, channels_in: int, channels_out: int, kind: str, dims: int) -> None:
        super().__init__()
        self.down = Down(channels_in, channels_out, kind, dims)
        self.mix: nn.Module = nn.Identity() if kind == "strided" else _CONV[dims](channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *space), even sizes, to (N, C', *space / 2)."""
        mixed: Tensor = self.mix(self.down(x))
        return mixed


class Decoder(nn.Module):
    """An expanding path.

    What comes up and what the encoder has kept are joined by a 1x1 convolution of both; it is computed as the sum of two, one
    of them at the coarse resolution, which is the same and cheaper.
    """

    def __init__(self, spec: RestorerSpec, widths: Sequence[int]) -> None:
        super().__init__()
        d, below = spec.dims, (*widths[1:], spec.widths[-1])
        self.ups = nn.ModuleList(Up(n, w, spec.up, d) for n, w in zip(below, widths, strict=True))
        self.joins = nn.ModuleList(_CONV[d](n, w, 1, bias=False) for n, w in zip(spec.widths[:-1], widths, strict=True))
        self.levels = nn.ModuleList(Level(spec, w) for w in widths)

    def forward(self, x: Tensor, skips: Sequence[Tensor], traces: Sequence[AxisTrace]) -> Tensor:
        """(N, C, *bottom) and the encoder's features per level to (N, C', *core)."""
        for level in reversed(range(len(self.levels))):
            want = [t.expanding[level].first for t in traces]
            x = self.ups[level](x, [t.lifted[level] for t in traces], want)
            x = x + self.joins[level](crop(skips[level], [t.contracting[level].last for t in traces], want))
            x = self.levels[level](x, _steps([t.expanding[level].steps for t in traces]))
        return x


class Restorer(Network):
    """Answers where the damage is, and what was there.

    The picture's decoder ends in a gain g (one, for all colours) and an offset o a channel: the prediction is
    ``x + g * x + o``. What lies over a picture with opacity a and colour c left ``(1 - a) * x + a * c``: to undo it takes
    a gain and an offset that are constant as far as it reaches, and keeps every detail; under what is opaque the gain becomes
    -1 and the offset is the picture. Untrained, the network predicts about its input.

    With `fill_scales` what lies around the damage that the mask's decoder finds is continued into it (see `surroundings`), and
    the prediction is ``x + g * x + max(-g, 0) * s + o``: what is taken from the picture is given by its surroundings s. How to
    continue colours into a hole need not be learnt then, only where, and what else is there. With `unveil` s is, to a share
    that the decoder says of each pixel, what shines through the damage as it was (see `surroundings.unveiled`).

    `Answer.image` is the prediction where damage is more likely than not (logit above 0), else the input as it is;
    `Answer.prediction` is the prediction everywhere, for losses and for other thresholds.
    """

    spec: RestorerSpec

    def __init__(self, spec: RestorerSpec) -> None:
        super().__init__()
        self.spec = spec
        w, d = spec.widths, spec.dims
        self.stem = _CONV[d](spec.in_channels, w[0], 1)
        self.first = FirstSubBlock(spec) if spec.differences else None
        num_fixed = int(spec.differences)
        self.contracting = nn.ModuleList(
            Level(spec, width, spec.sub_blocks - num_fixed * (level == 0)) for level, width in enumerate(w)
        )
        self.downs = nn.ModuleList(Narrow(a, b, spec.down, d) for a, b in pairwise(w))
        self.mask_decoder = Decoder(spec, spec.mask_widths)
        self.picture_decoder = Decoder(spec, w[:-1])
        self.mask_head = _CONV[d](spec.mask_widths[0] if spec.depth else w[0], 1, 1)
        self.picture_head = _CONV[d](w[0], 1 + spec.in_channels + spec.unveil, 1)
        he_init(self)
        self._keep_sizes()

    def answers(self, x: Tensor, frame: TileFrame | None = None) -> tuple[Answer, ...]:
        """One answer, of the core; see `Network.answers` and the class."""
        spec, size = self.spec, tuple(x.shape[2:])
        frame = frame or TileFrame.of_whole(spec, size)
        wide = [spec.widened(n, c, e) for n, c, e in zip(size, frame.core, frame.ends, strict=True)]
        traces = [spec.levels.tile_trace(n, c, e) for n, c, e in zip(size, wide, frame.ends, strict=True)]
        have = [(-c[0], n - c[0]) for n, c in zip(size, wide, strict=True)]
        whole = [(0, c[1] - c[0]) for c in wide]
        core = [(c[0] - w[0], c[1] - w[0]) for c, w in zip(frame.core, wide, strict=True)]
        image = crop(x, have, whole)
        seen = crop(x, have, [t.contracting[0].first for t in traces])
        features: Tensor = self.stem(seen.to(self.stem.weight.dtype))
        skips: list[Tensor] = []
        for level in range(spec.depth + 1):
            steps = _steps([t.contracting[level].steps for t in traces])
            if level == 0 and self.first is not None:
                features, steps = self.first(features, seen, steps), steps[2:]
            features = self.contracting[level](features, steps)
            if level == spec.depth:
                break
            skips.append(features)
            coarse = [t.contracting[level + 1].first for t in traces]
            features = self.downs[level](
                crop(features, [t.contracting[level].last for t in traces], [(2 * a, 2 * b) for a, b in coarse])
            )
        logits = _long(self.mask_head, self.mask_decoder(features, skips, traces))
        change = _long(self.picture_head, self.picture_decoder(features, skips, traces))
        image = image.to(change.dtype)
        surroundings = crop(self._surroundings(image, logits, change), whole, core) if spec.fill_scales else None
        logits, change, image = (crop(each, whole, core) for each in (logits, change, image))
        gain = change[:, :1]
        prediction = image + gain * image + change[:, 1 : 1 + spec.in_channels]
        if surroundings is not None:
            prediction = prediction + (-gain).clamp_min(0) * surroundings
        return (Answer(logits, torch.where(logits > 0, prediction, image), prediction),)

    def _surroundings(self, image: Tensor, logits: Tensor, change: Tensor) -> Tensor:
        """What is known around the damage, continued into it. No gradient goes to the mask: it has a loss of its own."""
        pool = functional.max_pool2d if self.spec.dims == 2 else functional.max_pool3d
        probability = logits.detach().sigmoid()
        damage = pool(probability, 3, 1, 1)  # edges of overlays are no surroundings either
        filled = continued(image, (1 - 2 * damage).clamp_min(0), self.spec.fill_scales)
        if not self.spec.unveil:
            return filled
        share = change[:, -1:].sigmoid()
        return filled + share * (unveiled(image, probability, self.spec.fill_scales) - filled)

    @property
    def heads(self) -> tuple[str, ...]:
        """Of the mask and of the picture."""
        return "mask_head", "picture_head"

    @property
    def input_dtype(self) -> torch.dtype:
        """float32 beside short features: outside the damage the picture keeps all its digits."""
        dtype: torch.dtype = self.stem.weight.dtype
        return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype

    def _keep_sizes(self) -> None:
        """First weights that leave features of about deviation 1 on all paths, of pictures from 0 to 1.

        He's are for convolutions before a ReLU; those between the levels have none, and two that are added share their sum.
        """
        # as many sub-blocks lie on the way to the deepest level and back: together they add as much as is there
        share = (self.spec.sub_blocks * (2 * self.spec.depth + 1)) ** -0.5
        for module in self.modules():
            match module:
                case SubBlock():
                    with torch.no_grad():
                        module.outer.weight.mul_(share)
                case FirstSubBlock():
                    _linear(module.outer, 1.0)
                case Narrow():
                    _linear(module.mix if isinstance(module.mix, nn.Conv2d | nn.Conv3d) else module.down, 1.0)
                case Decoder():
                    for up, join in zip(module.ups, module.joins, strict=True):
                        _linear(up, 0.5)
                        _linear(join, 0.5)
        _linear(self.stem, 1 / _DEVIATION**2)
        assert self.stem.bias is not None
        with torch.no_grad():
            self.stem.bias -= 0.5 * self.stem.weight.flatten(1).sum(1)
        for head in (self.mask_head, self.picture_head):
            nn.init.normal_(head.weight, std=_HEAD_DEVIATION / head.in_channels**0.5)


def _padded(x: Tensor, have: Sequence[Interval], want: Sequence[Interval], radius: int, padding: str) -> Tensor:
    """Continued where it ends with the volume, nearer than a convolution of `radius` reaches."""
    before = [h[0] - (w[0] - radius) for h, w in zip(have, want, strict=True)]
    after = [(w[1] + radius) - h[1] for h, w in zip(have, want, strict=True)]
    return pad(x, before, after, padding)


def _linear(module: nn.Module, variance: float) -> None:
    """Gives convolutions without a ReLU behind them weights that multiply the variance of what comes in by `variance`."""
    for one in module.modules():
        if isinstance(one, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            is_up = isinstance(one, nn.ConvTranspose2d | nn.ConvTranspose3d)
            num_in = one.in_channels * (1 if is_up else one.weight[0, 0].numel())
            nn.init.normal_(one.weight, std=(variance / num_in) ** 0.5)


def _long(head: nn.Module, features: Tensor) -> Tensor:
    """A head's answer in float32, or float64 if it works in that."""
    weight = next(head.parameters())
    answer: Tensor = head(features.to(weight.dtype))
    return answer.float() if answer.dtype != torch.float64 else answer


def _steps(per_axis: Sequence[Sequence[Interval]]) -> list[list[Interval]]:
    """From one list of steps an axis to one list of axes a step."""
    return [list(axes) for axes in zip(*per_axis, strict=True)]
