"""Images that carry boxes: what their headers say, and their pixels by windows, rotated as their EXIF tag asks where that applies."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.crs import CRS
from rasterio.windows import Window

from constants import band_role
from raster.bands import alike
from raster.crs import text_of
from raster.hidden import data_bands, hidden_pixels
from raster.nodata import valid_pixels
from raster.package import ARCHIVES
from raster.palette import colours_of, is_palette
from raster.product_scene import ProductScene
from raster.products import item_in, product_scene, products_in, scenes_of_path
from raster.scale import scale_from_tags
from raster.source import RASTER_SUFFIXES, describe, gdal_environment, open_raster, opened, read_bands
from raster.windows import thin_shape
from runtime.errors import UserError
from vectors.footprint import outline

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".jp2", ".vrt", ".img")
UPRIGHT = 1  # EXIF orientation
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
# What makes an image of an orientation upright: (swap rows and columns, then reverse rows, then reverse columns)
TURNS = {1: (False, False, False), 2: (False, False, True), 3: (False, True, True), 4: (False, True, False), 5: (True, False, False),
         6: (True, False, True), 7: (True, True, True), 8: (True, True, False)}
MOST_TURNED = 1 << 30  # bytes of an image that is turned as a whole


@dataclass(frozen=True)
class ImageHeader:
    """
    What an image's header says; plain values only, so that JSON holds it.

    width, height: as stored. bands: 1-based indices of those that hold data (a palette stands for three). dtype: of the pixels.
    descriptions: names of the bands, "" without. orientation: 1 … 8 of EXIF. crs: text or None. transform: (a, b, c, d, e, f). nodata:
    one a band or None each. masked: what else hides pixels, see raster.hidden.DataBands. palette: pixels are indices of colours.
    divide_by, offset: one number a band where the tags state them, else None. by_rows: blocks span the image's width. size: bytes of the
    file; mtime_ns: its time.
    """

    width: int
    height: int
    bands: tuple
    dtype: str
    descriptions: tuple
    orientation: int
    crs: str | None
    transform: tuple
    nodata: tuple
    masked: int | tuple | None
    palette: bool
    divide_by: tuple | None
    offset: tuple | None
    by_rows: bool
    size: int
    mtime_ns: int

    @property
    def count(self):
        """Bands that a reading has."""
        return 3 if self.palette else len(self.bands)

    def shown_size(self, orientation):
        """(width, height) after a turn."""
        return (self.height, self.width) if orientation in SIDEWAYS else (self.width, self.height)

    def outline(self):
        """vectors.footprint.Outline, or None where the image has no place on the ground."""
        return outline(CRS.from_user_input(self.crs), self.transform, self.width, self.height) if self.crs else None


TUPLES = ("bands", "descriptions", "transform", "nodata", "divide_by", "offset")


def header_from(fields):
    """ImageHeader of a dict that JSON held."""
    found = {key: tuple(value) if key in TUPLES and value is not None else value for key, value in fields.items()}
    masked = found.get("masked")
    return ImageHeader(**{**found, "masked": tuple(masked) if isinstance(masked, list) else masked})


def header_fields(header):
    return dataclasses.asdict(header)


def scene_at(path):
    """
    What is opened for an image: its path, or the ProductScene of a delivered product, of those bands whose files are there. UserError.
    """
    if str(path).lower().endswith(IMAGE_SUFFIXES):
        return path
    scenes = scenes_of_path(str(path), RASTER_SUFFIXES, named=False) if os.path.exists(path) else None
    if not scenes and (os.path.exists(path) or not item_in(str(path))):
        return path
    return of_bands_there(product_scene(str(path), scenes))


def of_bands_there(scene):
    """A ProductScene of those bands whose files are there; as it is where none is."""
    there = [band for band in scene.bands if band.place.is_there()]
    return ProductScene(scene.product, there) if there else scene


class Scenes:
    """What scene_at gives for images, which stay as they are meanwhile: a product's metadata is read once, which takes long."""

    def __init__(self):
        self.known = {}

    def at(self, path):
        if str(path) not in self.known:
            self.known[str(path)] = scene_at(path)
        return self.known[str(path)]

    def is_image(self, path):
        """Whether an image is there: a file, or a delivered product."""
        return Path(path).is_file() or isinstance(self.at(path), ProductScene)

    def found(self, scenes):
        """Keep the products that a search has read. One beside others of its folder or archive has a path of its own, PATH#NAME."""
        self.known |= {str(scene): of_bands_there(scene) for scene in scenes if isinstance(scene, ProductScene)}


