"""
Cuts a scene into patches.

A row of windows is read as one strip, so that every block is decoded about once. Class pixels, sums and footprint of each patch become its
line in the manifest, so that no second pass over the pixels is needed.
"""

import contextlib
import functools
import io
from dataclasses import dataclass

import numpy as np
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.windows import Window

from chipping.cloud_masks import CloudRule, cloudy_pixels
from chipping.labels import read_aligned, read_labels, read_polygons, to_classes, to_values
from chipping.sources import stamps_of
from constants import IGNORE
from nets.model_config import answers_pixels, answers_values
from raster.hidden import hidden_pixels
from raster.nodata import valid_on_dates
from raster.source import open_raster, read_bands
from raster.stacked import parts_of
from raster.windows import WindowGrid
from runtime.files import atomic_path
from vectors.footprint import footprint, pixel_corners, window_transform
from vectors.placing import NOTHING, burn, place_polygons

STRIP_BYTES = 64 << 20  # pixels of one window row that are held at once; wider scenes are read in spans of columns
STORED_AS_THEY_ARE = ("uint8", "uint16", "int16")


@dataclass(frozen=True)
class Recipe:
    """
    How a scene is cut into patches.

    size, stride: pixels. layers: names of the mask's planes; classes: how many each has. divide_by, offset: one a band. max_cloud: share of
    cloudy pixels above which a window is left out. ignore_clouds: cloud classes whose pixels become 255; all that is
    cloudy with a cloud_rule, which says what is (None: 1 to 3). min_valid: share of valid pixels
    below which a window is left out (one without any always is). polygons, aoi: vector files. task: what is learned; of a regression
    the planes are values, float32 with NaN for ignore; of labels of whole patches there are none.
    """

    size: int
    stride: int
    layers: tuple
    classes: tuple
    divide_by: tuple
    offset: tuple
    label_map: tuple = ()
    max_cloud: float = 0.5
    ignore_clouds: tuple = ()
    cloud_rule: CloudRule | None = None
    min_valid: float = 0.0
    polygons: tuple = ()
    class_field: str | None = None
    class_names: tuple = ()
    aoi: str | None = None
    task: str = "segmentation"

    @property
    def has_values(self):
        return answers_values(self.task)

    @property
    def has_masks(self):
        return answers_pixels(self.task)

    def empty(self, height, width):
        """(L, height, width) labels that say nothing."""
        ignore, kind = (np.nan, np.float32) if self.has_values else (IGNORE, np.uint8)
        return np.full((len(self.layers), height, width), ignore, kind)


def grid_of(scene, recipe):
    """WindowGrid of a scene. The manifest has its windows row by row."""
    return WindowGrid(scene.height, scene.width, recipe.size, recipe.stride)


# --- one strip -----------------------------------------------------------------------------------------------------------------


