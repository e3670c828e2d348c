"""Checks labels before anything is cut."""

import numpy as np

from chipping.cloud_masks import cloudy_pixels
from chipping.input_files import some
from chipping.labels import read_labels, read_polygons, to_classes
from constants import IGNORE
from raster.sensor_place import why_without_grid
from raster.source import describe, open_raster
from runtime.errors import UserError
from vectors.placing import place_polygons

PREVIEW = 1024  # masks are read at no more pixels a side than about this: exact for small scenes


def check_polygons(scenes, recipe, note):
    """UserError where polygons or the area of interest cannot be read or placed, or meet no scene; a remark on scenes that they miss."""
    for paths, flag, arguments in (
        (recipe.polygons, "--labels", (recipe.class_field, recipe.class_names, recipe.label_map)),
        ((recipe.aoi,) if recipe.aoi else (), "--aoi", (None, (), ())),
    ):
        if not paths:
            continue
        for scene in scenes:
            if scene.crs is None:
                raise UserError(f"{flag} cannot be placed: {scene.image} {why_without_grid(describe(scene.image))}")
        polygons = read_polygons(paths, *(arguments if flag == "--labels" else ()))
        for remark in polygons.remarks:
            note(remark)
        missed = [s.name for s in scenes if not place_polygons(polygons, s.crs, s.transform, s.width, s.height)]
        if len(missed) == len(scenes):
            raise UserError(f"no polygon of {', '.join(paths)} meets any of {len(scenes)} scenes; check the coordinates ({polygons.crs})")
        if missed:
            what = "are background throughout" if flag == "--labels" else "give no patch"
            note(f"{len(missed)} of {len(scenes)} scenes meet no polygon of {flag} ({some(missed)}): they {what}")


def black_white_words(label_map):
    return f"the masks hold 0 and {IGNORE} only, and {IGNORE} means ignore: pass --label-map={label_map} if it is a class"


def check_clouds(scenes, recipe):
    """UserError where a cloud mask, read at reduced resolution where it is large, holds what is neither cloud nor none."""
    for scene in scenes:
        values = preview_of(scene.clouds) if scene.clouds else None
        if values is not None:
            cloudy_pixels(values, recipe.cloud_rule, scene.clouds.path, scene.clouds.nodata)


def preview_of(mask):
    """Values of a LabelFile at reduced resolution; None where they can't be read, which is counted window by window."""
    try:
        with open_raster(mask.path) as dataset:
            step = max(1, -(-max(dataset.width, dataset.height) // PREVIEW))
            shape = (max(1, dataset.height // step), max(1, dataset.width // step))
            return read_labels(dataset, hides=mask.hides, shape=shape)[0]
    except Exception as error:
        if isinstance(error, UserError) and error.__cause__ is None:
            raise
        return None


def check_masks(scenes, recipe, note):
    """
    UserError where a mask, read at reduced resolution where it is large, holds a value that is no class.

    Returns {layer: --label-map that makes classes of both} of those whose masks hold 0 and 255 only, which would be background and ignore.
    """
    suspicious, seen = {}, {}  # seen: {layer: values}, not extended once there is a third
    num_classes = dict(zip(recipe.layers, recipe.classes, strict=True))
    for scene in scenes:
        for layer, mask in scene.masks.items():
            values = preview_of(mask)
            if values is None:
                continue
            if seen.get(layer, set()) <= {0, IGNORE}:
                seen[layer] = seen.get(layer, set()) | set(np.unique(values).tolist())
            to_classes(values, num_classes[layer], mask.nodata, recipe.label_map, mask.path)
            if mask.nodata is not None and 0 <= mask.nodata < num_classes[layer] and mask.nodata not in dict(recipe.label_map):
                suspicious.setdefault((layer, mask.nodata), []).append(mask.path)
    black_white = {
        layer: ("0=0," if (layer, 0) in suspicious else "") + f"{IGNORE}=1"
        for layer, values in seen.items() if values == {0, IGNORE} and IGNORE not in dict(recipe.label_map)
    }
    for (layer, value), paths in suspicious.items():
        advice = black_white[layer] if layer in black_white and value == 0 else f"{value:g}={value:g}"
        note(
            f"{len(paths)} masks have {value:g} as nodata tag ({some(paths)}), so class {value:g} is ignored there; "
            f"pass --label-map={advice} if it is a class"
        )
    return black_white
