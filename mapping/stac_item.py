"""The STAC item of a map, or of what else is made of a scene: where and when that is, its files, its classes, what it was made from."""

import os
from pathlib import Path
from urllib.parse import quote

import numpy as np
import shapely

from classes import class_objects
from constants import IGNORE, VERSION
from raster.acquired import time_of_scene
from raster.source import scene_name
from runtime.errors import UserError
from runtime.network import without_signature
from vectors.writing import Globe

STAC = "1.1.0"
EXTENSIONS = tuple(f"https://stac-extensions.github.io/{name}/schema.json" for name in (
    "projection/v2.0.0", "classification/v2.0.0", "raster/v2.0.0", "processing/v1.2.0",
))
GEOTIFF = "image/tiff; application=geotiff; profile=cloud-optimized"
FORMS = {".tif": GEOTIFF, ".png": "image/png", ".geojson": "application/geo+json", ".gpkg": "application/geopackage+sqlite3",
         ".qml": "application/xml"}
STRAIGHT = 2e-6  # degrees, 20 cm: points of a border that are no farther from a straight line are left out
SIDE = 16  # pieces of a side whose ends are put on the globe: it is a curve in lon/lat
WITHOUT_DATE = "no STAC item: neither metadata, tags nor name tell when the scene was taken"


def stac_item(record, plan, files, model, settings):
    """
    The item as a dict, None where nothing tells when the scene was taken, without which an item is not valid.

    record: of the map, whose files are its assets. plan: SceneInput. files: MapFiles. model: ModelFacts. settings: MapSettings.
    """
    written = {kind: path for kind, path in files.content(settings, model.class_set).items() if path.name in record["files"]}
    return item_of(
        files.name, plan.info, time_of_scene(plan.info), made_from=plan.sources, folder=files.folder,
        more={**span_of(plan), "chipmill:weights": model.weights},
        assets={kind: asset_of(kind, path, record, model, settings) for kind, path in written.items()})


def item_of(name, info, time, *, made_from, folder, assets, more):
    """
    The item of files in a folder that were made of one or several scenes, None without a time.

    info: RasterInfo of their grid. time: of time_of_scene. made_from: the scenes, paths or ProductScenes. assets: {kind: fields}. more:
    further properties.
    """
    if time is None:
        return None
    geometry, bbox = place_of(info)
    return {
        "type": "Feature", "stac_version": STAC, "stac_extensions": list(EXTENSIONS), "id": name,
        "geometry": geometry, **({"bbox": bbox} if bbox else {}),
        "properties": {
            **words_of_time(time), **platform_of(made_from), **projection_of(info),
            "processing:software": {"chipmill": VERSION}, **more,
        },
        "links": [source_link(path, folder) for path in made_from],
        "assets": assets,
    }


def words_of_time(time):
    first, last = (moment.isoformat().replace("+00:00", "Z") for moment in time)
    if first == last:
        return {"datetime": first}
    return {"datetime": None, "start_datetime": first, "end_datetime": last}


def span_of(plan):
    """start_datetime and end_datetime of a scene (SceneInput) of several dates."""
    if len(plan.days) < 2:
        return {}
    return {"start_datetime": f"{plan.days[0]}T00:00:00Z", "end_datetime": f"{plan.days[-1]}T23:59:59Z"}


def platform_of(scenes):
    """The field of the satellite, where all scenes that name one name the same."""
    products = [product for scene in scenes if (product := getattr(scene, "product", None))]
    found = {dict(product.facts).get("satellite") for product in products} - {None, "not stated"}
    return {"platform": found.pop().lower().replace(" ", "-")} if len(found) == 1 else {}


def projection_of(info):
    """The grid of the map's rasters, in the fields of the projection extension."""
    if info.crs is None:
        return {"proj:code": None, "proj:shape": [info.height, info.width]}
    epsg = info.crs.to_epsg()
    code = {"proj:code": f"EPSG:{epsg}"} if epsg else {"proj:code": None, "proj:wkt2": info.crs.to_wkt(version="WKT2_2019")}
    xs, ys = zip(*(info.transform * corner for corner in border(info, 1)), strict=True)
    return {**code, "proj:shape": [info.height, info.width], "proj:transform": list(info.transform)[:6],
            "proj:bbox": [min(xs), min(ys), max(xs), max(ys)]}


def border(info, pieces):
    """Points (column, row) along the border of a raster, from the upper left corner down, each side in some pieces."""
    down, across = np.linspace(0, info.height, pieces + 1).tolist(), np.linspace(0, info.width, pieces + 1).tolist()
    return [*((0.0, y) for y in down[:-1]), *((x, float(info.height)) for x in across[:-1]),
            *((float(info.width), y) for y in down[:0:-1]), *((x, 0.0) for x in across[:0:-1])]


