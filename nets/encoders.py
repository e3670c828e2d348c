"""
Encoders by name, for any bands: every one of timm (`tu-…`) and of segmentation-models-pytorch, those of the table ENCODERS, and published
ones for satellite images (nets/foundation.py).

    encoder = build_encoder("tu-vit_small_patch16_224", ("B02", "B03", "B04", "B08"), {"layers": (2, 5, 8, 11)}, image_size=(256, 256))
    encoder.layout       # Layout: tokens or maps, channels and strides of each level, class tokens
    encoder(x)           # a list of tensors of that layout; sides of x are multiples of encoder.multiple

To add one: a class with `layout` that takes the bands, and whose forward returns a list of tensors, and a line in ENCODERS.
"""

import warnings

from torch import nn

from nets.foundation import build_foundation
from nets.layout import MAPS, Layout
from nets.parts import MISTAKES, described, make_part
from nets.small_encoder import SmallEncoder
from nets.smp_network import import_smp
from nets.timm_encoder import TIMM, TimmEncoder
from runtime.errors import UserError, did_you_mean, one_line

# name → function(bands, **arguments) → module with a `layout`. bands: names, so that weights can be found for each.
ENCODERS = {
    "small": lambda bands: SmallEncoder(len(bands)),
}


def build_encoder(name, bands, arguments=None, image_size=None):
    """
    The encoder with random weights. image_size: (height, width) for encoders that are built for one size.

    It has a `layout`, `multiple` (its inputs' sides are multiples of it), `fixed_size` ((height, width), or None where it takes any size).
    UserError for an unknown name, with the near one, and for arguments that it does not read.
    """
    arguments = dict(arguments or {})
    if name in ENCODERS:
        encoder = make_part("encoder", ENCODERS, name, arguments, bands)
    elif ":" in name:
        encoder = build_foundation(name, bands, arguments)
    elif name.startswith(TIMM):
        encoder = built(name, arguments, lambda: TimmEncoder(name.removeprefix(TIMM), len(bands), image_size or (224, 224), **arguments))
    else:
        encoder = built(name, arguments, lambda: SmpEncoder(name, len(bands), **arguments))
    return with_defaults(encoder, name)


def with_defaults(encoder, name):
    """The encoder, with what a class of a newcomer need not say. UserError where it has no layout."""
    layout = getattr(encoder, "layout", None)
    if not isinstance(layout, Layout):
        raise UserError(f"encoder {name} has no layout (nets/layout.py), which says what it gives; found {layout!r}")
    encoder.multiple = getattr(encoder, "multiple", int(max(layout.strides)))
    encoder.fixed_size = getattr(encoder, "fixed_size", None)
    return encoder


def built(name, arguments, build):
    """build(), with UserErrors in place of the libraries' errors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return build()
    except MISTAKES as error:
        text = one_line(error)
        if "unexpected keyword argument" in text:
            unread = text.split("'")[1]
            raise UserError(f"encoder {name} does not read the argument {unread!r} of --encoder-args; leave it out") from error
        raise UserError(f"encoder {name} cannot be built{described(arguments)} ({text[:120]}); pass another --encoder") from error


class SmpEncoder(nn.Module):
    """An encoder of segmentation-models-pytorch: its maps, without the input itself and levels of no channels."""

    def __init__(self, name, in_channels, *, depth=5, output_stride=32):
        super().__init__()
        smp = import_smp()
        known = smp.encoders.encoders
        if name not in known:
            import timm

            others = [f"{TIMM}{other}" for other in timm.list_models()]
            near = did_you_mean(name, [*ENCODERS, *known, *others])
            raise UserError(f"unknown encoder {name!r}; expected resnet34, efficientnet-b0, small … or tu-<timm name>.{near}")
        self.model = smp.encoders.get_encoder(name, in_channels=in_channels, depth=depth, weights=None, output_stride=output_stride)
        channels = self.model.out_channels
        self.levels = [level for level, count in enumerate(channels) if level and count]
        strides = tuple(min(2**level, output_stride) for level in self.levels)
        self.layout = Layout(MAPS, tuple(channels[level] for level in self.levels), strides, made_by=f"encoder {name}")
        self.multiple = 32  # dilated ones too: their last stages still pool

    def forward(self, x):
        features = self.model(x)
        return [features[level] for level in self.levels]
