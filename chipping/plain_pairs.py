"""Pan and ms rasters that lie around anywhere, as tiles for make-chips."""

from raster.ard import Tile
from raster.pair import match_pair
from raster.pair_files import match_paths, place_of, same_number, scale_of_pair
from raster.source import describe
from runtime.errors import UserError


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


def scale_of_pairs(tiles, divide_by=None, offset=None):
    """(divide_by, offset) that all pairs of a chip set share; UserError that names two whose tags differ."""
    scales = [scale_of_pair(tile.pair, divide_by, offset) for tile in tiles]
    for tile, scale in zip(tiles, scales, strict=True):
        if not all(map(same_number, scale, scales[0])):
            raise UserError(
                f"{tile.pair.ms} says divisor {scale[0]:.12g} and offset {scale[1]:.12g}, {tiles[0].pair.ms} says {scales[0][0]:.12g} and "
                f"{scales[0][1]:.12g}; make their chips in separate folders, or pass --divide-by and --offset where tags are wrong"
            )
    return scales[0]
