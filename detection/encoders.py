"""Feature maps at strides 4 to 32 of any encoder, for any number of bands."""

from torch import nn
from torch.nn import functional as F

from nets.smp_network import build_encoder, load_encoder_weights
from runtime.errors import UserError

SMALL = "small"


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


class LibraryEncoder(nn.Module):
    """An encoder of segmentation-models-pytorch (`resnet50`, `efficientnet-b0`, `tu-<timm name>` …) as maps at strides 4, 8, 16 and 32."""

    def __init__(self, name, in_channels):
        super().__init__()
        self.encoder = build_encoder(name, in_channels)
        self.channels = tuple(self.encoder.out_channels[-4:])
        if not all(self.channels):
            raise UserError(f"encoder {name} has no feature maps at strides 4 to 32; pass another --encoder, such as resnet50")

    def forward(self, x):
        return self.encoder(x)[-4:]


def make_encoder(name, in_channels):
    """A module with `.channels`, whose forward gives four maps."""
    return SmallEncoder(in_channels) if name == SMALL else LibraryEncoder(name, in_channels)


def load_pretrained(encoder, name, weights, bands):
    """Fill a LibraryEncoder. weights: "imagenet" or a file (nets/smp_network.py)."""
    if isinstance(encoder, SmallEncoder):
        raise UserError(f"the encoder {SMALL!r} has no pretrained weights; pass --encoder-weights none, or another --encoder")
    load_encoder_weights(encoder, name, weights, bands)


class Neck(nn.Module):
    """Maps at strides 4 to 32, added from coarse to fine → one map (B, width, H / 4, W / 4)."""

    def __init__(self, channels, width):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in channels)
        self.norm = nn.ModuleList(nn.BatchNorm2d(width) for _ in channels)
        self.out = ConvBlock(width, width)

    def forward(self, maps):
        x = None
        for feature, lateral, norm in reversed(list(zip(maps, self.lateral, self.norm, strict=True))):
            y = lateral(feature)
            x = F.relu(norm(y if x is None else y + F.interpolate(x, size=y.shape[-2:], mode="nearest")), inplace=True)
        return self.out(x)


def freeze(module, frozen):
    """Stop (or allow) the training of a part: its weights, and the running statistics of its batch normalisation."""
    for parameter in module.parameters():
        parameter.requires_grad_(not frozen)
    if frozen:
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()


def padded(x, stride=32):
    """(B, C, H, W) continued by zeros to multiples of stride at the right and bottom."""
    height, width = x.shape[-2:]
    bottom, right = -height % stride, -width % stride
    return F.pad(x, (0, right, 0, bottom)) if bottom or right else x


def count_weights(model):
    return sum(parameter.numel() for parameter in model.parameters())

