"""The preview of a map: a PNG of the scene in the colours that its bands allow, beside the map laid over it."""

import numpy as np

from constants import IGNORE
from pictures.encoding import save_png
from pictures.overlays import class_overlay, grey_background, probability_picture
from pictures.sheets import legend_strip
from pictures.stretch import any_picture, burn_colour, natural_colour

PREVIEW = 1024  # pixels, the longer side of a scene in its preview
GAP = 6  # white pixels between pictures
LEGEND = 12  # classes: of more, only those that occur are in the legend


def thumbnail_step(height, width):
    """Every so many-th pixel of a scene is shown in its preview."""
    return max(1, -(-max(height, width) // PREVIEW))


class Preview:
    """
    Takes StoredBands from the top; save() writes the PNG.

    info: RasterInfo of the scene. bands: names of the model's. classes: ClassSet. caption: a line above the pictures, or None.
    """

    def __init__(self, info, bands, classes, caption=None):
        self.caption = caption
        self.step, self.band_names, self.class_set = thumbnail_step(info.height, info.width), bands, classes
        self.reflectance, self.classes = [], []

    def add(self, band):
        self.reflectance.append(band.thumbnail)
        self.classes.append(band.classes[-band.row % self.step :: self.step, :: self.step])

    def save(self, path):
        reflectance, classes = np.concatenate(self.reflectance, axis=1).astype(np.float32), np.concatenate(self.classes)
        picture = preview(reflectance, classes, self.band_names, self.class_set, PREVIEW // 2)
        save_png(path, captioned(picture, self.caption))


class ValuePreview:
    """
    Takes StoredBands of values from the top; save() writes the scene beside them, from dark (1st percentile) to bright (99th). caption: see
    Preview.
    """

    def __init__(self, info, bands, caption=None):
        self.caption = caption
        self.step, self.band_names = thumbnail_step(info.height, info.width), bands
        self.reflectance, self.values = [], []

    def add(self, band, values):
        """values: (rows, W) float32, NaN for nodata."""
        self.reflectance.append(band.thumbnail)
        self.values.append(values[-band.row % self.step :: self.step, :: self.step])

    def save(self, path):
        reflectance, values = np.concatenate(self.reflectance, axis=1).astype(np.float32), np.concatenate(self.values)
        known = np.isfinite(values)
        low, high = np.percentile(values[known], (1, 99)) if known.any() else (0.0, 1.0)
        views = [any_picture(reflectance, self.band_names), probability_picture((values - low) / max(high - low, 1e-9))]
        save_png(path, captioned(side_by_side(views, PREVIEW // 2), self.caption))


def caption_of(plan):
    """Product, date and tile of a SceneInput of a product; None of a raster."""
    return plan.product.words if plan.product else None


def captioned(picture, caption):
    """A picture (H, W, 3) under a line of text, or as it is."""
    return np.concatenate([legend_strip([(None, caption)], picture.shape[1]), picture]) if caption else picture


def preview(reflectance, classes, bands, class_set, least):
    """
    One picture (H, W, 3) uint8: natural colour, short-wave infrared, and the map; side by side, or stacked. Below them a legend where there
    are more classes than two. Burns are drawn over short-wave infrared, in which they show; other classes over the scene in grey, so that
    their colours are those of the legend.

    reflectance: (C, h, w); classes: (h, w); bands: C names; class_set: classes.ClassSet. Small scenes are enlarged by a whole factor until
    their longer side has `least` pixels, so that pixels stay square.
    """
    views = [p for p in (natural_colour(reflectance, bands), burn_colour(reflectance, bands)) if p is not None]
    views = views or [any_picture(reflectance, bands)]
    burns = class_set.is_fire and len(class_set.names) == 2
    ground, opacity = (views[-1], 0.6) if burns else (grey_background(views[0]), 0.85)
    views.append(class_overlay(ground, classes, class_set.colours, opacity, class_set.first))
    picture = side_by_side(views, least)
    if len(class_set.names) == 2 and not class_set.each:
        return picture
    return np.concatenate([picture, legend_strip(legend_of(classes, class_set), picture.shape[1])])


def side_by_side(views, least):
    """Pictures (H, W, 3) of one size beside each other, or below where they are wide; enlarged until a side has `least` pixels."""
    height, width = views[0].shape[:2]
    times = -(-least // max(height, width))
    views = [view.repeat(times, axis=0).repeat(times, axis=1) for view in views]
    axis = 1 if height >= width else 0
    shape = list(views[0].shape)
    shape[axis] = GAP
    line = np.full(shape, 255, np.uint8)
    return np.concatenate([part for view in views for part in (view, line)][:-1], axis=axis)


def legend_of(classes, class_set):
    """[(colour, name)] of the classes that a map (h, w) may show, or does show where there are many."""
    shown = range(class_set.first, len(class_set.names))
    if len(class_set.names) > LEGEND:
        shown = [c for c in np.unique(classes[classes != IGNORE]) if c >= class_set.first]
    return [(class_set.colours[c], class_set.names[c]) for c in shown]
