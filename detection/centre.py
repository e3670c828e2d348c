"""
Objects as peaks of a heat map: every cell of 4 x 4 pixels says how likely an object's centre lies in it, and which box it then has. For
small objects, or such that touch each other, cells are of 2 x 2 pixels: the network then sees its images enlarged twice.

After Zhou et al., Objects as Points (2019); the elliptic peaks, and boxes learned around the centre, after Liu et al.,
Training-Time-Friendly Network (2020), which needs far fewer steps.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from detection.detections import Detections, averaged_boxes, box_giou, doubles
from detection.encoders import ConvBlock, Neck, make_encoder, padded
from nets.turns import VIEWS, boxes_turned_back, turned, turned_back

STRIDE = 4  # pixels of a cell, in the image that the encoder sees
SPREAD = 0.54  # of a box's side that its peak covers (TTFNet's alpha); a standard deviation is a sixth of that
WEIGHTS = {"heat": 1.0, "box": 5.0}
PRIOR = 0.01  # heat of an untrained network
REACH = 3  # cells around a peak whose boxes are averaged with its own


class CentreDetector(nn.Module):
    """
    images: normalised inputs (B, in_channels, H, W), any H and W. usual: (width, height) in pixels of a usual object. bands, encoder_args:
    see detection.encoders.make_encoder. stride: pixels of the images that a cell has across, 4, 2 or 1; below 4 they are enlarged.
    """

    loss_names = tuple(WEIGHTS)

    def __init__(self, encoder, in_channels, classes, usual, width=48, bands=None, encoder_args=None, stride=STRIDE):
        super().__init__()
        self.stride = stride
        self.encoder = make_encoder(encoder, in_channels, bands, encoder_args)
        self.neck = Neck(self.encoder.channels, width)
        self.heat = nn.Sequential(ConvBlock(width, width), nn.Conv2d(width, classes, 1))
        self.box = nn.Sequential(ConvBlock(width, width), nn.Conv2d(width, 4, 1))
        nn.init.constant_(self.heat[-1].bias, -math.log((1 - PRIOR) / PRIOR))
        nn.init.zeros_(self.box[-1].weight)
        nn.init.zeros_(self.box[-1].bias)
        self.register_buffer("usual", torch.tensor(usual, dtype=torch.float32))
        self.to(memory_format=torch.channels_last)  # a fifth off a training step on a CPU, a third off a map

    def forward(self, images):
        """→ (heat logits (B, K, h, w), boxes (B, 4, h, w) xyxy in pixels), h and w those of cells that have a pixel of the image."""
        height, width = images.shape[-2:]
        if self.stride != STRIDE:
            images = F.interpolate(images, scale_factor=STRIDE // self.stride, mode="bilinear", align_corners=False)
        x = self.neck(self.encoder(padded(images).contiguous(memory_format=torch.channels_last)))
        h, w = -(-height // self.stride), -(-width // self.stride)
        return self.heat(x)[..., :h, :w].float(), self.decode(self.box(x)[..., :h, :w].float())

    def decode(self, raw):
        """(B, 4, h, w): shift of the centre in cells, logarithm of the size in usual sizes → boxes in pixels."""
        centre = (cells(raw.shape[-2:], raw.device) + raw[:, :2]) * self.stride
        half = 0.5 * self.usual[:, None, None] * raw[:, 2:].clamp(-4.0, 4.0).exp()
        return torch.cat([centre - half, centre + half], dim=1)

    def losses(self, images, targets, total=lambda number: number):
        """{name: scalar}. targets: a list of {"boxes" (N, 4), "labels" (N,), "ignore" (M, 4)}. total: see Detector.losses."""
        logits, boxes = self(images)
        heat, weight, truth, share = (part.to(logits.device) for part in make_targets(targets, logits.shape, self.stride))
        objects = total(torch.tensor(float(sum(len(target["boxes"]) for target in targets)), device=logits.device)).clamp(min=1.0)
        overlap = box_giou(boxes, truth, dim=1)
        return {
            "heat": WEIGHTS["heat"] * (heat_loss(logits, heat) * weight).sum() / objects,
            "box": WEIGHTS["box"] * ((1.0 - overlap) * share).sum() / total(share.sum()).clamp(min=1e-6),
        }

    def maps(self, images, tta=False):
        """→ (heat (B, K, h, w) in 0..1, boxes (B, 4, h, w)) as forward() has them. tta: the mean over the eight flips and turns."""
        if not tta:
            logits, boxes = self(images)
            return logits.sigmoid(), boxes
        h, w = (-(-side // self.stride) for side in images.shape[-2:])
        images = padded(images)  # so that the cells of a turned image are those of the image
        heat = boxes = 0
        for view in VIEWS:
            logits, found = self(turned(images, view))
            found = boxes_turned_back(turned_back(found, view).unbind(1), view, images.shape[-2:])
            heat, boxes = heat + turned_back(logits.sigmoid(), view), boxes + torch.stack(found, dim=1)
        return heat[..., :h, :w] / len(VIEWS), boxes[..., :h, :w] / len(VIEWS)

    def best(self, images, count, tta=False):
        """→ (boxes (B, N, 4) within the images, scores (B, N), labels (B, N)) of the highest peaks, the best first; N is at most count."""
        heat, boxes = self.maps(images, tta)
        height, width = images.shape[-2:]
        peak = (heat * (F.max_pool2d(heat, 3, 1, 1) == heat)).flatten(1)
        scores, index = peak.topk(min(count, peak.shape[1]), dim=1)
        around, weights = boxes_around(heat, boxes, index)
        x0, y0, x1, y1 = averaged_boxes(around[..., around.shape[2] // 2, :], around, weights).unbind(2)
        places = torch.stack([x0.clamp(0, width), y0.clamp(0, height), x1.clamp(0, width), y1.clamp(0, height)], dim=2)
        return places, scores, index // (boxes.shape[-2] * boxes.shape[-1]) + 1

    def predict(self, images, score_threshold=0.05, limit=300, tta=False):
        """A list of Detections, one an image, sorted by score. tta: see maps()."""
        return [above(*one, score_threshold, limit) for one in zip(*self.best(images, limit + 1, tta), strict=True)]


def boxes_around(heat, boxes, index):
    """
    (boxes (B, N, 49, 4), heat (B, N, 49) for the class of the peak) of the 7 x 7 cells around each of `index` (B, N) of heat.flatten(1),
    row by row. Cells beyond the border have no heat.

    heat: (B, K, h, w). boxes: (B, 4, h, w).
    """
    h, w = heat.shape[-2:]
    label, row, column = index // (h * w), index % (h * w) // w, index % w
    tall, wide = h + 2 * REACH, w + 2 * REACH
    steps = torch.arange(-REACH, REACH + 1, device=heat.device)
    near = (row + REACH)[..., None] * wide + (column + REACH)[..., None] + (steps[:, None] * wide + steps).flatten()
    around = F.pad(boxes, (REACH,) * 4).flatten(2).gather(2, near.flatten(1)[:, None].expand(-1, 4, -1)).unflatten(2, near.shape[1:])
    heat = F.pad(heat, (REACH,) * 4).flatten(1).gather(1, (near + label[..., None] * tall * wide).flatten(1)).unflatten(1, near.shape[1:])
    return around.permute(0, 2, 3, 1), heat


def above(boxes, scores, labels, score_threshold, limit):
    """Detections of one image, whose boxes are sorted by score: at most `limit` with a score above the threshold, without doubles."""
    count = int((scores > score_threshold).sum())
    boxes, scores, labels = (values[: min(count, limit)] for values in (boxes, scores, labels))
    new = ~doubles(boxes, labels)
    return Detections(boxes[new], scores[new], labels[new], None, count > limit)


def cells(size, device):
    """(2, h, w): x and y of each cell's centre, in cells."""
    h, w = size
    y, x = torch.meshgrid(torch.arange(h, device=device) + 0.5, torch.arange(w, device=device) + 0.5, indexing="ij")
    return torch.stack([x, y])


