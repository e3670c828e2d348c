"""
Statistics of a split: class weights, sampling weights, mean and standard deviation of the bands.

They come from the manifest; pixels are read only in sets of the older form, which have none.
"""

import warnings
from pathlib import Path

import numpy as np
import torch

from chipping.chipset import DESCRIPTION
from chipping.patch_files import label_outside, outside_text, read_image, read_mask
from chipping.patch_set import SPLITS, read_patch_set
from constants import IGNORE
from raster.plausible import band_figures, judge
from raster.scale import to_reflectance
from runtime.device import derived_seed
from runtime.errors import UserError
from runtime.npy import BadArray, read_array

FIRE_SHARE = 0.01  # a patch with more than this share of its valid pixels above class 0 (burned, water …) is a "fire patch"
WEIGHT_RATIO_CAP = 50.0  # class weights: the rarest class counts at most this many times the commonest
STATISTICS_SAMPLE = 200  # patches read for mean and std where no manifest has the sums


def count_class_pixels(patches, num_classes):
    """Fill in class_pixels where no manifest has them, by reading the masks. UserError names a file with labels outside the classes."""
    for patch in patches:
        if patch.class_pixels is None:
            try:
                mask = read_array(patch.mask)
            except BadArray:
                mask = np.zeros(0, dtype=np.uint8)  # told when the patch itself is read
            if (label := label_outside(mask, num_classes)) is not None:
                raise UserError(outside_text(patch.mask, label, num_classes))
            patch.class_pixels = np.bincount(mask.astype(np.uint8).ravel(), minlength=256)[:num_classes].tolist()


def is_fire_patch(patch):
    return sum(patch.class_pixels[1:]) > FIRE_SHARE * max(1, sum(patch.class_pixels))


def sampling_weights(patches, fire_weight):
    """(N,) float64: fire_weight for fire patches, 1 for the others."""
    return np.where([is_fire_patch(patch) for patch in patches], float(fire_weight), 1.0)


def class_weights_of(patches, num_classes, weights=None):
    """
    (C,) float32: N / (C · n_c) over valid pixels, divided by the smallest, at most 50. weights: how often each patch is drawn, or None.

    A class without a pixel gets 0 and a warning: it cannot be learned, and should not be told off for.
    """
    counts = np.array([patch.class_pixels[:num_classes] for patch in patches], dtype=np.float64).reshape(len(patches), num_classes)
    counts = (counts * (np.ones(len(patches)) if weights is None else weights)[:, None]).sum(axis=0)
    present = counts > 0
    if not present.any():
        raise UserError("the training patches have no valid pixel at all: every label is 255; check the masks and nodata")
    if not present.all():
        absent = ", ".join(str(c) for c in np.flatnonzero(~present))
        warnings.warn(f"no training pixel has class {absent}; its weight is 0 and it will not be predicted", stacklevel=2)
    inverse = np.where(present, counts.max() / np.where(present, counts, 1.0), 0.0)
    return torch.tensor(np.minimum(inverse, WEIGHT_RATIO_CAP), dtype=torch.float32)


def target_statistics(patches):
    """(mean, standard deviation) of the values of a regression over the patches, from the manifest's sums. UserError without any."""
    count = sum(patch.class_pixels[0] for patch in patches)
    if not count:
        raise UserError("the training patches have no valid value at all: every one is nodata; check --masks and their nodata")
    mean = sum(patch.target_sums[0] for patch in patches) / count
    variance = max(0.0, sum(patch.target_sums[1] for patch in patches) / count - mean**2)
    return mean, variance**0.5 or 1.0  # values that never vary need no scale


def label_weights_of(patches, num_classes):
    """(C,) float32 for labels that are there: patches without one by patches with it, 1/50 to 50; 1 for a label that none or all have."""
    there = np.array([patch.class_pixels for patch in patches], dtype=np.float64).sum(axis=0)[:num_classes]
    known = (there > 0) & (there < len(patches))
    weights = np.where(known, (len(patches) - there) / np.where(known, there, 1.0), 1.0)
    return torch.tensor(np.clip(weights, 1 / WEIGHT_RATIO_CAP, WEIGHT_RATIO_CAP), dtype=torch.float32)


