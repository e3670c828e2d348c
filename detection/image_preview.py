"""The preview of an image's detections: a PNG of the whole image with their boxes, a title, a legend and a scale bar."""

import math

import numpy as np

from mapping.preview import taken_words
from pictures.box_map import BoxLayer, framed
from pictures.box_overlays import box_colours
from pictures.encoding import save_png
from pictures.stretch import choose_composites, measure_stretch, stretch
from runtime.words import plural

PREVIEW = 1600  # pixels, the longer side of an image in its preview, about


def preview_step(height, width):
    """Every so many-th pixel of an image is shown in its preview."""
    return max(1, -(-max(height, width) // PREVIEW))


class ImagePreview:
    """
    Takes TileRows from the top and what is settled with them; save() writes the PNG.

    plan: mapping.inputs.SceneInput. facts: DetectorFacts. areas: PixelAreas, or None where pixels have no size on the ground.
    """

    def __init__(self, plan, facts, areas):
        self.info, self.facts = plan.info, facts
        self.step = preview_step(self.info.height, self.info.width)
        height, width = (-(-side // self.step) for side in (self.info.height, self.info.width))
        self.times = max(1, -(-PREVIEW // 2 // max(height, width)))  # small images are enlarged, so that boxes are seen
        self.colours = box_colours(facts.classes, facts.colours)
        self.layer = BoxLayer(height * self.times, width * self.times, self.times / self.step, self.colours)
        self.plan, self.pixel, self.reflectance = plan, pixel_side(areas, self.info.height), []

    def add(self, row, found):
        self.reflectance.append(row.thumbnail)
        self.layer.add(found.boxes, found.labels)

    def save(self, path, name, counts, threshold):
        """counts: (K,) objects of each class. threshold: lowest score."""
        reflectance = np.concatenate(self.reflectance, axis=1).astype(np.float32)
        picture = shown(reflectance, brightness_of(self.plan, self.facts.bands, reflectance))
        picture = picture.repeat(self.times, axis=0).repeat(self.times, axis=1)
        pixel = self.step / self.times
        taken = taken_words(self.plan)
        what = f"{name} ({taken})" if taken else name
        title = f"{what}: {plural(int(counts.sum()), 'detection')}, score from {threshold:.2f} on"
        few = len(counts) <= 8  # of many classes only those that were found
        entries = zip(self.colours, self.facts.classes, counts.tolist(), strict=True)
        legend = [(colour, f"{name} {count}") for colour, name, count in entries if count or few]
        scale = (pixel, "px") if self.pixel is None else (pixel * self.pixel, "m")
        save_png(path, framed(self.layer.over(picture), title, legend, *scale))


def pixel_side(areas, height):
    """Metres a side of a pixel in the middle of an image; None without raster.area.PixelAreas."""
    middle = height // 2
    return None if areas is None else math.sqrt(float(areas.of_rows(middle, middle + 1).mean()))


def brightness_of(plan, bands, reflectance):
    """
    (three positions of bands, what is black in each, what is full brightness): eight-bit pictures are shown as they are, other images
    between their own darkest and brightest.

    plan: SceneInput. bands: names. reflectance: (C, H, W) of the whole image, or a sample of it.
    """
    title, where = choose_composites(bands)[0]
    if set(plan.info.dtypes) != {"uint8"} or set(plan.scale.divide_by) != {255.0}:
        values = reflectance.reshape(len(reflectance), -1)
        lows, tops = measure_stretch(values[:, (values != 0).any(axis=0)])
        return where, lows[where], tops[where]
    if title == "bands" and len(bands) > 2:
        where = [0, 1, 2]  # without names, a picture's are red, green and blue
    return where, (0.0,) * 3, (1.0,) * 3


def shown(reflectance, brightness):
    """(H, W, 3) uint8 of (C, H, W). brightness: of brightness_of."""
    where, lows, tops = brightness
    return stretch(reflectance[where].astype(np.float64), lows, tops, (1.0,) * 3)
