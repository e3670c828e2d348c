"""An image painted over labels that exist: land of a seed, burnt and clouded where the labels say."""

from dataclasses import replace

import numpy as np

from constants import IGNORE
from synthetic.burning import SEVERITY_MIDDLE, char_surface
from synthetic.country import make_land
from synthetic.fields import fractal_noise, smooth
from synthetic.imaging import HAZE, light, sense
from synthetic.materials import lay
from synthetic.place import SMALLEST, choose_place


def paint_image(severity, seed=0, cloud_mask=None):
    """(12, H, W) float32 reflectance of the land of `seed`, burnt where `severity` says.

    severity: (H, W) integers 0..4, 255 where the image is to be nodata (0 in all bands). For a delineation 0/1 pass 3 * mask.
    cloud_mask: (H, W) 0 clear, 1 cloud, 2 thin, 3 shadow, or None
    """
    severity = np.asarray(severity)
    height, width = severity.shape
    border = (0, max(0, SMALLEST - height)), (0, max(0, SMALLEST - width))
    severity = np.pad(severity, border)
    shape = severity.shape
    valid = severity != IGNORE
    strange = np.setdiff1d(severity[valid], range(len(SEVERITY_MIDDLE)))
    if strange.size:
        raise ValueError(f"severity is 0..4 or 255, found {strange[0]}")
    rng = np.random.default_rng([seed, 3])
    place = replace(choose_place(seed), smoke=False)
    land = make_land(rng, shape, place)
    target = np.array(SEVERITY_MIDDLE, np.float32)[np.where(valid, severity, 0)]
    target = smooth(target, 0.8) + 0.05 * fractal_noise(rng, shape, 0.9, longest=24) * (target > 0)
    char_surface(rng, land.surface, np.clip(target, 0, 1), place.freshness)
    cover, shadow = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    if cloud_mask is not None:
        cloud_mask = np.pad(np.where(np.asarray(cloud_mask) > 3, 0, cloud_mask), border)
        cover = smooth(np.array([0, 0.95, 0.3, 0], np.float32)[cloud_mask], 1.0)
        shadow = smooth(cloud_mask == 3, 1.0)
    image = light(land.surface, land, place, shadow)
    lay(image, np.clip(cover, 0, 1), "cloud", 1 + 0.08 * fractal_noise(rng, shape, 1.3, longest=40))
    image = sense(rng, image + HAZE[:, None, None] * place.haze)
    image[:, ~valid] = 0.0
    return image[:, :height, :width]