class SceneReader:
    """A scene's open files, which are read in strips."""

    def __init__(self, scene, recipe):
        self.scene, self.recipe = scene, recipe
        self.files = contextlib.ExitStack()
        self.image = self.files.enter_context(open_raster(scene.image))
        self.masks = {layer: self.files.enter_context(open_raster(mask.path)) for layer, mask in scene.masks.items()}
        self.clouds = self.files.enter_context(open_raster(scene.clouds.path)) if scene.clouds else None
        self.shapes = shapes_for(recipe.polygons, recipe.class_field, recipe.class_names, recipe.label_map, scene)
        self.area = shapes_for((recipe.aoi,), None, (), (), scene) if recipe.aoi else None

    def close(self):
        self.files.close()

    def strip(self, col, row, width, height):
        """
        A part of the scene.

        Returns (pixels (C, h, w) in a type that holds all bands, invalid (h, w) bool or None where all are valid, masks (L, h, w) uint8, or
        float32 of values, cloudy (h, w) bool or None, inside (h, w) bool or None: within the area of interest).
        """
        scene, recipe = self.scene, self.recipe
        window = Window(col, row, width, height)
        with reading(scene.image):
            pixels = read_bands(self.image, [b + 1 for b in scene.bands], window, scene.dtype)
            invalid = self.invalid(pixels, window)
        if any(scene.shift):
            pixels = pixels.astype(np.result_type(pixels, np.int32)) + np.array(scene.shift, np.int32)[:, None, None]
        masks = recipe.empty(height, width)
        ignore = masks.flat[0]
        for plane, layer, count in zip(masks, recipe.layers, recipe.classes, strict=True):
            if layer in self.masks:
                values, outside = self.labels(self.masks[layer], scene.masks[layer], window)
                mask = scene.masks[layer]
                plane[:] = (to_values(values, mask.nodata, recipe.label_map, mask.path) if recipe.has_values
                            else to_classes(values, count, mask.nodata, recipe.label_map, mask.path))
                if outside is not None:
                    plane[outside] = ignore
            elif recipe.polygons:
                plane[:] = burn(self.shapes, scene.transform, (col, row, width, height))
        cloudy = None
        if self.clouds is not None:
            cloudy = np.zeros((height, width), bool)
            for part in parts_of(self.clouds):
                values, outside = self.labels(part, scene.clouds, window)
                found = cloudy_pixels(values, recipe.cloud_rule, scene.clouds.path, scene.clouds.nodata)
                if recipe.cloud_rule is not None:  # 0 may be cloud, which is also what lies beyond the mask
                    for empty in (outside, invalid):
                        found = found if empty is None else found & ~empty
                if recipe.ignore_clouds:
                    masks[:, np.isin(values, recipe.ignore_clouds) if recipe.cloud_rule is None else found] = ignore
                cloudy |= found
        inside = None
        if self.area is not None:
            inside = burn(self.area, scene.transform, (col, row, width, height), value=1) > 0
            masks[:, ~inside] = ignore
        if invalid is not None:
            masks[:, invalid] = ignore
        return pixels, invalid, masks, cloudy, inside

    def labels(self, dataset, mask, window):
        """(values, outside or None) of a mask on the image's grid. outside: beyond the mask, or hidden by the mask's own mask."""
        with reading(mask.path):
            if mask.aligned:
                box = (window.col_off, window.row_off, window.width, window.height)
                return read_aligned(dataset, self.scene.crs, self.scene.transform, box, mask.hides)
            return read_labels(dataset, window, mask.hides)

    def invalid(self, pixels, window):
        """(h, w) bool where any band is nodata, NaN or infinite, or the file's own mask hides the pixel. None where no pixel is."""
        valid = valid_on_dates(pixels, self.scene.nodata, self.scene.zero_is_nodata, max(1, len(self.scene.dates)))
        hidden = hidden_pixels(self.image, self.scene.masked, window)
        if hidden is not None:
            valid &= ~hidden
        return None if valid.all() else ~valid


@contextlib.contextmanager
def reading(path):
    """Errors of reading get the attribute `unreadable`, the path: GDAL's messages name the file without its folder, or not at all."""
    try:
        yield
    except (RasterioIOError, RasterioError) as error:
        error.unreadable = getattr(error, "unreadable", path)  # of several dates the file is known
        raise


@functools.lru_cache(maxsize=8)
def load_polygons(paths, class_field, class_names, label_map):
    return read_polygons(paths, class_field, class_names, label_map)


def shapes_for(paths, class_field, class_names, label_map, scene):
    """vectors.placing.Placed: polygons of vector files in a scene's CRS."""
    if not paths:
        return NOTHING
    polygons = load_polygons(tuple(paths), class_field, tuple(class_names), tuple(label_map))
    return place_polygons(polygons, scene.crs, scene.transform, scene.width, scene.height)


# --- one patch -----------------------------------------------------------------------------------------------------------------


def compact(pixels, invalid, offset):
    """
    Pixels in the smallest type that keeps them: uint8, uint16, int16, or float32.

    pixels: (C, H, W) of any real type. invalid: (H, W) bool or None; these pixels become the value that means reflectance 0 (−offset), or
    the nearest that the type can hold. offset: (C,). Returns (C, H, W).
    """
    if pixels.dtype.name not in STORED_AS_THEY_ARE:
        kept = pixels if invalid is None else np.where(invalid, 0, pixels)
        pixels = pixels.astype(smallest_type(kept)) if invalid is None else kept.astype(smallest_type(kept))
    if invalid is None:
        return np.ascontiguousarray(pixels)
    pixels = np.array(pixels, order="C")
    fill = -np.asarray(offset, float)
    if pixels.dtype.kind in "iu":
        limits = np.iinfo(pixels.dtype)
        fill = np.clip(np.rint(fill), limits.min, limits.max)
    pixels[:, invalid] = fill.astype(pixels.dtype)[:, None]
    return pixels


def smallest_type(values):
    """uint16 or int16 where all values are whole and fit, else float32. NaN and infinity must be gone."""
    if values.size == 0:
        return np.float32
    if values.dtype.kind == "f":
        # The first row shows most imagery with fractions, which saves the look at all pixels.
        if (values[:, 0] != np.rint(values[:, 0])).any() or (values != np.rint(values)).any():
            return np.float32
    low, high = values.min(), values.max()
    if 0 <= low and high <= 65535:
        return np.uint16
    return np.int16 if -32768 <= low and high <= 32767 else np.float32


