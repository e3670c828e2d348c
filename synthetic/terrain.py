"""Terrain eroded by its own rivers, as flat river networks and heights.

Arrays are (H, W) with the row axis south and the column axis east; lengths are in cells. The same generator gives the same terrain.
"""

import numpy as np

from synthetic.fields import fractal_noise, smooth
from synthetic.spreading import STEPS, shifted, spreading_time


def downstream(elevation):
    """For each cell the flat index of the neighbour with the steepest descent, or of the cell itself in a pit. elevation: (H, W)"""
    best = np.zeros_like(elevation)
    index = np.arange(elevation.size).reshape(elevation.shape)
    receiver = index.copy()
    for rows, columns, distance in STEPS:
        fall = (elevation - shifted(elevation, rows, columns, np.inf)) / distance
        steeper = fall > best
        best = np.where(steeper, fall, best)
        receiver = np.where(steeper, shifted(index, rows, columns, 0), receiver)
    return receiver.ravel()


def levels_upstream(receiver):
    """Lists of flat indices: first the outlets, then the cells that drain directly into them, and so on up to the ridges."""
    steps = (receiver != np.arange(receiver.size)).astype(np.int32)
    jump = receiver.copy()
    while True:  # pointer doubling: after k rounds every cell knows its next 2^k steps
        further = steps + steps[jump]
        if np.array_equal(further, steps):
            break
        steps, jump = further, jump[jump]
    order = np.argsort(steps, kind="stable")
    return np.split(order, np.cumsum(np.bincount(steps))[:-1])


def drainage_area(receiver, levels):
    """Number of cells that drain through each cell, itself included. (cells,) float64"""
    area = np.ones(receiver.size)
    for cells in reversed(levels[1:]):
        area += np.bincount(receiver[cells], weights=area[cells], minlength=receiver.size)
    return area


def carve(floor, rng, rounds=24, strength=0.25, rounding=0.7):
    """Terrain that rises around `floor` (H, W bool: cells that stay at height 0 and drain the rest), eroded by its rivers.

    Returns (height, receiver, levels, area): heights >= 0 (H, W) in arbitrary units, and the river network as in the functions above.
    The stream-power law with an implicit step (Braun and Willett, 2013), stable for any step size; `rounding` is the blur in cells
    applied in each round, as soil creep does: more of it makes fewer and broader valleys.
    """
    # The start is a noisy distance to the floor, from which every cell already has a descent: there are no pits to fill.
    roughness = np.exp(0.9 * fractal_noise(rng, floor.shape, 1.3, longest=60, shortest=3))
    height = spreading_time(np.broadcast_to(roughness, (8, *floor.shape)), floor).astype(np.float64)
    fixed = floor.ravel()
    for round_number in range(rounds):
        if round_number:
            height = np.where(floor, 0.0, smooth(height, rounding))
        receiver = np.where(fixed, np.arange(fixed.size), downstream(height))
        levels = levels_upstream(receiver)
        area = drainage_area(receiver, levels)
        flat = height.ravel() + np.where(fixed, 0.0, 1.0)
        for cells in levels[1:]:
            factor = strength * np.sqrt(area[cells])
            flat[cells] = (flat[cells] + factor * flat[receiver[cells]]) / (1 + factor)
        height = flat.reshape(height.shape)
    return height.astype(np.float32), receiver, levels, area
