"""A compact U-Net for a handful of scenes: half resolution, and every input once more as its difference to the window's mean."""

import torch
from torch import nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, with whole channels dropped in between. (B, in, H, W) → (B, out, H, W)."""

    def __init__(self, channels_in, channels_out, dropout):
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels_out)
        self.dropout = nn.Dropout2d(dropout)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Identity() if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1, bias=False)

    def forward(self, x):
        inner = self.dropout(F.relu(self.first_norm(self.first(x))))
        return F.relu(self.shortcut(x) + self.second_norm(self.second(inner)))


class ContrastUNet(nn.Module):
    """
    x: (B, in_channels, H, W), H and W multiples of `stride` → logits (B, classes, H, W). 0.26 million weights.

    A scar is what looks different from the land around it, and which land that is differs from scene to scene. So the network sees each
    input twice: as it is, and minus its mean over the window. The answer therefore depends on the window: predict with windows of the
    size of the training patches, overlapping. Pixels whose inputs are all 0 hold no data and do not count for the mean.

    It works on squares of 2 x 2 pixels (their values become channels), which costs a quarter. Outlines of labels are no finer than that.
    """

    stride = 16  # 2 for the squares of pixels, 8 for three halvings

    def __init__(self, in_channels, classes, widths=(24, 32, 48, 64), dropout=0.1):
        super().__init__()
        self.scale = nn.BatchNorm2d(in_channels, affine=False)  # spectral indices come as they are: a few hundredths around 0.1, say
        self.stem = nn.Conv2d(2 * in_channels * 4, widths[0], 1)
        self.down = nn.ModuleList(ResidualBlock(i, o, dropout) for i, o in zip((widths[0], *widths), widths, strict=False))
        self.up = nn.ModuleList(ResidualBlock(low + high, high, dropout) for low, high in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x):
        has_data = (x != 0).any(dim=1, keepdim=True)  # (B, 1, H, W)
        x = self.scale(x)
        mean = (x * has_data).sum(dim=(2, 3), keepdim=True) / has_data.sum(dim=(2, 3), keepdim=True).clamp(min=1)
        x = torch.cat([x, (x - mean) * has_data], dim=1)
        x = self.stem(F.pixel_unshuffle(x, 2))
        skips = []
        for level, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if level else x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False), skip], dim=1))
        return F.interpolate(self.head(x), scale_factor=2.0, mode="bilinear", align_corners=False)
