"""The decoders of segmentation-models-pytorch behind any encoder or pyramid: `smp-unet`, `smp-fpn` …"""

import dataclasses
import functools
import importlib

from torch import nn

from nets.layout import MAPS, Layout, Misfit
from nets.parts import refuse_unread
from nets.smp_network import import_smp

SMP = "smp-"


@dataclasses.dataclass(frozen=True)
class Row:
    """
    Of one decoder. path: its class; usual: arguments where the library has no default. from_levels: names of those that follow from the
    levels. width: the argument that says how many channels come out (of several numbers, the last). stride: of the output.
    """

    path: str
    width: str
    stride: int
    usual: dict
    from_levels: tuple[str, ...] = ("encoder_channels",)
    depth: int | None = None  # how many levels it takes, of strides 2, 4 …; None for all
    least: int = 3  # how many of them it needs
    doubles: bool = False  # whether it doubles the size from level to level: none may share its stride with another


ROWS = {
    "unet": Row("unet.UnetDecoder", "decoder_channels", 1, {"decoder_channels": (256, 128, 64, 32, 16)}, ("encoder_channels", "n_blocks"),
                doubles=True),
    "unetplusplus": Row("unetplusplus.UnetPlusPlusDecoder", "decoder_channels", 1, {"decoder_channels": (256, 128, 64, 32, 16)},
                        ("encoder_channels", "n_blocks"), doubles=True),
    "manet": Row("manet.MAnetDecoder", "decoder_channels", 1, {"decoder_channels": (256, 128, 64, 32, 16)},
                 ("encoder_channels", "n_blocks"), doubles=True),
    "linknet": Row("linknet.LinknetDecoder", "prefinal_channels", 1, {"prefinal_channels": 32}, ("encoder_channels", "n_blocks"),
                   doubles=True),
    "fpn": Row("fpn.FPNDecoder", "segmentation_channels", 4, {"segmentation_channels": 128}, ("encoder_channels", "encoder_depth"),
               least=4, doubles=True),
    "pspnet": Row("pspnet.PSPDecoder", "out_channels", 8, {"out_channels": 512}, depth=3),
    "pan": Row("pan.PANDecoder", "decoder_channels", 4, {"decoder_channels": 32}, ("encoder_channels", "encoder_depth")),
    "deeplabv3": Row("deeplabv3.DeepLabV3Decoder", "out_channels", 32,
                     {"out_channels": 256, "atrous_rates": (12, 24, 36), "aspp_separable": False, "aspp_dropout": 0.5}, ("in_channels",)),
    "deeplabv3plus": Row("deeplabv3.DeepLabV3PlusDecoder", "out_channels", 4,
                         {"out_channels": 256, "atrous_rates": (12, 24, 36), "aspp_separable": True, "aspp_dropout": 0.5},
                         ("encoder_channels", "encoder_depth", "output_stride")),
    "upernet": Row("upernet.UPerNetDecoder", "decoder_channels", 4, {"decoder_channels": 256}, ("encoder_channels", "encoder_depth")),
    "segformer": Row("segformer.SegformerDecoder", "segmentation_channels", 4, {"segmentation_channels": 256},
                     ("encoder_channels", "encoder_depth")),
    "dpt": Row("dpt.DPTDecoder", "fusion_channels", 2, {"fusion_channels": 256, "readout": "ignore"},
               ("encoder_out_channels", "encoder_output_strides", "encoder_has_prefix_tokens")),
}


