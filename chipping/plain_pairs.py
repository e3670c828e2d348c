"""Pan and ms rasters that lie around anywhere, as tiles for make-chips."""

import re
from collections import defaultdict

from chipping.ard import Tile
from raster.pair import match_pair
from raster.scale import decide_scale, parse_numbers
from raster.source import describe, list_rasters, scene_name
from runtime.errors import UserError

# parts of a name that tell the two apart and say nothing about the place
KIND = re.compile(r"(?i)(^|[-_. ])(pan|panchromatic|ms|mul|mss|multispectral|m|p)(?=[-_. ]|$)")


def place_of(path):
    """`worldview2-pan.tif` and `worldview2-ms.tif` -> `worldview2`."""
    return KIND.sub("", scene_name(path)) or scene_name(path)


def match_paths(pans, mss):
    """[(pan path, ms path)]: one of each belong together anyhow, several by their names without "pan" and "ms"."""
    pans, mss = list_rasters(pans), list_rasters(mss)
    if len(pans) == len(mss) == 1:
        return [(pans[0], mss[0])]
    places = defaultdict(lambda: ([], []))
    for side, paths in enumerate((pans, mss)):
        for path in paths:
            places[place_of(path)][side].append(path)
    odd = {name: sides for name, sides in sorted(places.items()) if [len(s) for s in sides] != [1, 1]}
    if odd:
        name, (p, m) = next(iter(odd.items()))
        raise UserError(
            f"{len(pans)} pan and {len(mss)} ms files don't pair up by name: {name!r} has {len(p)} pan and {len(m)} ms; "
            "their names without 'pan' and 'ms' must be the same, and differ from place to place"
        )
    return [(p[0], m[0]) for _, (p, m) in sorted(places.items())]


def pair_tiles(pans, mss, shift=(0.0, 0.0), area=None, bands=None):
    """(tiles, remarks) of pan and ms patterns. area: (column, row, width, height) in ms pixels, of every pair; None for all."""
    tiles, remarks, names = [], [], set()
    for pan, ms in match_paths(pans, mss):
        pair = match_pair(pan, ms, shift, bands)
        if bands and len(bands) != describe(ms).count:
            raise UserError(f"--bands has {len(bands)} names, {ms} has {describe(ms).count} bands")
        pair = pair.inside(area) if area else pair
        name = place_of(ms)
        name = name if name not in names else str(ms)
        names.add(name)
        remarks += pair.remarks
        tiles.append(Tile(name, name, pair, {}))
    first = tiles[0].pair
    for tile in tiles[1:]:
        if (tile.pair.ratio, tile.pair.bands) != (first.ratio, first.bands):
            raise UserError(
                f"{tile.pair.ms} has ratio {tile.pair.ratio} and bands {', '.join(tile.pair.bands)}, {first.ms} has {first.ratio} "
                f"and {', '.join(first.bands)}; make their chips in separate folders"
            )
    return tiles, remarks


def scale_of_pair(pair, divide_by=None, offset=None):
    """(divide_by, offset), one number each for both images: from flags, else from the tags of ms. UserError where neither says."""
    info = describe(pair.ms)
    numbers = [parse_numbers(text, flag, info.count) for text, flag in ((divide_by, "--divide-by"), (offset, "--offset"))]
    scale = decide_scale(info, range(info.count), pair.bands, *numbers)
    if len(set(scale.divide_by)) > 1 or len(set(scale.offset)) > 1:
        raise UserError(f"{pair.ms} has a scale for each band; pan and ms must share one: pass a single --divide-by and --offset")
    return scale.divide_by[0], scale.offset[0]


def scale_of_pairs(tiles, divide_by=None, offset=None):
    """(divide_by, offset) that all pairs of a chip set share; UserError that names two whose tags differ."""
    scales = [scale_of_pair(tile.pair, divide_by, offset) for tile in tiles]
    for tile, scale in zip(tiles, scales, strict=True):
        if scale != scales[0]:
            raise UserError(
                f"{tile.pair.ms} says divisor {scale[0]:g} and offset {scale[1]:g}, {tiles[0].pair.ms} says {scales[0][0]:g} and "
                f"{scales[0][1]:g}; make their chips in separate folders, or pass --divide-by and --offset where tags are wrong"
            )
    return scales[0]
