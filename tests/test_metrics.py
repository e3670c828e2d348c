"""Metrics on cases that can be counted on paper, and against scikit-learn. Run: pytest tests/test_metrics.py"""

import math

import numpy as np
import pytest
import torch

from metrics import (
    CombinedMetrics,
    DetectionMetrics,
    SegmentationMetrics,
    ThresholdHistogram,
    as_classes,
    bootstrap_interval,
    confusion_scores,
)

# rows: target, columns: prediction
TWO = [[50, 10], [5, 35]]


def test_two_classes_by_hand():
    scores = confusion_scores(TWO)
    assert scores["fire_iou"] == 35 / 50 == scores["iou_fire"]
    assert scores["iou_background"] == 50 / 65
    assert scores["mean_iou"] == (35 / 50 + 50 / 65) / 2 and scores["mean_iou_classes"] == 2
    assert scores["fire_precision"] == 35 / 45 and scores["fire_recall"] == 35 / 40
    assert scores["fire_dice"] == 70 / 85
    assert "pooled_fire_iou" not in scores


def test_severity_confused_but_extent_right_is_a_perfect_extent():
    # all burned, every level mistaken for the next one
    matrix = [[10, 0, 0, 0, 0], [0, 0, 5, 0, 0], [0, 0, 0, 5, 0], [0, 0, 0, 0, 5], [0, 5, 0, 0, 0]]
    scores = confusion_scores(matrix)
    assert scores["fire_iou"] == 1.0 and scores["fire_recall"] == 1.0
    assert scores["pooled_fire_iou"] == 0.0
    assert scores["severity_mean_iou"] == 0.0
    assert scores["iou_moderate"] == 0.0


def test_an_absent_class_is_nan_and_does_not_lower_the_mean():
    scores = confusion_scores([[7, 0, 0], [0, 3, 0], [0, 0, 0]])
    assert math.isnan(scores["iou_class_2"])
    assert scores["mean_iou"] == 1.0 and scores["mean_iou_classes"] == 2
    assert math.isnan(confusion_scores([[9, 0], [0, 0]])["fire_iou"])  # no fire, none predicted: no score
    assert confusion_scores([[8, 1], [0, 0]])["fire_iou"] == 0.0  # a false alarm is a score


def test_batches_add_up_to_scikit_learns_confusion_matrix():
    sklearn = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    target = generator.integers(0, 5, (6, 9, 11)).astype(np.uint8)
    prediction = generator.integers(0, 5, (6, 9, 11))
    target[:, :3] = 255
    metrics = SegmentationMetrics(5)
    for part in (slice(0, 2), slice(2, 6)):
        metrics.update(torch.from_numpy(prediction[part]), torch.from_numpy(target[part]))
    valid = target != 255
    expected = sklearn.confusion_matrix(target[valid], prediction[valid], labels=range(5))
    assert metrics.matrix.tolist() == expected.tolist()
    names = ("no_damage", "negligible", "moderate", "high", "destroyed")
    jaccard = sklearn.jaccard_score(target[valid], prediction[valid], average=None)
    assert [metrics.compute()[f"iou_{n}"] for n in names] == pytest.approx(jaccard.tolist())


def test_logits_and_classes_count_the_same():
    logits = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 1, 255, 1]).repeat(3, 4, 1)
    one, other = SegmentationMetrics(2), SegmentationMetrics(2)
    one.update(logits, target)
    other.update(logits.argmax(1), target)
    assert one.matrix.tolist() == other.matrix.tolist() and one.matrix.sum() == 36


def test_detection_counts_patches_and_leaves_out_those_without_valid_pixels():
    target = torch.zeros(5, 2, 2, dtype=torch.uint8)
    prediction = torch.zeros(5, 2, 2, dtype=torch.int64)
    target[0, 0, 0] = 1
    prediction[0, 1, 1] = 1  # hit: somewhere in the patch is enough
    prediction[1, 0, 0] = 1  # false alarm
    target[2, 0, 0] = 1  # miss
    target[3] = 255
    prediction[3] = 1  # nothing to say
    metrics = DetectionMetrics()
    metrics.update(prediction, target)
    scores = metrics.compute()
    assert [scores[f"detection_{k}"] for k in ("tp", "fp", "fn", "tn")] == [1, 1, 1, 1]
    assert scores["detection_accuracy"] == 0.5 and scores["detection_f1"] == 0.5


