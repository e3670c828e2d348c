"""STAC items and item collections as products: files, or what a server answers, with assets on disk, https:// or s3://."""

import json
import os
import re
from collections import Counter
from urllib.parse import urljoin, urlparse

from raster import landsat
from raster.package import Place
from raster.product import FAMILIES, Band, CloudLayer, Product, broken
from raster.remote_text import read_text
from raster.sentinel2 import BANDS as SENTINEL2
from raster.sentinel2 import FIRST_OFFSETS, number_of
from raster.source import RASTER_SUFFIXES, is_remote
from runtime.errors import UserError
from runtime.names import path_inside
from runtime.network import is_address, without_signature

# Keys, or roles, of assets that hold no bands.
PICTURES = ("visual", "thumbnail", "overview", "preview", "rendered_preview", "tilejson", "metadata")
CLOUD_ASSETS = {"scl": "scl", "qa_pixel": "qa_pixel", "fmask": "fmask", "udm2": "udm2", "ortho_udm2": "udm2"}
OWN_NAME = r"(?i)B\d[\dA]?"  # of a band by its satellite
LANDSAT_8_9 = r"landsat[-_ ]?[89]"
RESOLUTION = re.compile(r"[_-](\d{1,4})m$", re.IGNORECASE)  # in the name of an asset, as in B02_10m
OTHER_SCHEME = re.compile(r"(?!s3:|https?:)[a-z][a-z0-9+.-]+:", re.IGNORECASE)


class NoItem(UserError):
    """JSON that has nothing to do with STAC items: an error of a file that is named by itself, passed over in a glob."""


def read_json(path):
    """The object of a JSON file or address, None where it is no JSON object at all. UserError where it cannot be read, NoItem."""
    place = without_signature(str(path))
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        if "HTTP Error 403" in str(error):
            raise UserError(f"{place} is refused (403); its signature has expired or is missing") from error
        kind = NoItem if isinstance(error, UnicodeDecodeError) else UserError
        raise kind(f"{place} can't be read ({without_signature(' '.join(str(error).split()))[:120]})") from error
    if not text.lstrip("\ufeff \t\r\n").startswith("{"):
        return None
    try:
        value = json.loads(text.lstrip("\ufeff"))
    except (ValueError, RecursionError) as error:
        kind = UserError if '"stac_version"' in text else NoItem
        raise kind(f"{place} is not whole JSON ({str(error)[:80]}); save the item again") from error
    return value if isinstance(value, dict) else None


def products_of(path, value):
    """
    Products of a STAC item or item collection, in their order. Those that cannot be used say why.

    path: of the file, or its address. value: the object in it. NoItem for other JSON, UserError for a collection that is damaged.
    """
    kind, features = value.get("type"), value.get("features")
    if kind == "Feature" and isinstance(value.get("assets"), dict):
        return [product_of(value, path, without_signature(str(path)))]
    if kind == "FeatureCollection" and isinstance(features, list) and features and all(is_item(f) for f in features):
        ids = [str(feature.get("id")) for feature in features]
        name, times = Counter(ids).most_common(1)[0]
        if times > 1:
            raise UserError(f"{without_signature(str(path))} holds two items {name!r}; save each once")
        return [product_of(feature, path, f"{path}#{feature.get('id')}") for feature in features]
    found = f"a STAC {kind}" if kind in ("Collection", "Catalog") else "no STAC item"
    damaged = isinstance(features, list) and any(is_item(feature) for feature in features)
    place = without_signature(str(path))
    raise (UserError if damaged else NoItem)(f"{place} is {found}; expected an item or an item collection (items.json), see docs/data.md")


def is_item(value):
    return isinstance(value, dict) and isinstance(value.get("assets"), dict)


