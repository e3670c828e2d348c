"""
Detections of one image, in a way that streams, can be killed at any moment and resumes.

Two stages. Rows of tiles go through the detector and are kept in a journal (detection/row_journal.py). When it holds all of them, one pass
over them merges the tiles' boxes and writes <image>_boxes.geojson, _boxes.png, the image's results, and with --stac its item. Its record,
written last, says that it is finished.
"""

import contextlib
from dataclasses import dataclass

import numpy as np

from detection.boxes_item import boxes_item
from detection.boxes_out import BOX_WRITERS, Found, ResultLines
from detection.image_files import begin_record
from detection.image_preview import ImagePreview, preview_step
from detection.merge import Merger
from detection.row_journal import TileRowJournal
from detection.swaths import strips_of_rows
from detection.tile_rows import find_rows
from mapping.area_of_interest import require_area
from mapping.background import WriteBehind
from mapping.map_files import end_record, keep_item
from mapping.unreadable import in_record, remarks_on, require_some
from raster.area import pixel_areas
from raster.sensor_place import why_without_grid
from raster.source import mask_stamps
from raster.windows import WindowGrid
from runtime.files import plain
from vectors.reading import fingerprint
from vectors.writing import Globe


@dataclass(frozen=True, kw_only=True)
class FindSettings:
    """
    What decides detections beside the detector and the image.

    window: (width, height) of the tiles in pixels. stride: pixels from one to the next, across and down. score_threshold: lowest score.
    iou: boxes of one class above it are the same object. limit: detections in a tile. tta: the mean over the eight flips and turns. aoi:
    file of polygons or None. strict: unreadable blocks end the image. vectors: form of the features, "geojson" or "gpkg". stac: a STAC
    item beside them.
    """

    window: tuple
    stride: tuple
    score_threshold: float = 0.5
    iou: float = 0.5
    limit: int = 300
    tta: bool = False
    precision: str = "fp32"
    aoi: str | None = None
    strict: bool = False
    vectors: str = "geojson"
    stac: bool = False


@dataclass(frozen=True, kw_only=True)
class DetectorFacts:
    """
    What files tell of a detector. bands, classes: names. weights: a hash of weights and configuration. mean: reflectance of its training
    images, or None. colours: ((class, "#rrggbb"), …) in place of the usual ones.
    """

    bands: tuple
    classes: tuple
    weights: str
    mean: tuple | None = None
    colours: tuple = ()


def row_settings(plan, facts, settings):
    """What decides the detections of a tile, in JSON's types. Not the batch size or the device: they change no more than the last digit."""
    info = plan.info
    return plain({
        "image": {"path": info.path, "size": info.size, "mtime": info.mtime, "shape": [info.height, info.width], **mask_stamps(info.path)},
        "model": facts.weights, "bands": plan.indexes, "divide_by": plan.scale.divide_by, "offset": plan.scale.offset,
        "nodata": plan.nodata, "zero_is_nodata": plan.zero_is_nodata, "masked": plan.masked,
        "window": one_if_equal(settings.window), "stride": one_if_equal(settings.stride), "score_threshold": settings.score_threshold,
        "limit": settings.limit, "precision": settings.precision, **({"tta": True} if settings.tta else {}),
        "aoi": fingerprint([settings.aoi]) if settings.aoi else None,
    })


def one_if_equal(numbers):
    """A number in place of two equal ones, which is what the records of square tiles hold."""
    return numbers[0] if numbers[0] == numbers[1] else list(numbers)


def all_settings(plan, facts, settings):
    """row_settings, and what decides the files made of them."""
    more = {"class_colours": dict(facts.colours)} if facts.colours else {}
    more |= {"stac": True} if settings.stac else {}
    return {**row_settings(plan, facts, settings), "iou": settings.iou, "vectors": settings.vectors, **more}


def tile_grid(info, settings):
    """The tiles that cover an image (RasterInfo), as a WindowGrid."""
    (across, size), (step, stride) = settings.window, settings.stride
    return WindowGrid(info.height, info.width, size, stride, across, step)


def find_in_image(finder, plan, files, facts, settings, *, overwrite=False, progress=None):
    """
    Find the objects of one image; returns its record (a dict).

    finder: tile_rows.Finder whose scale is the plan's. plan: mapping.inputs.SceneInput. files: ImageFiles. facts: DetectorFacts. settings:
    FindSettings. progress: a function (total tiles, tiles already done) → function(n) called after n tiles; or None.
    """
    info = plan.info
    areas = pixel_areas(info.crs, info.transform, info.height, info.width)  # refuses impossible geotransforms before any work
    aoi = require_area(info, settings.aoi)
    files.make_folders()
    with TileRowJournal(files.scratch, row_settings(plan, facts, settings), overwrite) as journal:
        expected = begin_record(files, settings)  # from here on the files of an earlier run may be replaced one by one
        if journal.next_row < info.height:
            find_into(journal, finder, plan, aoi, settings, progress)
        record = finish_image(journal.bands(), plan, files, facts, settings, areas)
        if settings.stac:
            keep_item(boxes_item(record, plan, files, facts, settings), files.outputs(settings)["stac"], record)
        return end_record(files, record, all_settings(plan, facts, settings), expected)


