"""
Config → detector: one table of frameworks, and Detector, which the programs talk to.

    detector = build_detector(DetectorConfig(bands=("red", "green", "blue"), classes=("elephant",)))
    losses = detector.losses(images, targets)        # images (B, bands, H, W) float32; targets [{"boxes", "labels", "ignore"}]
    found = detector.predict(images)                 # a list of Detections

To add a framework: a class with losses(images, targets) and predict(images, score_threshold, limit), and a line in build_network.
"""

import dataclasses

import torch
from torch import nn

from detection.centre import STRIDE, CentreDetector
from detection.detections import CENTRE
from detection.encoders import SMALL, PublishedEncoder, freeze, load_pretrained
from detection.torchvision_detectors import FRAMEWORKS, TorchvisionDetector
from nets.adapter_file import with_base
from nets.input_step import InputStep
from nets.lora import add_lora
from runtime.checkpoint import config_from_dict, config_to_dict, load_weights
from runtime.errors import UserError, did_you_mean

ALL_FRAMEWORKS = (CENTRE, *FRAMEWORKS)
ENCODERS = {CENTRE: SMALL}  # the encoder where none is named
USUAL_ENCODER = "resnet50"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """
    Everything that decides a detector's shape: the checkpoint's "model", forced on resume.

    mean, std: a number a band, in the scale of the images. usual: (width, height) of a usual object, for centre; anchor_sizes (one for each
    of four feature maps) and anchor_ratios (height / width) for the others, all in pixels. proposals: of Faster and Mask R-CNN.
    encoder_args: of --encoder-args. lora: rank of the encoder's adapters (nets/lora.py), 0 without any. stride: pixels of a cell of
    centre's heat map.
    """

    framework: str = CENTRE
    encoder: str = SMALL
    bands: tuple[str, ...] = ("red", "green", "blue")
    classes: tuple[str, ...] = ("object",)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    usual: tuple[float, float] = (32.0, 32.0)
    anchor_sizes: tuple[float, ...] = (16.0, 32.0, 64.0, 128.0)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    proposals: int = 1000
    encoder_args: dict = dataclasses.field(default_factory=dict)
    lora: int = 0
    stride: int = STRIDE

    @classmethod
    def from_dict(cls, values):
        return config_from_dict(cls, values)

    def to_dict(self):
        values = config_to_dict(dataclasses.asdict(self))
        absent = {"encoder_args": {}, "lora": 0, "stride": STRIDE}  # as in the checkpoints of before these were there
        return {key: value for key, value in values.items() if key not in absent or value != absent[key]}


def build_detector(config, encoder_weights=None, pictures=True):
    """
    A Detector with random weights, or its encoder filled with "imagenet" or a file. pictures: its images are brightness, not reflectance,
    which matters to encoders with statistics of their own.
    """
    detector = Detector(config)
    if isinstance(encoder := detector.network.encoder, PublishedEncoder):
        encoder.encoder.expect(config.mean, config.std, pictures)
    if encoder_weights not in (None, "none"):
        load_pretrained(detector.network.encoder, config.encoder, encoder_weights, config.bands)
    return detector


def build_network(config):
    if config.framework == CENTRE:
        return CentreDetector(config.encoder, len(config.bands), len(config.classes), config.usual, bands=config.bands,
                              encoder_args=config.encoder_args, stride=config.stride)
    if config.framework not in FRAMEWORKS:
        near = did_you_mean(config.framework, ALL_FRAMEWORKS)
        raise UserError(f"unknown framework {config.framework!r}; expected one of {', '.join(ALL_FRAMEWORKS)}.{near}")
    anchors = (config.anchor_sizes, config.anchor_ratios)
    return TorchvisionDetector(config.framework, config.encoder, len(config.bands), len(config.classes), anchors, config.proposals,
                               config.bands, config.encoder_args)


def detector_from_checkpoint(checkpoint, averaged=True):
    """
    The Detector of a loaded checkpoint of kind "detection", in eval mode. UserError where its parts do not fit.

    averaged: with the average of the weights, where the training kept one; False: with the last ones, to train on.
    """
    name = checkpoint.get("path", "the checkpoint")
    config, state = checkpoint["model"], checkpoint["state"]
    weights = (averaged and state.get("average") or state.get("model")) if isinstance(state, dict) else None
    if not isinstance(config, dict) or not isinstance(weights, dict):
        raise UserError(f"{name} is damaged: it does not hold a detector's description and weights; take another checkpoint")
    detector = Detector(DetectorConfig.from_dict(config))
    if "base" in checkpoint:
        weights = with_base(detector, checkpoint, weights, load_pretrained)
    load_weights(detector, weights, name, detector.config.framework)
    return detector.eval()


class Detector(nn.Module):
    """Images in the scale of the training (reflectance, or a picture's values / 255), float32; boxes xyxy in pixels; labels 1..K."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.input_step = InputStep(config.bands, (), config.mean, config.std)
        self.network = build_network(config)
        if config.lora:
            add_lora(self.network.encoder, config.lora, f"encoder {config.encoder}")
        self.frozen = False

    def losses(self, images, targets, total=lambda number: number):
        """
        {name: scalar}, whose sum is to be made small. targets: a list of {"boxes" (N, 4) float32, "labels" (N,) int64, "ignore" (M, 4)}.

        total: sums a number over all processes. With it each process's losses are its part of those of the global batch.
        """
        require_images(images, self.config.bands)
        for target in targets:
            require_target(target, len(self.config.classes))
        return self.network.losses(self.input_step(images), targets, total)

    def predict(self, images, score_threshold=0.05, limit=300, tta=False):
        """
        A list of Detections, one an image, sorted by score. Not for training: eval mode and no gradients. tta: the mean over the eight
        flips and turns, for `centre`.
        """
        require_images(images, self.config.bands)
        if tta and self.config.framework != CENTRE:
            raise ValueError(f"the mean over flips and turns is one of heat maps, which {self.config.framework} does not have")
        if self.training:
            raise ValueError("predict() of a detector in training mode; call eval() before")
        with torch.no_grad():
            views = {"tta": True} if tta else {}
            return self.network.predict(self.input_step(images), score_threshold, limit, **views)

    def freeze_encoder(self, frozen):
        """Stop or allow the training of the encoder, batch normalisation included."""
        self.frozen = frozen
        freeze(self.network.encoder, frozen)

    def train(self, mode=True):
        super().train(mode)
        if self.frozen:
            self.network.encoder.eval()
        return self


def require_images(images, bands):
    if images.ndim != 4 or images.shape[1] != len(bands) or not images.is_floating_point():
        raise ValueError(f"expected float images (B, {len(bands)}, H, W), got {images.dtype} {tuple(images.shape)}")


def require_target(target, classes):
    """ValueError for what would be misread: boxes of shape (0,), integer boxes, labels outside 1..K."""
    boxes, labels = target["boxes"], target["labels"]
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not boxes.is_floating_point():
        raise ValueError(f"expected float boxes (N, 4), got {boxes.dtype} {tuple(boxes.shape)}")
    if labels.shape != boxes.shape[:1] or labels.dtype != torch.int64 or (len(labels) and not 1 <= labels.min() <= labels.max() <= classes):
        raise ValueError(f"expected {len(boxes)} int64 labels of 1..{classes}, got {labels.dtype} {labels.tolist()[:5]}")

