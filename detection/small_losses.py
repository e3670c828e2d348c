"""Losses of TinyDet and BigDet: proposals are matched one to one with the objects of their frame."""

import torch
from torch.nn import functional as F

from detection.detections import box_giou

NAMES = ("box", "obj", "iou", "class")
RIGHT = 0.5  # IoU from which a proposal that is not matched counts as neither object nor background


def pair_ious(boxes, truth):
    """(B, P, 4), (B, M, 4) → (B, P, M) intersection over union; 0 where neither has an area."""
    low = torch.maximum(boxes[:, :, None, :2], truth[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], truth[:, None, :, 2:])
    inner = (high - low).clamp(min=0).prod(dim=3)
    areas = [(b[..., 2:] - b[..., :2]).clamp(min=0).prod(dim=2) for b in (boxes, truth)]
    return inner / (areas[0][:, :, None] + areas[1][:, None] - inner).clamp(min=1e-12)


def match(boxes, truth, mask):
    """
    (B, M) int64: the proposal of each object, −1 for padded slots and where there are more objects than proposals.

    boxes (B, P, 4), truth (B, M, 4), mask (B, M) bool. Greedy and one to one: of all pairs that are left the one with the highest IoU is
    taken, of equal ones that with the smallest L1 distance, then the first. An object that no proposal overlaps gets the nearest.
    """
    with torch.no_grad():
        batch, proposals, slots = len(boxes), boxes.shape[1], truth.shape[1]
        ious = pair_ious(boxes, truth).masked_fill(~mask[:, None], -1.0).flatten(1)
        far = (boxes[:, :, None] - truth[:, None]).abs().sum(dim=3).flatten(1)
        found = torch.full((batch, slots), -1, dtype=torch.int64, device=boxes.device)
        rows = torch.arange(batch, device=boxes.device)
        for _ in range(min(int(mask.sum(dim=1).max()), proposals) if mask.numel() else 0):
            best = ious.max(dim=1, keepdim=True).values
            pick = far.masked_fill(ious < best, torch.inf).argmin(dim=1)
            left = best[:, 0] >= 0  # −1: nothing is left of this frame
            place, slot = pick // slots, pick % slots
            found[rows[left], slot[left]] = place[left]
            taken = ious.view(batch, proposals, slots)
            taken[rows[left], place[left]] = -1.0
            taken[rows[left], :, slot[left]] = -1.0
        return found


def only_largest(truth, mask):
    """The mask of the largest object of each frame alone: what TinyDet learns."""
    areas = (truth[..., 2:] - truth[..., :2]).prod(dim=2).masked_fill(~mask, -1.0)
    return mask & (torch.arange(mask.shape[1], device=mask.device) == areas.argmax(dim=1, keepdim=True))


def small_losses(proposals, truth, mask, labels, *, total=lambda number: number):
    """
    {name: scalar} of small_detectors.Proposals, without their weights lambda.

    truth (B, M, 4) xyxy in 0..1, mask (B, M) bool, labels (B, M) int64 of 1 … K. box: L1 of the four coordinates. obj: binary cross-entropy
    of all cells. iou: 1 − generalised IoU. class: cross-entropy. Each is a sum over the objects' own proposals (obj: over all) divided by
    the number of objects. total: adds a scalar up over the processes of a run, so that each has its part of the global batch's loss.
    """
    found = match(proposals.boxes.detach(), truth, mask)
    objects = total((found >= 0).sum().float()).clamp(min=1.0)
    frame, slot = torch.nonzero(found >= 0, as_tuple=True)
    place = found[frame, slot]
    target = torch.zeros_like(proposals.logits)
    target[frame, place] = 1.0
    with torch.no_grad():
        overlap = pair_ious(proposals.boxes, truth).masked_fill(~mask[:, None], 0.0).amax(dim=2)
        weight = ((overlap < RIGHT) | (target > 0)).float()
    boxes, wanted = proposals.boxes[frame, place], truth[frame, slot]
    several = proposals.classes.shape[2] > 1
    kinds = F.cross_entropy(proposals.classes[frame, place], labels[frame, slot] - 1, reduction="sum") if several else target.sum() * 0
    return {
        "box": (boxes - wanted).abs().sum() / objects,
        "obj": F.binary_cross_entropy_with_logits(proposals.logits, target, weight, reduction="sum") / objects,
        "iou": (1.0 - box_giou(boxes, wanted)).sum() / objects,
        "class": kinds / objects,
    }
