"""Finds the bands of a product that a model wants, where it was trained on another sensor by common name and wavelength."""

import re

from constants import band_role, is_picture_band, plain_band
from raster.product import family_of, wavelength_words
from raster.product_scene import ProductScene
from raster.sentinel2 import BANDS as SENTINEL2
from runtime.errors import UserError

TOLERANCE = 25.0  # nm that the middles of two bands may be apart: less than half the width of most. Broad B08 is not narrow B8A
ROLES = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "narrow_nir": "B8A", "swir1": "B11", "swir2": "B12"}


def scene_for_model(scene, wanted, sensor=None, wavelengths=None, level="", given=None):
    """
    The ProductScene of the bands that a model wants, in its order; its `matched` says how they were found. UserError.

    wanted: names of the model's bands. sensor, wavelengths (nm), level: of the images of its training, None and "" where not known.
    given: names or numbers of --bands, or None.
    """
    product = scene.product
    product.require_usable()
    if given is not None:
        if len(given) != len(wanted):
            raise UserError(f"--bands names {len(given)} bands, but the checkpoint wants {len(wanted)}: {', '.join(wanted)}")
        return scene.with_bands(given, "as given")
    other = f", trained on {level}, this is {product.level} reflectance" if level and product.level and level != product.level else ""
    if is_same_sensor(product, wanted, sensor):
        return scene.with_bands([plain_sentinel2(name) if sensor is None else name for name in wanted], f"by name{other}")
    wavelengths = wavelengths or [wavelength_of(name) for name in wanted]
    found = [band_like(product, name, wavelength) for name, wavelength in zip(wanted, wavelengths, strict=True)]
    if len(set(found)) != len(found):
        raise UserError(f"{scene} has one band for two of the checkpoint's ({', '.join(wanted)}); pass --bands")
    pairs = ", ".join(pair_words(name, wavelength, band) for name, wavelength, band in zip(wanted, wavelengths, found, strict=True))
    origin = sensor or ("Sentinel-2 names" if any(wavelengths) else "names")
    return ProductScene(product, found, f"of {product.sensor or product.kind} for those of {origin} by common name: {pairs}{other}")


def is_same_sensor(product, wanted, sensor):
    """Whether names mean the same in the training and in the product. Without a sensor those of Sentinel-2 are taken for its own."""
    if sensor is not None:
        return sensor == product.sensor and all(len(product.find(name)) == 1 for name in wanted)
    return product.sensor.startswith("Sentinel-2 MSI") and all(plain_sentinel2(name) for name in wanted)


def plain_sentinel2(name):
    """`B04` of B4, red, 20240711_B04 …: the band of Sentinel-2 that a name without a sensor stands for; None where it is none."""
    if is_picture_band(name):
        return None
    found = re.fullmatch(r"b0*(\d+)(a?)", plain_band(name))
    if found:
        number = f"B{found[1]}A" if found[2] else f"B{int(found[1]):02d}"
        return number if number in SENTINEL2 else None
    plain = plain_band(name)
    by_common = [band for band, (common, _, _) in SENTINEL2.items() if common == plain]
    return by_common[0] if by_common else ROLES.get(band_role(name))


def wavelength_of(name):
    """nm of a band that is called as those of Sentinel-2 are, else None."""
    return SENTINEL2[band][1] if re.fullmatch(r"b\d+a?", plain_band(name)) and (band := plain_sentinel2(name)) else None


def family_of_name(name):
    band = plain_sentinel2(name)
    return family_of(SENTINEL2[band][0]) if band else family_of(plain_band(name))


def band_like(product, name, wavelength):
    """The Band of a product with the common name of a model's band, and a wavelength within TOLERANCE. UserError."""
    if wavelength is None:
        return product.band(name if product.find(name) else family_of_name(name))
    family = family_of_name(name)
    known = [band for band in product.bands if band.wavelength is not None]
    near = sorted((abs(band.wavelength - wavelength), n) for n, band in enumerate(known) if not is_other(family, band))
    if near and near[0][0] <= TOLERANCE:
        return known[near[0][1]]
    nearest = f"; the nearest is {known[near[0][1]].name}, {wavelength_words(known[near[0][1]].wavelength)}" if near else ""
    raise UserError(f"{product.path} has no band within {TOLERANCE:g} nm of {name} ({wavelength_words(wavelength)}){nearest}. "
                    "Train on bands that both sensors have, or pass --bands")


def is_other(family, band):
    """Whether a band has another common name than the one that is looked for; names that are no common ones decide nothing."""
    known = {family_of(common) for common, _, _ in SENTINEL2.values()}
    return family in known and band.family in known and family != band.family


def pair_words(name, wavelength, band):
    """`B02 → blue (−11 nm)`."""
    if wavelength is None or band.wavelength is None:
        return f"{name} → {band.name} (wavelength not known)"
    return f"{name} → {band.name} ({band.wavelength - wavelength:+.0f} nm)"


def require_alike(scenes):
    """UserError where ProductScenes of one patch set have bands whose middles are further apart than TOLERANCE."""
    first = scenes[0]
    for scene in scenes[1:]:
        for one, other in zip(first.bands, scene.bands, strict=True):
            if one.wavelength and other.wavelength and abs(one.wavelength - other.wavelength) > TOLERANCE:
                raise UserError(f"{scene} has {other.words} where {first} has {one.words}: more than {TOLERANCE:g} nm apart; pass --bands")