def stamp_of(path, scene):
    """(bytes, modification time in ns) of a file; of a product of all of its files together. scene: of scene_at."""
    if isinstance(scene, ProductScene):
        sizes, times = scene.stamps()
        return sum(sizes or ()), int(max(times or (0,)) * 1e9)
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def read_header(path, scene=None):
    """ImageHeader of a local image or product. scene: of scene_at, where it is known. UserError where it cannot be opened."""
    scene = scene_at(path) if scene is None else scene
    size, mtime_ns = stamp_of(path, scene)
    info = describe(scene)
    with open_raster(scene) as dataset:
        palette = is_palette(dataset)
    found = data_bands(info)
    where = [b - 1 for b in found.bands]
    scale = scale_from_tags(info, where)
    orientation = str(info.tags.get("EXIF_Orientation", UPRIGHT))
    return ImageHeader(
        info.width, info.height, found.bands, np.result_type(*(info.dtypes[b] for b in where)).name,
        tuple(info.descriptions[b] for b in where), int(orientation) if orientation in map(str, TURNS) else UPRIGHT,
        text_of(info.crs) if info.crs else None, tuple(info.transform)[:6], tuple(info.nodatavals[b] for b in where), found.masked, palette,
        scale and scale.divide_by, scale and scale.offset, info.block_shapes[0][1] == info.width, size, mtime_ns,
    )


