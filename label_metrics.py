"""
Scores of labels of whole patches: one class a patch, or any number of them.

Validation keeps the probabilities of every patch in a table by the patches' order, from which all scores follow exactly, AUROC
too; neither the batches nor the number of processes show in it. A score that is 0/0 is NaN, and is left out of means.
"""

import torch

from constants import IGNORE
from metrics import NAN, Counts, count_into, mean_of_defined, overlap_scores, ratio

DECIDED = 0.5  # a label is there from this probability on


def auroc(scores, truth):
    """Area under the ROC curve of (N,) scores and (N,) bool: how often a true one ranks above a false one, ties half. NaN without both."""
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return NAN
    _, place, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    ends = counts.cumsum(dim=0).double()
    ranks = (ends - (counts.double() - 1) / 2)[place]  # the mean rank of equal scores, from 1 on
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def class_scores(matrix, names):
    """
    Scores of a confusion matrix [target, prediction] of patches.

    accuracy: share of patches that are right (micro); mean_accuracy: mean over the classes of the share of their patches that are found.
    """
    matrix = torch.as_tensor(matrix).tolist()
    n = len(matrix)
    tp = [matrix[c][c] for c in range(n)]
    fp = [sum(matrix[t][c] for t in range(n)) - tp[c] for c in range(n)]
    fn = [sum(matrix[c]) - tp[c] for c in range(n)]
    scores = {"accuracy": ratio(sum(tp), sum(map(sum, matrix)))}
    found = each_class(names, tp, fp, fn)
    return {**scores, "mean_accuracy": found["mean_recall"], **{key: value for key, value in found.items() if key != "mean_recall"}}


def each_class(names, tp, fp, fn):
    """mean_f1, mean_precision, mean_recall, and f1_<class>, precision_<class>, recall_<class> of hits, false alarms and misses."""
    each = [overlap_scores(*counts) for counts in zip(tp, fp, fn, strict=True)]
    scores = {f"mean_{key}": mean_of_defined([s[of] for s in each])[0] for key, of in KEYS.items()}
    for name, s in zip(names, each, strict=True):
        scores |= {f"{key}_{name}": s[of] for key, of in KEYS.items()}
    return scores


KEYS = {"f1": "dice", "precision": "precision", "recall": "recall"}  # the Dice coefficient of counts is their F1


def label_scores(counts, names):
    """
    Scores of [[tn, fp, fn, tp], …] of each label. accuracy: share of all labels that are right (micro); mean_accuracy: mean of that over
    the labels; micro_f1: of all labels together.
    """
    tn, fp, fn, tp = (list(column) for column in zip(*torch.as_tensor(counts).tolist(), strict=True))
    right = [ratio(a + d, a + b + c + d) for a, b, c, d in zip(tn, fp, fn, tp, strict=True)]
    return {
        "accuracy": ratio(sum(tp) + sum(tn), sum(map(sum, (tn, fp, fn, tp)))), "mean_accuracy": mean_of_defined(right)[0],
        "micro_f1": overlap_scores(sum(tp), sum(fp), sum(fn))["dice"], **each_class(names, tp, fp, fn),
    }


class ClassCounts(Counts):
    """One class a patch, counted as a confusion matrix: what training tells of its patches."""

    def __init__(self, names, device="cpu"):
        self.names = names
        self.counts = torch.zeros(len(names) ** 2 + 1, dtype=torch.int64, device=device)  # the last place: ignored

    def tensors(self):
        return {"confusion": self.counts}

    def update(self, prediction, target):
        """prediction: (B,) classes; target: (B,), 255 = ignore."""
        pair = target.long() * len(self.names) + prediction
        count_into(self.counts, torch.where(target == IGNORE, len(self.counts) - 1, pair))

    def compute(self):
        return class_scores(self.counts[:-1].reshape(len(self.names), -1), self.names)


class LabelCounts(Counts):
    """Any number of labels a patch, counted label by label: what training tells of its patches."""

    def __init__(self, names, device="cpu"):
        self.names = names
        self.counts = torch.zeros(4 * len(names) + 1, dtype=torch.int64, device=device)  # (labels, tn fp fn tp); the last place: ignored

    def tensors(self):
        return {"labels": self.counts}

    def update(self, prediction, target):
        """prediction: (B, C) bool; target: (B, C) of 0, 1 and 255 = ignore."""
        place = torch.arange(len(self.names), device=target.device) * 4 + target.long() * 2 + prediction.long()
        count_into(self.counts, torch.where(target == IGNORE, len(self.counts) - 1, place))

    def compute(self):
        return label_scores(self.counts[:-1].reshape(-1, 4), self.names)


class LabelTable(Counts):
    """
    Probabilities and truth of all patches of a split, a row each; rows that no process fills stay 0 and are not judged.

    several: any number of labels a patch, else one.
    """

    def __init__(self, rows, names, several, device="cpu"):
        self.names, self.several = names, several
        self.probabilities = torch.zeros(rows, len(names), device=device)
        self.truth = torch.zeros((rows, len(names)) if several else rows, dtype=torch.int64, device=device)
        self.filled = torch.zeros(rows, dtype=torch.int64, device=device)

    def tensors(self):
        return {"probabilities": self.probabilities, "truth": self.truth, "filled": self.filled}

    def update(self, probabilities, target, indices):
        """probabilities: (B, C); target: (B,) or (B, C), 255 = ignore. indices: rows of the B patches."""
        rows = torch.as_tensor(indices, device=self.filled.device)
        self.probabilities[rows], self.truth[rows], self.filled[rows] = probabilities.float(), target.long(), 1

    def compute(self):
        filled = self.filled.cpu() > 0
        probabilities, truth = self.probabilities.cpu()[filled], self.truth.cpu()[filled]
        counts = LabelCounts(self.names) if self.several else ClassCounts(self.names)
        counts.update(probabilities >= DECIDED if self.several else probabilities.argmax(dim=1), truth)
        areas = []
        for c in range(len(self.names)):
            labels = truth[:, c] if self.several else truth
            known = labels != IGNORE
            areas.append(auroc(probabilities[known, c], labels[known] == (1 if self.several else c)))
        scores = {**counts.compute(), "mean_auroc": mean_of_defined(areas)[0]}
        scores |= {f"auroc_{name}": area for name, area in zip(self.names, areas, strict=True)}
        if self.several:
            known = (truth != IGNORE).all(dim=1)
            right = ((probabilities[known] >= DECIDED) == (truth[known] == 1)).all(dim=1)
            scores["exact_match"] = ratio(int(right.sum()), len(right))
        return scores


def usual_answer(counts, patches, several):
    """
    (C,) float32, what one would answer without looking: the most frequent class of the training, or of several labels those that more
    than half of its patches have. counts: (C,) of training patches with each label; patches: how many there are.
    """
    counts = torch.as_tensor(counts)
    return (counts * 2 > patches).float() if several else torch.nn.functional.one_hot(counts.argmax(), len(counts)).float()