def test_a_minimum_area_takes_single_false_pixels_out_and_ignored_pixels_predict_nothing():
    target = torch.zeros(1, 2, 2, dtype=torch.uint8)
    target[0, 0, 0] = 255
    prediction = torch.tensor([[[1, 1], [0, 0]]])
    one, two = DetectionMetrics(min_pixels=1), DetectionMetrics(min_pixels=2)
    one.update(prediction, target)
    two.update(prediction, target)
    assert one.compute()["detection_fp"] == 1
    assert two.compute()["detection_tn"] == 1


def test_counts_of_two_processes_add_up():
    target = torch.randint(2, (4, 3, 3), generator=torch.Generator().manual_seed(1))
    prediction = torch.randint(2, (4, 3, 3), generator=torch.Generator().manual_seed(2))
    whole, first, second = CombinedMetrics(2), CombinedMetrics(2), CombinedMetrics(2)
    whole.update(prediction, target)
    first.update(prediction[:1], target[:1])
    second.update(prediction[1:], target[1:])
    first.add(second.tensors())
    assert first.compute() == whole.compute()
    first.reset()
    assert math.isnan(first.compute()["fire_iou"])


def test_the_threshold_is_the_best_of_all_by_trying_them():
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(2, (2, 40, 40), generator=generator)
    values = (0.35 * target + 0.6 * torch.rand(2, 40, 40, generator=generator)).clamp(0, 1)
    target[0, :5] = 255
    histogram = ThresholdHistogram()
    histogram.update(values, target)
    threshold, iou = histogram.best()

    def iou_at(t):
        valid = target != 255
        fire, said = (target == 1) & valid, (values >= t) & valid
        return ((fire & said).sum() / (fire | said).sum()).item()

    assert iou == pytest.approx(iou_at(threshold), abs=1e-6)
    assert iou == pytest.approx(max(iou_at(k / 256) for k in range(1, 256)), abs=1e-6)


def test_the_threshold_can_also_be_an_upper_one_and_prefers_the_start_among_equals():
    histogram = ThresholdHistogram(low=-1.0, high=1.0)
    target = torch.tensor([[[1, 1, 0, 0]]])
    histogram.update(torch.tensor([[[-0.9, -0.5, 0.5, 0.9]]]), target)
    assert histogram.best(start=0.1, above=False) == (pytest.approx(0.1, abs=0.01), 1.0)
    empty = ThresholdHistogram()
    empty.update(torch.rand(1, 3, 3), torch.zeros(1, 3, 3))
    assert empty.best()[0] == 0.5 and math.isnan(empty.best()[1])


def test_the_bootstrap_interval_holds_the_score_and_is_a_point_where_all_events_are_alike():
    assert bootstrap_interval([TWO, TWO, TWO]) == (0.7, 0.7)
    low, high = bootstrap_interval([TWO, [[10, 40], [30, 20]], [[90, 2], [1, 9]]])
    assert low < confusion_scores(torch.tensor([TWO, [[10, 40], [30, 20]], [[90, 2], [1, 9]]]).sum(0))["fire_iou"] < high
    assert all(math.isnan(v) for v in bootstrap_interval([TWO]))


def test_classes_of_logits_are_those_of_argmax_equal_ones_included():
    logits = torch.randint(0, 3, (2, 5, 16, 16), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(as_classes(logits), logits.argmax(dim=1)) and torch.equal(as_classes(logits[:, 0]), logits[:, 0].long())


def test_values_that_are_not_numbers_stay_inside_the_histogram():
    histogram = ThresholdHistogram(bins=4)
    nan, inf = float("nan"), float("inf")
    histogram.update(torch.tensor([[[nan, -inf, inf, nan, nan, 0.6]]]), torch.tensor([[[0, 0, 1, 1, 255, 1]]]))
    assert histogram.counts.tolist() == [2, 0, 0, 0, 1, 0, 1, 1, 1]  # bins of background, bins of fire, ignored
