"""
What is on disk → batches of patches.

A patch set is a folder made by `chip.py make-patches` (chipset.json, manifest.jsonl, {split}/…_image.npy (C, H, W) and
…_mask.npy (L, H, W)), or one in the older form without a description ({split}/…_image.npy (H, W, C) float32 reflectance,
…_mask.npy (H, W)). Batches come in the stored compact type; augment.prepare turns them into reflectance on the training device.

    data = WildfireDataModule("patches", batch_size=16, num_workers=4)
    data.setup()
    for batch in data.train_dataloader(): batch.images, batch.masks        # (B, C, H, W) as stored, (B, H, W) uint8 with 255 = ignore
"""

import ast
import dataclasses
import functools
import hashlib
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import augment
from chipping.chipset import DESCRIPTION, MANIFEST, read_chipset, read_manifest
from constants import CEMS_BANDS, IGNORE, LAYER_OF_NUM_CLASSES, get_class_names
from runtime.device import derived_seed
from runtime.errors import UserError
from runtime.interrupts import worker_init

SPLITS = ("train", "val", "test")
FIRE_SHARE = 0.01  # a patch with more burned than this share of its valid pixels is a "fire patch"
WEIGHT_RATIO_CAP = 50.0  # class weights: the rarest class counts at most this many times the commonest
STATISTICS_SAMPLE = 200  # patches read for mean and std where no manifest has the sums


@dataclasses.dataclass(slots=True)
class Patch:
    """One line of a manifest, as far as training needs it. class_pixels, band sums: None in sets without a manifest."""

    image: Path
    mask: Path
    split: str
    scene: str
    event: str
    window: tuple  # column, row, width, height in the scene
    scene_size: tuple | None  # width, height
    class_pixels: list | None = None  # valid pixels of each class, of the chosen layer
    band_sum: list | None = None  # stored units, valid pixels
    band_sum_squares: list | None = None
    valid_pixels: int = 0
    dtype: str | None = None


@dataclasses.dataclass
class PatchSet:
    """A patch set with one label layer chosen."""

    folder: Path
    bands: tuple
    divide_by: tuple
    offset: tuple
    nodata: float | None
    layer: str
    plane: int  # of the mask file
    classes: tuple
    chip_size: int
    patches: list
    without_layer: int  # patches that have no labels of this layer and are left out
    described: bool  # False for the older form
    ground_resolution: float | None = None

    def of_split(self, split):
        return [patch for patch in self.patches if patch.split == split]


# ------------------------------------------------------------------------------------------------- what a folder holds


def read_patch_set(folder, num_classes=None, layer=None):
    """
    The PatchSet of a folder. The layer is the one named, or the only one, or the one that has num_classes classes (2: DEL, 5: GRA).

    UserError: not a folder, nothing in it, no such layer, a number of classes that disagrees.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"patches folder {folder} does not exist; make it with chip.py make-patches, or pass --patches-dir")
    if (folder / DESCRIPTION).exists():
        return read_described_set(folder, num_classes, layer)
    return read_older_set(folder, num_classes, layer)


def read_described_set(folder, num_classes, layer):
    description = read_chipset(folder)
    if description["kind"] != "patches":
        raise UserError(f"{folder} holds {description['kind']}, expected patches; make them with chip.py make-patches")
    layers = description["layers"]
    layer = choose_layer(folder, layers, num_classes, layer)
    classes = tuple(description["classes"][layer])
    if num_classes is not None and num_classes != len(classes):
        raise UserError(f"--num-classes {num_classes} disagrees with layer {layer} of {folder}, which has {len(classes)} classes "
                        f"({', '.join(classes)}); pass --num-classes {len(classes)} or another --layer")
    lines = read_manifest(folder)
    patches = []
    for number, line in enumerate(lines, start=1):
        try:
            if layer in line.get("layers", layers):
                patches.append(patch_of_line(folder, line, layer))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else f"is not that of a patch ({error})"
            raise UserError(f"{folder / MANIFEST}, line {number} {what}; make the patches again") from error
    if not patches:
        found = f"none of its {len(lines)} patches has labels of layer {layer}" if lines else "its manifest lists no patches"
        raise UserError(f"{folder} has nothing to train on: {found}; make patches with chip.py make-patches")
    bands, divide_by, offset = (tuple(description[key]) for key in ("bands", "divide_by", "offset"))
    return PatchSet(folder, bands, divide_by, offset, description.get("nodata"), layer, layers.index(layer), classes,
                    description["chip_size"], patches, len(lines) - len(patches), True, ground_resolution(lines))


def patch_of_line(folder, line, layer):
    """The Patch of a manifest's line. KeyError, TypeError, ValueError or AttributeError where the line does not describe one."""
    column, row, width, height = line["window"]
    return Patch(
        folder / line["file"], folder / line["mask"], line["split"], line["scene"], line.get("event") or line["scene"],
        (column, row, width, height), tuple(line["scene_size"]) if line.get("scene_size") else None, line["class_pixels"][layer],
        line.get("band_sum"), line.get("band_sum_squares"), line.get("valid_pixels") or 0, line.get("dtype"),
    )


