"""Loss terms of pansharpening, as a table name -> function(prediction, target, valid, spread) of tensors (B, C, H, W) -> (B,).

One number a chip, the mean over its true pixels in valid (B, 1, H, W) bool or None: so that a batch may be cut into pieces anywhere
and adds up to the same gradient. All terms are finite with finite gradients where prediction and target are equal.
"""

import torch
import torch.nn.functional as F


def mean_over(values, valid):
    """(B, 1 or C, H, W) -> (B,)."""
    if valid is None:
        return values.mean(dim=(1, 2, 3))
    weights = valid.to(values.dtype).expand_as(values)
    return (values * weights).sum(dim=(1, 2, 3)) / weights.sum(dim=(1, 2, 3)).clamp(min=1)


def delta_e(prediction, target, valid=None, spread=None):
    """Colour difference of Oklab images in just noticeable differences: 50 * mean |dL, 2 da, 2 db|; (B, 3, H, W) only."""
    if prediction.ndim != 4 or prediction.shape[1] != 3 or prediction.shape != target.shape:
        raise ValueError(f"delta_e takes two (B, 3, H, W) tensors, got {tuple(prediction.shape)} and {tuple(target.shape)}")
    difference = (prediction - target) * prediction.new_tensor([1.0, 2.0, 2.0]).view(1, 3, 1, 1)
    epsilon = 1e-8  # a bare root has no gradient at 0
    distance = torch.sqrt(difference.square().sum(1, keepdim=True) + epsilon) - epsilon**0.5
    return 50 * mean_over(distance, valid)


def l1(prediction, target, valid=None, spread=1.0):
    """Mean absolute error as a share of `spread`, each band's standard deviation (1, C, 1, 1): bright bands don't outvote dark ones."""
    return mean_over((prediction - target).abs() / spread, valid)


def angle(prediction, target, valid=None, spread=None):
    """Mean spectral angle, radians, by way of the chord between unit vectors; needs at least two bands to say anything."""
    a, b = F.normalize(prediction, dim=1, eps=1e-4), F.normalize(target, dim=1, eps=1e-4)
    chord = torch.sqrt((a - b).square().sum(1, keepdim=True) + 1e-8) - 1e-4
    return mean_over(chord, valid)


LOSSES = {"delta_e": delta_e, "l1": l1, "angle": angle}
# weights of the terms for each target
WEIGHTS = {"bands": {"l1": 1.0, "angle": 1.0}, "oklab": {"delta_e": 1.0}}


def weighted_losses(predictions, target, valid, weights, spread):
    """{term: (B,)} summed over scales of equal weight; predictions are coarse to fine, as the network gives them.

    Coarser targets are box means of the full one; a coarse pixel is valid where all its pixels are.
    """
    totals = dict.fromkeys(weights, 0.0)
    for prediction in predictions:
        side = target.shape[-1] // prediction.shape[-1]
        goal = F.avg_pool2d(target, side) if side > 1 else target
        seen = valid
        if valid is not None and side > 1:
            seen = F.avg_pool2d(valid.float(), side) == 1
        for name, weight in weights.items():
            totals[name] = totals[name] + weight * LOSSES[name](prediction.float(), goal, seen, spread)
    return totals
