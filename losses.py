"""
Named loss terms and their weighted sum.

Every term is a quotient of sums over pixels, so it is computed in two steps: `sums` adds up what one batch has,
`from_sums` makes the loss of it. In between, the sums of several processes can be added (`reduce`), and the loss of a
whole split is that of its added sums: the same whatever the batch size.

Logits (B, C, H, W) of any float type, targets (B, H, W) of any integer type with 255 = ignore; sums are float32.
A batch without a single valid pixel has loss 0, with a gradient of zeros.

Labels of whole patches are logits (B, C) and targets (B,); several labels a patch are targets (B, C) of 0, 1 and 255. Values are outputs
(B, 1, H, W) and targets (B, H, W) float with NaN = ignore. What is ignored is left out by selection, never by a factor of 0.

To add a loss: a class with `sums`, `from_sums` and `size`, and its line in TERMS.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from constants import IGNORE
from nets.model_output import as_model_output
from runtime.errors import UserError, did_you_mean


def log_probabilities(logits, target):
    """(log softmax float32 (B, C, H, W), target with 0 in place of ignored int64 (B, H, W), valid bool (B, H, W))."""
    valid = target != IGNORE
    return torch.log_softmax(logits.float(), dim=1), torch.where(valid, target, 0).long(), valid


def value_differences(output, target, scale=1.0):
    """((output − target) / scale float32, 0 where ignored; valid bool), both (B, H, W). output: (B, 1, H, W); target: NaN = ignore."""
    output = output.float().reshape(target.shape)
    valid = torch.isfinite(target)
    return torch.where(valid, output - torch.where(valid, target, 0.0).float(), 0.0) / scale, valid


def yes_or_no(logits, target):
    """(logits float32 with 0 where ignored, target float32 of 0 and 1, valid bool), all (B, C)."""
    valid = target != IGNORE
    return torch.where(valid, logits.float(), 0.0), torch.where(valid, target, 0).float(), valid


class PixelTerm(nn.Module):
    """A loss term that can be used on its own: term(logits, target) → scalar."""

    prepare = staticmethod(log_probabilities)

    def forward(self, logits, target):
        return self.from_sums(self.sums(*self.prepare(logits, target)))

    def size(self, outputs):
        """How many numbers `sums` has for a head of so many outputs."""
        return 2

    def from_sums(self, sums):
        """Σ loss / Σ weight; 0 where nothing is valid."""
        return sums[0] / torch.where(sums[1] > 0, sums[1], 1.0)


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

    def size(self, outputs):
        return 3 * outputs

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
        overlaps = self.overlap(overlap, predicted, present)
        occurs = (present > 0).to(overlaps.dtype)
        return ((1.0 - overlaps) * occurs).sum() / occurs.sum().clamp(min=1.0)

    def overlap(self, overlap, predicted, present):
        """The overlap of each class, 0..1, from Σ p·y, Σ p, Σ y."""
        return (2.0 * overlap + self.smooth) / (predicted + present + self.smooth)


class JaccardLoss(DiceLoss):
    """As Dice, with (Σ p·y + s) / (Σ p + Σ y − Σ p·y + s): the IoU itself."""

    def overlap(self, overlap, predicted, present):
        return (overlap + self.smooth) / (predicted + present - overlap + self.smooth)


class TverskyLoss(DiceLoss):
    """As Dice, with Σ p·y / (Σ p·y + 0.3 false alarms + 0.7 misses): a miss costs more than a false alarm (Salehi et al. 2017)."""

    def __init__(self, smooth=1e-6, false_alarms=0.3, misses=0.7):
        super().__init__(smooth)
        self.false_alarms, self.misses = false_alarms, misses

    def overlap(self, overlap, predicted, present):
        wrong = self.false_alarms * (predicted - overlap) + self.misses * (present - overlap)
        return (overlap + self.smooth) / (overlap + wrong + self.smooth)


class LovaszLoss(PixelTerm):
    """Lovász-Softmax (Berman et al. 2018): mean over images of the mean over the classes that occur in each."""

    def sums(self, log_p, target, valid):
        """→ (2,): sum over images, images with a valid pixel."""
        classes = torch.arange(log_p.shape[1], device=log_p.device)[:, None]
        truth = ((target.flatten(1)[:, None] == classes) & valid.flatten(1)[:, None]).float()  # (B, C, pixels)
        errors = torch.where(valid.flatten(1)[:, None], (truth - log_p.flatten(2).exp()).abs(), 0.0)
        errors, order = errors.sort(dim=2, descending=True)
        truth = truth.gather(2, order)
        count = truth.sum(dim=2, keepdim=True)
        jaccard = 1.0 - (count - truth.cumsum(dim=2)) / (count + (1.0 - truth).cumsum(dim=2))
        slopes = torch.diff(jaccard, dim=2, prepend=torch.zeros_like(jaccard[..., :1]))
        occurs = (count[..., 0] > 0).float()
        losses = ((errors * slopes).sum(dim=2) * occurs).sum(dim=1) / occurs.sum(dim=1).clamp(min=1.0)
        return torch.stack([losses.sum(), valid.flatten(1).any(dim=1).sum().float()])


# ----------------------------------------------------------------------------------------------------------------- values


class ValueTerm(PixelTerm):
    """Mean over valid pixels of a function of (output − target) / scale. scale: in the target's units, its spread over the training."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale

    def prepare(self, output, target):
        return value_differences(output, target, self.scale)

    def sums(self, difference, valid):
        """→ (2,): sum, number of valid pixels."""
        return torch.stack([torch.where(valid, self.cost(difference), 0.0).sum(), valid.sum().float()])


