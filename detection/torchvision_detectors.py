"""
torchvision's detectors on any encoder and any number of bands: Faster R-CNN, Mask R-CNN, RetinaNet, FCOS.

What torchvision decides for photographs is decided here for tiles: no resizing (it would enlarge a tile of 256 x 192 pixels to 1088 x 800),
inputs that are normalised already, anchors for four feature maps, a score threshold that keeps what a map may need, heads and NMS in fp32.
"""

from collections import OrderedDict

import torch
from torch import nn
from torchvision.models import detection as library
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from detection.anchors import LEVELS
from detection.detections import Detections
from detection.encoders import make_encoder, padded

FEATURES = tuple(f"feat{i}" for i in range(LEVELS))


class PyramidBackbone(nn.Module):
    """(B, C, H, W) → {"feat0" … "feat3": (B, out_channels, H / stride, W / stride)} in float32, whatever the encoder computes in."""

    out_channels = 256

    def __init__(self, encoder, in_channels, bands=None, encoder_args=None):
        super().__init__()
        self.encoder = make_encoder(encoder, in_channels, bands, encoder_args)
        self.pyramid = FeaturePyramidNetwork(list(self.encoder.channels), self.out_channels)
        self.precision = None  # torch dtype of autocast, None for fp32: set for each call

    def forward(self, images):
        with torch.autocast(images.device.type, dtype=self.precision, enabled=self.precision is not None):
            maps = self.pyramid(OrderedDict(zip(FEATURES, self.encoder(padded(images)), strict=True)))
        return OrderedDict((name, feature.float()) for name, feature in maps.items())


class AsItIs(GeneralizedRCNNTransform):
    """torchvision's step before a detector, without its resizing; the setting `_skip_resize` would spare training alone."""

    def resize(self, image, target=None):
        return image, target


class TorchvisionDetector(nn.Module):
    """
    images: normalised inputs (B, in_channels, H, W). framework: a key of FRAMEWORKS. anchors: (sizes, ratios), one size a feature map.
    proposals: regions that Faster and Mask R-CNN look at in an image. bands, encoder_args: see detection.encoders.make_encoder.
    """

    def __init__(self, framework, encoder, in_channels, classes, anchors, proposals=1000, bands=None,
                 encoder_args=None):
        super().__init__()
        backbone = PyramidBackbone(encoder, in_channels, bands, encoder_args)
        unchanged = {"image_mean": [0.0] * in_channels, "image_std": [1.0] * in_channels}
        self.network = FRAMEWORKS[framework](backbone, classes + 1, anchors, proposals, unchanged)
        self.network.transform = AsItIs(0, 0, **unchanged)
        self.framework = framework

    LOSSES = {
        "faster-rcnn": ("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"),
        "mask-rcnn": ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"),
        "retinanet": ("classification", "bbox_regression"),
        "fcos": ("classification", "bbox_regression", "bbox_ctrness"),
    }

    @property
    def loss_names(self):
        return self.LOSSES[self.framework]

    @property
    def encoder(self):
        return self.network.backbone.encoder

    def losses(self, images, targets, total=lambda number: number):
        """
        {name: scalar} as torchvision names them. These detectors know no ignore regions: what lies in one, and in no box, is filled with
        the bands' mean, so that nothing is there to be found. total: see Detector.losses.
        """
        images = fill_ignored(images, targets)
        keys = ("boxes", "labels", "masks") if self.framework == "mask-rcnn" else ("boxes", "labels")
        share = len(images) / total(torch.tensor(float(len(images)), device=images.device))
        with self.in_fp32(images):
            losses = self.network(list(images), [{key: target[key].to(images.device) for key in keys} for target in targets])
        return {name: loss * share for name, loss in losses.items()}

    def predict(self, images, score_threshold=0.05, limit=300):
        """A list of Detections, one an image, sorted by score."""
        heads = getattr(self.network, "roi_heads", self.network)
        heads.score_thresh, heads.detections_per_img = score_threshold, limit
        if heads is self.network:
            heads.topk_candidates = max(1000, 4 * limit)
        with self.in_fp32(images):
            found = self.network(list(images))
        return [self.as_detections(f, limit) for f in found]

    def as_detections(self, found, limit):
        real = found["labels"] > 0  # RetinaNet and FCOS have a channel for a class 0, which nothing teaches
        masks = found["masks"][real, 0] >= 0.5 if "masks" in found else None
        order = found["scores"][real].argsort(descending=True, stable=True)
        boxes, scores, labels = (found[key][real][order] for key in ("boxes", "scores", "labels"))
        return Detections(boxes, scores, labels, None if masks is None else masks[order], len(found["scores"]) >= limit)

    def in_fp32(self, images):
        """Heads, anchors and NMS compute in fp32; the encoder goes on in the precision that the caller had asked for."""
        kind = images.device.type
        self.network.backbone.precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        return torch.autocast(kind, enabled=False)


