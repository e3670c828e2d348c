"""
Cutting scenes into patches: which windows, which are left out, what is stored.

A window row is read as one strip, so that every block is decoded about once, and cut into patches. Work is dealt out in runs of window
rows; results come back in the order of one process, whatever the number of workers, and the parent alone writes the manifest. So the bytes
of a patch set depend on its settings and sources only, and a run that was killed goes on where its manifest ends.
"""

import collections
import contextlib
import functools
import json
import math
import os
import shutil
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.windows import Window

from chipping.chipset import DESCRIPTION, ChipSetWriter
from chipping.labels import burn, polygons_for, read_aligned, read_polygons, to_classes
from constants import IGNORE
from raster.footprint import footprint, pixel_corners, window_transform
from raster.source import open_raster
from raster.windows import starts
from runtime.errors import RunError, UserError
from runtime.files import atomic_path, remove_leftovers

SKIPPED = "skipped.jsonl"
STRIP_BYTES = 64 << 20  # pixels of one window row that are held at once; wider scenes are read in spans of columns
BLOCKS_A_TASK = 6  # rows of blocks that a task reaches over
STORED_AS_THEY_ARE = ("uint8", "uint16", "int16")


@dataclass(frozen=True)
class Recipe:
    """
    How scenes become patches.

    size, stride: pixels. layers: names of the mask's planes; classes: how many each has. divide_by, offset: one a band. max_cloud: share of
    cloudy pixels above which a window is left out. ignore_clouds: cloud classes whose pixels become 255. min_valid: share of valid pixels
    below which a window is left out (one without any always is). zero_is_nodata: pixels that are 0 in every band are no data. polygons,
    aoi: GeoJSON files.
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
    min_valid: float = 0.0
    zero_is_nodata: bool = False
    polygons: tuple = ()
    class_field: str | None = None
    class_names: tuple = ()
    aoi: str | None = None


@dataclass
class Tally:
    """What has been made and left out: patches and scenes a split, windows a reason, windows a file that could not
    be read (0: not even opened)."""

    patches: collections.Counter = field(default_factory=collections.Counter)
    scenes: dict = field(default_factory=lambda: collections.defaultdict(set))
    skipped: collections.Counter = field(default_factory=collections.Counter)
    unreadable: collections.Counter = field(default_factory=collections.Counter)
    valid_pixels: int = 0
    band_sum: list = field(default_factory=list)

    def count(self, line):
        if "file" in line:
            self.patches[line["split"]] += 1
            self.scenes[line["split"]].add(line["scene"])
            self.valid_pixels += line["valid_pixels"]
            self.band_sum = [a + b for a, b in zip(self.band_sum or [0] * len(line["band_sum"]), line["band_sum"], strict=True)]
        else:
            self.skipped[line["reason"]] += 1
            if line["reason"] == "unreadable":
                self.unreadable[line["source"]] += 1


# --- one strip -----------------------------------------------------------------------------------------------------------------


class SceneReader:
    """A scene's open files, and the strips of pixels, labels and clouds that are cut from them."""

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

        Returns (pixels (C, h, w) in the file's type, invalid (h, w) bool or None where all are valid, masks (L, h, w) uint8,
        cloudy (h, w) bool or None, inside (h, w) bool or None: within the area of interest).
        """
        scene, recipe = self.scene, self.recipe
        window = Window(col, row, width, height)
        pixels = self.image.read([b + 1 for b in scene.bands], window=window, out_dtype=scene.dtype)
        invalid = self.invalid(pixels, window)
        if any(scene.shift):
            pixels = pixels.astype(np.result_type(pixels, np.int32)) + np.array(scene.shift, np.int32)[:, None, None]
        masks = np.full((len(recipe.layers), height, width), IGNORE, np.uint8)
        for plane, layer, count in zip(masks, recipe.layers, recipe.classes, strict=True):
            if layer in self.masks:
                values, outside = self.labels(self.masks[layer], scene.masks[layer], window)
                plane[:] = to_classes(values, count, scene.masks[layer].nodata, recipe.label_map, scene.masks[layer].path)
                if outside is not None:
                    plane[outside] = IGNORE
            elif recipe.polygons:
                plane[:] = burn(self.shapes, scene.transform, (col, row, width, height))
        cloudy = None
        if self.clouds is not None:
            values, outside = self.labels(self.clouds, scene.clouds, window)
            cloudy = (values > 0) & (values != IGNORE)
            if outside is not None:
                cloudy &= ~outside
            if recipe.ignore_clouds:
                masks[:, np.isin(values, recipe.ignore_clouds)] = IGNORE
        inside = None
        if self.area is not None:
            inside = burn(self.area, scene.transform, (col, row, width, height), value=1) > 0
            masks[:, ~inside] = IGNORE
        if invalid is not None:
            masks[:, invalid] = IGNORE
        return pixels, invalid, masks, cloudy, inside

    def labels(self, dataset, mask, window):
        if mask.aligned:
            box = (window.col_off, window.row_off, window.width, window.height)
            return read_aligned(dataset, self.scene.crs, self.scene.transform, box)
        return dataset.read(1, window=window), None

    def invalid(self, pixels, window):
        """(h, w) bool where any band is nodata, NaN or infinite, or the file's own mask hides the pixel. None where nothing is."""
        found = None
        if pixels.dtype.kind == "f":
            found = ~np.isfinite(pixels).all(axis=0)
        if self.scene.nodata is not None:
            here = (pixels == pixels.dtype.type(self.scene.nodata)).any(axis=0)  # as a float it would make floats of all pixels
            found = here if found is None else found | here
        if self.recipe.zero_is_nodata:
            here = ~pixels.any(axis=0)
            found = here if found is None else found | here
        if self.scene.alpha:
            here = self.image.dataset_mask(window=window) == 0
            found = here if found is None else found | here
        return found if found is not None and found.any() else None


