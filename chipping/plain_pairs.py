"""Pan and ms rasters that lie around anywhere, as tiles for make-chips."""

import math
import re
from collections import defaultdict

from chipping.ard import Tile
from raster.pair import match_pair
from raster.scale import decide_scale, parse_numbers, scale_from_tags
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


def pair_tiles(pans, mss, shift=(0.0, 0.0), area=None, bands=None, strict=True):
    """
    (tiles, remarks) of pan and ms patterns. area: (column, row, width, height) in ms pixels, of every pair; None for all.

    strict: a file that can't be opened is an error; without it the pair is left out, and a remark says why, as long as others are there.
    """
    tiles, remarks, names, broken = [], [], set(), []
    for pan, ms in match_paths(pans, mss):
        try:
            pair = match_pair(pan, ms, shift, bands)
        except UserError as error:
            if strict or can_be_opened(pan, ms):
                raise
            broken.append(error)
            remarks.append(f"{error}; this pair is left out")
            continue
        count = len(pair.indexes or range(describe(ms).count))
        if bands and len(bands) != count:
            raise UserError(f"--bands has {len(bands)} names, {ms} has {count} bands")
        pair = pair.inside(area) if area else pair
        name = place_of(ms)
        name = name if name not in names else str(ms)
        names.add(name)
        remarks += pair.remarks
        tiles.append(Tile(name, name, pair, {}))
    if not tiles:
        raise broken[0]
    first = tiles[0].pair
    for tile in tiles[1:]:
        if (tile.pair.ratio, tile.pair.bands) != (first.ratio, first.bands):
            raise UserError(
                f"{tile.pair.ms} has ratio {tile.pair.ratio} and bands {', '.join(tile.pair.bands)}, {first.ms} has {first.ratio} "
                f"and {', '.join(first.bands)}; make their chips in separate folders"
            )
    return tiles, remarks


def can_be_opened(*paths):
    """Whether all of these rasters can be: a pair that can't be matched although they can is a mistake of who named them."""
    try:
        return bool([describe(path) for path in paths])
    except UserError:
        return False


def scale_of_pair(pair, divide_by=None, offset=None):
    """
    (divide_by, offset), one number each for both images: from flags, else from the tags of ms.

    UserError where neither says, and where the tags of the two say different things and no flag vouches for it.
    """
    info, indexes = bands_of(pair)
    if divide_by is None:
        compare_tags(pair, offset is not None)
    numbers = [parse_numbers(text, flag, len(indexes)) for text, flag in ((divide_by, "--divide-by"), (offset, "--offset"))]
    scale = decide_scale(info, indexes, pair.bands, *numbers)
    if len(set(scale.divide_by)) > 1 or len(set(scale.offset)) > 1:
        raise UserError(f"{pair.ms} has a scale for each band; pan and ms must share one: pass a single --divide-by and --offset")
    return scale.divide_by[0], scale.offset[0]


def bands_of(pair):
    """(RasterInfo, zero-based bands that are read) of ms."""
    info = describe(pair.ms)
    return info, [i - 1 for i in pair.indexes or range(1, info.count + 1)]


def compare_tags(pair, offset_given):
    """UserError where the tags of ms and pan state different scales, or only one of them states any. offset_given: by a flag, for both."""
    ms, pan = scale_from_tags(*bands_of(pair)), scale_from_tags(describe(pair.pan), [pair.pan_band - 1])
    if (ms is None or pan is None) and (ms is pan or offset_given):
        return
    if ms and len(set(zip(ms.divide_by, ms.offset, strict=True))) > 1:
        return  # which scale_of_pair refuses for itself
    if ms and pan and close(ms.divide_by[0], pan.divide_by[0]) and (offset_given or close(ms.offset[0], pan.offset[0])):
        return
    of_ms, of_pan = (f"divisor {t.divide_by[0]:g} and offset {t.offset[0]:g}" if t else "nothing of a scale" for t in (ms, pan))
    raise UserError(f"the tags of {pair.pan} say {of_pan}, those of {pair.ms} {of_ms}; both must share one scale: pass the right one with "
                    "--divide-by and --offset, or bring both images to one")


def close(one, other):
    """Whether two numbers of tags are the same one: some programs keep them as float32."""
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-6)


def scale_of_pairs(tiles, divide_by=None, offset=None):
    """(divide_by, offset) that all pairs of a chip set share; UserError that names two whose tags differ."""
    scales = [scale_of_pair(tile.pair, divide_by, offset) for tile in tiles]
    for tile, scale in zip(tiles, scales, strict=True):
        if not all(map(close, scale, scales[0])):
            raise UserError(
                f"{tile.pair.ms} says divisor {scale[0]:g} and offset {scale[1]:g}, {tiles[0].pair.ms} says {scales[0][0]:g} and "
                f"{scales[0][1]:g}; make their chips in separate folders, or pass --divide-by and --offset where tags are wrong"
            )
    return scales[0]
