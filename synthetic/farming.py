"""Farmland and forestry: fields with their crops and hedges, clear-cuts in the forest."""

import datetime

import numpy as np

from synthetic.fields import fractal_noise, smooth, stripes
from synthetic.materials import lay


def parcels(rng, shape):
    """Fields: (number (H, W) int, distance to the parcel's border (H, W) in pixels, tillage lines (H, W) -1..1).

    The land is divided into districts, each with its own direction and size of field.
    """
    height, width = shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    bend = max(shape) / 40
    rows += bend * fractal_noise(rng, shape, 2.0, shortest=40)
    columns += bend * fractal_noise(rng, shape, 2.0, shortest=40)
    count = max(2, height * width // 55_000)
    centre = rng.uniform(0, 1, (count, 2)) * (height, width)
    nearest, district = np.full(shape, np.inf, np.float32), np.zeros(shape, np.int32)
    for i, (row, column) in enumerate(centre):
        distance = (rows - row) ** 2 + (columns - column) ** 2
        district[distance < nearest] = i
        nearest = np.minimum(nearest, distance)
    angle = rng.uniform(0, np.pi, count).astype(np.float32)[district]
    depth = rng.uniform(7, 26, count).astype(np.float32)[district]
    u = rows * np.cos(angle) + columns * np.sin(angle) + 4096
    v = columns * np.cos(angle) - rows * np.sin(angle) + 4096
    strip = np.floor(u / depth).astype(np.int64)
    length = depth * rng.uniform(0.7, 3.5, 997).astype(np.float32)[(strip * 31 + district * 7) % 997]
    start = rng.uniform(0, 60, 997).astype(np.float32)[(strip * 17 + district * 5) % 997]
    place = np.floor((v + start) / length).astype(np.int64)
    across, along = u / depth - strip, (v + start) / length - place
    border = np.minimum(np.minimum(across, 1 - across) * depth, np.minimum(along, 1 - along) * length)
    _, number = np.unique((district * 100_000 + strip) * 100_000 + place, return_inverse=True)
    return number.reshape(shape), border, np.sin(u * 2.1)


def sow(rng, surface, fuel, suitable, date):
    """Lay fields where `suitable` (H, W, 0..1) averages above one half over a parcel. Returns the share of farmland (H, W).

    surface (12, H, W) and fuel (H, W) are changed in place; date decides how much is harvested.
    """
    number, border, tillage = parcels(rng, suitable.shape)
    count = number.max() + 1
    mean = np.bincount(number.ravel(), suitable.ravel(), count) / np.bincount(number.ravel(), minlength=count)
    late = np.clip((date - datetime.date(date.year, 6, 1)).days / 110, 0, 1)  # harvest moves on through the summer
    crops = ("green_crop", "stubble", "dark_soil", "red_soil", "pale_soil", "dry_grass", "orchard", "burnt_off")
    odds = np.array(
        [0.24 - 0.08 * late, 0.26 + 0.06 * late, 0.07 + 0.09 * late, 0.06, 0.08, 0.14, 0.14, 0.01 + 0.03 * late]
    )
    crop = rng.choice(len(crops), count, p=odds / odds.sum())
    brightness = rng.normal(1.0, 0.12, count).clip(0.6, 1.4).astype(np.float32)
    vigour = rng.beta(4, 2, count).astype(np.float32)
    farmed = (mean > rng.normal(0.5, 0.05, count))[number]
    texture = brightness[number] * (1 + 0.03 * tillage + 0.05 * fractal_noise(rng, suitable.shape, 1.0, longest=30))
    for i, name in enumerate(crops):
        share = (farmed & (crop == i)[number]).astype(np.float32)
        if not share.any():
            continue
        if name == "green_crop":
            lay(surface, share, "dry_grass", texture)
            lay(surface, share * vigour[number], "green_crop", texture)
        elif name == "orchard":
            lay(surface, share, "pale_soil" if rng.random() < 0.5 else "red_soil", texture)
            trees = 0.45 + 0.25 * np.sign(tillage) * (fractal_noise(rng, suitable.shape, 0.0) > -0.5)
            lay(surface, share * trees, "broadleaf", 0.8)
        elif name == "burnt_off":
            lay(surface, share, "char", 1.15 * texture)
            lay(surface, share * 0.45, "stubble", texture)
        else:
            lay(surface, share, name, texture)
        inflammable = {"stubble": 0.35, "dry_grass": 0.4, "orchard": 0.2}.get(name, 0.04)
        fuel += share * (inflammable - fuel)
    hedge = farmed * np.clip(1.0 - border, 0, 1) * (0.35 + 0.3 * (vigour[number] > 0.6))
    lay(surface, hedge, "shrub")
    return farmed.astype(np.float32)


def sow_valleys(rng, surface, fuel, relief, date):
    """Lay fields on flat and low ground, in place. Returns the share of farmland (H, W)."""
    flat = np.clip(1.4 - relief.slope / 0.10, 0, 1) * np.clip(1.5 - 2.2 * relief.height, 0, 1)
    return sow(rng, surface, fuel, smooth(flat, 3) + 0.10 * fractal_noise(rng, fuel.shape, 1.2, longest=90), date)


def clear_forest(rng, surface, fuel, forest):
    """Cut clearings and pastures into the forest, in place: straight-edged, bare, and as low in the burn index as a fire.

    forest: (H, W) share of trees and shrubs
    """
    height, width = forest.shape
    cuts = []
    for _ in range(rng.poisson(height * width / 90_000)):
        row, column = rng.uniform(0, height), rng.uniform(0, width)
        length, wide, angle = rng.uniform(10, 34), rng.uniform(6, 18), rng.uniform(0, np.pi)
        way = np.array([np.sin(angle), np.cos(angle)])
        cuts.append((np.array([(row, column) - way * length / 2, (row, column) + way * length / 2]), wide))
    cut = stripes(cuts, forest.shape, detail=2) * (forest > 0.5)
    lay(surface, cut * 0.8, str(rng.choice(["red_soil", "dark_soil", "dry_grass", "regrowth"])), 1.0)
    fuel *= 1 - 0.6 * cut
