"""Pictures of frames of a warehouse with their boxes and those that were found: what a training leaves after each best epoch."""

import numpy as np

from pictures.box_overlays import box_sheet
from pictures.encoding import save_png


def write_small_samples(path, images, truths, found, names, classes, threshold):
    """
    A sheet of frames: the truth beside what is found from `threshold` on.

    images: (B, 3, H, W) uint8. truths, found: see small_scores. names: of the frames.
    """
    cases, captions = [], []
    for image, truth, boxes, name in zip(images, truths, found, names, strict=True):
        shown, kept = np.ascontiguousarray(image.transpose(1, 2, 0)), boxes["scores"] >= threshold
        views = [{"boxes": truth["boxes"], "labels": truth["labels"]}, {"boxes": boxes["boxes"][kept], "labels": boxes["labels"][kept]}]
        cases.append([{"picture": shown, "ignore": np.zeros((0, 4)), **view} for view in views])
        captions.append(f"{name}: {len(truth['boxes'])} objects, {int(kept.sum())} found")
    path.parent.mkdir(exist_ok=True)
    title = f"truth and detections with a score of at least {threshold:.2f}"
    save_png(path, box_sheet(cases, ["truth", "found"], captions, classes, title, across=1))