def choose_layer(folder, layers, num_classes, layer):
    if layer is not None:
        if layer not in layers:
            raise UserError(f"--layer {layer} is not in {folder}; its layers are {', '.join(layers)}")
        return layer
    if len(layers) == 1:
        return layers[0]
    usual = LAYER_OF_NUM_CLASSES.get(num_classes)
    if usual in layers:
        return usual
    raise UserError(f"{folder} has the label layers {', '.join(layers)}, and none is usual for {num_classes} classes; pass --layer")


def ground_resolution(lines):
    """Metres a pixel of the first line that says so, or None. Degrees are turned into metres along the meridian."""
    for line in lines:
        transform, crs = line.get("transform"), line.get("crs")
        if transform and crs:
            size = abs(transform[4]) or abs(transform[3])
            return size * 111_320.0 if size < 0.1 else size
    return None


def read_older_set(folder, num_classes, layer):
    """A set of the older form: found by its names, without statistics."""
    patches = []
    for split in SPLITS:
        for image in sorted((folder / split).glob("*_image.npy")):
            stem = image.name.removesuffix("_image.npy")
            place = re.fullmatch(r"(.+)_r(\d+)_c(\d+)", stem)
            scene, row, column = (place[1], int(place[2]), int(place[3])) if place else (stem, 0, 0)
            event = re.match(r"EMSR\d+", scene)
            mask = image.with_name(f"{stem}_mask.npy")
            if not mask.exists():
                raise UserError(f"{image} has no mask {mask.name} beside it; make the patches again")
            patches.append(Patch(image, mask, split, scene, event[0] if event else scene, (column, row, 0, 0), None))
    if not patches:
        raise UserError(f"{folder} holds no patches: expected {DESCRIPTION}, or train/…_image.npy; make them with chip.py make-patches")
    for patch in patches:
        try:
            height, width, bands = np.load(patch.image, mmap_mode="r").shape
            break
        except (OSError, ValueError, EOFError):
            continue
    else:
        raise UserError(f"no patch of {folder} can be read as (height, width, bands); make them again")
    for patch in patches:
        patch.window = (*patch.window[:2], width, height)
    known = {len(CEMS_BANDS): CEMS_BANDS, len(CEMS_BANDS) + 1: (*CEMS_BANDS, "NDVI")}
    names = known.get(bands, tuple(f"band_{i + 1}" for i in range(bands)))
    count = num_classes or 2
    layer = layer or LAYER_OF_NUM_CLASSES.get(count, "mask")
    return PatchSet(folder, names, (1.0,) * bands, (0.0,) * bands, None, layer, 0, get_class_names(count), height, patches, 0, False)


def count_class_pixels(patches, num_classes):
    """Fill in class_pixels where no manifest has them, by reading the masks. UserError names a file with labels outside the classes."""
    for patch in patches:
        if patch.class_pixels is None:
            try:
                mask = load_mask(patch.mask)
            except (OSError, ValueError, EOFError):
                mask = np.zeros(0, dtype=np.uint8)  # told when the patch itself is read
            if (label := label_outside(mask, num_classes)) is not None:
                raise UserError(outside_text(patch.mask, label, num_classes))
            patch.class_pixels = np.bincount(mask.astype(np.uint8).ravel(), minlength=256)[:num_classes].tolist()


def load_mask(path):
    """The labels of a .npy in the type they have. ValueError where they are no numbers."""
    mask = np.load(path)
    if mask.dtype.kind not in "buif":
        raise ValueError(f"expected labels as numbers, found {mask.dtype}")
    return mask


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


# -------------------------------------------------------------------------------------------- statistics of a split


def is_fire_patch(patch):
    return sum(patch.class_pixels[1:]) > FIRE_SHARE * max(1, sum(patch.class_pixels))


def sampling_weights(patches, fire_weight):
    """(N,) float64: fire_weight for fire patches, 1 for the others."""
    return np.where([is_fire_patch(patch) for patch in patches], float(fire_weight), 1.0)


