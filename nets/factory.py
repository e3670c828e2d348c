"""
EncoderDecoderFactory: build_model with the arguments that notebooks know.

    from nets.factory import EncoderDecoderFactory
    model = EncoderDecoderFactory().build_model(task="segmentation", backbone="tu-vit_small_patch16_224", decoder="unet",
                                                necks=[{"name": "tokens-to-maps"}, {"name": "pyramid"}], num_classes=2)
    output, auxiliary_heads = model(torch.rand(1, 3, 224, 224))
"""

from nets.assembled import build_model
from nets.encoder_weights import fill_encoder
from nets.encoders import with_defaults
from nets.layout import MAPS, Layout
from nets.model_config import AuxiliaryHead, ModelConfig, Neck, answers_values
from runtime.errors import UserError, did_you_mean

PREFIXES = ("backbone_", "decoder_", "head_")
ARGUMENTS = ("task", "backbone", "decoder", "backbone_kwargs", "decoder_kwargs", "head_kwargs", "num_classes", "num_outputs", "necks",
             "aux_decoders", "rescale", "lora", "peft_config")


class EncoderDecoderFactory:
    """Puts a model together in one call."""

    def build_model(self, task, backbone, decoder, *, backbone_kwargs=None, decoder_kwargs=None, head_kwargs=None, num_classes=None,
                    num_outputs=None, necks=None, aux_decoders=None, rescale=True, lora=0, peft_config=None, **kwargs):
        """
        A PixelWiseModel or ScalarOutputModel.

        backbone: an encoder's name, or a module whose forward returns a list of maps, with `layout`, or `out_channels` and `strides`.
        decoder: a name, or a module with `layout`. *_kwargs: their arguments; flat ones with the prefixes backbone_, decoder_ and head_
        mean the same. Of the backbone: bands (names) or in_chans, image_size, pretrained (True, or a file). num_classes: of segmentation
        and classification; num_outputs: of regression. necks: a list of {"name": …, arguments}. aux_decoders: a list of AuxiliaryHead,
        whose decoder_args may have the prefixes decoder_ and head_. lora: rank of the encoder's adapters. UserError for what nobody reads.
        """
        if peft_config is not None:
            raise UserError("peft_config is not supported; pass lora=16, the rank of adapters of queries and values")
        groups = {prefix: dict(given or {}) for prefix, given in zip(PREFIXES, (backbone_kwargs, decoder_kwargs, head_kwargs), strict=True)}
        for name, value in kwargs.items():
            prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
            if prefix is None:
                raise UserError(f"build_model does not read the argument {name!r}.{did_you_mean(name, ARGUMENTS)}")
            groups[prefix][name.removeprefix(prefix)] = value
        of_backbone, of_decoder, of_head = groups.values()
        bands, in_chans, size = of_backbone.pop("bands", None), of_backbone.pop("in_chans", None), of_backbone.pop("image_size", None)
        if not bands:
            bands = ("red", "green", "blue") if in_chans in (None, 3) else [f"band_{i + 1}" for i in range(in_chans)]
        pretrained = of_backbone.pop("pretrained", None)
        modules = {"encoder": None if isinstance(backbone, str) else as_encoder(backbone, of_backbone),
                   "decoder": None if isinstance(decoder, str) else as_decoder(decoder, of_decoder)}
        config = ModelConfig(
            task=task, outputs=outputs_of(task, num_classes, num_outputs), bands=tuple(bands), decoder_args=of_decoder, head_args=of_head,
            encoder=backbone if isinstance(backbone, str) else "the module", encoder_args=of_backbone, rescale=rescale,
            decoder=decoder if isinstance(decoder, str) else "the module", image_size=(size, size) if isinstance(size, int) else size,
            necks=tuple(as_neck(neck) for neck in necks or ()), auxiliary=tuple(with_own_args(aux) for aux in aux_decoders or ()),
            lora=lora)
        model = build_model(config, **modules)
        if pretrained:
            fill_encoder(model.encoder, config.encoder, "imagenet" if pretrained is True else pretrained, bands)
        return model


def outputs_of(task, num_classes, num_outputs):
    if answers_values(task):
        if num_classes is not None:
            raise UserError(f"num_classes is not read by task {task}; pass num_outputs")
        return num_outputs or 1
    if num_outputs is not None:
        raise UserError(f"num_outputs is not read by task {task}; pass num_classes")
    if not isinstance(num_classes, int) or num_classes < 1:
        raise UserError(f"task {task} needs num_classes, a whole number of at least 1; got {num_classes!r}")
    return num_classes


def as_neck(neck):
    """{"name": …, arguments}, or a name, as a Neck."""
    if isinstance(neck, str | Neck):
        return neck if isinstance(neck, Neck) else Neck(neck)
    if "name" not in neck:
        raise UserError(f"a neck needs a name, got {neck}")
    return Neck(neck["name"], {key: value for key, value in neck.items() if key != "name"})


def with_own_args(auxiliary):
    """An AuxiliaryHead whose decoder_args carry prefixes, as one whose arguments are apart."""
    own, head = {}, dict(auxiliary.head_args)
    for name, value in auxiliary.decoder_args.items():
        if name.startswith("head_"):
            head[name.removeprefix("head_")] = value
        else:
            own[name.removeprefix("decoder_")] = value
    return AuxiliaryHead(auxiliary.name, auxiliary.decoder, own, head, auxiliary.weight)


def as_encoder(module, arguments):
    """A module of the user's as an encoder. UserError where it does not say what it gives."""
    if arguments:
        raise UserError(f"the backbone is a module and does not read {', '.join(arguments)}; leave it out")
    if not hasattr(module, "layout"):
        channels, strides = getattr(module, "out_channels", None), getattr(module, "strides", None)
        if channels is None or strides is None:
            raise UserError("a backbone that is a module needs `layout` (nets/layout.py), or `out_channels` and `strides` of its maps")
        module.layout = Layout(MAPS, tuple(channels), tuple(strides), made_by="the backbone")
    return with_defaults(module, "of the user")


def as_decoder(module, arguments):
    if arguments:
        raise UserError(f"the decoder is a module and does not read {', '.join(arguments)}; leave it out")
    if not hasattr(module, "layout"):
        if not hasattr(module, "out_channels"):
            raise UserError("a decoder that is a module needs `layout` (nets/layout.py), or `out_channels`")
        module.layout = Layout(MAPS, (module.out_channels,), (1,), made_by="the decoder")
    return module
