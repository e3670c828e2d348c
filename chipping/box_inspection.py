"""What is in images with boxes, and in tiles made of them: counts and sizes as text, a choice of them as a contact sheet."""

import random
from pathlib import Path

import numpy as np
from rasterio.errors import RasterioError

from chipping.box_labels import read_labels
from chipping.image_files import ImageReader, band_names
from chipping.tile_files import read_pixels
from chipping.tile_set import read_tile_set
from classes import ClassSet
from pictures.box_overlays import box_colours, box_sheet
from pictures.encoding import save_png
from pictures.tile_pictures import picture, stretch_of
from runtime.errors import RunError, UserError, one_line
from runtime.files import refuse_existing, require_writable
from runtime.npy import BadArray
from runtime.words import in_bytes, plural

MOST_IMAGES, MOST_TILES = 12, 24
OVERVIEW = 1536  # pixels of the longer side of an image that is read for a sheet
DETAIL = 384  # pixels of the part that is shown as it is
SHEET = "boxes.png"


def inspect_boxes(folder, annotations, *, label_map=None, point_size=None, class_field=None, output=None, overwrite=False, pictures=True,
                  seed=0, say=print, note=print, colours=None):
    """
    Describe a folder of images with annotations, and draw a sheet of some. See chipping.box_labels.read_labels. colours: {class: "#rrggbb"}
    in place of the usual ones, or None.
    """
    sheet = Path(output or SHEET) if pictures else None
    if sheet:
        refuse_existing([sheet], overwrite)
    classes, images, counts = read_labels(
        folder, annotations, label_map=label_map, point_size=point_size, class_field=class_field, note=note
    )
    colours = colours_of(classes, colours)
    say(counts.in_words())
    for text in image_lines(images):
        say(text)
    for text in size_lines(classes, [image.boxes for image in images], [image.labels for image in images]):
        say(text)
    if sheet:
        require_writable(sheet.parent)
        save_sheet_of_images(choose(images, MOST_IMAGES, seed), classes, sheet, str(folder), say, colours)
        say(f"contact sheet: {sheet}")


def colours_of(classes, given):
    """((r, g, b), …) of classes. given: {name: "#rrggbb"} or None; UserError for names of no class."""
    return box_colours(classes, ClassSet(tuple(classes)).with_colours(given).given)


def image_lines(images):
    """Lines of text about the images: sizes, bands, type, boxes an image."""
    sizes = sorted({(image.width, image.height) for image in images})
    kinds = sorted({f"{plural(image.header.count, 'band')} {image.header.dtype}" for image in images})
    placed = sum(image.header.crs is not None for image in images)
    named = ", ".join(f"{w}×{h}" for w, h in sizes[:4]) + (f" … {sizes[-1][0]}×{sizes[-1][1]}" if len(sizes) > 4 else "")
    yield f"images: {named} pixels, {' and '.join(kinds)}, {placed} of {len(images)} georeferenced"
    counts = sorted(len(image.boxes) for image in images)
    yield f"boxes an image: {counts[0]} to {counts[-1]}, median {np.median(counts):g}"


def size_lines(classes, boxes, labels):
    """Lines of text about the sides of the boxes of each class. boxes, labels: lists of arrays."""
    boxes, labels = np.concatenate([*boxes, np.empty((0, 4))]), np.concatenate([*labels, np.empty(0, np.int64)])
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    for label, name in enumerate(classes, start=1):
        mine = sides[labels == label]
        if len(mine):
            low, middle, high = np.percentile(mine, (5, 50, 95))
            yield f"  {name}: {plural(len(mine), 'box')}, side {middle:.0f} pixels ({low:.0f} to {high:.0f})"


def choose(images, most, seed):
    """Up to so many, drawn with the seed, those with boxes first, in their order."""
    order = list(range(len(images)))
    random.Random(seed).shuffle(order)
    order.sort(key=lambda k: not len(images[k].boxes))
    return [images[k] for k in sorted(order[:most])]


def save_sheet_of_images(images, classes, sheet, title, say, colours):
    """Draw each image as a whole, and the part of it with most boxes as it is."""
    cases, captions = [], []
    for image in images:
        try:
            cases.append(views_of(image))
            captions.append(f"{image.name}  {image.width} x {image.height}  {plural(len(image.boxes), 'box')}")
        except (RasterioError, UserError) as error:
            say(f"{image.name} cannot be read: {one_line(error)[:160]}")
    if not cases:
        raise RunError("none of the images that were chosen can be read; copy them again")
    save_png(sheet, box_sheet(cases, ["the image", "a part of it"], captions, classes, title, across=2, colours=colours))


def views_of(image):
    """[whole image, detail] as draw_boxes takes them."""
    with ImageReader(image.path, image.header, None, image.orientation) as reader:
        whole, scale = reader.overview(OVERVIEW)
        left, top = busiest_part(image)
        right, bottom = min(left + DETAIL, image.width), min(top + DETAIL, image.height)
        part = reader.read(left, top, right, bottom)
    names = band_names(image.header)
    lows, tops = stretch_of(image.header.dtype, [whole])
    shift = np.array([left, top, left, top])
    inside = part_of(image.boxes, shift, right - left, bottom - top)
    return [
        {"picture": picture(whole, names, lows, tops), "boxes": image.boxes * scale, "labels": image.labels,
         "ignore": image.ignore * scale},
        {"picture": picture(part, names, lows, tops), "boxes": (image.boxes - shift)[inside], "labels": image.labels[inside],
         "ignore": (image.ignore - shift)[part_of(image.ignore, shift, right - left, bottom - top)]},
    ]


