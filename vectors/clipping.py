"""
Polygons on their way into a raster's CRS: only what lies near the raster, on edges so short that their course is kept.

Sutherland and Hodgman's clipping, and points between. In lon/lat one place has several longitudes: most of what is here is about that.
"""

import math

import numpy as np

CHORD = 0.05  # pixels that a polygon's edge may lie beside its true course
NEAR_TURN = 150  # degrees of longitude from which on the antimeridian is near
WORLD = (-180.0, -90.0, 180.0, 90.0)
FOLLOWED, DOUBTED = 180, 270  # degrees of longitude that an edge may have near the antimeridian, and far from it


def projected(source, target, xs, ys):
    """
    (2, N) of N places in another CRS; infinity where one leads nowhere.

    Of such a place GDAL makes an error the first twenty times in a process and infinity after that: the same labels need the same answer.
    """
    from rasterio._err import CPLE_BaseError
    from rasterio.warp import transform

    try:
        return np.array(transform(source, target, xs, ys))
    except CPLE_BaseError:
        if len(xs) == 1:
            return np.full((2, 1), np.inf)
        half = len(xs) // 2
        return np.concatenate([projected(source, target, xs[k], ys[k]) for k in (slice(half), slice(half, None))], axis=1)


def lonlat_box(box, bounds, theirs, own):
    """
    A raster's box in lon/lat as transform_bounds gives it, made whole: GDAL passes over what a raster holds beyond the globe, and with it
    over a pole. bounds: (west, south, east, north) of the raster in its own CRS.
    """
    west, south, east, north = (b if math.isfinite(b) else limit for b, limit in zip(box, WORLD, strict=True))
    if west > east:  # across the antimeridian
        east += 360.0
    for pole in (-90.0, 90.0):
        (x,), (y,) = projected(theirs, own, [(west + east) / 2], [pole])
        if bounds[0] <= x <= bounds[2] and bounds[1] <= y <= bounds[3]:
            south, north = min(south, pole), max(north, pole)
    return west, south, east, north


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


def polygons_of(geometry):
    """[rings] of a polygon or several."""
    return [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]


def moved_east(geometry, degrees):
    """A polygon in degrees with other longitudes."""
    moved = [[[(point[0] + degrees, point[1]) for point in ring] for ring in rings] for rings in polygons_of(geometry)]
    return {"type": "MultiPolygon", "coordinates": moved}


def shortest_jump(theirs, own, box):
    """
    Degrees of longitude from which on an edge is not meant as it stands: from 179 to −179 may be the 2 degrees across the antimeridian.

    Near the antimeridian and around the poles that is every edge of more than 180 (FOLLOWED). Elsewhere it is not likely (DOUBTED): see
    without_jumps. Where a map ends at the antimeridian, as Web Mercator does, edges are what they are.
    """
    west, south, east, north = box
    places = projected(theirs, own, [179.997, 179.999, -179.999], [(south + north) / 2] * 3)
    with np.errstate(invalid="ignore"):
        on_the_globe, on_the_map = np.hypot(*np.diff(places))
    if not on_the_map < 2 * on_the_globe:  # also where the map does not reach there
        return math.inf
    return FOLLOWED if west < -NEAR_TURN or east > NEAR_TURN else DOUBTED


def longest_straight_edge(theirs, own, box, transform):
    """Length of an edge in `theirs` that is straight in `own` to CHORD pixels everywhere in a box; infinity where nothing bends."""
    west, south, east, north = box
    dx, dy = (east - west) / 8, (north - south) / 8
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(west + dx, east - dx, 5), np.linspace(south + dy, north - dy, 5)))
    ways = ((dx, 0), (0, dy), (dx, dy), (dx, -dy))
    places = np.array([(x + side * way[0] / 2, y + side * way[1] / 2) for way in ways for side in (-1, 0, 1)])  # (4 · 3, 2, 25)
    moved = projected(theirs, own, places[:, 0].ravel().tolist(), places[:, 1].ravel().tolist())
    begin, middle, end = np.moveaxis(moved.reshape(2, len(ways), 3, -1), 2, 0)
    a, b, _, d, e, _ = tuple(transform)[:6]
    with np.errstate(invalid="ignore"):
        off = np.hypot(*(middle - (begin + end) / 2)) / min(math.hypot(a, d), math.hypot(b, e))  # pixels, (4, 25)
    off = np.where(np.isfinite(off), off, 0).max(axis=1)
    # The distance grows with the square of the length. No more than some thousand pieces, also where a coordinate jumps within the box.
    steps = [math.hypot(*way) * math.sqrt(CHORD / worst) for way, worst in zip(ways, off, strict=True) if worst > 0]
    return max(min(steps, default=math.inf), math.hypot(east - west, north - south) / 2000)


