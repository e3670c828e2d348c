"""The preview of a map: a PNG of the scene in the colours that its bands allow, beside the map laid over it, below a title and a legend."""

from dataclasses import dataclass

import numpy as np

from constants import IGNORE
from mapping.value_picture import shown_range, value_legend, value_picture
from pictures.box_map import framed
from pictures.encoding import save_png
from pictures.overlays import class_overlay, grey_background
from pictures.stretch import any_picture, burn_colour, natural_colour
from raster.acquired import time_of_scene
from raster.area import pixel_sides
from raster.sensor_name import sensor_name

PREVIEW = 1024  # pixels, the longer side of a scene in its preview
GAP = 6  # white pixels between pictures
LEGEND = 12  # classes: of more, only those that occur are in the legend


def thumbnail_step(height, width):
    """Every so many-th pixel of a scene is shown in its preview."""
    return max(1, -(-max(height, width) // PREVIEW))


@dataclass(frozen=True)
class Heading:
    """name: of the scene. words: what took it and when, "" where that is not known. side: metres across a pixel, None without a place."""

    name: str
    words: str
    side: float | None

    def over(self, picture, legend, across, pixel):
        """
        A picture (H, W, 3) below its title and legend [((r, g, b), words)], with a scale bar.

        across: pixels of the part of it that the bar belongs to. pixel: how many of the scene's pixels one of it is.
        """
        scale = (pixel, "px") if self.side is None else (pixel * self.side, "m")
        return framed(picture, self.name, [(None, self.words)] * bool(self.words) + legend, *scale, across=across)


def taken_words(plan):
    """What took a scene (SceneInput) and when: `Sentinel-2 L2A, 2022-02-05, T32TQM`; "" where nothing tells."""
    if len(plan.days) > 1:
        single = [sensor_name(plan.info.tags)] if plan.product is None else [plan.product.kind, plan.product.tile]
        return ", ".join(word for word in (*single, f"{len(plan.days)} dates from {plan.days[0]} to {plan.days[-1]}") if word)
    if plan.product:
        return plan.product.words
    time = time_of_scene(plan.info)
    return ", ".join(word for word in (sensor_name(plan.info.tags), time and time[0].date().isoformat()) if word)


def heading_of(plan, name):
    """The Heading of a scene. plan: SceneInput."""
    info = plan.info
    sides = pixel_sides(info.crs, info.transform, info.height, info.width)
    return Heading(name, taken_words(plan), sides[0] if sides and sides[0] else None)


class Preview:
    """
    Takes StoredBands from the top; save() writes the PNG.

    info: RasterInfo of the scene. bands: names of the model's. classes: ClassSet. heading: Heading.
    """

    def __init__(self, info, bands, classes, heading):
        self.heading = heading
        self.step, self.band_names, self.class_set = thumbnail_step(info.height, info.width), bands, classes
        self.reflectance, self.classes = [], []

    def add(self, band):
        self.reflectance.append(band.thumbnail)
        self.classes.append(band.classes[-band.row % self.step :: self.step, :: self.step])

    def save(self, path):
        reflectance, classes = np.concatenate(self.reflectance, axis=1).astype(np.float32), np.concatenate(self.classes)
        picture = preview(reflectance, classes, self.band_names, self.class_set, PREVIEW // 2)
        times = times_of(*classes.shape, PREVIEW // 2)
        save_png(path, self.heading.over(picture, legend_of(classes, self.class_set), classes.shape[1] * times, self.step / times))


class ValuePreview:
    """
    Takes StoredBands of values from the top; save() writes the scene beside them and returns (low, high), between which they are shown.

    name: of the values. heading: Heading.
    """

    def __init__(self, info, bands, name, heading):
        self.step, self.band_names, self.name, self.heading = thumbnail_step(info.height, info.width), bands, name, heading
        self.reflectance, self.values = [], []

    def add(self, band, values):
        """values: (rows, W) float32, NaN for nodata."""
        self.reflectance.append(band.thumbnail)
        self.values.append(values[-band.row % self.step :: self.step, :: self.step])

    def save(self, path):
        reflectance, values = np.concatenate(self.reflectance, axis=1).astype(np.float32), np.concatenate(self.values)
        shown = shown_range(values)
        views = [any_picture(reflectance, self.band_names), value_picture(values, *shown)]
        times = times_of(*values.shape, PREVIEW // 2)
        legend = value_legend(self.name, *shown)
        save_png(path, self.heading.over(side_by_side(views, PREVIEW // 2), legend, values.shape[1] * times, self.step / times))
        return shown


def preview(reflectance, classes, bands, class_set, least):
    """
    One picture (H, W, 3) uint8: natural colour, short-wave infrared, and the map; side by side, or stacked. Burns are drawn over short-wave
    infrared, in which they show; other classes over the scene in grey, so that their colours are those of the legend.

    reflectance: (C, h, w); classes: (h, w); bands: C names; class_set: classes.ClassSet. Small scenes are enlarged by a whole factor until
    their longer side has `least` pixels, so that pixels stay square.
    """
    views = [p for p in (natural_colour(reflectance, bands), burn_colour(reflectance, bands)) if p is not None]
    views = views or [any_picture(reflectance, bands)]
    burns = class_set.is_fire and len(class_set.names) == 2
    ground, opacity = (views[-1], 0.6) if burns else (grey_background(views[0]), 0.85)
    views.append(class_overlay(ground, classes, class_set.colours, opacity, class_set.first))
    return side_by_side(views, least)


def times_of(height, width, least):
    """By how much a picture is enlarged so that its longer side has `least` pixels."""
    return -(-least // max(height, width))


def side_by_side(views, least):
    """Pictures (H, W, 3) of one size beside each other, or below where they are wide; enlarged until a side has `least` pixels."""
    height, width = views[0].shape[:2]
    times = times_of(height, width, least)
    views = [view.repeat(times, axis=0).repeat(times, axis=1) for view in views]
    axis = 1 if height >= width else 0
    shape = list(views[0].shape)
    shape[axis] = GAP
    line = np.full(shape, 255, np.uint8)
    return np.concatenate([part for view in views for part in (view, line)][:-1], axis=axis)


def legend_of(classes, class_set):
    """[(colour, name)] of the classes that a map (h, w) may show, or does show where there are many."""
    shown = range(class_set.first, len(class_set.names))
    if len(class_set.names) > LEGEND:
        shown = [c for c in np.unique(classes[classes != IGNORE]) if c >= class_set.first]
    return [(class_set.colours[c], class_set.names[c]) for c in shown]