class MSELoss(ValueTerm):
    """Mean square."""

    def cost(self, difference):
        return difference.square()


class RMSELoss(MSELoss):
    """Root of the mean square over all that is valid."""

    def from_sums(self, sums):
        return torch.sqrt(super().from_sums(sums).clamp(min=1e-12))


class MAELoss(ValueTerm):
    """Mean absolute difference."""

    def cost(self, difference):
        return difference.abs()


class HuberLoss(ValueTerm):
    """Half the square up to a difference of 1 (one standard deviation of the target), beyond that linear: outliers count for less."""

    def cost(self, difference):
        size = difference.abs()
        return torch.where(size < 1.0, 0.5 * difference.square(), size - 0.5)


# ------------------------------------------------------------------------------------------- several labels a patch


class BCELoss(PixelTerm):
    """Mean over valid labels of the binary cross-entropy. class_weights: (C,) factors of the labels that are there, or None."""

    prepare = staticmethod(yes_or_no)

    def __init__(self, class_weights=None):
        super().__init__()
        self.register_buffer("class_weights", None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32))

    def sums(self, logits, target, valid):
        """→ (2,): sum, number of valid labels."""
        costs = F.binary_cross_entropy_with_logits(logits, target, pos_weight=self.class_weights, reduction="none")
        return torch.stack([torch.where(valid, costs, 0.0).sum(), valid.sum().float()])


class BinaryFocalLoss(BCELoss):
    """As BCELoss, each label times (1 - p_t)^gamma."""

    def __init__(self, class_weights=None, gamma=2.0):
        super().__init__(class_weights)
        self.gamma = gamma

    def sums(self, logits, target, valid):
        costs = F.binary_cross_entropy_with_logits(logits, target, pos_weight=self.class_weights, reduction="none")
        missing = torch.sigmoid(torch.where(target > 0, -logits, logits)).clamp(min=1e-6)  # 1 - p_t
        return torch.stack([torch.where(valid, costs * missing**self.gamma, 0.0).sum(), valid.sum().float()])


# ---------------------------------------------------------------------------------------------------------------- terms by name


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossFacts:
    """What terms are made with. class_weights: (C,) or None; gamma: of focal losses; scale: spread of the values that are learned."""

    class_weights: torch.Tensor | None = None
    gamma: float = 2.0
    scale: float = 1.0


def make_values(kind):
    return lambda facts: kind(facts.scale)


OF_CLASSES = {
    "ce": lambda facts: CrossEntropyLoss(facts.class_weights),
    "focal": lambda facts: FocalLoss(facts.class_weights, facts.gamma),
    "dice": lambda facts: DiceLoss(),
    "jaccard": lambda facts: JaccardLoss(),
    "tversky": lambda facts: TverskyLoss(),
    "lovasz": lambda facts: LovaszLoss(),
}
# {task: {name: LossFacts → term}}. Overlaps (dice, jaccard, tversky, lovasz) already count each class alike, and take no class weights.
TERMS: dict[str, dict[str, Callable]] = {
    "segmentation": OF_CLASSES,
    "classification": {name: OF_CLASSES[name] for name in ("ce", "focal")},
    "multilabel": {
        "bce": lambda facts: BCELoss(facts.class_weights),
        "focal": lambda facts: BinaryFocalLoss(facts.class_weights, facts.gamma),
    },
    "regression": {
        "mse": make_values(MSELoss), "rmse": make_values(RMSELoss), "mae": make_values(MAELoss), "huber": make_values(HuberLoss),
    },
}


def require_terms(task, names):
    """UserError where a task has no such loss."""
    for name in names:
        if name not in TERMS[task]:
            known = TERMS[task]
            raise UserError(f"--loss {name}: the losses of {task} are {', '.join(known)}.{did_you_mean(name, known)}")


