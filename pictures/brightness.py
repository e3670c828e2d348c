"""
Pan, multispectral and sharpened images as pictures (H, W, 3) uint8 under one gain, so that they can be compared.

Images are (C, H, W) float32 NumPy arrays of reflectance, or of Oklab where `bands` is OKLAB. A gain is a factor on linear light.
"""

import numpy as np

from raster.colour import bands_to_oklab, has_colour, oklab_to_srgb

OKLAB = "oklab"
PAN = ("pan",)
GAMMA = 1 / 2.2


def has_true_colour(bands):
    """Whether images of these band names (or OKLAB) are shown in their colour; others show their first three bands."""
    return bands == OKLAB or has_colour(bands)


def to_oklab(image, bands):
    return image if bands == OKLAB else bands_to_oklab(image, bands)


def show_light(image, bands, gain):
    """An image as a picture: its colour where the bands have one, else its first three bands (one band: grey)."""
    if has_true_colour(bands):
        # Scaling linear light by g scales Oklab by its cube root.
        shade = oklab_to_srgb(to_oklab(image, bands).astype(np.float64) * gain ** (1 / 3))
    else:
        shade = np.clip(image[[i % len(image) for i in range(3)]] * gain, 0, 1) ** GAMMA
    return (shade.transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8)


def gain_for(image, bands):
    """The gain that makes the 98th percentile of an image nearly white."""
    if has_true_colour(bands):
        return (0.85 / max(float(np.percentile(to_oklab(image, bands)[0], 98)), 1e-3)) ** 3
    return 1 / max(float(np.percentile(image[[i % len(image) for i in range(3)]], 98)), 1e-4)


def middle(image, side):
    """The middle of a (C, H, W) array or tensor, at most `side` pixels a side."""
    height, width = image.shape[1:]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    return image[:, top : top + side, left : left + side]
