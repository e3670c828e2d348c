"""Where a raster lies on the globe, for people: the size of its pixels, its corners and the direction of north."""

import math
from dataclasses import dataclass

import numpy as np

from raster.area import pixel_sides
from raster.crs import LONLAT, NoTransform, transform_points

LITTLE = 1e-4  # degrees of latitude along which north is looked for


@dataclass(frozen=True)
class Ground:
    """
    sides: (across, down) metres of the pixel in the middle. middle, corners: (lon, lat) in degrees; the four corners clockwise from the
    upper left, None where one has no place. north: degrees that a pointer upwards has to be turned clockwise to point north in the middle.
    """

    sides: tuple
    middle: tuple
    corners: tuple | None
    north: float


def ground_of(info):
    """The Ground of a raster (RasterInfo), None where its CRS does not lead to the globe."""
    sides = pixel_sides(info.crs, info.transform, info.height, info.width)
    if sides is None or not all(sides):
        return None
    half, whole = (info.width / 2, info.height / 2), (info.width, info.height)
    x, y = info.transform * (np.array([half[0], 0, whole[0], whole[0], 0.0]), np.array([half[1], 0, 0, whole[1], whole[1]]))
    try:
        lon, lat = transform_points(info.crs, LONLAT, x, y)
        towards = -LITTLE if lat[0] > 89 else LITTLE
        there = transform_points(LONLAT, info.crs, lon[:1], lat[:1] + towards)
    except NoTransform:
        return None
    if not np.isfinite([lon[0], lat[0], there[0][0], there[1][0]]).all():
        return None
    column, row = ~info.transform * (there[0][0], there[1][0])
    right, up = (column - half[0]) * sides[0], (half[1] - row) * sides[1]
    north = math.degrees(math.atan2(right, up)) + (180 if towards < 0 else 0)
    points = tuple((float(a), float(b)) for a, b in zip(lon, lat, strict=True))
    corners = points[1:] if np.isfinite(points).all() else None
    return Ground(sides, points[0], corners, (north + 180) % 360 - 180)


def degrees_words(lon, lat):
    """`46.8182° N, 8.2275° E`."""
    lon = (lon + 180) % 360 - 180
    return f"{abs(lat):.4f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.4f}° {'E' if lon >= 0 else 'W'}"