def product_of(item, base, path):
    """Product of an item. base: path or address of the file that it is in. path: of the scene."""
    name = re.sub(r"[^\w.-]", "_", str(item.get("id") or "item"))
    try:
        return read_item(item, str(base), path, name)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        return broken(path, name, f"{without_signature(path)} is no STAC item that can be read ({type(error).__name__}: {str(error)[:80]})")
    except UserError as error:
        return broken(path, name, error)


def read_item(item, base, path, name):
    """Product of an item. UserError, TypeError … where it is not in its form."""
    properties, place = item.get("properties") or {}, without_signature(path)
    platform = platform_of(item, properties)
    sensor, level = sensor_of(item, properties, platform)
    found, layers, remarks = {}, [], []  # found: {(asset's key, number): (rank, Band)}. layers: of clouds, (metres, CloudLayer)
    for key, asset in item["assets"].items():
        if not isinstance(asset, dict) or not isinstance(asset.get("href"), str):
            continue
        if (form := CLOUD_ASSETS.get(RESOLUTION.sub("", key.lower()))) and is_raster(asset):
            layers.append((metres_of(key, {}, asset) or 0.0, CloudLayer(form, place_of(asset["href"], base))))
        roles = [str(role).lower() for role in asset.get("roles") or ()]
        if not is_raster(asset) or key.lower() in PICTURES or any(role in PICTURES for role in roles):
            continue
        for number, facts in enumerate(facts_of(key, asset), start=1):
            if band := band_of(key, number, facts, asset, base, platform):
                found[key, number] = "jp2" in str(asset.get("type", asset["href"])).lower(), band
    bands = without_copies(found, place)
    if not bands:
        raise UserError(f"{place} names no bands in its assets (bands, or eo:bands); pass the files themselves")
    bands, unknown = scaled(bands, properties, sensor, remarks, place)
    clouds = min(layers, key=lambda layer: layer[0])[1] if layers else None
    cover = number_of(properties.get("eo:cloud_cover"))
    links = [str(link.get("href")) for link in item.get("links") or () if isinstance(link, dict) and link.get("rel") == "self"]
    address = without_signature(next(filter(is_address, links), ""))
    return Product(
        path=path, name=name, kind=f"STAC item of {item.get('collection') or platform or 'an unknown collection'}", sensor=sensor,
        level=level, time=str(properties.get("datetime") or properties.get("start_datetime") or ""), tile=tile_of(properties, name),
        bands=bands, clouds=clouds, no_clouds="its item names no layer of clouds (scl, qa_pixel, fmask, udm2)",
        facts=(("satellite", platform or "not stated"), *((("clouds", f"{cover:.1f} %"),) if cover is not None else ())),
        scale_unknown=unknown, remarks=tuple(remarks), address=address,
    )


def platform_of(item, properties):
    """`sentinel-2b`, `landsat-9` …, "" where the item does not say."""
    stated = str(properties.get("platform") or properties.get("constellation") or "").lower()
    collection = str(item.get("collection") or "").lower()
    return stated or ("sentinel-2" if "hlss30" in collection else "landsat-8" if "hlsl30" in collection else "")


def sensor_of(item, properties, platform):
    """(sensor, level) as raster.product.Product has them."""
    collection = str(item.get("collection") or "").lower()
    harmonised = " (HLS)" if "hls" in collection else ""
    if "sentinel-2" in platform or "sentinel-2" in str(properties.get("constellation")).lower():
        sensor = f"Sentinel-2 MSI{harmonised}"
    elif re.search(LANDSAT_8_9, platform):
        sensor = f"Landsat OLI{harmonised}"
    else:
        sensor = " ".join([platform, *map(str, properties.get("instruments") or ())]).strip()
    return sensor, "top of atmosphere" if "l1c" in collection else "surface" if re.search(r"l2|hls|-sr\b", collection) else ""


def is_raster(asset):
    kind = str(asset.get("type", "")).lower()
    return "tiff" in kind or "jp2" in kind or urlparse(asset["href"]).path.lower().endswith(RASTER_SUFFIXES)


