"""Feature maps at strides 4 to 32 of any encoder, for any number of bands."""

from torch import nn
from torch.nn import functional as F

from nets.encoder_weights import fill_encoder
from nets.encoders import build_encoder as build_published
from nets.layout import TOKENS
from nets.lora import has_lora, is_adapter
from nets.necks import Pyramid, TokensToMaps, run_necks
from nets.small_encoder import ConvBlock, SmallEncoder
from nets.smp_network import build_encoder, load_encoder_weights
from runtime.errors import UserError

SMALL = "small"


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


STRIDES = (4, 8, 16, 32)


class PublishedEncoder(nn.Module):
    """One of nets/foundation.py as maps at strides 4, 8, 16 and 32: tokens of a transformer become a pyramid, or its last four maps."""

    def __init__(self, name, bands, arguments=None):
        super().__init__()
        self.encoder, self.necks = build_published(name, bands, arguments), nn.ModuleList()
        layout = self.encoder.layout
        if layout.form == TOKENS:
            self.necks.append(TokensToMaps(layout))
            self.necks.append(Pyramid(self.necks[0].layout))
            layout = self.necks[-1].layout
        if tuple(layout.strides[-4:]) != STRIDES:
            strides = ", ".join(f"{stride:g}" for stride in layout.strides)
            remedy = "pass four layers=" if "layers" in (arguments or {}) else "pass another --encoder, such as prithvi:eo-v2-300"
            raise UserError(f"encoder {name} has maps at strides {strides}, and detectors need 4 to 32; {remedy}")
        self.channels = tuple(layout.channels[-4:])

    @property
    def told(self):
        return self.encoder.told

    def forward(self, x):
        multiple = self.encoder.multiple
        return run_necks(self.necks, self.encoder(x), (x.shape[-2] // multiple, x.shape[-1] // multiple))[-4:]


def make_encoder(name, in_channels, bands=None, arguments=None):
    """
    A module with `.channels`, whose forward gives four maps. bands: names, for published encoders, which know them by name. arguments: of
    --encoder-args, for published ones too. UserError where they are not read.
    """
    if ":" in name:
        return PublishedEncoder(name, bands or tuple(f"band_{i + 1}" for i in range(in_channels)), arguments)
    for word in arguments or ():
        raise UserError(f"encoder {name} of a detector does not read the argument {word!r}; it takes none. Those of published encoders do, "
                        "such as prithvi:eo-v2-300")
    return SmallEncoder(in_channels) if name == SMALL else LibraryEncoder(name, in_channels)


def load_pretrained(encoder, name, weights, bands):
    """Fill an encoder of make_encoder. weights: "imagenet" or a file (nets/smp_network.py)."""
    if isinstance(encoder, PublishedEncoder):
        fill_encoder(encoder.encoder, name, weights, bands)
        return
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
    """Stop (or allow) the training of a part: its weights (of adapters alone, where it has any), and statistics of batch normalisation."""
    adapted = has_lora(module)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(not frozen and (not adapted or is_adapter(name)))
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

