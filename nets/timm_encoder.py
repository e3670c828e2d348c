"""Any network of timm as an encoder, for any number of bands and, where it can, for any size of image."""

import dataclasses
import inspect
import math

import torch
from torch import nn

from nets.layout import MAPS, TOKENS, Layout
from runtime.errors import UserError, did_you_mean

TIMM = "tu-"  # before timm's names, as in segmentation-models-pytorch
# What create_model of timm takes beside arguments of a network: weights come by --encoder-weights alone, and nothing is fetched unasked.
NOT_OF_A_NETWORK = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "num_classes", "in_chans",
                    "features_only", "scriptable", "exportable", "no_jit", "feature_cls", "out_indices")
USUAL_LEVELS = 4  # of a network of equal blocks, such as a vision transformer


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


def unread_blocks(layers, depth):
    """Beginnings of the weights of a transformer's blocks behind the last of `layers`, and of the norm at its end, which then goes too."""
    last = max(layers)
    return (*(f"blocks.{index}." for index in range(last + 1, depth)), *(("norm.",) if last < depth - 1 else ()))


def prefixes_of_classifier(model):
    """What names of weights begin with that only a classifier has."""
    named = model.pretrained_cfg.get("classifier") or ()
    return tuple(f"{name}." for name in ((named,) if isinstance(named, str) else named)) + ("head.", "head_dist.", "fc.", "classifier.")
