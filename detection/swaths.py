"""
The rows of tiles of an image as strips of pixels in bounded memory: full width, or one piece of the width after the other.

An image of moderate width is read from top to bottom, each block once. Of a wide one that is stored in tiles, pieces of its width are read
for each row of tiles, so that memory does not grow with the width either; blocks that two rows of tiles share are then decoded twice.
"""

from dataclasses import dataclass

import numpy as np
import rasterio
from rasterio.windows import Window

from mapping.background import ReadAhead
from mapping.reading import CACHE_BYTES, Slab, read_piece, read_slabs, stored_type
from mapping.segmentation import Strip
from raster.source import open_raster

WIDE = 6144  # pixels of width from which on an image is read in pieces
PIECE = 2048  # pixels of a piece's width, about


@dataclass(frozen=True)
class Swath:
    """
    A piece of an image's width. columns: first columns of its tiles. left, right: columns that its pixels cover. own: the first column that
    belongs to the next piece.
    """

    columns: list
    left: int
    right: int
    own: int


def swaths_of(info, grid):
    """[Swath] of an image (RasterInfo): one where it is not wide, or stored in blocks that are."""
    if info.width <= WIDE or max(width for _, width in info.block_shapes) > PIECE:
        return [Swath(grid.columns, 0, info.width, info.width)]
    each = max(1, (PIECE - grid.across) // grid.step + 1)
    groups = [grid.columns[n : n + each] for n in range(0, len(grid.columns), each)]
    following = [group[0] for group in groups[1:]] + [info.width]
    return [Swath(group, group[0], min(info.width, group[-1] + grid.across), own) for group, own in zip(groups, following, strict=True)]


def strips_of_rows(plan, aoi, grid, start_row, strict, device):
    """
    For each row of tiles from `start_row` on (first row, row of the next one, iterator of (Swath, Strip), which is to be used up).

    plan: mapping.inputs.SceneInput. aoi: see mapping.reading.read_slabs. The Strip begins with the swath's first column.
    """
    swaths = swaths_of(plan.info, grid)
    rows = [(top, below) for top, below in zip(grid.rows, [*grid.rows[1:], grid.height], strict=True) if top >= start_row]
    if len(swaths) == 1:
        with ReadAhead(read_slabs(plan, aoi, start_row, strict, max(grid.size, grid.across))) as slabs:
            strip = Strip(slabs, grid.size, grid.width, device, grid.across)
            for top, below in rows:
                strip.move_to(top)
                yield top, below, iter([(swaths[0], strip)])
        return
    with ReadAhead(read_swaths(plan, aoi, grid, swaths, [top for top, _ in rows], strict)) as slabs:
        slabs, strips = iter(slabs), {}
        for top, below in rows:
            yield top, below, ((swath, strip_of(next(slabs), swath, top, grid, device, strips)) for swath in swaths)


def strip_of(slab, swath, top, grid, device, strips):
    """The Strip of one slab, in the memory of the one before of its width. strips: {width: Strip}."""
    width = swath.right - swath.left
    if width in strips:
        strips[width].restart([slab])
    else:
        strips[width] = Strip([slab], grid.size, width, device, grid.across)
    strips[width].move_to(top)
    return strips[width]


def read_swaths(plan, aoi, grid, swaths, tops, strict):
    """A Slab for each swath of each row of tiles. Whole blocks are read, so that one that is damaged is the same one in every reading."""
    info = plan.info
    high, wide = info.block_shapes[plan.indexes[0] - 1]
    store = stored_type(info.dtypes[i - 1] for i in plan.indexes)
    with open_raster(info.path) as dataset, rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        for top in tops:
            first, last = top // high * high, min(info.height, -(-min(top + grid.size, info.height) // high) * high)
            wanted = aoi(first, last - first) if aoi else None
            for swath in swaths:
                left, right = swath.left // wide * wide, min(info.width, -(-swath.right // wide) * wide)
                valid = np.zeros((last - first, right - left), bool)
                slab = Slab(first, np.zeros((len(plan.indexes), *valid.shape), store), valid, [], column=left)
                if wanted is None or wanted[:, left:right].any():
                    read_piece(dataset, plan, Window(left, first, right - left, last - first), slab, (high, wide), strict)
                own = slice(swath.left - left, swath.right - left)
                unreadable = [block for block in slab.unreadable if swath.left <= block[1] < swath.own]
                yield Slab(first, slab.pixels[:, :, own], valid[:, own], unreadable, None if wanted is None else
                           wanted[:, swath.left : swath.right], swath.left)
