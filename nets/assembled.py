"""
ModelConfig → model: encoder, necks, decoder and head, put together from the tables of nets/.

    model = build_model(ModelConfig(encoder="tu-convnext_tiny", decoder="upernet", outputs=2, bands=("B04", "B08", "B12")))
    output, auxiliary_heads = model(x)        # ModelOutput; x: (B, bands, H, W), any H and W

A model of any kind is an nn.Module with forward(x) → ModelOutput, freeze_encoder() and freeze_decoder().
"""

import math

from torch import nn
from torch.nn import functional as F

from nets.decoders import DECODERS
from nets.encoders import build_encoder
from nets.foundation import FoundationEncoder
from nets.freezing import freeze, rest_in_eval
from nets.heads import HEADS, USUAL_HEAD
from nets.layout import MAPS, TOKENS, Misfit
from nets.lora import add_lora
from nets.model_config import Neck, answers_pixels, answers_values
from nets.model_output import ModelOutput
from nets.necks import NECKS, run_necks
from nets.parts import make_part
from nets.smp_decoders import SMP_DECODERS
from runtime.errors import UserError

OF_ONE_STRIDE = ("fcn", "linear", "aspp", "mlp")  # decoders that do with the levels of a transformer as they are
ALL_DECODERS = DECODERS | SMP_DECODERS  # for names in errors; tables may grow, so build_model looks into both


def build_model(config, encoder=None, decoder=None):
    """
    A PixelWiseModel or a ScalarOutputModel with random weights. encoder, decoder: modules in place of those that config names.

    UserError for unknown parts (with the near name), arguments that a part does not read, and parts that do not fit each other.
    """
    encoder = encoder or build_encoder(config.encoder, config.bands, config.encoder_args, config.image_size)
    if config.lora:
        add_lora(encoder, config.lora, f"encoder {config.encoder}")
    layout, necks = encoder.layout, nn.ModuleList()
    for neck in config.necks or (usual_necks(encoder, config.decoder) if decoder is None else ()):
        necks.append(make_part("neck", NECKS, neck.name, neck.args, layout))
        layout = necks[-1].layout
    main = DecoderAndHead(config.task, config.outputs, layout, config.decoder, config.decoder_args, config.head, config.head_args, decoder)
    auxiliary = nn.ModuleDict({
        aux.name: DecoderAndHead(config.task, config.outputs, layout, aux.decoder, aux.decoder_args,
                                 None if answers_by_itself(aux.decoder) else config.head, aux.head_args)
        for aux in config.auxiliary})
    multiple = math.lcm(encoder.multiple, *(int(s) for s in layout.strides if s >= 1 and s == int(s)))
    parts = {"encoder": encoder, "necks": necks, "decoder": main, "auxiliary": auxiliary, "stride": encoder.fixed_size or multiple}
    return PixelWiseModel(**parts, rescale=config.rescale) if answers_pixels(config.task) else ScalarOutputModel(**parts)


def answers_by_itself(decoder):
    """Whether a decoder, by its name, has no head."""
    return getattr((DECODERS | SMP_DECODERS).get(decoder), "includes_head", False)


def usual_necks(encoder, decoder):
    """Necks where none is named: published encoders of tokens become what a decoder reads, one level or a pyramid."""
    if not isinstance(encoder, FoundationEncoder) or encoder.layout.form != TOKENS or decoder == "identity":
        return ()
    return (Neck("tokens-to-maps"),) if decoder in OF_ONE_STRIDE else (Neck("tokens-to-maps"), Neck("pyramid"))


