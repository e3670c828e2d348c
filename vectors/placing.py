"""
Polygons moved into a raster's CRS and burned into its pixels: only what lies near the raster, on edges so short that their course is kept.

Far outside of its zone a projection folds over, and within it an edge that is straight in lon/lat is a curve: hence the clipping and the
points between. In lon/lat one place has several longitudes: most of what is here is about that.
"""

import functools
import math
from dataclasses import dataclass

import antimeridian
import numpy as np
import shapely
from affine import Affine
from rasterio.features import rasterize
from shapely.algorithms.cga import signed_area

from raster.crs import NoTransform, as_crs, name_of, transform_box, transform_points, turn_of
from runtime.errors import UserError
from vectors.longitudes import moved_east

CHORD = 0.05  # pixels that a polygon's edge may lie beside its true course
NEAR_TURN = 150  # degrees of longitude from which on the antimeridian is near
WORLD = (-180.0, -90.0, 180.0, 90.0)
FOLLOWED, DOUBTED = 180, 270  # degrees of longitude that an edge may have near the antimeridian, and far from it
FAR = 1e9  # stands for infinity in a shape, in degrees and in metres


@dataclass(frozen=True, eq=False)
class Placed:
    """Polygons in a raster's CRS, the last one wins. geometries: (N,) shapely Polygons. labels: (N,) uint8."""

    geometries: np.ndarray
    labels: np.ndarray

    def __len__(self):
        return len(self.geometries)

    @functools.cached_property
    def tree(self):
        return shapely.STRtree(self.geometries)

    @functools.cached_property
    def as_dicts(self):
        """Each as GeoJSON, which is what rasterio burns: made once, not for every window."""
        return [shapely.geometry.mapping(polygon) for polygon in self.geometries]


NOTHING = Placed(np.empty(0, object), np.empty(0, np.uint8))


@dataclass(frozen=True)
class Target:
    """
    Where polygons are moved.

    source, crs: pyproj CRS of the polygons and of the raster. raster: (west, south, east, north) of the raster in its CRS. pixel: its
    shorter side in units of that CRS.
    """

    source: object
    crs: object
    raster: tuple
    pixel: float

    @property
    def turn(self):
        """What one turn around the globe is in the raster's x: 360 in degrees, 0 where x is a length."""
        return turn_of(self.crs)

    def move(self, x, y):
        """(x, y) of points in the raster's CRS, infinity where a point has no place; longitudes go on where those before went on."""
        moved_x, moved_y = transform_points(self.source, self.crs, x, y)
        if self.turn:
            near = x if turn_of(self.source) else np.full_like(moved_x, (self.raster[0] + self.raster[2]) / 2)
            finite = np.isfinite(moved_x)
            moved_x[finite] += 360 * np.round((near[finite] - moved_x[finite]) / 360)
        return moved_x, moved_y

    def move_shapes(self, geometries):
        """Shapes in the raster's CRS, and (N,) how many points of each have no place there."""
        moved = shapely.transform(geometries, lambda points: np.stack(self.move(*points.T), axis=1))
        points, of = shapely.get_coordinates(moved, return_index=True)
        return moved, np.bincount(of, ~np.isfinite(points[:, 0]), minlength=len(moved)).astype(int)


def place_polygons(polygons, crs, transform, width, height):
    """
    Placed: the polygons that may touch a raster, in its CRS.

    polygons: vectors.reading.Polygons. crs: rasterio CRS or text. UserError where the two CRSs don't lead to each other.
    """
    own, theirs = as_crs(crs), as_crs(polygons.crs)
    a, b, _, d, e, _ = tuple(transform)[:6]
    target = Target(theirs, own, raster_bounds(transform, 0, 0, width, height), min(math.hypot(a, d), math.hypot(b, e)))
    if own.equals(theirs, ignore_axis_order=True):
        return on_raster(polygons.geometries, polygons.labels, target)
    turn = turn_of(theirs)
    box = box_of(target, turn)
    near = polygons.tree.query(shapely.box(*np.clip(np.transpose(turned(box, turn)), -FAR, FAR)))[1]
    if turn:
        west, _, east, _ = shapely.bounds(polygons.geometries).T
        near = np.concatenate([near, np.flatnonzero(east - west > 180)])
    near = np.unique(near)
    if not len(near):
        return NOTHING
    parts, of = parts_near(polygons.geometries[near], target, box, turn)
    moved, kept = moved_whole(parts, polygons.geometries[near][of], target)
    return on_raster(moved, polygons.labels[near][of][kept], target)


