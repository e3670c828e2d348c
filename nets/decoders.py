"""
Decoders: levels of features → one tensor that a head reads.

    decoder = DECODERS["unet"](layout, channels=(256, 128, 64, 32))
    decoder.layout                 # Layout of the one level that it gives
    decoder(features)              # (B, C, h, w); tokens and vectors of an identity decoder

To add one: a class like FCN, and a line in DECODERS. `layout` says what comes in; what cannot be taken is a Misfit. A decoder that
answers by itself, without a head, has `outputs` as its second argument and includes_head = True.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from nets.layout import MAPS, Layout, Misfit
from nets.necks import ChannelNorm


def conv_norm_relu(channels_in, channels_out, kernel=3, **settings):
    """Convolution, batch normalisation, ReLU; the size stays."""
    padding = settings.get("dilation", 1) * (kernel // 2)
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, kernel, padding=padding, bias=False, **settings),
                         nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))


def resized(x, size):
    """(B, C, h, w) → (B, C, *size), bilinear."""
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def require_fine_to_coarse(layout):
    """Misfit where two levels have the same stride, or a later one is finer."""
    if any(fine >= coarse for fine, coarse in zip(layout.strides, layout.strides[1:], strict=False)):
        raise Misfit("needs levels from fine to coarse", layout, "add --neck pyramid")


class FCN(nn.Module):
    """One level, doubled in size by each block: transposed convolution, 3 x 3 convolution, normalisation. num_convs: blocks, 4 at most."""

    def __init__(self, layout, *, channels=256, num_convs=None, index=-1):
        super().__init__()
        layout.require(MAPS)
        inner, stride = layout.level(index)
        most = int(math.log2(stride)) if stride >= 1 else 0
        blocks = min(4, most) if num_convs is None else num_convs
        if not 0 <= blocks <= most:
            raise ValueError(f"level {index} has stride {stride:g}: num_convs can be 0 to {most}")
        self.index, steps = index, []
        for _ in range(blocks):
            steps += [nn.ConvTranspose2d(inner, channels, 2, 2), nn.Conv2d(channels, channels, 3, padding=1), ChannelNorm(channels),
                      nn.GELU()]
            inner = channels
        self.blocks = nn.Sequential(*steps)
        self.layout = Layout(MAPS, (inner,), (stride / 2**blocks,), made_by="decoder fcn")

    def forward(self, features):
        return self.blocks(features[self.index])


class UNet(nn.Module):
    """The coarsest level, enlarged and joined with the next finer one, and so on. channels: one number a level, of the coarsest first."""

    def __init__(self, layout, *, channels=None):
        super().__init__()
        layout.require(MAPS)
        require_fine_to_coarse(layout)
        count = len(layout.channels)
        channels = tuple(max(32, 256 >> level) for level in range(count)) if channels is None else channels
        channels = (channels,) * count if isinstance(channels, int) else tuple(channels)
        if len(channels) != count:
            raise Misfit(f"with channels of {len(channels)} numbers needs as many levels", layout)
        coming = layout.channels[::-1]
        joined = [coming[0], *(c + inner for c, inner in zip(coming[1:], channels, strict=False))]
        self.blocks = nn.ModuleList(nn.Sequential(conv_norm_relu(i, o), conv_norm_relu(o, o))
                                    for i, o in zip(joined, channels, strict=True))
        self.layout = Layout(MAPS, channels[-1:], layout.strides[:1], made_by="decoder unet")

    def forward(self, features):
        x = self.blocks[0](features[-1])
        for block, finer in zip(self.blocks[1:], features[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, size=finer.shape[-2:], mode="nearest"), finer], dim=1))
        return x


class UperNet(nn.Module):
    """Pooled context of the coarsest level, added from coarse to fine, all levels joined at the finest (Xiao et al. 2018)."""

    def __init__(self, layout, *, channels=256, pool_scales=(1, 2, 3, 6)):
        super().__init__()
        layout.require(MAPS)
        require_fine_to_coarse(layout)
        *finer, coarsest = layout.channels
        self.pooled = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(s), nn.Conv2d(coarsest, channels, 1), nn.ReLU(inplace=True))
                                    for s in pool_scales)  # without batch normalisation: of one patch there is one value a channel
        self.context = conv_norm_relu(coarsest + channels * len(self.pooled), channels)
        self.lateral = nn.ModuleList(conv_norm_relu(c, channels, 1) for c in finer)
        self.smooth = nn.ModuleList(conv_norm_relu(channels, channels) for _ in finer)
        self.join = conv_norm_relu(channels * len(layout.channels), channels)
        self.layout = Layout(MAPS, (channels,), layout.strides[:1], made_by="decoder upernet")

    def forward(self, features):
        last = features[-1]
        maps = [self.context(torch.cat([last, *(resized(pool(last), last.shape[-2:]) for pool in self.pooled)], dim=1))]
        for lateral, x in zip(reversed(self.lateral), features[-2::-1], strict=True):
            maps.append(lateral(x) + resized(maps[-1], x.shape[-2:]))
        maps = [maps[0], *(smooth(x) for smooth, x in zip(reversed(self.smooth), maps[1:], strict=True))]
        return self.join(torch.cat([resized(x, maps[-1].shape[-2:]) for x in reversed(maps)], dim=1))


class ASPP(nn.Module):
    """One level, seen by convolutions of several dilations side by side and by its mean (DeepLab)."""

    def __init__(self, layout, *, channels=256, dilations=(1, 6, 12, 18), dropout=0.3, index=-1):
        super().__init__()
        layout.require(MAPS)
        inner, stride = layout.level(index)
        self.index = index
        self.branches = nn.ModuleList(conv_norm_relu(inner, channels, 1) if d == 1 else conv_norm_relu(inner, channels, dilation=d)
                                      for d in dilations)
        self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inner, channels, 1), nn.ReLU(inplace=True))
        self.join = nn.Sequential(conv_norm_relu(channels * (len(self.branches) + 1), channels), nn.Dropout(dropout))
        self.layout = Layout(MAPS, (channels,), (stride,), made_by="decoder aspp")

    def forward(self, features):
        x = features[self.index]
        return self.join(torch.cat([*(branch(x) for branch in self.branches), self.mean(x).expand(-1, -1, *x.shape[-2:])], dim=1))


class Linear(nn.Module):
    """One level, and one transposed convolution to the outputs: no head. factor: how much it enlarges; by default to the input's size."""

    includes_head = True

    def __init__(self, layout, outputs, *, factor=None, index=-1):
        super().__init__()
        layout.require(MAPS)
        inner, stride = layout.level(index)
        factor = max(1, int(stride)) if factor is None else factor
        self.index = index
        self.enlarge = nn.ConvTranspose2d(inner, outputs, factor, factor)
        self.layout = Layout(MAPS, (outputs,), (stride / factor,), made_by="decoder linear")

    def forward(self, features):
        return self.enlarge(features[self.index])


