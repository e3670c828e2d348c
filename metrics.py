"""
Streaming metrics: integers are counted on the device, batch by batch, and become numbers once, at the end.

Counts are int64 tensors that can be added over processes and stored in a checkpoint. A quotient 0/0 is NaN: a class that is
not there has no score, and does not pull a mean down. Label 255 counts nowhere.
"""

import torch

from classes import class_set
from constants import IGNORE, get_class_names

NAN = float("nan")


def ratio(a, b):
    """a / b as a float, NaN where there is nothing to divide by."""
    return float(a) / float(b) if b else NAN


def mean_of_defined(values):
    """(mean of the values that are not NaN, how many those are); NaN for none."""
    defined = [v for v in values if v == v]
    return (sum(defined) / len(defined) if defined else NAN), len(defined)


def count_into(counts, index):
    """Add 1 to counts[i] for each i in `index` (int64, in range), without waiting for the device."""
    index = index.flatten()
    if counts.device.type == "cpu":
        counts += torch.bincount(index, minlength=counts.numel())
    else:  # bincount on a GPU asks for the maximum first, and thereby waits
        counts.scatter_add_(0, index, torch.ones_like(index))


class Counts:
    """What all streaming metrics share: named count tensors."""

    def tensors(self):
        """{name: int64 tensor}, live: adding to them adds to the metric."""
        raise NotImplementedError

    def add(self, tensors):
        """Add counts of the same names: of another process, or from a checkpoint."""
        for name, own in self.tensors().items():
            own += tensors[name].to(own.device)

    def reset(self):
        for own in self.tensors().values():
            own.zero_()


# ---------------------------------------------------------------------------------------------------------------- pixels


def overlap_scores(tp, fp, fn):
    """IoU, Dice, precision and recall of one class from its hits, false alarms and misses."""
    return {
        "iou": ratio(tp, tp + fp + fn),
        "dice": ratio(2 * tp, 2 * tp + fp + fn),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
    }


def confusion_scores(matrix, class_names=None):
    """
    All pixel scores of a confusion matrix [target, prediction] (any nested sequence or tensor of integers).

    fire_*: the burned extent, all classes above 0 merged into one, so a wrong severity is still a hit; of other pairs of classes
    water_* and the like, named after class 1. pooled_fire_*: hits, false alarms and misses added over the severities, so a wrong one
    counts against it twice (how older figures were made). Several classes that are no fire have neither: see classes.ClassSet.
    """
    matrix = torch.as_tensor(matrix).tolist()  # Python integers: exact
    n = len(matrix)
    names = get_class_names(n, class_names)
    classes = class_set(names)
    tp = [matrix[c][c] for c in range(n)]
    fp = [sum(matrix[t][c] for t in range(n)) - tp[c] for c in range(n)]
    fn = [sum(matrix[c]) - tp[c] for c in range(n)]
    each = [overlap_scores(*counts) for counts in zip(tp, fp, fn, strict=True)]

    scores = {}
    scores["mean_iou"], scores["mean_iou_classes"] = mean_of_defined([s["iou"] for s in each])
    scores["mean_dice"], _ = mean_of_defined([s["dice"] for s in each])
    if classes.key:
        hit = sum(matrix[t][p] for t in range(1, n) for p in range(1, n))
        extent = overlap_scores(hit, sum(matrix[0][1:]), sum(matrix[t][0] for t in range(1, n)))
        scores |= {f"{classes.key}_{key}": value for key, value in extent.items()}
    if n > 2 and classes.is_fire:
        pooled = overlap_scores(sum(tp[1:]), sum(fp[1:]), sum(fn[1:]))
        scores |= {f"pooled_fire_{key}": value for key, value in pooled.items()}
        scores["severity_mean_iou"], _ = mean_of_defined([s["iou"] for s in each[1:]])
    scores["pixel_accuracy"] = ratio(sum(tp), sum(map(sum, matrix)))
    for name, s in zip(names, each, strict=True):
        scores |= {f"{key}_{name}": value for key, value in s.items()}
    return scores


def further_scores(matrix):
    """micro_iou (of all classes together) and mean_accuracy (mean over the classes of the share of their pixels that is found)."""
    matrix = torch.as_tensor(matrix).tolist()
    n = len(matrix)
    right, total = sum(matrix[c][c] for c in range(n)), sum(map(sum, matrix))
    found = [ratio(matrix[c][c], sum(matrix[c])) for c in range(n)]
    return {"micro_iou": ratio(right, 2 * total - right), "mean_accuracy": mean_of_defined(found)[0]}


