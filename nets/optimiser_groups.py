"""Weights of a model as groups of an optimiser: the encoder may learn more slowly than the rest."""

from runtime.errors import UserError


def optimiser_groups(model, encoder_factor):
    """
    → (parameters or groups that AdamW takes, {name of a part: weights in it}): encoder and rest apart wherever there is an encoder.

    With a factor of 1 all weights are one group. A group's `lr_factor` is read by runtime.schedule. UserError for a network
    without an encoder.
    """
    encoder = encoder_of(model)
    if encoder_factor != 1 and encoder is None:
        raise UserError(f"{model.config.title} has no encoder that --lr-encoder could be for; leave it out")
    if encoder is None:
        return list(model.parameters()), {"all": count(model.parameters())}
    inside = {id(parameter) for parameter in encoder.parameters()}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    counts = {"encoder": count(encoder.parameters()), "the rest": count(rest)}
    if encoder_factor == 1:
        return list(model.parameters()), counts
    groups = [{"params": list(encoder.parameters()), "lr_factor": encoder_factor}, {"params": rest, "lr_factor": 1.0}]
    return groups, counts


def encoder_of(model):
    """The encoder of a FireSegmentationModel's network; None where it has none."""
    return getattr(model.network, "encoder", None)


def count(parameters):
    return sum(parameter.numel() for parameter in parameters)


def in_words(counts, lr, encoder_factor, frozen):
    """`encoder 21.28 M weights at 1e-05 (frozen for 5 epochs), the rest 3.16 M at 1e-04`."""
    still = "" if not frozen else " (frozen)" if frozen == "all" else f" (frozen for {frozen} epochs)"
    rates = {"encoder": lr * encoder_factor}
    told = [f"{name} {number / 1e6:.2f} M weights at {rates.get(name, lr):.3g}{still if name == 'encoder' else ''}"
            for name, number in counts.items()]
    return f"optimiser: {', '.join(told)}"
