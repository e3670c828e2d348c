"""
Made-up Sentinel-2 scenes of burnt country, with labels: what the demo trains on and what tests measure against.

    scene = make_scene(seed=7, height=768, width=768)   # reflectance (12, H, W), severity, delineation and cloud mask (H, W)
    write_cems_folder("scenes", seeds=range(10))        # the CEMS wildfire layout, EMSR900/AOI01/EMSR900_AOI01_01/…
    write_plain_folder("scenes", seeds=range(10))       # post_fire/*.tif beside masks/*.tif
    image = paint_image(severity, seed=7)               # a scene painted over labels that you already have

What is modelled, floor by floor: rivers carve the land (synthetic/terrain.py); slope, aspect, height and wetness decide what grows, and
people add fields, towns, roads, reservoirs and clear-cuts (synthetic/country.py); a fire runs from one point with wind, slope and fuel, and
leaves islands (synthetic/burning.py); sun, clouds with their shadows, smoke and haze make it an image, which the sensor blurs, misregisters
and makes noisy (here).

What is **not** modelled: anything in time (there is no picture from before the fire), surface direction effects, snow, adjacency between
clouds and ground. Spectra are round figures for each material (synthetic/materials.py), not library measurements. A network trained here
has learnt these scenes, and is a rehearsal for real ones, not a substitute.

The scenes are meant to be hard for a threshold and fair for a network: ploughed soil, harvested and burnt-off fields, clear-cuts, fires
of earlier years, dark water and cloud shadows share the burn index of a fire, but neither its shape nor its whole spectrum.

The same seed gives the same bytes (on one kind of processor: the last bit of a Fourier transform may differ between kinds). Another
seed is another place: footprints of scenes of up to 2 400 pixels never overlap.
"""

import datetime
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from constants import IGNORE, SENTINEL2_DIVISOR, SENTINEL2_OFFSET, SENTINEL2_RESOLUTION
from synthetic.burning import SEVERITY_MIDDLE, char_surface, grow_fire, label_fire
from synthetic.country import make_land
from synthetic.materials import BANDS, PIXEL, lay
from synthetic.terrain import fractal_noise, smooth

SMALLEST = 64  # pixels: a smaller scene is the corner of one of this size, as hills and fields need room
LARGEST = 2_400  # pixels; places lie on a grid of 24 km, so that larger scenes would overlap

# Share of the light that comes from the sky and not from the sun: what lights a shadow. Much in blue, little in the
# infrared.
SKYLIGHT = np.array((.34, .30, .24, .20, .18, .16, .15, .14, .13, .13, .09, .08), np.float32)
# Brightness that a hazy air adds, relative to blue.
HAZE = np.array((1.25, 1.0, .70, .45, .38, .32, .28, .24, .21, .19, .05, .03), np.float32)


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


# --------------------------------------------------------------------------------------------------------------- where and when


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


# ----------------------------------------------------------------------------------------------------------- light, air, sensor


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


# ----------------------------------------------------------------------------------------------------------------------- scenes


def make_scene(seed, height=768, width=768, **changes):
    """The scene of a seed: (height, width) pixels of 10 m. `changes` replace fields of its Place, e.g. cloud_share=0.0."""
    if min(height, width) < 1 or max(height, width) > LARGEST:
        raise ValueError(f"a scene has 1 to {LARGEST} pixels a side, got {height} x {width}")
    place = replace(choose_place(seed), **changes)
    rng = np.random.default_rng([seed, 2])
    shape = max(height, SMALLEST), max(width, SMALLEST)
    land = make_land(rng, shape, place)
    surface = land.surface
    if place.old_fire:  # two to five years ago: grown over by shrubs, still low in the burn index
        old = grow_fire(rng, land, rng.uniform(0, 360), rng.uniform(0.04, 0.10))
        grown = np.clip(1.4 * old, 0, rng.uniform(0.65, 0.95))
        lay(surface, grown, "regrowth", 1 + 0.06 * fractal_noise(rng, shape, 0.8))
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


# ------------------------------------------------------------------------------------------------------------------------ files


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
