"""Contact sheets of chips: patches with their labels and what a network predicts for them, pan/ms chips with their truth."""

import numpy as np

from constants import IGNORE
from pictures.brightness import PAN, show_light
from pictures.overlays import NODATA_COLOUR, class_overlay, class_picture, error_legend, error_picture, grey_background, probability_picture
from pictures.sheets import contact_sheet
from pictures.stretch import SHEET_GAMMA, any_picture, choose_composites, measure_stretch, stretch

CELL = 192  # pixels of a picture


def label_sheet(patches, bands, layer, classes, captions, title):
    """
    A picture of patches, three a row: natural colour and short-wave infrared as far as the bands allow, and the label.

    patches: [(reflectance (C, h, w), label (h, w) with 255 = ignore)]; bands: C names; classes: ClassSet of the label `layer`.
    One stretch for the whole sheet: a dark patch beside a bright one looks dark.
    """
    composites = choose_composites(bands, classes.is_fire)
    lows, tops = measure_stretch(np.concatenate([image[:, label != IGNORE] for image, label in patches], axis=1))
    rows = []
    for image, label in patches:
        views = [stretch(image[which], lows[which], tops[which], (SHEET_GAMMA,) * 3) for _, which in composites]
        rows.append([*views, class_picture(label, classes.colours)])
    legend = [*zip(classes.colours, classes.names, strict=True), (NODATA_COLOUR, "ignore, nodata")]
    return contact_sheet(rows, [*(name for name, _ in composites), layer], captions, side=CELL, across=3, title=title, legend=legend)


def sample_sheet(images, truth, prediction, bands, class_set, names, title=""):
    """
    One picture (H, W, 3) uint8: a patch a row; image, truth, prediction, errors.

    images: (N, C, h, w) reflectance; truth, prediction: (N, h, w) classes, 255 = ignore; all NumPy. class_set: ClassSet. names: N
    captions. title: above the legend, which names classes and errors.
    """
    rows = []
    for image, labels, classes in zip(images, truth, prediction, strict=True):
        picture = any_picture(image, bands)
        ground, opacity = (grey_background(picture), 0.85) if class_set.is_several else (picture, 0.6)
        overlays = [class_overlay(ground, kind, class_set.colours, opacity, class_set.first) for kind in (labels, classes)]
        rows.append([picture, *overlays, error_picture(labels, classes, picture, class_set)])
    legend = error_legend(class_set)
    if not class_set.is_several and len(class_set.names) == 2:
        legend = ((class_set.colours[1], class_set.names[1]), *legend)
    return contact_sheet(rows, ["image", "truth", "prediction", "errors"], names, title=title, legend=legend)


def value_sheet(images, truth, prediction, bands, name, captions, title=""):
    """
    One picture (H, W, 3) uint8: a patch a row; image, truth, prediction, size of the error, all three on one scale.

    images: (N, C, h, w) reflectance; truth, prediction: (N, h, w) values, NaN = nodata; prediction may be None. name: of the values.
    captions: one a patch. title: what the sheet's title begins with.
    """
    known = np.isfinite(truth)
    low, high = np.percentile(np.stack(truth)[known], (1, 99)) if known.any() else (0.0, 1.0)
    span, rows = max(high - low, 1e-9), []
    for image, values, found in zip(images, truth, truth if prediction is None else prediction, strict=True):
        shown = [(values - low) / span, (found - low) / span, np.abs(values - found) / span][: 1 if prediction is None else 3]
        rows.append([any_picture(image, bands), *(probability_picture(np.where(np.isfinite(values), v, np.nan)) for v in shown)])
    errors = "" if prediction is None else f"; errors from 0 to {span:.4g}"
    titles = ["image", "truth", "prediction", "error"] if errors else ["image", name]
    head = f"{title}{', ' if title else ''}{name}: dark {low:.4g}, bright {high:.4g}{errors}"
    return contact_sheet(rows, titles, captions, title=head, across=1 if errors else 3)


def label_answers_sheet(images, bands, captions, title=""):
    """Patches with what is said of them below each, three a row. images: (N, C, h, w) reflectance; captions: one a patch."""
    return contact_sheet([[any_picture(image, bands)] for image in images], [""], captions, side=2 * CELL, across=3, title=title)


def pair_sheet(chips, captions, title):
    """
    A picture of pan/ms chips, two a row: pan, ms, truth, all under one gain.

    chips: [(pan (1, h, w), ms (C, h / r, w / r), ms_bands, truth (C or 3, h, w), truth_bands)]; float32 NumPy, see pictures/brightness.py.
    """
    bright = np.concatenate([pan.ravel() for pan, *_ in chips])
    gain = 0.8 / max(float(np.percentile(bright, 98)), 1e-4)
    rows = [
        [show_light(pan, PAN, gain), show_light(ms, ms_bands, gain), show_light(truth, truth_bands, gain)]
        for pan, ms, ms_bands, truth, truth_bands in chips
    ]
    return contact_sheet(rows, ["pan", "ms", "truth"], captions, side=CELL, across=2, title=title)
