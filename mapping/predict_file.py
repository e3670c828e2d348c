"""
The map of a raster file as arrays with their place on the ground, for notebooks.

    found = predict_file("scene.tif", "output/checkpoints/best_model.pt")
    found.classes, found.probabilities, found.transform, found.crs
"""

import warnings
from dataclasses import dataclass

import numpy as np

from classes import classes_of_checkpoint
from mapping.coordinates import scene_coordinates
from mapping.inputs import InputFlags, describe_for, plan_input
from mapping.reading import read_slabs
from mapping.segmentation import Predictor, grids_of, whole_map
from model import model_from_checkpoint
from raster.places import dated_scenes
from raster.products import list_scenes
from raster.source import scene_name
from runtime.checkpoint import load_checkpoint, require_parts
from runtime.device import Compute, choose_device
from runtime.errors import UserError

DATA = ("bands", "divide_by", "offset", "classes", "chip_size")  # what a checkpoint's data have to say


@dataclass(frozen=True)
class FileMap:
    """
    The map of a raster, on its own grid.

    classes: (H, W) uint8, 255 where nothing is known. probabilities: (classes, H, W) float32. transform: affine, pixel to CRS. crs: None
    where the file has none. names: of the classes. unreadable: see mapping.reading.Slab.
    """

    classes: np.ndarray
    probabilities: np.ndarray
    transform: object
    crs: object
    names: tuple
    unreadable: tuple


def predict_file(path, checkpoint, *, bands=None, divide_by=None, offset=None, nodata=None, accept_scale=False, clouds=True, window=None,
                 overlap=0.25, threshold=None, tta=False, batch_size=8, device="auto", precision="fp32"):
    """
    FileMap of a raster: the classes that `inference.py path --checkpoint checkpoint` writes, all of them in memory.

    path: a local file, s3:// or https:// address, or a product as it is delivered (docs/data.md); for a checkpoint of several dates a list
    of those of one place, of which the last dates are mapped. clouds: its own layer decides what is not
    mapped. checkpoint: a path, or the dict of load_checkpoint. bands: names or numbers from 1.
    divide_by, offset: a number, or one a band. nodata: a number or "none". The others, and errors, are those of inference.py.
    """
    if not isinstance(checkpoint, dict):
        checkpoint = load_checkpoint(checkpoint, "segmentation")
    require_parts(checkpoint, {"model": (), "state": ("model",), "data": DATA})
    model, data = model_from_checkpoint(checkpoint), checkpoint["data"]
    path = one_sample(path, data) if isinstance(path, list | tuple) else path
    bands = None if bands is None else tuple(map(str, bands))
    flags = InputFlags.of_text(len(data["bands"]), bands, as_text(divide_by), as_text(offset), as_text(nodata), accept_scale, clouds)
    plan = plan_input(describe_for(path, data, flags), data, model.config.mean, flags)
    if plan.doubt:
        warnings.warn(plan.doubt, stacklevel=2)
    compute = Compute(device=choose_device(device), precision=precision)
    coordinates, lacking = scene_coordinates(plan, model)
    for line in lacking:
        warnings.warn(line, stacklevel=2)
    predictor = Predictor(model, len(data["classes"]), plan.scale, compute, tta=tta, batch_size=batch_size, coordinates=coordinates)
    window, unreadable = window or data["chip_size"] or 256, []

    def slabs():
        for slab in read_slabs(plan):
            unreadable.extend(slab.unreadable)
            yield slab

    grids = grids_of(plan.info.height, plan.info.width, window, overlap)
    class_set = classes_of_checkpoint(data)
    threshold = class_set.threshold(data.get("threshold")) if threshold is None else threshold
    classes, probabilities = whole_map(predictor, slabs(), grids, threshold, each=not class_set.has_background)
    return FileMap(classes, probabilities, plan.info.transform, plan.info.crs, tuple(data["classes"]), tuple(map(tuple, unreadable)))


def one_sample(paths, data):
    """The scene of several dates that paths are of, for a checkpoint's data. UserError for those of several places."""
    scenes = {scene_name(path): path for path in list_scenes(paths)}
    samples = list(dated_scenes(scenes, data.get("dates", 1)).values())
    if len(samples) > 1:
        raise UserError(f"{samples[0]} and {samples[1]} are of two places; pass the dates of one")
    return samples[0]


def as_text(value):
    """A number, or numbers, as a flag states them; text and None as they are."""
    if value is None or isinstance(value, str):
        return value
    return ",".join(map(repr, map(float, np.atleast_1d(value))))