def part_of(boxes, shift, width, height):
    """(N,) bool: which boxes meet a part of an image."""
    moved = boxes - shift
    return (moved[:, 0] < width) & (moved[:, 1] < height) & (moved[:, 2] > 0) & (moved[:, 3] > 0)


def busiest_part(image):
    """(left, top) of the part with most centres of boxes; the middle of an image without."""
    if not len(image.boxes):
        return max(0, (image.width - DETAIL) // 2), max(0, (image.height - DETAIL) // 2)
    centres = (image.boxes[:, :2] + image.boxes[:, 2:]) / 2
    cells, counts = np.unique(centres // DETAIL, axis=0, return_counts=True)
    left, top = (cells[counts.argmax()] * DETAIL).astype(int).tolist()
    return max(0, min(left, image.width - DETAIL)), max(0, min(top, image.height - DETAIL))


# --- tiles ---------------------------------------------------------------------------------------------------------------------


def inspect_tiles(folder, description, sheet, seed, say, colours=None):
    """Describe a set of tiles line by line, and draw its contact sheet. description: of chipset.json; sheet: a path or None."""
    tile_set = read_tile_set(folder)
    colours = colours_of(tile_set.classes, colours)
    for text in tile_lines(folder, description, tile_set):
        say(text)
    if sheet:
        require_writable(sheet.parent)
        chosen = choose(tile_set.tiles, MOST_TILES, seed)
        shown, unreadable = read_some(tile_set, chosen)
        if unreadable:
            say(f"{plural(len(unreadable), 'tile')} of those chosen for the sheet can't be read, first {unreadable[0]}")
        if not shown:
            raise RunError(f"no tile of {folder} that was chosen can be read; make them again")
        save_tile_sheet(tile_set, shown, sheet, folder.name, colours)
        say(f"contact sheet: {sheet}")


def tile_lines(folder, description, tile_set):
    """Lines of text about a set of tiles, from its index alone."""
    width, height = tile_set.tile_size
    disk = sum(tile.size for tile in tile_set.tiles)
    settings = description["settings"]
    form = "windows of the images" if tile_set.form == "none" else f"{tile_set.form}, {in_bytes(disk)}"
    yield (f"{folder}: {plural(len(tile_set.tiles), 'tile')} of {width}×{height} pixels, overlap {tile_set.overlap}, "
           f"from {plural(len(tile_set.images), 'image')} ({form})")
    yield f"bands: {', '.join(tile_set.bands)} ({tile_set.dtype}); reflectance = (value + offset) / divisor: " + scale_words(tile_set)
    busy = [tile for tile in tile_set.tiles if len(tile.boxes)]
    regions = sum(len(tile.ignore) for tile in tile_set.tiles)
    yield (f"{len(busy)} tiles with objects, {len(tile_set.tiles) - len(busy)} without (--negatives {settings.get('negatives')}); "
           f"{plural(regions, 'ignore region')}")
    boxes = sum(len(image.boxes) for image in tile_set.images)
    yield f"{boxes} boxes in the images, {sum(len(tile.boxes) for tile in busy)} in the tiles"
    yield from size_lines(tile_set.classes, [image.boxes for image in tile_set.images], [image.labels for image in tile_set.images])


def scale_words(tile_set):
    pairs = sorted(set(zip(tile_set.offset, tile_set.divide_by, strict=True)))
    return "; ".join(f"offset {offset:g}, divisor {divisor:g}" for offset, divisor in pairs)


def read_some(tile_set, tiles):
    """([(Tile, pixels)], names of those that cannot be read)."""
    shown, unreadable = [], []
    for tile in tiles:
        try:
            if tile.file is not None:
                pixels = read_pixels(Path(tile_set.folder) / tile.file, tile_set.shape, np.dtype(tile_set.dtype))
            else:
                with tile_set.reader(tile.image) as reader:
                    pixels, _ = tile_set.window(reader, tile.image, tile.x0, tile.y0, *tile_set.tile_size)
            shown.append((tile, pixels))
        except (BadArray, RasterioError, UserError):
            unreadable.append(tile.file or f"{tile_set.images[tile.image].name} at {tile.x0}, {tile.y0}")
    return shown, unreadable


def save_tile_sheet(tile_set, shown, sheet, title, colours):
    lows, tops = stretch_of(tile_set.dtype, [pixels for _, pixels in shown])
    cases = [
        [{"picture": picture(pixels, tile_set.bands, lows, tops), "boxes": tile.boxes, "labels": tile.labels, "ignore": tile.ignore}]
        for tile, pixels in shown
    ]
    captions = [f"{tile_set.images[tile.image].name}  x {tile.x0}  y {tile.y0}" for tile, _ in shown]
    save_png(sheet, box_sheet(cases, ["tile"], captions, tile_set.classes, title, across=4, colours=colours))
