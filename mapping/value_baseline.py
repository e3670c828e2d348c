"""
What a network that predicts values has to beat: the mean of the training, and a straight line on the best single index or band.

Candidates are the spectral indices that the bands allow, the normalised differences of all other pairs of bands, and the bands themselves.
The line of each is fitted on training pixels, of which up to PIXELS a patch are looked at; the one that fits these best is scored.
"""

import itertools

import torch

from nets.input_step import index_values
from runtime.errors import UserError
from spectral_indices import SPECTRAL_INDICES, index_positions
from value_metrics import ValueMetrics

PIXELS = 1024  # of a patch


def candidates_of(bands):
    """{name: function of reflectance (B, C, h, w) → (B, h, w)}."""
    found, pairs = {}, set()
    for name in SPECTRAL_INDICES:
        try:
            a, b = index_positions(name, bands)
        except UserError:
            continue
        pairs.add(frozenset((a, b)))
        found[name.upper()] = lambda x, name=name, a=a, b=b: index_values(name, x[:, a], x[:, b])
    for a, b in itertools.combinations(range(len(bands)), 2):
        if frozenset((a, b)) not in pairs:
            name = f"({bands[a]} - {bands[b]}) / ({bands[a]} + {bands[b]})"
            found[name] = lambda x, a=a, b=b: index_values("ndvi", x[:, a], x[:, b])  # any plain normalised difference
    return found | {band: lambda x, i=i: x[:, i] for i, band in enumerate(bands)}


def fit_best(batches, candidates, processes):
    """
    (name, slope, intercept) of the line that explains most of the targets; None where nothing can be fitted. batches: iterable of
    (reflectance (B, C, h, w), target (B, h, w) with NaN = ignore), of this process.
    """
    sums = torch.zeros(len(candidates), 6, dtype=torch.float64)  # n, Σx, Σy, Σxx, Σxy, Σyy
    for reflectance, target in batches:
        step = max(1, round((target[0].numel() / PIXELS) ** 0.5))
        reflectance, target = reflectance[..., ::step, ::step], target[:, ::step, ::step]
        valid = torch.isfinite(target)
        y = target[valid].double()
        for row, index in enumerate(candidates.values()):
            x = index(reflectance)[valid].double()
            sums[row] += torch.stack([torch.ones_like(x).sum(), x.sum(), y.sum(), (x * x).sum(), (x * y).sum(), (y * y).sum()])
    n, x, y, xx, xy, yy = processes.sum(sums).unbind(dim=1)
    if not n[0]:
        return None
    variance, covariance, spread = xx - x * x / n, xy - x * y / n, yy - y * y / n
    usable = (variance > 1e-12 * xx) & (spread > 0)
    explained = torch.where(usable, covariance**2 / torch.where(usable, variance * spread, 1.0), 0.0)
    best = int(explained.argmax())
    if not explained[best] > 0:
        return None
    slope = float(covariance[best] / variance[best])
    return list(candidates)[best], slope, float((y[best] - slope * x[best]) / n[best])


def score_value_baselines(bands, mean, train_batches, val_batches, processes):
    """
    {name: scores} of the mean of the training and of the best single index, over the validation patches.

    bands: names. mean: of the training's targets. train_batches, val_batches: see fit_best.
    """
    candidates = candidates_of(bands)
    fitted = fit_best(train_batches, candidates, processes)
    ways = {"mean of the training": lambda x: x.new_full(x[:, 0].shape, mean)}
    if fitted:
        best, slope, intercept = fitted
        ways[f"line on {best}"] = lambda x: slope * candidates[best](x) + intercept
    metrics = {name: ValueMetrics(centre=mean) for name in ways}
    for reflectance, target in val_batches:
        for name, way in ways.items():
            metrics[name].update(way(reflectance), target)
    for each in metrics.values():
        each.sums.copy_(processes.sum(each.sums))
    return {name: each.compute() for name, each in metrics.items()}
