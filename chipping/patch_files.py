"""The two files of a patch, image and labels, read with every check."""

import numpy as np

from constants import IGNORE
from runtime.npy import BadArray, read_array, read_array_into

STORED_TYPES = (np.uint8, np.uint16, np.int16, np.float32)  # what images stay in; every other type becomes float32


def read_image(path, shape, bands_last=False):
    """(bands, height, width) as stored. shape: the expected one; bands_last: of the older form. BadArray for another shape."""
    image = read_array(path)
    if bands_last and image.ndim == 3:
        image = image.transpose(2, 0, 1)
    if image.shape != shape:
        raise BadArray(f"expected (bands, height, width) {shape}, found {image.shape}")
    return image if image.dtype in STORED_TYPES else image.astype(np.float32)


def read_mask(path, out, num_classes, plane=None):
    """
    Labels into `out`, (H, W) uint8. plane: of a file (L, H, W); None: the file is (H, W), as in the older form.

    → a label outside the classes (`out` then means nothing), or None.
    """
    if plane is not None:
        read_array_into(path, out, plane=plane)
        return label_outside(out, num_classes)
    mask = read_array(path)
    if mask.shape != out.shape:
        raise BadArray(f"expected a mask of (height, width) {out.shape}, found {mask.shape}")
    label = label_outside(mask, num_classes)
    if label is None:
        out[:] = mask
    return label


def read_values(path, out, plane):
    """Values into `out`, (H, W) float32, from a plane of a file (L, H, W); infinite ones become NaN."""
    read_array_into(path, out, plane=plane)
    out[~np.isfinite(out)] = np.nan


def label_outside(mask, num_classes):
    """A label that is neither 255 nor a whole number from 0 to num_classes - 1, or None. To be asked before a mask becomes uint8."""
    if mask.dtype == np.uint8:
        # 255 + 1 is 0 in uint8, so this maximum is one above the highest class
        highest = int((mask + np.uint8(1)).max(initial=0)) - 1
        return highest if highest >= num_classes else None
    fits = (mask == IGNORE) | (mask >= 0) & (mask < num_classes) & (mask == np.floor(mask))
    return None if fits.all() else mask[~fits].flat[0].item()


def outside_text(path, label, num_classes):
    return f"{path} holds label {label}, but --num-classes {num_classes} allows 0..{num_classes - 1} and 255"