def faster_rcnn(backbone, classes, anchors, proposals, unchanged):
    return library.FasterRCNN(
        backbone, classes, rpn_anchor_generator=one_a_map(anchors), box_roi_pool=pooler(7), rpn_post_nms_top_n_test=proposals,
        rpn_pre_nms_top_n_test=2 * proposals, rpn_post_nms_top_n_train=2 * proposals, rpn_pre_nms_top_n_train=2 * proposals, **unchanged)


def mask_rcnn(backbone, classes, anchors, proposals, unchanged):
    return library.MaskRCNN(
        backbone, classes, rpn_anchor_generator=one_a_map(anchors), box_roi_pool=pooler(7), mask_roi_pool=pooler(14),
        rpn_post_nms_top_n_test=proposals, rpn_pre_nms_top_n_test=2 * proposals, rpn_post_nms_top_n_train=2 * proposals,
        rpn_pre_nms_top_n_train=2 * proposals, **unchanged)


def retinanet(backbone, classes, anchors, proposals, unchanged):
    sizes, ratios = anchors
    thirds = tuple(tuple(size * 2 ** (third / 3) for third in range(3)) for size in sizes)  # three a map, as in the paper
    return library.RetinaNet(backbone, classes, anchor_generator=AnchorGenerator(thirds, (ratios,) * LEVELS), **unchanged)


def fcos(backbone, classes, anchors, proposals, unchanged):
    # FCOS has no anchors: a map of stride s is for objects of 4 s to 8 s pixels, the first for smaller, the last for larger ones.
    points = AnchorGenerator(tuple((float(stride),) for stride in (4, 8, 16, 32)), ((1.0,),) * LEVELS)
    return library.FCOS(backbone, classes, anchor_generator=points, **unchanged)


def one_a_map(anchors):
    sizes, ratios = anchors
    return AnchorGenerator(tuple((size,) for size in sizes), (ratios,) * LEVELS)


def pooler(size):
    return MultiScaleRoIAlign(featmap_names=list(FEATURES), output_size=size, sampling_ratio=2)


FRAMEWORKS = {"faster-rcnn": faster_rcnn, "mask-rcnn": mask_rcnn, "retinanet": retinanet, "fcos": fcos}


def fill_ignored(images, targets):
    """images, with 0 (the mean of a normalised band) where a target's ignore region covers no box. A copy where anything changes."""
    changed = None
    for i, target in enumerate(targets):
        if not len(target["ignore"]):
            continue
        changed = images.clone() if changed is None else changed
        height, width = images.shape[-2:]
        fill = torch.zeros(height, width, dtype=torch.bool)
        for value, regions in ((True, target["ignore"]), (False, target["boxes"])):
            for left, top, right, bottom in regions.tolist():
                fill[max(0, int(top)) : int(-(-bottom // 1)), max(0, int(left)) : int(-(-right // 1))] = value
        changed[i].masked_fill_(fill.to(images.device), 0.0)
    return images if changed is None else changed
