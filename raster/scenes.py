"""Made-up Sentinel-2 scenes of burnt country, with labels: what the demo trains on and what tests measure against.

    scene = make_scene(seed=7, height=768, width=768)      # arrays: reflectance (12, H, W), severity, delineation,
    cloud mask write_cems_folder("scenes", seeds=range(10))           # the CEMS wildfire layout,
    EMSR900/AOI01/EMSR900_AOI01_01/… write_plain_folder("scenes", seeds=range(10))          # post_fire/*.tif beside
    masks/*.tif image = paint_image(severity, seed=7)                  # a scene painted over labels that you already
    have

What is modelled, in the order of the code: rivers carve the land (raster/terrain.py); slope, aspect, height and
wetness decide what grows; people add fields, towns, roads, reservoirs and clear-cuts; a fire runs from one point with
wind, slope and fuel, and leaves islands; sun, clouds with their shadows, smoke and haze make it an image; the sensor
blurs, misregisters and adds noise.

What is **not** modelled: anything in time (there is no picture from before the fire), surface direction effects,
snow, adjacency between clouds and ground. Spectra are round figures for each material, not library measurements. A
network trained here has learnt these scenes, and is a rehearsal for real ones, not a substitute.

The scenes are meant to be hard for a threshold and fair for a network: ploughed soil, harvested and burnt-off fields,
clear-cuts, fires of earlier years, dark water and cloud shadows share the burn index of a fire, but neither its shape
nor its whole spectrum.

The same seed gives the same bytes (on one kind of processor: the last bit of a Fourier transform may differ between
kinds). Another seed is another place: footprints of scenes of up to 2 400 pixels never overlap.
"""

import datetime
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from constants import IGNORE, SENTINEL2_DIVISOR, SENTINEL2_L2A_BANDS, SENTINEL2_OFFSET, SENTINEL2_RESOLUTION
from raster.terrain import STEPS, carve, enlarge, fractal_noise, smooth, spreading_time

PIXEL = 10.0  # metres
BANDS = SENTINEL2_L2A_BANDS
SMALLEST = 64  # pixels: a smaller scene is the corner of one of this size, as hills and fields need room
LARGEST = 2_400  # pixels; places lie on a grid of 24 km, so that larger scenes would overlap

# Surface reflectance of each material in the bands
#                  B01   B02   B03   B04   B05   B06   B07   B08   B8A   B09   B11   B12
SPECTRA = {
    "conifer":    (.018, .022, .038, .027, .060, .145, .178, .192, .212, .215, .100, .044),
    "broadleaf":  (.022, .027, .056, .032, .094, .255, .322, .340, .362, .370, .178, .076),
    "shrub":      (.030, .038, .064, .059, .102, .182, .216, .230, .250, .255, .192, .112),
    "dry_grass":  (.050, .068, .104, .136, .172, .206, .230, .248, .268, .275, .325, .226),
    "green_crop": (.024, .031, .072, .040, .122, .335, .428, .452, .474, .476, .212, .094),
    "stubble":    (.070, .095, .138, .180, .212, .236, .254, .272, .292, .300, .365, .275),
    "pale_soil":  (.092, .118, .164, .218, .242, .258, .270, .284, .300, .308, .372, .322),
    "dark_soil":  (.045, .053, .073, .095, .108, .117, .126, .135, .147, .150, .196, .172),
    "red_soil":   (.046, .054, .084, .148, .172, .186, .200, .214, .234, .240, .302, .256),
    "rock":       (.098, .114, .138, .160, .170, .178, .184, .194, .204, .208, .242, .218),
    "roofs":      (.082, .098, .128, .180, .204, .222, .234, .250, .262, .266, .292, .250),
    "asphalt":    (.078, .086, .097, .108, .112, .117, .122, .128, .134, .136, .150, .140),
    "gravel":     (.120, .140, .172, .198, .210, .218, .226, .238, .248, .250, .270, .236),
    "water":      (.040, .036, .032, .018, .014, .011, .010, .009, .008, .007, .005, .004),
    "char":       (.038, .039, .043, .047, .052, .057, .062, .068, .076, .082, .124, .142),
    "ash":        (.080, .092, .106, .120, .128, .136, .143, .152, .163, .168, .206, .212),
    "scorched":   (.032, .038, .054, .074, .096, .118, .137, .152, .174, .184, .202, .146),
    "regrowth":   (.034, .041, .062, .070, .098, .146, .166, .180, .198, .206, .216, .164),
    "cloud":      (.640, .630, .625, .630, .635, .645, .650, .655, .660, .640, .520, .400),
    "smoke":      (.330, .300, .260, .225, .205, .190, .180, .170, .160, .150, .070, .045),
}  # fmt: skip

