"""Scores of the small detectors on frames of a warehouse, beside the mean box."""

import numpy as np

from detection import metrics
from detection.merge import KEPT, suppress
from detection.small_data import boxes_of_split

NAMES = {"map_50": "ap50", "precision": "precision", "recall": "recall", "f1": "f1"}


def found_in(boxes, logits, labels, size, iou, lowest=0.0):
    """
    [{"boxes" (N, 4) float64 in pixels, "scores", "labels"}] of frames, the best first: a detector's output on the CPU after suppression.

    boxes (B, M, 4) xyxy in 0..1, logits and labels (B, M), size (W, H) of the frames. iou: boxes of one class above it are one object.
    """
    found = []
    places, scores = boxes.double().numpy() * (*size, *size), logits.double().sigmoid().numpy()
    for place, score, label in zip(places, scores, labels.numpy(), strict=True):
        kept = (score >= lowest) & ((place[:, 2:] - place[:, :2]) > 0).all(axis=1)
        place, score, label = place[kept], score[kept], label[kept]
        kept = suppress(place, score, label, iou) == KEPT
        found.append({"boxes": place[kept], "scores": score[kept], "labels": label[kept]})
    return found


def truths_in(boxes, mask, labels, size):
    """[{"boxes" (N, 4) float64 in pixels, "labels"}] of frames. boxes (B, M, 4), mask, labels (B, M): arrays of a warehouse."""
    return [{"boxes": np.asarray(b, np.float64)[k] * (*size, *size), "labels": np.asarray(n)[k]}
            for b, k, n in zip(np.asarray(boxes), np.asarray(mask), np.asarray(labels), strict=True)]


def score_frames(truths, found, classes, *, threshold, iou=0.5):
    """{"ap50", "precision", "recall", "f1"}: average precision of the mean over classes; the others from `threshold` on."""
    scores = metrics.score_images(truths, found, classes, threshold=threshold, iou=iou)
    return {name: scores[key] for key, name in NAMES.items()}


def mean_box(warehouse):
    """{"boxes" (1, 4) float64 in pixels, "scores", "labels"}: mean box and most frequent class of the training frames. None without any."""
    known = boxes_of_split(warehouse, "train")
    boxes, labels = known["boxes"][known["mask"]], known["labels"][known["mask"]]
    if not len(boxes):
        return None
    size = warehouse.target_size
    mean = boxes.astype(np.float64).mean(axis=0) * (*size, *size)
    return {"boxes": mean[None], "scores": np.ones(1), "labels": np.array([np.bincount(labels).argmax()])}
