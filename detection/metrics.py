"""
How good detections are, on whole images: average precision, hits and counts at a threshold.

Average precision is COCO's, computed by faster-coco-eval without a limit of detections. Precision, recall and F1 are those at one score, by
IoU and by centre: a detection whose centre is inside an object has found it. Ignore regions are COCO's crowds: what lies in one is neither
right nor wrong. What has no value is NaN: a class, a size or a set without objects.

An image's truth is a dict of "boxes" (N, 4) x1, y1, x2, y2 in pixels, "labels" (N,) 1 … K and "ignore" (M, 4); its detections are one of
"boxes", "scores" and "labels". Arrays may be of numpy or torch.
"""

from dataclasses import dataclass

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from detection.boxes import BoxSearch, areas_of, common_areas, iou_of

NAN = float("nan")
SIZES = ("small", "medium", "large")  # below 32², below 96² and from there on, in pixels of area, as COCO has them
DENSE = 2_500  # pairs of an object and a detection of one image, from which on the image is evaluated in parts
PART = 64  # objects and detections of a part, about


@dataclass(frozen=True)
class Boxes:
    """All objects or all detections. boxes: (N, 4) float64. labels, images: (N,) int64, classes and indices. scores: (N,) or None."""

    boxes: np.ndarray
    labels: np.ndarray
    images: np.ndarray
    scores: np.ndarray | None = None

    def __len__(self):
        return len(self.boxes)


@dataclass(frozen=True)
class Matches:
    """
    What became of each detection. scores: (D,). hit: (D,) bool. excused: (D,) bool, neither right nor wrong. objects: how many; found: (N,)
    bool, which of them.
    """

    scores: np.ndarray
    hit: np.ndarray
    excused: np.ndarray
    objects: int
    found: np.ndarray


def score_images(truths, detections, classes, *, threshold=0.5, iou=0.5):
    """
    {name: number} of a set of images; NaN where there is nothing to score.

    truths, detections: a dict an image, in the same order. classes: names of the labels 1 … K. threshold: detections count from this score
    on, except in average precision. iou: from which a detection has found an object.

    map, map_50, map_75, map_small …: average precision, mean over classes. ap_NAME, ap_50_NAME: of a class.
    precision, recall, f1; precision_centre …; precision_NAME …: at the threshold. count_mae, count_bias, count_mae_NAME …: detections less
    objects of an image, mean of the size of the difference, and of the difference.
    false_positives_absent_classes: at the threshold, of classes of which the set has no object; average precision leaves them out.
    false_positives_empty_images: in the images without an object, whose number is empty_images.
    """
    objects, regions, found = gather(truths, detections)
    pairs = pairs_with(found, objects, regions)
    by_iou, by_centre = match(objects, regions, found, pairs, iou), match(objects, regions, found, pairs, None)
    scores = {"images": len(truths), "objects": len(objects), "threshold": threshold}
    scores |= average_precision(objects, regions, found, pairs, classes)
    scores |= hits_at(by_iou, threshold, np.ones(len(found), bool), len(objects))
    scores |= {f"{key}_centre": value for key, value in
               hits_at(by_centre, threshold, np.ones(len(found), bool), len(objects)).items()}
    for label, name in enumerate(classes, start=1):
        of_class = hits_at(by_iou, threshold, found.labels == label, np.count_nonzero(objects.labels == label))
        scores |= {f"{key}_{name}": value for key, value in of_class.items()}
    counted = (found.scores >= threshold) & ~by_iou.excused
    scores |= count_errors(objects, found, counted, len(truths), classes)
    absent = ~np.isin(found.labels, objects.labels)
    empty = ~np.isin(np.arange(len(truths)), objects.images)
    scores["false_positives_absent_classes"] = int((counted & absent).sum())
    scores["false_positives_empty_images"] = int((counted & empty[found.images]).sum())
    scores["empty_images"] = int(empty.sum())
    return scores


