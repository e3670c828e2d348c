"""Pictures of validation patches beside what a network says about them: what train.py leaves after each best epoch."""

import numpy as np

from constants import IGNORE
from pictures.chip_sheets import label_answers_sheet, sample_sheet, value_sheet
from pictures.encoding import save_png
from runtime.files import make_own_folder


def write_samples(path, model, dataset, patch_set, class_set, to_device, compute, count=4):
    """
    A sheet of `count` patches: image, truth, prediction, errors. Those with more than class 0 first, since empty ones show little.

    dataset: PatchDataset of the validation split. class_set: ClassSet. to_device: (batch, patch_set, compute) → (reflectance, labels).
    """
    patches = dataset.patches
    full = [i for i, patch in enumerate(patches) if patch.class_pixels and sum(patch.class_pixels[1:])] or list(range(len(patches)))
    chosen = sorted({full[k * (len(full) - 1) // max(1, count - 1)] for k in range(count)})
    images, target = to_device(dataset.__getitems__(chosen), patch_set, compute)
    predicted = model.predict_segmentation(images, **dataset.coordinates_for(model, chosen, images.device))
    arrays = [tensor.cpu().numpy() for tensor in (images, target, predicted)]
    make_own_folder(path.parent)
    save_png(path, sample_sheet(*arrays, patch_set.bands, class_set, [patches[i].image.stem for i in chosen], title_of(path)))


def write_value_samples(path, model, dataset, patch_set, class_set, to_device, compute, count=4):
    """As write_samples, of values: image, truth, prediction, error."""
    chosen = spread(len(dataset), count)
    images, target = to_device(dataset.__getitems__(chosen), patch_set, compute)
    predicted = model.predict_values(images, **dataset.coordinates_for(model, chosen, images.device))
    arrays = [tensor.cpu().numpy() for tensor in (images, target, predicted)]
    make_own_folder(path.parent)
    save_png(path, value_sheet(*arrays, patch_set.bands, class_set.names[0], [dataset.patches[i].image.stem for i in chosen],
                               title_of(path)))


def write_label_samples(path, model, dataset, patch_set, class_set, to_device, compute, count=12):
    """As write_samples, of labels of whole patches, which are told below each."""
    chosen, names = spread(len(dataset), count), class_set.names
    images, target = to_device(dataset.__getitems__(chosen), patch_set, compute)
    said = model.predict_probabilities(images, **dataset.coordinates_for(model, chosen, images.device)).cpu().numpy()
    captions = []
    for index, labels, probabilities in zip(chosen, target.cpu().numpy(), said, strict=True):
        truth = np.flatnonzero(labels == 1) if labels.ndim else [labels] if labels != IGNORE else []
        there = np.flatnonzero(probabilities >= 0.5) if labels.ndim else [probabilities.argmax()]
        words = ", ".join(f"{names[c]} {probabilities[c]:.2f}" for c in there) or "nothing"
        captions.append(f"{words} (is {', '.join(names[c] for c in truth) or 'nothing'}) {dataset.patches[index].image.stem}")
    make_own_folder(path.parent)
    save_png(path, label_answers_sheet(images.cpu().numpy(), patch_set.bands, captions,
                                       f"{title_of(path)}; below each patch its predicted labels, and the true ones in brackets"))


def title_of(path):
    """`Epoch 12` of samples/epoch_12.png."""
    return path.stem.replace("_", " ").capitalize()


def spread(length, count):
    """Up to `count` places of `length`, evenly spread."""
    return sorted({k * (length - 1) // max(1, count - 1) for k in range(count)})
