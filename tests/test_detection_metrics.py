"""Scores of detections: COCO's average precision, hits and counts, against pycocotools and against what can be counted by hand."""

import contextlib
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detection import metrics
from detection.metrics import choose_threshold, score_images

CLASSES = ("cow", "sheep", "horse")


def truth(boxes=(), labels=None, ignore=()):
    boxes = np.array(boxes, float).reshape(-1, 4)
    return {"boxes": boxes, "labels": np.array(labels or [1] * len(boxes), int), "ignore": np.array(ignore, float).reshape(-1, 4)}


def found(boxes=(), scores=None, labels=None):
    boxes = np.array(boxes, float).reshape(-1, 4)
    return {"boxes": boxes, "scores": np.array(scores if scores is not None else [0.9] * len(boxes)),
            "labels": np.array(labels or [1] * len(boxes), int)}


def drawn_set(rng, images, objects, classes=3, spread=200, sides=(4, 120), digits=2):
    """Truths and detections: objects moved a little, or missed, or of another class, and what is not there; scores with ties."""
    truths, detections = [], []
    for _ in range(images):
        count = rng.integers(0, objects + 1)
        centres, size = rng.random((count, 2)) * spread, rng.uniform(*sides, (count, 2))
        boxes, labels = np.concatenate([centres - size / 2, centres + size / 2], axis=1), rng.integers(1, classes + 1, count)
        regions = rng.random((rng.integers(0, 3), 2)) * spread
        regions = np.concatenate([regions, regions + rng.uniform(10, 90, regions.shape)], axis=1)
        seen = rng.random(count) < 0.8
        near = boxes[seen] + rng.normal(0, 1, (seen.sum(), 4)) * size[seen].min(axis=1, keepdims=True) * rng.choice([0.02, 0.1, 0.3])
        low = rng.random((rng.integers(0, objects // 2 + 1), 2)) * spread
        false = np.concatenate([low, low + rng.uniform(*sides, low.shape)], axis=1)
        every = np.concatenate([near, false])
        every[:, 2:] = np.maximum(every[:, 2:], every[:, :2] + 1)
        kinds = np.concatenate([np.where(rng.random(len(near)) < 0.9, labels[seen], 1), rng.integers(1, classes + 1, len(false))])
        truths.append({"boxes": boxes, "labels": labels, "ignore": regions})
        detections.append({"boxes": every, "scores": np.round(rng.random(len(every)), digits), "labels": kinds})
    return truths, detections


def by_pycocotools(truths, detections, classes):
    """Precision curves (10, 101, K, 4) without a limit of detections; ignore regions are crowds of every class."""
    content, results = [], []
    for image, (t, d) in enumerate(zip(truths, detections, strict=True)):
        pieces = [(box, label, 0) for box, label in zip(t["boxes"], t["labels"], strict=True)]
        pieces += [(box, label, 1) for box in t["ignore"] for label in range(1, classes + 1)]
        for box, label, crowd in pieces:
            x0, y0, x1, y1 = map(float, box)
            content.append({"id": len(content) + 1, "image_id": image, "category_id": int(label), "bbox": [x0, y0, x1 - x0, y1 - y0],
                            "area": (x1 - x0) * (y1 - y0), "iscrowd": crowd})
        for box, label, score in zip(d["boxes"], d["labels"], d["scores"], strict=True):
            x0, y0, x1, y1 = map(float, box)
            results.append({"image_id": image, "category_id": int(label), "bbox": [x0, y0, x1 - x0, y1 - y0], "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        known, dataset = COCO(), {"images": [{"id": i} for i in range(len(truths))], "annotations": content,
                                  "categories": [{"id": k, "name": str(k)} for k in range(1, classes + 1)]}
        known.dataset = dataset
        known.createIndex()
        if not results:
            return None
        evaluation = COCOeval(known, known.loadRes(results), "bbox")
        evaluation.params.maxDets = [1, 10, 10_000]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., -1]


def mean(values):
    return values[values > -1].mean() if (values > -1).any() else math.nan


def assert_equal_to_pycocotools(truths, detections, classes):
    precision = by_pycocotools(truths, detections, len(classes))
    if precision is None:
        return
    scores = score_images(truths, detections, classes)
    expected = {"map": precision[..., 0], "map_50": precision[0, ..., 0], "map_75": precision[5, ..., 0],
                "map_small": precision[..., 1], "map_medium": precision[..., 2], "map_large": precision[..., 3]}
    for k, name in enumerate(classes):
        expected |= {f"ap_{name}": precision[:, :, k, 0], f"ap_50_{name}": precision[0, :, k, 0]}
    for name, values in expected.items():
        assert scores[name] == pytest.approx(mean(values), abs=1e-12, nan_ok=True), name


# ------------------------------------------------------------------------------------------------------ average precision


@given(seed=st.integers(0, 2**32 - 1), images=st.integers(1, 6), objects=st.integers(0, 30))
@settings(max_examples=40)
def test_average_precision_is_that_of_pycocotools(seed, images, objects):
    truths, detections = drawn_set(np.random.default_rng(seed), images, objects)
    assert_equal_to_pycocotools(truths, detections, CLASSES)


@given(seed=st.integers(0, 2**32 - 1), part=st.integers(1, 40))
@settings(max_examples=30)
def test_a_dense_image_in_parts_has_the_scores_of_the_whole(seed, part):
    truths, detections = drawn_set(np.random.default_rng(seed), 3, 60, spread=400, digits=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "DENSE", 50)
        patch.setattr(metrics, "PART", part)
        assert_equal_to_pycocotools(truths, detections, CLASSES)


def test_a_thousand_perfect_boxes_in_one_image_score_exactly_one():
    corners = np.stack(np.meshgrid(np.arange(40), np.arange(25)), axis=-1).reshape(-1, 2) * 30.0
    boxes = np.concatenate([corners, corners + 20], axis=1)
    scores = score_images([truth(boxes), truth()], [found(boxes, np.ones(1000)), found()], ("cow",))
    perfect = ("map", "map_50", "map_75", "map_small", "ap_cow", "precision", "recall", "f1", "f1_centre", "f1_cow")
    assert [scores[name] for name in perfect] == [1.0] * len(perfect)
    assert scores["count_mae"] == scores["count_bias"] == scores["false_positives_empty_images"] == 0
    assert math.isnan(scores["map_large"])


def test_without_objects_every_score_is_not_available_and_false_positives_are_told():
    scores = score_images([truth(), truth()], [found([(0, 0, 9, 9), (20, 20, 30, 30)], [0.9, 0.2]), found()], ("cow", "sheep"))
    assert all(math.isnan(scores[f"{name}{ending}"]) for name in ("precision", "recall", "f1") for ending in ("", "_centre", "_cow"))
    assert all(math.isnan(value) for name, value in scores.items() if name.startswith(("map", "ap_")))
    assert (scores["false_positives_empty_images"], scores["empty_images"], scores["false_positives_absent_classes"]) == (1, 2, 1)
    assert (scores["count_mae"], scores["count_bias"]) == (0.5, 0.5)


def test_a_set_without_images_has_no_scores():
    scores = score_images([], [], ("cow",))
    assert math.isnan(scores["map"]) and math.isnan(scores["count_mae"]) and scores["images"] == 0


def test_no_detections_score_zero():
    scores = score_images([truth([(0, 0, 9, 9)])], [found()], ("cow",))
    assert (scores["map"], scores["recall"], scores["f1"]) == (0, 0, 0) and math.isnan(scores["precision"])


def test_a_class_without_objects_is_left_out_of_the_mean_and_its_detections_are_told():
    boxes = [(0, 0, 20, 20), (50, 50, 80, 80)]
    scores = score_images([truth(boxes[:1], [1])], [found(boxes, [0.9, 0.8], [1, 2])], ("cow", "sheep"))
    assert scores["map"] == 1 and math.isnan(scores["ap_sheep"]) and math.isnan(scores["f1_sheep"])
    assert scores["false_positives_absent_classes"] == 1 and scores["precision"] == 0.5
    assert (scores["count_bias_cow"], scores["count_bias_sheep"]) == (0, 1)


# ---------------------------------------------------------------------------------------------------------- at a threshold


def test_each_object_is_found_once_by_the_detection_with_the_highest_score():
    box, second, scores = (0, 0, 20, 20), (1, 1, 21, 21), [0.6, 0.9]
    result = score_images([truth([box])], [found([box, second], scores)], ("cow",))
    assert (result["precision"], result["recall"]) == (0.5, 1) and result["f1"] == pytest.approx(2 / 3)
    assert score_images([truth([box])], [found([box, second], scores)], ("cow",), threshold=0.7)["precision"] == 1


def test_a_small_box_inside_an_object_is_a_hit_by_centre_but_not_by_iou():
    result = score_images([truth([(0, 0, 100, 100)])], [found([(40, 40, 50, 50)])], ("cow",))
    assert (result["f1"], result["f1_centre"]) == (0, 1)
    assert score_images([truth([(0, 0, 100, 100)])], [found([(140, 40, 150, 50)])], ("cow",))["f1_centre"] == 0


def test_another_class_or_another_image_finds_nothing():
    box = (0, 0, 20, 20)
    result = score_images([truth([box], [1]), truth()], [found([box], labels=[2]), found([box], labels=[1])], ("cow", "sheep"))
    assert (result["recall"], result["recall_centre"], result["precision"]) == (0, 0, 0)


def test_what_lies_in_an_ignore_region_is_neither_right_nor_wrong_and_not_counted():
    region = [(100, 100, 200, 200)]
    inside, half = [(110, 110, 130, 130), (150, 150, 170, 170)], [(190, 110, 215, 130)]  # of the last 40 % are inside
    result = score_images([truth([(0, 0, 20, 20)], ignore=region)], [found([(0, 0, 20, 20), *inside, *half])], ("cow",))
    assert (result["precision"], result["count_bias"]) == (0.5, 1)
    assert result["precision_centre"] == 0.5
    result = score_images([truth([inside[0]], ignore=region)], [found(inside)], ("cow",))
    assert (result["precision"], result["recall"], result["count_mae"], result["map"]) == (1, 1, 0, 1)


@given(seed=st.integers(0, 2**32 - 1), threshold=st.sampled_from([0.0, 0.3, 0.5, 0.95]))
@settings(max_examples=30)
def test_hits_by_iou_are_those_of_pycocotools(seed, threshold):
    """Precision and recall of one class without ignore regions, from what pycocotools matched at IoU 0.5."""
    truths, detections = drawn_set(np.random.default_rng(seed), 3, 15, classes=1, digits=6)
    truths = [{**t, "ignore": np.zeros((0, 4))} for t in truths]
    above = [{key: value[d["scores"] >= threshold] for key, value in d.items()} for d in detections]
    result = score_images(truths, detections, ("cow",), threshold=threshold)
    objects, count = sum(len(t["boxes"]) for t in truths), sum(len(d["boxes"]) for d in above)
    if not objects or not count:
        return
    hits = reference_hits(truths, above)
    assert (result["recall"], result["precision"]) == (pytest.approx(hits / objects), pytest.approx(hits / count))


def reference_hits(truths, detections):
    hits = 0
    for t, d in zip(truths, detections, strict=True):
        free = list(range(len(t["boxes"])))
        for i in np.argsort(-d["scores"], kind="stable"):
            ious = [float(np_iou(d["boxes"][i], t["boxes"][j])) for j in free]
            if ious and max(ious) >= 0.5:
                free.pop(int(np.argmax(ious)))
                hits += 1
    return hits


def np_iou(a, b):
    common = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


@given(seed=st.integers(0, 2**32 - 1), by_centre=st.booleans())
@settings(max_examples=30)
def test_the_chosen_threshold_has_the_f1_that_it_tells_and_no_other_has_more_than_an_object_more(seed, by_centre):
    truths, detections = drawn_set(np.random.default_rng(seed), 3, 12)
    threshold, f1 = choose_threshold(truths, detections, iou=None if by_centre else 0.5)
    name = "f1_centre" if by_centre else "f1"
    if math.isnan(f1):
        assert threshold == 0.5
        return
    assert score_images(truths, detections, CLASSES, threshold=threshold)[name] == pytest.approx(f1)
    one_object = 1 / (2 * sum(len(t["boxes"]) for t in truths) - 1)
    for other in np.random.default_rng(seed).permutation(np.unique(np.concatenate([d["scores"] for d in detections])))[:8]:
        assert score_images(truths, detections, CLASSES, threshold=other)[name] <= f1 + one_object + 1e-8


def test_a_threshold_lies_between_the_scores_that_it_parts():
    boxes = [(0, 0, 20, 20), (50, 50, 70, 70), (100, 0, 120, 20)]
    assert choose_threshold([truth(boxes[:2])], [found(boxes, [0.9, 0.8, 0.2])]) == (0.45, 1.0)
    assert choose_threshold([truth(boxes)], [found(boxes, [0.9, 0.8, 0.7])]) == (0.4, 1.0)
    assert choose_threshold([truth(boxes[:1])], [found(boxes, [0.9, 0.2, 0.1])]) == (0.45, 1.0)
    assert choose_threshold([truth()], [found(boxes)])[0] == 0.5


def test_a_threshold_does_not_hang_on_the_one_object_that_is_hardest_to_find():
    boxes = [(40 * k, 0, 40 * k + 20, 20) for k in range(40)]
    truths, false = [truth(boxes[:20])], np.linspace(0.2, 0.05, 20)
    assert choose_threshold(truths, [found(boxes, [*np.linspace(0.9, 0.6, 20), *false])]) == (pytest.approx(0.4, abs=0.01), 1.0)
    threshold, f1 = choose_threshold(truths, [found(boxes, [*np.linspace(0.9, 0.6, 19), 0.21, *false])])
    assert threshold == pytest.approx(0.4, abs=0.01) and f1 == pytest.approx(38 / 39)


def test_tensors_are_taken_as_they_come_from_a_detector():
    boxes = torch.tensor([[0.0, 0, 20, 20]])
    truths, detections = [{"boxes": boxes, "labels": torch.tensor([1]), "ignore": torch.zeros(0, 4)}], [
        {"boxes": boxes, "scores": torch.tensor([0.5]), "labels": torch.tensor([1])}]
    assert score_images(truths, detections, ("cow",))["map"] == 1
