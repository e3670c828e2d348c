"""
Synthetic Sentinel-2 scenes of burnt country with labels: training data of the demo, ground truth of tests.

    scene = generate_scene(seed=7, height=768, width=768)   # reflectance (12, H, W), severity, delineation and cloud mask (H, W)

Modelled: terrain eroded by rivers (relief.py); natural cover by slope, aspect, height and wetness (country.py); fields, clear-cuts, water,
towns and roads (farming.py, water.py, building.py); a fire that spreads from one point by wind, slope and fuel and leaves islands
(burning.py); sun, clouds with shadows, smoke and haze blur, misregistration and noise of the instrument (imaging.py).

**Not** modelled: anything in time (there is no image from before the fire), directional reflectance, snow, adjacency between clouds and
ground. Spectra are round figures for each material (materials.py), not library measurements. A network trained here has learnt these
scenes, and is a rehearsal for real ones, not a substitute.

The scenes are meant to be hard for a threshold and fair for a network: ploughed soil, harvested and burnt-off fields, clear-cuts, old
fires, dark water and cloud shadows share the burn index of a fire, but neither its shape nor its whole spectrum.

The same seed gives the same bytes (on one kind of processor: the last bit of a Fourier transform may differ between kinds). Another
seed is another place: footprints of scenes of up to 2 400 pixels never overlap.
"""

from dataclasses import dataclass, replace

import numpy as np

from constants import IGNORE
from synthetic.burning import char_surface, grow_fire, label_fire
from synthetic.country import make_land
from synthetic.fields import fractal_noise
from synthetic.imaging import make_clouds, photograph
from synthetic.materials import PIXEL, lay
from synthetic.place import LARGEST, SMALLEST, Place, choose_place

SCARRED = 0.1  # severity of an earlier fire from which on it has left a scar


@dataclass
class SyntheticScene:
    """An image and its labels on one grid."""

    name: str
    image: np.ndarray  # (12, H, W) float32 surface reflectance; nodata is 0 in all bands
    severity: np.ndarray  # (H, W) uint8: 0 none, 1 negligible, 2 moderate, 3 high, 4 destroyed, 255 nodata
    delineation: np.ndarray  # (H, W) uint8: 0 not burned, 1 burned, 255 nodata
    cloud_mask: np.ndarray  # (H, W) uint8: 0 clear, 1 cloud, 2 thin cloud or smoke, 3 cloud shadow
    scar: np.ndarray  # (H, W) bool: where a fire of earlier years burned, grown over by now
    place: Place

    @property
    def crs(self):
        return f"EPSG:{self.place.epsg}"

    @property
    def transform(self):
        """Six numbers as rasterio.Affine takes them: from (column, row) to metres."""
        return (PIXEL, 0.0, self.place.left, 0.0, -PIXEL, self.place.top)


def generate_scene(seed, height=768, width=768, **changes):
    """The SyntheticScene of a seed: (height, width) pixels of 10 m. `changes` replace fields of its Place, e.g. cloud_share=0.0."""
    if min(height, width) < 1 or max(height, width) > LARGEST:
        raise ValueError(f"a scene has 1 to {LARGEST} pixels a side, got {height} x {width}")
    place = replace(choose_place(seed), **changes)
    rng = np.random.default_rng([seed, 2])
    shape = max(height, SMALLEST), max(width, SMALLEST)
    land = make_land(rng, shape, place)
    surface = land.surface
    old = np.zeros(shape, np.float32)
    if place.old_fire:  # two to five years ago: grown over by shrubs, still low in the burn index
        old = grow_fire(rng, land, rng.uniform(0, 360), rng.uniform(0.04, 0.10))
        grown = np.clip(1.4 * old, 0, rng.uniform(0.65, 0.95))
        lay(surface, grown, "regrowth", 1 + 0.06 * fractal_noise(rng, shape, 0.8))
        land.fuel *= 1 - 0.6 * old
    severity = np.zeros(shape, np.float32)
    if place.fire_share > 0:
        severity = grow_fire(rng, land, place.wind_from, place.fire_share)
        char_surface(rng, surface, severity, place.freshness, land.fuel)
    cover, shadow = make_clouds(rng, shape, place)
    image, cloud_mask = photograph(rng, surface, land, place, cover, shadow, severity)
    grade = label_fire(severity)
    if place.swath_edge:
        rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
        outside = columns + 0.21 * rows < rng.uniform(0.10, 0.24) * shape[1]
        image[:, outside] = 0.0
        grade[outside] = IGNORE
        cloud_mask[outside] = 0
    image, grade, cloud_mask = (np.ascontiguousarray(a[..., :height, :width]) for a in (image, grade, cloud_mask))
    delineation = np.where(grade == IGNORE, IGNORE, grade > 0).astype(np.uint8)
    return SyntheticScene(f"PLACE{seed:04d}", image, grade, delineation, cloud_mask, old[:height, :width] > SCARRED, place)