@functools.lru_cache(maxsize=8)
def load_polygons(paths, class_field, class_names, label_map):
    return read_polygons(paths, class_field, class_names, label_map)


def shapes_for(paths, class_field, class_names, label_map, scene):
    """Polygons of GeoJSON files in a scene's CRS: ((geometry, class, bounds), …)."""
    if not paths:
        return ()
    polygons = load_polygons(tuple(paths), class_field, tuple(class_names), tuple(label_map))
    return polygons_for(polygons, scene.crs, scene.transform, scene.width, scene.height)


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
        # One row first: imagery that is not whole shows it there, and a full look at every patch would be wasted on it.
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
        # Every partial sum is a whole number that float64 holds exactly, and its dot product is several times as quick as integers.
        ones = np.ones(flat.shape[1])
        bands = [band.astype(np.float64) for band in flat]
        return [int(np.dot(band, ones)) for band in bands], [int(np.dot(band, band)) for band in bands]
    flat = flat.astype(np.int64)
    return [int(band.sum()) for band in flat], [int(np.dot(band, band)) for band in flat]


def class_pixels(plane, count):
    """[n_0, n_1, …] of a (H, W) mask; 255 is not counted."""
    if count > 16:
        return np.bincount(plane.ravel(), minlength=256)[:count].tolist()
    return [int(np.count_nonzero(plane == c)) for c in range(count)]


@functools.lru_cache(maxsize=32)
def npy_header(dtype, shape):
    import io

    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def write_npy(path, array):
    """An array as .npy under its final name, whole or not at all. No fsync: a chip lost in a power cut is cut again."""
    with atomic_path(path, sync=False) as temporary, open(temporary, "wb") as file:
        file.write(npy_header(array.dtype.str, array.shape))
        file.write(array.data)


# --- one run of window rows ----------------------------------------------------------------------------------------------------


def spans(columns, size, limit):
    """Columns in runs whose pixels reach over no more than `limit` columns (a run has one column at least)."""
    runs = [[]]
    for col in columns:
        if runs[-1] and col + size - runs[-1][0] > limit:
            runs.append([])
        runs[-1].append(col)
    return runs


