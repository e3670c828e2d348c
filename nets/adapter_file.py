"""
Adapters alone: a checkpoint without the encoder's own weights, a few MB in place of a gigabyte. What was trained is in it (adapters, necks,
decoder, head); the rest comes from the file of published weights that the training started with.

    "base"   {"name": of that file, "sha256": of the weights that were taken from it}
"""

import hashlib
from pathlib import Path

from nets.encoder_weights import HUB, fill_encoder
from nets.lora import is_adapter
from runtime.errors import UserError

ENCODER = "network.encoder."


def alone(checkpoint, model, weights_file):
    """The checkpoint of a model with adapters, as load_checkpoint gives it, without what is not trained. weights_file: of the base."""
    weights = checkpoint["state"]["model"]
    base = base_names(model)
    name = weights_file if weights_file in HUB else Path(weights_file).name
    kept = {key: value for key, value in weights.items() if key not in base}
    return {**{key: value for key, value in checkpoint.items() if key not in ("path", "state")},
            "base": {"name": name, "sha256": fingerprint({key: weights[key] for key in base})}, "state": {"model": kept}}


def name_base(checkpoint, file):
    """Say in a loaded checkpoint of adapters which file has their base. UserError for one that needs none."""
    if "base" not in checkpoint:
        raise UserError(f"{checkpoint['path']} has its encoder's weights; leave --encoder-weights out")
    checkpoint["base_file"] = file


def with_base(model, checkpoint, weights):
    """
    All weights of a model whose checkpoint holds adapters alone. weights: of the checkpoint. checkpoint["base_file"] is the file that the
    user named; without it one of the stated name is looked for beside the checkpoint. The model's encoder is filled.

    UserError where there is no such file, or other weights are in it.
    """
    base, path = checkpoint["base"], checkpoint.get("path", "the checkpoint")
    parts = model.config.parts
    if not isinstance(base, dict) or not all(isinstance(base.get(key), str) for key in ("name", "sha256")) or not (parts and parts.lora):
        raise UserError(f"{path} is damaged: it does not say which weights its adapters are for; take another checkpoint")
    file = checkpoint.get("base_file") or (base["name"] if base["name"] in HUB else Path(path).parent / Path(base["name"]).name)
    if file not in HUB and not Path(file).is_file():
        raise UserError(f"{path} holds adapters alone, for the weights of {Path(base['name']).name}; pass --encoder-weights FILE")
    fill_encoder(model.network.encoder, parts.encoder, file, parts.bands)
    state = model.state_dict()
    own = {key: state[key] for key in base_names(model)}
    if fingerprint(own) != base["sha256"]:
        raise UserError(f"{file} does not hold the weights that the adapters of {path} are for; pass those of its training")
    return {**own, **weights}


def base_names(model):
    """Names of the weights of a model's encoder that are not trained beside adapters."""
    return [f"{ENCODER}{name}" for name, _ in model.network.encoder.named_parameters() if not is_adapter(name)]


def fingerprint(weights):
    """SHA-256 of names and values of tensors."""
    found = hashlib.sha256()
    for name in sorted(weights):
        found.update(name.encode())
        found.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
