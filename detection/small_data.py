"""
Batches of a tensor warehouse for the small detectors, and how they are augmented.

    data = WarehouseData(warehouse, sampling, processes)
    for batch in data.training_batches(epoch): batch["images"]        # (B, 3, H, W) uint8
                                               batch["boxes"]         # (B, max_boxes, 4) float32 xyxy in 0..1
                                               batch["mask"]          # (B, max_boxes) bool: where there is a box
                                               batch["labels"]        # (B, max_boxes) int64, 1 … K
                                               batch["indices"]       # (B,) int64, samples of the warehouse

What happens to a frame is drawn from (seed, epoch, sample) alone, so it depends neither on workers nor on processes nor on a resume.
"""

import dataclasses

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

from runtime.device import derived_seed
from runtime.epoch_batches import ChangingBatches, EpochBatches, as_it_is, batches_in_order, make_loader, require_equal_parts

LEAST_VISIBLE = 0.25  # share of a box's area that a crop has to leave; a warehouse itself keeps boxes of which a pixel is left
ZOOM = 1.4  # frames are shown up to this factor larger or smaller
LIGHT = 0.2  # brightness is moved by up to this much, contrast multiplied by 1 plus or minus up to this much


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """batch_size: frames of a step over all processes. augment: flips, zooms and changes of light. seed: of the order and of those."""

    batch_size: int
    augment: bool = True
    seed: int = 0


class WarehouseFrames(Dataset):
    """Whole batches of the samples of a chipping.warehouse.Warehouse; `indices` are theirs."""

    def __init__(self, warehouse, sampling):
        self.warehouse, self.sampling = warehouse, sampling

    def __len__(self):
        return len(self.warehouse.samples)

    def __getitems__(self, keys):
        """keys: samples, or (epoch, sample) of those that are augmented."""
        indices = np.array([key[1] if isinstance(key, tuple) else key for key in keys], np.int64)
        batch = {name: torch.from_numpy(value) for name, value in self.warehouse.read(indices).items()}
        if self.sampling.augment:
            for place, key in enumerate(keys):
                if isinstance(key, tuple):
                    augment_frame(batch, place, np.random.default_rng(derived_seed(self.sampling.seed, key[0], key[1], 5)))
        return {**batch, "indices": torch.from_numpy(indices)}


class WarehouseData:
    """The batches of a run, those of this process. The order of the training frames depends on (seed, epoch) alone."""

    def __init__(self, warehouse, sampling, processes, *, workers=0, pin_memory=False):
        self.warehouse, self.sampling, self.processes = warehouse, sampling, processes
        self.workers, self.pin_memory = workers, pin_memory
        self.train, self.val = warehouse.split("train"), warehouse.split("val")
        require_equal_parts(sampling.batch_size, processes, "--batch-size")
        self.frames = WarehouseFrames(warehouse, sampling)
        self.batches = EpochBatches(order_of(self.train, sampling), sampling.batch_size, processes)
        self.coming, self.loader = ChangingBatches(), None

    def training_batches(self, epoch, first=0, last=None):
        """Of the steps first … last - 1 of an epoch, this process's part of each, which may be empty."""
        self.coming.batches = self.batches.of_process(epoch, first, last)
        if not self.coming.batches:
            return
        if self.loader is None:
            self.loader = make_loader(self.frames, self.coming, as_it_is, workers=self.workers, pin_memory=self.pin_memory, persistent=True)
        yield from self.loader

    def val_batches(self):
        """(the batch's number, batch) of the validation frames in order; every size-th batch is this process's."""
        batches = [self.val[batch].tolist() for batch in batches_in_order(len(self.val), self.sampling.batch_size, self.processes)]
        loader = make_loader(self.frames, batches, as_it_is, workers=min(self.workers, len(batches)), pin_memory=self.pin_memory)
        for place, batch in enumerate(loader):
            yield place * self.processes.size + self.processes.rank, batch