def cut_rows(reader, rows, folder):
    """
    Cut the window rows that start at `rows`; write the patches below `folder` (nothing is written where it is None).

    Yields one manifest line (with "file") or one line of skipped.jsonl (with "reason") a window, row by row.
    """
    scene, size, stride = reader.scene, reader.recipe.size, reader.recipe.stride
    columns = starts(scene.width, size, stride)
    limit = max(size, STRIP_BYTES // (len(scene.bands) * np.dtype(scene.dtype).itemsize * size))
    for row in rows:
        height = min(size, scene.height - row)
        ground = footprints(scene, columns, row, size)
        for run in spans(columns, size, limit):
            left, right = run[0], min(run[-1] + size, scene.width)
            try:
                strip = reader.strip(left, row, right - left, height)
            except (RasterioIOError, RasterioError):
                strip = None  # somewhere in it; each window on its own shows where
            for col in run:
                width = min(size, scene.width - col)
                try:
                    part = window_of(strip, col - left, width) if strip else reader.strip(col, row, width, height)
                except (RasterioIOError, RasterioError) as error:
                    cause = {"source": unreadable_file(error, scene), "detail": " ".join(str(error).split())[:200]}
                    yield skip(scene, col, row, width, height, "unreadable", **cause)
                    continue
                yield cut_window(reader, col, row, part, ground[col], folder)


def unreadable_file(error, scene):
    """The file among a scene's that an error speaks of, else the image."""
    files = [scene.image, *(m.path for m in scene.masks.values()), *([scene.clouds.path] if scene.clouds else [])]
    text = f"{error} {error.__cause__}"
    return next((f for f in files if os.path.basename(f) in text), scene.image)


def footprints(scene, columns, row, size):
    """{column: [[lon, lat] × 4] or None} of a window row: one transformation for all of them."""
    if scene.crs is None:
        return dict.fromkeys(columns)
    height = min(size, scene.height - row)
    corners = [pixel_corners(scene.transform, (c, row, min(size, scene.width - c), height)) for c in columns]
    ground = footprint(scene.crs, np.concatenate(corners))
    return {c: ground[4 * i : 4 * i + 4] if ground else None for i, c in enumerate(columns)}


def window_of(strip, left, width):
    """The columns left … left + width of everything in a strip."""
    return tuple(None if part is None else part[..., left : left + width] for part in strip)


def skip(scene, col, row, width, height, reason, **more):
    return {"scene": scene.name, "split": scene.split, "window": [col, row, width, height], "reason": reason, **more}


def cut_window(reader, col, row, part, ground, folder):
    """One window: its line, after its files are in place."""
    scene, recipe = reader.scene, reader.recipe
    pixels, invalid, masks, cloudy, inside = part
    height, width = pixels.shape[1:]
    skipped = functools.partial(skip, scene, col, row, width, height)
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
    counts = {name: class_pixels(plane, n) for name, plane, n in zip(recipe.layers, masks, recipe.classes, strict=True)}
    if not any(map(any, counts.values())):
        return skipped("nothing labelled")
    if invalid is not None and valid == height * width:
        invalid = None
    image = compact(pixels, invalid, recipe.offset)
    total, squares = sums(image, invalid)
    if (height, width) != (recipe.size, recipe.size):
        beyond = pad(np.zeros((height, width), bool), recipe.size, True)
        image = compact(pad(image, recipe.size, 0), beyond, recipe.offset)
        masks = pad(masks, recipe.size, IGNORE)
    stem = f"{scene.split}/{scene.name}_r{row}_c{col}"
    if folder is not None:
        write_npy(folder / f"{stem}_image.npy", image)
        write_npy(folder / f"{stem}_mask.npy", np.ascontiguousarray(masks))
    return {
        "file": f"{stem}_image.npy",
        "mask": f"{stem}_mask.npy",
        "split": scene.split,
        "scene": scene.name,
        "event": scene.event,
        "source": scene.source,
        "label_sources": {layer: mask.source for layer, mask in scene.masks.items()},
        "window": [col, row, width, height],
        "scene_size": [scene.width, scene.height],
        "crs": scene.crs,
        "transform": window_transform(scene.transform, col, row),
        "footprint": ground,
        "valid_fraction": round(fraction, 6),
        "layers": [layer for layer in recipe.layers if layer in scene.masks or recipe.polygons],
        "class_pixels": counts,
        "cloud_cover": round(cover, 6) if cover is not None else None,
        "dtype": image.dtype.name,
        "band_sum": total,
        "band_sum_squares": squares,
        "valid_pixels": valid,
    }


# --- all of it -----------------------------------------------------------------------------------------------------------------


def rows_of(scene, recipe):
    return starts(scene.height, recipe.size, recipe.stride)


def count_windows(scene, recipe):
    return len(rows_of(scene, recipe)) * len(starts(scene.width, recipe.size, recipe.stride))


def deal(scenes, recipe, workers, done):
    """
    [(scene's number, (first rows of windows))] in the order of the manifest.

    done: {scene's name: windows that need no cutting any more}; they are the first ones. Every task begins with blocks that the task before
    it has decoded in another process, so tasks reach over several rows of blocks. Few scenes are dealt out in a multiple of `workers`, so
    that all are busy to the end.
    """
    tasks = []
    for number, scene in enumerate(scenes):
        rows = rows_of(scene, recipe)
        rows = rows[done.get(scene.name, 0) // len(starts(scene.width, recipe.size, recipe.stride)) :]
        length = max(4, math.ceil(BLOCKS_A_TASK * scene.block_height / recipe.stride))
        if rows and len(scenes) < 4 * workers:
            length = math.ceil(len(rows) / (workers * max(1, round(len(rows) / (length * workers)))))
        tasks += [(number, tuple(rows[i : i + length])) for i in range(0, len(rows), length)]
    return tasks


class Cutter:
    """Cuts tasks one after the other, and keeps a scene's files open between them. folder: None cuts without writing."""

    def __init__(self, scenes, recipe, folder):
        self.scenes, self.recipe, self.folder = scenes, recipe, folder
        self.number, self.reader = None, None

    def lines(self, task):
        """The lines of a task, as they come."""
        number, rows = task
        if number != self.number:
            self.close()
            try:
                self.reader = SceneReader(self.scenes[number], self.recipe)
            except UserError as error:
                if not readable_settings(error):
                    raise
                yield from self.unopened(number, rows, error)
                return
            self.number = number
        yield from cut_rows(self.reader, rows, self.folder)

    def unopened(self, number, rows, error):
        """Every window of a scene whose files were there when the headers were read, and can't be opened now."""
        scene, size = self.scenes[number], self.recipe.size
        for row in rows:
            for col in starts(scene.width, size, self.recipe.stride):
                box = (col, row, min(size, scene.width - col), min(size, scene.height - row))
                yield skip(scene, *box, "unreadable", source=unreadable_file(error, scene), detail=str(error)[:200])

    def close(self):
        if self.reader is not None:
            self.reader.close()
        self.number, self.reader = None, None


def readable_settings(error):
    """Is an error of SceneReader about a raster that can't be opened (and not about the labels' content)?"""
    return error.__cause__ is not None and isinstance(error.__cause__, (RasterioIOError, RasterioError))


worker_cutter = None  # in a worker process: its Cutter


def start_worker(scenes, recipe, folder):
    """In a worker: ready to cut. Ctrl-C is the parent's business; a parent that was killed takes its workers along."""
    import multiprocessing

    global worker_cutter
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow():
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    worker_cutter = Cutter(scenes, recipe, folder)


def work(task):
    return list(worker_cutter.lines(task))


def cut_in_order(scenes, recipe, folder, tasks, workers):
    """The lines of all tasks, in order. No pool for one worker."""
    if workers == 1 or len(tasks) < 2:
        cutter = Cutter(scenes, recipe, folder)
        try:
            for task in tasks:
                yield from cutter.lines(task)
        finally:
            cutter.close()
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, start_worker, (scenes, recipe, folder))
    waiting, coming = collections.deque(), iter(tasks)
    try:
        while True:
            # Two tasks a worker on their way: nobody waits, and results don't pile up behind a slow one.
            while len(waiting) < 2 * workers and (task := next(coming, None)) is not None:
                waiting.append(pool.submit(work, task))
            if not waiting:
                break
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RunError("a worker was killed, perhaps for memory; run the same command again with fewer --workers, it goes on") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def make_patches(scenes, recipe, description, folder, *, workers=1, overwrite=False, strict=False, broken=None, progress=lambda n: None):
    """
    Cut `scenes` (sorted by name) into `folder` as a chip set, or go on with what an interrupted run has left there.

    description: chipset.json's content. broken: {scene: why} of images that could not be opened. progress(n) hears of n windows done.
    Returns a Tally. RunError where nothing could be cut, or with `strict` at the first window that can't be read.
    """
    folder, tally = Path(folder), Tally()
    ours_before = (folder / DESCRIPTION).exists()
    with ChipSetWriter(folder, description, overwrite=overwrite) as chipset:
        fresh = not chipset.lines
        for split in sorted({s.split for s in scenes}):
            (folder / split).mkdir(exist_ok=True)
            remove_leftovers(folder / split)
        remove_leftovers(folder)
        if fresh and ours_before and overwrite:
            remove_strays(folder)
        refuse_changed_sources(chipset.lines, scenes, folder)
        with SkipLog(folder / SKIPPED, fresh and overwrite) as skips:
            done = keep_finished(chipset, skips, scenes, recipe)
            for line in (*chipset.lines, *skips.lines):
                tally.count(line)
            for _, why in sorted((broken or {}).items()):
                tally.unreadable[why] = 0
            progress(sum(done.values()))
            again = {s.name: done.get(s.name, 0) % len(starts(s.width, recipe.size, recipe.stride)) for s in scenes}
            try:
                for line in cut_in_order(scenes, recipe, folder, deal(scenes, recipe, workers, done), workers):
                    if again[line["scene"]]:  # finished earlier, in a row that had to be cut again for the windows after it
                        again[line["scene"]] -= 1
                        continue
                    (chipset if "file" in line else skips).add(line)
                    tally.count(line)
                    chipset.lines.clear()  # a large scene has more lines than memory should hold
                    progress(1)
                    if strict and line.get("reason") == "unreadable":
                        raise RunError(f"{line['source']} can't be read at window {line['window']} ({line['detail']}); --strict stops here")
            except KeyboardInterrupt as error:
                raise KeyboardInterrupt(f"{sum(tally.patches.values())} patches are safe; run the same command again to go on") from error
    if not tally.patches:
        raise RunError(f"no patch could be cut from {len(scenes)} scenes; left out: {describe_skipped(tally) or 'nothing'}")
    return tally


def describe_skipped(tally):
    return ", ".join(f"{count} {reason}" for reason, count in tally.skipped.most_common())


class SkipLog:
    """skipped.jsonl: one line a window that became no patch, and why. Not there where there is none."""

    def __init__(self, path, afresh):
        self.path = path
        if afresh:
            path.unlink(missing_ok=True)
        self.lines = []
        if path.exists():
            for text in path.read_text(encoding="utf-8").splitlines(keepends=True):
                if not text.endswith("\n"):
                    break
                self.lines.append(json.loads(text))
        self.file = None

    def __enter__(self):
        return self

    def add(self, line):
        if self.file is None:
            self.file = open(self.path, "a", encoding="utf-8")
        self.file.write(json.dumps(line, ensure_ascii=False, separators=(", ", ": ")) + "\n")
        self.file.flush()

    def keep(self, count):
        """Forget all but the first `count` lines, and what a killed run wrote of another."""
        self.lines = self.lines[:count]
        if not self.lines:
            self.path.unlink(missing_ok=True)
            return
        with atomic_path(self.path) as temporary:
            text = "".join(json.dumps(line, ensure_ascii=False, separators=(", ", ": ")) + "\n" for line in self.lines)
            temporary.write_text(text, encoding="utf-8")

    def __exit__(self, *exception):
        if self.file is not None:
            self.file.close()


def windows_of(scene, recipe):
    """(col, row) of every window in the order of the manifest."""
    columns = starts(scene.width, recipe.size, recipe.stride)
    return ((col, row) for row in rows_of(scene, recipe) for col in columns)


def keep_finished(chipset, skips, scenes, recipe):
    """
    Cut manifest and skipped.jsonl back to the windows, from the first on, that are finished without a gap: patches that are still there,
    and windows that were left out. Returns {scene's name: number of finished windows}; whole rows only, and unreadable windows stay
    finished.
    """
    made = {(line["scene"], line["window"][0], line["window"][1]): line for line in chipset.lines}
    left = {(line["scene"], line["window"][0], line["window"][1]) for line in skips.lines}
    done, n_made, n_left = {}, 0, 0
    for scene in scenes:
        finished = 0
        for col, row in windows_of(scene, recipe):
            line = made.get((scene.name, col, row))
            if line is not None:
                if not all((chipset.folder / line[key]).exists() for key in ("file", "mask")):
                    break
                n_made += 1
            elif (scene.name, col, row) in left:
                n_left += 1
            else:
                break
            finished += 1
        done[scene.name] = finished
        if finished < count_windows(scene, recipe):
            break
    if n_made < len(chipset.lines):
        chipset.keep(n_made)
    skips.keep(n_left)
    return done


def refuse_changed_sources(lines, scenes, folder):
    """A source that is not the file from which the earlier patches were cut must not be mixed with them."""
    now = {s.name: (s.source, {layer: m.source for layer, m in s.masks.items()}) for s in scenes}
    seen = set()
    for line in lines:
        if line["scene"] in seen or line["scene"] not in now:
            continue
        seen.add(line["scene"])
        image, masks = now[line["scene"]]
        for old, new in ((line["source"], image), *((m, masks.get(layer)) for layer, m in line.get("label_sources", {}).items())):
            if new is not None and (old["size"], old["mtime"]) != (new["size"], new["mtime"]):
                raise UserError(f"{new['path']} has changed since its patches in {folder} were cut; pass --overwrite to cut all again")


def remove_strays(folder):
    """Patches that a killed run of other settings wrote and its manifest doesn't list."""
    for split in ("train", "val", "test"):
        for path in (*folder.glob(f"{split}/*_r*_c*_image.npy"), *folder.glob(f"{split}/*_r*_c*_mask.npy")):
            path.unlink()


def estimate(scenes, recipe, most_windows=48):
    """
    What cutting would cost, from cutting the first rows of a few scenes without writing.

    Returns (windows, bytes, seconds of one worker); windows that would be rejected are counted as far as the sample shows their share.
    """
    total = sum(count_windows(s, recipe) for s in scenes)
    step = max(1, len(scenes) // 4)
    tried, kept, size, begin = 0, 0, 0, time.perf_counter()
    cutter = Cutter(scenes, recipe, None)
    for number in range(0, len(scenes), step):
        rows = rows_of(scenes[number], recipe)
        for line in cutter.lines((number, (rows[len(rows) // 2],))):
            tried += 1
            if "file" in line:
                kept += 1
                size += recipe.size**2 * (len(scenes[number].bands) * np.dtype(line["dtype"]).itemsize + len(recipe.layers)) + 2 * 128
        if tried >= most_windows:
            break
    cutter.close()
    seconds = time.perf_counter() - begin
    share = kept / max(1, tried)
    return round(total * share), round(total * size / max(1, tried)), total * seconds / max(1, tried)


def free_bytes(folder):
    """Room on the disk where `folder` is or will be."""
    folder = Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def mean_reflectance(tally, description):
    """[mean reflectance a band] over all valid pixels of a set."""
    scale = zip(tally.band_sum, description["divide_by"], description["offset"], strict=True)
    return [(total / tally.valid_pixels + offset) / divisor for total, divisor, offset in scale]
