"""The preview of a map: the scene in the colours that its bands allow, beside the map laid over it."""

import numpy as np

from constants import get_class_colours
from pictures.overlays import class_overlay
from pictures.stretch import any_picture, burn_colour, natural_colour

GAP = 6  # white pixels between pictures


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