def pad(array, size, value):
    """(…, h, w) → (…, size, size), filled to the right and below."""
    height, width = array.shape[-2:]
    padded = np.full((*array.shape[:-2], size, size), value, array.dtype)
    padded[..., :height, :width] = array
    return padded


def sums(pixels, invalid):
    """(sum, sum of squares) of each band over valid pixels in stored units: exact integers for integer types, floats otherwise."""
    flat = pixels.reshape(len(pixels), -1)
    if invalid is not None:
        flat = flat[:, ~invalid.ravel()]
    if flat.dtype.kind == "f":
        flat = flat.astype(np.float64)
        return flat.sum(axis=1).tolist(), np.einsum("cp,cp->c", flat, flat).tolist()
    if flat.shape[1] * max(abs(limit) for limit in (np.iinfo(flat.dtype).min, np.iinfo(flat.dtype).max)) ** 2 < 2**53:
        # Every partial sum is a whole number that float64 holds exactly, and floats are several times as fast as integers.
        total, squares, exact = [], [], np.empty(flat.shape[1])
        for band in flat:  # one after the other, so that the floats stay in the processor's cache
            np.copyto(exact, band)
            total.append(int(exact.sum()))
            squares.append(int(np.dot(exact, exact)))
        return total, squares
    flat = flat.astype(np.int64)
    return [int(band.sum()) for band in flat], [int(np.dot(band, band)) for band in flat]


def class_pixels(plane, count):
    """[n_0, n_1, …] of a (H, W) mask; 255 is not counted."""
    if count > 16:
        return np.bincount(plane.ravel(), minlength=256)[:count].tolist()
    return [int(np.count_nonzero(plane == c)) for c in range(count)]


def labelled(plane, count, scene, recipe):
    """What "class_pixels" states: pixels of each class; of values the valid ones; of a whole patch 1 for each class that it has."""
    if not recipe.has_masks:
        return [int(c in scene.labels) for c in range(count)]
    return [int(np.isfinite(plane).sum())] if recipe.has_values else class_pixels(plane, count)


def value_sums(plane):
    """[sum, sum of squares, least, most] of the valid values of a plane; zeros where there are none."""
    values = plane[np.isfinite(plane)].astype(np.float64)
    return [float(values.sum()), float(np.square(values).sum()), float(values.min()), float(values.max())] if values.size else [0.0] * 4


