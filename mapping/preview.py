"""Collects the pixels of a map's preview, a PNG of the scene beside its classes."""

import numpy as np

from pictures.encoding import save_png
from pictures.preview import preview

PREVIEW = 1024  # pixels, the longer side of a scene in its preview


def thumbnail_step(height, width):
    """Every so many-th pixel of a scene is shown in its preview."""
    return max(1, -(-max(height, width) // PREVIEW))


class Preview:
    """
    Takes StoredBands from the top; save() writes the PNG.

    info: RasterInfo of the scene. bands, classes: names of the model's.
    """

    def __init__(self, info, bands, classes):
        self.step, self.band_names, self.class_names = thumbnail_step(info.height, info.width), bands, classes
        self.reflectance, self.classes = [], []

    def add(self, band):
        self.reflectance.append(band.thumbnail)
        self.classes.append(band.classes[-band.row % self.step :: self.step, :: self.step])

    def save(self, path):
        reflectance, classes = np.concatenate(self.reflectance, axis=1).astype(np.float32), np.concatenate(self.classes)
        save_png(path, preview(reflectance, classes, self.band_names, len(self.class_names), PREVIEW // 2))
