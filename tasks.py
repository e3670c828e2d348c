"""
What train.py can learn, a row a task: losses, scores, which of them is best and in which direction, sample pictures, baselines.

    task = TASKS["regression"]

To add a task: a row here, one in nets.model_config.TASKS that says what it answers, its usual head and its losses (docs/models.md).
"""

import dataclasses
from collections.abc import Callable

import torch

from label_metrics import ClassCounts, LabelCounts, LabelTable, usual_answer
from mapping.patch_samples import write_label_samples, write_samples, write_value_samples
from mapping.scoring import baseline_of
from mapping.validation_baseline import score_baseline
from mapping.value_baseline import score_value_baselines
from metrics import CombinedMetrics, SegmentationScores, as_classes
from nets.model_config import answers_labels
from nets.output_step import answers_of
from value_metrics import ValueMetrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """
    usual_loss: {name: weight} without --loss. prediction(output): what the counts of training take. counts(patch_set, min_pixels, device):
    of an epoch's training patches; told(classes): which of their scores are told. scores(patch_set, dataset, min_pixels, device): of a
    validation, with update(output, target, indices) and compute() → ({name: score}, threshold or None). best(classes): (name of the score
    that says which epoch is best, the same in words); falls: whether lower is better. line(scores, classes): the scores in an epoch's
    line. samples: writes pictures, see mapping.patch_samples. baselines(data, scored, train_batches, batches, processes): {name: scores} of
    what needs no network, of the PatchDataset `scored`.
    """

    usual_loss: dict
    prediction: Callable
    counts: Callable
    told: Callable
    scores: Callable
    best: Callable
    line: Callable
    samples: Callable
    baselines: Callable
    falls: bool = False


# --------------------------------------------------------------------------------------------------------- classes of pixels


def segmentation_counts(patch_set, min_pixels, device="cpu"):
    return CombinedMetrics(len(patch_set.classes), patch_set.classes, min_pixels, device)


def segmentation_line(scores, classes):
    if classes.is_several:
        return f"val mean IoU {scores['mean_iou']:.4f}, accuracy {scores['pixel_accuracy']:.4f}"
    recall, f1 = scores[f"{classes.key}_recall"], scores["detection_f1"]
    return f"val {classes.score_words} {scores[classes.score]:.4f}, recall {recall:.4f}, detection F1 {f1:.4f}"


def index_baseline(data, scored, train_batches, val_batches, processes):
    """The threshold on an index that the network has to beat; {} where the bands have none."""
    classes = data.patch_set.class_set
    baseline = baseline_of(classes, data.patch_set.bands)
    found = baseline and score_baseline(baseline, train_batches, val_batches, processes)
    return {f"{found[0]} threshold": {classes.score: found[1]}} if found else {}


SEGMENTATION = Task(
    usual_loss={"ce": 0.5, "dice": 0.5},
    prediction=as_classes,
    counts=segmentation_counts,
    told=lambda classes: (classes.score, "detection_f1"),
    scores=lambda patch_set, dataset, min_pixels, device: SegmentationScores(patch_set.class_set, min_pixels, device),
    best=lambda classes: (classes.score, classes.score_words),
    line=segmentation_line,
    samples=write_samples,
    baselines=index_baseline,
)


# ---------------------------------------------------------------------------------------------------------- values of pixels


class ValueScores(ValueMetrics):
    """ValueMetrics of a validation; values have no threshold."""

    def compute(self):
        return super().compute(), None


def mean_of(patches):
    """The mean of the valid values of some patches, 0 without any."""
    count = sum(patch.class_pixels[0] for patch in patches)
    return sum(patch.target_sums[0] for patch in patches) / count if count else 0.0


def value_baselines(data, scored, train_batches, val_batches, processes):
    return score_value_baselines(data.patch_set.bands, mean_of(data.train.patches), train_batches, val_batches, processes)


REGRESSION = Task(
    usual_loss={"mse": 1.0},
    prediction=lambda output: answers_of("regression", output),
    counts=lambda patch_set, min_pixels, device="cpu": ValueMetrics(device=device),
    told=lambda classes: ("rmse",),
    scores=lambda patch_set, dataset, min_pixels, device: ValueScores(len(dataset), mean_of(dataset.patches), device),
    best=lambda classes: ("rmse", "RMSE"),
    falls=True,
    line=lambda scores, classes: f"val RMSE {scores['rmse']:.4g}, MAE {scores['mae']:.4g}, R² {scores['r2']:.4f}",
    samples=write_value_samples,
    baselines=value_baselines,
)


# --------------------------------------------------------------------------------------------------------- labels of patches


class LabelScores(LabelTable):
    """The LabelTable of a validation, from a network's output."""

    def __init__(self, rows, names, task, device="cpu"):
        super().__init__(rows, names, answers_labels(task), device)
        self.task = task

    def update(self, output, target, indices):
        super().update(answers_of(self.task, output), target, indices)

    def compute(self):
        return super().compute(), None


def label_baseline(data, scored, train_batches, val_batches, processes):
    """What one would answer without looking: from the manifest alone, in every process."""
    names, several = data.patch_set.classes, answers_labels(data.patch_set.task)
    train, val = (torch.tensor([patch.class_pixels for patch in part.patches]) for part in (data.train, scored))
    table = LabelTable(len(val), names, several)
    answer = usual_answer(train.sum(dim=0), len(train), several)
    table.update(answer.expand(len(val), -1), val if several else val.argmax(dim=1), range(len(val)))
    return {"the usual labels" if several else f"always {names[int(answer.argmax())]}": table.compute()}


def label_line(scores, classes):
    return f"val mean F1 {scores['mean_f1']:.4f}, accuracy {scores['accuracy']:.4f}, AUROC {scores['mean_auroc']:.4f}"


def label_task(name, usual_loss, prediction, counts):
    return Task(
        usual_loss=usual_loss,
        prediction=prediction,
        counts=lambda patch_set, min_pixels, device="cpu": counts(patch_set.classes, device),
        told=lambda classes: ("accuracy", "mean_f1"),
        scores=lambda patch_set, dataset, min_pixels, device: LabelScores(len(dataset), patch_set.classes, name, device),
        best=lambda classes: ("mean_f1", "mean F1"),
        line=label_line,
        samples=write_label_samples,
        baselines=label_baseline,
    )


TASKS = {
    "segmentation": SEGMENTATION,
    "regression": REGRESSION,
    "classification": label_task("classification", {"ce": 1.0}, lambda output: output.argmax(dim=1), ClassCounts),
    "multilabel": label_task("multilabel", {"bce": 1.0}, lambda output: output > 0, LabelCounts),
}