def find_into(journal, finder, plan, aoi, settings, progress):
    """Look at the tiles that the journal lacks; one thread reads ahead, another writes behind."""
    info, start = plan.info, journal.next_row
    grid = tile_grid(info, settings)
    bar = progress(grid.count, len(grid.columns) * sum(row < start for row in grid.rows)) if progress else None
    strips = strips_of_rows(plan, aoi, grid, start, settings.strict, finder.device)
    with contextlib.closing(strips), WriteBehind(journal.append) as writer:
        for row in find_rows(finder, strips, grid, thumbnail_step=preview_step(info.height, info.width), progress=bar):
            writer.put(row)


def finish_image(rows, plan, files, facts, settings, areas):
    """
    One pass over all rows of tiles merges their boxes and writes the files of an image. Returns the record, without its settings.

    rows: TileRows from the top. areas: raster.area.PixelAreas, or None where the image has no place on the globe.
    """
    info, paths = plan.info, files.content(settings.vectors)
    globe, remarks = place_on_globe(info, areas, BOX_WRITERS[settings.vectors])
    if globe is None:
        paths.pop("boxes")
    counts, told, unreadable = np.zeros(len(facts.classes), np.int64), {"tiles": 0, "full": 0, "valid": 0}, []
    preview = ImagePreview(plan, facts, areas)
    with contextlib.ExitStack() as stack:  # exits in reverse
        outputs = [stack.enter_context(ResultLines(files.results, info.path.rsplit("/", 1)[-1]))]
        if globe is not None:
            outputs.append(stack.enter_context(BOX_WRITERS[settings.vectors](paths["boxes"], globe, facts.classes)))
        for row, found in merged(rows, info, settings):
            counts += np.bincount(found.labels, minlength=len(counts) + 1)[1:]
            told = {name: value + getattr(row, name) for name, value in told.items()}
            unreadable += row.unreadable
            preview.add(row, found)
            for output in outputs:
                output.add_boxes(found)
        require_some(info, unreadable, told["valid"])
        preview.save(paths["preview"], files.name, counts, settings.score_threshold)
    remarks += remarks_on(unreadable, told["valid"])
    return {
        "image": info.path.rsplit("/", 1)[-1], "source": info.path, "width": info.width, "height": info.height,
        "crs": info.crs.to_string() if info.crs else None, "counts": dict(zip(facts.classes, counts.tolist(), strict=True)),
        "tiles": told["tiles"], "full_tiles": told["full"], "valid_fraction": round(told["valid"] / (info.width * info.height), 6),
        **in_record(unreadable), "remarks": remarks, "files": [path.name for path in paths.values()],
    }


def merged(rows, info, settings):
    """(TileRow, Found that are settled with it) for the rows of tiles of an image, one after the other."""
    merger, outlines = Merger((info.width, info.height), iou=settings.iou), {}
    for row in rows:
        first = merger.count
        corners = np.stack([row.columns, np.full(len(row.columns), row.row)], axis=1).astype(np.float64)
        merger.add(row.boxes, row.scores, row.labels, np.concatenate([corners, corners + settings.window], axis=1))
        outlines |= {first + place: one for place, one in enumerate(row.outlines) if one is not None}
        below = row.row + row.rows
        settled = merger.settle(below) if below < info.height else merger.settle()
        yield row, Found(settled.boxes, settled.scores, settled.labels, [outlines.get(number) for number in settled.number.tolist()])
        waiting = set(merger.waiting.number.tolist())
        outlines = {number: one for number, one in outlines.items() if number in waiting}


def place_on_globe(info, areas, writer):
    """(Globe for features or None, [why there are none, and what else a reader of the boxes should know])."""
    turned = info.tags.get("EXIF_Orientation", "1") not in ("0", "1")
    remarks = ["its EXIF tag turns it; boxes are in pixels as stored, not as viewers show it"] if turned else []
    if areas is None:
        reason = "no CRS" if info.crs is None else "its CRS does not lead to the globe"
        if info.sensor_place and info.transform.is_identity:
            reason = f"it {why_without_grid(info)}"
        return None, [*remarks, f"{reason}: boxes in pixels only"]
    globe = Globe(info.crs, info.transform, info.height, info.width)
    obstacle = writer.obstacle(globe)
    return (None, [*remarks, obstacle.replace("polygons", "features")]) if obstacle else (globe, remarks)
