"""The relief of a scene: hills eroded around a main valley, their rivers, perhaps a reservoir. The same generator gives the same relief."""

from dataclasses import dataclass

import numpy as np

from synthetic.fields import STEPS, enlarge, fractal_noise, shifted, smooth, spreading_time
from synthetic.materials import PIXEL

CELL = 4  # pixels: the relief is eroded on cells of 40 m
MARGIN = 12  # cells around the scene, so that the outlets of the rivers lie outside


@dataclass(frozen=True)
class Network:
    """The rivers on the coarse grid of (h, w) cells, MARGIN wider than the scene on every side. Flat arrays have h * w entries."""

    shape: tuple  # (h, w)
    floor: np.ndarray  # (h, w) bool: the main valley's floor
    receiver: np.ndarray  # flat: index of the cell that each cell drains into
    area: np.ndarray  # flat: cells that drain through each cell
    lake: np.ndarray  # flat bool: cells under a reservoir
    main: np.ndarray  # (N, 2) row and column of the main river in pixels of the scene
    turned: bool  # the main river runs north instead of east


@dataclass(frozen=True)
class Relief:
    """Slopes and heights in pixels of the scene, all (H, W) float32 but `network`."""

    slope_east: np.ndarray  # rise towards the east and south, metres per metre
    slope_south: np.ndarray
    slope: np.ndarray  # steepness, metres per metre
    height: np.ndarray  # 0..1
    wetness: np.ndarray  # of the ground by the area that drains through it, standardised
    rough: np.ndarray  # fine roughness of the surface, standard deviation 1
    network: Network


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


def main_river(rng, shape, margin):
    """Row of the river at each column (W,) in coarse cells, meandering from the left border to the right."""
    height, width = shape
    swing = 0.10 * height * fractal_noise(rng, (1, width), 1.6, longest=max(width, 40), shortest=10)[0]
    bends = 2.2 * fractal_noise(rng, (1, width), 1.0, longest=40, shortest=9)[0]
    return np.clip(height * rng.uniform(0.3, 0.7) + swing + bends, margin * 0.6, height - margin * 0.6)


def dam_a_valley(rng, heights, receiver, levels, area, floor):
    """Flat bool: the reservoir behind a dam in a side valley, everything upstream of the dam and below its crest. Often none."""
    lake = np.zeros(receiver.size, bool)
    inside = np.zeros(heights.shape, bool)
    inside[MARGIN:-MARGIN, MARGIN:-MARGIN] = True
    sites = np.flatnonzero(inside.ravel() & (area > 250) & (area < 2500) & ~floor.ravel())
    if len(sites) and rng.random() < 0.6:
        dam = int(rng.choice(sites))
        crest = heights.ravel()[dam] + rng.uniform(0.06, 0.14) * heights.max()
        lake[dam] = True
        for cells in levels[1:]:
            lake[cells] |= lake[receiver[cells]] & (heights.ravel()[cells] < crest)
        lake &= bool(lake.sum() < 0.04 * lake.size)  # a dam in a wide valley would drown the scene
    return lake


def carve_network(rng, shape, valley):
    """(heights (h, w) in arbitrary units, Network) for a scene of `shape` pixels; valley: half width of the main valley in pixels."""
    coarse = (-(-shape[0] // CELL) + 2 * MARGIN, -(-shape[1] // CELL) + 2 * MARGIN)
    turned = bool(rng.random() < 0.5)
    frame = coarse[::-1] if turned else coarse
    river = main_river(rng, frame, MARGIN)
    breadth = valley / CELL * np.exp(0.35 * fractal_noise(rng, (1, frame[1]), 1.5, longest=60, shortest=12)[0])
    floor = np.abs(np.arange(frame[0])[:, None] - river) < np.maximum(breadth, 1.2)
    floor[[0, -1]] = True
    if turned:
        floor = floor.T.copy()
    heights, receiver, levels, area = carve(floor, rng)
    lake = dam_a_valley(rng, heights, receiver, levels, area, floor)
    line = np.stack([river, np.arange(frame[1])], axis=1)
    line = line[:, ::-1] if turned else line
    return heights, Network(coarse, floor, receiver, area, lake, (line - MARGIN + 0.5) * CELL, turned)


def make_relief(rng, shape, valley, steepness):
    """The Relief of a scene of `shape` pixels. valley: half width of the main valley in pixels; steepness: median slope of the hills."""
    heights, network = carve_network(rng, shape, valley)
    rough = fractal_noise(rng, shape, 1.9, longest=220, shortest=2)
    relief = enlarge(heights, shape, CELL, MARGIN)
    hills = np.hypot(*np.gradient(relief, PIXEL))
    steep = hills[hills > np.percentile(hills, 20)]
    scale = steepness / max(float(np.median(steep)), 1e-9) if steep.size else 1.0
    hilly = np.clip(relief / max(float(np.percentile(relief, 60)), 1e-9), 0, 1)
    elevation = relief * scale + rough * hilly * 14 * steepness / 0.25
    slope_south, slope_east = np.gradient(elevation, PIXEL)
    slope = np.hypot(slope_south, slope_east)
    height = np.clip(relief / max(float(np.percentile(relief, 99)), 1e-9), 0, 1)
    wetness = enlarge(np.log(network.area).reshape(network.shape), shape, CELL, MARGIN)
    wetness = (wetness - wetness.mean()) / max(float(wetness.std()), 1e-9)
    return Relief(slope_east, slope_south, slope, height, wetness, rough, network)
