"""A compact U-Net for small data sets: four resolutions, 0.5 million weights, no pretrained encoder."""

import torch
from torch import nn
from torch.nn import functional as F


def two_convolutions(channels_in, channels_out):
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class SmallUNet(nn.Module):
    """x: (B, in_channels, H, W), H and W multiples of `stride` → logits (B, classes, H, W)."""

    stride = 8

    def __init__(self, in_channels, classes, width=16):
        super().__init__()
        widths = [width, width * 2, width * 4, width * 8]
        self.down = nn.ModuleList(two_convolutions(i, o) for i, o in zip([in_channels, *widths], widths, strict=False))
        self.up = nn.ModuleList(two_convolutions(low + high, high) for low, high in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        skips = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], dim=1))
        return self.head(x)
