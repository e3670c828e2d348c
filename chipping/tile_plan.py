"""Where the tiles of an image lie, and what becomes of its boxes in each of them."""

import hashlib
from typing import NamedTuple

import numpy as np

from raster.windows import starts
from runtime.errors import UserError

LEAST_SIDE = 1.0  # pixels: a clipped box that is thinner says nothing of an object


class TileBoxes(NamedTuple):
    """
    kept: (K,) indices of boxes that count in a tile. clipped: (K, 4) these in the tile's pixels. visible: (K,) share of each that the tile
    shows. ignore: (M, 4) the parts of the others, in the tile's pixels: neither object nor background.
    """

    kept: np.ndarray
    clipped: np.ndarray
    visible: np.ndarray
    ignore: np.ndarray


def tile_positions(length, tile, overlap):
    """
    First pixels of the tiles along a side: every pixel is in one, neighbours share `overlap` pixels, the last is snapped to the edge.

    A side that is shorter than a tile has one tile, which reaches beyond it.
    """
    check_overlap(tile, overlap)
    return starts(length, tile, tile - overlap)


def check_overlap(tile, overlap):
    if not 0 <= overlap < tile:
        raise UserError(f"an overlap of {overlap} pixels does not fit tiles of {tile}; pass --overlap below --tile-size")


def tiles_of(width, height, tile_size, overlap):
    """(T, 4) int64 x0, y0, x1, y1 of an image's tiles, row by row. tile_size: (width, height). They may reach beyond a small image."""
    wide, tall = tile_size
    xs, ys = tile_positions(width, wide, overlap), tile_positions(height, tall, overlap)
    y, x = (grid.ravel() for grid in np.meshgrid(ys, xs, indexing="ij"))
    return np.stack([x, y, x + wide, y + tall], axis=1).astype(np.int64).reshape(-1, 4)


def boxes_of_tile(boxes, tile, min_visibility):
    """
    TileBoxes of one tile. boxes: (N, 4) float64 x0, y0, x1, y1 in pixels of the image. tile: x0, y0, x1, y1.

    A box counts where the tile shows at least min_visibility of its area, and 1 pixel in each direction.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    x0, y0, x1, y1 = tile
    inside = np.clip(boxes, (x0, y0, x0, y0), (x1, y1, x1, y1))
    wide, tall = inside[:, 2] - inside[:, 0], inside[:, 3] - inside[:, 1]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    meets = (wide > 0) & (tall > 0)
    visible = np.where(meets, wide * tall / np.where(area > 0, area, 1), 0.0)
    thin = np.minimum(wide, tall) < np.minimum(LEAST_SIDE, np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]))
    counts = meets & (visible >= min_visibility) & ~thin
    shifted = inside - (x0, y0, x0, y0)
    return TileBoxes(np.flatnonzero(counts), shifted[counts], visible[counts], shifted[meets & ~counts])


def regions_of_tile(regions, tile):
    """(M, 4) the parts of ignore regions that lie in a tile, in its pixels."""
    x0, y0, x1, y1 = tile
    inside = np.clip(np.asarray(regions, np.float64).reshape(-1, 4), (x0, y0, x0, y0), (x1, y1, x1, y1))
    return (inside - (x0, y0, x0, y0))[(inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])]


def candidates(boxes, tiles):
    """
    For each tile the (sorted) indices of boxes that may meet it, as a list of arrays: all pairs are found in one pass.

    tiles: of tiles_of. boxes: (N, 4).
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    if not len(boxes) or not len(tiles):
        return [np.empty(0, np.int64)] * len(tiles)
    xs, ys = np.unique(tiles[:, 0]), np.unique(tiles[:, 1])
    wide, tall = tiles[0, 2] - tiles[0, 0], tiles[0, 3] - tiles[0, 1]
    first = np.searchsorted(xs + wide, boxes[:, 0], "right"), np.searchsorted(ys + tall, boxes[:, 1], "right")
    last = np.searchsorted(xs, boxes[:, 2], "left"), np.searchsorted(ys, boxes[:, 3], "left")
    across, down = (np.maximum(b - a, 0) for a, b in zip(first, last, strict=True))
    pairs = across * down
    box = np.repeat(np.arange(len(boxes)), pairs)
    nth = np.arange(pairs.sum()) - np.repeat(np.cumsum(pairs) - pairs, pairs)
    width = np.repeat(np.maximum(across, 1), pairs)
    tile = (np.repeat(first[1], pairs) + nth // width) * len(xs) + np.repeat(first[0], pairs) + nth % width
    order = np.lexsort((box, tile))
    return np.split(box[order], np.cumsum(np.bincount(tile, minlength=len(tiles)))[:-1])


def draw_of(name, x0, y0, seed):
    """A number 0..1 for a tile: one without objects is kept where the number is below --negatives. It depends on nothing else."""
    digest = hashlib.sha256(f"{seed} {x0} {y0} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
