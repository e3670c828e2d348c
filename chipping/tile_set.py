"""
What a folder of tiles holds: chipset.json, images.jsonl with a line an image, manifest.jsonl with a line a tile.

A tile `tile_<imageIndex>_<x0>_<y0>.png` (or .npy) counts when the manifest lists it. Of the form "none" there are no such files: tiles are
windows of the images.
"""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chipping import fields
from chipping.box_labels import LabelledImage
from chipping.chipset import DESCRIPTION, read_chipset
from chipping.image_files import ImageReader, header_from
from chipping.tile_files import FILL
from chipping.tile_plan import draw_of
from constants import MANIFEST
from runtime.errors import UserError
from runtime.fields import find_problem
from runtime.files import read_lines
from runtime.names import path_inside

IMAGES = "images.jsonl"
LAYER = "boxes"  # of chipset.json's classes
REMEDY = "make the tiles again (remove the folder)"


@dataclass(slots=True, eq=False)
class Tile:
    """
    image: place in TileSet.images. x0, y0: its first pixel in the image. boxes: (N, 4) float64 in the tile's pixels; labels: (N,) int64;
    ignore: (M, 4). file: its name, or None. size: bytes of it. valid_pixels, band_sum, band_sum_squares: of its data in stored units; None
    where nobody counted.
    """

    image: int
    x0: int
    y0: int
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    file: str | None = None
    size: int = 0
    valid_pixels: int | None = None
    band_sum: list | None = None
    band_sum_squares: list | None = None
    objects: tuple = ()  # places of the boxes among those of the image


@dataclass(eq=False)
class TileSet:
    """
    A folder of tiles.

    form: png, npy or none. tile_size: (width, height). bands: names. positions: {image's name: positions of the bands in it}. dtype: of the
    stored pixels. divide_by, offset: reflectance = (stored + offset) / divide_by, a number a band. classes: names of the labels 1 … K.
    images: LabelledImage each. tiles: Tile each, by image, row by row. seed: of the draw for `negatives`.
    """

    folder: Path
    form: str
    tile_size: tuple
    overlap: int
    bands: tuple
    positions: dict
    dtype: str
    divide_by: tuple
    offset: tuple
    classes: tuple
    images: list
    tiles: list
    seed: int = 0

    @property
    def shape(self):
        """(C, H, W) of a tile."""
        return len(self.bands), self.tile_size[1], self.tile_size[0]

    def of_images(self, names):
        """The same set with only the images of these names, in its own order."""
        names = set(names)
        kept = [k for k, image in enumerate(self.images) if image.name in names]
        place = {k: n for n, k in enumerate(kept)}
        tiles = [dataclasses.replace(tile, image=place[tile.image]) for tile in self.tiles if tile.image in place]
        return dataclasses.replace(self, images=[self.images[k] for k in kept], tiles=tiles)

    def with_negatives(self, share):
        """The same set with this share of the tiles without objects: those whose draw is below it."""
        def is_kept(tile):
            return len(tile.boxes) or share >= 1 or draw_of(self.images[tile.image].name, tile.x0, tile.y0, self.seed) < share

        return dataclasses.replace(self, tiles=[tile for tile in self.tiles if is_kept(tile)])

    def reader(self, image):
        """An ImageReader, not yet entered, of an image of the set (its place)."""
        labelled = self.images[image]
        return ImageReader(labelled.path, labelled.header, self.positions[labelled.name], labelled.orientation)

    def window(self, reader, image, x0, y0, width, height):
        """(pixels (C, height, width) as stored in tiles, bool (height, width) of those that are data) of a window of an entered reader."""
        labelled = self.images[image]
        return read_window(reader, (labelled.width, labelled.height), (x0, y0, width, height), self.dtype)


def read_window(reader, size, window, dtype):
    """
    (pixels (C, h, w), valid (h, w)) of a window (x0, y0, w, h) that may reach beyond an image of a size (width, height); what is no data is
    FILL.
    """
    x0, y0, width, height = window
    x1, y1 = min(x0 + width, size[0]), min(y0 + height, size[1])
    left, top = max(x0, 0), max(y0, 0)
    values = reader.read(left, top, x1, y1)
    inside = reader.valid(values, left, top, x1, y1)
    whole = (y1 - top, x1 - left) == (height, width)
    if whole and reader.always_valid:
        return values.astype(dtype, copy=False), inside
    pixels, valid = np.full((len(values), height, width), FILL, dtype), np.zeros((height, width), bool)
    place = np.s_[top - y0 : y1 - y0, left - x0 : x1 - x0]
    with np.errstate(invalid="ignore", over="ignore"):
        pixels[:, *place] = np.where(inside, values, FILL)
    valid[place] = inside
    return pixels, valid


def is_tile_set(folder):
    return (Path(folder) / DESCRIPTION).is_file()


