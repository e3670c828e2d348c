"""
What is on disk → batches of patches.

    data = PatchDataModule("patches", batch_size=16, num_workers=4)
    data.setup()
    for batch in data.train_dataloader(): batch.images, batch.masks        # (B, C, H, W) as stored, (B, H, W) uint8 with 255 = ignore

Batches come in the stored compact type; augment.prepare turns them into reflectance on the training device. What a folder of patches
holds is in chipping/patch_set.py, class weights and band statistics in chipping/patch_statistics.py.
"""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

import augment
from chipping.patch_files import outside_text, read_image, read_mask, read_values
from chipping.patch_set import SPLITS, read_patch_set
from chipping.patch_statistics import (  # noqa: F401  (compute_class_weights and band_statistics are part of the interface)
    band_statistics,
    compute_class_weights,
    count_class_pixels,
    is_fire_patch,
    sampling_weights,
)
from constants import IGNORE
from nets.model_config import answers_classes, answers_labels, answers_values
from raster.acquired import year_and_day
from runtime.device import derived_seed
from runtime.distributed import Processes
from runtime.epoch_batches import ChangingBatches, EpochBatches, as_it_is, batches_in_order, make_loader
from runtime.errors import UserError
from runtime.npy import BadArray, read_array_into
from runtime.unreadable import Problem


class PatchBatch(NamedTuple):
    """
    images (B, C, H, W) as stored; indices into the dataset's patches; problems: see PatchDataset. masks, by the task: classes (B, H, W)
    uint8; values (B, H, W) float32, NaN for ignore; the class of each patch (B,) or its labels (B, C) of 0 and 1, uint8; 255 for ignore.
    """

    images: torch.Tensor
    masks: torch.Tensor
    indices: list
    problems: list


