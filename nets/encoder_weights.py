"""Pretrained weights for the encoders of nets/encoders.py: from a pip package, the hub, or a file, each of which has to match whole."""

from nets.foundation import FoundationEncoder
from nets.installed_weights import installed_weights
from nets.lora import merged_state, without_adapters
from nets.smp_network import (
    compared,
    downloaded,
    imagenet_weights,
    import_smp,
    network_answers,
    spread_rgb,
    tensors_of_file,
    weights_from_file,
)
from nets.timm_encoder import TIMM, TimmEncoder
from runtime.errors import UserError

HUB = ("imagenet", "hub")  # words of --encoder-weights for what is published
INNER = "model."  # where our encoders keep the library's network


def fill_encoder(encoder, name, weights, bands, partial=False):
    """
    Load "imagenet" or "hub" (both: what is published) or a file into an encoder that build_encoder made. bands: names, so that red meets
    the weights trained on red.

    → a line about what was left random, "" where every weight was found. Without `partial` that is a UserError, which counts missing,
    unknown and mis-shaped tensors: an encoder never trains from random weights by mistake. A classifier's weights and those of blocks
    that are cut off are left out.
    """
    if isinstance(encoder, FoundationEncoder):
        state = hub_weights(encoder) if weights in HUB else tensors_of_file(weights)
        state = encoder.in_own_names(merged_state(state))
        return load_matching(encoder, name, weights, without_adapters(encoder.own_weights()), state, len(bands), partial)
    own = without_adapters(encoder.state_dict())
    state = published_weights(encoder, name) if weights in HUB else merged_state(weights_from_file(weights))
    state = in_names_of(own, state)
    unread = tuple(f"{INNER}{word}" for word in getattr(encoder, "unread", ("head.", "fc.", "classifier.", "last_linear.")))
    state = {key: value for key, value in state.items() if key in own or not key.startswith(unread)}
    first = next((key for key, value in own.items() if value.ndim == 4), None)
    if first in state and state[first].ndim == 4 and state[first].shape[1] == 3:
        if weights in HUB or own[first].shape[1] != 3:
            state[first] = spread_rgb(state[first], bands)
    return load_matching(encoder, name, weights, own, state, len(bands), partial)


def load_matching(encoder, name, weights, own, state, inputs, partial):
    """Load `state` where it has what `own` has, both {name: tensor}; see fill_encoder. weights: what the user passed, for errors."""
    fitting, difference, is_complete = compared(own, state)
    difference = difference.replace(f"inner.{INNER}", "").replace("inner.", "")  # as files call them
    is_whole = is_complete and len(fitting) == len(state)
    if not fitting or not is_whole and not partial:
        remedy = "pass other weights" if not fitting else "pass other weights, or --partial-weights"
        raise UserError(f"--encoder-weights {weights} does not fit encoder {name} with {inputs} inputs: {difference}; {remedy}")
    encoder.load_state_dict(fitting, strict=False)
    return "" if is_whole else f"--encoder-weights {weights}: {difference}; the others stay random"


def published_weights(encoder, name):
    """A state dict under the names of the library's network."""
    if not isinstance(encoder, TimmEncoder):
        if name not in import_smp().encoders.encoders:
            raise UserError(f"encoder {name} has no pretrained weights; pass --encoder-weights none, or another --encoder")
        return imagenet_weights(name)
    if installed := installed_weights(name):
        return installed
    import timm

    def fetch():
        return timm.create_model(name.removeprefix(TIMM), pretrained=True, num_classes=0, **encoder.size_args, **encoder.args).state_dict()

    if not timm.models.is_model_pretrained(name.removeprefix(TIMM)):
        raise UserError(f"encoder {name} has no ImageNet weights; pass --encoder-weights none")
    return downloaded(name, fetch)


def hub_weights(encoder):
    """A published encoder's state dict from the hub, or from what was downloaded before. UserError says which file to get without it."""
    repository, file = encoder.row.hub
    where = f"huggingface.co/{repository}"
    if not file:
        raise UserError(f"encoder {encoder.name} stands for several files; pass --encoder-weights FILE, from {where}, or none")
    import huggingface_hub

    if not network_answers():
        huggingface_hub.constants.HF_HUB_OFFLINE = True  # else it retries for half a minute before it gives up
    try:
        path = huggingface_hub.hf_hub_download(repository, file)
    except Exception as error:
        raise UserError(f"the weights of {encoder.name} cannot be downloaded ({type(error).__name__}); get {file} from {where} and pass "
                        "--encoder-weights FILE, or none") from error
    return tensors_of_file(path)


def in_names_of(own, state):
    """A state dict whose names begin as those of the encoder do: with `model.` or without."""
    if all(key.startswith(INNER) for key in own):
        return {key if key.startswith(INNER) else f"{INNER}{key}": value for key, value in state.items()}
    if state and all(key.startswith(INNER) for key in state):
        return {key.removeprefix(INNER): value for key, value in state.items()}
    return dict(state)
