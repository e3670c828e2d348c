"""Boxes (N, 4) x1, y1, x2, y2 in pixels, float64: their areas, how much they overlap, and which do."""

import numpy as np
import shapely


def areas_of(boxes):
    """(N,) areas."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def clip(boxes, limits):
    """(N, 4) boxes cut at limits (4,) or (N, 4); what is outside has no area."""
    left_top = np.maximum(boxes[:, :2], limits[..., :2])
    return np.concatenate([left_top, np.maximum(np.minimum(boxes[:, 2:], limits[..., 2:]), left_top)], axis=1)


def common_areas(some, others):
    """(P,) areas that two (P, 4) boxes share, pair by pair."""
    sides = np.minimum(some[:, 2:], others[:, 2:]) - np.maximum(some[:, :2], others[:, :2])
    return np.prod(np.maximum(sides, 0), axis=1)


def iou_of(some, others):
    """(P,) intersection over union of two (P, 4) boxes, pair by pair; NaN where neither has an area."""
    common = common_areas(some, others)
    with np.errstate(invalid="ignore"):
        return common / (areas_of(some) + areas_of(others) - common)


class BoxSearch:
    """Finds boxes that overlap others, in a tree of rectangles. boxes: (N, 4). names: (N,) int64, what they are called, ascending."""

    def __init__(self, boxes, names):
        self.names, self.tree = names, shapely.STRtree(extents(boxes))

    def __len__(self):
        return len(self.names)

    def overlapping(self, asking):
        """(P,), (P,): names of the boxes that are asked for, and of those that overlap or touch them, pair by pair."""
        positions, found = self.tree.query(self.tree.geometries[np.searchsorted(self.names, asking)])
        return asking[positions], self.names[found]

    def under(self, boxes):
        """(P,), (P,): positions in other boxes (M, 4), and names of the boxes that overlap or touch them, pair by pair."""
        positions, found = self.tree.query(extents(boxes))
        return positions, self.names[found]


def extents(boxes):
    """What a tree takes for the boxes. It only knows the extents of shapes, and a diagonal has that of its box."""
    return shapely.linestrings(boxes.reshape(-1, 2, 2))
