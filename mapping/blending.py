"""
Overlapping windows become one seamless map: weights that add up to one everywhere, summed up row of windows by row of windows.

The weight of a window is the product of a row profile and a column profile. Both are divided beforehand by their sum over all windows,
so that no weight raster is kept and nothing is divided afterwards: adding up weight · probability is the blended probability.
"""

import numpy as np
import torch

from raster.windows import starts


def profiles(length, size, stride):
    """
    (first pixels [n], weights (n, size) float32) of the windows along one side of a raster.

    A window's weight rises and falls as sin² over the pixels that it shares with a neighbour, never reaches zero, and does not fall
    towards the raster's own border. At every pixel of the raster the weights of all windows add up to one. Pixels beyond the border
    (a raster smaller than a window) have weight one as well.
    """
    firsts = starts(length, size, stride)
    ramp = max(1, size - stride)
    rising = np.sin(np.minimum(1.0, (np.arange(size) + 0.5) / ramp) * np.pi / 2) ** 2
    weights = np.ones((len(firsts), size))
    for k in range(len(firsts)):
        if k > 0:
            weights[k] *= rising
        if k < len(firsts) - 1:
            weights[k] *= rising[::-1]
    total = np.zeros(max(length, size))
    for first, weight in zip(firsts, weights, strict=True):
        total[first : first + size] += weight
    for first, weight in zip(firsts, weights, strict=True):
        weight /= total[first : first + size]
    return firsts, weights.astype(np.float32)


class Blender:
    """
    Sums up the probabilities of windows, row of windows by row of windows, and hands out the rows that no later window touches.

    Memory on the device: classes × window × width floats, whatever the height. shares: they are probabilities, 0..1; else any values.

        for k, row in enumerate(blender.rows):
            blender.add(k, columns, probabilities)   # as often as needed
            first, stop, probability = blender.finish(k)
    """

    def __init__(self, height, width, num_classes, size, stride, device, shares=True):
        self.height, self.width, self.size, self.shares = height, width, size, shares
        self.rows, row_weights = profiles(height, size, stride)
        self.columns, column_weights = profiles(width, size, stride)
        self.row_weights = torch.from_numpy(row_weights).to(device)
        self.column_weights = torch.from_numpy(column_weights).to(device)
        self.sums = torch.zeros(num_classes, size, max(width, size), device=device)  # rows self.rows[k] … + size
        self.next = 0  # index of the row of windows that may be added to now

    def add(self, k, indices, probabilities):
        """k: which row of windows. indices: which columns of windows, a list of B. probabilities: (B, classes, size, size) float32."""
        if k != self.next:
            raise ValueError(f"rows of windows are added in order: expected {self.next}, got {k}")
        weights = self.row_weights[k][:, None] * self.column_weights[indices][:, None, :]  # (B, size, size)
        weighted = probabilities * weights[:, None]
        for i, index in enumerate(indices):
            column = self.columns[index]
            self.sums[:, :, column : column + self.size] += weighted[i]

    def finish(self, k):
        """(first row, stop row, (classes, rows, width) probabilities on the device): the rows that the k-th row of windows completes."""
        first = self.rows[k]
        stop = self.rows[k + 1] if k + 1 < len(self.rows) else self.height
        # Sums of rounded weights are off by 1e-7; to the nearest millionth, what was equal in every window is equal in the map,
        # and a tie between classes is a tie everywhere instead of salt and pepper.
        done = self.sums[:, : stop - first, : self.width]
        done = (done * 2**20).round_().div_(2**20).clamp_(0, 1) if self.shares else done.clone()
        kept = self.size - (stop - first)
        if k + 1 < len(self.rows):
            self.sums[:, :kept] = self.sums[:, stop - first :].clone()
            self.sums[:, kept:] = 0
        self.next = k + 1
        return first, stop, done

    def skip_to(self, k):
        """Start with the k-th row of windows: what lies above is finished elsewhere. The sums lack what earlier windows add below."""
        self.next = k

    def first_needed(self, row):
        """The first row of windows that adds to pixels at or below `row`: where a map that is finished above `row` continues."""
        return next(k for k, first in enumerate(self.rows) if first + self.size > row)


def decide_classes(probability, threshold, each=False):
    """
    ((rows, width) uint8 classes, (rows, width) probability of what is mapped) from (classes, rows, width) probabilities, or a batch of
    them, (classes, B, rows, width).

    What is mapped is any class but 0, with the probability 1 − p_0. With a threshold, a pixel is mapped where that reaches it, and takes
    the most likely of the classes 1 …; without one (None), the most likely of all classes. each: class 0 is no background but a class like
    the others; the probability is that of the pixel's class, and there is no threshold.
    """
    if each:
        return most_likely(probability)
    mapped = (1 - probability[0]).clamp(0, 1)
    if threshold is None:
        return most_likely(probability)[0], mapped
    if len(probability) == 2:
        return (mapped >= threshold).to(torch.uint8), mapped
    return (most_likely(probability[1:])[0] + 1).masked_fill_(~(mapped >= threshold), 0), mapped


def most_likely(probability):
    """
    (which class (…) uint8, its probability) of (classes, …): argmax and amax over the first axis, of equal ones the first. Class by class,
    since argmax over an axis that is not the last takes many times as long on a CPU.
    """
    highest, classes = probability[0], torch.zeros(probability.shape[1:], dtype=torch.uint8, device=probability.device)
    for k in range(1, len(probability)):
        classes.masked_fill_(probability[k] > highest, k)
        highest = torch.maximum(highest, probability[k])
    return classes, highest


def together(probability, members, threshold, each):
    """
    Of (members · classes, rows, W) probabilities: (their mean (classes, rows, W), spread (rows, W), votes (rows, W) uint8).

    spread: the standard deviation of what is mapped among the networks, or of the mean's class where each class stands for itself. votes:
    how many networks map the pixel (or give it the mean's class). threshold, each: see decide_classes.
    """
    apart = probability.reshape(members, -1, *probability.shape[1:])
    mean = apart.mean(dim=0)
    own = torch.stack([decide_classes(one, threshold, each)[0] for one in apart])
    if each:
        chosen = most_likely(mean)[0].long()
        values = apart.gather(1, chosen[None, None].expand(members, 1, *chosen.shape))[:, 0]
        votes = own == chosen
    else:
        values, votes = 1 - apart[:, 0], own > 0
    return mean, values.std(dim=0, correction=0), votes.sum(dim=0).to(torch.uint8)
