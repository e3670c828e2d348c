"""Plans a set of tiles from labelled images and options: which tiles, with which boxes, under which names. No pixel is read."""

import functools
import hashlib
import json
import os
from dataclasses import dataclass

import numpy as np

from chipping.image_files import header_fields, same_bands, scene_at
from chipping.tile_files import FILL, fits_png, stored_type, tile_name
from chipping.tile_plan import boxes_of_tile, candidates, check_overlap, draw_of, regions_of_tile, tiles_of
from chipping.tile_set import LAYER
from chipping.tile_worker import Job
from raster.scale import Scale, check_divisors, decide_scale, parse_numbers
from raster.source import describe
from runtime.errors import UserError

SMALL = 4 << 20  # pixels of a JPEG or PNG that may be decoded for every tile of it
NO_WINDOWS = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, kw_only=True)
class TileOptions:
    """
    How tiles are made. size: (width, height) in pixels; overlap: of neighbours. min_visibility: share of a box that a tile has to show.
    negatives: share of the tiles without objects that is kept, drawn with seed. form: png, npy, or none for windows of the images. bands:
    words of --bands, or None. divide_by, offset: as on the command line, or None.
    """

    size: tuple = (512, 512)
    overlap: int = 128
    min_visibility: float = 0.2
    negatives: float = 1.0
    seed: int = 0
    form: str = "png"
    bands: tuple | None = None
    divide_by: str | None = None
    offset: str | None = None


@dataclass(frozen=True)
class TilePlan:
    """
    What a folder has to hold. description: chipset.json without format, version and hash. images: lines of images.jsonl. labelled: the
    LabelledImage of each. jobs: Job each, in the manifest's order. lines: the manifest's lines, without what the pixels say.
    """

    description: dict
    images: list
    labelled: list
    options: TileOptions

    @functools.cached_property
    def tiles(self):
        """[(Job, line)], found out when they are asked for: a folder that is whole needs none."""
        form = self.description["store"]
        return [pair for index, (image, row) in enumerate(zip(self.labelled, self.images, strict=True))
                for pair in tiles_of_image(index, image, row, form, self.options)]

    @functools.cached_property
    def jobs(self):
        return [job for job, _ in self.tiles]

    @functools.cached_property
    def lines(self):
        return [line for _, line in self.tiles]


def plan_tiles(images_folder, classes, images, options, note):
    """TilePlan of labelled images. No pixel is read."""
    wide, tall = options.size
    check_overlap(min(wide, tall), options.overlap)
    names, headers = [image.name for image in images], [image.header for image in images]
    positions, bands = same_bands(headers, names, options.bands)
    dtype = one_dtype(headers, names)
    form = decide_form(options.form, dtype, len(bands), images, note)
    scale = scale_of_images(images, positions, bands, dtype, options)
    rows = [image_row(index, image, positions[image.name]) for index, image in enumerate(images)]
    settings = {
        "tile_size": [wide, tall], "overlap": options.overlap, "min_visibility": options.min_visibility, "negatives": options.negatives,
        "seed": options.seed if options.negatives < 1 else 0, "store": form, "bands": list(bands), "classes": list(classes),
        "images": settings_of_images(rows),
    }
    description = {
        "kind": "tiles", "settings": settings, "tile_size": [wide, tall], "overlap": options.overlap, "store": form, "dtype": dtype,
        "bands": list(bands), "divide_by": list(scale.divide_by), "offset": list(scale.offset), "nodata": FILL,
        "classes": {LAYER: list(classes)}, "images_folder": os.path.abspath(images_folder),
    }
    return TilePlan(description, rows, list(images), options)


def settings_of_images(rows):
    """One word for all images: chipset.json stays short; what has changed images.jsonl tells."""
    return hashlib.sha256("\n".join(json.dumps([row["name"], identity(row)]) for row in rows).encode()).hexdigest()[:16]


def image_row(index, image, positions):
    """The line of images.jsonl."""
    return {
        "index": index, "name": image.name, "image_id": image.image_id, "width": image.width, "height": image.height,
        "orientation": image.orientation, "fingerprint": image.fingerprint(), "bands": list(positions), "boxes": image.boxes.tolist(),
        "labels": image.labels.tolist(), "ignore": image.ignore.tolist(),
        "masks": image.masks and [rings and [ring.tolist() for ring in rings] for rings in image.masks],
        "header": json.loads(json.dumps(header_fields(image.header), default=float)),
    }


