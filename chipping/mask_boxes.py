"""Boxes of mask images: one around each connected component."""

import hashlib
from pathlib import Path

import numpy as np
from rasterio.features import shapes

from chipping.capture_runs import Frame, list_files, natural
from constants import IGNORE
from raster.frames import SUFFIXES, BadFrame, decode_values, read_content
from runtime.errors import UserError
from runtime.words import plural

MOST_CLASSES = 64  # values of a mask up to here are classes, larger ones are shades of grey


def has_masks(annotations):
    """Whether annotations are a folder of pictures and of no XML."""
    folder = Path(annotations)
    return folder.is_dir() and not list_files(folder, (".xml",)) and bool(list_files(folder, SUFFIXES))


def components(mask):
    """(N, 4) float64 x0, y0, x1, y1 of the 8-connected components of a (H, W) bool mask, from top to bottom."""
    found = [np.array(outline["coordinates"][0]) for outline, _ in shapes(mask.astype(np.uint8), mask=mask, connectivity=8)]
    boxes = sorted((*ring.min(axis=0), *ring.max(axis=0)) for ring in found)
    return np.array(sorted(boxes, key=lambda box: (box[1], box[0])), np.float64).reshape(-1, 4)


def boxes_of(values):
    """
    (boxes (N, 4), values (N,)) of a (H, W) uint8 mask.

    0 is background. Where 255 is the only other value, it is an object; values up to 64 are classes, and 255 beside them is left out; of
    other values, which are shades of grey, those from 128 on are an object, of value 255.
    """
    there = np.unique(values[values > 0]).tolist()
    classes = [value for value in there if value != IGNORE]
    if not classes or max(classes) > MOST_CLASSES:
        parts = [(255, components(values > 127))]
    else:
        parts = [(value, components(values == value)) for value in classes]
    boxes = np.concatenate([np.empty((0, 4)), *(found for _, found in parts)])
    return boxes, np.concatenate([np.empty(0, np.int64), *(np.full(len(found), value) for value, found in parts)]).astype(np.int64)


def read_masks(images_folder, masks_folder, note=lambda text: None):
    """
    ([Frame], [{"id", "reason", "detail"}] of frames that are left out) of a folder of images and one of masks with the same stems.

    Labels of a Frame are values of its mask, 255 for an object of a mask without classes. Images without mask and masks without image are
    left out with a note; UserError where no image has one.
    """
    images, masks = (by_stem(folder, what) for folder, what in ((images_folder, "images"), (masks_folder, "masks")))
    both = sorted(images.keys() & masks.keys(), key=natural)
    if not both:
        raise UserError(f"no image of {images_folder} has a mask of its name in {masks_folder} "
                        f"({next(iter(images.values())).name} …, {next(iter(masks.values())).name} …)")
    for one, other, what in ((images, masks, "without a mask"), (masks, images, "without an image")):
        if extra := sorted(one.keys() - other.keys(), key=natural):
            note(f"{plural(len(extra), 'file')} {what} in {one[extra[0]].parent} take no part (first {one[extra[0]].name})")
    frames, skipped = [], []
    for number, stem in enumerate(both):
        try:
            content = read_content(masks[stem])
            values = decode_values(content, masks[stem].name)
        except BadFrame as error:
            skipped.append({"id": f"images/{images[stem].name}", "reason": "invalid", "detail": str(error)[:200]})
            continue
        boxes, labels = boxes_of(values)
        frames.append(Frame(f"images/{images[stem].name}", "images", number, images[stem], boxes, np.full_like(boxes, np.nan), labels,
                            hashlib.sha256(content).hexdigest(), turn=False, size=values.shape[::-1]))
    return frames, skipped


def by_stem(folder, what):
    """{stem: path} of the pictures in a folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"the folder of {what} {folder} does not exist; expected one with {', '.join(SUFFIXES[:4])} … files")
    found = {}
    for path in list_files(folder, SUFFIXES):
        if path.stem in found:
            raise UserError(f"{found[path.stem]} and {path.name} have the same stem; leave one of them in the folder")
        found[path.stem] = path
    if not found:
        raise UserError(f"{folder} holds no {what}; expected {', '.join(SUFFIXES)} files")
    return found