class BoundaryMetrics(Counts):
    """
    Boundary IoU (Cheng et al. 2021): the IoU of the pixels of a class within `width` pixels of its border, in the truth and in the map.

    The rim of a patch, and of what is ignored, is no border. class_names: with a background as class 0, its border is that of the others,
    and it has no score.
    """

    def __init__(self, class_names, width=2, device="cpu"):
        self.class_names, self.width = class_names, width
        self.first = 1 if class_set(tuple(class_names)).has_background else 0
        self.counts = torch.zeros(len(class_names), 2, dtype=torch.int64, device=device)  # both, either

    def tensors(self):
        return {"boundary": self.counts}

    def update(self, prediction, target):
        """prediction: classes (B, H, W) or logits; target: (B, H, W), 255 = ignore."""
        prediction, known = as_classes(prediction), target != IGNORE
        for c in range(self.first, len(self.class_names)):
            one, other = (self.band((classes == c) & known, known) for classes in (target, prediction))
            self.counts[c] += torch.stack([(one & other).sum(), (one | other).sum()])

    def band(self, inside, known):
        """Pixels of a class (B, H, W) that have a known one of another class within the width."""
        side = 2 * self.width + 1
        near = torch.nn.functional.max_pool2d((known & ~inside).float()[:, None], side, stride=1, padding=self.width)[:, 0] > 0
        return inside & near

    def compute(self):
        each = {name: ratio(both, either) for name, (both, either) in zip(self.class_names, self.counts.tolist(), strict=True)}
        each = {name: each[name] for name in self.class_names[self.first :]}
        return {"boundary_mean_iou": mean_of_defined(list(each.values()))[0], **{f"boundary_iou_{k}": v for k, v in each.items()}}


class SegmentationMetrics(Counts):
    """Pixel scores over everything seen since reset(): one confusion matrix [target, prediction] on the device."""

    def __init__(self, num_classes, class_names=None, device="cpu"):
        self.num_classes = num_classes
        self.class_names = get_class_names(num_classes, class_names)
        # One place more than there are pairs: ignored pixels go there, which is cheaper than picking the others out.
        self.counts = torch.zeros(num_classes * num_classes + 1, dtype=torch.int64, device=device)

    @property
    def matrix(self):
        return self.counts[:-1].reshape(self.num_classes, self.num_classes)

    def tensors(self):
        return {"confusion": self.counts}

    def update(self, prediction, target):
        """prediction: classes (B, H, W) or logits (B, C, H, W). target: (B, H, W) with 255 = ignore."""
        prediction = as_classes(prediction)
        pair = target.long() * self.num_classes + prediction
        count_into(self.counts, torch.where(target == IGNORE, self.counts.numel() - 1, pair))

    def compute(self):
        return confusion_scores(self.matrix, self.class_names)


def as_classes(prediction):
    """
    (B, H, W) int64 classes of logits (B, C, H, W), or the classes that were given.

    The same as argmax, the first of equals included, by comparing whole planes: on a CPU argmax over the classes takes ten times as long.
    """
    if prediction.ndim != 4:
        return prediction.long()
    best = prediction[:, 0]
    classes = torch.zeros(best.shape, dtype=torch.int64, device=prediction.device)
    for c in range(1, prediction.shape[1]):
        classes.masked_fill_(prediction[:, c] > best, c)
        best = torch.maximum(best, prediction[:, c])
    return classes


# --------------------------------------------------------------------------------------------------------------- patches


class DetectionMetrics(Counts):
    """
    Is anything in a patch? Scores over patches: predicted where at least `min_pixels` valid pixels are above class 0, true where any is.

    A patch without a valid pixel is not counted.
    """

    def __init__(self, min_pixels=1, device="cpu"):
        self.min_pixels = min_pixels
        self.counts = torch.zeros(5, dtype=torch.int64, device=device)  # tn, fp, fn, tp, nothing to say

    def tensors(self):
        return {"detection": self.counts}

    def update(self, prediction, target):
        valid = (target != IGNORE).flatten(1)
        predicted = ((as_classes(prediction) > 0).flatten(1) & valid).sum(dim=1) >= self.min_pixels
        true = ((target > 0).flatten(1) & valid).any(dim=1)
        count_into(self.counts, torch.where(valid.any(dim=1), true.long() * 2 + predicted.long(), 4))

    def compute(self):
        tn, fp, fn, tp, _ = self.counts.tolist()
        return {
            "detection_accuracy": ratio(tp + tn, tp + fp + tn + fn),
            "detection_precision": ratio(tp, tp + fp),
            "detection_recall": ratio(tp, tp + fn),
            "detection_f1": ratio(2 * tp, 2 * tp + fp + fn),
            "detection_tp": tp, "detection_fp": fp, "detection_tn": tn, "detection_fn": fn,
        }


