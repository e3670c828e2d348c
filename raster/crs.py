"""
Points and boxes from one coordinate reference system (CRS) into another, by pyproj.

x is always east or longitude and y always north or latitude, whatever order the CRS's authority has. Heights are left out: of a compound
CRS only the horizontal part counts.
"""

import functools
import re

import numpy as np
import pyproj
from pyproj.exceptions import CRSError, ProjError

from runtime.errors import UserError

LONLAT = "EPSG:4326"
CRS_NAME = re.compile(r"[A-Za-z]\w*:[\w.+-]+|urn:[\w.:+-]+|[A-Z][A-Z0-9_]+\s*\[.*", re.DOTALL)  # AUTHORITY:CODE, URN, WKT


class NoTransform(UserError):
    """Two CRSs of which one does not lead to the globe, such as a local site grid."""


def as_crs(crs):
    """A horizontal pyproj.CRS. crs: text (AUTHORITY:CODE, WKT, …), rasterio CRS or pyproj CRS. NoTransform where it is not understood."""
    return crs if isinstance(crs, pyproj.CRS) else parse_crs(text_of(crs))


def text_of(crs):
    if isinstance(crs, str):
        return crs
    text = crs.to_string()
    # rasterio gives text in the older WKT, which keeps less than WKT 2 where a CRS has no code
    return text if text.startswith("EPSG:") else crs.to_wkt(version="WKT2_2019")


@functools.lru_cache(maxsize=256)
def parse_crs(text):
    try:
        if not CRS_NAME.fullmatch(text):  # a URL, the name of a file, a list of steps: nothing that a file has to say
            raise CRSError(text)
        crs = pyproj.CRS.from_user_input(text)
    except CRSError as error:
        raise NoTransform(f"the CRS {text[:40]!r} is not known; expected an EPSG code or WKT") from error
    return (crs.sub_crs_list[0] if crs.is_compound else crs).to_2d()


def name_of(crs):
    """A CRS in a word for a message: its code, or the name that its WKT gives it."""
    code = as_crs(crs).to_authority(min_confidence=100)
    return ":".join(code) if code else as_crs(crs).name


def turn_of(crs):
    """One turn around the globe in the CRS's x: 360 for degrees, 0 for projected coordinates."""
    return 360.0 if as_crs(crs).is_geographic else 0.0


def transformer(source, target):
    """pyproj.Transformer from one CRS into another. NoTransform where no way leads from one to the other."""
    return make_transformer(as_crs(source), as_crs(target))


@functools.lru_cache(maxsize=256)
def make_transformer(source, target):
    try:
        return pyproj.Transformer.from_crs(source, target, always_xy=True)
    except ProjError as error:
        raise NoTransform(
            f"no transform leads from {name_of(source)} to {name_of(target)}; expected a CRS of the globe (gdal_edit.py -a_srs)"
        ) from error


def transform_points(source, target, x, y):
    """
    (x, y), float64 arrays, of points in another CRS; both are infinity where a point has no place there.

    x, y: (N,) in the source's units. NoTransform where no way leads from one CRS to the other.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    way = transformer(source, target)
    try:
        x, y = way.transform(x, y)
    except ProjError as error:
        raise NoTransform(f"no transform leads from {name_of(source)} to {name_of(target)} ({error})") from error
    lost = ~(np.isfinite(x) & np.isfinite(y))
    return np.where(lost, np.inf, x), np.where(lost, np.inf, y)


def transform_box(source, target, box):
    """
    (west, south, east, north) that holds a box of the source CRS; west > east where it crosses the antimeridian of a target in degrees.

    Infinity where an edge has no place. NoTransform where no way leads from one CRS to the other.
    """
    try:
        return transformer(source, target).transform_bounds(*box, densify_pts=21)
    except ProjError:
        return (np.inf,) * 4
