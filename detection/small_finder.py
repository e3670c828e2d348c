"""Finds the objects of frames of any size with a small detector."""

import dataclasses

import numpy as np
import torch

from detection.small_scores import found_in
from raster.letterbox import Letterbox
from runtime.device import Compute


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallFinder:
    """detector: a SmallDetector in eval mode, on the device of compute. iou: boxes of one class above it are one object."""

    detector: torch.nn.Module
    compute: Compute
    iou: float = 0.5
    lowest: float = 0.0  # score

    def prepare(self, frame):
        """(the Letterbox, (3, H, W) uint8 input) of a frame (h, w, 3) uint8: as a warehouse has it."""
        config = self.detector.config
        box = Letterbox((frame.shape[1], frame.shape[0]), tuple(config.target_size), config.resize_mode)
        return box, box.resize(frame)

    def find(self, letterboxes, inputs):
        """[{"boxes" (N, 4) float64 in pixels of the frame, "scores", "labels"}] of prepared frames, the best first."""
        with torch.no_grad(), self.compute.autocast():
            frames = torch.from_numpy(np.stack(inputs)).to(self.compute.device).float().div_(255)
            best = [part.cpu() for part in self.detector(frames)]
        found = found_in(*best, self.detector.config.target_size, self.iou, self.lowest)
        return [mapped_back(box, boxes) for box, boxes in zip(letterboxes, found, strict=True)]


def mapped_back(letterbox, found):
    """Boxes of an input as those of its frame; those that lie in the padding are left out."""
    boxes = letterbox.inverse(found["boxes"])
    kept = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(axis=1)
    return {"boxes": boxes[kept], "scores": found["scores"][kept], "labels": found["labels"][kept]}