def match_image(truth, detections, *, iou=0.5):
    """
    ((D,) bool: which detections find an object, (D,) bool: which are neither right nor wrong, (N,) bool: which objects are found) of one
    image, in the order given. truth, detections: see above.
    """
    objects, regions, found = gather([truth], [detections])
    matches = match(objects, regions, found, pairs_with(found, objects, regions), iou)
    order = np.argsort(-np.asarray(detections["scores"], np.float64), kind="stable")
    hit, excused = np.zeros(len(found), bool), np.zeros(len(found), bool)
    hit[order], excused[order] = matches.hit, matches.excused
    return hit, excused, matches.found


def choose_threshold(truths, detections, *, iou=0.5, start=0.5):
    """
    (score from which on detections should count, F1 there): the highest F1 by IoU, or by centre where `iou` is None.

    Where objects are few the best score itself is chance. Of an F1 of 1, an object that is missed costs 1 / (2 objects - 1): the
    threshold is the middle of the scores whose F1 is no further below the highest. Where F1 dips in the middle, it lies half-way between
    the nearest such score and the next lower one. (start, NaN) without an object or a detection.
    """
    objects, regions, found = gather(truths, detections)
    matches = match(objects, regions, found, pairs_with(found, objects, regions), iou)
    counted = ~matches.excused
    scores, hit = matches.scores[counted], matches.hit[counted]
    if not matches.objects or not len(scores):
        return start, NAN
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(hit[order])
    last = np.append(scores[1:] < scores[:-1], True)  # of equal scores all count, or none
    f1 = np.where(last, 2 * hits / (np.arange(1, len(scores) + 1) + matches.objects), -1)
    below = np.append(scores[1:], 0.0)
    good = np.flatnonzero(f1 >= f1.max() - 1 / (2 * matches.objects - 1) - 1e-9)
    threshold = (scores[good[0]] + below[good[-1]]) / 2
    best = np.count_nonzero(scores >= threshold) - 1
    if best not in good:
        best = good[np.abs((scores + below)[good] / 2 - threshold).argmin()]
        threshold = (scores[best] + below[best]) / 2
    return float(threshold), float(f1[best])


# ------------------------------------------------------------------------------------------------------------- together


def gather(truths, detections):
    """(Boxes of the objects, of the ignore regions, of the detections, highest score first) of all images."""
    if len(truths) != len(detections):
        raise ValueError(f"expected detections for each of {len(truths)} images, got {len(detections)}")
    objects = joined(truths, "boxes")
    regions = joined([{"boxes": truth.get("ignore", ()), "labels": [0] * len(truth.get("ignore", ()))} for truth in truths], "boxes")
    found = joined(detections, "boxes", scores=True)
    order = np.lexsort([np.arange(len(found)), -found.scores])
    return objects, regions, Boxes(*(values[order] for values in (found.boxes, found.labels, found.images, found.scores)))


def joined(parts, name, scores=False):
    """Boxes of a list of dicts."""
    boxes = [np.asarray(part[name], np.float64).reshape(-1, 4) for part in parts]
    images = np.repeat(np.arange(len(parts)), [len(b) for b in boxes])
    others = [np.concatenate([np.asarray(part[key], kind).reshape(-1) for part in parts] or [np.zeros(0, kind)])
              for key, kind in (("labels", np.int64), ("scores", np.float64))[: 1 + scores]]
    return Boxes(np.concatenate(boxes or [np.zeros((0, 4))]), others[0], images, *others[1:])


# ---------------------------------------------------------------------------------------------------------- at a threshold


def match(objects, regions, found, pairs, iou):
    """
    Matches of detections, the highest score first: each finds the object of its class that it fits best and nothing has found yet.

    pairs: of pairs_with. iou: from which it fits; None: where its centre is inside,
    the nearest centre first. A detection that finds nothing and lies in an ignore region (by `iou` of its area, or by its centre) is
    excused. Matches at a threshold are those of the detections from there on.
    """
    (detection, target), (inside, region) = pairs
    value, least = closeness(found.boxes[detection], objects.boxes[target], iou)
    fits = value >= least
    detection, target, value = detection[fits], target[fits], value[fits]
    order = np.lexsort([target, -value, detection])
    hit, taken = assign(detection[order], target[order], len(found), len(objects))
    excused = np.zeros(len(found), bool)
    if iou is None:
        covered = closeness(found.boxes[inside], regions.boxes[region], None)[0] > -np.inf
    else:
        covered = common_areas(found.boxes[inside], regions.boxes[region]) >= iou * areas_of(found.boxes[inside])
    excused[inside[covered]] = True
    return Matches(found.scores, hit, excused & ~hit, len(objects), taken)


