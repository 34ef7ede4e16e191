"""U-Nets as others write them, to be imported: zero padding or none, skips first or last, other orders of layers."""

import torch
from torch import Tensor, nn


class DoubleConv(nn.Module):
    """Two convolutions as a Sequential, with or without padding and batch norm."""

    def __init__(self, channels_in: int, channels_out: int, padding: int = 1, with_norm: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before in (channels_in, channels_out):
            layers.append(nn.Conv2d(before, channels_out, 3, padding=padding, bias=not with_norm))
            layers += [nn.BatchNorm2d(channels_out)] if with_norm else []
            layers.append(nn.ReLU(inplace=True))
        self.double_conv = nn.Sequential(*layers)

    def forward(self, x):
        return self.double_conv(x)


class Down(nn.Module):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(channels_in, channels_out))

    def forward(self, x):
        return self.maxpool_conv(x)


class Up(nn.Module):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels_in, channels_out, 2, stride=2)
        self.conv = DoubleConv(2 * channels_out, channels_out)

    def forward(self, x, skip):
        return self.conv(torch.cat([skip, self.up(x)], 1))


class OutConv(nn.Module):
    def __init__(self, channels_in: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, num_classes, 1)

    def forward(self, x):
        return self.conv(x)


class Padded(nn.Module):
    """inc, down1, down2, up1, up2, outc: convolutions that pad with zeros, batch norm, skips first."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.inc = DoubleConv(1, width)
        self.down1, self.down2 = Down(width, 2 * width), Down(2 * width, 4 * width)
        self.up1, self.up2 = Up(4 * width, 2 * width), Up(2 * width, width)
        self.outc = OutConv(width, 1)

    def forward(self, x):
        first = self.inc(x)
        second = self.down1(first)
        return self.outc(self.up2(self.up1(self.down2(second), second), first))


class Cropped(nn.Module):
    """As the paper draws it: nothing padded, copy and crop; here skips come last and layers of a kind together."""

    def __init__(self, width: int = 4, depth: int = 2) -> None:
        super().__init__()
        w = [width * 2**level for level in range(depth + 1)]
        self.encoders = nn.ModuleList(
            DoubleConv(1 if level == 0 else w[level - 1], w[level], 0, with_norm=False) for level in range(depth + 1)
        )
        self.lifts = nn.ModuleList(nn.ConvTranspose2d(w[lv + 1], w[lv], 2, 2) for lv in reversed(range(depth)))
        self.decoders = nn.ModuleList(DoubleConv(2 * w[lv], w[lv], 0, with_norm=False) for lv in reversed(range(depth)))
        self.last = nn.Conv2d(width, 1, 1)

    def forward(self, x):
        skips: list[Tensor] = []
        for encoder in self.encoders:
            x = encoder(x if not skips else nn.functional.max_pool2d(x, 2))
            skips.append(x)
        skips.pop()
        for lift, decoder in zip(self.lifts, self.decoders, strict=True):
            x, skip = lift(x), skips.pop()
            cut = (skip.shape[-1] - x.shape[-1]) // 2
            x = decoder(torch.cat([x, skip[..., cut : cut + x.shape[-2], cut : cut + x.shape[-1]]], 1))
        return self.last(x)


class Block(nn.Module):
    """conv1, conv2, bn1, bn2: convolutions with biases before batch norms, listed by kind."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3)
        self.bn1, self.bn2 = nn.BatchNorm2d(channels_out), nn.BatchNorm2d(channels_out)

    def forward(self, x):
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class Biased(nn.Module):
    """A network of depth 1 of such blocks, nothing padded."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.mid = Block(1, 4), Block(4, 8)
        self.up, self.dec = nn.ConvTranspose2d(8, 4, 2, 2), Block(8, 4)
        self.out = nn.Conv2d(4, 1, 1)

    def forward(self, x):
        skip = self.enc(x)
        x = self.up(self.mid(nn.functional.max_pool2d(skip, 2)))
        cut = (skip.shape[-1] - x.shape[-1]) // 2
        return self.out(self.dec(torch.cat([skip[..., cut : cut + x.shape[-2], cut : cut + x.shape[-1]], x], 1)))


def trained(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in eval mode with statistics and biases that are not those of the beginning."""
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2, generator=chance)
            elif value.is_floating_point():
                spread = 0.2 if value.ndim == 1 else float(value[0].numel()) ** -0.5
                value.normal_(1.0 if name.endswith("weight") and value.ndim == 1 else 0.0, spread, generator=chance)
    return network.eval()