def compute_class_weights(patches_dir, num_classes, layer=None):
    """(C,) float32 class weights of the training split, from the manifest. patches_dir: the set, or its train folder."""
    folder = Path(patches_dir)
    if folder.name in SPLITS and not (folder / DESCRIPTION).exists():
        folder = folder.parent
    patches = read_patch_set(folder, num_classes, layer).of_split("train")
    count_class_pixels(patches, num_classes)
    return class_weights_of(patches, num_classes)


def band_statistics(patch_set, patches, seed=0):
    """(mean, std) of each band in reflectance over the valid pixels of `patches`: from the manifest's sums, else from a sample of files."""
    if patch_set.described and all(p.band_sum is not None for p in patches):
        count = sum(p.valid_pixels for p in patches)
        total = np.sum([p.band_sum for p in patches], axis=0, dtype=np.float64)
        squares = np.sum([p.band_sum_squares for p in patches], axis=0, dtype=np.float64)
    else:
        count, total, squares = sums_of_files(patch_set, patches, seed)
    if not count:
        raise UserError(f"the training patches of {patch_set.folder} have no valid pixel; check nodata and the masks")
    mean = total / count
    # Bands that never vary would be divided by 0; a thousandth is far below any real band's spread.
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0)) / np.abs(patch_set.divide_by)
    mean = to_reflectance(mean[:, None, None], patch_set.divide_by, patch_set.offset)
    return tuple(mean.ravel().tolist()), tuple(np.maximum(std, 1e-3).tolist())


def reflectance_doubt(patch_set, mean):
    """A sentence where the mean reflectance of patches cannot be that of any ground, or None."""
    wrong, _ = judge(patch_set.bands, mean)
    figures = band_figures(patch_set.bands, mean, None, wrong)
    return f"mean reflectance in {patch_set.folder}: {figures}; are --divide-by and --offset of make-patches right?" if wrong else None


def scale_doubt(patch_set, patches, data, usual, seed=0):
    """
    (a sentence or None, whether a wrong scale must be the reason) of patches whose mean reflectance is not that of a checkpoint's training.

    data: of the checkpoint. usual: mean reflectance of its training, or None.
    """
    try:
        mean, _ = band_statistics(patch_set, patches, seed)
    except UserError:  # there is no valid pixel to judge by
        return None, False
    scales = [list(zip(each["divide_by"], each["offset"], strict=True)) for each in (data, vars(patch_set))]
    wrong, odd = judge(patch_set.bands, mean, usual, scales)
    if not wrong + odd:
        return None, False
    return f"mean reflectance in {patch_set.folder}: {band_figures(patch_set.bands, mean, usual, wrong or odd)}", bool(wrong)


def sums_of_files(patch_set, patches, seed):
    """(pixels, sums, sums of squares) in stored units over a seeded sample of files; those that cannot be read are left out."""
    order = np.random.default_rng(derived_seed(seed, 4)).permutation(len(patches))[:STATISTICS_SAMPLE]
    bands, num_classes = len(patch_set.bands), len(patch_set.classes)
    count, total, squares = 0, np.zeros(bands), np.zeros(bands)
    for patch in [patches[i] for i in sorted(order)]:
        mask = np.empty(patch_set.patch_shape, np.uint8)
        try:
            image = read_image(patch.image, (bands, *patch_set.patch_shape), not patch_set.described).astype(np.float64)
            label = read_mask(patch.mask, mask, num_classes, patch_set.plane if patch_set.described else None)
        except BadArray:
            continue
        if label is None:
            values = image[:, (mask != IGNORE) & np.isfinite(image).all(axis=0)]
            count, total, squares = count + values.shape[1], total + values.sum(axis=1), squares + (values**2).sum(axis=1)
    return count, total, squares
