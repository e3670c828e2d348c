"""Where rasters lie on the ground, and which of them share ground."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import shapely

from raster.crs import LONLAT, NoTransform, transform_points, turn_of
from vectors.longitudes import moved_east

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
    """(N, 2) x, y → (N, 2) lon, lat on WGS84, longitudes within 180 degrees of the first one. None where one of them has no place."""
    try:
        lonlat = np.stack(transform_points(crs, LONLAT, *corners.T), axis=1)
    except NoTransform:
        return None
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
    pixel, pixel_degrees = (math.sqrt(shapely.Polygon(points).area / (width * height)) for points in (corners, lonlat))
    return Outline(crs.to_string(), turn_of(crs), corners, lonlat, pixel, pixel_degrees)


def footprint(crs, corners):
    """[[lon, lat] × 4] rounded to 7 decimals (about a centimetre), longitudes −180..180, for the manifest; None without CRS."""
    lonlat = None if crs is None else to_lonlat(crs, corners)
    if lonlat is None:
        return None
    lonlat[:, 0] = (lonlat[:, 0] + 180) % 360 - 180
    return [[round(float(x), 7), round(float(y), 7)] for x, y in lonlat]


# --- shared ground -------------------------------------------------------------------------------------------------------------

CHUNK = 256  # outlines whose neighbours are looked up at once: thousands on one place have millions of pairs


def quads(corners):
    """(N,) shapely polygons of corners (N, 4, 2): their convex hulls, since those around a pole come in any order in lon/lat."""
    return shapely.convex_hull(shapely.multipoints(corners))


def shrunk(corners, least):
    """
    (N,) polygons of corners (N, 4, 2), smaller by `least` all around; prepared.

    One of them meets another quadrilateral where the two overlap by more than `least` in every direction. least: (N,) or one number.
    """
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).min(axis=1)
    least = np.minimum(np.asarray(least) * (1 + 1e-6), 0.49 * sides)  # what is smaller than that keeps its middle
    found = shapely.buffer(quads(corners), -least, join_style="mitre")
    shapely.prepare(found)
    return found


def any_overlap(corners, others, least, turn):
    """Whether any of some quadrilaterals (N, 4, 2) overlaps any of `others` by more than `least`. turn: 360 for longitudes, or 0."""
    inner, tree = shrunk(corners, least), shapely.STRtree(quads(others))
    return any(tree.query(moved_east(inner, degrees), predicate="intersects").size for degrees in {0.0, -turn, turn})


class Ground:
    """Outlines as shapes of which any two can be compared: in their CRS if it is the same, else in lon/lat. outlines: list of Outline."""

    def __init__(self, outlines):
        self.crs = np.unique([o.crs for o in outlines], return_inverse=True)[1]
        self.turn = np.array([o.turn for o in outlines])
        self.own = self.shapes(np.stack([o.corners for o in outlines]), np.array([o.pixel for o in outlines]))
        self.lonlat = self.shapes(np.stack([o.lonlat for o in outlines]), np.array([o.pixel_degrees for o in outlines]))
        self.boxes = shapely.box(*(shapely.bounds(self.lonlat[0]) + (-1e-9, -1e-9, 1e-9, 1e-9)).T)
        self.tree = shapely.STRtree(self.boxes)

    def shapes(self, corners, pixels):
        """(whole, inner, pixels): the outlines, and these without what may only touch."""
        return quads(corners), shrunk(corners, TOUCH * pixels), pixels

    def near(self, indices):
        """(i, j) of outlines i among `indices` whose boxes in lon/lat meet those of j, whatever turns their longitudes have made."""
        found = [self.tree.query(moved_east(self.boxes[indices], degrees)) for degrees in (0.0, -360.0, 360.0)]
        i, j = np.concatenate(found, axis=1)
        return indices[i], j

    def overlap(self, i, j):
        """(K,) bool: whether outlines i and j, (K,) each, overlap by more than TOUCH of the smaller pixel in every direction."""
        same = self.crs[i] == self.crs[j]
        meets = np.zeros(len(i), bool)
        for which, shapes, turns in ((same, self.own, self.turn), (~same, self.lonlat, np.full(len(self.turn), 360.0))):
            whole, inner, pixels = shapes
            a, b = i[which], j[which]
            a, b = np.where(pixels[a] <= pixels[b], a, b), np.where(pixels[a] <= pixels[b], b, a)
            found = shapely.intersects(inner[a], whole[b])
            around = np.flatnonzero((turns[a] > 0) & ~found)
            for degrees in (-360.0, 360.0) if len(around) else ():
                found[around] |= shapely.intersects(inner[a[around]], moved_east(whole[b[around]], degrees))
            meets[which] = found
        return meets


def overlapping_pairs(outlines, groups=None):
    """
    (K, 2) indices i < j, sorted, of all outlines that overlap by more than TOUCH pixels in every direction.

    outlines: list of Outline or None (never in a pair). groups: one word for each outline; then only pairs of different groups are looked
    for, which is less work where thousands of one group lie on one place.
    """
    places = {}  # many dates of one tile have one outline: it is compared once
    for i, known in enumerate(outlines):
        if known is not None:
            places.setdefault((known.crs, known.corners.tobytes(), known.pixel), []).append(i)
    if not places:
        return np.empty((0, 2), int)
    members, counts = np.concatenate(list(places.values())), np.array([len(indices) for indices in places.values()])
    starts = np.cumsum(counts) - counts
    count, group = len(outlines), np.arange(len(outlines)) if groups is None else np.unique(groups, return_inverse=True)[1]
    several = np.minimum.reduceat(group[members], starts) != np.maximum.reduceat(group[members], starts)
    only = np.where(several, -1 - np.arange(len(counts)), group[members[starts]])  # the one group of a place's outlines, if it is one
    itself = np.flatnonzero(several)
    codes = [np.empty(0, int)]
    for a, b in itertools.chain([(itself, itself)], overlapping_places([outlines[i] for i in members[starts]], only)):
        sizes = counts[a] * counts[b]
        nth = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # 0, 1, … within each pair of places
        across = np.repeat(counts[b], sizes)
        i = members[np.repeat(starts[a], sizes) + nth // across]
        j = members[np.repeat(starts[b], sizes) + nth % across]
        wanted = (group[i] != group[j]) & ((i < j) | np.repeat(a != b, sizes))
        codes.append(np.minimum(i, j)[wanted] * count + np.maximum(i, j)[wanted])
    return np.stack(np.divmod(np.sort(np.concatenate(codes)), count), axis=1)


def overlapping_places(outlines, groups):
    """
    Yields (a, b), (K,) indices each, a < b, of outlines of different groups that overlap. groups: (N,) int.

    Of two of different groups one at least is not of the largest: neighbours are looked up for those alone.
    """
    names, counts = np.unique(groups, return_counts=True)
    largest = names[counts.argmax()]
    asked = np.flatnonzero(groups != largest)
    ground = Ground(outlines) if len(asked) else None
    for start in range(0, len(asked), CHUNK):
        i, j = ground.near(asked[start : start + CHUNK])
        wanted = (groups[i] != groups[j]) & ((groups[j] == largest) | (i < j))
        i, j = i[wanted], j[wanted]
        a, b = np.divmod(np.unique(np.minimum(i, j) * len(outlines) + np.maximum(i, j)), len(outlines))
        meets = ground.overlap(a, b)
        yield a[meets], b[meets]


def shared_grounds(outlines):
    """
    (N,) numbers of outlines: equal for those that overlap, directly or through others. outlines: list of Outline or None (alone).

    Not all pairs are compared: an outline that belongs to a ground already is not looked at again.
    """
    numbers = np.arange(len(outlines))
    known = np.array([i for i, o in enumerate(outlines) if o is not None], int)
    if len(known) < 2:
        return numbers
    ground, waiting = Ground([outlines[i] for i in known]), np.ones(len(known), bool)
    for first in range(len(known)):
        frontier = [first] if waiting[first] else []
        waiting[first] = False
        while frontier and waiting.any():
            i, j = ground.near(np.array([frontier.pop()]))
            i, j = i[waiting[j]], j[waiting[j]]
            reached = np.unique(j[ground.overlap(i, j)])
            waiting[reached] = False
            numbers[known[reached]] = numbers[known[first]]
            frontier += reached.tolist()
    return numbers
