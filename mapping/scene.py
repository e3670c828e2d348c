"""
One scene, from its header to its files: a map that streams, can be killed at any moment and continues.

Two stages. Bands of rows are predicted and kept in a journal (mapping/journal.py). When all are there, one pass over them writes
<scene>_classes.tif, _probability.tif, _burned.geojson and _preview.png. The scene's record, written last, says that it is finished.
"""

import contextlib
import hashlib
import json
import queue
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from constants import IGNORE, VERSION, get_class_colours
from mapping.journal import Journal, StoredBand
from mapping.polygons import AreaFinder
from mapping.reading import ReadAhead, read_slabs
from mapping.segmentation import first_row_to_read, predict_bands, stride_of
from mapping.summary import HIDDEN, Counter
from pictures.encoding import save_png
from pictures.preview import preview
from raster.area import pixel_areas
from raster.source import mask_stamps
from raster.writer import write_cog
from runtime.errors import RunError, UserError
from runtime.files import atomic_path, describe_difference, plain, read_json, write_json
from vectors.placing import place_polygons
from vectors.rasterizing import burn
from vectors.reading import fingerprint as fingerprint_of_files
from vectors.reading import read_polygons
from vectors.writing import STRAIGHT, Globe, PolygonFile

PREVIEW = 1024  # pixels, the longer side of a scene in its preview
PIECE = 2 << 20  # pixels of the map that are turned into polygons at once
NAMED = 20  # unreadable blocks that a record names; it counts all


class OutsideArea(UserError):
    """A scene that the area of interest does not touch: bad input if it is the only one, one to leave out if there are many."""


@dataclass(frozen=True)
class MapSettings:
    """
    What decides a map's content beside the model and the scene.

    window: pixels a side. overlap: share of it. threshold: burned probability from which a pixel burns, None for the likeliest class.
    tta: flips and turns. probabilities: None, "uint8" or "float32". min_area: hectares. aoi: vector file or None. strict: unreadable blocks
    end the scene.
    """

    window: int = 256
    overlap: float = 0.25
    threshold: float | None = None
    tta: bool = False
    precision: str = "fp32"
    probabilities: str | None = None
    min_area: float = 0.5
    aoi: str | None = None
    strict: bool = False


def output_paths(output_dir, name, settings):
    """{kind: path} of what a scene's map consists of."""
    files = {"classes": "_classes.tif", "burned": "_burned.geojson", "preview": "_preview.png"}
    if settings.probabilities:
        files["probability"] = "_probability.tif"
    return {kind: Path(output_dir) / f"{name}{ending}" for kind, ending in files.items()}


def record_path(output_dir, name):
    return Path(output_dir) / HIDDEN / f"{name}.json"


def scratch_folder(output_dir, name):
    return Path(output_dir) / HIDDEN / name


def is_unfinished(output_dir, name):
    """Whether an earlier run began this map and did not come to its end."""
    return (scratch_folder(output_dir, name) / "journal.jsonl").exists()


