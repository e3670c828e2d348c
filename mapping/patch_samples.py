"""Pictures of validation patches beside what a network says about them: what train.py leaves after each best epoch."""

from pictures.chip_sheets import sample_sheet
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
    predicted = model.predict_segmentation(images)
    arrays = [tensor.cpu().numpy() for tensor in (images, target, predicted)]
    make_own_folder(path.parent)
    save_png(path, sample_sheet(*arrays, patch_set.bands, class_set, [patches[i].image.stem for i in chosen]))
