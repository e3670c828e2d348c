"""
Outlines of the areas of a class map, found strip by strip while the map streams by.

Pixels of one class that share a side belong together (not those that only touch at a corner). A strip is taken apart into runs; runs that
touch are joined to areas; every area collects the unit sides between it and anything else. An area that no longer reaches the lowest row is
closed: too small, it is dropped; else its sides are linked to rings. Only open areas are carried to the next strip, so memory does not
grow with the height, not even on noise: an area whose outline gets longer than MAX_OPEN_SIDES is cut along the strip's lower border,
and so are the longest ones where all open outlines together get longer than MAX_ALL_SIDES. What lies below such a border is another area;
all parts of a cut area say so, and none of them is too small to be kept.

Sides are directed so that the area lies to the right (rows counted downwards): outer rings run clockwise on the screen, holes the other
way. At a corner where two pixels of one area touch diagonally, the path keeps to the pair, so every ring is simple and rings at most
touch in points.
"""

from array import array
from dataclasses import dataclass

import numpy as np

from constants import IGNORE

MAX_OPEN_SIDES = 2_000_000  # pixel sides; linking them to rings takes 240 MB. 20 000 km of outline at 10 m pixels
MAX_ALL_SIDES = 4 * MAX_OPEN_SIDES
EAST, SOUTH, WEST, NORTH = range(4)
STEP_X, STEP_Y = np.array([1, 0, -1, 0]), np.array([0, 1, 0, -1])


@dataclass
class Area:
    """
    A closed area.

    value: its class. square_metres: None where pixels have no known area. mean: of the values over it. points: (N, 2) int64 corners
    (column, row) of one ring after another, the outer one, then holes; the first of a ring is not repeated. lengths: (R,) corners of each
    ring. column, row: a pixel of it. cut: whether it goes on in another Area, below or above.
    """

    value: int
    pixels: int
    square_metres: float | None
    mean: float
    points: np.ndarray
    lengths: np.ndarray
    column: int
    row: int
    cut: bool

    @property
    def rings(self):
        """[(n, 2) corners of each ring]."""
        return np.split(self.points, np.cumsum(self.lengths)[:-1])


def connected(count, a, b):
    """(count,) the smallest member of each node's group, for nodes 0 … count − 1 joined by pairs (a[i], b[i])."""
    root = np.arange(count)
    while len(a):
        ra, rb = root[a], root[b]
        different = ra != rb
        a, b, ra, rb = a[different], b[different], ra[different], rb[different]
        if not len(a):
            break
        np.minimum.at(root, np.maximum(ra, rb), np.minimum(ra, rb))
        while True:  # let every node point to the end of its chain
            further = root[root]
            if np.array_equal(further, root):
                break
            root = further
    return root


