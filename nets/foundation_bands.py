"""Which channels of an image are the bands that a published encoder knows, whatever they are called."""

import dataclasses
import re

from constants import band_role, plain_band
from runtime.errors import UserError, did_you_mean

# The name that a band has here, of names that are neither Sentinel-2's (B05) nor in constants.BAND_ALIASES.
SPELLINGS = {
    "swir_1": "swir1", "swir_2": "swir2", "nir_broad": "nir", "coastal": "B01", "coastal_aerosol": "B01", "red_edge_1": "B05",
    "red_edge_2": "B06", "red_edge_3": "B07", "rededge071": "B05", "rededge075": "B06", "rededge078": "B07", "water_vapor": "B09",
    "nir09": "B09", "cirrus": "B10", "tci_r": "red", "tci_g": "green", "tci_b": "blue", "r": "red", "g": "green", "b": "blue",
}
STAND_INS = {"nir": "narrow_nir", "narrow_nir": "nir"}  # taken for each other where a product has only one
# Micrometres of the middle of each band. DOFA was trained with 5.405 for both polarisations of Sentinel-1.
WAVELENGTHS = {
    "B01": 0.4427, "blue": 0.4927, "green": 0.5598, "red": 0.6646, "B05": 0.7041, "B06": 0.7405, "B07": 0.7828, "nir": 0.8328,
    "narrow_nir": 0.8647, "B09": 0.9451, "B10": 1.3735, "swir1": 1.6137, "swir2": 2.2024, "vv": 5.405, "vh": 5.405,
}


@dataclasses.dataclass(frozen=True)
class Choice:
    """
    kept: channels of the image that the encoder reads, date after date. columns: of one date, the position of each among the bands that the
    encoder knows, or None where it knows no bands by name. keys: their names here. left: names that it does not read; stand_ins: `B08 for
    narrow_nir` of bands that are taken for a neighbour.
    """

    kept: tuple[int, ...]
    columns: tuple[int, ...] | None
    keys: tuple[str, ...]
    left: tuple[str, ...]
    stand_ins: tuple[str, ...] = ()


def key_of(name):
    """`red` of B04, B4, TCI_R, 20240711_B4; `B05` of b5; the plain name in lower case of others."""
    plain = plain_band(name)
    if plain in SPELLINGS:
        return SPELLINGS[plain]
    if role := band_role(name):
        return role
    found = re.fullmatch(r"b0*(\d+)(a?)", plain)
    return f"B{int(found[1]):02d}{found[2].upper()}" if found else plain


def choose(encoder, known, names, dates=1):
    """
    The Choice of channels called `names`, which are those of `dates` dates one after another. known: keys of the encoder's bands, in its
    order; None where any band with a wavelength will do.

    UserError where the encoder knows none of them, or where the dates are unlike each other.
    """
    if not isinstance(dates, int) or isinstance(dates, bool) or dates < 1 or len(names) % dates:
        raise UserError(f"encoder {encoder} got {len(names)} channels, which are not those of dates={dates}; expected all bands of the "
                        "first date, then of the second …")
    count = len(names) // dates
    keys = [key_of(name) for name in names[:count]]
    for date in range(1, dates):
        found = [key_of(name) for name in names[date * count : (date + 1) * count]]
        if found != keys:
            one, other = (", ".join(names[start : start + count]) for start in (0, date * count))
            raise UserError(f"encoder {encoder} with dates={dates} expects the same bands of each date, found {one} and {other}")
    wanted = WAVELENGTHS if known is None else known
    plain_keys = keys
    keys = [STAND_INS[key] if key not in wanted and STAND_INS.get(key) in wanted and STAND_INS[key] not in keys else key for key in keys]
    positions = [i for i, key in enumerate(keys) if key in wanted and key not in keys[:i]]
    if not positions:
        near = did_you_mean(names[0], wanted)
        raise UserError(f"encoder {encoder} knows {', '.join(wanted)}, and none of {', '.join(names)}; name them by --encoder-args "
                        f"bands=….{near}")
    left = tuple(name for i, name in enumerate(names[:count]) if i not in positions)
    return Choice(tuple(date * count + i for date in range(dates) for i in positions),
                  None if known is None else tuple(known.index(keys[i]) for i in positions), tuple(keys[i] for i in positions), left,
                  tuple(f"{names[i]} for {keys[i]}" for i in positions if keys[i] != plain_keys[i]))