def order_of(train, sampling):
    """
    epoch → [(epoch, sample)]: all training frames in a new order, and as many of a second pass as make the last batch whole.

    A function that does not hold the data: its loader has to end with it, or its workers are ended at the interpreter's exit, aloud.
    """
    size = sampling.batch_size
    wanted = -(-len(train) // size) * size

    def order(epoch):
        random = np.random.default_rng(derived_seed(sampling.seed, epoch, 1))
        passes = [random.permutation(train) for _ in range(-(-wanted // len(train)))]
        return [(epoch, index) for index in np.concatenate(passes)[:wanted].tolist()]

    return order


def boxes_of_split(warehouse, split):
    """({"boxes" (N, M, 4), "mask", "labels"} of the samples of a split) without reading a frame."""
    chosen = np.asarray(warehouse.split(split), np.int64)
    parts = {name: [] for name in ("boxes", "mask", "labels")}
    for shard in np.unique(chosen // warehouse.shard_size).tolist():
        rows, arrays = chosen[chosen // warehouse.shard_size == shard] % warehouse.shard_size, warehouse.mapped(shard)
        for name, found in parts.items():
            found.append(np.asarray(arrays[name][rows]))
    empty = {name: np.empty((0, *shape), dtype) for name, (shape, dtype) in warehouse.shapes.items()}
    return {name: np.concatenate(found) if found else empty[name] for name, found in parts.items()}


def augment_frame(batch, place, random):
    """Change one frame of a batch in place, with its boxes. Frames stay uint8."""
    image, boxes = batch["images"][place], batch["boxes"][place].clone()
    zoom = float(np.exp(random.uniform(-1.0, 1.0) * np.log(ZOOM)))
    where, flip = random.random(2), random.random() < 0.5
    gain, shift = 1.0 + LIGHT * random.uniform(-1.0, 1.0), 255 * LIGHT * random.uniform(-1.0, 1.0)
    image, scale, offset = zoomed(image, zoom, where)
    boxes = boxes * torch.tensor([*scale, *scale]) + torch.tensor([*offset, *offset])
    if flip:
        image = image.flip(2)
        boxes = torch.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], dim=1)
    table = ((np.arange(256) - 128) * gain + 128 + shift).clip(0, 255).round().astype(np.uint8)
    lit = image.contiguous().numpy().tobytes().translate(table.tobytes())  # four times as fast as an index
    batch["images"].numpy()[place] = np.frombuffer(lit, np.uint8).reshape(image.shape)
    cut = boxes.clamp(0.0, 1.0)
    mask = batch["mask"][place] & (areas(cut) >= LEAST_VISIBLE * areas(boxes)) & (areas(cut) > 0)
    batch["boxes"][place] = torch.where(mask[:, None], cut, torch.zeros(()))
    batch["mask"][place] = mask


def areas(boxes):
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)


def zoomed(image, zoom, where):
    """
    (3, H, W) uint8 shown `zoom` times as large: a part of it, or all of it on black. where: (2,) in 0..1, which part, or where on black.

    → (image of the same size, (2,) factor and (2,) offset of x and y in shares of the frame)
    """
    height, width = image.shape[1:]
    if zoom >= 1.0:
        h, w = max(1, round(height / zoom)), max(1, round(width / zoom))
        top, left = round(where[1] * (height - h)), round(where[0] * (width - w))
        part = image[None, :, top : top + h, left : left + w]
        grown = F.interpolate(part, size=(height, width), mode="bilinear", align_corners=False)[0]
        return grown, (width / w, height / h), (-left / w, -top / h)
    h, w = max(1, round(height * zoom)), max(1, round(width * zoom))
    top, left = round(where[1] * (height - h)), round(where[0] * (width - w))
    found = torch.zeros_like(image)
    shrunk = F.interpolate(image[None], size=(h, w), mode="bilinear", align_corners=False, antialias=True)[0]
    found[:, top : top + h, left : left + w] = shrunk
    return found, (w / width, h / height), (left / width, top / height)