@functools.lru_cache(maxsize=32)
def npy_header(dtype, shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def write_npy(path, array):
    """Write an array as .npy, atomically. No fsync: a patch lost in a power cut is cut again."""
    with atomic_path(path, sync=False) as temporary, open(temporary, "wb") as file:
        file.write(npy_header(array.dtype.str, array.shape))
        file.write(array.data)


# --- several rows of windows ---------------------------------------------------------------------------------------------------


def spans(columns, size, limit):
    """Window columns in groups that span at most `limit` pixels (a group has one column at least)."""
    runs = [[]]
    for col in columns:
        if runs[-1] and col + size - runs[-1][0] > limit:
            runs.append([])
        runs[-1].append(col)
    return runs


def cut_rows(reader, rows, folder):
    """
    Cut the rows of windows that start at `rows` and write the patches below `folder`; None writes nothing.

    Yields for each window, row by row, its manifest line (with "file") or its line of skipped.jsonl (with "reason").
    """
    scene, size, columns = reader.scene, reader.recipe.size, grid_of(reader.scene, reader.recipe).columns
    limit = max(size, STRIP_BYTES // (len(scene.bands) * np.dtype(scene.dtype).itemsize * size))
    for row in rows:
        height = min(size, scene.height - row)
        ground = footprints(scene, columns, row, size)
        for run in spans(columns, size, limit):
            left, right = run[0], min(run[-1] + size, scene.width)
            try:
                strip = reader.strip(left, row, right - left, height)
            except (RasterioIOError, RasterioError):
                strip = None  # reading window by window shows which of them it is
            for col in run:
                width = min(size, scene.width - col)
                try:
                    part = window_of(strip, col - left, width) if strip else reader.strip(col, row, width, height)
                except (RasterioIOError, RasterioError) as error:
                    cause = {"source": unreadable_file(error, scene), "detail": " ".join(str(error).split())[:200]}
                    yield skip(scene, (col, row, width, height), "unreadable", **cause)
                    continue
                yield cut_window(reader, col, row, part, ground[col], folder)


def unreadable_file(error, scene):
    """Path of the scene's file that an error is about: an error of `reading`, or of open_raster, whose message begins with the path."""
    files = [scene.image, *(m.path for m in scene.masks.values()), *([scene.clouds.path] if scene.clouds else [])]
    opened = next((f for f in files if str(error).startswith(f"{f} ")), scene.image)
    return getattr(error, "unreadable", opened)


def footprints(scene, columns, row, size):
    """{column: [[lon, lat] × 4] or None} of a window row: one transformation for all of them."""
    if scene.crs is None:
        return dict.fromkeys(columns)
    height = min(size, scene.height - row)
    corners = [pixel_corners(scene.transform, (c, row, min(size, scene.width - c), height)) for c in columns]
    ground = footprint(scene.crs, np.concatenate(corners))
    return {c: ground[4 * i : 4 * i + 4] if ground else None for i, c in enumerate(columns)}


def dates_and_place(scene, window):
    """{"dates": ISO days, "place": [lon, lat] of the middle of a window, None without a CRS} of a scene of several dates."""
    col, row, width, height = window
    middle = pixel_corners(scene.transform, (col + width / 2, row + height / 2, 0, 0))[:1]
    place = footprint(scene.crs, middle) if scene.crs is not None else None
    return {"dates": list(scene.dates), "place": place[0] if place else None}


def window_of(strip, left, width):
    """The columns left … left + width of everything in a strip."""
    return tuple(None if part is None else part[..., left : left + width] for part in strip)


def skip(scene, window, reason, **more):
    """The line of skipped.jsonl of a window (column, row, width, height)."""
    where = {"scene": scene.name, "split": scene.split, "window": list(window)}
    return {**where, "reason": reason, **more, "stamps": stamps_of(scene.source, scene.label_sources, scene.cloud_source)}


def cut_window(reader, col, row, part, ground, folder):
    """The line of one window, after its files are written. part: of SceneReader.strip."""
    scene, recipe = reader.scene, reader.recipe
    pixels, invalid, masks, cloudy, inside = part
    height, width = pixels.shape[1:]
    skipped = functools.partial(skip, scene, (col, row, width, height))
    if inside is not None and not inside.any():
        return skipped("outside the area")
    valid = height * width - (int(np.count_nonzero(invalid)) if invalid is not None else 0)
    fraction = valid / (height * width)
    if valid == 0:
        return skipped("no valid pixel")
    if fraction < recipe.min_valid:
        return skipped("too few valid pixels", valid_fraction=round(fraction, 6))
    cover = float(np.count_nonzero(cloudy)) / (height * width) if cloudy is not None else None
    if cover is not None and cover > recipe.max_cloud:
        return skipped("clouds", cloud_cover=round(cover, 6))
    counts = {name: labelled(plane, n, scene, recipe) for name, plane, n in zip(recipe.layers, masks, recipe.classes, strict=True)}
    if recipe.has_masks and not any(map(any, counts.values())):
        return skipped("nothing labelled")
    values = {"target_sums": dict(zip(recipe.layers, map(value_sums, masks), strict=True))} if recipe.has_values else {}
    if invalid is not None and valid == height * width:
        invalid = None
    image = compact(pixels, invalid, recipe.offset)
    total, squares = sums(image, invalid)
    if (height, width) != (recipe.size, recipe.size):
        beyond = pad(np.zeros((height, width), bool), recipe.size, True)
        image = compact(pad(image, recipe.size, 0), beyond, recipe.offset)
        masks = pad(masks, recipe.size, np.nan if recipe.has_values else IGNORE)
    stem = f"{scene.split}/{scene.name}_r{row}_c{col}"
    if folder is not None:
        write_npy(folder / f"{stem}_image.npy", image)
        if recipe.has_masks:
            write_npy(folder / f"{stem}_mask.npy", np.ascontiguousarray(masks))
    return {
        "file": f"{stem}_image.npy",
        **({"mask": f"{stem}_mask.npy"} if recipe.has_masks else {}),
        "split": scene.split,
        "scene": scene.name,
        "event": scene.event,
        "source": scene.source,
        "label_sources": scene.label_sources,
        "cloud_source": scene.cloud_source,
        "window": [col, row, width, height],
        "scene_size": [scene.width, scene.height],
        "crs": scene.crs,
        "transform": window_transform(scene.transform, col, row),
        "footprint": ground,
        **(dates_and_place(scene, (col, row, width, height)) if scene.dates else {}),
        "valid_fraction": round(fraction, 6),
        "layers": [layer for layer in recipe.layers if layer in scene.masks or recipe.polygons or not recipe.has_masks],
        "class_pixels": counts,
        **values,
        "cloud_cover": round(cover, 6) if cover is not None else None,
        "dtype": image.dtype.name,
        "band_sum": total,
        "band_sum_squares": squares,
        "valid_pixels": valid,
    }