def make_targets(targets, shape, stride=STRIDE):
    """
    On the CPU, where targets are: one transfer instead of one for each object.

    → heat (B, K, h, w) in 0..1, 1 at the centres; weight (B, 1, h, w), 0 in ignore regions; truth (B, 4, h, w), the box that a cell
    belongs to; share (B, h, w), how much it counts for the boxes. A cell that two boxes claim belongs to the smaller one.
    """
    batch, classes, h, w = shape
    heat, share = torch.zeros(shape), torch.zeros(batch, h, w)
    weight, truth = torch.ones(batch, 1, h, w), torch.zeros(batch, 4, h, w)
    x, y = cells((h, w), "cpu")
    for i, target in enumerate(targets):
        boxes, labels = target["boxes"].float(), target["labels"]
        for left, top, right, bottom in target["ignore"].float() / stride if len(target["ignore"]) else ():
            weight[i, 0][(x > left - 0.5) & (x < right + 0.5) & (y > top - 0.5) & (y < bottom + 0.5)] = 0.0
        if not len(boxes):
            continue
        order = (-(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).argsort(stable=True)  # the smallest is painted last
        for box, label in zip(boxes[order], labels[order], strict=True):
            left, top, right, bottom = (box / stride).tolist()
            paint(heat[i, int(label) - 1], share[i], truth[i], weight[i, 0], box, left, top, right, bottom)
    return heat, weight, truth, share


def paint(heat, share, truth, weight, box, left, top, right, bottom):
    """One object's peak. Only the cells that it reaches are touched."""
    h, w = heat.shape
    centre_x, centre_y = (left + right) / 2, (top + bottom) / 2
    # at least a third of a cell, so that the neighbours of a tiny object's cell learn a little too
    spread_x, spread_y = max(1 / 3, (right - left) * SPREAD / 6), max(1 / 3, (bottom - top) * SPREAD / 6)
    column, row = min(w - 1, max(0, int(centre_x))), min(h - 1, max(0, int(centre_y)))
    x0, x1 = max(0, int(column - 3 * spread_x)), min(w, int(column + 3 * spread_x) + 2)
    y0, y1 = max(0, int(row - 3 * spread_y)), min(h, int(row + 3 * spread_y) + 2)
    across = torch.exp(-((torch.arange(x0, x1) - column) / spread_x) ** 2 / 2)
    down = torch.exp(-((torch.arange(y0, y1) - row) / spread_y) ** 2 / 2)
    peak = down[:, None] * across
    part = (slice(y0, y1), slice(x0, x1))
    heat[part] = torch.maximum(heat[part], peak)
    weight[row, column] = 1.0  # a known object counts, also within an ignore region
    own = peak > 0.1
    # as TTFNet: every object counts by the logarithm of its area, shared among its cells
    area = math.log1p((right - left) * (bottom - top))
    share[part] = torch.where(own, area * peak / peak[own].sum(), share[part])
    truth[:, part[0], part[1]] = torch.where(own, box[:, None, None], truth[:, part[0], part[1]])


def heat_loss(logits, heat):
    """Focal loss of Objects as Points (alpha 2, beta 4), per cell and class. Logits are float32."""
    positive = heat == 1.0
    log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
    p = logits.sigmoid()
    return torch.where(positive, -((1 - p) ** 2) * log_p, -((1 - heat) ** 4) * p**2 * log_not_p)