class CombinedMetrics(Counts):
    """Pixel and patch scores of the same predictions: what train.py reports. Of patches only where class 0 is a background."""

    def __init__(self, num_classes, class_names=None, min_pixels=1, device="cpu"):
        self.segmentation = SegmentationMetrics(num_classes, class_names, device)
        self.detection = DetectionMetrics(min_pixels, device)

    def tensors(self):
        return {**self.segmentation.tensors(), **self.detection.tensors()}

    def update(self, prediction, target):
        prediction = as_classes(prediction)
        self.segmentation.update(prediction, target)
        self.detection.update(prediction, target)

    def compute(self):
        detection = self.detection.compute() if class_set(self.segmentation.class_names).has_background else {}
        return {**self.segmentation.compute(), **detection}


# ------------------------------------------------------------------------------------------------------------ thresholds


class ThresholdHistogram(Counts):
    """
    Values of pixels of class 0 and of those above in bins, to choose the threshold that separates them best. values from `low` to `high`;
    the ends take what lies beyond, and NaN counts as `low`.
    """

    def __init__(self, bins=256, low=0.0, high=1.0, device="cpu"):
        self.bins, self.low, self.high = bins, low, high
        self.counts = torch.zeros(2 * bins + 1, dtype=torch.int64, device=device)

    def tensors(self):
        return {"histogram": self.counts}

    def update(self, values, target):
        """values: float (B, H, W), for example the probability 1 - p_0. target: (B, H, W), 255 = ignore."""
        place = ((values.float() - self.low) * (self.bins / (self.high - self.low))).floor().clamp(0, self.bins - 1)
        place = place.nan_to_num_(nan=0.0).long()  # NaN as an integer is no bin: an error on a CPU, memory of others on a GPU
        place = place + (target > 0).long() * self.bins
        count_into(self.counts, torch.where(target == IGNORE, 2 * self.bins, place))

    def best(self, start=0.5, above=True):
        """
        (threshold, extent IoU) with the highest IoU over everything seen, mapped being value ≥ threshold (`above`) or value < threshold.

        Of equally good thresholds the one nearest to `start`. Without a pixel above class 0: (start, NaN).
        """
        background, mapped = self.counts[:-1].reshape(2, -1).cpu().double()
        if not mapped.sum():
            return start, NAN
        below = torch.stack([background, mapped]).cumsum(dim=1)[:, :-1]  # the two counts under each inner bin border
        fp, tp = (background.sum() - below[0], mapped.sum() - below[1]) if above else (below[0], below[1])
        iou = tp / (fp + mapped.sum())
        borders = self.low + torch.arange(1, self.bins, dtype=torch.float64) * (self.high - self.low) / self.bins
        best = torch.nonzero(iou == iou.max()).flatten()
        choice = best[(borders[best] - start).abs().argmin()]
        return float(borders[choice]), float(iou[choice])


class SegmentationScores(Counts):
    """What a validation tells of the classes of pixels: CombinedMetrics of the likeliest class, and the best threshold if there is one."""

    def __init__(self, classes, min_pixels=1, device="cpu"):
        """classes: ClassSet."""
        self.classes = classes
        self.metrics = CombinedMetrics(len(classes.names), classes.names, min_pixels, device)
        self.histogram = ThresholdHistogram(device=device)

    def tensors(self):
        return {**self.metrics.tensors(), **self.histogram.tensors()}

    def update(self, logits, target, indices=None):
        """logits: (B, C, H, W); target: (B, H, W). indices: of the patches, which do not matter here."""
        self.metrics.update(logits, target)
        self.histogram.update(1.0 - logits.float().softmax(dim=1)[:, 0], target)

    def compute(self):
        """
        (scores, threshold of the probability 1 − p_0 with the highest extent IoU). Several classes that are no fire have no threshold:
        None.
        """
        scores = self.metrics.compute()
        if self.classes.is_several:
            return scores, None
        threshold, iou = self.histogram.best()
        return {**scores, "threshold": threshold, f"{self.classes.score}_at_threshold": iou}, threshold


# ------------------------------------------------------------------------------------------------------------- certainty


def bootstrap_interval(matrices, names=None, *, draws=1000, seed=0, level=0.95):
    """
    (low, high) of the pooled score of the classes (fire IoU …) when the events that it was measured on are drawn again, with replacement.

    matrices: one confusion matrix an event (int, C x C). names: of the classes. Fewer than two events say nothing about spread: (NaN, NaN).
    """
    if len(matrices) < 2:
        return NAN, NAN
    stack = torch.stack([torch.as_tensor(m, dtype=torch.int64) for m in matrices])
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(matrices), (draws, len(matrices)), generator=generator)
    names = get_class_names(stack.shape[1], names)
    values = [confusion_scores(stack[row].sum(dim=0), names)[class_set(names).score] for row in picks]
    values = sorted(v for v in values if v == v)
    if not values:
        return NAN, NAN
    edge = (1.0 - level) / 2.0
    return tuple(float(torch.quantile(torch.tensor(values, dtype=torch.float64), q)) for q in (edge, 1.0 - edge))
