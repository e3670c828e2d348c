"""Chooses the windows that make-chips looks at next."""

from collections import defaultdict

from rasterio.errors import RasterioError

from chipping.nodata_blocks import expected_share, filled_blocks
from chipping.positions import count_places, place
from runtime.errors import UserError

REJECTS_TO_RETIRE = 32  # windows in a row without one chip, after which a tile is given up
READ_ERRORS_TO_RETIRE = 3

# Why a window becomes no chip, as sets of all versions have it in skipped.jsonl
NODATA = "nulls"
READ_ERROR = "read-error"
BEFORE_START = "before-start"  # it would be a chip before --starting-from


class Walk:
    """
    Which windows come next, tile by tile in turn, and what became of those before.

    A resumed run rebuilds this state from manifest.jsonl and skipped.jsonl. tiles: sorted by name.
    """

    def __init__(self, tiles, recipe):
        self.tiles, self.recipe = tiles, recipe
        self.cursor = 0
        self.rejects, self.errors = defaultdict(int), defaultdict(int)
        self.successes = set()
        self.retired = set()
        self.accepted = 0  # chips so far, those before --starting-from included
        self.used = defaultdict(set)  # tile: (left, top) of its windows so far; none is taken twice
        self.blocks = {}  # path of ms: what filled_blocks tells of it

    def room(self, tile):
        """(free_x, free_y, side) of a tile's windows, see chipping/positions.py."""
        side = self.recipe.window
        return tile.pair.area[2] - side, tile.pair.area[3] - side, side

    def position(self, i):
        """(tile, left, top) of window i; left is None past the end of a grid."""
        tile = self.tiles[i % len(self.tiles)]
        xy = place(self.recipe.sampler, tile.name, i // len(self.tiles), *self.room(tile))
        return (tile, *xy) if xy else (tile, None, None)

    def next_batch(self, wanted):
        """
        Windows (i, tile, left, top) in order, of which about `wanted` will make a chip; fewer where a tile may have to be retired first.

        Windows that seem to be nodata do not count as wanted: their substitutes in a later batch would decode the same blocks again.
        """
        batch, hopeful, pending = [], 0, defaultdict(set)
        i = self.cursor
        while hopeful < wanted and len(batch) < 2 * wanted + len(self.tiles) and len(self.retired) < len(self.tiles):
            tile, left, top = self.position(i)
            i += 1
            if tile.name in self.retired:
                continue
            coming = pending[tile.name]
            if left is None or len(self.used[tile.name]) + len(coming) == count_places(self.recipe.sampler, *self.room(tile)):
                if coming:
                    break
                self.retired.add(tile.name)
                continue
            if (left, top) in self.used[tile.name] or (left, top) in coming:
                continue
            if tile.name not in self.successes and len(coming) >= REJECTS_TO_RETIRE - self.rejects[tile.name]:
                break
            coming.add((left, top))
            batch.append((i - 1, tile, left, top))
            hopeful += self.seems_filled(tile.pair, left, top)
        return batch

    def seems_filled(self, pair, left, top):
        """Whether a window of ms seems to have enough pixels that are not nodata, told from the sizes of its compressed blocks."""
        if pair.ms not in self.blocks:
            try:
                self.blocks[pair.ms] = filled_blocks(pair.ms)
            except (UserError, RasterioError):
                self.blocks[pair.ms] = None  # the worker that opens it reports it
        corner = ((offset + at) * pair.step for offset, at in zip(pair.area[:2], (left, top), strict=True))
        return expected_share(self.blocks[pair.ms], *corner, self.recipe.window * pair.step) >= self.recipe.minimum_valid

    def is_next(self, i):
        """Whether window i is the one that comes next: all before it are done, or passed over."""
        return all(self.passes_over(j) for j in range(self.cursor, i))

    def passes_over(self, i):
        """Whether window i is not considered: of a retired or used up tile, or at a place that was taken."""
        tile, left, top = self.position(i)
        return (
            tile.name in self.retired or left is None or (left, top) in self.used[tile.name]
            or len(self.used[tile.name]) == count_places(self.recipe.sampler, *self.room(tile))
        )

    def record(self, i, tile_name, corner, reason):
        """Take window i at corner (left, top) as done. reason: None or BEFORE_START for one that makes a chip."""
        self.cursor = i + 1
        self.used[tile_name].add(corner)
        if reason in (None, BEFORE_START):
            self.successes.add(tile_name)
            self.accepted += 1
            return
        self.rejects[tile_name] += 1
        self.errors[tile_name] += reason == READ_ERROR
        no_success = tile_name not in self.successes and self.rejects[tile_name] >= REJECTS_TO_RETIRE
        if no_success or self.errors[tile_name] >= READ_ERRORS_TO_RETIRE:
            self.retired.add(tile_name)