def fingerprint(model):
    """A hash of a model's weights: the same for the same network, whichever file it came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().reshape(-1).float().numpy()))
    return digest.hexdigest()[:16]


def band_settings(plan, settings, model_fingerprint):
    """Whatever decides the pixels of a map. Not the batch size or the device: they change no more than the last digit."""
    area = fingerprint_of_files([settings.aoi] if settings.aoi else [])
    info = plan.info
    return plain({
        "scene": {"path": info.path, "size": info.size, "mtime": info.mtime, "shape": [info.height, info.width], **mask_stamps(info.path)},
        "model": model_fingerprint, "bands": plan.indexes, "divide_by": plan.scale.divide_by, "offset": plan.scale.offset,
        "nodata": plan.nodata, "zero_is_nodata": plan.zero_is_nodata, "window": settings.window, "overlap": settings.overlap,
        "threshold": settings.threshold, "tta": settings.tta, "precision": settings.precision,
        "probabilities": settings.probabilities or "uint8", "aoi": area,
    })


def full_settings(plan, settings, model_fingerprint):
    return {**band_settings(plan, settings, model_fingerprint), "min_area": settings.min_area, "outputs": settings.probabilities}


def finished_record(output_dir, name, plan, settings, model_fingerprint, overwrite):
    """
    The record of a scene that these settings have mapped already, None if there is work to do.

    UserError where files lie that may not be replaced: made with other settings, or by something else.
    """
    paths, record = output_paths(output_dir, name, settings), record_path(output_dir, name)
    existing = [p for p in paths.values() if p.exists()]
    if overwrite or not existing:
        return None
    if record.exists():
        earlier, now = read_json(record), plain(full_settings(plan, settings, model_fingerprint))
        if earlier["settings"] == now and set(earlier["files"]) == {p.name for p in existing}:
            return earlier
        if earlier["settings"] not in (now, None):  # None: of a map that was not finished
            raise UserError(
                f"{existing[0]} exists, made with other settings ({describe_difference(earlier['settings'], now)}); "
                "pass --overwrite to replace it, or another --output-dir"
            )
    if is_unfinished(output_dir, name):
        return None  # killed while the files were being written: they are ours
    raise UserError(f"{existing[0]} exists already; pass --overwrite to replace it, or another --output-dir")


def require_aoi(plan, settings):
    """The area of interest as a function (row, height) → (height, W) bool, or None. UserError where it misses the scene."""
    if settings.aoi is None:
        return None
    info = plan.info
    if info.crs is None:
        raise UserError(f"{info.path} has no CRS, so --aoi can't be placed on it; leave it out or set one (gdal_edit.py -a_srs)")
    shapes = place_polygons(read_polygons([settings.aoi]), info.crs, info.transform, info.width, info.height)
    if not shapes:
        raise OutsideArea(f"{settings.aoi} does not touch {info.path}")
    return lambda row, height: burn(shapes, info.transform, (0, row, info.width, height), value=1).astype(bool)


def map_scene(predictor, plan, output_dir, name, classes, bands, settings, model_fingerprint, overwrite=False, tags=None, progress=None):
    """
    Map one scene into `output_dir`; returns its record (a dict for summary.json).

    predictor: mapping.segmentation.Predictor whose scale is the plan's. name: stem of the output files. classes, bands: their names.
    tags: for the GeoTIFFs.
    progress: function that makes a progress bar for (total windows, windows already done), or None.
    """
    output_dir = Path(output_dir)
    info, wanted = plan.info, band_settings(plan, settings, model_fingerprint)
    areas = pixel_areas(info.crs, info.transform, info.height, info.width)  # refuses impossible geotransforms before any work
    aoi = require_aoi(plan, settings)
    journal = Journal(scratch_folder(output_dir, name), wanted, overwrite)
    try:
        expected = begin_record(output_dir, name, settings)  # from here on the files of an earlier map may be replaced one by one
        if journal.next_row < info.height:
            predict_into(journal, predictor, plan, aoi, settings, progress)
        record = finish_map(journal, plan, output_dir, name, classes, bands, settings, areas, tags or {})
        record["settings"] = full_settings(plan, settings, model_fingerprint)
        remove_files(output_dir, expected - set(record["files"]))  # polygons of an earlier map, where this one can have none
        write_json(record_path(output_dir, name), record)
    except BaseException:
        journal.close()
        raise
    journal.remove()
    return record


def begin_record(output_dir, name, settings):
    """
    Remove the files of an earlier map of the scene that the new one will not replace, which would lie beside it as if they were its own.

    The record names all of them before that, without settings until the map is finished: a run that is killed, and followed by one with
    other outputs, leaves none behind. → {names of the files that this map may have}.
    """
    record = record_path(output_dir, name)
    expected = {path.name for path in output_paths(output_dir, name, settings).values()}
    earlier = set(read_json(record)["files"]) if record.exists() else set()
    write_json(record, {"settings": None, "files": sorted(earlier | expected)})
    remove_files(output_dir, earlier - expected)
    return expected


def remove_files(folder, names):
    for name in names:
        (Path(folder) / name).unlink(missing_ok=True)


def predict_into(journal, predictor, plan, aoi, settings, progress):
    """Predict what the journal lacks; a thread reads ahead, another one writes behind."""
    info, stride = plan.info, stride_of(settings.window, settings.overlap)
    start = journal.next_row
    first = first_row_to_read(info.height, settings.window, stride, start)
    step = thumbnail_step(info.height, info.width)
    kind = settings.probabilities or "uint8"
    bar = progress(info, settings.window, stride, start) if progress else None
    with ReadAhead(read_slabs(plan, aoi, first, settings.strict, settings.window)) as slabs, WriteBehind(journal.append) as writer:
        bands = predict_bands(
            predictor, slabs, info.height, info.width, settings.window, stride, settings.threshold, start,
            thumbnail_step=step, progress=bar,
        )
        for band in bands:
            writer.put(StoredBand.of(band, kind))


def thumbnail_step(height, width):
    return max(1, -(-max(height, width) // PREVIEW))


class WriteBehind:
    """Calls a function with each item in a thread of its own, in order; its error is raised at the next item, or at the end."""

    def __init__(self, write, depth=2):
        self.write, self.waiting, self.error = write, queue.Queue(maxsize=depth), None
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def run(self):
        while (item := self.waiting.get()) is not None:
            if self.error is None:
                try:
                    self.write(item)
                except BaseException as error:
                    self.error = error

    def put(self, item):
        if self.error is not None:
            raise self.error
        self.waiting.put(item)

    def __exit__(self, kind, *rest):
        self.waiting.put(None)
        self.thread.join()
        if kind is None and self.error is not None:
            raise self.error


def finish_map(journal, plan, output_dir, name, class_names, bands, settings, areas, tags):
    """One pass over the journal's bands: GeoTIFFs, polygons, preview, numbers. Returns the record, without its settings."""
    info, paths = plan.info, output_paths(output_dir, name, settings)
    remarks, unreadable = [], []
    counter, globe = Counter(len(class_names), areas), None
    if areas is None:
        reason = "no CRS" if info.crs is None else "its CRS does not lead to the globe"
        remarks.append(f"{reason}: no polygons, no hectares")
    else:
        globe = Globe(info.crs, info.transform, info.height, info.width)
        if globe.holds_pole:
            globe = None
            remarks.append("a pole is inside: no polygons")
    if globe is None:
        paths.pop("burned")
    straight = None if globe is None or globe.is_lonlat else STRAIGHT
    finder = AreaFinder(info.width, settings.min_area * 1e4, straight)
    step, picture_rows, picture_classes = thumbnail_step(info.height, info.width), [], []
    with contextlib.ExitStack() as stack:  # leaves in reverse: the class map gets its name last
        class_file, probability_file = open_rasters(stack, paths, info, class_names, settings, tags)
        polygons = None
        if globe is not None:
            file = stack.enter_context(open_text(paths["burned"]))
            polygons = PolygonFile(file, globe, class_names)
        for band in journal.bands():
            class_file.write(band.classes)
            valid = band.classes != IGNORE
            if probability_file:
                nothing = np.float32(np.nan) if band.burned.dtype == np.float32 else np.uint8(255)
                probability_file.write(np.where(valid, band.burned, nothing))
            counter.add(band.row, band.classes, band.highest)
            unreadable += band.unreadable
            picture_rows.append(band.thumbnail)
            picture_classes.append(band.classes[-band.row % step :: step, ::step])
            if polygons:
                for part in pieces(band, info.width):
                    add_polygons(polygons, finder, globe, areas, band, part)
        if polygons:
            polygons.add(finder.finish())
            polygons.finish()
        summary = counter.summary(class_names)
        if unreadable and summary["valid_fraction"] == 0:
            raise RunError(f"{info.path}: none of its blocks can be read ({unreadable[0][4]})")
        reflectance = np.concatenate(picture_rows, axis=1).astype(np.float32)
        save_preview(paths["preview"], reflectance, np.concatenate(picture_classes), bands, len(class_names))
    if summary["valid_fraction"] == 0:
        remarks.append("no valid pixel")
    if unreadable:
        remarks.append(f"{len(unreadable)} blocks could not be read")
    return {
        "scene": name, "source": info.path, "width": info.width, "height": info.height, "crs": info.crs.to_string() if info.crs else None,
        **summary, "polygons": polygons.count if polygons else None, "unreadable_blocks": len(unreadable),
        "unreadable": [dict(zip(("row", "column", "height", "width", "reason"), u, strict=True)) for u in unreadable[:NAMED]],
        "remarks": remarks, "files": [p.name for p in paths.values()],
    }


