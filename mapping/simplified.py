"""
Outlines with fewer corners: the areas of a map are simplified together, so that neighbours keep one border and no gap opens between them.

All areas have to be in memory for that, with a corner at every pixel side, where those of a map as it is are written as they close.
"""

import dataclasses

import numpy as np
import shapely

from runtime.errors import UserError

MOST = 10_000_000  # pixel sides of all outlines that are simplified together

EVERY = 1  # step of an AreaFinder: neighbours have to share every corner to be seen as such


class Simplifier:
    """
    Takes the Areas of an AreaFinder with the step EVERY, and has them simplified in the end.

    metres: borders move by about that much: each corner is left out whose triangle with its neighbours is smaller than the square of it.
    side: metres a side of a pixel, (across, down). straight: pixels, the longest side without a corner, or None.
    """

    def __init__(self, metres, side, straight):
        self.metres, self.side, self.straight = metres, np.array(side), straight
        self.areas, self.sides = [], 0

    def add(self, areas):
        """Keep some more Areas. UserError where they get too many."""
        self.areas += areas
        self.sides += sum(len(area.points) for area in areas)
        if self.sides > MOST:
            raise UserError(f"outlines of over {MOST:,} pixel sides are too many to simplify; leave out --simplify or raise --min-area")

    def finish(self):
        """All of them, in their order, with fewer corners. What else they say, such as square metres, is still that of their pixels."""
        if not self.areas:
            return []
        shapes = shapely.coverage_simplify(np.array([polygon_of(area, self.side) for area in self.areas]), self.metres)
        return [self.with_outline(area, shape) for area, shape in zip(self.areas, shapes, strict=True)]

    def with_outline(self, area, shape):
        rings = [np.rint(shapely.get_coordinates(ring)[:-1] / self.side).astype(np.int64)
                 for ring in (shape.exterior, *shape.interiors)]
        if self.straight:
            rings = [with_corners(ring, self.straight) for ring in rings]
        return dataclasses.replace(area, points=np.concatenate(rings), lengths=np.array([len(ring) for ring in rings]))


def polygon_of(area, side):
    outer, *holes = (ring * side for ring in area.rings)
    return shapely.polygons(outer, holes=[shapely.linearrings(hole) for hole in holes] or None)


def with_corners(ring, longest):
    """A ring (N, 2) with corners added along sides of more than `longest` pixels; the same ones whichever way a side is walked."""
    parts = []
    for start, stop in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        pieces = max(1, -(-int(np.abs(stop - start).max()) // longest))
        # From one end to the other by whole numbers: a neighbour's ring has the side the other way round.
        steps = np.arange(pieces)[:, None]
        parts.append((start * (pieces - steps) + stop * steps) / pieces)
    return np.concatenate(parts)