def part_near(geometry, bounds, boxes, step, turn, jump):
    """
    The part of a polygon within boxes that are the same place, its edges no longer than `step`; itself where it is so, or None.

    boxes: [(box, degrees)] of clip_boxes.
    """
    west, south, east, north = bounds
    wide = turn and east - west > 180
    if not wide and math.hypot(east - west, north - south) <= step:
        if any(b[0] <= west and b[1] <= south and east <= b[2] and north <= b[3] and not degrees for b, degrees in boxes):
            return geometry
    found = []
    for member in polygons_of(geometry):
        rings = [closed(ring) for ring in member if len(ring) > 2]
        if not rings:
            continue
        if wide:
            rings = without_jumps(rings, jump)
        if rings[0][0, 0] != rings[0][-1, 0]:  # around a pole: no part of the plane that could be clipped
            found.append([dense(ring, step).tolist() for ring in rings])
            continue
        for box, degrees in boxes:
            parts = [clipped(ring, box) for ring in rings]
            if len(parts[0]):
                found.append([(dense(ring, step) + (degrees, 0)).tolist() for ring in parts if len(ring)])
    return {"type": "MultiPolygon", "coordinates": found} if found else None


def closed(ring):
    points = np.array([point[:2] for point in ring], float)
    return points if (points[0] == points[-1]).all() else np.concatenate([points, points[:1]])


def without_jumps(rings, jump):
    """
    Rings of a polygon in lon/lat, (N, 2) each, whose longitudes go on beyond 180 where an edge of more than `jump` degrees would cross all
    the map.

    Doubtful ones do so only where the outer ring as it stands runs clockwise, against GeoJSON's rule: a box around the world stays one.
    From −180 to 180 is always the long way, since the short one would be nothing.
    """

    def jumps(ring):
        steps = np.diff(ring[:, 0])
        return np.where((np.abs(steps) > jump) & (np.abs(steps) < 360 - 1e-9), -360 * np.sign(steps), 0)

    x, y = rings[0].T
    counterclockwise = np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]) > 0
    if not any(jumps(ring).any() for ring in rings) or (counterclockwise and jump == DOUBTED):
        return rings
    moved = []
    for ring in rings:
        ring = ring.copy()
        ring[1:, 0] += np.cumsum(jumps(ring))
        if moved:  # a hole stays within its polygon
            ring[:, 0] += 360 * np.round((moved[0][:, 0].mean() - ring[:, 0].mean()) / 360)
        moved.append(ring)
    return moved


def clipped(ring, box):
    """The part of a closed ring (N, 2) within a box, closed; (0, 2) where there is none. After Sutherland and Hodgman."""
    points = ring[:-1]
    for axis, sign, limit in ((0, 1, box[0]), (1, 1, box[1]), (0, -1, box[2]), (1, -1, box[3])):
        depth = sign * (points[:, axis] - limit)
        inside = depth >= 0
        if inside.all():
            continue
        if not inside.any():
            return np.empty((0, 2))
        leaves = inside != np.roll(inside, -1)  # between this point and the next
        share = np.where(leaves, depth / np.where(leaves, depth - np.roll(depth, -1), 1), 0)[:, None]
        border = points + share * (np.roll(points, -1, axis=0) - points)
        border[:, axis] = limit
        points = np.stack([points, border], axis=1)[np.stack([inside, leaves], axis=1)]
        if len(points) < 3:
            return np.empty((0, 2))
    return np.concatenate([points, points[:1]])


def dense(ring, step):
    """A closed ring (N, 2) with points between, so that no edge is longer than `step`."""
    edges = np.diff(ring, axis=0)
    pieces = np.maximum(1, np.ceil(np.hypot(*edges.T) / step)).astype(int)
    place = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # 0, 1, … within each edge
    between = np.repeat(ring[:-1], pieces, axis=0) + (place / np.repeat(pieces, pieces))[:, None] * np.repeat(edges, pieces, axis=0)
    return np.concatenate([between, ring[-1:]])
