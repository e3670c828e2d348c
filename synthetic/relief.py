"""The relief of a scene: hills eroded around a main valley, their rivers, perhaps a reservoir."""

from dataclasses import dataclass

import numpy as np

from synthetic.fields import enlarge, fractal_noise
from synthetic.materials import PIXEL
from synthetic.terrain import carve

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