def pairs_with(found, objects, regions):
    """(overlapping_pairs of detections with objects of their class, with ignore regions)."""
    return overlapping_pairs(found, objects, same_label=True), overlapping_pairs(found, regions, same_label=False)


def overlapping_pairs(found, others, same_label):
    """(P,), (P,): indices of detections and of other boxes of the same image that overlap. One tree for all images, side by side."""
    if not len(found) or not len(others):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    lowest = min(found.boxes.min(), others.boxes.min())
    step = max(found.boxes.max(), others.boxes.max()) - lowest + 1
    moved = [b.boxes + np.stack([b.images * step, b.labels * step * same_label] * 2, axis=1) for b in (found, others)]
    return BoxSearch(moved[1], np.arange(len(others))).under(moved[0])


def closeness(some, others, iou):
    """((P,) how well boxes fit others, from which value on they do). iou: see match."""
    if iou is not None:
        return iou_of(some, others), iou
    centre, other = (some[:, :2] + some[:, 2:]) / 2, (others[:, :2] + others[:, 2:]) / 2
    inside = ((centre >= others[:, :2]) & (centre <= others[:, 2:])).all(axis=1)
    return np.where(inside, -((centre - other) ** 2).sum(axis=1), -np.inf), np.finfo(np.float64).min


def assign(detection, target, detections, targets):
    """((detections,) bool: which of them find a target of their own, (targets,) bool: which are found). Pairs as they are tried."""
    hit, taken, starts = np.zeros(detections, bool), bytearray(targets), np.flatnonzero(np.diff(detection, prepend=-1))
    stops, candidates = np.append(starts, len(detection))[1:], target.tolist()
    for index, start, stop in zip(detection[starts].tolist(), starts.tolist(), stops.tolist(), strict=True):
        for candidate in candidates[start:stop]:
            if not taken[candidate]:
                taken[candidate] = hit[index] = True
                break
    return hit, np.frombuffer(taken, np.uint8) > 0


def hits_at(matches, threshold, which, objects):
    """{"precision", "recall", "f1"} of the detections `which` (D,) bool from a score on; all NaN without an object."""
    counted = which & (matches.scores >= threshold) & ~matches.excused
    hits, all_found = int((counted & matches.hit).sum()), int(counted.sum())
    return {
        "precision": hits / all_found if objects and all_found else NAN,
        "recall": hits / objects if objects else NAN,
        "f1": 2 * hits / (all_found + objects) if objects else NAN,
    }


def count_errors(objects, found, counted, images, classes):
    """{"count_mae", "count_bias"} over images, for all objects and for each class. counted: (D,) bool, the detections that count."""
    shape = (images, len(classes) + 1)
    difference = np.zeros(shape, np.int64)
    np.add.at(difference, (found.images[counted], found.labels[counted]), 1)
    np.add.at(difference, (objects.images, objects.labels), -1)
    errors = {}
    for ending, each in (("", difference.sum(axis=1)), *((f"_{name}", difference[:, k]) for k, name in enumerate(classes, start=1))):
        errors[f"count_mae{ending}"] = float(np.abs(each).mean()) if images else NAN
        errors[f"count_bias{ending}"] = float(each.mean()) if images else NAN
    return errors


# -------------------------------------------------------------------------------------------------------- average precision


def average_precision(objects, regions, found, pairs, classes):
    """{"map", "map_50", "map_75", "map_small" …, "ap_NAME", "ap_50_NAME"}: COCO's, over IoU 0.5, 0.55 … 0.95. See score_images."""
    precision = precision_curves(objects, regions, found, pairs, len(classes))  # (IoU, recall, classes, sizes); −1 where there is no object
    means = {"map": precision[..., 0], "map_50": precision[0, ..., 0], "map_75": precision[5, ..., 0]}
    means |= {f"map_{size}": precision[..., place] for place, size in enumerate(SIZES, start=1)}
    for place, name in enumerate(classes):
        means |= {f"ap_{name}": precision[:, :, place, 0], f"ap_50_{name}": precision[0, :, place, 0]}
    return {name: float(values[values > -1].mean()) if (values > -1).any() else NAN for name, values in means.items()}


