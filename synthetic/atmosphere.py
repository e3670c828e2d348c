"""Sun, clouds, smoke and haze over a surface."""

import math

import numpy as np

from synthetic.fields import fractal_noise
from synthetic.materials import PIXEL

# Share of the light that comes from the sky and not from the sun: what lights a shadow. Much in blue, little in the infrared.
SKYLIGHT = np.array((.34, .30, .24, .20, .18, .16, .15, .14, .13, .13, .09, .08), np.float32)
# Brightness that haze adds, relative to blue.
HAZE = np.array((1.25, 1.0, .70, .45, .38, .32, .28, .24, .21, .19, .05, .03), np.float32)


def make_clouds(rng, shape, place):
    """Cumulus clouds and their shadows: (cover, shadow), each (H, W) 0..1 with soft edges; `place.cloud_share` of the scene is covered.

    A shadow is the cloud moved away from the sun by its height over the tangent of the sun's elevation. The sky is larger than the
    scene by that distance, so that clouds outside cast their shadows into it.
    """
    base = rng.uniform(700, 1800)  # height of the clouds, metres
    if place.cloud_share <= 0:
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    reach = base / np.tan(np.deg2rad(place.sun_elevation)) / PIXEL
    row, column = np.cos(np.deg2rad(place.sun_azimuth)) * reach, -np.sin(np.deg2rad(place.sun_azimuth)) * reach
    border = int(np.ceil(reach)) + 1
    sky = shape[0] + 2 * border, shape[1] + 2 * border
    field = fractal_noise(rng, sky, 1.9, longest=90, shortest=3) + 0.8 * fractal_noise(rng, sky, 2.0, longest=max(sky))
    edge = float(np.quantile(field, 1 - place.cloud_share))
    cover = np.clip((field - edge + 0.10) / 0.5, 0, 1)

    def part(rows, columns):
        return cover[border - rows : border - rows + shape[0], border - columns : border - columns + shape[1]]

    return part(0, 0), part(round(row), round(column))


def light(surface, land, place, shadow):
    """(12, H, W) reflectance under the sun: slopes towards it bright, away from it dim, shadows blue. shadow: (H, W) 0..1"""
    elevation, azimuth = math.radians(place.sun_elevation), math.radians(place.sun_azimuth)
    east, south = math.sin(azimuth), -math.cos(azimuth)
    falls = -land.slope_east * east - land.slope_south * south  # towards the sun
    towards_sun = math.sin(elevation) + math.cos(elevation) * falls
    direct = towards_sun / np.sqrt(1 + land.slope_east**2 + land.slope_south**2) / math.sin(elevation)
    direct = np.clip(direct, 0, 2.5) ** 0.9 * (1 - 0.86 * shadow)  # the producer's terrain correction removes a part
    sky = SKYLIGHT[:, None, None]
    return surface * (sky + (1 - sky) * direct)


def rise_smoke(rng, shape, place, severity):
    """Cover (H, W) 0..0.7 of up to three thin plumes that start where severity is highest and widen downwind."""
    smoke = np.zeros(shape, np.float32)
    hot = np.flatnonzero(severity > 0.75)
    if not place.smoke or not hot.size:
        return smoke
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    towards = math.radians(place.wind_from + 180)
    swirl = 5 * fractal_noise(rng, shape, 1.8, longest=120)
    lumps = np.clip(1 + 0.35 * fractal_noise(rng, shape, 1.3, longest=60), 0, 2)
    for spot in rng.choice(hot, min(3, hot.size), replace=False):
        row, column = divmod(int(spot), shape[1])
        along = (columns - column) * math.sin(towards) - (rows - row) * math.cos(towards)
        across = (columns - column) * math.cos(towards) + (rows - row) * math.sin(towards)
        along = np.maximum(along, 0)
        width = 2.5 + 0.16 * along
        plume = np.exp(-0.5 * ((across + swirl * np.minimum(along / 60, 2)) / width) ** 2 - along / 110) * (along > 0)
        smoke = np.maximum(smoke, plume * lumps)
    return np.clip(0.75 * smoke, 0, 0.7)