def class_weights_of(patches, num_classes, weights=None):
    """
    (C,) float32: N / (C · n_c) over valid pixels, divided by the smallest, at most 50. weights: how often each patch is drawn, or None.

    A class without a pixel gets 0 and a warning: it can't be learned, and should not be told off for.
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
    return tuple(((mean + patch_set.offset) / patch_set.divide_by).tolist()), tuple(np.maximum(std, 1e-3).tolist())


def sums_of_files(patch_set, patches, seed):
    """(pixels, sums, sums of squares) in stored units over a seeded sample of files."""
    order = np.random.default_rng(derived_seed(seed, 4)).permutation(len(patches))[:STATISTICS_SAMPLE]
    sample = PatchDataset(patch_set, [patches[i] for i in sorted(order)])
    count, total, squares = 0, np.zeros(len(patch_set.bands)), np.zeros(len(patch_set.bands))
    for i in range(len(sample)):
        batch = sample.__getitems__([i])
        image = batch.images[0].numpy().astype(np.float64)
        valid = (batch.masks[0].numpy() != IGNORE) & np.isfinite(image).all(axis=0)
        values = image[:, valid]
        count, total, squares = count + values.shape[1], total + values.sum(axis=1), squares + (values**2).sum(axis=1)
    return count, total, squares


# --------------------------------------------------------------------------------------------------------- reading


class PatchBatch(NamedTuple):
    """images (B, C, H, W) as stored; masks (B, H, W) uint8; indices into the dataset's patches; problems: see PatchDataset."""

    images: torch.Tensor
    masks: torch.Tensor
    indices: list
    problems: list


