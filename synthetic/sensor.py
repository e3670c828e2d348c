"""The instrument: what it measures of a scene, band by band."""

import numpy as np

from constants import SENTINEL2_RESOLUTION
from synthetic.atmosphere import HAZE, light, rise_smoke
from synthetic.fields import fractal_noise
from synthetic.materials import BANDS, lay


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
