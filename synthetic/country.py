"""Made-up country: what grows on carved land, and what people did to it. Fields, towns, roads, reservoirs, clear-cuts."""

import datetime
from dataclasses import dataclass

import numpy as np

from synthetic.materials import BANDS, PIXEL, SPECTRA, lay
from synthetic.terrain import STEPS, carve, enlarge, fractal_noise, smooth, spreading_time

# How well each natural cover burns: a fire enters quickly, and burns hot.
NATURAL = ("conifer", "broadleaf", "shrub", "dry_grass", "rock")
FUEL = np.array((1.0, 0.6, 0.85, 0.55, 0.08), np.float32)


@dataclass
class Land:
    """The country before the fire. All (H, W) float32 but `surface`."""

    surface: np.ndarray  # (12, H, W) reflectance in even light
    slope_east: np.ndarray  # rise towards the east and south, metres per metre
    slope_south: np.ndarray
    fuel: np.ndarray  # 0 does not burn .. 1 burns well


def logistic(x):
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


def stripes(lines, shape, detail=3):
    """(H, W) 0..1: how much of each pixel the lines cover. lines: list of (points (N, 2) as row, column; width in
    pixels)."""
    from rasterio.features import rasterize

    shapes = []
    for points, width in lines:
        points = np.asarray(points, np.float64)
        along = np.gradient(points, axis=0)
        side = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.maximum(np.hypot(*along.T), 1e-9)[:, None]
        a, b = points + side * width / 2, points - side * width / 2
        for i in range(len(points) - 1):
            ring = np.array([a[i], a[i + 1], b[i + 1], b[i], a[i]]) * detail
            shapes.append({"type": "Polygon", "coordinates": [[(float(x), float(y)) for y, x in ring]]})
    if not shapes:
        return np.zeros(shape, np.float32)
    fine = rasterize(shapes, out_shape=(shape[0] * detail, shape[1] * detail), dtype="uint8")
    return fine.reshape(shape[0], detail, shape[1], detail).mean(axis=(1, 3), dtype=np.float32)


def rounded(points, times=3):
    """A line without its staircase: every point moved to the mean of its neighbours; ends stay."""
    points = np.asarray(points, np.float64).copy()
    for _ in range(times):
        points[1:-1] = (points[:-2] + 2 * points[1:-1] + points[2:]) / 4
    return points


def main_river(rng, shape, margin):
    """Row of the river at each column (W,) in coarse cells, meandering from the left border to the right."""
    height, width = shape
    swing = 0.10 * height * fractal_noise(rng, (1, width), 1.6, longest=max(width, 40), shortest=10)[0]
    bends = 2.2 * fractal_noise(rng, (1, width), 1.0, longest=40, shortest=9)[0]
    return np.clip(height * rng.uniform(0.3, 0.7) + swing + bends, margin * 0.6, height - margin * 0.6)


