"""Polygons of clouds, as Sentinel-2 L1C states them before baseline 04.00 (MSK_CLOUDS_B00.gml): burned as they are read."""

import re

import numpy as np
from rasterio import Affine
from rasterio.enums import MaskFlags
from rasterio.features import rasterize
from rasterio.windows import Window

from constants import IGNORE
from raster.product_clouds import CLOUD, THIN
from raster.sentinel2 import parse_xml, tag_of
from runtime.errors import UserError

KINDS = {"CIRRUS": THIN, "OPAQUE": CLOUD}  # the last one wins
BLOCK = 512  # pixels a side: as if of a tiled file


class PolygonClouds:
    """
    Reads as a rasterio dataset of one band on a Grid: classes of raster.product_clouds. UserError where it is none, or in another CRS.

    content: bytes of the file. path: for messages.
    """

    count, dtypes, nodatavals = 1, ("uint8",), (IGNORE,)
    mask_flag_enums = ([MaskFlags.all_valid],)

    def __init__(self, content, grid, path):
        self.width, self.height, self.crs, self.transform = grid.width, grid.height, grid.crs, grid.transform
        self.block_shapes = [(min(BLOCK, grid.height), min(BLOCK, grid.width))]
        shapes = polygons_of(parse_xml(content, path), grid.crs.to_epsg() if grid.crs else None, path)
        self.shapes = [(shape, kind) for wanted in KINDS.values() for shape, kind in shapes if kind == wanted]
        outer = [np.array(shape["coordinates"][0]) for shape, _ in self.shapes]
        self.boxes = np.array([[*ring.min(axis=0), *ring.max(axis=0)] for ring in outer]).reshape(-1, 4)  # left, bottom, right, top

    def overviews(self, index):
        return [2]  # a thinned reading costs less than a whole one

    def read(self, indexes=None, window=None, out_shape=None):
        window = window or Window(0, 0, self.width, self.height)
        height, width = (int(window.height), int(window.width)) if out_shape is None else out_shape[-2:]
        step = Affine.scale(window.width / width, window.height / height)
        transform = self.transform * Affine.translation(window.col_off, window.row_off) * step
        xs, ys = zip(*(transform * corner for corner in ((0, 0), (width, 0), (0, height), (width, height))), strict=True)
        left, bottom, right, top = self.boxes.T
        near = np.flatnonzero((left <= max(xs)) & (right >= min(xs)) & (bottom <= max(ys)) & (top >= min(ys)))
        classes = np.zeros((height, width), np.uint8)
        if len(near):
            rasterize([self.shapes[i] for i in near], out=classes, transform=transform)
        return classes if isinstance(indexes, (int, np.integer)) else classes[None]

    def close(self):
        self.shapes = []


def polygons_of(root, epsg, path):
    """[(GeoJSON polygon, class)] of a mask's features. epsg: of the grid."""
    found = []
    for feature in root.iter():
        if tag_of(feature) != "MaskFeature":
            continue
        kind = next((str(e.text).strip().upper() for e in feature.iter() if tag_of(e) == "maskType"), "")
        if kind not in KINDS:
            raise UserError(f"{path} has clouds of the kind {kind[:40]!r}; expected {' or '.join(KINDS)}")
        for polygon in (element for element in feature.iter() if tag_of(element) == "Polygon"):
            stated = re.search(r"(\d+)$", polygon.get("srsName", ""))
            if stated and epsg and int(stated[1]) != epsg:
                raise UserError(f"{path} is in EPSG:{stated[1]}, the bands in EPSG:{epsg}; download the product again")
            rings = [ring_of(element, path) for element in polygon.iter() if tag_of(element) == "posList"]  # the outer one is the first
            if rings:
                found.append(({"type": "Polygon", "coordinates": rings}, KINDS[kind]))
    return found


def ring_of(element, path):
    """[(x, y), …] of a posList."""
    try:
        size = int(element.get("srsDimension", 2))
        points = np.array((element.text or "").split(), np.float64).reshape(-1, size)[:, :2]
        if size < 2 or len(points) < 4 or not np.isfinite(points).all():
            raise ValueError("too few numbers")
    except (ValueError, IndexError) as error:
        raise UserError(f"{path} has an outline of {str(element.text)[:40]!r} …; expected x y x y …, download the product again") from error
    return points.tolist()
