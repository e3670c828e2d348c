"""A synthetic fire: how it spreads, what it does to the surface, how it would be labelled."""

import numpy as np

from synthetic.fields import STEPS, enlarge, fractal_noise, logistic, smooth, spreading_time
from synthetic.materials import SPECTRA

SEVERITY_STEPS = (0.16, 0.30, 0.52, 0.78)  # burn severity 0..1 at which the label becomes 1, 2, 3, 4
SEVERITY_MIDDLE = (0.0, 0.22, 0.42, 0.66, 0.90)  # and the severity that a label stands for


def grow_fire(rng, land, wind_from, share):
    """Burn severity (H, W) float32 0..1 of a fire that covers about `share` of the scene. wind_from: degrees clockwise from north

    The front enters a cell sooner downwind, uphill and in good fuel; the perimeter is where it is when the wanted area has burnt.
    Severity follows fuel, aspect and the time of burning; wet hollows and gaps in fuel stay as islands.
    """
    shape = land.fuel.shape
    cell = 6 if min(shape) >= 48 else 1
    coarse = -(-shape[0] // cell), -(-shape[1] // cell)

    def shrink(field):
        full = np.pad(field, ((0, coarse[0] * cell - shape[0]), (0, coarse[1] * cell - shape[1])), mode="edge")
        return full.reshape(coarse[0], cell, coarse[1], cell).mean(axis=(1, 3))

    fuel, east, south = shrink(land.fuel), shrink(land.slope_east), shrink(land.slope_south)
    gusts = 0.55 * fractal_noise(rng, coarse, 1.1, longest=40)
    towards = np.deg2rad(wind_from + 180)
    cost = []
    for dr, dc, distance in STEPS:
        with_wind = (dc * np.sin(towards) - dr * np.cos(towards)) / distance
        uphill = (dc * east + dr * south) / distance
        cost.append(np.exp(gusts - 0.9 * with_wind - 2.2 * np.clip(uphill, -0.6, 0.6)) / np.clip(fuel, 0.02, 1) ** 1.3)
    good = np.flatnonzero((fuel >= np.percentile(fuel, 70)).ravel())
    middle = np.abs(np.stack(np.unravel_index(good, coarse), 1) / coarse - 0.5).max(axis=1)
    good = good[middle < 0.3] if (middle < 0.3).any() else good
    start = np.zeros(coarse, bool)
    start.ravel()[rng.choice(good)] = True
    time = spreading_time(np.stack(cost).astype(np.float32), start)
    end = float(np.quantile(time, share))
    time = np.minimum(time, 20 * max(end, 1e-6))
    early = 1 - enlarge(time, shape, cell) / max(end, 1e-6)  # 1 at the ignition, 0 at the perimeter
    detail = fractal_noise(rng, shape, 1.1, longest=50)
    early = early + 0.05 * detail

    aspect = land.slope_south / (np.hypot(land.slope_south, land.slope_east) + 0.06)  # 1 faces north
    heat = 0.60 + 0.17 * fractal_noise(rng, shape, 1.5, longest=200, shortest=6) - 0.10 * aspect
    heat += 0.30 * (land.fuel - 0.65)
    heat += 0.07 * fractal_noise(rng, shape, 1.0, longest=30)
    heat *= 0.35 + 0.65 * np.clip(early / 0.10, 0, 1)  # the flanks burn cooler
    gaps = logistic(9 * (land.fuel - 0.22))
    gaps *= logistic(9 * (fractal_noise(rng, shape, 1.3, longest=60, shortest=4) + 1.75))
    return np.clip(heat, 0, 1).astype(np.float32) * logistic(60 * early) * gaps


def char_surface(rng, surface, severity, freshness, fuel=None):
    """Burn `surface` (12, H, W) in place by `severity` (H, W, 0..1): green leaves turn brown, then black, then to ash.

    freshness: of the char, 1 last week .. 0.5 washed out; fuel: (H, W) 0..1, where nothing burns the surface stays, or None
    """
    shape = severity.shape
    s = np.clip(severity, 0, 1)
    ashy = 0.5 * np.clip((s - 0.70) / 0.3, 0, 1) * np.clip(0.6 + 0.5 * fractal_noise(rng, shape, 1.0, longest=60), 0, 1)
    green = (1 - s) ** 2.2
    black = (1 - green) * np.clip(0.25 + 0.85 * s, 0, 0.95)
    brown = 1 - green - black
    before = surface.copy()
    texture = 1 + 0.10 * fractal_noise(rng, shape, 0.6, longest=30)
    burnt = np.zeros_like(surface)
    for material, share in (("char", black * (1 - ashy)), ("ash", black * ashy), ("scorched", brown)):
        burnt += np.array(SPECTRA[material], np.float32)[:, None, None] * (share * texture)
    # Rain washes char away, and the ground shows through: bright ground makes a bright scar.
    ground = 0.10 + 0.45 * (1 - freshness)
    burnt += ground * black * (before - np.array(SPECTRA["char"], np.float32)[:, None, None])
    burnt += before * green
    share = np.ones(shape, np.float32) if fuel is None else np.clip(fuel / 0.25, 0, 1)
    surface += share * (burnt - surface)


def label_fire(severity):
    """Severity 0..1 -> classes 0..4 (H, W) uint8, generalised like polygons drawn by hand: nothing under about four pixels."""
    return np.digitize(smooth(severity, 1.4), SEVERITY_STEPS).astype(np.uint8)
