"""
How far an exported network is from the one that it was made of.

Differences are in proportion to the largest logit: an absolute 1e-4 fails on healthy networks, whose logits reach hundreds.
"""

from dataclasses import dataclass

import numpy as np

LARGEST = 1e-4  # difference / largest value that still is rounding


@dataclass(frozen=True)
class Parity:
    """
    difference: the largest, over the largest value. differing, of: how many answers (classes of pixels, labels of boxes) are others, and
    of how many.
    """

    difference: float = 0.0
    differing: int = 0
    of: int = 0

    @property
    def holds(self):
        return self.difference <= LARGEST  # NaN holds nothing

    def __add__(self, other):
        worst = self.difference if not other.difference > self.difference else other.difference
        worst = float("nan") if self.difference != self.difference or other.difference != other.difference else worst
        return Parity(worst, self.differing + other.differing, self.of + other.of)

    def __str__(self):
        share = f"; classes differ at {self.differing} of {self.of}" if self.of else ""
        return f"difference / largest value {self.difference:.1e}{share}"


def compare_dense(expected, found, classes=False):
    """Parity of one array each, (B, K, …). classes: whether the second axis has logits of classes."""
    (expected,), (found,) = expected, found
    if expected.shape != found.shape:
        return Parity(float("inf"))
    difference = relative(expected, found)
    if not classes:
        return Parity(difference)
    answers = expected.argmax(axis=1)
    return Parity(difference, int((answers != found.argmax(axis=1)).sum()), answers.size)


def compare_ranked(expected, found, size):
    """
    Parity of (boxes (B, N, 4), scores or logits (B, N), labels (B, N)), the best first. size: (width, height) that boxes are measured in.

    Neighbours in rank whose scores are equal but for rounding may change places: boxes and labels count where a score is unlike those
    before and behind it. There another label holds nothing.
    """
    if [part.shape for part in expected] != [part.shape for part in found]:
        return Parity(float("inf"))
    (boxes, scores, labels), (other_boxes, other_scores, other_labels) = expected, found
    difference = relative(scores, other_scores)
    step = np.abs(np.diff(scores.astype(np.float64), axis=1)) > LARGEST * np.abs(scores).max(initial=1e-12)
    apart = np.ones(scores.shape, bool)
    apart[:, 1:] &= step
    apart[:, :-1] &= step
    if scores.shape[1] > 1:
        apart[:, -1] = False  # the next one, which is not seen, may be as good
    scaled, other_scaled = (part.astype(np.float64) / (*size, *size) for part in (boxes, other_boxes))
    if apart.any():
        worst = np.abs(scaled - other_scaled)[apart].max() / max(1.0, np.abs(scaled[apart]).max())
        difference = float("nan") if difference != difference or worst != worst else max(difference, float(worst))
    wrong = int((labels != other_labels)[apart].sum())
    return Parity(float("inf") if wrong else difference, wrong, int(apart.sum()))


def relative(expected, found):
    expected, found = expected.astype(np.float64), found.astype(np.float64)
    return float(np.abs(expected - found).max() / max(np.abs(expected).max(), 1e-12))
