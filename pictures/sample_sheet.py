"""A contact sheet of patches beside what a network predicts for them."""

from constants import get_class_colours, get_class_names
from pictures.overlays import class_overlay, error_picture
from pictures.palette import error_legend
from pictures.sheets import Header, contact_sheet
from pictures.stretch import any_picture


def sample_sheet(images, truth, prediction, bands, num_classes, names):
    """
    One picture (H, W, 3) uint8: a patch a row; image, truth, prediction, errors.

    images: (N, C, h, w) reflectance; truth, prediction: (N, h, w) classes, 255 = ignore; all NumPy. names: N captions.
    """
    colours = get_class_colours(num_classes)
    rows = []
    for image, labels, classes in zip(images, truth, prediction, strict=True):
        picture = any_picture(image, bands)
        overlays = [class_overlay(picture, kind, colours) for kind in (labels, classes)]
        rows.append([picture, *overlays, error_picture(labels, classes, picture)])
    legend = error_legend(colours, get_class_names(num_classes))
    return contact_sheet(rows, ["image", "truth", "prediction", "errors"], names, header=Header("", legend))