class SmpDecoder(nn.Module):
    """One of ROWS. Levels are maps at strides (2,) 4, 8, 16 …, the last ones may share a stride (dilated); dpt takes four of any stride."""

    def __init__(self, name, layout, **args):
        super().__init__()
        row = ROWS[name]
        layout.require(MAPS)
        module, _, class_name = row.path.rpartition(".")
        import_smp()
        kind = getattr(importlib.import_module(f"segmentation_models_pytorch.decoders.{module}.decoder"), class_name)
        refuse_unread(f"decoder {SMP}{name}", functools.partial(kind, **dict.fromkeys(row.from_levels)), args, 0)
        if fixed := sorted(set(args) & set(row.from_levels)):
            raise ValueError(f"{fixed[0]} follows from the levels; leave it out")
        self.is_dpt = name == "dpt"
        if self.is_dpt:
            if len(layout.channels) != 4 or not all(s in (4, 8, 16, 32) for s in layout.strides):
                raise Misfit("needs four levels of maps at strides 4 to 32", layout, "put --neck select in front")
            self.skipped, self.missing, self.depth = 0, 0, len(layout.channels)
        else:
            self.skipped, self.missing, self.depth = positions(layout, row)
        strides = layout.strides[self.skipped :][: self.depth]
        channels = [0] * self.missing + list(layout.channels[self.skipped :][: self.depth - self.missing + 1])
        found = {"encoder_channels": channels, "n_blocks": self.depth, "encoder_depth": self.depth, "in_channels": channels[-1],
                 "encoder_out_channels": layout.channels, "encoder_output_strides": [int(s) for s in layout.strides],
                 "encoder_has_prefix_tokens": False, "output_stride": int(strides[-1])}
        if name == "deeplabv3plus" and strides[-1] not in (8, 16):
            raise Misfit("needs a last level at stride 8 or 16", layout, "pass --encoder-args output_stride=16")
        settings = {**row.usual, **args}
        if isinstance(settings.get("decoder_channels"), tuple) and "decoder_channels" not in args:
            settings["decoder_channels"] = settings["decoder_channels"][: self.depth]
        self.decoder = kind(**settings, **{key: found[key] for key in row.from_levels})
        width = settings[row.width]
        stride = {32: strides[-1], 1: layout.strides[-1] / 2**self.depth}.get(row.stride, row.stride)
        stride = 2 ** (self.depth - 3) if name == "fpn" else stride  # it joins the last four levels
        self.layout = Layout(MAPS, (width[-1] if isinstance(width, tuple | list) else width,), (stride,), made_by=f"decoder {SMP}{name}")

    def forward(self, features):
        features = list(features)[self.skipped :]
        if self.is_dpt:
            return self.decoder(features, [None] * len(features))
        finest = features[0]
        height, width = (side * 2 ** self.missing for side in finest.shape[-2:])
        empty = [finest.new_empty(len(finest), 0, height >> level, width >> level) for level in range(self.missing)]
        return self.decoder([*empty, *features[: self.depth - self.missing + 1]])


def positions(layout, row):
    """
    → (levels to leave out in front, levels to put in front that have no channels, how many levels of strides 2, 4 … there are).

    The library counts from the input itself: stride 1 is in front, and no decoder reads it. Misfit where levels are too few or their
    strides do not double.
    """
    strides = list(layout.strides)
    skipped = 1 if strides[0] == 1 else 0
    strides = strides[skipped:]
    doubling = all(later in (2 * earlier, earlier) for earlier, later in zip(strides, strides[1:], strict=False))
    if not strides or strides[0] not in (2, 4) or strides[:2] == strides[:1] * 2 or not doubling:
        raise Misfit("needs maps at strides 2 or 4, then doubling", layout, "take a decoder without smp-")
    missing = 1 if strides[0] == 2 else 2
    count = len(strides) + missing - 1
    if count < max(row.depth or 0, row.least):
        raise Misfit(f"needs levels down to stride {2 ** max(row.depth or 0, row.least)}", layout, "take a decoder without smp-")
    depth = row.depth or min(count, 5)
    if row.doubles and len(set(strides[:depth - missing + 1])) < depth - missing + 1:
        raise Misfit("needs levels whose strides double", layout, "take a decoder without smp-, or no output_stride")
    return skipped, missing, depth


SMP_DECODERS = {f"{SMP}{name}": functools.partial(SmpDecoder, name) for name in ROWS}