# Share of the light that comes from the sky and not from the sun: what lights a shadow. Much in blue, little in the
# infrared.
SKYLIGHT = np.array((.34, .30, .24, .20, .18, .16, .15, .14, .13, .13, .09, .08), np.float32)  # fmt: skip
# Brightness that a hazy air adds, relative to blue.
HAZE = np.array((1.25, 1.0, .70, .45, .38, .32, .28, .24, .21, .19, .05, .03), np.float32)  # fmt: skip

# How well each natural cover burns: a fire enters quickly, and burns hot.
NATURAL = ("conifer", "broadleaf", "shrub", "dry_grass", "rock")
FUEL = np.array((1.0, 0.6, 0.85, 0.55, 0.08), np.float32)

SEVERITY_STEPS = (0.16, 0.30, 0.52, 0.78)  # burn severity 0..1 at which the label becomes 1, 2, 3, 4
SEVERITY_MIDDLE = (0.0, 0.22, 0.42, 0.66, 0.90)  # and the severity that a label stands for


@dataclass(frozen=True)
class Place:
    """Where, when and what kind of country. Angles in degrees; azimuth and wind clockwise from north."""

    seed: int
    epsg: int  # UTM zone, north
    left: float  # easting and northing of the top left corner, metres
    top: float
    date: datetime.date
    sun_elevation: float
    sun_azimuth: float
    dryness: float  # -1 lush .. 1 parched
    steepness: float  # median slope of the hills, metres per metre
    valley: float  # half width of the main valley's floor, in pixels
    wind_from: float
    haze: float  # reflectance added in blue
    cloud_share: float  # of the scene, 0..1
    fire_share: float  # of the scene, 0..1; 0: nothing burnt
    old_fire: bool
    smoke: bool
    freshness: float  # of the char: 1 last week, 0.5 washed out
    swath_edge: bool  # a corner without data


@dataclass
class Scene:
    """A scene and its labels on one grid."""

    name: str
    image: np.ndarray  # (12, H, W) float32 surface reflectance; 0 in all bands where there is no data
    severity: np.ndarray  # (H, W) uint8: 0 none, 1 negligible, 2 moderate, 3 high, 4 destroyed, 255 no data
    delineation: np.ndarray  # (H, W) uint8: 0 not burned, 1 burned, 255 no data
    cloud_mask: np.ndarray  # (H, W) uint8: 0 clear, 1 cloud, 2 thin cloud or smoke, 3 cloud shadow
    place: Place

    @property
    def crs(self):
        return f"EPSG:{self.place.epsg}"

    @property
    def transform(self):
        """Six numbers as rasterio.Affine takes them: from (column, row) to metres."""
        return (PIXEL, 0.0, self.place.left, 0.0, -PIXEL, self.place.top)


@dataclass
class Land:
    """The country before the fire. All (H, W) float32 but `surface`."""

    surface: np.ndarray  # (12, H, W) reflectance in even light
    slope_east: np.ndarray  # rise towards the east and south, metres per metre
    slope_south: np.ndarray
    fuel: np.ndarray  # 0 does not burn .. 1 burns well


# ------------------------------------------------------------------------------------------------------- where and when