def facts_of(key, asset):
    """A dict for each band of an asset (and its key): what bands, eo:bands and raster:bands say of it."""
    listed, rasters = asset.get("bands") or asset.get("eo:bands") or [], asset.get("raster:bands") or []
    if not listed and not rasters and re.fullmatch(OWN_NAME, RESOLUTION.sub("", key)):  # NASA's items name a band by its asset's key alone
        return [{}]
    count = max(len(listed), len(rasters))
    merged = []
    for number in range(count):
        parts = [*(bands[number : number + 1] for bands in (listed, rasters))]
        merged.append({key: value for part in parts for band in part for key, value in band.items()})
    return merged


def band_of(key, number, facts, asset, base, platform):
    """The Band of an asset, None for what has neither a common name nor a wavelength nor a name of a band."""
    common = str(facts.get("eo:common_name") or facts.get("common_name") or "").lower()
    own = RESOLUTION.sub("", str(facts.get("name") or key))
    micrometres = number_of(facts.get("eo:center_wavelength", facts.get("center_wavelength")))
    wavelength = round(micrometres * (1000 if micrometres < 100 else 1), 1) if micrometres else None  # some catalogues write nanometres
    if not common and wavelength is None and not re.fullmatch(OWN_NAME, own):
        return None
    standard = sentinel2_name(own, common, wavelength) if "sentinel-2" in platform else None
    if standard:
        common, wavelength = SENTINEL2[standard][0], wavelength or SENTINEL2[standard][1]
    elif re.search(LANDSAT_8_9, platform) and not common and (digit := re.fullmatch(r"(?i)b0*([1-7])", own)):
        common, wavelength = landsat.BANDS[int(digit[1])]
    scale = number_of(facts.get("raster:scale", facts.get("scale", asset.get("raster:scale"))))
    offset = number_of(facts.get("raster:offset", facts.get("offset", asset.get("raster:offset"))))
    return Band(
        standard or common or own, common, wavelength, metres_of(key, facts, asset), place_of(asset["href"], base), number, own, scale,
        (offset or 0.0) if scale is not None else None, number_of(facts.get("nodata", asset.get("nodata"))),
    )


def metres_of(key, facts, asset):
    """Metres of a pixel of an asset's band, as it states them or its name does (B02_10m); None where neither does."""
    stated = number_of(facts.get("raster:spatial_resolution", facts.get("spatial_resolution")))
    named = RESOLUTION.search(key)
    return stated or (float(named[1]) if named else number_of(asset.get("gsd")))


def sentinel2_name(own, common, wavelength):
    """`B8A` of a band of a Sentinel-2 item, whatever its catalogue calls it; None where that is not certain."""
    if found := re.fullmatch(r"B(\d+)(A?)", own.upper()):
        return next((n for n in (f"B{found[1]}A" if found[2] else f"B{int(found[1]):02d}",) if n in SENTINEL2), None)
    family = FAMILIES.get(common, common)
    alike = {n: f for n, f in SENTINEL2.items() if common in (f[0], n.lower()) or FAMILIES.get(f[0], f[0]) == family}
    if wavelength is not None:
        alike = {n: f for n, f in alike.items() if abs(f[1] - wavelength) <= 15}
    exact = [n for n, f in alike.items() if f[0] == common]
    return exact[0] if len(exact) == 1 else next(iter(alike)) if len(alike) == 1 else None


def without_copies(found, path):
    """
    The Bands of {(key, number): (rank, Band)}, each once: of assets with one band the finest, then that of the lower rank (a GeoTIFF, not
    JPEG 2000). UserError where that leaves two. path: for messages.
    """
    by_name = {}
    for (key, _), (rank, band) in found.items():
        by_name.setdefault(band.name, []).append((rank, key, band))
    bands = []
    for name, candidates in by_name.items():
        candidates = finest_of(candidates)
        least = min(rank for rank, _, _ in candidates)
        best = [(key, band) for rank, key, band in candidates if rank == least]
        if len({key for key, _ in best}) > 1 or len(best) > 1:
            own = {band.own_name for _, band in best}
            if len(own) == len(best):  # one common name for several bands, such as rededge: each by its own
                bands += [as_own(band) for _, band in best]
                continue
            raise UserError(f"{path} has two assets for band {name} ({best[0][0]} and {best[1][0]}); leave one in the item")
        bands.append(best[0][1])
    return tuple(bands)


