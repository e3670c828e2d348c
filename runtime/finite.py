"""Losses and weights that are NaN or infinite end a run before they are saved or called the best."""

import math

import torch

from runtime.errors import RunError

REMEDY = "lower --lr, or use --precision bf16 or fp32"


def require_finite_loss(value, what, epoch):
    """RunError where the mean loss of an epoch is NaN or infinite. what: "training", "validation" …"""
    if not math.isfinite(value):
        raise RunError(f"the {what} loss is NaN or infinite after epoch {epoch}; {REMEDY}")


def require_finite_weights(model, step):
    """RunError where a weight or buffer of `model` is NaN or infinite: its checkpoint could not be resumed. Waits for the device."""
    if not torch.stack([tensor.isfinite().all() for tensor in model.state_dict().values()]).all():
        raise RunError(f"weights are NaN or infinite after step {step}; {REMEDY}")
