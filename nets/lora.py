"""
Low-rank adapters (LoRA): an encoder's own weights stay as they are, and small matrices beside them are trained.

    add_lora(encoder, rank=16)     # in place; the first output is the plain one's, since B starts at 0
    merge_lora(model)              # in place → the same model with plain layers: keys and outputs of a model without adapters

The weight of a fused `qkv` (3 C, C) becomes W + B A in its rows of q and of v, each with its own A (rank, C) and B (C, rank).
"""

import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional as F

from runtime.errors import UserError

ADAPTERS = ("lora_q_a", "lora_q_b", "lora_v_a", "lora_v_b")


class AdaptedQKV(nn.Linear):
    """A fused qkv with adapters; its own weight and bias have the names and values that they had."""

    def __init__(self, plain, rank):
        super().__init__(plain.in_features, plain.out_features, plain.bias is not None, device="meta")
        self.weight, self.bias = plain.weight, plain.bias
        width, like = plain.in_features, {"device": plain.weight.device, "dtype": plain.weight.dtype}
        for part in "qv":
            down = nn.Parameter(torch.empty(rank, width, **like))
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))
            self.register_parameter(f"lora_{part}_a", down)
            self.register_parameter(f"lora_{part}_b", nn.Parameter(torch.zeros(width, rank, **like)))

    def forward(self, x):
        q, v = (F.linear(F.linear(x, down), up) for down, up in ((self.lora_q_a, self.lora_q_b), (self.lora_v_a, self.lora_v_b)))
        return super().forward(x) + torch.cat([q, torch.zeros_like(q), v], dim=-1)

    def merged(self):
        """An nn.Linear with the same output."""
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        weight = merged_weight(self.weight.detach(), *(getattr(self, name).detach() for name in ADAPTERS))
        plain.weight, plain.bias = nn.Parameter(weight), self.bias
        return plain.train(self.training)


def merged_weight(weight, q_a, q_b, v_a, v_b):
    q, k, v = weight.chunk(3)
    return torch.cat([q + q_b @ q_a, k, v + v_b @ v_a])


def add_lora(encoder, rank, name="the encoder"):
    """
    Adapters of that rank in every fused qkv of an encoder, whose own weights are not trained any more. name: of it, for errors.

    UserError for an encoder without any, or whose attention reads the weights past the layer.
    """
    found = [(parent, key, layer) for parent in encoder.modules() for key, layer in parent.named_children()
             if key == "qkv" and isinstance(layer, nn.Linear) and layer.out_features == 3 * layer.in_features]
    if not found:
        raise UserError(f"{name} has no layers called qkv that --lora could adapt; leave --lora out, or take a vision transformer")
    if any(reads_past_layer(parent) for parent, _, _ in found):
        raise UserError(f"{name} uses its qkv weights past the layer, so --lora would do nothing; take another vision transformer")
    encoder.requires_grad_(False)
    for parent, key, layer in found:
        if rank > layer.in_features:
            raise UserError(f"--lora {rank} is more than the {layer.in_features} channels of {name}; pass a smaller one")
        setattr(parent, key, AdaptedQKV(layer, rank))


def reads_past_layer(attention):
    """Whether an attention multiplies with qkv.weight itself: torchvision's Swin, and BEiT and Swin v2 of timm with their own biases."""
    of_torchvision = type(attention).__module__.startswith("torchvision.")
    return of_torchvision or getattr(attention, "q_bias", None) is not None


def has_lora(module):
    return any(isinstance(layer, AdaptedQKV) for layer in module.modules())


def merge_lora(model):
    """In place: plain layers in place of adapted ones. → the model, with a plain one's keys, outputs and (where it has one) config."""
    for parent in list(model.modules()):
        for key, layer in list(parent.named_children()):
            if isinstance(layer, AdaptedQKV):
                setattr(parent, key, layer.merged())
    config = getattr(model, "config", None)
    if parts := getattr(config, "parts", None):
        model.config = dataclasses.replace(config, parts=dataclasses.replace(parts, lora=0))
    elif getattr(config, "lora", 0):  # of a detector
        model.config = dataclasses.replace(config, lora=0)
    return model


def is_adapter(key):
    """Whether a name of a state dict is that of an adapter."""
    return key.rsplit(".", 1)[-1] in ADAPTERS


def without_adapters(state):
    return {key: value for key, value in state.items() if not is_adapter(key)}


def merged_state(state):
    """A state dict with adapters, as one of a plain model; others as they are."""
    layers = {key.rsplit(".", 1)[0] for key in state if is_adapter(key)}
    merged = without_adapters(state)
    for layer in layers:
        parts = [state.get(f"{layer}.{name}") for name in ("weight", *ADAPTERS)]
        if all(part is not None for part in parts):
            merged[f"{layer}.weight"] = merged_weight(*parts)
    return merged