class MLP(nn.Module):
    """Every level through a linear layer, resized to the finest and joined (SegFormer)."""

    def __init__(self, layout, *, channels=256, dropout=0.1):
        super().__init__()
        layout.require(MAPS)
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in layout.channels)
        self.finest = min(range(len(layout.strides)), key=lambda level: layout.strides[level])
        self.join = nn.Sequential(conv_norm_relu(channels * len(layout.channels), channels, 1), nn.Dropout(dropout))
        self.layout = Layout(MAPS, (channels,), (layout.strides[self.finest],), made_by="decoder mlp")

    def forward(self, features):
        size = features[self.finest].shape[-2:]
        return self.join(torch.cat([resized(lateral(x), size) for lateral, x in zip(self.lateral, features, strict=True)], dim=1))


class Identity(nn.Module):
    """One level as it is: maps, tokens or a vector. For heads that answer for a whole patch."""

    def __init__(self, layout, *, index=-1):
        super().__init__()
        channels, stride = layout.level(index)
        self.index = index
        self.layout = Layout(layout.form, (channels,), (stride,), layout.class_tokens, made_by=f"{layout.made_by} and decoder identity")

    def forward(self, features):
        return features[self.index]


DECODERS = {
    "fcn": FCN,
    "unet": UNet,
    "upernet": UperNet,
    "aspp": ASPP,
    "linear": Linear,
    "mlp": MLP,
    "identity": Identity,
}
