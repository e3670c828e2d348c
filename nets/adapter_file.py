"""
Adapters alone: a checkpoint without the encoder's own weights, a few MB in place of a gigabyte. What was trained is in it (adapters, necks,
decoder, head); the rest comes from the file of published weights that the training started with.

    "base"   {"name": of that file, "sha256": of the weights that were taken from it}
"""

import hashlib
from pathlib import Path

from nets.encoder_weights import HUB
from nets.lora import is_adapter
from runtime.checkpoint import load_checkpoint, save_checkpoint
from runtime.errors import UserError
from runtime.logs import print_result

ADAPTERS = "adapters.pt"


def save_adapters(folder, result, model, weights_file):
    """Write adapters.pt of a run's folder: what was trained of its checkpoint `result`. weights_file: of the base."""
    save_checkpoint(folder.file(ADAPTERS), alone(load_checkpoint(folder.file(result)), model, weights_file))
    print_result(f"what was trained, without the encoder's own weights: {folder.checkpoints / ADAPTERS}")


def alone(checkpoint, model, weights_file):
    """
    The checkpoint of a model with adapters, as load_checkpoint gives it, without what is not trained. weights_file: of the base. Of weights
    and their average, where there is one, the average is kept.
    """
    weights = checkpoint["state"].get("average") or checkpoint["state"]["model"]
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


def with_base(model, checkpoint, weights, fill):
    """
    All weights of a model whose checkpoint holds adapters alone. weights: of the checkpoint. checkpoint["base_file"] is the file that the
    user named; without it one of the stated name is looked for beside the checkpoint. The model's encoder is filled by
    fill(encoder, its name, file, bands).

    UserError where there is no such file, or other weights are in it.
    """
    base, path = checkpoint["base"], checkpoint.get("path", "the checkpoint")
    config = getattr(model.config, "parts", model.config)  # of an assembled model, or of a detector
    is_stated = isinstance(base, dict) and all(isinstance(base.get(key), str) for key in ("name", "sha256"))
    if not is_stated or not getattr(config, "lora", 0):
        raise UserError(f"{path} is damaged: it does not say which weights its adapters are for; take another checkpoint")
    file = checkpoint.get("base_file") or (base["name"] if base["name"] in HUB else Path(path).parent / Path(base["name"]).name)
    if file not in HUB and not Path(file).is_file():
        raise UserError(f"{path} holds adapters alone, for the weights of {Path(base['name']).name}; pass --encoder-weights FILE")
    fill(model.network.encoder, config.encoder, file, config.bands)
    state = model.state_dict()
    own = {key: state[key] for key in base_names(model)}
    if fingerprint(own) != base["sha256"]:
        raise UserError(f"{file} does not hold the weights that the adapters of {path} are for; pass those of its training")
    return {**own, **weights}


def base_names(model):
    """Names of the weights of a model's encoder that are not trained beside adapters."""
    encoder = model.network.encoder
    prefix = next(name for name, module in model.named_modules() if module is encoder)
    return [f"{prefix}.{name}" for name, _ in encoder.named_parameters() if not is_adapter(name)]


def fingerprint(weights):
    """SHA-256 of names and values of tensors."""
    found = hashlib.sha256()
    for name in sorted(weights):
        found.update(name.encode())
        found.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
