"""Labels on an image's grid: values of a mask raster or polygons of a GeoJSON become class indices, 255 where nobody knows."""

import contextlib
import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine

from constants import IGNORE
from runtime.errors import UserError, did_you_mean
from vectors.clipping import (
    clip_boxes,
    longest_straight_edge,
    lonlat_box,
    moved_east,
    part_near,
    polygons_of,
    projected,
    shortest_jump,
    turned,
    widened,
)

UNKNOWN = 254  # marks a value that is no class while labels are translated; never leaves this file
MOST_CLASSES = 254
LOWEST, HIGHEST = -32768, 65535  # values that the translation table holds; others are looked up one by one
OGR2OGR = "ogr2ogr -f GeoJSON -t_srs EPSG:4326 labels.geojson"


# --- values to classes ---------------------------------------------------------------------------------------------------------


def parse_label_map(text):
    """`-1=ignore,2=1` → {-1: 255, 2: 1}. None → {}."""
    mapping = {}
    for word in (text or "").split(",") if text else ():
        left, equals, right = word.strip().partition("=")
        try:
            value, label = int(left), IGNORE if right == "ignore" else int(right)
        except ValueError:
            equals = ""
        if not equals or not (0 <= label < MOST_CLASSES or label == IGNORE):
            raise UserError(f"--label-map expects VALUE=CLASS or VALUE=ignore separated by commas, such as -1=ignore,2=1, got {word!r}")
        if value in mapping:
            raise UserError(f"--label-map names the value {value} twice")
        mapping[value] = label
    return mapping


@functools.lru_cache(maxsize=16)
def translation_table(num_classes, nodata, mapping):
    """uint8 class of every value LOWEST..HIGHEST, UNKNOWN where it has none. mapping: a tuple of (value, class); it wins over nodata."""
    table = np.full(HIGHEST - LOWEST + 1, UNKNOWN, np.uint8)
    table[-LOWEST : -LOWEST + num_classes] = np.arange(num_classes)
    table[IGNORE - LOWEST] = IGNORE
    if nodata is not None and nodata == nodata and LOWEST <= nodata <= HIGHEST and nodata == int(nodata):
        table[int(nodata) - LOWEST] = IGNORE
    for value, label in mapping:
        if LOWEST <= value <= HIGHEST:
            table[value - LOWEST] = label
    return table


def to_classes(values, num_classes, nodata=None, mapping=(), path="the mask"):
    """
    uint8 classes 0..num_classes−1 and 255 from an array of label values of any type.

    nodata, NaN, infinity and 255 become 255; `mapping` ((value, class), …) wins over that. Any other value outside the classes is a
    UserError that names it.
    """
    table = translation_table(num_classes, nodata, tuple(mapping))
    if values.dtype == np.uint8:
        bytes_ = table[-LOWEST : -LOWEST + 256]
        highest = int(values.max(initial=0))
        if highest < num_classes and (bytes_[: highest + 1] == np.arange(highest + 1)).all():
            return values  # classes already, as most masks are: looking up every pixel would cost more than reading them
        classes = bytes_[values]
    else:
        classes = translate(values, table, nodata, dict(mapping), path)
    if (classes == UNKNOWN).any():
        value = int(values[classes == UNKNOWN][0])
        listed = ", ".join(f"{v}={'ignore' if c == IGNORE else c}" for v, c in mapping)
        listed = f", with {listed}" if listed else ""
        raise UserError(
            f"{path} holds the value {value}; expected classes 0..{num_classes - 1}, or 255 to ignore{listed}. "
            f"Pass --classes for more classes, or --label-map={value}=ignore (or {value}=CLASS)"
        )
    return classes


def translate(values, table, nodata, mapping, path):
    """As to_classes, for types other than uint8; UNKNOWN where a value is no class."""
    outside = np.zeros(values.shape, bool)
    if values.dtype.kind == "f":
        outside = ~np.isfinite(values)
        if nodata is not None and nodata != np.rint(nodata):
            outside |= values == nodata
        whole = np.where(outside, 0, values)
        broken = whole != np.rint(whole)
        if broken.any():
            raise UserError(f"{path} holds the value {whole[broken][0]:g}; labels must be whole numbers")
    elif values.dtype.kind in "iu":
        whole = values
    else:
        raise UserError(f"{path} has the type {values.dtype}; labels must be whole numbers")
    far = (whole < LOWEST) | (whole > HIGHEST)
    classes = table[np.where(far, 0, whole).astype(np.int64) - LOWEST]
    if far.any():
        classes[far] = UNKNOWN
        if nodata is not None:
            classes[far & (whole == nodata)] = IGNORE
        for value, label in mapping.items():
            classes[far & (whole == value)] = label
    classes[outside] = IGNORE
    return classes


