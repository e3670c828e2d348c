"""How a map of values is shown, in its preview, on the page and by QGIS alike: from dark (1st percentile) to bright (99th)."""

import numpy as np

from pictures.overlays import PROBABILITY_STOPS, probability_picture

SHOWN = (1, 99)  # percentiles: a few wild pixels do not make all others look alike


def shown_range(values):
    """(low, high) of values of any shape, between which they are shown; NaN takes no part. (0, 1) where there are none."""
    known = values[np.isfinite(values)]
    return tuple(map(float, np.percentile(known, SHOWN))) if known.size else (0.0, 1.0)


def value_picture(values, low, high):
    """(H, W, 3) uint8 of values (H, W), NaN for nodata: dark at `low` and below, bright at `high` and above."""
    return probability_picture((values - low) / max(high - low, 1e-9))


def value_legend(name, low, high):
    """[(colour, words)] of that picture."""
    return [(None, name), (PROBABILITY_STOPS[0], f"{low:.4g}"), (PROBABILITY_STOPS[-1], f"{high:.4g}")]