class AreaFinder:
    """
    Takes the strips of a class map from top to bottom and returns the Areas that close.

    smallest: square metres (pixels where areas are unknown) below which an area is dropped. step: keep a corner at least every so many
    pixels along straight sides, for maps whose straight lines are curves on the globe; None for corners only.

        finder = AreaFinder(width, smallest=5000.0)
        for strip in strips: areas += finder.add(classes, values, square_metres)
        areas += finder.finish()
    """

    def __init__(self, width, smallest=0.0, step=None, max_open_sides=MAX_OPEN_SIDES, max_all_sides=MAX_ALL_SIDES):
        self.width, self.smallest, self.step = width, smallest, step
        self.max_open_sides, self.max_all_sides = max_open_sides, max_all_sides
        self.row = 0  # of the next strip
        self.last = np.zeros(width, dtype=np.uint16)  # labels of the lowest row seen
        self.last_area = np.zeros(width, dtype=np.int64)  # which open area its pixels belong to
        self.cut_off = np.zeros(width, dtype=np.uint16)  # labels of the lowest row where an area has been cut, 0 elsewhere
        self.open = empty_table()
        self.sides = np.empty(0, dtype=np.int64)
        self.side_area = np.empty(0, dtype=np.int64)  # index into self.open

    def add(self, classes, values, square_metres=None, parts=None):
        """
        Areas that close within or above a strip.

        classes: (rows, W) uint8, 0 and 255 are no area. values: (rows, W) numbers whose mean an area carries. square_metres: (rows, 1) or
        (rows, W), None for unknown. parts: (rows, W) of 0 and 1: pixels of different parts don't belong together, or None.
        """
        labels = np.where(classes == IGNORE, 0, classes).astype(np.uint16)
        if parts is not None:
            labels = np.where(labels > 0, labels + 256 * parts.astype(np.uint16), 0).astype(np.uint16)
        if not labels.any() and not self.last.any():
            self.row += len(labels)
            self.cut_off[:] = 0
            return []
        both = np.concatenate([self.last[None], labels])  # row 0 is the one above the strip
        runs = Runs(both)
        carried = runs.stop <= self.width  # runs of the row above
        carried_area = self.last_area[runs.start[carried]]
        a, b = runs.touching()
        # Runs above the strip that belong to one open area are joined through the first of them.
        first_run = np.full(len(self.open["value"]), -1)
        first_run[carried_area[::-1]] = np.flatnonzero(carried)[::-1]
        root = connected(len(runs.start), np.concatenate([a, first_run[carried_area]]), np.concatenate([b, np.flatnonzero(carried)]))
        roots, area = np.unique(root, return_inverse=True)  # area: index of each run's area among those of this strip
        table = self.measure(runs, carried, area, len(roots), values, square_metres)
        from_open = np.zeros(len(self.open["value"]), dtype=np.int64)
        from_open[carried_area] = area[carried]
        merge_tables(table, self.open, from_open)
        below = np.flatnonzero((labels[0] > 0) & (labels[0] == self.cut_off))
        table["cut"][area[runs.at(below + self.width)]] = True

        sides, owner = self.new_sides(both, runs)
        sides = np.concatenate([self.sides, sides])
        side_area = np.concatenate([from_open[self.side_area], area[owner]])
        self.row += len(labels)
        lowest = runs.start >= len(labels) * self.width
        still_open = np.zeros(len(roots), dtype=bool)
        still_open[area[lowest]] = True

        # An outline that got too long is closed here; what lies below begins as another area.
        self.cut_off[:] = 0
        too_long = self.too_long(np.bincount(side_area, minlength=len(roots)), still_open)
        if too_long.any():
            cut = np.flatnonzero(lowest & too_long[area])
            owner, column = self.pixels_of(runs, cut)
            self.cut_off[column] = runs.value[owner]
            extra, extra_area = self.lower_sides(runs, cut, area)
            sides, side_area = np.concatenate([sides, extra]), np.concatenate([side_area, extra_area])
            table["cut"][too_long] = True
            still_open &= ~too_long
            lowest &= ~too_long[area]
        self.carry(runs, lowest, area, still_open, table, sides, side_area)
        return self.close(~still_open, table, sides, side_area)

    def finish(self):
        """The Areas that reach the lowest row of the map."""
        if not self.last.any():
            return []
        runs = Runs(self.last[None])
        area = self.last_area[runs.start]
        extra, extra_area = self.lower_sides(runs, np.arange(len(runs.start)), area)
        closed = self.close(
            np.ones(len(self.open["value"]), dtype=bool), self.open,
            np.concatenate([self.sides, extra]), np.concatenate([self.side_area, extra_area]),
        )
        self.last[:] = 0
        return closed

    def too_long(self, lengths, still_open):
        """(areas,) bool: which of the open areas to cut, by the lengths of their outlines."""
        lengths = np.where(still_open, lengths, 0)
        longest = np.argsort(-lengths, kind="stable")
        left = lengths.sum() - np.cumsum(lengths[longest]) + lengths[longest]  # open sides, if all longer ones are cut
        too_long = lengths > self.max_open_sides
        too_long[longest] |= (left > self.max_all_sides) & (lengths[longest] > 0)
        return too_long

    def measure(self, runs, carried, area, count, values, square_metres):
        """What the runs of the strip itself add to each area."""
        new = ~carried
        start, stop = runs.start[new] - self.width, runs.stop[new] - self.width  # in the flattened strip
        pixels = (stop - start).astype(np.float64)
        owner = area[new]
        table = empty_table(count)
        table["value"][area] = runs.value
        first = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(first, owner, start)
        table["first"][:] = np.where(first == np.iinfo(np.int64).max, first, first + self.row * self.width)
        table["pixels"][:] = np.bincount(owner, pixels, count)
        table["total"][:] = np.bincount(owner, sums_of_runs(values, start, stop), count)
        if square_metres is not None and square_metres.shape[1] == 1:
            metres = pixels * square_metres[start // self.width, 0]
        else:
            metres = pixels if square_metres is None else sums_of_runs(square_metres, start, stop)
        table["metres"][:] = np.bincount(owner, metres, count)
        table["known"][:] = square_metres is not None
        return table

    def new_sides(self, both, runs):
        """(sides, run that owns each) between the strip's pixels, and between them and the row above."""
        new = np.flatnonzero(runs.start >= self.width)
        start, stop = runs.start[new], runs.stop[new]
        y, left, right = start // self.width - 1, start % self.width, (stop - 1) % self.width + 1
        change = np.flatnonzero(both[1:].ravel() != both[:-1].ravel())  # pixels of the strip that differ from the one above
        below, above = both[1:].ravel()[change] > 0, both[:-1].ravel()[change] > 0
        top, bottom = change[below], change[above]
        sides = np.concatenate([
            self.side(left, y + 1, NORTH), self.side(right, y, SOUTH),
            self.side(top % self.width, top // self.width, EAST), self.side(bottom % self.width + 1, bottom // self.width, WEST),
        ])
        # `bottom` is the lower side of the pixel above: at the same place in `both`, which has that row in front.
        return sides, np.concatenate([new, new, runs.at(top + self.width), runs.at(bottom)])

    def lower_sides(self, runs, chosen, area):
        """(sides, area of each) along the lower border of what has been seen, under some runs of the lowest row."""
        owner, column = self.pixels_of(runs, chosen)
        return self.side(column + 1, np.zeros_like(column), WEST), area[owner]

    def pixels_of(self, runs, chosen):
        """(run, column) of every pixel of some runs."""
        length = runs.stop[chosen] - runs.start[chosen]
        owner = np.repeat(chosen, length)
        return owner, np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length) + runs.start[owner] % self.width

    def side(self, x, y, direction):
        """A directed side as one number: where it begins (y relative to self.row) and where it heads."""
        return ((y + self.row) * (self.width + 1) + x) * 4 + direction

    def carry(self, runs, lowest, area, still_open, table, sides, side_area):
        """Keep what is open for the next strip."""
        index = np.cumsum(still_open) - 1
        self.last[:] = 0
        self.last_area[:] = 0
        owner, column = self.pixels_of(runs, np.flatnonzero(lowest))
        self.last[column] = runs.value[owner]
        self.last_area[column] = index[area[owner]]
        self.open = {name: column[still_open] for name, column in table.items()}
        kept = still_open[side_area]
        self.sides, self.side_area = sides[kept], index[side_area[kept]]

    def close(self, closed, table, sides, side_area):
        """Areas for the closed rows of the table that are large enough or parts of a cut one, by their first pixel."""
        measured = np.where(table["known"], table["metres"], table["pixels"])
        wanted = np.flatnonzero(closed & ((measured >= self.smallest) | table["cut"]))
        wanted = wanted[np.argsort(table["first"][wanted], kind="stable")]
        # So many areas at once that no more than about MAX_OPEN_SIDES sides are linked; one of them may have more.
        total = np.cumsum(np.bincount(side_area, minlength=len(closed))[wanted])
        return [area for part in np.split(wanted, np.flatnonzero(np.diff(total // MAX_OPEN_SIDES)) + 1) if len(part)
                for area in self.outlined(part, table, sides, side_area)]

    def outlined(self, wanted, table, sides, side_area):
        """Areas for some rows of the table. sides: all there are, also of other areas."""
        index = np.full(len(table["value"]), -1)
        index[wanted] = np.arange(len(wanted))
        kept = index[side_area] >= 0
        points, lengths, ring_area = link_rings(sides[kept], index[side_area[kept]], self.width, self.step)
        rings = np.searchsorted(ring_area, np.arange(len(wanted) + 1))  # where those of each area begin
        corners = np.concatenate([[0], np.cumsum(lengths)])[rings].tolist()
        rings, areas = rings.tolist(), []
        for n, i in enumerate(wanted):
            pixels, first = int(table["pixels"][i]), int(table["first"][i])
            areas.append(Area(
                int(table["value"][i]) % 256, pixels, float(table["metres"][i]) if table["known"][i] else None,
                float(table["total"][i] / pixels), points[corners[n] : corners[n + 1]], lengths[rings[n] : rings[n + 1]],
                first % self.width, first // self.width, bool(table["cut"][i]),
            ))
        return areas


class Runs:
    """Runs of one label above 0 in the rows of (rows, W) labels: start and stop in the flattened array, and value. In reading order."""

    def __init__(self, labels):
        self.width = labels.shape[1]
        flat = labels.ravel()
        change = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        edges = np.union1d(change, np.arange(0, flat.size + 1, self.width))
        value = flat[edges[:-1]]
        kept = value > 0
        self.start, self.stop, self.value = edges[:-1][kept], edges[1:][kept], value[kept]

    def touching(self):
        """(i, j): runs of equal value of which j lies below i and shares a side with it."""
        low = np.searchsorted(self.stop, self.start - self.width, side="right")
        high = np.searchsorted(self.start, self.stop - self.width, side="left")
        count = np.maximum(high - low, 0)
        below = np.repeat(np.arange(len(count)), count)
        above = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
        same = self.value[above] == self.value[below]
        return above[same], below[same]

    def at(self, place):
        """The run that holds each place of the flattened array."""
        return np.searchsorted(self.start, place, side="right") - 1


TABLE = {"value": np.int64, "pixels": np.float64, "metres": np.float64, "total": np.float64, "first": np.int64, "cut": bool, "known": bool}


def empty_table(count=0):
    """One column a property, one row an area. first: flat index of its first pixel. total: sum of the values. cut, known: flags."""
    return {name: np.zeros(count, dtype=kind) for name, kind in TABLE.items()}


def merge_tables(table, earlier, row_of):
    """Add what areas had before the strip to their rows in `table`; several may have grown together."""
    for name in ("pixels", "metres", "total"):
        np.add.at(table[name], row_of, earlier[name])
    np.minimum.at(table["first"], row_of, earlier["first"])
    for name in ("known", "cut"):
        np.logical_or.at(table[name], row_of, earlier[name])


def sums_of_runs(values, start, stop):
    """Sum of an array over pieces of its flattened form."""
    if not len(start):
        return np.empty(0)
    bounds = np.stack([start, stop], axis=1).ravel()
    flat = np.append(values.ravel(), np.zeros(1, dtype=values.dtype))  # a piece may end where the array ends
    return np.add.reduceat(flat, bounds, dtype=np.float64)[::2]


def link_rings(sides, area, width, step):
    """
    The rings of some areas, sorted by area, in each the outer one first, from the sides of all of them.

    → points (N, 2) of one ring after another, lengths (R,), area (R,) of each ring.
    """
    span = int(sides.max()) // 4 + width + 3
    key = np.sort((area * span + sides // 4) * 4 + sides % 4)  # by area, then from top to bottom, then from left to right
    key, direction = key >> 2, (key & 3).astype(np.int8)
    after = next_sides(key, direction, STEP_X + STEP_Y * (width + 1))
    turns = direction[after] != direction  # the corner at the end of a side
    if step:
        x, y = end_of(key % span, direction, width)
        turns |= np.where(direction % 2 == 0, x, y) % step == 0
    corners, following = skip_straight(after, turns)
    order, starts = rings_of(following)
    at = corners[order]
    points = np.stack(end_of(key[at] % span, direction[at], width), axis=1)
    # A ring is found at its highest side, and the highest one of an area is the outer one's.
    return points, np.diff(starts, append=len(order)), key[at[starts]] // span


def next_sides(key, direction, leap):
    """(N,) for each side the one that begins where it ends. key: sorted. leap: from the key of a side's beginning to that of its end."""
    end = key + leap[direction]
    after = np.searchsorted(key, end)
    # Two sides of an area begin where two of its pixels touch diagonally: turn left, towards the other pixel.
    second = np.minimum(after + 1, len(key) - 1)
    double = (second != after) & (key[second] == end)
    return np.where(double & (direction[second] == (direction + 3) % 4), second, after)


def end_of(vertex, direction, width):
    """(x, y) of the ends of sides that begin at some vertices."""
    return vertex % (width + 1) + STEP_X[direction], vertex // (width + 1) + STEP_Y[direction]


def skip_straight(after, turns):
    """(C,) sides that end in a corner, and (C,) which of them follows on each."""
    jump = after.copy()  # from each side to the next one that ends in a corner
    while True:
        further = np.where(turns[jump], jump, jump[jump])
        if np.array_equal(further, jump):
            break
        jump = further
    corners = np.flatnonzero(turns)
    return corners, (np.cumsum(turns) - 1)[jump[corners]]


def rings_of(following):
    """(C,) corners in the order of the rings that they make up, and (R,) where each ring begins in it."""
    following, seen = array("q", following.tobytes()), bytearray(len(following))
    order, starts = array("q"), array("q")  # lists would take five times the memory
    for first in range(len(following)):
        if seen[first]:
            continue
        starts.append(len(order))
        here = first
        while not seen[here]:
            seen[here] = 1
            order.append(here)
            here = following[here]
    return np.frombuffer(order, np.int64), np.frombuffer(starts, np.int64)
