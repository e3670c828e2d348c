"""
Reads analysis-ready data (ARD) as Maxar delivers it: a folder of tiles, described by STAC collections and items.

    <ARD>/acquisition_collections/*.json                    one collection per image strip; its "item" links name the tiles
    <ARD>/<zone>/<quadkey>/<date>/<CID>.json                the item
    <ARD>/<zone>/<quadkey>/<date>/<CID>-pan.tif, -ms.tif    pan is 4 times as fine as ms; uint16 reflectance x 10 000, 0 = nodata

Local folders and s3:// prefixes. Tiles that cannot be used are left out, each with a reason; no pixels are read.
"""

import json
import os
import posixpath
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from constants import WORLDVIEW_BANDS
from raster.pair import Pair, match_pair
from raster.remote_text import read_text
from raster.source import is_remote, s3_keys
from runtime.errors import UserError
from runtime.names import path_inside
from runtime.network import may_ask
from runtime.words import shortened

PLATFORMS = {"worldview-02": "WorldView-2", "worldview-03": "WorldView-3", "wv02": "WorldView-2", "wv03": "WorldView-3"}
RATIO = 4


@dataclass(frozen=True)
class Tile:
    """A pan and ms pair with a name that sorts and seeds: "zone/quadkey/date/CID" in an ARD, the file's stem for plain pairs."""

    name: str
    cid: str
    pair: Pair
    properties: dict


@dataclass(frozen=True)
class Item:
    """A tile as its JSON file describes it, before any raster is opened. folder: of the tile; properties: of the STAC item."""

    name: str
    cid: str
    folder: str
    properties: dict


def is_ard(folder):
    """Whether a local folder or an s3 prefix looks like an ARD."""
    if str(folder).startswith("s3://"):
        return bool(list_collections(folder))
    return (Path(folder) / "acquisition_collections").is_dir()


def list_collections(folder):
    """Sorted paths of the collection files; empty where there is no such folder."""
    folder = str(folder).rstrip("/")
    if folder.startswith("s3://"):
        bucket, _, key = folder.removeprefix("s3://").partition("/")
        prefix = f"{key}/acquisition_collections/".lstrip("/")
        return sorted(f"s3://{bucket}/{k}" for k in s3_keys(bucket, prefix) if k.endswith(".json"))
    place = Path(folder) / "acquisition_collections"
    return sorted(str(p) for p in place.glob("*.json")) if place.is_dir() else []


def join(base, relative):
    """`relative` resolved against the folder `base`; both may be URLs."""
    if "://" in relative:
        return relative
    if "://" in base:
        scheme, rest = base.split("://", 1)
        return f"{scheme}://{posixpath.normpath(posixpath.join(rest, relative))}"
    return os.path.normpath(os.path.join(base, relative))


def read_items(folder):
    """(items sorted by name, [(what, reason)] for everything left out). UserError where the folder is no ARD."""
    collections = list_collections(folder)
    if not collections:
        raise UserError(f"{folder} has no acquisition_collections/*.json; expected the folder of an ARD delivery (the one above it?)")
    paths, skipped = set(), []
    for path in collections:
        try:
            links = json.loads(read_text(path))["links"]
            if not isinstance(links, list):
                raise TypeError("its links are no list")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            skipped.append((path, f"unreadable collection ({type(error).__name__}: {error})"))
            continue
        found = set()
        for link in links:
            try:
                if link.get("rel") == "item":
                    found.add(item_path(folder, path, link["href"]))
            except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
                skipped.append((path, f"unreadable collection link {shortened(repr(link), 80)} ({type(error).__name__}: {error})"))
        # whoever wrote the collection chooses no server
        elsewhere = {item for item in found if is_remote(item) and item.split("/")[:3] != path.split("/")[:3] and not may_ask(item)}
        skipped += [(item, "on another server than its collection") for item in sorted(elsewhere)]
        paths.update(found - elsewhere)
    with ThreadPoolExecutor(32 if is_remote(folder) else 1) as pool:
        results = list(pool.map(read_item, sorted(paths)))
    items = [r for r in results if isinstance(r, Item)]
    skipped += [r for r in results if not isinstance(r, Item)]
    return sorted(items, key=lambda item: item.name), skipped


def item_path(folder, collection, href):
    """Where a collection's link leads. UserError where that is a local file outside of `folder`, TypeError where it is no text."""
    if not isinstance(href, str) or not href:
        raise TypeError(f"its href is {href!r}, expected text")
    path = join(collection.rpartition("/")[0], href)
    if not is_remote(path) and not is_remote(collection):
        path_inside(folder, os.path.relpath(path, folder), os.path.basename(collection))
    return path


