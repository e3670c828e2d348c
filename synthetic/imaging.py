"""From a surface to its image: sun, clouds, smoke and haze above it, then what the instrument measures, band by band."""

import math

import numpy as np

from constants import SENTINEL2_RESOLUTION
from synthetic.fields import fractal_noise
from synthetic.materials import BANDS, PIXEL, lay

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


def sense(rng, image):
    """(12, H, W) reflectance as the instrument measures it: blurred, misregistered by a tenth of a pixel, coarse in some bands, noisy."""
    height, width = image.shape[1:]
    seen = np.empty_like(image)
    for band, name in enumerate(BANDS):
        slip = rng.normal(0, 0.08, 2).clip(-0.2, 0.2).astype(np.float32)
        field = image[band]
        for axis in (0, 1):
            padded = np.pad(field, [(1, 1) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
            before, after = (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
            field = 0.78 * field + (0.11 + slip[axis] / 2) * before + (0.11 - slip[axis] / 2) * after
        block = SENTINEL2_RESOLUTION[name] // 10
        if block > 1:
            padded = np.pad(field, ((0, -height % block), (0, -width % block)), mode="edge")
            mean = padded.reshape(padded.shape[0] // block, block, -1, block).mean(axis=(1, 3))
            field = mean.repeat(block, 0).repeat(block, 1)[:height, :width]
        noise = rng.standard_normal((height, width), dtype=np.float32)
        if block > 1:
            noise = noise[::block, ::block].repeat(block, 0).repeat(block, 1)[:height, :width]
        seen[band] = field + noise * (0.0008 + 0.004 * np.sqrt(np.maximum(field, 0)))
    return np.maximum(seen, 0.0001)


def photograph(rng, surface, land, place, cover, shadow, severity):
    """A surface (12, H, W) under sun, clouds, smoke and haze, as measured. -> (image (12, H, W), cloud mask (H, W) uint8)

    cover, shadow: (H, W) 0..1 of clouds. Mask: 0 clear, 1 cloud, 2 thin cloud or smoke, 3 cloud shadow
    """
    shape = surface.shape[1:]
    image = light(surface, land, place, shadow)
    lumps = 0.9 + 0.16 * fractal_noise(rng, shape, 1.3, longest=40)
    smoke = rise_smoke(rng, shape, place, severity)
    lay(image, smoke * 0.7, "smoke")
    lay(image, cover, "cloud", lumps)
    thickness = place.haze * np.clip(1 + 0.3 * fractal_noise(rng, shape, 1.8), 0, 3)
    image += HAZE[:, None, None] * thickness
    mask = np.zeros(shape, np.uint8)
    mask[shadow > 0.25] = 3
    mask[(cover > 0.08) | (smoke > 0.25)] = 2
    mask[cover > 0.45] = 1
    return sense(rng, image), mask