def parcels(rng, shape):
    """Fields: (number (H, W) int, distance to the parcel's border (H, W) in pixels, rows (H, W) -1..1 for tillage
    lines).

    The land is divided into districts, each with its own direction and size of field, as villages divide it.
    """
    height, width = shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    bend = max(shape) / 40
    rows += bend * fractal_noise(rng, shape, 2.0, shortest=40)
    columns += bend * fractal_noise(rng, shape, 2.0, shortest=40)
    count = max(2, height * width // 55_000)
    centre = rng.uniform(0, 1, (count, 2)) * (height, width)
    nearest, district = np.full(shape, np.inf, np.float32), np.zeros(shape, np.int32)
    for i, (row, column) in enumerate(centre):
        distance = (rows - row) ** 2 + (columns - column) ** 2
        district[distance < nearest] = i
        nearest = np.minimum(nearest, distance)
    angle = rng.uniform(0, np.pi, count).astype(np.float32)[district]
    depth = rng.uniform(7, 26, count).astype(np.float32)[district]
    u = rows * np.cos(angle) + columns * np.sin(angle) + 4096
    v = columns * np.cos(angle) - rows * np.sin(angle) + 4096
    strip = np.floor(u / depth).astype(np.int64)
    length = depth * rng.uniform(0.7, 3.5, 997).astype(np.float32)[(strip * 31 + district * 7) % 997]
    start = rng.uniform(0, 60, 997).astype(np.float32)[(strip * 17 + district * 5) % 997]
    place = np.floor((v + start) / length).astype(np.int64)
    across, along = u / depth - strip, (v + start) / length - place
    border = np.minimum(np.minimum(across, 1 - across) * depth, np.minimum(along, 1 - along) * length)
    _, number = np.unique((district * 100_000 + strip) * 100_000 + place, return_inverse=True)
    return number.reshape(shape), border, np.sin(u * 2.1)


def sow(rng, surface, fuel, suitable, date):
    """Fields where `suitable` (H, W, 0..1) is above one half on a parcel's average. Returns the share of farmland (H,
    W)."""
    number, border, tillage = parcels(rng, suitable.shape)
    count = number.max() + 1
    mean = np.bincount(number.ravel(), suitable.ravel(), count) / np.bincount(number.ravel(), minlength=count)
    late = np.clip((date - datetime.date(date.year, 6, 1)).days / 110, 0, 1)  # harvest moves on through the summer
    crops = ("green_crop", "stubble", "dark_soil", "red_soil", "pale_soil", "dry_grass", "orchard", "burnt_off")
    odds = np.array(
        [0.24 - 0.08 * late, 0.26 + 0.06 * late, 0.07 + 0.09 * late, 0.06, 0.08, 0.14, 0.14, 0.01 + 0.03 * late]
    )
    crop = rng.choice(len(crops), count, p=odds / odds.sum())
    brightness = rng.normal(1.0, 0.12, count).clip(0.6, 1.4).astype(np.float32)
    vigour = rng.beta(4, 2, count).astype(np.float32)
    farmed = (mean > rng.normal(0.5, 0.05, count))[number]
    texture = brightness[number] * (1 + 0.03 * tillage + 0.05 * fractal_noise(rng, suitable.shape, 1.0, longest=30))
    for i, name in enumerate(crops):
        share = (farmed & (crop == i)[number]).astype(np.float32)
        if not share.any():
            continue
        if name == "green_crop":
            lay(surface, share, "dry_grass", texture)
            lay(surface, share * vigour[number], "green_crop", texture)
        elif name == "orchard":
            lay(surface, share, "pale_soil" if rng.random() < 0.5 else "red_soil", texture)
            trees = 0.45 + 0.25 * np.sign(tillage) * (fractal_noise(rng, suitable.shape, 0.0) > -0.5)
            lay(surface, share * trees, "broadleaf", 0.8)
        elif name == "burnt_off":
            lay(surface, share, "char", 1.15 * texture)
            lay(surface, share * 0.45, "stubble", texture)
        else:
            lay(surface, share, name, texture)
        inflammable = {"stubble": 0.35, "dry_grass": 0.4, "orchard": 0.2}.get(name, 0.04)
        fuel += share * (inflammable - fuel)
    hedge = farmed * np.clip(1.0 - border, 0, 1) * (0.35 + 0.3 * (vigour[number] > 0.6))
    lay(surface, hedge, "shrub")
    return farmed.astype(np.float32)


def settle(rng, surface, fuel, sites, size):
    """Towns around `sites` [(row, column)]: roofs, streets and gardens. Returns the built share (H, W)."""
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


def build_roads(rng, land_cost, sites, shape, cell):
    """Lines [(points, width in pixels)] from each site to a few points, along the easiest way. land_cost: (h, w)
    coarse, ≥ 1."""
    lines = []
    for row, column in sites:
        start = np.zeros(land_cost.shape, bool)
        at = [int(np.clip(x // cell, 0, n - 1)) for x, n in zip((row, column), start.shape, strict=True)]
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
                lines.append((rounded((np.array(points) + 0.5) * cell, 3), float(rng.choice([0.5, 0.7, 1.0]))))
    return lines


def make_land(rng, shape, place):
    """The country of `place`: relief, water, what grows, what people did. -> Land"""
    height, width = shape
    cell, margin = 4, 12  # the relief is carved on cells of 40 m, with a border so that its outlets stay out of sight
    coarse = (-(-height // cell) + 2 * margin, -(-width // cell) + 2 * margin)
    turned = bool(rng.random() < 0.5)  # the main valley runs east, or north
    frame = coarse[::-1] if turned else coarse
    river = main_river(rng, frame, margin)
    breadth = place.valley / cell * np.exp(0.35 * fractal_noise(rng, (1, frame[1]), 1.5, longest=60, shortest=12)[0])
    floor = np.abs(np.arange(frame[0])[:, None] - river) < np.maximum(breadth, 1.2)
    floor[[0, -1]] = True
    if turned:
        floor = floor.T.copy()
    height_map, receiver, levels, area = carve(floor, rng)

    # A reservoir behind a dam in some side valley: everything upstream of the dam and lower than its crest.
    lake = np.zeros(receiver.size, bool)
    inside = np.zeros(coarse, bool)
    inside[margin:-margin, margin:-margin] = True
    sites = np.flatnonzero(inside.ravel() & (area > 250) & (area < 2500) & ~floor.ravel())
    if len(sites) and rng.random() < 0.6:
        dam = int(rng.choice(sites))
        crest = height_map.ravel()[dam] + rng.uniform(0.06, 0.14) * height_map.max()
        lake[dam] = True
        for cells in levels[1:]:
            lake[cells] |= lake[receiver[cells]] & (height_map.ravel()[cells] < crest)
        lake &= bool(lake.sum() < 0.04 * lake.size)  # a dam in a wide valley would drown the scene

    rough = fractal_noise(rng, shape, 1.9, longest=220, shortest=2)
    relief = enlarge(height_map, shape, cell, margin)
    hills = np.hypot(*np.gradient(relief, PIXEL))
    steep = hills[hills > np.percentile(hills, 20)]
    scale = place.steepness / max(float(np.median(steep)), 1e-9) if steep.size else 1.0
    hilly = np.clip(relief / max(float(np.percentile(relief, 60)), 1e-9), 0, 1)
    elevation = relief * scale + rough * hilly * 14 * place.steepness / 0.25
    slope_south, slope_east = np.gradient(elevation, PIXEL)
    slope = np.hypot(slope_south, slope_east)
    height01 = np.clip(relief / max(float(np.percentile(relief, 99)), 1e-9), 0, 1)
    wetness = enlarge(np.log(area).reshape(coarse), shape, cell, margin)
    wetness = (wetness - wetness.mean()) / max(float(wetness.std()), 1e-9)

    # What grows: shade (slopes to the north) and valleys are moist, high and steep ground is poor.
    shade = slope_south / (slope + 0.06)
    moist = 0.9 * shade * np.clip(slope / 0.25, 0, 1) + 0.35 * wetness - 1.2 * place.dryness
    moist += 0.45 * fractal_noise(rng, shape, 1.4)
    patches = [fractal_noise(rng, shape, 1.15, longest=130) for _ in NATURAL]
    score = np.stack(
        [
            0.9 * moist + 1.6 * height01 - 0.5 + 0.9 * patches[0],
            1.1 * moist - 0.8 * height01 + 0.2 + 0.9 * patches[1],
            -0.3 * moist + 0.9 + 0.8 * patches[2],
            -0.9 * moist - 0.4 * height01 + 0.0 + 0.9 * patches[3],
            9.0 * (slope - 0.75) + 2.0 * (height01 - 1.0) - 0.5 + 0.8 * patches[4],
        ]
    )
    score = np.exp(1.5 * (score - score.max(axis=0)))
    score /= score.sum(axis=0)
    spectra = np.array([SPECTRA[name] for name in NATURAL], np.float32)
    surface = (spectra.T @ score.reshape(len(NATURAL), -1)).reshape(len(BANDS), height, width)
    fuel = (FUEL @ score.reshape(len(NATURAL), -1)).reshape(shape)
    bare = np.clip(0.12 + 0.10 * fractal_noise(rng, shape, 0.8, longest=60) + 0.1 * place.dryness, 0, 0.6)
    ground = str(rng.choice(["pale_soil", "red_soil", "dark_soil"]))
    lay(surface, bare * (score[2] + score[3]), ground)
    surface *= 1 + 0.07 * fractal_noise(rng, shape, 0.5, longest=20)

    # Clear-cuts and pastures in the forest: straight-edged, bare, and as low in the burn index as a fire.
    cuts = []
    for _ in range(rng.poisson(height * width / 90_000)):
        row, column = rng.uniform(0, height), rng.uniform(0, width)
        length, wide, angle = rng.uniform(10, 34), rng.uniform(6, 18), rng.uniform(0, np.pi)
        way = np.array([np.sin(angle), np.cos(angle)])
        cuts.append((np.array([(row, column) - way * length / 2, (row, column) + way * length / 2]), wide))
    cut = stripes(cuts, shape, detail=2) * (score[0] + score[1] + score[2] > 0.5)
    lay(surface, cut * 0.8, str(rng.choice(["red_soil", "dark_soil", "dry_grass", "regrowth"])), 1.0)
    fuel *= 1 - 0.6 * cut

    flat = np.clip(1.4 - slope / 0.10, 0, 1) * np.clip(1.5 - 2.2 * height01, 0, 1)
    farmed = sow(rng, surface, fuel, smooth(flat, 3) + 0.10 * fractal_noise(rng, shape, 1.2, longest=90), place.date)

    # Rivers: the main one down the valley, and every side stream that drains more than half a square kilometre.
    line = np.stack([river, np.arange(frame[1])], axis=1)
    line = line[:, ::-1] if turned else line
    main = (line - margin + 0.5) * cell
    position = np.stack(np.unravel_index(np.arange(receiver.size), coarse), axis=1).astype(np.float64)
    position += rng.uniform(-0.3, 0.3, position.shape)
    for _ in range(2):
        position = (position + position[receiver]) / 2
    position = (position - margin + 0.5) * cell
    streams = np.flatnonzero((area > 320) & ~floor.ravel())
    streams = [(position[[i, receiver[i]]], 0.25 + 0.012 * np.sqrt(area[i])) for i in streams if receiver[i] != i]
    brooks = stripes(streams, shape)
    banks = np.clip(smooth(brooks, 1.6) * 3.0, 0, 1) * (1 - 0.6 * farmed)
    lay(surface, banks * 0.8, "broadleaf", 0.95)
    fuel *= 1 - 0.5 * banks
    river_width = float(np.clip(place.valley / 14 * rng.uniform(0.7, 1.3), 1.2, 6.0))
    wide = stripes([(main, river_width)], shape)
    gravel = np.clip(smooth(wide, 1.5) * 1.6 - wide, 0, 1)
    gravel *= np.clip(0.5 + 0.6 * fractal_noise(rng, shape, 1.0, longest=40), 0, 1)
    lay(surface, np.clip(smooth(wide, 3.0) * 2.5, 0, 1) * 0.6, "broadleaf")
    lay(surface, gravel * 0.8, "gravel")
    pond = enlarge(lake.reshape(coarse).astype(np.float32), shape, cell, margin)
    pond = logistic(14 * (pond - 0.5 + 0.05 * rough))
    shore = np.clip(4 * pond * (1 - pond), 0, 1)
    lay(surface, shore * 0.6, "pale_soil")
    water = np.maximum(np.maximum(wide, brooks * 0.7), pond)
    silt = 1 + 0.8 * max(0.0, float(rng.normal(0.2, 0.5)))
    lay(surface, water, "water", silt + 0.06 * fractal_noise(rng, shape, 1.2))
    fuel *= 1 - water

    steps = max(height // 8, 1), max(width // 8, 1)
    cost = 1 + 60 * slope[::8, ::8][: steps[0], : steps[1]] ** 2 + 20 * (pond[::8, ::8][: steps[0], : steps[1]] > 0.3)
    pick = main[(main[:, 0] > 0) & (main[:, 0] < height) & (main[:, 1] > 0) & (main[:, 1] < width)]
    towns = []
    for _ in range(1 + rng.poisson(height * width / 400_000)):
        if len(pick):
            side = rng.choice([-1, 1]) * (river_width + rng.uniform(4, 12))
            towns.append(pick[rng.integers(0, len(pick))] + (side * (not turned), side * turned))
    built = settle(rng, surface, fuel, towns, rng.uniform(7, 16))
    roads = build_roads(rng, cost, towns, shape, 8)
    beside = river_width + rng.uniform(5, 14)
    if len(main) > 3 and place.valley > 20:
        roads.append((rounded(main + (beside * (not turned), beside * turned), 6), 1.3))
    road = stripes(roads, shape) * (1 - 0.9 * pond)
    lay(surface, road * 0.85, str(rng.choice(["asphalt", "gravel"])))
    fuel *= 1 - np.clip(road + built, 0, 1)
    return Land(surface, slope_east, slope_south, np.clip(fuel, 0, 1))