def open_rasters(stack, paths, info, class_names, settings, tags):
    """(writer of the class map, writer of the probabilities or None)."""
    place = {"height": info.height, "width": info.width, "crs": info.crs, "transform": info.transform}
    colours = dict(enumerate(get_class_colours(len(class_names))))
    tags = {"TIFFTAG_SOFTWARE": f"chipmill {VERSION}", **tags}
    class_file = stack.enter_context(write_cog(
        paths["classes"], **place, nodata=IGNORE, descriptions=["class"], colours=colours, tags=tags,
        band_tags=[{"CLASS_NAMES": json.dumps(dict(enumerate(class_names)), ensure_ascii=False)}],
    ))
    if not settings.probabilities:
        return class_file, None
    as_bytes = settings.probabilities == "uint8"
    probability_file = stack.enter_context(write_cog(
        paths["probability"], **place, dtype=settings.probabilities, nodata=IGNORE if as_bytes else float("nan"),
        descriptions=["probability of fire" if len(class_names) == 2 else f"probability of anything but {class_names[0]}"],
        scales=[1 / 254] if as_bytes else (), tags=tags, overviews="values",
    ))
    return class_file, probability_file


@contextlib.contextmanager
def open_text(path):
    with atomic_path(path) as temporary:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            yield file


def pieces(band, width):
    """Slices of a band's rows of about PIECE pixels."""
    rows = max(1, PIECE // width)
    return [slice(r, min(r + rows, len(band.classes))) for r in range(0, len(band.classes), rows)]


def add_polygons(polygons, finder, globe, areas, band, part):
    classes, burned = band.classes[part], band.burned[part]
    row, stop = band.row + part.start, band.row + part.stop
    values = burned if burned.dtype == np.float32 else burned.astype(np.float32) / 254
    polygons.add(finder.add(classes, values, areas.of_rows(row, stop), globe.parts(row, stop - row)))


def save_preview(path, reflectance, classes, bands, num_classes):
    save_png(path, preview(reflectance, classes, bands, num_classes, PREVIEW // 2))