def box_of(target, turn):
    """The raster's box in the polygons' CRS. UserError where the polygons' CRS does not reach it."""
    try:
        box = transform_box(target.crs, target.source, target.raster)
    except NoTransform as error:
        raise UserError(
            f"polygons in {name_of(target.source)} cannot be placed on a raster in {name_of(target.crs)}; expected a CRS of the globe "
            "(gdal_edit.py -a_srs)"
        ) from error
    if turn:
        return lonlat_box(box, target)
    if not np.isfinite(box).all():
        raise UserError(f"a raster in {name_of(target.crs)} reaches to where {name_of(target.source)} does not; convert the polygons")
    return box


def lonlat_box(box, target):
    """
    A raster's box in lon/lat as transform_box gives it, made whole: it passes over what a raster holds beyond the globe, and with it over a
    pole.
    """
    west, south, east, north = (b if math.isfinite(b) else limit for b, limit in zip(box, WORLD, strict=True))
    if west > east:  # across the antimeridian
        east += 360.0
    x, y = transform_points(target.source, target.crs, [(west + east) / 2] * 2, [-90.0, 90.0])
    inside = (target.raster[0] <= x) & (x <= target.raster[2]) & (target.raster[1] <= y) & (y <= target.raster[3])
    return west, min(south, -90.0) if inside[0] else south, east, max(north, 90.0) if inside[1] else north


def widened(box, turn):
    """
    A box with a tenth more around it, so that edges made by clipping lie outside of the raster. turn: 360 for lon/lat, else 0.

    It reaches a pole only where the box does, since some projections don't, and all longitudes are −infinity..infinity.
    """
    west, south, east, north = box
    across, along = (east - west) / 10, (north - south) / 10
    if not turn:
        return west - across, south - along, east + across, north + along
    south, north = max(south - along, (south - 90) / 2), min(north + along, (north + 90) / 2)
    if east - west + 2 * across >= turn:
        return -math.inf, south, math.inf, north
    return west - across, south, east + across, north


def turned(box, turn):
    """A box in lon/lat, and where else it lies for those who count longitudes another way."""
    if not turn or box[0] == -math.inf:
        return [box]
    return [(box[0] + t, box[1], box[2] + t, box[3]) for t in (0.0, -turn, turn)]


def clip_boxes(box, turn, ends):
    """
    [(box, degrees)]: the boxes of `turned`, and by how much what lies in one is moved east before it goes to the map.

    ends: the map ends at the antimeridian. A polygon across it would become one around the whole map, so boxes end there too, and what
    lies beyond is moved back.
    """
    boxes = turned(box, turn)
    if not ends:
        return [(b, 0.0) for b in boxes]
    cut = [((max(b[0], t - turn / 2), b[1], min(b[2], t + turn / 2), b[3]), -t) for b in boxes for t in (0.0, -turn, turn)]
    return [(b, t) for b, t in cut if b[0] < b[2]]


def parts_near(geometries, target, box, turn):
    """
    (parts, of): what of polygons lies near the raster, edges short enough to be moved; of: (K,) which polygon each is a part of.

    Small polygons stay as they are.
    """
    step = longest_straight_edge(target, box)
    jump = shortest_jump(target, box) if turn else math.inf
    boxes = clip_boxes(widened(box, turn), turn, ends=turn and jump == math.inf)
    west, south, east, north = shapely.bounds(geometries).T
    wide = (east - west > 180) & bool(turn)
    small = ~wide & (np.hypot(east - west, north - south) <= step)
    inside = [(b[0] <= west) & (b[1] <= south) & (east <= b[2]) & (north <= b[3]) for b, degrees in boxes if not degrees]
    as_they_are = small & np.any(inside, axis=0)
    parts, of = [geometries[as_they_are]], [np.flatnonzero(as_they_are)]
    others = np.flatnonzero(~as_they_are)
    whole = geometries[others]
    for k in np.flatnonzero(wide[others]):
        whole[k] = without_jumps(whole[k], jump)
    for k in np.flatnonzero(~shapely.is_valid(whole)):
        whole[k] = even_odd(whole[k])
    for clip, degrees in boxes:
        limits = shapely.box(*np.clip(clip, -FAR, FAR))
        found, which = polygons_in(shapely.intersection(whole, limits))
        parts.append(moved_east(shapely.segmentize(found, step), degrees))
        of.append(others[which])
    return np.concatenate(parts), np.concatenate(of)


