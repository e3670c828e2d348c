"""
Polygons, and points where they are asked for, read from vector files: GeoJSON, GeoPackage, FlatGeobuf, Shapefile.

A file may come from a stranger. Only regular local files of these formats, known by their first bytes and their suffix, are handed to GDAL
(through pyogrio): no driver that follows links or asks servers takes one. GeoJSON is parsed here, because GDAL passes over broken features
without a word and fetches what a `crs` member names.
"""

import functools
import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError

from raster.crs import CRS_NAME, LONLAT, NoTransform, as_crs, name_of
from runtime.errors import UserError, did_you_mean, one_line

FORMATS = "GeoJSON, GeoPackage, FlatGeobuf or Shapefile (.shp)"
AREAS = ("Polygon", "MultiPolygon")
POINTS = ("Point", "MultiPoint")
COLLECTION, POINT, POLYGON, MULTIPOINT, MULTIPOLYGON = 7, 0, 3, 4, 6  # shapely.get_type_id


@dataclass(frozen=True)
class Feature:
    """
    number: its place in the file. geometry: a shapely Polygon or MultiPolygon with area, or Point or MultiPoint. properties: {name: value}.
    """

    number: int
    geometry: shapely.Geometry
    properties: dict


@dataclass(frozen=True)
class VectorFile:
    """crs: text of the coordinates' CRS. features: those with polygons (or points). remarks: what was left out, in words."""

    crs: str
    features: tuple
    remarks: tuple = ()


@dataclass(frozen=True, eq=False)
class Polygons:
    """
    Polygons with classes, higher classes last: where two overlap, the last one wins.

    crs: text of the coordinates' CRS. geometries: (N,) shapely Polygons. labels: (N,) uint8. remarks: what was left out, in words.
    """

    crs: str
    geometries: np.ndarray
    labels: np.ndarray
    remarks: tuple = ()

    @functools.cached_property
    def tree(self):
        return shapely.STRtree(self.geometries)


def read_polygons(paths, label_of=lambda feature, path: 1):
    """
    Polygons of vector files that share a CRS. paths: FILE or FILE:LAYER. label_of(feature, path): its class, 0..255.

    UserError for files that cannot be read, coordinates that cannot be right, features that are not areas, and where no polygon is left.
    """
    geometries, labels, remarks, crs = [], [], [], None
    for path in paths:
        content = read_vectors(path)
        if crs not in (None, content.crs):
            raise UserError(f"{path} is in {name_of(content.crs)}, the file before it in {name_of(crs)}; convert them to one CRS")
        crs = content.crs
        remarks += content.remarks
        for feature in content.features:
            parts = shapely.get_parts(feature.geometry)
            geometries.append(parts)
            labels.append(np.full(len(parts), label_of(feature, path), np.uint8))
    if not geometries:
        left_out = f" ({'; '.join(remarks)})" if remarks else ""
        raise UserError(f"{', '.join(map(str, paths))} holds no polygon{left_out}; expected a file with polygons")
    geometries, labels = np.concatenate(geometries), np.concatenate(labels)
    order = np.argsort(labels, kind="stable")
    return Polygons(crs, geometries[order], labels[order], tuple(remarks))


def read_vectors(path, points=False):
    """VectorFile of FILE or FILE:LAYER. points: features may also be points; else these are a UserError."""
    file, layer = file_and_layer(path)
    if is_geojson(file):
        if layer is not None:
            raise UserError(f"{file} is GeoJSON, which has no layers; leave out :{layer}")
        found = VectorFile(*read_geojson(file, points))
    else:
        found = VectorFile(*read_with_ogr(file, layer, points))
    refuse_impossible_degrees(found, path)
    return found


def file_and_layer(path):
    """(Path of the file, name of the layer or None) of FILE or FILE:LAYER. UserError where there is no such file."""
    whole = Path(path)
    if whole.is_file():
        return whole, None
    file, colon, layer = str(path).rpartition(":")
    if colon and Path(file).is_file():
        return Path(file), layer
    if whole.exists():
        raise UserError(f"{path} is not a file; expected {FORMATS}")
    raise UserError(f"{path} does not exist; expected {FORMATS}")


