"""The land before the fire: relief, natural cover, farmland, water, towns and roads, in this order."""

from dataclasses import dataclass

import numpy as np

from synthetic.building import build
from synthetic.cover import grow_cover
from synthetic.farming import clear_forest, sow_valleys
from synthetic.relief import make_relief
from synthetic.water import add_water


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
