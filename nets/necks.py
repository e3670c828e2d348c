"""
Necks: what stands between encoder and decoder. Each takes a list of tensors and gives another.

    neck = NECKS["pyramid"](layout, learned=True)
    neck.layout                    # Layout of what it gives
    neck(features, grid)           # grid: (rows, columns) of the encoder's last level

To add one: a class like Select, and a line in NECKS. `layout` says what comes in; what cannot be taken is a Misfit.
"""

import dataclasses

from torch import nn
from torch.nn import functional as F

from nets.layout import MAPS, TOKENS, VECTORS, Layout, Misfit


class Select(nn.Module):
    """The levels of these indices, from 0, or from -1 for the last."""

    def __init__(self, layout, *, indices):
        super().__init__()
        self.indices = (indices,) if isinstance(indices, int) else tuple(indices)
        levels = [layout.level(index) for index in self.indices]
        self.layout = dataclasses.replace(layout, channels=tuple(c for c, _ in levels), strides=tuple(s for _, s in levels),
                                          made_by="neck select")

    def forward(self, features, grid):
        return [features[index] for index in self.indices]


class TokensToMaps(nn.Module):
    """(B, class tokens + h · w, C) → (B, C, h, w) for each level; class tokens are left out."""

    def __init__(self, layout):
        super().__init__()
        layout.require(TOKENS)
        self.class_tokens = layout.class_tokens
        self.layout = dataclasses.replace(layout, form=MAPS, class_tokens=0, made_by="neck tokens-to-maps")

    def forward(self, features, grid):
        return [tokens[:, self.class_tokens :].transpose(1, 2).unflatten(2, grid) for tokens in features]


class Pyramid(nn.Module):
    """
    Levels of one stride → levels whose strides double from one to the next: the first is `finest` times as fine as it came.

    learned: enlarged by transposed convolutions, which halve the channels with each doubling, and shrunk by pooling; otherwise
    interpolated, without weights. levels: how many are made of a single one. finest: a power of 2; by default the last level but one
    keeps its stride, as in (4, 2, 1, ½) for four.
    """

    def __init__(self, layout, *, learned=False, levels=4, finest=None):
        super().__init__()
        layout.require(MAPS)
        layout.require_one_stride()
        self.count = len(layout.channels) if len(layout.channels) > 1 else levels
        if not isinstance(self.count, int) or self.count < 2:
            raise ValueError(f"a pyramid has at least 2 levels, got levels={levels}")
        finest = 2 ** (self.count - 2) if finest is None else finest
        if finest not in (1, 2, 4, 8, 16):
            raise ValueError("expected finest of 1, 2, 4, 8 or 16")
        self.factors = [finest / 2**level for level in range(self.count)]
        self.repeats = len(layout.channels) == 1
        channels = list(layout.channels) * (self.count if self.repeats else 1)
        self.learned = nn.ModuleList(enlarging(c, factor) for c, factor in zip(channels, self.factors, strict=True)) if learned else None
        if learned:
            channels = [max(1, int(c / max(1, factor))) for c, factor in zip(channels, self.factors, strict=True)]
        self.layout = Layout(MAPS, tuple(channels), tuple(layout.strides[0] / factor for factor in self.factors), made_by="neck pyramid")

    def forward(self, features, grid):
        features = features * self.count if self.repeats else features
        maps = []
        for level, (x, factor) in enumerate(zip(features, self.factors, strict=True)):
            if factor < 1:
                size = [max(1, int(side * factor)) for side in x.shape[-2:]]
                x = F.adaptive_max_pool2d(x, size) if any(side % round(1 / factor) for side in x.shape[-2:]) else F.max_pool2d(
                    x, round(1 / factor))
            elif self.learned is not None:
                x = self.learned[level](x)
            elif factor > 1:
                x = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
            maps.append(x)
        return maps


def enlarging(channels, factor):
    """Transposed convolutions that enlarge by a power of 2; nothing for other factors."""
    steps, inner = [], channels
    while factor > 1:
        outer = max(1, inner // 2)
        steps += [nn.ConvTranspose2d(inner, outer, 2, 2), ChannelNorm(outer), nn.GELU()]
        inner, factor = outer, factor / 2
    return nn.Sequential(*steps[:-2] if len(steps) > 3 else steps[:1])  # the last one's output goes into the decoder as it is


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (B, C, h, w)."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FeaturePyramid(nn.Module):
    """Maps from fine to coarse → as many, of `channels` each: coarse ones are added to the finer ones (FPN)."""

    def __init__(self, layout, *, channels=256):
        super().__init__()
        layout.require(MAPS)
        if sorted(layout.strides) != list(layout.strides):
            raise Misfit("needs levels from fine to coarse", layout, "put --neck pyramid or select in front")
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in layout.channels)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in layout.channels)
        self.layout = dataclasses.replace(layout, channels=(channels,) * len(layout.channels), made_by="neck feature-pyramid")

    def forward(self, features, grid):
        maps = [lateral(x) for lateral, x in zip(self.lateral, features, strict=True)]
        for level in range(len(maps) - 2, -1, -1):
            maps[level] = maps[level] + F.interpolate(maps[level + 1], size=maps[level].shape[-2:], mode="nearest")
        return [smooth(x) for smooth, x in zip(self.smooth, maps, strict=True)]


class Pool(nn.Module):
    """One level as a vector (B, C): the mean or the maximum over its positions, or how="class", the first class token."""

    def __init__(self, layout, *, how="mean", index=-1):
        super().__init__()
        if layout.form == VECTORS:
            layout.require(MAPS, "leave it out")
        if how not in ("mean", "max", "class"):
            raise ValueError(f"expected how=mean, max or class, got {how!r}")
        if how == "class" and not layout.class_tokens:
            raise Misfit("with how=class needs class tokens", layout, "take how=mean")
        self.how, self.index, self.class_tokens = how, index, layout.class_tokens
        channels, _ = layout.level(index)
        self.layout = Layout(VECTORS, (channels,), (0,), made_by="neck pool")

    def forward(self, features, grid):
        x = features[self.index]
        if self.how == "class":
            return [x[:, 0]]
        return [positions_of(x, self.class_tokens).mean(dim=1) if self.how == "mean" else positions_of(x, self.class_tokens).amax(dim=1)]


def positions_of(x, class_tokens=0):
    """Maps or tokens as (B, positions, C); class tokens are left out."""
    return x.flatten(2).transpose(1, 2) if x.ndim == 4 else x[:, class_tokens:]


NECKS = {
    "select": Select,
    "tokens-to-maps": TokensToMaps,
    "pyramid": Pyramid,
    "feature-pyramid": FeaturePyramid,
    "pool": Pool,
}


def run_necks(necks, features, grid):
    for neck in necks:
        features = neck(features, grid)
    return features
