"""The land before the fire: relief, natural cover, farmland, water, towns and roads, in this order."""

from dataclasses import dataclass

import numpy as np

from synthetic.building import build
from synthetic.farming import clear_forest, sow_valleys
from synthetic.fields import fractal_noise
from synthetic.materials import BANDS, SPECTRA, lay
from synthetic.relief import make_relief
from synthetic.water import add_water

# How well each natural cover burns: a fire enters quickly, and burns hot.
COVERS = ("conifer", "broadleaf", "shrub", "dry_grass", "rock")
FUEL = np.array((1.0, 0.6, 0.85, 0.55, 0.08), np.float32)


@dataclass
class Land:
    """The land before the fire. All (H, W) float32 but `surface`."""

    surface: np.ndarray  # (12, H, W) reflectance in even light
    slope_east: np.ndarray  # rise towards the east and south, metres per metre
    slope_south: np.ndarray
    fuel: np.ndarray  # 0 does not burn .. 1 burns well


def make_land(rng, shape, place):
    """The Land of a Place on a grid of `shape` pixels. The order of the steps decides the draws of `rng`, hence the pixels of a seed."""
    relief = make_relief(rng, shape, place.valley, place.steepness)
    surface, fuel, forest = grow_cover(rng, relief, place.dryness)
    clear_forest(rng, surface, fuel, forest)
    farmed = sow_valleys(rng, surface, fuel, relief, place.date)
    river_width, pond = add_water(rng, surface, fuel, relief, farmed, place.valley)
    build(rng, surface, fuel, relief, river_width, pond, place.valley)
    return Land(surface, relief.slope_east, relief.slope_south, np.clip(fuel, 0, 1))


def cover_shares(rng, relief, dryness):
    """(5, H, W) share 0..1 of each of COVERS, 1 in sum. dryness: -1 lush .. 1 parched"""
    # North slopes and valleys are moist, high and steep ground is poor.
    shade = relief.slope_south / (relief.slope + 0.06)
    moist = 0.9 * shade * np.clip(relief.slope / 0.25, 0, 1) + 0.35 * relief.wetness - 1.2 * dryness
    moist += 0.45 * fractal_noise(rng, shade.shape, 1.4)
    patches = [fractal_noise(rng, shade.shape, 1.15, longest=130) for _ in COVERS]
    score = np.stack(
        [
            0.9 * moist + 1.6 * relief.height - 0.5 + 0.9 * patches[0],
            1.1 * moist - 0.8 * relief.height + 0.2 + 0.9 * patches[1],
            -0.3 * moist + 0.9 + 0.8 * patches[2],
            -0.9 * moist - 0.4 * relief.height + 0.0 + 0.9 * patches[3],
            9.0 * (relief.slope - 0.75) + 2.0 * (relief.height - 1.0) - 0.5 + 0.8 * patches[4],
        ]
    )
    score = np.exp(1.5 * (score - score.max(axis=0)))
    score /= score.sum(axis=0)
    return score


def grow_cover(rng, relief, dryness):
    """(surface (12, H, W) reflectance, fuel (H, W) 0..1, forest (H, W): share of trees and shrubs)."""
    shares = cover_shares(rng, relief, dryness)
    shape = shares.shape[1:]
    spectra = np.array([SPECTRA[name] for name in COVERS], np.float32)
    surface = (spectra.T @ shares.reshape(len(COVERS), -1)).reshape(len(BANDS), *shape)
    fuel = (FUEL @ shares.reshape(len(COVERS), -1)).reshape(shape)
    bare = np.clip(0.12 + 0.10 * fractal_noise(rng, shape, 0.8, longest=60) + 0.1 * dryness, 0, 0.6)
    ground = str(rng.choice(["pale_soil", "red_soil", "dark_soil"]))
    lay(surface, bare * (shares[2] + shares[3]), ground)
    surface *= 1 + 0.07 * fractal_noise(rng, shape, 0.5, longest=20)
    return surface, fuel, shares[0] + shares[1] + shares[2]