class PatchDataset(Dataset):
    """
    Patches of one split. dataset[i] → (image (C, H, W) as stored, mask (H, W) uint8, i); DataLoader takes whole batches at once.

    A file that can't be read becomes a patch of zeros whose labels are all "ignore", and a line in the batch's `problems`:
    (index, text, fatal). Labels outside the classes are fatal: that set does not fit the task.
    """

    def __init__(self, patch_set, patches):
        self.patches = patches
        self.bands, self.num_classes = len(patch_set.bands), len(patch_set.classes)
        self.plane, self.described = patch_set.plane, patch_set.described
        self.height = self.width = patch_set.chip_size
        if patches and not self.described:
            self.width, self.height = patches[0].window[2:]
        types = {patch.dtype for patch in patches}
        self.dtype = np.dtype(types.pop()) if self.described and len(types) == 1 and None not in types else None

    def __len__(self):
        return len(self.patches)

    def fingerprint(self):
        """A hash that tells one set of labelled patches from another, wherever it lies: names, windows, labels. No image is opened."""
        counted = [(p.image.name, p.scene, p.window, p.class_pixels if self.described else None) for p in self.patches]
        digest = hashlib.sha256(str((self.num_classes, self.plane, counted)).encode())
        for place in sorted({0, len(self.patches) // 2, len(self.patches) - 1}) if self.patches else ():
            if self.patches[place].mask.is_file():
                digest.update(self.patches[place].mask.read_bytes())
        return digest.hexdigest()[:16]

    def __getitem__(self, index):
        batch = self.__getitems__([index])
        if batch.problems:
            raise OSError(batch.problems[0][1])
        return batch.images[0], batch.masks[0], index

    def __getitems__(self, indices):
        """A batch, read straight into the arrays that become its tensors. Patches of mixed types meet in float32, which holds them."""
        shape = (self.bands, self.height, self.width)
        images = np.zeros((len(indices), *shape), dtype=self.dtype) if self.dtype else [None] * len(indices)
        masks = np.full((len(indices), self.height, self.width), IGNORE, dtype=np.uint8)
        problems = []
        for place, index in enumerate(indices):
            patch = self.patches[index]
            try:
                if self.dtype:
                    read_array_into(patch.image, images[place])
                else:
                    images[place] = self.read_image(patch.image, shape)
                label = self.read_mask(patch.mask, masks[place])
            except (OSError, ValueError, EOFError) as error:
                problems.append((index, f"{patch.image.name}: {' '.join(str(error).split())[:160]}", False))
                images[place] = 0 if self.dtype else np.zeros(shape, dtype=np.uint8)
                masks[place] = IGNORE
                continue
            if label is not None:
                problems.append((index, outside_text(patch.mask, label, self.num_classes), True))
                masks[place] = IGNORE
        if not self.dtype:
            same = len({image.dtype for image in images}) == 1
            images = np.stack(images) if same else np.stack([image.astype(np.float32) for image in images])
        return PatchBatch(torch.from_numpy(images), torch.from_numpy(masks), list(indices), problems)

    def read_image(self, path, shape):
        image = np.load(path)
        if not self.described:
            image = image.transpose(2, 0, 1) if image.ndim == 3 else image
        if image.shape != shape:
            raise ValueError(f"expected (bands, height, width) {shape}, found {image.shape}")
        if image.dtype not in (np.uint8, np.uint16, np.int16, np.float32):
            image = image.astype(np.float32)
        return image

    def read_mask(self, path, out):
        """Labels into `out`, (H, W) uint8. → a label outside the classes (then `out` means nothing), or None."""
        if self.described:
            read_array_into(path, out, plane=self.plane)
            return label_outside(out, self.num_classes)
        mask = load_mask(path)
        if mask.shape != out.shape:
            raise ValueError(f"expected a mask of (height, width) {out.shape}, found {mask.shape}")
        label = label_outside(mask, self.num_classes)
        if label is None:
            out[:] = mask
        return label


@functools.lru_cache(maxsize=64)
def parse_header(head):
    """(dtype, shape) of a .npy header of 128 bytes, or None for one of another length or in Fortran order. Sets repeat few headers."""
    if head[:6] != b"\x93NUMPY" or len(head) < 128:
        raise ValueError("not a .npy file, or cut short")
    if head[6] != 1 or int.from_bytes(head[8:10], "little") + 10 != 128:
        return None
    fields = ast.literal_eval(head[10:].decode("latin1"))
    return None if fields["fortran_order"] else (np.dtype(fields["descr"]), fields["shape"])


def read_array_into(path, out, plane=None):
    """Read a .npy of out's type and shape straight into `out`; plane: only this one of a file with one axis more."""
    with open(path, "rb", buffering=0) as file:
        header = parse_header(file.read(128))
        if header is None:  # an unusual header: let numpy sort it out
            array = np.load(path)
            header = array.dtype, array.shape
        else:
            array = None
        dtype, shape = header
        if dtype != out.dtype or (shape if plane is None else shape[1:]) != out.shape or (plane is not None and plane >= shape[0]):
            raise ValueError(f"expected {out.dtype} {out.shape}, found {dtype} {shape}")
        if array is not None:
            out[...] = array if plane is None else array[plane]
            return
        if plane:
            file.seek(128 + plane * out.nbytes)
        got = file.readinto(memoryview(out).cast("B"))
        if got != out.nbytes:
            raise ValueError(f"cut short: expected {out.nbytes} bytes of pixels, found {got}")


# ---------------------------------------------------------------------------------------------------- order and batches


class EpochBatches:
    """
    The batches of an epoch as lists of indices: from (seed, epoch) alone, so that any process, with any number of workers, agrees on them.

    weights: draw with replacement, in proportion; None: every patch once, in a new order each epoch. The last, incomplete batch is left out
    (its patches come at another place of the next epoch), unless it is the only one. steps: batches an epoch, 0 for one pass.
    Iterating yields this process's part (every world_size-th patch) of each batch, from `first_step` on.
    """

    def __init__(self, count, batch_size, seed, weights=None, steps=0, rank=0, world_size=1):
        self.count, self.seed, self.weights = count, seed, weights
        self.batch_size = batch_size if steps else min(batch_size, count)
        self.steps = steps or max(1, count // self.batch_size)
        self.rank, self.world_size = rank, world_size
        self.set_position(0, 0)

    def set_position(self, epoch, first_step):
        self.epoch, self.first_step = epoch, first_step
        self.plan = self.plan_epoch(epoch)

    def plan_epoch(self, epoch):
        """[[index, …], …]: the global batches."""
        random = np.random.default_rng(derived_seed(self.seed, epoch, 1))
        wanted = self.steps * self.batch_size
        if self.weights is not None:
            order = random.choice(self.count, size=wanted, replace=True, p=self.weights / self.weights.sum())
        else:
            passes = -(-wanted // self.count)
            order = np.concatenate([random.permutation(self.count) for _ in range(passes)])[:wanted]
        return order.reshape(self.steps, self.batch_size).tolist()

    def __len__(self):
        return self.steps - self.first_step

    def __iter__(self):
        for indices in self.plan[self.first_step :]:
            yield indices[self.rank :: self.world_size]


def as_it_is(batch):
    """The dataset makes whole batches; nothing is left to collate."""
    return batch


class WildfireDataModule:
    """
    The loaders of a patch set's splits.

    batch_size counts the patches of a step over all processes. Training batches come in a new seeded order each epoch
    (set_position); validation and test in the manifest's order, whole batches dealt out to the processes, none twice.
    """

    def __init__(self, patches_root, batch_size=16, num_workers=4, use_weighted_sampling=False, fire_sample_weight=5.0,
                 use_fire_augment=True, num_classes=2, layer=None, augmentation=True, seed=0, steps_per_epoch=0, crop=0, rank=0,
                 world_size=1, pin_memory=False):
        self.root, self.batch_size, self.num_workers = patches_root, batch_size, num_workers
        self.use_weighted_sampling, self.fire_sample_weight = use_weighted_sampling, fire_sample_weight
        self.use_fire_augment, self.augmentation = use_fire_augment, augmentation
        self.num_classes, self.layer, self.seed = num_classes, layer, seed
        self.steps_per_epoch, self.crop = steps_per_epoch, crop
        self.rank, self.world_size, self.pin_memory = rank, world_size, pin_memory

    def setup(self, needs=("train", "val")):
        """Read the description and the manifest. needs: splits that must have patches; UserError where one has none."""
        self.patch_set = read_patch_set(self.root, self.num_classes, self.layer)
        self.train, self.val, self.test = (PatchDataset(self.patch_set, self.patch_set.of_split(split)) for split in SPLITS)
        for split in needs:
            if not len(getattr(self, split)):
                counts = ", ".join(f"{s} {len(getattr(self, s))}" for s in SPLITS)
                if self.patch_set.without_layer:
                    counts += f"; {self.patch_set.without_layer} have no labels of layer {self.patch_set.layer} and are left out"
                raise UserError(f"{self.root} has no {split} patches ({counts}); make some with chip.py make-patches --val …")
        if "train" not in needs:
            return
        if self.batch_size % self.world_size or min(self.batch_size, len(self.train)) < self.world_size:
            raise UserError(f"--batch-size {self.batch_size} (over all processes) with {len(self.train)} training patches can't be "
                            f"dealt out to {self.world_size} processes; pass a multiple of {self.world_size}")
        if self.crop > min(self.train.height, self.train.width):
            raise UserError(f"--crop {self.crop} is larger than the patches, {self.train.width} x {self.train.height}; pass a smaller one")
        count_class_pixels(self.train.patches, len(self.patch_set.classes))
        weights = sampling_weights(self.train.patches, self.fire_sample_weight) if self.use_weighted_sampling else None
        self.sample_weights = weights
        self.batches = EpochBatches(len(self.train), self.batch_size, self.seed, weights, self.steps_per_epoch, self.rank, self.world_size)
        self.is_fire = [is_fire_patch(patch) for patch in self.train.patches]

    def set_position(self, epoch, first_step=0):
        """Where the next train_dataloader() pass begins."""
        self.batches.set_position(epoch, first_step)

    def draws(self, step):
        """The augmentation of a step of the current epoch, for this process's patches; drawn for the global batch."""
        policies = [self.policy(index) for index in self.batches.plan[step]]
        height, width = self.train.height, self.train.width
        drawn = augment.draw(policies, self.train.bands, height, width, self.seed, self.batches.epoch, step, self.crop)
        return drawn.rows(slice(self.rank, None, self.world_size))

    def policy(self, index):
        if not self.augmentation:
            return augment.NOTHING
        return augment.STRONG if self.use_fire_augment and self.is_fire[index] else augment.STANDARD

    def train_dataloader(self):
        return self.loader(self.train, self.batches)

    def val_dataloader(self):
        return self.loader(self.val, self.batches_in_order(len(self.val)))

    def test_dataloader(self):
        return self.loader(self.test, self.batches_in_order(len(self.test)))

    def batches_in_order(self, count):
        """Every world_size-th batch of `count` patches in order."""
        batches = [list(range(i, min(i + self.batch_size, count))) for i in range(0, count, self.batch_size)]
        return batches[self.rank :: self.world_size]

    def train_indices_of_process(self):
        """This process's part of the training patches, each once, in order."""
        return list(range(len(self.train)))[self.rank :: self.world_size]

    def loader(self, dataset, batches):
        return DataLoader(
            dataset, batch_sampler=batches, num_workers=self.num_workers, collate_fn=as_it_is, pin_memory=self.pin_memory,
            worker_init_fn=worker_init() if self.num_workers else None, persistent_workers=self.num_workers > 0,
        )