def pixel_identity(row):
    """What decides an image's pixels: size, time, turn, bands."""
    return [row["header"]["size"], row["header"]["mtime_ns"], row["orientation"], row["bands"]]


def identity(row):
    """What decides an image's tiles."""
    return [*pixel_identity(row), row["fingerprint"]]


def one_dtype(headers, names):
    """The type of the stored pixels, which all images share. UserError where types differ, since one scale is for all."""
    for header, name in zip(headers, names, strict=True):
        if header.dtype != headers[0].dtype:
            raise UserError(f"{name} holds {header.dtype}, {names[0]} {headers[0].dtype}; one scale is for all images, "
                            "so convert them to one type")
    return stored_type(headers[0].dtype)


def decide_form(form, dtype, bands, images, note):
    """png, npy or none: PNG only where it holds the pixels; windows only where a file gives them without being decoded as a whole."""
    if form == "png" and not fits_png(dtype, bands):
        note(f"{bands} bands of {dtype} do not fit into a PNG; the tiles are .npy files")
        return "npy"
    if form == "none":
        for image in images:
            if image.path.suffix.lower() in NO_WINDOWS and image.width * image.height > SMALL:
                raise UserError(f"{image.name} would be decoded as a whole for each tile; --tile-format none is for GeoTIFF, "
                                "pass png or npy")
    return form


def scale_of_images(images, positions, bands, dtype, options):
    """Scale of the stored values: flags, then the files' tags, then 255 for 8-bit pictures. UserError where none of them says it."""
    divide_by = parse_numbers(options.divide_by, "--divide-by", len(bands))
    offset = parse_numbers(options.offset, "--offset", len(bands))
    if divide_by is not None:
        check_divisors(divide_by)
        return Scale(divide_by, offset or (0.0,) * len(bands))
    stated = {}
    for image in images:
        header, own = image.header, positions[image.name]
        tags = None if header.divide_by is None else (pick(header.divide_by, own), pick(header.offset, own))
        stated.setdefault(tags, image)
    if len(stated) > 1:
        one, other = list(stated.values())[:2]
        raise UserError(f"the tags of {one.name} and {other.name} state different scales; pass --divide-by and --offset for all")
    tags, first = next(iter(stated.items()))
    if tags is not None:
        return Scale(tags[0], offset or tags[1])
    if dtype == "uint8":
        return Scale((255.0,) * len(bands), offset or (0.0,) * len(bands))
    info, where = describe(scene_at(first.path)), [first.header.bands[p] - 1 for p in positions[first.name]]
    return decide_scale(info, where, bands)


def pick(numbers, positions):
    return tuple(numbers[p] for p in positions)


def tiles_of_image(index, image, row, form, options):
    """Yields (Job, manifest line) of an image's tiles, those without objects only as `negatives` allows."""
    tiles = tiles_of(image.width, image.height, options.size, options.overlap)
    pixels = pixel_identity(row)
    for tile, near in zip(tiles, candidates(image.boxes, tiles), strict=True):
        found = boxes_of_tile(image.boxes[near], tile, options.min_visibility)
        x0, y0 = int(tile[0]), int(tile[1])
        if not len(found.kept) and options.negatives < 1 and draw_of(image.name, x0, y0, options.seed) >= options.negatives:
            continue
        ignore = np.concatenate([found.ignore, regions_of_tile(image.ignore, tile)])
        objects = near[found.kept]
        stem = None if form == "none" else tile_name(index, x0, y0)
        line = {
            "file": stem and f"{stem}.{form}", "image": index, "x0": x0, "y0": y0, "boxes": rounded(found.clipped),
            "labels": image.labels[objects].tolist(), "ignore": rounded(ignore), "visible": rounded(found.visible),
            "objects": objects.tolist(),
        }
        key = json.dumps([image.name, *pixels, x0, y0, list(options.size), form])
        yield Job(index, x0, y0, stem, key), line


def rounded(values):
    """Numbers with 4 digits after the point: a ten-thousandth of a pixel."""
    return np.round(values, 4).tolist()