class WeightedLoss(nn.Module):
    """
    The weighted sum of the terms of one head. loss(output, target) → (total, {"ce_loss": …, …}); the parts stay tensors.

    terms: {name: term} of one kind, which share what is computed of the output; weights: {name: weight}.
    reduce: adds the sums of all processes and lets the gradient through (runtime/distributed.py), so that each process sees the loss of the
    global batch. None for one process.
    """

    def __init__(self, terms, weights, reduce=None):
        super().__init__()
        self.terms, self.weights, self.reduce = nn.ModuleDict(terms), weights, reduce
        self.prepare = next(iter(terms.values())).prepare

    @property
    def names(self):
        return tuple(self.terms)

    def forward(self, output, target):
        output = as_model_output(output).output
        sums = self.sums(output, target)
        return self.from_sums(self.reduce(sums) if self.reduce else sums, output.shape[1])

    def size(self, outputs):
        """How many numbers `sums` has."""
        return sum(term.size(outputs) for term in self.terms.values())

    def sums(self, output, target):
        """→ (size,) float32, in the order of the terms."""
        shared = self.prepare(output, target)
        return torch.cat([term.sums(*shared) for term in self.terms.values()])

    def from_sums(self, sums, outputs=None):
        """→ (total, named parts) of added sums. outputs: of the head; by default as many as the sums tell."""
        outputs = self.outputs_of(len(sums)) if outputs is None else outputs
        parts = sums.split([term.size(outputs) for term in self.terms.values()])
        parts = {name: term.from_sums(part) for (name, term), part in zip(self.terms.items(), parts, strict=True)}
        return sum(self.weights[name] * part for name, part in parts.items()), parts

    def outputs_of(self, length):
        """For how many outputs `sums` has this length."""
        none, one = self.size(0), self.size(1)
        return (length - none) // (one - none) if one > none else 1


def make_loss(task, weights, facts, reduce=None):
    """The WeightedLoss of {name: weight}, whose parts are called ce_loss and so on."""
    require_terms(task, weights)
    terms = {f"{name}_loss": TERMS[task][name](facts) for name in weights}
    return WeightedLoss(terms, {f"{name}_loss": weight for name, weight in weights.items()}, reduce)


class CombinedLoss(WeightedLoss):
    """0.5 · cross-entropy (or focal) + 0.5 · Dice: what train.py takes without --loss. Its parts are "ce_loss" and "dice_loss"."""

    def __init__(self, class_weights=None, use_focal=False, focal_gamma=2.0, ce_weight=0.5, dice_weight=0.5, reduce=None):
        pixel_term = FocalLoss(class_weights, focal_gamma) if use_focal else CrossEntropyLoss(class_weights)
        super().__init__({"ce_loss": pixel_term, "dice_loss": DiceLoss()}, {"ce_loss": ce_weight, "dice_loss": dice_weight}, reduce)


class Criterion(nn.Module):
    """
    The loss of all heads: that of the main one, plus weight · that of each auxiliary one.

    criterion(ModelOutput or tensor, target) → (total, parts): those of the main head, and "aux <name>" for each other. auxiliary: {name:
    (WeightedLoss, weight)}; UserError where the heads of the output are others. sums and from_sums are of the main head alone: what
    validation tells.
    """

    def __init__(self, main, auxiliary=None, reduce=None):
        super().__init__()
        self.main, self.reduce = main, reduce
        self.auxiliary = {name: loss for name, (loss, _) in (auxiliary or {}).items()}
        self.auxiliary_weights = {name: weight for name, (_, weight) in (auxiliary or {}).items()}
        self.owned = nn.ModuleList(self.auxiliary.values())  # names may hold what ModuleDict refuses

    @property
    def names(self):
        return (*self.main.names, *(f"aux {name}" for name in self.auxiliary))

    def forward(self, output, target):
        output = as_model_output(output)
        self.require_heads(output.auxiliary_heads)
        heads = [(self.main, output.output), *((loss, output.auxiliary_heads[name]) for name, loss in self.auxiliary.items())]
        sums = [loss.sums(values, target) for loss, values in heads]
        added = torch.cat(sums)
        if self.reduce:
            added = self.reduce(added)
        parts = added.split([len(part) for part in sums])
        (total, named), *others = (loss.from_sums(part, values.shape[1]) for part, (loss, values) in zip(parts, heads, strict=True))
        for name, (value, _) in zip(self.auxiliary, others, strict=True):
            total, named = total + self.auxiliary_weights[name] * value, {**named, f"aux {name}": value}
        return total, named

    def require_heads(self, found):
        if set(found) != set(self.auxiliary):
            heads, losses = (", ".join(sorted(names)) or "none" for names in (found, self.auxiliary))
            raise UserError(f"the network's auxiliary heads are {heads}, their losses {losses}; name both alike, or return "
                            "no such heads")

    def size(self, outputs):
        return self.main.size(outputs)

    def sums(self, output, target):
        return self.main.sums(as_model_output(output).output, target)

    def from_sums(self, sums):
        return self.main.from_sums(sums)
