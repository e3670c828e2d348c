"""
Reflectance stretched to pictures of three bands.

A fixed stretch is a range of reflectance, the same for every scene: a dark picture *is* a dark scene, and two pictures can be compared.
Chips of unknown sensors share a stretch that is measured on all of a sheet. All pictures are (H, W, 3) uint8; pixels where the shown bands
are NaN, infinite or all 0 are nodata and get NODATA_COLOUR.
"""

from dataclasses import dataclass

import numpy as np

from constants import band_role, last_date
from pictures.overlays import NODATA_COLOUR

SAMPLE = 200_000  # pixels: enough for the percentiles of a sheet
SHEET_GAMMA = 0.8


@dataclass(frozen=True)
class Composite:
    """What is shown as red, green and blue, with the reflectance that becomes full brightness and the exponent of the tone curve."""

    title: str
    roles: tuple  # see constants.band_role
    tops: tuple
    gamma: float


NATURAL = Composite("natural", ("red", "green", "blue"), (0.21, 0.21, 0.21), 1 / 1.5)
# Vegetation comes out green, burnt ground brownish red, through haze and smoke that hide it from the eye.
BURN = Composite("burn-sensitive", ("swir2", "nir", "red"), (0.36, 0.42, 0.22), 1 / 1.2)


def positions_of_roles(bands, roles):
    """Positions of `roles` ("red", "nir" …) in the band names `bands`; None where one is missing.

    Where both near infrared bands exist, the narrow one is taken: it shares its pixels with the short-wave infrared. Of several dates the
    last is shown.
    """
    start = last_date(bands)
    present = {band_role(name): i for i, name in reversed(list(enumerate(bands))) if i >= start}
    if "narrow_nir" in present:
        present["nir"] = present["narrow_nir"]
    positions = [present.get(role) for role in roles]
    return None if None in positions else positions


def stretch(three, lows, tops, gammas):
    """(3, H, W) reflectance as a picture. lows, tops: reflectance of black and of full brightness, a number each; gammas: exponents."""
    picture = np.empty((*three.shape[1:], 3), np.uint8)
    valid = np.isfinite(three).all(axis=0) & (three != 0).any(axis=0)
    for channel, (band, low, top, gamma) in enumerate(zip(three, lows, tops, gammas, strict=True)):
        shade = np.clip((np.nan_to_num(band) - low) / max(top - low, 1e-9), 0, 1)
        picture[..., channel] = np.rint(255 * shade**gamma)
    picture[~valid] = NODATA_COLOUR
    return picture


def show_composite(reflectance, bands, composite):
    """`reflectance` (C, H, W) with the names `bands` as a picture in a fixed stretch; None where the bands don't allow it."""
    positions = positions_of_roles(bands, composite.roles)
    if positions is None:
        return None
    # A "true colour image" band is a finished picture already: 0..1 is its full range.
    finished = [bands[position].upper().startswith("TCI") for position in positions]
    tops = [1.0 if done else top for done, top in zip(finished, composite.tops, strict=True)]
    return stretch(reflectance[positions], (0.0,) * 3, tops, [1.0 if done else composite.gamma for done in finished])


def natural_colour(reflectance, bands):
    """What an eye would see: red, green, blue. reflectance: (C, H, W), 0..1; bands: C names. None without those three bands."""
    return show_composite(reflectance, bands, NATURAL)


def burn_colour(reflectance, bands):
    """Short-wave infrared, near infrared, red: burns stand out. As `natural_colour`; None without those bands."""
    return show_composite(reflectance, bands, BURN)


def any_picture(reflectance, bands):
    """Natural colour if the bands allow it, else burn colour, else the first band in grey, stretched to its own 2nd..98th percentile."""
    picture = natural_colour(reflectance, bands)
    picture = burn_colour(reflectance, bands) if picture is None else picture
    if picture is not None:
        return picture
    band = reflectance[0]
    valid = np.isfinite(band) & (band != 0)
    low, high = np.percentile(band[valid], (2, 98)) if valid.any() else (0.0, 1.0)
    return stretch(reflectance[[0, 0, 0]], (low,) * 3, (high,) * 3, (1.0,) * 3)


def infrared_title(is_fire):
    """What the composite of short-wave infrared, near infrared and red is called: where nothing burns, by its bands."""
    return BURN.title if is_fire else "short-wave infrared"


def choose_composites(bands, is_fire=True):
    """[(title, three positions)] that the bands allow: natural colour, short-wave infrared, else the first bands. is_fire: of the label."""
    found = [(NATURAL.title, positions_of_roles(bands, NATURAL.roles)), (infrared_title(is_fire), positions_of_roles(bands, BURN.roles))]
    found = [(title, positions) for title, positions in found if positions]
    return found or [("bands", [2, 1, 0] if len(bands) > 2 else [0, 0, 0])]


def measure_stretch(values):
    """(lows, tops) a band for a sheet: 1st and 99th percentile of `values` (C, N) reflectance of all its valid pixels."""
    values = values[:, :: max(1, values.shape[1] // SAMPLE)]
    if not values.size:
        return np.zeros(len(values)), np.ones(len(values))
    return np.percentile(values, (1, 99), axis=1)
