"""
How much ground a pixel covers, in square metres.

Three cases, told apart by the CRS and the transform:

- A projected CRS whose map area is within half a percent of the ground everywhere in the raster (UTM, national grids, state planes): the
  area that the grid says, |a·e − b·d| in the CRS's own unit. This is the convention; a 10 m Sentinel-2 pixel is 100 m².
- Geographic coordinates, rows along parallels: exact on the CRS's ellipsoid, one value a row.
- Everything else (Web Mercator, polar maps, rotated geographic rasters): the true area on the ellipsoid, computed at nodes and
  interpolated between them. Within 1e-4 of the exact one for pixels below a few kilometres.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import pyproj

from raster.crs import LONLAT, NoTransform, as_crs, transform_points
from runtime.errors import UserError

CONVENTION = 0.005  # share by which a projection's area may differ from the ground before the true area is used instead
NODES = 33  # at most so many nodes a side in the interpolated case
TO_GEOCENTRIC = "+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad +step +proj=cart +ellps=WGS84"


@dataclass(frozen=True)
class PixelAreas:
    """
    Areas of a raster's pixels in m².

    how: "grid", "rows" or "nodes", the three cases above. grid: the one area, or None. by_row: (H,) or None.
    nodes: (rows, columns, areas (R, C)) or None. height, width: pixels.
    """

    how: str
    height: int
    width: int
    grid: float | None = None
    by_row: np.ndarray | None = None
    nodes: tuple | None = None

    def of_rows(self, start, stop):
        """(stop − start, 1) or (stop − start, W) float64 areas of some rows: multiplies a (rows, W) array of shares."""
        if self.how == "grid":
            return np.full((stop - start, 1), self.grid)
        if self.how == "rows":
            return self.by_row[start:stop, None]
        rows, columns, areas = self.nodes
        across = np.stack([np.interp(np.arange(self.width) + 0.5, columns, line) for line in areas])  # (R, W)
        place = np.interp(np.arange(start, stop) + 0.5, rows, np.arange(len(rows)))
        low = np.minimum(place.astype(int), max(0, len(rows) - 2))
        share = (place - low)[:, None]
        return across[low] * (1 - share) + across[np.minimum(low + 1, len(rows) - 1)] * share

    def is_constant_along_rows(self):
        return self.how != "nodes"


def pixel_areas(crs, transform, height, width):
    """
    PixelAreas of a raster, or None without a CRS that leads to the globe.

    crs: rasterio CRS or None. transform: affine, pixel to CRS.
    UserError for a geographic raster that reaches beyond a pole or more than once around the globe.
    """
    if crs is None or not (crs.is_geographic or crs.is_projected):
        return None
    a, b, _, d, e, f = tuple(transform)[:6]
    determinant = abs(a * e - b * d)
    if determinant == 0:
        return None
    if crs.is_projected:
        unit = crs.linear_units_factor[1]
        grid = determinant * unit**2
        nodes = node_areas(crs, transform, height, width)
        if nodes is None:
            return None
        if np.abs(nodes[2] / grid - 1).max() <= CONVENTION:
            return PixelAreas("grid", height, width, grid=grid)
        return PixelAreas("nodes", height, width, nodes=nodes)
    degree = math.degrees(crs.units_factor[1])  # 1 where the unit is the degree, 0.9 where it is the grad
    refuse_impossible_degrees(transform, height, width, degree)
    if b == 0 and d == 0:
        edges = np.radians(np.clip((f + e * np.arange(height + 1)) * degree, -90, 90))
        globe = as_crs(crs).ellipsoid
        by_row = np.abs(np.diff(area_to_equator(edges, globe.semi_major_metre, globe.inverse_flattening))) * math.radians(abs(a) * degree)
        return PixelAreas("rows", height, width, by_row=by_row)
    nodes = node_areas(crs, transform, height, width)
    return None if nodes is None else PixelAreas("nodes", height, width, nodes=nodes)


def refuse_impossible_degrees(transform, height, width, degree):
    """Rows may reach half a pixel beyond a pole (grids whose centres lie on it), columns once around the globe."""
    a, b, c, d, e, f = (v * degree for v in tuple(transform)[:6])
    latitudes = [f, f + d * width, f + e * height, f + d * width + e * height]
    farthest, span = max(latitudes, key=abs), abs(a) * width + abs(b) * height
    if abs(farthest) > 90 + 0.501 * (abs(e) + abs(d)) + 1e-9:
        raise UserError(f"the geotransform reaches latitude {farthest:.3f}°, beyond the pole; correct it (gdal_edit.py -a_ullr)")
    if span > 360 + abs(a) + abs(b):
        raise UserError(f"the geotransform spans {span:.1f}° of longitude, more than once around; correct it (gdal_edit.py -a_ullr)")


def area_to_equator(latitude, axis, inverse_flattening):
    """Area between the equator and a parallel, in m² per radian of longitude; latitude in radians, negative in the south."""
    sine = np.sin(latitude)
    if inverse_flattening == 0:
        return axis**2 * sine
    flattening = 1 / inverse_flattening
    square = flattening * (2 - flattening)
    e = math.sqrt(square)
    return axis**2 * (1 - square) / 2 * (sine / (1 - square * sine**2) + np.arctanh(e * sine) / e)


def node_areas(crs, transform, height, width):
    """
    (rows, columns, areas): the true area of the pixel at each node of a coarse grid; None where the CRS does not lead to the globe.

    The sides of the pixel are measured in three dimensions, where neither the antimeridian nor a pole is special.
    """
    rows = np.linspace(0.5, height - 0.5, min(height, NODES))
    columns = np.linspace(0.5, width - 0.5, min(width, NODES))
    column, row = (v.ravel() for v in np.meshgrid(columns, rows))
    a, b, c, d, e, f = tuple(transform)[:6]
    corners = []
    for right, down in ((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5)):
        points = to_geocentric(crs, a * (column + right) + b * (row + down) + c, d * (column + right) + e * (row + down) + f)
        if points is None:
            return None
        corners.append(points)
    sides = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    return rows, columns, np.linalg.norm(sides, axis=1).reshape(len(rows), len(columns))


def pixel_sides(crs, transform, height, width):
    """(across, down): metres a side of the pixel in the middle of a raster, on the ellipsoid; None where the CRS does not lead there."""
    if crs is None or not (crs.is_geographic or crs.is_projected):
        return None
    column, row = np.array([0, 1, 0]) + width / 2, np.array([0, 0, 1]) + height / 2
    a, b, c, d, e, f = tuple(transform)[:6]
    points = to_geocentric(crs, a * column + b * row + c, d * column + e * row + f)
    return None if points is None else tuple(float(np.linalg.norm(points[k] - points[0])) for k in (1, 2))


def to_geocentric(crs, x, y):
    """(N, 3) metres from the centre of the earth for points of a CRS; None where they don't lead to the globe."""
    try:
        lon, lat = transform_points(crs, LONLAT, x, y)
    except NoTransform:
        return None
    if not np.isfinite(lon).all():
        return None
    return np.stack(geocentric_transformer().transform(lon, lat, np.zeros_like(lon)), axis=1)


@functools.cache
def geocentric_transformer():
    return pyproj.Transformer.from_pipeline(TO_GEOCENTRIC)
