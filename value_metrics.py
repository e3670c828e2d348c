"""
Scores of values (biomass, height, an index …): RMSE, MAE, bias and R² over valid pixels, from sums of one row a patch.

Rows are added in the patches' order at the end, so neither the batches nor the number of processes show in a score. 0/0 is NaN.
"""

import math

import torch

from metrics import NAN, Counts, ratio

COLUMNS = 6  # valid pixels, Σ error, Σ |error|, Σ error², Σ (target − centre), Σ (target − centre)²


class ValueMetrics(Counts):
    """
    rows: patches that are scored, or 1 for one sum over all. centre: about the mean of the targets, which keeps digits of R².

    Sums are float64, float32 on MPS, which has no other.
    """

    def __init__(self, rows=1, centre=0.0, device="cpu"):
        kind = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self.centre, self.sums = centre, torch.zeros(rows, COLUMNS, dtype=kind, device=device)

    def tensors(self):
        return {"value_sums": self.sums}

    def update(self, prediction, target, indices=None):
        """prediction, target: (B, H, W) or (B, 1, H, W), NaN = ignore in the target. indices: rows of the B patches; None: all in row 0."""
        prediction, target = (values.to(self.sums.dtype).reshape(len(target), -1) for values in (prediction, target))
        valid = torch.isfinite(target)
        error = torch.where(valid, prediction - target, 0.0)
        away = torch.where(valid, target - self.centre, 0.0)
        sums = torch.stack([valid.sum(dim=1).to(error.dtype), error.sum(dim=1), error.abs().sum(dim=1), error.square().sum(dim=1),
                            away.sum(dim=1), away.square().sum(dim=1)], dim=1)
        if indices is None:
            self.sums[0] += sums.sum(dim=0)
        else:
            self.sums[torch.as_tensor(indices, device=self.sums.device)] += sums

    def compute(self):
        return value_scores(self.sums.cpu().double().sum(dim=0).tolist())


def value_scores(sums):
    """{"rmse", "mae", "bias" (mean of prediction − target), "r2", "valid_pixels"} of the COLUMNS sums."""
    count, error, size, squares, away, away_squares = sums
    mean_square = ratio(squares, count)
    spread = away_squares - ratio(away**2, count) if count else 0.0  # Σ (target − mean)²
    return {
        "rmse": math.sqrt(mean_square) if mean_square == mean_square else NAN, "mae": ratio(size, count), "bias": ratio(error, count),
        "r2": 1.0 - squares / spread if spread > 0 else NAN, "valid_pixels": int(count),
    }
