"""Frames with boxes from what a user has: capture runs, images with COCO or Pascal VOC annotations, images with masks."""

import dataclasses
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chipping.capture_runs import Frame, natural, read_runs
from chipping.mask_boxes import has_masks, read_masks
from constants import IGNORE
from raster.frames import SUFFIXES
from runtime.errors import UserError
from runtime.words import plural

TOP = "images"  # the run of images that lie in the folder itself


@dataclass
class Source:
    """
    frames: [Frame] with labels 1 … K. classes: their names. counts: {run: Counter} of what reading has found. skipped: [{"id", "reason",
    "detail"}] of frames that are left out.
    """

    frames: list
    classes: tuple
    counts: dict
    skipped: list


def from_runs(folders, classes=None, warn=lambda text: None, note=lambda text: None):
    """The Source of capture runs. classes: names of the class ids 0, 1 …, or None."""
    frames, counts, skipped = read_runs(folders, warn, note)
    ids = sorted({0, *np.unique(np.concatenate([np.empty(0, np.int64), *(frame.labels for frame in frames)])).tolist()})
    if classes is None:
        classes, order = (("object",), ids) if ids == [0] else (tuple(f"class_{number}" for number in ids), ids)
    elif len(classes) <= ids[-1]:
        raise UserError(f"--classes has {plural(len(classes), 'name')}, labels have class_id {ids[-1]}; expected a name for each from 0 on")
    else:
        order = list(range(len(classes)))
    return Source(relabelled(frames, order), tuple(classes), counts, skipped)


def relabelled(frames, order):
    """Frames whose labels are 1 + the place of what they were in `order`."""
    return [dataclasses.replace(frame, labels=1 + np.searchsorted(order, frame.labels)) for frame in frames]


def from_images(images, annotations, *, classes=None, label_map=None, strict=False, note=lambda text: None):
    """The Source of a folder of images with annotations: COCO JSON, folder of Pascal VOC, CSV …, or folder of masks."""
    if has_masks(annotations):
        if label_map:
            raise UserError(f"--label-map is about named classes, and {annotations} holds masks; leave it out")
        return from_masks(images, annotations, classes, note)
    from chipping.box_labels import read_labels  # rasters and vectors, which the others do without

    names, labelled, counts = read_labels(images, annotations, classes=classes, label_map=label_map, strict=strict, note=note)
    note(counts.in_words())
    if counts.ignored:
        note(f"{plural(counts.ignored, 'ignore region')} cannot be kept in a warehouse: what is in them counts as background")
    frames, per_run = [], {}
    for image in sorted(labelled, key=lambda image: natural(image.name)):
        run = Path(image.name).parent.as_posix()
        run = TOP if run == "." else run
        digest = hashlib.sha256(repr((image.width, image.height, image.orientation)).encode())
        digest.update(image.boxes.tobytes() + image.labels.tobytes())
        frames.append(Frame(f"{run}/{image.path.name}", run, image.image_id, image.path, image.boxes, np.full_like(image.boxes, np.nan),
                            image.labels, digest.hexdigest(), image.orientation != 1, (image.width, image.height)))
        per_run.setdefault(run, Counter())["frames"] += 1
    skipped = [{"id": name, "reason": "unreadable", "detail": why} for name, why in counts.unreadable.items()]
    total = per_run.setdefault(frames[0].run if frames else TOP, Counter())
    total["frames"] += len(skipped)
    total["unreadable"] += len(skipped)
    total["boxes_outside"], total["boxes_thin"], total["boxes_clipped"] = counts.outside, counts.without_area, counts.clipped
    return Source(frames, tuple(names), per_run, skipped)


def from_masks(images, masks, classes, note):
    frames, skipped = read_masks(images, masks, note)
    values = sorted(set(np.unique(np.concatenate([np.empty(0, np.int64), *(frame.labels for frame in frames)])).tolist()))
    several = [value for value in values if value != IGNORE and value > 1]
    if several:  # 255 is then none of the classes
        values = [value for value in values if value != IGNORE]
        frames = [without(frame, IGNORE) for frame in frames]
    else:  # 1 and 255 both mean an object
        values = [1]
        frames = [dataclasses.replace(frame, labels=np.ones_like(frame.labels)) for frame in frames]
    if classes is not None and len(classes) != len(values):
        raise UserError(f"--classes has {plural(len(classes), 'name')}, {masks} has {len(values)} values; expected one for each")
    names = classes or (("object",) if values == [1] else tuple(f"class_{value}" for value in values))
    counts = Counter(frames=len(frames) + len(skipped), invalid=len(skipped))
    return Source(relabelled(frames, values), tuple(names), {TOP: counts}, skipped)


def without(frame, value):
    kept = frame.labels != value
    return dataclasses.replace(frame, px=frame.px[kept], norm=frame.norm[kept], labels=frame.labels[kept])


def require_pictures(frames):
    """UserError for frames of a form that is no camera's, before any of them is read."""
    wrong = [frame for frame in frames if frame.path.suffix.lower() not in SUFFIXES]
    if wrong:
        raise UserError(f"{wrong[0].path} is no picture of a camera; expected {', '.join(SUFFIXES)} (`chip.py make-tiles` takes rasters)")
