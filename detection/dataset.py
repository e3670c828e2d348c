"""
Tiles and whole images with boxes → batches of tensors.

    data = DetectionTiles(tile_set)                # a map-style dataset that makes whole batches
    loader = make_loader(data, [[0, 1, 2, 3]], as_it_is)
    for batch in loader: batch["image"]            # (B, C, H, W) as stored; reflectance = (stored + offset) / divide_by
                         batch["boxes"]            # list of B (N_i, 4) float32, x0, y0, x1, y1 in pixels of the tile
                         batch["labels"]           # list of B (N_i,) int64, 1 … K
                         batch["ignore"]           # list of B (M_i, 4) float32: neither object nor background
                         batch["image_id"]         # list of B ids of the annotations
                         batch["offset"]           # (B, 2) int64: x0, y0 of the tile in its image
                         batch["tile_index"]       # (B,) int64, place in the dataset
                         batch["image_index"]      # (B,) int64, place in tile_set.images
                         batch["problems"]         # list of runtime.unreadable.Problem
                         batch["masks"]            # only with masks=True: list of B (N_i, H, W) bool

A tile without objects has boxes (0, 4) and labels (0,).
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from torch.utils.data import Dataset

from chipping.tile_files import read_pixels
from raster.scale import to_reflectance
from runtime.device import derived_seed
from runtime.errors import UserError, one_line
from runtime.npy import BadArray
from runtime.unreadable import Problem

OPEN_IMAGES = 8  # files that a dataset of windows keeps open
STATISTICS_SAMPLE = 200  # tiles read for mean and std where nobody has counted
LEAST_STD = 1e-3


class DetectionTiles(Dataset):
    """
    The tiles of a chipping.tile_set.TileSet. masks: outlines come too. memory: bytes up to which decoded tiles are kept, 0 for none.

    A tile that cannot be read is black, all of it an ignore region, and named in the batch's problems.
    """

    def __init__(self, tile_set, masks=False, memory=0):
        self.tile_set, self.masks = tile_set, masks
        self.kept = {} if len(self) * self.nbytes <= memory else None
        self.readers = {}

    @property
    def nbytes(self):
        """Of one tile."""
        return int(np.prod(self.tile_set.shape)) * np.dtype(self.tile_set.dtype).itemsize

    def __len__(self):
        return len(self.tile_set.tiles)

    def __getstate__(self):
        return {**self.__dict__, "readers": {}}  # open files stay in their process

    def fingerprint(self):
        """A hash that tells one set of labelled tiles from another, wherever it lies. No image is opened."""
        digest = hashlib.sha256(str((self.tile_set.shape, self.tile_set.classes, self.tile_set.bands)).encode())
        for tile in self.tile_set.tiles:
            digest.update(f"{self.tile_set.images[tile.image].name} {tile.x0} {tile.y0} {tile.band_sum}".encode())
            digest.update(tile.boxes.tobytes() + tile.labels.tobytes() + tile.ignore.tobytes())
        return digest.hexdigest()[:16]

    def __getitem__(self, index):
        """One tile with the keys of a batch, without the axis of the batch. OSError where it cannot be read."""
        batch = self.__getitems__([index])
        if batch.pop("problems"):
            raise OSError(f"tile {index} cannot be read")
        return {key: value[0] for key, value in batch.items()}

    def __getitems__(self, indices):
        """A batch."""
        tiles = [self.tile_set.tiles[index] for index in indices]
        pixels = np.zeros((len(tiles), *self.tile_set.shape), self.tile_set.dtype)
        labelled, problems = [tensors_of(tile) for tile in tiles], []
        for place, (index, tile) in enumerate(zip(indices, tiles, strict=True)):
            try:
                pixels[place] = self.pixels(index, tile)
            except BadArray as error:
                name = tile.file or f"{self.tile_set.images[tile.image].name} at {tile.x0}, {tile.y0}"
                problems.append(Problem(name, str(error)[:160], index=index))
                labelled[place] = all_ignored(self.tile_set.tile_size)
        images = [self.tile_set.images[tile.image] for tile in tiles]
        batch = {
            "image": torch.from_numpy(pixels), "boxes": [boxes for boxes, _, _ in labelled],
            "labels": [labels for _, labels, _ in labelled], "ignore": [ignore for _, _, ignore in labelled],
            "image_id": [image.image_id for image in images],
            "offset": torch.tensor([(tile.x0, tile.y0) for tile in tiles], dtype=torch.int64).reshape(-1, 2),
            "tile_index": torch.tensor(list(indices), dtype=torch.int64),
            "image_index": torch.tensor([tile.image for tile in tiles], dtype=torch.int64), "problems": problems,
        }
        if self.masks:
            bad = {problem.index for problem in problems}
            batch["masks"] = [
                masks_of(images[n], tile, () if index in bad else tile.objects, self.tile_set.tile_size)
                for n, (index, tile) in enumerate(zip(indices, tiles, strict=True))
            ]
        return batch

    def pixels(self, index, tile):
        """(C, H, W) of a tile as stored. BadArray where it cannot be read."""
        if self.kept is not None and index in self.kept:
            return self.kept[index]
        if tile.file is None:
            values = self.read_window(tile)
        else:
            values = read_pixels(Path(self.tile_set.folder) / tile.file, self.tile_set.shape, np.dtype(self.tile_set.dtype))
        if self.kept is not None:
            self.kept[index] = np.ascontiguousarray(values)
        return values

    def read_window(self, tile):
        """(C, H, W) of a tile that is a window of its image."""
        wide, tall = self.tile_set.tile_size
        try:
            if tile.image not in self.readers:
                while len(self.readers) >= OPEN_IMAGES:
                    self.readers.pop(next(iter(self.readers))).__exit__(None, None, None)
                self.readers[tile.image] = self.tile_set.reader(tile.image).__enter__()
            return self.tile_set.window(self.readers[tile.image], tile.image, tile.x0, tile.y0, wide, tall)[0]
        except (RasterioError, UserError) as error:
            raise BadArray(one_line(error)) from error


def tensors_of(labelled):
    """(boxes (N, 4) float32, labels (N,) int64, ignore (M, 4) float32) of a Tile or LabelledImage."""
    return (torch.from_numpy(labelled.boxes.astype(np.float32).reshape(-1, 4)), torch.from_numpy(labelled.labels.copy()),
            torch.from_numpy(labelled.ignore.astype(np.float32).reshape(-1, 4)))


def all_ignored(size):
    """What tensors_of gives for a tile of which nothing is known. size: (width, height)."""
    whole = torch.tensor([[0.0, 0.0, *map(float, size)]])
    return torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), whole


def masks_of(image, tile, objects, size):
    """(N, H, W) bool: the objects of a tile, by their outlines, or by their boxes where they have none. size: (width, height)."""
    wide, tall = size
    masks = np.zeros((len(objects), tall, wide), bool)
    for place, k in enumerate(objects):
        rings = image.masks[k] if image.masks else None
        if rings is None:
            x0, y0, x1, y1 = image.boxes[k]
            rings = [np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])]
        shapes = [{"type": "Polygon", "coordinates": [[*(ring - (tile.x0, tile.y0)).tolist(), (ring[0] - (tile.x0, tile.y0)).tolist()]]}
                  for ring in rings]
        masks[place] = rasterize(shapes, (tall, wide), dtype=np.uint8) > 0
    return torch.from_numpy(masks)


class DetectionImages(Dataset):
    """
    The whole images of a TileSet, one an item, with the keys of a batch of tiles: image (C, H, W) as stored, boxes, labels, ignore …

    OSError where an image cannot be read.
    """

    def __init__(self, tile_set):
        self.tile_set = tile_set

    def __len__(self):
        return len(self.tile_set.images)

    def __getitem__(self, index):
        image = self.tile_set.images[index]
        try:
            with self.tile_set.reader(index) as reader:
                pixels, _ = self.tile_set.window(reader, index, 0, 0, image.width, image.height)
        except (RasterioError, UserError) as error:
            raise OSError(f"{image.name} cannot be read ({one_line(error)})") from error
        boxes, labels, ignore = tensors_of(image)
        return {
            "image": torch.from_numpy(np.ascontiguousarray(pixels)), "boxes": boxes, "labels": labels, "ignore": ignore,
            "image_id": image.image_id, "offset": torch.zeros(2, dtype=torch.int64), "image_index": torch.tensor(index),
        }


def truths(tile_set):
    """[{"boxes" (N, 4) float64, "labels" (N,) int64, "ignore" (M, 4), "image_id", "width", "height"}] of the whole images, for scores."""
    return [
        {"boxes": image.boxes, "labels": image.labels, "ignore": image.ignore, "image_id": image.image_id, "width": image.width,
         "height": image.height}
        for image in tile_set.images
    ]


def band_statistics(tile_set, seed=0):
    """
    (mean, std), a number a band each, of the reflectance of a set's tiles, padding and nodata left out.

    From the manifest's sums; where there are none from a sample of tiles, drawn with the seed.
    """
    tiles = tile_set.tiles
    if tiles and all(tile.band_sum is not None and tile.valid_pixels is not None for tile in tiles):
        count = sum(tile.valid_pixels for tile in tiles)
        total = np.sum([tile.band_sum for tile in tiles], axis=0, dtype=np.float64)
        squares = np.sum([tile.band_sum_squares for tile in tiles], axis=0, dtype=np.float64)
    else:
        count, total, squares = sums_of_windows(tile_set, seed)
    if not count:
        raise UserError(f"the tiles of {tile_set.folder} have no pixel that is data; check nodata and the images")
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0)) / np.abs(tile_set.divide_by)
    mean = to_reflectance(mean[:, None, None], tile_set.divide_by, tile_set.offset)
    return tuple(mean.ravel().tolist()), tuple(np.maximum(std, LEAST_STD).tolist())


def sums_of_windows(tile_set, seed):
    """(pixels, sums, sums of squares) in stored units of a sample of tiles that are windows; those that cannot be read are left out."""
    order = np.random.default_rng(derived_seed(seed, 4)).permutation(len(tile_set.tiles))[:STATISTICS_SAMPLE]
    bands, (wide, tall) = len(tile_set.bands), tile_set.tile_size
    count, total, squares, reader, of = 0, np.zeros(bands), np.zeros(bands), None, None
    try:
        for tile in [tile_set.tiles[k] for k in sorted(order)]:
            try:
                if of != tile.image:
                    if reader is not None:
                        reader.__exit__(None, None, None)
                    reader, of = None, None
                    reader, of = tile_set.reader(tile.image).__enter__(), tile.image
                pixels, valid = tile_set.window(reader, tile.image, tile.x0, tile.y0, wide, tall)
            except (RasterioError, UserError):
                continue
            values = pixels[:, valid].astype(np.float64)
            count, total, squares = count + values.shape[1], total + values.sum(axis=1), squares + (values**2).sum(axis=1)
    finally:
        if reader is not None:
            reader.__exit__(None, None, None)
    return count, total, squares
