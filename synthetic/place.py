"""Where and when a synthetic scene is set: its position, date, sun, weather and kind of country, drawn from the seed."""

import datetime
from dataclasses import dataclass

import numpy as np

SMALLEST = 64  # pixels: a smaller scene is the corner of one of this size, as hills and fields need room
LARGEST = 2_400  # pixels; places lie on a grid of 24 km, so that larger scenes would overlap


@dataclass(frozen=True)
class Place:
    """Position, date and country of a scene. Angles in degrees; azimuth and wind clockwise from north."""

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


def choose_place(seed):
    """The Place of a seed: a cell of its own on a 24 km grid over the Mediterranean zones, and a summer day."""
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