def read_tile_set(folder):
    """TileSet of a folder. UserError where there is none, or one that was not finished."""
    folder = Path(folder)
    description = read_chipset(folder)
    where = folder / DESCRIPTION
    if description["kind"] != "tiles":
        raise UserError(f"{folder} holds {description['kind']}, expected tiles; make them with chip.py make-tiles")
    needed = ("tile_size", "overlap", "bands", "dtype", "divide_by", "offset", "classes", "store", "images_folder", "settings")
    if problem := find_problem(description, fields.TILES, needed):
        raise UserError(f"{where} {problem}; {REMEDY}")
    if not (folder / MANIFEST).exists() or "count" not in description:
        raise UserError(f"the tiles of {folder} are not finished; run the command that makes them again, it resumes")
    bands, classes = tuple(description["bands"]), description["classes"].get(LAYER)
    if classes is None or len(description["divide_by"]) != len(bands) or len(description["offset"]) != len(bands):
        raise UserError(f"{where} has bands, scale and classes that do not fit each other; {REMEDY}")
    images, positions, index = read_images(folder, description, len(classes), len(bands))
    tiles = read_tiles(folder, index, len(classes), len(bands), description["store"] != "none")
    if (len(tiles), len(images)) != (description["count"], description.get("image_count")):
        raise UserError(f"{folder} lists {len(tiles)} tiles of {len(images)} images, and its {DESCRIPTION} says otherwise; {REMEDY}")
    return TileSet(folder, description["store"], tuple(description["tile_size"]), description["overlap"], bands, positions,
                   description["dtype"], tuple(description["divide_by"]), tuple(description["offset"]), tuple(classes), images, tiles,
                   description["settings"].get("seed", 0))


def read_images(folder, description, classes, bands):
    """([LabelledImage], {name: positions of its bands}, {index in the files' names: place})."""
    path = folder / IMAGES
    images, positions, index = [], {}, {}
    for number, line in enumerate(read_lines(path), start=1):
        needed = ("index", "name", "image_id", "width", "height", "orientation", "boxes", "labels", "ignore", "header", "bands")
        if problem := find_problem(line, fields.TILED_IMAGE, needed):
            raise UserError(f"{path}, line {number} {problem}; {REMEDY}")
        try:
            header = header_from(line["header"])
            own = tuple(line["bands"])
            if len(own) != bands or not all(0 <= p < header.count for p in own):
                raise ValueError
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}, line {number} has bands or a header that are not an image's; {REMEDY}") from error
        labels = labels_of(line, classes, path, number)
        masks = line.get("masks")
        masks = masks and [rings and [np.array(ring, np.float64).reshape(-1, 2) for ring in rings] for rings in masks]
        if masks is not None and len(masks) != len(labels):
            raise UserError(f"{path}, line {number} has {len(masks)} masks for {len(labels)} boxes; {REMEDY}")
        place = path_inside(Path(description["images_folder"]), line["name"], path)
        images.append(LabelledImage(place, line["name"], line["image_id"], line["width"], line["height"], rows(line["boxes"]), labels,
                                    rows(line["ignore"]), masks, header, line["orientation"]))
        positions[line["name"]] = own
        index[line["index"]] = len(images) - 1
    return images, positions, index


def rows(boxes):
    return np.array(boxes, np.float64).reshape(-1, 4)


def labels_of(line, classes, path, number):
    labels = np.array(line["labels"], np.int64).reshape(-1)
    if len(labels) != len(line["boxes"]) or labels.max(initial=0) > classes:
        raise UserError(f"{path}, line {number} has labels that do not fit its boxes or the {classes} classes; {REMEDY}")
    return labels


def read_tiles(folder, index, classes, bands, with_files):
    """[Tile] of the manifest's lines."""
    path, tiles = folder / MANIFEST, []
    for number, line in enumerate(read_lines(path), start=1):
        needed = ("image", "x0", "y0", "boxes", "labels", "ignore", "objects", *(("file", "bytes", "valid_pixels") if with_files else ()))
        if problem := find_problem(line, fields.TILE, needed):
            raise UserError(f"{path}, line {number} {problem}; {REMEDY}")
        if line["image"] not in index or any(line.get(key) and len(line[key]) != bands for key in ("band_sum", "band_sum_squares")):
            raise UserError(f"{path}, line {number} names an image or bands that are not there; {REMEDY}")
        if with_files:
            path_inside(folder, line["file"], path)
        tiles.append(Tile(index[line["image"]], line["x0"], line["y0"], rows(line["boxes"]), labels_of(line, classes, path, number),
                          rows(line["ignore"]), line.get("file"), line.get("bytes", 0), line.get("valid_pixels"), line.get("band_sum"),
                          line.get("band_sum_squares"), objects_of(line, path, number)))
    return tiles


def objects_of(line, path, number):
    if len(line["objects"]) != len(line["boxes"]):
        raise UserError(f"{path}, line {number} has {len(line['objects'])} objects for {len(line['boxes'])} boxes; {REMEDY}")
    return tuple(line["objects"])


def known_headers(*folders):
    """{image's name: ImageHeader} that tile sets in some folders have kept; those that cannot be read have none."""
    found = {}
    for folder in folders:
        try:
            for line in read_lines(Path(folder) / IMAGES):
                found[line["name"]] = header_from(line["header"])
        except (UserError, KeyError, TypeError, AttributeError):
            continue
    return found


def sizes_on_disk(folder):
    """{name: bytes} of the files in a folder."""
    with os.scandir(folder) as entries:
        return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