def place_of(info):
    """
    (GeoJSON geometry, bbox) of a raster in lon/lat, (None, None) of one without place on the globe.

    Across the antimeridian the geometry is in two parts, and the bbox begins east of where it ends (RFC 7946).
    """
    if info.crs is None:
        return None, None
    try:
        globe = Globe(info.crs, info.transform, info.height, info.width)
        columns, rows = np.array(border(info, 1 if globe.is_lonlat else SIDE)).T
        lon, lat = globe.lonlat(columns, rows)
    except UserError:
        return None, None
    # In one piece, whatever turns its longitudes make, and so that it begins on the globe's usual turn.
    lon = (info.transform * (columns, rows))[0] if globe.is_lonlat else np.unwrap(lon, period=360)
    lon = lon - 360 * np.floor((lon.min() + 180) / 360)
    if globe.holds_pole or np.ptp(lon) >= 360:
        south, north = float(lat.min()), float(lat.max())
        if globe.holds_pole:
            south, north = (-90.0, north) if lat.mean() < 0 else (south, 90.0)
        box = [-180.0, round(south, 7), 180.0, round(north, 7)]
        return geojson(shapely.box(*box)), box
    whole = shapely.Polygon(np.round(np.stack([lon, lat], axis=1), 7))
    (left, south, right, north), whole = whole.bounds, whole.simplify(STRAIGHT)
    if right <= 180:
        return geojson(whole), [left, south, right, north]
    east, west = (shapely.set_precision(whole.intersection(shapely.box(edge, -90, edge + 360, 90)), 1e-7) for edge in (-180, 180))
    west = shapely.transform(west, lambda points: points - (360, 0))
    return geojson(shapely.MultiPolygon([east, west])), [left, south, round(right - 360, 7), north]


def geojson(shape):
    """A polygon, or several, as GeoJSON with outer rings counterclockwise (RFC 7946)."""
    turned = [shapely.geometry.polygon.orient(part) for part in getattr(shape, "geoms", [shape])]
    return shapely.geometry.mapping(turned[0] if len(turned) == 1 else shapely.MultiPolygon(turned))


def source_link(scene, folder):
    """
    The link to what was mapped, a path or a ProductScene: its STAC item's own address, an address without signature, or the way from the
    folder of the maps.
    """
    product, path = getattr(scene, "product", None), str(scene)
    is_item = product is not None and product.kind.startswith("STAC item")
    address = (product.address if product else "") or path
    if "://" in address:
        href = without_signature(address)
    else:
        file, sign, name = path.rpartition("#") if product and "#" in path and not os.path.exists(path) else (path, "", "")
        href = f"{way_to(file, folder)}{sign}{quote(name)}"
    form = "application/geo+json" if is_item else FORMS.get(Path(path).suffix.lower()) if product is None else None
    return {"rel": "derived_from", "href": href, **({"type": form} if form else {}),
            "title": product.words if product else scene_name(scene)}


def way_to(path, folder):
    """A local path as a relative reference; absolute where there is none (another drive)."""
    try:
        return quote(os.path.relpath(path, folder).replace(os.sep, "/"))
    except ValueError:
        return Path(os.path.abspath(path)).as_uri()


def file_of(path):
    """What an asset says of any file."""
    return {"href": f"./{quote(path.name)}", "type": FORMS[path.suffix], "roles": ["data"]}


def asset_of(kind, path, record, model, settings):
    facts = file_of(path)
    if kind == "classes":
        return facts | {"title": "class of each pixel", "data_type": "uint8", "nodata": IGNORE,
                        "classification:classes": legend(model.class_set, record)}
    if kind in ("probability", "uncertainty"):
        numbers = {"nodata": IGNORE, "raster:scale": 1 / 254} if settings.kept_as == "uint8" else {"nodata": "nan"}
        title = model.class_set.probability_words if kind == "probability" else "how far the networks are apart"
        return facts | {"title": title, "data_type": settings.kept_as, **numbers}
    if kind == "values":
        figures = {name: record[key] for name, key in (("mean", "mean"), ("minimum", "least"), ("maximum", "most"))}
        known = {"statistics": figures} if figures["mean"] is not None else {}
        return facts | {"title": model.classes[0], "data_type": "float32", "nodata": "nan", **known}
    if kind == "preview":
        return facts | {"title": "the scene beside its map", "roles": ["thumbnail"]}
    if kind == "style":
        return facts | {"title": "style of the map for QGIS", "roles": ["style"]}
    return facts | {"title": {"outlines": "outlines of the mapped areas", "tiles": "labels of tiles"}[kind]}


def legend(class_set, record):
    """The classes as the classification extension has them, with their pixels."""
    found = [{**one, "count": record["classes"][one["title"]]["pixels"]} for one in class_objects(class_set)]
    return [*found, {"value": IGNORE, "name": "nodata", "title": "nothing is known", "nodata": True}]