def finest_of(candidates):
    """[(rank, key, Band)] without those of which another has the same name of its own and finer pixels, as both state them."""
    finest = {}  # {own name: metres}, None where one of them does not say
    for _, _, band in candidates:
        before = finest.get(band.own_name, band.resolution)
        finest[band.own_name] = None if None in (before, band.resolution) else min(before, band.resolution)
    return [(*rest, band) for *rest, band in candidates if finest[band.own_name] in (None, band.resolution)]


def as_own(band):
    return Band(**{**vars(band), "name": band.own_name})


def scaled(bands, properties, sensor, remarks, path):
    """
    (Bands with their scale, why it is not known or None), of catalogues of Sentinel-2 whose items state it elsewhere than in the bands.

    Element 84 subtracts the offset of baseline 04.00 from the pixels and leaves it in raster:bands; Microsoft states the baseline alone.
    HLS has another scale and nodata, in the tags of its files. path: for messages.
    """
    applied = properties.get("earthsearch:boa_offset_applied", properties.get("sentinel:boa_offset_applied"))
    if applied is True and any(band.offset for band in bands):
        remarks.append(f"{path}: boa_offset_applied says that the offset is out of the pixels already; that of raster:bands is not used")
        return tuple(Band(**{**vars(band), "offset": 0.0 if band.scale is not None else None}) for band in bands), None
    if applied is False and any(band.offset for band in bands):
        remarks.append(f"{path}: boa_offset_applied is false, which is wrong in some items of this catalogue; look at the reflectance")
    baseline = number_of(properties.get("s2:processing_baseline", properties.get("processing:version")))
    if sensor == "Sentinel-2 MSI" and all(band.scale is None for band in bands):
        if baseline is None and applied is not True:
            return bands, f"{path} states neither raster:bands nor s2:processing_baseline; pass --divide-by and --offset"
        offset = -0.1 if applied is not True and baseline >= FIRST_OFFSETS else 0.0
        return tuple(Band(**{**vars(band), "scale": 1e-4, "offset": offset, "nodata": 0.0 if band.nodata is None else band.nodata})
                     for band in bands), None
    return bands, None


def tile_of(properties, name):
    """`T32TQM`, `193028`, or ""."""
    if code := properties.get("grid:code"):
        return re.sub(r"^MGRS-", "T", str(code)).removeprefix("WRS2-")
    if tile := properties.get("s2:mgrs_tile"):
        return f"T{tile}"
    if properties.get("landsat:wrs_path"):
        return f"{properties['landsat:wrs_path']}{properties.get('landsat:wrs_row', '')}"
    found = re.search(r"(?:^|[_.])T?(\d{2}[A-Z]{3})(?:[_.]|$)", name)
    return f"T{found[1]}" if found else ""


def place_of(href, base):
    """Where an asset is. UserError where its href leaves the item's folder, or has a scheme that is not read."""
    if is_address(href):
        return Place(href)
    if OTHER_SCHEME.match(href):
        found = without_signature(href)[:80]
        raise UserError(f"{without_signature(base)} leads to {found!r}; expected https://, s3://, or a path beside the item")
    if is_remote(base):
        return Place(urljoin(base, href) if not base.startswith("s3://") else f"s3:{urljoin(base.removeprefix('s3:'), href)}")
    folder = os.path.dirname(os.path.abspath(base))
    relative = os.path.relpath(href, folder) if os.path.isabs(href) else os.path.normpath(href)
    return Place(str(path_inside(folder, relative, base)))
