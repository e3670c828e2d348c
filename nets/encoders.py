"""
Encoders by name, for any bands: every one of timm (`tu-…`) and of segmentation-models-pytorch, and those of the table ENCODERS.

    encoder = build_encoder("tu-vit_small_patch16_224", ("B02", "B03", "B04", "B08"), {"layers": (2, 5, 8, 11)}, image_size=(256, 256))
    encoder.layout       # Layout: tokens or maps, channels and strides of each level, class tokens
    encoder(x)           # a list of tensors of that layout; sides of x are multiples of encoder.multiple

To add one: a class with `layout` that takes the bands, and whose forward returns a list of tensors, and a line in ENCODERS.
"""

import dataclasses
import inspect
import math
import warnings

import torch
from torch import nn

from nets.layout import MAPS, TOKENS, Layout
from nets.parts import MISTAKES, described, make_part
from nets.small_encoder import SmallEncoder
from nets.smp_network import import_smp
from runtime.errors import UserError, did_you_mean, one_line

# name → function(bands, **arguments) → module with a `layout`. bands: names, so that weights can be found for each.
ENCODERS = {
    "small": lambda bands: SmallEncoder(len(bands)),
}
TIMM = "tu-"  # before timm's names, as in segmentation-models-pytorch
# What create_model of timm takes beside arguments of a network: weights come by --encoder-weights alone, and nothing is fetched unasked.
NOT_OF_A_NETWORK = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "num_classes", "in_chans",
                    "features_only", "scriptable", "exportable", "no_jit", "feature_cls", "out_indices")
USUAL_LEVELS = 4  # of a network of equal blocks, such as a vision transformer


def build_encoder(name, bands, arguments=None, image_size=None):
    """
    The encoder with random weights. image_size: (height, width) for encoders that are built for one size.

    It has a `layout`, `multiple` (its inputs' sides are multiples of it), `fixed_size` ((height, width), or None where it takes any size).
    UserError for an unknown name, with the near one, and for arguments that it does not read.
    """
    arguments = dict(arguments or {})
    if name in ENCODERS:
        encoder = make_part("encoder", ENCODERS, name, arguments, bands)
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


class TimmEncoder(nn.Module):
    """
    An encoder of timm: a convolutional network or a transformer with levels as maps (B, C, h, w), a vision transformer of equal blocks as
    tokens (B, class tokens + h · w, C), the last one normalised as before its classifier.

    layers: blocks whose output becomes a level; without it four that are evenly spaced, or all levels of a network that has them. Other
    arguments are those of the network's own class in timm.
    """

    def __init__(self, name, in_channels, image_size, *, layers=None, **args):
        super().__init__()
        require_timm_name(name)
        if refused := next((key for key in args if key in NOT_OF_A_NETWORK), None):
            raise UserError(f"encoder {TIMM}{name} does not read the argument {refused!r} of --encoder-args; leave it out")
        model, self.size_args = create_for_any_size(name, in_channels, image_size, args)
        info = model.feature_info
        self.name, self.args, self.fixed_size = name, args, fixed_size_of(model, self.size_args)
        strides = [level["reduction"] for level in info]
        equal_blocks = len(set(strides)) == 1
        self.gives_tokens = equal_blocks and hasattr(model, "num_prefix_tokens")
        self.indices = chosen_layers(layers, len(info), equal_blocks)
        # Levels of maps are few; blocks behind the last level of tokens are cut off. Weights of a file for them are left out.
        before = set(model.state_dict())
        model.prune_intermediate_layers(list(self.indices), prune_norm=not self.gives_tokens)
        self.unread = (*prefixes_of_classifier(model), *sorted(before - set(model.state_dict())))
        self.normalises = self.gives_tokens and max(self.indices) == len(info) - 1
        class_tokens = model.num_prefix_tokens if self.gives_tokens else 0
        if "return_prefix_tokens" not in inspect.signature(model.forward_intermediates).parameters:
            class_tokens = 0
        self.asked = {"output_fmt": "NLC" if self.gives_tokens else "NCHW"} | ({"return_prefix_tokens": True} if class_tokens else {})
        self.model = model
        self.layout = Layout(TOKENS if self.gives_tokens else MAPS, tuple(info[i]["num_chs"] for i in self.indices),
                             tuple(strides[i] for i in self.indices), class_tokens, made_by=f"encoder {TIMM}{name}")
        self.multiple = strides[-1] if equal_blocks else max(32, *strides)
        self.layout = seen_layout(self, in_channels)

    def forward(self, x):
        if self.fixed_size and tuple(x.shape[-2:]) != self.fixed_size:
            size, fixed = (" x ".join(map(str, sides)) for sides in (x.shape[-2:], self.fixed_size))
            raise UserError(f"encoder {TIMM}{self.name} takes images of {fixed} pixels alone, got {size}; use windows of that size")
        found = self.model.forward_intermediates(x, indices=list(self.indices), intermediates_only=True, **self.asked)
        levels = [level if not isinstance(level, tuple) else torch.cat(level[::-1], dim=1) for level in found]  # class tokens come first
        if self.normalises:
            levels[-1] = self.model.norm(levels[-1])
        return levels