def even_odd(polygon):
    """A valid shape that covers what an invalid polygon does when it is burned: places that an odd number of its rings go around."""
    return functools.reduce(shapely.symmetric_difference, [area_in(ring) for ring in (polygon.exterior, *polygon.interiors)])


def area_in(ring):
    """The MultiPolygon of what a ring encloses that may cross itself."""
    return shapely.MultiPolygon(polygons_in([shapely.make_valid(shapely.Polygon(ring))])[0].tolist())


def polygons_in(geometries):
    """(polygons, which geometry each is of): an intersection may also hold lines and points, where things only touch."""
    parts, of = shapely.get_parts(geometries, return_index=True)
    while (shapely.get_type_id(parts) > 3).any():  # a multipolygon in a collection
        parts, inner = shapely.get_parts(parts, return_index=True)
        of = of[inner]
    areas = (shapely.get_type_id(parts) == 3) & ~shapely.is_empty(parts)
    return parts[areas], of[areas]


def shortest_jump(target, box):
    """
    Degrees of longitude from which on an edge is not meant as it stands: from 179 to −179 may be the 2 degrees across the antimeridian.

    Near the antimeridian and around the poles that is every edge of more than 180 (FOLLOWED). Elsewhere it is not likely (DOUBTED): see
    without_jumps. Where a map ends at the antimeridian, as Web Mercator does, edges are what they are.
    """
    west, south, east, north = box
    places = transform_points(target.source, target.crs, [179.997, 179.999, -179.999], [(south + north) / 2] * 3)
    with np.errstate(invalid="ignore"):
        on_the_globe, on_the_map = np.hypot(*np.diff(places))
    if not on_the_map < 2 * on_the_globe:  # also where the map does not reach there
        return math.inf
    return FOLLOWED if west < -NEAR_TURN or east > NEAR_TURN else DOUBTED


def without_jumps(polygon, jump):
    """
    A polygon in lon/lat whose longitudes go on beyond 180 where an edge of more than `jump` degrees would cross all the map.

    Doubtful ones do so only where the outer ring as it stands runs clockwise, against GeoJSON's rule: a box around the world stays one.
    From −180 to 180 is always the long way, since the short one would be nothing. A ring around a pole is filled up to it.
    """
    rings = [shapely.get_coordinates(ring) for ring in (polygon.exterior, *polygon.interiors)]
    if not any(jumps(ring, jump).any() for ring in rings) or (jump == DOUBTED and signed_area(polygon.exterior) > 0):
        return polygon
    shell, *holes = [continued(ring) for ring in rings]
    for hole in holes:  # whichever way its longitudes are counted
        shell = shapely.difference(shell, shapely.union_all([moved_east(hole, degrees) for degrees in (0.0, -360.0, 360.0)]))
    return shell


def jumps(ring, jump):
    """(N − 1,) degrees by which longitude goes on after each edge of a ring (N, 2): ±360 where it jumps, else 0."""
    steps = np.diff(ring[:, 0])
    return np.where((np.abs(steps) > jump) & (np.abs(steps) < 360 - 1e-9), -360 * np.sign(steps), 0)


def continued(ring):
    """The area in a ring (N, 2) whose jumps are followed; of a ring around a pole, the cap."""
    moved = ring.copy()
    moved[1:, 0] += np.cumsum(jumps(ring, FOLLOWED))
    around = moved[-1, 0] - moved[0, 0]
    if not around:
        return area_in(moved)
    if (around > 0) != (ring[:, 1].mean() > 0):  # the pole has to be on the left
        ring = ring[::-1]
    try:
        return shapely.make_valid(antimeridian.fix_polygon(shapely.Polygon(ring), fix_winding=True, great_circle=False))
    except (AssertionError, ValueError) as error:
        west, south, east, north = *ring.min(axis=0), *ring.max(axis=0)
        raise UserError(
            f"the polygon at {west:g}, {south:g} to {east:g}, {north:g} crosses itself around a pole; pass it in parts that don't"
        ) from error


