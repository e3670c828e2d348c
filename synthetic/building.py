"""What people build: towns along the main river and the roads between them."""

import numpy as np

from synthetic.fields import STEPS, fractal_noise, logistic, rounded, spreading_time, stripes
from synthetic.materials import lay

ROAD_CELL = 8  # pixels: the grid on which roads look for their way


def settle(rng, surface, fuel, sites, size):
    """Build towns around `sites` [(row, column)] in place: roofs, streets and gardens. Returns the built share (H, W)."""
    shape = surface.shape[1:]
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    density = np.zeros(shape, np.float32)
    for row, column in sites:
        reach = size * rng.uniform(0.5, 1.4)
        density += np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * reach**2))
    ragged = fractal_noise(rng, shape, 1.0, longest=24)
    built = logistic(10 * (density - 0.35 + 0.16 * ragged)) * (density > 0.04)
    blocks = fractal_noise(rng, shape, 0.2, longest=6)
    lay(surface, built * 0.9, "broadleaf", 0.75)
    lay(surface, built * np.clip(0.55 + 0.35 * blocks, 0.05, 0.95), "roofs", 1 + 0.25 * fractal_noise(rng, shape, 0.0))
    lay(surface, built * np.clip(0.25 - 0.35 * blocks, 0.0, 0.8), "asphalt")
    fuel *= 1 - built
    return built


def build_roads(rng, land_cost, sites):
    """Lines [(points, width in pixels)] from each site to three random points along the cheapest way. land_cost: (h, w) >= 1 a cell."""
    lines = []
    for row, column in sites:
        start = np.zeros(land_cost.shape, bool)
        at = [int(np.clip(x // ROAD_CELL, 0, n - 1)) for x, n in zip((row, column), start.shape, strict=True)]
        start[at[0], at[1]] = True
        time = spreading_time(np.broadcast_to(land_cost, (8, *land_cost.shape)), start)
        for _ in range(3):
            at = (int(rng.integers(0, start.shape[0])), int(rng.integers(0, start.shape[1])))
            points = [at]
            while not start[at] and len(points) < 4 * sum(start.shape):
                around = [(at[0] - dr, at[1] - dc) for dr, dc, _ in STEPS]
                around = [p for p in around if 0 <= p[0] < start.shape[0] and 0 <= p[1] < start.shape[1]]
                at = min(around, key=lambda p: time[p])
                points.append(at)
            if len(points) > 3:
                lines.append((rounded((np.array(points) + 0.5) * ROAD_CELL, 3), float(rng.choice([0.5, 0.7, 1.0]))))
    return lines


def build(rng, surface, fuel, relief, river_width, pond, valley):
    """Towns and roads, in place. river_width, valley: pixels; pond: (H, W) 0..1 share of standing water"""
    main, turned = relief.network.main, relief.network.turned
    height, width = shape = fuel.shape
    every = (slice(None, None, ROAD_CELL),) * 2
    steps = max(height // ROAD_CELL, 1), max(width // ROAD_CELL, 1)
    cost = 1 + 60 * relief.slope[every][: steps[0], : steps[1]] ** 2 + 20 * (pond[every][: steps[0], : steps[1]] > 0.3)
    pick = main[(main[:, 0] > 0) & (main[:, 0] < height) & (main[:, 1] > 0) & (main[:, 1] < width)]
    towns = []
    for _ in range(1 + rng.poisson(height * width / 400_000)):
        if len(pick):
            side = rng.choice([-1, 1]) * (river_width + rng.uniform(4, 12))
            towns.append(pick[rng.integers(0, len(pick))] + (side * (not turned), side * turned))
    built = settle(rng, surface, fuel, towns, rng.uniform(7, 16))
    roads = build_roads(rng, cost, towns)
    beside = river_width + rng.uniform(5, 14)
    if len(main) > 3 and valley > 20:
        roads.append((rounded(main + (beside * (not turned), beside * turned), 6), 1.3))
    road = stripes(roads, shape) * (1 - 0.9 * pond)
    lay(surface, road * 0.85, str(rng.choice(["asphalt", "gravel"])))
    fuel *= 1 - np.clip(road + built, 0, 1)