def precision_curves(objects, regions, found, pairs, classes):
    """(10, 101, classes, 4) precision at IoU 0.5 … 0.95, at recall 0 … 1, of all sizes and of each."""
    shape = (10, 101, classes, 1 + len(SIZES))
    if not len(objects):
        return np.full(shape, -1.0)
    object_parts, parts = parts_of(objects, found, pairs[0])
    inside, region = pairs[1]
    crowds = np.unique(np.stack([parts[inside], found.labels[inside], region], axis=1), axis=0)
    truth = annotations(objects.boxes, object_parts, objects.labels)
    truth += annotations(regions.boxes[crowds[:, 2]], crowds[:, 0], crowds[:, 1], iscrowd=1, first=len(objects) + 1)
    results = annotations(found.boxes, parts, found.labels)
    evaluation = COCOeval_faster(coco_set(truth, parts, object_parts, classes), coco_set(results, parts, object_parts, classes), "bbox")
    evaluation.params.maxDets = [max(1, int(np.bincount(parts).max(initial=0)))]
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"]).reshape(shape)


def annotations(boxes, images, labels, *, iscrowd=0, first=1):
    """
    [annotation or result] as COCO has them, ids from `first` on.

    The score is their order: equal scores then rank in the order of the images, however those are divided into parts.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    columns = np.concatenate([boxes[:, :2], sides], axis=1).tolist(), sides.prod(axis=1).tolist(), images.tolist(), labels.tolist()
    return [
        {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": iscrowd,
         "score": -number}
        for number, (box, area, image, label) in enumerate(zip(*columns, strict=True), start=first)
    ]


def coco_set(content, *parts_and_classes):
    """A COCO of annotations. The images: whatever index occurs."""
    *parts, classes = parts_and_classes
    images = [{"id": int(part)} for part in np.unique(np.concatenate(parts))]
    return COCO({"images": images, "categories": [{"id": k, "name": str(k)} for k in range(1, classes + 1)], "annotations": content})


def parts_of(objects, found, pairs):
    """
    ((N,) part of each object, (D,) part of each detection): the image, or a piece of one with many of both.

    Evaluation takes the time and memory of all pairs of an image. A dense one is divided so that no detection is parted from an object that
    it can match, of its class and with an IoU of 0.5 or more; which leaves every score as it is.
    """
    images = int(max(objects.images.max(initial=0), found.images.max(initial=0))) + 1
    many, of_image = np.bincount(objects.images, minlength=images), np.bincount(found.images, minlength=images)
    dense = many * of_image > DENSE
    object_parts, parts = objects.images.copy(), found.images.copy()
    if not dense.any():
        return object_parts, parts
    detection, target = pairs
    near = iou_of(found.boxes[detection], objects.boxes[target]) >= 0.499
    groups, group = groups_of_pairs(detection[near], target[near], len(found), len(objects))
    sizes = np.bincount(groups, minlength=len(objects)) + np.bincount(group, minlength=len(objects) + 1)[:-1]
    piece = np.append(np.cumsum(sizes) // PART, 0)  # neighbouring groups share one, as long as they are of the same image
    alone = group == len(objects)
    pieces = np.where(alone, -1 - np.cumsum(alone) // PART, piece[group])
    divided, first = dense[objects.images], dense[found.images]
    both = np.concatenate([np.stack([objects.images, piece[groups]], axis=1)[divided], np.stack([found.images, pieces], axis=1)[first]])
    number = images + np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)
    object_parts[divided], parts[first] = np.split(number, [np.count_nonzero(divided)])
    return object_parts, parts


def groups_of_pairs(one, other, ones, others):
    """((others,) group of each, (ones,) group of each): what pairs connect is one group, called by its lowest `other`; `others`: alone."""
    groups = np.arange(others)
    while True:
        group = np.full(ones, others)
        np.minimum.at(group, one, groups[other])
        lower = groups.copy()
        np.minimum.at(lower, other, group[one])
        if (lower == groups).all():
            return groups, group
        groups = lower