def choose_place(seed):
    """The place of a seed: a cell of its own on a 24 km grid over the Mediterranean zones, and a summer day."""
    columns, rows, zones = 15, 50, 7
    # 4099 is prime to the count, so that neighbouring seeds scatter and none repeat.
    cell = (seed * 4099 + 1234) % (columns * rows * zones)
    column, row, zone = cell % columns, cell // columns % rows, cell // (columns * rows)
    rng = np.random.default_rng([seed, 1])
    day = int(rng.integers(0, 120))  # June to September
    sun_elevation = 68 - 24 * (day / 120) ** 1.5 - 0.5 * row * 24 / 111 + rng.uniform(-1, 1)
    return Place(
        seed=seed,
        epsg=32629 + zone,
        left=320_000.0 + 24_000 * column,
        top=4_000_000.0 + 24_000 * row,
        date=datetime.date(2023, 6, 1) + datetime.timedelta(days=day),
        sun_elevation=float(np.clip(sun_elevation, 35, 68)),
        sun_azimuth=float(rng.uniform(138, 166)),
        dryness=float(rng.uniform(-0.7, 0.8)),
        steepness=float(rng.uniform(0.12, 0.45)),
        valley=float(rng.choice([14, 30, 55, 80])),
        wind_from=float(rng.uniform(0, 360)),
        haze=float(rng.uniform(0.0, 0.018)),
        cloud_share=float(rng.choice([0.0, 0.0, 0.01, 0.02, 0.04, 0.08])),
        fire_share=0.0 if rng.random() < 0.08 else float(rng.uniform(0.08, 0.34)),
        old_fire=bool(rng.random() < 0.5),
        smoke=bool(rng.random() < 0.2),
        freshness=float(rng.uniform(0.55, 1.0)),
        swath_edge=bool(rng.random() < 0.15),
    )


# ------------------------------------------------------------------------------------------------------------- the land


def lay(surface, share, material, texture=1.0):
    """Put `material` over `share` (H, W, 0..1) of `surface` (12, H, W), in place. `texture` (H, W) brightens or
    darkens it."""
    spectrum = np.array(SPECTRA[material], np.float32)
    share = np.asarray(share, np.float32)
    for band, value in enumerate(spectrum):
        surface[band] += share * (value * texture - surface[band])


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


# ------------------------------------------------------------------------------------------------------------- the fire


