"""
TinyDet and BigDet: boxes in frames of one size, from their pixels alone.

    detector = build_small_detector(SmallConfig(model="big", max_boxes=16, target_size=(384, 384)))
    boxes, logits, labels = detector(frames)       # frames (B, 3, H, W) float32, 0..1, of the target size

boxes (B, M, 4): x0, y0, x1, y1 as shares of width and height. logits (B, M): whether there is an object; the best first. labels (B, M)
int64: classes 1 … K. TinyDet gives one box a frame, that of the largest object; BigDet gives max_boxes of them. Every cell of a grid
proposes a box, at a stride of 16 pixels in TinyDet and of 8 in BigDet. The best proposals are the output, each averaged with those that
agree with it.
"""

import dataclasses
import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from detection.centre import cells
from detection.detections import averaged_boxes
from detection.encoders import SMALL, Neck, PublishedEncoder, load_pretrained, make_encoder, padded
from nets.small_encoder import ConvBlock, ResidualBlock
from runtime.checkpoint import config_from_dict, config_to_dict, load_weights
from runtime.errors import UserError

MODELS = ("tiny", "big")
NAMES = {"tiny": "TinyDet", "big": "BigDet"}
BANDS = ("red", "green", "blue")
PRIOR = 0.01  # score of an untrained network
MEAN, STD = 0.5, 0.25  # by which frames are scaled; the pretrained encoders expect about that too


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallConfig:
    """
    Everything that decides a detector's shape: the checkpoint's "model", forced on resume.

    max_boxes: of the warehouse, and so many BigDet gives. target_size: (W, H) of the frames. usual: (width, height) in pixels of a usual
    object. encoder: of BigDet; TinyDet has its own.
    """

    model: str = "tiny"
    max_boxes: int = 16
    target_size: tuple[int, int] = (384, 384)
    resize_mode: str = "letterbox"
    classes: tuple[str, ...] = ("object",)
    encoder: str = SMALL
    usual: tuple[float, float] = (48.0, 48.0)

    @classmethod
    def from_dict(cls, values):
        return config_from_dict(cls, values)

    def to_dict(self):
        return config_to_dict(dataclasses.asdict(self))


class Proposals(NamedTuple):
    """Of every cell. classes: logits, (B, P, K)."""

    boxes: torch.Tensor  # (B, P, 4) xyxy, 0..1, may reach beyond the frame
    logits: torch.Tensor  # (B, P)
    classes: torch.Tensor


class SmallDetector(nn.Module):
    """See the module. trunk: images → one map (B, width, H / stride, W / stride)."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.trunk, width = (TinyTrunk(), TinyTrunk.width) if config.model == "tiny" else (BigTrunk(config.encoder), BigTrunk.width)
        self.stride, self.kept = self.trunk.stride, 1 if config.model == "tiny" else config.max_boxes
        self.score = nn.Sequential(self.trunk.head(width), nn.Conv2d(width, 1, 1))
        self.box = nn.Sequential(self.trunk.head(width), nn.Conv2d(width, 4, 1))
        self.kind = nn.Conv2d(width, len(config.classes), 1) if len(config.classes) > 1 else None
        nn.init.constant_(self.score[-1].bias, -math.log((1 - PRIOR) / PRIOR))
        nn.init.zeros_(self.box[-1].weight)
        nn.init.zeros_(self.box[-1].bias)
        self.register_buffer("usual", torch.tensor(config.usual, dtype=torch.float32))

    def proposals(self, frames):
        """Proposals of frames (B, 3, H, W)."""
        height, width = frames.shape[-2:]
        rows, columns = -(-height // self.stride), -(-width // self.stride)
        x = self.trunk(padded((frames - MEAN) / STD))[..., :rows, :columns]
        raw = self.box(x).float()
        centre = (cells((rows, columns), raw.device) + raw[:, :2]) * self.stride
        half = 0.5 * self.usual[:, None, None] * raw[:, 2:].clamp(-4.0, 4.0).exp()
        boxes = torch.cat([centre - half, centre + half], dim=1) / raw.new_tensor([width, height, width, height])[:, None, None]
        kinds = self.kind(x).float() if self.kind is not None else raw[:, :1] * 0
        return Proposals(boxes.flatten(2).transpose(1, 2), self.score(x).float().flatten(1), kinds.flatten(2).transpose(1, 2))

    def forward(self, frames):
        """(boxes (B, M, 4) in 0..1, logits (B, M), labels (B, M)), the best first."""
        return self.best(self.proposals(frames))

    def best(self, found):
        """What forward gives, of Proposals."""
        logits, best = found.logits.topk(min(self.kept, found.logits.shape[1]), dim=1)
        own, kind = found.boxes.gather(1, best[..., None].expand(-1, -1, 4)), found.classes.argmax(dim=2)
        kinds = kind.gather(1, best)
        weights = found.logits.sigmoid()[:, None] * (kind[:, None] == kinds[..., None])
        return averaged_boxes(own, found.boxes[:, None], weights).clamp(0.0, 1.0), logits, kinds + 1


class TinyTrunk(nn.Module):
    """(B, 3, H, W) → (B, 40, H / 16, W / 16); 85 thousand weights with the heads. Dilated convolutions look at 300 pixels around a cell."""

    stride, width = 16, 40

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            ConvBlock(12, 16), ResidualBlock(16, 24, stride=2), ResidualBlock(24, 32, stride=2), ResidualBlock(32, 40, stride=2),
            dilated(40, 2), dilated(40, 4),
        )

    def head(self, width):
        return nn.Identity()

    def forward(self, x):
        return self.layers(F.pixel_unshuffle(x, 2))


def dilated(width, by):
    """A 3 x 3 convolution whose taps are `by` cells apart, with batch normalisation and ReLU."""
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=by, dilation=by, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))


class BigTrunk(nn.Module):
    """(B, 3, H, W) → (B, 48, H / 8, W / 8): the trunk of detection/centre.py without its finest map."""

    stride, width = 8, 48

    def __init__(self, encoder):
        super().__init__()
        self.encoder = make_encoder(encoder, 3, BANDS)
        self.neck = Neck(self.encoder.channels[1:], self.width)

    def head(self, width):
        return ConvBlock(width, width)

    def forward(self, x):
        return self.neck(self.encoder(x)[1:])


def build_small_detector(config, encoder_weights=None):
    """A SmallDetector with random weights, or its encoder filled with "imagenet" or a file."""
    detector = SmallDetector(config)
    if isinstance(encoder := getattr(detector.trunk, "encoder", None), PublishedEncoder):
        encoder.encoder.expect([MEAN] * len(BANDS), [STD] * len(BANDS), pictures=True)
    if encoder_weights not in (None, "none"):
        load_pretrained(detector.trunk.encoder, config.encoder, encoder_weights, BANDS)
    return detector


def small_detector_from_checkpoint(checkpoint, averaged=True):
    """
    The SmallDetector of a loaded checkpoint, in eval mode. UserError where its parts do not fit.

    averaged: with the average of the weights; False: with the last ones, to train on.
    """
    name, config, state = checkpoint.get("path", "the checkpoint"), checkpoint["model"], checkpoint["state"]
    weights = (averaged and state.get("average") or state.get("model")) if isinstance(state, dict) else None
    if not isinstance(config, dict) or config.get("model") not in MODELS or not isinstance(weights, dict):
        raise UserError(f"{name} is damaged: it does not hold a detector's description and weights; take another checkpoint")
    detector = SmallDetector(SmallConfig.from_dict(config))
    load_weights(detector, weights, name, NAMES[detector.config.model])
    return detector.eval()