def find_images(folder, scenes):
    """
    {name: Path} of the images in a folder (not deeper), and of the delivered products in it, sorted. scenes: Scenes, which keeps these.
    UserError where there is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"the folder of images {folder} does not exist; expected one with {', '.join(IMAGE_SUFFIXES[:4])} … files")
    with os.scandir(folder) as entries:
        there = [(e.name, e.is_file()) for e in entries if e.name[0] != "."]
    names = [name for name, is_file in there if is_file and name.lower().endswith(IMAGE_SUFFIXES)]
    others = sorted(name for name, is_file in there if not is_file or name.lower().endswith(ARCHIVES))
    scenes.found(products := products_in(str(folder), others, IMAGE_SUFFIXES))
    names = sorted([*names, *(Path(scene).name for scene in products)])
    if not names:
        raise UserError(f"{folder} holds no image; expected {', '.join(IMAGE_SUFFIXES)} files")
    return {name: folder / name for name in names}


def turned(pixels, orientation):
    """(C, H, W) pixels, upright."""
    swap, rows, columns = TURNS[orientation]
    pixels = pixels.transpose(0, 2, 1) if swap else pixels
    return pixels[:, :: -1 if rows else 1, :: -1 if columns else 1]


def boxes_as_stored(boxes, size, orientation):
    """(N, 4) boxes of an upright image, in pixels of the image as stored. size: (width, height) of the upright one."""
    swap, rows, columns = TURNS[orientation]
    x0, y0, x1, y1 = np.asarray(boxes, np.float64).reshape(-1, 4).T
    x0, x1 = (size[0] - x1, size[0] - x0) if columns else (x0, x1)
    y0, y1 = (size[1] - y1, size[1] - y0) if rows else (y0, y1)
    return np.stack([y0, x0, y1, x1] if swap else [x0, y0, x1, y1], axis=1)


class ImageReader:
    """
    Windows of an image. bands: positions among header.bands, None for all. orientation: the turn that applies.

        with ImageReader(path, header, None, UPRIGHT) as image:
            image.read(x0, y0, x1, y1)         # (C, y1 - y0, x1 - x0), stored values
            image.valid(pixels, x0, y0, x1, y1)  # (y1 - y0, x1 - x0) bool

    Windows have to lie within the image. A file whose blocks are rows is decoded once if windows come row by row: it keeps the last slab.
    """

    def __init__(self, path, header, bands=None, orientation=UPRIGHT):
        self.path, self.header, self.orientation = path, header, orientation
        positions = tuple(range(header.count)) if bands is None else tuple(bands)
        self.positions = positions
        self.indexes = (1,) if header.palette else tuple(header.bands[p] for p in positions)
        self.nodata = (None,) * len(positions) if header.palette else tuple(header.nodata[p] for p in positions)
        self.slab, self.slab_rows, self.whole = None, None, None

    def __enter__(self):
        self.scene = scene_at(self.path)
        with gdal_environment(self.scene):
            self.dataset = opened(self.scene)
            if (self.dataset.width, self.dataset.height) != (self.header.width, self.header.height):
                self.dataset.close()
                raise UserError(f"{self.path} has changed while it was read; run the same command again")
            self.colours = colours_of(self.dataset) if self.header.palette else None
        return self

    def __exit__(self, *exception):
        self.slab = self.whole = None
        self.dataset.close()

    def read(self, x0, y0, x1, y1):
        if self.orientation != UPRIGHT:
            return self.read_whole()[:, y0:y1, x0:x1]
        if self.header.by_rows:
            if self.slab_rows != (y0, y1):
                self.slab, self.slab_rows = None, None
                self.slab = self.stored(Window(0, y0, self.header.width, y1 - y0))
                self.slab_rows = (y0, y1)
            return self.slab[:, :, x0:x1]
        return self.stored(Window(x0, y0, x1 - x0, y1 - y0))

    def read_whole(self):
        if self.whole is None:
            count = self.header.width * self.header.height * len(self.positions) * np.dtype(self.header.dtype).itemsize
            if count > MOST_TURNED:
                raise UserError(f"{self.path} is turned by its EXIF tag and too large for it ({count >> 20} MB); turn the file itself")
            self.whole = turned(self.stored(Window(0, 0, self.header.width, self.header.height)), self.orientation)
        return self.whole

    def stored(self, window):
        with gdal_environment(self.scene):
            pixels = read_bands(self.dataset, self.indexes, window, self.header.dtype)
        if self.colours is None:
            return pixels
        return np.stack([self.colours[pixels[0], p] for p in self.positions])

    def overview(self, longest):
        """((C, h, w) of the whole image, none of its sides longer than `longest`; share of the full size)."""
        width, height = self.header.width, self.header.height
        scale = min(1.0, longest / max(width, height))
        shape = thin_shape(height, width, longest)
        with gdal_environment(self.scene):
            if self.colours is None:
                pixels = read_bands(self.dataset, self.indexes, None, self.header.dtype, out_shape=(len(self.indexes), *shape))
            else:
                indices = self.dataset.read(1, out_shape=shape)
                pixels = np.stack([self.colours[indices, p] for p in self.positions])
        return turned(pixels, self.orientation), scale

    @property
    def always_valid(self):
        """Whether every pixel counts: integers without nodata and without a mask."""
        no_tag = all(value is None or value != value for value in self.nodata)
        return self.header.masked is None and no_tag and np.dtype(self.header.dtype).kind in "iub"

    def valid(self, pixels, x0, y0, x1, y1):
        if self.always_valid:
            return np.ones(pixels.shape[1:], bool)
        valid = valid_pixels(pixels, self.nodata)
        if self.header.masked is not None and self.orientation == UPRIGHT:
            with gdal_environment(self.scene):
                valid &= ~hidden_pixels(self.dataset, self.header.masked, Window(x0, y0, x1 - x0, y1 - y0))
        return valid


def same_bands(headers, names, wanted=None):
    """
    (positions, names of the bands): of each image the same bands. headers, names: of the images. wanted: words of --bands, or None.

    positions: {name: zero-based positions among header.bands}. UserError where images differ.
    """
    if not headers:
        return {}, ()
    first = headers[0]
    if wanted is None:
        for header, name in zip(headers, names, strict=True):
            if header.count != first.count:
                raise UserError(f"{name} has {header.count} bands, {names[0]} has {first.count}; pass --bands with what all of them have")
            for one, other in zip(header.descriptions, first.descriptions, strict=True):
                if one and other and (band_role(one) or one) != (band_role(other) or other):
                    raise UserError(f"{name} has band {one!r} where {names[0]} has {other!r}; pass --bands by name, "
                                    "or by number if they are alike")
        return {name: tuple(range(header.count)) for header, name in zip(headers, names, strict=True)}, band_names(first)
    positions = {}
    for header, name in zip(headers, names, strict=True):
        positions[name] = tuple(position_of(header, name, word) for word in wanted)
    known = band_names(first)
    return positions, tuple(known[p] for p in positions[names[0]])


def position_of(header, name, word):
    """Zero-based position of a band that --bands names by number from 1 or by description."""
    if str(word).strip().isdigit():
        if not 1 <= int(word) <= header.count:
            raise UserError(f"--bands {word}: {name} has bands 1 to {header.count}")
        return int(word) - 1
    names = band_names(header)
    found = alike(names, word)
    if len(found) != 1:
        raise UserError(f"--bands: {name} has {'several bands' if found else 'no band'} {word!r}; it has {', '.join(names)}")
    return found[0]


def band_names(header):
    """Names of an image's bands: as described, red, green and blue of a picture, else by number."""
    if not header.palette and all(header.descriptions):
        return header.descriptions
    usual = {3: ("red", "green", "blue"), 1: ("grey",)}.get(header.count) if header.dtype == "uint8" else None
    return usual or tuple(f"band {n + 1}" for n in range(header.count))
