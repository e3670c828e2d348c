"""Boxes as tensors: xyxy in pixels, what a detector found, from which score on it counts, overlaps."""

from typing import NamedTuple

import torch

from runtime.errors import UserError

CENTRE = "centre"  # the framework that is no library's
UNCHOSEN = 0.3  # score from which detections count, where nothing has chosen one
DOUBLE = 0.6  # share of the smaller of two boxes within the other, from which they are one object if it has less than half of the area
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


def tta_of(data, wanted, able, stated=False):
    """
    (whether to take the mean over flips and turns, what to warn of or ""): as asked for, else as the validation of a checkpoint did.

    data: the checkpoint's. wanted: of the flag, None where it is not given. able: whether the detector can. stated: whether the score
    threshold is not the checkpoint's. UserError where it is asked for and cannot be.
    """
    if wanted and not able:
        raise UserError("--tta is for checkpoints of --framework centre, not for exported files or other detectors; leave it out")
    usual = bool(data.get("tta"))
    tta = able and (usual if wanted is None else wanted)
    if tta == usual or stated or data.get("threshold") is None:
        return tta, ""
    return tta, (f"the score threshold {data['threshold']:.2f} was chosen with{'' if usual else 'out'} --tta, and may not be the best "
                 f"with{'' if tta else 'out'} it; train with{'' if tta else 'out'} --tta for one that is")


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


def doubles(boxes, labels):
    """
    (N,) bool: boxes of objects that a better box of their class has already. One of the two lies mostly in the other (DOUBLE) and is less
    than half as large, so that their IoU is too low for suppression to see it.

    boxes: (N, 4), the best first. labels: (N,).
    """
    sides = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    smaller, larger = torch.minimum(area[:, None], area), torch.maximum(area[:, None], area)
    inside = (sides.clamp(min=0).prod(dim=2) > DOUBLE * smaller) & (smaller < 0.5 * larger)
    return (inside & (labels[:, None] == labels)).tril(-1).any(dim=1)
