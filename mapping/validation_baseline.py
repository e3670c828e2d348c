"""What a threshold on a spectral index scores on the validation patches: the score that a network has to beat."""

from constants import IGNORE
from mapping.scoring import choose_threshold
from metrics import SegmentationMetrics

MOST_PATCHES = 2000  # of each split that are looked at


def spread_patches(count, processes):
    """Indices of up to MOST_PATCHES patches of `count`, evenly spread: those that this process looks at."""
    most = min(count, MOST_PATCHES)
    return [place * count // most for place in range(most)][processes.rank :: processes.size]


def score_baseline(baseline, train_batches, val_batches, processes):
    """
    (name of the index, IoU over the validation patches of what it maps), its threshold chosen on the training patches; None where they
    have nothing to map.

    baseline: of mapping.scoring, without its threshold. train_batches, val_batches: iterables of (reflectance (B, C, h, w), target (B, h,
    w)), of this process.
    """
    baseline = choose_threshold(train_batches, baseline, processes)
    if baseline.train_iou != baseline.train_iou:
        return None
    metrics = SegmentationMetrics(2)
    for reflectance, target in val_batches:
        metrics.update(baseline.maps(baseline.values(reflectance)), target.clamp(max=1).where(target != IGNORE, target))
    metrics.counts.copy_(processes.sum(metrics.counts))
    return baseline.index.upper(), metrics.compute()["fire_iou"]
