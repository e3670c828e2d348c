"""Boxes as tensors: xyxy in pixels, what a detector found, from which score on it counts, overlaps."""

from typing import NamedTuple

import torch

UNCHOSEN = 0.3  # score from which detections count, where nothing has chosen one
AGREE = 0.4  # GIoU from which the boxes of two cells are taken for those of one object, and averaged


class Detections(NamedTuple):
    """Of one image, sorted by score. masks: (N, H, W) bool or None. full: whether a limit cut the list short."""

    boxes: torch.Tensor  # (N, 4) float32, xyxy pixels
    scores: torch.Tensor  # (N,) float32, 0..1
    labels: torch.Tensor  # (N,) int64, 1..K
    masks: torch.Tensor | None = None
    full: bool = False


def score_of(data):
    """
    The score from which the detections of a checkpoint count. data: the checkpoint's, with "threshold", which validation has chosen, and
    "stated_threshold", which --threshold gave to a run without validation; None stands for none.
    """
    return next((data[name] for name in ("threshold", "stated_threshold") if data.get(name) is not None), UNCHOSEN)


def box_giou(one, other, dim=-1):
    """
    Generalised IoU of boxes, pair by pair, -1..1: IoU minus the share of the enclosing box that neither covers (Rezatofighi et al., 2019).

    dim: the axis with the four coordinates.
    """
    a, b = one.unbind(dim), other.unbind(dim)
    inner = (torch.minimum(a[2], b[2]) - torch.maximum(a[0], b[0])).clamp(min=0) * (
        torch.minimum(a[3], b[3]) - torch.maximum(a[1], b[1])).clamp(min=0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner
    outer = (torch.maximum(a[2], b[2]) - torch.minimum(a[0], b[0])) * (torch.maximum(a[3], b[3]) - torch.minimum(a[1], b[1]))
    return inner / union.clamp(min=1e-6) - (outer - union) / outer.clamp(min=1e-6)


def averaged_boxes(own, others, weights):
    """
    (..., 4): the weighted mean of the boxes that agree with each one, its own among them: box voting after Gidaris and Komodakis (2015),
    here among cells of a grid, since the box of one cell alone is noisy.

    own: (..., 4). others: (..., P, 4), own among them. weights: (..., P), scores from 0. Boxes agree from a GIoU of AGREE. Where what
    agrees weighs nothing, a box stays as it is.
    """
    weights = weights * (box_giou(own[..., None, :], others) >= AGREE)
    total = weights.sum(dim=-1, keepdim=True)
    return torch.where(total > 1e-12, (weights[..., None] * others).sum(dim=-2) / total.clamp(min=1e-12), own)
