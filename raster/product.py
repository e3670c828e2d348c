"""What is known of a delivered product before its rasters are opened: bands, scale, clouds, time, sensor."""

import re
from dataclasses import dataclass

from raster.package import Place
from runtime.errors import UserError, did_you_mean

# Common names (STAC's eo extension) that count as one: products say nir08 and nir of bands that overlap. Wavelengths decide which fit.
FAMILIES = {"nir08": "nir", "narrow_nir": "nir", "swir1": "swir16", "swir_16": "swir16", "swir2": "swir22", "swir_22": "swir22",
            "rededge071": "rededge", "rededge075": "rededge", "rededge078": "rededge"}


@dataclass(frozen=True)
class Band:
    """
    One band of a product.

    name: as scenes, chips and checkpoints call it. common: its common name, "" without. wavelength: nm, of the middle, None where it is
    not known. resolution: metres, None where only the file tells. place, index: its raster, and the band of it from 1. own_name: as the
    files of the product call it. scale, offset: reflectance = stored · scale + offset; None where only the file's tags can tell. nodata:
    stored value, None where only the file tells.
    """

    name: str
    common: str
    wavelength: float | None
    resolution: float | None
    place: Place
    index: int = 1
    own_name: str = ""
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None

    @property
    def family(self):
        return FAMILIES.get(self.common, self.common)

    @property
    def words(self):
        """`B04 (red, 665 nm)`."""
        facts = [word for word in (self.common if self.common != self.name else "", wavelength_words(self.wavelength)) if word]
        return f"{self.name} ({', '.join(facts)})" if facts else self.name


@dataclass(frozen=True)
class CloudLayer:
    """The layer that tells where clouds are. form: a key of raster.product_clouds.FORMS. place: of its raster."""

    form: str
    place: Place


@dataclass(frozen=True, kw_only=True)
class Product:
    """
    path: of the folder, archive or item. name: of its scene. kind: `Sentinel-2 L2A`. sensor: of the instrument: `Sentinel-2 MSI`. level:
    `surface` or `top of atmosphere`, "" where unknown. time: ISO text. tile: where it is in its product's grid. bands: Bands. clouds:
    CloudLayer or None; no_clouds: why there is none. facts: ((what, text), …) for inspect. scale_unknown: why no scale is known, or None.
    remarks: sentences that a user needs. address: of its STAC item, as the item states it. problem: why it cannot be used at all, or None.
    """

    path: str
    name: str
    kind: str = ""
    sensor: str = ""
    level: str = ""
    time: str = ""
    tile: str = ""
    bands: tuple = ()
    clouds: CloudLayer | None = None
    no_clouds: str = "it has none"
    facts: tuple = ()
    scale_unknown: str | None = None
    remarks: tuple = ()
    address: str = ""
    problem: str | None = None

    @property
    def date(self):
        """`2022-02-05`, or ""."""
        return self.time[:10]

    @property
    def words(self):
        """`Sentinel-2 L2A, 2022-02-05, T32TQM`."""
        return ", ".join(word for word in (self.kind, self.date, self.tile) if word)

    def require_usable(self):
        if self.problem:
            raise UserError(self.problem)

    def band(self, word):
        """The Band that a user or a model means by a word: the product's own name, else a common one. UserError."""
        found = self.find(word)
        if len(found) == 1:
            return found[0]
        names = [band.name for band in self.bands]
        if found:
            raise UserError(f"{self.path} has several bands {word!r} ({', '.join(b.name for b in found)}); name one of them")
        raise UserError(f"{self.path} has no band {word!r}; it has {', '.join(names)}.{did_you_mean(str(word), names)}")

    def find(self, word):
        """The Bands that a word names."""
        word = str(word).strip()
        if exact := [band for band in self.bands if word == band.name] or [band for band in self.bands if word == band.own_name]:
            return exact  # before numbers: some items call their bands 3, 2, 1
        if re.fullmatch("[0-9]{1,6}", word):
            return [self.bands[int(word) - 1]] if 0 < int(word) <= len(self.bands) else []
        plain = plain_name(word)
        ways = (lambda b: plain in (plain_name(b.name), plain_name(b.own_name)), lambda b: plain == plain_name(b.common),
                lambda b: family_of(word) == b.family != "")
        for way in ways:
            if found := [band for band in self.bands if way(band)]:
                return found
        return []


def plain_name(name):
    """A band's name so that B2, B02, b02 and SR_B2 are one; B8A is another."""
    found = re.fullmatch(r"(?:sr_)?b0*(\d+a?)", name.strip().lower())
    return f"b{found[1]}" if found else name.strip().lower()


def names_scene(name, product):
    """Whether a name has the tile and the date of a product in it, between other characters than letters and digits."""
    date = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)", product.date)
    if not date:  # whatever a stranger's metadata state
        return False
    year, month, day = date.groups()
    tile = product.tile.removeprefix("T") if re.fullmatch(r"T\d{2}[A-Z]{3}", product.tile) else product.tile
    dates = "|".join((f"{year}{month}{day}(?:T\\d{{6}})?", f"{year}-{month}-{day}"))
    return all(re.search(rf"(?<![A-Za-z0-9])(?:{words})(?![A-Za-z0-9])", name) for words in (f"T?{re.escape(tile)}", dates))


def family_of(word):
    word = word.strip().lower()
    return FAMILIES.get(word, word)


def wavelength_words(wavelength):
    return "" if wavelength is None else f"{wavelength:.0f} nm"


def broken(path, name, problem, **known):
    """A Product that cannot be used, and why: an error where it is needed, so that the others of a run are not lost with it."""
    return Product(path=str(path), name=name, problem=str(problem), **known)