class PatchDataset(Dataset):
    """
    Patches of one split. dataset[i] → (image (C, H, W) as stored, mask (H, W) uint8, i); DataLoader takes whole batches at once.

    A file that cannot be read becomes a patch of zeros whose labels are all "ignore", and a Problem in the batch's `problems`. Labels
    outside the classes are fatal: that set does not fit the task.
    """

    def __init__(self, patch_set, patches):
        self.patches, self.days = patches, patch_set.days
        self.bands, self.num_classes = len(patch_set.bands), len(patch_set.classes)
        self.plane, self.described, self.task = patch_set.plane, patch_set.described, patch_set.task
        self.height, self.width = patch_set.patch_shape
        types = {patch.dtype for patch in patches}
        self.dtype = np.dtype(types.pop()) if self.described and len(types) == 1 and None not in types else None

    def __len__(self):
        return len(self.patches)

    def fingerprint(self):
        """
        A hash that tells one set of labelled patches from another, wherever it lies: names, windows, labels, and the bytes of three masks,
        or of three images where labels are of whole patches. No image is decoded.
        """
        counted = [(p.image.name, p.scene, p.window, p.class_pixels if self.described else None) for p in self.patches]
        digest = hashlib.sha256(str((self.num_classes, self.plane, counted)).encode())
        for place in sorted({0, len(self.patches) // 2, len(self.patches) - 1}) if self.patches else ():
            file = self.patches[place].mask or self.patches[place].image
            if file.is_file():
                digest.update(file.read_bytes())
        return digest.hexdigest()[:16]

    def __getitem__(self, index):
        batch = self.__getitems__([index])
        if batch.problems:
            raise OSError(str(batch.problems[0]))
        return batch.images[0], batch.masks[0], index

    def __getitems__(self, indices):
        """A batch, read straight into the arrays that become its tensors. Patches of mixed types meet in float32, which holds them."""
        shape = (self.bands, self.height, self.width)
        images = np.zeros((len(indices), *shape), dtype=self.dtype) if self.dtype else [None] * len(indices)
        masks = self.empty_labels(len(indices))
        ignore = masks.flat[0] if masks.size else IGNORE
        problems = []
        for place, index in enumerate(indices):
            patch = self.patches[index]
            try:
                if self.dtype:
                    read_array_into(patch.image, images[place])
                else:
                    images[place] = read_image(patch.image, shape, bands_last=not self.described)
                label = self.read_labels(patch, masks, place)
            except BadArray as error:
                problems.append(Problem(patch.image.name, " ".join(str(error).split())[:160], index=index))
                images[place] = 0 if self.dtype else np.zeros(shape, dtype=np.uint8)
                masks[place] = ignore
                continue
            if label is not None:
                problems.append(Problem(patch.mask.name, outside_text(patch.mask, label, self.num_classes), True, index))
                masks[place] = ignore
        if not self.dtype:
            same = len({image.dtype for image in images}) == 1
            images = np.stack(images) if same else np.stack([image.astype(np.float32) for image in images])
        return PatchBatch(torch.from_numpy(images), torch.from_numpy(masks), list(indices), problems)

    def coordinates(self, indices, names, dates, device=None):
        """
        {"times": (B, dates, 2) year and day of the year, "place": (B, 2) latitude and longitude}, float32, of some patches: those that
        `names` names, which all patches know.
        """
        patches, found = [self.patches[index] for index in indices], {}
        if "times" in names:
            found["times"] = torch.tensor([[year_and_day(day) for day in self.days.of(patch, dates)] for patch in patches])
        if "place" in names:
            found["place"] = torch.tensor([[lat, lon] for lon, lat in (patch.place for patch in patches)], dtype=torch.float32)
        return {name: values.to(device) for name, values in found.items()}

    def coordinates_for(self, model, indices, device):
        """What a model takes of some patches beside their pixels (FireSegmentationModel.coordinates), {} of most."""
        names = getattr(model, "coordinates", ())
        return self.coordinates(indices, names, model.dates, device) if names else {}

    def empty_labels(self, count):
        """The labels of a batch, of which none is known."""
        if answers_classes(self.task):
            return np.full((count, self.height, self.width), IGNORE, dtype=np.uint8)
        if answers_values(self.task):
            return np.full((count, self.height, self.width), np.nan, dtype=np.float32)
        return np.full((count, self.num_classes) if answers_labels(self.task) else count, IGNORE, dtype=np.uint8)

    def read_labels(self, patch, masks, place):
        """Read the labels of a patch into masks[place]. → a label outside the classes, or None."""
        if answers_classes(self.task):
            return read_mask(patch.mask, masks[place], self.num_classes, self.plane if self.described else None)
        if answers_values(self.task):
            read_values(patch.mask, masks[place], self.plane)
        else:
            masks[place] = patch.class_pixels if answers_labels(self.task) else np.argmax(patch.class_pixels)
        return None


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Which labels of a set: the number of classes (None: as the set has), and the layer where that does not say it; what is learned."""

    num_classes: int | None = 2
    layer: str | None = None
    task: str = "segmentation"


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """
    How an epoch is put together. crop: side of random squares in pixels, 0 for whole patches; steps_per_epoch: 0 for one pass; cutmix:
    probability that a rectangle of a patch is another's.
    """

    augment: bool = True
    crop: int = 0
    steps_per_epoch: int = 0
    seed: int = 0
    cutmix: float = 0.0


def require_coordinates(checkpoint, patch_set):
    """UserError where a checkpoint's model takes dates or places of each patch that some patches do not state."""
    model = checkpoint["model"]
    wanted = model.get("coordinates") or ()
    dates = ((model.get("parts") or {}).get("encoder_args") or {}).get("dates", 1) if wanted else 1
    if lost := [name for name in wanted if name not in patch_set.known_coordinates(dates)]:
        raise UserError(f"the checkpoint was trained with {' and '.join(lost)} of each patch, which some of {patch_set.folder} do not "
                        "state; cut them again with --dates")


def patch_order(count, batch_size, *, seed, steps=0, weights=None):
    """
    (order for EpochBatches, its batch size): every patch once an epoch in a new order, or drawn with replacement by `weights`.

    The last, incomplete batch is left out (its patches come at another place of the next epoch), unless it is the only one. steps: batches
    an epoch, 0 for one pass. The order depends on (seed, epoch) alone.
    """
    batch_size = batch_size if steps else min(batch_size, count)
    wanted = (steps or max(1, count // batch_size)) * batch_size

    def order(epoch):
        random = np.random.default_rng(derived_seed(seed, epoch, 1))
        if weights is not None:
            return random.choice(count, size=wanted, replace=True, p=weights / weights.sum()).tolist()
        return np.concatenate([random.permutation(count) for _ in range(-(-wanted // count))])[:wanted].tolist()

    return order, batch_size


class PatchDataModule:
    """
    The loaders of a patch set's splits.

    batch_size counts the patches of a step over all processes. Training batches come in a new seeded order each epoch; validation and
    test in the manifest's order, whole batches dealt out to the processes, none twice.
    """

    def __init__(self, patches_root, batch_size=16, num_workers=4, use_weighted_sampling=False, fire_sample_weight=5.0,
                 use_fire_augment=True, *, labels=None, sampling=None, processes=None, pin_memory=False):
        self.root, self.batch_size, self.num_workers = patches_root, batch_size, num_workers
        self.use_weighted_sampling, self.fire_sample_weight = use_weighted_sampling, fire_sample_weight
        self.use_fire_augment = use_fire_augment
        self.labels, self.sampling = labels or Labels(), sampling or Sampling()
        self.processes, self.pin_memory = processes or Processes(), pin_memory

    def setup(self, needs=("train", "val")):
        """Read the description and the manifest. needs: splits that must have patches; UserError where one has none."""
        self.patch_set = read_patch_set(self.root, self.labels.num_classes, self.labels.layer, self.labels.task)
        self.train, self.val, self.test = (PatchDataset(self.patch_set, self.patch_set.of_split(split)) for split in SPLITS)
        for split in needs:
            if not len(getattr(self, split)):
                counts = ", ".join(f"{s} {len(getattr(self, s))}" for s in SPLITS)
                if self.patch_set.without_layer:
                    counts += f"; {self.patch_set.without_layer} have no labels of layer {self.patch_set.layer} and are left out"
                raise UserError(f"{self.root} has no {split} patches ({counts}); make some with chip.py make-patches --val …")
        if "train" in needs:
            self.set_up_training()

    def set_up_training(self):
        size, crop, shape = self.processes.size, self.sampling.crop, (self.train.width, self.train.height)
        if self.batch_size % size or min(self.batch_size, len(self.train)) < size:
            raise UserError(f"--batch-size {self.batch_size} (over all processes) with {len(self.train)} training patches cannot be dealt "
                            f"out to {size} processes; pass a multiple of {size}")
        if crop > min(shape):
            raise UserError(f"--crop {crop} is larger than the patches, {shape[0]} x {shape[1]}; pass a smaller one")
        count_class_pixels(self.train.patches, len(self.patch_set.classes))
        weights = sampling_weights(self.train.patches, self.fire_sample_weight) if self.use_weighted_sampling else None
        self.sample_weights = weights
        order, batch_size = patch_order(len(self.train), self.batch_size, seed=self.sampling.seed,
                                        steps=self.sampling.steps_per_epoch, weights=weights)
        if self.sampling.cutmix and batch_size < 2:
            raise UserError("--cutmix needs pairs of patches, but a batch has one; pass --batch-size 2 or more, or leave --cutmix out")
        if self.sampling.cutmix and size > 1 and batch_size % (2 * size):
            raise UserError(f"--cutmix needs pairs of patches in each of {size} processes, but a batch has {batch_size}; pass a multiple "
                            f"of {2 * size} as --batch-size")
        self.batches = EpochBatches(order, batch_size, self.processes)
        self.is_fire = [answers_classes(self.labels.task) and is_fire_patch(patch) for patch in self.train.patches]
        self.coming, self.train_loader, self.val_loader = ChangingBatches(), None, None

    def training_batches(self, epoch, first=0, last=None):
        """(PatchBatch, its augment.Draws) of the steps first … last - 1 of an epoch, this process's patches of each."""
        whole = self.batches.of_epoch(epoch)
        self.coming.batches = self.batches.of_process(epoch, first, last)
        self.train_loader = self.train_loader or self.loader(self.train, self.coming)
        if not self.coming.batches:
            return
        for step, batch in enumerate(self.train_loader, start=first):
            yield batch, self.draws(whole[step], epoch, step)

    def draws(self, indices, epoch, step):
        """The augmentation of a step for this process's patches; drawn for the global batch of `indices`."""
        policies = [self.policy(index) for index in indices]
        height, width = self.train.height, self.train.width
        drawn = augment.draw(policies, self.train.bands, height, width, self.sampling.seed, epoch, step, self.sampling.crop,
                             self.sampling.cutmix)
        return drawn.rows(slice(self.processes.rank, None, self.processes.size))

    def policy(self, index):
        if not self.sampling.augment:
            return augment.NOTHING
        return augment.STRONG if self.use_fire_augment and self.is_fire[index] else augment.STANDARD

    def val_batches(self):
        """The validation batches of this process, in order; the loader's workers serve every pass."""
        self.val_loader = self.val_loader or self.val_dataloader()
        return self.val_loader

    def train_dataloader(self, epoch=0):
        """The batches of one epoch, without augmentation."""
        return self.loader(self.train, self.batches.of_process(epoch))

    def val_dataloader(self):
        return self.loader_of(self.val)

    def test_dataloader(self):
        return self.loader_of(self.test)

    def loader_of(self, dataset):
        """This process's batches of all patches of a PatchDataset, in order."""
        return self.loader(dataset, batches_in_order(len(dataset), self.batch_size, self.processes))

    def train_indices_of_process(self):
        """This process's part of the training patches, each once, in order."""
        return list(range(len(self.train)))[self.processes.rank :: self.processes.size]

    def loader(self, dataset, batches):
        return make_loader(dataset, batches, as_it_is, workers=self.num_workers, pin_memory=self.pin_memory, persistent=True)


WildfireDataModule = PatchDataModule  # its first task, and its name in notebooks
