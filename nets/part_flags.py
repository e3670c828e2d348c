"""The flags that put a model together, and the ModelConfig that follows from them."""

import argparse
import dataclasses

from nets.model_config import AUXILIARY_WEIGHT, AuxiliaryHead, ModelConfig, Neck
from runtime.errors import UserError, did_you_mean
from runtime.values import keyed, names, settings_in, whole

# What decides an assembled model's shape: taken from the checkpoint of a resumed run.
PART_FLAGS = ("decoder", "neck", "head", "aux_head", "encoder_args", "neck_args", "decoder_args", "head_args", "lora")
ALL = "all"  # epochs


def add_part_flags(group):
    """The flags of PartChoice."""
    group.add_argument("--decoder", help="put the network together: fcn, unet, upernet, aspp, linear, mlp, identity, smp-unet, smp-fpn …")
    group.add_argument("--neck", type=names, default=[], metavar="LIST",
                       help="between encoder and decoder: select, tokens-to-maps, pyramid, feature-pyramid, pool")
    group.add_argument("--head", help="pixel, regression or classification; the usual one of the task by default")
    group.add_argument("--aux-head", type=auxiliary, nargs="+", default=[], metavar="NAME=DECODER[:WEIGHT]",
                       help=f"further decoders and heads in training; weight of the loss: {AUXILIARY_WEIGHT} by default")
    add_encoder_args(group, "such as layers=2,5,8,11 or output_stride=16")
    group.add_argument("--neck-args", type=keyed, nargs="+", default=[], metavar="NECK.K=V", help="such as pyramid.learned=true")
    group.add_argument("--decoder-args", type=keyed, nargs="+", default=[], metavar="K=V",
                       help="such as channels=128; NAME.channels=64 for an auxiliary head")
    group.add_argument("--head-args", type=keyed, nargs="+", default=[], metavar="K=V",
                       help="such as dropout=0.1 or upscale=1; NAME.dropout=0.2 for an auxiliary head")
    add_lora_flag(group)
    group.add_argument("--partial-weights", action="store_true", help="--encoder-weights that lack some tensors; those stay random")
    group.add_argument("--model", metavar="FILE.py:FUNCTION", help="a network of yours: a function that takes a ModelConfig")


def add_encoder_args(group, text):
    group.add_argument("--encoder-args", type=keyed, nargs="+", default=[], metavar="K=V", help=text)


def add_lora_flag(group):
    group.add_argument("--lora", type=whole(0, 1024), default=0, metavar="RANK",
                       help="train adapters of this rank, such as 16, in place of a transformer's own weights; 0: those")


def require_adaptable(lora, encoder_weights):
    """UserError where --lora would adapt random weights."""
    if lora and encoder_weights == "none":
        raise UserError(f"--lora {lora} adapts weights that are there already, and --encoder-weights none has none; pass a file")


def add_freezing_flags(group):
    group.add_argument("--freeze-encoder", type=epochs_or_all, default=0, metavar="EPOCHS",
                       help="train the rest alone for this many epochs, or all")
    group.add_argument("--lr-encoder", type=factor, default=1.0, metavar="FACTOR", help="the encoder's learning rate, in parts of --lr")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartChoice:
    """The flags of add_part_flags, as parsed."""

    decoder: str | None
    neck: list | tuple
    head: str | None
    aux_head: list
    encoder_args: list
    neck_args: list
    decoder_args: list
    head_args: list
    lora: int
    partial_weights: bool
    model: str | None


