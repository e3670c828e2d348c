"""Turns the finished bands of a map into its files: GeoTIFFs, outlines, preview, numbers."""

import contextlib
import dataclasses
import json
import os

import numpy as np

from constants import IGNORE, VERSION
from mapping.ensemble import Range
from mapping.polygons import AreaFinder
from mapping.preview import Preview, heading_of
from mapping.qgis_style import keep_or_write, write_class_style
from mapping.simplified import EVERY, Simplifier
from mapping.summary import Counter
from mapping.unreadable import in_record, remarks_on, require_some
from raster.area import pixel_sides
from raster.sensor_place import why_without_grid
from raster.writer import write_cog
from runtime.network import without_signature
from vectors.writing import WRITERS, Globe

PIECE = 2 << 20  # pixels of the map that are turned into polygons at once


def finish_map(bands, plan, files, model, settings, areas):
    """
    One pass over all bands of a map writes its files. Returns the record, without its settings.

    bands: iterable of StoredBands, from the top. plan: SceneInput. files: MapFiles. model: ModelFacts. areas: PixelAreas or None.
    """
    info, paths = plan.info, files.content(settings, model.class_set)
    writer = WRITERS[settings.vectors]
    globe, remarks = place_on_globe(info, areas, writer)
    if globe is None:
        paths.pop("outlines")
    classes = model.class_set
    counter, outlines, unreadable = Counter(len(model.classes), areas), None, []
    preview = Preview(info, model.bands, classes, heading_of(plan, files.name))
    with contextlib.ExitStack() as stack:  # exits in reverse: the class map gets its name last
        class_file, probability_file = open_rasters(stack, paths, plan, model, settings)
        spread_file, span = open_spread(stack, paths, plan, model, settings), Range(settings.networks, areas)
        if globe is not None:
            file = stack.enter_context(writer(paths["outlines"], globe, model.classes))
            simplifier = simplifier_of(info, settings, file.straight)
            outlines = Outlines(file, info.width, settings.min_area * 1e4, areas, classes.first, simplifier)
        for band in bands:
            class_file.write(band.classes)
            if probability_file:
                probability_file.write(np.where(band.classes != IGNORE, band.probability, nodata_of(band.probability)))
            if spread_file:
                spread_file.write(np.where(band.classes != IGNORE, band.spread, nodata_of(band.spread)))
                span.add(band.row, band.votes, band.classes != IGNORE)
            counter.add(band.row, band.classes, band.highest)
            preview.add(band)
            unreadable += band.unreadable
            if outlines:
                outlines.add(band)
        if outlines:
            outlines.finish()
        summary = counter.summary(classes) | (span.summary(classes) if spread_file else {})
        require_some(info, unreadable, summary["valid_fraction"])
        preview.save(paths["preview"])
        remarks += keep_or_write(paths, lambda path: write_class_style(path, classes))
    remarks += remarks_on(unreadable, summary["valid_fraction"])
    return {
        "scene": files.name, "source": info.path, "width": info.width, "height": info.height,
        "crs": info.crs.to_string() if info.crs else None,
        **summary, "polygons": outlines.file.count if outlines else None, **in_record(unreadable),
        "remarks": remarks, **delivered_as(plan), "files": [path.name for path in paths.values()],
    }


def delivered_as(plan):
    """
    What a record says of a product beside its path, {} of a raster. clouds_left_out: the layer whose clouds are not mapped, or None. Of a
    scene of several dates, days and paths of all.
    """
    dates = {"dates": list(plan.days), "sources": list(map(str, plan.sources))} if plan.days else {}
    if plan.product is None:
        return dates
    product, layer = plan.product, plan.clouds and plan.clouds.layer.form
    return {"product": product.kind, "sensor": product.sensor, "datetime": product.time, "clouds_left_out": layer, **dates}


def place_on_globe(info, areas, writer):
    """(Globe for outlines or None, [why there are none]). writer: one of vectors.writing.WRITERS."""
    if areas is None:
        reason = "no CRS" if info.crs is None else "its CRS does not lead to the globe"
        if info.sensor_place and info.transform.is_identity:
            reason = f"it {why_without_grid(info)}"
        return None, [f"{reason}: no polygons, no hectares"]
    globe = Globe(info.crs, info.transform, info.height, info.width)
    obstacle = writer.obstacle(globe)
    return (None, [obstacle]) if obstacle else (globe, [])


