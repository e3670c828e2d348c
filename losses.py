"""
Named loss terms and their weighted sum.

Every term is a quotient of sums over pixels, so it is computed in two steps: `sums` adds up what one batch has,
`from_sums` makes the loss of it. In between, the sums of several processes can be added (`reduce`), and the loss of a
whole split is that of its added sums: the same whatever the batch size.

Logits (B, C, H, W) of any float type, targets (B, H, W) of any integer type with 255 = ignore; sums are float32.
A batch without a single valid pixel has loss 0, with a gradient of zeros.
"""

import torch
from torch import nn

from constants import IGNORE


def log_probabilities(logits, target):
    """(log softmax float32 (B, C, H, W), target with 0 in place of ignored int64 (B, H, W), valid bool (B, H, W))."""
    valid = target != IGNORE
    return torch.log_softmax(logits.float(), dim=1), torch.where(valid, target, 0).long(), valid


class PixelTerm(nn.Module):
    """A loss term that can be used on its own: term(logits, target) → scalar."""

    def forward(self, logits, target):
        return self.from_sums(self.sums(*log_probabilities(logits, target)))


class CrossEntropyLoss(PixelTerm):
    """Σ w_t · -log p_t / Σ w_t over valid pixels. class_weights: (C,) or None."""

    def __init__(self, class_weights=None):
        super().__init__()
        self.register_buffer("class_weights", None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32))

    def sums(self, log_p, target, valid):
        """→ (2,): weighted loss, weight."""
        weight = valid.float() if self.class_weights is None else self.class_weights[target] * valid
        log_p_target = log_p.gather(1, target[:, None])[:, 0]
        return torch.stack([-(log_p_target * weight).sum(), weight.sum()])

    def from_sums(self, sums):
        return sums[0] / torch.where(sums[1] > 0, sums[1], 1.0)


class FocalLoss(CrossEntropyLoss):
    """
    Mean over valid pixels of (1 - p_t)^gamma · w_t · -log p_t: easy pixels count for little.

    Divided by the number of pixels, not by Σ w_t, so its scale is not that of the weighted cross-entropy.
    """

    def __init__(self, class_weights=None, gamma=2.0):
        super().__init__(class_weights)
        self.gamma = gamma

    def sums(self, log_p, target, valid):
        """→ (2,): weighted focal loss, number of valid pixels."""
        weight = valid.float() if self.class_weights is None else self.class_weights[target] * valid
        log_p_target = log_p.gather(1, target[:, None])[:, 0]
        # The clamp keeps the power's slope finite where p rounds to 1 and gamma is below 1.
        focus = (1.0 - log_p_target.exp()).clamp(min=1e-6) ** self.gamma
        return torch.stack([-(focus * weight * log_p_target).sum(), valid.sum().float()])


class DiceLoss(PixelTerm):
    """
    1 - mean over the classes that occur in the target of (2 Σ p·y + s) / (Σ p + Σ y + s), background included.

    A class without a pixel in the batch would be a constant penalty of about 1/C; false positives of such a class are the
    cross-entropy's job.
    """

    def __init__(self, smooth=1e-6):
        super().__init__()
        self.smooth = smooth

    def sums(self, log_p, target, valid):
        """→ (3 C,): Σ p·y, Σ p, Σ y for each class, over valid pixels."""
        parts = []
        for c in range(log_p.shape[1]):
            p = log_p[:, c].exp() * valid
            y = (target == c) & valid
            parts.append(torch.stack([(p * y).sum(), p.sum(), y.sum().float()]))
        return torch.stack(parts, dim=1).flatten()

    def from_sums(self, sums):
        overlap, predicted, present = sums.reshape(3, -1)
        dice = (2.0 * overlap + self.smooth) / (predicted + present + self.smooth)
        occurs = (present > 0).to(dice.dtype)
        return ((1.0 - dice) * occurs).sum() / occurs.sum().clamp(min=1.0)


class CombinedLoss(nn.Module):
    """
    0.5 · cross-entropy (or focal) + 0.5 · Dice. loss(logits, target) → (total, {"ce_loss": …, "dice_loss": …}); the parts stay tensors.

    reduce: adds the sums of all processes and lets the gradient through (runtime/distributed.py), so that each process sees the loss of the
    global batch. None for one process.
    """

    def __init__(self, class_weights=None, use_focal=False, focal_gamma=2.0, ce_weight=0.5, dice_weight=0.5, reduce=None):
        super().__init__()
        pixel_term = FocalLoss(class_weights, focal_gamma) if use_focal else CrossEntropyLoss(class_weights)
        self.terms = nn.ModuleDict({"ce_loss": pixel_term, "dice_loss": DiceLoss()})
        self.weights = {"ce_loss": ce_weight, "dice_loss": dice_weight}
        self.reduce = reduce

    def forward(self, logits, target):
        sums = self.sums(logits, target)
        return self.from_sums(self.reduce(sums) if self.reduce else sums)

    def sums(self, logits, target):
        """→ (2 + 3 C,) float32, in the order of the terms."""
        shared = log_probabilities(logits, target)
        return torch.cat([term.sums(*shared) for term in self.terms.values()])

    def from_sums(self, sums):
        """→ (total, named parts) of added sums."""
        parts = {"ce_loss": self.terms["ce_loss"].from_sums(sums[:2]), "dice_loss": self.terms["dice_loss"].from_sums(sums[2:])}
        return sum(self.weights[name] * part for name, part in parts.items()), parts
