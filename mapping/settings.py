"""What decides a map: the settings that its journal and its record are compared by."""

import dataclasses
import functools
from dataclasses import dataclass

from classes import ClassSet
from mapping.index_check import IndexCheck
from nets.model_config import answers_classes, answers_values
from raster.hidden import own_mask
from raster.source import mask_stamps
from runtime.files import plain
from vectors.reading import fingerprint


@dataclass(frozen=True)
class MapSettings:
    """
    What decides a map's content beside the model and the scene.

    window: pixels a side. further_windows: other sides, over which the mean is taken. overlap: share of each. threshold: probability from
    which a pixel is mapped (burned, water …), None for the likeliest class. tta: flips and turns. probabilities: None, "uint8" or
    "float32". min_area: hectares. aoi: file of polygons or None. strict: unreadable blocks end the scene. vectors: form of the outlines,
    "geojson" or "gpkg". task: what the network was trained for. stac: a STAC item beside the map. networks: how many map together.
    simplify: metres by which outlines may move to have fewer corners, 0 for those of the pixels. index_check: None
    keeps all areas.
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
    vectors: str = "geojson"
    task: str = "segmentation"
    stac: bool = False
    simplify: float = 0.0
    networks: int = 1
    further_windows: tuple = ()
    index_check: IndexCheck | None = None

    @property
    def windows(self):
        """Sides of all windows, in pixels."""
        return (self.window, *self.further_windows)

    @property
    def kept_as(self):
        """Type of the probabilities, or values, in the journal."""
        return "float32" if answers_values(self.task) else self.probabilities or "uint8"


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """
    What maps tell of a network. bands, classes: names. weights: of weights_hash. mean: reflectance of its training images or None.
    colours: ((class, "#rrggbb"), …) in place of the usual ones. task: what it was trained for; classes of a regression: the name of its
    values.
    """

    bands: tuple
    classes: tuple
    weights: str
    mean: tuple | None = None
    colours: tuple = ()
    task: str = "segmentation"

    @functools.cached_property
    def class_set(self):
        return ClassSet(self.classes, self.colours, each=not answers_classes(self.task))


def band_settings(plan, model, settings):
    """What decides the pixels of a map, in JSON's types. Not the batch size or the device: they change no more than the last digit."""
    area = fingerprint([settings.aoi]) if settings.aoi else None
    info = plan.info
    each = {} if model.class_set.has_background else {"probability_of": "each class"}
    if settings.task != "segmentation":
        each = {"task": settings.task}
    hides = {} if plan.masked == own_mask(info) else {"masked": plan.masked}  # records of before know what GDAL says alone
    more = {"further_windows": settings.further_windows} if settings.further_windows else {}
    more |= {"index_check": dataclasses.asdict(settings.index_check)} if settings.index_check else {}
    product = {"product": {"bands": info.descriptions, "clouds": plan.clouds and plan.clouds.layer.form}} if plan.product else {}
    dates = {"dates": {"days": plan.days, "paths": plan.sources, "bands": info.path.choices(),
                       "masks": [mask_stamps(path) for path in plan.sources]}} if plan.days else {}
    return plain({
        "scene": {"path": info.path, "size": info.size, "mtime": info.mtime, "shape": [info.height, info.width], **mask_stamps(info.path)},
        "model": model.weights, "bands": plan.indexes, "divide_by": plan.scale.divide_by, "offset": plan.scale.offset,
        "nodata": plan.nodata, "zero_is_nodata": plan.zero_is_nodata, "window": settings.window, "overlap": settings.overlap,
        "threshold": settings.threshold, "tta": settings.tta, "precision": settings.precision,
        "probabilities": settings.kept_as, "aoi": area, **hides, **each, **product, **dates, **more,
    })


def full_settings(plan, model, settings):
    """band_settings, and what decides the files made of the pixels."""
    outlines = {} if settings.vectors == "geojson" else {"vectors": settings.vectors}  # records of before do not name the usual form
    outlines |= {"simplify": settings.simplify} if settings.simplify else {}
    colours = {"class_colours": dict(model.colours)} if model.colours else {}
    named = {} if model.class_set.is_fire else {"outlines_of": model.class_set.ending}  # records of before called all of them burned
    item = {"stac": True} if settings.stac else {}
    return {**band_settings(plan, model, settings), "min_area": settings.min_area, "outputs": settings.probabilities, **outlines, **colours,
            **named, **item}
