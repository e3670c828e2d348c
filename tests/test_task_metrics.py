"""Scores of values and labels against scikit-learn, and on cases that can be counted on paper. Run: pytest tests/test_task_metrics.py"""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from label_metrics import ClassCounts, LabelCounts, LabelTable, auroc, usual_answer
from mapping.value_baseline import candidates_of, score_value_baselines
from metrics import BoundaryMetrics, further_scores
from runtime.distributed import Processes
from value_metrics import ValueMetrics

NAN = float("nan")
FEW = hypothesis.settings(max_examples=6)


def test_three_pixels_by_hand():
    metrics = ValueMetrics()
    metrics.update(torch.tensor([[[1.0, 2.0, 9.0, 5.0]]]), torch.tensor([[[0.0, 2.0, 7.0, NAN]]]))
    assert metrics.compute() == {
        "rmse": pytest.approx((5 / 3) ** 0.5), "mae": 1.0, "bias": 1.0, "r2": pytest.approx(1 - 5 / 26), "valid_pixels": 3}


def test_nothing_valid_and_a_constant_target_have_no_score():
    metrics = ValueMetrics()
    assert all(np.isnan(v) for k, v in metrics.compute().items() if k != "valid_pixels")
    metrics.update(torch.ones(1, 1, 2), torch.full((1, 1, 2), 4.0))
    assert metrics.compute()["rmse"] == 3.0 and np.isnan(metrics.compute()["r2"])


@FEW
@hypothesis.given(st.integers(0, 10_000), st.integers(1, 6), st.integers(2, 40), st.floats(-1e4, 1e4), st.integers(1, 6))
def test_scores_of_values_are_those_of_scikit_learn_whatever_the_batches(seed, patches, pixels, level, batch):
    sklearn = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(seed)
    target, prediction = random.normal(level, 3, (patches, 1, pixels)), random.normal(level, 4, (patches, 1, pixels))
    target[random.random(target.shape) < 0.2] = NAN
    valid = np.isfinite(target)
    hypothesis.assume(valid.sum() > 2)
    metrics = ValueMetrics(patches, centre=level)
    for start in range(0, patches, batch):
        part = slice(start, start + batch)
        metrics.update(torch.tensor(prediction[part]), torch.tensor(target[part]), list(range(patches))[part])
    scores = metrics.compute()
    assert scores["rmse"] ** 2 == pytest.approx(sklearn.mean_squared_error(target[valid], prediction[valid]))
    assert scores["mae"] == pytest.approx(sklearn.mean_absolute_error(target[valid], prediction[valid]))
    assert scores["r2"] == pytest.approx(sklearn.r2_score(target[valid], prediction[valid]), rel=1e-6, abs=1e-6)
    assert scores["bias"] == pytest.approx((prediction - target)[valid].mean(), abs=1e-8)


@FEW
@hypothesis.given(st.integers(0, 10_000), st.integers(2, 5), st.integers(4, 60), st.sampled_from([3, 1000]))
def test_scores_of_a_class_a_patch_are_those_of_scikit_learn(seed, count, patches, steps):
    sklearn = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(seed)
    truth = random.integers(0, count, patches)
    chances = random.integers(1, steps, (patches, count)) / steps  # few steps: many are equal
    table = LabelTable(patches, [f"c{c}" for c in range(count)], several=False)
    order = random.permutation(patches)
    for part in np.array_split(order, 3):
        table.update(torch.tensor(chances[part]), torch.tensor(truth[part]), part)
    scores, said = table.compute(), chances.argmax(axis=1)
    assert scores["accuracy"] == pytest.approx(sklearn.accuracy_score(truth, said))
    every = dict(labels=range(count), zero_division=np.nan)
    for key, function in (("f1", sklearn.f1_score), ("precision", sklearn.precision_score), ("recall", sklearn.recall_score)):
        expected = function(truth, said, average=None, **every)
        assert [scores[f"{key}_c{c}"] for c in range(count)] == pytest.approx(expected, nan_ok=True), key
    assert scores["mean_accuracy"] == pytest.approx(np.nanmean(sklearn.recall_score(truth, said, average=None, **every)))
    for c in range(count):
        if 0 < (truth == c).sum() < patches:
            assert scores[f"auroc_c{c}"] == pytest.approx(sklearn.roc_auc_score(truth == c, chances[:, c].astype(np.float32)))


@FEW
@hypothesis.given(st.integers(0, 10_000), st.integers(2, 5), st.integers(4, 60))
def test_scores_of_several_labels_a_patch_are_those_of_scikit_learn(seed, count, patches):
    sklearn = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(seed)
    truth, chances = random.integers(0, 2, (patches, count)), random.random((patches, count), dtype=np.float32)
    table = LabelTable(patches, [f"c{c}" for c in range(count)], several=True)
    table.update(torch.tensor(chances), torch.tensor(truth), range(patches))
    scores, said = table.compute(), chances >= 0.5
    assert scores["accuracy"] == pytest.approx((said == truth).mean())
    assert scores["exact_match"] == pytest.approx(sklearn.accuracy_score(truth, said))
    assert scores["micro_f1"] == pytest.approx(sklearn.f1_score(truth, said, average="micro", zero_division=np.nan), nan_ok=True)
    expected = sklearn.f1_score(truth, said, average=None, zero_division=np.nan)
    assert [scores[f"f1_c{c}"] for c in range(count)] == pytest.approx(expected, nan_ok=True)
    for c in range(count):
        if 0 < truth[:, c].sum() < patches:
            assert scores[f"auroc_c{c}"] == pytest.approx(sklearn.roc_auc_score(truth[:, c], chances[:, c]))


