"""Judges the windows of a tile and makes their chips: what one worker of make-chips does."""

import contextlib
from dataclasses import asdict

import rasterio
from rasterio.errors import RasterioError

from chipping.chip_window import finish_with_blur, finish_with_means, read_ms_window
from chipping.pan_sums import PanSums
from chipping.sources import source_of_pair, stamps_of_pair, tile_settings
from chipping.window_walk import NODATA, READ_ERROR
from raster.pair import PairReader
from runtime.errors import UserError
from runtime.files import read_json, settings_hash, write_json
from runtime.workers import stopping
from vectors.footprint import footprint, pixel_corners

CACHE_BYTES = 192 << 20  # of GDAL for decoded blocks, in each worker; less decodes shared blocks twice, more only takes memory
OPEN = {}  # the last tile of this process, still open: GDAL's block cache belongs to the open file


def reader_for(pair):
    """(PairReader, PanSums) of a pair."""
    if pair not in OPEN:
        close_readers()
        stack = contextlib.ExitStack()
        reader = stack.enter_context(PairReader(pair))
        OPEN[pair] = reader, PanSums(reader), stack
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES))
    return OPEN[pair][:2]


def close_readers():
    while OPEN:
        OPEN.popitem()[1][-1].close()


def judge(task):
    """[verdict] of a task, see verdicts_of: for a pool, whose results come a task at a time."""
    return list(verdicts_of(task))


def verdicts_of(task):
    """
    Verdicts on windows of one tile, as they come: dicts with i, left, top, valid_ms, valid_pan (shares) and reason, None for a chip.

    task: (recipe, tile, [(i, left, top)], folder), see TileJudge.
    """
    recipe, tile, windows, folder = task
    try:
        tile_judge = TileJudge(recipe, tile, folder)
    except (UserError, FileNotFoundError) as error:
        yield from (verdict_of(i, x, y, reason=READ_ERROR, detail=str(error)) for i, x, y in windows)
        return
    for i, left, top in sorted(windows, key=lambda w: (w[2], w[1])):
        if stopping():
            return
        yield tile_judge.recall(i) or tile_judge.judge(i, left, top)


class TileJudge:
    """
    Judges windows of a tile. Each chip and its verdict are stored in the folder as i.pt and i.json; where that is None, windows are only
    judged.
    """

    def __init__(self, recipe, tile, folder):
        self.recipe, self.tile, self.folder = recipe, tile, folder
        # all that decides a tile's chips: the recipe, where its windows lie, and its files' sizes and times
        self.origin = settings_hash([asdict(recipe), tile_settings(tile), stamps_of_pair(source_of_pair(tile.pair))])
        self.reader, self.pan_sums = reader_for(tile.pair)

    def judge(self, i, left, top):
        """One window's verdict, after its chip is in the folder if it makes one. Pan is not read where ms has too much nodata."""
        recipe, valid_ms = self.recipe, None
        try:
            valid_ms, ms = read_ms_window(self.reader, recipe, left, top)
            if ms is None:
                return verdict_of(i, left, top, valid_ms, reason=NODATA)
            if recipe.reduction == "box":
                valid_pan, parts = finish_with_means(self.pan_sums, recipe, left, top, valid_ms, ms)
            else:
                valid_pan, parts = finish_with_blur(self.reader, recipe, left, top, ms)
        except RasterioError as error:
            path = self.tile.pair.ms if valid_ms is None else self.tile.pair.pan
            detail = f"{path}: {' '.join(str(error.__cause__ or error).split())[:200]}"
            return verdict_of(i, left, top, valid_ms, reason=READ_ERROR, detail=detail)
        verdict = verdict_of(i, left, top, valid_ms, valid_pan, reason=None if parts else NODATA)
        if parts and self.folder:
            self.store(verdict, parts)
        return verdict

    def store(self, verdict, parts):
        """parts: (pan, mul, bands, valid), see chipping/chip_window.py."""
        from chipping.pan_chips import encode_chip, write_chip  # here, since it imports torch, which a parent of workers does not need

        recipe, tile, (i, left, top) = self.recipe, self.tile, (verdict[key] for key in ("i", "left", "top"))
        lat, lon = window_centre(tile, recipe, left, top)
        meta = {"tile": tile.name, "cid": tile.cid, "i": i, "left": left, "top": top}
        if lat is not None:
            meta |= {"lat": lat, "lon": lon}
        write_chip(self.folder / f"{i}.pt", encode_chip(*parts, meta, recipe.bands, recipe.store, recipe.dtype))
        write_json(self.folder / f"{i}.json", {**verdict, "origin": self.origin}, sync=False)

    def recall(self, i):
        """The verdict on window i that an interrupted run stored with its chip; None where there is none, or one of another origin."""
        if self.folder is None or not (self.folder / f"{i}.json").exists() or not (self.folder / f"{i}.pt").exists():
            return None
        try:
            verdict = read_json(self.folder / f"{i}.json")
        except UserError:  # a power cut came before it was on the disk
            return None
        return verdict if verdict.pop("origin", None) == self.origin else None


def verdict_of(i, left, top, valid_ms=None, valid_pan=None, reason=None, detail=None):
    fields = {"i": i, "left": left, "top": top, "valid_ms": rounded(valid_ms), "valid_pan": rounded(valid_pan), "reason": reason}
    return fields | ({"detail": detail} if detail else {})


def rounded(share):
    return None if share is None else round(share, 6)


def window_centre(tile, recipe, left, top):
    """(lat, lon) of the middle of a window, 5 decimals (about a metre); (None, None) without georeference."""
    pair, half = tile.pair, recipe.window / 2
    corners = pixel_corners(pair.transform, (pair.area[0] + left + half, pair.area[1] + top + half, 0, 0)) if pair.crs else None
    position = footprint(pair.crs, corners) if pair.crs else None
    return (None, None) if position is None else (round(position[0][1], 5), round(position[0][0], 5))
