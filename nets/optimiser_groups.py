"""Weights of a model as groups of an optimiser: the encoder may learn more slowly than the rest."""

from nets.lora import has_lora, is_adapter
from runtime.errors import UserError


def optimiser_groups(model, encoder_factor):
    """
    → (parameters or groups that AdamW takes, {name of a part: weights in it}): encoder and rest apart wherever there is an encoder.

    With a factor of 1 all weights are one group; of an encoder with adapters they alone are trained, in a group of their own. A group's
    `lr_factor` is read by runtime.schedule. UserError for a network without an encoder.
    """
    encoder = encoder_of(model)
    adapted = encoder is not None and has_lora(encoder)
    if encoder_factor != 1 and encoder is None:
        raise UserError(f"{model.config.title} has no encoder that --lr-encoder could be for; leave it out")
    if encoder is None:
        return list(model.parameters()), {"all": count(model.parameters())}
    inside = {id(parameter) for parameter in encoder.parameters()}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    own = [parameter for name, parameter in encoder.named_parameters() if not adapted or is_adapter(name)]
    counts = {"adapters" if adapted else "encoder": count(own), "the rest": count(rest)}
    if encoder_factor == 1 and not adapted:
        return list(model.parameters()), counts
    return [{"params": own, "lr_factor": encoder_factor}, {"params": rest, "lr_factor": 1.0}], counts


def encoder_of(model):
    """The encoder of a FireSegmentationModel's network; None where it has none."""
    return getattr(model.network, "encoder", None)


def count(parameters):
    return sum(parameter.numel() for parameter in parameters)


def in_words(counts, lr, encoder_factor, frozen):
    """`encoder 21.28 M weights at 1e-05 (frozen for 5 epochs), the rest 3.16 M at 1e-04`."""
    still = "" if not frozen else " (frozen)" if frozen == "all" else f" (frozen for {frozen} epochs)"
    rates = dict.fromkeys(("encoder", "adapters"), lr * encoder_factor)
    told = [f"{name} {number / 1e6:.2f} M weights at {rates.get(name, lr):.3g}{still if name in rates else ''}"
            for name, number in counts.items()]
    return f"optimiser: {', '.join(told)}"