def read_item(path):
    """Item of one JSON file, or (name, reason)."""
    folder, _, file = path.rpartition("/")
    cid = file.removesuffix(".json").upper()
    name = "/".join([*folder.split("/")[-3:], cid])
    try:
        properties = json.loads(read_text(path))["properties"]
        if not isinstance(properties, dict):
            raise TypeError("properties is no object")
    except (FileNotFoundError, NotADirectoryError):
        return name, "missing item JSON"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return name, f"unreadable item JSON ({type(error).__name__}: {error})"
    return Item(name, cid, folder, properties)


def read_allow_list(path):
    """The CIDs of a text file, one a line, upper-cased. UserError where there is none."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()  # spreadsheets put a byte order mark in front
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the allow-list {path} cannot be read ({error})") from error
    cids = {line.strip().upper() for line in lines if line.strip()}
    if not cids:
        raise UserError(f"the allow-list {path} is empty; expected one CID a line (leave --allow-list out to allow all)")
    return cids


def open_tiles(items, allowed=None, smallest=1):
    """
    (tiles, [(name, reason)], CIDs of `allowed` that no item has): the headers of both rasters are read and checked.

    smallest: ms pixels a side that a tile needs.
    """
    present = {item.cid for item in items}
    chosen = [item for item in items if allowed is None or item.cid in allowed]
    remote = bool(chosen) and is_remote(chosen[0].folder)
    with ThreadPoolExecutor(32 if remote else 1) as pool:
        results = list(pool.map(lambda item: open_tile(item, smallest), chosen))
    tiles = [r for r in results if isinstance(r, Tile)]
    skipped = [r for r in results if not isinstance(r, Tile)]
    return tiles, skipped, sorted((allowed or set()) - present)


def open_tile(item, smallest):
    """Tile of an item, or (name, reason)."""
    platform = item.properties.get("platform")
    if platform is None:
        return item.name, "no platform in its item JSON"
    if str(platform).strip().lower() not in PLATFORMS:
        return item.name, f"unsupported satellite {platform}"
    try:
        pair = match_pair(f"{item.folder}/{item.cid}-pan.tif", f"{item.folder}/{item.cid}-ms.tif", bands=None, look_for_doubling=False)
    except UserError as error:
        return item.name, str(error)
    if len(pair.bands) != len(WORLDVIEW_BANDS):
        return item.name, f"ms has {len(pair.bands)} bands, expected {len(WORLDVIEW_BANDS)}"
    if pair.dtypes != ("uint16", "uint16"):
        return item.name, f"dtypes are {pair.dtypes[0]} and {pair.dtypes[1]}, expected uint16"
    column, row, width, height = pair.area
    if pair.ratio != RATIO or pair.shift != (0.0, 0.0) or (column, row) != (0, 0):
        return item.name, f"pan is not exactly {RATIO} times ms (ratio {pair.ratio}, shift {pair.shift})"
    if width != height:
        return item.name, f"not square ({width} x {height})"
    if width < smallest:
        return item.name, f"ms is {width} pixels wide, a window needs {smallest}"
    # the format fixes the bands, whatever descriptions the files carry
    return Tile(item.name, item.cid, replace(pair, bands=WORLDVIEW_BANDS), item.properties)


def summarise(items):
    """One dict for each CID: cid, satellite, date, tiles, clouds (mean percent), off_nadir, gsd; sorted by date."""
    groups = {}
    for item in items:
        groups.setdefault(item.cid, []).append(item.properties)
    rows = []
    for cid, group in groups.items():
        rows.append({
            "cid": cid,
            "satellite": str(group[0].get("platform", "?")),
            "date": str(group[0].get("datetime", "?"))[:10],
            "tiles": len(group),
            "clouds": mean_of(group, "tile:clouds_percent"),
            "area_km2": sum(values_of(group, "tile:data_area")) if values_of(group, "tile:data_area") else None,
            "off_nadir": mean_of(group, "view:off_nadir"),
            "gsd": mean_of(group, "gsd"),
        })
    return sorted(rows, key=lambda row: (row["date"], row["cid"]))


def values_of(group, key):
    return [p[key] for p in group if isinstance(p.get(key), (int, float))]


def mean_of(group, key):
    values = values_of(group, key)
    return sum(values) / len(values) if values else None