def require_possible(choice, given, encoder=""):
    """UserError for flags that exclude each other or need another one. given: names of all flags that the user set."""
    set_parts = [flag for flag in PART_FLAGS if flag in given]
    shown = f"--{set_parts[0].replace('_', '-')}" if set_parts else ""
    if choice.model and (set_parts or {"architecture", "encoder"} & given):
        other = shown or f"--{min({'architecture', 'encoder'} & given)}"
        raise UserError(f"--model {choice.model} brings its whole network; leave {other} out")
    if choice.partial_weights and "partial_weights" in given and not choice.decoder:
        raise UserError("--partial-weights is for the encoder of a model that is put together; pass --decoder too, or leave it out")
    if choice.decoder and "architecture" in given:
        raise UserError(f"--architecture is a whole network and --decoder {choice.decoder} puts one together; pass one of the two")
    if ":" in encoder and not choice.decoder and not choice.model:
        raise UserError(f"--encoder {encoder} is for models that are put together; pass --decoder too, such as --decoder unet")
    if set_parts and not choice.decoder:
        raise UserError(f"{shown} is for models that are put together; pass --decoder too, such as --decoder unet")


def parts_of(choice, *, task, outputs, encoder, image_size):
    """The ModelConfig of the flags. bands are left to model.assemble(). UserError where settings name a part that there is none of."""
    decoder_args, head_args = (parsed(words, flag) for words, flag in
                               ((choice.decoder_args, "--decoder-args"), (choice.head_args, "--head-args")))
    auxiliary_heads = tuple(
        AuxiliaryHead(name, decoder, own(decoder_args, name), own(head_args, name), weight)
        for name, decoder, weight in map(auxiliary_parts, choice.aux_head))
    names_of = [head.name for head in auxiliary_heads]
    for flag, found in (("--decoder-args", decoder_args), ("--head-args", head_args)):
        for name, value in found.items():
            if isinstance(value, dict):
                raise UserError(f"{flag} {name}.{next(iter(value))} is for an auxiliary head {name}, which there is none of."
                                f"{did_you_mean(name, names_of) or f' Pass --aux-head {name}=fcn'}")
    return ModelConfig(
        task=task, outputs=outputs, encoder=encoder, encoder_args=parsed(choice.encoder_args, "--encoder-args"), image_size=image_size,
        necks=necks_of(choice.neck, parsed(choice.neck_args, "--neck-args")), decoder=choice.decoder or "identity",
        decoder_args=decoder_args, head=choice.head, head_args=head_args, auxiliary=auxiliary_heads, lora=choice.lora)


def necks_of(necks, arguments):
    """Names and {name: arguments} as Necks."""
    for name, value in arguments.items():
        if name not in necks or not isinstance(value, dict):
            raise UserError(f"--neck-args {name}{'' if not isinstance(value, dict) else '.…'} names no neck of --neck "
                            f"{','.join(necks) or '(none)'}; write NECK.NAME=VALUE.{did_you_mean(name, necks)}")
    return tuple(Neck(name, arguments.get(name, {})) for name in necks)


def own(arguments, name):
    """Take the settings of an auxiliary head out of those of a flag."""
    return arguments.pop(name) if isinstance(arguments.get(name), dict) else {}


def parsed(words, flag):
    try:
        return settings_in(words)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{flag}: {error}") from error


def auxiliary(text):
    """The type of --aux-head: NAME=DECODER[:WEIGHT], kept as text."""
    auxiliary_parts(text)
    return text


def auxiliary_parts(text):
    """`aux1=fcn:0.4` → ("aux1", "fcn", 0.4)."""
    name, _, rest = text.partition("=")
    decoder, colon, weight = rest.partition(":")
    try:
        number = float(weight) if colon else AUXILIARY_WEIGHT
    except ValueError:
        number = -1.0
    if not name.isidentifier() or not decoder or not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected NAME=DECODER or NAME=DECODER:WEIGHT, such as aux1=fcn:0.4, got {text!r}")
    return name, decoder, number


def epochs_or_all(text):
    """A type for a number of epochs, or `all`."""
    if text != ALL and not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected a whole number of epochs, or all, got {text!r}")
    return ALL if text == ALL else int(text)


def factor(text):
    """A type for a factor above 0, at most 10."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 10:
        raise argparse.ArgumentTypeError(f"expected a number above 0, at most 10, got {text!r}")
    return value


def is_frozen(freeze_encoder, epoch):
    """Whether --freeze-encoder keeps the encoder still in an epoch, counted from 0."""
    return freeze_encoder == ALL or epoch < freeze_encoder
