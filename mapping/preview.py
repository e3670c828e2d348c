"""The preview of a map: a PNG of the scene in the colours that its bands allow, beside the map laid over it."""

import numpy as np

from constants import get_class_colours
from pictures.encoding import save_png
from pictures.overlays import class_overlay
from pictures.stretch import any_picture, burn_colour, natural_colour

PREVIEW = 1024  # pixels, the longer side of a scene in its preview
GAP = 6  # white pixels between pictures


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


def preview(reflectance, classes, bands, num_classes, least):
    """
    One picture (H, W, 3) uint8: natural colour, burn-sensitive colour, and the map over the last of them; side by side, or stacked.

    reflectance: (C, h, w); classes: (h, w); bands: C names. Small scenes are enlarged by a whole factor until their longer side has `least`
    pixels, so that pixels stay square.
    """
    views = [p for p in (natural_colour(reflectance, bands), burn_colour(reflectance, bands)) if p is not None]
    views = views or [any_picture(reflectance, bands)]
    views.append(class_overlay(views[-1], classes, get_class_colours(num_classes)))
    times = -(-least // max(reflectance.shape[1:]))
    views = [view.repeat(times, axis=0).repeat(times, axis=1) for view in views]
    axis = 1 if reflectance.shape[1] >= reflectance.shape[2] else 0
    shape = list(views[0].shape)
    shape[axis] = GAP
    line = np.full(shape, 255, np.uint8)
    return np.concatenate([part for view in views for part in (view, line)][:-1], axis=axis)