# --- polygons ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Polygons:
    """crs: of the coordinates. shapes: ((geometry as GeoJSON, class, (west, south, east, north)), …), higher classes last: they win."""

    crs: str
    shapes: tuple


def read_polygons(paths, class_field=None, classes=("background", "fire"), mapping=()):
    """
    Polygons of GeoJSON files. class_field: the property that holds a class, as index, name, or a value of `mapping`; without it all are
    class 1.

    UserError for what is not GeoJSON, for coordinates that can't be lon/lat, for features that are not areas, for classes that are not
    there.
    """
    collected, crs = [], None
    for path in paths:
        content = read_geojson(path)
        file_crs = crs_of(content, path)
        if crs not in (None, file_crs):
            raise UserError(f"{path} is in {file_crs}, the file before it in {crs}; convert both: {OGR2OGR} {path}")
        crs = file_crs
        for number, feature in enumerate(content["features"]):
            geometry = feature.get("geometry")
            if geometry is None:
                continue
            label = class_of(feature, number, path, class_field, classes, mapping)
            for part in areas_of(geometry, number, path):
                bounds = bounds_of(part, number, path)
                if crs == "EPSG:4326" and not (-181 <= bounds[0] and bounds[2] <= 361 and -90 <= bounds[1] and bounds[3] <= 90):
                    raise UserError(
                        f"{path}: feature {number} has the coordinate {bounds[0]:g}, {bounds[1]:g}; expected degrees "
                        f"(lon, lat). Convert it: {OGR2OGR} {path}"
                    )
                collected.append((part, label, bounds))
    if not collected:
        raise UserError(f"{', '.join(map(str, paths))} holds no polygon; expected a GeoJSON with polygons")
    return Polygons(crs, tuple(sorted(collected, key=lambda shape: shape[1] if shape[1] != IGNORE else MOST_CLASSES + 1)))


def read_geojson(path):
    """A FeatureCollection as a dict; a bare Feature or geometry is wrapped into one."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; expected a GeoJSON file") from error
    except (ValueError, OSError, RecursionError) as error:
        raise not_geojson(path) from error
    kind = content.get("type") if isinstance(content, dict) else None
    if kind == "FeatureCollection" and isinstance(content.get("features"), list):
        return require_features(content, path)
    if kind == "Feature":
        return require_features({**content, "features": [content]}, path)
    if kind in ("Polygon", "MultiPolygon", "GeometryCollection"):
        return require_features({"features": [{"geometry": content}]}, path)
    raise UserError(f"{path} is not a GeoJSON FeatureCollection (its type is {kind!r}); convert it: {OGR2OGR} {path}")


def require_features(content, path):
    """`content`, whose features, geometries and properties are objects or absent; else a UserError."""
    for feature in content["features"]:
        if not isinstance(feature, dict) or not all(isinstance(feature.get(k), dict | None) for k in ("geometry", "properties")):
            raise not_geojson(path)
    return content


def not_geojson(path):
    return UserError(f"{path} is not GeoJSON; convert it: {OGR2OGR} {path}")


def crs_of(content, path):
    """EPSG:4326, unless the file carries the older `crs` member."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        name = ((content.get("crs") or {}).get("properties") or {}).get("name") or "CRS84"
        if "CRS84" in name:
            return "EPSG:4326"
    except (AttributeError, TypeError) as error:  # no object, or no text, where one belongs
        raise not_geojson(path) from error
    try:
        return CRS.from_user_input(name).to_string()
    except CRSError as error:
        raise UserError(f"{path} names the coordinate system {name!r}, which is not known; convert it: {OGR2OGR} {path}") from error


def class_of(feature, number, path, class_field, classes, mapping):
    if class_field is None:
        return 1
    properties = feature.get("properties") or {}
    if class_field not in properties:
        raise UserError(
            f"{path}: feature {number} has no property {class_field!r}.{did_you_mean(class_field, properties)} "
            f"It has {', '.join(properties) or 'none'}"
        )
    value = properties[class_field]
    if value in classes:
        return list(classes).index(value)
    try:
        label = dict(mapping).get(int(value), int(value)) if float(value) == int(value) else None
    except (TypeError, ValueError, OverflowError):
        label = None
    if label is None or not (0 <= label < len(classes) or label == IGNORE):
        raise UserError(
            f"{path}: feature {number} has {class_field} = {value!r}; expected 0..{len(classes) - 1} or one of {', '.join(classes)}"
        )
    return label


def areas_of(geometry, number, path):
    """The polygons of a geometry: itself, or the members of a collection."""
    kind = geometry.get("type")
    if kind == "GeometryCollection":
        members = geometry.get("geometries") or []
        if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
            raise not_geojson(path)
        return [part for member in members for part in areas_of(member, number, path)]
    if kind not in ("Polygon", "MultiPolygon"):
        raise UserError(
            f"{path}: feature {number} is a {kind}; expected polygons, since a label covers pixels (buffer points and lines first)"
        )
    return [geometry]


