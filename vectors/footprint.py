"""Where a raster lies on the ground: its outline in lon/lat, and whether two outlines share ground."""

import math
from dataclasses import dataclass

import numpy as np

TOUCH = 0.5  # pixels: rasters whose outlines overlap by no more than this only touch (rounded coordinates of abutting tiles)


@dataclass(frozen=True)
class Outline:
    """
    The four corners of a raster.

    crs: its CRS as text. turn: what one turn around the globe is in its x, 360 in degrees, 0 in metres. corners: (4, 2) x, y in that CRS.
    lonlat: (4, 2) degrees; longitudes are within 180 of the first corner's, so that an outline that crosses the antimeridian is one piece
    (and may reach beyond 180). pixel, pixel_degrees: size of a pixel in the CRS's units and in degrees.
    """

    crs: str
    turn: float
    corners: np.ndarray
    lonlat: np.ndarray
    pixel: float
    pixel_degrees: float


def pixel_corners(transform, window):
    """(4, 2) x, y of a window (col, row, width, height): top left, top right, bottom right, bottom left in array sense."""
    col, row, width, height = window
    a, b, c, d, e, f = tuple(transform)[:6]
    places = [(col, row), (col + width, row), (col + width, row + height), (col, row + height)]
    return np.array([(a * x + b * y + c, d * x + e * y + f) for x, y in places])


def window_transform(transform, col, row):
    """The six numbers (a, b, c, d, e, f) of a window's own transform, rotated and south-up rasters included."""
    a, b, c, d, e, f = tuple(transform)[:6]
    return [a, b, a * col + b * row + c, d, e, d * col + e * row + f]


def to_lonlat(crs, corners):
    """(N, 2) x, y → (N, 2) lon, lat on WGS84, longitudes within 180 degrees of the first one. None where that can't be computed."""
    from rasterio._err import CPLE_BaseError  # what GDAL reports of a local CRS, which has no place; it has no public name
    from rasterio.errors import CRSError
    from rasterio.warp import transform

    try:
        lon, lat = transform(crs, "EPSG:4326", corners[:, 0].tolist(), corners[:, 1].tolist())
    except (CPLE_BaseError, CRSError, ValueError, RuntimeError):
        return None
    lonlat = np.stack([lon, lat], axis=1)
    if not np.isfinite(lonlat).all():
        return None
    lonlat[:, 0] -= 360 * np.round((lonlat[:, 0] - lonlat[0, 0]) / 360)
    return lonlat


def outline(crs, transform, width, height):
    """Outline of a raster, or None where it has no CRS (or one that does not lead to the globe)."""
    if crs is None:
        return None
    corners = pixel_corners(transform, (0, 0, width, height))
    lonlat = to_lonlat(crs, corners)
    if lonlat is None:
        return None
    pixel = math.sqrt(abs(polygon_area(corners)) / (width * height))
    pixel_degrees = math.sqrt(abs(polygon_area(lonlat)) / (width * height))
    return Outline(crs.to_string(), 360.0 if crs.is_geographic else 0.0, corners, lonlat, pixel, pixel_degrees)


def polygon_area(corners):
    """Signed area by the shoelace formula, in squared units of the corners."""
    x, y = (corners - corners[0]).T
    return 0.5 * float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def share_ground(one, other):
    """True where two outlines overlap by more than TOUCH pixels in every direction: in their CRS if it is one, else in lon/lat."""
    if one.crs == other.crs:
        return depth_around(one.corners, other.corners, one.turn) > TOUCH * min(one.pixel, other.pixel)
    return depth_around(one.lonlat, other.lonlat, 360.0) > TOUCH * min(one.pixel_degrees, other.pixel_degrees)


def depth_around(one, other, turn):
    """`penetration`, the nearest way around the globe."""
    return max(penetration(one, other + np.array([shift, 0.0])) for shift in {-turn, 0.0, turn})


def penetration(one, other):
    """
    How far two convex quadrilaterals would have to be moved apart until they don't overlap, in units of their corners; ≤ 0 where they
    don't.

    Separating axes: two convex shapes are apart exactly where the normal of one of their sides shows a gap.
    """
    depth = math.inf
    for shape in (one, other):
        sides = np.roll(shape, -1, axis=0) - shape
        for dx, dy in sides:
            length = math.hypot(dx, dy)
            if length == 0:
                continue
            axis = np.array([-dy, dx]) / length
            # Relative to a common origin: coordinates of millions of metres would eat the digits of a small overlap.
            a, b = (one - one[0]) @ axis, (other - one[0]) @ axis
            depth = min(depth, min(a.max(), b.max()) - max(a.min(), b.min()))
    return depth


def overlapping_pairs(outlines):
    """
    (i, j), i < j, of all outlines that share ground. outlines: a list of Outline or None (never in a pair).

    Boxes first, in one comparison a raster with all the later ones: ten thousand rasters take seconds.
    """
    known = [i for i, o in enumerate(outlines) if o is not None]
    if not known:
        return []
    west, south = np.array([outlines[i].lonlat.min(axis=0) for i in known]).T
    east, north = np.array([outlines[i].lonlat.max(axis=0) for i in known]).T
    pairs = []
    for n, i in enumerate(known[:-1]):
        later = slice(n + 1, None)
        shift = 360 * np.round((west[n] - west[later]) / 360)
        near = (
            (west[later] + shift <= east[n] + 1e-9) & (east[later] + shift >= west[n] - 1e-9)
            & (south[later] <= north[n] + 1e-9) & (north[later] >= south[n] - 1e-9)
        )
        pairs += [(i, known[n + 1 + k]) for k in np.flatnonzero(near) if share_ground(outlines[i], outlines[known[n + 1 + k]])]
    return pairs


def footprint(crs, corners):
    """[[lon, lat] × 4] rounded to 7 decimals (about a centimetre), longitudes −180..180, for the manifest; None without CRS."""
    if crs is None:
        return None
    lonlat = to_lonlat(crs, corners)
    if lonlat is None:
        return None
    lonlat[:, 0] = (lonlat[:, 0] + 180) % 360 - 180
    return [[round(float(x), 7), round(float(y), 7)] for x, y in lonlat]
