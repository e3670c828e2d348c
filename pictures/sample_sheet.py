"""A contact sheet of patches beside what a network says about them: what train.py leaves after each best epoch."""

from constants import get_class_colours
from pictures.pictures import any_picture, class_overlay, contact_sheet, error_picture


def sample_sheet(images, truth, prediction, bands, num_classes, names):
    """
    One picture (H, W, 3) uint8: a line a patch; image, truth, prediction, errors.

    images: (N, C, h, w) reflectance; truth, prediction: (N, h, w) classes, 255 = ignore; all NumPy. names: N captions.
    """
    colours = get_class_colours(num_classes)
    rows = []
    for image, labels, classes in zip(images, truth, prediction, strict=True):
        picture = any_picture(image, bands)
        overlays = [class_overlay(picture, kind, colours) for kind in (labels, classes)]
        rows.append([picture, *overlays, error_picture(labels, classes, picture)])
    return contact_sheet(rows, ["image", "truth", "prediction", "errors"], names)