def fingerprint(paths):
    """A hash of the bytes of some FILE or FILE:LAYER, of the layers' names, and of what lies beside a Shapefile; None for no paths."""
    if not paths:
        return None
    digest = hashlib.sha256()
    for path in paths:
        file, layer = file_and_layer(path)
        digest.update(file.read_bytes())
        if layer is not None:
            digest.update(f"layer {layer}".encode())
        for beside in (file.with_suffix(".dbf"), file.with_suffix(".prj")) if file.suffix.lower() == ".shp" else ():
            digest.update(beside.read_bytes() if beside.exists() else b"")
    return digest.hexdigest()[:16]


def is_geojson(file):
    """
    Whether a file is text, to be parsed here, and not of a format that GDAL reads. UserError for every other format.

    GDAL looks for the tags of text formats up to the first zero byte, and some drivers take a file by its suffix alone: so the signatures
    must hold a zero byte before there is room for a tag, and the suffix has to be the format's.
    """
    try:
        with open(file, "rb") as opened:
            start = opened.read(100)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); expected {FORMATS}") from error
    suffix = file.suffix.lower()
    if start.startswith(b"SQLite format 3\0") and start[68:72] in (b"GPKG", b"GP10", b"GP11"):
        expected = ".gpkg"
    elif start.startswith(b"fgb\x03fgb") and start[11:12] == b"\0":  # the header's size: GDAL reads none of more than 10 MiB
        expected = ".fgb"
    elif start.startswith(struct.pack(">i", 9994)) and len(start) == 100 and suffix == ".shp":
        expected = ".shp"
        if file.stat().st_size < 2 * struct.unpack(">i", start[24:28])[0]:  # GDAL would read as far as there is something
            raise UserError(f"{file} is shorter than it says of itself; expected a whole file, so copy it again")
    elif b"\0" in start or start.startswith((b"PK\x03\x04", b"fgb\x03")):
        raise UserError(f"{file} is in no format that is read here; expected {FORMATS}, unpacked")
    else:
        return True
    if suffix != expected:
        raise UserError(f"{file} holds what is called *{expected} elsewhere; rename it to end in {expected}")
    return False


def refuse_impossible_degrees(found, path):
    """Coordinates of a CRS in degrees are longitudes −181..361 and latitudes −90..90."""
    axes = as_crs(found.crs).axis_info
    if not found.features or not axes or axes[0].unit_name != "degree":
        return
    bounds = shapely.bounds([feature.geometry for feature in found.features])
    wrong = (bounds[:, 0] < -181) | (bounds[:, 2] > 361) | (bounds[:, 1] < -90) | (bounds[:, 3] > 90)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        file, layer = file_and_layer(path)
        # -t_srs alone changes nothing: GDAL, too, takes such numbers for degrees
        raise UserError(
            f"{path}: feature {found.features[first].number} has the coordinate {bounds[first, 0]:.9g}, {bounds[first, 1]:.9g}; "
            f"expected degrees (lon, lat). State its CRS: ogr2ogr -a_srs EPSG:… {file.stem}_crs.gpkg {file}{f' {layer}' if layer else ''}"
        )


def left_out(path, numbers):
    """The remarks on polygons that enclose nothing, by the numbers of their features."""
    if not numbers:
        return ()
    return (f"{path}: {len(numbers)} polygons with fewer than 3 distinct points are left out (the first: feature {numbers[0]})",)


# --- GeoPackage, FlatGeobuf, Shapefile -----------------------------------------------------------------------------------------