def bounds_of(geometry, number, path):
    """(west, south, east, north) of a polygon."""
    try:
        rings = geometry["coordinates"] if geometry["type"] == "Polygon" else [r for p in geometry["coordinates"] for r in p]
        points = np.array([point[:2] for ring in rings for point in ring], float)
        (west, south), (east, north) = points.min(axis=0), points.max(axis=0)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path}: feature {number} has coordinates that are not a polygon's") from error
    if not np.isfinite(points).all():
        raise UserError(f"{path}: feature {number} has a coordinate that is not finite")
    return float(west), float(south), float(east), float(north)


def polygons_for(polygons, crs, transform, width, height):
    """
    The shapes that may touch a raster, as ((geometry in the raster's CRS, class, bounds), …).

    Only what lies near the raster is moved, and on short edges: far outside of its zone a projection folds over, and within it an edge that
    is straight in lon/lat is a curve.
    """
    from rasterio._err import CPLE_BaseError  # what GDAL says of a CRS that leads nowhere; it has no public name
    from rasterio.crs import CRS
    from rasterio.warp import transform_bounds

    own = CRS.from_user_input(crs)
    theirs = CRS.from_user_input(polygons.crs)
    raster = raster_bounds(transform, 0, 0, width, height)
    own_turn, turn = (360.0 if c.is_geographic else 0.0 for c in (own, theirs))
    if own == theirs:
        return shapes_on(polygons.shapes, raster, own_turn)
    try:
        box = transform_bounds(own, theirs, *raster, densify_pts=21)
        if not (turn or np.isfinite(box).all()):
            raise UserError(f"a raster in {own.to_string()[:40]} reaches to where {polygons.crs} does not; convert the labels: {OGR2OGR}")
    except CPLE_BaseError as error:
        raise UserError(
            f"polygons in {polygons.crs} can't be placed on a raster in {own.to_string()[:40]}, which does not lead there; expected a "
            "coordinate system of the globe (gdal_edit.py -a_srs)"
        ) from error
    box = lonlat_box(box, raster, theirs, own) if turn else box
    near = [s for s in polygons.shapes if any(meets(s[2], b) for b in turned(box, turn)) or (turn and s[2][2] - s[2][0] > 180)]
    if not near:
        return ()
    step, jump = longest_straight_edge(theirs, own, box, transform), shortest_jump(theirs, own, box) if turn else math.inf
    boxes = clip_boxes(widened(box, turn), turn, ends=turn and jump == math.inf)
    parts = [(part_near(geometry, bounds, boxes, step, turn, jump), geometry, label) for geometry, label, bounds in near]
    parts = [part for part in parts if part[0] is not None]
    moved = move_all([part for part, _, _ in parts], [whole for _, whole, _ in parts], theirs, own)
    found = [(there, label, bounds_of(there, 0, "a label")) for there, (_, _, label) in zip(moved, parts, strict=True) if there is not None]
    return shapes_on(found, raster, own_turn)


def move_all(parts, wholes, theirs, own):
    """
    Polygons in the raster's CRS, None for one of which nothing is there. wholes: what each is a part of.

    UserError where only some of a polygon has a place on the raster's map, such as a picture of the globe from afar: nobody knows what
    outline it has there.
    """
    from rasterio._err import CPLE_BaseError
    from rasterio.warp import transform_geom

    if not parts:
        return []
    nowhere = CPLE_BaseError, SystemError  # the second one where GDAL has said so twenty times and says no more
    with contextlib.suppress(*nowhere):
        return transform_geom(theirs, own, parts)  # together: a call for each costs more than its work
    moved = []
    for part, whole in zip(parts, wholes, strict=True):
        for geometry in (part, whole):  # a corner of the box may have no place, although all of the polygon has
            with contextlib.suppress(*nowhere):
                moved.append(transform_geom(theirs, own, geometry))
                break
        else:
            west, south, east, north = bounds_of(whole, 0, "a label")
            points = [point for rings in polygons_of(part) for ring in rings for point in ring]
            if east - west > 180 or np.isfinite(projected(theirs, own, *np.transpose(points))).any():
                raise UserError(
                    f"the polygon at {west:g}, {south:g} to {east:g}, {north:g} goes on where a raster in {own.to_string()[:40]} shows "
                    "nothing; cut it to the ground that the raster shows (ogr2ogr -clipsrc)"
                )
            moved.append(None)
    return moved


