"""Boxes of georeferenced images from a vector file: points with a size, and the extents of polygons."""

import math
import re
from dataclasses import dataclass

import numpy as np
import pyproj
import shapely
from affine import Affine

from chipping.stated_boxes import StatedImage, few, require_class
from raster.crs import as_crs, turn_of
from runtime.errors import UserError, did_you_mean
from vectors.footprint import pixel_corners, to_lonlat
from vectors.placing import FAR, Target, box_of, raster_bounds, turned
from vectors.reading import AREAS, POINT, read_vectors

LABEL_FIELDS = ("label", "class", "category", "species", "name")  # asked in this order where no --class-field names one
ONE_CLASS = "object"  # the class of features without such a property
FORMATS = (".geojson", ".gpkg", ".fgb", ".shp", ".json")


@dataclass(frozen=True)
class PointSize:
    """The side of the square box around a point: length in metres on the ground, or in pixels."""

    length: float
    in_metres: bool

    def pixels(self, crs, transform, width, height):
        """(columns, rows) of the box, as in the middle of a raster: in lon/lat pixels are not square on the ground."""
        if not self.in_metres:
            return self.length, self.length
        lonlat = to_lonlat(crs, pixel_corners(transform, (width // 2, height // 2, 1, 1)))
        if lonlat is None:
            raise UserError(f"--point-size in metres needs an image whose CRS leads to the globe, found {crs[:60]}; pass pixels")
        (left, top), (right, _), (_, _), (below, bottom) = lonlat
        _, _, (across, down) = pyproj.Geod(ellps="WGS84").inv([left, left], [top, top], [right, below], [lonlat[1, 1], bottom])
        return self.length / across, self.length / down


def parse_point_size(text):
    """`40` or `40px` → pixels, `6m` → metres. None stays None. UserError for anything else."""
    if text is None or isinstance(text, PointSize):
        return text
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(px|m)?\s*", str(text))
    if not found or not float(found[1]):
        raise UserError(f"--point-size {text!r}: expected pixels such as 40, or metres such as 6m")
    return PointSize(float(found[1]), found[2] == "m")


def read_box_vectors(path, headers, point_size=None, class_field=None, note=lambda text: None):
    """
    ([StatedImage] for every image, [class names, sorted]) of a vector file.

    headers: {name: ImageHeader} of images that lie on the ground; an image without features is one without objects. point_size: PointSize
    for points. class_field: the property that holds the class.
    """
    if lost := [name for name, header in headers.items() if header.crs is None]:
        raise UserError(f"{len(lost)} images have no CRS ({few(lost)}), so {path} cannot be placed on them; "
                        "pass boxes in pixels (COCO, VOC, CSV)")
    content = read_vectors(path, points=True)
    for remark in content.remarks:
        note(remark)
    features = content.features
    if not features:
        raise UserError(f"{path} holds no point and no polygon; expected some")
    points = [feature for feature in features if feature.geometry.geom_type not in AREAS]
    if points and point_size is None:
        raise UserError(f"{path} holds points, which have no size; pass --point-size such as 40 (pixels) or 6m (metres)")
    names = class_names(features, class_field, path)
    parts, of = shapely.get_parts([feature.geometry for feature in features], return_index=True)
    tree, found, reached = shapely.STRtree(parts), [], np.zeros(len(parts), bool)
    for name, header in headers.items():
        image = StatedImage(name, name, None)
        for part, box in boxes_on(header, content.crs, parts, tree, point_size):
            image.add(box, names[of[part]])
            reached[part] = True
        found.append(image)
    if not reached.any():
        raise UserError(f"none of the {len(features)} features of {path} lies on an image; check the CRS of both")
    if away := int((~reached).sum()):
        note(f"{away} of {len(parts)} features of {path} lie on no image")
    return found, sorted({names[k] for k in of[reached]})


def class_names(features, field, path):
    """The class of each feature."""
    known = {key: None for feature in features for key in feature.properties}
    if field is not None and field not in known:
        raise UserError(f"{path} has no property {field!r}.{did_you_mean(field, known)} It has {few(list(known), 8) or 'none'}")
    field = field or next((name for name in LABEL_FIELDS if name in known), None)
    if field is None:
        return [ONE_CLASS] * len(features)
    return [require_class(f.properties.get(field), f"{path}: feature {f.number}, property {field!r}") for f in features]


def boxes_on(header, crs, parts, tree, point_size):
    """Yields (number of a part, [x0, y0, x1, y1] in pixels) of the points and polygons that meet an image."""
    own, theirs = as_crs(header.crs), as_crs(crs)
    width, height, place = header.width, header.height, Affine(*header.transform)
    wide, tall = point_size.pixels(header.crs, header.transform, width, height) if point_size else (0.0, 0.0)
    around = raster_bounds(header.transform, -wide, -tall, width + 2 * wide, height + 2 * tall)
    target = Target(theirs, own, around, min(math.hypot(place.a, place.d), math.hypot(place.b, place.e)))
    turn = turn_of(theirs)
    near = np.unique(tree.query(shapely.box(*np.clip(np.transpose(turned(box_of(target, turn), turn)), -FAR, FAR)))[1])
    if not len(near):
        return
    moved, lost = target.move_shapes(parts[near])
    for part, shape, missing in zip(near.tolist(), moved, lost, strict=True):
        if missing:
            continue
        x, y = ~place * shapely.get_coordinates(shape).T
        right, down = (wide / 2, tall / 2) if shapely.get_type_id(shape) == POINT else (0.0, 0.0)
        box = (x.min() - right, y.min() - down, x.max() + right, y.max() + down)
        if box[0] < width and box[1] < height and box[2] > 0 and box[3] > 0:
            yield part, tuple(map(float, box))