def read_with_ogr(file, layer, points=False):
    """(crs, features, remarks) of a layer, or of the only one."""
    if file.suffix.lower() == ".shp" and not any(file.with_suffix(ending).exists() for ending in (".shx", ".SHX")):
        raise UserError(f"{file} lacks its index {file.stem}.shx, which has to lie beside it; copy it along, with .dbf and .prj")
    path = file.resolve()  # absolute: no name reads as a GDAL prefix or URL
    try:
        layer = choose_layer(file, layer, pyogrio.list_layers(path))
        meta, numbers, wkb, columns = pyogrio.raw.read(path, layer=layer, force_2d=True, return_fids=True)
    except (DataSourceError, DataLayerError, RuntimeError, ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({one_line(error)[:120]}); expected {FORMATS}") from error
    if not meta["crs"]:
        raise UserError(f"{file} names no CRS; expected one, in a .prj file beside a Shapefile")
    try:
        as_crs(meta["crs"])
    except NoTransform as error:
        raise UserError(f"{file}: {error}") from error
    names = list(meta["fields"])
    rows = zip(*(column.tolist() for column in columns), strict=True) if names else iter(lambda: (), None)
    features, flat = [], []
    geometries = shapely.from_wkb(wkb, on_invalid="ignore")
    for number, encoded, geometry, row in zip(numbers.tolist(), wkb, geometries, rows, strict=False):
        if encoded is None or (geometry is not None and geometry.is_empty):
            continue
        if geometry is not None and not np.isfinite(shapely.get_coordinates(geometry)).all():
            raise UserError(f"{file}: feature {number} has a coordinate that is not finite")
        is_point = points and geometry is not None and shapely.get_type_id(geometry) in (POINT, MULTIPOINT)
        area = geometry if geometry is None or is_point else with_area(geometry, number, file)
        if area is None:
            flat.append(number)
        else:
            features.append(Feature(number, area, dict(zip(names, row, strict=True))))
    return meta["crs"], tuple(features), left_out(file, flat)


def choose_layer(file, layer, found):
    """The name of the layer to read. found: rows (name, type of geometry or None)."""
    names = [name for name, kind in found if kind is not None]
    if layer is not None:
        if layer not in names:
            raise UserError(f"{file} has no layer {layer!r}.{did_you_mean(layer, names)} It has {', '.join(names) or 'none'}")
        return layer
    if not names:
        raise UserError(f"{file} has no layer with geometries; expected one of polygons")
    if len(names) > 1:
        raise UserError(f"{file} has the layers {', '.join(names)}; name one, as in {file}:{names[0]}")
    return names[0]


def with_area(geometry, number, path):
    """A geometry as Polygon or MultiPolygon of its parts that enclose something, None where none does. UserError for points and lines."""
    parts = [geometry]
    while any(shapely.get_type_id(part) == COLLECTION for part in parts):
        parts = shapely.get_parts(parts).tolist()
    kept = []
    for part in parts:
        if shapely.get_type_id(part) not in (POLYGON, MULTIPOLYGON):
            raise not_an_area(part.geom_type, number, path)
        for polygon in shapely.get_parts(part):
            rings = [shapely.get_coordinates(ring) for ring in (polygon.exterior, *polygon.interiors)]
            kept += [made for made in [make_polygon(rings)] if made is not None]
    return join(kept)


def make_polygon(rings):
    """A shapely Polygon of rings, (N, 2) each, or None where the outer one has fewer than 3 distinct points. Such holes are left out."""
    if not rings or not has_three_points(rings[0]):
        return None
    return shapely.Polygon(rings[0], [ring for ring in rings[1:] if has_three_points(ring)])


def has_three_points(ring):
    apart = (ring != ring[:1]).any(axis=1)  # from the first point; one of these has to be apart from the others
    return bool(apart.any() and (ring[apart] != ring[apart][:1]).any())


def join(polygons):
    """One geometry of some polygons, or None of none."""
    if len(polygons) < 2:
        return polygons[0] if polygons else None
    return shapely.MultiPolygon(polygons)


def not_an_area(kind, number, path):
    return UserError(f"{path}: feature {number} is a {kind}; expected polygons, which cover pixels (buffer points and lines first)")


# --- GeoJSON -------------------------------------------------------------------------------------------------------------------


def read_geojson(file, points=False):
    """(crs, features, remarks) of a FeatureCollection, a Feature or a bare geometry."""
    content = parse_geojson(file, (*AREAS, *POINTS) if points else AREAS)
    features, flat = [], []
    for number, feature in enumerate(content["features"]):
        if points and (feature.get("geometry") or {}).get("type") in POINTS:
            features.append(Feature(number, points_of(feature["geometry"], number, file), feature.get("properties") or {}))
            continue
        members = polygons_of(feature.get("geometry"), number, file)
        polygons = [made for made in (make_polygon(rings) for rings in members) if made is not None]
        if polygons:
            features.append(Feature(number, join(polygons), feature.get("properties") or {}))
        elif members:
            flat.append(number)
    return crs_of(content, file), tuple(features), left_out(file, flat)


def parse_geojson(path, bare=AREAS):
    """A FeatureCollection as a dict; a bare Feature, or geometry of the types `bare`, is wrapped into one."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, OSError, RecursionError) as error:
        raise not_geojson(path) from error
    kind = content.get("type") if isinstance(content, dict) else None
    if kind == "FeatureCollection" and isinstance(content.get("features"), list):
        return require_features(content, path)
    if kind == "Feature":
        return require_features({**content, "features": [content]}, path)
    if kind in (*bare, "GeometryCollection"):
        return require_features({"features": [{"geometry": content}], "crs": content.get("crs")}, path)
    raise UserError(f"{path} is not a GeoJSON FeatureCollection (its type is {kind!r}); expected {FORMATS}")


def require_features(content, path):
    """`content`, whose features, geometries and properties are objects or absent; else a UserError."""
    for feature in content["features"]:
        if not isinstance(feature, dict) or not all(isinstance(feature.get(k), dict | None) for k in ("geometry", "properties")):
            raise not_geojson(path)
    return content


def not_geojson(path):
    return UserError(f"{path} is not GeoJSON; expected {FORMATS}")


def crs_of(content, path):
    """EPSG:4326 in the order lon/lat, unless the file carries the older `crs` member. A URL or path in it is refused, never opened."""
    member = content.get("crs") or {}
    properties = (member.get("properties") or {}) if isinstance(member, dict) else None
    name = (properties.get("name") or ("CRS84" if not properties else "")) if isinstance(properties, dict) else None
    if not isinstance(name, str):
        raise not_geojson(path)
    if "CRS84" in name and "/" not in name:
        return LONLAT
    try:
        if not CRS_NAME.fullmatch(name):
            raise NoTransform(name)
        as_crs(name)
    except NoTransform as error:
        named = name or next(iter(properties.values()))
        raise UserError(f"{path} names the CRS {named!r}, which is not known; expected a code such as EPSG:32633") from error
    code = as_crs(name).to_authority(min_confidence=100)  # so that one CRS under two names is one
    return ":".join(code) if code else name


def polygons_of(geometry, number, path):
    """[rings of a polygon, each (N, 2) float64] of a geometry as a dict; [] for None and empty ones."""
    found, waiting = [], [geometry]
    while waiting:
        member = waiting.pop(0)
        if member is None:
            continue
        kind = member.get("type")
        if kind == "GeometryCollection":
            members = member.get("geometries") or []
            if not isinstance(members, list) or not all(isinstance(one, dict) for one in members):
                raise not_geojson(path)
            waiting = members + waiting
        elif kind in AREAS:
            coordinates = member.get("coordinates")
            if coordinates != []:
                polygons = [coordinates] if kind == "Polygon" else coordinates
                found += rings_of(polygons, number, path)
        else:
            raise not_an_area(kind, number, path)
    return found


def points_of(geometry, number, path):
    """A shapely Point or MultiPoint of a geometry as a dict."""
    try:
        places = np.array(geometry.get("coordinates"), dtype=np.float64)
        places = places[None] if geometry["type"] == "Point" else places
        shaped = places.ndim == 2 and len(places) and places.shape[1] >= 2 and np.isfinite(places[:, :2]).all()
    except (TypeError, ValueError):
        shaped = False
    if not shaped:
        raise UserError(f"{path}: feature {number} has coordinates that are not a point's; expected [lon, lat], finite numbers")
    return shapely.Point(places[0, :2]) if geometry["type"] == "Point" else shapely.MultiPoint(places[:, :2])


def rings_of(polygons, number, path):
    """Coordinates of polygons as lists → [[(N, 2) float64, …], …]. UserError for what are not finite numbers."""
    try:
        found = [[np.array([point[:2] for point in ring]) for ring in rings] for rings in polygons if rings != []]
        shaped = all(ring.ndim == 2 and ring.shape[1] == 2 and ring.dtype.kind in "iuf" for rings in found for ring in rings)
    except (TypeError, ValueError, IndexError, KeyError):
        shaped = False
    if not shaped:
        raise UserError(f"{path}: feature {number} has coordinates that are not a polygon's; expected rings of [lon, lat] numbers")
    if not all(np.isfinite(ring).all() for rings in found for ring in rings):
        raise UserError(f"{path}: feature {number} has a coordinate that is not finite")
    return [[ring.astype(np.float64) for ring in rings] for rings in found]
