"""A small encoder that learns from scratch: feature maps at strides 4 to 32."""

from torch import nn
from torch.nn import functional as F

from nets.layout import MAPS, Layout


class ConvBlock(nn.Sequential):
    """3 x 3 convolution, batch normalisation, ReLU. (B, in, H, W) → (B, out, H / stride, W / stride)."""

    def __init__(self, channels_in, channels_out, stride=1):
        convolution = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut. (B, in, H, W) → (B, out, H / stride, W / stride)."""

    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__()
        self.first = ConvBlock(channels_in, channels_out, stride)
        self.second = nn.Sequential(nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False), nn.BatchNorm2d(channels_out))
        same = stride == 1 and channels_in == channels_out
        self.shortcut = nn.Identity() if same else nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))

    def forward(self, x):
        return F.relu(self.shortcut(x) + self.second(self.first(x)), inplace=True)


class SmallEncoder(nn.Module):
    """
    0.7 million weights, trained from scratch in minutes. (B, in_channels, H, W) → maps at strides 4, 8, 16 and 32; sides multiples of 32.

    The first step turns squares of 2 x 2 pixels into channels: nothing of small objects is lost, and it costs a fraction of a convolution
    at full resolution.
    """

    channels = (32, 64, 96, 128)
    layout = Layout(MAPS, channels, (4, 8, 16, 32), made_by="encoder small")

    def __init__(self, in_channels):
        super().__init__()
        self.stem = ConvBlock(4 * in_channels, 24)
        widths = (24, *self.channels)
        self.stages = nn.ModuleList(ResidualBlock(i, o, stride=2) for i, o in zip(widths, self.channels, strict=False))

    def forward(self, x):
        x = self.stem(F.pixel_unshuffle(x, 2))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