def test_counts_of_training_are_those_of_the_table_and_leave_out_what_is_ignored():
    truth = torch.tensor([0, 1, 2, 255, 1])
    chances = torch.eye(3)[torch.tensor([0, 2, 2, 1, 1])]
    counts, table = ClassCounts(("a", "b", "c")), LabelTable(5, ("a", "b", "c"), several=False)
    counts.update(chances.argmax(dim=1), truth)
    table.update(chances, truth, range(5))
    assert counts.compute().items() <= table.compute().items() and counts.compute()["accuracy"] == 0.75
    labels = LabelCounts(("a", "b"))
    labels.update(torch.tensor([[True, False], [True, True]]), torch.tensor([[1, 255], [0, 1]]))
    assert labels.counts[:-1].reshape(2, 4).tolist() == [[0, 1, 0, 1], [0, 0, 0, 1]]


def test_rank_of_true_above_false_by_hand():
    assert auroc(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([False, False, True, True])) == 0.75
    assert auroc(torch.tensor([0.5, 0.5]), torch.tensor([False, True])) == 0.5
    assert np.isnan(auroc(torch.tensor([0.5]), torch.tensor([True])))


def test_the_usual_answer_is_the_commonest_class_or_the_labels_that_most_have():
    assert usual_answer([3, 7, 2], 12, several=False).tolist() == [0, 1, 0]
    assert usual_answer([7, 6, 2], 12, several=True).tolist() == [1, 0, 0]


def test_the_best_line_is_found_fitted_and_scored_as_least_squares_do_it():
    random = np.random.default_rng(0)
    x = torch.tensor(random.uniform(0.05, 0.5, (6, 3, 32, 32)), dtype=torch.float32)
    index = (x[:, 2] - x[:, 0]) / (x[:, 2] + x[:, 0])
    y = 4.0 * index + 2.0 + torch.tensor(random.normal(0, 0.5, index.shape), dtype=torch.float32)
    y[:, :3] = NAN
    train, val = [(x[:4], y[:4])], [(x[4:], y[4:])]
    found = score_value_baselines(["B02", "B03", "B04"], float(y[:4].nanmean()), train, val, Processes())
    assert list(found) == ["mean of the training", "line on (B02 - B04) / (B02 + B04)"]
    a, b = -index[:4][y[:4].isfinite()].double().numpy(), y[:4][y[:4].isfinite()].double().numpy()
    line = np.polyfit(a, b, 1)
    judged = y[4:].isfinite()
    error = np.polyval(line, -index[4:][judged].numpy()) - y[4:][judged].numpy()
    assert found["line on (B02 - B04) / (B02 + B04)"]["rmse"] == pytest.approx((error**2).mean() ** 0.5, rel=1e-4)
    assert found["mean of the training"]["r2"] == pytest.approx(0.0, abs=0.01)


def test_indices_by_their_names_stand_beside_pairs_and_bands():
    names = list(candidates_of(["B04", "B08", "B12"]))
    assert names == ["NDVI", "SAVI", "EVI2", "NBR", "(B04 - B12) / (B04 + B12)", "B04", "B08", "B12"]
    assert score_value_baselines(["B04"], 1.0, [], [], Processes()).keys() == {"mean of the training"}


def test_further_scores_of_a_confusion_matrix_by_hand():
    assert further_scores([[50, 10], [5, 35]]) == {"micro_iou": 85 / 115, "mean_accuracy": (50 / 60 + 35 / 40) / 2}


def test_the_border_of_a_square_that_is_mapped_a_pixel_too_far_by_hand():
    """Truth 8 x 8, map shifted by one: borders two pixels wide are frames of 48 pixels each; 34 of them coincide."""
    truth, found = (torch.zeros(1, 20, 20, dtype=torch.uint8) for _ in range(2))
    truth[0, 6:14, 6:14] = found[0, 6:14, 7:15] = 1
    metrics = BoundaryMetrics(("background", "fire"))
    metrics.update(found, truth)
    frames = []
    for left in (6, 7):
        pixels = {(y, x) for y in range(6, 14) for x in range(left, left + 8)}
        frames.append({(y, x) for y, x in pixels if any((y + dy, x + dx) not in pixels for dy in range(-2, 3) for dx in range(-2, 3))})
    both, either = len(frames[0] & frames[1]), len(frames[0] | frames[1])
    assert len(frames[0]) == 48 and metrics.counts.tolist() == [[0, 0], [both, either]]
    assert metrics.compute() == {"boundary_mean_iou": both / either, "boundary_iou_fire": both / either}


def test_the_rim_of_a_patch_and_of_what_is_ignored_is_no_border():
    truth = torch.ones(1, 9, 9, dtype=torch.uint8)
    truth[0, :, :4] = 255
    metrics = BoundaryMetrics(("background", "fire"))
    metrics.update(torch.ones(1, 9, 9, dtype=torch.uint8), truth)
    assert metrics.counts.tolist() == [[0, 0], [0, 0]] and np.isnan(metrics.compute()["boundary_mean_iou"])