def simplifier_of(info, settings, straight):
    """The Simplifier of a scene's outlines, None where they follow the pixels. straight: of their writer."""
    if not settings.simplify:
        return None
    return Simplifier(settings.simplify, pixel_sides(info.crs, info.transform, info.height, info.width), straight)


class Outlines:
    """
    Outlines of the mapped areas, found band by band. file: of vectors.writing.WRITERS, open. smallest: square metres. first: the lowest
    class that has outlines, 0 or 1. simplifier: mapping.simplified.Simplifier that all of them pass through, or None.
    """

    def __init__(self, file, width, smallest, areas, first=1, simplifier=None):
        self.file, self.width, self.areas, self.first, self.simplifier = file, width, areas, first, simplifier
        self.finder = AreaFinder(width, smallest, file.straight if simplifier is None else EVERY)

    def add(self, band):
        """band: StoredBand. It is taken in pieces of about PIECE pixels."""
        rows = max(1, PIECE // self.width)
        for first in range(0, len(band.classes), rows):
            part = slice(first, min(first + rows, len(band.classes)))
            self.add_piece(band.row + part.start, band.classes[part], band.probability[part])

    def add_piece(self, row, classes, probability):
        values = probability if probability.dtype == np.float32 else probability.astype(np.float32) / 254
        if self.first == 0:  # the finder takes 0 for no area
            classes = np.where(classes == IGNORE, IGNORE, classes + 1).astype(np.uint8)
        metres, parts = self.areas.of_rows(row, row + len(classes)), self.file.parts(row, len(classes))
        self.write(self.finder.add(classes, values, metres, parts))

    def finish(self):
        self.write(self.finder.finish())
        if self.simplifier:
            self.write_now(self.simplifier.finish())

    def write(self, found):
        (self.simplifier.add if self.simplifier else self.write_now)(found)

    def write_now(self, found):
        self.file.add(found if self.first else [dataclasses.replace(area, value=area.value - 1) for area in found])


def open_rasters(stack, paths, plan, model, settings):
    """(writer of the class map, writer of the probabilities or None), both closed by the ExitStack."""
    place = place_of(plan.info)
    colours = dict(enumerate(model.class_set.colours))
    tags = making_tags(plan, model, settings)
    class_file = stack.enter_context(write_cog(
        paths["classes"], **place, nodata=IGNORE, descriptions=["class"], colours=colours, tags=tags,
        band_tags=[{"CLASS_NAMES": json.dumps(dict(enumerate(model.classes)), ensure_ascii=False)}],
    ))
    if not settings.probabilities:
        return class_file, None
    return class_file, stack.enter_context(open_shares(paths["probability"], place, settings, model.class_set.probability_words, tags))


def open_spread(stack, paths, plan, model, settings):
    """The writer of how far the networks of an ensemble are apart, closed by the ExitStack; None of one network."""
    if settings.networks == 1:
        return None
    words = f"standard deviation among {settings.networks} networks: {model.class_set.probability_words}"
    return stack.enter_context(open_shares(paths["uncertainty"], place_of(plan.info), settings, words, making_tags(plan, model, settings)))


def open_shares(path, place, settings, words, tags):
    """A writer of numbers 0..1, as bytes or floats. place: of place_of. words: what they are."""
    as_bytes = settings.kept_as == "uint8"
    return write_cog(path, **place, dtype=settings.kept_as, nodata=IGNORE if as_bytes else float("nan"), descriptions=[words],
                     scales=[1 / 254] if as_bytes else (), tags=tags, overviews="values")


def nodata_of(values):
    """What stands for nodata in a raster of probabilities of a type."""
    return np.float32(np.nan) if values.dtype == np.float32 else np.uint8(255)


def place_of(info):
    return {"height": info.height, "width": info.width, "crs": info.crs, "transform": info.transform, "sensor_place": info.sensor_place}


def making_tags(plan, model, settings):
    """What the GeoTIFFs say about their making."""
    return {
        "TIFFTAG_SOFTWARE": f"chipmill {VERSION}", "MODEL": model.weights, "MODEL_BANDS": ",".join(model.bands),
        "SOURCE": os.path.basename(without_signature(plan.info.path)),
        **({"SENSOR": plan.product.kind, "ACQUIRED": plan.product.time} if plan.product else {}),
        **({"DATES": ",".join(plan.days)} if plan.days else {}),
        "THRESHOLD": "likeliest class" if settings.threshold is None else f"{settings.threshold:g}",
    }