def require_timm_name(name):
    import timm

    base = name.split(".")[0]
    if not timm.is_model(base):
        near = did_you_mean(f"{TIMM}{base}", [f"{TIMM}{other}" for other in timm.list_models()])
        raise UserError(f"unknown encoder '{TIMM}{name}'; expected tu-<timm name>, such as tu-convnext_tiny.{near}")


def create_for_any_size(name, in_channels, image_size, arguments, **more):
    """
    → (timm's network without classifier, the arguments that let it take images of other sizes than it was published with).

    Networks that are built for one size get image_size, rounded up to multiples of 64.
    """
    import timm

    fixed = {"img_size": tuple(-(-side // 64) * 64 for side in image_size)}
    is_fixed = timm.get_pretrained_cfg(name.split(".")[0]).fixed_input_size
    ways = [{}] if "img_size" in arguments else [{"dynamic_img_size": True}, {"strict_img_size": False}, *([fixed] if is_fixed else []), {}]
    for way in ways:
        try:
            return timm.create_model(name, num_classes=0, in_chans=in_channels, **way, **arguments, **more), way
        except TypeError as error:  # the class has no such argument, and says so before it builds anything
            if not any(f"'{key}'" in str(error) for key in way):
                raise
    raise AssertionError("the last way has no argument that could be refused")


def fixed_size_of(model, size_args):
    """(height, width) that a network of timm takes alone, or None."""
    if not model.pretrained_cfg.get("fixed_input_size") or {"dynamic_img_size", "strict_img_size"} & set(size_args):
        return None
    return tuple(size_args.get("img_size") or model.pretrained_cfg["input_size"][1:])


def seen_layout(encoder, in_channels):
    """
    The layout that an encoder of timm states, compared with what it gives for one image of zeros. Strides of maps follow from their sizes.

    ValueError where levels, channels or tokens are others than stated: timm has a few hundred networks.
    """
    stated = encoder.layout
    try:
        size, found = shapes_of(encoder, in_channels, encoder.fixed_size or (2 * encoder.multiple,) * 2)
    except RuntimeError:  # convolutions without padding need more
        size, found = shapes_of(encoder, in_channels, encoder.fixed_size or (4 * encoder.multiple,) * 2)
    if stated.form == TOKENS:
        count = stated.class_tokens + (size[0] // encoder.multiple) * (size[1] // encoder.multiple)
        wanted = [(1, count, channels) for channels in stated.channels]
    else:
        wanted = [(1, channels, *shape[2:]) for channels, shape in zip(stated.channels, found, strict=False)]
    if found != wanted:
        raise ValueError(f"it gives levels of {found}, where {wanted} were expected")
    if stated.form == TOKENS or len(set(stated.strides)) == 1:
        return stated
    strides = tuple(2 ** round(math.log2(size[0] / shape[2])) if shape[2] * stride != size[0] else stride
                    for stride, shape in zip(stated.strides, found, strict=True))
    return dataclasses.replace(stated, strides=strides)


def shapes_of(encoder, in_channels, size):
    """(size, shapes of the levels) of an image of that size."""
    was_training = encoder.training
    encoder.eval()
    with torch.no_grad():
        found = encoder(torch.zeros(1, in_channels, *size, device=next(encoder.parameters()).device))
    encoder.train(was_training)
    return size, [tuple(level.shape) for level in found]


def chosen_layers(layers, count, equal_blocks):
    """Indices of the levels, ascending. layers: whole numbers, "all", or None for the usual ones."""
    if layers == "all" or layers is None and (not equal_blocks or count <= USUAL_LEVELS):
        return tuple(range(count))
    if layers is None:
        return tuple(count * (i + 1) // USUAL_LEVELS - 1 for i in range(USUAL_LEVELS))
    layers = (layers,) if isinstance(layers, int) else tuple(layers)
    if not layers or not all(isinstance(i, int) and -count <= i < count for i in layers):
        raise ValueError(f"layers of this network are 0 to {count - 1}")
    return tuple(sorted({i % count for i in layers}))


def prefixes_of_classifier(model):
    """What names of weights begin with that only a classifier has."""
    named = model.pretrained_cfg.get("classifier") or ()
    return tuple(f"{name}." for name in ((named,) if isinstance(named, str) else named)) + ("head.", "head_dist.", "fc.", "classifier.")