class DecoderAndHead(nn.Module):
    """What turns features into answers: the main ones, or those of an auxiliary head."""

    def __init__(self, task, outputs, layout, decoder, decoder_args, head, head_args, module=None):
        super().__init__()
        table = DECODERS | SMP_DECODERS
        includes_head = getattr(module, "includes_head", False) if module is not None else answers_by_itself(decoder)
        if includes_head and (head_args or head):
            raise UserError(f"decoder {decoder} answers by itself and has no head; leave --head and --head-args out")
        if module is None:
            module = make_part("decoder", table, decoder, decoder_args, layout, *([outputs] if includes_head else []))
        self.decoder = module
        if not answers_pixels(task) and includes_head:
            raise UserError(f"decoder {decoder} answers for each pixel, and {task} asks for one answer a patch; pass --decoder identity")
        name = head or USUAL_HEAD[task]
        self.head = nn.Identity() if includes_head else make_part("head", HEADS, name, head_args, module.layout, outputs)
        if (name == "classification") == answers_pixels(task) and not includes_head and name in USUAL_HEAD.values():
            raise UserError(f"head {name} does not answer what {task} asks; pass --head {USUAL_HEAD[task]}")
        if name == "regression" and head_args.get("activation") not in (None, "none") and not answers_values(task):
            raise UserError(f"head regression bounds values by its activation, and {task} asks for none; pass --head {USUAL_HEAD[task]}")

    def forward(self, features):
        return self.head(self.decoder(features))


class AssembledModel(nn.Module):
    """
    encoder → necks → decoder → head. Sides of x that do not suit the parts are continued by their last pixel.

    stride: what sides are multiples of, or (height, width) of an encoder that takes one size alone. Auxiliary heads work in training mode
    only; they share the features of the main decoder.
    """

    def __init__(self, encoder, necks, decoder, auxiliary, stride):
        super().__init__()
        self.encoder, self.necks, self.decoder, self.auxiliary, self.stride = encoder, necks, decoder, auxiliary, stride

    def features(self, x, **coordinates):
        """(B, bands, H, W) → (levels that decoders read, (height, width) that they stand for). coordinates: what else the encoder reads."""
        x = padded(x, self.stride)
        last = self.encoder.layout.strides[-1]
        grid = (int(x.shape[-2] // last), int(x.shape[-1] // last)) if last else (1, 1)
        return run_necks(self.necks, self.encoder(x, **coordinates), grid), x.shape[-2:]

    def forward(self, x, **coordinates):
        """→ ModelOutput."""
        features, padded_size = self.features(x, **coordinates)
        size = x.shape[-2:]
        auxiliary = self.auxiliary.items() if self.training else ()
        return ModelOutput(self.finish(self.decoder(features), padded_size, size),
                           {name: self.finish(part(features), padded_size, size) for name, part in auxiliary})

    def freeze_encoder(self, frozen=True):
        freeze(self.encoder, frozen)

    def freeze_decoder(self, frozen=True):
        """Everything behind the encoder but the head."""
        for part in (self.necks, self.decoder.decoder):
            freeze(part, frozen)

    def train(self, mode=True):
        super().train(mode)
        rest_in_eval(self)
        return self


class PixelWiseModel(AssembledModel):
    """Answers for each pixel: (B, outputs, H, W), resized (bilinear) to the size of x; with rescale=False as the head gives them."""

    def __init__(self, *, rescale=True, **parts):
        super().__init__(**parts)
        self.rescale = rescale
        layout = self.decoder.decoder.layout
        if layout.form != MAPS:
            raise UserError(f"head pixel {Misfit('needs maps', layout)}")

    def finish(self, values, padded_size, size):
        if not self.rescale:
            return values
        if values.shape[-2:] != padded_size:
            values = F.interpolate(values, size=padded_size, mode="bilinear", align_corners=False)
        return values if padded_size == size else values[..., : size[0], : size[1]]  # a cut that cuts nothing has a cost in backward


class ScalarOutputModel(AssembledModel):
    """Answers for a whole patch: (B, outputs)."""

    def finish(self, values, padded_size, size):
        return values


def padded(x, stride):
    """(B, C, H, W) continued to multiples of stride at the bottom and right; stride: a number, or one for each direction."""
    down, across = (stride, stride) if isinstance(stride, int) else stride
    bottom, right = -x.shape[-2] % down, -x.shape[-1] % across
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x
