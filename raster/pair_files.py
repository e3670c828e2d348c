"""Pan and ms files that belong together by their names, and the one scale that both share."""

import contextlib
import math
import re
from collections import defaultdict

from raster.product_scene import ProductScene
from raster.products import list_scenes
from raster.scale import decide_scale, parse_numbers, scale_from_tags, scale_words
from raster.source import describe, list_rasters, scene_name
from runtime.errors import UserError

# parts of a name that tell the two apart and say nothing about the place
KIND = re.compile(r"(?i)(^|[-_. ])(pan|panchromatic|ms|mul|mss|multispectral|m|p)(?=[-_. ]|$)")


def place_of(path):
    """`worldview2-pan.tif` and `worldview2-ms.tif` -> `worldview2`."""
    return KIND.sub("", scene_name(path)) or scene_name(path)


def match_paths(pans, mss):
    """[(pan path, ms path)] of two lists of patterns: one of each is a pair, several are paired by their names without "pan" and "ms"."""
    pans, mss = (rasters_of(patterns, flag) for patterns, flag in ((pans, "--pan"), (mss, "--ms")))
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
            f"pan and ms files don't pair up by name: {name!r} has {len(p)} pan and {len(m)} ms; "
            "pass files that differ in 'pan' and 'ms' only"
        )
    return [(p[0], m[0]) for _, (p, m) in sorted(places.items())]


def rasters_of(patterns, flag):
    """Paths of rasters. UserError, also for delivered products."""
    try:
        return list_rasters(patterns)
    except UserError as error:
        products = []
        with contextlib.suppress(UserError):
            products = [scene for scene in list_scenes(patterns) if isinstance(scene, ProductScene)]
        if not products:
            raise
        raise UserError(f"{flag} {products[0]} is a delivered product; of those that are read only Maxar ARD has a pan band: pass the "
                        "…-pan.tif and …-ms.tif in it") from error


def scale_of_pair(pair, divide_by=None, offset=None):
    """
    (divide_by, offset), one number each for both images: from flags (text or a number), else from the tags of ms.

    UserError where neither states one, and where the tags of the two differ and no flag decides.
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
    if ms and pan and same_number(ms.divide_by[0], pan.divide_by[0]) and (offset_given or same_number(ms.offset[0], pan.offset[0])):
        return
    of_ms, of_pan = (scale_words(t) if t else "nothing of a scale" for t in (ms, pan))
    raise UserError(f"the tags of {pair.pan} say {of_pan}, those of {pair.ms} {of_ms}; pass one scale with --divide-by and --offset")


def same_number(one, other):
    """Whether two numbers of tags are the same one: some programs keep them as float32."""
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-6)
