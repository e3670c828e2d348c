"""Spectral indices by name: which bands, which formula, from where. The network's inputs, the baselines of scores and docs/training.md."""

from dataclasses import dataclass

from constants import band_role, last_date
from runtime.errors import UserError, did_you_mean

STAND_INS = {"nir": "narrow_nir"}  # where a sensor's file has only the other one


@dataclass(frozen=True)
class SpectralIndex:
    """
    gain · (a − b) / (a + weight · b + constant), limited to -1..1, of the reflectances a and b.

    a, b: what the two bands see (constants.band_role). shows: what is high in it. source: who proposed it.
    """

    a: str
    b: str
    shows: str
    source: str
    gain: float = 1.0
    weight: float = 1.0
    constant: float = 0.0

    @property
    def formula(self):
        """For people: `1.5 (nir - red) / (nir + red + 0.5)`."""
        gain = f"{self.gain:g} " if self.gain != 1 else ""
        weight = f"{self.weight:g} " if self.weight != 1 else ""
        constant = f" + {self.constant:g}" if self.constant else ""
        return f"{gain}({self.a} - {self.b}) / ({self.a} + {weight}{self.b}{constant})"


# A new index of this form is one line here. Quotients without bounds (BAI) or of three bands (EVI) are not of this form.
SPECTRAL_INDICES = {
    "ndvi": SpectralIndex("nir", "red", "vegetation", "Rouse et al. 1974"),
    "savi": SpectralIndex("nir", "red", "vegetation above bare soil", "Huete 1988", gain=1.5, constant=0.5),
    "evi2": SpectralIndex("nir", "red", "dense vegetation", "Jiang et al. 2008", gain=2.5, weight=2.4, constant=1.0),
    "nbr": SpectralIndex("nir", "swir2", "vegetation; low where it burned", "García and Caselles 1991"),
    "nbr2": SpectralIndex("swir1", "swir2", "water in vegetation; low where it burned", "USGS, Landsat spectral indices"),
    "ndwi": SpectralIndex("green", "nir", "open water", "McFeeters 1996"),
    "mndwi": SpectralIndex("green", "swir1", "open water, also among buildings", "Xu 2006"),
    "ndmi": SpectralIndex("nir", "swir1", "water in vegetation", "Gao 1996; Wilson and Sader 2002"),
    "ndbi": SpectralIndex("swir1", "nir", "buildings and bare soil", "Zha, Gao and Ni 2003"),
    "ndsi": SpectralIndex("green", "swir1", "snow and ice", "Hall, Riggs and Salomonson 1995"),
}


def index_positions(name, bands, others=()):
    """
    (position of a, position of b) of a spectral index among band names; UserError where the bands do not allow it.

    others: further names that an error may suggest. Of bands of several dates, 1_B04, 2_B04 …, those of the last are taken.
    """
    if name not in SPECTRAL_INDICES:
        names = (*SPECTRAL_INDICES, *others)
        raise UserError(f"unknown spectral index {name!r}; expected one of {', '.join(names)}.{did_you_mean(name, names)}")
    start = last_date(bands)
    roles = [band_role(band) if i >= start else None for i, band in enumerate(bands)]
    positions = []
    for role in (SPECTRAL_INDICES[name].a, SPECTRAL_INDICES[name].b):
        found = [wanted for wanted in (role, STAND_INS.get(role)) if wanted in roles]
        if not found:
            raise UserError(f"index {name} needs a band that sees {role}, but the bands are {', '.join(bands)}; leave the index out")
        positions.append(roles.index(found[0]))
    return tuple(positions)


def first_possible(names, bands):
    """(name, positions) of the first of some spectral indices that the bands allow, or None."""
    for name in names:
        try:
            return name, index_positions(name, bands)
        except UserError:
            continue
    return None