def shapes_on(shapes, raster, turn):
    """Those shapes in the raster's CRS that meet its bounds; in degrees also where longitudes are counted another way."""
    found = []
    for geometry, label, bounds in shapes:
        for degrees in (0.0, -turn, turn) if turn else (0.0,):
            box = (bounds[0] + degrees, bounds[1], bounds[2] + degrees, bounds[3])
            if meets(box, raster):
                found.append((moved_east(geometry, degrees) if degrees else geometry, label, box))
    return tuple(found)


def raster_bounds(transform, col, row, width, height):
    """(west, south, east, north) of a window, rotated rasters included."""
    corners = [Affine(*transform[:6]) * p for p in ((col, row), (col + width, row), (col, row + height), (col + width, row + height))]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def meets(one, other):
    return one[0] <= other[2] and one[2] >= other[0] and one[1] <= other[3] and one[3] >= other[1]


def burn(shapes, transform, window, value=None):
    """uint8 (height, width) of a window (col, row, width, height): the class of the last shape over a pixel's centre, 0 elsewhere.

    value: burn this instead of the shapes' classes.
    """
    from rasterio.features import rasterize

    col, row, width, height = window
    bounds = raster_bounds(transform, col, row, width, height)
    near = [(geometry, label if value is None else value) for geometry, label, box in shapes if meets(box, bounds)]
    if not near:
        return np.zeros((height, width), np.uint8)
    return rasterize(
        near, out_shape=(height, width), transform=Affine(*transform[:6]) * Affine.translation(col, row), fill=0, dtype=np.uint8
    )


# --- masks on another grid -----------------------------------------------------------------------------------------------------


def same_grid(one, other, tolerance=0.01):
    """Do two RasterInfo describe the same pixels, to `tolerance` of one? A mask without georeference goes by its size."""
    if (one.width, one.height) != (other.width, other.height):
        return False
    if other.crs is None and other.transform == Affine.identity():
        return True
    if (one.crs is None) != (other.crs is None) or (one.crs is not None and one.crs != other.crs):
        return False
    apart = ~one.transform * other.transform
    corners = ((0, 0), (one.width, 0), (0, one.height), (one.width, one.height))
    return all(abs(x - col) <= tolerance and abs(y - row) <= tolerance for (col, row), (x, y) in ((c, apart * c) for c in corners))


def read_labels(dataset, window=None, hides=False, shape=None):
    """
    (values (height, width), hidden (height, width) bool or None) of a mask: 0 where its own mask (with `hides`) says that nothing is.

    shape: (height, width) of a thinned-out reading.
    """
    values = dataset.read(1, window=window, out_shape=shape)
    if not hides:
        return values, None
    hidden = dataset.dataset_mask(window=window, out_shape=shape) == 0
    values[hidden] = 0
    return values, hidden


def read_aligned(dataset, crs, transform, window, hides=False):
    """
    A mask's values by nearest neighbour on a window of another grid.

    Returns (values (height, width), outside (height, width) bool: where the mask does not reach, or its own mask (with `hides`) says that
    nothing is; values are 0 there).
    """
    from rasterio.warp import Resampling, reproject, transform_bounds
    from rasterio.windows import Window

    col, row, width, height = window
    target = Affine(*transform[:6]) * Affine.translation(col, row)
    bounds = transform_bounds(crs, dataset.crs, *raster_bounds(transform, col, row, width, height), densify_pts=21)
    corners = [
        ~dataset.transform * p for p in ((bounds[0], bounds[1]), (bounds[0], bounds[3]), (bounds[2], bounds[1]), (bounds[2], bounds[3]))
    ]
    xs, ys = zip(*corners, strict=True)
    left, top = max(0, int(min(xs)) - 2), max(0, int(min(ys)) - 2)
    right, bottom = min(dataset.width, int(max(xs)) + 3), min(dataset.height, int(max(ys)) + 3)
    if right <= left or bottom <= top:
        return np.zeros((height, width), dataset.dtypes[0]), np.ones((height, width), bool)
    values, hidden = read_labels(dataset, Window(left, top, right - left, bottom - top), hides)
    source = Affine(*dataset.transform[:6]) * Affine.translation(left, top)
    # Positions instead of values are warped, plus one: 0 is then what no pixel of the mask reaches, whatever its values and nodata are.
    index = np.arange(1, values.size + 1, dtype=np.int32).reshape(values.shape)
    found = np.zeros((height, width), np.int32)
    reproject(index, found, src_transform=source, src_crs=dataset.crs, dst_transform=target, dst_crs=crs, resampling=Resampling.nearest)
    outside, found = found == 0, np.maximum(found, 1) - 1
    if hidden is not None:
        outside |= hidden.ravel()[found]
    return np.where(outside, 0, values.ravel()[found]).astype(values.dtype, copy=False), outside