def longest_straight_edge(target, box):
    """Length of an edge in the polygons' CRS that is straight on the raster to CHORD pixels everywhere in a box; may be infinity."""
    west, south, east, north = box
    dx, dy = (east - west) / 8, (north - south) / 8
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(west + dx, east - dx, 5), np.linspace(south + dy, north - dy, 5)))
    ways = ((dx, 0), (0, dy), (dx, dy), (dx, -dy))
    places = np.array([(x + side * way[0] / 2, y + side * way[1] / 2) for way in ways for side in (-1, 0, 1)])  # (4 · 3, 2, 25)
    moved = np.array(target.move(places[:, 0].ravel(), places[:, 1].ravel()))
    begin, middle, end = np.moveaxis(moved.reshape(2, len(ways), 3, -1), 2, 0)
    with np.errstate(invalid="ignore"):
        off = np.hypot(*(middle - (begin + end) / 2)) / target.pixel  # pixels, (4, 25)
    off = np.where(np.isfinite(off), off, 0).max(axis=1)
    # The distance grows with the square of the length. No more than some thousand pieces, also where a coordinate jumps within the box.
    steps = [math.hypot(*way) * math.sqrt(CHORD / worst) for way, worst in zip(ways, off, strict=True) if worst > 0]
    return max(min(steps, default=math.inf), math.hypot(east - west, north - south) / 2000)


def moved_whole(parts, wholes, target):
    """
    (moved, kept): parts of polygons in the raster's CRS, and which ones these are; those of which nothing is there are left out.

    wholes: what each is a part of. UserError where only some of a polygon has a place on the raster's map, such as a picture of the globe
    from afar: nobody knows what outline it has there.
    """
    moved, lost = target.move_shapes(parts)
    kept = lost == 0
    for k in np.flatnonzero(~kept):
        (whole,), (lost_of_whole,) = target.move_shapes(wholes[k : k + 1])
        west, south, east, north = wholes[k].bounds
        if not lost_of_whole:  # a corner of the box may have no place, although all of the polygon has
            moved[k], kept[k] = whole, True
        elif east - west > 180 or lost[k] < shapely.get_num_coordinates(parts[k]):
            raise UserError(
                f"the polygon at {west:g}, {south:g} to {east:g}, {north:g} goes on where a raster in {name_of(target.crs)} shows nothing; "
                "cut it to the ground that the raster shows"
            )
    return moved[kept], np.flatnonzero(kept)


def on_raster(geometries, labels, target):
    """Placed: those shapes in the raster's CRS that meet its bounds; in degrees also where longitudes are counted another way."""
    found, of = [], []
    west, south, east, north = shapely.bounds(geometries).T
    for degrees in (0.0, -target.turn, target.turn) if target.turn else (0.0,):
        left, bottom, right, top = target.raster
        meets = (west + degrees <= right) & (east + degrees >= left) & (south <= top) & (north >= bottom)
        here = np.flatnonzero(meets)
        found.append(moved_east(geometries[here], degrees))
        of.append(here)
    found, of = np.concatenate(found), np.concatenate(of)
    order = np.lexsort((of, labels[of]))
    return Placed(found[order], labels[of][order])


def raster_bounds(transform, col, row, width, height):
    """(west, south, east, north) of a window, rotated rasters included."""
    corners = [Affine(*transform[:6]) * p for p in ((col, row), (col + width, row), (col, row + height), (col + width, row + height))]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def burn(placed, transform, window, value=None):
    """
    uint8 (height, width) of a window (col, row, width, height): the class of the last polygon over a pixel's centre, 0 elsewhere.

    placed: Placed, in the raster's CRS. transform: the raster's. value: burn this instead of the polygons' classes.
    """
    col, row, width, height = window
    near = np.sort(placed.tree.query(shapely.box(*raster_bounds(transform, col, row, width, height)))) if len(placed) else ()
    if not len(near):
        return np.zeros((height, width), np.uint8)
    shapes = [(placed.as_dicts[k], int(placed.labels[k]) if value is None else value) for k in near]
    place = Affine(*transform[:6]) * Affine.translation(col, row)
    return rasterize(shapes, out_shape=(height, width), transform=place, fill=0, dtype=np.uint8)
