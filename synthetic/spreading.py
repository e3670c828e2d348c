"""Travel time over a grid with costs: how a fire front, a road or the distance to a river grows from cell to cell."""

import numpy as np

# The eight neighbours of a cell as (rows, columns) from the neighbour to the cell, with the distance in cells.
STEPS = [(dr, dc, float(np.hypot(dr, dc))) for dr in (-1, 0, 1) for dc in (-1, 0, 1) if dr or dc]


def shifted(field, rows, columns, fill):
    """`field` moved down by `rows` and right by `columns` whole cells; vacated cells are `fill`."""
    moved = np.full_like(field, fill)
    height, width = field.shape
    if abs(rows) >= height or abs(columns) >= width:
        return moved
    moved[max(rows, 0) : height + min(rows, 0), max(columns, 0) : width + min(columns, 0)] = field[
        max(-rows, 0) : height - max(rows, 0), max(-columns, 0) : width - max(columns, 0)
    ]
    return moved


def spreading_time(cost, start, rounds=None):
    """Least time from `start` to each cell. (H, W) float32; inf where it is never reached.

    cost: (8, H, W) time to enter a cell from its neighbour per cell of distance, in the order of STEPS; inf = impassable
    start: (H, W) bool
    """
    time = np.where(start, 0.0, np.inf).astype(np.float32)
    steps = [(dr, dc, cost[i] * np.float32(distance)) for i, (dr, dc, distance) in enumerate(STEPS)]
    for _ in range(rounds or 3 * max(time.shape)):
        before = time
        for dr, dc, step in steps:
            time = np.minimum(time, shifted(time, dr, dc, np.inf) + step)
        if np.array_equal(before, time):
            break
    return time
