"""Batches of a detection run: random crops of tiles to train on, whole images tile by tile to validate."""

import dataclasses

import numpy as np

import augment
from detection import augment as box_augment
from detection.dataset import DetectionTiles
from runtime.device import derived_seed
from runtime.epoch_batches import ChangingBatches, EpochBatches, as_it_is, batches_in_order, make_loader, require_equal_parts

LEAST_STEPS = 50  # of an epoch: a dozen tiles are seen many times, each time cropped otherwise
MEMORY = 1 << 30  # bytes of decoded tiles that are kept instead of read again


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """
    crop: box_augment.CropPolicy. steps_per_epoch: 0 for one pass; None for one of at least LEAST_STEPS. augment: False leaves brightness as
    it is.
    """

    crop: box_augment.CropPolicy
    batch_size: int = 8
    steps_per_epoch: int | None = None
    augment: bool = True
    seed: int = 0


class TrainingData:
    """
    The batches of a run. tile_sets: {"train": TileSet, "val": TileSet …}.

    batch_size counts the tiles of a step over all processes. Their order depends on (seed, epoch) alone.
    """

    def __init__(self, tile_sets, sampling, processes, *, workers=0, pin_memory=False, masks=False):
        self.tile_sets, self.sampling, self.processes = tile_sets, sampling, processes
        self.workers, self.pin_memory = workers, pin_memory
        train = tile_sets["train"]
        require_equal_parts(sampling.batch_size, processes, "--batch-size")
        self.train = DetectionTiles(train, masks=masks, memory=0 if workers else MEMORY)
        self.val = DetectionTiles(tile_sets["val"]) if "val" in tile_sets else None
        whole_pass = -(-len(self.train) // sampling.batch_size)
        steps = max(LEAST_STEPS, whole_pass) if sampling.steps_per_epoch is None else sampling.steps_per_epoch or whole_pass
        self.batches = EpochBatches(self.order(steps * sampling.batch_size), sampling.batch_size, processes)
        self.coming, self.loader = ChangingBatches(), None

    def order(self, wanted):
        """Whole passes in a new order each, until `wanted` tiles are drawn."""
        count, seed = len(self.train), self.sampling.seed

        def order(epoch):
            random = np.random.default_rng(derived_seed(seed, epoch, 1))
            return np.concatenate([random.permutation(count) for _ in range(-(-wanted // count))])[:wanted].tolist()

        return order

    def training_batches(self, epoch, first=0, last=None):
        """(batch of tiles, its Draws) of the steps first … last - 1 of an epoch, this process's part of each."""
        self.coming.batches = self.batches.of_process(epoch, first, last)
        if not self.coming.batches:
            return
        if self.loader is None:
            self.loader = make_loader(self.train, self.coming, as_it_is, workers=self.workers, pin_memory=self.pin_memory, persistent=True)
        strength = augment.STRONG if self.sampling.augment else augment.NOTHING
        for step, batch in enumerate(self.loader, start=first):
            draws = box_augment.draw(self.sampling.batch_size, len(self.tile_sets["train"].bands), self.sampling.seed, epoch, step,
                                     self.sampling.crop, strength)
            yield batch, draws.rows(slice(self.processes.rank, None, self.processes.size))


def image_batches(tiles, batch_size, *, workers=0):
    """Batches of a DetectionTiles in order."""
    return make_loader(tiles, batches_in_order(len(tiles), batch_size), as_it_is, workers=workers)