def grow_fire(rng, land, wind_from, share):
    """Burn severity (H, W) float32 0..1 of a fire that covers about `share` of the scene.

    The front enters a cell sooner with the wind behind it, uphill, and in good fuel; the time at which the wanted
    area is reached is the perimeter. What burns hot follows fuel, slope and the run of the wind; wet hollows and gaps
    in fuel stay as islands.
    """
    shape = land.fuel.shape
    cell = 6 if min(shape) >= 48 else 1
    coarse = -(-shape[0] // cell), -(-shape[1] // cell)

    def shrink(field):
        full = np.pad(field, ((0, coarse[0] * cell - shape[0]), (0, coarse[1] * cell - shape[1])), mode="edge")
        return full.reshape(coarse[0], cell, coarse[1], cell).mean(axis=(1, 3))

    fuel, east, south = shrink(land.fuel), shrink(land.slope_east), shrink(land.slope_south)
    gusts = 0.55 * fractal_noise(rng, coarse, 1.1, longest=40)
    towards = np.deg2rad(wind_from + 180)
    cost = []
    for dr, dc, distance in STEPS:
        with_wind = (dc * np.sin(towards) - dr * np.cos(towards)) / distance
        uphill = (dc * east + dr * south) / distance
        cost.append(np.exp(gusts - 0.9 * with_wind - 2.2 * np.clip(uphill, -0.6, 0.6)) / np.clip(fuel, 0.02, 1) ** 1.3)
    good = np.flatnonzero((fuel >= np.percentile(fuel, 70)).ravel())
    middle = np.abs(np.stack(np.unravel_index(good, coarse), 1) / coarse - 0.5).max(axis=1)
    good = good[middle < 0.3] if (middle < 0.3).any() else good
    start = np.zeros(coarse, bool)
    start.ravel()[rng.choice(good)] = True
    time = spreading_time(np.stack(cost).astype(np.float32), start)
    end = float(np.quantile(time, share))
    time = np.minimum(time, 20 * max(end, 1e-6))
    early = 1 - enlarge(time, shape, cell) / max(end, 1e-6)  # 1 at the ignition, 0 at the perimeter
    detail = fractal_noise(rng, shape, 1.1, longest=50)
    early = early + 0.05 * detail

    aspect = land.slope_south / (np.hypot(land.slope_south, land.slope_east) + 0.06)  # 1 faces north
    heat = 0.60 + 0.17 * fractal_noise(rng, shape, 1.5, longest=200, shortest=6) - 0.10 * aspect
    heat += 0.30 * (land.fuel - 0.65)
    heat += 0.07 * fractal_noise(rng, shape, 1.0, longest=30)
    heat *= 0.35 + 0.65 * np.clip(early / 0.10, 0, 1)  # the flanks burn cooler
    gaps = logistic(9 * (land.fuel - 0.22))
    gaps *= logistic(9 * (fractal_noise(rng, shape, 1.3, longest=60, shortest=4) + 1.75))
    return np.clip(heat, 0, 1).astype(np.float32) * logistic(60 * early) * gaps


def char_surface(rng, surface, severity, freshness, fuel=None):
    """Burn `surface` (12, H, W) in place by `severity` (H, W, 0..1): green leaves go brown, then black, then to ash."""
    shape = severity.shape
    s = np.clip(severity, 0, 1)
    ashy = 0.5 * np.clip((s - 0.70) / 0.3, 0, 1) * np.clip(0.6 + 0.5 * fractal_noise(rng, shape, 1.0, longest=60), 0, 1)
    green = (1 - s) ** 2.2
    black = (1 - green) * np.clip(0.25 + 0.85 * s, 0, 0.95)
    brown = 1 - green - black
    before = surface.copy()
    texture = 1 + 0.10 * fractal_noise(rng, shape, 0.6, longest=30)
    burnt = np.zeros_like(surface)
    for material, share in (("char", black * (1 - ashy)), ("ash", black * ashy), ("scorched", brown)):
        burnt += np.array(SPECTRA[material], np.float32)[:, None, None] * (share * texture)
    # Rain washes char away, and the ground shows through: bright ground makes a bright scar.
    ground = 0.10 + 0.45 * (1 - freshness)
    burnt += ground * black * (before - np.array(SPECTRA["char"], np.float32)[:, None, None])
    burnt += before * green
    share = np.ones(shape, np.float32) if fuel is None else np.clip(fuel / 0.25, 0, 1)
    surface += share * (burnt - surface)


def label_fire(severity):
    """Severity 0..1 -> classes 0..4 (H, W) uint8, generalised as a mapper's polygons are: nothing under about four
    pixels."""
    return np.digitize(smooth(severity, 1.4), SEVERITY_STEPS).astype(np.uint8)


# --------------------------------------------------------------------------------------------------- light, air, sensor


def make_clouds(rng, shape, place):
    """Cumulus clouds and their shadows: (cover, shadow), each (H, W) 0..1 with soft rims; `place.cloud_share` of the
    scene is covered.

    A shadow is the cloud moved away from the sun by its height over the tangent of the sun's elevation. The sky is
    made larger than the scene by that reach, so that clouds outside throw their shadows in.
    """
    base = rng.uniform(700, 1800)  # height of the clouds, metres
    if place.cloud_share <= 0:
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    reach = base / np.tan(np.deg2rad(place.sun_elevation)) / PIXEL
    row, column = np.cos(np.deg2rad(place.sun_azimuth)) * reach, -np.sin(np.deg2rad(place.sun_azimuth)) * reach
    border = int(np.ceil(reach)) + 1
    sky = shape[0] + 2 * border, shape[1] + 2 * border
    field = fractal_noise(rng, sky, 1.9, longest=90, shortest=3) + 0.8 * fractal_noise(rng, sky, 2.0, longest=max(sky))
    edge = float(np.quantile(field, 1 - place.cloud_share))
    cover = np.clip((field - edge + 0.10) / 0.5, 0, 1)

    def part(rows, columns):
        return cover[border - rows : border - rows + shape[0], border - columns : border - columns + shape[1]]

    return part(0, 0), part(round(row), round(column))


def light(surface, land, place, shadow):
    """Surface reflectance (12, H, W) as a picture shows it: bright slopes to the sun, dim ones away from it, blue
    shadows."""
    elevation, azimuth = math.radians(place.sun_elevation), math.radians(place.sun_azimuth)
    east, south = math.sin(azimuth), -math.cos(azimuth)
    falls = -land.slope_east * east - land.slope_south * south  # towards the sun
    towards_sun = math.sin(elevation) + math.cos(elevation) * falls
    direct = towards_sun / np.sqrt(1 + land.slope_east**2 + land.slope_south**2) / math.sin(elevation)
    direct = np.clip(direct, 0, 2.5) ** 0.9 * (1 - 0.86 * shadow)  # the producer's terrain correction removes a part
    sky = SKYLIGHT[:, None, None]
    return surface * (sky + (1 - sky) * direct)


def sense(rng, image):
    """What the instrument makes of (12, H, W) reflectance: coarse bands, blur, a tenth of a pixel of misregistration,
    noise."""
    height, width = image.shape[1:]
    seen = np.empty_like(image)
    for band, name in enumerate(BANDS):
        slip = rng.normal(0, 0.08, 2).clip(-0.2, 0.2).astype(np.float32)
        field = image[band]
        for axis in (0, 1):
            padded = np.pad(field, [(1, 1) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
            before, after = (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
            field = 0.78 * field + (0.11 + slip[axis] / 2) * before + (0.11 - slip[axis] / 2) * after
        block = SENTINEL2_RESOLUTION[name] // 10
        if block > 1:
            padded = np.pad(field, ((0, -height % block), (0, -width % block)), mode="edge")
            mean = padded.reshape(padded.shape[0] // block, block, -1, block).mean(axis=(1, 3))
            field = mean.repeat(block, 0).repeat(block, 1)[:height, :width]
        noise = rng.standard_normal((height, width), dtype=np.float32)
        if block > 1:
            noise = noise[::block, ::block].repeat(block, 0).repeat(block, 1)[:height, :width]
        seen[band] = field + noise * (0.0008 + 0.004 * np.sqrt(np.maximum(field, 0)))
    return np.maximum(seen, 0.0001)


def rise_smoke(rng, shape, place, severity):
    """Cover (H, W) 0..0.7 of a few thin plumes that start where it burns hottest and widen down the wind."""
    smoke = np.zeros(shape, np.float32)
    hot = np.flatnonzero(severity > 0.75)
    if not place.smoke or not hot.size:
        return smoke
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    towards = math.radians(place.wind_from + 180)
    swirl = 5 * fractal_noise(rng, shape, 1.8, longest=120)
    lumps = np.clip(1 + 0.35 * fractal_noise(rng, shape, 1.3, longest=60), 0, 2)
    for spot in rng.choice(hot, min(3, hot.size), replace=False):
        row, column = divmod(int(spot), shape[1])
        along = (columns - column) * math.sin(towards) - (rows - row) * math.cos(towards)
        across = (columns - column) * math.cos(towards) + (rows - row) * math.sin(towards)
        along = np.maximum(along, 0)
        width = 2.5 + 0.16 * along
        plume = np.exp(-0.5 * ((across + swirl * np.minimum(along / 60, 2)) / width) ** 2 - along / 110) * (along > 0)
        smoke = np.maximum(smoke, plume * lumps)
    return np.clip(0.75 * smoke, 0, 0.7)


def photograph(rng, surface, land, place, cover, shadow, severity):
    """Light, clouds, smoke, haze and the sensor over a surface. -> (image (12, H, W), cloud mask (H, W) uint8)"""
    shape = surface.shape[1:]
    image = light(surface, land, place, shadow)
    lumps = 0.9 + 0.16 * fractal_noise(rng, shape, 1.3, longest=40)
    smoke = rise_smoke(rng, shape, place, severity)
    lay(image, smoke * 0.7, "smoke")
    lay(image, cover, "cloud", lumps)
    thickness = place.haze * np.clip(1 + 0.3 * fractal_noise(rng, shape, 1.8), 0, 3)
    image += HAZE[:, None, None] * thickness
    mask = np.zeros(shape, np.uint8)
    mask[shadow > 0.25] = 3
    mask[(cover > 0.08) | (smoke > 0.25)] = 2
    mask[cover > 0.45] = 1
    return sense(rng, image), mask


# --------------------------------------------------------------------------------------------------------------- scenes


def make_scene(seed, height=768, width=768, **changes):
    """The scene of a seed: (height, width) pixels of 10 m. `changes` replace fields of its Place, e.g.
    cloud_share=0.0."""
    if min(height, width) < 1 or max(height, width) > LARGEST:
        raise ValueError(f"a scene has 1 to {LARGEST} pixels a side, got {height} x {width}")
    place = replace(choose_place(seed), **changes)
    rng = np.random.default_rng([seed, 2])
    shape = max(height, SMALLEST), max(width, SMALLEST)
    land = make_land(rng, shape, place)
    surface = land.surface
    if place.old_fire:  # two to five years ago: grown over by shrubs, still low in the burn index
        old = grow_fire(rng, land, rng.uniform(0, 360), rng.uniform(0.04, 0.10))
        lay(
            surface,
            np.clip(1.4 * old, 0, rng.uniform(0.65, 0.95)),
            "regrowth",
            1 + 0.06 * fractal_noise(rng, shape, 0.8),
        )
        land.fuel *= 1 - 0.6 * old
    severity = np.zeros(shape, np.float32)
    if place.fire_share > 0:
        severity = grow_fire(rng, land, place.wind_from, place.fire_share)
        char_surface(rng, surface, severity, place.freshness, land.fuel)
    cover, shadow = make_clouds(rng, shape, place)
    image, cloud_mask = photograph(rng, surface, land, place, cover, shadow, severity)
    grade = label_fire(severity)
    if place.swath_edge:
        rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
        outside = columns + 0.21 * rows < rng.uniform(0.10, 0.24) * shape[1]
        image[:, outside] = 0.0
        grade[outside] = IGNORE
        cloud_mask[outside] = 0
    assert image.dtype == np.float32
    image, grade, cloud_mask = (np.ascontiguousarray(a[..., :height, :width]) for a in (image, grade, cloud_mask))
    delineation = np.where(grade == IGNORE, IGNORE, grade > 0).astype(np.uint8)
    return Scene(f"PLACE{seed:04d}", image, grade, delineation, cloud_mask, place)


def paint_image(severity, seed=0, cloud_mask=None):
    """A made-up image (12, H, W) float32 reflectance over labels that exist: land of `seed`, burnt where they say.

    severity: (H, W) integers 0..4, 255 where the image is to have no data (all bands 0). For a delineation 0/1 pass 3
    * mask. cloud_mask: (H, W) 0 clear, 1 cloud, 2 thin, 3 shadow, or None
    """
    severity = np.asarray(severity)
    height, width = severity.shape
    room = (0, max(0, SMALLEST - height)), (0, max(0, SMALLEST - width))
    severity = np.pad(severity, room)
    shape = severity.shape
    valid = severity != IGNORE
    strange = np.setdiff1d(severity[valid], range(len(SEVERITY_MIDDLE)))
    if strange.size:
        raise ValueError(f"severity is 0..4 or 255, found {strange[0]}")
    rng = np.random.default_rng([seed, 3])
    place = replace(choose_place(seed), smoke=False)
    land = make_land(rng, shape, place)
    target = np.array(SEVERITY_MIDDLE, np.float32)[np.where(valid, severity, 0)]
    target = smooth(target, 0.8) + 0.05 * fractal_noise(rng, shape, 0.9, longest=24) * (target > 0)
    char_surface(rng, land.surface, np.clip(target, 0, 1), place.freshness)
    cover, shadow = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    if cloud_mask is not None:
        cloud_mask = np.pad(np.where(np.asarray(cloud_mask) > 3, 0, cloud_mask), room)
        cover = smooth(np.array([0, 0.95, 0.3, 0], np.float32)[cloud_mask], 1.0)
        shadow = smooth(cloud_mask == 3, 1.0)
    image = light(land.surface, land, place, shadow)
    lay(image, np.clip(cover, 0, 1), "cloud", 1 + 0.08 * fractal_noise(rng, shape, 1.3, longest=40))
    image = sense(rng, image + HAZE[:, None, None] * place.haze)
    image[:, ~valid] = 0.0
    return image[:, :height, :width]


# ---------------------------------------------------------------------------------------------------------------- files


def to_digital_numbers(image):
    """Reflectance (12, H, W) -> uint16 as processing baseline 04.00 stores it: reflectance · 10 000 + 1 000; 0 where
    no data."""
    numbers = np.clip(np.rint(image * SENTINEL2_DIVISOR - SENTINEL2_OFFSET), 1, 65535).astype(np.uint16)
    numbers[:, (image == 0).all(axis=0)] = 0
    return numbers


def write_image(path, image, crs, transform, encoding="dn", tags=None):
    """Write (12, H, W) reflectance as a GeoTIFF with band names. encoding: "dn" (uint16, offset −1000, nodata 0) or
    "reflectance" (float32, as the CEMS data set has it: no nodata tag, no scale)."""
    import rasterio

    if encoding not in ("dn", "reflectance"):
        raise ValueError(f"encoding is 'dn' or 'reflectance', got {encoding!r}")
    data = to_digital_numbers(image) if encoding == "dn" else image.astype(np.float32)
    profile = {"driver": "GTiff", "count": len(data), "height": data.shape[1], "width": data.shape[2]}
    profile["dtype"] = data.dtype
    if min(data.shape[1:]) >= 16:  # a tiled GeoTIFF cannot have smaller blocks
        profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256}
    if encoding == "dn":
        profile |= {"nodata": 0, "compress": "deflate", "zlevel": 1, "predictor": 2}
    with rasterio.open(path, "w", crs=crs, transform=rasterio.Affine(*transform[:6]), **profile) as target:
        target.write(data)
        target.descriptions = BANDS
        target.update_tags(SYNTHETIC="yes", **(tags or {}))
        if encoding == "dn":  # GDAL's sense: value = stored · scale + offset
            target.scales = (1 / SENTINEL2_DIVISOR,) * len(BANDS)
            target.offsets = (SENTINEL2_OFFSET / SENTINEL2_DIVISOR,) * len(BANDS)


def write_label(path, label, crs, transform):
    """Write (H, W) uint8 classes as a GeoTIFF without a nodata tag, as the CEMS data set has them; 255 means no
    data."""
    import rasterio

    profile = {"driver": "GTiff", "count": 1, "height": label.shape[0], "width": label.shape[1], "dtype": "uint8"}
    profile |= {"crs": crs, "transform": rasterio.Affine(*transform[:6]), "compress": "deflate"}
    with rasterio.open(path, "w", **profile) as target:
        target.write(label, 1)


def describe_place(place):
    """What a producer would put into the file's tags."""
    return {
        "ACQUISITION_DATE": place.date.isoformat(),
        "SUN_ELEVATION": f"{place.sun_elevation:.2f}",
        "SUN_AZIMUTH": f"{place.sun_azimuth:.2f}",
        "PROCESSING_BASELINE": "04.00",
        "SCENE_SEED": str(place.seed),
    }


def write_cems_folder(folder, seeds, height=768, width=768, encoding="dn", first=900, **changes):
    """One activation a seed in the CEMS layout: `EMSR900/AOI01/EMSR900_AOI01_01/EMSR900_AOI01_01_{S2L2A,DEL,GRA,CM}.tif`.

    Returns the image paths in the order of the seeds. The activation numbers count up from `first`, to 999 at most.
    """
    seeds = list(seeds)
    if len(seeds) > 1000 - first:
        raise ValueError(f"an activation number has three digits: at most {1000 - first} scenes from {first}, got {len(seeds)}")
    paths = []
    for position, seed in enumerate(seeds):
        scene = make_scene(seed, height, width, **changes)
        event = f"EMSR{first + position}"
        tile = f"{event}_AOI01_01"
        place = Path(folder) / event / "AOI01" / tile
        place.mkdir(parents=True, exist_ok=True)
        for layer, label in (("DEL", scene.delineation), ("GRA", scene.severity), ("CM", scene.cloud_mask)):
            write_label(place / f"{tile}_{layer}.tif", label, scene.crs, scene.transform)
        paths.append(place / f"{tile}_S2L2A.tif")
        write_image(paths[-1], scene.image, scene.crs, scene.transform, encoding, describe_place(scene.place))
    return paths


def write_plain_folder(folder, seeds, height=768, width=768, encoding="dn", **changes):
    """`post_fire/<name>.tif` beside `masks/<name>.tif` (0/1/255). Returns the image paths in the order of the seeds."""
    images, masks = Path(folder) / "post_fire", Path(folder) / "masks"
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed in seeds:
        scene = make_scene(seed, height, width, **changes)
        write_label(masks / f"{scene.name}.tif", scene.delineation, scene.crs, scene.transform)
        paths.append(images / f"{scene.name}.tif")
        write_image(paths[-1], scene.image, scene.crs, scene.transform, encoding, describe_place(scene.place))
    return paths
